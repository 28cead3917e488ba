//! Hooks of all six kinds: when, where, with what, and what their failure does.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{Bundle, Outcome, known_difference};

const KINDS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

#[test]
fn hooks_run_in_the_order_of_the_standard() {
    let mut container = Bundle::new().sh("echo program >>/order; sleep 60");
    let order = container.rootfs().join("order");
    for kind in KINDS {
        let file = if kind == "startContainer" { "/order".into() } else { order.display().to_string() };
        for turn in [1, 2] {
            container = container.hook(kind, &format!("echo {kind}{turn} >>{file}"));
        }
    }
    let seen = || fs::read_to_string(&order).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
    container.create().ok();
    if known_difference("runc", "poststart hooks run at the end of create up to 1.5") {
        return;
    }
    let created =
        ["prestart1", "prestart2", "createRuntime1", "createRuntime2", "createContainer1", "createContainer2"];
    assert_eq!(seen(), created);
    if known_difference("crun", "poststart hooks do not wait for the program, and one that does not read kills it") {
        return;
    }
    container.start().ok();
    crate::harness::eventually("the program runs", || seen().contains(&"program".to_owned()));
    let mut started = seen().split_off(6);
    assert_eq!(&started[..2], ["startContainer1", "startContainer2"]);
    // The program runs beside the poststart hooks.
    started.retain(|line| line != "program");
    assert_eq!(&started[2..], ["poststart1", "poststart2"]);
    container.delete_force().ok();
    assert_eq!(&seen()[seen().len() - 2..], ["poststop1", "poststop2"]);
}

