//! The steps by which a file system is made, with errors that name the option and have the kernel's own words.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use crate::error::{Context, Error, Result};
use crate::sys::Errno;
use crate::sys::mount::{Attr, Filesystem};

/// Starts to make a file system of a type.
pub(super) fn start(fstype: &CStr) -> Result<Filesystem> {
    Filesystem::open(fstype).map_err(|errno| match errno {
        Errno::ENODEV => Error::from(errno).context("the kernel does not know this file system"),
        other => other.into(),
    })
}

/// Sets a parameter.
pub(super) fn set(filesystem: &Filesystem, key: &CStr, value: Option<&CStr>) -> Result<()> {
    filesystem.set(key, value).map_err(|errno| {
        let key = key.to_string_lossy();
        let option = value.map_or_else(|| key.to_string(), |value| format!("{key}={}", value.to_string_lossy()));
        complain(filesystem, errno, &format!("option {option}"))
    })
}

/// Makes it, as a detached mount with these attributes.
pub(super) fn finish(filesystem: &Filesystem, attributes: Attr) -> Result<OwnedFd> {
    filesystem.mount(attributes).map_err(|errno| complain(filesystem, errno, "make the file system"))
}

/// An error with what the kernel wrote about it.
pub(super) fn complain(filesystem: &Filesystem, errno: Errno, step: &str) -> Error {
    let error = Error::from(errno);
    match filesystem.complaint() {
        Some(complaint) => error.context(complaint),
        None => error,
    }
    .context(step.to_owned())
}

/// A detached mount with nothing in it, in which nothing can be made.
pub(super) fn empty_directory() -> Result<OwnedFd> {
    let all = Attr::RDONLY | Attr::NOSUID | Attr::NODEV | Attr::NOEXEC;
    let filesystem = Filesystem::open(c"tmpfs").context("open tmpfs")?;
    filesystem.mount(all).context("make an empty directory")
}
