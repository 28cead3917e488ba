//! From verdicts by call number to instructions: a balanced search over ranges of numbers, then the conditions.
//!
//! Before the first condition only the architecture and the number are loaded, and only compared: the kernel then
//! sees by itself (`seccomp_is_const_allow`, Linux 5.11) which calls are always allowed and does not run the
//! program for them at all.

use super::bpf::{Assembler, Compare, Label, Target};
use super::rules::{Condition, Rule, Test};
use super::tables::Arch;

/// What happens to a call of some number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaf {
    Return(u32),
    /// The chain of this place in [`Chains`].
    Chain(usize),
}

/// Rules with conditions, each list once for all calls that have the same.
#[derive(Default)]
pub(super) struct Chains(Vec<Chain>);

struct Chain {
    rules: Vec<Rule>,
    wide: bool,
    big_endian: bool,
    written: Option<Label>,
}

impl Chains {
    pub(super) fn leaf(&mut self, rules: Vec<Rule>, arch: &Arch) -> Leaf {
        let same =
            |chain: &Chain| chain.wide == arch.wide && chain.big_endian == arch.big_endian && chain.rules == rules;
        Leaf::Chain(self.0.iter().position(same).unwrap_or_else(|| {
            self.0.push(Chain { rules, wide: arch.wide, big_endian: arch.big_endian, written: None });
            self.0.len() - 1
        }))
    }
}

/// All call numbers in ranges, by rising start, neighbours different.
#[derive(Debug)]
pub(super) struct Ranges(Vec<Range>);

/// Where a range starts, and what happens from there on.
type Range = (u32, Leaf);

impl Ranges {
    pub(super) fn new(everything: Leaf) -> Ranges {
        Ranges(vec![(0, everything)])
    }

    /// From this number on, which is not below the last one given, calls end in `leaf`.
    pub(super) fn from(&mut self, number: u32, leaf: Leaf) {
        if self.0.last().is_some_and(|&(start, _)| start == number) {
            self.0.pop();
        }
        if self.0.last().is_none_or(|&(_, last)| last != leaf) {
            self.0.push((number, leaf));
        }
    }

    /// Writes the search; the accumulator holds nothing yet.
    pub(super) fn write(&self, out: &mut Assembler, chains: &mut Chains, default: u32) -> Target {
        let search = Search { out, chains, default };
        match self.0[..] {
            [(_, Leaf::Return(verdict))] => Target::Return(verdict),
            _ => search.whole(&self.0),
        }
    }
}

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// How many single numbers are compared one by one rather than by halving.
const SINGLES: usize = 2;

struct Search<'a> {
    out: &'a mut Assembler,
    chains: &'a mut Chains,
    default: u32,
}

impl Search<'_> {
    fn whole(mut self, ranges: &[Range]) -> Target {
        let search = self.halves(ranges, u64::from(u32::MAX) + 1);
        let search = self.out.label(search);
        Target::At(self.out.load(NUMBER, search))
    }

    /// The search in neighbouring ranges that end before `end`.
    fn halves(&mut self, ranges: &[Range], end: u64) -> Target {
        if let Some((common, singles)) = exceptions(ranges, end) {
            let mut target = self.leaf(common);
            for &(number, leaf) in singles.iter().flatten() {
                let leaf = self.leaf(leaf);
                target = Target::At(self.out.branch(Compare::Equal, number, leaf, target));
            }
            return target;
        }
        let (low, high) = ranges.split_at(ranges.len() / 2);
        let middle = high[0].0;
        let high = self.halves(high, end);
        let low = self.halves(low, u64::from(middle));
        Target::At(self.out.branch(Compare::AtLeast, middle, high, low))
    }

    fn leaf(&mut self, leaf: Leaf) -> Target {
        let place = match leaf {
            Leaf::Return(verdict) => return Target::Return(verdict),
            Leaf::Chain(place) => place,
        };
        let label = match self.chains.0[place].written {
            Some(label) => label,
            None => write_chain(self.out, &self.chains.0[place], self.default),
        };
        self.chains.0[place].written = Some(label);
        Target::At(label)
    }
}

