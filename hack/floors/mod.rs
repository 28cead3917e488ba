//! What the two floors have in common: C's calls, a birth in a cgroup, `/bin/true`, the end.

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_void};
use std::ptr::null;

unsafe extern "C" {
    pub fn syscall(number: c_long, ...) -> c_long;
    fn open(path: *const c_char, flags: c_int, ...) -> c_int;
    fn execve(path: *const c_char, argv: *const *const c_char, envp: *const *const c_char) -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn perror(what: *const c_char);
    fn _exit(status: c_int) -> !;
}

const SYS_CLONE3: c_long = 435;
const O_PATH_DIRECTORY_CLOEXEC: c_int =
    0o10000000 | 0o2000000 | if cfg!(target_arch = "x86_64") { 0o200000 } else { 0o40000 };
const INTO_CGROUP: u64 = 0x2_0000_0000;
const SIGCHLD: u64 = 17;

/// Ends with the words of errno when a call says -1.
pub fn must(what: &CStr, result: impl Into<i64>) -> i64 {
    let result = result.into();
    if result < 0 {
        // SAFETY: both take what they are given by value or as a C string, and the process ends here.
        unsafe {
            perror(what.as_ptr());
            _exit(1)
        }
    }
    result
}

/// The words of the command line after the program's name.
pub fn words(argc: c_int, argv: *const *const c_char) -> Vec<CString> {
    // SAFETY: the C library hands over argc C strings that live as long as the process.
    (1..argc as usize).map(|at| CString::from(unsafe { CStr::from_ptr(*argv.add(at)) })).collect()
}

/// The directory of a cgroup.
pub fn place(cgroup: &CStr) -> u64 {
    // SAFETY: a C string; the kernel copies it.
    must(cgroup, unsafe { open(cgroup.as_ptr(), O_PATH_DIRECTORY_CLOEXEC) }) as u64
}

/// Makes a child with new namespaces in a cgroup; 0 in the child, which never comes back from what it does.
pub fn born(namespaces: u64, place: u64) -> i64 {
    // struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
    // set_tid_size, cgroup.
    let mut ask = [0u64; 11];
    ask[0] = namespaces | INTO_CGROUP;
    ask[4] = SIGCHLD;
    ask[10] = place;
    // SAFETY: without CLONE_VM or a stack of its own the child is a plain fork of a process with one thread.
    must(c"clone3", unsafe { syscall(SYS_CLONE3, ask.as_ptr() as *const c_void, size_of_val(&ask)) })
}

/// Becomes the program.
pub fn become_true() -> ! {
    let argv = [c"true".as_ptr(), null()];
    let envp = [c"PATH=/bin".as_ptr(), null()];
    // SAFETY: both arrays end in null and outlive the call.
    must(c"/bin/true", unsafe { execve(c"/bin/true".as_ptr(), argv.as_ptr(), envp.as_ptr()) });
    unreachable!()
}

/// Waits for the child; its exit code.
pub fn end(child: i64) -> c_int {
    let mut status = 0;
    // SAFETY: one integer of ours is written.
    must(c"wait", unsafe { waitpid(child as c_int, &mut status, 0) });
    status >> 8
}
