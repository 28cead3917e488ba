//! Facts about the host that several rooms ask for, each looked up once.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use nix::unistd::geteuid;

use crate::sys;
use crate::sys::procfs::idmap::{self, IdRange};

/// The inode of the first user namespace, the same on every kernel (`USER_NS_INIT_INO`, linux/nsfs.h).
const FIRST_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// Whether this process is in a user namespace other than the first, whatever its maps are.
pub fn in_user_namespace() -> bool {
    fs::metadata("/proc/self/ns/user").is_ok_and(|meta| meta.ino() != FIRST_USER_NAMESPACE)
}

/// Whether the ids of this process mean others on the host: its map of users is not the identity.
fn has_mapped_ids() -> bool {
    static FACT: OnceLock<bool> = OnceLock::new();
    *FACT.get_or_init(|| {
        let map = fs::read_to_string("/proc/self/uid_map");
        // Without user namespaces, or without a procfs, there is none.
        map.is_ok_and(|map| !idmap::parse(&map).eq([IdRange { inside: 0, outside: 0, size: u32::MAX }]))
    })
}

/// Whether the caller is not root, or is root of a user namespace without calling itself so: state then belongs below
/// the user's runtime directory. Depends on nothing that differs between the calls of one engine.
pub fn is_rootless() -> bool {
    !geteuid().is_root() || (has_mapped_ids() && std::env::var_os("USER").is_none_or(|name| name != "root"))
}

/// Whether we have no privilege over the host: not root, or root of a user namespace only.
pub fn is_unprivileged() -> bool {
    !geteuid().is_root() || in_user_namespace()
}

/// Whether this process may not change its mounts (no CAP_SYS_ADMIN over its mount namespace), so that only a process with
/// a new user and mount namespace can clone them.
pub fn cannot_mount() -> bool {
    if !sys::prctl::capget().is_ok_and(|own| own.effective & SYS_ADMIN != 0) {
        return true;
    }
    // Its capabilities may be those of a user namespace that has no mount namespace of its own.
    in_user_namespace() && !owns_mount_namespace()
}

/// The bit of CAP_SYS_ADMIN, capabilities(7).
const SYS_ADMIN: u64 = 1 << 21;

fn owns_mount_namespace() -> bool {
    let owner = || {
        let mounts = fs::File::open("/proc/self/ns/mnt").ok()?;
        let owner = fs::File::from(sys::ns::owner(mounts.as_fd()).ok()?).metadata().ok()?;
        Some(owner.ino() == fs::metadata("/proc/self/ns/user").ok()?.ino())
    };
    owner().unwrap_or(false)
}

/// Whether AppArmor confines here.
pub fn has_apparmor() -> bool {
    fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|state| state.starts_with(b"Y"))
}

/// Whether SELinux confines here.
pub fn has_selinux() -> bool {
    fs::metadata("/sys/fs/selinux/enforce").is_ok()
}

/// Where programs are looked for when the caller names no place.
const USUAL_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A program of the host, found in PATH: the only way to one that is known by its name alone.
///
/// Unlike for execvp(3), an element of PATH that is not absolute (an empty one is the working directory) counts for
/// nothing: the runtime works in a bundle or in a root file system, where an image would put a program of that name.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").filter(|path| !path.is_empty()).unwrap_or_else(|| USUAL_PATH.into());
    let mut files =
        std::env::split_paths(&path).filter(|directory| directory.is_absolute()).map(|directory| directory.join(name));
    files.find(|file| fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 != 0))
}

/// A command line of that program, which runs where no image lies.
#[expect(clippy::disallowed_methods, reason = "the one place for helpers: newuidmap, newgidmap, ps and criu")]
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/");
    command
}
