//! `create`: from a plan to a container that waits at the exec fifo, with an undo for every step.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use crate::cgroup::{self, Cgroup, Handle};
use crate::error::{Context, Error, Result};
use crate::launch::exec_fifo::ExecFifo;
use crate::launch::handshake::{LaunchCallbacks, Launched};
use crate::launch::host;
use crate::log::regain_stderr;
use crate::namespaces::Origin;
use crate::plan::Plan;
use crate::process::console;
use crate::process::foreground::Terminal;
use crate::resctrl;
use crate::rootfs::{self, Guest, Rootfs};
use crate::seccomp::Program;
use crate::selfexe::Protected;
use crate::sys::{self, ns};

use super::id::Id;
use super::notify::{self, Relay};
use super::record::{Record, VERSION};
use super::store::{Directory, Reserved, Store, replace};
use super::{Container, agent, delete, start, state};

/// The input of `create` and `run`.
pub struct CreateRequest {
    /// The container's id.
    pub id: Id,
    /// Absolute.
    pub bundle: PathBuf,
    /// The compiled configuration.
    pub plan: Plan,
    /// Where the terminal goes.
    pub console: Console,
    /// Absolute.
    pub pid_file: Option<PathBuf>,
    /// A socket for the pidfd of init; absolute.
    pub pidfd_socket: Option<PathBuf>,
    /// The service manager's socket; the plan mounts [`notify::place`] for it.
    pub notify: Option<OsString>,
}

/// Where the container's terminal goes.
pub enum Console {
    /// It has none.
    None,
    /// Its master side is sent to this socket.
    Socket(PathBuf),
    /// To this process, which relays it.
    Foreground,
}

impl Console {
    /// The rules of runc: a detached terminal needs a socket, and a socket needs a detached terminal.
    pub fn choose(terminal: bool, detached: bool, socket: Option<PathBuf>) -> Result<Console> {
        match (terminal, detached, socket) {
            (true, true, None) => {
                Err(Error::new("cannot allocate tty if it will detach without setting console socket")
                    .field("/process/terminal")
                    .hint("give --console-socket, or set process.terminal to false"))
            }
            (true, true, Some(path)) => Ok(Console::Socket(path)),
            (_, _, Some(_)) => Err(Error::new("cannot use console socket if it will not detach or allocate tty")
                .hint("leave out --console-socket, or set process.terminal to true and give --detach")),
            (true, false, None) => Ok(Console::Foreground),
            (false, _, None) => Ok(Console::None),
        }
    }
}

/// A container that was just created, with what undoes it.
pub struct Created {
    /// With its record.
    pub record: Record,
    /// Its init.
    pub launched: Launched,
    /// The container's terminal, when this process relays it.
    pub terminal: Option<Terminal>,
    /// Its notify socket, unless `start` makes it.
    pub relay: Option<Relay>,
    rollback: Rollback,
}

impl Created {
    /// Keeps everything.
    pub fn keep(self) -> (Container, OwnedFd) {
        (Container { directory: self.rollback.keep(), record: self.record }, self.launched.keep())
    }
}

/// What exists of a container besides its processes. Drop removes it, the record last: if something cannot be removed, the
/// record stays, for `delete`.
pub(super) struct Rollback {
    reserved: Option<Reserved>,
    pub(super) cgroup: Option<Cgroup>,
    resctrl: Option<resctrl::Group>,
    /// Mounts on the rootfs of a container without a mount namespace.
    guest: Option<(Guest, PathBuf)>,
}

