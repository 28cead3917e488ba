//! What a service manager and a container say to each other: readiness (sd_notify) and activated sockets.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::harness::{Bundle, Cmd, ConsoleSocket, eventually, known_difference};

/// What the container does as a service: it is ready after a while, with more to say than is its business.
const SERVICE: &str = "probe notify STATUS=x MAINPID=99; usleep 300000; probe notify STATUS=y READY=1 MAINPID=99; \
    echo told; exec sleep 60";

/// A service manager's end.
struct Manager(UnixDatagram);

impl Manager {
    fn at(path: &Path) -> Manager {
        let dir = std::fs::File::open(path.parent().expect("a parent")).expect("open the socket's directory");
        let short = format!("/proc/self/fd/{}/{}", dir.as_raw_fd(), path.file_name().expect("a name").display());
        Manager(UnixDatagram::bind(short).expect("listen"))
    }

    fn named(name: &str) -> Manager {
        let address = SocketAddr::from_abstract_name(name).expect("an abstract name");
        Manager(UnixDatagram::bind_addr(&address).expect("listen"))
    }

    /// All that has come up to a barrier, or up to now; the barrier is let go.
    fn heard(&self) -> Vec<String> {
        self.0.set_nonblocking(true).expect("make it non-blocking");
        let mut heard = Vec::new();
        let mut bytes = [0; 4096];
        loop {
            let mut space = nix::cmsg_space!([i32; 4]);
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let Ok(message) = recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut space), flags) else {
                return heard;
            };
            for part in message.cmsgs().expect("control messages") {
                if let ControlMessageOwned::ScmRights(fds) = part {
                    // SAFETY: the kernel has just made these descriptors for this message, and nobody else knows them.
                    fds.into_iter().for_each(|fd| drop(unsafe { OwnedFd::from_raw_fd(fd) }));
                }
            }
            let length = message.bytes;
            heard.extend(String::from_utf8_lossy(&bytes[..length]).lines().map(str::to_owned));
        }
    }

    /// Listens until the command has ended, as a manager does.
    #[track_caller]
    fn hears_of(&self, command: Cmd) -> Vec<String> {
        let running = command.spawn();
        let mut heard = Vec::new();
        eventually("the command has ended", || {
            heard.extend(self.heard());
            !running.is_running()
        });
        heard.extend(self.heard());
        heard
    }
}

fn service() -> Bundle {
    if known_difference("runc", "listens to one message, which has to begin with readiness") {
        return Bundle::new().sh(&SERVICE
            .replace("probe notify STATUS=x MAINPID=99;", "")
            .replace("STATUS=y READY=1", "READY=1 STATUS=y"));
    }
    Bundle::new().sh(SERVICE)
}

/// The variable is set, and of what the container says nothing but its readiness came, with the right pid.
#[track_caller]
fn right(heard: &[String], main: i32) {
    let main = format!("MAINPID={main}");
    assert!(heard.iter().any(|line| line == "READY=1"), "{heard:?}");
    if !known_difference("crun", "tells no pid") {
        assert!(heard.contains(&main), "{heard:?}");
    }
    let known = |line: &str| line == "READY=1" || line == "BARRIER=1" || line == main;
    if !known_difference("crun", "passes on all that comes with readiness") {
        assert!(heard.iter().all(|line| known(line)), "{heard:?}");
    }
}

#[test]
fn b100_start_returns_when_the_container_is_ready() {
    let container = service();
    let path = container.host_dir("manager").join("any-name");
    let manager = Manager::at(&path);
    let create = container.create_cmd(&[]).env("NOTIFY_SOCKET", &path);
    assert!(manager.hears_of(create).is_empty(), "create waits for nothing");
    let start = container.cmd(["start", container.name()]).env("NOTIFY_SOCKET", &path);
    right(&manager.hears_of(start), container.pid());
    assert_eq!(container.status(), "running");
}

#[test]
fn b100_a_detached_run_returns_when_the_container_is_ready() {
    let container = service();
    let path = container.host_dir("manager").join("any-name");
    let manager = Manager::at(&path);
    let heard = manager.hears_of(container.run_detached_cmd().env("NOTIFY_SOCKET", &path));
    right(&heard, container.pid());
    if !known_difference("crun", "has no barrier in a detached run") {
        assert_eq!(heard.last().map(String::as_str), Some("BARRIER=1"));
    }
}

#[test]
fn b100_a_run_in_the_foreground_is_the_service_itself() {
    let container = Bundle::new().sh("probe notify STATUS=x; probe notify READY=1; sleep 0.3; exit 7");
    let path = container.host_dir("manager").join("any-name");
    let manager = Manager::at(&path);
    let running = container.run_cmd().env("NOTIFY_SOCKET", &path).spawn();
    let mut heard = Vec::new();
    let pid = running.pid();
    eventually("the container is ready", || {
        heard.extend(manager.heard());
        heard.iter().any(|line| line.starts_with("MAINPID=")) || !running.is_running()
    });
    eventually("it ends", || {
        heard.extend(manager.heard());
        !running.is_running()
    });
    running.wait().code(7);
    if !known_difference("crun", "tells no pid, or that of init") {
        right(&heard, pid);
    }
}

