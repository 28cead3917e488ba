//! Paths that cannot leave a directory (openat2(2)), and extended attributes.

use std::ffi::{CStr, CString, OsString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::NixPath;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use super::{Errno, Result};

/// Whether symbolic links on the way are followed; never outside the root, and never the magic ones of procfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    /// Any link is `ELOOP`.
    Refuse,
    /// Links are followed as if the root were `/`.
    Follow,
}

/// How often a lookup is tried again when a rename or a mount elsewhere disturbs it.
const TRIES: u32 = 512;

/// Opens `path` as if `root` were `/`; absolute paths, links and `..` stay inside.
///
/// # Errors
/// `ELOOP`: a link that is refused, or a magic link. `EAGAIN`: renames on the host never came to rest.
pub(crate) fn open_in<P: NixPath + ?Sized>(root: impl AsFd, path: &P, flags: OFlag, links: Links) -> Result<OwnedFd> {
    let scope = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let scope = match links {
        Links::Refuse => scope | ResolveFlag::RESOLVE_NO_SYMLINKS,
        Links::Follow => scope,
    };
    open_scoped(root, path, flags, scope)
}

/// Opens `path`, which has to stay below `directory` and in its mount.
///
/// # Errors
/// `EXDEV`: it is absolute, or it, a link or a mount on the way leads out. `ELOOP`: a magic link. `EAGAIN`: as above.
pub(crate) fn open_beneath<P: NixPath + ?Sized>(directory: impl AsFd, path: &P, flags: OFlag) -> Result<OwnedFd> {
    let scope = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    open_scoped(directory, path, flags, scope)
}

fn open_scoped<P: NixPath + ?Sized>(root: impl AsFd, path: &P, flags: OFlag, scope: ResolveFlag) -> Result<OwnedFd> {
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(scope);
    let mut tries = 0;
    loop {
        // EAGAIN: the kernel could not be sure that a `..` stayed inside, since something was renamed meanwhile.
        match openat2(root.as_fd(), path, how) {
            Err(Errno::EAGAIN) if tries < TRIES => tries += 1,
            done => return done,
        }
    }
}

/// The target of a symbolic link that was opened with `O_PATH|O_NOFOLLOW`.
pub(crate) fn read_link(link: impl AsFd) -> Result<OsString> {
    nix::fcntl::readlinkat(link.as_fd(), c"")
}

/// The names of the extended attributes of an open file.
///
/// # Errors
/// `ENOTSUP`: the file system has none.
pub(crate) fn xattr_names(file: impl AsFd) -> Result<Vec<CString>> {
    let fd = file.as_fd().as_raw_fd();
    let list = grow(|buffer, size| {
        // SAFETY: `buffer` is writable for `size` bytes, or `size` is 0 and the kernel writes nothing.
        unsafe { libc::flistxattr(fd, buffer.cast(), size) }
    })?;
    Ok(list
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .filter_map(|name| CString::new(name).ok())
        .collect())
}

/// The value of one extended attribute of an open file.
pub(crate) fn xattr(file: impl AsFd, name: &CStr) -> Result<Vec<u8>> {
    let fd = file.as_fd().as_raw_fd();
    grow(|buffer, size| {
        // SAFETY: `name` ends in NUL; `buffer` is writable for `size` bytes, or `size` is 0.
        unsafe { libc::fgetxattr(fd, name.as_ptr(), buffer.cast(), size) }
    })
}

/// The value of one extended attribute of a file by its path, as the first bytes of a buffer. A link is not followed.
///
/// # Errors
/// `ENODATA`: it has none of that name. `ERANGE`: the value is longer than the buffer.
pub(crate) fn xattr_at<'buffer, P>(path: &P, name: &CStr, buffer: &'buffer mut [u8]) -> Result<&'buffer [u8]>
where
    P: NixPath + ?Sized,
{
    let length = path.with_nix_path(|path| {
        // SAFETY: both names end in NUL, and `buffer` is writable for the length given.
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
    })?;
    Ok(&buffer[..Errno::result(length)? as usize])
}

/// Sets one extended attribute of an open file.
pub(crate) fn set_xattr(file: impl AsFd, name: &CStr, value: &[u8]) -> Result<()> {
    // SAFETY: `name` ends in NUL, and `value` is readable for the length given.
    let result =
        unsafe { libc::fsetxattr(file.as_fd().as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(result).map(drop)
}

/// Asks for the size, then for the bytes, and again when they grew in between.
fn grow(call: impl Fn(*mut u8, usize) -> isize) -> Result<Vec<u8>> {
    loop {
        let size = Errno::result(call(std::ptr::null_mut(), 0))? as usize;
        let mut bytes = vec![0; size];
        match Errno::result(call(bytes.as_mut_ptr(), size)) {
            Ok(length) => {
                bytes.truncate(length as usize);
                return Ok(bytes);
            }
            Err(Errno::ERANGE) => {}
            Err(error) => return Err(error),
        }
    }
}
