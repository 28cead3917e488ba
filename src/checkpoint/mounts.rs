//! Which of a container's mounts come from outside, by its own mount table.
//!
//! CRIU takes those of the container's own file systems along and has to be told of the others by name. The names come
//! from the kernel's table, never from a path that an image or a link decides (CVE-2026-119101, CVE-2026-115520), and are
//! the mount points, by which runc and crun know them, too.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;

use crate::error::{Result, ensure};
use crate::sys::procfs::mountinfo::{self, Mount};

/// One line of proc_pid_mountinfo(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The device number, `MAJOR:MINOR`.
    pub device: String,
    /// What of the file system is mounted.
    pub root: String,
    /// Where, below the root of the process.
    pub point: String,
    /// The type of the file system.
    pub kind: String,
}

/// Reads a mount table; a line that is not understood is left out.
pub fn parse(text: &str) -> Vec<Entry> {
    let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let entry = |mount: Mount<'_>| Entry {
        device: words(mount.device),
        root: words(mount.root().as_os_str().as_bytes()),
        point: words(mount.point().as_os_str().as_bytes()),
        kind: words(mount.fstype),
    };
    mountinfo::parse(text.as_bytes()).map(entry).collect()
}

/// File systems that belong to a namespace: the one that the container has of its own, by its name below `/proc/PID/ns`,
/// makes the file system one of its own.
const OF_NAMESPACES: [(&str, &str); 3] = [("proc", "pid"), ("sysfs", "net"), ("mqueue", "ipc")];

/// The mount points of what comes from outside. `host` is the mount table of the runtime; `namespaces` are the container's
/// own.
pub fn external(container: &[Entry], host: &[Entry], namespaces: &[String]) -> Result<Vec<String>> {
    let devices: BTreeSet<&str> = host.iter().map(|entry| entry.device.as_str()).collect();
    let mut points = Vec::new();
    for entry in container {
        if entry.point == "/" || !devices.contains(entry.device.as_str()) || is_restored(entry, namespaces) {
            continue;
        }
        ensure_nameable(&entry.point)?;
        if !points.contains(&entry.point) {
            points.push(entry.point.clone());
        }
    }
    Ok(points)
}

/// Whether CRIU mounts such a file system anew though the host has the same one. cgroup2 is one for all.
fn is_restored(entry: &Entry, namespaces: &[String]) -> bool {
    if matches!(entry.kind.as_str(), "cgroup" | "cgroup2") {
        return true;
    }
    let shared =
        |(kind, namespace): &(&str, &str)| *kind == entry.kind && !namespaces.iter().any(|own| own == namespace);
    entry.root == "/" && OF_NAMESPACES.iter().any(shared)
}

/// Refuses a name that would not end where it does in `mnt[NAME]:NAME`.
pub fn ensure_nameable(point: &str) -> Result<()> {
    let plain = !point.contains(['[', ']']) && !point.contains("]:") && !point.chars().any(char::is_control);
    ensure!(plain, "the mount point {point:?} cannot be named to criu");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "\
20 1 0:19 / / rw - ext4 /dev/vda rw
21 20 0:20 / /proc rw - proc proc rw
22 20 0:21 / /sys rw - sysfs sysfs rw
23 22 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
";

    fn own() -> Vec<String> {
        ["pid", "net", "ipc", "mnt"].map(str::to_owned).to_vec()
    }

    fn points(container: &str, namespaces: &[String]) -> Result<Vec<String>> {
        external(&parse(container), &parse(HOST), namespaces)
    }

    #[test]
    fn what_the_host_has_mounted_too_is_external_and_the_containers_own_is_not() {
        let container = "\
30 29 0:19 /b/rootfs / rw - ext4 /dev/vda rw
31 30 0:60 / /proc rw - proc proc rw
32 30 0:61 / /dev rw - tmpfs tmpfs rw
33 31 0:61 /null /proc/keys rw - tmpfs tmpfs rw
34 30 0:19 /etc/hosts /etc/hosts ro - ext4 /dev/vda rw
35 30 0:38 /c /sys/fs/cgroup ro - cgroup2 cgroup rw
36 30 0:20 /bus /hostproc rw - proc proc rw
";
        assert_eq!(points(container, &own()).unwrap(), ["/etc/hosts", "/hostproc"]);
    }

    #[test]
    fn the_file_system_of_a_namespace_that_is_shared_with_the_host_is_mounted_anew() {
        let container = "31 30 0:20 / /proc rw - proc proc rw\n32 30 0:21 / /sys ro - sysfs sysfs rw\n";
        assert_eq!(points(container, &own()).unwrap(), ["/proc", "/sys"]);
        assert!(points(container, &["mnt".to_owned()]).unwrap().is_empty());
    }

    #[test]
    fn a_mount_point_that_would_end_its_name_early_is_refused() {
        for point in ["/a]:/etc/shadow", "/a[0]", r"/a\012b", r"/a\011b"] {
            assert!(points(&format!("31 30 0:19 /x {point} rw - ext4 /dev/vda rw\n"), &own()).is_err(), "{point}");
        }
        let container = r"31 30 0:19 /x /with\040space rw - ext4 /dev/vda rw";
        assert_eq!(points(container, &own()).unwrap(), ["/with space"]);
    }
}
