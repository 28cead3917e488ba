//! The whole way, as root, in namespaces of its own: what a process inside sees, and what the host does not.

use std::fmt::Write as _;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;
use serde_json::{Value, json};

use super::{CgroupPaths, Isolation, Namespaces, OpenIn, Request, Rootfs};
use crate::sys::mount::{Change, change_all, spread};
use crate::sys::trial::{QUIET, apart, terminal};

/// First id on the host of the user namespace's root.
const FIRST: u32 = 100_000;

/// A bundle in a directory that only root may pass, and how its container is made.
pub(super) struct Trial {
    pub(super) base: PathBuf,
    pub(super) config: Value,
    /// What is mounted on the host for it, in a mount namespace that ends with the test.
    pub(super) prepare: Option<fn(&Path)>,
    pub(super) isolation: Isolation,
    /// The namespace that is joined is not the host's.
    pub(super) elsewhere: bool,
    pub(super) user: bool,
    pub(super) network: bool,
    pub(super) cgroup: bool,
    pub(super) no_pivot: bool,
    pub(super) terminal: bool,
}

pub(super) fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root() && Path::new("/bin/busybox").exists();
    if !root {
        eprintln!("skipped: needs root and /bin/busybox (Debian: busybox-static)");
    }
    root
}

impl Trial {
    pub(super) fn new() -> Trial {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let base = std::env::temp_dir().join(format!("corten-rootfs-{}-{number}", std::process::id()));
        let root = base.join("b/rootfs");
        std::fs::create_dir_all(root.join("bin")).unwrap();
        std::fs::set_permissions(&base, PermissionsExt::from_mode(0o700)).unwrap();
        let quiet = QUIET.lock().unwrap();
        std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        drop(quiet);
        let mounts = json!([
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid", "noexec", "nodev"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"]},
        ]);
        let config = json!({"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "mounts": mounts, "linux": {
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/no/such", "/sys/firmware", "/proc/scsi", "/proc/acpi"],
            "readonlyPaths": ["/proc/sys", "/proc/bus", "/proc/no/such"]}});
        Trial {
            base,
            config,
            prepare: None,
            isolation: Isolation::New,
            elsewhere: false,
            user: false,
            network: true,
            cgroup: true,
            no_pivot: false,
            terminal: false,
        }
    }

    pub(super) fn root(&self) -> PathBuf {
        self.base.join("b/rootfs")
    }

    pub(super) fn mount(mut self, target: &str, kind: &str, source: impl AsRef<Path>, options: &[&str]) -> Trial {
        let source = source.as_ref();
        let mut entry = json!({"destination": target, "options": options});
        if !kind.is_empty() {
            entry["type"] = kind.into();
        }
        if !source.as_os_str().is_empty() {
            entry["source"] = source.to_str().into();
        }
        self.config["mounts"].as_array_mut().unwrap().push(entry);
        self
    }

    pub(super) fn linux(mut self, field: &str, value: Value) -> Trial {
        self.config["linux"][field] = value;
        self
    }

    pub(super) fn in_user_namespace(mut self) -> Trial {
        self.user = true;
        chown(self.root(), Some(FIRST), Some(FIRST)).unwrap();
        self
    }

    /// Runs a shell script inside; its output, or the error of the room.
    pub(super) fn run(&self, script: &str) -> Result<String, String> {
        let spec = serde_json::from_value(self.config.clone()).unwrap();
        let bundle = self.base.join("b");
        let host = || {
            if let Some(prepare) = self.prepare {
                nix::sched::unshare(CloneFlags::CLONE_NEWNS).unwrap();
                change_all(Change::spread(spread::PRIVATE)).unwrap();
                prepare(&self.base);
            }
            let plan = Rootfs::plan(&Request {
                spec: &spec,
                bundle: &bundle,
                id: "c",
                namespaces: Namespaces {
                    mount: self.isolation,
                    user: if self.user { Isolation::New } else { Isolation::None },
                    cgroup: if self.cgroup { Isolation::New } else { Isolation::None },
                    owns_network: self.network,
                },
                no_pivot: self.no_pivot,
                selinux: false,
            });
            let cgroup = cgroup2().map(|mount| CgroupPaths { cgroup: mount.clone(), mount });
            let opened =
                plan.and_then(|plan| plan.open(cgroup, None, OpenIn::Host)).map_err(|error| error.to_string())?;
            opened.chdir_to_rootfs().map_err(|error| error.to_string())?;
            Ok(opened)
        };
        let mut flags = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC;
        flags.set(CloneFlags::CLONE_NEWNS, self.isolation == Isolation::New || self.elsewhere);
        flags.set(CloneFlags::CLONE_NEWUSER, self.user);
        flags.set(CloneFlags::CLONE_NEWNET, self.network);
        flags.set(CloneFlags::CLONE_NEWCGROUP, self.cgroup);
        apart(flags, self.user.then_some(FIRST), host, |mut opened| {
            let mut enter = || {
                opened.set_propagation()?;
                opened.mount(None::<fn() -> crate::error::Result<()>>)?;
                // Hooks that enter the mount namespace look for the mounts below the rootfs's own path.
                let mounted = !self.config["mounts"].as_array().unwrap().is_empty() && !self.user;
                assert!(!mounted || self.prepare.is_some() || self.root().join("proc/self/stat").exists());
                opened.pivot()?;
                if mounted && self.config["mounts"][1]["type"] == "tmpfs" {
                    opened.null()?;
                }
                opened.make_dir(Path::new("/made/../work/dir"))?;
                if self.terminal {
                    opened.console(terminal().1.as_fd())?;
                }
                Ok(())
            };
            enter().and_then(|()| opened.finalize()).map_err(|error: crate::error::Error| error.to_string())?;
            let output = Command::new("/bin/busybox").args(["sh", "-c", script]).env("PATH", "/bin").output();
            let output = output.map_err(|error| error.to_string())?;
            let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
            write!(text, "{}", String::from_utf8_lossy(&output.stderr)).unwrap();
            Ok(text.trim_end().to_owned())
        })
    }

    /// The output, line by line.
    pub(super) fn sees(&self, script: &str) -> Vec<String> {
        let applets = "for a in cat stat ls grep touch awk readlink mount sort wc cut id; do alias $a=\"/bin/busybox $a\"; done\n";
        let text = self.run(&format!("{applets}{script}")).unwrap_or_else(|error| panic!("{error}\n{:#}", self.config));
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.base);
    }
}

fn cgroup2() -> Option<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.contains(" - cgroup2 "))?;
    line.split(' ').nth(4).map(PathBuf::from)
}

pub(super) fn host_mounts() -> usize {
    std::fs::read_to_string("/proc/self/mountinfo").unwrap().matches("corten-rootfs-").count()
}

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
