//! Directories exchanged for links, in a volume that the attacker shares, while the container is made.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::json;

use crate::attack::{CANARY, Outside, finds_nothing, mounts, point, race};
use crate::harness::{Bundle, HOST_ID, Outcome, Terminal, chown_all, known_difference};

/// Ways to lead a name outside, each tried in the place of a directory of the volume.
fn links(outside: &Outside) -> Vec<(&'static str, String)> {
    vec![
        ("absolute", outside.absolute()),
        ("relative", outside.relative()),
        // The container's own procfs, whose links know no root.
        ("magic", format!("/proc/self/root{}", outside.absolute())),
        ("magic-cwd", format!("/proc/self/cwd/{}", outside.relative())),
        // The container's root itself: as many steps up as there are.
        ("root", "../../..".to_owned()),
    ]
}

/// A volume with a directory `x` beside a link `y` for each kind of link, and the pairs to exchange.
fn volume(bundle: &Bundle, outside: &Outside) -> (PathBuf, Vec<(PathBuf, PathBuf)>) {
    let shared = bundle.host_dir("shared");
    let mut pairs = Vec::new();
    for (kind, target) in links(outside) {
        let (x, y) = (shared.join(kind).join("x"), shared.join(kind).join("y"));
        fs::create_dir_all(&x).expect("make a directory of the volume");
        symlink(target, &y).expect("make a link of the volume");
        pairs.push((x, y));
    }
    // A directory that leaves the volume with all below it, while `up` leads back from it.
    let (inside, beside) = (shared.join("moved/x"), bundle.host_dir("beside").join("z"));
    for dir in [&inside, &beside] {
        fs::create_dir_all(dir.join("a/b")).expect("make a directory of the volume");
        symlink("../".repeat(8) + "sub", dir.join("a/b/up")).expect("make a link of the volume");
    }
    pairs.push((inside, beside));
    (shared, pairs)
}

const KINDS: [&str; 5] = ["absolute", "relative", "magic", "magic-cwd", "root"];

/// A container with the volume, that tells what it can reach.
fn victim(shared: &Path) -> Bundle {
    Bundle::new().caps(&["CAP_DAC_OVERRIDE"]).bind(shared, "/vol", &["rbind"]).args(["probe", "hunt", CANARY])
}

#[test]
fn cve_2021_30465_a_mount_point_exchanged_for_a_link_stays_inside() {
    let first = Bundle::new();
    let outside = Outside::of(&first);
    let (shared, pairs) = volume(&first, &outside);
    let data = first.host_dir("data");
    fs::write(data.join("mark"), "").expect("write to the other volume");
    let mut victims = Vec::new();
    for kind in KINDS {
        let x = format!("/vol/{kind}/x");
        victims.push(
            victim(&shared).mount(&x, "tmpfs", "tagged", &["tmpcopyup"]).bind(&data, &x, &["rbind", "ro"]).mount(
                &x,
                "tmpfs",
                "tagged",
                &["ro"],
            ),
        );
    }
    let through = "/vol/moved/x/a/b/up/in";
    victims.push(victim(&shared).mount(through, "tmpfs", "tagged", &[]).bind(&data, through, &[]));
    race(&victims, &pairs, &outside, Bundle::run, |bundle, outcome| {
        finds_nothing(outcome);
        let wanted = bundle.config()["mounts"].as_array().map_or(0, Vec::len) - first_mounts(&first);
        // One that is missing was put on a place of the host.
        let seen = mounts(outcome).iter().filter(|line| is_ours(line, &data, &shared)).count();
        if seen != wanted {
            outcome.fail(&format!("{seen} of the container's {wanted} own mounts are in it"));
        }
    });
}

fn first_mounts(bundle: &Bundle) -> usize {
    bundle.config()["mounts"].as_array().map_or(0, Vec::len)
}

fn is_ours(line: &str, data: &Path, shared: &Path) -> bool {
    // The root of a bind is told from the root of its file system, here the sandbox's.
    let root = line.split(' ').nth(3).unwrap_or_default().trim_start_matches('/');
    let ends = |path: &Path| !root.is_empty() && path.ends_with(root);
    line.contains(" - tmpfs tagged ") || ends(data) || ends(shared)
}

