//! Scheduling, I/O priority, CPU affinity, memory policy and the execution domain.

use nix::unistd::Pid;

use super::{Errno, Result};

/// What sched_setattr(2) takes in its first version (48 bytes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// -20 (most) to 19 (least favourable); for OTHER and BATCH.
    pub nice: i32,
    /// 1 to 99; for FIFO and RR.
    pub priority: u32,
    /// Nanoseconds; for DEADLINE.
    pub runtime: u64,
    /// Nanoseconds; for DEADLINE.
    pub deadline: u64,
    /// Nanoseconds; for DEADLINE.
    pub period: u64,
}

/// sched_setattr(2) on another thread, or on ourselves with pid 0.
pub fn set_attributes(pid: Pid, wanted: &Attributes) -> Result<()> {
    let attr = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: wanted.policy,
        sched_flags: wanted.flags,
        sched_nice: wanted.nice,
        sched_priority: wanted.priority,
        sched_runtime: wanted.runtime,
        sched_deadline: wanted.deadline,
        sched_period: wanted.period,
    };
    // SAFETY: the kernel reads `size` bytes from a live local of that size; the other arguments are numbers.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, pid.as_raw(), &raw const attr, 0) };
    Errno::result(done).map(drop)
}

/// sched_setaffinity(2): bit *n* of the mask is CPU *n*. A mask longer than the kernel's own is cut by the kernel.
pub fn set_affinity(pid: Pid, mask: &[u64]) -> Result<()> {
    // SAFETY: the kernel reads at most the bytes of the slice.
    let done = unsafe { libc::syscall(libc::SYS_sched_setaffinity, pid.as_raw(), size_of_val(mask), mask.as_ptr()) };
    Errno::result(done).map(drop)
}

/// ioprio_set(2) for every process of a process group.
pub fn set_group_io_priority(group: Pid, class: u16, level: u16) -> Result<()> {
    const WHO_PGRP: libc::c_int = 2;
    let value = libc::c_int::from(class) << 13 | libc::c_int::from(level);
    // SAFETY: three numbers, no memory.
    let done = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PGRP, group.as_raw(), value) };
    Errno::result(done).map(drop)
}

/// set_mempolicy(2) of the calling thread: mode with flags, and the nodes as a bit mask in words.
pub fn set_memory_policy(mode: i32, nodes: &[u64]) -> Result<()> {
    // The kernel takes one bit less than it is told (get_nodes() decrements `maxnode`).
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let pointer = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: `bits - 1` bits are exactly the words of the slice, which the kernel only reads; with no nodes it is
    // given no pointer and a length of zero.
    let done = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) };
    Errno::result(done).map(drop)
}

/// personality(2) of the calling thread.
pub fn set_personality(domain: u32) -> Result<()> {
    // SAFETY: one number, no memory.
    Errno::result(unsafe { libc::personality(domain.into()) }).map(drop)
}
