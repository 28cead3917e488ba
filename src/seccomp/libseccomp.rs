//! The compiler against libseccomp, which runc and crun use: the same calls, the same verdicts.
//!
//! A small C program (tests/libseccomp) asks the library; it is compiled here, so a C compiler and libseccomp-dev are
//! needed (`hack/test` installs them). `CORTEN_LIBSECCOMP=DIR` asks the library of another Debian, which lies in a
//! directory with all that it needs, the loader too (`hack/peers` fetches one).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use oci_spec::runtime::{LinuxSeccompArg, LinuxSeccompOperator as Operator, LinuxSyscall};
use serde_json::json;

use super::interpreter::Data;
use super::libseccomp_faults::*;
use super::tests::{Actions, Dice, ENGINES, arch, boundaries, expected, generated, named_numbers};
use super::*;

/// The path of the program, compiled at the first call.
fn oracle() -> &'static Path {
    static ORACLE: OnceLock<PathBuf> = OnceLock::new();
    ORACLE.get_or_init(|| {
        let own = std::env::current_exe().unwrap();
        let made = own.with_file_name(format!("libseccomp-oracle.{}", std::process::id()));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/libseccomp/oracle.c");
        let cc = Command::new("cc").args(["-O1", "-o"]).arg(&made).args([source, "-lseccomp"]).output();
        let cc = cc.unwrap_or_else(|error| panic!("the comparison with libseccomp needs a C compiler, cc: {error}"));
        let said = String::from_utf8_lossy(&cc.stderr);
        assert!(cc.status.success(), "the comparison with libseccomp needs Debian's libseccomp-dev:\n{said}");
        let kept = own.with_file_name("libseccomp-oracle");
        fs::rename(&made, &kept).unwrap();
        kept
    })
}

/// What the program prints for this input.
fn asks(words: &[&str], input: &str) -> Vec<u8> {
    static FILE: Mutex<u32> = Mutex::new(0);
    let mut count = FILE.lock().unwrap();
    *count += 1;
    let path = oracle().with_extension(format!("{}.{}", std::process::id(), *count));
    drop(count);
    fs::write(&path, input).unwrap();
    let mut command = match std::env::var_os("CORTEN_LIBSECCOMP").map(PathBuf::from) {
        Some(dir) => {
            let mut loader = Command::new(dir.join("ld-linux-x86-64.so.2"));
            loader.arg("--library-path").arg(dir).arg(oracle());
            loader
        }
        None => Command::new(oracle()),
    };
    let output = command.args(words).stdin(File::open(&path).unwrap()).output().unwrap();
    fs::remove_file(&path).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// libseccomp's numbers by architecture (`SCMP_ARCH_*`) and name.
type Known = BTreeMap<u32, BTreeMap<&'static str, Option<u32>>>;

/// libseccomp's numbers of an architecture, of the names that it knows; none when it does not know the architecture.
fn numbers(arch: &Arch) -> BTreeMap<&'static str, Option<u32>> {
    let names: Vec<&str> = Call::all().map(Call::name).collect();
    let text = asks(&["numbers", &format!("{:x}", arch.listed as u32)], &names.join("\n"));
    let text = String::from_utf8(text).unwrap();
    let known = names.into_iter().zip(text.lines()).filter(|(_, line)| *line != "?");
    known.map(|(name, line)| (name, line.parse().ok())).collect()
}

#[test]
fn calls_have_the_numbers_that_libseccomp_knows() {
    let mut compared = 0;
    for arch in tables::ARCHS.iter() {
        let theirs = numbers(arch);
        for call in Call::all() {
            let number = theirs.get(call.name()).copied().flatten();
            // Calls that are newer than the library, or that new kernels dropped, only one of both has.
            if let (Some(theirs), Some(ours)) = (number, call.number(arch)) {
                assert_eq!(ours, theirs, "{} on {:?}", call.name(), arch.listed);
                compared += 1;
            }
        }
    }
    assert!(compared > 5000, "only {compared} numbers");
}

