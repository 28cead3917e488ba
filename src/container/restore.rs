//! `restore`: makes a container from the images of a checkpoint, with an undo for every step.

mod verify;

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use crate::cgroup::Location;
use crate::checkpoint::{self, Criu, CriuContext, Notification, PRE_RESUME, RequestType, mounts, restore};
use crate::error::{Context, Error, Result, ensure};
use crate::hooks::{HookContext, Stage};
use crate::input;
use crate::namespaces::{JoinedNamespace, Origin};
use crate::plan::Plan;
use crate::plan::annotations::CRIU_OPTIONS;
use crate::process::foreground::{Foreground, Terminal};
use crate::process::{LANDLOCK, console};
use crate::rootfs::{OVERLAY, Restored};
use crate::seccomp::Program;
use crate::sys::{self, Errno, ns};

use super::checkpoint::{DESCRIPTORS, config_file, make as make_directory};
use super::create::{Console, PidFile, Rollback};
use super::id::Id;
use super::record::Record;
use super::store::Store;
use super::{Container, delete, start, state};
use verify::{Expected, tree};

/// The input of `restore`.
pub struct RestoreRequest {
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
    /// Where the images are; absolute.
    pub image_path: PathBuf,
    /// Where the log goes; absolute. `None`: beside the images.
    pub work_path: Option<PathBuf>,
    /// The options for CRIU.
    pub flags: restore::Flags,
}

/// Where the root is mounted for CRIU.
const CRIU_ROOT: &str = "criu-root";

/// How long a killed process may take to exit, in milliseconds.
const DEATH_MS: u16 = 10_000;

/// Restores a container, and leaves it running.
pub fn detached(request: RestoreRequest, store: &Store) -> Result<()> {
    let (container, _, _) = make(request, store)?;
    start::after_or_destroy(container).map(drop)
}

/// Restores a container, and waits for its end; its exit code.
pub fn foreground(request: RestoreRequest, store: &Store) -> Result<u8> {
    let foreground = Foreground::block_signals().context("block signals")?;
    let (container, pidfd, terminal) = make(request, store)?;
    let forward = |signal: i32| {
        // It may be dead already: the wait returns at once.
        let _ = sys::pid::signal(pidfd.as_fd(), signal);
    };
    let pid = Pid::from_raw(container.record.pid);
    let wait = || foreground.run(pid, pidfd.as_fd(), terminal, forward, None).context("wait for the container");
    match start::after(&container).and_then(|()| wait()) {
        Ok(ended) => delete::destroy(container).map(|()| ended.exit_code()),
        Err(error) => Err(delete::destroy_for(container, error)),
    }
}

/// Makes the container. A failure undoes all steps.
fn make(mut request: RestoreRequest, store: &Store) -> Result<(Container, OwnedFd, Option<Terminal>)> {
    sys::fd::close_on_exec_from(3).context("mark inherited descriptors close-on-exec")?;
    let program = checkpoint::find()?;
    refuse(&request.plan)?;
    ensure!(
        request.image_path.join("inventory.img").is_file(),
        "{} has no checkpoint: inventory.img is missing",
        request.image_path.display()
    );
    let work_path = request.work_path.clone().unwrap_or_else(|| request.image_path.clone());
    make_directory(&work_path)?;
    let socket = match &request.console {
        Console::Socket(path) => Some(console::connect(path, console::TO_CONSOLE)?),
        Console::None | Console::Foreground => None,
    };
    store.ensure_free(&request.id)?;
    let rootfs = request.plan.rootfs.take().ok_or_else(|| Error::new("internal error: the rootfs was opened twice"))?;
    let (restored, sources) = rootfs.prepare_restore(request.plan.process.may_mount()).phase("mounts")?;
    let masked: Vec<String> = rootfs.masked().collect();
    let entries = request.plan.namespaces.open().phase("namespaces")?;
    let (rollback, record) = Rollback::make(&request.id, request.bundle.clone(), &request.plan, store)?;
    let facts = facts(&request, &rollback, sources, masked, &entries)?;
    let mut making = Restore {
        record: Record { process: Some(request.plan.kept.process.clone()), ..record },
        request: &request,
        rollback: &rollback,
        restored: &restored,
        entries: &entries,
        socket,
        init: None,
        terminal: None,
        written: None,
        hooks_begun: false,
    };
    let outcome = making.restore(&program, facts, &work_path);
    let Restore { record, terminal, written, hooks_begun, .. } = making;
    match outcome {
        Ok(pidfd) => {
            if let Some(file) = written {
                file.keep();
            }
            Ok((Container { directory: rollback.keep(), record }, pidfd, terminal))
        }
        Err(error) => {
            drop((written, terminal));
            if rollback.remove() && hooks_begun {
                delete::run_poststop(&record);
            }
            Err(error)
        }
    }
}

