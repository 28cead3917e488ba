//! End-to-end tests: they drive the built binary as root, as an engine does.
//!
//! `RUNTIME=crun cargo test --test native` (a name or a path) runs them on another runtime: a test describes the
//! standard, not our binary. Ids such as `b04` are those of the collected behaviour cases.
#![allow(unreachable_pub, reason = "one binary: everything is private to it")]
#![allow(missing_docs, reason = "a test's name is its sentence")]
#![allow(clippy::disallowed_methods, reason = "the lessons are about the runtime")]

#[allow(dead_code, unused_imports, reason = "a vocabulary for tests to come")]
mod harness;

mod agent;
mod annotations;
mod cgroup;
mod check;
mod checkpoint;
mod cli;
mod device_rules;
mod entering;
mod events;
mod exec;
mod features;
mod freezing;
mod hooks;
mod idmap;
mod labels;
mod landlock;
mod last_calls;
mod lifecycle;
mod live_mounts;
mod manual;
mod messages;
mod mount_words;
mod mounts;
mod namespaces;
mod netdev;
mod notify;
mod overlay;
mod process;
mod procfs;
mod resources;
mod rootfs;
mod rootless;
mod salvage;
mod schedule;
mod seccomp;
mod sessions;
mod shared;
mod state;
mod stress;
mod sysctl;
mod systemd;
mod terminal;
mod trace;
mod update;
mod validation;
