//! Makes the calls of one step and holds what comes of them against what engines rely on.

use std::collections::HashMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::Report;
use super::adapt::{self, Fitted, Refusal};
use super::calls::{Call, Step};
use super::host::Host;
use super::leaks::{Leaks, no_leak, only_streams};
use crate::harness::{Cmd, ConsoleSocket, End, Kind, Outcome, Sandbox, Terminal, kind, known_difference, reaper, skip};

/// What comes with later versions.
const LATER: &[&str] = &["checkpoint", "restore"];

/// Programs that are not there or not to be run, and the words by which callers tell 127 from 126.
const MISSING: (&str, &[&str]) =
    ("no-such-program", &["executable file not found in $path", "no such file or directory"]);
const FORBIDDEN: (&str, &[&str]) = ("/etc/passwd", &["permission denied"]);

/// See the module's head.
pub struct Player<'a> {
    step: &'a Step,
    host: Host,
    containers: HashMap<String, Container>,
    report: Report,
}

struct Container {
    rootfs: PathBuf,
    /// None where only the runtime knew it.
    pid: Option<i32>,
    /// When its process was born, or a time before where it was gone too early.
    born: reaper::Ticks,
    /// It runs until it is killed.
    sleeps: bool,
    args: Value,
    /// How many descriptors are passed on to it.
    preserved: usize,
    /// Nothing more is done to it than to delete it: what a later version would have done has not been done.
    lost: bool,
    /// Kept open, as a caller does.
    _terminal: Option<Terminal>,
}

/// What came of a call that makes a process.
struct Made {
    outcome: Outcome,
    terminal: Option<Terminal>,
    leaks: Leaks,
}

