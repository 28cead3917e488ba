//! Freezing a cgroup, `cgroup.freeze`.

use std::time::{Duration, Instant};

use super::Handle;
use crate::cgroup::files::{self, Events};
use crate::error::{Context, Result, bail};

/// How long freezing may take; the kernel needs milliseconds unless a process is stuck in it.
const FREEZING: Duration = Duration::from_secs(10);

impl Handle<'_> {
    /// Whether it is frozen, by itself or through an ancestor. A cgroup that is gone is not.
    pub fn is_frozen(&self) -> Result<bool> {
        self.event("frozen")
    }

    /// Freezes it with all below it and waits until every process stands still; thaws it when that takes more
    /// than ten seconds, or anything else goes wrong.
    pub fn freeze(&self) -> Result<()> {
        let outcome = self.set_frozen_within(true, FREEZING);
        if outcome.is_err() {
            // Best effort on the way out: the first error is the one to tell.
            let _ = files::write(&self.file("cgroup.freeze"), "0");
        }
        outcome
    }

    /// Whether it is frozen or about to be, by itself. A cgroup that is gone is not.
    pub fn is_to_freeze(&self) -> bool {
        files::read(&self.file("cgroup.freeze")).is_ok_and(|text| text.trim() == "1")
    }

    /// The directory above it that keeps it frozen.
    fn frozen_above(&self) -> Option<String> {
        self.location()
            .upwards()
            .skip(1)
            .find(|above| files::read(&format!("{above}/cgroup.freeze")).is_ok_and(|t| t.trim() == "1"))
    }

    /// Lets it run again, and waits until it does. A frozen ancestor is an error: thawing below it changes nothing.
    pub fn thaw(&self) -> Result<()> {
        self.set_frozen_within(false, FREEZING)
    }

    pub(in crate::cgroup) fn set_frozen_within(&self, frozen: bool, patience: Duration) -> Result<()> {
        let (verb, value) = if frozen { ("freeze", "1") } else { ("thaw", "0") };
        let change = || {
            let events = Events::open(&self.file("cgroup.events"))?;
            files::write(&self.file("cgroup.freeze"), value)?;
            if !frozen && self.frozen_above().is_some() {
                return events.is("frozen", value);
            }
            events.wait("frozen", value, Instant::now() + patience)
        };
        if change().with_context(|| format!("{verb} cgroup {self}"))? {
            return Ok(());
        }
        if frozen {
            bail!("cgroup {self} did not freeze within {} seconds", patience.as_secs());
        }
        match self.frozen_above() {
            Some(above) => bail!("cgroup {self} stays frozen: a cgroup above it is ({above})"),
            None => bail!("cgroup {self} did not thaw within {} seconds", patience.as_secs()),
        }
    }
}