#[test]
fn cve_2024_45310_what_is_made_for_mounts_and_devices_is_made_inside() {
    let first = Bundle::new();
    let outside = Outside::of(&first);
    let (shared, pairs) = volume(&first, &outside);
    let file = first.host_file("a-file", "");
    let mut victims = Vec::new();
    for kind in KINDS {
        let x = format!("/vol/{kind}/x");
        let node = json!({"path": format!("{x}/node"), "type": "c", "major": 1, "minor": 3, "fileMode": 0o666});
        victims.push(
            victim(&shared)
                .mount(&format!("{x}/made/by/us"), "tmpfs", "tagged", &[])
                .bind(&file, &format!("{x}/a-file"), &["bind"])
                .push("/linux/devices", node)
                .set("/process/cwd", format!("{x}/work/ing")),
        );
        // In a user namespace the device is a bind of the host's node of that name.
        let path = shared.join(kind).join("x/bound");
        mknod(&path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3)).expect("make a device");
        let node = json!({"path": path, "type": "c", "major": 1, "minor": 3, "fileMode": 0o666});
        let at = shared.to_str().expect("a plain path");
        victims.push(victim(&shared).userns().bind(&shared, at, &["rbind"]).push("/linux/devices", node));
    }
    let through = "/vol/moved/x/a/b/up/made/deep";
    victims.push(victim(&shared).mount(through, "tmpfs", "tagged", &[]).bind(&file, "/vol/moved/x/a/b/up/f", &[]));
    chown_all(&shared, HOST_ID);
    race(&victims, &pairs, &outside, Bundle::run, |_, outcome| finds_nothing(outcome));
}

/// The directory that is copied up, exchanged for a link to where files of these names would do harm.
#[test]
fn cve_2026_133553_a_copy_up_that_is_raced_copies_into_its_own_tmpfs_alone() {
    let first = Bundle::new();
    let outside = Outside::of(&first);
    let shared = first.host_dir("shared");
    let kernel = "sys/net/ipv4";
    let sysctl = format!("/proc/{kernel}/ip_default_ttl");
    let before = fs::read_to_string(&sysctl).expect("a sysctl of this network namespace");
    let targets = [
        ("absolute", outside.absolute()),
        ("relative", outside.relative()),
        ("proc", format!("/proc/{kernel}")),
        ("proc-up", format!("{}proc/{kernel}", "../".repeat(16))),
        ("magic", format!("/proc/self/root{}", outside.absolute())),
        ("root", "../../..".to_owned()),
    ];
    let (mut pairs, mut victims) = (Vec::new(), Vec::new());
    for (kind, target) in targets {
        let (x, y) = (shared.join(kind).join("x"), shared.join(kind).join("y"));
        fs::create_dir_all(x.join("sub")).expect("make a directory of the volume");
        // Names that are outside, too, and in the kernel's directory.
        for name in ["file", "ptmx", "sub/file", "ip_default_ttl", "ip_forward"] {
            fs::write(x.join(name), "77").expect("write a file of the volume");
        }
        symlink(target, &y).expect("make a link of the volume");
        pairs.push((x, y));
        let place = format!("/vol/{kind}/x");
        for options in [&["tmpcopyup"][..], &["tmpcopyup", "ro"]] {
            // A network namespace that has the host's values, which no container may change.
            let bundle = victim(&shared).mount(&place, "tmpfs", "tagged", options).without_ns("network");
            victims.push(bundle.unset("/linux/readonlyPaths").set("/linux/maskedPaths", json!([])));
        }
    }
    race(&victims, &pairs, &outside, Bundle::run, |_, outcome| {
        finds_nothing(outcome);
        let seen = mounts(outcome).iter().filter(|line| line.contains(" - tmpfs tagged ")).count();
        if seen != 1 {
            outcome.fail("the tmpfs is not in the container");
        }
        assert_eq!(fs::read_to_string(&sysctl).expect("the sysctl"), before, "a sysctl of the host was written");
    });
    assert_eq!(fs::read_to_string(&sysctl).expect("the sysctl"), before, "a sysctl of the host was written");
    // What is copied from is not changed either.
    for (x, y) in &pairs {
        let volume = if x.is_symlink() { y } else { x };
        assert_eq!(fs::read_to_string(volume.join("ip_default_ttl")).expect("a file of the volume"), "77");
    }
}

/// The attacker shares the root itself: two names in it are exchanged.
fn racing_root(name: &str) -> (Bundle, Outside, (PathBuf, PathBuf)) {
    let bundle = Bundle::new().dir("/fake", 0o755).link("/other", "/fake").caps(&[]);
    let outside = Outside::of(&bundle);
    let pair = (bundle.rootfs().join(name), bundle.rootfs().join("other"));
    (bundle, outside, pair)
}

