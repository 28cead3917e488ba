//! seccomp: the profile of `config.json` becomes one BPF program, here, without a library.
//!
//! The meaning is runc's, which is libseccomp's plus one rule: a call with a number above all that the profile names
//! does not exist (ENOSYS), so that programs try the older call. The profile is read into rules ([`profile`]), each
//! call's rules are ordered ([`rules`]), ranges of numbers become a balanced search ([`dispatch`]) in BPF ([`bpf`]).
//!
//! Where it differs from runc on purpose: a call that the profile names is never "newer than the profile", also if it
//! may be carried by `socketcall(2)`; 64-bit ranges with different verdicts never fall through to another rule's verdict.

mod bpf;
mod dispatch;
mod listener;
mod profile;
mod rules;
mod tables;

#[cfg(test)]
mod judge;
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;

use oci_spec::runtime::{Arch as Listed, LinuxSeccomp};

use self::bpf::Assembler;
use self::dispatch::{Chains, Leaf, Ranges};
pub use self::listener::Listener;
use self::profile::{Profile, pointer};
use self::rules::{Condition, Rule, Rules, Test};
use self::tables::{AUDIT_X86_64, Arch, X32_BIT};
use crate::error::{Context, Error, Result, ensure};
use crate::sys::seccomp::{self as sys, Instruction};

/// The most instructions that the kernel takes (`BPF_MAXINSNS`).
const MOST_INSTRUCTIONS: usize = 4096;

/// The verdict for calls that the profile cannot know.
const NO_SUCH_CALL: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// A filter ready to be loaded.
#[derive(Clone)]
pub struct Program {
    /// `SECCOMP_FILTER_FLAG_*`.
    flags: u32,
    code: Vec<Instruction>,
    warnings: Vec<String>,
}

impl Program {
    /// Compiles a profile (runtime-spec, "Seccomp").
    ///
    /// Fails, with the field named, for an action that is not supported, an errno that the action cannot carry, an
    /// argument index above 5, an architecture without a table or of another byte order, two rules that give the same
    /// arguments different verdicts, and a program that is too long for the kernel.
    pub fn compile(profile: &LinuxSeccomp) -> Result<Program> {
        let flags = profile::flags(profile.flags().as_deref());
        let profile = Profile::read(profile)?;
        let mut chains = Chains::default();
        let mut calls = Vec::with_capacity(profile.archs.len());
        for arch in &profile.archs {
            calls.push(calls_on(arch, &profile, &mut chains)?);
        }
        let default = Leaf::Return(profile.default);
        let mut sections: Vec<(u32, Ranges)> = Vec::with_capacity(calls.len());
        for (arch, own) in profile.archs.iter().zip(&calls) {
            if sections.iter().any(|&(audit, _)| audit == arch.audit) {
                continue; // x86_64 and x32 are one section
            }
            let of = |listed| profile.archs.iter().position(|arch| arch.listed == listed).map(|at| &calls[at]);
            let ranges = if arch.audit == AUDIT_X86_64 {
                x86_64_ranges(of(Listed::ScmpArchX86_64), of(Listed::ScmpArchX32), default)
            } else {
                ranges(arch, own, default)
            };
            sections.push((arch.audit, ranges));
        }

        // Backwards, so that the native architecture, the first, lies next to the head.
        let mut out = Assembler::default();
        let mut heads = Vec::with_capacity(sections.len());
        for (audit, ranges) in sections.iter().rev() {
            heads.insert(0, (*audit, ranges.write(&mut out, &mut chains, profile.default)));
        }
        dispatch::write_head(&mut out, &heads);
        let code = out.finish();
        if code.len() > MOST_INSTRUCTIONS {
            let count = code.len();
            let sentence = format!("the profile becomes {count} instructions, the kernel takes {MOST_INSTRUCTIONS}");
            return Err(Error::new(sentence).field(pointer(format_args!("/syscalls"))));
        }
        Ok(Program { flags, code, warnings: profile.warnings })
    }

    /// What of the profile has no effect, one sentence each: names of unknown system calls.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// How many instructions it has.
    #[cfg(test)]
    pub fn instructions(&self) -> usize {
        self.code.len()
    }

    /// Installs the filter for this process and all that it starts. It stays through execve and cannot be taken off.
    ///
    /// Without no_new_privs the caller needs CAP_SYS_ADMIN in its user namespace (EACCES otherwise). seccomp(2).
    pub fn load(&self) -> Result<()> {
        // The kernel takes this flag only for a filter with a listener; without one there is nothing to wait for.
        let flags = self.flags & !(libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV as u32);
        sys::set_filter(flags.into(), &self.code)
            .with_context(|| format!("load the seccomp filter of {} instructions", self.code.len()))?;
        Ok(())
    }

