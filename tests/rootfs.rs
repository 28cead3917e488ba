//! The root: read-only, propagation, devices, masks, and how bundle and root are spelled.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use crate::harness::{Bundle, host_command, known_difference, peers_lack_it};

#[test]
fn a_read_only_root_refuses_writes() {
    let seen = Bundle::new().set("/root/readonly", true).sh("touch /x").run();
    seen.fails_with("read-only file system");
    Bundle::new().set("/root/readonly", true).sh("echo x >/dev/shm/x && cat /dev/shm/x").run().prints("x");
}

/// The bundle with its rootfs on a new tmpfs with these flags.
fn on_tmpfs(bundle: Bundle, flags: MsFlags) -> (Bundle, PathBuf) {
    let root = bundle.host_dir("other-root");
    mount(Some("tmpfs"), &root, Some("tmpfs"), flags, None::<&str>).expect("mount a tmpfs");
    host_command(&["cp", "-a", &format!("{}/.", bundle.rootfs().display()), &root.display().to_string()]);
    let bundle = bundle.set("/root/path", root.to_str().expect("a plain path"));
    (bundle, root)
}

#[test]
fn b08_a_read_only_root_keeps_the_flags_of_its_mount() {
    for userns in [false, true] {
        if !userns && (known_difference("crun", "only locked flags are kept") || known_difference("runc", "the same")) {
            continue;
        }
        let bundle = if userns { Bundle::new().userns() } else { Bundle::new() };
        let (bundle, _) = on_tmpfs(bundle, MsFlags::MS_NOSUID | MsFlags::MS_NODEV);
        let container = bundle.set("/root/readonly", true);
        let seen = container.sh("awk '$5==\"/\"{print $6}' /proc/self/mountinfo; touch /x 2>&1").run();
        let options = seen.lines().first().cloned().unwrap_or_default();
        for word in ["ro", "nosuid", "nodev"] {
            if !options.split(',').any(|option| option == word) {
                seen.fail(&format!("userns {userns}: / should be {word}"));
            }
        }
        seen.shows("Read-only file system");
    }
}

#[test]
fn b09_a_read_only_dev_still_gets_its_devices() {
    let script = "echo x >/dev/null && ls /dev/pts/ptmx /dev/fd/0 /dev/shm -d && touch /dev/x";
    for terminal in [false, true] {
        let container = Bundle::new().mount_options("/dev", |options| options.push("ro".into()));
        let container = container.set("/process/terminal", terminal).sh(script);
        if terminal {
            let mut terminal = crate::harness::Terminal::new();
            let console = terminal.replica();
            let running = container.sh("ls /dev/console && touch /dev/x").run_cmd().on_terminal(console).spawn();
            running.wait().fails();
            terminal.until("/dev/console");
            terminal.until("Read-only file system");
        } else {
            container.run().shows("/dev/pts/ptmx").shows("/dev/fd/0").fails_with("read-only file system");
        }
    }
}

// B12: the propagation of the root.

/// Each word, what it makes of the root, and of the mounts below.
const PROPAGATION: &[(&str, &str, &str)] = &[
    ("shared", "shared:", ""),
    ("rshared", "shared:", "shared:"),
    ("unbindable", "unbindable", ""),
    ("runbindable", "unbindable", "unbindable"),
    ("private", "", ""),
    ("rprivate", "", ""),
    ("slave", "", ""),
    ("rslave", "", ""),
];

#[test]
fn b12_the_propagation_asked_for_is_that_of_the_root() {
    let optional = |place: &str| {
        format!("awk '$5==\"{place}\"{{for (i=7; $i!=\"-\"; i++) printf \"%s \", $i}}' /proc/self/mountinfo; echo;")
    };
    for &(asked, root, below) in PROPAGATION {
        if (asked.contains("shared") || asked.contains("unbindable"))
            && (known_difference("runc", "undone for pivot_root up to 1.4") || known_difference("crun", "of `/` only"))
        {
            continue;
        }
        let container = Bundle::new().set("/linux/rootfsPropagation", asked);
        let found = container.sh(&(optional("/") + &optional("/dev/shm"))).run();
        let lines = found.ok().lines();
        for (line, word) in lines.iter().zip([root, below]) {
            if line.trim().is_empty() != word.is_empty() || !line.starts_with(word) {
                found.fail(&format!("{asked} should give {word:?}, not {line:?}"));
            }
        }
    }
}

