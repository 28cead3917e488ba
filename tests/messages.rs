//! What the runtime says by the way, and how it looks: warnings, steps, errors on a terminal.

use std::fs::{self, File};
use std::io::Write;

use serde_json::{Value, json};

use crate::harness::{Bundle, Cmd, Terminal, eventually, host_command, known_difference, peers_lack_it};

/// The runtime on this container without a log, with these options before the command.
fn by_hand(container: &Bundle, options: &[&str], command: &[&str]) -> Cmd {
    container.write();
    let root = container.sandbox().root();
    let root = ["--root", root.to_str().expect("a plain path")];
    Cmd::bare(container.sandbox(), [&root, options, command].concat()).cwd(container.path())
}

/// A container about which there is something to say before its program, which says something itself, and after it.
fn chatty() -> Bundle {
    Bundle::new()
        .sh("echo started >&2")
        .push("/process/capabilities/bounding", "CAP_FUTURE")
        .set("/hooks", json!({"poststop": [{"path": "/bin/false"}]}))
}

/// The lines of this level in logfmt.
fn messages(text: &str, level: &str) -> Vec<String> {
    let start = format!(" level={level} msg=");
    let message = |line: &str| Some(line.split_once(&start)?.1.trim_matches('"').replace("\\\"", "\""));
    text.lines().filter_map(message).collect()
}

const UNKNOWN: &str = "/process/capabilities/bounding: the capability \"CAP_FUTURE\" is unknown and ignored";
const POSTSTOP: &str = "error running poststop hook #0: run /bin/false: /hooks/poststop/0: exit status 1";

#[test]
fn without_a_log_a_warning_is_a_line_on_stderr() {
    let container = Bundle::new().args(["true"]).set("/hooks", json!({"poststop": [{"path": "/bin/false"}]}));
    let outcome = by_hand(&container, &[], &["run", container.name()]).run();
    let stderr = outcome.ok().stderr();
    assert!(stderr.contains("hook") && stderr.lines().count() == 1, "{stderr}");
}

#[test]
fn warnings_stand_before_and_after_what_the_program_writes() {
    if peers_lack_it() {
        return;
    }
    let container = chatty();
    for options in [&[][..], &["--log-level", "warning"], &["--log-level", "INFO"]] {
        let outcome = by_hand(&container, options, &["run", container.name()]).run();
        let stderr = outcome.ok().stderr();
        let lines: Vec<_> = stderr.lines().collect();
        let [_, "started", _] = lines[..] else { outcome.fail("a warning, the program's word, a warning") };
        assert_eq!(messages(&stderr, "warning"), [UNKNOWN, POSTSTOP]);
    }
    for options in [["--log-level", "error"], ["--log-level", "fatal"], ["--log-level", "panic"]] {
        assert_eq!(by_hand(&container, &options, &["run", container.name()]).run().ok().stderr(), "started\n");
    }
}

#[test]
fn each_step_of_a_life_says_its_own_warnings() {
    if peers_lack_it() {
        return;
    }
    let container = chatty();
    let step = |command: &[&str]| messages(&by_hand(&container, &[], command).run().ok().stderr(), "warning");
    assert_eq!(step(&["create", container.name()]), [UNKNOWN]);
    assert_eq!(step(&["state", container.name()]), [""; 0]);
    assert_eq!(step(&["start", container.name()]), [""; 0]);
    container.until("stopped");
    assert_eq!(step(&["delete", container.name()]), [POSTSTOP]);
}

#[test]
fn with_a_log_each_warning_is_there_once_and_not_on_stderr() {
    if known_difference("crun", "refuses a capability that it does not know") {
        return;
    }
    let container = chatty();
    for options in [&[][..], &["--debug"]] {
        let log = container.host_file("log", "");
        let options = [&["--log", log.to_str().expect("plain"), "--log-format", "json"], options].concat();
        let outcome = by_hand(&container, &options, &["run", container.name()]).run();
        assert_eq!(outcome.ok().stderr(), "started\n");
        let text = fs::read_to_string(&log).expect("the log");
        let records = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a record"));
        let warnings: Vec<Value> = records.filter(|record| record["level"] == "warning").collect();
        assert_eq!(warnings.len(), 2, "{text}");
        let says = |at: usize, word: &str| warnings[at]["msg"].as_str().is_some_and(|text| text.contains(word));
        assert!(says(0, "CAP_FUTURE") && says(1, "hook"), "{text}");
    }
}

