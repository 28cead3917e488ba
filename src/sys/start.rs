//! The start of the program, without that of the standard library.
//!
//! A command that enters a container starts twice (see `selfexe`), and what the standard library does before `main`
//! (it reads `/proc/self/maps` for its guard page, maps a stack for signals, names the thread) cost a fifth of a
//! start. Of all this a command line program needs the two things that are done here.

use std::ffi::c_char;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicPtr, Ordering};

use super::{Errno, Result};

/// Makes `main` of the binary what the C library calls, around a function that returns the exit code.
#[macro_export]
macro_rules! start_with {
    ($main:path) => {
        /// What the C library calls.
        #[cfg_attr(not(test), unsafe(export_name = "main"))]
        #[cfg_attr(test, allow(dead_code, reason = "the test harness starts itself"))]
        extern "C" fn start(_count: std::ffi::c_int, words: *const *const std::ffi::c_char) -> std::ffi::c_int {
            $crate::sys::start::begin(words);
            // Whoever prints has flushed, and nothing else waits for the end of the program.
            $crate::sys::pid::exit_now($main().into())
        }
    };
}

/// The part of the stack below the words that every start uses; the kernel maps 128 KiB there, execve(2).
const STACK: usize = 64 << 10;

static WORDS: AtomicPtr<*const c_char> = AtomicPtr::new(std::ptr::null_mut());

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// Before all else: descriptors 0 to 2 are open, so that no file of ours becomes standard output; a broken pipe is an
/// error instead of the end; and the ends of children are kept for us, whatever our caller does with its own (sigaction(2),
/// "NOTES").
pub fn begin(words: *const *const c_char) {
    WORDS.store(words.cast_mut(), Ordering::Relaxed);
    let stream = |fd| libc::pollfd { fd, events: 0, revents: 0 };
    let mut streams = [stream(0), stream(1), stream(2)];
    // SAFETY: the kernel writes to three live elements; `open` reads a literal and gives the lowest free number, which
    // is that of the closed stream; the signals' dispositions are constants of the kernel; what is asked for at last is
    // that pages of the stack are there, at once instead of one by one, and no harm is done where it can't be.
    unsafe {
        while libc::poll(streams.as_mut_ptr(), 3, 0) < 0 && Errno::last() == Errno::EINTR {}
        for stream in streams.iter().filter(|stream| stream.revents & libc::POLLNVAL != 0) {
            if libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) != stream.fd {
                libc::abort();
            }
        }
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        let end = words as usize & !4095;
        libc::madvise((end - STACK) as *mut _, STACK, libc::MADV_POPULATE_WRITE);
    }
}

/// The words that the kernel laid on the stack at our start, behind which come the variables.
pub fn words() -> Option<*const *const c_char> {
    let words = WORDS.load(Ordering::Relaxed).cast_const();
    (!words.is_null()).then_some(words)
}

/// Runs another program with the arguments and the environment that this one was started with.
pub fn run_anew(binary: BorrowedFd<'_>) -> Result<std::convert::Infallible> {
    let (fd, path) = (binary.as_raw_fd(), c"".as_ptr());
    let words = WORDS.load(Ordering::Relaxed);
    // SAFETY: the arrays are those that the kernel laid on the stack at our own start (`begin` comes first), and
    // nobody changes the environment; on success the call does not return.
    let done = unsafe { libc::syscall(libc::SYS_execveat, fd, path, words, environ, libc::AT_EMPTY_PATH) };
    Err(Errno::result(done).expect_err("it returns on failure only"))
}
