//! New limits and device rules for a cgroup in use: all or nothing.
//!
//! Half of a pair that is not given stays as the kernel has it: the period of a quota, the memory below memory and swap,
//! the sum of the two. Nothing is kept on record for that, so what others have written meanwhile counts, too.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxResources};

use super::apply::Files;
use super::devices::{self, Allowed, Program};
use super::handle::Handle;
use super::limits::Limits;
use super::location::Location;
use super::{files, systemd};
use crate::error::{Error, Result};

/// What is to become of a cgroup, checked and converted.
pub struct Change {
    limits: Limits,
    devices: Option<Devices>,
    refused_below_usage: Usage,
}

/// The new limits, if usage above them is to be refused and not to be met by the kernel's killing.
#[derive(Clone, Copy, Default, PartialEq)]
struct Usage {
    memory: Option<u64>,
    /// On memory and swap together.
    both: Option<u64>,
}

struct Devices {
    program: Option<Program>,
    rules: u64,
    /// What systemd is told, if it has made the cgroup.
    allowed: Option<Allowed>,
}

impl Change {
    /// Reads `linux.resources` as `update` gets it, and what of the cgroup it leaves open.
    ///
    /// A list of devices that only denies all of them grants nothing and takes nothing: engines put it before every
    /// list of theirs, also in front of none.
    pub fn plan(resources: &LinuxResources, place: &Location) -> Result<Change> {
        let mut resources = resources.clone();
        complete(&mut resources, |file| files::read(&place.file(file)).ok());
        let rules = resources.devices().as_deref().filter(|rules| !rules.iter().all(denies_all));
        let compile = |rules: &[LinuxDeviceCgroup]| {
            let allowed = place.unit().map(|_| devices::allowed(rules)).transpose()?;
            Program::plan(rules).map(|program| Devices { rules: devices::digest(&program), program, allowed })
        };
        let memory = resources.memory().as_ref().filter(|memory| memory.check_before_update() == Some(true));
        let limit = |bytes: Option<i64>| bytes.and_then(|bytes| bytes.try_into().ok()).filter(|&bytes: &u64| bytes > 0);
        Ok(Change {
            limits: Limits::plan(&resources)?,
            devices: rules.map(compile).transpose()?,
            refused_below_usage: memory
                .map(|memory| Usage { memory: limit(memory.limit()), both: limit(memory.swap()) })
                .unwrap_or_default(),
        })
    }

    /// The number of the device rules, as the record keeps it; `None` when they stay.
    pub fn device_rules(&self) -> Option<u64> {
        self.devices.as_ref().map(|devices| devices.rules)
    }

    /// Writes the limits. What is refused has left everything as it was.
    pub fn apply<'a>(&self, place: &'a Location) -> Result<Applied<'a>> {
        self.check_usage(place)?;
        let mut applied = Applied { dir: Handle::of(place).open()?, place, saved: Vec::new() };
        let Applied { dir, saved, .. } = &mut applied;
        let before = |file: &str, value: &str| save(dir.as_fd(), file, value, saved);
        Files { dir: dir.as_fd(), place }.apply(&self.limits, before)?;
        Ok(applied)
    }

    fn check_usage(&self, place: &Location) -> Result<()> {
        let usage = |file: &str| files::read(&place.file(file)).ok().and_then(|text| text.trim().parse::<u64>().ok());
        let Some(memory) = usage("memory.current").filter(|_| self.refused_below_usage != Usage::default()) else {
            return Ok(());
        };
        let both = memory.saturating_add(usage("memory.swap.current").unwrap_or_default());
        let Usage { memory: limit, both: sum } = self.refused_below_usage;
        let (what, limit, used, field) = match (sum, limit) {
            (Some(sum), _) if sum < both => ("memory+swap", sum, both, "swap"),
            (_, Some(limit)) if limit < memory => ("memory", limit, memory, "limit"),
            _ => return Ok(()),
        };
        // Callers search for the first three words.
        Err(Error::new(format!("rejecting {what} limit of {limit} bytes: {used} are in use"))
            .field(format!("/linux/resources/memory/{field}"))
            .hint("without checkBeforeUpdate the kernel would reclaim, and kill where that is not enough"))
    }
}

