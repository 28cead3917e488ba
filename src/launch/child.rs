//! The container's half: a script of verbs that never returns. Its only exits are `execve` and `_exit`.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};

use crate::error::{Context, Error, Result};
use crate::hooks::{Hooks, Stage, Surroundings};
use crate::log;
use crate::namespaces::sysctl::Sysctls;
use crate::namespaces::time::Offsets;
use crate::namespaces::{self, Entry, user, uts};
use crate::process::console::{self, Pty};
use crate::process::{self, Process};
use crate::rootfs::Opened;
use crate::seccomp::Program;
use crate::sys;
use crate::sys::proc::Procfs;
use crate::trace;

use super::gate::Waiting;
use super::listener;
use super::wire::{Message, Wire};

/// What the container's process has to do.
pub struct Script {
    /// What the program is.
    pub process: Process,
    /// The socket that gets the terminal.
    pub console: Option<OwnedFd>,
    /// The filter of system calls.
    pub seccomp: Option<Program>,
    /// Where to wait for `start`; `None` to go on at once.
    pub gate: Option<Waiting>,
    /// Whether the host waits to hear that all which may need it is done, before it gives the word to go on.
    pub awaited: bool,
    /// Hooks between the gate and the program.
    pub start_container: Hooks,
    /// The state that hooks in the container's namespaces are given, for a status and pid.
    pub state: Box<dyn Fn(&'static str, i32) -> Vec<u8>>,
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
    /// The handle of its first process.
    pub init: OwnedFd,
    /// `CLONE_NEW*` flags of the namespaces to join through it; the pid namespace is that of birth.
    pub kinds: u64,
}

/// A container to build.
pub struct Build {
    /// Namespaces to join.
    pub entries: Vec<Entry>,
    /// Whether it is to become root of a new user namespace.
    pub new_user_namespace: bool,
    /// Whether the host moves network devices.
    pub net_devices: bool,
    /// Whether systemd makes the cgroup, around this process; and `CLONE_NEWCGROUP` when there is to be a namespace that
    /// starts there.
    pub unit: Option<u64>,
    /// `CLONE_NEW*` flags of namespaces that this root has to make itself.
    pub late_namespaces: u64,
    /// Whether the network namespace is new, with its loopback device down.
    pub new_network_namespace: bool,
    /// Clocks of a new time namespace.
    pub offsets: Option<Offsets>,
    /// The root filesystem.
    pub rootfs: Opened,
    /// Whether this process has to take what the runtime could not, for want of power over the host's mounts.
    pub gathers: bool,
    /// Whether hooks of the host wait for the mounts.
    pub host_hooks: bool,
    /// Hooks in the container's namespaces, before pivot_root.
    pub create_container: Hooks,
    /// Kernel parameters.
    pub sysctls: Sysctls,
    /// Empty for none.
    pub host_name: String,
    /// Empty for none.
    pub domain_name: String,
}

/// Carries the script out.
pub fn run(entrance: Entrance, mut script: Script, wire: Wire) -> ! {
    trace::enter_container();
    ::log::trace!("born");
    // Before the host's half closes the last one, which takes its time.
    sys::exe::let_go();
    // A panic must end this copy of the process here: the frames below are the host's.
    std::panic::set_hook(Box::new(|info| {
        log::say(&format!("corten: the container's half broke off: {info}"));
        sys::pid::exit_now(70)
    }));
    let Err(error) = set_up(entrance, &mut script, &wire);
    ::log::trace!("failed: {error}");
    tell(&wire, &error);
    sys::pid::exit_now(1)
}

fn tell(wire: &Wire, error: &Error) {
    // A host that is gone needs no word.
    let _ = wire.send(&Message::Failed(error.encode()));
}

fn set_up(entrance: Entrance, script: &mut Script, wire: &Wire) -> Result<Infallible> {
    end_with_host()?;
    umask(Mode::empty());
    let Script { process, console, state, .. } = script;
    let procfs = match entrance {
        Entrance::Build(build) => build.enter(process, console.take(), state, wire)?,
        Entrance::Join(join) => join.enter(process, console.take())?,
    };
    process.prepare(procfs.as_ref().map(Procfs::dir)).phase("process")?;
    drop(procfs);
    ::log::trace!("process prepared");
    pass_warnings(wire)?;
    if script.awaited {
        wire.send(&Message::Ready)?;
    }
    wire.wait_go()?;
    ::log::trace!("word to go on heard");
    script.shed_descriptors(wire)?;
    script.confine(wire)?;
    ::log::trace!("user and capabilities set");
    script.finish(wire)
}

/// Until its creator has put it on record, the process must not outlive it.
pub(super) fn end_with_host() -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("ask to end with the runtime")
}

