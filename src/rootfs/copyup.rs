//! `tmpcopyup`: a tmpfs that starts with what it covers.
//!
//! Both trees are walked by descriptors, and no link is followed. What is copied: directories, files, links, fifos,
//! sockets and device nodes with their modes, owners, times and extended attributes; the names of one file become
//! separate files.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstat, fstatat, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, symlinkat};

use super::path::format;
use crate::error::{Context, Result, bail};
use crate::sys::Errno;
use crate::sys::path::{read_link, set_xattr, xattr, xattr_names};

/// Deeper than any tree that people make, and shallow enough for the stack and the limit on open files.
const DEPTH: u32 = 200;

/// What of the directory itself is not copied, since the configuration says what it is to be.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Explicit {
    pub(super) mode: bool,
    pub(super) user: bool,
    pub(super) group: bool,
}

/// Copies all of `from` into the empty directory `to`, and its mode, owner, times and attributes onto it.
pub(super) fn copy(from: &OwnedFd, to: &OwnedFd, explicit: Explicit) -> Result<()> {
    let (from, to) = (directory(from.as_fd(), c".")?, directory(to.as_fd(), c".")?);
    let (mut stat, new) = (fstat(&from)?, fstat(&to)?);
    for (keep, copied, kept) in [
        (explicit.mode, &mut stat.st_mode, new.st_mode),
        (explicit.user, &mut stat.st_uid, new.st_uid),
        (explicit.group, &mut stat.st_gid, new.st_gid),
    ] {
        if keep {
            *copied = kept;
        }
    }
    copy_attributes(&from, &to)?;
    copy_entries(from, &to, DEPTH).context("copy what is there")?;
    finish_directory(&to, &stat)
}

fn directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?)
}

fn copy_entries(from: OwnedFd, to: &OwnedFd, depth: u32) -> Result<()> {
    let mut entries = Dir::from_fd(from.try_clone()?)?;
    for entry in entries.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            copy_entry(&from, to, name, depth).with_context(|| format!("copy {}", name.to_string_lossy()))?;
        }
    }
    Ok(())
}

fn copy_entry(from: &OwnedFd, to: &OwnedFd, name: &CStr, depth: u32) -> Result<()> {
    let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    match format(&stat) {
        SFlag::S_IFDIR => copy_directory(from, to, name, &stat, depth),
        SFlag::S_IFREG => copy_file(from, to, name, &stat),
        SFlag::S_IFLNK => {
            let link = openat(from, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
            symlinkat(read_link(&link)?.as_os_str(), to, name)?;
            own(to, name, &stat)?;
            touch(to, name, &stat)
        }
        kind => {
            mknodat(to, name, kind, Mode::empty(), stat.st_rdev)?;
            own(to, name, &stat)?;
            // Nobody else can reach the new tree yet, so the name is still what was made.
            fchmodat(to, name, mode(&stat), FchmodatFlags::FollowSymlink)?;
            touch(to, name, &stat)
        }
    }
}

fn copy_directory(from: &OwnedFd, to: &OwnedFd, name: &CStr, stat: &FileStat, depth: u32) -> Result<()> {
    let Some(depth) = depth.checked_sub(1) else { bail!("the tree is too deep") };
    mkdirat(to, name, Mode::S_IRWXU)?;
    let (source, target) = (directory(from.as_fd(), name)?, directory(to.as_fd(), name)?);
    copy_attributes(&source, &target)?;
    copy_entries(source, &target, depth)?;
    finish_directory(&target, stat)
}

/// Last, since entries change the times, and a mode may forbid them.
fn finish_directory(directory: &OwnedFd, stat: &FileStat) -> Result<()> {
    nix::unistd::fchown(directory, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(directory, mode(stat))?;
    touch(directory, c".", stat)
}

fn copy_file(from: &OwnedFd, to: &OwnedFd, name: &CStr, stat: &FileStat) -> Result<()> {
    // Not blocking: it may have become a fifo since we looked.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let mut source = File::from(openat(from, name, flags, Mode::empty())?);
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let mut target = File::from(openat(to, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
    std::io::copy(&mut source, &mut target)?;
    nix::unistd::fchown(&target, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    // After the owner, whose change drops set-user-id bits and capabilities.
    fchmod(&target, mode(stat))?;
    copy_attributes(source, target)?;
    touch(to, name, stat)
}

/// Extended attributes; those that a tmpfs does not keep are left out.
fn copy_attributes(from: impl AsFd, to: impl AsFd) -> Result<()> {
    let names = match xattr_names(&from) {
        Err(Errno::ENOTSUP) => return Ok(()),
        names => names?,
    };
    for name in names {
        match set_xattr(&to, &name, &xattr(&from, &name)?) {
            Ok(()) | Err(Errno::ENOTSUP) => {}
            Err(error) => return Err(error).with_context(|| format!("set {}", name.to_string_lossy())),
        }
    }
    Ok(())
}

fn own(to: &OwnedFd, name: &CStr, stat: &FileStat) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    Ok(fchownat(to, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?)
}

fn touch(to: &OwnedFd, name: &CStr, stat: &FileStat) -> Result<()> {
    let accessed = TimeSpec::new(stat.st_atime, stat.st_atime_nsec);
    let modified = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
    Ok(utimensat(to, name, &accessed, &modified, UtimensatFlags::NoFollowSymlink)?)
}

fn mode(stat: &FileStat) -> Mode {
    Mode::from_bits_truncate(stat.st_mode & 0o7777)
}
