//! What is mounted, and where.

use super::*;

#[test]
fn the_mounts_of_an_engine_are_there_and_the_host_sees_none_of_them() {
    if !is_root() {
        return;
    }
    let trial = Trial::new();
    let seen = trial.sees(
        "awk '{print $5, $6}' /proc/self/mountinfo; echo --; ls -l /dev | awk '{print $1,$3,$NF}'; echo --
         readlink /dev/fd; readlink /dev/ptmx; stat -c '%a %F' /work/dir; cat /proc/keys; ls /sys/firmware /proc/acpi
         echo 1 >/proc/sys/kernel/panic; touch /proc/acpi/x; ls -l /proc/self/fd; touch /ok && echo writable",
    );
    let text = seen.join("\n");
    for line in [
        "/proc rw,nosuid,nodev,noexec,relatime",
        "/dev rw,nosuid",
        "/dev/pts rw,nosuid,noexec,relatime",
        "/sys ro,nosuid,nodev,noexec,relatime",
        "/sys/fs/cgroup ro,nosuid,nodev,noexec,relatime",
        "/dev/shm rw,nosuid,nodev,noexec,relatime",
        "/proc/sys ro,nosuid,nodev,noexec,relatime",
        "/proc/keys rw,nosuid",
        "crw-rw-rw- 0 null",
        "crw-rw-rw- 0 tty",
        "/proc/self/fd",
        "pts/ptmx",
        "755 directory",
        "Read-only file system",
        "writable",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("/boot") && !text.contains(trial.base.to_str().unwrap()), "nothing of the host: {text}");
    let open =
        seen.iter().filter_map(|line| line.split_once(" -> ").filter(|_| line.contains("64 ")).map(|(_, file)| file));
    // A terminal is that of another test of this process, which runs at the same time and whose copy this child is.
    let foreign: Vec<_> = open
        .filter(|file| !["/dev/null", "pipe:", "/proc/", "/ptmx"].iter().any(|known| file.starts_with(known)))
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    assert_eq!(host_mounts(), 0);
}

