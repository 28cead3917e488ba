//! Every file of procfs that is written for a container, beside sysctls (`procfs.rs`) and labels (`tests/labels.rs`):
//! `uid_map`, `gid_map`, `setgroups`, `timens_offsets`, `oom_score_adj`. Whatever an image or a container has in the place
//! of its `/proc`, the value reaches the kernel and nothing else is written (CVE-2025-52881).

use std::fs;

use serde_json::json;

use crate::attack::Outside;
use crate::harness::{Bundle, HOST_ID, eventually, known_difference};

/// Files of a process that a runtime writes.
const FILES: [&str; 9] = [
    "oom_score_adj",
    "uid_map",
    "gid_map",
    "setgroups",
    "timens_offsets",
    "loginuid",
    "attr/exec",
    "attr/apparmor/exec",
    "attr/keycreate",
];

/// Names that a process may have in a false procfs.
const SELVES: [&str; 4] = ["self", "thread-self", "1", "2"];

/// An image in whose `/proc` stands what `put` makes of each path; nothing is mounted there.
fn image(put: impl Fn(Bundle, &str) -> Bundle) -> Bundle {
    let bundle = Bundle::new().without_mount("/proc").unset("/linux/maskedPaths").unset("/linux/readonlyPaths");
    let paths = SELVES.iter().flat_map(|own| FILES.iter().map(move |file| format!("/proc/{own}/{file}")));
    paths.fold(bundle, |bundle, path| put(bundle, &path))
}

/// A container with all of these values, which shows what has become of them in a procfs at `/real`.
fn with_values(bundle: Bundle, userns: bool) -> Bundle {
    let bundle = bundle
        .dir("/real", 0o755)
        .mount("/real", "proc", "proc", &[])
        .ns("time")
        .set("/linux/timeOffsets", json!({"monotonic": {"secs": 12345}, "boottime": {"secs": 54321, "nanosecs": 7}}))
        .set("/process/oomScoreAdj", 321);
    let bundle = if userns { bundle.userns() } else { bundle };
    bundle.sh("cd /real/self && cat oom_score_adj timens_offsets uid_map gid_map setgroups | tr -s ' '")
}

fn wanted(userns: bool) -> String {
    let map = if userns { format!(" 0 {HOST_ID} 65536\n") } else { " 0 0 4294967295\n".to_owned() };
    format!("321\nmonotonic 12345 0\nboottime 54321 7\n{map}{map}allow")
}

#[test]
fn cve_2025_52881_maps_clocks_and_scores_reach_the_kernel_whatever_an_image_has_at_proc() {
    if known_difference("crun", "wants a procfs at /proc") || known_difference("runc", "the same") {
        return;
    }
    let outside = Outside::of(&Bundle::new());
    for userns in [false, true] {
        let files = with_values(image(|bundle, path| bundle.file(path, "decoy", 0o666)), userns);
        files.run().prints(&wanted(userns));
        for own in SELVES {
            for file in FILES {
                let left =
                    fs::read_to_string(files.rootfs().join("proc").join(own).join(file)).expect("the image's own");
                assert_eq!(left, "decoy", "{own}/{file} of the image was written");
            }
        }
        for target in [
            outside.absolute() + "/file",
            outside.relative() + "/file",
            "/real/self/comm".to_owned(),
            "/real/sysrq-trigger".to_owned(),
        ] {
            with_values(image(|bundle, path| bundle.link(path, &target)), userns).run().prints(&wanted(userns));
            outside.is_untouched();
        }
        // The whole of it, or a process in it, is a link.
        for (link, target) in [("/proc/self", "/real/1"), ("/proc/self", outside.dir().to_str().expect("a plain path"))]
        {
            let bundle = Bundle::new().without_mount("/proc").unset("/linux/maskedPaths").unset("/linux/readonlyPaths");
            with_values(bundle.link(link, target), userns).run().prints(&wanted(userns));
            outside.is_untouched();
        }
    }
}

#[test]
fn cve_2025_52881_what_a_hook_has_mounted_over_proc_is_not_written() {
    // The hook stands for whoever shares the mounts; what comes after it must not take its false files in.
    for cover in [
        "mount -t tmpfs tmpfs proc; cp -r decoys/. proc",
        "mount --bind decoys proc",
        "mount --bind decoys/self proc/self; mount --bind decoys/self proc/1",
        "mount --bind decoys/self proc/thread-self",
        "mount --bind decoys/self/oom_score_adj proc/1/oom_score_adj",
    ] {
        let bundle = FILES.iter().fold(Bundle::new(), |bundle, file| {
            bundle.file(&format!("/decoys/self/{file}"), "decoy", 0o666).file(
                &format!("/decoys/1/{file}"),
                "decoy",
                0o666,
            )
        });
        let bundle = bundle.unset("/linux/maskedPaths").unset("/linux/readonlyPaths");
        let bundle = with_values(bundle, false).hook("createContainer", &format!("{cover}; true"));
        let outcome = bundle.run();
        if !outcome.succeeded() && (known_difference("crun", "fails, too") || known_difference("runc", "the same")) {
            continue;
        }
        outcome.prints(&wanted(false));
        for own in ["self", "1"] {
            for file in FILES {
                let left = fs::read_to_string(bundle.rootfs().join("decoys").join(own).join(file)).expect("the decoy");
                assert_eq!(left, "decoy", "{cover}: {file} was written");
            }
        }
    }
}

