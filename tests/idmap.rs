//! Mounts whose files have other owners inside than outside.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;

use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use crate::harness::{Bundle, HOST_ID, known_difference};

/// Maps these ids on disk to these of the host, so many of them.
fn map(lines: &[(u32, u32, u32)]) -> Value {
    lines.iter().map(|(disk, host, size)| json!({"containerID": disk, "hostID": host, "size": size})).collect()
}

/// A directory on the host with a file for each of these owners, named after it; `sub` is a mount of its own.
fn owned(bundle: &Bundle, ids: &[u32]) -> PathBuf {
    let dir = bundle.host_dir("owned");
    let sub = bundle.host_dir("owned/sub");
    mount(Some("tmpfs"), &sub, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("mount a tmpfs");
    for place in [&dir, &sub] {
        for &id in ids {
            let file = place.join(id.to_string());
            std::fs::write(&file, "").and_then(|()| chown(&file, Some(id), Some(id))).expect("make a file");
        }
    }
    dir
}

/// The bundle with `owned` bound on `/o`, with these options and mappings.
fn bound(bundle: Bundle, ids: &[u32], options: &[&str], maps: Option<Value>) -> Bundle {
    let source = owned(&bundle, ids);
    let mut entry = json!({"destination": "/o", "type": "bind", "source": source, "options": options});
    if let Some(maps) = maps {
        entry["uidMappings"] = maps.clone();
        entry["gidMappings"] = maps;
    }
    bundle.push("/mounts", entry)
}

/// `file user group`, line by line, of the directory and of the mount below it.
const OWNERS: &str = "cd /o; stat -c '%n %u %g' [0-9]* sub/[0-9]*";

// B24: maps of the mount, with and without a user namespace of the container's.

#[test]
fn b24_a_bind_with_maps_of_its_own_and_no_user_namespace() {
    if known_difference("crun", "maps the other way round without a user namespace") {
        return;
    }
    for (option, below) in [("idmap", "sub/0 0 0\nsub/7 7 7"), ("ridmap", "sub/0 100000 100000\nsub/7 65534 65534")] {
        let maps = map(&[(0, 100_000, 1)]);
        let container = bound(Bundle::new(), &[0, 7], &["rbind", option], Some(maps));
        let seen = container.sh(&format!("{OWNERS}; touch /o/new 2>&1")).run();
        let right = format!("0 100000 100000\n7 65534 65534\n{below}\n");
        seen.shows(&right).shows("Value too large");
    }
}

#[test]
fn b24_without_maps_a_bind_gets_those_of_the_container() {
    let container = bound(Bundle::new().userns(), &[0, 7, 70_000], &["rbind", "idmap"], None);
    let source = container.host("owned");
    let seen = container.sh(&format!("chmod 777 /o; {OWNERS}; touch /o/new && stat -c 'new %u' /o/new")).run();
    seen.ok().shows("0 0 0\n7 7 7\n70000 65534 65534\nsub/0 65534 65534\n").shows("new 0");
    let made = std::fs::metadata(source.join("new")).expect("what the container made");
    assert_eq!((made.uid(), made.gid()), (0, 0), "on disk the owner is root");
}

#[test]
fn b24_maps_equal_to_the_container_s_are_those_of_the_container() {
    let maps = map(&[(0, HOST_ID, 65536)]);
    let container = bound(Bundle::new().userns(), &[0, 7], &["rbind", "ridmap"], Some(maps));
    container.sh(OWNERS).run().prints("0 0 0\n7 7 7\nsub/0 0 0\nsub/7 7 7");
}

#[test]
fn b24_maps_other_than_the_container_s_in_a_user_namespace() {
    let maps = map(&[(0, HOST_ID + 5, 1), (7, HOST_ID, 1)]);
    let container = bound(Bundle::new().userns(), &[0, 7, 9], &["rbind", "idmap"], Some(maps.clone()));
    container.sh("stat -c '%n %u %g' /o/[0-9]*").run().prints("/o/0 5 5\n/o/7 0 0\n/o/9 65534 65534");
    // The mappings alone are enough, the option adds nothing to them.
    let container = bound(Bundle::new().userns(), &[0, 7, 9], &["rbind"], Some(maps));
    container.sh("stat -c '%n %u %g' /o/[0-9]*").run().prints("/o/0 5 5\n/o/7 0 0\n/o/9 65534 65534");
}

#[test]
fn b24_without_maps_and_without_a_user_namespace_there_is_nothing_to_map_by() {
    let outcome = bound(Bundle::new(), &[0], &["rbind", "idmap"], None).args(["true"]).run();
    outcome.fails();
    if !known_difference("crun", "words of its own") && !known_difference("runc", "words of its own") {
        outcome.fails_with("no user namespace");
    }
}

#[test]
fn b24_one_map_without_the_other_is_refused() {
    if known_difference("crun", "leaves it to the kernel") {
        return;
    }
    let bundle = Bundle::new().userns().args(["true"]);
    let entry = json!({"destination": "/o", "type": "bind", "source": owned(&bundle, &[0]), "options": ["bind"],
        "uidMappings": map(&[(0, 1, 1)])});
    bundle.push("/mounts", entry).run().fails_with("mapping");
}

#[test]
fn b24_a_mapped_bind_may_be_shared() {
    let maps = map(&[(0, 100_000, 10)]);
    let bundle = Bundle::new();
    let source = owned(&bundle, &[3]);
    mount(Some(&source), &source, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("bind it on itself");
    mount(None::<&str>, &source, None::<&str>, MsFlags::MS_SHARED, None::<&str>).expect("share it");
    let entry = json!({"destination": "/o", "type": "bind", "source": source, "options": ["bind", "idmap", "rshared"],
        "uidMappings": maps, "gidMappings": maps});
    let bundle = bundle.set("/linux/rootfsPropagation", "rshared").push("/mounts", entry);
    let seen = bundle.sh("stat -c %u /o/3; awk '$5==\"/o\"{print $7}' /proc/self/mountinfo").run();
    if !known_difference("crun", "maps the other way round without a user namespace") {
        seen.ok().shows("100003\nshared:");
    }
}

// The form that crun and Podman have.

#[test]
fn maps_in_the_option_are_from_disk_to_host() {
    let inline = "idmap=uids=0-1000-3#7-2000-1;gids=0-3000-8";
    let container = bound(Bundle::new(), &[0, 2, 7], &["bind", inline], None);
    if known_difference("runc", "takes no maps in the option") {
        return;
    }
    container.sh("stat -c '%n %u %g' /o/[0-9]*").run().prints("/o/0 1000 3000\n/o/2 1002 3002\n/o/7 2000 3007");
}

#[test]
fn a_map_with_an_at_sign_is_relative_to_the_container() {
    if known_difference("runc", "takes no maps in the option") {
        return;
    }
    let inline = "ridmap=uids=@0-1-2;gids=@0-3-1#1-100010-1";
    let container = bound(Bundle::new().userns(), &[0, 1, 2], &["rbind", inline], None);
    let seen = container.sh(OWNERS).run();
    let (here, below) = ("0 1 3\n1 2 10\n2 65534 65534", "sub/0 1 3\nsub/1 2 10\nsub/2 65534 65534");
    seen.prints(&format!("{here}\n{below}"));
}

#[test]
fn a_relative_map_is_split_where_the_container_s_is() {
    if known_difference("runc", "takes no maps in the option") || known_difference("crun", "does not split it") {
        return;
    }
    let maps = map(&[(0, HOST_ID, 2), (2, 300_000, 100)]);
    let bundle = Bundle::new().userns().set("/linux/uidMappings", maps.clone()).set("/linux/gidMappings", maps);
    let container = bound(bundle, &[0, 1, 2], &["bind", "idmap=uids=@0-1-3"], None);
    // Of groups nothing is said, so they are as the container's.
    container.sh("stat -c '%n %u %g' /o/[0-9]*").run().prints("/o/0 1 0\n/o/1 2 1\n/o/2 3 2");
}

#[test]
fn a_relative_map_needs_a_user_namespace_and_ids_that_it_has() {
    if known_difference("runc", "takes no maps in the option") || known_difference("crun", "words of its own") {
        return;
    }
    let run = |bundle: Bundle, option: &str| bound(bundle, &[0], &["bind", option], None).args(["true"]).run();
    run(Bundle::new(), "idmap=uids=@0-0-1;gids=@0-0-1").fails_with("no user namespace");
    run(Bundle::new().userns(), "idmap=uids=@0-70000-1").fails_with("does not have the id 70000");
    run(Bundle::new(), "idmap=uids=0-0").fails_with("is not of the form");
    run(Bundle::new(), "idmap=names=0-0-1").fails_with("uids=");
}

#[test]
fn a_joined_user_namespace_maps_by_what_it_really_has() {
    if known_difference("runc", "takes no maps in the option") || known_difference("crun", "believes the config") {
        return;
    }
    let first = Bundle::new().userns().args(["sleep", "60"]);
    first.run_detached().ok();
    let path = format!("/proc/{}/ns/user", first.pid());
    for (option, seen) in [("idmap", "/o/0 0 0\n/o/1 1 1"), ("idmap=uids=@0-5-2", "/o/0 5 0\n/o/1 6 1")] {
        // Podman writes such a map when it joins one.
        let dummy = map(&[(0, 0, 1)]);
        let bundle = Bundle::new().userns().join("user", &path);
        let bundle = bundle.set("/linux/uidMappings", dummy.clone()).set("/linux/gidMappings", dummy);
        bound(bundle, &[0, 1], &["bind", option], None).sh("stat -c '%n %u %g' /o/[0-9]*").run().prints(seen);
    }
}

// What can be mapped, and what not.

#[test]
fn a_new_file_system_is_mapped_too() {
    if known_difference("runc", "maps binds only") || known_difference("crun", "maps the other way round") {
        return;
    }
    let inline = "idmap=uids=0-50-1;gids=0-50-1";
    let container = Bundle::new().mount("/t", "tmpfs", "tmpfs", &["mode=1777", inline]);
    let seen = container.sh("stat -c '%u %g %a' /t; touch /t/x 2>&1").run();
    seen.shows("50 50 1777").shows("Value too large");
    let container = Bundle::new().userns().mount("/t", "tmpfs", "tmpfs", &["mode=755", "idmap"]);
    container.sh("stat -c '%u %a' /t; touch /t/x; stat -c %u /t/x").run().prints("0 755\n0");
}

#[test]
fn a_file_system_that_cannot_be_mapped_is_named() {
    let map = json!(map(&[(0, 1, 1)]));
    let entry = |source: &str, options: &[&str]| {
        json!({"destination": "/o", "type": "bind", "source": source, "options": options,
        "uidMappings": map, "gidMappings": map})
    };
    let outcome = Bundle::new().push("/mounts", entry("/sys/kernel", &["bind", "idmap"])).args(["true"]).run();
    outcome.fails();
    if known_difference("crun", "words of its own") || known_difference("runc", "words of its own") {
        return;
    }
    outcome.fails_with("the file system sysfs at /sys").fails_with("invalid argument");
    // One that lies below the source.
    let bundle = Bundle::new().args(["true"]);
    let dir = bundle.host_dir("deep");
    let below = bundle.host_dir("deep/er");
    mount(Some("proc"), &below, Some("proc"), MsFlags::empty(), None::<&str>).expect("mount a procfs");
    let source = dir.to_str().expect("a plain path");
    bundle.push("/mounts", entry(source, &["rbind", "ridmap"])).run().fails_with("deep/er cannot be id-mapped");
    let outcome = Bundle::new().push(
        "/mounts",
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup",
        "options": ["idmap"], "uidMappings": map, "gidMappings": map}),
    );
    outcome.args(["true"]).run().fails_with("id-mapped mounts are not supported for this type");
}

#[test]
fn no_process_is_left_of_a_mapping() {
    let maps = map(&[(0, HOST_ID + 5, 1)]);
    let container = bound(Bundle::new().userns(), &[0], &["rbind", "idmap"], Some(maps)).args(["sleep", "60"]);
    container.run_detached().ok();
    let all = std::fs::read_to_string(container.sandbox().cgroup().join("caller/cgroup.procs")).expect("processes");
    assert_eq!(all, "", "processes of the runtime are left");
}
