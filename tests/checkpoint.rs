//! `checkpoint` and `restore`, by CRIU: the one in PATH, or the peers' (`hack/peers`), if it can do its work on this machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

use crate::harness::{
    Agent, Answer, Bundle, Cmd, Kind, eventually, kind, known_difference, peers_lack_it, reaper, skip,
};

/// Where programs are looked for beside the place of CRIU.
const USUAL: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where `hack/peers` puts programs.
fn peers() -> PathBuf {
    let cache = std::env::var_os("CORTEN_PEERS").map_or_else(|| "/var/cache/corten-peers".into(), PathBuf::from);
    cache.join("sid/bin")
}

/// A PATH with a CRIU that works here. `None`, with the reason told, where there is none.
fn path() -> Option<&'static str> {
    static PATH: OnceLock<Result<String, String>> = OnceLock::new();
    let path = PATH.get_or_init(|| {
        let places = USUAL.split(':').map(PathBuf::from);
        let found = |name: &str| USUAL.split(':').any(|place| Path::new(place).join(name).is_file());
        let mut why = "no criu: apt-get install criu, or hack/peers".to_owned();
        for place in std::iter::once(peers()).chain(places).filter(|place| place.join("criu").is_file()) {
            let checked = reaper_output(Command::new(place.join("criu")).arg("check"));
            if !checked.contains("Looks good") {
                why = format!("{} cannot work here: {}", place.join("criu").display(), checked.trim());
                continue;
            }
            if !found("iptables-restore") {
                return Err("criu needs iptables: apt-get install iptables".to_owned());
            }
            return Ok(format!("{}:{USUAL}", place.display()));
        }
        Err(why)
    });
    match path {
        Ok(path) => Some(path),
        Err(why) => {
            skip(why);
            None
        }
    }
}

/// What a program prints, on both streams.
fn reaper_output(command: &mut Command) -> String {
    let file = std::env::temp_dir().join(format!("corten-criu-check-{}", std::process::id()));
    let out = fs::File::create(&file).expect("make a file for the output");
    command.stdout(out.try_clone().expect("duplicate it")).stderr(out);
    let pid = reaper::spawn(command).expect("start criu");
    let _ = reaper::wait(pid, Duration::from_secs(60));
    let text = fs::read_to_string(&file).expect("read the output");
    let _ = fs::remove_file(&file);
    text
}

/// A container that counts in `/tmp/n`, ten times a second, and has none of our files open.
const COUNT: &str =
    "exec >/dev/null 2>&1; i=0; while :; do i=$((i+1)); echo $i >/tmp/m; mv /tmp/m /tmp/n; usleep 50000; done";

fn counter() -> Bundle {
    Bundle::new().sh(COUNT)
}

