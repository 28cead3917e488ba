//! What the kernel takes in the files of a cgroup, as far as its source settles it (the same from 5.14 on): so that a
//! refusal has its reason, and `check` needs no cgroup to find it. The kernel stays the judge of what is written.

use std::fs;
use std::path::Path;

use super::Location;
use super::files;
use super::limits::Write;
use crate::sys::Errno;

/// That a value is refused.
#[derive(Debug, PartialEq)]
pub(super) struct Refusal {
    pub(super) errno: Errno,
    /// What would be taken.
    pub(super) hint: String,
}

/// Files with one whole number.
struct Number {
    file: &'static str,
    least: i64,
    most: i64,
    /// What the kernel says of one outside; of what is no number it says EINVAL.
    errno: Errno,
    /// `max` is a value, too.
    or_max: bool,
}

/// `PID_MAX_LIMIT`, linux/threads.h.
const MOST_PIDS: i64 = if size_of::<usize>() > 4 { 4 << 20 } else { 1 << 15 };

#[rustfmt::skip]
const NUMBERS: &[Number] = &[
    Number { file: "cgroup.max.depth",        least: 0,   most: i32::MAX as i64, errno: Errno::ERANGE, or_max: true },
    Number { file: "cgroup.max.descendants",  least: 0,   most: i32::MAX as i64, errno: Errno::ERANGE, or_max: true },
    Number { file: "cgroup.pressure",         least: 0,   most: 1,               errno: Errno::ERANGE, or_max: false },
    Number { file: "cpu.idle",                least: 0,   most: 1,               errno: Errno::EINVAL, or_max: false },
    Number { file: "cpu.max.burst",           least: 0,   most: MOST_BURST,      errno: Errno::EINVAL, or_max: false },
    Number { file: "cpu.weight",              least: 1,   most: 10_000,          errno: Errno::ERANGE, or_max: false },
    Number { file: "cpu.weight.nice",         least: -20, most: 19,              errno: Errno::ERANGE, or_max: false },
    Number { file: "memory.oom.group",        least: 0,   most: 1,               errno: Errno::EINVAL, or_max: false },
    Number { file: "pids.max",                least: 0,   most: MOST_PIDS,       errno: Errno::EINVAL, or_max: true },
];

/// Files with an amount of memory.
const BYTES: &[&str] =
    &["memory.high", "memory.low", "memory.max", "memory.min", "memory.swap.high", "memory.swap.max"];

/// Keys of `io.max`.
const RATES: &[&str] = &["rbps", "wbps", "riops", "wiops"];

/// The shortest and the longest period and the shortest quota, and the longest quota, in microseconds (`MAX_BW`,
/// kernel/sched/sched.h).
const LEAST_TIME: u64 = 1_000;
const MOST_PERIOD: u64 = 1_000_000;
const MOST_QUOTA: u64 = (1 << 44) - 1;
/// The longest burst without a quota: what is still a number of nanoseconds.
const MOST_BURST: i64 = (u64::MAX / 1_000) as i64;

/// Majors of devices that the kernel may make when they are asked for: ramdisk, loop, md.
const MADE_WHEN_ASKED: &[&str] = &["1", "7", "9"];

/// Why the kernel refuses to have this value in a file that is there, if that can be known before.
pub(super) fn refuses(file: &str, value: &str, place: &Location) -> Option<Refusal> {
    let value = value.trim();
    if let Some(number) = NUMBERS.iter().find(|number| number.file == file) {
        return number.refuses(value);
    }
    match file {
        "cpu.max" => refuses_time(value),
        "cpuset.cpus" => refuses_list(value, &possible("cpu"), Errno::ERANGE),
        "cpuset.mems" => refuses_list(value, &possible("node"), Errno::EINVAL),
        "io.max" => refuses_rates(value),
        "io.weight" => refuses_weight(value, 10_000, Errno::EINVAL),
        "io.bfq.weight" => refuses_weight(value, 1_000, Errno::ERANGE),
        "misc.max" => refuses_kind(value, &files::read(&format!("{}/misc.capacity", place.mount())).ok()?),
        "rdma.max" => {
            let device = value.split_whitespace().next()?;
            let there = Path::new("/sys/class/infiniband").join(device).exists();
            because(!there, Errno::ENODEV, || format!("this machine has no RDMA device {device}"))
        }
        _ if BYTES.contains(&file) || file.starts_with("hugetlb.") && file.ends_with(".max") => refuses_bytes(value),
        _ => None,
    }
}

