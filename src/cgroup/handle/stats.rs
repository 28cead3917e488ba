//! What a cgroup has used, in the form in which `runc events` tells it, whose readers are written in Go: the names and
//! types are those, the numbers mean what they meant in cgroup v1 (nanoseconds; memory and swap together).
//!
//! What a missing controller would tell is left at nothing.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::dir::Dir;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use serde::Serialize;

use super::Handle;
use crate::cgroup::files;
use crate::error::{Context, Result};

/// All that is counted of a cgroup.
#[derive(Debug, Serialize)]
pub struct Stats {
    cpu: Cpu,
    cpuset: CpuSet,
    memory: Memory,
    pids: Pids,
    blkio: BlockIo,
    hugetlb: BTreeMap<String, HugePages>,
}

#[derive(Debug, Default, Serialize)]
struct Cpu {
    usage: CpuUsage,
    throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

/// Nanoseconds.
#[derive(Debug, Default, Serialize)]
struct CpuUsage {
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    kernel: u64,
    user: u64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    #[serde(skip_serializing_if = "is_zero")]
    periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    throttled_periods: u64,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    throttled_time: u64,
}

/// Time in which some, or all, waited for the resource (Documentation/accounting/psi.rst).
#[derive(Debug, Default, PartialEq, Serialize)]
struct Pressure {
    some: Waiting,
    full: Waiting,
}

/// Percents, and microseconds in all.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Waiting {
    avg10: f64,
    avg60: f64,
    avg300: f64,
    total: u64,
}

/// The switches are those of v1; v2 has none of them.
#[derive(Debug, Default, Serialize)]
struct CpuSet {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cpus: Vec<u16>,
    cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mems: Vec<u16>,
    mem_hardwall: u64,
    mem_exclusive: u64,
    memory_migrate: u64,
    memory_spread_page: u64,
    memory_spread_slab: u64,
    memory_pressure: u64,
    sched_load_balance: u64,
    sched_relax_domain_level: i64,
}

/// Bytes.
#[derive(Debug, Default, Serialize)]
struct Memory {
    #[serde(skip_serializing_if = "is_zero")]
    cache: u64,
    usage: MemoryUse,
    swap: MemoryUse,
    kernel: MemoryUse,
    #[serde(rename = "kernelTCP")]
    kernel_tcp: MemoryUse,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct MemoryUse {
    /// The largest number there is stands for none.
    limit: u64,
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    failcnt: u64,
}

#[derive(Debug, Default, Serialize)]
struct Pids {
    #[serde(skip_serializing_if = "is_zero")]
    current: u64,
    /// 0 is none.
    #[serde(skip_serializing_if = "is_zero")]
    limit: u64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct BlockIo {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_bytes_recursive: Vec<Transfer>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_serviced_recursive: Vec<Transfer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Transfer {
    #[serde(skip_serializing_if = "is_zero")]
    major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    minor: u64,
    op: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    value: u64,
}

#[derive(Debug, Default, Serialize)]
struct HugePages {
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    failcnt: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Handle<'_> {
    /// What it has used until now.
    pub fn stats(&self) -> Result<Stats> {
        let dir = self.open()?;
        let files = Reader(dir.as_fd());
        Ok(Stats {
            cpu: cpu(&files),
            cpuset: CpuSet {
                cpus: list(&files.text("cpuset.cpus.effective")),
                mems: list(&files.text("cpuset.mems.effective")),
                ..CpuSet::default()
            },
            memory: memory(&files),
            pids: match files.number("pids.current") {
                Some(current) => {
                    Pids { current, limit: files.number("pids.max").filter(|&max| max < u64::MAX).unwrap_or(0) }
                }
                None => Pids { current: self.pids()?.len() as u64, limit: 0 },
            },
            blkio: block_io(&files),
            hugetlb: huge_pages(&files, &dir).with_context(|| format!("list the files of cgroup {self}"))?,
        })
    }
}

/// The files of a cgroup; one that isn't there is empty.
struct Reader<'a>(BorrowedFd<'a>);

impl Reader<'_> {
    fn text(&self, file: &str) -> String {
        files::read_at(self.0, file).unwrap_or_default()
    }

    /// `max` is the largest number.
    fn number(&self, file: &str) -> Option<u64> {
        match self.text(file).trim() {
            "max" => Some(u64::MAX),
            text => text.parse().ok(),
        }
    }

