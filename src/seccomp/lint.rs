//! Finds rules of a profile that are valid but probably not meant. `check` reports them, `create` does not.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompArg};

use super::profile::{Profile, condition, pointer};
use super::rules::{Condition, Rules, Test};
use super::tables::{Arch, Call};
use super::{calls_on, chain::Chains, rules_of};
use crate::error::{Error, Result};

/// Calls of which the kernel takes some arguments as 32 bits (`int`, `unsigned int`, `u32`, ids and modes), whatever is in
/// the upper half of the register: bit *n* is argument *n*. From the kernel's SYSCALL_DEFINEs; clone(2) cuts its flags
/// (`lower_32_bits`). Those that profiles look at or could.
const NARROW: [(&str, u8); 88] = [
    ("accept4", 0b1001),
    ("add_key", 0b1_0000),
    ("arch_prctl", 0b1),
    ("bind", 0b101),
    ("bpf", 0b101),
    ("chmod", 0b10),
    ("clock_adjtime", 0b1),
    ("clock_settime", 0b1),
    ("clone", 0b1),
    ("close_range", 0b111),
    ("connect", 0b101),
    ("delete_module", 0b10),
    ("epoll_ctl", 0b111),
    ("eventfd2", 0b11),
    ("execveat", 0b1_0001),
    ("fallocate", 0b11),
    ("fchmod", 0b11),
    ("fchmodat", 0b101),
    ("fchmodat2", 0b1101),
    ("fcntl", 0b11),
    ("finit_module", 0b101),
    ("flock", 0b11),
    ("fsconfig", 0b1_0011),
    ("fsmount", 0b111),
    ("fsopen", 0b10),
    ("futex", 0b10_0110),
    ("getpriority", 0b11),
    ("getrlimit", 0b1),
    ("getsockopt", 0b111),
    ("io_uring_enter", 0b1111),
    ("io_uring_register", 0b1011),
    ("io_uring_setup", 0b1),
    ("ioctl", 0b11),
    ("ioperm", 0b100),
    ("iopl", 0b1),
    ("ioprio_set", 0b111),
    ("kcmp", 0b111),
    ("keyctl", 0b1),
    ("kill", 0b11),
    ("landlock_restrict_self", 0b11),
    ("listen", 0b11),
    ("madvise", 0b100),
    ("memfd_create", 0b10),
    ("memfd_secret", 0b1),
    ("mkdir", 0b10),
    ("mkdirat", 0b101),
    ("mknod", 0b110),
    ("mknodat", 0b1101),
    ("mount_setattr", 0b101),
    ("move_mount", 0b1_0101),
    ("msgctl", 0b11),
    ("msgget", 0b11),
    ("name_to_handle_at", 0b1_0001),
    ("open", 0b110),
    ("open_by_handle_at", 0b101),
    ("open_tree", 0b101),
    ("openat", 0b1101),
    ("perf_event_open", 0b1110),
    ("personality", 0b1),
    ("pidfd_getfd", 0b111),
    ("pidfd_open", 0b11),
    ("pidfd_send_signal", 0b1011),
    ("pipe2", 0b10),
    ("pkey_mprotect", 0b1000),
    ("prctl", 0b1),
    ("prlimit64", 0b11),
    ("quotactl", 0b101),
    ("reboot", 0b111),
    ("sched_setscheduler", 0b11),
    ("seccomp", 0b11),
    ("semctl", 0b111),
    ("semget", 0b111),
    ("setns", 0b11),
    ("setpriority", 0b111),
    ("setrlimit", 0b1),
    ("setsockopt", 0b1_0111),
    ("shmctl", 0b11),
    ("shmget", 0b101),
    ("signalfd4", 0b1001),
    ("socket", 0b111),
    ("socketpair", 0b111),
    ("syslog", 0b101),
    ("tgkill", 0b111),
    ("tkill", 0b11),
    ("umount2", 0b10),
    ("unlinkat", 0b101),
    ("userfaultfd", 0b1),
    ("waitid", 0b1011),
];

/// How many names a sentence has.
const MOST: usize = 8;

/// The mask that makes a comparison one of 32 bits.
const LOWER: u64 = 0xffff_ffff;

