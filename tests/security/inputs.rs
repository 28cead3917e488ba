//! What the runtime is handed: where programs lie, files to read and to write, streams, numbers, names.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::{Mode, SFlag, fstat, makedev, mknod};
use nix::unistd::{mkfifo, pipe2};
use serde_json::{Value, json};

use crate::attack::Outside;
use crate::harness::{
    Bundle, Cmd, HOST_ID, Outcome, Terminal, chown_all, eventually, known_difference, peers_lack_it, probe, runtime,
};

/// A user whom no machine has.
const USER: u32 = 7777;

/// A FIFO of the host that nobody writes to.
fn fifo(bundle: &Bundle, name: &str) -> PathBuf {
    let path = bundle.host(name);
    mkfifo(&path, Mode::from_bits_truncate(0o666)).expect("make a FIFO");
    path
}

/// Nothing may wait for ever; what takes this long does.
const SOON: Duration = Duration::from_secs(8);

// Programs of the host.

/// What a user without privilege runs with this PATH, of a container that needs both helpers; `None` for no PATH.
fn run_as_user(bundle: &Bundle, path: Option<&str>) -> Outcome {
    let (user, group) = (format!("--reuid={USER}"), format!("--regid={USER}"));
    let copy = bundle.host("rt").join("corten");
    let home = bundle.host("home");
    if !copy.exists() {
        fs::create_dir_all(copy.parent().expect("a parent")).expect("make a directory");
        fs::copy(runtime(), &copy).expect("copy the runtime to where the user reaches it");
        fs::create_dir_all(&home).expect("make a directory");
        chown_all(&home, USER);
    }
    bundle.write();
    let root = home.join("state");
    let root = root.to_str().expect("a plain path");
    let command = Cmd::bare(bundle.sandbox(), ["--root", root, "run", bundle.name()])
        .program(copy)
        .started_by(["/usr/bin/setpriv", &user, &group, "--clear-groups"])
        .cwd(bundle.path());
    match path {
        Some(path) => command.env("PATH", path).run(),
        None => command.started_by(["/usr/bin/setpriv", &user, &group, "--clear-groups", "env", "-u", "PATH"]).run(),
    }
}

/// Helpers that tell in a file that they have run, and where.
fn put_helpers(directory: &Path, told: &Path) {
    fs::create_dir_all(directory).expect("make a directory");
    for name in ["newuidmap", "newgidmap"] {
        let script = format!("#!/bin/sh\necho \"$0 $(pwd)\" >>{}\nexit 1\n", told.display());
        fs::write(directory.join(name), script).expect("write a helper");
        fs::set_permissions(directory.join(name), fs::Permissions::from_mode(0o755)).expect("set its mode");
    }
}

#[test]
fn no_program_of_the_host_is_found_in_a_directory_that_is_not_absolute() {
    if peers_lack_it() {
        return;
    }
    let map = json!([
        {"containerID": 0, "hostID": USER, "size": 1},
        {"containerID": 1, "hostID": 300_000, "size": 65536}
    ]);
    let bundle = Bundle::new().ns("user").set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    let bundle = bundle.unset("/linux/cgroupsPath").args(["true"]);
    let told = bundle.host_file("told", "");
    fs::set_permissions(&told, fs::Permissions::from_mode(0o666)).expect("open it to the user");
    // In the image, in the bundle, and where the state is.
    for directory in [bundle.rootfs(), bundle.rootfs().join("bin"), bundle.path().into(), bundle.host_dir("home/state")]
    {
        put_helpers(&directory, &told);
    }
    chown_all(bundle.path(), USER);
    for path in ["", ":", ".", "bin", ":/nonexistent", ".:/nonexistent", "/nonexistent:", "./bin:../:rootfs/bin", "../"]
    {
        run_as_user(&bundle, Some(path)).fails_with("map group ids through newgidmap");
        assert_eq!(fs::read_to_string(&told).expect("what was told"), "", "PATH={path:?}");
    }
    run_as_user(&bundle, None).fails_with("map group ids through newgidmap");
    assert_eq!(fs::read_to_string(&told).expect("what was told"), "", "no PATH");
    // The first absolute one counts, and the helper does not run where the image is.
    let helpers = bundle.host("helpers");
    put_helpers(&helpers, &told);
    run_as_user(&bundle, Some(&format!(":.:bin:{}", helpers.display()))).fails_with("map group ids through newgidmap");
    let wanted = format!("{}/newgidmap /\n", helpers.display());
    assert_eq!(fs::read_to_string(&told).expect("what was told"), wanted);
}

