//! The only place with `unsafe`: thin, typed calls to the kernel, one file per subject, and to the C library (`clib`).
//!
//! What nix has is used from here as it is; what it lacks is a small wrapper over `libc::syscall`. Calls return the
//! bare errno, since only the caller knows the object that an error must name.

pub mod bpf;
pub mod clib;
pub mod clone;
pub mod criu;
pub mod exe;
#[cfg(feature = "fast-start")]
pub mod fast;
pub mod fd;
pub mod key;
pub mod landlock;
pub mod mount;
pub mod netlink;
pub mod ns;
pub mod path;
pub mod pid;
pub mod prctl;
pub mod probe;
pub mod process;
pub mod procfs;
pub mod sched;
pub mod seccomp;
pub mod slate;
pub mod socket;
pub mod start;
#[cfg(test)]
pub mod test_support;
pub mod tty;

pub use nix::errno::Errno;

/// The result of one call to the kernel.
pub type Result<T> = std::result::Result<T, Errno>;
