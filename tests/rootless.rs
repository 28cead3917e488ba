//! Run by a user without any privilege: one with subordinate ids, one without the helpers, one without anything.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use crate::harness::{
    Agent, Answer, Bundle, Cmd, Kind, Outcome, Sandbox, Terminal, chown_all, eventually, kind, known_difference,
    runtime, skip,
};

/// A user whom no machine has.
const USER: u32 = 7777;
/// The first of its subordinate ids.
const SUBORDINATE: u32 = 300_000;

/// A bundle of that user, and how it runs commands.
struct Rootless {
    bundle: Bundle,
    path: PathBuf,
    groups: &'static str,
}

/// Gives this test's sandbox an `/etc` in which the user is known.
fn make_user(sandbox: &Sandbox, grants: &str) {
    let dir = sandbox.dir().join("etc");
    if dir.exists() {
        return;
    }
    for sub in ["upper", "work"] {
        fs::create_dir_all(dir.join(sub)).expect("make a directory for /etc");
    }
    let options = format!("lowerdir=/etc,upperdir={0}/upper,workdir={0}/work", dir.display());
    mount(Some("overlay"), "/etc", Some("overlay"), MsFlags::empty(), Some(&*options)).expect("mount an /etc");
    let passwd = fs::read_to_string("/etc/passwd").expect("read passwd");
    fs::write("/etc/passwd", format!("{passwd}tester:x:{USER}:{USER}::/:/bin/sh\n")).expect("write passwd");
    for file in ["/etc/subuid", "/etc/subgid"] {
        fs::write(file, grants).expect("grant subordinate ids");
    }
    let copy = sandbox.dir().join("bin/runtime");
    fs::copy(runtime(), &copy).expect("copy the runtime to where the user reaches it");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("set its mode");
    let runtime_dir = sandbox.dir().join("run");
    fs::create_dir_all(&runtime_dir).expect("make the user's runtime directory");
    chown(&runtime_dir, Some(USER), Some(USER)).expect("give it to the user");
}

/// A bundle with the user's own id alone.
fn single() -> Rootless {
    let bundle = Bundle::new().mount_options("/dev/pts", |options| options.retain(|option| option != "gid=5"));
    let map = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
    rootless(bundle, map, &format!("tester:{SUBORDINATE}:65536\n"))
}

/// A bundle with subordinate ids as well; none where the helpers are not installed.
fn many() -> Option<Rootless> {
    many_granted(&format!("tester:{SUBORDINATE}:65536\n"))
}

fn many_granted(grants: &str) -> Option<Rootless> {
    if !Path::new("/usr/bin/newuidmap").exists() || !Path::new("/usr/bin/newgidmap").exists() {
        skip("newuidmap and newgidmap (package uidmap) are not installed");
        return None;
    }
    let map = json!([
        {"containerID": 0, "hostID": USER, "size": 1},
        {"containerID": 1, "hostID": SUBORDINATE, "size": 65536}
    ]);
    Some(rootless(Bundle::new(), map, grants))
}

fn rootless(bundle: Bundle, map: Value, grants: &str) -> Rootless {
    make_user(bundle.sandbox(), grants);
    chown_all(bundle.path(), USER);
    // An explicit one that cannot be made is an error for the peers.
    let bundle = bundle
        .unset("/linux/cgroupsPath")
        .ns("user")
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map);
    Rootless { bundle, path: "/usr/sbin:/usr/bin:/sbin:/bin".into(), groups: "--clear-groups" }
}

impl Rootless {
    fn with(mut self, change: impl FnOnce(Bundle) -> Bundle) -> Rootless {
        self.bundle = change(self.bundle);
        self
    }

    /// With another PATH.
    fn path(mut self, path: impl Into<PathBuf>) -> Rootless {
        self.path = path.into();
        self
    }

    /// The runtime with these arguments, as the user, with no option but the environment's.
    fn cmd(&self, args: &[&str]) -> Cmd {
        let sandbox = self.bundle.sandbox();
        let (user, group) = (format!("--reuid={USER}"), format!("--regid={USER}"));
        Cmd::bare(sandbox, args)
            .program(sandbox.dir().join("bin/runtime"))
            .started_by(["/usr/bin/setpriv", &user, &group, self.groups])
            .env("XDG_RUNTIME_DIR", sandbox.dir().join("run"))
            .env("PATH", &self.path)
            .about(self.bundle.path().join("config.json"))
            .cwd(self.bundle.path())
    }

    #[track_caller]
    fn run(&self) -> Outcome {
        self.bundle.write();
        let said = (kind() == Kind::Corten).then(|| self.cmd(&["check", "--foreground", self.bundle.name()]).run());
        let outcome = self.cmd(&["run", self.bundle.name()]).run();
        if let Some(said) = said {
            agrees(&said, &outcome, self.bundle.name());
        }
        outcome
    }
}

/// `check` has said what `run` then says.
#[track_caller]
fn agrees(said: &Outcome, made: &Outcome, id: &str) {
    let error = made.stderr();
    let Some(error) = error.lines().find_map(|line| line.strip_prefix(&format!("run {id}: "))) else {
        if made.succeeded() && !said.succeeded() {
            said.fail("what check refuses has run");
        }
        return;
    };
    let bare = |text: &str| text.replace(|letter: char| letter.is_ascii_digit(), "");
    let text = bare(&said.code(1).stdout());
    let told = text.lines().any(|line| {
        let sentence = line.rsplit_once(": ").map_or(line, |(_, last)| last);
        line.starts_with("error: ") && bare(error).contains(sentence)
    });
    if !told {
        said.fail(&format!("run says {error}, and check does not"));
    }
}

