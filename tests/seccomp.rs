//! `linux.seccomp`: what a profile decides, seen by making the calls.

use serde_json::{Value, json};

use crate::harness::{Bundle, Outcome, known_difference};

const GETPPID: u32 = 110;
const SOCKET: u32 = 41;
const PERSONALITY: u32 = 135;
const CLONE3: u32 = 435;
const BPF: u32 = 321;

/// Allows all but what these rules say.
fn denying(rules: Value) -> Bundle {
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules});
    Bundle::new().set("/linux/seccomp", profile)
}

/// Makes these calls (`NR,ARG…`) and tells each result.
#[track_caller]
fn calls(bundle: Bundle, calls: &[String]) -> Vec<String> {
    let outcome: Outcome =
        bundle.probe(["syscall"].iter().map(|word| (*word).to_owned()).chain(calls.iter().cloned())).run();
    outcome.ok().lines().iter().map(|line| line.split(' ').nth(1).unwrap_or_default().to_owned()).collect()
}

/// A rule for one call with these conditions, whose error is EADDRNOTAVAIL, which none of them gives by itself.
fn rule(name: &str, args: Value) -> Value {
    json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": 99, "args": args})
}

const HIT: &str = "EADDRNOTAVAIL";

// B86: calls newer than the profile.

/// What the probe and the C library need, up to statx.
const ALLOWED: &[&str] = &[
    "read",
    "write",
    "close",
    "fstat",
    "poll",
    "lseek",
    "mmap",
    "mprotect",
    "munmap",
    "brk",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "ioctl",
    "pread64",
    "readv",
    "writev",
    "access",
    "madvise",
    "dup",
    "dup2",
    "getpid",
    "execve",
    "exit",
    "uname",
    "fcntl",
    "getcwd",
    "readlink",
    "getuid",
    "getgid",
    "geteuid",
    "getegid",
    "getppid",
    "sigaltstack",
    "prctl",
    "arch_prctl",
    "gettid",
    "futex",
    "sched_getaffinity",
    "sched_yield",
    "set_tid_address",
    "clock_gettime",
    "clock_nanosleep",
    "exit_group",
    "tgkill",
    "openat",
    "newfstatat",
    "readlinkat",
    "set_robust_list",
    "prlimit64",
    "getrandom",
    "rseq",
    "capset",
    "capget",
    "setuid",
    "setgid",
    "setgroups",
    "chdir",
    "stat",
    "getdents64",
    "close_range",
    "setresuid",
    "setresgid",
    "fstatfs",
    "statfs",
    "faccessat",
    "pipe2",
    "epoll_ctl",
    "epoll_pwait",
    "nanosleep",
    "keyctl",
    "umask",
    "statx",
];

fn allowing(names: &[&str], more: Value) -> Bundle {
    let mut rules = vec![json!({"names": names, "action": "SCMP_ACT_ALLOW"})];
    rules.extend(more.as_array().cloned().unwrap_or_default());
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules});
    Bundle::new().set("/linux/seccomp", profile)
}

#[test]
fn b86_calls_newer_than_the_profile_do_not_exist() {
    let unknown = ["600".to_owned(), format!("{BPF},0")];
    let seen = calls(allowing(ALLOWED, json!([])), &unknown);
    assert_eq!(seen[1], "EPERM", "known and not listed");
    if !known_difference("crun", "gives the default error") {
        assert_eq!(seen[0], "ENOSYS");
    }
}

