//! Processes that the kernel has killed when the memory of a cgroup was used up, `memory.events`.

use super::Handle;
use crate::cgroup::files::{self, MemoryEvents};
use crate::error::{Context, Error, Result};

/// What memory.max lets a container be set up, in bytes: measured, with a static program of little size.
const SET_UP: u64 = 192 << 10;

/// What to say of a limit on memory below what setting a container up takes.
pub(in crate::cgroup) fn too_little(bytes: u64) -> Option<String> {
    let sentence = || format!("{bytes} bytes are less than the about {SET_UP} that setting the container up takes");
    (bytes < SET_UP).then(sentence)
}

impl Handle<'_> {
    /// How many of its processes the kernel has killed because they were out of memory; `None` without the memory controller.
    pub fn oom_kills(&self) -> Option<u64> {
        let text = files::read(&self.file("memory.events")).ok()?;
        files::value_of(&text, "oom_kill")?.parse().ok()
    }

    /// The sentence for a container that died while it was set up, if the kernel has killed it because they were out of memory.
    ///
    /// systemd takes a scope away as soon as nobody lives in it, and with it goes what the kernel has counted. Then it
    /// was out of memory if the process was `killed` below a limit that does not let it be set up. `asked` is the
    /// container's own limit in bytes.
    pub fn out_of_memory(&self, asked: Option<u64>, killed: bool) -> Option<Error> {
        let lacked = match self.oom_kills() {
            Some(kills) => kills > 0,
            None => killed && asked.and_then(too_little).is_some() && self.is_gone(),
        };
        if !lacked {
            return None;
        }
        // Callers search for the words before the colon.
        let killed = "container init was OOM-killed (memory limit too low?)";
        // The limit may be that of a cgroup above.
        let limit = |place: &str| files::read(&format!("{place}/memory.max")).ok()?.trim().parse::<u64>().ok();
        let least = self.location().upwards().filter_map(|place| limit(&place)).chain(asked).min();
        let sentence = match least {
            Some(bytes) => {
                format!("{killed}: its memory.max is {bytes} bytes, and setting it up takes about {SET_UP} bytes")
            }
            None => format!("{killed}: the machine has none left"),
        };
        Some(Error::new(sentence).hint("raise linux.resources.memory.limit"))
    }

    /// What tells of the next such kill.
    pub fn memory_events(&self) -> Result<Option<MemoryEvents>> {
        let file = self.file("memory.events");
        MemoryEvents::open(&file).with_context(|| format!("open {file}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Location;

    fn location(text: &str) -> serde_json::Result<Location> {
        serde_json::from_str(text)
    }

    #[test]
    fn a_kill_below_a_hopeless_limit_is_told_as_out_of_memory_also_when_the_cgroup_is_gone() {
        let gone = location(r#"{"driver":"cgroupfs","mount":"/no/such","path":"a/b","made":1}"#).unwrap();
        let text = Handle::of(&gone).out_of_memory(Some(64 << 10), true).unwrap().to_string();
        assert!(text.contains("OOM-killed (memory limit too low?): its memory.max is 65536 bytes"), "{text}");
        for (asked, killed) in [(Some(64 << 10), false), (Some(SET_UP), true), (None, true)] {
            assert!(Handle::of(&gone).out_of_memory(asked, killed).is_none(), "{asked:?} {killed}");
        }
        let without_controller = location(r#"{"driver":"cgroupfs","mount":"/","path":"tmp","made":0}"#).unwrap();
        assert!(Handle::of(&without_controller).out_of_memory(Some(64 << 10), true).is_none());
    }
}