#[test]
fn a_capability_that_the_runtime_lacks_is_said_before_the_program_runs() {
    if peers_lack_it() {
        return;
    }
    let container = Bundle::new().sh("echo started >&2; sleep 60").caps(&["CAP_SYS_TIME", "CAP_KILL"]);
    let without = |command: &[&str]| {
        by_hand(&container, &[], command).started_by(["/usr/bin/setpriv", "--bounding-set", "-sys_time"])
    };
    let said = "the container does not get CAP_SYS_TIME: the runtime itself lacks it";
    let both = |stderr: &str| messages(stderr, "warning") == [said] && stderr.ends_with("\nstarted\n");
    let short = Bundle::inside(container.sandbox().clone()).sh("echo started >&2").caps(&["CAP_SYS_TIME", "CAP_KILL"]);
    let run = by_hand(&short, &[], &["run", short.name()]);
    let run = run.started_by(["/usr/bin/setpriv", "--bounding-set", "-sys_time"]).run();
    assert!(both(&run.ok().stderr()), "{}", run.stderr());
    // The program's own stream, which nothing may follow it into.
    let detached = without(&["run", "--detach", container.name()]).run();
    detached.ok();
    eventually("the program has started", || detached.stderr().ends_with("started\n"));
    assert!(both(&detached.stderr()), "{}", detached.stderr());
    let exec = without(&["exec", container.name(), "sh", "-c", "echo started >&2"]).run();
    assert!(both(&exec.ok().stderr()), "{}", exec.stderr());
    let exec = without(&["exec", "--detach", container.name(), "sh", "-c", "echo started >&2"]).run();
    eventually("the other program has started", || exec.stderr().ends_with("started\n"));
    assert!(both(&exec.stderr()), "{}", exec.stderr());
}

#[test]
fn a_command_that_fails_says_only_why_unless_more_is_asked_for() {
    if peers_lack_it() {
        return;
    }
    let container = chatty().args(["nosuch"]);
    let outcome = by_hand(&container, &[], &["create", container.name()]).run();
    assert_eq!(messages(&outcome.code(1).stderr(), "warning"), [""; 0]);
    assert_eq!(messages(&outcome.stderr(), "error").len(), 1, "{}", outcome.stderr());
    let outcome = by_hand(&container, &["--log-level", "warn"], &["create", container.name()]).run();
    assert_eq!(messages(&outcome.code(1).stderr(), "warning"), [UNKNOWN]);
    assert_eq!(messages(&outcome.stderr(), "error").len(), 1, "{}", outcome.stderr());
}

#[test]
fn debugging_tells_each_step_of_both_sides_once() {
    if peers_lack_it() {
        return;
    }
    let container = chatty();
    let steps = [
        "configuration read",
        "plan made",
        "id reserved",
        "container process created",
        "container: namespaces entered",
        "container: mounts and devices created",
        "container: root pivoted",
        "container: user and capabilities set",
        "container: execve is next",
        "program runs",
        "program ended",
        "cgroup removed",
        "poststop hooks run",
    ];
    for options in [&["--debug"][..], &["--log-level", "trace"], &["--log-level", "debug"]] {
        let outcome = by_hand(&container, options, &["run", container.name()]).run();
        let said = messages(&outcome.ok().stderr(), "debug");
        for step in steps {
            assert_eq!(said.iter().filter(|line| *line == step).count(), 1, "{step}: {said:?}");
        }
        assert_eq!(messages(&outcome.stderr(), "warning"), [UNKNOWN, POSTSTOP]);
        // From the moment in which it may run to its end the stream is the program's.
        let stderr = outcome.stderr();
        let (before, after) = stderr.split_once("\nstarted\n").expect("the program's word");
        assert!(before.contains("record written") && after.contains("program ended"), "{stderr}");
    }
    let created = by_hand(&container, &["--debug"], &["create", container.name()]).run();
    let said = messages(&created.ok().stderr(), "debug");
    assert_eq!(said.last().map(String::as_str), Some("container waits at the exec fifo"), "{said:?}");
    by_hand(&container, &["--debug"], &["delete", container.name()]).run().ok();
}

