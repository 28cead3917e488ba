//! Namespaces: created, joined, shared, and user namespaces with their maps.

use std::fs;
use std::io::{Read, Write, pipe};
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::stat::fstat;
use serde_json::json;

use crate::harness::{Bundle, Cmd, HOST_ID, Kind, chown_all, kind, known_difference, skip};

/// A namespace of a process.
fn namespace(pid: i32, kind: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a namespace").display().to_string()
}

/// A namespace of this test.
fn own(kind: &str) -> String {
    fs::read_link(format!("/proc/thread-self/ns/{kind}")).expect("a namespace").display().to_string()
}

const KINDS: [(&str, &str); 6] =
    [("cgroup", "cgroup"), ("ipc", "ipc"), ("mount", "mnt"), ("network", "net"), ("pid", "pid"), ("uts", "uts")];

/// A container that waits, to join.
fn pause() -> Bundle {
    let container = Bundle::new().args(["sleep", "60"]);
    container.run_detached().ok();
    container
}

#[test]
fn namespaces_asked_for_are_new_and_others_are_the_callers() {
    let container = pause();
    for (_, kind) in KINDS {
        assert_ne!(namespace(container.pid(), kind), own(kind), "{kind}");
    }
    assert_eq!(namespace(container.pid(), "user"), own("user"));
    for (word, kind) in [("network", "net"), ("ipc", "ipc"), ("pid", "pid"), ("cgroup", "cgroup")] {
        let mut container = Bundle::new().without_ns(word).args(["sleep", "60"]);
        if word == "network" {
            container = container.without_mount("/sys").without_mount("/sys/fs/cgroup");
        }
        container.run_detached().ok();
        assert_eq!(namespace(container.pid(), kind), own(kind), "{kind}");
        container.delete_force().ok();
    }
}

#[test]
fn namespaces_are_joined_by_their_paths() {
    let first = pause();
    for (word, kind) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid"), ("cgroup", "cgroup")] {
        if word == "cgroup" && known_difference("crun", "moves itself and then cannot find its cgroup") {
            continue;
        }
        let path = format!("/proc/{}/ns/{kind}", first.pid());
        let mut second = Bundle::inside(first.sandbox().clone()).join(word, path).args(["sleep", "60"]);
        if word == "uts" {
            second = second.unset("/hostname");
        }
        second.run_detached().ok();
        assert_eq!(namespace(second.pid(), kind), namespace(first.pid(), kind), "{kind}");
        second.delete_force().ok();
    }
}

#[test]
fn all_the_namespaces_of_a_pod_are_joined_together() {
    let first = pause();
    let mut second = Bundle::inside(first.sandbox().clone()).unset("/hostname").args(["sleep", "60"]);
    for (word, kind) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid")] {
        second = second.join(word, format!("/proc/{}/ns/{kind}", first.pid()));
    }
    second.run_detached().ok();
    second.exec(&["hostname"]).prints("corten");
    second.delete_force().ok();
    assert_eq!(first.status(), "running");
}

#[test]
fn a_path_that_is_no_namespace_or_not_of_that_type_is_refused() {
    let bundle = Bundle::new().args(["true"]);
    let file = bundle.host_file("file", "");
    let bundle = bundle.join("network", &file);
    bundle.run().fails();
    let container = Bundle::new().join("network", "/proc/self/ns/uts").args(["true"]);
    container.run().fails();
    Bundle::new().join("network", "/no/such/ns").args(["true"]).run().fails_with("no such file or directory");
    Bundle::new().push("/linux/namespaces", json!({"type": "nosuch"})).args(["true"]).run().fails();
}

#[test]
fn b93_a_namespace_given_twice_is_refused() {
    if known_difference("crun", "takes the last") {
        return;
    }
    Bundle::new().push("/linux/namespaces", json!({"type": "pid"})).args(["true"]).run().fails();
}

#[test]
fn a_user_namespace_has_the_maps_asked_for() {
    let container = Bundle::new().userns().sh("cat /proc/self/uid_map /proc/self/gid_map; id -u; id -g; touch /made");
    let seen = container.run();
    let words: Vec<String> =
        seen.ok().lines().iter().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(words, [format!("0 {HOST_ID} 65536"), format!("0 {HOST_ID} 65536"), "0".into(), "0".into()]);
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(container.rootfs().join("made")).expect("the file"));
    assert_eq!(owner, HOST_ID);
}

