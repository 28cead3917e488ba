//! `features`: what it lists is what the kernel has and the runtime does, no more and no less.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use nix::errno::Errno;
use serde_json::{Value, json};

use crate::harness::{Bundle, Cmd, Kind, Sandbox, kind, known_difference, peers_lack_it, skip};

fn features() -> Value {
    Cmd::bare(&Sandbox::of_this_test(), ["features"]).run().json()
}

/// The words of a list, each once.
#[track_caller]
fn words(list: &Value) -> BTreeSet<&str> {
    let list = list.as_array().expect("a list");
    let words: BTreeSet<&str> = list.iter().filter_map(Value::as_str).collect();
    assert_eq!(words.len(), list.len(), "a word is there twice: {list:?}");
    words
}

fn sysctl(name: &str) -> String {
    fs::read_to_string(Path::new("/proc/sys").join(name)).expect("a kernel parameter").trim().to_owned()
}

/// What the kernel says to a call with these numbers.
fn asks(number: libc::c_long, args: [u64; 3]) -> Result<i64, Errno> {
    // SAFETY: every caller passes a null pointer where the kernel takes one, or one that the call is bound to read only.
    Errno::result(unsafe { libc::syscall(number, args[0], args[1], args[2]) })
}

/// Actions of the standard and of the kernel (`/proc/sys/kernel/seccomp/actions_avail`), and their numbers.
const ACTIONS: [(&str, &str, u32); 9] = [
    ("SCMP_ACT_KILL", "kill_thread", libc::SECCOMP_RET_KILL_THREAD),
    ("SCMP_ACT_KILL_THREAD", "kill_thread", libc::SECCOMP_RET_KILL_THREAD),
    ("SCMP_ACT_KILL_PROCESS", "kill_process", libc::SECCOMP_RET_KILL_PROCESS),
    ("SCMP_ACT_TRAP", "trap", libc::SECCOMP_RET_TRAP),
    ("SCMP_ACT_ERRNO", "errno", libc::SECCOMP_RET_ERRNO),
    ("SCMP_ACT_NOTIFY", "user_notif", libc::SECCOMP_RET_USER_NOTIF),
    ("SCMP_ACT_TRACE", "trace", libc::SECCOMP_RET_TRACE),
    ("SCMP_ACT_LOG", "log", libc::SECCOMP_RET_LOG),
    ("SCMP_ACT_ALLOW", "allow", libc::SECCOMP_RET_ALLOW),
];

#[test]
fn the_actions_are_those_of_the_kernel() {
    let available = sysctl("kernel/seccomp/actions_avail");
    let kernel: BTreeSet<&str> = available.split_whitespace().collect();
    for (_, word, number) in ACTIONS {
        // SECCOMP_GET_ACTION_AVAIL reads the number.
        let asked = asks(libc::SYS_seccomp, [2, 0, &raw const number as u64]);
        assert_eq!(asked.is_ok(), kernel.contains(word), "{word}: {asked:?}");
    }
    let expected: BTreeSet<&str> =
        ACTIONS.iter().filter(|(_, word, _)| kernel.contains(word)).map(|(name, ..)| *name).collect();
    assert_eq!(words(&features()["linux"]["seccomp"]["actions"]), expected);
    let known: BTreeSet<&str> = ACTIONS.iter().map(|(_, word, _)| *word).collect();
    assert_eq!(kernel, known, "the kernel has an action that the standard has no word for yet");
}

/// Flags, the bits that stand for them in seccomp(2), and what else the kernel wants beside.
const FLAGS: [(&str, u64); 4] = [
    ("SECCOMP_FILTER_FLAG_TSYNC", 1),
    ("SECCOMP_FILTER_FLAG_LOG", 2),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", 4),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", 32 | 8),
];

#[test]
fn the_flags_of_filters_are_those_that_the_kernel_takes() {
    if known_difference("crun", "it takes flags, and lists none") {
        return;
    }
    let features = features();
    let seccomp = &features["linux"]["seccomp"];
    let (known, supported) = (words(&seccomp["knownFlags"]), words(&seccomp["supportedFlags"]));
    for (name, bits) in FLAGS {
        if name.ends_with("RECV") && known_difference("runc", "its libseccomp has no way to say so") {
            continue;
        }
        // Without a filter a known flag ends in EFAULT, an unknown one in EINVAL before (seccomp(2)).
        let taken = match asks(libc::SYS_seccomp, [1, bits, 0]) {
            Err(Errno::EFAULT) => true,
            Err(Errno::EINVAL) => false,
            other => panic!("{name}: {other:?}"),
        };
        assert!(known.contains(name), "{name}");
        assert_eq!(supported.contains(name), taken, "{name}");
    }
    assert!(supported.is_subset(&known));
    assert!(known.iter().all(|word| FLAGS.iter().any(|(name, _)| name == word)), "{known:?}");
}

