//! Crashes: at every system call of a command, the runtime's or the container's half is killed, or the call fails.
//!
//! After a kill, `delete --force` must leave nothing: no process, cgroup, mount, file; and the same container can be
//! made again. After an error the command must fail with one sentence that names the step, and leave nothing by
//! itself. `CORTEN_CRASH=full` tries every call, several errors and orders; a number there, or nothing, a sample of as many calls.
#![allow(unreachable_pub, reason = "one binary: everything is private to it")]
#![allow(missing_docs, reason = "a test's name is its sentence")]

#[allow(dead_code, unused_imports, reason = "a vocabulary shared with the other tests")]
mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use harness::{Bundle, Outcome, eventually, tracer};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// How long a deletion may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Calls of the C library and of Rust's memory: what they are refused for ends a program before it can speak.
const WITHOUT_A_WORD: &[&str] = &[
    "arch_prctl",
    "close",
    "brk",
    "futex",
    "getrandom",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "poll",
    "prlimit64",
    "readlinkat",
    "rseq",
    "rt_sigaction",
    "set_robust_list",
    "set_tid_address",
    "sigaltstack",
];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Host,
    Container,
    Hop,
}

impl Side {
    fn word(self) -> &'static str {
        match self {
            Side::Host => "host",
            Side::Container => "container",
            Side::Hop => "hop",
        }
    }
}

/// What is meddled with, and where.
#[derive(Clone, Copy)]
struct Point<'a> {
    verb: &'a str,
    side: Side,
    number: usize,
    call: &'a str,
    action: &'a str,
}

impl fmt::Display for Point<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}, {} call {} ({}), {}", self.verb, self.side.word(), self.number, self.call, self.action)
    }
}

/// What is there before a container is made and has to be there after it is gone, and no more.
#[derive(PartialEq, Debug)]
struct Traces {
    processes: Vec<String>,
    cgroups: Vec<String>,
    mounts: String,
    states: Vec<String>,
    files: Vec<String>,
}

/// A container that is made again and again.
struct Subject {
    name: &'static str,
    container: Bundle,
    before: Traces,
    /// Attempts, and in how many of them the call came about.
    tried: BTreeMap<String, (usize, usize)>,
    failures: Vec<String>,
    /// Sentences by the calls they came from.
    said: BTreeMap<String, BTreeSet<String>>,
    tolerated: BTreeMap<String, usize>,
    wordless: BTreeMap<String, usize>,
}

/// Whether everything is tried.
fn full() -> bool {
    std::env::var_os("CORTEN_CRASH").is_some_and(|how| how == "full")
}

/// How many calls of a side are tried otherwise.
fn sample() -> usize {
    std::env::var("CORTEN_CRASH").ok().and_then(|how| how.parse().ok()).unwrap_or(6)
}

impl Subject {
    fn new(name: &'static str, container: Bundle) -> Subject {
        // What the first one leaves in the rootfs, such as mount points, stays.
        container.create().ok();
        container.delete_force().ok();
        let _ = fs::remove_file(container.path().join("pid"));
        let before = Traces::of(&container);
        let mut subject = Subject {
            name,
            container,
            before,
            tried: BTreeMap::new(),
            failures: Vec::new(),
            said: BTreeMap::new(),
            tolerated: BTreeMap::new(),
            wordless: BTreeMap::new(),
        };
        subject.expect_clean(&"at the start");
        subject
    }

    /// Runs one command under the tracer; its outcome, and what the tracer saw.
    fn traced(&self, verb: &str, side: Side, number: usize, action: &str) -> (Outcome, BTreeMap<String, String>) {
        let report = self.container.path().join("report");
        let command = match verb {
            "create" => self.container.create_cmd(&[]),
            "run" => self.container.run_cmd(),
            "kill" => self.container.cmd(["kill", self.container.name(), "KILL"]),
            "delete" => self.container.cmd(["delete", "--force", self.container.name()]),
            verb => self.container.cmd([verb, self.container.name()]),
        };
        let number = number.to_string();
        let words = [tracer().as_os_str(), report.as_os_str(), side.word().as_ref(), number.as_ref(), action.as_ref()];
        let outcome = command.started_by(words).run();
        let text = fs::read_to_string(&report).unwrap_or_default();
        let _ = fs::remove_file(&report);
        let report =
            text.lines().filter_map(|line| line.split_once(' ')).map(|(key, value)| (key.into(), value.into()));
        (outcome, report.collect())
    }

