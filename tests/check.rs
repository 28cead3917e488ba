//! `check` says what `create` and `start` then say, in the same words, and leaves no trace.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Bundle, Kind, Outcome, by_systemd, kind, peers_lack_it, skip};

/// What `check` says of a bundle; a second time, since the first could have left something.
#[track_caller]
pub fn check(bundle: &Bundle, options: &[&str]) -> Value {
    bundle.write();
    let dir = bundle.path().to_str().expect("a plain path");
    let args = ["check", "--format", "json", "--bundle", dir].into_iter().chain(options.iter().copied());
    let before = world(bundle);
    let outcome = bundle.cmd(args.clone()).run();
    let after = world(bundle);
    let trace = after.lines().filter(|line| !before.contains(line)).collect::<Vec<_>>();
    // As in `walk`.
    let all = before == after || by_systemd();
    assert!(trace.is_empty() && all, "check leaves a trace: {trace:#?}");
    let document = parsed(&outcome);
    assert_eq!(document, parsed(&bundle.cmd(args).run()), "check says something else the second time");
    outcome.code(if document["start"] == true { 0 } else { 1 });
    document
}

#[track_caller]
fn parsed(outcome: &Outcome) -> Value {
    serde_json::from_str(&without_numbers(&outcome.stdout())).unwrap_or_else(|e| outcome.fail(&e.to_string()))
}

/// What creating a container changes: cgroups, mounts, state, the bundle.
fn world(bundle: &Bundle) -> String {
    let mut text = String::new();
    for directory in [bundle.sandbox().cgroup(), bundle.path(), &bundle.sandbox().root(), &bundle.host("x")] {
        walk(directory, &mut text);
    }
    text += &fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
    text
}

fn walk(directory: &Path, text: &mut String) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let of_cgroups = directory.starts_with("/sys");
        let meta = match entry.metadata() {
            // systemd is taking away what an earlier container had.
            Err(_) if of_cgroups => continue,
            meta => meta.expect("look at a file"),
        };
        // The files of a cgroup come and go with the controllers that others switch on above it.
        if of_cgroups && !meta.is_dir() {
            continue;
        }
        // The times of a cgroup are those of the look.
        let changed = if of_cgroups { 0 } else { meta.ctime_nsec() };
        let _ = writeln!(text, "{:?} {:o} {} {changed}", entry.path(), meta.mode(), meta.uid());
        if meta.is_dir() {
            walk(&entry.path(), text);
        }
    }
}

/// The pid of a process that is gone says nothing.
fn without_numbers(text: &str) -> String {
    let mut parts = text.split("/proc/");
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        clean += "/proc/";
        clean += part.trim_start_matches(|letter: char| letter.is_ascii_digit());
    }
    clean
}

/// The record of a command that has failed.
#[track_caller]
fn record(outcome: &Outcome) -> Value {
    outcome.fails();
    let log = without_numbers(&outcome.log());
    let line = log.lines().last().unwrap_or_else(|| outcome.fail("it has no log"));
    serde_json::from_str(line).unwrap_or_else(|e| outcome.fail(&e.to_string()))
}

/// `create`, or else `start`, fails; `check` has said so: sentence, field, remedy, errno.
#[track_caller]
pub fn agrees(what: &str, bundle: &Bundle) {
    let said = check(bundle, &[bundle.name()]);
    let made = bundle.create();
    let (outcome, stops) = if made.succeeded() { (bundle.start(), "start") } else { (made, "create") };
    let record = record(&outcome);
    let message = record["msg"].as_str().expect("a message");
    let own = |verb: &str| format!("{verb} {}: ", bundle.name());
    let message = message.strip_prefix(&own("create")).or(message.strip_prefix(&own("start"))).unwrap_or(message);
    let findings = said["findings"].as_array().expect("findings");
    let found = findings.iter().find(|finding| finding["level"] == "error" && finding["msg"] == message);
    let Some(found) = found else {
        panic!("{what}: {stops} says\n  {message}\nand check\n{said:#}");
    };
    for key in ["hint", "errno"] {
        assert_eq!(found[key], record[key], "{what}: the {key} of {message}");
    }
    // Engines do not want the field in some sentences, so that only check has it.
    assert!(record["field"].is_null() || record["field"] == found["field"], "{what}: {found:#} {record:#}");
    assert_eq!(found["stops"], stops, "{what}: {found:#}");
    assert_eq!(said["create"], stops == "start", "{what}");
    assert_eq!(said["errors"], 1, "{what}: one fault is one error: {said:#}");
    bundle.delete_force();
}

fn base() -> Bundle {
    Bundle::new().args(["true"])
}

