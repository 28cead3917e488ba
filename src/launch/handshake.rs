//! The host's end of the handshake, and the guard that kills the process if it fails.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{Context, Error, Result, bail, ensure};
use crate::sys;
use crate::trace;

use super::fork::{self, SuccessorSlot};
use super::listener;
use super::sync::{LastMessage, Message, SyncEvent, SyncSocket};

/// How many warnings and marks are accepted; one more is an error.
const MAX_MESSAGES: usize = 1000;

/// How often the host, while it waits, checks whether it should give up.
const PATIENCE: Duration = Duration::from_secs(1);

/// Milliseconds in which a process that was killed, or has closed its end of the sync socket, has to be dead.
const DEATH_MS: u16 = 10_000;

/// How long the host waits for a process that was stopped by a signal.
const STOPPED_LIMIT: Duration = Duration::from_secs(10);

/// What the caller of `create` or `exec` does at certain points of a start.
pub trait LaunchCallbacks {
    /// Records init as soon as it exists, or the intermediate process in its place.
    fn record(&mut self, _pid: Pid) -> Result<()> {
        Ok(())
    }

    /// Records the process that the intermediate process has cloned.
    fn record_successor(&mut self, _pid: Pid) -> Result<()> {
        Ok(())
    }

    /// Hooks are about to run, so a failure from here on is followed by poststop hooks.
    fn hooks_begin(&mut self) {}

    /// Reports the process to the caller and receives its terminal, once all but the last steps have succeeded.
    fn publish(&mut self, pid: Pid) -> Result<()>;

    /// Sends the notify descriptor of the seccomp filter to the agent.
    fn send_to_agent(&mut self, pid: Pid, listener: BorrowedFd<'_>) -> Result<()>;

    /// The error if the process died because its cgroup was out of memory. `killed`: it died of SIGKILL.
    fn out_of_memory(&self, _killed: bool) -> Option<Error> {
        None
    }

    /// The error if the host should not wait any longer.
    fn wait_error(&self, _waited: Duration) -> Option<Error> {
        None
    }
}

/// A process of a container. Dropping it kills the process, unless [`Launched::keep`] was called.
pub struct Launched {
    /// Its pid.
    pub pid: Pid,
    pidfd: Option<OwnedFd>,
    /// For an intermediate process: where the pid of its successor appears.
    successor_slot: Option<SuccessorSlot>,
}

impl Launched {
    pub(super) fn new(pid: Pid, pidfd: OwnedFd, successor_slot: Option<SuccessorSlot>) -> Launched {
        Launched { pid, pidfd: Some(pidfd), successor_slot }
    }

    /// Its pidfd.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_ref().expect("it is only taken at the end").as_fd()
    }

    /// Keeps the process alive.
    pub fn keep(mut self) -> OwnedFd {
        self.pidfd.take().expect("it is only taken here")
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        self.pidfd.take().iter().for_each(end);
        // After its maker. It is a child that was not reaped, so the pid is still its own.
        if let Some(pid) = self.successor_slot.take().and_then(|successor_slot| successor_slot.taken()) {
            let _ = kill(pid, Signal::SIGKILL);
            sys::pid::open(pid).iter().for_each(end);
        }
    }
}

/// Kills a child and reaps it. It may be dead already; while a tracer is attached, only that one can reap it.
fn end(pidfd: &OwnedFd) {
    let _ = sys::pid::signal(pidfd.as_fd(), libc::SIGKILL);
    if sys::pid::ended_within(pidfd.as_fd(), DEATH_MS).unwrap_or(false) {
        let _ = sys::pid::reap_dead(pidfd.as_fd());
    }
}

/// The handshake with the container's half.
pub(super) struct Handshake<'a> {
    pub(super) sync: SyncSocket,
    pub(super) launched: Launched,
    pub(super) callbacks: &'a mut dyn LaunchCallbacks,
    /// A notify descriptor that was not sent to the agent yet.
    listener: Option<OwnedFd>,
    /// Whether a notify descriptor is still expected.
    notifies: bool,
    messages_left: usize,
    /// Whether the end of the stream may be execve.
    may_execute: bool,
}

