//! The driver that makes cgroups by itself, as directories.

use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, access, mkdir};

use super::handle::Handle;
use super::location::Location;
use super::mount::Mount;
use super::{files, own};
use crate::error::{Context, Result, bail, ensure};
use crate::sys::Errno;

/// Where the cgroup will be, if nobody is there.
pub(super) fn place(path: String, mount: Mount) -> Result<Location> {
    let mut location = Location::new(mount, path, 0);
    match files::read(&location.file("cgroup.events")) {
        Ok(events) => ensure_free(&events, &location).field(|| "/linux/cgroupsPath")?,
        Err(Errno::ENOENT) => location.set_made(count_missing(&location)?),
        Err(errno) => return Err(errno).with_context(|| format!("look at cgroup {location}")),
    }
    Ok(location)
}

/// That the cgroup which is there may be taken: nobody is in it.
pub(super) fn ensure_free(events: &str, location: &Location) -> Result<()> {
    if files::value_of(events, "populated") == Some("1") {
        // Callers know these two sentences by heart.
        let count = Handle::of(location).pids()?.len();
        ensure!(count == 0, "container's cgroup is not empty: {count} process(es) found");
    }
    ensure!(files::value_of(events, "frozen") != Some("1"), "container's cgroup unexpectedly frozen");
    Ok(())
}

/// How many components at the end of the path are not there; the last one isn't.
fn count_missing(location: &Location) -> Result<usize> {
    let mut missing = 1;
    for ancestor in location.upwards().skip(1) {
        match access(ancestor.as_str(), AccessFlags::F_OK) {
            Ok(()) => break,
            Err(Errno::ENOENT) => missing += 1,
            Err(errno) => return Err(errno).with_context(|| format!("look at cgroup {location}")),
        }
    }
    Ok(missing)
}

/// Makes the missing directories, outermost first. At every moment `made` reaches up to the highest one of ours.
pub(super) fn make(location: &mut Location) -> Result<()> {
    let mut missing: Vec<String> = location.upwards().take(location.made()).collect();
    location.set_made(0);
    let mut tries = 10;
    while let Some(directory) = missing.pop() {
        match mkdir(directory.as_str(), Mode::from_bits_truncate(0o755)) {
            Ok(()) => location.set_made(location.made().max(missing.len() + 1)),
            // Another container has made the same parent. The leaf, though, must be ours alone.
            Err(Errno::EEXIST) if !missing.is_empty() => {}
            Err(Errno::EEXIST) => {
                location.set_made(0);
                bail!("cgroup {location} was made by someone else at this moment");
            }
            // Another container has removed the parent that it had made: begin again.
            Err(Errno::ENOENT) if tries > 0 => {
                tries -= 1;
                missing = location.upwards().take(count_missing(location)?).collect();
            }
            Err(errno) => return Err(errno).with_context(|| format!("make cgroup {location}")),
        }
    }
    Ok(())
}

/// Whether a process of the runtime's own cgroup may be born here: the two need an ancestor in common whose
/// `cgroup.procs` we may write (cgroups(7), "Cgroups delegation: delegation containment").
pub(super) fn check_delegation(location: &Location) -> Result<()> {
    let own = own::path_in(&own::read_own()?).unwrap_or_default();
    let same = location.path().split('/').zip(own.split('/')).take_while(|(ours, own)| ours == own);
    let common: String = same.map(|(part, _)| format!("/{part}")).collect();
    let file = format!("{}{common}/cgroup.procs", location.mount());
    access(file.as_str(), AccessFlags::W_OK)
        .with_context(|| format!("go from cgroup /{own} to cgroup {location} by way of {file}"))
}

/// Whether cgroups can be made in a directory.
pub(super) fn writable(directory: &str) -> Result<()> {
    access(directory, AccessFlags::W_OK).with_context(|| format!("write to {directory}"))
}