/// Refuses what CRIU would not restore as the configuration says.
fn refuse(plan: &Plan) -> Result<()> {
    if plan.kept.annotations.get(LANDLOCK).is_some_and(|value| !value.is_empty()) {
        return Err(Error::new(
            "a process that Landlock confines cannot be restored: CRIU does not restore its ruleset",
        )
        .field(format!("/annotations/{LANDLOCK}")));
    }
    if plan.kept.annotations.contains_key(OVERLAY) {
        return Err(Error::new("a root that is an overlay of the runtime's cannot be restored")
            .field(format!("/annotations/{OVERLAY}")));
    }
    if plan.namespaces.origin(ns::Flags::USER) != Origin::Host {
        return Err(Error::new("a container with a user namespace cannot be restored yet").field("/linux/namespaces"));
    }
    if plan.seccomp.as_ref().is_some_and(Program::notifies) {
        return Err(Error::new(
            "a container with a seccomp agent cannot be restored: CRIU does not restore the notify descriptor",
        )
        .field("/linux/seccomp/listenerPath"));
    }
    Ok(())
}

fn facts(
    request: &RestoreRequest,
    rollback: &Rollback,
    sources: Vec<(String, PathBuf)>,
    masked: Vec<String>,
    entries: &[JoinedNamespace],
) -> Result<restore::RestoreFacts> {
    let make = |name: &str| {
        let path = rollback.directory().file(name);
        fs::create_dir(&path).with_context(|| format!("make the directory {}", path.display()))?;
        Ok::<PathBuf, Error>(path)
    };
    let path_of = |entry: &JoinedNamespace| {
        let path = request.plan.namespaces.joined_path(entry.kind).map(Path::to_owned).unwrap_or_default();
        (entry.kind.proc_name, path, entry.fd.as_raw_fd())
    };
    // The standard streams of this process become those of the container.
    let (directories, files) = masked.into_iter().partition(|path| Path::new(path).is_dir());
    let descriptors = request.image_path.join(DESCRIPTORS);
    // The images are not trusted: a FIFO among them must not block this process.
    let streams = match input::read_regular(&descriptors) {
        Ok(text) => restore::streams(&text)?,
        Err(error) if error.errno() == Some(Errno::ENOENT) => Vec::new(),
        Err(error) => return Err(error.context(format!("read {}", descriptors.display()))),
    };
    Ok(restore::RestoreFacts {
        root: make(CRIU_ROOT)?,
        cgroup: rollback.cgroup.as_ref().map(|cgroup| cgroup.location().to_string()),
        mounts: sources,
        masked_files: files,
        masked_directories: directories,
        empty: make("empty")?,
        joined: entries.iter().map(path_of).collect(),
        streams,
        has_no_network: !has_network(&request.image_path)?,
        config_file: config_file(request.plan.kept.annotations.get(CRIU_OPTIONS).map(String::as_str)),
    })
}

/// Whether the images have network devices: they were not left out.
fn has_network(images: &Path) -> Result<bool> {
    let entries = fs::read_dir(images).with_context(|| format!("list {}", images.display()))?;
    let mut names = entries.flatten().map(|entry| entry.file_name());
    Ok(names.any(|name| name.to_string_lossy().starts_with("netdev-")))
}