#[test]
fn a_user_with_subordinate_ids_runs_a_container() {
    let Some(container) = many() else { return };
    let script =
        "id -u; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; touch /own /other; chown 5:6 /other";
    let container = container.with(|bundle| bundle.sh(script).caps(&["CAP_CHOWN"]));
    let outcome = container.run();
    let seen: Vec<_> = outcome.ok().stdout().split_whitespace().map(str::to_owned).collect();
    let map = format!("0 {USER} 1 1 {SUBORDINATE} 65536");
    assert_eq!(seen.join(" "), format!("0 {map} {map} allow"));
    let owner = |name: &str| {
        let meta = fs::metadata(container.bundle.rootfs().join(name)).expect("a file of the container");
        (meta.uid(), meta.gid())
    };
    assert_eq!(owner("own"), (USER, USER));
    assert_eq!(owner("other"), (SUBORDINATE + 4, SUBORDINATE + 5));
}

#[test]
fn a_single_id_needs_no_helper() {
    let container = single().path("/nowhere");
    let container = container.with(|bundle| bundle.sh("id -u; id -g; cat /proc/self/setgroups; touch /made"));
    let outcome = container.run();
    assert_eq!(outcome.ok().stdout().split_whitespace().collect::<Vec<_>>(), ["0", "0", "deny"]);
    assert_eq!(fs::metadata(container.bundle.rootfs().join("made")).expect("the file").uid(), USER);
}

#[test]
fn a_single_id_may_be_another_than_root() {
    let map = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
    let container = single().with(|bundle| bundle.set("/linux/gidMappings", map).args(["cat", "/proc/1/gid_map"]));
    container.run().ok().shows(&format!("{USER}"));
}

#[test]
fn missing_helpers_are_named_with_what_to_install() {
    let Some(container) = many() else { return };
    let outcome = container.with(|bundle| bundle.args(["true"])).path("/nowhere").run();
    outcome.fails();
    if kind() == Kind::Corten {
        outcome.fails_with("newgidmap").fails_with("uidmap");
    }
}

#[test]
fn helpers_without_set_uid_are_named_with_what_to_set() {
    let Some(container) = many() else { return };
    let dir = container.bundle.sandbox().dir().join("plain");
    fs::create_dir(&dir).expect("make a directory");
    for helper in ["newuidmap", "newgidmap"] {
        fs::copy(Path::new("/usr/bin").join(helper), dir.join(helper)).expect("copy a helper");
        fs::set_permissions(dir.join(helper), fs::Permissions::from_mode(0o755)).expect("set its mode");
    }
    let outcome = container.with(|bundle| bundle.args(["true"])).path(dir).run();
    outcome.fails();
    if kind() == Kind::Corten {
        outcome.fails_with("set-uid root: chmod u+s");
    }
}

#[test]
fn a_user_without_subordinate_ids_is_told_where_to_add_them() {
    let Some(container) = many_granted("someone:100000:65536\n") else { return };
    let outcome = container.with(|bundle| bundle.args(["true"])).run();
    outcome.fails();
    if kind() == Kind::Corten {
        outcome.fails_with("tester has no range in /etc/subgid").fails_with("usermod --add-subgids");
    }
}

#[test]
fn a_map_beyond_the_subordinate_ids_is_told() {
    let Some(container) = many_granted("tester:300000:10\n") else { return };
    let outcome = container.with(|bundle| bundle.args(["true"])).run();
    outcome.fails();
    if kind() == Kind::Corten {
        outcome.fails_with("must lie in the ranges that /etc/subgid grants tester");
    }
}

#[test]
fn a_users_container_goes_through_its_whole_life() {
    for make in [|| Some(single()), many] {
        let Some(container) = make() else { continue };
        let container = container.with(|bundle| bundle.args(["sleep", "60"]).set("/process/oomScoreAdj", 100));
        let id = container.bundle.name().to_owned();
        container.bundle.write();
        container.cmd(&["create", "--pid-file", "pid", &id]).run().ok();
        assert_eq!(container.cmd(&["state", &id]).run().json()["status"], "created");
        container.cmd(&["start", &id]).run().ok();
        let outcome = container
            .cmd(&["exec", &id, "sh", "-c", "id -u; cat /proc/self/oom_score_adj; ls /proc/1/cwd/bin/sh"])
            .run();
        let seen: Vec<_> = outcome.ok().stdout().split_whitespace().map(str::to_owned).collect();
        assert_eq!(seen[0], "0", "{seen:?}");
        if !known_difference("crun", "leaves the score of an exec alone") {
            assert_eq!(seen[1], "100", "{seen:?}");
        }
        let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", container.bundle.pid())).expect("its score");
        assert_eq!(score.trim(), "100");
        container.cmd(&["exec", &id, "sh", "-c", "exit 7"]).run().code(7);
        container.cmd(&["kill", &id, "KILL"]).run().ok();
        container.bundle.wait();
        container.cmd(&["delete", &id]).run().ok();
        if kind() != Kind::Corten {
            continue;
        }
        let state = container.bundle.sandbox().dir().join("run");
        let left: Vec<_> = fs::read_dir(state).expect("the runtime directory").flatten().collect();
        assert!(left.iter().all(|root| fs::read_dir(root.path()).is_ok_and(|mut dir| dir.next().is_none())));
    }
}

#[test]
fn the_default_state_root_lies_in_the_users_runtime_directory() {
    if kind() != Kind::Corten {
        return;
    }
    let container = single().with(|bundle| bundle.args(["true"]));
    container.run().ok();
    let root = container.bundle.sandbox().dir().join("run/corten");
    assert_eq!(fs::metadata(root).expect("the state root").mode() & 0o7777, 0o1700);
}

#[test]
fn without_limits_no_cgroup_is_needed_and_a_warning_tells() {
    let container = single().with(|bundle| bundle.args(["grep", "^0:", "/proc/self/cgroup"]).without_ns("cgroup"));
    let caller = format!("0::{}/caller", container.bundle.sandbox().cgroup_name());
    container.bundle.write();
    let log = container.bundle.sandbox().dir().join("run/log");
    let run = ["--log", log.to_str().expect("a plain path"), "run", container.bundle.name()];
    container.cmd(&run).run().ok().prints(&caller);
    if kind() == Kind::Corten {
        let log = fs::read_to_string(log).expect("read the log");
        let said = "no cgroup of its own and stays in its caller's: make cgroup /";
        assert!(log.contains("level=warning") && log.contains(said), "{log}");
    }
}