#[test]
fn every_word_about_seccomp_makes_a_filter_that_loads() {
    let features = features();
    let seccomp = &features["linux"]["seccomp"];
    let run = |profile: Value| Bundle::new().set("/linux/seccomp", profile).args(["true"]).run();
    let rules = |action: &str, op: &str| {
        let args = json!([{"index": 0, "value": u64::MAX, "valueTwo": u64::MAX, "op": op}]);
        json!([{"names": ["getpgid"], "action": action, "args": args}])
    };
    let mut profiles: Vec<Value> = Vec::new();
    for action in words(&seccomp["actions"]).into_iter().filter(|word| *word != "SCMP_ACT_NOTIFY") {
        profiles.push(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules(action, "SCMP_CMP_EQ")}));
    }
    for op in words(&seccomp["operators"]) {
        profiles.push(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules("SCMP_ACT_LOG", op)}));
    }
    for flag in seccomp["supportedFlags"].as_array().into_iter().flatten() {
        profiles.push(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": [flag], "syscalls": []}));
    }
    for profile in profiles {
        run(profile).ok();
    }
    for (pointer, word) in [
        ("/defaultAction", json!("SCMP_ACT_NONE")),
        ("/architectures", json!(["SCMP_ARCH_NONE"])),
        ("/flags", json!(["SECCOMP_FILTER_FLAG_NONE"])),
        ("/syscalls/0/args/0/op", json!("SCMP_CMP_NONE")),
    ] {
        let mut profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules("SCMP_ACT_LOG", "SCMP_CMP_EQ")});
        match profile.pointer_mut(pointer) {
            Some(place) => *place = word,
            None => profile[&pointer[1..]] = word,
        }
        run(profile).fails();
    }
}

#[test]
fn every_architecture_of_this_byte_order_makes_a_filter() {
    if peers_lack_it() {
        return;
    }
    let features = features();
    let bundle = Bundle::new();
    let (mut made, mut refused) = (0, 0);
    for word in words(&features["linux"]["seccomp"]["archs"]) {
        let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": [word],
                             "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]});
        let dumped = bundle.cmd(["seccomp", "dump", "-"]).stdin(&profile.to_string()).run();
        match dumped.succeeded() {
            true => made += 1,
            false => {
                dumped
                    .fails_with("has another byte order than this machine")
                    .fails_with("/linux/seccomp/architectures");
                refused += 1;
            }
        }
    }
    assert_eq!(made + refused, 18);
    let big_endian = ["MIPS", "MIPS64", "MIPS64N32", "PPC", "PPC64", "S390", "S390X"].len();
    assert_eq!(refused, if cfg!(target_endian = "big") { 18 - big_endian } else { big_endian });
}

#[test]
fn the_capabilities_are_those_of_the_kernel() {
    let features = features();
    let words = words(&features["linux"]["capabilities"]);
    let last: usize = sysctl("kernel/cap_last_cap").parse().expect("a number");
    assert_eq!(words.len(), last + 1, "the kernel's last capability is {last}");
    let lacks = "fails for a capability that it lacks itself";
    if known_difference("crun", lacks) || known_difference("runc", lacks) {
        return;
    }
    // Each word is another bit of the bounding set, as far as this test has them itself.
    let names: Vec<&str> = words.iter().copied().collect();
    let seen = Bundle::new().caps(&names).sh("grep CapBnd /proc/self/status").run();
    let bits = |text: &str| u64::from_str_radix(text.trim().trim_start_matches("CapBnd:").trim(), 16).expect("a mask");
    let own = fs::read_to_string("/proc/thread-self/status").expect("the status");
    let own = own.lines().find(|line| line.starts_with("CapBnd")).expect("the bounding set");
    assert_eq!(bits(seen.ok().stdout().as_str()), bits(own));
}

#[test]
fn the_namespaces_are_those_of_the_kernel() {
    let of_file = |name: &str| match name {
        "mnt" => Some("mount".to_owned()),
        "net" => Some("network".to_owned()),
        other => (!other.ends_with("_for_children")).then(|| other.to_owned()),
    };
    let files = fs::read_dir("/proc/self/ns").expect("namespaces").flatten();
    let kernel: BTreeSet<String> = files.filter_map(|file| of_file(file.file_name().to_str()?)).collect();
    let features = features();
    let listed: BTreeSet<String> = words(&features["linux"]["namespaces"]).into_iter().map(str::to_owned).collect();
    if known_difference("crun", "it makes time namespaces, and does not list them") {
        return;
    }
    assert_eq!(listed, kernel);
    let with_all = Bundle::new().userns().ns("time").probe(["ns"]);
    let seen = with_all.run();
    seen.ok();
    for file in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        let own = fs::read_link(format!("/proc/thread-self/ns/{file}")).expect("a namespace");
        assert!(!seen.stdout().contains(&format!("{file} {}\n", own.display())), "{}", seen.stdout());
    }
}

