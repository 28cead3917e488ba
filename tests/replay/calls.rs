//! The captures as they lie in the tree; `tests/captures/README.md` says what is in them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

/// Options of the captured commands that take the next word as their value.
const VALUED: &[&str] = &[
    "--bundle",
    "--console-socket",
    "--format",
    "--image-path",
    "--pid-file",
    "--preserve-fds",
    "--process",
    "--work-path",
];

const VERBS: &[&str] = &[
    "checkpoint",
    "create",
    "delete",
    "exec",
    "features",
    "kill",
    "list",
    "pause",
    "ps",
    "restore",
    "resume",
    "run",
    "start",
    "state",
    "update",
    "--version",
];

/// What an engine did for one step of a scenario.
pub struct Step {
    /// `ENGINE/WHERE/STEP`.
    pub name: String,
    pub calls: Vec<Call>,
    dir: PathBuf,
}

/// One call of the runtime.
#[derive(Clone, Deserialize)]
pub struct Call {
    pub argv: Vec<String>,
    pub cwd: PathBuf,
    pub rc: i32,
    #[serde(default)]
    fds: BTreeMap<String, String>,
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    files: BTreeMap<String, String>,
}

impl Call {
    /// The subcommand.
    pub fn verb(&self) -> &str {
        self.argv.iter().map(String::as_str).find(|word| VERBS.contains(word)).expect("a subcommand that is known")
    }

    /// The container, and what stands behind it: a signal.
    fn positionals(&self) -> Vec<&str> {
        let mut words = self.argv.iter().map(String::as_str).skip_while(|word| !VERBS.contains(word)).skip(1);
        let mut found = Vec::new();
        while let Some(word) = words.next() {
            if VALUED.contains(&word) {
                words.next();
            } else if !word.starts_with("--") {
                found.push(word);
            }
        }
        found
    }

    pub fn id(&self) -> Option<&str> {
        self.positionals().first().copied()
    }

    pub fn signal(&self) -> Option<&str> {
        self.positionals().get(1).copied()
    }

    pub fn has(&self, option: &str) -> bool {
        self.argv.iter().any(|word| word == option)
    }

    /// The value of an option, in either of its spellings.
    pub fn option(&self, name: &str) -> Option<&str> {
        let mut words = self.argv.iter();
        while let Some(word) = words.next() {
            if word == name {
                return words.next().map(String::as_str);
            }
            if let Some(value) = word.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
                return Some(value);
            }
        }
        None
    }

    /// What was open beyond the three streams: number and what it was.
    pub fn leaked(&self) -> impl Iterator<Item = (i32, &str)> {
        let fds = self.fds.iter().map(|(number, target)| (number.parse().expect("a number"), target.as_str()));
        fds.filter(|(number, _)| *number > 2)
    }

    pub fn env(&self) -> impl Iterator<Item = (&str, &str)> {
        self.env.iter().filter_map(|entry| entry.split_once('='))
    }
}

impl Step {
    /// The document that a call was given, or one of its kind that the engine wrote elsewhere.
    pub fn document(&self, call: &Call, kind: &str) -> Option<Value> {
        let own = call.files.get(kind).map(|file| self.dir.join(file)).filter(|file| file.exists());
        let buildah = call.id().is_some_and(|id| id.starts_with("buildah-"));
        let file = own.or_else(|| {
            let others = files(&self.dir).filter(|file| is_of_kind(file, kind));
            // A plain one, of a build for a build.
            others.min_by_key(|file| {
                let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
                let special =
                    ["hostns", "userns", "privileged", "limits", "tty"].iter().any(|word| name.contains(word));
                (name.starts_with("build") != buildah, !name.starts_with("run"), special, name)
            })
        })?;
        Some(read(&file))
    }

    /// Whether the document is the call's own.
    pub fn is_own(&self, call: &Call, kind: &str) -> bool {
        call.files.get(kind).is_some_and(|file| self.dir.join(file).exists())
    }
}

