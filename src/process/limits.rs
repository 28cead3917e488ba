//! Resource limits and the out-of-memory score, set by the host on the child's pid.
//!
//! They are set from outside: in a user namespace no hard limit can be raised and no score lowered.

use std::io::Write;

use log::warn;
use nix::unistd::Pid;
use oci_spec::runtime as spec;
use oci_spec::runtime::PosixRlimitType as Type;

use crate::error::{Context, Error, Result, ensure};
use crate::sys::{Errno, process};

/// Types of the config with the kernel's numbers.
const TYPES: [(Type, &str, u32); 16] = [
    (Type::RlimitCpu, "RLIMIT_CPU", libc::RLIMIT_CPU),
    (Type::RlimitFsize, "RLIMIT_FSIZE", libc::RLIMIT_FSIZE),
    (Type::RlimitData, "RLIMIT_DATA", libc::RLIMIT_DATA),
    (Type::RlimitStack, "RLIMIT_STACK", libc::RLIMIT_STACK),
    (Type::RlimitCore, "RLIMIT_CORE", libc::RLIMIT_CORE),
    (Type::RlimitRss, "RLIMIT_RSS", libc::RLIMIT_RSS),
    (Type::RlimitNproc, "RLIMIT_NPROC", libc::RLIMIT_NPROC),
    (Type::RlimitNofile, "RLIMIT_NOFILE", libc::RLIMIT_NOFILE),
    (Type::RlimitMemlock, "RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK),
    (Type::RlimitAs, "RLIMIT_AS", libc::RLIMIT_AS),
    (Type::RlimitLocks, "RLIMIT_LOCKS", libc::RLIMIT_LOCKS),
    (Type::RlimitSigpending, "RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING),
    (Type::RlimitMsgqueue, "RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE),
    (Type::RlimitNice, "RLIMIT_NICE", libc::RLIMIT_NICE),
    (Type::RlimitRtprio, "RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO),
    (Type::RlimitRttime, "RLIMIT_RTTIME", libc::RLIMIT_RTTIME),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit {
    name: &'static str,
    resource: u32,
    soft: u64,
    hard: u64,
}

/// `process.rlimits`; what is not listed stays as the caller of the runtime has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits(Vec<Limit>);

impl Limits {
    pub(super) fn plan(list: &[spec::PosixRlimit]) -> Result<Limits> {
        let mut seen = 0u32;
        let mut limits = Vec::with_capacity(list.len());
        for (index, entry) in list.iter().enumerate() {
            let known = TYPES.iter().find(|(kind, ..)| *kind == entry.typ());
            let &(_, name, resource) = known.ok_or_else(|| Error::new("unknown resource limit"))?;
            let (soft, hard) = (entry.soft(), entry.hard());
            check(name, soft, hard, seen >> resource & 1 == 1).field(|| format!("/process/rlimits/{index}"))?;
            seen |= 1 << resource;
            limits.push(Limit { name, resource, soft, hard });
        }
        Ok(Limits(limits))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn apply(&self, pid: Pid) -> Result<()> {
        for (index, limit) in self.0.iter().enumerate() {
            if let Err(errno) = process::set_limit(pid, limit.resource, limit.soft, limit.hard) {
                return Err(limit.explain(pid, errno).field(format!("/process/rlimits/{index}")));
            }
        }
        Ok(())
    }
}

impl Limits {
    /// As [`Limits::apply`], without RLIMIT_NPROC if that can be lowered later by [`Limits::apply_own_nproc`]: a process
    /// that has to clone could be refused at the limit of its user.
    pub(super) fn apply_but_nproc(&self, pid: Pid) -> Result<()> {
        let Some(count) = self.count() else { return self.apply(pid) };
        let (_, current) = process::limit(pid, libc::RLIMIT_NPROC).context("read RLIMIT_NPROC")?;
        let lowered = count.hard <= current;
        Limits(self.0.iter().filter(|limit| !lowered || limit.resource != libc::RLIMIT_NPROC).copied().collect())
            .apply(pid)
    }

    /// Sets the RLIMIT_NPROC of the calling process, which [`Limits::apply_but_nproc`] has left out.
    pub(super) fn apply_own_nproc(&self) -> Result<()> {
        let Some(Limit { name, resource, soft, hard }) = self.count() else { return Ok(()) };
        process::set_limit(Pid::from_raw(0), *resource, *soft, *hard).with_context(|| format!("set {name}"))
    }

    fn count(&self) -> Option<&Limit> {
        self.0.iter().find(|limit| limit.resource == libc::RLIMIT_NPROC)
    }

    /// Whether the number of processes is limited.
    pub(super) fn has_nproc(&self) -> bool {
        self.count().is_some()
    }
}

impl Limit {
    fn explain(&self, pid: Pid, errno: Errno) -> Error {
        let error = Error::from(errno).context(format!(
            "set {} to soft {} and hard {}",
            self.name,
            Amount(self.soft),
            Amount(self.hard)
        ));
        let Ok((_, current)) = process::limit(pid, self.resource) else { return error };
        if errno != Errno::EPERM || self.hard <= current {
            return error;
        }
        let ceiling = std::fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse().ok());
        match ceiling {
            Some(ceiling) if self.resource == libc::RLIMIT_NOFILE && self.hard > ceiling => {
                error.hint(format!("a limit on open files cannot be above fs.nr_open, which is {ceiling}"))
            }
            _ => error.hint(format!(
                "raising the hard limit above its present {} needs CAP_SYS_RESOURCE, which the runtime does not have",
                Amount(current)
            )),
        }
    }
}

fn check(name: &str, soft: u64, hard: u64, twice: bool) -> Result<()> {
    ensure!(!twice, "{name} is listed twice");
    ensure!(soft <= hard, "the soft limit {} of {name} is above the hard limit {}", Amount(soft), Amount(hard));
    Ok(())
}

struct Amount(u64);

impl std::fmt::Display for Amount {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            u64::MAX => out.write_str("unlimited"),
            amount => write!(out, "{amount}"),
        }
    }
}

/// `process.oomScoreAdj`; absent, the caller's own value stays (runtime-spec: the runtime must not change it).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OomScore(Option<i32>);

impl OomScore {
    pub(super) fn plan(wanted: Option<i32>) -> Result<OomScore> {
        let in_range = |score: i32| (-1000..=1000).contains(&score);
        if let Some(score) = wanted.filter(|&score| !in_range(score)) {
            return Err(Error::new(format!("{score} is not between -1000 and 1000")).field("/process/oomScoreAdj"));
        }
        Ok(OomScore(wanted))
    }

    /// Writes the score. Without privilege over the host (`rootless`) a score that may not be lowered is a warning.
    pub(super) fn apply(self, pid: Pid, rootless: Option<fn() -> bool>) -> Result<()> {
        let Some(score) = self.0 else { return Ok(()) };
        let path = format!("/proc/{pid}/oom_score_adj");
        let written = std::fs::OpenOptions::new().write(true).open(&path);
        match written.and_then(|mut file| file.write_all(score.to_string().as_bytes())) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied && rootless.is_some_and(|ask| ask()) => {
                warn!("/process/oomScoreAdj: {score} is below what an unprivileged runtime may set; it stays as it is");
                Ok(())
            }
            Err(error) => {
                let refused = error.kind() == std::io::ErrorKind::PermissionDenied;
                let error =
                    Error::from(error).context(format!("write {score} to {path}")).field("/process/oomScoreAdj");
                let remedy = "a score below the runtime's own needs CAP_SYS_RESOURCE";
                Err(if refused { error.hint(remedy) } else { error })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(kind: Type, soft: u64, hard: u64) -> spec::PosixRlimit {
        spec::PosixRlimitBuilder::default().typ(kind).soft(soft).hard(hard).build().unwrap()
    }

    #[test]
    fn the_table_has_the_kernels_limits_under_their_names() {
        for (number, (kind, name, resource)) in TYPES.into_iter().enumerate() {
            assert_eq!(kind.to_string(), name);
            assert_eq!(resource as usize, number, "the order of asm-generic/resource.h: {name}");
        }
    }

    #[test]
    fn a_limit_listed_twice_is_refused_with_its_place() {
        let error = Limits::plan(&[limit(Type::RlimitCore, 0, 0), limit(Type::RlimitCore, 0, 0)]).unwrap_err();
        assert_eq!(error.to_string(), "/process/rlimits/1: RLIMIT_CORE is listed twice");
    }

    #[test]
    fn a_soft_limit_above_the_hard_one_is_refused() {
        let error = Limits::plan(&[limit(Type::RlimitNofile, u64::MAX, 9)]).unwrap_err();
        let text = "/process/rlimits/0: the soft limit unlimited of RLIMIT_NOFILE is above the hard limit 9";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn a_limit_is_set_on_another_process() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        Limits::plan(&[limit(Type::RlimitCore, 5, 7)]).unwrap().apply(pid).unwrap();
        assert_eq!(process::limit(pid, libc::RLIMIT_CORE), Ok((5, 7)));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn an_oom_score_is_written_exactly_and_left_alone_when_absent() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        let score = || std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().to_owned();
        let before = score();
        OomScore::plan(None).unwrap().apply(pid, None).unwrap();
        assert_eq!(score(), before);
        OomScore::plan(Some(777)).unwrap().apply(pid, None).unwrap();
        assert_eq!(score(), "777");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn an_oom_score_out_of_range_is_refused() {
        assert_eq!(
            OomScore::plan(Some(1001)).unwrap_err().to_string(),
            "/process/oomScoreAdj: 1001 is not between -1000 and 1000"
        );
    }
}
