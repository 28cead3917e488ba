//! Where libseccomp's verdict may be another, and why.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::libseccomp::alternatives;
use super::*;

/// Why libseccomp's verdict may be another. Every verdict is compared all the same: where it differs, it must be one that the
/// standard read plainly excludes, or for [`Reason::JoinedHalves`] one of several that it leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// Of rules that end alike it shares the end, and with a condition for less or more it then goes on there although the
    /// other rule's first condition does not hold. Of `0 >= 0 && 1 <= 5` and `0 >= 5 && 1 >= 5`, on x32, the first
    /// argument 0 and the second 6: the first rule does not hold, and what comes next is the second half of the second.
    SharedEnd,
    /// It leaves a load out where it takes the word for loaded, and is mistaken in two cases, which its filters show: the
    /// first call of an architecture that is only carried by another there (accept(2) on x86 and s390, semop(2) on those
    /// and ppc64le), where it compares the architecture with the carrier's number; and the upper half of an argument of
    /// which a rule before compared the lower one for less or more, where what it compares depends on the way that led
    /// there.
    ForgottenLoad,
    /// Of two conditions on an argument whose upper halves ask the same it asks once, and what the upper half alone decides
    /// is then decided by the rule that came first. Of `1 != 0` and `1 != 5` with different actions, the argument
    /// 0x1_0000_0005: it takes the first, although of equal lower halves it would take the second.
    JoinedHalves,
    /// A new rule whose conditions but for the first ones are those of an older one, the last of them turned into its
    /// opposite, it takes for a part of the older one, and drops. Of `3 == 2` and then `0 != 7 && 3 != 2`, all arguments 0:
    /// no rule holds.
    LostRule,
}

impl Reason {
    pub(super) fn sentence(self) -> &'static str {
        match self {
            Reason::SharedEnd => "that no rule has: it goes on in another rule whose first condition does not hold",
            Reason::ForgottenLoad => "that no rule has: it compares a word that it has not loaded",
            Reason::LostRule => "of a profile without a rule that it takes for a part of another, and drops",
            Reason::JoinedHalves => "of another rule that holds too: it asks once for two rules' upper half",
        }
    }
}

/// Calls with several rules, one of them of several conditions, and a condition for less or more among them: where
/// [`Reason::SharedEnd`] can be.
pub(super) fn tangled(profile: &Profile, audit: u32) -> BTreeSet<u32> {
    let mut of_number: BTreeMap<u32, Vec<&[Condition]>> = BTreeMap::new();
    let archs = || profile.archs.iter().filter(|arch| arch.audit == audit);
    for &(call, entry) in &profile.named {
        let rules = &profile.entries[usize::from(entry)].alternatives;
        for number in
            archs().flat_map(|arch| call.number(arch).into_iter().chain(call.carried(arch).map(|(number, _)| number)))
        {
            of_number.entry(number).or_default().extend(rules.iter().map(|rule| &rule[..]));
        }
    }
    let is_range =
        |condition: &Condition| matches!(condition.test, Test::Less | Test::AtMost | Test::Greater | Test::AtLeast);
    of_number.retain(|_, rules| {
        rules.len() > 1 && rules.iter().any(|rule| rule.len() > 1) && rules.iter().copied().flatten().any(is_range)
    });
    of_number.into_keys().collect()
}

/// Whether two rules of a call have conditions on one argument with the same upper half, and different verdicts.
pub(super) fn halves_join(profile: &Profile, arch: &Arch, number: u32) -> bool {
    let entries = profile.named.iter().filter(|(call, _)| call.number(arch) == Some(number));
    let entries = entries.map(|&(_, entry)| &profile.entries[usize::from(entry)]);
    let conditions = |entry: &'_ ProfileEntry| -> Vec<(u32, Condition)> {
        entry.alternatives.iter().flatten().map(|condition| (entry.verdict, *condition)).collect()
    };
    let all: Vec<(u32, Condition)> = entries.flat_map(conditions).collect();
    let upper = |condition: &Condition| (condition.arg, condition.value >> 32, condition.mask >> 32);
    all.iter().any(|(verdict, one)| all.iter().any(|(other, two)| verdict != other && upper(one) == upper(two)))
}

/// The profile with each of its names and alternatives in a rule of its own, without those that change nothing.
pub(super) fn singles(profile: &LinuxSeccomp) -> LinuxSeccomp {
    let default = profile.default_action().as_u32(profile.default_errno_ret());
    let mut single = Vec::new();
    for rule in profile.syscalls().iter().flatten() {
        if rule.action().as_u32(rule.errno_ret()) == default {
            continue;
        }
        for name in rule.names() {
            for args in alternatives(rule) {
                let mut rule = serde_json::to_value(rule).unwrap();
                (rule["names"], rule["args"]) = (json!([name]), json!(args));
                single.push(rule);
            }
        }
    }
    let mut value = serde_json::to_value(profile).unwrap();
    value["syscalls"] = single.into();
    serde_json::from_value(value).unwrap()
}

/// What is asked of the arguments before a rule decides about a number; none for a rule that is not about it.
pub(super) fn asked(call: Call, rule: &[Condition], arch: &Arch, number: u32) -> Option<Vec<Condition>> {
    let carried = call.carried(arch).filter(|(carrier, _)| *carrier == number).map(|(_, first)| first);
    if carried.is_none() && call.number(arch) != Some(number) {
        return None;
    }
    let which = carried.map(|first| Condition { arg: 0, test: Test::Equal, mask: u64::MAX, value: first.into() });
    let rest = rule.iter().filter(|condition| carried.is_none() || condition.arg > 0).copied();
    Some(which.into_iter().chain(rest).filter_map(|condition| condition.on(arch.wide)).collect())
}

/// Whether two conditions ask the same and go on at different answers.
pub(super) fn are_opposite(one: &Condition, other: &Condition) -> bool {
    let tests = [(Test::Equal, Test::NotEqual), (Test::Less, Test::AtLeast), (Test::AtMost, Test::Greater)];
    (one.arg, one.mask, one.value) == (other.arg, other.mask, other.value)
        && tests.iter().any(|&(this, that)| [(this, that), (that, this)].contains(&(one.test, other.test)))
}

/// Whether libseccomp drops a rule when the other one is there: see [`Reason::LostRule`].
pub(super) fn is_lost(rule: &[Condition], beside: &[Condition]) -> bool {
    (1..rule.len()).any(|from| {
        let pairs = || rule[from..].iter().zip(beside);
        let alike = pairs().take_while(|(new, old)| new == old).count();
        pairs().nth(alike).is_some_and(|(new, old)| are_opposite(new, old))
    })
}

/// The profile without the rules of a number that libseccomp loses.
pub(super) fn without_lost(profile: &LinuxSeccomp, native: &'static Arch, arch: &Arch, number: u32) -> LinuxSeccomp {
    let single = singles(profile);
    let read = Profile::read(&single, native).unwrap();
    let mut before: Vec<Vec<Condition>> = Vec::new();
    let mut keep = Vec::new();
    for &(call, entry) in &read.named {
        let rule = asked(call, &read.entries[usize::from(entry)].alternatives[0], arch, number);
        keep.push(!rule.as_ref().is_some_and(|rule| before.iter().any(|other| is_lost(rule, other))));
        before.extend(rule);
    }
    let rules = single.syscalls().iter().flatten().zip(keep).filter(|(_, keep)| *keep).map(|(rule, _)| rule.clone());
    let rules = rules.collect();
    let mut kept = single.clone();
    kept.set_syscalls(Some(rules));
    kept
}
