//! A runtime in the foreground: waits for the process, passes signals on, and carries bytes between its own terminal
//! and the container's. One loop over poll(2), no thread.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{OutputFlags, SetArg, SpecialCharacterIndices, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{Pid, getpgrp, read, tcgetpgrp, write};

use crate::error::{Context, Result};
use crate::sys::{Errno, process, tty};

pub use crate::sys::process::Ended;

/// Signals that are not forwarded: SIGCHLD; SIGWINCH, which is handled here; SIGPIPE of the own output; and SIGURG, which Go
/// programs send to themselves.
const OURS: [i32; 4] = [libc::SIGCHLD, libc::SIGWINCH, libc::SIGPIPE, libc::SIGURG];

/// Signals that end the runtime when the container has ended, but its output cannot be delivered.
const ENOUGH: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// How long to wait before a terminal is read again that no process of the container has open.
const HUNG_UP_MS: u16 = 100;

/// The signals of a runtime that stays with its container.
#[derive(Debug)]
pub struct Foreground {
    signals: OwnedFd,
}

/// The caller's terminal connected with a container's. Drop restores the settings of the caller's.
#[derive(Debug)]
pub struct Terminal {
    controller: OwnedFd,
    /// Which of our standard streams is a terminal, for its size.
    own: Option<BorrowedFd<'static>>,
    raw: Option<Raw>,
    /// Whether the runtime is in the background, and must not read or change the terminal.
    background: bool,
    input: Buffer,
    output: Buffer,
    hung_up: bool,
    drained: bool,
}

/// How often a runtime in the background checks whether it still is: bash sends SIGCONT only to stopped jobs.
const BACKGROUND_MS: u16 = 200;

/// Whether the terminal is another process group's, so that reading it is SIGTTIN, or EIO where that is blocked (tty_ioctl(4),
/// termios(3)). Not where it is no controlling terminal of ours.
fn in_background(terminal: BorrowedFd<'_>) -> bool {
    tcgetpgrp(terminal).is_ok_and(|group| group != getpgrp())
}

/// Our standard input in raw mode, until dropped.
#[derive(Debug)]
struct Raw {
    terminal: BorrowedFd<'static>,
    before: Termios,
    raw: Termios,
}

impl Raw {
    /// Keystrokes go to the container unchanged. The output keeps its newline handling, since that of the container's
    /// terminal is off.
    fn enter(terminal: BorrowedFd<'static>) -> Result<Option<Raw>> {
        let Ok(before) = tcgetattr(terminal) else { return Ok(None) };
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        raw.output_flags |= before.output_flags & OutputFlags::OPOST;
        let raw = Raw { terminal, before, raw };
        raw.enter_again().context("set the caller's terminal to raw mode")?;
        Ok(Some(raw))
    }

    /// After somebody else had the terminal.
    fn enter_again(&self) -> Result<(), Errno> {
        tcsetattr(self.terminal, SetArg::TCSANOW, &self.raw)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if in_background(self.terminal) {
            // The foreground process group has set it up for itself.
            return;
        }
        // A terminal that is gone needs no settings.
        let _ = tcsetattr(self.terminal, SetArg::TCSANOW, &self.before);
    }
}

/// Another source of the loop: `act` is called whenever `fd` is readable, until it returns true.
pub struct ExtraSource<'a> {
    /// What to wait for.
    pub fd: BorrowedFd<'a>,
    /// What to do then.
    pub act: &'a mut dyn FnMut() -> bool,
}

/// Bytes that were read and not written; empty when `from` has reached `to`.
#[derive(Debug)]
struct Buffer {
    bytes: Box<[u8]>,
    from: usize,
    to: usize,
    /// Nothing more comes in (input), or nothing more can go out (output).
    closed: bool,
}

impl Buffer {
    fn new() -> Buffer {
        Buffer { bytes: vec![0; 4096].into(), from: 0, to: 0, closed: false }
    }

    fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// Reads into the empty buffer.
    fn fill(&mut self, source: BorrowedFd<'_>) -> Result<usize, Errno> {
        let length = read(source, &mut self.bytes)?;
        (self.from, self.to) = (0, length);
        Ok(length)
    }

    /// Writes what the other side takes.
    fn flush(&mut self, target: BorrowedFd<'_>) -> Result<(), Errno> {
        self.from += write(target, &self.bytes[self.from..self.to])?;
        Ok(())
    }

    fn discard(&mut self) {
        self.from = self.to;
    }
}

