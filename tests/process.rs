//! What the process is: environment, command, directory, ids, capabilities, limits.

use serde_json::json;

use crate::harness::{Bundle, Kind, Outcome, chown_all, kind, known_difference, skip};

/// A bundle that prints its environment.
fn env_of(entries: &[&str]) -> Bundle {
    Bundle::new().set("/process/env", json!(entries)).args(["env"])
}

/// The entries of a printed environment that have this key.
fn entries(outcome: &Outcome, key: &str) -> Vec<String> {
    let wanted = format!("{key}=");
    outcome.ok().lines().into_iter().filter(|line| line.starts_with(&wanted)).collect()
}

// B34: HOME.

#[test]
fn b34_home_comes_from_the_containers_passwd_when_it_is_not_given() {
    let bob = "root:x:0:0:root:/root:/bin/sh\nbob:x:1001:1001::/home/bob:\n";
    let user = |uid: u32, env: &[&str]| {
        let container = env_of(env).file("/etc/passwd", bob, 0o644);
        container.set("/process/user", json!({"uid": uid, "gid": uid})).run()
    };
    assert_eq!(entries(&user(0, &["PATH=/bin"]), "HOME"), ["HOME=/root"]);
    assert_eq!(entries(&user(1001, &["PATH=/bin"]), "HOME"), ["HOME=/home/bob"]);
    assert_eq!(entries(&user(4242, &["PATH=/bin"]), "HOME"), ["HOME=/"]);
    assert_eq!(entries(&user(0, &["PATH=/bin", "HOME=/given"]), "HOME"), ["HOME=/given"]);
    if known_difference("crun", "an empty HOME is kept") {
        return;
    }
    assert_eq!(entries(&user(1001, &["PATH=/bin", "HOME="]), "HOME"), ["HOME=/home/bob"]);
    assert_eq!(entries(&user(1001, &["PATH=/bin", "HOME=/o", "HOME="]), "HOME"), ["HOME=/home/bob"]);
}

#[test]
fn b34_home_is_the_root_directory_without_a_passwd() {
    let container = env_of(&["PATH=/bin"]);
    std::fs::remove_file(container.rootfs().join("etc/passwd")).expect("remove passwd");
    assert_eq!(entries(&container.run(), "HOME"), ["HOME=/"]);
}

#[test]
fn b34_a_passwd_that_is_a_link_does_not_lead_out_of_the_root() {
    let container = env_of(&["PATH=/bin"]).set("/process/user", json!({"uid": 1001, "gid": 1001}));
    let outside = container.host_file("passwd", "evil:x:1001:1001::/outside:\n");
    std::fs::remove_file(container.rootfs().join("etc/passwd")).expect("remove passwd");
    let outside = outside.to_str().expect("a plain path");
    let container = container.link("/etc/passwd", &format!("../../../../../../../..{outside}"));
    assert_eq!(entries(&container.run(), "HOME"), ["HOME=/"]);
}

// B35: malformed and duplicate entries.

#[test]
fn b35_malformed_entries_are_refused_without_telling_the_value() {
    if known_difference("crun", "takes any entry") {
        return;
    }
    for (entry, key) in [("NOEQ", "NOEQ"), ("=s3cret", ""), ("K=s3cret\0b", "K")] {
        let outcome = env_of(&["PATH=/bin", entry]).args(["true"]).create();
        outcome.fails().never_says("s3cret");
        if known_difference("runc", "may not name the variable") {
            continue;
        }
        outcome.fails_with(key).fails_with("env");
    }
}

#[test]
fn b35_the_last_of_duplicates_wins_and_appears_once() {
    if known_difference("crun", "keeps duplicates") {
        return;
    }
    let seen = env_of(&["PATH=/bin", "D=1", "E=x", "D=2"]).run();
    assert_eq!(entries(&seen, "D"), ["D=2"]);
    assert_eq!(entries(&seen, "E"), ["E=x"]);
    let seen = Bundle::new().set("/process/env", json!(["PATH=/nope", "PATH=/bin"])).args(["true"]).run();
    seen.ok();
}

#[test]
fn b35_a_value_may_hold_a_new_line_or_an_equals_sign_or_nothing() {
    let seen = env_of(&["PATH=/bin", "N=l1\nl2", "Q=a=b", "Z="]).run();
    seen.shows("N=l1\nl2\n").shows("Q=a=b\n").shows("Z=\n");
}

