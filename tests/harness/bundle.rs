//! A bundle, written in one expression, and the container that is made from it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{Cmd, Outcome, Running, Sandbox, config, eventually, machine, reaper, slowness};

/// What busybox is called in the container.
const APPLETS: &[&str] = &[
    "[", "awk", "cat", "chmod", "cp", "cut", "date", "dd", "dmesg", "echo", "env", "false", "grep", "head", "hostname",
    "id", "ip", "kill", "ln", "ls", "mkdir", "mkfifo", "mknod", "mount", "mv", "nproc", "od", "printf", "ps", "pwd",
    "readlink", "rm", "rmdir", "sed", "seq", "sh", "sleep", "sort", "stat", "stty", "sysctl", "tail", "test", "touch",
    "tr", "true", "tty", "umount", "uname", "uniq", "usleep", "wc",
];

/// The host's id of a container's root in a user namespace made by [`Bundle::userns`].
pub const HOST_ID: u32 = 100_000;

/// A bundle in the test's sandbox. Its rootfs holds busybox and the probe in `/bin`.
pub struct Bundle {
    sandbox: Arc<Sandbox>,
    dir: PathBuf,
    id: String,
    config: Value,
    /// Global options for every command on it.
    globals: Vec<String>,
    /// Stdout of what made the container, which is the container's.
    output: Mutex<PathBuf>,
    /// The container process is born later.
    made: reaper::Ticks,
}

impl Bundle {
    /// The base bundle; the first of a test makes the test's sandbox.
    pub fn new() -> Bundle {
        Bundle::inside(Sandbox::of_this_test())
    }

    /// The base bundle in this sandbox.
    pub fn inside(sandbox: Arc<Sandbox>) -> Bundle {
        let id = format!("c{}", sandbox.number());
        let dir = sandbox.dir().join(format!("b-{id}"));
        fill(&sandbox, &dir.join("rootfs"));
        let config = config::base(&sandbox.cgroups_path(&id));
        let globals = if machine::by_systemd() { vec!["--systemd-cgroup".into()] } else { Vec::new() };
        let output = Mutex::new(PathBuf::new());
        Bundle { sandbox, dir, id, config, globals, output, made: reaper::Ticks::now() }
    }

    // What the configuration says.

    /// `process.args`.
    pub fn args(self, args: impl IntoIterator<Item = impl AsRef<str>>) -> Bundle {
        let args: Vec<_> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        self.set("/process/args", args)
    }

    /// A shell line as `process.args`.
    pub fn sh(self, script: &str) -> Bundle {
        self.args(["sh", "-c", script])
    }

    /// The probe as `process.args`.
    pub fn probe(self, args: impl IntoIterator<Item = impl AsRef<str>>) -> Bundle {
        let mut words = vec!["probe".to_owned()];
        words.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self.args(words)
    }

    /// Sets what a JSON pointer names; `-` as the last part appends.
    pub fn set(mut self, pointer: &str, value: impl Into<Value>) -> Bundle {
        config::set(&mut self.config, pointer, value.into());
        self
    }

    /// Takes away what a JSON pointer names.
    pub fn unset(mut self, pointer: &str) -> Bundle {
        config::unset(&mut self.config, pointer);
        self
    }

    /// The configuration as it is now.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// Appends to the array that a JSON pointer names, made if it is not there.
    pub fn push(mut self, pointer: &str, value: impl Into<Value>) -> Bundle {
        config::list(&mut self.config, pointer).push(value.into());
        self
    }

    /// One more mount.
    pub fn mount(self, destination: &str, fstype: &str, source: impl AsRef<Path>, options: &[&str]) -> Bundle {
        let source = source.as_ref();
        self.push("/mounts", json!({"destination": destination, "type": fstype, "source": source, "options": options}))
    }

    /// One more bind mount.
    pub fn bind(self, source: impl AsRef<Path>, destination: &str, options: &[&str]) -> Bundle {
        self.mount(destination, "bind", source, options)
    }

