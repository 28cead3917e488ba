//! `create`, and the options that it shares with `run`.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use crate::argv::{arguments, group, operand, option};
use crate::cgroup;
use crate::cli::{CgroupManager, Global};
use crate::container::create::Console;
use crate::container::{self, id::Id};
use crate::error::{Context, Result};
use crate::plan;
use crate::plan::config::ConfigSource;
use crate::process::{check_preserved, preserved};
use crate::selfexe::Protected;

arguments! {
    /// Create a container
    pub struct Create {
        /// What it shares.
        options: Options = group(),
        /// Accepted for callers that always pass it: a created container is detached
        detach: bool = option().short('d').hidden(),
    }
}

arguments! {
    /// What `create` and `run` share.
    pub(super) struct Options {
        /// Bundle of the container
        bundle: PathBuf = option().short('b').value("DIR").default("."),
        /// Configuration [default: config.json in the bundle]
        config: Option<PathBuf> = option().short('f').value("FILE"),
        /// Unix socket to send the terminal to
        console_socket: Option<PathBuf> = option().value("SOCKET"),
        /// Unix socket to send a pidfd of init to
        pidfd_socket: Option<PathBuf> = option().value("SOCKET"),
        /// File to write the PID of init to
        pid_file: Option<PathBuf> = option().value("FILE"),
        /// Do not use pivot_root(2) to change the root
        no_pivot: bool = option(),
        /// Keep the session keyring of the caller
        no_new_keyring: bool = option(),
        /// Pass N file descriptors, from 3 on, to the program
        preserve_fds: u32 = option().value("N").default("0"),
        /// Accepted for runc's callers
        no_subreaper: bool = option().single_dash().hidden(),
        /// ID of the container
        pub(super) id: String = operand(),
    }
}

impl Create {
    pub(super) fn run(self, global: &Global, protected: Protected) -> Result<u8> {
        let id = self.options.id.clone();
        let create = || -> Result<()> {
            let request = self.options.request(global, true)?;
            container::create::create(request, &super::store(global)?, protected)
        };
        create().with_context(|| format!("create {id}"))?;
        Ok(0)
    }
}

impl Options {
    /// Everything that is known before the first side effect.
    pub(super) fn request(self, global: &Global, detached: bool) -> Result<container::create::CreateRequest> {
        let id = Id::new(&self.id)?;
        let listen_fds = super::listen_fds();
        check_preserved(listen_fds)?;
        let preserve_fds = preserved(listen_fds, self.preserve_fds)?;
        let bundle = open_bundle(&self.bundle)?;
        let (config, source) = config(self.config, &bundle)?;
        let spec = plan::config::read(&config, source)?;
        log::trace!("configuration read");
        let console = console(&spec, detached, self.console_socket)?;
        let notify = super::notify_socket();
        let directory = notify.as_ref().map(|_| super::store(global).map(|store| store.directory(&id))).transpose()?;
        let directory = directory.as_ref().map(container::notify::place);
        let plan = plan::compile(
            spec,
            &plan::PlanOptions {
                id: id.as_str(),
                bundle: &bundle,
                manager: manager(global),
                no_pivot: self.no_pivot,
                new_keyring: !self.no_new_keyring,
                listen_fds,
                preserve_fds: &preserve_fds,
                notify: directory.as_deref(),
                allowed_annotations: &global.allow_annotation,
            },
        )?;
        log::trace!("plan made");
        let pid_file = self.pid_file.map(super::absolute).transpose()?;
        let pidfd_socket = self.pidfd_socket.map(super::absolute).transpose()?;
        Ok(container::create::CreateRequest { id, bundle, plan, console, pid_file, pidfd_socket, notify })
    }
}

/// The bundle, absolute.
pub(super) fn open_bundle(path: &Path) -> Result<PathBuf> {
    std::fs::canonicalize(path).with_context(|| format!("open the bundle {}", path.display()))
}

/// Where the terminal of the configuration goes, if it has one.
pub(super) fn console(spec: &Spec, detached: bool, socket: Option<PathBuf>) -> Result<Console> {
    let terminal = spec.process().as_ref().and_then(|process| process.terminal()).unwrap_or(false);
    Console::choose(terminal, detached, socket.map(super::absolute).transpose()?)
}

/// Where the configuration is: what `--config` names, absolute, or the bundle's.
pub(super) fn config(named: Option<PathBuf>, bundle: &Path) -> Result<(PathBuf, ConfigSource)> {
    match named {
        Some(file) => Ok((super::absolute(file)?, ConfigSource::CommandLine)),
        None => Ok((bundle.join("config.json"), ConfigSource::Bundle)),
    }
}

pub(super) fn manager(global: &Global) -> cgroup::Manager {
    match global.manager() {
        CgroupManager::Cgroupfs => cgroup::Manager::Cgroupfs,
        CgroupManager::Systemd => cgroup::Manager::Systemd,
        CgroupManager::Disabled => cgroup::Manager::Disabled,
    }
}
