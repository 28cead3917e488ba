//! Lists of numbers such as `0-3,7`, by which the kernel names CPUs and memory nodes, cpuset(7).

use std::ops::RangeInclusive;

/// The numbers of one part of a list, `7` or `0-3`. What runs backwards is an empty range.
///
/// # Errors
/// What is no number.
pub fn part(text: &str) -> Result<RangeInclusive<u32>, &str> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Ok(number(first)?..=number(last)?)
}

/// Decimal digits, and blanks around them.
fn number(text: &str) -> Result<u32, &str> {
    let digits = text.trim();
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain).ok_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_a_number_or_two() {
        assert_eq!((part("7"), part("0-3"), part(" 1 - 2\n")), (Ok(7..=7), Ok(0..=3), Ok(1..=2)));
        assert_eq!((part("0").unwrap().count(), part("3-1").unwrap().count()), (1, 0));
        for (wrong, what) in [("", ""), ("a", "a"), ("1-", ""), ("-1", ""), ("1-2-3", "2-3"), ("0-+1", "+1")] {
            assert_eq!(part(wrong), Err(what), "{wrong:?}");
        }
        assert_eq!(part("4294967296"), Err("4294967296"));
    }
}