/// One error with its field for each finding.
///
/// # Errors
/// Those of the compiler.
pub fn lint(profile: &LinuxSeccomp) -> Result<Vec<Error>> {
    let read = Profile::read(profile, Arch::native())?;
    let mut found = Vec::new();
    for (at, syscall) in profile.syscalls().iter().flatten().enumerate() {
        let calls: Vec<Call> = syscall.names().iter().filter_map(|name| Call::named(name)).collect();
        let args = syscall.args().as_deref().unwrap_or_default();
        found.extend(foreign(&read, at, &calls));
        found.extend(args.iter().enumerate().filter_map(|(place, arg)| wide(&read, at, &calls, (place, arg))));
        found.extend(args.iter().enumerate().filter_map(|(place, arg)| impossible(at, place, &condition(arg))));
        found.extend(alternatives(at, args));
    }
    found.extend(idle(&read)?);
    found.extend(newer(&read)?);
    Ok(found)
}

fn is_lax(verdict: u32) -> bool {
    matches!(verdict & libc::SECCOMP_RET_ACTION_FULL, libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG)
}

/// A comparison of 64 bits that a program can evade by the upper half (CVE-2026-123876).
fn wide(profile: &Profile, at: usize, calls: &[Call], (place, arg): (usize, &LinuxSeccompArg)) -> Option<Error> {
    let lax = is_lax(profile.entries[at].verdict);
    let Condition { arg: index, test, mask, value } = condition(arg);
    let slips = match test {
        Test::NotEqual | Test::Greater | Test::AtLeast => lax,
        Test::Equal | Test::Less | Test::AtMost => !lax,
        Test::Masked => !lax && mask > LOWER,
    };
    // What is decided otherwise where this rule does not hold, or holds by these bits.
    let otherwise = |call: Call| {
        let others = profile.named.iter().filter(|&&(other, entry)| other == call && usize::from(entry) != at);
        let mut verdicts = others.map(|&(_, entry)| profile.entries[usize::from(entry)].verdict);
        is_lax(profile.default) != lax || verdicts.any(|verdict| is_lax(verdict) != lax)
    };
    let narrow = |call: &&Call| {
        let on = profile.archs.iter().any(|arch| arch.wide && call.number(arch).is_some());
        let takes = NARROW.iter().any(|&(name, bits)| name == call.name() && bits >> index & 1 == 1);
        on && takes && otherwise(**call)
    };
    let of: Vec<&str> = calls.iter().filter(|_| slips).filter(narrow).map(|call| call.name()).collect();
    if of.is_empty() {
        return None;
    }
    let (names, gets) = (list(&of), if lax { "is allowed" } else { "escapes the rule" });
    let masked = format!("SCMP_CMP_MASKED_EQ, with the mask {LOWER} as value and {} as valueTwo", value & LOWER);
    let hint = match test {
        Test::Equal => format!("compare by {masked}"),
        Test::NotEqual => format!("allow all, and refuse this value by {masked}"),
        _ => format!("compare by SCMP_CMP_MASKED_EQ, with a mask of {LOWER} at most"),
    };
    let sentence = format!(
        "the rule compares 64 bits, but the kernel uses 32 of argument {index} of {names}: with higher bits set, it {gets}"
    );
    Some(Error::new(sentence).field(pointer(format_args!("/syscalls/{at}/args/{place}"))).hint(hint))
}

/// A condition that holds for no number.
fn impossible(at: usize, place: usize, condition: &Condition) -> Option<Error> {
    let never = match condition.test {
        Test::Less => condition.value == 0,
        Test::Greater => condition.value == u64::MAX,
        _ => false,
    };
    let error =
        || Error::new("no number satisfies this condition").field(pointer(format_args!("/syscalls/{at}/args/{place}")));
    never.then(error)
}

/// Conditions that look like a range.
fn alternatives(at: usize, args: &[LinuxSeccompArg]) -> Option<Error> {
    let repeated =
        args.iter().enumerate().find(|(place, arg)| args[..*place].iter().any(|one| one.index() == arg.index()));
    let (_, arg) = repeated?;
    let sentence = format!("argument {} is compared twice, so one of these conditions is enough", arg.index());
    Some(Error::new(sentence).field(pointer(format_args!("/syscalls/{at}/args"))))
}

/// Names of calls that none of the profile's architectures has.
fn foreign(profile: &Profile, at: usize, calls: &[Call]) -> Option<Error> {
    let foreign: Vec<&str> = calls.iter().filter(|call| !is_there(profile, **call)).map(|call| call.name()).collect();
    let sentence = || format!("no architecture of the profile has {}", list(&foreign));
    (!foreign.is_empty()).then(|| Error::new(sentence()).field(pointer(format_args!("/syscalls/{at}/names"))))
}

fn is_there(profile: &Profile, call: Call) -> bool {
    profile.archs.iter().any(|arch| call.number(arch).is_some() || call.carried(arch).is_some())
}

