//! Terminals: console sockets, the foreground, sizes and owners.

use std::fs;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{
    Bundle, ConsoleSocket, HOST_ID, Kind, Running, Terminal, eventually, host_command, kind, known_difference,
};

fn with_terminal() -> Bundle {
    Bundle::new().set("/process/terminal", true)
}

/// A process with a terminal for `exec --process`.
fn process(args: &[&str]) -> serde_json::Value {
    json!({"args": args, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}, "terminal": true})
}

// B64: paths of console sockets.

#[test]
fn b64_a_console_socket_may_have_a_long_path() {
    if known_difference("runc", "ends at 107 bytes") {
        return;
    }
    let container = with_terminal().args(["echo", "hello"]);
    let long = container.host(&format!("{}/{}/sock", "d".repeat(100), "e".repeat(80)));
    let socket = ConsoleSocket::at(&long);
    container.create_cmd(&["--console-socket", socket.path()]).run().ok();
    let mut console = socket.receive();
    assert_eq!(console.fds.len(), 1);
    assert!(!console.name.is_empty());
    let terminal = Terminal::of(console.fds.remove(0));
    container.start().ok();
    terminal.until("hello\r\n");
}

#[test]
fn b64_a_console_socket_may_have_a_relative_path() {
    if known_difference("crun", "takes it as relative to the bundle") || known_difference("runc", "the same") {
        return;
    }
    let container = with_terminal().args(["echo", "hello"]);
    let socket = ConsoleSocket::at(container.host("here/sock"));
    let dir = container.host_dir("here");
    container.create_cmd(&["--console-socket", "sock"]).cwd(dir).run().ok();
    let terminal = Terminal::of(socket.receive().fds.remove(0));
    container.start().ok();
    terminal.until("hello\r\n");
}

// B65: the terminal flag against --console-socket and --detach.

#[test]
fn b65_a_detached_terminal_needs_a_console_socket() {
    let container = with_terminal().args(["sleep", "60"]);
    container.create().fails_with("console");
    container.run_detached().fails();
    container.state().fails_with("does not exist");
}

#[test]
fn b65_a_console_socket_needs_a_detached_terminal() {
    if known_difference("crun", "ignores a socket it has no use for") {
        return;
    }
    let container = Bundle::new().args(["sleep", "60"]);
    let socket = ConsoleSocket::at(container.host("s/sock"));
    container.create_cmd(&["--console-socket", socket.path()]).run().fails_with("console");
    let bundle = container.path().to_str().expect("a plain path");
    let run = ["run", "--bundle", bundle, "--console-socket", socket.path(), container.name()];
    container.cmd(run).run().fails_with("console");
    container
        .cmd(["run", "-d", "--bundle", bundle, "--console-socket", socket.path(), container.name()])
        .run()
        .fails_with("console");
    assert!(!socket.is_called());
    container.state().fails_with("does not exist");
}

#[test]
fn b65_run_in_the_background_sends_the_terminal() {
    let container = with_terminal().args(["echo", "hello"]);
    container.write();
    let socket = ConsoleSocket::at(container.host("s/sock"));
    let bundle = container.path().to_str().expect("a plain path");
    container.cmd(["run", "-d", "--bundle", bundle, "--console-socket", socket.path(), container.name()]).run().ok();
    Terminal::of(socket.receive().fds.remove(0)).until("hello\r\n");
}

#[test]
fn b65_exec_follows_the_same_rules() {
    let container = Bundle::new().args(["sleep", "60"]);
    container.run_detached().ok();
    let socket = ConsoleSocket::at(container.host("s/sock"));
    let file = container.process_file(&process(&["echo", "hello"]));
    let file = file.to_str().expect("a plain path");
    let exec =
        |options: &[&str]| container.cmd([&["exec", "--process", file], options, &[container.name()]].concat()).run();
    exec(&["--detach"]).fails();
    exec(&["--detach", "--console-socket", socket.path()]).ok();
    let mut console = socket.receive();
    assert_eq!(console.fds.len(), 1);
    Terminal::of(console.fds.remove(0)).until("hello\r\n");
    if known_difference("crun", "ignores a socket it has no use for") {
        return;
    }
    container.exec_cmd(&["--console-socket", socket.path()], &["true"]).run().fails();
}

