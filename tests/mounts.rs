//! `mounts`: targets inside the root whatever the image holds, kinds, options.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::harness::{Bundle, Kind, kind, known_difference};

// B01: the target of a mount is a link whose own target is not there.

/// A bundle whose `/etc/localtime` is this link, with a file bound on it.
fn localtime_linked_to(target: &str) -> Bundle {
    let bundle = Bundle::new().link("/etc/localtime", target).args(["cat", "/etc/localtime"]);
    let source = bundle.host_file("zone", "Mars time");
    bundle.bind(source, "/etc/localtime", &["bind", "ro"])
}

#[test]
fn b01_a_dangling_link_as_a_bind_target_is_followed_inside_the_root() {
    if known_difference("crun", "a dangling link to an absolute path is an error") {
        return;
    }
    for (link, made) in [
        ("/usr/share/zoneinfo/Mars/Base", "usr/share/zoneinfo/Mars/Base"),
        ("../usr/share/zoneinfo/Mars/Base", "usr/share/zoneinfo/Mars/Base"),
        ("zone", "etc/zone"),
    ] {
        let container = localtime_linked_to(link);
        container.run().prints("Mars time");
        assert!(container.rootfs().join(made).is_file(), "{link}: {made} is not there");
        assert!(!Path::new("/usr/share/zoneinfo/Mars").exists(), "{link}: made on the host");
    }
}

#[test]
fn b01_a_link_that_climbs_out_of_the_root_stays_in_it() {
    let container = localtime_linked_to("../../../../../corten-b01/zone");
    container.run().prints("Mars time");
    assert!(container.rootfs().join("corten-b01/zone").is_file());
    assert!(!Path::new("/corten-b01").exists(), "made on the host");
}

#[test]
fn b01_a_chain_of_links_ends_at_the_last_one() {
    if known_difference("crun", "a dangling link to an absolute path is an error") {
        return;
    }
    let container = localtime_linked_to("/etc/first").link("/etc/first", "second").link("/etc/second", "/made/third");
    container.run().prints("Mars time");
    assert!(container.rootfs().join("made/third").is_file());
}

#[test]
fn b01_a_directory_bind_on_a_dangling_link_makes_a_directory() {
    if known_difference("crun", "a dangling link to an absolute path is an error") {
        return;
    }
    let bundle = Bundle::new().link("/data", "/var/lib/data").args(["cat", "/data/f", "/var/lib/data/f"]);
    bundle.host_file("d/f", "x");
    let source = bundle.host_dir("d");
    let container = bundle.bind(source, "/data", &["rbind"]);
    container.run().prints("xx");
    assert!(container.rootfs().join("var/lib/data").is_dir());
}

#[test]
fn b01_a_link_that_points_at_itself_is_an_error() {
    localtime_linked_to("/etc/localtime").run().fails();
}

// B02: the second bind goes through what the first one brought in.

#[test]
fn b02_a_target_is_resolved_with_the_mounts_done_so_far() {
    if known_difference("crun", "a dangling link to an absolute path is an error") {
        return;
    }
    for relative in [false, true] {
        let bundle = Bundle::new();
        let real = bundle.host_file("t/a/real", "real");
        let dir = bundle.host_dir("t/b");
        let link = dir.join("lnk");
        symlink(if relative { "../a/real".into() } else { real.clone() }, &link).expect("make the link");
        let inside = link.to_str().expect("a plain path").to_owned();
        let container = bundle
            .bind(&dir, dir.to_str().expect("a plain path"), &["rbind"])
            .bind(&link, &inside, &["bind"])
            .args(["cat", &inside]);
        container.run().prints("real");
        let made = container.rootfs().join(real.strip_prefix("/").expect("absolute"));
        assert!(made.is_file(), "relative: {relative}: {} is not there", made.display());
    }
}

// B04, B05: the mode of a tmpfs.

#[test]
fn b04_the_mode_of_a_tmpfs_is_the_one_asked_for() {
    let container = Bundle::new().dir("/t", 0o755).mount("/t", "tmpfs", "tmpfs", &["mode=0444"]);
    let container = container.args(["stat", "-c", "%a", "/t"]);
    container.run().prints("444");
    container.run().prints("444");
    let under = fs::metadata(container.rootfs().join("t")).expect("the directory underneath").permissions();
    assert_eq!(under.mode() & 0o7777, 0o755, "the mode of the directory underneath changed");
}

#[test]
fn b05_a_tmpfs_without_a_mode_takes_that_of_the_directory() {
    let container = || Bundle::new().mount("/t", "tmpfs", "tmpfs", &[]).args(["stat", "-c", "%a", "/t"]);
    container().dir("/t", 0o1777).run().prints("1777");
    container().dir("/t", 0o750).run().prints("750");
    if !known_difference("crun", "a mount point that it made gives 755") {
        container().run().prints("1777");
    }
}

// B20: odd destinations.

