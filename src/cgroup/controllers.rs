//! Controllers: which are needed, switching them on along the ancestors, and why one is missing.

use std::fs;

use super::files;
use super::location::Location;
use crate::error::Error;
use crate::sys::Errno;

/// A controller of cgroup v2: its name there and the one it has as a cgroup v1 hierarchy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Controller(u8);

#[rustfmt::skip]
const NAMES: &[(&str, &str)] = &[
    // v2        v1
    ("cpu",     "cpu"),
    ("cpuset",  "cpuset"),
    ("dmem",    "dmem"),
    ("hugetlb", "hugetlb"),
    ("io",      "blkio"),
    ("memory",  "memory"),
    ("misc",    "misc"),
    ("pids",    "pids"),
    ("rdma",    "rdma"),
];

impl Controller {
    /// The controller that a file belongs to: the part of its name before the first dot.
    pub(super) fn of(file: &str) -> Option<Controller> {
        let prefix = file.split('.').next()?;
        let place = NAMES.iter().position(|(name, _)| *name == prefix)?;
        Some(Controller(place as u8))
    }

    /// Whether only a cgroup with whole processes in it can have it (a "domain" controller).
    pub(super) fn is_only_for_domains(self) -> bool {
        matches!(self.name(), "memory" | "io" | "hugetlb" | "rdma" | "misc")
    }

    pub(super) fn name(self) -> &'static str {
        NAMES[usize::from(self.0)].0
    }

    fn name_in_v1(self) -> &'static str {
        NAMES[usize::from(self.0)].1
    }
}

/// A set of controllers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Set(u16);

impl Set {
    pub(super) fn insert(&mut self, controller: Controller) {
        self.0 |= 1 << controller.0;
    }

    /// All that the root of the hierarchy has.
    pub(super) fn of_host(location: &Location) -> Set {
        Set::named_in(&files::read(&format!("{}/cgroup.controllers", location.mount())).unwrap_or_default())
    }

    /// Those in a list of names, as in cgroup.controllers.
    pub(super) fn named_in(names: &str) -> Set {
        let mut set = Set::default();
        names.split_whitespace().filter_map(Controller::of).for_each(|controller| set.insert(controller));
        set
    }

    pub(super) fn without(self, others: Set) -> Set {
        Set(self.0 & !others.0)
    }

    pub(super) fn is_empty(self) -> bool {
        self == Set::default()
    }

