//! The terminal of a container: a pty of the container's devpts, whose master side goes to the caller.
//!
//! Nothing is opened by a path that the container could have changed: the directory is verified to be the root of a
//! devpts, its ptmx is opened without links or mounts in between, and the replica comes from the controller
//! (CVE-2025-52565).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, setsockopt, socket, socketpair};
use nix::sys::stat::{fstat, stat};
use nix::sys::statfs::{DEVPTS_SUPER_MAGIC, fstatfs};
use nix::sys::time::TimeVal;
use nix::unistd::{Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchown};

use crate::error::{Context, Error, Result, ensure};
use crate::sys::socket::{connect as connect_socket, receive as receive_message, send as send_message};
use crate::sys::{Errno, process, tty};

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Height in lines.
    pub rows: u16,
    /// Width in characters.
    pub columns: u16,
}

/// Both ends of a pty in the container.
#[derive(Debug)]
pub struct Pty {
    controller: OwnedFd,
    replica: OwnedFd,
}

/// The name that goes with the controller over a console socket, as runc sends it.
const NAME: &[u8] = b"/dev/ptmx";

/// Opens `/dev/pts`; to be called after the change of root.
pub fn devpts() -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat2(AT_FDCWD, "/dev/pts", OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS))
        .or_else(no_devpts)
}

/// The error of a `/dev/pts` that cannot be opened.
///
/// # Errors
/// Always.
pub fn no_devpts<T>(errno: Errno) -> Result<T> {
    Err(errno)
        .context("open /dev/pts of the container")
        .field(|| "/process/terminal")
        .hint("a terminal needs a mount of type devpts at /dev/pts")
}

impl Pty {
    /// Makes a pty in the devpts whose root directory `devpts` is, for the user `owner`.
    ///
    /// The group stays what the mount option `gid` says. Line discipline settings stay the kernel's.
    pub fn open(devpts: BorrowedFd<'_>, owner: u32, size: Size) -> Result<Pty> {
        let pty = Pty::new(devpts).field(|| "/process/terminal")?;
        if size != Size::default() {
            tty::set_size(pty.controller.as_fd(), size.rows, size.columns).context("set the size of the terminal")?;
        }
        if owner != 0 {
            match fchown(&pty.replica, Some(Uid::from_raw(owner)), None) {
                // Its group is not mapped in the user namespace. The program gets it open, which suffices.
                Ok(()) | Err(Errno::EPERM | Errno::EINVAL) => {}
                Err(errno) => return Err(errno).with_context(|| format!("chown the terminal to user {owner}")),
            }
        }
        Ok(pty)
    }

    fn new(devpts: BorrowedFd<'_>) -> Result<Pty> {
        ensure!(
            fstatfs(devpts).context("statfs /dev/pts")?.filesystem_type() == DEVPTS_SUPER_MAGIC,
            "/dev/pts of the container is not a devpts"
        );
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let resolve = ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_BENEATH;
        let controller = openat2(devpts, "ptmx", OpenHow::new().flags(flags).resolve(resolve))
            .context("open /dev/pts/ptmx of the container")?;
        let stat = fstat(&controller).context("stat /dev/pts/ptmx")?;
        // A devpts has its root as inode 1 and its ptmx as inode 2.
        ensure!(
            stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_ino == 2 && stat.st_rdev == libc::makedev(5, 2),
            "/dev/pts/ptmx of the container is not a pty multiplexer"
        );
        tty::unlock(controller.as_fd()).context("unlock the terminal")?;
        let replica = tty::replica(controller.as_fd()).context("open the container's end of the terminal")?;
        Ok(Pty { controller, replica })
    }

    /// The container's end; `/dev/console` is made of it.
    pub fn replica(&self) -> BorrowedFd<'_> {
        self.replica.as_fd()
    }

    /// Makes the container's end standard input, output and error.
    pub fn into_stdio(self) -> Result<()> {
        dup2_stdin(&self.replica).context("make the terminal standard input")?;
        dup2_stdout(&self.replica).context("make the terminal standard output")?;
        dup2_stderr(&self.replica).context("make the terminal standard error")
    }
}

/// Makes the terminal that is standard input the controlling terminal of our session, which we lead.
pub fn control() -> Result<()> {
    tty::set_controlling(process::stdio()[0]).context("make the terminal the controlling terminal")
}
/// Seconds within which the caller has to accept the connection and what is sent.
const PATIENCE: i64 = 10;

/// What [`connect`] does for `--console-socket`.
pub const TO_CONSOLE: &str = "connect to console socket";
/// What it does for `--pidfd-socket`.
pub const TO_PIDFD: &str = "connect to pidfd socket";

/// Connects to a socket of the caller's: `kind` is `console` (`--console-socket`) or `pidfd` (`--pidfd-socket`). The path
/// may be longer than a socket address.
pub fn connect(path: &Path, doing: &str) -> Result<OwnedFd> {
    let socket = match connect_to(path) {
        // The backlog of the socket was full all the time (unix(7)).
        Err(Errno::EAGAIN) => Err(Errno::ETIMEDOUT),
        done => done,
    };
    socket.with_context(|| connecting(path, doing))
}

/// The errors of [`connect`] without connecting, so it misses that nobody listens.
pub fn preflight(path: &Path, doing: &str) -> Result<()> {
    let outcome = match stat(path) {
        // What connect(2) says of any other file.
        Ok(stat) if stat.st_mode & libc::S_IFMT != libc::S_IFSOCK => Err(Errno::ECONNREFUSED),
        other => other.map(drop),
    };
    outcome.with_context(|| connecting(path, doing))
}

fn connecting(path: &Path, doing: &str) -> String {
    format!("{doing} {}", path.display())
}

