//! Programs of `exec` that live, without a record of them. No peer has this.

use serde_json::Value;

use crate::harness::{Bundle, Outcome, eventually, peers_lack_it};

/// A running container with a daemon whose parent has ended, so that orphans are seen too.
fn running(bundle: Bundle) -> Bundle {
    let container = bundle.sh("(setsid sleep 600 &) ; echo up; exec sleep 600");
    container.run_detached().ok();
    container.until_output("up");
    container
}

fn exec(container: &Bundle, args: &[&str]) -> i32 {
    let file = container.path().join("exec.pid");
    let options = ["--detach", "--pid-file", file.to_str().expect("a plain path")];
    container.exec_cmd(&options, args).run().ok().prints("");
    std::fs::read_to_string(file).expect("the pid file").parse().expect("a pid")
}

fn sessions(container: &Bundle) -> Vec<Value> {
    let outcome = container.cmd(["ps", "--sessions", "--format", "json", container.name()]).run();
    outcome.ok().json().as_array().expect("a list").clone()
}

fn kill(container: &Bundle, session: &str) -> Outcome {
    container.cmd(["kill", "--session", session, container.name(), "KILL"]).run()
}

#[test]
fn what_exec_started_is_listed_while_it_lives_and_nothing_else() {
    if peers_lack_it() {
        return;
    }
    let container = running(Bundle::new());
    assert!(sessions(&container).is_empty());
    let first = exec(&container, &["sleep", "601"]);
    // Its child is an orphan of the container, as is what that one starts; neither is a session.
    let second = exec(&container, &["sh", "-c", "(sleep 602 &); sleep 603; true"]);
    let seen = || sessions(&container).iter().map(|session| session["args"].to_string()).collect::<Vec<_>>();
    eventually("both are there", || {
        seen() == ["[\"sleep\",\"601\"]", "[\"sh\",\"-c\",\"(sleep 602 &); sleep 603; true\"]"]
    });
    let listed = sessions(&container);
    assert_eq!((&listed[0]["pid"], &listed[1]["pid"]), (&first.into(), &second.into()));
    let table = container.cmd(["ps", "--sessions", container.name()]).run();
    table.ok().shows("SESSION").shows(listed[0]["id"].as_str().expect("an id")).shows("sleep 601");
    kill(&container, listed[0]["id"].as_str().expect("an id")).ok();
    eventually("the first is gone", || sessions(&container).len() == 1);
    // By its pid alone.
    kill(&container, &second.to_string()).ok();
    eventually("the second is gone", || sessions(&container).is_empty());
    assert_eq!(container.status(), "running");
}

#[test]
fn only_a_session_is_killed_as_one() {
    if peers_lack_it() {
        return;
    }
    let container = running(Bundle::new());
    let pid = exec(&container, &["sleep", "601"]);
    let init = container.pid();
    for wrong in
        [format!("{pid}-0"), format!("{pid}-"), init.to_string(), "1".into(), "x".into(), "-1".into(), "".into()]
    {
        kill(&container, &wrong).fails();
    }
    kill(&container, &init.to_string()).fails_with("no session");
    assert_eq!(sessions(&container).len(), 1);
    let other = running(Bundle::inside(container.sandbox().clone()));
    kill(&other, &pid.to_string()).fails_with("no session");
    container.cmd(["kill", "--session", "7", "--all", container.name()]).run().fails();
    container.kill("KILL").ok();
    container.until("stopped");
    kill(&container, &pid.to_string()).fails_with("container not running");
}

#[test]
fn without_a_pid_namespace_the_programs_of_exec_are_found_by_their_cgroup() {
    if peers_lack_it() {
        return;
    }
    let container = Bundle::new().without_ns("pid").args(["sleep", "60"]);
    container.run_detached().ok();
    assert!(sessions(&container).is_empty());
    let pid = exec(&container, &["sh", "-c", "sleep 601; true"]);
    eventually("the session", || sessions(&container).len() == 1);
    kill(&container, &pid.to_string()).ok();
    container.kill("KILL").ok();
    container.until("stopped");
    assert!(sessions(&container).is_empty());
}

#[test]
fn without_a_cgroup_the_pid_namespace_has_to_be_the_containers_own() {
    if peers_lack_it() {
        return;
    }
    let container = Bundle::new().global("--cgroup-manager=disabled").args(["sleep", "60"]);
    container.run_detached().ok();
    let pid = exec(&container, &["sleep", "601"]);
    assert_eq!(sessions(&container).iter().map(|session| &session["pid"]).collect::<Vec<_>>(), [&pid]);
    let namespace = format!("/proc/{}/ns/pid", container.pid());
    let guest = Bundle::inside(container.sandbox().clone()).global("--cgroup-manager=disabled");
    let guest = guest.join("pid", namespace).args(["sleep", "60"]);
    guest.run_detached().ok();
    let list = guest.cmd(["ps", "--sessions", guest.name()]).run();
    list.fails_with("its sessions cannot be told");
    kill(&guest, &container.pid().to_string()).fails();
    assert_eq!(container.status(), "running");
}

#[test]
fn a_program_writes_nothing_on_the_terminal_of_who_lists_it() {
    if peers_lack_it() {
        return;
    }
    let container = running(Bundle::new());
    exec(&container, &["sh", "-c", "sleep 601; true", "\u{1b}[31mred\n"]);
    let table = || container.cmd(["ps", "--sessions", container.name()]).run();
    eventually("the session", || table().stdout().contains("sleep 601"));
    table().ok().hides("\u{1b}").shows("[31mred");
    assert_eq!(table().lines().len(), 2);
}
