//! seccomp(2): filters in classic BPF.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::Result;

/// One instruction of classic BPF (`struct sock_filter`).
pub type Instruction = libc::sock_filter;

/// Installs a filter for this thread and all that it starts. Without no_new_privs it needs CAP_SYS_ADMIN.
///
/// `flags` are `SECCOMP_FILTER_FLAG_*`. Returns what the kernel returns: 0, or a descriptor with NEW_LISTENER.
pub fn set_filter(flags: libc::c_ulong, program: &[Instruction]) -> Result<i32> {
    let Ok(len) = u16::try_from(program.len()) else { return Err(Errno::EINVAL) };
    // The kernel only reads the instructions; the pointer is mutable by the shape of the C struct.
    let prog = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: `prog` describes `program`, a live slice of `len` instructions, which the kernel copies during the call.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const prog) };
    Errno::result(done).map(|number| number as i32)
}

/// Whether the kernel knows these flags: it looks at them before it reads the program, which is missing here.
pub fn knows_flags(flags: libc::c_ulong) -> bool {
    let nothing = std::ptr::null::<libc::sock_fprog>();
    // SAFETY: the null program makes the call fail before it changes anything: EINVAL for the flags, EFAULT after.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, nothing) };
    done == -1 && Errno::last() == Errno::EFAULT
}

/// [`set_filter`] with SECCOMP_FILTER_FLAG_NEW_LISTENER: the new descriptor, the lowest that is free, is close-on-exec and
/// gets the calls that the filter notifies of. EBUSY: this thread already has a filter with a listener.
pub fn set_filter_with_listener(flags: libc::c_ulong, program: &[Instruction]) -> Result<OwnedFd> {
    let fd = set_filter(flags | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER, program)?;
    // SAFETY: with this flag the call returns a descriptor that it just made, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `SECCOMP_IOCTL_NOTIF_ID_VALID` (linux/seccomp.h): `_IOW('!', 2, __u64)`.
const NOTIF_ID_VALID: libc::c_ulong = 1 << 30 | 8 << 16 | 0x21 << 8 | 2;

/// Is this the listener of a filter?
pub fn is_listener(fd: BorrowedFd<'_>) -> bool {
    let nobody = 0_u64;
    // SAFETY: the kernel reads eight bytes from a live local.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), NOTIF_ID_VALID as libc::Ioctl, &raw const nobody) };
    // A listener answers that no call with this number waits; another file does not know the question.
    done == 0 || Errno::last() == Errno::ENOENT
}
