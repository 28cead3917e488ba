//! `linux.resources` but for the devices: the files of cgroup v2 to write, in order.
//!
//! The config speaks cgroup v1; the conversions are those that `runc` made the custom. Fields that v2 has no file for
//! (`memory.kernel`, `kernelTCP`, `swappiness`, `disableOOMKiller`, `useHierarchy`, `cpu.realtime*`,
//! `blockIO.leafWeight`, `network`) are ignored, as are the values that mean "unset".

use std::borrow::Cow;
use std::collections::HashMap;

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxPids, LinuxRdma, LinuxResources, LinuxThrottleDevice,
};

use super::controllers::{Controller, Set};
use crate::error::{Context, Error, Result, bail, ensure, escape};

type Text = Cow<'static, str>;

/// One value for one file.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) file: Text,
    pub(super) value: Text,
    /// The field of `config.json` that asks for it, below `/linux/resources/`.
    field: Text,
    pub(super) absent: Absent,
    /// The kernel may refuse it (EINVAL) until a later one is written; then it is tried once more.
    pub(super) again: bool,
}

/// What to do when the file is not there.
#[derive(Debug, PartialEq)]
pub(super) enum Absent {
    /// The limit cannot be kept: an error.
    Error,
    /// It asks for nothing that isn't so without the file.
    Ignore,
    /// It has no effect now, but another limit, set later, would: written where the controller can be had.
    IfPossible,
    /// Another file does the same in other numbers.
    Instead(Text, Text),
}

impl Write {
    fn new(file: impl Into<Text>, value: impl Into<Text>, field: impl Into<Text>) -> Write {
        Write { file: file.into(), value: value.into(), field: field.into(), absent: Absent::Error, again: false }
    }

    /// Without the file the value holds anyhow: no controller is asked for.
    fn or_nothing(self) -> Write {
        Write { absent: Absent::Ignore, ..self }
    }

    fn or_nothing_if(self, condition: bool) -> Write {
        if condition { self.or_nothing() } else { self }
    }

    /// The JSON pointer of the field that asks for it.
    pub(super) fn field(&self) -> String {
        format!("/linux/resources/{}", self.field)
    }

    pub(super) fn controller(&self) -> Option<Controller> {
        Controller::of(&self.file)
    }

    /// File and value where these files are `there`.
    pub(super) fn effective(&self, there: impl Fn(&str) -> bool) -> (&str, &str) {
        match &self.absent {
            Absent::Instead(file, value) if !there(&self.file) => (file, value),
            _ => (&self.file, &self.value),
        }
    }
}

/// The limits of a container, as writes in their order.
#[derive(Debug, Default)]
pub(super) struct Limits(Vec<Write>);

impl Limits {
    /// Converts and checks every field; needs nothing of the host.
    pub(super) fn plan(resources: &LinuxResources) -> Result<Limits> {
        let mut writes = Vec::new();
        if let Some(part) = resources.pids() {
            writes.push(pids(part));
        }
        if let Some(part) = resources.memory() {
            memory(part, &mut writes)?;
        }
        if let Some(part) = resources.block_io() {
            block_io(part, &mut writes)?;
        }
        if let Some(part) = resources.cpu() {
            cpu(part, &mut writes)?;
        }
        for (index, part) in resources.hugepage_limits().iter().flatten().enumerate() {
            hugetlb(index, part, &mut writes)?;
        }
        if let Some(part) = resources.rdma() {
            rdma(part, &mut writes)?;
        }
        // Last, so that what is written by the kernel's own name has the last word.
        if let Some(part) = resources.unified() {
            unified(part, &mut writes)?;
        }
        Ok(Limits(writes))
    }

    /// The first that asks for something which isn't so without a cgroup.
    pub(super) fn first_needed(&self) -> Option<&Write> {
        self.0.iter().find(|write| !matches!(write.absent, Absent::Ignore | Absent::IfPossible))
    }

