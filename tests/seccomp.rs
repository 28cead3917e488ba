//! `linux.seccomp`: what a profile decides, seen by making the calls.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

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

/// Lines of the kernel's log from now on; none when it may not be read.
fn log_of_the_kernel() -> Option<impl FnMut() -> Vec<String>> {
    let mut log = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg").ok()?;
    log.seek(SeekFrom::End(0)).ok()?;
    Some(move || {
        let mut lines = Vec::new();
        let mut record = [0; 8192];
        // A record was overwritten before it was read: EPIPE, and the next read gives the next one.
        while let Some(line) = match log.read(&mut record) {
            Ok(length) => Some(String::from_utf8_lossy(&record[..length]).into_owned()),
            Err(error) => (error.raw_os_error() == Some(libc::EPIPE)).then(String::new),
        } {
            lines.push(line);
        }
        lines
    })
}

#[test]
fn a_logged_call_is_carried_out_and_in_the_log_of_the_kernel() {
    // No program makes this call, and no kernel since 6.7 has it.
    let logged = || denying(json!([{"names": ["lookup_dcookie"], "action": "SCMP_ACT_LOG"}]));
    let call = ["212,0".to_owned()];
    assert_eq!(calls(logged(), &call), calls(denying(json!([])), &call));
    let actions = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_logged").unwrap_or_default();
    let Some(mut lines) = log_of_the_kernel().filter(|_| actions.split_whitespace().any(|action| action == "log"))
    else {
        eprintln!("not seen: /dev/kmsg is not readable here, or the host does not log SCMP_ACT_LOG");
        return;
    };
    // The kernel drops records when there are many, as other tests make them.
    for _ in 0..10 {
        calls(logged(), &call);
        std::thread::sleep(std::time::Duration::from_millis(100));
        let is_ours = |line: &String| line.contains("syscall=212 ") && line.contains("code=0x7ffc0000");
        if lines().iter().any(is_ours) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(900));
    }
    // Only a kill is always recorded: without that one either, nobody records here.
    let killed = denying(json!([{"names": ["lookup_dcookie"], "action": "SCMP_ACT_KILL_PROCESS"}]));
    killed.probe(["syscall", "212,0"]).run().fails();
    std::thread::sleep(std::time::Duration::from_secs(1));
    let records = lines().iter().any(|line| line.contains("syscall=212 "));
    assert!(!records, "the kernel records what is killed, and not what is logged");
    eprintln!("not seen: audit is off, or a daemon takes its records");
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

/// A container that runs, whose pid namespace others can join.
fn pod() -> Bundle {
    let pod = Bundle::new().args(["sleep", "1000"]);
    pod.run_detached().ok();
    pod
}

#[test]
fn a_profile_that_forbids_what_is_called_between_filter_and_program_still_starts_where_pids_are_joined() {
    let pod = pod();
    for name in ["madvise", "setsid", "clone", "clone3", "exit_group", "recvfrom", "munmap", "rt_sigaction"] {
        for action in ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"] {
            for no_new_privs in [true, false] {
                let bundle = || {
                    denying(json!([{"names": [name], "action": action}]))
                        .set("/process/noNewPrivileges", no_new_privs)
                        .args(["sleep", "1000"])
                };
                let what = format!("{name}, {action}, no_new_privs {no_new_privs}");
                let joins = bundle().join("pid", format!("/proc/{}/ns/pid", pod.pid()));
                for container in [bundle(), joins] {
                    container.create().ok();
                    container.start().ok();
                    let seen = container.exec(&["grep", "^Seccomp:", "/proc/self/status"]);
                    assert!(seen.stdout().contains("Seccomp:\t2"), "{what}: {}{}", seen.stdout(), seen.stderr());
                    container.delete_force().ok();
                }
            }
        }
    }
}

#[test]
fn what_fails_after_the_filter_of_a_process_that_joins_a_pid_namespace_is_told_by_create() {
    let pod = pod();
    for no_new_privs in [true, false] {
        // Because of this the filter is loaded by the last process.
        let rules = json!([{"names": ["setsid"], "action": "SCMP_ACT_ERRNO"}]);
        let container = denying(rules).set("/process/noNewPrivileges", no_new_privs).args(["/nowhere"]);
        container.join("pid", format!("/proc/{}/ns/pid", pod.pid())).create().fails_with("no such file or directory");
    }
}

