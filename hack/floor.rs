//! The floor: the least kernel work that makes a Docker-like container, by hand and without any choice.
//!
//! `floor ROOTFS CGROUP`: make the cgroup directory, one clone3 into it with six new namespaces, the mounts, devices,
//! links, pivot, masks and read-only paths of such a container, its host name, `/bin/true`; wait; remove the cgroup.
//! Not a runtime: no configuration, no seccomp, no capabilities, no record, no check. What a runtime takes more
//! than this is what `hack/bench` shows. One deliberate difference from a runtime: paths are plain strings.
#![no_main]

mod floors;

use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_ulong};

use floors::{become_true, born, end, must, place, syscall, words};

unsafe extern "C" {
    fn mkdir(path: *const c_char, mode: c_uint) -> c_int;
    fn rmdir(path: *const c_char) -> c_int;
    fn chdir(path: *const c_char) -> c_int;
    fn symlink(target: *const c_char, path: *const c_char) -> c_int;
    fn mknod(path: *const c_char, mode: c_uint, device: c_ulong) -> c_int;
    fn mount(from: *const c_char, to: *const c_char, kind: *const c_char, flags: c_ulong, data: *const c_char)
    -> c_int;
    fn umount2(path: *const c_char, flags: c_int) -> c_int;
    fn sethostname(name: *const c_char, length: usize) -> c_int;
}

const SYS_PIVOT_ROOT: c_long = if cfg!(target_arch = "x86_64") { 155 } else { 41 };
const NEW_NS_CGROUP_UTS_IPC_PID_NET: u64 =
    0x0002_0000 | 0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x2000_0000 | 0x4000_0000;
const RDONLY: c_ulong = 1;
const NOSUID: c_ulong = 2;
const NODEV: c_ulong = 4;
const NOEXEC: c_ulong = 8;
const REMOUNT: c_ulong = 32;
const BIND: c_ulong = 4096;
const REC: c_ulong = 16384;
const PRIVATE: c_ulong = 1 << 18;
const STRICTATIME: c_ulong = 1 << 24;
const MNT_DETACH: c_int = 2;
const CHARACTER_DEVICE: c_uint = 0o020000;

const N: &CStr = c"";
const PLAIN: c_ulong = NOSUID | NOEXEC | NODEV;
#[rustfmt::skip]
const MOUNTS: [(&CStr, &CStr, c_ulong, &CStr); 7] = [
    (c"proc", c"proc", PLAIN, N),
    (c"tmpfs", c"dev", NOSUID | STRICTATIME, c"mode=755,size=65536k"),
    (c"devpts", c"dev/pts", NOSUID | NOEXEC, c"newinstance,ptmxmode=0666,mode=0620,gid=5"),
    (c"sysfs", c"sys", PLAIN | RDONLY, N),
    (c"cgroup2", c"sys/fs/cgroup", PLAIN | RDONLY, N),
    (c"mqueue", c"dev/mqueue", PLAIN, N),
    (c"tmpfs", c"dev/shm", PLAIN, c"mode=1777,size=67108864"),
];
const DEVICES: [(&CStr, c_ulong, c_ulong); 6] = [
    (c"dev/null", 1, 3),
    (c"dev/zero", 1, 5),
    (c"dev/full", 1, 7),
    (c"dev/random", 1, 8),
    (c"dev/urandom", 1, 9),
    (c"dev/tty", 5, 0),
];
const LINKS: [(&CStr, &CStr); 5] = [
    (c"/proc/self/fd", c"dev/fd"),
    (c"/proc/self/fd/0", c"dev/stdin"),
    (c"/proc/self/fd/1", c"dev/stdout"),
    (c"/proc/self/fd/2", c"dev/stderr"),
    (c"pts/ptmx", c"dev/ptmx"),
];
const READ_ONLY: [&CStr; 5] = [c"/proc/bus", c"/proc/fs", c"/proc/irq", c"/proc/sys", c"/proc/sysrq-trigger"];
// Those of Docker's twelve that a usual kernel has.
const MASKED_FILES: [&CStr; 4] = [c"/proc/interrupts", c"/proc/kcore", c"/proc/keys", c"/proc/timer_list"];
const MASKED_DIRECTORIES: [&CStr; 2] = [c"/proc/acpi", c"/sys/firmware"];

fn attach(from: &CStr, to: &CStr, kind: &CStr, flags: c_ulong, data: &CStr) {
    // SAFETY: five C strings and a number; the kernel copies them.
    must(to, unsafe { mount(from.as_ptr(), to.as_ptr(), kind.as_ptr(), flags, data.as_ptr()) });
}

/// Like `attach`, for what the kernel may lack: then there is nothing to cover, and the answer is false.
fn cover(from: &CStr, to: &CStr, kind: &CStr, flags: c_ulong) -> bool {
    // SAFETY: as above.
    unsafe { mount(from.as_ptr(), to.as_ptr(), kind.as_ptr(), flags, N.as_ptr()) == 0 }
}

fn container(rootfs: &CStr) -> ! {
    attach(N, c"/", N, REC | PRIVATE, N);
    attach(rootfs, rootfs, N, BIND | REC, N);
    // SAFETY: C strings only, here and in the blocks below; the kernel copies them.
    must(rootfs, unsafe { chdir(rootfs.as_ptr()) });
    for (kind, to, flags, data) in MOUNTS {
        if to.count_bytes() > 4 && to.to_bytes().starts_with(b"dev/") {
            must(to, unsafe { mkdir(to.as_ptr(), 0o755) });
        }
        attach(kind, to, kind, flags, data);
    }
    for (path, major, minor) in DEVICES {
        must(path, unsafe { mknod(path.as_ptr(), CHARACTER_DEVICE | 0o666, major << 8 | minor) });
    }
    for (target, path) in LINKS {
        must(path, unsafe { symlink(target.as_ptr(), path.as_ptr()) });
    }
    must(c"pivot_root", unsafe { syscall(SYS_PIVOT_ROOT, c".".as_ptr(), c".".as_ptr()) });
    must(c"umount", unsafe { umount2(c".".as_ptr(), MNT_DETACH) });
    for path in READ_ONLY {
        if cover(path, path, N, BIND | REC) {
            attach(path, path, N, BIND | REMOUNT | RDONLY | PLAIN, N);
        }
    }
    for path in MASKED_FILES {
        cover(c"/dev/null", path, N, BIND);
    }
    for path in MASKED_DIRECTORIES {
        cover(c"tmpfs", path, c"tmpfs", RDONLY);
    }
    must(c"sethostname", unsafe { sethostname(c"floor".as_ptr(), 5) });
    become_true()
}

#[unsafe(no_mangle)]
extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    let words = words(argc, argv);
    let [rootfs, cgroup] = &words[..] else { panic!("usage: floor ROOTFS CGROUP") };
    // SAFETY: a C string and a number; the kernel copies it.
    must(&cgroup, unsafe { mkdir(cgroup.as_ptr(), 0o755) });
    let child = born(NEW_NS_CGROUP_UTS_IPC_PID_NET, place(&cgroup));
    if child == 0 {
        container(&rootfs);
    }
    let code = end(child);
    // SAFETY: a C string; the kernel copies it.
    must(&cgroup, unsafe { rmdir(cgroup.as_ptr()) });
    code
}
