//! What procfs says of one process: `/proc/PID/stat`, `status` and `cgroup`.

/// One line of proc_pid_stat(5).
#[derive(Clone, Copy, Debug)]
pub struct Stat<'a> {
    /// The name of the program, field 2.
    pub name: &'a [u8],
    /// From field 3 on.
    rest: &'a str,
}

impl<'a> Stat<'a> {
    /// Reads the line. The name may hold anything, a closing parenthesis too; the last one ends it.
    pub fn parse(line: &'a [u8]) -> Option<Stat<'a>> {
        let (start, end) = (line.iter().position(|&byte| byte == b'(')?, line.iter().rposition(|&byte| byte == b')')?);
        let rest = std::str::from_utf8(line.get(end + 1..)?).ok()?;
        Some(Stat { name: line.get(start + 1..end)?, rest })
    }

    /// A field from the third on, as the manual page counts them.
    pub fn field(&self, number: usize) -> Option<&'a str> {
        self.rest.split_ascii_whitespace().nth(number.checked_sub(3)?)
    }

    /// The same, of numbers.
    pub fn number<T: std::str::FromStr>(&self, number: usize) -> Option<T> {
        self.field(number)?.parse().ok()
    }

    /// Whether the process has ended, and is reaped or waits for that.
    pub fn is_dead(&self) -> bool {
        matches!(self.field(3), Some("Z" | "X"))
    }
}

/// A value of proc_pid_status(5), or of a `/proc/PID/fdinfo` file: what stands behind `NAME:`.
pub fn status<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// The path of the cgroup of version 2 in a `/proc/PID/cgroup`, cgroups(7).
pub fn cgroup(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_hides_no_field() {
        let stat = Stat::parse(b"7 (a) b) S 3 7 5 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 4242 1 2 3\n").unwrap();
        assert_eq!((stat.name, stat.field(3), stat.field(25)), (&b"a) b"[..], Some("S"), Some("3")));
        assert_eq!((stat.number(4), stat.number::<i32>(8), stat.number(22)), (Some(3), Some(-1), Some(4242_u64)));
        assert_eq!((stat.field(26), stat.field(2), stat.number::<u32>(3)), (None, None, None));
        assert!(!stat.is_dead() && Stat::parse(b"7 (a) Z 3").unwrap().is_dead());
        for wrong in [&b""[..], b"7 S 3", b"7 )a( S 3"] {
            assert!(Stat::parse(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn a_value_of_status_has_its_whole_name() {
        let text = "Name:\tsh\nPid:\t7\nPPid:\t3\nUid:\t0\t1\t2\t3\nGroups:\t\n";
        assert_eq!(status(text, "PPid"), Some("3"));
        assert_eq!(status(text, "Uid"), Some("0\t1\t2\t3"));
        assert_eq!(status(text, "Groups"), Some(""));
        assert_eq!((status(text, "id"), status(text, "P"), status(text, "sh")), (None, None, None));
    }

    #[test]
    fn the_cgroup_is_that_of_version_2() {
        assert_eq!(cgroup("12:cpu:/old\n0::/new/x:y\n"), Some("/new/x:y"));
        assert_eq!((cgroup("12:cpu:/old\n"), cgroup("10::/x\n")), (None, None));
    }
}
