//! A place of its own for each test: mount, network, host name and IPC namespaces, a tmpfs for its files, cgroup2 at
//! `/sys/fs/cgroup`, a state root, and a cgroup in which everything it starts runs and ends.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::{machine, reaper};

/// See the module's head. Dropping it ends every process in it and takes its cgroup and files away.
pub struct Sandbox {
    dir: PathBuf,
    cgroup: PathBuf,
    /// `cgroup` as the kernel names it, from the root of cgroup2.
    cgroup_name: String,
    numbers: AtomicUsize,
}

thread_local! {
    static CURRENT: RefCell<Weak<Sandbox>> = const { RefCell::new(Weak::new()) };
}

/// Where cgroup2 is seen in the sandbox.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    Pure,
    Hybrid,
}

impl Sandbox {
    /// The sandbox of this test, which is a thread; made when first asked for.
    pub fn of_this_test() -> Arc<Sandbox> {
        CURRENT.with_borrow_mut(|current| {
            current.upgrade().unwrap_or_else(|| {
                let new = Arc::new(Sandbox::make(Layout::Pure).expect("make the test's sandbox"));
                *current = Arc::downgrade(&new);
                new
            })
        })
    }

    /// The same with version 1 controllers below `/sys/fs/cgroup` and cgroup2 at `/sys/fs/cgroup/unified`. Must be
    /// asked for before the test's first bundle. None, with the reason told, where the kernel has no version 1.
    pub fn hybrid() -> Option<Arc<Sandbox>> {
        match Sandbox::make(Layout::Hybrid) {
            Ok(new) => {
                let new = Arc::new(new);
                CURRENT.with_borrow_mut(|current| *current = Arc::downgrade(&new));
                Some(new)
            }
            Err(error) => {
                machine::skip(&format!("no hybrid cgroup layout here: {error}"));
                None
            }
        }
    }

    fn make(layout: Layout) -> io::Result<Sandbox> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        assert!(nix::unistd::geteuid().is_root(), "the end-to-end tests need root");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("corten-test-{}-{number}", std::process::id());

        // Of this thread alone, and of what it starts.
        unshare(
            CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC,
        )?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        let unified = match layout {
            Layout::Pure => pure_layout()?,
            Layout::Hybrid => hybrid_layout()?,
        };
        let dir = std::env::temp_dir().join(&name);
        fs::create_dir(&dir)?;
        mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))?;
        for sub in ["bin", "out", "root"] {
            fs::create_dir(dir.join(sub))?;
        }
        fs::copy(machine::busybox(), dir.join("bin/busybox"))?;
        fs::copy(machine::probe(), dir.join("bin/probe"))?;

        let cgroup = unified.join(&name);
        fs::create_dir_all(cgroup.join("caller"))?;
        Ok(Sandbox { dir, cgroup, cgroup_name: format!("/{name}"), numbers: AtomicUsize::new(0) })
    }

    /// The test's own directory, a tmpfs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The state root, given as `--root`.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// The test's cgroup; everything it starts is below.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The same, as `linux.cgroupsPath` names it.
    pub fn cgroup_name(&self) -> &str {
        &self.cgroup_name
    }

    /// `linux.cgroupsPath` for a container, in the words of the driver under test.
    pub fn cgroups_path(&self, id: &str) -> String {
        match machine::by_systemd() {
            true => format!("{}:{}:{id}", self.slice(), self.unit_stem()),
            false => format!("{}/{id}", self.cgroup_name),
        }
    }

    /// What the names of the test's units start with. Without dashes: a slice of that name lies at the top.
    pub fn unit_stem(&self) -> String {
        self.cgroup_name[1..].replace('-', "_")
    }

    fn slice(&self) -> String {
        format!("{}.slice", self.unit_stem())
    }

    /// The cgroup in which those of the containers are.
    pub fn parent(&self) -> PathBuf {
        if machine::by_systemd() { Path::new("/sys/fs/cgroup").join(self.slice()) } else { self.cgroup.clone() }
    }

    /// A number that this test has not used yet.
    pub fn number(&self) -> usize {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }
}

/// cgroup2 at `/sys/fs/cgroup`, above whatever the machine has there.
fn pure_layout() -> io::Result<PathBuf> {
    let place = Path::new("/sys/fs/cgroup");
    if statfs(place)?.filesystem_type() != CGROUP2_SUPER_MAGIC {
        mount(Some("cgroup2"), place, Some("cgroup2"), MsFlags::empty(), None::<&str>)?;
    }
    Ok(place.into())
}

/// The machine's own hybrid layout, or one made with a named version 1 hierarchy.
fn hybrid_layout() -> io::Result<PathBuf> {
    let place = Path::new("/sys/fs/cgroup");
    let unified = place.join("unified");
    if statfs(place)?.filesystem_type() == CGROUP2_SUPER_MAGIC {
        let none = None::<&str>;
        mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), none)?;
        let named = place.join("corten-test");
        fs::create_dir(&named)?;
        fs::create_dir(&unified)?;
        mount(Some("cgroup"), &named, Some("cgroup"), MsFlags::empty(), Some("none,name=corten-test"))?;
        mount(Some("cgroup2"), &unified, Some("cgroup2"), MsFlags::empty(), none)?;
    }
    Ok(unified)
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let slice = Path::new("/sys/fs/cgroup").join(self.slice());
        if slice.exists() {
            // systemd alone would ask politely, and wait.
            let _ = fs::write(slice.join("cgroup.kill"), "1");
            // Not by the test's own means, which may be what has just panicked.
            let stop = reaper::spawn(Command::new("/usr/bin/systemctl").args(["stop", &self.slice()]));
            let _ = stop.map(|pid| reaper::wait(pid, Duration::from_secs(60)));
        }
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        for _ in 0..500 {
            let events = fs::read_to_string(self.cgroup.join("cgroup.events")).unwrap_or_default();
            if !events.contains("populated 1") {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if let Err(error) = remove_cgroup(&self.cgroup) {
            machine::skip(&format!("leaves {} behind: {error}", self.cgroup.display()));
        }
        let _ = umount2(&self.dir, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&self.dir);
    }
}

/// Children first; only directories can and need to be removed in cgroupfs.
fn remove_cgroup(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}
