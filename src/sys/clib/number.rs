//! Numbers in the forms that C reads.

/// A whole number in C's forms, as strtoll(3) with a base of 0 and kstrtoll() of the kernel read them: decimal, `0x`
/// hexadecimal, `0` octal.
pub fn integer(word: &str) -> Option<i128> {
    let (sign, digits) = match word.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, word.strip_prefix('+').unwrap_or(word)),
    };
    let (radix, digits) = match digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        Some(hex) => (16, hex),
        None if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        None => (10, digits),
    };
    let plain = !digits.is_empty() && digits.len() <= 24 && digits.chars().all(|digit| digit.is_digit(radix));
    i128::from_str_radix(digits, radix).ok().filter(|_| plain).map(|number| sign * number)
}
