//! Programs run on requests, beside what the rules say word for word.

use super::emitter::*;
use super::*;

/// Runs a program on a request as the kernel would; only the operations that we emit.
fn run(program: &[Insn], request: [u32; 3]) -> bool {
    let mut registers = [0u64; 11];
    let mut at = 0;
    loop {
        let (code, dst, src, offset, imm) = program[at].fields();
        at += 1;
        let old = registers[usize::from(dst)];
        let by_register = code & BY_REGISTER != 0;
        let value = if by_register { registers[usize::from(src)] } else { imm as u64 };
        registers[usize::from(dst)] = match code {
            EXIT => return registers[0] != 0,
            LOAD_WORD => u64::from(request[offset as usize / 4]),
            MOVE_WIDE => {
                let high = program[at].fields().4;
                at += 1;
                u64::from(imm as u32) | (high as u64) << 32
            }
            _ => match code & !BY_REGISTER {
                ADD => old.wrapping_add(value),
                OR => old | value,
                AND => old & value,
                XOR => old ^ value,
                MOVE => value,
                SHIFT_LEFT => old << value,
                SHIFT_RIGHT => old >> value,
                other => panic!("operation {other:#x} is not one of ours"),
            },
        };
    }
}

/// The meaning of a list, word for word: each bit is decided by the last rule that speaks of it.
fn naive(rules: &[Rule], kind: u8, major: u32, minor: u32, access: u8) -> bool {
    [MKNOD, READ, WRITE].into_iter().filter(|bit| access & bit != 0).all(|bit| {
        let speaks = |rule: &&Rule| {
            rule.access & bit != 0
                && rule.kind.is_none_or(|k| k == kind)
                && rule.major.is_none_or(|m| m == major)
                && rule.minor.is_none_or(|m| m == minor)
        };
        rules.iter().rev().find(speaks).is_some_and(|rule| rule.allow)
    })
}

fn allows(program: &Option<Program>, kind: u8, major: u32, minor: u32, access: u8) -> bool {
    let request = [u32::from(kind) | u32::from(access) << 16, major, minor];
    program.as_ref().is_none_or(|program| run(&program.0, request))
}

fn config(text: &str) -> Vec<LinuxDeviceCgroup> {
    serde_json::from_str(text).unwrap()
}

fn plan(text: &str) -> Option<Program> {
    Program::plan(&config(text)).unwrap()
}

fn compare(rules: &[Rule], numbers: std::ops::Range<u32>) {
    let table = Table::new(rules.iter().copied());
    let program = (!table.otherwise || !table.rules.is_empty()).then(|| Program(emit(&table)));
    for kind in [BLOCK, CHAR] {
        let nodes = numbers.clone().flat_map(|major| numbers.clone().map(move |minor| (major, minor)));
        for (major, minor) in nodes {
            for access in 1..=ALL {
                let (ours, right) =
                    (allows(&program, kind, major, minor, access), naive(rules, kind, major, minor, access));
                assert_eq!(ours, right, "{kind} {major}:{minor} {access} under {rules:?}");
            }
        }
    }
}

/// A small generator of our own (xorshift): the same numbers below a limit in every run.
fn numbers() -> impl FnMut(u64) -> u64 {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    move |limit| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % limit
    }
}

#[test]
fn every_list_of_two_rules_means_what_it_says() {
    let mut all = Vec::new();
    for (allow, kind) in [false, true].iter().flat_map(|a| [None, Some(BLOCK), Some(CHAR)].map(|k| (*a, k))) {
        for (major, minor) in [None, Some(1)].iter().flat_map(|a| [None, Some(2)].map(|b| (*a, b))) {
            all.extend((1..=ALL).map(|access| Rule { allow, kind, major, minor, access }));
        }
    }
    for first in &all {
        compare(&[*first], 0..3);
        for second in &all {
            compare(&[*first, *second], 1..3);
        }
    }
}

#[test]
fn long_lists_mean_what_they_say() {
    let mut below = numbers();
    for _ in 0..3000 {
        let rules: Vec<Rule> = (0..below(12))
            .map(|_| Rule {
                allow: below(2) == 0,
                kind: [None, Some(BLOCK), Some(CHAR), Some(CHAR)][below(4) as usize],
                major: [None, Some(0), Some(1), Some(2)][below(4) as usize],
                minor: [None, Some(0), Some(1), Some(3)][below(4) as usize],
                access: if below(2) == 0 { ALL } else { 1 + below(7) as u8 },
            })
            .collect();
        compare(&rules, 0..4);
    }
}

/// Lists like those that made the verifier give up: hardly two neighbours have the same verdict on the same bits.
#[test]
fn a_thousand_rules_mean_what_they_say_in_any_order() {
    let mut below = numbers();
    for list in 0..24 {
        let mut node = || [(); 2].map(|()| Some(below(if list % 2 == 0 { 40 } else { 2000 }) as u32));
        let mut rules: Vec<Rule> = (0..1000)
            .map(|index| {
                let [major, minor] = node();
                let (major, minor) = match index % 16 {
                    13 => (major, None),
                    14 => (None, minor),
                    _ => (major, minor),
                };
                let kind = [Some(CHAR), Some(BLOCK), Some(CHAR), None][index / 3 % 4];
                let access = [READ, WRITE, READ | WRITE, ALL, READ | MKNOD][index / 2 % 5];
                Rule { allow: index % 2 == 0, kind, major, minor, access }
            })
            .collect();
        if list % 3 != 0 {
            for last in (1..rules.len()).rev() {
                rules.swap(last, below(last as u64 + 1) as usize);
            }
        }
        let table = Table::new(rules.iter().copied());
        assert!(table.rules.len() > 600, "{} rules are left to be tested", table.rules.len());
        let program = Some(Program(emit(&table)));
        for _ in 0..300 {
            // Nodes that rules name, their neighbours, and those that are named in halves.
            let (one, other) = (rules[below(1000) as usize], rules[below(1000) as usize]);
            let major = one.major.unwrap_or(7) + below(2) as u32;
            let minor = if below(2) == 0 { one.minor } else { other.minor }.unwrap_or(7);
            let (kind, access) = ([BLOCK, CHAR][below(2) as usize], 1 + below(7) as u8);
            let (ours, right) =
                (allows(&program, kind, major, minor, access), naive(&rules, kind, major, minor, access));
            assert_eq!(ours, right, "{kind} {major}:{minor} {access} under list {list}");
        }
    }
}

