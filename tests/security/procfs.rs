//! What stands at `/proc` instead of the kernel's own, and what is written there for the container.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::attack::{Outside, mount_on_host};
use crate::harness::{Bundle, known_difference};

/// Places that decide over labels, sysctls and descriptors, in several spellings.
const PLACES: &[&str] = &[
    "/proc",
    "/proc/",
    "//proc/.",
    "/x/../proc",
    "/proc/self",
    "/proc/thread-self",
    "/proc/1",
    "/proc/self/fd",
    "/proc/self/attr",
    "/proc/self/attr/exec",
    "/proc/self/attr/apparmor/exec",
    "/proc/thread-self/attr/exec",
    "/proc/self/task/1/attr/exec",
    "/proc/sys",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/kernel/core_pattern",
    "/proc/sysrq-trigger",
    "proc/self/attr/current",
];

#[test]
fn cve_2019_16884_cve_2025_62596_no_volume_covers_proc_or_a_place_in_it() {
    if known_difference("crun", "mounts anything anywhere in /proc") {
        return;
    }
    let first = Bundle::new();
    let outside = Outside::of(&first);
    let (dir, file) = (first.host_dir("volume"), first.host_file("volume-file", ""));
    for sub in ["self/attr/apparmor", "self/fd", "sys/net/ipv4", "1"] {
        fs::create_dir_all(dir.join(sub)).expect("make a false procfs");
    }
    for place in PLACES {
        Bundle::new().bind(&dir, place, &["rbind"]).args(["true"]).run().fails_with("proc");
        Bundle::new().bind(&file, place, &["bind"]).args(["true"]).run().fails_with("proc");
        Bundle::new().mount(place, "tmpfs", "tmpfs", &[]).args(["true"]).run().fails_with("proc");
        // Before the procfs, which then is on top of it, or would be.
        let mut bundle = Bundle::new();
        let mounts = bundle.config()["mounts"].as_array().expect("mounts").clone();
        let volume = json!({"destination": place, "type": "bind", "source": dir, "options": ["rbind"]});
        bundle = bundle.set("/mounts", [vec![volume], mounts].concat());
        bundle.args(["true"]).run().fails();
        outside.is_untouched();
    }
}

#[test]
fn cve_2019_16884_a_link_or_another_procfs_does_not_help_a_volume_there() {
    if known_difference("crun", "mounts anything anywhere in /proc") {
        return;
    }
    let first = Bundle::new();
    let (dir, file) = (first.host_dir("volume"), first.host_file("volume-file", ""));
    for (link, target, place) in [
        ("/innocent", "/proc/self", "/innocent/attr"),
        ("/innocent", "/proc", "/innocent"),
        ("/innocent", "proc/sys/kernel", "/innocent/core_pattern"),
        ("/a/b", "../proc/self/attr", "/a/b/exec"),
        ("/a/b", "../../../../proc", "/a/b/self/fd"),
        ("/root-link", "/", "/root-link/proc/self/attr/exec"),
    ] {
        Bundle::new().link(link, target).bind(&dir, place, &["rbind"]).args(["true"]).run().fails_with("proc");
        Bundle::new().link(link, target).bind(&file, place, &["bind"]).args(["true"]).run().fails_with("proc");
        Bundle::new().link(link, target).mount(place, "tmpfs", "tmpfs", &[]).args(["true"]).run().fails();
    }
    // A part of a procfs, or something else that is called so, is no procfs.
    for source in ["/proc/self", "/proc/sys", "/sys", dir.to_str().expect("a plain path")] {
        let bundle = Bundle::new().without_mount("/proc").bind(source, "/proc", &["rbind"]).args(["true"]);
        bundle.unset("/linux/maskedPaths").unset("/linux/readonlyPaths").run().fails_with("proc");
    }
}

/// A container whose sysctls have to reach the kernel; `/real` is a procfs that is not in anybody's way.
fn with_sysctls(bundle: Bundle) -> Bundle {
    bundle
        .dir("/real", 0o755)
        .mount("/real", "proc", "proc", &[])
        .set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1", "kernel.msgmax": "12345"}))
        .set("/linux/maskedPaths", json!([]))
        .set("/linux/readonlyPaths", json!([]))
        .sh("cat /real/sys/net/ipv4/ip_forward /real/sys/kernel/msgmax")
}