impl Terminal {
    /// Connects the caller's terminal with the container's. To be called after [`Foreground::block_signals`], or SIGTTOU stops
    /// a runtime in the background; and before the program starts, so that it sees the right size at once.
    ///
    /// The container's terminal stops turning `\n` into `\r\n` (ONLCR), as runc has it: what is not a terminal on our
    /// side gets plain lines, and ours does it itself.
    pub fn attach(controller: OwnedFd) -> Result<Terminal> {
        fcntl(&controller, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("make the terminal non-blocking")?;
        let mut settings = tcgetattr(&controller).context("read the settings of the terminal")?;
        settings.output_flags -= OutputFlags::ONLCR;
        tcsetattr(&controller, SetArg::TCSANOW, &settings).context("set up the terminal")?;
        let stdio = process::stdio();
        let mut terminal = Terminal {
            controller,
            own: stdio.into_iter().find(|&fd| tty::size(fd).is_ok()),
            raw: None,
            background: false,
            input: Buffer::new(),
            output: Buffer::new(),
            hung_up: false,
            drained: false,
        };
        terminal.resize();
        terminal.background = in_background(stdio[0]);
        terminal.raw = if terminal.background { None } else { Raw::enter(stdio[0])? };
        Ok(terminal)
    }

    /// Checks whether the runtime is in the background. If not, it sets mode and size again, which the shell may have
    /// changed.
    fn check_background(&mut self) -> Result<()> {
        let stdin = process::stdio()[0];
        self.background = in_background(stdin);
        if self.background {
            return Ok(());
        }
        match &self.raw {
            Some(raw) => raw.enter_again().context("set the caller's terminal to raw mode")?,
            None => self.raw = Raw::enter(stdin)?,
        }
        self.resize();
        Ok(())
    }

    /// Gives the container's terminal the size of ours.
    fn resize(&self) {
        if let Some((rows, columns)) = self.own.and_then(|own| tty::size(own).ok())
            && (rows, columns) != (0, 0)
        {
            // The container's end can be gone at any time; then there is nothing to resize.
            let _ = tty::set_size(self.controller.as_fd(), rows, columns);
        }
    }

    /// What to wait for, beside signals and the end of the child.
    fn interests(&self, ended: bool) -> impl Iterator<Item = (PollSource, BorrowedFd<'_>, PollFlags)> {
        let [stdin, stdout, _] = process::stdio();
        let typing = self.input.is_empty() && !self.input.closed && !self.background && !ended;
        let mut events = PollFlags::empty();
        events.set(PollFlags::POLLIN, self.output.is_empty());
        events.set(PollFlags::POLLOUT, !self.input.is_empty());
        [
            typing.then_some((PollSource::Stdin, stdin, PollFlags::POLLIN)),
            (!events.is_empty() && !self.hung_up).then_some((PollSource::Controller, self.controller.as_fd(), events)),
            (!self.output.is_empty()).then_some((PollSource::Stdout, stdout, PollFlags::POLLOUT)),
        ]
        .into_iter()
        .flatten()
    }

    fn read_input(&mut self) {
        match self.input.fill(process::stdio()[0]) {
            Ok(0) => self.end_of_input(),
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) if in_background(process::stdio()[0]) => self.background = true,
            // The terminal went away.
            Err(_) => self.input.closed = true,
        }
    }

    /// Types the end-of-file character, which is how a terminal says that no more input comes.
    fn end_of_input(&mut self) {
        self.input.closed = true;
        let Ok(settings) = tcgetattr(&self.controller) else { return };
        self.input.bytes[0] = settings.control_chars[SpecialCharacterIndices::VEOF as usize];
        (self.input.from, self.input.to) = (0, 1);
    }

    /// Carries what the container's terminal has for us, and what we have for it.
    fn relay_controller(&mut self) {
        if !self.input.is_empty() {
            match self.input.flush(self.controller.as_fd()) {
                Ok(()) | Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(_) => self.input.discard(),
            }
        }
        if !self.output.is_empty() {
            return;
        }
        match self.output.fill(self.controller.as_fd()) {
            Ok(0) | Err(Errno::EAGAIN) => (self.drained, self.hung_up) = (true, false),
            // Somebody in the container opened it again.
            Ok(_) => self.hung_up = false,
            Err(Errno::EINTR) => {}
            // EIO: nobody in the container has it open, and all that was written has been read.
            Err(_) => (self.drained, self.hung_up) = (true, true),
        }
        if self.output.closed {
            self.output.discard();
        }
    }

