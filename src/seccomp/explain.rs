//! Finds the rule of a profile that decides about a system call.

use std::fmt::Write;

use oci_spec::runtime::LinuxSeccomp;

use super::chain::Chains;
use super::interpreter::{self, Data, Run};
use super::listing::says;
use super::profile::{Profile, pointer};
use super::rules::{Condition, Rules, Test};
use super::tables::{Arch, Call};
use super::{Calls, Program, calls_on, conditions_on, rules_of};
use crate::error::{Error, Result};

/// What decides about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// This element of `syscalls`.
    Rule(u16),
    /// No rule for it, or none of them holds.
    Default,
    /// Its number is above this, the last one that the profile names.
    Newer(u32),
    /// The number that stands for all unknown ones there.
    Zero,
    /// The profile has no such architecture.
    OtherArchitecture,
}

/// One call to explain.
pub(super) struct Question<'a> {
    pub(super) arch: &'a Arch,
    pub(super) number: u32,
    pub(super) args: [u64; 6],
}

/// The text of `seccomp explain`: the action for a call, and the field of the profile that decides.
///
/// `arch` is a name with or without `SCMP_ARCH_`, this machine's if there is none; `call` a name or a number.
pub fn explain(profile: &LinuxSeccomp, arch: Option<&str>, call: &str, given: &[u64]) -> Result<String> {
    let program = Program::compile(profile)?;
    let profile = Profile::read(profile, Arch::native())?;
    let arch = match arch {
        None => Arch::native(),
        Some(word) => Arch::of_word(word)
            .ok_or_else(|| Error::new(format!("unknown architecture {word:?}")).hint("`corten features` lists them"))?,
    };
    let number = number_of(call, arch)?;
    let mut args = [0; 6];
    let Some(taken) = args.get_mut(..given.len()) else {
        return Err(Error::new(format!("{} arguments are given, a system call has at most 6", given.len())));
    };
    taken.copy_from_slice(given);
    let question = Question { arch, number, args };
    let reason = reason(&profile, &question)?;
    let run = program.run(&question);

    let mut text = String::new();
    let name = Call::numbered(number, arch).map_or("a call that has no name", Call::name);
    let shown: Vec<String> = given.iter().map(|value| shown(*value)).collect();
    let _ = writeln!(
        text,
        "{name}({}) on {}, number {}: {}",
        shown.join(", "),
        arch.word(),
        number & !arch.bit,
        says(run.verdict)
    );
    let _ = writeln!(text, "decided by {}", because(&profile, &question, reason));
    for line in others(&profile, &question, reason) {
        let _ = writeln!(text, "  {line}");
    }
    let _ = writeln!(text, "after {} of {} instructions", run.steps, program.instructions());
    Ok(text)
}

impl Program {
    /// Runs the filter for a call.
    pub(super) fn run(&self, asked: &Question) -> Run {
        interpreter::run_all(&self.parts, &Data::new(asked.arch.audit, asked.number, asked.args, asked.arch.big_endian))
    }
}

fn number_of(call: &str, arch: &Arch) -> Result<u32> {
    let digits = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    };
    if let Some(number) = digits(call) {
        return Ok(number | arch.bit);
    }
    let known = Call::named(call).ok_or_else(|| Error::new(format!("unknown system call {call:?}")))?;
    known.number(arch).ok_or_else(|| Error::new(format!("{} has no system call {call:?}", arch.word())))
}

/// Finds what decides, by the rules instead of the program.
pub(super) fn reason(profile: &Profile, asked: &Question) -> Result<Reason> {
    let arch = asked.arch;
    if !profile.archs.contains(&arch) {
        return Ok(Reason::OtherArchitecture);
    }
    let places = named_there(profile, asked).filter(|&(place, _)| {
        let (_, entry) = profile.named[place];
        profile.entries[usize::from(entry)].verdict != profile.default
    });
    match rules_of(arch, profile, places)? {
        Rules::Always { entry, .. } => return Ok(Reason::Rule(entry)),
        Rules::Tried(rules) if rules.is_empty() => {}
        Rules::Tried(rules) => {
            let decides = rules.iter().find(|rule| rule.conditions.iter().all(|condition| condition.holds(asked)));
            return Ok(decides.map_or(Reason::Default, |rule| Reason::Rule(rule.entry)));
        }
    }
    let Calls { newest, .. } = calls_on(arch, profile, &mut Chains::default())?;
    Ok(match newest {
        Some(_) if arch.zero_is_unknown() && asked.number == 0 => Reason::Zero,
        Some(newest) if asked.number & !arch.bit > newest => Reason::Newer(newest),
        _ => Reason::Default,
    })
}