/// A fault: a name, and a change to a sound bundle.
type Fault = (&'static str, fn(Bundle) -> Bundle);

fn agree_on(faults: &[Fault]) {
    if peers_lack_it() {
        return;
    }
    let sound = check(&base(), &[]);
    assert_eq!((&sound["errors"], &sound["warnings"]), (&json!(0), &json!(0)), "{sound:#}");
    for (what, change) in faults {
        agrees(what, &change(base()));
    }
}

#[test]
fn a_plan_that_cannot_be_made_is_told_in_the_words_of_create() {
    agree_on(&[
        ("version", |b| b.set("/ociVersion", "2.0.0")),
        ("no version", |b| b.set("/ociVersion", "x")),
        ("no process", |b| b.unset("/process")),
        ("no root", |b| b.unset("/root")),
        ("no arguments", |b| b.set("/process/args", json!([]))),
        ("arguments of a wrong type", |b| b.set("/process/args", "sh")),
        ("cwd", |b| b.set("/process/cwd", "relative")),
        ("no cwd", |b| b.unset("/process/cwd")),
        ("user of a wrong type", |b| b.set("/process/user/uid", "0")),
        ("user that is a list", |b| b.set("/process/user", json!([0, 0]))),
        ("root that is a list", |b| b.set("/root", json!(["rootfs"]))),
        ("mount that is a list", |b| b.push("/mounts", json!(["/x"]))),
        ("hooks that are a list", |b| b.set("/hooks", json!([]))),
        ("limit that is a number", |b| b.set("/linux/resources/pids", 100)),
        ("I/O priority without a class", |b| b.set("/process/ioPriority", json!({"priority": 3}))),
        ("no user that there can be", |b| b.set("/process/user/uid", u32::MAX)),
        ("variable", |b| b.set("/process/env", json!(["A=b", "NOEQ"]))),
        ("limits twice", |b| {
            let limit = json!({"type": "RLIMIT_CORE", "soft": 0, "hard": 0});
            b.set("/process/rlimits", json!([limit, limit]))
        }),
        ("soft above hard", |b| b.set("/process/rlimits", json!([{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}]))),
        ("unknown limit", |b| b.set("/process/rlimits", json!([{"type": "RLIMIT_X", "soft": 2, "hard": 1}]))),
        ("oom score", |b| b.set("/process/oomScoreAdj", 2000)),
        ("nice", |b| b.set("/process/scheduler", json!({"policy": "SCHED_OTHER", "nice": 50}))),
        ("I/O priority", |b| b.set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 9}))),
        ("memory policy", |b| b.set("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": ""}))),
        ("Landlock", |b| b.set("/annotations", json!({"run.corten.landlock": "{}"}))),
        ("overlay", |b| b.set("/annotations", json!({"run.corten.rootfs.overlay": "disk"}))),
        ("overlay on the host", |b| b.set("/annotations", json!({"run.corten.rootfs.overlay": "dir=/no/such"}))),
        ("second namespace", |b| b.push("/linux/namespaces", json!({"type": "pid"}))),
        ("unknown namespace", |b| b.push("/linux/namespaces", json!({"type": "space"}))),
        ("host name", |b| b.without_ns("uts")),
        ("long host name", |b| b.set("/hostname", "x".repeat(65))),
        ("time offsets", |b| b.set("/linux/timeOffsets", json!({"boottime": {"secs": 1}}))),
        ("maps without a namespace", |b| {
            b.set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 0, "size": 1}]))
        }),
        ("no map of groups", |b| b.userns().unset("/linux/gidMappings")),
        ("empty map", |b| b.userns().set("/linux/uidMappings/0/size", 0)),
        ("mount without a type", |b| b.push("/mounts", json!({"destination": "/x"}))),
        ("bind without a source", |b| b.push("/mounts", json!({"destination": "/x", "type": "bind"}))),
        ("mount option", |b| b.mount("/x", "bind", "/tmp", &["rbind", "readonly"])),
        ("mount in /proc", |b| b.mount("/proc/sys/x", "bind", "/tmp", &["bind"])),
        ("mount without a destination", |b| b.push("/mounts", json!({"type": "tmpfs"}))),
        ("overlay without layers", |b| b.mount("/x", "overlay", "overlay", &["upperdir=/x"])),
        ("propagation", |b| b.set("/linux/rootfsPropagation", "wide")),
        ("device", |b| b.push("/linux/devices", json!({"type": "c", "path": "/dev/x", "major": 9999, "minor": 1}))),
        ("sysctl of the host", |b| b.set("/linux/sysctl", json!({"vm.swappiness": "1"}))),
        ("sysctl for a field", |b| b.set("/linux/sysctl", json!({"kernel.hostname": "x"}))),
        ("sysctl without its namespace", |b| {
            b.without_ns("ipc").without_mount("/dev/mqueue").set("/linux/sysctl", json!({"kernel.msgmax": "1"}))
        }),
        ("swap below memory", |b| b.set("/linux/resources/memory", json!({"swap": 4096}))),
        ("idle", |b| b.set("/linux/resources/cpu", json!({"idle": 5}))),
        ("weight", |b| b.set("/linux/resources/blockIO", json!({"weight": 5}))),
        ("page size", |b| b.set("/linux/resources/hugepageLimits", json!([{"pageSize": "2XB", "limit": 1}]))),
        ("file of a cgroup", |b| b.set("/linux/resources/unified", json!({"../x": "1"}))),
        ("file of the runtime", |b| b.set("/linux/resources/unified", json!({"cgroup.procs": "1"}))),
        ("cgroup", |b| b.set("/linux/cgroupsPath", "/")),
        ("seccomp action", |b| b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_X"}))),
        ("seccomp listener", |b| {
            b.set(
                "/linux/seccomp",
                json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}),
            )
        }),
        ("seccomp argument", |b| {
            b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 9, "value": 1, "op": "SCMP_CMP_EQ"}]}]}))
        }),
        ("hook's path", |b| b.set("/hooks", json!({"prestart": [{"path": "x"}]}))),
        ("hook's time", |b| b.set("/hooks", json!({"poststop": [{"path": "/x", "timeout": 0}]}))),
    ]);
}

