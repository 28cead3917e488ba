//! `delete`: undoes `create`, in every state of the container.

use std::fs::File;
use std::os::fd::AsFd;
use std::time::Duration;

use crate::cgroup::{Handle, Location};
use crate::error::{Context, Error, Result, bail};
use crate::hooks::{HookContext, Stage};
use crate::sys;

use super::claim::Claim;
use super::create::remove_overlay_workdir;
use super::record::Record;
use super::salvage::Remains;
use super::store::{Directory, Store};
use super::{Container, Status, id::Id, state};

/// How long a killed init may take to exit.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the child of a killed `create` may take to exit by its parent death signal.
const DYING: Duration = Duration::from_secs(1);

/// Deletes a container. Without `force` it has to be stopped or created; engines rely on the latter. With `force` a missing
/// container is no error, and of one with a broken record everything that is found is removed.
pub fn delete(store: &Store, id: &str, force: bool) -> Result<()> {
    let id = Id::new(id)?;
    let directory = store.directory(&id);
    let record = match directory.read() {
        Ok(Some(record)) => record,
        Ok(None) => match directory.lock()? {
            None if force => return Ok(()),
            None => return Err(store.does_not_exist(id.as_str())),
            // Its `create` may just have come to its end.
            Some((lock, _)) => match directory.read()? {
                None => return delete_unrecorded(store, directory, &id, force, lock),
                Some(record) => record,
            },
        },
        Err(error) if force => {
            log::warn!("{error}");
            return destroy(Remains::find(directory, &id)?.reduce()?);
        }
        Err(error) => return Err(error),
    };
    let container = Container { directory, record };
    match container.status()? {
        Status::Stopped => {}
        Status::Created | Status::Creating | Status::Running | Status::Paused if force => {}
        Status::Created => {}
        other => {
            return Err(Error::new(format!("cannot delete container {id} that is not stopped: {}", other.word()))
                .hint("stop it first, or delete with --force"));
        }
    }
    destroy(container)
}

/// Deletes a container without a record: mostly just the directory of a `create` that was killed before it wrote one. The
/// lock keeps away a `create` that has only made the directory yet.
fn delete_unrecorded(store: &Store, directory: Directory, id: &Id, force: bool, _lock: File) -> Result<()> {
    let remains = Remains::find(directory, id)?;
    let nothing = remains.are_none()?;
    if !nothing && !force {
        return Err(Error::new("its record is lost, but parts of it remain")
            .hint("use `delete --force`: it kills the container and removes what is left of it"));
    }
    destroy(remains.reduce()?)?;
    if nothing && !force { Err(store.does_not_exist(id.as_str())) } else { Ok(()) }
}

/// Kills and removes a container. After a failure it removes the other parts, too, and returns the first error; the record
/// then stays for another `delete`.
pub fn destroy(container: Container) -> Result<()> {
    let Container { directory, record } = &container;
    let claim = record.cgroup.as_ref().map(|cgroup| Ok((cgroup, container.claim(cgroup)?)));
    let ended = end(&container);
    log::trace!("init ended");
    let cgroup = claim.map_or(Ok(()), |claim| claim.and_then(|(cgroup, claim)| remove_cgroup(cgroup, claim)));
    let resctrl = record.resctrl.as_ref().map_or(Ok(()), |group| group.remove());
    ended.and(cgroup).and(resctrl)?;
    log::trace!("cgroup removed");
    record.guest.as_ref().map_or(Ok(()), |guest| guest.take_off(&record.rootfs))?;
    remove_overlay_workdir(record);
    directory.remove()?;
    log::trace!("state removed");
    run_poststop(record);
    Ok(())
}

/// Destroys a container because of an error, and returns that error. If it fails, the record stays for another `delete`.
pub fn destroy_for(container: Container, error: Error) -> Error {
    if let Err(other) = destroy(container) {
        log::warn!("{other}");
    }
    error
}

/// Runs the poststop hooks of a removed container.
pub(super) fn run_poststop(record: &Record) {
    if record.poststop.is_empty() {
        return;
    }
    let state = state::for_hooks(record, Status::Stopped.word(), None);
    let hook_context = HookContext { state: &state, directory: Some(&record.bundle), ..HookContext::default() };
    record.poststop.run_all(Stage::Poststop, &hook_context);
    log::trace!("poststop hooks run");
}

/// Kills init and waits for its exit.
fn end(container: &Container) -> Result<()> {
    let Some((_, pidfd)) = container.living_init()? else { return Ok(()) };
    match sys::pid::signal(pidfd.as_fd(), libc::SIGKILL) {
        Ok(()) | Err(sys::Errno::ESRCH) => {}
        Err(errno) => return Err(errno).context("unable to signal init"),
    }
    if !sys::pid::ended_within(pidfd.as_fd(), PATIENCE.as_millis() as u16).context("wait for init")? {
        bail!("container init still running");
    }
    Ok(())
}

/// Removes the cgroup and kills the processes that are left in it: of a shared pid namespace, or moved there by others. A
/// cgroup that belongs to another container by now is not touched.
fn remove_cgroup(location: &Location, claim: Claim) -> Result<()> {
    let cgroup = Handle::of(location);
    let own = match claim {
        Claim::Own => true,
        Claim::Empty => cgroup.is_empty_within(DYING)?,
        Claim::None => false,
    };
    if !own {
        log::warn!("cgroup {cgroup} is not removed: it may belong to another container");
        return Ok(());
    }
    // Mostly one rmdir(2); only EBUSY means that processes have to be killed.
    let removed = cgroup.remove(Duration::ZERO);
    if removed.is_ok() || claim != Claim::Own {
        return removed;
    }
    cgroup.kill_all()?;
    cgroup.remove(PATIENCE)
}