#[test]
fn every_name_that_logrus_has_for_a_level_is_one() {
    if known_difference("runc", "has no --log-level") {
        return;
    }
    let names = ["panic", "fatal", "error", "warn", "warning", "info", "debug", "trace", "WARNING"];
    let container = Bundle::new();
    for name in names {
        if ["error", "warning", "debug"].contains(&name)
            || !known_difference("crun", "knows error, warning and debug alone")
        {
            by_hand(&container, &["--log-level", name], &["list"]).run().ok();
        }
    }
    by_hand(&container, &["--log-level", "loud"], &["list"]).run().fails();
}

// Words that suites, scripts and engines look for.

#[test]
fn a_working_directory_that_is_not_there_is_a_failed_chdir() {
    let container = Bundle::new().args(["sleep", "60"]);
    container.run_detached().ok();
    let outcome = container.exec_cmd(&["--cwd", "/no/such"], &["true"]).run();
    if !known_difference("runc", "makes the directory") {
        outcome.fails_with("chdir").fails_with("no such file or directory");
    }
    if !peers_lack_it() {
        outcome.fails_with("/process/cwd: chdir to cwd /no/such: no such file or directory");
    }
}

#[test]
fn a_file_that_no_cgroup_has_ends_in_the_words_of_its_errno() {
    let unified = json!({"memory.DOESNTEXIST": "baz"});
    let outcome = Bundle::new().args(["true"]).set("/linux/resources/unified", unified).run();
    if !known_difference("crun", "asks for the controller first") {
        outcome.fails_with("no such file or directory");
    }
    if !peers_lack_it() {
        let field = "/linux/resources/unified/memory.DOESNTEXIST: cgroup ";
        outcome.fails_with(field).fails_with(" has no memory.DOESNTEXIST: ");
    }
}

#[test]
fn a_link_in_place_of_proc_is_no_ordinary_directory() {
    let container = Bundle::new().args(["true"]);
    container.write();
    fs::remove_dir(container.rootfs().join("proc")).expect("take proc out of the image");
    let outcome = container.link("/proc", "/somewhere").run();
    outcome.fails();
    if !known_difference("crun", "words of its own") {
        outcome.fails_with("must be mounted on ordinary directory");
    }
}

#[test]
fn a_hook_that_fails_is_named_by_its_stage_and_number() {
    for stage in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
        let container = Bundle::new().args(["sleep", "60"]);
        let outcome = container.hook(stage, "true").hook(stage, "echo sorry >&2; exit 3").run();
        outcome.fails();
        if !known_difference("crun", "words of its own") {
            outcome.fails_with(&format!("error running {stage} hook #1:")).fails_with("exit status 3");
        }
        if !peers_lack_it() {
            outcome.fails_with(&format!(": /hooks/{stage}/1: exit status 3, it printed: sorry"));
        }
    }
}

#[test]
fn an_exec_that_fails_says_so_and_what_execve_refuses_stands_behind_exec() {
    let script = "#!/no/interpreter\n";
    let container = Bundle::new().args(["sleep", "60"]).file("/run.sh", script, 0o755);
    container.run_detached().ok();
    for (program, words) in [
        ("/no/such/program", "no such file or directory"),
        ("nosuch", "executable file not found in $PATH"),
        ("/run.sh", "exec /run.sh: no such file or directory"),
    ] {
        let outcome = container.exec(&[program]);
        outcome.fails();
        if !known_difference("crun", "words of its own") {
            outcome.fails_with(words);
            if program != "/run.sh" || !known_difference("runc", "leaves it out behind execve") {
                outcome.fails_with("exec failed");
            }
        }
    }
    let outcome = Bundle::new().args(["/run.sh"]).file("/run.sh", script, 0o755).run();
    outcome.fails();
    if !known_difference("crun", "words of its own") {
        outcome.fails_with("exec /run.sh: no such file or directory");
    }
}

#[test]
fn a_cgroup_that_is_not_below_the_containers_is_a_bad_one() {
    let container = Bundle::new().args(["sleep", "60"]);
    container.run_detached().ok();
    let outcome = container.exec_cmd(&["--cgroup", "../x"], &["true"]).run();
    outcome.fails();
    if !known_difference("crun", "words of its own") {
        outcome.fails_with("../x is not a sub cgroup path");
        if !known_difference("runc", "says the other half from 1.4 on") {
            outcome.fails_with("bad sub cgroup path");
        }
    }
}

