//! Containers whose record is lost, broken or of a newer form: they are named, and a forced delete takes away all of them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;

use crate::harness::{Bundle, Kind, by_systemd, eventually, kind, known_difference, peers_lack_it};

/// The file in which the runtime under test keeps what it knows of a container.
fn record(container: &Bundle) -> PathBuf {
    let name = match kind() {
        Kind::Corten => "record.json",
        Kind::Crun => "status",
        Kind::Runc | Kind::Other => "state.json",
    };
    container.sandbox().root().join(container.name()).join(name)
}

fn lives(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
}

/// A way to spoil a record.
type Spoil = (&'static str, fn(&Path));

const SPOILS: &[Spoil] = &[
    ("empty", |file| fs::write(file, "").expect("empty it")),
    ("broken off", |file| {
        let bytes = fs::read(file).expect("read it");
        fs::write(file, &bytes[..bytes.len() / 2]).expect("cut it");
    }),
    ("broken off at once", |file| fs::write(file, "{\"ver").expect("cut it")),
    ("random", |file| {
        let mut bytes = vec![0; 1000];
        std::io::Read::read_exact(&mut fs::File::open("/dev/urandom").expect("open"), &mut bytes).expect("read");
        fs::write(file, bytes).expect("write it");
    }),
    ("a directory", |file| {
        fs::remove_file(file).expect("remove it");
        fs::create_dir(file).expect("make a directory");
    }),
    ("a FIFO", |file| {
        fs::remove_file(file).expect("remove it");
        nix::unistd::mkfifo(file, Mode::S_IRUSR | Mode::S_IWUSR).expect("make a FIFO");
    }),
    ("a link to itself", |file| {
        fs::remove_file(file).expect("remove it");
        symlink(file, file).expect("make a link");
    }),
    ("gone", |file| fs::remove_file(file).expect("remove it")),
];

/// Forms of JSON that are no record of this container.
const FOREIGN: &[Spoil] = &[
    ("of another form", |file| fs::write(file, r#"{"a": [1, {}]}"#).expect("write it")),
    ("of a newer form", |file| {
        let text =
            fs::read_to_string(file).expect("read it").replacen("\"version\":1,", "\"version\":2,\"new\":{},", 1);
        assert!(text.contains("\"version\":2"));
        fs::write(file, text).expect("write it");
    }),
    ("that of another container", |file| {
        let mut value: serde_json::Value = serde_json::from_slice(&fs::read(file).expect("read it")).expect("JSON");
        value["id"] = "other".into();
        value["pid"] = 1.into();
        fs::write(file, value.to_string()).expect("write it");
    }),
];

#[test]
fn a_forced_delete_takes_away_whatever_is_there() {
    if known_difference("runc", "fails, and keeps all of it") || known_difference("crun", "keeps process and cgroup") {
        return;
    }
    let script = "sleep 1000 & exec sleep 1001";
    let mut variants = vec![Bundle::new().sh(script), Bundle::new().without_ns("pid").sh(script)];
    if !by_systemd() {
        let deep = Bundle::new().args(["sleep", "1000"]);
        let path = format!("{}-parent/sub", deep.sandbox().cgroups_path(deep.name()));
        variants.push(deep.set("/linux/cgroupsPath", path));
    }
    for (spoil, break_it) in SPOILS.iter().chain(FOREIGN) {
        for (container, created) in variants.iter().flat_map(|container| [(container, false), (container, true)]) {
            let what = format!("record {spoil}, {}", if created { "created" } else { "running" });
            let made = if created { container.create() } else { container.run_detached() };
            made.ok();
            let procs = || fs::read_to_string(container.cgroup().join("cgroup.procs")).unwrap_or_default();
            let shell = container.config()["process"]["args"][0] == "sh" && !created;
            eventually("all are there", || procs().lines().count() == if shell { 2 } else { 1 });
            let pids: Vec<i32> = procs().lines().map(|pid| pid.parse().expect("a pid")).collect();
            break_it(&record(container));
            container.state().fails();
            container.kill("KILL").fails();
            container.delete().fails();
            assert!(pids.iter().all(|pid| lives(*pid)), "{what}: a plain delete has ended it");
            let deleted = container.delete_force();
            assert_eq!((deleted.ok().stdout(), deleted.stderr()), (String::new(), String::new()), "{what}");
            // They leave the cgroup a moment before they have ended.
            eventually(&format!("{what}: none lives"), || !pids.iter().any(|pid| lives(*pid)));
            assert!(!container.cgroup().exists(), "{what}: the cgroup is left");
            let above = container.cgroup();
            let above = above.parent().filter(|dir| dir.ends_with(format!("{}-parent", container.name())));
            assert!(above.is_none_or(|dir| !dir.exists()), "{what}: the cgroup above is left");
            assert!(!container.sandbox().root().join(container.name()).exists(), "{what}: its state is left");
            container.state().fails_with("does not exist");
        }
    }
}

#[test]
fn a_container_that_waits_without_a_cgroup_is_found_by_its_gate() {
    if peers_lack_it() {
        return;
    }
    let container = Bundle::new().args(["sleep", "1000"]).global("--cgroup-manager=disabled");
    container.create().ok();
    fs::write(record(&container), "").expect("empty it");
    container.delete().fails();
    assert!(lives(container.pid()));
    container.delete_force().ok();
    assert!(!lives(container.pid()));
}

#[test]
fn what_is_left_of_a_record_is_enough_to_run_the_hooks_after_a_delete() {
    if peers_lack_it() {
        return;
    }
    let container = Bundle::new().args(["sleep", "1000"]);
    let mark = container.host("ran");
    let container = container.hook("poststop", &format!("touch {}", mark.display()));
    container.run_detached().ok();
    let (_, newer) = FOREIGN[1];
    newer(&record(&container));
    container.delete_force().ok();
    assert!(mark.exists(), "the hook has not run");
}

#[test]
fn what_lies_in_the_place_of_a_state_directory_goes_as_well() {
    let container = Bundle::new().args(["true"]);
    let place = container.sandbox().root().join(container.name());
    fs::write(&place, "").expect("put a file there");
    container.state().fails();
    if known_difference("runc", "keeps it, and fails") || known_difference("crun", "keeps it, and fails") {
        return;
    }
    container.delete_force().ok();
    container.create().ok();
}

#[test]
fn a_list_names_what_it_cannot_read_and_shows_the_others() {
    if known_difference("crun", "fails at the first, and names none") {
        return;
    }
    let good = Bundle::new().args(["sleep", "60"]);
    good.create().ok();
    let broken: Vec<Bundle> = SPOILS.iter().map(|_| Bundle::inside(good.sandbox().clone()).args(["true"])).collect();
    for (container, (spoil, break_it)) in broken.iter().zip(SPOILS) {
        if *spoil == "a FIFO" && known_difference("runc", "waits for a writer for ever") {
            continue;
        }
        container.create().ok();
        break_it(&record(container));
    }
    for options in [&["list", "-q"][..], &["list"], &["list", "-f", "json"]] {
        let list = good.cmd(options).run();
        let shown = list.ok().stdout();
        let named = |id: &str| list.stderr().lines().any(|line| line.starts_with(&format!("load container {id}: ")));
        assert!(shown.contains(good.name()) && !named(good.name()), "{shown}");
        for (container, (spoil, _)) in broken.iter().zip(SPOILS) {
            let there = container.sandbox().root().join(container.name()).exists();
            assert_eq!((named(container.name()), shown.contains(container.name())), (there, false), "{spoil}");
        }
    }
    if kind() == Kind::Corten {
        broken.iter().for_each(|container| _ = container.delete_force().ok());
    }
}
