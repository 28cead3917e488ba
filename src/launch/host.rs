//! The host's half of `create`: the steps that the runtime does for the container process from outside.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::unistd::Pid;

use crate::cgroup::{self, Cgroup};
use crate::error::{Context, Error, Result};
use crate::hooks::{HookContext, Stage};
use crate::host;
use crate::log;
use crate::namespaces::time::Offsets;
use crate::namespaces::{JoinedNamespace, Namespaces, Origin, user};
use crate::plan::Plan;
use crate::rootfs::{CgroupPaths, OpenIn, Opened};
use crate::seccomp::Program;
use crate::sys::slate::Slate;
use crate::sys::{self, Errno, ns};

use super::build::{self, Build, PendingNamespaces};
use super::child::{self, Entrance, Script};
use super::exec_fifo::ExecFifoEnd;
use super::finish::{self, limits_own_count};
use super::fork::{self, Side, SuccessorSlot, fork};
use super::handshake::{self, Handshake, LaunchCallbacks, Launched};
use super::sync::{Message, SyncSocket};

/// The input of [`create`].
pub struct CreateLaunch<'a> {
    /// The compiled configuration.
    pub plan: Plan,
    /// The working directory of the host's hooks; absolute.
    pub bundle: &'a Path,
    /// Its cgroup, when it has one of its own.
    pub cgroup: Option<&'a Cgroup>,
    /// Init's side of the exec fifo.
    pub exec_fifo: Option<ExecFifoEnd>,
    /// The socket that gets the terminal.
    pub console: Option<OwnedFd>,
    /// Whether [`LaunchCallbacks::publish`] has to succeed before the program may run.
    pub publish_first: bool,
    /// The state for hooks, for a status and pid.
    pub state: Box<dyn Fn(&'static str, i32) -> Vec<u8>>,
}

/// What the host keeps open until the fork.
struct HostParts {
    /// Namespaces to join.
    entries: Vec<JoinedNamespace>,
    /// The network namespace that devices are moved to, if it is joined.
    network: Option<OwnedFd>,
    rootfs: Opened,
    /// The new namespaces.
    new: ns::Flags,
    /// Which process opens the sources of mounts.
    mount_sources: OpenIn,
}

