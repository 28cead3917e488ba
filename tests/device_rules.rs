//! `linux.resources.devices` in lists longer than engines write, loaded into the kernel and asked there.

use std::path::Path;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::{Value, json};

use crate::harness::{Bundle, known_difference};

/// A rule of the list; `None` is any number.
#[derive(Clone, Copy)]
struct Rule {
    allow: bool,
    kind: char,
    major: Option<u64>,
    minor: Option<u64>,
    access: &'static str,
}

impl Rule {
    fn json(&self) -> Value {
        let Rule { allow, kind, major, minor, access } = self;
        let number = |number: &Option<u64>| number.map_or(-1, |number| number as i64);
        json!({"allow": allow, "type": kind, "major": number(major), "minor": number(minor), "access": access})
    }
}

/// A node that is asked about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Node {
    kind: char,
    major: u64,
    minor: u64,
}

impl Node {
    fn name(&self) -> String {
        format!("/nodes/{}-{}-{}", self.kind, self.major, self.minor)
    }

    fn make(&self, rootfs: &Path) {
        let kind = if self.kind == 'b' { SFlag::S_IFBLK } else { SFlag::S_IFCHR };
        let path = rootfs.join(&self.name()[1..]);
        mknod(&path, kind, Mode::from_bits_truncate(0o666), makedev(self.major, self.minor)).expect("make a device");
    }

    /// What the list says, word for word: the last rule that speaks of a letter decides on it.
    fn allowed(&self, rules: &[Rule], letter: char) -> bool {
        let speaks = |rule: &&Rule| {
            let numbers = rule.major.is_none_or(|n| n == self.major) && rule.minor.is_none_or(|n| n == self.minor);
            rule.kind == self.kind && numbers && rule.access.contains(letter)
        };
        rules.iter().rev().find(speaks).is_some_and(|rule| rule.allow)
    }

    /// The line that `probe access` should print.
    fn expected(&self, rules: &[Rule]) -> String {
        let (read, write) = (self.allowed(rules, 'r'), self.allowed(rules, 'w'));
        let word = |allowed| if allowed { "ok" } else { "EPERM" };
        format!("{} {} {} {}\n", self.name(), word(read), word(write), word(read && write))
    }
}

/// A small generator (xorshift): the same numbers below a limit in every run.
fn numbers() -> impl FnMut(usize) -> usize {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move |limit| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % limit as u64) as usize
    }
}

/// The same rules in several orders, with a name each.
fn orders(rules: &[Rule]) -> Vec<(&'static str, Vec<Rule>)> {
    let (allowed, denied): (Vec<Rule>, Vec<Rule>) = rules.iter().partition(|rule| rule.allow);
    let mut below = numbers();
    let mut shuffled = rules.to_vec();
    for last in (1..shuffled.len()).rev() {
        shuffled.swap(last, below(last + 1));
    }
    vec![
        ("in turn", rules.to_vec()),
        ("backwards", rules.iter().rev().copied().collect()),
        ("denied first", denied.iter().chain(&allowed).copied().collect()),
        ("allowed first", allowed.iter().chain(&denied).copied().collect()),
        ("shuffled", shuffled),
    ]
}

/// Runs a container under these rules, after one that denies everything, which looks at the nodes.
#[track_caller]
fn hold(order: &str, rules: &[Rule], nodes: &[Node]) {
    let mut list = vec![json!({"allow": false, "access": "rwm"})];
    list.extend(rules.iter().map(Rule::json));
    let bundle = Bundle::new().dir("/nodes", 0o755).set("/linux/resources/devices", list);
    nodes.iter().for_each(|node| node.make(&bundle.rootfs()));
    let names = nodes.iter().map(Node::name);
    let seen = bundle.args(["probe".to_owned(), "access".to_owned()].into_iter().chain(names)).run().ok().stdout();
    let right: String = nodes.iter().map(|node| node.expected(rules)).collect();
    for (line, right) in seen.lines().zip(right.lines()) {
        assert_eq!(line, right, "with {} rules, {order}", rules.len());
    }
    assert_eq!(seen, right);
    let closed = seen.lines().filter(|line| line.ends_with("EPERM EPERM EPERM")).count();
    assert!((5..nodes.len() - 5).contains(&closed), "{closed} of {} nodes are closed, {order}", nodes.len());
}

/// Nodes that rules of the list name, and as many in which two rules meet.
fn meetings(rules: &[Rule]) -> Vec<Node> {
    let mut below = numbers();
    let mut nodes: Vec<Node> = (0..120)
        .map(|turn| {
            let (one, other) = (rules[below(rules.len())], rules[below(rules.len())]);
            let minor = if turn % 2 == 0 { one.minor.or(other.minor) } else { other.minor.or(one.minor) };
            Node { kind: one.kind, major: one.major.or(other.major).unwrap_or(299), minor: minor.unwrap_or(299) }
        })
        .collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// From Linux 7.0 on the verifier can double its paths at each change between allow and deny, and refuse sixteen of them.
#[test]
fn a_thousand_devices_allowed_and_denied_in_turn_are_what_the_list_says() {
    let rule = |index: u64| Rule {
        allow: index.is_multiple_of(2),
        kind: if index.is_multiple_of(3) { 'b' } else { 'c' },
        major: Some(300 + index % 700),
        minor: Some(index * 900),
        access: ["rwm", "rw", "r", "w", "wm"][index as usize / 2 % 5],
    };
    let few = known_difference("runc", "a list of this length is refused with E2BIG")
        || known_difference("crun", "a list of this length takes more than 20 s");
    let rules: Vec<Rule> = (0..if few { 30 } else { 1000 }).map(rule).collect();
    let nodes = meetings(&rules);
    for (name, order) in orders(&rules) {
        hold(name, &order, &nodes);
    }
}

/// Each allowed major number meets each denied minor number, so none of the rules can be left out or change places.
#[test]
fn a_thousand_rules_that_cross_each_other_are_decided_by_the_last() {
    if known_difference("runc", "a rule that denies takes away one that is equal but for its access, and no other")
        || known_difference("crun", "a request to read and write is not denied by a rule on one of them")
    {
        return;
    }
    let rule = |index: u64| {
        let (number, access) = (Some(300 + index / 2), ["rwm", "rw", "r", "w"][index as usize / 8 % 4]);
        let allow = index.is_multiple_of(2);
        let (major, minor) = if allow { (number, None) } else { (None, number) };
        Rule { allow, kind: if index % 16 < 12 { 'c' } else { 'b' }, major, minor, access }
    };
    let rules: Vec<Rule> = (0..1000).map(rule).collect();
    let nodes = meetings(&rules);
    for (name, order) in orders(&rules) {
        hold(name, &order, &nodes);
    }
}