fn operator(op: Operator) -> u32 {
    match op {
        Operator::ScmpCmpNe => 1,
        Operator::ScmpCmpLt => 2,
        Operator::ScmpCmpLe => 3,
        Operator::ScmpCmpEq => 4,
        Operator::ScmpCmpGe => 5,
        Operator::ScmpCmpGt => 6,
        Operator::ScmpCmpMaskedEq => 7,
    }
}

/// The conditions of a rule: several on one argument apart, as in runc.
pub(super) fn alternatives(rule: &LinuxSyscall) -> Vec<&[LinuxSeccompArg]> {
    let args = rule.args().as_deref().unwrap_or_default();
    let repeated = (0..6).any(|index| args.iter().filter(|arg| arg.index() == index).count() > 1);
    if repeated { args.chunks(1).collect() } else { vec![args] }
}

/// The calls of runc for a profile: no rule for what happens anyway, several conditions on one argument apart.
pub(super) fn lines(profile: &LinuxSeccomp, native: &Arch) -> String {
    // libseccomp's numbers of actions are the kernel's.
    let default = profile.default_action().as_u32(profile.default_errno_ret());
    let mut text = format!("profile {default:x} {:x}", native.listed as u32);
    for &listed in profile.architectures().iter().flatten() {
        let _ = write!(text, " {:x}", arch(listed).listed as u32);
    }
    text.push('\n');
    let words = |arg: &LinuxSeccompArg| {
        let two = arg.value_two().unwrap_or(0);
        format!(" {:x} {:x} {:x} {two:x}", arg.index(), operator(arg.op()), arg.value())
    };
    for rule in profile.syscalls().iter().flatten() {
        let action = rule.action().as_u32(rule.errno_ret());
        let alternatives: Vec<String> =
            alternatives(rule).iter().map(|args| args.iter().map(words).collect()).collect();
        for name in rule.names().iter().filter(|name| action != default && Call::named(name).is_some()) {
            for args in &alternatives {
                let _ = writeln!(text, "rule {action:x} {name}{args}");
            }
        }
    }
    text + "end\n"
}

/// libseccomp's filters for profiles; none for one that it refuses.
fn filters(texts: &[String]) -> Vec<Option<Vec<Instruction>>> {
    let bytes = asks(&["filters"], &texts.concat());
    let mut rest = &bytes[..];
    let mut filters = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (code, after) = after.split_at(u32::from_ne_bytes(*length) as usize);
        rest = after;
        let instruction = |&[low, high, jt, jf, a, b, c, d]: &[u8; 8]| Instruction {
            code: u16::from_ne_bytes([low, high]),
            jt,
            jf,
            k: u32::from_ne_bytes([a, b, c, d]),
        };
        let code: Vec<Instruction> = code.as_chunks::<8>().0.iter().map(instruction).collect();
        filters.push((!code.is_empty()).then_some(code));
    }
    assert_eq!(filters.len(), texts.len());
    filters
}

/// A copy without names that libseccomp numbers in another way, or not at all, on one of the profile's architectures.
fn within_reach(profile: &LinuxSeccomp, archs: &[&Arch], known: &Known) -> LinuxSeccomp {
    let alike = |name: &String| {
        let Some(call) = Call::named(name) else { return false };
        // What a carrier carries libseccomp knows by numbers of its own.
        let alike = |theirs: Option<u32>, arch: &Arch| {
            theirs == call.number(arch) || theirs.is_none() && call.carried(arch).is_some()
        };
        archs
            .iter()
            .all(|arch| known[&(arch.listed as u32)].get(call.name()).is_some_and(|theirs| alike(*theirs, arch)))
    };
    let mut value = serde_json::to_value(profile).unwrap();
    for rule in value["syscalls"].as_array_mut().into_iter().flatten() {
        let names = rule["names"].as_array_mut().unwrap();
        names.retain(|name| alike(&name.as_str().unwrap().to_owned()));
    }
    serde_json::from_value(value).unwrap()
}

/// What [`marked`] puts where libseccomp forgot a load: no verdict of any profile.
const FORGOTTEN: u32 = 0x00ff_ffff;

