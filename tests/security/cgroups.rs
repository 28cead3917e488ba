//! The cgroup file system, and names that are joined to it; the host's own mounts without a mount namespace.

use std::fs;

use nix::mount::{MsFlags, mount};
use serde_json::json;

use crate::attack::{Outside, mount_on_host};
use crate::harness::{Bundle, known_difference};

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
}