#[test]
fn a_user_namespace_may_have_several_ranges() {
    let map = json!([
        {"containerID": 0, "hostID": HOST_ID, "size": 1},
        {"containerID": 1, "hostID": 200_000, "size": 10},
        {"containerID": 1000, "hostID": 300_000, "size": 5}
    ]);
    let container = Bundle::new().userns().set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    let container = container.set("/process/user", json!({"uid": 1000, "gid": 5})).args(["sleep", "60"]);
    container.run_detached().ok();
    let status = fs::read_to_string(format!("/proc/{}/status", container.pid())).expect("its status");
    assert!(status.contains("Uid:\t300000\t300000\t300000\t300000"), "{status}");
    assert!(status.contains("Gid:\t200004\t"), "{status}");
}

#[test]
fn b92_a_bind_source_that_only_the_host_can_reach() {
    use std::os::unix::fs::PermissionsExt;
    let bundle = Bundle::new().userns().args(["cat", "/m"]);
    let source = bundle.host_file("private/s/f", "reached");
    let private = source.parent().and_then(|dir| dir.parent()).expect("a parent");
    fs::set_permissions(private, fs::Permissions::from_mode(0o700)).expect("chmod");
    fs::set_permissions(&source, fs::Permissions::from_mode(0o644)).expect("chmod");
    bundle.bind(source, "/m", &["rbind", "ro"]).run().prints("reached");
}

#[test]
fn a_user_namespace_of_another_container_is_joined() {
    let first = Bundle::new().userns().args(["sleep", "60"]);
    first.run_detached().ok();
    let mut second = Bundle::inside(first.sandbox().clone()).userns().unset("/hostname").args(["sleep", "60"]);
    second = second.unset("/linux/uidMappings").unset("/linux/gidMappings");
    for (word, kind) in [("user", "user"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        second = second.join(word, format!("/proc/{}/ns/{kind}", first.pid()));
    }
    second.run_detached().ok();
    for kind in ["user", "net", "ipc", "uts"] {
        assert_eq!(namespace(second.pid(), kind), namespace(first.pid(), kind), "{kind}");
    }
    assert_ne!(namespace(second.pid(), "mnt"), namespace(first.pid(), "mnt"));
    second.delete_force().ok();
    first.delete_force().ok();
}

#[test]
fn a_user_namespace_without_maps_is_refused() {
    if known_difference("crun", "makes one up") {
        return;
    }
    Bundle::new().ns("user").args(["true"]).run().fails_with("mapping");
}

#[test]
fn b93_maps_without_a_user_namespace_are_refused() {
    let map = json!([{"containerID": 0, "hostID": HOST_ID, "size": 10}]);
    let container = Bundle::new().set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map).args(["true"]);
    if known_difference("crun", "ignores them") || known_difference("runc", "ignores them") {
        return;
    }
    container.run().fails_with("mapping");
}

