//! What makes a start faster at the price of rules of its own; the feature `fast-start` is its switch.
//!
//! Each part has a plain one in its place where the feature is off: the allocator that of the C library, the entry point
//! that of the standard library, and the remapping a second execve(2). The order of the functions in the binary, which is
//! `hack/build`'s, belongs here, too, but is no code.

#[cfg(not(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64")))]
compile_error!(
    "fast-start knows 64-bit Linux with the GNU C library: std takes its arguments from .init_array there, and the program \
     headers are Elf64_Phdr. Build with --no-default-features"
);

mod entry;
pub mod heap;
pub mod remap;
