//! The host's half of `exec`: another process in a container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::unistd::Pid;

use crate::error::{Context, Error, Result};
use crate::hooks::Hooks;
use crate::log;
use crate::namespaces::user;
use crate::process::Process;
use crate::seccomp::Program;
use crate::sys::slate::Slate;
use crate::sys::{self, Errno, ns};

use super::child::{self, Entrance, Join, Script};
use super::finish::{self, limits_own_count};
use super::fork::{self, Side, SuccessorSlot};
use super::handshake::{self, Handshake, LaunchCallbacks, Launched};
use super::sync::{Message, SyncSocket};

/// Moves a process to its cgroup.
type Attach<'a> = &'a dyn Fn(Pid) -> Result<()>;

/// The input of [`exec`].
pub struct ExecLaunch<'a> {
    /// The container to join.
    pub join: Join,
    /// Whether the container has a pid namespace of its own.
    pub own_pid_namespace: bool,
    /// The pid of its first process, where it has a user namespace of its own.
    pub user_namespace_of: Option<Pid>,
    /// What the program is.
    pub process: Process,
    /// The directory of the cgroup to be born in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Opens another cgroup to be born in if the first takes no processes; `None`: there is no other.
    pub instead: Option<&'a dyn Fn() -> Result<OwnedFd>>,
    /// Moves it there if it may not be born there: a user needs write access to the common ancestor cgroup (cgroups(7)).
    pub attach: Option<Attach<'a>>,
    /// The socket that gets the terminal.
    pub console: Option<OwnedFd>,
    /// The filter of system calls.
    pub seccomp: Option<Program>,
    /// Whether [`LaunchCallbacks::publish`] has to succeed before the program may run.
    pub publish_first: bool,
}

/// Starts another process in a container, and returns when its program runs.
pub fn exec(mut request: ExecLaunch<'_>, callbacks: &mut dyn LaunchCallbacks) -> Result<Launched> {
    let (sync, child_sync) = SyncSocket::pair()?;
    request.process.apply_initial_affinity().phase("process")?;
    let outside = request.own_pid_namespace;
    let notifies = request.notifies();
    let waits_for_host = request.publish_first || request.process.has_rest_for_successor();
    // Without an intermediate process the host acts on `Ready` instead of waiting for the successor.
    let sends_ready = !request.process.has_no_limits() || (waits_for_host && !outside);
    let successor_slot = outside.then(SuccessorSlot::new).transpose()?;
    let slate = finish::slate(request.seccomp.as_ref(), &child_sync)?;
    let (side, attach) = request.fork_in_cgroup();
    let (pid, pidfd) = match side.phase("namespaces")? {
        Side::Host(pid, pidfd) => (pid, pidfd),
        Side::Container => {
            drop(sync);
            request.enter((successor_slot, slate), (sends_ready, waits_for_host), child_sync)
        }
    };
    ::log::trace!("process created");
    let handshake = Handshake::new(sync, Launched::new(pid, pidfd, successor_slot), callbacks, notifies);
    drop((child_sync, request.console.take()));
    finish::reason_on_slate(slate.as_ref(), request.drive(handshake, attach, (sends_ready, waits_for_host)))
}

fn publish(handshake: &mut Handshake<'_>) -> Result<()> {
    let outcome = handshake.callbacks.publish(handshake.launched.pid);
    handshake.prefer_exit_reason(outcome)
}

impl<'a> ExecLaunch<'a> {
    /// Drives the handshake, from the clone to execve.
    fn drive(
        &self,
        mut handshake: Handshake<'_>,
        attach: Option<Attach<'_>>,
        (sends_ready, waits_for_host): (bool, bool),
    ) -> Result<Launched> {
        let outcome = attach.map_or(Ok(()), |attach| attach(handshake.pid())).phase("cgroup");
        let chown_pipes = |init| self.process.chown_pipes(|user| user::host_user_of(init, user)).phase("process");
        let outcome = outcome.and_then(|()| self.user_namespace_of.map_or(Ok(()), chown_pipes));
        handshake.prefer_exit_reason(outcome)?;
        if !sends_ready {
            log::lend_stderr();
            handshake.sync.send_go()?;
        }
        sys::exe::close_parked();
        if !sends_ready && !waits_for_host && !self.notifies() {
            handshake.sleep_till_end()?;
        }
        if sends_ready {
            handshake::expect(&mut handshake, &Message::Ready)?;
            let outcome = self.limit(handshake.pid());
            handshake.prefer_exit_reason(outcome)?;
            if !self.own_pid_namespace || !waits_for_host {
                log::lend_stderr();
            }
            if !self.own_pid_namespace {
                publish(&mut handshake)?;
            }
            handshake.sync.send_go()?;
        }
        if !self.own_pid_namespace {
            return handshake.until_program(false);
        }
        handshake.until_successor()?;
        handshake.deliver_listener()?;
        if waits_for_host {
            let outcome = self.process.apply_rest_to_successor(handshake.pid()).phase("process");
            handshake.prefer_exit_reason(outcome)?;
            log::lend_stderr();
            publish(&mut handshake)?;
            handshake.sync.send_go()?;
        }
        handshake.until_program(true)
    }

    /// Whether its filter has a notify descriptor.
    fn notifies(&self) -> bool {
        self.seccomp.as_ref().is_some_and(Program::notifies)
    }

    /// Forks into the first cgroup that takes the process; the second value moves it to its own, if that is another.
    fn fork_in_cgroup(&self) -> (Result<Side>, Option<Attach<'a>>) {
        let side = fork::plain(ns::Flags::empty(), self.cgroup);
        match (side.as_ref().err().and_then(Error::errno), self.attach, self.instead) {
            (Some(Errno::EACCES), Some(attach), _) => (fork::plain(ns::Flags::empty(), None), Some(attach)),
            // EBUSY: it has controllers enabled for its children. EOPNOTSUPP: it is a domain below a threaded cgroup.
            (Some(Errno::EBUSY | Errno::EOPNOTSUPP), _, Some(instead)) => {
                let side = instead()
                    .phase("cgroup")
                    .and_then(|directory| fork::plain(ns::Flags::empty(), Some(directory.as_fd())));
                (side, None)
            }
            _ => (side, None),
        }
    }

    /// Resource limits and the like, of an intermediate process or of that of the program.
    fn limit(&self, pid: Pid) -> Result<()> {
        match self.own_pid_namespace {
            true => {
                self.process.apply_limits_to_intermediate(pid, limits_own_count(&self.process, self.seccomp.as_ref()))
            }
            false => self.process.apply_rlimits_and_sched(pid),
        }
        .phase("process")
    }

    /// The container's side of the fork.
    fn enter(
        self,
        (successor_slot, slate): (Option<SuccessorSlot>, Option<Slate>),
        (sends_ready, waits_for_host): (bool, bool),
        sync: SyncSocket,
    ) -> ! {
        let ExecLaunch { mut join, process, console, seccomp, .. } = self;
        if successor_slot.is_some() {
            join.kinds |= ns::Flags::PID;
        }
        let (exec_fifo, start_container, alone_in_pid_namespace) = (None, Hooks::default(), false);
        let state = Box::new(|_: &'static str, _| Vec::new());
        let script = Script {
            process,
            console,
            seccomp,
            exec_fifo,
            sends_ready,
            waits_for_host,
            start_container,
            state,
            successor_slot,
            alone_in_pid_namespace,
            slate,
            mute: false,
            blind: false,
        };
        child::run(Entrance::Join(join), script, sync)
    }
}
