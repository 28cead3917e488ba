//! A container's cgroup as the record keeps it, and what the other commands do with it.

use std::ffi::CString;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::unistd::{AccessFlags, Pid, access};
use serde::{Deserialize, Serialize};

use super::files::{self, Events, MemoryEvents};
use super::mount::Mount;
use super::systemd::Recorded;
use crate::error::{Context, Error, Result, bail, ensure};
use crate::sys::Errno;

/// What memory.max lets a container be set up, in bytes: measured, with a static program of little size.
const SET_UP: u64 = 192 << 10;

/// How long freezing may take; the kernel needs milliseconds unless a process is stuck in it.
const FREEZING: Duration = Duration::from_secs(10);

/// Who made a cgroup and takes it away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// Directories made by us.
    Cgroupfs,
    /// A unit of systemd.
    Systemd(Recorded),
}

/// Where a container's cgroup is and which of its directories this container made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Location {
    driver: Driver,
    mount: String,
    path: String,
    made: usize,
    /// The mark by which the cgroup is known to be the container's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<String>,
}

/// The form on disk, before it is checked.
#[derive(Deserialize)]
struct Stored {
    driver: Driver,
    mount: String,
    path: String,
    made: usize,
    #[serde(default)]
    owner: Option<String>,
}

impl TryFrom<Stored> for Location {
    type Error = String;

    fn try_from(stored: Stored) -> std::result::Result<Location, String> {
        let Stored { driver, mount, path, made, owner } = stored;
        let depth = path.split('/').count();
        if path.is_empty() || super::clean(&path) != path || !mount.starts_with('/') || made > depth {
            return Err(format!("{mount}/{path} is not the place of a cgroup"));
        }
        Ok(Location { driver, mount, path, made, owner })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "/{}", self.path)
    }
}

impl Location {
    /// A cgroup below the mount, whose last `made` components are not there yet. The path is a cleaned one.
    pub(super) fn new(mount: Mount, path: String, made: usize) -> Location {
        Location { driver: Driver::Cgroupfs, mount: mount.path().to_owned(), path, made, owner: None }
    }

    /// The cgroup of a unit that systemd is to make.
    pub(super) fn of_unit(mount: Mount, path: String, unit: Recorded) -> Location {
        Location { driver: Driver::Systemd(unit), mount: mount.path().to_owned(), path, made: 1, owner: None }
    }

    /// The same one where a process of it really is.
    pub(super) fn of_process(&self, pid: Pid) -> Result<Location> {
        let text = files::read(&format!("/proc/{pid}/cgroup"))
            .with_context(|| format!("look up the cgroup of process {pid}"))?;
        let Some(path) = super::own_of(&text) else { bail!("process {pid} is in no cgroup of version 2") };
        Ok(Location { path: super::clean(path), ..self.clone() })
    }

    /// The unit of systemd that it belongs to.
    pub fn unit(&self) -> Option<&Recorded> {
        match &self.driver {
            Driver::Systemd(unit) => Some(unit),
            Driver::Cgroupfs => None,
        }
    }

    /// A cgroup below another, by a cleaned path.
    pub(super) fn new_below(above: &Location, path: &str) -> Location {
        Location { path: format!("{}/{path}", above.path), made: 0, ..above.clone() }
    }

    /// Where cgroup v2 is mounted.
    pub fn mount(&self) -> &str {
        &self.mount
    }

    /// The path below the mount, with a leading slash, as `/proc/PID/cgroup` has it.
    #[cfg(test)]
    pub fn path(&self) -> String {
        self.to_string()
    }

    /// The absolute path of the directory.
    pub fn directory(&self) -> String {
        format!("{}/{}", self.mount, self.path)
    }

    /// How many of its directories the container made, from the leaf up.
    pub fn made(&self) -> usize {
        self.made
    }

    pub(super) fn set_made(&mut self, made: usize) {
        self.made = made;
    }

    /// The directories above it from the mount's root down.
    pub(super) fn ancestors(&self) -> impl Iterator<Item = String> {
        let slashes = self.path.match_indices('/').map(|(at, _)| format!("{}/{}", self.mount, &self.path[..at]));
        std::iter::once(self.mount.clone()).chain(slashes)
    }

