//! As whom, and with which rights, a program that enters a container runs.

use serde_json::json;

use crate::harness::{Bundle, Outcome, known_difference};

fn running(bundle: Bundle) -> Bundle {
    let bundle = bundle.args(["sleep", "100"]);
    bundle.run_detached().ok();
    bundle
}

/// The words that `/proc/self/status` has behind this name.
fn status(outcome: &Outcome, name: &str) -> String {
    let lines = outcome.ok().lines();
    let line = lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| outcome.fail(name)).split_whitespace().collect::<Vec<_>>().join(" ")
}

const SHOW: [&str; 2] = ["cat", "/proc/self/status"];
const NONE: &str = "0000000000000000";

#[test]
fn cve_2016_3697_a_number_is_no_name_of_the_containers_passwd() {
    let passwd = "1000:x:0:0:root:/root:/bin/sh\nroot:x:0:0:root:/root:/bin/sh\n";
    let group = "1000:x:0:\n2000:x:0:1000\nroot:x:0:\n";
    let image = || Bundle::new().file("/etc/passwd", passwd, 0o644).file("/etc/group", group, 0o644);
    let container = running(image());
    for user in ["1000", "1000:1000"] {
        let seen = container.exec_cmd(&["--user", user], &SHOW).run();
        assert_eq!(status(&seen, "Uid"), "1000 1000 1000 1000", "{user}");
        assert_eq!(status(&seen, "Groups"), "", "{user}");
    }
    let seen = container.exec_cmd(&["--user", "1000:1000"], &SHOW).run();
    assert_eq!(status(&seen, "Gid"), "1000 1000 1000 1000");
    let process = json!({"args": SHOW, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 1000, "gid": 1000}});
    assert_eq!(status(&container.exec_process(&process), "Uid"), "1000 1000 1000 1000");
    let seen = image().set("/process/user", json!({"uid": 1000, "gid": 1000})).args(SHOW).run();
    assert_eq!(status(&seen, "Uid"), "1000 1000 1000 1000");
}

#[test]
fn cve_2026_30892_a_user_that_is_not_a_whole_number_is_refused() {
    let container = running(Bundle::new().set("/process/user", json!({"uid": 7, "gid": 7})));
    for user in [
        "1000:",
        ":5",
        ":",
        "",
        "1x",
        "x",
        "-1",
        "+1",
        " 1",
        "1 ",
        "0x10",
        "1:x",
        "1:-1",
        "1:2:3",
        "1.0",
        "root",
        "4294967296",
        "1:4294967296",
        "99999999999999999999",
        "1\n",
    ] {
        let option = format!("--user={user}");
        let seen = container.exec_cmd(&[&option], &["id"]).run();
        if seen.succeeded()
            && (known_difference("crun", "takes some, -1 as root") || known_difference("runc", "2^32 becomes root"))
        {
            continue;
        }
        seen.fails();
    }
    if known_difference("crun", "the last id") {
        return;
    }
    // The last id stands for none in setresuid(2): the caller's would stay.
    container.exec_cmd(&["--user", "4294967295"], &["id"]).run().fails();
    container.exec_cmd(&["--user", "1:4294967295"], &["id"]).run().fails();
    container.exec_cmd(&["--user", "4294967294:4294967294"], &SHOW).run().ok().shows("Uid:\t4294967294\t");
}

#[test]
fn cve_2022_29162_cve_2022_27650_cve_2025_27612_an_added_capability_is_not_inheritable() {
    if known_difference("crun", "1.22 ends with SIGSEGV where a set is missing") {
        return;
    }
    let container = running(Bundle::new());
    for options in [&["--cap", "CAP_NET_ADMIN"][..], &["--cap", "CAP_NET_ADMIN", "--cap", "CAP_CHOWN"]] {
        let seen = container.exec_cmd(options, &SHOW).run();
        assert_eq!(status(&seen, "CapInh"), NONE);
        assert_eq!(status(&seen, "CapAmb"), NONE);
        let effective = u64::from_str_radix(&status(&seen, "CapEff"), 16).expect("a set");
        assert!(effective & (1 << 12) != 0, "the capability that was asked for is not there: {effective:x}");
        let as_user = container.exec_cmd(&[options, &["--user", "1000"]].concat(), &SHOW).run();
        assert_eq!(status(&as_user, "CapInh"), NONE);
    }
    assert_eq!(status(&container.exec(&SHOW), "CapInh"), NONE);
    // Nor from what the caller has.
    let own = |command: crate::harness::Cmd| command.started_by(["setpriv", "--inh-caps", "+chown"]).run();
    let direct = own(container.exec_cmd(&[], &SHOW));
    if direct.succeeded() {
        assert_eq!(status(&direct, "CapInh"), NONE);
    }
}

#[test]
fn cve_2022_24769_the_template_has_nothing_inheritable() {
    let bundle = Bundle::new();
    let dir = bundle.host_dir("template");
    bundle.cmd(["spec"]).cwd(&dir).run().ok();
    let text = std::fs::read_to_string(dir.join("config.json")).expect("the template");
    let template: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let sets = &template["process"]["capabilities"];
    for set in ["inheritable", "ambient"] {
        let empty = sets[set].as_array().is_none_or(Vec::is_empty);
        assert!(empty || (set == "ambient" && known_difference("crun", "its template has ambient ones")), "{sets}");
    }
}

#[test]
fn a_program_that_enters_has_the_filter_and_the_flags_of_the_container() {
    let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]);
    let filter = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
    let container = running(Bundle::new().set("/linux/seccomp", filter));
    let seen = container.exec(&SHOW);
    assert_eq!(status(&seen, "Seccomp"), "2");
    if !known_difference("crun", "takes the flag from its options alone") {
        assert_eq!(status(&seen, "NoNewPrivs"), "1");
    }
    container.exec(&["mkdir", "/made"]).fails_with("not supported");
}

#[test]
fn cve_2023_25173_cve_2022_36109_the_groups_are_those_given_even_if_there_are_none() {
    let bundle = Bundle::new().args(SHOW);
    let probe = bundle.sandbox().dir().join("bin/probe");
    let words = [probe.to_str().expect("a plain path"), "groups", "0,27,4242"];
    assert_eq!(status(&bundle.run_cmd().started_by(words).run(), "Groups"), "");
    let container = running(Bundle::new());
    assert_eq!(status(&container.exec_cmd(&[], &SHOW).started_by(words).run(), "Groups"), "");
    let process = json!({"args": SHOW, "cwd": "/", "env": ["PATH=/bin"],
                         "user": {"uid": 5, "gid": 5, "additionalGids": [6]}});
    let file = container.process_file(&process);
    let file = file.to_str().expect("a plain path");
    let seen = container.cmd(["exec", "--process", file, container.name()]).started_by(words).run();
    assert_eq!(status(&seen, "Groups"), "6");
}
