//! A procfs for a pid namespace that the runtime does not enter: the mount option `pidns=` (Linux 6.18), and without it.

use serde_json::{Value, json};

use crate::harness::{Bundle, Cmd, known_difference};

/// fsconfig(2) with FSCONFIG_SET_FD fails with EINVAL, as it does where procfs knows no `pidns=`.
const OLD: [&str; 5] = ["refuse-when", "431", "1", "5", "22"];

fn old(command: Cmd, bundle: &Bundle) -> Cmd {
    let probe = bundle.sandbox().dir().join("bin/probe");
    let words = [probe.to_str().expect("a plain path")].into_iter().chain(OLD).map(str::to_owned).collect::<Vec<_>>();
    command.started_by(words)
}

fn running(bundle: Bundle) -> Bundle {
    let bundle = bundle.args(["sleep", "4242"]);
    bundle.run_detached().ok();
    bundle
}

/// A container in the pid namespace, and where there is one in the user namespace, of another.
fn beside(first: &Bundle, user: bool) -> Bundle {
    let path = |kind: &str| format!("/proc/{}/ns/{kind}", first.pid());
    let second = Bundle::inside(first.sandbox().clone());
    let second = if user { second.userns().join("user", path("user")) } else { second };
    second.join("pid", path("pid"))
}

/// Whose processes it shows.
const SHOW: &str = "tr '\\0' ' ' </proc/1/cmdline; echo; echo /proc/[0-9]* | wc -w";

#[test]
fn a_container_in_the_pid_namespace_of_another_sees_that_one() {
    for user in [false, true] {
        let first = running(if user { Bundle::new().userns() } else { Bundle::new() });
        for on_old_kernel in [false, true] {
            let second = beside(&first, user).sh(SHOW);
            let run = second.run_cmd();
            let seen = if on_old_kernel { old(run, &second).run() } else { run.run() };
            // The first one, the shell, and who counts.
            let told = seen.ok().stdout();
            assert!(told.starts_with("sleep 4242"), "user namespace {user}, old {on_old_kernel}: {told}");
            let flags = "grep ' /proc proc' /proc/mounts | cut -d' ' -f4; sysctl -w kernel.domainname=x; \
                touch /proc/sys/kernel/domainname && echo writable";
            let second = beside(&first, user).mount_options("/proc", |options| {
                *options = vec!["nosuid".into(), "noexec".into(), "nodev".into(), "ro".into()];
            });
            let second = second.sh(flags);
            let run = second.run_cmd();
            let seen = if on_old_kernel { old(run, &second).run() } else { run.run() };
            let told = seen.stdout();
            assert!(told.starts_with("ro,nosuid,nodev,noexec"), "{told}");
            assert!(!told.contains("writable"), "{told}");
        }
    }
}

#[test]
fn without_the_option_the_procfs_of_a_member_has_to_do() {
    if ["crun", "runc"].iter().any(|peer| known_difference(peer, "enters the pid namespace")) {
        return;
    }
    let first = running(Bundle::new());
    let second =
        beside(&first, false).mount_options("/proc", |options| options.push("hidepid=2".into())).args(["true"]);
    second.run().ok();
    old(second.run_cmd(), &second)
        .run()
        .fails_with("the option hidepid cannot be given to a procfs of another pid namespace (it needs Linux 6.18");
    // One that has covered its /proc, and one without any.
    let covered = Bundle::new().sh("mount -t tmpfs none /proc; echo covered; exec sleep 4242").caps(&["CAP_SYS_ADMIN"]);
    covered.run_detached().ok();
    covered.until_output("covered");
    let without =
        running(Bundle::new().without_mount("/proc").unset("/linux/maskedPaths").unset("/linux/readonlyPaths"));
    for first in [covered, without] {
        let second = beside(&first, false).args(["true"]);
        second.run().ok();
        let refused = old(second.run_cmd(), &second).run();
        refused.fails_with("find a procfs of the pid namespace that is joined");
    }
}

#[test]
fn mounts_add_shows_the_containers_processes_with_and_without_the_option() {
    if ["crun", "runc"].iter().any(|peer| known_difference(peer, "has another way to mount it, or none")) {
        return;
    }
    let list =
        |at: &str| -> Value { json!([{"destination": at, "type": "proc", "source": "proc", "options": ["ro"]}]) };
    for user in [false, true] {
        let bundle = running(if user { Bundle::new().userns() } else { Bundle::new() });
        let add = |at: &str| bundle.cmd(["mounts", "add", bundle.name(), "-"]).stdin(&list(at).to_string());
        add("/new").run().ok();
        old(add("/old"), &bundle).run().ok();
        for at in ["/new", "/old"] {
            let seen = bundle.exec(&["sh", "-c", &format!("tr '\\0' ' ' <{at}/1/cmdline; grep ' {at} ' /proc/mounts")]);
            let told = seen.ok().stdout();
            assert!(told.starts_with("sleep 4242"), "{at}: {told}");
            assert!(told.contains(" ro,"), "{at}: {told}");
        }
    }
}
