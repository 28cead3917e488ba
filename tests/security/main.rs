//! The security history of container runtimes, carried out: a test for each report that concerns paths, mounts, devices,
//! masks or procfs, named after it. Attacks are varied by construction, so that not only the one published exploit fails.
//!
//! Where the report is a race, another process exchanges directory and link in a shared volume all the while
//! ([`attack::race`]); `CORTEN_SECURITY=full` makes 2,000 starts of each, a number that many. `hack/guards` takes the guards
//! out of corten one by one and shows that these tests notice.
#![allow(unreachable_pub, reason = "one binary: everything is private to it")]
#![allow(missing_docs, reason = "a test's name is its sentence")]

#[allow(dead_code, unused_imports, reason = "the vocabulary of all end-to-end tests")]
#[path = "../harness/mod.rs"]
mod harness;

mod attack;
mod cgroups;
mod descriptors;
mod devices;
mod links;
mod procfs;
mod races;
