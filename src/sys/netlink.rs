//! rtnetlink(7): the few requests about links and addresses that moving a network device takes.

use std::cell::Cell;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send, socket,
};

use super::clone::setns;
use super::ns::Flags;
use super::{Errno, Result};

// linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h.
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const EXCLUSIVE: u16 = 0x200;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
/// Linux 5.13.
const IFLA_NEW_IFINDEX: u16 = 49;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;
const IFA_F_PERMANENT: u32 = 0x80;
/// What the owner of an address has chosen (NODAD, HOMEADDRESS, MANAGETEMPADDR, NOPREFIXROUTE, MCAUTOJOIN); the others
/// tell its state.
const CHOSEN: u32 = 0x02 | 0x10 | 0x100 | 0x200 | 0x400;

/// Length of the header of a message and of an attribute.
const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;

/// A socket that speaks for one network namespace.
pub struct Route {
    socket: OwnedFd,
    sequence: Cell<u32>,
}

/// An address of a device, as it is told and given again.
#[derive(Debug, PartialEq, Eq)]
pub struct Address {
    family: u8,
    prefix: u8,
    flags: u32,
    scope: u8,
    index: u32,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Address {
    /// Whether it was set by somebody for good, and may be talked to from everywhere.
    pub fn is_permanent_and_global(&self) -> bool {
        self.flags & IFA_F_PERMANENT != 0 && self.scope == libc::RT_SCOPE_UNIVERSE
    }

    fn parse(body: &[u8]) -> Option<Address> {
        let (head, rest) = body.split_at_checked(8)?;
        let mut address = Address {
            family: head[0],
            prefix: head[1],
            flags: u32::from(head[2]),
            scope: head[3],
            index: number(&head[4..])?,
            attributes: Vec::new(),
        };
        for (kind, value) in attributes(rest) {
            match kind {
                IFA_FLAGS => address.flags = number(value)?,
                IFA_ADDRESS | IFA_LOCAL | IFA_BROADCAST | IFA_RT_PRIORITY => {
                    address.attributes.push((kind, value.to_vec()));
                }
                _ => {}
            }
        }
        Some(address)
    }

    fn body(&self, index: u32) -> Vec<u8> {
        let mut body = vec![self.family, self.prefix, 0, self.scope];
        body.extend(index.to_ne_bytes());
        for (kind, value) in &self.attributes {
            put(&mut body, *kind, value);
        }
        put(&mut body, IFA_FLAGS, &(self.flags & CHOSEN).to_ne_bytes());
        body
    }
}

impl Route {
    /// A socket for the caller's network namespace.
    pub fn open() -> Result<Route> {
        let protocol = SockProtocol::NetlinkRoute;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        // The kernel, which has number 0.
        connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Route { socket, sequence: Cell::new(0) })
    }

    /// A socket for another one, which is entered for a moment: a socket belongs for good to where it was made.
    pub fn open_in(namespace: BorrowedFd<'_>) -> Result<Route> {
        let home = File::open("/proc/self/ns/net")
            .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
        setns(namespace, Flags::NETWORK)?;
        let route = Route::open();
        setns(home.as_fd(), Flags::NETWORK)?;
        route
    }

    /// The index of the device with this name; ENODEV when there is none.
    pub fn index_of(&self, name: &str) -> Result<u32> {
        let mut body = link(0, 0, 0);
        put_text(&mut body, IFLA_IFNAME, name);
        self.link(&body)
    }

