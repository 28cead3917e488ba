//! Id-mapped mounts: files of one mount seen with other owners (mount_setattr(2), `MOUNT_ATTR_IDMAP`).
//!
//! The kernel takes a map as a user namespace. That of the container serves where the container's own map is asked for,
//! as soon as it exists; any other map gets a namespace that outlives its only process, which does nothing and ends at
//! once. All of it happens on the host: only there do we have power over the file systems and over both namespaces.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::socket::{MsgFlags, recv, send};
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxIdMapping, Mount as Entry, Spec};

use super::options::Asked;
use super::request::{self, Isolation};
use crate::error::{Context, Error, Result, bail, ensure};
use crate::sys::clone::{Fork, clone3, setns};
use crate::sys::mount::{clone_path, map_ids};
use crate::sys::procfs::idmap;
use crate::sys::procfs::mountinfo::{self, Mount};
use crate::sys::{self, Errno, ns};

/// `size` ids from `disk` on, as the file system has them, are seen as those of the host from `host` on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    disk: u32,
    host: u32,
    size: u32,
    /// `host` is an id of the container, still to be looked up in its user namespace.
    relative: bool,
}

/// A map of users and one of groups. An empty one is that of the container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Maps {
    users: Vec<Range>,
    groups: Vec<Range>,
}

/// Which map a mount gets.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Whose {
    Container,
    Own(Maps),
}

/// How the owners of one mount are mapped.
#[derive(Debug)]
pub(super) struct IdMap {
    recursive: bool,
    whose: Whose,
}

impl IdMap {
    /// Compiles the options `idmap` and `ridmap` and the mappings of an entry; `field` names a member of the entry.
    ///
    /// # Errors
    /// No map is given and the container has no user namespace; or only one of the two maps is (runtime-spec,
    /// config.md, "Mounts").
    pub(super) fn plan(
        entry: &Entry,
        asked: Option<&Asked>,
        namespaces: &request::Namespaces,
        container: &Maps,
        field: &dyn Fn(&str) -> String,
    ) -> Result<Option<IdMap>> {
        let listed = Maps::listed(entry.uid_mappings().as_deref(), entry.gid_mappings().as_deref());
        let inline = asked.and_then(|asked| asked.maps.as_deref());
        let inline = inline.map(Maps::parse).transpose().field(|| field("options"))?;
        if asked.is_none() && listed == Maps::default() {
            return Ok(None);
        }
        for (this, other, name) in
            [(&listed.users, &listed.groups, "gidMappings"), (&listed.groups, &listed.users, "uidMappings")]
        {
            ensure_both(this, other).field(|| field(name))?;
        }
        let recursive = asked.is_some_and(|asked| asked.recursive);
        let whose = match inline {
            Some(_) if listed != Maps::default() => {
                return Err(Error::new("the mount has mappings both here and in an option").field(field("uidMappings")));
            }
            None if listed == Maps::default() => Whose::Container,
            None => Whose::Own(listed),
            Some(maps) => Whose::Own(maps),
        };
        if !namespaces.has_user() && whose.needs_container() {
            return Err(Error::new("the mapping is to be that of the container, which has no user namespace")
                .field(field("options"))
                .hint("give uidMappings and gidMappings, or add {\"type\": \"user\"} to /linux/namespaces"));
        }
        let whose = match whose {
            // A joined namespace has the maps it has, whatever the configuration says of them.
            Whose::Own(maps) if namespaces.user != Isolation::Joined => {
                Whose::own_or_container(maps.complete(container).field(|| field("options"))?, container)
            }
            whose => whose,
        };
        Ok(Some(IdMap { recursive, whose }))
    }

    /// One mount, mapped as the container is.
    pub(super) fn of_container() -> IdMap {
        IdMap { recursive: false, whose: Whose::Container }
    }

