//! The compiler against a plain reading of the standard, against `seccompiler`, and against the kernel.

use std::collections::BTreeMap;

use oci_spec::runtime::LinuxSeccompAction as Action;
use oci_spec::runtime::LinuxSeccompOperator as Operator;
use serde_json::{Value, json};

use super::interpreter::{Data, Run, verdict};
use super::tables::Call;
use super::*;

pub(super) const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
pub(super) const KILL: u32 = libc::SECCOMP_RET_KILL_THREAD;
pub(super) const fn errno(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | number as u32
}

pub(super) fn run(program: &[Instruction], number: u32, audit: u32, args: [u64; 6]) -> Run {
    interpreter::run(program, &Data::new(audit, number, args, false))
}

pub(super) fn profile(json: Value) -> LinuxSeccomp {
    serde_json::from_value(json).unwrap()
}

pub(super) fn compile(json: Value) -> Program {
    Program::compile(&profile(json)).unwrap()
}

pub(super) fn refused(json: Value) -> String {
    Program::compile(&profile(json)).err().expect("an error").to_string()
}

pub(super) fn arch(listed: Listed) -> &'static Arch {
    Arch::of(listed).unwrap()
}

pub(super) fn x86_64() -> &'static Arch {
    arch(Listed::ScmpArchX86_64)
}

pub(super) fn number(name: &str) -> u32 {
    Call::named(name).unwrap().number(x86_64()).unwrap()
}

/// What a program says of a call of x86_64.
pub(super) fn says(program: &Program, name: &str, args: [u64; 6]) -> u32 {
    verdict(&program.parts[0], x86_64(), number(name), args)
}

/// The standard read plainly: what may happen to a call. More than one verdict only where rules with conditions
/// overlap, which the standard leaves open.
pub(super) fn expected(profile: &LinuxSeccomp, archs: &[&Arch], audit: u32, number: u32, args: [u64; 6]) -> Vec<u32> {
    let default = profile.default_action().as_u32(profile.default_errno_ret());
    let lenient = matches!(
        profile.default_action(),
        Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace | Action::ScmpActNotify
    );
    let bit = if audit == AUDIT_X86_64 { number & X32_BIT } else { 0 };
    let Some(arch) = archs.iter().find(|arch| arch.audit == audit && arch.bit == bit) else {
        let skipped_by_tracer = audit == AUDIT_X86_64 && number == u32::MAX;
        return vec![if skipped_by_tracer { default } else { KILL }];
    };
    let x32_listed = archs.iter().any(|arch| arch.bit == X32_BIT);
    let rules = profile.syscalls().iter().flatten();
    let named: Vec<_> =
        rules.flat_map(|rule| rule.names().iter().filter_map(move |name| Some((Call::named(name)?, rule)))).collect();

    let cut = |value: u64| if arch.wide { value } else { value & 0xffff_ffff };
    let holds = |carried: bool, arg: &oci_spec::runtime::LinuxSeccompArg| {
        let (seen, value, two) = (cut(args[arg.index()]), cut(arg.value()), cut(arg.value_two().unwrap_or(0)));
        match arg.op() {
            _ if carried && arg.index() == 0 => true,
            Operator::ScmpCmpEq => seen == value,
            Operator::ScmpCmpNe => seen != value,
            Operator::ScmpCmpLt => seen < value,
            Operator::ScmpCmpLe => seen <= value,
            Operator::ScmpCmpGt => seen > value,
            Operator::ScmpCmpGe => seen >= value,
            Operator::ScmpCmpMaskedEq => seen & value == two & value,
        }
    };
    let (mut always, mut sometimes, mut mentioned) = (None, Vec::new(), false);
    for &(call, rule) in &named {
        let action = rule.action().as_u32(rule.errno_ret());
        let direct = call.number(arch) == Some(number);
        let carried = call.carried(arch).filter(|&(carrier, _)| carrier == number).map(|(_, first)| first);
        if action == default || !(direct || carried.is_some()) {
            continue;
        }
        mentioned = true;
        let conditions = rule.args().as_deref().unwrap_or_default();
        let repeated = (0..6).any(|index| conditions.iter().filter(|arg| arg.index() == index).count() > 1);
        let met = |carried| match repeated {
            true => conditions.iter().any(|arg| holds(carried, arg)),
            false => conditions.iter().all(|arg| holds(carried, arg)),
        };
        if direct && conditions.is_empty() {
            always = always.or(Some(action));
        } else if direct && met(false) || carried.is_some_and(|first| cut(args[0]) == u64::from(first) && met(true)) {
            sometimes.push(action);
        }
    }
    let counted = named.iter().filter(|(call, _)| call.carried(arch).is_none());
    let newest = counted.filter_map(|(call, _)| call.number(arch)).max().filter(|&newest| newest > 0 && !lenient);
    match (always, newest) {
        (Some(action), _) => vec![action],
        _ if !sometimes.is_empty() => sometimes,
        (None, Some(newest)) if (number > newest || number == 0 && arch.zero_is_unknown()) && !mentioned => {
            vec![errno(libc::ENOSYS)]
        }
        (None, None) if audit == AUDIT_X86_64 && !x32_listed && number >= X32_BIT => vec![KILL],
        _ => vec![default],
    }
}

