//! Cgroups made by systemd: what it is asked, how often, and what is left when something goes wrong. A stand-in for
//! systemd makes the order and number of messages a test anywhere.

mod manager;
mod real;

use std::fs;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::{Bundle, Kind, Sandbox, eventually, kind, skip};
use manager::{BUS, Manager, Mood, PRIVATE, hide_run};

/// A sandbox with a manager; `None` for a peer, whose messages are its own affair.
fn managed(socket: &str) -> Option<(Arc<Sandbox>, Manager)> {
    if kind() != Kind::Corten {
        skip("the number and order of messages are corten's own");
        return None;
    }
    let sandbox = Sandbox::of_this_test();
    let manager = Manager::at(&sandbox, socket);
    Some((sandbox, manager))
}

fn bundle(sandbox: &Arc<Sandbox>) -> Bundle {
    let bundle = Bundle::inside(sandbox.clone()).global("--systemd-cgroup").args(["sleep", "60"]);
    let path = format!("a-b.slice:corten:{}", bundle.name());
    bundle.set("/linux/cgroupsPath", path)
}

fn unit(bundle: &Bundle) -> String {
    format!("corten-{}.scope", bundle.name())
}

/// The same bundle's commands without the flag: what made the container is on record.
fn plainly(bundle: &Bundle, args: &[&str]) -> crate::harness::Outcome {
    crate::harness::Cmd::new(bundle.sandbox(), args).run()
}

#[test]
fn a_life_takes_one_message_at_its_start_and_one_at_its_end() {
    let Some((sandbox, manager)) = managed(PRIVATE) else { return };
    let container = bundle(&sandbox);
    container.create().ok();
    assert_eq!(manager.members(), ["StartTransientUnit"]);
    let name = container.name();
    plainly(&container, &["state", name]).ok().shows("\"created\"");
    plainly(&container, &["start", name]).ok();
    plainly(&container, &["exec", name, "true"]).ok();
    plainly(&container, &["ps", name]).ok();
    plainly(&container, &["pause", name]).ok();
    plainly(&container, &["resume", name]).ok();
    plainly(&container, &["list"]).ok().shows(name);
    plainly(&container, &["kill", name, "KILL"]).ok();
    container.until("stopped");
    assert!(manager.members().is_empty());
    plainly(&container, &["delete", name]).ok();
    assert_eq!(manager.members(), ["StopUnit"]);
    assert!(!manager.unit(&unit(&container)).exists());
}

/// sd-bus writes in the byte order of its machine (`B` on s390x).
#[test]
fn a_systemd_that_answers_in_big_endian_order_is_understood() {
    for socket in [PRIVATE, BUS] {
        let Some((sandbox, manager)) = managed(socket) else { return };
        manager.set(Mood::BigEndian);
        let container = bundle(&sandbox);
        container.create().ok();
        assert!(manager.unit(&unit(&container)).exists());
        plainly(&container, &["delete", "--force", container.name()]).ok();
        let members: Vec<String> = manager.members().into_iter().filter(|member| member.contains("Unit")).collect();
        assert_eq!(members, ["StartTransientUnit", "StopUnit"]);
        assert!(!manager.unit(&unit(&container)).exists());
    }
}

#[test]
fn a_unit_that_systemd_has_taken_away_itself_needs_no_message() {
    let Some((sandbox, manager)) = managed(PRIVATE) else { return };
    let container = bundle(&sandbox).args(["true"]);
    container.create().ok();
    container.start().ok();
    container.until("stopped");
    manager.calls();
    fs::remove_dir(manager.unit(&unit(&container))).expect("an empty cgroup");
    container.delete().ok();
    assert!(manager.members().is_empty());
}

#[test]
fn the_unit_is_described_by_type_and_value() {
    let Some((sandbox, manager)) = managed(PRIVATE) else { return };
    let container = bundle(&sandbox);
    container.create().ok();
    let calls = manager.calls();
    let [start] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!(start.signature, "ssa(sv)a(sa(sv))");
    assert_eq!((&start.body[0], &start.body[1]), (&json!(unit(&container)), &json!("replace")));
    assert_eq!(start.body[3], json!([]));
    let has = |name: &str, of: &str, value: Value| {
        assert_eq!(start.property(name), Some((of.to_owned(), value)), "{name}");
    };
    has("Description", "s", json!(format!("corten container {}", container.name())));
    has("Slice", "s", json!("a-b.slice"));
    has("Delegate", "b", json!(true));
    has("PIDs", "au", json!([container.pid()]));
    for accounting in ["MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting"] {
        has(accounting, "b", json!(true));
    }
    has("DefaultDependencies", "b", json!(false));
    has("CollectMode", "s", json!("inactive-or-failed"));
    has("DevicePolicy", "s", json!("strict"));
    let (of, devices) = start.property("DeviceAllow").expect("DeviceAllow");
    assert_eq!(of, "a(ss)");
    for row in [["/dev/char/1:3", "rwm"], ["char-136", "rwm"], ["char-*", "m"], ["block-*", "m"]] {
        assert!(devices.as_array().unwrap().contains(&json!(row)), "{row:?} is not in {devices}");
    }
}

