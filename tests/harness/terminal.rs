//! Terminals: a pseudo terminal as an engine gives it to a foreground runtime, and the console socket.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::eventually;

/// The master side of a pseudo terminal; what it receives is collected.
pub struct Terminal {
    master: Arc<File>,
    replica: Option<OwnedFd>,
    seen: Arc<Mutex<String>>,
}

impl Terminal {
    /// A new one of 30 rows and 100 columns.
    pub fn new() -> Terminal {
        let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None).expect("open a pseudo terminal");
        let mut terminal = Terminal::of(pair.master);
        terminal.replica = Some(pair.slave);
        terminal
    }

    /// This master.
    pub fn of(master: OwnedFd) -> Terminal {
        let master = Arc::new(File::from(master));
        let seen = Arc::new(Mutex::new(String::new()));
        let (from, to) = (master.clone(), seen.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // EIO: the last replica was closed. Nobody keeps `to`: the test is over.
            while let Ok(n @ 1..) = (&*from).read(&mut bytes) {
                to.lock().expect("no test panics here").push_str(&String::from_utf8_lossy(&bytes[..n]));
                if Arc::strong_count(&to) == 1 {
                    break;
                }
            }
        });
        Terminal { master, replica: None, seen }
    }

    /// The replica, once.
    pub fn replica(&mut self) -> OwnedFd {
        self.replica.take().expect("the replica is given away once")
    }

    pub fn master(&self) -> &File {
        &self.master
    }

    /// Types this.
    pub fn types(&self, text: &str) {
        (&*self.master).write_all(text.as_bytes()).expect("write to the terminal");
    }

    /// What it has shown so far.
    pub fn seen(&self) -> String {
        self.seen.lock().expect("no test panics here").clone()
    }

    /// Waits until it shows this.
    #[track_caller]
    pub fn until(&self, text: &str) {
        let begin = std::time::Instant::now();
        while !self.seen().contains(text) {
            assert!(begin.elapsed() < Duration::from_secs(10), "the terminal never shows {text:?}: {:?}", self.seen());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A console socket that an engine listens on.
pub struct ConsoleSocket {
    path: PathBuf,
    listener: UnixListener,
}

/// What came through a console socket: the name and the descriptors of one message.
pub struct Console {
    pub name: String,
    pub fds: Vec<OwnedFd>,
}

impl ConsoleSocket {
    /// Listens at this path, which may be longer than a socket's name can be.
    pub fn at(path: impl AsRef<Path>) -> ConsoleSocket {
        let path = path.as_ref();
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("make the socket's directory");
        let dir = File::open(path.parent().expect("a parent")).expect("open the socket's directory");
        let name = path.file_name().expect("a name");
        let short = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
        let listener = UnixListener::bind(short).expect("listen on the console socket");
        listener.set_nonblocking(true).expect("make it non-blocking");
        ConsoleSocket { path: path.into(), listener }
    }

    pub fn path(&self) -> &str {
        self.path.to_str().expect("a plain path")
    }

    /// True if someone has connected.
    pub fn is_called(&self) -> bool {
        let mut fds = [PollFd::new(std::os::fd::AsFd::as_fd(&self.listener), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Takes the one message of the one connection.
    #[track_caller]
    pub fn receive(&self) -> Console {
        eventually("someone connects to the console socket", || self.is_called());
        let (stream, _) = self.listener.accept().expect("accept on the console socket");
        stream.set_nonblocking(false).expect("make it blocking");
        receive(&stream)
    }
}

fn receive(stream: &UnixStream) -> Console {
    let mut bytes = [0; 4096];
    let mut space = nix::cmsg_space!([i32; 4]);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)
        .expect("receive from the console socket");
    let mut fds = Vec::new();
    for part in message.cmsgs().expect("control messages") {
        if let ControlMessageOwned::ScmRights(received) = part {
            // SAFETY: the kernel has just made these descriptors for this message, and nobody else knows them.
            fds.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let length = message.bytes;
    Console { name: String::from_utf8_lossy(&bytes[..length]).into_owned(), fds }
}
