//! The host's half: what is done for the container's process from outside, and the wait for its word.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::unistd::Pid;

use crate::cgroup::{self, Cgroup};
use crate::error::{Context, Error, Result, bail};
use crate::hooks::{Hooks, Stage, Surroundings};
use crate::host;
use crate::log;
use crate::namespaces::time::Offsets;
use crate::namespaces::{Entry, Namespaces, Origin};
use crate::plan::Plan;
use crate::process::Process;
use crate::rootfs::CgroupPaths;
use crate::seccomp::Program;
use crate::sys::{self, Errno};

use super::child::{self, Build, Entrance, Join, Script};
use super::fork::{self, Side, fork};
use super::gate::Waiting;
use super::listener::{self, TellAgent};
use super::wire::{Message, Wire};

/// What a launch needs beside the plan.
pub struct Request<'a> {
    /// The container, worked out.
    pub plan: Plan,
    /// Where hooks of the host run; absolute.
    pub bundle: &'a Path,
    /// Its cgroup, when it has one of its own.
    pub cgroup: Option<&'a Cgroup>,
    /// Where the container waits for `start`.
    pub gate: Option<Waiting>,
    /// The socket that gets the terminal.
    pub console: Option<OwnedFd>,
    /// Whether `settle` has to succeed before the program may run.
    pub settle_first: bool,
    /// The state for hooks, for a status and pid.
    pub state: Box<dyn Fn(&'static str, i32) -> Vec<u8>>,
    /// What to do with the listener of its seccomp filter, when that has one.
    pub tell_agent: Option<TellAgent<'a>>,
}

/// The container's first process. Dropping it ends the process, unless it was kept.
pub struct Launched {
    /// Its pid.
    pub pid: Pid,
    pidfd: Option<OwnedFd>,
}

impl Launched {
    /// Its handle.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_ref().expect("it is only taken at the end").as_fd()
    }

    /// Lets the process live.
    pub fn keep(mut self) -> OwnedFd {
        self.pidfd.take().expect("it is only taken here")
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        let Some(pidfd) = self.pidfd.take() else { return };
        // It may be dead already; as our child it is reaped either way.
        let _ = sys::pid::signal(pidfd.as_fd(), libc::SIGKILL);
        let _ = sys::pid::reap(pidfd.as_fd());
    }
}

