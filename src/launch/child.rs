//! The container's half: a script of verbs that never returns. Its only exits are `execve` and `_exit`.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ::log::Level;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chroot, fchdir};

use crate::error::{Context, Error, Result};
use crate::hooks::Hooks;
use crate::log;
use crate::namespaces::user::{self, Ids};
use crate::process::Process;
use crate::process::console::{self, Pty};
use crate::seccomp::Program;
use crate::sys::procfs::Procfs;
use crate::sys::slate::Slate;
use crate::sys::{self, Errno, ns};
use crate::trace;

use super::build::Build;
use super::exec_fifo::ExecFifoEnd;
use super::finish;
use super::fork::SuccessorSlot;
use super::sync::{Message, SyncSocket};

/// What the container process has to do.
pub struct Script {
    /// What the program is.
    pub process: Process,
    /// The socket that gets the terminal.
    pub console: Option<OwnedFd>,
    /// The filter of system calls.
    pub seccomp: Option<Program>,
    /// Where to wait for `start`; `None` to go on at once.
    pub exec_fifo: Option<ExecFifoEnd>,
    /// Whether [`Message::Ready`] is sent: the host still has to act on the process, for example set its rlimits.
    pub sends_ready: bool,
    /// Whether the process that an intermediate process clones waits for the host.
    pub waits_for_host: bool,
    /// Hooks between the exec fifo and the program.
    pub start_container: Hooks,
    /// The state that hooks in the container's namespaces are given, for a status and pid.
    pub state: Box<dyn Fn(&'static str, i32) -> Vec<u8>>,
    /// In an intermediate process: where it publishes the pid of the process that it clones last.
    pub successor_slot: Option<SuccessorSlot>,
    /// Whether the pid namespace has no other processes than init and its descendants.
    pub alone_in_pid_namespace: bool,
    /// Shared memory for the error, if the seccomp filter forbids to send it.
    pub slate: Option<Slate>,
    /// Whether the loaded filter forbids all calls that send a message.
    pub mute: bool,
    /// Whether the loaded filter forbids the calls that find out why execve failed.
    pub blind: bool,
}

/// `create` and `exec` differ only in this.
pub enum Entrance {
    /// The container is built around its first process.
    Build(Box<Build>),
    /// The process joins a container that exists.
    Join(Join),
}

/// A container to join.
pub struct Join {
    /// A pidfd of init.
    pub init: OwnedFd,
    /// The namespaces to join through it. A pid namespace becomes that of future children.
    pub kinds: ns::Flags,
    /// Its root, where it has no mount namespace that brings that along.
    pub root: Option<OwnedFd>,
}

/// Runs the script.
pub fn run(entrance: Entrance, mut script: Script, sync: SyncSocket) -> ! {
    trace::enter_container();
    log::enter_container(script.exec_fifo.is_none() && script.console.is_none());
    ::log::trace!("born");
    // Before the host's half closes the last copy, which is the slow close (see `sys::exe`).
    sys::exe::close_parked();
    // Exit here: unwinding would run the caller's frames in a second process.
    let told = sync.panic_sender();
    std::panic::set_hook(Box::new(move |info| {
        told(&Error::new(format!("internal error: container setup panicked: {info}")));
        sys::pid::exit_now(70)
    }));
    let Err(error) = set_up(entrance, &mut script, &sync);
    ::log::trace!("failed: {error}");
    if !script.mute {
        let _ = pass_warnings(&sync);
    }
    tell(&script, &sync, &error);
    sys::pid::exit_now(1)
}

fn tell(script: &Script, sync: &SyncSocket, error: &Error) {
    match &script.slate {
        Some(slate) if script.mute => slate.write(&error.encode()),
        // If the host has died, nobody reads it.
        _ => drop(sync.send(&Message::Failed(error.encode()))),
    }
}

fn set_up(entrance: Entrance, script: &mut Script, sync: &SyncSocket) -> Result<Infallible> {
    set_pdeathsig_of_runtime()?;
    umask(Mode::empty());
    let Script { process, console, state, .. } = script;
    let procfs = match entrance {
        Entrance::Build(build) => build.enter(process, console.take(), state, sync)?,
        Entrance::Join(join) => join.enter(process, console.take())?,
    };
    process.prepare(procfs.as_ref().map(Procfs::dir)).phase("process")?;
    drop(procfs);
    ::log::trace!("process prepared");
    pass_warnings(sync)?;
    if script.sends_ready {
        sync.send(&Message::Ready)?;
    }
    sync.wait_for_go()?;
    ::log::trace!("go received");
    finish::finish(script, sync)
}

/// The process must not outlive the runtime before its record is written.
pub(super) fn set_pdeathsig_of_runtime() -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("set the parent death signal")
}