#[test]
fn b100_the_manager_may_have_an_abstract_name() {
    let container = service();
    let name = format!("corten-test-{}", container.sandbox().cgroup_name().replace('/', "-"));
    let manager = Manager::named(&name);
    if known_difference("runc", "takes an abstract name for a path") || known_difference("crun", "mounts it as a path")
    {
        return;
    }
    let heard = manager.hears_of(container.run_detached_cmd().env("NOTIFY_SOCKET", format!("@{name}")));
    right(&heard, container.pid());
}

#[test]
fn b64_names_may_be_longer_than_a_sockets_address() {
    if known_difference("runc", "needs short names") || known_difference("crun", "needs short names") {
        return;
    }
    let container = service();
    let long = "n".repeat(90);
    let path = container.host_dir(&format!("{long}/{long}")).join("manager");
    let manager = Manager::at(&path);
    let root = container.host_dir(&format!("root-{long}-{long}"));
    let globals = ["--root".into(), root.into_os_string()];
    let run = container.run_detached_cmd().global(&globals).env("NOTIFY_SOCKET", &path);
    right(&manager.hears_of(run), container.pid());
    container.cmd(["delete", "--force", container.name()]).global(&globals).run().ok();
}

#[test]
fn a_container_that_ends_before_it_is_ready_is_not_waited_for() {
    if known_difference("runc", "waits until the dead are reaped") {
        return;
    }
    let container = Bundle::new().sh("sleep 0.1; exit 3");
    let path = container.host_dir("manager").join("any-name");
    let manager = Manager::at(&path);
    let heard =
        manager.hears_of(container.run_detached_cmd().env("NOTIFY_SOCKET", &path).limit(Duration::from_secs(5)));
    assert!(!heard.iter().any(|line| line == "READY=1"), "{heard:?}");
    container.until("stopped").delete().ok();
}

#[test]
fn a_user_of_the_container_reaches_the_socket_and_cannot_replace_it() {
    let script = "probe notify READY=1; rm $NOTIFY_SOCKET 2>&1; exec sleep 60";
    let container = Bundle::new().userns().sh(script).set("/process/user", serde_json::json!({"uid": 7, "gid": 7}));
    let path = container.host_dir("manager").join("any-name");
    let manager = Manager::at(&path);
    if known_difference("crun", "binds the socket for root alone") {
        return;
    }
    right(&manager.hears_of(container.run_detached_cmd().env("NOTIFY_SOCKET", &path)), container.pid());
}

#[test]
fn without_a_manager_the_container_has_no_socket_and_an_absent_one_is_no_failure() {
    if known_difference("crun", "takes an empty name for a path, and needs the manager to be there") {
        return;
    }
    let container = Bundle::new().sh("echo \"<$NOTIFY_SOCKET>\"; ls /run/notify 2>&1");
    container.run_cmd().env("NOTIFY_SOCKET", "").run().shows("<>").shows("No such file");
    let container = service();
    container.run_detached_cmd().env("NOTIFY_SOCKET", "/nowhere/socket").run().ok();
    assert_eq!(container.status(), "running");
}

// Socket activation, sd_listen_fds(3).

/// Descriptors 3 and up of a command, with what says how many are meant; the shell that becomes the runtime has its pid.
fn activated(command: Cmd, listen: usize, all: i32) -> Cmd {
    let files = (3..3 + all).map(|number| {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        std::io::Write::write_all(&mut &writer, format!("fd{number}").as_bytes()).expect("fill the pipe");
        (number, OwnedFd::from(reader))
    });
    let command = files.fold(command, |command, (number, fd)| command.leak(number, fd));
    command.after(&format!("export LISTEN_FDS={listen} LISTEN_PID=$$"))
}

const SHOW: &str =
    "echo $LISTEN_FDS $LISTEN_PID $$; for fd in 3 4 5 6; do [ -e /proc/self/fd/$fd ] && cat <&$fd; done; true";

#[test]
fn activated_sockets_come_first_and_preserved_descriptors_after_them() {
    if known_difference("crun", "does not say how many there are") {
        return;
    }
    let container = Bundle::new().sh(SHOW);
    activated(container.run_cmd(), 2, 4).run().ok().prints("2 1 1\nfd3fd4");
    let container = Bundle::new().sh(SHOW);
    let path = container.path().to_str().expect("a plain path");
    container.run_cmd();
    let run = container.cmd(["run", "--preserve-fds", "1", "--bundle", path, container.name()]);
    activated(run, 2, 4).run().ok().prints("2 1 1\nfd3fd4fd5");
}

