//! `exec`: a second process in a running container.

use serde_json::json;

use crate::harness::{Bundle, Outcome, known_difference};

/// A running container.
fn running(bundle: Bundle) -> Bundle {
    let container = bundle.args(["sleep", "60"]);
    container.run_detached().ok();
    container
}

/// A process for `exec --process`.
fn process(args: &[&str]) -> serde_json::Value {
    json!({"args": args, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}})
}

fn sorted(outcome: &Outcome) -> Vec<String> {
    let mut lines = outcome.ok().lines();
    lines.retain(|line| !line.starts_with("HOME="));
    lines.sort();
    lines
}

#[test]
fn exec_runs_in_the_container() {
    let container = running(Bundle::new().file("/inside", "yes", 0o644));
    container.exec(&["cat", "/inside"]).prints("yes");
    container.exec(&["hostname"]).prints("corten");
    container.exec(&["probe", "ns"]).ok();
}

#[test]
fn b33_exec_starts_from_the_environment_of_the_configuration() {
    let container = running(Bundle::new().set("/process/env", json!(["PATH=/bin", "A=1", "B=2"])));
    assert_eq!(sorted(&container.exec(&["env"])), ["A=1", "B=2", "PATH=/bin"]);
    let seen = container.exec_cmd(&["-e", "B=3", "-e", "C=4"], &["env"]).run();
    assert_eq!(sorted(&seen), ["A=1", "B=3", "C=4", "PATH=/bin"]);
    let mut replacing = process(&["/bin/env"]);
    replacing["env"] = json!(["X=1"]);
    assert_eq!(sorted(&container.exec_process(&replacing)), ["X=1"]);
}

#[test]
fn b34_home_is_set_for_exec_too() {
    let passwd = "root:x:0:0:root:/root:/bin/sh\nbob:x:1001:1001::/home/bob:\n";
    let container = running(Bundle::new().file("/etc/passwd", passwd, 0o644));
    container.exec(&["env"]).shows("HOME=/root\n");
    container.exec_cmd(&["--user", "1001"], &["sh", "-c", "echo $HOME"]).run().prints("/home/bob");
    let mut plain = process(&["/bin/env"]);
    plain.as_object_mut().expect("an object").remove("env");
    if !known_difference("runc", "no HOME without env from 1.3.0 to 1.5.1") {
        container.exec_process(&plain).ok().shows("HOME=/root");
    }
}

#[test]
fn b37_exec_tells_the_kind_of_its_error_and_fails_with_255() {
    let container = running(Bundle::new().file("/locked", "", 0).file("/script", "#!/no/such/shell\n", 0o755));
    let own = |command: &str| {
        let outcome = container.exec(&[command]);
        if !known_difference("crun", "its own failures are 1") {
            outcome.code(255);
        }
        outcome
    };
    if !known_difference("crun", "says operation not permitted") {
        own("/etc").fails_with_one_of(&["is a directory", "permission denied"]);
        own("/locked").fails_with("permission denied");
    }
    own("nosuch").fails_with("executable file").fails_with("not found");
    own("/no/such").fails_with("no such file or directory");
    own("/script").fails_with("no such file or directory");
}

#[test]
fn b37_exec_passes_on_the_exit_code() {
    let container = running(Bundle::new());
    container.exec(&["sh", "-c", "exit 7"]).code(7);
    container.exec(&["sh", "-c", "kill -9 $$"]).code(137);
    container.exec(&["sh", "-c", "kill -TERM $$"]).code(143);
}

#[test]
fn exec_needs_a_running_container() {
    let container = Bundle::new().args(["true"]);
    container.exec(&["true"]).fails_with("does not exist");
    container.run_detached().ok();
    container.until("stopped").exec(&["true"]).fails_with_one_of(&["stopped", "not running"]);
}

#[test]
fn b72_exec_in_the_background_writes_its_pid() {
    let container = running(Bundle::new());
    let file = container.host_file("exec.pid", "999999999999");
    let options = ["--detach", "--pid-file", file.to_str().expect("a plain path")];
    container.exec_cmd(&options, &["sleep", "61"]).run().ok();
    let pid: i32 = std::fs::read_to_string(&file).expect("the pid file").parse().expect("digits and nothing else");
    let line = || std::fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("the process is there");
    crate::harness::eventually("the program runs", || line() == "sleep\x0061\0");
}

