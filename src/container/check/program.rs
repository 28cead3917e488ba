//! The files that a container would see, by the rights that its program would have.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::FileStat;

use crate::namespaces::Origin;
use crate::plan::Plan;
use crate::process::check::{Files, Rights};
use crate::rootfs::{Sight, View};
use crate::sys::{Errno, ns};

/// See the module's head.
pub struct Seen<'a> {
    view: &'a View,
    rights: Rights<'a>,
    /// Who it is on the host; `None` where that cannot be told, and modes are not looked at.
    identity: Option<Identity>,
}

struct Identity {
    user: u32,
    groups: Vec<u32>,
}

impl<'a> Seen<'a> {
    pub(super) fn new(view: &'a View, plan: &'a Plan) -> Seen<'a> {
        let rights = plan.process.rights();
        let identity = match plan.namespaces.origin(ns::Flags::USER) {
            Origin::Host => rights.groups.clone().map(|groups| Identity { user: rights.user, groups }),
            Origin::Joined => None,
            Origin::New => plan.namespaces.maps().and_then(|maps| {
                let groups = rights.groups.as_ref()?;
                let groups = groups.iter().filter_map(|&group| maps.host_group(group)).collect();
                Some(Identity { user: maps.host_user(rights.user)?, groups })
            }),
        };
        Seen { view, rights, identity }
    }

    /// Whether a hook of the container could be executed.
    ///
    /// # Errors
    /// Those of execve(2).
    pub(super) fn executable(&self, path: &Path) -> Result<(), Errno> {
        let Ok(path) = std::ffi::CString::new(path.as_os_str().as_bytes()) else { return Err(Errno::ENOENT) };
        self.judge(&path).map_err(|errno| if errno == Errno::EISDIR { Errno::EACCES } else { errno })
    }

    fn find(&self, path: &CStr) -> Sight {
        let path: PathBuf = self.rights.directory.join(OsStr::from_bytes(path.to_bytes()));
        self.view.find(&path, Some(&|stat| self.rights.overrides.1 || self.may_execute(stat)))
    }

    /// By the mode of a file or directory, path_resolution(7).
    fn may_execute(&self, stat: &FileStat) -> bool {
        let Some(identity) = &self.identity else { return true };
        let shift = if stat.st_uid == identity.user {
            6
        } else if identity.groups.contains(&stat.st_gid) {
            3
        } else {
            0
        };
        stat.st_mode >> shift & 1 == 1
    }
}

impl Files for Seen<'_> {
    fn judge(&self, path: &CStr) -> Result<(), Errno> {
        let thing = match self.find(path) {
            Sight::There(thing) => thing,
            Sight::Missing { errno, .. } => return Err(errno),
            Sight::Unknown => return Ok(()),
        };
        let Some(stat) = thing.stat() else { return Ok(()) };
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFDIR => Err(Errno::EISDIR),
            libc::S_IFREG if thing.no_exec || stat.st_mode & 0o111 == 0 => Err(Errno::EACCES),
            libc::S_IFREG => {
                let may = self.rights.overrides.0 || thing.mapped || self.may_execute(&stat) || thing.has_acl();
                if may { Ok(()) } else { Err(Errno::EACCES) }
            }
            _ => Err(Errno::EACCES),
        }
    }

    fn exists(&self, path: &CStr) -> bool {
        !matches!(self.find(path), Sight::Missing { .. })
    }

    fn is_no_exec(&self, path: &CStr) -> bool {
        matches!(self.find(path), Sight::There(thing) if thing.no_exec)
    }

    fn head(&self, path: &CStr, length: u64) -> Option<Vec<u8>> {
        match self.find(path) {
            Sight::There(thing) => thing.head(length),
            Sight::Missing { .. } | Sight::Unknown => None,
        }
    }
}
