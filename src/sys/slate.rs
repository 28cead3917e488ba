//! A page of memory that outlives the process which writes to it: last words that need no system call.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

use super::{Errno, Result};

/// How long a page is at least.
const LENGTH: usize = 4096;

/// The bytes before the text, which say how long that is: not zero once it is whole.
const HEAD: usize = 2;

/// The page. A process that is made shares it; execve(2) takes it away.
pub struct Slate(NonNull<[AtomicU8; LENGTH]>);

// SAFETY: the mapping is no thread's own, and is only used by way of atomics.
unsafe impl Send for Slate {}

impl Slate {
    /// A clean one, which has no name.
    pub fn new() -> Result<Slate> {
        Slate::map(libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1)
    }

    /// The first page of an empty file.
    pub fn over(file: &File) -> Result<Slate> {
        nix::unistd::ftruncate(file, LENGTH as i64)?;
        Slate::map(libc::MAP_SHARED, file.as_raw_fd())
    }

    fn map(kind: libc::c_int, fd: i32) -> Result<Slate> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of a page, where the kernel finds room; the file, if any, has that page.
        let place = unsafe { libc::mmap(std::ptr::null_mut(), LENGTH, access, kind, fd, 0) };
        match NonNull::new(place.cast::<[AtomicU8; LENGTH]>()) {
            Some(place) if place.as_ptr().cast::<libc::c_void>() != libc::MAP_FAILED => Ok(Slate(place)),
            _ => Err(Errno::last()),
        }
    }

    fn bytes(&self) -> &[AtomicU8; LENGTH] {
        // SAFETY: the mapping lives as long as this value, is a page long, and whoever shares it writes bytes to it at any
        // time, which atomics allow.
        unsafe { self.0.as_ref() }
    }

    /// Writes this much of the text, by no system call.
    pub fn write(&self, text: &[u8]) {
        let text = &text[..text.len().min(LENGTH - HEAD)];
        let (head, body) = self.bytes().split_at(HEAD);
        body.iter().zip(text).for_each(|(to, byte)| to.store(*byte, Ordering::Relaxed));
        head.iter().zip((text.len() as u16).to_le_bytes()).for_each(|(to, byte)| to.store(byte, Ordering::Release));
    }

    /// What was written. Who shares the memory may change it while it is read.
    pub fn read(&self) -> Option<Vec<u8>> {
        let bytes: Vec<u8> = self.bytes().iter().map(|byte| byte.load(Ordering::Acquire)).collect();
        written(&bytes)
    }
}

/// What was written to the file of a slate, which has these bytes.
pub fn written(bytes: &[u8]) -> Option<Vec<u8>> {
    let (head, body) = bytes.split_first_chunk::<HEAD>()?;
    let length = usize::from(u16::from_le_bytes(*head));
    (length > 0).then(|| body[..length.min(body.len())].to_vec())
}

impl Drop for Slate {
    fn drop(&mut self) {
        // SAFETY: nobody has a reference into the mapping any more, which `map` made.
        unsafe { libc::munmap(self.0.as_ptr().cast(), LENGTH) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process;

    #[test]
    fn what_a_child_has_written_outlives_it() {
        let slate = Slate::new().unwrap();
        assert_eq!(slate.read(), None);
        let child = process::in_child(|| {
            slate.write(b"x y");
            0
        });
        nix::sys::wait::waitpid(child, None).unwrap();
        assert_eq!(slate.read().unwrap(), b"x y");
        slate.write(&[7; 2 * LENGTH]);
        assert_eq!(slate.read().unwrap(), [7; LENGTH - HEAD]);
    }

    #[test]
    fn a_file_keeps_it() {
        let path = std::env::temp_dir().join(format!("corten-slate-{}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let slate = Slate::over(&file).unwrap();
        assert_eq!(written(&std::fs::read(&path).unwrap()), None);
        slate.write(b"x");
        drop(slate);
        assert_eq!(written(&std::fs::read(&path).unwrap()).unwrap(), b"x");
        assert_eq!(written(&[9]), None);
        assert_eq!(written(&[9, 0, 1]).unwrap(), [1]);
        std::fs::remove_file(path).unwrap();
    }
}