/// A small generator of numbers (xorshift), so that a failure comes again.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }

    pub(super) fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

/// Values at and around every boundary of the profile, in both halves.
pub(super) fn boundaries(profile: &LinuxSeccomp) -> Vec<u64> {
    let args = profile.syscalls().iter().flatten().flat_map(|rule| rule.args().iter().flatten());
    let mut values: Vec<u64> = args
        .flat_map(|arg| [arg.value(), arg.value_two().unwrap_or(0)])
        .flat_map(|value| [value.wrapping_sub(1), value, value.wrapping_add(1), value ^ 1 << 32, !value])
        .chain([0, u64::MAX])
        .collect();
    values.sort_unstable();
    values.dedup();
    values
}

/// All numbers that an architecture has, and those at the edges.
fn all_numbers() -> Vec<u32> {
    let x32 = (0..600).map(|number| number | X32_BIT);
    (0..600).chain(983_040..983_050).chain(x32).chain(EDGES).collect()
}

const EDGES: [u32; 9] =
    [0, 0x3fff_ffff, 0x4000_0000, 0x7fff_ffff, 0x8000_0000, 0xbfff_ffff, 0xc000_0000, 0xffff_fffe, 0xffff_ffff];

/// The numbers that a profile names on any of these architectures, with their neighbours.
pub(super) fn named_numbers(profile: &LinuxSeccomp, archs: &[&Arch]) -> Vec<u32> {
    let names = profile.syscalls().iter().flatten().flat_map(|rule| rule.names());
    let calls = names.filter_map(|name| Call::named(name)).flat_map(|call| {
        archs.iter().flat_map(move |arch| [call.number(arch), call.carried(arch).map(|(number, _)| number)])
    });
    let mut numbers: Vec<u32> =
        calls.flatten().flat_map(|number| [number.saturating_sub(1), number, number + 1]).chain(EDGES).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Compares a compiled profile with the plain reading and with what is explained, `tries` times for each number.
pub(super) fn agrees(
    profile: &LinuxSeccomp,
    native: &'static Arch,
    numbers: Option<Vec<u32>>,
    tries: usize,
    dice: &mut Dice,
) {
    let program = match Program::compile_on(profile, native) {
        // Two names may be one call on some architecture.
        Err(error) if error.to_string().contains("has another action for the same arguments") => return,
        program => program.unwrap(),
    };
    let read = Profile::read(profile, native).unwrap();
    let archs = &read.archs;
    let numbers = numbers.unwrap_or_else(|| named_numbers(profile, archs));
    let values = boundaries(profile);
    let few = profile.syscalls().as_ref().is_none_or(|rules| rules.len() < 100);
    let mut audits: Vec<u32> = archs.iter().map(|arch| arch.audit).chain([0x1234]).collect();
    audits.dedup();
    for number in numbers {
        for &audit in &audits {
            for _ in 0..tries {
                let args = std::array::from_fn(|_| *dice.pick(&values));
                let data = Data::new(audit, number, args, native.big_endian);
                let seen = interpreter::run_all(&program.parts, &data).verdict;
                let wanted = expected(profile, archs, audit, number, args);
                let said = || {
                    format!(
                        "number {number:#x} of {audit:#x}, {args:x?}: {seen:#x}, not {wanted:x?}\n{}",
                        serde_json::to_string(profile).unwrap()
                    )
                };
                assert!(wanted.contains(&seen), "{}", said());
                let bit = if audit == AUDIT_X86_64 { number & X32_BIT } else { 0 };
                let arch = tables::ARCHS.iter().find(|arch| arch.audit == audit && arch.bit == bit);
                if let Some(arch) = arch.filter(|_| number < TOP && few && dice.below(8) == 0) {
                    let reason = explain::reason(&read, &explain::Question { arch, number, args }).unwrap();
                    assert_eq!(explain::verdict_of(&read, reason), seen, "{reason:?}: {}", said());
                }
            }
        }
    }
}

pub(super) const TOP: u32 = 0x8000_0000;

pub(super) const ENGINES: [(&str, &str); 3] = [
    ("docker", include_str!("profiles/docker.json")),
    ("containerd", include_str!("profiles/containerd.json")),
    ("podman", include_str!("profiles/podman.json")),
];

#[test]
fn the_profiles_of_engines_mean_what_the_standard_says() {
    for (engine, text) in ENGINES {
        eprintln!("{engine}");
        agrees(&serde_json::from_str(text).unwrap(), x86_64(), Some(all_numbers()), 3, &mut Dice(7));
    }
}

#[test]
fn the_profiles_of_engines_are_short_and_short_lived() {
    for (engine, text) in ENGINES {
        let program = Program::compile(&serde_json::from_str(text).unwrap()).unwrap();
        let steps = |name| run(&program.parts[0], number(name), AUDIT_X86_64, [0; 6]).steps;
        let usual = ["read", "write", "futex", "openat", "mmap", "clone3", "epoll_wait", "sendmsg"].map(steps);
        eprintln!("{engine}: {} instructions; {usual:?} for usual calls", program.instructions());
        assert!(program.instructions() <= 340, "{engine}: {} instructions", program.instructions());
        assert!(usual.iter().all(|&steps| steps <= 12), "{engine}: {usual:?}");
        assert_eq!(program.warnings().count(), 0, "{engine}");
    }
}

/// Whether generated rules for one call agree on what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Actions {
    OfCall,
    /// Rules that overlap may differ, and it counts which of them is taken.
    OfRule,
}