#[test]
fn a_named_cgroup_that_cannot_be_made_is_an_error() {
    let named = |bundle: Bundle| {
        let path = format!("{}/mine", bundle.sandbox().cgroup_name());
        bundle.set("/linux/cgroupsPath", path).args(["true"])
    };
    let container = single().with(named);
    let outcome = container.run();
    outcome.fails_with("permission denied");
    if kind() == Kind::Corten {
        outcome.fails_with("/linux/cgroupsPath: make cgroup").fails_with("delegated to this user");
        container.cmd(&["state", container.bundle.name()]).run().fails_with("does not exist");
    }
}

#[test]
fn limits_without_a_delegated_cgroup_are_refused_by_name() {
    if known_difference("crun", "ignores them") {
        return;
    }
    let limit = |bundle: Bundle| bundle.set("/linux/resources/pids/limit", 20).args(["true"]);
    let outcome = single().with(limit).run();
    outcome.fails();
    if kind() == Kind::Corten {
        outcome.fails_with("/linux/resources/pids/limit").fails_with("delegated");
    }
}

#[test]
fn b92_a_bind_source_below_a_directory_that_only_the_user_may_pass() {
    let container = single();
    let file = container.bundle.host_file("private/s/f", "reached");
    let private = file.parent().and_then(Path::parent).expect("a parent");
    chown_all(private, USER);
    fs::set_permissions(private, fs::Permissions::from_mode(0o700)).expect("set its mode");
    let container = container.with(|bundle| bundle.bind(&file, "/m", &["rbind", "ro"]).args(["cat", "/m"]));
    container.run().ok().prints("reached");
}

#[test]
fn a_bundle_below_a_directory_that_only_the_user_may_pass() {
    let Some(container) = many() else { return };
    fs::set_permissions(container.bundle.path(), fs::Permissions::from_mode(0o700)).expect("set its mode");
    let user = json!({"uid": 5, "gid": 5});
    container.with(|bundle| bundle.set("/process/user", user).args(["id", "-u"])).run().ok().prints("5");
}

#[test]
fn the_usual_devices_are_bound_and_the_usual_mounts_made() {
    let script = "echo x >/dev/null && head -c 4 /dev/zero | wc -c && ls -d /sys/class /dev/mqueue /dev/pts/ptmx";
    let outcome = single().with(|bundle| bundle.sh(script)).run();
    assert_eq!(outcome.ok().stdout().lines().count(), 4);
}

#[test]
fn a_device_that_the_host_lacks_cannot_be_made_by_a_user() {
    let device = json!({"path": "/dev/nosuch", "type": "c", "major": 1, "minor": 3});
    let container = single().with(|bundle| bundle.push("/linux/devices", device).args(["true"]));
    let outcome = container.run();
    outcome.fails();
    if known_difference("runc", "in Go's words") || known_difference("crun", "names the syscall") {
        return;
    }
    outcome.fails_with("open the device /dev/nosuch: no such file or directory");
    outcome.fails_with("who may make no devices can only have one that the host has at this path: make it there");
}

#[test]
fn the_users_groups_are_kept_where_asked_for() {
    if kind() == Kind::Runc {
        return;
    }
    let mut container = single();
    container.groups = "--groups=8888";
    let file = container.bundle.host_file("shared", "by group");
    chown(&file, Some(0), Some(8888)).expect("give it to the group");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o040)).expect("set its mode");
    let keep = |bundle: Bundle| bundle.set("/annotations", json!({"run.oci.keep_original_groups": "1"}));
    let container = container.with(|bundle| keep(bundle).bind(&file, "/m", &["bind"]).args(["cat", "/m"]));
    container.run().ok().prints("by group");
}

#[test]
fn a_second_container_of_the_user_joins_the_first_ones_namespaces() {
    if known_difference("crun", "tries the pid namespace too early") || known_difference("runc", "does so as well") {
        return;
    }
    let first = single().with(|bundle| bundle.args(["sleep", "60"]));
    first.bundle.write();
    let detached = ["run", "--detach", "--pid-file", "pid", first.bundle.name()];
    first.cmd(&detached).run().ok();
    let mut bundle = Bundle::inside(first.bundle.sandbox().clone()).ns("user").unset("/hostname");
    bundle = bundle.unset("/linux/cgroupsPath");
    bundle = bundle.mount_options("/dev/pts", |options| options.retain(|option| option != "gid=5"));
    chown_all(bundle.path(), USER);
    for (word, kind) in [("user", "user"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid")] {
        bundle = bundle.join(word, format!("/proc/{}/ns/{kind}", first.bundle.pid()));
    }
    let bundle = bundle.sh("hostname; cat /proc/1/cmdline | tr '\\0' ' '");
    let second = Rootless { bundle, path: first.path.clone(), groups: first.groups };
    second.run().ok().shows("corten").shows("sleep 60");
    first.cmd(&["delete", "--force", first.bundle.name()]).run().ok();
}

#[test]
fn root_of_an_outer_user_namespace_runs_a_container() {
    for outer in [&["--user", "--map-root-user"][..], &["--user", "--map-root-user", "--mount"]] {
        let container = single();
        let map = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
        let nested =
            |bundle: Bundle| bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map.clone());
        let container = container.with(|bundle| nested(bundle).sh("id -u; cat /proc/self/uid_map"));
        container.bundle.write();
        let user = [format!("--reuid={USER}"), format!("--regid={USER}")];
        let mut words = vec!["/usr/bin/setpriv", &user[0], &user[1], "--clear-groups", "/usr/bin/unshare"];
        words.extend(outer);
        let outcome = container.cmd(&["run", container.bundle.name()]).started_by(words).run();
        let seen: Vec<_> = outcome.ok().stdout().split_whitespace().map(str::to_owned).collect();
        assert_eq!(seen, ["0", "0", "0", "1"], "{outer:?}");
    }
}

