//! `update`: what is written, what stays, and that a refusal changes nothing.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Bundle, Outcome, Sandbox, gives_away, known_difference, peers_lack_it, probe, skip};

/// True if this cgroup2 has the controller to give away.
fn has(controller: &str) -> bool {
    drop(Sandbox::of_this_test());
    gives_away(controller)
}

fn running() -> Bundle {
    let container = Bundle::new().args(["sleep", "60"]);
    container.run_detached().ok();
    container
}

/// `update --resources FILE`.
fn update(container: &Bundle, resources: &Value) -> Outcome {
    let file = container.host_file("resources.json", &resources.to_string());
    container.cmd(["update", "--resources", file.to_str().expect("a plain path"), container.name()]).run()
}

/// `update` with options.
fn options(container: &Bundle, options: &[&str]) -> Outcome {
    let words = ["update"].iter().chain(options).copied().chain([container.name()]);
    container.cmd(words).run()
}

fn holds(container: &Bundle, file: &str) -> String {
    let path = container.cgroup().join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

/// The number of a whole disk, whose transfers can be limited.
fn disk() -> Option<String> {
    let disks = fs::read_dir("/sys/block").ok()?.flatten().map(|entry| entry.path());
    let real = disks
        .filter(|path| path.join("queue").is_dir())
        .find(|path| fs::read_to_string(path.join("size")).is_ok_and(|size| size.trim() != "0"))?;
    fs::read_to_string(real.join("dev")).ok().map(|number| number.trim().to_owned())
}

/// What each field of `linux.resources` writes: the controller, the field, the file and what it then holds.
fn fields() -> Vec<(&'static str, Value, &'static str, String)> {
    let mut all = vec![
        ("pids", json!({"pids": {"limit": 33}}), "pids.max", "33".to_owned()),
        ("pids", json!({"pids": {"limit": 0}}), "pids.max", "1".into()),
        ("pids", json!({"pids": {"limit": -1}}), "pids.max", "max".into()),
        ("memory", json!({"memory": {"limit": 67_108_864, "swap": 100_663_296}}), "memory.max", "67108864".into()),
        ("memory", json!({"memory": {"limit": 83_886_080}}), "memory.max", "83886080".into()),
        ("memory", json!({"memory": {"reservation": 33_554_432}}), "memory.low", "33554432".into()),
        ("memory", json!({"memory": {"reservation": -1}}), "memory.low", "max".into()),
        ("memory", json!({"memory": {"limit": -1}}), "memory.max", "max".into()),
        (
            "memory",
            json!({"memory": {"kernel": 1, "swappiness": 3}, "pids": {"limit": -1}}),
            "memory.max",
            "max".into(),
        ),
        ("cpu", json!({"cpu": {"shares": 512}}), "cpu.weight", "59".into()),
        ("cpu", json!({"cpu": {"quota": 20_000, "period": 50_000}}), "cpu.max", "20000 50000".into()),
        ("cpu", json!({"cpu": {"quota": 30_000}}), "cpu.max", "30000 50000".into()),
        ("cpu", json!({"cpu": {"period": 60_000}}), "cpu.max", "30000 60000".into()),
        ("cpu", json!({"cpu": {"burst": 10_000}}), "cpu.max.burst", "10000".into()),
        ("cpu", json!({"cpu": {"burst": 5000, "quota": 5000, "period": 60_000}}), "cpu.max", "5000 60000".into()),
        ("cpu", json!({"cpu": {"burst": 40_000, "quota": 40_000}}), "cpu.max.burst", "40000".into()),
        ("cpu", json!({"cpu": {"quota": -1, "burst": 0}}), "cpu.max", "max 60000".into()),
        ("cpu", json!({"cpu": {"idle": 1}}), "cpu.idle", "1".into()),
        ("cpu", json!({"cpu": {"idle": 0, "shares": 1024}}), "cpu.weight", "100".into()),
        ("cpuset", json!({"cpu": {"cpus": "0", "mems": "0"}}), "cpuset.cpus", "0".into()),
        ("cpuset", json!({"cpu": {"cpus": "0-1"}}), "cpuset.cpus", "0-1".into()),
        (
            "hugetlb",
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]}),
            "hugetlb.2MB.max",
            "4194304".into(),
        ),
        (
            "hugetlb",
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 8_388_608}]}),
            "hugetlb.2MB.rsvd.max",
            "8388608".into(),
        ),
        ("pids", json!({"unified": {"pids.max": "44"}, "pids": {"limit": 3}}), "pids.max", "44".into()),
        ("memory", json!({"unified": {"memory.high": "50M"}}), "memory.high", "52428800".into()),
        ("", json!({"unified": {"cgroup.max.depth": "9"}}), "cgroup.max.depth", "9".into()),
    ];
    if let Some(disk) = disk() {
        let (major, minor) = disk.split_once(':').expect("two numbers");
        let (major, minor) = (major.parse::<u64>().expect("a number"), minor.parse::<u64>().expect("a number"));
        let rate = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
        let io = json!({"blockIO": {"throttleReadBpsDevice": rate(1_048_576), "throttleWriteIOPSDevice": rate(7)}});
        let held = format!("{disk} rbps=1048576 wbps=max riops=max wiops=7");
        all.push(("io", io, "io.max", held));
        let io = json!({"blockIO": {"throttleWriteBpsDevice": rate(2_097_152), "throttleReadIOPSDevice": rate(9)}});
        let held = format!("{disk} rbps=1048576 wbps=2097152 riops=9 wiops=7");
        all.push(("io", io, "io.max", held));
    }
    all
}

