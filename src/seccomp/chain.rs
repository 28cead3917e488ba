//! The conditions of a call's rules as instructions.
//!
//! Rules are tried one after the other. A value is compared by its lower half first, which tells values apart; the
//! upper half follows only then, and once for rules in a row that share it.

use super::bpf::{Assembler, Compare, JumpTarget, Label};
use super::rules::{Condition, Rule, Test};
use super::tables::Arch;

/// Where the arguments begin in `struct seccomp_data`.
pub(super) const ARGS: u32 = 16;

/// Lists of rules with conditions, each once for all calls that have the same.
#[derive(Default)]
pub(super) struct Chains(Vec<Chain>);

struct Chain {
    rules: Vec<Rule>,
    wide: bool,
    big_endian: bool,
    /// Where it lies in the program that is being written.
    written: Option<Label>,
}

impl Chains {
    /// The place of these rules in the list.
    pub(super) fn keep(&mut self, rules: Vec<Rule>, arch: &Arch) -> usize {
        let same = |chain: &Chain| {
            chain.wide == arch.wide && chain.big_endian == arch.big_endian && decide_alike(&chain.rules, &rules)
        };
        self.0.iter().position(same).unwrap_or_else(|| {
            self.0.push(Chain { rules, wide: arch.wide, big_endian: arch.big_endian, written: None });
            self.0.len() - 1
        })
    }

    /// Another program begins.
    pub(super) fn forget_places(&mut self) {
        self.0.iter_mut().for_each(|chain| chain.written = None);
    }

    /// Where the rules of this place begin; they are written when nothing led there yet.
    pub(super) fn label(&mut self, place: usize, out: &mut Assembler, default: u32) -> Label {
        let chain = &mut self.0[place];
        match chain.written {
            Some(label) => label,
            None => *chain.written.insert(write(out, &chain.rules, chain.wide, chain.big_endian, default)),
        }
    }

    /// How many conditions these rules have, about.
    pub(super) fn conditions(&self, place: usize) -> usize {
        self.0[place].rules.iter().map(|rule| rule.conditions.len()).sum()
    }
}

/// Whether two lists of rules are the same but for where they were written.
fn decide_alike(one: &[Rule], other: &[Rule]) -> bool {
    let facts = |rule: &Rule| (rule.verdict, rule.conditions.len());
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| facts(one) == facts(other) && one.conditions == other.conditions)
}

/// Writes rules that are tried one after the other, and `default` when none holds.
fn write(out: &mut Assembler, rules: &[Rule], wide: bool, big_endian: bool, default: u32) -> Label {
    let mut words = Words { out, wide, big_endian };
    let mut next = ChainEntry::to(JumpTarget::Return(default));
    for row in rules.chunk_by(differ_in_lower_half).rev() {
        let mut yes = ChainEntry::to(JumpTarget::Return(row[0].verdict));
        if let [rule] = row {
            for condition in rule.conditions.iter().rev() {
                yes = words.condition(condition, yes, &mut next);
            }
            next = yes;
        } else {
            next = words.any_of(row.iter().map(|rule| &rule.conditions[0]), yes, next);
        }
    }
    let start = next.start(words.out);
    words.out.label(start)
}

/// Whether two rules only ask for different lower halves of one argument, for the same verdict.
fn differ_in_lower_half(one: &Rule, other: &Rule) -> bool {
    let ([one_asks], [other_asks]) = (&one.conditions[..], &other.conditions[..]) else { return false };
    let equal = |condition: &Condition| condition.test == Test::Equal;
    one.verdict == other.verdict
        && equal(one_asks)
        && equal(other_asks)
        && one_asks.arg == other_asks.arg
        && one_asks.value >> 32 == other_asks.value >> 32
}

/// A place to go on that begins with the load of a word, which can be spared if the accumulator holds that already.
#[derive(Clone, Copy)]
struct ChainEntry {
    /// With the load; written only when somebody needs it.
    start: Option<JumpTarget>,
    /// Behind the load of the word at this offset.
    loaded: Option<(u32, Label)>,
}

impl ChainEntry {
    fn to(target: JumpTarget) -> ChainEntry {
        ChainEntry { start: Some(target), loaded: None }
    }

    fn behind(offset: u32, label: Label) -> ChainEntry {
        ChainEntry { start: None, loaded: Some((offset, label)) }
    }

