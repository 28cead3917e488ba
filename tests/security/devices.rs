//! Devices that are not what their name says: null, the console, terminals.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;
use serde_json::json;

use crate::attack::Outside;
use crate::harness::{Bundle, ConsoleSocket, Terminal, known_difference};

fn node(path: PathBuf, major: u64, minor: u64) {
    mknod(&path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(major, minor)).expect("make a device");
}

/// False nulls: what is put at the name.
const FALSE: &[&str] = &["link", "dangling", "file", "fifo", "directory", "zero", "missing", "block", "socket"];

fn put_null(dev: PathBuf, kind: &str) {
    let null = dev.join("null");
    let _ = fs::remove_file(&null);
    match kind {
        "link" => symlink("/proc/sys/kernel/core_pattern", null).expect("make a link"),
        "dangling" => symlink("/nowhere", null).expect("make a link"),
        "file" => fs::write(null, "secret").expect("make a file"),
        "fifo" => mkfifo(&null, Mode::from_bits_truncate(0o666)).expect("make a fifo"),
        "directory" => fs::create_dir(null).expect("make a directory"),
        "zero" => node(null, 1, 5),
        "block" => {
            mknod(&null, SFlag::S_IFBLK, Mode::from_bits_truncate(0o666), makedev(1, 3)).expect("make a device");
        }
        "socket" => drop(std::os::unix::net::UnixListener::bind(null).expect("make a socket")),
        _ => {}
    }
}

/// The `/dev` of the container is this directory of the host.
fn with_dev(dev: &std::path::Path) -> Bundle {
    let bundle = ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev"].into_iter().fold(Bundle::new(), Bundle::without_mount);
    bundle.bind(dev, "/dev", &["rbind"]).file("/secret", "secret", 0o644).set("/linux/maskedPaths", json!(["/secret"]))
}

#[test]
fn cve_2025_31133_cve_2025_62161_nothing_but_the_null_device_masks_a_file() {
    let first = Bundle::new();
    let outside = Outside::of(&first);
    for kind in FALSE {
        let dev = first.host_dir(&format!("dev-{kind}"));
        put_null(dev.clone(), kind);
        let seen = with_dev(&dev).sh("cat /secret; stat -c %t:%T /secret; echo; cat /proc/self/mountinfo").run();
        if seen.succeeded() {
            seen.hides("secret\n0:0").shows("1:3");
        }
        outside.is_untouched();
    }
    let dev = first.host_dir("dev-right");
    node(dev.join("null"), 1, 3);
    with_dev(&dev).sh("stat -c %t:%T /secret; cat /secret").run().prints("1:3");
}

#[test]
fn cve_2025_31133_a_device_of_the_image_has_to_be_the_one_it_is_called() {
    if known_difference("crun", "takes what is there") || known_difference("runc", "the same") {
        return;
    }
    for kind in FALSE.iter().filter(|kind| **kind != "missing") {
        let bundle = Bundle::new().without_mount("/dev").set("/linux/maskedPaths", json!([]));
        put_null(bundle.rootfs().join("dev"), kind);
        bundle.args(["true"]).run().fails_with("/dev/null");
    }
    for (name, major, minor) in [("zero", 8, 0), ("random", 1, 1), ("full", 1, 4)] {
        let bundle = Bundle::new().without_mount("/dev");
        node(bundle.rootfs().join("dev").join(name), major, minor);
        bundle.args(["true"]).run().fails_with(name);
    }
    // One that the configuration names, in a place of its own.
    let device = json!({"path": "/srv/card", "type": "c", "major": 1, "minor": 9});
    let bundle = Bundle::new().dir("/srv", 0o755).push("/linux/devices", device).args(["true"]);
    node(bundle.rootfs().join("srv/card"), 1, 1);
    bundle.run().fails_with("card");
}

#[test]
fn cve_2026_88265_the_streams_are_not_led_to_a_null_that_is_a_link() {
    let first = Bundle::new();
    let outside = Outside::of(&first);
    for uid in [0, 1000] {
        for kind in ["image", "volume", "fifo"] {
            let file = outside.dir().join("file");
            let bundle = match kind {
                // The image's own /dev, whose null leads to a file of the host that is bound.
                "image" => Bundle::new().without_mount("/dev").link("/dev/null", "/vol"),
                _ => {
                    let dev = first.host_dir(&format!("dev-{kind}-{uid}"));
                    match kind {
                        "fifo" => put_null(dev.clone(), "fifo"),
                        _ => symlink("/vol", dev.join("null")).expect("make a link"),
                    }
                    with_dev(&dev).set("/linux/maskedPaths", json!([]))
                }
            };
            let bundle = bundle.bind(&file, "/vol", &["bind"]);
            let bundle = bundle.set("/process/user", json!({"uid": uid, "gid": uid})).sh("echo written >&2; cat");
            // All three are null; it must end by itself, too: nobody opens the other end of a fifo.
            let _ =
                bundle.run_cmd().after("exec </dev/null >/dev/null 2>/dev/null").limit(Duration::from_secs(10)).run();
            outside.is_untouched();
        }
    }
    let null = fs::metadata("/dev/null").expect("the host's null");
    assert_eq!((null.uid(), null.gid()), (0, 0), "the host's null device was given away");
}

