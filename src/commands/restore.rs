//! `restore`.

use std::path::PathBuf;

use clap::Args;

use crate::checkpoint::{NetworkLock, restore as criu};
use crate::cli::Global;
use crate::container::{id::Id, restore};
use crate::error::{Context, Error, Result};
use crate::plan;
use crate::plan::config::Source;

use super::checkpoint::{CgroupsMode, EmptyNamespace, Lock};
use super::create::{console, manager, open_bundle};

/// Make a container of the images of a checkpoint with CRIU
#[derive(Args, Debug)]
pub struct Restore {
    /// The bundle, with the configuration that the restored container has to fit
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// The directory with the images
    #[arg(long, value_name = "DIR", default_value = "checkpoint")]
    image_path: PathBuf,
    /// The directory for CRIU's log and other files [default: that of the images]
    #[arg(long, value_name = "DIR")]
    work_path: Option<PathBuf>,
    /// Accepted for containerd: an earlier pre-dump is found beside the images
    #[arg(long, value_name = "DIR", hide = true)]
    parent_path: Option<PathBuf>,
    /// A unix socket that gets the terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// A file that gets the pid of the first process
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Do not wait for the end
    #[arg(short, long)]
    detach: bool,
    /// Keep established TCP connections
    #[arg(long)]
    tcp_established: bool,
    /// Close TCP connections
    #[arg(long)]
    tcp_close: bool,
    /// Allow unix sockets that are connected to outside of the container
    #[arg(long)]
    ext_unix_sk: bool,
    /// Allow a session or a terminal from outside of the container
    #[arg(long)]
    shell_job: bool,
    /// Bring memory when it is used, from `criu lazy-pages`
    #[arg(long)]
    lazy_pages: bool,
    /// Take file locks again
    #[arg(long)]
    file_locks: bool,
    /// Take pages out of the images as they are restored
    #[arg(long)]
    auto_dedup: bool,
    /// Which properties of cgroups are restored
    #[arg(long, value_name = "MODE", value_enum, default_value_t = CgroupsMode::Soft)]
    manage_cgroups_mode: CgroupsMode,
    /// Leave this kind of namespace empty; may be given again
    #[arg(long, value_name = "KIND", value_enum)]
    empty_ns: Vec<EmptyNamespace>,
    /// How the network is unlocked
    #[arg(long, value_name = "HOW", value_enum)]
    network_lock: Option<Lock>,
    /// An LSM profile in place of the checkpoint's: `selinux:LABEL` or `apparmor:PROFILE`
    #[arg(long, value_name = "TYPE:NAME")]
    lsm_profile: Option<String>,
    /// An LSM context for mounts in place of the checkpoint's
    #[arg(long, value_name = "CONTEXT")]
    lsm_mount_context: Option<String>,
    /// Accepted for runc's callers
    #[arg(long, hide = true)]
    no_pivot: bool,
    /// Accepted for runc's callers
    #[arg(long, hide = true)]
    no_subreaper: bool,
    /// The container's id
    id: String,
}

impl Restore {
    pub(super) fn run(self, global: &Global) -> Result<u8> {
        let (id, detach) = (self.id.clone(), self.detach);
        let run = || -> Result<u8> {
            let request = self.request(global)?;
            let store = super::store(global)?;
            if detach {
                return restore::detached(request, &store).map(|()| 0);
            }
            restore::foreground(request, &store)
        };
        run().with_context(|| format!("restore {id}"))
    }

    fn request(self, global: &Global) -> Result<restore::Request> {
        let id = Id::new(&self.id)?;
        let bundle = open_bundle(&self.bundle)?;
        let spec = plan::config::read(&bundle.join("config.json"), Source::Bundle)?;
        let console = console(&spec, self.detach, self.console_socket)?;
        let plan = plan::compile(
            spec,
            &plan::Options {
                id: id.as_str(),
                bundle: &bundle,
                manager: manager(global),
                no_pivot: self.no_pivot,
                new_keyring: false,
                listen_fds: 0,
                preserve_fds: &[],
                notify: None,
                allowed_annotations: &global.allow_annotation,
            },
        )?;
        if let Some(profile) = self.lsm_profile.as_deref().filter(|profile| !profile.contains(':')) {
            return Err(Error::new(format!("{profile:?} is not TYPE:NAME")).field("--lsm-profile"));
        }
        Ok(restore::Request {
            id,
            bundle,
            plan,
            console,
            pid_file: self.pid_file.map(super::absolute).transpose()?,
            image_path: super::absolute(self.image_path)?,
            work_path: self.work_path.map(super::absolute).transpose()?,
            flags: criu::Flags {
                tcp_established: self.tcp_established,
                tcp_close: self.tcp_close,
                ext_unix_sk: self.ext_unix_sk,
                shell_job: self.shell_job,
                lazy_pages: self.lazy_pages,
                file_locks: self.file_locks,
                auto_dedup: self.auto_dedup,
                cgroup_mode: self.manage_cgroups_mode.into(),
                network_lock: self.network_lock.map(NetworkLock::from),
                empty_network: self.empty_ns.contains(&EmptyNamespace::Network),
                lsm_profile: self.lsm_profile,
                lsm_mount_context: self.lsm_mount_context,
            },
        })
    }
}