#[test]
fn b60_every_hook_gets_the_state_and_its_own_surroundings() {
    let mut container = Bundle::new().args(["sleep", "60"]).set("/annotations", json!({"a/b": "c/d"}));
    let dir = container.host_dir("seen");
    for kind in KINDS {
        let into = if kind == "startContainer" { "/tmp".to_owned() } else { dir.display().to_string() };
        let script = format!("cat >{into}/{kind}.json; pwd >{into}/{kind}.pwd; busybox env >{into}/{kind}.env");
        container = container.push(
            &format!("/hooks/{kind}"),
            json!({"path": "/bin/busybox", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin", "MINE=1"]}),
        );
    }
    container.create_cmd(&[]).env("LEAK", "1").run().ok();
    let pid = container.pid();
    container.cmd(["start", container.name()]).env("LEAK", "1").run().ok();
    container.delete_force().ok();
    let read = |kind: &str, what: &str| {
        let dir = if kind == "startContainer" { container.rootfs().join("tmp") } else { dir.clone() };
        fs::read_to_string(dir.join(format!("{kind}.{what}"))).unwrap_or_else(|e| panic!("{kind}.{what}: {e}"))
    };
    for (kind, statuses) in [
        ("prestart", ["creating", "created"]),
        ("createRuntime", ["creating", "created"]),
        ("createContainer", ["creating", "created"]),
        ("startContainer", ["created", "starting"]),
        ("poststart", ["running", "running"]),
        ("poststop", ["stopped", "stopped"]),
    ] {
        let text = read(kind, "json");
        let state: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{kind}: {e}: {text}"));
        let bundle = container.path().to_str().expect("a plain path");
        assert_eq!(state["id"], container.name(), "{kind}");
        if kind != "startContainer" || !known_difference("crun", "the bundle is told as /") {
            assert_eq!(state["bundle"], bundle, "{kind}");
        }
        assert_eq!(state["annotations"]["a/b"], "c/d", "{kind}");
        assert!(state["ociVersion"].is_string(), "{kind}");
        let status = state["status"].as_str().unwrap_or_default();
        if kind != "poststart" || !known_difference("runc", "poststart hooks run at the end of create up to 1.5") {
            assert!(statuses.contains(&status), "{kind}: status {status}");
        }
        if !known_difference("crun", "pretty JSON with escaped slashes") {
            assert_eq!(text.trim_end().lines().count(), 1, "{kind}: {text}");
            assert!(!text.contains("\\/"), "{kind}: {text}");
        }
        if matches!(kind, "prestart" | "createRuntime" | "poststart") {
            assert_eq!(state["pid"], pid, "{kind}");
        }
        if matches!(kind, "prestart" | "createRuntime")
            && !known_difference("crun", "hooks run in the caller's directory")
        {
            assert_eq!(read(kind, "pwd").trim(), bundle, "{kind}");
        }
        let env = read(kind, "env");
        assert!(env.contains("MINE=1"), "{kind}: {env}");
        assert!(!env.contains("LEAK"), "{kind}: {env}");
    }
}

#[test]
fn hooks_before_the_pivot_see_the_namespaces_that_the_standard_gives_them() {
    let container = Bundle::new().args(["sleep", "60"]);
    let dir = container.host_dir("seen").display().to_string();
    let container = container
        .hook("createRuntime", &format!("for ns in net mnt; do readlink /proc/self/ns/$ns; done >{dir}/runtime"))
        .hook("createContainer", &format!("for ns in net mnt; do readlink /proc/self/ns/$ns; done >{dir}/container"));
    container.create().ok();
    let links = |pid: &str| {
        let link = |kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a namespace");
        format!("{}\n{}\n", link("net").display(), link("mnt").display())
    };
    let read = |file: &str| fs::read_to_string(format!("{dir}/{file}")).expect("what the hook saw");
    assert_eq!(read("runtime"), links("thread-self"), "createRuntime runs in the runtime's namespaces");
    assert_eq!(read("container"), links(&container.pid().to_string()), "createContainer runs in the container's");
}

#[test]
fn descriptors_do_not_leak_into_hooks() {
    if known_difference("runc", "hooks inherit what the caller left open") || known_difference("crun", "the same") {
        return;
    }
    let container = Bundle::new().args(["true"]);
    let secret = container.host_file("secret", "x");
    let seen = container.host("seen");
    // The last descriptor of the list is that of the list, gone when it is looked at.
    let script = format!("for fd in /proc/self/fd/*; do readlink $fd; done >{}; true", seen.display());
    let container = container.hook("createRuntime", &script).hook("createContainer", &script);
    container.run_cmd().after(&format!("exec 5<{}", secret.display())).run().ok();
    let links = fs::read_to_string(seen).expect("what the hook saw");
    assert!(!links.contains("secret") && !links.contains("cgroup") && !links.contains("rootfs"), "{links}");
}

#[test]
fn a_failing_hook_before_start_fails_create_and_undoes_it() {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let container = Bundle::new().args(["true"]).hook(kind, "echo broken hook >&2; exit 3");
        container.create().fails_with("hook");
        container.state().fails_with("does not exist");
        assert!(!container.cgroup().exists(), "{kind}: the cgroup is left");
    }
}

#[test]
fn a_failing_hook_tells_what_it_said() {
    if known_difference("crun", "keeps a hook's output for itself") {
        return;
    }
    let container = Bundle::new().args(["true"]).hook("createRuntime", "echo broken hook >&2; exit 3");
    container.create().fails_with("broken hook").fails_with("3");
}

#[test]
fn a_hook_whose_program_is_not_there_fails_and_names_it() {
    let hook = json!({"path": "/no/such/hook"});
    let container = Bundle::new().args(["true"]).push("/hooks/createRuntime", hook);
    let outcome = container.create();
    outcome.fails_with("/no/such/hook");
    if known_difference("crun", "tells no cause") {
        return;
    }
    outcome.fails_with("no such file or directory");
}

#[test]
fn a_failing_start_container_hook_ends_the_container() {
    let container = Bundle::new().args(["echo", "I run"]).hook("startContainer", "exit 1");
    container.create().ok();
    container.start();
    container.until("stopped");
    assert_eq!(container.output(), "");
}

#[test]
fn a_start_container_hook_is_under_the_filter_and_told_what_that_kills() {
    let filter = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL"}]});
    let container = Bundle::new().args(["true"]).set("/linux/seccomp", filter);
    let container = container.hook("startContainer", "exec mkdir /tmp/made");
    let outcome = container.run();
    outcome.fails();
    assert!(!container.rootfs().join("tmp/made").exists(), "the filter was not there yet");
    if known_difference("crun", "says nothing of the hook") {
        return;
    }
    outcome.fails_with("error running startContainer hook").fails_with("bad system call");
}

#[test]
fn a_failing_poststart_hook_fails_start_and_ends_the_container() {
    if known_difference("runc", "poststart hooks run at the end of create up to 1.5")
        || known_difference("crun", "leaves it running")
    {
        return;
    }
    let container = Bundle::new().args(["sleep", "60"]).hook("poststart", "echo broken hook >&2; exit 3");
    container.create().ok();
    container.start().fails_with("broken hook");
    container.state().fails_with("does not exist");
    assert!(!container.cgroup().exists());
    let container = Bundle::new().args(["sleep", "60"]).hook("poststart", "exit 3");
    container.run().fails_with("hook");
    assert!(!container.cgroup().exists());
}

#[test]
fn a_failing_poststop_hook_does_not_keep_the_container() {
    let container = Bundle::new().args(["true"]).hook("poststop", "exit 1");
    container.create().ok();
    let outcome = container.delete_force();
    if !known_difference("runc", "fails the delete with it, though all is gone") {
        outcome.ok();
    }
    container.state().fails_with("does not exist");
}

// What follows a failure (runtime-spec 1.3, "Lifecycle", steps 3 to 13): once a hook has run, poststop hooks undo it.

/// A container whose createRuntime hook writes `up` and whose poststop hook writes `down`.
/// They read their state, since crun dies of a hook that does not.
fn up_and_down(container: Bundle) -> Bundle {
    let order = order_file(&container).display().to_string();
    container
        .args(["sleep", "60"])
        .hook("createRuntime", &format!("cat >/dev/null; echo up >>{order}"))
        .hook("poststop", &format!("cat >/dev/null; echo down >>{order}"))
}

/// Each container of a test has its own.
fn order_file(container: &Bundle) -> PathBuf {
    container.host(&format!("order-{}", container.name()))
}

/// What its hooks have written.
fn order(container: &Bundle) -> String {
    fs::read_to_string(order_file(container)).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn expect_gone(container: &Bundle) {
    container.state().fails_with("does not exist");
    assert!(!container.sandbox().root().join(container.name()).exists(), "the state directory is left");
    assert!(!container.cgroup().exists(), "the cgroup is left");
}

fn program_missing(container: Bundle) -> Bundle {
    container.args(["/no/such/program"])
}

fn second_create_runtime_hook(container: Bundle) -> Bundle {
    container.hook("createRuntime", "exit 3")
}

fn create_container_hook(container: Bundle) -> Bundle {
    container.hook("createContainer", "exit 3")
}

fn sysctl(container: Bundle) -> Bundle {
    container.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "many"}))
}