#[test]
fn the_environment_is_that_of_the_configuration_alone() {
    let container = env_of(&["PATH=/bin", "ONLY=1"]);
    let mut seen = container.run_cmd().env("LEAK", "1").env("LD_PRELOAD", "/x").run().ok().lines();
    seen.sort();
    assert_eq!(seen, ["HOME=/root", "ONLY=1", "PATH=/bin"]);
}

// B36: looking up the command.

#[test]
fn b36_a_directory_in_path_is_no_command() {
    let container = Bundle::new().dir("/d/ls", 0o755).set("/process/env", json!(["PATH=/d:/bin"]));
    container.args(["ls", "-d", "/bin"]).run().prints("/bin");
}

#[test]
fn b36_a_command_without_the_right_to_run_it_is_passed_over() {
    let container = Bundle::new().file("/d/ls", "", 0o644).set("/process/env", json!(["PATH=/d:/bin"]));
    container.args(["ls", "-d", "/bin"]).run().prints("/bin");
}

#[test]
fn b36_names_with_a_dot_and_names_with_a_slash() {
    let script = "#!/bin/sh\necho found\n";
    Bundle::new().file("/bin/.hid", script, 0o755).args([".hid"]).run().prints("found");
    let container = || Bundle::new().file("/opt/tool", script, 0o755);
    container().set("/process/cwd", "/").args(["opt/tool"]).run().prints("found");
    container().set("/process/cwd", "/opt").args(["./tool"]).run().prints("found");
    container().set("/process/cwd", "/opt").args(["../opt/tool"]).run().prints("found");
    container().set("/process/cwd", "/opt").args(["tool"]).run().fails();
}

#[test]
fn b36_the_right_to_run_is_that_of_the_final_user() {
    let script = "#!/bin/sh\necho found\n";
    let user = json!({"uid": 1000, "gid": 1000});
    let own = Bundle::new().file("/bin/own", script, 0o700).owned("/bin/own", 1000, 1000);
    own.set("/process/user", user.clone()).args(["own"]).run().prints("found");
    let roots = Bundle::new().file("/bin/roots", script, 0o700).set("/process/user", user);
    roots.args(["/bin/roots"]).run().fails_with("permission denied");
}

#[test]
fn b36_an_executable_only_by_capability_runs() {
    let container = Bundle::new().dir("/private", 0o755).caps(&["CAP_DAC_OVERRIDE"]);
    std::fs::copy(container.rootfs().join("bin/busybox"), container.rootfs().join("private/echo")).expect("copy");
    std::fs::set_permissions(
        container.rootfs().join("private/echo"),
        std::os::unix::fs::PermissionsExt::from_mode(0o700),
    )
    .expect("chmod");
    let user = json!({"uid": 1000, "gid": 1000});
    let container = container.set("/process/user", user).set("/process/env", json!(["PATH=/private"]));
    container.args(["echo", "ran"]).run().prints("ran");
}

