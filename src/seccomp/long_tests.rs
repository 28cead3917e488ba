//! What is wrong with a profile, programs that are too long for the kernel, what is recorded of one, and what the kernel makes of them.

use serde_json::{Value, json};

use super::interpreter::verdict;
use super::tests::{self, *};
use super::*;

#[test]
fn what_is_wrong_is_named_by_its_field() {
    let with = |rule: Value| json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
    let cases = [
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}),
            "/linux/seccomp/defaultErrnoRet: SCMP_ACT_ALLOW carries no errno",
        ),
        (
            with(json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096})),
            "/linux/seccomp/syscalls/0/errnoRet: 4096 is too large, SCMP_ACT_ERRNO carries at most 4095",
        ),
        (
            with(json!({"names": ["read", ""], "action": "SCMP_ACT_KILL"})),
            "/linux/seccomp/syscalls/0/names/1: the name of a system call is empty",
        ),
        (
            with(json!({"names": ["read"], "action": "SCMP_ACT_KILL", "args": [
            {"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]})),
            "/linux/seccomp/syscalls/0/args/0/index: a system call has no argument 6, only 0 to 5",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_PARISC"]}),
            "/linux/seccomp/architectures/1: SCMP_ARCH_PARISC is not supported",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_S390X"]}),
            "/linux/seccomp/architectures/0: SCMP_ARCH_S390X has another byte order than this machine",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
            {"names": ["read"], "action": "SCMP_ACT_KILL", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}]}),
            "/linux/seccomp/syscalls/1: \"read\" has another action for the same arguments in an earlier rule",
        ),
    ];
    for (json, sentence) in cases {
        assert_eq!(refused(json), sentence);
    }
}

/// Rules for so many values of the first argument of each call.
fn many_rules(names: &[&str], values: std::ops::Range<u32>, action: &str) -> Vec<Value> {
    let rule = |value: u32| {
        let args = json!([{"index": 0, "value": u64::from(value) << 31, "op": "SCMP_CMP_EQ"}]);
        json!({"names": names, "action": action, "args": args})
    };
    values.map(rule).collect()
}

#[test]
fn a_program_too_long_for_the_kernel_becomes_several_that_mean_the_same() {
    let mut dice = Dice(11);
    for (default, action, names) in [
        ("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", ["ioctl", "seccomp", "prctl", "futex"]),
        ("SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", ["ioctl", "seccomp", "read", "futex"]),
        ("SCMP_ACT_KILL_PROCESS", "SCMP_ACT_LOG", ["socket", "bind", "connect", "listen"]),
    ] {
        let mut syscalls = many_rules(&names[..3], 0..1200, action);
        syscalls.extend(many_rules(&names[2..], 1200..1300, action));
        let listed = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
        let profile = tests::profile(json!({"defaultAction": default, "architectures": listed, "syscalls": syscalls}));
        let program = Program::compile(&profile).unwrap();
        assert!(program.parts.len() > 1 && program.parts.iter().all(|part| part.len() <= MOST_INSTRUCTIONS));
        assert_eq!(Program::from_bytes(&program.to_bytes()).unwrap().parts.len(), program.parts.len());
        let seccomp = number("seccomp");
        let others = &program.parts[..program.parts.len() - 1];
        assert!(others.iter().all(|part| verdict(part, x86_64(), seccomp, [0; 6]) == ALLOW), "loading goes on");
        let mut numbers = named_numbers(&profile, &[x86_64(), arch(Listed::ScmpArchX86), arch(Listed::ScmpArchX32)]);
        numbers.extend(0..30);
        agrees(&profile, x86_64(), Some(numbers), 1, &mut dice);
    }
}

#[test]
fn the_part_that_decides_on_loading_filters_is_loaded_last_though_it_is_decided_by_arguments() {
    for args in [json!([]), json!([{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}])] {
        for action in ["SCMP_ACT_NOTIFY", "SCMP_ACT_ERRNO"] {
            let mut rules = many_rules(&["getrandom"], 1..1500, "SCMP_ACT_TRAP");
            rules.extend(many_rules(&["statx"], 2..1500, "SCMP_ACT_TRAP"));
            rules.push(json!({"names": ["seccomp"], "action": action, "args": args}));
            let rules = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
            let program = Program::compile_on(&tests::profile(rules), x86_64()).unwrap();
            let allows =
                |part: &Vec<Instruction>| verdict(part, x86_64(), number("seccomp"), [1, 0, 9, 0, 0, 0]) == ALLOW;
            let seen: Vec<bool> = program.parts.iter().map(allows).collect();
            assert!(seen.len() > 1 && seen.iter().rposition(|allows| *allows) == Some(seen.len() - 2), "{seen:?}");
        }
    }
}

