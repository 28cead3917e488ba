//! corten: a low-level OCI container runtime for Linux.

mod error;
mod host;
#[allow(dead_code, unused_imports, reason = "wired by launch")]
mod process;
mod sys;

fn main() {}
