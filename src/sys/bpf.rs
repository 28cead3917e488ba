//! bpf(2): loading a program and attaching it to a cgroup.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::{Errno, Result};

/// One eBPF instruction in the kernel's layout (`struct bpf_insn`).
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Insn(u64);

impl Insn {
    /// An instruction from its five fields; register numbers are below 16.
    pub const fn new(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Insn {
        // struct bpf_insn in memory: code, then dst (low half) and src (high half), off, imm.
        let regs = if cfg!(target_endian = "little") { dst | src << 4 } else { dst << 4 | src };
        let (off, imm) = (off.to_ne_bytes(), imm.to_ne_bytes());
        Insn(u64::from_ne_bytes([code, regs, off[0], off[1], imm[0], imm[1], imm[2], imm[3]]))
    }

    /// Its eight bytes as a number.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The five fields again: code, dst, src, off, imm.
    #[cfg(test)]
    pub fn fields(self) -> (u8, u8, u8, i16, i32) {
        let b = self.0.to_ne_bytes();
        let (low, high) = (b[1] & 15, b[1] >> 4);
        let (dst, src) = if cfg!(target_endian = "little") { (low, high) } else { (high, low) };
        (b[0], dst, src, i16::from_ne_bytes([b[2], b[3]]), i32::from_ne_bytes([b[4], b[5], b[6], b[7]]))
    }
}

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;

const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 1 << 1;
const REPLACE: u32 = 1 << 2;

/// `union bpf_attr`, larger than any kernel's. Linux 6.17 to 7.2 write into it beyond the size that the caller gives
/// (`query.revision`), so it is always passed whole; bytes that a kernel doesn't know must be zero.
#[repr(C, align(8))]
struct Attr([u8; 256]);

impl Attr {
    fn new() -> Attr {
        Attr([0; 256])
    }

    fn u32(mut self, at: usize, value: u32) -> Attr {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn fd(self, at: usize, fd: BorrowedFd) -> Attr {
        self.u32(at, fd.as_raw_fd() as u32)
    }

    fn pointer<T>(mut self, at: usize, to: *const T) -> Attr {
        self.0[at..at + 8].copy_from_slice(&(to as u64).to_ne_bytes());
        self
    }

    fn text(mut self, at: usize, bytes: &[u8]) -> Attr {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }
}

/// # Safety
/// Every pointer in `attr` must be good for what `command` does with it.
unsafe fn bpf(command: libc::c_int, attr: &mut Attr) -> Result<libc::c_int> {
    // SAFETY: the size is that of `attr`, which is borrowed for the whole call; the pointers in it are the caller's.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, attr as *mut Attr, size_of::<Attr>()) };
    Errno::result(done).map(|done| done as libc::c_int)
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: only called with what a bpf command has just returned as a new descriptor; nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Loads a `BPF_PROG_TYPE_CGROUP_DEVICE` program. The descriptor is close-on-exec (the kernel makes it so).
pub fn load_device_program(program: &[Insn], license: &CStr) -> Result<OwnedFd> {
    let attr = || {
        Attr::new()
            .u32(0, PROG_TYPE_CGROUP_DEVICE)
            .u32(4, program.len() as u32)
            .pointer(8, program.as_ptr())
            .pointer(16, license.as_ptr())
            .text(48, b"corten")
            .u32(68, ATTACH_CGROUP_DEVICE)
    };
    let mut tries = 5;
    loop {
        // SAFETY: `program` and `license` are borrowed for the whole call and only read; the count is the slice's.
        match unsafe { bpf(PROG_LOAD, &mut attr()) } {
            Ok(fd) => return Ok(owned(fd)),
            // The verifier gives up when a signal is pending.
            Err(Errno::EAGAIN) if tries > 1 => tries -= 1,
            Err(errno) => return Err(errno),
        }
    }
}

/// Attaches a device program to a cgroup, beside the ones that may be there (all must agree, `BPF_F_ALLOW_MULTI`).
pub fn attach_device_program(cgroup: BorrowedFd, program: BorrowedFd) -> Result<()> {
    let mut attr = Attr::new().fd(0, cgroup).fd(4, program).u32(8, ATTACH_CGROUP_DEVICE).u32(12, ALLOW_MULTI);
    // SAFETY: the attribute holds numbers only.
    unsafe { bpf(PROG_ATTACH, &mut attr) }.map(drop)
}

/// Puts a device program in the place of another one in one step.
pub fn replace_device_program(cgroup: BorrowedFd, old: BorrowedFd, new: BorrowedFd) -> Result<()> {
    let flags = ALLOW_MULTI | REPLACE;
    let mut attr = Attr::new().fd(0, cgroup).fd(4, new).u32(8, ATTACH_CGROUP_DEVICE).u32(12, flags).fd(16, old);
    // SAFETY: the attribute holds numbers only.
    unsafe { bpf(PROG_ATTACH, &mut attr) }.map(drop)
}

/// Takes a device program off a cgroup.
pub fn detach_device_program(cgroup: BorrowedFd, program: BorrowedFd) -> Result<()> {
    let mut attr = Attr::new().fd(0, cgroup).fd(4, program).u32(8, ATTACH_CGROUP_DEVICE);
    // SAFETY: the attribute holds numbers only.
    unsafe { bpf(PROG_DETACH, &mut attr) }.map(drop)
}

/// The device programs attached to this very cgroup, not those of its ancestors.
pub fn device_programs(cgroup: BorrowedFd) -> Result<Vec<OwnedFd>> {
    // BPF_CGROUP_MAX_PROGS: the kernel takes no more than 64 on one cgroup.
    let mut ids = [0u32; 64];
    let mut attr =
        Attr::new().fd(0, cgroup).u32(4, ATTACH_CGROUP_DEVICE).pointer(16, ids.as_mut_ptr()).u32(24, ids.len() as u32);
    // SAFETY: the kernel writes at most `prog_cnt` ids, which is the length of `ids`; `ids` outlives the call.
    unsafe { bpf(PROG_QUERY, &mut attr) }?;
    let count = u32::from_ne_bytes([attr.0[24], attr.0[25], attr.0[26], attr.0[27]]) as usize;
    let open = |&id: &u32| {
        let mut attr = Attr::new().u32(0, id);
        // SAFETY: the attribute holds numbers only.
        match unsafe { bpf(PROG_GET_FD_BY_ID, &mut attr) } {
            Ok(fd) => Some(Ok(owned(fd))),
            // Detached and freed since the query.
            Err(Errno::ENOENT) => None,
            Err(errno) => Some(Err(errno)),
        }
    };
    ids.iter().take(count).filter_map(open).collect()
}