#[test]
fn user_namespaces_switched_off_are_told_with_the_setting() {
    let container = single();
    let map = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
    let container = container
        .with(|bundle| bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map).args(["true"]));
    container.bundle.write();
    let user = [format!("--reuid={USER}"), format!("--regid={USER}")];
    let off = "echo 0 >/proc/sys/user/max_user_namespaces; exec \"$0\" \"$@\"";
    let outer =
        ["/usr/bin/setpriv", &user[0], &user[1], "--clear-groups", "/usr/bin/unshare", "--user", "--map-root-user"];
    let words = outer.into_iter().chain(["/bin/sh", "-c", off]);
    let outcome = container.cmd(&["run", container.bundle.name()]).started_by(words).run();
    outcome.fails();
    if kind() != Kind::Corten {
        return;
    }
    outcome.fails_with("sysctl user.max_user_namespaces");
    // One who is not root has no other way.
    let outer = ["/usr/bin/setpriv", &user[0], &user[1], "--clear-groups", "/usr/bin/unshare", "--user", "--keep-caps"];
    let words = outer.into_iter().chain(["/bin/sh", "-c", off]);
    let told = container.cmd(&["check", "--host"]).started_by(words).run();
    assert!(told.code(1).stdout().ends_with("corten cannot work on this host\n"), "{}", told.stdout());
}

#[test]
fn a_user_without_a_user_namespace_is_told_to_add_one() {
    if known_difference("crun", "makes one up") {
        return;
    }
    let bare = |bundle: Bundle| bundle.without_ns("user").unset("/linux/uidMappings").unset("/linux/gidMappings");
    let outcome = single().with(|bundle| bare(bundle).args(["true"])).run();
    outcome.fails();
    if kind() == Kind::Corten {
        outcome.fails_with("to linux.namespaces, and id mappings");
    }
}

/// Root of a user namespace with a mount namespace, as an engine that is not root makes them.
fn as_outer_root(container: &Rootless, maps: &str) -> Outcome {
    container.bundle.write();
    let user = [format!("--reuid={USER}"), format!("--regid={USER}")];
    let words = ["/usr/bin/setpriv", &user[0], &user[1], "--clear-groups", "/usr/bin/unshare", "--user", "--mount"];
    let words = words.into_iter().chain(maps.split(' '));
    container.cmd(&["run", container.bundle.name()]).started_by(words).run()
}

fn without_user_namespace(bundle: Bundle) -> Bundle {
    bundle.without_ns("user").unset("/linux/uidMappings").unset("/linux/gidMappings")
}

#[test]
fn a_container_without_a_user_namespace_inside_an_outer_one() {
    if known_difference("runc", "wants the cgroup") {
        return;
    }
    let script = "id -u; echo x >/dev/null && head -c 4 /dev/zero | wc -c; touch /made";
    let container = single().with(|bundle| without_user_namespace(bundle).sh(script));
    let outcome = as_outer_root(&container, "--map-root-user");
    assert_eq!(outcome.ok().stdout().split_whitespace().collect::<Vec<_>>(), ["0", "4"]);
    let Some(container) = many() else { return };
    let container = container.with(|bundle| without_user_namespace(bundle).sh(script));
    as_outer_root(&container, "--map-root-user --map-auto").ok();
}

