//! `exec`: another program in a running container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use crate::cgroup::Handle;
use crate::error::{Context, Error, Result, bail};
use crate::launch::child::Join;
use crate::launch::exec;
use crate::launch::exec_fifo::ExecFifo;
use crate::launch::handshake::{LaunchCallbacks, Launched};
use crate::log::{regain_stderr, success};
use crate::plan::INNER_CGROUP;
use crate::process::Process;
use crate::process::console;
use crate::process::foreground::{Foreground, Terminal};
use crate::seccomp::Program;
use crate::selfexe::Protected;
use crate::sys::{self, ns};

use super::claim::Claim;
use super::create::{Console, open_console, send_pidfd, write_pid};
use super::{Container, Status, agent};

/// How long an exec waits while the container is frozen, by itself or somebody else.
const FROZEN_LIMIT: Duration = Duration::from_secs(10);

/// The input of `exec`.
pub struct ExecRequest {
    /// The compiled process.
    pub process: Process,
    /// Where the terminal goes.
    pub console: Console,
    /// Do not wait for the end.
    pub detach: bool,
    /// Absolute.
    pub pid_file: Option<PathBuf>,
    /// A socket for the pidfd of the process; absolute.
    pub pidfd_socket: Option<PathBuf>,
    /// A cgroup below the container's, to be born in.
    pub cgroup: Option<PathBuf>,
    /// Whether the container may be frozen: the program then starts when it is thawed.
    pub ignore_paused: bool,
}

/// Runs the program; its exit code, or 0 at once when detached.
pub fn exec(container: &Container, request: ExecRequest, _: Protected) -> Result<u8> {
    let init = container.living_init()?;
    match init.as_ref().map_or_else(|| container.status(), |_| container.status_of_living())? {
        Status::Stopped => bail!("cannot exec in a stopped container: container not running"),
        Status::Creating => bail!("cannot exec in a container that is being created"),
        Status::Paused if !request.ignore_paused => {
            bail!("cannot exec in a paused container (use --ignore-paused to override)")
        }
        _ => {}
    }
    sys::fd::close_on_exec_from(3).context("mark inherited descriptors close-on-exec")?;
    let foreground = (!request.detach).then(Foreground::block_signals).transpose().context("block signals")?;
    let has_socket = matches!(request.console, Console::Socket(_));
    let (socket, controller) = open_console(request.console).phase("terminal")?;
    let handle = request.pidfd_socket.map(|path| console::connect(&path, console::TO_PIDFD)).transpose()?;
    let (init_pid, init) = init.ok_or_else(|| Error::new("container not running"))?;
    log::trace!("container found");
    let waits_for_thaw = request.ignore_paused;
    let mut callbacks = ExecCallbacks { container, init_pid, controller, handle, terminal: None, waits_for_thaw };
    let launched = launch(&mut callbacks, init, request.process, socket, request.cgroup.as_deref())?;
    let terminal = callbacks.terminal;
    if has_socket {
        regain_stderr();
    }
    success();
    // Late: once the file exists, callers take the exit code for that of the program.
    if let Some(file) = &request.pid_file {
        write_pid(file, launched.pid)?;
    }
    let Some(foreground) = foreground else {
        launched.keep();
        return Ok(0);
    };
    let pidfd = launched.pidfd();
    let forward = |signal: i32| {
        // It may be dead already: the wait returns at once.
        let _ = sys::pid::signal(pidfd, signal);
    };
    let ended = foreground.run(launched.pid, pidfd, terminal, forward, None).context("wait for the program")?;
    regain_stderr();
    log::trace!("program ended");
    launched.keep();
    Ok(ended.exit_code())
}

/// The callbacks while the process is started.
struct ExecCallbacks<'a> {
    container: &'a Container,
    /// The container's init.
    init_pid: Pid,
    /// Where its terminal comes from.
    controller: Option<OwnedFd>,
    /// Who gets the pidfd.
    handle: Option<OwnedFd>,
    terminal: Option<Terminal>,
    /// Whether to wait as long as the container is frozen.
    waits_for_thaw: bool,
}