#[test]
fn device_rules_become_a_list_that_allows_at_least_as_much() {
    let Some((sandbox, manager)) = managed(PRIVATE) else { return };
    let rules = |rules: Value| {
        let container = bundle(&sandbox).set("/linux/resources/devices", rules);
        container.create().ok();
        let start = manager.calls().remove(0);
        container.delete_force().ok();
        manager.calls();
        let list = start.property("DeviceAllow").expect("DeviceAllow").1;
        (start.property("DevicePolicy").expect("DevicePolicy").1, list.as_array().unwrap().clone())
    };
    let (policy, list) = rules(json!([{"allow": true, "access": "rwm"}]));
    assert_eq!((policy, list), (json!("auto"), vec![]));
    let (policy, list) = rules(json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "b", "major": 8, "minor": 1, "access": "rw"},
        {"allow": true, "type": "c", "major": 5, "access": "r"},
        {"allow": true, "major": 9, "minor": 1, "access": "w"},
        {"allow": false, "type": "b", "major": 8, "minor": 1, "access": "w"}
    ]));
    assert_eq!(policy, json!("strict"));
    let rows = [["/dev/block/8:1", "rw"], ["char-5", "r"], ["/dev/char/9:1", "w"], ["/dev/block/9:1", "w"]];
    for row in rows {
        assert!(list.contains(&json!(row)), "{row:?} is not in {list:?}");
    }
}

#[test]
fn annotations_become_properties_and_nonsense_is_refused() {
    let Some((sandbox, manager)) = managed(PRIVATE) else { return };
    let with =
        |name: &str, text: &str| bundle(&sandbox).set(&format!("/annotations/org.systemd.property.{name}"), text);
    let container = with("TimeoutStopUSec", "uint64 30000000")
        .set("/annotations/org.systemd.property.After", "['crio.service']")
        .set("/annotations/org.systemd.property.DefaultDependencies", "true")
        .set("/annotations/org.systemd.property.KillSignal", "15")
        .set("/annotations/org.systemd.property.RuntimeMaxSec", "90");
    container.create().ok();
    let start = manager.calls().remove(0);
    let has = |name: &str, of: &str, value: Value| {
        assert_eq!(start.property(name), Some((of.to_owned(), value)), "{name}");
    };
    has("TimeoutStopUSec", "t", json!(30_000_000));
    has("After", "as", json!(["crio.service"]));
    has("DefaultDependencies", "b", json!(true));
    has("KillSignal", "i", json!(15));
    has("RuntimeMaxUSec", "t", json!(90_000_000));
    container.delete_force().ok();
    manager.calls();
    for (name, text) in
        [("After", "[]"), ("After", "['a'"), ("X1", "1"), ("Ab", "1"), ("PIDs", "[1]"), ("Slice", "'-.slice'")]
    {
        with(name, text).create().fails_with(&format!("/annotations/org.systemd.property.{name}"));
        assert!(manager.members().is_empty());
    }
    // Without systemd they are labels like any others.
    let plain = Bundle::inside(sandbox.clone()).set("/annotations/org.systemd.property.After", "[]").args(["true"]);
    plain.run().ok();
}

