//! Making a container's cgroup, and undoing it.

use std::cell::{Cell, OnceCell};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use crate::sys::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, Pid, Uid, access, fchownat, geteuid, mkdir};

use super::apply::Files;
use super::controllers::Set;
use super::{Holder, Location, Mount, Request, controllers, devices, files, owner, systemd};
use crate::error::{Context, Error, Result, bail, ensure};
use crate::host;

/// How long undoing waits for processes that were just killed.
const UNDOING: Duration = Duration::from_secs(2);

impl Request {
    /// Finds the place of the cgroup and checks that it is free; changes nothing, so that the result can be recorded
    /// before the first directory is made.
    ///
    /// A cgroup that is there is fine when no process is in it and it is not frozen. [`Request::create`] marks it as this
    /// container's, which from then on it is with all that is found in it.
    pub fn place(&self, mount: Mount) -> Result<Location> {
        let mut location = match &self.unit {
            Some(unit) => place_of_unit(unit, mount)?,
            None => self.place_of_directory(mount)?,
        };
        location.owner = Some(owner::new(&self.id));
        Ok(location)
    }

    fn place_of_directory(&self, mount: Mount) -> Result<Location> {
        let own = || fs::read_to_string("/proc/self/cgroup").context("look up the runtime's own cgroup");
        let path = self.path.resolve(own)?;
        let mut location = Location::new(mount, path, 0);
        match files::read(&location.file("cgroup.events")) {
            Ok(events) => ensure_free(&events, &location).field(|| "/linux/cgroupsPath")?,
            Err(Errno::ENOENT) => location.set_made(count_missing(&location)?),
            Err(errno) => return Err(errno).with_context(|| format!("look at cgroup {location}")),
        }
        Ok(location)
    }

    /// What becomes of a cgroup that could not be made: an unprivileged runtime to which none was delegated goes on without
    /// one, and says so, unless a limit is asked for or a place is named (runtime-spec, config-linux.md, "Cgroups Path":
    /// "the runtime MUST consistently attach to the same place").
    pub fn forgo(&self, error: Error) -> Result<()> {
        let denied =
            matches!(error.errno(), Some(Errno::EACCES | Errno::EPERM | Errno::EROFS)) || Mount::find().is_err();
        if !denied || !host::is_unprivileged() {
            return Err(error);
        }
        if self.named {
            return Err(error.field("/linux/cgroupsPath").hint(
                "name one below a cgroup that is delegated to this user (systemd's user session has one), or leave it \
                 out: without limits the container then stays in its caller's cgroup",
            ));
        }
        if let Some(write) = self.limits.first_needed() {
            return Err(error.field(write.field()).hint(
                "limits need a cgroup that is delegated to this user: run in a systemd user session or name one in \
                 linux.cgroupsPath, or leave linux.resources out",
            ));
        }
        log::warn!("the container has no cgroup of its own and stays in its caller's: {error}");
        Ok(())
    }

    /// Makes what is missing of the cgroup's directories. Until [`Cgroup::keep`] the result undoes that when dropped.
    pub fn create(&self, location: Location) -> Result<Cgroup> {
        let mut undo = Undo(Some(location));
        if let Some(plan) = &self.unit {
            let unit =
                Unit { plan: plan.clone(), job: Cell::default(), asked: Cell::default(), found: OnceCell::new() };
            return Ok(Cgroup { undo, dir: OnceCell::new(), unit: Some(unit) });
        }
        undo.make_directories()?;
        if !geteuid().is_root() {
            undo.location().check_reach()?;
        }
        let dir = undo.mark()?;
        let cgroup = Cgroup { undo, dir: OnceCell::from(dir), unit: None };
        // While nobody is in it: the kernel has nobody to move then.
        cgroup.offer_controllers();
        Ok(cgroup)
    }
}

/// The place of a unit; it is free as long as no process is there.
fn place_of_unit(unit: &systemd::Wanted, mount: Mount) -> Result<Location> {
    let location = unit.place(mount)?;
    match files::read(&location.file("cgroup.events")) {
        Ok(events) => ensure_free(&events, &location).field(|| "/linux/cgroupsPath")?,
        Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno).with_context(|| format!("look at cgroup {location}")),
    }
    Ok(location)
}