/// Makes this process non-dumpable.
pub(super) fn become_non_dumpable() -> Result<()> {
    sys::start::become_non_dumpable().context("become non-dumpable")
}

/// Becomes root of the new user namespace, whose maps are written, and makes there what only its root can
/// (`late`).
pub(super) fn become_root(instead: Ids, late: ns::Flags) -> Result<()> {
    user::become_root(instead)?;
    // A change of ids has made the kernel forget it.
    set_pdeathsig_of_runtime()?;
    if !late.is_empty() {
        sys::clone::unshare(late).context("unshare namespaces as root of the user namespace")?;
    }
    Ok(())
}

/// Sends held warnings, debug lines and trace marks to the host, which writes them.
pub(super) fn pass_warnings(sync: &SyncSocket) -> Result<()> {
    log::take_held().into_iter().try_for_each(|(level, line)| {
        sync.send(&if level == Level::Debug { Message::Step(line) } else { Message::Warning(line) })
    })?;
    trace::take_back().into_iter().try_for_each(|line| sync.send(&Message::Mark(line)))
}

impl Join {
    /// Joins the container.
    fn enter(self, process: &mut Process, console: Option<OwnedFd>) -> Result<Option<Procfs>> {
        // While our own files in /proc are ours.
        process.apply_from_parent(nix::unistd::getpid()).phase("process")?;
        become_non_dumpable()?;
        let wanted = process.needs_proc();
        let procfs = wanted.then(Procfs::open).transpose().context("mount a private procfs").phase("namespaces")?;
        join_container(self.init.as_fd(), self.kinds, process.ids())?;
        ::log::trace!("namespaces joined");
        if let Some(root) = self.root {
            fchdir(root).and_then(|()| chroot(".")).context("change the root directory").phase("mounts")?;
        }
        process.start_session(procfs.as_ref().map(Procfs::dir)).phase("process")?;
        if let Some(socket) = console {
            send_terminal(open_terminal(process).phase("terminal")?, socket)?;
        }
        Ok(procfs)
    }
}

/// Joins these namespaces of a container, as root of its user namespace if that is among them, or as
/// `instead` where it has none.
pub(super) fn join_container(init: BorrowedFd<'_>, kinds: ns::Flags, instead: Ids) -> Result<()> {
    let joins_user = kinds.contains(ns::Flags::USER);
    if joins_user {
        // Before the join: setgroups(2) may be denied inside (user_namespaces(7)).
        user::drop_groups().phase("namespaces")?;
    }
    let join = |kinds: ns::Flags| match kinds.is_empty() {
        true => Ok(()),
        false => sys::clone::setns(init, kinds).context("join the container's namespaces").phase("namespaces"),
    };
    match join(kinds) {
        // Only capabilities in the user namespace allow to join the others.
        Err(error) if joins_user && error.errno() == Some(Errno::EPERM) => {
            join(ns::Flags::USER)?;
            user::become_root(instead).phase("namespaces")?;
            join(kinds & !ns::Flags::USER)?;
        }
        joined => joined?,
    }
    if joins_user {
        user::become_root(instead).phase("namespaces")?;
        // A change of ids has made the kernel forget it.
        set_pdeathsig_of_runtime()?;
    }
    Ok(())
}

/// Sends the master side of the terminal to the console socket, and makes the other side the standard streams.
pub(super) fn send_terminal(pty: Pty, socket: OwnedFd) -> Result<()> {
    console::send(socket.as_fd(), &pty).phase("terminal")?;
    pty.into_stdio().phase("terminal")
}

/// Opens a terminal of the container's devpts.
pub(super) fn open_terminal(process: &Process) -> Result<Pty> {
    Pty::open(console::devpts()?.as_fd(), process.uid(), process.terminal().unwrap_or_default())
}
