//! `update`.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxIntelRdt, LinuxMemory, LinuxPids};

use crate::argv::{arguments, operand, option};
use crate::cli::Global;
use crate::container::update::{self, UpdateRequest};
use crate::error::{Context, Error, Result};
use crate::plan;

arguments! {
    /// Change the resource limits of a container
    #[derive(Default)]
    pub struct Update {
        /// JSON file with the limits; - is standard input
        resources: Option<String> = option().short('r').value("FILE"),
        /// Weight of block I/O, from 10 to 1000
        blkio_weight: Option<String> = option().value("WEIGHT"),
        /// CPU period
        cpu_period: Option<String> = option().value("MICROSECONDS"),
        /// CPU quota per period; -1 removes it
        cpu_quota: Option<String> = option().value("MICROSECONDS").hyphens(),
        /// CPU burst beyond the quota
        cpu_burst: Option<String> = option().value("MICROSECONDS"),
        /// CPU shares, a weight from 2 to 262144
        cpu_share: Option<String> = option().value("SHARES"),
        /// Accepted and ignored: cgroup v2 has none
        cpu_rt_period: Option<String> = option().value("MICROSECONDS").hidden(),
        /// Accepted and ignored: cgroup v2 has none
        cpu_rt_runtime: Option<String> = option().value("MICROSECONDS").hidden().hyphens(),
        /// CPUs to use, such as 0-3,7
        cpuset_cpus: Option<String> = option().value("LIST"),
        /// Memory nodes to use, such as 0-3,7
        cpuset_mems: Option<String> = option().value("LIST"),
        /// Whether to use only CPU time that others leave idle
        cpu_idle: Option<String> = option().value("0|1").hyphens(),
        /// Limit on memory
        memory: Option<String> = option().value("BYTES").hyphens(),
        /// Soft limit on memory
        memory_reservation: Option<String> = option().value("BYTES").hyphens(),
        /// Limit on memory and swap, together
        memory_swap: Option<String> = option().value("BYTES").hyphens(),
        /// Accepted and ignored: cgroup v2 has none
        kernel_memory: Option<String> = option().value("BYTES").hidden().hyphens(),
        /// Accepted and ignored: cgroup v2 has none
        kernel_memory_tcp: Option<String> = option().value("BYTES").hidden().hyphens(),
        /// Limit on the number of processes; -1 removes it
        pids_limit: Option<String> = option().value("NUMBER").hyphens(),
        /// Allocation of L3 cache, a schema of resctrl
        l3_cache_schema: Option<String> = option().value("SCHEMA"),
        /// Allocation of memory bandwidth, a schema of resctrl
        mem_bw_schema: Option<String> = option().value("SCHEMA"),
        /// ID of the container
        id: String = operand(),
    }
}

impl Update {
    pub(super) fn run(self, global: &Global) -> Result<u8> {
        let update = || {
            let container = super::store(global)?.open(&self.id)?;
            match &self.resources {
                Some(file) => update::update(&container, &read(file)?),
                None => update::update(&container, &self.request()?).map_err(name_option),
            }
        };
        update().with_context(|| format!("update {}", self.id))?;
        Ok(0)
    }

    /// What the options ask for. An empty one is none, as for runc.
    fn request(&self) -> Result<UpdateRequest> {
        let ignored = [
            ("cpu-rt-period", &self.cpu_rt_period),
            ("cpu-rt-runtime", &self.cpu_rt_runtime),
            ("kernel-memory", &self.kernel_memory),
            ("kernel-memory-tcp", &self.kernel_memory_tcp),
        ];
        for (name, _) in ignored.iter().filter(|(_, value)| given(value).is_some()) {
            log::warn!("--{name} is ignored: cgroup v2 has no such limit");
        }
        let mut request = UpdateRequest::default();
        let resources = &mut request.resources;
        let mut cpu = LinuxCpu::default();
        cpu.set_shares(number("cpu-share", &self.cpu_share)?);
        cpu.set_quota(number("cpu-quota", &self.cpu_quota)?);
        cpu.set_period(number("cpu-period", &self.cpu_period)?);
        cpu.set_burst(number("cpu-burst", &self.cpu_burst)?);
        cpu.set_idle(number("cpu-idle", &self.cpu_idle)?);
        cpu.set_cpus(given(&self.cpuset_cpus).map(str::to_owned));
        cpu.set_mems(given(&self.cpuset_mems).map(str::to_owned));
        resources.set_cpu(Some(cpu));
        let mut memory = LinuxMemory::default();
        memory.set_limit(bytes("memory", &self.memory)?);
        memory.set_reservation(bytes("memory-reservation", &self.memory_reservation)?);
        memory.set_swap(bytes("memory-swap", &self.memory_swap)?);
        resources.set_memory(Some(memory));
        let mut block_io = LinuxBlockIo::default();
        block_io.set_weight(number("blkio-weight", &self.blkio_weight)?);
        resources.set_block_io(Some(block_io));
        resources.set_pids(number("pids-limit", &self.pids_limit)?.map(|limit| {
            let mut pids = LinuxPids::default();
            pids.set_limit(limit);
            pids
        }));
        resources.set_devices(None);
        let (cache, bandwidth) = (given(&self.l3_cache_schema), given(&self.mem_bw_schema));
        request.resctrl = (cache.is_some() || bandwidth.is_some()).then(|| {
            let mut wanted = LinuxIntelRdt::default();
            wanted.set_l3_cache_schema(cache.map(str::to_owned));
            wanted.set_mem_bw_schema(bandwidth.map(str::to_owned));
            wanted
        });
        Ok(request)
    }
}

