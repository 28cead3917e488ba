//! Cgroups for the container to use as it likes (cgroups(7), "Cgroups v2 delegation").

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::AtFlags;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, Uid, fchownat, mkdir};

use super::create::Cgroup;
use super::files;
use super::handle::Handle;
use super::location::{Location, clean};
use crate::error::{Context, Result, ensure};
use crate::sys::Errno;

/// The cgroup below the container's own that an annotation names for its processes; checked, so that it cannot lead out.
pub struct Inner(String);

impl Inner {
    /// Reads the annotation's value; an empty one asks for nothing.
    pub fn plan(name: &str) -> Result<Option<Inner>> {
        ensure!(
            !name.contains(['\n', '\0']) && !name.split('/').any(|part| part == ".."),
            "{name:?} is not the name of a cgroup below the container's"
        );
        let clean = clean(name);
        Ok((!clean.is_empty()).then_some(Inner(clean)))
    }
}

impl Cgroup {
    /// Makes a cgroup below this one, without limits of its own, and moves the container's first process there. The limits
    /// stay above it, where a cgroup namespace has its root, and the container has what it may do with the rest.
    pub fn enter_subcgroup(&self, inner: &Inner, init: Pid, owner: Option<Uid>) -> Result<()> {
        let place = self.location().below(&inner.0);
        for directory in place.upwards().take(inner.0.split('/').count()).collect::<Vec<_>>().iter().rev() {
            match mkdir(directory.as_str(), Mode::from_bits_truncate(0o755)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno).with_context(|| format!("make cgroup {place}")),
            }
        }
        let dir = Handle::of(&place).open()?;
        files::write_at(&dir, "cgroup.procs", &init.to_string())
            .with_context(|| format!("move the container's process to cgroup {place}"))?;
        owner.map_or(Ok(()), |owner| give(dir.as_fd(), &place, owner))
    }

    /// Gives the cgroup to a user, so that the container may make cgroups below it: the directory and the files that the
    /// kernel names for it, and none of those that limit.
    ///
    /// The caller asks for it only where the container has its own cgroup namespace and a writable cgroup mount.
    pub fn delegate(&self, owner: Uid) -> Result<()> {
        give(self.dir(), self.location(), owner)
    }
}

fn give(dir: BorrowedFd, place: &Location, owner: Uid) -> Result<()> {
    let give = |name: &str| fchownat(dir, name, Some(owner), None, AtFlags::AT_EMPTY_PATH);
    give("").with_context(|| format!("give cgroup {place} to user {owner}"))?;
    let names = fs::read_to_string("/sys/kernel/cgroup/delegate");
    let names = names.as_deref().unwrap_or("cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n");
    for name in names.lines().filter(|name| !name.contains('/')) {
        match give(name) {
            // Files of controllers that are off here.
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => {
                return Err(errno).with_context(|| format!("give {name} of cgroup {place} to user {owner}"));
            }
        }
    }
    Ok(())
}
