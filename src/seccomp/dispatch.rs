//! From verdicts by call number to instructions: a balanced search over ranges of numbers.
//!
//! As short as comparisons make it, since loading costs the kernel time for every instruction: single numbers between
//! two ranges with the same verdict are compared one by one, and an architecture goes through another's search where both
//! agree: x32 through x86_64's, and all through the first one's for calls since Linux 5.1, which are numbered alike.
//! Halves are chosen by how many numbers lie in them and how often programs call those: the kernel itself tries every
//! number when a filter is loaded.
//!
//! Before the first condition only the architecture and the number are loaded, and only compared or cut: the kernel then
//! sees by itself (`seccomp_is_const_allow`, Linux 5.11) which calls are always allowed and does not run the
//! program for them at all.

use super::bpf::{Assembler, Compare, JumpTarget};
use super::chain::Chains;
use super::tables::X32_BIT;

/// What happens to a call of some number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaf {
    Return(u32),
    /// The chain of this place in [`Chains`].
    Chain(usize),
    /// What happens to the call of the same number in the search that was written before.
    AsThere,
}

/// Call numbers in ranges, by rising start, neighbours different.
#[derive(Clone, Debug)]
pub(super) struct Ranges {
    list: Vec<NumberRange>,
    /// The number after the last.
    end: u64,
}

