//! Writing limits into the files of a cgroup, new or in use.

use std::borrow::Cow;
use std::os::fd::BorrowedFd;

use super::limits::{Absent, Limits, Write};
use super::location::Location;
use super::{controllers, files, range};
use crate::error::{Error, Result};
use crate::sys::Errno;

/// That no cgroup has this file.
pub(super) fn unknown(file: &str, place: &Location) -> Error {
    // In crun's words.
    let controller = file.split('.').next().unwrap_or_default();
    let error = Error::from(Errno::ENOENT)
        .context(format!("the requested cgroup controller `{controller}` is not available"))
        .context(format!("cgroup {place} has no {file}"));
    error.hint("no controller of that name is known; is it spelt right?")
}

/// That the kernel does not take a value.
pub(super) fn refused(file: &str, value: &str, place: &Location, errno: Errno) -> Error {
    Error::from(errno).context(format!("write {value:?} to {file} of cgroup {place}"))
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
            self.explain(write, outcome)?;
        }
        later.into_iter().try_for_each(|write| self.explain(write, self.write(write, &mut before)))
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
    fn explain(&self, write: &Write, outcome: Result<(), Errno>) -> Result<()> {
        let Err(errno) = outcome else { return Ok(()) };
        let place = self.place;
        let (file, value) = write.effective(|file| files::read_at(self.dir, file).is_ok());
        let error = match (errno, write.controller()) {
            (Errno::ENOENT, Some(controller)) => controllers::missing(file, controller, place),
            (Errno::ENOENT, None) => unknown(file, place),
            (errno, _) => {
                let error = refused(file, value, place, errno);
                match self.reason(file, value, errno) {
                    Some(hint) => error.hint(hint),
                    None => error,
                }
            }
        };
        Err(error.field(write.field()))
    }

    /// Why the kernel refuses a value, which may be a sound one elsewhere.
    fn reason(&self, file: &str, value: &str, errno: Errno) -> Option<Cow<'static, str>> {
        let is = |name: &str, value: &str| files::read_at(self.dir, name).is_ok_and(|text| text.trim() == value);
        if !matches!(errno, Errno::EINVAL | Errno::ERANGE | Errno::ENODEV) {
            return None;
        }
        match (range::refuses(file, value, self.place), file) {
            (Some(refusal), _) => Some(refusal.hint.into()),
            (None, "cpu.weight") if is("cpu.idle", "1") => {
                Some("an idle cgroup has no weight; set cpu.idle to 0".into())
            }
            (None, "cpu.max.burst" | "cpu.max") if errno == Errno::EINVAL => Some(range::BURST.into()),
            _ => None,
        }
    }
}
