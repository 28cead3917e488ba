//! What the kernel takes in the files of a cgroup: so that a refusal has its reason, and `check` needs no cgroup to find
//! it. The kernel stays the judge of what is written; a test notices where it judges otherwise.

use std::fs;
use std::path::Path;

use super::Location;
use super::files;
use super::limits::Write;
use crate::sys::Errno;
use crate::sys::clib::number::integer;

/// That a value is refused.
#[derive(Debug, PartialEq)]
pub(super) struct Refusal {
    pub(super) errno: Errno,
    /// What would be taken.
    pub(super) hint: String,
}

/// What a file takes. Of a number `beyond` its range the kernel says that errno, and EINVAL of what is no number.
enum Form {
    Number { least: i64, most: i64, beyond: Errno },
    NumberOrMax { most: i64, beyond: Errno },
    Bytes,
    Bandwidth,
    List { of: &'static str, beyond: Errno },
    Rates,
    Weight { most: u32, beyond: Errno },
    Capacity,
    Rdma,
}
use Form::{Bandwidth, Bytes, Capacity, List, Number, NumberOrMax, Rates, Rdma, Weight};

/// `PID_MAX_LIMIT`, linux/threads.h.
const MOST_PIDS: i64 = if size_of::<usize>() > 4 { 4 << 20 } else { 1 << 15 };
/// The longest burst without a quota: what is still a number of nanoseconds.
const MOST_BURST: i64 = (u64::MAX / 1_000) as i64;

#[rustfmt::skip]
const FILES: &[(&str, Form)] = &[
    ("cgroup.max.depth",       NumberOrMax { most: i32::MAX as i64, beyond: Errno::ERANGE }),
    ("cgroup.max.descendants", NumberOrMax { most: i32::MAX as i64, beyond: Errno::ERANGE }),
    ("cgroup.pressure",        Number { least: 0, most: 1, beyond: Errno::ERANGE }),
    ("cpu.idle",               Number { least: 0, most: 1, beyond: Errno::EINVAL }),
    ("cpu.max",                Bandwidth),
    ("cpu.max.burst",          Number { least: 0, most: MOST_BURST, beyond: Errno::EINVAL }),
    ("cpu.weight",             Number { least: 1, most: 10_000, beyond: Errno::ERANGE }),
    ("cpu.weight.nice",        Number { least: -20, most: 19, beyond: Errno::ERANGE }),
    ("cpuset.cpus",            List { of: "cpu", beyond: Errno::ERANGE }),
    ("cpuset.mems",            List { of: "node", beyond: Errno::EINVAL }),
    ("hugetlb.*.max",          Bytes),
    ("io.bfq.weight",          Weight { most: 1_000, beyond: Errno::ERANGE }),
    ("io.max",                 Rates),
    ("io.weight",              Weight { most: 10_000, beyond: Errno::EINVAL }),
    ("memory.high",            Bytes),
    ("memory.low",             Bytes),
    ("memory.max",             Bytes),
    ("memory.min",             Bytes),
    ("memory.oom.group",       Number { least: 0, most: 1, beyond: Errno::EINVAL }),
    ("memory.swap.high",       Bytes),
    ("memory.swap.max",        Bytes),
    ("misc.max",               Capacity),
    ("pids.max",               NumberOrMax { most: MOST_PIDS, beyond: Errno::EINVAL }),
    ("rdma.max",               Rdma),
];

/// The shortest quota and period, the longest period, and the longest quota, in microseconds (`MAX_BW`,
/// kernel/sched/sched.h).
const LEAST_TIME: u64 = 1_000;
const MOST_PERIOD: u64 = 1_000_000;
const MOST_QUOTA: u64 = (1 << 44) - 1;

/// What is known of a burst that is refused.
pub(super) const BURST: &str = "the burst must not exceed the quota";

/// Why the kernel refuses to have this value in a file that is there, if that can be known before.
pub(super) fn refuses(file: &str, value: &str, place: &Location) -> Option<Refusal> {
    let is_huge = file.starts_with("hugetlb.") && file.ends_with(".max");
    let row = if is_huge { "hugetlb.*.max" } else { file };
    let (_, form) = FILES.iter().find(|(name, _)| *name == row)?;
    let errno = form.refuses(value.trim(), place)?;
    Some(Refusal { errno, hint: form.hint(file, place) })
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
    (burst > quota).then(|| Refusal { errno: Errno::EINVAL, hint: BURST.to_owned() })
}

impl Form {
    fn refuses(&self, value: &str, place: &Location) -> Option<Errno> {
        let mut words = value.split_whitespace();
        let unless = |taken: bool, errno| (!taken).then_some(errno);
        let number = |least, most, beyond| match integer(value).and_then(|number| i64::try_from(number).ok()) {
            Some(number) => unless((least..=most).contains(&number), beyond),
            None => Some(Errno::EINVAL),
        };
        match *self {
            NumberOrMax { .. } | Bytes if value == "max" => None,
            Number { least, most, beyond } => number(least, most, beyond),
            NumberOrMax { most, beyond } => number(0, most, beyond),
            Bytes => unless(is_amount(value), Errno::EINVAL),
            Bandwidth => unless(is_bandwidth(value), Errno::EINVAL),
            List { of, beyond } => refuses_list(value, &possible(of), beyond),
            Rates => refuses_device(words.next()?).or_else(|| words.find_map(refuses_rate)),
            Weight { most, beyond } => {
                let (whose, weight) = value.split_once(char::is_whitespace).unwrap_or(("default", value));
                let number = weight.trim().parse::<u32>().ok();
                let taken = weight == "default" || number.is_some_and(|number| (1..=most).contains(&number));
                refuses_device(whose).or(unless(taken, if number.is_some() { beyond } else { Errno::EINVAL }))
            }
            Capacity => unless(capacity(place)?.contains(&words.next()?.to_owned()), Errno::EINVAL),
            Rdma => unless(Path::new("/sys/class/infiniband").join(words.next()?).exists(), Errno::ENODEV),
        }
    }

