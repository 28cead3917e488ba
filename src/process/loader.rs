//! What execve(2) looks for beside the program itself: the interpreter of a script, the loader of an ELF file.

use std::path::PathBuf;

use crate::sys::Errno;

/// How much of a file is looked at; linkers put the loader's name right behind the headers.
pub(super) const HEAD: u64 = 4096;

/// `BINPRM_BUF_SIZE`: what the kernel reads of a script's first line.
const FIRST_LINE: usize = 256;

/// Machines (`e_machine`) whose programs run on this one.
#[cfg(target_arch = "x86_64")]
const MACHINES: &[u16] = &[62, 3];
#[cfg(target_arch = "aarch64")]
const MACHINES: &[u16] = &[183, 40];
#[cfg(target_arch = "riscv64")]
const MACHINES: &[u16] = &[243];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
const MACHINES: &[u16] = &[];

/// The file that a program names, which has to be there to run it; by the first bytes of the program.
///
/// # Errors
/// `ENOEXEC`: it is no program.
pub(super) fn needed(head: &[u8]) -> Result<Option<PathBuf>, Errno> {
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line[..line.len().min(FIRST_LINE - 2)].split(|&byte| byte == b'\n').next().unwrap_or_default();
        let mut words = line.split(|byte| matches!(byte, b' ' | b'\t' | 0)).filter(|word| !word.is_empty());
        return words.next().map(|word| Some(path(word))).ok_or(Errno::ENOEXEC);
    }
    if !head.starts_with(b"\x7fELF") {
        return Err(Errno::ENOEXEC);
    }
    let Some(elf) = Elf::new(head) else { return Err(Errno::ENOEXEC) };
    if !MACHINES.is_empty() && elf.number(18, 2).is_some_and(|machine| !MACHINES.contains(&(machine as u16))) {
        return Err(Errno::ENOEXEC);
    }
    Ok(elf.loader())
}

/// Whether the kernel may have been told how to run other files, binfmt_misc.
pub(super) fn others_may_run() -> bool {
    std::fs::read_dir("/proc/sys/fs/binfmt_misc").into_iter().flatten().flatten().any(|entry| {
        let name = entry.file_name();
        name != "register" && name != "status"
    })
}

fn path(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::OsStr::from_bytes(bytes).into()
}

/// An ELF file, elf(5).
struct Elf<'a> {
    head: &'a [u8],
    wide: bool,
    little: bool,
}

impl<'a> Elf<'a> {
    fn new(head: &'a [u8]) -> Option<Elf<'a>> {
        let (class, order) = (*head.get(4)?, *head.get(5)?);
        Some(Elf { head, wide: class == 2, little: order == 1 })
    }

    fn number(&self, at: u64, size: usize) -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        let bytes = self.head.get(at..at.checked_add(size)?)?;
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(if self.little { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) })
    }

    /// What its program header of type `PT_INTERP` says.
    fn loader(&self) -> Option<PathBuf> {
        const INTERP: u64 = 3;
        let (table, size, count) = if self.wide { ((32, 8), 54, 56) } else { ((28, 4), 42, 44) };
        let (table, size, count) = (self.number(table.0, table.1)?, self.number(size, 2)?, self.number(count, 2)?);
        for index in 0..count {
            let entry = table.checked_add(index * size)?;
            if self.number(entry, 4)? != INTERP {
                continue;
            }
            let (place, length) = if self.wide { ((8, 8), (32, 8)) } else { ((4, 4), (16, 4)) };
            let place = usize::try_from(self.number(entry + place.0, place.1)?).ok()?;
            let length = usize::try_from(self.number(entry + length.0, length.1)?).ok()?;
            let name = self.head.get(place..place.checked_add(length)?)?;
            return Some(path(name.split(|&byte| byte == 0).next().unwrap_or_default()));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_names_its_interpreter() {
        for (head, name) in
            [("#!/bin/sh\necho", "/bin/sh"), ("#! \t/usr/bin/env  python3\n", "/usr/bin/env"), ("#!/x", "/x")]
        {
            assert_eq!(needed(head.as_bytes()), Ok(Some(name.into())), "{head}");
        }
        for bad in ["#!\n/bin/sh", "#!", "echo", "", "\x7fEL"] {
            assert_eq!(needed(bad.as_bytes()), Err(Errno::ENOEXEC), "{bad}");
        }
    }

    #[test]
    fn a_dynamic_program_names_its_loader() {
        let Ok(head) = std::fs::read("/bin/cat") else { return };
        let loader = needed(&head[..HEAD as usize]).unwrap().unwrap();
        assert!(loader.is_absolute() && loader.exists(), "{loader:?}");
        // Nothing of it may lead beyond its end.
        for length in 0..1024 {
            let _ = needed(&head[..length]);
        }
        let mut broken = head[..1024].to_vec();
        broken[32..64].fill(0xff);
        assert_eq!(needed(&broken), Ok(None));
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn a_program_of_another_machine_is_none_here() {
        let mut head = [0u8; 64];
        head[..6].copy_from_slice(b"\x7fELF\x02\x01");
        head[18] = 183;
        assert_eq!(needed(&head), Err(Errno::ENOEXEC));
        head[18] = 62;
        assert_eq!(needed(&head), Ok(None));
    }
}
