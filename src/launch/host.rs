//! The host's half of `create`: the steps that the runtime does for the container's process from outside.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::unistd::Pid;

use crate::cgroup::{self, Cgroup};
use crate::error::{Context, Error, Result};
use crate::hooks::{Stage, Surroundings};
use crate::host;
use crate::log;
use crate::namespaces::time::Offsets;
use crate::namespaces::{Entry, Namespaces, Origin, user};
use crate::plan::Plan;
use crate::rootfs::{CgroupPaths, OpenIn, Opened};
use crate::seccomp::Program;
use crate::sys::slate::Slate;
use crate::sys::{self, Errno, ns};

use super::build::{self, Build, Entering};
use super::child::{self, Entrance, Script};
use super::finish::{self, counts_itself};
use super::fork::{self, Seat, Side, fork};
use super::gate::Waiting;
use super::talk::{self, Attendant, Launched, Talk};
use super::wire::{Message, Wire};

/// The input of [`create`].
pub struct Request<'a> {
    /// The compiled configuration.
    pub plan: Plan,
    /// The working directory of the host's hooks; absolute.
    pub bundle: &'a Path,
    /// Its cgroup, when it has one of its own.
    pub cgroup: Option<&'a Cgroup>,
    /// Init's side of the exec fifo.
    pub gate: Option<Waiting>,
    /// The socket that gets the terminal.
    pub console: Option<OwnedFd>,
    /// Whether [`Attendant::settle`] has to succeed before the program may run.
    pub settle_first: bool,
    /// The state for hooks, for a status and pid.
    pub state: Box<dyn Fn(&'static str, i32) -> Vec<u8>>,
}

/// What the host keeps open until the fork.
struct Parts {
    /// Namespaces to join.
    entries: Vec<Entry>,
    /// The network namespace that devices are moved to, if it is joined.
    network: Option<OwnedFd>,
    rootfs: Opened,
    /// The new namespaces.
    new: ns::Flags,
    /// Which process opens the sources of mounts.
    mount_sources: OpenIn,
}

impl Request<'_> {
    /// Opens namespaces, root and mount sources on the host.
    fn open(&mut self) -> Result<Parts> {
        let plan = &mut self.plan;
        let entries = plan.namespaces.open().phase("namespaces")?;
        // systemd makes the cgroup for an existing process, and the cgroup namespace has to start there.
        let late = if self.cgroup.is_some_and(Cgroup::is_unit) { ns::Flags::CGROUP } else { ns::Flags::empty() };
        let new = plan.namespaces.clone_flags() & !late;
        let network = network_to_fill(&plan.namespaces, &entries)?;
        if !plan.hooks.create_container.is_empty() && build::chooses_early(&entries, new)? {
            return Err(Error::new("cannot run where the pid namespace has to be joined before the user namespace")
                .field("/hooks/createContainer")
                .hint("join a pid namespace that the container's user namespace owns, or leave out the hooks"));
        }
        let paths = match self.cgroup.map(Cgroup::location) {
            Some(place) => Some(CgroupPaths { mount: place.mount().into(), cgroup: place.directory().into() }),
            // A rootless container without a cgroup stays in the runtime's.
            None if plan.cgroup.is_some() => {
                cgroup::own().map(|(mount, cgroup)| CgroupPaths { mount: mount.into(), cgroup: cgroup.into() })
            }
            None => None,
        };
        let user_namespace =
            entries.iter().find(|entry| entry.kind.flag == ns::Flags::USER).map(|entry| entry.fd.as_fd());
        let has_user = plan.namespaces.origin(ns::Flags::USER) != Origin::Host;
        let own = has_user && new.contains(ns::Flags::MOUNT);
        let mount_sources = if own && host::cannot_mount() { OpenIn::Child } else { OpenIn::Host };
        let rootfs = plan.rootfs.take().ok_or_else(|| Error::new("internal error: the rootfs was opened twice"))?;
        let rootfs = rootfs.open(paths, user_namespace, mount_sources).phase("mounts")?;
        rootfs.chdir_to_rootfs().phase("mounts")?;
        ::log::trace!("namespaces, root and mount sources opened");
        Ok(Parts { entries, network, rootfs, new, mount_sources })
    }

    /// Whether [`Message::Hooks`] is needed: the host has hooks to run, or has to know that createContainer hooks begin, after
    /// which every failure is followed by poststop hooks.
    fn has_host_hooks(&self) -> bool {
        let (hooks, kept) = (&self.plan.hooks, &self.plan.kept);
        !hooks.prestart.is_empty()
            || !hooks.create_runtime.is_empty()
            || (!hooks.create_container.is_empty() && !kept.poststop.is_empty())
    }

    /// The container's side of the fork.
    fn build(self, parts: Parts, (seat, slate): (Option<Seat>, Option<Slate>), wire: Wire) -> ! {
        let host_hooks = self.has_host_hooks();
        let Request { plan, cgroup, gate, console, state, .. } = self;
        let late = plan.namespaces.clone_flags() & ns::Flags::CGROUP;
        let alone = parts.new.contains(ns::Flags::PID);
        let build = Build {
            net_devices: !plan.namespaces.devices().is_empty(),
            unit: cgroup.is_some_and(Cgroup::is_unit).then_some(late),
            late_namespaces: plan.namespaces.late_flags(),
            namespaces: Entering {
                entries: parts.entries,
                new: parts.new,
                joins_user: plan.namespaces.joins_user(),
                instead: plan.process.ids(),
            },
            offsets: plan.namespaces.into_offsets(),
            rootfs: parts.rootfs,
            mount_sources: parts.mount_sources,
            host_hooks,
            create_container: plan.hooks.create_container,
            sysctls: plan.sysctls,
            host_name: plan.host_name,
            domain_name: plan.domain_name,
        };
        let (process, seccomp, start_container) = (plan.process, plan.seccomp, plan.hooks.start_container);
        // After an intermediate process the host writes the record again.
        let (announces, awaited) = (true, seat.is_some());
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
        child::run(Entrance::Build(Box::new(build)), script, wire)
    }
}