    /// Maps a detached tree. False when it has to wait for the container's user namespace. `source` names the tree.
    pub(super) fn apply(&self, tree: &OwnedFd, namespaces: &mut Namespaces, source: Source) -> Result<bool> {
        match namespaces.find(&self.whose)? {
            Some(namespace) => self.map(tree, namespace, source).map(|()| true),
            None => Ok(false),
        }
    }

    /// Maps a detached tree by this namespace.
    pub(super) fn map(&self, tree: &OwnedFd, namespace: BorrowedFd<'_>, source: Source) -> Result<()> {
        map_ids(tree, self.recursive, namespace).map_err(|errno| match errno {
            Errno::EINVAL => {
                let culprit = source.unmappable(self.recursive, namespace);
                Error::from(errno).context(format!("map the owners: {culprit} cannot be id-mapped"))
            }
            Errno::EPERM => Error::from(errno)
                .context("map the owners")
                .hint("a mount that is mapped already, or a file system of another user namespace, cannot be mapped"),
            errno => Error::from(errno).context("map the owners"),
        })
    }
}

fn ensure_both(given: &[Range], other: &[Range]) -> Result<()> {
    ensure!(given.is_empty() || !other.is_empty(), "must be set, too: a mount has both mappings or none");
    Ok(())
}

impl Whose {
    /// Whether the container's map is needed to know this one.
    fn needs_container(&self) -> bool {
        match self {
            Whose::Container => true,
            Whose::Own(maps) => maps.is_incomplete(),
        }
    }

    /// Equal maps need no second namespace.
    fn own_or_container(maps: Maps, container: &Maps) -> Whose {
        if maps == *container { Whose::Container } else { Whose::Own(maps) }
    }
}

/// The maps that the configuration has for the container's user namespace.
pub(super) fn container_maps(spec: &Spec) -> Maps {
    let linux = spec.linux().as_ref();
    Maps::listed(
        linux.and_then(|linux| linux.uid_mappings().as_deref()),
        linux.and_then(|linux| linux.gid_mappings().as_deref()),
    )
}

impl Maps {
    fn listed(users: Option<&[LinuxIdMapping]>, groups: Option<&[LinuxIdMapping]>) -> Maps {
        let range = |map: &LinuxIdMapping| Range {
            disk: map.container_id(),
            host: map.host_id(),
            size: map.size(),
            relative: false,
        };
        let ranges = |list: Option<&[LinuxIdMapping]>| list.unwrap_or_default().iter().map(range).collect();
        Maps { users: ranges(users), groups: ranges(groups) }
    }

    /// `uids=0-1-10#10-11-10;gids=@0-100-10` (crun(1), "idmap mount options").
    fn parse(text: &str) -> Result<Maps> {
        let mut maps = Maps::default();
        for part in text.split(';') {
            let list = match part.split_once('=') {
                Some(("uids", list)) => (&mut maps.users, list),
                Some(("gids", list)) => (&mut maps.groups, list),
                _ => bail!("a mapping is uids=… or gids=…, not {part:?}"),
            };
            ensure!(list.0.is_empty(), "{part} is a second mapping of the same kind");
            *list.0 = list.1.split('#').map(Range::parse).collect::<Result<_>>()?;
        }
        Ok(maps)
    }

    fn is_incomplete(&self) -> bool {
        let lacks = |list: &[Range]| list.is_empty() || list.iter().any(|range| range.relative);
        lacks(&self.users) || lacks(&self.groups)
    }

    /// With ids of the host alone: what is relative to the container is looked up in its maps.
    fn complete(&self, container: &Maps) -> Result<Maps> {
        let complete = |list: &[Range], container: &[Range]| {
            if list.is_empty() { Ok(container.to_vec()) } else { absolute(list, container) }
        };
        Ok(Maps { users: complete(&self.users, &container.users)?, groups: complete(&self.groups, &container.groups)? })
    }

    /// The user of the host who stands for one of the container.
    pub(super) fn user(&self, id: u32) -> Option<u32> {
        outside(&self.users, id)
    }