#[test]
fn b36_a_root_that_forbids_execution_is_told_clearly() {
    let bundle = Bundle::new();
    use nix::mount::{MsFlags, mount};
    let rootfs = bundle.rootfs();
    mount(Some(&rootfs), &rootfs, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("bind the rootfs");
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_NOEXEC;
    mount(None::<&str>, &rootfs, None::<&str>, flags, None::<&str>).expect("remount the rootfs");
    if known_difference("runc", "drops the flags of the root's mount") || known_difference("crun", "the same") {
        return;
    }
    bundle.args(["true"]).run().fails_with("permission denied");
}

// B37: the kind of the error, and exit codes.

#[test]
fn b37_the_words_of_the_error_tell_its_kind() {
    let run = |bundle: Bundle, command: &str| {
        let outcome = bundle.args([command]).run();
        if !matches!(command, "/script" | "/empty") || !known_difference("runc", "255 when it finds out in execve") {
            outcome.code(1);
        }
        outcome
    };
    if !known_difference("crun", "says operation not permitted") {
        run(Bundle::new(), "/etc").fails_with_one_of(&["is a directory", "permission denied"]);
        run(Bundle::new().file("/locked", "", 0), "/locked").fails_with("permission denied");
    }
    run(Bundle::new(), "nosuch").fails_with("executable file").fails_with("not found");
    run(Bundle::new(), "/no/such").fails_with("no such file or directory");
    run(Bundle::new().file("/script", "#!/no/such/shell\n", 0o755), "/script").fails_with("no such file or directory");
    run(Bundle::new().file("/empty", "", 0o755), "/empty").fails_with("exec format error");
}

#[test]
fn b37_start_tells_when_the_program_cannot_be_run() {
    let container = Bundle::new().args(["/script"]).file("/script", "#!/no/such/shell\n", 0o755);
    let created = container.create();
    if created.succeeded() {
        if known_difference("runc", "start does not wait for execve") || known_difference("crun", "the same") {
            return;
        }
        container.start().fails_with("no such file or directory");
    }
}

#[test]
fn b37_a_command_that_is_not_there_fails_create() {
    Bundle::new().args(["nosuch"]).create().fails_with("executable file").fails_with("not found");
    Bundle::new().args(["/no/such"]).create().fails_with("no such file or directory");
}

// The directory.

#[test]
fn the_working_directory_is_made_if_it_is_not_there() {
    Bundle::new().set("/process/cwd", "/made/up").args(["pwd"]).run().prints("/made/up");
    Bundle::new().set("/process/cwd", "/tmp").args(["pwd"]).run().prints("/tmp");
    if known_difference("crun", "takes a relative one as below the root") {
        return;
    }
    Bundle::new().set("/process/cwd", "relative").args(["pwd"]).run().fails_with("cwd");
}

#[test]
fn b38_a_directory_that_only_root_or_only_the_user_may_enter() {
    let user = json!({"uid": 1000, "gid": 1000});
    let own = Bundle::new().dir("/w", 0o700).owned("/w", 1000, 1000).set("/process/cwd", "/w");
    own.set("/process/user", user.clone()).args(["pwd"]).run().prints("/w");
    let roots = Bundle::new().dir("/r", 0o700).set("/process/cwd", "/r").set("/process/user", user);
    roots.args(["true"]).run().ok();
}

#[test]
fn b38_a_directory_outside_the_root_is_refused() {
    for fd in 3..16 {
        let container = Bundle::new().set("/process/cwd", format!("/proc/self/fd/{fd}")).args(["ls"]);
        let outcome = container.run_cmd().run();
        outcome.fails();
    }
}

// Ids.

#[test]
fn ids_and_groups_are_those_asked_for() {
    let user = json!({"uid": 7, "gid": 8, "additionalGids": [10, 20, 20]});
    let container = Bundle::new().set("/process/user", user);
    let seen = container.sh("grep -E '^(Uid|Gid|Groups)' /proc/self/status | tr '\\t' ' '").run();
    seen.ok().shows("Uid: 7 7 7 7").shows("Gid: 8 8 8 8").shows("Groups: 10 20");
}

#[test]
fn groups_of_the_caller_do_not_leak() {
    let container = Bundle::new().args(["grep", "Groups", "/proc/self/status"]);
    let bundle = container.path().to_str().expect("a plain path").to_owned();
    container.write();
    let seen = container.cmd(["run", "--bundle", &bundle, container.name()]).after("").run();
    assert_eq!(seen.ok().stdout().split_whitespace().count(), 1, "{}", seen.stdout());
}

// Capabilities.

fn capability_sets(bundle: Bundle) -> Vec<String> {
    let seen = bundle.args(["grep", "Cap", "/proc/self/status"]).run();
    seen.ok().lines().iter().map(|line| line.split_whitespace().last().unwrap_or_default().to_owned()).collect()
}

const NONE: &str = "0000000000000000";
const BASE: &str = "0000000020000420";
const BIND: &str = "0000000000000400";

#[test]
fn the_five_capability_sets_are_those_asked_for() {
    // Inheritable, permitted, effective, bounding, ambient.
    assert_eq!(capability_sets(Bundle::new()), [NONE, BASE, BASE, BASE, NONE]);
    let user = json!({"uid": 1000, "gid": 1000});
    assert_eq!(capability_sets(Bundle::new().set("/process/user", user.clone())), [NONE, NONE, NONE, BASE, NONE]);
    let ambient = Bundle::new().set("/process/user", user).caps(&["CAP_NET_BIND_SERVICE"]);
    let ambient = ambient.set("/process/capabilities/inheritable", json!(["CAP_NET_BIND_SERVICE"]));
    let ambient = ambient.set("/process/capabilities/ambient", json!(["CAP_NET_BIND_SERVICE"]));
    assert_eq!(capability_sets(ambient), [BIND; 5]);
    assert_eq!(capability_sets(Bundle::new().caps(&[])), [NONE; 5]);
}

#[test]
fn b48_without_the_object_there_are_no_capabilities() {
    if known_difference("runc", "keeps all of the caller's") {
        return;
    }
    assert_eq!(capability_sets(Bundle::new().unset("/process/capabilities")), [NONE; 5]);
}

#[test]
fn b48_an_unknown_capability_is_warned_about() {
    if known_difference("crun", "an unknown name is an error up to 1.28") {
        return;
    }
    let bundle = Bundle::new().caps(&["CAP_NET_BIND_SERVICE", "CAP_FUTURE_THING"]).args(["true"]);
    let outcome = bundle.run();
    outcome.ok();
    if !outcome.says_one_of(&["CAP_FUTURE_THING"]) {
        outcome.fail("it should warn");
    }
}

// Limits and flags.

#[test]
fn limits_are_those_asked_for() {
    let limits = json!([
        {"type": "RLIMIT_NOFILE", "soft": 300, "hard": 500},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_STACK", "soft": 1048576, "hard": 8388608}
    ]);
    let seen = Bundle::new().set("/process/rlimits", limits).args(["probe", "limits"]).run();
    let words: Vec<String> = seen.lines().iter().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in ["Max open files 300 500 files", "Max core file size 0 0 bytes", "Max stack size 1048576 8388608 bytes"]
    {
        assert!(words.iter().any(|word| word == line), "{line} is not in {words:?}");
    }
}

#[test]
fn a_limit_given_twice_or_unknown_or_upside_down_is_refused() {
    let with = |limits| Bundle::new().set("/process/rlimits", limits).args(["true"]).run();
    let nofile = json!({"type": "RLIMIT_NOFILE", "soft": 300, "hard": 500});
    if !known_difference("crun", "the last one wins") && !known_difference("runc", "the last one wins") {
        with(json!([nofile, nofile])).fails_with("RLIMIT_NOFILE");
    }
    with(json!([{"type": "RLIMIT_NOSUCH", "soft": 1, "hard": 1}])).fails_with("RLIMIT_NOSUCH");
    with(json!([{"type": "RLIMIT_NOFILE", "soft": 500, "hard": 300}])).fails();
}

#[test]
fn no_new_privileges_is_as_asked_for() {
    for (asked, seen) in [(true, "1"), (false, "0")] {
        let container = Bundle::new().set("/process/noNewPrivileges", asked);
        container.sh("awk '/NoNewPrivs/{print $2}' /proc/self/status").run().prints(seen);
    }
}

#[test]
fn the_oom_score_of_a_program_is_not_that_of_the_runtime_that_waits_for_it() {
    let container = Bundle::new().args(["sleep", "60"]);
    container.run_detached().ok();
    let process = container.process_file(&json!({
        "args": ["sh", "-c", "cat /proc/self/oom_score_adj; exec sleep 60"],
        "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}, "oomScoreAdj": 500
    }));
    let path = process.to_str().expect("a plain path").to_owned();
    let runtime = container.cmd(["exec", "--process", &path, container.name()]).spawn();
    crate::harness::eventually("the program runs", || runtime.stdout().contains("500"));
    let score = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", runtime.pid())).expect("the runtime's score");
    assert_eq!(score.trim(), "0");
    container.delete_force().ok();
    runtime.wait();
}

#[test]
fn the_oom_score_is_raised_as_asked_for_and_else_the_callers() {
    let seen = Bundle::new().set("/process/oomScoreAdj", 500).args(["cat", "/proc/self/oom_score_adj"]).run();
    seen.prints("500");
    let container = Bundle::new().args(["cat", "/proc/self/oom_score_adj"]);
    container.run_cmd().after("echo 77 >/proc/self/oom_score_adj").run().prints("77");
}

#[test]
fn the_host_name_and_the_domain_name_are_those_asked_for() {
    let container = Bundle::new().set("/hostname", "inside").set("/domainname", "example.org");
    container.sh("hostname; cat /proc/sys/kernel/domainname").run().prints("inside\nexample.org");
}

#[test]
fn arguments_arrive_as_they_are() {
    let words = ["", "a b", "\"quoted\"", "ä", "$HOME", "--", "-x"];
    let seen = Bundle::new().probe(["args"].iter().chain(&words)).run();
    assert_eq!(seen.ok().lines(), words);
}

#[test]
fn signals_are_neither_blocked_nor_ignored_also_where_the_caller_ignores_them() {
    let look = ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"];
    let running = Bundle::new().args(["sleep", "60"]);
    running.run_detached().ok();
    let some = if known_difference("runc", "passes on HUP, INT and real-time ones") {
        "USR1,TERM"
    } else {
        "HUP,INT,QUIT,RTMAX"
    };
    // As nohup does, a shell with its background jobs, a supervisor; signal(7): execve passes it on.
    for ignoring in ["WINCH", some] {
        let starter = ["/usr/bin/env".to_owned(), format!("--ignore-signal={ignoring}")];
        let ran = Bundle::new().args(look).run_cmd().started_by(&starter).run();
        let entered = running.exec_cmd(&[], &look).started_by(&starter).run();
        for line in ran.ok().lines().iter().chain(&entered.ok().lines()) {
            assert_eq!(line.split_whitespace().last(), Some("0000000000000000"), "{ignoring}: {line}");
        }
    }
    running.delete_force();
}

#[test]
fn a_caller_that_ignores_its_children_gets_their_exit_codes_all_the_same() {
    if known_difference("crun", "waits for ever") {
        return;
    }
    // With SIGCHLD ignored the kernel keeps no exit status: sigaction(2), "NOTES".
    let ignoring = ["/usr/bin/env", "--ignore-signal=CHLD"];
    let container = Bundle::new().sh("exit 7").hook("prestart", "exit 0");
    container.run_cmd().started_by(ignoring).run().code(7);
    let running = Bundle::new().args(["sleep", "60"]);
    running.run_detached().ok();
    running.exec_cmd(&[], &["sh", "-c", "exit 8"]).started_by(ignoring).run().code(8);
    running.delete_force();
}

#[test]
fn init_is_alone_and_is_the_first_process() {
    let seen = Bundle::new().sh("echo $$; ls /proc | grep -c '^[0-9]*$'").run();
    // The shell, ls and grep.
    assert_eq!(seen.ok().lines()[0], "1");
}

// The session keyring.

#[test]
fn a_quota_of_keys_that_is_used_up_is_named_with_the_remedy() {
    // A user of the host that no other test knows: the quota is counted by user, in whatever namespace.
    const HOST: u32 = 3_100_000;
    let map = json!([{"containerID": 0, "hostID": HOST, "size": 65536}]);
    let theirs = |bundle: Bundle| {
        chown_all(&bundle.rootfs(), HOST);
        bundle.ns("user").set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map.clone())
    };
    let add = |key: u32| format!("{},s:user,s:key{key},s:x,1,-3", nix::libc::SYS_add_key);
    let calls: Vec<String> = (0..1000).map(add).collect();
    let hoarder = theirs(Bundle::new()).sh(&format!("probe syscall {}; sleep 60", calls.join(" ")));
    hoarder.run_detached().ok();
    if hoarder.until_output(" E").output().contains("ENOSYS") {
        return skip("the kernel has no keys");
    }
    hoarder.until_output("EDQUOT");
    let next = theirs(Bundle::new().args(["true"]));
    if !known_difference("crun", "goes on in the keyring of its caller") {
        let refused = next.run();
        refused.fails_with("quota exceeded");
        if !known_difference("runc", "no remedy") {
            refused.fails_with("session keyring").fails_with("kernel.keys.maxkeys").fails_with("--no-new-keyring");
        }
        next.delete_force();
    }
    next.write();
    let bundle = next.path().to_str().expect("a plain path");
    next.cmd(["run", "--no-new-keyring", "--bundle", bundle, next.name()]).run().ok();
}