#[test]
fn b40_groups_are_those_of_the_process_given() {
    let bundle = Bundle::new().set("/process/user", json!({"uid": 0, "gid": 0, "additionalGids": [10, 20]}));
    let container = running(bundle);
    let mut other = process(&["grep", "Groups", "/proc/self/status"]);
    other["user"] = json!({"uid": 1, "gid": 1, "additionalGids": [5]});
    container.exec_process(&other).prints("Groups:\t5");
}

#[test]
fn a_process_without_a_user_is_the_containers() {
    let user = json!({"uid": 7, "gid": 8, "additionalGids": [9]});
    let container = running(Bundle::new().set("/process/user", user));
    let mut plain = process(&["sh", "-c", "echo $(id -u):$(id -g):$(id -G)"]);
    container.exec_process(&plain).ok().prints("0:0:0");
    if known_difference("runc", "root, whoever the container is") {
        return;
    }
    plain["user"] = serde_json::Value::Null;
    container.exec_process(&plain).ok().prints("7:8:8 9");
    plain.as_object_mut().expect("an object").remove("user");
    container.exec_process(&plain).ok().prints("7:8:8 9");
}

#[test]
fn a_process_of_another_type_is_refused_by_its_pointer() {
    let container = running(Bundle::new());
    if known_difference("crun", "takes some of them") {
        return;
    }
    for (pointer, value, said) in [
        ("", json!(["true"]), "must be an object, not an array"),
        ("/user", json!([0, 0]), "/user: must be an object, not an array"),
        ("/user", json!(0), "/user: must be an object, not a number"),
        ("/capabilities", json!([]), "/capabilities: must be an object, not an array"),
        ("/scheduler", json!(["SCHED_IDLE"]), "/scheduler: must be an object, not an array"),
        ("/scheduler", json!({"policy": {"SCHED_IDLE": null}}), "/scheduler/policy: must be a string, not an object"),
        ("/rlimits", json!([["RLIMIT_CORE", 0, 0]]), "/rlimits/0: must be an object, not an array"),
        ("/ioPriority", json!({"priority": 3}), "/ioPriority: missing field `class`"),
        ("/args", json!({"0": "true"}), "/args: "),
    ] {
        let mut process = process(&["true"]);
        match pointer.strip_prefix('/') {
            Some(name) => process[name] = value,
            None => process = value,
        }
        let outcome = container.exec_process(&process);
        outcome.code(255);
        if !known_difference("runc", "words of its own") {
            outcome.fails_with(said);
        }
    }
}

#[test]
fn exec_is_in_the_containers_cgroup_and_namespaces() {
    let container = running(Bundle::new());
    let options = ["--detach", "--pid-file", "exec.pid"];
    container.exec_cmd(&options, &["sleep", "62"]).cwd(container.path()).run().ok();
    let file = container.path().join("exec.pid");
    let pid = std::fs::read_to_string(file).expect("the pid file");
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "uts", "user"] {
        let ns = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a namespace");
        assert_eq!(ns(&pid), ns(&container.pid().to_string()), "{kind}");
    }
    let procs = std::fs::read_to_string(container.cgroup().join("cgroup.procs")).expect("cgroup.procs");
    assert!(procs.lines().any(|line| line == pid), "{pid} is not in {procs:?}");
}

#[test]
fn exec_can_give_up_new_privileges_and_cannot_take_them_back() {
    let seen = |container: &Bundle, options: &[&str]| {
        container.exec_cmd(options, &["grep", "NoNewPrivs", "/proc/self/status"]).run().ok().lines()
    };
    let free = running(Bundle::new().set("/process/noNewPrivileges", false));
    assert_eq!(seen(&free, &[]), ["NoNewPrivs:\t0"]);
    if known_difference("crun", "exec forbids new privileges only with --process") {
        return;
    }
    assert_eq!(seen(&free, &["--no-new-privs"]), ["NoNewPrivs:\t1"]);
    let bound = running(Bundle::new().set("/process/noNewPrivileges", true));
    assert_eq!(seen(&bound, &[]), ["NoNewPrivs:\t1"]);
}
