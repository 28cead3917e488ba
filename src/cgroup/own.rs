//! The cgroup that a process is in now, `/proc/PID/cgroup` (cgroups(7), "/proc files").

use nix::unistd::Pid;

use super::files;
use super::location::{Location, clean};
use super::mount::Mount;
use crate::error::{Context, Result, bail};

/// Where cgroup v2 is mounted, and the directory of the runtime's own cgroup.
pub fn own() -> Option<(&'static str, String)> {
    let mount = Mount::find().ok()?.path();
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    Some((mount, format!("{mount}/{}", path_in(&own)?)))
}

/// What the kernel says of the runtime's own cgroups.
pub(super) fn read_own() -> Result<String> {
    std::fs::read_to_string("/proc/self/cgroup").context("look up the runtime's own cgroup")
}

/// The path of the v2 hierarchy in a `/proc/PID/cgroup`, a cleaned one.
pub(super) fn path_in(text: &str) -> Option<String> {
    crate::sys::procfs::process::cgroup(text).map(clean)
}

/// A container's cgroup where a process of it really is.
pub(super) fn of_process(location: &Location, pid: Pid) -> Result<Location> {
    let text =
        files::read(&format!("/proc/{pid}/cgroup")).with_context(|| format!("look up the cgroup of process {pid}"))?;
    let Some(path) = path_in(&text) else { bail!("process {pid} is in no cgroup of version 2") };
    Ok(location.moved_to(path))
}
