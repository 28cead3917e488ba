//! `check --host`: what this host has of what containers need, and the impact of what is missing.

use std::fs;

use serde_json::{Value, json};

use crate::cgroup::probe::Probe;
use crate::commands::table;
use crate::error::Error;
use crate::namespaces::{self, delegated, user};
use crate::{host, process, resctrl, seccomp, sys};

/// The oldest kernel that corten is made for.
const OLDEST: (u32, u32) = (5, 14);

/// The level of Landlock whose rights are all that corten knows.
const LANDLOCK: u32 = 6;

/// How much of something there is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// All of it.
    Good,
    /// Some of it.
    Partial,
    /// Nothing.
    Missing,
    /// Nothing, and without it nothing works.
    Fatal,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            State::Good => "ok",
            State::Partial => "partial",
            State::Missing => "missing",
            State::Fatal => "fatal",
        }
    }
}

/// Something that a host may have.
pub(super) struct Fact {
    area: &'static str,
    feature: String,
    state: State,
    /// What is there, or why not.
    seen: String,
    /// What is lost where not all of it is there.
    impact: &'static str,
}

impl Fact {
    fn new(area: &'static str, feature: impl Into<String>, state: State, seen: impl Into<String>) -> Fact {
        Fact { area, feature: feature.into(), state, seen: seen.into(), impact: "" }
    }

    /// What is lost if it is not there as it should be.
    fn or(self, impact: &'static str) -> Fact {
        if self.state == State::Good { self } else { Fact { impact, ..self } }
    }
}

/// Whether corten can work here at all.
pub(super) fn suffices(facts: &[Fact]) -> bool {
    facts.iter().all(|fact| fact.state != State::Fatal)
}

/// A table, below what is not as it should be the impact of that, and a sentence.
pub(super) fn text(facts: &[Fact]) -> String {
    let row =
        |fact: &Fact| [format!("{}: {}", fact.area, fact.feature), fact.state.word().to_owned(), fact.seen.clone()];
    let rows: Vec<[String; 3]> = facts.iter().map(row).collect();
    let mut text = String::new();
    for (line, fact) in table::lay_out(&rows).lines().zip(facts) {
        text.push_str(line.trim_end());
        text.push('\n');
        if !fact.impact.is_empty() {
            text.push_str(&format!("  impact: {}\n", fact.impact));
        }
    }
    let verdict = if suffices(facts) { "corten works on this host" } else { "corten cannot work on this host" };
    format!("{text}{verdict}\n")
}

/// The same for programs.
pub(super) fn document(facts: &[Fact]) -> Value {
    let row = |fact: &Fact| {
        let Fact { area, feature, state, seen, impact } = fact;
        let mut row = json!({"area": area, "feature": feature, "state": state.word(), "seen": seen});
        if !impact.is_empty() {
            row["impact"] = (*impact).into();
        }
        row
    };
    json!({"suffices": suffices(facts), "facts": facts.iter().map(row).collect::<Vec<_>>()})
}

/// Looks at the host; changes nothing.
pub(super) fn survey() -> Vec<Fact> {
    let mut facts = Vec::new();
    if !sys::procfs::is_mounted() {
        let fact = Fact::new("kernel", "procfs", State::Fatal, "not mounted on /proc");
        return vec![fact.or("no container can be made, and nothing else can be told: mount -t proc proc /proc")];
    }
    kernel(&mut facts);
    modules(&mut facts);
    cgroups(&mut facts);
    rights(&mut facts);
    facts
}