#[test]
fn bytes_behind_the_configuration_are_one_warning() {
    if peers_lack_it() {
        return;
    }
    let bundle = base().set("/process/user", Value::Null);
    bundle.write();
    let file = bundle.path().join("config.json");
    let text = fs::read_to_string(&file).expect("config.json");
    let end = text.trim_end().len();
    let behind = bundle.host_file("behind.json", &(text + "}}\n"));
    let outcome = bundle.cmd(["check", "--format", "json", "--config", behind.to_str().expect("a plain path")]);
    let said = outcome.cwd(bundle.path()).run().json();
    assert_eq!((&said["errors"], &said["warnings"]), (&json!(0), &json!(1)), "{said:#}");
    let warning = format!("trailing data after the JSON value is ignored, from byte {end} on");
    assert_eq!(said["findings"][0]["msg"], warning, "{said:#}");
}

#[test]
fn unknown_names_are_warnings_of_check_alone() {
    let bundle = base()
        .set("/proces", json!({}))
        .set("/linux/resources/cpu", json!({"cpuss": "0"}))
        .set("/annotations", json!({"run.corten.landlok": "read=/"}));
    let created = bundle.create();
    assert_eq!((created.ok().stderr(), created.log()), (String::new(), String::new()));
    bundle.delete_force().ok();
    if peers_lack_it() {
        return;
    }
    let outcome = bundle.cmd(["check"]).cwd(bundle.path()).run();
    outcome.prints(
        "warning: /linux/resources/cpu/cpuss: the field is unknown and ignored\n  hint: did you mean \"cpus\"?\n\
         warning: /proces: the field is unknown and ignored\n  hint: did you mean \"process\"?\n\
         warning: /annotations/run.corten.landlok: the annotation is unknown and ignored\n  \
         hint: did you mean \"run.corten.landlock\"?\ncreate would succeed: 3 warnings",
    );
}

#[test]
fn what_the_kernel_refuses_is_learnt_from_the_kernel() {
    agree_on(&[
        ("no such sysctl", |b| b.set("/linux/sysctl", json!({"net.ipv4.no_such": "1"}))),
        ("sysctl's value", |b| b.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "many"}))),
        ("unmapped user", |b| b.userns().set("/process/user/uid", 70_000)),
        ("unmapped group", |b| b.userns().set("/process/user/gid", 70_000)),
        ("unmapped additional group", |b| b.userns().set("/process/user/additionalGids", json!([70_000]))),
        ("maps that overlap", |b| {
            let map = json!([{"containerID": 0, "hostID": 0, "size": 9}, {"containerID": 5, "hostID": 50, "size": 9}]);
            b.userns().set("/linux/uidMappings", map)
        }),
        ("network device", |b| b.set("/linux/netDevices", json!({"nodevice0": {}}))),
        ("memory policy's node", |b| b.set("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "777"}))),
        ("flags of a filter", |b| {
            b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_KILL_PROCESS"}))
                .set("/process/noNewPrivileges", false)
        }),
        ("option of a tmpfs", |b| b.mount("/x", "tmpfs", "tmpfs", &["nosuid", "nosuch=1"])),
        ("value of an option", |b| b.mount("/x", "tmpfs", "tmpfs", &["size=much"])),
        ("option of a procfs", |b| b.without_mount("/proc").mount("/proc", "proc", "proc", &["hidepid=9"])),
        ("option of a cgroup2", |b| b.mount("/sys/fs/cgroup", "cgroup2", "cgroup", &["nosuch"])),
        ("file system that no kernel has", |b| b.mount("/x", "nosuchfs", "x", &[])),
        ("namespace that is not there", |b| b.join("network", "/no/such/ns")),
        ("namespace of another kind", |b| b.join("network", "/proc/self/ns/uts")),
        ("no namespace", |b| b.join("ipc", "/etc/passwd")),
    ]);
}

