//! As whom, and with which rights, a program that enters a container runs.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::{Bundle, Cmd, Outcome, eventually, known_difference, reaper};

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

/// In a user namespace where setgroups(2) is denied nobody can drop them any more (user_namespaces(7)).
#[test]
fn the_groups_of_the_host_do_not_survive_in_a_user_namespace_that_is_joined() {
    if ["crun", "runc"].iter().any(|peer| known_difference(peer, "keeps the caller's groups there")) {
        return;
    }
    let bundle = Bundle::new().unset("/hostname").unset("/linux/resources");
    let mut holder = Command::new("unshare");
    holder.args(["--user", "--map-root-user", "sleep", "100"]);
    let holder = Holder(reaper::spawn(&mut holder).expect("make a user namespace"));
    let path = |file: &str| format!("/proc/{}/{file}", holder.0);
    eventually("its maps are there", || {
        fs::read_to_string(path("setgroups")).is_ok_and(|text| text == "deny\n")
            && fs::read_to_string(path("uid_map")).is_ok_and(|text| !text.is_empty())
    });
    let probe = bundle.sandbox().dir().join("bin/probe");
    let words = [probe.to_str().expect("a plain path"), "groups", "27,4242"];
    let sandbox = bundle.sandbox().clone();
    let again = |bundle: Bundle| {
        bundle.join("user", path("ns/user")).mount_options("/dev/pts", |options| {
            options.retain(|option| option != "gid=5");
        })
    };
    assert_eq!(status(&again(bundle).args(SHOW).run_cmd().started_by(words).run(), "Groups"), "");
    let container = running(again(Bundle::inside(sandbox).unset("/hostname").unset("/linux/resources")));
    assert_eq!(status(&container.exec_cmd(&[], &SHOW).started_by(words).run(), "Groups"), "");
}

/// A process that is ended with the test.
struct Holder(i32);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0), Signal::SIGKILL);
        reaper::wait(self.0, Duration::from_secs(5));
    }
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

/// The ids that the kernel has for everybody, and what is none of them; none of the latter may become root.
const LARGE: [u64; 4] = [(1 << 31) - 1, 1 << 31, (1 << 31) + 1, (1 << 32) - 2];

fn no_ids() -> Vec<Value> {
    let whole = [json!((1u64 << 32) - 1), json!(1u64 << 32), json!((1u64 << 32) + 1), json!(u64::MAX)];
    let other = [json!(-1), json!(i64::MIN), json!(-2147483648i64), json!(1.5), json!(4294967296.0), json!(1e30)];
    let text = ["1000", "root", "user1000", "0", "", "-1", "4294967296"].map(|text| json!(text));
    [&whole[..], &other[..], &text[..], &[json!([]), json!({}), json!(true)]].concat()
}

#[test]
fn cve_2024_40635_cve_2026_46680_a_large_id_is_itself_or_refused_and_never_root() {
    for id in LARGE {
        let four = [id.to_string().as_str(); 4].join(" ");
        let user = json!({"uid": id, "gid": id, "additionalGids": [id]});
        let seen = Bundle::new().set("/process/user", user).args(SHOW).run();
        assert_eq!((status(&seen, "Uid"), status(&seen, "Gid")), (four.clone(), four.clone()));
        assert_eq!(status(&seen, "Groups"), id.to_string());
    }
    for wrong in no_ids() {
        for field in ["/process/user/uid", "/process/user/gid", "/process/user/additionalGids"] {
            let value = if field.ends_with("Gids") { json!([wrong]) } else { wrong.clone() };
            let bundle = Bundle::new().set("/process/user", json!({"uid": 1000, "gid": 1000})).set(field, value);
            let seen = bundle.args(["sh", "-c", "echo RAN; id"]).run();
            if known_difference("crun", "the last id stands for the caller's, larger ones become it")
                || known_difference("runc", "the last id stands for the caller's")
            {
                continue;
            }
            seen.fails_with_one_of(&["user", "uid", "gid"]).hides("RAN");
        }
    }
}

