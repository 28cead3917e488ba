//! When and where a process runs: scheduler, I/O priority and CPU affinity, set by the host on the child's pid.
//!
//! From the host, because the kernel asks for these rights in the first user namespace, where the child may have none.

use nix::unistd::Pid;
use oci_spec::runtime as spec;
use oci_spec::runtime::{IOPriorityClass as Class, LinuxSchedulerFlag as Flag, LinuxSchedulerPolicy as Policy};

use crate::error::{Context, Error, Result, ensure};
use crate::sys::{Errno, procfs, sched};

const POLICIES: [(Policy, u32); 7] = [
    (Policy::SchedOther, 0),
    (Policy::SchedFifo, 1),
    (Policy::SchedRr, 2),
    (Policy::SchedBatch, 3),
    (Policy::SchedIso, 4),
    (Policy::SchedIdle, 5),
    (Policy::SchedDeadline, 6),
];

const FLAGS: [(Flag, u64); 7] = [
    (Flag::SchedResetOnFork, 0x01),
    (Flag::SchedFlagReclaim, 0x02),
    (Flag::SchedFlagDLOverrun, 0x04),
    (Flag::SchedFlagKeepPolicy, 0x08),
    (Flag::SchedFlagKeepParams, 0x10),
    (Flag::SchedFlagUtilClampMin, 0x20),
    (Flag::SchedFlagUtilClampMax, 0x40),
];

const CLASSES: [(Class, u16); 3] = [(Class::IoprioClassRt, 1), (Class::IoprioClassBe, 2), (Class::IoprioClassIdle, 3)];

fn number<W: PartialEq, N: Copy + Default>(table: &[(W, N)], word: W) -> N {
    table.iter().find(|(known, _)| *known == word).map_or(N::default(), |&(_, number)| number)
}

/// `process.scheduler` and `process.ioPriority`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Schedule {
    scheduler: Option<sched::Attributes>,
    io: Option<(u16, u16)>,
}

impl Schedule {
    pub(super) fn plan(scheduler: Option<&spec::Scheduler>, io: Option<&spec::LinuxIOPriority>) -> Result<Schedule> {
        let scheduler = scheduler.map(attributes).transpose().field(|| "/process/scheduler")?;
        let io = io.map(io_priority).transpose().field(|| "/process/ioPriority")?;
        Ok(Schedule { scheduler, io })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.scheduler.is_none() && self.io.is_none()
    }

    /// Sets both; the I/O priority on the whole process group, which the child leads by now.
    pub(super) fn apply(&self, pid: Pid) -> Result<()> {
        self.apply_scheduler(pid)?;
        self.apply_io(pid)
    }

    /// As [`Schedule::apply`], but for what the children of the process do not inherit.
    pub(super) fn apply_inherited(&self, pid: Pid) -> Result<()> {
        if !self.is_not_inherited() {
            self.apply_scheduler(pid)?;
        }
        self.apply_io(pid)
    }

    /// What [`Schedule::apply_inherited`] has left out.
    pub(super) fn apply_rest(&self, pid: Pid) -> Result<()> {
        if self.is_not_inherited() { self.apply_scheduler(pid) } else { Ok(()) }
    }

    /// Whether the scheduler is one that is not inherited, or with which a process cannot even fork (sched(7),
    /// SCHED_DEADLINE, "The reset-on-fork flag").
    pub(super) fn is_not_inherited(&self) -> bool {
        let reset = number(&FLAGS, Flag::SchedResetOnFork);
        let deadline = number(&POLICIES, Policy::SchedDeadline);
        self.scheduler.is_some_and(|scheduler| scheduler.policy == deadline || scheduler.flags & reset != 0)
    }

    fn apply_scheduler(&self, pid: Pid) -> Result<()> {
        let Some(scheduler) = &self.scheduler else { return Ok(()) };
        let Err(errno) = sched::set_attributes(pid, scheduler) else { return Ok(()) };
        let policy = POLICIES.iter().find(|(_, number)| *number == scheduler.policy);
        let policy = policy.map_or_else(|| scheduler.policy.to_string(), |(policy, _)| policy.to_string());
        let error = Error::from(errno).context(format!("sched_setattr: set scheduling policy {policy}"));
        let error = error.field("/process/scheduler");
        Err(match broken_rule(scheduler, errno) {
            Some(rule) => error.hint(rule),
            None => error,
        })
    }