    pub(super) fn writes(&self) -> &[Write] {
        &self.0
    }

    /// The controllers without which these limits can't be kept.
    pub(super) fn controllers(&self) -> Set {
        let mut set = Set::default();
        let wanted = self.0.iter().filter(|write| write.absent != Absent::Ignore);
        wanted.filter_map(Write::controller).for_each(|controller| set.insert(controller));
        set
    }
}

/// A number of v1, in which -1 is "no limit".
fn or_max(number: i64) -> Text {
    if number < 0 { "max".into() } else { number.to_string().into() }
}

fn pids(part: &LinuxPids) -> Write {
    // 0 once meant "no limit" to some and "none" to others; now it is the least that lets a container be.
    let limit = if part.limit() == 0 { 1 } else { part.limit() };
    Write::new("pids.max", or_max(limit), "pids/limit").or_nothing_if(limit < 0)
}

fn memory(part: &LinuxMemory, writes: &mut Vec<Write>) -> Result<()> {
    for (name, value) in [("limit", part.limit()), ("reservation", part.reservation()), ("swap", part.swap())] {
        if let Some(bytes) = value.filter(|&bytes| bytes < -1) {
            return Err(Error::new(format!("{bytes} bytes are neither a limit nor -1"))
                .field(format!("/linux/resources/memory/{name}")));
        }
    }
    let limit = part.limit().unwrap_or(0);
    let swap = swap_of_v2(part.swap().unwrap_or(0), limit).field(|| "/linux/resources/memory/swap")?;
    // Swap before memory: a limit that is to go down must not push into swap that is to be forbidden.
    if let Some(swap) = swap {
        // Kernels without swap accounting have no such file; nothing to forbid or to free then.
        writes.push(Write::new("memory.swap.max", or_max(swap), "memory/swap").or_nothing_if(swap <= 0));
    }
    if limit != 0 {
        writes.push(Write::new("memory.max", or_max(limit), "memory/limit").or_nothing_if(limit < 0));
    }
    if let Some(bytes) = part.reservation().filter(|&bytes| bytes != 0) {
        writes.push(Write::new("memory.low", or_max(bytes), "memory/reservation"));
    }
    Ok(())
}

/// `memory.swap` of the config is memory and swap together; `memory.swap.max` is swap alone. `None`: leave it as it is.
fn swap_of_v2(both: i64, limit: i64) -> Result<Option<i64>> {
    match (both, limit) {
        // In v1 "no limit" on memory could not leave one on the sum.
        (0, -1) => Ok(Some(-1)),
        (0, _) => Ok(None),
        (-1, _) | (_, -1) => Ok(Some(both)),
        (_, 0) => bail!("a limit on memory and swap needs a limit on memory"),
        _ if both < limit => bail!("memory and swap ({both} bytes) is below the limit on memory ({limit} bytes)"),
        _ => Ok(Some(both - limit)),
    }
}

fn cpu(part: &LinuxCpu, writes: &mut Vec<Write>) -> Result<()> {
    if let Some(idle) = part.idle() {
        ensure_field(matches!(idle, 0 | 1), "cpu/idle", || format!("{idle} is neither 0 nor 1"))?;
        writes.push(Write::new("cpu.idle", or_max(idle), "cpu/idle").or_nothing_if(idle == 0));
    }
    let shares = part.shares().unwrap_or(0);
    // An idle group has no weight: the kernel refuses one.
    if shares != 0 && part.idle() != Some(1) {
        writes.push(Write::new("cpu.weight", weight_of_shares(shares).to_string(), "cpu/shares"));
    }
    let (quota, period) = (part.quota().unwrap_or(0), part.period().unwrap_or(0));
    if quota != 0 || period != 0 {
        let time = if quota > 0 { quota.to_string().into() } else { Cow::Borrowed("max") };
        let period = if period == 0 { 100_000 } else { period };
        let field = if quota == 0 { "cpu/period" } else { "cpu/quota" };
        let write = Write::new("cpu.max", format!("{time} {period}"), field);
        let write = match (quota > 0, period) {
            (true, _) => write,
            (false, 100_000) => write.or_nothing(),
            (false, _) => Write { absent: Absent::IfPossible, ..write },
        };
        // No quota may be below the burst: which of the two must be first depends on what is set now.
        writes.push(Write { again: part.burst().is_some(), ..write });
    }
    if let Some(burst) = part.burst() {
        writes.push(Write::new("cpu.max.burst", burst.to_string(), "cpu/burst").or_nothing_if(burst == 0));
    }
    for (file, list, field) in [("cpuset.cpus", part.cpus(), "cpu/cpus"), ("cpuset.mems", part.mems(), "cpu/mems")] {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            writes.push(Write::new(file, list.clone(), field));
        }
    }
    Ok(())
}

