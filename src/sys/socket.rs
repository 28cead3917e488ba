//! Unix sockets: messages with descriptors, and addresses at paths of any length, unix(7).

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::cmsg_space;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recvmsg, sendmsg,
    socketpair,
};
use nix::sys::stat::Mode;

use super::{Errno, Result};

/// The most descriptors of one message, `SCM_MAX_FD`.
pub const MOST: usize = 253;

/// The flags of sendmsg(2) in [`send`], as a filter of system calls sees them.
pub const SEND: MsgFlags = MsgFlags::MSG_NOSIGNAL;

/// The two ends of a socket for packets.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

/// Sends one message with descriptors (`SCM_RIGHTS`), and gives back how many of the bytes went. It goes `to` an address,
/// or to where the socket is connected.
///
/// # Errors
/// `EINVAL`: more descriptors than [`MOST`].
pub fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[impl AsFd],
    flags: MsgFlags,
    to: Option<&UnixAddr>,
) -> Result<usize> {
    let mut numbers: [RawFd; MOST] = [-1; MOST];
    let numbers = numbers.get_mut(..fds.len()).ok_or(Errno::EINVAL)?;
    numbers.iter_mut().zip(fds).for_each(|(number, fd)| *number = fd.as_fd().as_raw_fd());
    send_numbers(socket, bytes, numbers, flags | SEND, to)
}

fn send_numbers(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    numbers: &[RawFd],
    flags: MsgFlags,
    to: Option<&UnixAddr>,
) -> Result<usize> {
    let rights = [ControlMessage::ScmRights(numbers)];
    let control = if numbers.is_empty() { &rights[..0] } else { &rights[..] };
    loop {
        match sendmsg(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, to) {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}

/// Receives one message: the number of its bytes, 0 at the end, and the descriptors that came with it, which are
/// close-on-exec.
pub fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8], flags: MsgFlags) -> Result<(usize, Vec<OwnedFd>)> {
    let mut slices = [IoSliceMut::new(bytes)];
    let mut space = cmsg_space!([RawFd; MOST]);
    let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags) {
            Err(Errno::EINTR) => {}
            done => break done?,
        }
    };
    let numbers = message.cmsgs()?.filter_map(|part| match part {
        ControlMessageOwned::ScmRights(numbers) => Some(numbers),
        _ => None,
    });
    // SAFETY: the kernel has just made each of these descriptors for us, and nix keeps no copy of it.
    let fds = numbers.flatten().map(|number| unsafe { OwnedFd::from_raw_fd(number) }).collect();
    Ok((message.bytes, fds))
}

/// The address of a socket at a path, which may be longer than `sun_path`: 108 bytes with the NUL.
#[derive(Debug)]
pub struct Address {
    address: UnixAddr,
    /// What the address goes by, if the path is long.
    _place: Option<OwnedFd>,
}

impl Address {
    /// That of a socket which is there.
    pub fn of(path: &Path) -> Result<Address> {
        if is_short(path) {
            return Ok(Address { address: UnixAddr::new(path)?, _place: None });
        }
        let place = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        let short = format!("/proc/self/fd/{}", place.as_raw_fd());
        Ok(Address { address: UnixAddr::new(short.as_str())?, _place: Some(place) })
    }