#[test]
fn a_memory_policy_that_is_none_says_which_part_of_it() {
    if peers_lack_it() {
        return;
    }
    for (policy, words) in [
        (json!({"mode": "INTERLEAVE", "nodes": "0"}), "invalid memory policy mode: /linux/memoryPolicy/mode: unknown"),
        (json!({"nodes": "0-7"}), "invalid memory policy mode: /linux/memoryPolicy: missing field `mode`"),
        (
            json!({"mode": "MPOL_PREFERRED", "flags": ["badflag"]}),
            "invalid memory policy flag: /linux/memoryPolicy/flags/0",
        ),
        (json!({"mode": "MPOL_BIND", "nodes": "0-9876543210"}), "invalid memory policy nodes: "),
        (
            json!({"mode": "MPOL_DEFAULT", "nodes": "0-7"}),
            "set_mempolicy: /linux/memoryPolicy: MPOL_DEFAULT takes no nodes: invalid argument",
        ),
    ] {
        Bundle::new().args(["true"]).set("/linux/memoryPolicy", policy).run().fails_with(words);
    }
}

#[test]
fn a_scheduling_policy_names_the_rule_that_is_broken() {
    if known_difference("runc", "tells only the errno") {
        return;
    }
    let deadline = |runtime: Value, deadline: Value, period: Value| {
        let mut scheduler = json!({"policy": "SCHED_DEADLINE"});
        for (key, value) in [("runtime", runtime), ("deadline", deadline), ("period", period)] {
            if !value.is_null() {
                scheduler[key] = value;
            }
        }
        let outcome = Bundle::new().args(["true"]).set("/process/scheduler", scheduler).run();
        outcome.fails().says_one_of(&["sched_setattr: `SCHED_DEADLINE` "]);
        outcome
    };
    let none = Value::Null;
    let ms = |number: u64| json!(number * 1_000_000);
    deadline(none.clone(), ms(20), ms(20)).fails_with("requires `runtime`");
    deadline(ms(10), none.clone(), ms(20)).fails_with("requires `deadline`");
    deadline(json!(0), ms(20), ms(20)).fails_with("runtime must be greater than 0");
    deadline(ms(30), ms(20), ms(40)).fails_with("runtime (30000000) must be <= deadline (20000000)");
    deadline(ms(10), ms(30), ms(20)).fails_with("deadline (30000000) must be <= period (20000000)");
    deadline(json!(1023), ms(10), none.clone()).fails_with("runtime (1023) must be between 1024 and ");
    deadline(json!(u64::MAX), json!(u64::MAX), none).fails_with("must be between 1024 and ");
    if peers_lack_it() {
        return;
    }
    let long = deadline(ms(10), ms(10), ms(3_600_000));
    long.fails_with("set scheduling policy SCHED_DEADLINE: invalid argument (the period must be between ");
    let without =
        |policy: &str| Bundle::new().args(["true"]).set("/process/scheduler", json!({"policy": policy})).run();
    without("SCHED_FIFO").fails_with("/process/scheduler: SCHED_FIFO requires a priority between 1 and 99");
    without("SCHED_ISO").fails_with("invalid argument (Linux has no SCHED_ISO)");
}

// On a terminal.

/// What a terminal shows of this command, whose status is this.
#[track_caller]
fn shown(command: Cmd, code: i32) -> String {
    let mut terminal = Terminal::new();
    let mut replica = File::from(terminal.replica());
    command.on_terminal(replica.try_clone().expect("duplicate the terminal").into()).run().code(code);
    // What is still on its way comes before what is written now.
    replica.write_all(b"THE END").expect("write to the terminal");
    terminal.until("THE END");
    terminal.seen().replace("\r\n", "\n").split("THE END").next().unwrap_or_default().to_owned()
}

