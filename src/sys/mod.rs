//! The only place with `unsafe`: thin, typed calls to the kernel, one file per subject.
//!
//! What nix has is used from here as it is; what it lacks is a small wrapper over `libc::syscall`. Calls return the
//! bare errno, since only the caller knows the object that an error must name.

#[allow(dead_code, reason = "wired by launch")]
pub mod bpf;

pub use nix::errno::Errno;

/// The result of one call to the kernel.
pub type Result<T> = std::result::Result<T, Errno>;

pub mod seccomp;
