//! `linux.resources.devices`: the rules as one eBPF program on the container's cgroup.
//!
//! The meaning: each access bit (read, write, mknod) of a request is decided by the last rule that speaks of it; what
//! no rule speaks of is denied; a request passes when all its bits do. [`DEFAULTS`] come after the rules of the config,
//! so every container can use them. There are no rules that cannot be expressed, so none is an error.

mod emitter;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::error::{Context, Result, bail, ensure};
use crate::host;
use crate::sys::Errno;
use crate::sys::bpf::{self, Insn};

use emitter::emit;

/// What every container may do, wherever it is not in the list of the config: make any node, and use the
/// nodes that the standard wants in `/dev`, pseudo-terminals and network tunnels.
#[rustfmt::skip]
const DEFAULTS: &[Rule] = &[
    Rule { allow: true, kind: None,       major: None,      minor: None,      access: MKNOD },
    Rule { allow: true, kind: Some(CHAR), major: Some(1),   minor: Some(3),   access: ALL }, // null
    Rule { allow: true, kind: Some(CHAR), major: Some(1),   minor: Some(8),   access: ALL }, // random
    Rule { allow: true, kind: Some(CHAR), major: Some(1),   minor: Some(7),   access: ALL }, // full
    Rule { allow: true, kind: Some(CHAR), major: Some(5),   minor: Some(0),   access: ALL }, // tty
    Rule { allow: true, kind: Some(CHAR), major: Some(1),   minor: Some(5),   access: ALL }, // zero
    Rule { allow: true, kind: Some(CHAR), major: Some(1),   minor: Some(9),   access: ALL }, // urandom
    Rule { allow: true, kind: Some(CHAR), major: Some(136), minor: None,      access: ALL }, // pts/*
    Rule { allow: true, kind: Some(CHAR), major: Some(5),   minor: Some(2),   access: ALL }, // ptmx
    Rule { allow: true, kind: Some(CHAR), major: Some(10),  minor: Some(200), access: ALL }, // net/tun
];

// The kernel's numbers: BPF_DEVCG_DEV_*, BPF_DEVCG_ACC_*.
const BLOCK: u8 = 1;
const CHAR: u8 = 2;
const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

/// Type, major and minor number; `None` stands for "any".
type Nodes = (Option<u8>, Option<u32>, Option<u32>);

