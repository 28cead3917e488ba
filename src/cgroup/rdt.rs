//! Cache and memory bandwidth by resctrl, `linux.intelRdt`: a group of the file system in `/sys/fs/resctrl`, into which
//! the container's processes go. A group is removed with the container only if it was made for it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{FsType, statfs};
use nix::unistd::Pid;
use oci_spec::runtime::{Linux, LinuxIntelRdt};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result, bail, ensure};

/// Where the kernel documents it to be mounted (Documentation/filesystems/resctrl.rst).
const PLACE: &str = "/sys/fs/resctrl";
/// `RDTGROUP_SUPER_MAGIC`, linux/magic.h.
const MAGIC: FsType = FsType(0x0765_5821);
/// Directories of the root that are no groups.
const RESERVED: [&str; 5] = ["info", "mon_groups", "mon_data", ".", ".."];

/// What the config asks for.
#[derive(Debug)]
pub struct Request {
    /// The container's id, by which its group of counters is called.
    id: String,
    /// `closID`; without one the group has the id of the container.
    class: Option<String>,
    /// What goes into `schemata`, one write each.
    schemata: Vec<String>,
    monitoring: bool,
}

/// The group of a container, as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    directory: PathBuf,
    /// Whether it is made for this container alone.
    made: bool,
    /// The group of counters below it.
    counters: Option<PathBuf>,
}

impl Request {
    /// Compiles `linux.intelRdt` (runtime-spec, "IntelRdt").
    pub fn plan(linux: Option<&Linux>, id: &str) -> Result<Option<Request>> {
        let Some(wanted) = linux.and_then(|linux| linux.intel_rdt().as_ref()) else { return Ok(None) };
        let class = wanted.clos_id().clone().filter(|class| !class.is_empty());
        if let Some(class) = &class {
            let sound = class == "/" || !(class.contains(['/', '\n', '\0']) || RESERVED.contains(&class.as_str()));
            ensure_at(sound, || format!("{class:?} is no name of a group"), "closID")?;
        }
        // The latter two are those of before runtime-spec 1.3.
        let asked = [wanted.enable_monitoring(), wanted.enable_cmt(), wanted.enable_mbm()];
        let monitoring = asked.contains(&&Some(true));
        Ok(Some(Request { id: id.to_owned(), class, schemata: schemata(wanted)?, monitoring }))
    }

    /// Finds the group and checks what is there; changes nothing, so that the result can be recorded before anything is
    /// made.
    pub fn place(&self) -> Result<Group> {
        if !is_mounted() {
            return Err(Error::new(format!("no resctrl file system is mounted on {PLACE}"))
                .field("/linux/intelRdt")
                .hint(
                    "mount -t resctrl resctrl /sys/fs/resctrl; it needs a processor with cache or bandwidth allocation",
                ));
        }
        self.place_in(Path::new(PLACE)).field(|| "/linux/intelRdt")
    }

    fn place_in(&self, root: &Path) -> Result<Group> {
        let directory = match self.class.as_deref() {
            Some("/") => root.to_owned(),
            class => root.join(class.unwrap_or(&self.id)),
        };
        let there = directory.is_dir();
        if let (Some(class), false, true) = (&self.class, there, self.schemata.is_empty()) {
            bail!("there is no group {class}, and nothing says what it should be like");
        }
        if there && !self.schemata.is_empty() {
            self.compare(&directory)?;
        }
        let counters = self.monitoring.then(|| directory.join("mon_groups").join(&self.id));
        Ok(Group { directory, made: !there, counters })
    }

    /// A group that is there is shared with others: its limits have to be those that are asked for.
    fn compare(&self, directory: &Path) -> Result<()> {
        let path = directory.join("schemata");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let have = limits(&text);
        for (name, wanted) in self.schemata.iter().flat_map(|lines| limits(lines)) {
            let same = have.iter().any(|(other, value)| *other == name && *value == wanted);
            ensure!(same, "the group {} is there already and differs in {name}", directory.display());
        }
        Ok(())
    }