/// That a burst is refused beside a quota: both of the same list of limits, of which `earlier` come before this one.
pub(super) fn refuses_beside(file: &str, value: &str, earlier: &[Write]) -> Option<Refusal> {
    let other = |file: &str| earlier.iter().rev().find(|write| write.file == file).map(|write| write.value.as_ref());
    let (burst, quota) = match file {
        "cpu.max" => (other("cpu.max.burst")?, value),
        "cpu.max.burst" => (value, other("cpu.max")?),
        _ => return None,
    };
    let burst: u64 = burst.trim().parse().ok()?;
    let quota: u64 = quota.split_whitespace().next()?.parse().ok()?;
    because(burst > quota, Errno::EINVAL, || BURST.to_owned())
}

/// What is known of a burst that is refused.
pub(super) const BURST: &str = "the burst must not exceed the quota";

fn because(condition: bool, errno: Errno, hint: impl FnOnce() -> String) -> Option<Refusal> {
    condition.then(|| Refusal { errno, hint: hint() })
}

impl Number {
    fn refuses(&self, value: &str) -> Option<Refusal> {
        let Number { file, least, most, or_max, .. } = self;
        if *or_max && value == "max" {
            return None;
        }
        let errno = match integer(value).and_then(|number| i64::try_from(number).ok()) {
            Some(number) if (*least..=*most).contains(&number) => return None,
            Some(_) => self.errno,
            None => Errno::EINVAL,
        };
        let or_max = if *or_max { ", or max" } else { "" };
        Some(Refusal { errno, hint: format!("{file} takes {least} to {most}{or_max}") })
    }
}