impl Rollback {
    /// Makes the record, before anything else, then the cgroup and the resctrl group.
    pub(super) fn make(id: &Id, bundle: PathBuf, plan: &Plan, store: &Store) -> Result<(Rollback, Record)> {
        let place = |request: &cgroup::Request| or_none(request, cgroup::Mount::find().and_then(|m| request.place(m)));
        let mut place = plan.cgroup.as_ref().map(place).transpose().phase("cgroup")?.flatten();
        let resctrl = plan.resctrl.as_ref().map(resctrl::Request::place).transpose().phase("cgroup")?;
        let guest = plan.rootfs.as_ref().map_or(Ok(None), Rootfs::guest).phase("mounts")?;
        let (reserved, mut record) = store.reserve(id, |home| {
            place.iter_mut().for_each(|place| place.belong_to(home));
            Record { resctrl, guest, ..intent(id, bundle, plan, place.clone()) }
        })?;
        let mut rollback = Rollback { reserved: Some(reserved), cgroup: None, resctrl: None, guest: None };
        log::trace!("id reserved");
        let make = |(request, place): (&cgroup::Request, _)| or_none(request, request.create(place));
        rollback.cgroup = plan.cgroup.as_ref().zip(place).map(make).transpose().phase("cgroup")?.flatten();
        if let (Some(request), Some(group)) = (&plan.resctrl, &record.resctrl) {
            request.make(group).phase("cgroup")?;
            rollback.resctrl = Some(group.clone());
        }
        if let Some(guest) = &mut record.guest {
            // `delete` finds it by the record even if this fails half-way.
            let half = rollback.guest.insert((guest.clone(), record.rootfs.clone()));
            guest.mount(&record.rootfs).phase("mounts")?;
            half.0 = guest.clone();
        }
        Ok((rollback, record))
    }

    pub(super) fn directory(&self) -> &Directory {
        self.reserved.as_deref().expect("it is only taken when the pieces end")
    }

    pub(super) fn keep(mut self) -> Directory {
        self.cgroup.take().map(Cgroup::keep);
        (self.resctrl, self.guest) = (None, None);
        self.reserved.take().expect("it is only taken when the pieces end").keep()
    }

    /// Removes all, and returns whether that succeeded. Otherwise `delete` has to remove the rest and run poststop hooks.
    pub(super) fn remove(mut self) -> bool {
        let gone = self.undo();
        self.reserved = None;
        gone
    }

    /// Removes all but the record, which stays if something cannot be removed.
    fn undo(&mut self) -> bool {
        let resctrl = self.resctrl.take().map_or(Ok(()), |group| group.remove());
        let guest = self.guest.take().map_or(Ok(()), |(guest, rootfs)| guest.take_off(&rootfs));
        let undone = self.cgroup.take().map_or(Ok(()), Cgroup::undo).and(resctrl).and(guest);
        if let Err(error) = &undone {
            log::warn!("{error}");
            self.reserved.take().map(Reserved::keep);
        }
        undone.is_ok()
    }
}

impl Drop for Rollback {
    fn drop(&mut self) {
        self.undo();
    }
}

/// Creates a container that waits for `start`.
pub fn create(request: CreateRequest, store: &Store, protected: Protected) -> Result<()> {
    make(request, store, true, protected)?.keep();
    Ok(())
}

/// Creates and starts a container, and leaves it running.
pub fn run_detached(request: CreateRequest, store: &Store, protected: Protected) -> Result<()> {
    let has_socket = matches!(request.console, Console::Socket(_));
    let mut made = make(request, store, false, protected)?;
    if has_socket {
        regain_stderr();
    }
    let relay = made.relay.take();
    let (container, pidfd) = made.keep();
    let container = start::after_or_destroy(container)?;
    relay.map_or(Ok(()), |relay| relay.until_ready(pidfd.as_fd(), container.record.pid))
}

