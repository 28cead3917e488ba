//! Containers that attack the processes that appear beside theirs, and what brings such processes about.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::attack::{CANARY, Outside};
use crate::harness::{Bundle, Cmd, Outcome, Terminal, eventually, known_difference, reaper, systemd_makes_them};

/// All that this machine gives, so that nothing but the runtime's own care stands between two processes.
pub fn all() -> Vec<&'static str> {
    let status = fs::read_to_string("/proc/thread-self/status").expect("our own status");
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).expect("the bounding set");
    let set = u64::from_str_radix(bounding.trim(), 16).expect("a number");
    (0..).zip(CAPABILITIES).filter(|(number, _)| set & (1 << number) != 0).map(|(_, name)| *name).collect()
}

/// In the order of their numbers.
const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What Docker gives to a container: nothing with which to look into a process of more rights.
pub const USUAL: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// A runtime that puts a process into the container's pid namespace which then becomes one of the container's.
pub fn peers_finish_later() -> bool {
    let why = "its processes are seen in the container before they are the container's";
    known_difference("crun", why) || known_difference("runc", why)
}

/// What the host has, and a container must not learn of.
pub struct Host {
    pub outside: Outside,
    /// A directory that only root may write.
    pub dir: PathBuf,
    _socket: UnixListener,
}

/// In the environment of the runtime alone.
const SECRET: &str = "known-to-the-caller";

impl Host {
    pub fn of(bundle: &Bundle) -> Host {
        use std::os::linux::net::SocketAddrExt;
        let name = std::os::unix::net::SocketAddr::from_abstract_name("corten-test-of-the-host").expect("a short name");
        let socket = UnixListener::bind_addr(&name).expect("listen in the host's network namespace");
        Host { outside: Outside::of(bundle), dir: bundle.host_dir("roots-own"), _socket: socket }
    }

    fn canary(&self) -> String {
        self.outside.dir().join(CANARY).to_str().expect("a plain path").to_owned()
    }

    /// The probe that watches, by looking or by stopping: for anything of the host's. Beside it may be containers with
    /// these roots.
    pub fn watch(&self, catch: &str, beside: &[&Bundle]) -> Vec<String> {
        let mut words = ["probe", "watch", catch, "3600"].map(str::to_owned).to_vec();
        words.push(format!("word={SECRET}"));
        words.push(format!("variable=SECRET:{SECRET}"));
        // Wherever the sandbox, its bundles, states and logs are named.
        words.push("word=corten-test".to_owned());
        words.push(format!("reach={}", self.canary()));
        // What `add_procfs` adds.
        words.push("also=/p proc".to_owned());
        for kind in ["mnt", "net", "pid", "user", "ipc", "uts", "cgroup"] {
            let link = fs::read_link(format!("/proc/thread-self/ns/{kind}")).expect("a namespace of the host");
            words.push(format!("ns={}", link.display()));
        }
        for bundle in beside {
            let root = fs::metadata(bundle.rootfs()).expect("the root of a container beside it");
            words.push(format!("root={}:{}", root.dev(), root.ino()));
        }
        words
    }

    /// The probe that traces and drives.
    pub fn drive(&self, catch: &str) -> Vec<String> {
        let dir = self.dir.to_str().expect("a plain path").to_owned();
        ["probe", "drive", catch, "3600"].map(str::to_owned).into_iter().chain([self.canary(), dir]).collect()
    }

    /// The same for one process.
    pub fn drive_one(&self, pid: i32) -> Vec<String> {
        let dir = self.dir.to_str().expect("a plain path").to_owned();
        ["probe".to_owned(), "drive-one".to_owned(), pid.to_string(), self.canary(), dir].into()
    }

    /// Nobody has left anything there.
    #[track_caller]
    pub fn is_untouched(&self) {
        self.outside.is_untouched();
        let left: Vec<_> = fs::read_dir(&self.dir).expect("the directory of root").flatten().collect();
        assert!(left.is_empty(), "in a directory that only the host's root may write: {left:?}");
    }
}

/// A pid namespace in place of the machine's, for runtimes whose containers have none of their own. With the systemd driver it
/// is that of the machine, the lab's, since systemd is told pids.
pub struct PidHost {
    first: Option<i32>,
}