    /// That of a socket which is about to be made.
    fn to_be(path: &Path) -> Result<Address> {
        let (Some(directory), Some(name), false) = (path.parent(), path.file_name(), is_short(path)) else {
            return Ok(Address { address: UnixAddr::new(path)?, _place: None });
        };
        let place = open(directory, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        let short = Path::new("/proc/self/fd").join(place.as_raw_fd().to_string()).join(name);
        Ok(Address { address: UnixAddr::new(&short)?, _place: Some(place) })
    }

    /// An abstract one.
    pub fn abstract_name(name: &[u8]) -> Result<Address> {
        Ok(Address { address: UnixAddr::new_abstract(name)?, _place: None })
    }

    /// As the kernel is given it; good for as long as this value lives.
    pub fn get(&self) -> &UnixAddr {
        &self.address
    }
}

fn is_short(path: &Path) -> bool {
    path.as_os_str().as_bytes().len() < 108
}

/// Connects a socket to the one at a path.
pub fn connect(socket: BorrowedFd<'_>, path: &Path) -> Result<()> {
    nix::sys::socket::connect(socket.as_raw_fd(), Address::of(path)?.get())
}

/// Makes a socket the one at a path, where nothing is yet.
pub fn bind(socket: BorrowedFd<'_>, path: &Path) -> Result<()> {
    nix::sys::socket::bind(socket.as_raw_fd(), Address::to_be(path)?.get())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::sys::socket::socket;
    use nix::sys::stat::fstat;

    use super::*;

    #[test]
    fn bytes_and_descriptors_arrive_together() {
        let (ours, theirs) = pair().unwrap();
        let files = [fs::File::open("/dev/null").unwrap(), fs::File::open("/dev/zero").unwrap()];
        assert_eq!(send(theirs.as_fd(), b"two", &files, MsgFlags::empty(), None), Ok(3));
        assert_eq!(send(theirs.as_fd(), b"none", &[] as &[OwnedFd], MsgFlags::empty(), None), Ok(4));
        drop(theirs);
        let mut bytes = [0; 8];
        let (length, fds) = receive(ours.as_fd(), &mut bytes, MsgFlags::empty()).unwrap();
        assert_eq!(&bytes[..length], b"two");
        let device = |fd: BorrowedFd<'_>| fstat(fd).unwrap().st_rdev;
        let devices = |fds: &[OwnedFd]| fds.iter().map(|fd| device(fd.as_fd())).collect::<Vec<_>>();
        assert_eq!(devices(&fds), files.each_ref().map(|file| device(file.as_fd())));
        let (length, fds) = receive(ours.as_fd(), &mut bytes, MsgFlags::empty()).unwrap();
        assert_eq!((&bytes[..length], fds.len()), (&b"none"[..], 0));
        let (length, fds) = receive(ours.as_fd(), &mut bytes, MsgFlags::empty()).unwrap();
        assert_eq!((length, fds.len()), (0, 0));
    }

    #[test]
    fn a_message_takes_as_many_descriptors_as_the_kernel_does() {
        let (ours, theirs) = pair().unwrap();
        let fds = vec![theirs.as_fd(); MOST];
        send(theirs.as_fd(), b"+", &fds, MsgFlags::empty(), None).unwrap();
        assert_eq!(receive(ours.as_fd(), &mut [0], MsgFlags::empty()).unwrap().1.len(), MOST);
        let more = vec![theirs.as_fd(); MOST + 1];
        assert_eq!(send(theirs.as_fd(), b"+", &more, MsgFlags::empty(), None), Err(Errno::EINVAL));
    }

    #[test]
    fn a_socket_is_made_and_found_at_a_path_of_any_length() {
        let place = std::env::temp_dir().join(format!("corten-socket-{}", std::process::id()));
        let stream = || socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
        for name in ["short", &"long".repeat(40)] {
            let directory = place.join(name);
            fs::create_dir_all(&directory).unwrap();
            let path = directory.join("socket");
            let (here, there) = (stream(), stream());
            assert_eq!(connect(here.as_fd(), &path), Err(Errno::ENOENT), "{name}");
            bind(there.as_fd(), &path).unwrap();
            assert_eq!(bind(here.as_fd(), &path), Err(Errno::EADDRINUSE), "{name}");
            connect(here.as_fd(), &path).unwrap();
            let to = Address::of(&path).unwrap();
            let file = fs::File::open("/dev/null").unwrap();
            assert_eq!(send(stream().as_fd(), b"word", &[file], MsgFlags::empty(), Some(to.get())), Ok(4));
            let (length, fds) = receive(there.as_fd(), &mut [0; 8], MsgFlags::MSG_DONTWAIT).unwrap();
            assert_eq!((length, fds.len()), (4, 1), "{name}");
        }
        fs::remove_dir_all(place).unwrap();
    }
}