    fn apply_io(&self, pid: Pid) -> Result<()> {
        if let Some((class, level)) = self.io {
            sched::set_group_io_priority(pid, class, level)
                .with_context(|| format!("set I/O priority class {class} level {level}"))
                .field(|| "/process/ioPriority")?;
        }
        Ok(())
    }
}

/// The rule that the errno stands for (sched_setattr(2), sched(7)).
fn broken_rule(wanted: &sched::Attributes, errno: Errno) -> Option<String> {
    let is = |policy| wanted.policy == number(&POLICIES, policy);
    let clamps = number(&FLAGS, Flag::SchedFlagUtilClampMin) | number(&FLAGS, Flag::SchedFlagUtilClampMax);
    let deadline = is(Policy::SchedDeadline);
    Some(match errno {
        Errno::EINVAL if is(Policy::SchedIso) => "Linux has no SCHED_ISO".to_owned(),
        Errno::EINVAL | Errno::EOPNOTSUPP if wanted.flags & clamps != 0 => {
            "SCHED_FLAG_UTIL_CLAMP_* need a value, for which the runtime-spec has no field".to_owned()
        }
        Errno::EINVAL if deadline => {
            let limit = |which: &str| {
                let file = format!("/proc/sys/kernel/sched_deadline_period_{which}_us");
                std::fs::read_to_string(file).map_or_else(|_| "?".to_owned(), |text| text.trim().to_owned())
            };
            let period = if wanted.period == 0 { "the deadline, which is the period as well," } else { "the period" };
            format!("{period} must be between {} and {} microseconds", limit("min"), limit("max"))
        }
        Errno::EPERM if deadline => {
            "it needs CAP_SYS_NICE, and as many CPUs as its root domain has: no narrower cpuset or affinity".to_owned()
        }
        Errno::EPERM if wanted.priority > 0 => "a priority above RLIMIT_RTPRIO needs CAP_SYS_NICE, and the cgroup \
             needs real-time bandwidth if the kernel has CONFIG_RT_GROUP_SCHED"
            .to_owned(),
        Errno::EPERM if wanted.nice < 0 => "a nice value below what RLIMIT_NICE allows needs CAP_SYS_NICE".to_owned(),
        Errno::EPERM => "it needs CAP_SYS_NICE".to_owned(),
        Errno::EBUSY if deadline => "the CPUs have less runtime left in each period".to_owned(),
        _ => return None,
    })
}

/// The rules of sched(7), "SCHED_DEADLINE", and of the runtime-spec: what is not given is 0. The words are crun's.
fn check_deadline(wanted: &spec::Scheduler) -> Result<()> {
    /// The kernel counts in units of this many nanoseconds.
    const LEAST: u64 = 1024;
    /// The kernel refuses values with the highest bit.
    const MOST: u64 = (1 << 63) - 1;
    let says = |text: String, field: &'static str| Err(Error::new(format!("sched_setattr: {text}")).field(field));
    let (runtime_at, deadline_at) = ("/process/scheduler/runtime", "/process/scheduler/deadline");
    let given = |value: Option<u64>, name: &str, field| match value {
        None => says(format!("`SCHED_DEADLINE` requires `{name}`"), field),
        Some(0) => says(format!("`SCHED_DEADLINE` {name} must be greater than 0"), field),
        Some(value) if !(LEAST..=MOST).contains(&value) => {
            says(format!("`SCHED_DEADLINE` {name} ({value}) must be between {LEAST} and {MOST} ns"), field)
        }
        Some(_) => Ok(()),
    };
    let (runtime, deadline, period) = (*wanted.runtime(), *wanted.deadline(), *wanted.period());
    given(runtime, "runtime", runtime_at)?;
    given(deadline, "deadline", deadline_at)?;
    let (runtime, deadline) = (runtime.unwrap_or_default(), deadline.unwrap_or_default());
    if runtime > deadline {
        return says(format!("`SCHED_DEADLINE` runtime ({runtime}) must be <= deadline ({deadline})"), runtime_at);
    }
    match period {
        // Not given: as long as the deadline.
        None | Some(0) => Ok(()),
        Some(period) if deadline > period => {
            says(format!("`SCHED_DEADLINE` deadline ({deadline}) must be <= period ({period})"), deadline_at)
        }
        Some(_) => given(period, "period", "/process/scheduler/period"),
    }
}