/// A profile of a few rules, any of which may be for any call.
pub(super) fn generated(dice: &mut Dice, archs: &[&str], actions_are: Actions) -> LinuxSeccomp {
    let usual =
        ["read", "open", "socket", "bind", "accept4", "semop", "shmctl", "ipc", "clone", "clone3", "personality"];
    let actions = ["KILL", "KILL_PROCESS", "TRAP", "ERRNO", "TRACE", "LOG", "ALLOW", "NOTIFY"];
    let operators = ["NE", "LT", "LE", "EQ", "EQ", "GE", "GT", "MASKED_EQ"];
    let values: [u64; 10] = [0, 1, 2, 5, 0xff, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0005, 0x2_0000_0001, u64::MAX];
    let all: Vec<Call> = Call::all().collect();
    let mut of_call = BTreeMap::new();
    let mut syscalls = Vec::new();
    for _ in 0..dice.below(30) {
        let name = if dice.below(3) > 0 { *dice.pick(&usual) } else { dice.pick(&all).name() };
        let name = if dice.below(40) == 0 { "no_such_call" } else { name };
        // One action for all calls that may share a number.
        let carrier = Call::named(name).and_then(|call| call.carried(arch(Listed::ScmpArchX86)));
        let group = match (name, carrier) {
            ("ipc" | "socketcall", _) => name.to_owned(),
            (_, Some((number, _))) => (if number == 117 { "ipc" } else { "socketcall" }).to_owned(),
            _ => name.to_owned(),
        };
        let action = match actions_are {
            Actions::OfCall => *of_call.entry(group).or_insert_with(|| *dice.pick(&actions)),
            Actions::OfRule => *dice.pick(&actions),
        };
        let args: Vec<Value> = (0..*dice.pick(&[0, 1, 1, 1, 2, 3]))
            .map(|_| {
                json!({"index": dice.below(4), "value": dice.pick(&values), "valueTwo": dice.pick(&values),
                       "op": format!("SCMP_CMP_{}", dice.pick(&operators))})
            })
            .collect();
        syscalls.push(json!({"names": [name], "action": format!("SCMP_ACT_{action}"), "args": args}));
    }
    let listed: Vec<String> = archs.iter().map(|name| format!("SCMP_ARCH_{name}")).collect();
    let default = format!("SCMP_ACT_{}", dice.pick(&actions));
    profile(json!({"defaultAction": default, "architectures": listed, "syscalls": syscalls}))
}