/// The filter with a mark in place of each comparison that it makes of the wrong word: [`Reason::ForgottenLoad`].
fn marked(filter: &[Instruction], audits: &[u32]) -> Vec<Instruction> {
    const AUDIT: (u32, u32) = (4, u32::MAX);
    let mut marked = filter.to_vec();
    // The word that is loaded, by where it lies and what was masked: all that may be, by instruction.
    let mut held = vec![BTreeSet::new(); filter.len()];
    for (at, &Instruction { code, jt, jf, k }) in filter.iter().enumerate() {
        let now = std::mem::take(&mut held[at]);
        match code {
            0x20 => drop(held[at + 1].insert((k, u32::MAX))),
            0x54 => held[at + 1].extend(now.iter().map(|(word, _)| (*word, k))),
            0x05 => held[at + 1 + k as usize].extend(now),
            0x15 | 0x25 | 0x35 | 0x45 => {
                if now.len() > 1 || now.contains(&AUDIT) && !audits.contains(&k) {
                    marked[at] = Instruction { code: 0x06, jt: 0, jf: 0, k: FORGOTTEN };
                }
                held[at + 1 + usize::from(jt)].extend(&now);
                held[at + 1 + usize::from(jf)].extend(&now);
            }
            _ => {}
        }
    }
    marked
}

/// What a comparison came to.
#[derive(Default)]
struct Tally {
    alike: usize,
    /// Of these `alike`, how many are of calls that libseccomp may be mistaken about.
    doubtful: usize,
    others: BTreeMap<Reason, usize>,
}

impl Tally {
    fn differ(&self) -> usize {
        self.others.values().sum()
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} verdicts alike, {} of them where libseccomp may be mistaken", self.alike, self.doubtful)?;
        let mut others = self.others.iter();
        others.try_for_each(|(reason, count)| write!(f, "\n  libseccomp has {count} {}", reason.sentence()))
    }
}

/// Compares both filters: for every number of the profile's architectures if `all`, else those around the named ones.
fn same(
    profile: &LinuxSeccomp,
    native: &'static Arch,
    theirs: &[Instruction],
    all: bool,
    tries: usize,
    dice: &mut Dice,
    tally: &mut Tally,
) {
    let ours = match Program::compile_on(profile, native) {
        Err(error) => panic!("{error}\n{}", serde_json::to_string(profile).unwrap()),
        Ok(program) => program,
    };
    let read = Profile::read(profile, native).unwrap();
    let values = boundaries(profile);
    let marked = &marked(theirs, &read.archs.iter().map(|arch| arch.audit).collect::<Vec<u32>>())[..];
    for arch in &read.archs {
        // runc puts its own instructions before libseccomp's for what is newer than the profile.
        let newest = calls_on(arch, &read, &mut Chains::default()).unwrap().newest;
        let numbers: Vec<u32> = match all {
            true => (0..600).map(|number| number | arch.bit).collect(),
            false => named_numbers(profile, &[arch]),
        };
        let is_its = |number: u32| number & !(X32_BIT - 1) == arch.bit;
        let is_older = |number: u32| is_its(number) && newest.is_none_or(|newest| number & !arch.bit <= newest);
        let stands_for_unknown = |number: u32| newest.is_some() && number == 0 && arch.zero_is_unknown();
        let tangled = tangled(&read, arch.audit);
        for number in numbers.into_iter().filter(|&number| is_older(number) && !stands_for_unknown(number)) {
            for _ in 0..tries {
                let args = std::array::from_fn(|_| *dice.pick(&values));
                let data = Data::new(arch.audit, number, args, native.big_endian);
                let (own, their) =
                    (interpreter::run_all(&ours.parts, &data).verdict, interpreter::run(theirs, &data).verdict);
                // A return that libseccomp (2.5.4) repeats because a jump ends after 255 instructions it turns twice for a machine
                // of the other byte order.
                let their = if native.big_endian && their.swap_bytes() == own { own } else { their };
                let may_err = match () {
                    () if interpreter::run(marked, &data).verdict == FORGOTTEN => Some(Reason::ForgottenLoad),
                    () if tangled.contains(&number) => Some(Reason::SharedEnd),
                    () => None,
                };
                if own == their {
                    tally.alike += 1;
                    tally.doubtful += usize::from(may_err.is_some());
                    continue;
                }
                let open = expected(profile, &read.archs, arch.audit, number, args);
                let reason = match open.contains(&their) {
                    true => (arch.wide && halves_join(&read, arch, number)).then_some(Reason::JoinedHalves),
                    false => may_err,
                };
                let is_without_lost = || {
                    let kept = without_lost(profile, native, arch, number);
                    expected(&kept, &read.archs, arch.audit, number, args).contains(&their)
                };
                let reason = reason.or_else(|| is_without_lost().then_some(Reason::LostRule));
                let Some(reason) = reason.filter(|_| open.contains(&own)) else {
                    panic!(
                        "number {number:#x} of {:?}, {args:x?}: {own:#x}, libseccomp says {their:#x}, the standard \
                         {open:x?}\n{}",
                        arch.listed,
                        serde_json::to_string(profile).unwrap()
                    )
                };
                *tally.others.entry(reason).or_default() += 1;
            }
        }
    }
}

