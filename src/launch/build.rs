//! The container's half of `create`: builds the container around this process, or around the one that it clones.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::stat::fstat;

use crate::error::{Context, Result};
use crate::hooks::{HookContext, Hooks, Stage};
use crate::namespaces::sysctl::Sysctls;
use crate::namespaces::time::{Offsets, OwnProc};
use crate::namespaces::user::Ids;
use crate::namespaces::{self, JoinedNamespace, uts};
use crate::process::{self, Process};
use crate::rootfs::{OpenIn, Opened};
use crate::sys::procfs::Procfs;
use crate::sys::{self, ns};

use super::child::{become_non_dumpable, become_root, open_terminal, send_terminal, set_pdeathsig_of_runtime};
use super::fork::{self, joins};
use super::sync::{Message, SyncSocket};

/// A container to build.
pub struct Build {
    /// The namespaces of the process that it is built around.
    pub namespaces: PendingNamespaces,
    /// Clocks of a new time namespace.
    pub offsets: Option<Offsets>,
    /// Whether the host moves network devices.
    pub net_devices: bool,
    /// Whether systemd makes the cgroup, around this process; and the flag of a cgroup namespace when there is to be one that
    /// starts there.
    pub unit: Option<ns::Flags>,
    /// Namespaces that root of the user namespace unshares.
    pub root_made_namespaces: ns::Flags,
    /// The root filesystem.
    pub rootfs: Opened,
    /// Which process opens the sources of mounts: this one where the runtime has no power over the host's mounts.
    pub mount_sources: OpenIn,
    /// Whether hooks of the host wait for the mounts.
    pub host_hooks: bool,
    /// Hooks in the container's namespaces, before pivot_root.
    pub create_container: Hooks,
    /// Kernel parameters.
    pub sysctls: Sysctls,
    /// Empty for none.
    pub host_name: String,
    /// Empty for none.
    pub domain_name: String,
}

/// The namespaces that a process joins or unshares after the clone.
pub struct PendingNamespaces {
    /// Those to join. With a pid namespace among them this is an intermediate process: it stays outside of that namespace
    /// and unshares all new ones itself.
    pub entries: Vec<JoinedNamespace>,
    /// The new ones.
    pub new: ns::Flags,
    /// Whether a user namespace is joined: then the clocks are set before the change to its root.
    pub joins_user: bool,
    /// The ids to take in a user namespace without a mapped root.
    pub instead: Ids,
}

impl PendingNamespaces {
    /// Whether the process is outside of the pid namespace that is joined.
    pub fn is_outside(&self) -> bool {
        joins(&self.entries, ns::Flags::PID)
    }

    /// Whether the user namespace is new.
    pub fn has_new_user(&self) -> bool {
        self.new.contains(ns::Flags::USER)
    }

    /// Joins and unshares them, with `offsets` for the clocks of a new time namespace. The id maps of a new user namespace
    /// are not written yet.
    pub fn enter(&self, offsets: Option<&Offsets>) -> Result<()> {
        let outside = self.is_outside();
        let late = offsets.filter(|_| !self.joins_user);
        // Before a mount namespace is joined, where /proc may be anything.
        let own = late.map(|_| OwnProc::open()).transpose()?;
        if joins_pid_first(&self.entries, self.new)? {
            self.set_pid_namespace_of_children()?;
        }
        let exposed = !self.entries.is_empty() && !self.has_new_user();
        if exposed && !outside {
            // Processes of a joined namespace must not trace this one, which still holds descriptors of the host
            // (CVE-2016-9962). A process of root is non-dumpable from the start. With id maps to be written it has to
            // stay dumpable: the host writes them to its /proc files.
            become_non_dumpable()?;
        }
        fork::enter(&self.entries, offsets.filter(|_| self.joins_user), self.instead)?;
        if joins(&self.entries, ns::Flags::USER) {
            // The kernel cleared it with the change of ids (PR_SET_PDEATHSIG(2const)).
            set_pdeathsig_of_runtime()?;
        }
        if outside && !self.new.is_empty() {
            sys::clone::unshare(self.new).context("unshare namespaces")?;
        }
        // Before the ids change: then our files in /proc belong to the host's root, and we may not write our own offsets.
        late.zip(own).map_or(Ok(()), |(offsets, own)| offsets.enter(&own))?;
        // Late: no joined namespace shows the intermediate process so far, and it had to write its clock offsets.
        if exposed && outside { become_non_dumpable() } else { Ok(()) }
    }

    /// Makes the pid namespace that is joined that of future children, setns(2).
    pub fn set_pid_namespace_of_children(&self) -> Result<()> {
        namespaces::set_pid_namespace_of_children(&self.entries)
    }
}

