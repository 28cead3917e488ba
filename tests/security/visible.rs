//! A process that others in its pid namespace can see is finished: its root and working directory are the container's, it
//! has no descriptor but those that its program gets and what it talks to the runtime by, its user, groups, capabilities,
//! no_new_privs and filter are the final ones, its arguments tell nothing of the runtime, and until its execve it is not
//! dumpable. Watched from inside, by a program that knows the next pids.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::attack::{alone, starts};
use crate::attacker::{
    Attacker, Host, Verdict, add_procfs, all, come_and_go, enter, has_seen, peers_finish_later, with_new_user_namespace,
};
use crate::harness::{Bundle, HOST_ID, eventually, peers_lack_it, probe};

/// A container whose processes have all capabilities, of the host's root or in a user namespace.
fn powerful(userns: bool) -> Bundle {
    let bundle = Bundle::new().dir("/p", 0o755).caps(&all());
    if userns { bundle.userns() } else { bundle }
}

/// The same with a program that ends by itself; and without a sysfs, which where namespaces are joined may have to be the
/// host's, with all that the host has below it.
fn passing(userns: bool) -> Bundle {
    powerful(userns).args(["usleep", "2000"]).without_mount("/sys/fs/cgroup").without_mount("/sys")
}

/// A filter that shows in `/proc/PID/status`, and forbids nothing that a runtime needs.
fn filter() -> Value {
    let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]);
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})
}

const WAYS: [&str; 2] = ["look", "stop"];

/// S1: in a container with CAP_SYS_PTRACE somebody opens files of the host through `/proc/PID/root`, `cwd` and `fd/N` of
/// each process that enters, stopped by a signal or as it runs by.
fn enter_watched(userns: bool) {
    if peers_finish_later() {
        return;
    }
    let host = Host::of(&Bundle::new());
    let mut verdict = Verdict::default();
    let _alone = alone();
    for catch in WAYS {
        // Without limits nothing is asked of the runtime while the process is made.
        for (on_terminal, limited) in [(false, true), (false, false), (true, true)] {
            let bundle = powerful(userns);
            let bundle = if limited { bundle } else { bundle.unset("/process/rlimits") };
            let attacker = Attacker::new(bundle, &host.watch(catch, &[]));
            attacker.provoke(starts() / 6, has_seen, |_| enter(&attacker.bundle, on_terminal));
            verdict.clean(&format!("{catch}, terminal {on_terminal}, limits {limited}"), &attacker.ends());
        }
    }
    verdict.holds();
    host.is_untouched();
}

#[test]
fn cve_2016_9962_a_process_that_enters_is_the_containers_own_when_it_is_seen() {
    enter_watched(false);
}

#[test]
fn cve_2016_9962_a_process_that_enters_a_user_namespace_is_its_own_when_it_is_seen() {
    enter_watched(true);
}

/// S5: the pid namespace of a container with CAP_SYS_PTRACE is joined by one that is made, and its root, working directory,
/// cgroup and state directory are looked for behind the new process; then it waits for `start`, and runs.
fn joins_watched(userns: bool, joined: &[&[&str]]) {
    if peers_finish_later() {
        return;
    }
    let host = Host::of(&Bundle::new());
    let mut verdict = Verdict::default();
    let _alone = alone();
    for catch in WAYS {
        for kinds in joined {
            for (filtered, terminal) in [(false, false), (true, false), (false, true)] {
                let confined = |bundle: Bundle| if filtered { bundle.set("/linux/seccomp", filter()) } else { bundle };
                let beside = confined(passing(userns)).set("/process/terminal", terminal);
                let attacker = Attacker::new(confined(powerful(userns)), &host.watch(catch, &[&beside]));
                let beside = attacker.joined_by(beside, kinds);
                let number = starts() / (6 * joined.len());
                attacker.provoke(number, has_seen, |round| come_and_go(&[], &beside, round % 2 == 0));
                let what = format!("{catch}, joins {kinds:?}, filter {filtered}, terminal {terminal}");
                verdict.clean(&what, &attacker.ends());
            }
        }
    }
    verdict.holds();
    host.is_untouched();
}

#[test]
fn a_container_that_joins_a_pid_namespace_is_seen_there_when_it_is_made() {
    joins_watched(false, &[&["pid"], &["pid", "ipc", "network", "uts"]]);
}

