//! Readiness of a service, sd_notify(3): forwards what the container sends to its `NOTIFY_SOCKET` to the socket of the
//! service manager.
//!
//! The container never sees the manager's socket. It gets one of the runtime's, in a directory that is mounted read-only.
//! Only `READY=1` is forwarded, with the pid that the manager has to watch: a container may not choose that pid, nor send
//! other requests.
//!
//! Every user of the container may write to the socket, so its mode is open. On the host the private state directory
//! above it keeps others away; the container reaches it by the mount.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socket as unix_socket};
use nix::unistd::pipe2;

use crate::error::{Context, Result, bail};
use crate::sys::Errno;
use crate::sys::socket::{self, Address};

use super::store::Directory;

/// How long the manager may take to read its socket.
const BARRIER_MS: u16 = 30_000;

/// The socket to which the container writes, and the address of the manager.
pub struct Relay {
    inner: OwnedFd,
    outer: OsString,
}

/// The directory that is mounted in the container.
pub fn place(directory: &Directory) -> PathBuf {
    directory.file("notify")
}

/// Makes that directory.
pub fn prepare(directory: &Directory) -> Result<()> {
    let place = place(directory);
    let make = || {
        fs::create_dir(&place)?;
        // Regardless of the umask: the container's user has to pass. Others cannot, as the directory above is private.
        fs::set_permissions(&place, Permissions::from_mode(0o755))
    };
    make().with_context(|| format!("make the directory {}", place.display()))
}

impl Relay {
    /// Makes the container's socket, before its program runs; `outer` is the manager's: a path, or `@` and an abstract
    /// name.
    pub fn listen(directory: &Directory, outer: &OsStr) -> Result<Relay> {
        let place = place(directory);
        let path = place.join(crate::plan::notify::SOCKET);
        let make = || -> std::io::Result<OwnedFd> {
            let inner = unix_socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                // Left by a `start` that was killed.
                _ => {}
            }
            socket::bind(inner.as_fd(), &path)?;
            fs::set_permissions(&path, Permissions::from_mode(0o777))?;
            Ok(inner)
        };
        let inner = make().with_context(|| format!("make the notify socket {}", path.display()))?;
        Ok(Relay { inner, outer: outer.to_owned() })
    }

    /// The descriptor that becomes readable when the container has sent something.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }

    /// Reads what the container has sent. True if it is ready and the manager was notified.
    pub fn turn(&self, main: i32) -> bool {
        let mut bytes = [0; 4096];
        // An error means "not ready": it is no reason to end the container.
        let length = recv(self.inner.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT).unwrap_or(0);
        let ready = says_ready(&bytes[..length]);
        if ready && let Err(error) = self.tell(main) {
            log::warn!("{error}");
        }
        ready
    }

    /// Waits until the container is ready or init has ended, and then until the manager has read the notification: it
    /// identifies the sender by a process that has to live.
    pub fn until_ready(&self, init: BorrowedFd<'_>, main: i32) -> Result<()> {
        loop {
            let mut fds = [PollFd::new(self.fd(), PollFlags::POLLIN), PollFd::new(init, PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context("wait for the container to be ready"),
            }
            let has_come = |fd: &PollFd<'_>| fd.any() == Some(true);
            // First what it sent before its end.
            if has_come(&fds[0]) {
                if self.turn(main) {
                    if let Err(error) = self.wait_for_manager() {
                        log::warn!("{error}");
                    }
                    return Ok(());
                }
            } else if has_come(&fds[1]) {
                return Ok(());
            }
        }
    }

    fn tell(&self, main: i32) -> Result<()> {
        self.send(format!("READY=1\nMAINPID={main}").as_bytes(), &[])
    }

    /// sd_notify_barrier(3).
    fn wait_for_manager(&self) -> Result<()> {
        let (ours, theirs) = pipe2(OFlag::O_CLOEXEC).context("make a pipe for the service manager")?;
        self.send(b"BARRIER=1", &[theirs.as_fd()])?;
        drop(theirs);
        match poll(&mut [PollFd::new(ours.as_fd(), PollFlags::empty())], PollTimeout::from(BARRIER_MS)) {
            Ok(0) => bail!("the service manager has not read its notify socket within 30 seconds"),
            done => done.map(drop).context("wait for the service manager"),
        }
    }

    fn send(&self, message: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        let send = || -> Result<(), Errno> {
            let socket = unix_socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
            let address = address(&self.outer)?;
            socket::send(socket.as_fd(), message, fds, MsgFlags::empty(), Some(address.get())).map(drop)
        };
        send().with_context(|| format!("notify the service manager at {}", self.outer.display()))
    }
}

/// The address of a manager's socket.
fn address(name: &OsStr) -> Result<Address, Errno> {
    match name.as_bytes() {
        [b'@', name @ ..] => Address::abstract_name(name),
        path if path.starts_with(b"/") => Address::of(Path::new(name)),
        // Such as `vsock:`, of virtual machines.
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

fn says_ready(message: &[u8]) -> bool {
    message.split(|&byte| byte == b'\n').any(|line| line == b"READY=1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_line_of_its_own_is_readiness() {
        for message in [&b"READY=1"[..], b"READY=1\n", b"STATUS=x\nREADY=1\nMAINPID=1"] {
            assert!(says_ready(message));
        }
        for message in [&b""[..], b"READY=0", b"STATUS=READY=1", b"READY=10", b"XREADY=1"] {
            assert!(!says_ready(message));
        }
    }

    #[test]
    fn a_manager_listens_at_a_path_or_under_an_abstract_name() {
        assert!(address(OsStr::new("@corten")).unwrap().get().as_abstract().is_some());
        assert_eq!(address(OsStr::new("/run/x")).unwrap().get().path(), Some(Path::new("/run/x")));
        for wrong in ["vsock:2:1", "run/x", ""] {
            assert_eq!(address(OsStr::new(wrong)).err(), Some(Errno::EAFNOSUPPORT), "{wrong}");
        }
    }
}