// Rows of other runtimes' reports.

#[test]
fn w4_additional_groups_are_those_of_the_list_and_no_fewer() {
    let user = |groups: &[u32]| json!({"uid": 0, "gid": 0, "additionalGids": groups});
    let container =
        Bundle::new().set("/process/user", user(&[30, 20, 20])).args(["grep", "Groups", "/proc/self/status"]);
    // The kernel sorts them (groups_sort), and keeps what is there twice.
    container.run().ok().prints("Groups:\t20 20 30 ");
    let container = Bundle::new().set("/process/user", user(&[20])).args(["sleep", "60"]);
    container.run_detached().ok();
    let mut process = json!({"args": ["grep", "Groups", "/proc/self/status"], "cwd": "/", "env": ["PATH=/bin"]});
    process["user"] = user(&[7, 7, 5]);
    container.exec_process(&process).ok().prints("Groups:\t5 7 7 ");
}

#[test]
fn x21_of_a_umask_only_the_permissions_count() {
    for (umask, seen) in [(0o1777, "0777"), (0o7027, "0027"), (0o22, "0022")] {
        let container = Bundle::new().set("/process/user/umask", umask).sh("umask");
        container.run().ok().prints(seen);
    }
}

#[test]
fn x23_a_capability_has_its_prefix_or_is_unknown() {
    let container =
        Bundle::new().caps(&["CHOWN", "CAP_KILL", "NET_ADMIN"]).args(["grep", "CapEff", "/proc/self/status"]);
    let outcome = container.run();
    outcome.ok().prints("CapEff:\t0000000000000020");
    if kind() == Kind::Corten {
        let words = "the capability \\\"CHOWN\\\" is unknown and ignored";
        assert!(outcome.log().contains(words), "{}", outcome.log());
    }
}