fn program_not_reachable(container: Bundle) -> Bundle {
    container
        .file("/closed/program", "#!/bin/sh\n", 0o755)
        .dir("/closed", 0o700)
        .set("/process/user", json!({"uid": 1000, "gid": 1000}))
        .caps(&[])
        .args(["/closed/program"])
}

fn start_container_hook(container: Bundle) -> Bundle {
    container.hook("startContainer", "exit 3")
}

fn interpreter_missing(container: Bundle) -> Bundle {
    container.file("/bin/program", "#!/no/such/interpreter\n", 0o755).args(["/bin/program"])
}

/// Something that fails, by the table's words for it.
type Fault = (&'static str, fn(Bundle) -> Bundle);

const IN_CREATE: [Fault; 5] = [
    ("program missing", program_missing),
    ("createContainer hook", create_container_hook),
    ("second createRuntime hook", second_create_runtime_hook),
    ("sysctl", sysctl),
    ("program not reachable for its user", program_not_reachable),
];

const IN_START: [Fault; 2] =
    [("startContainer hook", start_container_hook), ("interpreter missing", interpreter_missing)];

#[test]
fn poststop_hooks_follow_a_create_that_fails_after_its_first_hook() {
    if known_difference("crun", "runs no poststop hook after a create that fails") {
        return;
    }
    for (what, fault) in IN_CREATE {
        for command in [Bundle::create, Bundle::run, Bundle::run_detached] {
            let container = fault(up_and_down(Bundle::new()));
            command(&container).fails();
            expect_gone(&container);
            assert_eq!(order(&container), "up down", "{what}");
        }
    }
}

#[test]
fn poststop_hooks_follow_a_run_that_fails_after_its_container_was_created() {
    for (what, fault) in IN_START {
        let detached_too = !known_difference("runc", "run --detach does not wait for the program")
            && !known_difference("crun", "the same");
        let commands: [fn(&Bundle) -> Outcome; 2] = [Bundle::run, Bundle::run_detached];
        for command in &commands[..if detached_too { 2 } else { 1 }] {
            let container = fault(up_and_down(Bundle::new()));
            command(&container).fails();
            expect_gone(&container);
            assert_eq!(order(&container), "up down", "{what}");
        }
    }
}

#[test]
fn a_start_that_fails_leaves_poststop_hooks_to_delete() {
    for (what, fault) in IN_START {
        let container = fault(up_and_down(Bundle::new()));
        container.create().ok();
        let started = container.start();
        if !known_difference("runc", "start does not wait for the program") && !known_difference("crun", "the same") {
            started.fails();
        }
        container.until("stopped");
        assert_eq!(order(&container), "up", "{what}");
        container.delete().ok();
        expect_gone(&container);
        assert_eq!(order(&container), "up down", "{what}");
    }
}

#[test]
fn a_failing_poststart_hook_leaves_nothing_of_the_container_but_its_poststop_hooks() {
    let script = "cat >/dev/null; echo broken hook >&2; exit 3";
    let container = up_and_down(Bundle::new()).hook("poststart", script);
    if known_difference("runc", "poststart hooks run at the end of create up to 1.5") {
        container.create().fails();
    } else {
        container.create().ok();
        let pid = container.pid();
        container.start().fails_with("hook");
        let is_alive = || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        assert!(!is_alive(), "start has returned before the program was dead");
    }
    expect_gone(&container);
    assert_eq!(order(&container), "up down");
    for command in [Bundle::run, Bundle::run_detached] {
        let container = up_and_down(Bundle::new()).hook("poststart", script);
        command(&container).fails_with("hook");
        expect_gone(&container);
        assert_eq!(order(&container), "up down");
    }
}

#[test]
fn the_first_hook_that_fails_is_followed_by_poststop_hooks() {
    if known_difference("crun", "runs no poststop hook after a create that fails") {
        return;
    }
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let container = Bundle::new().args(["sleep", "60"]);
        let file = order_file(&container).display().to_string();
        let container = container
            .hook(kind, &format!("echo up >>{file}; exit 3"))
            .hook(kind, &format!("echo next >>{file}"))
            .hook("poststop", &format!("echo down1 >>{file}; exit 4"))
            .hook("poststop", &format!("echo down2 >>{file}"));
        let created = container.create();
        // The first error is the one to tell.
        created.fails_with(kind);
        if !known_difference("runc", "poststop hooks end with the first that fails") {
            assert!(!created.stderr().contains("poststop"), "{}", created.stderr());
            assert_eq!(order(&container), "up down1 down2", "{kind}");
        }
        expect_gone(&container);
    }
}

