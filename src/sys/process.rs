//! What a process is made of beside its capabilities: limits, signals, working directory, descriptors, its end.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

use super::{Errno, Result};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal; real-time signals included, which nix's `Signal` does not know.
    Killed(i32),
}

impl Ended {
    /// The code with which the runtime ends after a process that ended like this: 128 and the signal, as shells do.
    pub fn exit_code(self) -> u8 {
        match self {
            Ended::Exited(code) => code as u8,
            Ended::Killed(signal) => 128 + signal as u8,
        }
    }
}

/// Makes the kernel kill the program of a command when this process dies (PR_SET_PDEATHSIG(2const)), unless the program
/// gains privileges by its execve.
pub fn set_pdeathsig_of(command: &mut Command) {
    let us = Pid::this();
    let bind = move || {
        // Only a seccomp filter can refuse it, which is no reason to fail.
        let bound = set_pdeathsig(Signal::SIGKILL).is_ok();
        // The runtime may have died before; the child then has another parent.
        if bound && getppid() != us { Err(Errno::ESRCH.into()) } else { Ok(()) }
    };
    // SAFETY: between fork and exec only two system calls are made and integers compared; nothing is allocated: an io::Error
    // made from an errno holds just the number.
    unsafe { command.pre_exec(bind) };
}

/// Sets one resource limit of another process (prlimit(2)). `resource` is `RLIMIT_*`.
pub fn set_limit(pid: Pid, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let nothing: *mut libc::rlimit64 = std::ptr::null_mut();
    // SAFETY: the kernel reads one `rlimit64` from a live local and, with a null pointer, writes none.
    let done = unsafe { libc::syscall(libc::SYS_prlimit64, pid.as_raw(), resource, &raw const limit, nothing) };
    Errno::result(done).map(drop)
}

/// One resource limit of another process: soft and hard.
pub fn limit(pid: Pid, resource: u32) -> Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let nothing: *const libc::rlimit64 = std::ptr::null();
    // SAFETY: the kernel writes one `rlimit64` to a live local and, with a null pointer, reads none.
    let done = unsafe { libc::syscall(libc::SYS_prlimit64, pid.as_raw(), resource, nothing, &raw mut limit) };
    Errno::result(done).map(|_| (limit.rlim_cur, limit.rlim_max))
}

/// The size of the kernel's signal sets in bytes.
const SIGSET: usize = 8;

/// Unblocks all signals.
pub fn unblock_signals() -> Result<()> {
    set_mask(0)
}

/// Blocks all signals, including those that the C library reserves.
pub fn block_signals() -> Result<()> {
    set_mask(u64::MAX)
}

fn set_mask(mask: u64) -> Result<()> {
    let nothing: *mut u64 = std::ptr::null_mut();
    // SAFETY: the kernel reads eight bytes from a live local and, with a null pointer, writes none. The C library's
    // own signals serve its threads, and corten has none.
    let done = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, nothing, SIGSET) };
    Errno::result(done).map(drop)
}

/// Resets all signal dispositions to the default, except SIGPIPE (see [`restore_sigpipe`]): signals that the caller
/// ignores (nohup, shells) would stay ignored over execve (signal(7)).
pub fn reset_signal_dispositions() -> Result<()> {
    /// `struct sigaction` of the kernel: SIG_DFL, no flags, nothing blocked.
    const DEFAULT: [u64; 4] = [0; 4];
    let nothing: *mut u64 = std::ptr::null_mut();
    // 61 short calls (20 µs where a call takes 0.3); to read from procfs which ones are ignored takes as long.
    for signal in 1..=SIGSET as i32 * 8 {
        if !matches!(signal, libc::SIGKILL | libc::SIGSTOP | libc::SIGPIPE) {
            // SAFETY: the kernel reads a constant, and with a null pointer writes nothing. Default actions are no
            // functions of ours. The C library's wrapper would refuse its own two signals, which a caller can ignore too.
            Errno::result(unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), nothing, SIGSET) })?;
        }
    }
    Ok(())
}

/// The signals by which users and service managers end a process.
const ENDS: [libc::c_int; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// Makes these signals end this process with 128 and their number, until execve. The kernel does not deliver signals with
/// the default action to pid 1 of a namespace (pid_namespaces(7)).
pub fn exit_on_signals() -> Result<()> {
    extern "C" fn end(signal: libc::c_int) {
        // SAFETY: _exit(2) may be called in a handler, and does not return.
        unsafe { libc::_exit(128 + signal) }
    }
    let handler: extern "C" fn(libc::c_int) = end;
    for signal in ENDS {
        // SAFETY: the handler calls nothing but _exit(2), which is async-signal-safe, and touches no memory of ours.
        Errno::result(unsafe { libc::signal(signal, handler as libc::sighandler_t) } as isize)?;
    }
    Ok(())
}

/// Resets SIGPIPE to the default: it is ignored since the entry point, and a program would inherit that.
pub fn restore_sigpipe() -> Result<()> {
    // SAFETY: the default action is no function of ours that could run in a signal handler.
    Errno::result(unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) } as isize).map(drop)
}

