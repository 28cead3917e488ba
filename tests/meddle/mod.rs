//! A container that is made again and again while the tracer meddles with the commands on it.

mod sample;
mod traces;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use traces::Traces;
use traces::names;

use super::harness::{self, Bundle, Outcome, tracer};

/// How long a deletion may take.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What is done at a call: see the tracer.
const ACTIONS: &[&str] =
    &["kill", "fail=EIO", "kill-after", "fail=ENOMEM", "kill-before", "fail=EPERM", "fail-on=EIO", "fail=EINTR"];

/// Calls of the C library and of Rust's start and memory: what they are refused for ends a program before it can speak.
const WITHOUT_A_WORD: &[&str] = &[
    "arch_prctl",
    "brk",
    "close",
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

/// A command of two words.
pub const MOUNTS_ADD: &str = "mounts add";

/// What an error says that names no step.
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

/// Whose calls.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The command's own.
    Host,
    /// Those of the container's first process, until it becomes the container's program.
    Container,
    /// Those of a process that joins namespaces: that of an exec, or the one that makes the container's in them.
    Joiner,
}

impl Side {
    fn word(self) -> &'static str {
        match self {
            Side::Host => "host",
            Side::Container => "container",
            Side::Joiner => "joiner",
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

/// How much of one side of a command was tried.
#[derive(Default)]
struct Tried {
    points: usize,
    /// In which the call came about.
    reached: usize,
    of: usize,
    kinds: BTreeSet<String>,
    of_kinds: usize,
}

/// See the module's head.
pub struct Subject {
    name: &'static str,
    /// Which of several that are treated alike: their samples are different ones.
    turn: usize,
    pub container: Bundle,
    before: Traces,
    tried: BTreeMap<String, Tried>,
    failures: Vec<String>,
    /// Sentences by the calls they came from.
    said: BTreeMap<String, BTreeSet<String>>,
    tolerated: BTreeMap<String, usize>,
    wordless: BTreeMap<String, usize>,
}

/// Whether everything is tried.
pub fn full() -> bool {
    std::env::var_os("CORTEN_CRASH").is_some_and(|how| how == "full")
}

/// How many points of a side are tried otherwise.
fn sample_size() -> usize {
    std::env::var("CORTEN_CRASH").ok().and_then(|how| how.parse().ok()).unwrap_or(16)
}

impl Subject {
    pub fn new(name: &'static str, turn: usize, container: Bundle) -> Subject {
        // What the first one leaves in the rootfs, such as mount points, stays.
        container.create().ok();
        container.delete_force().ok();
        let _ = fs::remove_file(container.path().join("pid"));
        let before = Traces::of(&container);
        let mut subject = Subject {
            name,
            turn,
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

    /// Tries everything at each call of one side of a command, or a sample of that.
    pub fn meddle(&mut self, verb: &str, side: Side) {
        let calls = self.calls(verb, side);
        // What is born finished makes a session, and nobody waits for it to reach the exec fifo.
        assert!(!calls.is_empty(), "{verb} makes no call on the {} side", side.word());
        let points = match full() {
            true => sample::all(&calls, ACTIONS),
            false => sample::some(&calls, ACTIONS, self.turn * sample_size(), sample_size()),
        };
        let mut tried = Tried {
            of: calls.len() * ACTIONS.len(),
            of_kinds: calls.iter().collect::<BTreeSet<_>>().len(),
            ..Tried::default()
        };
        for (at, action) in points {
            let call = &calls[at];
            let reached = self.attempt(Point { verb, side, number: at + 1, call, action });
            tried.points += 1;
            tried.reached += usize::from(reached);
            tried.kinds.insert(call.clone());
        }
        self.tried.insert(format!("{verb}, {} side", side.word()), tried);
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

    /// Brings the container to where the command finds it.
    fn prepare(&self, verb: &str) {
        if ["create", "run"].contains(&verb) {
            return;
        }
        self.container.create().ok();
        if verb != "start" {
            self.container.start().ok();
        }
    }

    /// Runs one command under the tracer; its outcome, and what the tracer saw.
    fn traced(&self, verb: &str, side: Side, number: usize, action: &str) -> (Outcome, BTreeMap<String, String>) {
        let report = self.container.path().join("report");
        let id = self.container.name();
        let command = match verb {
            "create" => self.container.create_cmd(&[]),
            "run" => self.container.run_cmd(),
            "kill" => self.container.cmd(["kill", id, "KILL"]),
            "delete" => self.container.cmd(["delete", "--force", id]),
            "exec" => self.container.cmd(["exec", id, "true"]),
            MOUNTS_ADD => {
                self.container.cmd(["mounts".as_ref(), "add".as_ref(), id.as_ref(), list(&self.container).as_os_str()])
            }
            verb => self.container.cmd([verb, id]),
        };
        let number = number.to_string();
        let side = match side {
            // It is there already.
            Side::Container if verb == "start" => self.container.pid().to_string(),
            side => side.word().to_owned(),
        };
        let words = [tracer().as_os_str(), report.as_os_str(), side.as_ref(), number.as_ref(), action.as_ref()];
        let outcome = command.started_by(words).run();
        let text = fs::read_to_string(&report).unwrap_or_default();
        let _ = fs::remove_file(&report);
        let report =
            text.lines().filter_map(|line| line.split_once(' ')).map(|(key, value)| (key.into(), value.into()));
        (outcome, report.collect())
    }

    /// One command with one thing done to it, and what has to hold afterwards. Whether its call came about.
    fn attempt(&mut self, point: Point<'_>) -> bool {
        self.prepare(point.verb);
        let prepared = ["exec", MOUNTS_ADD].contains(&point.verb).then(|| Traces::of(&self.container));
        let (outcome, report) = self.traced(point.verb, point.side, point.number, point.action);
        match point.action.split_once('=') {
            None => self.judge_kill(point, &outcome, &report),
            Some(("fail", _)) => self.judge_error(point, &outcome, &report),
            _ => self.judge_end(point, &outcome, &report),
        }
        if let Some(prepared) = prepared {
            self.expect(&prepared, &format_args!("{point}, before delete"));
        }
        if point.verb == MOUNTS_ADD && point.action.starts_with("fail=") {
            self.expect_all_or_nothing(point, &outcome);
        }
        if point.verb == "start" && point.side == Side::Host {
            self.expect_started_or_startable(point);
        }
        self.delete(point);
        if point.action.starts_with("kill") {
            self.make_again(point);
        }
        report.get("reached").is_some_and(|reached| reached == "true")
    }

    /// A killed command says nothing; a command whose other half was killed tells so.
    fn judge_kill(&mut self, point: Point<'_>, outcome: &Outcome, report: &BTreeMap<String, String>) {
        let end = end(report);
        match point.side {
            // The call may not have come about this time.
            Side::Host if end == "signal SIGKILL" || outcome.succeeded() => {}
            // At its very end all is well already, or it is the program's end.
            Side::Container | Side::Joiner if outcome.succeeded() || end == "exit 137" => {}
            Side::Container | Side::Joiner if end == failure(point.verb) => {
                if point.verb == "create" {
                    self.expect_clean(&format_args!("{point}, before delete"));
                }
                self.expect_sentence("kill", point, outcome);
                let said = outcome.stderr();
                let words = ["was killed by SIGKILL", "died before its program ran", "that has stopped"];
                if !words.iter().any(|words| said.contains(words)) {
                    self.fault(format!("{point}: it says {said:?}"));
                }
            }
            _ => self.end_badly(point, outcome, report),
        }
    }

    /// A command of which a call failed fails with one sentence, or does without that call.
    fn judge_error(&mut self, point: Point<'_>, outcome: &Outcome, report: &BTreeMap<String, String>) {
        let end = end(report);
        // Which call it is may differ a little from run to run.
        let call = report.get("at").map_or(point.call, String::as_str);
        let key = format!("{} {call}", point.side.word());
        match end {
            "exit 0" if report.get("at").is_none() => {}
            "exit 0" => *self.tolerated.entry(format!("{key} ({})", point.verb)).or_default() += 1,
            // The standard library's pipe over which a hook tells that it could not execute.
            _ if outcome.stderr().contains("the CLOEXEC pipe failed") => {
                *self.wordless.entry(format!("{key}: {end}")).or_default() += 1;
            }
            _ if end == failure(point.verb) => {
                if point.verb == "create" {
                    self.expect_clean(&format_args!("{point}, before delete: {}", outcome.stderr().trim()));
                }
                self.expect_sentence(&key, point, outcome);
            }
            _ if WITHOUT_A_WORD.contains(&call) => {
                *self.wordless.entry(format!("{key}: {end}")).or_default() += 1;
            }
            _ => self.end_badly(point, outcome, report),
        }
    }

    /// From one call on, all fail: it ends, however it does, and can be deleted.
    fn judge_end(&mut self, point: Point<'_>, outcome: &Outcome, report: &BTreeMap<String, String>) {
        if ["hung", "no end"].contains(&end(report)) {
            self.end_badly(point, outcome, report);
        }
    }

    /// Of what is to be mounted, everything is where the command succeeded, else nothing.
    fn expect_all_or_nothing(&mut self, point: Point<'_>, outcome: &Outcome) {
        let list: serde_json::Value =
            serde_json::from_slice(&fs::read(list(&self.container)).expect("read the list")).expect("a list of mounts");
        let wanted: BTreeSet<&str> =
            list.as_array().into_iter().flatten().filter_map(|mount| mount["destination"].as_str()).collect();
        let table = fs::read_to_string(format!("/proc/{}/mounts", self.container.pid())).expect("the mount table");
        let there: BTreeSet<&str> =
            table.lines().filter_map(|line| line.split(' ').nth(1)).filter(|point| wanted.contains(point)).collect();
        let stderr = outcome.stderr();
        // Another process does it. What that has to say may be lost: never by the kernel, but here.
        let lost = ["unblock signals", "receive the reply of the helper", "helper process in the container exited"];
        let unheard = lost.iter().any(|step| stderr.contains(step));
        let as_it_says = if outcome.succeeded() { wanted.clone() } else { BTreeSet::new() };
        if there != as_it_says && !(unheard && there == wanted) {
            self.fault(format!("{point}: mounted is {there:?}: {stderr}"));
        }
    }

    /// Whatever became of `start`: the program runs, or another `start` makes it run, or the container has stopped, or it
    /// is gone with a poststart hook that failed.
    fn expect_started_or_startable(&mut self, point: Point<'_>) {
        if self.container.state().stderr().contains("container does not exist") {
            return;
        }
        let first = self.container.status();
        if first == "created" {
            let again = self.container.start();
            if !again.succeeded() {
                let stderr = again.stderr();
                self.fault(format!("{point}: cannot be started again: {stderr}"));
                return;
            }
        }
        let status = self.container.status();
        let program = || fs::read_to_string(format!("/proc/{}/comm", self.container.pid())).unwrap_or_default();
        let begin = Instant::now();
        while status == "running" && program() != "sleep\n" {
            if begin.elapsed() > PATIENCE {
                self.fault(format!("{point}: it was {first}, is {status}, and runs {:?}", program()));
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn end_badly(&mut self, point: Point<'_>, outcome: &Outcome, report: &BTreeMap<String, String>) {
        let (end, stderr, last) = (end(report), outcome.stderr(), last_calls(report));
        self.fault(format!("{point}: ended with {end}: {stderr}{last}"));
    }

    fn fault(&mut self, text: String) {
        if full() {
            // Long before the end.
            let _ = writeln!(std::io::stderr(), "{}: {text}", self.name);
        }
        self.failures.push(text);
    }

    fn delete(&mut self, point: Point<'_>) {
        let deleted = self.container.delete_force();
        if !deleted.succeeded() || deleted.took() > PATIENCE {
            let stderr = deleted.stderr();
            self.fault(format!("{point}: delete --force took {:?}: {stderr}", deleted.took()));
        }
        self.forget_pid();
        self.expect_clean(&point);
    }

    /// The pid file is the caller's, as is the draft of one whose writer was killed.
    pub fn forget_pid(&self) {
        for name in names(self.container.path()).iter().filter(|name| *name == "pid" || name.starts_with(".pid.")) {
            let _ = fs::remove_file(self.container.path().join(name));
        }
    }

    fn make_again(&mut self, point: Point<'_>) {
        for (verb, outcome) in [("create", self.container.create()), ("delete", self.container.delete_force())] {
            if !outcome.succeeded() {
                self.fault(format!("{point}: then {verb} fails: {}", outcome.stderr()));
            }
        }
        self.forget_pid();
    }

    /// One line that says more than which container and which errno.
    fn expect_sentence(&mut self, key: &str, point: Point<'_>, outcome: &Outcome) {
        let stderr = outcome.stderr();
        let lines: Vec<&str> = stderr.lines().collect();
        let [line] = lines[..] else {
            return self.fault(format!("{point}: it should say one sentence, not {stderr:?}"));
        };
        let bare = line.strip_prefix(&format!("{} {}: ", point.verb, self.container.name())).unwrap_or(line);
        let sentence = bare.split(" (").next().unwrap_or(bare);
        if !sentence.contains(": ") && ERRNOS.contains(&sentence) {
            self.fault(format!("{point}: it says no more than {line:?}"));
        }
        self.said.entry(key.to_owned()).or_default().insert(bare.to_owned());
    }

    /// Nothing is there but what was before the first container.
    pub fn expect_clean(&mut self, when: &dyn fmt::Display) {
        let before = self.before.clone();
        if self.expect(&before, when) {
            return;
        }
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

    /// A hook, or a process killed a moment ago, may take a little.
    fn expect(&mut self, wanted: &Traces, when: &dyn fmt::Display) -> bool {
        let begin = Instant::now();
        let mut now = Traces::of(&self.container);
        while now != *wanted && begin.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(2));
            now = Traces::of(&self.container);
        }
        let as_wanted = now == *wanted;
        if !as_wanted {
            let (now, wanted) = (format!("{now:#?}"), format!("{wanted:#?}"));
            let more = |these: &str, others: &str| {
                let lines = these.lines().filter(|line| !others.contains(line)).map(str::trim);
                lines.collect::<Vec<_>>().join(" ")
            };
            let (left, gone) = (more(&now, &wanted), more(&wanted, &now));
            self.fault(format!("{when}: left behind: {left}; gone: {gone}"));
        }
        as_wanted
    }

    /// Counts a point that somebody else has tried.
    pub fn count(&mut self, what: &str) {
        let tried = self.tried.entry(what.to_owned()).or_default();
        *tried =
            Tried { points: tried.points + 1, reached: tried.reached + 1, of: tried.of + 1, ..std::mem::take(tried) };
    }

    /// Prints what was tried, and fails with all that went wrong.
    pub fn conclude(self) {
        let mut out = std::io::stderr().lock();
        for (what, Tried { points, reached, of, kinds, of_kinds }) in &self.tried {
            let kinds =
                if *of_kinds > 0 { format!(", {} of {of_kinds} kinds of calls", kinds.len()) } else { String::new() };
            let _ = writeln!(out, "{}: {what}: {points} of {of} points tried, {reached} reached{kinds}", self.name);
        }
        if full() {
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

/// The file with what `mounts add` is to mount, which a test has to make.
pub fn list(container: &Bundle) -> PathBuf {
    container.path().join("mounts.json")
}

/// Whether the tests of crashes are about this runtime; says so if not.
pub fn are_for_it() -> bool {
    let ours = harness::kind() == harness::Kind::Corten;
    if !ours {
        harness::skip("crashes are looked at in our own runtime only");
    }
    ours
}

fn end(report: &BTreeMap<String, String>) -> &str {
    report.get("end").map_or("no end", String::as_str)
}

/// How a command ends that fails.
fn failure(verb: &str) -> &'static str {
    if verb == "exec" { "exit 255" } else { "exit 1" }
}

/// The last few calls of each side, to see where something hangs.
fn last_calls(report: &BTreeMap<String, String>) -> String {
    let tell = |side: &str| {
        let names: Vec<&str> = report.get(side)?.split(' ').collect();
        Some(format!(" {side}: … {}", names[names.len().saturating_sub(40)..].join(" ")))
    };
    let signals = report.get("signals").map_or("", String::as_str);
    ["host", "container", "joiner"].into_iter().filter_map(tell).collect::<String>() + ", signals " + signals
}
