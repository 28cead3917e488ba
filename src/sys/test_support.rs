//! For tests of what needs a process and namespaces of its own.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, pipe2};

/// Held while a program is written: a child forked meanwhile would keep it open, and then nobody can execute it.
pub(crate) static QUIET: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Runs `host` in a child, then `container` in a grandchild that is in new namespaces and in what `host` gave. With a
/// user namespace, ids from 0 on are mapped to those from `map` on. Gives back what `container` said.
pub(crate) fn apart<T>(
    namespaces: CloneFlags,
    map: Option<u32>,
    host: impl FnOnce() -> Result<T, String>,
    container: impl FnOnce(T) -> Result<String, String>,
) -> Result<String, String> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let (unshared, tell) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let (mapped, go) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let quiet = QUIET.lock().unwrap();
    // SAFETY: the test harness has threads, but the C library takes the allocator's locks over a fork, and the child
    // uses nothing else of theirs and leaves by `_exit`.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => {
            drop((writer, tell, mapped, quiet));
            let mut byte = [0];
            if File::from(unshared).read(&mut byte).unwrap() == 1 {
                if let Some(first) = map {
                    for file in ["uid_map", "gid_map"] {
                        std::fs::write(format!("/proc/{child}/{file}"), format!("0 {first} 65536")).unwrap();
                    }
                }
                File::from(go).write_all(&byte).unwrap();
            }
            let mut text = String::new();
            File::from(reader).read_to_string(&mut text).unwrap();
            waitpid(child, None).unwrap();
            match text.split_at_checked(1) {
                Some(("+", said)) => Ok(said.to_owned()),
                Some((_, error)) => Err(error.to_owned()),
                None => Err("the child is gone".to_owned()),
            }
        }
        ForkResult::Child => {
            drop((unshared, go, reader));
            let mut writer = File::from(writer);
            let work = || -> Result<(), String> {
                nix::sys::stat::umask(nix::sys::stat::Mode::empty());
                let state = host()?;
                let words = |errno: nix::errno::Errno| errno.to_string();
                unshare(namespaces).map_err(words)?;
                File::from(tell).write_all(&[1]).unwrap();
                let _ = File::from(mapped).read(&mut [0]).unwrap();
                if map.is_some() {
                    nix::unistd::setresgid(0.into(), 0.into(), 0.into()).map_err(words)?;
                    nix::unistd::setresuid(0.into(), 0.into(), 0.into()).map_err(words)?;
                }
                // SAFETY: this process has one thread.
                match unsafe { fork() }.map_err(words)? {
                    ForkResult::Parent { child } => {
                        waitpid(child, None).map_err(words)?;
                        // SAFETY: leaves at once; no destructor of the harness may run here.
                        unsafe { libc::_exit(0) }
                    }
                    ForkResult::Child => {
                        let said = container(state)?;
                        writer.write_all(format!("+{said}").as_bytes()).unwrap();
                        Ok(())
                    }
                }
            };
            // The closures are gone before the result is written, or their pipe would stay open.
            let result = work();
            if let Err(error) = result {
                writer.write_all(format!("-{error}").as_bytes()).unwrap();
            }
            // SAFETY: as above.
            unsafe { libc::_exit(0) }
        }
    }
}

/// A terminal of the devpts on `/dev/pts`: both ends.
pub(crate) fn terminal() -> (File, OwnedFd) {
    /// `TIOCGPTPEER`, ioctl_tty(2).
    const PEER: libc::Ioctl = 0x5441;
    let ptmx = File::options().read(true).write(true).open("/dev/pts/ptmx").unwrap();
    let unlock: libc::c_int = 0;
    // SAFETY: the call reads one int, which outlives it.
    assert_eq!(unsafe { libc::ioctl(ptmx.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) }, 0);
    // SAFETY: the call takes flags and makes a descriptor, which nobody else owns.
    let replica = unsafe { OwnedFd::from_raw_fd(libc::ioctl(ptmx.as_raw_fd(), PEER, libc::O_RDWR | libc::O_NOCTTY)) };
    (ptmx, replica)
}