/// Shares (2 to 262144, usually 1024) to weight (1 to 10000, usually 100): a curve through these three points.
fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

fn block_io(part: &LinuxBlockIo, writes: &mut Vec<Write>) -> Result<()> {
    if let Some(weight) = part.weight().filter(|&weight| weight != 0) {
        writes.push(io_weight("", weight, "blockIO/weight".into())?);
    }
    for (index, device) in part.weight_device().iter().flatten().enumerate() {
        let field = || format!("blockIO/weightDevice/{index}");
        let number = device_number(device.major(), device.minor(), field)?;
        if let Some(weight) = device.weight().filter(|&weight| weight != 0) {
            writes.push(io_weight(&format!("{number} "), weight, field())?);
        }
    }
    throttle("throttleReadBpsDevice", part.throttle_read_bps_device(), "rbps", writes)?;
    throttle("throttleWriteBpsDevice", part.throttle_write_bps_device(), "wbps", writes)?;
    throttle("throttleReadIOPSDevice", part.throttle_read_iops_device(), "riops", writes)?;
    throttle("throttleWriteIOPSDevice", part.throttle_write_iops_device(), "wiops", writes)
}

/// The BFQ scheduler keeps the numbers of v1; `io.weight` has its own, of which 10 to 1000 covers all.
fn io_weight(device: &str, weight: u16, field: String) -> Result<Write> {
    ensure_field((10..=1000).contains(&weight), &field, || format!("weight {weight} is not between 10 and 1000"))?;
    let of_v2 = 1 + (u32::from(weight) - 10) * 9999 / 990;
    let instead = Absent::Instead("io.weight".into(), format!("{device}{of_v2}").into());
    Ok(Write { absent: instead, ..Write::new("io.bfq.weight", format!("{device}{weight}"), field) })
}

fn throttle(name: &str, list: &Option<Vec<LinuxThrottleDevice>>, key: &str, writes: &mut Vec<Write>) -> Result<()> {
    for (index, device) in list.iter().flatten().enumerate() {
        let field = || format!("blockIO/{name}/{index}");
        let number = device_number(device.major(), device.minor(), field)?;
        // v1 took 0 for "no limit"; v2 has a word for it.
        let rate = if device.rate() == 0 { "max".into() } else { device.rate().to_string() };
        let write = Write::new("io.max", format!("{number} {key}={rate}"), field());
        writes.push(write.or_nothing_if(device.rate() == 0));
    }
    Ok(())
}

fn device_number(major: i64, minor: i64, field: impl Fn() -> String) -> Result<String> {
    ensure_field(major >= 0 && minor >= 0, &field(), || format!("{major}:{minor} is not a device number"))?;
    Ok(format!("{major}:{minor}"))
}