/// Makes the container's process and sees it through to the gate, or to its program when there is none. `enter_record`
/// puts the process on record as soon as it exists; `settle` is called once all but the last steps have succeeded, to
/// tell of the process and take its terminal.
pub fn launch(
    request: Request<'_>,
    enter_record: impl FnOnce(Pid) -> Result<()>,
    settle: impl FnOnce(Pid) -> Result<()>,
) -> Result<Launched> {
    let Request { plan, bundle, cgroup, gate, console, settle_first, state, tell_agent } = request;
    let (wire, child_wire) = Wire::pair()?;
    let mut entries = plan.namespaces.open().phase("namespaces")?;
    // systemd makes a cgroup around a process that is there; the namespace that starts at it comes after that.
    let unit = cgroup.is_some_and(Cgroup::is_unit);
    let cgroup_namespace = plan.namespaces.clone_flags() & libc::CLONE_NEWCGROUP as u64;
    let new = plan.namespaces.clone_flags() & !if unit { cgroup_namespace } else { 0 };
    let paths = match cgroup.map(Cgroup::location) {
        Some(place) => Some(CgroupPaths { mount: place.mount().into(), cgroup: place.directory().into() }),
        // It goes on without one, and stays in ours.
        None if plan.cgroup.is_some() => {
            cgroup::own().map(|(mount, cgroup)| CgroupPaths { mount: mount.into(), cgroup: cgroup.into() })
        }
        None => None,
    };
    let network = network_to_fill(&plan.namespaces, &entries)?;
    let user_namespace = entries.iter().find(|entry| entry.kind.flag == libc::CLONE_NEWUSER as u64);
    let user_namespace = user_namespace.map(|entry| entry.fd.as_fd());
    let user = plan.namespaces.origin(libc::CLONE_NEWUSER as u64);
    let gathers = user != Origin::Host && new & libc::CLONE_NEWNS as u64 != 0 && host::cannot_mount();
    let rootfs = plan.rootfs.open(paths, user_namespace, gathers).phase("mounts")?;
    rootfs.stand().phase("mounts")?;
    ::log::trace!("namespaces, root and mount sources opened");
    let waits = gate.is_some();
    let host_waits = !plan.hooks.prestart.is_empty() || !plan.hooks.create_runtime.is_empty();
    let side = fork_into(new, &mut entries, plan.namespaces.joining_offsets(), cgroup.zip(plan.cgroup.as_ref()));
    let side = side.phase("namespaces")?;
    let (pid, pidfd) = match side {
        Side::Host(pid, pidfd) => (pid, pidfd),
        Side::Container => {
            drop(wire);
            let build = Build {
                entries,
                net_devices: !plan.namespaces.devices().is_empty(),
                unit: unit.then_some(cgroup_namespace),
                late_namespaces: plan.namespaces.late_flags(),
                new_user_namespace: new & libc::CLONE_NEWUSER as u64 != 0,
                new_network_namespace: new & libc::CLONE_NEWNET as u64 != 0,
                offsets: plan.namespaces.into_offsets(),
                rootfs,
                gathers,
                host_hooks: host_waits,
                create_container: plan.hooks.create_container,
                sysctls: plan.sysctls,
                host_name: plan.host_name,
                domain_name: plan.domain_name,
            };
            let (process, seccomp, start_container) = (plan.process, plan.seccomp, plan.hooks.start_container);
            child::run(
                Entrance::Build(Box::new(build)),
                Script { process, console, seccomp, gate, awaited: true, start_container, state },
                child_wire,
            )
        }
    };
    ::log::trace!("container's process made");
    let launched = Launched { pid, pidfd: Some(pidfd) };
    // The container's half has these; ours would keep its ends open.
    drop((child_wire, gate, console));
    let from_outside = |wire: &Wire| {
        // First: it is the container's root who owns the files in /proc of a process that has changed its ids.
        plan.process.adopt(pid).phase("process")?;
        cgroup.map_or(Ok(()), |cgroup| cgroup.gather(pid)).phase("cgroup")?;
        if let Some(maps) = plan.namespaces.maps() {
            maps.write(pid).phase("namespaces")?;
            rootfs.map_ids(pid).phase("mounts")?;
            wire.let_go()?;
        }
        if !plan.namespaces.devices().is_empty() {
            let network = network.map_or_else(|| own_network(pid), Ok).phase("namespaces")?;
            plan.namespaces.devices().move_to(network.as_fd()).phase("namespaces")?;
            wire.let_go()?;
        }
        plan.namespaces.ensure_joined_maps(pid).phase("namespaces")?;
        drop(rootfs);
        // All this while the container mounts. Limits and device rules must hold before the first hook and program, not
        // before; the record before the container may outlive us.
        enter_record(pid)?;
        ::log::trace!("record written");
        if unit {
            wire.let_go()?;
        }
        if let (Some(cgroup), Some(request)) = (cgroup, &plan.cgroup) {
            cgroup.apply(request).phase("cgroup")?;
            // systemd has those on that it was asked for.
            if unit && plan.steers_cgroups {
                cgroup.offer_controllers();
            }
            if let Some(owner) = plan.delegate_to {
                cgroup.delegate(owner).phase("cgroup")?;
            }
            if let Some(inner) = &plan.inner_cgroup {
                cgroup.step_in(inner, pid, plan.delegate_to).phase("cgroup")?;
            }
            ::log::trace!("limits and device rules set");
        }
        Ok(())
    };
    let host_hooks = || {
        let state = state("creating", pid.as_raw());
        let surroundings = Surroundings { state: &state, directory: Some(bundle), ..Surroundings::default() };
        plan.hooks.prestart.run(Stage::Prestart, &surroundings).phase("prestart")?;
        plan.hooks.create_runtime.run(Stage::CreateRuntime, &surroundings).phase("createRuntime")
    };
    let settle = |pid| {
        plan.process.limit(pid).phase("process")?;
        settle(pid)
    };
    let ahead = plan.process.limits_nothing() && !host_waits && !settle_first;
    let out_of_memory = |killed| {
        let limit = plan.cgroup.as_ref().and_then(cgroup::Request::memory_limit);
        cgroup?.location().out_of_memory(limit, killed)
    };
    let talk = Talk { wire, waits, ahead, quiet: false, tell_agent, out_of_memory: &out_of_memory };
    talk.see_through(launched, from_outside, host_hooks, settle)
}