#[test]
fn b12_a_shared_root_is_nobodys_slave() {
    if known_difference("crun", "of `/` only") {
        return;
    }
    for asked in ["shared", "rshared"] {
        let bundle = Bundle::new().set("/linux/rootfsPropagation", asked);
        let dir = bundle.sandbox().dir();
        mount(None::<&str>, dir, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>).expect("share");
        let container = bundle.sh("awk '$5==\"/\"{print NF, $7, $8}' /proc/self/mountinfo");
        let found = container.run();
        let (line, mut words) = (found.ok().stdout(), Vec::new());
        words.extend(line.split_whitespace());
        if !(words.len() == 3 && words[1].starts_with("shared:") && words[2] == "-") {
            found.fail("the root should be shared and nothing else");
        }
    }
}

#[test]
fn b12_a_slave_root_receives_from_the_host_and_a_private_one_does_not() {
    if known_difference("crun", "cuts the root off from the host") || known_difference("runc", "the same") {
        return;
    }
    for (asked, seen) in [("rslave", true), ("rprivate", false)] {
        let bundle = Bundle::new().set("/linux/rootfsPropagation", asked).dir("/mnt", 0o755);
        let dir = bundle.sandbox().dir();
        mount(None::<&str>, dir, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>).expect("share");
        let container = bundle.sh("sleep 60");
        container.run_detached().ok();
        let place = container.rootfs().join("mnt");
        mount(Some("later"), &place, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("mount on the host");
        let table = container_mounts(container.pid());
        assert_eq!(table.contains("later"), seen, "{asked}: {table}");
        nix::mount::umount(&place).expect("unmount on the host");
        container.delete_force().ok();
    }
}

#[test]
fn b12_mounts_of_the_container_never_reach_the_host() {
    for &(asked, ..) in PROPAGATION {
        let late = || known_difference("crun", "masks after it") || known_difference("runc", "masks after it");
        if asked == "runbindable" && late() {
            continue;
        }
        let bundle = Bundle::new().set("/linux/rootfsPropagation", asked).dir("/mnt", 0o755);
        // What a host with systemd has: everything shared.
        let dir = bundle.sandbox().dir();
        mount(None::<&str>, dir, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>).expect("share");
        let container = bundle.caps(&["CAP_SYS_ADMIN"]).sh("mount -t tmpfs leaked /mnt && sleep 60");
        container.run_detached().ok();
        crate::harness::eventually("the container mounts", || container_mounts(container.pid()).contains("leaked"));
        let host = fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
        assert!(!host.contains("leaked"), "{asked}: a mount of the container is on the host");
        container.delete_force().ok();
    }
}

fn container_mounts(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default()
}

// Without pivot_root.

#[test]
fn without_pivot_nothing_of_the_host_is_in_sight_and_no_procfs_is_left_behind() {
    let container = Bundle::new().file("/here", "here", 0o644).caps(&["CAP_SYS_ADMIN", "CAP_SYS_CHROOT"]);
    let bundle = container.sh("cat /here; ls /; cat /proc/self/mountinfo");
    bundle.write();
    let path = bundle.path().to_str().expect("a plain path");
    let before = fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
    let seen = bundle.cmd(["run", "--no-pivot", "--bundle", path, bundle.name()]).run();
    seen.ok().shows("here").shows(" /dev/shm ").hides("boot").hides("/unified").hides("lib64");
    assert_eq!(fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo"), before);
    // A user namespace inside gets a new procfs only where a whole one is in sight, and that of the container is masked.
    let container = Bundle::new().dir("/mnt", 0o755);
    let bundle = container.sh("busybox unshare -U -r -m -p -f mount -t proc proc /mnt && ls /mnt/version");
    bundle.write();
    let path = bundle.path().to_str().expect("a plain path");
    for options in [&["run"][..], &["run", "--no-pivot"]] {
        let words = [options, &["--bundle", path, bundle.name()]].concat();
        bundle.cmd(words).run().fails_with("operation not permitted").hides("version");
    }
}

#[test]
fn a_runtime_in_a_plain_chroot_says_so() {
    // A plain chroot: the root of the runtime is no mount that could be put away.
    let bundle = Bundle::new().args(["echo", "hello"]);
    let jail = bundle.host_dir("jail");
    for entry in fs::read_dir("/").expect("the root").flatten().filter(|entry| entry.path().is_dir()) {
        let place = jail.join(entry.file_name());
        if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            symlink(fs::read_link(entry.path()).expect("a link"), place).expect("copy a link");
            continue;
        }
        fs::create_dir(&place).expect("make a directory");
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(&entry.path()), &place, None::<&str>, flags, None::<&str>).expect("bind what the host has");
    }
    let jailed = format!("set -- /bin/busybox chroot {} \"$@\"", jail.display());
    let refused = bundle.run_cmd().after(&jailed).run();
    refused.fails();
    if !known_difference("crun", "words of its own") && !known_difference("runc", "words of its own") {
        refused.fails_with("set mount propagation of /").fails_with("chroot");
    }
}

