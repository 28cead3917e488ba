//! `seccomp`: what the filter of a profile is, and why a call ends as it does.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use oci_spec::runtime::LinuxSeccomp;

use crate::argv::{Word, arguments, command, commands, operand, option};
use crate::error::{Context, Error, Result};
use crate::input;
use crate::plan::config;
use crate::seccomp::{self, Program};

arguments! {
    /// Examine seccomp profiles
    pub struct Seccomp {
        /// Which of them.
        what: What = command(),
    }
}

commands! {
    enum What {
        /// Print the filter that a profile is compiled to
        "dump" Dump(Dump),
        /// Explain what a profile does with a system call
        "explain" Explain(Explain),
    }
}

arguments! {
    struct Dump {
        /// Bundle whose configuration has the profile
        bundle: PathBuf = option().short('b').value("DIR").default("."),
        /// JSON file with the profile; - is standard input
        profile: Option<PathBuf> = operand().value("PROFILE").conflicts(&["bundle"]),
        /// Print the filter in binary form
        raw: bool = option(),
    }
}

arguments! {
    struct Explain {
        /// Bundle whose configuration has the profile
        bundle: PathBuf = option().short('b').value("DIR").default("."),
        /// JSON file with the profile; - is standard input
        profile: Option<PathBuf> = option().short('p').value("FILE").conflicts(&["bundle"]),
        /// Architecture of the caller [default: that of the host]
        arch: Option<String> = option().short('a').value("ARCH"),
        /// Name or number of the system call
        call: String = operand().value("SYSCALL"),
        /// Arguments of the system call
        args: Vec<Register> = operand().value("ARG").negative_numbers(),
    }
}

/// An argument of a system call, as a register holds it.
#[derive(Clone, Debug)]
struct Register(u64);

impl Word for Register {
    fn parser() -> clap::builder::ValueParser {
        clap::builder::ValueParser::new(|word: &str| argument(word).map(Register))
    }

    fn read(word: &OsStr) -> Option<Register> {
        argument(word.to_str()?).ok().map(Register)
    }
}

impl Seccomp {
    pub(super) fn run(self) -> Result<u8> {
        match self.what {
            What::Dump(dump) => {
                let profile = profile(dump.profile.as_deref(), &dump.bundle)?;
                let start = Instant::now();
                let program = Program::compile(&profile)?;
                log::debug!("compiled {} instructions in {} ns", program.instructions(), start.elapsed().as_nanos());
                program.warnings().for_each(crate::log::warn);
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
                let registers: Vec<u64> = explain.args.iter().map(|Register(value)| *value).collect();
                super::print(&seccomp::explain(&profile, explain.arch.as_deref(), &explain.call, &registers)?)?;
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