fn read(file: &Path) -> Value {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn is_of_kind(file: &Path, kind: &str) -> bool {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.ends_with(".json") && name.split('.').any(|part| part == kind || part.starts_with(&format!("{kind}-")))
}

/// Where the captures are: `$CAPTURES` if it is set, so that a larger set can be tried.
fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    std::env::var_os("CAPTURES").map_or(own, PathBuf::from)
}

fn files(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.expect("an entry of the captures").path())
        .collect();
    found.sort();
    found.into_iter()
}

/// `ENGINE/WHERE` of all captures.
pub fn folders() -> BTreeSet<String> {
    let dirs = |dir: &Path| files(dir).filter(|path| path.is_dir()).collect::<Vec<_>>();
    let root = root();
    let all = dirs(&root).into_iter().flat_map(|engine| dirs(&engine));
    all.map(|dir| dir.strip_prefix(&root).expect("below it").display().to_string()).collect()
}

/// The steps of a folder, and one for each document that is in no captured call.
pub fn steps(folder: &str) -> Vec<Step> {
    let dir = root().join(folder);
    let mut steps = Vec::new();
    let mut seen = BTreeSet::new();
    for file in files(&dir) {
        let name = file.file_name().and_then(|name| name.to_str()).expect("a plain name").to_owned();
        let Some(step) = name.strip_suffix(".calls.jsonl") else { continue };
        let text = fs::read_to_string(&file).expect("read calls");
        let calls: Vec<Call> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{name}: {error}")))
            .collect();
        seen.extend(calls.iter().flat_map(|call| call.files.values().cloned()));
        steps.push(Step { name: format!("{folder}/{step}"), calls, dir: dir.clone() });
    }
    for file in files(&dir) {
        let name = file.file_name().and_then(|name| name.to_str()).expect("a plain name").to_owned();
        let kind = ["config", "process"].into_iter().find(|kind| is_of_kind(&file, kind));
        if let Some(kind) = kind.filter(|_| !seen.contains(&name)) {
            let document = read(&file);
            let terminal = document.get("process").unwrap_or(&document)["terminal"] == true;
            let calls = usual(kind, &name, terminal);
            steps.push(Step { name: format!("{folder}/{name}"), calls, dir: dir.clone() });
        }
    }
    steps
}

/// What containerd's shim calls for a container's life.
fn usual(kind: &str, file: &str, terminal: bool) -> Vec<Call> {
    let id = format!("{:0<64}", file.bytes().map(|byte| format!("{byte:x}")).collect::<String>());
    let id = &id[..64];
    let bundle = format!("/run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}");
    let socket = |of: &str| if terminal && kind == of { "--console-socket /tmp/pty1/pty.sock " } else { "" };
    let exec =
        format!("exec --process /tmp/runc-process1 {}--detach --pid-file {bundle}/e.pid {id}", socket("process"));
    let lines = [
        format!("create --bundle {bundle} --pid-file {bundle}/init.pid {}{id}", socket("config")),
        format!("start {id}"),
        if kind == "process" { exec } else { format!("state {id}") },
        format!("kill {id} 9"),
        format!("kill --all {id} 9"),
        format!("delete {id}"),
        format!("delete --force {id}"),
    ];
    let global = format!("--root /run/containerd/runc/k8s.io --log {bundle}/log.json --log-format json ");
    let mut calls: Vec<Call> = lines
        .iter()
        .map(|line| Call {
            argv: format!("{global}{line}").split(' ').map(str::to_owned).collect(),
            cwd: bundle.clone().into(),
            rc: 0,
            fds: BTreeMap::from([("3".into(), "socket:[1]".into())]),
            env: vec!["NAMESPACE=k8s.io".into(), "GOMAXPROCS=4".into()],
            files: BTreeMap::new(),
        })
        .collect();
    let taker = if kind == "process" { 2 } else { 0 };
    calls[taker].files.insert(kind.into(), file.into());
    calls
}