#[test]
fn the_level_of_landlock_is_the_kernels() {
    if peers_lack_it() {
        return;
    }
    // LANDLOCK_CREATE_RULESET_VERSION
    let level = asks(libc::SYS_landlock_create_ruleset, [0, 0, 1]).unwrap_or(0);
    assert_eq!(features()["annotations"]["run.corten.landlock.level"], level.to_string());
}

/// `mempolicy.h`: modes by their numbers, and the flags of a mode.
const MODES: [(&str, u64); 7] = [
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];

#[test]
fn the_memory_policies_are_those_of_the_kernel() {
    if known_difference("runc", "1.3 has no memory policies") {
        return;
    }
    let features = features();
    let policy = &features["linux"]["memoryPolicy"];
    assert_eq!(words(&policy["modes"]), MODES.iter().map(|(word, _)| *word).collect());
    let flags = ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];
    assert_eq!(words(&policy["flags"]), flags.into());
    let only_kernel = std::thread::spawn(|| {
        // For this thread alone, which ends here. A mode that needs nodes is set on the first one.
        let set = |mode: u64| {
            let nodes: u64 = 1;
            let pointer = if matches!(mode, 0 | 4) { 0 } else { &raw const nodes as u64 };
            asks(libc::SYS_set_mempolicy, [mode, pointer, if pointer == 0 { 0 } else { 64 }])
        };
        assert_eq!(set(7), Err(Errno::EINVAL), "the kernel has a mode that is not listed");
        MODES.map(|(word, mode)| (word, set(mode)))
    });
    for (word, taken) in only_kernel.join().expect("a thread") {
        // Listed as well when this kernel lacks it (runtime-spec, features: "recognized").
        let bundle = Bundle::new().set(
            "/linux/memoryPolicy",
            match word {
                "MPOL_DEFAULT" | "MPOL_LOCAL" => json!({"mode": word}),
                _ => json!({"mode": word, "nodes": "0"}),
            },
        );
        let outcome = bundle.args(["true"]).run();
        assert_eq!(outcome.succeeded(), taken.is_ok(), "{word}: {taken:?}, {}", outcome.stderr());
    }
}

/// What is told of the whole: the standard wants these whether or not the host has it.
#[test]
fn what_corten_has_code_for_is_enabled() {
    let features = features();
    let linux = &features["linux"];
    for pointer in [
        "/cgroup/v2",
        "/cgroup/systemd",
        "/cgroup/systemdUser",
        "/seccomp/enabled",
        "/apparmor/enabled",
        "/selinux/enabled",
        "/intelRdt/enabled",
        "/mountExtensions/idmap/enabled",
    ] {
        assert_eq!(linux.pointer(pointer), Some(&json!(true)), "{pointer}");
    }
    if kind() == Kind::Corten {
        assert_eq!(linux["cgroup"]["v1"], false);
        let told = words(&features["potentiallyUnsafeConfigAnnotations"]);
        for given in ["run.oci.keep_original_groups", "run.oci.delegate-cgroup", "org.systemd.property."] {
            assert!(told.contains(given), "{given} steers the runtime");
        }
    }
}

/// Where corten says another thing than a peer: the field, and the word that only the peer has.
const APART: &[(&str, &str)] = &[("/linux/cgroup/v1", "crun"), ("/linux/cgroup/v1", "runc")];

/// Recursive forms of what belongs to a whole file system, which no recursion changes. crun takes the words and does nothing.
const CRUN_ALONE: [&str; 5] = ["rasync", "rdirsync", "rmand", "rnomand", "rsync"];

#[test]
fn what_peers_tell_of_themselves_corten_tells_as_well() {
    if peers_lack_it() {
        return;
    }
    let own = features();
    let peers = std::env::var("CORTEN_PEERS").unwrap_or_else(|_| "/var/cache/corten-peers".into());
    for peer in ["crun", "runc"] {
        let program = Path::new(&peers).join("sid/bin").join(peer);
        if !program.exists() {
            skip(&format!("{} is not there (hack/peers fetches it)", program.display()));
            continue;
        }
        let theirs = Cmd::bare(&Sandbox::of_this_test(), ["features"]).program(&program).run().json();
        for field in ["hooks", "mountOptions", "linux"] {
            shared(peer, &format!("/{field}"), &theirs[field], &own[field]);
        }
    }
}

fn shared(peer: &str, at: &str, theirs: &Value, own: &Value) {
    match theirs {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| shared(peer, &format!("{at}/{name}"), value, &own[name]));
        }
        Value::Array(_) => {
            let (theirs, own) = (words(theirs), words(own));
            let apart = |word: &&&str| at == "/mountOptions" && peer == "crun" && CRUN_ALONE.contains(word);
            let lacking: Vec<&&str> = theirs.difference(&own).filter(|word| !apart(word)).collect();
            assert!(lacking.is_empty(), "{peer} has {lacking:?} in {at}");
        }
        value if APART.contains(&(at, peer)) => assert_ne!(value, own, "{peer}: {at}"),
        value => assert_eq!(value, own, "{peer}: {at}"),
    }
}
