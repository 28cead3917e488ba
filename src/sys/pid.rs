//! Processes by handle: pidfd, start time, and how one ended.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::fstat;
use nix::sys::statfs::{FsType, fstatfs};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::procfs::process as text;
use super::{Errno, Result};

/// A pidfd of a running or dead (not yet reaped) process, pidfd_open(2).
pub fn open(pid: Pid) -> Result<OwnedFd> {
    // SAFETY: two integers go in; the result is a new descriptor that nobody else owns.
    unsafe {
        let fd = Errno::result(libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0))?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

/// [`open`], or `None` when there is no such process: there, being unable to look is another matter.
pub fn find(pid: Pid) -> Result<Option<OwnedFd>> {
    match open(pid) {
        Ok(pidfd) => Ok(Some(pidfd)),
        // The latter two: the number is that of a thread by now.
        Err(Errno::ESRCH | Errno::EINVAL | Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Sends a signal by number (0 only asks), pidfd_send_signal(2).
pub fn signal(pidfd: BorrowedFd<'_>, number: i32) -> Result<()> {
    // SAFETY: integers and a null `siginfo`, which the kernel takes as "as kill(2) would fill it".
    let done = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), number, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    Errno::result(done).map(drop)
}

/// How many handles [`signal_listed`] holds at a time: far fewer than any limit on open files.
const BATCH: usize = 128;

/// Sends a signal by number to every process that `list` names. The list is asked again once the handles are open, and
/// who is not on it then gets no signal: a process may end after it was listed, and its pid be that of anybody. A process
/// behind a handle that is not reaped keeps its pid, so that the second list means the very one. `refused` is what to
/// return where the kernel does not open or signal a process; who has ended meanwhile is fine.
pub fn signal_listed<E>(
    number: i32,
    list: impl Fn() -> std::result::Result<Vec<Pid>, E>,
    refused: impl Fn(Pid, Errno) -> E,
) -> std::result::Result<(), E> {
    for batch in list()?.chunks(BATCH) {
        let mut handles = Vec::new();
        for &pid in batch {
            handles.extend(find(pid).map_err(|errno| refused(pid, errno))?.map(|handle| (pid, handle)));
        }
        let now = list()?;
        for (pid, handle) in handles.into_iter().filter(|(pid, _)| now.contains(pid)) {
            match signal(handle.as_fd(), number) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(refused(pid, errno)),
            }
        }
    }
    Ok(())
}

/// The process that a thread is of, proc_pid_status(5); `None` when it has ended.
pub fn process_of(thread: Pid) -> Option<Pid> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let pid = text::status(&status, "Tgid")?.parse().ok()?;
    Some(Pid::from_raw(pid))
}

/// A copy of a descriptor of another process, pidfd_getfd(2): close-on-exec. Needs the right to trace the process. EBADF: it
/// has none of this number; ESRCH: it has ended.
pub fn descriptor_of(pidfd: BorrowedFd<'_>, number: u32) -> Result<OwnedFd> {
    // SAFETY: three integers go in; the result is a new descriptor that nobody else owns.
    unsafe {
        let fd = Errno::result(libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0))?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

/// Waits until the process has ended; false when `milliseconds` passed first.
pub fn ended_within(pidfd: BorrowedFd<'_>, milliseconds: u16) -> Result<bool> {
    let mut fds = [PollFd::new(pidfd, PollFlags::POLLIN)];
    loop {
        match poll(&mut fds, PollTimeout::from(milliseconds)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Reaps our child and says how it ended.
pub fn reap(pidfd: BorrowedFd<'_>) -> Result<WaitStatus> {
    loop {
        match waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED) {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}

/// [`reap`] of a child that has ended, without waiting for more than a second. `None`: it is not ours to reap: whoever
/// traces it is told of its end first (ptrace(2)).
pub fn reap_dead(pidfd: BorrowedFd<'_>) -> Option<WaitStatus> {
    const TRIES: usize = 100;
    for _ in 0..TRIES {
        match waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG) {
            Ok(WaitStatus::StillAlive) => super::process::sleep_10_ms(),
            Err(Errno::EINTR) => {}
            Ok(status) => return Some(status),
            Err(_) => return None,
        }
    }
    None
}

/// What no other process has until the next boot: the inode of its pidfds in pidfs, Linux 6.9. `None` where the kernel has
/// no such; there all pidfds have the same one.
pub fn identity(pidfd: BorrowedFd<'_>) -> Result<Option<u64>> {
    /// `PID_FS_MAGIC`, linux/magic.h.
    const PIDFS: FsType = FsType(0x5049_4446);
    let is_pidfs = fstatfs(pidfd)?.filesystem_type() == PIDFS;
    if is_pidfs { fstat(pidfd).map(|stat| Some(stat.st_ino)) } else { Ok(None) }
}

/// Ends this process at once: no destructors, no atexit handlers. The only way out of a forked copy.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) never returns and runs no code of ours.
    unsafe { libc::_exit(code) }
}

/// What tells one process from a later one with the same pid: its start time in clock ticks since boot, field 22 of
/// proc_pid_stat(5). `None` when the process is gone or a zombie.
pub fn start_time(pid: Pid) -> Result<Option<u64>> {
    stat(pid).map(|stat| stat.map(|stat| stat.start_time))
}

/// Some fields of proc_pid_stat(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// 0 for one that cannot be seen from here.
    pub parent: i32,
    /// The pid of the session's leader.
    pub session: i32,
    /// Clock ticks since boot.
    pub start_time: u64,
}

/// Looks at a process; `None` when it is gone or a zombie.
///
/// # Errors
/// `ENOENT` where no procfs is mounted: nothing is known of any process then, least of all that it is gone.
pub fn stat(pid: Pid) -> Result<Option<Stat>> {
    // One read(2) of a buffer that holds it all: procfs makes the text anew for each.
    let mut buffer = [0; 1024];
    match fs::File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read(&mut buffer)) {
        Ok(length) => Ok(parse_stat(&buffer[..length])),
        Err(error) => match Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)) {
            Errno::ENOENT if !super::procfs::is_mounted() => Err(Errno::ENOENT),
            Errno::ENOENT | Errno::ESRCH => Ok(None),
            errno => Err(errno),
        },
    }
}

