//! A conversation with `criu swrk`: one process, one socket, one request at a time, and its notifications in between.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::unistd::Pid;

use super::rpc::{self, RequestType, Response, RpcOptions};
use crate::error::{Context, Error, Result, bail};
use crate::sys::socket;
use crate::{host, sys};

/// More than any message has: the longest holds one line of the log.
const LONGEST: usize = 1 << 20;

/// The step before the restored processes go on.
pub const PRE_RESUME: &str = "pre-resume";

/// How long CRIU may take to end once it has answered, in milliseconds.
const ENDING_MS: u16 = 10_000;

/// The absolute path of CRIU.
pub fn find() -> Result<PathBuf> {
    host::program("criu").ok_or_else(|| {
        Error::new("criu is not in PATH").hint("install CRIU (the package criu), of version 3.15 or later")
    })
}

/// CRIU at work.
pub struct Criu {
    child: Child,
    pidfd: OwnedFd,
    socket: OwnedFd,
    _directories: Vec<File>,
}

/// What stands around CRIU.
#[derive(Default)]
pub struct CriuContext<'a> {
    /// Descriptors that keep their numbers in it.
    pub pass: &'a [BorrowedFd<'a>],
    /// Whether it has our standard streams, which restored processes may inherit; else it has none.
    pub streams: bool,
    /// Directories of ours that it opens as well: they stay open as long as it lives.
    pub directories: Vec<File>,
    /// `cgroup.procs` of the cgroup that it runs in.
    pub procs: Option<OwnedFd>,
}

/// What CRIU tells while it works.
pub struct Notification<'a> {
    /// Which step it has reached: a name of its action scripts.
    pub step: &'a str,
    /// The first process, as we see it, where there is one.
    pub pid: Option<Pid>,
    /// The controlling end of a terminal, with `orphan-pts-master`.
    pub terminal: Option<OwnedFd>,
}

/// How a request ended that was not carried out.
pub struct Failure {
    /// The last step that CRIU has told of.
    pub step: Option<String>,
    /// The first line of its log that tells of an error, if it sent that.
    pub message: Option<String>,
    /// Our own error, for which a notification was refused, or for which there is no answer.
    pub cause: Option<Error>,
    /// An errno, or 0.
    pub errno: i32,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { step: None, message: None, cause: Some(error), errno: 0 }
    }
}

impl Criu {
    /// Starts it. All descriptors of ours are close-on-exec; it gets its socket and those that are passed.
    pub fn start(program: &Path, surroundings: CriuContext<'_>) -> Result<Criu> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (socket, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).context("make the socket for criu")?;
        let mut command = host::command(program);
        command.arg("swrk").arg(theirs.as_raw_fd().to_string()).arg0("criu");
        if !surroundings.streams {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        }
        let mut kept: Vec<RawFd> = surroundings.pass.iter().map(AsRawFd::as_raw_fd).collect();
        kept.push(theirs.as_raw_fd());
        sys::criu::prepare(&mut command, kept, surroundings.procs);
        let child = command.spawn().with_context(|| format!("run {}", program.display()))?;
        let pidfd = sys::pid::open(Pid::from_raw(child.id() as i32)).context("open the pidfd of criu")?;
        Ok(Criu { child, pidfd, socket, _directories: surroundings.directories })
    }

    /// Its pid.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Which of some features there are.
    pub fn features(&mut self, wanted: rpc::Features) -> Result<rpc::Features> {
        self.send(&rpc::ask_features(wanted))?;
        match self.receive()? {
            Some((response, _)) if response.success => Ok(response.features),
            _ => bail!("criu does not say which features there are"),
        }
    }

    /// Makes a request and answers its notifications until it is carried out. A notification that is refused ends it.
    pub fn ask(
        &mut self,
        kind: RequestType,
        options: &RpcOptions,
        notified: &mut dyn FnMut(Notification<'_>) -> Result<()>,
    ) -> Result<Response, Failure> {
        self.send(&rpc::request(kind, options))?;
        let (mut step, mut cause) = (None, None);
        loop {
            let Some((response, terminal)) = self.receive()? else {
                let died = cause.unwrap_or_else(|| self.died());
                return Err(Failure { step, message: None, cause: Some(died), errno: 0 });
            };
            match response.kind {
                kind if kind == RequestType::Notify as u64 => {
                    let name = response.script.unwrap_or_default();
                    let pid = response.pid.filter(|&pid| pid > 0).map(Pid::from_raw);
                    log::debug!("criu: {name}");
                    let outcome = notified(Notification { step: &name, pid, terminal });
                    if name == PRE_RESUME && outcome.is_err() {
                        // It would let the processes go on, whatever the answer.
                        return Err(Failure { step: Some(name), message: None, cause: outcome.err(), errno: 0 });
                    }
                    self.send(&rpc::answer(outcome.is_ok()))?;
                    cause = cause.or(outcome.err());
                    step = Some(name);
                }
                answer if answer == kind as u64 && response.success && cause.is_none() => return Ok(response),
                answer if answer == kind as u64 || answer == 0 => {
                    return Err(Failure { step, message: response.message, cause, errno: response.errno });
                }
                other => return Err(Error::new(format!("criu answers {other}, not {}", kind as u64)).into()),
            }
        }
    }

    /// Ends it at once. The processes that it traces are to be dead by then.
    pub fn abandon(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end. One that does not end is killed.
    pub fn finish(mut self) {
        drop(self.socket);
        if sys::pid::ended_within(self.pidfd.as_fd(), ENDING_MS) != Ok(true) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }

    fn died(&mut self) -> Error {
        if sys::pid::ended_within(self.pidfd.as_fd(), ENDING_MS) != Ok(true) {
            return Error::new("criu has closed its socket, and goes on");
        }
        match self.child.wait() {
            Ok(status) => match status.signal() {
                Some(signal) => Error::new(format!("criu was ended by signal {signal}")),
                None => Error::new(format!("criu ended with code {}", status.code().unwrap_or_default())),
            },
            Err(_) => Error::new("criu has ended"),
        }
    }

    fn send(&self, message: &[u8]) -> Result<()> {
        loop {
            match send(self.socket.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL) {
                Err(Errno::EINTR) => {}
                done => return done.map(drop).context("send a request to criu"),
            }
        }
    }

    /// The next packet, with a descriptor that came along; `None` at the end.
    fn receive(&self) -> Result<Option<(Response, Option<OwnedFd>)>> {
        const WHAT: &str = "read from criu";
        self.wait().context(WHAT)?;
        let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT;
        let length = match recv(self.socket.as_raw_fd(), &mut [], peek) {
            Ok(0) | Err(Errno::ECONNRESET | Errno::EAGAIN) => return Ok(None),
            length => length.context(WHAT)?,
        };
        if length > LONGEST {
            bail!("criu sends a message of {length} bytes");
        }
        let mut bytes = vec![0; length];
        let (_, fds) = socket::receive(self.socket.as_fd(), &mut bytes, MsgFlags::empty()).context(WHAT)?;
        Ok(Some((Response::decode(&bytes)?, fds.into_iter().next())))
    }

    /// Waits for a packet, or the end of CRIU, whose children may hold the socket open.
    fn wait(&self) -> Result<(), Errno> {
        let mut fds =
            [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN), PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                done => return done.map(drop),
            }
        }
    }
}
