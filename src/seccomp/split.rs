//! Programs too long for the kernel, cut into several that are loaded one after the other.
//!
//! The kernel runs all of them for each call and takes the strictest verdict (seccomp(2)). Each part decides about its own
//! numbers and allows all others, the mildest verdict, so together they decide as one program.

use super::chain::Chains;
use super::dispatch::{self, Leaf, Section, Upper};
use super::profile::pointer;
use super::tables::{Arch, Call};
use super::{Error, Instruction, MOST_INSTRUCTIONS, Result};

const ALLOWED: Leaf = Leaf::Return(libc::SECCOMP_RET_ALLOW);

/// The most instructions of all filters of a process (`MAX_INSNS_PER_PATH`); each filter counts four more than it has.
const MOST_TOGETHER: usize = 32768;

/// Writes sections as few programs.
pub(super) fn parts(
    sections: Vec<Section>,
    chains: &mut Chains,
    default: u32,
    native: &Arch,
) -> Result<Vec<Vec<Instruction>>> {
    let whole = dispatch::write(&sections, &[], chains, default).finish();
    if whole.len() <= MOST_INSTRUCTIONS {
        return Ok(vec![whole]);
    }
    let too_long = |count: usize, most: usize, why: &str| {
        let sentence = format!("the profile compiles to {count} instructions{why}, and the kernel accepts {most}");
        Error::new(sentence).field(pointer(format_args!("/syscalls")))
    };
    let audits: Vec<u32> = sections.iter().map(|section| section.audit).collect();
    let mut parts = Vec::new();
    let mut open = vec![sections];
    while let Some(sections) = open.pop() {
        let is_elsewhere = |audit: &&u32| !sections.iter().any(|section| section.audit == **audit);
        let elsewhere: Vec<u32> = audits.iter().filter(is_elsewhere).copied().collect();
        let part = dispatch::write(&sections, &elsewhere, chains, default).finish();
        if part.len() <= MOST_INSTRUCTIONS {
            parts.push((decides_on_loading(&sections, native), part));
            continue;
        }
        let Some([one, other]) = halve(&sections, chains) else {
            return Err(too_long(part.len(), MOST_INSTRUCTIONS, " for one system call"));
        };
        open.extend([other, one]);
    }
    // The part that decides about seccomp(2) is last, since that call loads the others.
    parts.sort_by_key(|&(decides_on_loading, _)| decides_on_loading);
    let parts: Vec<Vec<Instruction>> = parts.into_iter().map(|(_, part)| part).collect();
    let together = parts.iter().map(|part| part.len() + 4).sum();
    if together > MOST_TOGETHER {
        return Err(too_long(together, MOST_TOGETHER, " in several filters"));
    }
    if parts.iter().filter(|part| notifies(part)).count() > 1 {
        return Err(too_long(
            whole.len(),
            MOST_INSTRUCTIONS,
            " for one filter, as only one may have a notify descriptor",
        ));
    }
    Ok(parts)
}

/// Whether a part may do anything but allow seccomp(2), be it for some arguments only: those are not known here.
fn decides_on_loading(sections: &[Section], native: &Arch) -> bool {
    let Some(number) = Call::named("seccomp").and_then(|call| call.number(native)) else { return false };
    sections.iter().filter(|section| section.audit == native.audit).any(|section| {
        let x32 = || section.upper.as_ref()?.x32.as_ref()?.leaf(number & !native.bit);
        section.lower.leaf(number).or_else(x32).is_some_and(|leaf| leaf != ALLOWED)
    })
}

/// Whether a program has notified calls.
pub(super) fn notifies(part: &[Instruction]) -> bool {
    let ret = (libc::BPF_RET | libc::BPF_K) as u16;
    part.iter().any(|instruction| instruction.code == ret && instruction.k == libc::SECCOMP_RET_USER_NOTIF)
}

/// Two lists of sections that decide about half of it each, if there is more than one thing to decide.
fn halve(sections: &[Section], chains: &Chains) -> Option<[Vec<Section>; 2]> {
    let [section] = sections else {
        let (one, other) = sections.split_at(sections.len() / 2);
        return Some([one.to_vec(), other.to_vec()]);
    };
    let weigh = |leaf: Leaf| match leaf {
        ALLOWED => 0,
        Leaf::Chain(place) => 1 + chains.conditions(place),
        _ => 1,
    };
    let weights: Vec<usize> = leaves(section).map(weigh).collect();
    if weights.iter().filter(|weight| **weight > 0).count() < 2 {
        return None;
    }
    let whole: usize = weights.iter().sum();
    let mut below = 0;
    // The first range that leads beyond the half begins the other part, unless nothing were left for this one.
    let cut = weights.iter().position(|weight| {
        let full = below > 0 && 2 * (below + weight) > whole;
        below += weight;
        full
    })?;
    Some([vec![only(section, |place| place < cut)], vec![only(section, |place| place >= cut)]])
}

fn leaves(section: &Section) -> impl Iterator<Item = Leaf> {
    let upper = section.upper.iter().flat_map(|upper| upper.x32.iter().chain([&upper.others]));
    std::iter::once(&section.lower).chain(upper).flat_map(|ranges| ranges.leaves())
}

/// A section that only decides about some of its ranges, counted as [`leaves`] does.
fn only(section: &Section, keep: impl Fn(usize) -> bool) -> Section {
    let mut place = 0;
    let mut keep = || {
        place += 1;
        keep(place - 1)
    };
    let lower = section.lower.only(&mut keep, ALLOWED);
    let upper = section.upper.as_ref().map(|upper| Upper {
        x32: upper.x32.as_ref().map(|x32| x32.only(&mut keep, ALLOWED)),
        others: upper.others.only(&mut keep, ALLOWED),
    });
    Section { audit: section.audit, lower, upper, hot: section.hot.clone() }
}
