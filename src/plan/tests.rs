//! Each field of a configuration replaced by each JSON type.

use oci_spec::runtime::{LinuxResources, LinuxSeccomp, Mount, Process, Spec};
use serde_json::{Value, json};

use super::config::{self, Part};
use crate::error::escape;

/// A configuration with every field that a Linux container can have.
fn everything() -> Value {
    let map = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
    let hooks = json!([{"path": "/hook", "args": ["hook"], "env": ["A=1"], "timeout": 5}]);
    let rate = json!([{"major": 8, "minor": 0, "rate": 600}]);
    json!({
        "ociVersion": "1.2.0",
        "hostname": "name",
        "domainname": "domain",
        "annotations": {"key": "value"},
        "root": {"path": "rootfs", "readonly": true},
        "mounts": [{"destination": "/x", "type": "bind", "source": "/tmp", "options": ["bind"],
            "uidMappings": map, "gidMappings": map}],
        "hooks": {"prestart": hooks, "createRuntime": hooks, "createContainer": hooks, "startContainer": hooks,
            "poststart": hooks, "poststop": hooks},
        "process": process(),
        "linux": {
            "uidMappings": map,
            "gidMappings": map,
            "netDevices": {"eth0": {"name": "eth1"}},
            "sysctl": {"net.ipv4.ip_forward": "1"},
            "cgroupsPath": "/a",
            "namespaces": [{"type": "mount"}, {"type": "network", "path": "/ns"}],
            "devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 438, "uid": 0, "gid": 0}],
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": ["SCMP_ARCH_X86_64"],
                "flags": ["SECCOMP_FILTER_FLAG_LOG"], "listenerPath": "/agent", "listenerMetadata": "x",
                "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1,
                    "args": [{"index": 0, "value": 1, "valueTwo": 1, "op": "SCMP_CMP_EQ"}]}]},
            "rootfsPropagation": "private",
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
            "mountLabel": "label",
            "intelRdt": {"closID": "gold", "l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=50", "schemata": ["L3:0=f"],
                "enableMonitoring": true},
            "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
            "personality": {"domain": "LINUX", "flags": ["x"]},
            "timeOffsets": {"boottime": {"secs": 1, "nanosecs": 1}},
            "resources": {
                "devices": [{"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}],
                "memory": {"limit": 1, "reservation": 1, "swap": 1, "kernel": 1, "kernelTCP": 1, "swappiness": 1,
                    "disableOOMKiller": true, "useHierarchy": true, "checkBeforeUpdate": true},
                "cpu": {"shares": 2, "quota": 1, "idle": 0, "burst": 1, "period": 1, "realtimeRuntime": 1,
                    "realtimePeriod": 1, "cpus": "0", "mems": "0"},
                "pids": {"limit": 7},
                "blockIO": {"weight": 10, "leafWeight": 10,
                    "weightDevice": [{"major": 8, "minor": 0, "weight": 10, "leafWeight": 10}],
                    "throttleReadBpsDevice": rate, "throttleWriteBpsDevice": rate,
                    "throttleReadIOPSDevice": rate, "throttleWriteIOPSDevice": rate},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
                "network": {"classID": 1, "priorities": [{"name": "eth0", "priority": 1}]},
                "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10}},
                "unified": {"memory.high": "1"},
            },
        },
    })
}

fn process() -> Value {
    let sets = ["CAP_CHOWN"];
    json!({
        "terminal": true,
        "consoleSize": {"height": 25, "width": 80},
        "user": {"uid": 1, "gid": 2, "umask": 18, "additionalGids": [3], "username": "x"},
        "args": ["sh"],
        "commandLine": "sh",
        "env": ["A=1"],
        "cwd": "/",
        "capabilities": {"bounding": sets, "effective": sets, "inheritable": sets, "permitted": sets, "ambient": sets},
        "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
        "noNewPrivileges": true,
        "apparmorProfile": "x",
        "oomScoreAdj": 1,
        "selinuxLabel": "x",
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
        "scheduler": {"policy": "SCHED_OTHER", "nice": 1, "priority": 0, "flags": ["SCHED_FLAG_RECLAIM"],
            "runtime": 1, "deadline": 1, "period": 1},
        "execCPUAffinity": {"initial": "0", "final": "0"},
    })
}

/// The pointers of all values of a document.
fn pointers(value: &Value, above: &str, found: &mut Vec<String>) {
    found.push(above.to_owned());
    match value {
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(index, value)| pointers(value, &format!("{above}/{index}"), found));
        }
        Value::Object(map) => {
            map.iter().for_each(|(name, value)| pointers(value, &format!("{above}/{}", escape(name)), found));
        }
        _ => {}
    }
}

/// What stands for a value: one of each JSON type, for an object its own values in a list, for a word an object with it.
fn others(value: &Value) -> Vec<Value> {
    let mut all = vec![json!(true), json!(7), json!(1.5), json!("x"), json!([]), json!([7]), json!([["x"]]), json!({})];
    all.push(json!({"x": 7}));
    match value {
        Value::Object(map) => all.push(map.values().cloned().collect()),
        Value::String(word) => all.push(json!({word: null})),
        _ => {}
    }
    all.retain(|other| std::mem::discriminant(other) != std::mem::discriminant(value) || other.is_f64());
    all
}