// B16: promises that need a mount namespace.

/// A bundle without a mount namespace and without anything that needs one.
fn without_mount_namespace() -> Bundle {
    let bundle = Bundle::new().without_ns("mount").set("/mounts", json!([]));
    bundle.unset("/linux/maskedPaths").unset("/linux/readonlyPaths")
}

#[test]
fn b16_promises_that_need_a_mount_namespace_are_refused_without_one() {
    if known_difference("runc", "leaves the root writable") || known_difference("crun", "leaves the root writable") {
        return;
    }
    let bundle = || without_mount_namespace().args(["true"]);
    bundle().set("/linux/maskedPaths", json!(["/etc/passwd"])).run().fails_with("mount namespace");
    bundle().set("/linux/readonlyPaths", json!(["/etc"])).run().fails_with("mount namespace");
    bundle().set("/linux/rootfsPropagation", "private").run().fails_with("mount namespace");
    bundle().mount("/m", "tmpfs", "tmpfs", &["ro"]).userns().run().fails_with("mount namespace");
}

/// A bundle without a mount namespace, with all the mounts of the others.
fn guest() -> Bundle {
    let bundle = Bundle::new().without_ns("mount");
    // As systemd has it.
    mount(NONE, bundle.sandbox().dir(), NONE, MsFlags::MS_SHARED | MsFlags::MS_REC, NONE).expect("share");
    bundle.unset("/linux/maskedPaths").unset("/linux/readonlyPaths")
}

const NONE: Option<&str> = None;

/// The mounts of the host, as this test sees them.
fn host_mounts() -> String {
    fs::read_to_string("/proc/thread-self/mountinfo").expect("read mountinfo")
}

#[test]
fn without_a_mount_namespace_mounts_lie_below_the_root_until_delete() {
    let bundle =
        guest().set("/root/readonly", true).sh("stat -f -c %T /dev /proc; echo x >/dev/null; ls /m/sub; touch /x 2>&1");
    let sub = bundle.host_dir("d/sub");
    mount(Some("tmpfs"), &sub, Some("tmpfs"), MsFlags::empty(), NONE).expect("mount a tmpfs");
    fs::write(sub.join("in"), "").expect("write into it");
    let source = bundle.host_dir("d");
    let bundle = bundle.bind(source, "/m", &["rbind", "rshared"]);
    let before = host_mounts();
    bundle.create().ok();
    let rootfs = bundle.rootfs().display().to_string();
    let during = host_mounts();
    assert!(during.contains(&format!(" {rootfs}/m/sub ")) && during.contains(&format!(" {rootfs}/dev ")), "{during}");
    bundle.start().ok();
    bundle.until("stopped");
    let said = bundle.output();
    assert!(said.contains("tmpfs\nproc\nin\n"), "{said}");
    bundle.delete().ok();
    assert!(sub.join("in").exists(), "what the bind is of was unmounted");
    if known_difference("crun", "leaves them, and the root writable")
        || known_difference("runc", "leaves them and the root writable, and makes all of the host private")
    {
        return;
    }
    assert!(said.contains("touch: /x: Read-only file system"), "{said}");
    assert_eq!(host_mounts(), before);
}

#[test]
fn without_a_mount_namespace_exec_runs_in_the_containers_root() {
    if known_difference("crun", "in the host's") || known_difference("runc", "in the host's") {
        return;
    }
    for bundle in [guest(), without_mount_namespace()] {
        let container = bundle.file("/inside", "of the image", 0o644).dir("/srv", 0o755).sh("sleep 60");
        container.run_detached().ok();
        let outside = container.host_file("outside", "of the host");
        let script = format!("cat /inside; echo; pwd; ls -d {} /..{0} 2>&1 | grep -c 'No such'", outside.display());
        container.exec_cmd(&["--cwd", "/srv"], &["sh", "-c", &script]).run().prints("of the image\n/srv\n2");
        container.delete_force().ok();
    }
}

