//! A process of a container, init's or that of an exec: compiled on the host from `process` of the config, limited by the
//! host from outside, and executed by the child.
//!
//! A child calls the methods of [`Process`] in their order here. Names of users and groups are refused, and a program gets
//! neither a descriptor nor a working directory outside of its root.

mod capabilities;
pub mod check;
pub mod console;
mod environment;
pub mod foreground;
mod labels;
mod landlock;
mod limits;
mod loader;
mod memory;
mod options;
mod program;
mod restored;
mod schedule;
mod session;
mod user;

use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Pid, chdir, getpid};
use oci_spec::runtime as spec;

use crate::error::{Context, Error, Result, ensure};
use crate::sys::{Errno, process as kernel, sched};
use console::Size;

pub use capabilities::names as capability_names;
pub use landlock::{ANNOTATION as LANDLOCK, VERSION as LANDLOCK_VERSION};
pub use memory::policy_names as memory_policy_names;
pub use options::{ExecOptions, parse_user};
pub use restored::Thread;
pub use user::reopen_dev_null;

/// What the process depends on besides `process` of the config.
#[derive(Clone, Debug, Default)]
pub struct ProcessFacts<'a> {
    /// It is the process of an exec, not init.
    pub exec: bool,
    /// The container has a user namespace of its own.
    pub user_namespace: bool,
    /// Whether the runtime itself has no privilege over the host: not root, or root of a user namespace. Asked only when
    /// something is refused.
    pub rootless: Option<fn() -> bool>,
    /// AppArmor is enabled on the host.
    pub apparmor: bool,
    /// SELinux is enabled on the host.
    pub selinux: bool,
    /// Keep the caller's additional groups (annotation `run.oci.keep_original_groups`).
    pub keep_groups: bool,
    /// The container's id, when it gets a session keyring of its own; `None` with `--no-new-keyring`.
    pub keyring: Option<&'a str>,
    /// How many descriptors from 3 up the caller passes by socket activation (`LISTEN_FDS`).
    pub listen_fds: u32,
    /// The numbers of the descriptors of `--preserve-fds`, which follow them.
    pub preserve_fds: &'a [u32],
    /// Variables that the runtime adds, such as `NOTIFY_SOCKET=…`; they override the config.
    pub env: Vec<String>,
    /// `linux.personality`.
    pub personality: Option<&'a spec::LinuxPersonality>,
    /// `linux.memoryPolicy`.
    pub memory_policy: Option<&'a spec::LinuxMemoryPolicy>,
    /// The annotation [`LANDLOCK`].
    pub landlock: Option<&'a str>,
}

/// A compiled process. After the fork only the container's files are read: for its home directory and its program.
#[derive(Clone, Debug)]
pub struct Process {
    args: Vec<CString>,
    environment: environment::Environment,
    cwd: PathBuf,
    terminal: Option<Size>,
    user: user::User,
    capabilities: capabilities::Capabilities,
    limits: limits::Limits,
    oom_score: limits::OomScore,
    schedule: schedule::Schedule,
    affinity: schedule::Affinity,
    memory_policy: Option<memory::Policy>,
    personality: Option<u32>,
    labels: labels::Labels,
    landlock: Option<landlock::Landlock>,
    keyring: Option<CString>,
    no_new_privs: bool,
    user_namespace: bool,
    rootless: Option<fn() -> bool>,
    listen_pid: bool,
    /// Descriptors from 3 up that the program gets.
    preserved: Vec<u32>,
    /// The path of the program, once it was looked up.
    program: Option<CString>,
    /// Whether all descriptors are closed that are not the program's.
    closed: bool,
}