fn connect_to(path: &Path) -> Result<OwnedFd, Errno> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // It bounds the wait in connect(2), too (socket(7)).
    setsockopt(&socket, SendTimeout, &TimeVal::new(PATIENCE, 0))?;
    connect_socket(socket.as_fd(), path)?;
    Ok(socket)
}

/// The two ends of a socket for a terminal that this runtime relays itself.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
        .context("create a socket pair for the terminal")
}

/// Receives the controller that [`send`] sent.
pub fn receive(socket: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mut name = [0; 64];
    let (_, fds) = receive_message(socket, &mut name, MsgFlags::empty()).context("receive the terminal")?;
    fds.into_iter().next().ok_or_else(|| Error::new("no terminal arrived over the socket"))
}

/// Sends the controller over a console socket: one message, one name, one descriptor.
pub fn send(socket: BorrowedFd<'_>, pty: &Pty) -> Result<()> {
    send_named(socket, NAME, pty.controller.as_fd()).context("send the terminal over the console socket")
}

/// Sends a controller that was received before.
pub fn forward(socket: BorrowedFd<'_>, controller: BorrowedFd<'_>) -> Result<()> {
    send_named(socket, NAME, controller).context("send the terminal over the console socket")
}

/// Sends a pidfd over a pidfd socket, with runc's names: `standard` for init, `setns` for an exec.
pub fn send_pidfd(socket: BorrowedFd<'_>, exec: bool, pidfd: BorrowedFd<'_>) -> Result<()> {
    let name: &[u8] = if exec { b"setns" } else { b"standard" };
    send_named(socket, name, pidfd).context("send the pidfd over the pidfd socket")
}

/// One message, one name, one descriptor.
fn send_named(socket: BorrowedFd<'_>, name: &[u8], fd: BorrowedFd<'_>) -> Result<(), Errno> {
    send_message(socket, name, &[fd], MsgFlags::empty(), None).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::open;
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    use nix::sys::stat::Mode;
    use nix::sys::termios::{OutputFlags, tcgetattr};
    use nix::unistd::Uid;
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("corten-console-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Scratch(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// A devpts of this thread's own: mount namespaces are per thread.
    fn with_devpts(name: &str, test: impl FnOnce(&Path) + Send) {
        if !Uid::effective().is_root() {
            return;
        }
        let scratch = Scratch::new(name);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).unwrap();
                mount(None::<&str>, "/", None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>).unwrap();
                let options = Some("newinstance,ptmxmode=0666,mode=0620,gid=5");
                mount(Some("devpts"), &scratch.0, Some("devpts"), MsFlags::empty(), options).unwrap();
                test(&scratch.0);
            });
        });
    }

    fn directory(path: &Path) -> OwnedFd {
        open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).unwrap()
    }

    #[test]
    fn a_pty_has_owner_group_and_size_and_carries_bytes() {
        with_devpts("open", |path| {
            let pty = Pty::open(directory(path).as_fd(), 1000, Size { rows: 24, columns: 80 }).unwrap();
            let stat = fstat(pty.replica()).unwrap();
            assert_eq!((stat.st_uid, stat.st_gid, stat.st_mode & 0o777), (1000, 5, 0o620));
            assert_eq!(tty::size(pty.replica()), Ok((24, 80)));
            let settings = tcgetattr(pty.replica()).unwrap();
            assert!(settings.output_flags.contains(OutputFlags::ONLCR), "the kernel's settings stay");
            let mut replica = std::fs::File::from(pty.replica);
            let mut controller = std::fs::File::from(pty.controller);
            replica.write_all(b"hello\n").unwrap();
            let mut seen = [0; 16];
            let length = controller.read(&mut seen).unwrap();
            assert_eq!(&seen[..length], b"hello\r\n");
        });
    }

    #[test]
    fn a_directory_that_is_no_devpts_is_refused() {
        let scratch = Scratch::new("fake");
        std::os::unix::fs::symlink("/dev/ptmx", scratch.0.join("ptmx")).unwrap();
        let error = Pty::open(directory(&scratch.0).as_fd(), 0, Size::default()).unwrap_err();
        assert_eq!(error.to_string(), "/process/terminal: /dev/pts of the container is not a devpts");
    }

    #[test]
    fn something_mounted_over_the_multiplexer_is_refused() {
        with_devpts("over", |path| {
            let none = None::<&str>;
            mount(Some("/dev/null"), &path.join("ptmx"), none, MsFlags::MS_BIND, none).unwrap();
            let error = Pty::open(directory(path).as_fd(), 0, Size::default()).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::EXDEV), "{error}");
        });
    }

    #[test]
    fn the_controller_goes_over_a_socket_with_a_very_long_path() {
        with_devpts("send", |path| {
            let place = Scratch::new("send-socket");
            let long = place.0.join("d".repeat(120));
            std::fs::create_dir(&long).unwrap();
            let directory_of_socket = directory(&long);
            let short = format!("/proc/thread-self/fd/{}/sock", directory_of_socket.as_raw_fd());
            let listener = UnixListener::bind(short).unwrap();
            let socket = connect(&long.join("sock"), TO_CONSOLE).unwrap();
            let (peer, _) = listener.accept().unwrap();
            let pty = Pty::open(directory(path).as_fd(), 0, Size::default()).unwrap();
            send(socket.as_fd(), &pty).unwrap();
            drop(socket);

            let mut bytes = [0; 64];
            let (length, fds) = receive_message(peer.as_fd(), &mut bytes, MsgFlags::empty()).unwrap();
            assert_eq!(&bytes[..length], NAME);
            assert_eq!(fds.len(), 1);
            let target = std::fs::read_link(format!("/proc/thread-self/fd/{}", fds[0].as_raw_fd())).unwrap();
            assert!(target.ends_with("ptmx"), "{target:?}");
        });
    }
}
