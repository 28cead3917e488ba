//! seccomp(2): filters in classic BPF.

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