#[test]
fn no_poststop_hook_runs_where_none_was_before_it() {
    if known_difference("runc", "poststop hooks run after every create that fails") {
        return;
    }
    let container = up_and_down(Bundle::new()).bind("/no/such/source", "/mnt", &["bind"]);
    container.create().fails_with("/no/such/source");
    expect_gone(&container);
    assert_eq!(order(&container), "");
    // What fails in the container's half before its hooks.
    let container = up_and_down(Bundle::new()).mount("/mnt", "tmpfs", "tmpfs", &["size=many"]);
    container.run().fails();
    expect_gone(&container);
    assert_eq!(order(&container), "");
}

#[test]
fn poststop_hooks_after_a_failure_get_the_state_of_a_stopped_container_that_is_gone() {
    if known_difference("crun", "runs no poststop hook after a create that fails") {
        return;
    }
    let container = Bundle::new().set("/annotations", json!({"a/b": "c/d"}));
    let (state, left) = (container.host("state"), container.host("left"));
    let looks = format!(
        "cat >{}; for place in {} {}; do test -e $place && echo $place; done >{}; true",
        state.display(),
        container.cgroup().display(),
        container.sandbox().root().join(container.name()).display(),
        left.display(),
    );
    let container = container.hook("createRuntime", "true").hook("poststop", &looks);
    let container = program_missing(container);
    container.create().fails();
    let text = fs::read_to_string(&state).expect("what the hook read");
    let seen: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(seen["status"], "stopped");
    assert_eq!(seen["annotations"]["a/b"], "c/d");
    if !known_difference("runc", "poststop hooks run before the state directory is removed") {
        assert_eq!(seen.get("pid"), None);
        assert_eq!(fs::read_to_string(&left).expect("what the hook saw"), "");
    }
}

#[test]
fn poststop_hooks_follow_a_failure_in_namespaces_of_all_kinds() {
    if known_difference("crun", "runs no poststop hook after a create that fails") {
        return;
    }
    let other = Bundle::new().args(["sleep", "60"]);
    other.create().ok();
    let namespace = format!("/proc/{}/ns/pid", other.pid());
    for fault in [program_missing, create_container_hook, second_create_runtime_hook] {
        for container in [Bundle::new().userns(), Bundle::new().join("pid", &namespace)] {
            let container = fault(up_and_down(container));
            container.create().fails();
            expect_gone(&container);
            assert_eq!(order(&container), "up down");
        }
    }
    other.delete_force().ok();
}

