//! Images whose names are links: at `/proc`, `/sys`, `/dev`, on the way to mount points, devices and directories.

use std::fs;

use serde_json::json;

use crate::attack::{CANARY, Outside, finds_nothing, mounts, point};
use crate::harness::{Bundle, ConsoleSocket, known_difference};

/// Targets of links that lead outside, or would if they were followed as the host does.
fn ways_out(outside: &Outside) -> [String; 5] {
    [
        outside.absolute(),
        outside.relative(),
        format!("/proc/self/root{}", outside.absolute()),
        format!("/proc/self/cwd/{}", outside.relative()),
        format!("/hop{}", outside.absolute()),
    ]
}

/// A bundle whose image has this link; `/hop` is one to the root, so that links can be chained.
fn image(link: &str, target: &str) -> Bundle {
    let bundle = Bundle::new();
    let stands = bundle.rootfs().join(link.trim_start_matches('/'));
    if stands.is_dir() {
        fs::remove_dir(&stands).expect("make room for the link");
    }
    bundle.link(link, target).link("/hop", "/").args(["probe", "hunt", CANARY])
}

#[test]
fn cve_2023_28642_cve_2025_54867_a_proc_or_sys_of_the_image_that_is_a_link_is_refused() {
    let outside = Outside::of(&Bundle::new());
    let mut targets = ways_out(&outside).to_vec();
    targets.extend(["/x", "x", "/nowhere", "../../../sys", "/", ".", "/proc", "/sys"].map(str::to_owned));
    for name in ["/proc", "/sys"] {
        for target in &targets {
            if name == "/sys" && known_difference("crun", "a /sys that is a link is followed inside the root") {
                continue;
            }
            image(name, target).dir("/x", 0o755).run().fails();
            outside.is_untouched();
        }
    }
}

#[test]
fn cve_2019_19921_a_proc_behind_a_link_of_the_image_is_no_other_place() {
    // The destination is spelled through a link that leads to the right place, or to one that is not.
    for (link, target, destination) in [
        ("/up", "/", "/up/proc"),
        ("/a/b", "../proc", "/a/b"),
        ("/a/b", "../x", "/a/b"),
        ("/hop2", "/hop", "/hop2/proc"),
    ] {
        let bundle = image(link, target).dir("/x", 0o755).without_mount("/proc");
        let seen = bundle.mount(destination, "proc", "proc", &[]).run();
        // One that succeeds has it masked: where the link leads is then /proc itself.
        if seen.succeeded() {
            let proc = mounts(&seen).iter().filter(|line| line.contains(" - proc ")).count();
            assert!(proc > 1 || mounts(&seen).iter().all(|line| point(line) != "/proc"), "{}", seen.stdout());
        }
    }
}

#[test]
fn cve_2019_18837_links_of_an_image_lead_no_mount_outside() {
    let outside = Outside::of(&Bundle::new());
    for target in ways_out(&outside) {
        let magic = target.starts_with("/proc");
        for (destination, fstype) in
            [("/l", "tmpfs"), ("/l/made/deep", "tmpfs"), ("/l/sub", "tmpfs"), ("/l/file", "bind"), ("/l", "copy")]
        {
            let bundle = image("/l", &target);
            let source = bundle.host_file("data", "");
            let bundle = match fstype {
                "bind" => bundle.bind(source, destination, &["bind"]),
                "copy" => bundle.mount(destination, "tmpfs", "tagged", &["tmpcopyup"]),
                _ => bundle.mount(destination, "tmpfs", "tagged", &[]),
            };
            let seen = bundle.run();
            outside.is_untouched();
            finds_nothing(&seen);
            if !seen.succeeded() {
                // The kernel's own links are no way; any other leads inside.
                let refused = magic || known_difference("crun", "refuses links that dangle");
                assert!(refused, "{target}: {}", seen.stderr());
                continue;
            }
            let inside = |line: &&String| line.contains("tagged") || line.contains("/host/data");
            if mounts(&seen).iter().filter(inside).count() != 1 {
                seen.fail("the mount is not in the container");
            }
        }
    }
}