    fn write_output(&mut self) {
        match self.output.flush(process::stdio()[1]) {
            Ok(()) | Err(Errno::EAGAIN | Errno::EINTR) => {}
            // Our reader left. The container must not block because of it.
            Err(_) => {
                self.output.closed = true;
                self.output.discard();
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PollSource {
    Signals,
    Child,
    ExtraSource,
    Stdin,
    Controller,
    Stdout,
}

impl Foreground {
    /// Blocks all signals, before the fork, so that none is lost. They stay blocked so that no signal interrupts the cleanup.
    /// [`super::Process::start_session`] unblocks them in the child, as `std::process::Command` does in its children.
    pub fn block_signals() -> Result<Foreground> {
        process::block_signals().context("block signals")?;
        Ok(Foreground { signals: process::signal_fd().context("create a signalfd")? })
    }

    /// Waits for the child `pid`, reaps all other children, and passes signals for the container to `forward`. Returns when
    /// the child has ended and its terminal output is delivered.
    pub fn run(
        &self,
        pid: Pid,
        pidfd: BorrowedFd<'_>,
        mut terminal: Option<Terminal>,
        mut forward: impl FnMut(i32),
        mut extra: Option<ExtraSource<'_>>,
    ) -> Result<Ended> {
        let mut ended = None;
        loop {
            for source in self.wait(pidfd, terminal.as_ref(), extra.as_ref(), ended.is_some())? {
                match (source, &mut terminal) {
                    (PollSource::Signals, terminal) => {
                        let enough = self.take_signals(terminal.as_mut(), &mut forward, ended.is_some())?;
                        if let Some(how) = ended.filter(|_| enough) {
                            return Ok(how);
                        }
                    }
                    (PollSource::Child, _) => {}
                    (PollSource::ExtraSource, _) => {
                        if extra.as_mut().is_some_and(|extra| (extra.act)()) {
                            extra = None;
                        }
                    }
                    (PollSource::Stdin, Some(terminal)) => terminal.read_input(),
                    (PollSource::Controller, Some(terminal)) => terminal.relay_controller(),
                    (PollSource::Stdout, Some(terminal)) => terminal.write_output(),
                    (_, None) => {}
                }
            }
            if let Some(terminal) = terminal.as_mut().filter(|terminal| terminal.background) {
                terminal.check_background()?;
            }
            ended = match ended {
                None => reap(pid)?,
                some => some,
            };
            if let Some(how) = ended
                && terminal.as_mut().is_none_or(Terminal::is_delivered)
            {
                return Ok(how);
            }
        }
    }

    /// Sleeps until something happens and says what.
    fn wait(
        &self,
        pidfd: BorrowedFd<'_>,
        terminal: Option<&Terminal>,
        extra: Option<&ExtraSource<'_>>,
        ended: bool,
    ) -> Result<Vec<PollSource>> {
        let mut wanted = vec![(PollSource::Signals, self.signals.as_fd(), PollFlags::POLLIN)];
        if !ended {
            wanted.push((PollSource::Child, pidfd, PollFlags::POLLIN));
        }
        wanted.extend(extra.map(|extra| (PollSource::ExtraSource, extra.fd, PollFlags::POLLIN)));
        wanted.extend(terminal.iter().flat_map(|terminal| terminal.interests(ended)));
        let mut polled: Vec<PollFd<'_>> = wanted.iter().map(|&(_, fd, events)| PollFd::new(fd, events)).collect();
        let hung_up = terminal.is_some_and(|terminal| terminal.hung_up);
        let timeout = match terminal {
            Some(terminal) if terminal.hung_up => PollTimeout::from(HUNG_UP_MS),
            Some(terminal) if terminal.background => PollTimeout::from(BACKGROUND_MS),
            _ => PollTimeout::NONE,
        };
        let ready = match poll(&mut polled, timeout) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => return Ok(Vec::new()),
            Err(errno) => return Err(errno).context("wait for the container"),
        };
        if ready == 0 {
            return Ok(if hung_up { vec![PollSource::Controller] } else { Vec::new() });
        }
        let fired = |poll: &PollFd<'_>| poll.revents().is_some_and(|events| !events.is_empty());
        Ok(wanted.iter().zip(&polled).filter(|(_, poll)| fired(poll)).map(|(&(source, ..), _)| source).collect())
    }

    /// Handles all waiting signals; true when one of them asks to give up.
    fn take_signals(
        &self,
        mut terminal: Option<&mut Terminal>,
        forward: &mut impl FnMut(i32),
        ended: bool,
    ) -> Result<bool> {
        let mut enough = false;
        while let Some(signal) = process::read_signal(self.signals.as_fd()).context("read a signal")? {
            enough |= ENOUGH.contains(&signal);
            if let (libc::SIGCONT, Some(terminal)) = (signal, &mut terminal) {
                // The runtime was stopped, and the shell had the terminal meanwhile.
                terminal.check_background()?;
            }
            match &terminal {
                Some(terminal) if signal == libc::SIGWINCH => terminal.resize(),
                _ if OURS.contains(&signal) || ended => {}
                _ => forward(signal),
            }
        }
        Ok(enough)
    }
}

impl Terminal {
    /// After the end of the child: is all its output read and written? Reading once more is what finds out.
    fn is_delivered(&mut self) -> bool {
        if self.output.is_empty() {
            // Reading flushes what is still on its way inside the kernel (n_tty_read).
            self.drained = false;
            self.input.discard();
            self.relay_controller();
        }
        self.output.is_empty() && self.drained
    }
}

/// Reaps all children that have ended; says how the one that matters did.
fn reap(pid: Pid) -> Result<Option<Ended>> {
    let mut ended = None;
    loop {
        match process::reap_any() {
            Ok(Some((child, how))) if child == pid => ended = Some(how),
            Ok(Some(_)) => {}
            Ok(None) | Err(Errno::ECHILD) => return Ok(ended),
            Err(errno) => return Err(errno).with_context(|| format!("wait for process {pid}")),
        }
    }
}
