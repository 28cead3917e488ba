//! `mounts[]`. An entry is compiled by [`plan`] and becomes a mount by [`attach`]: whoever follows one bind needs no other
//! file. New file systems, overlays and cgroup2 are made by [`open`]. [`look`] says what would be wrong with a mount.
//!
//! Each file uses those before it: `plan`, `open`, `attach`, `look`.

mod attach;
mod look;
mod open;
mod plan;

pub(super) use attach::MountContext;
pub(super) use plan::{Mount, PlanContext};