#[test]
fn b20_odd_destinations_are_cleaned_and_stay_inside() {
    for (destination, at) in [("/m//sub/", "/m/sub"), ("/m3/../m3b", "/m3b"), ("/m4/.", "/m4"), ("/../../x", "/x")] {
        let container = Bundle::new().mount(destination, "tmpfs", "tmpfs", &["size=4k"]);
        let seen = container.sh(&format!("grep -c ' {at} ' /proc/self/mountinfo")).run();
        seen.prints("1");
    }
    assert!(!Path::new("/x").exists(), "made on the host");
}

#[test]
fn b20_a_relative_destination_is_below_the_root_and_warned_about() {
    let container = Bundle::new().mount("m2/sub", "tmpfs", "tmpfs", &["size=4k"]);
    let seen = container.sh("grep -c ' /m2/sub ' /proc/self/mountinfo").run();
    seen.prints("1");
    if !known_difference("crun", "says nothing") && !seen.says_one_of(&["not absolute", "absolute", "relative"]) {
        seen.fail("it should warn");
    }
}

// B21: what makes a mount a bind mount.

#[test]
fn b21_the_option_makes_a_bind_whatever_the_type() {
    let bundle = Bundle::new().args(["cat", "/m/f"]);
    bundle.host_file("d/f", "bound");
    let source = bundle.host_dir("d");
    let bundle = bundle.push("/mounts", serde_json::json!({}));
    let at = bundle.config()["mounts"].as_array().expect("mounts").len() - 1;
    let with = |mount: serde_json::Value| {
        let container = Bundle::inside(bundle.sandbox().clone()).args(["cat", "/m/f"]);
        container.set(&format!("/mounts/{}", at), mount).run()
    };
    use serde_json::json;
    with(json!({"destination": "/m", "source": source, "options": ["rbind"]})).prints("bound");
    with(json!({"destination": "/m", "source": source, "options": ["bind"]})).prints("bound");
    with(json!({"destination": "/m", "type": "none", "source": source, "options": ["bind"]})).prints("bound");
    with(json!({"destination": "/m", "type": "none", "source": source, "options": ["rbind", "ro"]})).prints("bound");
    with(json!({"destination": "/m", "type": "tmpfs", "source": source, "options": ["rbind"]})).prints("bound");
    if known_difference("crun", "takes `bind` for a file system") || known_difference("runc", "the same up to 1.4") {
        return;
    }
    with(json!({"destination": "/m", "type": "bind", "source": source})).prints("bound");
    with(json!({"destination": "/m", "type": "bind", "source": source, "options": ["ro"]})).prints("bound");
}

#[test]
fn b21_a_relative_bind_source_is_below_the_bundle() {
    let bundle = Bundle::new().args(["cat", "/m"]);
    fs::write(bundle.path().join("beside"), "beside").expect("write a file in the bundle");
    bundle.bind("beside", "/m", &["bind"]).run().prints("beside");
}

// B23: mounts on top of /proc.

/// A bundle with a file bound there.
fn file_on(destination: &str) -> Bundle {
    let bundle = Bundle::new();
    let source = bundle.host_file("fake", "fake\n");
    bundle.bind(source, destination, &["bind", "ro"])
}

#[test]
fn b23_files_that_tools_replace_in_proc_may_be_mounted_over() {
    file_on("/proc/uptime").args(["cat", "/proc/uptime"]).run().prints("fake");
    file_on("/proc/meminfo").args(["cat", "/proc/meminfo"]).run().prints("fake");
}

#[test]
fn b23_other_places_in_proc_are_refused() {
    if known_difference("crun", "mounts anything anywhere in /proc") {
        return;
    }
    for destination in ["/proc/net/dev", "/proc/sys/kernel/core_pattern", "/proc/self/attr/exec", "/proc/1/uptime"] {
        file_on(destination).args(["true"]).run().fails_with("proc");
    }
}

#[test]
fn b23_a_link_does_not_hide_a_place_in_proc() {
    if known_difference("crun", "mounts anything anywhere in /proc") {
        return;
    }
    file_on("/innocent/core_pattern").link("/innocent", "/proc/sys/kernel").args(["true"]).run().fails_with("proc");
}

#[test]
fn b23_a_directory_on_proc_is_refused_but_procfs_itself_may_be_bound() {
    let bundle = Bundle::new().args(["test", "-e", "/proc/version"]);
    let dir = bundle.host_dir("fakeproc");
    if !known_difference("crun", "mounts anything on /proc") {
        Bundle::inside(bundle.sandbox().clone()).bind(dir, "/proc", &["rbind"]).args(["true"]).run().fails_with("proc");
    }
    let bundle = bundle.without_mount("/proc").unset("/linux/maskedPaths").unset("/linux/readonlyPaths");
    bundle.without_ns("pid").bind("/proc", "/proc", &["rbind"]).run().ok();
}

