//! From verdicts by call number to instructions: a balanced search over ranges of numbers.
//!
//! As short as comparisons make it, since loading costs the kernel time for every instruction: single numbers between
//! two ranges with the same verdict are compared one by one, and x32 goes through x86_64's search wherever both agree.
//! Halves are chosen by how many numbers lie in them and how often programs call those: the kernel itself tries every
//! number when a filter is loaded.
//!
//! Before the first condition only the architecture and the number are loaded, and only compared or cut: the kernel then
//! sees by itself (`seccomp_is_const_allow`, Linux 5.11) which calls are always allowed and does not run the
//! program for them at all.

use super::bpf::{Assembler, Compare, Target};
use super::chain::Chains;
use super::tables::X32_BIT;

/// What happens to a call of some number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaf {
    Return(u32),
    /// The chain of this place in [`Chains`].
    Chain(usize),
    /// What happens to x86_64's call of the same number.
    AsOnX86_64,
}

/// Call numbers in ranges, by rising start, neighbours different.
#[derive(Clone, Debug)]
pub(super) struct Ranges {
    list: Vec<Range>,
    /// The number after the last.
    end: u64,
}

/// Where a range starts, and what happens from there on.
type Range = (u32, Leaf);

impl Ranges {
    pub(super) fn new(numbers: std::ops::Range<u64>, everything: Leaf) -> Ranges {
        Ranges { list: vec![(numbers.start as u32, everything)], end: numbers.end }
    }

    /// From this number on, which is not below the last one given, calls end in `leaf`.
    pub(super) fn from(&mut self, number: u32, leaf: Leaf) {
        if self.list.last().is_some_and(|&(start, _)| start == number) {
            self.list.pop();
        }
        if self.list.last().is_none_or(|&(_, last)| last != leaf) {
            self.list.push((number, leaf));
        }
    }

    pub(super) fn leaves(&self) -> impl Iterator<Item = Leaf> {
        self.list.iter().map(|&(_, leaf)| leaf)
    }

    /// The same numbers, but ranges of which `keep` says no end in `leaf`.
    pub(super) fn only(&self, mut keep: impl FnMut() -> bool, leaf: Leaf) -> Ranges {
        let mut only = Ranges { list: Vec::with_capacity(self.list.len()), end: self.end };
        for &(start, own) in &self.list {
            only.from(start, if keep() { own } else { leaf });
        }
        only
    }

    /// These ranges beside others of the same numbers: what is the same there is told so.
    fn beside(&self, other: &Ranges) -> Ranges {
        let mut beside = Ranges { list: Vec::with_capacity(self.list.len()), end: self.end };
        let (mut ours, mut theirs) = (self.list.iter().peekable(), other.list.iter().peekable());
        let (mut own, mut their) = (self.list[0].1, other.list[0].1);
        loop {
            let next = |list: &mut std::iter::Peekable<std::slice::Iter<Range>>| {
                list.peek().map_or(self.end, |&&(start, _)| u64::from(start))
            };
            let start = next(&mut ours).min(next(&mut theirs));
            if start >= self.end {
                return beside;
            }
            if let Some(&(_, leaf)) = ours.next_if(|&&(from, _)| u64::from(from) == start) {
                own = leaf;
            }
            if let Some(&(_, leaf)) = theirs.next_if(|&&(from, _)| u64::from(from) == start) {
                their = leaf;
            }
            beside.from(start as u32, if own == their { Leaf::AsOnX86_64 } else { own });
        }
    }

    /// Cut into pieces that are told apart by halving.
    fn pieces(&self, hot: &[u32]) -> Vec<Piece> {
        let end_of = |at: usize| self.list.get(at + 1).map_or(self.end, |&(next, _)| u64::from(next));
        let mut pieces: Vec<Piece> = Vec::with_capacity(self.list.len() / 2 + 1);
        let mut at = 0;
        while let Some(&(start, leaf)) = self.list.get(at) {
            let mut piece = Piece { start, leaf, singles: Vec::new(), weight: 0 };
            let mut last = at;
            let single_after = |last: usize| match self.list[last + 1..] {
                [single, (after, again), ..] if again == leaf && after == single.0 + 1 => Some(single),
                _ => None,
            };
            while let Some(single) = single_after(last).filter(|_| piece.singles.len() < SINGLES) {
                piece.singles.push(single);
                last += 2;
            }
            // What would be too many singles goes to a piece of its own, which begins with the last range of this one.
            let full = single_after(last).is_some();
            let end = if full { u64::from(self.list[last].0) } else { end_of(last) };
            at = if full { last } else { last + 1 };
            piece.weigh(end, hot);
            pieces.push(piece);
        }
        pieces
    }
}

/// How many single numbers are compared one by one rather than by halving.
const SINGLES: usize = 4;

/// How much more a call weighs that programs make often, beside one that they do not.
const HOT: u32 = 40;

/// Numbers from here on weigh nothing: no call has them.
const USED: u64 = 480;

/// Neighbouring numbers that end in one leaf, but for a few.
struct Piece {
    start: u32,
    leaf: Leaf,
    singles: Vec<Range>,
    weight: u32,
}

impl Piece {
    fn weigh(&mut self, end: u64, hot: &[u32]) {
        let (first, end) = (u64::from(self.start), end);
        let used = |number: u64| number.min(USED) as u32;
        let called = hot.iter().filter(|&&number| (first..end).contains(&u64::from(number))).count() as u32;
        // No piece is for nothing, so that the search stays shallow for all of them.
        self.weight = used(end) - used(first) + HOT * called + 4;
        self.singles.sort_by_key(|(number, _)| !hot.contains(number));
    }
}

