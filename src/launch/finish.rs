//! The last steps of the container's half: from the host's last [`Message::Go`] to execve.
//!
//! If a pid namespace is joined, two processes share them. The intermediate process closes the host's descriptors, drops
//! privileges and loads the filter; then it clones the container process. That one only needs unprivileged calls: setsid,
//! the terminal, the exec fifo, `startContainer` hooks, execve. As the filter is loaded by then, it is evaluated beforehand
//! for these calls ([`Script::last_calls`]). If a profile forbids one of them, the container process loads the filter
//! itself, after them. Until then other processes of that pid namespace see a process without its filter and, without
//! no_new_privs, with the runtime's capabilities. It is non-dumpable, as always before execve.

use std::convert::Infallible;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::error::{Context, Error, Result};
use crate::hooks::{HookContext, Stage};
use crate::log;
use crate::process::{Process, console};
use crate::seccomp::Program;
use crate::sys::clone::By;
use crate::sys::slate::Slate;
use crate::sys::{self, Errno};
use crate::trace;

use super::child::{Script, become_non_dumpable, pass_warnings};
use super::fork::SuccessorSlot;
use super::handshake::Launched;
use super::listener;
use super::sync::{self, Message, SyncSocket};

/// A system call: its number, and the arguments that are known.
type Call = (libc::c_long, [u64; 6]);

/// Runs the steps that do not need the host.
pub(super) fn finish(script: &mut Script, sync: &SyncSocket) -> Result<Infallible> {
    script.shed_host_state(sync)?;
    if script.exec_fifo.is_some() && nix::unistd::getpid().as_raw() == 1 {
        sys::process::exit_on_signals().context("install handlers for the signals that end init")?;
    }
    match script.successor_slot.take() {
        Some(successor_slot) => {
            // A process of root is so from the start.
            become_non_dumpable()?;
            successor_slot.prepare()?;
            script.make_successor(successor_slot, sync)?;
        }
        None => {
            script.take_terminal()?;
            script.confine(sync)?;
            // The record is written, so the container may outlive the runtime.
            nix::sys::prctl::set_pdeathsig(None).context("clear the parent death signal")?;
            script.load_before_exec_fifo(sync)?;
            sync.send(&Message::Done)?;
        }
    }
    script.wait_and_start(sync)
}

impl Script {
    /// Clones the container process, in which alone this returns.
    fn make_successor(&mut self, successor_slot: SuccessorSlot, sync: &SyncSocket) -> Result<()> {
        let early = self.early_filter(sync);
        let counts = limits_own_count(&self.process, self.seccomp.as_ref());
        let by = early.unwrap_or(By::Clone3);
        if early.is_some() {
            self.confine(sync)?;
            self.load_filter(sync)?;
        } else if self.process.no_new_privs() {
            self.drop_privileges(sync)?;
        }
        successor_slot.make_successor(by).phase("namespaces")?;
        self.process.lead_session().phase("process")?;
        self.take_terminal()?;
        if counts {
            self.process.apply_own_nproc().phase("process")?;
        }
        let late = early.is_none() && !self.process.no_new_privs();
        // Before the wait, unless the filter would forbid to receive `Go`, or the host has to fetch a notify descriptor, for
        // which it is not ready yet.
        let last = self.waits_for_host
            && (self.seccomp.as_ref().is_some_and(Program::notifies) || !self.filter_allows(&self.wait_calls(sync)));
        if late && !last {
            self.confine(sync)?;
        }
        if self.waits_for_host {
            sync.wait_for_go()?;
        }
        if late && last {
            self.confine(sync)?;
        }
        self.load_before_exec_fifo(sync)?;
        if self.exec_fifo.is_some() { sync.send(&Message::Done) } else { Ok(()) }
    }

    /// Removes what other processes could read or use: descriptors, arguments and environment of the host. From here on the
    /// host writes trace marks, unless init is alone in its pid namespace.
    fn shed_host_state(&mut self, sync: &SyncSocket) -> Result<()> {
        let mut kept: Vec<BorrowedFd<'_>> = vec![sync.as_fd()];
        if let Some(exec_fifo) = &self.exec_fifo {
            kept.extend(exec_fifo.fds());
        }
        if self.alone_in_pid_namespace {
            kept.extend(trace::file());
        } else {
            trace::keep_back();
        }
        log::leave_stderr();
        sys::start::scrub();
        if self.start_container.is_empty() {
            sys::process::restore_sigpipe().context("reset SIGPIPE")?;
        }
        self.process.close_descriptors(&kept).phase("process")
    }

