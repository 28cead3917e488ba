//! corten: a low-level OCI container runtime for Linux.

#[allow(dead_code, unused_imports, reason = "wired by launch")]
mod cgroup;
mod error;
mod host;
#[allow(dead_code, reason = "wired by launch")]
mod seccomp;
mod sys;

fn main() {}