    fn start(&mut self, out: &mut Assembler) -> JumpTarget {
        match (self.start, self.loaded) {
            (Some(start), _) => start,
            (None, Some((offset, label))) => *self.start.insert(JumpTarget::At(out.load(offset, label))),
            (None, None) => unreachable!("an entry has one of both"),
        }
    }

    fn holding(&mut self, offset: u32, out: &mut Assembler) -> JumpTarget {
        match self.loaded {
            Some((held, label)) if held == offset => JumpTarget::At(label),
            _ => self.start(out),
        }
    }
}

struct Words<'a> {
    out: &'a mut Assembler,
    wide: bool,
    big_endian: bool,
}

impl Words<'_> {
    /// Equality of one argument with any of several values that share their upper half.
    fn any_of<'a>(
        &mut self,
        values: impl DoubleEndedIterator<Item = &'a Condition> + Clone,
        mut yes: ChainEntry,
        mut no: ChainEntry,
    ) -> ChainEntry {
        let Some(first) = values.clone().next() else { return no };
        let (lower, upper) = self.halves(first.arg);
        let high = (first.value >> 32) as u32;
        // Whose upper half differs equals none of them.
        let mut rest = if self.wide { self.compare(Compare::Equal, upper, high, &mut yes, &mut no) } else { yes };
        values.rev().fold(no, |mut next, condition| {
            self.compare(Compare::Equal, lower, condition.value as u32, &mut rest, &mut next)
        })
    }

    /// Where the lower and the upper half of an argument lie.
    fn halves(&self, arg: u8) -> (u32, u32) {
        let base = ARGS + 8 * u32::from(arg);
        if self.big_endian { (base + 4, base) } else { (base, base + 4) }
    }

    fn condition(&mut self, condition: &Condition, mut yes: ChainEntry, no: &mut ChainEntry) -> ChainEntry {
        let (value, mask) = (condition.value, condition.mask);
        let (lower, upper) = self.halves(condition.arg);
        let (low, high) = (value as u32, (value >> 32) as u32);
        let mut above = |test: Compare, yes: &mut ChainEntry, no: &mut ChainEntry| {
            let low = self.compare(test, lower, low, yes, no);
            if !self.wide {
                return low;
            }
            let mut low = low;
            let mut equal = self.compare(Compare::Equal, upper, high, &mut low, no);
            self.compare(Compare::Greater, upper, high, yes, &mut equal)
        };
        match condition.test {
            Test::Greater => above(Compare::Greater, &mut yes, no),
            Test::AtLeast => above(Compare::AtLeast, &mut yes, no),
            Test::Less => above(Compare::AtLeast, no, &mut yes),
            Test::AtMost => above(Compare::Greater, no, &mut yes),
            // The lower half first: it tells values apart, and rules in a row compare the same word.
            Test::Equal => {
                let mut rest = if self.wide { self.compare(Compare::Equal, upper, high, &mut yes, no) } else { yes };
                self.compare(Compare::Equal, lower, low, &mut rest, no)
            }
            Test::NotEqual => {
                let mut rest = if self.wide { self.compare(Compare::Equal, upper, high, no, &mut yes) } else { *no };
                self.compare(Compare::Equal, lower, low, &mut rest, &mut yes)
            }
            Test::Masked => {
                let mut rest = yes;
                if self.wide && mask >> 32 != 0 {
                    rest = self.masked(upper, (mask >> 32) as u32, high, &mut yes, no);
                }
                if mask as u32 == 0 { rest } else { self.masked(lower, mask as u32, low, &mut rest, no) }
            }
        }
    }

    fn compare(
        &mut self,
        test: Compare,
        offset: u32,
        value: u32,
        yes: &mut ChainEntry,
        no: &mut ChainEntry,
    ) -> ChainEntry {
        let yes = yes.holding(offset, self.out);
        let no = no.holding(offset, self.out);
        ChainEntry::behind(offset, self.out.branch(test, value, yes, no))
    }

    fn masked(&mut self, offset: u32, mask: u32, value: u32, yes: &mut ChainEntry, no: &mut ChainEntry) -> ChainEntry {
        if value == 0 {
            return self.compare(Compare::AnyBit, offset, mask, no, yes);
        }
        if mask.is_power_of_two() {
            return self.compare(Compare::AnyBit, offset, mask, yes, no);
        }
        if mask == u32::MAX {
            return self.compare(Compare::Equal, offset, value, yes, no);
        }
        let yes = yes.start(self.out);
        let no = no.start(self.out);
        let compared = self.out.branch(Compare::Equal, value, yes, no);
        ChainEntry::behind(offset, self.out.and(mask, compared))
    }
}
