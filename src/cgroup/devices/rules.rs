//! Rules about devices, and which of them decides.

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::error::{Result, bail, ensure};

// The kernel's numbers: BPF_DEVCG_DEV_*, BPF_DEVCG_ACC_*.
pub(super) const BLOCK: u8 = 1;
pub(super) const CHAR: u8 = 2;
pub(super) const MKNOD: u8 = 1;
pub(super) const READ: u8 = 2;
pub(super) const WRITE: u8 = 4;
pub(super) const ALL: u8 = MKNOD | READ | WRITE;

/// Type, major and minor number; `None` stands for "any".
type Nodes = (Option<u8>, Option<u32>, Option<u32>);

/// One rule; `None` stands for "any".
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rule {
    pub(super) allow: bool,
    pub(super) kind: Option<u8>,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    pub(super) access: u8,
}

impl Rule {
    pub(super) fn plan(rule: &LinuxDeviceCgroup) -> Result<Rule> {
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

    /// The sets of nodes that hold all nodes of this rule: with each of its fields or any; some come twice.
    fn held_by(&self) -> impl Iterator<Item = Nodes> {
        let Rule { kind, major, minor, .. } = *self;
        (0..8).map(move |keep: u8| {
            let kept = |field: u8| keep & field != 0;
            (kind.filter(|_| kept(1)), major.filter(|_| kept(2)), minor.filter(|_| kept(4)))
        })
    }

    pub(super) fn spans_all_nodes(&self) -> bool {
        self.kind.is_none() && self.major.is_none() && self.minor.is_none()
    }

    /// The kernel has 12 bits for the major and 20 for the minor number.
    fn can_match(&self) -> bool {
        self.major.is_none_or(|major| major < 1 << 12) && self.minor.is_none_or(|minor| minor < 1 << 20)
    }
}

/// What a letter of `access` stands for.
pub(super) fn bit(letter: char) -> Option<u8> {
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

/// The rules as the program reads them: first match first, nothing in it that cannot matter.
pub(super) struct Table {
    pub(super) rules: Vec<Rule>,
    /// What happens to bits that no rule speaks of.
    pub(super) otherwise: bool,
}

impl Table {
    /// Turns "last rule wins" into "first rule wins" and drops what can't matter.
    pub(super) fn new(in_order: impl DoubleEndedIterator<Item = Rule>) -> Table {
        let mut table = Table { rules: Vec::new(), otherwise: false };
        // Which access to which nodes has been spoken of. Comparing each rule with all winners instead would take longer
        // than the kernel does to load them, from 1,000 rules on.
        let mut winners: BTreeMap<Nodes, u8> = BTreeMap::new();
        for rule in in_order.rev() {
            let spoken_of =
                rule.held_by().filter_map(|nodes| winners.get(&nodes)).fold(0, |bits, access| bits | access);
            if rule.access & !spoken_of == 0 || !rule.can_match() {
                continue;
            }
            if rule.spans_all_nodes() && rule.access == ALL {
                table.otherwise = rule.allow;
                break;
            }
            *winners.entry((rule.kind, rule.major, rule.minor)).or_default() |= rule.access;
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
