//! `linux.resources.devices`: the rules as one eBPF program on the container's cgroup.
//!
//! The meaning: each access bit (read, write, mknod) of a request is decided by the last rule that speaks of it; what
//! no rule speaks of is denied; a request passes when all its bits do. [`DEFAULTS`] come after the rules of the config,
//! so every container can use them. There are no rules that cannot be expressed, so none is an error.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::error::{Context, Result, bail, ensure};
use crate::host;
use crate::sys::Errno;
use crate::sys::bpf::{self, Insn};

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

    /// Every node that `other` speaks of, this rule does too.
    fn spans(&self, other: &Rule) -> bool {
        fn holds<T: PartialEq>(outer: Option<T>, inner: Option<T>) -> bool {
            outer.is_none() || outer == inner
        }
        holds(self.kind, other.kind) && holds(self.major, other.major) && holds(self.minor, other.minor)
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
        for rule in in_order.rev() {
            let spoken_of = table.rules.iter().filter(|winner| winner.spans(&rule)).fold(0, |bits, w| bits | w.access);
            if rule.access & !spoken_of == 0 || !rule.can_match() {
                continue;
            }
            if rule.spans_all_nodes() && rule.access == ALL {
                table.otherwise = rule.allow;
                break;
            }
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

// Registers. The kernel's context (`struct bpf_cgroup_dev_ctx`) comes in r1.
const DENIED: u8 = 0; // bits of the request that a rule denied; in the end the answer
const CONTEXT: u8 = 1;
const SCRATCH: u8 = 1;
const TYPE: u8 = 2;
const OPEN: u8 = 3; // bits of the request that no rule has spoken of yet
const NODE: u8 = 4; // major << 20 | minor
const MINOR: u8 = 5;
const MATCH: u8 = 6; // negative when a rule of the group matches
const TEST: u8 = 7;
const CHAR_NODE: u8 = 8; // NODE, with bits above it unless the type is CHAR
const BLOCK_NODE: u8 = 9;

// Operations, as `linux/bpf.h` numbers them, on 64 bits.
const ADD: u8 = 0x07;
const OR: u8 = 0x47;
const AND: u8 = 0x57;
const SHIFT_LEFT: u8 = 0x67;
const SHIFT_RIGHT: u8 = 0x77;
const XOR: u8 = 0xa7;
const MOVE: u8 = 0xb7;
const SHIFT_SIGN_RIGHT: u8 = 0xc7;
const BY_REGISTER: u8 = 0x08;
const LOAD_WORD: u8 = 0x61;
const MOVE_WIDE: u8 = 0x18;
const EXIT: u8 = 0x95;

/// A program without a single jump.
///
/// The verifier follows every path through a program, and its cost grows with the square of the tests: 50 rules written
/// as comparisons and jumps take it milliseconds. Here each rule is arithmetic: a difference that is zero when the
/// rule matches, less one, which is then negative; the signs of a group of rules are collected in one register.
struct Emitter(Vec<Insn>);

impl Emitter {
    fn by(&mut self, operation: u8, register: u8, number: i32) {
        self.0.push(Insn::new(operation, register, 0, 0, number));
    }

    fn with(&mut self, operation: u8, register: u8, other: u8) {
        self.0.push(Insn::new(operation | BY_REGISTER, register, other, 0, 0));
    }

    fn begin(&mut self, table: &Table) {
        for (register, offset) in [(TYPE, 0), (NODE, 4), (MINOR, 8)] {
            self.0.push(Insn::new(LOAD_WORD, register, CONTEXT, offset, 0));
        }
        self.with(MOVE, OPEN, TYPE);
        self.by(SHIFT_RIGHT, OPEN, 16);
        self.by(AND, TYPE, 0xffff);
        self.by(SHIFT_LEFT, NODE, 20);
        self.with(OR, NODE, MINOR);
        for (kind, register) in [(CHAR, CHAR_NODE), (BLOCK, BLOCK_NODE)] {
            if table.rules.iter().any(|rule| rule.kind == Some(kind)) {
                self.with(MOVE, register, TYPE);
                self.by(XOR, register, kind.into());
                self.by(SHIFT_LEFT, register, 32);
                self.with(OR, register, NODE);
            }
        }
        self.by(MOVE, DENIED, 0);
    }

    /// Rules of one verdict on the same bits.
    fn group(&mut self, rules: &[Rule]) {
        let Rule { allow, access, .. } = rules[0];
        if rules.iter().any(Rule::spans_all_nodes) {
            self.by(MOVE, MATCH, access.into());
        } else {
            self.by(MOVE, MATCH, 0);
            rules.iter().for_each(|rule| self.rule(rule));
            self.by(SHIFT_SIGN_RIGHT, MATCH, 63); // all bits set, or none
            self.by(AND, MATCH, access.into());
        }
        if allow {
            self.by(XOR, MATCH, -1);
            self.with(AND, OPEN, MATCH);
        } else {
            self.with(AND, MATCH, OPEN);
            self.with(OR, DENIED, MATCH);
        }
    }

    fn rule(&mut self, rule: &Rule) {
        let node = match rule.kind {
            None => NODE,
            Some(CHAR) => CHAR_NODE,
            Some(_) => BLOCK_NODE,
        };
        match (rule.major, rule.minor) {
            (Some(major), Some(minor)) => self.difference(node, major << 20 | minor),
            (Some(major), None) => {
                self.with(MOVE, TEST, node);
                self.by(SHIFT_RIGHT, TEST, 20);
                self.by(XOR, TEST, major as i32);
            }
            (None, minor) => {
                self.with(MOVE, TEST, node);
                self.by(SHIFT_RIGHT, TEST, 32);
                if let Some(minor) = minor {
                    self.with(MOVE, SCRATCH, MINOR);
                    self.by(XOR, SCRATCH, minor as i32);
                    self.with(OR, TEST, SCRATCH);
                }
            }
        }
        self.by(ADD, TEST, -1);
        self.with(OR, MATCH, TEST);
    }

    fn difference(&mut self, node: u8, number: u32) {
        // An immediate number is extended with its sign, which must not reach the bits of the type.
        if let Ok(number) = i32::try_from(number) {
            self.with(MOVE, TEST, node);
            self.by(XOR, TEST, number);
        } else {
            self.by(MOVE_WIDE, TEST, number as i32);
            self.0.push(Insn::new(0, 0, 0, 0, 0));
            self.with(XOR, TEST, node);
        }
    }

    fn end(mut self, otherwise: bool) -> Vec<Insn> {
        if !otherwise {
            self.with(OR, DENIED, OPEN);
        }
        self.by(ADD, DENIED, -1);
        self.by(SHIFT_RIGHT, DENIED, 63); // 1 when nothing was denied
        self.by(EXIT, 0, 0);
        self.0
    }
}

fn emit(table: &Table) -> Vec<Insn> {
    let mut out = Emitter(Vec::with_capacity(24 + 6 * table.rules.len()));
    out.begin(table);
    for group in table.rules.chunk_by(|one, next| one.allow == next.allow && one.access == next.access) {
        out.group(group);
    }
    out.end(table.otherwise)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program on a request as the kernel would; only the operations that we emit.
    fn run(program: &[Insn], request: [u32; 3]) -> bool {
        let mut registers = [0u64; 11];
        let mut at = 0;
        loop {
            let (code, dst, src, offset, imm) = program[at].fields();
            at += 1;
            let old = registers[usize::from(dst)];
            let by_register = code & BY_REGISTER != 0;
            let value = if by_register { registers[usize::from(src)] } else { imm as u64 };
            registers[usize::from(dst)] = match code {
                EXIT => return registers[0] != 0,
                LOAD_WORD => u64::from(request[offset as usize / 4]),
                MOVE_WIDE => {
                    let high = program[at].fields().4;
                    at += 1;
                    u64::from(imm as u32) | (high as u64) << 32
                }
                _ => match code & !BY_REGISTER {
                    ADD => old.wrapping_add(value),
                    OR => old | value,
                    AND => old & value,
                    XOR => old ^ value,
                    MOVE => value,
                    SHIFT_LEFT => old << value,
                    SHIFT_RIGHT => old >> value,
                    SHIFT_SIGN_RIGHT => (old as i64 >> value) as u64,
                    other => panic!("operation {other:#x} is not one of ours"),
                },
            };
        }
    }

    /// The meaning of a list, word for word: each bit is decided by the last rule that speaks of it.
    fn naive(rules: &[Rule], kind: u8, major: u32, minor: u32, access: u8) -> bool {
        [MKNOD, READ, WRITE].into_iter().filter(|bit| access & bit != 0).all(|bit| {
            let speaks = |rule: &&Rule| {
                rule.access & bit != 0
                    && rule.kind.is_none_or(|k| k == kind)
                    && rule.major.is_none_or(|m| m == major)
                    && rule.minor.is_none_or(|m| m == minor)
            };
            rules.iter().rev().find(speaks).is_some_and(|rule| rule.allow)
        })
    }

    fn allows(program: &Option<Program>, kind: u8, major: u32, minor: u32, access: u8) -> bool {
        let request = [u32::from(kind) | u32::from(access) << 16, major, minor];
        program.as_ref().is_none_or(|program| run(&program.0, request))
    }

    fn config(text: &str) -> Vec<LinuxDeviceCgroup> {
        serde_json::from_str(text).unwrap()
    }

    fn plan(text: &str) -> Option<Program> {
        Program::plan(&config(text)).unwrap()
    }

    fn compare(rules: &[Rule], numbers: std::ops::Range<u32>) {
        let table = Table::new(rules.iter().copied());
        let program = (!table.otherwise || !table.rules.is_empty()).then(|| Program(emit(&table)));
        for kind in [BLOCK, CHAR] {
            let nodes = numbers.clone().flat_map(|major| numbers.clone().map(move |minor| (major, minor)));
            for (major, minor) in nodes {
                for access in 1..=ALL {
                    let (ours, right) =
                        (allows(&program, kind, major, minor, access), naive(rules, kind, major, minor, access));
                    assert_eq!(ours, right, "{kind} {major}:{minor} {access} under {rules:?}");
                }
            }
        }
    }

    #[test]
    fn every_list_of_two_rules_means_what_it_says() {
        let mut all = Vec::new();
        for (allow, kind) in [false, true].iter().flat_map(|a| [None, Some(BLOCK), Some(CHAR)].map(|k| (*a, k))) {
            for (major, minor) in [None, Some(1)].iter().flat_map(|a| [None, Some(2)].map(|b| (*a, b))) {
                all.extend((1..=ALL).map(|access| Rule { allow, kind, major, minor, access }));
            }
        }
        for first in &all {
            compare(&[*first], 0..3);
            for second in &all {
                compare(&[*first, *second], 1..3);
            }
        }
    }

    #[test]
    fn long_lists_mean_what_they_say() {
        // A small generator of our own: the same lists in every run.
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut below = |limit: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % limit
        };
        for _ in 0..3000 {
            let rules: Vec<Rule> = (0..below(12))
                .map(|_| Rule {
                    allow: below(2) == 0,
                    kind: [None, Some(BLOCK), Some(CHAR), Some(CHAR)][below(4) as usize],
                    major: [None, Some(0), Some(1), Some(2)][below(4) as usize],
                    minor: [None, Some(0), Some(1), Some(3)][below(4) as usize],
                    access: if below(2) == 0 { ALL } else { 1 + below(7) as u8 },
                })
                .collect();
            compare(&rules, 0..4);
        }
    }

    #[test]
    fn large_numbers_are_told_apart_from_their_neighbours() {
        let numbers = [0, 1, 255, 2047, 2048, 4095];
        let rule = |major, minor| Rule { allow: true, kind: Some(CHAR), major, minor, access: READ };
        for (major, minor) in numbers.iter().flat_map(|&a| [0, 7, 0x7ffff, 0x80000, 0xfffff].map(|b| (a, b))) {
            for rule in [rule(Some(major), Some(minor)), rule(Some(major), None), rule(None, Some(minor))] {
                let program = Some(Program(emit(&Table::new([rule].into_iter()))));
                for (kind, other) in numbers.iter().flat_map(|&n| [(CHAR, n), (BLOCK, n)]) {
                    for number in [minor, 0, 7, 0x7ffff, 0x80000, 0xfffff] {
                        let right = naive(&[rule], kind, other, number, READ);
                        assert_eq!(
                            allows(&program, kind, other, number, READ),
                            right,
                            "{kind} {other}:{number} {rule:?}"
                        );
                    }
                }
            }
        }
        let never = Table::new([rule(Some(4096), Some(1)), rule(Some(1), Some(1 << 20))].into_iter());
        assert!(never.rules.is_empty());
    }

    #[test]
    fn an_absent_list_allows_the_defaults_and_nothing_else() {
        let program = plan("[]");
        for rule in DEFAULTS {
            let (kind, major, minor) = (rule.kind.unwrap_or(BLOCK), rule.major.unwrap_or(77), rule.minor.unwrap_or(3));
            assert!(allows(&program, kind, major, minor, rule.access), "{rule:?}");
        }
        assert!(!allows(&program, CHAR, 1, 11, READ), "kmsg");
        assert!(!allows(&program, CHAR, 5, 1, READ), "the console of the host");
        assert!(!allows(&program, BLOCK, 8, 0, READ));
        assert!(!allows(&program, BLOCK, 8, 0, READ | MKNOD));
    }

    #[test]
    fn a_rule_for_everything_leaves_no_program() {
        assert!(plan(r#"[{"allow":true,"access":"rwm"}]"#).is_none());
        assert!(plan(r#"[{"allow":false,"access":"rwm"},{"allow":true,"access":"mrw"}]"#).is_none());
        assert!(
            plan(r#"[{"allow":true,"access":"rwm"},{"allow":true,"type":"c","major":10,"minor":229,"access":"rwm"}]"#)
                .is_none()
        );
        assert!(plan(r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","major":9,"access":"r"}]"#).is_some());
    }

    #[test]
    fn rules_of_the_config_keep_their_order_and_the_defaults_win() {
        let deny_all = r#"{"allow":false,"access":"rwm"}"#;
        let tun = plan(&format!(
            r#"[{deny_all},{{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}},
                {{"allow":false,"type":"c","major":10,"minor":229,"access":"w"}},
                {{"allow":false,"type":"c","major":1,"minor":3,"access":"rwm"}}]"#
        ));
        assert!(allows(&tun, CHAR, 10, 229, READ));
        assert!(!allows(&tun, CHAR, 10, 229, READ | WRITE));
        assert!(allows(&tun, CHAR, 1, 3, ALL));
        let after = plan(r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"b","access":"rw","major":-1}]"#);
        assert!(allows(&after, BLOCK, 8, 0, MKNOD) && !allows(&after, BLOCK, 8, 0, READ));
    }

    #[test]
    fn rules_that_engines_repeat_cost_nothing() {
        let once = plan(r#"[{"allow":false,"access":"rwm"}]"#).unwrap();
        let engine = plan(
            r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"},
                {"allow":true,"type":"c","major":136,"access":"rwm"},{"allow":true,"type":"b","access":"m"}]"#,
        )
        .unwrap();
        assert_eq!(once.0.len(), engine.0.len());
    }

    #[test]
    fn a_letter_of_access_that_is_none_is_passed_over() {
        let rules = plan(
            r#"[{"allow":true,"type":"c","major":10,"minor":229,"access":"rwa"},
                {"allow":false,"type":"c","major":10,"minor":229,"access":"w W"}]"#,
        );
        assert!(allows(&rules, CHAR, 10, 229, READ) && !allows(&rules, CHAR, 10, 229, WRITE));
    }

    #[test]
    fn a_rule_that_is_none_is_refused_by_its_place() {
        for (rule, words) in [
            (r#"{"allow":true}"#, "access must not be empty"),
            (r#"{"allow":true,"access":"x"}"#, "access \"x\" has none of r, w, m"),
            (r#"{"allow":true,"access":"r","major":-2}"#, "major -2 is not a device number"),
            (r#"{"allow":true,"access":"r","minor":4294967296}"#, "minor 4294967296"),
            (r#"{"allow":true,"access":"r","type":"p"}"#, "device type \"p\" has no rules"),
        ] {
            let error = Program::plan(&config(&format!(r#"[{{"allow":false,"access":"rwm"}},{rule}]"#)));
            let text = error.err().unwrap().to_string();
            assert!(text.contains(words) && text.starts_with("/linux/resources/devices/1: "), "{text}");
        }
    }
}