fn known(listed: impl IntoIterator<Item = Listed>) -> Known {
    listed.into_iter().map(|listed| (listed as u32, numbers(arch(listed)))).collect()
}

#[test]
fn the_profiles_of_engines_mean_what_libseccomp_makes_of_them() {
    let mut dice = Dice(5);
    let native = arch(Listed::ScmpArchX86_64);
    let known = known([Listed::ScmpArchX86_64, Listed::ScmpArchX86, Listed::ScmpArchX32]);
    for (engine, text) in ENGINES {
        let profile = serde_json::from_str(text).unwrap();
        let archs = Profile::read(&profile, native).unwrap().archs;
        let profile = within_reach(&profile, &archs, &known);
        let theirs = filters(&[lines(&profile, native)]).remove(0).unwrap();
        let mut tally = Tally::default();
        same(&profile, native, &theirs, true, 10, &mut dice, &mut tally);
        let ours = Program::compile(&profile).unwrap().instructions();
        eprintln!("{engine}: {tally}; {ours} instructions, libseccomp {}", theirs.len());
        assert_eq!(tally.differ(), 0);
    }
}

#[test]
fn every_operator_means_what_libseccomp_makes_of_it() {
    let mut dice = Dice(9);
    let values: [u64; 7] = [0, 5, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0005, 0xffff_ffff_0000_0000, u64::MAX];
    let (mut profiles, mut texts) = (Vec::new(), Vec::new());
    let native = arch(Listed::ScmpArchX86_64);
    for op in OPERATORS {
        for (value, two) in values.iter().flat_map(|value| values.map(|two| (value, two))) {
            let args = json!([{"index": 1, "value": value, "valueTwo": two, "op": op}]);
            let rule = json!({"names": ["ioctl"], "action": "SCMP_ACT_TRAP", "args": args});
            let profile = json!({
                "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "syscalls": [rule]
            });
            profiles.push(serde_json::from_value(profile).unwrap());
            texts.push(lines(&profiles[profiles.len() - 1], native));
        }
    }
    for (profile, theirs) in profiles.iter().zip(filters(&texts)) {
        let mut tally = Tally::default();
        same(profile, native, &theirs.unwrap(), false, 20, &mut dice, &mut tally);
        assert!(tally.alike > 100 && tally.differ() == 0);
    }
}

#[test]
fn a_rule_that_libseccomp_loses_holds() {
    let native = arch(Listed::ScmpArchX86_64);
    let profile: LinuxSeccomp = serde_json::from_value(json!({
        "defaultAction": "SCMP_ACT_LOG", "architectures": ["SCMP_ARCH_X86"], "syscalls": [
            {"names": ["exit_group"], "action": "SCMP_ACT_TRAP", "args": [{"index": 3, "value": 2, "op": "SCMP_CMP_EQ"}]},
            {"names": ["exit_group"], "action": "SCMP_ACT_TRAP", "args": [
                {"index": 3, "value": 2, "op": "SCMP_CMP_NE"}, {"index": 0, "value": 7, "op": "SCMP_CMP_NE"}
            ]},
        ]
    }))
    .unwrap();
    let ours = Program::compile_on(&profile, native).unwrap();
    let theirs = filters(&[lines(&profile, native)]).remove(0).unwrap();
    for (audit, number) in [(native.audit, 231), (arch(Listed::ScmpArchX86).audit, 252)] {
        for (args, verdict) in [
            ([0, 0, 0, 2, 0, 0], libc::SECCOMP_RET_TRAP),
            ([0; 6], libc::SECCOMP_RET_TRAP),
            ([7, 0, 0, 0, 0, 0], libc::SECCOMP_RET_LOG),
        ] {
            let data = Data::new(audit, number, args, false);
            assert_eq!(interpreter::run_all(&ours.parts, &data).verdict, verdict, "{number} {args:?}");
        }
    }
    let mut tally = Tally::default();
    same(&profile, native, &theirs, false, 50, &mut Dice(11), &mut tally);
    assert!(tally.others.keys().all(|reason| *reason == Reason::LostRule), "{tally}");
}

