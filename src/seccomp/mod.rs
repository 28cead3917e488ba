//! seccomp: the profile of `config.json` becomes one BPF program, here, without a library.
//!
//! The meaning is runc's, which is libseccomp's plus one rule: a call with a number above all that the profile names
//! does not exist (ENOSYS), so that programs try the older call. The profile is read into rules ([`profile`]), each
//! call's rules are ordered ([`rules`]), ranges of numbers become a balanced search ([`dispatch`]) and rules with
//! conditions a row of comparisons ([`chain`]) in BPF ([`bpf`]); what is too long for one program is cut ([`split`]).
//!
//! Where it differs from runc on purpose: a call that the profile names is never "newer than the profile", also if it
//! may be carried by `socketcall(2)`; 64-bit ranges with different verdicts never fall through to another rule's verdict;
//! of rules that overlap the order alone decides, also where libseccomp asks once for the equal upper halves of two.

mod agent;
mod bpf;
mod chain;
mod dispatch;
mod explain;
mod interpreter;
mod lint;
mod listing;
mod profile;
mod rules;
mod split;
mod tables;

#[cfg(all(test, target_arch = "x86_64"))]
mod libseccomp;
#[cfg(all(test, target_arch = "x86_64"))]
mod libseccomp_faults;
#[cfg(all(test, target_arch = "x86_64"))]
mod long_tests;
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;

use oci_spec::runtime::{Arch as Listed, LinuxSeccomp};

pub use self::agent::Agent;
use self::chain::Chains;
use self::dispatch::{Leaf, Ranges, Section, Upper};
pub use self::explain::explain;
pub use self::lint::lint;
use self::profile::{Profile, ProfileEntry, Unknown, pointer};
use self::rules::{Condition, Rule, Rules, Test};
use self::tables::{AUDIT_X86_64, Arch, Call, X32_BIT};
use crate::error::{Context, Error, Result, ensure};
use crate::sys::seccomp::{self as sys, Instruction};

/// The most instructions that the kernel accepts in a filter (`BPF_MAXINSNS`).
const MOST_INSTRUCTIONS: usize = 4096;

/// The verdict for calls that the profile cannot know.
const NO_SUCH_CALL: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// A filter ready to be loaded.
#[derive(Clone)]
pub struct Program {
    /// `SECCOMP_FILTER_FLAG_*`.
    flags: u32,
    /// More than one only if one would be too long: each decides about some calls and allows the others, so that together they
    /// decide as one program.
    parts: Vec<Vec<Instruction>>,
    /// Names of unknown system calls, and where they stand.
    unknown: Vec<Unknown>,
}

impl Program {
    /// Compiles a profile (runtime-spec, "Seccomp").
    ///
    /// Fails, with the field named, for an errno that the action cannot carry, an argument index above 5, an
    /// architecture without a table or of another byte order, two rules that give the same arguments different verdicts,
    /// notification where it cannot work, and a program that is too long for the kernel.
    pub fn compile(profile: &LinuxSeccomp) -> Result<Program> {
        Program::compile_on(profile, Arch::native())
    }

    /// The same on a machine of another architecture.
    fn compile_on(profile: &LinuxSeccomp, native: &'static Arch) -> Result<Program> {
        let flags = profile::flags(profile.flags().as_deref());
        let profile = Profile::read(profile, native)?;
        let mut chains = Chains::default();
        let sections = sections(&profile, &mut chains)?;
        let parts = split::parts(sections, &mut chains, profile.default, native)?;
        Ok(Program { flags, parts, unknown: profile.unknown })
    }

    /// One sentence for each unknown system call, which has no effect.
    pub fn warnings(&self) -> impl Iterator<Item = Error> {
        let warning = |name: &str| Error::new(format!("unknown system call {name:?} is ignored"));
        self.unknown.iter().map(move |Unknown { field, name }| warning(name).field(field.clone()))
    }

    /// Names of unknown system calls as an error, for those who want them to be one.
    pub fn refuse_unknown(&self) -> Result<()> {
        let Some(Unknown { field, name }) = self.unknown.first() else { return Ok(()) };
        Err(Error::new(format!("unknown system call {name:?}")).field(field.clone()))
    }

    /// Whether some calls are notified (SCMP_ACT_NOTIFY).
    pub fn notifies(&self) -> bool {
        self.parts.iter().any(|part| split::notifies(part))
    }

