//! `restore`.

use std::path::PathBuf;

use crate::argv::{arguments, group, option};
use crate::checkpoint::{NetworkLock, restore as criu};
use crate::cli::Global;
use crate::container::{id::Id, restore};
use crate::error::{Context, Error, Result};
use crate::plan;
use crate::plan::config::ConfigSource;

use super::checkpoint::{EmptyNamespace, ImageOptions};
use super::create::{console, manager, open_bundle};

arguments! {
    /// Restore a container from the images of a checkpoint
    pub struct Restore {
        /// Bundle of the container
        bundle: PathBuf = option().short('b').value("DIR").default("."),
        /// What it shares with `checkpoint`.
        images: ImageOptions = group(),
        /// Directory for the log and other files of CRIU [default: that of the images]
        work_path: Option<PathBuf> = option().value("DIR"),
        /// Accepted for containerd: an earlier pre-dump is found beside the images
        parent_path: Option<PathBuf> = option().value("DIR").hidden(),
        /// Unix socket to send the terminal to
        console_socket: Option<PathBuf> = option().value("SOCKET"),
        /// File to write the PID of init to
        pid_file: Option<PathBuf> = option().value("FILE"),
        /// Return once the container runs
        detach: bool = option().short('d'),
        /// Close TCP connections
        tcp_close: bool = option(),
        /// LSM profile in place of that of the checkpoint: selinux:LABEL or apparmor:PROFILE
        lsm_profile: Option<String> = option().value("TYPE:NAME"),
        /// SELinux context of mounts in place of that of the checkpoint
        lsm_mount_context: Option<String> = option().value("CONTEXT"),
        /// Accepted for runc's callers
        no_pivot: bool = option().hidden(),
        /// Accepted for runc's callers
        no_subreaper: bool = option().single_dash().hidden(),
    }
}

impl Restore {
    pub(super) fn run(self, global: &Global) -> Result<u8> {
        let (id, detach) = (self.images.id.clone(), self.detach);
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

    fn request(self, global: &Global) -> Result<restore::RestoreRequest> {
        let id = Id::new(&self.images.id)?;
        let bundle = open_bundle(&self.bundle)?;
        let spec = plan::config::read(&bundle.join("config.json"), ConfigSource::Bundle)?;
        let console = console(&spec, self.detach, self.console_socket)?;
        let plan = plan::compile(
            spec,
            &plan::PlanOptions {
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
        Ok(restore::RestoreRequest {
            id,
            bundle,
            plan,
            console,
            pid_file: self.pid_file.map(super::absolute).transpose()?,
            image_path: super::absolute(self.images.image_path)?,
            work_path: self.work_path.map(super::absolute).transpose()?,
            flags: criu::Flags {
                tcp_established: self.images.tcp_established,
                tcp_close: self.tcp_close,
                ext_unix_sk: self.images.ext_unix_sk,
                shell_job: self.images.shell_job,
                lazy_pages: self.images.lazy_pages,
                file_locks: self.images.file_locks,
                auto_dedup: self.images.auto_dedup,
                cgroup_mode: self.images.manage_cgroups_mode.into(),
                network_lock: self.images.network_lock.map(NetworkLock::from),
                empty_network: self.images.empty_ns.contains(&EmptyNamespace::Network),
                lsm_profile: self.lsm_profile,
                lsm_mount_context: self.lsm_mount_context,
            },
        })
    }
}