/// Starts init, and returns when it waits at the exec fifo, or without one when its program runs.
pub fn create(mut request: Request<'_>, attendant: &mut dyn Attendant) -> Result<Launched> {
    let (wire, child_wire) = Wire::pair()?;
    let mut parts = request.open()?;
    let seat = fork::joins(&parts.entries, ns::Flags::PID).then(Seat::new).transpose()?;
    let slate = finish::slate(request.plan.seccomp.as_ref(), &child_wire)?;
    let (pid, pidfd) = match fork_into(&mut parts, &request).phase("namespaces")? {
        Side::Host(pid, pidfd) => (pid, pidfd),
        Side::Container => {
            drop(wire);
            request.build(parts, (seat, slate), child_wire)
        }
    };
    ::log::trace!("container process created");
    let outside = seat.is_some();
    let notifies = request.plan.seccomp.as_ref().is_some_and(Program::notifies);
    let mut talk = Talk::new(wire, Launched::new(pid, pidfd, seat), attendant, notifies);
    // Copies of the container's descriptors, which would hide the end of its sockets.
    let waits = request.gate.take().is_some();
    drop((child_wire, request.console.take()));
    if outside {
        talk::expect(&mut talk, &Message::Entered)?;
    }
    let host = Host { request: &request, talk, ahead: false, hooks_to_run: request.has_host_hooks(), ready: false };
    finish::last_word(slate.as_ref(), host.see_through(parts, outside, waits))
}

/// The steps of `create` around the handshake.
struct Host<'a> {
    request: &'a Request<'a>,
    talk: Talk<'a>,
    /// Whether the last `Go` is sent before it is asked for, because the host has nothing to do after the mounts: neither half
    /// then wakes up the other one.
    ahead: bool,
    /// Whether the hooks of the host have still to run.
    hooks_to_run: bool,
    /// Whether [`Message::Ready`] has arrived.
    ready: bool,
}