#[test]
fn ps_is_not_found_in_the_directory_of_the_caller() {
    if peers_lack_it() {
        return;
    }
    let container = Bundle::new().args(["sleep", "60"]);
    container.run_detached().ok();
    let told = container.host("told");
    let here = container.host_dir("here");
    fs::write(here.join("ps"), format!("#!/bin/sh\necho run >>{}\n", told.display())).expect("write a program");
    fs::set_permissions(here.join("ps"), fs::Permissions::from_mode(0o755)).expect("set its mode");
    for path in [":/usr/bin:/bin", ".:/usr/bin:/bin", "../here:/usr/bin:/bin"] {
        let seen = container.cmd(["ps", container.name()]).cwd(&here).env("PATH", path).run();
        assert_eq!(seen.ok().lines().len(), 2, "{path}");
        assert!(!told.exists(), "PATH={path}");
    }
}

// Files to write.

#[test]
fn the_draft_of_a_pid_file_follows_no_link() {
    let container = Bundle::new().args(["sleep", "60"]);
    let outside = Outside::of(&container);
    let canary = outside.dir().join(crate::attack::CANARY);
    let canary = canary.display();
    let place = container.host_dir("of-a-user").display().to_string();
    let file = format!("{place}/pid");
    // The shell becomes the runtime, so that its pid is the one in the name of the draft.
    let links = format!("ln -s {canary} {place}/.pid.$$; ln -s {canary} {file}; mkfifo {place}/.pid.$$.fifo");
    let made = |what: &[&str]| {
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(&place).expect("make a directory");
        let words = what.iter().copied().chain(["--pid-file", &file]);
        container.cmd(words.chain([container.name()]).chain(if what[0] == "exec" { vec!["true"] } else { vec![] }))
    };
    container.write();
    let bundle = container.path().display().to_string();
    for what in [vec!["create", "--bundle", &bundle], vec!["run", "--detach", "--bundle", &bundle]] {
        made(&what).after(&links).run().ok();
        let pid = fs::read_to_string(&file).expect("read the pid file");
        let state = container.state().json();
        assert_eq!(pid, state["pid"].to_string(), "{what:?}");
        assert!(!fs::symlink_metadata(&file).expect("the pid file").is_symlink(), "{what:?}");
        outside.is_untouched();
        let mut left: Vec<_> = fs::read_dir(&place).expect("the directory").flatten().collect();
        left.retain(|entry| !entry.file_type().expect("its kind").is_symlink() && entry.file_name() != "pid");
        assert_eq!(left.len(), 1, "{what:?}: {left:?}");
        if what[0] == "run" {
            let exec = made(&["exec", "--detach"]).after(&links).run();
            exec.ok();
            assert!(fs::read_to_string(&file).expect("the pid file").parse::<i32>().is_ok());
            outside.is_untouched();
        }
        container.delete_force().ok();
    }
}

// Streams.

/// The owner of a stream after a container of another user had it as standard input.
fn owner_after(bundle: &Bundle, stream: OwnedFd) -> (u32, u32) {
    let kept = stream.try_clone().expect("duplicate the stream");
    bundle.run_cmd().leak(9, stream).after("exec <&9 9<&-").run().ok();
    let stat = fstat(&kept).expect("look at the stream");
    (stat.st_uid, stat.st_gid)
}