#[test]
fn b23_a_second_procfs_before_the_first() {
    if known_difference("crun", "wants procfs below the root only") {
        return;
    }
    let mut bundle = Bundle::new();
    let first = bundle.config()["mounts"][0].clone();
    bundle =
        bundle.set("/mounts/0", serde_json::json!({"destination": "/host/proc", "type": "proc", "source": "proc"}));
    bundle.push("/mounts", first).args(["test", "-e", "/host/proc/version", "-a", "-e", "/proc/version"]).run().ok();
}

// Options.

#[test]
fn mount_options_are_seen_in_mountinfo() {
    for (options, words) in [
        (["ro", "nosuid"], vec!["ro", "nosuid"]),
        (["nodev", "noexec"], vec!["rw", "nodev", "noexec"]),
        (["noatime", "nodiratime"], vec!["noatime", "nodiratime"]),
        (["ro", "rw"], vec!["rw"]),
        (["nosuid", "suid"], vec!["rw"]),
    ] {
        if matches!(options[1], "rw" | "suid") && known_difference("crun", "a later word does not undo a flag") {
            continue;
        }
        let container = Bundle::new().mount("/m", "tmpfs", "tmpfs", &options);
        let seen = container.args(["awk", "$5==\"/m\"{print $6}", "/proc/self/mountinfo"]).run();
        let line = seen.ok().stdout();
        let found: Vec<&str> = line.trim().split(',').collect();
        for word in &words {
            if !found.contains(word) {
                seen.fail(&format!("{options:?} should give {word}"));
            }
        }
        if options.contains(&"suid") && found.contains(&"nosuid") {
            seen.fail("the later suid should have won");
        }
    }
}

#[test]
fn a_read_only_bind_refuses_writes_and_leaves_the_source_writable() {
    let bundle = Bundle::new().sh("echo x >/m/f");
    let source = bundle.host_dir("d");
    let container = bundle.bind(&source, "/m", &["rbind", "ro"]);
    container.run().fails_with("read-only file system");
    fs::write(source.join("f"), "y").expect("the source is still writable");
}

#[test]
fn a_bind_source_that_is_not_there_is_an_error_that_names_it() {
    let outcome = Bundle::new().bind("/no/such/source", "/m", &["bind"]).args(["true"]).run();
    outcome.fails_with("/no/such/source").fails_with("no such file or directory");
}

#[test]
fn an_unknown_filesystem_is_an_error_that_names_the_mount() {
    let outcome = Bundle::new().mount("/m", "nosuchfs", "x", &[]).args(["true"]).run();
    outcome.fails_with_one_of(&["nosuchfs", "/m", "`m`"]).fails_with("no such device");
}

#[test]
fn filesystem_data_reaches_the_filesystem() {
    let container = Bundle::new().mount("/m", "tmpfs", "tmpfs", &["size=64k", "nr_inodes=10", "mode=0700"]);
    let seen = container.args(["awk", "$5==\"/m\"{print $NF}", "/proc/self/mountinfo"]).run();
    seen.ok().shows("size=64k").shows("nr_inodes=10").shows("mode=700");
}

#[test]
fn options_in_one_string_are_parted() {
    let container =
        Bundle::new().mount("/m", "tmpfs", "tmpfs", &["size=64k,nr_inodes=50", "nosuid", "mode=0700,uid=5"]);
    let seen = container.args(["awk", "$5==\"/m\"{print $6 \" \" $NF}", "/proc/self/mountinfo"]).run();
    seen.prints("rw,nosuid,relatime rw,size=64k,nr_inodes=50,mode=700,uid=5");
}

#[test]
fn an_option_for_a_file_system_is_an_error_on_a_bind() {
    if known_difference("crun", "drops it without a word") {
        return;
    }
    for (option, name) in [("size=10m", "size"), ("mode=755", "mode"), ("readonly", "readonly"), ("ro,uid=5", "uid")] {
        let bundle = Bundle::new().args(["true"]);
        let source = bundle.host_dir("d");
        let outcome = bundle.bind(source, "/m", &["rbind", option]).run();
        outcome.fails_with(name);
        match kind() {
            Kind::Runc => outcome.fails_with("bind mounts cannot have any filesystem-specific options"),
            _ => outcome.fails_with(&format!("/mounts/7/options: a bind has no option {name}")),
        };
    }
}

