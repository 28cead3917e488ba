//! The tracer.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::table;

/// All stand still when nothing has happened for this long.
const QUIET: Duration = Duration::from_millis(4);
/// A program that has not ended by now hangs.
const LIMIT: Duration = Duration::from_secs(15);
/// The exit code for a program that hangs.
const HUNG: u8 = 98;

/// Namespaces and CLONE_PARENT: what makes a process of the container, and not a helper of the runtime.
const NEW: i64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_PARENT) as i64;

/// Calls that have no errors.
const NEVER_FAIL: &[i64] = &[
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigreturn,
    libc::SYS_umask,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
];

/// Calls without which no process can end or wait, and that do not fail where they are used.
const NEEDED: &[i64] = &[
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_close,
    libc::SYS_munmap,
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_futex,
    libc::SYS_poll,
];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Side {
    Host,
    Container,
    /// Made to join namespaces.
    Joiner,
    /// Hooks, and what a half has become by execve.
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Count,
    Kill,
    KillAfter,
    KillBefore,
    Fail(Errno),
    FailOn(Errno),
    Hold(&'static str),
}

struct Tracee {
    side: Side,
    number: i64,
    /// The error that the call being made is to return.
    fails: Option<Errno>,
    /// It stands still until the tracer lets it go on.
    held: bool,
}

struct Tracer {
    program: String,
    host: Pid,
    side: Side,
    point: usize,
    action: Action,
    tracees: HashMap<Pid, Tracee>,
    /// Those that have shown themselves before their parent did.
    strangers: Vec<Pid>,
    calls: BTreeMap<Side, Vec<i64>>,
    /// Whether the call was made that was waited for.
    reached: Option<i64>,
    /// The half to be killed once all stand still.
    doomed: Option<Pid>,
    signals: Vec<Signal>,
    /// How often a half has been held back.
    holds: usize,
}

pub fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [report, side, point, action, program @ ..] = words.as_slice() else {
        eprintln!("tracer REPORT SIDE NUMBER ACTION PROGRAM [ARGUMENT...]");
        return ExitCode::from(99);
    };
    let (side, init) = match side.as_str() {
        "host" => (Side::Host, None),
        "joiner" => (Side::Joiner, None),
        "container" => (Side::Container, None),
        pid => (Side::Container, Some(Pid::from_raw(pid.parse().expect("a side, or a pid")))),
    };
    let (host, mut go) = start(program);
    let mut tracer = Tracer {
        program: program.first().cloned().unwrap_or_default(),
        host,
        side,
        point: point.parse().expect("a number"),
        action: Action::parse(action),
        tracees: HashMap::new(),
        strangers: Vec::new(),
        calls: BTreeMap::new(),
        reached: None,
        doomed: None,
        signals: Vec::new(),
        holds: 0,
    };
    let wanted = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE;
    // Seized, not attached: then no child begins with a SIGSTOP that could outlive the tracer.
    ptrace::seize(host, wanted).expect("seize the program");
    if let Some(init) = init {
        ptrace::seize(init, wanted).expect("seize the container's process");
        ptrace::interrupt(init).expect("stop the container's process");
        tracer.tracees.insert(init, Tracee { side: Side::Container, number: 0, fails: None, held: false });
        // Its stop is seen by `follow`; only then does it make calls that count.
    }
    go.write_all(b"\n").expect("let the program go");
    drop(go);
    let (code, end) = tracer.follow();
    std::fs::write(report, tracer.report(&end)).expect("write the report");
    ExitCode::from(code)
}

/// A shell that waits for a line and then becomes the program.
#[allow(clippy::zombie_processes, reason = "the tracer waits for all of them")]
fn start(program: &[String]) -> (Pid, std::process::ChildStdin) {
    let script = "read -r line; exec \"$@\" </dev/null";
    let mut shell = Command::new("/bin/sh")
        .args(["-c", script, "sh"])
        .args(program)
        .stdin(Stdio::piped())
        .spawn()
        .expect("start a shell");
    let go = shell.stdin.take().expect("a pipe");
    (Pid::from_raw(shell.id() as i32), go)
}