fn state(good: bool) -> State {
    if good { State::Good } else { State::Missing }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn kernel(facts: &mut Vec<Fact>) {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let known = if version >= OLDEST { State::Good } else { State::Fatal };
    facts.push(Fact::new("kernel", "version", known, &release).or("Linux 5.14 is the oldest that corten works on"));

    let lacking: Vec<&str> = sys::probe::lacking().collect();
    let (calls, seen) = match lacking.is_empty() {
        true => (State::Good, "all that are needed".to_owned()),
        false => (State::Fatal, format!("no {}", lacking.join(", "))),
    };
    let impact = "the kernel is too old, or a sandbox around corten hides them: no container can be made";
    facts.push(Fact::new("kernel", "system calls", calls, seen).or(impact));

    let lacks = |kind: &&namespaces::NamespaceKind| fs::metadata(format!("/proc/self/ns/{}", kind.proc_name)).is_err();
    let lacks: Vec<&str> = namespaces::KINDS.iter().filter(lacks).map(|kind| kind.spec_name).collect();
    let seen = if lacks.is_empty() { "all eight".to_owned() } else { format!("no {}", lacks.join(", ")) };
    let kinds = if lacks.is_empty() { State::Good } else { State::Partial };
    facts.push(Fact::new("kernel", "namespaces", kinds, seen).or("containers that ask for these are refused"));

    let listed = read("/proc/filesystems").unwrap_or_default();
    let overlay = listed.lines().any(|line| line.ends_with("\toverlay"));
    let seen = if overlay { "there" } else { "not loaded" };
    let impact = "run.corten.rootfs.overlay and mounts of type overlay need the module";
    facts.push(Fact::new("kernel", "overlay", state(overlay), seen).or(impact));
    if overlay {
        let (level, seen) = if version >= (6, 15) { (State::Good, "there") } else { (State::Partial, "before 6.15") };
        let impact = "images with mapped owners (idmap,) and overlays of more than 500 layers are refused";
        facts.push(Fact::new("kernel", "detached overlay layers", level, seen).or(impact));
    }

    let filters = seccomp::features();
    let lacks: Vec<&str> =
        filters.known_flags.iter().filter(|flag| !filters.supported_flags.contains(*flag)).copied().collect();
    let (level, seen) = match (filters.supported_flags.is_empty(), lacks.is_empty()) {
        (true, _) => (State::Missing, "none".to_owned()),
        (_, true) => (State::Good, "all flags".to_owned()),
        _ => (State::Partial, format!("no {}", lacks.join(", "))),
    };
    facts.push(Fact::new("kernel", "seccomp", level, seen).or("profiles that need it are refused"));

    let level = sys::landlock::abi_version();
    let state = match level {
        0 => State::Missing,
        _ if level < LANDLOCK => State::Partial,
        _ => State::Good,
    };
    let impact = "rules of run.corten.landlock that it does not know are left out with a warning, or refused if strict";
    facts.push(Fact::new("kernel", "Landlock", state, format!("level {level}")).or(impact));
}

fn modules(facts: &mut Vec<Fact>) {
    let seen = |there| if there { "enabled" } else { "not enabled" };
    let there = host::has_apparmor();
    let impact = "process.apparmorProfile is refused, but for \"unconfined\"";
    facts.push(Fact::new("security", "AppArmor", state(there), seen(there)).or(impact));
    let there = host::has_selinux();
    let impact = "process.selinuxLabel and linux.mountLabel are refused";
    facts.push(Fact::new("security", "SELinux", state(there), seen(there)).or(impact));
    if let Some(list) = read("/sys/kernel/security/lsm") {
        facts.push(Fact::new("security", "modules", State::Good, list));
    }
}

/// What a controller is for.
const CONTROLLERS: [(&str, &str); 7] = [
    ("cpu", "shares, quota and period of linux.resources.cpu are refused"),
    ("cpuset", "cpus and mems of linux.resources.cpu are refused"),
    ("io", "linux.resources.blockIO is refused"),
    ("memory", "linux.resources.memory is refused; out-of-memory kills are not reported"),
    ("pids", "linux.resources.pids is refused"),
    ("hugetlb", "linux.resources.hugepageLimits is refused"),
    ("rdma", "linux.resources.rdma is refused"),
];

fn cgroups(facts: &mut Vec<Fact>) {
    let mut add =
        |feature: &str, state, seen: String, impact| facts.push(Fact::new("cgroup", feature, state, seen).or(impact));
    let probe = Probe::run(CONTROLLERS.iter().map(|(name, _)| *name));
    let unprivileged = host::is_unprivileged();
    // Without privilege containers do without.
    let needed = if unprivileged { State::Missing } else { State::Fatal };
    match &probe.mount {
        Ok(place) if probe.hybrid => {
            let impact = "controllers that version 1 holds cannot limit";
            add("layout", State::Partial, format!("hybrid, version 2 at {place}"), impact);
        }
        Ok(place) => add("layout", State::Good, format!("version 2 at {place}"), ""),
        Err(error) => {
            let impact = "containers have no cgroup: none for root, none with limits for others";
            add("layout", needed, error.sentence(), impact);
        }
    }
    for (name, lack) in &probe.controllers {
        let impact = CONTROLLERS.iter().find(|(known, _)| known == name).map_or("", |(_, impact)| impact);
        let (state, seen) = match lack {
            None => (State::Good, "available".to_owned()),
            Some(error) => (State::Missing, reason(error)),
        };
        add(name, state, seen, impact);
    }
    if probe.mount.is_ok() {
        let down = probe.handed_down.join(" ");
        let down = if down.is_empty() { "no controller is handed down".to_owned() } else { down };
        let (state, seen) = match &probe.delegated {
            Ok(()) => (State::Good, down),
            Err(error) => (needed, error.sentence()),
        };
        let impact = match unprivileged {
            true => {
                "containers stay in the caller's cgroup, and those with limits are refused, unless systemd makes it"
            }
            false => "containers are refused, but with --cgroup-manager=disabled",
        };
        add("delegation", state, seen, impact);
    }
    let (state, seen) = match &probe.devices {
        Ok(()) => (State::Good, "the kernel takes them".to_owned()),
        Err(error) => (needed, error.sentence()),
    };
    let impact = if unprivileged { "they are not enforced; nor can devices be made" } else { "containers are refused" };
    add("device rules (eBPF)", state, seen, impact);
    let (state, seen) = match probe.systemd {
        Ok(socket) => (State::Good, socket),
        Err(error) => (State::Missing, error.sentence()),
    };
    add("systemd", state, seen, "--systemd-cgroup and --cgroup-manager=systemd are refused");
    let pressure = fs::metadata("/proc/pressure/memory").is_ok();
    let seen = if pressure { "there" } else { "not there" };
    add("pressure", self::state(pressure), seen.to_owned(), "events has no pressure in it");
    let mounted = resctrl::is_mounted();
    let seen = if mounted { "mounted" } else { "not mounted on /sys/fs/resctrl" };
    add("resctrl", self::state(mounted), seen.to_owned(), "linux.intelRdt is refused");
}

/// Of the sentence about a file that is missing the part that says why.
fn reason(error: &Error) -> String {
    let sentence = error.sentence();
    sentence.split(": ").nth(1).unwrap_or(&sentence).to_owned()
}

/// Capabilities of the runtime that are missed most.
const CAPABILITIES: [(&str, &str); 6] = [
    ("CAP_SYS_ADMIN", "no container without a user namespace can be made"),
    ("CAP_SYS_RESOURCE", "hard limits (process.rlimits) cannot be raised, OOM scores not lowered"),
    ("CAP_NET_ADMIN", "linux.netDevices is refused"),
    ("CAP_MKNOD", "devices are bound from the host instead of made"),
    ("CAP_SYS_NICE", "real-time scheduling is refused"),
    ("CAP_DAC_OVERRIDE", "files of others cannot be reached"),
];

fn rights(facts: &mut Vec<Fact>) {
    let user = nix::unistd::geteuid();
    let own = sys::prctl::capget().map_or(0, |own| own.effective);
    let nested = host::in_user_namespace();
    let who = match (user.is_root(), nested) {
        (true, false) => "root".to_owned(),
        (true, true) => "root of a user namespace".to_owned(),
        (false, _) => format!("user {user}"),
    };
    let level = if host::is_unprivileged() { State::Partial } else { State::Good };
    let impact = "containers need a user namespace, and get no rights over the host";
    facts.push(Fact::new("rights", "caller", level, who).or(impact));
    for (name, impact) in CAPABILITIES {
        let number = process::capability_names().position(|known| known == name);
        let has = number.is_some_and(|number| own >> number & 1 == 1);
        // A user has none, which is said above.
        if !has && user.is_root() {
            facts.push(Fact::new("rights", name, State::Missing, "the runtime does not have it").or(impact));
        }
    }
    let off = user::switched_off();
    let most = read("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    let seen = off.map_or_else(|| format!("at most {most}"), str::to_owned);
    let level = match off {
        None => State::Good,
        Some(_) if !user.is_root() && user::off_for_users().is_some() => State::Fatal,
        Some(_) => State::Missing,
    };
    let impact = "containers with a user namespace, and all of users other than root, may be refused";
    facts.push(Fact::new("rights", "user namespaces", level, seen).or(impact));
    for delegated::Grant { program, path, has_power, file, ranges } in delegated::grants() {
        let (level, seen) = match path {
            None => (State::Missing, "not in PATH".to_owned()),
            Some(path) if has_power => (State::Good, path.display().to_string()),
            Some(path) => (State::Missing, format!("{} is not set-uid root", path.display())),
        };
        let impact = "users other than root can map no id but their own";
        facts.push(Fact::new("rights", program, level, seen).or(impact));
        let list: Vec<String> = ranges.iter().map(|(first, count)| format!("{count} from {first}")).collect();
        let seen = if list.is_empty() { "none for this user".to_owned() } else { list.join(", ") };
        // Root maps what it likes.
        let level = if list.is_empty() && !user.is_root() { State::Missing } else { State::Good };
        facts.push(Fact::new("rights", file, level, seen).or("this user can map no id but its own"));
    }
}
