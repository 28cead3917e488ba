//! What tests see of a container from inside. One line of output per fact; errors are names (`EROFS`).
#![allow(clippy::disallowed_methods, reason = "the lessons are about the runtime")]

mod attack;
mod chase;
mod confined;
mod drive;
mod tap;
mod watcher;

use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::{AccessFlags, access};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["open", rest @ ..] => opens(rest),
        ["access", rest @ ..] => accesses(rest),
        ["mknod", path, kind, major, minor] => make_node(path, kind, number(major), number(minor)),
        ["fds"] => fds(),
        ["xattr", path, name] => attribute(path, name),
        ["ns"] => namespaces(),
        ["signals", rest @ ..] => signals(rest),
        ["syscall", rest @ ..] => syscalls(rest),
        #[cfg(target_arch = "x86_64")]
        ["syscall32", rest @ ..] => syscalls_32(rest),
        ["tty"] => terminal(),
        ["limits"] => print!("{}", std::fs::read_to_string("/proc/self/limits").unwrap_or_default()),
        ["notify", lines @ ..] => notify(lines),
        ["args", rest @ ..] => rest.iter().for_each(|arg| println!("{arg}")),
        ["swap", pairs @ ..] => attack::swap(pairs),
        ["hunt", name] => attack::hunt(name),
        ["watch", catch, seconds, wanted @ ..] => watcher::watch(catch, number(seconds), wanted),
        ["as", program, name, rest @ ..] => run_as(program, name, rest),
        ["init"] => watcher::keep_the_rule(),
        ["drive", catch, seconds, canary, dir] => drive::drive(catch, number(seconds), canary, dir),
        ["drive-one", pid, canary, dir] => drive::drive_one(number(pid) as i32, canary, dir),
        ["hold", catch, seconds] => drive::hold(catch, number(seconds)),
        ["tap", way, seconds] => tap::tap(way, number(seconds)),
        ["overwrite", seconds, mark] => attack::overwrite(number(seconds), mark),
        ["groups", groups, command @ ..] => with_groups(groups, command),
        ["tcp", rest @ ..] => confined::tcp(rest),
        ["abstract", "serve", name] => confined::serve(name),
        ["abstract", "call", name] => confined::call(name),
        ["refuse", number, errno, command @ ..] => confined::refuse(number, errno, command),
        ["refuse-when", rest @ ..] => confined::refuse_when(rest),
        ["landlock", level, command @ ..] => confined::landlock(level, command),
        ["exit", code] => std::process::exit(number(code) as i32),
        ["sleep", seconds] => std::thread::sleep(Duration::from_secs(number(seconds))),
        other => {
            eprintln!("probe: no such question: {other:?}");
            std::process::exit(64);
        }
    }
}

fn number(word: &str) -> u64 {
    let parsed = match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => word.parse::<i64>().map(|n| n as u64).or_else(|_| word.parse()),
    };
    parsed.unwrap_or_else(|_| panic!("probe: not a number: {word}"))
}

fn verdict<T>(result: Result<T, Errno>) -> String {
    match result {
        Ok(_) => "ok".into(),
        Err(errno) => format!("{errno:?}"),
    }
}

/// `open PATH…`: for each, whether it can be opened to read, and to write: `/dev/null ok ok`.
fn opens(paths: &[&str]) {
    for path in paths {
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let read = verdict(open(*path, OFlag::O_RDONLY | flags, Mode::empty()));
        let write = verdict(open(*path, OFlag::O_WRONLY | flags, Mode::empty()));
        println!("{path} {read} {write}");
    }
}

/// `access PATH…`: for each, whether it may be read, written, and both, without being opened: `/dev/sda ok EPERM EPERM`.
fn accesses(paths: &[&str]) {
    for path in paths {
        let modes = [AccessFlags::R_OK, AccessFlags::W_OK, AccessFlags::R_OK | AccessFlags::W_OK];
        let [read, write, both] = modes.map(|mode| verdict(access(*path, mode)));
        println!("{path} {read} {write} {both}");
    }
}

/// `mknod PATH c|b MAJOR MINOR`: the verdict.
fn make_node(path: &str, kind: &str, major: u64, minor: u64) {
    let kind = if kind == "b" { SFlag::S_IFBLK } else { SFlag::S_IFCHR };
    let device = nix::sys::stat::makedev(major, minor);
    println!("{}", verdict(mknod(path, kind, Mode::from_bits_truncate(0o666), device)));
}

/// `xattr PATH NAME`: the bytes of an extended attribute in hexadecimal, or why there are none.
fn attribute(path: &str, name: &str) {
    let (path, name) = (CString::new(path).expect("no NUL"), CString::new(name).expect("no NUL"));
    let mut bytes = [0u8; 4096];
    // SAFETY: both strings end in NUL, and the buffer is as long as the kernel is told.
    let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), bytes.as_mut_ptr().cast(), bytes.len()) };
    match Errno::result(length) {
        Ok(length) => {
            println!("{}", bytes[..length as usize].iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        }
        Err(errno) => println!("{errno:?}"),
    }
}

