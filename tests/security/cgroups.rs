//! The cgroup file system, and names that are joined to it; the host's own mounts without a mount namespace.

use std::fs;

use nix::mount::{MsFlags, mount};
use serde_json::json;

use crate::attack::{Outside, mount_on_host};
use crate::harness::{Bundle, Sandbox, known_difference};

#[test]
fn cve_2023_25809_the_cgroups_of_the_host_cannot_be_written() {
    // Opened and never written, so that nobody is harmed where it succeeds.
    let script = "busybox find /sys/fs/cgroup -name cgroup.procs -o -name cgroup.subtree_control -o -name cgroup.freeze | \
                  while read f; do probe open $f; done";
    let all = ["CAP_DAC_OVERRIDE", "CAP_CHOWN", "CAP_FOWNER"];
    for userns in [false, true] {
        for own in [false, true] {
            for kind in ["cgroup", "cgroup2"] {
                let bundle = if userns { Bundle::new().userns() } else { Bundle::new() };
                let bundle = if own { bundle } else { bundle.without_ns("cgroup") };
                let options = ["ro", "nosuid", "noexec", "nodev"];
                let bundle = bundle.without_mount("/sys/fs/cgroup").mount("/sys/fs/cgroup", kind, "cgroup", &options);
                let seen = bundle.caps(&all).sh(script).run();
                seen.hides(" ok\n");
                // Where it may not be mounted, a refusal is right, too.
                if !userns && (kind == "cgroup" || !known_difference("runc", "knows the type cgroup alone")) {
                    seen.ok().shows("/sys/fs/cgroup/cgroup.procs");
                }
            }
        }
    }
}

#[test]
fn cve_2023_25809_a_mount_below_the_cgroups_of_the_host_is_read_only_too() {
    let bundle = Bundle::new().without_ns("cgroup");
    // Something of the host's that is mounted in its cgroup tree, and writable.
    let place = bundle.sandbox().cgroup().join("place");
    fs::create_dir(&place).expect("make a cgroup");
    mount_on_host(&bundle, "tmpfs", &place);
    let script = format!("ls -d {0} && touch {0}/x && echo WRITABLE", place.display());
    let seen = bundle.sh(&script).run();
    nix::mount::umount(&place).expect("unmount");
    fs::remove_dir(&place).expect("remove the cgroup");
    if known_difference("crun", "its bind is read-only at the top alone") {
        return;
    }
    seen.hides("WRITABLE");
}

#[test]
fn crun_1_28_runc_1_5_3_exec_reaches_no_cgroup_beside_the_containers() {
    let one = Bundle::new().args(["sleep", "100"]);
    // A sibling whose name begins as the container's own.
    let name = format!("{}-longer", one.name());
    let two = Bundle::new().id(&name).args(["sleep", "100"]);
    let path = one.config()["linux"]["cgroupsPath"].as_str().expect("a path").to_owned() + "-longer";
    let two = two.set("/linux/cgroupsPath", path);
    one.run_detached().ok();
    two.run_detached().ok();
    let procs = || fs::read_to_string(two.cgroup().join("cgroup.procs")).expect("the sibling's processes");
    let before = procs();
    let target = two.cgroup().file_name().expect("a name").to_str().expect("plain").to_owned();
    let inside = one.cgroup().file_name().expect("a name").to_str().expect("plain").to_owned();
    for below in [
        format!("../{target}"),
        format!("/../{target}"),
        format!("x/../../{target}"),
        format!("../{inside}/../{target}"),
        "..".to_owned(),
        "-longer".to_owned(),
    ] {
        let entered = one.exec_cmd(&["--cgroup", &below], &["cat", "/proc/self/cgroup"]).run();
        if entered.succeeded() {
            entered.fail(&format!("--cgroup {below} was obeyed"));
        }
        assert_eq!(procs(), before, "{below}");
    }
    one.exec_cmd(&["--cgroup", "/"], &["true"]).run();
    one.delete_force();
    two.delete_force();
}

#[test]
fn ghsa_5g49_rx9x_qfc6_the_size_of_a_huge_page_is_no_path() {
    for size in ["../../x", "2MB/../../x", "../2MB", "2MB\n", "", "/", "2MB.max/../cgroup.procs"] {
        let limits = json!([{"pageSize": size, "limit": 0}]);
        let bundle = Bundle::new().set("/linux/resources/hugepageLimits", limits).args(["true"]);
        let outside = Outside::of(&bundle);
        bundle.run().fails();
        outside.is_untouched();
    }
}

#[test]
fn runc_1_5_3_without_a_mount_namespace_the_mounts_of_the_host_stay_as_they_are() {
    let bundle = Bundle::new().without_ns("mount").set("/mounts", json!([])).args(["true"]);
    let bundle = bundle.unset("/linux/maskedPaths").unset("/linux/readonlyPaths");
    let none = None::<&str>;
    // What a host with systemd has.
    mount(none, bundle.sandbox().dir(), none, MsFlags::MS_SHARED | MsFlags::MS_REC, none).expect("share");
    let outside = Outside::of(&bundle);
    let seen = bundle.run();
    if !known_difference("runc", "wants a procfs in the root") {
        seen.ok();
    }
    outside.is_untouched();
    for word in ["private", "rslave", "unbindable"] {
        // Refused, or without effect.
        let _ = Bundle::new()
            .without_ns("mount")
            .set("/mounts", json!([]))
            .unset("/linux/maskedPaths")
            .unset("/linux/readonlyPaths")
            .set("/linux/rootfsPropagation", word)
            .args(["true"])
            .run();
        outside.is_untouched();
    }
    // With mounts, which go with it: those of the root alone, and not what a bind is of.
    let bundle = Bundle::new().without_ns("mount").unset("/linux/maskedPaths").unset("/linux/readonlyPaths");
    mount(none, bundle.sandbox().dir(), none, MsFlags::MS_SHARED | MsFlags::MS_REC, none).expect("share");
    let sub = bundle.host_dir("shared/sub");
    mount(Some("tmpfs"), &sub, Some("tmpfs"), MsFlags::empty(), none).expect("mount a tmpfs");
    let source = bundle.host_dir("shared");
    let bundle = bundle.bind(source, "/m", &["rbind", "rshared"]).args(["true"]);
    let outside = Outside::of(&bundle);
    let seen = bundle.run();
    seen.ok();
    if !known_difference("runc", "leaves its mounts, the host's private")
        && !known_difference("crun", "leaves its mounts")
    {
        outside.is_untouched();
    }
}

