//! Namespaces: their flags, and what they need beyond clone and setns: their type, the loopback device, names.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::{Errno, Result};

/// `_IO(0xb7, 1)` and `_IO(0xb7, 3)`, ioctl_ns(2).
const NS_GET_USERNS: libc::Ioctl = 0xb701;
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

bitflags::bitflags! {
    /// `CLONE_NEW*`: kinds of namespaces, namespaces(7).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Flags: libc::c_int {
        /// Message queues and System V objects.
        const IPC = libc::CLONE_NEWIPC;
        /// Host and NIS domain name.
        const UTS = libc::CLONE_NEWUTS;
        /// Network devices, addresses, ports.
        const NETWORK = libc::CLONE_NEWNET;
        /// Process ids.
        const PID = libc::CLONE_NEWPID;
        /// The root of the cgroup hierarchies.
        const CGROUP = libc::CLONE_NEWCGROUP;
        /// Boot and monotonic clocks.
        const TIME = libc::CLONE_NEWTIME;
        /// Mount points.
        const MOUNT = libc::CLONE_NEWNS;
        /// User and group ids, capabilities.
        const USER = libc::CLONE_NEWUSER;
    }
}

/// The flag of the namespace behind a descriptor; ENOTTY when it is no namespace.
pub fn kind(fd: BorrowedFd<'_>) -> Result<Flags> {
    // SAFETY: this request takes no argument and only returns a number.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) }).map(Flags::from_bits_retain)
}

/// The user namespace that owns the namespace behind a descriptor; EPERM when it is above our own.
pub fn owner(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    // SAFETY: this request takes no argument; its result is a new close-on-exec descriptor that nobody else owns.
    unsafe { Errno::result(libc::ioctl(fd.as_raw_fd(), NS_GET_USERNS)).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// Brings the loopback device of the caller's network namespace up, netdevice(7).
pub fn loopback_up() -> Result<()> {
    let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: `ifreq` is plain bytes, for which all-zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: the kernel reads the `ifreq`, which lives for the call; the name in it is NUL-terminated.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as libc::Ioctl, &raw mut request) })
        .map(drop)
}

/// Sets the NIS domain name of the caller's UTS namespace, setdomainname(2).
pub fn set_domain_name(name: &str) -> Result<()> {
    // SAFETY: the kernel reads exactly `len` bytes of a live string.
    Errno::result(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }).map(drop)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_namespace_file_tells_its_kind_and_another_file_has_none() {
        let uts = File::open("/proc/self/ns/uts").unwrap();
        assert_eq!(kind(uts.as_fd()), Ok(Flags::UTS));
        assert!(kind(File::open("/dev/null").unwrap().as_fd()).is_err());
    }
}