impl PidHost {
    pub fn of(bundle: &Bundle) -> PidHost {
        if systemd_makes_them() {
            return PidHost { first: None };
        }
        // A shell reaps what is left to it.
        let inner = "while :; do busybox sleep 1; done";
        let script = format!(
            "echo $$ >\"$0\" && exec /usr/bin/unshare --pid --fork --kill-child --mount-proc busybox sh -c '{inner}'"
        );
        let mut command = Command::new("/bin/busybox");
        command.args(["sh", "-c", &script]).arg(bundle.sandbox().cgroup().join("caller/cgroup.procs"));
        let outer = reaper::spawn(&mut command).expect("start the holder of a pid namespace");
        let child = || {
            let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).unwrap_or_default();
            children.split_whitespace().next().and_then(|pid| pid.parse().ok())
        };
        eventually("the pid namespace has its first process, and a /proc", || {
            child().is_some_and(|pid: i32| {
                fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with("busybox"))
            })
        });
        PidHost { first: Some(child().expect("it was there")) }
    }

    /// What starts a runtime in it.
    pub fn words(&self) -> Vec<String> {
        let enter = |first: i32| {
            ["/usr/bin/nsenter", "--target", &first.to_string(), "--pid", "--mount", "--"].map(str::to_owned)
        };
        self.first.map(enter).into_iter().flatten().collect()
    }
}

/// A container that attacks.
pub struct Attacker {
    pub bundle: Bundle,
    made: Outcome,
    starter: Vec<String>,
}

impl Attacker {
    /// This container with this program, which says `ready`.
    pub fn new(bundle: Bundle, words: &[String]) -> Attacker {
        Attacker::on(&[], bundle, words)
    }

    /// By a runtime that is started so.
    pub fn on(starter: &[String], bundle: Bundle, words: &[String]) -> Attacker {
        let bundle = bundle.args(words);
        let made = bundle.run_detached_cmd().started_by(starter).run();
        made.ok();
        eventually("the attacker is ready", || made.stdout().contains("ready"));
        Attacker { bundle, made, starter: starter.to_vec() }
    }

    /// A namespace of its own.
    pub fn ns(&self, kind: &str) -> String {
        format!("/proc/{}/ns/{kind}", self.bundle.pid())
    }

    pub fn told(&self) -> String {
        self.made.stdout()
    }

    /// A container that joins these namespaces of it.
    pub fn joined_by(&self, bundle: Bundle, kinds: &[&str]) -> Bundle {
        kinds.iter().fold(bundle, |bundle, kind| {
            let bundle = if *kind == "uts" { bundle.unset("/hostname") } else { bundle };
            bundle.join(kind, self.ns(if *kind == "network" { "net" } else { kind }))
        })
    }

    /// Provokes it `number` times, and then on until it has seen what it wants, which `is_enough` knows from what it told.
    /// What is attacked may fail, but not hang; some of it has to succeed, or nothing was tried.
    #[track_caller]
    pub fn provoke(&self, number: usize, is_enough: impl Fn(&str) -> bool, mut provoke: impl FnMut(usize) -> Outcome) {
        let number = number.max(1);
        let mut outcomes = Vec::new();
        for round in 0..number * 10 {
            if round >= number && is_enough(&self.told()) {
                break;
            }
            outcomes.push(provoke(round));
        }
        if !outcomes.iter().any(Outcome::succeeded) {
            outcomes.last().expect("one at least").ok();
        }
    }

    /// Has it come to an end, and take away; what it told.
    pub fn ends(self) -> String {
        fs::write(self.bundle.rootfs().join("end"), "").expect("have the attacker end");
        eventually("the attacker tells what it did", || self.told().contains("\ndone: "));
        self.bundle.cmd(["delete", "--force", self.bundle.name()]).started_by(&self.starter).run().ok();
        self.told()
    }
}

/// The attacker has found a process before its execve.
pub fn has_seen(told: &str) -> bool {
    told.contains("sees one before its execve")
}

/// It has traced one.
pub fn has_traced(told: &str) -> bool {
    told.contains("\ntraced ")
}