#[test]
fn a_file_of_the_host_that_is_a_stream_keeps_its_owner() {
    if known_difference("runc", "gives any stream but /dev/null to the user") {
        return;
    }
    let bundle = Bundle::new().args(["true"]).set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let node = |name: &str, kind: SFlag, mode: u32, number: u64| {
        let path = bundle.host(name);
        mknod(&path, kind, Mode::from_bits_truncate(mode), number).expect("make a device");
        path
    };
    let file = bundle.host_file("file", "data");
    let directory = bundle.host_dir("directory");
    let random = node("random", SFlag::S_IFCHR, 0o600, makedev(1, 8));
    let null = node("null", SFlag::S_IFCHR, 0o600, makedev(1, 3));
    for path in [&file, &directory, &random, &null] {
        let stream = File::open(path).expect("open it");
        assert_eq!(owner_after(&bundle, stream.into()), (0, 0), "{}", path.display());
        let meta = fs::metadata(path).expect("look at it");
        assert_eq!((meta.uid(), meta.gid()), (0, 0), "{}", path.display());
    }
    let memory = nix::sys::memfd::memfd_create(c"x", nix::sys::memfd::MFdFlags::empty()).expect("make a memfd");
    assert_eq!(owner_after(&bundle, memory), (0, 0), "a memfd");
    // All three, and for a program that enters.
    let running = Bundle::new().args(["sleep", "60"]);
    running.run_detached().ok();
    let path = file.display();
    running.exec_cmd(&["--user", "1000"], &["true"]).after(&format!("exec <{path} >>{path} 2>>{path}")).run().ok();
    assert_eq!(fs::metadata(&file).expect("look at it").uid(), 0);
}

#[test]
fn what_engines_give_as_a_stream_becomes_the_users() {
    let bundle = Bundle::new().args(["true"]).set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let (reader, _writer) = pipe2(OFlag::O_CLOEXEC).expect("make a pipe");
    assert_eq!(owner_after(&bundle, reader), (1000, 0), "a pipe");
    let named = fifo(&bundle, "fifo");
    let both = File::options().read(true).write(true).open(&named).expect("open a FIFO");
    assert_eq!(owner_after(&bundle, both.into()), (1000, 0), "a FIFO");
    let replica = Terminal::new().replica();
    let group = fstat(&replica).expect("look at the terminal").st_gid;
    assert_eq!(owner_after(&bundle, replica), (1000, group), "a terminal");
    let (one, _other) = UnixStream::pair().expect("make a pair of sockets");
    assert_eq!(owner_after(&bundle, one.into()), (1000, 0), "a socket");
}

#[test]
fn of_the_streams_of_a_container_with_a_user_namespace_pipes_alone_are_given_away() {
    if peers_lack_it() {
        return;
    }
    let bundle = Bundle::new().userns().args(["true"]).set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let (reader, _writer) = pipe2(OFlag::O_CLOEXEC).expect("make a pipe");
    assert_eq!(owner_after(&bundle, reader), (HOST_ID + 1000, 0), "a pipe");
    let file = File::open(bundle.host_file("file", "data")).expect("open a file");
    assert_eq!(owner_after(&bundle, file.into()), (0, 0), "a file");
    let null = File::open("/dev/null").expect("open it");
    assert_eq!(owner_after(&bundle, null.into()), (0, 0), "/dev/null");
    let (one, _other) = UnixStream::pair().expect("make a pair of sockets");
    assert_eq!(owner_after(&bundle, one.into()), (0, 0), "a socket");
}

// Numbers.