    /// Restricts the process to the rights of the container. Without no_new_privs loading a filter needs CAP_SYS_ADMIN, so
    /// it comes before the change of capabilities (seccomp(2)).
    fn confine(&mut self, sync: &SyncSocket) -> Result<()> {
        if !self.process.no_new_privs() {
            self.load_filter(sync)?;
        }
        self.drop_privileges(sync)
    }

    fn drop_privileges(&mut self, sync: &SyncSocket) -> Result<()> {
        self.process.drop_privileges().phase("process")?;
        // A change of ids resets it to fs.suid_dumpable (PR_SET_DUMPABLE(2const)).
        sys::start::stay_non_dumpable().context("become non-dumpable again")?;
        ::log::trace!("user and capabilities set");
        if self.mute { Ok(()) } else { pass_warnings(sync) }
    }

    fn load_filter(&mut self, sync: &SyncSocket) -> Result<()> {
        let Some(filter) = self.seccomp.take() else { return Ok(()) };
        choose_send_call(&filter, sync);
        // There is a slate only if this filter forbids to send.
        self.mute = self.slate.is_some();
        self.blind = !Process::LOOKS.iter().all(|&call| filter.allows(call, [0; 6]));
        if filter.notifies() { listener::load(&filter, sync) } else { filter.load() }.phase("seccomp")?;
        ::log::trace!("seccomp filter loaded");
        Ok(())
    }

    /// The filter is loaded before init waits, if it allows the calls that follow; or if it notifies, because the host can
    /// only reach the agent until then.
    fn load_before_exec_fifo(&mut self, sync: &SyncSocket) -> Result<()> {
        let notifies = self.seccomp.as_ref().is_some_and(Program::notifies);
        let allows = self.exec_fifo.is_some() && (notifies || self.filter_allows(&self.exec_fifo_calls()));
        if allows { self.load_filter(sync) } else { Ok(()) }
    }

    /// Makes the terminal, if there is one, the controlling terminal.
    fn take_terminal(&self) -> Result<()> {
        if self.process.terminal().is_some() { console::control().phase("terminal") } else { Ok(()) }
    }

    /// Waits at the exec fifo, if there is one, and runs the steps after `start`.
    fn wait_and_start(&mut self, sync: &SyncSocket) -> Result<Infallible> {
        let Some(exec_fifo) = self.exec_fifo.take() else { return self.start(sync, || Ok(())) };
        ::log::trace!("waits at the exec fifo");
        let Err(error) = exec_fifo.wait().and_then(|()| self.start(sync, || exec_fifo.reply_ok()));
        ::log::trace!("failed: {error}");
        exec_fifo.reply(&error);
        sys::pid::exit_now(1)
    }

    /// Loads a filter that could not be loaded before, runs hooks, calls `announced`, and executes the program.
    fn start(&mut self, sync: &SyncSocket, announced: impl FnOnce() -> Result<()>) -> Result<Infallible> {
        self.load_filter(sync)?;
        if !self.start_container.is_empty() {
            let state = (self.state)("created", nix::unistd::getpid().as_raw());
            let environment = self.process.environment();
            let environment = Some(&environment[..]);
            let hook_context = HookContext { state: &state, environment, ..HookContext::default() };
            self.start_container.run(Stage::StartContainer, &hook_context).phase("startContainer")?;
            // Late: a hook that does not read its state would be SIGPIPE here.
            sys::process::restore_sigpipe().context("reset SIGPIPE")?;
        }
        announced()?;
        ::log::trace!("execve is next");
        if !self.mute {
            // At worst the last line of a trace is lost.
            let _ = pass_warnings(sync);
        }
        Err(self.process.execute(!self.blind)).phase("start")
    }

    fn filter_allows(&self, calls: &[Call]) -> bool {
        self.seccomp.as_ref().is_none_or(|filter| calls.iter().all(|&(number, args)| filter.allows(number, args)))
    }

