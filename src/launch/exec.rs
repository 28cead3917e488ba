//! The host's half of `exec`: another process in a container.

use std::ffi::CString;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::unistd::Pid;

use crate::error::{Context, Error, Result};
use crate::hooks::Hooks;
use crate::process::Process;
use crate::seccomp::Program;
use crate::sys::{self, Errno};
use crate::trace;

use super::child::{self, Entrance, Join, Script};
use super::finish::counts_itself;
use super::fork::{self, Seat, Side};
use super::talk::{self, Attendant, Launched, Talk};
use super::wire::{Message, Wire};

/// After how many seconds a frozen cgroup is a reason to give up.
const FROZEN_LIMIT: u32 = 10;

/// Moves a process to its cgroup.
type Attach<'a> = &'a dyn Fn(Pid) -> Result<()>;

/// What an exec needs beside the container.
pub struct Request<'a> {
    /// The container to join.
    pub join: Join,
    /// Whether the container has a pid namespace of its own.
    pub own_pid_namespace: bool,
    /// What the program is.
    pub process: Process,
    /// The directory of the cgroup to be born in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The one to be born in where that takes no processes; `None`: nowhere else.
    pub instead: Option<&'a dyn Fn() -> Result<OwnedFd>>,
    /// Who moves it there when it may not be born there: a user has no right to that from outside of his own cgroups.
    pub attach: Option<Attach<'a>>,
    /// The socket that gets the terminal.
    pub console: Option<OwnedFd>,
    /// The filter of system calls.
    pub seccomp: Option<Program>,
    /// Whether [`Attendant::settle`] has to succeed before the program may run.
    pub settle_first: bool,
}

/// Makes another process in a container and sees it through to its program.
pub fn exec(request: Request<'_>, attendant: &mut dyn Attendant) -> Result<Launched> {
    let (wire, child_wire) = Wire::pair()?;
    request.process.apply_initial_affinity().phase("process")?;
    let outside = request.own_pid_namespace;
    let notifies = request.seccomp.as_ref().is_some_and(Program::notifies);
    let awaited = request.settle_first || request.process.limits_successor();
    // By whom there is no intermediate process, what is awaited is done when it says so.
    let announces = !request.process.limits_nothing() || (awaited && !outside);
    let mut parts = Some(Parts { request, announces, awaited, seat: None, wire: child_wire });
    if !announces
        && !awaited
        && let Some((launched, ended)) = share(&mut parts, attendant.cgroup_events())?
    {
        let talk = Talk::new(wire, launched, attendant, notifies);
        return if ended { finish(talk) } else { Err(talk.too_long()) };
    }
    let mut parts = parts.take().ok_or_else(|| Error::new("what the process is made of is gone"))?;
    let seat = outside.then(Seat::new).transpose()?;
    let (side, attach) = parts.request.be_born();
    let (pid, pidfd) = match side.phase("namespaces")? {
        Side::Host(pid, pidfd) => (pid, pidfd),
        Side::Container => {
            drop(wire);
            parts.enter(seat, false)
        }
    };
    ::log::trace!("process made");
    let mut talk = Talk::new(wire, Launched::new(pid, pidfd, seat), attendant, notifies);
    let request = &mut parts.request;
    drop((parts.wire, request.console.take()));
    let outcome = attach.map_or(Ok(()), |attach| attach(pid)).phase("cgroup");
    talk.blame(outcome)?;
    if !announces {
        talk.wire.let_go()?;
    }
    sys::exe::let_go();
    if !announces && !awaited && !notifies {
        talk.sleep_till_end()?;
    }
    if announces {
        talk::expect(&mut talk, &Message::Ready)?;
        let outcome = request.limit(pid);
        talk.blame(outcome)?;
        if !outside {
            settle(&mut talk)?;
        }
        talk.wire.let_go()?;
    }
    if !outside {
        return talk.until_program(false);
    }
    talk.until_successor()?;
    if awaited {
        let outcome = request.process.limit_successor(talk.pid()).phase("process");
        talk.blame(outcome)?;
        settle(&mut talk)?;
        talk.wire.let_go()?;
    }
    talk.until_program(true)
}

/// What is left when an intermediate process has ended that shared our memory.
fn finish(mut talk: Talk<'_>) -> Result<Launched> {
    talk.until_successor()?;
    talk.until_program(true)
}