    fn pressure(&self, resource: &str) -> Option<Pressure> {
        pressure(&self.text(&format!("{resource}.pressure")))
    }
}

/// The number of a key in a flat-keyed text, 0 without it.
fn keyed(text: &str, key: &str) -> u64 {
    files::value_of(text, key).and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// `None` where the kernel does not count it, which it tells by refusing to read.
fn pressure(text: &str) -> Option<Pressure> {
    if text.is_empty() {
        return None;
    }
    let waiting = |kind: &str| {
        let line = files::value_of(text, kind).unwrap_or_default();
        let value = |key: &str| line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let percent = |key: &str| value(key).and_then(|value| value.parse().ok()).unwrap_or(0.0);
        let total = value("total").and_then(|value| value.parse().ok()).unwrap_or(0);
        Waiting { avg10: percent("avg10"), avg60: percent("avg60"), avg300: percent("avg300"), total }
    };
    Some(Pressure { some: waiting("some"), full: waiting("full") })
}

fn cpu(files: &Reader) -> Cpu {
    let text = files.text("cpu.stat");
    let nanoseconds = |key: &str| keyed(&text, key).saturating_mul(1000);
    Cpu {
        usage: CpuUsage {
            total: nanoseconds("usage_usec"),
            kernel: nanoseconds("system_usec"),
            user: nanoseconds("user_usec"),
        },
        throttling: Throttling {
            periods: keyed(&text, "nr_periods"),
            throttled_periods: keyed(&text, "nr_throttled"),
            throttled_time: nanoseconds("throttled_usec"),
        },
        psi: files.pressure("cpu"),
    }
}

fn memory(files: &Reader) -> Memory {
    let text = files.text("memory.stat");
    let raw: BTreeMap<String, u64> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(key, value)| Some((key.to_owned(), value.parse().ok()?)))
        .collect();
    let of = |part: &str| MemoryUse {
        limit: files.number(&format!("memory.{part}max")).unwrap_or(0),
        usage: files.number(&format!("memory.{part}current")).unwrap_or(0),
        max: files.number(&format!("memory.{part}peak")).unwrap_or(0),
        failcnt: keyed(&files.text(&format!("memory.{part}events")), "max"),
    };
    let (usage, swap) = (of(""), of("swap."));
    let both = MemoryUse {
        // The largest number stays what it is.
        limit: swap.limit.saturating_add(usage.limit),
        usage: swap.usage.saturating_add(usage.usage),
        // The two peaks may have been at different times.
        max: 0,
        failcnt: swap.failcnt,
    };
    Memory {
        cache: raw.get("file").copied().unwrap_or(0),
        usage,
        swap: both,
        kernel: MemoryUse::default(),
        kernel_tcp: MemoryUse::default(),
        raw,
        psi: files.pressure("memory"),
    }
}

fn block_io(files: &Reader) -> BlockIo {
    let mut all = BlockIo { psi: files.pressure("io"), ..BlockIo::default() };
    for line in files.text("io.stat").lines() {
        let mut words = line.split(' ');
        let device = words.next().and_then(|word| word.split_once(':'));
        let number = |text: &str| text.parse::<u64>().ok();
        let Some((Some(major), Some(minor))) = device.map(|(major, minor)| (number(major), number(minor))) else {
            continue;
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (&mut all.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut all.io_service_bytes_recursive, "Write"),
                "rios" => (&mut all.io_serviced_recursive, "Read"),
                "wios" => (&mut all.io_serviced_recursive, "Write"),
                _ => continue,
            };
            list.push(Transfer { major, minor, op, value: number(value).unwrap_or(0) });
        }
    }
    all
}