#[test]
fn flags_that_an_outer_user_namespace_has_locked_stay_where_words_name_others() {
    if known_difference("runc", "wants the cgroup") || known_difference("crun", "keeps them beside no other word") {
        return;
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let container = single();
    let source = container.bundle.host_dir("locked");
    mount(Some("tmpfs"), &source, Some("tmpfs"), flags, None::<&str>).expect("mount a tmpfs");
    let container = container.with(without_user_namespace);
    let container = container.with(|bundle| bundle.args(["awk", "$5==\"/m\"{print $6}", "/proc/self/mountinfo"]));
    let container = container.with(|bundle| bundle.bind(source, "/m", &["rbind", "rw"]));
    as_outer_root(&container, "--map-root-user").prints("rw,nosuid,nodev,noexec,relatime");
}

/// Its own pid namespace is of a user namespace further out, so that nothing leads back there from another one.
#[test]
fn in_an_outer_user_namespace_pid_namespaces_are_joined_and_hooks_stay_outside() {
    if known_difference("runc", "wants the cgroup") {
        return;
    }
    let first = single().with(|bundle| without_user_namespace(bundle).sh("exec sleep 60"));
    first.bundle.write();
    let place = first.bundle.path().join("pidns");
    let hook = "readlink /proc/self/ns/pid >where";
    let bundle = without_user_namespace(Bundle::inside(first.bundle.sandbox().clone()))
        .unset("/linux/cgroupsPath")
        .mount_options("/dev/pts", |options| options.retain(|option| option != "gid=5"))
        .join("pid", &place)
        .set("/hooks", json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", hook]}]}))
        .sh("cat /proc/1/cmdline | tr '\\0' ' '");
    chown_all(bundle.path(), USER);
    bundle.write();
    let second = Rootless { bundle, path: first.path.clone(), groups: first.groups };
    let user = [format!("--reuid={USER}"), format!("--regid={USER}")];
    let script = format!(
        "set -e; cd {0}; \"$0\" run --detach --pid-file pid \"$1\" </dev/null >/dev/null
        trap '\"$0\" delete --force \"$1\"' EXIT
        \"$0\" exec \"$1\" sh -c 'echo in $$'
        ln -s /proc/$(cat pid)/ns/pid pidns; cd {1}; \"$0\" run \"$2\"",
        first.bundle.path().display(),
        second.bundle.path().display(),
    );
    let outer =
        ["--clear-groups", "/usr/bin/unshare", "--user", "--mount", "--map-root-user", "/bin/sh", "-c", &script];
    let words = ["/usr/bin/setpriv", &user[0], &user[1]].into_iter().chain(outer);
    let outcome = second.cmd(&[first.bundle.name(), second.bundle.name()]).started_by(words).run();
    outcome.ok().shows("in ").shows("sleep 60");
    let ours = fs::read_link("/proc/self/ns/pid").expect("a pid namespace").display().to_string();
    assert_eq!(fs::read_to_string(second.bundle.path().join("where")).expect("the hook ran").trim(), ours);
}

#[test]
fn an_outer_user_namespace_that_maps_all_ids_to_themselves() {
    if known_difference("crun", "insists on bpf") || known_difference("runc", "insists on bpf") {
        return;
    }
    let container = single().with(|bundle| without_user_namespace(bundle).sh("id -u; echo x >/dev/null"));
    container.bundle.write();
    // The maps are written from outside, which takes a second process.
    let outside =
        "unshare -U -m sh -c 'while ! grep -q . /proc/self/uid_map; do :; done; exec \"$0\" \"$@\"' \"$0\" \"$@\" &
        until [ \"$(readlink /proc/$!/ns/user)\" != \"$(readlink /proc/self/ns/user)\" ]; do :; done
        echo 0 0 4294967295 >/proc/$!/gid_map; echo 0 0 4294967295 >/proc/$!/uid_map; wait $!";
    container.cmd(&["run", container.bundle.name()]).started_by(["/bin/sh", "-c", outside]).run().ok().prints("0");
}

#[test]
fn a_delegated_cgroup_is_used_and_one_out_of_reach_refused() {
    let named = |bundle: Bundle, below: &str| {
        let path = format!("{}/{below}", bundle.sandbox().cgroup_name());
        bundle.set("/linux/cgroupsPath", path).without_ns("cgroup").sh("grep ^0: /proc/self/cgroup")
    };
    let delegate = |dir: &Path| {
        for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            chown(dir.join(file), Some(USER), Some(USER)).expect("delegate a cgroup");
        }
    };
    if known_difference("crun", "leaves it for want of bpf") {
        return;
    }
    let container = single().with(|bundle| named(bundle, "mine/x"));
    let sandbox = container.bundle.sandbox().clone();
    let mine = sandbox.cgroup().join("mine");
    fs::create_dir(&mine).expect("make a cgroup");
    delegate(&mine);
    let outcome = container.run();
    outcome.fails_with("permission denied");
    if kind() == Kind::Corten {
        outcome.fails_with("/linux/cgroupsPath: go from cgroup");
    }
    assert!(!mine.join("x").exists());
    delegate(sandbox.cgroup());
    container.run().ok().prints(&format!("0::{}/mine/x", sandbox.cgroup_name()));
    assert!(!mine.join("x").exists());
}

#[test]
fn an_exec_from_where_the_user_may_not_come_from_is_told_the_remedy() {
    if kind() != Kind::Corten {
        return;
    }
    let container = single().with(|bundle| {
        let path = format!("{}/mine", bundle.sandbox().cgroup_name());
        bundle.set("/linux/cgroupsPath", path).args(["sleep", "60"])
    });
    let above = container.bundle.sandbox().cgroup().to_owned();
    let give = |user: u32| {
        for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            chown(above.join(file), Some(user), Some(user)).expect("delegate a cgroup");
        }
    };
    give(USER);
    let id = container.bundle.name().to_owned();
    container.bundle.write();
    container.cmd(&["create", "--pid-file", "pid", &id]).run().ok();
    container.cmd(&["start", &id]).run().ok();
    container.cmd(&["exec", &id, "true"]).run().ok();
    give(0);
    let refused = container.cmd(&["exec", &id, "true"]).run();
    refused.fails_with("permission denied").fails_with("systemd-run --user --scope");
    give(USER);
    container.cmd(&["delete", "--force", &id]).run().ok();
}

/// Without the privilege for the mark that root sets there is one that the user may set.
#[test]
fn a_users_container_that_has_taken_the_cgroup_of_a_stopped_one_is_left_alone() {
    if kind() != Kind::Corten {
        return;
    }
    let first = single();
    let sandbox = first.bundle.sandbox().clone();
    for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
        chown(sandbox.cgroup().join(file), Some(USER), Some(USER)).expect("delegate a cgroup");
    }
    let path = format!("{}/mine", sandbox.cgroup_name());
    let map = first.bundle.config()["linux"]["uidMappings"].clone();
    let second = Bundle::inside(sandbox.clone())
        .mount_options("/dev/pts", |options| options.retain(|option| option != "gid=5"))
        .without_ns("pid");
    let second =
        rootless(second, map, "").with(|bundle| bundle.without_mount("/proc").set("/linux/cgroupsPath", &*path));
    let second = second.with(|bundle| bundle.args(["sleep", "60"]));
    let first = first.with(|bundle| bundle.set("/linux/cgroupsPath", &*path).args(["true"]));
    for container in [&first, &second] {
        container.bundle.write();
        let id = container.bundle.name();
        container.cmd(&["run", "--detach", "--pid-file", "pid", id]).run().ok();
        let record = fs::read(sandbox.dir().join(format!("run/corten/{id}/record.json"))).expect("the record");
        let record: Value = serde_json::from_slice(&record).expect("JSON");
        let owner = record["cgroup"]["owner"].as_str().expect("a mark");
        assert_eq!(owner.split(' ').next(), Some(id));
        if container.bundle.name() == first.bundle.name() {
            container.bundle.wait();
        }
    }
    first.cmd(&["kill", "--all", first.bundle.name(), "KILL"]).run().ok();
    first.cmd(&["delete", first.bundle.name()]).run().ok();
    let procs = || fs::read_to_string(sandbox.cgroup().join("mine/cgroup.procs")).unwrap_or_default();
    assert_eq!(procs().trim(), second.bundle.pid().to_string());
    second.cmd(&["delete", "--force", second.bundle.name()]).run().ok();
    assert!(!sandbox.cgroup().join("mine").exists(), "the cgroup is left");
}