    /// What it takes.
    fn hint(&self, file: &str, place: &Location) -> String {
        match self {
            Number { least, most, .. } => format!("{file} takes {least} to {most}"),
            NumberOrMax { most, .. } => format!("{file} takes 0 to {most}, or max"),
            Bytes => "it takes a number of bytes, or of units of them such as 50M, or max".to_owned(),
            Bandwidth => format!(
                "a quota is {LEAST_TIME} to {MOST_QUOTA} microseconds or max, a period {LEAST_TIME} to {MOST_PERIOD}"
            ),
            List { of, .. } => format!("it takes a list, as in 0-2,4, of what there is: {}", possible(of)),
            Rates => {
                "it takes a disk of this machine that is no partition, and rbps, wbps, riops and wiops with numbers \
                      above 1 or max, as in 8:0 rbps=1048576"
                    .to_owned()
            }
            Weight { most, .. } => format!("a weight is 1 to {most}, of all disks or of one that this machine has"),
            Capacity => match capacity(place).unwrap_or_default().join(", ") {
                kinds if kinds.is_empty() => format!("this machine has nothing that {file} limits"),
                kinds => format!("{file} limits {kinds} on this machine"),
            },
            Rdma => "it takes the name of an RDMA device of this machine".to_owned(),
        }
    }
}

/// A quota, and a period: the kernel passes over one that is no number.
fn is_bandwidth(value: &str) -> bool {
    let within = |number: u64, most| (LEAST_TIME..=most).contains(&number);
    let mut words = value.split_whitespace();
    let quota =
        words.next().is_none_or(|word| word == "max" || word.parse().is_ok_and(|quota| within(quota, MOST_QUOTA)));
    quota && words.next().and_then(|word| word.parse().ok()).is_none_or(|period| within(period, MOST_PERIOD))
}

fn is_amount(value: &str) -> bool {
    let unit = match value.strip_prefix("0x") {
        Some(digits) => digits.trim_start_matches(|letter: char| letter.is_ascii_hexdigit()),
        None => value.trim_start_matches(|letter: char| letter.is_ascii_digit()),
    };
    unit.is_empty() || unit.len() == 1 && "kKmMgGtTpPeE".contains(unit)
}

/// The numbers that processors or nodes of this machine can have, as a list.
fn possible(what: &str) -> String {
    let list = fs::read_to_string(format!("/sys/devices/system/{what}/possible")).unwrap_or_default();
    list.trim().to_owned()
}

/// What `misc.max` limits here; `None` where that is not known.
fn capacity(place: &Location) -> Option<Vec<String>> {
    let text = files::read(&format!("{}/misc.capacity", place.mount())).ok()?;
    Some(text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

/// A list such as `0-3,8`, all of it on this machine. What else the kernel reads ("all", steps) is not judged.
fn refuses_list(list: &str, possible: &str, beyond: Errno) -> Option<Errno> {
    let highest: u32 = possible.rsplit(['-', ',']).next()?.parse().ok()?;
    if list.contains(':') || list.contains("all") || list.contains('N') {
        return None;
    }
    let parts = list.split(|letter: char| letter == ',' || letter.is_ascii_whitespace());
    parts.filter(|part| !part.is_empty()).find_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.parse::<u32>().ok().filter(|_| !text.starts_with('+'));
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => (last > highest).then_some(beyond),
            _ => Some(Errno::EINVAL),
        }
    })
}

