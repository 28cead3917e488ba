//! Mounts of a container that runs: more of them, or fewer.
//!
//! The rules are those of a container in the making: a destination is found or made below the container's root by
//! descriptor, and trees go from descriptor to descriptor, since what runs in the container may rename, link and mount
//! between two calls. More than there, all of it is done or nothing: a failure takes off again what was put on.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::fchdir;
use oci_spec::runtime::Mount as Entry;

use super::idmap::{ContainerUserns, Maps, UserNamespaces};
use super::mount::{Mount, MountContext, PlanContext};
use super::path::{Root, RootRelPath};
use super::procfs::Shown;
use super::request::{Isolation, Namespaces, OpenIn, mount_namespace};
use crate::error::{Context, Error, Result, ensure};
use crate::sys::Errno;
use crate::sys::mount::{Attr, Change, Propagation, change, where_mounted};

/// Mounts to add, compiled.
pub struct Additions(Vec<Mount>);

/// Mounts to take off, with what a message calls them.
pub struct Removals(Vec<(usize, RootRelPath)>);

/// What of the host a process that joins the container's mount namespace takes there: opened before it goes.
pub struct HostHandles {
    /// `/proc/self/fd`: the way to unmount by descriptor, whatever the container has at `/proc`.
    descriptors: OwnedFd,
    /// The mount namespace that it must have left.
    namespace: Option<(u64, u64)>,
}

impl Additions {
    /// Compiles a list of mounts for a container that exists. Touches nothing. Relative sources start at the
    /// bundle; `namespaces.mount` has to be [`Isolation::Joined`].
    ///
    /// # Errors
    /// Those of `mounts[]` in a configuration, and what has no undo or is not the container's alone.
    pub fn plan(entries: &[Entry], bundle: &Path, namespaces: Namespaces) -> Result<Additions> {
        debug_assert_eq!(namespaces.mount, Isolation::Joined);
        let context = PlanContext {
            bundle,
            namespaces,
            container_maps: &Maps::default(),
            root_propagation: Propagation::Slave,
            label: None,
        };
        let plan = |(index, entry)| {
            let field = |name: &str| format!("/mounts/{index}/{name}");
            if RootRelPath::new(Entry::destination(entry)).is_ok_and(|target| target.is_root()) {
                return Err(Error::new("nothing can be mounted on the root of a container that runs")
                    .field(field("destination")));
            }
            let mount = Mount::plan(index, entry, &context)?;
            match mount.what_only_a_new_container_has(namespaces.has_cgroup()) {
                Some((name, why)) => Err(Error::new(why).field(field(name))),
                None => Ok(mount),
            }
        };
        entries.iter().enumerate().map(plan).collect::<Result<_>>().map(Additions)
    }

    /// On the host: takes the sources of binds, and makes what only the host can. `user_namespace` is the container's, if it
    /// has one and it can be reached.
    pub fn open(&self, user_namespace: Option<BorrowedFd<'_>>) -> Result<Vec<Option<OwnedFd>>> {
        let mut user_namespaces =
            UserNamespaces::new(user_namespace.map_or(ContainerUserns::NotYet, ContainerUserns::Joined));
        let mut open = |mount: &Mount| match (mount.opened_in() == OpenIn::Host)
            .then(|| mount.open(&mut user_namespaces))
            .transpose()?
        {
            Some((_, true)) => {
                Err(Error::new("the container's user namespace is out of reach, and it is to map the owners")
                    .field(mount.pointer()))
            }
            opened => Ok(opened.map(|(tree, _)| tree)),
        };
        self.0.iter().map(&mut open).collect()
    }

    /// Whether there is a procfs among them, which shows the container's pid namespace.
    pub fn has_procfs(&self) -> bool {
        self.0.iter().any(Mount::shows_processes)
    }

    /// In a process of the container's namespaces but that of pids: makes each procfs, attached nowhere. `shown` is that
    /// namespace, where the container has one.
    pub fn make_procfs(&self, shown: Option<&Shown>) -> Result<Vec<OwnedFd>> {
        let mut user_namespaces = UserNamespaces::new(ContainerUserns::NotYet);
        let all = self.0.iter().filter(|mount| mount.shows_processes());
        all.map(|mount| mount.open_showing(&mut user_namespaces, shown).map(|(tree, _)| tree)).collect()
    }

    /// Puts what [`Additions::make_procfs`] made at its places among the others.
    pub fn take_procfs(&self, trees: &mut [Option<OwnedFd>], made: Vec<OwnedFd>) {
        let places = self.0.iter().zip(trees).filter(|(mount, _)| mount.shows_processes());
        places.zip(made).for_each(|((_, place), tree)| *place = Some(tree));
    }