impl Process {
    /// Compiles the description of a process; an error names the field.
    pub fn plan(process: &spec::Process, facts: &ProcessFacts<'_>) -> Result<Process> {
        let cwd = process.cwd();
        absolute(cwd).field(|| "/process/cwd")?;
        let text = |value: &Option<String>| value.as_ref().map(String::as_str).map(str::to_owned);
        let (profile, label) = (text(process.apparmor_profile()), text(process.selinux_label()));
        let mut extra = facts.env.clone();
        if facts.listen_fds > 0 {
            // sd_listen_fds(3) compares it with its own pid, which only the program's process knows.
            extra.extend([format!("LISTEN_FDS={}", facts.listen_fds), "LISTEN_PID=1".to_owned()]);
        }
        Ok(Process {
            args: arguments(process.args().as_deref().unwrap_or_default())?,
            environment: environment::Environment::plan(process.env().as_deref().unwrap_or_default(), &extra)?,
            cwd: cwd.clone(),
            terminal: terminal(process)?,
            user: user::User::plan(process.user(), facts.keep_groups)?,
            capabilities: capabilities::Capabilities::plan(process.capabilities().as_ref()),
            limits: limits::Limits::plan(process.rlimits().as_deref().unwrap_or_default())?,
            oom_score: limits::OomScore::plan(process.oom_score_adj())?,
            schedule: schedule::Schedule::plan(process.scheduler().as_ref(), process.io_priority().as_ref())?,
            affinity: schedule::Affinity::plan(process.exec_cpu_affinity().as_ref(), facts.exec)?,
            memory_policy: facts.memory_policy.map(memory::Policy::plan).transpose().field(|| "/linux/memoryPolicy")?,
            personality: facts.personality.map(memory::personality),
            labels: labels::Labels::plan(profile.as_deref(), label.as_deref(), facts.apparmor, facts.selinux)?,
            landlock: facts.landlock.map(read_landlock).transpose()?.flatten(),
            keyring: facts.keyring.map(session::keyring_name).transpose()?,
            no_new_privs: process.no_new_privileges().unwrap_or(false),
            user_namespace: facts.user_namespace,
            rootless: facts.rootless,
            listen_pid: facts.listen_fds > 0,
            preserved: (3..).take(facts.listen_fds as usize).chain(facts.preserve_fds.iter().copied()).collect(),
            program: None,
            closed: false,
        })
    }

    /// The working directory in the container. Init's is made if it is missing; that of an exec has to exist.
    pub fn cwd(&self) -> &Path {
        &self.cwd
    }

    /// The user in the container.
    pub fn uid(&self) -> u32 {
        self.user.uid
    }

    /// The user and the group in the container.
    pub fn ids(&self) -> (u32, u32) {
        (self.user.uid, self.user.gid)
    }

    /// The initial size of the terminal, if there is one; 0 × 0 leaves that of the kernel.
    pub fn terminal(&self) -> Option<Size> {
        self.terminal
    }

    /// Is `no_new_privs` set, so that a seccomp filter needs no privilege and can be loaded last?
    pub fn no_new_privs(&self) -> bool {
        self.no_new_privs
    }

    /// The variables of the program as NAME=value; HOME is set by [`Process::prepare`].
    pub fn environment(&self) -> Vec<String> {
        self.environment.entries().iter().map(|entry| entry.to_string_lossy().into_owned()).collect()
    }

    /// Does [`Process::prepare`] need a procfs?
    pub fn needs_proc(&self) -> bool {
        self.labels.any()
    }

    // The host's side.

    /// Before the fork of an exec: moves the runtime itself to `execCPUAffinity.initial`.
    pub fn apply_initial_affinity(&self) -> Result<()> {
        self.affinity.apply_initial()
    }

    /// Right after the fork, when the child is in its cgroup: out-of-memory score and CPU affinity. Early, because the file of
    /// the score belongs to the host's root once the child is non-dumpable.
    pub fn apply_from_parent(&self, pid: Pid) -> Result<()> {
        self.oom_score.apply(pid, self.rootless)?;
        self.affinity.apply(pid)
    }

    /// When the child is ready, before it drops privileges: resource limits, scheduler and I/O priority. Late, because the
    /// limits must not make its setup fail.
    pub fn apply_rlimits_and_sched(&self, pid: Pid) -> Result<()> {
        self.limits.apply(pid)?;
        self.schedule.apply(pid)
    }

    /// As [`Process::apply_rlimits_and_sched`], for an intermediate process, from which the container process inherits. With `but_count`
    /// RLIMIT_NPROC is left to [`Process::apply_own_nproc`].
    pub fn apply_limits_to_intermediate(&self, pid: Pid, but_count: bool) -> Result<()> {
        if but_count {
            self.limits.apply_but_nproc(pid)?
        } else {
            self.limits.apply(pid)?
        }
        self.schedule.apply_inherited(pid)
    }

    /// Sets what the successor of an intermediate process does not inherit.
    pub fn apply_rest_to_successor(&self, pid: Pid) -> Result<()> {
        self.schedule.apply_rest(pid)
    }

    /// Whether [`Process::apply_rest_to_successor`] has something to do.
    pub fn has_rest_for_successor(&self) -> bool {
        self.schedule.is_not_inherited()
    }

    /// The system call of [`Process::apply_own_nproc`], if the config has RLIMIT_NPROC.
    pub fn nproc_call(&self) -> Option<(libc::c_long, [u64; 6])> {
        self.limits.has_nproc().then_some((libc::SYS_prlimit64, [0, libc::RLIMIT_NPROC.into(), 0, 0, 0, 0]))
    }

