//! Which owner becomes which: the maps of a mount, and of a user namespace.

use std::fs;

use nix::unistd::Pid;
use oci_spec::runtime::{LinuxIdMapping, Spec};

use crate::error::{Context, Error, Result, bail, ensure};
use crate::sys::procfs::idmap;

/// `size` ids from `disk` on, as the file system has them, are seen as those of the host from `host` on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) disk: u32,
    pub(super) host: u32,
    pub(super) size: u32,
    /// `host` is an id of the container, still to be looked up in its user namespace.
    pub(super) relative: bool,
}

/// A map of users and one of groups. An empty one is that of the container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Maps {
    pub(super) users: Vec<Range>,
    pub(super) groups: Vec<Range>,
}

/// The maps that the configuration has for the container's user namespace.
pub fn container_maps(spec: &Spec) -> Maps {
    let linux = spec.linux().as_ref();
    Maps::listed(
        linux.and_then(|linux| linux.uid_mappings().as_deref()),
        linux.and_then(|linux| linux.gid_mappings().as_deref()),
    )
}

impl Maps {
    pub(super) fn listed(users: Option<&[LinuxIdMapping]>, groups: Option<&[LinuxIdMapping]>) -> Maps {
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
    pub(super) fn parse(text: &str) -> Result<Maps> {
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

    pub(super) fn is_incomplete(&self) -> bool {
        let lacks = |list: &[Range]| list.is_empty() || list.iter().any(|range| range.relative);
        lacks(&self.users) || lacks(&self.groups)
    }

    /// With ids of the host alone: what is relative to the container is looked up in its maps.
    pub(super) fn complete(&self, container: &Maps) -> Result<Maps> {
        let complete = |list: &[Range], container: &[Range]| {
            if list.is_empty() { Ok(container.to_vec()) } else { absolute(list, container) }
        };
        Ok(Maps { users: complete(&self.users, &container.users)?, groups: complete(&self.groups, &container.groups)? })
    }

    /// The user of the host who stands for one of the container.
    pub fn user(&self, id: u32) -> Option<u32> {
        outside(&self.users, id)
    }

    /// The same for a group.
    pub fn group(&self, id: u32) -> Option<u32> {
        outside(&self.groups, id)
    }

    /// Reads back what the kernel shows of a process's maps.
    pub(super) fn of_process(pid: Pid) -> Result<Maps> {
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
    fn of_map(range: idmap::IdRange) -> Range {
        Range { disk: range.inside, host: range.outside, size: range.size, relative: false }
    }

    /// As the kernel takes it.
    pub(super) fn to_map(&self) -> idmap::IdRange {
        idmap::IdRange { inside: self.disk, outside: self.host, size: self.size }
    }
}

/// What an id becomes.
fn outside(ranges: &[Range], id: u32) -> Option<u32> {
    idmap::outer(ranges.iter().map(Range::to_map), id)
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
}
