//! The command line: runc's spellings, crun's own options beside them.
//!
//! Both runtimes are stood in for, so options are accepted before and after the id (`create ID --bundle DIR`), and what
//! only one of them has is there too.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::PathBuf;

use clap::ValueEnum;
use clap::error::ErrorKind;

use crate::argv::{Arguments, arguments, choice, command, full, group, option, quick};
use crate::commands::Command;
use crate::error::Error;
use crate::log::{LogOptions, RecordFormat};
use crate::{manual, sys};

arguments! {
    /// OCI container runtime
    pub struct Cli {
        /// Options before the command.
        pub global: Global = group(),
        /// What to do.
        pub command: Command = command(),
    }
}

arguments! {
    /// Options before the command.
    pub struct Global {
        /// State root: directory with the state of containers [default: /run/corten]
        pub root: Option<PathBuf> = option().value("DIR"),
        /// File to append messages to [default: standard error]
        pub log: Option<PathBuf> = option().value("FILE"),
        /// Format of messages [default: sentences on a terminal, text elsewhere]
        pub log_format: Option<LogFormat> = option().value("FORMAT"),
        /// Lowest level of messages to write [default: warning]
        pub log_level: Option<LogLevel> = option().value("LEVEL"),
        /// Write debug messages; same as --log-level debug
        pub debug: bool = option(),
        /// File to append the duration of each step to
        pub trace: Option<PathBuf> = option().value("FILE"),
        /// Use the cgroup driver systemd; same as --cgroup-manager systemd
        pub systemd_cgroup: bool = option(),
        /// Cgroup driver [default: cgroupfs]
        pub cgroup_manager: Option<CgroupManager> = option().value("MANAGER"),
        /// Allow this annotation; can be repeated
        pub allow_annotation: Vec<String> = option().value("NAME"),
        /// Accepted for callers of runc, and ignored
        pub rootless: Option<String> = option().value("true|false|auto").hidden(),
        /// Print the version, commit and features of corten
        version: bool = option().short('v').short_alias('V').exclusive(),
    }
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// Lines of KEY=VALUE pairs
    Text,
    /// A JSON object on each line
    Json,
}

choice!(LogFormat);

impl From<LogFormat> for RecordFormat {
    fn from(format: LogFormat) -> RecordFormat {
        match format {
            LogFormat::Text => RecordFormat::Text,
            LogFormat::Json => RecordFormat::Json,
        }
    }
}

/// `--log-level`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogLevel {
    /// Failures
    Error,
    /// Same as error
    Fatal,
    /// Same as error
    Panic,
    /// Also what was ignored or changed
    #[value(alias = "warn")]
    Warning,
    /// Same as warning
    Info,
    /// Also each step
    Debug,
    /// Same as debug
    Trace,
}

choice!(LogLevel, ignore_case = true);

/// `--cgroup-manager`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum CgroupManager {
    /// corten, through the cgroup file system
    Cgroupfs,
    /// systemd, through transient units
    Systemd,
    /// None: containers stay in the cgroup of the caller
    Disabled,
}

choice!(CgroupManager);

impl Global {
    /// Who makes the cgroups.
    pub fn manager(&self) -> CgroupManager {
        match self.cgroup_manager {
            Some(manager) => manager,
            None if self.systemd_cgroup => CgroupManager::Systemd,
            None => CgroupManager::Cgroupfs,
        }
    }

    /// Which messages are written, and how.
    pub fn log_options(&self) -> LogOptions {
        let level = match self.log_level {
            _ if self.debug => log::LevelFilter::Debug,
            None | Some(LogLevel::Warning) => log::LevelFilter::Warn,
            Some(LogLevel::Error | LogLevel::Fatal | LogLevel::Panic) => log::LevelFilter::Error,
            Some(LogLevel::Info) => log::LevelFilter::Info,
            Some(LogLevel::Debug | LogLevel::Trace) => log::LevelFilter::Debug,
        };
        let asked = self.debug || self.log_level.is_some();
        LogOptions {
            format: self.log_format.map(RecordFormat::from),
            level,
            warnings: asked && level >= log::LevelFilter::Warn,
        }
    }
}

/// What there is instead of a command to run.
pub enum Answer {
    /// The version is asked for: before a command, whatever else is there.
    Version,
    /// Help that is asked for, or what is wrong.
    Clap(clap::Error),
}

/// The description of the whole command line.
pub fn description() -> clap::Command {
    let shell = clap::Command::new("corten").about("OCI container runtime").disable_version_flag(true);
    full::describe(shell.args_override_self(true), Cli::ARGS)
}

/// Reads the arguments, the first of which is the name of the program.
pub fn parse(arguments: &[OsString]) -> Result<Cli, Answer> {
    let words = arguments.get(1..).unwrap_or_default();
    if let Some(cli) = quick::read(Cli::ARGS, words).and_then(|mut words| Cli::take(&mut words)) {
        return Ok(cli);
    }
    if quick::leading(Cli::ARGS, words).0.has("version") {
        return Err(Answer::Version);
    }
    parse_fully(arguments).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Answer::Clap(help(arguments, error))
        }
        _ => Answer::Clap(error),
    })
}

fn parse_fully(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let matches = full::read(&mut description(), Cli::ARGS, arguments)?;
    let differs = || clap::Error::raw(ErrorKind::InvalidValue, "internal error: a value is what only clap takes\n");
    Cli::take(&mut full::words(Cli::ARGS, &matches)).ok_or_else(differs)
}

/// The same answer as clap's, with help of ours.
fn help(arguments: &[OsString], answer: clap::Error) -> clap::Error {
    let whole = arguments.iter().any(|word| word == "--help" || word == "help");
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let terminal = sys::tty::size(std::io::stdout().as_fd()).ok().map(|(_, columns)| columns.into());
    let width = terminal.or(columns).filter(|columns| *columns > 0).unwrap_or(80).clamp(40, 100);
    let mut taught = manual::teach(description(), manual::Form { whole, width });
    full::read(&mut taught, Cli::ARGS, arguments).err().unwrap_or(answer)
}

/// What the options before the command say about the log, as far as they are understood.
pub fn wish_of(arguments: &[OsString]) -> (Option<PathBuf>, LogOptions) {
    let (mut words, _) = quick::leading(Cli::ARGS, arguments.get(1..).unwrap_or_default());
    match Global::take(&mut words) {
        Some(global) => (global.log.clone(), global.log_options()),
        None => (None, LogOptions { format: None, level: log::LevelFilter::Warn, warnings: false }),
    }
}

/// What the parser says in its own form, as an error of ours; `None` where it is help, and no error.
pub fn misuse(said: &str) -> Option<Error> {
    let said = said.strip_prefix("error: ")?;
    let mut parts = said.split("\n\n");
    let joined = |part: &str| part.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let sentence = joined(parts.next()?);
    let hints: Vec<String> = parts
        .map(joined)
        .filter_map(|part| match part.split_once(": ") {
            Some(("tip", advice)) => Some(advice.to_owned()),
            Some(("Usage", usage)) => Some(format!("usage: {usage}")),
            _ => None,
        })
        .collect();
    let hint = if hints.is_empty() { "see corten --help".to_owned() } else { hints.join("; ") };
    Some(Error::new(sentence).hint(hint))
}

#[cfg(test)]
mod tests;