    /// How many instructions it has.
    pub fn instructions(&self) -> usize {
        self.parts.iter().map(Vec::len).sum()
    }

    /// Loads the filter for this process and its descendants. It stays over execve and cannot be removed.
    ///
    /// Without no_new_privs the caller needs CAP_SYS_ADMIN in its user namespace (EACCES otherwise). seccomp(2).
    pub fn load(&self) -> Result<()> {
        self.parts.iter().try_for_each(|part| self.load_part(part))
    }

    fn load_part(&self, part: &[Instruction]) -> Result<()> {
        // The kernel accepts this flag only together with a notify descriptor.
        let flags = self.flags & !(libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV as u32);
        sys::set_filter(flags.into(), part)
            .with_context(|| format!("load the seccomp filter of {} instructions", part.len()))?;
        Ok(())
    }

    /// The program for the container's record: the flags, then each part: how many instructions, and eight bytes for
    /// each of them. Little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4 + self.parts.len() * 4 + 8 * self.instructions());
        bytes.extend(self.flags.to_le_bytes());
        for part in &self.parts {
            bytes.extend((part.len() as u32).to_le_bytes());
            for instruction in part {
                bytes.extend(instruction.code.to_le_bytes());
                bytes.extend([instruction.jt, instruction.jf]);
                bytes.extend(instruction.k.to_le_bytes());
            }
        }
        bytes
    }

    /// Reads what [`Program::to_bytes`] wrote. The kernel checks the instructions when they are loaded.
    pub fn from_bytes(bytes: &[u8]) -> Result<Program> {
        let cut_off = || Error::new("the recorded seccomp filter is cut off");
        let (flags, mut rest) = bytes.split_first_chunk::<4>().ok_or_else(cut_off)?;
        let mut parts = Vec::with_capacity(1);
        while let Some((length, code)) = rest.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            ensure!((1..=MOST_INSTRUCTIONS).contains(&length), "the recorded seccomp filter has {length} instructions");
            let (code, after) = code.split_at_checked(8 * length).ok_or_else(cut_off)?;
            let (code, _) = code.as_chunks::<8>();
            let instruction = |&[low, high, jt, jf, ref k @ ..]: &[u8; 8]| Instruction {
                code: u16::from_le_bytes([low, high]),
                jt,
                jf,
                k: u32::from_le_bytes(*k),
            };
            parts.push(code.iter().map(instruction).collect());
            rest = after;
        }
        ensure!(rest.is_empty() && !parts.is_empty(), "the recorded seccomp filter is cut off");
        Ok(Program { flags: u32::from_le_bytes(*flags), parts, unknown: Vec::new() })
    }
}

/// The profile's architectures, the native one first. What shares an audit number is one section.
fn sections(profile: &Profile, chains: &mut Chains) -> Result<Vec<Section>> {
    let default = Leaf::Return(profile.default);
    let mut calls = Vec::with_capacity(profile.archs.len());
    for arch in &profile.archs {
        calls.push(calls_on(arch, profile, chains)?);
    }
    let mut sections: Vec<Section> = Vec::with_capacity(calls.len());
    for (arch, own) in profile.archs.iter().zip(&calls) {
        let hot = || HOT_CALLS.iter().filter_map(|name| Call::named(name)?.number(arch)).collect();
        let of = |listed| profile.archs.iter().position(|arch| arch.listed == listed).map(|at| &calls[at]);
        if arch.audit != AUDIT_X86_64 {
            sections.push(Section { audit: arch.audit, lower: ranges(arch, own, default), upper: None, hot: hot() });
        } else if !sections.iter().any(|section| section.audit == AUDIT_X86_64) {
            let (x86_64, x32) = (of(Listed::ScmpArchX86_64), of(Listed::ScmpArchX32));
            let mut lower = Ranges::new(0..X32_BIT.into(), default);
            x86_64.inspect(|calls| append(&mut lower, calls, default));
            let upper = Some(above_x86_64(x86_64, x32, default));
            sections.push(Section { audit: arch.audit, lower, upper, hot: hot() });
        }
    }
    Ok(sections)
}

/// What programs call often: near the root of the search.
const HOT_CALLS: [&str; 12] = [
    "read",
    "write",
    "futex",
    "openat",
    "mmap",
    "close",
    "epoll_wait",
    "epoll_pwait",
    "sendmsg",
    "recvmsg",
    "clone3",
    "clock_gettime",
];