#[test]
fn properties_that_reach_the_host_are_the_callers_to_allow() {
    let Some((sandbox, manager)) = managed(PRIVATE) else { return };
    let name = |property: &str| format!("org.systemd.property.{property}");
    for (property, text) in [
        ("SuccessAction", "'poweroff-force'"),
        ("FailureAction", "'reboot-force'"),
        ("Requires", "['emergency.target']"),
        ("Wants", "['a.service']"),
        ("BindsTo", "['a.service']"),
        ("Conflicts", "['sshd.service']"),
        ("OnFailure", "['a.service']"),
        ("OnSuccess", "['a.service']"),
        ("PropagatesStopTo", "['sshd.service']"),
        ("Before", "['sshd.service']"),
        ("After", "['a.service', 'b.service']"),
        ("MemoryMax", "uint64 18446744073709551615"),
        ("MemoryMin", "uint64 1073741824"),
        ("TasksMax", "uint64 18446744073709551615"),
        ("CPUWeight", "uint64 10000"),
        ("AllowedCPUs", "[byte 0xff]"),
        ("DevicePolicy", "'auto'"),
        ("DeviceAllow", "[('/dev/sda', 'rwm')]"),
        ("KillMode", "'none'"),
        ("SendSIGKILL", "false"),
        ("OOMPolicy", "'continue'"),
        ("Description", "'another'"),
        ("JobTimeoutSec", "1"),
    ] {
        let container = bundle(&sandbox).set(&format!("/annotations/{}", name(property)), text);
        let refused = container.create();
        let set = match property {
            "JobTimeoutSec" => "JobTimeoutUSec",
            _ => property,
        };
        refused.fails_with(&format!(
            "/annotations/{0}: sets {set} of the container's systemd unit, which can reach the host or lift limits: an image \
             may have asked for it, so the caller has to allow it (`--allow-annotation {0}` before the command allows it, or \
             a line with that name in /etc/corten/allowed-annotations)",
            name(property)
        ));
        assert!(manager.members().is_empty(), "{property}");
        // Without systemd nobody obeys it.
        let plain = Bundle::inside(sandbox.clone()).args(["true"]);
        plain.set(&format!("/annotations/{}", name(property)), text).run().ok();
        // Allowed, it is a property.
        let container = container.global("--allow-annotation").global("org.systemd.property.*");
        container.create().ok();
        let start = manager.calls().remove(0);
        let list = start.body[2].as_array().expect("properties");
        assert!(list.iter().any(|one| one[0] == set), "{set} is not in {list:?}");
        container.delete_force().ok();
        manager.calls();
    }
    // What is the runtime's to say is not for the caller either.
    let slice =
        bundle(&sandbox).set(&format!("/annotations/{}", name("Slice")), "'-.slice'").global("--allow-annotation");
    slice.global("*").create().fails_with("Slice is for the runtime to set");
    // A name may have what a pointer escapes.
    let odd = bundle(&sandbox).set("/annotations/org.systemd.property.a~1b~0c", "1").create();
    odd.fails_with("/annotations/org.systemd.property.a~1b~0c: ");
}

