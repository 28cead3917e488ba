//! Crashes: at every system call of a command, the runtime's or the container's half is killed, or the call fails.
//!
//! After a kill, `delete --force` must leave nothing: no process, cgroup, mount, file; and the same container can be
//! made again. After an error the command must fail with one sentence that names the step, and `create` leaves nothing
//! by itself. `CORTEN_CRASH=full` tries everything at every call (half an hour); a number there, or nothing, a sample of
//! that many points of each side of each command.
#![cfg(target_arch = "x86_64")]
#![allow(unreachable_pub, reason = "one binary: everything is private to it")]
#![allow(missing_docs, reason = "a test's name is its sentence")]
#![allow(clippy::disallowed_methods, reason = "the lessons are about the runtime")]

#[allow(dead_code, unused_imports, reason = "a vocabulary shared with the other tests")]
mod harness;
mod meddle;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use harness::{Bundle, eventually};
use meddle::{MOUNTS_ADD, PATIENCE, Side, Subject, Traces, are_for_it, full};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// As Docker asks for one, with hooks of all kinds.
fn docker(container: Bundle) -> Bundle {
    let text = include_str!("captures/docker-28.5/native/run-rm.config.json");
    let docker: Value = serde_json::from_str(text).expect("a captured configuration");
    let mut container = container.args(["sleep", "60"]);
    for field in
        ["/process/capabilities", "/linux/seccomp", "/linux/maskedPaths", "/linux/readonlyPaths", "/linux/sysctl"]
    {
        container = container.set(field, docker.pointer(field).expect("such a field").clone());
    }
    container = container
        .set("/linux/resources/devices", docker.pointer("/linux/resources/devices").expect("device rules").clone())
        .set("/process/noNewPrivileges", false)
        .set("/process/oomScoreAdj", 500)
        .set("/process/user", json!({"uid": 1000, "gid": 1000, "additionalGids": [10]}))
        .push("/linux/devices", json!({"path": "/dev/zero2", "type": "c", "major": 1, "minor": 5}));
    ["createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
        .into_iter()
        .fold(container, |container, kind| container.hook(kind, "true"))
}

/// B52: the runtime is killed while a hook sleeps; then everything can be taken away and made again.
#[test]
fn b52_a_create_killed_in_a_hook_leaves_nothing_after_delete() {
    if !are_for_it() {
        return;
    }
    let kinds = ["prestart", "createRuntime", "createContainer"];
    // Becoming root of a user namespace makes the kernel forget what a process wants to end with.
    let variants: [fn(Bundle) -> Bundle; 3] =
        [|plain| plain, Bundle::userns, |bundle| bundle.userns().global("--cgroup-manager=disabled")];
    for (kind, variant) in kinds.iter().flat_map(|kind| variants.iter().map(move |variant| (kind, variant))) {
        let container = variant(Bundle::new().args(["sleep", "60"]));
        let dir = container.host_dir("marks");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).expect("let everybody write there");
        let mark = dir.join("hook-runs");
        let script = format!("touch {}; exec sleep 30", mark.display());
        let container = container.hook(kind, &script);
        let before = Traces::of(&container);
        let creator = container.create_cmd(&[]).spawn();
        eventually("the hook runs", || mark.exists() || !creator.is_running());
        if !mark.exists() {
            creator.wait().fail("it ended before its hook ran");
        }
        creator.signal(Signal::SIGKILL);
        creator.wait();
        // The killed container's half may take a moment to end.
        container.until("stopped");
        let deleted = container.delete_force();
        assert!(deleted.ok().took() < PATIENCE, "delete --force took {:?}", deleted.took());
        fs::remove_file(&mark).expect("remove the mark");
        eventually("nothing is left, the hook neither", || {
            let now = Traces::of(&container);
            (&now.processes, &now.cgroups, &now.mounts, &now.states)
                == (&before.processes, &before.cgroups, &before.mounts, &before.states)
        });
        let container = container.unset(&format!("/hooks/{kind}"));
        container.create().ok();
        container.delete_force().ok();
    }
}