#[test]
fn limits_that_cannot_be_raised_are_told() {
    let raised =
        |b: Bundle| b.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2_000_000_000}]));
    if peers_lack_it() {
        return;
    }
    agrees("hard limit", &raised(base()));
    let status = fs::read_to_string("/proc/self/status").expect("our own status");
    let own = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("capabilities");
    let own = u64::from_str_radix(own.trim(), 16).expect("a number");
    if own >> 24 & 1 == 1 {
        return skip("this machine's root has CAP_SYS_RESOURCE");
    }
    agrees("oom score", &base().set("/process/oomScoreAdj", -1000));
}

#[test]
fn what_is_missing_on_the_host_is_told_in_the_words_of_create() {
    agree_on(&[
        ("no root", |b| b.set("/root/path", "nowhere")),
        ("root that is a file", |b| b.set("/root/path", "rootfs/bin/busybox")),
        ("no source", |b| b.bind("/no/such/source", "/x", &["rbind"])),
        ("file on a directory", |b| {
            let file = b.host_file("file", "");
            b.bind(file, "/etc", &["bind"])
        }),
        ("directory on a file", |b| {
            let dir = b.host_dir("dir");
            b.bind(dir, "/etc/passwd", &["bind"])
        }),
        ("destination below a file", |b| b.mount("/etc/passwd/x", "tmpfs", "tmpfs", &[])),
        ("tmpfs on a file", |b| b.mount("/etc/passwd", "tmpfs", "tmpfs", &[])),
        ("destination in what is read-only", |b| {
            let dir = b.host_dir("dir");
            b.bind(dir, "/x", &["bind", "ro"]).mount("/x/y", "tmpfs", "tmpfs", &[])
        }),
        ("file system", |b| b.mount("/x", "nosuchfs", "none", &[])),
        ("link at /proc", |b| {
            fs::remove_dir(b.rootfs().join("proc")).expect("remove /proc");
            b.link("/proc", "tmp")
        }),
        ("link to the root", |b| b.link("/x", "/").mount("/x", "tmpfs", "tmpfs", &[])),
        ("layers", |b| b.mount("/x", "overlay", "overlay", &["lowerdir=/no/such/layer:/tmp"])),
        ("cwd below a file", |b| b.set("/process/cwd", "/etc/passwd/x")),
        ("cwd that is a file", |b| b.set("/process/cwd", "/etc/passwd")),
        ("hook of the host", |b| b.set("/hooks", json!({"prestart": [{"path": "/no/such/hook"}]}))),
        ("second hook", |b| {
            b.hook("createRuntime", "true").push("/hooks/createRuntime", json!({"path": "/no/such/hook"}))
        }),
        ("hook of the runtime that may not be executed", |b| {
            b.set("/hooks", json!({"createContainer": [{"path": "/etc/passwd"}]}))
        }),
        ("hook of the start", |b| b.set("/hooks", json!({"startContainer": [{"path": "/bin/nosuch"}]}))),
        ("hook after the start", |b| b.set("/hooks", json!({"poststart": [{"path": "/no/such/hook"}]}))),
        ("agent", |b| {
            b.set(
                "/linux/seccomp",
                json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/no/such/agent",
                "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}),
            )
        }),
    ]);
}