impl Build {
    /// Builds the container around this process, in the order of the standard; a private procfs where one is needed.
    pub(super) fn enter(
        mut self,
        process: &mut Process,
        console: Option<OwnedFd>,
        state: &dyn Fn(&'static str, i32) -> Vec<u8>,
        sync: &SyncSocket,
    ) -> Result<Option<Procfs>> {
        let wanted = !self.sysctls.is_empty() || process.needs_proc();
        // A procfs shows the pid namespace of its maker, who needs CAP_SYS_ADMIN in the user namespace that owns it.
        let outside = self.namespaces.is_outside();
        if outside {
            // Before the change of ids: afterwards this process does not own its /proc files.
            process.apply_from_parent(nix::unistd::getpid()).phase("process")?;
        }
        let joined_pid_first = joins_pid_first(&self.namespaces.entries, self.namespaces.new).phase("namespaces")?;
        let early = if wanted && outside { Procfs::open().ok() } else { None };
        self.enter_namespaces(sync).phase("namespaces")?;
        ::log::trace!("namespaces entered");
        // While the host's /proc is still mounted: otherwise the kernel refuses a procfs to a user namespace.
        let procfs = match early {
            None if wanted => Some(Procfs::open().context("mount a private procfs").phase("namespaces")?),
            early => early,
        };
        process.start_session(procfs.as_ref().map(Procfs::dir)).phase("process")?;
        self.rootfs.set_propagation().phase("mounts")?;
        ::log::trace!("mount propagation set");
        let unit = self.unit.take();
        self.rootfs.mount(unit.map(|namespace| move || enter_unit(sync, namespace))).phase("mounts")?;
        ::log::trace!("mounts and devices created");
        self.run_early_hooks(state, sync)?;
        if !joined_pid_first {
            // Late: only the last clone is to be born there.
            self.namespaces.set_pid_namespace_of_children().phase("namespaces")?;
        }
        self.rootfs.pivot().phase("mounts")?;
        ::log::trace!("root pivoted");
        // The container must not keep the host's /dev/null, nor the mount that it lies on.
        process::reopen_dev_null(|| self.rootfs.null());
        // Before the root can become read-only.
        let what = || format!("make the working directory {}", process.cwd().display());
        self.rootfs.make_dir(process.cwd()).with_context(what).field(|| "/process/cwd").phase("mounts")?;
        // After the pivot, so that it is the container's devpts; before /dev becomes read-only.
        if let Some(socket) = console {
            let pty = open_terminal(process).phase("terminal")?;
            self.rootfs.console(pty.replica()).phase("terminal")?;
            send_terminal(pty, socket)?;
            ::log::trace!("terminal sent");
        }
        if let Some(procfs) = &procfs {
            self.sysctls.write(procfs).phase("sysctl")?;
        }
        uts::set_host_name(&self.host_name)?;
        uts::set_domain_name(&self.domain_name)?;
        ::log::trace!("kernel parameters and names set");
        self.rootfs.finalize().phase("mounts")?;
        ::log::trace!("paths masked and made read-only");
        Ok(procfs)
    }

    fn enter_namespaces(&mut self, sync: &SyncSocket) -> Result<()> {
        let namespaces = &self.namespaces;
        namespaces.enter(self.offsets.as_ref())?;
        if namespaces.is_outside() {
            sync.send(&Message::Entered)?;
        }
        if namespaces.has_new_user() {
            // The host writes the id maps first; without one there is nothing to wait for.
            sync.wait_for_go()?;
        }
        if self.mount_sources == OpenIn::Child {
            self.rootfs.open_in_child().phase("mounts")?;
        }
        if namespaces.has_new_user() {
            become_root(namespaces.instead, self.root_made_namespaces)?;
        }
        if self.net_devices {
            // Before the sysctls, which may be those of the devices.
            sync.wait_for_go()?;
        }
        if namespaces.new.contains(ns::Flags::NETWORK) {
            sys::ns::loopback_up().context("bring the loopback device up")?;
        }
        let pid = namespaces.entries.iter().find(|entry| entry.kind.flag == ns::Flags::PID);
        self.rootfs.show_processes_of(pid.map(|entry| entry.fd.as_fd()))
    }

    /// After the mounts and before pivot_root (runtime-spec, "Lifecycle").
    fn run_early_hooks(&self, state: &dyn Fn(&'static str, i32) -> Vec<u8>, sync: &SyncSocket) -> Result<()> {
        if self.host_hooks {
            sync.send(&Message::Hooks)?;
            sync.wait_for_go()?;
        }
        if self.create_container.is_empty() {
            return Ok(());
        }
        // The runtime may have died before this process set its parent death signal.
        sync.ensure_host_alive()?;
        nix::unistd::fchdir(self.rootfs.dir()).context("enter the root filesystem")?;
        let state = state("creating", nix::unistd::getpid().as_raw());
        let hook_context = HookContext { state: &state, ..HookContext::default() };
        self.create_container.run(Stage::CreateContainer, &hook_context).phase("createContainer")?;
        ::log::trace!("createContainer hooks run");
        Ok(())
    }
}

/// Whether a pid namespace has to be joined before the user namespace: it belongs to another one, over which this process
/// has no capability after the join. Every child from then on is born in it.
pub fn joins_pid_first(entries: &[JoinedNamespace], new: ns::Flags) -> Result<bool> {
    let find = |kind| entries.iter().find(|entry| entry.kind.flag == kind).map(|entry| entry.fd.as_fd());
    let Some(pid) = find(ns::Flags::PID) else { return Ok(false) };
    let Some(user) = find(ns::Flags::USER) else { return Ok(new.contains(ns::Flags::USER)) };
    // EPERM: an ancestor of our own user namespace.
    let Ok(owner) = sys::ns::owner(pid) else { return Ok(true) };
    let identity =
        |fd: BorrowedFd<'_>| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).context("stat a user namespace");
    Ok(identity(owner.as_fd())? != identity(user)?)
}

/// Waits until systemd has put this process into its cgroup.
fn enter_unit(sync: &SyncSocket, namespace: ns::Flags) -> Result<()> {
    sync.wait_for_go()?;
    if !namespace.is_empty() {
        sys::clone::unshare(namespace).context("unshare the cgroup namespace").phase("namespaces")?;
    }
    Ok(())
}
