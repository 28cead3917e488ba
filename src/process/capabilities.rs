//! The five capability sets of capabilities(7).
//!
//! A capability that cannot be granted is a warning, never a reason to fail (runtime-spec, "Linux Process",
//! `capabilities`). Inheritable holds what the config asks for and nothing more (CVE-2022-29162).

use std::ops::{BitAnd, BitAndAssign, BitOr, Not};

use log::warn;
use oci_spec::runtime as spec;
use oci_spec::runtime::Capability as Cap;

use crate::error::{Context, Result};
use crate::sys::{Errno, prctl};

/// The names in the order of `linux/capability.h`: the position is the number.
pub(super) const NAMES: [(Cap, &str); 41] = [
    (Cap::Chown, "CAP_CHOWN"),
    (Cap::DacOverride, "CAP_DAC_OVERRIDE"),
    (Cap::DacReadSearch, "CAP_DAC_READ_SEARCH"),
    (Cap::Fowner, "CAP_FOWNER"),
    (Cap::Fsetid, "CAP_FSETID"),
    (Cap::Kill, "CAP_KILL"),
    (Cap::Setgid, "CAP_SETGID"),
    (Cap::Setuid, "CAP_SETUID"),
    (Cap::Setpcap, "CAP_SETPCAP"),
    (Cap::LinuxImmutable, "CAP_LINUX_IMMUTABLE"),
    (Cap::NetBindService, "CAP_NET_BIND_SERVICE"),
    (Cap::NetBroadcast, "CAP_NET_BROADCAST"),
    (Cap::NetAdmin, "CAP_NET_ADMIN"),
    (Cap::NetRaw, "CAP_NET_RAW"),
    (Cap::IpcLock, "CAP_IPC_LOCK"),
    (Cap::IpcOwner, "CAP_IPC_OWNER"),
    (Cap::SysModule, "CAP_SYS_MODULE"),
    (Cap::SysRawio, "CAP_SYS_RAWIO"),
    (Cap::SysChroot, "CAP_SYS_CHROOT"),
    (Cap::SysPtrace, "CAP_SYS_PTRACE"),
    (Cap::SysPacct, "CAP_SYS_PACCT"),
    (Cap::SysAdmin, "CAP_SYS_ADMIN"),
    (Cap::SysBoot, "CAP_SYS_BOOT"),
    (Cap::SysNice, "CAP_SYS_NICE"),
    (Cap::SysResource, "CAP_SYS_RESOURCE"),
    (Cap::SysTime, "CAP_SYS_TIME"),
    (Cap::SysTtyConfig, "CAP_SYS_TTY_CONFIG"),
    (Cap::Mknod, "CAP_MKNOD"),
    (Cap::Lease, "CAP_LEASE"),
    (Cap::AuditWrite, "CAP_AUDIT_WRITE"),
    (Cap::AuditControl, "CAP_AUDIT_CONTROL"),
    (Cap::Setfcap, "CAP_SETFCAP"),
    (Cap::MacOverride, "CAP_MAC_OVERRIDE"),
    (Cap::MacAdmin, "CAP_MAC_ADMIN"),
    (Cap::Syslog, "CAP_SYSLOG"),
    (Cap::WakeAlarm, "CAP_WAKE_ALARM"),
    (Cap::BlockSuspend, "CAP_BLOCK_SUSPEND"),
    (Cap::AuditRead, "CAP_AUDIT_READ"),
    (Cap::Perfmon, "CAP_PERFMON"),
    (Cap::Bpf, "CAP_BPF"),
    (Cap::CheckpointRestore, "CAP_CHECKPOINT_RESTORE"),
];

/// All capability names, in the kernel's order (for `features`).
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|&(_, name)| name)
}

/// The capability of that name, case and the prefix `CAP_` being optional, as people type it.
pub(super) fn by_name(name: &str) -> Option<Cap> {
    let bare = |text: &str| text.to_ascii_uppercase().trim_start_matches("CAP_").to_owned();
    let wanted = bare(name);
    NAMES.iter().find(|(_, known)| bare(known) == wanted).map(|&(cap, _)| cap)
}

/// A set of capabilities; bit *n* is capability *n*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CapabilitySet(u64);

impl CapabilitySet {
    fn of(list: &Option<spec::Capabilities>) -> CapabilitySet {
        let bit = |cap: &Cap| NAMES.iter().position(|(known, _)| known == cap).map_or(0, |number| 1 << number);
        CapabilitySet(list.iter().flatten().map(bit).fold(0, u64::bitor))
    }