/// `fds`: every open descriptor and what it is: `0 /dev/null`.
fn fds() {
    let Ok(dir) = std::fs::read_dir("/proc/self/fd") else { return println!("no /proc") };
    let mut found: Vec<(i32, String)> = dir
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, std::fs::read_link(entry.path()).ok()?)))
        .map(|(fd, target)| (fd, target.display().to_string()))
        // The directory that is being read.
        .filter(|(_, target)| !target.ends_with("/fd"))
        .collect();
    found.sort();
    found.iter().for_each(|(fd, target)| println!("{fd} {target}"));
}

/// `notify LINE…`: says them in one datagram to the service manager; the verdict.
fn notify(lines: &[&str]) {
    let path = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
    let sent = std::os::unix::net::UnixDatagram::unbound()
        .and_then(|socket| socket.send_to(lines.join("\n").as_bytes(), path));
    println!("{}", sent.map_or_else(|error| error.to_string(), |_| "ok".into()));
}

/// `ns`: `pid pid:[4026531836]`, one line for each kind.
fn namespaces() {
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        let link = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap_or_default();
        println!("{kind} {}", link.display());
    }
}

/// `signals NAME…`: blocks them, says `ready`, then the name of each that comes; ends after TERM with code 0.
fn signals(names: &[&str]) {
    let mut set = SigSet::empty();
    names.iter().for_each(|name| set.add(name.parse::<Signal>().expect("a signal's name")));
    set.thread_block().expect("block signals");
    println!("ready");
    loop {
        let signal = set.wait().expect("wait for a signal");
        println!("{}", signal.as_str());
        let _ = std::io::stdout().flush();
        if signal == Signal::SIGTERM {
            return;
        }
    }
}

/// `syscall NR[,ARG…]…`: makes each call and prints `NR ok` or `NR ENOSYS`. An argument `s:TEXT` is a pointer to text.
fn syscalls(calls: &[&str]) {
    for call in calls {
        let mut texts = Vec::new();
        let mut words = call.split(',');
        let nr = number(words.next().expect("a number"));
        let mut args = [0u64; 6];
        for (slot, word) in args.iter_mut().zip(words) {
            *slot = match word.strip_prefix("s:") {
                Some(text) => {
                    texts.push(CString::new(text).expect("no NUL"));
                    texts.last().map(|text| text.as_ptr() as u64).unwrap_or_default()
                }
                None => number(word),
            };
        }
        let [a, b, c, d, e, f] = args;
        // SAFETY: the tests ask only for calls that fail or whose pointers are null or the texts above, which live on.
        let result = unsafe { libc::syscall(nr as libc::c_long, a, b, c, d, e, f) };
        println!("{nr} {}", verdict(Errno::result(result)));
        let _ = std::io::stdout().flush();
    }
}

/// `syscall32 NR[,ARG…]…`: the same by the gate of 32-bit programs (`int 0x80`), with x86's numbers.
#[cfg(target_arch = "x86_64")]
fn syscalls_32(calls: &[&str]) {
    for call in calls {
        let mut words = call.split(',').map(number);
        let nr = words.next().expect("a number");
        let (a, b) = (words.next().unwrap_or(0), words.next().unwrap_or(0));
        let result: i32;
        // SAFETY: the tests ask only for calls without pointers. The gate gives the other registers back as they were, but
        // for r8 to r11; rbx belongs to the compiler and is put back.
        unsafe {
            std::arch::asm!("xchg rbx, {a}", "int 0x80", "xchg rbx, {a}", a = inout(reg) a => _, in("rcx") b,
                inout("eax") nr as i32 => result, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
        }
        let result = if result < 0 { Err(Errno::from_raw(-result)) } else { Ok(()) };
        println!("{nr} {}", verdict(result));
        let _ = std::io::stdout().flush();
    }
}

/// `tty`: for each of the three streams its terminal, then `size ROWS COLUMNS` and the owner.
fn terminal() {
    let streams = [std::io::stdin().as_fd().as_raw_fd(), 1, 2];
    for fd in streams {
        let name = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
        println!("{fd} {}", name.display());
    }
    let flags = nix::sys::termios::tcgetattr(std::io::stdin());
    println!("onlcr {:?}", flags.map(|t| t.output_flags.contains(nix::sys::termios::OutputFlags::ONLCR)));
}

/// `groups GID,… COMMAND…`: becomes the command, with these supplementary groups.
fn with_groups(groups: &str, command: &[&str]) {
    use std::os::unix::process::CommandExt;
    let groups: Vec<_> = groups.split(',').map(|group| nix::unistd::Gid::from_raw(number(group) as u32)).collect();
    nix::unistd::setgroups(&groups).expect("set groups");
    let error = std::process::Command::new(command[0]).args(&command[1..]).exec();
    panic!("probe: {}: {error}", command[0]);
}

/// `as PROGRAM NAME ARG…`: becomes the program, under another name.
fn run_as(program: &str, name: &str, args: &[&str]) {
    use std::os::unix::process::CommandExt;
    panic!("probe: {program}: {}", std::process::Command::new(program).arg0(name).args(args).exec());
}
