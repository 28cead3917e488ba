//! Points in time as RFC 3339 writes them, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, to the second: `2026-08-19T10:00:00Z`.
pub fn now_seconds() -> String {
    let (seconds, _) = now();
    text(seconds) + "Z"
}

/// The moment this long ago, to the second.
pub fn seconds_ago(seconds: u64) -> String {
    text(now().0.saturating_sub(seconds)) + "Z"
}

/// Now, to the nanosecond: `2026-08-19T10:00:00.123456789Z`.
pub fn now_nanoseconds() -> String {
    let (seconds, nanoseconds) = now();
    format!("{}.{nanoseconds:09}Z", text(seconds))
}

fn now() -> (u64, u32) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs(), since.subsec_nanos())
}

fn text(seconds: u64) -> String {
    let (days, rest) = (seconds / 86400, seconds % 86400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

/// The date of a day counted from 1970-01-01, in the Gregorian calendar. Years are counted from March, so that the
/// leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_are_written_right() {
        assert_eq!(text(0), "1970-01-01T00:00:00");
        assert_eq!(text(951_782_399), "2000-02-28T23:59:59");
        assert_eq!(text(951_782_400), "2000-02-29T00:00:00");
        assert_eq!(text(1_790_000_000), "2026-09-21T14:13:20");
    }
}
