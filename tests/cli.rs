//! The command line and the files that callers read: options, exit codes, log, pid file, spec, features.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;
use serde_json::{Value, json};

use crate::harness::{Bundle, Cmd, End, Kind, Outcome, Sandbox, eventually, kind, known_difference, skip};

#[test]
fn options_may_come_after_the_id() {
    let container = Bundle::new().args(["sleep", "60"]);
    container.write();
    let bundle = container.path().to_str().expect("a plain path");
    let differs = |peer| known_difference(peer, "options end at the first argument");
    if !differs("runc") && !differs("crun") {
        container.cmd(["create", container.name(), "--bundle", bundle]).run().ok();
        container.cmd(["start", container.name()]).run().ok();
        container.cmd(["delete", container.name(), "--force"]).run().ok();
    }
    container.cmd(["run", "--detach", "--bundle", bundle, container.name()]).run().ok();
    container.cmd(["kill", "--all", container.name(), "KILL"]).run().ok();
}

#[test]
fn the_options_of_other_tools_are_understood() {
    let container = Bundle::new().args(["sleep", "60"]);
    container.run_detached().ok();
    let run = |words: &[&str]| container.cmd(words).run();
    // As of kill(1), and of engines.
    if known_difference("runc", "knows no such option") || known_difference("crun", "knows no such option") {
        for words in [&["kill", "-9", container.name()][..], &["exec", "-it", container.name(), "true"]] {
            run(words).fails();
        }
        return;
    }
    run(&["exec", "-it", container.name(), "sh", "-c", "tty"]).prints("/dev/pts/0");
    container.cmd(["exec", "-i", container.name(), "cat"]).stdin("hello").run().prints("hello");
    for words in
        [&["-0"][..], &["-s", "0"], &["--signal", "0"], &["--signal=SIGWINCH"], &["-WINCH"], &["-a", "-SIGWINCH"]]
    {
        run(&[&["kill"], words, &[container.name()]].concat()).ok();
    }
    run(&["kill", container.name(), "-BOGUS"]).fails_with("unknown signal \"BOGUS\"");
    run(&["kill", "-9", container.name(), "TERM"]).fails_with("cannot be used with");
    assert_eq!(container.status(), "running");
    run(&["kill", "-9", container.name()]).ok();
    assert_eq!(container.wait(), End::Signal(9));
}

#[test]
fn options_take_a_value_after_a_space_or_an_equals_sign() {
    let container = Bundle::new().args(["true"]);
    container.write();
    let root = format!("--root={}", container.sandbox().root().display());
    let bundle = format!("--bundle={}", container.path().display());
    Cmd::bare(container.sandbox(), [root.as_str(), "run", bundle.as_str(), container.name()]).run().ok();
}

#[test]
fn global_flags_of_both_peers_are_taken() {
    let container = Bundle::new().args(["true"]);
    let flags: &[&[&str]] = &[&["--debug"], &["--rootless=false"], &["--rootless", "auto"], &["--log-format", "text"]];
    for flags in flags {
        container.run_cmd().global(*flags).run().ok();
    }
    if !known_difference("runc", "has no --cgroup-manager") {
        container.run_cmd().global(["--cgroup-manager", "cgroupfs"]).run().ok();
        container.run_cmd().global(["--cgroup-manager=cgroupfs"]).run().ok();
        container.run_cmd().global(["--log-level", "error"]).run().ok();
    }
}

#[test]
fn a_wrong_number_of_arguments_or_an_unknown_flag_is_an_error() {
    let container = Bundle::new();
    for args in [["create"].as_slice(), &["state"], &["state", "a", "b"], &["nosuchcommand"], &["run", "--nosuch", "a"]]
    {
        if args == ["state", "a", "b"] && known_difference("crun", "ignores a second id") {
            continue;
        }
        if args == ["nosuchcommand"] && known_difference("runc", "shows its help") {
            continue;
        }
        container.cmd(args).run().fails();
    }
    Cmd::bare(container.sandbox(), ["--help"]).run().ok().shows("create");
    container.cmd(["create", "--help"]).run().ok().shows("--bundle");
}