    /// From the kernel's bits.
    pub(super) fn of_bits(bits: u64) -> CapabilitySet {
        CapabilitySet(bits)
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn has(self, number: u32) -> bool {
        self.0 >> number & 1 == 1
    }

    fn numbers(self) -> impl Iterator<Item = u32> {
        (0..64).filter(move |&number| self.has(number))
    }

    pub(super) fn words(self) -> String {
        let name = |number: u32| NAMES.get(number as usize).map_or("?", |&(_, name)| name);
        self.numbers().map(name).collect::<Vec<_>>().join(" ")
    }
}

impl BitAnd for CapabilitySet {
    type Output = CapabilitySet;
    fn bitand(self, other: CapabilitySet) -> CapabilitySet {
        CapabilitySet(self.0 & other.0)
    }
}

impl BitOr for CapabilitySet {
    type Output = CapabilitySet;
    fn bitor(self, other: CapabilitySet) -> CapabilitySet {
        CapabilitySet(self.0 | other.0)
    }
}

impl Not for CapabilitySet {
    type Output = CapabilitySet;
    fn not(self) -> CapabilitySet {
        CapabilitySet(!self.0)
    }
}

impl BitAndAssign for CapabilitySet {
    fn bitand_assign(&mut self, other: CapabilitySet) {
        *self = *self & other;
    }
}

/// The five sets; all empty when the config has no capabilities object, as with runc.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Capabilities {
    pub(super) bounding: CapabilitySet,
    effective: CapabilitySet,
    pub(super) permitted: CapabilitySet,
    pub(super) inheritable: CapabilitySet,
    pub(super) ambient: CapabilitySet,
}

impl Capabilities {
    /// Reads the sets and drops, with a warning, what no kernel would grant.
    pub(super) fn plan(wanted: Option<&spec::LinuxCapabilities>) -> Capabilities {
        let Some(wanted) = wanted else { return Capabilities::default() };
        let mut sets = Capabilities {
            bounding: CapabilitySet::of(wanted.bounding()),
            effective: CapabilitySet::of(wanted.effective()),
            permitted: CapabilitySet::of(wanted.permitted()),
            inheritable: CapabilitySet::of(wanted.inheritable()),
            ambient: CapabilitySet::of(wanted.ambient()),
        };
        // The rules of capset(2) and PR_CAP_AMBIENT_RAISE, in this order: each set is checked against corrected ones.
        restrict(&mut sets.effective, "effective", sets.permitted, "permitted");
        restrict(&mut sets.inheritable, "inheritable", sets.bounding, "bounding");
        restrict(&mut sets.ambient, "ambient", sets.permitted & sets.inheritable, "permitted and inheritable");
        sets
    }

    /// Whether the change from root to another user needs `PR_SET_KEEPCAPS`, as sets other than bounding are not empty.
    pub(super) fn need_keepcaps(&self) -> bool {
        !(self.permitted | self.inheritable).is_empty()
    }

    /// Whether file modes are ignored (CAP_DAC_OVERRIDE), and whether directories may be searched (CAP_DAC_READ_SEARCH).
    pub(super) fn dac_override(&self) -> (bool, bool) {
        const OVERRIDE: u32 = 1;
        const READ_SEARCH: u32 = 2;
        let all = self.effective.has(OVERRIDE);
        (all, all || self.effective.has(READ_SEARCH))
    }

    /// Drops from the bounding set all that the config does not have, also capabilities that this table does not know.
    pub(super) fn drop_bounding(&self) -> Result<()> {
        for number in (0..64).filter(|&number| !self.bounding.has(number)) {
            match prctl::bounding_drop(number) {
                Ok(()) => {}
                // The first number past the kernel's last capability.
                Err(Errno::EINVAL) => break,
                Err(errno) => {
                    return Err(errno)
                        .with_context(|| format!("drop {} from the bounding set", word(number)))
                        .field(|| "/process/capabilities/bounding");
                }
            }
        }
        Ok(())
    }

    /// Sets permitted, effective, inheritable and ambient, exactly.
    pub(super) fn apply(&self) -> Result<()> {
        let sets = match self.set(*self) {
            Ok(()) => *self,
            Err(Errno::EPERM) => self.set_grantable()?,
            Err(errno) => return Err(errno).context("set capabilities").field(|| "/process/capabilities"),
        };
        // capset(2) keeps an ambient capability of the caller only while permitted and inheritable have it.
        if !(sets.permitted & sets.inheritable & !sets.ambient).is_empty() {
            prctl::ambient_clear().context("clear the ambient capabilities")?;
        }
        for number in sets.ambient.numbers() {
            if let Err(errno) = prctl::ambient_raise(number) {
                warn!("{} can't be raised in the ambient set: {}", word(number), crate::error::words(errno));
            }
        }
        Ok(())
    }

    fn set(&self, sets: Capabilities) -> Result<(), Errno> {
        prctl::capset(&prctl::Capabilities {
            effective: sets.effective.0,
            permitted: sets.permitted.0,
            inheritable: sets.inheritable.0,
        })
    }

    /// Warns of what will not be granted, while messages can be sent: at [`Capabilities::apply`] a seccomp filter may be
    /// loaded.
    pub(super) fn warn_of_missing(&self) -> Result<()> {
        if (self.bounding | self.permitted | self.inheritable).is_empty() {
            return Ok(());
        }
        let missing = self.missing(&self.grantable()?);
        if !missing.is_empty() {
            warn!("the container does not get {}: the runtime itself lacks it", missing.words());
        }
        // capset(2) does not check capabilities that are in the bounding set alone.
        for number in (self.bounding & !self.permitted & !missing).numbers() {
            if prctl::bounding_has(number) == Ok(false) {
                warn!("the container does not get {}: the bounding set of the runtime lacks it", word(number));
            }
        }
        Ok(())
    }