#[test]
fn cve_2025_52881_a_sysctl_is_written_to_the_kernel_and_to_nothing_like_it() {
    let first = Bundle::new();
    let outside = Outside::of(&first);
    let files = ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/msgmax"];
    let there = |bundle: Bundle| files.iter().fold(bundle, |bundle, file| bundle.file(file, "0", 0o666));
    with_sysctls(Bundle::new()).run().prints("1\n12345");
    if known_difference("crun", "wants its procfs at /proc") {
        return;
    }
    let bundle = with_sysctls(there(Bundle::new()).without_mount("/proc"));
    let outcome = bundle.run();
    if !known_difference("runc", "wants a procfs") {
        outcome.prints("1\n12345");
    }
    for file in files {
        let left = fs::read_to_string(bundle.rootfs().join(&file[1..])).expect("the image's own file");
        assert_eq!(left, "0", "{file} of the image was written");
    }
    for target in [outside.absolute() + "/file", outside.relative() + "/file", "/proc/sysrq-trigger".to_owned()] {
        let bundle = files.iter().fold(Bundle::new(), |bundle, file| bundle.link(file, &target));
        let outcome = with_sysctls(bundle.without_mount("/proc")).run();
        if !known_difference("runc", "wants a procfs") {
            outcome.prints("1\n12345");
        }
        outside.is_untouched();
    }
}

#[test]
fn cve_2025_52881_what_was_mounted_over_a_sysctl_meanwhile_is_not_written() {
    // The hook stands for whoever shares the mounts: it is in the container's namespaces, before the sysctls are set.
    let covers = [
        "mount -o bind decoy proc/sys/net/ipv4/ip_forward",
        "mount -o bind decoys proc/sys/net/ipv4",
        "mount -o bind decoys proc/sys",
        "mount -t tmpfs tmpfs proc",
        "mount -o bind proc/sys/net/ipv4/ip_default_ttl proc/sys/net/ipv4/ip_forward",
    ];
    for cover in covers {
        let bundle = Bundle::new().file("/decoy", "0", 0o666).file("/decoys/ip_forward", "0", 0o666);
        let bundle = with_sysctls(bundle.file("/decoys/net/ipv4/ip_forward", "0", 0o666));
        let bundle = bundle.hook("createContainer", cover).unset("/linux/sysctl/kernel.msgmax");
        let bundle = bundle.sh("cat /real/sys/net/ipv4/ip_forward");
        let outcome = bundle.run();
        // To fail is right, too: what must not be is a container that runs without what was asked for.
        if outcome.succeeded() {
            outcome.prints("1");
        }
        for decoy in ["decoy", "decoys/ip_forward", "decoys/net/ipv4/ip_forward"] {
            let left = fs::read_to_string(bundle.rootfs().join(decoy)).expect("the decoy");
            assert_eq!(left, "0", "{cover}: {decoy} was written");
        }
    }
}

#[test]
fn cve_2022_0811_a_value_is_one_value_of_one_sysctl() {
    let before = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("the host's core pattern");
    let pattern = "|/bin/sh #";
    for value in [
        format!("12345+kernel.core_pattern={pattern}"),
        format!("12345\nkernel.core_pattern={pattern}"),
        format!("12345 kernel.core_pattern={pattern}"),
        format!("12345=kernel.core_pattern={pattern}"),
    ] {
        let _ = Bundle::new().set("/linux/sysctl", json!({"kernel.msgmax": value})).args(["true"]).run();
        let now = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("the host's core pattern");
        assert_eq!(now, before, "{value}");
    }
    for key in ["kernel.msgmax=1+kernel.core_pattern", "kernel/../kernel/core_pattern", "net/../kernel/core_pattern"] {
        // What it is already, so that one that gets through does no harm.
        let bundle = Bundle::new().set("/linux/sysctl", json!({key: before.trim()})).args(["true"]);
        bundle.run().fails();
        let now = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("the host's core pattern");
        assert_eq!(now, before, "{key}");
    }
}