impl Host<'_> {
    /// Drives the handshake, from the fork on.
    fn see_through(mut self, parts: Parts, outside: bool, waits: bool) -> Result<Launched> {
        self.join_up(parts)?;
        self.enter_record()?;
        self.set_limits()?;
        self.ahead = !self.hooks_to_run && self.needs_no_word(outside);
        if self.ahead && !waits {
            log::lend_stderr();
        }
        self.let_go_if(self.ahead)?;
        sys::exe::let_go();
        if outside { self.finish_outside(waits) } else { self.finish(waits) }
    }

    /// Gives the process its cgroup, the id maps and network devices.
    fn join_up(&mut self, parts: Parts) -> Result<()> {
        let plan = &self.request.plan;
        let pid = self.talk.pid();
        let wire = &self.talk.wire;
        let steps = || {
            // First: after a change of ids the container's root owns the files in /proc. An intermediate process does this
            // itself, before its change.
            if !fork::joins(&parts.entries, ns::Flags::PID) {
                plan.process.adopt(pid).phase("process")?;
            }
            self.request.cgroup.map_or(Ok(()), |cgroup| cgroup.request_scope(pid)).phase("cgroup")?;
            if let Some(maps) = plan.namespaces.maps() {
                maps.write(pid).phase("namespaces")?;
                parts.rootfs.map_ids(pid).phase("mounts")?;
                wire.let_go()?;
            }
            if !plan.namespaces.devices().is_empty() {
                let network = parts.network.map_or_else(|| own_network(pid), Ok).phase("namespaces")?;
                plan.namespaces.devices().move_to(network.as_fd()).phase("namespaces")?;
                wire.let_go()?;
            }
            plan.namespaces.ensure_joined_maps(pid).phase("namespaces")?;
            match plan.namespaces.origin(ns::Flags::USER) {
                Origin::Host => Ok(()),
                Origin::New => plan.process.give_pipes(|user| plan.namespaces.maps()?.host_user(user)),
                Origin::Joined => plan.process.give_pipes(|inside| user::host_user_of(pid, inside)),
            }
            .phase("process")
        };
        let outcome = steps();
        self.talk.blame(outcome)
    }

    /// While the container mounts: limits and device rules have to hold only before the first hook or program, and the record
    /// has to exist before the container may outlive the runtime.
    fn enter_record(&mut self) -> Result<()> {
        let outcome = self.talk.attendant.record(self.talk.launched.pid);
        self.talk.blame(outcome)?;
        ::log::trace!("record written");
        self.let_go_if(self.request.cgroup.is_some_and(Cgroup::is_unit))
    }

    fn set_limits(&mut self) -> Result<()> {
        let plan = &self.request.plan;
        let (Some(cgroup), Some(request)) = (self.request.cgroup, &plan.cgroup) else { return Ok(()) };
        let pid = self.talk.pid();
        let steps = || {
            cgroup.apply(request)?;
            // systemd enables only the controllers that its properties need.
            if cgroup.is_unit() && plan.steers_cgroups {
                cgroup.offer_controllers();
            }
            plan.delegate_to.map_or(Ok(()), |owner| cgroup.delegate(owner))?;
            plan.inner_cgroup.as_ref().map_or(Ok(()), |inner| cgroup.enter_subcgroup(inner, pid, plan.delegate_to))
        };
        let outcome = steps().phase("cgroup");
        self.talk.blame(outcome)?;
        ::log::trace!("limits and device rules set");
        Ok(())
    }

    /// Whether the host has nothing to do between `Ready` and its `Go`.
    fn needs_no_word(&self, outside: bool) -> bool {
        self.request.plan.process.limits_nothing() && (outside || !self.request.settle_first)
    }

    fn let_go_if(&self, so: bool) -> Result<()> {
        if so { self.talk.wire.let_go() } else { Ok(()) }
    }

    /// Drives the handshake with init to its end.
    fn finish(mut self, waits: bool) -> Result<Launched> {
        loop {
            match self.talk.hear()? {
                Some(Message::Hooks) if self.hooks_to_run => self.run_hooks()?,
                Some(Message::Ready) if !self.ready => {
                    self.ready = true;
                    let outcome = self.request.plan.process.limit(self.talk.pid()).phase("process");
                    self.talk.blame(outcome)?;
                    self.settle(waits)?;
                    self.let_go_if(!self.ahead)?;
                }
                Some(Message::Done) if self.ready && waits => {
                    ::log::trace!("container waits at the exec fifo");
                    return Ok(self.talk.launched);
                }
                Some(Message::Done) if self.ready => return self.talk.until_program(true),
                Some(message) => return Err(talk::out_of_turn(&message)),
                None => return Err(self.talk.explain()),
            }
        }
    }

    /// Drives the handshake with the intermediate process, then with the process that it cloned.
    fn finish_outside(mut self, waits: bool) -> Result<Launched> {
        loop {
            match self.talk.hear()? {
                Some(Message::Hooks) if self.hooks_to_run => self.run_hooks()?,
                Some(Message::Ready) if !self.ready => {
                    self.ready = true;
                    let (process, filter) = (&self.request.plan.process, self.request.plan.seccomp.as_ref());
                    let outcome = process.limit_intermediate(self.talk.pid(), counts_itself(process, filter));
                    self.talk.blame(outcome.phase("process"))?;
                    self.let_go_if(!self.ahead)?;
                }
                Some(message) => return Err(talk::out_of_turn(&message)),
                None => break,
            }
        }
        self.talk.succeed()?;
        let outcome = self.talk.attendant.record_successor(self.talk.launched.pid);
        self.talk.blame(outcome)?;
        self.talk.deliver()?;
        let outcome = self.request.plan.process.limit_successor(self.talk.pid()).phase("process");
        self.talk.blame(outcome)?;
        self.settle(waits)?;
        self.talk.wire.let_go()?;
        if !waits {
            return self.talk.until_program(true);
        }
        // It may still have to load its filter and find its program.
        talk::expect(&mut self.talk, &Message::Done)?;
        ::log::trace!("container waits at the exec fifo");
        Ok(self.talk.launched)
    }

    fn run_hooks(&mut self) -> Result<()> {
        self.hooks_to_run = false;
        self.talk.attendant.begin_hooks();
        let Request { plan, bundle, state, .. } = self.request;
        let state = state("creating", self.talk.pid().as_raw());
        let surroundings = Surroundings { state: &state, directory: Some(bundle), ..Surroundings::default() };
        let prestart = plan.hooks.prestart.run(Stage::Prestart, &surroundings).phase("prestart");
        let create = || plan.hooks.create_runtime.run(Stage::CreateRuntime, &surroundings).phase("createRuntime");
        let outcome = prestart.and_then(|()| create());
        self.talk.blame(outcome)?;
        ::log::trace!("prestart and createRuntime hooks run");
        self.talk.wire.let_go()
    }

    /// Reports to the caller, after the last output to stderr before the program runs.
    fn settle(&mut self, waits: bool) -> Result<()> {
        if !waits {
            log::lend_stderr();
        }
        let outcome = self.talk.attendant.settle(self.talk.launched.pid);
        self.talk.blame(outcome)
    }
}

