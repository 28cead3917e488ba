//! How another view of the program's file takes the place of the one that it runs from, without an execve(2).
//!
//! A command that enters a container runs from a protected view of the binary (see `selfexe`). To execute it anew costs
//! half a start; to map it over the old one a few calls.

use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::super::{Errno, Result, start};

/// `PR_SET_MM` and `PR_SET_MM_MAP`, linux/prctl.h.
const PR_SET_MM: i32 = 35;
const PR_SET_MM_MAP: i32 = 14;

const PAGE: usize = 4096;

/// `struct prctl_mm_map`, linux/prctl.h.
#[repr(C)]
struct MemoryMap {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// Makes `file` the one that this program runs from, when it is another view of the same file: maps it in place of
/// every piece of the old one and names it by PR_SET_MM_MAP of prctl(2). Nothing leads to the old view then, neither
/// `/proc/PID/exe` nor `/proc/PID/map_files`, as after execve(2). Needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN, and
/// no other thread. After an error the program runs on.
pub fn run_from(file: BorrowedFd<'_>) -> Result<()> {
    let (headers, base) = headers().ok_or(Errno::ENOEXEC)?;
    let mut map = memory_map(file).ok_or(Errno::ENOEXEC)?;
    let mut writable = 0..0;
    for header in headers {
        let start = base + header.p_vaddr as usize;
        let (first, end) = (start & !(PAGE - 1), (start + header.p_filesz as usize).next_multiple_of(PAGE));
        match (header.p_type, header.p_flags & libc::PF_W != 0) {
            (libc::PT_LOAD, true) => {
                (map.start_data, map.end_data) = (first as u64, end as u64);
                // The pieces that lie side by side go together.
                if writable.end != first {
                    // SAFETY: the pages are those of pieces, readable and mapped, and no other thread writes to them.
                    unsafe { move_to_memory(&writable)? };
                    writable.start = first;
                }
                writable.end = end;
            }
            (libc::PT_LOAD, false) => {
                if header.p_flags & libc::PF_X != 0 {
                    (map.start_code, map.end_code) = (first as u64, end as u64);
                }
                let offset = header.p_offset & !(PAGE as u64 - 1);
                // SAFETY: the pages are the piece's, which nobody can have written to, and the file is the same.
                unsafe { remap(first, end - first, header.p_flags, file, offset)? };
            }
            // What is constant once the program has started; its pieces come before in the table.
            (libc::PT_GNU_RELRO, _) => {
                // SAFETY: as above.
                unsafe { move_to_memory(&writable)? };
                writable = 0..0;
                let end = (start + header.p_memsz as usize) & !(PAGE - 1);
                // SAFETY: the C library did the same to the old pages; nobody writes there.
                Errno::result(unsafe { libc::mprotect(first as *mut _, end - first, libc::PROT_READ) })?;
            }
            _ => {}
        }
    }
    // SAFETY: as above.
    unsafe { move_to_memory(&writable)? };
    let size = size_of::<MemoryMap>();
    // SAFETY: the kernel reads a structure that lives for the call; what it changes is what others are told of the
    // layout, and the file, which no mapping depends on.
    Errno::result(unsafe { libc::prctl(PR_SET_MM, PR_SET_MM_MAP, &raw const map, size, 0) })?;
    Ok(())
}

/// The program headers that the kernel loaded this program by, and what is to be added to the addresses in them.
fn headers() -> Option<(&'static [libc::Elf64_Phdr], usize)> {
    // SAFETY: the kernel puts the values there, elf(5); headers of a program that runs are mapped and constant.
    let headers = unsafe {
        let (table, count) = (libc::getauxval(libc::AT_PHDR), libc::getauxval(libc::AT_PHNUM));
        if table == 0 {
            return None;
        }
        std::slice::from_raw_parts(table as *const libc::Elf64_Phdr, count as usize)
    };
    let own = headers.iter().find(|header| header.p_type == libc::PT_PHDR)?;
    Some((headers, (headers.as_ptr() as usize).wrapping_sub(own.p_vaddr as usize)))
}

/// The map as it is, but for the pieces of the program. The heap is told as empty, from its end on: where it began
/// costs a look into `/proc`, and it never shrinks below what it has now.
fn memory_map(file: BorrowedFd<'_>) -> Option<MemoryMap> {
    let words = start::words()?;
    // SAFETY: the kernel laid the words, the variables and the name of the program side by side at our start.
    let (first, variables, name) = unsafe {
        let count = (0..).find(|&word| (*words.add(word)).is_null())?;
        (*words, *words.add(count + 1), libc::getauxval(libc::AT_EXECFN))
    };
    // SAFETY: asks where the heap ends.
    let heap = unsafe { libc::syscall(libc::SYS_brk, 0) } as u64;
    if first.is_null() || name == 0 {
        return None;
    }
    let variables = if variables.is_null() { name } else { variables as u64 };
    Some(MemoryMap {
        start_code: 0,
        end_code: 0,
        start_data: 0,
        end_data: 0,
        start_brk: heap,
        brk: heap,
        start_stack: words as u64,
        arg_start: first as u64,
        arg_end: variables,
        env_start: variables,
        env_end: name,
        auxv: 0,
        auxv_size: 0,
        exe_fd: file.as_raw_fd() as u32,
    })
}

/// Puts pages of memory with the same content in place of pages of a file.
///
/// # Safety
///
/// The pages are mapped, readable, and nobody else writes to them.
unsafe fn move_to_memory(pages: &Range<usize>) -> Result<()> {
    let (first, length) = (pages.start, pages.len());
    if length == 0 {
        return Ok(());
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
    // SAFETY: a new mapping of the length is filled from as many pages, of which the caller speaks, and put over them.
    // Between the copy and that nothing of ours is written but the stack.
    unsafe {
        let memory = libc::mmap(ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        if memory == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        ptr::copy_nonoverlapping(first as *const u8, memory.cast(), length);
        let over = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        if libc::mremap(memory, length, length, over, first as *mut libc::c_void) == libc::MAP_FAILED {
            return Err(Errno::last());
        }
    }
    Ok(())
}

/// Puts pages of `file` in place of those that lie at `first`.
///
/// # Safety
///
/// The content is the same, so that what runs there goes on.
unsafe fn remap(first: usize, length: usize, flags: u32, file: BorrowedFd<'_>, offset: u64) -> Result<()> {
    let executable = if flags & libc::PF_X != 0 { libc::PROT_EXEC } else { 0 };
    let (fd, place) = (file.as_raw_fd(), libc::MAP_PRIVATE | libc::MAP_FIXED);
    // SAFETY: as the caller promises.
    let done =
        unsafe { libc::mmap(first as *mut _, length, libc::PROT_READ | executable, place, fd, offset as libc::off_t) };
    if done == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(()) }
}
