//! The rules as eBPF instructions.

use super::rules::{ALL, BLOCK, CHAR, Rule, Table};
use crate::sys::bpf::Insn;

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

/// Where the bits are that only -1 has: as many as there are bits of access, above the type and the numbers.
const ABOVE: i32 = (u64::BITS - ALL.count_ones()) as i32;

// Operations, as `linux/bpf.h` numbers them, on 64 bits.
pub(super) const ADD: u8 = 0x07;
pub(super) const OR: u8 = 0x47;
pub(super) const AND: u8 = 0x57;
pub(super) const SHIFT_LEFT: u8 = 0x67;
pub(super) const SHIFT_RIGHT: u8 = 0x77;
pub(super) const XOR: u8 = 0xa7;
pub(super) const MOVE: u8 = 0xb7;
pub(super) const BY_REGISTER: u8 = 0x08;
pub(super) const LOAD_WORD: u8 = 0x61;
pub(super) const MOVE_WIDE: u8 = 0x18;
pub(super) const EXIT: u8 = 0x95;

/// A program without a single jump, and without a register of which the verifier knows that it is 0 or -1.
///
/// The verifier follows every path through a program, and its cost grows with the square of the tests: 50 rules written
/// as comparisons and jumps take it milliseconds. Here each rule is arithmetic: a difference that is zero when the
/// rule matches, less one, which is then -1 and else far from negative; the signs of a group of rules are collected in
/// one register. What no jump divides is looked at once: 1,000 groups of one rule load in 3 ms.
///
/// Linux 7.0 (and 6.12 and 6.18 in later stable releases) divides more than jumps: where a register in the range -1 to 0,
/// as an arithmetic shift by 63 leaves it, meets a constant in AND or OR, both values are followed from there on. A mask
/// made so doubles the paths with each group, and 16 groups are refused with E2BIG.
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
            self.by(SHIFT_RIGHT, MATCH, ABOVE); // ALL, or nothing
            if access != ALL {
                self.by(AND, MATCH, access.into());
            }
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

pub(super) fn emit(table: &Table) -> Vec<Insn> {
    let mut out = Emitter(Vec::with_capacity(24 + 6 * table.rules.len()));
    out.begin(table);
    for group in table.rules.chunk_by(|one, next| one.allow == next.allow && one.access == next.access) {
        out.group(group);
    }
    out.end(table.otherwise)
}