    /// Those that are only for domains.
    pub(super) fn only_for_domains(self) -> impl Iterator<Item = Controller> {
        self.iter().filter(|controller| controller.is_only_for_domains())
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Controller> {
        (0..NAMES.len() as u8).filter(move |place| self.0 & 1 << place != 0).map(Controller)
    }
}

/// Switches the controllers on in every ancestor, from the mount's root down, so that `location` has their files.
///
/// All in one write; where the kernel refuses that, one at a time, and those that it refuses stay off: the
/// caller finds their files missing and asks [`missing`].
pub(super) fn switch_on(wanted: Set, location: &Location) {
    for ancestor in location.ancestors() {
        let file = format!("{ancestor}/cgroup.subtree_control");
        if files::write(&file, &switches(wanted)).is_err() {
            one_by_one(wanted, &file);
        }
    }
}

fn one_by_one(wanted: Set, file: &str) {
    for one in wanted.iter() {
        let _ = files::write(file, &format!("+{}", one.name()));
    }
}

fn switches(wanted: Set) -> String {
    wanted.iter().map(|controller| format!("+{}", controller.name())).collect::<Vec<_>>().join(" ")
}

/// Switches on what can be had without a change to anybody else: not where a cgroup above has processes, which those
/// controllers that it may switch on would make threaded, with all below it (cgroups(7), "Threaded mode").
pub(super) fn offer(wanted: Set, location: &Location) {
    for ancestor in location.ancestors() {
        let read = |name: &str| Set::named_in(&files::read(&format!("{ancestor}/{name}")).unwrap_or_default());
        let absent = wanted.without(read("cgroup.controllers"));
        let lacking = wanted.without(absent).without(read("cgroup.subtree_control"));
        if lacking.is_empty() {
            continue;
        }
        let file = format!("{ancestor}/cgroup.subtree_control");
        match files::write(&file, &switches(lacking)) {
            Ok(()) => {}
            Err(Errno::EBUSY | Errno::EOPNOTSUPP) => return,
            // Not ours, but one below it may be.
            Err(Errno::EACCES | Errno::EPERM | Errno::EROFS) => {}
            // One of them can't be had: cpu, where processes are scheduled in real time.
            Err(_) => one_by_one(lacking, &file),
        }
    }
}

/// Says why `file`, which `controller` has, isn't there in `location`, and what to do about it.
pub(super) fn missing(file: &str, controller: Controller, location: &Location) -> Error {
    // The file was not there a moment ago, so whatever the kernel says now, it is not on.
    let switch_on = |switch: &str| {
        let done = files::write(switch, &format!("+{}", controller.name()));
        Some(done.err().unwrap_or(Errno::EAGAIN))
    };
    not_had(file, controller, location)
        .or_else(|| not_on(file, controller, location, switch_on))
        .unwrap_or_else(|| lacking(file, controller, location, location))
}

fn says(file: &str, location: &Location, why: String) -> Error {
    Error::from(Errno::ENOENT).context(format!("cgroup {location} has no {file}: {why}"))
}

/// Whether a file that is a list of controllers has this one.
pub(super) fn lists(file: &str, controller: Controller) -> bool {
    files::read(file).is_ok_and(|text| text.split_whitespace().any(|word| word == controller.name()))
}

/// That the hierarchy does not have the controller at all.
pub(super) fn not_had(file: &str, controller: Controller, location: &Location) -> Option<Error> {
    let (name, root) = (controller.name(), location.mount());
    if lists(&format!("{root}/cgroup.controllers"), controller) {
        return None;
    }
    let says = |why| says(file, location, why);
    Some(match hierarchy_in_v1(controller, &fs::read_to_string("/proc/cgroups").unwrap_or_default()) {
        V1::Mounted => says(format!("the {name} controller is in use as a cgroup v1 hierarchy on this host"))
            .hint("boot with systemd.unified_cgroup_hierarchy=1 or cgroup_no_v1=all, or leave the limit out"),
        V1::Disabled => says(format!("the {name} controller is switched off in this kernel"))
            .hint("boot without cgroup_disable= for it, or leave the limit out"),
        V1::Free => says(format!("the {name} controller is not in {root}/cgroup.controllers"))
            .hint("this kernel lacks it, or the cgroup namespace was not given it; leave the limit out"),
    })
}

/// That a cgroup above it does not hand the controller down, where that cannot be changed: `switch_on` says why not.
pub(super) fn not_on(
    file: &str,
    controller: Controller,
    location: &Location,
    switch_on: impl Fn(&str) -> Option<Errno>,
) -> Option<Error> {
    let name = controller.name();
    let off = |ancestor: String| format!("{ancestor}/cgroup.subtree_control");
    let (switch, why) =
        location.ancestors().map(off).filter(|switch| !lists(switch, controller)).find_map(|switch| {
            let why = switch_on(&switch)?;
            Some((switch, why))
        })?;
    let error = says(file, location, format!("the {name} controller is not enabled in {switch}"));
    Some(match why {
        Errno::EBUSY => error.hint("that cgroup has processes of its own; give a cgroupsPath elsewhere"),
        Errno::EOPNOTSUPP => error.hint("that cgroup is threaded; give a cgroupsPath elsewhere"),
        Errno::EACCES | Errno::EPERM => error.hint("only its owner may; ask for the controller's delegation"),
        _ => error.hint("enable it there, or leave the limit out"),
    })
}

/// That the controller is there and has no such file; `sample` is a cgroup that has it.
pub(super) fn lacking(file: &str, controller: Controller, location: &Location, sample: &Location) -> Error {
    let name = controller.name();
    let error = says(file, location, format!("this kernel's {name} controller does not have it"));
    if name == "hugetlb" { error.hint(page_sizes(sample)) } else { error }
}

/// The sizes of huge pages that can be limited.
fn page_sizes(location: &Location) -> String {
    let names = fs::read_dir(location.directory()).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let size = |name: &str| Some(name.strip_prefix("hugetlb.")?.strip_suffix(".current")?.to_owned());
    let mut sizes: Vec<String> = names.filter_map(|name| size(name.to_str()?)).filter(|s| !s.contains('.')).collect();
    sizes.sort();
    format!("the page sizes are {}", sizes.join(", "))
}

#[derive(Debug, PartialEq)]
enum V1 {
    Mounted,
    Disabled,
    Free,
}

/// Reads the lines `name hierarchy cgroups enabled` of `/proc/cgroups`.
fn hierarchy_in_v1(controller: Controller, table: &str) -> V1 {
    let line = |line: &str| -> Option<V1> {
        let mut words = line.split_whitespace();
        if words.next()? != controller.name_in_v1() {
            return None;
        }
        match (words.next()?, words.nth(1)?) {
            (_, "0") => Some(V1::Disabled),
            ("0", _) => Some(V1::Free),
            _ => Some(V1::Mounted),
        }
    };
    table.lines().find_map(line).unwrap_or(V1::Free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_belongs_to_the_controller_of_its_first_word() {
        assert_eq!(Controller::of("hugetlb.2MB.rsvd.max").map(Controller::name), Some("hugetlb"));
        assert_eq!(Controller::of("io.bfq.weight").map(Controller::name), Some("io"));
        assert_eq!(Controller::of("nosuch.x"), None);
        assert_eq!(Controller::of("cgroup.freeze"), None);
    }

    #[test]
    fn the_table_of_the_kernel_says_where_a_controller_is() {
        let table =
            "#subsys_name\thierarchy\tnum_cgroups\tenabled\nblkio\t7\t1\t1\nhugetlb\t0\t1\t1\nmemory\t0\t1\t0\n";
        let at = |file| hierarchy_in_v1(Controller::of(file).unwrap(), table);
        assert_eq!(at("io.max"), V1::Mounted);
        assert_eq!(at("hugetlb.2MB.max"), V1::Free);
        assert_eq!(at("memory.max"), V1::Disabled);
        assert_eq!(at("misc.max"), V1::Free);
    }
}