    /// In a process of the container's namespaces, with umask 0: puts all in place, or nothing. Mount points that were
    /// made stay.
    pub fn attach(&self, trees: Vec<Option<OwnedFd>>, handles: &HostHandles) -> Result<()> {
        let root = handles.left()?;
        // Whatever lies below a shared mount is shared by being attached there.
        let context = MountContext { cgroup: None, shared: true, shown: None };
        let mut attached: Vec<OwnedFd> = Vec::with_capacity(self.0.len());
        let all = self.0.iter().zip(trees).try_for_each(|(mount, tree)| {
            let Some(tree) = mount.attach(&root, tree, &context)? else { return Ok(()) };
            // Before anything else can fail: from here on it has to be taken off again.
            attached.push(tree);
            let Some(tree) = attached.last() else { return Ok(()) };
            mount.set_propagation_again(tree, &context)?;
            if mount.is_read_only_last() {
                let made = change(tree, false, Change::set(Attr::RDONLY)).context("make a tmpfs read-only");
                made.field(|| mount.pointer())?;
            }
            Ok(())
        });
        if all.is_err() {
            attached.iter().rev().for_each(|tree| handles.take_off(tree));
        }
        all
    }
}

impl Removals {
    /// Compiles the destinations of a list of mounts; nothing else of it counts.
    pub fn plan(entries: &[Entry]) -> Result<Removals> {
        let mut list: Vec<(usize, RootRelPath)> = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let field = || pointer(index);
            let target = RootRelPath::new(entry.destination()).field(field)?;
            if target.is_root() {
                return Err(Error::new("the root of a container cannot be taken off").field(field()));
            }
            if list.iter().any(|(_, other)| *other == target) {
                return Err(Error::new(format!("{target} is there twice")).field(field()));
            }
            list.push((index, target));
        }
        Ok(Removals(list))
    }

    /// In a process of the container's namespaces: takes them off, the last one first, with what is mounted below them. All
    /// are looked up before the first goes, so that a name that is wrong changes nothing.
    pub fn apply(&self, handles: &HostHandles) -> Result<()> {
        let root = handles.left()?;
        let find = |(index, target): &(usize, RootRelPath)| {
            let find = || {
                let place = root.find(target)?;
                match where_mounted(&place.fd)? {
                    Some(mount) => Ok((place.fd, mount)),
                    None => Err(Error::from(Errno::EINVAL).context("nothing is mounted there")),
                }
            };
            find().with_context(|| format!("unmount {target}")).field(|| pointer(*index))
        };
        let found = self.0.iter().map(find).collect::<Result<Vec<_>>>()?;
        for ((index, target), (place, mount)) in self.0.iter().zip(found).rev() {
            match handles.unmount(&place) {
                // It went with another one, below which it was.
                Err(Errno::EINVAL) if !still_there(&root, target, mount) => Ok(()),
                done => done,
            }
            .with_context(|| format!("unmount {target}"))
            .field(|| pointer(*index))?;
        }
        Ok(())
    }
}

fn pointer(index: usize) -> String {
    format!("/mounts/{index}/destination")
}

fn still_there(root: &Root, target: &RootRelPath, mount: u64) -> bool {
    root.find(target).and_then(|place| where_mounted(&place.fd)).is_ok_and(|there| there == Some(mount))
}

impl HostHandles {
    /// On the host, in the process that is to join the container.
    pub fn open() -> Result<HostHandles> {
        let open = || -> Result<OwnedFd> {
            let directory =
                open("/proc/self/fd", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
            ensure!(fstatfs(&directory)?.filesystem_type() == PROC_SUPER_MAGIC, "it is no procfs");
            Ok(directory)
        };
        let namespace = mount_namespace();
        Ok(HostHandles { descriptors: open().context("open /proc/self/fd")?, namespace })
    }

    /// The container's root, once its mount namespace is joined: there, `/` is what it was pivoted to. The root directory
    /// of its first process may be another one, of that process's choice.
    fn left(&self) -> Result<Root> {
        let root = open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
        let root = root.context("open the container's root")?;
        // Asked of the host's procfs, which still knows this process.
        let path = c"../ns/mnt";
        let stat = nix::sys::stat::fstatat(&self.descriptors, path, nix::fcntl::AtFlags::empty());
        let stat = stat.context("look at the container's mount namespace")?;
        ensure!(
            self.namespace != Some((stat.st_dev, stat.st_ino)),
            "the container's mount namespace is the runtime's own"
        );
        Ok(Root::new(root))
    }

    /// Unmounts by descriptor: the directory that was opened on the host leads to any file of this process without a name
    /// of the container's.
    fn unmount(&self, place: &OwnedFd) -> crate::sys::Result<()> {
        fchdir(&self.descriptors)?;
        umount2(place.as_fd().as_raw_fd().to_string().as_str(), MntFlags::MNT_DETACH)
    }

    /// Takes a mount off that was just put on, and what the container may have put above it meanwhile.
    fn take_off(&self, tree: &OwnedFd) {
        /// The kernel takes what lies on top first; EINVAL: the tree itself is off.
        const TRIES: usize = 1000;
        for _ in 0..TRIES {
            match self.unmount(tree) {
                Ok(()) => {}
                Err(Errno::EINVAL) => return,
                Err(errno) => return log::error!("a mount stays although another one failed: {}", errno.desc()),
            }
        }
    }
}