impl CreateLaunch<'_> {
    /// Opens namespaces, root and mount sources on the host.
    fn open(&mut self) -> Result<HostParts> {
        let plan = &mut self.plan;
        let entries = plan.namespaces.open().phase("namespaces")?;
        // systemd makes the cgroup for an existing process, and the cgroup namespace has to start there.
        let late = if self.cgroup.is_some_and(Cgroup::is_unit) { ns::Flags::CGROUP } else { ns::Flags::empty() };
        let new = plan.namespaces.clone_flags() & !late;
        let network = network_to_fill(&plan.namespaces, &entries)?;
        if !plan.hooks.create_container.is_empty() && build::joins_pid_first(&entries, new)? {
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
        Ok(HostParts { entries, network, rootfs, new, mount_sources })
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
    fn build(
        self,
        parts: HostParts,
        (successor_slot, slate): (Option<SuccessorSlot>, Option<Slate>),
        sync: SyncSocket,
    ) -> ! {
        let host_hooks = self.has_host_hooks();
        let CreateLaunch { plan, cgroup, exec_fifo, console, state, .. } = self;
        let late = plan.namespaces.clone_flags() & ns::Flags::CGROUP;
        let alone_in_pid_namespace = parts.new.contains(ns::Flags::PID);
        let build = Build {
            net_devices: !plan.namespaces.devices().is_empty(),
            unit: cgroup.is_some_and(Cgroup::is_unit).then_some(late),
            root_made_namespaces: plan.namespaces.late_flags(),
            namespaces: PendingNamespaces {
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
        let (sends_ready, waits_for_host) = (true, successor_slot.is_some());
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
        child::run(Entrance::Build(Box::new(build)), script, sync)
    }
}

/// Starts init, and returns when it waits at the exec fifo, or without one when its program runs.
pub fn create(mut request: CreateLaunch<'_>, callbacks: &mut dyn LaunchCallbacks) -> Result<Launched> {
    let (sync, child_sync) = SyncSocket::pair()?;
    let mut parts = request.open()?;
    let successor_slot = fork::joins(&parts.entries, ns::Flags::PID).then(SuccessorSlot::new).transpose()?;
    let slate = finish::slate(request.plan.seccomp.as_ref(), &child_sync)?;
    let (pid, pidfd) = match fork_into(&mut parts, &request).phase("namespaces")? {
        Side::Host(pid, pidfd) => (pid, pidfd),
        Side::Container => {
            drop(sync);
            request.build(parts, (successor_slot, slate), child_sync)
        }
    };
    ::log::trace!("container process created");
    let outside = successor_slot.is_some();
    let notifies = request.plan.seccomp.as_ref().is_some_and(Program::notifies);
    let mut handshake = Handshake::new(sync, Launched::new(pid, pidfd, successor_slot), callbacks, notifies);
    // Copies of the container's descriptors, which would hide the end of its sockets.
    let has_exec_fifo = request.exec_fifo.take().is_some();
    drop((child_sync, request.console.take()));
    if outside {
        handshake::expect(&mut handshake, &Message::Entered)?;
    }
    let host = Host {
        request: &request,
        handshake,
        go_sent_early: false,
        hooks_to_run: request.has_host_hooks(),
        ready: false,
    };
    finish::reason_on_slate(slate.as_ref(), host.drive(parts, outside, has_exec_fifo))
}

/// The steps of `create` around the handshake.
struct Host<'a> {
    request: &'a CreateLaunch<'a>,
    handshake: Handshake<'a>,
    /// Whether the last `Go` is sent before it is asked for, because the host has nothing to do after the mounts: neither half
    /// then wakes up the other one.
    go_sent_early: bool,
    /// Whether the hooks of the host have still to run.
    hooks_to_run: bool,
    /// Whether [`Message::Ready`] has arrived.
    ready: bool,
}

impl Host<'_> {
    /// Drives the handshake, from the fork on.
    fn drive(mut self, parts: HostParts, outside: bool, has_exec_fifo: bool) -> Result<Launched> {
        self.set_up_from_host(parts)?;
        self.enter_record()?;
        self.set_limits()?;
        self.go_sent_early = !self.hooks_to_run && self.replies_unneeded(outside);
        if self.go_sent_early && !has_exec_fifo {
            log::lend_stderr();
        }
        self.send_go_if(self.go_sent_early)?;
        sys::exe::close_parked();
        if outside { self.finish_outside(has_exec_fifo) } else { self.finish(has_exec_fifo) }
    }

    /// Gives the process its cgroup, the id maps and network devices.
    fn set_up_from_host(&mut self, parts: HostParts) -> Result<()> {
        let plan = &self.request.plan;
        let pid = self.handshake.pid();
        let sync = &self.handshake.sync;
        let steps = || {
            // First: after a change of ids the container's root owns the files in /proc. An intermediate process does this
            // itself, before its change.
            if !fork::joins(&parts.entries, ns::Flags::PID) {
                plan.process.apply_from_parent(pid).phase("process")?;
            }
            self.request.cgroup.map_or(Ok(()), |cgroup| cgroup.request_scope(pid)).phase("cgroup")?;
            if let Some(maps) = plan.namespaces.maps() {
                maps.write(pid).phase("namespaces")?;
                parts.rootfs.map_ids(pid).phase("mounts")?;
                sync.send_go()?;
            }
            if !plan.namespaces.devices().is_empty() {
                let network = parts.network.map_or_else(|| own_network(pid), Ok).phase("namespaces")?;
                plan.namespaces.devices().move_to(network.as_fd()).phase("namespaces")?;
                sync.send_go()?;
            }
            plan.namespaces.ensure_joined_maps(pid).phase("namespaces")?;
            match plan.namespaces.origin(ns::Flags::USER) {
                Origin::Host => Ok(()),
                Origin::New => plan.process.chown_pipes(|user| plan.namespaces.maps()?.host_user(user)),
                Origin::Joined => plan.process.chown_pipes(|inside| user::host_user_of(pid, inside)),
            }
            .phase("process")
        };
        let outcome = steps();
        self.handshake.prefer_exit_reason(outcome)
    }

    /// While the container mounts: limits and device rules have to hold only before the first hook or program, and the record
    /// has to exist before the container may outlive the runtime.
    fn enter_record(&mut self) -> Result<()> {
        let outcome = self.handshake.callbacks.record(self.handshake.launched.pid);
        self.handshake.prefer_exit_reason(outcome)?;
        ::log::trace!("record written");
        self.send_go_if(self.request.cgroup.is_some_and(Cgroup::is_unit))
    }

    fn set_limits(&mut self) -> Result<()> {
        let plan = &self.request.plan;
        let (Some(cgroup), Some(request)) = (self.request.cgroup, &plan.cgroup) else { return Ok(()) };
        let pid = self.handshake.pid();
        let steps = || {
            cgroup.apply(request)?;
            // systemd enables only the controllers that its properties need.
            if cgroup.is_unit() && plan.delegates_cgroup {
                cgroup.offer_controllers();
            }
            plan.delegate_to.map_or(Ok(()), |owner| cgroup.delegate(owner))?;
            plan.inner_cgroup.as_ref().map_or(Ok(()), |inner| cgroup.enter_subcgroup(inner, pid, plan.delegate_to))
        };
        let outcome = steps().phase("cgroup");
        self.handshake.prefer_exit_reason(outcome)?;
        ::log::trace!("limits and device rules set");
        Ok(())
    }

    /// Whether the host has nothing to do between `Ready` and its `Go`.
    fn replies_unneeded(&self, outside: bool) -> bool {
        self.request.plan.process.has_no_limits() && (outside || !self.request.publish_first)
    }

    fn send_go_if(&self, so: bool) -> Result<()> {
        if so { self.handshake.sync.send_go() } else { Ok(()) }
    }

    /// Drives the handshake with init to its end.
    fn finish(mut self, has_exec_fifo: bool) -> Result<Launched> {
        loop {
            match self.handshake.next_message()? {
                Some(Message::Hooks) if self.hooks_to_run => self.run_hooks()?,
                Some(Message::Ready) if !self.ready => {
                    self.ready = true;
                    let outcome =
                        self.request.plan.process.apply_rlimits_and_sched(self.handshake.pid()).phase("process");
                    self.handshake.prefer_exit_reason(outcome)?;
                    self.publish(has_exec_fifo)?;
                    self.send_go_if(!self.go_sent_early)?;
                }
                Some(Message::Done) if self.ready && has_exec_fifo => {
                    ::log::trace!("container waits at the exec fifo");
                    return Ok(self.handshake.launched);
                }
                Some(Message::Done) if self.ready => return self.handshake.until_program(true),
                Some(message) => return Err(handshake::unexpected_message(&message)),
                None => return Err(self.handshake.explain()),
            }
        }
    }

    /// Drives the handshake with the intermediate process, then with the process that it cloned.
    fn finish_outside(mut self, has_exec_fifo: bool) -> Result<Launched> {
        loop {
            match self.handshake.next_message()? {
                Some(Message::Hooks) if self.hooks_to_run => self.run_hooks()?,
                Some(Message::Ready) if !self.ready => {
                    self.ready = true;
                    let (process, filter) = (&self.request.plan.process, self.request.plan.seccomp.as_ref());
                    let outcome =
                        process.apply_limits_to_intermediate(self.handshake.pid(), limits_own_count(process, filter));
                    self.handshake.prefer_exit_reason(outcome.phase("process"))?;
                    self.send_go_if(!self.go_sent_early)?;
                }
                Some(message) => return Err(handshake::unexpected_message(&message)),
                None => break,
            }
        }
        self.handshake.switch_to_successor()?;
        let outcome = self.handshake.callbacks.record_successor(self.handshake.launched.pid);
        self.handshake.prefer_exit_reason(outcome)?;
        self.handshake.deliver_listener()?;
        let outcome = self.request.plan.process.apply_rest_to_successor(self.handshake.pid()).phase("process");
        self.handshake.prefer_exit_reason(outcome)?;
        self.publish(has_exec_fifo)?;
        self.handshake.sync.send_go()?;
        if !has_exec_fifo {
            return self.handshake.until_program(true);
        }
        // It may still have to load its filter and find its program.
        handshake::expect(&mut self.handshake, &Message::Done)?;
        ::log::trace!("container waits at the exec fifo");
        Ok(self.handshake.launched)
    }

    fn run_hooks(&mut self) -> Result<()> {
        self.hooks_to_run = false;
        self.handshake.callbacks.hooks_begin();
        let CreateLaunch { plan, bundle, state, .. } = self.request;
        let state = state("creating", self.handshake.pid().as_raw());
        let hook_context = HookContext { state: &state, directory: Some(bundle), ..HookContext::default() };
        let prestart = plan.hooks.prestart.run(Stage::Prestart, &hook_context).phase("prestart");
        let create = || plan.hooks.create_runtime.run(Stage::CreateRuntime, &hook_context).phase("createRuntime");
        let outcome = prestart.and_then(|()| create());
        self.handshake.prefer_exit_reason(outcome)?;
        ::log::trace!("prestart and createRuntime hooks run");
        self.handshake.sync.send_go()
    }

    /// Reports to the caller, after the last output to stderr before the program runs.
    fn publish(&mut self, has_exec_fifo: bool) -> Result<()> {
        if !has_exec_fifo {
            log::lend_stderr();
        }
        let outcome = self.handshake.callbacks.publish(self.handshake.launched.pid);
        self.handshake.prefer_exit_reason(outcome)
    }
}

/// The network namespace that is joined, when network devices are to be moved there: it must not be the runtime's.
pub(super) fn network_to_fill(namespaces: &Namespaces, entries: &[JoinedNamespace]) -> Result<Option<OwnedFd>> {
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
fn fork_into(parts: &mut HostParts, request: &CreateLaunch<'_>) -> Result<Side> {
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
