//! A child that shares the caller's memory, clone3(2) with CLONE_VM: it starts without a copy of the page tables, which is
//! most of what a fork costs.
//!
//! The two must never use the memory at the same time, since the program is written for one thread. So the caller lets the
//! child go on alone until that has ended: see [`Sharing::wait`].

use std::ffi::{CStr, c_void};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::unistd::Pid;

use super::{Errno, Result};

/// Whether this architecture has it.
pub const CAN_SHARE: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

/// What the child may use for its stack; the lowest page is a guard.
const STACK: usize = 256 << 10;
const PAGE: usize = 4096;

/// clone3(2), Linux 5.7; libc's constant is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A child that shares our memory, and may still be using it.
pub struct Sharing {
    /// Its process id.
    pub pid: Pid,
    pidfd: OwnedFd,
    stack: Stack,
}

struct Stack(*mut c_void);

impl Stack {
    fn new() -> Result<Stack> {
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        // SAFETY: a new mapping where the kernel finds room, and a change of its upper part.
        unsafe {
            let place = libc::mmap(std::ptr::null_mut(), STACK, libc::PROT_NONE, kind, -1, 0);
            if place == libc::MAP_FAILED {
                return Err(Errno::last());
            }
            let stack = Stack(place);
            let access = libc::PROT_READ | libc::PROT_WRITE;
            Errno::result(libc::mprotect(place.byte_add(PAGE), STACK - PAGE, access))?;
            Ok(stack)
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: whoever ran on it has ended ([`Sharing::wait`]), or was never started.
        unsafe { libc::munmap(self.0, STACK) };
    }
}

extern "C" fn enter<F: FnOnce() -> i32>(work: *mut c_void) -> ! {
    // SAFETY: `start` gives the address of its closure, which nobody else takes: the caller keeps it as it is.
    let work = unsafe { ManuallyDrop::take(&mut *work.cast::<ManuallyDrop<F>>()) };
    super::pid::exit_now(work())
}

/// Makes a child that shares our memory, in `cgroup` when given, and does `work` in it, which gives the exit code. What
/// `work` owns is the child's; descriptors stay open on our side, too, since the table is copied, and have to be closed
/// by number.
///
/// The result must be waited for before anything else is done with memory that is not the caller's own stack: until
/// then neither the heap nor any static may be used on this side. ENOSYS: not on this architecture.
pub fn start<F: FnOnce() -> i32>(cgroup: Option<BorrowedFd<'_>>, work: &mut ManuallyDrop<F>) -> Result<Sharing> {
    if !CAN_SHARE {
        return Err(Errno::ENOSYS);
    }
    let stack = Stack::new()?;
    let mut pidfd: RawFd = -1;
    // SAFETY: `clone_args` is plain integers, for which all-zero is the documented default.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (libc::CLONE_VM | libc::CLONE_PIDFD) as u64;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    (args.stack, args.stack_size) = (stack.0 as u64, STACK as u64);
    if let Some(dir) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = dir.as_raw_fd() as u64;
    }
    // SAFETY: the structure lives for the call, the stack and the closure until the child has ended, for which the caller
    // waits; the entry never returns.
    let made = unsafe { clone_and_call(&raw mut args, (&raw mut *work).cast(), enter::<F>) };
    if made < 0 {
        return Err(Errno::from_raw(-made as i32));
    }
    // SAFETY: CLONE_PIDFD made the kernel store a new descriptor, which nobody else owns.
    Ok(Sharing { pid: Pid::from_raw(made as i32), pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) }, stack })
}

/// The call itself: in the child the stack is another one, so nothing of the caller's frame may be used there but what is
/// in registers. Gives the kernel's result, without errno, which is shared.
///
/// # Safety
/// The arguments are valid for clone3(2) with a stack of its own, and `entry(data)` may run there.
#[cfg(target_arch = "x86_64")]
unsafe fn clone_and_call(
    args: *mut libc::clone_args,
    data: *mut c_void,
    entry: extern "C" fn(*mut c_void) -> !,
) -> isize {
    let made: isize;
    // SAFETY: as the caller says. Only the parent leaves the block, and for that it is an ordinary system call.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => made,
            in("rdi") args,
            in("rsi") size_of::<libc::clone_args>(),
            in("r12") data,
            in("r13") entry,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    made
}

