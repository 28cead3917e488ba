//! Which of the newer system calls are there, asked with arguments that every kernel refuses.

use super::Errno;

/// What corten cannot do without.
const NEEDED: [(&str, libc::c_long); 8] = [
    ("clone3", libc::SYS_clone3),
    ("openat2", libc::SYS_openat2),
    ("fsopen", libc::SYS_fsopen),
    ("open_tree", libc::SYS_open_tree),
    ("move_mount", libc::SYS_move_mount),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("pidfd_open", libc::SYS_pidfd_open),
    ("close_range", libc::SYS_close_range),
];

/// The calls without which nothing works that the kernel does not have, or an outer sandbox hides.
pub fn lacking() -> impl Iterator<Item = &'static str> {
    NEEDED.iter().filter(|(_, number)| !answers(*number)).map(|(name, _)| *name)
}

fn answers(number: libc::c_long) -> bool {
    let (bad, null) = (usize::MAX, 0_usize);
    // SAFETY: each call of the table refuses these arguments before it does anything: the address at the end of memory is
    // no one's, a size of zero is too small for a structure, -1 is no descriptor and no process, and a range of
    // descriptors that ends before it begins is none. The kernel reads and writes nothing of ours.
    let result = unsafe { libc::syscall(number, bad, null, null, null, null) };
    !matches!(Errno::result(result), Err(Errno::ENOSYS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_them_all() {
        assert_eq!(lacking().count(), 0);
    }
}
