//! `checkpoint`.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::argv::{arguments, choice, group, operand, option};
use crate::checkpoint::{CgroupMode, NetworkLock, dump};
use crate::cli::Global;
use crate::container::checkpoint;
use crate::error::{Context, Result};

arguments! {
    /// Write a running container to images with CRIU
    pub struct Checkpoint {
        /// What it shares with `restore`.
        images: ImageOptions = group(),
        /// Directory for the log and other files of CRIU [default: below the container's state directory]
        work_path: Option<PathBuf> = option().value("DIR"),
        /// Directory of the images of an earlier pre-dump, relative to that of the images
        parent_path: Option<PathBuf> = option().value("DIR"),
        /// Leave the container running
        leave_running: bool = option(),
        /// Skip TCP connections that are being established
        tcp_skip_in_flight: bool = option(),
        /// Allow open files that were deleted but have another hard link
        link_remap: bool = option(),
        /// File descriptor to write a null byte to once lazy pages are served
        status_fd: i32 = option().value("FD").negative_numbers().default("-1"),
        /// Page server to send the memory to
        page_server: Option<String> = option().value("ADDRESS:PORT"),
        /// Write only the memory, for a later checkpoint with --parent-path; leave the container running
        pre_dump: bool = option(),
    }
}

arguments! {
    /// What `checkpoint` and `restore` share.
    pub(super) struct ImageOptions {
        /// Directory of the images
        pub(super) image_path: PathBuf = option().value("DIR").default("checkpoint"),
        /// Keep established TCP connections
        pub(super) tcp_established: bool = option(),
        /// Allow unix sockets that are connected to outside of the container
        pub(super) ext_unix_sk: bool = option(),
        /// Allow a session or a terminal from outside of the container
        pub(super) shell_job: bool = option(),
        /// Transfer memory on demand, by userfaultfd(2) and criu lazy-pages
        pub(super) lazy_pages: bool = option(),
        /// Keep file locks
        pub(super) file_locks: bool = option(),
        /// Remove memory from the images once it is not needed there
        pub(super) auto_dedup: bool = option(),
        /// Cgroups whose properties are kept
        pub(super) manage_cgroups_mode: CgroupsMode = option().value("MODE").default("soft"),
        /// Leave out what namespaces of this kind hold; can be repeated
        pub(super) empty_ns: Vec<EmptyNamespace> = option().value("KIND"),
        /// Method to lock the network
        pub(super) network_lock: Option<Lock> = option().value("METHOD"),
        /// ID of the container
        pub(super) id: String = operand(),
    }
}

/// `--manage-cgroups-mode`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum CgroupsMode {
    /// Those of cgroups that a restore has to make
    Soft,
    /// Those of all cgroups
    Full,
    /// Those of all, none of which may be there at a restore
    Strict,
    /// None
    Ignore,
}

choice!(CgroupsMode);

impl From<CgroupsMode> for CgroupMode {
    fn from(mode: CgroupsMode) -> CgroupMode {
        match mode {
            CgroupsMode::Soft => CgroupMode::Soft,
            CgroupsMode::Full => CgroupMode::Full,
            CgroupsMode::Strict => CgroupMode::Strict,
            CgroupsMode::Ignore => CgroupMode::Ignore,
        }
    }
}

/// `--empty-ns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum EmptyNamespace {
    /// Devices, addresses, routes and rules
    Network,
}

choice!(EmptyNamespace);

/// `--network-lock`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Lock {
    /// By iptables-restore(8)
    Iptables,
    /// By CRIU itself
    Nftables,
    /// Not at all
    Skip,
}

choice!(Lock);

impl From<Lock> for NetworkLock {
    fn from(lock: Lock) -> NetworkLock {
        match lock {
            Lock::Iptables => NetworkLock::Iptables,
            Lock::Nftables => NetworkLock::Nftables,
            Lock::Skip => NetworkLock::Skip,
        }
    }
}

impl Checkpoint {
    pub(super) fn run(self, global: &Global) -> Result<u8> {
        let id = self.images.id.clone();
        let checkpoint = || -> Result<()> {
            let container = super::store(global)?.open(&self.images.id)?;
            checkpoint::checkpoint(container, &self.request()?)
        };
        checkpoint().with_context(|| format!("checkpoint {id}"))?;
        Ok(0)
    }

    fn request(self) -> Result<checkpoint::CheckpointRequest> {
        Ok(checkpoint::CheckpointRequest {
            image_path: super::absolute(self.images.image_path)?,
            work_path: self.work_path.map(super::absolute).transpose()?,
            status_fd: u32::try_from(self.status_fd).ok(),
            flags: dump::Flags {
                parent_path: self.parent_path,
                leave_running: self.leave_running,
                pre_dump: self.pre_dump,
                tcp_established: self.images.tcp_established,
                tcp_skip_in_flight: self.tcp_skip_in_flight,
                link_remap: self.link_remap,
                ext_unix_sk: self.images.ext_unix_sk,
                shell_job: self.images.shell_job,
                lazy_pages: self.images.lazy_pages,
                file_locks: self.images.file_locks,
                auto_dedup: self.images.auto_dedup,
                page_server: self.page_server.as_deref().map(dump::page_server).transpose()?,
                cgroup_mode: self.images.manage_cgroups_mode.into(),
                network_lock: self.images.network_lock.map(NetworkLock::from),
                empty_network: self.images.empty_ns.contains(&EmptyNamespace::Network),
            },
        })
    }
}
