//! What would be wrong with the file system, with nothing made and nothing mounted.

use std::os::fd::AsFd;

use super::path::Root;
use super::plan::{Above, Rootfs};
use super::request::{Isolation, OpenIn};
use super::view::{Tree, View, What};
use crate::error::Error;

impl Rootfs {
    /// Looks at all that can be seen of the root and the mounts without making anything; every fault is told. `None` where
    /// there is no root. `opened` is that of [`Rootfs::open`].
    pub fn preflight(&self, opened: OpenIn, tell: &mut dyn FnMut(Error)) -> Option<View> {
        let root = self.open_root().map_err(&mut *tell).ok()?;
        if opened == OpenIn::Child {
            self.refuse_mapped().unwrap_or_else(&mut *tell);
        }
        if let Above::Image(cover) = &self.above {
            cover.preflight(root.as_fd()).unwrap_or_else(&mut *tell);
        }
        let base = match &self.above {
            // There its path may lead elsewhere.
            _ if self.isolation == Isolation::Joined => What::Unknown,
            Above::Mount(mount) => {
                mount.describe(mount.look_at_layers()).unwrap_or_else(&mut *tell);
                What::Unknown
            }
            above => match root.try_clone() {
                Ok(fd) => What::Tree(match above {
                    Above::Nothing => Tree::new(fd),
                    // What is to be made goes into the upper layer.
                    _ => Tree { read_only: false, ..Tree::new(fd) },
                }),
                Err(_) => What::Unknown,
            },
        };
        let mut view = View::new(Root::new(root), base);
        for mount in &self.mounts {
            let (outcome, what) = mount.preflight(&view);
            outcome.unwrap_or_else(&mut *tell);
            view.add(mount.target().clone(), what);
        }
        for outcome in self.devices.iter().flat_map(|devices| devices.preflight(opened == OpenIn::Host)) {
            outcome.unwrap_or_else(&mut *tell);
        }
        Some(view)
    }
}