    /// Whether [`Process::apply_rlimits_and_sched`] has nothing to do.
    pub fn has_no_limits(&self) -> bool {
        self.limits.is_empty() && self.schedule.is_empty()
    }

    /// Before a process in a user namespace changes to its user: changes the owner of standard streams, which no process
    /// inside could. `owner` maps a user of that namespace to an id of the runtime's.
    pub fn chown_pipes(&self, owner: impl FnOnce(u32) -> Option<u32>) -> Result<()> {
        self.user.chown_pipes(owner)
    }

    // The child's side, in this order.

    /// As soon as the child is root of its namespaces: signal mask and dispositions are reset, a session and a session
    /// keyring are made. The procfs is only needed with an SELinux label. A terminal has to be opened after this.
    pub fn start_session(&self, proc: Option<BorrowedFd<'_>>) -> Result<()> {
        session::start()?;
        let Some(keyring) = &self.keyring else { return Ok(()) };
        self.labels.label_keys(proc, true)?;
        session::join_keyring(keyring)?;
        self.labels.label_keys(proc, false)
    }

    /// After the change of root, with all privileges: labels, `no_new_privs`, execution domain, memory policy, home,
    /// umask, Landlock.
    ///
    /// `proc` is the root of a private procfs, for a process with labels ([`Process::needs_proc`]).
    pub fn prepare(&mut self, proc: Option<BorrowedFd<'_>>) -> Result<()> {
        self.apply_attributes(proc)?;
        if self.environment.lacks_home() {
            self.environment.set("HOME", &user::home(self.user.uid));
        }
        // After every step that makes files.
        self.user.set_umask();
        // After every step that opens files; before the limits, which may be on files, and before a seccomp filter, which may
        // forbid it.
        self.landlock.as_ref().map_or(Ok(()), landlock::Landlock::apply)
    }

    /// The part of [`Process::prepare`] that needs no file of the container.
    pub fn apply_attributes(&self, proc: Option<BorrowedFd<'_>>) -> Result<()> {
        self.capabilities.warn_of_missing()?;
        self.labels.apply(proc)?;
        if self.no_new_privs {
            nix::sys::prctl::set_no_new_privs().context("set no_new_privs").field(|| "/process/noNewPrivileges")?;
        }
        if let Some(domain) = self.personality {
            sched::set_personality(domain).context("set the personality").field(|| "/linux/personality")?;
        }
        if let Some(policy) = &self.memory_policy {
            policy.apply()?;
        }
        Ok(())
    }

    /// Drops privileges for good: working directory, groups, ids, capabilities. Then finds the program with the rights that
    /// are left.
    pub fn drop_privileges(&mut self) -> Result<()> {
        // Before the change of user for a directory that only root may enter; after it for one that only the user may enter
        // (NFS, user namespaces).
        let entered = match chdir(&self.cwd) {
            Ok(()) => true,
            Err(Errno::EACCES | Errno::EPERM) => false,
            Err(errno) => return Err(self.no_cwd(errno)),
        };
        // Needs CAP_SETPCAP, which a change of user takes away.
        self.capabilities.drop_bounding()?;
        self.user.chown_stdio()?;
        self.user.set_credentials(self.capabilities.need_keepcaps(), self.user_namespace)?;
        if !entered {
            chdir(&self.cwd).map_err(|errno| self.no_cwd(errno))?;
        }
        self.ensure_inside()?;
        self.capabilities.apply()?;
        self.program = Some(program::find(&self.args[0], self.environment.value("PATH"))?);
        Ok(())
    }

    fn no_cwd(&self, errno: Errno) -> Error {
        Error::from(errno).context(format!("chdir to cwd {}", self.cwd.display())).field("/process/cwd")
    }

    /// The path can lead through a leaked descriptor to a directory outside of the root (CVE-2024-21626).
    fn ensure_inside(&self) -> Result<()> {
        if self.cwd == Path::new("/") {
            return Ok(());
        }
        let mut buffer = [0; libc::PATH_MAX as usize];
        let place = kernel::working_directory(&mut buffer);
        let inside = place.is_ok_and(|place| place.starts_with(b"/"));
        if inside {
            return Ok(());
        }
        Err(Error::new(format!("the working directory {} is outside of the container's root", self.cwd.display()))
            .field("/process/cwd"))
    }