/// The network namespace that is joined, when network devices are to be moved there: it must not be the runtime's.
pub(super) fn network_to_fill(namespaces: &Namespaces, entries: &[Entry]) -> Result<Option<OwnedFd>> {
    const NETWORK: u64 = libc::CLONE_NEWNET as u64;
    if namespaces.devices().is_empty() {
        return Ok(None);
    }
    if namespaces.is_hosts_own(NETWORK)? {
        return Err(
            Error::new("needs a network namespace, and the one joined is the host's").field("/linux/netDevices")
        );
    }
    let entry = entries.iter().find(|entry| entry.kind.flag == NETWORK);
    entry.map(|entry| entry.fd.try_clone().context("keep the network namespace")).transpose()
}

/// The network namespace that a process was born in.
fn own_network(pid: Pid) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/net");
    Ok(File::open(&path).with_context(|| format!("open {path}"))?.into())
}

/// Forks into the cgroup; where its kind refuses processes and can be changed, it is, and the fork tried once more.
fn fork_into(
    new: u64,
    entries: &mut Vec<Entry>,
    offsets: Option<&Offsets>,
    cgroup: Option<(&Cgroup, &cgroup::Request)>,
) -> Result<Side> {
    let dir = cgroup.and_then(|(cgroup, _)| cgroup.birthplace());
    match (fork(new, entries, offsets, dir), cgroup) {
        (Err(error), Some((cgroup, request))) => match error.errno() {
            Some(errno @ (Errno::EOPNOTSUPP | Errno::EBUSY)) => {
                cgroup.mend(request, errno)?;
                fork(new, entries, offsets, dir)
            }
            _ => Err(error),
        },
        (side, _) => side,
    }
}

/// What an exec needs beside the container.
pub struct ExecRequest<'a> {
    /// The container to join.
    pub join: Join,
    /// Whether the container has a pid namespace to be born in.
    pub own_pid_namespace: bool,
    /// What the program is.
    pub process: Process,
    /// The directory of the cgroup to be born in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The one to be born in where that takes no processes; `None`: nowhere else.
    pub instead: Option<&'a dyn Fn() -> Result<OwnedFd>>,
    /// Who moves it there when it may not be born there: a user has no right to that from outside of his own cgroups.
    pub attach: Option<&'a dyn Fn(Pid) -> Result<()>>,
    /// The socket that gets the terminal.
    pub console: Option<OwnedFd>,
    /// The filter of system calls.
    pub seccomp: Option<Program>,
    /// What to do with its listener, when it has one.
    pub tell_agent: Option<TellAgent<'a>>,
}

/// Makes another process in a container and sees it through to its program; `settle` comes before that.
pub fn exec(request: ExecRequest<'_>, settle: Option<impl FnOnce(Pid) -> Result<()>>) -> Result<Launched> {
    let ExecRequest { mut join, own_pid_namespace, process, cgroup, instead, mut attach, console, seccomp, tell_agent } =
        request;
    let (wire, child_wire) = Wire::pair()?;
    process.apply_initial_affinity().phase("process")?;
    let ahead = process.limits_nothing() && settle.is_none();
    let kinds = join.kinds;
    let adopt = |pid| process.adopt(pid).phase("process");
    let mut born_in = |cgroup| {
        join.kinds = kinds;
        fork::fork_beside(join.init.as_fd(), own_pid_namespace, &mut join.kinds, true, cgroup, adopt)
    };
    let mut side = born_in(cgroup);
    let refusal = side.as_ref().err().and_then(Error::errno);
    if refusal == Some(Errno::EACCES) && attach.is_some() {
        side = born_in(None);
    } else {
        attach = None;
    }
    // It has controllers on for those below it, or is not threaded where those above it are.
    if let (Some(Errno::EBUSY | Errno::EOPNOTSUPP), Some(instead)) = (refusal, instead) {
        side = born_in(Some(instead().phase("cgroup")?.as_fd()));
    }
    let adopted = kinds != join.kinds;
    let (pid, pidfd) = match side.phase("namespaces")? {
        Side::Container => {
            drop(wire);
            let (gate, start_container) = (None, Hooks::default());
            let state = Box::new(|_, _| Vec::new());
            child::run(
                Entrance::Join(join),
                Script { process, console, seccomp, gate, awaited: !ahead, start_container, state },
                child_wire,
            )
        }
        Side::Host(pid, pidfd) => (pid, pidfd),
    };
    ::log::trace!("process made in the container");
    let launched = Launched { pid, pidfd: Some(pidfd) };
    drop((child_wire, console));
    let from_outside = |_: &Wire| {
        if !adopted {
            process.adopt(pid).phase("process")?;
        }
        attach.map_or(Ok(()), |attach| attach(pid)).phase("cgroup")
    };
    let settle = |pid| {
        process.limit(pid).phase("process")?;
        settle.map_or(Ok(()), |settle| settle(pid))
    };
    let quiet = ahead && tell_agent.is_none();
    let talk = Talk { wire, waits: false, ahead, quiet, tell_agent, out_of_memory: &|_| None };
    talk.see_through(launched, from_outside, || Ok(()), settle)
}