/// Reads a file of limits.
fn read(file: &str) -> Result<UpdateRequest> {
    let what = || format!("read the limits from {}", if file == "-" { "stdin" } else { file });
    let text = super::read(file.as_ref()).with_context(what)?;
    let resources = plan::config::parse(&text).with_context(what)?;
    Ok(UpdateRequest { resources, resctrl: None })
}

fn given(value: &Option<String>) -> Option<&str> {
    value.as_deref().filter(|value| !value.is_empty())
}

fn number<T: std::str::FromStr>(name: &str, value: &Option<String>) -> Result<Option<T>> {
    let parse = |text: &str| text.parse().map_err(|_| Error::new(format!("--{name}: {text:?} is not such a number")));
    given(value).map(parse).transpose()
}

/// Bytes with an optional unit: `100`, `1.5g`, `10 MiB`; -1 is no limit. Units are powers of 1024.
fn bytes(name: &str, value: &Option<String>) -> Result<Option<i64>> {
    let parse = |text: &str| {
        size(text).ok_or_else(|| {
            Error::new(format!("--{name}: {text:?} is not a size")).hint("give bytes, or a number with k, m, g or t")
        })
    };
    given(value).map(parse).transpose()
}

fn size(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
    let (count, unit) = text.split_at(digits);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let unit = match unit.strip_suffix('i') {
        Some("") => return None,
        Some(prefix) => prefix,
        None => unit,
    };
    let power = match unit {
        "" => 0,
        unit => 1 + "kmgtp".find(unit).filter(|_| unit.len() == 1)? as u32,
    };
    let factor = 1i64 << (10 * power);
    match count.parse::<i64>() {
        Ok(count) => count.checked_mul(factor),
        Err(_) => {
            let bytes = count.parse::<f64>().ok()? * factor as f64;
            (bytes < i64::MAX as f64).then_some(bytes as i64)
        }
    }
}

/// The options by the fields that they set.
#[rustfmt::skip]
const OPTIONS: &[(&str, &str)] = &[
    ("/linux/intelRdt/l3CacheSchema",     "l3-cache-schema"),
    ("/linux/intelRdt/memBwSchema",       "mem-bw-schema"),
    ("/linux/resources/blockIO/weight",   "blkio-weight"),
    ("/linux/resources/cpu/burst",        "cpu-burst"),
    ("/linux/resources/cpu/cpus",         "cpuset-cpus"),
    ("/linux/resources/cpu/idle",         "cpu-idle"),
    ("/linux/resources/cpu/mems",         "cpuset-mems"),
    ("/linux/resources/cpu/period",       "cpu-period"),
    ("/linux/resources/cpu/quota",        "cpu-quota"),
    ("/linux/resources/cpu/shares",       "cpu-share"),
    ("/linux/resources/memory/limit",     "memory"),
    ("/linux/resources/memory/reservation", "memory-reservation"),
    ("/linux/resources/memory/swap",      "memory-swap"),
    ("/linux/resources/pids/limit",       "pids-limit"),
];

/// Adds the option that stands for the field of an error.
fn name_option(error: Error) -> Error {
    let option = OPTIONS.iter().find(|(field, _)| error.field_name() == Some(field));
    match option {
        Some((_, option)) => error.context(format!("--{option}")),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("0", 0),
            ("-1", -1),
            ("1024", 1024),
            ("1k", 1024),
            ("64M", 64 << 20),
            ("64MB", 64 << 20),
            ("2 GiB", 2 << 30),
            ("1.5g", 3 << 29),
            ("10b", 10),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["-2", "m", "1x", "1mm", "1  ", "1ib", "99999999999g", "1..5k", "k1", "1km"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn an_error_of_a_field_names_its_option() {
        let error = name_option(Error::new("too small").field("/linux/resources/memory/swap"));
        assert_eq!(error.to_string(), "--memory-swap: /linux/resources/memory/swap: too small");
    }

    #[test]
    fn empty_options_are_none_and_numbers_are_numbers() {
        let none = Update { memory: Some(String::new()), cpu_idle: Some(String::new()), ..Update::default() };
        assert_eq!(none.request().unwrap().resources.memory().as_ref().unwrap().limit(), None);
        let wrong = Update { pids_limit: Some("many".into()), ..Update::default() };
        assert!(wrong.request().err().unwrap().to_string().contains("--pids-limit"));
        let large = Update { blkio_weight: Some("70000".into()), ..Update::default() };
        assert!(large.request().err().unwrap().to_string().contains("--blkio-weight"));
    }
}
