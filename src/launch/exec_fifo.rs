//! The exec fifo, at which init waits between `create` and `start` (runc's `exec.fifo`), and a second one on which `start`
//! learns of a failed execve.
//!
//! Init holds the read end of `exec_fifo`: if it is dead, opening the fifo for writing fails at once (ENXIO). It also holds
//! `answer` open with close-on-exec, so execve or death closes it. Before the end of file `start` reads one mark if the
//! program runs, an error after or instead of it, and nothing if init died. If the filter forbids to write the error, init
//! has a shared mapping of a file for it until execve.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll, ppoll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::error::{Context, Error, Result, bail};
use crate::seccomp::Program;
use crate::sys::Errno;
use crate::sys::slate::{Slate, written};

const EXEC_FIFO: &str = "gate";
const ANSWER: &str = "answer";
const SLATE: &str = "answer.slate";

/// The mode of an exec fifo whose `start` has begun.
const MARKED: u32 = 0o200;

/// What init writes right before execve.
const REPLY_OK: u8 = b'x';

/// The host's side of the exec fifo.
pub struct ExecFifo;

/// Init's side: opened by `create` before the fork, and held by init alone.
pub struct ExecFifoEnd {
    exec_fifo: File,
    answer: File,
    slate: Option<Slate>,
}

impl ExecFifo {
    /// Makes the fifos and opens init's side. `filter` is the one that init will have.
    pub fn make(directory: &Path, filter: Option<&Program>) -> Result<ExecFifoEnd> {
        let open = |name: &str, write: bool| -> Result<File> {
            let path = directory.join(name);
            let what = || format!("create the exec fifo {}", path.display());
            mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).with_context(what)?;
            // Non-blocking, or opening a FIFO without a writer would wait. `answer` is opened for both: a writer alone
            // is refused (ENXIO) while no reader exists.
            OpenOptions::new().read(true).write(write).custom_flags(libc::O_NONBLOCK).open(&path).with_context(what)
        };
        let mut waiting = ExecFifoEnd { exec_fifo: open(EXEC_FIFO, false)?, answer: open(ANSWER, true)?, slate: None };
        let (call, args) = waiting.answer_call();
        if filter.is_some_and(|filter| !filter.allows(call, args)) {
            let path = directory.join(SLATE);
            let what = || format!("create {}", path.display());
            let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
            waiting.slate = Some(Slate::over(&file.with_context(what)?).with_context(what)?);
        }
        Ok(waiting)
    }

    /// The path of the exec fifo, which exists until `start`.
    pub fn path(directory: &Path) -> PathBuf {
        directory.join(EXEC_FIFO)
    }

    /// Whether init has not been started yet.
    ///
    /// A `start` marks the exec fifo before it writes and removes it afterwards. One that was killed in between leaves a
    /// marked fifo, and whether it has written is known by whether init still holds the other end.
    pub fn is_waiting(directory: &Path) -> Result<bool> {
        let path = ExecFifo::path(directory);
        let mode = match fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            exec_fifo => exec_fifo.context("stat the exec fifo")?.permissions().mode(),
        };
        if mode & 0o777 != MARKED {
            // Not opened: init would see a writer come and go, and from then on look at the exec fifo once a second only.
            return Ok(true);
        }
        match open_to_write(&path) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ENOENT)) => Ok(false),
            exec_fifo => exec_fifo.map(|_| true).context("stat the exec fifo"),
        }
    }

    /// Lets init continue, and waits until its program runs. Of several callers one succeeds; where that one is
    /// killed on its way, another can.
    pub fn open(directory: &Path) -> Result<()> {
        let path = ExecFifo::path(directory);
        // First: if init dies in between, a fifo opened after that would never reach its end.
        let answer = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(directory.join(ANSWER))
            .context("open the fifo for the reply of init")?;
        let exec_fifo = match open_to_write(&path) {
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
                bail!("cannot start a container that has stopped")
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(is_running()),
            exec_fifo => exec_fifo.context("open the exec fifo")?,
        };
        // The lock claims the start, and ends with whoever holds it.
        match exec_fifo.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(is_running()),
            Err(TryLockError::Error(error)) => return Err(error).context("lock the exec fifo"),
            Ok(()) => {}
        }
        // Whoever had it before may have come to the end.
        if exec_fifo.metadata().context("look at the exec fifo")?.nlink() == 0 {
            return Err(is_running());
        }
        exec_fifo.set_permissions(Permissions::from_mode(MARKED)).context("mark the exec fifo")?;
        match (&exec_fifo).write_all(b"0") {
            // Init died after the rename.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            done => done.context("write to the exec fifo")?,
        }
        fs::remove_file(&path).context("remove the exec fifo")?;
        drop(exec_fifo);
        // An encoded error begins with a digit.
        let mut answer = read_to_end(answer)?;
        if answer.is_empty() {
            answer = last_words(directory)?;
        }
        match &answer[..] {
            [REPLY_OK] => Ok(()),
            [] => bail!("the container process died before its program ran"),
            [REPLY_OK, error @ ..] | error => Err(Error::decode(error)),
        }
    }
}