/// The conversation with the container's half.
struct Talk<'a> {
    wire: Wire,
    /// Whether the container stops at a gate.
    waits: bool,
    /// Whether nothing has to be done between the mounts and the last steps: the container's half then finds the word to
    /// go on when it gets there, and neither half wakes the other up in between.
    ahead: bool,
    /// Whether nothing that it says until it ends or runs its program needs an answer: this half then sleeps till then,
    /// instead of being woken up for each word, which the other half pays for.
    quiet: bool,
    tell_agent: Option<TellAgent<'a>>,
    /// What to say of its death, by SIGKILL or otherwise, if it was for want of memory.
    out_of_memory: &'a dyn Fn(bool) -> Option<Error>,
}

impl Talk<'_> {
    /// Does from outside what has to be done for the process, then answers until it waits at its gate or runs its program.
    fn see_through(
        self,
        mut launched: Launched,
        from_outside: impl FnOnce(&Wire) -> Result<()>,
        host_hooks: impl Fn() -> Result<()>,
        settle: impl FnOnce(Pid) -> Result<()>,
    ) -> Result<Launched> {
        let mut settle = Some(settle);
        let mut done = false;
        let outcome = from_outside(&self.wire);
        self.blame(outcome, &mut launched)?;
        if self.ahead {
            self.wire.let_go()?;
        }
        sys::exe::let_go();
        if self.quiet {
            self.wire.wait_for_end()?;
        }
        loop {
            match self.wire.receive()? {
                Some(Message::Warning(line)) => log::hold(line),
                Some(Message::Hooks) => {
                    self.blame(host_hooks(), &mut launched)?;
                    ::log::trace!("prestart and createRuntime hooks run");
                    self.wire.let_go()?;
                }
                Some(Message::Ready) => {
                    let outcome = settle.take().map_or(Ok(()), |settle| settle(launched.pid));
                    self.blame(outcome, &mut launched)?;
                    if !self.ahead {
                        self.wire.let_go()?;
                    }
                }
                Some(Message::Listening(number)) => {
                    let outcome = self.pass_listener(number, &launched);
                    self.blame(outcome, &mut launched)?;
                }
                Some(Message::Done) if self.waits => {
                    ::log::trace!("container waits at its gate");
                    return Ok(launched);
                }
                Some(Message::Done) => done = true,
                Some(Message::Failed(error)) => return Err(Error::decode(&error)),
                Some(Message::Go) => bail!("the container's half sent a message of the host's"),
                // The socket closes on exec: the program runs.
                None if done => {
                    ::log::trace!("program runs");
                    return Ok(launched);
                }
                None => return Err(self.explain(&mut launched)),
            }
        }
    }

    /// Gives the listener of the container's filter to the agent, on whom each further call of that half may depend.
    fn pass_listener(&self, number: Option<u32>, launched: &Launched) -> Result<()> {
        let Some(listener) = listener::take(&self.wire, number, launched.pidfd()).phase("seccomp")? else {
            return Ok(());
        };
        let Some(tell) = &self.tell_agent else { bail!("the listener of a seccomp filter has no agent to go to") };
        tell(launched.pid, listener.as_fd()).phase("seccomp")?;
        if number.is_some() { self.wire.let_go() } else { Ok(()) }
    }

    /// What of ours fails on a process that has died is only a sign of that: its death is the error then.
    fn blame(&self, outcome: Result<()>, launched: &mut Launched) -> Result<()> {
        outcome.map_err(|error| if self.wire.ended_silently() { self.explain(launched) } else { error })
    }

    /// Says how the container's process died without a word of its own.
    fn explain(&self, launched: &mut Launched) -> Error {
        let Some(pidfd) = launched.pidfd.take() else { return Error::new("the container's process is gone") };
        let how = fork::fate(pidfd.as_fd());
        if let Some(error) = (self.out_of_memory)(how.is_kill()) {
            return error;
        }
        Error::new(format!("the container's process {how} while it was set up"))
    }
}
