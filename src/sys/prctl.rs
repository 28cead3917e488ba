//! Capability sets of the calling thread: capget(2), capset(2) and the parts of prctl(2) about capabilities.
//!
//! Sets are bit masks, bit *n* being capability *n* of `linux/capability.h`.

use super::{Errno, Result};

const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The three sets that capget(2) and capset(2) know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// What the kernel checks.
    pub effective: u64,
    /// What may become effective.
    pub permitted: u64,
    /// What survives execve(2) of a file with inheritable capabilities.
    pub inheritable: u64,
}

/// The capabilities of the calling thread.
pub fn capget() -> Result<Capabilities> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut halves = [Half::default(); 2];
    // SAFETY: both pointers are to live locals with the layout that version 3 of the call prescribes: one header and
    // exactly two data elements, which is all the kernel writes.
    let done = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, halves.as_mut_ptr()) };
    Errno::result(done)?;
    let join = |part: fn(&Half) -> u32| u64::from(part(&halves[0])) | u64::from(part(&halves[1])) << 32;
    Ok(Capabilities {
        effective: join(|half| half.effective),
        permitted: join(|half| half.permitted),
        inheritable: join(|half| half.inheritable),
    })
}

/// Sets the three sets of the calling thread at once.
pub fn capset(sets: &Capabilities) -> Result<()> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let half = |shift: u32| Half {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let halves = [half(0), half(32)];
    // SAFETY: as for capget; the kernel reads the two elements and writes at most the version in the header.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, halves.as_ptr()) };
    Errno::result(done).map(drop)
}

/// Takes a capability out of the bounding set for good. EINVAL: the kernel knows no such number.
pub fn bounding_drop(capability: u32) -> Result<()> {
    prctl(libc::PR_CAPBSET_DROP, capability.into(), 0).map(drop)
}

/// Is the capability in the bounding set? EINVAL: the kernel knows no such number.
pub fn bounding_has(capability: u32) -> Result<bool> {
    prctl(libc::PR_CAPBSET_READ, capability.into(), 0).map(|answer| answer == 1)
}

/// Raises a capability in the ambient set. EPERM: it is not both permitted and inheritable.
pub fn ambient_raise(capability: u32) -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, capability.into()).map(drop)
}

/// Empties the ambient set.
pub fn ambient_clear() -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0).map(drop)
}

fn prctl(option: libc::c_int, first: u64, second: u64) -> Result<libc::c_int> {
    // SAFETY: the options used in this file take plain numbers and touch no memory of ours.
    Errno::result(unsafe { libc::prctl(option, first, second, 0u64, 0u64) })
}
