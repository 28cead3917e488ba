//! The last steps of the container's half: from the host's last [`Message::Go`] to execve.
//!
//! If a pid namespace is joined, two processes share them. The intermediate process closes the host's descriptors, drops
//! privileges and loads the filter; then it clones the container's process. That one only needs unprivileged calls: setsid,
//! the terminal, the exec fifo, `startContainer` hooks, execve. As the filter is loaded by then, it is evaluated beforehand
//! for these calls ([`Script::last_calls`]). If a profile forbids one of them, the container's process loads the filter
//! itself, after them. Until then other processes of that pid namespace see a process without its filter and, without
//! no_new_privs, with the runtime's capabilities. It is non-dumpable, as always before execve.

use std::convert::Infallible;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::error::{Context, Error, Result};
use crate::hooks::{Stage, Surroundings};
use crate::log;
use crate::process::{Process, console};
use crate::seccomp::Program;
use crate::sys::clone::By;
use crate::sys::slate::Slate;
use crate::sys::{self, Errno};
use crate::trace;

use super::child::{Script, become_non_dumpable, pass_warnings};
use super::fork::Seat;
use super::listener;
use super::talk::Launched;
use super::wire::{self, Message, Wire};

/// A system call: its number, and the arguments that are known.
type Call = (libc::c_long, [u64; 6]);

/// Runs the steps that do not need the host.
pub(super) fn finish(script: &mut Script, wire: &Wire) -> Result<Infallible> {
    script.shed(wire)?;
    if script.gate.is_some() && nix::unistd::getpid().as_raw() == 1 {
        sys::process::end_by_signals().context("install handlers for the signals that end init")?;
    }
    match script.seat.take() {
        Some(seat) => {
            // A process of root is so from the start.
            become_non_dumpable()?;
            seat.prepare()?;
            script.take(seat, wire)?;
        }
        None => {
            script.take_terminal()?;
            script.confine(wire)?;
            // The record is written, so the container may outlive the runtime.
            nix::sys::prctl::set_pdeathsig(None).context("clear the parent death signal")?;
            script.load_before_gate(wire)?;
            wire.send(&Message::Done)?;
        }
    }
    script.wait_and_start(wire)
}

impl Script {
    /// Clones the container's process, in which alone this returns.
    fn take(&mut self, seat: Seat, wire: &Wire) -> Result<()> {
        let early = self.early_filter(wire);
        let counts = counts_itself(&self.process, self.seccomp.as_ref());
        let by = early.unwrap_or(By::Clone3);
        if early.is_some() {
            self.confine(wire)?;
            self.load_filter(wire)?;
        } else if self.process.no_new_privs() {
            self.become_user(wire)?;
        }
        seat.take(by).phase("namespaces")?;
        self.process.lead_session().phase("process")?;
        self.take_terminal()?;
        if counts {
            self.process.limit_own_count().phase("process")?;
        }
        let late = early.is_none() && !self.process.no_new_privs();
        // Before the wait, unless the filter would forbid to receive `Go`, or the host has to fetch a notify descriptor, for
        // which it is not ready yet.
        let last = self.awaited
            && (self.seccomp.as_ref().is_some_and(Program::notifies) || !self.filter_passes(&self.wait_calls(wire)));
        if late && !last {
            self.confine(wire)?;
        }
        if self.awaited {
            wire.wait_go()?;
        }
        if late && last {
            self.confine(wire)?;
        }
        self.load_before_gate(wire)?;
        if self.gate.is_some() { wire.send(&Message::Done) } else { Ok(()) }
    }

    /// Removes what other processes could read or use: descriptors, arguments and environment of the host. From here on the
    /// host writes trace marks, unless init is alone in its pid namespace.
    fn shed(&mut self, wire: &Wire) -> Result<()> {
        let mut kept: Vec<BorrowedFd<'_>> = vec![wire.as_fd()];
        if let Some(gate) = &self.gate {
            kept.extend(gate.fds());
        }
        if self.alone {
            kept.extend(trace::file());
        } else {
            trace::keep_back();
        }
        log::leave_stderr();
        sys::start::scrub();
        if self.start_container.is_empty() {
            sys::process::mind_broken_pipes().context("reset SIGPIPE")?;
        }
        self.process.close_descriptors(&kept).phase("process")
    }

