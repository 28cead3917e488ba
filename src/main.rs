//! corten: a low-level OCI container runtime for Linux.

mod error;
mod host;
mod sys;

fn main() {}