#[test]
fn b86_clone3_is_as_its_rule_says() {
    let clone3 = [format!("{CLONE3},0,0")];
    let rule = json!([{"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]);
    assert_eq!(calls(allowing(ALLOWED, rule), &clone3), ["ENOSYS"]);
}

#[test]
fn b86_without_architectures_the_profile_is_for_the_native_one() {
    for architectures in [Value::Null, json!([]), json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])] {
        let bundle = denying(json!([rule("getppid", json!([]))])).set("/linux/seccomp/architectures", architectures);
        assert_eq!(calls(bundle, &[format!("{GETPPID}")]), [HIT]);
    }
}

#[test]
fn b86_the_default_error_may_be_chosen() {
    let bundle = allowing(ALLOWED, json!([])).set("/linux/seccomp/defaultErrnoRet", 99);
    assert_eq!(calls(bundle, &[format!("{BPF},0")]), [HIT]);
}

#[test]
fn b86_unknown_names_are_skipped() {
    let rules = json!([{"names": ["no_such_call", "getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99}]);
    assert_eq!(calls(denying(rules), &[format!("{GETPPID}")]), [HIT]);
}

// B87: arguments.

#[test]
fn b87_conditions_on_different_arguments_must_all_hold() {
    let bundle = denying(json!([rule(
        "socket",
        json!([{"index": 0, "value": 16, "op": "SCMP_CMP_EQ"}, {"index": 2, "value": 9, "op": "SCMP_CMP_NE"}])
    )]));
    let seen = calls(bundle, &[format!("{SOCKET},16,3,0"), format!("{SOCKET},16,3,9"), format!("{SOCKET},2,1,0")]);
    assert_eq!(seen[0], HIT);
    assert_ne!(seen[1], HIT);
    assert_ne!(seen[2], HIT);
}

#[test]
fn b87_conditions_on_the_same_argument_are_rules_of_their_own() {
    let equal = |index: u32, value: u32| json!({"index": index, "value": value, "op": "SCMP_CMP_EQ"});
    let sockets =
        [format!("{SOCKET},2,1,0"), format!("{SOCKET},16,3,0"), format!("{SOCKET},1,2,0"), format!("{SOCKET},1,1,0")];
    let seen = calls(denying(json!([rule("socket", json!([equal(0, 2), equal(0, 16)]))])), &sockets);
    assert_eq!([seen[0] == HIT, seen[1] == HIT, seen[2] == HIT, seen[3] == HIT], [true, true, false, false]);
    let seen = calls(denying(json!([rule("socket", json!([equal(0, 2), equal(0, 16), equal(1, 2)]))])), &sockets);
    assert_eq!([seen[0] == HIT, seen[1] == HIT, seen[2] == HIT, seen[3] == HIT], [true, true, true, false]);
}

#[test]
fn b87_masked_equality_takes_the_mask_first() {
    let args = json!([{"index": 0, "value": 0xff, "valueTwo": 8, "op": "SCMP_CMP_MASKED_EQ"}]);
    let asked = [format!("{PERSONALITY},0x8"), format!("{PERSONALITY},0x108"), format!("{PERSONALITY},0xffffffff")];
    let seen = calls(denying(json!([rule("personality", args)])), &asked);
    assert_eq!(seen, [HIT, HIT, "ok"]);
}

#[test]
fn b87_a_list_without_conditions_always_holds() {
    assert_eq!(calls(denying(json!([rule("getppid", json!([]))])), &[format!("{GETPPID},5")]), [HIT]);
}

#[test]
fn b87_every_comparison_is_of_64_bits_without_sign() {
    // getppid takes no arguments, so any value may be in the registers.
    let big = 0x1_0000_0005u64;
    let values = [0, 4, 5, 6, 0xffff_ffff, big - 1, big, big + 1, 0x2_0000_0000, u64::MAX];
    let asked: Vec<String> = values.iter().map(|value| format!("{GETPPID},0x{value:x}")).collect();
    type Holds = fn(u64, u64) -> bool;
    let comparisons: [(&str, Holds); 6] = [
        ("SCMP_CMP_EQ", |a, b| a == b),
        ("SCMP_CMP_NE", |a, b| a != b),
        ("SCMP_CMP_LT", |a, b| a < b),
        ("SCMP_CMP_LE", |a, b| a <= b),
        ("SCMP_CMP_GT", |a, b| a > b),
        ("SCMP_CMP_GE", |a, b| a >= b),
    ];
    for (op, holds) in comparisons {
        for datum in [5, big] {
            let bundle = denying(json!([rule("getppid", json!([{"index": 0, "value": datum, "op": op}]))]));
            let seen: Vec<bool> = calls(bundle, &asked).iter().map(|result| result == HIT).collect();
            let expected: Vec<bool> = values.iter().map(|value| holds(*value, datum)).collect();
            assert_eq!(seen, expected, "{op} {datum:#x} of {values:x?}");
        }
    }
}

#[test]
fn b87_every_argument_can_be_looked_at() {
    for index in 0..6usize {
        let args = json!([{"index": index, "value": 77, "op": "SCMP_CMP_EQ"}]);
        let mut words = ["0"; 6];
        let miss = format!("{GETPPID},{}", words.join(","));
        words[index] = "77";
        let hit = format!("{GETPPID},{}", words.join(","));
        assert_eq!(calls(denying(json!([rule("getppid", args)])), &[hit, miss]), [HIT, "ok"], "argument {index}");
    }
}

// Actions.

#[test]
fn actions_do_what_they_say() {
    let with = |action: &str| {
        let rules = json!([{"names": ["getppid"], "action": action}]);
        denying(rules).probe(["syscall", &GETPPID.to_string()]).run()
    };
    with("SCMP_ACT_ALLOW").prints("110 ok");
    with("SCMP_ACT_LOG").prints("110 ok");
    with("SCMP_ACT_ERRNO").prints("110 EPERM");
    with("SCMP_ACT_KILL_PROCESS").code(128 + 31);
    with("SCMP_ACT_TRAP").code(128 + 31);
    with("SCMP_ACT_NOSUCH").fails();
}

#[test]
fn the_filter_is_on_before_the_program_and_stays_for_its_children() {
    let container = denying(json!([rule("getppid", json!([]))])).sh("probe syscall 110; sh -c 'probe syscall 110'");
    container.run().prints("110 EADDRNOTAVAIL\n110 EADDRNOTAVAIL");
    let container = denying(json!([rule("getppid", json!([]))])).args(["grep", "^Seccomp:", "/proc/self/status"]);
    container.run().prints("Seccomp:\t2");
}

#[test]
fn a_filter_without_no_new_privileges_is_loaded_with_the_right_to_do_so() {
    for user in [0, 1000] {
        let container = denying(json!([rule("personality", json!([]))])).set("/process/noNewPrivileges", false);
        let container = container.set("/process/user", json!({"uid": user, "gid": user}));
        assert_eq!(calls(container, &[format!("{PERSONALITY}")]), [HIT], "uid {user}");
    }
}

#[test]
fn a_profile_that_forbids_what_the_runtime_does_last_still_starts() {
    let rules = json!([{
        "names": ["setuid", "setgid", "setgroups", "setresuid", "setresgid", "capset", "prctl", "chdir", "mount", "umount2",
            "unshare", "setns", "pivot_root", "keyctl", "sethostname"],
        "action": "SCMP_ACT_ERRNO"
    }]);
    let container = denying(rules).set("/process/user", json!({"uid": 1000, "gid": 1000}));
    container.args(["id", "-u"]).run().prints("1000");
}

#[test]
fn an_operator_or_architecture_that_is_unknown_is_refused() {
    let args = json!([{"index": 0, "value": 1, "op": "SCMP_CMP_NOSUCH"}]);
    denying(json!([rule("getppid", args)])).args(["true"]).run().fails();
    denying(json!([])).set("/linux/seccomp/architectures", json!(["SCMP_ARCH_NOSUCH"])).args(["true"]).run().fails();
    let args = json!([{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]);
    denying(json!([rule("getppid", args)])).args(["true"]).run().fails();
}