/// Majors of devices that the kernel may make when they are asked for: ramdisk, loop, md.
const MADE_WHEN_ASKED: &[&str] = &["1", "7", "9"];

/// A number such as 8:0 that is none of a whole disk.
fn refuses_device(number: &str) -> Option<Errno> {
    let (major, _) = number.split_once(':')?;
    let disks = Path::new("/sys/dev/block");
    let device = disks.join(number);
    let is_disk = || device.exists() && !device.join("partition").exists();
    let is_known = disks.exists() && !MADE_WHEN_ASKED.contains(&major);
    (is_known && !is_disk()).then_some(Errno::ENODEV)
}

/// A limit such as `rbps=1048576`.
fn refuses_rate(word: &str) -> Option<Errno> {
    match word.split_once('=') {
        Some(("rbps" | "wbps" | "riops" | "wiops", rate)) => match rate.parse::<u64>() {
            _ if rate == "max" => None,
            Ok(0) => Some(Errno::ERANGE),
            Ok(2..) => None,
            Ok(1) | Err(_) => Some(Errno::EINVAL),
        },
        _ => Some(Errno::EINVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::limits::Limits;
    use crate::cgroup::native_tests::{Place, View, enter};

    /// What the kernel says of a value wherever there is the file.
    #[rustfmt::skip]
    const CASES: &[(&str, &str, Option<Errno>)] = &[
        ("cgroup.max.depth",       "0",                    None),
        ("cgroup.max.depth",       "2147483647",           None),
        ("cgroup.max.depth",       "max",                  None),
        ("cgroup.max.depth",       "-1",                   Some(Errno::ERANGE)),
        ("cgroup.max.depth",       "+-1",                  Some(Errno::EINVAL)),
        ("cgroup.max.descendants", "7",                    None),
        ("cgroup.max.descendants", "few",                  Some(Errno::EINVAL)),
        ("cgroup.pressure",        "1",                    None),
        ("cgroup.pressure",        "2",                    Some(Errno::ERANGE)),
        ("cpu.idle",               "1",                    None),
        ("cpu.idle",               "0",                    None),
        ("cpu.idle",               "2",                    Some(Errno::EINVAL)),
        ("cpu.max",                "max 100000",           None),
        ("cpu.max",                "1000 1000",            None),
        ("cpu.max",                "17592186044415 1000000", None),
        ("cpu.max",                "17592186044416 1000000", Some(Errno::EINVAL)),
        ("cpu.max",                "999 100000",           Some(Errno::EINVAL)),
        ("cpu.max",                "max 10",               Some(Errno::EINVAL)),
        ("cpu.max",                "max 1000001",          Some(Errno::EINVAL)),
        ("cpu.max",                "half",                 Some(Errno::EINVAL)),
        ("cpu.max",                "max",                  None),
        ("cpu.max.burst",          "18446744073709551",    None),
        ("cpu.max.burst",          "much",                 Some(Errno::EINVAL)),
        ("cpu.weight",             "0",                    Some(Errno::ERANGE)),
        ("cpu.weight",             "1",                    None),
        ("cpu.weight",             "10000",                None),
        ("cpu.weight",             "10001",                Some(Errno::ERANGE)),
        ("cpu.weight",             "max",                  Some(Errno::EINVAL)),
        ("cpu.weight.nice",        "-20",                  None),
        ("cpu.weight.nice",        "20",                   Some(Errno::ERANGE)),
        ("cpuset.cpus",            "0",                    None),
        ("cpuset.cpus",            "",                     None),
        ("cpuset.cpus",            "first",                Some(Errno::EINVAL)),
        ("cpuset.cpus",            "1-0",                  Some(Errno::EINVAL)),
        ("cpuset.cpus",            "70000",                Some(Errno::ERANGE)),
        ("cpuset.mems",            "0",                    None),
        ("cpuset.mems",            "1-",                   Some(Errno::EINVAL)),
        ("hugetlb.2MB.max",        "0",                    None),
        ("hugetlb.2MB.max",        "4194304",              None),
        ("hugetlb.2MB.max",        "0x400000",             None),
        ("hugetlb.2MB.max",        "1g",                   None),
        ("hugetlb.2MB.max",        "max",                  None),
        ("hugetlb.2MB.max",        "much",                 Some(Errno::EINVAL)),
        ("hugetlb.2MB.max",        "50MB",                 Some(Errno::EINVAL)),
        ("hugetlb.2MB.max",        "-1",                   Some(Errno::EINVAL)),
        ("hugetlb.2MB.max",        "1.5G",                 Some(Errno::EINVAL)),
        ("hugetlb.2MB.max",        "5 M",                  Some(Errno::EINVAL)),
        ("hugetlb.2MB.rsvd.max",   "50M",                  None),
        ("io.bfq.weight",          "1000",                 None),
        ("io.bfq.weight",          "1001",                 Some(Errno::ERANGE)),
        ("io.bfq.weight",          "heavy",                Some(Errno::EINVAL)),
        ("io.max",                 "250:250 rbps=1",       Some(Errno::ENODEV)),
        ("io.weight",              "default 10000",        None),
        ("io.weight",              "default 10001",        Some(Errno::EINVAL)),
        ("memory.high",            "50M",                  None),
        ("memory.high",            "much",                 Some(Errno::EINVAL)),
        ("memory.low",             "4096",                 None),
        ("memory.max",             "0x1000",               None),
        ("memory.max",             "-1",                   Some(Errno::EINVAL)),
        ("memory.min",             "0",                    None),
        ("memory.oom.group",       "1",                    None),
        ("memory.oom.group",       "2",                    Some(Errno::EINVAL)),
        ("memory.swap.high",       "max",                  None),
        ("memory.swap.max",        "50MB",                 Some(Errno::EINVAL)),
        ("misc.max",               "nosuch 3",             Some(Errno::EINVAL)),
        ("pids.max",               "max",                  None),
        ("pids.max",               "0x10",                 None),
        ("pids.max",               "4194304",              None),
        ("pids.max",               "4194305",              Some(Errno::EINVAL)),
        ("pids.max",               "-1",                   Some(Errno::EINVAL)),
        ("pids.max",               "many",                 Some(Errno::EINVAL)),
        ("rdma.max",               "nosuch0 hca_handle=1", Some(Errno::ENODEV)),
    ];

    fn errno(refusal: Option<Refusal>) -> Option<Errno> {
        refusal.map(|refusal| refusal.errno)
    }

    fn location(mount: &str) -> Location {
        serde_json::from_str(&format!(r#"{{"driver":"cgroupfs","mount":"{mount}","path":"c","made":1}}"#)).unwrap()
    }

    fn of(file: &str, value: &str) -> Option<Errno> {
        errno(refuses(file, value, &location("/nowhere")))
    }

    #[test]
    fn what_is_refused_is_known_before() {
        // What misc.max limits is in a file.
        for (file, value, verdict) in CASES.iter().filter(|(file, ..)| *file != "misc.max") {
            assert_eq!(of(file, value), *verdict, "{file} {value:?}");
        }
        assert_eq!(of("somebody.elses", "anything"), None);
    }

    /// Writes each value to the file of a cgroup that has it. A kernel that judges otherwise has changed.
    #[test]
    fn this_kernel_judges_in_the_same_way() {
        if !enter(View::Pure) {
            return;
        }
        let available = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap();
        for controller in available.split_whitespace() {
            let outcome = fs::write("/sys/fs/cgroup/cgroup.subtree_control", format!("+{controller}"));
            outcome.unwrap_or_else(|error| eprintln!("skipped: the controller {controller}: {error}"));
        }
        let place = Place::new();
        let cgroup = place.make("", "{}").unwrap();
        let directory = cgroup.location().directory();
        let mut absent = std::collections::BTreeSet::new();
        let mut drift = Vec::new();
        for (file, value, _) in CASES {
            let path = format!("{directory}/{file}");
            if !Path::new(&path).exists() {
                absent.insert(*file);
                continue;
            }
            let said = fs::write(&path, format!("{value}\n"))
                .err()
                .and_then(|error| error.raw_os_error())
                .map(Errno::from_raw);
            let known = errno(refuses(file, value, cgroup.location()));
            if said != known {
                drift.push(format!("{file} {value:?}: the kernel says {said:?}, not {known:?}"));
            }
        }
        for file in absent {
            eprintln!("skipped: no {file} here");
        }
        assert!(drift.is_empty(), "{drift:#?}");
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
    fn lists_are_of_what_the_machine_can_have() {
        let judge = |list: &str| refuses_list(list, "0-3", Errno::ERANGE);
        for list in ["0", "0-3", "0,2-3", "0 1", "1,,2", "all", "0-3:1/2", "N", ""] {
            assert_eq!(judge(list), None, "{list}");
        }
        assert_eq!(judge("77"), Some(Errno::ERANGE));
        assert_eq!(judge("0-4"), Some(Errno::ERANGE));
        for list in ["3-1", "first", "-1", "1-"] {
            assert_eq!(judge(list), Some(Errno::EINVAL), "{list}");
        }
        assert_eq!(refuses_list("77", "", Errno::ERANGE), None, "nothing is known");
        assert_eq!(refuses_list("1", "0", Errno::EINVAL), Some(Errno::EINVAL));
    }

    #[test]
    fn what_is_limited_by_name_has_to_be_there() {
        assert_eq!(of("io.max", "7:200 rbps=2"), None);
        assert_eq!(of("io.max", "7:0 rbps=0"), Some(Errno::ERANGE));
        assert_eq!(of("io.max", "7:0 rbps=1"), Some(Errno::EINVAL));
        assert_eq!(of("io.max", "7:0 speed=1"), Some(Errno::EINVAL));
        assert_eq!(of("io.max", "7:0 wiops=max rbps=much"), Some(Errno::EINVAL));
        assert_eq!(of("io.weight", "7:0 default"), None);
        assert_eq!(of("io.weight", "250:250 10"), Some(Errno::ENODEV));
        assert_eq!(of("misc.max", "sev 3"), None, "nothing is known");
        let mount = std::env::temp_dir().join(format!("corten-misc-{}", std::process::id()));
        let of_misc = |capacity: &str| {
            fs::create_dir_all(&mount).unwrap();
            fs::write(mount.join("misc.capacity"), capacity).unwrap();
            let verdict = errno(refuses("misc.max", "sev 3", &location(mount.to_str().unwrap())));
            fs::remove_dir_all(&mount).unwrap();
            verdict
        };
        assert_eq!(of_misc("sev_es 9\nsev 5\n"), None);
        assert_eq!(of_misc(""), Some(Errno::EINVAL));
    }
}