fn attributes(wanted: &spec::Scheduler) -> Result<sched::Attributes> {
    let policy = *wanted.policy();
    let nice = wanted.nice().unwrap_or(0);
    let priority = wanted.priority().unwrap_or(0);
    let deadline = [*wanted.runtime(), *wanted.deadline(), *wanted.period()].map(Option::unwrap_or_default);
    let for_nice = matches!(policy, Policy::SchedOther | Policy::SchedBatch);
    let for_priority = matches!(policy, Policy::SchedFifo | Policy::SchedRr);
    ensure!((-20..=19).contains(&nice), "nice {nice} is not between -20 and 19");
    if nice != 0 && !for_nice {
        log::warn!("/process/scheduler/nice: {policy} has no nice value, so {nice} is without effect");
    }
    ensure!(priority == 0 || for_priority, "priority is only for SCHED_FIFO and SCHED_RR");
    ensure!((0..=99).contains(&priority), "priority {priority} is not between 1 and 99");
    ensure!(priority > 0 || !for_priority, "{policy} requires a priority between 1 and 99");
    ensure!(
        policy == Policy::SchedDeadline || deadline == [0; 3],
        "runtime, deadline and period are only for SCHED_DEADLINE"
    );
    if policy == Policy::SchedDeadline {
        check_deadline(wanted)?;
    }
    Ok(sched::Attributes {
        policy: number(&POLICIES, policy),
        flags: wanted.flags().iter().flatten().map(|&flag| number(&FLAGS, flag)).fold(0, |sum, flag| sum | flag),
        nice: if for_nice { nice } else { 0 },
        priority: priority as u32,
        runtime: deadline[0],
        deadline: deadline[1],
        period: deadline[2],
    })
}

fn io_priority(wanted: &spec::LinuxIOPriority) -> Result<(u16, u16)> {
    let level = wanted.priority();
    ensure!((0..=7).contains(&level), "priority {level} is not between 0 and 7");
    Ok((number(&CLASSES, wanted.class()), level as u16))
}

/// Which CPUs a process may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Affinity {
    /// Of the runtime, before it enters the container's cgroup.
    initial: Option<Vec<u64>>,
    last: Last,
}

/// What happens to the affinity once the process is in its cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Last {
    /// All CPUs that the cpuset allows, however the runtime itself was pinned.
    #[default]
    Reset,
    /// The kernel's choice (runtime-spec: with `initial` alone the runtime should not touch it).
    Untouched,
    Exactly(Vec<u64>),
}

/// More CPUs than any kernel can be built for (8192); the kernel cuts the mask to its own length.
const ALL_CPUS: [u64; 128] = [u64::MAX; 128];

impl Affinity {
    /// Always checked, but used by exec only.
    pub(super) fn plan(wanted: Option<&spec::ExecCPUAffinity>, exec: bool) -> Result<Affinity> {
        let Some(wanted) = wanted else { return Ok(Affinity::default()) };
        let list = |text: &Option<String>, field: &'static str| {
            let text = text.as_deref().unwrap_or("");
            if text.is_empty() { Ok(None) } else { bits(text, 8192).map(Some).field(|| field) }
        };
        let initial = list(wanted.initial(), "/process/execCPUAffinity/initial")?;
        let last = match list(wanted.cpu_affinity_final(), "/process/execCPUAffinity/final")? {
            Some(mask) => Last::Exactly(mask),
            None if initial.is_some() => Last::Untouched,
            None => Last::Reset,
        };
        Ok(if exec { Affinity { initial, last } } else { Affinity::default() })
    }

    /// Moves the runtime itself, before the fork.
    pub(super) fn apply_initial(&self) -> Result<()> {
        let Some(mask) = &self.initial else { return Ok(()) };
        sched::set_affinity(Pid::from_raw(0), mask)
            .context("set the runtime's CPU affinity")
            .field(|| "/process/execCPUAffinity/initial")
    }

    /// Moves the child, once it is in its cgroup.
    pub(super) fn apply(&self, pid: Pid) -> Result<()> {
        match &self.last {
            Last::Untouched => Ok(()),
            Last::Reset => sched::set_affinity(pid, &ALL_CPUS).context("reset the CPU affinity"),
            Last::Exactly(mask) => {
                sched::set_affinity(pid, mask).context("set CPU affinity").field(|| "/process/execCPUAffinity/final")
            }
        }
    }
}