    /// By which call the container process is cloned with the filter loaded; `None` if the filter forbids or notifies
    /// that, or a call after it.
    fn early_filter(&self, sync: &SyncSocket) -> Option<By> {
        let by = [By::Clone3, By::Clone].into_iter().find(|by| self.filter_allows(&[by.call()]))?;
        self.filter_allows(&self.last_calls(sync)).then_some(by)
    }

    /// What both processes call after the filter is loaded, except the clone and execve.
    fn last_calls(&self, sync: &SyncSocket) -> Vec<Call> {
        let mut calls = vec![(libc::SYS_exit_group, [0; 6]), (libc::SYS_setsid, [0; 6])];
        if self.process.terminal().is_some() {
            calls.push((libc::SYS_ioctl, [0, libc::TIOCSCTTY, 0, 0, 0, 0]));
        }
        if self.waits_for_host {
            calls.extend(self.wait_calls(sync));
        }
        calls.extend(self.exec_fifo_calls());
        calls
    }

    /// The calls that receive `Go`.
    fn wait_calls(&self, sync: &SyncSocket) -> Vec<Call> {
        sync::RECEIVES.map(|flags| (libc::SYS_recvfrom, [number(sync.as_fd()), 0, 0, flags, 0, 0])).to_vec()
    }

    /// The calls that send `Done`, wait at the exec fifo, and write the reply.
    fn exec_fifo_calls(&self) -> Vec<Call> {
        let Some(waiting) = &self.exec_fifo else { return Vec::new() };
        let mut calls = vec![(libc::SYS_sendto, [0, 0, 1, sync::SENDS, 0, 0])];
        calls.extend(waiting.calls());
        calls
    }
}

/// Whether this filter allows to send messages by sendto(2), and whether by write(2).
fn allowed_sends(filter: &Program, sync: &SyncSocket) -> (bool, bool) {
    let socket = number(sync.as_fd());
    let sends = filter.allows(libc::SYS_sendto, [socket, 0, 1, sync::SENDS, 0, 0]);
    (sends, filter.allows(libc::SYS_write, [socket, 0, 1, 0, 0, 0]))
}

/// Before the filter is loaded: chooses the call by which messages are sent then.
pub(super) fn choose_send_call(filter: &Program, sync: &SyncSocket) {
    if allowed_sends(filter, sync) == (false, true) {
        sync.switch_to_write();
    }
}

/// In a dry run without no_new_privs: what [`finish`] calls between the change of user and the exec fifo, with the filter
/// loaded.
pub(super) fn try_last_steps(filter: &Program, sync: &SyncSocket) -> Result<()> {
    sys::start::become_non_dumpable().context("become non-dumpable again")?;
    nix::sys::prctl::set_pdeathsig(None).context("clear the parent death signal")?;
    if forbids_sending(filter, sync) {
        Err(Error::from(Errno::EPERM)).context("write to the sync socket")
    } else {
        Ok(())
    }
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

/// Whether this filter forbids every way to send an error, so that a slate is needed. `sync` is the process' end.
pub(super) fn forbids_sending(filter: &Program, sync: &SyncSocket) -> bool {
    allowed_sends(filter, sync) == (false, false) && !filter.notifies()
}

/// A slate for a process whose filter forbids to send.
pub(super) fn slate(filter: Option<&Program>, sync: &SyncSocket) -> Result<Option<Slate>> {
    let needed = filter.is_some_and(|filter| forbids_sending(filter, sync));
    needed.then(Slate::new).transpose().context("map memory for the error of the container process")
}

/// The outcome of a start, or the error that the process has left on its slate.
pub(super) fn reason_on_slate(slate: Option<&Slate>, outcome: Result<Launched>) -> Result<Launched> {
    match slate.and_then(Slate::read) {
        Some(error) => Err(Error::decode(&error)),
        None => outcome,
    }
}

/// Whether the cloned process sets its own RLIMIT_NPROC: with the limit set before, the kernel could refuse the clone, since
/// the intermediate process counts as well (getrlimit(2)).
pub(super) fn limits_own_count(process: &Process, filter: Option<&Program>) -> bool {
    let allows = |(number, args)| filter.is_none_or(|filter| filter.allows(number, args));
    process.nproc_call().is_some_and(allows)
}

fn number(fd: BorrowedFd<'_>) -> u64 {
    fd.as_raw_fd() as u64
}
