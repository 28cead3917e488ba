//! The memory of a program that lives for milliseconds.
//!
//! A run makes some thousand small allocations and ends. The C library's allocator spent a tenth of its time on
//! merging what was freed, and its notes inside freed blocks made both sides of the fork copy page after page. Here
//! memory is taken from the front of a region, whose pages the kernel provides a batch at a time, and a freed block is
//! kept for the next request of its size.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr::null_mut;

/// The memory of this program; tests have threads, and the C library's.
#[cfg(not(test))]
#[global_allocator]
pub static HEAP: Heap = Heap::new();

/// An allocator without a lock, for a program of one thread (`tests/architecture.rs` holds that).
pub struct Heap(UnsafeCell<State>);

// SAFETY: the program has one thread.
unsafe impl Sync for Heap {}

struct State {
    /// Where the next block begins, and where the region ends.
    next: usize,
    end: usize,
    /// Up to here pages are there.
    ready: usize,
    /// Freed blocks, by size; each holds the address of the next.
    freed: [usize; CLASSES],
    /// Freed blocks are left as they are until this region is used up.
    one_way: bool,
}

/// Blocks are multiples of this, and so are their addresses.
const GRAIN: usize = 16;
/// Up to this size a block is as large as asked for, rounded to the grain; above, a power of two.
const SMALL: usize = 1024;
const CLASSES: usize = SMALL / GRAIN + usize::BITS as usize;
/// What is taken from the kernel at a time, and what it fills at a time.
const REGION: usize = 1 << 20;
const BATCH: usize = 64 << 10;

/// The size of the block that serves a request, and its place in `freed`.
fn class(size: usize) -> (usize, usize) {
    if size <= SMALL {
        let grains = size.div_ceil(GRAIN).max(1);
        (grains * GRAIN, grains - 1)
    } else {
        let size = size.next_power_of_two();
        (size, SMALL / GRAIN + size.trailing_zeros() as usize)
    }
}

impl Heap {
    const fn new() -> Heap {
        Heap(UnsafeCell::new(State { next: 0, end: 0, ready: 0, freed: [0; CLASSES], one_way: false }))
    }

    /// From here on a freed block stays as it is, as long as there is room: for both sides of a fork, which share their
    /// pages until one of them writes.
    pub fn leave_freed(&self) {
        // SAFETY: there is one thread, and no reference into the state is kept.
        unsafe { (*self.0.get()).one_way = true }
    }
}

impl State {
    /// A block from the front of the region; null when there is no memory.
    fn take(&mut self, size: usize, align: usize) -> *mut u8 {
        let start = self.next.next_multiple_of(align.max(GRAIN));
        if self.next == 0 || self.end.saturating_sub(start) < size {
            if !self.grow(size.saturating_add(align)) {
                return null_mut();
            }
            return self.take(size, align);
        }
        self.next = start + size;
        if self.next > self.ready {
            let end = self.next.next_multiple_of(BATCH).min(self.end);
            // SAFETY: the pages are ours, and nothing was put there yet; without this call they come one by one.
            unsafe { libc::madvise(self.ready as *mut _, end - self.ready, libc::MADV_POPULATE_WRITE) };
            self.ready = end;
        }
        start as *mut u8
    }

    /// A new region for at least `size` bytes; what is left of the old one is lost.
    fn grow(&mut self, size: usize) -> bool {
        let Some(size) = size.max(REGION).checked_next_multiple_of(BATCH) else { return false };
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping where the kernel finds room.
        let region = unsafe { libc::mmap(null_mut(), size, access, kind, -1, 0) };
        if region == libc::MAP_FAILED {
            return false;
        }
        self.one_way = false;
        (self.next, self.ready, self.end) = (region as usize, region as usize, region as usize + size);
        true
    }
}