    /// The same for a group.
    pub(super) fn group(&self, id: u32) -> Option<u32> {
        outside(&self.groups, id)
    }

    /// Reads back what the kernel shows of a process's maps.
    fn of_process(pid: Pid) -> Result<Maps> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
            Ok::<_, Error>(idmap::parse(&text).map(Range::of_map).collect())
        };
        Ok(Maps { users: read("uid_map")?, groups: read("gid_map")? })
    }
}

impl Range {
    /// `0-1-10`, or `@0-1-10`.
    fn parse(text: &str) -> Result<Range> {
        let (relative, numbers) = match text.strip_prefix('@') {
            Some(numbers) => (true, numbers),
            None => (false, text),
        };
        let mut numbers = numbers.split('-').map(|number| {
            // A sign would be one more way to write a number.
            let plain = number.bytes().all(|byte| byte.is_ascii_digit());
            number.parse::<u32>().ok().filter(|_| plain)
        });
        match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
            (Some(Some(disk)), Some(Some(host)), Some(Some(size @ 1..)), None) => {
                Ok(Range { disk, host, size, relative })
            }
            _ => bail!("{text:?} is not of the form 0-1000-1, with a first id, the id that it becomes, and a size"),
        }
    }

    /// As the kernel shows it.
    fn of_map(range: idmap::Range) -> Range {
        Range { disk: range.inside, host: range.outside, size: range.size, relative: false }
    }
}

/// What an id becomes.
fn outside(ranges: &[Range], id: u32) -> Option<u32> {
    ranges.iter().find_map(|range| {
        let offset = id.checked_sub(range.disk).filter(|offset| *offset < range.size)?;
        range.host.checked_add(offset)
    })
}

/// Ranges with ids of the host; a range of container ids that its user namespace maps in pieces becomes those pieces.
fn absolute(list: &[Range], container: &[Range]) -> Result<Vec<Range>> {
    let mut plain = Vec::with_capacity(list.len());
    for range in list {
        if !range.relative {
            plain.push(range.clone());
            continue;
        }
        let mut done = 0;
        while done < range.size {
            let beyond = "the mapping goes beyond the last id";
            let (Some(id), Some(disk)) = (range.host.checked_add(done), range.disk.checked_add(done)) else {
                bail!("{beyond}");
            };
            let holds = |outer: &&Range| id.checked_sub(outer.disk).is_some_and(|offset| offset < outer.size);
            let Some(outer) = container.iter().find(holds) else {
                bail!("the container's user namespace does not have the id {id}");
            };
            let offset = id - outer.disk;
            let size = (outer.size - offset).min(range.size - done);
            let Some(host) = outer.host.checked_add(offset) else { bail!("{beyond}") };
            plain.push(Range { disk, host, size, relative: false });
            done += size;
        }
    }
    Ok(plain)
}

/// The user namespaces by which mounts are mapped.
pub(super) struct Namespaces<'a> {
    container: Container<'a>,
    /// The others, each made when first asked for.
    made: Vec<(Maps, OwnedFd)>,
}

/// Where the container's own map is to be had.
#[derive(Debug)]
pub(super) enum Container<'a> {
    /// There is none, or it is not made yet.
    Later,
    /// It is joined.
    Joined(BorrowedFd<'a>),
    /// It is not made yet, and a namespace with the same maps has to do.
    Like(Maps),
}