#[test]
fn every_field_is_written_and_read_back() {
    let container = running();
    let mut missing = Vec::new();
    for (controller, resources, file, held) in fields() {
        if !controller.is_empty() && !has(controller) {
            missing.push(controller);
            continue;
        }
        let idle = resources["cpu"]["idle"].is_u64() || resources["cpu"]["burst"].is_u64();
        if idle && known_difference("crun", "changes no burst and no idleness") {
            continue;
        }
        let reserved = file.contains("rsvd");
        if reserved && known_difference("crun", "limits no reservations") {
            continue;
        }
        let none = resources["pids"]["limit"] == 0;
        if none && (known_difference("crun", "takes 0 for none given") || known_difference("runc", "the same")) {
            continue;
        }
        if resources["memory"]["kernel"].is_u64() && known_difference("crun", "refuses what cgroup v2 has not") {
            continue;
        }
        let half = resources["cpu"]["quota"].is_u64() != resources["cpu"]["period"].is_u64();
        if half && known_difference("crun", "knows nothing of the other half") {
            continue;
        }
        if controller == "hugetlb" && known_difference("runc", "changes no limit of huge pages") {
            continue;
        }
        update(&container, &resources).prints("");
        assert_eq!(holds(&container, file), held, "{file} after {resources}");
    }
    missing.dedup();
    if !missing.is_empty() {
        skip(&format!("cgroup2 has no {} controller here", missing.join(", ")));
    }
}

#[test]
fn weights_go_to_the_file_that_is_there() {
    let container = running();
    if !has("io") {
        return skip("cgroup2 has no io controller here");
    }
    fs::write(container.sandbox().cgroup().join("cgroup.subtree_control"), "+io").expect("give the controller away");
    let (file, held) = match container.cgroup().join("io.bfq.weight").exists() {
        true => ("io.bfq.weight", "500"),
        false if container.cgroup().join("io.weight").exists() => ("io.weight", "default 4950"),
        false => {
            update(&container, &json!({"blockIO": {"weight": 500}})).fails_with("io.weight");
            return;
        }
    };
    update(&container, &json!({"blockIO": {"weight": 500}})).ok();
    assert!(holds(&container, file).ends_with(held), "{}", holds(&container, file));
    options(&container, &["--blkio-weight", "1000"]).ok();
}

