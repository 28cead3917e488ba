//! Texts of a configuration that are longer than 16 bits can count (CVE-2021-43784: the length of a message wrapped, and
//! what stood behind was obeyed): each arrives whole or is refused, and nothing is made of its parts.

use serde_json::{Value, json};

use crate::harness::{Bundle, Outcome, known_difference};

/// Longer than 64 KiB, and what the length wraps to when it is counted in 16 bits is where `forged` begins.
fn long(forged: &str) -> String {
    format!("{}{forged}", "x".repeat(1 << 16))
}

/// Id maps of this many ranges, of one id each; the host's root is in none of them.
fn map(ranges: u32) -> Value {
    (0..ranges).map(|id| json!({"containerID": id, "hostID": 100_000 + 2 * id, "size": 1})).collect()
}

fn with_maps(users: Value, groups: Value) -> Bundle {
    Bundle::new().userns().set("/linux/uidMappings", users).set("/linux/gidMappings", groups)
}

/// Refused cleanly: an error of the runtime's own, no container and no cgroup.
#[track_caller]
fn leaves_nothing(bundle: &Bundle, outcome: &Outcome) {
    outcome.fails();
    if !known_difference("runc", "Go's own words") {
        outcome.never_says("panic");
    }
    bundle.state().fails_with("does not exist");
    let left = bundle.cgroup().exists();
    assert!(
        !left || known_difference("crun", "leaves the cgroup of a user namespace without maps"),
        "the cgroup is left"
    );
}

#[test]
fn cve_2021_43784_id_maps_are_whole_or_refused() {
    // As many as a page holds, the most that the kernel takes.
    let seen = with_maps(map(200), map(200)).args(["cat", "/proc/self/uid_map", "/proc/self/gid_map"]).run();
    let lines: Vec<Vec<u32>> =
        seen.ok().lines().iter().map(|line| line.split_whitespace().flat_map(str::parse).collect()).collect();
    let wanted: Vec<Vec<u32>> = (0..200).chain(0..200).map(|id| vec![id, 100_000 + 2 * id, 1]).collect();
    assert_eq!(lines, wanted);
    // More than 64 KiB as text, as records of twelve bytes, and as JSON; with the host's root where the length wraps.
    for ranges in [341, 1400, 5462, 6000, 20_000] {
        let mut forged = map(ranges);
        forged[ranges as usize - 1] = json!({"containerID": 4_000_000, "hostID": 0, "size": 1});
        for (users, groups) in [(forged.clone(), map(1)), (map(1), forged.clone()), (forged.clone(), forged.clone())] {
            let bundle = with_maps(users, groups).args(["echo", "RAN"]);
            let outcome = bundle.run();
            outcome.hides("RAN");
            leaves_nothing(&bundle, &outcome);
        }
    }
}

#[test]
fn cve_2021_43784_arguments_arrive_whole_or_are_refused() {
    let one = long("\",\"uid\":0,");
    let many: Vec<String> = (0..2000).map(|number| format!("{number}-{}", "y".repeat(64))).collect();
    let words = [vec!["probe".to_owned(), "args".to_owned(), one.clone()], many.clone()].concat();
    let wanted = [vec![one], many].concat().join("\n");
    Bundle::new().args(&words).run().prints(&wanted);
    let bundle = Bundle::new().args(["sleep", "100"]);
    bundle.run_detached().ok();
    let process = json!({"args": words, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
    bundle.exec_process(&process).prints(&wanted);
    // More than the kernel takes as one string (execve(2): 32 pages), and as a program's name that comes back in an error.
    let longer = "z".repeat(1 << 17);
    let process = |args: Value| json!({"args": args, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
    for args in [json!(["echo", longer]), json!([longer]), json!([format!("/{longer}")]), json!([long("/bin/sh")])] {
        let bundle = Bundle::new().set("/process/args", args.clone());
        leaves_nothing(&bundle, &bundle.run());
    }
    for args in [json!(["echo", longer]), json!([longer]), json!([long("/bin/sh")])] {
        bundle.exec_process(&process(args)).fails().hides("z");
    }
}

#[test]
fn cve_2021_43784_variables_and_other_texts_arrive_whole_or_are_refused() {
    let value = long("\nPATH=/forged\n");
    let bundle = Bundle::new().env(&format!("LONG={value}")).env("AFTER=1");
    let bundle = (0..2000).fold(bundle, |bundle, number| bundle.env(&format!("N{number}={}", "v".repeat(60))));
    let bundle = bundle.set("/annotations", json!({"org.example.long": value}));
    let script = "echo ${#LONG} $PATH $AFTER; env | grep -c ^N";
    bundle.sh(script).run().prints(&format!("{} /bin 1\n2000", value.len()));
    let bundle = Bundle::new().set("/annotations", json!({"org.example.long": value})).args(["sleep", "100"]);
    bundle.run_detached().ok();
    assert_eq!(bundle.state().json()["annotations"]["org.example.long"], value);
    let option = format!("LONG={value}");
    bundle
        .exec_cmd(&["--env", &option], &["sh", "-c", "echo ${#LONG} $PATH"])
        .run()
        .prints(&format!("{} /bin", value.len()));
    bundle.delete_force().ok();
    if known_difference("crun", "hangs with some of these") || known_difference("runc", "takes some of them") {
        return;
    }
    // Names and paths are shorter than that, so these are refused.
    let long_name = long("");
    let path = format!("/{}", "a/".repeat(40_000));
    for (pointer, value) in [
        ("/hostname", json!(long_name)),
        ("/domainname", json!(long_name)),
        ("/process/cwd", json!(path)),
        ("/process/cwd", json!(format!("/{long_name}"))),
        ("/root/path", json!(path)),
        ("/linux/cgroupsPath", json!(path)),
        ("/linux/cgroupsPath", json!(format!("/{long_name}"))),
        ("/mounts/0/destination", json!(path)),
        ("/mounts/0/destination", json!(format!("/{long_name}"))),
        ("/mounts/1/options", json!([format!("size={long_name}")])),
        ("/linux/namespaces/0/path", json!(path)),
        ("/linux/sysctl", json!({format!("net.{long_name}"): "1"})),
        ("/linux/maskedPaths/0", json!(path)),
        ("/linux/readonlyPaths/0", json!(path)),
        ("/linux/devices", json!([{"path": path, "type": "c", "major": 1, "minor": 3}])),
    ] {
        // A masked or read-only path may be absent.
        let absent = pointer.ends_with("Paths/0");
        let bundle = Bundle::new().set("/domainname", "x").set(pointer, value).args(["echo", "RAN"]);
        let outcome = bundle.run();
        if absent && outcome.succeeded() {
            continue;
        }
        outcome.hides("RAN").fails();
        bundle.state().fails_with("does not exist");
    }
}