#[test]
fn without_a_mount_namespace_a_failure_takes_the_mounts_off() {
    if known_difference("crun", "leaves them") || known_difference("runc", "leaves them") {
        return;
    }
    let bundle = guest().args(["/no/such"]);
    let before = host_mounts();
    bundle.create().fails_with("/no/such");
    assert_eq!(host_mounts(), before);
    guest().mount("/x", "nosuchfs", "x", &[]).run().fails_with("nosuchfs");
    // A create that is killed while its mounts are there.
    let hook = "grep -q rootfs/dev /proc/self/mountinfo && echo 1 >{}; kill -9 $PPID; sleep 60";
    let bundle = guest().args(["true"]);
    let saw = bundle.host("saw");
    let bundle = bundle.hook("createRuntime", &hook.replace("{}", saw.to_str().expect("a plain path")));
    let before = host_mounts();
    assert!(!bundle.create().succeeded());
    assert!(saw.exists(), "the hook has seen no mount");
    bundle.delete_force().ok();
    assert_eq!(host_mounts(), before);
}

/// As the record of a `create` that was killed right after the mount, and right before it.
#[test]
fn without_a_mount_namespace_a_record_without_the_mount_is_enough_to_find_it() {
    if peers_lack_it() {
        return;
    }
    for made in [true, false] {
        let bundle = guest().args(["sleep", "60"]);
        let before = host_mounts();
        bundle.run_detached().ok();
        let file = bundle.sandbox().root().join(bundle.name()).join("record.json");
        let mut record: Value = serde_json::from_slice(&fs::read(&file).expect("read the record")).expect("JSON");
        assert!(record["guest"]["own"].is_u64(), "{record}");
        record["guest"]["own"] = Value::Null;
        fs::write(&file, record.to_string()).expect("write the record");
        if !made {
            umount2(&bundle.rootfs(), MntFlags::MNT_DETACH).expect("unmount it");
        }
        bundle.delete_force().ok();
        assert_eq!(host_mounts(), before, "made: {made}");
    }
}

#[test]
fn without_a_mount_namespace_what_others_mount_on_the_root_stays() {
    if known_difference("crun", "leaves all of them") || known_difference("runc", "leaves all of them") {
        return;
    }
    let bundle = guest().args(["sleep", "60"]);
    bundle.run_detached().ok();
    let rootfs = bundle.rootfs();
    mount(Some("tmpfs"), &rootfs, Some("tmpfs"), MsFlags::empty(), NONE).expect("mount a tmpfs");
    fs::write(rootfs.join("other"), "").expect("write into it");
    bundle.delete_force().ok();
    assert!(rootfs.join("other").exists(), "somebody else's mount was taken off");
}

#[test]
fn b16_the_umask_holds_without_a_mount_namespace() {
    if known_difference("runc", "the umask is ignored") {
        return;
    }
    without_mount_namespace().set("/process/user/umask", 0o77).sh("umask").run().prints("0077");
}

// B29: the caller's umask.

#[test]
fn b29_the_callers_umask_does_not_leak() {
    let device = json!({"path": "/dev/x/y", "type": "c", "major": 1, "minor": 3, "fileMode": 438});
    let container =
        Bundle::new().push("/linux/devices", device).set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let container = container.sh("stat -c %a /dev/x /dev/x/y /dev/null /dev; umask");
    if known_difference("runc", "parents of devices are made under the caller's umask") {
        return;
    }
    for umask in ["077", "000", "027"] {
        container.run_cmd().after(&format!("umask {umask}")).run().prints("755\n666\n666\n755\n0022");
    }
    if known_difference("crun", "gives directories it makes the sticky bit") {
        return;
    }
    let made = Bundle::new().mount("/made/by/us", "tmpfs", "tmpfs", &[]).sh("stat -c %a /made /made/by");
    made.run_cmd().after("umask 077").run().prints("755\n755");
}

#[test]
fn b29_the_umask_asked_for_is_the_processs() {
    for umask in [0o077, 0o002, 0] {
        let seen = Bundle::new().set("/process/user/umask", umask).sh("umask").run();
        seen.prints(&format!("{umask:04o}"));
    }
}

// B31: how bundle and rootfs are spelled.

