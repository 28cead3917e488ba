//! Which runtime is under test, and what the machine lacks.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use super::reaper;

/// The runtimes whose differences tests know about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Corten,
    Crun,
    Runc,
    Other,
}

/// The binary under test: `$RUNTIME`, a path or a name in PATH, else the one just built.
pub fn runtime() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let Some(asked) = std::env::var_os("RUNTIME").filter(|asked| !asked.is_empty()) else {
            return PathBuf::from(env!("CARGO_BIN_EXE_corten"));
        };
        let asked = PathBuf::from(asked);
        if asked.components().count() > 1 {
            return std::fs::canonicalize(&asked).unwrap_or_else(|e| panic!("RUNTIME={}: {e}", asked.display()));
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .map(|dir| dir.join(&asked))
            .find(|file| file.is_file())
            .unwrap_or_else(|| panic!("RUNTIME={}: no such program in PATH", asked.display()))
    })
}

/// Which runtime is under test, by the name of its binary.
pub fn kind() -> Kind {
    match runtime().file_name().and_then(|name| name.to_str()) {
        Some("corten") => Kind::Corten,
        Some("crun") => Kind::Crun,
        Some("runc") => Kind::Runc,
        _ => Kind::Other,
    }
}

/// Whether every container's cgroup is to be made by systemd (`DRIVER=systemd`).
pub fn by_systemd() -> bool {
    std::env::var_os("DRIVER").is_some_and(|driver| driver == "systemd")
}

/// True where systemd makes the cgroups, which this test, or the rest of it, makes itself; says so.
pub fn systemd_makes_them() -> bool {
    if by_systemd() {
        skip("these cgroups are not for systemd to make");
    }
    by_systemd()
}

/// True when the runtime under test is `peer`, which is known to differ from the expectation that follows; says why.
pub fn known_difference(peer: &str, why: &str) -> bool {
    let differs = match kind() {
        Kind::Crun => peer == "crun",
        Kind::Runc => peer == "runc",
        Kind::Corten | Kind::Other => false,
    };
    if differs {
        say(&format!("known difference of {peer}: {why}"));
    }
    differs
}

/// True if this cgroup2 has the controller and can give it away: where a cgroup namespace has its root, that is a cgroup like
/// any other, and one with processes of its own cannot.
pub fn gives_away(controller: &str) -> bool {
    let lists = |file: &str| {
        let text = std::fs::read_to_string(format!("/sys/fs/cgroup/{file}")).unwrap_or_default();
        text.split_whitespace().any(|word| word == controller)
    };
    let give = || std::fs::write("/sys/fs/cgroup/cgroup.subtree_control", format!("+{controller}"));
    lists("cgroup.controllers") && (lists("cgroup.subtree_control") || give().is_ok())
}

/// Says that this test, or the rest of it, is not done here, and why.
pub fn skip(why: &str) {
    say(&format!("skipped: {why}"));
}

/// True on a peer, where what follows is not there to be tested; says so.
pub fn peers_lack_it() -> bool {
    let peer = kind() != Kind::Corten;
    if peer {
        skip("only corten does this");
    }
    peer
}

/// Past the capture of `println!`, so that it is seen when the test passes; once.
fn say(text: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let line = format!("{}: {text}", std::thread::current().name().unwrap_or("test"));
    if SAID.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(line.clone()) {
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}

/// What tests run inside a container.
pub fn probe() -> &'static Path {
    static PROBE: OnceLock<PathBuf> = OnceLock::new();
    PROBE.get_or_init(|| example("probe"))
}

/// What kills the runtime or lets its system calls fail.
pub fn tracer() -> &'static Path {
    static TRACER: OnceLock<PathBuf> = OnceLock::new();
    TRACER.get_or_init(|| example("tracer"))
}

/// An `[[example]]` of this package, beside the test binary; built now if `cargo test` was told not to.
fn example(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("path of the test binary");
    let profile = this.parent().and_then(Path::parent).expect("…/deps/");
    let file = profile.join("examples").join(name);
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
    let changed = |path: &Path| std::fs::metadata(path).and_then(|file| file.modified()).ok();
    let sources = std::fs::read_dir(sources).into_iter().flatten().flatten();
    if changed(&file) < sources.filter_map(|source| changed(&source.path())).max() {
        let mut build = Command::new(env!("CARGO"));
        build.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet", "--example", name]);
        if profile.ends_with("release") {
            build.arg("--release");
        }
        let built = reaper::spawn(&mut build).ok().and_then(|pid| reaper::wait(pid, Duration::from_secs(600)));
        assert_eq!(built, Some(reaper::End::Code(0)), "cargo build --example {name}");
    }
    file
}

/// busybox, static, from the machine.
pub fn busybox() -> &'static Path {
    static BUSYBOX: OnceLock<&Path> = OnceLock::new();
    BUSYBOX.get_or_init(|| {
        let found = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|path| path.is_file());
        let found = found.expect("tests need a static busybox at /bin/busybox: apt-get install busybox-static");
        let bytes = std::fs::read(found).expect("read busybox");
        let interpreted = bytes.windows(15).any(|at| at == b"/lib64/ld-linux" || at == b"/lib/ld-linux-a");
        assert!(!interpreted, "{} is not static: apt-get install busybox-static", found.display());
        found
    })
}
