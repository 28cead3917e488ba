//! `mounts add` and `mounts remove`: change the mounts of a running container, all or nothing.
//!
//! They are not recorded, as in crun: the mounts end with the container's mount namespace.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::stat::fstat;
use oci_spec::runtime::{self as spec, Mount};

use super::{Container, Status};
use crate::error::{Context, Error, Result, bail};
use crate::host;
use crate::launch::ns_helper;
use crate::namespaces::user::Ids;
use crate::rootfs::{Additions, HostHandles, Isolation, Namespaces, Removals, Shown};
use crate::selfexe::Protected;
use crate::sys::{self, Errno, ns};

/// Mounts all of the list in the container, or nothing. Relative sources start at the bundle.
pub fn add(container: &Container, list: &[Mount], _: Protected) -> Result<()> {
    let place = ContainerNamespaces::of(container)?;
    let isolation = |flag| if place.kinds.contains(flag) { Isolation::Joined } else { Isolation::None };
    let namespaces = Namespaces {
        mount: isolation(ns::Flags::MOUNT),
        user: isolation(ns::Flags::USER),
        cgroup: isolation(ns::Flags::CGROUP),
        owns_network: place.owns_network,
    };
    let additions = Additions::plan(list, &container.record.bundle, namespaces)?;
    let opened = additions.open(place.user.as_ref().map(AsFd::as_fd)).map_err(|error| match error.errno() {
        Some(Errno::EPERM) if host::is_unprivileged() => {
            error.hint("a user who may not mount on the host (CAP_SYS_ADMIN) can add new file systems only")
        }
        _ => error,
    });
    let mut trees = opened.phase("mounts")?;
    if additions.has_procfs() {
        if place.kinds.contains(ns::Flags::PID) && place.processes.is_none() {
            return Err(Error::new("a procfs needs the container's pid namespace, which cannot be opened"));
        }
        let show = || place.processes.as_ref().map(|namespace| Shown::new(namespace.as_fd())).transpose();
        let made = place.inside(show, |shown| additions.make_procfs(shown.as_ref())).phase("mounts")?;
        additions.take_procfs(&mut trees, made);
    }
    let attach = |handles: HostHandles| additions.attach(trees, &handles);
    place.act(attach).phase("mounts")
}

/// Unmounts what is mounted at the destinations of the list.
pub fn remove(container: &Container, list: &[Mount], _: Protected) -> Result<()> {
    let place = ContainerNamespaces::of(container)?;
    let removals = Removals::plan(list)?;
    place.act(|handles| removals.apply(&handles)).phase("mounts")
}

/// The namespaces of a running container.
struct ContainerNamespaces {
    init: OwnedFd,
    /// Those that are not the host's.
    kinds: ns::Flags,
    /// The user namespace, if the container has one and it may be opened: without privilege only once the program runs.
    user: Option<OwnedFd>,
    /// Its pid namespace, if that is not the host's.
    processes: Option<OwnedFd>,
    /// Whether the network namespace belongs to the user namespace.
    owns_network: bool,
    /// The ids to take if its user namespace maps no root.
    instead: Ids,
}

impl ContainerNamespaces {
    fn of(container: &Container) -> Result<ContainerNamespaces> {
        match container.status()? {
            Status::Created | Status::Running | Status::Paused => {}
            Status::Stopped | Status::Creating => bail!("container not running"),
        }
        let (pid, init) = container.init()?;
        let kinds = container.record.kinds();
        if !kinds.contains(ns::Flags::MOUNT) {
            return Err(Error::new("the container has no mount namespace of its own, its mounts are the host's"));
        }
        let open = |name: &str| {
            let path = format!("/proc/{pid}/ns/{name}");
            match File::open(&path) {
                Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(None),
                opened => opened.map(|file| Some(OwnedFd::from(file))).with_context(|| format!("open {path}")),
            }
        };
        let (user, network) =
            if kinds.contains(ns::Flags::USER) { (open("user")?, open("net")?) } else { (None, None) };
        let processes = if kinds.contains(ns::Flags::PID) { open("pid")? } else { None };
        // It lives after the open, so the pid was not reused.
        if sys::pid::signal(init.as_fd(), 0).is_err() {
            bail!("container not running");
        }
        let owns_network = user.as_ref().zip(network).is_some_and(|(user, network)| owns(user, &network));
        let user_of = |process: &spec::Process| (process.user().uid(), process.user().gid());
        let instead = container.record.process.as_ref().map_or((0, 0), user_of);
        Ok(ContainerNamespaces { init, kinds, user, processes, owns_network, instead })
    }

    fn init(&self) -> BorrowedFd<'_> {
        self.init.as_fd()
    }

    /// Runs `work` in a helper process in all namespaces of the container but the pid namespace, so that the container does
    /// not see it. Before it joins them, the helper `pack`s what it needs of the host.
    fn inside<T>(
        &self,
        pack: impl FnOnce() -> Result<T>,
        work: impl FnOnce(T) -> Result<Vec<OwnedFd>>,
    ) -> Result<Vec<OwnedFd>> {
        ns_helper::run(self.init(), self.kinds & !ns::Flags::PID, self.instead, pack, work)
    }

    /// Does something that gives nothing back.
    fn act(&self, work: impl FnOnce(HostHandles) -> Result<()>) -> Result<()> {
        // /proc/self/fd has to be that of the helper, and of the host's procfs: opened there, before the join.
        self.inside(HostHandles::open, |handles| work(handles).map(|()| Vec::new())).map(drop)
    }
}

fn owns(user: &OwnedFd, network: &OwnedFd) -> bool {
    let identity = |fd: &OwnedFd| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).ok();
    sys::ns::owner(network.as_fd()).is_ok_and(|owner| identity(&owner) == identity(user))
}
