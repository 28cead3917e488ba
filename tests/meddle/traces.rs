//! What a container leaves on a machine.

use std::fs;
use std::path::Path;

use super::harness::Bundle;

/// What is there before a container is made and has to be there after it is gone, and no more.
#[derive(Clone, PartialEq, Debug)]
pub struct Traces {
    pub processes: Vec<String>,
    pub cgroups: Vec<String>,
    pub mounts: String,
    pub states: Vec<String>,
    pub files: Vec<String>,
}

impl Traces {
    pub fn of(container: &Bundle) -> Traces {
        let sandbox = container.sandbox();
        let cgroups = dirs(sandbox.cgroup(), "");
        let processes = cgroups.iter().flat_map(|dir| {
            let procs = fs::read_to_string(sandbox.cgroup().join(dir).join("cgroup.procs")).unwrap_or_default();
            let tell = |pid: &str| {
                let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                format!("{pid} {}", line.replace('\0', " "))
            };
            procs.lines().map(tell).collect::<Vec<_>>()
        });
        Traces {
            processes: processes.collect(),
            mounts: fs::read_to_string("/proc/thread-self/mountinfo").expect("read the mounts"),
            states: names(&sandbox.root()),
            files: names(container.path()),
            cgroups,
        }
    }
}

fn dirs(top: &Path, below: &str) -> Vec<String> {
    let mut found = vec![below.to_owned()];
    for entry in fs::read_dir(top.join(below)).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(dirs(top, &format!("{below}{}/", entry.file_name().display())));
        }
    }
    found.sort();
    found
}

/// The names in a directory, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().display().to_string()).collect();
    names.sort();
    names
}
