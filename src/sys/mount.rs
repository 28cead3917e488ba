//! Mounts by file descriptor: open_tree(2), fsopen(2), mount_setattr(2), move_mount(2).
//!
//! Nothing here takes the name of a mount point: a tree is cloned or made detached, dressed with its attributes, and
//! moved from its descriptor to the descriptor of the place. All of it is in Linux 5.12.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::NixPath;

use super::{Errno, Result};

bitflags::bitflags! {
    /// Attributes of a mount, `MOUNT_ATTR_*` of `<linux/mount.h>`.
    #[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Attr: u64 {
        /// Nothing may be written.
        const RDONLY = 0x1;
        /// Set-user-id bits have no effect.
        const NOSUID = 0x2;
        /// Device nodes cannot be opened.
        const NODEV = 0x4;
        /// Nothing may be executed.
        const NOEXEC = 0x8;
        /// The bits of the access time mode. It is a number, not a flag: to set a mode, all of them are cleared.
        const ATIME = 0x70;
        /// Access times are not updated.
        const NOATIME = 0x10;
        /// Access times are always updated.
        const STRICTATIME = 0x20;
        /// Access times of directories are not updated.
        const NODIRATIME = 0x80;
        /// Symbolic links are not followed.
        const NOSYMFOLLOW = 0x20_0000;
    }
}

impl Attr {
    /// The mode of access times that Linux uses unless told otherwise.
    pub(crate) const RELATIME: Attr = Attr::empty();
}

/// `MOUNT_ATTR_IDMAP`: owners are mapped by a user namespace.
const IDMAP: u64 = 0x10_0000;

/// In which way mounts and unmounts propagate between peers, mount_namespaces(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// Mounts and unmounts are seen by all peers.
    Shared,
    /// Mounts of the master are received, none is sent.
    Slave,
    /// Nothing is received or sent.
    Private,
    /// As private, and the mount cannot be the source of a bind.
    Unbindable,
}