/// A number in C's forms, as kstrtoll() of the kernel reads them: decimal, `0x` hexadecimal, `0` octal.
pub(super) fn integer(word: &str) -> Option<i128> {
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

fn refuses_time(value: &str) -> Option<Refusal> {
    let mut words = value.split_whitespace();
    let (quota, period) = (words.next()?, words.next());
    let within = |text: &str, most: u64| text.parse().is_ok_and(|number: u64| (LEAST_TIME..=most).contains(&number));
    let refuses = |what: &str, most: u64| {
        let hint = format!("a {what} is {LEAST_TIME} to {most} microseconds");
        Some(Refusal { errno: Errno::EINVAL, hint })
    };
    if quota != "max" && !within(quota, MOST_QUOTA) {
        return refuses("quota", MOST_QUOTA);
    }
    // The kernel passes over what is no number there.
    match period {
        Some(period) if period.parse::<u64>().is_ok() && !within(period, MOST_PERIOD) => refuses("period", MOST_PERIOD),
        _ => None,
    }
}

fn refuses_bytes(value: &str) -> Option<Refusal> {
    let digits = match value.strip_prefix("0x") {
        Some(digits) => digits.trim_start_matches(|letter: char| letter.is_ascii_hexdigit()),
        None => value.trim_start_matches(|letter: char| letter.is_ascii_digit()),
    };
    let taken = matches!(digits, "" | "k" | "K" | "m" | "M" | "g" | "G" | "t" | "T" | "p" | "P" | "e" | "E");
    because(!taken && value != "max", Errno::EINVAL, || {
        "it takes a number of bytes, or of units of them such as 50M, or max".to_owned()
    })
}

/// The numbers that processors or nodes of this machine can have, as a list.
fn possible(what: &str) -> String {
    let list = fs::read_to_string(format!("/sys/devices/system/{what}/possible")).unwrap_or_default();
    list.trim().to_owned()
}

/// A list such as `0-3,8`, all of it on this machine. What else the kernel reads ("all", steps) is not judged.
fn refuses_list(list: &str, possible: &str, beyond: Errno) -> Option<Refusal> {
    let is_between = |letter: char| letter == ',' || letter.is_ascii_whitespace();
    let is_simple = |letter: char| letter.is_ascii_digit() || is_between(letter) || letter == '-';
    let highest: u32 = possible.rsplit(['-', ',']).next()?.parse().ok()?;
    if list.contains(':') || list.contains("all") || list.contains('N') {
        return None;
    }
    let refusal =
        |errno| Some(Refusal { errno, hint: format!("it takes a list, as in 0-2,4, of what there is: {possible}") });
    if !list.chars().all(is_simple) {
        return refusal(Errno::EINVAL);
    }
    for part in list.split(is_between).filter(|part| !part.is_empty()) {
        match crate::sys::procfs::list::part(part) {
            Ok(range) if range.start() > range.end() => return refusal(Errno::EINVAL),
            Ok(range) if *range.end() > highest => return refusal(beyond),
            Ok(_) => {}
            Err(_) => return refusal(Errno::EINVAL),
        }
    }
    None
}

fn refuses_device(number: &str) -> Option<Refusal> {
    let (major, _) = number.split_once(':')?;
    let here = Path::new("/sys/dev/block");
    let device = here.join(number);
    if !here.exists() || MADE_WHEN_ASKED.contains(&major) {
        return None;
    }
    because(!device.exists(), Errno::ENODEV, || format!("this machine has no block device {number}")).or_else(|| {
        let is_part = device.join("partition").exists();
        because(is_part, Errno::ENODEV, || format!("{number} is a partition, and limits are for a whole disk"))
    })
}

fn refuses_rates(value: &str) -> Option<Refusal> {
    let mut words = value.split_whitespace();
    if let Some(refusal) = refuses_device(words.next()?) {
        return Some(refusal);
    }
    words.find_map(|word| {
        let (key, rate) = word.split_once('=').unwrap_or((word, ""));
        let errno = match rate {
            _ if !RATES.contains(&key) => Errno::EINVAL,
            "max" => return None,
            rate => match rate.parse::<u64>() {
                Ok(0) => Errno::ERANGE,
                Ok(2..) => return None,
                Ok(1) | Err(_) => Errno::EINVAL,
            },
        };
        let hint = format!("it takes {} with a number above 1 or max, as in rbps=1048576", RATES.join(", "));
        Some(Refusal { errno, hint })
    })
}

fn refuses_weight(value: &str, most: u32, errno: Errno) -> Option<Refusal> {
    let (whose, weight) = value.split_once(char::is_whitespace).unwrap_or(("default", value));
    if whose != "default"
        && let Some(refusal) = refuses_device(whose)
    {
        return Some(refusal);
    }
    let number = weight.trim().parse::<u32>();
    let taken = number.as_ref().is_ok_and(|number| (1..=most).contains(number)) || weight == "default";
    let errno = if number.is_ok() { errno } else { Errno::EINVAL };
    because(!taken, errno, || format!("a weight is 1 to {most}"))
}

/// `misc.max` against the lines of `misc.capacity`.
fn refuses_kind(value: &str, capacity: &str) -> Option<Refusal> {
    let kind = value.split_whitespace().next()?;
    let known: Vec<&str> = capacity.lines().filter_map(|line| line.split_whitespace().next()).collect();
    because(!known.contains(&kind), Errno::EINVAL, || match known[..] {
        [] => "this machine has nothing that misc.max limits".to_owned(),
        _ => format!("misc.max limits {} on this machine", known.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::limits::Limits;

    fn errno(refusal: Option<Refusal>) -> Option<Errno> {
        refusal.map(|refusal| refusal.errno)
    }

    fn of(file: &str, value: &str) -> Option<Errno> {
        let mount = r#"{"driver":"cgroupfs","mount":"/nowhere","path":"c","made":1}"#;
        errno(refuses(file, value, &serde_json::from_str(mount).unwrap()))
    }

    #[test]
    fn numbers_have_their_range() {
        for (file, value, verdict) in [
            ("pids.max", "4194304", None),
            ("pids.max", "4194305", Some(Errno::EINVAL)),
            ("pids.max", "max", None),
            ("pids.max", "0x10", None),
            ("pids.max", "-1", Some(Errno::EINVAL)),
            ("pids.max", "many", Some(Errno::EINVAL)),
            ("cpu.max.burst", "18446744073709551", None),
            ("cpu.max.burst", "much", Some(Errno::EINVAL)),
            ("cpu.weight", "0", Some(Errno::ERANGE)),
            ("cpu.weight", "10000", None),
            ("cpu.weight", "max", Some(Errno::EINVAL)),
            ("cpu.weight.nice", "-20", None),
            ("cpu.weight.nice", "20", Some(Errno::ERANGE)),
            ("cgroup.max.depth", "-1", Some(Errno::ERANGE)),
            ("cgroup.max.depth", "+-1", Some(Errno::EINVAL)),
            ("memory.oom.group", "2", Some(Errno::EINVAL)),
            ("somebody.elses", "anything", None),
        ] {
            assert_eq!(of(file, value), verdict, "{file} {value}");
        }
    }

    #[test]
    fn times_are_a_millisecond_to_a_second() {
        for (value, verdict) in [
            ("max 100000", None),
            ("max", None),
            ("1000 1000", None),
            ("17592186044415 1000000", None),
            ("17592186044416 1000000", Some(Errno::EINVAL)),
            ("999 100000", Some(Errno::EINVAL)),
            ("max 10", Some(Errno::EINVAL)),
            ("max 1000001", Some(Errno::EINVAL)),
            ("half", Some(Errno::EINVAL)),
        ] {
            assert_eq!(of("cpu.max", value), verdict, "{value}");
        }
    }

    #[test]
    fn a_burst_is_within_the_quota_whichever_is_written_first() {
        for (resources, verdict) in [
            (r#"{"cpu":{"burst":2000,"quota":1000}}"#, Some("cpu.max.burst")),
            (r#"{"cpu":{"burst":1000,"quota":1000}}"#, None),
            (r#"{"cpu":{"burst":2000,"quota":-1}}"#, None),
            (r#"{"unified":{"cpu.max":"1000","cpu.max.burst":"2000"}}"#, Some("cpu.max.burst")),
            (r#"{"cpu":{"burst":2000},"unified":{"cpu.max":"1000"}}"#, Some("cpu.max")),
        ] {
            let limits = Limits::plan(&serde_json::from_str(resources).unwrap()).unwrap();
            let writes = limits.writes();
            let refused = |index: &usize| {
                let write: &Write = &writes[*index];
                refuses_beside(&write.file, &write.value, &writes[..*index]).is_some()
            };
            let found = (0..writes.len()).find(refused).map(|index| writes[index].file.as_ref());
            assert_eq!(found, verdict, "{resources}");
        }
    }

    #[test]
    fn memory_is_bytes_or_units_of_them() {
        for value in ["0", "4096", "0x1000", "50M", "1g", "max"] {
            assert_eq!(of("memory.high", value), None, "{value}");
        }
        for value in ["much", "50MB", "-1", "1.5G", "5 M"] {
            assert_eq!(of("hugetlb.2MB.max", value), Some(Errno::EINVAL), "{value}");
        }
    }

    #[test]
    fn lists_are_of_what_the_machine_can_have() {
        let judge = |list: &str| errno(refuses_list(list, "0-3", Errno::ERANGE));
        for list in ["0", "0-3", "0,2-3", "0 1", "1,,2", "all", "0-3:1/2", "N", ""] {
            assert_eq!(judge(list), None, "{list}");
        }
        assert_eq!(judge("77"), Some(Errno::ERANGE));
        assert_eq!(judge("0-4"), Some(Errno::ERANGE));
        for list in ["3-1", "first", "-1", "1-"] {
            assert_eq!(judge(list), Some(Errno::EINVAL), "{list}");
        }
        assert_eq!(errno(refuses_list("77", "", Errno::ERANGE)), None, "nothing is known");
        assert_eq!(errno(refuses_list("1", "0", Errno::EINVAL)), Some(Errno::EINVAL));
    }

    #[test]
    fn what_is_limited_by_name_has_to_be_there() {
        assert_eq!(of("io.max", "250:250 rbps=1"), Some(Errno::ENODEV));
        assert_eq!(of("io.max", "7:200 rbps=2"), None);
        assert_eq!(of("io.max", "7:0 rbps=0"), Some(Errno::ERANGE));
        assert_eq!(of("io.max", "7:0 rbps=1"), Some(Errno::EINVAL));
        assert_eq!(of("io.max", "7:0 speed=1"), Some(Errno::EINVAL));
        assert_eq!(of("io.max", "7:0 wiops=max rbps=much"), Some(Errno::EINVAL));
        assert_eq!(of("io.weight", "default 10001"), Some(Errno::EINVAL));
        assert_eq!(of("io.bfq.weight", "1001"), Some(Errno::ERANGE));
        assert_eq!(of("io.weight", "7:0 default"), None);
        assert_eq!(of("rdma.max", "nosuch0 hca_handle=1"), Some(Errno::ENODEV));
        assert_eq!(errno(refuses_kind("sev 3", "sev_es 9\nsev 5\n")), None);
        assert_eq!(errno(refuses_kind("sev 3", "")), Some(Errno::EINVAL));
        assert_eq!(of("misc.max", "sev 3"), None, "nothing is known");
    }
}