/// Enters the namespaces that are joined, and a new time namespace.
pub(super) fn join(entries: &[Entry], offsets: Option<&Offsets>) -> Result<()> {
    if !entries.is_empty() {
        // Others in a joined namespace must not look into this process, which still holds the host's descriptors
        // (CVE-2016-9962).
        nix::sys::prctl::set_dumpable(false).context("become non-dumpable")?;
    }
    namespaces::enter(entries)?;
    // Before the ids change: then this process is no longer dumpable, its files in /proc belong to the host's root,
    // and it may not write its own offsets.
    offsets.map_or(Ok(()), Offsets::enter)
}

/// Becomes root of the new user namespace, whose maps are written, and makes there what only its root can (`late`, as
/// `CLONE_NEW*`).
pub(super) fn become_root(late: u64) -> Result<()> {
    user::become_root()?;
    // A change of ids has made the kernel forget it.
    end_with_host()?;
    if late != 0 {
        sys::clone::unshare(late).context("make namespaces as root of the user namespace")?;
    }
    Ok(())
}

fn pass_warnings(wire: &Wire) -> Result<()> {
    log::take_held().into_iter().try_for_each(|line| wire.send(&Message::Warning(line)))
}

impl Build {
    /// Builds the container around this process, in the order of the standard; a private procfs where one is needed.
    fn enter(
        mut self,
        process: &mut Process,
        console: Option<OwnedFd>,
        state: &dyn Fn(&'static str, i32) -> Vec<u8>,
        wire: &Wire,
    ) -> Result<Option<Procfs>> {
        self.enter_namespaces(wire).phase("namespaces")?;
        ::log::trace!("namespaces entered");
        // Mounted while the host's /proc is in sight, without which the kernel refuses one to a user namespace.
        let wanted = !self.sysctls.is_empty() || process.needs_proc();
        let procfs = wanted.then(Procfs::open).transpose().context("mount a private procfs").phase("namespaces")?;
        process.start_session(procfs.as_ref().map(Procfs::dir)).phase("process")?;
        self.rootfs.isolate().phase("mounts")?;
        ::log::trace!("root taken");
        let unit = self.unit.take();
        self.rootfs.mount(unit.map(|namespace| move || enter_unit(wire, namespace))).phase("mounts")?;
        ::log::trace!("mounts and devices made");
        self.run_early_hooks(state, wire)?;
        self.rootfs.pivot().phase("mounts")?;
        ::log::trace!("root changed");
        // The host's /dev/null, with the mount it lies on, is nothing for the container.
        process::use_null_of(|| self.rootfs.null());
        // Before the root can become read-only.
        let what = || format!("make the working directory {}", process.cwd().display());
        self.rootfs.make_dir(process.cwd()).with_context(what).field(|| "/process/cwd").phase("mounts")?;
        // The devpts is now the container's; /dev may still become read-only.
        if let Some(socket) = console {
            let pty = open_terminal(process).phase("terminal")?;
            self.rootfs.console(pty.replica()).phase("terminal")?;
            hand_over(pty, socket)?;
            ::log::trace!("terminal given");
        }
        if let Some(procfs) = &procfs {
            self.sysctls.write(procfs).phase("sysctl")?;
        }
        uts::set_host_name(&self.host_name)?;
        uts::set_domain_name(&self.domain_name)?;
        ::log::trace!("kernel parameters and names set");
        self.rootfs.seal().phase("mounts")?;
        ::log::trace!("paths masked and made read-only");
        Ok(procfs)
    }

    fn enter_namespaces(&mut self, wire: &Wire) -> Result<()> {
        join(&self.entries, self.offsets.as_ref())?;
        if self.new_user_namespace {
            // The host writes the id maps first; without one there is nothing to wait for.
            wire.wait_go()?;
        }
        if self.gathers {
            self.rootfs.gather().phase("mounts")?;
        }
        if self.new_user_namespace {
            become_root(self.late_namespaces)?;
        }
        if self.net_devices {
            // Before sysctls, which may be theirs.
            wire.wait_go()?;
        }
        if self.new_network_namespace {
            sys::ns::loopback_up().context("bring the loopback device up")?;
        }
        Ok(())
    }

    /// The standard wants these hooks after the mounts and before pivot_root.
    fn run_early_hooks(&self, state: &dyn Fn(&'static str, i32) -> Vec<u8>, wire: &Wire) -> Result<()> {
        if self.host_hooks {
            wire.send(&Message::Hooks)?;
            wire.wait_go()?;
        }
        if self.create_container.is_empty() {
            return Ok(());
        }
        // The host may have ended before this process asked to end with it.
        wire.ensure_heard()?;
        nix::unistd::fchdir(self.rootfs.dir()).context("enter the root filesystem")?;
        let state = state("creating", nix::unistd::getpid().as_raw());
        let surroundings = Surroundings { state: &state, ..Surroundings::default() };
        self.create_container.run(Stage::CreateContainer, &surroundings).phase("createContainer")?;
        ::log::trace!("createContainer hooks run");
        Ok(())
    }
}

/// Waits until systemd has put this process into its cgroup.
fn enter_unit(wire: &Wire, namespace: u64) -> Result<()> {
    wire.wait_go()?;
    if namespace != 0 {
        sys::clone::unshare(namespace).context("make the cgroup namespace").phase("namespaces")?;
    }
    Ok(())
}

impl Join {
    /// Joins the container.
    fn enter(self, process: &mut Process, console: Option<OwnedFd>) -> Result<Option<Procfs>> {
        // Processes of the container must not look into this one, whose descriptors are still the host's
        // (CVE-2016-9962).
        nix::sys::prctl::set_dumpable(false).context("become non-dumpable")?;
        let wanted = process.needs_proc();
        let procfs = wanted.then(Procfs::open).transpose().context("mount a private procfs").phase("namespaces")?;
        join_container(self.init.as_fd(), self.kinds)?;
        ::log::trace!("namespaces joined");
        process.start_session(procfs.as_ref().map(Procfs::dir)).phase("process")?;
        if let Some(socket) = console {
            hand_over(open_terminal(process).phase("terminal")?, socket)?;
        }
        Ok(procfs)
    }
}

/// Joins these namespaces (`CLONE_NEW*`) of a container, as root of its user namespace if that is among them.
pub(super) fn join_container(init: BorrowedFd<'_>, kinds: u64) -> Result<()> {
    if kinds != 0 {
        sys::clone::setns(init, kinds).context("join the container's namespaces").phase("namespaces")?;
    }
    if kinds & libc::CLONE_NEWUSER as u64 != 0 {
        user::become_root().phase("namespaces")?;
    }
    Ok(())
}

/// The terminal's controlling end goes to whoever listens, its other end becomes our stdio.
fn hand_over(pty: Pty, socket: OwnedFd) -> Result<()> {
    console::send(socket.as_fd(), &pty).phase("terminal")?;
    pty.into_controlling_terminal().phase("terminal")
}

/// A terminal of the container's own devpts.
fn open_terminal(process: &Process) -> Result<Pty> {
    Pty::open(console::devpts()?.as_fd(), process.uid(), process.terminal().unwrap_or_default())
}

impl Script {
    /// Nothing of the host's stays open in a process that the container can look at.
    fn shed_descriptors(&mut self, wire: &Wire) -> Result<()> {
        let mut kept: Vec<BorrowedFd<'_>> = vec![wire.as_fd()];
        if let Some(gate) = &self.gate {
            kept.extend(gate.fds());
        }
        kept.extend(trace::file());
        self.process.close_descriptors(&kept).phase("process")
    }

    /// From here on the container's own rights. Without no_new_privs a filter needs CAP_SYS_ADMIN, so it is loaded
    /// before the capabilities go.
    ///
    /// One that notifies needs the host to reach its agent, who is there until the gate and not beyond.
    fn confine(&mut self, wire: &Wire) -> Result<()> {
        if !self.process.no_new_privs() {
            self.load_filter(wire)?;
        }
        self.process.become_user().phase("process")?;
        if self.gate.is_some() && self.seccomp.as_ref().is_some_and(Program::notifies) {
            self.load_filter(wire)?;
        }
        Ok(())
    }

    fn load_filter(&mut self, wire: &Wire) -> Result<()> {
        let Some(filter) = self.seccomp.take() else { return Ok(()) };
        if filter.notifies() { listener::load(&filter, wire) } else { filter.load() }.phase("seccomp")?;
        ::log::trace!("seccomp filter loaded");
        Ok(())
    }

    fn finish(&mut self, wire: &Wire) -> Result<Infallible> {
        pass_warnings(wire)?;
        // The record is written: from now on the container lives without its creator.
        nix::sys::prctl::set_pdeathsig(None).context("live on without the runtime")?;
        wire.send(&Message::Done)?;
        let Some(gate) = self.gate.take() else { return self.start(wire, || Ok(())) };
        ::log::trace!("waits at its gate");
        let Err(error) = gate.wait().and_then(|()| self.start(wire, || gate.mark()));
        ::log::trace!("failed: {error}");
        gate.answer(&error);
        sys::pid::exit_now(1)
    }

    /// What happens after `start`: the filter that needed no privilege, hooks, the program, right before which it is
    /// `announced`.
    fn start(&mut self, wire: &Wire, announced: impl FnOnce() -> Result<()>) -> Result<Infallible> {
        self.load_filter(wire)?;
        if !self.start_container.is_empty() {
            let state = (self.state)("created", nix::unistd::getpid().as_raw());
            let environment = self.process.environment();
            let environment = Some(&environment[..]);
            let surroundings = Surroundings { state: &state, environment, ..Surroundings::default() };
            self.start_container.run(Stage::StartContainer, &surroundings).phase("startContainer")?;
        }
        announced()?;
        ::log::trace!("execve is next");
        sys::process::mind_broken_pipes().context("reset SIGPIPE")?;
        Err(self.process.execute()).phase("start")
    }
}