impl Action {
    fn parse(text: &str) -> Action {
        let errno = |name: &str| match name {
            "EIO" => Errno::EIO,
            "ENOMEM" => Errno::ENOMEM,
            "EPERM" => Errno::EPERM,
            "EINTR" => Errno::EINTR,
            "ENOSPC" => Errno::ENOSPC,
            "ENOSYS" => Errno::ENOSYS,
            "EMFILE" => Errno::EMFILE,
            other => panic!("the tracer doesn't know {other}"),
        };
        match text.split_once('=') {
            Some(("fail", name)) => Action::Fail(errno(name)),
            Some(("fail-on", name)) => Action::FailOn(errno(name)),
            Some(("hold", file)) => Action::Hold(file.to_owned().leak()),
            _ => match text {
                "count" => Action::Count,
                "kill" => Action::Kill,
                "kill-after" => Action::KillAfter,
                "kill-before" => Action::KillBefore,
                other => panic!("the tracer doesn't know {other}"),
            },
        }
    }
}

impl Tracer {
    /// Until the host's half has ended: its exit code, and how in words.
    fn follow(&mut self) -> (u8, String) {
        let began = Instant::now();
        let mut last = Instant::now();
        loop {
            // Without end while nothing hangs on the time, so that a program in hooks is not polled for.
            let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
            match waitpid(None, Some(flags)).expect("wait for the tracees") {
                WaitStatus::StillAlive => {
                    if last.elapsed() > QUIET {
                        self.at_rest();
                    }
                    if began.elapsed() > LIMIT {
                        self.give_up();
                        return (HUNG, "hung".to_owned());
                    }
                    std::thread::sleep(Duration::from_micros(30));
                    continue;
                }
                WaitStatus::Exited(pid, code) if pid == self.host => {
                    self.let_all_go();
                    return (code as u8, format!("exit {code}"));
                }
                WaitStatus::Signaled(pid, signal, _) if pid == self.host => {
                    self.let_all_go();
                    return (128 + signal as u8, format!("signal {signal}"));
                }
                WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _) => drop(self.tracees.remove(&pid)),
                WaitStatus::PtraceSyscall(pid) => self.at_call(pid),
                WaitStatus::PtraceEvent(pid, _, event) => self.at_event(pid, event),
                WaitStatus::Stopped(pid, signal) => {
                    self.signals.push(signal);
                    resume(pid, Some(signal));
                }
                _ => {}
            }
            last = Instant::now();
        }
    }

    /// Nobody has done anything for a while.
    fn at_rest(&mut self) {
        if let Some(pid) = self.doomed.take() {
            let _ = kill(pid, Signal::SIGKILL);
            return;
        }
        self.release();
    }

    fn release(&mut self) {
        for (pid, tracee) in &mut self.tracees {
            if std::mem::take(&mut tracee.held) {
                resume(*pid, None);
            }
        }
    }

    fn at_event(&mut self, pid: Pid, event: i32) {
        if event == Event::PTRACE_EVENT_EXEC as i32 && pid == self.host && !self.tracees.contains_key(&pid) {
            // What counts begins with the program, not with the shell before it.
            let runs = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
            if runs != std::fs::canonicalize(&self.program).ok() {
                let _ = ptrace::cont(pid, None);
                return;
            }
            let new = Tracee { side: Side::Host, number: 0, fails: None, held: false };
            self.tracees.insert(pid, new);
        } else if event == Event::PTRACE_EVENT_EXEC as i32 && pid != self.host {
            // The container's program, which is no business of ours.
            self.tracees.entry(pid).and_modify(|tracee| tracee.side = Side::Other);
        }
        let births = [Event::PTRACE_EVENT_FORK, Event::PTRACE_EVENT_VFORK, Event::PTRACE_EVENT_CLONE];
        if births.iter().any(|&birth| birth as i32 == event) {
            let child = Pid::from_raw(ptrace::getevent(pid).expect("the pid of a child") as i32);
            let side = if event == Event::PTRACE_EVENT_VFORK as i32 { Side::Other } else { self.side_of_child(pid) };
            let held = self.action == Action::KillBefore && side == Side::Container && self.side == Side::Host;
            let early = self.strangers.iter().position(|&stranger| stranger == child);
            self.tracees.insert(child, Tracee { side, number: 0, fails: None, held: held && early.is_some() });
            self.holds += usize::from(held);
            if let Some(at) = early {
                self.strangers.remove(at);
                if !held {
                    resume(child, None);
                }
            }
            if self.action == Action::KillBefore && side == Side::Container && self.side == Side::Container {
                self.tracees.entry(pid).and_modify(|parent| parent.held = true);
                return;
            }
        }
        // A child's first stop; it may come before the event of its parent.
        if event == libc::PTRACE_EVENT_STOP {
            match self.tracees.get_mut(&pid) {
                None => return self.strangers.push(pid),
                Some(tracee)
                    if self.action == Action::KillBefore
                        && self.side == Side::Host
                        && tracee.side == Side::Container
                        && tracee.number == 0 =>
                {
                    tracee.held = true;
                    return;
                }
                Some(_) => {}
            }
        }
        resume(pid, None);
    }

    fn side_of_child(&self, parent: Pid) -> Side {
        let Some(tracee) = self.tracees.get(&parent) else { return Side::Other };
        let called = [libc::SYS_clone3, libc::SYS_clone].contains(&tracee.number);
        if !called || tracee.side == Side::Container {
            return Side::Other;
        }
        // clone(2) has them in a register, clone3(2) in a structure.
        let flags = ptrace::getregs(parent).and_then(|regs| match tracee.number {
            libc::SYS_clone => Ok(regs.rdi as i64),
            _ => ptrace::read(parent, regs.rdi as ptrace::AddressType),
        });
        match flags.is_ok_and(|flags| flags & NEW != 0) {
            true => Side::Container,
            // Hooks are made by clone(2), and helpers of one that joins are none of it.
            false if tracee.number == libc::SYS_clone || tracee.side == Side::Joiner => Side::Other,
            false => Side::Joiner,
        }
    }

    fn at_call(&mut self, pid: Pid) {
        let Ok(info) = ptrace::syscall_info(pid) else { return };
        let Some(tracee) = self.tracees.get_mut(&pid) else { return resume(pid, None) };
        let Ok(mut regs) = ptrace::getregs(pid) else { return };
        if info.op == libc::PTRACE_SYSCALL_INFO_EXIT {
            if let Some(errno) = tracee.fails.take() {
                regs.rax = -(errno as i64) as u64;
                let _ = ptrace::setregs(pid, regs);
            }
            return resume(pid, None);
        }
        tracee.number = regs.orig_rax as i64;
        let calls = self.calls.entry(tracee.side).or_default();
        calls.push(tracee.number);
        let there = tracee.side == self.side && calls.len() == self.point;
        if there {
            self.reached = Some(tracee.number);
        }
        let beyond = tracee.side == self.side && calls.len() > self.point;
        match self.action {
            Action::Kill | Action::KillBefore if there => {
                let _ = kill(pid, Signal::SIGKILL);
                // The kernel ends it at once; what was held back goes on when it is seen to be dead.
                return;
            }
            Action::KillAfter if there => {
                self.doomed = Some(pid);
                return;
            }
            Action::Fail(errno) if there => fail(pid, tracee, regs, errno, false),
            Action::FailOn(errno) if there || beyond => fail(pid, tracee, regs, errno, true),
            Action::Hold(file) if there => hold(file),
            _ => {}
        }
        resume(pid, None);
    }

    fn let_all_go(&mut self) {
        for pid in self.tracees.keys().chain(&self.strangers) {
            // Those that run are let go by our end.
            let _ = ptrace::detach(*pid, None);
        }
    }

    fn give_up(&mut self) {
        for pid in self.tracees.keys() {
            let _ = kill(*pid, Signal::SIGKILL);
        }
    }

    fn report(&self, end: &str) -> String {
        let mut text = format!("end {end}\nreached {}\nheld {}\n", self.reached.is_some(), self.holds);
        if let Some(number) = self.reached {
            let _ = writeln!(text, "at {}", table::name(number));
        }
        let _ = writeln!(text, "signals {:?}", &self.signals[..self.signals.len().min(8)]);
        for (side, calls) in &self.calls {
            let names: Vec<String> = calls.iter().map(|&number| table::name(number)).collect();
            let word = format!("{side:?}").to_lowercase();
            let _ = writeln!(text, "{word} {}", names.join(" "));
        }
        text
    }
}

/// The call is replaced by none at all and returns the error, but for those that cannot be left out: a descriptor is
/// gone whatever close(2) returns, and an end is an end.
fn fail(pid: Pid, tracee: &mut Tracee, mut regs: libc::user_regs_struct, errno: Errno, lasting: bool) {
    if NEVER_FAIL.contains(&tracee.number) || (lasting && NEEDED.contains(&tracee.number)) {
        return;
    }
    tracee.fails = Some(errno);
    if tracee.number != libc::SYS_close {
        regs.orig_rax = u64::MAX;
        let _ = ptrace::setregs(pid, regs);
    }
}

/// Says that the call is reached, and waits for somebody to have taken notice.
fn hold(file: &str) {
    let began = Instant::now();
    std::fs::write(file, "").expect("make the file that tells");
    while std::fs::exists(file).is_ok_and(|there| there) && began.elapsed() < LIMIT {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A tracee that has been killed meanwhile needs no push.
fn resume(pid: Pid, signal: Option<Signal>) {
    let _ = ptrace::syscall(pid, signal);
}