    /// Brings the container to where the command finds it.
    fn prepare(&self, verb: &str) {
        if ["create", "run"].contains(&verb) {
            return;
        }
        self.container.create().ok();
        if ["kill", "delete"].contains(&verb) {
            self.container.start().ok();
        }
    }

    /// The names of the calls that one side makes in a command nobody disturbs.
    fn calls(&mut self, verb: &str, side: Side) -> Vec<String> {
        self.prepare(verb);
        let (outcome, report) = self.traced(verb, side, 0, "count");
        outcome.ok();
        self.container.delete_force().ok();
        self.forget_pid();
        self.expect_clean(&verb);
        report.get(side.word()).map(|names| names.split(' ').map(str::to_owned).collect()).unwrap_or_default()
    }

    /// Tries an action at each call, or at a sample of them.
    fn try_all(&mut self, verb: &str, side: Side, action: &str, attempt: impl Fn(&mut Subject, Point<'_>) -> bool) {
        let calls = self.calls(verb, side);
        assert!(calls.len() > 5, "{verb} makes only {} calls on the {} side", calls.len(), side.word());
        let step = if full() { 1 } else { calls.len().div_ceil(sample()).max(1) };
        // Not the same calls for every action.
        let first = if full() { 0 } else { action.len() % step };
        for (at, call) in calls.iter().enumerate().skip(first).step_by(step) {
            self.prepare(verb);
            let reached = attempt(self, Point { verb, side, number: at + 1, call, action });
            let tried = format!("{verb}, {} side, {action}", side.word());
            let count = self.tried.entry(tried).or_default();
            *count = (count.0 + 1, count.1 + usize::from(reached));
        }
    }

    fn kill_at(&mut self, point: Point<'_>) -> bool {
        let (outcome, report) = self.traced(point.verb, point.side, point.number, point.action);
        let end = report.get("end").map_or("no end", String::as_str);
        match point.side {
            // The call may not have come about this time.
            Side::Host if end == "signal SIGKILL" || outcome.succeeded() => {}
            _ if end == "exit 1" && point.verb != "run" => {
                self.expect_clean(&format_args!("{point}, before delete"));
                self.expect_sentence("kill", point, &outcome);
            }
            // At its very end create has told already that all is well.
            Side::Container | Side::Hop if outcome.succeeded() => {}
            Side::Container if point.verb == "run" && end.starts_with("exit") => {}
            _ => {
                let (stderr, last) = (outcome.stderr(), last_calls(&report));
                self.failures.push(format!("{point}: ended with {end}: {stderr}{last}"));
            }
        }
        self.delete(point);
        self.make_again(point);
        was_reached(&report)
    }

    fn fail_at(&mut self, point: Point<'_>) -> bool {
        let (outcome, report) = self.traced(point.verb, point.side, point.number, point.action);
        let end = report.get("end").map_or("no end", String::as_str);
        let key = format!("{} {}", point.side.word(), report.get("at").map_or(point.call, String::as_str));
        match end {
            "exit 0" => *self.tolerated.entry(format!("{key} ({})", point.verb)).or_default() += 1,
            // The standard library's pipe over which a hook tells that it could not execute.
            _ if outcome.stderr().contains("the CLOEXEC pipe failed") => {
                *self.wordless.entry(format!("{key}: {end}")).or_default() += 1;
            }
            "exit 1" => {
                if point.verb == "create" {
                    self.expect_clean(&format_args!("{point}, before delete: {}", outcome.stderr().trim()));
                }
                self.expect_sentence(&key, point, &outcome);
            }
            _ if WITHOUT_A_WORD.contains(&point.call) => {
                *self.wordless.entry(format!("{key}: {end}")).or_default() += 1
            }
            end => {
                let (stderr, last) = (outcome.stderr(), last_calls(&report));
                self.failures.push(format!("{point}: ended with {end}: {stderr}{last}"));
            }
        }
        self.delete(point);
        was_reached(&report)
    }

    /// From one call on, all fail: it ends, however it does, and can be deleted.
    fn fail_on_at(&mut self, point: Point<'_>) -> bool {
        let (outcome, report) = self.traced(point.verb, point.side, point.number, point.action);
        let end = report.get("end").map_or("no end", String::as_str);
        if end == "hung" || end == "no end" {
            self.failures.push(format!("{point}: ended with {end}: {}{}", outcome.stderr(), last_calls(&report)));
        }
        self.delete(point);
        was_reached(&report)
    }

    fn delete(&mut self, point: Point<'_>) {
        let deleted = self.container.delete_force();
        if !deleted.succeeded() || deleted.took() > PATIENCE {
            let stderr = deleted.stderr();
            self.failures.push(format!("{point}: delete --force took {:?}: {stderr}", deleted.took()));
        }
        self.forget_pid();
        self.expect_clean(&point);
    }

    /// The pid file is the caller's, as is the draft of one whose writer was killed.
    fn forget_pid(&self) {
        for name in names(self.container.path()).iter().filter(|name| *name == "pid" || name.starts_with(".pid.")) {
            let _ = fs::remove_file(self.container.path().join(name));
        }
    }

    fn make_again(&mut self, point: Point<'_>) {
        for (verb, outcome) in [("create", self.container.create()), ("delete", self.container.delete_force())] {
            if !outcome.succeeded() {
                self.failures.push(format!("{point}: then {verb} fails: {}", outcome.stderr()));
            }
        }
        self.forget_pid();
    }

    /// One line that says more than which container and which errno.
    fn expect_sentence(&mut self, key: &str, point: Point<'_>, outcome: &Outcome) {
        let stderr = outcome.stderr();
        let lines: Vec<&str> = stderr.lines().collect();
        let [line] = lines[..] else {
            return self.failures.push(format!("{point}: it should say one sentence, not {stderr:?}"));
        };
        let bare = line.strip_prefix(&format!("{} {}: ", point.verb, self.container.name())).unwrap_or(line);
        let sentence = bare.split(" (").next().unwrap_or(bare);
        if !sentence.contains(": ") && ERRNOS.contains(&sentence) {
            self.failures.push(format!("{point}: it says no more than {line:?}"));
        }
        self.said.entry(key.to_owned()).or_default().insert(bare.to_owned());
    }

    fn expect_clean(&mut self, when: &dyn fmt::Display) {
        let begin = Instant::now();
        let mut now = Traces::of(&self.container);
        // A hook, or a process killed a moment ago, may take a little.
        while now != self.before && begin.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(2));
            now = Traces::of(&self.container);
        }
        if now != self.before {
            let (now, before) = (format!("{now:#?}"), format!("{:#?}", self.before));
            let news: Vec<&str> = now.lines().filter(|line| !before.contains(line)).map(str::trim).collect();
            self.failures.push(format!("{when}: left behind: {}", news.join(" ")));
            // The next attempt begins anew.
            self.container.delete_force();
            let _ = fs::write(self.container.cgroup().join("cgroup.kill"), "1");
            self.forget_pid();
            let begin = Instant::now();
            while Traces::of(&self.container) != self.before && begin.elapsed() < Duration::from_secs(2) {
                std::thread::sleep(Duration::from_millis(20));
                let _ = fs::remove_dir(self.container.cgroup());
            }
        }
    }

    /// Prints what was tried, and fails with all that went wrong.
    fn conclude(self) {
        let mut out = std::io::stderr().lock();
        let (total, reached) = self.tried.values().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
        let _ = writeln!(out, "{}: {total} points tried, {reached} of them reached", self.name);
        if full() {
            let tell = |(what, (tried, reached)): (&String, &(usize, usize))| {
                drop(writeln!(out, "  {tried} ({reached} reached): {what}"))
            };
            self.tried.iter().for_each(tell);
            let lists = [("succeeded all the same", &self.tolerated), ("ended without a word", &self.wordless)];
            for (what, list) in lists {
                let list: Vec<String> = list.iter().map(|(call, count)| format!("{call} {count}")).collect();
                let _ = writeln!(out, "  {what}: {}", list.join(", "));
            }
            for (call, sentences) in &self.said {
                sentences.iter().for_each(|sentence| drop(writeln!(out, "  {call}: {sentence}")));
            }
        }
        drop(out);
        assert!(self.failures.is_empty(), "{} failures:\n{}", self.failures.len(), self.failures.join("\n"));
    }
}

