//! What the runtime says by the way, and how it looks: warnings, steps, errors on a terminal.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Bundle, Cmd, eventually, known_difference, peers_lack_it};

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
    let said = "the runtime itself does not have CAP_SYS_TIME: the container does not get it";
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
        "container's process made",
        "container: namespaces entered",
        "container: mounts and devices made",
        "container: root changed",
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
    assert_eq!(said.last().map(String::as_str), Some("container waits at its gate"), "{said:?}");
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