#[test]
fn success_is_silent() {
    let container = Bundle::new().args(["true"]);
    for outcome in [container.create(), container.start(), container.until("stopped").delete()] {
        assert_eq!((outcome.ok().stdout().as_str(), outcome.stderr().as_str(), outcome.log().as_str()), ("", "", ""));
    }
}

// The log.

#[test]
fn the_last_record_of_a_json_log_is_the_whole_error() {
    let outcome = Bundle::new().args(["/no/such/program"]).run();
    outcome.fails();
    let text = outcome.log();
    let records: Vec<Value> = serde_json::Deserializer::from_str(&text)
        .into_iter::<Value>()
        .collect::<Result<_, _>>()
        .unwrap_or_else(|e| outcome.fail(&format!("the log is not JSON: {e}")));
    let last = records.last().expect("a record");
    assert_eq!(last["level"], "error");
    let message = last["msg"].as_str().expect("a message").to_lowercase();
    assert!(message.contains("no such file or directory"), "{message}");
    let time = last["time"].as_str().expect("a time");
    assert!(time.len() >= 20 && time.as_bytes()[10] == b'T' && time.contains(':'), "{time} is not RFC 3339");
    if !known_difference("crun", "spreads a record over lines")
        && !known_difference("runc", "may warn before the error")
    {
        assert_eq!(text.lines().count(), 1, "podman reads the file as one object");
    }
    assert!(outcome.stderr().to_lowercase().contains("no such file or directory"), "stderr has it too");
}

#[test]
fn the_log_tells_field_and_step_and_remedy_apart() {
    if matches!(kind(), Kind::Crun | Kind::Runc) {
        return skip("keys of ours");
    }
    let outcome = Bundle::new().bind("/no/such/source", "/m", &["bind"]).args(["true"]).create();
    let record: Value = serde_json::from_str(outcome.fails().log().trim()).expect("one record");
    let field = record["field"].as_str().unwrap_or_default();
    assert!(field.starts_with("/mounts/7"), "{record}");
    assert_eq!(record["errno"], "ENOENT");
    assert_eq!(record["level"], "error");
    assert!(record["phase"].is_string(), "{record}");
    assert_eq!(record["hint"], "a bind shows what is on the host already: make it first");
}

#[test]
fn an_error_without_a_log_is_a_line_on_stderr() {
    let container = Bundle::new();
    let root = container.sandbox().root();
    let outcome = Cmd::bare(container.sandbox(), ["--root", root.to_str().expect("plain"), "state", "nosuch"]).run();
    outcome.code(1);
    assert!(outcome.stderr().contains("does not exist"), "{}", outcome.stderr());
    assert_eq!(outcome.stdout(), "");
}

#[test]
fn the_log_is_appended_to() {
    let container = Bundle::new();
    let log = container.host_file("log", "before\n");
    let args = [
        "--log",
        log.to_str().expect("plain"),
        "--root",
        container.sandbox().root().to_str().expect("plain"),
        "state",
        "nosuch",
    ]
    .map(str::to_owned);
    Cmd::bare(container.sandbox(), args.clone()).run().fails();
    Cmd::bare(container.sandbox(), args).run().fails();
    let text = fs::read_to_string(log).expect("the log");
    assert!(text.starts_with("before\n") && text.matches("does not exist").count() == 2, "{text}");
}

#[test]
fn a_log_that_cannot_be_opened_is_an_error() {
    let container = Bundle::new();
    Cmd::bare(container.sandbox(), ["--log", "/no/such/dir/log", "state", "x"]).run().fails();
}

// B72: the pid file.