/// Whether a process is stopped by a signal or a tracer. False when nobody knows.
pub fn is_stopped(pid: Pid) -> bool {
    let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    text::Stat::parse(&stat).is_some_and(|stat| matches!(stat.field(3), Some("T" | "t")))
}

fn parse_stat(line: &[u8]) -> Option<Stat> {
    let stat = text::Stat::parse(line).filter(|stat| !stat.is_dead())?;
    Some(Stat { parent: stat.number(4)?, session: stat.number(6)?, start_time: stat.number(22)? })
}

/// The wait status of a process that has ended and that its parent has not asked about yet; `None` for any other, told by
/// the start time. Field 52 of proc_pid_stat(5), which is 0 for those who may not look.
pub fn status_of_zombie(pid: Pid, start_time: u64) -> Option<i32> {
    let line = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = text::Stat::parse(&line)?;
    let is_it = stat.field(3) == Some("Z") && stat.number(22) == Some(start_time);
    is_it.then(|| stat.number(52)).flatten()
}

/// How many clock ticks, the unit of [`Stat::start_time`], make a second.
pub fn ticks_per_second() -> u64 {
    // SAFETY: a number goes in and one comes out.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    ticks.max(1) as u64
}

/// The pid of the process behind a pidfd, as this process' pid namespace sees it.
pub fn of(pidfd: BorrowedFd<'_>) -> Option<Pid> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid = text::status(&info, "Pid")?.parse().ok()?;
    (pid > 0).then(|| Pid::from_raw(pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_start_time_is_known_and_a_missing_process_has_none() {
        assert!(start_time(Pid::this()).unwrap().is_some());
        assert_eq!(start_time(Pid::from_raw(i32::MAX)), Ok(None));
        assert!(find(Pid::from_raw(i32::MAX)).unwrap().is_none());
    }

    #[test]
    fn only_who_is_on_both_lists_is_signalled() {
        let mut children = [(); 3].map(|()| std::process::Command::new("sleep").arg("60").spawn().unwrap());
        let pids = children.each_ref().map(|child| Pid::from_raw(child.id() as i32));
        let asked = std::cell::Cell::new(0);
        let list = || {
            asked.set(asked.get() + 1);
            Ok::<_, (Pid, Errno)>(if asked.get() == 1 { pids[..2].to_vec() } else { pids[1..].to_vec() })
        };
        signal_listed(libc::SIGKILL, list, |pid, errno| (pid, errno)).unwrap();
        let ended = |pid, patience| ended_within(open(pid).unwrap().as_fd(), patience).unwrap();
        assert_eq!([ended(pids[1], 10_000), ended(pids[0], 0), ended(pids[2], 0)], [true, false, false]);
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn a_thread_is_of_its_process() {
        let thread = std::thread::spawn(|| process_of(nix::unistd::gettid())).join().unwrap();
        assert_eq!(thread, Some(Pid::this()));
        assert_eq!(process_of(Pid::from_raw(i32::MAX)), None);
    }

    #[test]
    fn the_parent_the_session_and_the_start_time_are_told_of_who_lives() {
        let line = b"7 (a) b) S 3 7 5 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 4242 1 2 3";
        assert_eq!(parse_stat(line), Some(Stat { parent: 3, session: 5, start_time: 4242 }));
        assert_eq!(parse_stat(b"7 (a) Z 3 7 5 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 4242 1 2 3"), None);
    }

    #[test]
    fn a_zombie_tells_how_it_ended() {
        let mut child = std::process::Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        let ended = ended_within(open(pid).unwrap().as_fd(), 10_000).unwrap();
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let start_time = text.rsplit(')').next().unwrap().split(' ').nth(20).unwrap().parse().unwrap();
        assert!(ended);
        assert_eq!(status_of_zombie(pid, start_time), Some(7 << 8));
        assert_eq!(status_of_zombie(pid, start_time + 1), None);
        child.wait().unwrap();
        assert_eq!(status_of_zombie(pid, start_time), None);
        assert_eq!(status_of_zombie(Pid::this(), super::start_time(Pid::this()).unwrap().unwrap()), None);
    }

    #[test]
    fn no_two_processes_have_one_identity() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let of = |pid| identity(open(pid).unwrap().as_fd()).unwrap();
        let (ours, theirs) = (of(Pid::this()), of(Pid::from_raw(child.id() as i32)));
        assert_eq!(ours, of(Pid::this()));
        assert!(ours.is_none() && theirs.is_none() || ours != theirs, "{ours:?} {theirs:?}");
        assert_eq!(identity(fs::File::open("/proc/self").unwrap().as_fd()), Ok(None));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_pidfd_names_its_process() {
        let fd = open(Pid::this()).unwrap();
        assert_eq!(of(fd.as_fd()), Some(Pid::this()));
        assert!(!ended_within(fd.as_fd(), 0).unwrap());
    }
}
