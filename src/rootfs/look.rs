//! What would be wrong with the file system, with nothing made and nothing mounted.

use std::os::fd::AsFd;

use super::path::Root;
use super::plan::{RootSource, Rootfs};
use super::preview::{Content, Preview, Tree};
use super::request::{Isolation, OpenIn};
use crate::error::Error;

impl Rootfs {
    /// Looks at all that can be seen of the root and the mounts without making anything; every fault is told. `None` where
    /// there is no root. `opened` is that of [`Rootfs::open`].
    pub fn preflight(&self, opened: OpenIn, tell: &mut dyn FnMut(Error)) -> Option<Preview> {
        let root = self.open_root().map_err(&mut *tell).ok()?;
        if opened == OpenIn::Child {
            self.refuse_mapped().unwrap_or_else(&mut *tell);
        }
        if let RootSource::ImageOverlay(overlay) = &self.source {
            overlay.preflight(root.as_fd()).unwrap_or_else(&mut *tell);
        }
        let base = match &self.source {
            // There its path may lead elsewhere.
            _ if self.isolation == Isolation::Joined => Content::Unknown,
            RootSource::OverlayMount(mount) => {
                mount.describe(mount.look_at_layers()).unwrap_or_else(&mut *tell);
                Content::Unknown
            }
            source => match root.try_clone() {
                Ok(fd) => Content::Tree(match source {
                    RootSource::Directory => Tree::new(fd),
                    // What is to be made goes into the upper layer.
                    _ => Tree { read_only: false, ..Tree::new(fd) },
                }),
                Err(_) => Content::Unknown,
            },
        };
        let mut preview = Preview::new(Root::new(root), base);
        for mount in &self.mounts {
            let (outcome, what) = mount.preflight(&preview);
            outcome.unwrap_or_else(&mut *tell);
            preview.add(mount.target().clone(), what);
        }
        for outcome in self.devices.iter().flat_map(|devices| devices.preflight(opened == OpenIn::Host)) {
            outcome.unwrap_or_else(&mut *tell);
        }
        Some(preview)
    }
}
