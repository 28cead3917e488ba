//! `mounts add` and `mounts remove`: what is mounted in a container that runs.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Bundle, Kind, Outcome, kind, known_difference, peers_lack_it};

fn runc_lacks_it() -> bool {
    known_difference("runc", "has no such command")
}

/// A command of `mounts` with this list in a file.
fn mounts(bundle: &Bundle, what: &str, list: &Value) -> Outcome {
    let file = bundle.host_file("mounts.json", &list.to_string());
    bundle.cmd(["mounts", what, bundle.name(), file.to_str().expect("a plain path")]).run()
}

fn running(bundle: Bundle) -> Bundle {
    let bundle = bundle.args(["sleep", "600"]);
    bundle.run_detached().ok();
    bundle
}

fn tmpfs(destination: &str) -> Value {
    json!({"destination": destination, "type": "tmpfs", "source": "tagged"})
}

fn bind(source: &Path, destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": options})
}

/// Lines of the container's mount table, without their numbers.
fn table(bundle: &Bundle) -> Vec<String> {
    let seen = bundle.exec(&["cat", "/proc/self/mounts"]);
    seen.ok().lines()
}

/// Whether something is mounted there.
fn has(bundle: &Bundle, point: &str) -> bool {
    table(bundle).iter().any(|line| line.split(' ').nth(1) == Some(point))
}

fn host_table() -> String {
    fs::read_to_string("/proc/thread-self/mountinfo").expect("the mount table")
}