    /// Itself and the directories above it, from the leaf up, without the mount's root.
    pub(super) fn upwards(&self) -> impl Iterator<Item = String> {
        let slashes = self.path.rmatch_indices('/').map(|(at, _)| format!("{}/{}", self.mount, &self.path[..at]));
        std::iter::once(self.directory()).chain(slashes)
    }

    /// Whether a process of the runtime's own cgroup may be born here: the two need an ancestor in common whose
    /// `cgroup.procs` we may write (cgroups(7), "Cgroups delegation: delegation containment").
    pub(super) fn check_reach(&self) -> Result<()> {
        let own = std::fs::read_to_string("/proc/self/cgroup").context("look up the runtime's own cgroup")?;
        let own = super::own_of(&own).map(super::clean).unwrap_or_default();
        let same = self.path.split('/').zip(own.split('/')).take_while(|(ours, own)| ours == own);
        let common: String = same.map(|(part, _)| format!("/{part}")).collect();
        let file = format!("{}{common}/cgroup.procs", self.mount);
        access(file.as_str(), AccessFlags::W_OK)
            .with_context(|| format!("go from cgroup /{own} to cgroup {self} by way of {file}"))
    }

    pub(super) fn file(&self, name: &str) -> String {
        format!("{}/{}/{name}", self.mount, self.path)
    }

    /// Opens the directory, for `CLONE_INTO_CGROUP` and the like.
    pub fn open(&self) -> Result<OwnedFd> {
        self.open_quietly().with_context(|| format!("open cgroup {self}"))
    }

    pub(super) fn open_quietly(&self) -> std::result::Result<OwnedFd, Errno> {
        let path = CString::new(self.directory()).map_err(|_| Errno::EINVAL)?;
        files::open_dir(AT_FDCWD, &path)
    }

    fn is_gone(&self) -> bool {
        matches!(self.open_quietly(), Err(Errno::ENOENT))
    }

    /// Opens it for another process beside `init`. Where somebody has moved that and taken the cgroup away, its new one.
    pub fn open_for(&self, init: Pid) -> Result<OwnedFd> {
        match self.open_quietly() {
            Err(Errno::ENOENT) => self.open_that_of(init),
            dir => dir.with_context(|| format!("open cgroup {self}")),
        }
    }

    /// Opens the cgroup in which a process of the container is now: it may have moved itself below its own (which
    /// then may take no processes: `exec` gets EBUSY there).
    pub fn open_that_of(&self, pid: Pid) -> Result<OwnedFd> {
        self.of_process(pid)?.open()
    }

    /// Has systemd move a process to where `init` is now, or to a cgroup below that is there.
    pub fn attach(&self, process: Pid, init: Pid, below: Option<&Path>) -> Result<()> {
        let Some(unit) = self.unit() else { bail!("cgroup {self} is none of systemd's") };
        let place = match below {
            Some(below) => below.to_string_lossy().into_owned(),
            None => self.of_process(init)?.path.strip_prefix(self.path.as_str()).unwrap_or_default().to_owned(),
        };
        unit.attach(process, &format!("/{}", place.trim_matches('/')))
    }

