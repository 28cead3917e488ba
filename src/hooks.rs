//! Hooks: programs of the host's administrator, run at points of a container's life (runtime-spec, "POSIX-platform
//! Hooks").
//!
//! A hook gets the state on stdin, its own environment and no descriptor of ours. What it prints is kept for the error.
//! It never sees the container's environment unless it runs as part of the container (CVE-2025-23266 was a host
//! program that obeyed LD_PRELOAD of an image).

use std::collections::VecDeque;
use std::io::{ErrorKind, PipeWriter, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::sys::{self, Errno};

/// How much of a hook's output an error quotes: its end.
const OUTPUT_LIMIT: usize = 4096;

/// The point of a container's life at which hooks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Deprecated twin of [`Stage::CreateRuntime`], run before it.
    Prestart,
    /// On the host, after the namespaces and mounts are made, before pivot_root.
    CreateRuntime,
    /// In the container's namespaces but the host's root, before pivot_root.
    CreateContainer,
    /// In the container, after `start`, before the program.
    StartContainer,
    /// On the host, after the program has started.
    Poststart,
    /// On the host, after the container is deleted.
    Poststop,
}

impl Stage {
    /// The name in config.json.
    pub fn word(self) -> &'static str {
        match self {
            Stage::Prestart => "prestart",
            Stage::CreateRuntime => "createRuntime",
            Stage::CreateContainer => "createContainer",
            Stage::StartContainer => "startContainer",
            Stage::Poststart => "poststart",
            Stage::Poststop => "poststop",
        }
    }

    fn field(self, index: usize) -> String {
        format!("/hooks/{}/{index}", self.word())
    }
}

/// A program to run, with everything checked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hook {
    path: PathBuf,
    args: Vec<String>,
    /// `None`: the environment of the runtime (or, in the container, of the container).
    env: Option<Vec<String>>,
    /// Seconds.
    timeout: Option<u64>,
}

/// The state, environment and directory of a hook.
#[derive(Default)]
pub struct HookContext<'a> {
    /// On stdin: the state as JSON.
    pub state: &'a [u8],
    /// The variables of a hook that names none; `None`: those of the runtime.
    pub environment: Option<&'a [String]>,
    /// The working directory: the bundle for hooks of the host. `None`: where the runtime is.
    pub directory: Option<&'a Path>,
}

/// The hooks of one stage.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Hooks(Vec<Hook>);

impl Hooks {
    /// Checks the hooks of one stage: absolute paths, a positive time-out, NAME=value.
    pub fn plan(stage: Stage, list: Option<&[oci_spec::runtime::Hook]>) -> Result<Hooks> {
        let check = |(index, hook)| Hook::plan(hook).field(|| stage.field(index));
        list.unwrap_or_default().iter().enumerate().map(check).collect::<Result<_>>().map(Hooks)
    }

    /// Whether the stage has no hooks.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Runs the hooks in their order; the first that fails ends it.
    pub fn run(&self, stage: Stage, hook_context: &HookContext<'_>) -> Result<()> {
        self.0.iter().enumerate().try_for_each(|hook| run_one(hook, stage, hook_context))
    }

    /// Whether each of the programs can be executed, by the word of `executable`; tells of every one that cannot.
    pub fn preflight(
        &self,
        stage: Stage,
        executable: &dyn Fn(&Path) -> Result<(), Errno>,
        tell: &mut dyn FnMut(Error),
    ) {
        for (index, hook) in self.0.iter().enumerate() {
            with_hook_name(executable(&hook.path).map_err(Error::from), (index, hook), stage)
                .unwrap_or_else(&mut *tell);
        }
    }

    /// Runs all hooks, also after a failure, which is only a warning (poststop: runtime-spec, "Lifecycle"). They run in
    /// `/` where the bundle is gone.
    pub fn run_all(&self, stage: Stage, hook_context: &HookContext<'_>) {
        let gone = hook_context.directory.and_then(|directory| ensure_enterable(directory).err());
        if let Some(error) = &gone {
            log::warn!("{error}; the {} hooks run in /", stage.word());
        }
        let directory = if gone.is_some() { Some(Path::new("/")) } else { hook_context.directory };
        let hook_context = HookContext { directory, ..*hook_context };
        for hook in self.0.iter().enumerate() {
            if let Err(error) = run_one(hook, stage, &hook_context) {
                log::warn!("{error}");
            }
        }
    }
}

fn run_one((index, hook): (usize, &Hook), stage: Stage, hook_context: &HookContext<'_>) -> Result<()> {
    with_hook_name(hook.run(hook_context), (index, hook), stage)
}

/// Adds the name of the hook to an error. Callers search for runc's words; it counts from zero, too.
fn with_hook_name(outcome: Result<()>, (index, hook): (usize, &Hook), stage: Stage) -> Result<()> {
    outcome
        .with_context(|| format!("run {}", hook.path.display()))
        .with_context(|| format!("error running {} hook #{index}", stage.word()))
        .field(|| stage.field(index))
}

