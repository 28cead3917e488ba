//! `create`: from a plan to a container that waits at its gate, with an undo for every step.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use crate::cgroup;
use crate::error::{Context, Error, Result, bail};
use crate::launch::gate::Gate;
use crate::launch::host::{self, Launched};
use crate::namespaces::Origin;
use crate::plan::Plan;
use crate::process::console;
use crate::process::foreground::Terminal;
use crate::seccomp::Program;
use crate::{rootfs, sys};

use super::id::Id;
use super::record::{Record, VERSION};
use super::store::{Reserved, Store, replace};
use super::{Container, start, state};

/// What `create` and `run` are asked for.
pub struct Request {
    /// The container's id.
    pub id: Id,
    /// Absolute.
    pub bundle: PathBuf,
    /// The container, worked out.
    pub plan: Plan,
    /// Where the terminal goes.
    pub console: Console,
    /// Absolute.
    pub pid_file: Option<PathBuf>,
}

/// Where the container's terminal goes.
pub enum Console {
    /// It has none.
    None,
    /// To whoever listens on this socket.
    Socket(PathBuf),
    /// To this process, which relays it.
    Foreground,
}

impl Console {
    /// The rules of runc: a detached terminal needs a socket, and a socket needs a detached terminal.
    pub fn choose(terminal: bool, detached: bool, socket: Option<PathBuf>) -> Result<Console> {
        match (terminal, detached, socket) {
            (true, true, None) => Err(Error::new(
                "cannot allocate tty if runc will detach without setting console socket (in the words of runc)",
            )
            .field("/process/terminal")
            .hint("give --console-socket, or set process.terminal to false")),
            (true, true, Some(path)) => Ok(Console::Socket(path)),
            (_, _, Some(_)) => {
                bail!("cannot use console socket if runc will not detach or allocate tty (in the words of runc)")
            }
            (true, false, None) => Ok(Console::Foreground),
            (false, _, None) => Ok(Console::None),
        }
    }
}

/// A container just made, with what would undo it.
pub struct Made {
    /// On record.
    pub record: Record,
    /// Its first process.
    pub launched: Launched,
    /// The container's terminal, when this process relays it.
    pub terminal: Option<Terminal>,
    reserved: Reserved,
    cgroup: Option<cgroup::Cgroup>,
}

impl Made {
    /// Keeps everything.
    pub fn keep(self) -> (Container, OwnedFd) {
        if let Some(cgroup) = self.cgroup {
            cgroup.keep();
        }
        (Container { directory: self.reserved.keep(), record: self.record }, self.launched.keep())
    }
}

/// Creates a container that waits for `start`.
pub fn create(request: Request, store: &Store) -> Result<()> {
    make(request, store, true)?.keep();
    Ok(())
}

/// Creates and starts a container, and leaves it running.
pub fn run_detached(request: Request, store: &Store) -> Result<()> {
    let (container, _) = make(request, store, false)?.keep();
    start::after(&container)
}

/// Makes a container: with a gate for `create`, without one for `run`. What fails undoes all that came before it, in
/// reverse order, by the guards' drops.
pub fn make(request: Request, store: &Store, gated: bool) -> Result<Made> {
    let Request { id, bundle, plan, console, pid_file } = request;
    // Whatever the caller leaked into this process reaches no hook.
    sys::fd::close_on_exec_from(3).context("mark inherited descriptors close-on-exec")?;
    let (socket, controller) = open_console(console).phase("terminal")?;
    store.ensure_free(&id)?;
    let place = |request: &cgroup::Request| request.place(cgroup::Mount::find()?);
    let place = plan.cgroup.as_ref().map(place).transpose().phase("cgroup")?;
    let record = intent(&id, bundle.clone(), &plan, place.clone());
    let reserved = store.reserve(&id, &record)?;
    let make = |(request, place): (&cgroup::Request, _)| request.create(place);
    let cgroup = plan.cgroup.as_ref().zip(place).map(make).transpose().phase("cgroup")?;
    let gate = gated.then(|| Gate::make(reserved.path())).transpose()?;
    let filter = plan.seccomp.as_ref().map(Program::to_bytes);
    let hooks_record = record.clone();
    let mut terminal = None;
    let mut record = Record { process: Some(plan.kept.process.clone()), ..record };
    let launched = host::launch(
        host::Request {
            plan,
            bundle: &bundle,
            cgroup: cgroup.as_ref(),
            gate,
            console: socket,
            state: Box::new(move |status, pid| state::for_hooks(&hooks_record, status, Some(pid))),
        },
        |pid| {
            // While the container's half mounts. The lock tells everybody that it is not done yet.
            record.pid = pid.as_raw();
            // Of a process that is dead already the wire is to tell, not we.
            record.start_time = sys::pid::start_time(pid).unwrap_or_default();
            record.cgroup = cgroup.as_ref().map(|cgroup| cgroup.location().clone());
            filter.map_or(Ok(()), |filter| reserved.keep_seccomp(&filter))?;
            reserved.write(&record)
        },
        |pid| {
            terminal = controller.map(|socket| Terminal::attach(console::receive(socket.as_fd())?)).transpose()?;
            pid_file.as_deref().map_or(Ok(()), |file| write_pid(file, pid))
        },
    );
    let launched = launched.inspect_err(|_| sweep(&record))?;
    Ok(Made { record, launched, terminal, reserved, cgroup })
}

/// Removes what the container's root left on the host and needs no longer.
pub(super) fn sweep(record: &Record) {
    if let Some(overlay) = record.annotations.get(rootfs::OVERLAY) {
        rootfs::sweep(overlay, &record.bundle, &record.id);
    }
}

/// The record of what is about to be made.
fn intent(id: &Id, bundle: PathBuf, plan: &Plan, cgroup: Option<cgroup::Location>) -> Record {
    let kept = &plan.kept;
    Record {
        version: VERSION,
        id: id.as_str().to_owned(),
        oci_version: kept.oci_version.clone(),
        bundle,
        rootfs: plan.root_path.clone(),
        created: crate::time::now_nanoseconds(),
        pid: 0,
        start_time: 0,
        cgroup,
        namespaces: plan.namespaces.own_files().into_iter().map(str::to_owned).collect(),
        own_pid_namespace: plan.namespaces.origin(libc::CLONE_NEWPID as u64) == Origin::New,
        seccomp: plan.seccomp.is_some(),
        process: None,
        poststart: kept.poststart.clone(),
        poststop: kept.poststop.clone(),
        annotations: kept.annotations.clone(),
    }
}

/// The socket that the container's half sends its terminal to, and our end when we relay it ourselves.
pub fn open_console(console: Console) -> Result<(Option<OwnedFd>, Option<OwnedFd>)> {
    match console {
        Console::None => Ok((None, None)),
        Console::Socket(path) => console::connect(&path).map(|socket| (Some(socket), None)),
        Console::Foreground => {
            let (ours, theirs) = console::pair()?;
            Ok((Some(theirs), Some(ours)))
        }
    }
}

/// The pid file: the digits, no newline (go-runc reads it with Atoi), in one step.
pub fn write_pid(path: &Path, pid: Pid) -> Result<()> {
    replace(path, pid.to_string().as_bytes(), 0o666).context("write the pid file")
}