#[test]
fn cve_2024_40635_cve_2026_46680_a_large_id_that_enters_is_itself_or_refused_and_never_root() {
    let container = running(Bundle::new());
    for id in LARGE {
        let four = [id.to_string().as_str(); 4].join(" ");
        let process = json!({"args": SHOW, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": id, "gid": id}});
        assert_eq!(status(&container.exec_process(&process), "Uid"), four);
        if known_difference("crun", "reads the option into 32 bits with a sign") {
            continue;
        }
        let seen = container.exec_cmd(&["--user", &format!("{id}:{id}")], &SHOW).run();
        assert_eq!((status(&seen, "Uid"), status(&seen, "Gid")), (four.clone(), four));
    }
    for wrong in no_ids() {
        let user = json!({"uid": wrong, "gid": 1000});
        let process = json!({"args": ["sh", "-c", "echo RAN"], "cwd": "/", "env": ["PATH=/bin"], "user": user});
        let seen = container.exec_process(&process);
        if !known_difference("crun", "some become the last id") && !known_difference("runc", "the last id is taken") {
            seen.fails().hides("RAN");
        }
    }
}

/// A passwd or group file without an end, or one that is none.
fn endless(bundle: &Bundle, name: &str, kind: &str) {
    let file = bundle.rootfs().join("etc").join(name);
    fs::remove_file(&file).expect("take the plain file away");
    match kind {
        "line" => fs::write(&file, vec![b'x'; 24 << 20]).expect("write a line without an end"),
        "fields" => fs::write(&file, ":".repeat(24 << 20)).expect("write fields without an end"),
        "lines" => fs::write(&file, "a:x:5:5::/:\n".repeat(2 << 20)).expect("write many lines"),
        "sparse" => fs::File::create(&file).expect("make a file").set_len(1 << 40).expect("make it sparse"),
        "fifo" => nix::unistd::mkfifo(&file, Mode::from_bits_truncate(0o666)).expect("make a fifo"),
        "zero" => node(&file, 1, 5),
        "tty" => node(&file, 5, 0),
        "kmsg" => node(&file, 1, 11),
        "directory" => fs::create_dir(&file).expect("make a directory"),
        "itself" => symlink(name, &file).expect("make a link"),
        "descriptor" => symlink("/proc/self/fd/3", &file).expect("make a link"),
        _ => drop(UnixListener::bind(&file).expect("make a socket")),
    }
}

fn node(file: &Path, major: u64, minor: u64) {
    mknod(file, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(major, minor)).expect("make a device");
}

#[test]
fn cve_2026_61801_cve_2026_135844_a_passwd_without_an_end_costs_little_time_and_memory() {
    if known_difference("crun", "reads all of it") || known_difference("runc", "the same") {
        return;
    }
    let kinds = [
        "line",
        "fields",
        "lines",
        "sparse",
        "fifo",
        "zero",
        "tty",
        "kmsg",
        "directory",
        "itself",
        "descriptor",
        "socket",
    ];
    for kind in kinds {
        let bundle = Bundle::new().set("/process/user", json!({"uid": 1000, "gid": 1000})).args(["sleep", "100"]);
        for name in ["passwd", "group"] {
            endless(&bundle, name, kind);
        }
        // Memory enough for a start, and not for the file.
        let little = |command: Cmd| command.after("ulimit -v 98304").limit(Duration::from_secs(10)).run();
        let quick = |outcome: &Outcome| assert!(outcome.ok().took() < Duration::from_secs(5), "{kind}");
        quick(&little(bundle.create_cmd(&[])));
        quick(&bundle.start());
        // Nobody's home is said, so it is looked up.
        for options in [&[][..], &["--user", "1000"], &["--user", "4242:4242"], &["--user", "0"]] {
            let seen = little(bundle.exec_cmd(options, &["sh", "-c", "echo $HOME"]));
            quick(&seen);
            seen.prints("/");
        }
        bundle.delete_force().ok();
    }
}
