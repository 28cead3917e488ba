//! The root as a whole, and the ways out of the host's.

use super::*;

#[test]
fn b26_hundreds_of_masked_directories_share_one_file_system() {
    if !is_root() {
        return;
    }
    let mut trial = Trial::new();
    let mut masked: Vec<String> = (0..500).map(|number| format!("/m/{number}")).collect();
    for path in &masked {
        std::fs::create_dir_all(trial.root().join(&path[1..])).unwrap();
        std::fs::write(trial.root().join(&path[1..]).join("secret"), "").unwrap();
    }
    std::fs::write(trial.root().join("m/file"), "secret").unwrap();
    masked.extend(["/proc/no/such", "/m/file/x", "/m/0", "/m/0", "/m/file"].map(str::to_owned));
    trial.config["root"]["readonly"] = true.into();
    let trial = trial.linux("maskedPaths", json!(masked));
    let seen = trial.sees("ls /m/3 /m/0 | wc -l; touch /m/3/x; cat /m/file; awk '$5~\"^/m/[0-9]\"{print $3}' /proc/self/mountinfo | sort -u | wc -l; touch /y");
    let (touch, root) = ("touch: /m/3/x: Read-only file system", "touch: /y: Read-only file system");
    assert_eq!(seen.iter().filter(|line| !line.contains("touch")).count(), 2, "{seen:?}");
    assert!(seen.contains(&touch.to_owned()) && seen.contains(&root.to_owned()), "{seen:?}");
    assert_eq!(seen[1], "1", "one superblock");
}

#[test]
fn what_goes_wrong_is_told_with_object_and_cause() {
    if !is_root() {
        return;
    }
    let base = Trial::new();
    std::fs::write(base.base.join("file"), "").unwrap();
    let fails = |trial: Trial| trial.run("true").unwrap_err();
    let error = fails(Trial::new().mount("/x", "bind", "/no/such", &["bind"]));
    assert!(
        error.contains("/mounts/7") && error.contains("open /no/such: no such file or directory (a bind shows what"),
        "{error}"
    );
    let error = fails(Trial::new().mount("/bin/busybox", "bind", "/etc", &["bind"]));
    assert!(
        error.ends_with(": not a directory (a directory cannot cover a file: the destination must be a directory, too, or not be there yet)"),
        "{error}"
    );
    let error = fails(Trial::new().mount("/bin", "bind", base.base.join("file"), &["bind"]));
    assert!(
        error.ends_with(": not a directory (a file cannot cover a directory: the destination must be a file, too, or not be there yet)"),
        "{error}"
    );
    let error = fails(Trial::new().mount("/x", "tmpfs", "tmpfs", &["size=1k", "colour=red"]));
    assert!(error.contains("option colour=red: ") && error.contains("Unknown parameter 'colour'"), "{error}");
    let error = fails(Trial::new().mount("/x", "nosuchfs", "x", &[]));
    assert!(error.contains("does not know this file system"), "{error}");
    let mut missing = Trial::new();
    missing.config["root"]["path"] = "nowhere".into();
    let error = fails(missing);
    assert!(error.contains("/root/path") && error.ends_with("no such file or directory"), "{error}");
}

#[test]
fn tmpcopyup_copies_links_modes_owners_and_times() {
    if !is_root() {
        return;
    }
    let trial = Trial::new();
    let (root, long) = (trial.root(), "x/".repeat(45));
    std::fs::create_dir_all(root.join("c/d")).unwrap();
    symlink(&long, root.join("c/l")).unwrap();
    std::fs::write(root.join("c/d/f"), "text\n").unwrap();
    chown(root.join("c/d/f"), Some(7), Some(8)).unwrap();
    std::fs::set_permissions(root.join("c/d/f"), PermissionsExt::from_mode(0o4751)).unwrap();
    std::fs::set_permissions(root.join("c/d"), PermissionsExt::from_mode(0o2770)).unwrap();
    let odd = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_007);
    std::fs::File::open(root.join("c/d/f")).unwrap().set_modified(odd).unwrap();
    let trial = trial.mount("/c", "tmpfs", "tmpfs", &["tmpcopyup", "mode=711"]);
    let seen = trial.sees(
        "readlink /c/l; stat -c '%a %u %g %Y' /c/d/f; stat -c %a /c/d; cat /c/d/f; touch /c/new; stat -f -c %T /c",
    );
    assert_eq!(seen, [long.as_str(), "4751 7 8 1000000007", "2770", "text", "tmpfs"]);
    assert!(!root.join("c/new").exists());
    assert_eq!(std::fs::metadata(root.join("c/d/f")).unwrap().uid(), 7);
}