#[test]
fn b85_huge_pages_are_limited_by_standard_input_too() {
    if !has("hugetlb") {
        return skip("cgroup2 has no hugetlb controller here");
    }
    if known_difference("crun", "reads no standard input") || known_difference("runc", "changes no such limit") {
        return;
    }
    let container = running();
    let limits = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 2_097_152}]}).to_string();
    for words in [["update", "-r", "-"], ["update", "--resources", "-"]] {
        container.cmd(words.iter().copied().chain([container.name()])).stdin(&limits).run().prints("");
    }
    container.cmd(["update", "--resources=-", container.name()]).stdin(&limits).run().prints("");
    assert_eq!(holds(&container, "hugetlb.2MB.max"), "2097152");
    assert_eq!(holds(&container, "hugetlb.2MB.rsvd.max"), "2097152");
}

#[test]
fn b85_a_page_size_that_is_not_there_is_told_with_those_that_are() {
    if !has("hugetlb") {
        return skip("cgroup2 has no hugetlb controller here");
    }
    let wrong = json!([{"pageSize": "64MB", "limit": 4_194_304}]);
    if known_difference("crun", "lists none") || known_difference("runc", "the same") {
        return;
    }
    let created = Bundle::new().set("/linux/resources/hugepageLimits", wrong.clone()).args(["true"]).run();
    created.fails_with("/linux/resources/hugepageLimits/0").fails_with("hugetlb.64MB.max").fails_with("2MB");
    update(&running(), &json!({"hugepageLimits": wrong})).fails_with("hugetlb.64MB.max").fails_with("2MB");
}

#[test]
fn what_is_refused_halfway_changes_nothing() {
    let container = running();
    update(&container, &json!({"unified": {"cgroup.max.depth": "5", "cgroup.max.descendants": "50"}})).ok();
    let bad = json!({"unified": {"cgroup.max.depth": "7", "cgroup.max.descendants": "60", "nosuch.x": "1"}});
    if known_difference("runc", "keeps what was written") || known_difference("crun", "the same") {
        update(&container, &bad).fails();
        return;
    }
    update(&container, &bad).fails_with("nosuch.x").fails_with("/linux/resources/unified/nosuch.x");
    assert_eq!(
        (holds(&container, "cgroup.max.depth"), holds(&container, "cgroup.max.descendants")),
        ("5".into(), "50".into())
    );
    let bad = json!({"unified": {"cgroup.max.depth": "7", "cgroup.max.descendants": "many"}});
    update(&container, &bad).fails_with("cgroup.max.descendants").fails_with("invalid argument");
    assert_eq!(holds(&container, "cgroup.max.depth"), "5");
    let bad = json!({"unified": {"cgroup.max.depth": "7"}, "devices": [{"allow": true, "access": "x"}]});
    update(&container, &bad).fails_with("/linux/resources/devices/0");
    assert_eq!(holds(&container, "cgroup.max.depth"), "5");
}

#[test]
fn device_rules_that_the_kernel_refuses_take_back_what_came_before_them() {
    if peers_lack_it() {
        return;
    }
    let container = Bundle::new().caps(&["CAP_MKNOD", "CAP_SYSLOG"]).args(["sleep", "600"]);
    container.run_detached().ok();
    let node = "[ -e /kmsg ] || probe mknod /kmsg c 1 11 >/dev/null; probe open /kmsg";
    let opens = || container.exec(&["sh", "-c", node]).ok().stdout();
    let closed = opens();
    assert!(closed.contains("/kmsg EPERM"), "{closed}");
    let wanted = json!({
        "unified": {"cgroup.max.depth": "7"},
        "devices": [{"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rwm"}],
    });
    let file = container.host_file("resources.json", &wanted.to_string());
    let words = ["update", "--resources", file.to_str().expect("a plain path"), container.name()];
    let (probe, call) = (probe().to_str().expect("a plain path"), libc::SYS_bpf.to_string());
    container.cmd(words).started_by([probe, "refuse", &call, "1"]).run().fails_with("operation not permitted");
    assert_eq!((holds(&container, "cgroup.max.depth"), opens()), ("max".into(), closed));
    // It is not taken for done.
    container.cmd(words).run().ok();
    assert_eq!(holds(&container, "cgroup.max.depth"), "7");
    assert!(opens().contains("/kmsg ok"), "{}", opens());
}

