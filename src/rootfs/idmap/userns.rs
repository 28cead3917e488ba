//! User namespaces that stand for a map: the container's own, or one that outlives its only process.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use super::maps::{Maps, Range};
use crate::error::{Context, Error, Result};
use crate::sys::clone::{Fork, clone3, setns};
use crate::sys::{self, Errno, ns};

/// Which map a mount gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MapSource {
    Container,
    Own(Maps),
}

impl MapSource {
    /// Whether the container's map is needed to know this one.
    pub(super) fn needs_container(&self) -> bool {
        match self {
            MapSource::Container => true,
            MapSource::Own(maps) => maps.is_incomplete(),
        }
    }

    /// Equal maps need no second namespace.
    pub(super) fn own_or_container(maps: Maps, container: &Maps) -> MapSource {
        if maps == *container { MapSource::Container } else { MapSource::Own(maps) }
    }
}

/// The user namespaces by which mounts are mapped.
pub struct UserNamespaces<'a> {
    container: ContainerUserns<'a>,
    /// The others, each made when first asked for.
    made: Vec<(Maps, OwnedFd)>,
}

/// Where the container's own map is to be had.
#[derive(Debug)]
pub enum ContainerUserns<'a> {
    /// There is none, or it is not made yet.
    NotYet,
    /// It is joined.
    Joined(BorrowedFd<'a>),
    /// It is not made yet, and a namespace with the same maps has to do.
    Like(Maps),
}

impl<'a> UserNamespaces<'a> {
    pub fn new(container: ContainerUserns<'a>) -> UserNamespaces<'a> {
        UserNamespaces { container, made: Vec::new() }
    }

    pub(super) fn find(&mut self, source: &MapSource) -> Result<Option<BorrowedFd<'_>>> {
        let maps = match (source, &self.container) {
            (MapSource::Container, ContainerUserns::NotYet) => return Ok(None),
            (MapSource::Container, &ContainerUserns::Joined(fd)) => return Ok(Some(fd)),
            (MapSource::Container, ContainerUserns::Like(maps)) => maps.clone(),
            (MapSource::Own(maps), &ContainerUserns::Joined(fd)) if maps.is_incomplete() => {
                maps.complete(&maps_of(fd)?)?
            }
            (MapSource::Own(maps), _) => maps.clone(),
        };
        let at = match self.made.iter().position(|(known, _)| *known == maps) {
            Some(at) => at,
            None => {
                let namespace = make(&maps)?;
                self.made.push((maps, namespace));
                self.made.len() - 1
            }
        };
        Ok(Some(self.made[at].1.as_fd()))
    }
}

/// A user namespace with these maps and, when this returns, without a process.
fn make(maps: &Maps) -> Result<OwnedFd> {
    with_userns_holder(None, |pid| {
        write(pid, "uid_map", &maps.users)?;
        write(pid, "gid_map", &maps.groups)?;
        Ok(File::open(format!("/proc/{pid}/ns/user")).context("open it")?.into())
    })
    .context("make a user namespace for the mapping")
}

/// The maps of a user namespace, as we see them.
pub fn maps_of(namespace: BorrowedFd<'_>) -> Result<Maps> {
    with_userns_holder(Some(namespace), Maps::of_process).context("look at the maps of the container's user namespace")
}

/// A process in a new user namespace, or in one that exists, for as long as someone looks at it from outside. It ends
/// when we let go of the socket, and so it does if we die.
fn with_userns_holder<T>(join: Option<BorrowedFd<'_>>, look: impl FnOnce(Pid) -> Result<T>) -> Result<T> {
    let (ours, theirs) = sys::socket::pair()?;
    let flags = if join.is_some() { ns::Flags::empty() } else { ns::Flags::USER };
    match clone3(flags, None)? {
        Fork::Child => {
            drop(ours);
            // Root of a namespace that is joined must not look into this copy of us (CVE-2016-9962). Root's is non-dumpable
            // from the start, also in one that is new.
            let enter = |namespace| sys::start::become_non_dumpable().and_then(|()| setns(namespace, ns::Flags::USER));
            let entered = join.map_or(Ok(()), enter);
            // Whoever waits has to hear of a failure: by the end of this process.
            let said = entered.and_then(|()| send(theirs.as_raw_fd(), b"+", MsgFlags::MSG_NOSIGNAL).map(drop));
            if said.is_ok() {
                let _ = recv(theirs.as_raw_fd(), &mut [0], MsgFlags::empty());
            }
            sys::pid::exit_now(said.map_or_else(|errno| errno as i32, |()| 0))
        }
        Fork::Parent { pid, pidfd } => {
            drop(theirs);
            let there = recv(ours.as_raw_fd(), &mut [0], MsgFlags::empty());
            let seen = match there {
                Ok(1..) => Some(look(pid)),
                Ok(0) => None,
                Err(errno) => Some(Err(errno.into())),
            };
            drop(ours);
            // As our child it has to be reaped.
            let end = sys::pid::reap(pidfd.as_fd());
            seen.unwrap_or_else(|| Err(explain(end)))
        }
    }
}

/// Why a holder ended before it was in its namespace.
fn explain(end: sys::Result<WaitStatus>) -> Error {
    match end {
        Ok(WaitStatus::Exited(_, code)) => Error::from(Errno::from_raw(code)).context("enter it"),
        Ok(WaitStatus::Signaled(_, signal, _)) => Error::new(format!("the process in it was killed by {signal}")),
        _ => Error::new("the process in it ended with an unknown status"),
    }
}

fn write(pid: Pid, name: &str, ranges: &[Range]) -> Result<()> {
    let text: String = ranges.iter().map(|range| range.to_map().to_string()).collect();
    let path = format!("/proc/{pid}/{name}");
    // The kernel takes a map in a single write(2), once.
    fs::write(&path, &text).with_context(|| format!("write {} to {path}", text.trim().replace('\n', ", ")))
}

#[cfg(test)]
mod tests {
    use super::super::maps::Range;
    use super::*;

    fn range(disk: u32, host: u32, size: u32) -> Range {
        Range { disk, host, size, relative: false }
    }

    fn container() -> Maps {
        let list = vec![range(0, 0, 1), range(1, 2, 4), range(5, 100, 1000)];
        Maps { users: list.clone(), groups: list }
    }

    #[test]
    fn maps_equal_to_the_container_s_are_the_container_s() {
        assert_eq!(MapSource::own_or_container(container(), &container()), MapSource::Container);
    }

    #[test]
    fn equal_maps_share_one_namespace() {
        if !nix::unistd::geteuid().is_root() {
            return eprintln!("skipped: needs root");
        }
        let mut namespaces = UserNamespaces::new(ContainerUserns::Like(container()));
        let mut find = |source: MapSource| namespaces.find(&source).unwrap().unwrap().as_raw_fd();
        let own = || MapSource::Own(Maps { users: vec![range(0, 7, 1)], groups: vec![range(0, 7, 1)] });
        let (first, second) = (find(own()), find(MapSource::Container));
        assert_ne!(first, second);
        assert_eq!((find(own()), find(MapSource::Own(container()))), (first, second));
        let maps = maps_of(namespaces.find(&own()).unwrap().unwrap()).unwrap();
        assert_eq!(MapSource::Own(maps), own());
    }
}
