//! Catching the processes that appear beside this one, as soon as they do.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The file in the container's root that ends a chase.
const END: &str = "/end";

/// Pids beyond the newest that are tried: a process may come and go unseen.
const AHEAD: i32 = 6;

/// After so many looks a process is one that stays, and is looked at less often.
const STAYS: u32 = 40;

/// After so long, too: the runtime gives up a process that stands still, and on a slow machine a look takes its time.
const HELD: Duration = Duration::from_secs(2);

/// How processes are caught.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Catch {
    /// By looking whether they are there.
    Look,
    /// By SIGSTOP, which comes before the first instruction of a process that is new.
    Stop,
    /// Every other one is stopped.
    Both,
}

impl Catch {
    /// `look`, `stop` or `both`.
    pub fn named(word: &str) -> Catch {
        match word {
            "look" => Catch::Look,
            "stop" => Catch::Stop,
            "both" => Catch::Both,
            other => panic!("probe: processes are not caught by {other}"),
        }
    }

    fn stops(self, pid: i32) -> bool {
        self == Catch::Stop || (self == Catch::Both && pid % 2 == 0)
    }

    /// Whether the process is there, and stops it if that is the way.
    pub fn finds(self, pid: i32) -> bool {
        let signal = self.stops(pid).then_some(Signal::SIGSTOP);
        kill(Pid::from_raw(pid), signal) != Err(Errno::ESRCH)
    }

    fn lets_go(self, pid: i32) {
        if self.stops(pid) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
        }
    }
}

/// What is to become of a process that was looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It is looked at again.
    Again,
    /// There is no more to see.
    Enough,
}

/// Says `ready`, and then calls `look` for each process that appears in this pid namespace, again and again, until there is
/// a file `/end` or the time is over. Pids are given in order, so the next ones are known before the processes are there.
pub fn chase(catch: Catch, seconds: u64, mut look: impl FnMut(i32) -> Then) {
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut newest = last_pid();
    let mut caught: Vec<(i32, u32, Instant)> = Vec::new();
    println!("ready");
    for sweep in 0_u64.. {
        for pid in newest + 1..=newest + AHEAD {
            if catch.finds(pid) {
                newest = pid;
                caught.insert(0, (pid, 0, Instant::now()));
            }
        }
        caught.retain_mut(|(pid, looks, since)| {
            *looks += 1;
            if (*looks > STAYS || since.elapsed() > HELD) && !sweep.is_multiple_of(500) {
                return true;
            }
            let there = catch.finds(*pid);
            let then = if there { look(*pid) } else { Then::Enough };
            catch.lets_go(*pid);
            then == Then::Again
        });
        if sweep.is_multiple_of(64) {
            let last = last_pid();
            if last > newest + AHEAD || last < newest {
                newest = last - 1;
            }
            if Path::new(END).exists() || Instant::now() > end {
                return;
            }
        }
    }
}

/// The newest pid of this pid namespace, which stands at the end of `/proc/loadavg`.
fn last_pid() -> i32 {
    let text = fs::read_to_string("/proc/loadavg").expect("read /proc/loadavg");
    text.split_whitespace().last().and_then(|word| word.parse().ok()).expect("a pid")
}

/// Which file or directory this is.
pub fn identity(path: &str) -> Result<(u64, u64), Errno> {
    let found = fs::metadata(path).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
    Ok((found.dev(), found.ino()))
}

/// Which program a process runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Runs {
    /// One of the container's.
    Ours,
    /// Another: the runtime's.
    Another,
    /// One that may not be looked at, as none of the container's own is.
    Hidden,
    /// None any more.
    None,
}

impl Runs {
    /// Whether the execve is still to come.
    pub fn is_before(self) -> bool {
        matches!(self, Runs::Another | Runs::Hidden)
    }
}

/// The programs of a container, which are those of every container of a test.
pub struct Programs([Result<(u64, u64), Errno>; 2]);

impl Programs {
    pub fn new() -> Programs {
        Programs(["/proc/self/exe", "/bin/busybox"].map(identity))
    }

    pub fn run_by(&self, pid: i32) -> Runs {
        match identity(&format!("/proc/{pid}/exe")) {
            Ok(found) if self.0.contains(&Ok(found)) => Runs::Ours,
            Ok(_) => Runs::Another,
            Err(Errno::EACCES | Errno::EPERM) => Runs::Hidden,
            Err(_) => Runs::None,
        }
    }
}