/// A container that is being restored.
struct Restore<'a> {
    record: Record,
    request: &'a RestoreRequest,
    rollback: &'a Rollback,
    restored: &'a Restored,
    entries: &'a [JoinedNamespace],
    /// Who gets the terminal.
    socket: Option<OwnedFd>,
    /// The first process, once it is there.
    init: Option<OwnedFd>,
    terminal: Option<Terminal>,
    written: Option<PidFile>,
    /// Whether a hook may have run.
    hooks_begun: bool,
}

impl Restore<'_> {
    /// Has CRIU restore it, and returns the pidfd of init. A failure kills every process.
    fn restore(&mut self, program: &Path, facts: restore::RestoreFacts, work: &Path) -> Result<OwnedFd> {
        let outcome = self.ask(program, facts, work);
        // It is empty here: the mount is only in CRIU's mount namespace.
        let _ = fs::remove_dir(self.rollback.directory().file(CRIU_ROOT));
        if outcome.is_err() {
            self.end();
        }
        outcome?;
        self.init.take().ok_or_else(|| Error::new("criu reported no process"))
    }

    fn ask(&mut self, program: &Path, facts: restore::RestoreFacts, work: &Path) -> Result<()> {
        let filter = self.request.plan.seccomp.as_ref().map(Program::to_bytes);
        filter.map_or(Ok(()), |filter| self.rollback.directory().keep_seccomp(&filter))?;
        let cgroup = self.rollback.cgroup.as_ref();
        let (mut criu, options) = self.start(program, facts, work)?;
        let gathered = cgroup.map_or(Ok(()), |cgroup| {
            cgroup.request_scope(criu.pid())?;
            cgroup.await_scope(criu.pid())
        });
        let outcome = gathered.phase("cgroup").and_then(|()| self.limit()).map_err(checkpoint::Failure::from);
        let outcome = outcome.and_then(|()| criu.ask(RequestType::Restore, &options, &mut |told| self.notified(told)));
        match &outcome {
            Err(failure) if failure.step.as_deref() == Some(PRE_RESUME) => {
                // Init ends only when all others are reaped; CRIU, their tracer, does not reap them.
                self.kill();
                criu.abandon();
            }
            _ => criu.finish(),
        }
        outcome
            .map(drop)
            .map_err(|failure| checkpoint::explain(RequestType::Restore, failure, &work.join(restore::LOG)))
    }

    /// Starts CRIU in its own mount namespace, with the descriptors that it needs.
    fn start(
        &self,
        program: &Path,
        facts: restore::RestoreFacts,
        work: &Path,
    ) -> Result<(Criu, checkpoint::RpcOptions)> {
        let root = &self.request.plan.root_path;
        let pass: Vec<BorrowedFd<'_>> = self.entries.iter().map(|entry| entry.fd.as_fd()).collect();
        let cgroup = self.rollback.cgroup.as_ref();
        let procs = cgroup.filter(|cgroup| !cgroup.is_unit()).map(|cgroup| procs(cgroup.location())).transpose()?;
        // Before any process of the container exists.
        self.limit_early()?;
        let private = sys::criu::PrivateMounts::enter(root, &facts.root);
        let private = private.with_context(|| format!("mount {} for criu", root.display())).phase("criu")?;
        let open = |path: &Path| File::open(path).with_context(|| format!("open {}", path.display()));
        let (images, work) = (open(&self.request.image_path)?, open(work)?);
        let options = restore::request(&self.request.flags, facts, images.as_raw_fd(), work.as_raw_fd())?;
        let directories = vec![images, work];
        let criu = Criu::start(program, CriuContext { pass: &pass, streams: true, procs, directories });
        private.leave().context("return to the mount namespace of the host")?;
        Ok((criu.phase("criu")?, options))
    }

    /// Limits of a cgroup that is there.
    fn limit_early(&self) -> Result<()> {
        let ours = self.rollback.cgroup.as_ref().is_some_and(|cgroup| !cgroup.is_unit());
        if ours { self.limit() } else { Ok(()) }
    }

    /// Limits and device rules.
    fn limit(&self) -> Result<()> {
        let (Some(cgroup), Some(request)) = (&self.rollback.cgroup, &self.request.plan.cgroup) else { return Ok(()) };
        cgroup.apply(request).phase("cgroup")
    }

    fn notified(&mut self, told: Notification<'_>) -> Result<()> {
        if self.init.is_none()
            && let Some(pid) = told.pid
        {
            self.enter_record(pid)?;
        }
        match (told.step, told.terminal) {
            ("setup-namespaces", _) => self.run_hooks(),
            ("orphan-pts-master", Some(controller)) => self.take_terminal(controller).phase("terminal"),
            (PRE_RESUME, _) => self.verify().phase("verify"),
            _ => Ok(()),
        }
    }

    /// From here on a `delete` finds the process.
    fn enter_record(&mut self, pid: Pid) -> Result<()> {
        let pidfd = sys::pid::open(pid).with_context(|| format!("open a pidfd of init, process {pid}"))?;
        let pidfd = self.init.insert(pidfd);
        self.record.take_init(pid, pidfd.as_fd())?;
        self.record.cgroup = self.rollback.cgroup.as_ref().map(|cgroup| cgroup.location().clone());
        self.record.resctrl.as_ref().map_or(Ok(()), |group| group.add(pid)).phase("cgroup")?;
        self.rollback.directory().write(&self.record)
    }

    fn run_hooks(&mut self) -> Result<()> {
        let hooks = &self.request.plan.hooks;
        if hooks.prestart.is_empty() && hooks.create_runtime.is_empty() {
            return Ok(());
        }
        self.hooks_begun = true;
        let state = state::for_hooks(&self.record, "creating", Some(self.record.pid));
        let directory = Some(self.request.bundle.as_path());
        let surroundings = HookContext { state: &state, directory, ..HookContext::default() };
        hooks.prestart.run(Stage::Prestart, &surroundings).phase("prestart")?;
        hooks.create_runtime.run(Stage::CreateRuntime, &surroundings).phase("createRuntime")
    }

    fn take_terminal(&mut self, controller: OwnedFd) -> Result<()> {
        match (&self.request.console, &self.socket) {
            (Console::Socket(_), Some(socket)) => console::forward(socket.as_fd(), controller.as_fd()),
            (Console::Foreground, _) => {
                self.terminal = Some(Terminal::attach(controller)?);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Compares the restored processes with the configuration. They are still stopped by CRIU and have executed no instruction
    /// of their own. Then it records init.
    fn verify(&mut self) -> Result<()> {
        let init = Pid::from_raw(self.record.pid);
        // What the images say of cgroups that were there may have been restored, too.
        self.limit()?;
        let cgroup = self.rollback.cgroup.as_ref().map(|cgroup| cgroup.location());
        Expected { plan: &self.request.plan, entries: self.entries, cgroup }.verify(init)?;
        let table = format!("/proc/{init}/mountinfo");
        let table = fs::read_to_string(&table).with_context(|| format!("read {table}"))?;
        let points: Vec<String> = mounts::parse(&table).into_iter().map(|entry| entry.point).collect();
        self.restored.verify(init, &points)?;
        let file = self.request.pid_file.clone();
        self.written = file.map(|file| PidFile::write(file, init)).transpose()?;
        Ok(())
    }

    /// Kills the restored processes: the cgroup, and init with its pid namespace.
    fn kill(&self) {
        if let Some(init) = &self.init {
            let _ = sys::pid::signal(init.as_fd(), libc::SIGKILL);
        }
        for pid in tree(Pid::from_raw(self.record.pid)).unwrap_or_default() {
            if let Ok(pidfd) = sys::pid::open(pid) {
                let _ = sys::pid::signal(pidfd.as_fd(), libc::SIGKILL);
            }
        }
    }

    /// Kills the restored processes, and reaps init, which is a child.
    fn end(&mut self) {
        let Some(_) = &self.init else { return };
        self.kill();
        if let Some(init) = self.init.take()
            && sys::pid::ended_within(init.as_fd(), DEATH_MS) == Ok(true)
        {
            let _ = sys::pid::reap_dead(init.as_fd());
        }
    }
}

fn procs(location: &Location) -> Result<OwnedFd> {
    let path = Path::new(&location.directory()).join("cgroup.procs");
    let file = File::options().write(true).open(&path).with_context(|| format!("open {}", path.display()))?;
    Ok(file.into())
}