#[test]
fn b31_a_bundle_is_found_however_it_is_spelled() {
    let bundle = Bundle::new().sh("sleep 60");
    bundle.write();
    let odd = bundle.sandbox().dir().join("b dir-0");
    fs::rename(bundle.path(), &odd).expect("rename the bundle");
    let link = bundle.sandbox().dir().join("link");
    symlink(&odd, &link).expect("link to the bundle");
    let dir = bundle.sandbox().dir();
    let check = |cmd: crate::harness::Cmd, dirs: &[&Path]| {
        cmd.run().ok();
        let state = bundle.state().json();
        let told = Path::new(state["bundle"].as_str().expect("a bundle")).to_owned();
        assert!(told.is_absolute(), "the bundle is told as {}", told.display());
        assert!(dirs.contains(&told.as_path()), "the bundle is told as {}", told.display());
        bundle.delete_force().ok();
    };
    let id = bundle.name();
    check(bundle.cmd(["run", "-d", "-b", "./b dir-0/", id]).cwd(dir), &[&odd]);
    check(bundle.cmd(["run", "-d", "--bundle=b dir-0", id]).cwd(dir), &[&odd]);
    check(bundle.cmd(["run", "-d", id]).cwd(&odd), &[&odd]);
    check(bundle.cmd(["run", "-d", "-b", "link", id]).cwd(dir), &[&odd, &link]);
}

#[test]
fn b31_a_root_is_found_however_it_is_spelled() {
    let start = |path: &str| {
        let bundle = Bundle::new().args(["cat", "/etc/here"]).file("/etc/here", "here", 0o644);
        let absolute = bundle.rootfs().to_str().expect("a plain path").to_owned();
        symlink("rootfs", bundle.path().join("link")).expect("link to the rootfs");
        bundle.set("/root/path", path.replace("ABS", &absolute)).run()
    };
    start("rootfs/").prints("here");
    start("./rootfs").prints("here");
    start("ABS").prints("here");
    start("rootfs/../rootfs").prints("here");
    if !known_difference("runc", "refuses a root that is a link") {
        start("link").prints("here");
    }
}

#[test]
fn b31_the_root_may_be_the_bundle() {
    let bundle = Bundle::new().args(["cat", "/config.json"]);
    for entry in fs::read_dir(bundle.rootfs()).expect("the rootfs").flatten() {
        fs::rename(entry.path(), bundle.path().join(entry.file_name())).expect("move the rootfs up");
    }
    bundle.set("/root/path", ".").run().ok().shows("ociVersion");
}

#[test]
fn b31_a_bundle_below_a_private_directory_runs_in_a_user_namespace() {
    let as_user = |peer| known_difference(peer, "looks for the root as the container's root");
    if as_user("runc") || as_user("crun") {
        return;
    }
    let bundle = Bundle::new().userns().args(["echo", "hello"]);
    let private = bundle.host_dir("private");
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).expect("chmod");
    bundle.write();
    let moved = private.join("bundle");
    fs::rename(bundle.path(), &moved).expect("move the bundle");
    bundle.cmd(["run", "-b", moved.to_str().expect("a plain path"), bundle.name()]).run().prints("hello");
}

#[test]
fn b31_a_root_that_is_not_there_is_an_error_that_names_it() {
    Bundle::new().set("/root/path", "nosuchroot").run().fails_with("nosuchroot");
}

// Devices.

#[test]
fn the_default_devices_and_links_are_there() {
    let container = Bundle::new().sh("cd /dev; stat -c '%n %t:%T %a' null zero full random urandom tty; \
         for l in fd stdin stdout stderr ptmx; do echo $l $(readlink $l); done; ls console 2>&1");
    let seen = container.run();
    seen.shows("null 1:3 666").shows("zero 1:5 666").shows("full 1:7 666").shows("random 1:8 666");
    seen.shows("urandom 1:9 666").shows("tty 5:0 666");
    seen.shows("fd /proc/self/fd\n").shows("stdin /proc/self/fd/0").shows("stdout /proc/self/fd/1");
    seen.shows("stderr /proc/self/fd/2").shows("ptmx pts/ptmx").shows("No such file");
}

