//! The captured host, as far as the runtime looks at it: its files below a directory of the test, namespaces to join.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Sandbox, chown_all, eventually, fill, reaper};

/// See the module's head.
pub struct Host {
    pub sandbox: Arc<Sandbox>,
    dir: PathBuf,
}

/// Whether limits may be raised: root of a container may lack the right.
pub fn may_exceed_limits() -> bool {
    static MAY: OnceLock<bool> = OnceLock::new();
    *MAY.get_or_init(|| {
        const CAP_SYS_RESOURCE: u32 = 24;
        let status = fs::read_to_string("/proc/self/status").expect("read our status");
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("CapEff");
        let set = u64::from_str_radix(line.trim(), 16).expect("a set of capabilities");
        set >> CAP_SYS_RESOURCE & 1 == 1
    })
}

/// All applets that busybox has here.
fn applets(sandbox: &Sandbox) -> &'static BTreeSet<String> {
    static APPLETS: OnceLock<BTreeSet<String>> = OnceLock::new();
    APPLETS.get_or_init(|| {
        let file = sandbox.dir().join("out/applets");
        let mut command = Command::new("/bin/busybox");
        command.arg("--list").stdout(fs::File::create(&file).expect("make a file for the applets"));
        let pid = reaper::spawn(&mut command).expect("list the applets");
        reaper::wait(pid, Duration::from_secs(10)).expect("the list of applets");
        fs::read_to_string(&file).expect("read the applets").lines().map(str::to_owned).collect()
    })
}

impl Host {
    pub fn new(sandbox: Arc<Sandbox>) -> Host {
        let dir = sandbox.dir().join("host");
        fs::create_dir_all(dir.join("var")).expect("make the captured host");
        fs::create_dir_all(dir.join("run")).expect("make the captured host");
        symlink("../run", dir.join("var/run")).expect("make the captured host");
        Host { sandbox, dir }
    }

    /// Where a captured path of the host is now. The root stays the root.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        match path.as_ref().strip_prefix("/").unwrap_or(path.as_ref()) {
            root if root.as_os_str().is_empty() => "/".into(),
            below => self.dir.join(below),
        }
    }

    /// A captured word: paths in it are moved.
    pub fn word(&self, word: &str) -> String {
        let moved = |path: &str| self.path(path).display().to_string();
        match word.split_once('=') {
            _ if word.starts_with('/') => moved(word),
            Some((option, path)) if option.starts_with("--") && path.starts_with('/') => {
                format!("{option}={}", moved(path))
            }
            _ => word.into(),
        }
    }

    /// Makes the root filesystem of a container, owned by this id, unless it is there.
    pub fn rootfs(&self, rootfs: &Path, owner: u32) {
        if rootfs.join("bin").exists() {
            return;
        }
        fs::create_dir_all(rootfs).expect("make a rootfs");
        fill(&self.sandbox, rootfs);
        chown_all(rootfs, owner);
    }

    /// Makes sure that there is a program of this name: busybox if it knows it, else one that sleeps. True if it sleeps.
    pub fn program(&self, rootfs: &Path, name: &str) -> bool {
        let short = Path::new(name).file_name().and_then(|name| name.to_str()).unwrap_or(name);
        let file = match name.strip_prefix('/') {
            Some(path) => rootfs.join(path),
            None => rootfs.join("bin").join(name),
        };
        let known = applets(&self.sandbox).contains(short);
        if file.symlink_metadata().is_err() {
            fs::create_dir_all(file.parent().expect("a parent")).expect("make the program's directory");
            if known {
                symlink("/bin/busybox", &file).expect("link an applet");
            } else {
                sleeper(&file);
            }
        }
        !known
    }

    /// The source of a bind mount: devices as the machine has them, all else made here.
    pub fn source(&self, source: &str) -> PathBuf {
        let path = Path::new(source);
        if path.starts_with("/dev") || path.starts_with("/sys") || path.starts_with("/proc") {
            return if path.exists() { path.into() } else { "/dev/null".into() };
        }
        let made = self.path(path);
        if made.exists() {
            return made;
        }
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if ["shm", "_data", "etc", "tmp"].contains(&name) {
            fs::create_dir_all(&made).expect("make the source of a bind mount");
            return made;
        }
        fs::create_dir_all(made.parent().expect("a parent")).expect("make the source's directory");
        if path.starts_with("/usr/bin") {
            sleeper(&made);
        } else {
            fs::write(&made, format!("{name}\n")).expect("make the source of a bind mount");
        }
        made
    }

    /// A process that holds namespaces of these kinds, mapped so if there is a user namespace among them.
    pub fn holder(&self, kinds: &[&str], uid_map: &Value, gid_map: &Value) -> i32 {
        let flags: String = kinds
            .iter()
            .map(|kind| match *kind {
                "user" => "U",
                "network" => "n",
                "ipc" => "i",
                "uts" => "u",
                "pid" => "p",
                "mount" => "m",
                other => panic!("nobody joins a {other} namespace by path in the captures"),
            })
            .collect();
        let fork = if kinds.contains(&"pid") { "-f" } else { "" };
        let script = format!("echo $$ >\"$0\" && exec unshare -{flags} {fork} sleep 1000");
        let mut command = Command::new("/bin/busybox");
        command.args(["sh", "-c", &script]).arg(self.sandbox.cgroup().join("caller/cgroup.procs"));
        let pid = reaper::spawn(&mut command).expect("start the holder of namespaces");
        for kind in kinds {
            let link = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{}", file_of(kind))).ok();
            eventually(&format!("the holder has a {kind} namespace"), || {
                // That of children is there when the first child is.
                link(&pid.to_string()).is_some_and(|held| Some(held) != link("thread-self"))
            });
        }
        if kinds.contains(&"user") {
            for (file, map) in [("uid_map", uid_map), ("gid_map", gid_map)] {
                let lines: String = map
                    .as_array()
                    .expect("a map for a user namespace")
                    .iter()
                    .map(|line| format!("{} {} {}\n", line["containerID"], line["hostID"], line["size"]))
                    .collect();
                fs::write(format!("/proc/{pid}/{file}"), lines).expect("map ids of the holder");
            }
        }
        pid
    }
}

/// The name of a kind of namespace below `/proc/PID/ns`, for joining that of the holder.
pub fn file_of(kind: &str) -> &str {
    match kind {
        "network" => "net",
        "mount" => "mnt",
        "pid" => "pid_for_children",
        other => other,
    }
}

fn sleeper(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(file, "#!/bin/busybox sh\nexec /bin/busybox sleep 1000\n").expect("write a program that sleeps");
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).expect("make it executable");
}