/// How far the container has counted.
fn count(container: &Bundle) -> u64 {
    fs::read_to_string(container.rootfs().join("tmp/n")).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Waits until it has counted further.
#[track_caller]
fn counts_on(container: &Bundle) -> u64 {
    let before = count(container);
    eventually("the container counts on", || count(container) > before);
    before
}

fn started(container: &Bundle) -> &Bundle {
    container.run_detached().ok();
    counts_on(container);
    container
}

fn images(container: &Bundle) -> PathBuf {
    container.path().join("images")
}

/// `checkpoint` with these options, into [`images`].
fn checkpoint(container: &Bundle, path: &str, options: &[&str]) -> Cmd {
    let images = images(container);
    let work = container.path().join("work");
    let mut args = vec!["checkpoint", "--image-path", images.to_str().unwrap(), "--work-path", work.to_str().unwrap()];
    args.extend(options);
    args.push(container.name());
    // CRIU tries connections of its own.
    container.cmd(args).env("PATH", path).after("busybox ip link set lo up").limit(Duration::from_secs(60))
}

#[test]
fn a_checkpoint_leaves_images_and_nothing_else() {
    let Some(path) = path() else { return };
    let container = counter();
    started(&container);
    checkpoint(&container, path, &[]).run().ok();
    let images = images(&container);
    for file in ["inventory.img", "pstree.img", "descriptors.json"] {
        assert!(images.join(file).is_file(), "{file} is missing");
    }
    if !known_difference("runc", "makes it with mode 0600") {
        assert_eq!(fs::metadata(&images).unwrap().permissions().mode() & 0o777, 0o700);
    }
    assert!(container.path().join("work/dump.log").is_file(), "the log is missing");
    container.state().fails_with("does not exist");
    assert!(!container.cgroup().exists(), "the cgroup is left");
    assert!(!container.sandbox().root().join(container.name()).exists(), "its directory is left in the state root");
}

#[test]
fn descriptors_are_the_targets_of_the_standard_streams() {
    let Some(path) = path() else { return };
    if known_difference("runc", "writes down what they were at the creation")
        || known_difference("crun", "writes down what they were at the creation")
    {
        return;
    }
    let container = counter();
    started(&container);
    checkpoint(&container, path, &["--leave-running"]).run().ok();
    let text = fs::read_to_string(images(&container).join("descriptors.json")).unwrap();
    assert_eq!(text, r#"["/dev/null","/dev/null","/dev/null"]"#);
}

#[test]
fn a_container_that_is_left_running_runs_on() {
    let Some(path) = path() else { return };
    let container = counter();
    started(&container);
    let pid = container.pid();
    // Podman gives it twice.
    let twice: &[&str] =
        if kind() == Kind::Crun { &["--leave-running"] } else { &["--leave-running", "--leave-running"] };
    checkpoint(&container, path, twice).run().ok();
    assert_eq!(container.status(), "running");
    assert_eq!(container.state().json()["pid"], pid);
    counts_on(&container);
    assert!(images(&container).join("inventory.img").is_file());
    container.delete_force().ok();
}

#[test]
fn a_paused_container_is_checkpointed_and_stays_paused_when_left_running() {
    let Some(path) = path() else { return };
    if known_difference("crun", "refuses a paused container") {
        return;
    }
    let container = counter();
    started(&container);
    container.cmd(["pause", container.name()]).run().ok();
    checkpoint(&container, path, &["--leave-running"]).run().ok();
    assert_eq!(container.status(), "paused");
    container.cmd(["resume", container.name()]).run().ok();
    counts_on(&container);
    checkpoint(&container, path, &[]).run().ok();
    container.state().fails_with("does not exist");
}

#[test]
fn a_failed_checkpoint_says_why_and_leaves_the_container_as_it_was() {
    let Some(path) = path() else { return };
    // Its standard output is a file of the host, in none of its mounts.
    let container = Bundle::new().sh(&COUNT.replace("exec >/dev/null 2>&1; ", ""));
    started(&container);
    let outcome = checkpoint(&container, path, &[]).run();
    outcome.fails();
    if !known_difference("runc", "says only that criu failed")
        && !known_difference("crun", "says only that criu failed")
    {
        outcome.fails_with("criu dump failed after network-unlock: Can't lookup mount=");
        outcome.fails_with("a pipe or /dev/null can be checkpointed");
        outcome.fails_with(container.path().join("work/dump.log").to_str().unwrap());
        outcome.fails_with(r#""phase":"criu""#);
    }
    assert_eq!(container.status(), "running");
    counts_on(&container);
    container.delete_force().ok();
}

#[test]
fn only_a_container_that_runs_is_checkpointed() {
    let Some(path) = path() else { return };
    let container = Bundle::new().args(["true"]);
    container.create().ok();
    let refused = |state: &str| {
        let outcome = checkpoint(&container, path, &[]).run();
        outcome.fails();
        if kind() != Kind::Crun {
            outcome.fails_with(&format!("cannot be checkpointed in {state} state"));
        }
        assert!(!images(&container).join("inventory.img").exists());
    };
    if !known_difference("crun", "takes a created container for one that runs") {
        refused("created");
        assert_eq!(container.status(), "created");
    }
    container.start().ok();
    container.until("stopped");
    refused("stopped");
    container.delete().ok();
    checkpoint(&container, path, &[]).run().fails_with("does not exist");
}

#[test]
fn a_parent_is_relative_and_there() {
    let Some(path) = path() else { return };
    let container = counter();
    started(&container);
    for (parent, words) in [("/tmp", "absolute"), ("../nosuch", "no such file")] {
        let outcome = checkpoint(&container, path, &["--parent-path", parent]).run();
        outcome.fails();
        if kind() == Kind::Corten {
            outcome.fails_with(words).fails_with("--parent-path");
            assert!(!images(&container).exists(), "bad input has made a directory");
        }
    }
    assert_eq!(container.status(), "running");
    container.delete_force().ok();
}

#[test]
fn a_pre_dump_needs_soft_dirty_pages_and_leaves_the_container_running() {
    let Some(path) = path() else { return };
    let container = counter();
    started(&container);
    let outcome = checkpoint(&container, path, &["--pre-dump"]).run();
    if outcome.succeeded() {
        assert!(images(&container).join("pages-1.img").is_file());
    } else if kind() == Kind::Corten {
        outcome.fails_with("--pre-dump: the kernel cannot track changes of memory (soft-dirty pages");
    }
    assert_eq!(container.status(), "running");
    counts_on(&container);
    container.delete_force().ok();
}

#[test]
fn an_option_with_a_wrong_value_changes_nothing() {
    let Some(path) = path() else { return };
    if peers_lack_it() {
        return;
    }
    let container = counter();
    started(&container);
    for (wrong, words) in [
        (["--page-server", "nowhere"], "is not ADDRESS:PORT"),
        (["--manage-cgroups-mode", "some"], "invalid value"),
        (["--empty-ns", "mount"], "invalid value"),
        (["--network-lock", "ebpf"], "invalid value"),
        (["--status-fd", "x"], "invalid value"),
    ] {
        checkpoint(&container, path, &wrong).run().fails_with(words);
    }
    assert!(!images(&container).exists());
    counts_on(&container);
    container.delete_force().ok();
}

#[test]
fn without_criu_the_error_says_what_to_install() {
    let container = counter();
    started(&container);
    let empty = container.host_dir("empty");
    let outcome = checkpoint(&container, empty.to_str().unwrap(), &[]).run();
    outcome.fails();
    if kind() == Kind::Corten {
        outcome.fails_with("criu is not in PATH").fails_with("install CRIU");
        assert!(!images(&container).exists());
    }
    assert_eq!(container.status(), "running");
    container.delete_force().ok();
}

#[test]
fn what_would_be_lost_is_refused() {
    let Some(path) = path() else { return };
    if peers_lack_it() {
        return;
    }
    let document = r#"{"version":1,"ruleset":{"handledAccessFS":["make_sock"]},"rules":{}}"#;
    let container = counter().set("/annotations", serde_json::json!({"run.corten.landlock": document}));
    started(&container);
    let outcome = checkpoint(&container, path, &[]).run();
    outcome.fails_with("/annotations/run.corten.landlock").fails_with("a restore would lose its ruleset");
    assert_eq!(container.status(), "running");
    container.delete_force().ok();
}

#[test]
fn a_listener_of_seccomp_is_refused() {
    let Some(path) = path() else { return };
    if peers_lack_it() {
        return;
    }
    let container = counter();
    let agent = Agent::listen(container.host("agent.sock"), |_| Answer::Continue);
    let container = container.set(
        "/linux/seccomp",
        serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": agent.path(),
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
        }),
    );
    started(&container);
    checkpoint(&container, path, &[]).run().fails_with("/linux/seccomp/listenerPath").fails_with("seccomp agent");
    assert_eq!(container.status(), "running");
    container.delete_force().ok();
}

#[test]
fn a_user_namespace_is_refused_before_anything_is_written() {
    let Some(path) = path() else { return };
    if peers_lack_it() {
        return;
    }
    let container = counter().userns();
    container.run_detached().ok();
    checkpoint(&container, path, &[]).run().fails_with("/linux/namespaces").fails_with("user namespace");
    assert_eq!(container.status(), "running");
    assert!(!images(&container).exists());
    container.delete_force().ok();
    fs::create_dir_all(images(&container)).unwrap();
    restore(&container, path, &["--detach"]).run().fails_with("/linux/namespaces").fails_with("user namespace");
}

#[test]
fn an_overlay_of_ours_is_refused() {
    let Some(path) = path() else { return };
    if peers_lack_it() {
        return;
    }
    let container = counter().set("/annotations", serde_json::json!({"run.corten.rootfs.overlay": "tmpfs"}));
    container.run_detached().ok();
    checkpoint(&container, path, &[]).run().fails_with("/annotations/run.corten.rootfs.overlay");
    assert_eq!(container.status(), "running");
    container.delete_force().ok();
}

#[test]
fn a_mount_point_that_cannot_be_named_is_refused() {
    let Some(path) = path() else { return };
    if peers_lack_it() {
        return;
    }
    let container = counter();
    let data = container.host_dir("data");
    let container = container.bind(&data, "/x]:y", &["bind"]);
    started(&container);
    checkpoint(&container, path, &[]).run().fails_with(r#"the mount point "/x]:y" cannot be named to criu"#);
    assert_eq!(container.status(), "running");
    container.delete_force().ok();
}

#[test]
fn help_is_there() {
    let container = Bundle::new();
    let outcome = container.cmd(["checkpoint", "--help"]).run();
    outcome.ok();
    for option in ["--image-path", "--tcp-established", "--pre-dump", "--leave-running"] {
        outcome.shows(option);
    }
}

/// `restore` from [`images`] with these options. The configuration is written as it is now.
fn restore(container: &Bundle, path: &str, options: &[&str]) -> Cmd {
    container.write();
    let (images, work) = (images(container), container.path().join("work"));
    let pid_file = container.path().join("pid");
    let paths = [&images, &work, &pid_file].map(|path| path.to_str().unwrap());
    let bundle = container.path().to_str().unwrap();
    let mut args = vec!["restore", "--bundle", bundle, "--image-path", paths[0], "--work-path", paths[1]];
    args.extend(["--pid-file", paths[2]]);
    args.extend(options);
    args.push(container.name());
    container.cmd(args).env("PATH", path).after("busybox ip link set lo up").limit(Duration::from_secs(60))
}

/// Nothing of it is left, and it has not counted since.
#[track_caller]
fn never_ran(container: &Bundle, counted: u64) {
    container.state().fails_with_one_of(&["does not exist", "No such file or directory"]);
    if !known_difference("crun", "leaves its cgroup when a restore fails") {
        assert!(!container.cgroup().exists(), "the cgroup is left");
        assert!(!container.sandbox().root().join(container.name()).exists(), "its directory is left in the state root");
    }
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(count(container), counted, "the container has run");
}

/// Whether crun is under test, which does not restore a checkpoint of its own here.
fn crun_restores_nothing() -> bool {
    known_difference("crun", "fails in its cgroup, or has no mapping for a mount")
}

#[test]
fn a_restored_container_goes_on_where_it_was() {
    let Some(path) = path() else { return };
    if crun_restores_nothing() {
        return;
    }
    let container = counter();
    let data = container.host_dir("data");
    let container = container.bind(&data, "/data", &["bind", "ro"]);
    started(&container);
    for round in 0..3 {
        checkpoint(&container, path, &[]).run().ok();
        let before = count(&container);
        fs::remove_file(container.path().join("pid")).unwrap();
        restore(&container, path, &["--detach"]).run().ok();
        eventually("the container counts on", || count(&container) > before);
        assert!(count(&container) < before + 100, "round {round}: it has not begun anew");
        assert_eq!(container.status(), "running");
        assert_eq!(container.state().json()["pid"], container.pid());
        fs::remove_dir_all(images(&container)).unwrap();
    }
    fs::write(data.join("file"), "seen").unwrap();
    container.exec(&["cat", "/data/file"]).prints("seen");
    let procs = fs::read_to_string(container.cgroup().join("cgroup.procs")).unwrap();
    assert!(procs.lines().any(|pid| pid == container.pid().to_string()), "{procs}");
    container.delete_force().ok();
    assert!(!container.cgroup().exists(), "the cgroup is left");
    assert!(!container.sandbox().root().join(container.name()).exists(), "its directory is left in the state root");
}

#[test]
fn a_restored_process_is_known_as_one_that_was_created() {
    let Some(path) = path() else { return };
    if peers_lack_it() {
        return;
    }
    let container = counter();
    started(&container);
    let record = container.sandbox().root().join(container.name()).join("record.json");
    let known = || {
        let record: Value = serde_json::from_slice(&fs::read(&record).expect("read the record")).expect("a record");
        ["identity", "boot"].map(|key| !record[key].is_null())
    };
    let created = known();
    assert_ne!(created, [false; 2]);
    checkpoint(&container, path, &[]).run().ok();
    restore(&container, path, &["--detach"]).run().ok();
    assert_eq!(known(), created);
    container.delete_force().ok();
}

#[test]
fn a_restore_in_the_foreground_ends_as_the_container_does() {
    let Some(path) = path() else { return };
    if crun_restores_nothing() {
        return;
    }
    let end = COUNT.replace("usleep", "[ ! -e /tmp/end ] || exit 7; usleep");
    let container = Bundle::new().sh(&end);
    started(&container);
    checkpoint(&container, path, &[]).run().ok();
    let running = restore(&container, path, &[]).spawn();
    counts_on(&container);
    fs::write(container.rootfs().join("tmp/end"), "").unwrap();
    running.wait().code(7);
    container.state().fails_with("does not exist");
    assert!(!container.cgroup().exists(), "the cgroup is left");
}

#[test]
fn hooks_of_the_host_run_before_the_container_does() {
    let Some(path) = path() else { return };
    if known_difference("crun", "runs no hooks at a restore")
        || known_difference("runc", "runs no poststart hooks then")
    {
        return;
    }
    let container = counter();
    let told = container.host("told");
    let tell = |word: &str| format!("echo {word} >>{}", told.display());
    let container = container
        .hook("prestart", &tell("prestart"))
        .hook("createRuntime", &tell("createRuntime"))
        .hook("poststart", &tell("poststart"))
        .hook("poststop", &tell("poststop"));
    started(&container);
    checkpoint(&container, path, &[]).run().ok();
    fs::remove_file(&told).unwrap();
    restore(&container, path, &["--detach"]).run().ok();
    assert_eq!(fs::read_to_string(&told).unwrap(), "prestart\ncreateRuntime\npoststart\n");
    container.delete_force().ok();
    assert!(fs::read_to_string(&told).unwrap().ends_with("poststop\n"));
}

#[test]
fn a_failing_hook_ends_the_restore_and_leaves_nothing() {
    let Some(path) = path() else { return };
    if peers_lack_it() {
        return;
    }
    let container = counter();
    started(&container);
    checkpoint(&container, path, &[]).run().ok();
    let counted = count(&container);
    let container = container.hook("createRuntime", "echo no >&2; exit 3");
    restore(&container, path, &["--detach"]).run().fails_with("/hooks/createRuntime/0").fails_with("no");
    never_ran(&container, counted);
}

#[test]
fn what_has_no_images_is_not_restored() {
    let Some(path) = path() else { return };
    let container = counter();
    let words: &[&str] = if kind() == Kind::Corten { &["has no checkpoint: inventory.img is missing"] } else { &[""] };
    restore(&container, path, &["--detach"]).run().fails_with_one_of(words);
    fs::create_dir_all(images(&container)).unwrap();
    restore(&container, path, &["--detach"]).run().fails_with_one_of(words);
    never_ran(&container, 0);
}

#[test]
fn images_that_block_are_refused() {
    let Some(path) = path() else { return };
    if known_difference("runc", "waits for a writer") || known_difference("crun", "waits for a writer") {
        return;
    }
    let container = counter();
    fs::create_dir_all(images(&container)).unwrap();
    fs::write(images(&container).join("inventory.img"), "").unwrap();
    mkfifo(&images(&container).join("descriptors.json"), Mode::from_bits_truncate(0o600)).expect("make a FIFO");
    restore(&container, path, &["--detach"]).run().fails_with("descriptors.json: is a FIFO, not a regular file");
    never_ran(&container, 0);
}

#[test]
fn an_id_that_is_taken_is_not_restored() {
    let Some(path) = path() else { return };
    let container = counter();
    started(&container);
    checkpoint(&container, path, &["--leave-running"]).run().ok();
    let pid = container.pid();
    restore(&container, path, &["--detach"]).run().fails_with("exist");
    assert_eq!((container.status().as_str(), container.pid()), ("running", pid));
    container.delete_force().ok();
}

/// A checkpoint that has more than the configuration grants: CVE-2026-92574 was a restore that kept it.
#[test]
fn cve_2026_92574_what_a_checkpoint_has_too_much_is_told_by_its_field_and_never_runs() {
    let Some(path) = path() else { return };
    if known_difference("runc", "compares nothing") || known_difference("crun", "compares nothing") {
        return;
    }
    let none: [&str; 0] = [];
    let filter = serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]});
    let container = counter().set("/process/noNewPrivileges", false).dir("/other", 0o755);
    let data = container.host_dir("data");
    let container = container.bind(&data, "/data", &["bind"]);
    started(&container);
    checkpoint(&container, path, &[]).run().ok();
    let counted = count(&container);
    let original = container.config().clone();
    let mut container = container;
    for (pointer, value, field) in [
        ("/process/user", serde_json::json!({"uid": 1000, "gid": 0}), "/process/user/uid"),
        ("/process/user", serde_json::json!({"uid": 0, "gid": 1000}), "/process/user/gid"),
        ("/process/noNewPrivileges", true.into(), "/process/noNewPrivileges"),
        ("/process/capabilities/bounding", serde_json::json!(none), "/process/capabilities/bounding"),
        ("/linux/seccomp", filter, "/linux/seccomp"),
        ("/root/readonly", true.into(), "/root/readonly"),
        ("/linux/maskedPaths/-", "/proc/uptime".into(), "/linux/maskedPaths"),
        ("/linux/readonlyPaths/-", "/proc/tty".into(), "/linux/readonlyPaths"),
        ("/mounts/7/options", serde_json::json!(["bind", "ro"]), "/mounts/7"),
        ("/mounts/7/options", serde_json::json!(["bind", "nosuid", "noexec"]), "/mounts/7"),
    ] {
        for (name, part) in original.as_object().unwrap() {
            container = container.set(&format!("/{name}"), part.clone());
        }
        container = container.set(pointer, value);
        let outcome = restore(&container, path, &["--detach"]).run();
        outcome.fails_with(&format!(r#""field":"{field}""#)).fails_with(r#""phase":"verify""#);
        never_ran(&container, counted);
    }
    for (name, part) in original.as_object().unwrap() {
        container = container.set(&format!("/{name}"), part.clone());
    }
    restore(&container, path, &["--detach"]).run().ok();
    eventually("it goes on with its own configuration", || count(&container) > counted);
    container.delete_force().ok();
}

#[test]
fn a_mount_that_the_configuration_does_not_have_is_refused() {
    let Some(path) = path() else { return };
    if peers_lack_it() {
        return;
    }
    let container = counter().dir("/extra", 0o755).mount("/extra", "tmpfs", "tmpfs", &["nosuid"]);
    started(&container);
    checkpoint(&container, path, &[]).run().ok();
    let counted = count(&container);
    let container = container.without_mount("/extra");
    restore(&container, path, &["--detach"])
        .run()
        .fails_with("the checkpoint has a mount at /extra, which config.json has not");
    never_ran(&container, counted);
}

#[test]
fn a_checkpoint_of_runc_is_restored_and_runc_restores_ours() {
    let Some(path) = path() else { return };
    if peers_lack_it() {
        return;
    }
    // crun 1.28 writes a mount without a name into its images and restores none of them itself: "No mapping for N:(null)".
    let runc = peers().join("runc");
    if !runc.is_file() {
        return skip("no runc of hack/peers");
    }
    let ours = crate::harness::runtime().to_owned();
    for (from, to) in [(&ours, &runc), (&runc, &ours)] {
        let container = counter();
        let data = container.host_dir("data");
        fs::write(data.join("file"), "seen").unwrap();
        let container = container.bind(&data, "/data", &["bind"]).bind(data.join("file"), "/etc/file", &["bind", "ro"]);
        container.run_detached_cmd().program(from).run().ok();
        counts_on(&container);
        checkpoint(&container, path, &[]).program(from).run().ok();
        let before = count(&container);
        restore(&container, path, &["--detach"]).program(to).run().ok();
        eventually("the container counts on", || count(&container) > before);
        assert!(count(&container) < before + 100, "it has not begun anew");
        container.exec_cmd(&[], &["cat", "/etc/file"]).program(to).run().prints("seen");
        container.cmd(["delete", "--force", container.name()]).program(to).run().ok();
    }
}
