//! An overlay in the making: the steps that every overlay is made by.
//!
//! The kernel takes layers by descriptor from Linux 6.13 on, and detached mounts as layers from 6.15 on. Before that the
//! same descriptors are named, by their numbers: one by one from 6.8 on, before that all in one short list.

use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, fchdir};

use super::filesystem::{complain, finish, set, start};
use crate::error::{Context, Error, Result, ensure};
use crate::sys::Errno;
use crate::sys::mount::{Attr, Filesystem};

/// Bytes that fsconfig(2) takes as the value of an option.
const MOST_BYTES: usize = 255;

/// What to do about the errors of an overlay, whose reasons the kernel keeps for its log.
const REMEDIES: &[(Errno, &str)] = &[
    (Errno::EBUSY, "upperdir or workdir is in use by another overlay"),
    (Errno::EINVAL, "the kernel's log (dmesg) has what it does not like"),
    (Errno::ELOOP, "a layer must not lie in another one, or in upperdir or workdir"),
    (Errno::ENODEV, "the kernel needs CONFIG_OVERLAY_FS"),
    (Errno::ESTALE, "with index=on an upperdir keeps to the lowerdir that it was first used with"),
];

/// An overlay in the making.
pub(super) struct Stack {
    filesystem: Filesystem,
    /// A layer was taken by its descriptor.
    begun: bool,
    /// Layers that have to be named, in order, each with what it is.
    named: Vec<(&'static CStr, OwnedFd, String)>,
}

impl Stack {
    pub(super) fn start(name: Option<&CStr>) -> Result<Stack> {
        let filesystem = start(c"overlay").map_err(remedy)?;
        set(&filesystem, c"source", Some(name.unwrap_or(c"overlay")))?;
        Ok(Stack { filesystem, begun: false, named: Vec::new() })
    }

    /// Sets an option that names no layer.
    pub(super) fn set(&self, key: &CStr, value: Option<&CStr>) -> Result<()> {
        set(&self.filesystem, key, value)
    }

    /// Whether this kernel wants layers by their names, as all do before Linux 6.13. Known once there is one.
    pub(super) fn names_layers(&self) -> bool {
        !self.named.is_empty()
    }

    /// Adds a layer; the topmost first.
    pub(super) fn add(&mut self, key: &'static CStr, layer: OwnedFd, what: &dyn fmt::Display) -> Result<()> {
        if !self.names_layers() {
            match self.give(key, &layer) {
                Ok(()) => {
                    self.begun = true;
                    return Ok(());
                }
                // No descriptors before Linux 6.13, none that were opened as O_PATH before 6.15.
                Err(Errno::EINVAL | Errno::EBADF) if !self.begun => {}
                Err(errno) => return Err(remedy(complain(&self.filesystem, errno, &what.to_string()))),
            }
        }
        self.named.push((key, layer, what.to_string()));
        Ok(())
    }

    /// Makes it, as a detached mount.
    pub(super) fn mount(self, attributes: Attr) -> Result<OwnedFd> {
        if !self.names_layers() {
            return finish(&self.filesystem, attributes);
        }
        // The shortest name of an open directory: its number, from here. Before Linux 6.5 names are looked up last.
        let home = open(".", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        chdir("/proc/self/fd").context("enter /proc/self/fd, to name layers")?;
        let made = self.name_all().and_then(|()| finish(&self.filesystem, attributes));
        fchdir(home).context("go back from /proc/self/fd")?;
        made
    }

    fn give(&self, key: &CStr, layer: &OwnedFd) -> Result<(), Errno> {
        #[cfg(test)]
        linux::as_before(6, 13)?;
        self.filesystem.set_fd(key, layer.as_fd())
    }

    fn append(&self, key: &CStr, layer: &OwnedFd) -> Result<(), Errno> {
        #[cfg(test)]
        linux::as_before(6, 8)?;
        self.filesystem.set(key, Some(&number(layer)))
    }

    fn name_all(&self) -> Result<()> {
        let (lower, others): (Vec<_>, Vec<_>) =
            self.named.iter().partition(|(key, ..)| matches!(key.to_bytes(), b"lowerdir+" | b"datadir+"));
        for (index, (key, layer, what)) in lower.iter().enumerate() {
            match self.append(key, layer) {
                // Before Linux 6.8 there is but one list.
                Err(Errno::EINVAL) if index == 0 => {
                    self.name_at_once(&lower)?;
                    break;
                }
                done => done.map_err(|errno| complain(&self.filesystem, errno, what))?,
            }
        }
        for (key, layer, what) in others {
            let named = self.filesystem.set(key, Some(&number(layer)));
            named.map_err(|errno| complain(&self.filesystem, errno, what))?;
        }
        Ok(())
    }

    fn name_at_once(&self, lower: &[&(&'static CStr, OwnedFd, String)]) -> Result<()> {
        let mut list = Vec::new();
        for (key, layer, _) in lower {
            let before: &[u8] = if key.to_bytes() == b"datadir+" { b"::" } else { b":" };
            list.extend_from_slice(if list.is_empty() { b"" } else { before });
            list.extend_from_slice(number(layer).to_bytes());
        }
        ensure!(
            list.len() <= MOST_BYTES,
            "{} layers are too many: before Linux 6.8 the kernel takes a list of {MOST_BYTES} bytes, and theirs has {}",
            lower.len(),
            list.len()
        );
        let list = CString::new(list).unwrap_or_default();
        let named = self.filesystem.set(c"lowerdir", Some(&list));
        let first = lower.first().map_or("", |(.., what)| what);
        named.map_err(|errno| complain(&self.filesystem, errno, &format!("{first} and {} more", lower.len() - 1)))
    }
}

fn number(layer: &OwnedFd) -> CString {
    CString::new(layer.as_raw_fd().to_string()).unwrap_or_default()
}

/// Adds what to do about it.
pub(super) fn remedy(error: Error) -> Error {
    match REMEDIES.iter().find(|(errno, _)| error.errno() == Some(*errno)) {
        Some((_, remedy)) => error.hint(*remedy),
        None => error,
    }
}

/// Older kernels, for tests.
#[cfg(test)]
pub(super) mod linux {
    use std::sync::atomic::{AtomicU32, Ordering};

    use crate::sys::Errno;

    /// The version of Linux, times 100, that this process plays; only set in processes made for a test.
    static PLAYED: AtomicU32 = AtomicU32::new(u32::MAX);

    /// Makes this process take the kernel for an older one.
    pub fn play(major: u32, minor: u32) {
        PLAYED.store(major * 100 + minor, Ordering::Relaxed);
    }

    /// The error of a kernel that does not know an option yet.
    pub(super) fn as_before(major: u32, minor: u32) -> Result<(), Errno> {
        if PLAYED.load(Ordering::Relaxed) < major * 100 + minor { Err(Errno::EINVAL) } else { Ok(()) }
    }
}