#[test]
fn a_missing_controller_is_named_with_field_option_and_file() {
    let container = running();
    for (controller, option, value, field, file) in [
        ("pids", "--pids-limit", "7", "pids/limit", "pids.max"),
        ("memory", "--memory", "64m", "memory/limit", "memory.max"),
        ("memory", "--memory-reservation", "64m", "memory/reservation", "memory.low"),
        ("cpu", "--cpu-share", "512", "cpu/shares", "cpu.weight"),
        ("cpu", "--cpu-quota", "5000", "cpu/quota", "cpu.max"),
        ("cpuset", "--cpuset-cpus", "0", "cpu/cpus", "cpuset.cpus"),
        ("io", "--blkio-weight", "100", "blockIO/weight", "io.weight"),
    ] {
        if has(controller) {
            continue;
        }
        let outcome = options(&container, &[option, value]);
        if known_difference("runc", "names neither") || known_difference("crun", "the same") {
            continue;
        }
        for word in [option, &format!("/linux/resources/{field}"), file, &format!("{controller} controller")] {
            outcome.fails_with(word);
        }
    }
}

#[test]
fn options_are_written_and_read_back() {
    let container = running();
    let bfq = container.cgroup().join("io.bfq.weight").exists();
    let (weight, five_hundred) = if bfq { ("io.bfq.weight", "default 500") } else { ("io.weight", "default 4950") };
    for (controller, words, file, held) in [
        ("pids", &["--pids-limit", "33"][..], "pids.max", "33"),
        ("pids", &["--pids-limit", "-1"], "pids.max", "max"),
        ("memory", &["--memory", "64m", "--memory-swap", "96m"], "memory.max", "67108864"),
        ("memory", &["--memory-reservation", "32M"], "memory.low", "33554432"),
        ("memory", &["--memory", "-1"], "memory.max", "max"),
        ("cpu", &["--cpu-share", "512"], "cpu.weight", "59"),
        ("cpu", &["--cpu-period", "50000", "--cpu-quota", "20000"], "cpu.max", "20000 50000"),
        ("cpu", &["--cpu-quota", "-1"], "cpu.max", "max 50000"),
        ("cpu", &["--cpu-idle", "1"], "cpu.idle", "1"),
        ("cpuset", &["--cpuset-cpus", "0", "--cpuset-mems", "0"], "cpuset.cpus", "0"),
        ("io", &["--blkio-weight", "500", "--kernel-memory", ""], weight, five_hundred),
    ] {
        if !has(controller) || (file == weight && !container.cgroup().join(file).exists()) {
            continue;
        }
        let crun = words[0] == "--cpu-idle" || words.contains(&"64m") || words.contains(&"32M") || words.contains(&"");
        if crun && known_difference("crun", "knows neither units nor idleness") {
            continue;
        }
        if words[0] == "--cpu-quota" && known_difference("crun", "takes no such quota") {
            continue;
        }
        if words[0] == "--blkio-weight" && known_difference("runc", "leaves the weight as it is") {
            continue;
        }
        options(&container, words).prints("");
        assert_eq!(holds(&container, file), held, "{file} after {words:?}");
    }
    if !known_difference("crun", "takes anything for a number") {
        options(&container, &["--memory", "lots"]).fails();
    }
    options(&container, &[]).ok();
}

#[test]
fn a_paused_container_is_updated_and_stays_paused() {
    let container = running();
    container.cmd(["pause", container.name()]).run().ok();
    update(&container, &json!({"unified": {"cgroup.max.depth": "4"}})).ok();
    assert_eq!((holds(&container, "cgroup.max.depth"), container.status()), ("4".into(), "paused".into()));
    container.cmd(["resume", container.name()]).run().ok();
}