#[test]
fn b72_a_reader_of_the_pid_file_never_sees_a_half() {
    let container = Bundle::new().args(["true"]);
    let file = container.path().join("pid");
    fs::write(&file, "999999999").expect("fill the file");
    let (done, bad) = (AtomicBool::new(false), std::sync::Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let seen = fs::read_to_string(&file).unwrap_or_default();
                if seen != "999999999" && seen.parse::<i32>().map_or(true, |pid| pid > 4_194_304) {
                    bad.lock().expect("unpoisoned").push(seen);
                }
                std::thread::sleep(std::time::Duration::from_micros(20));
            }
        });
        for _ in 0..10 {
            fs::write(container.path().join("old"), "999999999").expect("fill the file");
            fs::rename(container.path().join("old"), &file).expect("put the file");
            let made = container.create();
            made.ok();
            assert_eq!(container.state().json()["pid"], container.pid());
            container.delete_force().ok();
        }
        done.store(true, Ordering::Relaxed);
    });
    if !known_difference("crun", "truncates the file and writes it anew") {
        assert_eq!(*bad.lock().expect("unpoisoned"), Vec::<String>::new());
    }
}

#[test]
fn b72_a_relative_pid_file_is_relative_to_the_caller() {
    let container = Bundle::new().args(["true"]);
    container.write();
    let elsewhere = container.host_dir("elsewhere");
    let bundle = container.path().to_str().expect("a plain path");
    if known_difference("crun", "takes it as relative to the bundle") {
        return;
    }
    let args = ["create", "--bundle", bundle, "--pid-file", "here", container.name()];
    container.cmd(args).cwd(&elsewhere).run().ok();
    let text = fs::read_to_string(elsewhere.join("here")).expect("the pid file");
    assert_eq!(container.state().json()["pid"].to_string(), text, "digits and nothing else");
    assert_eq!(fs::read_dir(&elsewhere).expect("the directory").count(), 1, "something else is left beside it");
}