impl Hook {
    fn plan(hook: &oci_spec::runtime::Hook) -> Result<Hook> {
        let path = hook.path().clone();
        if !path.is_absolute() {
            return Err(Error::new(format!("the path of a hook must be absolute, not {}", path.display())));
        }
        let timeout = match hook.timeout() {
            Some(seconds) if seconds <= 0 => {
                return Err(Error::new("the time-out of a hook must be greater than zero"));
            }
            Some(seconds) => Some(seconds as u64),
            None => None,
        };
        let nameless = |variable: &&String| variable.find('=').is_none_or(|at| at == 0);
        if hook.env().iter().flatten().any(|variable| nameless(&variable)) {
            return Err(Error::new("a variable of a hook's environment must have the form NAME=value"));
        }
        Ok(Hook { path, args: hook.args().clone().unwrap_or_default(), env: hook.env().clone(), timeout })
    }

    fn run(&self, hook_context: &HookContext<'_>) -> Result<()> {
        // `None`: beyond the range of the clock.
        let deadline = self.timeout.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
        let (theirs, ours) = std::io::pipe().context("create a pipe for the state")?;
        let (output, sink) = std::io::pipe().context("create a pipe for the output")?;
        let mut command = self.command(hook_context);
        let twin = sink.try_clone().context("duplicate the pipe for the output")?;
        command.stdin(theirs).stdout(twin).stderr(sink);
        // The error of spawn does not tell whether the directory or the program is missing.
        let explain = |error: std::io::Error| {
            let entered = hook_context.directory.map_or(Ok(()), ensure_enterable);
            entered.err().unwrap_or_else(|| error.into())
        };
        let child = command.spawn().map_err(explain)?;
        // The command owns copies of the child's ends, which would keep the pipes open.
        drop(command);
        RunningHook { child, stdin: Some(ours), output: Some(OwnedFd::from(output)), said: VecDeque::new() }
            .finish(hook_context.state, deadline)
    }

    #[expect(clippy::disallowed_methods, reason = "a hook names its environment, arguments and directory itself")]
    fn command(&self, hook_context: &HookContext<'_>) -> Command {
        let mut command = Command::new(&self.path);
        if let Some((name, rest)) = self.args.split_first() {
            command.arg0(name).args(rest);
        }
        if let Some(directory) = hook_context.directory {
            command.current_dir(directory);
        }
        if let Some(variables) = self.env.as_deref().or(hook_context.environment) {
            command.env_clear();
            command.envs(variables.iter().filter_map(|variable| variable.split_once('=')));
        }
        // Its own process group, so that a time-out also kills the children of the hook.
        command.process_group(0).stdin(Stdio::null());
        // A hook that outlives the runtime could change what `delete` removes.
        sys::process::set_pdeathsig_of(&mut command);
        command
    }
}

/// The error of chdir(2) for a hook's working directory.
fn ensure_enterable(directory: &Path) -> Result<()> {
    let entered = std::fs::metadata(directory.join(".")).map(drop);
    entered.with_context(|| format!("change to the bundle {}", directory.display()))
}

/// A running hook.
struct RunningHook {
    child: Child,
    /// A pipe, since a hook may open /dev/stdin. SIGPIPE is ignored in this process and its forked copies.
    stdin: Option<PipeWriter>,
    /// `None` once the hook has closed it.
    output: Option<OwnedFd>,
    said: VecDeque<u8>,
}