fn ensure_free(events: &str, location: &Location) -> Result<()> {
    if files::value_of(events, "populated") == Some("1") {
        // Callers know these two sentences by heart.
        let count = location.pids()?.len();
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

/// A container's cgroup during `create`. Dropped, it ends every process in it (what hooks have started; init is its
/// creator's child and dead by then) and removes what was made for it.
pub struct Cgroup {
    undo: Undo,
    dir: OnceCell<OwnedFd>,
    /// When systemd makes it.
    unit: Option<Unit>,
}

/// What systemd makes.
struct Unit {
    plan: Rc<systemd::Wanted>,
    /// What it has been asked for.
    job: Cell<Option<systemd::Job>>,
    /// Whether there is a unit of ours.
    asked: Cell<bool>,
    /// Where it has really been made.
    found: OnceCell<Location>,
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = self.undo_once() {
            log::warn!("{error}");
        }
    }
}

impl Cgroup {
    /// Its directory, for `CLONE_INTO_CGROUP`; `None` when it is only made around a process, by [`Cgroup::gather`].
    pub fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        self.dir.get().map(AsFd::as_fd)
    }

    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.birthplace().unwrap_or_else(|| unreachable!("a cgroup is made before it is filled"))
    }

    /// Whether systemd makes it, and the container's process is born elsewhere.
    pub fn is_unit(&self) -> bool {
        self.unit.is_some()
    }

    /// Where it is, with the directories that were really made.
    pub fn location(&self) -> &Location {
        self.unit.as_ref().and_then(|unit| unit.found.get()).unwrap_or_else(|| self.undo.location())
    }

    /// Asks systemd for the unit around the container's process, where there is to be one. Doesn't wait:
    /// [`Cgroup::gathered`] does.
    pub fn gather(&self, pid: Pid) -> Result<()> {
        let Some(unit) = &self.unit else { return Ok(()) };
        unit.job.set(Some(unit.plan.begin(self.location(), pid)?));
        // From here on there may be one.
        unit.asked.set(true);
        Ok(())
    }

    /// Waits until the process is in the unit, and looks where that is.
    pub fn gathered(&self, pid: Pid) -> Result<()> {
        let Some((unit, job)) = self.unit.as_ref().and_then(|unit| Some((unit, unit.job.take()?))) else {
            return Ok(());
        };
        job.finish().map_err(|(error, made)| {
            unit.asked.set(made);
            error
        })?;
        let mut location = if unit.plan.is_slice() {
            let location = self.location().clone();
            files::write(&location.file("cgroup.procs"), &pid.to_string())
                .with_context(|| format!("move process {pid} to cgroup {location}"))?;
            location
        } else {
            self.location().of_process(pid)?
        };
        let dir = location.open()?;
        location.mark(dir.as_fd())?;
        // Both are empty: a cgroup is gathered once.
        let _ = self.dir.set(dir);
        let _ = unit.found.set(location);
        Ok(())
    }

    /// Takes it away as dropping does, and tells what went wrong.
    pub fn undo(mut self) -> Result<()> {
        self.undo_once()
    }

    fn undo_once(&mut self) -> Result<()> {
        if let Some(unit) = self.unit.take() {
            let (planned, found) = (self.undo.0.take().filter(|_| unit.asked.get()), unit.found.into_inner());
            if let (Some(planned), None) = (&planned, &found) {
                // Whatever has become of it, nothing is known of it but the name.
                planned.unit().map_or(Ok(()), |unit| unit.stop())?;
            }
            self.undo.0 = found.or(planned);
        }
        let Some(location) = &self.undo.0 else { return Ok(()) };
        if location.holder()? == Holder::Other {
            self.undo.0 = None;
            return Ok(());
        }
        location.kill_all()?;
        self.undo.undo_once()
    }

    /// Leaves it in place; what is returned goes into the record.
    pub fn keep(mut self) -> Location {
        // Only `keep`, which consumes the guard, empties it.
        let planned = self.undo.0.take();
        self.unit
            .take()
            .and_then(|unit| unit.found.into_inner())
            .or(planned)
            .unwrap_or_else(|| unreachable!("kept twice"))
    }

    /// Writes the limits and attaches the device program.
    pub fn apply(&self, request: &Request) -> Result<()> {
        self.apply_limits(request)?;
        self.apply_devices(request)
    }

    /// Attaches the device program. Most of the time goes into the kernel's check of it (half a microsecond for each
    /// instruction), which may as well be spent while the container's process makes its mounts.
    pub fn apply_devices(&self, request: &Request) -> Result<()> {
        // A directory that was just made has no program; any other may have one, which ours takes the place of.
        match &request.devices {
            // systemd's own, if there is one, is not ours to replace.
            Some(program) if self.location().made() > 0 => program.attach(self.dir()),
            wanted if self.location().made() == 0 => devices::replace(self.dir(), wanted.as_ref()).map(drop),
            _ => Ok(()),
        }
    }

    /// Writes the limits.
    pub fn apply_limits(&self, request: &Request) -> Result<()> {
        Files { dir: self.dir(), place: self.location() }.apply(&request.limits, |_, _| {})
    }

    /// What to do when `clone3` or an attach was refused because of this cgroup. `Ok`: it was mended, try once more.
    ///
    /// EOPNOTSUPP: it lies in a threaded sub-tree and must become threaded itself, which it can't when a limit needs whole
    /// processes (cgroups(7), "Threaded mode"). EBUSY: it has controllers on for its children.
    pub fn mend(&self, request: &Request, refusal: Errno) -> Result<()> {
        let place = self.location();
        if refusal == Errno::EBUSY {
            return Err(Error::from(refusal)
                .context(format!("enter cgroup {place}, which has controllers on in its cgroup.subtree_control"))
                .field("/linux/cgroupsPath"));
        }
        let kind = files::read_at(self.dir(), "cgroup.type").with_context(|| format!("look at cgroup {place}"))?;
        if refusal != Errno::EOPNOTSUPP || kind.trim() != "domain invalid" {
            return Err(refusal).with_context(|| format!("enter cgroup {place} ({})", kind.trim()));
        }
        if let Some(controller) = request.controllers().only_for_domains().next() {
            return Err(Error::new(format!(
                "cgroup {place} lies below a threaded one, where the {} controller cannot limit",
                controller.name()
            ))
            .field("/linux/cgroupsPath"));
        }
        files::write_at(self.dir(), "cgroup.type", "threaded").with_context(|| format!("make cgroup {place} threaded"))
    }

    /// Has every controller of the host, as far as the cgroups above it allow. They count what engines show of a container
    /// also where nothing is limited (memory.current, pids.current, cpu.stat's throttling, memory.events), and a container
    /// that steers its cgroups has them to give away.
    pub fn offer_controllers(&self) {
        let all = Set::of_host(self.location());
        let here = files::read_at(self.dir(), "cgroup.controllers").unwrap_or_default();
        if !all.without(Set::named_in(&here)).is_empty() {
            controllers::offer(all, self.location());
        }
    }

    /// Makes a cgroup below this one, without limits of its own, and moves the container's first process there. The limits
    /// stay above it, where a cgroup namespace has its root, and the container has what it may do with the rest.
    pub fn step_in(&self, inner: &Inner, init: Pid, owner: Option<Uid>) -> Result<()> {
        let place = Location::new_below(self.location(), &inner.0);
        for directory in place.upwards().take(inner.0.split('/').count()).collect::<Vec<_>>().iter().rev() {
            match mkdir(directory.as_str(), Mode::from_bits_truncate(0o755)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno).with_context(|| format!("make cgroup {place}")),
            }
        }
        let dir = place.open()?;
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

