//! Kill, delete, state and list: what callers rely on when things end, race or break.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{Bundle, Cmd, End, eventually, known_difference, peers_lack_it, skip};

const GONE: &[&str] = &["not running", "no such process", "already finished"];

// B50: kill.

#[test]
fn b50_killing_a_stopped_container_says_that_it_is_not_running() {
    let container = Bundle::new().args(["true"]);
    container.run_detached().ok();
    container.until("stopped");
    for signal in ["TERM", "KILL", "9", "0"] {
        container.kill(signal).fails_with_one_of(GONE);
    }
    container.delete().ok();
    container.kill("TERM").fails_with("does not exist");
}

#[test]
fn b50_killing_what_was_never_there_says_that_it_does_not_exist() {
    Bundle::new().id("nosuch").kill("TERM").fails_with("does not exist");
}

/// A running container that prints the number of each signal it gets.
fn listener(signals: &[&str]) -> Bundle {
    let traps: String = signals.iter().map(|number| format!("trap 'echo got-{number}-' {number}; ")).collect();
    let container = Bundle::new().sh(&format!("{traps} echo ready; while :; do usleep 10000; done"));
    container.run_detached().ok();
    container.until_output("ready");
    container
}

#[test]
fn b50_signals_are_known_by_name_and_number() {
    let container = listener(&["1", "10", "12", "15"]);
    for (word, number) in
        [("HUP", "1"), ("SIGUSR1", "10"), ("sigusr2", "12"), ("term", "15"), ("1", "1"), ("10", "10"), ("Usr2", "12")]
    {
        if matches!(word, "sigusr2" | "term" | "Usr2") && known_difference("crun", "wants upper case") {
            continue;
        }
        let before = container.output().matches(&format!("got-{number}-")).count();
        container.kill(word).ok();
        let now = || container.output().matches(&format!("got-{number}-")).count();
        eventually(&format!("{word} arrives as {number}"), || now() > before);
    }
    let before = container.output().matches("got-15-").count();
    container.cmd(["kill", container.name()]).run().ok();
    eventually("the default is TERM", || container.output().matches("got-15-").count() > before);
}

#[test]
fn b50_real_time_signals_have_names_and_numbers() {
    let container = listener(&["34", "37", "64"]);
    container.kill("37").ok();
    container.until_output("got-37-");
    container.kill("64").ok();
    container.until_output("got-64-");
    if known_difference("runc", "no names for real-time signals") {
        return;
    }
    container.kill("SIGRTMIN+3").ok();
    eventually("SIGRTMIN+3 arrives", || container.output().matches("got-37-").count() == 2);
    if known_difference("crun", "wants upper case") {
        return;
    }
    container.kill("rtmin").ok();
    container.until_output("got-34-");
    container.kill("RTMAX").ok();
    eventually("RTMAX arrives", || container.output().matches("got-64-").count() == 2);
}

#[test]
fn b50_words_that_are_no_signal_are_refused_and_nothing_is_sent() {
    let container = listener(&["1"]);
    for word in ["BOGUS", "65", "-5", "SIG", "1x", "RTMIN+99", "4294967297"] {
        if matches!(word, "65" | "4294967297") && known_difference("runc", "does not check the range, even wraps") {
            continue;
        }
        container.cmd(["kill", container.name(), "--", word]).run().fails();
    }
    assert_eq!(container.status(), "running");
}

#[test]
fn b50_signal_zero_only_probes() {
    let container = listener(&["1"]);
    container.kill("0").ok();
    assert_eq!(container.status(), "running");
}

#[test]
fn a_created_container_can_be_killed() {
    let container = Bundle::new().args(["true"]);
    container.create().ok();
    container.kill("KILL").ok();
    assert_eq!(container.wait(), End::Signal(9));
    container.until("stopped").delete().ok();
}

#[test]
fn kill_all_reaches_what_is_left_in_the_cgroup() {
    let container = Bundle::new().without_ns("pid").sh("sleep 1000 & echo ready; exec sleep 1001");
    container.run_detached().ok();
    container.until_output("ready");
    container.signal(Signal::SIGKILL);
    container.wait();
    container.until("stopped");
    container.cmd(["kill", "--all", container.name(), "9"]).run().ok();
    eventually("the cgroup is empty", || {
        fs::read_to_string(container.cgroup().join("cgroup.procs")).unwrap_or_default().is_empty()
    });
    container.delete().ok();
}

// B44: init is a zombie.