#[test]
fn the_descriptor_sent_is_the_master_of_the_containers_console() {
    let container =
        with_terminal().sh("tty; [ -c /dev/console ] && stty -a </dev/console | grep -c onlcr; read x; echo got $x");
    let socket = ConsoleSocket::at(container.host("s/sock"));
    container.create_cmd(&["--console-socket", socket.path()]).run().ok();
    let terminal = Terminal::of(socket.receive().fds.remove(0));
    container.start().ok();
    terminal.until("/dev/");
    terminal.types("word\n");
    terminal.until("got word\r\n");
}

/// Where a directory is bound as `/dev`, and nobody has thought of a console.
#[test]
fn a_dev_that_is_bound_gets_a_console() {
    if known_difference("crun", "an error, though it could be made") {
        return;
    }
    // Masks are made of the null device.
    let container = with_terminal().without_mount("/dev").unset("/linux/maskedPaths");
    let dev = container.host_dir("dev");
    let at = container.config()["mounts"]
        .as_array()
        .expect("mounts")
        .iter()
        .position(|mount| mount["destination"] == "/dev/pts");
    let mut mounts = container.config()["mounts"].clone();
    let bind = |options: Value| json!({"destination": "/dev", "type": "bind", "source": dev, "options": options});
    mounts.as_array_mut().expect("mounts").insert(at.expect("a devpts"), bind(json!(["rbind", "rprivate"])));
    let container = container.set("/mounts", mounts);
    let script = "read x </dev/console; echo got $x >/dev/console; grep -c ' /dev/console ' /proc/self/mountinfo";
    let container = container.sh(script);
    let mut terminal = Terminal::new();
    let running = container.run_cmd().on_terminal(terminal.replica()).spawn();
    container.until("running");
    terminal.types("word\n");
    terminal.until("got word\r\n1\r\n");
    running.wait().code(0);
    assert_eq!(fs::metadata(dev.join("console")).expect("the file below").len(), 0);
    for made in ["pts", "shm", "mqueue"] {
        fs::create_dir_all(dev.join(made)).expect("make a directory");
    }
    fs::remove_file(dev.join("console")).expect("remove it");
    let at = at.expect("a devpts");
    let container = container.set(&format!("/mounts/{at}"), bind(json!(["rbind", "ro"])));
    let socket = ConsoleSocket::at(container.host("sock"));
    let refused = container.create_cmd(&["--console-socket", socket.path()]).run();
    refused.fails_with("read-only file system");
    if kind() == Kind::Corten {
        refused.fails_with("/dev/console").fails_with("make an empty file console");
    }
}

// The foreground.

#[test]
fn a_terminal_in_the_foreground_is_relayed_both_ways() {
    let container = with_terminal().sh("read x; echo got $x; exit 5");
    let mut terminal = Terminal::new();
    let running = container.run_cmd().on_terminal(terminal.replica()).spawn();
    container.until("running");
    terminal.types("word\n");
    terminal.until("got word");
    running.wait().code(5);
}

#[test]
fn the_size_is_that_of_the_callers_terminal_and_follows_it() {
    let container = with_terminal().sh("stty size; trap 'echo now $(stty size)' WINCH; while :; do usleep 10000; done");
    let mut terminal = Terminal::new();
    let running = container.run_cmd().on_terminal(terminal.replica()).spawn();
    if known_difference("crun", "the program may run before the size is set") {
        terminal.until("\n");
    } else {
        terminal.until("30 100");
    }
    host_command(&["stty", "-F", &replica_of(&terminal), "rows", "41", "cols", "111"]);
    running.signal(Signal::SIGWINCH);
    terminal.until("now 41 111");
    container.kill("KILL").ok();
    running.wait().code(137);
}

/// A shell with job control on a terminal of its own, which runs this script with the runtime's command line as `$@`.
fn by_a_shell(container: &Bundle, terminal: &mut Terminal, script: &str) -> Running {
    let shell = ["/usr/bin/setsid", "--ctty", "--wait", "/bin/bash", "-c", script, "shell"];
    container.run_cmd().started_by(shell).on_terminal(terminal.replica()).spawn()
}