#[test]
fn cve_2026_133553_a_copy_up_behind_a_link_of_an_image_is_made_inside() {
    let outside = Outside::of(&Bundle::new());
    let kernel = ["/proc/sys/net/ipv4", "/hop/proc/sys/net/ipv4", "/proc/self/root/proc/sys/net/ipv4", "/sys/kernel"];
    for target in ways_out(&outside).into_iter().chain(kernel.map(str::to_owned)) {
        for destination in ["/l", "/l/made", "/l/sub"] {
            // What would be copied, at the place where the link leads to inside.
            let files = ["file", "sub/file", "ip_default_ttl"];
            let bundle = files.into_iter().fold(image("/l", &target), |bundle, name| {
                bundle.file(&format!("{}/{name}", outside.absolute()), "of the image", 0o644)
            });
            let bundle = bundle.mount(destination, "tmpfs", "tagged", &["tmpcopyup"]);
            let seen = bundle.run();
            outside.is_untouched();
            finds_nothing(&seen);
            if target.starts_with("/proc") || target.contains("/proc/") {
                let followed = known_difference("crun", "mounts there") || known_difference("runc", "the same");
                assert!(followed || !seen.succeeded(), "{target}: a tmpfs in the kernel's tree");
            } else if seen.succeeded() {
                let tagged = mounts(&seen).iter().filter(|line| line.contains("tagged")).count();
                assert_eq!(tagged, 1, "{target}: the tmpfs is not in the container");
            }
        }
    }
}

#[test]
fn cve_2024_45310_links_of_an_image_lead_no_device_and_no_directory_outside() {
    let outside = Outside::of(&Bundle::new());
    for target in ways_out(&outside) {
        let node = json!({"path": "/l/node", "type": "c", "major": 1, "minor": 3});
        let seen = image("/l", &target).push("/linux/devices", node).run();
        finds_nothing(&seen);
        outside.is_untouched();
        let masks = image("/l", &target).set("/linux/maskedPaths", json!(["/l/file", "/l/sub", "/l"]));
        finds_nothing(&masks.set("/linux/readonlyPaths", json!(["/l/sub/file", "/l"])).run());
        outside.is_untouched();
    }
}

#[test]
fn cve_2026_55686_the_working_directory_behind_a_link_is_made_inside() {
    let outside = Outside::of(&Bundle::new());
    for target in ways_out(&outside) {
        for below in ["/l", "/l/work", "/l/work/deep"] {
            finds_nothing(&image("/l", &target).set("/process/cwd", below).run());
            outside.is_untouched();
        }
    }
}

#[test]
fn cve_2026_41579_cve_2026_47766_a_dev_that_is_a_link_is_made_inside() {
    let outside = Outside::of(&Bundle::new());
    for target in ways_out(&outside) {
        let mut bundle = image("/dev", &target).set("/linux/maskedPaths", json!(["/proc/kcore"]));
        for mount in ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev"] {
            bundle = bundle.without_mount(mount);
        }
        let seen = bundle.run();
        finds_nothing(&seen);
        outside.is_untouched();
        if seen.succeeded() {
            let made = bundle.rootfs().join(outside.absolute().trim_start_matches('/')).join("null");
            assert!(made.exists(), "{target}: the devices are not where the link leads to inside");
        }
        // And with what engines mount below it.
        finds_nothing(&image("/dev", &target).without_mount("/dev").run());
        outside.is_untouched();
        finds_nothing(&image("/dev", &target).run());
        outside.is_untouched();
    }
}

#[test]
fn cve_2026_41579_links_in_the_dev_of_an_image_are_replaced_or_stay_inside() {
    let outside = Outside::of(&Bundle::new());
    for name in ["ptmx", "null", "zero", "fd", "stdin", "core", "pts", "shm", "mqueue", "console", "tty"] {
        for target in ways_out(&outside).iter().flat_map(|dir| [dir.clone(), format!("{dir}/{name}")]) {
            let bundle = image(&format!("/dev/{name}"), &target).without_mount("/dev");
            // Where the devices stand no longer matters; that nothing outside does.
            finds_nothing(&bundle.run());
            outside.is_untouched();
        }
    }
}

#[test]
fn cve_2025_24965_no_file_is_written_through_a_link_of_the_image() {
    let outside = Outside::of(&Bundle::new());
    // What runtimes make or write in a root of their own accord; a terminal so that the console is among it.
    let names =
        [".krun_config.json", "dev/console", ".dockerenv", "etc/hosts", "run/.containerenv", "etc/mtab", "dev/ptmx"];
    for target in ways_out(&outside) {
        for handler in [false, true] {
            let mut bundle = Bundle::new().link("/hop", "/").args(["true"]).set("/process/terminal", true);
            for name in names {
                bundle = bundle.link(&format!("/{name}"), &format!("{target}/made-by-the-runtime"));
            }
            if handler {
                bundle = bundle.set("/annotations", json!({"run.oci.handler": "krun"}));
            }
            let bundle = bundle.without_mount("/dev").without_mount("/dev/shm").without_mount("/dev/mqueue");
            let socket = ConsoleSocket::at(bundle.host(&format!("s{}/sock", bundle.sandbox().number())));
            let _ = bundle.create_cmd(&["--console-socket", socket.path()]).run();
            outside.is_untouched();
            let _ = bundle.delete_force();
        }
    }
}