#[test]
fn b44_a_zombie_is_a_stopped_container() {
    // The runtime's caller never waits: busybox' shell becomes the parent by way of a subreaper of its own.
    let container = Bundle::new().args(["sleep", "60"]);
    container.create().ok();
    container.start().ok();
    container.signal(Signal::SIGKILL);
    eventually("it is dead or a zombie", || {
        fs::read_to_string(format!("/proc/{}/stat", container.pid())).map_or(true, |stat| stat.contains(") Z"))
    });
    assert_eq!(container.status(), "stopped");
    container.kill("TERM").fails_with_one_of(GONE);
    container.delete().ok();
}

// B52: the runtime dies in the middle of create.

/// Nothing of the container is alive in its cgroup.
fn is_clean(container: &Bundle) -> bool {
    fs::read_to_string(container.cgroup().join("cgroup.procs")).unwrap_or_default().is_empty()
}

#[test]
fn b52_a_create_killed_during_a_hook_is_cleaned_up_by_delete() {
    let container = Bundle::new().args(["true"]).hook("createRuntime", "echo >hook-runs; sleep 30");
    let running = container.create_cmd(&[]).spawn();
    eventually("the hook runs", || container.path().join("hook-runs").exists());
    running.signal(Signal::SIGKILL);
    drop(running.wait());
    eventually("the container's process dies with its creator", || is_clean(&container));
    container.delete_force().ok();
    container.state().fails_with("does not exist");
    if known_difference("crun", "leaves the cgroup") || known_difference("runc", "leaves the cgroup") {
        return;
    }
    assert!(!container.cgroup().exists(), "the cgroup is left");
    let again = container.unset("/hooks");
    again.create().ok();
    assert_eq!(again.status(), "created");
}

#[test]
fn b52_a_create_killed_at_any_time_is_cleaned_up_by_delete() {
    if known_difference("crun", "may leave the process and half a state") {
        return;
    }
    let container = Bundle::new().args(["sleep", "60"]);
    for step in 0..40u64 {
        let running = container.create_cmd(&[]).spawn();
        std::thread::sleep(Duration::from_micros(step * 750));
        running.signal(Signal::SIGKILL);
        drop(running.wait());
        // Whatever there is has a state, or does not exist.
        let state = container.state();
        if !state.succeeded() {
            state.fails_with("does not exist");
        }
        container.delete_force().ok();
        container.state().fails_with("does not exist");
        eventually("no process is left", || is_clean(&container));
        if !known_difference("runc", "leaves the cgroup") {
            assert!(!container.cgroup().exists(), "killed after {} µs: the cgroup is left", step * 750);
        }
    }
    container.create().ok();
    assert_eq!(container.status(), "created");
}

#[test]
fn b52_a_created_container_outlives_its_creator() {
    let container = Bundle::new().args(["echo", "alive"]);
    container.create().ok();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(container.status(), "created");
    container.start().ok();
    container.until_output("alive");
}

// B54: delete.

#[test]
fn b54_delete_takes_created_and_stopped_ones_but_not_running_ones() {
    let container = Bundle::new().args(["sleep", "60"]);
    container.create().ok();
    let pid = container.pid();
    container.delete().ok();
    eventually("the waiting process is gone", || !std::path::Path::new(&format!("/proc/{pid}")).exists());
    container.state().fails_with("does not exist");

    container.run_detached().ok();
    container.delete().fails_with_one_of(&["not stopped", "running", "not in `created` or `stopped` state"]);
    assert_eq!(container.status(), "running");
    container.kill("KILL").ok();
    container.until("stopped").delete().ok();

    container.run_detached().ok();
    container.delete_force().ok();
    container.state().fails_with("does not exist");
}

#[test]
fn b54_forcing_a_delete_of_nothing_succeeds() {
    let nothing = Bundle::new().id("nosuch");
    nothing.delete_force().ok();
    if known_difference("crun", "says that its directory is not there") {
        return;
    }
    nothing.delete().fails_with("does not exist");
}

#[test]
fn delete_removes_the_cgroups_that_the_container_made() {
    let script = "mkdir -p /sys/fs/cgroup/a/b/c /sys/fs/cgroup/d && echo made && sleep 60";
    let container = Bundle::new().mount_options("/sys/fs/cgroup", |options| options.retain(|word| word != "ro"));
    let container = container.sh(script);
    container.run_detached().ok();
    container.until_output("made");
    container.delete_force().ok();
    assert!(!container.cgroup().exists(), "the cgroup is left");
}

// B55: looking while containers end.

