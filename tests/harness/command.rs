//! One command line on the runtime under test.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::outcome::{End, Outcome};
use super::{Sandbox, machine, reaper};

/// A command line in the making. Unless told otherwise: `--root` and a JSON log of its own, stdin from /dev/null,
/// both streams into files (a pipe would stay open as long as the container does), no environment but PATH, umask
/// 022, and twenty seconds.
#[derive(Clone)]
pub struct Cmd {
    sandbox: Arc<Sandbox>,
    /// A program that starts the runtime, with its arguments.
    starter: Vec<OsString>,
    program: PathBuf,
    globals: Vec<OsString>,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    cwd: Option<PathBuf>,
    stdin: Option<PathBuf>,
    terminal: Option<Arc<OwnedFd>>,
    prelude: String,
    leaked: Vec<(i32, Arc<OwnedFd>)>,
    config: Option<PathBuf>,
    limit: Duration,
}

impl Cmd {
    /// The runtime with these arguments, after `--root` and `--log`.
    pub fn new(sandbox: &Arc<Sandbox>, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Cmd {
        let mut globals = vec!["--root".into(), sandbox.root().into_os_string()];
        let log = sandbox.dir().join(format!("out/{}.log", sandbox.number()));
        globals.extend(["--log".into(), log.into_os_string(), "--log-format".into(), "json".into()]);
        Cmd::bare(sandbox, args).globals(globals)
    }

    /// The runtime with these arguments and no others.
    pub fn bare(sandbox: &Arc<Sandbox>, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Cmd {
        Cmd {
            sandbox: sandbox.clone(),
            starter: Vec::new(),
            program: machine::runtime().into(),
            globals: Vec::new(),
            args: args.into_iter().map(|arg| arg.as_ref().to_owned()).collect(),
            env: vec![("PATH".into(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into())],
            cwd: None,
            stdin: None,
            terminal: None,
            prelude: String::new(),
            leaked: Vec::new(),
            config: None,
            limit: super::slowness() * Duration::from_secs(20),
        }
    }

    fn globals(mut self, globals: Vec<OsString>) -> Cmd {
        self.globals = globals;
        self
    }

    /// Another binary than the one under test, such as a copy of it.
    pub fn program(mut self, program: impl Into<PathBuf>) -> Cmd {
        self.program = program.into();
        self
    }

    /// More global options, before the subcommand.
    pub fn global(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Cmd {
        self.globals.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Started by another program, which gets these words and then the runtime's command line.
    pub fn started_by(mut self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Cmd {
        self.starter = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Cmd {
        self.env.push((key.into(), value.as_ref().to_owned()));
        self
    }

    pub fn cwd(mut self, dir: impl Into<PathBuf>) -> Cmd {
        self.cwd = Some(dir.into());
        self
    }

    /// What the command reads from its stdin.
    pub fn stdin(mut self, text: &str) -> Cmd {
        let file = self.sandbox.dir().join(format!("out/{}.stdin", self.sandbox.number()));
        fs::write(&file, text).expect("write the stdin of a command");
        self.stdin = Some(file);
        self
    }

    /// A terminal as all three streams; nothing is collected then.
    pub fn on_terminal(mut self, replica: OwnedFd) -> Cmd {
        self.terminal = Some(Arc::new(replica));
        self
    }

    /// Shell text to run in the process before it becomes the runtime: `umask 077`, `ulimit -n 99`, `exec 3<file`.
    pub fn after(mut self, shell: &str) -> Cmd {
        self.prelude.push_str(shell);
        self.prelude.push('\n');
        self
    }

    /// Has this open under this number, as a caller that forgot to close it.
    pub fn leak(mut self, number: i32, fd: OwnedFd) -> Cmd {
        self.leaked.push((number, Arc::new(fd)));
        self
    }

    pub fn limit(mut self, limit: Duration) -> Cmd {
        self.limit = limit;
        self
    }

    /// The config.json to print when it fails.
    pub fn about(mut self, config: PathBuf) -> Cmd {
        self.config = Some(config);
        self
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(self) -> Outcome {
        self.spawn().wait()
    }

    /// Starts it.
    #[track_caller]
    pub fn spawn(self) -> Running {
        let number = self.sandbox.number();
        let file = |what: &str| self.sandbox.dir().join(format!("out/{number}.{what}"));
        let (stdout, stderr) = (file("stdout"), file("stderr"));
        // A shell joins the test's cgroup and then becomes the runtime, under the same pid.
        let script = format!("echo $$ >\"$0\" || exit 99\n{}exec \"$@\"", self.prelude);
        let mut command = Command::new(machine::busybox());
        command.args(["sh", "-c", &script]);
        command.arg(self.sandbox.cgroup().join("caller/cgroup.procs"));
        command.args(&self.starter).arg(&self.program).args(&self.globals).args(&self.args);
        command.env_clear().envs(self.env.iter().map(|(key, value)| (key, value)));
        command.current_dir(self.cwd.as_deref().unwrap_or(self.sandbox.dir()));
        match &self.terminal {
            Some(replica) => {
                let stream = || Stdio::from(replica.try_clone().expect("duplicate the terminal"));
                command.stdin(stream()).stdout(stream()).stderr(stream());
                File::create(&stdout).and(File::create(&stderr)).expect("make the files for both streams");
            }
            None => {
                command.stdin(match &self.stdin {
                    Some(file) => Stdio::from(File::open(file).expect("open the stdin of a command")),
                    None => Stdio::null(),
                });
                command.stdout(File::create(&stdout).expect("make the file for stdout"));
                command.stderr(File::create(&stderr).expect("make the file for stderr"));
            }
        }
        leak(&mut command, &self.leaked);
        let began = Instant::now();
        let pid = reaper::spawn(&mut command).unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        let (line, log) = (self.line(), self.log());
        let Cmd { config, limit, sandbox, .. } = self;
        Running { line, pid, began, stdout, stderr, log, config, limit, sandbox }
    }

    /// As one would type it.
    fn line(&self) -> String {
        let words = self.globals.iter().chain(&self.args).map(|word| {
            let word = word.to_string_lossy();
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@".contains(c);
            if !word.is_empty() && word.chars().all(plain) { word.into_owned() } else { format!("{word:?}") }
        });
        let env = self.env.iter().filter(|(key, _)| key != "PATH");
        let env = env.map(|(key, value)| format!("{}={:?} ", key.display(), value));
        let cwd = self.cwd.as_ref().map(|dir| format!("cd {}; ", dir.display())).unwrap_or_default();
        let program = self.program.display();
        let starter: String = self.starter.iter().map(|word| format!("{} ", word.display())).collect();
        let words: Vec<_> = words.collect();
        format!(
            "{cwd}{}{}{starter}{program} {}",
            self.prelude.replace('\n', "; "),
            env.collect::<String>(),
            words.join(" ")
        )
    }

    fn log(&self) -> Option<PathBuf> {
        let mut words = self.globals.iter().chain(&self.args);
        words.find(|word| *word == "--log")?;
        words.next().map(PathBuf::from)
    }
}

/// Duplicates descriptors to their numbers in a child that is about to run the command.
fn leak(command: &mut Command, leaked: &[(i32, Arc<OwnedFd>)]) {
    if leaked.is_empty() {
        return;
    }
    // Out of the way of each other's numbers. They live as long as the command.
    let high = |fd: &OwnedFd| fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(200)).expect("duplicate a descriptor to leak");
    let pairs: Vec<(i32, OwnedFd)> = leaked
        .iter()
        .map(|(number, fd)| {
            // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
            (*number, unsafe { OwnedFd::from_raw_fd(high(fd)) })
        })
        .collect();
    // SAFETY: dup2 is async-signal-safe, and nothing is allocated between fork and exec.
    unsafe {
        command.pre_exec(move || {
            for (number, fd) in &pairs {
                Errno::result(libc::dup2(fd.as_raw_fd(), *number))?;
            }
            Ok(())
        });
    }
}

/// A command that was started. It is ended with the sandbox if nobody waits for it.
pub struct Running {
    line: String,
    pid: i32,
    began: Instant,
    stdout: PathBuf,
    stderr: PathBuf,
    log: Option<PathBuf>,
    config: Option<PathBuf>,
    limit: Duration,
    sandbox: Arc<Sandbox>,
}

impl Running {
    pub fn pid(&self) -> i32 {
        self.pid
    }

    pub fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.pid), signal);
    }

    /// What it has written so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap_or_default()).into_owned()
    }

    /// True until its end.
    pub fn is_running(&self) -> bool {
        reaper::wait(self.pid, Duration::ZERO).is_none()
    }

    /// Waits for its end; one that hangs is a failure.
    #[track_caller]
    pub fn wait(self) -> Outcome {
        let end = match reaper::wait(self.pid, self.limit) {
            Some(reaper::End::Code(code)) => End::Code(code),
            Some(reaper::End::Signal(signal)) => End::Signal(signal),
            None => End::Hung,
        };
        let Running { line, pid, began, stdout, stderr, log, config, limit, sandbox } = self;
        let outcome = Outcome { line, end, took: began.elapsed(), stdout, stderr, log, config, sandbox };
        if end == End::Hung {
            let at = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            outcome.fail(&format!("it hung for {limit:?} (in {at})"));
        }
        outcome
    }
}

/// Runs a command of the host in the test's namespaces (a plain [`Command`] would lose its status to the reaper).
#[track_caller]
pub fn host_command(command: &[&str]) {
    let pid = reaper::spawn(Command::new(command[0]).args(&command[1..])).expect("start a command of the host");
    let end = reaper::wait(pid, Duration::from_secs(20));
    assert_eq!(end, Some(reaper::End::Code(0)), "{command:?}");
}