/// Whether version 1 is in sight, and may be written: every `release_agent`, opened and never written.
const AGENTS: &str =
    "busybox find /sys -name release_agent -o -name notify_on_release | while read f; do probe open $f; done
    while read line; do case $line in *' - cgroup '*) echo MOUNTED $line;; esac; done </proc/self/mountinfo; echo done";

/// Tries of a container to mount version 1 for itself, in the namespaces it has and in new ones.
const TRIES: &str = "mkdir -p /tmp/v1
    for options in none,name=corten-test-agent rdma memory cpuset all; do
        mount -t cgroup -o $options cgroup /tmp/v1 && echo TAKEN $options
        busybox unshare -m -C mount -t cgroup -o $options cgroup /tmp/v1 && echo TAKEN $options
    done 2>/dev/null; echo done";

#[test]
fn cve_2022_0492_no_release_agent_of_version_1_can_be_reached() {
    let docker =
        ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_MKNOD", "CAP_SETUID", "CAP_SETGID", "CAP_SETFCAP"];
    for hybrid in [false, true] {
        // Where the host has version 1, too, and may run what its root tells a release agent to run.
        if hybrid && Sandbox::hybrid().is_none() {
            continue;
        }
        for own in [true, false] {
            for userns in [false, true] {
                let container = || {
                    let bundle = if userns { Bundle::new().userns() } else { Bundle::new() };
                    let bundle = if own { bundle } else { bundle.without_ns("cgroup") };
                    bundle.caps(&docker)
                };
                container().sh(TRIES).run().prints("done");
                let agents = container().sh(AGENTS).run();
                agents.ok().shows("done").hides(" ok\n");
                if !hybrid || !(known_difference("runc", "shows version 1 too") || known_difference("crun", "the same"))
                {
                    agents.prints("done");
                }
            }
        }
    }
}

#[test]
fn cve_2022_0492_the_type_cgroup_is_version_2_and_read_only_unless_asked_for_otherwise() {
    let line = "while read a b c d place options rest; do [ $place = /sys/fs/cgroup ] && echo $options ${rest##*- }; done \
                </proc/self/mountinfo; true";
    for kind in ["cgroup", "cgroup2"] {
        if kind == "cgroup2" && known_difference("runc", "knows the type cgroup alone") {
            continue;
        }
        for (options, read_only) in [(&["ro", "nosuid"][..], true), (&["rw", "nosuid"], false), (&["nosuid"], false)] {
            let bundle = Bundle::new().without_mount("/sys/fs/cgroup");
            let seen = bundle.mount("/sys/fs/cgroup", kind, "cgroup", options).sh(line).run();
            let said = seen.ok().stdout();
            let words: Vec<&str> = said.split_whitespace().collect();
            assert_eq!(words.get(1), Some(&"cgroup2"), "{said}");
            assert_eq!(words[0].split(',').any(|word| word == "ro"), read_only, "{options:?}: {said}");
        }
        // A read-only one stays so for a root that has no CAP_SYS_ADMIN.
        let bundle =
            Bundle::new().sh("mount -o remount,rw /sys/fs/cgroup && echo WRITABLE; mkdir /sys/fs/cgroup/x; echo done");
        let seen = bundle.run();
        seen.prints("done");
        assert!(!bundle.cgroup().join("x").exists());
    }
    let bundle = Bundle::new();
    let dir = bundle.host_dir("template");
    bundle.cmd(["spec"]).cwd(&dir).run().ok();
    let text = fs::read_to_string(dir.join("config.json")).expect("the template");
    let template: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let mounts = template["mounts"].as_array().expect("mounts");
    let cgroup = mounts.iter().find(|mount| mount["destination"] == "/sys/fs/cgroup").expect("a cgroup mount");
    assert!(cgroup["options"].as_array().is_some_and(|options| options.contains(&json!("ro"))), "{cgroup}");
}

#[test]
fn cve_2025_47291_a_container_with_a_user_namespace_is_in_its_cgroup_too() {
    for bundle in [Bundle::new(), Bundle::new().userns(), Bundle::new().userns().without_ns("cgroup")] {
        let bundle = bundle.args(["sleep", "100"]);
        bundle.run_detached().ok();
        let members = || fs::read_to_string(bundle.cgroup().join("cgroup.procs")).expect("the members of its cgroup");
        assert_eq!(members().trim(), bundle.pid().to_string());
        let exec = bundle.exec_cmd(&[], &["sleep", "100"]).spawn();
        crate::harness::eventually("a program that enters is there, too", || members().lines().count() == 2);
        bundle.delete_force().ok();
        exec.wait();
    }
}