#[test]
fn an_rbind_takes_what_is_mounted_below_and_a_bind_does_not() {
    use nix::mount::{MsFlags, mount};
    for (option, seen) in [("rbind", "in"), ("bind", "")] {
        let bundle = Bundle::new().sh("ls /m/sub");
        let sub = bundle.host_dir("d/sub");
        mount(Some("tmpfs"), &sub, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("mount a tmpfs");
        fs::write(sub.join("in"), "").expect("write into it");
        let source = bundle.host_dir("d");
        bundle.bind(source, "/m", &[option]).run().prints(seen);
    }
}

#[test]
fn a_recursive_read_only_bind_covers_what_is_mounted_below() {
    use nix::mount::{MsFlags, mount};
    let bundle = Bundle::new().sh("touch /m/sub/x");
    let sub = bundle.host_dir("d/sub");
    mount(Some("tmpfs"), &sub, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("mount a tmpfs");
    let source = bundle.host_dir("d");
    bundle.bind(source, "/m", &["rbind", "rro"]).run().fails_with("read-only file system");
}

#[test]
fn b07_flags_locked_by_the_host_are_kept_in_a_user_namespace() {
    use nix::mount::{MsFlags, mount};
    let bundle = Bundle::new();
    let source = bundle.host_dir("locked");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), &source, Some("tmpfs"), flags, None::<&str>).expect("mount a tmpfs");
    fs::write(source.join("f"), "hi").expect("write into it");
    let container = bundle.bind(source, "/m", &["rbind", "ro"]).userns();
    let seen = container.sh("cat /m/f; awk '$5==\"/m\"{print \" \" $6}' /proc/self/mountinfo; touch /m/x 2>&1").run();
    seen.shows("hi").shows("ro,nosuid,nodev,noexec").shows("Read-only file system");
}

#[test]
fn b07_to_clear_a_flag_that_the_host_has_locked_is_refused_by_its_name() {
    use nix::mount::{MsFlags, mount};
    let refused = |option: &str| {
        let bundle = Bundle::new().args(["true"]);
        let source = bundle.host_dir("locked");
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("tmpfs"), &source, Some("tmpfs"), flags, None::<&str>).expect("mount a tmpfs");
        bundle.bind(source, "/m", &["rbind", option]).userns().run()
    };
    if known_difference("crun", "leaves the flag as it is") || known_difference("runc", "leaves the flag as it is") {
        return;
    }
    for option in ["suid", "dev", "exec"] {
        refused(option).fails_with(&format!("no{option}")).fails_with("operation not permitted");
    }
}

// More cases, of issues to come, that the engines' own mounts need today.