/// Rules without effect: the default does the same, or other rules decide before them.
fn idle(profile: &Profile) -> Result<Vec<Error>> {
    let mut decides = vec![false; profile.named.len()];
    for arch in &profile.archs {
        for (place, &(call, _)) in profile.named.iter().enumerate() {
            // With the first of the same name all of them are looked at.
            if call.number(arch).is_none() || profile.named[..place].iter().any(|&(earlier, _)| earlier == call) {
                continue;
            }
            let same = |&(_, &(other, entry)): &(usize, &(Call, u16))| {
                other == call && profile.entries[usize::from(entry)].verdict != profile.default
            };
            let places = profile.named.iter().enumerate().filter(same).map(|(place, _)| (place, false));
            let deciding: Vec<u16> = match rules_of(arch, profile, places)? {
                Rules::Always { entry, .. } => vec![entry],
                Rules::Tried(rules) => rules.iter().map(|rule| rule.entry).collect(),
            };
            for (place, _) in profile.named.iter().enumerate().filter(|(_, (other, _))| *other == call) {
                decides[place] |= deciding.contains(&profile.named[place].1);
            }
        }
    }
    let of_entry = |at: usize| {
        let verdict = profile.entries[at].verdict;
        let here = profile.named.iter().zip(&decides).filter(|((_, entry), _)| usize::from(*entry) == at);
        // One that is carried by another call decides there, too.
        let direct =
            |call: Call| is_there(profile, call) && profile.archs.iter().all(|arch| call.carried(arch).is_none());
        let here: Vec<_> = here.filter(|((call, _), _)| direct(*call)).collect();
        let idle: Vec<&str> = here.iter().filter(|(_, decides)| !**decides).map(|((call, _), _)| call.name()).collect();
        // Calls that are newer than all that it names do not exist, and so such a rule has a use.
        if idle.is_empty() || verdict == profile.default && profile.unknown_is_enosys {
            return None;
        }
        let why = if verdict == profile.default { "defaultAction says the same" } else { "another rule does" };
        let sentence = match idle.len() == here.len() {
            true => format!("the rule has no effect: {why}"),
            false => format!("the rule has no effect on {}: {why}", list(&idle)),
        };
        Some(Error::new(sentence).field(pointer(format_args!("/syscalls/{at}"))))
    };
    Ok((0..profile.entries.len()).filter_map(of_entry).collect())
}

/// Calls of this machine that do not exist for the program, since they are newer than the profile.
fn newer(profile: &Profile) -> Result<Option<Error>> {
    let arch = Arch::native();
    let Some(newest) = calls_on(arch, profile, &mut Chains::default())?.newest else { return Ok(None) };
    let mut beyond: Vec<(u32, &str)> = Call::all()
        .filter_map(|call| Some((call.number(arch)? & !arch.bit, call.name())))
        .filter(|(number, _)| *number > newest)
        .collect();
    beyond.sort_unstable();
    let names: Vec<&str> = beyond.iter().map(|(_, name)| *name).collect();
    let sentence = || {
        format!("these calls are newer than all that the profile names, so the program gets ENOSYS: {}", list(&names))
    };
    Ok((!names.is_empty()).then(|| Error::new(sentence()).field(pointer(format_args!("/syscalls")))))
}

