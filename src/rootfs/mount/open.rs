//! Mounts that are no binds: new file systems (fsopen(2)), overlays, and what a container may see of cgroup2. Each is made
//! as a detached mount with its attributes.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

use nix::sys::stat::fstat;

use super::plan::Mount;
use crate::error::{Context, Error, Result, bail};
use crate::rootfs::filesystem::{complain, empty_directory, finish, set, start};
use crate::rootfs::options::Attributes;
use crate::rootfs::overlay::Overlay;
use crate::rootfs::path::Place;
use crate::rootfs::procfs::Shown;
use crate::rootfs::request::CgroupPaths;
use crate::sys::Errno;
use crate::sys::mount::{Attr, Change, Filesystem, Propagation, change, clone_path};

/// The type of a cgroup file system, and what the table of mounts has as its source.
pub(super) const CGROUP: &CStr = c"cgroup2";
pub(super) const CGROUP_NAME: &CStr = c"cgroup";

impl Mount {
    /// A detached mount of a new file system; `place` is what it covers, once that is known.
    pub(super) fn make(
        &self,
        fstype: &CString,
        name: Option<&CString>,
        read_only_last: bool,
        place: Option<&Place>,
        shown: Option<&Shown>,
    ) -> Result<OwnedFd> {
        let filesystem = start(fstype)?;
        if let Some(shown) = shown.filter(|_| fstype.as_bytes() == b"proc")
            && !shown.tell(&filesystem).map_err(|errno| complain(&filesystem, errno, "choose the pid namespace"))?
        {
            return self.clone_procfs(shown);
        }
        self.parametrize(&filesystem, name.map(CString::as_c_str))?;
        let tmpfs = fstype.as_bytes() == b"tmpfs";
        if let Some(place) = place.filter(|place| tmpfs && !place.made && !self.has_parameter("mode")) {
            // As the directory that it covers, the sticky bit included.
            let mode = format!("{:o}", fstat(&place.fd)?.st_mode & 0o7777);
            set(&filesystem, c"mode", Some(&CString::new(mode).unwrap_or_default()))?;
        }
        let mut attributes = self.attributes();
        if read_only_last {
            attributes &= !Attr::RDONLY;
        }
        let tree = finish(&filesystem, attributes)?;
        self.set_propagation_of_new(&tree)?;
        Ok(tree)
    }

    /// Where the kernel makes none for another pid namespace.
    fn clone_procfs(&self, shown: &Shown) -> Result<OwnedFd> {
        if let Some(parameter) = self.parameters.first() {
            let key = parameter.key.to_string_lossy();
            return Err(Error::new(format!("the option {key} cannot be given to a procfs of another pid namespace"))
                .hint("it needs Linux 6.18 (mount option pidns): leave it out"));
        }
        let tree = shown.clone_existing(self.attributes())?;
        self.set_propagation_of_new(&tree)?;
        Ok(tree)
    }

    /// Gives a file system that is started its name and what the entry says of it.
    pub(super) fn parametrize(&self, filesystem: &Filesystem, name: Option<&CStr>) -> Result<()> {
        if let Some(name) = name {
            set(filesystem, c"source", Some(name))?;
        }
        self.parameters.iter().try_for_each(|parameter| set(filesystem, &parameter.key, parameter.value.as_deref()))
    }

    pub(super) fn has_parameter(&self, key: &str) -> bool {
        self.parameters.iter().any(|parameter| parameter.key.as_bytes() == key.as_bytes())
    }

    pub(super) fn make_overlay(&self, overlay: &Overlay) -> Result<OwnedFd> {
        let mut attributes = self.attributes();
        if self.target.is_root() {
            // Mount points may still have to be made.
            attributes &= !Attr::RDONLY;
        }
        if self.locked {
            // As the kernel has it for one that is made in the user namespace.
            attributes |= Attr::NODEV;
        }
        let tree = overlay.mount(&self.parameters, attributes)?;
        self.set_propagation_of_new(&tree)?;
        Ok(tree)
    }

    /// The propagation of a mount that has no peers.
    fn set_propagation_of_new(&self, tree: &OwnedFd) -> Result<()> {
        for propagation in &self.propagation {
            if !matches!(propagation.kind, Propagation::Private | Propagation::Slave) {
                change(tree, propagation.recursive, propagation.change()).context("set its propagation")?;
            }
        }
        Ok(())
    }

    /// With a cgroup namespace, a mount of cgroup2 shows the container's own part. Without one, the host's mount is
    /// bound: a fresh one would also reset the host's own options (nsdelegate).
    pub(super) fn make_cgroup(&self, private: bool, paths: Option<&CgroupPaths>) -> Result<OwnedFd> {
        let fresh = private || paths.is_none();
        if fresh {
            match self.make_fresh_cgroup() {
                // Not ours to mount: the cgroup namespace belongs to another user namespace, or a sandbox forbids it.
                Err(error) if matches!(error.errno(), Some(Errno::EPERM | Errno::EBUSY)) && paths.is_some() => {}
                done => return done,
            }
        }
        let Some(paths) = paths else { bail!("the host has no cgroup v2") };
        let path = if private { &paths.cgroup } else { &paths.mount };
        let tree = match clone_path(path, true) {
            Ok(tree) => tree,
            // What is not visible must not let through what is (CVE-2023-25809): an empty read-only directory.
            Err(Errno::ENOENT) => return empty_directory(),
            Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
        };
        // All of it, or `ro` would not reach what is mounted below.
        let Attributes { set, clear } = self.all.then(self.own);
        let propagation = Some(self.propagation.first().map_or(Propagation::Slave, |propagation| propagation.kind));
        change(&tree, true, Change { set, clear, propagation }).context("set its attributes")?;
        Ok(tree)
    }

    fn make_fresh_cgroup(&self) -> Result<OwnedFd> {
        let filesystem = start(CGROUP)?;
        self.parametrize(&filesystem, Some(CGROUP_NAME))?;
        finish(&filesystem, self.attributes())
    }
}