#[test]
fn the_user_namespaces_root_owns_what_the_others_hold() {
    let container = Bundle::new().userns().caps(&["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]);
    let seen = container.sh("ip link add name d type dummy 2>&1 | grep -c denied; hostname other && hostname").run();
    seen.ok().shows("other");
}

#[test]
fn b43_a_time_namespace_with_and_without_offsets() {
    if !fs::exists("/proc/self/ns/time").unwrap_or_default() {
        return crate::harness::skip("the kernel has no time namespaces");
    }
    Bundle::new().ns("time").sh("awk '/boottime/{print $2}' /proc/self/timens_offsets").run().prints("0");
    let offsets = json!({"boottime": {"secs": 1337}, "monotonic": {"secs": 42, "nanosecs": 7}});
    let container = Bundle::new().ns("time").set("/linux/timeOffsets", offsets);
    let seen = container.sh("awk '{print $1, $2, $3}' /proc/self/timens_offsets").run();
    seen.ok().shows("boottime 1337 0").shows("monotonic 42 7");
}

#[test]
fn the_loopback_interface_of_a_new_network_is_up() {
    Bundle::new().sh("ip addr show lo").run().ok().shows("127.0.0.1").shows("UP");
}

#[test]
fn the_cgroup_namespace_begins_at_the_containers_cgroup() {
    Bundle::new().sh("grep ^0: /proc/self/cgroup").run().prints("0::/");
    let container = Bundle::new().without_ns("cgroup").sh("grep ^0: /proc/self/cgroup");
    let name = container.config()["linux"]["cgroupsPath"].as_str().expect("a path").to_owned();
    container.run().prints(&format!("0::{name}"));
}

#[test]
fn the_process_table_is_that_of_the_container() {
    let seen = Bundle::new().sh("ls -d /proc/[0-9]* | wc -l").run();
    let number: u32 = seen.ok().stdout().trim().parse().expect("a number");
    assert!(number <= 3, "{number} processes");
}

#[test]
fn a_user_namespace_and_a_pid_namespace_of_another_owner_are_joined_together() {
    if known_difference("runc", "wants a procfs at /proc") {
        return;
    }
    let shown = Bundle::new().args(["sleep", "60"]);
    shown.run_detached().ok();
    let owner = Bundle::new().userns().args(["sleep", "60"]);
    owner.run_detached().ok();
    let container = Bundle::new()
        .userns()
        .unset("/linux/uidMappings")
        .unset("/linux/gidMappings")
        .unset("/linux/maskedPaths")
        .unset("/linux/readonlyPaths")
        .without_mount("/sys/fs/cgroup")
        .without_mount("/sys")
        .without_mount("/proc")
        .join("user", format!("/proc/{}/ns/user", owner.pid()))
        .join("pid", format!("/proc/{}/ns/pid", shown.pid()));
    container.args(["sh", "-c", "[ $$ -gt 1 ] && echo beside"]).run().prints("beside");
}

/// A container whose user namespace has this one range of ids.
fn with_range(first: u32, size: u32) -> Bundle {
    let map = json!([{"containerID": first, "hostID": HOST_ID, "size": size}]);
    let bundle = Bundle::new().userns().set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    bundle.mount_options("/dev/pts", |options| options.retain(|option| option != "gid=5"))
}

/// With this user and group.
fn of(bundle: Bundle, id: u32) -> Bundle {
    bundle.set("/process/user", json!({"uid": id, "gid": id}))
}

#[test]
fn n14_a_user_namespace_without_id_0_is_set_up_by_its_user() {
    if known_difference("runc", "wants a map of user 0") {
        return;
    }
    // Of a range of several the root filesystem's owner is another than the container's user.
    for (first, size, id) in [(999, 1, 999), (5, 20, 9)] {
        let script = "awk '{print $1, $2, $3}' /proc/self/uid_map /proc/self/gid_map; id -u; id -g
            grep -E 'Cap(Inh|Prm|Eff|Amb)|^Groups' /proc/self/status | tr -d '\t '
            stat -c '%n %u:%g %a' /dev /dev/shm /made /made/dir /dev/mqueue; exec sleep 60";
        let container = of(with_range(first, size), id).set("/process/cwd", "/made/dir").sh(script);
        container.run_detached().ok();
        let host = HOST_ID;
        let right = format!(
            "{first} {host} {size}\n{first} {host} {size}\n{id}\n{id}\nGroups:\nCapInh:0000000000000000\n\
             CapPrm:0000000000000000\nCapEff:0000000000000000\nCapAmb:0000000000000000\n/dev {id}:{id} 755\n\
             /dev/shm {id}:{id} 1777\n/made {id}:{id} 755\n/made/dir {id}:{id} 755\n/dev/mqueue {id}:{id} 1777\n"
        );
        container.until_output("/dev/mqueue");
        assert_eq!(container.output(), right);
        container.exec(&["sh", "-c", "id -u; id -g"]).ok().prints(&format!("{id}\n{id}"));
        if kind() == Kind::Corten {
            let list = container.host_file("mounts", r#"[{"destination":"/t","type":"tmpfs","source":"t"}]"#);
            let list = list.to_str().expect("a plain path");
            container.cmd(["mounts", "add", container.name(), list]).run().ok();
            container.exec(&["stat", "-c", "%u", "/t"]).ok().prints(&id.to_string());
        }
        // One that joins it.
        let second = of(Bundle::inside(container.sandbox().clone()), id).unset("/hostname").without_ns("uts");
        let second = second.mount_options("/dev/pts", |options| options.retain(|option| option != "gid=5"));
        let second = second.join("user", format!("/proc/{}/ns/user", container.pid())).sh("id -u; stat -c %u /dev");
        chown_all(&second.rootfs(), HOST_ID);
        if !known_difference("crun", "wants user 0 in one that is joined") {
            second.run().ok().prints(&format!("{id}\n{id}"));
        }
        container.delete_force().ok();
    }
}

#[test]
fn n14_capabilities_are_as_asked_for_where_there_is_no_id_0() {
    if known_difference("runc", "wants a map of user 0") {
        return;
    }
    let container = of(with_range(999, 1), 999).caps(&["CAP_KILL"]);
    let container = ["inheritable", "ambient"]
        .into_iter()
        .fold(container, |container, set| container.push(&format!("/process/capabilities/{set}"), "CAP_KILL"));
    let all = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| format!("{set}:\t0000000000000020\n"));
    container.args(["grep", "Cap", "/proc/self/status"]).run().ok().prints(all.concat().trim_end());
}

#[test]
fn n14_a_user_or_group_that_the_user_namespace_lacks_is_named() {
    let (user, group) = (json!({"uid": 7, "gid": 999}), json!({"uid": 999, "gid": 7}));
    for (who, what) in [(user, "uid"), (group, "gid")] {
        let outcome = with_range(999, 1).set("/process/user", who).args(["true"]).run();
        outcome.fails();
        if kind() == Kind::Corten {
            let kind = if what == "uid" { "user" } else { "group" };
            outcome.fails_with(&format!("/process/user/{what}: become {kind} 7 of the user namespace"));
            outcome.fails_with(&format!("{kind} 7 has no mapping there: take another, or map it"));
        }
    }
    if known_difference("runc", "wants a map of user 0") {
        return;
    }
    let container = of(with_range(999, 1), 999).args(["sleep", "60"]);
    container.run_detached().ok();
    let outcome = container.exec_cmd(&["--user", "0"], &["true"]).run();
    outcome.fails();
    if kind() == Kind::Corten {
        outcome.fails_with("/process/user/uid").fails_with("user 0 has no mapping there");
    }
}

// Streams.

#[test]
fn pipes_are_the_users_in_a_user_namespace() {
    // What opens them in the container: by the link in /dev, and by the process's own descriptors.
    let script =
        "echo a >/dev/stderr && echo b >/proc/self/fd/1 && read line </proc/self/fd/0 && echo $line >/dev/stdout";
    let run = |command: Cmd, owner: (u32, u32)| {
        let [(input, mut write), (mut read, output), (mut read_error, error)] = [0; 3].map(|_| pipe().expect("a pipe"));
        write.write_all(b"c\n").expect("write a line");
        let kept = [input.as_fd(), output.as_fd(), error.as_fd()].map(|fd| fd.try_clone_to_owned().expect("another"));
        let streams = [(7, input.into()), (8, output.into()), (9, error.into())];
        let command =
            streams.into_iter().fold(command, |command, (number, fd): (i32, OwnedFd)| command.leak(number, fd));
        command.after("exec <&7 >&8 2>&9 7<&- 8>&- 9>&-").run().ok();
        let owners = kept.map(|fd| fstat(&fd).map(|stat| (stat.st_uid, stat.st_gid)).expect("look at a pipe"));
        let (mut out, mut err) = (String::new(), String::new());
        read.read_to_string(&mut out).and_then(|_| read_error.read_to_string(&mut err)).expect("read what it wrote");
        assert_eq!((out.as_str(), err.as_str()), ("b\nc\n", "a\n"));
        if kind() == Kind::Corten {
            assert_eq!(owners, [owner; 3]);
        }
    };
    for id in [0, 1000] {
        let container = of(Bundle::new().userns(), id).sh(script);
        if !known_difference("crun", "leaves them as they are") {
            run(container.run_cmd(), (HOST_ID + id, 0));
        }
        if kind() != Kind::Corten {
            skip("the peers give no pipes to a program that enters");
            continue;
        }
        let container = of(Bundle::new().userns(), 5).args(["sleep", "60"]);
        container.run_detached().ok();
        run(container.exec_cmd(&["--user", &id.to_string()], &["sh", "-c", script]), (HOST_ID + id, 0));
    }
}
