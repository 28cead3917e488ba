//! B98: configurations that cannot be honoured are refused at create, with the field's name.

use serde_json::{Value, json};

use crate::harness::{Bundle, Kind, kind, known_difference};

/// `create` refuses it, names the field (in words, or as a pointer in the log), and leaves nothing.
#[track_caller]
fn refused(bundle: Bundle, field: &str) {
    let outcome = bundle.create();
    outcome.fails();
    if kind_is_ours() {
        outcome.fails_with(field);
    }
    bundle.state().fails();
    assert!(!bundle.cgroup().exists(), "{field}: the cgroup is left");
}

fn kind_is_ours() -> bool {
    kind() != Kind::Crun && kind() != Kind::Runc
}

fn base() -> Bundle {
    Bundle::new().args(["true"])
}

#[test]
fn b98_names_need_a_uts_namespace() {
    refused(base().without_ns("uts"), "/hostname");
    if known_difference("crun", "would set it on the host") {
        return;
    }
    refused(base().without_ns("uts").unset("/hostname").set("/domainname", "x"), "/domainname");
}

#[test]
fn b98_a_domain_name_and_its_sysctl_exclude_each_other() {
    if known_difference("crun", "takes both") || known_difference("runc", "takes both") {
        return;
    }
    let container = base().set("/domainname", "x").set("/linux/sysctl", json!({"kernel.domainname": "y"}));
    refused(container, "domainname");
}

#[test]
fn b98_time_offsets_need_a_time_namespace() {
    if known_difference("crun", "ignores them") {
        return;
    }
    refused(base().set("/linux/timeOffsets", json!({"boottime": {"secs": 1}})), "/linux/timeOffsets");
}

#[test]
fn b98_net_devices_need_a_network_namespace() {
    let container = base().without_ns("network").without_mount("/sys").without_mount("/sys/fs/cgroup");
    let container = container.set("/linux/netDevices", json!({"lo": {}}));
    if known_difference("crun", "ignores them") || known_difference("runc", "ignores them up to 1.3") {
        return;
    }
    refused(container, "/linux/netDevices");
}

#[test]
fn b98_masks_need_a_mount_namespace() {
    if known_difference("crun", "masks the host's") || known_difference("runc", "ignores them") {
        return;
    }
    let container = || base().without_ns("mount").set("/mounts", json!([]));
    refused(container().set("/linux/maskedPaths", json!(["/proc/kcore"])).unset("/linux/readonlyPaths"), "maskedPaths");
    refused(container().unset("/linux/maskedPaths").set("/linux/readonlyPaths", json!(["/proc/sys"])), "readonlyPaths");
}

#[test]
fn b98_values_of_the_wrong_type_are_named() {
    let cases: [(&str, Value); 9] = [
        ("/process/args", json!("sh")),
        ("/process/args", json!([])),
        ("/process/user/uid", json!(-1)),
        ("/process/user/uid", json!("0")),
        ("/process/env", json!({"A": "b"})),
        ("/process/terminal", json!("no")),
        ("/mounts", json!({})),
        ("/linux/namespaces", json!([{"type": 5}])),
        ("/process/rlimits", json!([{"type": "RLIMIT_CORE", "soft": "x", "hard": 1}])),
    ];
    for (pointer, value) in cases {
        if known_difference("crun", "takes some of them") {
            return;
        }
        refused(base().set(pointer, value), pointer);
    }
}

#[test]
fn b98_an_object_is_nothing_else() {
    if known_difference("crun", "takes some of them") {
        return;
    }
    let in_list = |value: &Value| value.as_object().expect("an object").values().cloned().collect::<Value>();
    let full = || {
        base()
            .set("/hooks", json!({"prestart": [{"path": "/bin/true"}]}))
            .set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["swapon"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}]}))
            .set("/linux/resources", json!({"cpu": {}, "memory": {}, "blockIO": {}, "unified": {},
                "devices": [{"allow": false, "access": "rwm"}]}))
            .set("/linux/sysctl", json!({}))
            .set("/linux/personality", json!({"domain": "LINUX"}))
            .set("/annotations", json!({}))
            .set("/process/rlimits", json!([{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]))
    };
    full().run().ok();
    for pointer in [
        "/annotations",
        "/hooks",
        "/hooks/prestart/0",
        "/linux",
        "/linux/namespaces/0",
        "/linux/personality",
        "/linux/resources",
        "/linux/resources/blockIO",
        "/linux/resources/cpu",
        "/linux/resources/devices/0",
        "/linux/resources/memory",
        "/linux/resources/pids",
        "/linux/resources/unified",
        "/linux/seccomp",
        "/linux/seccomp/syscalls/0",
        "/linux/seccomp/syscalls/0/args/0",
        "/linux/sysctl",
        "/mounts/0",
        "/process",
        "/process/capabilities",
        "/process/rlimits/0",
        "/process/user",
        "/root",
    ] {
        // The limit of processes is only given where it is wrong: not every machine has the controller.
        let fields = full().config().pointer(pointer).map_or(json!([100]), in_list);
        for (value, kind) in [
            (fields, "an array"),
            (json!([]), "an array"),
            (json!(100), "a number"),
            (json!("x"), "a string"),
            (json!(true), "a boolean"),
        ] {
            let outcome = full().set(pointer, value).create();
            outcome.fails();
            if kind_is_ours() {
                outcome.fails_with(&format!("{pointer}: must be an object, not {kind}"));
            }
        }
    }
    refused(full().set("/process/user", json!([1000, 1000])), "/process/user: must be an object, not an array");
    refused(full().set("/linux/resources/pids", 100), "/linux/resources/pids: must be an object, not a number");
}