    /// Whether a device has this index.
    pub fn has(&self, index: u32) -> Result<bool> {
        match self.link(&link(index, 0, 0)) {
            Ok(_) => Ok(true),
            Err(Errno::ENODEV) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    fn link(&self, body: &[u8]) -> Result<u32> {
        let mut found = None;
        self.talk(GET_LINK, REQUEST, body, |reply| found = number(reply.get(4..).unwrap_or_default()))?;
        found.filter(|index| *index != 0).ok_or(Errno::EPROTO)
    }

    /// The addresses of a device, in the kernel's order.
    pub fn addresses(&self, index: u32) -> Result<Vec<Address>> {
        let mut found = Vec::new();
        self.talk(GET_ADDRESS, REQUEST | DUMP, &[0; 8], |reply| found.extend(Address::parse(reply)))?;
        found.retain(|address| address.index == index);
        Ok(found)
    }

    /// Moves a device to another namespace, where it has this index and name (which may hold `%d` for a number that is
    /// free). It comes out of it down and without addresses.
    pub fn move_link(&self, index: u32, namespace: BorrowedFd<'_>, new_index: u32, name: &str) -> Result<()> {
        let mut body = link(index, 0, 0);
        put(&mut body, IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
        put(&mut body, IFLA_NEW_IFINDEX, &new_index.to_ne_bytes());
        put_text(&mut body, IFLA_IFNAME, name);
        self.change(NEW_LINK, 0, &body)
    }

    /// Gives an address to a device.
    pub fn add(&self, index: u32, address: &Address) -> Result<()> {
        self.change(NEW_ADDRESS, CREATE | EXCLUSIVE, &address.body(index))
    }

    /// Brings a device up.
    pub fn bring_up(&self, index: u32) -> Result<()> {
        let up = libc::IFF_UP as u32;
        self.change(NEW_LINK, 0, &link(index, up, up))
    }

    fn change(&self, kind: u16, flags: u16, body: &[u8]) -> Result<()> {
        self.talk(kind, REQUEST | ACK | flags, body, |_| ())
    }

    /// Sends a request and hands on the replies to it.
    fn talk(&self, kind: u16, flags: u16, body: &[u8], mut each: impl FnMut(&[u8])) -> Result<()> {
        let sequence = self.sequence.get() + 1;
        self.sequence.set(sequence);
        let request = message(kind, flags, sequence, body);
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty())?;
        // The kernel's own ceiling for a part of a dump.
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            for (kind, reply) in messages(&buffer[..length], sequence) {
                match kind {
                    ERROR | DONE => return verdict(reply),
                    _ => each(reply),
                }
                if flags & (ACK | DUMP) == 0 {
                    return Ok(());
                }
            }
        }
    }
}

/// The number at the beginning of an acknowledgement, an errno below zero.
fn verdict(reply: &[u8]) -> Result<()> {
    match number(reply).unwrap_or_default() as i32 {
        0.. => Ok(()),
        error => Err(Errno::from_raw(-error)),
    }
}

fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut message = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend(body);
    message
}

/// The kind and body of each message that answers request number `sequence`.
fn messages(mut bytes: &[u8], sequence: u32) -> impl Iterator<Item = (u16, &[u8])> {
    let all = std::iter::from_fn(move || {
        let length = number(bytes)? as usize;
        let whole = bytes.get(..length).filter(|_| length >= HEADER)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([whole[4], whole[5]]), number(&whole[8..])?, &whole[HEADER..]))
    });
    all.filter(move |(_, answered, _)| *answered == sequence).map(|(kind, _, body)| (kind, body))
}

/// The body of a message about a link: `struct ifinfomsg`.
fn link(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    for part in [index, flags, change] {
        body.extend(part.to_ne_bytes());
    }
    body
}

fn put(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend(((ATTRIBUTE + value.len()) as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn put_text(body: &mut Vec<u8>, kind: u16, text: &str) {
    put(body, kind, &[text.as_bytes(), b"\0"].concat());
}

fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let head = bytes.get(..ATTRIBUTE)?;
        let (length, kind) = (u16::from_ne_bytes([head[0], head[1]]), u16::from_ne_bytes([head[2], head[3]]));
        let value = bytes.get(ATTRIBUTE..usize::from(length))?;
        bytes = bytes.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_are_written_and_others_are_left_out() {
        let mut bytes = message(NEW_LINK, 0, 7, b"abcde");
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(message(NEW_LINK, 0, 6, b"late"));
        bytes.extend(message(DONE, 0, 7, &[0; 4]));
        let read: Vec<_> = messages(&bytes, 7).collect();
        assert_eq!(read, [(NEW_LINK, &b"abcde"[..]), (DONE, &[0; 4][..])]);
        assert_eq!(messages(&bytes[..10], 7).count(), 0);
        assert_eq!(messages(&[0; 64], 0).count(), 0, "a length of nothing ends the list");
    }

    #[test]
    fn an_address_keeps_what_was_chosen_and_no_state() {
        let mut told = vec![2, 24, 0x80, 0];
        told.extend(5u32.to_ne_bytes());
        put(&mut told, IFA_LOCAL, &[10, 0, 0, 1]);
        put_text(&mut told, 3, "eth0");
        put(&mut told, IFA_FLAGS, &(IFA_F_PERMANENT | 0x200).to_ne_bytes());
        let address = Address::parse(&told).unwrap();
        assert!(address.is_permanent_and_global() && address.index == 5);
        let again = Address::parse(&address.body(9)).unwrap();
        assert_eq!((again.index, again.flags, again.prefix), (9, 0x200, 24));
        assert_eq!(again.attributes, [(IFA_LOCAL, vec![10, 0, 0, 1])]);
        assert!(Address::parse(&told[..7]).is_none());
    }

    #[test]
    fn a_refusal_is_an_errno() {
        assert_eq!(verdict(&(-19i32).to_ne_bytes()), Err(Errno::ENODEV));
        assert_eq!(verdict(&[0; 4]), Ok(()));
    }

    #[test]
    fn the_loopback_device_is_found_by_name_and_index() {
        let route = Route::open().unwrap();
        let index = route.index_of("lo").unwrap();
        assert!(route.has(index).unwrap());
        assert_eq!(route.index_of("no-such-dev"), Err(Errno::ENODEV));
    }
}