#[test]
fn the_device_rules_allow_the_default_devices_and_deny_others() {
    let container = Bundle::new()
        .caps(&["CAP_MKNOD", "CAP_SYSLOG"])
        .sh("probe open /dev/null /dev/zero /dev/full /dev/urandom /dev/pts/ptmx; \
         probe mknod /kmsg c 1 11; probe open /kmsg; probe mknod /loop b 7 0; probe open /loop");
    let seen = container.run();
    seen.ok().shows("/dev/null ok ok").shows("/dev/zero ok ok").shows("/dev/full ok ok").shows("/dev/urandom ok ok");
    seen.shows("/dev/pts/ptmx ok ok").shows("/kmsg EPERM EPERM").shows("/loop EPERM EPERM");
}

#[test]
fn a_device_asked_for_is_made_and_may_be_opened_if_a_rule_allows() {
    let device =
        json!({"path": "/dev/my/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 7, "gid": 8});
    let seen = Bundle::new().push("/linux/devices", device).sh("stat -c '%t:%T %a %u %g' /dev/my/zero").run();
    seen.prints("1:5 640 7 8");
    let device = json!({"path": "/dev/kmsg2", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666});
    let rule = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"});
    let container = Bundle::new().push("/linux/devices", device.clone()).caps(&["CAP_SYSLOG"]);
    container.args(["probe", "open", "/dev/kmsg2"]).run().prints("/dev/kmsg2 EPERM EPERM");
    let container = Bundle::new().push("/linux/devices", device).push("/linux/resources/devices", rule);
    let container = container.caps(&["CAP_SYSLOG"]).args(["probe", "open", "/dev/kmsg2"]);
    container.run().prints("/dev/kmsg2 ok EPERM");
}

/// A zero device of the configuration, at a path that no host has.
fn own_zero(owner: u32) -> Value {
    json!({"path": "/dev/my/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": owner, "gid": owner + 1})
}

const LOOK_AT_ZERO: &str = "stat -c '%t:%T %a %u %g' /dev/my/zero; head -c 3 /dev/my/zero | wc -c; \
     grep -c ' /dev ' /proc/self/mountinfo; ls -A /dev/my";

#[test]
fn a_device_that_the_host_lacks_is_made_for_a_user_namespace() {
    if known_difference("runc", "binds what the host has") {
        return;
    }
    let mounts = || fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
    let made = "1:5 640 7 8\n3\n1\nzero";
    let container = Bundle::new().userns().push("/linux/devices", own_zero(7)).caps(&["CAP_DAC_OVERRIDE"]);
    let container = container.sh(LOOK_AT_ZERO);
    let outcome = container.run();
    outcome.prints(made);
    assert_eq!(outcome.log(), "");
    if !known_difference("crun", "with rights and programs") {
        let container = container.sh("awk '$5==\"/dev/my/zero\"{print $6}' /proc/self/mountinfo");
        container.run().prints("rw,nosuid,noexec,relatime");
    }
    // The rules hold. No driver has that number, which the kernel says once they let it ask.
    let device = json!({"path": "/dev/none", "type": "c", "major": 240, "minor": 77, "fileMode": 0o600});
    let rule = json!({"allow": true, "type": "c", "major": 240, "minor": 77, "access": "r"});
    let container = Bundle::new().userns().push("/linux/devices", own_zero(7)).push("/linux/devices", device);
    let container = container.sh("stat -c '%u %a' /dev/none; probe open /dev/none; touch /dev/my/x && ls -A /dev/my");
    container.run().prints("0 600\n/dev/none EPERM EPERM\nx\nzero");
    container.push("/linux/resources/devices", rule).run().shows("/dev/none ENXIO EPERM");
    // Another device than the host's of that path is meant.
    if !known_difference("crun", "binds the host's on it") {
        let device = json!({"path": "/dev/full", "type": "c", "major": 1, "minor": 5});
        let container = Bundle::new().userns().push("/linux/devices", device);
        container.sh("head -c 3 /dev/full | wc -c; echo x >/dev/full").run().ok().prints("3");
    }
    // Nothing stays on the host, after a failure either.
    let failing = Bundle::new().userns().push("/linux/devices", own_zero(7)).args(["nosuch"]);
    let before = mounts();
    failing.run().fails();
    assert_eq!(mounts(), before);
}

#[test]
fn a_device_for_a_user_namespace_has_the_owner_that_is_mapped() {
    if known_difference("runc", "binds what the host has") || known_difference("crun", "believes the config") {
        return;
    }
    // An owner that the namespace lacks is nobody, with a warning for what the configuration asks for.
    let container =
        Bundle::new().userns().push("/linux/devices", own_zero(65_535)).sh("stat -c '%a %u %g' /dev/my/zero");
    let outcome = container.run();
    outcome.prints("640 65535 65534");
    let gid = "/linux/devices/0/gid: the user namespace does not map 65536: nobody's instead";
    let log = outcome.log();
    assert!(log.contains(gid) && log.lines().count() == 1, "{log}");
    // A namespace that is joined has the maps it has; so has a mount namespace that is joined.
    let first = Bundle::new().userns().args(["sleep", "60"]);
    first.run_detached().ok();
    let dummy = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
    let path = |kind: &str| format!("/proc/{}/ns/{kind}", first.pid());
    for kinds in [&["user"][..], &["user", "pid"], &["user", "mount"]] {
        let second = Bundle::inside(first.sandbox().clone()).userns().push("/linux/devices", own_zero(7));
        let second = second.set("/linux/uidMappings", dummy.clone()).set("/linux/gidMappings", dummy.clone());
        let second = kinds
            .iter()
            .fold(second, |second, &kind| second.join(kind, path(if kind == "mount" { "mnt" } else { kind })));
        // Its root is not there in the mounts of the first.
        let second = if kinds.contains(&"mount") { second.set("/root/path", "/").unset("/mounts") } else { second };
        let container = second
            .caps(&["CAP_DAC_OVERRIDE"])
            .sh("stat -c '%t:%T %a %u %g' /dev/my/zero; head -c 3 /dev/my/zero | wc -c");
        container.run().ok().prints("1:5 640 7 8\n3");
    }
}

#[test]
fn who_may_make_no_devices_binds_those_of_the_host() {
    if known_difference("runc", "binds them always") || known_difference("crun", "says nothing") {
        return;
    }
    let run = |device: Value| {
        let container = Bundle::new().userns().push("/linux/devices", device).sh("stat -c '%t:%T %u' /dev/full");
        let outcome = container.run_cmd().started_by(["/usr/bin/setpriv", "--bounding-set", "-mknod"]).run();
        (container, outcome)
    };
    let (_, outcome) = run(json!({"path": "/dev/full", "type": "c", "major": 1, "minor": 7, "uid": 7}));
    outcome.prints("1:7 65534");
    let log = outcome.log();
    assert!(log.contains("/linux/devices/0: the host's /dev/full is bound, and keeps its owner"), "{log}");
    let (_, outcome) = run(json!({"path": "/dev/fuller", "type": "c", "major": 1, "minor": 7}));
    outcome.fails_with("open the device /dev/fuller: no such file or directory");
    outcome.fails_with("who may make no devices can only have one that the host has at this path");
}

#[test]
fn a_letter_of_access_that_is_none_is_passed_over_and_warned_about() {
    let device = json!({"path": "/dev/kmsg2", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666});
    let rule = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "ra"});
    let container = Bundle::new().push("/linux/devices", device).push("/linux/resources/devices", rule);
    let outcome = container.caps(&["CAP_SYSLOG"]).args(["probe", "open", "/dev/kmsg2"]).run();
    outcome.prints("/dev/kmsg2 ok EPERM");
    if known_difference("runc", "says nothing") || known_difference("crun", "the same") {
        return;
    }
    if !outcome.says_one_of(&["'a' is none of r, w, m and ignored"]) {
        outcome.fail("it should warn");
    }
}

