//! The rules of one system call on one architecture: which of them decides.
//!
//! The order is libseccomp's, since profiles are written for it: a rule without conditions beats all others, the
//! first of several such wins; among rules with conditions the one that looks at the higher argument comes first,
//! then equality before upper bounds before lower bounds, then the larger value (for upper bounds the smaller);
//! rules that begin with the same condition stay together and are ordered by the next one.

use std::cmp::Ordering;

/// What an argument is compared with. Values are as wide as the architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) arg: u8,
    pub(super) test: Test,
    /// The bits looked at: all but for [`Test::Masked`].
    pub(super) mask: u64,
    pub(super) value: u64,
}

/// The operators of the standard (`SCMP_CMP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
    Masked,
}

impl Test {
    fn rank(self) -> u8 {
        match self {
            Test::Equal | Test::NotEqual | Test::Masked => 3,
            Test::AtMost | Test::Less => 2,
            Test::AtLeast | Test::Greater => 1,
        }
    }

    /// What the half of the value that holds the higher bits is tested for; the same for a test and its opposite.
    fn upper_kind(self) -> u8 {
        match self {
            Test::Equal | Test::NotEqual => 0,
            Test::Masked => 1,
            _ => 2,
        }
    }

    fn lower_kind(self) -> u8 {
        match self {
            Test::Equal | Test::NotEqual => 0,
            Test::Masked => 1,
            Test::Greater | Test::AtMost => 2,
            Test::AtLeast | Test::Less => 3,
        }
    }
}

/// Conditions that must all hold, by rising argument, each argument at most once, and the verdict then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) verdict: u32,
    /// Which element of `syscalls` it is of.
    pub(super) entry: u16,
}

/// The rules of a call in the order in which they are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rules {
    Always { verdict: u32, entry: u16 },
    Tried(Vec<Rule>),
}

/// Two rules for the same arguments with different verdicts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conflict;

impl Condition {
    /// The condition as an architecture sees it: cut to 32 bits where it has no more. Nothing if it always holds.
    pub(super) fn on(mut self, wide: bool) -> Option<Condition> {
        if !wide {
            self.mask &= 0xffff_ffff;
        }
        self.value &= self.mask;
        (self.mask != 0).then_some(self)
    }

    /// Where a condition stands beside an earlier one: `Less` before it, `Greater` after, `None` for the same.
    fn place(&self, earlier: &Condition, wide: bool) -> Option<Ordering> {
        if self.arg != earlier.arg {
            return Some(earlier.arg.cmp(&self.arg));
        }
        let upper = |condition: &Condition| (condition.value >> 32, condition.mask >> 32);
        let lower = |condition: &Condition| (condition.value & 0xffff_ffff, condition.mask & 0xffff_ffff);
        if wide && (self.test.upper_kind(), upper(self)) != (earlier.test.upper_kind(), upper(earlier)) {
            return Some(rank(self, earlier, upper));
        }
        if (self.test.lower_kind(), lower(self)) != (earlier.test.lower_kind(), lower(earlier)) {
            return Some(rank(self, earlier, lower));
        }
        // The same numbers with opposite tests never hold together, so their order is free.
        (self.test != earlier.test).then_some(Ordering::Greater)
    }
}

fn rank(new: &Condition, earlier: &Condition, half: impl Fn(&Condition) -> (u64, u64)) -> Ordering {
    let (new_value, earlier_value) = (half(new).0, half(earlier).0);
    let by_value = match earlier.test {
        Test::Less | Test::AtMost => new_value.cmp(&earlier_value),
        _ => earlier_value.cmp(&new_value),
    };
    earlier.test.rank().cmp(&new.test.rank()).then(by_value).then(Ordering::Greater)
}

impl Rules {
    /// Adds a rule as libseccomp's `seccomp_rule_add(3)` does.
    pub(super) fn add(&mut self, rule: Rule, wide: bool) -> Result<(), Conflict> {
        let Rules::Tried(list) = self else { return Ok(()) };
        if rule.conditions.is_empty() {
            *self = Rules::Always { verdict: rule.verdict, entry: rule.entry };
            return Ok(());
        }
        // All rules in `from..to` begin with the first `depth` conditions of the new one.
        let (mut from, mut to) = (0, list.len());
        for (depth, condition) in rule.conditions.iter().enumerate() {
            let begins_alike = |other: &Rule| condition.place(&other.conditions[depth], wide);
            let mut at = from;
            let alike = loop {
                if at == to {
                    break None;
                }
                if list[at].conditions.len() == depth {
                    return Ok(()); // a rule that asks for less already decides
                }
                match begins_alike(&list[at]) {
                    None => break Some(at),
                    Some(Ordering::Less) => break None,
                    Some(_) => at += 1,
                }
            };
            let Some(first) = alike else {
                list.insert(at, rule);
                return Ok(());
            };
            from = first;
            to = (first..to).find(|&other| begins_alike(&list[other]).is_some()).unwrap_or(to);
        }
        if list[from..to].iter().any(|other| other.verdict != rule.verdict) {
            return Err(Conflict);
        }
        list.splice(from..to, [rule]);
        Ok(())
    }
}