/// The writing end, whose opening fails with ENXIO when nobody has the other.
fn open_to_write(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path)
}

fn is_running() -> Error {
    Error::new("cannot start an already running container")
}

/// The error that init has written to the mapped file, if there is one.
fn last_words(directory: &Path) -> Result<Vec<u8>> {
    match fs::read(directory.join(SLATE)) {
        Ok(bytes) => Ok(written(&bytes).unwrap_or_default()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).context("read the error of init"),
    }
}

/// Reads to the end of file, which is execve or the death of init.
fn read_to_end(mut answer: File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        // With no events requested, only the end wakes the poll.
        match poll(&mut [PollFd::new(answer.as_fd(), PollFlags::empty())], PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("wait for the reply of init"),
        }
        match answer.read_to_end(&mut bytes) {
            Ok(_) => return Ok(bytes),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error).context("read the reply of init"),
        }
    }
}

impl ExecFifoEnd {
    /// Waits for `start`. An end of file without a byte means that a `start` died in between: init waits on.
    pub fn wait(&self) -> Result<()> {
        let mut byte = [0];
        loop {
            // ppoll(2) on every architecture: the filter is asked about it beforehand.
            match ppoll(&mut [PollFd::new(self.exec_fifo.as_fd(), PollFlags::POLLIN)], None, None) {
                Ok(_) | Err(Errno::EINTR) => {}
                // A filter that was loaded before forbids it.
                Err(_) => crate::sys::process::sleep_10_ms(),
            }
            match nix::unistd::read(&self.exec_fifo, &mut byte) {
                Ok(1) => return Ok(()),
                Ok(_) => nix::unistd::sleep(1),
                Err(Errno::EAGAIN | Errno::EINTR) => continue,
                Err(errno) => return Err(errno).context("read the exec fifo"),
            };
        }
    }