/// The network namespace that is joined, when network devices are to be moved there: it must not be the runtime's.
pub(super) fn network_to_fill(namespaces: &Namespaces, entries: &[Entry]) -> Result<Option<OwnedFd>> {
    if namespaces.devices().is_empty() {
        return Ok(None);
    }
    if namespaces.is_hosts_own(ns::Flags::NETWORK)? {
        return Err(Error::new("needs a network namespace of its own, and the one joined is the host's")
            .field("/linux/netDevices"));
    }
    let entry = entries.iter().find(|entry| entry.kind.flag == ns::Flags::NETWORK);
    entry.map(|entry| entry.fd.try_clone().context("duplicate the descriptor of the network namespace")).transpose()
}

/// The network namespace that a process was born in.
fn own_network(pid: Pid) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/net");
    Ok(File::open(&path).with_context(|| format!("open {path}"))?.into())
}

/// Forks into the cgroup. If that refuses processes because of its type, the type is changed and the fork tried again.
fn fork_into(parts: &mut Parts, request: &Request<'_>) -> Result<Side> {
    let offsets: Option<&Offsets> = request.plan.namespaces.offsets().filter(|_| request.plan.namespaces.joins_user());
    let dir = request.cgroup.and_then(Cgroup::clone_target);
    let mut fork = || fork(parts.new, &mut parts.entries, offsets, request.plan.process.ids(), dir);
    match (fork(), request.cgroup.zip(request.plan.cgroup.as_ref())) {
        (Err(error), Some((cgroup, wanted))) => match error.errno() {
            Some(errno @ (Errno::EOPNOTSUPP | Errno::EBUSY)) => {
                cgroup.make_threaded(wanted, errno)?;
                fork()
            }
            _ => Err(error),
        },
        (side, _) => side,
    }
}
