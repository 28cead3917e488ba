//! The rule for processes that appear in a container, held against each of them: they are the container's own from the first
//! moment on.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};

use super::chase::{Catch, Programs, Runs, Then, chase, identity};

/// Lines of `/proc/PID/status` in which every process of the container is like this one.
const ALIKE: [&str; 10] =
    ["Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"];

/// What is looked for.
#[derive(Default)]
pub struct Wanted<'a> {
    /// Text of the host's, which no process of the container has anywhere.
    words: Vec<&'a str>,
    /// Variables of the host's, which are not in the memory of one before its execve either, as NAME=VALUE.
    variables: Vec<String>,
    /// A file of the host.
    reach: Option<&'a str>,
    /// The root directories of containers beside this one, as `DEV:INO`.
    roots: Vec<(u64, u64)>,
    /// Lines of status and of the mount table that others may have instead of this one's.
    also: Vec<&'a str>,
    /// The host's namespaces, as `mnt:[4026531841]`.
    namespaces: Vec<&'a str>,
}

impl<'a> Wanted<'a> {
    /// `word=TEXT`, `variable=NAME:VALUE`, `reach=PATH`, `root=DEV:INO`, `also=LINE` and `ns=NAMESPACE`.
    pub fn new(words: &[&'a str]) -> Wanted<'a> {
        let mut wanted = Wanted::default();
        for word in words {
            match word.split_once('=').expect("probe: watch wants KEY=VALUE") {
                ("word", text) => wanted.words.push(text),
                // Our own arguments are in that memory.
                ("variable", text) => wanted.variables.push(text.replacen(':', "=", 1)),
                ("reach", path) => wanted.reach = Some(path),
                ("root", place) => {
                    let (dev, ino) = place.split_once(':').expect("DEV:INO");
                    wanted.roots.push((super::number(dev), super::number(ino)));
                }
                ("also", line) => wanted.also.push(line),
                ("ns", link) => wanted.namespaces.push(link),
                (other, _) => panic!("probe: watch does not know {other}"),
            }
        }
        wanted
    }
}

/// `watch look|stop SECONDS [word=TEXT|variable=NAME:VALUE|reach=PATH|root=DEV:INO|also=LINE|ns=NAMESPACE]…`: says `breach WHAT pid PID …` once for each way in which a
/// process that appears is not the container's own; `sees one before its execve` when it does for the first time, and at the end how many it saw.
pub fn watch(catch: &str, seconds: u64, wanted: &[&str]) {
    let mut watch = Watch {
        wanted: Wanted::new(wanted),
        programs: Programs::new(),
        status: status("self"),
        root: identity("/proc/self/root").expect("our own root"),
        mounts: mounts("self"),
        owner: fs::metadata("/proc/self/fd").expect("our own descriptors").uid(),
        looked_at: String::new(),
        told: BTreeSet::new(),
        seen: BTreeSet::new(),
        before: BTreeSet::new(),
    };
    chase(Catch::named(catch), seconds, |pid| watch.look(pid));
    println!("done: {} processes seen, {} of them before their execve", watch.seen.len(), watch.before.len());
}

struct Watch<'a> {
    wanted: Wanted<'a>,
    programs: Programs,
    /// Of this process, and so of every one.
    status: Vec<String>,
    root: (u64, u64),
    mounts: Vec<String>,
    owner: u32,
    /// The process at hand.
    looked_at: String,
    told: BTreeSet<String>,
    seen: BTreeSet<i32>,
    before: BTreeSet<i32>,
}

impl Watch<'_> {
    fn look(&mut self, pid: i32) -> Then {
        let runs = self.programs.run_by(pid);
        let stage = match runs {
            Runs::Another | Runs::Hidden => "before its execve",
            // So all that is found from here on is the program's.
            Runs::Ours => "with its program",
            Runs::None => "at its end",
        };
        self.looked_at = format!("{}, {stage}", name(pid));
        self.seen.insert(pid);
        if runs.is_before() && self.before.insert(pid) && self.before.len() == 1 {
            println!("sees one before its execve");
        }
        self.look_at_directories(pid);
        self.look_at_descriptors(pid);
        self.look_at_status(pid);
        self.look_at_texts(pid);
        self.look_at_mounts(pid);
        self.look_at_owner(pid);
        self.look_at_namespaces(pid);
        if runs.is_before() {
            self.look_at_memory(pid);
        }
        if runs.is_before() { Then::Again } else { Then::Enough }
    }

