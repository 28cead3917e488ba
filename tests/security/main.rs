//! The security history of container runtimes, carried out: a test for each report that concerns paths, mounts, devices,
//! masks, procfs or annotations, named after it. Attacks are varied by construction, so that not only the one published exploit fails.
//!
//! What a container sees, and may trace, of the runtime's processes among its own is held against one rule: a process is
//! finished when others can see it ([`visible`], [`traced`]).
//!
//! Where the report is a race, another process exchanges directory and link in a shared volume all the while
//! ([`attack::race`]); `CORTEN_SECURITY=full` makes 2,000 starts of each, a number that many. `hack/guards` takes the guards
//! out of corten one by one and shows that these tests notice. [`state`] and [`strangers`] are of no report: who gets at what
//! the runtime keeps, and whom it might take for a container's own.
//!
//! Not here: what needs AppArmor to be seen (the labels of CVE-2019-16884, CVE-2025-52881: `tests/labels.rs`, in the lab),
//! or SELinux (the unit tests of `process::labels` have false files in their way), what needs checkpoints, which corten
//! does not make (CVE-2026-119101, CVE-2026-115520), and what happens in engines before a runtime is called
//! (CVE-2017-1002101, CVE-2021-25741, CVE-2022-23648, CVE-2024-5154). `docs/security.md` has all of them.
#![allow(unreachable_pub, reason = "one binary: everything is private to it")]
#![allow(missing_docs, reason = "a test's name is its sentence")]
#![allow(clippy::disallowed_methods, reason = "the lessons are about the runtime")]

#[allow(dead_code, unused_imports, reason = "the vocabulary of all end-to-end tests")]
#[path = "../harness/mod.rs"]
mod harness;

mod annotations;
mod attack;
mod attacker;
mod cgroups;
mod descriptors;
mod devices;
mod hooks;
mod identity;
mod inputs;
mod links;
mod live_mounts;
mod names;
mod proc_writes;
mod procfs;
mod races;
mod sizes;
mod sockets;
mod state;
mod strangers;
mod traced;
mod visible;
mod wire;
