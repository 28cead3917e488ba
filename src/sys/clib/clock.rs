//! The time of the clock on the wall.

/// A moment in the host's time zone, as far as a table of processes needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// Since the year 0.
    pub year: i32,
    /// From 0 on.
    pub day_of_year: i32,
    /// From 0 on.
    pub month: usize,
    /// From 1 on.
    pub day: i32,
    /// Of the day.
    pub hour: i32,
    /// Of the hour.
    pub minute: i32,
}

/// A moment given in seconds since 1970, localtime_r(3).
pub fn local(seconds: u64) -> Option<Local> {
    let seconds = i64::try_from(seconds).ok()?;
    // SAFETY: an all-zero `tm` is a valid value of that plain C structure (no name of a zone).
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: the call reads one number and writes one `tm`, both live locals.
    let done = unsafe { libc::localtime_r(&raw const seconds, &raw mut tm) };
    let month = usize::try_from(tm.tm_mon).ok()?;
    let (year, day_of_year) = (tm.tm_year + 1900, tm.tm_yday);
    let local = Local { year, day_of_year, month, day: tm.tm_mday, hour: tm.tm_hour, minute: tm.tm_min };
    (!done.is_null()).then_some(local)
}