impl<'a> Namespaces<'a> {
    pub(super) fn new(container: Container<'a>) -> Namespaces<'a> {
        Namespaces { container, made: Vec::new() }
    }

    fn find(&mut self, whose: &Whose) -> Result<Option<BorrowedFd<'_>>> {
        let maps = match (whose, &self.container) {
            (Whose::Container, Container::Later) => return Ok(None),
            (Whose::Container, &Container::Joined(fd)) => return Ok(Some(fd)),
            (Whose::Container, Container::Like(maps)) => maps.clone(),
            (Whose::Own(maps), &Container::Joined(fd)) if maps.is_incomplete() => maps.complete(&maps_of(fd)?)?,
            (Whose::Own(maps), _) => maps.clone(),
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
    stand_in(None, |pid| {
        write(pid, "uid_map", &maps.users)?;
        write(pid, "gid_map", &maps.groups)?;
        Ok(File::open(format!("/proc/{pid}/ns/user")).context("open it")?.into())
    })
    .context("make a user namespace for the mapping")
}

/// The maps of a user namespace, as we see them.
pub(super) fn maps_of(namespace: BorrowedFd<'_>) -> Result<Maps> {
    stand_in(Some(namespace), Maps::of_process).context("look at the maps of the container's user namespace")
}

/// A process in a new user namespace, or in one that exists, for as long as someone looks at it from outside. It ends
/// when we let go of the socket, and so it does if we die.
fn stand_in<T>(join: Option<BorrowedFd<'_>>, look: impl FnOnce(Pid) -> Result<T>) -> Result<T> {
    let (ours, theirs) = sys::socket::pair()?;
    let flags = if join.is_some() { ns::Flags::empty() } else { ns::Flags::USER };
    match clone3(flags, None)? {
        Fork::Child => {
            drop(ours);
            // Root of a namespace that is joined must not look into this copy of us (CVE-2016-9962). Root's is non-dumpable
            // from the start, also in one that is new.
            let enter = |namespace| sys::start::seclude().and_then(|()| setns(namespace, ns::Flags::USER));
            if join.is_none_or(|namespace| enter(namespace).is_ok()) {
                let _ = send(theirs.as_raw_fd(), b"+", MsgFlags::MSG_NOSIGNAL);
                let _ = recv(theirs.as_raw_fd(), &mut [0], MsgFlags::empty());
            }
            sys::pid::exit_now(0)
        }
        Fork::Parent { pid, pidfd } => {
            drop(theirs);
            let there = recv(ours.as_raw_fd(), &mut [0], MsgFlags::empty());
            let seen = match there {
                Ok(1..) => look(pid),
                Ok(0) => Err(Error::new("it cannot be entered")),
                Err(errno) => Err(errno.into()),
            };
            drop(ours);
            // As our child it has to be reaped; how it ended tells nothing.
            let _ = sys::pid::reap(pidfd.as_fd());
            seen
        }
    }
}

fn write(pid: Pid, name: &str, ranges: &[Range]) -> Result<()> {
    let mut text = String::new();
    for Range { disk, host, size, .. } in ranges {
        let _ = writeln!(text, "{disk} {host} {size}");
    }
    let path = format!("/proc/{pid}/{name}");
    // The kernel takes a map in a single write(2), once.
    fs::write(&path, &text).with_context(|| format!("write {} to {path}", text.trim().replace('\n', ", ")))
}

/// Where a mount that is to be mapped comes from, for the error that names it.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// A tree of the host.
    Path(&'a Path),
    /// A new file system of this type.
    Type(&'a str),
}

impl Source<'_> {
    /// Says which file system it is that cannot be mapped. Only asked when something went wrong.
    fn unmappable(&self, recursive: bool, namespace: BorrowedFd<'_>) -> String {
        let path = match self {
            Source::Type(fstype) => return format!("the file system {fstype}"),
            Source::Path(path) => fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf()),
        };
        let table = read_table();
        let mut below: Vec<&Mounted> = table.iter().filter(|mount| mount.point.starts_with(&path)).collect();
        below.extend(table.iter().rfind(|mount| path.starts_with(&mount.point)));
        below.reverse();
        let refuses = |mount: &&&Mounted| {
            let point = if path.starts_with(&mount.point) { &path } else { &mount.point };
            clone_path(point.as_path(), false).is_ok_and(|tree| map_ids(&tree, false, namespace) == Err(Errno::EINVAL))
        };
        let culprit = if recursive { below.iter().find(refuses) } else { below.first() };
        match culprit {
            Some(mount) => format!("the file system {} at {}", mount.fstype, mount.point.display()),
            None => format!("the file system at {}", path.display()),
        }
    }
}

/// A mount of our own namespace.
struct Mounted {
    point: PathBuf,
    fstype: String,
}

fn read_table() -> Vec<Mounted> {
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let mounted =
        |mount: Mount<'_>| Mounted { point: mount.point(), fstype: String::from_utf8_lossy(mount.fstype).into_owned() };
    mountinfo::parse(&table).map(mounted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(disk: u32, host: u32, size: u32) -> Range {
        Range { disk, host, size, relative: false }
    }

    fn container() -> Maps {
        let list = vec![range(0, 0, 1), range(1, 2, 4), range(5, 100, 1000)];
        Maps { users: list.clone(), groups: list }
    }

    #[test]
    fn the_inline_form_gives_the_id_on_disk_then_the_id_that_it_becomes() {
        let maps = Maps::parse("uids=0-1-10#10-11-20;gids=0-100-10").unwrap();
        assert_eq!(maps.users, [range(0, 1, 10), range(10, 11, 20)]);
        assert_eq!(maps.groups, [range(0, 100, 10)]);
    }

    #[test]
    fn what_is_not_of_the_form_is_refused() {
        for text in [
            "",
            "uids",
            "uids=",
            "uids=1-2",
            "uids=1-2-3-4",
            "uids=1-2-0",
            "uids=+1-2-3",
            "uids=1--2",
            "uids=1-2-4294967296",
            "sids=1-2-3",
            "uids=1-2-3;",
            "uids=1-2-3;uids=5-6-7",
            "uids=1-2-3##4-5-6",
        ] {
            assert!(Maps::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_relative_range_is_looked_up_in_the_container_and_split_where_the_container_is() {
        let maps = Maps::parse("uids=@1-3-1;gids=@0-4-3#50-60-1").unwrap().complete(&container()).unwrap();
        assert_eq!(maps.users, [range(1, 4, 1)]);
        assert_eq!(maps.groups, [range(0, 5, 1), range(1, 100, 2), range(50, 60, 1)]);
    }

    #[test]
    fn an_id_that_the_container_has_not_is_an_error() {
        for text in ["uids=@0-2000-1", "uids=@0-1000-10", "uids=@0-4294967295-2"] {
            assert!(Maps::parse(text).unwrap().complete(&container()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_kind_that_is_left_out_is_mapped_as_the_container_is() {
        let maps = Maps::parse("uids=@0-1-1").unwrap();
        assert!(maps.is_incomplete());
        let maps = maps.complete(&container()).unwrap();
        assert_eq!((maps.users, maps.groups), (vec![range(0, 2, 1)], container().groups));
    }

    #[test]
    fn maps_equal_to_the_container_s_are_the_container_s() {
        assert_eq!(Whose::own_or_container(container(), &container()), Whose::Container);
    }

    #[test]
    fn equal_maps_share_one_namespace() {
        if !nix::unistd::geteuid().is_root() {
            return eprintln!("skipped: needs root");
        }
        let mut namespaces = Namespaces::new(Container::Like(container()));
        let mut find = |whose: Whose| namespaces.find(&whose).unwrap().unwrap().as_raw_fd();
        let own = || Whose::Own(Maps { users: vec![range(0, 7, 1)], groups: vec![range(0, 7, 1)] });
        let (first, second) = (find(own()), find(Whose::Container));
        assert_ne!(first, second);
        assert_eq!((find(own()), find(Whose::Own(container()))), (first, second));
        let maps = maps_of(namespaces.find(&own()).unwrap().unwrap()).unwrap();
        assert_eq!(Whose::Own(maps), own());
    }
}
