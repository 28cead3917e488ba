//! The host's end of the conversation, and the guard of the process that it is about.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{Context, Error, Result, bail, ensure};
use crate::sys;
use crate::trace;

use super::fork::{self, Seat};
use super::listener;
use super::wire::{Event, Last, Message, Wire};

/// How many warnings and marks are taken; one more is an error.
const MOST_WORDS: usize = 1000;

/// How often whoever waits asks whether there is a reason to go on waiting.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long, in milliseconds, a process that is killed, or has closed its end of the wire, may take to be dead.
const DEATH_MS: u16 = 10_000;

/// How long a process that somebody has stopped is waited for.
const STOPPED_LIMIT: Duration = Duration::from_secs(10);

/// What the caller of `create` or `exec` does at certain points of the making of a process.
pub trait Attendant {
    /// Puts the container's first process on record as soon as it exists, or the intermediate process in its place.
    fn record(&mut self, _pid: Pid) -> Result<()> {
        Ok(())
    }

    /// Puts the process that an intermediate one has made on record in its place.
    fn record_successor(&mut self, _pid: Pid) -> Result<()> {
        Ok(())
    }

    /// Learns that hooks are about to run: from here on poststop hooks have something to undo.
    fn begin_hooks(&mut self) {}

    /// Tells of the process and takes its terminal, once all but the last steps have succeeded.
    fn settle(&mut self, pid: Pid) -> Result<()>;

    /// Gives the listener of the process' seccomp filter to the agent.
    fn tell_agent(&mut self, pid: Pid, listener: BorrowedFd<'_>) -> Result<()>;

    /// Why the process died, by SIGKILL or otherwise, if it was out of memory.
    fn out_of_memory(&self, _killed: bool) -> Option<Error> {
        None
    }

    /// Why nothing has happened for so long, if that is a reason to give up.
    fn gives_up(&self, _waited: Duration) -> Option<Error> {
        None
    }
}

/// A process of a container. Dropping it ends the process, unless it was kept.
pub struct Launched {
    /// Its pid.
    pub pid: Pid,
    pidfd: Option<OwnedFd>,
    /// While this is an intermediate process: the place of the one that it makes.
    seat: Option<Seat>,
}

impl Launched {
    pub(super) fn new(pid: Pid, pidfd: OwnedFd, seat: Option<Seat>) -> Launched {
        Launched { pid, pidfd: Some(pidfd), seat }
    }

    /// Its handle.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_ref().expect("it is only taken at the end").as_fd()
    }

    /// Lets the process live.
    pub fn keep(mut self) -> OwnedFd {
        self.pidfd.take().expect("it is only taken here")
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        self.pidfd.take().iter().for_each(end);
        // After the one that made it. As our child that nobody has reaped it still has its pid.
        if let Some(pid) = self.seat.take().and_then(|seat| seat.taken()) {
            let _ = kill(pid, Signal::SIGKILL);
            sys::pid::open(pid).iter().for_each(end);
        }
    }
}

/// Kills a child and reaps it. It may be dead already; one that somebody traces is not ours to reap before that one lets go.
fn end(pidfd: &OwnedFd) {
    let _ = sys::pid::signal(pidfd.as_fd(), libc::SIGKILL);
    if sys::pid::ended_within(pidfd.as_fd(), DEATH_MS).unwrap_or(false) {
        let _ = sys::pid::reap_dead(pidfd.as_fd());
    }
}

/// The conversation with the container's half.
pub(super) struct Talk<'a> {
    pub(super) wire: Wire,
    pub(super) launched: Launched,
    pub(super) attendant: &'a mut dyn Attendant,
    /// A listener that the agent was not given yet.
    listener: Option<OwnedFd>,
    /// Whether a listener is still to come.
    notifies: bool,
    words_left: usize,
    /// Whether the process may have executed its program, and so ended the wire.
    may_execute: bool,
}