#[test]
fn a_program_is_looked_for_in_what_the_container_will_see() {
    agree_on(&[
        ("no program in PATH", |b| b.args(["no-such-program"])),
        ("no program", |b| b.args(["/bin/no-such-program"])),
        ("program below a file", |b| b.args(["/etc/passwd/x"])),
        ("directory", |b| b.args(["/bin"])),
        ("file without x", |b| b.args(["/etc/passwd"])),
        ("file without x in PATH", |b| b.file("/bin/plain", "", 0o644).args(["plain"])),
        ("for others only", |b| {
            b.file("/bin/mine", "#!/bin/sh\n", 0o700).args(["/bin/mine"]).set("/process/user/uid", 1000)
        }),
        ("behind a directory for others only", |b| {
            b.dir("/closed", 0o700)
                .file("/closed/x", "#!/bin/sh\n", 0o755)
                .args(["/closed/x"])
                .set("/process/user/uid", 1000)
        }),
        ("link out of the image", |b| b.link("/bin/out", "/etc/hostname").args(["/bin/out"])),
        ("link up and out of the image", |b| b.link("/bin/up", "../../../../../../bin/dmesg-x").args(["/bin/up"])),
        ("links in a circle", |b| b.link("/bin/circle", "circle").args(["/bin/circle"])),
        ("hidden by a mount", |b| b.mount("/bin", "tmpfs", "tmpfs", &[])),
        ("on a mount without exec", |b| {
            let dir = b.host_dir("tools");
            fs::copy("/bin/busybox", dir.join("tool")).expect("copy a program");
            b.bind(dir, "/tools", &["bind", "noexec"]).args(["/tools/tool"])
        }),
        ("script without its interpreter", |b| b.file("/bin/script", "#!/no/such/sh\n", 0o755).args(["script"])),
        ("script of a script without its interpreter", |b| {
            b.file("/bin/one", "#!/bin/two\n", 0o755).file("/bin/two", "#!/no/such/sh\n", 0o755).args(["one"])
        }),
        ("script whose interpreter may not be executed", |b| {
            b.file("/bin/script", "#!/etc/passwd\n", 0o755).args(["script"])
        }),
        ("program without its loader", |b| {
            let program = fs::read("/bin/cat").expect("read a dynamic program");
            fs::write(b.rootfs().join("bin/dynamic"), program).expect("copy a dynamic program");
            fs::set_permissions(b.rootfs().join("bin/dynamic"), fs::Permissions::from_mode(0o755)).expect("chmod");
            b.args(["dynamic"])
        }),
        ("no program at all", |b| b.file("/bin/text", "hello\n", 0o755).args(["/bin/text"])),
    ]);
}

#[test]
fn a_program_that_a_mount_brings_is_found() {
    if peers_lack_it() {
        return;
    }
    let bundle = base();
    let dir = bundle.host_dir("tools");
    fs::copy("/bin/busybox", dir.join("busybox")).expect("copy a program");
    let bundle = bundle.bind(&dir, "/tools", &["bind"]).link("/opt/true", "/tools/busybox").args(["/opt/true"]);
    assert_eq!(check(&bundle, &[])["verdict"], "create would succeed");
    bundle.run().ok();
    let file = bundle.host_file("program", "#!/bin/sh\nexit 0\n");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("chmod");
    let bundle = base().bind(&file, "/bin/new", &["bind"]).args(["new"]);
    assert_eq!(check(&bundle, &[])["verdict"], "create would succeed");
    bundle.run().ok();
}

#[test]
fn cgroups_are_told_in_the_words_of_create() {
    let list = fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers")
        .or_else(|_| fs::read_to_string("/sys/fs/cgroup/cgroup.controllers"))
        .unwrap_or_default();
    let has = |name: &str| list.split_whitespace().any(|have| have == name);
    agree_on(&[
        ("controller that there is not", |b| b.set("/linux/resources/unified", json!({"nosuch.max": "1"}))),
        ("file that there is not", |b| b.set("/linux/resources/unified", json!({"hugetlb.2MB.nosuch": "1"}))),
        ("value out of range", |b| b.set("/linux/resources/unified", json!({"cgroup.max.depth": "-1"}))),
        ("value that is none", |b| b.set("/linux/resources/unified", json!({"cgroup.max.descendants": "few"}))),
    ]);
    let lacking: [(&str, Fault); 4] = [
        ("memory", ("memory", |b| b.set("/linux/resources/memory", json!({"limit": 1 << 30})))),
        ("pids", ("processes", |b| b.set("/linux/resources/pids", json!({"limit": 100})))),
        ("cpu", ("shares", |b| b.set("/linux/resources/cpu", json!({"shares": 512})))),
        ("io", ("weight", |b| b.set("/linux/resources/blockIO", json!({"weight": 500})))),
    ];
    for (controller, fault) in lacking {
        if has(controller) {
            skip(&format!("this machine has the {controller} controller"));
        } else {
            agree_on(&[fault]);
        }
    }
    if has("hugetlb") {
        agree_on(&[("size of pages", |b| {
            b.set("/linux/resources/hugepageLimits", json!([{"pageSize": "3MB", "limit": 3145728}]))
        })]);
        agree_on(&[("bytes", |b| b.set("/linux/resources/unified", json!({"hugetlb.2MB.max": "2MB"})))]);
    }
    if !fs::read_to_string("/proc/mounts").is_ok_and(|mounts| mounts.contains(" resctrl ")) {
        agree_on(&[("caches", |b| b.set("/linux/intelRdt", json!({"closID": "gold", "l3CacheSchema": "L3:0=f"})))]);
    }
    if !Path::new("/run/systemd/private").exists() {
        agree_on(&[("systemd", |b| b.global("--systemd-cgroup").set("/linux/cgroupsPath", "a.slice:b:c"))]);
    }
}