fn denies_all(rule: &LinuxDeviceCgroup) -> bool {
    use oci_spec::runtime::LinuxDeviceType::A;
    let any = |number: Option<i64>| number.is_none_or(|number| number == -1);
    let all = rule.access().as_deref().is_some_and(|access| "rwm".chars().all(|letter| access.contains(letter)));
    !rule.allow() && matches!(rule.typ(), None | Some(A)) && any(rule.major()) && any(rule.minor()) && all
}

/// Adds the other half of a pair from what the cgroup `has`.
fn complete(resources: &mut LinuxResources, has: impl Fn(&str) -> Option<String>) {
    if let Some(cpu) = resources.cpu_mut() {
        let (quota, period) = (cpu.quota().unwrap_or(0), cpu.period().unwrap_or(0));
        if (quota == 0) != (period == 0) {
            let text = has("cpu.max").unwrap_or_default();
            let mut words = text.split_whitespace().map(str::parse::<i64>);
            let (old_quota, old_period) = (words.next().and_then(Result::ok), words.next().and_then(Result::ok));
            if quota == 0 {
                cpu.set_quota(old_quota);
            } else {
                cpu.set_period(old_period.and_then(|period| period.try_into().ok()));
            }
        }
    }
    if let Some(memory) = resources.memory_mut() {
        let number = |file: &str| has(file).and_then(|text| text.trim().parse::<i64>().ok());
        match (memory.limit().unwrap_or(0), memory.swap().unwrap_or(0)) {
            (0, 1..) => drop(memory.set_limit(number("memory.max"))),
            // The sum of the two stays, which is what the container was given.
            (1.., 0) => {
                let both = number("memory.max").zip(number("memory.swap.max"));
                memory.set_swap(both.map(|(memory, swap)| memory.saturating_add(swap)));
            }
            _ => {}
        }
    }
}

/// Limits just written. Dropped, what was there before is written again.
pub struct Applied<'a> {
    dir: OwnedFd,
    place: &'a Location,
    /// In the order of the writes: file and earlier value.
    saved: Vec<(String, String)>,
}

impl Applied<'_> {
    /// Replaces the device program, in one step, where that is asked for, and tells systemd of all that is new, in one
    /// message. The last step of the change: what fails here has left the rules as they were.
    pub fn finish(&self, change: &Change, with_devices: bool) -> Result<()> {
        let (dir, devices) = (self.dir.as_fd(), change.devices.as_ref().filter(|_| with_devices));
        let old = devices.map(|devices| devices::replace(dir, devices.program.as_ref())).transpose()?;
        let Some(unit) = self.place.unit() else { return Ok(()) };
        // After the program, since ours takes the place of all there are: systemd puts its own beside it again.
        if let Err(error) = systemd::set(unit, &change.limits, devices.and_then(|devices| devices.allowed.as_ref())) {
            old.map_or(Ok(()), |old| devices::put_back(dir, &old)).unwrap_or_else(|error| log::warn!("{error}"));
            return Err(error);
        }
        // The numbers that it has just written itself are coarser.
        Files { dir, place: self.place }.apply(&change.limits, |_, _| {})
    }

    /// Leaves the new limits in place.
    pub fn keep(mut self) {
        self.saved.clear();
    }
}

impl Drop for Applied<'_> {
    fn drop(&mut self) {
        let restore = |saved: &(String, String)| files::write_at(&self.dir, &saved.0, &saved.1).is_err();
        let refused: Vec<_> = self.saved.iter().rev().filter(|saved| restore(saved)).collect();
        // What depends on another (a burst on its quota) is taken once that is back.
        for (file, value) in refused {
            if let Err(errno) = files::write_at(&self.dir, file, value) {
                let why = crate::error::words(errno);
                log::warn!("write the earlier {value:?} to {file} of cgroup {}: {why}", self.place);
            }
        }
    }
}