#[test]
fn b14_the_propagation_of_a_bind_is_the_one_asked_for() {
    use nix::mount::{MsFlags, mount};
    if known_difference("crun", "cuts the link to the group on the host") {
        return;
    }
    for (option, seen) in [("rshared", "shared:"), ("rslave", "master:"), ("rprivate", "")] {
        let bundle = Bundle::new();
        let source = bundle.host_dir("h");
        mount(Some("tmpfs"), &source, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("mount a tmpfs");
        mount(None::<&str>, &source, None::<&str>, MsFlags::MS_SHARED, None::<&str>).expect("share it");
        // As engines do for binds of both directions: otherwise all of the root is a slave.
        let root = if option == "rshared" { "rshared" } else { "rslave" };
        let container = bundle.set("/linux/rootfsPropagation", root).bind(&source, "/h", &["rbind", option]);
        let seen_inside =
            container.sh("awk '$5==\"/h\"{for (i=7; $i!=\"-\"; i++) print $i}' /proc/self/mountinfo").run();
        seen_inside.ok();
        match seen {
            "" => seen_inside.prints(""),
            word => seen_inside.shows(word),
        };
        if option == "rshared" {
            let outside = fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
            let group = seen_inside.lines().first().cloned().unwrap_or_default();
            assert!(outside.contains(&format!("{group} ")), "{group} is not the group on the host");
        }
    }
}

#[test]
fn b14_mounts_go_both_ways_through_a_shared_bind_and_never_out_of_another() {
    use nix::mount::{MsFlags, mount, umount};
    if known_difference("crun", "cuts the link to the group on the host") {
        return;
    }
    for (options, comes_in, goes_out) in [
        (&["rbind", "rshared"][..], true, true),
        (&["rbind", "rslave"], true, false),
        (&["rbind", "rprivate"], false, false),
        (&["rbind"], true, false),
    ] {
        let bundle = Bundle::new().set("/linux/rootfsPropagation", "rshared").caps(&["CAP_SYS_ADMIN"]);
        if options.len() == 1 && known_difference("runc", "lets the root decide, and so mounts reach the host") {
            continue;
        }
        let source = bundle.host_dir("h");
        mount(Some("tmpfs"), &source, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("mount a tmpfs");
        mount(None::<&str>, &source, None::<&str>, MsFlags::MS_SHARED, None::<&str>).expect("share it");
        let (mine, theirs) = (bundle.host_dir("h/of-host"), bundle.host_dir("h/of-container"));
        let container = bundle.bind(&source, "/h", options).sh("mount -t tmpfs inner /h/of-container && sleep 60");
        container.run_detached().ok();
        let inside = || fs::read_to_string(format!("/proc/{}/mountinfo", container.pid())).unwrap_or_default();
        crate::harness::eventually("the container mounts", || inside().contains(" inner "));
        let outside = fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
        assert_eq!(outside.contains(" inner "), goes_out, "{options:?}: from the container to the host");
        mount(Some("outer"), &mine, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("mount a tmpfs");
        assert_eq!(inside().contains(" outer "), comes_in, "{options:?}: from the host to the container");
        umount(&mine).expect("unmount");
        container.delete_force().ok();
        let _ = umount(&theirs);
    }
}

#[test]
fn b18_devices_and_links_are_bound_as_what_they_are() {
    for userns in [false, true] {
        let bundle = Bundle::new();
        bundle.host_file("real", "real");
        let link = bundle.host("link");
        symlink("real", &link).expect("make a link");
        let container = bundle.bind("/dev/zero", "/z", &["bind"]).bind(link, "/l", &["bind", "ro"]);
        let container = if userns { container.userns() } else { container };
        container
            .sh("stat -c '%F %t:%T' /z; cat /l; stat -c ' %F' /l")
            .run()
            .prints("character special file 1:5\nreal regular file");
    }
}

#[test]
fn b18_a_recursive_flag_on_a_fifo_or_a_socket_or_a_file() {
    let bundle = Bundle::new();
    let (fifo, socket) = (bundle.host("p"), bundle.host("s"));
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).expect("make a FIFO");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("listen");
    let file = bundle.host_file("f", "x");
    let container = bundle.bind(fifo, "/p", &["bind", "rro"]).bind(socket, "/s", &["bind", "rro"]);
    let container = container.bind(file, "/f", &["bind", "rro"]);
    let seen = container.sh("[ -p /p ] && [ -S /s ] && echo there; echo y >/f").run();
    seen.shows("there").fails_with("read-only file system");
}

#[test]
fn b19_a_tmpfs_with_copy_up_holds_what_was_there() {
    let long = "t".repeat(90);
    let container = Bundle::new()
        .file("/c/f", "content", 0o604)
        .owned("/c/f", 7, 8)
        .dir("/c/d", 0o2770)
        .dir("/c/sticky", 0o1777)
        .link("/c/long", &long)
        .mount("/c", "tmpfs", "tmpfs", &["tmpcopyup"]);
    let container = container.sh("cat /c/f; echo; cd /c; stat -c '%n %a %u %g' f d sticky; readlink long; touch new");
    let seen = container.run_cmd().after("umask 077").run();
    seen.ok().shows("content\n").shows("f 604 7 8\n").shows("d 2770 0 0\n").shows("sticky 1777").shows(&long);
    assert!(!container.rootfs().join("c/new").exists(), "the directory underneath was changed");
}

#[test]
fn b19_copy_up_keeps_times_and_extended_attributes() {
    if known_difference("runc", "leaves both out") || known_difference("crun", "leaves both out") {
        return;
    }
    for userns in [false, true] {
        let bundle = Bundle::new().file("/c/f", "content", 0o755).mount("/c", "tmpfs", "tmpfs", &["tmpcopyup"]);
        let bundle = if userns { bundle.userns() } else { bundle };
        let file = bundle.rootfs().join("c/f");
        give_capability(&file);
        let odd = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_007);
        fs::File::open(&file).and_then(|file| file.set_modified(odd)).expect("set the time");
        let seen = bundle.sh("stat -c %Y /c/f; probe xattr /c/f security.capability").run();
        let lines = seen.ok().lines();
        assert_eq!(lines[0], "1000000007");
        // CAP_NET_RAW, permitted and effective; the kernel adds whose root it is for.
        if !lines[1].starts_with("0100000200200000") && !lines[1].starts_with("0100000300200000") {
            seen.fail("the capability of the file is lost");
        }
    }
}

/// As `setcap cap_net_raw+ep` does it: `struct vfs_cap_data`, revision 2.
fn give_capability(file: &Path) {
    let value: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let path = std::ffi::CString::new(file.as_os_str().as_encoded_bytes()).expect("no NUL");
    // SAFETY: path and name end in NUL, and the value is as long as the kernel is told.
    let done = unsafe {
        libc::setxattr(path.as_ptr(), c"security.capability".as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    assert_eq!(done, 0, "give a file a capability");
}

#[test]
fn b19_an_explicit_mode_holds_with_copy_up_too() {
    if known_difference("crun", "takes all from the image") || known_difference("runc", "leaves the owner out") {
        return;
    }
    for (options, seen) in [(vec!["tmpcopyup"], "750 7 0"), (vec!["tmpcopyup", "mode=711", "uid=3"], "711 3 0")] {
        let container = Bundle::new().dir("/c", 0o750).owned("/c", 7, 0).file("/c/f", "", 0o600);
        let container = container.mount("/c", "tmpfs", "tmpfs", &options).caps(&["CAP_DAC_OVERRIDE"]);
        container.sh("stat -c '%a %u %g' /c; ls /c").run().prints(&format!("{seen}\nf"));
    }
}

#[test]
fn b30_more_binds_than_files_may_be_open_in_a_user_namespace() {
    const MANY: usize = 1200;
    if known_difference("runc", "runs out of descriptors") || known_difference("crun", "runs out of descriptors") {
        return;
    }
    for option in ["bind", "idmap"] {
        let bundle = Bundle::new().unset("/process/rlimits");
        let private = bundle.host_dir("private");
        fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).expect("chmod");
        let mut bundle = bundle.dir("/m", 0o755);
        for number in 0..MANY {
            let source = bundle.host_file(&format!("private/{number}"), &format!("{number}\n"));
            bundle = bundle.bind(source, &format!("/m/{number}"), &["bind", option]);
        }
        let container = bundle.userns().sh("cd /m; cat 0 127 128 1199; ls | wc -l; stat -c %u 1000; ulimit -n");
        let owner = if option == "idmap" { 0 } else { 65534 };
        let seen = container.run_cmd().after("ulimit -n 1024").run();
        seen.prints(&format!("0\n127\n128\n1199\n{MANY}\n{owner}\n1024"));
    }
}

// What is done with a link at either end of a bind, as crun has it.

/// A bundle with `/m` bound from a link on the host to `target`, which is beside it and holds "host".
fn from_link(option: &str, target: &str) -> Bundle {
    let bundle = Bundle::new();
    bundle.host_file("l/target", "host");
    let link = bundle.host(&format!("l/link-{}", bundle.name()));
    symlink(target, &link).expect("make a link on the host");
    bundle.bind(&link, "/m", &["bind", option])
}

#[test]
fn copy_symlink_makes_the_link_anew_and_binds_anything_else() {
    if known_difference("runc", "has no such option") {
        return;
    }
    for userns in [false, true] {
        let bundle = from_link("copy-symlink", "target").file("/target", "inside", 0o644);
        let container = if userns { bundle.userns() } else { bundle };
        let container = container.sh("readlink /m; cat /m; stat -c ' %u' /m; grep -c ' /m ' /proc/self/mountinfo");
        container.run().shows("target\ninside 0\n0\n");
        // A second time the same link is there.
        container.run().shows("target\ninside 0\n0\n");
    }
    let bundle = Bundle::new().args(["cat", "/m"]);
    let file = bundle.host_file("file", "host");
    bundle.bind(file, "/m", &["bind", "copy-symlink"]).run().prints("host");
}

#[test]
fn copy_symlink_refuses_what_else_is_at_the_destination() {
    if known_difference("runc", "has no such option") {
        return;
    }
    let taken = from_link("copy-symlink", "target").file("/m", "", 0o644).args(["true"]).run();
    taken.fails_with_one_of(&["file exists", "invalid argument"]);
    from_link("copy-symlink", "target").link("/m", "other").args(["true"]).run().fails();
    // The directory of the link is found inside the root.
    let bundle = Bundle::new().link("/out", "/../../made");
    let link = bundle.host("link");
    symlink("x", &link).expect("make a link on the host");
    let container = bundle.bind(link, "/out/m", &["bind", "copy-symlink"]).args(["readlink", "/made/m"]);
    if !known_difference("crun", "a dangling link to an absolute path is an error") {
        container.run().prints("x");
        assert!(!Path::new("/made").exists(), "made on the host");
    }
}

#[test]
fn src_nofollow_mounts_the_link_itself() {
    if known_difference("runc", "has no such option") {
        return;
    }
    for userns in [false, true] {
        if !userns && known_difference("crun", "follows the link all the same without a user namespace") {
            continue;
        }
        let bundle = from_link("src-nofollow", "target").file("/target", "inside", 0o644);
        let container = if userns { bundle.userns() } else { bundle };
        let seen = container.sh("readlink /m; cat /m; echo; grep -c ' /m ' /proc/self/mountinfo").run();
        seen.prints("target\ninside\n1");
    }
    let followed = from_link("bind", "target").file("/target", "inside", 0o644);
    followed.sh("cat /m; readlink /m; true").run().prints("host");
}

#[test]
fn dest_nofollow_covers_the_link_itself() {
    if known_difference("runc", "has no such option") {
        return;
    }
    let bundle = |options: &[&str]| {
        let bundle = Bundle::new().link("/m", "there").file("/there", "image", 0o644);
        let source = bundle.host_file("file", "host");
        bundle.bind(source, "/m", options).sh("cat /m; echo; cat /there; echo; stat -c %F /m")
    };
    bundle(&["bind", "dest-nofollow"]).run().prints("host\nimage\nregular file");
    bundle(&["bind"]).run().prints("host\nhost\nsymbolic link");
    // Both together: one link on top of the other.
    let bundle = Bundle::new().link("/m", "there").file("/there", "1", 0o644).file("/elsewhere", "2", 0o644);
    let link = bundle.host("link");
    symlink("elsewhere", &link).expect("make a link on the host");
    let container = bundle.bind(link, "/m", &["bind", "src-nofollow", "dest-nofollow"]);
    container.sh("readlink /m; cat /m").run().prints("elsewhere\n2");
}

#[test]
fn dest_nofollow_does_not_reach_into_proc_behind_a_link() {
    if known_difference("runc", "has no such option") || known_difference("crun", "mounts anything anywhere in /proc") {
        return;
    }
    let bundle = Bundle::new().link("/innocent", "/proc").args(["true"]);
    let source = bundle.host_file("file", "host");
    bundle.bind(source, "/innocent/self", &["bind", "dest-nofollow"]).run().fails_with("proc");
}

// What a bind makes of the flags of its source.

/// Flags of a source, options of a bind of it, flags of the mount in the container; the peers that have others.
type Case = (&'static [&'static str], &'static [&'static str], &'static str, &'static [Kind]);