#[test]
fn on_a_terminal_an_error_is_a_sentence_and_its_remedy_another() {
    if peers_lack_it() {
        return;
    }
    let container = Bundle::new().args(["nosuch"]);
    let create = || by_hand(&container, &[], &["create", container.name()]);
    let name = container.name();
    let why = format!("create {name}: exec: \"nosuch\": executable file not found in $PATH: no such file or directory");
    let remedy = "check that it is in the image, and its directory in PATH of process.env";
    assert_eq!(shown(create(), 1), format!("error: {why}\n  hint: {remedy}\n"));
    let coloured = format!("\u{1b}[1;31merror:\u{1b}[0m {why}\n  \u{1b}[1;36mhint:\u{1b}[0m {remedy}\n");
    assert_eq!(shown(create().env("TERM", "xterm"), 1), coloured);
    assert_eq!(shown(create().env("TERM", "xterm").env("NO_COLOR", ""), 1), coloured);
    assert_eq!(
        shown(create().env("TERM", "xterm").env("NO_COLOR", "1"), 1),
        format!("error: {why}\n  hint: {remedy}\n")
    );
    // The log has a record, wherever stderr goes.
    let log = container.host_file("log", "");
    let options = ["--log", log.to_str().expect("plain")];
    let seen = shown(by_hand(&container, &options, &["create", name]), 1);
    assert_eq!(seen, format!("error: {why}\n  hint: {remedy}\n"));
    let text = fs::read_to_string(&log).expect("the log");
    assert_eq!(messages(&text, "error"), [format!("{why} ({remedy})")]);
    // Whoever asks for a form gets it.
    for (form, begin) in [("text", "time=\""), ("json", "{\"errno\":\"ENOENT\",\"hint\":\"check ")] {
        let seen = shown(by_hand(&container, &["--log-format", form], &["create", name]), 1);
        assert!(seen.starts_with(begin) && seen.lines().count() == 1, "{seen}");
    }
    // A pipe or a file gets the record that programs know.
    let stderr = create().run().code(1).stderr();
    assert_eq!(messages(&stderr, "error"), [format!("{why} ({remedy})")]);
}

#[test]
fn on_a_terminal_warnings_and_misuse_have_the_same_form() {
    if peers_lack_it() {
        return;
    }
    let container = chatty();
    let name = container.name();
    assert_eq!(shown(by_hand(&container, &[], &["create", name]), 0), format!("warning: {UNKNOWN}\n"));
    assert_eq!(shown(by_hand(&container, &[], &["delete", name]), 0), format!("warning: {POSTSTOP}\n"));
    let nowhere = ["--log", "/no/such/log", "--log-format", "text"];
    let closed = "open the log /no/such/log: no such file or directory";
    assert_eq!(shown(by_hand(&container, &nowhere[..2], &["list"]), 1), format!("error: {closed}\n"));
    assert_eq!(messages(&by_hand(&container, &nowhere, &["list"]).run().code(1).stderr(), "error"), [closed]);
    let why = "unexpected argument '--bundel' found";
    let run = ["run", "--bundel", "x", name];
    let seen = shown(by_hand(&container, &[], &run), 1);
    let [first, second] = seen.lines().collect::<Vec<_>>()[..] else { panic!("{seen}") };
    assert_eq!(first, format!("error: {why}"));
    assert!(second.starts_with("  hint: a similar argument exists: '--bundle'; usage: corten run "), "{second}");
    // In a log there is a record of it, and only there.
    let log = container.host_file("log", "");
    let outcome = by_hand(&container, &["--log", log.to_str().expect("plain"), "--log-format", "json"], &run).run();
    assert!(outcome.code(1).stderr().starts_with(&format!("error: {why}\n\n")), "{}", outcome.stderr());
    let text = fs::read_to_string(&log).expect("the log");
    let record: Value = serde_json::from_str(&text).expect("one record");
    assert_eq!(
        (&record["level"], record["msg"].as_str().map(|text| text.starts_with(why))),
        (&json!("error"), Some(true))
    );
    // Help is no error.
    let help = shown(by_hand(&container, &[], &["--help"]), 0);
    assert!(!help.starts_with("error:") && help.contains("create"), "{help}");
}

#[test]
fn a_terminal_of_the_containers_has_nothing_of_the_runtimes() {
    if peers_lack_it() {
        return;
    }
    let container = chatty().set("/process/terminal", true).sh("echo started");
    let seen = shown(by_hand(&container, &[], &["run", container.name()]), 0);
    assert_eq!(seen, format!("warning: {UNKNOWN}\nstarted\nwarning: {POSTSTOP}\n"));
}

// Where a container is.