    /// The descriptors, which must stay open in the container's half.
    pub fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.exec_fifo.as_fd(), self.answer.as_fd()]
    }

    /// What is called to wait and to answer, as a filter sees it.
    pub fn calls(&self) -> Vec<(libc::c_long, [u64; 6])> {
        let exec_fifo = self.exec_fifo.as_raw_fd() as u64;
        let waits = [(libc::SYS_ppoll, [0, 1, 0, 0, 0, 0]), (libc::SYS_read, [exec_fifo, 0, 1, 0, 0, 0])];
        waits.into_iter().chain(self.slate.is_none().then_some(self.answer_call())).collect()
    }

    fn answer_call(&self) -> (libc::c_long, [u64; 6]) {
        (libc::SYS_write, [self.answer.as_raw_fd() as u64, 0, 1, 0, 0, 0])
    }

    /// Tells the waiting `start` that execve is next, which closes the fifo.
    pub fn reply_ok(&self) -> Result<()> {
        self.send(&[REPLY_OK]).context("reply to start")
    }

    /// Tells the waiting `start` why the program does not run.
    pub fn reply(&self, error: &Error) {
        // If `start` has died, nobody reads it; init exits either way.
        let _ = self.send(&error.encode());
    }

    fn send(&self, words: &[u8]) -> std::io::Result<()> {
        let Some(slate) = &self.slate else { return (&self.answer).write_all(words) };
        slate.write(words);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> std::path::PathBuf {
        let directory = std::env::temp_dir().join(format!("corten-gate-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    #[test]
    fn a_gate_opens_once_and_a_lone_mark_is_success() {
        let directory = directory("once");
        let waiting = ExecFifo::make(&directory, None).unwrap();
        assert!(ExecFifo::is_waiting(&directory).unwrap());
        let init = std::thread::spawn(move || waiting.wait().and_then(|()| waiting.reply_ok()).unwrap());
        ExecFifo::open(&directory).unwrap();
        init.join().unwrap();
        assert!(!ExecFifo::is_waiting(&directory).unwrap());
        assert!(ExecFifo::open(&directory).unwrap_err().to_string().contains("already running"));
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn the_bytes_of_the_answer_are_the_error() {
        let directory = directory("error");
        let waiting = ExecFifo::make(&directory, None).unwrap();
        let init = std::thread::spawn(move || {
            waiting.wait().unwrap();
            waiting.reply_ok().unwrap();
            waiting.reply(&Error::from(Errno::ENOENT).context("run x"));
        });
        assert_eq!(ExecFifo::open(&directory).unwrap_err().to_string(), "run x: no such file or directory");
        init.join().unwrap();
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn an_init_that_dies_on_its_way_to_the_program_is_no_success() {
        let directory = directory("died");
        let waiting = ExecFifo::make(&directory, None).unwrap();
        let init = std::thread::spawn(move || waiting.wait().unwrap());
        assert!(ExecFifo::open(&directory).unwrap_err().to_string().contains("died before"));
        init.join().unwrap();
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_start_that_died_before_it_wrote_can_be_made_again() {
        let directory = directory("again");
        let waiting = ExecFifo::make(&directory, None).unwrap();
        fs::set_permissions(ExecFifo::path(&directory), Permissions::from_mode(MARKED)).unwrap();
        assert!(ExecFifo::is_waiting(&directory).unwrap());
        let init = std::thread::spawn(move || waiting.wait().and_then(|()| waiting.reply_ok()).unwrap());
        ExecFifo::open(&directory).unwrap();
        init.join().unwrap();
        assert!(!ExecFifo::is_waiting(&directory).unwrap());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_start_that_died_after_it_wrote_has_started() {
        let directory = directory("written");
        let waiting = ExecFifo::make(&directory, None).unwrap();
        let path = ExecFifo::path(&directory);
        fs::set_permissions(&path, Permissions::from_mode(MARKED)).unwrap();
        open_to_write(&path).unwrap().write_all(b"0").unwrap();
        waiting.wait().unwrap();
        assert!(ExecFifo::is_waiting(&directory).unwrap(), "init has not executed its program yet");
        drop(waiting);
        assert!(!ExecFifo::is_waiting(&directory).unwrap());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn only_one_start_at_a_time_has_the_exec_fifo() {
        let directory = directory("two");
        let _waiting = ExecFifo::make(&directory, None).unwrap();
        let other = open_to_write(&ExecFifo::path(&directory)).unwrap();
        other.try_lock().unwrap();
        assert!(ExecFifo::open(&directory).unwrap_err().to_string().contains("already running"));
        assert!(ExecFifo::is_waiting(&directory).unwrap());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_dead_init_is_known_at_once() {
        let directory = directory("dead");
        drop(ExecFifo::make(&directory, None).unwrap());
        assert!(ExecFifo::open(&directory).unwrap_err().to_string().contains("has stopped"));
        fs::remove_dir_all(directory).unwrap();
    }
}