const ALL: &[&str] = &["ro", "nosuid", "nodev", "noexec", "nosymfollow"];
const CAREFUL: &[&str] = &["nosuid", "nodev", "noexec"];

/// A word that names a flag makes the words all the flags. Words for whole trees and access times are left to themselves.
const FLAGS: &[Case] = &[
    (ALL, &["rbind", "rprivate"], "ro,nosuid,nodev,noexec,relatime,nosymfollow", &[Kind::Crun]),
    (ALL, &["bind", "rw"], "rw,relatime", &[]),
    (CAREFUL, &["rbind", "rw", "rprivate"], "rw,relatime", &[]),
    (CAREFUL, &["rbind", "ro", "rprivate"], "ro,relatime", &[Kind::Crun]),
    (CAREFUL, &["rbind", "nosuid", "suid"], "rw,relatime", &[Kind::Crun]),
    (&["ro", "noexec"], &["rbind", "nosuid", "nodev", "rprivate"], "rw,nosuid,nodev,relatime", &[]),
    (&["ro", "nosuid"], &["bind", "exec"], "rw,relatime", &[]),
    (&["nosuid", "noatime"], &["bind", "rw"], "rw,noatime", &[]),
    (&["nosuid", "nodiratime"], &["bind", "noexec"], "rw,noexec,nodiratime,relatime", &[]),
    (&["noatime"], &["bind", "nodiratime"], "rw,nodiratime,relatime", &[]),
    (&["noatime"], &["bind", "nodiratime", "norelatime"], "rw,nodiratime,relatime", &[]),
    (&["noatime"], &["bind", "nodiratime", "strictatime"], "rw,nodiratime", &[]),
    (&["noatime"], &["bind", "nodiratime", "noatime"], "rw,noatime,nodiratime", &[]),
    (&["nodiratime"], &["bind", "strictatime"], "rw", &[]),
    (&["nodiratime"], &["bind", "noatime"], "rw,noatime", &[]),
    (&["nodiratime"], &["rbind", "rnoatime"], "rw,noatime,nodiratime", &[Kind::Crun]),
    (&["noatime"], &["rbind", "rnodiratime"], "rw,noatime,nodiratime", &[Kind::Crun]),
    (&["nosuid"], &["bind", "noatime"], "rw,noatime", &[]),
    (&["nosuid", "noexec"], &["rbind", "rro"], "ro,nosuid,noexec,relatime", &[]),
    (&["nosuid", "noexec"], &["rbind", "rro", "nodev"], "ro,nodev,relatime", &[Kind::Crun]),
    (&["noatime"], &["bind", "atime"], "rw,noatime", &[]),
    (&["noatime"], &["bind", "norelatime"], "rw,noatime", &[]),
    (&["noatime"], &["bind", "nostrictatime"], "rw,noatime", &[]),
    (&["strictatime"], &["bind", "norelatime"], "rw", &[]),
    (&["noatime"], &["bind", "noatime", "atime"], "rw,noatime", &[Kind::Crun]),
    (&["nosuid", "noatime"], &["bind", "atime"], "rw,nosuid,noatime", &[Kind::Crun, Kind::Runc]),
];

