//! Lines of `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mount.
pub(super) struct Entry {
    /// The directory of the file system that is mounted.
    pub(super) root: PathBuf,
    /// Where.
    pub(super) point: PathBuf,
    pub(super) fstype: String,
}

/// `36 35 98:0 / /mnt/x rw shared:1 - ext4 /dev/sda rw`: the fourth field is the root, the fifth the mount point.
pub(super) fn entry(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|&byte| byte == b' ');
    let (root, point) = (fields.nth(3)?, fields.next()?);
    let fstype = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(Entry { root: unescape(root), point: unescape(point), fstype: String::from_utf8_lossy(fstype).into_owned() })
}

/// A path, where the kernel writes `\040` and the like for blanks.
fn unescape(field: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|_| byte == b'\\').and_then(|text| std::str::from_utf8(text).ok());
        match digits.and_then(|text| u8::from_str_radix(text, 8).ok()) {
            Some(code) => (plain.push(code), rest = &tail[3..]),
            None => (plain.push(byte), rest = tail),
        };
    }
    PathBuf::from(OsString::from_vec(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_tells_place_and_type() {
        let line = entry(b"36 35 98:0 / /mnt/a\\040b rw shared:1 - ext4 /dev/sda rw").unwrap();
        assert_eq!((line.point, line.fstype), (PathBuf::from("/mnt/a b"), "ext4".to_owned()));
    }
}