#[test]
fn a_terminal_needs_what_create_needs() {
    agree_on(&[("no socket", |b| b.set("/process/terminal", true))]);
    if peers_lack_it() {
        return;
    }
    let bundle = base().set("/process/terminal", true);
    assert_eq!(check(&bundle, &["--foreground"])["errors"], 0);
    let socket = bundle.host("console.sock");
    let path = socket.to_str().expect("a plain path").to_owned();
    let missing = check(&bundle, &["--console-socket", &path]);
    assert_eq!(missing["findings"][0]["errno"], "ENOENT", "{missing:#}");
    let listener = UnixListener::bind(&socket).expect("listen");
    listener.set_nonblocking(true).expect("set a socket non-blocking");
    assert_eq!(check(&bundle, &["--console-socket", &path])["errors"], 0);
    assert!(listener.accept().is_err(), "check must not connect");
    let plain = check(&base(), &["--console-socket", &path]);
    assert_eq!(plain["errors"], 1, "{plain:#}");
}

#[test]
fn all_faults_are_told_at_once() {
    if peers_lack_it() {
        return;
    }
    let bundle = base()
        .set("/ociVersion", "9.0.0")
        .set("/process/env", json!(["NOEQ", "A=b", "=x"]))
        .set(
            "/process/rlimits",
            json!([
                {"type": "RLIMIT_CORE", "soft": 2, "hard": 1},
                {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1024},
                {"type": "RLIMIT_FSIZE", "soft": 4, "hard": 3}
            ]),
        )
        .set("/process/oomScoreAdj", 5000)
        .push("/linux/namespaces", json!({"type": "pid"}))
        .push("/linux/namespaces", json!({"type": "ipc", "path": "/no/such"}))
        .push("/mounts", json!({"destination": "/x"}))
        .bind("/no/such/source", "/y", &["bind"])
        .push("/mounts", json!({"destination": "/z", "type": "none"}))
        .bind("/no/such/other", "/z", &["bind"])
        .set("/linux/sysctl", json!({"vm.swappiness": "1", "net.ipv4.no_such": "1", "net.ipv4.no_such_either": "1"}))
        .set("/linux/resources/unified", json!({"nosuch.max": "1"}))
        .set("/hooks", json!({"prestart": [{"path": "x"}, {"path": "/no/such"}], "poststop": [{"path": "/no/such"}]}))
        .args(["nosuch"]);
    let said = check(&bundle, &[]);
    let fields: Vec<&str> =
        said["findings"].as_array().expect("findings").iter().filter_map(|finding| finding["field"].as_str()).collect();
    for field in [
        "/ociVersion",
        "/process/env/0",
        "/process/env/2",
        "/process/rlimits/0",
        "/process/rlimits/2",
        "/process/oomScoreAdj",
        "/linux/namespaces/6",
        "/linux/namespaces/7",
        "/mounts/7/type",
        "/mounts/8",
        "/mounts/9/type",
        "/mounts/10",
        "/linux/sysctl/vm.swappiness",
        "/linux/sysctl/net.ipv4.no_such",
        "/linux/sysctl/net.ipv4.no_such_either",
        "/linux/resources/unified/nosuch.max",
        "/hooks/prestart/0",
        "/hooks/prestart/1",
        "/hooks/poststop/0",
        "/process/args/0",
    ] {
        assert!(fields.contains(&field), "{field} is not in {said:#}");
    }
    assert_eq!(fields.len(), 20, "{said:#}");
    assert_eq!((&said["errors"], &said["warnings"], &said["complete"]), (&json!(19), &json!(1), &json!(true)));
}

#[test]
fn warnings_alone_are_no_failure() {
    if peers_lack_it() {
        return;
    }
    let bundle = base()
        .push("/process/capabilities/bounding", "CAP_FUTURE")
        .set(
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["no_such_call"], "action": "SCMP_ACT_ERRNO"}]}),
        )
        .set("/hooks", json!({"poststop": [{"path": "/no/such"}]}));
    let said = check(&bundle, &[]);
    let fields: Vec<&Value> = said["findings"].as_array().expect("findings").iter().map(|one| &one["field"]).collect();
    let expected = ["/process/capabilities/bounding", "/linux/seccomp/syscalls/0/names/0", "/hooks/poststop/0"];
    assert_eq!(fields, expected.map(Value::from).iter().collect::<Vec<_>>(), "{said:#}");
    assert_eq!((&said["verdict"], &said["warnings"]), (&json!("create would succeed"), &json!(3)));
    bundle.create().ok();
    bundle.start().ok();
}

