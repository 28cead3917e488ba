//! The whole way, as root, in namespaces of its own: what a process inside sees, and what the host does not.

mod mount_tests;
mod root_tests;

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
use crate::sys::mount::{Change, Propagation, change_all};
use crate::sys::test_support::{QUIET, apart, terminal};

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
                change_all(Change::propagation(Propagation::Private)).unwrap();
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
