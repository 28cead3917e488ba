//! Mounts added to a container that runs, and which may have prepared for it: links in their way, a root and a procfs of
//! its own, names that change meanwhile.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::attack::{CANARY, Outside, finds_nothing, mounts, race};
use crate::harness::{Bundle, Outcome, eventually, known_difference, peers_lack_it};

fn runc_lacks_it() -> bool {
    known_difference("runc", "has no such command")
}

fn change(bundle: &Bundle, what: &str, list: &Value) -> Outcome {
    let file = bundle.host_file("mounts.json", &list.to_string());
    bundle.cmd(["mounts", what, bundle.name(), file.to_str().expect("a plain path")]).run()
}

fn tagged(destination: &str) -> Value {
    json!({"destination": destination, "type": "tmpfs", "source": "tagged"})
}

/// The container's mount table, and what of the host it finds.
fn look(bundle: &Bundle) -> Outcome {
    bundle.exec(&["/bin/probe", "hunt", CANARY])
}

fn count(outcome: &Outcome) -> usize {
    mounts(outcome).iter().filter(|line| line.contains(" - tmpfs tagged ")).count()
}

#[test]
fn a_destination_that_is_a_link_leads_inside_or_nowhere() {
    if runc_lacks_it() {
        return;
    }
    let bundle = Bundle::new().args(["sleep", "600"]).dir("/inside", 0o755);
    let outside = Outside::of(&bundle);
    for (name, target) in [
        ("absolute", outside.absolute()),
        ("relative", outside.relative()),
        ("up", "../../../../../../inside".to_owned()),
        ("root", "/".to_owned()),
        ("dots", "../../..".to_owned()),
        ("proc", "/proc".to_owned()),
        ("self", "/proc/self".to_owned()),
        ("sys", "/proc/sys".to_owned()),
        ("magic", format!("/proc/self/root{}", outside.absolute())),
        ("magic-cwd", format!("/proc/1/cwd/{}", outside.relative())),
    ] {
        symlink(target, bundle.rootfs().join(format!("to-{name}"))).expect("make a link in the image");
    }
    bundle.run_detached().ok();
    let lacking = known_difference("crun", "makes no place behind a link whose target is missing");
    for name in if lacking { &["up"][..] } else { &["absolute", "relative", "up"] } {
        change(&bundle, "add", &json!([tagged(&format!("/to-{name}"))])).ok();
    }
    outside.is_untouched();
    let seen = look(&bundle);
    finds_nothing(seen.ok());
    if !known_difference("crun", "calls every tmpfs `none`, and takes any place inside") {
        assert_eq!(count(&seen), 3);
        for name in ["root", "dots", "proc", "self", "sys", "magic", "magic-cwd"] {
            change(&bundle, "add", &json!([tagged("/inside"), tagged(&format!("/to-{name}"))])).fails_with("/mounts/1");
            assert_eq!(count(&look(&bundle)), 3, "{name}");
        }
    }
    bundle.delete_force().ok();
}

#[test]
fn a_first_process_in_a_root_and_procfs_of_its_own_choice_gains_nothing() {
    if runc_lacks_it() {
        return;
    }
    // A false procfs, in which everything leads to one place, and below it a false root.
    let script =
        "mkdir -p /jail/bin /jail/proc /false/self/fd; cp /bin/busybox /jail/bin/; ln -s busybox /jail/bin/sleep
        for n in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do ln -s /kept /false/self/fd/$n; done
        mount -t tmpfs tagged /kept && mount --bind /false /proc && touch /ready && exec chroot /jail /bin/sleep 600";
    let bundle = Bundle::new().caps(&["CAP_SYS_ADMIN", "CAP_SYS_CHROOT"]).dir("/kept", 0o755).sh(script);
    let outside = Outside::of(&bundle);
    bundle.run_detached().ok();
    eventually("the trap is laid", || bundle.rootfs().join("ready").exists());
    if peers_lack_it() {
        return;
    }
    let table = || {
        let text = fs::read_to_string(format!("/proc/{}/mountinfo", bundle.pid())).expect("the mount table");
        text.lines().filter(|line| line.contains(" - tmpfs tagged ")).map(str::to_owned).collect::<Vec<_>>()
    };
    // Points in the jail are what its first process sees; nothing else of the container is among them.
    change(&bundle, "add", &json!([tagged("/added")])).ok();
    assert!(bundle.rootfs().join("added").is_dir() && !bundle.rootfs().join("jail/added").exists());
    // Undone by descriptor.
    change(
        &bundle,
        "add",
        &json!([tagged("/jail/one"), {"destination": "/bin/busybox", "type": "tmpfs", "source": "x"}]),
    )
    .fails_with("/mounts/1");
    assert_eq!(table(), Vec::<String>::new());
    change(&bundle, "remove", &json!([tagged("/added")])).ok();
    change(&bundle, "remove", &json!([tagged("/added")])).fails_with("nothing is mounted there");
    change(&bundle, "remove", &json!([tagged("/kept")])).ok();
    outside.is_untouched();
    bundle.delete_force().ok();
}

#[test]
fn a_destination_exchanged_for_a_link_stays_inside_and_all_is_there_or_nothing() {
    if runc_lacks_it() {
        return;
    }
    let bundle = Bundle::new().args(["sleep", "600"]).caps(&["CAP_DAC_OVERRIDE"]);
    let outside = Outside::of(&bundle);
    let shared = bundle.host_dir("shared");
    let mut pairs = Vec::new();
    for (kind, target) in [
        ("absolute", outside.absolute()),
        ("relative", outside.relative()),
        ("magic", format!("/proc/self/root{}", outside.absolute())),
        ("root", "../../..".to_owned()),
    ] {
        let (x, y) = (shared.join(kind).join("x"), shared.join(kind).join("y"));
        fs::create_dir_all(&x).expect("make a directory of the volume");
        symlink(target, &y).expect("make a link of the volume");
        pairs.push((x, y));
    }
    let bundle = bundle.bind(&shared, "/vol", &["rbind"]);
    bundle.run_detached().ok();
    let data = bundle.host_dir("data");
    let (turn, there) = (Cell::new(0), Cell::new(0));
    let root_too = !known_difference("crun", "a link to the root covers the container's root");
    let kinds =
        if root_too { &["absolute", "relative", "magic", "root"][..] } else { &["absolute", "relative", "magic"] };
    let add = |bundle: &Bundle| {
        let kind = kinds[turn.get() % kinds.len()];
        turn.set(turn.get() + 1);
        let bound =
            json!({"destination": format!("/vol/{kind}/x/made"), "type": "bind", "source": data, "options": ["rbind"]});
        change(bundle, "add", &json!([tagged("/first"), tagged(&format!("/vol/{kind}/x")), bound]))
    };
    race(&[bundle], &pairs, &outside, add, |bundle, _| {
        there.set(there.get() + 2);
        let seen = look(bundle);
        finds_nothing(seen.ok());
        if !known_difference("crun", "calls every tmpfs `none`") {
            assert_eq!(count(&seen), there.get(), "an addition that failed has left something, or one is elsewhere");
        }
    });
}