/// Creates a container: with an exec fifo for `create`, without one for `run`. A failure undoes all steps in reverse order,
/// by the drops of the guards; at last it runs poststop hooks, if other hooks have begun (runtime-spec 1.3, "Lifecycle").
pub fn make(request: CreateRequest, store: &Store, waits_for_start: bool, _: Protected) -> Result<Created> {
    let CreateRequest { id, bundle, plan, console, pid_file, pidfd_socket, notify } = request;
    // Hooks must not inherit descriptors that the caller leaked.
    sys::fd::close_on_exec_from(3).context("mark inherited descriptors close-on-exec")?;
    let (socket, controller) = open_console(console).phase("terminal")?;
    let handle = pidfd_socket.map(|path| console::connect(&path, console::TO_PIDFD)).transpose()?;
    store.ensure_free(&id)?;
    let (rollback, record) = Rollback::make(&id, bundle.clone(), &plan, store)?;
    let relay = notify.map(|outer| make_relay(rollback.directory(), outer, waits_for_start)).transpose()?.flatten();
    let exec_fifo =
        waits_for_start.then(|| ExecFifo::make(rollback.directory().path(), plan.seccomp.as_ref())).transpose()?;
    log::trace!("cgroup and exec fifo created");
    // First: the program has to see the final size of its terminal; and once it runs it is too late for an error about
    // the pid file.
    let publish_first = controller.is_some() || (!waits_for_start && (pid_file.is_some() || handle.is_some()));
    let hooks_record = record.clone();
    let mut making = CreateCallbacks {
        record: Record { process: Some(plan.kept.process.clone()), ..record },
        filter: plan.seccomp.as_ref().map(Program::to_bytes),
        memory_limit: plan.cgroup.as_ref().and_then(cgroup::Request::memory_limit),
        rollback: &rollback,
        controller,
        handle,
        pid_file,
        terminal: None,
        written: None,
        hooks_begun: false,
    };
    let request = host::CreateLaunch {
        plan,
        bundle: &bundle,
        cgroup: rollback.cgroup.as_ref(),
        exec_fifo,
        console: socket,
        publish_first,
        state: Box::new(move |status, pid| state::for_hooks(&hooks_record, status, Some(pid))),
    };
    let launched = host::create(request, &mut making);
    let CreateCallbacks { record, terminal, written, hooks_begun, .. } = making;
    match launched {
        Ok(launched) => {
            if let Some(file) = written {
                file.keep();
            }
            Ok(Created { record, launched, terminal, relay, rollback })
        }
        Err(error) => {
            drop((written, terminal));
            remove_overlay_workdir(&record);
            if rollback.remove() && hooks_begun {
                delete::run_poststop(&record);
            }
            Err(error)
        }
    }
}

/// The callbacks while init is started.
struct CreateCallbacks<'a> {
    record: Record,
    /// The seccomp filter to record.
    filter: Option<Vec<u8>>,
    /// Its memory limit in bytes.
    memory_limit: Option<u64>,
    rollback: &'a Rollback,
    /// Where its terminal comes from.
    controller: Option<OwnedFd>,
    /// Who gets the pidfd.
    handle: Option<OwnedFd>,
    pid_file: Option<PathBuf>,
    terminal: Option<Terminal>,
    written: Option<PidFile>,
    /// Whether a hook may have run.
    hooks_begun: bool,
}

impl LaunchCallbacks for CreateCallbacks<'_> {
    /// Runs while the container's half mounts. The lock on the directory still means "creating".
    fn record(&mut self, pid: Pid) -> Result<()> {
        self.record.resctrl.as_ref().map_or(Ok(()), |group| group.add(pid)).phase("cgroup")?;
        self.filter.take().map_or(Ok(()), |filter| self.rollback.directory().keep_seccomp(&filter))?;
        let cgroup = self.rollback.cgroup.as_ref();
        cgroup.map_or(Ok(()), |cgroup| cgroup.await_scope(pid)).phase("cgroup")?;
        self.record.cgroup = cgroup.map(|cgroup| cgroup.location().clone());
        self.record_successor(pid)
    }

    fn record_successor(&mut self, pid: Pid) -> Result<()> {
        // A child keeps its pid until it is reaped. If it is dead already, the handshake reports why.
        let pidfd = sys::pid::open(pid).with_context(|| format!("open a pidfd of init, process {pid}"))?;
        self.record.take_init(pid, pidfd.as_fd())?;
        self.rollback.directory().write(&self.record)
    }

    fn hooks_begin(&mut self) {
        self.hooks_begun = true;
    }

    fn publish(&mut self, pid: Pid) -> Result<()> {
        let attach = |socket: OwnedFd| Terminal::attach(console::receive(socket.as_fd())?);
        self.terminal = self.controller.take().map(attach).transpose()?;
        self.handle.take().map_or(Ok(()), |socket| send_pidfd(socket, false, pid))?;
        self.written = self.pid_file.take().map(|file| PidFile::write(file, pid)).transpose()?;
        Ok(())
    }

    fn send_to_agent(&mut self, pid: Pid, listener: BorrowedFd<'_>) -> Result<()> {
        agent::tell(&self.record, ("creating", pid.as_raw()), pid, listener)
    }

    fn out_of_memory(&self, killed: bool) -> Option<Error> {
        Handle::of(self.rollback.cgroup.as_ref()?.location()).out_of_memory(self.memory_limit, killed)
    }
}