impl LaunchCallbacks for ExecCallbacks<'_> {
    fn publish(&mut self, pid: Pid) -> Result<()> {
        let attach = |socket: OwnedFd| Terminal::attach(console::receive(socket.as_fd())?);
        self.terminal = self.controller.take().map(attach).transpose()?;
        self.handle.take().map_or(Ok(()), |socket| send_pidfd(socket, true, pid))
    }

    fn send_to_agent(&mut self, pid: Pid, listener: BorrowedFd<'_>) -> Result<()> {
        let shut = ExecFifo::is_waiting(self.container.directory.path())?;
        let status = if shut { Status::Created } else { Status::Running };
        agent::tell(&self.container.record, (status.word(), self.init_pid.as_raw()), pid, listener)
    }

    fn wait_error(&self, waited: Duration) -> Option<Error> {
        let frozen = || matches!(self.container.status(), Ok(Status::Paused));
        if waited < FROZEN_LIMIT || self.waits_for_thaw || !frozen() {
            return None;
        }
        Some(
            Error::new("the container was frozen while the process was created in its cgroup")
                .hint("resume it, or wait for that with --ignore-paused"),
        )
    }
}

fn launch(
    callbacks: &mut ExecCallbacks<'_>,
    init: OwnedFd,
    process: Process,
    socket: Option<OwnedFd>,
    below: Option<&Path>,
) -> Result<Launched> {
    let (container, pid) = (callbacks.container, callbacks.init_pid);
    let record = &container.record;
    let all = record.kinds();
    let filter = || container.directory.seccomp().and_then(|bytes| Program::from_bytes(&bytes));
    let seccomp = record.seccomp.then(filter).transpose()?;
    let cgroup = cgroup_dir(container, pid, below)?;
    let where_init_is = || container.cgroup("run a program")?.open_that_of(pid);
    if let Some(group) = &record.resctrl {
        // The runtime itself moves there, so that the program is born there.
        group.add(nix::unistd::getpid()).phase("cgroup")?;
    }
    let unit = record.cgroup.as_ref().filter(|cgroup| cgroup.unit().is_some()).map(Handle::of);
    let attach = unit.map(|unit| move |process| unit.attach(process, pid, below));
    let request = exec::ExecLaunch {
        join: Join { init, kinds: all & !ns::Flags::PID, root: root_to_enter(container, all)? },
        own_pid_namespace: all.contains(ns::Flags::PID),
        user_namespace_of: (all.contains(ns::Flags::USER)).then_some(pid),
        process,
        cgroup: cgroup.as_ref().map(AsFd::as_fd),
        instead: below.is_none().then_some(&where_init_is),
        attach: attach.as_ref().map(|attach| attach as &dyn Fn(Pid) -> Result<()>),
        console: socket,
        seccomp,
        publish_first: callbacks.controller.is_some() || callbacks.handle.is_some(),
    };
    exec::exec(request, callbacks)
}

/// The container's root, which a mount namespace would have as its own: without one it is for each process to change to.
fn root_to_enter(container: &Container, kinds: ns::Flags) -> Result<Option<OwnedFd>> {
    if kinds.contains(ns::Flags::MOUNT) {
        return Ok(None);
    }
    let path = &container.record.rootfs;
    let root = open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    root.map(Some).with_context(|| format!("open the container's root {}", path.display())).phase("mounts")
}

/// The cgroup to be born in: the named one below the container's, else the container's. systemd and nested runtimes move
/// their processes to a child and enable controllers; the container's cgroup then takes no processes. If init was put into
/// a cgroup below, the container's stays empty for that.
fn cgroup_dir(container: &Container, init: Pid, below: Option<&Path>) -> Result<Option<OwnedFd>> {
    if let Some(below) = below {
        let open = || container.cgroup("run a program below")?.open_below(below);
        return open().map(Some).field(|| "--cgroup");
    }
    let Some(cgroup) = &container.record.cgroup else { return Ok(None) };
    let init_is_below = container.record.annotations.get(INNER_CGROUP).is_some_and(|name| !name.is_empty());
    // If its own is lost, the cgroup of init.
    let init_is_below = init_is_below || container.claim(cgroup)? == Claim::None;
    let cgroup = Handle::of(cgroup);
    if init_is_below { cgroup.open_that_of(init) } else { cgroup.open_for(init) }.map(Some)
}