fn settle(talk: &mut Talk<'_>) -> Result<()> {
    let outcome = talk.attendant.settle(talk.launched.pid);
    talk.blame(outcome)
}

/// What the container's side of the fork gets.
struct Parts<'a> {
    request: Request<'a>,
    announces: bool,
    awaited: bool,
    seat: Option<Seat>,
    wire: Wire,
}

/// An intermediate process that needs nothing of the host while it is at work shares its memory: that saves a copy of the
/// page tables, 6 % of an exec. Gives the process, which has ended, and whether by itself; `None` where it was not
/// made, and all is as before.
fn share(parts: &mut Option<Parts<'_>>, events: Option<CString>) -> Result<Option<(Launched, bool)>> {
    let Some(Parts { request, wire, seat, .. }) = parts.as_mut().filter(|parts| parts.request.can_share()) else {
        return Ok(None);
    };
    let cgroup = request.cgroup;
    // It closes them in its own table of descriptors, not in ours.
    let fds = [Some(wire.as_fd()), Some(request.join.init.as_fd()), request.console.as_ref().map(AsFd::as_fd)];
    let numbers = fds.map(|fd| fd.map(|fd| fd.as_raw_fd()));
    let [ours, its] = Seat::shared();
    *seat = Some(its);
    let arguments = sys::start::save();
    let mut work = ManuallyDrop::new(|| match parts.take() {
        Some(mut parts) => {
            let seat = parts.seat.take();
            parts.enter(seat, true)
        }
        None => 1,
    });
    let Ok(sharing) = fork::sharing(cgroup, &mut work) else { return Ok(None) };
    // From here to its end nothing is touched but this frame.
    sys::exe::let_go();
    let pid = sharing.pid;
    let (mut seconds, mut ended) = (0, true);
    let pidfd = sharing.wait(Duration::from_secs(1), || {
        seconds += 1;
        ended = seconds < FROZEN_LIMIT || !events.as_deref().is_some_and(sys::share::is_frozen);
        ended
    });
    sys::start::restore(&arguments);
    trace::leave_container();
    drop(std::panic::take_hook());
    match parts.take() {
        // It was ended before it began.
        Some(parts) => drop(parts),
        None => numbers.into_iter().flatten().for_each(|number| drop(sys::fd::received(number))),
    }
    Ok(Some((Launched::new(pid, pidfd, Some(ours)), ended)))
}

impl<'a> Request<'a> {
    /// The fork, in the first cgroup that takes the process, and who moves it to its own if that is another.
    fn be_born(&self) -> (Result<Side>, Option<Attach<'a>>) {
        let side = fork::plain(0, self.cgroup);
        match (side.as_ref().err().and_then(Error::errno), self.attach, self.instead) {
            (Some(Errno::EACCES), Some(attach), _) => (fork::plain(0, None), Some(attach)),
            // It has controllers on for those below it, or is not threaded where those above it are.
            (Some(Errno::EBUSY | Errno::EOPNOTSUPP), _, Some(instead)) => {
                let side = instead().phase("cgroup").and_then(|directory| fork::plain(0, Some(directory.as_fd())));
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

    /// Whether an intermediate process may share the runtime's memory: not with an agent, who may have to be told of it, or
    /// where it has to be moved to its cgroup; the kernel refuses a time namespace to one that shares (setns(2)); and
    /// without privilege the runtime's own files in /proc would become root's.
    fn can_share(&self) -> bool {
        self.own_pid_namespace
            && sys::share::CAN_SHARE
            && sys::start::is_secluded()
            && !trace::is_on()
            && self.join.kinds & libc::CLONE_NEWTIME as u64 == 0
            && !self.seccomp.as_ref().is_some_and(Program::notifies)
    }
}

impl Parts<'_> {
    /// The container's side of the fork.
    fn enter(self, seat: Option<Seat>, shares: bool) -> ! {
        let Parts { request, announces, awaited, wire, .. } = self;
        let Request { mut join, process, console, seccomp, .. } = request;
        if seat.is_some() {
            join.kinds |= libc::CLONE_NEWPID as u64;
        }
        let (gate, start_container, alone) = (None, Hooks::default(), false);
        let state = Box::new(|_: &'static str, _| Vec::new());
        let script =
            Script { process, console, seccomp, gate, announces, awaited, start_container, state, seat, alone, shares };
        child::run(Entrance::Join(join), script, wire)
    }
}