#[test]
fn b07_b08_in_a_user_namespace_sources_are_reached_and_what_they_forbid_stays() {
    if !is_root() {
        return;
    }
    fn locked(base: &Path) {
        for (place, data) in [("locked", ""), ("b", "")] {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            let place = base.join(place);
            mount(Some("tmpfs"), &place, Some("tmpfs"), flags, Some(data)).unwrap();
        }
        std::fs::write(base.join("locked/f"), "hi\n").unwrap();
        std::fs::create_dir_all(base.join("b/rootfs/bin")).unwrap();
        chown(base.join("b/rootfs"), Some(FIRST), Some(FIRST)).unwrap();
        std::fs::copy("/bin/busybox", base.join("b/rootfs/bin/busybox")).unwrap();
    }
    let trial = |options: &[&str]| {
        let mut trial = Trial::new();
        std::fs::create_dir(trial.base.join("locked")).unwrap();
        trial.prepare = Some(locked);
        trial.config["root"]["readonly"] = true.into();
        let source = trial.base.join("locked");
        trial.in_user_namespace().mount("/m", "bind", source, options)
    };
    let script = "cat /m/f; touch /m/x; awk '$5==\"/m\"||$5==\"/\"{print $5,$6}' /proc/self/mountinfo
        stat -c '%t:%T' /dev/null; echo x >/dev/null && echo null; touch /x; id -u";
    let text = trial(&["rbind", "ro"]).sees(script).join("\n");
    for line in [
        "hi",
        "touch: /m/x: Read-only",
        "/m ro,nosuid,nodev",
        "/ ro,nosuid,nodev",
        "1:3",
        "null",
        "touch: /x: Read-only",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let error = trial(&["rbind", "suid"]).run("true").unwrap_err();
    assert!(error.contains("clear nosuid") && error.ends_with("operation not permitted"), "{error}");
    assert_eq!(host_mounts(), 0);
}

#[test]
fn b01_b02_links_at_a_destination_are_followed_inside() {
    if !is_root() {
        return;
    }
    let mut trial = Trial::new();
    let (root, base) = (trial.root(), trial.base.clone());
    std::fs::create_dir_all(root.join("etc")).unwrap();
    symlink("/usr/share/zoneinfo/Mars/Base", root.join("etc/localtime")).unwrap();
    symlink("../../../../deep/er", root.join("etc/up")).unwrap();
    std::fs::create_dir_all(base.join("t/a")).unwrap();
    std::fs::create_dir_all(base.join("t/b")).unwrap();
    std::fs::write(base.join("t/a/real"), "real\n").unwrap();
    symlink("/t/a/real", base.join("t/b/lnk")).unwrap();
    symlink("../a/real2", base.join("t/b/lnk2")).unwrap();
    trial = trial
        .mount("/etc/localtime", "bind", "/etc/hostname", &["bind", "ro"])
        .mount("/etc/up", "bind", base.join("t/a"), &["bind"])
        .mount("/t/b", "", base.join("t/b"), &["rbind"])
        .mount("/t/b/lnk", "", base.join("t/a/real"), &["bind"])
        .mount("/t/b/lnk2", "", base.join("t/a/real"), &["bind"]);
    let seen = trial.sees("ls /usr/share/zoneinfo/Mars/Base; cat /deep/er/real /t/a/real /t/b/lnk /t/a/real2");
    assert_eq!(seen, ["/usr/share/zoneinfo/Mars/Base", "real", "real", "real", "real"]);
    assert!(!Path::new("/usr/share/zoneinfo/Mars").exists() && !Path::new("/deep").exists());
}

#[test]
fn b04_b05_the_mode_of_a_tmpfs() {
    if !is_root() {
        return;
    }
    let make = |path: &str, mode: u32, trial: &Trial| {
        std::fs::create_dir(trial.root().join(path)).unwrap();
        std::fs::set_permissions(trial.root().join(path), PermissionsExt::from_mode(mode)).unwrap();
    };
    let trial = Trial::new();
    for (path, mode) in [("a", 0o755), ("c", 0o1777), ("d", 0o750)] {
        make(path, mode, &trial);
    }
    let trial = trial
        .mount("/a", "tmpfs", "tmpfs", &["mode=0444"])
        .mount("/b", "tmpfs", "tmpfs", &[])
        .mount("/c", "tmpfs", "tmpfs", &[])
        .mount("/d", "tmpfs", "tmpfs", &[]);
    assert_eq!(trial.sees("stat -c %a /a /b /c /d"), ["444", "1777", "1777", "750"]);
}

#[test]
fn b09_a_read_only_dev_still_gets_its_devices_and_its_console() {
    if !is_root() {
        return;
    }
    let mut trial = Trial::new();
    trial.config["mounts"][1]["options"] = json!(["nosuid", "mode=755", "ro"]);
    trial.terminal = true;
    let seen = trial.sees("echo x >/dev/null && ls /dev/pts/ptmx /dev/fd/0 && touch /dev/x; stat -c %t:%T /dev/console; touch /dev/shm/y && echo ok");
    let text = seen.join("\n");
    assert!(text.contains("touch: /dev/x: Read-only file system") && text.contains("88:0\nok"), "{text}");
}

#[test]
fn b12_the_propagation_of_the_root_is_in_effect() {
    if !is_root() {
        return;
    }
    for (word, field) in [("shared", "shared:"), ("rshared", "shared:"), ("unbindable", "unbindable"), ("private", "-")]
    {
        let trial = Trial::new().linux("rootfsPropagation", word.into());
        let seen = trial.sees("awk '$5==\"/\"{print $7}' /proc/self/mountinfo");
        assert!(seen[0].starts_with(field), "{word}: {seen:?}");
    }
    assert!(!Trial::new().sees("awk '$5==\"/\"{print $7}' /proc/self/mountinfo")[0].starts_with("shared"));
}

#[test]
fn b14_a_shared_bind_stays_a_peer_of_its_source_and_others_never_send() {
    if !is_root() {
        return;
    }
    fn shared(base: &Path) {
        let place = base.join("h");
        mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        mount(None::<&str>, &place, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = table.lines().find(|line| line.contains(place.to_str().unwrap())).unwrap();
        std::fs::write(place.join("peers"), line.split(' ').nth(6).unwrap()).unwrap();
    }
    for user in [false, true] {
        let mut trial = Trial::new();
        let dir = trial.base.join("h");
        std::fs::create_dir(&dir).unwrap();
        trial.prepare = Some(shared);
        trial.user = user;
        chown(trial.root(), Some(if user { FIRST } else { 0 }), None).unwrap();
        let trial = trial
            .mount("/h", "", &dir, &["rbind", "rshared"])
            .mount("/p", "", &dir, &["rbind", "rprivate"])
            .mount("/n", "", &dir, &["rbind"])
            .mount("/s", "", &dir, &["rbind", "slave"])
            .mount("/h/x", "tmpfs", "tmpfs", &["private"]);
        let seen = trial.sees("cat /h/peers; echo; awk '$5~\"^/[hpns]/?x?$\"{print $5,$7}' /proc/self/mountinfo");
        let group = seen[0].strip_prefix("shared:").unwrap();
        let right = ["/h shared:", "/p -", "/n master:", "/s master:"];
        let right = right.map(|line| if line.ends_with(':') { format!("{line}{group}") } else { line.to_owned() });
        assert_eq!(seen[1..5], right, "{seen:?}");
        assert_eq!(seen[5], "/h/x -");
    }
}

#[test]
fn b20_b21_odd_destinations_and_what_makes_a_bind() {
    if !is_root() {
        return;
    }
    let source = Trial::new();
    let dir = source.base.join("d");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("f"), "here\n").unwrap();
    let mut trial = Trial::new();
    for (index, target) in ["/m//sub/", "m2/sub", "/m3/../m3b", "/m4/.", "/../../m5"].iter().enumerate() {
        let (kind, options): (&str, &[&str]) = [("", &["rbind"][..]), ("none", &["bind"]), ("bind", &[])][index % 3];
        trial = trial.mount(target, kind, &dir, options);
    }
    std::fs::create_dir_all(trial.base.join("b/rel")).unwrap();
    std::fs::write(trial.base.join("b/rel/f"), "relative\n").unwrap();
    trial = trial.mount("/r", "bind", "rel", &["bind"]);
    let seen = trial.sees("cat /m/sub/f /m2/sub/f /m3b/f /m4/f /m5/f /r/f");
    assert_eq!(seen, ["here", "here", "here", "here", "here", "relative"]);
}

#[test]
fn b18_fifos_sockets_and_files_are_bound_without_being_opened() {
    if !is_root() {
        return;
    }
    let source = Trial::new();
    let path = |name: &str| source.base.join(name);
    nix::unistd::mkfifo(&path("p"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(path("s")).unwrap();
    std::fs::write(path("f"), "").unwrap();
    let mut trial = Trial::new();
    for name in ["p", "s", "f"] {
        trial = trial.mount(&format!("/{name}"), "bind", path(name), &["bind", "rro"]);
    }
    let seen = trial.sees("stat -c %F /p /s /f; echo x >/f");
    assert_eq!(seen[..3], ["fifo", "socket", "regular empty file"]);
    assert!(seen[3].contains("Read-only file system"), "{seen:?}");
}

#[test]
fn b23_a_second_procfs_may_stand_before_the_first_and_links_do_not_lead_into_proc() {
    if !is_root() {
        return;
    }
    let mut trial = Trial::new().mount("/proc/uptime", "bind", "/etc/hostname", &["bind"]);
    let second = json!({"destination": "/host/proc", "type": "proc", "source": "proc"});
    trial.config["mounts"].as_array_mut().unwrap().insert(0, second);
    trial = trial.mount("/procfs", "bind", "/proc", &["rbind", "ro"]);
    let hostname = std::fs::read_to_string("/etc/hostname").unwrap();
    assert_eq!(trial.sees("cat /proc/uptime; ls /host/proc/self/stat")[0], hostname.trim());

    let trial = Trial::new().mount("/proc", "bind", "/etc", &["bind"]);
    assert!(trial.run("true").unwrap_err().contains("is not a procfs"));
    let trial = Trial::new();
    symlink("/proc/self", trial.root().join("x")).unwrap();
    symlink("/", trial.root().join("y")).unwrap();
    let error = trial.mount("/x/attr", "tmpfs", "tmpfs", &[]).run("true").unwrap_err();
    assert!(error.contains("inside /proc"), "{error}");
    let trial = Trial::new();
    symlink("/", trial.root().join("y")).unwrap();
    assert!(trial.mount("/y", "tmpfs", "tmpfs", &[]).run("true").unwrap_err().contains("container's root"));
}

#[test]
fn b29_modes_and_owners_of_devices() {
    if !is_root() {
        return;
    }
    let devices = json!([
        {"path": "/dev/x/y", "type": "c", "major": 1, "minor": 3, "fileMode": 438},
        {"path": "/dev/b", "type": "b", "major": 7, "minor": 0, "fileMode": 416, "uid": 5, "gid": 6},
        {"path": "/dev/p", "type": "p", "fileMode": 384},
        {"path": "/dev/u", "type": "u", "major": 1, "minor": 5},
    ]);
    let trial = Trial::new().linux("devices", devices);
    let seen = trial.sees("stat -c '%a %u %g %F %t:%T' /dev/x /dev/x/y /dev/b /dev/p /dev/u");
    let right = [
        "755 0 0 directory 0:0",
        "666 0 0 character special file 1:3",
        "640 5 6 block special file 7:0",
        "600 0 0 fifo 0:0",
        "666 0 0 character special file 1:5",
    ];
    assert_eq!(seen, right);

    let mut trial = Trial::new().linux("devices", json!([{"path": "/dev/x", "type": "c", "major": 1, "minor": 3}]));
    trial.config["mounts"] = json!([]);
    trial.config["linux"]["maskedPaths"] = json!([]);
    std::fs::create_dir(trial.root().join("dev")).unwrap();
    std::fs::write(trial.root().join("dev/x"), "").unwrap();
    let error = trial.run("true").unwrap_err();
    assert!(error.contains("/linux/devices/0") && error.contains("another kind of file"), "{error}");
}
