//! Id-mapped mounts: files of one mount seen with other owners (mount_setattr(2), `MOUNT_ATTR_IDMAP`).
//!
//! The kernel takes a map as a user namespace. That of the container serves where the container's own map is asked for,
//! as soon as it exists; any other map gets a namespace that outlives its only process, which does nothing and ends at
//! once. All of it happens on the host: only there do we have power over the file systems and over both namespaces.

mod maps;
mod userns;

use std::fs;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount as Entry;

use super::options::IdMapOption;
use super::request::{self, Isolation};
use crate::error::{Context, Error, Result, ensure};
use crate::sys::Errno;
use crate::sys::mount::{clone_path, map_ids};
use crate::sys::procfs::mountinfo::{self, Mount};
use maps::Range;
use userns::MapSource;

pub(super) use maps::{Maps, container_maps};
pub(super) use userns::{ContainerUserns, UserNamespaces, maps_of};

/// How the owners of one mount are mapped.
#[derive(Debug)]
pub struct IdMap {
    recursive: bool,
    source: MapSource,
}

impl IdMap {
    /// Compiles the options `idmap` and `ridmap` and the mappings of an entry; `field` names a member of the entry.
    ///
    /// # Errors
    /// No map is given and the container has no user namespace; or only one of the two maps is (runtime-spec,
    /// config.md, "Mounts").
    pub fn plan(
        entry: &Entry,
        asked: Option<&IdMapOption>,
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
        let source = match inline {
            Some(_) if listed != Maps::default() => {
                return Err(Error::new("the mount has mappings both here and in an option").field(field("uidMappings")));
            }
            None if listed == Maps::default() => MapSource::Container,
            None => MapSource::Own(listed),
            Some(maps) => MapSource::Own(maps),
        };
        if !namespaces.has_user() && source.needs_container() {
            return Err(Error::new("the mapping is to be that of the container, which has no user namespace")
                .field(field("options"))
                .hint("give uidMappings and gidMappings, or add {\"type\": \"user\"} to /linux/namespaces"));
        }
        let source = match source {
            // A joined namespace has the maps it has, whatever the configuration says of them.
            MapSource::Own(maps) if namespaces.user != Isolation::Joined => {
                MapSource::own_or_container(maps.complete(container).field(|| field("options"))?, container)
            }
            source => source,
        };
        Ok(Some(IdMap { recursive, source }))
    }

    /// One mount, mapped as the container is.
    pub fn of_container() -> IdMap {
        IdMap { recursive: false, source: MapSource::Container }
    }

    /// Maps a detached tree. False when it has to wait for the container's user namespace. `source` names the tree.
    pub fn apply(&self, tree: &OwnedFd, namespaces: &mut UserNamespaces, source: Origin) -> Result<bool> {
        match namespaces.find(&self.source)? {
            Some(namespace) => self.map(tree, namespace, source).map(|()| true),
            None => Ok(false),
        }
    }

    /// Maps a detached tree by this namespace.
    pub fn map(&self, tree: &OwnedFd, namespace: BorrowedFd<'_>, source: Origin) -> Result<()> {
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

/// Where a mount that is to be mapped comes from, for the error that names it.
#[derive(Clone, Copy)]
pub enum Origin<'a> {
    /// A tree of the host.
    Path(&'a Path),
    /// A new file system of this type.
    Type(&'a str),
}

impl Origin<'_> {
    /// Says which file system it is that cannot be mapped. Only asked when something went wrong.
    fn unmappable(&self, recursive: bool, namespace: BorrowedFd<'_>) -> String {
        let path = match self {
            Origin::Type(fstype) => return format!("the file system {fstype}"),
            Origin::Path(path) => fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf()),
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