#[test]
fn large_numbers_are_told_apart_from_their_neighbours() {
    let numbers = [0, 1, 255, 2047, 2048, 4095];
    let rule = |major, minor| Rule { allow: true, kind: Some(CHAR), major, minor, access: READ };
    for (major, minor) in numbers.iter().flat_map(|&a| [0, 7, 0x7ffff, 0x80000, 0xfffff].map(|b| (a, b))) {
        for rule in [rule(Some(major), Some(minor)), rule(Some(major), None), rule(None, Some(minor))] {
            let program = Some(Program(emit(&Table::new([rule].into_iter()))));
            for (kind, other) in numbers.iter().flat_map(|&n| [(CHAR, n), (BLOCK, n)]) {
                for number in [minor, 0, 7, 0x7ffff, 0x80000, 0xfffff] {
                    let right = naive(&[rule], kind, other, number, READ);
                    assert_eq!(allows(&program, kind, other, number, READ), right, "{kind} {other}:{number} {rule:?}");
                }
            }
        }
    }
    let never = Table::new([rule(Some(4096), Some(1)), rule(Some(1), Some(1 << 20))].into_iter());
    assert!(never.rules.is_empty());
}

#[test]
fn an_absent_list_allows_the_defaults_and_nothing_else() {
    let program = plan("[]");
    for rule in DEFAULTS {
        let (kind, major, minor) = (rule.kind.unwrap_or(BLOCK), rule.major.unwrap_or(77), rule.minor.unwrap_or(3));
        assert!(allows(&program, kind, major, minor, rule.access), "{rule:?}");
    }
    assert!(!allows(&program, CHAR, 1, 11, READ), "kmsg");
    assert!(!allows(&program, CHAR, 5, 1, READ), "the console of the host");
    assert!(!allows(&program, BLOCK, 8, 0, READ));
    assert!(!allows(&program, BLOCK, 8, 0, READ | MKNOD));
}

#[test]
fn a_rule_for_everything_leaves_no_program() {
    assert!(plan(r#"[{"allow":true,"access":"rwm"}]"#).is_none());
    assert!(plan(r#"[{"allow":false,"access":"rwm"},{"allow":true,"access":"mrw"}]"#).is_none());
    assert!(
        plan(r#"[{"allow":true,"access":"rwm"},{"allow":true,"type":"c","major":10,"minor":229,"access":"rwm"}]"#)
            .is_none()
    );
    assert!(plan(r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","major":9,"access":"r"}]"#).is_some());
}

#[test]
fn rules_of_the_config_keep_their_order_and_the_defaults_win() {
    let deny_all = r#"{"allow":false,"access":"rwm"}"#;
    let tun = plan(&format!(
        r#"[{deny_all},{{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}},
            {{"allow":false,"type":"c","major":10,"minor":229,"access":"w"}},
            {{"allow":false,"type":"c","major":1,"minor":3,"access":"rwm"}}]"#
    ));
    assert!(allows(&tun, CHAR, 10, 229, READ));
    assert!(!allows(&tun, CHAR, 10, 229, READ | WRITE));
    assert!(allows(&tun, CHAR, 1, 3, ALL));
    let after = plan(r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"b","access":"rw","major":-1}]"#);
    assert!(allows(&after, BLOCK, 8, 0, MKNOD) && !allows(&after, BLOCK, 8, 0, READ));
}

#[test]
fn rules_that_engines_repeat_cost_nothing() {
    let once = plan(r#"[{"allow":false,"access":"rwm"}]"#).unwrap();
    let engine = plan(
        r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"},
            {"allow":true,"type":"c","major":136,"access":"rwm"},{"allow":true,"type":"b","access":"m"}]"#,
    )
    .unwrap();
    assert_eq!(once.0.len(), engine.0.len());
}

#[test]
fn a_letter_of_access_that_is_none_is_passed_over() {
    let rules = plan(
        r#"[{"allow":true,"type":"c","major":10,"minor":229,"access":"rwa"},
            {"allow":false,"type":"c","major":10,"minor":229,"access":"w W"}]"#,
    );
    assert!(allows(&rules, CHAR, 10, 229, READ) && !allows(&rules, CHAR, 10, 229, WRITE));
}

#[test]
fn a_rule_that_is_none_is_refused_by_its_place() {
    for (rule, words) in [
        (r#"{"allow":true}"#, "access must not be empty"),
        (r#"{"allow":true,"access":"x"}"#, "access \"x\" has none of r, w, m"),
        (r#"{"allow":true,"access":"r","major":-2}"#, "major -2 is not a device number"),
        (r#"{"allow":true,"access":"r","minor":4294967296}"#, "minor 4294967296"),
        (r#"{"allow":true,"access":"r","type":"p"}"#, "device type \"p\" has no rules"),
    ] {
        let error = Program::plan(&config(&format!(r#"[{{"allow":false,"access":"rwm"}},{rule}]"#)));
        let text = error.err().unwrap().to_string();
        assert!(text.contains(words) && text.starts_with("/linux/resources/devices/1: "), "{text}");
    }
}
