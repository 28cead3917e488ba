//! Descriptors and programs of the runtime that a container could get hold of.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::attack::{CANARY, Outside};
use crate::attacker::all;
use crate::harness::{Bundle, Outcome, known_difference, runtime};

/// A directory of the host with the canary, as a caller's forgotten descriptor.
fn outside_fd(outside: &Outside) -> OwnedFd {
    File::open(outside.dir()).expect("open the canary's directory").into()
}

/// Ways to name what lies behind a descriptor of the runtime's.
fn names(number: u32) -> [String; 5] {
    [
        format!("/proc/self/fd/{number}"),
        format!("/proc/self/fd/{number}/../../.."),
        format!("/proc/self/fd/{number}/sub"),
        format!("/proc/thread-self/fd/{number}/"),
        format!("/link/{number}"),
    ]
}

/// Where the host is reached if a command line was obeyed: the canary is there, or the host's own tree.
#[track_caller]
fn is_inside(outcome: &Outcome) {
    let reached = outcome.stdout();
    if reached.contains(CANARY) || reached.contains("corten-test") {
        outcome.fail("the host's files are in sight");
    }
}

#[test]
fn cve_2024_21626_no_working_directory_leads_through_a_descriptor_of_the_runtime() {
    let first = Bundle::new();
    let outside = Outside::of(&first);
    let running = Bundle::new().link("/link", "/proc/self/fd").args(["sleep", "100"]);
    running.run_detached().ok();
    for number in 3..20 {
        for cwd in names(number) {
            let bundle = Bundle::new().link("/link", "/proc/self/fd").set("/process/cwd", cwd.as_str());
            let bundle = bundle.args(["ls", "-a", ".", "..", "../../tmp"]);
            // One that the caller forgot, beside those that the runtime has of its own.
            is_inside(&bundle.run_cmd().leak(12, outside_fd(&outside)).run());
            let exec = running.exec_cmd(&["--cwd", &cwd], &["ls", "-a", ".", "..", "../../tmp"]);
            let seen = exec.leak(12, outside_fd(&outside)).run();
            is_inside(&seen);
            seen.fails();
        }
    }
    outside.is_untouched();
}

#[test]
fn cve_2024_21626_a_descriptor_that_is_passed_on_is_no_working_directory() {
    if known_difference("crun", "its --preserve-fds takes the directory of the caller along") {
        return;
    }
    let first = Bundle::new();
    let outside = Outside::of(&first);
    let running = Bundle::new().args(["sleep", "100"]);
    running.run_detached().ok();
    for cwd in ["/proc/self/fd/3", "/proc/self/fd/3/sub", "/proc/self/fd/3/../.."] {
        let exec = running.exec_cmd(&["--preserve-fds", "1", "--cwd", cwd], &["ls", "-a"]);
        exec.leak(3, outside_fd(&outside)).run().fails();
        let bundle = Bundle::new().set("/process/cwd", cwd).args(["ls", "-a"]);
        bundle.write();
        let path = bundle.path().to_str().expect("a plain path");
        let run = bundle.cmd(["run", "--preserve-fds", "1", "--bundle", path, bundle.name()]);
        run.leak(3, outside_fd(&outside)).run().fails();
    }
}

/// Of what the runtime has open itself, such as its log, nothing is passed on in the place of a descriptor that is not there.
#[test]
fn cve_2024_21626_descriptors_of_the_runtime_are_not_among_those_to_pass_on() {
    let container = Bundle::new().args(["probe", "fds"]);
    let running = Bundle::new().args(["sleep", "100"]);
    running.run_detached().ok();
    container.write();
    let path = container.path().to_str().expect("a plain path");
    if known_difference("runc", "says that there is none, as it should") {
        return;
    }
    for count in ["1", "2", "6"] {
        for command in [
            container.cmd(["run", "--preserve-fds", count, "--bundle", path, container.name()]),
            running.exec_cmd(&["--preserve-fds", count], &["probe", "fds"]),
        ] {
            let seen = command.run();
            let numbers = seen.ok().lines().iter().map(|line| line[..2].to_owned()).collect::<Vec<_>>();
            if known_difference("crun", "passes its log on") {
                continue;
            }
            assert_eq!(numbers, ["0 ", "1 ", "2 "], "{}", seen.stdout());
        }
    }
}

