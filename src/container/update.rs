//! `update`: changes limits of a container, all or nothing.

use oci_spec::runtime::{LinuxIntelRdt, LinuxResources};

use crate::cgroup::Change;
use crate::error::{Context, Error, Result, bail};

use super::record::Record;
use super::{Container, Status};

/// The limits to change.
#[derive(Default)]
pub struct UpdateRequest {
    /// As in `linux.resources`; what is not named stays.
    pub resources: LinuxResources,
    /// As in `linux.intelRdt`, for a container that has it.
    pub resctrl: Option<LinuxIntelRdt>,
}

/// Changes limits, and device rules if they differ, of a created, running or paused container. It needs no freeze, since a
/// device program is replaced in one step; a paused one stays paused.
pub fn update(container: &Container, request: &UpdateRequest) -> Result<()> {
    match container.status()? {
        Status::Created | Status::Running | Status::Paused => {}
        Status::Stopped | Status::Creating => bail!("container not running"),
    }
    let record = &container.record;
    let resctrl = match (&request.resctrl, &record.resctrl) {
        (Some(_), None) => {
            return Err(Error::new("the container has no resctrl group").hint("create it with linux.intelRdt"));
        }
        (wanted, group) => wanted.as_ref().zip(group.as_ref()),
    };
    let cgroup = container.cgroup("limit")?.location();
    let change = Change::plan(&request.resources, cgroup)?;
    let applied = change.apply(cgroup)?;
    // A failed step undoes itself; the drop of `applied` undoes those before.
    resctrl.map_or(Ok(()), |(wanted, group)| group.change(wanted)).phase("cgroup")?;
    let rules = change.device_rules().filter(|rules| record.device_rules != Some(*rules));
    if let Some(rules) = rules {
        container.directory.write(&Record { device_rules: Some(rules), ..record.clone() })?;
    }
    let finished = applied.finish(&change, rules.is_some());
    if finished.is_err() && rules.is_some() {
        // They are those of before.
        container.directory.write(record).unwrap_or_else(|error| log::warn!("{error}"));
    }
    finished?;
    applied.keep();
    Ok(())
}