/// By size, `2MB`. What is reserved counts where the kernel counts it: it is what a limit refuses.
fn huge_pages(files: &Reader, dir: &OwnedFd) -> Result<BTreeMap<String, HugePages>> {
    let mut list = Dir::openat(dir, c".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut sizes = BTreeMap::new();
    for entry in list.iter() {
        let entry = entry?;
        let name = entry.file_name().to_str().unwrap_or_default();
        let size = name.strip_prefix("hugetlb.").and_then(|rest| rest.strip_suffix(".current"));
        let Some(size) = size.filter(|size| !size.contains('.')) else { continue };
        let reserved = files.number(&format!("hugetlb.{size}.rsvd.current"));
        let usage = reserved.or_else(|| files.number(name)).unwrap_or(0);
        let failcnt = keyed(&files.text(&format!("hugetlb.{size}.events")), "max");
        sizes.insert(size.to_owned(), HugePages { usage, max: 0, failcnt });
    }
    Ok(sizes)
}

/// The numbers of a list such as `0-3,7`.
fn list(text: &str) -> Vec<u16> {
    let range = |part: &str| {
        let range = crate::sys::procfs::list::part(part).ok()?;
        Some(u16::try_from(*range.start()).ok()?..=u16::try_from(*range.end()).ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Location;

    fn stats(name: &str, given: &[(&str, &str)]) -> serde_json::Value {
        let root = std::env::temp_dir().join(format!("corten-stats-{}-{name}", std::process::id()));
        std::fs::create_dir_all(root.join("c")).unwrap();
        for (file, text) in given {
            std::fs::write(root.join("c").join(file), text).unwrap();
        }
        let place = format!(r#"{{"driver":"cgroupfs","mount":"{}","path":"c","made":1}}"#, root.display());
        let place: Location = serde_json::from_str(&place).unwrap();
        let stats = serde_json::to_value(Handle::of(&place).stats().unwrap()).unwrap();
        std::fs::remove_dir_all(root).unwrap();
        stats
    }

    #[test]
    fn memory_and_swap_are_told_together_and_no_limit_is_the_largest_number() {
        let given = [
            ("memory.current", "1000\n"),
            ("memory.max", "4096\n"),
            ("memory.peak", "2000\n"),
            ("memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n"),
            ("memory.stat", "anon 500\nfile 400\n"),
            ("memory.swap.current", "10\n"),
            ("memory.swap.max", "100\n"),
        ];
        let memory = &stats("memory", &given)["memory"];
        assert_eq!(memory["usage"], serde_json::json!({"limit": 4096, "usage": 1000, "max": 2000, "failcnt": 3}));
        assert_eq!(memory["swap"], serde_json::json!({"limit": 4196, "usage": 1010, "failcnt": 0}));
        assert_eq!(memory["raw"], serde_json::json!({"anon": 500, "file": 400}));
        assert_eq!((&memory["cache"], &memory["kernel"]["limit"]), (&400.into(), &0.into()));
        let unlimited = &stats("unlimited", &[("memory.max", "max\n"), ("memory.swap.max", "max\n")])["memory"];
        assert_eq!((&unlimited["usage"]["limit"], &unlimited["swap"]["limit"]), (&u64::MAX.into(), &u64::MAX.into()));
    }

    #[test]
    fn times_are_nanoseconds_and_pressure_is_as_the_kernel_tells_it() {
        let pressure =
            "some avg10=1.50 avg60=0.00 avg300=0.25 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let given = [
            (
                "cpu.stat",
                "usage_usec 30\nuser_usec 10\nsystem_usec 20\nnr_periods 4\nnr_throttled 2\nthrottled_usec 9\n",
            ),
            ("cpu.pressure", pressure),
        ];
        let cpu = &stats("cpu", &given)["cpu"];
        assert_eq!(cpu["usage"], serde_json::json!({"total": 30000, "kernel": 20000, "user": 10000}));
        let throttling = serde_json::json!({"periods": 4, "throttledPeriods": 2, "throttledTime": 9000});
        assert_eq!(cpu["throttling"], throttling);
        assert_eq!(cpu["psi"]["some"], serde_json::json!({"avg10": 1.5, "avg60": 0.0, "avg300": 0.25, "total": 77}));
        assert_eq!(cpu["psi"]["full"]["total"], 7);
    }

    #[test]
    fn transfers_pages_and_processes_have_the_words_of_v1() {
        let given = [
            ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n253:1 rbytes=7\nnonsense\n"),
            ("pids.current", "3\n"),
            ("pids.max", "max\n"),
            ("hugetlb.2MB.current", "0\n"),
            ("hugetlb.2MB.rsvd.current", "4194304\n"),
            ("hugetlb.2MB.events", "max 5\n"),
            ("hugetlb.1GB.current", "0\n"),
            ("cpuset.cpus.effective", "0-2,5\n"),
            ("cpuset.mems.effective", "0\n"),
        ];
        let stats = stats("words", &given);
        let read = serde_json::json!({"major": 8, "op": "Read", "value": 1});
        assert_eq!(stats["blkio"]["ioServiceBytesRecursive"][0], read);
        let write = serde_json::json!({"major": 8, "op": "Write", "value": 4});
        assert_eq!(stats["blkio"]["ioServicedRecursive"][1], write);
        assert_eq!(stats["blkio"]["ioServiceBytesRecursive"][2]["minor"], 1);
        assert_eq!(stats["pids"], serde_json::json!({"current": 3}));
        assert_eq!(stats["hugetlb"]["2MB"], serde_json::json!({"usage": 4_194_304, "failcnt": 5}));
        assert_eq!(stats["hugetlb"]["1GB"], serde_json::json!({"failcnt": 0}));
        assert_eq!(stats["cpuset"]["cpus"], serde_json::json!([0, 1, 2, 5]));
    }

    #[test]
    fn a_cgroup_without_controllers_has_statistics_of_nothing() {
        let stats = stats("nothing", &[]);
        assert_eq!(stats["pids"], serde_json::json!({}));
        assert_eq!(stats["hugetlb"], serde_json::json!({}));
        assert_eq!(stats["blkio"], serde_json::json!({}));
        assert_eq!(stats["cpu"], serde_json::json!({"usage": {"kernel": 0, "user": 0}, "throttling": {}}));
    }
}
