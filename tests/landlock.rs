//! The annotation `run.corten.landlock`: what a program may do to files, ports and processes.

use serde_json::{Value, json};

use crate::harness::{Bundle, Kind, Outcome, kind, probe, skip};

/// A bundle with this document; none on a peer, which knows nothing of it.
fn restricted(ruleset: Value, rules: Value) -> Option<Bundle> {
    with_document(&json!({"version": 1, "ruleset": ruleset, "rules": rules}).to_string())
}

fn with_document(document: &str) -> Option<Bundle> {
    if kind() != Kind::Corten {
        skip("Landlock is asked for by an annotation of corten");
        return None;
    }
    Some(Bundle::new().set("/annotations", json!({"run.corten.landlock": document})))
}

/// Programs run, everything is read, and only `/allowed` is written to.
fn writing_to_one_place() -> Option<Bundle> {
    let bundle = restricted(
        json!({"handledAccessFS": ["write_file", "make_reg", "make_dir", "remove_file", "truncate"]}),
        json!({"pathBeneath": [
            {"allowedAccess": ["write_file", "make_reg", "remove_file", "truncate"], "paths": ["/allowed", "/dev/null"]},
        ]}),
    )?;
    Some(bundle.dir("/allowed", 0o777).dir("/other", 0o777).file("/other/old", "old\n", 0o666))
}

const WRITES: &str = "echo x > /allowed/new; cat /allowed/new /other/old; rm /allowed/new; \
    echo y > /other/new; echo y > /other/old; mkdir /allowed/dir";

#[track_caller]
fn sees_only_one_place(seen: &Outcome) {
    assert_eq!(seen.stdout(), "x\nold\n", "{}", seen.stderr());
    for denied in
        ["/other/new: Permission denied", "/other/old: Permission denied", "'/allowed/dir': Permission denied"]
    {
        assert!(seen.stderr().contains(denied), "{}", seen.stderr());
    }
}

#[test]
fn one_path_is_allowed_and_the_others_are_denied() {
    for no_new_privs in [true, false] {
        let Some(bundle) = writing_to_one_place() else { return };
        sees_only_one_place(&bundle.sh(WRITES).set("/process/noNewPrivileges", no_new_privs).run());
    }
}

#[test]
fn a_user_without_privileges_is_restricted_alike() {
    let Some(bundle) = writing_to_one_place() else { return };
    let user = json!({"uid": 1000, "gid": 1000});
    sees_only_one_place(&bundle.sh(WRITES).set("/process/user", user).set("/process/noNewPrivileges", false).run());
}