#[test]
fn an_image_directory_is_shared_through_an_overlay_made_by_the_user() {
    if kind() != Kind::Corten {
        return;
    }
    for make in [|| Some(single()), many] {
        let Some(container) = make() else { continue };
        for (form, kept) in [("tmpfs", false), ("dir=kept", true)] {
            let cover = json!({"run.corten.rootfs.overlay": form});
            let script = "echo new >/made; rm /etc/group; cat /made; ls /etc";
            let bundle = Bundle::inside(container.bundle.sandbox().clone()).unset("/linux/cgroupsPath");
            chown_all(bundle.path(), USER);
            let map = container.bundle.config()["linux"]["uidMappings"].clone();
            let bundle = bundle.ns("user").set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
            let bundle = bundle.mount_options("/dev/pts", |options| options.retain(|option| option != "gid=5"));
            let bundle = bundle.set("/annotations", cover).sh(script);
            let covered = Rootless { bundle, path: container.path.clone(), groups: container.groups };
            covered.run().ok().prints("new\npasswd");
            let rootfs = covered.bundle.rootfs();
            assert!(!rootfs.join("made").exists() && rootfs.join("etc/group").exists());
            assert_eq!(covered.bundle.path().join("kept/upper/made").exists(), kept);
            if kept {
                covered.with(|bundle| bundle.args(["cat", "/made"])).run().ok().prints("new");
            }
        }
    }
}

#[test]
fn a_user_allows_annotations_by_a_file_of_the_users_own() {
    if kind() != Kind::Corten {
        return;
    }
    let container = single();
    let [home, place] = ["home", "place"].map(|name| container.bundle.host_dir(name));
    let form = format!("dir={}", place.display());
    let bundle =
        |bundle: Bundle| bundle.set("/annotations", json!({"run.corten.rootfs.overlay": form})).sh("touch /written");
    let container = container.with(bundle);
    container.bundle.write();
    for directory in [".config/corten", "other/corten"] {
        let file = container.bundle.host_file(&format!("home/{directory}/allowed-annotations"), "run.corten.*\n");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("set its mode");
    }
    chown_all(&home, USER);
    chown(&place, Some(USER), Some(USER)).expect("give it to the user");
    let run = |variables: &[(&str, &str)]| {
        let mut command = container.cmd(&["run", container.bundle.name()]);
        for (name, below) in variables {
            command = command.env(name, if below.is_empty() { "".into() } else { home.join(below) });
        }
        command.run()
    };
    let file = |directory: &str| home.join(directory).join("corten/allowed-annotations");
    let refused = |outcome: Outcome, file: &Path| {
        let line = format!("or a line with that name in {})", file.display());
        outcome.fails_with("the caller has to allow it").fails_with(&line);
        assert_eq!(fs::read_dir(&place).expect("read the directory").count(), 0);
    };
    refused(run(&[]), Path::new("/etc/corten/allowed-annotations"));
    refused(run(&[("XDG_CONFIG_HOME", "none")]), &file("none"));
    refused(run(&[("HOME", "."), ("XDG_CONFIG_HOME", "none")]), &file("none"));
    for variables in [&[("HOME", ".")][..], &[("HOME", "."), ("XDG_CONFIG_HOME", "")], &[("XDG_CONFIG_HOME", "other")]]
    {
        run(variables).ok();
        assert!(place.join("upper/written").exists(), "{variables:?}");
        fs::remove_dir_all(place.join("upper")).expect("remove the upper layer");
    }
    let own = file("other");
    fs::set_permissions(&own, fs::Permissions::from_mode(0o620)).expect("set its mode");
    run(&[("XDG_CONFIG_HOME", "other")]).fails_with("others than its owner may write to it");
    fs::set_permissions(&own, fs::Permissions::from_mode(0o644)).expect("set its mode");
    chown(&own, Some(USER + 1), None).expect("give it away");
    let whose = format!("it belongs to user {}, not to {USER}", USER + 1);
    run(&[("XDG_CONFIG_HOME", "other")]).fails_with(&whose);
    // A file of root's counts for all, also as root of a user namespace sees it.
    fs::create_dir("/etc/corten").expect("make the directory of the configuration");
    fs::write("/etc/corten/allowed-annotations", "run.corten.rootfs.overlay\n").expect("write the file");
    run(&[("XDG_CONFIG_HOME", "none")]).ok();
    assert!(place.join("upper/written").exists());
}

#[test]
fn an_overlay_among_the_mounts() {
    let container = single();
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| container.bundle.host_dir(name));
    fs::write(lower.join("f"), "below").expect("write a file");
    for dir in [&lower, &upper, &work] {
        chown_all(dir, USER);
    }
    let options = [("lowerdir", &lower), ("upperdir", &upper), ("workdir", &work)];
    let options = options.map(|(key, dir)| format!("{key}={}", dir.display()));
    let options: Vec<&str> = options.iter().map(String::as_str).chain(["userxattr"]).collect();
    let container = container
        .with(|bundle| bundle.mount("/o", "overlay", "overlay", &options).sh("cat /o/f; echo above >/o/f; cat /o/f"));
    assert_eq!(container.run().ok().stdout().split_whitespace().collect::<Vec<_>>(), ["belowabove"]);
    assert_eq!(fs::read_to_string(upper.join("f")).expect("the file in the upper layer"), "above\n");
}

#[test]
fn resource_limits_are_those_asked_for() {
    let limits = json!([{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 65}]);
    let Some(container) = many() else { return };
    let container = container.with(|bundle| bundle.set("/process/rlimits", limits).sh("ulimit -Sn; ulimit -Hn"));
    assert_eq!(container.run().ok().stdout().split_whitespace().collect::<Vec<_>>(), ["64", "65"]);
}