#[test]
fn only_a_living_container_is_updated() {
    let container = running();
    container.cmd(["update", "--pids-limit", "3", "nosuch"]).run().fails_with("does not exist");
    container.kill("KILL").ok();
    container.wait();
    if !known_difference("crun", "looks for its cgroup") {
        update(&container, &json!({"unified": {"cgroup.max.depth": "4"}})).fails_with("not running");
    }
    let created = Bundle::new().args(["true"]);
    created.create().ok();
    update(&created, &json!({"unified": {"cgroup.max.depth": "4"}})).ok();
    assert_eq!(holds(&created, "cgroup.max.depth"), "4");
}

#[test]
fn the_words_of_resctrl_need_a_group() {
    let container = running();
    for option in ["--l3-cache-schema", "--mem-bw-schema"] {
        let outcome = options(&container, &[option, "L3:0=f"]);
        if !known_difference("runc", "words of its own") && !known_difference("crun", "words of its own") {
            outcome.fails_with("resctrl");
        }
    }
}

#[test]
fn what_is_no_document_is_refused() {
    let container = running();
    for (text, word) in [("", "JSON"), ("{", "JSON"), (r#"{"pids":{"limit":"many"}}"#, "/pids/limit"), ("[1]", "")] {
        let file = container.host_file("resources.json", text);
        let outcome = container.cmd(["update", "-r", file.to_str().expect("a plain path"), container.name()]).run();
        if known_difference("crun", "words of its own") || known_difference("runc", "words of its own") {
            continue;
        }
        outcome.fails_with(word);
    }
    container.cmd(["update", "-r", "/nosuch", container.name()]).run().fails_with("no such file or directory");
}

#[test]
fn limits_of_another_type_are_refused_by_their_pointer() {
    let bundle = Bundle::new().args(["sleep", "60"]);
    let counts = has("pids");
    let container = if counts { bundle.set("/linux/resources/pids", json!({"limit": 77})) } else { bundle };
    container.run_detached().ok();
    let unchanged = |what: &Value| assert!(!counts || holds(&container, "pids.max") == "77", "{what}");
    for (resources, said) in [
        (json!([]), "must be an object, not an array"),
        (json!({"pids": 100}), "/pids: must be an object, not a number"),
        (json!({"pids": "100"}), "/pids: must be an object, not a string"),
        (json!({"pids": true}), "/pids: must be an object, not a boolean"),
        (json!({"pids": [100]}), "/pids: must be an object, not an array"),
        (json!({"pids": {"Limit": 50}}), "/pids: missing field `limit`"),
        (json!({"memory": []}), "/memory: must be an object, not an array"),
        (json!({"cpu": [1024]}), "/cpu: must be an object, not an array"),
        (json!({"unified": []}), "/unified: must be an object, not an array"),
        (json!({"devices": [[false]]}), "/devices/0: must be an object, not an array"),
        (json!({"hugepageLimits": [["2MB", 1]]}), "/hugepageLimits/0: must be an object, not an array"),
    ] {
        if known_difference("crun", "takes some of them") {
            break;
        }
        if said.contains("missing") && known_difference("runc", "knows fields in any case") {
            continue;
        }
        let outcome = update(&container, &resources);
        outcome.fails();
        if !known_difference("runc", "words of its own") {
            outcome.fails_with(said);
        }
        unchanged(&resources);
    }
    if known_difference("runc", "dereferences a null pointer") {
        return;
    }
    for nothing in [json!({}), json!({"pids": {}}), json!({"pids": null})] {
        update(&container, &nothing).ok();
        unchanged(&nothing);
    }
}

#[test]
fn b81_device_rules_are_replaced_and_the_same_ones_leave_all_alone() {
    let peers = known_difference("runc", "never changes device rules") || known_difference("crun", "adds no defaults");
    if peers {
        return;
    }
    let container = Bundle::new().caps(&["CAP_MKNOD", "CAP_SYSLOG", "CAP_SYS_ADMIN"]).args(["sleep", "600"]);
    container.run_detached().ok();
    let node = "[ -e /kmsg ] || probe mknod /kmsg c 1 11 >/dev/null; probe open /kmsg /dev/null";
    let opens = || container.exec(&["sh", "-c", node]).ok().stdout();
    let closed = opens();
    assert!(closed.contains("/kmsg EPERM"), "{closed}");
    let kmsg = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rwm"});
    let nothing = json!({"allow": false, "access": "rwm"});
    update(&container, &json!({"devices": [nothing, kmsg]})).ok();
    let open = opens();
    assert!(open.contains("/kmsg ok") && open.contains("/dev/null ok"), "{open}");
    // As engines write it in front of no list at all; and no list.
    for same in [json!({"devices": [nothing]}), json!({"devices": []}), json!({})] {
        update(&container, &same).ok();
        assert_eq!(opens(), open);
    }
    let refused = json!({"devices": [nothing, {"allow": true, "type": "c", "major": -5, "access": "rwm"}]});
    update(&container, &refused).fails_with("/linux/resources/devices/1");
    assert_eq!(opens(), open);
    let again = json!({"devices": [nothing, {"allow": false, "type": "c", "access": "rwm"}]});
    for turn in 0..100 {
        let rules = if turn % 2 == 0 { &again } else { &json!({"devices": [nothing, kmsg]}) };
        update(&container, rules).ok();
    }
    assert_eq!(opens(), open);
    update(&container, &again).ok();
    assert_eq!(opens(), closed);
}

#[test]
fn b74_memory_below_what_is_in_use_is_refused_when_that_is_asked_for() {
    if !has("memory") {
        return skip("cgroup2 has no memory controller here");
    }
    let container = Bundle::new()
        .set("/linux/resources/memory", json!({"limit": 134_217_728}))
        .sh("busybox dd if=/dev/zero of=/tmp/held bs=1M count=50 2>/dev/null; echo ready; sleep 60")
        .mount("/tmp", "tmpfs", Path::new("tmpfs"), &["size=64m"]);
    container.run_detached().ok();
    container.until_output("ready");
    let limit = json!({"memory": {"limit": 20_971_520, "checkBeforeUpdate": true}});
    update(&container, &limit).fails();
    assert_eq!((holds(&container, "memory.max"), container.status()), ("134217728".into(), "running".into()));
}

#[test]
fn b73_swap_and_memory_change_in_both_directions() {
    if !has("memory") {
        return skip("cgroup2 has no memory controller here");
    }
    let container = running();
    let m = |megabytes: i64| megabytes << 20;
    update(&container, &json!({"memory": {"limit": m(64), "swap": m(64)}})).ok();
    if !container.cgroup().join("memory.swap.max").exists() {
        return skip("the kernel does not account for swap");
    }
    for (memory, max, swap) in [
        (json!({"limit": m(64), "swap": m(64)}), "67108864", "0"),
        (json!({"limit": m(64), "swap": m(96)}), "67108864", "33554432"),
        (json!({"limit": m(32)}), "33554432", "67108864"),
        (json!({"swap": m(80)}), "33554432", "50331648"),
        (json!({"limit": m(64), "swap": -1}), "67108864", "max"),
        (json!({"limit": m(64), "swap": m(64)}), "67108864", "0"),
        (json!({"limit": -1}), "max", "max"),
    ] {
        if memory["limit"] == -1 && known_difference("crun", "leaves swap limited") {
            continue;
        }
        let half = memory["limit"].is_null() || memory["swap"].is_null();
        if half && known_difference("crun", "knows nothing of the other half") {
            continue;
        }
        if memory["limit"].is_null() && known_difference("runc", "wants memory beside swap") {
            continue;
        }
        update(&container, &json!({"memory": memory})).ok();
        assert_eq!(
            (holds(&container, "memory.max").as_str(), holds(&container, "memory.swap.max").as_str()),
            (max, swap),
            "{memory}"
        );
    }
    update(&container, &json!({"memory": {"limit": m(64), "swap": m(32)}})).fails();
    if !known_difference("crun", "leaves swap limited") {
        assert_eq!(holds(&container, "memory.max"), "max");
    }
}