/// What several attackers told. All of them are heard before one fails the test.
#[derive(Default)]
pub struct Verdict(Vec<String>);

impl Verdict {
    /// Nothing was wrong, and there were processes to be judged.
    pub fn clean(&mut self, what: &str, told: &str) {
        let kind = |line: &&str| line.chars().filter(|letter| !letter.is_ascii_digit()).collect::<String>();
        let mut kinds = BTreeSet::new();
        // One of each: pids and other numbers differ.
        let breaches = told.lines().filter(|line| line.starts_with("breach "));
        let breaches: Vec<_> = breaches.filter(|line| kinds.insert(kind(line))).collect();
        let done = told.lines().last().unwrap_or_default();
        let test = std::thread::current().name().unwrap_or("attack").to_owned();
        // Past the capture of `println!`, so that it is seen when the test passes.
        let _ = writeln!(std::io::stderr(), "{test}: {what}: {done}");
        if !breaches.is_empty() {
            self.0.push(format!("{what}: {done}\n  {}", breaches.join("\n  ")));
        } else if !has_seen(told) {
            self.0.push(format!("{what}: no process was seen before its execve: {told}"));
        }
    }

    /// The same of those that were seen, where nobody need be there.
    pub fn clean_if_seen(&mut self, what: &str, told: &str) {
        self.clean(what, &format!("sees one before its execve\n{told}"));
    }

    /// The same, and none could be traced.
    pub fn untraced(&mut self, what: &str, told: &str) {
        self.clean(what, told);
        if let Some(line) = told.lines().find(|line| line.starts_with("traced ")) {
            self.0.push(format!("{what}: a process can be traced before its execve: {line}"));
        }
    }

    /// The end of the test.
    #[track_caller]
    pub fn holds(self) {
        assert!(
            self.0.is_empty(),
            "a process was seen, or held, before it was the container's own:\n{}",
            self.0.join("\n")
        );
    }
}

/// A user namespace of its own, and the host's procfs: who does not own the pid namespace may mount none. Without masks,
/// which in a user namespace are the host's null device, and elsewhere the container's.
pub fn with_new_user_namespace(bundle: Bundle) -> Bundle {
    let bundle = bundle.userns().unset("/linux/maskedPaths").without_mount("/proc");
    bundle.bind("/proc", "/proc", &["rbind", "nosuid", "noexec", "nodev"])
}

/// Runs a program in the container; on a terminal if wanted. It may fail, where it is attacked, but not hang.
pub fn enter(bundle: &Bundle, on_terminal: bool) -> Outcome {
    let command = |options: &[&str]| bundle.exec_cmd(options, &["usleep", "1000"]).env("SECRET", SECRET);
    if !on_terminal {
        return command(&[]).run();
    }
    let mut terminal = Terminal::new();
    command(&["--tty"]).on_terminal(terminal.replica()).run()
}

/// Runs a container to its end: by `create` and `start` with a while in between, or at once, which is the way on a terminal.
pub fn come_and_go(starter: &[String], bundle: &Bundle, at_once: bool) -> Outcome {
    let own = |command: Cmd| command.started_by(starter).env("SECRET", SECRET);
    let came = if bundle.config()["process"]["terminal"] == true {
        let mut terminal = Terminal::new();
        own(bundle.run_cmd()).on_terminal(terminal.replica()).run()
    } else if at_once {
        own(bundle.run_cmd()).run()
    } else {
        let created = own(bundle.create_cmd(&[])).run();
        std::thread::sleep(Duration::from_millis(3));
        if created.succeeded() { own(bundle.cmd(["start", bundle.name()])).run() } else { created }
    };
    own(bundle.cmd(["delete", "--force", bundle.name()])).run();
    came
}

/// Mounts a procfs in a running container, and takes it away; what came of the first.
pub fn add_procfs(bundle: &Bundle) -> Outcome {
    let list = json!([{"destination": "/p", "type": "proc", "source": "proc"}]).to_string();
    let change = |what| bundle.cmd(["mounts", what, bundle.name(), "-"]).stdin(&list).env("SECRET", SECRET).run();
    let added = change("add");
    change("remove");
    added
}