/// Whether the terminal takes each key by itself.
fn is_raw(terminal: &Terminal) -> bool {
    let settings = nix::sys::termios::tcgetattr(terminal.master().as_fd()).expect("the terminal's settings");
    !settings.local_flags.contains(nix::sys::termios::LocalFlags::ICANON)
}

#[test]
fn a_job_in_the_background_has_the_terminal_when_it_comes_to_the_front() {
    if known_difference("crun", "makes the shell's terminal raw") {
        return;
    }
    let container = with_terminal().sh("echo up; read x; echo got $x; read y; echo and $y; exit 5");
    let mut terminal = Terminal::new();
    // The shell's own reading is not disturbed.
    let script =
        "set -m; \"$@\" & read line; echo shell has $line; stty -a | grep -ow -e -icanon -e icanon; fg; echo code $?";
    let running = by_a_shell(&container, &mut terminal, script);
    terminal.until("up");
    std::thread::sleep(Duration::from_millis(300));
    assert!(!is_raw(&terminal), "the terminal is the shell's");
    terminal.types("line\n");
    terminal.until("shell has line");
    terminal.until("\nicanon");
    eventually("the terminal is raw", || is_raw(&terminal));
    terminal.types("word\r");
    terminal.until("got word");
    terminal.types("more\r");
    terminal.until("and more");
    terminal.until("code 5");
    running.wait().ok();
    assert!(!is_raw(&terminal), "it is as it was");
}

#[test]
fn a_job_that_was_stopped_has_the_terminal_again() {
    if known_difference("crun", "leaves it as the shell had it") || known_difference("runc", "the same") {
        return;
    }
    let container = with_terminal().sh("echo up; read x; echo got $x; exit 5");
    let mut terminal = Terminal::new();
    let pid = container.host("pid").display().to_string();
    let script = format!(
        "set -m; sh -c 'echo $$ >{pid}; exec \"$@\"' run \"$@\"; stty sane; echo away; read go; bg; read go; fg; echo code $?"
    );
    let running = by_a_shell(&container, &mut terminal, &script);
    terminal.until("up");
    eventually("the terminal is raw", || is_raw(&terminal));
    let job = fs::read_to_string(&pid).expect("the pid").trim().parse().expect("a number");
    let job = nix::unistd::Pid::from_raw(job);
    nix::sys::signal::kill(job, Signal::SIGSTOP).expect("stop it");
    terminal.until("away");
    terminal.types("on\n");
    std::thread::sleep(Duration::from_millis(300));
    assert!(!is_raw(&terminal), "the terminal is the shell's");
    terminal.types("on\n");
    eventually("the terminal is raw", || is_raw(&terminal));
    terminal.types("word\r");
    terminal.until("got word");
    terminal.until("code 5");
    running.wait().ok();
}

#[test]
fn a_container_that_ends_in_the_background_leaves_the_terminal_alone() {
    if known_difference("runc", "stops in the background") {
        return;
    }
    let container = with_terminal().sh("echo up; sleep 1");
    let mut terminal = Terminal::new();
    let script = "set -m; stty -echo; \"$@\" & wait; stty -a | grep -ow -e -echo; echo end";
    let running = by_a_shell(&container, &mut terminal, script);
    terminal.until("-echo\r\nend");
    running.wait().ok();
}

/// The path of a terminal's replica.
fn replica_of(terminal: &Terminal) -> String {
    let master = nix::sys::termios::tcgetattr(terminal.master().as_fd());
    drop(master);
    let fd = std::os::fd::AsRawFd::as_raw_fd(terminal.master());
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).expect("fdinfo");
    let index = info.lines().find_map(|line| line.strip_prefix("tty-index:")).expect("a tty index");
    format!("/dev/pts/{}", index.trim())
}