#[test]
fn a_container_that_joins_a_user_namespace_and_its_pids_is_seen_there_when_it_is_made() {
    joins_watched(true, &[&["user", "pid"], &["user", "pid", "ipc", "network", "uts"]]);
}

/// The host's mounts below a directory, as PATH and type.
fn mounts_below(directory: &str) -> impl Iterator<Item = String> {
    let mounts = fs::read_to_string("/proc/thread-self/mounts").expect("the mounts of the host");
    let below = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?)).filter(|(path, _)| path.starts_with(directory))
    });
    below.map(|(path, kind)| format!("{path} {kind}")).collect::<Vec<_>>().into_iter()
}

/// The same, where the new container has a user namespace of its own, which belongs to whoever has its creator's uid.
#[test]
fn a_container_with_a_new_user_namespace_is_seen_in_a_joined_pid_namespace_when_it_is_made() {
    if peers_finish_later() {
        return;
    }
    let host = Host::of(&Bundle::new());
    let mut verdict = Verdict::default();
    let _alone = alone();
    for catch in WAYS {
        for kinds in [&["pid"][..], &["pid", "uts"]] {
            // A device that is made on the host, too.
            let device = json!({"path": "/dev/made", "type": "c", "major": 1, "minor": 5});
            let beside = with_new_user_namespace(passing(false)).push("/linux/devices", device);
            let mut words = host.watch(catch, &[&beside]);
            words.extend(["Uid", "Gid"].map(|name| format!("also={name}:{}", format!(" {HOST_ID}").repeat(4))));
            // The host's procfs is bound there, with what is mounted below it.
            words.extend(mounts_below("/proc/").map(|mount| format!("also={mount}")));
            let attacker = Attacker::new(powerful(false), &words);
            let beside = attacker.joined_by(beside, kinds);
            attacker.provoke(starts() / 4, has_seen, |round| come_and_go(&[], &beside, round % 2 == 0));
            verdict.clean(&format!("{catch}, joins {kinds:?}"), &attacker.ends());
        }
    }
    verdict.holds();
    host.is_untouched();
}

/// There the pid namespace has to be chosen before the user namespace is made, and whatever is born after that is born in it:
/// a hook with the root of the host.
#[test]
fn a_hook_that_would_be_seen_in_a_joined_pid_namespace_with_the_hosts_root_is_refused() {
    if peers_finish_later() {
        return;
    }
    let first = Bundle::new().args(["sleep", "100"]);
    first.run_detached().ok();
    let joins = |bundle: Bundle| bundle.join("pid", format!("/proc/{}/ns/pid", first.pid())).args(["true"]);
    let beside = || Bundle::inside(first.sandbox().clone());
    joins(beside().hook("createContainer", "true")).run().ok();
    let refused = joins(with_new_user_namespace(beside().hook("createContainer", "true"))).run();
    refused.fails_with(
        "/hooks/createContainer: cannot run where the pid namespace has to be joined before the user namespace",
    );
}

/// S6: a procfs shows the pid namespace of whoever mounts it, so whoever adds one to a running container has to be in its
/// pid namespace.
#[test]
fn whoever_adds_a_procfs_is_the_containers_own_when_it_is_seen() {
    if peers_lack_it() {
        return;
    }
    let host = Host::of(&Bundle::new());
    let mut verdict = Verdict::default();
    let _alone = alone();
    for userns in [false, true] {
        for catch in WAYS {
            let attacker = Attacker::new(powerful(userns), &host.watch(catch, &[]));
            for _ in 0..starts() / 4 {
                add_procfs(&attacker.bundle).ok();
            }
            verdict.clean_if_seen(&format!("{catch}, user namespace {userns}"), &attacker.ends());
        }
    }
    verdict.holds();
    host.is_untouched();
}