    /// Says it, once for each kind; numbers differ each time.
    fn breach(&mut self, what: &str, pid: i32, detail: &str) {
        let line = format!("({}) {detail}", self.looked_at);
        let kind = format!("{what} {line}").chars().filter(|letter| !letter.is_ascii_digit()).collect();
        if self.told.insert(kind) {
            println!("breach {what} pid {pid} {line}");
        }
    }

    fn look_at_directories(&mut self, pid: i32) {
        for what in ["root", "cwd"] {
            let link = format!("/proc/{pid}/{what}");
            let Ok(found) = identity(&link) else { continue };
            if found != self.root && !self.wanted.roots.contains(&found) {
                let target = fs::read_link(&link).unwrap_or_default();
                self.breach(what, pid, &format!("{} is not the container's", target.display()));
            }
            self.reach(pid, what);
        }
    }

    /// The standard streams, at most one socket, and FIFOs; what a program does not get is close-on-exec.
    fn look_at_descriptors(&mut self, pid: i32) {
        let mut sockets = 0;
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let number = entry.file_name().to_string_lossy().into_owned();
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            let Ok(kind) = fs::metadata(entry.path()).map(|found| found.file_type()) else { continue };
            if kind.is_dir() {
                self.breach("fd", pid, &format!("{number} is the directory {}", target.display()));
                self.reach(pid, &format!("fd/{number}"));
            } else if !["0", "1", "2"].contains(&number.as_str()) {
                sockets += usize::from(kind.is_socket());
                if !(kind.is_fifo() || kind.is_socket() && sockets <= 1) {
                    self.breach("fd", pid, &format!("{number} is {}", target.display()));
                } else if !is_closed_by_execve(pid, &number) {
                    self.breach("fd", pid, &format!("{number} ({}) outlives the execve", target.display()));
                }
            }
        }
    }

    /// The attack itself, on a directory that should not be there.
    fn reach(&mut self, pid: i32, through: &str) {
        let Some(path) = self.wanted.reach else { return };
        let up = if through == "root" { "" } else { "/../../../../../../../../../../../.." };
        if let Ok(text) = fs::read_to_string(format!("/proc/{pid}/{through}{up}{path}")) {
            self.breach("reached", pid, &format!("{path} of the host through {through}: {text:?}"));
        }
    }

    fn look_at_status(&mut self, pid: i32) {
        let found = status(&pid.to_string());
        if found.len() != self.status.len() {
            return; // it has ended
        }
        for (found, own) in found.into_iter().zip(self.status.clone()) {
            if found != own && !self.wanted.also.contains(&found.as_str()) {
                self.breach("status", pid, &format!("{found} instead of {own}"));
            }
        }
    }

    fn look_at_texts(&mut self, pid: i32) {
        let cmdline = text(pid, "cmdline");
        let words: Vec<_> = cmdline.split_whitespace().collect();
        let program = words.first().and_then(|word| word.rsplit('/').next());
        if program.is_some_and(|program| !PROGRAMS.contains(&program)) && words != ["corten", "init"] {
            self.breach("cmdline", pid, cmdline.trim());
        }
        for file in ["cmdline", "environ", "net/unix", "mountinfo"] {
            let content = text(pid, file);
            for word in self.wanted.words.clone() {
                if let Some(line) = content.lines().find(|line| line.contains(word)) {
                    let line: String = line.chars().take(160).collect();
                    self.breach(file, pid, &format!("has {word:?} of the host: {line:?}"));
                }
            }
        }
    }

    /// What the program is not given is not left in memory, which whoever may trace the process can read.
    fn look_at_memory(&mut self, pid: i32) {
        let Ok(memory) = File::open(format!("/proc/{pid}/mem")) else { return };
        for line in text(pid, "maps").lines().filter(|line| line.contains(" rw")) {
            let ends = line.split(' ').next().and_then(|range| range.split_once('-'));
            let number = |text: &str| u64::from_str_radix(text, 16).ok();
            let Some((start, end)) = ends.and_then(|(start, end)| Some((number(start)?, number(end)?))) else {
                continue;
            };
            let mut content = vec![0; (end - start) as usize];
            let Ok(length) = memory.read_at(&mut content, start) else { continue };
            for word in self.wanted.variables.clone() {
                if content[..length].windows(word.len()).any(|window| window == word.as_bytes()) {
                    self.breach("memory", pid, &format!("has {word:?} of the host"));
                }
            }
        }
    }

    /// The tables of containers that are made alike are alike.
    fn look_at_mounts(&mut self, pid: i32) {
        let found = mounts(&pid.to_string());
        let ours = |line: &String| self.mounts.contains(line) || self.wanted.also.contains(&line.as_str());
        if let Some(odd) = found.into_iter().find(|line| !ours(line)) {
            self.breach("mounts", pid, &format!("{odd} is not the container's"));
        }
    }

    /// None of the host's, but those that this process is in.
    fn look_at_namespaces(&mut self, pid: i32) {
        for kind in ["mnt", "net", "pid", "user", "ipc", "uts", "cgroup"] {
            let link = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap_or_default();
            let found = link(&pid.to_string());
            let host = self.wanted.namespaces.iter().any(|namespace| found.to_str() == Some(namespace));
            if host && found != link("self") {
                self.breach("ns", pid, &format!("{} is the host's", found.display()));
            }
        }
    }

    /// The files in `/proc` of a process that is not dumpable belong to root, in the user namespace of its program.
    fn look_at_owner(&mut self, pid: i32) {
        let among_all = text(std::process::id() as i32, "uid_map").contains("4294967295");
        if among_all && self.owner == 0 {
            return; // it is root's, either way
        }
        let is_before = || self.programs.run_by(pid).is_before();
        let owner = || fs::metadata(format!("/proc/{pid}/fd")).is_ok_and(|found| found.uid() == self.owner);
        // An execve in between makes it dumpable.
        if is_before() && owner() && is_before() {
            self.breach("dumpable", pid, &format!("its files in /proc belong to {}", self.owner));
        }
    }
}

