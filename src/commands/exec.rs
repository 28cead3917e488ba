//! `exec`.

use std::path::PathBuf;

use crate::argv::{arguments, operand, option};
use crate::cli::Global;
use crate::container::create::Console;
use crate::container::{self, Container};
use crate::error::{Context, Error, Result};
use crate::input;
use crate::plan;
use crate::process::{ExecOptions, check_preserved, parse_user, preserved};
use crate::selfexe::Protection;

arguments! {
    /// Run a program in a container
    pub struct Exec {
        /// JSON file that describes the program
        process: Option<PathBuf> = option().short('p').value("FILE"),
        /// Unix socket to send the terminal to
        console_socket: Option<PathBuf> = option().value("SOCKET"),
        /// Unix socket to send a pidfd of the program to
        pidfd_socket: Option<PathBuf> = option().value("SOCKET"),
        /// Allocate a terminal
        pub(crate) tty: bool = option().short('t'),
        /// Accepted as by engines: standard input is always the program's
        interactive: bool = option().short('i').hidden(),
        /// User and group, as numbers
        user: Option<String> = option().short('u').value("UID[:GID]"),
        /// Additional group, as a number; can be repeated
        additional_gids: Vec<u32> = option().short('g').value("GID"),
        /// Working directory
        cwd: Option<String> = option().value("DIR"),
        /// Environment variable; can be repeated
        env: Vec<String> = option().short('e').value("NAME=VALUE"),
        /// Additional capability; can be repeated
        cap: Vec<String> = option().short('c').value("CAP"),
        /// Set the no_new_privs attribute
        no_new_privs: bool = option(),
        /// AppArmor profile
        apparmor: Option<String> = option().value("PROFILE"),
        /// SELinux label
        process_label: Option<String> = option().value("LABEL"),
        /// Return once the program runs
        pub(crate) detach: bool = option().short('d'),
        /// File to write the PID of the program to
        pid_file: Option<PathBuf> = option().value("FILE"),
        /// Pass N file descriptors, from 3 on, to the program
        preserve_fds: u32 = option().value("N").default("0"),
        /// Cgroup of the program, below that of the container
        cgroup: Option<PathBuf> = option().value("PATH"),
        /// Accept a paused container; the program starts when it is resumed
        ignore_paused: bool = option(),
        /// ID of the container
        id: String = operand(),
        /// Program and its arguments
        pub(crate) args: Vec<String> = operand().value("PROGRAM").trailing().hyphens(),
    }
}

impl Exec {
    /// Whether the program is described by a file.
    pub(super) fn reads_process(&self) -> bool {
        self.process.is_some()
    }

    pub(super) fn run(self, global: &Global, protection: Protection) -> Result<u8> {
        let id = self.id.clone();
        let exec = || -> Result<u8> {
            let container = super::store(global)?.open(&self.id)?;
            let request = self.request(&container)?;
            let protected = protection.ensure()?;
            log::trace!("own binary protected");
            container::exec::exec(&container, request, protected)
        };
        // Words that are searched for.
        exec().with_context(|| format!("exec failed: {id}"))
    }

    fn request(self, container: &Container) -> Result<container::exec::ExecRequest> {
        // Engines that were activated themselves leave the variables to their execs, with nothing behind them.
        let listen_fds = Some(super::listen_fds()).filter(|&count| check_preserved(count).is_ok()).unwrap_or(0);
        let preserve_fds = preserved(listen_fds, self.preserve_fds)?;
        let pid_file = self.pid_file.clone().map(super::absolute).transpose()?;
        let (detach, ignore_paused, cgroup) = (self.detach, self.ignore_paused, self.cgroup.clone());
        let pidfd_socket = self.pidfd_socket.clone().map(super::absolute).transpose()?;
        let socket = self.console_socket.clone().map(super::absolute).transpose()?;
        let spec = self.spec(container)?;
        let console = Console::choose(spec.terminal().unwrap_or(false), detach, socket)?;
        let joined = plan::ExecTarget {
            id: &container.record.id,
            annotations: &container.record.annotations,
            personality: container.record.personality.as_ref(),
            memory_policy: container.record.memory_policy.as_ref(),
            user_namespace: container.record.namespaces.iter().any(|file| file == "user"),
            listen_fds,
            preserve_fds: &preserve_fds,
        };
        let process = plan::compile_exec(&spec, &joined)?;
        Ok(container::exec::ExecRequest { process, console, detach, pid_file, pidfd_socket, cgroup, ignore_paused })
    }

    /// The program as the spec describes one: read from a file as it is, or the container's own with what the options
    /// change.
    fn spec(self, container: &Container) -> Result<oci_spec::runtime::Process> {
        if let Some(file) = &self.process {
            let what = || format!("read the process {}", file.display());
            let bytes = input::read_named(file).with_context(what)?;
            let user = container.record.process.as_ref().map(|process| process.user());
            return plan::config::parse_exec(&bytes, user).with_context(what);
        }
        if self.args.is_empty() {
            return Err(Error::new("exec args cannot be empty").hint("give a program, or --process FILE"));
        }
        let base = container.record.process.clone();
        let base =
            base.ok_or_else(|| Error::new("the container's record knows no process").hint("give --process FILE"))?;
        ExecOptions {
            args: self.args,
            user: self.user.as_deref().map(parse_user).transpose()?,
            additional_gids: self.additional_gids,
            cwd: self.cwd,
            env: self.env,
            caps: self.cap,
            no_new_privs: self.no_new_privs,
            terminal: self.tty,
            apparmor: self.apparmor,
            label: self.process_label,
        }
        .apply(base)
    }
}