#[test]
fn an_id_that_is_taken_and_a_bundle_that_is_none_are_told() {
    if peers_lack_it() {
        return;
    }
    let bundle = base().sh("sleep 100");
    bundle.create().ok();
    let dir = bundle.path().to_str().expect("a plain path");
    bundle.cmd(["check", "-b", dir, bundle.name()]).run().code(1).shows("already exists");
    bundle.cmd(["check", "-b", dir, "another"]).run().code(1).shows("cgroup is not empty");
    bundle.cmd(["check", "-b", dir, "-x"]).run().code(1);
    bundle.cmd(["check", "-b", "/no/such/bundle"]).run().code(1).shows("open the bundle /no/such/bundle: no such file");
    bundle.cmd(["check", "-b", dir, "a/b"]).run().code(1).shows("invalid container ID");
    let empty = bundle.host_dir("empty");
    bundle.cmd(["check", "-b", empty.to_str().expect("a plain path")]).run().code(1).shows("read the configuration");
    fs::write(empty.join("config.json"), "{\"ociVersion\": }").expect("write a file");
    bundle.cmd(["check", "-b", empty.to_str().expect("a plain path")]).run().code(1).shows("line 1 column 16");
}

#[test]
fn the_text_is_a_line_for_each_finding_and_a_verdict() {
    if peers_lack_it() {
        return;
    }
    let bundle = base().args(["nosuch"]).push("/process/capabilities/bounding", "CAP_FUTURE");
    bundle.write();
    let dir = bundle.path().to_str().expect("a plain path");
    let text = bundle.cmd(["check", "--bundle", dir]).run().code(1).stdout();
    let expected = "warning: /process/capabilities/bounding: the capability \"CAP_FUTURE\" is unknown and ignored\n\
        error: /process/args/0: exec: \"nosuch\": executable file not found in $PATH: no such file or directory\n  \
        hint: check that it is in the image, and its directory in PATH of process.env\n\
        create would fail: 1 error, 1 warning\n";
    assert_eq!(text, expected);
    let bundle = base();
    bundle.write();
    bundle.cmd(["check"]).cwd(bundle.path()).run().prints("create would succeed");
}

#[test]
fn the_host_is_told_as_a_table_and_as_json() {
    if peers_lack_it() {
        return;
    }
    let bundle = base();
    let text = bundle.cmd(["check", "--host"]).run().ok().stdout();
    assert!(text.ends_with("corten works on this host\n") && text.contains("kernel: version"), "{text}");
    let document = bundle.cmd(["check", "--host", "--format", "json"]).run().json();
    assert_eq!(document["host"]["suffices"], true);
    assert!(document.get("findings").is_none(), "no bundle was named");
    let facts = document["host"]["facts"].as_array().expect("facts");
    for fact in facts {
        let complete = ["area", "feature", "state", "seen"].iter().all(|key| fact[key].is_string());
        let impact = fact["state"] == "ok" || fact["impact"].as_str().is_some_and(|impact| !impact.is_empty());
        assert!(complete && impact, "{fact}");
    }
    for feature in ["version", "system calls", "namespaces", "Landlock", "AppArmor", "layout", "memory", "newuidmap"] {
        assert!(facts.iter().any(|fact| fact["feature"] == feature), "{feature}");
    }
    bundle.write();
    let dir = bundle.path().to_str().expect("a plain path");
    let both = bundle.cmd(["check", "--host", "--format", "json", "--bundle", dir]).run().json();
    assert_eq!((&both["create"], both["host"]["suffices"] == true), (&json!(true), true));
}

/// What a sandbox around the runtime may keep from it, in its own mount namespace; what `run` and `check --host` say.
const BROKEN: [(&str, &str, &str); 3] = [
    ("mount -o remount,bind,ro /sys/fs/cgroup", "make cgroup /", "cgroup: delegation fatal"),
    ("mount -t tmpfs none /sys/fs/cgroup", "no cgroup v2 is mounted", "cgroup: layout fatal"),
    ("mount -t tmpfs none /proc", "no procfs is mounted on /proc: mount -t proc proc /proc", "kernel: procfs fatal"),
];

#[test]
fn a_host_that_cannot_have_a_container_is_told_so() {
    let bundle = base().args(["true"]);
    bundle.write();
    for (breakage, error, fact) in BROKEN {
        let script = format!("{breakage} && exec \"$0\" \"$@\"");
        let broken = |args: &[&str]| {
            bundle.cmd(args).started_by(["unshare", "-m", "sh", "-c", &script]).cwd(bundle.path()).run()
        };
        let run = broken(&["run", bundle.name()]);
        run.fails();
        if kind() != Kind::Corten {
            continue;
        }
        run.fails_with(error);
        let told = broken(&["check", "--host"]);
        let text = told.code(1).stdout();
        let facts = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        assert!(facts.into_iter().any(|line| line.starts_with(fact)), "{breakage}: {text}");
        assert!(text.ends_with("corten cannot work on this host\n"), "{breakage}: {text}");
    }
}