#[test]
fn mounts_come_and_go_while_the_container_runs() {
    if runc_lacks_it() {
        return;
    }
    for with_user_namespace in [false, true] {
        let bundle = if with_user_namespace { Bundle::new().userns() } else { Bundle::new() };
        let bundle = running(bundle.dir("/there", 0o755));
        let data = bundle.host_dir("data");
        let file = bundle.host_file("data/file", "of the host\n");
        let before = host_table();
        let list = json!([
            tmpfs("/made/for/it"),
            bind(&data, "/there", &["rbind", "ro"]),
            bind(&file, "/a/file", &["bind"]),
            {"destination": "/small", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k", "mode=0700", "nodev", "ro"]},
        ]);
        mounts(&bundle, "add", &list).ok().prints("");
        let seen = bundle.exec(&["cat", "/there/file", "/a/file"]);
        seen.ok().prints("of the host\nof the host\n");
        bundle.exec(&["touch", "/there/new"]).fails_with("Read-only file system");
        bundle.exec(&["touch", "/small/new"]).fails_with("Read-only file system");
        bundle.exec(&["touch", "/made/for/it/new"]).ok();
        let small = table(&bundle).into_iter().find(|line| line.contains(" /small ")).expect("the small tmpfs");
        if !known_difference("crun", "drops the options nodev and mode") {
            assert!(small.contains("size=64k") && small.contains("mode=700") && small.contains("nodev"), "{small}");
        }
        assert_eq!(host_table(), before, "nothing of it is the host's");
        mounts(&bundle, "remove", &json!([{"destination": "/there"}, {"destination": "/a/file"}])).ok();
        assert!(!has(&bundle, "/there") && !has(&bundle, "/a/file") && has(&bundle, "/small"));
        mounts(&bundle, "remove", &json!([tmpfs("/small"), tmpfs("/made/for/it")])).ok();
        assert!(!has(&bundle, "/small") && !has(&bundle, "/made/for/it"));
        bundle.delete_force().ok();
    }
}

#[test]
fn a_failure_leaves_nothing_mounted_and_names_the_entry() {
    if runc_lacks_it() {
        return;
    }
    let bundle = running(Bundle::new().dir("/kept", 0o755).file("/file", "", 0o644));
    let data = bundle.host_dir("data");
    mounts(&bundle, "add", &json!([tmpfs("/kept")])).ok();
    let before = table(&bundle);
    for (wrong, words) in [
        (bind(Path::new("/no/such/source"), "/b", &["bind"]), "no such file or directory"),
        (json!({"destination": "/b", "type": "nosuch", "source": "x"}), "no such device"),
        // Known only when it is put in place, after the first one was.
        (bind(&data, "/file", &["bind"]), "not a directory"),
    ] {
        let outcome = mounts(&bundle, "add", &json!([tmpfs("/a"), wrong, tmpfs("/c")]));
        let said = outcome.fails().log().to_lowercase();
        assert!(said.contains(words) || kind() != Kind::Corten, "{said}");
        if kind() == Kind::Corten {
            outcome.fails_with("/mounts/1");
        }
        if words == "not a directory" && known_difference("crun", "leaves the first one mounted") {
            continue;
        }
        assert_eq!(table(&bundle), before);
    }
    bundle.delete_force().ok();
}

#[test]
fn a_tmpfs_that_fails_at_its_options_is_an_error() {
    if runc_lacks_it() {
        return;
    }
    let bundle = running(Bundle::new());
    let list = json!([{"destination": "/a", "type": "tmpfs", "source": "x", "options": ["nosuchoption"]}]);
    if !known_difference("crun", "drops options that it does not know") {
        mounts(&bundle, "add", &list).fails_with("nosuchoption");
        assert!(!has(&bundle, "/a"));
    }
    bundle.delete_force().ok();
}

#[test]
fn what_is_to_go_is_looked_up_before_anything_goes() {
    if runc_lacks_it() {
        return;
    }
    let bundle = running(Bundle::new().dir("/plain", 0o755));
    mounts(&bundle, "add", &json!([tmpfs("/a"), tmpfs("/a/b"), tmpfs("/c")])).ok();
    for wrong in ["/nowhere", "/plain"] {
        let outcome = mounts(&bundle, "remove", &json!([tmpfs("/c"), tmpfs(wrong)]));
        outcome.fails();
        if !known_difference("crun", "has unmounted those before") {
            outcome.fails_with(wrong);
            assert!(has(&bundle, "/c"));
        }
    }
    // One below another, in either order.
    mounts(&bundle, "remove", &json!([tmpfs("/a/b"), tmpfs("/a")])).ok();
    assert!(!has(&bundle, "/a/b") && !has(&bundle, "/a"));
    if kind() == Kind::Corten {
        mounts(&bundle, "add", &json!([tmpfs("/a"), tmpfs("/a/b")])).ok();
        mounts(&bundle, "remove", &json!([tmpfs("/a"), tmpfs("/a/b")])).ok();
        assert!(!has(&bundle, "/a"));
        mounts(&bundle, "remove", &json!([tmpfs("/c"), tmpfs("//c/.")])).fails_with("/c is there twice");
        mounts(&bundle, "remove", &json!([tmpfs("/x/..")])).fails_with("/mounts/0/destination");
    }
    bundle.delete_force().ok();
}

#[test]
fn one_mount_upon_another_goes_alone() {
    if runc_lacks_it() {
        return;
    }
    let bundle = running(Bundle::new());
    mounts(&bundle, "add", &json!([tmpfs("/a"), tmpfs("/a")])).ok();
    let count = || table(&bundle).iter().filter(|line| line.starts_with("tagged /a ")).count();
    if known_difference("crun", "it calls every tmpfs `none`") {
        return;
    }
    for left in [1, 0] {
        mounts(&bundle, "remove", &json!([tmpfs("/a")])).ok();
        assert_eq!(count(), left);
    }
    bundle.delete_force().ok();
}

#[test]
fn a_procfs_shows_the_containers_processes() {
    if runc_lacks_it() {
        return;
    }
    let bundle = running(Bundle::new());
    mounts(&bundle, "add", &json!([{"destination": "/p", "type": "proc", "source": "proc"}])).ok();
    let seen = bundle.exec(&["cat", "/p/1/cmdline"]);
    if !known_difference("crun", "shows the processes of the host") {
        seen.ok().shows("sleep");
        bundle.exec(&["ls", &format!("/p/{}", bundle.pid())]).fails();
    }
    bundle.delete_force().ok();
}

#[test]
fn other_file_systems_are_those_of_the_containers_namespaces() {
    if runc_lacks_it() {
        return;
    }
    let bundle = running(Bundle::new());
    let list = json!([
        {"destination": "/s", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
        {"destination": "/m", "type": "mqueue", "source": "mqueue"},
        {"destination": "/c", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
    ]);
    if known_difference("crun", "makes them in namespaces of the host, and no cgroup2 at all") {
        return;
    }
    mounts(&bundle, "add", &list).ok();
    bundle.exec(&["ls", "/s/class/net"]).ok().prints("lo\n");
    bundle.exec(&["cat", "/c/cgroup.procs"]).ok().shows("1\n");
    bundle.delete_force().ok();
}

#[test]
fn owners_are_mapped_as_for_a_new_container() {
    if peers_lack_it() {
        return;
    }
    let bundle = running(Bundle::new().userns());
    let data = bundle.host_dir("data");
    bundle.host_file("data/file", "");
    let maps = json!([{"containerID": 0, "hostID": 7, "size": 1}]);
    let mut own = bind(&data, "/own", &["bind"]);
    own["uidMappings"] = maps.clone();
    own["gidMappings"] = maps;
    mounts(&bundle, "add", &json!([bind(&data, "/plain", &["bind"]), bind(&data, "/mapped", &["bind", "idmap"]), own]))
        .ok();
    let seen = bundle.exec(&["stat", "-c", "%u", "/plain/file", "/mapped/file", "/own/file"]);
    seen.ok().prints("65534\n0\n65534\n");
    bundle.delete_force().ok();
    let bundle = running(Bundle::new());
    mounts(&bundle, "add", &json!([bind(&data, "/mapped", &["bind", "idmap"])]))
        .fails_with("/mounts/0/options")
        .fails_with("no user namespace");
    bundle.delete_force().ok();
}

#[test]
fn a_container_that_waits_or_is_frozen_gets_mounts_too_and_one_that_ended_does_not() {
    if runc_lacks_it() {
        return;
    }
    let bundle = Bundle::new().args(["cat", "/data/file"]);
    let data = bundle.host_dir("data");
    bundle.host_file("data/file", "late\n");
    bundle.create().ok();
    mounts(&bundle, "add", &json!([bind(&data, "/data", &["bind"])])).ok();
    bundle.start().ok();
    bundle.until("stopped");
    assert_eq!(bundle.output(), "late\n");
    if !known_difference("crun", "says what the kernel says") {
        mounts(&bundle, "add", &json!([tmpfs("/a")])).fails_with("container not running");
    }
    bundle.delete().ok();

    let bundle = running(Bundle::new());
    bundle.cmd(["pause", bundle.name()]).run().ok();
    mounts(&bundle, "add", &json!([tmpfs("/a")])).ok();
    bundle.cmd(["resume", bundle.name()]).run().ok();
    assert!(has(&bundle, "/a"));
    mounts(&bundle, "add", &json!([])).ok();
    bundle.delete_force().ok();
    mounts(&bundle, "add", &json!([])).fails();
}

#[test]
fn relative_sources_start_at_the_bundle_and_the_list_may_come_from_stdin() {
    if peers_lack_it() {
        return;
    }
    let bundle = running(Bundle::new());
    fs::create_dir(bundle.path().join("volume")).expect("make a directory in the bundle");
    fs::write(bundle.path().join("volume/file"), "of the bundle\n").expect("write a file");
    let list = json!([bind(Path::new("volume"), "/v", &["bind"])]).to_string();
    bundle.cmd(["mounts", "add", bundle.name(), "-"]).stdin(&list).cwd("/").run().ok();
    bundle.exec(&["cat", "/v/file"]).ok().prints("of the bundle\n");
    bundle.delete_force().ok();
}

#[test]
fn what_only_a_new_container_can_have_is_refused_by_its_field() {
    if peers_lack_it() {
        return;
    }
    let bundle = running(Bundle::new());
    let data = bundle.host_dir("data");
    let before = table(&bundle);
    for (entry, field, why) in [
        (tmpfs("/"), "destination", "root of a container"),
        (tmpfs("/tmp/.."), "destination", "root of a container"),
        (tmpfs("/proc/sys"), "destination", "inside /proc"),
        (tmpfs("/proc"), "destination", "inside /proc"),
        (bind(&data, "/proc", &["bind"]), "", "nothing else may cover /proc"),
        (json!({"destination": "/dev", "options": ["remount", "ro"]}), "options", "has no undo"),
        (bind(&data, "/x", &["bind", "copy-symlink"]), "options", "is no mount"),
        (bind(&data, "/x", &["bind", "readonly"]), "options", "readonly"),
        (json!({"destination": "/x"}), "type", "must be set"),
        (json!({"destination": "/x", "type": "bind"}), "source", "needs a source"),
    ] {
        let outcome = mounts(&bundle, "add", &json!([tmpfs("/y"), entry]));
        outcome.fails_with(format!("/mounts/1/{field}").trim_end_matches('/')).fails_with(why);
        assert_eq!(table(&bundle), before, "{why}");
    }
    for (text, why) in [
        ("{}", "not a list"),
        ("", "not a list"),
        ("[{}]", "destination"),
        ("[1]", "/0: must be an object, not a number"),
        ("[", "not JSON"),
    ] {
        bundle.cmd(["mounts", "add", bundle.name(), "-"]).stdin(text).run().fails_with(why);
    }
    bundle.delete_force().ok();
    let hosts = Bundle::new().without_ns("mount").set("/mounts", json!([]));
    let hosts = running(hosts.unset("/linux/maskedPaths").unset("/linux/readonlyPaths"));
    mounts(&hosts, "add", &json!([tmpfs("/a")])).fails_with("no mount namespace of its own");
    mounts(&hosts, "remove", &json!([tmpfs("/a")])).fails_with("no mount namespace of its own");
    hosts.delete_force().ok();
}

#[test]
fn a_shared_root_keeps_what_is_said_of_a_mount() {
    if runc_lacks_it() {
        return;
    }
    let bundle = running(Bundle::new().set("/linux/rootfsPropagation", "shared").dir("/a", 0o755).dir("/b", 0o755));
    let data = bundle.host_dir("data");
    mounts(&bundle, "add", &json!([bind(&data, "/a", &["bind", "private"]), bind(&data, "/b", &["bind"])])).ok();
    let seen = bundle.exec(&["cat", "/proc/self/mountinfo"]).ok().lines();
    let line = |point: &str| seen.iter().find(|line| line.split(' ').nth(4) == Some(point)).expect("a mount").clone();
    if !known_difference("crun", "leaves it shared") {
        assert!(!line("/a").contains("shared:"), "{}", line("/a"));
    }
    mounts(&bundle, "remove", &json!([{"destination": "/a"}, {"destination": "/b"}])).ok();
    bundle.delete_force().ok();
}

#[test]
fn nothing_is_born_in_the_containers_pid_namespace() {
    if peers_lack_it() {
        return;
    }
    for with_user_namespace in [false, true] {
        let bundle = if with_user_namespace { Bundle::new().userns() } else { Bundle::new() };
        let bundle = running(bundle);
        // Numbers are given out one after the other.
        let next = || bundle.exec(&["sh", "-c", "echo $$"]).ok().stdout().trim().parse::<u32>().expect("a pid");
        let before = next();
        mounts(&bundle, "add", &json!([tmpfs("/mnt"), {"destination": "/other", "type": "proc", "source": "proc"}]))
            .ok();
        assert_eq!(next(), before + 1);
        mounts(&bundle, "add", &json!([tmpfs("/mnt")])).ok();
        mounts(&bundle, "remove", &json!([tmpfs("/mnt")])).ok();
        assert_eq!(next(), before + 2);
    }
}