impl<'a> Player<'a> {
    pub fn new(step: &'a Step) -> Player<'a> {
        let host = Host::new(Sandbox::of_this_test());
        Player { step, host, containers: HashMap::new(), report: Report::default() }
    }

    /// Makes all calls in their order.
    pub fn play(mut self) -> Report {
        let manager = |call: &Call| call.option("--cgroup-manager").is_some();
        if self.step.calls.iter().any(manager) && known_difference("runc", "it has no --cgroup-manager") {
            return self.report;
        }
        for (at, call) in self.step.calls.iter().enumerate() {
            self.report.count("calls");
            match call.verb() {
                "create" | "run" => self.create(call, &self.step.calls[at + 1..]),
                "features" => drop(self.cmd(call).run().json()),
                "--version" => drop(self.cmd(call).run().ok().shows("version")),
                _ if !self.is_there(call) => {}
                verb if LATER.contains(&verb) => self.later(call),
                "exec" => self.exec(call),
                "update" => self.update(call),
                _ => self.act(call),
            }
        }
        self.report
    }

    /// Whether the call's container was made here and is not lost. Whatever became of it, it is deleted by force.
    fn is_there(&self, call: &Call) -> bool {
        let container = call.id().and_then(|id| self.containers.get(id));
        container.is_some_and(|container| !container.lost) || (call.verb() == "delete" && call.has("--force"))
    }

    /// The call's command line with paths moved, and its environment.
    fn cmd(&self, call: &Call) -> Cmd {
        let mut words: Vec<String> = call.argv.iter().map(|word| self.host.word(word)).collect();
        if call.id().is_some() && call.option("--root").is_none() {
            words.splice(0..0, ["--root".into(), self.root(call).display().to_string()]);
        }
        // What an earlier call wrote is not this one's.
        if let Some(log) = call.option("--log") {
            let _ = fs::remove_file(self.host.path(log));
        }
        let cmd = Cmd::bare(&self.host.sandbox, words).cwd(self.directory(&call.cwd));
        call.env().fold(cmd, |cmd, (key, value)| cmd.env(key, value))
    }

    fn directory(&self, path: &Path) -> PathBuf {
        let path = self.host.path(path);
        fs::create_dir_all(&path).expect("make a directory of the captured host");
        path
    }

    /// The state root of the call.
    fn root(&self, call: &Call) -> PathBuf {
        call.option("--root").map_or_else(|| self.host.sandbox.root(), |root| self.host.path(root))
    }

    fn create(&mut self, call: &Call, later: &[Call]) {
        let id = call.id().expect("the id of a new container").to_owned();
        let bundle = self.directory(Path::new(call.option("--bundle").expect("--bundle")));
        for file in ["--pid-file", "--log"].iter().filter_map(|option| call.option(option)) {
            self.directory(Path::new(file).parent().expect("a parent"));
        }
        let document = self.step.document(call, "config").expect("a configuration");
        // Two containers may live on what is one configuration here.
        let number = if self.step.is_own(call, "config") { 0 } else { self.containers.len() + 1 };
        let mut fitted = adapt::configuration(&self.host, document, &bundle, number);
        let wrong = self.wrong_program(call);
        choose_program(&mut fitted, wrong.map(|(program, _)| program), &id, call, later);
        let has_terminal = call.option("--console-socket").is_some();
        fitted.config["process"]["terminal"] = has_terminal.into();
        if call.has("--systemd-cgroup") {
            let words = vec!["systemd".into()];
            fitted.refusals.push(Refusal { kind: "systemd".into(), fields: Vec::new(), words });
        }

        let Fitted { mut config, rootfs, refusals, hook_states, sleeps } = fitted;
        let before = reaper::Ticks::now();
        let Made { outcome, terminal, leaks } =
            self.until_taken(call, &mut config, refusals, &bundle.join("config.json"));
        if let Some((_, words)) = wrong {
            outcome.code(1);
            if !known_difference("crun", "words of its own for what cannot be run") {
                outcome.fails_with_one_of(words);
            }
            last_word(&outcome);
            assert!(!self.root(call).join(id).exists(), "a failed create leaves its state directory");
            return self.report.count("wrong programs refused");
        }
        outcome.ok();
        quiet(&outcome);
        let preserved = call.option("--preserve-fds").map_or(0, |number| number.parse().expect("a number"));
        let pid = call.option("--pid-file").map(|file| pid_in(&self.host.path(file)));
        let born = pid.and_then(reaper::Ticks::of_birth).unwrap_or(before);
        if let Some(pid) = pid.filter(|_| call.verb() == "create") {
            if outcome.stdout() != "" {
                outcome.fail("the program must not run before start");
            }
            no_leak(pid, preserved, &leaks);
        }
        if let Some(states) = hook_states {
            let given = fs::read_to_string(states).expect("the hooks should have run");
            assert!(given.contains(&id) && given.contains("ociVersion"), "a hook was given {given:?}");
            self.report.count("hooks seen");
        }
        self.report.count(if self.step.is_own(call, "config") {
            "made of own config"
        } else {
            "made of a like config"
        });
        let args = config["process"]["args"].clone();
        let container = Container { rootfs, pid, born, sleeps, args, preserved, lost: false, _terminal: terminal };
        self.containers.insert(id, container);
    }

    /// What a step that fails on purpose told the container to run: the document kept is of another container.
    fn wrong_program(&self, call: &Call) -> Option<(&'static str, &'static [&'static str])> {
        match self.step.name.rsplit('/').next() {
            _ if call.rc == 0 => None,
            Some("cmd-not-exec") => Some(FORBIDDEN),
            Some("cmd-not-found" | "run-missing") => Some(MISSING),
            // The machine of the recording had its own reasons.
            _ => None,
        }
    }

    /// Makes the call with this document; each refusal that has to come must come, by its name; without what was
    /// refused, again.
    fn until_taken(&mut self, call: &Call, document: &mut Value, mut refusals: Vec<Refusal>, file: &Path) -> Made {
        let mut call = call.clone();
        if kind() != Kind::Corten {
            // Peers have words of their own, and drop silently what we refuse.
            let all = std::mem::take(&mut refusals);
            all.iter().for_each(|refusal| self.give_in(refusal, document, &mut call));
        }
        loop {
            let made = self.attempt(&call, document, file);
            if refusals.is_empty() {
                return made;
            }
            let refusal = self.refused(&made.outcome, &mut refusals);
            if let Some(id) = call.id().filter(|_| call.verb() == "create") {
                assert!(!self.root(&call).join(id).exists(), "a refused create leaves its state directory");
            }
            self.give_in(&refusal, document, &mut call);
        }
    }

    /// Which of the refusals that have to come has come.
    fn refused(&mut self, outcome: &Outcome, refusals: &mut Vec<Refusal>) -> Refusal {
        outcome.fails();
        last_word(outcome);
        let said = outcome.stderr() + &outcome.log();
        let named = |refusal: &Refusal| {
            let field = refusal.fields.is_empty() || refusal.fields.iter().any(|field| said.contains(field));
            field && refusal.words.iter().all(|word| said.contains(word))
        };
        let Some(at) = refusals.iter().position(named) else {
            let kinds: Vec<_> = refusals.iter().map(|refusal| &refusal.kind).collect();
            outcome.fail(&format!("it should have been refused for {kinds:?}"));
        };
        let refusal = refusals.remove(at);
        self.report.count(format!("refused for {}", refusal.kind));
        refusal
    }

    fn give_in(&self, refusal: &Refusal, document: &mut Value, call: &mut Call) {
        adapt::without(document, refusal);
        if refusal.kind == "systemd" {
            call.argv.retain(|word| word != "--systemd-cgroup");
            adapt::without_systemd(&self.host, document);
        }
    }

    /// Makes a call that makes a process, with a console socket if it names one, and what its caller leaked.
    fn attempt(&self, call: &Call, document: &Value, file: &Path) -> Made {
        fs::write(file, document.to_string()).expect("write a document");
        let socket = call.option("--console-socket").map(|path| {
            let path = self.host.path(path);
            let _ = fs::remove_file(&path);
            ConsoleSocket::at(path)
        });
        let leaks = Leaks::of(call);
        let said = self.check(call);
        let outcome = leaks.opened_in(self.cmd(call).about(file.into())).run();
        if let Some(said) = said {
            agrees(&said, &outcome);
        }
        let terminal = socket.filter(|_| outcome.succeeded()).map(|socket| {
            let console = socket.receive();
            let [master] = <[OwnedFd; 1]>::try_from(console.fds).expect("one descriptor comes through the socket");
            Terminal::of(master)
        });
        Made { outcome, terminal, leaks }
    }

    /// What `check` says of a call that makes a container.
    fn check(&self, call: &Call) -> Option<Outcome> {
        if kind() != Kind::Corten || !matches!(call.verb(), "create" | "run") {
            return None;
        }
        let verb = call.argv.iter().position(|word| word == call.verb())?;
        let mut asked = call.clone();
        asked.argv.truncate(verb);
        // Warnings and errors are its result, and the log is that of the call to come.
        if let Some(log) = asked.argv.iter().position(|word| word == "--log") {
            asked.argv.drain(log..log + 2);
        }
        let root = self.root(call).display().to_string();
        let mut words = vec!["--root", &root, "check", "--bundle", call.option("--bundle")?];
        if let Some(socket) = call.option("--console-socket") {
            words.extend(["--console-socket", socket]);
        } else if call.verb() == "run" && !call.has("--detach") {
            words.push("--foreground");
        }
        asked.argv.extend(words.iter().map(|word| (*word).to_owned()));
        asked.argv.extend(call.id().map(str::to_owned));
        Some(self.cmd(&asked).run())
    }

    /// `exec --process`: the document as captured, or one of its kind.
    fn exec(&mut self, call: &Call) {
        let container = &self.containers[call.id().expect("the id")];
        let (rootfs, preserved) = (container.rootfs.clone(), container.preserved);
        let plain = || json!({"user": {"uid": 0, "gid": 0}, "args": ["true"], "env": ["PATH=/bin"], "cwd": "/"});
        let mut document = self.step.document(call, "process").unwrap_or_else(plain);
        adapt::process(&mut document);
        if call.rc != 0 {
            document["args"] = json!([MISSING.0]);
        } else {
            self.host.program(&rootfs, document["args"][0].as_str().expect("a word"));
        }
        document["terminal"] = call.option("--console-socket").is_some().into();
        let file = self.host.path(call.option("--process").expect("--process"));
        fs::create_dir_all(file.parent().expect("a parent")).expect("make the directory of the process file");
        let refusals: Vec<Refusal> = adapt::labels(&document, "").into_iter().collect();
        let Made { outcome, terminal: _terminal, leaks } = self.until_taken(call, &mut document, refusals, &file);
        if call.rc != 0 {
            outcome.fails_with_one_of(MISSING.1);
            if !known_difference("crun", "a failed exec ends with 1") {
                outcome.code(call.rc);
            }
            last_word(&outcome);
            return self.report.count("wrong programs refused");
        }
        // Its stderr is the program's.
        quiet_log(outcome.ok());
        let pid = pid_in(&self.host.path(call.option("--pid-file").expect("--pid-file")));
        // Some open more by themselves: a socket to fetch something through.
        only_streams(pid, preserved, &leaks, document["args"][0] != "wget");
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        self.report.count("execs");
    }

    /// `update`: the limits as captured, in a file or on standard input.
    fn update(&mut self, call: &Call) {
        let resources = self.step.document(call, "resources").expect("the limits of an update");
        let mut document = json!({"linux": {"resources": resources}});
        let mut refusals = adapt::limits(&document);
        if kind() != Kind::Corten {
            refusals.drain(..).for_each(|refusal| adapt::without(&mut document, &refusal));
            adapt::without_what_peers_lack(&mut document);
        }
        loop {
            let text = document["linux"]["resources"].to_string();
            let cmd = match call.option("--resources").expect("--resources") {
                "-" => self.cmd(call).stdin(&text),
                file => {
                    let file = self.host.path(file);
                    fs::create_dir_all(file.parent().expect("a parent")).expect("make the directory of the limits");
                    fs::write(file, text).expect("write the limits");
                    self.cmd(call)
                }
            };
            let outcome = cmd.run();
            if refusals.is_empty() {
                outcome.code(call.rc);
                quiet(&outcome);
                return self.report.count("updates");
            }
            let refusal = self.refused(&outcome, &mut refusals);
            adapt::without(&mut document, &refusal);
        }
    }

    /// A command on a container that is there.
    fn act(&mut self, call: &Call) {
        let verb = call.verb();
        let id = call.id().expect("the id").to_owned();
        if verb == "delete" && !call.has("--force") {
            self.let_end(&id);
        }
        let outcome = self.cmd(call).run();
        outcome.code(call.rc);
        match verb {
            "state" => {
                let state = outcome.json();
                assert_eq!(state["id"], id.as_str());
                assert!(state["status"].is_string() && state["bundle"].is_string(), "{state}");
            }
            "ps" => {
                let pids = outcome.json();
                let pid = self.containers[&id].pid;
                assert!(pids.as_array().is_some_and(|pids| pids.contains(&json!(pid))), "{pids} has no {pid:?}");
            }
            _ => {
                quiet(&outcome);
                if outcome.stdout() != "" {
                    outcome.fail("it should have printed nothing");
                }
            }
        }
        match verb {
            "start" => self.started(&id),
            "kill" if call.rc == 0 && matches!(call.signal(), Some("9" | "KILL" | "SIGKILL")) => self.ends(&id),
            "delete" => {
                assert!(!self.root(call).join(&id).exists(), "delete leaves the state directory");
                self.ends(&id);
                // The second delete of a shim finds nothing.
                self.containers.remove(&id);
            }
            _ => {}
        }
    }

    /// The program runs; what it holds open is its own.
    fn started(&self, id: &str) {
        let container = &self.containers[id];
        if let Some(pid) = container.pid.filter(|_| container.sleeps) {
            only_streams(pid, container.preserved, &Leaks::none(), true);
        }
    }

    fn ends(&self, id: &str) {
        let Some(container) = self.containers.get(id) else { return };
        if let Some(pid) = container.pid {
            assert!(
                reaper::wait_for(pid, container.born, Duration::from_secs(10)).is_some(),
                "the process of {id} lives on"
            );
        }
    }

    /// Lets the program come to its own end, as the engine waited for it, or ends it.
    fn let_end(&self, id: &str) {
        let container = &self.containers[id];
        let Some(pid) = container.pid else { return };
        let patience = Duration::from_millis(if container.sleeps { 0 } else { 700 });
        let Some(end) = reaper::wait_for(pid, container.born, patience) else {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            return self.ends(id);
        };
        let args = container.args.to_string();
        if args == r#"["true"]"# {
            assert_eq!(end, End::Code(0), "the end of {args}");
        } else if args.ends_with("exit 5\"]") {
            assert_eq!(end, End::Code(5), "the end of {args}");
        }
    }

    /// A command that is not there yet. What it would have ended or changed is not looked at.
    fn later(&mut self, call: &Call) {
        skip(&format!("`{}` comes later", call.verb()));
        self.report.count("calls of later commands");
        if let Some(container) = call.id().and_then(|id| self.containers.get_mut(id)) {
            let ends = call.verb() == "checkpoint" && call.rc == 0 && !call.has("--leave-running");
            container.lost |= ends || call.verb() == "restore";
        }
    }
}

/// What made the container has gone as `check` said that it would: it said why not, or nothing.
fn agrees(said: &Outcome, made: &Outcome) {
    if made.succeeded() {
        said.ok();
        return;
    }
    let log = made.log();
    let record: Value = log.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    let error = record["msg"].as_str().map_or_else(|| made.stderr(), str::to_owned);
    let told = said.code(1).stdout();
    let mut findings = told.lines().filter_map(|line| line.strip_prefix("error: "));
    // The field stands elsewhere in a sentence of several layers.
    let same = |line: &str| error.contains(line) || line.split_once(": ").is_some_and(|(_, rest)| error.contains(rest));
    if !findings.any(same) {
        said.fail(&format!("check does not say why it was refused: {error}"));
    }
}

/// The program as captured, unless it must be a wrong one, or live longer or shorter than here it would.
fn choose_program(fitted: &mut Fitted, wrong: Option<&str>, id: &str, call: &Call, later: &[Call]) {
    let mut calls = later.iter().filter(|call| call.id() == Some(id)).take_while(|call| call.verb() != "create");
    let must_live = calls.any(|call| !matches!(call.verb(), "start" | "state" | "delete"));
    let (args, sleeps) = match wrong {
        Some(program) => (json!([program]), false),
        // It comes with an image that is not here, and ends.
        None if call.verb() == "run" => (json!(["true"]), false),
        None if must_live && !fitted.sleeps => (json!(["sleep", "1000"]), true),
        None => return,
    };
    fitted.config["process"]["args"] = args;
    fitted.sleeps = sleeps;
}

fn pid_in(file: &Path) -> i32 {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.parse().unwrap_or_else(|_| panic!("the pid file holds {text:?}, not a number alone"))
}

/// Nothing but the container's own output: no word on stderr, no error in the log, all of it JSON.
fn quiet(outcome: &Outcome) {
    if kind() != Kind::Corten {
        return;
    }
    if outcome.stderr() != "" {
        outcome.fail("it should have said nothing");
    }
    quiet_log(outcome);
}

/// Its log, if it has one, is all JSON and has no error.
fn quiet_log(outcome: &Outcome) {
    if kind() != Kind::Corten {
        return;
    }
    for line in outcome.log().lines() {
        let record: Value = serde_json::from_str(line).unwrap_or_default();
        let complete = ["level", "msg", "time"].iter().all(|key| record[key].is_string());
        if !complete || record["level"] == "error" {
            outcome.fail(&format!("its log should have no such line: {line}"));
        }
    }
}

/// A failure's last record is one sentence for the caller: JSON where it asked for it, on stderr otherwise.
fn last_word(outcome: &Outcome) {
    if kind() != Kind::Corten {
        return;
    }
    if outcome.stderr().trim().is_empty() {
        outcome.fail("it should have said on stderr why it failed");
    }
    let log = outcome.log();
    let Some(line) = log.lines().last() else { return };
    let record: Value = serde_json::from_str(line).unwrap_or_default();
    if record["level"] != "error" || record["msg"].as_str().is_none_or(str::is_empty) {
        outcome.fail("the last line of the log should be a record of the error");
    }
}
