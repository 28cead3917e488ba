//! `seccomp`: what the filter of a profile is, and why a call ends as it does.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, Subcommand};
use oci_spec::runtime::LinuxSeccomp;

use crate::error::{Context, Error, Result};
use crate::input;
use crate::plan::config;
use crate::seccomp::{self, Program};

/// Examine seccomp profiles
#[derive(Args, Debug)]
pub struct Seccomp {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print the filter that a profile is compiled to
    Dump(Dump),
    /// Explain what a profile does with a system call
    Explain(Explain),
}

#[derive(Args, Debug)]
struct Dump {
    /// Bundle whose configuration has the profile
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// JSON file with the profile; - is standard input
    #[arg(value_name = "PROFILE", conflicts_with = "bundle")]
    profile: Option<PathBuf>,
    /// Print the filter in binary form
    #[arg(long)]
    raw: bool,
}

#[derive(Args, Debug)]
struct Explain {
    /// Bundle whose configuration has the profile
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// JSON file with the profile; - is standard input
    #[arg(short, long, value_name = "FILE", conflicts_with = "bundle")]
    profile: Option<PathBuf>,
    /// Architecture of the caller [default: that of the host]
    #[arg(short, long, value_name = "ARCH")]
    arch: Option<String>,
    /// Name or number of the system call
    #[arg(value_name = "SYSCALL")]
    call: String,
    /// Arguments of the system call
    #[arg(value_name = "ARG", allow_negative_numbers = true, value_parser = argument)]
    args: Vec<u64>,
}

impl Seccomp {
    pub(super) fn run(self) -> Result<u8> {
        match self.what {
            What::Dump(dump) => {
                let profile = profile(dump.profile.as_deref(), &dump.bundle)?;
                let start = Instant::now();
                let program = Program::compile(&profile)?;
                log::debug!("compiled {} instructions in {} ns", program.instructions(), start.elapsed().as_nanos());
                program.warnings().for_each(|warning| log::warn!("{warning}"));
                if !dump.raw {
                    super::print(&program.listing())?;
                    return Ok(0);
                }
                let raw = program.raw().ok_or_else(|| {
                    Error::new("the filter is in several parts, which --raw cannot tell apart").hint("leave --raw out")
                })?;
                super::print_bytes(&raw)?;
            }
            What::Explain(explain) => {
                let profile = profile(explain.profile.as_deref(), &explain.bundle)?;
                super::print(&seccomp::explain(&profile, explain.arch.as_deref(), &explain.call, &explain.args)?)?;
            }
        }
        Ok(0)
    }
}

/// A value of a register: decimal, also below zero, or hexadecimal.
fn argument(word: &str) -> std::result::Result<u64, String> {
    let number = match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok().or_else(|| word.parse::<i64>().ok().map(|number| number as u64)),
    };
    number.ok_or_else(|| "not a number of 64 bits".to_owned())
}

/// The profile of a file, or of a bundle.
fn profile(file: Option<&Path>, bundle: &Path) -> Result<LinuxSeccomp> {
    let path = file.map_or_else(|| bundle.join("config.json"), Path::to_path_buf);
    let in_file = || format!("read the profile {}", path.display());
    let bytes = if file.is_some() { super::read(&path) } else { input::read_regular(&path) }.with_context(in_file)?;
    let mut value = config::value(&bytes).with_context(in_file)?;
    if value.get("defaultAction").is_none() {
        value = match value.pointer_mut("/linux/seccomp") {
            Some(profile) if !profile.is_null() => profile.take(),
            _ => return Err(Error::new("no seccomp profile is there").field("/linux/seccomp")).with_context(in_file),
        };
    }
    config::parse(value.to_string().as_bytes()).with_context(in_file).hint(
        "a profile is what linux.seccomp is in config.json; an engine's own form (with archMap, includes) is not one",
    )
}

#[cfg(test)]
mod tests {
    use super::argument;

    #[test]
    fn arguments_are_registers() {
        assert_eq!(argument("0x1f"), Ok(31));
        assert_eq!(argument("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(argument("-1"), Ok(u64::MAX));
        assert!(argument("x").is_err() && argument("0x").is_err());
    }
}