#[test]
fn poststop_hooks_of_a_create_that_was_killed_run_at_delete() {
    let container = up_and_down(Bundle::new()).hook("createRuntime", "exec sleep 30");
    let creator = container.create_cmd(&[]).spawn();
    crate::harness::eventually("the hook runs", || order(&container) == "up");
    creator.signal(Signal::SIGKILL);
    creator.wait();
    if known_difference("runc", "has no record before the hooks") || known_difference("crun", "the same") {
        return;
    }
    container.until("stopped");
    container.delete_force().ok();
    expect_gone(&container);
    assert_eq!(order(&container), "up down");
}

#[test]
fn poststop_hooks_run_without_their_bundle() {
    let container = Bundle::new().args(["sleep", "60"]);
    let seen = container.host("seen");
    let container = container.hook("poststop", &format!("pwd >{}", seen.display()));
    container.create().ok();
    let moved = container.host("moved");
    fs::rename(container.path(), &moved).expect("move the bundle away");
    let deleted = container.delete_force();
    fs::rename(&moved, container.path()).expect("move it back");
    deleted.ok();
    expect_gone(&container);
    if known_difference("crun", "runs no poststop hook without the bundle") {
        return;
    }
    let pwd = fs::read_to_string(seen).expect("where the hook ran");
    if known_difference("runc", "poststop hooks run in the caller's directory") {
        return;
    }
    assert_eq!(pwd.trim(), "/");
    let warning = format!("change to the bundle {}: no such file or directory", container.path().display());
    assert!(deleted.says_one_of(&[&warning]), "{}{}", deleted.stderr(), deleted.log());
    deleted.never_says("/bin/busybox");
}

#[test]
fn a_bundle_that_is_gone_is_blamed_for_a_hook_that_cannot_run() {
    if known_difference("runc", "poststart hooks run at the end of create up to 1.5")
        || known_difference("crun", "hooks run in the caller's directory")
    {
        return;
    }
    let container = up_and_down(Bundle::new()).hook("poststart", "true");
    container.create().ok();
    let moved = container.host("moved");
    fs::rename(container.path(), &moved).expect("move the bundle away");
    let started = container.start();
    fs::rename(&moved, container.path()).expect("move it back");
    started.fails_with(&format!("change to the bundle {}", container.path().display()));
    expect_gone(&container);
    assert_eq!(order(&container), "up down");
}

// B61: hooks that do not behave.

#[test]
fn b61_a_hook_need_not_read_its_stdin() {
    let big = "x".repeat(100 * 1024);
    let container = Bundle::new()
        .args(["true"])
        .set("/annotations", json!({"a": big, "b": big, "c": big}))
        .push("/hooks/createRuntime", json!({"path": "/bin/true"}))
        .push("/hooks/createRuntime", json!({"path": "/bin/busybox", "args": ["sh", "-c", "exec 0<&-; sleep 1"]}))
        .push("/hooks/poststop", json!({"path": "/bin/true"}));
    container.run().ok();
}

#[test]
fn b61_a_hook_gets_a_big_state_whole() {
    let container = Bundle::new().args(["true"]).set("/annotations", json!({"a": "x".repeat(300 * 1024)}));
    let file = container.host("state");
    let container = container.hook("createRuntime", &format!("sleep 0.1; cat >{}", file.display()));
    container.run().ok();
    let state: Value = serde_json::from_slice(&fs::read(file).expect("the state")).expect("JSON");
    assert_eq!(state["annotations"]["a"].as_str().map(str::len), Some(300 * 1024));
}

#[test]
fn b61_a_hook_that_takes_too_long_is_ended_and_create_undone() {
    for script in ["exec sleep 4020", "sleep 4021 & sleep 4022"] {
        if script.contains('&') && known_difference("runc", "waits for the hook's own children") {
            return;
        }
        let hook = json!({"path": "/bin/busybox", "args": ["sh", "-c", script], "timeout": 1});
        let container = Bundle::new().args(["true"]).push("/hooks/createRuntime", hook);
        let outcome = container.create();
        outcome.fails();
        assert!(outcome.took() < Duration::from_secs(4), "took {:?}", outcome.took());
        container.state().fails_with("does not exist");
        assert!(!container.cgroup().exists(), "the cgroup is left");
        if known_difference("runc", "does not say timed out") || known_difference("crun", "says neither") {
            return;
        }
        outcome.fails_with("timed out").fails_with("/bin/busybox");
        let procs = fs::read_to_string(container.sandbox().cgroup().join("caller/cgroup.procs")).expect("cgroup.procs");
        assert_eq!(procs, "", "processes of the hook are left");
    }
}
