//! Writing limits into the files of a cgroup, new or in use.

use std::os::fd::BorrowedFd;

use super::limits::{Absent, Limits, Write};
use super::{Location, controllers, files};
use crate::error::{Error, Result};
use crate::sys::Errno;

/// That no cgroup has this file.
pub(super) fn unknown(file: &str, place: &Location) -> Error {
    Error::new(format!("cgroup {place} has no {file}")).hint("no controller of that name is known; is it spelt right?")
}

/// The files of one cgroup.
pub(super) struct Files<'a> {
    pub(super) dir: BorrowedFd<'a>,
    pub(super) place: &'a Location,
}

impl Files<'_> {
    /// Writes the limits, the first that is refused being the error. `before` learns the file and the value of every
    /// write that is about to be tried. Controllers are switched on in the ancestors only when a file is missing.
    pub(super) fn apply(&self, limits: &Limits, mut before: impl FnMut(&str, &str)) -> Result<()> {
        let mut switched_on = false;
        let mut later: Vec<&Write> = Vec::new();
        for write in limits.writes() {
            let mut outcome = self.write(write, &mut before);
            if outcome == Err(Errno::ENOENT) && write.controller().is_some() && !switched_on {
                controllers::switch_on(limits.controllers(), self.place);
                switched_on = true;
                outcome = self.write(write, &mut before);
            }
            if outcome == Err(Errno::ENOENT) && write.absent == Absent::IfPossible {
                continue;
            }
            if outcome == Err(Errno::EINVAL) && write.again {
                later.push(write);
                continue;
            }
            self.told(write, outcome)?;
        }
        later.into_iter().try_for_each(|write| self.told(write, self.write(write, &mut before)))
    }

    fn write(&self, write: &Write, before: &mut impl FnMut(&str, &str)) -> Result<(), Errno> {
        let mut one = |file: &str, value: &str| {
            before(file, value);
            files::write_at(self.dir, file, value)
        };
        match (one(&write.file, &write.value), &write.absent) {
            (Err(Errno::ENOENT), Absent::Ignore) => Ok(()),
            (Err(Errno::ENOENT), Absent::Instead(file, value)) => one(file, value),
            (outcome, _) => outcome,
        }
    }

    /// The outcome of a write as an error that names field, file and cgroup.
    fn told(&self, write: &Write, outcome: Result<(), Errno>) -> Result<()> {
        let place = self.place;
        let file = match &write.absent {
            Absent::Instead(file, _) => file,
            _ => &write.file,
        };
        let error = match (outcome, write.controller()) {
            (Ok(()), _) => return Ok(()),
            (Err(Errno::ENOENT), Some(controller)) => controllers::missing(file, controller, place),
            (Err(Errno::ENOENT), None) => unknown(&write.file, place),
            (Err(errno), _) => {
                let error = Error::from(errno);
                let error = error.context(format!("write {:?} to {} of cgroup {place}", write.value, write.file));
                match self.reason(&write.file, errno) {
                    Some(hint) => error.hint(hint),
                    None => error,
                }
            }
        };
        Err(error.field(write.field()))
    }

    /// Why the kernel refuses what is a sound value elsewhere.
    fn reason(&self, file: &str, errno: Errno) -> Option<&'static str> {
        let is = |name: &str, value: &str| files::read_at(self.dir, name).is_ok_and(|text| text.trim() == value);
        match (file, errno) {
            ("cpu.weight", Errno::EINVAL) if is("cpu.idle", "1") => {
                Some("an idle cgroup has no weight; set cpu.idle to 0")
            }
            ("cpu.max.burst" | "cpu.max", Errno::EINVAL) => Some("the burst must not exceed the quota"),
            _ => None,
        }
    }
}