/// What the profile says of one architecture.
struct Calls {
    /// By rising number, without x32's bit.
    leaves: Vec<(u32, Leaf)>,
    /// The highest number that the profile names, when higher ones do not exist. As in runc, number 0 does not count
    /// (x32's has its bit), nor do calls that may be carried by another.
    newest: Option<u32>,
}

fn calls_on(arch: &Arch, profile: &Profile, chains: &mut Chains) -> Result<Calls> {
    let mut newest: Option<u32> = None;
    // One key per rule, which sorts by number and then keeps the order of the profile.
    let mut found: Vec<u64> = Vec::with_capacity(profile.named.len());
    let key =
        |number: u32, place: usize, carried: bool| u64::from(number) << 32 | (place as u64) << 1 | u64::from(carried);
    for (place, &(call, entry)) in profile.named.iter().enumerate() {
        let direct = call.number(arch).map(|number| number & !arch.bit);
        let carrier = call.carried(arch).map(|(carrier, _)| carrier);
        if let (Some(number), None) = (direct, carrier)
            && number | arch.bit > 0
        {
            newest = newest.max(Some(number));
        }
        // As in runc, a rule with the default action is dropped.
        if profile.entries[usize::from(entry)].verdict != profile.default {
            found.extend(carrier.map(|number| key(number, place, true)));
            found.extend(direct.map(|number| key(number, place, false)));
        }
    }
    found.sort_unstable();

    let mut leaves = Vec::with_capacity(found.len());
    for same in found.chunk_by(|one, other| one >> 32 == other >> 32) {
        let places = same.iter().map(|key| ((*key as u32 >> 1) as usize, key & 1 == 1));
        let leaf = match rules_of(arch, profile, places)? {
            Rules::Always { verdict, .. } => Leaf::Return(verdict),
            Rules::Tried(rules) => Leaf::Chain(chains.keep(rules, arch)),
        };
        leaves.push(((same[0] >> 32) as u32, leaf));
    }
    Ok(Calls { leaves, newest: newest.filter(|_| profile.unknown_is_enosys) })
}

/// The rules for one number, from the places in [`Profile::named`] that ask for it; some by way of a carrier.
fn rules_of(arch: &Arch, profile: &Profile, places: impl Iterator<Item = (usize, bool)>) -> Result<Rules> {
    let mut rules = Rules::Tried(Vec::new());
    for (place, by_carrier) in places {
        let (call, entry) = profile.named[place];
        let first = call.carried(arch).filter(|_| by_carrier).map(|(_, first)| first);
        let ProfileEntry { verdict, alternatives } = &profile.entries[usize::from(entry)];
        for conditions in alternatives {
            let conditions = conditions_on(arch, conditions, first);
            rules.add(Rule { conditions, verdict: *verdict, entry }, arch.wide).map_err(|_| {
                let name = call.name();
                Error::new(format!("{name:?} has another action for the same arguments in an earlier rule"))
                    .field(pointer(format_args!("/syscalls/{entry}")))
            })?;
        }
    }
    Ok(rules)
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
    let mut ranges = Ranges::new(0..1 << 32, default);
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
fn above_x86_64(x86_64: Option<&Calls>, x32: Option<&Calls>, default: Leaf) -> Upper {
    const TOP: u32 = 0x8000_0000;
    const END: u64 = 1 << 32;
    let beyond = |calls: Option<&Calls>| match calls.and_then(|calls| calls.newest) {
        Some(_) => Leaf::Return(NO_SUCH_CALL),
        None => default,
    };
    if let Some(calls) = x32 {
        let mut x32 = Ranges::new(0..X32_BIT.into(), default);
        append(&mut x32, calls, default);
        let mut others = Ranges::new(TOP.into()..END, beyond(x86_64));
        others.from(TOP | X32_BIT, beyond(Some(calls)));
        return Upper { x32: Some(x32), others };
    }
    let killed = Leaf::Return(libc::SECCOMP_RET_KILL_THREAD);
    let mut others = Ranges::new(X32_BIT.into()..END, killed);
    // Without a check for newer calls libseccomp's own stands alone, and it knows no gap here.
    others.from(TOP, if x86_64.is_some_and(|calls| calls.newest.is_some()) { beyond(x86_64) } else { killed });
    others.from(TOP | X32_BIT, killed);
    others.from(u32::MAX, default);
    Upper { x32: None, others }
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