    /// The program for the container's record: the flags, then eight bytes for each instruction, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4 + 8 * self.code.len());
        bytes.extend(self.flags.to_le_bytes());
        for instruction in &self.code {
            bytes.extend(instruction.code.to_le_bytes());
            bytes.extend([instruction.jt, instruction.jf]);
            bytes.extend(instruction.k.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Program::to_bytes`] wrote. The kernel checks the instructions when they are loaded.
    pub fn from_bytes(bytes: &[u8]) -> Result<Program> {
        let Some((flags, code)) = bytes.split_first_chunk::<4>() else {
            return Err(Error::new("the recorded seccomp filter is cut off"));
        };
        let (code, []) = code.as_chunks::<8>() else {
            return Err(Error::new("the recorded seccomp filter is cut off"));
        };
        let length = code.len();
        ensure!((1..=MOST_INSTRUCTIONS).contains(&length), "the recorded seccomp filter has {length} instructions");
        let instruction = |&[low, high, jt, jf, ref k @ ..]: &[u8; 8]| Instruction {
            code: u16::from_le_bytes([low, high]),
            jt,
            jf,
            k: u32::from_le_bytes(*k),
        };
        let code = code.iter().map(instruction).collect();
        Ok(Program { flags: u32::from_le_bytes(*flags), code, warnings: Vec::new() })
    }
}

/// What the profile says of one architecture.
struct Calls {
    /// By rising number, with the architecture's bit.
    leaves: Vec<(u32, Leaf)>,
    /// The highest number that the profile names, when higher ones do not exist. As in runc, number 0 does not count,
    /// nor do calls that may be carried by another.
    newest: Option<u32>,
}

fn calls_on(arch: &Arch, profile: &Profile, chains: &mut Chains) -> Result<Calls> {
    let mut newest = 0;
    // One key per rule, which sorts by number and then keeps the order of the profile.
    let mut found: Vec<u64> = Vec::with_capacity(profile.named.len());
    let key =
        |number: u32, place: usize, carried: bool| u64::from(number) << 32 | (place as u64) << 1 | u64::from(carried);
    for (place, &(call, entry)) in profile.named.iter().enumerate() {
        let direct = call.number(arch);
        let carrier = call.carried(arch).map(|(carrier, _)| carrier);
        if let (Some(number), None) = (direct, carrier) {
            newest = newest.max(number);
        }
        // runc: a rule that says what happens anyway is none.
        if profile.entries[usize::from(entry)].verdict != profile.default {
            found.extend(carrier.map(|number| key(number, place, true)));
            found.extend(direct.map(|number| key(number, place, false)));
        }
    }
    found.sort_unstable();

    let mut leaves = Vec::with_capacity(found.len());
    for same in found.chunk_by(|one, other| one >> 32 == other >> 32) {
        let mut rules = Rules::Tried(Vec::new());
        for key in same {
            let (call, entry) = profile.named[(*key as u32 >> 1) as usize];
            let first = call.carried(arch).filter(|_| key & 1 == 1).map(|(_, first)| first);
            let entry_of = &profile.entries[usize::from(entry)];
            for conditions in &entry_of.alternatives {
                let conditions = conditions_on(arch, conditions, first);
                rules.add(Rule { conditions, verdict: entry_of.verdict }, arch.wide).map_err(|_| {
                    let name = call.name();
                    Error::new(format!("{name:?} has another action for the same arguments in an earlier rule"))
                        .field(pointer(format_args!("/syscalls/{entry}")))
                })?;
            }
        }
        let leaf = match rules {
            Rules::Always(verdict) => Leaf::Return(verdict),
            Rules::Tried(rules) => chains.leaf(rules, arch),
        };
        leaves.push(((same[0] >> 32) as u32, leaf));
    }
    Ok(Calls { leaves, newest: (newest > 0 && profile.unknown_is_enosys).then_some(newest) })
}

/// The conditions on this architecture. A carried call has its own number as the first argument; its other
/// conditions stay as they are, as libseccomp does it, though its arguments lie in memory then.
fn conditions_on(arch: &Arch, conditions: &[Condition], carried: Option<u32>) -> Vec<Condition> {
    let first = carried.map(|value| Condition { arg: 0, test: Test::Equal, mask: u64::MAX, value: value.into() });
    let rest = conditions.iter().filter(|condition| first.is_none() || condition.arg != 0);
    first.iter().chain(rest).filter_map(|condition| condition.on(arch.wide)).collect()
}

/// Adds an architecture's calls to ranges that end before it in `default`, and what comes after the newest.
fn append(ranges: &mut Ranges, calls: &Calls, default: Leaf) {
    let no_such_call = Leaf::Return(NO_SUCH_CALL);
    let mut after = calls.newest;
    for &(number, leaf) in &calls.leaves {
        if let Some(newest) = after.take_if(|newest| *newest < number) {
            ranges.from(newest + 1, no_such_call);
        }
        ranges.from(number, leaf);
        let known = calls.newest.is_none_or(|newest| number < newest);
        ranges.from(number + 1, if known { default } else { no_such_call });
    }
    if let Some(newest) = after {
        ranges.from(newest + 1, no_such_call);
    }
}

fn ranges(arch: &Arch, calls: &Calls, default: Leaf) -> Ranges {
    let mut ranges = Ranges::new(default);
    if arch.zero_is_unknown() && calls.newest.is_some() {
        ranges.from(0, Leaf::Return(NO_SUCH_CALL));
        ranges.from(1, default);
    }
    append(&mut ranges, calls, default);
    ranges
}

/// The numbers of x86_64 and x32 lie in one space, told apart by one bit; the bits above it are nobody's.
///
/// runc and libseccomp: a number without the bit above x86_64's newest does not exist. With the bit, and x32 not in
/// the profile, the process is killed, but for number -1, with which a tracer skips a call.
fn x86_64_ranges(x86_64: Option<&Calls>, x32: Option<&Calls>, default: Leaf) -> Ranges {
    const TOP: u32 = 0x8000_0000;
    let beyond = |calls: Option<&Calls>| match calls.and_then(|calls| calls.newest) {
        Some(_) => Leaf::Return(NO_SUCH_CALL),
        None => default,
    };
    let killed = Leaf::Return(libc::SECCOMP_RET_KILL_THREAD);
    let mut ranges = Ranges::new(default);
    if let Some(x86_64) = x86_64 {
        append(&mut ranges, x86_64, default);
    }
    match x32 {
        Some(x32) => {
            ranges.from(X32_BIT, default);
            append(&mut ranges, x32, default);
            ranges.from(TOP, beyond(x86_64));
            ranges.from(TOP | X32_BIT, beyond(Some(x32)));
        }
        None => {
            ranges.from(X32_BIT, killed);
            // Without a check for newer calls libseccomp's own stands alone, and it knows no gap here.
            ranges.from(TOP, if x86_64.is_some_and(|calls| calls.newest.is_some()) { beyond(x86_64) } else { killed });
            ranges.from(TOP | X32_BIT, killed);
            ranges.from(u32::MAX, default);
        }
    }
    ranges
}

/// What `features` says of seccomp (runtime-spec, features.md), lists in the order in which runc has them.
pub struct Features {
    /// `SCMP_ACT_*`.
    pub actions: &'static [&'static str],
    /// `SCMP_CMP_*`.
    pub operators: &'static [&'static str],
    /// `SCMP_ARCH_*`.
    pub archs: Vec<String>,
    /// `SECCOMP_FILTER_FLAG_*` that corten knows.
    pub known_flags: Vec<&'static str>,
    /// Those of them that this kernel knows as well.
    pub supported_flags: Vec<&'static str>,
}

const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

const OPERATORS: [&str; 7] =
    ["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"];

/// The flags with what the kernel is asked for: one of them goes only together with a listener.
const FLAGS: [(&str, libc::c_ulong); 4] = [
    ("SECCOMP_FILTER_FLAG_TSYNC", libc::SECCOMP_FILTER_FLAG_TSYNC),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW),
    ("SECCOMP_FILTER_FLAG_LOG", libc::SECCOMP_FILTER_FLAG_LOG),
    (
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
    ),
];

/// Asks the kernel which flags it knows, and says what the compiler knows.
pub fn features() -> Features {
    let supported = FLAGS.iter().filter(|&&(_, bits)| sys::knows_flags(bits));
    Features {
        actions: &ACTIONS,
        operators: &OPERATORS,
        archs: tables::ARCHS.iter().map(|arch| arch.listed.to_string()).collect(),
        known_flags: FLAGS.iter().map(|&(name, _)| name).collect(),
        supported_flags: supported.map(|&(name, _)| name).collect(),
    }
}
