//! The files that a container would see, by the rights that its program would have.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::FileStat;

use crate::namespaces::Origin;
use crate::plan::Plan;
use crate::process::check::{Files, Rights};
use crate::rootfs::{Lookup, Preview};
use crate::sys::{Errno, ns};

/// See the module's head.
pub struct PreviewFiles<'a> {
    preview: &'a Preview,
    rights: Rights<'a>,
    /// Who it is on the host; `None` where that cannot be told, and modes are not looked at.
    identity: Option<Identity>,
}

struct Identity {
    user: u32,
    groups: Vec<u32>,
}

impl<'a> PreviewFiles<'a> {
    pub(super) fn new(preview: &'a Preview, plan: &'a Plan) -> PreviewFiles<'a> {
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
        PreviewFiles { preview, rights, identity }
    }

    /// Whether a hook of the container could be executed.
    ///
    /// # Errors
    /// Those of execve(2).
    pub(super) fn executable(&self, path: &Path) -> Result<(), Errno> {
        let Ok(path) = std::ffi::CString::new(path.as_os_str().as_bytes()) else { return Err(Errno::ENOENT) };
        self.check_executable(&path).map_err(|errno| if errno == Errno::EISDIR { Errno::EACCES } else { errno })
    }

    fn find(&self, path: &CStr) -> Lookup {
        let path: PathBuf = self.rights.directory.join(OsStr::from_bytes(path.to_bytes()));
        self.preview.find(&path, Some(&|stat| self.rights.overrides.1 || self.may_execute(stat)))
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

impl Files for PreviewFiles<'_> {
    fn check_executable(&self, path: &CStr) -> Result<(), Errno> {
        let found = match self.find(path) {
            Lookup::There(found) => found,
            Lookup::Missing { errno, .. } => return Err(errno),
            Lookup::Unknown => return Ok(()),
        };
        let Some(stat) = found.stat() else { return Ok(()) };
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFDIR => Err(Errno::EISDIR),
            libc::S_IFREG if found.no_exec || stat.st_mode & 0o111 == 0 => Err(Errno::EACCES),
            libc::S_IFREG => {
                let may = self.rights.overrides.0 || found.mapped || self.may_execute(&stat) || found.has_acl();
                if may { Ok(()) } else { Err(Errno::EACCES) }
            }
            _ => Err(Errno::EACCES),
        }
    }

    fn exists(&self, path: &CStr) -> bool {
        !matches!(self.find(path), Lookup::Missing { .. })
    }

    fn is_no_exec(&self, path: &CStr) -> bool {
        matches!(self.find(path), Lookup::There(found) if found.no_exec)
    }

    fn head(&self, path: &CStr, length: u64) -> Option<Vec<u8>> {
        match self.find(path) {
            Lookup::There(found) => found.head(length),
            Lookup::Missing { .. } | Lookup::Unknown => None,
        }
    }
}
