//! The floor of an exec: the least kernel work that runs another program in a container, by hand and without any choice.
//!
//! `exec-floor PID CGROUP`: a handle of the container's init, its pid namespace for the next child, one clone3 into the
//! cgroup; there the other namespaces at once, and `/bin/true`; wait. No record, no rights taken away, no seccomp, no
//! check, no protection of the own binary: what `exec` of a runtime takes more than this is what `hack/bench --exec`
//! shows.
#![no_main]

mod floors;

use std::ffi::{c_char, c_int, c_long};

use floors::{become_true, born, end, must, place, syscall, words};

unsafe extern "C" {
    fn setns(fd: c_int, kinds: c_int) -> c_int;
    fn atoi(text: *const c_char) -> c_int;
}

const SYS_PIDFD_OPEN: c_long = 434;
const NEW_PID: c_int = 0x2000_0000;
const NEW_NS_CGROUP_UTS_IPC_NET: c_int = 0x0002_0000 | 0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x4000_0000;

#[unsafe(no_mangle)]
extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    let [pid, cgroup] = words(argc, argv, "exec-floor PID CGROUP");
    // SAFETY: a C string, two numbers.
    let init = must(c"pidfd_open", unsafe { syscall(SYS_PIDFD_OPEN, atoi(pid.as_ptr()), 0) }) as c_int;
    let place = place(&cgroup);
    // SAFETY: two numbers.
    must(c"setns", unsafe { setns(init, NEW_PID) });
    let child = born(0, place);
    if child == 0 {
        // SAFETY: two numbers.
        must(c"setns", unsafe { setns(init, NEW_NS_CGROUP_UTS_IPC_NET) });
        become_true();
    }
    end(child)
}