    /// Makes the group, unless it is there, and sets its limits. What fails has been undone.
    pub fn make(&self, group: &Group) -> Result<()> {
        if group.made {
            // One that has come to be since it was looked for is somebody else's.
            fs::create_dir(&group.directory)
                .with_context(|| format!("make the resctrl group {}", group.directory.display()))
                .field(|| "/linux/intelRdt")?;
        }
        self.fill(group).field(|| "/linux/intelRdt").inspect_err(|_| drop(group.remove()))
    }

    fn fill(&self, group: &Group) -> Result<()> {
        if group.made {
            for lines in &self.schemata {
                write(&group.directory, "schemata", lines)?;
            }
        }
        if let Some(counters) = &group.counters {
            fs::create_dir(counters).with_context(|| format!("make the monitoring group {}", counters.display()))?;
        }
        Ok(())
    }
}

/// Whether there are groups on this host.
pub(super) fn is_mounted() -> bool {
    statfs(PLACE).is_ok_and(|found| found.filesystem_type() == MAGIC)
}

impl Group {
    /// Puts a process into the group; its children to come are born there.
    pub fn add(&self, pid: Pid) -> Result<()> {
        for directory in [Some(&self.directory), self.counters.as_ref()].into_iter().flatten() {
            write(directory, "tasks", &pid.to_string()).field(|| "/linux/intelRdt")?;
        }
        Ok(())
    }

    /// Gives the group other limits; where some are refused, the old ones stay.
    pub fn change(&self, wanted: &LinuxIntelRdt) -> Result<()> {
        let path = self.directory.join("schemata");
        let old = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let old: Vec<&str> = old.lines().map(str::trim).collect();
        schemata(wanted)?.iter().try_for_each(|lines| write(&self.directory, "schemata", lines)).inspect_err(|_| {
            // There is another error to tell.
            let _ = write(&self.directory, "schemata", &(old.join("\n") + "\n"));
        })
    }

    /// Removes what was made. Its processes fall back to the group above.
    pub fn remove(&self) -> Result<()> {
        let made = self.made.then_some(&self.directory);
        for directory in [self.counters.as_ref(), made].into_iter().flatten() {
            match remove_directory(directory) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("remove {}", directory.display())),
            }
        }
        Ok(())
    }
}

/// What a group tells, in the form in which `runc events` tells it; empty without one.
#[derive(Debug, Default, Serialize)]
pub struct Stats {
    #[serde(skip_serializing_if = "Option::is_none")]
    l3_cache_info: Option<CacheInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_bw_info: Option<BandwidthInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema: String,
    /// By memory node.
    #[serde(skip_serializing_if = "Option::is_none")]
    mbm_stats: Option<Vec<Bandwidth>>,
    /// By memory node.
    #[serde(skip_serializing_if = "Option::is_none")]
    cmt_stats: Option<Vec<Occupancy>>,
}

#[derive(Debug, Serialize)]
struct CacheInfo {
    cbm_mask: String,
    min_cbm_bits: u64,
    num_closids: u64,
}

#[derive(Debug, Serialize)]
struct BandwidthInfo {
    bandwidth_gran: u64,
    delay_linear: u64,
    min_bandwidth: u64,
    num_closids: u64,
}

#[derive(Debug, Serialize)]
struct Bandwidth {
    mbm_total_bytes: u64,
    mbm_local_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Occupancy {
    llc_occupancy: u64,
}

impl Group {
    /// What it limits and, where it has counters of its own, what was counted.
    pub fn stats(&self) -> Stats {
        self.stats_in(Path::new(PLACE))
    }