#[test]
fn n14_a_user_namespace_without_id_0() {
    if known_difference("runc", "wants a map of user 0") {
        return;
    }
    let map = json!([{"containerID": 999, "hostID": USER, "size": 1}]);
    let ours = |bundle: Bundle| {
        let bundle = bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map.clone());
        let bundle = bundle.set("/process/user", json!({"uid": 999, "gid": 999}));
        bundle.sh("id -u; id -g; stat -c %u:%g /dev; touch /made; [ -e /wait ] && sleep 60")
    };
    let container = single().with(ours);
    let outcome = container.run();
    assert_eq!(outcome.stdout().lines().collect::<Vec<_>>(), ["999", "999", "999:999"]);
    let made = fs::metadata(container.bundle.rootfs().join("made")).expect("what it made");
    assert_eq!((made.uid(), made.gid()), (USER, USER));
    let container = single().with(ours).with(|bundle| bundle.file("/wait", "", 0o644));
    container.bundle.write();
    let id = container.bundle.name();
    container.cmd(&["run", "--detach", id]).run().ok();
    container.cmd(&["exec", id, "id", "-u"]).run().ok().prints("999");
    container.cmd(&["delete", "--force", id]).run().ok();
    // Nobody that the container knows: it is told, and by check as well.
    let container = single().with(ours).with(|bundle| bundle.set("/process/user", json!({"uid": 0, "gid": 0})));
    let outcome = container.run();
    outcome.fails();
    if kind() == Kind::Corten {
        outcome.fails_with("/process/user/gid").fails_with("group 0 has no mapping there: take another, or map it");
    }
}

#[test]
fn a_terminal_of_the_containers_own() {
    let container = single().with(|bundle| bundle.set("/process/terminal", true).sh("tty; stat -c %u /dev/console"));
    container.bundle.write();
    let mut terminal = Terminal::new();
    let running = container.cmd(&["run", container.bundle.name()]).on_terminal(terminal.replica()).spawn();
    terminal.until("/dev/pts/0\r\n0\r\n");
    running.wait().ok();
}

#[test]
fn a_users_container_has_a_seccomp_agent() {
    let container = single();
    let agent = Agent::listen(container.bundle.host("agent.sock"), |_| Answer::Continue);
    fs::set_permissions(agent.path(), fs::Permissions::from_mode(0o777)).expect("let the user connect");
    let profile = |names: &[&str]| {
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": agent.path(),
            "syscalls": [{"names": names, "action": "SCMP_ACT_NOTIFY"}],
        })
    };
    for no_new_privs in [true, false] {
        let bundle = single().bundle.args(["true"]).set("/process/noNewPrivileges", no_new_privs);
        let container = Rootless { bundle: bundle.set("/linux/seccomp", profile(&["mkdir", "execve"])), ..single() };
        container.run().ok();
    }
    if kind() == Kind::Corten {
        // Nobody may look into a process that enters a container, so the listener cannot be taken out of it.
        let bundle = single().bundle.args(["sleep", "60"]).set("/linux/seccomp", profile(&["sendmsg"]));
        let container = Rootless { bundle, ..single() };
        container.bundle.write();
        let id = container.bundle.name();
        container.cmd(&["run", "--detach", id]).run().ok();
        container.cmd(&["exec", id, "true"]).run().fails_with("allow sendmsg");
        container.cmd(&["delete", "--force", id]).run().ok();
    }
}

/// A container of the user's that runs, and has no cgroup of its own.
fn running(script: &str) -> Rootless {
    let container = many().unwrap_or_else(single).with(|bundle| bundle.caps(&["CAP_KILL", "CAP_SYS_ADMIN"]).sh(script));
    container.bundle.write();
    container.cmd(&["run", "--detach", "--pid-file", "pid", container.bundle.name()]).run().ok();
    eventually("it runs", || container.bundle.rootfs().join("up").exists());
    container
}

#[test]
fn without_a_cgroup_the_processes_are_those_of_the_pid_namespace() {
    if known_difference("crun", "hands no options to ps") || known_difference("runc", "wants a cgroup") {
        return;
    }
    // A daemon whose parent has ended, and what lives in a namespace below.
    let container = running("(setsid sleep 600 &); unshare -pf sleep 601 & >/up; exec sleep 603");
    let id = container.bundle.name();
    let exec = container.cmd(&["exec", "--detach", id, "sleep", "602"]).run();
    exec.ok();
    let table = || container.cmd(&["ps", id, "-eo", "pid,args"]).run().ok().stdout().to_owned();
    let all = ["sleep 600", "unshare -pf sleep 601", "sleep 602"];
    eventually("all are there", || all.iter().all(|words| table().contains(words)));
    let pids = container.cmd(&["ps", "--format", "json", id]).run().json();
    let pids: Vec<i64> = pids.as_array().expect("a list").iter().map(|pid| pid.as_i64().expect("a pid")).collect();
    assert!(pids.contains(&container.bundle.pid().into()) && pids.is_sorted(), "{pids:?}");
    assert!(!pids.contains(&std::process::id().into()));
    // Only those who go by themselves: neither a first process of a namespace nor a shell that waits.
    container.cmd(&["kill", "--all", id, "USR1"]).run().ok();
    eventually("the daemons are gone", || !table().contains("sleep 600") && !table().contains("sleep 602"));
    container.cmd(&["kill", "--all", id, "KILL"]).run().ok();
    container.bundle.wait();
    assert_eq!(container.cmd(&["state", id]).run().json()["status"], "stopped");
    container.cmd(&["ps", "--format", "json", id]).run().ok().prints("null");
    container.cmd(&["kill", "--all", id, "KILL"]).run().ok();
    container.cmd(&["delete", id]).run().ok();
}

#[test]
fn what_needs_a_cgroup_says_how_a_user_gets_one() {
    let container = running(">/up; exec sleep 60");
    let id = container.bundle.name();
    for args in [&["pause", id][..], &["resume", id], &["events", "--stats", id], &["update", "--pids-limit", "20", id]]
    {
        let outcome = container.cmd(args).run();
        if kind() == Kind::Corten {
            outcome.fails_with("cgroup").fails_with("delegated to this user");
        }
    }
    assert_eq!(container.cmd(&["state", id]).run().json()["status"], "running");
    container.cmd(&["list", "--quiet"]).run().ok().prints(id);
    let list = container.cmd(&["list", "--format", "json"]).run().ok().json();
    assert_eq!((&list[0]["id"], &list[0]["status"]), (&id.into(), &"running".into()));
    container
        .cmd(&["exec", "--user", "0", "--cwd", "/etc", "--env", "A=b", id, "sh", "-c", "echo $A; pwd"])
        .run()
        .ok()
        .prints("b\n/etc");
    if !known_difference("crun", "words of its own") && !known_difference("runc", "ignores it") {
        container.cmd(&["exec", "--cgroup", "x", id, "true"]).run().fails_with("delegated to this user");
    }
    container.cmd(&["delete", "--force", id]).run().ok();
}

