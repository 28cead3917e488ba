//! The session keyring: the two commands of keyctl(2) that are of use to a runtime.

use std::ffi::CStr;

use super::{Errno, Result};

/// The serial number of a key or keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serial(i32);

/// Joins the session keyring of that name, or makes a new one. ENOSYS: a kernel without keyrings.
pub fn join_session(name: &CStr) -> Result<Serial> {
    // SAFETY: the kernel reads a NUL-terminated string, which `CStr` guarantees.
    let serial = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    Errno::result(serial).map(|serial| Serial(serial as i32))
}

/// Sets who may do what with a key (`KEY_POS_*`, `KEY_USR_*` … of keyctl(2)).
pub fn set_permissions(key: Serial, permissions: u32) -> Result<()> {
    // SAFETY: three numbers, no memory.
    let done = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_SETPERM, key.0, permissions) };
    Errno::result(done).map(drop)
}