fn hugetlb(index: usize, part: &LinuxHugepageLimit, writes: &mut Vec<Write>) -> Result<()> {
    let field = || format!("hugepageLimits/{index}");
    let size = part.page_size();
    let number = size.strip_suffix("KB").or(size.strip_suffix("MB")).or(size.strip_suffix("GB")).unwrap_or("");
    let is_size = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    ensure_field(is_size, &field(), || format!("page size {size:?} is not of the form 2MB, 1GB or 64KB"))?;
    let limit = or_max(part.limit());
    let none = part.limit() < 0;
    writes.push(Write::new(format!("hugetlb.{size}.max"), limit.clone(), field()).or_nothing_if(none));
    // What is only reserved counts since Linux 5.7, in files of its own.
    writes.push(Write::new(format!("hugetlb.{size}.rsvd.max"), limit, field()).or_nothing());
    Ok(())
}

fn rdma(part: &HashMap<String, LinuxRdma>, writes: &mut Vec<Write>) -> Result<()> {
    let mut devices: Vec<_> = part.iter().collect();
    devices.sort_by_key(|(name, _)| name.as_str());
    for (name, limit) in devices {
        let field = format!("rdma/{}", escape(name));
        let is_name = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control());
        ensure_field(is_name, &field, || format!("{name:?} is not the name of a device"))?;
        let keys = [("hca_handle", limit.hca_handles()), ("hca_object", limit.hca_objects())];
        let set: String = keys.iter().filter_map(|(key, value)| Some(format!(" {key}={}", (*value)?))).collect();
        if !set.is_empty() {
            writes.push(Write::new("rdma.max", format!("{name}{set}"), field));
        }
    }
    Ok(())
}

/// The files of the `cgroup.` family that set a limit; the others steer the container and are the runtime's.
const CORE_LIMITS: &[&str] = &["cgroup.max.depth", "cgroup.max.descendants", "cgroup.pressure"];

fn unified(part: &HashMap<String, String>, writes: &mut Vec<Write>) -> Result<()> {
    let mut files: Vec<_> = part.iter().collect();
    files.sort_by_key(|(name, _)| name.as_str());
    for (name, value) in files {
        let field = format!("unified/{}", escape(name));
        let is_name = !matches!(name.as_str(), "" | "." | "..") && !name.contains(['/', '\0']);
        ensure_field(is_name, &field, || format!("{name:?} is not the name of a file in a cgroup"))?;
        // In crun's words.
        let wrong = || format!("the specified key has not the form CONTROLLER.VALUE `{name}`");
        ensure_field(name.contains('.'), &field, wrong)?;
        let is_ours = name.starts_with("cgroup.") && !CORE_LIMITS.contains(&name.as_str());
        ensure_field(!is_ours, &field, || format!("{name} is not a limit: it belongs to the runtime"))?;
        // Files that are keyed by device take one device in a write.
        for line in value.lines().filter(|line| !line.trim().is_empty()) {
            writes.push(Write::new(name.clone(), line.to_owned(), field.clone()));
        }
    }
    Ok(())
}