const ERRNOS: &[&str] = &[
    "I/O error",
    "cannot allocate memory",
    "out of memory",
    "operation not permitted",
    "interrupted system call",
    "function not implemented",
    "no space left on device",
    "too many open files",
];

impl Traces {
    fn of(container: &Bundle) -> Traces {
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

fn was_reached(report: &BTreeMap<String, String>) -> bool {
    report.get("reached").is_some_and(|reached| reached == "true")
}

/// The last few calls of each side, to see where something hangs.
fn last_calls(report: &BTreeMap<String, String>) -> String {
    let tell = |side: &str| {
        let names: Vec<&str> = report.get(side)?.split(' ').collect();
        Some(format!(" {side}: … {}", names[names.len().saturating_sub(40)..].join(" ")))
    };
    let signals = report.get("signals").map_or("", String::as_str);
    ["host", "container"].into_iter().filter_map(tell).collect::<String>() + ", signals " + signals
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

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().display().to_string()).collect();
    names.sort();
    names
}

/// As Docker asks for one, with hooks of all kinds.
fn docker(container: Bundle) -> Bundle {
    let text = include_str!("captures/docker-28.5/native/run-rm.config.json");
    let docker: Value = serde_json::from_str(text).expect("a captured configuration");
    let mut container = container.args(["sleep", "60"]);
    for field in
        ["/process/capabilities", "/linux/seccomp", "/linux/maskedPaths", "/linux/readonlyPaths", "/linux/sysctl"]
    {
        container = container.set(field, docker.pointer(field).expect("such a field").clone());
    }
    container = container
        .set("/linux/resources/devices", docker.pointer("/linux/resources/devices").expect("device rules").clone())
        .set("/process/noNewPrivileges", false)
        .set("/process/oomScoreAdj", 500)
        .set("/process/user", json!({"uid": 1000, "gid": 1000, "additionalGids": [10]}))
        .push("/linux/devices", json!({"path": "/dev/zero2", "type": "c", "major": 1, "minor": 5}));
    ["createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
        .into_iter()
        .fold(container, |container, kind| container.hook(kind, "true"))
}

/// Kills and errors of `create` and `run`, on both sides.
fn of_create(subject: &mut Subject) {
    let kills: &[&str] = if full() { &["kill", "kill-after", "kill-before"] } else { &["kill", "kill-after"] };
    for action in kills {
        subject.try_all("create", Side::Host, action, Subject::kill_at);
    }
    subject.try_all("create", Side::Container, "kill", Subject::kill_at);
    let errors: &[&str] = if full() { &["fail=EIO", "fail=ENOMEM", "fail=EPERM", "fail=EINTR"] } else { &["fail=EIO"] };
    for action in errors {
        subject.try_all("create", Side::Host, action, Subject::fail_at);
        subject.try_all("create", Side::Container, action, Subject::fail_at);
    }
    subject.try_all("create", Side::Host, "fail-on=EIO", Subject::fail_on_at);
    subject.try_all("create", Side::Container, "fail-on=EIO", Subject::fail_on_at);
}

/// B52: the runtime is killed while a hook sleeps; then everything can be taken away and made again.
#[test]
fn b52_a_create_killed_in_a_hook_leaves_nothing_after_delete() {
    let kinds = ["prestart", "createRuntime", "createContainer"];
    // Becoming root of a user namespace makes the kernel forget what a process wants to end with.
    let variants: [fn(Bundle) -> Bundle; 3] =
        [|plain| plain, Bundle::userns, |bundle| bundle.userns().global("--cgroup-manager=disabled")];
    for (kind, variant) in kinds.iter().flat_map(|kind| variants.iter().map(move |variant| (kind, variant))) {
        let container = variant(Bundle::new().args(["sleep", "60"]));
        let dir = container.host_dir("marks");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).expect("let everybody write there");
        let mark = dir.join("hook-runs");
        let script = format!("touch {}; exec sleep 30", mark.display());
        let container = container.hook(kind, &script);
        let before = Traces::of(&container);
        let creator = container.create_cmd(&[]).spawn();
        eventually("the hook runs", || mark.exists() || !creator.is_running());
        if !mark.exists() {
            creator.wait().fail("it ended before its hook ran");
        }
        creator.signal(Signal::SIGKILL);
        creator.wait();
        container.state().shows("\"stopped\"");
        let deleted = container.delete_force();
        assert!(deleted.ok().took() < PATIENCE, "delete --force took {:?}", deleted.took());
        fs::remove_file(&mark).expect("remove the mark");
        eventually("nothing is left, the hook neither", || {
            let now = Traces::of(&container);
            (&now.processes, &now.cgroups, &now.mounts, &now.states)
                == (&before.processes, &before.cgroups, &before.mounts, &before.states)
        });
        let container = container.unset(&format!("/hooks/{kind}"));
        container.create().ok();
        container.delete_force().ok();
    }
}

/// B52: at random times within the first milliseconds.
#[test]
fn b52_a_create_killed_at_any_time_leaves_nothing_after_delete() {
    let mut subject = Subject::new("killed by the clock", docker(Bundle::new()));
    let rounds = if full() { 500 } else { 15 };
    for round in 0..rounds {
        let creator = subject.container.create_cmd(&[]).spawn();
        std::thread::sleep(Duration::from_micros(30_000 * round / rounds));
        creator.signal(Signal::SIGKILL);
        creator.wait();
        let deleted = subject.container.delete_force();
        assert!(deleted.ok().took() < PATIENCE, "delete --force took {:?}", deleted.took());
        subject.forget_pid();
        subject.expect_clean(&format_args!("round {round} of {rounds}"));
        let count = subject.tried.entry("create, killed at some time".to_owned()).or_default();
        *count = (count.0 + 1, count.1 + 1);
    }
    subject.conclude();
}

/// What a hook has started lives on in the container's cgroup where no pid namespace takes it along.
#[test]
fn a_failed_create_ends_what_its_hooks_have_started() {
    let container = Bundle::new().without_ns("pid").args(["sleep", "60"]);
    let container =
        container.hook("createContainer", "sleep 60 >/dev/null 2>&1 & exit 0").hook("createContainer", "exit 3");
    let before = Traces::of(&container);
    let created = container.create();
    created.fails_with("createContainer");
    assert!(created.took() < Duration::from_secs(1), "create took {:?}", created.took());
    let now = Traces::of(&container);
    assert_eq!((&now.processes, &now.cgroups, &now.states), (&before.processes, &before.cgroups, &before.states));
}

/// B53: processes that froze themselves in a cgroup of their own making, and others that fork without end.
#[test]
fn b53_delete_ends_within_seconds_whatever_is_in_the_cgroup() {
    let frozen =
        "mkdir /sys/fs/cgroup/z; echo $$ >/sys/fs/cgroup/z/cgroup.procs; echo 1 >/sys/fs/cgroup/z/cgroup.freeze";
    let forking = "while :; do (sleep 1 & sleep 1 &) ; done";
    for (script, pid_namespace) in [(frozen, true), (frozen, false), (forking, true), (forking, false)] {
        let container = Bundle::new().sh(script).mount_options("/sys/fs/cgroup", |options| {
            options.retain(|option| option != "ro");
        });
        let container = if pid_namespace { container } else { container.without_ns("pid") };
        let before = Traces::of(&container);
        container.create().ok();
        container.start().ok();
        std::thread::sleep(Duration::from_millis(200));
        let deleted = container.delete_force();
        assert!(deleted.ok().took() < PATIENCE, "delete --force took {:?}", deleted.took());
        let now = Traces::of(&container);
        assert_eq!((&now.processes, &now.cgroups, &now.states), (&before.processes, &before.cgroups, &before.states));
    }
}

/// The container's half is dead before it can say a word: the error tells how it died, not what broke on our side.
#[test]
fn a_container_killed_while_it_is_made_is_explained() {
    let mut subject =
        Subject::new("explained", docker(Bundle::new().userns()).unset("/linux/devices").unset("/linux/sysctl"));
    for action in ["kill", "kill-before", "kill-after"] {
        subject.try_all("create", Side::Container, action, |subject, point| {
            let (outcome, report) = subject.traced(point.verb, point.side, point.number, point.action);
            if !outcome.succeeded() && !outcome.stderr().contains("was killed by SIGKILL") {
                subject.failures.push(format!("{point}: it says {:?}", outcome.stderr()));
            }
            subject.delete(point);
            was_reached(&report)
        });
    }
    subject.conclude();
}

#[test]
fn create_of_a_container_as_docker_makes_them() {
    let mut subject = Subject::new("docker", docker(Bundle::new()));
    of_create(&mut subject);
    subject.conclude();
}

#[test]
fn create_in_a_user_namespace() {
    let mut subject = Subject::new(
        "user namespace",
        docker(Bundle::new().userns())
            .unset("/linux/devices")
            .set("/linux/sysctl", json!({"net.ipv4.ip_unprivileged_port_start": "0"})),
    );
    of_create(&mut subject);
    subject.conclude();
}

#[test]
fn create_in_the_namespaces_of_another() {
    let pause = Bundle::new().userns().args(["sleep", "600"]);
    pause.create().ok();
    pause.start().ok();
    let path = |name: &str| format!("/proc/{}/ns/{name}", pause.pid());
    let mut container =
        docker(Bundle::inside(pause.sandbox().clone()).userns()).unset("/linux/sysctl").unset("/linux/devices");
    for (kind, name) in [("user", "user"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid")] {
        container = container.join(kind, path(name));
    }
    let container = container.unset("/hostname").unset("/linux/uidMappings").unset("/linux/gidMappings");
    let mut subject = Subject::new("joined namespaces", container);
    of_create(&mut subject);
    subject.try_all("create", Side::Hop, "kill", Subject::kill_at);
    subject.try_all("create", Side::Hop, "fail=EIO", Subject::fail_at);
    subject.conclude();
    pause.delete_force().ok();
}

#[test]
fn create_without_a_cgroup_and_pid_namespace_of_its_own() {
    let container = docker(Bundle::new()).without_ns("pid").global("--cgroup-manager=disabled");
    let mut subject = Subject::new("no cgroup", container);
    of_create(&mut subject);
    subject.conclude();
}

#[test]
fn what_comes_after_create() {
    let mut subject = Subject::new("start, kill, delete", docker(Bundle::new()));
    for verb in ["start", "kill", "delete"] {
        subject.try_all(verb, Side::Host, "kill", Subject::kill_at);
        subject.try_all(verb, Side::Host, "fail=EIO", Subject::fail_at);
        subject.try_all(verb, Side::Host, "fail-on=EIO", Subject::fail_on_at);
    }
    subject.conclude();
}

#[test]
fn run() {
    let mut subject = Subject::new("run", docker(Bundle::new()).args(["true"]));
    for side in [Side::Host, Side::Container] {
        subject.try_all("run", side, "kill", Subject::kill_at);
    }
    subject.try_all("run", Side::Host, "fail=EIO", Subject::fail_at);
    subject.conclude();
}
