//! A seccomp agent: takes the listeners that a runtime sends, and answers the calls that come.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::Value;

/// How a call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The kernel carries it out.
    Continue,
    /// It fails with this error.
    Fails(i32),
    /// The agent closes the listener.
    Leave,
}

/// An agent at work in a thread of its own until the test's process ends.
pub struct Agent {
    path: PathBuf,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    documents: Vec<(Value, usize, bool)>,
    calls: Vec<(i32, u32)>,
}

impl Agent {
    /// Listens at this path and answers each call by its number.
    pub fn listen(path: impl AsRef<Path>, answer: fn(u32) -> Answer) -> Agent {
        let path = path.as_ref().to_owned();
        let listener = UnixListener::bind(&path).expect("listen as a seccomp agent");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = shared.clone();
                let stream = stream.expect("accept as a seccomp agent");
                std::thread::spawn(move || serve(&stream, &shared, answer));
            }
        });
        Agent { path, seen }
    }

    pub fn path(&self) -> &str {
        self.path.to_str().expect("a plain path")
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Each document that came, with how many descriptors, and whether the connection was closed after it.
    pub fn documents(&self) -> Vec<(Value, usize, bool)> {
        self.seen().documents.clone()
    }

    /// Pid and number of each call that came.
    pub fn calls(&self) -> Vec<(i32, u32)> {
        self.seen().calls.clone()
    }
}

fn serve(stream: &UnixStream, seen: &Mutex<Seen>, answer: fn(u32) -> Answer) {
    let (mut document, mut fds) = (Vec::new(), Vec::new());
    loop {
        let mut bytes = [0; 65536];
        let mut space = nix::cmsg_space!([i32; 4]);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), flags).expect("hear the runtime");
        for part in message.cmsgs().expect("control messages") {
            if let ControlMessageOwned::ScmRights(received) = part {
                // SAFETY: the kernel has just made these descriptors for this message, and nobody else knows them.
                fds.extend(received.into_iter().map(|fd| unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) }));
            }
        }
        let length = message.bytes;
        document.extend_from_slice(&bytes[..length]);
        let whole = serde_json::from_slice::<Value>(&document);
        if let (Ok(document), true) = (&whole, length > 0) {
            seen.lock().expect("the agent's memory").documents.push((document.clone(), fds.len(), false));
        }
        if whole.is_ok() || length == 0 {
            break;
        }
    }
    let Some(listener): Option<OwnedFd> = fds.pop() else { return };
    // The end of the connection is seen in a thread of its own: the runtime may be slower than the calls.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let ended = std::io::Read::read(&mut &*stream, &mut [0]).is_ok_and(|length| length == 0);
            if let Some(last) = seen.lock().expect("the agent's memory").documents.last_mut() {
                last.2 = ended;
            }
        });
        supervise(listener, seen, answer);
    });
}

/// `SECCOMP_IOCTL_NOTIF_RECV` and `SECCOMP_IOCTL_NOTIF_SEND`.
const RECEIVE: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;

fn supervise(listener: OwnedFd, seen: &Mutex<Seen>, answer: fn(u32) -> Answer) {
    loop {
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => panic!("wait for calls: {errno}"),
        }
        if fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP)) {
            return;
        }
        // SAFETY: all of it are plain numbers, for which zero is a value; the kernel wants zeroes.
        let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes one structure of this size, which is in the request's number, to a live local.
        if unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE as _, &raw mut call) } != 0 {
            continue; // the caller was killed meanwhile
        }
        let number = call.data.nr as u32;
        seen.lock().expect("the agent's memory").calls.push((call.pid as i32, number));
        let (error, flags) = match answer(number) {
            Answer::Continue => (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
            Answer::Fails(errno) => (-errno, 0),
            Answer::Leave => return,
        };
        let mut response = libc::seccomp_notif_resp { id: call.id, val: 0, error, flags };
        // SAFETY: the kernel reads one structure of this size from a live local.
        unsafe { libc::ioctl(listener.as_raw_fd(), SEND as _, &raw mut response) };
    }
}