/// What a program says of its streams: kind and number of each, then the owner of the null device of its container.
const STREAMS: &str = "for fd in 0 1 2; do seen=$(stat -L -c '%F %t:%T' /proc/$$/fd/$fd); echo $seen >>/seen; done
    echo written; echo written >&2; cat; true";

#[test]
fn cve_2026_88265_the_streams_are_not_led_to_a_file_of_the_host_that_is_bound_on_null() {
    let first = Bundle::new();
    let outside = Outside::of(&first);
    let file = outside.dir().join("file");
    let bind = format!("mount --bind {} dev/null", file.display());
    for (uid, userns) in [(0, false), (1000, false), (0, true), (1000, true)] {
        let plain = || if userns { Bundle::new().userns() } else { Bundle::new() };
        let image = || plain().without_mount("/dev");
        // Bound by the configuration, by whoever shares the mounts, and at the end of links.
        let bundles = [
            ("configuration", plain().bind(&file, "/dev/null", &["bind"])),
            ("configuration, before /dev", {
                let bundle = image().file("/dev/null", "", 0o666).bind(&file, "/dev/null", &["bind"]);
                ["/dev/pts", "/dev/shm", "/dev/mqueue"].into_iter().fold(bundle, Bundle::without_mount)
            }),
            ("hook", plain().hook("createContainer", &bind)),
            (
                "links",
                image()
                    .bind(&file, "/vol", &["bind"])
                    .link("/dev/null", "../one")
                    .link("/one", "two")
                    .link("/two", "/vol"),
            ),
            ("relative", image().bind(&file, "/etc/vol", &["bind"]).link("/dev/null", "../../../etc/vol")),
        ];
        for (what, bundle) in bundles {
            let bundle = bundle.file("/seen", "", 0o666).set("/linux/maskedPaths", json!([]));
            let bundle = bundle.set("/process/user", json!({"uid": uid, "gid": uid})).sh(STREAMS);
            let streams = "exec </dev/null >/dev/null 2>/dev/null";
            let ended = bundle.run_cmd().after(streams).limit(Duration::from_secs(10)).run();
            outside.is_untouched();
            let seen = fs::read_to_string(bundle.rootfs().join("seen")).expect("what the program has seen");
            if known_difference("runc", "gives it pipes") {
                continue;
            }
            // Where it has run, its streams are the device and nothing else.
            assert!(seen.lines().all(|line| line == "character special file 1:3"), "{what}, {uid}: {seen}");
            assert!(!ended.succeeded() || seen.lines().count() == 3, "{what}, {uid}: {seen}");
        }
    }
}