/// In a user namespace what the source has stays, but for what Linux does not lock there.
const FLAGS_IN_A_USER_NAMESPACE: &[Case] = &[
    (CAREFUL, &["rbind", "rw", "rprivate"], "rw,nosuid,nodev,noexec,relatime", &[Kind::Crun]),
    (CAREFUL, &["rbind", "ro", "rprivate"], "ro,nosuid,nodev,noexec,relatime", &[]),
    (&["ro", "noexec"], &["rbind", "nosuid", "nodev"], "ro,nosuid,nodev,noexec,relatime", &[Kind::Crun]),
    (&["noatime"], &["bind", "atime"], "rw,noatime", &[]),
    (&["noatime"], &["bind", "norelatime"], "rw,noatime", &[]),
    (&["nosuid", "noatime"], &["bind", "nostrictatime"], "rw,nosuid,noatime", &[Kind::Crun]),
    (&["noatime"], &["bind", "nodiratime"], "rw,noatime,nodiratime", &[Kind::Crun, Kind::Runc]),
    (&["ro", "noexec", "nosymfollow"], &["bind", "dev"], "ro,noexec,relatime", &[Kind::Crun]),
    (&["nodev", "nosymfollow"], &["bind", "ro", "symfollow"], "ro,nodev,relatime", &[Kind::Crun]),
    (&["nodev", "nosymfollow"], &["bind", "rw"], "rw,nodev,relatime", &[Kind::Crun]),
    (&["nodev", "nosymfollow"], &["bind"], "rw,nodev,relatime,nosymfollow", &[Kind::Crun]),
];