/// Compares generated profiles on all machines, so many as `rounds`.
fn compare_generated(dice: &mut Dice, rounds: usize, actions: Actions) -> Tally {
    use Listed::*;
    let machines: [(Listed, &[&str], &[Listed]); 5] = [
        (ScmpArchX86_64, &["X86_64", "X86", "X32"], &[ScmpArchX86_64, ScmpArchX86, ScmpArchX32]),
        (ScmpArchAarch64, &["AARCH64", "ARM"], &[ScmpArchAarch64, ScmpArchArm]),
        (ScmpArchRiscv64, &["RISCV64"], &[ScmpArchRiscv64]),
        (ScmpArchPpc64le, &["PPC64LE"], &[ScmpArchPpc64le]),
        (ScmpArchS390x, &["S390X", "S390"], &[ScmpArchS390x, ScmpArchS390]),
    ];
    let known = known(machines.iter().flat_map(|(_, _, listed)| listed.iter().copied()));
    let (mut profiles, mut texts) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let (machine, names, listed) = machines[round % machines.len()];
        let archs: Vec<&Arch> = listed.iter().map(|&listed| arch(listed)).collect();
        let profile = within_reach(&generated(dice, names, actions), &archs, &known);
        texts.push(lines(&profile, arch(machine)));
        profiles.push((profile, arch(machine)));
    }
    let (mut tally, mut refused, mut by_it_alone) = (Tally::default(), 0, 0);
    for ((profile, native), theirs) in profiles.iter().zip(filters(&texts)) {
        let Some(mut theirs) = theirs else {
            // Two actions for the same arguments; two names may be one call on some architecture. libseccomp refuses it as
            // well for a call that no architecture has, and where the upper halves alone are the same.
            if Program::compile_on(profile, native).is_ok() {
                let read = Profile::read(profile, native).unwrap();
                let lacking = |call: &Call| read.archs.iter().all(|arch| call.number(arch).is_none());
                let joins = |arch: &Arch| (0..600).any(|number| arch.wide && halves_join(&read, arch, number));
                let known =
                    read.named.iter().any(|(call, _)| lacking(call)) || read.archs.iter().any(|arch| joins(arch));
                assert!(known, "libseccomp refuses {}", serde_json::to_string(profile).unwrap());
                by_it_alone += 1;
            }
            refused += 1;
            continue;
        };
        if native.big_endian {
            theirs.iter_mut().for_each(|code| (code.code, code.k) = (code.code.swap_bytes(), code.k.swap_bytes()));
        }
        same(profile, native, &theirs, false, 2, dice, &mut tally);
    }
    eprintln!(
        "{rounds} profiles; libseccomp refuses {refused}, of which {by_it_alone} for a call that no architecture has or for \
         equal upper halves; {tally}"
    );
    assert!(10 * by_it_alone <= refused);
    tally
}

#[test]
fn generated_profiles_mean_what_libseccomp_makes_of_them() {
    let tally = compare_generated(&mut Dice(0x5eed), 1000, Actions::OfCall);
    assert!(tally.alike > 20 * tally.differ());
}

#[test]
fn of_rules_that_overlap_the_one_decides_that_libseccomp_takes() {
    let tally = compare_generated(&mut Dice(0xface), 1000, Actions::OfRule);
    assert!(tally.alike > 20 * tally.differ());
}