#[test]
fn ps_needs_no_ps_on_the_host() {
    if known_difference("runc", "wants a ps") || known_difference("crun", "lists pids alone") {
        return;
    }
    let bundle = Bundle::new().set("/process/user", json!({"uid": 1234, "gid": 5})).sh("sleep 60 & sleep 61 & wait");
    bundle.run_detached().ok();
    let none = bundle.host_dir("none");
    let ps = |words: &[&str]| bundle.cmd(["ps", bundle.name()].iter().chain(words));
    eventually("all are there, and have executed their programs", || {
        let table = ps(&[]).env("PATH", &none).run().stdout();
        table.lines().count() == 4 && table.matches("sh -c").count() == 1
    });
    let words = |outcome: &Outcome| -> Vec<Vec<String>> {
        outcome.ok().stdout().lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    };
    let table = words(&ps(&[]).env("PATH", &none).run());
    assert_eq!(table[0], ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
    let pid = bundle.pid().to_string();
    assert_eq!(
        (&*table[1][0], &*table[1][1], &table[1][7..]),
        ("1234", &*pid, &["sh", "-c", "sleep", "60", "&", "sleep", "61", "&", "wait"].map(str::to_owned)[..])
    );
    assert_eq!((&*table[2][2], &table[2][7..]), (&*pid, &["sleep", "60"].map(str::to_owned)[..]));
    if std::path::Path::new("/usr/bin/ps").exists() {
        assert_eq!(words(&ps(&[]).run()), table);
        assert_eq!(words(&ps(&["-ef"]).run()), words(&ps(&["-ef"]).env("PATH", &none).run()));
    } else {
        skip("there is no ps to compare with");
    }
    ps(&["-o", "pid"]).env("PATH", &none).run().fails_with("there is no ps in PATH").fails_with("install procps");
}

#[test]
fn a_pid_file_that_is_no_regular_file_is_written_to_or_refused() {
    use std::os::unix::fs::FileTypeExt;
    let bundle = Bundle::new().args(["sleep", "60"]);
    bundle.write();
    let dir = &*bundle.path().display().to_string();
    let (fifo, null, directory) = (bundle.host("fifo"), bundle.host("null"), bundle.host_dir("directory"));
    mkfifo(&fifo, Mode::S_IRWXU).expect("make a FIFO");
    mknod(&null, SFlag::S_IFCHR, Mode::S_IRWXU, makedev(1, 3)).expect("make a device");
    let reader = File::options().read(true).write(true).open(&fifo).expect("open the FIFO");
    let made = |file: &Path| {
        let file = file.to_str().expect("a plain path");
        bundle.cmd(["create", "--bundle", dir, "--pid-file", file, bundle.name()]).run()
    };
    if !known_difference("runc", "replaces them") {
        made(&fifo).ok();
        let pid = bundle.state().json()["pid"].to_string();
        let mut said = [0; 16];
        let length = (&reader).read(&mut said).expect("read from the FIFO");
        assert_eq!(String::from_utf8_lossy(&said[..length]), pid);
        assert!(fs::symlink_metadata(&fifo).expect("look at it").file_type().is_fifo());
        bundle.delete_force().ok();
        made(&null).ok();
        assert!(fs::symlink_metadata(&null).expect("look at it").file_type().is_char_device());
        bundle.delete_force().ok();
    }
    made(&directory).fails();
    let socket = bundle.host("socket");
    let _listens = UnixListener::bind(&socket).expect("listen");
    if !known_difference("runc", "replaces them") {
        made(&socket).fails();
        assert!(fs::symlink_metadata(&socket).expect("look at it").file_type().is_socket());
    }
    // Without a reader nobody waits.
    drop(reader);
    if kind() == Kind::Corten {
        made(&fifo).fails_with("write the pid file: write to ");
        assert!(fs::symlink_metadata(&fifo).expect("look at it").file_type().is_fifo());
        // What comes after a failure removes no device.
        let failing = ["run", "--detach", "--bundle", dir, "--pid-file", null.to_str().expect("a plain path")];
        let bundle = bundle.args(["/script"]).file("/script", "#!/no/interpreter\n", 0o755);
        bundle.write();
        bundle.cmd(failing.into_iter().chain([bundle.name()])).run().fails();
        assert!(fs::symlink_metadata(&null).expect("look at it").file_type().is_char_device());
    }
}

#[test]
fn a_pid_file_that_cannot_be_written_fails_create_and_undoes_it() {
    let container = Bundle::new().args(["true"]);
    container.write();
    let bundle = container.path().to_str().expect("a plain path");
    container.cmd(["create", "--bundle", bundle, "--pid-file", "/no/such/dir/pid", container.name()]).run().fails();
    if !known_difference("crun", "leaves the container") {
        container.state().fails_with("does not exist");
    }
}

// config.json is read once.

#[test]
fn later_changes_of_the_configuration_do_not_matter() {
    let container = Bundle::new().args(["echo", "as created"]);
    container.create().ok();
    fs::write(container.path().join("config.json"), "{").expect("break config.json");
    container.state().ok();
    container.start().ok();
    container.until_output("as created").until("stopped").delete().ok();
}

#[test]
fn a_broken_or_missing_configuration_is_an_error_that_names_it() {
    let container = Bundle::new();
    let bundle = container.path().to_str().expect("a plain path");
    let run = || container.cmd(["run", "--bundle", bundle, container.name()]).run();
    run().fails_with("config.json").fails_with_one_of(&["no such file or directory", "not found", "cannot read"]);
    for text in ["", "{", "[]", "null", "{\"ociVersion\": 5}"] {
        fs::write(container.path().join("config.json"), text).expect("write config.json");
        run().fails();
        container.state().fails_with("does not exist");
    }
}

#[test]
fn another_configuration_file_may_be_named() {
    if known_difference("runc", "has no --config") {
        return;
    }
    let container = Bundle::new().args(["echo", "other"]);
    container.write();
    fs::rename(container.path().join("config.json"), container.path().join("other.json")).expect("rename");
    let bundle = container.path().to_str().expect("a plain path");
    container
        .cmd(["run", "--bundle", bundle, "--config", "other.json", container.name()])
        .cwd(container.path())
        .run()
        .prints("other");
}

// spec, features, version.

#[test]
fn spec_writes_what_runc_writes() {
    let sandbox = Sandbox::of_this_test();
    let dir = sandbox.dir().join("spec");
    fs::create_dir(&dir).expect("make a bundle");
    Cmd::new(&sandbox, ["spec"]).cwd(&dir).run().ok();
    let file = dir.join("config.json");
    let spec: Value = serde_json::from_slice(&fs::read(&file).expect("config.json")).expect("JSON");
    assert_eq!(fs::metadata(&file).expect("config.json").permissions().mode() & 0o111, 0);
    let peer = known_difference("crun", "its own choice of capabilities, mounts and masks");
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(spec["process"]["terminal"], true);
    assert_eq!(spec["process"]["args"], serde_json::json!(["sh"]));
    assert_eq!(spec["process"]["env"], serde_json::json!([path, "TERM=xterm"]));
    assert_eq!(spec["process"]["noNewPrivileges"], true);
    assert_eq!(spec["root"]["path"], "rootfs");
    if !peer {
        let base = Bundle::new().config().clone();
        for pointer in [
            "/mounts",
            "/linux/maskedPaths",
            "/linux/readonlyPaths",
            "/linux/namespaces",
            "/linux/resources",
            "/process/capabilities",
            "/process/rlimits",
            "/process/cwd",
            "/process/user",
        ] {
            assert_eq!(spec.pointer(pointer), base.pointer(pointer), "{pointer}");
        }
        assert_eq!(spec["root"]["readonly"], true);
        assert_eq!(spec["hostname"], if kind() == Kind::Runc { "runc" } else { "corten" });
    }
    Cmd::new(&sandbox, ["spec"]).cwd(&dir).run().fails_with("exist");
    let other = sandbox.dir().join("spec2");
    fs::create_dir(&other).expect("make a bundle");
    Cmd::new(&sandbox, ["spec", "--bundle", "spec2", "--rootless"]).cwd(sandbox.dir()).run().ok();
    let spec: Value = serde_json::from_slice(&fs::read(other.join("config.json")).expect("config.json")).expect("JSON");
    assert!(spec["linux"]["namespaces"].as_array().expect("namespaces").iter().any(|ns| ns["type"] == "user"));
}

#[test]
fn what_spec_writes_runs() {
    let container = Bundle::new();
    Cmd::new(container.sandbox(), ["spec"]).cwd(container.path()).run().ok();
    let text = fs::read_to_string(container.path().join("config.json")).expect("config.json");
    let mut spec: Value = serde_json::from_str(&text).expect("JSON");
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = serde_json::json!(["echo", "hello"]);
    spec["linux"]["cgroupsPath"] = container.config()["linux"]["cgroupsPath"].clone();
    fs::write(container.path().join("config.json"), spec.to_string()).expect("write config.json");
    container.cmd(["run", container.name()]).cwd(container.path()).run().prints("hello");
}

#[test]
fn features_is_pure_json_and_needs_nothing() {
    let sandbox = Sandbox::of_this_test();
    let outcome = Cmd::bare(&sandbox, ["features"]).run();
    let features = outcome.json();
    assert_eq!(outcome.stderr(), "");
    assert_eq!(features["ociVersionMin"], "1.0.0");
    assert!(features["ociVersionMax"].is_string());
    let hooks = features["hooks"].as_array().expect("hooks");
    assert_eq!(hooks.len(), 6);
    let has = |list: &Value, word: &str| list.as_array().is_some_and(|list| list.iter().any(|entry| entry == word));
    assert!(has(&features["mountOptions"], "rro") && has(&features["mountOptions"], "rbind"));
    assert!(has(&features["linux"]["namespaces"], "user"));
    assert!(has(&features["linux"]["capabilities"], "CAP_CHOWN"));
    assert_eq!(features["linux"]["cgroup"]["v2"], true);
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
    assert!(has(&features["linux"]["seccomp"]["actions"], "SCMP_ACT_NOTIFY"));
    if kind() == Kind::Corten {
        let level = features["annotations"]["run.corten.landlock.level"].as_str().expect("a level");
        assert!(level.parse::<u32>().is_ok(), "{level}");
        assert_eq!(features["annotations"]["run.corten.landlock"], "1");
        assert!(has(&features["linux"]["seccomp"]["supportedFlags"], "SECCOMP_FILTER_FLAG_SPEC_ALLOW"));
    }
}

#[test]
fn the_version_is_told_as_callers_parse_it() {
    let sandbox = Sandbox::of_this_test();
    for flag in ["--version", "-v"] {
        let outcome = Cmd::bare(&sandbox, [flag]).run();
        let lines = outcome.ok().lines();
        let first: Vec<&str> = lines[0].split(' ').collect();
        assert!(matches!(first.as_slice(), [_, "version", number] if number.contains('.')), "{}", lines[0]);
        assert_eq!(outcome.stdout().matches("version").count(), 1, "moby takes the last line with that word");
        assert!(lines.iter().any(|line| line.starts_with("spec: ")));
        assert_eq!(outcome.stderr(), "");
    }
}

// Nothing is left of a failed run, and a foreground run passes on what it gets.

#[test]
fn keep_leaves_the_stopped_container() {
    let container = Bundle::new().sh("exit 4");
    container.write();
    let bundle = container.path().to_str().expect("a plain path");
    container.cmd(["run", "--keep", "--bundle", bundle, container.name()]).run().code(4);
    assert_eq!(container.status(), "stopped");
    assert!(container.cgroup().exists(), "the cgroup must stay until delete");
    container.delete().ok();
    assert!(!container.cgroup().exists());
}

#[test]
fn stdin_reaches_the_program_and_its_output_comes_back() {
    let outcome = Bundle::new().sh("cat; echo error >&2").run_cmd().stdin("from the caller").run();
    outcome.prints("from the caller");
    assert_eq!(outcome.stderr(), "error\n");
}

#[test]
fn signals_for_the_foreground_runtime_reach_the_program() {
    use nix::sys::signal::Signal;
    let container = Bundle::new().args(["probe", "signals", "SIGHUP", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGTERM"]);
    let running = container.spawn();
    eventually("the program is ready", || running.stdout().contains("ready"));
    running.signal(Signal::SIGWINCH);
    running.signal(Signal::SIGURG);
    for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGINT] {
        running.signal(signal);
        eventually(signal.as_str(), || running.stdout().contains(signal.as_str()));
    }
    running.signal(Signal::SIGTERM);
    running.wait().ok().shows("SIGTERM");
}

#[test]
fn descriptors_of_the_caller_do_not_leak_unless_asked_for() {
    let container = Bundle::new().args(["probe", "fds"]);
    let file = container.host_file("secret", "x");
    let open = format!("exec 3<{0} 4<{0} 7<{0}", file.display());
    let seen = container.run_cmd().after(&open).run();
    seen.ok().hides("secret");
    assert_eq!(seen.lines().len(), 3, "{}", seen.stdout());
    let bundle = container.path().to_str().expect("a plain path");
    let args = ["run", "--preserve-fds", "2", "--bundle", bundle, container.name()];
    let seen = container.cmd(args).after(&open).run();
    seen.ok().shows("3 ").shows("4 ").hides("7 ");
    assert_eq!(seen.lines().len(), 5, "{}", seen.stdout());
}

#[test]
fn a_descriptor_to_preserve_need_not_be_open() {
    let container = Bundle::new().args(["probe", "fds"]);
    container.write();
    let file = container.host_file("secret", "x");
    let bundle = container.path().to_str().expect("a plain path");
    let open = format!("exec 4<{0} 7<{0} 8<{0}", file.display());
    let sleeper = Bundle::inside(container.sandbox().clone()).args(["sleep", "60"]);
    sleeper.run_detached().ok();
    if known_difference("runc", "says that it cannot stat it") {
        return;
    }
    let run = container.cmd(["run", "--preserve-fds", "5", "--bundle", bundle, container.name()]);
    let exec = sleeper.exec_cmd(&["--preserve-fds", "5"], &["probe", "fds"]);
    for command in [run, exec] {
        let seen = command.clone().after(&open).run();
        let numbers = seen.ok().lines().iter().map(|line| line[..2].to_owned()).collect::<Vec<_>>();
        assert_eq!(numbers, ["0 ", "1 ", "2 ", "4 ", "7 "], "{}", seen.stdout());
        assert_eq!(seen.stdout().matches("secret").count(), 2, "{}", seen.stdout());
        if !known_difference("crun", "says nothing") {
            assert!(
                seen.says_one_of(&["--preserve-fds 5: only 2 of the descriptors from 3 on are open"]),
                "{}",
                seen.log()
            );
        }
        // However many that would be.
        if !known_difference("crun", "counts") {
            assert_eq!(command.after("exec 3<&-").run().code(0).lines().len(), 3);
        }
    }
}

#[test]
fn the_state_root_is_made_where_it_is_asked_for() {
    let container = Bundle::new().args(["true"]);
    container.write();
    let root = container.host("deep/er/root");
    let root = root.to_str().expect("a plain path");
    let bundle = container.path().to_str().expect("a plain path");
    let run = |command: &[&str]| Cmd::bare(container.sandbox(), [&["--root", root], command].concat()).run();
    run(&["create", "--bundle", bundle, container.name()]).ok();
    assert!(Path::new(root).join(container.name()).exists());
    run(&["delete", "--force", container.name()]).ok();
    assert!(!Path::new(root).join(container.name()).exists());
}

#[test]
fn a_failing_command_whose_streams_nobody_reads_ends_with_1_all_the_same() {
    let bundle = Bundle::new();
    for broken in ["exec 2>/dev/full", "exec 2>&-", "exec >/dev/full 2>/dev/full"] {
        bundle.cmd(["state", "nosuch"]).after(broken).run().code(1);
    }
}

#[test]
fn a_result_that_cannot_be_written_is_an_error() {
    let bundle = Bundle::new();
    let fifo = bundle.host("fifo").display().to_string();
    let unread = format!("mkfifo {fifo}; exec 4<>{fifo} >{fifo} 4<&-");
    for (broken, errno) in [("exec >/dev/full", "no space left on device"), (unread.as_str(), "broken pipe")] {
        if known_difference("crun", "looks at no result of its writes") {
            continue;
        }
        if errno == "broken pipe" && known_difference("runc", "is killed by SIGPIPE") {
            continue;
        }
        let outcome = bundle.cmd(["features"]).after(broken).run();
        outcome.fails_with(errno);
        if kind() == Kind::Corten {
            outcome.fails_with(&format!("write to stdout: {errno}"));
        }
    }
}

#[test]
fn the_words_of_a_program_stay_as_they_are() {
    let container = Bundle::new().args(["sleep", "60"]);
    container.run_detached().ok();
    let echo = |words: &[&str]| container.cmd([&["exec", container.name(), "echo"], words].concat()).run();
    for words in [&["-no-subreaper"][..], &["-9", "--", "-KILL"], &["x", "--", "--tty", "-d"], &["--log", "/l"]] {
        echo(words).prints(&words.join(" "));
    }
}