/// A leaf that all ranges share but for a few single numbers, with those.
fn exceptions(ranges: &[Range], end: u64) -> Option<(Leaf, [Option<Range>; SINGLES])> {
    if ranges.len() > 2 * SINGLES + 1 {
        return None;
    }
    let end_of = |at: usize| ranges.get(at + 1).map_or(end, |&(next, _)| u64::from(next));
    ranges.iter().take(2).find_map(|&(_, common)| {
        let mut singles = [None; SINGLES];
        let mut free = singles.iter_mut();
        for (at, &(start, leaf)) in ranges.iter().enumerate().filter(|&(_, &(_, leaf))| leaf != common) {
            if end_of(at) != u64::from(start) + 1 {
                return None;
            }
            *free.next()? = Some((start, leaf));
        }
        Some((common, singles))
    })
}

/// Writes the head of the program: which architecture goes where, all others are killed, as libseccomp does.
pub(super) fn write_head(out: &mut Assembler, sections: &[(u32, Target)]) {
    let mut next = Target::Return(libc::SECCOMP_RET_KILL_THREAD);
    for &(audit, section) in sections.iter().rev() {
        next = Target::At(out.branch(Compare::Equal, audit, section, next));
    }
    let first = out.label(next);
    out.load(ARCH, first);
}

/// Writes rules that are tried one after the other, and `default` when none holds.
fn write_chain(out: &mut Assembler, chain: &Chain, default: u32) -> Label {
    let mut words = Words { out, wide: chain.wide, big_endian: chain.big_endian };
    let mut next = Entry::to(Target::Return(default));
    for rule in chain.rules.iter().rev() {
        let mut yes = Entry::to(Target::Return(rule.verdict));
        for condition in rule.conditions.iter().rev() {
            yes = words.condition(condition, yes, &mut next);
        }
        next = yes;
    }
    let start = next.start(words.out);
    words.out.label(start)
}

/// A place to go on that begins with the load of a word, which can be spared if the accumulator holds that already.
#[derive(Clone, Copy)]
struct Entry {
    /// With the load; written only when somebody needs it.
    start: Option<Target>,
    /// Behind the load of the word at this offset.
    loaded: Option<(u32, Label)>,
}

impl Entry {
    fn to(target: Target) -> Entry {
        Entry { start: Some(target), loaded: None }
    }

    fn behind(offset: u32, label: Label) -> Entry {
        Entry { start: None, loaded: Some((offset, label)) }
    }

    fn start(&mut self, out: &mut Assembler) -> Target {
        match (self.start, self.loaded) {
            (Some(start), _) => start,
            (None, Some((offset, label))) => *self.start.insert(Target::At(out.load(offset, label))),
            (None, None) => unreachable!("an entry has one of both"),
        }
    }

    fn holding(&mut self, offset: u32, out: &mut Assembler) -> Target {
        match self.loaded {
            Some((held, label)) if held == offset => Target::At(label),
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
    fn condition(&mut self, condition: &Condition, mut yes: Entry, no: &mut Entry) -> Entry {
        let (value, mask) = (condition.value, condition.mask);
        let base = ARGS + 8 * u32::from(condition.arg);
        let (lower, upper) = if self.big_endian { (base + 4, base) } else { (base, base + 4) };
        let (low, high) = (value as u32, (value >> 32) as u32);
        let mut above = |test: Compare, yes: &mut Entry, no: &mut Entry| {
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

    fn compare(&mut self, test: Compare, offset: u32, value: u32, yes: &mut Entry, no: &mut Entry) -> Entry {
        let yes = yes.holding(offset, self.out);
        let no = no.holding(offset, self.out);
        Entry::behind(offset, self.out.branch(test, value, yes, no))
    }

    fn masked(&mut self, offset: u32, mask: u32, value: u32, yes: &mut Entry, no: &mut Entry) -> Entry {
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
        Entry::behind(offset, self.out.and(mask, compared))
    }
}