#[test]
fn an_exec_is_under_the_same_rules() {
    let Some(bundle) = writing_to_one_place() else { return };
    let bundle = bundle.args(["sleep", "60"]);
    bundle.run_detached().ok();
    sees_only_one_place(&bundle.exec(&["sh", "-c", WRITES]));
    let process = json!({"args": ["sh", "-c", WRITES], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
    sees_only_one_place(&bundle.exec_process(&process));
    bundle.delete_force().ok();
}

#[test]
fn a_container_in_a_user_namespace_is_restricted_too() {
    let Some(bundle) = writing_to_one_place() else { return };
    sees_only_one_place(&bundle.userns().sh(WRITES).run());
}

#[test]
fn a_program_that_may_not_be_executed_is_told() {
    let beneath = json!({"pathBeneath": [{"allowedAccess": ["execute"], "paths": ["/nowhere", "/etc"]}]});
    let Some(bundle) = restricted(json!({"handledAccessFS": ["execute"]}), beneath) else { return };
    bundle.dir("/etc", 0o755).args(["true"]).run().fails_with("permission denied").fails_with("run.corten.landlock");
}

#[test]
fn a_link_in_the_image_leads_no_further_than_the_image() {
    let beneath = json!({"pathBeneath": [{"allowedAccess": ["read_file"], "paths": ["/link", "/bin/probe"]}]});
    let Some(bundle) = restricted(json!({"handledAccessFS": ["read_file"]}), beneath) else { return };
    let bundle = bundle.dir("/data", 0o755).file("/data/a", "a\n", 0o644).link("/link", "/data");
    bundle.probe(["open", "/data/a", "/bin/busybox"]).run().ok().shows("/data/a ok").shows("/bin/busybox EACCES");
}

#[test]
fn the_standard_streams_may_be_opened_anew() {
    let beneath = json!({"pathBeneath": [{"allowedAccess": ["write_file"], "paths": ["/dev/stdout"]}]});
    let Some(bundle) = restricted(json!({"handledAccessFS": ["write_file"]}), beneath) else { return };
    bundle.sh("echo a > /dev/stdout && ! echo b > /dev/stderr").run().ok().prints("a\n");
    let pipes = "(echo a > /dev/stdout) | cat";
    restricted(json!({"handledAccessFS": ["write_file"]}), json!({})).expect("corten").sh(pipes).run().prints("a\n");
}

#[test]
fn a_path_that_is_not_there_is_a_warning_or_an_error() {
    let document = |strict: bool| {
        json!({
            "version": 1,
            "disableBestEffort": strict,
            "ruleset": {"handledAccessFS": ["make_dir"]},
            "rules": {"pathBeneath": [{"allowedAccess": ["make_dir"], "paths": ["/tmp/nowhere"]}]},
        })
        .to_string()
    };
    let Some(bundle) = with_document(&document(false)) else { return };
    let outcome = bundle.args(["true"]).run();
    assert!(outcome.ok().log().contains("/tmp/nowhere does not exist"), "{}", outcome.log());
    let outcome = with_document(&document(true)).expect("corten").args(["true"]).run();
    outcome.fails_with("/annotations/run.corten.landlock").fails_with("at /rules/pathBeneath/0/paths/0");
}

#[test]
fn one_port_is_allowed_and_the_others_are_denied() {
    let rules = json!({"netPort": [
        {"allowedAccess": ["bind_tcp"], "ports": [8080]},
        {"allowedAccess": ["connect_tcp"], "ports": [8081]},
    ]});
    let Some(bundle) = restricted(json!({"handledAccessNet": ["bind_tcp", "connect_tcp"]}), rules) else { return };
    let words = ["tcp", "bind", "8080", "bind", "8081", "connect", "8080", "connect", "8081"];
    let bundle = bundle.probe(words);
    bundle.run().ok().prints("bind ok\nbind EACCES\nconnect EACCES\nconnect ECONNREFUSED\n");
    let bundle = bundle.args(["sleep", "60"]);
    bundle.run_detached().ok();
    bundle
        .exec(&[&["/bin/probe"][..], &words].concat())
        .ok()
        .prints("bind ok\nbind EACCES\nconnect EACCES\nconnect ECONNREFUSED\n");
    bundle.delete_force().ok();
}

#[test]
fn signals_stay_among_the_processes_of_one_program() {
    let Some(bundle) = restricted(json!({"scoped": ["signal"]}), json!({})) else { return };
    let bundle = bundle.args(["sleep", "60"]);
    bundle.run_detached().ok();
    bundle.exec(&["sh", "-c", "sleep 60 & kill $!"]).ok();
    bundle.exec(&["kill", "-0", "1"]).fails_with("Operation not permitted");
    // The runtime is outside of it all.
    bundle.kill("KILL").ok();
    bundle.until("stopped").delete().ok();
}

#[test]
fn abstract_sockets_of_others_are_out_of_reach() {
    let make = |ruleset: Value| restricted(ruleset, json!({}));
    let serve = ["abstract", "serve", "corten"];
    let call = ["/bin/probe", "abstract", "call", "corten"];
    for (ruleset, answer) in
        [(json!({"scoped": ["abstract_unix_socket"]}), "EPERM\n"), (json!({"scoped": ["signal"]}), "ok\n")]
    {
        let Some(bundle) = make(ruleset) else { return };
        let bundle = bundle.probe(serve);
        bundle.run_detached().ok();
        bundle.until_output("ready");
        bundle.exec(&call).ok().prints(answer);
        bundle.delete_force().ok();
    }
}

#[test]
fn a_seccomp_filter_may_forbid_what_landlock_needs() {
    let Some(bundle) = writing_to_one_place() else { return };
    let names = ["landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "openat2"];
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": names, "action": "SCMP_ACT_KILL_PROCESS"}],
    });
    for no_new_privs in [true, false] {
        let bundle = writing_to_one_place().expect("corten").set("/linux/seccomp", profile.clone());
        sees_only_one_place(&bundle.sh(WRITES).set("/process/noNewPrivileges", no_new_privs).run());
    }
    drop(bundle);
}

/// A run of the bundle by the probe, which stands for another kernel.
fn run_where(bundle: &Bundle, words: &[&str]) -> Outcome {
    bundle.write();
    let program = probe().to_str().expect("a plain path");
    bundle.run_cmd().started_by(std::iter::once(&program).chain(words)).run()
}

/// landlock_create_ruleset, refused as by a kernel that lacks it (ENOSYS) or does not use it (EOPNOTSUPP).
const WITHOUT_LANDLOCK: [&[&str]; 2] = [&["refuse", "444", "38"], &["refuse", "444", "95"]];

#[test]
fn a_kernel_without_landlock_is_a_warning_or_an_error() {
    let document = |strict: bool| {
        json!({"version": 1, "disableBestEffort": strict, "ruleset": {"scoped": ["signal"]}}).to_string()
    };
    for kernel in WITHOUT_LANDLOCK {
        let Some(bundle) = with_document(&document(false)) else { return };
        let outcome = run_where(&bundle.args(["true"]), kernel);
        let warning = "at /ruleset/scoped: signal needs Landlock, which this kernel does not have; it is left out";
        assert!(outcome.ok().log().contains(warning), "{}", outcome.log());
        let strict = with_document(&document(true)).expect("corten").args(["true"]);
        let outcome = run_where(&strict, kernel);
        outcome.fails_with("/annotations/run.corten.landlock").fails_with("signal needs Landlock");
    }
}

/// What a program does to learn what it is kept from, a word for each right.
const KEPT_FROM: &str = "echo x 2>/dev/null >>/other/old || echo write_file
    probe syscall 76,s:/other/short,1 | grep -q EACCES && echo truncate
    probe tcp bind 8080 | grep -q EACCES && echo bind_tcp
    stty -F /dev/ptmx >/dev/null 2>&1 || echo ioctl_dev
    exit 0";

fn levels_document(strict: bool) -> String {
    json!({
        "version": 1,
        "disableBestEffort": strict,
        "ruleset": {
            "handledAccessFS": ["write_file", "truncate", "refer", "ioctl_dev"],
            "handledAccessNet": ["bind_tcp"],
            "scoped": ["signal"],
        },
        "rules": {"pathBeneath": [
            {"allowedAccess": ["write_file", "truncate", "refer"], "paths": ["/allowed"]},
            {"allowedAccess": ["write_file"], "paths": ["/dev"]},
        ]},
    })
    .to_string()
}

#[test]
fn a_kernel_of_an_old_level_holds_what_it_knows_and_the_rest_is_told() {
    let rights = [("write_file", 1), ("refer", 2), ("truncate", 3), ("bind_tcp", 4), ("ioctl_dev", 5), ("signal", 6)];
    for level in 1..=6 {
        let Some(bundle) = with_document(&levels_document(false)) else { return };
        let bundle = bundle.dir("/allowed", 0o777).dir("/other", 0o777);
        let bundle = bundle.file("/other/old", "old\n", 0o666).file("/other/short", "short\n", 0o666);
        let word = level.to_string();
        let outcome = run_where(&bundle.sh(KEPT_FROM), &["landlock", &word]);
        let felt = rights.iter().filter(|(word, since)| *since <= level && !["refer", "signal"].contains(word));
        let expected: Vec<&str> = felt.map(|(word, _)| *word).collect();
        assert_eq!(outcome.ok().lines(), expected, "level {level}: {}", outcome.stderr());
        for (word, since) in rights {
            let warning =
                format!("{word} needs ABI version {since} of Landlock, this kernel has {level}; it is left out");
            assert_eq!(outcome.log().contains(&warning), since > level, "{word}, level {level}: {}", outcome.log());
        }
        let strict = with_document(&levels_document(true)).expect("corten").args(["true"]).dir("/allowed", 0o777);
        let outcome = run_where(&strict, &["landlock", &word]);
        match level {
            6 => outcome.ok(),
            _ => outcome
                .fails_with("/annotations/run.corten.landlock")
                .fails_with(&format!("of Landlock, this kernel has {level}")),
        };
    }
}

#[test]
fn the_emulated_level_is_what_features_tells() {
    for level in ["1", "4"] {
        let Some(bundle) = with_document("{}") else { return };
        let program = probe().to_str().expect("a plain path");
        let features = bundle.cmd(["features"]).started_by([program, "landlock", level]).run().json();
        assert_eq!(features["annotations"]["run.corten.landlock.level"], level);
    }
}

#[test]
fn a_malformed_annotation_is_an_error_before_anything_is_made() {
    for (document, wrong) in [
        ("yes", "not JSON"),
        ("{}", "\"version\" is missing"),
        (r#"{"version": 9}"#, "at /version: unknown version 9"),
        (
            r#"{"version": 1, "ruleset": {"handledAccessFS": ["exec"]}}"#,
            "at /ruleset/handledAccessFS/0: unknown right \"exec\"",
        ),
    ] {
        let Some(bundle) = with_document(document) else { return };
        let bundle = bundle.args(["true"]);
        bundle.create().fails_with("/annotations/run.corten.landlock").fails_with(wrong);
        bundle.state().fails();
    }
}
