//! Making a container's cgroup, and undoing it.

use std::cell::{Cell, OnceCell};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use nix::unistd::{Pid, geteuid};

use super::apply::Files;
use super::controllers::Set;
use super::handle::Handle;
use super::location::Location;
use super::mount::Mount;
use super::owner::{self, Holder};
use super::request::Request;
use super::{cgroupfs, controllers, devices, files, own, systemd};
use crate::error::{Context, Error, Result};
use crate::host;
use crate::sys::Errno;

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
            None => cgroupfs::place(self.path.resolve(own::read_own)?, mount)?,
        };
        location.owner = Some(owner::new(&self.id));
        Ok(location)
    }

    /// What becomes of a cgroup that could not be made: an unprivileged runtime to which none was delegated goes on without
    /// one, and says so, unless a limit is asked for or a place is named (runtime-spec, config-linux.md, "Cgroups Path":
    /// "the runtime MUST consistently attach to the same place").
    pub fn allow_none(&self, error: Error) -> Result<()> {
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
        undo.0.as_mut().map_or(Ok(()), cgroupfs::make)?;
        if !geteuid().is_root() {
            cgroupfs::check_delegation(undo.location())?;
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
        Ok(events) => cgroupfs::ensure_free(&events, &location).field(|| "/linux/cgroupsPath")?,
        Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno).with_context(|| format!("look at cgroup {location}")),
    }
    Ok(location)
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
    /// Its directory, for `CLONE_INTO_CGROUP`; `None` when it is only made around a process, by [`Cgroup::request_scope`].
    pub fn clone_target(&self) -> Option<BorrowedFd<'_>> {
        self.dir.get().map(AsFd::as_fd)
    }

    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.clone_target().unwrap_or_else(|| unreachable!("a cgroup is made before it is filled"))
    }

    /// Whether systemd makes it, and the container process is born elsewhere.
    pub fn is_unit(&self) -> bool {
        self.unit.is_some()
    }

    /// Where it is, with the directories that were really made.
    pub fn location(&self) -> &Location {
        self.unit.as_ref().and_then(|unit| unit.found.get()).unwrap_or_else(|| self.undo.location())
    }

    /// Asks systemd for the unit around the container process, where there is to be one. Doesn't wait:
    /// [`Cgroup::await_scope`] does.
    pub fn request_scope(&self, pid: Pid) -> Result<()> {
        let Some(unit) = &self.unit else { return Ok(()) };
        unit.job.set(Some(unit.plan.begin(self.location(), pid)?));
        // From here on there may be one.
        unit.asked.set(true);
        Ok(())
    }

    /// Waits until the process is in the unit, and looks where that is.
    pub fn await_scope(&self, pid: Pid) -> Result<()> {
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
            own::of_process(self.location(), pid)?
        };
        let dir = Handle::of(&location).open()?;
        location.mark(dir.as_fd())?;
        // Both are empty: a scope is awaited once.
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
                planned.unit().map_or(Ok(()), systemd::stop)?;
            }
            self.undo.0 = found.or(planned);
        }
        let Some(location) = &self.undo.0 else { return Ok(()) };
        if Handle::of(location).holder()? == Holder::Other {
            self.undo.0 = None;
            return Ok(());
        }
        Handle::of(location).kill_all()?;
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
    /// instruction), which may as well be spent while the container process makes its mounts.
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

    /// What to do when `clone3` or an attach was refused because of this cgroup. `Ok`: it was made threaded, try once more.
    ///
    /// EOPNOTSUPP: it lies in a threaded sub-tree and must become threaded itself, which it can't when a limit needs whole
    /// processes (cgroups(7), "Threaded mode"). EBUSY: it has controllers on for its children.
    pub fn make_threaded(&self, request: &Request, refusal: Errno) -> Result<()> {
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
}

/// The directories made so far, removed when dropped.
struct Undo(Option<Location>);

impl Undo {
    fn location(&self) -> &Location {
        self.0.as_ref().unwrap_or_else(|| unreachable!("a kept cgroup has no guard"))
    }

    fn undo_once(&mut self) -> Result<()> {
        let made = self.0.take().filter(|location| location.made() > 0);
        made.map_or(Ok(()), |location| Handle::of(&location).remove(UNDOING))
    }

    /// Opens the directory and marks it as the container's.
    fn mark(&mut self) -> Result<OwnedFd> {
        let dir = Handle::of(self.location()).open()?;
        self.0.as_mut().map_or(Ok(()), |location| location.mark(dir.as_fd()))?;
        Ok(dir)
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Err(error) = self.undo_once() {
            log::warn!("{error}");
        }
    }
}