/// B52: at random times within the first milliseconds.
#[test]
fn b52_a_create_killed_at_any_time_leaves_nothing_after_delete() {
    if !are_for_it() {
        return;
    }
    let mut subject = Subject::new("killed by the clock", 0, docker(Bundle::new()));
    let rounds = if full() { 500 } else { 15 };
    for round in 0..rounds {
        let creator = subject.container.create_cmd(&[]).spawn();
        std::thread::sleep(Duration::from_micros(30_000 * round / rounds));
        creator.signal(Signal::SIGKILL);
        creator.wait();
        let deleted = subject.container.delete_force();
        assert!(deleted.ok().took() < PATIENCE, "delete --force took {:?}", deleted.took());
        subject.forget_pid();
        subject.expect_clean(&format_args!("round {round} of {rounds}"));
        subject.count("create, killed at some time");
    }
    subject.conclude();
}

/// What a hook has started lives on in the container's cgroup where no pid namespace takes it along.
#[test]
fn a_failed_create_ends_what_its_hooks_have_started() {
    if !are_for_it() {
        return;
    }
    let container = Bundle::new().without_ns("pid").args(["sleep", "60"]);
    let container =
        container.hook("createContainer", "sleep 60 >/dev/null 2>&1 & exit 0").hook("createContainer", "exit 3");
    let before = Traces::of(&container);
    let created = container.create();
    created.fails_with("createContainer");
    assert!(created.took() < Duration::from_secs(1), "create took {:?}", created.took());
    let now = Traces::of(&container);
    assert_eq!((&now.processes, &now.cgroups, &now.states), (&before.processes, &before.cgroups, &before.states));
}

/// B53: processes that froze themselves in a cgroup of their own making, and others that fork without end.
#[test]
fn b53_delete_ends_within_seconds_whatever_is_in_the_cgroup() {
    if !are_for_it() {
        return;
    }
    let frozen =
        "mkdir /sys/fs/cgroup/z; echo $$ >/sys/fs/cgroup/z/cgroup.procs; echo 1 >/sys/fs/cgroup/z/cgroup.freeze";
    let forking = "while :; do (sleep 1 & sleep 1 &) ; done";
    for (script, pid_namespace) in [(frozen, true), (frozen, false), (forking, true), (forking, false)] {
        let container = Bundle::new().sh(script).mount_options("/sys/fs/cgroup", |options| {
            options.retain(|option| option != "ro");
        });
        let container = if pid_namespace { container } else { container.without_ns("pid") };
        let before = Traces::of(&container);
        container.create().ok();
        container.start().ok();
        std::thread::sleep(Duration::from_millis(200));
        let deleted = container.delete_force();
        assert!(deleted.ok().took() < PATIENCE, "delete --force took {:?}", deleted.took());
        let now = Traces::of(&container);
        assert_eq!((&now.processes, &now.cgroups, &now.states), (&before.processes, &before.cgroups, &before.states));
    }
}

/// What cannot be taken away now stays on record, for the one who can later.
#[test]
fn a_cgroup_that_a_failed_create_cannot_remove_is_left_to_delete() {
    if !are_for_it() {
        return;
    }
    let container = Bundle::new().args(["sleep", "60"]);
    let before = Traces::of(&container);
    let cgroup = container.cgroup();
    let below = cgroup.join("below");
    let script = format!("mkdir {0} && mount -t tmpfs none {0}; exit 3", below.display());
    let container = container.hook("createRuntime", &script);
    container.create().fails_with("createRuntime");
    assert!(cgroup.exists());
    container.state().shows("\"stopped\"");
    nix::mount::umount(&below).expect("take the mount away");
    container.delete_force().ok();
    let now = Traces::of(&container);
    assert_eq!((&now.processes, &now.cgroups, &now.states), (&before.processes, &before.cgroups, &before.states));
}

fn meddle(mut subject: Subject, sides: &[(&str, Side)]) {
    for (verb, side) in sides {
        subject.meddle(verb, *side);
    }
    subject.conclude();
}