#[test]
fn generated_profiles_mean_what_the_standard_says() {
    // The machine, and what the profile lists.
    let machines: [(Listed, &[&[&str]]); 6] = [
        (Listed::ScmpArchX86_64, &[&[], &["X86_64"], &["X86_64", "X86", "X32"], &["AARCH64", "ARM", "X86_64", "X32"]]),
        (Listed::ScmpArchAarch64, &[&[], &["AARCH64", "ARM"], &["X32", "X86_64"]]),
        (Listed::ScmpArchRiscv64, &[&[], &["RISCV64", "LOONGARCH64"]]),
        (Listed::ScmpArchPpc64le, &[&["PPC64LE", "MIPSEL64", "MIPSEL", "MIPSEL64N32"]]),
        (Listed::ScmpArchS390x, &[&[], &["S390X", "S390"]]),
        (Listed::ScmpArchPpc64, &[&["PPC64", "PPC", "MIPS", "MIPS64N32"]]),
    ];
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for round in 0..2000 {
        let &(machine, lists) = dice.pick(&machines);
        let list = *dice.pick(lists);
        let profile = generated(&mut dice, list, if round % 4 == 0 { Actions::OfRule } else { Actions::OfCall });
        agrees(&profile, arch(machine), None, 1, &mut dice);
    }
}

#[test]
fn what_seccompiler_can_express_it_decides_alike() {
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
        SeccompRule,
    };
    let mut dice = Dice(3);
    let values: [u64; 8] = [0, 1, 7, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0007, 0x2_0000_0000, u64::MAX];
    for _ in 0..100 {
        let (mut rules, mut syscalls) = (BTreeMap::new(), Vec::new());
        for name in ["read", "write", "ioctl", "clone", "mmap", "socket"] {
            let mut alternatives = Vec::new();
            for _ in 0..dice.below(4) {
                let first = dice.below(4);
                let (mut conditions, mut args) = (Vec::new(), Vec::new());
                for index in first..=first + dice.below(2) {
                    let (value, mask) = (*dice.pick(&values), *dice.pick(&values[1..]));
                    let (op, word) = match dice.below(7) {
                        0 => (Op::Eq, "EQ"),
                        1 => (Op::Ne, "NE"),
                        2 => (Op::Lt, "LT"),
                        3 => (Op::Le, "LE"),
                        4 => (Op::Gt, "GT"),
                        5 => (Op::Ge, "GE"),
                        _ => (Op::MaskedEq(mask), "MASKED_EQ"),
                    };
                    let (one, two) = if word == "MASKED_EQ" { (mask, value & mask) } else { (value, 0) };
                    let expected = if word == "MASKED_EQ" { two } else { value };
                    conditions.push(SeccompCondition::new(index as u8, Len::Qword, op, expected).unwrap());
                    args.push(json!({"index": index, "value": one, "valueTwo": two, "op": format!("SCMP_CMP_{word}")}));
                }
                alternatives.push(SeccompRule::new(conditions).unwrap());
                syscalls.push(json!({"names": [name], "action": "SCMP_ACT_TRAP", "args": args}));
            }
            if !alternatives.is_empty() {
                rules.insert(i64::from(number(name)), alternatives);
            }
        }
        let theirs =
            SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Trap, seccompiler::TargetArch::x86_64);
        let theirs: BpfProgram = theirs.unwrap().try_into().unwrap();
        let theirs: Vec<Instruction> = theirs
            .iter()
            .map(|theirs| Instruction { code: theirs.code, jt: theirs.jt, jf: theirs.jf, k: theirs.k })
            .collect();
        let profile = profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": syscalls}));
        let ours = Program::compile(&profile).unwrap();
        let values = boundaries(&profile);
        for number in 0..450 {
            for _ in 0..20 {
                let args = std::array::from_fn(|_| *dice.pick(&values));
                let [ours, theirs] =
                    [&ours.parts[0], &theirs].map(|code| run(code, number, AUDIT_X86_64, args).verdict);
                assert!(ours == theirs, "{number} {args:x?}\n{}", serde_json::to_string(&profile).unwrap());
            }
        }
    }
}