#[test]
fn an_operator_or_architecture_that_is_unknown_is_refused() {
    let args = json!([{"index": 0, "value": 1, "op": "SCMP_CMP_NOSUCH"}]);
    denying(json!([rule("getppid", args)])).args(["true"]).run().fails();
    denying(json!([])).set("/linux/seccomp/architectures", json!(["SCMP_ARCH_NOSUCH"])).args(["true"]).run().fails();
    let args = json!([{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]);
    denying(json!([rule("getppid", args)])).args(["true"]).run().fails();
}

#[test]
fn a_tracer_that_is_absent_makes_a_call_missing() {
    let rules = json!([{"names": ["getppid"], "action": "SCMP_ACT_TRACE"}]);
    assert_eq!(calls(denying(rules), &[format!("{GETPPID}")]), ["ENOSYS"]);
}

#[test]
fn killing_a_thread_ends_a_program_of_one() {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD"] {
        let rules = json!([{"names": ["getppid"], "action": action}]);
        denying(rules).probe(["syscall", &GETPPID.to_string()]).run().code(128 + 31);
    }
}

// Calls of 32-bit programs.

#[cfg(target_arch = "x86_64")]
#[test]
fn calls_of_32_bit_programs_are_decided_by_their_own_numbers() {
    // x86: getpid is 20, personality 136, socketcall 102, socket 359.
    let asked = ["syscall32", "20", "136,8", "359,40", "102,1", "600"];
    let free = Bundle::new().unset("/linux/seccomp").probe(["syscall32", "20"]).run();
    if !free.succeeded() {
        return crate::harness::skip("this kernel has no calls of 32-bit programs");
    }
    let equal = |value: u32| json!([{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]);
    let rules = json!([rule("getpid", json!([])), rule("personality", equal(8)), rule("socket", equal(40))]);
    let both = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    let seen = denying(rules.clone()).set("/linux/seccomp/architectures", both).probe(asked).run();
    let words: Vec<String> =
        seen.ok().lines().iter().map(|line| line.split(' ').nth(1).unwrap_or("").to_owned()).collect();
    // socketcall(2) has its arguments in memory, out of a filter's sight: as with libseccomp, a condition on the domain is
    // left out there.
    assert_eq!(words, [HIT, HIT, HIT, HIT, "ENOSYS"]);

    // An architecture that the profile does not have.
    denying(rules).probe(["syscall32", "20"]).run().code(128 + 31);
}

// Unknown names.

#[test]
fn unknown_names_are_an_error_when_an_annotation_says_so() {
    let rules = json!([{"names": ["no_such_call", "getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99}]);
    let with = |value: &str| {
        let bundle = denying(rules.clone()).set("/annotations", json!({"run.oci.seccomp_fail_unknown_syscall": value}));
        bundle.probe(["syscall", &GETPPID.to_string()]).run()
    };
    with("0").prints("110 EADDRNOTAVAIL");
    if !known_difference("runc", "does not know the annotation") {
        with("1").fails_with("no_such_call");
    }
}

// A filter that is too long for the kernel.

#[test]
fn a_profile_of_thousands_of_conditions_holds_for_init_and_exec() {
    // Beyond 4096 instructions.
    let one = |name: &str, value: u64| rule(name, json!([{"index": 0, "value": value << 31, "op": "SCMP_CMP_EQ"}]));
    let mut rules: Vec<Value> = (1..1500).map(|value| one("getppid", value)).collect();
    rules.extend((2..1500).map(|value| one("personality", value)));
    let asked = [
        format!("{GETPPID},0x80000000"),
        format!("{GETPPID},0x40000000"),
        format!("{PERSONALITY},0x2ed80000000"),
        format!("{GETPPID},0x2ed80000000"),
    ];
    let rules = json!(rules);
    if known_difference("runc", "the filter is too long") || known_difference("crun", "the filter is too long") {
        return;
    }
    let words: Vec<&str> = ["syscall"].into_iter().chain(asked.iter().map(String::as_str)).collect();
    let wanted = "110 EADDRNOTAVAIL\n110 ok\n135 EADDRNOTAVAIL\n110 EADDRNOTAVAIL";
    denying(rules.clone()).probe(&words).run().prints(wanted);
    let bundle = denying(rules).args(["sleep", "1000"]);
    bundle.run_detached().ok();
    let exec: Vec<&str> = ["probe"].into_iter().chain(words).collect();
    bundle.exec(&exec).prints(wanted);
    bundle.delete_force().ok();
}

// `corten seccomp`.

/// A bundle whose profile is asked about; written, not run.
fn explained() -> Option<Bundle> {
    if crate::harness::kind() != crate::harness::Kind::Corten {
        return None;
    }
    let rules = json!([
        {"names": ["read", "socket"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["personality"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
    ]);
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"], "syscalls": rules});
    let bundle = Bundle::new().set("/linux/seccomp", profile);
    bundle.write();
    Some(bundle)
}

#[cfg(target_arch = "x86_64")]
#[test]
fn explain_says_what_happens_to_a_call_and_which_rule_decides() {
    let Some(bundle) = explained() else { return };
    let says = |words: &[&str], first: &str, second: &str| {
        let start = ["seccomp", "explain", "--bundle", bundle.path().to_str().unwrap_or_default()];
        let lines = bundle.cmd(start.iter().chain(words)).run().ok().lines();
        assert_eq!([lines[0].as_str(), lines[1].as_str()], [first, second]);
    };
    says(&["read"], "read() on x86_64, number 0: allow", "decided by /linux/seccomp/syscalls/0");
    says(
        &["personality", "0x8"],
        "personality(8) on x86_64, number 135: log",
        "decided by /linux/seccomp/syscalls/1 (argument 0 == 8)",
    );
    says(
        &["personality", "-1"],
        "personality(0xffffffffffffffff) on x86_64, number 135: error EPERM",
        "decided by /linux/seccomp/defaultAction: no rule holds",
    );
    says(
        &["clone3"],
        "clone3() on x86_64, number 435: error ENOSYS",
        "decided by its number: the last call of x86_64 that the profile names is 135 (personality), later ones do not exist",
    );
    says(&["-a", "x86", "read", "3"], "read(3) on x86, number 3: allow", "decided by /linux/seccomp/syscalls/0");
    says(
        &["--arch", "SCMP_ARCH_AARCH64", "read"],
        "read() on aarch64, number 63: kill thread",
        "decided by /linux/seccomp/architectures: aarch64 is neither listed nor this machine's",
    );
    let wrong = |words: &[&str], sentence: &str| {
        let start = ["seccomp", "explain", "--bundle", bundle.path().to_str().unwrap_or_default()];
        bundle.cmd(start.iter().chain(words)).run().fails_with(sentence);
    };
    wrong(&["no_such_call"], "unknown system call \"no_such_call\"");
    wrong(&["-a", "aarch64", "open"], "aarch64 has no system call \"open\"");
    wrong(&["-a", "vax", "open"], "unknown architecture \"vax\"");
    wrong(&["read", "1", "2", "3", "4", "5", "6", "7"], "a system call has at most 6");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn dump_lists_the_filter_or_writes_it_as_the_kernel_takes_it() {
    let Some(bundle) = explained() else { return };
    let config = bundle.path().join("config.json");
    let listing = bundle.cmd(["seccomp", "dump", config.to_str().unwrap_or_default()]).run().ok().lines();
    assert!(listing[0].ends_with(" instructions, flags SPEC_ALLOW"), "{}", listing[0]);
    assert!(listing[1].ends_with("0  load  architecture"), "{}", listing[1]);
    assert!(listing.iter().any(|line| line.contains("if    == 359") && line.ends_with("socket")), "{listing:#?}");
    assert!(listing.iter().any(|line| line.ends_with("end   error EPERM")), "{listing:#?}");
    let count: usize = listing[0].split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    assert_eq!(count, listing.len() - 1);
    let bundle_dir = bundle.path().to_str().unwrap_or_default();
    let raw = bundle.host("raw");
    let binary = crate::harness::runtime().display();
    let script = format!("exec {binary} seccomp dump --raw -b {bundle_dir} >{}", raw.display());
    crate::harness::host_command(&["sh", "-c", &script]);
    assert_eq!(std::fs::read(raw).unwrap().len(), 8 * count);

    let alone = bundle.host_file("profile.json", &bundle.config()["linux"]["seccomp"].to_string());
    let same = bundle.cmd(["seccomp", "dump", alone.to_str().unwrap_or_default()]).run().ok().lines();
    assert_eq!(same, listing);
    let none = bundle.host_file("none.json", "{\"linux\": {}}");
    bundle.cmd(["seccomp", "dump", none.to_str().unwrap_or_default()]).run().fails_with("no seccomp profile is there");
    let engines =
        bundle.host_file("engines.json", "{\"defaultAction\": \"SCMP_ACT_ERRNO\", \"archMap\": [], \"syscalls\": 1}");
    bundle.cmd(["seccomp", "dump", engines.to_str().unwrap_or_default()]).run().fails_with("an engine's own form");
}