    fn missing(&self, granted: &Capabilities) -> CapabilitySet {
        (self.permitted | self.inheritable) & !(granted.permitted | granted.inheritable)
    }

    /// As much as the runtime itself has, where it runs with less than the config asks for.
    fn grantable(&self) -> Result<Capabilities> {
        let own = prctl::capget().context("read the runtime's own capabilities")?;
        let mut sets = *self;
        sets.permitted &= CapabilitySet(own.permitted);
        sets.effective &= sets.permitted;
        sets.inheritable &= CapabilitySet(own.inheritable | own.permitted);
        let bounding = sets.inheritable.numbers().filter(|&number| prctl::bounding_has(number) == Ok(true));
        sets.inheritable = CapabilitySet(bounding.fold(0, |set, number| set | 1 << number)) & self.bounding;
        sets.ambient &= sets.permitted & sets.inheritable;
        Ok(sets)
    }

    fn set_grantable(&self) -> Result<Capabilities> {
        let sets = self.grantable()?;
        let refused = || if self.missing(&sets).is_empty() { Err(Errno::EPERM) } else { self.set(sets) };
        refused().context("set capabilities").field(|| "/process/capabilities")?;
        Ok(sets)
    }
}

fn word(number: u32) -> String {
    NAMES.get(number as usize).map_or_else(|| format!("capability {number}"), |&(_, name)| name.to_owned())
}

fn restrict(set: &mut CapabilitySet, name: &str, limit: CapabilitySet, limits: &str) {
    let excess = *set & !limit;
    if name == "ambient" {
        // runc's words.
        for word in excess.words().split_whitespace() {
            warn!(
                "/process/capabilities/ambient: can't raise ambient capability {word}: it is not in {limits} as well"
            );
        }
    } else if !excess.is_empty() {
        warn!("/process/capabilities/{name}: {} is left out, as it is not in {limits} too", excess.words());
    }
    *set &= limit;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(list: &[Cap]) -> Option<spec::Capabilities> {
        Some(list.iter().copied().collect())
    }

    fn wanted(edit: impl FnOnce(&mut spec::LinuxCapabilities)) -> Capabilities {
        let mut wanted = spec::LinuxCapabilities::default();
        wanted.set_bounding(None).set_effective(None).set_permitted(None).set_inheritable(None).set_ambient(None);
        edit(&mut wanted);
        Capabilities::plan(Some(&wanted))
    }

    #[test]
    fn the_table_agrees_with_the_kernel_header() {
        let Ok(header) = std::fs::read_to_string("/usr/include/linux/capability.h") else { return };
        let mut seen = 0;
        for line in header.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["#define", name, number] = words[..]
                && name.starts_with("CAP_")
                && let Ok(number) = number.parse::<usize>()
            {
                assert_eq!(NAMES.get(number).map(|&(_, ours)| ours), Some(name));
                seen += 1;
            }
        }
        assert!(seen >= 38, "{seen} names in the header");
    }

    #[test]
    fn the_table_agrees_with_the_caps_crate() {
        assert_eq!(caps::all().len(), NAMES.len());
        for cap in caps::all() {
            assert_eq!(NAMES[usize::from(cap.index())].1, cap.to_string());
        }
    }

    #[test]
    fn every_name_is_the_one_that_a_config_uses() {
        for (cap, name) in NAMES {
            assert_eq!(serde_json::to_value(cap).unwrap(), name);
            assert_eq!(by_name(name), Some(cap));
            assert_eq!(by_name(&name[4..].to_lowercase()), Some(cap));
        }
        assert_eq!(by_name("CAP_FUTURE_THING"), None);
    }

    #[test]
    fn no_object_means_no_capabilities_at_all() {
        assert_eq!(Capabilities::plan(None), Capabilities::default());
    }

    #[test]
    fn ambient_without_inheritable_is_left_out() {
        let sets = wanted(|caps| {
            caps.set_bounding(set(&[Cap::Kill, Cap::Chown]));
            caps.set_permitted(set(&[Cap::Kill, Cap::Chown]));
            caps.set_inheritable(set(&[Cap::Chown]));
            caps.set_ambient(set(&[Cap::Kill, Cap::Chown]));
        });
        assert_eq!(sets.ambient, CapabilitySet(1));
        assert_eq!(sets.permitted, CapabilitySet(1 | 1 << 5));
    }

    #[test]
    fn effective_stays_within_permitted_and_inheritable_within_bounding() {
        let sets = wanted(|caps| {
            caps.set_effective(set(&[Cap::Kill]));
            caps.set_inheritable(set(&[Cap::Kill]));
        });
        assert_eq!(sets, Capabilities::default());
    }
}