/// What is run in the containers of tests that watch.
const PROGRAMS: [&str; 4] = ["probe", "usleep", "sleep", "sh"];

/// As whom a process shows itself: its name and the program.
pub fn name(pid: i32) -> String {
    let name = text(pid, "comm");
    let exe = fs::read_link(format!("/proc/{pid}/exe"));
    let exe = exe.map_or_else(|error| error.kind().to_string(), |exe| exe.display().to_string());
    format!("{}, {exe}", name.trim())
}

/// A file of a process, with spaces for NUL; empty if it cannot be read.
fn text(pid: i32, file: &str) -> String {
    let path = format!("/proc/{pid}/{file}");
    let bytes = match file {
        // All at once: the rest may be that of the next program's.
        "cmdline" | "comm" => File::open(path).and_then(|mut file| {
            let mut bytes = vec![0; 65536];
            let length = file.read(&mut bytes)?;
            bytes.truncate(length);
            Ok(bytes)
        }),
        _ => fs::read(path),
    };
    String::from_utf8_lossy(&bytes.unwrap_or_default()).replace('\0', " ")
}

fn is_closed_by_execve(pid: i32, number: &str) -> bool {
    let info = text(pid, &format!("fdinfo/{number}"));
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    // One that is gone by now is closed.
    flags.is_none_or(|flags| flags & libc::O_CLOEXEC as u32 != 0)
}

/// The lines of [`ALIKE`], of a process that lives.
fn status(pid: &str) -> Vec<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let ended = |line: &str| line.starts_with("State:") && (line.contains('Z') || line.contains('X'));
    if status.lines().any(ended) {
        return Vec::new();
    }
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let alike = |line: &&str| ALIKE.iter().any(|name| line.split(':').next() == Some(name));
    status.lines().filter(alike).map(words).collect()
}

/// The mount table: places and kinds, which are the same in containers that are made alike but for device nodes.
fn mounts(pid: &str) -> Vec<String> {
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    let line = |line: &str| {
        let place = line.split(' ').nth(4).unwrap_or_default();
        let kind = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        format!("{place} {kind}")
    };
    table.lines().map(line).filter(|line| !line.starts_with("/dev/")).collect()
}

/// `init`, by the name of `corten`: with the file `/go` it makes processes one after the other that keep the rule, and then
/// run a program of the container.
pub fn keep_the_rule() {
    while !Path::new("/go").exists() {
        sleep(Duration::from_millis(1));
    }
    for _ in 0..50 {
        // SAFETY: there is one thread, so the child may do as the parent.
        match unsafe { fork() }.expect("fork") {
            ForkResult::Child => {
                let _socket = UnixDatagram::unbound().expect("make a socket");
                sleep(Duration::from_micros(500));
                panic!("run usleep: {}", Command::new("/bin/usleep").arg("500").exec());
            }
            ForkResult::Parent { child } => drop(waitpid(child, None)),
        }
    }
}
