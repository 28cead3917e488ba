//! The profile of `config.json` (`linux.seccomp`) with every name resolved and every rule checked.

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompFilterFlag as Flag,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};

use super::rules::{Condition, Test};
use super::tables::{Arch, Call};
use crate::error::{Error, Result, ensure};

/// A profile that can be compiled.
pub(super) struct Profile {
    pub(super) default: u32,
    /// Calls newer than the profile's newest end in ENOSYS: only where the default forbids (runc's rule).
    pub(super) unknown_is_enosys: bool,
    /// The native one first, then those of the profile.
    pub(super) archs: Vec<&'static Arch>,
    pub(super) entries: Vec<ProfileEntry>,
    /// Every known name of every entry, in the order of the profile: the call and the place of its entry.
    pub(super) named: Vec<(Call, u16)>,
    pub(super) unknown: Vec<Unknown>,
}

/// A name that no architecture has.
#[derive(Clone, Debug)]
pub(super) struct Unknown {
    pub(super) field: String,
    pub(super) name: String,
}

/// One element of `syscalls`.
pub(super) struct ProfileEntry {
    pub(super) verdict: u32,
    /// Any of these may hold; each is a list of conditions that must hold together.
    pub(super) alternatives: Vec<Vec<Condition>>,
}

/// `/linux/seccomp`, and below it.
pub(super) fn pointer(below: std::fmt::Arguments) -> String {
    format!("/linux/seccomp{below}")
}

impl Profile {
    pub(super) fn read(profile: &LinuxSeccomp, native: &'static Arch) -> Result<Profile> {
        let default = verdict(profile.default_action(), profile.default_errno_ret())
            .map_err(|error| error.field(pointer(format_args!("/defaultErrnoRet"))))?;
        let mut read = Profile {
            default,
            unknown_is_enosys: !matches!(
                profile.default_action(),
                // A tracer or an agent answers for calls of the future itself.
                Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace | Action::ScmpActNotify
            ),
            archs: architectures(profile, native)?,
            entries: Vec::new(),
            named: Vec::new(),
            unknown: Vec::new(),
        };
        let syscalls = profile.syscalls().as_deref().unwrap_or_default();
        ensure!(syscalls.len() <= usize::from(u16::MAX), "linux.seccomp has {} rules, too many", syscalls.len());
        read.entries.reserve_exact(syscalls.len());
        read.named.reserve_exact(syscalls.iter().map(|entry| entry.names().len()).sum());
        for (at, syscall) in syscalls.iter().enumerate() {
            read.entry(at, syscall)?;
        }
        Ok(read)
    }

    fn entry(&mut self, at: usize, syscall: &LinuxSyscall) -> Result<()> {
        for (place, name) in syscall.names().iter().enumerate() {
            let Some(call) = Call::named(name) else {
                let field = pointer(format_args!("/syscalls/{at}/names/{place}"));
                ensure_name(name, &field)?;
                self.unknown.push(Unknown { field, name: name.clone() });
                continue;
            };
            self.named.push((call, at as u16));
        }
        let verdict = verdict(syscall.action(), syscall.errno_ret())
            .map_err(|error| error.field(pointer(format_args!("/syscalls/{at}/errnoRet"))))?;
        let alternatives = alternatives(syscall.args().as_deref().unwrap_or_default())
            .map_err(|(arg, error)| error.field(pointer(format_args!("/syscalls/{at}/args/{arg}/index"))))?;
        self.entries.push(ProfileEntry { verdict, alternatives });
        Ok(())
    }
}

fn ensure_name(name: &str, field: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::new("the name of a system call is empty").field(field.to_owned()));
    }
    Ok(())
}

/// The largest errno (`MAX_ERRNO`): beyond it a return value is not an error.
const MAX_ERRNO: u32 = 4095;