#[test]
fn a_call_newer_than_the_profile_does_not_exist() {
    let rules = json!([
        {"names": ["read", "write", "exit_group", "statx", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
    ]);
    for archs in [Value::Null, json!([]), json!(["SCMP_ARCH_X86_64"])] {
        let program = compile(json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": archs, "syscalls": rules}));
        assert_eq!(verdict(&program.parts[0], x86_64(), 600, [0; 6]), errno(libc::ENOSYS));
        assert_eq!(says(&program, "openat2", [0; 6]), errno(libc::ENOSYS));
        assert_eq!(says(&program, "clone3", [0; 6]), errno(libc::ENOSYS));
        assert_eq!(says(&program, "bpf", [0; 6]), errno(libc::EPERM));
        assert_eq!(says(&program, "statx", [0; 6]), ALLOW);
        assert_eq!(
            program.warnings().map(|warning| warning.to_string()).collect::<Vec<_>>(),
            [r#"/linux/seccomp/syscalls/0/names/4: unknown system call "no_such_call" is ignored"#]
        );
    }
    let denies = compile(json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 13, "syscalls": rules}));
    assert_eq!(says(&denies, "bpf", [0; 6]), errno(libc::EACCES));
    let allows = compile(json!({"defaultAction": "SCMP_ACT_LOG", "syscalls": rules}));
    assert_eq!(verdict(&allows.parts[0], x86_64(), 600, [0; 6]), libc::SECCOMP_RET_LOG);
}

#[test]
fn conditions_on_different_arguments_must_all_hold_and_on_a_repeated_one_any() {
    let socket = |args: Value| {
        compile(json!({"defaultAction": "SCMP_ACT_ALLOW",
                       "syscalls": [{"names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": args}]}))
    };
    let equal = |index, value| json!({"index": index, "value": value, "op": "SCMP_CMP_EQ"});
    let denied = |program: &Program, args: [u64; 3]| {
        says(program, "socket", [args[0], args[1], args[2], 0, 0, 0]) == errno(libc::EPERM)
    };

    let both = socket(json!([equal(0, 16), {"index": 2, "value": 9, "op": "SCMP_CMP_NE"}]));
    assert!(denied(&both, [16, 0, 0]));
    assert!(!denied(&both, [16, 0, 9]) && !denied(&both, [2, 0, 0]));

    let either = socket(json!([equal(0, 2), equal(0, 16)]));
    assert!(denied(&either, [2, 0, 0]) && denied(&either, [16, 0, 0]) && !denied(&either, [1, 0, 0]));

    let any_of_three = socket(json!([equal(0, 2), equal(0, 16), equal(1, 2)]));
    assert!(denied(&any_of_three, [1, 2, 0]) && denied(&any_of_three, [16, 0, 0]));

    let always = socket(json!([]));
    assert!(denied(&always, [9, 9, 9]));

    let masked = socket(json!([{"index": 1, "value": 0xf0, "valueTwo": 0x20, "op": "SCMP_CMP_MASKED_EQ"}]));
    assert!(denied(&masked, [0, 0x12f, 0]) && !denied(&masked, [0, 0x130, 0]));
}

#[test]
fn podmans_rules_for_socket_overlap_and_the_stricter_ones_decide() {
    let program = Program::compile(&serde_json::from_str(ENGINES[2].1).unwrap()).unwrap();
    let socket = |domain, protocol| says(&program, "socket", [domain, 3, protocol, 0, 0, 0]);
    assert_eq!(socket(40, 0), errno(libc::EPERM), "AF_VSOCK");
    assert_eq!(socket(16, 9), errno(libc::EINVAL), "NETLINK_AUDIT");
    assert_eq!(socket(16, 0), ALLOW);
    assert_eq!(socket(2, 9), ALLOW);
}

/// Each was tried with libseccomp 2.6.0.
#[test]
fn of_several_rules_for_a_call_the_same_one_decides_as_with_libseccomp() {
    let decides = |rules: [(&str, &str); 2], args: [u64; 2]| {
        let rules = rules.map(|(action, args)| {
            json!({"names": ["ioctl"], "action": format!("SCMP_ACT_{action}"),
                   "args": serde_json::from_str::<Value>(&args.replace('\'', "\"")).unwrap()})
        });
        let program = compile(json!({"defaultAction": "SCMP_ACT_KILL", "syscalls": rules}));
        says(&program, "ioctl", [args[0], args[1], 0, 0, 0, 0])
    };
    let (log, allow) = (libc::SECCOMP_RET_LOG, ALLOW);
    let no_condition = "[]";
    let first = "[{'index':0,'value':1,'op':'SCMP_CMP_EQ'}]";
    let second = "[{'index':1,'value':2,'op':'SCMP_CMP_EQ'}]";
    let both = "[{'index':0,'value':1,'op':'SCMP_CMP_EQ'},{'index':1,'value':2,'op':'SCMP_CMP_EQ'}]";
    let below = "[{'index':0,'value':9,'op':'SCMP_CMP_LT'}]";
    let above = "[{'index':0,'value':0,'op':'SCMP_CMP_GT'}]";
    let far_below = "[{'index':0,'value':5,'op':'SCMP_CMP_LT'}]";

    assert_eq!(decides([("LOG", first), ("ALLOW", no_condition)], [1, 2]), allow, "no condition beats any");
    assert_eq!(decides([("ALLOW", no_condition), ("LOG", no_condition)], [1, 2]), allow, "the first of such wins");
    assert_eq!(decides([("LOG", first), ("ALLOW", second)], [1, 2]), allow, "the higher argument comes first");
    assert_eq!(decides([("ALLOW", second), ("LOG", first)], [1, 2]), allow, "in either order");
    assert_eq!(decides([("LOG", first), ("ALLOW", both)], [1, 2]), log, "who asks for less is there already");
    assert_eq!(decides([("LOG", above), ("ALLOW", first)], [1, 2]), allow, "equality before bounds");
    assert_eq!(decides([("LOG", above), ("ALLOW", below)], [1, 2]), allow, "upper before lower bounds");
    assert_eq!(decides([("LOG", below), ("ALLOW", far_below)], [1, 2]), allow, "the smaller upper bound first");
}

#[test]
fn a_rule_that_says_what_happens_anyway_is_none() {
    let program = compile(json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "syscalls": [
        {"names": ["ioctl"], "action": "SCMP_ACT_ERRNO"},
        {"names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
    ]}));
    assert_eq!(says(&program, "ioctl", [1, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(says(&program, "ioctl", [2, 0, 0, 0, 0, 0]), errno(libc::EPERM));
}

#[test]
fn a_profile_without_rules_still_kills_other_architectures() {
    let program = compile(json!({"defaultAction": "SCMP_ACT_ALLOW"}));
    assert_eq!(says(&program, "read", [0; 6]), ALLOW);
    assert_eq!(verdict(&program.parts[0], arch(Listed::ScmpArchX86), 3, [0; 6]), KILL);
    assert_eq!(verdict(&program.parts[0], arch(Listed::ScmpArchX32), X32_BIT, [0; 6]), KILL);
    assert_eq!(verdict(&program.parts[0], x86_64(), u32::MAX, [0; 6]), ALLOW, "a tracer skips calls with -1");
}
