//! `linux.resources.devices`: the rules as one eBPF program on the container's cgroup.
//!
//! The meaning: each access bit (read, write, mknod) of a request is decided by the last rule that speaks of it; what
//! no rule speaks of is denied; a request passes when all its bits do. [`DEFAULTS`] come after the rules of the config,
//! so every container can use them. There are no rules that cannot be expressed, so none is an error.

mod emitter;
mod rules;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::LinuxDeviceCgroup;

use crate::error::{Context, Error, Result};
use crate::host;
use crate::sys::Errno;
use crate::sys::bpf::{self, Insn};

use emitter::emit;
use rules::{ALL, BLOCK, CHAR, MKNOD, READ, Rule, Table, WRITE, bit};

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
                let warning = Error::new(format!("access {access:?}: {letter:?} is none of r, w, m and ignored"));
                crate::log::warn(warning.field(format!("/linux/resources/devices/{index}")));
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