#[test]
fn b67_the_owners_of_the_hosts_devices_never_change() {
    let device =
        json!({"path": "/dev/zero", "type": "c", "major": 1, "minor": 5, "uid": 0, "gid": 0, "fileMode": 0o600});
    let owner = |path: &str| {
        let file = fs::metadata(path).expect("a device of the host");
        (file.uid(), file.gid(), file.permissions().mode())
    };
    let before = ["/dev/null", "/dev/zero"].map(owner);
    let container = Bundle::new().userns().push("/linux/devices", device).args(["sleep", "60"]);
    container.run_detached().ok();
    // All three streams are on the host's /dev/null.
    let script = "exec </dev/null >/dev/null 2>&1";
    container.exec_cmd(&["--user", "1000"], &["true"]).after(script).run().ok();
    container.exec_cmd(&["--user", "1000:1000"], &["true"]).after(script).run().ok();
    assert_eq!(["/dev/null", "/dev/zero"].map(owner), before);
}

// Masks.

#[test]
fn masked_paths_are_empty_and_read_only_ones_refuse_writes() {
    let container = Bundle::new()
        .file("/secret/f", "secret", 0o644)
        .file("/hidden", "hidden", 0o644)
        .file("/fixed/f", "fixed", 0o644)
        .set("/linux/maskedPaths", json!(["/secret", "/hidden", "/no/such/thing", "/proc/kcore", "/secret"]))
        .set("/linux/readonlyPaths", json!(["/fixed", "/nor/this", "/proc/sys"]));
    let seen = container
        .sh("ls -A /secret; cat /hidden; touch /secret/x 2>&1; echo x 2>&1 >/fixed/f; cat /fixed/f; echo; \
         echo 1 2>&1 >/proc/sys/kernel/hostname; cat /proc/kcore | wc -c");
    let seen = seen.run();
    seen.hides("secret\n").hides("hidden\n").shows("fixed\n").shows("0");
    assert_eq!(seen.stderr().matches("Read-only").count() + seen.stdout().matches("Read-only").count(), 3);
    assert!(!container_made("no") && !container_made("nor"));
}

