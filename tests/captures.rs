//! What engines really asked of a runtime, asked again: every captured call with its arguments, environment and leaked
//! descriptors, on its configuration fitted to the test's place.
//!
//! What this machine cannot do has to be refused by name; without it the call is made again and has to succeed.
//! `CAPTURES=DIR cargo test --test captures` plays a larger set of the same form.
#![allow(unreachable_pub, reason = "one binary: everything is private to it")]
#![allow(missing_docs, reason = "a test's name is its sentence")]
#![allow(clippy::disallowed_methods, reason = "the lessons are about the runtime")]

#[allow(dead_code, unused_imports, reason = "a vocabulary for other tests")]
mod harness;
mod replay;

use std::io::Write;

use replay::{Player, Report, folders, steps};

macro_rules! captures {
    ($($name:ident: $folder:literal,)*) => {
        $(#[test] fn $name() { play($folder) })*

        #[test]
        fn every_folder_of_captures_is_played() {
            let named: std::collections::BTreeSet<String> = [$($folder.to_owned()),*].into();
            assert_eq!(folders(), named);
        }
    };
}

captures! {
    containerd_1_7_vm_systemd_ctr: "containerd-1.7/vm-systemd-ctr",
    containerd_2_1_native_cri: "containerd-2.1/native-cri",
    containerd_2_1_native_critest: "containerd-2.1/native-critest",
    containerd_2_1_native_ctr: "containerd-2.1/native-ctr",
    cri_o_main_native: "cri-o-main/native",
    docker_26_1_vm_nosystemd: "docker-26.1/vm-nosystemd",
    docker_26_1_vm_systemd: "docker-26.1/vm-systemd",
    docker_28_5_native: "docker-28.5/native",
    docker_28_5_native_usernsremap: "docker-28.5/native-usernsremap",
    podman_5_4_vm_systemd_root: "podman-5.4/vm-systemd-root",
    podman_5_4_vm_systemd_rootless: "podman-5.4/vm-systemd-rootless",
    podman_5_8_native_root: "podman-5.8/native-root",
    podman_5_8_native_rootless: "podman-5.8/native-rootless",
}

/// Plays the steps of a folder, each in a sandbox of its own; all that fail are told.
fn play(folder: &str) {
    let mut report = Report::default();
    let mut failed = Vec::new();
    for step in steps(folder) {
        let name = step.name.clone();
        // A sandbox belongs to a thread.
        let thread = std::thread::Builder::new().name(name.clone());
        let played = thread.spawn(move || Player::new(&step).play()).expect("spawn a thread").join();
        match played {
            Ok(more) => report.add(more),
            Err(_) => failed.push(name),
        }
    }
    // Past the capture of `println!`, so that it is seen when the test passes.
    let _ = writeln!(std::io::stderr(), "{folder}: {report}");
    assert!(failed.is_empty(), "{} steps failed: {failed:?}", failed.len());
}