impl Propagation {
    /// `MS_*` of mount(2).
    fn bits(self) -> u64 {
        match self {
            Propagation::Shared => libc::MS_SHARED,
            Propagation::Slave => libc::MS_SLAVE,
            Propagation::Private => libc::MS_PRIVATE,
            Propagation::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// What mount_setattr(2) changes: first `clear`, then `set`, then the propagation (`None` leaves it).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    /// Attributes to set.
    pub(crate) set: Attr,
    /// Attributes to clear.
    pub(crate) clear: Attr,
    /// The propagation that the mount gets.
    pub(crate) propagation: Option<Propagation>,
}

impl Change {
    /// A change of the propagation alone.
    pub(crate) const fn propagation(propagation: Propagation) -> Change {
        Change { set: Attr::empty(), clear: Attr::empty(), propagation: Some(propagation) }
    }

    /// Attributes to set, and no other change.
    pub(crate) const fn set(set: Attr) -> Change {
        Change { set, clear: Attr::empty(), propagation: None }
    }

    /// Whether it changes nothing.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Change::default()
    }
}

/// `struct mount_attr` in its first version.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

impl From<Change> for MountAttr {
    fn from(Change { set, clear, propagation }: Change) -> MountAttr {
        let propagation = propagation.map_or(0, Propagation::bits);
        MountAttr { set: set.bits(), clear: clear.bits(), propagation, userns_fd: 0 }
    }
}

const OPEN_TREE_CLONE: libc::c_int = 1;
const OPEN_TREE_CLOEXEC: libc::c_int = libc::O_CLOEXEC;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_int = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_int = 0x40;
const AT_RECURSIVE: libc::c_int = 0x8000;
const FSOPEN_CLOEXEC: libc::c_int = 1;
const FSPICK_CLOEXEC: libc::c_int = 0x1;
const FSPICK_EMPTY_PATH: libc::c_int = 0x8;
const FSMOUNT_CLOEXEC: libc::c_int = 1;

/// `enum fsconfig_command`.
mod fsconfig {
    pub(super) const SET_FLAG: libc::c_int = 0;
    pub(super) const SET_STRING: libc::c_int = 1;
    pub(super) const SET_FD: libc::c_int = 5;
    pub(super) const CREATE: libc::c_int = 6;
    pub(super) const RECONFIGURE: libc::c_int = 7;
}

/// Takes the result of a call that makes a descriptor.
fn owned(result: libc::c_long) -> Result<OwnedFd> {
    let fd = Errno::result(result)?;
    // SAFETY: the kernel has just made this descriptor for us, so nobody else owns it; it fits an int.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

fn open_tree(dir: libc::c_int, path: &CStr, flags: libc::c_int) -> Result<OwnedFd> {
    let flags = flags | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
    // SAFETY: `path` ends in NUL and outlives the call; the other arguments are integers.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, dir, path.as_ptr(), flags) })
}

fn recursive_flag(recursive: bool) -> libc::c_int {
    if recursive { AT_RECURSIVE } else { 0 }
}

/// A detached copy of what lies at a path of the host, which is followed through symbolic links.
pub(crate) fn clone_path<P: NixPath + ?Sized>(path: &P, recursive: bool) -> Result<OwnedFd> {
    path.with_nix_path(|path| open_tree(libc::AT_FDCWD, path, recursive_flag(recursive)))?
}

/// The same, but of the link itself where the path ends in one.
pub(crate) fn clone_unfollowed<P: NixPath + ?Sized>(path: &P, recursive: bool) -> Result<OwnedFd> {
    let flags = libc::AT_SYMLINK_NOFOLLOW | recursive_flag(recursive);
    path.with_nix_path(|path| open_tree(libc::AT_FDCWD, path, flags))?
}

/// A detached copy of what a descriptor refers to. It must lie in the caller's mount namespace.
pub(crate) fn clone_fd(fd: impl AsFd, recursive: bool) -> Result<OwnedFd> {
    open_tree(fd.as_fd().as_raw_fd(), c"", libc::AT_EMPTY_PATH | recursive_flag(recursive))
}

/// Puts a tree on a place; either is the object itself, no name is looked up.
///
/// # Errors
/// The kernel says `EINVAL` also where a directory would cover a file or the other way round.
pub(crate) fn attach(tree: impl AsFd, place: impl AsFd) -> Result<()> {
    // SAFETY: the two paths are static and empty; the other arguments are integers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            place.as_fd().as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    };
    Errno::result(result).map(drop)
}

/// Which mount a descriptor is the root of, by the kernel's number for it; none when it lies below a root.
pub(crate) fn where_mounted(place: impl AsFd) -> Result<Option<u64>> {
    mount_of(place).map(|(mount, is_root)| is_root.then_some(mount))
}

/// Which mount a descriptor is on, by the kernel's number for it, and whether it is the root of that.
pub(crate) fn mount_of(place: impl AsFd) -> Result<(u64, bool)> {
    // SAFETY: `statx` is plain integers, for which all-zero is valid.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is static and empty; the kernel writes one structure of its own size to a live local.
    let result = unsafe {
        libc::syscall(
            libc::SYS_statx,
            place.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_MNT_ID,
            &raw mut stat,
        )
    };
    Errno::result(result)?;
    Ok((stat.stx_mnt_id, stat.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0))
}

fn mount_setattr(dir: libc::c_int, path: &CStr, flags: libc::c_int, wanted: MountAttr) -> Result<()> {
    // SAFETY: `path` ends in NUL, `wanted` is laid out as the kernel's struct of the size given; both outlive the call,
    // which only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir,
            path.as_ptr(),
            flags,
            std::ptr::from_ref(&wanted),
            size_of::<MountAttr>(),
        )
    };
    Errno::result(result).map(drop)
}

/// Changes the attributes of the mount whose root the descriptor is, or of all mounts from there down.
pub(crate) fn change(mount: impl AsFd, recursive: bool, change: Change) -> Result<()> {
    mount_setattr(mount.as_fd().as_raw_fd(), c"", libc::AT_EMPTY_PATH | recursive_flag(recursive), change.into())
}

/// Changes every mount that the caller can see.
pub(crate) fn change_all(change: Change) -> Result<()> {
    mount_setattr(libc::AT_FDCWD, c"/", AT_RECURSIVE, change.into())
}

