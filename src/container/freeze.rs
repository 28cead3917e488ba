//! `pause` and `resume`: the container's cgroup is frozen and thawed.

use crate::cgroup::Location;
use crate::error::{Error, Result, bail};

use super::{Container, Status};

/// Freezes a created or running container. One that does not freeze within seconds is thawed again.
pub fn pause(container: &Container) -> Result<()> {
    match container.status()? {
        Status::Created | Status::Running => cgroup(container)?.freeze(),
        Status::Paused => bail!("container not running: it is paused already"),
        Status::Creating | Status::Stopped => bail!("container not running"),
    }
}

/// Thaws a paused container, and one whose pause was cut short.
pub fn resume(container: &Container) -> Result<()> {
    match container.status()? {
        Status::Paused => cgroup(container)?.thaw(),
        Status::Created | Status::Running if cgroup(container)?.is_to_freeze() => cgroup(container)?.thaw(),
        _ => bail!("container not paused"),
    }
}

fn cgroup(container: &Container) -> Result<&Location> {
    container.record.cgroup.as_ref().ok_or_else(|| {
        Error::new("the container has no cgroup of its own to freeze")
            .hint("create it without --cgroup-manager=disabled")
    })
}
