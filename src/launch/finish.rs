//! The last steps of the container's half: from the word to go on to the program.
//!
//! Where a pid namespace is joined they are divided. The intermediate process sheds what is the host's, becomes the user
//! and loads the filter; then it makes the container's process, which is finished when it is born. What is left to that
//! one needs no right: a session of its own, the terminal, the gate, `startContainer` hooks, execve. The filter is loaded
//! by then, so it is asked beforehand whether these calls pass ([`Script::last_calls`]). A profile that forbids one of
//! them has the filter loaded after them, by the container's process itself: an order that still works, in which others
//! of that pid namespace can see a process without its filter and, without no_new_privs, with the runtime's capabilities
//! until then. It is non-dumpable, as always until its execve.

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

use super::child::{Script, pass_warnings, seclude};
use super::fork::Seat;
use super::listener;
use super::talk::Launched;
use super::wire::{self, Message, Wire};

/// A system call: its number, and the arguments that are known.
type Call = (libc::c_long, [u64; 6]);

/// Goes on when all is done that may need the host.
pub(super) fn finish(script: &mut Script, wire: &Wire) -> Result<Infallible> {
    script.shed(wire)?;
    if script.gate.is_some() && nix::unistd::getpid().as_raw() == 1 {
        sys::process::end_by_signals().context("install handlers for the signals that end init")?;
    }
    match script.seat.take() {
        Some(seat) => {
            // At the latest: for root it is from the start.
            seclude()?;
            seat.prepare()?;
            script.take(seat, wire)?;
        }
        None => {
            script.take_terminal()?;
            script.confine(wire)?;
            // The record is written: from now on the container lives without its creator.
            nix::sys::prctl::set_pdeathsig(None).context("clear the parent death signal")?;
            script.load_before_gate(wire)?;
            wire.send(&Message::Done)?;
        }
    }
    script.wait_and_start(wire)
}

impl Script {
    /// Makes the container's process, and is it when this returns.
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
        // At once, unless the word to go on could not be received then, or the host, who is to take a listener, is busy.
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

    /// Nothing of the host's stays in a process that others can look at: descriptors, arguments, environment. A trace is
    /// told to the host from here on, unless nobody else is here.
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

    /// From here on the container's own rights. Without no_new_privs a filter needs CAP_SYS_ADMIN, so it is loaded
    /// before the capabilities go.
    fn confine(&mut self, wire: &Wire) -> Result<()> {
        if !self.process.no_new_privs() {
            self.load_filter(wire)?;
        }
        self.become_user(wire)
    }

    fn become_user(&mut self, wire: &Wire) -> Result<()> {
        self.process.become_user().phase("process")?;
        // A change of ids may have made it dumpable (fs.suid_dumpable).
        sys::start::stay_secluded().context("become non-dumpable again")?;
        ::log::trace!("user and capabilities set");
        if self.mute { Ok(()) } else { pass_warnings(wire) }
    }

    fn load_filter(&mut self, wire: &Wire) -> Result<()> {
        let Some(filter) = self.seccomp.take() else { return Ok(()) };
        choose_call(&filter, wire);
        // That it has one means that this filter mutes it.
        self.mute = self.slate.is_some();
        self.blind = !Process::LOOKS.iter().all(|&call| filter.passes(call, [0; 6]));
        if filter.notifies() { listener::load(&filter, wire) } else { filter.load() }.phase("seccomp")?;
        ::log::trace!("seccomp filter loaded");
        Ok(())
    }

    /// A process at its gate has its filter, if that lets pass what comes after; or if it notifies, since the host reaches
    /// the agent until then and not beyond.
    fn load_before_gate(&mut self, wire: &Wire) -> Result<()> {
        let notifies = self.seccomp.as_ref().is_some_and(Program::notifies);
        let passes = self.gate.is_some() && (notifies || self.filter_passes(&self.gate_calls()));
        if passes { self.load_filter(wire) } else { Ok(()) }
    }

    /// Standard input is the container's terminal, where it has one.
    fn take_terminal(&self) -> Result<()> {
        if self.process.terminal().is_some() { console::control().phase("terminal") } else { Ok(()) }
    }

    /// Waits at the gate, where there is one; then what happens after `start`.
    fn wait_and_start(&mut self, wire: &Wire) -> Result<Infallible> {
        let Some(gate) = self.gate.take() else { return self.start(wire, || Ok(())) };
        ::log::trace!("waits at the exec fifo");
        let Err(error) = gate.wait().and_then(|()| self.start(wire, || gate.mark()));
        ::log::trace!("failed: {error}");
        gate.answer(&error);
        sys::pid::exit_now(1)
    }