const CREATE: &[(&str, Side)] = &[("create", Side::Host), ("create", Side::Container)];

#[test]
fn create_of_a_container_as_docker_makes_them() {
    if are_for_it() {
        meddle(Subject::new("docker", 0, docker(Bundle::new())), CREATE);
    }
}

#[test]
fn create_in_a_user_namespace() {
    if !are_for_it() {
        return;
    }
    let container =
        docker(Bundle::new().userns()).set("/linux/sysctl", json!({"net.ipv4.ip_unprivileged_port_start": "0"}));
    meddle(Subject::new("user namespace", 1, container), CREATE);
}

#[test]
fn create_in_the_namespaces_of_another() {
    if !are_for_it() {
        return;
    }
    let pause = Bundle::new().userns().args(["sleep", "6000"]);
    pause.create().ok();
    pause.start().ok();
    let path = |name: &str| format!("/proc/{}/ns/{name}", pause.pid());
    let mut container = docker(Bundle::inside(pause.sandbox().clone()).userns()).unset("/linux/sysctl");
    for (kind, name) in [("user", "user"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid")] {
        container = container.join(kind, path(name));
    }
    let container = container.unset("/hostname").unset("/linux/uidMappings").unset("/linux/gidMappings");
    let sides = [CREATE, &[("create", Side::Joiner)]].concat();
    meddle(Subject::new("joined namespaces", 2, container), &sides);
    pause.delete_force().ok();
}

#[test]
fn create_without_a_cgroup_and_pid_namespace_of_its_own() {
    if are_for_it() {
        let container = docker(Bundle::new()).without_ns("pid").global("--cgroup-manager=disabled");
        // Whom `delete` overlooks here, no cgroup takes along.
        let sides = [CREATE, &[("delete", Side::Host)]].concat();
        meddle(Subject::new("no cgroup", 3, container), &sides);
    }
}

#[test]
fn create_without_a_mount_namespace() {
    if are_for_it() {
        let container = Bundle::new().without_ns("mount").unset("/linux/maskedPaths").unset("/linux/readonlyPaths");
        let container = container.set("/root/readonly", true).args(["sleep", "60"]);
        meddle(Subject::new("guest", 6, container), CREATE);
    }
}

#[test]
fn create_above_an_image_that_is_shared() {
    if !are_for_it() {
        return;
    }
    for (turn, form) in [(4, "dir=state"), (5, "tmpfs")] {
        let container = Bundle::new().args(["sleep", "60"]).set("/annotations/run.corten.rootfs.overlay", form);
        let state = container.path().join("state");
        fs::create_dir(&state).expect("make the directory of the upper layer");
        meddle(Subject::new("shared image", turn, container), &CREATE[..1]);
    }
}

#[test]
fn what_comes_after_create() {
    if are_for_it() {
        let sides = [
            ("start", Side::Host),
            ("start", Side::Container),
            ("exec", Side::Host),
            ("exec", Side::Joiner),
            ("exec", Side::Container),
            ("kill", Side::Host),
            ("delete", Side::Host),
        ];
        meddle(Subject::new("docker", 0, docker(Bundle::new())), &sides);
    }
}

#[test]
fn mounts_into_a_running_container() {
    if !are_for_it() {
        return;
    }
    let container = docker(Bundle::new());
    let mounts = json!([
        {"destination": "/added/tmpfs", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=64k"]},
        {"destination": "/added/bind", "type": "bind", "source": container.host_dir("data"), "options": ["rbind", "ro"]},
        {"destination": "/added/proc", "type": "proc", "source": "proc"},
    ]);
    fs::write(meddle::list(&container), mounts.to_string()).expect("write the list");
    meddle(Subject::new("docker", 0, container), &[(MOUNTS_ADD, Side::Host), (MOUNTS_ADD, Side::Joiner)]);
}

#[test]
fn run() {
    if are_for_it() {
        let sides = [("run", Side::Host), ("run", Side::Container)];
        meddle(Subject::new("docker", 0, docker(Bundle::new()).args(["true"])), &sides);
    }
}
