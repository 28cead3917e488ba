//! Tests of the room on a real cgroup2, as root, each in a mount namespace of its own.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, geteuid};
use oci_spec::runtime::Linux;

use super::devices::Program;
use super::*;
use crate::error::Result;

const SOON: Duration = Duration::from_secs(5);

/// How the host looks to a test.
pub(super) enum View {
    /// cgroup2 on /sys/fs/cgroup.
    Pure,
    /// v1 hierarchies, cgroup2 on /sys/fs/cgroup/unified; only where the host is that way.
    Hybrid,
}

/// Takes this thread into a mount namespace with the view; `false`, and says so, where that can't be done.
pub(super) fn enter(view: View) -> bool {
    let ready = || -> nix::Result<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        match view {
            // It is there already; the kernel mounts nothing on itself.
            View::Pure if Path::new("/sys/fs/cgroup/cgroup.procs").exists() => Ok(()),
            View::Pure => mount(Some("none"), "/sys/fs/cgroup", Some("cgroup2"), MsFlags::empty(), None::<&str>),
            View::Hybrid if Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() => Ok(()),
            View::Hybrid => Err(crate::sys::Errno::ENODEV),
        }
    };
    if !geteuid().is_root() {
        eprintln!("skipped: needs root");
        return false;
    }
    ready().inspect_err(|errno| eprintln!("skipped: {errno}")).is_ok()
}

/// A path that no other test has; its first component is the test's own, and removed at the end.
pub(super) struct Place(String);

