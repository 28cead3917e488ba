//! Where cgroup v2 is mounted.

use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, FsType, statfs};

use crate::error::{Context, Error, Result};
use crate::sys::Errno;

/// Where every distribution mounts cgroup v2: alone, or beside the hierarchies of v1.
const PLACES: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The mount point of cgroup v2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mount(&'static str);

impl Mount {
    /// Looks at the two usual places; one system call where all of the host is v2.
    pub fn find() -> Result<Mount> {
        for place in PLACES {
            match file_system(place)? {
                Some(CGROUP2_SUPER_MAGIC) => return Ok(Mount(place)),
                _ => continue,
            }
        }
        Err(if has_v1() {
            Error::new("this host mounts cgroup v1 only, and cgroup v2 is needed")
                .hint("boot with systemd.unified_cgroup_hierarchy=1, or mount cgroup2 on /sys/fs/cgroup/unified")
        } else {
            Error::new("no cgroup v2 is mounted on /sys/fs/cgroup").hint("mount -t cgroup2 none /sys/fs/cgroup")
        })
    }

    /// The mount point as a path.
    pub fn path(self) -> &'static str {
        self.0
    }
}

/// Whether a hierarchy of v1 is mounted where they usually are.
fn has_v1() -> bool {
    let places = std::fs::read_dir(PLACES[0]).into_iter().flatten().flatten();
    places
        .map(|entry| statfs(&entry.path()))
        .any(|found| found.is_ok_and(|f| f.filesystem_type() == CGROUP_SUPER_MAGIC))
}

fn file_system(path: &str) -> Result<Option<FsType>> {
    match statfs(path) {
        Ok(found) => Ok(Some(found.filesystem_type())),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("look at {path}")),
    }
}