#[test]
fn activated_sockets_come_with_the_pid_that_init_has_in_a_pid_namespace_of_others() {
    if known_difference("runc", "says pid 1") || known_difference("crun", "says pid 1") {
        return;
    }
    let pod = Bundle::new().args(["sleep", "60"]);
    pod.run_detached().ok();
    let show = SHOW.replace("$LISTEN_PID $$", "$(($LISTEN_PID - $$))");
    let joins = Bundle::new().join("pid", format!("/proc/{}/ns/pid", pod.pid()));
    for container in [joins, Bundle::new().without_ns("pid")] {
        let container = container.sh(&show);
        activated(container.run_cmd(), 1, 2).run().ok().prints("1 0\nfd3");
    }
}

#[test]
fn the_names_of_activated_sockets_are_for_the_configuration_to_give() {
    if known_difference("crun", "does not say how many there are") {
        return;
    }
    let script = "echo $LISTEN_FDS $LISTEN_PID ${LISTEN_FDNAMES-none}";
    let env = serde_json::json!(["PATH=/bin", "LISTEN_FDNAMES=web:metrics"]);
    for (bundle, seen) in [(Bundle::new(), "2 1 none"), (Bundle::new().set("/process/env", env), "2 1 web:metrics")] {
        let container = bundle.sh(script);
        activated(container.run_cmd().env("LISTEN_FDNAMES", "a:b"), 2, 2).run().ok().prints(seen);
    }
}

#[test]
fn sockets_meant_for_another_process_are_not_passed_on() {
    if known_difference("crun", "does not look at LISTEN_PID") {
        return;
    }
    let container = Bundle::new().sh(SHOW);
    activated(container.run_cmd(), 2, 2).after("export LISTEN_PID=1").run().ok().prints("1").hides("fd3");
}

#[test]
fn exec_passes_activated_sockets_on_with_the_pid_that_the_program_has() {
    if known_difference("runc", "only in create and run") || known_difference("crun", "says pid 1 to every program") {
        return;
    }
    let container = Bundle::new().args(["sleep", "60"]);
    container.run_detached().ok();
    let exec = container
        .exec_cmd(&["--preserve-fds", "1"], &["sh", "-c", &SHOW.replace("$LISTEN_PID $$", "$(($LISTEN_PID - $$))")]);
    activated(exec, 1, 3).run().ok().prints("1 0\nfd3fd4");
    // What an engine has left in its environment.
    activated(container.exec_cmd(&[], &["sh", "-c", SHOW]), 1, 0).run().ok().hides("fd");
}

// Handles of processes, --pidfd-socket.

/// What came, and the pid of the process that it is the handle of.
#[track_caller]
fn handle(socket: &ConsoleSocket) -> (String, i32) {
    let message = socket.receive();
    let [fd] = &message.fds[..] else { panic!("not one descriptor but {}", message.fds.len()) };
    let path = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
    let info = std::fs::read_to_string(path).expect("what a descriptor is");
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")).expect("a pidfd");
    (message.name, pid.trim().parse().expect("a pid"))
}

#[test]
fn a_caller_is_given_the_handles_of_processes() {
    if known_difference("crun", "has no such option") {
        return;
    }
    let container = Bundle::new().args(["sleep", "60"]);
    // Longer than a socket's address, but for runc.
    let length = if known_difference("runc", "needs short names") { 5 } else { 120 };
    let socket = ConsoleSocket::at(container.host_dir(&"n".repeat(length)).join("socket"));
    container.create_cmd(&["--pidfd-socket", socket.path()]).run().ok();
    assert_eq!(handle(&socket), ("standard".into(), container.pid()));
    container.start().ok();
    let file = container.path().join("exec.pid");
    let options = ["--detach", "--pidfd-socket", socket.path(), "--pid-file", file.to_str().expect("a plain path")];
    container.exec_cmd(&options, &["sleep", "61"]).run().ok();
    let pid = std::fs::read_to_string(&file).expect("the pid file").parse().expect("a pid");
    assert_eq!(handle(&socket), ("setns".into(), pid));
}

#[test]
fn the_handle_of_a_program_that_ends_at_once_comes_all_the_same() {
    if known_difference("crun", "has no such option") {
        return;
    }
    let container = Bundle::new().args(["true"]);
    container.run_cmd();
    let socket = ConsoleSocket::at(container.host_dir("socket").join("s"));
    let path = container.path().to_str().expect("a plain path");
    container.cmd(["run", "--pidfd-socket", socket.path(), "--bundle", path, container.name()]).run().ok();
    assert_eq!(socket.receive().name, "standard");
}

#[test]
fn without_a_listener_for_the_handle_nothing_is_made() {
    if known_difference("crun", "has no such option") {
        return;
    }
    let container = Bundle::new().args(["sleep", "60"]);
    container.create_cmd(&["--pidfd-socket", "/nowhere/socket"]).run().fails();
    container.state().fails_with("does not exist");
}