#[test]
fn cve_2024_21626_no_program_is_found_through_a_descriptor_of_the_runtime() {
    let first = Bundle::new();
    let outside = Outside::of(&first);
    fs::copy("/bin/busybox", outside.dir().join("ls")).expect("put a program of the host there");
    let outside = Outside::of(&first);
    let running = Bundle::new().args(["sleep", "100"]);
    running.run_detached().ok();
    for number in 3..20 {
        for (program, argument) in [("ls", "/"), ("../../bin/busybox", "true")] {
            let program = format!("/proc/self/fd/{number}/{program}");
            let bundle = Bundle::new().args([program.as_str(), argument]);
            bundle.run_cmd().leak(12, outside_fd(&outside)).run().fails();
            running.exec_cmd(&[], &[&program, argument]).leak(12, outside_fd(&outside)).run().fails();
        }
        let bundle = Bundle::new().args(["ls", "-a"]).env(&format!("PATH=/proc/self/fd/{number}:/bin"));
        let seen = bundle.run_cmd().leak(12, outside_fd(&outside)).run();
        is_inside(&seen);
        if !known_difference("crun", "finds the program before it closes what the caller left open, and fails") {
            seen.ok();
        }
    }
}

#[test]
fn cve_2024_21626_a_program_has_three_descriptors() {
    let first = Bundle::new();
    let outside = Outside::of(&first);
    let bundle = Bundle::new().sh("probe fds; sleep 100");
    let made = bundle.run_cmd().leak(12, outside_fd(&outside)).spawn();
    bundle.until("running");
    crate::harness::eventually("the container tells its descriptors", || made.stdout().lines().count() >= 3);
    let numbers: Vec<_> = made.stdout().lines().map(|line| line.split(' ').next().unwrap_or("").to_owned()).collect();
    assert_eq!(numbers, ["0", "1", "2"], "{}", made.stdout());
    let seen = bundle.exec_cmd(&[], &["probe", "fds"]).leak(12, outside_fd(&outside)).run();
    assert_eq!(seen.ok().lines().len(), 3, "{}", seen.stdout());
    bundle.delete_force();
}

#[test]
fn cve_2019_5736_the_program_of_the_runtime_that_enters_cannot_be_written() {
    // With the right to look into everything, and with the usual ones and a program that names the runtime's.
    overwrite(&[all(), Vec::new()], |attacked, copy| {
        let _ = attacked.exec_cmd(&[], &["/evil"]).program(copy).run();
        attacked.exec_cmd(&[], &["usleep", "1000"]).program(copy).run();
    });
}

#[test]
fn cve_2019_5736_the_program_of_the_runtime_that_makes_a_container_beside_it_cannot_be_written() {
    overwrite(&[all()], |attacked, copy| {
        let beside = Bundle::inside(attacked.sandbox().clone()).args(["usleep", "1000"]);
        let beside = beside.join("pid", format!("/proc/{}/ns/pid", attacked.pid()));
        beside.write();
        let path = beside.path().to_str().expect("a plain path");
        let _ = beside.cmd(["run", "--bundle", path, beside.name()]).program(copy).run();
    });
}