    /// Opens a cgroup below it, which has to be there. Never one beside or above it, however it is spelt.
    pub fn open_below(&self, path: &Path) -> Result<OwnedFd> {
        let what = || format!("open cgroup {} below cgroup {self}", path.display());
        let upwards = path.components().any(|part| part == Component::ParentDir);
        ensure!(!upwards, "bad sub cgroup path: {} is not a sub cgroup path of the container's", path.display());
        let below = path.strip_prefix("/").unwrap_or(path);
        if below.as_os_str().is_empty() {
            return self.open();
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        openat2(self.open()?, below, how).with_context(what)
    }

    /// Whether it is frozen, by itself or through an ancestor. A cgroup that is gone is not.
    pub fn is_frozen(&self) -> Result<bool> {
        self.event("frozen")
    }

    /// Waits until no live process is in it or below it; `false` when that didn't happen in time.
    pub fn is_empty_within(&self, patience: Duration) -> Result<bool> {
        let wait = || Events::open(&self.file("cgroup.events"))?.wait("populated", "0", Instant::now() + patience);
        match wait() {
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(true),
            done => done.with_context(|| format!("read cgroup.events of cgroup {self}")),
        }
    }

    /// Whether a live process is in it or below it. A cgroup that is gone has none.
    pub fn is_populated(&self) -> Result<bool> {
        self.event("populated")
    }

    fn event(&self, key: &str) -> Result<bool> {
        match files::read(&self.file("cgroup.events")) {
            Ok(text) => Ok(files::value_of(&text, key) == Some("1")),
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(false),
            Err(errno) => Err(errno).with_context(|| format!("read cgroup.events of cgroup {self}")),
        }
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
        self.upwards()
            .skip(1)
            .find(|above| files::read(&format!("{above}/cgroup.freeze")).is_ok_and(|t| t.trim() == "1"))
    }

    /// Lets it run again, and waits until it does. A frozen ancestor is an error: thawing below it changes nothing.
    pub fn thaw(&self) -> Result<()> {
        self.set_frozen_within(false, FREEZING)
    }

    pub(super) fn set_frozen_within(&self, frozen: bool, patience: Duration) -> Result<()> {
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

    /// How many of its processes the kernel has killed for want of memory; `None` without the memory controller.
    pub fn oom_kills(&self) -> Option<u64> {
        let text = files::read(&self.file("memory.events")).ok()?;
        files::value_of(&text, "oom_kill")?.parse().ok()
    }

    /// What to say of a limit on memory below what setting a container up takes.
    pub(super) fn too_little(bytes: u64) -> Option<String> {
        let sentence = || format!("{bytes} bytes are less than the about {SET_UP} that setting the container up takes");
        (bytes < SET_UP).then(sentence)
    }

    /// The sentence for a container that died while it was set up, if the kernel has killed it for want of memory.
    ///
    /// systemd takes a scope away as soon as nobody lives in it, and with it goes what the kernel has counted. Then it
    /// was want of memory if the process was `killed` below a limit that does not let it be set up. `asked` is the
    /// container's own limit in bytes.
    pub fn out_of_memory(&self, asked: Option<u64>, killed: bool) -> Option<Error> {
        let lacked = match self.oom_kills() {
            Some(kills) => kills > 0,
            None => killed && asked.and_then(Location::too_little).is_some() && self.is_gone(),
        };
        if !lacked {
            return None;
        }
        // Callers search for the words before the colon.
        let killed = "container init was OOM-killed (memory limit too low?)";
        // The limit may be that of a cgroup above.
        let limit = |place: &str| files::read(&format!("{place}/memory.max")).ok()?.trim().parse::<u64>().ok();
        let least = self.upwards().filter_map(|place| limit(&place)).chain(asked).min();
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

    /// Removes it, all below it, and those directories above it that this container made and nobody else uses.
    ///
    /// Processes that are about to end are waited for, at most for `patience`; then the error lists those that are
    /// left. Kills nobody. A cgroup that is gone is fine. One system call where nothing is below.
    pub fn remove(&self, patience: Duration) -> Result<()> {
        if let Some(unit) = self.unit() {
            self.end_unit(unit, patience)?;
        }
        self.remove_leaf(patience)?;
        // A parent that another container has moved into stays, without complaint.
        for ancestor in self.upwards().take(self.made).skip(1) {
            if !matches!(files::rmdir(AT_FDCWD, ancestor.as_str()), Ok(true)) {
                break;
            }
        }
        Ok(())
    }

    /// Has systemd take its unit away once no process is in it. Where systemd was first, there is nothing to say: it
    /// forgets a unit before it listens to anybody who could ask for another one of that name.
    fn end_unit(&self, unit: &Recorded, patience: Duration) -> Result<()> {
        let events = match Events::open(&self.file("cgroup.events")) {
            Err(Errno::ENOENT) => return Ok(()),
            events => events.with_context(|| format!("open cgroup.events of cgroup {self}"))?,
        };
        match events.wait("populated", "0", Instant::now() + patience) {
            Ok(true) | Err(Errno::ENODEV) => unit.stop(),
            Ok(false) => Ok(()),
            Err(errno) => Err(errno).with_context(|| format!("read cgroup.events of cgroup {self}")),
        }
    }

    fn remove_leaf(&self, patience: Duration) -> Result<()> {
        let directory = self.directory();
        let gone = || files::rmdir(AT_FDCWD, directory.as_str()).with_context(|| format!("remove cgroup {self}"));
        if gone()? {
            return Ok(());
        }
        let deadline = Instant::now() + patience;
        loop {
            // Opened before the attempt, so that a change during it is not missed.
            let events = match Events::open(&self.file("cgroup.events")) {
                Err(Errno::ENOENT) => return Ok(()),
                events => events.with_context(|| format!("open cgroup.events of cgroup {self}"))?,
            };
            let _ = events.is("populated", "0");
            self.remove_below()?;
            if gone()? {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            // Below the top a change of "populated" may not reach it: look again soon anyhow.
            events.changed(left.min(Duration::from_millis(50)));
        }
        let pids = self.pids()?;
        let names: Vec<String> = pids.iter().take(10).map(Pid::to_string).collect();
        let more = if pids.len() > names.len() { " and more" } else { "" };
        if names.is_empty() {
            bail!("remove cgroup {self}: the kernel still holds it");
        }
        bail!("remove cgroup {self}: {} process(es) still in it: {}{more}", pids.len(), names.join(", "));
    }

    /// One attempt at every directory below it, deepest first.
    fn remove_below(&self) -> Result<()> {
        let top = match self.open_quietly() {
            Err(Errno::ENOENT) => return Ok(()),
            top => top.with_context(|| format!("open cgroup {self}"))?,
        };
        match files::walk(top, |_| Ok(()), |parent, name| files::rmdir(parent.as_fd(), name).map(drop)) {
            // The tree changed under our feet: the next attempt sees it as it is then.
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(()),
            done => done.with_context(|| format!("remove the cgroups below {self}")),
        }
    }
}

/// Whether cgroups can be made in a directory.
pub(super) fn writable(directory: &str) -> Result<()> {
    access(directory, AccessFlags::W_OK).with_context(|| format!("write to {directory}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(text: &str) -> serde_json::Result<Location> {
        serde_json::from_str(text)
    }

    #[test]
    fn a_location_survives_the_record() {
        let text = r#"{"driver":"cgroupfs","mount":"/sys/fs/cgroup","path":"a/b","made":1}"#;
        let location = location(text).unwrap();
        assert_eq!(serde_json::to_string(&location).unwrap(), text);
        assert_eq!((location.directory().as_str(), location.path().as_str()), ("/sys/fs/cgroup/a/b", "/a/b"));
        assert_eq!(location.ancestors().collect::<Vec<_>>(), ["/sys/fs/cgroup", "/sys/fs/cgroup/a"]);
        assert_eq!(location.upwards().collect::<Vec<_>>(), ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a"]);
    }

    #[test]
    fn a_mark_survives_the_record() {
        let text = r#"{"driver":"cgroupfs","mount":"/sys/fs/cgroup","path":"a","made":1,"owner":"web 7"}"#;
        let location = location(text).unwrap();
        assert_eq!(location.owner.as_deref(), Some("web 7"));
        assert_eq!(serde_json::to_string(&location).unwrap(), text);
    }

    #[test]
    fn a_record_cannot_point_outside_the_mount() {
        for path in ["", "..", "../etc", "a/../../etc", "/etc", "a//b", "a/"] {
            let text = format!(r#"{{"driver":"cgroupfs","mount":"/sys/fs/cgroup","path":"{path}","made":0}}"#);
            assert!(location(&text).is_err(), "{path}");
        }
        assert!(location(r#"{"driver":"cgroupfs","mount":"/sys/fs/cgroup","path":"a","made":2}"#).is_err());
    }

    #[test]
    fn a_kill_below_a_hopeless_limit_is_told_as_want_of_memory_also_when_the_cgroup_is_gone() {
        let gone = location(r#"{"driver":"cgroupfs","mount":"/no/such","path":"a/b","made":1}"#).unwrap();
        let text = gone.out_of_memory(Some(64 << 10), true).unwrap().to_string();
        assert!(text.contains("OOM-killed (memory limit too low?): its memory.max is 65536 bytes"), "{text}");
        for (asked, killed) in [(Some(64 << 10), false), (Some(SET_UP), true), (None, true)] {
            assert!(gone.out_of_memory(asked, killed).is_none(), "{asked:?} {killed}");
        }
        let without_controller = location(r#"{"driver":"cgroupfs","mount":"/","path":"tmp","made":0}"#).unwrap();
        assert!(without_controller.out_of_memory(Some(64 << 10), true).is_none());
    }
}
