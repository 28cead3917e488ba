//! The command line: runc's spellings, crun's own options beside them.
//!
//! Both runtimes are stood in for, so options are accepted before and after the id (`create ID --bundle DIR`), and what
//! only one of them has is there too.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, ValueEnum};

use crate::commands::{self, Command};
use crate::error::Error;
use crate::log::{Format, Wish};
use crate::{manual, sys};

/// OCI container runtime
#[derive(Debug, Parser)]
#[command(
    name = "corten",
    disable_version_flag = true,
    args_override_self = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// Options before the command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options before the command.
#[derive(Args, Debug)]
pub struct Global {
    /// State root: directory with the state of containers [default: /run/corten]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// File to append messages to [default: standard error]
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Format of messages [default: sentences on a terminal, text elsewhere]
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
    /// Lowest level of messages to write [default: warning]
    #[arg(long, value_name = "LEVEL", value_enum, ignore_case = true)]
    pub log_level: Option<LogLevel>,
    /// Write debug messages; same as --log-level debug
    #[arg(long)]
    pub debug: bool,
    /// File to append the duration of each step to
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Use the cgroup driver systemd; same as --cgroup-manager systemd
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// Cgroup driver [default: cgroupfs]
    #[arg(long, value_name = "MANAGER", value_enum)]
    pub cgroup_manager: Option<CgroupManager>,
    /// Allow this annotation; can be repeated
    #[arg(long, value_name = "NAME")]
    pub allow_annotation: Vec<String>,
    /// Accepted for runc's callers: what a caller may do is found out
    #[arg(long, value_name = "true|false|auto", hide = true)]
    pub rootless: Option<String>,
    /// Print the version, commit and features of corten
    #[arg(short = 'v', long, short_alias = 'V', exclusive = true)]
    version: bool,
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// Lines of KEY=VALUE pairs
    Text,
    /// A JSON object on each line
    Json,
}

impl From<LogFormat> for Format {
    fn from(format: LogFormat) -> Format {
        match format {
            LogFormat::Text => Format::Text,
            LogFormat::Json => Format::Json,
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
    pub fn wish(&self) -> Wish {
        let level = match self.log_level {
            _ if self.debug => log::LevelFilter::Debug,
            None | Some(LogLevel::Warning) => log::LevelFilter::Warn,
            Some(LogLevel::Error | LogLevel::Fatal | LogLevel::Panic) => log::LevelFilter::Error,
            Some(LogLevel::Info) => log::LevelFilter::Info,
            Some(LogLevel::Debug | LogLevel::Trace) => log::LevelFilter::Debug,
        };
        let asked = self.debug || self.log_level.is_some();
        Wish { format: self.log_format.map(Format::from), level, warnings: asked && level >= log::LevelFilter::Warn }
    }
}

/// Options before the command that take the next word as their value.
const VALUED: [&str; 8] = [
    "--root",
    "--log",
    "--trace",
    "--log-format",
    "--log-level",
    "--cgroup-manager",
    "--allow-annotation",
    "--rootless",
];

/// Whether the arguments only ask for the version.
pub fn asks_version(arguments: &[OsString]) -> bool {
    let before = &arguments[1.min(arguments.len())..command_at(arguments)];
    let mut words = before.iter();
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("-v" | "-V" | "--version") => return true,
            Some(word) if VALUED.contains(&word) => drop(words.next()),
            _ => {}
        }
    }
    false
}

/// The place of the command among the arguments; behind them if there is none.
fn command_at(arguments: &[OsString]) -> usize {
    let mut at = 1.min(arguments.len());
    while let Some(word) = arguments.get(at) {
        match word.to_str() {
            Some(word) if VALUED.contains(&word) => at += 2,
            Some(word) if word.starts_with('-') => at += 1,
            _ => break,
        }
    }
    at.min(arguments.len())
}

/// Reads the arguments. go-runc writes one long option with a single dash, as Go's flag parser allows.
pub fn parse(arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    let normal = |word: OsString| if word == OsStr::new("-no-subreaper") { "--no-subreaper".into() } else { word };
    let mut arguments: Vec<OsString> = arguments.into_iter().map(normal).collect();
    name_signal(&mut arguments);
    parse_lean(&arguments).map_or_else(|| Cli::try_parse_from(&arguments), Ok).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => help(&arguments, error),
        _ => error,
    })
}

/// The same answer as clap's, with help of ours.
fn help(arguments: &[OsString], answer: clap::Error) -> clap::Error {
    let whole = arguments.iter().any(|word| word == "--help" || word == "help");
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let terminal = sys::tty::size(std::io::stdout().as_fd()).ok().map(|(_, columns)| columns.into());
    let width = terminal.or(columns).filter(|columns| *columns > 0).unwrap_or(80).clamp(40, 100);
    let taught = manual::teach(Cli::command(), manual::Form { whole, width });
    taught.try_get_matches_from(arguments).err().unwrap_or(answer)
}

/// Writes the signal of `kill -9 ID` and `kill -TERM ID`, as kill(1) has it, as an option. Behind `--` it is an id.
fn name_signal(arguments: &mut [OsString]) {
    let command = command_at(arguments);
    if arguments.get(command).is_none_or(|word| word != "kill") {
        return;
    }
    for word in arguments[command + 1..].iter_mut().take_while(|word| *word != "--") {
        let signal = word.to_str().and_then(|text| text.strip_prefix('-'));
        // Names in lower case are flags.
        let signal = signal.filter(|name| name.starts_with(|c: char| c.is_ascii_digit() || c.is_ascii_uppercase()));
        if let Some(signal) = signal {
            *word = format!("--signal={signal}").into();
        }
    }
}

