//! Users by their numbers, passwd(5). Read from the file: a static binary has no other name services.

use std::io::BufRead;

/// A number in decimal digits and nothing else, up to 2³²−1.
pub fn decimal(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// One line.
struct User<'a> {
    name: &'a [u8],
    id: u32,
    home: Option<&'a [u8]>,
}

impl User<'_> {
    /// `NAME:PASSWORD:UID:GID:COMMENT:HOME:SHELL`; what is behind the number may be missing.
    fn parse(line: &[u8]) -> Option<User<'_>> {
        let mut fields = line.trim_ascii_end().split(|&byte| byte == b':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        let id = std::str::from_utf8(id).ok().and_then(decimal)?;
        Some(User { name, id, home: fields.nth(2) })
    }
}

/// The users that a passwd file names.
pub struct Users(Vec<u8>);

impl Users {
    /// Those of a file's text.
    pub fn of(text: Vec<u8>) -> Users {
        Users(text)
    }

    /// Those of `/etc/passwd`; nobody has a name where that cannot be read.
    pub fn of_host() -> Users {
        Users::of(std::fs::read("/etc/passwd").unwrap_or_default())
    }

    /// The first name of a user.
    pub fn name(&self, id: u32) -> Option<String> {
        let mut users = self.0.split(|&byte| byte == b'\n').filter_map(User::parse);
        users.find(|user| user.id == id).map(|user| String::from_utf8_lossy(user.name).into_owned())
    }
}

/// The home directory of a user, by the first line that has the number.
pub fn home(mut passwd: impl BufRead, id: u32) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if passwd.read_until(b'\n', &mut line).ok()? == 0 {
            return None;
        }
        if let Some(user) = User::parse(&line).filter(|user| user.id == id) {
            return user.home.filter(|home| !home.is_empty() && !home.contains(&0)).map(<[u8]>::to_vec);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_directory_is_found_by_number_alone() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\n1001:x:0:0::/trap:/bin/sh\n# :x\n\nbob:x:1001:1001::/home/bob:\n\
            eve:x:1002:1002::::\nlast:x:1003:9::/last" as &[u8];
        let home = |uid| home(passwd, uid).map(|home| String::from_utf8(home).unwrap());
        assert_eq!(home(0).as_deref(), Some("/root"));
        assert_eq!(home(1001).as_deref(), Some("/home/bob"));
        assert_eq!(home(1002), None);
        assert_eq!(home(1003).as_deref(), Some("/last"));
        assert_eq!(home(4242), None);
    }

    #[test]
    fn a_name_is_the_first_that_has_the_number() {
        let users =
            Users::of(b"root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0\nshort:x:5\nsigned:x:+6:6::/:\nno:x\n".to_vec());
        let name = |id| users.name(id);
        assert_eq!((name(0).as_deref(), name(5).as_deref()), (Some("root"), Some("short")));
        assert_eq!((name(6), name(7)), (None, None));
        let users = Users::of(b"root:x:0:0::/root:/bin/sh\njo:x:1000:100::/home/jo:/bin/sh\n".to_vec());
        assert_eq!((users.name(1000).as_deref(), users.name(100)), (Some("jo"), None));
    }
}
