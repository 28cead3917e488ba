//! `exec`.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use crate::cli::Global;
use crate::container::create::Console;
use crate::container::{self, Container};
use crate::error::{Context, Error, Result};
use crate::input;
use crate::plan;
use crate::process::{Options, check_preserved, parse_user, preserved};
use crate::selfexe::Protection;

/// Run a program in a container
#[derive(Args, Debug)]
pub struct Exec {
    /// JSON file that describes the program
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Unix socket to send the terminal to
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Unix socket to send a pidfd of the program to
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,
    /// Allocate a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Accepted as by engines: standard input is always the program's
    #[arg(short, long, hide = true)]
    interactive: bool,
    /// User and group, as numbers
    #[arg(short, long, value_name = "UID[:GID]")]
    user: Option<String>,
    /// Additional group, as a number; can be repeated
    #[arg(short = 'g', long, value_name = "GID", action = ArgAction::Append)]
    additional_gids: Vec<u32>,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// Environment variable; can be repeated
    #[arg(short, long, value_name = "NAME=VALUE", action = ArgAction::Append)]
    env: Vec<String>,
    /// Additional capability; can be repeated
    #[arg(short, long, value_name = "CAP", action = ArgAction::Append)]
    cap: Vec<String>,
    /// Set the no_new_privs attribute
    #[arg(long)]
    no_new_privs: bool,
    /// AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// SELinux label
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// Return once the program runs
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// File to write the PID of the program to
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Pass N file descriptors, from 3 on, to the program
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Cgroup of the program, below that of the container
    #[arg(long, value_name = "PATH")]
    cgroup: Option<PathBuf>,
    /// Accept a paused container; the program starts when it is resumed
    #[arg(long)]
    ignore_paused: bool,
    /// ID of the container
    id: String,
    /// Program and its arguments
    #[arg(value_name = "PROGRAM", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
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

    fn request(self, container: &Container) -> Result<container::exec::Request> {
        // Engines that were activated themselves leave the variables to their execs, with nothing behind them.
        let listen_fds = Some(super::listen_fds()).filter(|&count| check_preserved(count).is_ok()).unwrap_or(0);
        let preserve_fds = preserved(listen_fds, self.preserve_fds)?;
        let pid_file = self.pid_file.clone().map(super::absolute).transpose()?;
        let (detach, ignore_paused, cgroup) = (self.detach, self.ignore_paused, self.cgroup.clone());
        let pidfd_socket = self.pidfd_socket.clone().map(super::absolute).transpose()?;
        let socket = self.console_socket.clone().map(super::absolute).transpose()?;
        let spec = self.spec(container)?;
        let console = Console::choose(spec.terminal().unwrap_or(false), detach, socket)?;
        let joined = plan::Joined {
            id: &container.record.id,
            annotations: &container.record.annotations,
            personality: container.record.personality.as_ref(),
            memory_policy: container.record.memory_policy.as_ref(),
            user_namespace: container.record.namespaces.iter().any(|file| file == "user"),
            listen_fds,
            preserve_fds: &preserve_fds,
        };
        let process = plan::compile_exec(&spec, &joined)?;
        Ok(container::exec::Request { process, console, detach, pid_file, pidfd_socket, cgroup, ignore_paused })
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
        Options {
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
