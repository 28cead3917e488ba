//! The floor of an exec: the least kernel work that runs another program in a container, by hand and without any choice.
//!
//! `exec-floor PID CGROUP`: a handle of the container's init, its pid namespace for the next child, one clone3 into the
//! cgroup; there the other namespaces at once, and `/bin/true`; wait. No record, no rights taken away, no seccomp, no
//! check, no protection of the own binary: what `exec` of a runtime takes more than this is what `hack/bench --exec`
//! shows.
#![no_main]

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_void};
use std::ptr::null;

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn open(path: *const c_char, flags: c_int, ...) -> c_int;
    fn setns(fd: c_int, kinds: c_int) -> c_int;
    fn execve(path: *const c_char, argv: *const *const c_char, envp: *const *const c_char) -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn atoi(text: *const c_char) -> c_int;
    fn perror(what: *const c_char);
    fn _exit(status: c_int) -> !;
}

const SYS_PIDFD_OPEN: c_long = 434;
const SYS_CLONE3: c_long = 435;
const O_PATH_DIRECTORY_CLOEXEC: c_int =
    0o10000000 | 0o2000000 | if cfg!(target_arch = "x86_64") { 0o200000 } else { 0o40000 };
const NEW_PID: c_int = 0x2000_0000;
const NEW_NS_CGROUP_UTS_IPC_NET: c_int = 0x0002_0000 | 0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x4000_0000;
const INTO_CGROUP: u64 = 0x2_0000_0000;
const SIGCHLD: u64 = 17;

/// Ends with the words of errno when a call says -1.
fn must(what: &CStr, result: impl Into<i64>) -> i64 {
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

fn program(init: c_int) -> ! {
    // SAFETY: two numbers.
    must(c"setns", unsafe { setns(init, NEW_NS_CGROUP_UTS_IPC_NET) });
    let argv = [c"true".as_ptr(), null()];
    let envp = [c"PATH=/bin".as_ptr(), null()];
    // SAFETY: both arrays end in null and outlive the call.
    must(c"/bin/true", unsafe { execve(c"/bin/true".as_ptr(), argv.as_ptr(), envp.as_ptr()) });
    unreachable!()
}

#[unsafe(no_mangle)]
extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    assert!(argc == 3, "usage: exec-floor PID CGROUP");
    // SAFETY: the C library hands over argc C strings that live as long as the process.
    let [pid, cgroup] = [1, 2].map(|at| CString::from(unsafe { CStr::from_ptr(*argv.add(at)) }));
    // SAFETY: a C string, two numbers.
    let init = must(c"pidfd_open", unsafe { syscall(SYS_PIDFD_OPEN, atoi(pid.as_ptr()), 0) }) as c_int;
    // SAFETY: a C string; the kernel copies it.
    let place = must(&cgroup, unsafe { open(cgroup.as_ptr(), O_PATH_DIRECTORY_CLOEXEC) });
    // SAFETY: two numbers.
    must(c"setns", unsafe { setns(init, NEW_PID) });

    // struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
    // set_tid_size, cgroup.
    let mut ask = [0u64; 11];
    ask[0] = INTO_CGROUP;
    ask[4] = SIGCHLD;
    ask[10] = place as u64;
    // SAFETY: without CLONE_VM or a stack of its own the child is a plain fork of a process with one thread.
    let child = must(c"clone3", unsafe { syscall(SYS_CLONE3, ask.as_ptr() as *const c_void, size_of_val(&ask)) });
    if child == 0 {
        program(init);
    }
    let mut status = 0;
    // SAFETY: one integer of ours is written.
    must(c"wait", unsafe { waitpid(child as c_int, &mut status, 0) });
    status >> 8
}