#[test]
fn a_path_that_is_listed_twice_is_masked_once() {
    if known_difference("runc", "twice, up to 1.4") || known_difference("crun", "twice") {
        return;
    }
    let container = Bundle::new()
        .file("/secret/f", "secret", 0o644)
        .file("/fixed/f", "fixed", 0o644)
        .set("/linux/maskedPaths", json!(["/secret", "/secret/", "/secret"]))
        .set("/linux/readonlyPaths", json!(["/fixed", "//fixed"]));
    container.sh("ls -A /secret; grep -cE ' /(secret|fixed) ' /proc/self/mountinfo").run().prints("2");
}

#[test]
fn the_links_of_dev_lead_somewhere() {
    if known_difference("crun", "core leads nowhere without a /proc/kcore") {
        return;
    }
    let core = if Path::new("/proc/kcore").exists() { "core\n" } else { "" };
    let container =
        Bundle::new().sh("cd /dev; for link in core fd stderr stdin stdout; do [ -L $link ] && echo $link; done; true");
    container.run().ok().prints(format!("{core}fd\nstderr\nstdin\nstdout").as_str());
}

#[test]
fn devices_of_the_host_are_bound_without_rights_and_programs() {
    if known_difference("runc", "with the flags of the host's /dev") {
        return;
    }
    let container = Bundle::new().userns().sh("awk '$5 ~ \"^/dev/(null|zero|full|random|urandom|tty)$\"{print $6}' /proc/self/mountinfo | sort | uniq -c; echo x >/dev/null");
    container.run().ok().prints("6 rw,nosuid,noexec,relatime");
}

fn container_made(name: &str) -> bool {
    Path::new("/").join(name).exists()
}

#[test]
fn b26_many_masks_share_one_file_system() {
    let mut container = Bundle::new().set("/root/readonly", true).file("/m/file", "x", 0o644);
    for number in 0..200 {
        container = container.dir(&format!("/m/{number}"), 0o755).push("/linux/maskedPaths", format!("/m/{number}"));
        fs::write(container.rootfs().join(format!("m/{number}/f")), "").expect("write below a mask");
    }
    let container = container.push("/linux/maskedPaths", "/m/file").push("/linux/maskedPaths", "/m/0");
    let container = container.sh("ls /m/3 /m/199; cat /m/file; touch /m/3/x");
    let seen = container.run();
    seen.fails_with("read-only file system").hides("f");
    let devices = container.sh("cut -d' ' -f3 /proc/self/mountinfo | sort -u | wc -l").run();
    if known_difference("runc", "one tmpfs for each mask up to 1.4") || known_difference("crun", "the same") {
        return;
    }
    let number: usize = devices.ok().stdout().trim().parse().expect("a number");
    if number > 20 {
        devices.fail("masks should share a file system");
    }
}

#[test]
fn the_rootfs_mount_point_is_not_changed_on_the_host() {
    let container = Bundle::new().set("/root/readonly", true).args(["true"]);
    let before = fs::metadata(container.rootfs()).expect("the rootfs").permissions().mode();
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
    container.run().ok();
    assert_eq!(fs::metadata(container.rootfs()).expect("the rootfs").permissions().mode(), before);
    assert_eq!(fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo"), mounts);
    fs::write(container.rootfs().join("x"), "").expect("the rootfs is writable on the host");
}