    fn stats_in(&self, root: &Path) -> Stats {
        let text = |path: PathBuf| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let line = |directory: &Path, resource: &str| {
            let schemata = text(directory.join("schemata"));
            let line = schemata.lines().map(str::trim).find(|line| line.starts_with(resource));
            line.unwrap_or_default().to_owned()
        };
        let info = |resource: &str, name: &str| text(root.join("info").join(resource).join(name));
        let number = |resource: &str, name: &str| info(resource, name).parse().unwrap_or(0);
        let has = |resource: &str| root.join("info").join(resource).is_dir();
        let counted = self.counters.as_deref().unwrap_or(&self.directory).join("mon_data");
        let mut nodes: Vec<PathBuf> =
            fs::read_dir(&counted).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        nodes.sort();
        let count = |node: &PathBuf, name: &str| text(node.join(name)).parse().ok();
        let bandwidth = |node: &PathBuf| {
            let (total, local) = (count(node, "mbm_total_bytes")?, count(node, "mbm_local_bytes")?);
            Some(Bandwidth { mbm_total_bytes: total, mbm_local_bytes: local })
        };
        let occupancy = |node: &PathBuf| Some(Occupancy { llc_occupancy: count(node, "llc_occupancy")? });
        let bandwidths: Vec<Bandwidth> = nodes.iter().filter_map(bandwidth).collect();
        let occupancies: Vec<Occupancy> = nodes.iter().filter_map(occupancy).collect();
        Stats {
            l3_cache_info: has("L3").then(|| CacheInfo {
                cbm_mask: info("L3", "cbm_mask"),
                min_cbm_bits: number("L3", "min_cbm_bits"),
                num_closids: number("L3", "num_closids"),
            }),
            l3_cache_schema_root: line(root, "L3"),
            l3_cache_schema: line(&self.directory, "L3"),
            mem_bw_info: has("MB").then(|| BandwidthInfo {
                bandwidth_gran: number("MB", "bandwidth_gran"),
                delay_linear: number("MB", "delay_linear"),
                min_bandwidth: number("MB", "min_bandwidth"),
                num_closids: number("MB", "num_closids"),
            }),
            mem_bw_schema_root: line(root, "MB:"),
            mem_bw_schema: line(&self.directory, "MB:"),
            mbm_stats: (!bandwidths.is_empty()).then_some(bandwidths),
            cmt_stats: (!occupancies.is_empty()).then_some(occupancies),
        }
    }
}

/// What is to be written, in the order of the standard.
fn schemata(wanted: &LinuxIntelRdt) -> Result<Vec<String>> {
    let bandwidth = wanted.mem_bw_schema().as_deref().unwrap_or_default();
    if !bandwidth.is_empty() {
        let sound = bandwidth.starts_with("MB:") && !bandwidth.contains('\n');
        ensure_at(sound, || format!("{bandwidth:?} is not one line that starts with MB:"), "memBwSchema")?;
    }
    let cache = wanted.l3_cache_schema().as_deref().unwrap_or_default();
    let cache = cache.lines().filter(|line| bandwidth.is_empty() || !line.starts_with("MB:"));
    let both: Vec<&str> = cache.chain([bandwidth]).filter(|line| !line.trim().is_empty()).collect();
    let lines: Vec<&str> = wanted.schemata().iter().flatten().map(String::as_str).collect();
    let writes = [both, lines].into_iter().filter(|lines| !lines.is_empty());
    Ok(writes.map(|lines| lines.join("\n") + "\n").collect())
}

/// The single limits of some schemata, in a form in which they can be compared: `L3:0`, `7ff`.
fn limits(lines: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (resource, domains) in lines.lines().filter_map(|line| line.split_once(':')) {
        for (domain, value) in domains.split(';').filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_start_matches("0x").trim_start_matches('0').to_ascii_lowercase();
            found.push((format!("{}:{}", resource.trim(), domain.trim()), value));
        }
    }
    found
}