/// `SECCOMP_RET_*` with its data. runtime-spec: an errnoRet on an action that cannot carry one must fail.
fn verdict(action: Action, data: Option<u32>) -> Result<u32> {
    let (ret, largest) = match action {
        Action::ScmpActErrno => (libc::SECCOMP_RET_ERRNO, MAX_ERRNO),
        Action::ScmpActTrace => (libc::SECCOMP_RET_TRACE, libc::SECCOMP_RET_DATA),
        Action::ScmpActKill | Action::ScmpActKillThread => (libc::SECCOMP_RET_KILL_THREAD, 0),
        Action::ScmpActKillProcess => (libc::SECCOMP_RET_KILL_PROCESS, 0),
        Action::ScmpActTrap => (libc::SECCOMP_RET_TRAP, 0),
        Action::ScmpActLog => (libc::SECCOMP_RET_LOG, 0),
        Action::ScmpActAllow => (libc::SECCOMP_RET_ALLOW, 0),
        Action::ScmpActNotify => (libc::SECCOMP_RET_USER_NOTIF, 0),
    };
    match data {
        None if largest == 0 => Ok(ret),
        None => Ok(ret | libc::EPERM as u32),
        Some(_) if largest == 0 => Err(Error::new(format!("{action} carries no errno"))),
        Some(data) if data > largest => {
            Err(Error::new(format!("{data} is too large, {action} carries at most {largest}")))
        }
        Some(data) => Ok(ret | data),
    }
}

/// The conditions of an entry. A repeated argument index makes every condition a rule of its own, as in runc.
fn alternatives(args: &[LinuxSeccompArg]) -> std::result::Result<Vec<Vec<Condition>>, (usize, Error)> {
    let mut conditions = Vec::with_capacity(args.len());
    let (mut seen, mut repeated) = (0_u8, false);
    for (at, arg) in args.iter().enumerate() {
        if arg.index() > 5 {
            return Err((at, Error::new(format!("a system call has no argument {}, only 0 to 5", arg.index()))));
        }
        repeated |= seen & 1 << arg.index() != 0;
        seen |= 1 << arg.index();
        conditions.push(condition(arg));
    }
    if repeated {
        return Ok(conditions.into_iter().map(|condition| vec![condition]).collect());
    }
    conditions.sort_unstable_by_key(|condition| condition.arg);
    Ok(vec![conditions])
}

pub(super) fn condition(arg: &LinuxSeccompArg) -> Condition {
    let test = match arg.op() {
        Operator::ScmpCmpEq => Test::Equal,
        Operator::ScmpCmpNe => Test::NotEqual,
        Operator::ScmpCmpLt => Test::Less,
        Operator::ScmpCmpLe => Test::AtMost,
        Operator::ScmpCmpGt => Test::Greater,
        Operator::ScmpCmpGe => Test::AtLeast,
        Operator::ScmpCmpMaskedEq => Test::Masked,
    };
    // runtime-spec: `value` is the mask then, `valueTwo` what the masked bits are.
    let (mask, value) = match test {
        Test::Masked => (arg.value(), arg.value_two().unwrap_or(0)),
        _ => (u64::MAX, arg.value()),
    };
    Condition { arg: arg.index() as u8, test, mask, value }
}

/// libseccomp begins a filter with the native architecture, whether the profile lists it or not.
fn architectures(profile: &LinuxSeccomp, native: &'static Arch) -> Result<Vec<&'static Arch>> {
    let mut archs = vec![native];
    for (at, &listed) in profile.architectures().iter().flatten().enumerate() {
        let field = || pointer(format_args!("/architectures/{at}"));
        let Some(arch) = Arch::of(listed) else {
            return Err(Error::new(format!("{listed} is not supported")).field(field()));
        };
        if arch.big_endian != native.big_endian {
            return Err(Error::new(format!("{listed} has another byte order than this machine")).field(field()));
        }
        if !archs.contains(&arch) {
            archs.push(arch);
        }
    }
    Ok(archs)
}

/// The bits for seccomp(2). An absent list means SPEC_ALLOW, as in runc; an empty one means none.
pub(super) fn flags(list: Option<&[Flag]>) -> u32 {
    let Some(list) = list else { return libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32 };
    list.iter().fold(0, |flags, flag| flags | bits(*flag))
}

fn bits(flag: Flag) -> u32 {
    match flag {
        Flag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG as u32,
        Flag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32,
        // Accepted without effect: there is one thread when the filter is loaded.
        Flag::SeccompFilterFlagTsync => 0,
        Flag::SeccompFilterFlagWaitKillableRecv => libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV as u32,
    }
}