fn decoys(bundle: Bundle) -> Bundle {
    FILES.iter().fold(bundle, |bundle, file| bundle.file(&format!("/decoys/{file}"), "decoy", 0o666))
}

/// A container that runs and has put its own decoys over what a process is called in its `/proc`.
fn trapped(cover: &str, userns: bool) -> Bundle {
    let script = format!("{cover}\ntouch /ready; sleep 100");
    let bundle =
        decoys(Bundle::new()).caps(&["CAP_SYS_ADMIN"]).unset("/linux/maskedPaths").unset("/linux/readonlyPaths");
    let bundle = bundle.dir("/real", 0o755).mount("/real", "proc", "proc", &[]).sh(&script);
    let bundle = if userns { bundle.userns() } else { bundle };
    bundle.run_detached().ok();
    eventually("the trap is laid", || bundle.rootfs().join("ready").exists());
    bundle
}

const COVERS: [&str; 4] = [
    "mount -t tmpfs tmpfs /proc; for n in self thread-self $(seq 1 99); do ln -s /decoys /proc/$n; done",
    "mount --bind /decoys /proc/1; mount -t tmpfs tmpfs /proc/sys",
    "mount -t tmpfs tmpfs /proc; mkdir /proc/self /proc/thread-self; mount --bind /decoys /proc/self; \
     mount --bind /decoys /proc/thread-self",
    "mount -t tmpfs tmpfs /proc; ln -s /real/1 /proc/self; ln -s /real/1 /proc/thread-self",
];

fn untouched(bundle: &Bundle, cover: &str) {
    for file in FILES {
        let left = fs::read_to_string(bundle.rootfs().join("decoys").join(file)).expect("the decoy");
        assert_eq!(left, "decoy", "{cover}: {file} was written");
    }
}

#[test]
fn cve_2025_52881_the_score_of_a_program_that_enters_goes_to_it_and_to_no_decoy() {
    for cover in COVERS {
        let bundle = trapped(cover, false);
        let process = json!({"args": ["cat", "/real/self/oom_score_adj"], "cwd": "/", "env": ["PATH=/bin"],
            "user": {"uid": 0, "gid": 0}, "oomScoreAdj": 456});
        let seen = bundle.exec_process(&process);
        if !known_difference("crun", "gives it no score")
            && !known_difference("runc", "fails without a procfs of its own")
        {
            seen.prints("456");
        }
        untouched(&bundle, cover);
        let first = fs::read_to_string(format!("/proc/{}/oom_score_adj", bundle.pid())).expect("its score");
        assert_ne!(first.trim(), "456", "{cover}: another process was given the score");
        bundle.delete_force().ok();
    }
}

#[test]
fn cve_2025_52881_clocks_are_set_in_the_kernel_though_the_mounts_are_those_of_another_container() {
    if known_difference("crun", "writes by the name in the joined mounts") || known_difference("runc", "the same") {
        return;
    }
    for (cover, userns) in COVERS.into_iter().flat_map(|cover| [(cover, false), (cover, true)]) {
        let trap = trapped(cover, userns);
        let of_trap = |kind: &str| format!("/proc/{}/ns/{kind}", trap.pid());
        let bundle = Bundle::new()
            .join("mount", of_trap("mnt"))
            .set("/root/path", "/")
            .set("/mounts", json!([]))
            .unset("/linux/maskedPaths")
            .unset("/linux/readonlyPaths")
            .ns("time")
            .set("/linux/timeOffsets", json!({"monotonic": {"secs": 12345}}))
            .set("/process/oomScoreAdj", 321)
            .args(["true"]);
        let bundle = if userns { bundle.join("user", of_trap("user")) } else { bundle };
        bundle.create().ok();
        untouched(&trap, cover);
        let read = |file: &str| {
            let text = fs::read_to_string(format!("/proc/{}/{file}", bundle.pid())).expect("what was written");
            text.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(read("timens_offsets"), "monotonic 12345 0 boottime 0 0", "{cover}, {userns}");
        assert_eq!(read("oom_score_adj"), "321", "{cover}, {userns}");
        bundle.delete_force().ok();
        trap.delete_force().ok();
    }
}
