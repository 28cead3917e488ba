//! The floor of an exec: the least kernel work that runs another program in a container, by hand and without any choice.
//!
//! `exec-floor PID CGROUP`: a handle of the container's init, its pid namespace for the next child, one clone3 into the
//! cgroup; there the other namespaces at once, and `/bin/true`; wait. No record, no rights taken away, no seccomp, no
//! check, no protection of the own binary: what `exec` of a runtime takes more than this is what `hack/bench --exec`
//! shows.
//!
//! `exec-floor PID CGROUP FILTER` loads as well what corten keeps of the container's seccomp profile (`seccomp.bpf` of its
//! state directory): to load a filter and to be judged by it is the kernel's work, which no runtime gets around.
#![no_main]

mod floors;

use std::ffi::{CString, c_char, c_int, c_long};

use floors::{become_true, born, end, must, place, syscall, words};

unsafe extern "C" {
    fn setns(fd: c_int, kinds: c_int) -> c_int;
    fn atoi(text: *const c_char) -> c_int;
}

const SYS_PIDFD_OPEN: c_long = 434;
const SYS_SECCOMP: c_long = if cfg!(target_arch = "x86_64") { 317 } else { 277 };
const SET_MODE_FILTER: c_int = 1;
const NEW_PID: c_int = 0x2000_0000;
const NEW_NS_CGROUP_UTS_IPC_NET: c_int = 0x0002_0000 | 0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x4000_0000;

#[unsafe(no_mangle)]
extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    let mut words = words(argc, argv);
    let filter = (words.len() == 3).then(|| read(&words.remove(2)));
    let [pid, cgroup] = &words[..] else { panic!("usage: exec-floor PID CGROUP [FILTER]") };
    // SAFETY: a C string, two numbers.
    let init = must(c"pidfd_open", unsafe { syscall(SYS_PIDFD_OPEN, atoi(pid.as_ptr()), 0) }) as c_int;
    let place = place(cgroup);
    // SAFETY: two numbers.
    must(c"setns", unsafe { setns(init, NEW_PID) });
    let child = born(0, place);
    if child == 0 {
        // SAFETY: two numbers.
        must(c"setns", unsafe { setns(init, NEW_NS_CGROUP_UTS_IPC_NET) });
        if let Some((flags, program)) = filter {
            load(flags, &program);
        }
        become_true();
    }
    end(child)
}

/// The flags of a recorded filter, and its program: their number, then instructions of eight bytes.
fn read(path: &CString) -> (u32, Vec<u64>) {
    let bytes = std::fs::read(path.to_str().expect("a path in UTF-8")).expect("the recorded filter");
    let number = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().expect("a number"));
    let (program, rest) = bytes[8..].as_chunks::<8>();
    assert!(rest.is_empty() && number(4) as usize == program.len(), "a filter of one part");
    (number(0), program.iter().map(|instruction| u64::from_ne_bytes(*instruction)).collect())
}

fn load(flags: u32, program: &[u64]) {
    // struct sock_fprog: a length of 16 bits, padded to the pointer.
    let ask = (program.len(), program.as_ptr());
    // SAFETY: the kernel reads the structure and the instructions.
    must(c"seccomp", unsafe { syscall(SYS_SECCOMP, SET_MODE_FILTER, flags, &raw const ask) });
}