#[test]
fn other_device_rules_are_told_to_systemd_and_the_list_is_cleared_first() {
    let Some((sandbox, manager)) = managed(PRIVATE) else { return };
    let container = bundle(&sandbox);
    container.create().ok();
    manager.calls();
    let rules = json!({"devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "b", "major": 8, "access": "rw"}]});
    let update = ["update", "--resources", "-", container.name()];
    crate::harness::Cmd::new(&sandbox, update).stdin(&rules.to_string()).run().ok();
    let calls = manager.calls();
    let [set] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!((set.member.as_str(), set.signature.as_str()), ("SetUnitProperties", "sba(sv)"));
    assert_eq!((&set.body[0], &set.body[1]), (&json!(unit(&container)), &json!(true)));
    let list = set.body[2].as_array().unwrap();
    assert_eq!(list[0], json!(["DevicePolicy", {"type": "s", "value": "strict"}]));
    assert_eq!(list[1], json!(["DeviceAllow", {"type": "a(ss)", "value": []}]));
    assert!(list[2][1]["value"].as_array().unwrap().contains(&json!(["block-8", "rw"])), "{list:?}");
}

#[test]
fn an_update_that_systemd_refuses_leaves_limits_and_device_rules_as_they_were() {
    let Some((sandbox, manager)) = managed(PRIVATE) else { return };
    let container = bundle(&sandbox).caps(&["CAP_MKNOD", "CAP_SYSLOG"]);
    container.create().ok();
    container.start().ok();
    let node = "[ -e /kmsg ] || probe mknod /kmsg c 1 11 >/dev/null; probe open /kmsg /dev/null";
    let opens = || plainly(&container, &["exec", container.name(), "sh", "-c", node]).ok().stdout();
    let depth = manager.unit(&unit(&container)).join("cgroup.max.depth");
    let depth = || fs::read_to_string(&depth).expect("cgroup.max.depth");
    let before = opens();
    assert!(before.contains("/kmsg EPERM"), "{before}");
    let changes = json!({
        "devices": [{"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rwm"}],
        "unified": {"cgroup.max.depth": "5"}
    });
    let update = || {
        let update = ["update", "--resources", "-", container.name()];
        crate::harness::Cmd::new(&sandbox, update).stdin(&changes.to_string()).run()
    };
    manager.calls();
    manager.set(Mood::Stubborn);
    update().fails_with("not in the mood");
    assert_eq!((opens(), depth()), (before, "max\n".to_owned()));
    // Limits and device rules are one message.
    assert_eq!(manager.members(), ["SetUnitProperties"]);
    manager.set(Mood::Willing);
    update().ok();
    let after = opens();
    assert!(after.contains("/kmsg ok") && depth() == "5\n", "{after}");
}

#[test]
fn a_unit_of_that_name_that_has_failed_is_reset() {
    let Some((sandbox, manager)) = managed(PRIVATE) else { return };
    manager.set(Mood::Taken);
    let container = bundle(&sandbox);
    container.create().ok();
    assert_eq!(manager.members(), ["StartTransientUnit", "ResetFailedUnit", "StartTransientUnit"]);
}

#[test]
fn the_unit_of_another_is_left_alone() {
    let Some((sandbox, manager)) = managed(PRIVATE) else { return };
    manager.set(Mood::TakenForGood);
    let container = bundle(&sandbox);
    container.create().fails_with("there is a unit of that name already").fails_with(&unit(&container));
    assert!(!manager.members().contains(&"StopUnit".to_owned()));
    plainly(&container, &["state", container.name()]).fails_with("does not exist");
}

/// As soon as nobody is in it systemd takes a unit away, and another container may have one of that name.
#[test]
fn the_unit_that_another_container_has_under_the_name_of_a_stopped_one_is_left_alone() {
    let Some((sandbox, manager)) = managed(PRIVATE) else { return };
    let first = bundle(&sandbox).args(["true"]);
    first.create().ok();
    first.start().ok();
    first.until("stopped");
    fs::remove_dir(manager.unit(&unit(&first))).expect("an empty cgroup");
    let path = format!("a-b.slice:corten:{}", first.name());
    let other = bundle(&sandbox).set("/linux/cgroupsPath", path);
    other.create().ok();
    manager.calls();
    for signal in ["KILL", "TERM"] {
        plainly(&first, &["kill", "--all", first.name(), signal]).ok();
    }
    plainly(&first, &["delete", first.name()]).ok();
    assert!(manager.members().is_empty());
    assert_eq!(other.status(), "created");
    other.start().ok();
    assert_eq!(other.status(), "running");
    plainly(&other, &["delete", "--force", other.name()]).ok();
    assert_eq!(manager.members(), ["StopUnit"]);
    assert!(!manager.unit(&unit(&first)).exists());
}

#[test]
fn an_older_systemd_is_asked_without_what_it_does_not_know() {
    let Some((sandbox, manager)) = managed(PRIVATE) else { return };
    manager.set(Mood::Old);
    // The file is written all the same, and is not there without a memory controller.
    let container = bundle(&sandbox).set("/linux/resources/unified", json!({"memory.oom.group": "1"}));
    container.create();
    let calls: Vec<_> = manager.calls().into_iter().filter(|call| call.member == "StartTransientUnit").collect();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0].property("OOMPolicy"), Some(("s".to_owned(), json!("kill"))));
    assert_eq!(calls[1].property("OOMPolicy"), None);
    assert_eq!(calls[1].property("Slice"), calls[0].property("Slice"));
}

#[test]
fn what_fails_leaves_no_unit_no_process_and_no_record() {
    let Some((sandbox, manager)) = managed(PRIVATE) else { return };
    let gone = |container: &Bundle| {
        assert!(!manager.unit(&unit(container)).exists(), "the cgroup is left");
        plainly(container, &["state", container.name()]).fails_with("does not exist");
        manager.members()
    };
    let container = bundle(&sandbox).args(["nosuch"]);
    container.run().fails_with("nosuch");
    assert_eq!(gone(&container), ["StartTransientUnit", "StopUnit"]);

    let container = bundle(&sandbox).set("/linux/resources/unified", json!({"nosuch.x": "1"}));
    container.create().fails_with("has no nosuch.x");
    assert_eq!(gone(&container), ["StartTransientUnit", "StopUnit"]);

    manager.set(Mood::Failing);
    let container = bundle(&sandbox);
    container.create().fails_with("its job ended with").fails_with(&unit(&container));
    assert_eq!(gone(&container), ["StartTransientUnit", "StopUnit"]);

    manager.set(Mood::Rude);
    let container = bundle(&sandbox);
    container.create().fails_with("has closed the connection");
    // Nobody knows what has become of the unit: that is for `delete`.
    manager.set(Mood::Willing);
    plainly(&container, &["delete", "--force", container.name()]).ok();
    gone(&container);

    manager.set(Mood::Closed);
    let container = bundle(&sandbox);
    container.create().fails_with("does not accept this user");
    assert!(gone(&container).is_empty());
}

