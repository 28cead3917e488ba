//! Descriptors that a caller forgot to close, and what is seen of them in a container.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::calls::Call;
use crate::harness::{Cmd, Kind, kind};

/// See the module's head.
pub struct Leaks {
    theirs: Vec<(i32, OwnedFd)>,
    /// The other ends.
    _ours: Vec<OwnedFd>,
    /// As `/proc/PID/fd` shows them.
    links: Vec<PathBuf>,
}

impl Leaks {
    pub fn none() -> Leaks {
        Leaks { theirs: Vec::new(), _ours: Vec::new(), links: Vec::new() }
    }

    /// What a call's caller had open, of the same kinds and under the same numbers.
    pub fn of(call: &Call) -> Leaks {
        let mut leaks = Leaks::none();
        for (number, target) in call.leaked() {
            let theirs: OwnedFd = if target.starts_with("pipe:") {
                let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("make a pipe to leak");
                leaks._ours.push(writer);
                reader
            } else if target.starts_with("socket:") {
                let (ours, theirs) = UnixStream::pair().expect("make a socket to leak");
                leaks._ours.push(ours.into());
                theirs.into()
            } else if target.starts_with("net:") {
                File::open("/proc/thread-self/ns/net").expect("open a namespace to leak").into()
            } else {
                File::open("/proc/self/status").expect("open a file to leak").into()
            };
            let link = fs::read_link(format!("/proc/self/fd/{}", theirs.as_raw_fd())).expect("see what is leaked");
            leaks.links.push(link);
            leaks.theirs.push((number, theirs));
        }
        leaks
    }

    /// The command with them.
    pub fn opened_in(&self, cmd: Cmd) -> Cmd {
        let copy = |fd: &OwnedFd| fd.try_clone().expect("duplicate a descriptor");
        self.theirs.iter().fold(cmd, |cmd, (number, fd)| cmd.leak(*number, copy(fd)))
    }

    fn are(&self, link: &Path) -> bool {
        self.links.iter().any(|leaked| leaked == link)
    }
}

fn open_in(pid: i32) -> io::Result<Vec<(usize, PathBuf)>> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))?;
    let number = |path: &Path| path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
    let links = entries.flatten().map(|entry| entry.path());
    Ok(links.filter_map(|path| Some((number(&path)?, fs::read_link(&path).ok()?))).collect())
}

/// A container that waits for `start` holds nothing that its caller leaked into the runtime, but what is meant for it.
pub fn no_leak(pid: i32, preserved: usize, leaks: &Leaks) {
    if kind() != Kind::Corten {
        // Peers close them when the program begins.
        return;
    }
    let open = open_in(pid).expect("the container's process lives");
    let leaked: Vec<_> = open.iter().filter(|(number, link)| *number > 2 + preserved && leaks.are(link)).collect();
    assert!(leaked.is_empty(), "the container's process holds what the caller leaked: {leaked:?}");
    let meant = open.iter().filter(|(number, link)| (3..3 + preserved).contains(number) && leaks.are(link));
    assert_eq!(meant.count(), preserved, "what was meant for the program has not come: {open:?}");
}

/// A program has its three streams and what was meant for it. One that has ended already is not looked at.
pub fn only_streams(pid: i32, preserved: usize, leaks: &Leaks, strictly: bool) {
    let mut wrong = Vec::new();
    // A script is open in its interpreter until that has become the program that sleeps.
    for _ in 0..100 {
        let Ok(open) = open_in(pid) else { return };
        wrong = open;
        // A shell opens its terminal once more.
        let more = |number: usize, link: &Path| strictly && number > 2 + preserved && link != Path::new("/dev/tty");
        wrong.retain(|(number, link)| more(*number, link) || (*number > 2 + preserved && leaks.are(link)));
        if wrong.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the program has more open than it should: {wrong:?}");
}
