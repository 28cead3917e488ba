//! `linux.resources.devices`: the rules as one eBPF program on the container's cgroup.
//!
//! The meaning: each access bit (read, write, mknod) of a request is decided by the last rule that speaks of it; what
//! no rule speaks of is denied; a request passes when all its bits do. [`DEFAULTS`] come after the rules of the config,
//! so every container can use them. There are no rules that cannot be expressed, so none is an error.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::error::{Context, Result, bail, ensure};
use crate::sys::Errno;
use crate::sys::bpf::{self, Insn};

/// What every container may do, wherever it is not in the list of the config: make any node, and use the
/// nodes that the standard wants in `/dev`, pseudo-terminals and network tunnels.
#[rustfmt::skip]
const DEFAULTS: &[Rule] = &[
    Rule { allow: true, kind: Some(CHAR),  major: None,      minor: None,      access: MKNOD },
    Rule { allow: true, kind: Some(BLOCK), major: None,      minor: None,      access: MKNOD },
    Rule { allow: true, kind: Some(CHAR),  major: Some(1),   minor: Some(3),   access: ALL }, // null
    Rule { allow: true, kind: Some(CHAR),  major: Some(1),   minor: Some(8),   access: ALL }, // random
    Rule { allow: true, kind: Some(CHAR),  major: Some(1),   minor: Some(7),   access: ALL }, // full
    Rule { allow: true, kind: Some(CHAR),  major: Some(5),   minor: Some(0),   access: ALL }, // tty
    Rule { allow: true, kind: Some(CHAR),  major: Some(1),   minor: Some(5),   access: ALL }, // zero
    Rule { allow: true, kind: Some(CHAR),  major: Some(1),   minor: Some(9),   access: ALL }, // urandom
    Rule { allow: true, kind: Some(CHAR),  major: Some(136), minor: None,      access: ALL }, // pts/*
    Rule { allow: true, kind: Some(CHAR),  major: Some(5),   minor: Some(2),   access: ALL }, // ptmx
    Rule { allow: true, kind: Some(CHAR),  major: Some(10),  minor: Some(200), access: ALL }, // net/tun
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
        let mut bits = 0;
        for letter in access.chars() {
            bits |= match letter {
                'm' => MKNOD,
                'r' => READ,
                'w' => WRITE,
                other => bail!("access {access:?}: {other:?} is none of r, w, m"),
            };
        }
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

    fn speaks_of_everything(&self) -> bool {
        self.kind.is_none() && self.major.is_none() && self.minor.is_none() && self.access == ALL
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
            if rule.access & !spoken_of == 0 {
                continue;
            }
            if rule.speaks_of_everything() {
                table.otherwise = rule.allow;
                break;
            }
            table.rules.push(rule);
        }
        // The rules that are asked last and say what would happen anyhow.
        while table.rules.pop_if(|last| last.allow == table.otherwise).is_some() {}
        table
    }
}

/// A compiled device program.
pub(super) struct Program(Vec<Insn>);

impl Program {
    /// Compiles the rules of the config followed by the defaults; `None` when they allow everything.
    ///
    /// Unlike `runc`, a rule of type `a` keeps its numbers and its access bits, as the standard writes it.
    pub(super) fn plan(config: &[LinuxDeviceCgroup]) -> Result<Option<Program>> {
        let mut rules = Vec::with_capacity(config.len() + DEFAULTS.len());
        for (index, rule) in config.iter().enumerate() {
            rules.push(Rule::plan(rule).field(|| format!("/linux/resources/devices/{index}"))?);
        }
        rules.extend(DEFAULTS);
        let table = Table::new(rules.into_iter());
        if table.otherwise && table.rules.is_empty() {
            return Ok(None);
        }
        // Jumps reach 32767 instructions and a rule takes at most five.
        if table.rules.len() > 6000 {
            bail!("{} rules are more than one program can hold", table.rules.len());
        }
        Ok(Some(Program(emit(&table))))
    }

    /// Loads the program and puts it on a cgroup that has none yet.
    pub(super) fn attach(&self, cgroup: BorrowedFd) -> Result<()> {
        let done = self.load().and_then(|program| bpf::attach_device_program(cgroup, program.as_fd()));
        done.or_else(tolerate).field(|| "/linux/resources/devices")
    }

    #[cfg(test)]
    pub(super) fn load_for_test(&self) -> OwnedFd {
        self.load().unwrap()
    }

    fn load(&self) -> Result<OwnedFd, Errno> {
        bpf::load_device_program(&self.0, c"Apache-2.0")
    }
}

/// Makes `wanted` the only program on a cgroup, without a moment in which there is none.
pub(super) fn replace(cgroup: BorrowedFd, wanted: Option<&Program>) -> Result<()> {
    let swap = || {
        let old = bpf::device_programs(cgroup)?;
        let new = wanted.map(Program::load).transpose()?;
        match (&new, old.as_slice()) {
            (Some(new), [only]) => return bpf::replace_device_program(cgroup, only.as_fd(), new.as_fd()),
            (Some(new), _) => bpf::attach_device_program(cgroup, new.as_fd())?,
            (None, _) => {}
        }
        old.iter().try_for_each(|program| bpf::detach_device_program(cgroup, program.as_fd()))
    };
    swap().or_else(tolerate).field(|| "/linux/resources/devices")
}