#[test]
fn cve_2026_88265_the_streams_of_a_program_that_enters_are_not_led_to_a_false_null() {
    let first = Bundle::new();
    let outside = Outside::of(&first);
    let file = outside.dir().join("file");
    for lay in ["rm /dev/null; ln -s /vol /dev/null", "mount --bind /vol /dev/null", "rm /dev/null; mkfifo /dev/null"] {
        let bundle = Bundle::new().caps(&["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]).file("/seen", "", 0o666);
        let bundle = bundle.bind(&file, "/vol", &["bind"]).sh(&format!("{lay}; touch /ready; sleep 100"));
        bundle.run_detached().ok();
        crate::harness::eventually("the trap is laid", || bundle.rootfs().join("ready").exists());
        for user in ["0", "1000:1000"] {
            let exec = bundle.exec_cmd(&["--user", user], &["sh", "-c", STREAMS]);
            let streams = "exec </dev/null >/dev/null 2>/dev/null";
            exec.after(streams).limit(Duration::from_secs(10)).run().ok();
            outside.is_untouched();
        }
        let seen = fs::read_to_string(bundle.rootfs().join("seen")).expect("what the programs have seen");
        if !known_difference("runc", "gives it pipes") {
            assert_eq!(seen, "character special file 1:3\n".repeat(6), "{lay}");
        }
        bundle.delete_force().ok();
    }
    let null = fs::metadata("/dev/null").expect("the host's null");
    assert_eq!((null.uid(), null.gid()), (0, 0), "the host's null device was given away");
}

#[test]
fn cve_2026_88265_the_null_of_the_container_stays_everybodys() {
    let bundle = Bundle::new().set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let bundle = bundle.file("/seen", "", 0o666).sh("stat -c %u:%g /dev/null >/seen");
    bundle.run_cmd().after("exec </dev/null >/dev/null 2>/dev/null").run().ok();
    let seen = fs::read_to_string(bundle.rootfs().join("seen")).expect("what the container has seen");
    assert_eq!(seen.trim(), "0:0");
}

/// A container with a terminal in an image's own `/dev`.
fn with_console(bundle: Bundle) -> (Bundle, ConsoleSocket) {
    let bundle = bundle.set("/process/terminal", true).set("/linux/maskedPaths", json!([])).args(["true"]);
    let socket = ConsoleSocket::at(bundle.host(&format!("s{}/sock", bundle.sandbox().number())));
    (bundle, socket)
}

#[test]
fn cve_2026_88264_cve_2025_52565_a_console_that_is_a_link_makes_and_covers_nothing() {
    let first = Bundle::new();
    let outside = Outside::of(&first);
    let targets = [outside.absolute() + "/new", outside.relative() + "/new", outside.absolute() + "/file"];
    for target in
        targets.iter().map(String::as_str).chain(["/etc/passwd", "/proc/1/fd/0", "null", "/proc/sysrq-trigger"])
    {
        // In the image, where /dev is not covered; and in a /dev that is a volume.
        let image = Bundle::new().without_mount("/dev").link("/dev/console", target);
        let dev = first.host_dir(&format!("dev-{}", first.sandbox().number()));
        symlink(target, dev.join("console")).expect("make a link");
        first.host_dir(&format!("{}/pts", dev.file_name().expect("a name").display()));
        let volume =
            ["/dev/shm", "/dev/mqueue", "/dev/pts", "/dev"].into_iter().fold(Bundle::new(), Bundle::without_mount);
        let volume = volume.bind(&dev, "/dev", &["rbind"]).mount("/dev/pts", "devpts", "devpts", &["newinstance"]);
        for bundle in [image, volume] {
            let (bundle, socket) = with_console(bundle);
            let made = bundle.create_cmd(&["--console-socket", socket.path()]).run();
            outside.is_untouched();
            if made.succeeded() {
                let table = fs::read_to_string(format!("/proc/{}/mountinfo", bundle.pid())).expect("its mounts");
                let terminal = |line: &&str| line.contains(" - devpts ") && !line.contains(" / /dev/pts ");
                let all: Vec<_> = table.lines().filter(terminal).map(crate::attack::point).collect();
                assert!(all.iter().all(|place| *place == "/dev/console"), "{target}: the terminal is on {all:?}");
            }
            let _ = bundle.delete_force();
        }
    }
}

#[test]
fn cve_2025_52565_a_terminal_comes_from_a_devpts_and_from_nothing_like_it() {
    if known_difference("crun", "opens the name") || known_difference("runc", "the same") {
        return;
    }
    let first = Bundle::new();
    let outside = Outside::of(&first);
    let fake = first.host_dir("fake");
    symlink("/dev/pts-of-the-host/ptmx", fake.join("ptmx")).expect("make a link");
    node(fake.join("0"), 136, 0);
    let device = first.host_dir("device");
    node(device.join("ptmx"), 5, 2);
    let pts = |bundle: Bundle| bundle.without_mount("/dev/pts");
    let refused = [
        ("a directory with a link", pts(Bundle::new()).bind(&fake, "/dev/pts", &["bind"])),
        ("a directory with a device", pts(Bundle::new()).bind(&device, "/dev/pts", &["bind"])),
        ("a link to a devpts", {
            let bundle =
                pts(Bundle::new().without_mount("/dev")).link("/dev/pts", "/elsewhere").dir("/elsewhere", 0o755);
            // After the lookup the link leads to a devpts; before it to nothing.
            bundle.mount("/elsewhere", "devpts", "devpts", &["newinstance"])
        }),
        ("a multiplexer that is covered", {
            let null = first.host_file("covers", "");
            Bundle::new().bind(null, "/dev/pts/ptmx", &["bind"])
        }),
        ("nothing", pts(Bundle::new())),
    ];
    for (what, bundle) in refused {
        let (bundle, socket) = with_console(bundle);
        let made = bundle.create_cmd(&["--console-socket", socket.path()]).run();
        if made.succeeded() {
            made.fail(&format!("a terminal was made although /dev/pts is {what}"));
        }
        outside.is_untouched();
    }
    // The same container with a devpts works.
    let mut terminal = Terminal::new();
    let console = terminal.replica();
    Bundle::new().set("/process/terminal", true).args(["true"]).run_cmd().on_terminal(console).run().ok();
}