#[test]
fn without_pivot_the_host_is_gone_all_the_same() {
    if !is_root() {
        return;
    }
    let mut trial = Trial::new();
    trial.no_pivot = true;
    let seen = trial.sees("ls /; awk '{print $5}' /proc/self/mountinfo | sort -u; ls /usr/share");
    assert!(seen.iter().any(|line| line == "bin") && seen.iter().any(|line| line == "/dev/pts"), "{seen:?}");
    assert!(!seen.iter().any(|line| line == "boot" || line == "home"), "{seen:?}");
    assert_eq!(host_mounts(), 0);
}

#[test]
fn cgroups_without_a_namespace_are_the_host_s_and_read_only_when_asked() {
    if !is_root() || cgroup2().is_none() {
        return;
    }
    for user in [false, true] {
        let mut trial = if user { Trial::new().in_user_namespace() } else { Trial::new() };
        trial.cgroup = false;
        let seen = trial.sees("stat -f -c %T /sys/fs/cgroup; awk '$5==\"/sys/fs/cgroup\"{print $6}' /proc/self/mountinfo; ls /sys/fs/cgroup/cgroup.procs");
        assert!(seen[1].starts_with("ro,nosuid,nodev,noexec"), "{seen:?}");
        assert_eq!(seen[2], "/sys/fs/cgroup/cgroup.procs");
    }
}

#[test]
fn sysfs_of_a_foreign_network_namespace_is_never_writable() {
    if !is_root() {
        return;
    }
    let mut trial = Trial::new().in_user_namespace();
    trial.network = false;
    let seen = trial.sees("awk '$5~\"^/sys\"{print $5,$6}' /proc/self/mountinfo");
    assert!(seen.len() > 1 && seen.iter().all(|line| line.contains(" ro,")), "{seen:?}");
    trial.config["mounts"][3]["options"] = json!(["nosuid", "rw"]);
    assert!(trial.run("true").unwrap_err().contains("/mounts/3/type"));
}

#[test]
fn remount_changes_attributes_and_file_system() {
    if !is_root() {
        return;
    }
    let trial = Trial::new()
        .mount("/t", "tmpfs", "tmpfs", &["size=64k"])
        .mount("/t", "", "", &["remount", "noexec", "size=128k"])
        .mount("/dev/shm", "", "", &["remount", "bind", "ro"]);
    let seen = trial.sees("awk '$5==\"/t\"{print $6,$NF} $5==\"/dev/shm\"{print $6}' /proc/self/mountinfo");
    assert!(seen.iter().any(|line| line.contains("noexec") && line.contains("size=128k")), "{seen:?}");
    assert!(seen.iter().any(|line| line.starts_with("ro,")), "{seen:?}");
}

#[test]
fn a_symlinked_rootfs_is_resolved_once() {
    if !is_root() {
        return;
    }
    let mut trial = Trial::new();
    symlink("rootfs", trial.base.join("b/link")).unwrap();
    for path in ["link", "./rootfs/", "../b/rootfs"] {
        trial.config["root"]["path"] = path.into();
        assert_eq!(trial.sees("ls /bin"), ["busybox"], "{path}");
    }
}

#[test]
fn b16_without_a_mount_namespace_only_the_root_changes() {
    if !is_root() {
        return;
    }
    let mut trial = Trial::new();
    trial.isolation = Isolation::None;
    trial.config = json!({"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "mounts": [], "linux": {}});
    let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert_eq!(trial.sees("ls /; stat -c %t:%T /dev/null"), ["bin", "dev", "work", "1:3"]);
    assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
}

#[test]
fn a_joined_mount_namespace_is_used_and_the_host_s_own_refused() {
    if !is_root() {
        return;
    }
    let mut trial = Trial::new();
    trial.isolation = Isolation::Joined;
    assert!(trial.run("true").unwrap_err().contains("the host's own"));
    trial.elsewhere = true;
    let source = trial.base.join("b");
    let trial = trial.mount("/m", "bind", source, &["bind"]);
    assert_eq!(trial.sees("ls /m; stat -f -c %T /dev"), ["rootfs", "tmpfs"]);
    assert_eq!(host_mounts(), 0);
}
