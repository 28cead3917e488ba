//! The container's cgroup: where it is, making it, its limits and device rules, freezing, killing, removing.
//!
//! cgroup v2 only. On a hybrid host (cgroup v1 controllers mounted, cgroup2 at `/sys/fs/cgroup/unified`) the v2 half is
//! used, and what v1 holds cannot be limited. Containers are born in their cgroups (`CLONE_INTO_CGROUP` with
//! [`Cgroup::clone_target`]), but for those that systemd makes: it does so around a process that is there
//! ([`Cgroup::request_scope`]).
//!
//! The order in `create`: [`Request::plan`] (pure) → [`Request::place`] (looks, changes nothing; the result goes into the
//! intent record) → [`Request::create`] (makes the directories) → [`Cgroup::apply`] → clone → [`Cgroup::keep`].
//!
//! Three parts: [`Location`] is where a cgroup is, a value that the record keeps; [`Handle`] is what is done with the one
//! that is there; `cgroupfs` and `systemd` are the drivers that make them. Which file may use which others is written
//! down, and held, in `tests/architecture.rs`.

mod apply;
mod cgroupfs;
mod check;
mod controllers;
mod create;
mod delegation;
mod devices;
mod files;
mod handle;
mod limits;
mod location;
mod mount;
#[cfg(test)]
mod native_tests;
mod own;
mod owner;
pub mod probe;
mod range;
mod request;
pub mod systemd;
mod update;

pub use create::Cgroup;
pub use delegation::Inner;
pub use files::MemoryEvents;
pub use handle::{Handle, Stats};
pub use location::Location;
pub use mount::Mount;
pub use own::own;
pub use owner::{Holder, find_marked};
pub use request::{Manager, Request};
pub use update::Change;
