//! Cache and memory bandwidth by resctrl, `linux.intelRdt`: a group of the file system in `/sys/fs/resctrl`, into which
//! the container's processes go. A group is removed with the container only if it was made for it.

mod stats;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{FsType, statfs};
use nix::unistd::Pid;
use oci_spec::runtime::{Linux, LinuxIntelRdt};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result, bail, ensure};

pub use stats::Stats;

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
pub fn is_mounted() -> bool {
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
mod tests;
