//! corten: a low-level OCI container runtime for Linux.

mod error;
mod host;
#[allow(dead_code, reason = "wired by launch")]
mod rootfs;
mod sys;

fn main() {}