/// Reads a list such as `0-3,7` into a bit mask in words; `limit` is the first number that is too large.
pub(super) fn bits(list: &str, limit: usize) -> Result<Vec<u64>> {
    let mut mask = Vec::new();
    for part in list.split(',') {
        let range = procfs::list::part(part)
            .map_err(|text| Error::new(format!("{text:?} in the list {list:?} is not a number")))?;
        let (first, last) = (*range.start() as usize, *range.end() as usize);
        ensure!(first <= last, "{part:?} in the list {list:?} ends before it begins");
        ensure!(last < limit, "{last} in the list {list:?} is larger than {}", limit - 1);
        if mask.len() <= last / 64 {
            mask.resize(last / 64 + 1, 0);
        }
        for number in first..=last {
            mask[number / 64] |= 1 << (number % 64);
        }
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheduler(edit: impl FnOnce(&mut spec::Scheduler)) -> Result<sched::Attributes> {
        let mut wanted = spec::Scheduler::default();
        edit(&mut wanted);
        attributes(&wanted)
    }

    #[test]
    fn the_tables_agree_with_the_c_library() {
        let policies = [libc::SCHED_OTHER, libc::SCHED_FIFO, libc::SCHED_RR, libc::SCHED_BATCH, 4, libc::SCHED_IDLE, 6];
        assert_eq!(POLICIES.map(|(_, number)| number as i32), policies);
        let flags = [
            libc::SCHED_FLAG_RESET_ON_FORK,
            libc::SCHED_FLAG_RECLAIM,
            libc::SCHED_FLAG_DL_OVERRUN,
            libc::SCHED_FLAG_KEEP_POLICY,
            libc::SCHED_FLAG_KEEP_PARAMS,
            libc::SCHED_FLAG_UTIL_CLAMP_MIN,
            libc::SCHED_FLAG_UTIL_CLAMP_MAX,
        ];
        assert_eq!(FLAGS.map(|(_, number)| number as i32), flags);
    }

    #[test]
    fn nice_priority_and_deadline_belong_to_their_policies() {
        assert_eq!(
            scheduler(|s| {
                s.set_nice(Some(-20));
            })
            .unwrap()
            .nice,
            -20
        );
        assert!(
            scheduler(|s| {
                s.set_nice(Some(20));
            })
            .is_err()
        );
        assert!(
            scheduler(|s| {
                s.set_priority(Some(1));
            })
            .is_err()
        );
        assert!(
            scheduler(|s| {
                s.set_runtime(Some(1));
            })
            .is_err()
        );
        let fifo = scheduler(|s| {
            s.set_policy(Policy::SchedFifo).set_priority(Some(99));
        })
        .unwrap();
        assert_eq!((fifo.policy, fifo.priority), (1, 99));
        let fifo = scheduler(|s| {
            s.set_policy(Policy::SchedFifo).set_priority(Some(1)).set_nice(Some(1));
        })
        .unwrap();
        assert_eq!((fifo.nice, fifo.priority), (0, 1));
    }

    #[test]
    fn a_list_becomes_a_mask() {
        assert_eq!(bits("0-3,7", 8192).unwrap(), [0x8f]);
        assert_eq!(bits("64,3", 8192).unwrap(), [8, 1]);
        for wrong in ["", "a", "3-1", "1,", "8192", "-1", "+1", "1-"] {
            assert!(bits(wrong, 8192).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_mask_of_all_cpus_undoes_a_pin() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        let allowed = || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            status.lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap().to_owned()
        };
        let before = allowed();
        sched::set_affinity(pid, &bits("0", 8192).unwrap()).unwrap();
        assert_eq!(allowed(), "Cpus_allowed_list:\t0");
        Affinity::default().apply(pid).unwrap();
        assert!(allowed().len() >= before.len(), "{} was {before}", allowed());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn the_affinity_of_exec_is_final_or_the_kernels_choice() {
        let mut wanted = spec::ExecCPUAffinity::default();
        wanted.set_initial(Some("0".into()));
        assert_eq!(Affinity::plan(Some(&wanted), true).unwrap().last, Last::Untouched);
        wanted.set_cpu_affinity_final(Some("1".into()));
        assert!(matches!(Affinity::plan(Some(&wanted), true).unwrap().last, Last::Exactly(_)));
        assert_eq!(Affinity::plan(Some(&wanted), false).unwrap(), Affinity::default());
        assert_eq!(Affinity::plan(None, true).unwrap().last, Last::Reset);
    }
}