/// One rule; `None` stands for "any".
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rule {
    allow: bool,
    kind: Option<u8>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

impl Rule {
    fn plan(rule: &LinuxDeviceCgroup) -> Result<Rule> {
        let kind = match rule.typ() {
            None | Some(LinuxDeviceType::A) => None,
            Some(LinuxDeviceType::B) => Some(BLOCK),
            Some(LinuxDeviceType::C) => Some(CHAR),
            Some(other) => bail!("device type {:?} has no rules; it must be a, b or c", other.as_str()),
        };
        let access = rule.access().as_deref().unwrap_or_default();
        ensure!(!access.is_empty(), "access must not be empty");
        let bits = access.chars().filter_map(bit).fold(0, |bits, bit| bits | bit);
        ensure!(bits != 0, "access {access:?} has none of r, w, m");
        let (major, minor) = (number("major", rule.major())?, number("minor", rule.minor())?);
        Ok(Rule { allow: rule.allow(), kind, major, minor, access: bits })
    }

    /// The sets of nodes that hold all nodes of this rule: with each of its fields or any; some come twice.
    fn held_by(&self) -> impl Iterator<Item = Nodes> {
        let Rule { kind, major, minor, .. } = *self;
        (0..8).map(move |keep: u8| {
            let kept = |field: u8| keep & field != 0;
            (kind.filter(|_| kept(1)), major.filter(|_| kept(2)), minor.filter(|_| kept(4)))
        })
    }

    fn spans_all_nodes(&self) -> bool {
        self.kind.is_none() && self.major.is_none() && self.minor.is_none()
    }

    /// The kernel has 12 bits for the major and 20 for the minor number.
    fn can_match(&self) -> bool {
        self.major.is_none_or(|major| major < 1 << 12) && self.minor.is_none_or(|minor| minor < 1 << 20)
    }
}

/// What a letter of `access` stands for.
fn bit(letter: char) -> Option<u8> {
    match letter {
        'm' => Some(MKNOD),
        'r' => Some(READ),
        'w' => Some(WRITE),
        _ => None,
    }
}

/// A device number; absent and -1 are "any".
fn number(name: &str, value: Option<i64>) -> Result<Option<u32>> {
    match value {
        None | Some(-1) => Ok(None),
        Some(number) => match u32::try_from(number) {
            Ok(number) => Ok(Some(number)),
            Err(_) => bail!("{name} {number} is not a device number"),
        },
    }
}

/// The rules of the config and then the defaults.
fn rules(config: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>> {
    let mut rules = Vec::with_capacity(config.len() + DEFAULTS.len());
    for (index, rule) in config.iter().enumerate() {
        rules.push(Rule::plan(rule).field(|| format!("/linux/resources/devices/{index}"))?);
    }
    rules.extend(DEFAULTS);
    Ok(rules)
}

/// Nodes and the access to them; `None` for all.
pub(super) type Allowed = Option<Vec<(String, String)>>;

/// What the rules allow at most, for systemd, which knows no rule that denies: nodes and the letters of access to them,
/// as `DeviceAllow=` of systemd.resource-control(5) has them. `None`: they allow most.
pub(super) fn allowed(config: &[LinuxDeviceCgroup]) -> Result<Allowed> {
    let table = Table::new(rules(config)?.into_iter());
    if table.otherwise {
        return Ok(None);
    }
    let mut list = Vec::new();
    for rule in table.rules.iter().filter(|rule| rule.allow) {
        let letters = [('r', READ), ('w', WRITE), ('m', MKNOD)];
        let access: String =
            letters.iter().filter(|(_, bit)| rule.access & bit != 0).map(|(letter, _)| letter).collect();
        for (kind, word) in [(CHAR, "char"), (BLOCK, "block")] {
            if rule.kind.is_some_and(|only| only != kind) {
                continue;
            }
            let node = match (rule.major, rule.minor) {
                (Some(major), Some(minor)) => format!("/dev/{word}/{major}:{minor}"),
                (Some(major), None) => format!("{word}-{major}"),
                (None, _) => format!("{word}-*"),
            };
            list.push((node, access.clone()));
        }
    }
    Ok(Some(list))
}

/// The rules as the program reads them: first match first, nothing in it that cannot matter.
struct Table {
    rules: Vec<Rule>,
    /// What happens to bits that no rule speaks of.
    otherwise: bool,
}

impl Table {
    /// Turns "last rule wins" into "first rule wins" and drops what can't matter.
    fn new(in_order: impl DoubleEndedIterator<Item = Rule>) -> Table {
        let mut table = Table { rules: Vec::new(), otherwise: false };
        // Which access to which nodes has been spoken of. Comparing each rule with all winners instead would take longer
        // than the kernel does to load them, from 1,000 rules on.
        let mut winners: BTreeMap<Nodes, u8> = BTreeMap::new();
        for rule in in_order.rev() {
            let spoken_of =
                rule.held_by().filter_map(|nodes| winners.get(&nodes)).fold(0, |bits, access| bits | access);
            if rule.access & !spoken_of == 0 || !rule.can_match() {
                continue;
            }
            if rule.spans_all_nodes() && rule.access == ALL {
                table.otherwise = rule.allow;
                break;
            }
            *winners.entry((rule.kind, rule.major, rule.minor)).or_default() |= rule.access;
            table.rules.push(rule);
        }
        // The rules that are asked last and say what would happen anyhow.
        while table.rules.pop_if(|last| last.allow == table.otherwise).is_some() {}
        // Neighbours of one verdict may change places: it is the same to be allowed by one or by the other.
        for neighbours in table.rules.chunk_by_mut(|one, next| one.allow == next.allow) {
            neighbours.sort_by_key(|rule| rule.access);
        }
        table
    }
}

/// A compiled device program.
pub(super) struct Program(Vec<Insn>);

impl Program {
    /// Compiles the rules of the config followed by the defaults; `None` when they allow everything.
    ///
    /// Unlike `runc`, a rule of type `a` keeps its numbers and its access bits, as the standard writes it.
    /// A letter of access that is none has no effect, as with `runc`, and a warning, where others stand beside it.
    pub(super) fn plan(config: &[LinuxDeviceCgroup]) -> Result<Option<Program>> {
        for (index, rule) in config.iter().enumerate() {
            let access = rule.access().as_deref().unwrap_or_default();
            if let Some(letter) = access.chars().find(|letter| bit(*letter).is_none()) {
                log::warn!(
                    "/linux/resources/devices/{index}: access {access:?}: {letter:?} is none of r, w, m and ignored"
                );
            }
        }
        let table = Table::new(rules(config)?.into_iter());
        if table.otherwise && table.rules.is_empty() {
            return Ok(None);
        }
        Ok(Some(Program(emit(&table))))
    }

    /// Whether the kernel takes the program, which is on no cgroup and gone at once.
    pub(super) fn try_to_load(&self) -> Result<()> {
        self.load().map(drop).or_else(tolerate).field(|| "/linux/resources/devices")
    }

    /// Loads the program and puts it on a cgroup that has none yet.
    pub(super) fn attach(&self, cgroup: BorrowedFd) -> Result<()> {
        let done = self.load().and_then(|program| bpf::attach_device_program(cgroup, program.as_fd()));
        done.or_else(tolerate).field(|| "/linux/resources/devices")
    }

    fn load(&self) -> Result<OwnedFd, Errno> {
        bpf::load_device_program(&self.0, c"Apache-2.0")
    }
}

/// Whether the kernel takes a program with rules, for anybody.
pub(super) fn probe() -> Result<()> {
    Program::plan(&[])?.map_or(Ok(()), |program| program.load().map(drop).context("load a device program"))
}

/// A number by which two programs can be told apart: FNV-1a over their instructions.
pub(super) fn digest(program: &Option<Program>) -> u64 {
    let instructions = program.iter().flat_map(|program| &program.0);
    instructions.fold(0xcbf2_9ce4_8422_2325, |sum, one| (sum ^ one.bits()).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Makes `wanted` the only program on a cgroup, without a moment in which there is none. Returns those that were there.
pub(super) fn replace(cgroup: BorrowedFd, wanted: Option<&Program>) -> Result<Vec<OwnedFd>> {
    let swap = || {
        let old = bpf::device_programs(cgroup)?;
        let new = wanted.map(Program::load).transpose()?;
        match (&new, old.as_slice()) {
            (Some(new), [only]) => bpf::replace_device_program(cgroup, only.as_fd(), new.as_fd())?,
            _ => exchange(cgroup, &old, new.as_slice())?,
        }
        Ok(old)
    };
    swap().or_else(|errno| tolerate(errno).map(|()| Vec::new())).field(|| "/linux/resources/devices")
}

/// Makes what [`replace`] has returned the only programs on the cgroup again.
pub(super) fn put_back(cgroup: BorrowedFd, old: &[OwnedFd]) -> Result<()> {
    let swap = || exchange(cgroup, &bpf::device_programs(cgroup)?, old);
    swap().or_else(tolerate).field(|| "/linux/resources/devices")
}

/// The new ones first: in between all of them have to allow a request.
fn exchange(cgroup: BorrowedFd, old: &[OwnedFd], new: &[OwnedFd]) -> Result<(), Errno> {
    new.iter().try_for_each(|program| bpf::attach_device_program(cgroup, program.as_fd()))?;
    old.iter().try_for_each(|program| bpf::detach_device_program(cgroup, program.as_fd()))
}

/// Without privilege over the host there is neither a right to bpf(2) nor one to make device nodes: nothing is lost.
fn tolerate(errno: Errno) -> Result<()> {
    let sentence = "attach the device program to the cgroup";
    if errno == Errno::EPERM && host::is_unprivileged() {
        log::warn!("device rules are not enforced: {sentence}: {}", crate::error::words(errno));
        return Ok(());
    }
    Err(errno).context(sentence)
}

#[cfg(test)]
mod tests;