    /// Changes the options of the mount at this destination.
    pub fn mount_options(mut self, destination: &str, change: impl FnOnce(&mut Vec<Value>)) -> Bundle {
        let mounts = config::list(&mut self.config, "/mounts");
        let mount = mounts.iter_mut().find(|mount| mount["destination"] == destination).expect("such a mount");
        change(config::list(mount, "/options"));
        self
    }

    /// Without the mount at this destination.
    pub fn without_mount(mut self, destination: &str) -> Bundle {
        config::list(&mut self.config, "/mounts").retain(|mount| mount["destination"] != destination);
        self
    }

    /// One more namespace of its own.
    pub fn ns(self, kind: &str) -> Bundle {
        self.without_ns(kind).push("/linux/namespaces", json!({"type": kind}))
    }

    /// Without a namespace of this type.
    pub fn without_ns(mut self, kind: &str) -> Bundle {
        config::list(&mut self.config, "/linux/namespaces").retain(|ns| ns["type"] != kind);
        self
    }

    /// A namespace that exists already.
    pub fn join(self, kind: &str, path: impl AsRef<Path>) -> Bundle {
        let path = path.as_ref();
        self.without_ns(kind).push("/linux/namespaces", json!({"type": kind, "path": path}))
    }

    /// A user namespace: 65536 ids from [`HOST_ID`] on, and the rootfs owned by its root.
    pub fn userns(self) -> Bundle {
        chown_all(&self.rootfs(), HOST_ID);
        let map = json!([{"containerID": 0, "hostID": HOST_ID, "size": 65536}]);
        self.ns("user").set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map)
    }

    /// All five capability sets but the ambient one.
    pub fn caps(mut self, names: &[&str]) -> Bundle {
        for set in ["bounding", "effective", "permitted"] {
            config::set(&mut self.config, &format!("/process/capabilities/{set}"), json!(names));
        }
        self
    }

    /// One more environment entry.
    pub fn env(self, entry: &str) -> Bundle {
        self.push("/process/env", entry)
    }

    /// One more hook of this kind, a shell line run by the host's busybox (for `startContainer`, by the container's).
    pub fn hook(self, kind: &str, script: &str) -> Bundle {
        let sh = "/bin/busybox";
        self.push(&format!("/hooks/{kind}"), json!({"path": sh, "args": ["sh", "-c", script], "env": ["PATH=/bin"]}))
    }

    // What is in the rootfs, and beside it.

    /// A file in the rootfs.
    pub fn file(self, path: &str, content: &str, mode: u32) -> Bundle {
        let file = self.rootfs().join(path.trim_start_matches('/'));
        fs::create_dir_all(file.parent().expect("a parent")).expect("make directories in the rootfs");
        fs::write(&file, content).expect("write a file in the rootfs");
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("set its mode");
        self
    }

    /// A directory in the rootfs.
    pub fn dir(self, path: &str, mode: u32) -> Bundle {
        let dir = self.rootfs().join(path.trim_start_matches('/'));
        fs::create_dir_all(&dir).expect("make a directory in the rootfs");
        fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).expect("set its mode");
        self
    }

    /// A symbolic link in the rootfs.
    pub fn link(self, path: &str, target: &str) -> Bundle {
        let link = self.rootfs().join(path.trim_start_matches('/'));
        fs::create_dir_all(link.parent().expect("a parent")).expect("make directories in the rootfs");
        symlink(target, link).expect("make a link in the rootfs");
        self
    }

    /// The owner of a file in the rootfs, itself if it is a link.
    pub fn owned(self, path: &str, uid: u32, gid: u32) -> Bundle {
        lchown(self.rootfs().join(path.trim_start_matches('/')), Some(uid), Some(gid))
            .expect("change an owner in the rootfs");
        self
    }

    /// Global options for every command on this container.
    pub fn global(mut self, option: &str) -> Bundle {
        self.globals.push(option.into());
        self
    }

    /// Another id.
    pub fn id(mut self, id: &str) -> Bundle {
        self.id = id.into();
        self
    }

    pub fn name(&self) -> &str {
        &self.id
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }

    pub fn sandbox(&self) -> &Arc<Sandbox> {
        &self.sandbox
    }

    /// The cgroup that the base configuration asks for.
    pub fn cgroup(&self) -> PathBuf {
        let path = self.config.pointer("/linux/cgroupsPath").and_then(Value::as_str).unwrap_or_default();
        if let [slice, prefix, name] = path.split(':').collect::<Vec<_>>()[..] {
            return Path::new("/sys/fs/cgroup").join(slice).join(format!("{prefix}-{name}.scope"));
        }
        let name = path.strip_prefix(self.sandbox.cgroup_name()).unwrap_or(path);
        self.sandbox.cgroup().join(name.trim_start_matches('/'))
    }

    /// A path on the host, of this test alone, with its parents made.
    pub fn host(&self, path: &str) -> PathBuf {
        let path = self.sandbox.dir().join("host").join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("a parent")).expect("make directories on the host");
        path
    }

    /// A file on the host, of this test alone.
    pub fn host_file(&self, path: &str, content: &str) -> PathBuf {
        let path = self.host(path);
        fs::write(&path, content).expect("write a file on the host");
        path
    }

    /// A directory on the host, of this test alone.
    pub fn host_dir(&self, path: &str) -> PathBuf {
        let path = self.host(path);
        fs::create_dir_all(&path).expect("make a directory on the host");
        path
    }

    // What is done with it.

    /// Writes config.json as it is now; commands that make a container do it themselves.
    pub fn write(&self) {
        fs::write(self.dir.join("config.json"), self.config.to_string()).expect("write config.json");
    }

    /// The runtime with these arguments (after `--root` and `--log`).
    pub fn cmd(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Cmd {
        Cmd::new(&self.sandbox, args).global(&self.globals).about(self.dir.join("config.json"))
    }

    /// `run` in the foreground, still to be started.
    pub fn run_cmd(&self) -> Cmd {
        self.write();
        self.cmd([OsStr::new("run"), OsStr::new("--bundle"), self.dir.as_os_str(), OsStr::new(&self.id)])
    }

    /// `create`, still to be started, with these options.
    pub fn create_cmd(&self, options: &[&str]) -> Cmd {
        self.write();
        let pid_file = self.pid_file();
        let mut args = vec![OsStr::new("create"), OsStr::new("--bundle"), self.dir.as_os_str()];
        args.extend([OsStr::new("--pid-file"), pid_file.as_os_str()]);
        args.extend(options.iter().map(OsStr::new));
        args.push(OsStr::new(&self.id));
        self.cmd(args)
    }

    /// `run` in the foreground, to its end.
    #[track_caller]
    pub fn run(&self) -> Outcome {
        self.run_cmd().run()
    }

    /// `run` in the foreground, started.
    #[track_caller]
    pub fn spawn(&self) -> Running {
        self.run_cmd().spawn()
    }

    /// `run --detach`.
    #[track_caller]
    pub fn run_detached(&self) -> Outcome {
        self.keep_output(self.run_detached_cmd().run())
    }

    /// `run --detach`, still to be started.
    pub fn run_detached_cmd(&self) -> Cmd {
        self.write();
        let pid_file = self.pid_file();
        let args = [OsStr::new("run"), OsStr::new("--detach"), OsStr::new("--bundle"), self.dir.as_os_str()];
        self.cmd(args.into_iter().chain([OsStr::new("--pid-file"), pid_file.as_os_str(), OsStr::new(&self.id)]))
    }

    /// `create`.
    #[track_caller]
    pub fn create(&self) -> Outcome {
        self.keep_output(self.create_cmd(&[]).run())
    }

    fn keep_output(&self, outcome: Outcome) -> Outcome {
        *self.output.lock().expect("no test panics here") = outcome.stdout_file().into();
        outcome
    }

    #[track_caller]
    pub fn start(&self) -> Outcome {
        self.cmd(["start", &self.id]).run()
    }

    #[track_caller]
    pub fn state(&self) -> Outcome {
        self.cmd(["state", &self.id]).run()
    }

    #[track_caller]
    pub fn kill(&self, signal: &str) -> Outcome {
        self.cmd(["kill", &self.id, signal]).run()
    }

    #[track_caller]
    pub fn delete(&self) -> Outcome {
        self.cmd(["delete", &self.id]).run()
    }

    #[track_caller]
    pub fn delete_force(&self) -> Outcome {
        self.cmd(["delete", "--force", &self.id]).run()
    }

    /// `exec` of a command line.
    #[track_caller]
    pub fn exec(&self, args: &[&str]) -> Outcome {
        self.exec_cmd(&[], args).run()
    }

    /// `exec` with options, still to be started.
    pub fn exec_cmd(&self, options: &[&str], args: &[&str]) -> Cmd {
        self.cmd(["exec"].iter().chain(options).chain([&self.id.as_str()]).chain(args))
    }

    /// A file with this process, for `exec --process`.
    pub fn process_file(&self, process: &Value) -> PathBuf {
        let file = self.dir.join(format!("process-{}.json", self.sandbox.number()));
        fs::write(&file, process.to_string()).expect("write a process file");
        file
    }

    /// `exec --process`.
    #[track_caller]
    pub fn exec_process(&self, process: &Value) -> Outcome {
        let file = self.process_file(process);
        self.cmd([OsStr::new("exec"), OsStr::new("--process"), file.as_os_str(), OsStr::new(&self.id)]).run()
    }

    // What is seen of it.

    /// What the container process has written to stdout so far.
    pub fn output(&self) -> String {
        let file = self.output.lock().expect("no test panics here").clone();
        String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
    }

    /// Waits until the container process has written this.
    #[track_caller]
    pub fn until_output(&self, text: &str) -> &Bundle {
        eventually(&format!("the container prints {text:?}"), || self.output().contains(text));
        self
    }

    fn pid_file(&self) -> PathBuf {
        self.dir.join("pid")
    }

    /// The pid of the container's first process, as the pid file tells it.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        let text = fs::read_to_string(self.pid_file()).expect("read the pid file");
        text.parse().unwrap_or_else(|_| panic!("the pid file holds {text:?}, not a number"))
    }

    /// The word that `state` has for it.
    #[track_caller]
    pub fn status(&self) -> String {
        self.state().json()["status"].as_str().expect("a status").to_owned()
    }

    /// Waits for this status.
    #[track_caller]
    pub fn until(&self, status: &str) -> &Bundle {
        eventually(&format!("{} is {status}", self.id), || {
            let state = self.state();
            state.succeeded() && state.json()["status"] == status
        });
        self
    }

    /// Waits for the end of the container's first process, which `create` or `run --detach` made, as an engine does.
    #[track_caller]
    pub fn wait(&self) -> reaper::End {
        reaper::wait_for(self.pid(), self.made, slowness() * Duration::from_secs(10))
            .expect("the container's process should have ended")
    }

    /// Signals the container's first process behind the runtime's back.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).expect("signal the container's process");
    }
}

/// Makes a root filesystem: busybox with its applets, the probe, the directories that mounts want, root as user.
pub fn fill(sandbox: &Sandbox, rootfs: &Path) {
    for sub in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
        fs::create_dir_all(rootfs.join(sub)).expect("make a rootfs");
    }
    for program in ["busybox", "probe"] {
        fs::hard_link(sandbox.dir().join("bin").join(program), rootfs.join("bin").join(program))
            .expect("link a program into the rootfs");
    }
    for applet in APPLETS {
        symlink("busybox", rootfs.join("bin").join(applet)).expect("link an applet");
    }
    fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").expect("write passwd");
    fs::write(rootfs.join("etc/group"), "root:x:0:\n").expect("write group");
}

/// Gives a tree to an id of the host, links themselves and not what they point to.
pub fn chown_all(path: &Path, id: u32) {
    lchown(path, Some(id), Some(id)).expect("give the rootfs to the container's root");
    let Ok(entries) = fs::read_dir(path) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            chown_all(&entry.path(), id);
        } else {
            let _ = lchown(entry.path(), Some(id), Some(id));
        }
    }
}