/// A descriptor (close-on-exec, non-blocking) from which every signal is read; they have to be blocked as well.
pub fn signal_fd() -> Result<OwnedFd> {
    let mask = u64::MAX;
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: the kernel reads eight bytes from a live local.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const mask, SIGSET, flags) })?;
    // SAFETY: the call just made this descriptor for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Reads the number of one signal from [`signal_fd`]; `None` when none is waiting.
pub fn read_signal(signals: BorrowedFd<'_>) -> Result<Option<i32>> {
    let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
    match nix::unistd::read(signals, &mut info) {
        // `ssi_signo` is the first field, an u32.
        Ok(_) => Ok(Some(i32::from_ne_bytes([info[0], info[1], info[2], info[3]]))),
        Err(Errno::EAGAIN) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Reaps any child that has ended, without waiting; `None` if all still run. ECHILD: there is no child.
pub fn reap_any() -> Result<Option<(Pid, Ended)>> {
    // Children that do not send SIGCHLD count as well.
    const FLAGS: libc::c_int = libc::WEXITED | libc::WNOHANG | libc::__WALL;
    // SAFETY: an all-zero `siginfo_t` is a valid value of that plain C structure.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: waitid writes one `siginfo_t` to a live local.
    Errno::result(unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, FLAGS) })?;
    // SAFETY: waitid succeeded, so the structure is of the kind for SIGCHLD, or still all zero.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let how = if info.si_code == libc::CLD_EXITED { Ended::Exited(status) } else { Ended::Killed(status) };
    Ok(Some((Pid::from_raw(pid), how)))
}

/// getcwd(2) as the kernel answers it, without the NUL: a directory outside the root starts with `(unreachable)`, and
/// a removed one is ENOENT. The C library's function would walk the tree upwards instead.
pub fn working_directory(buffer: &mut [u8]) -> Result<&[u8]> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes to the slice.
    let length = unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) };
    let length = Errno::result(length)? as usize;
    Ok(&buffer[..length.saturating_sub(1)])
}

/// Closes every descriptor from `first` up, except those to keep, and others by their numbers.
pub fn close_all_from(first: u32, keep: &[BorrowedFd<'_>], others: &[u32]) -> Result<()> {
    let kept = keep.iter().map(|fd| fd.as_raw_fd() as u32).chain(others.iter().copied());
    let mut kept: Vec<u32> = kept.filter(|&fd| fd >= first).collect();
    kept.sort_unstable();
    let mut from = first;
    for fd in kept {
        if fd > from {
            close_range(from, fd - 1)?;
        }
        from = fd + 1;
    }
    close_range(from, u32::MAX)
}

fn close_range(from: u32, to: u32) -> Result<()> {
    // SAFETY: three numbers. Descriptors in the range that a value of ours still owns dangle from here on; the only
    // caller is the way to execve, past which no such value is used or dropped.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) }).map(drop)
}

/// Standard input, output and error.
pub fn stdio() -> [BorrowedFd<'static>; 3] {
    // SAFETY: the three are open for as long as the process lives: Rust's start-up opens /dev/null for those that are
    // not, and nothing of ours owns or closes them.
    [0, 1, 2].map(|number| unsafe { BorrowedFd::borrow_raw(number) })
}

/// Makes one of the standard streams another open file.
pub fn replace(stream: BorrowedFd<'static>, by: BorrowedFd<'_>) {
    // SAFETY: two numbers of open descriptors; the standard streams are owned by no value. It cannot fail (dup2(2)).
    let _ = unsafe { libc::dup2(by.as_raw_fd(), stream.as_raw_fd()) };
}

/// Sleeps for ten milliseconds; returns at once if a filter forbids it.
pub fn sleep_10_ms() {
    let time = libc::timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    // SAFETY: the kernel reads a live local and, with a null pointer, writes nothing.
    let _ = unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) };
}

/// Whether the caller has passed this descriptor: the runtime's are all close-on-exec, inherited ones are not.
pub fn is_inherited(number: u32) -> bool {
    // SAFETY: F_GETFD takes no argument and touches no memory; the number need not be open.
    let flags = unsafe { libc::fcntl(number as RawFd, libc::F_GETFD) };
    !super::exe::is_parked(number) && flags != -1 && flags & libc::FD_CLOEXEC == 0
}

/// Clears the close-on-exec flag of a descriptor, given by its number.
pub fn clear_close_on_exec(number: u32) -> Result<()> {
    // SAFETY: F_SETFD takes a number and touches no memory; only the close-on-exec mark changes.
    Errno::result(unsafe { libc::fcntl(number as RawFd, libc::F_SETFD, 0) }).map(drop)
}

/// Runs a test's code in a forked child, which ends with the code that it returns.
#[cfg(test)]
pub fn in_child(code: impl FnOnce() -> i32) -> Pid {
    // SAFETY: the child is a copy with this thread alone. It allocates, which glibc's fork makes safe by holding
    // malloc's locks, and leaves by _exit without running anything of the test harness.
    match unsafe { nix::unistd::fork() }.expect("fork") {
        nix::unistd::ForkResult::Parent { child } => child,
        nix::unistd::ForkResult::Child => {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(code)).unwrap_or(101);
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(outcome) }
        }
    }
}