/// What one `AUDIT_ARCH_*` number stands for.
#[derive(Clone)]
pub(super) struct Section {
    pub(super) audit: u32,
    /// All numbers, or those below [`X32_BIT`] if there are `upper` ones.
    pub(super) lower: Ranges,
    pub(super) upper: Option<Upper>,
    /// Numbers of calls that programs make often.
    pub(super) hot: Vec<u32>,
}

/// What x86_64 has from [`X32_BIT`] on.
#[derive(Clone)]
pub(super) struct Upper {
    /// The numbers of x32 without the bit; the others lie behind them then.
    pub(super) x32: Option<Ranges>,
    pub(super) others: Ranges,
}

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;

/// Writes a whole program. Calls of an architecture of `elsewhere` are allowed, those of unknown ones are killed, as
/// libseccomp does.
pub(super) fn write(sections: &[Section], elsewhere: &[u32], chains: &mut Chains, default: u32) -> Assembler {
    chains.forget_places();
    let mut search = Search { out: Assembler::default(), chains, default, nodes: Vec::new(), x86_64: Vec::new() };
    let mut heads: Vec<(u32, Target)> =
        elsewhere.iter().map(|&audit| (audit, Target::Return(libc::SECCOMP_RET_ALLOW))).collect();
    // Backwards, so that the native architecture, the first, lies next to the head and is asked for first.
    for section in sections.iter().rev() {
        let target = search.section(section);
        heads.push((section.audit, target));
    }
    let mut out = search.out;
    let killed = Target::Return(libc::SECCOMP_RET_KILL_THREAD);
    let first = heads
        .into_iter()
        .fold(killed, |next, (audit, section)| Target::At(out.branch(Compare::Equal, audit, section, next)));
    let first = out.label(first);
    out.load(ARCH, first);
    out
}

struct Search<'a> {
    out: Assembler,
    chains: &'a mut Chains,
    default: u32,
    /// Where the search stands for which numbers: first, end, place.
    nodes: Vec<Node>,
    /// The same of x86_64, for x32.
    x86_64: Vec<Node>,
}

type Node = (u32, u64, Target);

impl Search<'_> {
    fn section(&mut self, section: &Section) -> Target {
        self.nodes.clear();
        let lower = self.ranges(&section.lower, &section.hot);
        self.x86_64 = std::mem::take(&mut self.nodes);
        let Some(upper) = &section.upper else { return self.loaded(lower) };
        let mut others = self.ranges(&upper.others, &[]);
        if let Some(x32) = &upper.x32 {
            let own = x32.beside(&section.lower);
            let own = self.ranges(&own, &[]);
            let own = match own {
                Target::Return(_) => own,
                Target::At(label) => Target::At(self.out.and(!X32_BIT, label)),
            };
            others = self.branch(upper.others.list[0].0, others, own);
        }
        let both = self.branch(X32_BIT, others, lower);
        self.loaded(both)
    }

    /// Loads the number, if anybody asks for it.
    fn loaded(&mut self, target: Target) -> Target {
        match target {
            Target::Return(_) => target,
            Target::At(label) => Target::At(self.out.load(NUMBER, label)),
        }
    }

    fn branch(&mut self, number: u32, from_there: Target, below: Target) -> Target {
        match from_there == below {
            true => below,
            false => Target::At(self.out.branch(Compare::AtLeast, number, from_there, below)),
        }
    }

    fn ranges(&mut self, ranges: &Ranges, hot: &[u32]) -> Target {
        self.halves(&ranges.pieces(hot), ranges.end)
    }

    /// The search in neighbouring pieces that end before `end`.
    fn halves(&mut self, pieces: &[Piece], end: u64) -> Target {
        let target = match pieces {
            [piece] => self.piece(piece, end),
            _ => {
                let (low, high) = pieces.split_at(middle(pieces));
                let start = high[0].start;
                // What is written last comes next, and a jump to the next instruction is the shortest for the kernel.
                if let [Piece { singles, .. }] = low
                    && singles.is_empty()
                {
                    let low = self.halves(low, start.into());
                    let high = self.halves(high, end);
                    self.branch(start, high, low)
                } else {
                    let high = self.halves(high, end);
                    let low = self.halves(low, start.into());
                    self.branch(start, high, low)
                }
            }
        };
        self.nodes.push((pieces[0].start, end, target));
        target
    }

    fn piece(&mut self, piece: &Piece, end: u64) -> Target {
        let common = self.leaf(piece.leaf, piece.start, end);
        piece.singles.iter().rev().fold(common, |next, &(number, leaf)| {
            let leaf = self.leaf(leaf, number, u64::from(number) + 1);
            Target::At(self.out.branch(Compare::Equal, number, leaf, next))
        })
    }

    /// Where calls with a number of `start..end` end.
    fn leaf(&mut self, leaf: Leaf, start: u32, end: u64) -> Target {
        match leaf {
            Leaf::Return(verdict) => Target::Return(verdict),
            Leaf::Chain(place) => Target::At(self.chains.label(place, &mut self.out, self.default)),
            Leaf::AsOnX86_64 => {
                // The smallest part of the search that has them all; parts come before what they are parts of.
                let holds = |&&(from, to, _): &&Node| from <= start && end <= to;
                self.x86_64.iter().find(holds).map_or(Target::Return(self.default), |&(_, _, target)| target)
            }
        }
    }
}

/// Where pieces are halved: both sides weigh the same, as far as can be.
fn middle(pieces: &[Piece]) -> usize {
    let whole: u32 = pieces.iter().map(|piece| piece.weight).sum();
    let mut below = 0;
    for (at, piece) in pieces.iter().enumerate() {
        // Nearer to the half before this piece than behind it?
        if at > 0 && 2 * below + piece.weight >= whole {
            return at;
        }
        below += piece.weight;
    }
    pieces.len() - 1
}