    /// Restricts the process to the rights of the container. Without no_new_privs loading a filter needs CAP_SYS_ADMIN, so
    /// it comes before the change of capabilities (seccomp(2)).
    fn confine(&mut self, wire: &Wire) -> Result<()> {
        if !self.process.no_new_privs() {
            self.load_filter(wire)?;
        }
        self.become_user(wire)
    }

    fn become_user(&mut self, wire: &Wire) -> Result<()> {
        self.process.become_user().phase("process")?;
        // A change of ids resets it to fs.suid_dumpable (PR_SET_DUMPABLE(2const)).
        sys::start::stay_secluded().context("become non-dumpable again")?;
        ::log::trace!("user and capabilities set");
        if self.mute { Ok(()) } else { pass_warnings(wire) }
    }

    fn load_filter(&mut self, wire: &Wire) -> Result<()> {
        let Some(filter) = self.seccomp.take() else { return Ok(()) };
        choose_call(&filter, wire);
        // There is a slate only if this filter forbids to send.
        self.mute = self.slate.is_some();
        self.blind = !Process::LOOKS.iter().all(|&call| filter.passes(call, [0; 6]));
        if filter.notifies() { listener::load(&filter, wire) } else { filter.load() }.phase("seccomp")?;
        ::log::trace!("seccomp filter loaded");
        Ok(())
    }

    /// The filter is loaded before init waits, if it allows the calls that follow; or if it notifies, because the host can
    /// only reach the agent until then.
    fn load_before_gate(&mut self, wire: &Wire) -> Result<()> {
        let notifies = self.seccomp.as_ref().is_some_and(Program::notifies);
        let passes = self.gate.is_some() && (notifies || self.filter_passes(&self.gate_calls()));
        if passes { self.load_filter(wire) } else { Ok(()) }
    }

    /// Makes the terminal, if there is one, the controlling terminal.
    fn take_terminal(&self) -> Result<()> {
        if self.process.terminal().is_some() { console::control().phase("terminal") } else { Ok(()) }
    }

    /// Waits at the exec fifo, if there is one, and runs the steps after `start`.
    fn wait_and_start(&mut self, wire: &Wire) -> Result<Infallible> {
        let Some(gate) = self.gate.take() else { return self.start(wire, || Ok(())) };
        ::log::trace!("waits at the exec fifo");
        let Err(error) = gate.wait().and_then(|()| self.start(wire, || gate.mark()));
        ::log::trace!("failed: {error}");
        gate.answer(&error);
        sys::pid::exit_now(1)
    }

    /// Loads a filter that could not be loaded before, runs hooks, calls `announced`, and executes the program.
    fn start(&mut self, wire: &Wire, announced: impl FnOnce() -> Result<()>) -> Result<Infallible> {
        self.load_filter(wire)?;
        if !self.start_container.is_empty() {
            let state = (self.state)("created", nix::unistd::getpid().as_raw());
            let environment = self.process.environment();
            let environment = Some(&environment[..]);
            let surroundings = Surroundings { state: &state, environment, ..Surroundings::default() };
            self.start_container.run(Stage::StartContainer, &surroundings).phase("startContainer")?;
            // Late: a hook that does not read its state would be SIGPIPE here.
            sys::process::mind_broken_pipes().context("reset SIGPIPE")?;
        }
        announced()?;
        ::log::trace!("execve is next");
        if !self.mute {
            // At worst the last line of a trace is lost.
            let _ = pass_warnings(wire);
        }
        Err(self.process.execute(!self.blind)).phase("start")
    }

    fn filter_passes(&self, calls: &[Call]) -> bool {
        self.seccomp.as_ref().is_none_or(|filter| calls.iter().all(|&(number, args)| filter.passes(number, args)))
    }

    /// By which call the container's process is cloned with the filter loaded; `None` if the filter forbids or notifies
    /// that, or a call after it.
    fn early_filter(&self, wire: &Wire) -> Option<By> {
        let by = [By::Clone3, By::Clone].into_iter().find(|by| self.filter_passes(&[by.call()]))?;
        self.filter_passes(&self.last_calls(wire)).then_some(by)
    }