/// The notify socket of the container; if it waits for `start`, that command opens the socket.
fn make_relay(directory: &Directory, outer: OsString, waits_for_start: bool) -> Result<Option<Relay>> {
    notify::prepare(directory)?;
    if waits_for_start { Ok(None) } else { Relay::listen(directory, &outer).map(Some) }
}

/// `None` if the container may run without a cgroup (rootless).
fn or_none<T>(request: &cgroup::Request, outcome: Result<T>) -> Result<Option<T>> {
    outcome.map(Some).or_else(|error| request.allow_none(error).map(|()| None))
}

/// Removes what the rootfs left on the host: the work directory of an overlay.
pub(super) fn remove_overlay_workdir(record: &Record) {
    if let Some(overlay) = record.annotations.get(rootfs::OVERLAY) {
        rootfs::remove_overlay_workdir(overlay, &record.bundle, &record.id);
    }
}

/// The record of a container that does not exist yet.
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
        identity: None,
        boot: None,
        cgroup,
        device_rules: plan.cgroup.as_ref().map(cgroup::Request::device_rules),
        resctrl: None,
        guest: None,
        namespaces: plan.namespaces.unshared().into_iter().map(str::to_owned).collect(),
        joined: plan.namespaces.joined_files().map(str::to_owned).collect(),
        own_pid_namespace: plan.namespaces.origin(ns::Flags::PID) == Origin::New,
        seccomp: plan.seccomp.is_some(),
        seccomp_agent: plan.seccomp_agent.clone(),
        process: None,
        personality: kept.personality.clone(),
        memory_policy: kept.memory_policy.clone(),
        poststart: kept.poststart.clone(),
        poststop: kept.poststop.clone(),
        annotations: kept.annotations.clone(),
    }
}

/// The socket to which the container's half sends its terminal, and the other end if the runtime relays it.
pub fn open_console(console: Console) -> Result<(Option<OwnedFd>, Option<OwnedFd>)> {
    match console {
        Console::None => Ok((None, None)),
        Console::Socket(path) => console::connect(&path, console::TO_CONSOLE).map(|socket| (Some(socket), None)),
        Console::Foreground => {
            let (ours, theirs) = console::pair()?;
            Ok((Some(theirs), Some(ours)))
        }
    }
}

/// Sends the pidfd of the child, dead or alive, over `--pidfd-socket`.
pub fn send_pidfd(socket: OwnedFd, exec: bool, pid: Pid) -> Result<()> {
    let pidfd = sys::pid::open(pid).with_context(|| format!("open process {pid}"))?;
    console::send_pidfd(socket.as_fd(), exec, pidfd.as_fd())
}

/// A pid file that was just written. Drop removes it: its number must not be taken for a container's. Empty: nothing to
/// remove.
pub(super) struct PidFile(PathBuf);

impl PidFile {
    pub(super) fn write(path: PathBuf, pid: Pid) -> Result<PidFile> {
        let made = write_pid(&path, pid)?;
        Ok(PidFile(if made { path } else { PathBuf::new() }))
    }

    pub(super) fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            // The command fails with another error already.
            let _ = std::fs::remove_file(&self.0);
        }
    }
}

/// Writes the pid file in one step: the digits without a newline (go-runc reads it with Atoi). It writes to an existing FIFO
/// or character device, replaces a regular file or a link, and refuses other files. Returns whether it made the file.
pub fn write_pid(path: &Path, pid: Pid) -> Result<bool> {
    let digits = pid.to_string();
    let what = "write the pid file";
    match std::fs::symlink_metadata(path).map(|meta| meta.file_type()) {
        Ok(kind) if kind.is_fifo() || kind.is_char_device() => {
            let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOFOLLOW;
            let file = File::options().write(true).custom_flags(flags).open(path);
            let written = file.and_then(|mut file| file.write_all(digits.as_bytes()));
            written.with_context(|| format!("write to {}", path.display())).context(what).map(|()| false)
        }
        Ok(kind) if !kind.is_file() && !kind.is_symlink() => {
            Err(Error::new(format!("{} is no regular file", path.display()))).context(what)
        }
        _ => replace(path, digits.as_bytes(), 0o666).context(what).map(|()| true),
    }
}
