//! `events`: what a container uses, again and again, and each time that the kernel kills for want of memory.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cgroup::MemoryEvents;
use crate::cgroup::stats::Stats;
use crate::error::{Error, Result};

use super::{Container, Status};

/// One line of the stream, with the keys of runc.
#[derive(Serialize)]
pub struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Stats>,
}

/// The statistics now.
pub fn stats(container: &Container) -> Result<Event<'_>> {
    let record = &container.record;
    // An ended container is told apart before its cgroup is looked for.
    living(container)?;
    let data = container.cgroup("look at")?.stats(record.resctrl.as_ref())?;
    Ok(Event { kind: "stats", id: &record.id, data: Some(data) })
}

/// Tells the statistics every `interval` and each lack of memory when it happens, until the container ends.
pub fn follow(container: &Container, interval: Duration, mut tell: impl FnMut(&Event) -> Result<()>) -> Result<()> {
    living(container)?;
    let (cgroup, record) = (container.cgroup("look at")?, &container.record);
    let (_, init) = container.init()?;
    let mut memory = cgroup.memory_events()?;
    if memory.is_none() {
        log::warn!("out-of-memory kills are not reported: cgroup {cgroup} has no memory.events");
    }
    // None beyond what the clock can count.
    let mut next = Instant::now().checked_add(interval);
    loop {
        let patience = next.map_or(Duration::MAX, |moment| moment.saturating_duration_since(Instant::now()));
        let ended = MemoryEvents::wait(memory.as_ref(), init.as_fd(), patience)?;
        // Also after the end, which may have come of it.
        if memory.as_mut().is_some_and(MemoryEvents::has_killed) {
            tell(&Event { kind: "oom", id: &record.id, data: None })?;
        }
        if ended {
            return Ok(());
        }
        if let Some(moment) = next.filter(|&moment| Instant::now() >= moment) {
            // What was missed, by a process that was stopped or on a machine that slept, is not made up for.
            let missed = moment.elapsed() > interval;
            next = if missed { Instant::now() } else { moment }.checked_add(interval);
            match cgroup.stats(record.resctrl.as_ref()) {
                Ok(data) => tell(&Event { kind: "stats", id: &record.id, data: Some(data) })?,
                // Deleted meanwhile.
                Err(_) if container.living_init()?.is_none() => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

fn living(container: &Container) -> Result<()> {
    match container.status()? {
        Status::Created | Status::Running | Status::Paused => Ok(()),
        Status::Creating | Status::Stopped => {
            Err(Error::new(format!("container with id {} is not running", container.record.id)))
        }
    }
}