/// The cgroup below the container's own that an annotation names for its processes; checked, so that it cannot lead out.
pub struct Inner(String);

impl Inner {
    /// Reads the annotation's value; an empty one asks for nothing.
    pub fn plan(name: &str) -> Result<Option<Inner>> {
        ensure!(
            !name.contains(['\n', '\0']) && !name.split('/').any(|part| part == ".."),
            "{name:?} is not the name of a cgroup below the container's"
        );
        let clean = super::clean(name);
        Ok((!clean.is_empty()).then_some(Inner(clean)))
    }
}

/// The directories made so far, removed when dropped.
struct Undo(Option<Location>);

impl Undo {
    fn location(&self) -> &Location {
        self.0.as_ref().unwrap_or_else(|| unreachable!("a kept cgroup has no guard"))
    }

    fn undo_once(&mut self) -> Result<()> {
        let made = self.0.take().filter(|location| location.made() > 0);
        made.map_or(Ok(()), |location| location.remove(UNDOING))
    }

    /// Opens the directory and marks it as the container's.
    fn mark(&mut self) -> Result<OwnedFd> {
        let dir = self.location().open()?;
        self.0.as_mut().map_or(Ok(()), |location| location.mark(dir.as_fd()))?;
        Ok(dir)
    }

    /// Makes the missing directories, outermost first. At every moment `made` reaches up to the highest one of ours.
    fn make_directories(&mut self) -> Result<()> {
        let Some(location) = &mut self.0 else { return Ok(()) };
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
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Err(error) = self.undo_once() {
            log::warn!("{error}");
        }
    }
}