/// Maps the owners of a detached mount, or of all mounts of the tree, by a user namespace: an id of the file system is
/// looked up inside it, what it stands for outside is the id that is seen.
///
/// # Errors
/// `EINVAL`: the file system, or one in the tree, cannot be mapped. `EPERM`: it is mapped already, or the namespace is
/// the one that the file system belongs to.
pub(crate) fn map_ids(mount: impl AsFd, recursive: bool, user_namespace: BorrowedFd<'_>) -> Result<()> {
    let userns_fd = user_namespace.as_raw_fd() as u64;
    let wanted = MountAttr { set: IDMAP, clear: 0, propagation: 0, userns_fd };
    mount_setattr(mount.as_fd().as_raw_fd(), c"", libc::AT_EMPTY_PATH | recursive_flag(recursive), wanted)
}

/// A file system in the making (fsopen(2)), or one to be reconfigured (fspick(2)).
pub(crate) struct Filesystem(OwnedFd);

impl Filesystem {
    /// Starts to make a file system of a type.
    ///
    /// # Errors
    /// `ENODEV`: the kernel does not know the type.
    pub(crate) fn open(fstype: &CStr) -> Result<Filesystem> {
        // SAFETY: `fstype` ends in NUL and outlives the call.
        owned(unsafe { libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), FSOPEN_CLOEXEC) }).map(Filesystem)
    }

    /// Takes the file system of a mount, to change its parameters.
    pub(crate) fn pick(mount: impl AsFd) -> Result<Filesystem> {
        let flags = FSPICK_CLOEXEC | FSPICK_EMPTY_PATH;
        // SAFETY: the path is static and empty; the other arguments are integers.
        owned(unsafe { libc::syscall(libc::SYS_fspick, mount.as_fd().as_raw_fd(), c"".as_ptr(), flags) })
            .map(Filesystem)
    }

    fn config(&self, command: libc::c_int, key: Option<&CStr>, value: Option<&CStr>, aux: libc::c_int) -> Result<()> {
        let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: key and value are NULL or end in NUL and outlive the call, which copies them.
        let result = unsafe {
            libc::syscall(libc::SYS_fsconfig, self.0.as_raw_fd(), command, pointer(key), pointer(value), aux)
        };
        Errno::result(result).map(drop)
    }

    /// Sets a parameter: `key`, or `key=value`.
    pub(crate) fn set(&self, key: &CStr, value: Option<&CStr>) -> Result<()> {
        let command = if value.is_some() { fsconfig::SET_STRING } else { fsconfig::SET_FLAG };
        self.config(command, Some(key), value, 0)
    }

    /// Sets a parameter to an open file.
    pub(crate) fn set_fd(&self, key: &CStr, value: BorrowedFd<'_>) -> Result<()> {
        self.config(fsconfig::SET_FD, Some(key), None, value.as_raw_fd())
    }

    /// Makes the file system and a detached mount of it.
    ///
    /// # Errors
    /// Those of the type; [`Filesystem::complaint`] may know more.
    pub(crate) fn mount(&self, attributes: Attr) -> Result<OwnedFd> {
        self.config(fsconfig::CREATE, None, None, 0)?;
        // SAFETY: three integers; the attributes are a 32 bit word in this call.
        owned(unsafe {
            libc::syscall(libc::SYS_fsmount, self.0.as_raw_fd(), FSMOUNT_CLOEXEC, attributes.bits() as libc::c_uint)
        })
    }

    /// Applies the parameters to the file system that was picked.
    pub(crate) fn reconfigure(&self) -> Result<()> {
        self.config(fsconfig::RECONFIGURE, None, None, 0)
    }

    /// What the kernel said about the last failure, when it said something.
    pub(crate) fn complaint(&self) -> Option<String> {
        let mut last = None;
        let mut buffer = [0; 512];
        // Each read(2) gives one message, "e tmpfs: Unknown parameter 'x'", until ENODATA.
        while let Ok(length) = nix::unistd::read(&self.0, &mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]);
            let text = text.trim();
            last = Some(text.strip_prefix("e ").unwrap_or(text).to_owned());
            if length == 0 {
                break;
            }
        }
        last.filter(|text| !text.is_empty())
    }
}
