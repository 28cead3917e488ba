//! A cgroup that is not made: what making it, its limits and its device rules would say.

use std::path::Path;
use std::time::Duration;

use nix::unistd::{AccessFlags, access, geteuid};

use super::controllers::{self, Controller};
use super::handle::memory;
use super::limits::{Absent, Write};
use super::{Location, Mount, Request, apply, cgroupfs, files, range};
use crate::error::{Context, Error, Result};
use crate::sys::Errno;

/// Parts of a cgroup's tree that are asked for a file before nothing more can be said of it.
const SAMPLES: usize = 64;

/// After how long a missing file is looked for once more; a cgroup is removed within a few milliseconds.
const AGAIN: Duration = Duration::from_millis(20);

impl Request {
    /// Says all that would stand in the way; changes nothing.
    pub fn preflight(&self, tell: &mut dyn FnMut(Error)) {
        let outcome = Mount::find().and_then(|mount| self.place(mount)).and_then(|place| {
            if self.unit.is_none() {
                look_at_place(&place)?;
            }
            Ok(place)
        });
        let place = match outcome {
            Ok(place) => place,
            Err(error) => return self.allow_none(error).unwrap_or_else(&mut *tell),
        };
        let writes = self.limits.writes();
        for (index, write) in writes.iter().enumerate() {
            match look_at_write(write, &writes[..index], &place) {
                Ok(()) => warn_of_memory(write),
                Err(error) => tell(error),
            }
        }
        if let Some(program) = &self.devices {
            program.try_to_load().unwrap_or_else(&mut *tell);
        }
    }
}

/// Of a limit that does not even let the container be set up.
fn warn_of_memory(write: &Write) {
    let bytes = write.value.parse().ok().filter(|_| write.file == "memory.max");
    if let Some(sentence) = bytes.and_then(memory::too_little) {
        crate::log::warn(Error::new(sentence).field(write.field()));
    }
}

/// Whether its directories can be made.
fn look_at_place(place: &Location) -> Result<()> {
    if place.made() > 0 {
        let above = place.upwards().skip(1).chain([place.mount().to_owned()]).find(|above| Path::new(above).exists());
        let above = above.unwrap_or_else(|| place.mount().to_owned());
        access(above.as_str(), AccessFlags::W_OK).with_context(|| format!("make cgroup {place}"))?;
    }
    if geteuid().is_root() { Ok(()) } else { cgroupfs::check_delegation(place) }
}

/// Whether there will be a file for a limit, and whether the kernel takes the value. `earlier` are written before.
fn look_at_write(write: &Write, earlier: &[Write], place: &Location) -> Result<()> {
    if write.absent == Absent::Ignore {
        return Ok(());
    }
    let controller = write.controller();
    let sample = controller.and_then(|controller| sample(controller, place));
    let (file, value) = write.effective(|file| sample.as_ref().is_some_and(|sample| has(sample, file)));
    let missing = match controller {
        Some(controller) => unavailable(file, controller, place, sample.as_ref()),
        // The files of every cgroup.
        None if file.starts_with("cgroup.") => None,
        None => Some(apply::unknown(file, place)),
    };
    let refusal = || range::refuses(file, value, place).or_else(|| range::refuses_beside(file, value, earlier));
    let error = match missing {
        Some(_) if write.absent == Absent::IfPossible => None,
        Some(error) => Some(error),
        None => refusal().map(|refusal| apply::refused(file, value, place, refusal.errno).hint(refusal.hint)),
    };
    error.map_or(Ok(()), |error| Err(error.field(write.field())))
}

fn has(place: &Location, file: &str) -> bool {
    Path::new(&place.file(file)).exists()
}

fn unavailable(file: &str, controller: Controller, place: &Location, sample: Option<&Location>) -> Option<Error> {
    controllers::not_had(file, controller, place)
        .or_else(|| controllers::not_on(file, controller, place, |switch| may_switch(switch, controller).err()))
        .or_else(|| {
            let lacks = |sample: &Location| !has(sample, file);
            sample.filter(|sample| lacks(sample))?;
            // It may be about to be removed, and its files with it.
            std::thread::sleep(AGAIN);
            let sample = self::sample(controller, place).filter(lacks)?;
            Some(controllers::lacking(file, controller, place, &sample))
        })
}

/// What switching a controller on would say (cgroups(7), "Cgroups v2 cgroup.subtree_control", "no internal processes").
fn may_switch(switch: &str, controller: Controller) -> Result<(), Errno> {
    let Some((directory, _)) = switch.rsplit_once('/') else { return Ok(()) };
    let read = |name: &str| files::read(&format!("{directory}/{name}")).unwrap_or_default();
    if !Path::new(directory).exists() {
        // It will be made, and nobody is in it.
        return Ok(());
    }
    access(switch, AccessFlags::W_OK)?;
    let kind = read("cgroup.type");
    // The root of the hierarchy has no type, and may have processes.
    if !controller.is_only_for_domains() || kind.is_empty() {
        return Ok(());
    }
    if kind.trim() != "domain" {
        return Err(Errno::EOPNOTSUPP);
    }
    if read("cgroup.procs").trim().is_empty() { Ok(()) } else { Err(Errno::EBUSY) }
}

/// A cgroup that has a controller, in whose files it can be seen what that one can do: the container's, or one near it.
fn sample(controller: Controller, place: &Location) -> Option<Location> {
    // It is listed before its files are there, which all appear at once.
    let has = |directory: &str| {
        controllers::lists(&format!("{directory}/cgroup.controllers"), controller) && has_files(directory, controller)
    };
    let mount = place.mount();
    let mut near = place.upwards().chain([mount.to_owned()]).flat_map(|above| {
        let below = std::fs::read_dir(&above).into_iter().flatten().flatten();
        let directories = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).take(SAMPLES);
        directories.filter_map(|entry| Some(entry.path().to_str()?.to_owned())).collect::<Vec<_>>()
    });
    let found = place.upwards().find(|directory| has(directory)).or_else(|| near.find(|directory| has(directory)))?;
    let path = found.strip_prefix(mount)?.trim_start_matches('/');
    Some(Location::new(Mount::find().ok()?, path.to_owned(), 0))
}

/// Whether a cgroup has files that come with a controller. All cgroups have some that look like these.
fn has_files(directory: &str, controller: Controller) -> bool {
    let comes_with = |name: &str| {
        Controller::of(name) == Some(controller) && !name.starts_with("cpu.stat") && !name.ends_with(".pressure")
    };
    let mut entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.any(|entry| entry.file_name().to_str().is_some_and(comes_with))
}