/// The places of the profile that name this number, and whether by way of a carrier.
fn named_there(profile: &Profile, asked: &Question) -> impl Iterator<Item = (usize, bool)> {
    let (arch, number) = (asked.arch, asked.number);
    profile.named.iter().enumerate().flat_map(move |(place, &(call, _))| {
        let direct = (call.number(arch) == Some(number)).then_some((place, false));
        let carried = call.carried(arch).filter(|&(carrier, _)| carrier == number).map(|_| (place, true));
        direct.into_iter().chain(carried)
    })
}

fn because(profile: &Profile, asked: &Question, reason: Reason) -> String {
    let arch = asked.arch.word();
    match reason {
        Reason::Rule(entry) => pointer(format_args!("/syscalls/{entry}")) + &conditions_of(profile, asked, entry),
        Reason::Default => pointer(format_args!("/defaultAction")) + ": no rule holds",
        Reason::Newer(newest) => {
            let name = Call::numbered(newest | asked.arch.bit, asked.arch).map_or("", Call::name);
            format!(
                "its number: the last call of {arch} that the profile names is {newest} ({name}), later ones do not exist"
            )
        }
        Reason::Zero => format!("its number: 0 stands for all unknown calls of {arch}"),
        Reason::OtherArchitecture => {
            pointer(format_args!("/architectures")) + &format!(": {arch} is neither listed nor this machine's")
        }
    }
}

/// The rules that name the call and do not decide.
fn others(profile: &Profile, asked: &Question, reason: Reason) -> Vec<String> {
    let mut entries: Vec<u16> = named_there(profile, asked).map(|(place, _)| profile.named[place].1).collect();
    entries.dedup();
    entries.retain(|&entry| reason != Reason::Rule(entry) && reason != Reason::OtherArchitecture);
    let line = |entry: u16| {
        let verdict = profile.entries[usize::from(entry)].verdict;
        let as_default = if verdict == profile.default { ", as without it" } else { "" };
        let conditions = conditions_of(profile, asked, entry);
        format!("not by {}{conditions}: {}{as_default}", pointer(format_args!("/syscalls/{entry}")), says(verdict))
    };
    entries.into_iter().map(line).collect()
}

/// ` (argument 0 == 1 and …)`, or nothing.
fn conditions_of(profile: &Profile, asked: &Question, entry: u16) -> String {
    let carried = |(place, by_carrier): (usize, bool)| {
        let (call, of) = profile.named[place];
        (of == entry).then(|| call.carried(asked.arch).filter(|_| by_carrier).map(|(_, first)| first))
    };
    let ways: Vec<String> = named_there(profile, asked)
        .filter_map(carried)
        .flat_map(|first| {
            let alternatives = &profile.entries[usize::from(entry)].alternatives;
            alternatives.iter().map(move |conditions| conditions_on(asked.arch, conditions, first))
        })
        .map(|conditions| conditions.iter().map(Condition::describe).collect::<Vec<_>>().join(" and "))
        .collect();
    // One way without conditions is enough.
    if ways.iter().any(String::is_empty) { String::new() } else { format!(" ({})", ways.join(", or ")) }
}

fn shown(value: u64) -> String {
    if value < 10_000 { value.to_string() } else { format!("{value:#x}") }
}

impl Condition {
    fn holds(&self, asked: &Question) -> bool {
        let seen = asked.args[usize::from(self.arg)] & self.mask;
        match self.test {
            Test::Equal | Test::Masked => seen == self.value,
            Test::NotEqual => seen != self.value,
            Test::Less => seen < self.value,
            Test::AtMost => seen <= self.value,
            Test::Greater => seen > self.value,
            Test::AtLeast => seen >= self.value,
        }
    }

    fn describe(&self) -> String {
        let operator = match self.test {
            Test::Equal | Test::Masked => "==",
            Test::NotEqual => "!=",
            Test::Less => "<",
            Test::AtMost => "<=",
            Test::Greater => ">",
            Test::AtLeast => ">=",
        };
        let mask = if self.test == Test::Masked { format!(" & {:#x}", self.mask) } else { String::new() };
        format!("argument {}{mask} {operator} {}", self.arg, shown(self.value))
    }
}

/// The verdict that follows from a reason, to compare with that of the program.
#[cfg(test)]
pub(super) fn verdict_of(profile: &Profile, reason: Reason) -> u32 {
    match reason {
        Reason::Rule(entry) => profile.entries[usize::from(entry)].verdict,
        Reason::Default => profile.default,
        Reason::Newer(_) | Reason::Zero => super::NO_SUCH_CALL,
        Reason::OtherArchitecture => libc::SECCOMP_RET_KILL_THREAD,
    }
}