#[test]
fn cve_2019_5736_the_runtime_that_adds_a_procfs_is_never_seen() {
    if known_difference("runc", "has no such command") || known_difference("crun", "shows the processes of the host") {
        return;
    }
    let bundle = Bundle::new().caps(&all()).args(["probe", "overwrite", "5", "OVERWRITTEN"]);
    bundle.run_detached().ok();
    crate::harness::eventually("the attacker is ready", || bundle.output().contains("ready"));
    let list = json!([{"destination": "/p", "type": "proc", "source": "proc"}]).to_string();
    let began = Instant::now();
    for what in ["add", "remove"].iter().cycle().take(100) {
        if began.elapsed() > Duration::from_secs(2) {
            break;
        }
        bundle.cmd(["mounts", what, bundle.name(), "-"]).stdin(&list).run().ok();
    }
    bundle.wait();
    let told = bundle.output();
    assert!(told.contains("gave up with 0 held"), "the attacker has seen the runtime: {told}");
}

/// A container that looks for the runtime among its processes and tries to write it, while `provoke` shows it there.
fn overwrite(capabilities: &[Vec<&str>], provoke: impl Fn(&Bundle, &Path)) {
    const MARK: &str = "OVERWRITTEN";
    let first = Bundle::new();
    // A copy, so that an attack that succeeds does no harm.
    let copy = first.host("rt").join(runtime().file_name().expect("a name"));
    fs::create_dir_all(copy.parent().expect("a parent")).expect("make a directory");
    fs::copy(runtime(), &copy).expect("copy the runtime");
    let before = fs::read(&copy).expect("read the copy");
    for caps in capabilities {
        let bundle = Bundle::new().file("/evil", "#!/proc/self/exe\n", 0o755).caps(caps);
        let bundle = bundle.args(["probe", "overwrite", "60", MARK]);
        bundle.write();
        let path = bundle.path().to_str().expect("a plain path");
        let made =
            bundle.cmd(["run", "--detach", "--bundle", path, "--pid-file", &format!("{path}/pid"), bundle.name()]);
        let made = made.program(&copy).run();
        made.ok();
        crate::harness::eventually("the attacker is ready", || made.stdout().contains("ready"));
        let mut after = 0;
        for _ in 0..500 {
            provoke(&bundle, &copy);
            after += usize::from(made.stdout().contains("holds"));
            if after > 5 {
                break;
            }
        }
        // While a program runs it cannot be written anyway; now nobody runs it.
        std::thread::sleep(Duration::from_millis(1000));
        bundle.delete_force().ok();
        let told = made.stdout();
        assert!(fs::read(&copy).expect("read the copy") == before, "the runtime was overwritten: {told}");
        assert!(!told.contains(MARK), "something was written: {told}");
        let late = ["crun", "runc"].iter().any(|peer| known_difference(peer, "may not be seen in time"));
        assert!(late || told.contains("holds"), "the attacker never saw the runtime: {told}");
    }
    // As the container's first program, too.
    let bundle =
        Bundle::new().file("/evil", "#!/proc/self/exe\n", 0o755).args(["/evil"]).set("/root/readonly", json!(false));
    bundle.write();
    let path = bundle.path().to_str().expect("a plain path");
    let _ = bundle.cmd(["run", "--bundle", path, bundle.name()]).program(&copy).run();
    assert!(fs::read(&copy).expect("read the copy") == before);
}

/// What the container's first process has open while it waits to be started.
struct AtGate {
    number: u32,
    target: String,
    /// As in `fcntl`'s open flags, from `fdinfo`.
    flags: u32,
    is_directory: bool,
    file_system: nix::sys::statfs::FsType,
}

fn at_gate(pid: i32) -> Vec<AtGate> {
    let dir = format!("/proc/{pid}/fd");
    let numbers = fs::read_dir(&dir).expect("its descriptors").flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let look = |number: u32| {
        let link = format!("{dir}/{number}");
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).expect("its flags");
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("its flags");
        AtGate {
            number,
            target: fs::read_link(&link).expect("what it leads to").display().to_string(),
            flags: u32::from_str_radix(flags.trim(), 8).expect("an octal number"),
            is_directory: fs::metadata(&link).expect("what it is").is_dir(),
            file_system: nix::sys::statfs::statfs(link.as_str()).expect("where it is").filesystem_type(),
        }
    };
    numbers.map(look).collect()
}

