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
use super::finish::{self, counts_itself};
use super::fork::{self, Seat, Side};
use super::talk::{self, Attendant, Launched, Talk};
use super::wire::{Message, Wire};

/// Moves a process to its cgroup.
type Attach<'a> = &'a dyn Fn(Pid) -> Result<()>;

/// The input of [`exec`].
pub struct Request<'a> {
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
    /// Whether [`Attendant::settle`] has to succeed before the program may run.
    pub settle_first: bool,
}

/// Starts another process in a container, and returns when its program runs.
pub fn exec(mut request: Request<'_>, attendant: &mut dyn Attendant) -> Result<Launched> {
    let (wire, child_wire) = Wire::pair()?;
    request.process.apply_initial_affinity().phase("process")?;
    let outside = request.own_pid_namespace;
    let notifies = request.notifies();
    let awaited = request.settle_first || request.process.limits_successor();
    // Without an intermediate process the host acts on `Ready` instead of waiting for the successor.
    let announces = !request.process.limits_nothing() || (awaited && !outside);
    let seat = outside.then(Seat::new).transpose()?;
    let slate = finish::slate(request.seccomp.as_ref(), &child_wire)?;
    let (side, attach) = request.be_born();
    let (pid, pidfd) = match side.phase("namespaces")? {
        Side::Host(pid, pidfd) => (pid, pidfd),
        Side::Container => {
            drop(wire);
            request.enter((seat, slate), (announces, awaited), child_wire)
        }
    };
    ::log::trace!("process created");
    let talk = Talk::new(wire, Launched::new(pid, pidfd, seat), attendant, notifies);
    drop((child_wire, request.console.take()));
    finish::last_word(slate.as_ref(), request.see_through(talk, attach, (announces, awaited)))
}

fn settle(talk: &mut Talk<'_>) -> Result<()> {
    let outcome = talk.attendant.settle(talk.launched.pid);
    talk.blame(outcome)
}

impl<'a> Request<'a> {
    /// Drives the handshake, from the clone to execve.
    fn see_through(
        &self,
        mut talk: Talk<'_>,
        attach: Option<Attach<'_>>,
        (announces, awaited): (bool, bool),
    ) -> Result<Launched> {
        let outcome = attach.map_or(Ok(()), |attach| attach(talk.pid())).phase("cgroup");
        let give_pipes = |init| self.process.give_pipes(|user| user::host_user_of(init, user)).phase("process");
        let outcome = outcome.and_then(|()| self.user_namespace_of.map_or(Ok(()), give_pipes));
        talk.blame(outcome)?;
        if !announces {
            log::lend_stderr();
            talk.wire.let_go()?;
        }
        sys::exe::let_go();
        if !announces && !awaited && !self.notifies() {
            talk.sleep_till_end()?;
        }
        if announces {
            talk::expect(&mut talk, &Message::Ready)?;
            let outcome = self.limit(talk.pid());
            talk.blame(outcome)?;
            if !self.own_pid_namespace || !awaited {
                log::lend_stderr();
            }
            if !self.own_pid_namespace {
                settle(&mut talk)?;
            }
            talk.wire.let_go()?;
        }
        if !self.own_pid_namespace {
            return talk.until_program(false);
        }
        talk.until_successor()?;
        talk.deliver()?;
        if awaited {
            let outcome = self.process.limit_successor(talk.pid()).phase("process");
            talk.blame(outcome)?;
            log::lend_stderr();
            settle(&mut talk)?;
            talk.wire.let_go()?;
        }
        talk.until_program(true)
    }

    /// Whether its filter has a notify descriptor.
    fn notifies(&self) -> bool {
        self.seccomp.as_ref().is_some_and(Program::notifies)
    }

    /// Forks into the first cgroup that takes the process; the second value moves it to its own, if that is another.
    fn be_born(&self) -> (Result<Side>, Option<Attach<'a>>) {
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
            true => self.process.limit_intermediate(pid, counts_itself(&self.process, self.seccomp.as_ref())),
            false => self.process.limit(pid),
        }
        .phase("process")
    }

    /// The container's side of the fork.
    fn enter(self, (seat, slate): (Option<Seat>, Option<Slate>), (announces, awaited): (bool, bool), wire: Wire) -> ! {
        let Request { mut join, process, console, seccomp, .. } = self;
        if seat.is_some() {
            join.kinds |= ns::Flags::PID;
        }
        let (gate, start_container, alone) = (None, Hooks::default(), false);
        let state = Box::new(|_: &'static str, _| Vec::new());
        let script = Script {
            process,
            console,
            seccomp,
            gate,
            announces,
            awaited,
            start_container,
            state,
            seat,
            alone,
            slate,
            mute: false,
            blind: false,
        };
        child::run(Entrance::Join(join), script, wire)
    }
}