/// One write to a file that is there. What the kernel thinks of it is in `info/last_cmd_status`.
fn write(directory: &Path, name: &str, text: &str) -> Result<()> {
    let path = directory.join(name);
    // The file system fills a new group by itself; the plain directory of a test does not.
    let mut options = OpenOptions::new();
    options.write(true).create(cfg!(test)).append(cfg!(test));
    let done = options.open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
    done.with_context(|| {
        let said = fs::read_to_string(Path::new(PLACE).join("info/last_cmd_status")).unwrap_or_default();
        format!("write {} to {} ({})", text.trim().replace('\n', ", "), path.display(), said.trim())
    })
}

/// rmdir(2), which takes a group away with its files; those of a test have to be removed one by one.
fn remove_directory(directory: &Path) -> std::io::Result<()> {
    if cfg!(test) { fs::remove_dir_all(directory) } else { fs::remove_dir(directory) }
}

fn ensure_at(right: bool, message: impl FnOnce() -> String, field: &str) -> Result<()> {
    if right { Ok(()) } else { Err(Error::new(message()).field(format!("/linux/intelRdt/{field}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plain directory that looks like the root of resctrl.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Tree {
            let root = std::env::temp_dir().join(format!("corten-rdt-{}-{name}", std::process::id()));
            for sub in ["info", "mon_groups", "there/mon_groups"] {
                fs::create_dir_all(root.join(sub)).unwrap();
            }
            fs::write(root.join("schemata"), "    L3:0=7ff;1=7ff\n    MB:0=100;1=100\n").unwrap();
            fs::write(root.join("there/schemata"), "    L3:0=00f;1=0ff\n    MB:0=20;1=70\n").unwrap();
            Tree(root)
        }

        fn read(&self, path: &str) -> String {
            fs::read_to_string(self.0.join(path)).unwrap_or_default()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn plan(json: &str) -> Result<Request> {
        let linux: Linux = serde_json::from_str(&format!(r#"{{"intelRdt":{json}}}"#)).unwrap();
        Request::plan(Some(&linux), "web").map(Option::unwrap)
    }

    /// The group of this request in the tree, made.
    fn made(tree: &Tree, json: &str) -> Result<Group> {
        let request = plan(json)?;
        let group = request.place_in(&tree.0)?;
        request.make(&group)?;
        Ok(group)
    }

    #[test]
    fn a_group_of_the_containers_own_is_made_and_removed() {
        let tree = Tree::new("own");
        let group = made(&tree, r#"{"l3CacheSchema":"L3:0=f\nMB:0=1","memBwSchema":"MB:0=20","schemata":["L2:0=3"]}"#);
        let group = group.unwrap();
        assert_eq!(tree.read("web/schemata"), "L3:0=f\nMB:0=20\nL2:0=3\n");
        group.add(Pid::from_raw(42)).unwrap();
        assert_eq!(tree.read("web/tasks"), "42");
        group.remove().unwrap();
        assert!(!tree.0.join("web").exists());
        group.remove().unwrap();
    }

    #[test]
    fn a_group_that_is_there_is_joined_if_it_is_the_same_and_never_removed() {
        let tree = Tree::new("there");
        for same in ["{}", r#"{"l3CacheSchema":"L3:0=f;1=ff"}"#, r#"{"memBwSchema":"MB:1=70"}"#] {
            let json = same.replacen('{', r#"{"closID":"there","#, 1).replace(",}", "}");
            let group = made(&tree, &json).unwrap();
            assert!(!group.made);
            group.remove().unwrap();
        }
        assert!(!tree.read("there/schemata").is_empty());
        let error = made(&tree, r#"{"closID":"there","l3CacheSchema":"L3:0=ff"}"#).unwrap_err();
        assert!(error.to_string().contains("differs in L3:0"), "{error}");
        assert_eq!(made(&tree, r#"{"closID":"/"}"#).unwrap().directory, tree.0);
        assert!(made(&tree, r#"{"closID":"absent"}"#).is_err());
        assert!(made(&tree, r#"{"closID":"absent","memBwSchema":"MB:0=20"}"#).unwrap().made);
    }

    #[test]
    fn a_group_gets_other_limits() {
        let tree = Tree::new("change");
        let group = made(&tree, r#"{"l3CacheSchema":"L3:0=f"}"#).unwrap();
        let wanted = |json: &str| serde_json::from_str::<LinuxIntelRdt>(json).unwrap();
        group.change(&wanted(r#"{"l3CacheSchema":"L3:0=3","memBwSchema":"MB:0=20"}"#)).unwrap();
        assert_eq!(tree.read("web/schemata"), "L3:0=f\nL3:0=3\nMB:0=20\n");
        let error = group.change(&wanted(r#"{"memBwSchema":"L3:0=1"}"#)).unwrap_err();
        assert_eq!(error.field_name(), Some("/linux/intelRdt/memBwSchema"));
    }

    #[test]
    fn a_group_tells_what_it_limits_and_what_was_counted() {
        let tree = Tree::new("stats");
        for (file, value) in [
            ("info/L3/cbm_mask", "7ff\n"),
            ("info/L3/min_cbm_bits", "1\n"),
            ("info/MB/min_bandwidth", "10\n"),
            ("there/mon_data/mon_L3_00/mbm_total_bytes", "9\n"),
            ("there/mon_data/mon_L3_00/mbm_local_bytes", "8\n"),
            ("there/mon_data/mon_L3_00/llc_occupancy", "7\n"),
        ] {
            let path = tree.0.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, value).unwrap();
        }
        let request = plan(r#"{"closID":"there"}"#).unwrap();
        let stats = serde_json::to_value(request.place_in(&tree.0).unwrap().stats_in(&tree.0)).unwrap();
        assert_eq!(
            (&stats["l3_cache_schema"], &stats["mem_bw_schema_root"]),
            (&"L3:0=00f;1=0ff".into(), &"MB:0=100;1=100".into())
        );
        assert_eq!(
            (&stats["l3_cache_info"]["cbm_mask"], &stats["l3_cache_info"]["min_cbm_bits"]),
            (&"7ff".into(), &1.into())
        );
        assert_eq!(stats["mem_bw_info"]["min_bandwidth"], 10);
        assert_eq!(stats["mbm_stats"][0], serde_json::json!({"mbm_total_bytes": 9, "mbm_local_bytes": 8}));
        assert_eq!(stats["cmt_stats"], serde_json::json!([{"llc_occupancy": 7}]));
    }

    #[test]
    fn counters_have_a_group_of_their_own() {
        let tree = Tree::new("counters");
        let group = made(&tree, r#"{"closID":"there","enableMBM":true}"#).unwrap();
        group.remove().unwrap();
        let group = made(&tree, r#"{"closID":"there","enableCMT":false,"enableMonitoring":true}"#).unwrap();
        group.add(Pid::from_raw(7)).unwrap();
        assert_eq!((tree.read("there/tasks"), tree.read("there/mon_groups/web/tasks")), ("7".into(), "7".into()));
        group.remove().unwrap();
        assert!(!tree.0.join("there/mon_groups/web").exists() && tree.0.join("there").exists());
    }

    #[test]
    fn names_and_lines_that_lead_elsewhere_are_refused_with_their_field() {
        for class in ["..", ".", "a/b", "/a", "info", "mon_groups", "a\\n"] {
            let error = plan(&format!(r#"{{"closID":"{class}"}}"#)).unwrap_err();
            assert_eq!(error.field_name(), Some("/linux/intelRdt/closID"), "{class}");
        }
        for line in ["L3:0=1", "MB:0=1\\nL3:0=1"] {
            let error = plan(&format!(r#"{{"memBwSchema":"{line}"}}"#)).unwrap_err();
            assert_eq!(error.field_name(), Some("/linux/intelRdt/memBwSchema"), "{line}");
        }
    }
}