#[test]
fn b55_state_list_and_ps_never_stumble_over_an_ending_container() {
    if known_difference("crun", "a state file that is not there yet is an error") {
        return;
    }
    let container = Bundle::new().args(["true"]);
    let sandbox = container.sandbox().clone();
    let done = std::sync::atomic::AtomicBool::new(false);
    let id = container.name().to_owned();
    std::thread::scope(|scope| {
        for look in [vec!["state", &id], vec!["list", "-f", "json"], vec!["ps", "-f", "json", &id]] {
            let (sandbox, done) = (&sandbox, &done);
            scope.spawn(move || {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let seen = Cmd::new(sandbox, &look).run();
                    if seen.succeeded() {
                        seen.json();
                    } else if look[0] == "ps" && seen.says_one_of(&["not running", "stopped"]) {
                        continue;
                    } else if look[0] == "list" || !seen.says_one_of(&["does not exist"]) {
                        done.store(true, std::sync::atomic::Ordering::Relaxed);
                        seen.fail("neither a state nor gone");
                    }
                }
            });
        }
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(3) && !done.load(std::sync::atomic::Ordering::Relaxed) {
            container.run();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

// ps and its options.

#[test]
fn ps_shows_the_container_and_nobody_else_whatever_its_columns_are() {
    if known_difference("crun", "hands no options to ps") {
        return;
    }
    let script = "sleep 1000 & echo up; exec sleep 1001";
    let container = Bundle::new().sh(script);
    container.run_detached().ok();
    container.until_output("up");
    let procs = || fs::read_to_string(container.cgroup().join("cgroup.procs")).expect("the processes");
    let line = |pid: &str| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    eventually("both are there", || {
        let both = procs();
        both.lines().count() == 2 && both.lines().all(|pid| line(pid).starts_with(b"sleep\x00100"))
    });
    let text = procs();
    let (first, second) = text.split_once('\n').expect("two lines");
    // Somebody else, in whose command line a pid of the container's stands in every place.
    let words = [first, second.trim(), "1002", first, second.trim(), first, first];
    let other = Cmd::bare(container.sandbox(), words).program("/bin/sleep").spawn();
    let ps = |options: &[&str]| {
        let outcome = container.cmd([&["ps", container.name()], options].concat()).run();
        outcome.ok().lines()
    };
    let shows = |options: &[&str], head: &[&str]| {
        let lines = ps(options);
        let words: Vec<&str> = lines[0].split_whitespace().collect();
        assert_eq!(words, head, "{options:?}");
        let has = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
        assert_eq!((lines.len(), has("sleep 1000"), has("sleep 1001")), (3, 1, 1), "{options:?}: {lines:#?}");
    };
    let full = &["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
    shows(&[], full);
    shows(&["-ef"], full);
    shows(&["aux"], &["USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND"]);
    shows(&["-eo", "pid,args"], &["PID", "COMMAND"]);
    shows(&["-e", "-O", "cmd"], &["PID", "CMD", "S", "TTY", "TIME", "COMMAND"]);
    if known_difference("runc", "takes the words of a command for columns, and wants a column PID") {
        return;
    }
    shows(&["-eo", "cmd,ppid,pid"], &["CMD", "PPID", "PID"]);
    shows(&["axo", "args,pid"], &["COMMAND", "PID"]);
    shows(&["-e", "--format", "lstart,pid,args"], &["STARTED", "PID", "COMMAND"]);
    shows(&["-eo", "user,args"], &["USER", "COMMAND"]);
    shows(&["-eo", "pid=NUMBER,args"], &["NUMBER", "COMMAND"]);
    assert_eq!(ps(&["-e", "-o", "args=", "--sort=-args"]), ["sleep 1001", "sleep 1000"]);
    assert_eq!(ps(&["-C", "nosuch", "-o", "args"]).len(), 1);
    container.cmd(["ps", container.name(), "-eo", "nosuch"]).run().fails_with("ps: error: unknown user-defined format");
    other.signal(Signal::SIGKILL);
    other.wait();
}

// B58: ids.

#[test]
fn b58_ids_that_the_rule_allows() {
    let long = "0123456789abcdef".repeat(4);
    for id in ["a", "a.b_c-1+d", long.as_str(), "+x", "_", "a..b", "9"] {
        let container = Bundle::new().id(id).args(["true"]);
        container.create().ok();
        assert_eq!(container.state().json()["id"], id);
        container.delete_force().ok();
    }
    let container = Bundle::new().id("-x").args(["true"]);
    container.write();
    container.cmd(["create", "--bundle", container.path().to_str().expect("a plain path"), "--", "-x"]).run().ok();
    container.cmd(["delete", "--force", "--", "-x"]).run().ok();
}

#[test]
fn b58_ids_that_the_rule_forbids_leave_nothing_behind() {
    let long = "a".repeat(1024);
    for id in [".", "..", ".x", "a/b", "../a", "a b", "", "ä", "a\n", "a\tb", "a*", long.as_str()] {
        if id == ".x" && known_difference("runc", "allows a dot at the beginning") {
            continue;
        }
        let container = Bundle::new().id(id).args(["true"]);
        let made = |container: &Bundle| {
            let root = fs::read_dir(container.sandbox().root()).expect("the state root");
            root.flatten().map(|entry| entry.file_name()).filter(|name| name != ".lock").collect::<Vec<_>>()
        };
        let before = made(&container);
        container.create().fails();
        assert_eq!(made(&container), before, "{id:?} left something in the state root");
        assert!(!container.sandbox().dir().join("a").exists());
        for command in ["state", "start", "kill", "delete"] {
            container.cmd([command, id]).run().fails();
        }
    }
}

#[test]
fn b58_the_message_states_the_rule() {
    Bundle::new().id("a b").args(["true"]).create().fails_with_one_of(&[
        "invalid container id",
        "invalid character",
        "id format",
    ]);
}

// Output forms (contract 1.7).

#[test]
fn state_tells_what_callers_parse() {
    let container = Bundle::new().args(["sleep", "60"]).set("/annotations", serde_json::json!({"org.x/y": "z\"/"}));
    container.create().ok();
    let outcome = container.state();
    assert_eq!(outcome.ok().stderr(), "", "callers parse both streams together");
    if !known_difference("runc", "ends without a new line") {
        assert!(outcome.stdout().ends_with("}\n"), "{:?}", outcome.stdout());
    }
    let state = outcome.json();
    assert_eq!(state["id"], container.name());
    assert_eq!(state["pid"], container.pid());
    assert_eq!(state["status"], "created");
    assert_eq!(state["bundle"], container.path().to_str().expect("a plain path"));
    if !known_difference("crun", "tells the root as it is spelled") {
        assert_eq!(state["rootfs"], container.rootfs().to_str().expect("a plain path"));
    }
    assert_eq!(state["annotations"]["org.x/y"], "z\"/");
    assert!(state["ociVersion"].is_string() && state["owner"].is_string());
    let created = state["created"].as_str().expect("created");
    assert!(created.len() >= 20 && created.as_bytes()[10] == b'T' && created.ends_with('Z'), "{created}");
    container.kill("KILL").ok();
    container.until("stopped");
    let state = container.state().json();
    assert_eq!((&state["pid"], &state["status"]), (&0.into(), &"stopped".into()));
}

#[test]
fn list_has_a_table_json_and_ids() {
    let first = Bundle::new().args(["sleep", "60"]);
    assert!(matches!(first.cmd(["list", "-q"]).run().ok().stdout().as_str(), ""));
    let second = Bundle::inside(first.sandbox().clone()).args(["sleep", "60"]);
    first.create().ok();
    second.run_detached().ok();

    let mut ids = first.cmd(["list", "--quiet"]).run().lines();
    ids.sort();
    let mut expected = [first.name().to_owned(), second.name().to_owned()];
    expected.sort();
    assert_eq!(ids, expected);

    let json = first.cmd(["list", "--format", "json"]).run().json();
    let list = json.as_array().expect("an array");
    assert_eq!(list.len(), 2);
    let of = |id: &str| list.iter().find(|entry| entry["id"] == id).expect("the container");
    assert_eq!(of(first.name())["status"], "created");
    assert_eq!(of(second.name())["status"], "running");
    assert_eq!(of(second.name())["pid"], second.pid());
    assert_eq!(of(second.name())["owner"], "root");

    let table = first.cmd(["list"]).run();
    let lines = table.ok().lines();
    let words: Vec<&str> = lines[0].split_whitespace().collect();
    if !known_difference("crun", "calls the columns NAME and BUNDLE PATH") {
        assert_eq!(words, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    }
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().any(|line| line.starts_with(second.name()) && line.contains("running")));
}

#[test]
fn a_list_of_nothing_is_an_empty_json() {
    let nothing = Bundle::new().cmd(["list", "-f", "json"]).run().json();
    assert!(nothing.is_null() || nothing.as_array().is_some_and(Vec::is_empty), "{nothing}");
}

#[test]
fn many_are_killed_and_deleted_by_a_regular_expression() {
    if known_difference("runc", "has no such option") {
        return;
    }
    let first = Bundle::new().args(["sleep", "60"]);
    let all = [Bundle::inside(first.sandbox().clone()).args(["sleep", "60"]), first];
    for container in &all {
        container.run_detached().ok();
    }
    let command = |args: &[&str]| all[0].cmd(args).run();
    // Of one alone.
    command(&["delete", "--force", "--regex", &format!("^{}$", all[0].name())]).ok();
    all[0].state().fails();
    assert_eq!(all[1].status(), "running");
    command(&["delete", "--force", "--regex", "nothing-of-the-kind"]);
    assert_eq!(all[1].status(), "running");
    if !known_difference("crun", "crashes") {
        command(&["delete", "--regex", "("]).fails();
    }
    all[0].run_detached().ok();
    // A running one is deleted by no expression either, unless that is forced.
    let outcome = command(&["delete", "--regex", "."]);
    if !known_difference("crun", "complains and says 0") {
        outcome.fails();
    }
    assert!(all.iter().all(|container| container.status() == "running"));
    command(&["kill", "--regex", ".", "KILL"]).ok();
    all.iter().for_each(|container| _ = container.until("stopped"));
    command(&["delete", "--regex", "."]).ok();
    all.iter().for_each(|container| _ = container.state().fails());
}

#[test]
fn a_later_process_with_the_pid_of_init_is_not_the_container() {
    if peers_lack_it() {
        return;
    }
    // As if it had been another one: the record tells of a process that started earlier, or of one with another identity.
    let earlier = |record: &mut serde_json::Value| {
        record["start_time"] = (record["start_time"].as_u64().expect("a time") - 1).into();
    };
    let other = |record: &mut serde_json::Value| {
        // Linux 6.9 has identities.
        match record["identity"].as_u64() {
            Some(identity) => record["identity"] = (identity - 1).into(),
            None => record["boot"] = "of another boot".into(),
        }
    };
    for change in [&earlier as &dyn Fn(&mut serde_json::Value), &other] {
        let container = Bundle::new().args(["sleep", "60"]);
        container.run_detached().ok();
        let pid = container.pid();
        let file = container.sandbox().root().join(container.name()).join("record.json");
        let mut record: serde_json::Value =
            serde_json::from_slice(&fs::read(&file).expect("read it")).expect("a record");
        change(&mut record);
        fs::write(&file, record.to_string()).expect("write it");
        assert_eq!(container.status(), "stopped");
        container.kill("KILL").fails_with_one_of(GONE);
        container.exec(&["true"]).fails();
        assert!(fs::exists(format!("/proc/{pid}/root/bin")).is_ok_and(|there| there), "it was killed");
    }
}

/// Makes a process with this pid, which nobody may have, at once; it sleeps.
fn with_pid(pid: i32) -> nix::Result<()> {
    // SAFETY: plain integers, for which zero is the default; the kernel reads one pid from a live local. The child is a
    // copy of this memory and calls nothing but pause(2) and _exit(2), which is safe whatever other threads hold.
    unsafe {
        let mut args: libc::clone_args = std::mem::zeroed();
        (args.set_tid, args.set_tid_size, args.exit_signal) = (&raw const pid as u64, 1, libc::SIGCHLD as u64);
        match libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) {
            0 => {
                libc::pause();
                libc::_exit(0)
            }
            made => nix::errno::Errno::result(made).map(drop),
        }
    }
}

#[test]
fn a_process_that_has_got_the_pid_within_the_clock_tick_is_not_the_container() {
    let why = "tells processes of one clock tick apart by nothing";
    if known_difference("runc", why) || known_difference("crun", why) {
        return;
    }
    let mut within = 0;
    for _ in 0..40 {
        let container = Bundle::new().args(["sleep", "60"]);
        container.run_detached().ok();
        let pid = container.pid();
        let began = start_time(pid);
        container.signal(Signal::SIGKILL);
        container.wait();
        if with_pid(pid).is_err() {
            // Another test has it.
            continue;
        }
        within += usize::from(start_time(pid) == began);
        let status = container.status();
        let killed = container.kill("KILL");
        let lives = fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).expect("end it");
        assert_eq!(status, "stopped");
        killed.fails_with_one_of(GONE);
        assert!(lives, "somebody else was killed");
        container.delete().ok();
        if within > 1 {
            return;
        }
    }
    if within > 0 {
        return;
    }
    skip("no process got the pid within the clock tick in which the container was made");
}

/// Field 22 of proc_pid_stat(5).
fn start_time(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split(' ').nth(20).map(str::to_owned)
}