/// In a user namespace there is neither a right to bpf(2) nor one to make device nodes: nothing is lost.
fn tolerate(errno: Errno) -> Result<()> {
    let sentence = "attach the device program to the cgroup";
    if errno == Errno::EPERM && in_user_namespace() {
        log::warn!("device rules are not enforced: {sentence}: {}", crate::error::words(errno));
        return Ok(());
    }
    Err(errno).context(sentence)
}

fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.is_empty() && !map.split_whitespace().eq(["0", "0", "4294967295"])
}

// Registers: r0 the answer, r1 the context (`struct bpf_cgroup_dev_ctx`), r2 the type, r3 the bits of the
// request that are still open, r4 the major, r5 the minor number.
const EXIT: Insn = Insn::new(0x95, 0, 0, 0, 0);

const fn answer(allow: bool) -> Insn {
    Insn::new(0xb7, 0, 0, 0, allow as i32)
}

const fn load_word(into: u8, offset: i16) -> Insn {
    Insn::new(0x61, into, 1, offset, 0)
}

/// Writes the program from its end to its start, so that the distance of every jump is known: an instruction pushed
/// when `n` are there has `n` behind it.
fn emit(table: &Table) -> Vec<Insn> {
    let mut out = vec![EXIT, answer(false)];
    let to_exit = |out: &Vec<Insn>| out.len() as i16 - 1;
    let to_deny = |out: &Vec<Insn>| out.len() as i16 - 2;
    if table.otherwise {
        out.push(Insn::new(0x05, 0, 0, to_exit(&out), 0)); // always
    }
    for rule in table.rules.iter().rev() {
        let next_rule = out.len();
        match (rule.allow, rule.access) {
            (true, ALL) => out.push(EXIT),
            (true, bits) => {
                out.push(Insn::new(0x16, 3, 0, to_exit(&out), 0)); // when no bit is open any more
                out.push(Insn::new(0x54, 3, 0, 0, i32::from(ALL & !bits)));
            }
            (false, bits) => out.push(Insn::new(0x46, 3, 0, to_deny(&out), i32::from(bits))), // when one of these is open
        }
        for (register, number) in [(5, rule.minor), (4, rule.major), (2, rule.kind.map(u32::from))] {
            let Some(number) = number else { continue };
            let distance = (out.len() - next_rule) as i16;
            out.push(Insn::new(0x56, register, 0, distance, number as i32)); // unless equal
        }
    }
    out.extend([
        answer(true),
        load_word(5, 8),
        load_word(4, 4),
        Insn::new(0x74, 3, 0, 0, 16),     // the high half: the access bits
        Insn::new(0x54, 2, 0, 0, 0xffff), // the low half: the type
        Insn::new(0xbc, 3, 2, 0, 0),      // r3 = r2
        load_word(2, 0),
    ]);
    out.reverse();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program on a request as the kernel would; only the instructions that we emit.
    fn run(program: &[Insn], request: [u32; 3]) -> bool {
        let mut registers = [0u64; 11];
        let mut at = 0usize;
        loop {
            let (code, dst, src, offset, imm) = program[at].fields();
            at += 1;
            let (dst, src, value) = (usize::from(dst), usize::from(src), imm as u32);
            let low = registers[dst] as u32;
            let jump = match code {
                0x61 if src == 1 => {
                    registers[dst] = u64::from(request[offset as usize / 4]);
                    false
                }
                0xbc => {
                    registers[dst] = u64::from(registers[src] as u32);
                    false
                }
                0x54 => {
                    registers[dst] = u64::from(low & value);
                    false
                }
                0x74 => {
                    registers[dst] = u64::from(low >> value);
                    false
                }
                0xb7 => {
                    registers[dst] = imm as u64;
                    false
                }
                0x05 => true,
                0x16 => low == value,
                0x56 => low != value,
                0x46 => low & value != 0,
                0x95 => return registers[0] != 0,
                other => panic!("instruction {other:#x} is not one of ours"),
            };
            assert!(offset >= 0 || !jump, "a jump back");
            at += if jump { offset as usize } else { 0 };
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
    fn an_absent_list_allows_the_defaults_and_nothing_else() {
        let program = plan("[]");
        for rule in DEFAULTS {
            let (kind, major, minor) = (rule.kind.unwrap(), rule.major.unwrap_or(77), rule.minor.unwrap_or(3));
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
    fn a_rule_that_is_none_is_refused_by_its_place() {
        for (rule, words) in [
            (r#"{"allow":true}"#, "access must not be empty"),
            (r#"{"allow":true,"access":"rx"}"#, "'x' is none of r, w, m"),
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