#[test]
fn cve_2019_19921_cve_2023_27561_a_proc_exchanged_for_a_link_is_refused_or_masked() {
    for name in ["proc", "sys"] {
        let (bundle, outside, pair) = racing_root(name);
        // What a mask that follows the link would find, and what it should hide.
        for file in ["kcore", "keys", "sys/kernel/x", "fs/x", "firmware/x"] {
            let path = format!("/fake/{file}");
            fs::create_dir_all(bundle.rootfs().join(path.trim_start_matches('/')).parent().expect("a parent"))
                .expect("make a directory");
            fs::write(bundle.rootfs().join(path.trim_start_matches('/')), "").expect("write a file");
        }
        let bundle = bundle
            .set("/linux/maskedPaths", json!(["/proc/keys", "/sys/firmware"]))
            .set("/linux/readonlyPaths", json!(["/proc/sys", "/sys/fs"]))
            // Wherever it may be called by now.
            .sh("for p in /proc /other; do cat $p/self/mountinfo 2>/dev/null && break; done");
        race(&[bundle], &[pair], &outside, Bundle::run, |_, outcome| {
            let table = mounts(outcome);
            let led = |line: &String| point(line) == "/fake";
            if table.iter().any(led) {
                outcome.fail("a mount was led to where the link points");
            }
            for (fstype, masked, fixed) in [("proc", "keys", "sys"), ("sysfs", "firmware", "fs")] {
                // Names change while the table is read; the numbers of mounts do not.
                let field = |line: &String, number: usize| line.split(' ').nth(number).unwrap_or_default().to_owned();
                let whole = |line: &&String| line.contains(&format!(" - {fstype} ")) && field(line, 3) == "/";
                let Some(root) = table.iter().find(whole).map(|line| field(line, 0)) else { continue };
                for below in [masked, fixed] {
                    let end = format!("/{below}");
                    if !table.iter().any(|line| field(line, 1) == root && point(line).ends_with(&end)) {
                        outcome.fail(&format!("{below} of the {fstype} is not covered"));
                    }
                }
            }
        });
    }
}

/// A `/dev` that is a volume, with the nodes that a container wants, beside a name to exchange one for.
fn shared_dev(bundle: &Bundle) -> PathBuf {
    let dev = bundle.host_dir("dev");
    for (name, major, minor) in [("null", 1, 3), ("zero", 1, 5)] {
        mknod(&dev.join(name), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(major, minor))
            .expect("make a device");
    }
    dev
}

#[test]
fn cve_2025_31133_cve_2025_62161_a_null_exchanged_for_a_link_masks_or_fails() {
    let first = Bundle::new();
    let outside = Outside::of(&first);
    let dev = shared_dev(&first);
    let mut victims = Vec::new();
    for target in ["/proc/sys/kernel/core_pattern", "/etc/passwd", "/dev/zero"] {
        // One name to exchange serves all: its target is chosen in the root.
        let bundle = Bundle::new().link("/chosen", target).file("/secret", "secret", 0o644);
        let bundle = ["/dev/pts", "/dev/shm", "/dev/mqueue"].into_iter().fold(bundle, Bundle::without_mount);
        victims.push(
            bundle
                .without_mount("/dev")
                .bind(&dev, "/dev", &["rbind"])
                .set("/linux/maskedPaths", json!(["/secret", "/proc/keys"]))
                .sh("stat -c %t:%T /secret /proc/keys; dd if=/secret bs=4k count=1 status=none"),
        );
    }
    symlink("/chosen", dev.join("other")).expect("make a link in the shared /dev");
    let pair = (dev.join("null"), dev.join("other"));
    race(&victims, &[pair], &outside, Bundle::run, |_, outcome| {
        outcome.prints("1:3\n1:3");
    });
}

#[test]
fn cve_2025_52565_a_console_exchanged_for_a_link_goes_nowhere_else() {
    if known_difference("crun", "no container with a /dev like this starts") {
        return;
    }
    let first = Bundle::new();
    let outside = Outside::of(&first);
    let dev = shared_dev(&first);
    fs::write(dev.join("console"), "").expect("make a place for the console");
    symlink("/target", dev.join("other")).expect("make a link in the shared /dev");
    let pair = (dev.join("console"), dev.join("other"));
    let bundle = ["/dev/shm", "/dev/mqueue", "/dev/pts"].into_iter().fold(Bundle::new(), Bundle::without_mount);
    bundle.host_dir("dev/pts");
    let bundle = bundle
        .file("/target", "of the container", 0o644)
        .without_mount("/dev")
        .bind(&dev, "/dev", &["rbind"])
        .mount("/dev/pts", "devpts", "devpts", &["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"])
        .set("/process/terminal", true)
        .set("/linux/maskedPaths", json!([]))
        .sh("cat /proc/self/mountinfo >/seen");
    let start = |bundle: &Bundle| -> Outcome {
        let _ = fs::remove_file(bundle.rootfs().join("seen"));
        let mut terminal = Terminal::new();
        bundle.run_cmd().on_terminal(terminal.replica()).run()
    };
    race(&[bundle], &[pair], &outside, start, |bundle, outcome| {
        let seen = fs::read_to_string(bundle.rootfs().join("seen")).expect("what the container has seen");
        if seen.lines().any(|line| point(line) == "/target") {
            outcome.fail("the terminal is mounted where the link points");
        }
    });
}
