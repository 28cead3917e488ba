//! Sockets of the runtime's: with names in the file system alone, since an abstract one can be called by every process of
//! the network namespace, and a container may have the host's (CVE-2020-15257). And who can reach the files of the state.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::attack::alone;
use crate::harness::{Bundle, ConsoleSocket, Terminal, eventually};

/// The names in a table of unix sockets that are no paths.
fn abstract_names(table: &str) -> Vec<&str> {
    table.lines().filter(|line| line.split_whitespace().nth(7).is_some_and(|name| name.starts_with('@'))).collect()
}

fn table() -> String {
    fs::read_to_string("/proc/thread-self/net/unix").expect("the table of unix sockets")
}

/// A container in the host's network namespace (here the test's), as its engine and its service manager have it made.
fn container(bundle: Bundle, record: &str) -> Bundle {
    let bundle = bundle.without_ns("network").unset("/linux/sysctl");
    let look = format!("cat /proc/self/net/unix >>{record}; true");
    ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
        .into_iter()
        .fold(bundle, |bundle, kind| bundle.hook(kind, &look))
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn cve_2020_15257_no_socket_of_the_runtime_can_be_called_by_a_container_of_the_hosts_network() {
    let _alone = alone();
    let first = Bundle::new();
    assert_eq!(abstract_names(&table()), Vec::<&str>::new(), "before anything is done");
    let record = first.host_file("record", "");
    let record = record.to_str().expect("a plain path");
    // A service manager that wants to hear of readiness.
    let manager = first.host("manager/sock");
    let service = UnixDatagram::bind(&manager).expect("listen as a service manager");
    service.set_read_timeout(Some(Duration::from_millis(50))).expect("set a time-out");
    let (over, seen) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|threads| {
        // Also when this half fails, or the other one would never end.
        let _end = End(&over);
        // In the test's namespaces, as whoever starts it: a look at any time, beside those at fixed ones.
        let watcher = threads.spawn(|| {
            let mut found = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let now = table();
                seen.fetch_or(now.contains("/sock"), Ordering::Relaxed);
                found.extend(abstract_names(&now).into_iter().map(str::to_owned));
            }
            found
        });
        // It reads what it is told, or `start` waits for it.
        threads.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let _ = service.recv(&mut [0; 512]);
            }
        });
        for turn in 0..10 {
            let bundle = container(Bundle::new(), record);
            let console = ConsoleSocket::at(first.host(&format!("console-{turn}/sock")));
            let bundle = bundle.set("/process/terminal", turn % 2 == 0).sh("probe notify READY=1; sleep 100");
            let options = if turn % 2 == 0 { &["--console-socket", console.path()][..] } else { &[] };
            bundle.create_cmd(options).env("NOTIFY_SOCKET", &manager).run().ok();
            let terminal = (turn % 2 == 0).then(|| Terminal::of(console.receive().fds.remove(0)));
            bundle.cmd(["start", bundle.name()]).env("NOTIFY_SOCKET", &manager).run().ok();
            // What is seen from inside, while another program enters.
            let inside = bundle.exec(&["cat", "/proc/self/net/unix"]);
            assert_eq!(abstract_names(&inside.ok().stdout()), Vec::<&str>::new());
            let second = ConsoleSocket::at(first.host(&format!("second-{turn}/sock")));
            let exec = bundle.exec_cmd(&["--tty", "--console-socket", second.path(), "--detach"], &["true"]);
            exec.run().ok();
            drop((second.receive(), terminal));
            bundle.delete_force().ok();
            let mut own = Terminal::new();
            let quick = container(Bundle::new(), record).set("/process/terminal", true).sh("probe notify READY=1");
            quick.run_cmd().env("NOTIFY_SOCKET", &manager).on_terminal(own.replica()).run().ok();
        }
        over.store(true, Ordering::Relaxed);
        let found = watcher.join().expect("the watcher");
        assert_eq!(found, Vec::<String>::new());
    });
    assert!(seen.load(Ordering::Relaxed), "the watcher has never seen a socket");
    let at_hooks = fs::read_to_string(record).expect("what the hooks have seen");
    assert!(at_hooks.matches("Inode Path").count() >= 50, "the hooks have not looked");
    assert_eq!(abstract_names(&at_hooks), Vec::<&str>::new());
}

#[test]
fn cve_2020_15257_the_agent_of_a_filter_is_called_by_a_path() {
    let bundle = Bundle::new().args(["true"]);
    // An abstract name is none that a configuration may give.
    let filter = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "@agent",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
    bundle.set("/linux/seccomp", filter).run().fails();
    eventually("nothing is left of it", || abstract_names(&table()).is_empty());
}

#[test]
fn cve_2024_25621_nobody_else_can_list_or_write_the_state() {
    let bundle = Bundle::new().args(["sleep", "100"]);
    // Whatever the caller's umask.
    bundle.create_cmd(&[]).after("umask 0").run().ok();
    bundle.exec_cmd(&["--detach"], &["sleep", "100"]).after("umask 0").run();
    bundle.cmd(["start", bundle.name()]).after("umask 0").run().ok();
    let (mut open, mut seen) = (vec![bundle.sandbox().root().join(bundle.name())], 0);
    while let Some(path) = open.pop() {
        let stat = fs::symlink_metadata(&path).expect("what the state is made of");
        let (mode, owner) = (stat.permissions().mode() & 0o7777, stat.uid());
        assert_eq!((mode & 0o066, owner), (0, 0), "{} has the mode {mode:o}", path.display());
        seen += 1;
        if stat.is_dir() {
            open.extend(fs::read_dir(&path).expect("a directory").flatten().map(|entry| entry.path()));
        }
    }
    assert!(seen > 1, "there is no state");
    bundle.delete_force().ok();
}