/// What the options before the command say about the log, as far as they are understood.
pub fn wish_of(arguments: impl Iterator<Item = OsString>) -> (Option<PathBuf>, Wish) {
    let shell = clap::Command::new("corten").args_override_self(true).disable_help_flag(true).ignore_errors(true);
    let words = Global::augment_args(shell).allow_external_subcommands(true).try_get_matches_from(arguments);
    match words.and_then(|matches| Global::from_arg_matches(&matches)) {
        Ok(global) => (global.log.clone(), global.wish()),
        Err(_) => (None, Wish { format: None, level: log::LevelFilter::Warn, warnings: false }),
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

/// Reads the arguments knowing only the command that is asked for: to describe all of them to the parser takes longer
/// than all else that `state` does. `None` when that does not work out; the full parser then has the word, also for help
/// and for what is wrong.
fn parse_lean(arguments: &[OsString]) -> Option<Cli> {
    let described = arguments.iter().skip(1).find_map(|word| commands::describe(word.to_str()?))?;
    let shell = clap::Command::new("corten").args_override_self(true).disable_help_flag(true).subcommand_required(true);
    let lean = Global::augment_args(shell).subcommand(described.disable_help_flag(true));
    let matches = lean.try_get_matches_from(arguments).ok()?;
    Cli::from_arg_matches(&matches).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        std::iter::once("corten").chain(line.split(' ')).map(OsString::from).collect()
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_engines_write_is_understood() {
        for line in [
            "--root /r --log /l --log-format json create --bundle /b --pid-file /b/init.pid c",
            "--log-format=json --log /l --systemd-cgroup create c --bundle /b --console-socket /s",
            "--cgroup-manager disabled create --bundle /b --pid-file /p --preserve-fds 3 c",
            "--root /r --rootless=true start c",
            "--allow-annotation a --allow-annotation=b.* run -b /b c",
            "kill --all c 9",
            "kill c SIGTERM",
            "kill -9 c",
            "kill -a -KILL c",
            "kill c -SIGRTMIN+3",
            "kill -s 9 c",
            "kill --signal TERM c",
            "kill -- -9 -9",
            "exec -it c sh",
            "exec -tid c sh -it",
            "exec --interactive --tty c sh",
            "delete --force c",
            "delete -f a b",
            "list --format=json",
            "list -q -f table",
            "run -d -b /b -no-subreaper --no-new-keyring --keep c",
            "exec --process /p --detach --pid-file /q c",
            "exec -t -e A=b --cwd / c sh -c true --detach",
            "ps --format json c",
            "ps --sessions --format json c",
            "kill --session 4711-5j3kz c KILL",
            "spec --bundle /b",
            "features",
            "check -b /b -f /c --console-socket /s --format=json --host c",
            "check --foreground",
            "update --resources - c",
            "update --resources=/tmp/r c",
            "update --cpu-quota -1 --memory -1 --pids-limit -1 c",
            "update c --blkio-weight 10 --cpu-share 2 --cpuset-cpus 0 --kernel-memory 1 --l3-cache-schema L3:0=f",
            "events --stats c",
            "events --interval=5s c",
            "mounts add c mounts.json",
            "mounts remove c -",
        ] {
            assert!(parse(words(line)).is_ok(), "{line}: {}", parse(words(line)).unwrap_err());
        }
    }

    #[test]
    fn knowing_one_command_is_enough_for_what_is_right() {
        for line in ["--root /r create --bundle /b c", "state c", "kill c 9", "--debug run c", "delete -f a b"] {
            assert!(parse_lean(&words(line)).is_some(), "{line}");
        }
        for line in ["--root create kill c", "state", "state --help", "create --wrong c", "nosuch c"] {
            assert!(parse_lean(&words(line)).is_none(), "{line}");
        }
        assert!(parse(words("--root create kill c")).is_ok());
    }

    #[test]
    fn the_command_of_an_exec_keeps_its_own_options() {
        let Ok(Cli { command: Command::Exec(exec), .. }) = parse(words("exec c sh -c -t --detach")) else { panic!() };
        assert_eq!(exec.args, ["sh", "-c", "-t", "--detach"]);
        assert!(!exec.tty && !exec.detach);
    }

    #[test]
    fn a_signal_may_be_given_as_to_kill() {
        for (line, expected) in [
            ("kill -9 c", "kill --signal=9 c"),
            ("--root kill --debug kill -a c -KILL", "--root kill --debug kill -a c --signal=KILL"),
            ("kill -ar c", "kill -ar c"),
            ("kill -- -9 9", "kill -- -9 9"),
            ("exec kill -9", "exec kill -9"),
            ("--root /r", "--root /r"),
        ] {
            let mut arguments = words(line);
            name_signal(&mut arguments);
            assert_eq!(arguments, words(expected));
        }
        for line in ["kill -9 c 9", "kill -9 -KILL", "kill -z c"] {
            assert!(parse(words(line)).is_err(), "{line}");
        }
    }

    #[test]
    fn the_version_is_asked_for_before_a_command_only() {
        for line in [
            "--version",
            "--debug -v",
            "--allow-annotation create -v",
            "--root /r --version",
            "--log=/l --log-format json -V",
        ] {
            assert!(asks_version(&words(line)), "{line}");
        }
        assert!(!asks_version(&words("exec c prog --version")));
    }
}
