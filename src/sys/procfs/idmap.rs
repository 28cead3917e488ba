//! `/proc/PID/uid_map` and `gid_map`, user_namespaces(7).

use std::fmt;

/// One line of a map: `size` ids from `inside` on are those from `outside` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first id in the namespace.
    pub inside: u32,
    /// The first id outside.
    pub outside: u32,
    /// How many there are.
    pub size: u32,
}

impl IdRange {
    /// Whether the other one follows right behind, on both sides.
    pub fn goes_on_as(&self, next: &IdRange) -> bool {
        self.inside.checked_add(self.size) == Some(next.inside)
            && self.outside.checked_add(self.size) == Some(next.outside)
            && self.size.checked_add(next.size).is_some()
    }
}

/// A line as the kernel takes it.
impl fmt::Display for IdRange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let IdRange { inside, outside, size } = self;
        writeln!(out, "{inside} {outside} {size}")
    }
}

/// Reads a map; a line that is not understood is left out.
pub fn parse(text: &str) -> impl Iterator<Item = IdRange> {
    text.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map(|word| word.parse().ok());
        Some(IdRange { inside: numbers.next()??, outside: numbers.next()??, size: numbers.next()?? })
    })
}

/// The outer id of an inner one.
pub fn outer(map: impl IntoIterator<Item = IdRange>, inside: u32) -> Option<u32> {
    map.into_iter().find_map(|range| {
        let offset = inside.checked_sub(range.inside).filter(|&offset| offset < range.size)?;
        range.outside.checked_add(offset)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_read_as_it_is_written() {
        let text = "         0     100000      65536\n     65536       1000          1\nx 1 2\n1 2\n\n";
        let map: Vec<IdRange> = parse(text).collect();
        let range = |inside, outside, size| IdRange { inside, outside, size };
        assert_eq!(map, [range(0, 100_000, 65536), range(65536, 1000, 1)]);
        assert_eq!(map.iter().map(IdRange::to_string).collect::<String>(), "0 100000 65536\n65536 1000 1\n");
        assert!(range(0, 5, 2).goes_on_as(&range(2, 7, 1)) && !range(0, 5, 2).goes_on_as(&range(2, 8, 1)));
    }

    #[test]
    fn an_id_is_looked_up_from_inside() {
        let find = |inside| outer(parse("0 100000 10\n10 1000 1\n20 4294967290 9\n"), inside);
        assert_eq!([0, 9, 10, 11, 20].map(find), [Some(100_000), Some(100_009), Some(1000), None, Some(4_294_967_290)]);
        assert_eq!(find(27), None);
    }
}