#[cfg(target_arch = "aarch64")]
unsafe fn clone_and_call(
    args: *mut libc::clone_args,
    data: *mut c_void,
    entry: extern "C" fn(*mut c_void) -> !,
) -> isize {
    let made: isize;
    // SAFETY: as above.
    unsafe {
        std::arch::asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x20",
            "blr x21",
            "brk #1",
            "2:",
            inlateout("x0") args as isize => made,
            in("x1") size_of::<libc::clone_args>(),
            in("x8") libc::SYS_clone3,
            in("x20") data,
            in("x21") entry,
        );
    }
    made
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn clone_and_call(
    _args: *mut libc::clone_args,
    _data: *mut c_void,
    _entry: extern "C" fn(*mut c_void) -> !,
) -> isize {
    -(Errno::ENOSYS as isize)
}

impl Sharing {
    /// Waits until the child has ended, and gives its handle, not reaped. Between two looks `patient` is asked how it is
    /// going, which may use nothing but its own stack and system calls that succeed; the child is killed when it says no.
    pub fn wait(self, pause: Duration, mut patient: impl FnMut() -> bool) -> OwnedFd {
        let Sharing { pidfd, stack, .. } = self;
        let mut waits = true;
        loop {
            let time = libc::timespec {
                tv_sec: pause.as_secs() as libc::time_t,
                tv_nsec: pause.subsec_nanos() as libc::c_long,
            };
            let mut polled = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            let time = if waits { &raw const time } else { std::ptr::null() };
            // SAFETY: the kernel reads and writes structures of this frame. A failure would write errno, which is shared;
            // the only one there is, EINTR, needs a handler for signals, and the program has none.
            let ready = unsafe { libc::ppoll(&raw mut polled, 1, time, std::ptr::null()) };
            if ready > 0 {
                break;
            }
            if waits && ready == 0 && !patient() {
                waits = false;
                // It is there until it is reaped, so this cannot fail.
                let _ = super::pid::signal(std::os::fd::AsFd::as_fd(&pidfd), libc::SIGKILL);
            }
        }
        drop(stack);
        pidfd
    }
}

/// Whether a cgroup is frozen, by its file cgroup.events, in which there is a line `frozen 1` then. For [`Sharing::wait`]:
/// it uses only its own stack. A file that cannot be read says no.
pub fn is_frozen(events: &CStr) -> bool {
    let mut text = [0u8; 256];
    // SAFETY: the kernel reads a terminated string, and writes at most as much as the array holds. A descriptor that it
    // made is closed by the one who got it.
    let length = unsafe {
        let file = libc::open(events.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        let length = libc::pread(file, text.as_mut_ptr().cast(), text.len(), 0);
        if file >= 0 {
            libc::close(file);
        }
        length
    };
    let text = &text[..usize::try_from(length).unwrap_or(0)];
    text.windows(8).any(|line| line == b"frozen 1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_shares_memory_leaves_what_it_wrote() {
        if !CAN_SHARE {
            return eprintln!("skipped: not on this architecture");
        }
        // In a process of its own: here are the threads of the test harness.
        let outcome = crate::sys::process::in_child(|| {
            let mut seen = vec![0u64; 4];
            let place = &raw mut seen;
            // SAFETY: nobody else uses the list until the child has ended.
            let mut work = ManuallyDrop::new(move || unsafe {
                (*place).iter_mut().for_each(|word| *word = 7);
                5
            });
            let sharing = start(None, &mut work).unwrap();
            let pid = sharing.pid;
            let pidfd = sharing.wait(Duration::from_secs(10), || false);
            let end = crate::sys::pid::reap(std::os::fd::AsFd::as_fd(&pidfd)).unwrap();
            assert!(matches!(end, nix::sys::wait::WaitStatus::Exited(of, 5) if of == pid), "{end:?}");
            i32::from(seen != [7; 4])
        });
        assert!(matches!(nix::sys::wait::waitpid(outcome, None), Ok(nix::sys::wait::WaitStatus::Exited(_, 0))));
    }

    #[test]
    fn one_that_takes_too_long_is_killed() {
        if !CAN_SHARE {
            return eprintln!("skipped: not on this architecture");
        }
        let outcome = crate::sys::process::in_child(|| {
            let mut work = ManuallyDrop::new(|| {
                std::thread::sleep(Duration::from_secs(1000));
                0
            });
            let pidfd = start(None, &mut work).unwrap().wait(Duration::from_millis(20), || false);
            let end = crate::sys::pid::reap(std::os::fd::AsFd::as_fd(&pidfd)).unwrap();
            i32::from(!matches!(end, nix::sys::wait::WaitStatus::Signaled(_, nix::sys::signal::Signal::SIGKILL, _)))
        });
        assert!(matches!(nix::sys::wait::waitpid(outcome, None), Ok(nix::sys::wait::WaitStatus::Exited(_, 0))));
    }
}
