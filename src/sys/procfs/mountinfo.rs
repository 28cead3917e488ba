//! `/proc/PID/mountinfo`, proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mount<'a> {
    /// The device number, `MAJOR:MINOR`.
    pub device: &'a [u8],
    root: &'a [u8],
    point: &'a [u8],
    /// The type of the file system.
    pub fstype: &'a [u8],
}

impl Mount<'_> {
    /// What of the file system is mounted.
    pub fn root(&self) -> PathBuf {
        unescape(self.root)
    }

    /// Whether that is all of it.
    pub fn is_whole(&self) -> bool {
        self.root == b"/"
    }

    /// Where, below the root of the process.
    pub fn point(&self) -> PathBuf {
        unescape(self.point)
    }
}

/// Reads a table; a line that is not understood is left out.
pub fn parse(table: &[u8]) -> impl Iterator<Item = Mount<'_>> {
    table.split(|&byte| byte == b'\n').filter_map(parse_line)
}

/// `36 35 98:0 /root /mnt/x rw shared:1 - ext4 /dev/sda rw`.
fn parse_line(line: &[u8]) -> Option<Mount<'_>> {
    let mut fields = line.split(|&byte| byte == b' ').skip(2);
    let (device, root, point) = (fields.next()?, fields.next()?, fields.next()?);
    let fstype = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(Mount { device, root, point, fstype })
}

/// The kernel writes blank, tab, newline and backslash as a backslash and three octal digits.
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
    fn a_line_tells_device_root_place_and_type() {
        let table = b"36 35 98:0 /a\\134b /mnt/a\\040\\xb\xff rw shared:1 master:2 - ext4 /dev/sda rw\nno mount\n\
            37 35 0:5 / /x rw - proc proc rw\n";
        let mounts: Vec<_> = parse(table).collect();
        let [first, second] = &mounts[..] else { panic!("{mounts:?}") };
        assert_eq!((first.device, first.fstype, first.is_whole()), (&b"98:0"[..], &b"ext4"[..], false));
        assert_eq!(first.root(), PathBuf::from("/a\\b"));
        assert_eq!(first.point(), PathBuf::from(OsString::from_vec(b"/mnt/a \\xb\xff".to_vec())));
        assert_eq!((second.point(), second.fstype, second.is_whole()), (PathBuf::from("/x"), &b"proc"[..], true));
    }
}