impl<'a> Handshake<'a> {
    /// `notifies`: the filter of the process has a notify descriptor.
    pub(super) fn new(
        sync: SyncSocket,
        launched: Launched,
        callbacks: &'a mut dyn LaunchCallbacks,
        notifies: bool,
    ) -> Handshake<'a> {
        Handshake {
            sync,
            launched,
            callbacks,
            listener: None,
            notifies,
            messages_left: MAX_MESSAGES,
            may_execute: false,
        }
    }

    /// The pid of the process at the other end.
    pub(super) fn pid(&self) -> Pid {
        self.launched.pid
    }

    /// Replaces an error of the host by that of the process if the process has failed or died: then the host's is only a
    /// consequence.
    pub(super) fn prefer_exit_reason<T>(&mut self, outcome: Result<T>) -> Result<T> {
        outcome.map_err(|error| match self.sync.last_message() {
            LastMessage::Failed(reason) => Error::decode(&reason),
            LastMessage::End if self.has_died() => self.explain(),
            LastMessage::End | LastMessage::Done | LastMessage::StillOpen => error,
        })
    }

    /// Whether the sync socket ended by the death of the process, which follows at once, and not by execve.
    fn has_died(&self) -> bool {
        const SOON: u16 = 100;
        let pidfd = self.launched.pidfd.as_ref().map(AsFd::as_fd);
        !self.may_execute || pidfd.is_none_or(|pidfd| sys::pid::ended_within(pidfd, SOON) != Ok(false))
    }

    /// The next message that needs a reply. `None` at the end of the stream, and also if the process has ended or executed its
    /// program and no message is left: somebody else may hold the sync socket open.
    pub(super) fn next_message(&mut self) -> Result<Option<Message>> {
        loop {
            if self.wait()? == SyncEvent::Ended {
                return Ok(None);
            }
            match self.sync.receive()? {
                Some(Message::Warning(line)) => self.count_message(|| ::log::warn!("{line}"))?,
                Some(Message::Step(line)) => self.count_message(|| ::log::debug!("{line}"))?,
                Some(Message::Mark(line)) => self.count_message(|| trace::write(&line))?,
                Some(Message::Listening(number)) if self.notifies => {
                    self.notifies = false;
                    // It may be from the successor, before the exit of the intermediate process is seen.
                    let successor = self
                        .launched
                        .successor_slot
                        .as_ref()
                        .is_some_and(|successor_slot| successor_slot.taken().is_some());
                    if successor {
                        self.switch_to_successor()?;
                    }
                    let outcome = self.fetch_listener(number);
                    self.prefer_exit_reason(outcome)?;
                    if successor {
                        return Ok(None);
                    }
                    if self.launched.successor_slot.is_none() {
                        self.deliver_listener()?;
                    }
                }
                Some(Message::Failed(error)) => return Err(Error::decode(&error)),
                message => {
                    self.may_execute |= message == Some(Message::Done);
                    return Ok(message);
                }
            }
        }
    }

    fn count_message(&mut self, tell: impl FnOnce()) -> Result<()> {
        ensure!(self.messages_left > 0, "the container process sent more than {MAX_MESSAGES} warnings");
        self.messages_left -= 1;
        tell();
        Ok(())
    }

    /// Waits for a message or the end. If a call of an intermediate process is notified, the agent gets the descriptor at
    /// once, since the successor would never come.
    fn wait(&mut self) -> Result<SyncEvent> {
        let begin = Instant::now();
        loop {
            let listener = self.listener.as_ref().map(AsFd::as_fd);
            match self.sync.wait_for(self.launched.pidfd(), listener, PATIENCE)? {
                Some(SyncEvent::Notified) => {
                    let outcome = self.send_to_agent();
                    self.prefer_exit_reason(outcome)?;
                }
                Some(event) => return Ok(event),
                None if self.may_execute && self.has_executed() => return Ok(SyncEvent::Ended),
                None => self.check_wait(begin.elapsed())?,
            }
        }
    }

    /// Whether the process runs another program than the runtime.
    fn has_executed(&self) -> bool {
        let program = |process: &str| {
            let file = std::fs::metadata(format!("/proc/{process}/exe")).ok()?;
            Some((file.dev(), file.ino()))
        };
        program(&self.launched.pid.to_string()).is_some_and(|runs| Some(runs) != program("self"))
    }

    fn check_wait(&self, waited: Duration) -> Result<()> {
        if let Some(error) = self.callbacks.wait_error(waited) {
            return Err(error);
        }
        let stopped = waited >= STOPPED_LIMIT && sys::pid::is_stopped(self.launched.pid);
        ensure!(!stopped, "the container process {} was stopped during its setup", self.launched.pid);
        Ok(())
    }

    /// Sleeps until the other half has ended or executed, for a limited time. Messages do not wake it up, which would cost the
    /// other half time.
    pub(super) fn sleep_till_end(&self) -> Result<()> {
        self.sync.has_ended_within(PATIENCE).map(drop)
    }

    /// Fetches the notify descriptor. It is sent to the agent later, with the pid of the process that stays.
    fn fetch_listener(&mut self, number: Option<u32>) -> Result<()> {
        let Some(listener) = listener::fetch(&self.sync, number, self.launched.pidfd()).phase("seccomp")? else {
            return Ok(());
        };
        self.listener = Some(listener);
        if number.is_some() { self.sync.send_go() } else { Ok(()) }
    }

    fn send_to_agent(&mut self) -> Result<()> {
        let Some(listener) = self.listener.take() else { return Ok(()) };
        // A call of the successor may be notified before the exit of the intermediate process is seen.
        let successor = self.launched.successor_slot.as_ref().and_then(SuccessorSlot::taken);
        self.callbacks.send_to_agent(successor.unwrap_or(self.launched.pid), listener.as_fd()).phase("seccomp")
    }

    /// Waits for the exit of the intermediate process, and continues with its successor.
    pub(super) fn switch_to_successor(&mut self) -> Result<()> {
        if self.launched.successor_slot.is_none() {
            return Ok(());
        }
        let begin = Instant::now();
        while !sys::pid::ended_within(self.launched.pidfd(), PATIENCE.as_millis() as u16)
            .context("wait for the intermediate process")?
        {
            self.check_wait(begin.elapsed())?;
        }
        let how = fork::exit_of(self.launched.pidfd());
        let Some(pid) = self.launched.successor_slot.as_ref().and_then(SuccessorSlot::taken) else {
            self.launched.pidfd = None;
            return Err(self.died(&how));
        };
        self.launched.pidfd = None;
        let pidfd = sys::pid::open(pid).with_context(|| format!("open a pidfd of the container process {pid}"))?;
        (self.launched.pid, self.launched.pidfd, self.launched.successor_slot) = (pid, Some(pidfd), None);
        self.may_execute = true;
        ::log::trace!("intermediate process ended");
        Ok(())
    }

    /// Sends the agent the notify descriptor, once the process that stays is recorded.
    pub(super) fn deliver_listener(&mut self) -> Result<()> {
        let outcome = self.send_to_agent();
        self.prefer_exit_reason(outcome)
    }

    /// Receives until the intermediate process exits, and continues with its successor.
    pub(super) fn until_successor(&mut self) -> Result<()> {
        match self.next_message()? {
            Some(message) => Err(unexpected_message(&message)),
            None => self.switch_to_successor(),
        }
    }

    /// Receives until the program runs: execve closes the sync socket.
    pub(super) fn until_program(mut self, mut done: bool) -> Result<Launched> {
        loop {
            match self.next_message()? {
                Some(Message::Done) if !done => done = true,
                Some(message) => return Err(unexpected_message(&message)),
                None if done => {
                    ::log::trace!("program runs");
                    return Ok(self.launched);
                }
                None => return Err(self.explain()),
            }
        }
    }

    /// The error for a process that ended without sending one.
    pub(super) fn explain(&mut self) -> Error {
        let Some(pidfd) = self.launched.pidfd.as_ref() else { return Error::new("the container process has ended") };
        if sys::pid::ended_within(pidfd.as_fd(), DEATH_MS) == Ok(false) {
            return Error::new("the container process closed the sync socket, and still runs")
                .hint("a process that may trace it (CAP_SYS_PTRACE) made it do so");
        }
        let how = fork::exit_of_dead(pidfd.as_fd());
        self.launched.pidfd = None;
        self.died(&how)
    }

    fn died(&self, how: &fork::ExitReason) -> Error {
        let death = || Error::new(format!("the container process {how} during its setup"));
        self.callbacks.out_of_memory(how.is_kill()).unwrap_or_else(death)
    }
}

/// The error for a message that is not expected here.
pub(super) fn unexpected_message(message: &Message) -> Error {
    Error::new(format!("unexpected message {message:?} on the sync socket"))
}

/// Receives a message that has to be this one.
pub(super) fn expect(handshake: &mut Handshake<'_>, wanted: &Message) -> Result<()> {
    match handshake.next_message()? {
        Some(message) if message == *wanted => Ok(()),
        Some(message) => bail!("{}", unexpected_message(&message)),
        None => Err(handshake.explain()),
    }
}