impl Place {
    pub(super) fn new() -> Place {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        Place(format!("corten-unit-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    fn linux(&self, below: &str, resources: &str) -> Linux {
        let text = format!(r#"{{"cgroupsPath":"/{}{below}","resources":{resources}}}"#, self.0);
        serde_json::from_str(&text).unwrap()
    }

    fn request(&self, below: &str, resources: &str) -> Request {
        Request::plan(Some(&self.linux(below, resources)), "web", Manager::Cgroupfs, None).unwrap().unwrap()
    }

    pub(super) fn make(&self, below: &str, resources: &str) -> Result<Cgroup> {
        let request = self.request(below, resources);
        let cgroup = request.create(request.place(Mount::find()?)?)?;
        cgroup.apply(&request)?;
        Ok(cgroup)
    }
}

/// A shell in the cgroup, ended when dropped.
struct Shell(Child);

impl Shell {
    fn spawn(location: &Location, script: &str) -> Shell {
        let script = format!("echo $$ > {}/cgroup.procs && {script}", location.directory());
        let mut command = Command::new("sh");
        Shell(command.args(["-c", &script]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id() as i32)
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_cgroup_is_made_with_its_parents_and_undone_when_dropped() {
    let (true, place) = (enter(View::Pure), Place::new()) else { return };
    let top = format!("/sys/fs/cgroup/{}", place.0);
    let cgroup = place.make("/a/b", "{}").unwrap();
    assert_eq!(cgroup.location().to_string(), format!("/{}/a/b", place.0));
    assert!(Path::new(&format!("{top}/a/b/cgroup.procs")).exists());
    drop(cgroup);
    assert!(!Path::new(&top).exists());

    let kept = place.make("/a/b", "{}").unwrap().keep();
    let beside = place.make("/a/c", "{}").unwrap().keep();
    Handle::of(&kept).remove(SOON).unwrap();
    assert!(Path::new(&format!("{top}/a/c")).exists());
    Handle::of(&beside).remove(SOON).unwrap();
    // Made by the first, which found it in use.
    fs::remove_dir(format!("{top}/a")).unwrap();
    fs::remove_dir(top).unwrap();
    Handle::of(&kept).remove(SOON).unwrap();
}

#[test]
fn undoing_ends_what_was_started_in_a_cgroup_whether_it_was_made_or_found() {
    let (true, place) = (enter(View::Pure), Place::new()) else { return };
    for made in [true, false] {
        let top = format!("/sys/fs/cgroup/{}", place.0);
        if !made {
            fs::create_dir(&top).unwrap();
        }
        let cgroup = place.make("", "{}").unwrap();
        let mut shell = Shell::spawn(cgroup.location(), "exec sleep 60");
        until(|| Handle::of(cgroup.location()).is_populated().unwrap());
        let began = Instant::now();
        drop(cgroup);
        assert!(began.elapsed() < Duration::from_secs(1), "it took {:?}", began.elapsed());
        shell.0.wait().unwrap();
        assert_eq!(Path::new(&top).exists(), !made);
    }
    fs::remove_dir(format!("/sys/fs/cgroup/{}", place.0)).unwrap();
}

#[test]
fn a_cgroup_is_known_by_its_mark_and_undone_by_who_has_marked_it() {
    let (true, place) = (enter(View::Pure), Place::new()) else { return };
    let cgroup = place.make("", "{}").unwrap();
    assert_eq!(Handle::of(cgroup.location()).holder().unwrap(), Holder::Own);
    // Nobody is in it yet: another container takes it.
    let taken = place.make("", "{}").unwrap();
    assert_eq!((cgroup.location().made(), taken.location().made()), (1, 0));
    let holders = || [&cgroup, &taken].map(|cgroup| Handle::of(cgroup.location()).holder().unwrap());
    assert_eq!(holders(), [Holder::Other, Holder::Own]);
    let mut shell = Shell::spawn(taken.location(), "exec sleep 60");
    until(|| Handle::of(taken.location()).is_populated().unwrap());
    drop(cgroup);
    assert!(Handle::of(taken.location()).is_populated().unwrap(), "it was emptied");
    let location = taken.keep();
    shell.0.kill().unwrap();
    shell.0.wait().unwrap();
    Handle::of(&location).remove(SOON).unwrap();
    assert_eq!(Handle::of(&location).holder().unwrap(), Holder::Own, "there is none");
    fs::create_dir(location.directory()).unwrap();
    assert_eq!(Handle::of(&location).holder().unwrap(), Holder::Unmarked);
    let mut unknown = location.clone();
    unknown.owner = None;
    assert_eq!(Handle::of(&unknown).holder().unwrap(), Holder::Unknown);
    let mut other = Location::new(Mount::find().unwrap(), place.0.clone(), 0);
    other.owner = Some("x".repeat(600));
    other.mark(Handle::of(&other).open().unwrap().as_fd()).unwrap();
    assert_eq!([&location, &unknown].map(|place| Handle::of(place).holder().unwrap()), [Holder::Other; 2]);
    fs::remove_dir(location.directory()).unwrap();
}

#[test]
fn a_used_or_frozen_cgroup_is_refused_and_an_empty_one_taken() {
    let (true, place) = (enter(View::Pure), Place::new()) else { return };
    let location = place.make("", "{}").unwrap().keep();
    let shell = Shell::spawn(&location, "exec sleep 60");
    until(|| Handle::of(&location).is_populated().unwrap());
    let refusal = |words: &str| {
        let error = place.make("", "{}").err().unwrap().to_string();
        assert!(error.contains(words), "{error}");
    };
    refusal("container's cgroup is not empty: ");
    refusal(" process(es) found");
    drop(shell);
    until(|| !Handle::of(&location).is_populated().unwrap());
    Handle::of(&location).freeze().unwrap();
    refusal("container's cgroup unexpectedly frozen");
    Handle::of(&location).thaw().unwrap();
    drop(place.make("", "{}").unwrap());
    assert!(Path::new(&location.directory()).exists(), "what was there before is not ours to undo");
    Handle::of(&location).remove(SOON).unwrap();
}

#[test]
fn processes_are_listed_frozen_killed_and_the_tree_removed() {
    let (true, place) = (enter(View::Pure), Place::new()) else { return };
    let location = place.make("", "{}").unwrap().keep();
    for outer in 0..3 {
        for inner in 0..20 {
            fs::create_dir_all(format!("{}/{outer}/{inner}/deep", location.directory())).unwrap();
        }
    }
    let below = Location::new(Mount::find().unwrap(), format!("{}/1/7/deep", place.0), 0);
    let (one, two) = (Shell::spawn(&location, "exec sleep 60"), Shell::spawn(&below, "exec sleep 60"));
    until(|| Handle::of(&location).pids().unwrap().len() == 2);
    let mut pids = [one.pid(), two.pid()];
    pids.sort();
    assert_eq!(Handle::of(&location).pids().unwrap(), pids);

    Handle::of(&location).freeze().unwrap();
    until(|| Handle::of(&location).is_frozen().unwrap() && Handle::of(&below).is_frozen().unwrap());
    let error = Handle::of(&below).thaw_soon();
    assert!(error.contains("a cgroup above it is"), "{error}");
    assert!(!Handle::of(&below).is_to_freeze() && Handle::of(&location).is_to_freeze());
    Handle::of(&location).thaw().unwrap();
    assert!(!Handle::of(&location).is_frozen().unwrap());

    let error = Handle::of(&location).remove(Duration::from_millis(120)).unwrap_err().to_string();
    assert!(error.contains(&format!("2 process(es) still in it: {}, {}", pids[0], pids[1])), "{error}");
    Handle::of(&below).freeze().unwrap();
    Handle::of(&location).kill_all().unwrap();
    Handle::of(&location).remove(SOON).unwrap();
    assert!(!Path::new(&location.directory()).exists());
    Handle::of(&location).remove(SOON).unwrap();
    Handle::of(&location).kill_all().unwrap();
    assert!(!Handle::of(&location).is_populated().unwrap() && Handle::of(&location).pids().unwrap().is_empty());
}

#[test]
fn a_very_deep_tree_is_removed_with_few_descriptors() {
    let (true, place) = (enter(View::Pure), Place::new()) else { return };
    let location = place.make("", "{}").unwrap().keep();
    let mut here = Handle::of(&location).open().unwrap();
    let mut depth = 0;
    // As deep as the kernel lets a container go with short names, at most some thousands of bytes of path.
    while depth < 1500 && nix::sys::stat::mkdirat(&here, "d", nix::sys::stat::Mode::S_IRWXU).is_ok() {
        here = files::open_dir(&here, c"d").unwrap();
        depth += 1;
    }
    drop(here);
    assert!(depth > 100, "{depth}");
    Handle::of(&location).remove(SOON).unwrap();
    assert!(!Path::new(&location.directory()).exists());
}

#[test]
fn device_rules_hold_for_real_nodes() {
    let (true, place) = (enter(View::Pure), Place::new()) else { return };
    let dir = std::env::temp_dir().join(&place.0);
    fs::create_dir(&dir).unwrap();
    mount(Some("none"), &dir, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    let d = dir.display();
    let script = format!(
        "cd {d}; mknod null c 1 3; mknod kmsg c 1 11; mknod zero c 1 5; mknod tun c 10 200;
        t() {{ if ( eval \"$2\" ) 2>/dev/null; then echo -n \"$1+ \"; else echo -n \"$1- \"; fi; }}
        t null ': >null'; t kmsg 'exec 3<kmsg'; t zero 'exec 3<zero'; t zerow ': >zero'; t blk 'mknod b$$ b 7 99'"
    );
    let seen = |resources: &str| {
        let cgroup = place.make("", resources).unwrap();
        let shell = Shell::spawn(cgroup.location(), &script);
        let location = cgroup.keep();
        let mut shell = shell;
        let status = shell.0.wait().unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut shell.0.stdout.take().unwrap(), &mut text).unwrap();
        assert!(status.success());
        Handle::of(&location).remove(SOON).unwrap();
        for entry in fs::read_dir(&dir).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        text
    };
    assert_eq!(seen("{}"), "null+ kmsg- zero+ zerow+ blk+ ");
    assert_eq!(seen(r#"{"devices":[{"allow":true,"access":"rwm"}]}"#), "null+ kmsg+ zero+ zerow+ blk+ ");
    let kmsg = r#"{"allow":true,"type":"c","major":1,"minor":11,"access":"r"}"#;
    assert_eq!(seen(&format!(r#"{{"devices":[{kmsg}]}}"#)), "null+ kmsg+ zero+ zerow+ blk+ ");
    let denied = kmsg.replace("true", "false");
    assert_eq!(
        seen(&format!(r#"{{"devices":[{{"allow":true,"access":"rwm"}},{denied}]}}"#)),
        "null+ kmsg- zero+ zerow+ blk+ "
    );
    umount2(&dir, MntFlags::MNT_DETACH).unwrap();
    fs::remove_dir(dir).unwrap();
}

#[test]
fn there_is_exactly_one_device_program_after_any_number_of_changes() {
    let (true, place) = (enter(View::Pure), Place::new()) else { return };
    let cgroup = place.make("", "{}").unwrap();
    let count = || crate::sys::bpf::device_programs(cgroup.dir()).unwrap().len();
    assert_eq!(count(), 1);
    let program = Program::plan(&[]).unwrap().unwrap();
    for _ in 0..20 {
        devices::replace(cgroup.dir(), Some(&program)).unwrap();
        assert_eq!(count(), 1);
    }
    program.attach(cgroup.dir()).unwrap();
    assert_eq!(count(), 2);
    devices::replace(cgroup.dir(), Some(&program)).unwrap();
    assert_eq!(count(), 1);
    devices::replace(cgroup.dir(), None).unwrap();
    assert_eq!(count(), 0);
}

#[test]
fn a_missing_controller_is_named_with_field_file_and_reason() {
    let look = |view: View| {
        let (true, place) = (enter(view), Place::new()) else { return };
        let root = fs::read_to_string(format!("{}/cgroup.controllers", Mount::find().unwrap().path())).unwrap();
        if root.contains("pids") {
            eprintln!("skipped: this host has the pids controller");
            return;
        }
        let error = place.make("/a", r#"{"pids":{"limit":5}}"#).err().unwrap();
        assert_eq!(error.field_name(), Some("/linux/resources/pids/limit"));
        let text = error.to_string();
        assert!(text.contains("has no pids.max: the pids controller is in use as a cgroup v1 hierarchy"), "{text}");
        place.make("/a", r#"{"pids":{"limit":-1},"memory":{"limit":-1},"blockIO":{"weight":0}}"#).unwrap();
        let error = place.make("/a", r#"{"unified":{"nosuch.x":"1"}}"#).err().unwrap().to_string();
        assert!(error.contains("has no nosuch.x") && error.contains("is it spelt right?"), "{error}");
        assert!(!Path::new(&format!("{}/{}", Mount::find().unwrap().path(), place.0)).exists());
    };
    // A thread each: a mount namespace belongs to one.
    std::thread::scope(|scope| {
        scope.spawn(|| look(View::Pure));
        scope.spawn(|| look(View::Hybrid));
    });
}

#[test]
fn limits_are_written_after_switching_controllers_on_in_all_ancestors() {
    let (true, place) = (enter(View::Pure), Place::new()) else { return };
    let root = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap();
    if !root.contains("hugetlb") || !Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB").exists() {
        eprintln!("skipped: no hugetlb controller");
        return;
    }
    // In a cgroup namespace the root is a cgroup like any other.
    if fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+hugetlb").is_err() {
        eprintln!("skipped: the cgroup that is the root here has processes, and cannot give a controller away");
        return;
    }
    let wanted = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}],"unified":{"hugetlb.2MB.max":"6291456"}}"#;
    let cgroup = place.make("/a/b", wanted).unwrap();
    let read = |file: &str| fs::read_to_string(format!("{}/{file}", cgroup.location().directory())).unwrap();
    assert_eq!(read("hugetlb.2MB.max"), "6291456\n");
    assert_eq!(read("hugetlb.2MB.rsvd.max"), "4194304\n");
    let error = place.make("/a/c", r#"{"hugepageLimits":[{"pageSize":"3MB","limit":1}]}"#).err().unwrap().to_string();
    assert!(error.contains("this kernel's hugetlb controller does not have it"), "{error}");
    let error = place.make("/a/c", r#"{"unified":{"hugetlb.2MB.max":"x"}}"#).err().unwrap().to_string();
    assert!(
        error.contains("write \"x\" to hugetlb.2MB.max of cgroup") && error.contains("invalid argument"),
        "{error}"
    );
}

#[test]
fn a_cgroup_below_a_threaded_one_is_made_threaded_or_refused() {
    let (true, place) = (enter(View::Pure), Place::new()) else { return };
    let parent = place.make("", "{}").unwrap().keep();
    fs::create_dir(format!("{}/t", parent.directory())).unwrap();
    fs::write(format!("{}/t/cgroup.type", parent.directory()), "threaded").unwrap();
    let request = place.request("/t/x", "{}");
    let cgroup = request.create(request.place(Mount::find().unwrap()).unwrap()).unwrap();
    let limited = place.request("/t/x", r#"{"memory":{"limit":1000}}"#);
    let error = cgroup.make_threaded(&limited, crate::sys::Errno::EOPNOTSUPP).unwrap_err().to_string();
    assert!(error.contains("below a threaded one, where the memory controller cannot limit"), "{error}");
    cgroup.make_threaded(&request, crate::sys::Errno::EOPNOTSUPP).unwrap();
    assert!(cgroup.make_threaded(&request, crate::sys::Errno::EOPNOTSUPP).is_err(), "it is already");
    // The way of clone3 is refused or not by the same rules as that of cgroup.procs of the domain.
    let location = cgroup.keep();
    let shell = Shell::spawn(&parent, &format!("echo $$ > {}/cgroup.threads && exec sleep 60", location.directory()));
    until(|| Handle::of(&location).pids().unwrap() == [shell.pid()]);
    Handle::of(&location).kill_all().unwrap();
    until(|| !Handle::of(&location).is_populated().unwrap());
    Handle::of(&parent).remove(SOON).unwrap();
}

#[test]
fn delegation_gives_the_directory_and_the_files_that_steer_it() {
    use std::os::unix::fs::MetadataExt;
    let (true, place) = (enter(View::Pure), Place::new()) else { return };
    let cgroup = place.make("", "{}").unwrap();
    cgroup.delegate(nix::unistd::Uid::from_raw(4242)).unwrap();
    let owner = |name: &str| fs::metadata(format!("{}/{name}", cgroup.location().directory())).unwrap().uid();
    assert_eq!([owner(""), owner("cgroup.procs"), owner("cgroup.subtree_control")], [4242; 3]);
    assert_eq!([owner("cgroup.kill"), owner("cgroup.max.depth")], [0; 2]);
    assert_eq!(fs::metadata(cgroup.location().directory()).unwrap().permissions().mode() & 0o700, 0o700);
}

#[test]
fn the_v2_half_of_a_hybrid_host_is_used() {
    let (true, place) = (enter(View::Hybrid), Place::new()) else { return };
    assert_eq!(Mount::find().unwrap().path(), "/sys/fs/cgroup/unified");
    let cgroup = place.make("/a", "{}").unwrap();
    assert!(Path::new(&format!("/sys/fs/cgroup/unified/{}/a", place.0)).exists());
    let shell = Shell::spawn(cgroup.location(), "exec sleep 60");
    until(|| Handle::of(cgroup.location()).is_populated().unwrap());
    let open = Handle::of(cgroup.location()).open_that_of(shell.pid());
    assert!(open.is_ok());
}

#[test]
fn a_host_with_v1_only_and_one_with_nothing_are_told_apart() {
    let true = enter(View::Hybrid) else { return };
    umount2("/sys/fs/cgroup/unified", MntFlags::MNT_DETACH).unwrap();
    let error = Mount::find().unwrap_err().to_string();
    assert!(error.contains("mounts cgroup v1 only"), "{error}");
    umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH).unwrap();
    let error = Mount::find().unwrap_err().to_string();
    assert!(error.contains("no cgroup v2 is mounted"), "{error}");
}

impl Handle<'_> {
    /// `thaw` for a cgroup of which it is known that it can't be thawed, without the long wait.
    fn thaw_soon(&self) -> String {
        self.set_frozen_within(false, Duration::from_millis(50)).unwrap_err().to_string()
    }
}