/// Containers whose set-up opens much on the host: mount sources, an image below an overlay, namespaces, a terminal.
fn made_of_much(first: &Bundle) -> Vec<Bundle> {
    let (dir, file) = (first.host_dir("source"), first.host_file("source-file", ""));
    let plain = || Bundle::new().bind(&dir, "/vol", &["rbind"]).bind(&file, "/file", &["bind", "ro"]);
    let full = || {
        plain()
            .mount("/copied", "tmpfs", "tmpfs", &["tmpcopyup"])
            .hook("createRuntime", "true")
            .hook("createContainer", "true")
            .set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}))
            .set("/process/oomScoreAdj", 100)
    };
    let clocks = match known_difference("crun", "sets no clocks beside a user namespace") {
        true => full(),
        false => full().userns().ns("time").set("/linux/timeOffsets", json!({"monotonic": {"secs": 1}})),
    };
    vec![
        plain(),
        full(),
        full().without_ns("cgroup"),
        full().userns(),
        clocks,
        plain().set("/root/readonly", true).set("/linux/resources/unified", json!({"cgroup.max.depth": "9"})),
    ]
}

#[test]
fn crun_1_31_no_directory_of_the_host_is_open_in_a_container_that_waits() {
    let first = Bundle::new();
    let outside = Outside::of(&first);
    for bundle in made_of_much(&first) {
        let bundle = bundle.args(["sleep", "100"]);
        // One that the caller forgot, too.
        bundle.create_cmd(&[]).leak(12, outside_fd(&outside)).run().ok();
        let open = at_gate(bundle.pid());
        for fd in &open {
            let AtGate { number, target, .. } = fd;
            if known_difference("crun", "its log, and the directory of its state")
                || known_difference("runc", "the directory of its root")
            {
                continue;
            }
            assert!(!fd.is_directory, "{number} is the directory {target}");
            assert_ne!(fd.file_system, nix::sys::statfs::CGROUP2_SUPER_MAGIC, "{number} is {target}");
            let closes = fd.flags & libc::O_CLOEXEC as u32 != 0;
            assert!(*number < 3 || closes, "{number} ({target}) is not closed by execve");
        }
        // The root and the working directory are those of the container.
        let container = fs::metadata(bundle.rootfs()).expect("the container's root");
        for name in ["root", "cwd"] {
            let held = fs::metadata(format!("/proc/{}/{name}", bundle.pid())).expect("its directory");
            assert_eq!((held.dev(), held.ino()), (container.dev(), container.ino()), "{name}");
        }
        let table = fs::read_to_string(format!("/proc/{}/mountinfo", bundle.pid())).expect("its mounts");
        let root = table.lines().filter(|line| crate::attack::point(line) == "/").count();
        assert_eq!(root, 1, "the old root is still mounted:\n{table}");
        bundle.delete_force().ok();
    }
}

#[test]
fn runc_1_5_2_no_descriptor_of_a_cgroup_reaches_a_program() {
    let first = Bundle::new();
    let outside = Outside::of(&first);
    for bundle in made_of_much(&first) {
        let bundle = bundle.sh("probe fds; sleep 100");
        let made = bundle.run_cmd().leak(12, outside_fd(&outside)).spawn();
        bundle.until("running");
        crate::harness::eventually("the container tells its descriptors", || made.stdout().lines().count() >= 3);
        assert_eq!(made.stdout().lines().count(), 3, "{}", made.stdout());
        for options in [&[][..], &["--cgroup", "/"]] {
            let seen = bundle.exec_cmd(options, &["probe", "fds"]).leak(12, outside_fd(&outside)).run();
            assert_eq!(seen.ok().lines().len(), 3, "{}", seen.stdout());
            seen.hides("cgroup");
        }
        bundle.delete_force();
    }
}