fn ensure_field(condition: bool, field: &str, sentence: impl FnOnce() -> String) -> Result<()> {
    let check = || {
        ensure!(condition, "{}", sentence());
        Ok(())
    };
    check().field(|| format!("/linux/resources/{field}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<Limits> {
        Limits::plan(&serde_json::from_str(text).unwrap())
    }

    /// The writes as lines `file=value`, with `?` before those that ask for nothing.
    fn lines(text: &str) -> Vec<String> {
        let line = |write: &Write| {
            let mark = if write.absent == Absent::Ignore { "?" } else { "" };
            format!("{mark}{}={}", write.file, write.value)
        };
        plan(text).unwrap().writes().iter().map(line).collect()
    }

    fn refuses(text: &str, field: &str, words: &str) {
        let error = plan(text).unwrap_err();
        assert_eq!(error.field_name(), Some(field), "{text}");
        assert!(error.to_string().contains(words), "{error}");
    }

    #[test]
    fn what_engines_write_for_nothing_asks_for_nothing() {
        for text in [
            "{}",
            r#"{"memory":{"disableOOMKiller":false},"blockIO":{}}"#,
            r#"{"blockIO":{"weight":0},"cpu":{"shares":0,"quota":0,"period":0,"cpus":"","mems":""}}"#,
            r#"{"memory":{"limit":0,"swap":0,"reservation":0,"swappiness":null,"kernel":5,"kernelTCP":6}}"#,
            r#"{"network":{"classID":1},"cpu":{"realtimeRuntime":1,"realtimePeriod":2}}"#,
            r#"{"hugepageLimits":[],"unified":{},"rdma":{"mlx":{}}}"#,
        ] {
            assert_eq!(lines(text), [""; 0], "{text}");
        }
        for text in [r#"{"pids":{"limit":-1}}"#, r#"{"memory":{"limit":-1}}"#, r#"{"cpu":{"quota":-1,"idle":0}}"#] {
            assert_eq!(plan(text).unwrap().controllers(), Set::default(), "{text}");
        }
    }

    #[test]
    fn memory_and_swap_of_v1_become_those_of_v2_swap_first() {
        const M: i64 = 1 << 20;
        let memory = |limit: i64, swap: i64| format!(r#"{{"memory":{{"limit":{limit},"swap":{swap}}}}}"#);
        assert_eq!(lines(r#"{"memory":{"limit":67108864}}"#), ["memory.max=67108864"]);
        assert_eq!(lines(&memory(64 * M, 64 * M)), ["?memory.swap.max=0", "memory.max=67108864"]);
        assert_eq!(lines(&memory(64 * M, 96 * M)), ["memory.swap.max=33554432", "memory.max=67108864"]);
        assert_eq!(lines(r#"{"memory":{"limit":-1}}"#), ["?memory.swap.max=max", "?memory.max=max"]);
        assert_eq!(lines(&memory(-1, 96 * M)), ["memory.swap.max=100663296", "?memory.max=max"]);
        assert_eq!(lines(r#"{"memory":{"swap":0}}"#), [""; 0]);
        assert_eq!(lines(&memory(64 * M, -1)), ["?memory.swap.max=max", "memory.max=67108864"]);
        refuses(r#"{"memory":{"swap":100663296}}"#, "/linux/resources/memory/swap", "needs a limit on memory");
        refuses(&memory(64 * M, 32 * M), "/linux/resources/memory/swap", "is below the limit on memory");
        refuses(&memory(-5, 0), "/linux/resources/memory/limit", "-5");
        assert_eq!(lines(r#"{"memory":{"reservation":-1}}"#), ["memory.low=max"]);
    }

    #[test]
    fn a_limit_of_no_processes_is_one_and_a_negative_one_is_none() {
        assert_eq!(lines(r#"{"pids":{"limit":0}}"#), ["pids.max=1"]);
        assert_eq!(lines(r#"{"pids":{"limit":7}}"#), ["pids.max=7"]);
        assert_eq!(lines(r#"{"pids":{"limit":-1}}"#), ["?pids.max=max"]);
    }

    #[test]
    fn shares_become_weight_on_the_new_curve() {
        for (shares, weight) in [(1, 1), (2, 1), (512, 59), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000)] {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
        assert!((2..262_144).all(|shares| weight_of_shares(shares) <= weight_of_shares(shares + 1)));
        assert_eq!(lines(r#"{"cpu":{"shares":1024}}"#), ["cpu.weight=100"]);
        assert_eq!(lines(r#"{"cpu":{"shares":1024,"idle":1}}"#), ["cpu.idle=1"]);
    }

    #[test]
    fn quota_and_period_share_a_file_and_may_come_after_the_burst() {
        assert_eq!(lines(r#"{"cpu":{"quota":50000}}"#), ["cpu.max=50000 100000"]);
        assert_eq!(lines(r#"{"cpu":{"quota":-1}}"#), ["?cpu.max=max 100000"]);
        assert_eq!(lines(r#"{"cpu":{"quota":0,"period":20000}}"#), ["cpu.max=max 20000"]);
        assert_eq!(lines(r#"{"cpu":{"quota":5000,"period":20000}}"#), ["cpu.max=5000 20000"]);
        let both = plan(r#"{"cpu":{"quota":50000,"burst":1000}}"#).unwrap();
        assert!(both.writes()[0].again && both.writes()[0].file == "cpu.max");
        assert_eq!(both.writes()[1].value, "1000");
    }

    #[test]
    fn io_weight_has_the_numbers_of_bfq_and_its_own() {
        for (weight, of_v2) in [(10, "1"), (500, "4950"), (1000, "10000")] {
            let limits = plan(&format!(r#"{{"blockIO":{{"weight":{weight}}}}}"#)).unwrap();
            let write = &limits.writes()[0];
            assert_eq!((&*write.file, &*write.value), ("io.bfq.weight", &*weight.to_string()));
            assert_eq!(write.absent, Absent::Instead("io.weight".into(), of_v2.into()));
        }
        let limits = plan(r#"{"blockIO":{"weightDevice":[{"major":8,"minor":16,"weight":500}]}}"#).unwrap();
        assert_eq!(limits.writes()[0].value, "8:16 500");
        assert_eq!(limits.writes()[0].absent, Absent::Instead("io.weight".into(), "8:16 4950".into()));
        refuses(r#"{"blockIO":{"weight":9}}"#, "/linux/resources/blockIO/weight", "between 10 and 1000");
    }

    #[test]
    fn each_throttled_device_is_a_write_of_its_own() {
        let text = r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1048576}],
            "throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":7},{"major":8,"minor":16,"rate":0}]}}"#;
        assert_eq!(lines(text), ["io.max=8:0 rbps=1048576", "io.max=8:0 wiops=7", "?io.max=8:16 wiops=max"]);
    }

    #[test]
    fn huge_pages_are_limited_in_use_and_in_reserve() {
        let text = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#;
        assert_eq!(lines(text), ["hugetlb.2MB.max=4194304", "?hugetlb.2MB.rsvd.max=4194304"]);
        for size in ["2/../MB", "MB", "2mb", ""] {
            let text = format!(r#"{{"hugepageLimits":[{{"pageSize":"{size}","limit":1}}]}}"#);
            refuses(&text, "/linux/resources/hugepageLimits/0", "page size");
        }
    }

    #[test]
    fn rdma_limits_name_device_and_keys() {
        let text = r#"{"rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":10000},"a":{"hcaObjects":1}}}"#;
        assert_eq!(lines(text), ["rdma.max=a hca_object=1", "rdma.max=mlx5_1 hca_handle=3 hca_object=10000"]);
    }

    #[test]
    fn unified_comes_last_line_by_line() {
        let text = r#"{"unified":{"io.max":"254:0 rbps=1\n254:16 rbps=2\n","memory.high":"50M"},"pids":{"limit":3}}"#;
        let wanted = ["pids.max=3", "io.max=254:0 rbps=1", "io.max=254:16 rbps=2", "memory.high=50M"];
        assert_eq!(lines(text), wanted);
        let controllers: Vec<_> = plan(text).unwrap().controllers().iter().map(Controller::name).collect();
        assert_eq!(controllers, ["io", "memory", "pids"]);
    }

    #[test]
    fn unified_names_no_path_and_no_file_of_the_runtime() {
        let one = |name: &str| format!(r#"{{"unified":{{"{name}":"1"}}}}"#);
        refuses(&one("../cgroup.procs"), "/linux/resources/unified/..~1cgroup.procs", "is not the name of a file");
        refuses(&one(".."), "/linux/resources/unified/..", "is not the name of a file");
        refuses(&one("cgroup.freeze"), "/linux/resources/unified/cgroup.freeze", "belongs to the runtime");
        assert_eq!(lines(&one("cgroup.max.depth")), ["cgroup.max.depth=1"]);
    }
}