#[test]
fn a_create_that_was_killed_while_it_waited_is_cleaned_up() {
    let Some((sandbox, manager)) = managed(PRIVATE) else { return };
    manager.set(Mood::Silent);
    let container = bundle(&sandbox);
    let running = container.create_cmd(&[]).spawn();
    eventually("the question", || !manager.members().is_empty());
    running.signal(nix::sys::signal::Signal::SIGKILL);
    running.wait();
    manager.set(Mood::Willing);
    plainly(&container, &["delete", "--force", container.name()]).ok();
    plainly(&container, &["state", container.name()]).fails_with("does not exist");
}

#[test]
fn on_a_bus_the_name_and_the_signal_are_asked_for_first() {
    let Some((sandbox, manager)) = managed(BUS) else { return };
    let container = bundle(&sandbox);
    container.create().ok();
    let calls = manager.calls();
    let members: Vec<&str> = calls.iter().map(|call| call.member.as_str()).collect();
    assert_eq!(members, ["Hello", "AddMatch", "StartTransientUnit"]);
    assert!(calls[1].body[0].as_str().unwrap().contains("member='JobRemoved'"));
    container.delete_force().ok();
    assert_eq!(manager.members(), ["Hello", "AddMatch", "StopUnit"]);
}

#[test]
fn without_systemd_one_error_says_what_is_missing() {
    if kind() != Kind::Corten {
        return skip("the words are corten's");
    }
    let sandbox = Sandbox::of_this_test();
    hide_run();
    let container = bundle(&sandbox);
    container.create().fails_with("no systemd to ask for a cgroup").fails_with(PRIVATE).fails_with(BUS);
    plainly(&container, &["state", container.name()]).fails_with("does not exist");
    let container = bundle(&sandbox).set("/linux/cgroupsPath", "/a/b");
    container.create().fails_with("slice:prefix:name").fails_with("/linux/cgroupsPath");
}

#[test]
fn the_container_sees_its_scope_as_the_root_of_cgroups() {
    let Some((sandbox, manager)) = managed(PRIVATE) else { return };
    let script = "grep ^0:: /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.procs";
    let container = bundle(&sandbox)
        .ns("cgroup")
        .mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro"])
        .sh(&format!("{script}; sleep 60"));
    container.run_detached().ok();
    container.until_output("0::/\n1\n");
    container.exec(&["grep", "^0::", "/proc/self/cgroup"]).ok().prints("0::/\n");
    let procs = fs::read_to_string(manager.unit(&unit(&container)).join("cgroup.procs")).expect("the unit's processes");
    assert!(procs.lines().any(|line| line == container.pid().to_string()), "{procs}");
    container.delete_force().ok();
    // Where nothing is mounted that shows it, the namespace is made all the same; in a user namespace, too.
    for made in [bundle(&sandbox).ns("cgroup"), bundle(&sandbox).userns().ns("cgroup")] {
        let container = made.args(["grep", "^0::", "/proc/self/cgroup"]);
        let outcome = container.run();
        outcome.ok().prints("0::/\n");
        assert!(!manager.unit(&unit(&container)).exists());
    }
}

#[test]
fn a_default_unit_is_called_after_the_container() {
    let Some((sandbox, manager)) = managed(PRIVATE) else { return };
    let container = bundle(&sandbox).unset("/linux/cgroupsPath");
    container.create().ok();
    let start = manager.calls().remove(0);
    assert_eq!(start.body[0], json!(format!("corten-{}.scope", container.name())));
    assert_eq!(start.property("Slice"), Some(("s".to_owned(), json!("system.slice"))));
    container.delete_force().ok();
    // An empty prefix is one, as in runc and crun.
    manager.calls();
    let path = format!("a-b.slice::{}", container.name());
    let container = container.set("/linux/cgroupsPath", path);
    container.create().ok();
    assert_eq!(manager.calls().remove(0).body[0], json!(format!("-{}.scope", container.name())));
}
