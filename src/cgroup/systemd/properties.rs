//! What systemd is told of the limits: the properties that do the same as the files of cgroup v2.
//!
//! systemd sets a unit's files from its own idea of them, at `daemon-reload` for one; a limit that only the file has
//! would then be lost. Whatever has no property, or one that is coarser than the file, the file has the last word on.

use crate::cgroup::limits::Write;
use crate::dbus::Value;
use crate::error::{Context, Result, bail, ensure};

/// A property of a unit.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Property {
    pub(super) name: String,
    pub(super) value: Value,
    /// It came with a systemd that is newer than the oldest we know (249): to be left out if it isn't known. Its file
    /// is written anyhow.
    pub(super) newer: bool,
}

/// Properties in their order, each name once.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Properties(pub(super) Vec<Property>);

/// How systemd writes "no limit".
const INFINITY: u64 = u64::MAX;
/// The period of the kernel where none is given, in microseconds.
const USUAL_PERIOD: u64 = 100_000;
/// systemd keeps quotas in steps of one per cent.
const QUOTA_STEP: u64 = 10_000;
/// The highest number of a processor or node that is taken; the kernel's is 8192.
const HIGHEST: u32 = 1 << 14;

/// Files with one number in them that mean the same as a property.
#[rustfmt::skip]
const NUMBERS: &[(&str, &str)] = &[
    ("cpu.weight",      "CPUWeight"),
    ("memory.high",     "MemoryHigh"),
    ("memory.low",      "MemoryLow"),
    ("memory.max",      "MemoryMax"),
    ("memory.min",      "MemoryMin"),
    ("memory.swap.max", "MemorySwapMax"),
    ("pids.max",        "TasksMax"),
];

/// Keys of `io.max`.
#[rustfmt::skip]
const RATES: &[(&str, &str)] = &[
    ("rbps",  "IOReadBandwidthMax"),
    ("wbps",  "IOWriteBandwidthMax"),
    ("riops", "IOReadIOPSMax"),
    ("wiops", "IOWriteIOPSMax"),
];

/// A list of processors or nodes.
const LISTS: &[(&str, &str)] = &[("cpuset.cpus", "AllowedCPUs"), ("cpuset.mems", "AllowedMemoryNodes")];

impl Properties {
    /// Sets one; an earlier value of it is replaced.
    pub(super) fn set(&mut self, name: &str, value: Value) {
        self.put(Property { name: name.to_owned(), value, newer: false });
    }

    fn set_newer(&mut self, name: &str, value: Value) {
        self.put(Property { name: name.to_owned(), value, newer: true });
    }

    pub(super) fn put(&mut self, property: Property) {
        match self.0.iter_mut().find(|known| known.name == property.name) {
            Some(known) => *known = property,
            None => self.0.push(property),
        }
    }

    /// Adds a row to one that is a list for several devices.
    fn add_rate(&mut self, name: &str, device: &str, number: u64) {
        let row = Value::Struct(vec![Value::text(format!("/dev/block/{device}")), Value::Uint64(number)]);
        match self.0.iter_mut().find(|known| known.name == name) {
            Some(Property { value: Value::Array(_, rows), .. }) => rows.push(row),
            _ => self.set(name, Value::Array("(st)".into(), vec![row])),
        }
    }

    /// Whether there are some that an older systemd may not know.
    pub(super) fn has_newer(&self) -> bool {
        self.0.iter().any(|property| property.newer)
    }

    /// Takes over all of another list.
    pub(super) fn extend(&mut self, other: Properties) {
        other.0.into_iter().for_each(|property| self.put(property));
    }

    /// The properties that are the same as the files to be written.
    pub(super) fn of(writes: &[Write]) -> Result<Properties> {
        let mut properties = Properties::default();
        for write in writes {
            properties.add(write).field(|| write.field())?;
        }
        Ok(properties)
    }