/// Replaces each value of a document; how many replacements were refused.
fn each_type_is_refused<T: Part>(sound: &Value) -> usize {
    config::parse::<T>(sound.to_string().as_bytes()).unwrap();
    let mut found = Vec::new();
    pointers(sound, "", &mut found);
    let mut count = 0;
    for pointer in found {
        for other in others(sound.pointer(&pointer).unwrap()) {
            let mut document = sound.clone();
            *document.pointer_mut(&pointer).unwrap() = other;
            // With spaces, as a person writes it, and without.
            for text in [document.to_string(), format!("{document:#}")] {
                let Err(error) = config::parse::<T>(text.as_bytes()) else { panic!("{pointer} is taken: {text}") };
                assert_eq!(error.field_name().unwrap_or_default(), pointer, "{error}: {text}");
                count += 1;
            }
        }
    }
    count
}

#[test]
fn a_field_of_another_type_is_refused_by_its_pointer() {
    let config = everything();
    // One after the other, since every text is parsed as a whole.
    let mut count = 0;
    for (name, section) in config.as_object().unwrap().iter().filter(|(name, _)| *name != "linux") {
        count += each_type_is_refused::<Spec>(&json!({name: section}));
    }
    for (name, section) in config["linux"].as_object().unwrap() {
        count += each_type_is_refused::<Spec>(&json!({"linux": {name: section}}));
    }
    assert!(count > 4000, "{count}");
    count = each_type_is_refused::<Process>(&config["process"]);
    assert!(count > 500, "{count}");
    count = each_type_is_refused::<LinuxResources>(&config["linux"]["resources"]);
    assert!(count > 1000, "{count}");
    count = each_type_is_refused::<Vec<Mount>>(&config["mounts"]);
    assert!(count > 100, "{count}");
    count = each_type_is_refused::<LinuxSeccomp>(&config["linux"]["seccomp"]);
    assert!(count > 300, "{count}");
}

#[test]
fn every_field_has_a_known_name() {
    assert_eq!(super::names::unknown(&everything()).len(), 0);
}

#[test]
fn a_field_that_is_null_is_none() {
    let parse = |document: &Value| config::parse::<Spec>(document.to_string().as_bytes()).map_err(|e| e.to_string());
    let sound = everything();
    for (above, name) in sound.as_object().unwrap().keys().map(|name| ("", name)).chain(
        ["/process", "/linux", "/hooks", "/linux/resources"]
            .into_iter()
            .flat_map(|above| sound.pointer(above).unwrap().as_object().unwrap().keys().map(move |name| (above, name))),
    ) {
        if ["ociVersion", "cwd"].contains(&name.as_str()) {
            continue;
        }
        let (mut null, mut none) = (sound.clone(), sound.clone());
        null.pointer_mut(above).unwrap()[name] = Value::Null;
        none.pointer_mut(above).unwrap().as_object_mut().unwrap().remove(name);
        assert_eq!(parse(&null).unwrap(), parse(&none).unwrap(), "{above}/{name}");
    }
}

#[test]
fn a_process_without_a_user_is_root_or_who_the_container_is() {
    let user = |text: &str| {
        let user = serde_json::from_value(json!({"uid": 7, "gid": 8, "additionalGids": [9], "umask": 18})).unwrap();
        let read = |user| config::parse_exec(text.as_bytes(), user).unwrap().user().clone();
        serde_json::to_value([read(None), read(Some(&user))]).unwrap()
    };
    let container = json!({"uid": 7, "gid": 8, "umask": 18, "additionalGids": [9]});
    for none in [r#"{"cwd":"/"}"#, r#"{"cwd":"/","user":null}"#] {
        assert_eq!(user(none), json!([{"uid": 0, "gid": 0}, container]));
    }
    assert_eq!(user(r#"{"cwd":"/","user":{"uid":1}}"#), json!([{"uid": 1, "gid": 0}, {"uid": 1, "gid": 0}]));
    assert_eq!(user(r#"{"cwd":"/","user":{}}"#), json!([{"uid": 0, "gid": 0}, {"uid": 0, "gid": 0}]));
}

#[test]
fn required_fields_that_the_types_would_make_up_are_missed() {
    for (pointer, value, field) in [
        ("/process/ioPriority", json!({}), "class"),
        ("/process/ioPriority", json!({"priority": 3}), "class"),
        ("/process/ioPriority", json!({"class": null, "priority": 3}), "class"),
        ("/linux/resources/pids", json!({"Limit": 50}), "limit"),
    ] {
        let mut document = everything();
        *document.pointer_mut(pointer).unwrap() = value;
        let error = config::parse::<Spec>(document.to_string().as_bytes()).unwrap_err();
        assert_eq!((error.field_name(), error.sentence()), (Some(pointer), format!("missing field `{field}`")));
    }
}

#[test]
fn the_first_value_of_a_text_counts() {
    for rest in ["", "\n", "}", "]}}\n}", r#"{"ociVersion":"9"}"#, "\0\0", "x", "["] {
        let spec: Spec = config::parse(format!(r#"{{"ociVersion":"1.2.0"}}{rest}"#).as_bytes()).unwrap();
        assert_eq!(spec.version(), "1.2.0", "{rest:?}");
    }
    let process: Process = config::parse(br#"{"cwd":"/"}}"#).unwrap();
    assert_eq!(process.cwd(), std::path::Path::new("/"));
    let resources: LinuxResources = config::parse(br#"{"pids":{"limit":7}} {"pids":{"limit":8}}"#).unwrap();
    assert_eq!(resources.pids().as_ref().map(|pids| pids.limit()), Some(7));
    assert_eq!(config::parse::<Vec<Mount>>(br#"[{"destination":"/x"}]]"#).unwrap().len(), 1);
    assert!(config::parse::<Spec>(br#"{"ociVersion":"1.2.0""#).is_err());
    assert!(config::parse::<Spec>(b"").is_err());
}
