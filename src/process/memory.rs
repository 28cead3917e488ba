//! The NUMA memory policy and the execution domain of a process: `linux.memoryPolicy` and `linux.personality`.

use log::warn;
use oci_spec::runtime as spec;
use oci_spec::runtime::{LinuxPersonalityDomain as Domain, MemoryPolicyFlagType as Flag, MemoryPolicyModeType as Mode};

use crate::error::{Context, Result};
use crate::sys::{Errno, sched};

/// Modes with the numbers of `linux/mempolicy.h`.
const MODES: [(Mode, i32); 7] = [
    (Mode::MpolDefault, 0),
    (Mode::MpolPreferred, 1),
    (Mode::MpolBind, 2),
    (Mode::MpolInterleave, 3),
    (Mode::MpolLocal, 4),
    (Mode::MpolPreferredMany, 5),
    (Mode::MpolWeightedInterleave, 6),
];

const FLAGS: [(Flag, i32); 3] =
    [(Flag::MpolFStaticNodes, 1 << 15), (Flag::MpolFRelativeNodes, 1 << 14), (Flag::MpolFNumaBalancing, 1 << 13)];

const DOMAINS: [(Domain, u32); 2] = [(Domain::PerLinux, 0x0000), (Domain::PerLinux32, 0x0008)];

/// All modes and flags (for `features`).
pub fn policy_names() -> (Vec<String>, Vec<String>) {
    (MODES.iter().map(|(mode, _)| mode.to_string()).collect(), FLAGS.iter().map(|(flag, _)| flag.to_string()).collect())
}

/// set_mempolicy(2), ready to be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    mode: i32,
    nodes: Vec<u64>,
}

impl Policy {
    pub(super) fn plan(wanted: &spec::LinuxMemoryPolicy) -> Result<Policy> {
        let number = |mode: Mode| MODES.iter().find(|(known, _)| *known == mode).map_or(0, |&(_, number)| number);
        let bit = |flag: &Flag| FLAGS.iter().find(|(known, _)| known == flag).map_or(0, |&(_, bit)| bit);
        let flags = wanted.flags().iter().flatten().map(bit).fold(0, |sum, bit| sum | bit);
        let list = wanted.nodes().as_deref().unwrap_or("");
        let nodes = || if list.is_empty() { Ok(Vec::new()) } else { super::schedule::bits(list, 1024) };
        let nodes = nodes().context("invalid memory policy nodes")?;
        let bare = matches!(wanted.mode(), Mode::MpolDefault | Mode::MpolLocal);
        let both = FLAGS[0].1 | FLAGS[1].1;
        // set_mempolicy(2), "EINVAL", which does not say for which of these.
        let rule = match () {
            () if bare && !nodes.is_empty() => Some(format!("{} takes no nodes", wanted.mode())),
            () if !bare && wanted.mode() != Mode::MpolPreferred && nodes.is_empty() => {
                Some(format!("{} needs a list of nodes", wanted.mode()))
            }
            () if flags & both == both => {
                Some("MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other".to_owned())
            }
            () => None,
        };
        if let Some(rule) = rule {
            return Err(Errno::EINVAL).context(rule).context("set_mempolicy");
        }
        Ok(Policy { mode: number(wanted.mode()) | flags, nodes })
    }

    pub(super) fn apply(&self) -> Result<()> {
        sched::set_memory_policy(self.mode, &self.nodes)
            .with_context(|| format!("set_mempolicy to {:#x}", self.mode))
            .field(|| "/linux/memoryPolicy")
    }
}

/// The number of the execution domain. Flags are reserved by the standard, so they are a warning.
pub(super) fn personality(wanted: &spec::LinuxPersonality) -> u32 {
    if wanted.flags().iter().flatten().next().is_some() {
        warn!("/linux/personality/flags: no flag is defined, so all are ignored");
    }
    DOMAINS.iter().find(|(known, _)| *known == wanted.domain()).map_or(0, |&(_, number)| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(mode: Mode, nodes: &str, flags: &[Flag]) -> Result<Policy> {
        let mut wanted = spec::LinuxMemoryPolicy::default();
        wanted.set_mode(mode).set_nodes(Some(nodes.to_owned())).set_flags(Some(flags.to_vec()));
        Policy::plan(&wanted)
    }

    #[test]
    fn the_tables_agree_with_the_c_library() {
        let modes =
            [libc::MPOL_DEFAULT, libc::MPOL_PREFERRED, libc::MPOL_BIND, libc::MPOL_INTERLEAVE, libc::MPOL_LOCAL];
        assert_eq!(MODES.map(|(_, number)| number)[..5], modes);
        assert_eq!(
            FLAGS.map(|(_, bit)| bit),
            [libc::MPOL_F_STATIC_NODES, libc::MPOL_F_RELATIVE_NODES, libc::MPOL_F_NUMA_BALANCING]
        );
        // linux/personality.h
        assert_eq!(DOMAINS.map(|(_, number)| number), [0, 8]);
    }

    #[test]
    fn nodes_and_modes_have_to_fit() {
        let bind = policy(Mode::MpolBind, "0,64", &[Flag::MpolFStaticNodes]).unwrap();
        assert_eq!(bind, Policy { mode: 2 | 1 << 15, nodes: vec![1, 1] });
        assert!(policy(Mode::MpolBind, "", &[]).is_err());
        assert!(policy(Mode::MpolDefault, "0", &[]).is_err());
        assert!(policy(Mode::MpolBind, "0", &[Flag::MpolFStaticNodes, Flag::MpolFRelativeNodes]).is_err());
        assert!(policy(Mode::MpolPreferred, "", &[]).is_ok());
    }
}