/// A tmpfs of the host with these flags.
fn source_with(bundle: &Bundle, words: &[&str]) -> PathBuf {
    use nix::mount::{MsFlags, mount};
    let flag = |word: &&str| match *word {
        "ro" => MsFlags::MS_RDONLY,
        "nosuid" => MsFlags::MS_NOSUID,
        "nodev" => MsFlags::MS_NODEV,
        "noexec" => MsFlags::MS_NOEXEC,
        "noatime" => MsFlags::MS_NOATIME,
        "nodiratime" => MsFlags::MS_NODIRATIME,
        "strictatime" => MsFlags::MS_STRICTATIME,
        "nosymfollow" => MsFlags::from_bits_retain(nix::libc::MS_NOSYMFOLLOW),
        other => panic!("{other} is no flag"),
    };
    let dir = bundle.host_dir("source");
    mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("mount a tmpfs");
    let flags = words.iter().map(flag).fold(MsFlags::MS_REMOUNT | MsFlags::MS_BIND, |all, flag| all | flag);
    mount(None::<&str>, &dir, None::<&str>, flags, None::<&str>).expect("set its flags");
    dir
}

#[track_caller]
fn binds_have(cases: &[Case], change: impl Fn(Bundle) -> Bundle) {
    let mut wrong = Vec::new();
    for &(source, options, flags, unlike) in cases {
        if unlike.contains(&kind()) {
            known_difference("crun", "drops the flags without a word, or keeps them beside one");
            known_difference("runc", "takes atime for a flag");
            continue;
        }
        let bundle = change(Bundle::new());
        let source_dir = source_with(&bundle, source);
        let bundle = bundle.bind(source_dir, "/m", options);
        let seen = bundle.args(["awk", "$5==\"/m\"{print $6}", "/proc/self/mountinfo"]).run();
        if seen.stdout().trim() != flags {
            let (found, error) = (seen.stdout(), seen.stderr());
            wrong.push(format!("{options:?} of {source:?}: {}{}, not {flags}", found.trim(), error.trim()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn flags_of_a_bind_take_the_place_of_its_sources() {
    binds_have(FLAGS, |bundle| bundle);
}

#[test]
fn flags_of_a_bind_are_added_to_its_sources_in_a_user_namespace() {
    binds_have(FLAGS_IN_A_USER_NAMESPACE, Bundle::userns);
}

#[test]
fn a_read_only_source_stays_so_in_a_user_namespace() {
    if known_difference("crun", "makes it writable") {
        return;
    }
    for word in ["rw", "rrw"] {
        let bundle = Bundle::new().userns();
        let source = source_with(&bundle, &["ro"]);
        let container = bundle.bind(source, "/m", &["rbind", word]).args(["true"]);
        container.run().fails_with("operation not permitted");
        if kind() == Kind::Corten {
            container.run().fails_with("/mounts/7: clear ro, which the source has: operation not permitted");
            crate::check::agrees(word, &container);
        }
    }
    // Without a word for it, it stays without an error.
    let read_only = |options: &[&str], make: &dyn Fn(&Bundle) -> PathBuf| {
        let bundle = Bundle::new().userns();
        let source = make(&bundle);
        let container = bundle.bind(source, "/m", options);
        container.sh("awk '$5==\"/m\"{print $6}' /proc/self/mountinfo; touch /m/x 2>&1 | grep -o 'Read-only'").run()
    };
    let of_mount = |bundle: &Bundle| source_with(bundle, &["ro"]);
    read_only(&["rbind", "nosuid"], &of_mount).prints("ro,nosuid,relatime\nRead-only");
    // What Kubernetes writes for each hostPath, on a file system that nobody can write to: the mount is writable.
    let of_filesystem = |bundle: &Bundle| {
        use nix::mount::{MsFlags, mount};
        let dir = bundle.host_dir("source");
        mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("mount a tmpfs");
        mount(None::<&str>, &dir, None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, None::<&str>)
            .expect("freeze it");
        mount(None::<&str>, &dir, None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_BIND, None::<&str>).expect("thaw it");
        dir
    };
    read_only(&["rbind", "rprivate", "rw"], &of_filesystem).prints("rw,relatime\nRead-only");
}

#[test]
fn a_program_of_a_noexec_source_runs_where_the_bind_is_writable() {
    let bundle = Bundle::new().args(["/m/busybox", "echo", "ran"]);
    let source = source_with(&bundle, CAREFUL);
    fs::copy(bundle.rootfs().join("bin/busybox"), source.join("busybox")).expect("copy a program");
    bundle.bind(source, "/m", &["rbind", "rprivate", "rw"]).run().prints("ran");
}