#[test]
fn the_callers_terminal_is_restored() {
    let container = with_terminal().args(["true"]);
    let mut terminal = Terminal::new();
    let replica = terminal.replica();
    let before = nix::sys::termios::tcgetattr(&replica).expect("the terminal's settings");
    container.run_cmd().on_terminal(replica.try_clone().expect("duplicate")).run().ok();
    assert_eq!(nix::sys::termios::tcgetattr(&replica).expect("the terminal's settings"), before);
}

// B69: owner and size.

#[test]
fn b69_the_size_asked_for_is_there_before_the_program_runs() {
    let container =
        with_terminal().set("/process/consoleSize", json!({"height": 24, "width": 80})).args(["stty", "size"]);
    let socket = ConsoleSocket::at(container.host("s/sock"));
    container.create_cmd(&["--console-socket", socket.path()]).run().ok();
    let terminal = Terminal::of(socket.receive().fds.remove(0));
    container.start().ok();
    terminal.until("24 80");
}

#[test]
fn b69_the_terminal_belongs_to_the_user() {
    let user = json!({"uid": 1000, "gid": 1000});
    let container = with_terminal()
        .set("/process/user", user)
        .sh("stat -c '%u %g' $(tty); stat -c '%u' /dev/console; echo >/dev/tty");
    let socket = ConsoleSocket::at(container.host("s/sock"));
    container.create_cmd(&["--console-socket", socket.path()]).run().ok();
    let terminal = Terminal::of(socket.receive().fds.remove(0));
    container.start().ok();
    terminal.until("1000 5\r\n");
    if !known_difference("crun", "/dev/console stays root's") {
        terminal.until("1000 5\r\n1000\r\n");
    }
}

#[test]
fn b69_exec_as_a_user_gets_a_terminal_of_its_own() {
    let container = Bundle::new().args(["sleep", "60"]);
    container.run_detached().ok();
    let mut other = process(&["sh", "-c", "stat -c '%u %g' $(tty); stty size"]);
    other["user"] = json!({"uid": 1000, "gid": 1000});
    other["consoleSize"] = json!({"height": 24, "width": 80});
    let file = container.process_file(&other);
    let socket = ConsoleSocket::at(container.host("s/sock"));
    let file = file.to_str().expect("a plain path");
    let args = ["exec", "--detach", "--process", file, "--console-socket", socket.path(), container.name()];
    container.cmd(args).run().ok();
    let terminal = Terminal::of(socket.receive().fds.remove(0));
    terminal.until("1000 5\r\n");
    if !known_difference("crun", "exec ignores consoleSize") {
        terminal.until("24 80");
    }
}

#[test]
fn b69_a_user_namespace_without_the_group_of_terminals() {
    // N14: the second has no id 0.
    for id in [0, 999] {
        if id != 0 && known_difference("runc", "wants a map of user 0") {
            continue;
        }
        let map = json!([{"containerID": id, "hostID": HOST_ID, "size": 1}]);
        let container = with_terminal().userns().set("/linux/gidMappings", map.clone()).set("/linux/uidMappings", map);
        let container = container.mount_options("/dev/pts", |options| options.retain(|word| word != "gid=5"));
        let container = container.set("/process/user", json!({"uid": id, "gid": id}));
        let container = container.sh("stat -c %u $(tty); stat -c %u /dev/console; echo done");
        let socket = ConsoleSocket::at(container.host("s/sock"));
        container.create_cmd(&["--console-socket", socket.path()]).run().ok();
        let terminal = Terminal::of(socket.receive().fds.remove(0));
        container.start().ok();
        terminal.until(&format!("{id}\r\n{id}\r\ndone"));
    }
}

#[test]
fn b69_a_terminal_with_stdin_from_nowhere_works_or_explains_itself() {
    let outcome = with_terminal().args(["echo", "hello"]).run();
    if outcome.succeeded() {
        outcome.shows("hello");
    } else {
        outcome.fails_with_one_of(&["terminal", "tty", "console", "ioctl"]);
    }
}

#[test]
fn without_a_terminal_the_streams_are_the_callers_and_there_is_no_console() {
    Bundle::new().sh("tty; [ -e /dev/console ] || echo none").run().shows("not a tty").shows("none");
}
