//! Facts about the host that several rooms ask for, each looked up once.

use std::fs;
use std::sync::OnceLock;

use nix::unistd::geteuid;

/// Whether this process is in a user namespace other than the first: its map of users is not the identity.
pub fn in_user_namespace() -> bool {
    static FACT: OnceLock<bool> = OnceLock::new();
    *FACT.get_or_init(|| {
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        !map.split_whitespace().eq(["0", "0", "4294967295"])
    })
}

/// Whether the caller is not root, or is root of a user namespace without calling itself so: state then belongs below
/// the user's runtime directory. Depends on nothing that differs between the calls of one engine.
pub fn is_rootless() -> bool {
    !geteuid().is_root() || (in_user_namespace() && std::env::var_os("USER").is_none_or(|name| name != "root"))
}

/// Whether we have no privilege over the host: not root, or root of a user namespace only.
pub fn is_unprivileged() -> bool {
    !geteuid().is_root() || in_user_namespace()
}

/// Whether AppArmor confines here.
pub fn has_apparmor() -> bool {
    fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|state| state.starts_with(b"Y"))
}

/// Whether SELinux confines here.
pub fn has_selinux() -> bool {
    fs::metadata("/sys/fs/selinux/enforce").is_ok()
}