#[test]
fn b98_the_limit_of_processes_is_never_lost() {
    if known_difference("crun", "takes it for none") || known_difference("runc", "knows fields in any case") {
        return;
    }
    let limit = |pids: Value| base().set("/linux/resources/pids", pids);
    refused(limit(json!({"Limit": 50})), "/linux/resources/pids: missing field `limit`");
    limit(json!({})).run().ok();
}

#[test]
fn a_process_without_a_user_is_root() {
    let program = || Bundle::new().sh("echo $(id -u):$(id -g)");
    program().unset("/process/user").run().ok().prints("0:0");
    program().set("/process/user", Value::Null).run().ok().prints("0:0");
}

#[test]
fn bytes_behind_the_configuration_are_ignored_with_a_warning() {
    let bundle = base();
    for rest in ["}\n", "]}}\n}\n", "{\"ociVersion\": \"9\"}", "\0\0"] {
        bundle.write();
        let file = bundle.path().join("config.json");
        let text = std::fs::read_to_string(&file).expect("config.json");
        let end = text.trim_end().len();
        std::fs::write(&file, text + rest).expect("write config.json");
        let dir = bundle.path().to_str().expect("a plain path");
        let outcome = bundle.cmd(["run", "--bundle", dir, bundle.name()]).run();
        outcome.ok();
        if !known_difference("crun", "says nothing") && !known_difference("runc", "says nothing") {
            let said = format!("trailing data after the JSON value is ignored, from byte {end} on");
            assert!(outcome.says_one_of(&[&said]), "{rest:?}: {}", outcome.log());
        }
    }
}

#[test]
fn bytes_behind_other_documents_are_ignored_with_a_warning() {
    let container = Bundle::new().args(["sleep", "60"]);
    container.run_detached().ok();
    let process = json!({"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["/bin/echo", "hello"]}).to_string();
    let limits = json!({"cpu": {}, "memory": {}, "pids": {}}).to_string();
    let mounts = json!([{"destination": "/added", "type": "tmpfs", "source": "tmpfs"}]).to_string();
    let (exec, update, add) = (&["exec", "--process"][..], &["update", "--resources"], &["mounts", "add"]);
    for (words, text, prints) in [(exec, &process, "hello"), (update, &limits, ""), (add, &mounts, "")] {
        if words == add && known_difference("runc", "has no such command") {
            continue;
        }
        let file = container.host_file("document", &format!("{text}]}}\n"));
        let file = file.to_str().expect("a plain path");
        let words = match words == add {
            true => [words, &[container.name(), file]].concat(),
            false => [words, &[file, container.name()]].concat(),
        };
        let outcome = container.cmd(words).run();
        outcome.prints(prints);
        if !known_difference("crun", "says nothing") && !known_difference("runc", "says nothing") {
            let said = format!("trailing data after the JSON value is ignored, from byte {} on", text.len());
            assert!(outcome.says_one_of(&[&said]), "{}", outcome.log());
        }
    }
}

#[test]
fn b98_a_process_or_root_that_is_missing_is_named() {
    refused(base().unset("/root"), "root");
    if known_difference("crun", "lets it be missing") {
        return;
    }
    refused(base().unset("/process"), "process");
    refused(base().unset("/process/cwd"), "cwd");
}

#[test]
fn b98_unknown_fields_are_ignored() {
    let container = base().set("/futureField", json!({"a": [1]})).set("/process/future", 1).set("/linux/future", "x");
    container.run().ok();
}

#[test]
fn b98_versions_of_the_same_major_are_taken() {
    for version in ["1.0.0", "1.0.2-dev", "1.2.1", "1.9.9"] {
        base().set("/ociVersion", version).run().ok();
    }
}

#[test]
fn b98_numbers_may_be_written_with_a_fraction_of_nothing() {
    if known_difference("crun", "refuses it") || known_difference("runc", "refuses it") {
        return;
    }
    let text = base();
    text.write();
    let file = text.path().join("config.json");
    let config = std::fs::read_to_string(&file).expect("config.json").replace("\"soft\":1024", "\"soft\":1024.0");
    std::fs::write(&file, config).expect("write config.json");
    let bundle = text.path().to_str().expect("a plain path");
    text.cmd(["run", "--bundle", bundle, text.name()]).run().ok();
}

#[test]
fn b97_a_security_module_that_is_not_there_is_an_error() {
    let lsm = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    if !lsm.contains("apparmor") && !known_difference("crun", "ignores the profile") {
        refused(base().set("/process/apparmorProfile", "some-profile"), "apparmor");
    }
    if !lsm.contains("selinux") && !known_difference("crun", "tells no field") {
        refused(base().set("/process/selinuxLabel", "a_u:b_r:c_t:s0"), "selinux");
    }
}

#[test]
fn a_share_of_caches_needs_resctrl() {
    if std::fs::read_to_string("/proc/mounts").is_ok_and(|mounts| mounts.contains(" resctrl ")) {
        return crate::harness::skip("this machine has resctrl");
    }
    let bundle = base().set("/linux/intelRdt", json!({"closID": "gold", "l3CacheSchema": "L3:0=f"}));
    let outcome = bundle.create();
    outcome.fails_with_one_of(&["resctrl", "intelrdt", "rdt"]);
    bundle.state().fails_with("does not exist");
    assert!(!bundle.cgroup().exists());
    for wrong in ["..", "a/b", "info"] {
        if wrong == "info" && known_difference("runc", "takes any single name") {
            continue;
        }
        refused(base().set("/linux/intelRdt", json!({"closID": wrong})), "intelRdt");
    }
}
