//! corten: a low-level OCI container runtime for Linux.

mod error;
mod host;
#[allow(dead_code, reason = "wired by launch")]
mod seccomp;
mod sys;

fn main() {}