/// S7: somebody without any right reads the mount table, the sockets and the arguments of a process that enters, or whose
/// container joins the pid namespace; everybody may.
#[test]
fn nobody_without_rights_reads_of_the_host_behind_a_process_that_is_new() {
    if peers_finish_later() {
        return;
    }
    let host = Host::of(&Bundle::new());
    let mut verdict = Verdict::default();
    let _alone = alone();
    for userns in [false, true] {
        for joins in [false, true] {
            let user = json!({"uid": 1000, "gid": 1000, "additionalGids": [7]});
            let own = |bundle: Bundle| bundle.set("/process/user", user.clone()).caps(&[]);
            let beside = own(passing(userns));
            let attacker = Attacker::new(own(powerful(userns)), &host.watch("look", &[&beside]));
            let beside = attacker.joined_by(beside, if userns { &["user", "pid"] } else { &["pid"] });
            attacker.provoke(starts() / 4, has_seen, |round| {
                if joins { come_and_go(&[], &beside, round % 2 == 0) } else { enter(&attacker.bundle, false) }
            });
            verdict.clean(&format!("user namespace {userns}, a container joins {joins}"), &attacker.ends());
        }
    }
    verdict.holds();
    host.is_untouched();
}

/// The rule can be kept: of a program that is none of the container's, and keeps it until its execve, the watcher has nothing
/// to say; nor of what the container starts by itself.
#[test]
fn a_finished_process_is_nothing_that_the_watcher_tells_of() {
    let host = Host::of(&Bundle::new());
    let mut verdict = Verdict::default();
    let _alone = alone();
    for userns in [false, true] {
        for catch in WAYS {
            let bundle = powerful(userns);
            // Of the host's root, and to be read by nobody else: so it is not dumpable from its first instruction.
            let program = bundle.rootfs().join("corten");
            fs::copy(probe(), &program).expect("copy a program into the rootfs");
            fs::set_permissions(&program, Permissions::from_mode(0o711)).expect("set its mode");
            let own = "until [ -e /go ]; do usleep 1000; done; while [ ${#n} -lt 50 ]; do usleep 9; n=x$n; done";
            let script = format!("probe as /corten corten init & sh -c '{own}' & usleep 100000; exec \"$@\"");
            let words = [&["sh", "-c", &script, "sh"].map(str::to_owned)[..], &host.watch(catch, &[])].concat();
            let attacker = Attacker::new(bundle, &words);
            fs::write(attacker.bundle.rootfs().join("go"), "").expect("have the container start processes");
            eventually("a process is seen before its execve", || has_seen(&attacker.told()));
            std::thread::sleep(Duration::from_millis(200));
            verdict.clean(&format!("{catch}, user namespace {userns}"), &attacker.ends());
        }
    }
    verdict.holds();
    host.is_untouched();
}

/// All at once, as an engine with health checks does to a pod: 2,000 times with `CORTEN_SECURITY=full`.
fn busy(userns: bool, filtered: bool, no_new_privs: bool) {
    if peers_finish_later() {
        return;
    }
    let host = Host::of(&Bundle::new());
    let mut verdict = Verdict::default();
    let _alone = alone();
    let confined = |bundle: Bundle| {
        let bundle = bundle.set("/process/noNewPrivileges", no_new_privs);
        if filtered { bundle.set("/linux/seccomp", filter()) } else { bundle }
    };
    let beside = confined(passing(userns));
    let attacker = Attacker::new(confined(powerful(userns)), &host.watch("both", &[&beside]));
    let beside = attacker.joined_by(beside, if userns { &["user", "pid", "ipc"] } else { &["pid", "ipc"] });
    let container = &attacker.bundle;
    attacker.provoke(starts(), has_seen, |round| {
        let outcome = match round % 16 {
            1 => container.exec_cmd(&["--detach"], &["usleep", "1000"]).run(),
            3 => enter(container, true),
            6 | 14 => come_and_go(&[], &beside, round % 16 == 6),
            9 => add_procfs(container),
            11 => container.cmd(["update", "--pids-limit", "200", container.name()]).run(),
            13 => container.cmd(["ps", container.name()]).run(),
            _ => enter(container, false),
        };
        // Nobody here does any harm. (The controller of pids may be missing.)
        if round % 16 != 11 {
            outcome.ok();
        }
        outcome
    });
    verdict.clean("all commands", &attacker.ends());
    verdict.holds();
    host.is_untouched();
}

#[test]
fn a_busy_container_sees_nothing_unfinished() {
    busy(false, false, true);
}

#[test]
fn a_busy_container_with_a_filter_sees_nothing_unfinished() {
    busy(false, true, true);
}

#[test]
fn a_busy_container_with_a_filter_loaded_with_privilege_sees_nothing_unfinished() {
    busy(false, true, false);
}

#[test]
fn a_busy_container_in_a_user_namespace_sees_nothing_unfinished() {
    busy(true, true, true);
}
