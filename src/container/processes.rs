//! The table of `ps -ef`, read from procfs: for hosts that have no ps(1).

use std::fs;

use crate::error::{Context, Error, Result};
use crate::passwd::{Users, decimal};
use crate::sys;
use crate::sys::clib::clock::{Local, local};
use crate::sys::procfs::process::{self as procfs, Stat};

/// The titles of the columns.
const HEAD: [&str; 8] = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A line for each of these processes that still lives, under a head. What the names of programs hold is not made harmless.
pub fn table(pids: &[i32]) -> Result<Vec<String>> {
    let host = Host::look()?;
    let rows = pids.iter().filter_map(|pid| host.row(*pid));
    Ok(std::iter::once(HEAD.map(str::to_owned)).chain(rows).map(|row| line(&row)).collect())
}

/// Columns as wide as those of procps.
fn line([user, pid, parent, share, started, terminal, time, command]: &[String; 8]) -> String {
    format!("{user:<8} {pid:>7} {parent:>7} {share:>2} {started:>5} {terminal:<8} {time:>8} {command}")
}

/// What the rows have in common.
struct Host {
    users: Users,
    /// Seconds since 1970.
    boot: u64,
    now: u64,
    ticks: u64,
}

impl Host {
    fn look() -> Result<Host> {
        let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        let boot = stat.lines().find_map(|line| line.strip_prefix("btime ")?.parse().ok());
        let boot = boot.ok_or_else(|| Error::new("/proc/stat has no btime"))?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(Host { users: Users::of_host(), boot, now, ticks: sys::pid::ticks_per_second() })
    }

    fn row(&self, pid: i32) -> Option<[String; 8]> {
        let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).ok();
        let (stat, status) = (read("stat")?, read("status")?);
        let stat = Stat::parse(&stat)?;
        let number = |field: usize| stat.number::<u64>(field);
        let (used, started) = ((number(14)? + number(15)?) / self.ticks, self.boot + number(22)? / self.ticks);
        let share = (used * 100).checked_div(self.now.saturating_sub(started)).unwrap_or(0).min(99);
        // Real, effective, saved, of the file system.
        let status = String::from_utf8_lossy(&status);
        let user = procfs::status(&status, "Uid")?.split_ascii_whitespace().nth(1)?;
        let words = read("cmdline").unwrap_or_default();
        let words = String::from_utf8_lossy(&words).trim_end_matches('\0').replace('\0', " ");
        Some([
            self.name_of(user),
            pid.to_string(),
            number(4)?.to_string(),
            share.to_string(),
            local(started).zip(local(self.now)).map(|(then, now)| moment(then, now)).unwrap_or_default(),
            terminal(number(7)?),
            duration(used),
            if words.is_empty() { format!("[{}]", String::from_utf8_lossy(stat.name)) } else { words },
        ])
    }

    /// A user's name, cut to its column; the number of one who has none.
    fn name_of(&self, user: &str) -> String {
        let name = decimal(user).and_then(|id| self.users.name(id));
        match name.as_deref().unwrap_or(user) {
            long if long.len() > 8 => long.chars().take(7).chain(['+']).collect(),
            short => short.to_owned(),
        }
    }
}

/// The time of today, the day of this year, or the year.
fn moment(then: Local, now: Local) -> String {
    match () {
        () if then.year != now.year => then.year.to_string(),
        () if then.day_of_year != now.day_of_year => {
            format!("{}{:02}", MONTHS.get(then.month).copied().unwrap_or_default(), then.day)
        }
        () => format!("{:02}:{:02}", then.hour, then.minute),
    }
}

/// A terminal by its number, as field 7 of proc_pid_stat(5) has it.
fn terminal(number: u64) -> String {
    let (major, minor) = (number >> 8 & 0xfff, number & 0xff | number >> 12 & 0xfff00);
    match (major, minor) {
        (136..=143, _) => format!("pts/{}", minor + (major - 136) * 256),
        (4, 0..64) => format!("tty{minor}"),
        (4, _) => format!("ttyS{}", minor - 64),
        (5, 1) => "console".to_owned(),
        _ => "?".to_owned(),
    }
}

fn duration(seconds: u64) -> String {
    let (days, rest) = (seconds / 86400, seconds % 86400);
    let days = if days > 0 { format!("{days}-") } else { String::new() };
    format!("{days}{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_those_of_procps() {
        assert_eq!(
            [0, 34816, 34816 + 3, 0x0401, 0x0441, 0x0501, 0x1234_5678].map(terminal),
            ["?", "pts/0", "pts/3", "tty1", "ttyS1", "console", "?"]
        );
        assert_eq!([5, 3725, 90061].map(duration), ["00:00:05", "01:02:05", "1-01:01:01"]);
        let now = Local { year: 2026, day_of_year: 40, month: 1, day: 10, hour: 9, minute: 5 };
        assert_eq!(moment(now, now), "09:05");
        assert_eq!(moment(Local { day_of_year: 4, month: 0, day: 5, ..now }, now), "Jan05");
        assert_eq!(moment(Local { year: 2025, ..now }, now), "2025");
        let host =
            Host { users: Users::of(b"root:x:0:0\nsystemd-network:x:7:7\n".to_vec()), boot: 0, now: 0, ticks: 100 };
        assert_eq!(["0", "7", "1234"].map(|user| host.name_of(user)), ["root", "systemd+", "1234"]);
    }
}