#[test]
fn a_program_too_long_also_in_parts_is_refused_with_its_length() {
    let refused_with = |rules: Vec<Value>, why: &str| {
        let sentence = refused(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}));
        let begins = sentence.starts_with("/linux/seccomp/syscalls: the profile compiles to ");
        assert!(begins && sentence.ends_with(why), "{sentence}");
    };
    refused_with(
        many_rules(&["ioctl"], 0..5000, "SCMP_ACT_ERRNO"),
        " instructions for one system call, and the kernel accepts 4096",
    );
    let mut notified = many_rules(&["ioctl"], 0..1500, "SCMP_ACT_NOTIFY");
    notified.extend(many_rules(&["mount"], 1..1500, "SCMP_ACT_NOTIFY"));
    refused_with(
        notified,
        " instructions for one filter, as only one may have a notify descriptor, and the kernel accepts 4096",
    );
    let names: Vec<&str> = Call::all().filter(|call| call.number(x86_64()).is_some()).map(Call::name).collect();
    let each = names[..25].iter().enumerate();
    let rules =
        each.flat_map(|(at, name)| many_rules(&[name], at as u32..at as u32 + 1500, "SCMP_ACT_ERRNO")).collect();
    refused_with(rules, " instructions in several filters, and the kernel accepts 32768");
}

#[test]
fn flags_are_those_of_the_profile_and_without_a_list_speculation_is_allowed() {
    let flags = |list: Value| compile(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": list})).flags;
    assert_eq!(flags(Value::Null), 4);
    assert_eq!(flags(json!([])), 0);
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"])), 2);
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])), 32);
}

#[test]
fn a_recorded_program_is_the_same_program() {
    let program = Program::compile(&serde_json::from_str(ENGINES[0].1).unwrap()).unwrap();
    let bytes = program.to_bytes();
    let copy = Program::from_bytes(&bytes).unwrap();
    assert_eq!(copy.to_bytes(), bytes);
    assert_eq!(copy.instructions(), program.instructions());
    for wrong in [&bytes[..3], &bytes[..4], &bytes[..bytes.len() - 1]] {
        assert!(Program::from_bytes(wrong).is_err());
    }
}

#[test]
fn every_word_that_features_promises_is_understood() {
    let features = features();
    for &action in features.actions {
        compile(json!({"defaultAction": action}));
    }
    for &op in features.operators {
        compile(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": 1, "op": op}]}]}));
    }
    assert!(
        compile(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": features.known_flags,
                       "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_NOTIFY"}]}))
        .notifies()
    );
    for listed in &features.archs {
        let listed: Listed = serde_json::from_value(json!(listed)).unwrap();
        assert!(Arch::of(listed).is_some());
    }
    assert!(features.archs.is_sorted() && features.actions.is_sorted() && features.operators.is_sorted());
    assert_eq!(features.supported_flags[..3], features.known_flags[..3], "Linux 5.14 knows these");
}

#[test]
fn the_kernel_takes_the_program_and_obeys_it() {
    use nix::errno::Errno;
    use nix::unistd::{getpgid, getsid};
    // A filter holds for the thread that loads it, and this thread ends here.
    let seen = std::thread::spawn(|| {
        nix::sys::prctl::set_no_new_privs().unwrap();
        let program = compile(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 61},
            {"names": ["getsid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 62,
             "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_NE"}]}]}));
        Program::from_bytes(&program.to_bytes()).unwrap().load().unwrap();
        (getpgid(None), getsid(None).is_ok(), getsid(Some(nix::unistd::Pid::this())))
    });
    assert_eq!(seen.join().unwrap(), (Err(Errno::ENODATA), true, Err(Errno::ETIME)));
}

#[test]
fn the_kernel_takes_the_profiles_of_engines() {
    for (engine, text) in ENGINES {
        let loaded = std::thread::spawn(|| {
            nix::sys::prctl::set_no_new_privs().unwrap();
            Program::compile(&serde_json::from_str(text).unwrap()).unwrap().load()
        });
        loaded.join().unwrap().unwrap_or_else(|error| panic!("{engine}: {error}"));
    }
}