#[test]
fn cve_2026_115521_a_root_is_read_only_whatever_stands_at_proc_self() {
    let first = Bundle::new();
    let volume = first.host_dir("volume");
    for number in 3..40 {
        fs::create_dir_all(volume.join(format!("fd/{number}"))).expect("make a false descriptor");
    }
    let script = "touch /written 2>/dev/null && echo WRITABLE; echo done";
    let check = |bundle: Bundle| {
        let root = bundle.rootfs();
        let outcome = bundle
            .set("/root/readonly", true)
            .unset("/linux/maskedPaths")
            .unset("/linux/readonlyPaths")
            .sh(script)
            .run();
        outcome.hides("WRITABLE");
        assert!(!Path::new(&root).join("written").exists());
        outcome.succeeded()
    };
    // Volumes there, which are refused or have no effect.
    for place in ["/proc/self", "/proc/self/fd", "/proc/thread-self", "/proc/thread-self/fd", "/proc"] {
        let source = if place.ends_with("fd") { volume.join("fd") } else { volume.clone() };
        check(Bundle::new().bind(&source, place, &["rbind"]));
        let innocent = Bundle::new().link("/innocent", place).bind(&source, "/innocent", &["rbind"]);
        check(innocent);
    }
    // No procfs, and an image that has what looks like one.
    let mut image = Bundle::new().without_mount("/proc");
    for number in 3..40 {
        image =
            image.dir(&format!("/proc/self/fd/{number}"), 0o755).dir(&format!("/proc/thread-self/fd/{number}"), 0o755);
    }
    assert!(check(image) || known_difference("runc", "wants a procfs") || known_difference("crun", "the same"));
    // Something mounted over it just before, by whoever shares the mounts.
    let cover = "mount -t tmpfs tmpfs proc; for n in $(seq 3 40); do mkdir -p proc/self/fd/$n && \
                 mount -t tmpfs tmpfs proc/self/fd/$n; done";
    check(Bundle::new().hook("createContainer", cover));
    // Each kind of read-only mount that is made so last.
    let tmpfs = Bundle::new().mount("/t", "tmpfs", "tmpfs", &["ro"]).sh("touch /t/x && echo WRITABLE");
    tmpfs.hook("createContainer", cover).run().hides("WRITABLE");
}

#[test]
fn crun_1_31_the_sysfs_of_the_host_is_read_only_with_all_below_it() {
    if known_difference("crun", "below it since 1.31") || known_difference("runc", "mounts none in a user namespace") {
        return;
    }
    let first = Bundle::new();
    // Something writable that the host has mounted there, and its cgroups.
    mount_on_host(&first, "tmpfs", Path::new("/sys/fs"));
    fs::create_dir("/sys/fs/cgroup").expect("make a place for the cgroups");
    mount_on_host(&first, "cgroup2", Path::new("/sys/fs/cgroup"));
    let bundle = Bundle::new().userns().without_ns("network").without_mount("/sys/fs/cgroup");
    let seen = bundle.sh("awk '$5~\"^/sys\" {print $5, $6}' /proc/self/mountinfo").run();
    seen.ok().shows("/sys/fs ");
    for line in seen.lines() {
        let options = line.split(' ').nth(1).unwrap_or_default();
        if !options.split(',').any(|option| option == "ro") {
            seen.fail(&format!("writable: {line}"));
        }
    }
}

#[test]
fn cve_2023_27561_a_procfs_that_a_hook_mounts_is_masked_too() {
    // Of a file system of its own, with the names of the first: both have to be masked.
    let bundle = Bundle::new().set("/linux/maskedPaths", json!(["/proc/keys", "/proc/scsi"]));
    let bundle = bundle.hook("createContainer", "mount -t proc proc proc");
    let script = "stat -c %t:%T /proc/keys; touch /proc/sys/x; while read a b c d e f; do echo $e $f; done </proc/self/mountinfo";
    let seen = bundle.sh(script).run();
    seen.ok().shows("1:3").shows("/proc/sys ro");
}
