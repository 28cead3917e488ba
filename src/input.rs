//! Opens files that somebody else names without blocking: a path may be a FIFO without a writer, a serial line, or a
//! terminal that would become the controlling one.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

use crate::error::{Error, Result, bail, ensure};

/// How long to wait for the first writer of a FIFO, which may be started at the same time.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a file is, inode(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind(std::fs::FileType);

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self.0 {
            kind if kind.is_file() => "a regular file",
            kind if kind.is_dir() => "a directory",
            kind if kind.is_fifo() => "a FIFO",
            kind if kind.is_char_device() => "a character device",
            kind if kind.is_block_device() => "a block device",
            kind if kind.is_socket() => "a socket",
            _ => "a file of unknown type",
        })
    }
}

/// Opens for reading.
fn open(path: &Path) -> Result<(File, Kind)> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let kind = Kind(file.metadata()?.file_type());
    Ok((file, kind))
}

/// Reads a file that belongs to a bundle, which must be a regular one.
pub fn read_regular(path: &Path) -> Result<Vec<u8>> {
    let (mut file, kind) = open(path)?;
    ensure!(kind.0.is_file(), "is {kind}, not a regular file");
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens a namespace, by the file that stands for it (namespaces(7), "The /proc/pid/ns/ directory") or a bind mount of that.
pub fn open_namespace(path: &Path) -> Result<File> {
    let (file, kind) = open(path)?;
    let namespace = kind.0.is_file() && fstatfs(&file).is_ok_and(|stat| stat.filesystem_type() == NSFS_MAGIC);
    ensure!(namespace, "is {kind}, not a namespace");
    Ok(file)
}

/// Reads a file of any type that the command line names, to the end: `<(…)` of a shell is a pipe, `/dev/stdin` can be
/// anything.
pub fn read_named(path: &Path) -> Result<Vec<u8>> {
    let (mut file, kind) = open(path)?;
    let began = Instant::now();
    // A FIFO without a writer yet is at its end, like one that all writers have closed.
    let mut begun = !kind.0.is_fifo();
    let mut bytes = Vec::new();
    loop {
        match file.read_to_end(&mut bytes) {
            Ok(_) if begun || !bytes.is_empty() => return Ok(bytes),
            Ok(_) if began.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(5)),
            Ok(_) => bail!("is a FIFO that nobody writes to"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // There is a writer.
                begun = true;
                wait_for(&file)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn wait_for(file: &File) -> Result<()> {
    match poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(errno) => Err(Error::from(errno)),
    }
}