    fn add(&mut self, write: &Write) -> Result<()> {
        let (file, value) = write.effective(|_| false);
        let value = value.trim();
        let of = |table: &[(&str, &'static str)]| table.iter().find(|(key, _)| *key == file).map(|(_, name)| *name);
        if let Some(name) = of(NUMBERS) {
            // What is no number here may still be one for the kernel, which is asked next.
            let number = if file == "cpu.weight" { of_range(value) } else { number(value) };
            number.into_iter().for_each(|number| self.set(name, Value::Uint64(number)));
        } else if let Some(name) = of(LISTS) {
            self.set(name, Value::Array("y".into(), mask(value)?));
        } else {
            match file {
                "cpu.max" => self.cpu_max(value),
                "cpu.idle" if value == "1" => self.set_newer("CPUWeight", Value::Uint64(0)),
                "io.weight" => self.io_weight(value),
                "io.max" => self.io_max(value),
                "memory.oom.group" => {
                    let policy = if value == "1" { "kill" } else { "continue" };
                    self.set_newer("OOMPolicy", Value::text(policy));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn cpu_max(&mut self, value: &str) {
        let mut words = value.split_whitespace();
        let quota = words.next().and_then(number);
        let period = words.next().map_or(Some(USUAL_PERIOD), |word| word.parse().ok());
        let (Some(quota), Some(period @ 1..)) = (quota, period) else { return };
        let per_second = match quota {
            INFINITY => INFINITY,
            // Up, so that systemd never takes away what the file gives.
            quota => {
                let exact = quota.saturating_mul(1_000_000) / period;
                exact.checked_next_multiple_of(QUOTA_STEP).unwrap_or(INFINITY).max(QUOTA_STEP)
            }
        };
        self.set("CPUQuotaPerSecUSec", Value::Uint64(per_second));
        self.set("CPUQuotaPeriodUSec", Value::Uint64(period));
    }

    fn io_weight(&mut self, value: &str) {
        let words: Vec<&str> = value.split_whitespace().collect();
        match words[..] {
            [weight] | ["default", weight] => {
                of_range(weight).into_iter().for_each(|weight| self.set("IOWeight", Value::Uint64(weight)));
            }
            [device, weight] if is_device(device) => {
                of_range(weight).into_iter().for_each(|weight| self.add_rate("IODeviceWeight", device, weight));
            }
            _ => {}
        }
    }

    fn io_max(&mut self, value: &str) {
        let mut words = value.split_whitespace();
        let Some(device) = words.next().filter(|device| is_device(device)) else { return };
        for (key, limit) in words.filter_map(|word| word.split_once('=')) {
            let name = RATES.iter().find(|(known, _)| *known == key);
            if let (Some((_, name)), Some(limit)) = (name, number(limit)) {
                self.add_rate(name, device, limit);
            }
        }
    }
}

/// A weight. One out of range is left to the kernel, since systemd's refusal names no field.
fn of_range(weight: &str) -> Option<u64> {
    weight.parse().ok().filter(|weight| (1..=10_000).contains(weight))
}

/// A number as the kernel's files take it, with `max` and the suffixes of bytes.
fn number(text: &str) -> Option<u64> {
    if text == "max" {
        return Some(INFINITY);
    }
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// `MAJOR:MINOR`.
fn is_device(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once(':').is_some_and(|(major, minor)| digits(major) && digits(minor))
}

/// A list like `0-3,8` as bits, the lowest first, without zero bytes at the end.
fn mask(list: &str) -> Result<Vec<Value>> {
    let mut bytes: Vec<u8> = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let range = crate::sys::procfs::list::part(part).ok();
        let Some(range) = range.filter(|range| *range.start().max(range.end()) < HIGHEST) else {
            bail!("{list:?} is not a list like 0-3,8")
        };
        let (first, last) = range.into_inner();
        ensure!(first <= last, "{part:?} is a range that runs backwards");
        if bytes.len() <= last as usize / 8 {
            bytes.resize(last as usize / 8 + 1, 0);
        }
        (first..=last).for_each(|number| bytes[number as usize / 8] |= 1 << (number % 8));
    }
    Ok(bytes.into_iter().map(Value::Byte).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::limits::Limits;

    fn of(resources: &str) -> Properties {
        let limits = Limits::plan(&serde_json::from_str(resources).unwrap()).unwrap();
        Properties::of(limits.writes()).unwrap()
    }

    fn value(properties: &Properties, name: &str) -> Option<Value> {
        properties.0.iter().find(|property| property.name == name).map(|property| property.value.clone())
    }

    fn rates(list: &[(&str, u64)]) -> Option<Value> {
        let row = |(path, rate): &(&str, u64)| Value::Struct(vec![Value::text(path.to_string()), Value::Uint64(*rate)]);
        Some(Value::Array("(st)".into(), list.iter().map(row).collect()))
    }

    #[test]
    fn numbers_become_64_bits_and_no_limit_is_infinity() {
        let found =
            of(r#"{"memory":{"limit":1000,"reservation":500,"swap":3000},"pids":{"limit":7},"cpu":{"shares":1024}}"#);
        let expected =
            [("MemoryMax", 1000), ("MemoryLow", 500), ("MemorySwapMax", 2000), ("TasksMax", 7), ("CPUWeight", 100)];
        for (name, number) in expected {
            assert_eq!(value(&found, name), Some(Value::Uint64(number)), "{name}");
        }
        let found = of(r#"{"memory":{"limit":-1,"reservation":-1,"swap":-1},"pids":{"limit":-1}}"#);
        for name in ["MemoryMax", "MemoryLow", "MemorySwapMax", "TasksMax"] {
            assert_eq!(value(&found, name), Some(Value::Uint64(u64::MAX)), "{name}");
        }
    }

    #[test]
    fn b75_a_limit_of_no_process_is_one_here_too() {
        assert_eq!(value(&of(r#"{"pids":{"limit":0}}"#), "TasksMax"), Some(Value::Uint64(1)));
        assert_eq!(of("{}").0, []);
    }

    #[test]
    fn a_quota_is_rounded_up_to_whole_per_cents_of_a_second() {
        let quota = |text: &str| {
            let found = of(&format!(r#"{{"cpu":{text}}}"#));
            (value(&found, "CPUQuotaPerSecUSec"), value(&found, "CPUQuotaPeriodUSec"))
        };
        let both = |quota, period| (Some(Value::Uint64(quota)), Some(Value::Uint64(period)));
        assert_eq!(quota(r#"{"quota":50000,"period":100000}"#), both(500_000, 100_000));
        assert_eq!(quota(r#"{"quota":50100,"period":100000}"#), both(510_000, 100_000));
        assert_eq!(quota(r#"{"quota":1000,"period":1000000}"#), both(10_000, 1_000_000));
        assert_eq!(quota(r#"{"quota":20000}"#), both(200_000, 100_000));
        assert_eq!(quota(r#"{"quota":-1}"#), both(u64::MAX, 100_000));
        assert_eq!(quota(r#"{"quota":9223372036854775807,"period":1}"#), both(u64::MAX, 1));
        assert_eq!(quota(r#"{"period":50000}"#), both(u64::MAX, 50_000));
        assert_eq!(quota(r#"{"shares":2}"#), (None, None));
    }

    #[test]
    fn lists_become_bits_the_lowest_first() {
        let bits = |list: &str| {
            mask(list)
                .map(|bits| bits.iter().map(|bit| if let Value::Byte(b) = bit { *b } else { 0 }).collect::<Vec<u8>>())
        };
        assert_eq!(bits("0").unwrap(), [1]);
        assert_eq!(bits("0-3,8").unwrap(), [0x0f, 1]);
        assert_eq!(bits("7,16").unwrap(), [0x80, 0, 1]);
        assert_eq!(bits(" 1 , 2-2 ,").unwrap(), [6]);
        for wrong in ["a", "1-", "-1", "3-1", "0-99999", "1.5"] {
            assert!(bits(wrong).is_err(), "{wrong}");
        }
        let found = of(r#"{"cpu":{"cpus":"0-1","mems":"0"}}"#);
        assert_eq!(value(&found, "AllowedCPUs"), Some(Value::Array("y".into(), vec![Value::Byte(3)])));
        assert_eq!(value(&found, "AllowedMemoryNodes"), Some(Value::Array("y".into(), vec![Value::Byte(1)])));
        let limits = Limits::plan(&serde_json::from_str(r#"{"cpu":{"cpus":"x"}}"#).unwrap()).unwrap();
        assert_eq!(Properties::of(limits.writes()).unwrap_err().field_name(), Some("/linux/resources/cpu/cpus"));
    }

    #[test]
    fn io_limits_name_devices_by_their_number() {
        let found = of(r#"{"blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":0,"weight":10}],
                "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":5},{"major":8,"minor":16,"rate":0}],
                "throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":7}]}}"#);
        assert_eq!(value(&found, "IOWeight"), Some(Value::Uint64(4950)));
        assert_eq!(value(&found, "IODeviceWeight"), rates(&[("/dev/block/8:0", 1)]));
        let read = [("/dev/block/8:0", 5), ("/dev/block/8:16", u64::MAX)];
        assert_eq!(value(&found, "IOReadBandwidthMax"), rates(&read));
        assert_eq!(value(&found, "IOWriteIOPSMax"), rates(&[("/dev/block/8:0", 7)]));
        let found = of(r#"{"unified":{"io.max":"8:0 rbps=max wbps=3\n8:16 wbps=4","io.weight":"default 7\n8:0 9"}}"#);
        assert_eq!(value(&found, "IOWriteBandwidthMax"), rates(&[("/dev/block/8:0", 3), ("/dev/block/8:16", 4)]));
        assert_eq!(value(&found, "IOWeight"), Some(Value::Uint64(7)));
        assert_eq!(value(&found, "IODeviceWeight"), rates(&[("/dev/block/8:0", 9)]));
    }

    #[test]
    fn the_kernels_own_names_have_the_last_word() {
        let found =
            of(r#"{"memory":{"limit":1000},"unified":{"memory.max":"2M","memory.high":"1G","memory.min":"4096",
                "cpu.max":"max","memory.swap.max":"max","hugetlb.2MB.max":"0","memory.low":"1%"}}"#);
        assert_eq!(value(&found, "MemoryMax"), Some(Value::Uint64(2 << 20)));
        assert_eq!(value(&found, "MemoryHigh"), Some(Value::Uint64(1 << 30)));
        assert_eq!(value(&found, "MemoryMin"), Some(Value::Uint64(4096)));
        assert_eq!(value(&found, "CPUQuotaPerSecUSec"), Some(Value::Uint64(u64::MAX)));
        assert_eq!(found.0.len(), 6, "{found:?}");
    }

    #[test]
    fn what_newer_systemds_know_is_marked() {
        let found = of(r#"{"cpu":{"idle":1},"unified":{"memory.oom.group":"1"}}"#);
        assert!(found.0.iter().all(|property| property.newer));
        assert_eq!(value(&found, "CPUWeight"), Some(Value::Uint64(0)));
        assert_eq!(value(&found, "OOMPolicy"), Some(Value::text("kill")));
        assert!(!of(r#"{"pids":{"limit":1}}"#).has_newer());
    }
}