fn list(names: &[&str]) -> String {
    let shown = names[..names.len().min(MOST)].join(", ");
    if names.len() > MOST { format!("{shown} and {} more", names.len() - MOST) } else { shown }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn said(mut profile: Value) -> Vec<String> {
        profile["architectures"] = json!(["SCMP_ARCH_X86_64"]);
        let found = lint(&serde_json::from_value(profile).unwrap()).unwrap();
        let line = |error: &Error| format!("{}: {}", error.field_name().unwrap_or(""), error.sentence());
        let lines = found.iter().map(line).filter(|line| !line.contains("newer than all"));
        lines.map(|line| line.replace("/linux/seccomp/syscalls/", "")).collect()
    }

    fn one(default: &str, action: &str, names: &[&str], args: Value) -> Vec<String> {
        said(json!({"defaultAction": format!("SCMP_ACT_{default}"),
            "syscalls": [{"names": names, "action": format!("SCMP_ACT_{action}"), "args": args}]}))
    }

    #[test]
    fn the_table_names_calls_that_there_are_in_order() {
        assert!(NARROW.is_sorted());
        assert!(NARROW.iter().all(|&(name, bits)| Call::named(name).is_some() && bits != 0 && bits < 64));
    }

    #[test]
    fn upper_bits_that_get_a_program_more_are_told() {
        let arg = |op: &str, value: u64| json!([{"index": 0, "op": format!("SCMP_CMP_{op}"), "value": value}]);
        let told = "0/args/0: the rule compares 64 bits, but the kernel uses 32 of argument 0 of socket: with higher bits set, it";
        for (default, action, op, gets) in [
            ("ALLOW", "ERRNO", "EQ", Some("escapes the rule")),
            ("ALLOW", "ERRNO", "LE", Some("escapes the rule")),
            ("ALLOW", "ERRNO", "GE", None),
            ("ALLOW", "ERRNO", "NE", None),
            ("ERRNO", "ALLOW", "NE", Some("is allowed")),
            ("ERRNO", "ALLOW", "GT", Some("is allowed")),
            ("ERRNO", "ALLOW", "EQ", None),
            ("ERRNO", "ALLOW", "LT", None),
            ("ERRNO", "KILL", "EQ", None),
        ] {
            let right: Vec<String> = gets.map(|gets| format!("{told} {gets}")).into_iter().collect();
            assert_eq!(one(default, action, &["socket"], arg(op, 40)), right, "{default} {action} {op}");
        }
        // Of a call with registers of 64 bits, of an argument that is an address, by a mask.
        assert!(one("ALLOW", "ERRNO", &["mount"], arg("EQ", 40)).is_empty());
        assert!(one("ALLOW", "ERRNO", &["open"], arg("EQ", 40)).is_empty());
        let masked = |mask: u64| json!([{"index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": mask, "valueTwo": 40}]);
        assert!(one("ALLOW", "ERRNO", &["socket"], masked(LOWER)).is_empty());
        assert_eq!(one("ALLOW", "ERRNO", &["socket"], masked(u64::MAX)).len(), 1);
        // A refusal with another rule that lets the rest pass.
        let both = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["ioctl"], "action": "SCMP_ACT_KILL", "args": [{"index": 1, "op": "SCMP_CMP_EQ", "value": 21522}]},
            {"names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "op": "SCMP_CMP_EQ", "value": 0}]}]});
        assert_eq!(said(both).len(), 1);
    }

    #[test]
    fn rules_that_decide_nothing_are_told() {
        let two =
            |default: &str, one: Value, other: Value| said(json!({"defaultAction": default, "syscalls": [one, other]}));
        let open = |action: &str, names: &[&str]| json!({"names": names, "action": action});
        let (allow, errno) = ("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO");
        assert_eq!(
            two(allow, open(errno, &["chdir"]), open(allow, &["read", "write"])),
            ["1: the rule has no effect: defaultAction says the same"]
        );
        assert_eq!(
            two(errno, open(allow, &["chdir", "read"]), open("SCMP_ACT_LOG", &["read", "write"])),
            ["1: the rule has no effect on read: another rule does"]
        );
        let narrow = json!({"names": ["mount"], "action": "SCMP_ACT_LOG",
                            "args": [{"index": 3, "op": "SCMP_CMP_EQ", "value": 1}]});
        assert_eq!(two(errno, narrow, open(allow, &["mount"])), ["0: the rule has no effect: another rule does"]);
        let (args, sentence) =
            (json!([{"index": 3, "op": "SCMP_CMP_LT", "value": 0}]), "0/args/0: no number satisfies this condition");
        assert_eq!(one("ERRNO", "ALLOW", &["mount"], args), [sentence]);
        let range =
            json!([{"index": 3, "op": "SCMP_CMP_GE", "value": 5}, {"index": 3, "op": "SCMP_CMP_LE", "value": 9}]);
        assert_eq!(
            one("ERRNO", "ALLOW", &["mount"], range),
            ["0/args: argument 3 is compared twice, so one of these conditions is enough"]
        );
    }

    #[test]
    fn names_of_other_architectures_and_newer_calls_are_told() {
        assert_eq!(
            one("ERRNO", "ALLOW", &["read", "clock_gettime64", "_llseek"], Value::Null),
            ["0/names: no architecture of the profile has clock_gettime64, _llseek"]
        );
        let profile = |default: &str, name: &str| json!({"defaultAction": default, "syscalls": [{"names": [name], "action": "SCMP_ACT_LOG"}]});
        let newer = |profile: Value| {
            let found = lint(&serde_json::from_value(profile).unwrap()).unwrap();
            found.iter().map(|error| error.sentence()).find(|line| line.contains("newer than all"))
        };
        let told = newer(profile("SCMP_ACT_ERRNO", "pidfd_open")).unwrap();
        assert!(told.contains("ENOSYS: clone3, close_range, openat2, pidfd_getfd, faccessat2"), "{told}");
        assert_eq!(newer(profile("SCMP_ACT_ALLOW", "pidfd_open")), None);
    }
}
