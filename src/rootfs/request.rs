//! What the plan is made from.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

/// How the container process comes to a namespace of one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// It stays in the caller's. What is mounted then lies below a mount of its own ([`Guest`](super::Guest)).
    None,
    /// A new one is made.
    New,
    /// It joins one that exists.
    Joined,
}

/// The namespaces that decide what can be mounted, and how.
#[derive(Debug, Clone, Copy)]
pub struct Namespaces {
    /// Where the mounts are made.
    pub mount: Isolation,
    /// Whose root has power over them.
    pub user: Isolation,
    /// Which part of the hierarchy a cgroup2 shows.
    pub cgroup: Isolation,
    /// The network namespace is a new one, made together with the user namespace or owned by it: its sysfs may be mounted.
    pub owns_network: bool,
}

impl Namespaces {
    /// Whether the container is in a user namespace, a new one or one that is joined.
    pub(super) fn has_user(&self) -> bool {
        self.user != Isolation::None
    }

    /// Whether it is in a cgroup namespace that is not the host's.
    pub(super) fn has_cgroup(&self) -> bool {
        self.cgroup != Isolation::None
    }
}

/// What the plan is made from.
pub struct Request<'a> {
    /// The configuration; `root`, `mounts` and parts of `linux` are read.
    pub spec: &'a Spec,
    /// The bundle, absolute: relative paths of the configuration start there.
    pub bundle: &'a Path,
    /// The container's id.
    pub id: &'a str,
    /// How the container comes to its namespaces.
    pub namespaces: Namespaces,
    /// `--no-pivot`.
    pub no_pivot: bool,
    /// The kernel has SELinux enabled.
    pub selinux: bool,
}

/// Which process opens what the host has: sources of binds, layers of overlays, device nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenIn {
    /// The runtime, in the host's mount namespace, before the fork.
    Host,
    /// The container process, in its own mount namespace.
    Child,
}

/// Where the host has its cgroup2.
#[derive(Debug, Clone)]
pub struct CgroupPaths {
    /// Where it is mounted, `/sys/fs/cgroup` or on a hybrid host `/sys/fs/cgroup/unified`.
    pub mount: PathBuf,
    /// The container's own directory below it.
    pub cgroup: PathBuf,
}

/// Which mount namespace this process is in; none where no procfs tells.
pub(super) fn mount_namespace() -> Option<(u64, u64)> {
    let stat = nix::sys::stat::stat("/proc/self/ns/mnt").ok()?;
    Some((stat.st_dev, stat.st_ino))
}