/// Where a range starts, and what happens from there on.
type NumberRange = (u32, Leaf);

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

    /// What happens to the call of this number; `None` where it is not among these.
    pub(super) fn leaf(&self, number: u32) -> Option<Leaf> {
        let leaf = self.list.iter().take_while(|&&(start, _)| start <= number).last()?.1;
        (u64::from(number) < self.end).then_some(leaf)
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

    /// These ranges beside others: what is the same there, from a number on, is told so. The last range stays.
    fn beside(&self, other: &Ranges, from: u32) -> Ranges {
        let mut beside = Ranges { list: Vec::with_capacity(self.list.len()), end: self.end };
        let last = self.list[self.list.len() - 1].0;
        if u64::from(last) > other.end {
            return self.clone();
        }
        let mut theirs = other.list.iter().peekable();
        let mut their = other.list[0].1;
        for (at, &(start, own)) in self.list.iter().enumerate() {
            while let Some(&(_, leaf)) = theirs.next_if(|&&(number, _)| number <= start) {
                their = leaf;
            }
            let told = |number: u32, their: Leaf| match own == their && number >= from && number < last {
                true => Leaf::AsThere,
                false => own,
            };
            beside.from(start, told(start, their));
            let end = self.list.get(at + 1).map_or(start, |&(next, _)| next);
            while let Some(&(number, leaf)) = theirs.next_if(|&&(number, _)| number < end) {
                their = leaf;
                beside.from(number, told(number, their));
            }
        }
        beside
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
const SINGLES: usize = 3;

/// How much more a call weighs that programs make often, beside one that they do not.
const HOT: u32 = 60;

/// Numbers from here on weigh nothing: no call has them.
const USED: u64 = 480;

/// Neighbouring numbers that end in one leaf, but for a few.
struct Piece {
    start: u32,
    leaf: Leaf,
    singles: Vec<NumberRange>,
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
    let mut search = Search { out: Assembler::default(), chains, default, nodes: Vec::new() };
    let mut heads: Vec<(u32, JumpTarget)> = Vec::with_capacity(sections.len());
    let mut first: Vec<SearchNode> = Vec::new();
    for section in sections {
        let Section { lower, hot, .. } = section;
        let (target, nodes) = match heads.is_empty() {
            true => search.ranges(lower, hot, &[]),
            false => search.ranges(&lower.beside(&sections[0].lower, ALIKE), hot, &first),
        };
        let target = search.with_upper(section, target, &nodes);
        heads.push((section.audit, target));
        if first.is_empty() {
            first = nodes;
        }
    }
    let killed = JumpTarget::Return(libc::SECCOMP_RET_KILL_THREAD);
    let mut out = search.out;
    let elsewhere = elsewhere.iter().map(|&audit| (audit, JumpTarget::Return(libc::SECCOMP_RET_ALLOW)));
    let first = elsewhere
        .chain(heads.into_iter().rev())
        .fold(killed, |next, (audit, section)| JumpTarget::At(out.branch(Compare::Equal, audit, section, next)));
    let first = out.label(first);
    out.load(ARCH, first);
    out
}

/// New calls have the same number on nearly all architectures from here on.
const ALIKE: u32 = 424;

struct Search<'a> {
    out: Assembler,
    chains: &'a mut Chains,
    default: u32,
    /// Where the search that is being written stands for which numbers; parts come before what they are parts of.
    nodes: Vec<SearchNode>,
}

/// First number, the one after the last, and the place.
type SearchNode = (u32, u64, JumpTarget);

impl Search<'_> {
    /// The search in a section's lower numbers and what it has above them; `nodes` are those of the former.
    fn with_upper(&mut self, section: &Section, lower: JumpTarget, nodes: &[SearchNode]) -> JumpTarget {
        let Some(upper) = &section.upper else { return self.loaded(lower) };
        let (mut others, _) = self.ranges(&upper.others, &[], &[]);
        if let Some(x32) = &upper.x32 {
            let own = match self.ranges(&x32.beside(&section.lower, 0), &[], nodes) {
                (JumpTarget::At(label), _) => JumpTarget::At(self.out.and(!X32_BIT, label)),
                (verdict, _) => verdict,
            };
            others = self.branch(upper.others.list[0].0, others, own);
        }
        let both = self.branch(X32_BIT, others, lower);
        self.loaded(both)
    }

    /// Loads the number, if anybody asks for it.
    fn loaded(&mut self, target: JumpTarget) -> JumpTarget {
        match target {
            JumpTarget::Return(_) => target,
            JumpTarget::At(label) => JumpTarget::At(self.out.load(NUMBER, label)),
        }
    }

    fn branch(&mut self, number: u32, from_there: JumpTarget, below: JumpTarget) -> JumpTarget {
        match from_there == below {
            true => below,
            false => JumpTarget::At(self.out.branch(Compare::AtLeast, number, from_there, below)),
        }
    }

    /// Writes the search in these ranges, and tells its parts.
    fn ranges(&mut self, ranges: &Ranges, hot: &[u32], there: &[SearchNode]) -> (JumpTarget, Vec<SearchNode>) {
        let target = self.halves(&ranges.pieces(hot), ranges.end, there);
        (target, std::mem::take(&mut self.nodes))
    }

    /// The search in neighbouring pieces that end before `end`.
    fn halves(&mut self, pieces: &[Piece], end: u64, there: &[SearchNode]) -> JumpTarget {
        let target = match pieces {
            [piece] => self.piece(piece, end, there),
            _ => {
                let (low, high) = pieces.split_at(middle(pieces));
                let start = high[0].start;
                // What is written last comes next, and a jump to the next instruction is the shortest for the kernel.
                if let [Piece { singles, .. }] = low
                    && singles.is_empty()
                {
                    let low = self.halves(low, start.into(), there);
                    let high = self.halves(high, end, there);
                    self.branch(start, high, low)
                } else {
                    let high = self.halves(high, end, there);
                    let low = self.halves(low, start.into(), there);
                    self.branch(start, high, low)
                }
            }
        };
        self.nodes.push((pieces[0].start, end, target));
        target
    }

    fn piece(&mut self, piece: &Piece, end: u64, there: &[SearchNode]) -> JumpTarget {
        let common = self.leaf(piece.leaf, piece.start, end, there);
        piece.singles.iter().rev().fold(common, |next, &(number, leaf)| {
            let leaf = self.leaf(leaf, number, u64::from(number) + 1, there);
            JumpTarget::At(self.out.branch(Compare::Equal, number, leaf, next))
        })
    }

    /// Where calls with a number of `start..end` end.
    fn leaf(&mut self, leaf: Leaf, start: u32, end: u64, there: &[SearchNode]) -> JumpTarget {
        match leaf {
            Leaf::Return(verdict) => JumpTarget::Return(verdict),
            Leaf::Chain(place) => JumpTarget::At(self.chains.label(place, &mut self.out, self.default)),
            Leaf::AsThere => {
                // The smallest part of that search that has them all.
                let holds = |&&(from, to, _): &&SearchNode| from <= start && end <= to;
                there.iter().find(holds).expect("the whole search has all its numbers").2
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