#[test]
fn a_hook_may_take_as_long_as_a_number_can_say() {
    let bundle = Bundle::new().args(["sleep", "60"]);
    let told = bundle.host("told");
    let mut bundle = bundle;
    let kinds = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    for kind in kinds {
        let into = if kind == "startContainer" { "/dev/null".into() } else { told.display().to_string() };
        let args = json!(["sh", "-c", format!("echo {kind} >>{into}")]);
        let hook = json!({"path": "/bin/busybox", "args": args, "env": ["PATH=/bin"], "timeout": i64::MAX});
        bundle = bundle.push(&format!("/hooks/{kind}"), hook);
    }
    bundle.run_detached().ok();
    bundle.delete_force().ok();
    let seen = fs::read_to_string(&told).expect("what was told");
    assert_eq!(seen, "prestart\ncreateRuntime\ncreateContainer\npoststart\npoststop\n");
}

#[test]
fn events_may_be_as_rare_as_a_number_can_say() {
    if known_difference("crun", "has no events") {
        return;
    }
    let container = Bundle::new().args(["sleep", "60"]);
    container.run_detached().ok();
    let followed: Vec<_> = ["9223372036854775807s", "9223372036854775808s", "2562047h47m16.854775807s", "4294967295"]
        .map(|interval| container.cmd(["events", "--interval", interval, container.name()]).spawn())
        .into_iter()
        .collect();
    std::thread::sleep(Duration::from_millis(200));
    container.signal(Signal::SIGKILL);
    for events in followed {
        events.wait().prints("");
    }
}

#[test]
fn no_number_of_a_configuration_ends_the_runtime() {
    let numbers =
        [i64::MAX.into(), i64::MIN.into(), u64::MAX.into(), i64::from(i32::MIN).into(), json!(-1), json!(1e300)];
    let fields = [
        "/process/user/uid",
        "/process/user/umask",
        "/process/oomScoreAdj",
        "/process/ioPriority/priority",
        "/process/scheduler/nice",
        "/process/scheduler/priority",
        "/process/consoleSize/height",
        "/process/rlimits/0/hard",
        "/linux/uidMappings/0/size",
        "/linux/timeOffsets/monotonic/secs",
        "/linux/devices/0/major",
        "/linux/devices/0/minor",
        "/linux/devices/0/fileMode",
        "/linux/resources/devices/0/major",
        "/linux/resources/memory/limit",
        "/linux/resources/memory/swap",
        "/linux/resources/memory/swappiness",
        "/linux/resources/cpu/shares",
        "/linux/resources/cpu/quota",
        "/linux/resources/cpu/period",
        "/linux/resources/cpu/burst",
        "/linux/resources/pids/limit",
        "/linux/resources/blockIO/weight",
        "/linux/resources/hugepageLimits/0/limit",
        "/linux/memoryPolicy/nodes",
        "/hooks/poststop/0/timeout",
    ];
    for field in fields {
        for number in &numbers {
            let bundle = Bundle::new()
                .args(["true"])
                .ns("time")
                .set("/process/scheduler/policy", "SCHED_OTHER")
                .set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 4}))
                .push("/linux/devices", json!({"path": "/dev/x", "type": "c", "major": 1, "minor": 3}))
                .push("/linux/resources/hugepageLimits", json!({"pageSize": "2MB", "limit": 0}))
                .push("/linux/uidMappings", json!({"containerID": 0, "hostID": 1, "size": 1}))
                .push("/hooks/poststop", json!({"path": "/bin/busybox", "args": ["true"]}));
            let bundle = if field.contains("uidMappings") { bundle } else { bundle.unset("/linux/uidMappings") };
            let value = if field.ends_with("nodes") { json!(number.to_string()) } else { number.clone() };
            let made = bundle.set(field, value).run();
            assert!(made.succeeded() || !made.says_one_of(&["panicked", "overflow"]), "{field} {number}");
            if !made.succeeded() {
                made.code(1);
            }
        }
    }
}

// Files to read.

/// Puts something in the place of a file.
type Put<'a> = Box<dyn Fn() + 'a>;