#[test]
fn without_a_procfs_no_container_is_taken_for_stopped() {
    if peers_lack_it() {
        return;
    }
    let container = base().args(["sleep", "100"]);
    container.run_detached().ok();
    let script = "mount -t tmpfs none /proc && exec \"$0\" \"$@\"";
    let blind = |command: &str| {
        let command = container.cmd([command, container.name()]);
        command.started_by(["unshare", "-m", "sh", "-c", script]).run()
    };
    for command in ["state", "kill", "delete", "pause", "ps", "events"] {
        blind(command).fails_with("no procfs is mounted on /proc");
    }
    assert_eq!(container.status(), "running");
    container.delete_force().ok();
}

// Profiles of seccomp.

#[test]
fn what_a_seccomp_profile_hardly_means_is_a_warning_of_check_alone() {
    if peers_lack_it() {
        return;
    }
    let compared = |op: &str| json!([{"index": 0, "op": op, "value": 40}]);
    let profile = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": compared("SCMP_CMP_NE")},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": compared("SCMP_CMP_EQ")},
            {"names": ["execve", "arch_prctl", "set_tid_address", "set_robust_list", "rseq", "prlimit64", "readlinkat",
                       "readlink", "getrandom", "brk", "mprotect", "getuid", "prctl", "exit_group", "mseal"],
             "action": "SCMP_ACT_ALLOW"},
            {"names": ["mseal"], "action": "SCMP_ACT_LOG"},
            {"names": ["arm_fadvise64_64", "nosuch"], "action": "SCMP_ACT_ALLOW"}
        ]
    });
    let bundle = base().set("/linux/seccomp", profile);
    let said = check(&bundle, &[]);
    assert_eq!((&said["verdict"], &said["errors"]), (&json!("create would succeed"), &json!(0)), "{said:#}");
    let found = said["findings"].as_array().expect("findings").iter();
    let told: Vec<String> = found.map(|one| format!("{}: {}", one["field"], one["msg"]).replace('"', "")).collect();
    let beginnings = [
        "syscalls/0/args/0: /linux/seccomp/syscalls/0/args/0: the rule compares 64 bits, but the kernel uses \
         32 of argument 0 of socket: with higher bits set, it is allowed (allow all, and refuse this value by \
         SCMP_CMP_MASKED_EQ",
        "syscalls/4/names: /linux/seccomp/syscalls/4/names: no architecture of the profile has arm_fadvise64_64",
        "syscalls/3: /linux/seccomp/syscalls/3: the rule has no effect: another rule does",
        "syscalls: /linux/seccomp/syscalls: these calls are newer than all that the profile names, so the program gets \
         ENOSYS: ",
        "syscalls/4/names/1: /linux/seccomp/syscalls/4/names/1: unknown system call \\nosuch\\ is ignored",
    ];
    assert_eq!(told.len(), beginnings.len(), "{told:#?}");
    for beginning in beginnings {
        let beginning = format!("/linux/seccomp/{beginning}");
        assert!(told.iter().any(|line| line.starts_with(&beginning)), "{beginning}\n{told:#?}");
    }
    // Nobody else says so, but for what was always said.
    let run = bundle.run();
    run.ok().never_says("64 bits").never_says("has no effect");
}

/// The hole that the warning is of: the kernel takes such an argument for the one that is forbidden.
#[test]
fn upper_bits_of_an_argument_pass_by_a_rule_of_64_bits() {
    let profile = |op: &str, more: (u64, u64)| {
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [
            {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95,
             "args": [{"index": 0, "op": op, "value": more.0, "valueTwo": more.1}]}]})
    };
    let (asked, lower) = (0xffff_ffff_u64, 0xffff_ffff_u64);
    let number = libc::SYS_personality;
    let calls = [format!("{number},{asked}"), format!("{number},{}", asked | 1 << 32)];
    for (profile, high) in
        [(profile("SCMP_CMP_EQ", (asked, 0)), "ok"), (profile("SCMP_CMP_MASKED_EQ", (lower, asked)), "EOPNOTSUPP")]
    {
        let container = Bundle::new().set("/linux/seccomp", profile);
        let said = container.probe(["syscall", &calls[0], &calls[1]]).run();
        said.ok().prints(&format!("{number} EOPNOTSUPP\n{number} {high}"));
    }
}
