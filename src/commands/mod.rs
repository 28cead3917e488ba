//! The subcommands, one a file: options, help and what they do.

mod check;
mod checkpoint;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod kill;
mod list;
mod mounts;
mod pause;
mod ps;
mod restore;
mod run;
mod seccomp;
mod spec;
mod start;
mod state;
mod table;
mod update;
pub mod version;

use crate::argv::commands;
use crate::cli::Global;
use crate::container::store::Store;
use crate::error::{Context, Result, printable_lines};
use crate::input;
use crate::selfexe::{Needed, Protection};

commands! {
    /// What to do.
    pub enum Command {
        /// Check a configuration without creating a container
        "check" Check(check::Check),
        /// Write a running container to images with CRIU
        "checkpoint" Checkpoint(checkpoint::Checkpoint),
        /// Create a container
        "create" Create(create::Create),
        /// Delete containers
        "delete" Delete(delete::Delete),
        /// Print events and statistics of a container
        "events" Events(events::Events),
        /// Run a program in a container
        "exec" Exec(exec::Exec),
        /// Print the features of the runtime
        "features" Features(features::Features),
        /// Send a signal to a container
        "kill" Kill(kill::Kill),
        /// List containers
        "list" List(list::List),
        /// Add mounts to a running container, or remove them
        "mounts" Mounts(mounts::Mounts),
        /// Suspend the processes of a container
        "pause" Pause(pause::Pause),
        /// List the processes of a container
        "ps" Ps(ps::Ps),
        /// Restore a container from the images of a checkpoint
        "restore" Restore(restore::Restore),
        /// Resume the processes of a paused container
        "resume" Resume(pause::Resume),
        /// Create and start a container
        "run" Run(run::Run),
        /// Examine seccomp profiles
        "seccomp" Seccomp(seccomp::Seccomp),
        /// Write a configuration to start from
        "spec" Spec(spec::Spec),
        /// Start a created container
        "start" Start(start::Start),
        /// Print the state of a container
        "state" State(state::State),
        /// Change the resource limits of a container
        "update" Update(update::Update),
    }
}

impl Command {
    /// The exit code of a failure: of an exec, whose codes are those of its program, the one that runc has for it.
    pub fn failure_code(&self) -> u8 {
        if matches!(self, Command::Exec(_)) { 255 } else { 1 }
    }

    /// Whether a process of it will be in namespaces of a container, whose root could open our binary by it
    /// (CVE-2019-5736). There is no arm for the rest: who adds a command answers for it.
    pub fn enters_container(&self) -> Needed {
        match self {
            Command::Create(_) | Command::Run(_) | Command::Mounts(_) => Needed::AtOnce,
            // What it makes for a try is made as a container is.
            Command::Check(check) if check.wants_report() => Needed::AtOnce,
            // A pipe can be read once, which is too early to be started over.
            Command::Exec(exec) if exec.reads_process() => Needed::AtOnce,
            Command::Exec(_) => Needed::Later,
            // Who enters for these two is CRIU.
            Command::Checkpoint(_) | Command::Restore(_) => Needed::Never,
            Command::Check(_)
            | Command::Delete(_)
            | Command::Events(_)
            | Command::Features(_)
            | Command::Kill(_)
            | Command::List(_)
            | Command::Pause(_)
            | Command::Ps(_)
            | Command::Resume(_)
            | Command::Seccomp(_)
            | Command::Spec(_)
            | Command::Start(_)
            | Command::State(_)
            | Command::Update(_) => Needed::Never,
        }
    }

    /// Does it; the exit code on success.
    pub fn run(self, global: &Global, protection: Protection) -> Result<u8> {
        match self {
            Command::Check(command) => command.run(global, protection),
            Command::Checkpoint(command) => command.run(global),
            Command::Create(command) => command.run(global, protection.ensure()?),
            Command::Delete(command) => command.run(global),
            Command::Events(command) => command.run(global),
            Command::Exec(command) => command.run(global, protection),
            Command::Features(command) => command.run(),
            Command::Kill(command) => command.run(global),
            Command::List(command) => command.run(global),
            Command::Mounts(command) => command.run(global, protection.ensure()?),
            Command::Pause(command) => command.run(global),
            Command::Ps(command) => command.run(global),
            Command::Restore(command) => command.run(global),
            Command::Resume(command) => command.run(global),
            Command::Run(command) => command.run(global, protection.ensure()?),
            Command::Seccomp(command) => command.run(),
            Command::Spec(command) => command.run(),
            Command::Start(command) => command.run(global),
            Command::State(command) => command.run(global),
            Command::Update(command) => command.run(global),
        }
    }
}

/// The socket of a service manager that waits for the container to be ready, sd_notify(3); an empty name is none.
fn notify_socket() -> Option<std::ffi::OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())
}

/// How many descriptors socket activation passes to this very process, sd_listen_fds(3).
fn listen_fds() -> u32 {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse().ok());
    match number("LISTEN_PID") == Some(std::process::id()) {
        true => number("LISTEN_FDS").unwrap_or(0),
        false => 0,
    }
}

/// A path of an option, whatever becomes of the working directory.
fn absolute(path: std::path::PathBuf) -> Result<std::path::PathBuf> {
    std::path::absolute(&path).with_context(|| format!("make the path {} absolute", path.display()))
}

/// The state root that the options name.
fn store(global: &Global) -> Result<Store> {
    Store::new(global.root.as_deref())
}

/// What a file has; of `-`, standard input.
fn read(file: &std::path::Path) -> Result<Vec<u8>> {
    if file.as_os_str() != "-" {
        return input::read_named(file);
    }
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes)?;
    Ok(bytes)
}

/// Prints a result: lines for people, or JSON.
fn print(text: &str) -> Result<()> {
    print_bytes(printable_lines(text).as_bytes())
}

/// The same for what is no text.
fn print_bytes(bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("write to stdout")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;

    #[test]
    fn every_command_that_enters_a_container_has_its_binary_protected() {
        let table = [
            ("check", Needed::AtOnce),
            ("check --host c", Needed::AtOnce),
            ("check --host", Needed::Never),
            ("checkpoint c", Needed::Never),
            ("create c", Needed::AtOnce),
            ("delete create", Needed::Never),
            ("events c", Needed::Never),
            ("exec c true", Needed::Later),
            ("exec -p /p c", Needed::AtOnce),
            ("features", Needed::Never),
            ("kill run", Needed::Never),
            ("list", Needed::Never),
            ("mounts add c -", Needed::AtOnce),
            ("mounts remove c -", Needed::AtOnce),
            ("pause c", Needed::Never),
            ("ps c", Needed::Never),
            ("restore c", Needed::Never),
            ("resume c", Needed::Never),
            ("run c", Needed::AtOnce),
            ("seccomp dump", Needed::Never),
            ("seccomp explain read", Needed::Never),
            ("spec", Needed::Never),
            ("start c", Needed::Never),
            ("state c", Needed::Never),
            ("update c", Needed::Never),
        ];
        for (line, needed) in table {
            let words: Vec<_> = std::iter::once("corten").chain(line.split(' ')).map(Into::into).collect();
            let Ok(cli) = cli::parse(&words) else { panic!("{line}") };
            assert_eq!(cli.command.enters_container(), needed, "{line}");
        }
        let tried = |name: &str| table.iter().any(|(line, _)| line.split(' ').next() == Some(name));
        let forgotten: Vec<String> =
            cli::description().get_subcommands().map(|one| one.get_name().to_owned()).collect();
        assert_eq!(forgotten.iter().find(|name| !tried(name)), None);
    }
}