#[test]
fn a_bundle_whose_configuration_is_no_file_is_refused_at_once() {
    if peers_lack_it() {
        return;
    }
    let bundle = Bundle::new();
    let config = bundle.path().join("config.json");
    let put: [(&str, Put<'_>); 4] = [
        ("a FIFO", Box::new(|| mkfifo(&config, Mode::from_bits_truncate(0o666)).expect("make a FIFO"))),
        ("a directory", Box::new(|| fs::create_dir(&config).expect("make a directory"))),
        ("a character device", Box::new(|| symlink("/dev/zero", &config).expect("make a link"))),
        ("a FIFO", Box::new(|| symlink(fifo(&bundle, "behind"), &config).expect("make a link"))),
    ];
    let path = bundle.path().to_str().expect("a plain path");
    for (kind, put) in put {
        put();
        for words in [
            &["create", "--bundle", path, "x"][..],
            &["run", "--bundle", path, "x"],
            &["check", "--bundle", path],
            &["seccomp", "dump", "--bundle", path],
            &["seccomp", "explain", "--bundle", path, "read"],
        ] {
            // Not by way of the bundle, whose configuration is printed when something is wrong.
            let refused = Cmd::new(bundle.sandbox(), words).limit(SOON).run();
            refused.code(1);
            let said = format!("{}: is {kind}, not a regular file", config.display());
            assert!((refused.stdout() + &refused.stderr()).contains(&said), "{words:?}: {}", refused.stderr());
        }
        fs::remove_file(&config).or_else(|_| fs::remove_dir(&config)).expect("remove it");
    }
}

#[test]
fn a_namespace_path_that_is_no_namespace_is_refused_at_once() {
    if peers_lack_it() {
        return;
    }
    let first = Bundle::new();
    let (pipe, file) = (fifo(&first, "fifo"), first.host_file("file", ""));
    let directory = first.host_dir("directory");
    for kind in ["ipc", "uts", "network", "pid", "cgroup", "time", "mount", "user"] {
        for (path, what) in [
            (pipe.as_path(), "a FIFO"),
            (&file, "a regular file"),
            (&directory, "a directory"),
            (Path::new("/dev/zero"), "a character device"),
        ] {
            let bundle = Bundle::new().join(kind, path).args(["true"]);
            let made = bundle.run_cmd().limit(SOON).run();
            let said = format!("open the {kind} namespace {}: ", path.display());
            made.code(1).fails_with(&said).fails_with(&format!("is {what}, not a namespace"));
            assert!(made.stderr().contains("/linux/namespaces/"), "{}", made.stderr());
        }
    }
}

/// Commands that read a file which the caller names, and what they say of it.
fn readers<'a>(container: &'a Bundle, path: &'a str) -> Vec<(Vec<&'a str>, String, Value)> {
    let process = json!({"args": ["echo", "entered"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
    let id = container.name();
    let mut config = container.config().clone();
    config["linux"]["cgroupsPath"] = container.sandbox().cgroups_path("other").into();
    vec![
        (vec!["exec", "--process", path, id], format!("read the process {path}"), process),
        (
            vec!["update", "--resources", path, id],
            format!("read the limits from {path}"),
            json!({"unified": {"cgroup.max.depth": "99"}}),
        ),
        (vec!["mounts", "add", id, path], format!("read the mounts from {path}"), json!([])),
        (vec!["mounts", "remove", id, path], format!("read the mounts from {path}"), json!([])),
        (vec!["seccomp", "dump", path], format!("read the profile {path}"), json!({"defaultAction": "SCMP_ACT_ALLOW"})),
        (
            vec!["create", "--bundle", container.path().to_str().expect("a plain path"), "--config", path, "other"],
            format!("read the configuration {path}"),
            config,
        ),
    ]
}

#[test]
fn a_fifo_that_nobody_writes_is_not_waited_for() {
    if peers_lack_it() {
        return;
    }
    let container = Bundle::new().args(["sleep", "60"]);
    container.run_detached().ok();
    let path = fifo(&container, "fifo").display().to_string();
    for (words, said, _) in readers(&container, &path) {
        let refused = container.cmd(&words).limit(SOON).run();
        refused.fails_with(&format!("{said}: is a FIFO that nobody writes to"));
    }
    let path = container.host_dir("directory").display().to_string();
    for (words, said, _) in readers(&container, &path) {
        container.cmd(&words).limit(SOON).run().fails_with(&format!("{said}: is a directory"));
    }
}

#[test]
fn a_file_on_the_command_line_may_be_a_pipe() {
    if peers_lack_it() {
        return;
    }
    let container = Bundle::new().args(["sleep", "60"]);
    container.run_detached().ok();
    // More than a pipe holds, so that it is read while it is written.
    let padded = |document: &Value| format!("{}{document}\n", " ".repeat(100_000));
    for path in ["/dev/fd/9", "/dev/stdin", "/proc/self/fd/9"] {
        for (words, _, document) in readers(&container, path) {
            let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("make a pipe");
            let text = padded(&document);
            let writing = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(50));
                File::from(writer).write_all(text.as_bytes())
            });
            let prelude = if path == "/dev/stdin" { "exec <&9 9<&-" } else { "" };
            container.cmd(&words).leak(9, reader).after(prelude).run().ok();
            writing.join().expect("the writer").expect("write to the pipe");
            if words[0] == "create" {
                container.cmd(["delete", "--force", "other"]).run().ok();
            }
        }
    }
    // Of a runtime that cannot clone a mount (open_tree(2) is refused), and has to run itself anew from a copy.
    for (words, _, document) in readers(&container, "/dev/fd/9") {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("make a pipe");
        File::from(writer).write_all(document.to_string().as_bytes()).expect("write to the pipe");
        let refused = [probe().as_os_str(), "refuse".as_ref(), "428".as_ref(), "1".as_ref()];
        let outcome = container.cmd(&words).leak(9, reader).started_by(refused).run();
        // A container cannot be made without that call, and has its configuration all the same.
        match words[0] {
            "create" | "run" => drop(outcome.fails()),
            _ => drop(outcome.ok()),
        }
        outcome.hides("nobody writes");
    }
    // A FIFO whose writer comes a moment later, and one on standard input.
    let named = fifo(&container, "named");
    for (words, _, document) in readers(&container, named.to_str().expect("a plain path")) {
        let (to, text) = (named.clone(), padded(&document));
        let reading = container.cmd(&words).spawn();
        std::thread::sleep(Duration::from_millis(300));
        File::options()
            .write(true)
            .open(to)
            .and_then(|mut to| to.write_all(text.as_bytes()))
            .expect("write to the FIFO");
        reading.wait().ok();
    }
    let resources = json!({"unified": {"cgroup.max.depth": "98"}}).to_string();
    container.cmd(["update", "--resources", "-", container.name()]).stdin(&resources).run().ok();
    eventually("the limit is set", || {
        fs::read_to_string(container.cgroup().join("cgroup.max.depth")).is_ok_and(|text| text.trim() == "98")
    });
}

#[test]
fn a_socket_whose_listener_takes_nobody_is_not_waited_for() {
    if peers_lack_it() {
        return;
    }
    let first = Bundle::new();
    let path = first.host("busy.sock");
    let flags = SockFlag::SOCK_CLOEXEC;
    let listener = socket(AddressFamily::Unix, SockType::Stream, flags, None).expect("make a socket");
    bind(listener.as_raw_fd(), &UnixAddr::new(&path).expect("an address")).expect("bind it");
    listen(&listener, Backlog::new(0).expect("a queue of one")).expect("listen");
    let _waits = UnixStream::connect(&path).expect("take the one place");
    let path = path.to_str().expect("a plain path");
    let console = Bundle::new().set("/process/terminal", true);
    let waiting = [
        (console.create_cmd(&["--console-socket", path]).spawn(), "console"),
        (first.create_cmd(&["--pidfd-socket", path]).spawn(), "pidfd"),
    ];
    for (made, kind) in waiting {
        made.wait().code(1).fails_with(&format!("connect to {kind} socket {path}: connection timed out"));
    }
}