    /// The filter that could not be loaded before, hooks, the program, right before which it is `announced`.
    fn start(&mut self, wire: &Wire, announced: impl FnOnce() -> Result<()>) -> Result<Infallible> {
        self.load_filter(wire)?;
        if !self.start_container.is_empty() {
            let state = (self.state)("created", nix::unistd::getpid().as_raw());
            let environment = self.process.environment();
            let environment = Some(&environment[..]);
            let surroundings = Surroundings { state: &state, environment, ..Surroundings::default() };
            self.start_container.run(Stage::StartContainer, &surroundings).phase("startContainer")?;
            // Not before: a hook need not read its state.
            sys::process::mind_broken_pipes().context("reset SIGPIPE")?;
        }
        announced()?;
        ::log::trace!("execve is next");
        if !self.mute {
            // Who asks for a trace can do without its last line.
            let _ = pass_warnings(wire);
        }
        Err(self.process.execute(!self.blind)).phase("start")
    }

    fn filter_passes(&self, calls: &[Call]) -> bool {
        self.seccomp.as_ref().is_none_or(|filter| calls.iter().all(|&(number, args)| filter.passes(number, args)))
    }

    /// How the container's process is made with the filter in place; `None` where that, or what comes after it, is
    /// forbidden or notified.
    fn early_filter(&self, wire: &Wire) -> Option<By> {
        let by = [By::Clone3, By::Clone].into_iter().find(|by| self.filter_passes(&[by.call()]))?;
        self.filter_passes(&self.last_calls(wire)).then_some(by)
    }

    /// What the intermediate process and the container's process call with the filter in place, but for the clone and
    /// execve, without which there is no program.
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

    /// What is called to receive the word to go on.
    fn wait_calls(&self, wire: &Wire) -> Vec<Call> {
        wire::RECEIVES.map(|flags| (libc::SYS_recvfrom, [number(wire.as_fd()), 0, 0, flags, 0, 0])).to_vec()
    }

    /// What is called from the gate on, and before it to say that this is next.
    fn gate_calls(&self) -> Vec<Call> {
        let Some(waiting) = &self.gate else { return Vec::new() };
        let mut calls = vec![(libc::SYS_sendto, [0, 0, 1, wire::SENDS, 0, 0])];
        calls.extend(waiting.calls());
        calls
    }
}

/// Whether a process with this filter can still send its messages, and whether it can write them.
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

/// Without no_new_privs: what [`finish`] calls with the filter in place once the user is become, but for the gate and
/// execve, in a process that ends after it.
pub(super) fn try_last_steps(filter: &Program, wire: &Wire) -> Result<()> {
    sys::start::seclude().context("become non-dumpable again")?;
    nix::sys::prctl::set_pdeathsig(None).context("clear the parent death signal")?;
    if mutes(filter, wire) { Err(Error::from(Errno::EPERM)).context("write to the sync socket") } else { Ok(()) }
}

/// What is called between the filter and the gate without no_new_privs.
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

/// Whether a process with this filter can say nothing any more, so that it needs a slate. `wire` is its end.
pub(super) fn mutes(filter: &Program, wire: &Wire) -> bool {
    speaks(filter, wire) == (false, false) && !filter.notifies()
}

/// A slate for a process whose filter mutes it.
pub(super) fn slate(filter: Option<&Program>, wire: &Wire) -> Result<Option<Slate>> {
    let needed = filter.is_some_and(|filter| mutes(filter, wire));
    needed.then(Slate::new).transpose().context("map memory for the error of the container process")
}

/// What has become of a process, which may have written down why it failed. Then it is ended.
pub(super) fn last_word(slate: Option<&Slate>, outcome: Result<Launched>) -> Result<Launched> {
    match slate.and_then(Slate::read) {
        Some(error) => Err(Error::decode(&error)),
        None => outcome,
    }
}

/// Whether the process that an intermediate one makes limits the number of its user's processes by itself: the kernel
/// refuses to make a process of a user who is at the limit, and the intermediate one counts.
pub(super) fn counts_itself(process: &Process, filter: Option<&Program>) -> bool {
    let passes = |(number, args)| filter.is_none_or(|filter| filter.passes(number, args));
    process.count_call().is_some_and(passes)
}

fn number(fd: BorrowedFd<'_>) -> u64 {
    fd.as_raw_fd() as u64
}
