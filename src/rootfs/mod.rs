//! The container's file system: propagation, mounts, devices, pivot, masks, read-only root.
//!
//! An image is hostile: whatever it names may be a link to anywhere, and what it shares with others may be renamed
//! between two calls. So the rootfs is opened once, everything below it is reached from that descriptor by
//! `path::Root`, and mounts go from descriptor to descriptor. No path below the rootfs reaches mount(2), mkdir(2),
//! mknod(2), chown(2), symlink(2) or unlink(2) as text.
//!
//! Three steps: [`Rootfs::plan`] is pure, [`Rootfs::open`] takes what only the host can reach, and [`Opened`] is
//! carried into the container process, where its verbs are called in the order in which they stand.
//!
//! Each file of the room uses only those of lines above its own, or to its left:
//!
//! - what is asked for, and words for it: `request`, `propagation`, `options`;
//! - single steps: `path`, `filesystem`, `copyup`, `procfs`, `guest`, `idmap`;
//! - parts of the root: `stack`, `overlay`, `overlay_dir`, `image_overlay`, `nodes`, `devices`, `masks`, `pivot`, `preview`;
//! - `mount`, with an order of its own, and `mount_fds`;
//! - the whole: `plan`, `opened`, `look`, `restore`, `live_mounts`.

mod copyup;
mod devices;
mod filesystem;
mod guest;
mod idmap;
mod image_overlay;
mod live_mounts;
mod look;
mod masks;
mod mount;
mod mount_fds;
#[cfg(test)]
mod native_tests;
mod nodes;
mod opened;
mod options;
mod overlay;
mod overlay_dir;
mod path;
mod pivot;
mod plan;
mod preview;
mod procfs;
mod propagation;
mod request;
mod restore;
mod stack;

pub use guest::Guest;
pub use image_overlay::{
    ANNOTATION as OVERLAY, FORMS as OVERLAY_FORMS, outside as overlay_outside, remove_overlay_workdir,
};
pub use live_mounts::{Additions, HostHandles, Removals};
pub use opened::Opened;
pub use options::words as mount_options;
pub use plan::Rootfs;
pub use preview::{Lookup, Preview};
pub use procfs::Shown;
pub use request::{CgroupPaths, Isolation, Namespaces, OpenIn, Request};
pub use restore::Restored;
