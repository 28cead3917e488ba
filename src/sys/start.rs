//! The startstart of the program: what has to be so before anything else runs, and the words that it was started with.

use std::ffi::c_char;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use super::{Errno, Result};

/// Makes a function that returns the exit code the program.
#[cfg(not(feature = "fast-start"))]
#[macro_export]
macro_rules! start_with {
    ($main:path) => {
        #[cfg_attr(test, allow(dead_code, reason = "the test harness starts itself"))]
        fn main() {
            $crate::sys::start::begin($crate::sys::start::find_words());
            $crate::sys::pid::exit_now($main().into())
        }
    };
}

/// The part of the stack below the words that every start uses; the kernel maps 128 KiB there, execve(2).
const STACK: usize = 64 << 10;

/// Arguments and environment together are never longer: the kernel's own limit on the stack for them, execve(2).
const AREA: usize = 6 << 20;

static NON_DUMPABLE: AtomicBool = AtomicBool::new(false);
static WORDS: AtomicPtr<*const c_char> = AtomicPtr::new(std::ptr::null_mut());

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// Makes a process of root non-dumpable, and with it all forks until execve (see [`become_non_dumpable`]). Opens `/dev/null` for closed
/// descriptors 0 to 2, so that no other file becomes standard output. Ignores SIGPIPE, so that a broken pipe is an error. Sets
/// SIGCHLD to its default: if the caller ignores it, children could not be waited for (sigaction(2), "NOTES").
pub fn begin(words: *const *const c_char) {
    WORDS.store(words.cast_mut(), Ordering::Relaxed);
    if nix::unistd::geteuid().is_root() {
        // It cannot fail (prctl(2)).
        let _ = become_non_dumpable();
    }
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

/// Makes this process non-dumpable: tracing it, or reading it by `/proc/PID`, needs CAP_SYS_PTRACE in the user namespace in
/// which the runtime was executed, whatever namespaces and ids the process has now (ptrace(2)). Its files in `/proc` then
/// belong to root, so an unprivileged runtime does this only when it does not need them any more. A change of ids resets it
/// to the sysctl fs.suid_dumpable, so it is called again after each.
pub fn become_non_dumpable() -> Result<()> {
    NON_DUMPABLE.store(true, Ordering::Relaxed);
    nix::sys::prctl::set_dumpable(false)
}

/// [`become_non_dumpable`] once more, if it was called before.
pub fn stay_non_dumpable() -> Result<()> {
    if NON_DUMPABLE.load(Ordering::Relaxed) { become_non_dumpable() } else { Ok(()) }
}

/// Arguments and environment as the kernel laid them side by side, and how much of that are arguments.
fn area() -> Option<(*mut [u8], usize)> {
    let words = words()?;
    // SAFETY: the kernel laid the words, the variables and the name of the program side by side at our start, in memory of
    // the stack.
    let (count, first, variables, end) = unsafe {
        let count = (0..).find(|&word| (*words.add(word)).is_null())?;
        (count, *words as usize, *words.add(count + 1) as usize, libc::getauxval(libc::AT_EXECFN) as usize)
    };
    if count == 0 || end <= first || end - first > AREA {
        return None;
    }
    let arguments = if variables > first && variables <= end { variables - first } else { end - first };
    Some((std::ptr::slice_from_raw_parts_mut(first as *mut u8, end - first), arguments))
}

/// Overwrites arguments and environment in memory with a title: every process that sees this one can read
/// `/proc/PID/cmdline`, and one that may trace it `environ`. Arguments and variables must not be read afterwards.
pub fn scrub() {
    const TITLE: &[u8] = b"corten init\0";
    let Some((area, arguments)) = area() else { return };
    // SAFETY: nobody else changes this memory, or has a reference to it: words are copied when they are read.
    let area = unsafe { &mut *area };
    area.fill(0);
    if arguments > TITLE.len() {
        area[..TITLE.len()].copy_from_slice(TITLE);
        // Without a NUL at its end the kernel shows the arguments up to the first one, and not all of them
        // (setproctitle(3)).
        area[arguments - 1] = b' ';
    }
}

/// The words, where the C library has not handed them over: they come before the variables (the System V ABI, "Initial
/// Stack and Register State"), which nobody has changed yet.
#[cfg(not(feature = "fast-start"))]
pub fn find_words() -> *const *const c_char {
    let count = std::env::args_os().len();
    // SAFETY: `environ` still points to the array that the kernel laid on the stack, behind the words and a null.
    unsafe { environ.sub(count + 1) }
}

/// The arguments that the kernel has put on the stack, followed by the environment.
pub fn words() -> Option<*const *const c_char> {
    let words = WORDS.load(Ordering::Relaxed).cast_const();
    (!words.is_null()).then_some(words)
}

/// Executes another program with the arguments and environment of this one.
pub fn reexec(binary: BorrowedFd<'_>) -> Result<std::convert::Infallible> {
    let (fd, path) = (binary.as_raw_fd(), c"".as_ptr());
    let words = WORDS.load(Ordering::Relaxed);
    // SAFETY: the arrays are those that the kernel laid on the stack at our own start (`begin` comes first), and
    // nobody changes the environment; on success the call does not return.
    let done = unsafe { libc::syscall(libc::SYS_execveat, fd, path, words, environ, libc::AT_EMPTY_PATH) };
    Err(Errno::result(done).expect_err("it returns on failure only"))
}