/// Notes what `file` holds before `value` is written to it.
fn save(dir: BorrowedFd, file: &str, value: &str, saved: &mut Vec<(String, String)>) {
    let mut note = |file: &str| {
        let text = files::read_at(dir, file).ok();
        saved.extend(text.and_then(|text| Some((file.to_owned(), previous(file, value, &text)?))));
    };
    if file == "cpu.idle" {
        // The kernel forgets the weight of what becomes idle.
        note("cpu.weight");
    }
    note(file);
}

/// Files that have a line for each device or resource, and the words that take a line away.
#[rustfmt::skip]
const KEYED: &[(&str, &str)] = &[
    ("dmem.low",      "0"),
    ("dmem.max",      "max"),
    ("dmem.min",      "0"),
    ("io.bfq.weight", "default"),
    ("io.latency",    "target=0"),
    ("io.max",        "rbps=max wbps=max riops=max wiops=max"),
    ("io.weight",     "default"),
    ("misc.max",      "max"),
    ("rdma.max",      "hca_handle=max hca_object=max"),
];

/// What has to be written so that a file that holds `text` holds it again after a write of `value`.
fn previous(file: &str, value: &str, text: &str) -> Option<String> {
    let first_word = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let Some((_, unset)) = KEYED.iter().find(|(name, _)| *name == file) else {
        let mut lines = text.lines();
        // An empty list of processors; a write of nothing would not reach the kernel.
        let line = lines.next().filter(|line| !line.is_empty()).unwrap_or("\n");
        return lines.next().is_none().then(|| line.to_owned());
    };
    let key = match value.split_once(char::is_whitespace) {
        Some(_) => first_word(value)?,
        None => "default".to_owned(),
    };
    let line = text.lines().find(|line| first_word(line).as_deref() == Some(&key)).map(str::to_owned);
    match line {
        None if key == "default" => text.lines().next().map(str::to_owned),
        line => line.or_else(|| Some(format!("{key} {unset}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    /// Plain files that look like a cgroup below a mount.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, files: &[(&str, &str)]) -> Tree {
            let root = std::env::temp_dir().join(format!("corten-update-{}-{name}", std::process::id()));
            fs::create_dir_all(root.join("c")).unwrap();
            fs::write(root.join("cgroup.controllers"), "cpu memory pids io cpuset hugetlb").unwrap();
            fs::write(root.join("cgroup.subtree_control"), "cpu memory pids io cpuset hugetlb").unwrap();
            for (file, text) in files {
                fs::write(root.join("c").join(file), text).unwrap();
            }
            Tree(root)
        }

        fn place(&self) -> Location {
            let text = format!(r#"{{"driver":"cgroupfs","mount":"{}","path":"c","made":1}}"#, self.0.display());
            serde_json::from_str(&text).unwrap()
        }

        fn read(&self, file: &str) -> String {
            fs::read_to_string(self.0.join("c").join(file)).unwrap()
        }

        fn update(&self, resources: &str) -> Result<()> {
            let place = self.place();
            Change::plan(&serde_json::from_str(resources).unwrap(), &place)?.apply(&place)?.keep();
            Ok(())
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn half_a_pair_keeps_the_other_half_that_the_cgroup_has() {
        let tree = Tree::new("pair", &[("cpu.max", "20000 50000\n")]);
        tree.update(r#"{"cpu":{"quota":30000}}"#).unwrap();
        assert_eq!(tree.read("cpu.max"), "30000 50000");
        tree.update(r#"{"cpu":{"period":90000}}"#).unwrap();
        assert_eq!(tree.read("cpu.max"), "30000 90000");
        tree.update(r#"{"cpu":{"quota":-1}}"#).unwrap();
        assert_eq!(tree.read("cpu.max"), "max 90000");
        tree.update(r#"{"cpu":{"period":10000}}"#).unwrap();
        assert_eq!(tree.read("cpu.max"), "max 10000");
        tree.update(r#"{"cpu":{"quota":1000,"period":2000}}"#).unwrap();
        assert_eq!(tree.read("cpu.max"), "1000 2000");
    }

    #[test]
    fn b73_memory_or_swap_alone_leave_the_sum_or_the_memory_that_the_cgroup_has() {
        let tree = Tree::new("swap", &[("memory.max", "67108864\n"), ("memory.swap.max", "max\n")]);
        tree.update(r#"{"memory":{"swap":100663296}}"#).unwrap();
        assert_eq!((tree.read("memory.max"), tree.read("memory.swap.max")), ("67108864".into(), "33554432".into()));
        tree.update(r#"{"memory":{"limit":83886080}}"#).unwrap();
        assert_eq!((tree.read("memory.max"), tree.read("memory.swap.max")), ("83886080".into(), "16777216".into()));
        let error = tree.update(r#"{"memory":{"limit":134217728}}"#).unwrap_err();
        assert_eq!(error.field_name(), Some("/linux/resources/memory/swap"), "{error}");
        tree.update(r#"{"memory":{"limit":134217728,"swap":134217728}}"#).unwrap();
        let error = tree.update(r#"{"memory":{"swap":100663296}}"#).unwrap_err();
        assert_eq!(error.field_name(), Some("/linux/resources/memory/swap"), "{error}");
        tree.update(r#"{"memory":{"limit":-1}}"#).unwrap();
        assert_eq!((tree.read("memory.max"), tree.read("memory.swap.max")), ("max".into(), "max".into()));
        assert!(tree.update(r#"{"memory":{"swap":100663296}}"#).is_err(), "there is no limit on memory");
        tree.update(r#"{"memory":{"limit":1048576}}"#).unwrap();
        assert_eq!((tree.read("memory.max"), tree.read("memory.swap.max")), ("1048576".into(), "max".into()));
        tree.update(r#"{"memory":{"limit":67108864,"swap":67108864}}"#).unwrap();
        assert_eq!(tree.read("memory.swap.max"), "0");
        tree.update(r#"{"memory":{"swap":-1}}"#).unwrap();
        assert_eq!((tree.read("memory.max"), tree.read("memory.swap.max")), ("67108864".into(), "max".into()));
    }

    #[test]
    fn b75_every_value_of_the_limit_on_processes_can_follow_every_other() {
        let tree = Tree::new("pids", &[("pids.max", "max\n")]);
        for (limit, written) in [("0", "1"), ("-1", "max"), ("7", "7"), ("0", "1"), ("7", "7"), ("-1", "max")] {
            tree.update(&format!(r#"{{"pids":{{"limit":{limit}}}}}"#)).unwrap();
            assert_eq!(tree.read("pids.max"), written);
        }
    }

    #[test]
    fn what_is_refused_halfway_leaves_every_file_as_it_was() {
        let files = [("pids.max", "40\n"), ("memory.max", "max\n"), ("cpu.weight", "100\n"), ("cpuset.cpus", "\n")];
        let tree = Tree::new("undo", &files);
        let all = r#"{"pids":{"limit":7},"memory":{"limit":1048576},"cpu":{"shares":512,"cpus":"0"},
            "hugepageLimits":[{"pageSize":"3MB","limit":0}]}"#;
        let error = tree.update(all).unwrap_err();
        assert!(error.to_string().contains("hugetlb.3MB.max"), "{error}");
        for (file, text) in files {
            assert_eq!(tree.read(file).trim(), text.trim(), "{file}");
        }
    }

    #[test]
    fn dropped_limits_are_put_back_in_reverse() {
        let tree = Tree::new("drop", &[("cpu.idle", "0\n"), ("cpu.weight", "59\n"), ("pids.max", "9\n")]);
        let place = tree.place();
        let resources = r#"{"cpu":{"idle":1},"pids":{"limit":3},"unified":{"pids.max":"4"}}"#;
        let change = Change::plan(&serde_json::from_str(resources).unwrap(), &place).unwrap();
        let applied = change.apply(&place).unwrap();
        let names: Vec<&str> = applied.saved.iter().map(|(file, _)| file.as_str()).collect();
        assert_eq!(names, ["pids.max", "cpu.weight", "cpu.idle", "pids.max"]);
        assert_eq!((tree.read("cpu.idle"), tree.read("pids.max")), ("1".into(), "4".into()));
        drop(applied);
        assert_eq!((tree.read("cpu.idle"), tree.read("pids.max")), ("0".into(), "9".into()));
    }

    #[test]
    fn b74_a_limit_below_usage_is_refused_when_that_is_asked_for() {
        let used = [("memory.current", "52428800\n"), ("memory.swap.current", "1048576\n")];
        let tree = Tree::new("usage", &[used[0], used[1], ("memory.max", "max\n")]);
        for (limits, field, words) in [
            (r#""limit":20971520"#, "limit", ["rejecting memory limit", "52428800"]),
            (r#""limit":52428800,"swap":52428800"#, "swap", ["rejecting memory+swap limit", "53477376"]),
        ] {
            let error = tree.update(&format!(r#"{{"memory":{{{limits},"checkBeforeUpdate":true}}}}"#)).unwrap_err();
            assert_eq!(error.field_name(), Some(format!("/linux/resources/memory/{field}").as_str()), "{error}");
            words.iter().for_each(|word| assert!(error.to_string().contains(word), "{error}"));
            assert_eq!(tree.read("memory.max"), "max\n");
        }
        tree.update(r#"{"memory":{"limit":62914560,"checkBeforeUpdate":true}}"#).unwrap();
        tree.update(r#"{"memory":{"limit":20971520}}"#).unwrap();
        assert_eq!(tree.read("memory.max"), "20971520");
    }

    #[test]
    fn a_line_of_a_file_with_many_is_put_back_alone() {
        let io_max = "8:0 rbps=1 wbps=max riops=max wiops=max\n8:16 rbps=2 wbps=max riops=max wiops=max\n";
        let back = |file, value, text| previous(file, value, text).unwrap();
        assert_eq!(back("io.max", "8:16 wbps=7", io_max), "8:16 rbps=2 wbps=max riops=max wiops=max");
        assert_eq!(back("io.max", "8:32 wbps=7", io_max), "8:32 rbps=max wbps=max riops=max wiops=max");
        assert_eq!(back("io.weight", "500", "default 100\n8:0 50\n"), "default 100");
        assert_eq!(back("io.weight", "8:16 500", "default 100\n"), "8:16 default");
        assert_eq!(back("io.bfq.weight", "500", "100\n"), "100");
        assert_eq!(back("cpu.max", "1000 2000", "max 100000\n"), "max 100000");
        assert_eq!(back("cpuset.cpus", "0", "\n"), "\n");
        assert_eq!(back("cpuset.cpus", "0", ""), "\n");
        assert_eq!(previous("cpu.pressure", "some 1 2", "some\nfull\n"), None);
    }

    #[test]
    fn a_list_that_only_denies_all_devices_changes_none() {
        let tree = Tree::new("devices", &[]);
        let rules = |text: &str| {
            let resources = serde_json::from_str(&format!(r#"{{"devices":{text}}}"#)).unwrap();
            Change::plan(&resources, &tree.place()).unwrap().device_rules()
        };
        for none in ["[]", r#"[{"allow":false,"access":"rwm"}]"#, r#"[{"allow":false,"type":"a","access":"rwm"}]"#] {
            assert_eq!(rules(none), None, "{none}");
        }
        let fuse = r#"{"allow":true,"type":"c","major":10,"minor":229,"access":"rwm"}"#;
        let one = rules(&format!(r#"[{{"allow":false,"access":"rwm"}},{fuse}]"#));
        assert!(one.is_some());
        assert_eq!(one, rules(&format!("[{fuse}]")), "what it means counts");
        assert_ne!(one, rules(r#"[{"allow":false,"type":"c","access":"rwm"}]"#));
        assert!(rules(r#"[{"allow":true,"access":"rwm"}]"#).is_some(), "all may be allowed");
    }
}
