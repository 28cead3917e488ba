//! The attributes and the propagation of a mount.

use std::os::fd::OwnedFd;

use super::Mount;
use crate::error::{Context, Result};
use crate::rootfs::options::Attributes;
use crate::sys::Errno;
use crate::sys::mount::{Change, attr, change};

impl Mount {
    /// Attributes and propagation of a detached tree, in as few calls as they fit in.
    pub(super) fn dress(&self, tree: &OwnedFd, recursive: bool) -> Result<()> {
        let mut steps: Vec<(bool, Change)> = Vec::with_capacity(2);
        let changes = |attributes: Attributes, replaced: attr| {
            let clear = attributes.clear | replaced;
            Change { set: attributes.set, clear, propagation: None }
        };
        if recursive {
            steps.extend([(true, changes(self.all, attr::empty())), (false, changes(self.own, self.replaced))]);
        } else {
            steps.push((false, changes(self.all.then(self.own), self.replaced)));
        }
        for &(kind, all) in &self.spread {
            let free = steps.iter_mut().find(|(deep, step)| *deep == (all && recursive) && step.propagation.is_none());
            match free {
                Some((_, step)) => step.propagation = Some(kind),
                None => steps.push((all && recursive, Change::spread(kind))),
            }
        }
        for (deep, step) in steps {
            if !step.is_empty() {
                self.change(tree, deep, step).context("set its attributes")?;
            }
        }
        Ok(())
    }

    /// Flags that a more privileged mount namespace has locked stay, unless a word says to take them away.
    fn change(&self, tree: &OwnedFd, deep: bool, step: Change) -> crate::sys::Result<()> {
        match change(tree, deep, step) {
            Err(Errno::EPERM) if step.clear.intersects(self.replaced) => {
                change(tree, deep, Change { clear: step.clear & !self.replaced, ..step })
            }
            done => done,
        }
    }
}