    /// What both processes call after the filter is loaded, except the clone and execve.
    fn last_calls(&self, wire: &Wire) -> Vec<Call> {
        let mut calls = vec![(libc::SYS_exit_group, [0; 6]), (libc::SYS_setsid, [0; 6])];
        if self.process.terminal().is_some() {
            calls.push((libc::SYS_ioctl, [0, libc::TIOCSCTTY, 0, 0, 0, 0]));
        }
        if self.awaited {
            calls.extend(self.wait_calls(wire));
        }
        calls.extend(self.gate_calls());
        calls
    }

    /// The calls that receive `Go`.
    fn wait_calls(&self, wire: &Wire) -> Vec<Call> {
        wire::RECEIVES.map(|flags| (libc::SYS_recvfrom, [number(wire.as_fd()), 0, 0, flags, 0, 0])).to_vec()
    }

    /// The calls that send `Done`, wait at the exec fifo, and write the reply.
    fn gate_calls(&self) -> Vec<Call> {
        let Some(waiting) = &self.gate else { return Vec::new() };
        let mut calls = vec![(libc::SYS_sendto, [0, 0, 1, wire::SENDS, 0, 0])];
        calls.extend(waiting.calls());
        calls
    }
}

/// Whether this filter allows to send messages by sendto(2), and whether by write(2).
fn speaks(filter: &Program, wire: &Wire) -> (bool, bool) {
    let socket = number(wire.as_fd());
    let sends = filter.passes(libc::SYS_sendto, [socket, 0, 1, wire::SENDS, 0, 0]);
    (sends, filter.passes(libc::SYS_write, [socket, 0, 1, 0, 0, 0]))
}

/// Before the filter is loaded: chooses the call by which messages are sent then.
pub(super) fn choose_call(filter: &Program, wire: &Wire) {
    if speaks(filter, wire) == (false, true) {
        wire.send_by_write();
    }
}

/// In a dry run without no_new_privs: what [`finish`] calls between the change of user and the exec fifo, with the filter
/// loaded.
pub(super) fn try_last_steps(filter: &Program, wire: &Wire) -> Result<()> {
    sys::start::seclude().context("become non-dumpable again")?;
    nix::sys::prctl::set_pdeathsig(None).context("clear the parent death signal")?;
    if mutes(filter, wire) { Err(Error::from(Errno::EPERM)).context("write to the sync socket") } else { Ok(()) }
}

/// The calls between the filter and the exec fifo without no_new_privs.
pub(super) const CALLS: [(&str, libc::c_long); 12] = [
    ("chdir", libc::SYS_chdir),
    ("prctl", libc::SYS_prctl),
    ("newfstatat", libc::SYS_newfstatat),
    ("fchown", libc::SYS_fchown),
    ("ioctl", libc::SYS_ioctl),
    ("setgroups", libc::SYS_setgroups),
    ("setresgid", libc::SYS_setresgid),
    ("setresuid", libc::SYS_setresuid),
    ("capset", libc::SYS_capset),
    ("getcwd", libc::SYS_getcwd),
    ("faccessat2", libc::SYS_faccessat2),
    ("sendto", libc::SYS_sendto),
];

/// Whether this filter forbids every way to send an error, so that a slate is needed. `wire` is the process' end.
pub(super) fn mutes(filter: &Program, wire: &Wire) -> bool {
    speaks(filter, wire) == (false, false) && !filter.notifies()
}

/// A slate for a process whose filter forbids to send.
pub(super) fn slate(filter: Option<&Program>, wire: &Wire) -> Result<Option<Slate>> {
    let needed = filter.is_some_and(|filter| mutes(filter, wire));
    needed.then(Slate::new).transpose().context("map memory for the error of the container process")
}

/// The outcome of a start, or the error that the process has left on its slate.
pub(super) fn last_word(slate: Option<&Slate>, outcome: Result<Launched>) -> Result<Launched> {
    match slate.and_then(Slate::read) {
        Some(error) => Err(Error::decode(&error)),
        None => outcome,
    }
}

/// Whether the cloned process sets its own RLIMIT_NPROC: with the limit set before, the kernel could refuse the clone, since
/// the intermediate process counts as well (getrlimit(2)).
pub(super) fn counts_itself(process: &Process, filter: Option<&Program>) -> bool {
    let passes = |(number, args)| filter.is_none_or(|filter| filter.passes(number, args));
    process.count_call().is_some_and(passes)
}

fn number(fd: BorrowedFd<'_>) -> u64 {
    fd.as_raw_fd() as u64
}