#[test]
fn a_container_that_is_not_there_is_looked_for_where_engines_keep_theirs() {
    if peers_lack_it() {
        return;
    }
    let container = Bundle::new().args(["sleep", "60"]);
    let run = container.host_dir("run");
    host_command(&["mount", "--bind", run.to_str().expect("plain"), "/run"]);
    let docker = "/run/docker/runtime-runc/moby";
    let k8s = "/run/containerd/runc/k8s.io";
    let id = "4fe3bd09c6e1";
    container.write();
    let bundle = container.path().to_str().expect("plain");
    let cmd = |words: &[&str]| Cmd::bare(container.sandbox(), words.iter().copied()).run();
    let said = |words: &[&str]| cmd(words).code(1).stderr();
    let nowhere = "container does not exist: nosuch (not in the state root /run/corten, nor in that of an engine; \
                   give another with --root)";
    assert_eq!(messages(&said(&["state", "nosuch"]), "error"), [format!("state nosuch: {nowhere}")]);
    cmd(&["--root", docker, "run", "--detach", "--bundle", bundle, id]).ok();
    let there = format!("in {docker}, which is Docker's: give that as --root");
    for words in [&["state", id][..], &["kill", id], &["delete", id]] {
        let lacks = format!("container does not exist: {id} (not in the state root /run/corten, but {there})");
        assert!(said(words).contains(&lacks), "{words:?}: {}", said(words));
    }
    assert!(said(&["state", "4fe3"]).contains(&format!("but {id} {there})")), "{}", said(&["state", "4fe3"]));
    let other = said(&["--root", k8s, "state", id]);
    assert!(other.contains(&format!("(not in the state root {k8s}, but {there})")), "{other}");
    cmd(&["--root", docker, "state", id]).ok();
    cmd(&["--root", docker, "delete", "--force", id]).ok();
}

#[test]
fn a_list_of_all_roots_has_the_containers_of_engines() {
    if peers_lack_it() {
        return;
    }
    let container = Bundle::new().args(["sleep", "60"]);
    let run = container.host_dir("run");
    host_command(&["mount", "--bind", run.to_str().expect("plain"), "/run"]);
    let cmd = |words: &[&str]| Cmd::bare(container.sandbox(), words.iter().copied()).run();
    assert_eq!(cmd(&["list", "--all-roots", "--quiet"]).ok().stdout(), "");
    let places =
        ["/run/corten", "/run/docker/runtime-runc/moby", "/run/user/1000/corten", "/run/containerd/runc/k8s.io"];
    for (number, root) in places.iter().enumerate() {
        let other = Bundle::inside(container.sandbox().clone()).args(["sleep", "60"]);
        other.write();
        let bundle = other.path().to_str().expect("plain");
        cmd(&["--root", root, "create", "--bundle", bundle, &format!("c{number}")]).ok();
    }
    // Another runtime's.
    fs::create_dir_all("/run/runc/other").expect("make a directory of another runtime");
    fs::write("/run/runc/other/state.json", "{}").expect("write a state of another runtime");
    let expected = [
        "c0 /run/corten",
        "c2 /run/user/1000/corten",
        "c1 /run/docker/runtime-runc/moby",
        "c3 /run/containerd/runc/k8s.io",
    ];
    let table = cmd(&["list", "--all-roots"]).ok().lines();
    let ends = |line: &String| Some(format!("{} {}", line.split_whitespace().next()?, line.split_whitespace().last()?));
    assert_eq!(table.iter().filter_map(ends).collect::<Vec<_>>(), [&["ID ROOT"][..], &expected].concat());
    let list = cmd(&["list", "--all-roots", "--format", "json"]).json();
    let pair = |entry: &Value| Some(format!("{} {}", entry["id"].as_str()?, entry["root"].as_str()?));
    assert_eq!(list.as_array().expect("a list").iter().filter_map(pair).collect::<Vec<_>>(), expected);
    assert_eq!(list[1]["status"], "created");
    assert_eq!(cmd(&["list", "-q"]).ok().stdout(), "c0\n");
    let own = cmd(&["--root", places[1], "list", "--all-roots", "-q"]).ok().lines();
    assert_eq!(own, ["c1", "c0", "c2", "c3"]);
    for (number, root) in places.iter().enumerate() {
        cmd(&["--root", root, "delete", &format!("c{number}")]).ok();
    }
}
