//! The clock offsets of a new time namespace, time_namespaces(7).

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use oci_spec::runtime::Linux;

use crate::error::{Context, Error, Result};
use crate::sys::{self, ns};

use super::Origin;

/// What is written to `/proc/self/timens_offsets`, one line a clock.
#[derive(Debug)]
pub struct Offsets(String);

impl Offsets {
    /// Compiles `linux.timeOffsets`; they need a new time namespace.
    pub fn plan(linux: &Linux, time: Origin) -> Result<Option<Offsets>> {
        let Some(offsets) = linux.time_offsets().as_ref().filter(|offsets| !offsets.is_empty()) else {
            return Ok(None);
        };
        match time {
            Origin::New => {}
            Origin::Host => {
                return Err(Error::new("needs a time namespace")
                    .field("/linux/timeOffsets")
                    .hint("add {\"type\": \"time\"} to linux.namespaces"));
            }
            Origin::Joined => {
                return Err(Error::new("cannot change the clocks of a time namespace that is joined")
                    .field("/linux/timeOffsets"));
            }
        }
        let mut lines = String::new();
        for (clock, offset) in offsets {
            if clock != "monotonic" && clock != "boottime" {
                return Err(Error::new(format!("unknown clock {clock}, only monotonic and boottime have offsets"))
                    .field("/linux/timeOffsets"));
            }
            lines.push_str(&format!("{clock} {} {}\n", offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0)));
        }
        Ok(Some(Offsets(lines)))
    }

    /// Unshares the time namespace, sets its clocks and joins it.
    pub fn enter(&self, own: &OwnProc) -> Result<()> {
        self.set(own)?;
        let made = own.file(c"ns/time_for_children", OFlag::O_RDONLY).context("open the new time namespace")?;
        sys::clone::setns(made.as_fd(), ns::Flags::TIME).context("join the new time namespace")
    }

    /// Unshares a time namespace for children and sets its clocks, which is possible only while no process is inside.
    pub fn set(&self, own: &OwnProc) -> Result<()> {
        sys::clone::unshare(ns::Flags::TIME).context("unshare the time namespace")?;
        let file = own.file(c"timens_offsets", OFlag::O_WRONLY);
        file.and_then(|mut file| Ok(file.write_all(self.0.as_bytes())?))
            .with_context(|| format!("set the clock offsets {}", self.0.trim().replace('\n', ", ")))
            .field(|| "/linux/timeOffsets")
    }
}

/// The directory of this process in the host's procfs. It is opened before a mount namespace is joined, in which a
/// container can have mounted anything over the name `/proc/self` (CVE-2025-52881).
pub struct OwnProc(OwnedFd);

impl OwnProc {
    /// Opens it in the procfs that is at `/proc` now.
    pub fn open() -> Result<OwnProc> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        open("/proc/self", flags, Mode::empty()).map(OwnProc).context("open /proc/self")
    }

    fn file(&self, name: &std::ffi::CStr, flags: OFlag) -> Result<File> {
        Ok(openat(&self.0, name, flags | OFlag::O_CLOEXEC, Mode::empty())?.into())
    }
}
