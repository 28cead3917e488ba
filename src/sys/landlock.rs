//! Landlock's three calls, landlock(7): a set of rules is made, filled, and put on this thread for good.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Errno, Result};

// linux/landlock.h; libc has no names for these.
const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;
const RULE_NET_PORT: u32 = 2;

/// `struct landlock_ruleset_attr`: what is forbidden unless a rule allows it. A kernel that does not know the last fields
/// takes them as long as they are zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handled {
    /// `LANDLOCK_ACCESS_FS_*`.
    pub fs: u64,
    /// `LANDLOCK_ACCESS_NET_*`.
    pub net: u64,
    /// `LANDLOCK_SCOPE_*`.
    pub scoped: u64,
}

#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

#[repr(C)]
struct NetPort {
    allowed: u64,
    port: u64,
}

/// The level of Landlock that this kernel has (its "ABI version"), 0 for none.
pub fn abi_version() -> u32 {
    // SAFETY: with this flag the kernel wants a null pointer and a size of zero, and touches no memory.
    let level = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<Handled>(), 0_usize, CREATE_RULESET_VERSION)
    };
    // ENOSYS: it is not built in; EOPNOTSUPP: it is switched off.
    u32::try_from(level).unwrap_or(0)
}

/// Makes a set of rules, still without any.
pub fn create_ruleset(handled: &Handled) -> Result<OwnedFd> {
    let size = size_of::<Handled>();
    // SAFETY: the kernel reads `size` bytes from a live structure of that size; the result is a new descriptor that nobody
    // else owns.
    unsafe {
        let fd = libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::from_ref(handled), size, 0);
        Ok(OwnedFd::from_raw_fd(Errno::result(fd)? as i32))
    }
}

/// Allows these accesses to a file, or to all that lies beneath a directory.
pub fn allow_beneath(ruleset: BorrowedFd<'_>, allowed: u64, parent: BorrowedFd<'_>) -> Result<()> {
    let rule = PathBeneath { allowed, parent: parent.as_raw_fd() };
    // SAFETY: the kernel reads one structure of the rule's kind from a live local.
    let done = unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), RULE_PATH_BENEATH, &raw const rule, 0)
    };
    Errno::result(done).map(drop)
}

/// Allows these accesses to a port.
pub fn allow_port(ruleset: BorrowedFd<'_>, allowed: u64, port: u16) -> Result<()> {
    let rule = NetPort { allowed, port: port.into() };
    // SAFETY: as for a path.
    let done =
        unsafe { libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), RULE_NET_PORT, &raw const rule, 0) };
    Errno::result(done).map(drop)
}

/// Puts the rules on this thread and all that it starts. EPERM: without no_new_privs it needs CAP_SYS_ADMIN.
pub fn restrict_self(ruleset: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: two numbers.
    Errno::result(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) }).map(drop)
}