impl<'a> Talk<'a> {
    /// `notifies`: the process has a filter with a listener.
    pub(super) fn new(wire: Wire, launched: Launched, attendant: &'a mut dyn Attendant, notifies: bool) -> Talk<'a> {
        Talk { wire, launched, attendant, listener: None, notifies, words_left: MOST_WORDS, may_execute: false }
    }

    /// The pid of the process that is talked with.
    pub(super) fn pid(&self) -> Pid {
        self.launched.pid
    }

    /// What of ours fails on a process that has failed or died is only a sign of that: its reason, or else its death, is the
    /// error then.
    pub(super) fn blame<T>(&mut self, outcome: Result<T>) -> Result<T> {
        outcome.map_err(|error| match self.wire.last_word() {
            Last::Failed(reason) => Error::decode(&reason),
            Last::End if self.has_died() => self.explain(),
            Last::End | Last::Done | Last::StillOpen => error,
        })
    }

    /// Whether the end of the wire is that of the process, which comes right after it, and not its execve.
    fn has_died(&self) -> bool {
        const SOON: u16 = 100;
        let pidfd = self.launched.pidfd.as_ref().map(AsFd::as_fd);
        !self.may_execute || pidfd.is_none_or(|pidfd| sys::pid::ended_within(pidfd, SOON) != Ok(false))
    }

    /// The next message that is for the script to answer; `None` at the end of the wire, or when the process has ended, or
    /// has executed its program, and nothing is left of what it said. The wire alone may be held open by somebody else.
    pub(super) fn hear(&mut self) -> Result<Option<Message>> {
        loop {
            if self.wait()? == Event::Ended {
                return Ok(None);
            }
            match self.wire.receive()? {
                Some(Message::Warning(line)) => self.word(|| ::log::warn!("{line}"))?,
                Some(Message::Step(line)) => self.word(|| ::log::debug!("{line}"))?,
                Some(Message::Mark(line)) => self.word(|| trace::write(&line))?,
                Some(Message::Listening(number)) if self.notifies => {
                    self.notifies = false;
                    // It is the word of the process that was made, which may come before the end of its maker is seen.
                    let successor = self.launched.seat.as_ref().is_some_and(|seat| seat.taken().is_some());
                    if successor {
                        self.succeed()?;
                    }
                    let outcome = self.take_listener(number);
                    self.blame(outcome)?;
                    if successor {
                        return Ok(None);
                    }
                    if self.launched.seat.is_none() {
                        self.deliver()?;
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

    fn word(&mut self, tell: impl FnOnce()) -> Result<()> {
        ensure!(self.words_left > 0, "the container process sent more than {MOST_WORDS} warnings");
        self.words_left -= 1;
        tell();
        Ok(())
    }

    /// Waits until the process says something or has ended. A call of an intermediate one that its filter has notified waits
    /// for the agent, who then cannot wait for the process to come.
    fn wait(&mut self) -> Result<Event> {
        let begin = Instant::now();
        loop {
            let listener = self.listener.as_ref().map(AsFd::as_fd);
            match self.wire.wait_for(self.launched.pidfd(), listener, PATIENCE)? {
                Some(Event::Notified) => {
                    let outcome = self.tell_agent();
                    self.blame(outcome)?;
                }
                Some(event) => return Ok(event),
                None if self.may_execute && self.has_executed() => return Ok(Event::Ended),
                None => self.be_patient(begin.elapsed())?,
            }
        }
    }

    /// Whether what the process runs is not the runtime any more.
    fn has_executed(&self) -> bool {
        let program = |process: &str| {
            let file = std::fs::metadata(format!("/proc/{process}/exe")).ok()?;
            Some((file.dev(), file.ino()))
        };
        program(&self.launched.pid.to_string()).is_some_and(|runs| Some(runs) != program("self"))
    }

    fn be_patient(&self, waited: Duration) -> Result<()> {
        if let Some(error) = self.attendant.gives_up(waited) {
            return Err(error);
        }
        let stopped = waited >= STOPPED_LIMIT && sys::pid::is_stopped(self.launched.pid);
        ensure!(!stopped, "the container process {} was stopped during its setup", self.launched.pid);
        Ok(())
    }

    /// Sleeps until the other half has ended or executed, for a while at most, without being woken up for each word, which
    /// the other half pays for.
    pub(super) fn sleep_till_end(&self) -> Result<()> {
        self.wire.has_ended_within(PATIENCE).map(drop)
    }

    /// Takes the listener of the filter. The agent is to know the pid of the process that stays.
    fn take_listener(&mut self, number: Option<u32>) -> Result<()> {
        let Some(listener) = listener::take(&self.wire, number, self.launched.pidfd()).phase("seccomp")? else {
            return Ok(());
        };
        self.listener = Some(listener);
        if number.is_some() { self.wire.let_go() } else { Ok(()) }
    }

    fn tell_agent(&mut self) -> Result<()> {
        let Some(listener) = self.listener.take() else { return Ok(()) };
        // The successor may make a call of which the filter notifies before the end of its maker is seen.
        let successor = self.launched.seat.as_ref().and_then(Seat::taken);
        self.attendant.tell_agent(successor.unwrap_or(self.launched.pid), listener.as_fd()).phase("seccomp")
    }

    /// The intermediate process has ended, or is about to: goes on with the process that it made.
    pub(super) fn succeed(&mut self) -> Result<()> {
        if self.launched.seat.is_none() {
            return Ok(());
        }
        let begin = Instant::now();
        while !sys::pid::ended_within(self.launched.pidfd(), PATIENCE.as_millis() as u16)
            .context("wait for the intermediate process")?
        {
            self.be_patient(begin.elapsed())?;
        }
        let how = fork::fate(self.launched.pidfd());
        let Some(pid) = self.launched.seat.as_ref().and_then(Seat::taken) else {
            self.launched.pidfd = None;
            return Err(self.died(&how));
        };
        self.launched.pidfd = None;
        let pidfd = sys::pid::open(pid).with_context(|| format!("open a pidfd of the container process {pid}"))?;
        (self.launched.pid, self.launched.pidfd, self.launched.seat) = (pid, Some(pidfd), None);
        self.may_execute = true;
        ::log::trace!("intermediate process ended");
        Ok(())
    }

    /// Gives the agent the listener of the process that stays, once that is on record.
    pub(super) fn deliver(&mut self) -> Result<()> {
        let outcome = self.tell_agent();
        self.blame(outcome)
    }

    /// Hears an intermediate process out, which has nothing to ask, and goes on with the one that it made.
    pub(super) fn until_successor(&mut self) -> Result<()> {
        match self.hear()? {
            Some(message) => Err(out_of_turn(&message)),
            None => self.succeed(),
        }
    }

    /// Hears until the program runs, which is when the wire ends: it closes on exec.
    pub(super) fn until_program(mut self, mut done: bool) -> Result<Launched> {
        loop {
            match self.hear()? {
                Some(Message::Done) if !done => done = true,
                Some(message) => return Err(out_of_turn(&message)),
                None if done => {
                    ::log::trace!("program runs");
                    return Ok(self.launched);
                }
                None => return Err(self.explain()),
            }
        }
    }

    /// Says how the process died without a word of its own.
    pub(super) fn explain(&mut self) -> Error {
        let Some(pidfd) = self.launched.pidfd.as_ref() else { return Error::new("the container process has ended") };
        if sys::pid::ended_within(pidfd.as_fd(), DEATH_MS) == Ok(false) {
            return Error::new("the container process closed the sync socket, and still runs")
                .hint("a process that may trace it (CAP_SYS_PTRACE) made it do so");
        }
        let how = fork::fate_of_dead(pidfd.as_fd());
        self.launched.pidfd = None;
        self.died(&how)
    }

    fn died(&self, how: &fork::Fate) -> Error {
        let death = || Error::new(format!("the container process {how} during its setup"));
        self.attendant.out_of_memory(how.is_kill()).unwrap_or_else(death)
    }
}

/// A message that the script does not expect where it came.
pub(super) fn out_of_turn(message: &Message) -> Error {
    Error::new(format!("unexpected message {message:?} on the sync socket"))
}

/// A message that has to come next.
pub(super) fn expect(talk: &mut Talk<'_>, wanted: &Message) -> Result<()> {
    match talk.hear()? {
        Some(message) if message == *wanted => Ok(()),
        Some(message) => bail!("{}", out_of_turn(&message)),
        None => Err(talk.explain()),
    }
}