    /// Closes every descriptor that is neither the program's nor in `keep`, before a seccomp filter that might forbid it.
    ///
    /// Close-on-exec would not suffice: the program could be `/proc/self/fd/N` (CVE-2024-21626). The kept ones must be
    /// close-on-exec. An owner of a closed descriptor must not be dropped any more: only execve and `_exit` may follow.
    pub fn close_descriptors(&mut self, keep: &[BorrowedFd<'_>]) -> Result<()> {
        for &number in &self.preserved {
            kernel::clear_close_on_exec(number)
                .with_context(|| format!("clear the close-on-exec flag of descriptor {number}"))?;
        }
        kernel::close_all_from(3, keep, &self.preserved).context("close descriptors")?;
        self.closed = true;
        Ok(())
    }

    /// In the successor of an intermediate process: RLIMIT_NPROC.
    pub fn apply_own_nproc(&self) -> Result<()> {
        self.limits.apply_own_nproc()
    }

    /// In the successor of an intermediate process: setsid(2).
    pub fn lead_session(&self) -> Result<()> {
        session::lead()
    }

    /// The calls by which [`Process::execute`] finds the reason of a failure.
    pub const LOOKS: [libc::c_long; 3] = program::LOOKS;

    /// Executes the program, and returns only on failure. Without `look` it makes no further call to find the reason.
    pub fn execute(&mut self, look: bool) -> Error {
        if self.listen_pid {
            self.environment.set("LISTEN_PID", getpid().to_string().as_bytes());
        }
        let (true, Some(path)) = (self.closed, &self.program) else {
            return Error::new("internal error: the process is executed before it is prepared");
        };
        let error = program::execute(path, &self.args, self.environment.entries(), look);
        if self.landlock.is_some() && error.errno() == Some(Errno::EACCES) {
            return error.hint_instead("allow execute and read_file for it in the rules of run.corten.landlock");
        }
        error
    }
}

/// Checks that all descriptors of socket activation (sd_listen_fds(3)) are open. To be called before any is marked
/// close-on-exec.
pub fn check_preserved(count: u32) -> Result<()> {
    for number in 3..count.saturating_add(3) {
        ensure!(kernel::is_inherited(number), "unable to stat preserved-fd {number} of {count}: it is not open");
    }
    Ok(())
}

/// Which of the `count` descriptors of `--preserve-fds`, which follow the first `after`, are open. To be called before any
/// is marked close-on-exec.
pub fn preserved(after: u32, count: u32) -> Result<Vec<u32>> {
    let first = after.saturating_add(3);
    let wanted = first..first.saturating_add(count);
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir("/proc/self/fd").context("list /proc/self/fd")?;
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let found: Vec<u32> = numbers.filter(|&number| wanted.contains(&number) && kernel::is_inherited(number)).collect();
    if found.len() < wanted.len() {
        log::warn!("--preserve-fds {count}: only {} of the descriptors from {first} on are open", found.len());
    }
    Ok(found)
}

fn read_landlock(document: &str) -> Result<Option<landlock::Landlock>> {
    let (landlock, warnings) = landlock::Landlock::plan(document, crate::sys::landlock::abi_version())?;
    warnings.into_iter().for_each(crate::log::warn);
    Ok(landlock)
}

fn arguments(args: &[String]) -> Result<Vec<CString>> {
    if args.is_empty() {
        return Err(Error::new("must not be empty").field("/process/args"));
    }
    let ready = |(index, arg): (usize, &String)| {
        CString::new(arg.as_bytes()).map_err(|_| Error::new("contains a NUL").field(format!("/process/args/{index}")))
    };
    args.iter().enumerate().map(ready).collect()
}

fn absolute(cwd: &Path) -> Result<()> {
    ensure!(cwd.is_absolute(), "{cwd:?} is not an absolute path");
    ensure!(!cwd.as_os_str().as_bytes().contains(&0), "contains a NUL");
    Ok(())
}

/// The terminal's size; a size without a terminal means nothing (runtime-spec, `consoleSize`).
fn terminal(process: &spec::Process) -> Result<Option<Size>> {
    if process.terminal() != Some(true) {
        return Ok(None);
    }
    let Some(size) = process.console_size() else { return Ok(Some(Size::default())) };
    let small = |value: u64, name: &str| {
        u16::try_from(value).map_err(|_| {
            Error::new(format!("{value} is more than 65535")).field(format!("/process/consoleSize/{name}"))
        })
    };
    Ok(Some(Size { rows: small(size.height(), "height")?, columns: small(size.width(), "width")? }))
}

#[cfg(test)]
mod tests;
