//! What the runtime keeps on the host about a container, and who gets at it.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::harness::{Bundle, Cmd, HOST_ID, eventually, peers_lack_it};

/// A user whom no machine has.
const USER: u32 = 7777;

/// Kind, mode and name of all that is in a directory and below, and of itself, in order.
fn listing(top: &Path) -> String {
    let mut open = vec![top.to_owned()];
    let mut lines = Vec::new();
    while let Some(path) = open.pop() {
        let meta = fs::symlink_metadata(&path).expect("look at a file of the state root");
        let kind = match meta.file_type() {
            kind if kind.is_dir() => 'd',
            kind if kind.is_fifo() => 'p',
            kind if kind.is_socket() => 's',
            _ => '-',
        };
        let name = path.strip_prefix(top).expect("it is below");
        lines.push(format!("{kind}{:04o} /{}", meta.mode() & 0o7777, name.display()));
        if meta.is_dir() {
            open.extend(fs::read_dir(&path).expect("list it").flatten().map(|entry| entry.path()));
        }
    }
    lines.sort_by(|a, b| a[6..].cmp(&b[6..]));
    lines.iter().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{line}");
        text
    })
}

/// A service manager's end, which reads (and drops the descriptor of a barrier) whenever it is asked what it has heard.
fn manager(container: &Bundle) -> (UnixDatagram, std::path::PathBuf) {
    let path = container.host("manager");
    let socket = UnixDatagram::bind(&path).expect("listen");
    socket.set_nonblocking(true).expect("make it non-blocking");
    (socket, path)
}

fn heard(manager: &UnixDatagram) -> String {
    let mut bytes = [0; 4096];
    let mut text = String::new();
    while let Ok(length) = manager.recv(&mut bytes) {
        let _ = writeln!(text, "{}", String::from_utf8_lossy(&bytes[..length]));
    }
    text
}

/// A word of readiness from outside, of any user.
fn call_as(user: u32, container: &Bundle, socket: &Path) -> Cmd {
    let (uid, gid) = (format!("--reuid={user}"), format!("--regid={user}"));
    Cmd::bare(container.sandbox(), ["notify", "READY=1"])
        .program(container.sandbox().dir().join("bin/probe"))
        .started_by(["/usr/bin/setpriv", &uid, &gid, "--clear-groups"])
        .env("NOTIFY_SOCKET", socket)
}

#[test]
fn only_the_container_says_that_it_is_ready() {
    if peers_lack_it() {
        return;
    }
    for in_user_namespace in [false, true] {
        let script = "until [ -e /go ]; do usleep 10000; done; probe notify READY=1; exec sleep 60";
        let container = Bundle::new().sh(script);
        let container = if in_user_namespace { container.userns() } else { container };
        // Neither root of the container's user namespace nor of the host's.
        let container = container.set("/process/user", json!({"uid": 5, "gid": 5}));
        let (manager, path) = manager(&container);
        container.create_cmd(&[]).env("NOTIFY_SOCKET", &path).run().ok();
        let start = container.cmd(["start", container.name()]).env("NOTIFY_SOCKET", &path).spawn();
        let socket = container.sandbox().root().join(container.name()).join("notify/notify.sock");
        eventually("the socket is there", || socket.exists());
        for user in [USER, HOST_ID, HOST_ID + 5, 5] {
            call_as(user, &container, &socket).run().prints("Permission denied (os error 13)");
        }
        std::thread::sleep(Duration::from_millis(100));
        assert!(start.is_running(), "start has taken a stranger's word");
        assert_eq!(heard(&manager), "");
        fs::write(container.rootfs().join("go"), "").expect("let the container be ready");
        let mut told = String::new();
        eventually("start returns", || {
            told += &heard(&manager);
            !start.is_running()
        });
        start.wait().ok();
        assert_eq!(told, format!("READY=1\nMAINPID={}\nBARRIER=1\n", container.pid()));
        container.delete_force().ok();
        fs::remove_file(&path).expect("remove the manager's socket");
    }
}

#[test]
fn nothing_of_the_state_root_is_for_others() {
    if peers_lack_it() {
        return;
    }
    let container = Bundle::new().sh("probe notify READY=1; exec sleep 60").id("web");
    let container = container.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW"}));
    let (manager, path) = manager(&container);
    let root = container.host("state/root");
    let command = |cmd: Cmd| {
        // The modes are the runtime's, and not the caller's.
        cmd.global(["--root".as_ref(), root.as_os_str()]).env("NOTIFY_SOCKET", &path).after("umask 0")
    };
    command(container.create_cmd(&[])).run().ok();
    let made = "d0700 /\nd0700 /web\np0600 /web/answer\np0600 /web/gate\nd0755 /web/notify\n-0600 /web/record.json\n\
                -0600 /web/seccomp.bpf\n";
    assert_eq!(listing(&root), made);
    let start = command(container.cmd(["start", "web"])).spawn();
    eventually("start returns", || {
        heard(&manager);
        !start.is_running()
    });
    start.wait().ok();
    let started = "d0700 /\nd0700 /web\np0600 /web/answer\nd0755 /web/notify\n\
                   s0777 /web/notify/notify.sock\n-0600 /web/record.json\n-0600 /web/seccomp.bpf\n";
    assert_eq!(listing(&root), started);
    // What rewrites the record.
    let rules = r#"{"devices": [{"allow": true, "access": "rwm"}]}"#;
    command(container.cmd(["update", "--resources", "-", "web"]).stdin(rules)).run().ok();
    assert_eq!(listing(&root), started);
    command(container.cmd(["delete", "--force", "web"])).run().ok();
    assert_eq!(listing(&root), "d0700 /\n");
}
