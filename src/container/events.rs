//! `events`: whatwhat a container uses, again and again, and each time that the kernel kills because it is out of memory.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cgroup::{self, Handle, MemoryEvents};
use crate::error::{Error, Result};
use crate::resctrl;

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

/// All statistics of a container.
#[derive(Serialize)]
struct Stats {
    #[serde(flatten)]
    cgroup: cgroup::Stats,
    intel_rdt: resctrl::Stats,
    /// The network is not a runtime's: always `null`.
    network_interfaces: (),
}

impl Stats {
    fn read(cgroup: Handle<'_>, resctrl: Option<&resctrl::Group>) -> Result<Stats> {
        let cgroup = cgroup.stats()?;
        Ok(Stats { cgroup, intel_rdt: resctrl.map(resctrl::Group::stats).unwrap_or_default(), network_interfaces: () })
    }
}

/// The statistics now.
pub fn stats(container: &Container) -> Result<Event<'_>> {
    let record = &container.record;
    // A container that has ended has its own error, not one about its cgroup.
    living(container)?;
    let data = Stats::read(container.cgroup("look at")?, record.resctrl.as_ref())?;
    Ok(Event { kind: "stats", id: &record.id, data: Some(data) })
}

/// Emits statistics every `interval` and each out-of-memory kill when it happens, until the container ends.
pub fn follow(container: &Container, interval: Duration, mut tell: impl FnMut(&Event) -> Result<()>) -> Result<()> {
    living(container)?;
    let (cgroup, record) = (container.cgroup("look at")?, &container.record);
    let (_, init) = container.init()?;
    let mut memory = cgroup.memory_events()?;
    if memory.is_none() {
        log::warn!("out-of-memory kills are not reported: cgroup {cgroup} has no memory.events");
    }
    // `None`: beyond the range of the clock.
    let mut next = Instant::now().checked_add(interval);
    loop {
        let patience = next.map_or(Duration::MAX, |moment| moment.saturating_duration_since(Instant::now()));
        let ended = MemoryEvents::wait(memory.as_ref(), init.as_fd(), patience)?;
        // Also after the end: the kill may have caused it.
        if memory.as_mut().is_some_and(MemoryEvents::has_killed) {
            tell(&Event { kind: "oom", id: &record.id, data: None })?;
        }
        if ended {
            return Ok(());
        }
        if let Some(moment) = next.filter(|&moment| Instant::now() >= moment) {
            // Intervals that were missed, while this process was stopped or the machine slept, are skipped.
            let missed = moment.elapsed() > interval;
            next = if missed { Instant::now() } else { moment }.checked_add(interval);
            match Stats::read(cgroup, record.resctrl.as_ref()) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_without_a_group_has_statistics_of_its_cgroup_and_of_nothing_else() {
        let root = std::env::temp_dir().join(format!("corten-events-{}", std::process::id()));
        std::fs::create_dir_all(root.join("c")).unwrap();
        std::fs::write(root.join("c/pids.current"), "3\n").unwrap();
        let place = format!(r#"{{"driver":"cgroupfs","mount":"{}","path":"c","made":1}}"#, root.display());
        let stats = Stats::read(Handle::of(&serde_json::from_str(&place).unwrap()), None).unwrap();
        let text = serde_json::to_string(&stats).unwrap();
        std::fs::remove_dir_all(root).unwrap();
        let stats: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(stats["pids"], serde_json::json!({"current": 3}));
        assert_eq!(
            (&stats["intel_rdt"], &stats["network_interfaces"]),
            (&serde_json::json!({}), &serde_json::Value::Null)
        );
        // In the order of runc.
        assert!(text.ends_with(r#""hugetlb":{},"intel_rdt":{},"network_interfaces":null}"#), "{text}");
    }
}
