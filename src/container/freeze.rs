//! `pause` and `resume`: the container's cgroup is frozen and thawed.

use crate::error::{Result, bail};

use super::{Container, Status};

const PURPOSE: &str = "freeze";

/// Freezes a created or running container. One that does not freeze within seconds is thawed again.
pub fn pause(container: &Container) -> Result<()> {
    match container.status()? {
        Status::Created | Status::Running => container.cgroup(PURPOSE)?.freeze(),
        Status::Paused => bail!("container not running: it is paused already"),
        Status::Creating | Status::Stopped => bail!("container not running"),
    }
}

/// Thaws a paused container, also one whose `pause` was killed half-way.
pub fn resume(container: &Container) -> Result<()> {
    match container.status()? {
        Status::Paused => container.cgroup(PURPOSE)?.thaw(),
        Status::Created | Status::Running if container.cgroup(PURPOSE)?.is_to_freeze() => {
            container.cgroup(PURPOSE)?.thaw()
        }
        _ => bail!("container not paused"),
    }
}