impl RunningHook {
    /// Feeds the state, keeps the output and waits for the end, all at once: a hook may write before it reads.
    fn finish(mut self, state: &[u8], deadline: Option<Instant>) -> Result<()> {
        let pidfd = sys::pid::open(Pid::from_raw(self.child.id() as i32)).context("open its pidfd")?;
        let mut rest = state;
        if let Some(stdin) = &self.stdin {
            fcntl(stdin, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("make the state's pipe non-blocking")?;
        }
        loop {
            if rest.is_empty() {
                self.stdin = None;
            }
            let left = deadline.map(|moment| moment.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(self.give_up());
            }
            let pid = PollFd::new(pidfd.as_fd(), PollFlags::POLLIN);
            let stdin = self.stdin.as_ref().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLOUT));
            let output = self.output.as_ref().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN));
            let (reads, writes) = (output.is_some(), stdin.is_some());
            let mut fds: Vec<PollFd<'_>> = [Some(pid), output, stdin].into_iter().flatten().collect();
            let wait = left.map_or(PollTimeout::NONE, |left| {
                PollTimeout::try_from(left.saturating_add(Duration::from_millis(1))).unwrap_or(PollTimeout::MAX)
            });
            match poll(&mut fds, wait) {
                Ok(_) | Err(sys::Errno::EINTR) => {}
                Err(errno) => return Err(errno).context("wait for it"),
            }
            let ready = |at: usize| fds[at].any().unwrap_or(false);
            let (ended, heard) = (ready(0), reads && ready(1));
            let hungry = writes && ready(fds.len() - 1);
            if hungry {
                self.feed(&mut rest);
            }
            if heard {
                self.listen();
            }
            if ended {
                break;
            }
        }
        let status = self.child.wait().context("reap it")?;
        self.verdict(status)
    }

    fn feed(&mut self, rest: &mut &[u8]) {
        let Some(stdin) = &mut self.stdin else { return };
        match stdin.write(rest) {
            Ok(written) => *rest = &rest[written..],
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // A hook need not read its state.
            Err(_) => *rest = &[],
        }
    }

    fn listen(&mut self) {
        let mut chunk = [0; 4096];
        let Some(output) = &self.output else { return };
        match nix::unistd::read(output, &mut chunk) {
            // The hook may run on with its output closed.
            Ok(0) | Err(_) => self.output = None,
            Ok(read) => self.said.extend(&chunk[..read]),
        }
        let excess = self.said.len().saturating_sub(OUTPUT_LIMIT);
        self.said.drain(..excess);
    }

    fn give_up(mut self) -> Error {
        // The group may have ended already; the child is reaped either way.
        let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
        let _ = self.child.wait();
        Error::new(format!("timed out{}", self.quote()))
    }

    fn verdict(mut self, status: ExitStatus) -> Result<()> {
        if status.success() {
            return Ok(());
        }
        // What it wrote last may still be in the pipe.
        for _ in 0..OUTPUT_LIMIT / 256 {
            if self.output.as_ref().is_some_and(readable) {
                self.listen();
            }
        }
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            // A filter's verdict, in the words of runc and signal(7).
            (None, Some(libc::SIGSYS)) => format!("killed by signal {}, bad system call", libc::SIGSYS),
            (None, Some(signal)) => format!("killed by signal {signal}"),
            (None, None) => "ended with an unknown status".to_owned(),
        };
        Err(Error::new(how + &self.quote()))
    }

    fn quote(&mut self) -> String {
        let bytes: Vec<u8> = self.said.drain(..).collect();
        let text = String::from_utf8_lossy(&bytes);
        match text.trim() {
            "" => String::new(),
            said => format!(", it printed: {said}"),
        }
    }
}

fn readable(fd: &OwnedFd) -> bool {
    poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) == Ok(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Option<u64>) -> Hook {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        Hook { path: "/bin/sh".into(), args, env: Some(vec!["A=b".into()]), timeout }
    }

    fn run(script: &str, timeout: Option<u64>, state: &[u8]) -> Result<()> {
        Hooks(vec![shell(script, timeout)]).run(Stage::Poststart, &HookContext { state, ..HookContext::default() })
    }

    #[test]
    fn a_hook_reads_the_state_and_has_its_own_environment() {
        run(r#"read line; test "$line" = hello && test "$A" = b && test -z "$HOME""#, None, b"hello").unwrap();
    }

    #[test]
    fn a_hook_that_never_reads_a_big_state_does_no_harm() {
        run("exec 0<&-; exit 0", None, &vec![b'x'; 300_000]).unwrap();
        run("cat >/dev/null", None, &vec![b'x'; 300_000]).unwrap();
    }

    #[test]
    fn a_bundle_that_is_gone_is_told_and_not_the_program() {
        let hook_context = HookContext { directory: Some(Path::new("/no/such/bundle")), ..HookContext::default() };
        let hooks = Hooks(vec![shell("true", None)]);
        let error = hooks.run(Stage::Poststart, &hook_context).unwrap_err().to_string();
        assert!(error.ends_with("change to the bundle /no/such/bundle: no such file or directory"), "{error}");
    }

    #[test]
    fn a_failing_hook_is_quoted() {
        let error = run("echo sorry >&2; exit 3", None, b"").unwrap_err().to_string();
        assert!(
            error.contains(
                "error running poststart hook #0: run /bin/sh: /hooks/poststart/0: exit status 3, it printed: sorry"
            ),
            "{error}"
        );
    }

    #[test]
    fn a_hook_that_closes_its_output_and_lives_on_is_waited_for() {
        run("exec >&- 2>&-; sleep 0.2", None, b"").unwrap();
    }

    #[test]
    fn a_hook_that_is_too_slow_is_ended_with_all_it_started() {
        let before = Instant::now();
        let error = run("sleep 30 & sleep 30", Some(1), b"").unwrap_err().to_string();
        assert!(error.contains("timed out"), "{error}");
        assert!(before.elapsed() < Duration::from_secs(20));
    }
}