// SAFETY: every block is of memory that is mapped for good, is handed out to one owner at a time, is at least as large
// as asked for and aligned: by `take` for its first owner, and the lists hold only blocks of the usual alignment.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, class) = class(layout.size());
        // SAFETY: there is one thread. A block in a list is free, and its first word is the address of the next.
        unsafe {
            let state = &mut *self.0.get();
            let block = state.freed[class];
            if block != 0 && layout.align() <= GRAIN {
                state.freed[class] = *(block as *const usize);
                return block as *mut u8;
            }
            state.take(size, layout.align())
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let (size, class) = class(layout.size());
        // SAFETY: as above; the block is no longer used by its owner, and has room for a word.
        unsafe {
            let state = &mut *self.0.get();
            if block as usize + size == state.next {
                state.next = block as usize;
            } else if !state.one_way && layout.align() <= GRAIN {
                *(block as *mut usize) = state.freed[class];
                state.freed[class] = block as usize;
            }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, wanted: usize) -> *mut u8 {
        let ((old, _), (new, _)) = (class(layout.size()), class(wanted));
        if old == new {
            return block;
        }
        // SAFETY: as above. The last block grows and shrinks where it is; another is copied, as far as both reach.
        unsafe {
            let state = &mut *self.0.get();
            if block as usize + old == state.next && state.end - block as usize >= new {
                state.next = block as usize;
                return state.take(new, layout.align());
            }
            let other = self.alloc(Layout::from_size_align_unchecked(wanted, layout.align()));
            if !other.is_null() {
                block.copy_to_nonoverlapping(other, layout.size().min(wanted));
                self.dealloc(block, layout);
            }
            other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).unwrap()
    }

    #[test]
    fn a_freed_block_serves_the_next_request_of_its_size_and_no_other() {
        let heap = Heap::new();
        // SAFETY: blocks of this heap are given back to it once, by the layout they were asked for with.
        unsafe {
            let (first, second) = (heap.alloc(layout(100)), heap.alloc(layout(100)));
            heap.dealloc(first, layout(100));
            assert_ne!(heap.alloc(layout(40)), first);
            assert_eq!(heap.alloc(layout(112)), first);
            heap.leave_freed();
            heap.dealloc(first, layout(112));
            assert_ne!(heap.alloc(layout(112)), first);
            heap.dealloc(second, layout(100));
            assert_ne!(heap.alloc(layout(100)), second);
        }
    }

    #[test]
    fn the_last_block_grows_shrinks_and_goes_without_a_trace() {
        let heap = Heap::new();
        // SAFETY: as above.
        unsafe {
            let first = heap.alloc(layout(100));
            let last = heap.alloc(layout(100));
            assert_eq!(heap.realloc(last, layout(100), 5000), last);
            assert_eq!(heap.realloc(last, layout(5000), 30), last);
            heap.dealloc(last, layout(30));
            assert_eq!(heap.alloc(layout(1)), last);
            assert_ne!(heap.realloc(first, layout(100), 200), first);
        }
    }

    #[test]
    fn what_is_freed_after_a_fork_is_used_again_when_the_region_is_full() {
        let heap = Heap::new();
        heap.leave_freed();
        // SAFETY: as above.
        unsafe {
            let mut lowest = usize::MAX;
            let mut highest = 0;
            for _ in 0..100 * REGION / 1000 {
                let (kept, other) = (heap.alloc(layout(1000)), heap.alloc(layout(16)));
                (lowest, highest) = (lowest.min(kept as usize), highest.max(kept as usize));
                heap.dealloc(kept, layout(1000));
                heap.dealloc(other, layout(16));
            }
            assert!(highest - lowest < 3 * REGION, "{lowest:x} to {highest:x}");
        }
    }

    #[test]
    fn blocks_are_aligned_apart_from_each_other_and_keep_what_is_in_them() {
        let heap = Heap::new();
        let mut blocks: Vec<(*mut u8, Layout, u8)> = Vec::new();
        let mut random = 1u64;
        for round in 0..20_000u32 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let (choice, mark) = (random >> 33, round as u8);
            let size = if choice % 50 == 0 { choice % 300_000 } else { choice % 2_000 } as usize;
            let align = if choice % 30 == 1 { 4096 } else { 1 << (choice % 5) };
            // SAFETY: as above; every write and read is within the size of a block that is not freed yet.
            unsafe {
                if blocks.len() > 50 || (choice % 3 == 0 && !blocks.is_empty()) {
                    let (block, layout, mark) = blocks.swap_remove(choice as usize % blocks.len());
                    let content = std::slice::from_raw_parts(block, layout.size());
                    assert!(content.iter().all(|&byte| byte == mark), "round {round}");
                    if choice % 2 == 0 {
                        heap.dealloc(block, layout);
                        continue;
                    }
                    let other = heap.realloc(block, layout, size.max(1));
                    let common = std::slice::from_raw_parts(other, layout.size().min(size.max(1)));
                    assert!(common.iter().all(|&byte| byte == mark), "round {round}");
                    let layout = Layout::from_size_align(size.max(1), layout.align()).unwrap();
                    other.write_bytes(mark, layout.size());
                    blocks.push((other, layout, mark));
                } else {
                    let layout = Layout::from_size_align(size.max(1), align).unwrap();
                    let block = heap.alloc(layout);
                    assert_eq!(block as usize % align, 0);
                    block.write_bytes(mark, layout.size());
                    blocks.push((block, layout, mark));
                }
            }
        }
    }

    #[test]
    fn more_than_there_is_comes_as_null() {
        // SAFETY: nothing is done with the result.
        unsafe { assert!(Heap::new().alloc(layout(1 << 60)).is_null()) }
    }
}