#[test]
fn owners_are_mapped_where_the_file_system_is_of_the_outer_user_namespace() {
    if known_difference("runc", "takes no maps in the option") {
        return;
    }
    let Some(container) = many() else { return };
    let dir = container.bundle.host_dir("tmpfs");
    chown_all(&dir, USER);
    let inline = "idmap=uids=0-5-1#1-7-1;gids=0-6-1#1-8-1";
    let script = "stat -c '%u %g' /o/a /o/b";
    let bind = |bundle: Bundle| without_user_namespace(bundle).bind(&dir, "/o", &["bind", inline]).sh(script);
    let container = container.with(bind);
    container.bundle.write();
    let user = [format!("--reuid={USER}"), format!("--regid={USER}")];
    let words = ["/usr/bin/setpriv", &user[0], &user[1], "--clear-groups", "/usr/bin/unshare", "--user", "--mount"];
    let fill = "mount -t tmpfs none \"$0\" && touch \"$0/a\" \"$0/b\" && chown 1:1 \"$0/b\" && exec \"$@\"";
    let fill = ["--map-root-user", "--map-auto", "/bin/sh", "-c", fill, dir.to_str().expect("a plain path")];
    let run = container.cmd(&["run", container.bundle.name()]).started_by(words.into_iter().chain(fill));
    run.run().ok().prints("5 6\n7 8");
}

#[test]
fn owners_that_the_kernel_does_not_map_for_a_user_are_told() {
    let mut container = single().with(|bundle| bundle.push("/mounts", json!({})).args(["true"]));
    let dir = container.bundle.host_dir("owned");
    let maps = json!([{"containerID": 0, "hostID": USER + 1, "size": 1}]);
    let inline = "idmap=uids=0-7778-1;gids=0-7778-1";
    let bind = json!({"destination": "/o", "type": "bind", "source": dir, "options": ["bind", "idmap"]});
    let mut mapped = bind.clone();
    mapped["uidMappings"] = maps.clone();
    mapped["gidMappings"] = maps;
    let mut written = bind.clone();
    written["options"] = json!(["bind", inline]);
    let fresh = |option| json!({"destination": "/t", "type": "tmpfs", "source": "none", "options": [option]});
    for entry in [bind, mapped, written, fresh("idmap"), fresh(inline)] {
        container = container.with(|bundle| bundle.set("/mounts/7", entry.clone()));
        let outcome = container.run();
        // A peer may pass over a mapping that changes nothing.
        if kind() == Kind::Corten {
            outcome.fails_with("/mounts/7: owners can only be mapped").fails_with("leave the mapping out");
        }
    }
}

#[test]
fn a_user_adds_a_file_system_to_a_container_that_runs() {
    if known_difference("runc", "has no such command") || known_difference("crun", "makes it before it joins") {
        return;
    }
    let container = single().with(|bundle| bundle.args(["sleep", "600"]).dir("/data", 0o755));
    let name = container.bundle.name().to_owned();
    container.bundle.write();
    container.cmd(&["run", "--detach", &name]).run().ok();
    let list = |entry: Value| container.bundle.host_file("mounts.json", &json!([entry]).to_string());
    let mounts = |what: &str, entry: Value| {
        container.cmd(&["mounts", what, &name, list(entry).to_str().expect("a plain path")]).run()
    };
    mounts("add", json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k"]})).ok();
    container.cmd(&["exec", &name, "sh", "-c", "touch /data/x && df -k /data"]).run().ok().shows(" 64 ");
    let bind = json!({"destination": "/data", "type": "bind", "source": "/etc", "options": ["bind"]});
    mounts("add", bind).fails_with("operation not permitted").fails_with("new file systems only");
    mounts("remove", json!({"destination": "/data"})).ok();
    container.cmd(&["exec", &name, "ls", "-A", "/data"]).run().ok().prints("");
    container.cmd(&["delete", "--force", &name]).run().ok();
}

#[test]
fn a_users_container_says_that_it_is_ready_whoever_it_runs_as() {
    if kind() != Kind::Corten {
        return;
    }
    let of_a_subordinate_id =
        many().map(|many| many.with(|bundle| bundle.set("/process/user", json!({"uid": 7, "gid": 7}))));
    for container in [Some(single()), of_a_subordinate_id].into_iter().flatten() {
        let container = container.with(|bundle| bundle.sh("probe notify READY=1; exec sleep 60"));
        let path = container.bundle.host("manager");
        let manager = std::os::unix::net::UnixDatagram::bind(&path).expect("listen");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("let the user write there");
        container.bundle.write();
        let id = container.bundle.name();
        let run = container.cmd(&["run", "--detach", "--pid-file", "pid", id]).env("NOTIFY_SOCKET", &path).spawn();
        let mut told = String::new();
        manager.set_read_timeout(Some(std::time::Duration::from_millis(20))).expect("set a time limit");
        eventually("run returns", || {
            let mut bytes = [0; 256];
            if let Ok(length) = manager.recv(&mut bytes) {
                told += &String::from_utf8_lossy(&bytes[..length]);
            }
            !run.is_running()
        });
        run.wait().ok();
        assert_eq!(told, format!("READY=1\nMAINPID={}BARRIER=1", container.bundle.pid()));
        container.cmd(&["delete", "--force", id]).run().ok();
        fs::remove_file(&path).expect("remove the manager's socket");
    }
}
