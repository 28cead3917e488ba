//! `checkpoint`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::checkpoint::{CgroupMode, NetworkLock, dump};
use crate::cli::Global;
use crate::container::checkpoint;
use crate::error::{Context, Result};

/// Write a running container into images with CRIU, and end it
#[derive(Args, Debug)]
pub struct Checkpoint {
    /// The directory for the images
    #[arg(long, value_name = "DIR", default_value = "checkpoint")]
    image_path: PathBuf,
    /// The directory for CRIU's log and other files [default: below the container's state directory]
    #[arg(long, value_name = "DIR")]
    work_path: Option<PathBuf>,
    /// Images of an earlier pre-dump, relative to the images directory
    #[arg(long, value_name = "DIR")]
    parent_path: Option<PathBuf>,
    /// Leave the container running
    #[arg(long)]
    leave_running: bool,
    /// Allow established TCP connections, and keep them
    #[arg(long)]
    tcp_established: bool,
    /// Leave out TCP connections that are being established
    #[arg(long)]
    tcp_skip_in_flight: bool,
    /// Allow open files that were deleted but have another name
    #[arg(long)]
    link_remap: bool,
    /// Allow unix sockets that are connected to outside of the container
    #[arg(long)]
    ext_unix_sk: bool,
    /// Allow a session or a terminal from outside of the container
    #[arg(long)]
    shell_job: bool,
    /// Leave the memory to be fetched with userfaultfd by whoever restores
    #[arg(long)]
    lazy_pages: bool,
    /// A descriptor that gets a NUL when lazy pages are served
    #[arg(long, value_name = "FD", allow_negative_numbers = true, default_value_t = -1)]
    status_fd: i32,
    /// A page server that gets the memory
    #[arg(long, value_name = "ADDRESS:PORT")]
    page_server: Option<String>,
    /// Allow file locks, and keep them
    #[arg(long)]
    file_locks: bool,
    /// Write the memory alone, for a checkpoint with --parent-path, and leave the container running
    #[arg(long)]
    pre_dump: bool,
    /// Which properties of cgroups are kept
    #[arg(long, value_name = "MODE", value_enum, default_value_t = CgroupsMode::Soft)]
    manage_cgroups_mode: CgroupsMode,
    /// Leave out what this kind of namespace holds; may be given again
    #[arg(long, value_name = "KIND", value_enum)]
    empty_ns: Vec<EmptyNamespace>,
    /// Take pages that are written again out of the parent's images
    #[arg(long)]
    auto_dedup: bool,
    /// How the network is locked meanwhile
    #[arg(long, value_name = "HOW", value_enum)]
    network_lock: Option<Lock>,
    /// The container's id
    id: String,
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
        let id = self.id.clone();
        let checkpoint = || -> Result<()> {
            let container = super::store(global)?.open(&self.id)?;
            checkpoint::checkpoint(container, &self.request()?)
        };
        checkpoint().with_context(|| format!("checkpoint {id}"))?;
        Ok(0)
    }

    fn request(self) -> Result<checkpoint::Request> {
        Ok(checkpoint::Request {
            image_path: super::absolute(self.image_path)?,
            work_path: self.work_path.map(super::absolute).transpose()?,
            status_fd: u32::try_from(self.status_fd).ok(),
            flags: dump::Flags {
                parent_path: self.parent_path,
                leave_running: self.leave_running,
                pre_dump: self.pre_dump,
                tcp_established: self.tcp_established,
                tcp_skip_in_flight: self.tcp_skip_in_flight,
                link_remap: self.link_remap,
                ext_unix_sk: self.ext_unix_sk,
                shell_job: self.shell_job,
                lazy_pages: self.lazy_pages,
                file_locks: self.file_locks,
                auto_dedup: self.auto_dedup,
                page_server: self.page_server.as_deref().map(dump::page_server).transpose()?,
                cgroup_mode: self.manage_cgroups_mode.into(),
                network_lock: self.network_lock.map(NetworkLock::from),
                empty_network: self.empty_ns.contains(&EmptyNamespace::Network),
            },
        })
    }
}
