//! The dry run of a start: a process is made as `create` makes it, with the same code, so that the kernel itself accepts or
//! refuses namespaces, id maps, limits, sysctls, labels, user, capabilities and filter. Then it exits.
//!
//! It stays in the runtime's cgroup, mounts nothing, opens no file of the container, and runs neither hooks nor a program.
//! It leaves nothing behind.

use std::os::fd::AsFd;

use nix::unistd::Pid;

use crate::error::{Context, Error, Result};
use crate::log;
use crate::namespaces::{JoinedNamespace, Origin, uts};
use crate::plan::Plan;
use crate::seccomp::Program;
use crate::sys::procfs::Procfs;
use crate::sys::slate::Slate;
use crate::sys::{self, ns};

use super::build::{self, PendingNamespaces};
use super::child;
use super::finish;
use super::fork::{self, Side};
use super::host;
use super::sync::{Message, SyncSocket};

/// Runs it, passes all errors to `tell`, and logs its warnings. `waits_for_start`: the container would wait for `start`.
pub fn run(plan: &Plan, waits_for_start: bool, tell: &mut dyn FnMut(Error)) {
    let namespaces = &plan.namespaces;
    let Some(mut entries) = namespaces.preflight(&mut |error| tell(error.phase("namespaces"))) else { return };
    host::network_to_fill(namespaces, &entries).map(drop).phase("namespaces").unwrap_or_else(&mut *tell);
    namespaces.devices().preflight(&mut |error| tell(error.phase("namespaces")));
    if let Err(error) = attempt(plan, &mut entries, tell) {
        tell(error);
    }
    plan.seccomp
        .as_ref()
        .filter(|_| waits_for_start)
        .map_or(Ok(()), |filter| ensure_passes_exec_fifo(plan, filter))
        .unwrap_or_else(tell);
}

/// Without no_new_privs the filter is loaded before init waits for `start`, whatever it forbids.
fn ensure_passes_exec_fifo(plan: &Plan, filter: &Program) -> Result<()> {
    if plan.process.no_new_privs() || filter.notifies() {
        return Ok(());
    }
    // Descriptor 3 stands for the real ones, on which hardly a rule depends.
    let waits = filter.allows(libc::SYS_read, [3, 0, 1, 0, 0, 0]) && !filter.kills(libc::SYS_ppoll, [0, 1, 0, 0, 0, 0]);
    match waits {
        true => Ok(()),
        false => Err(Error::new("the filter forbids read or ppoll, with which the container waits for start")
            .field("/linux/seccomp")
            .hint("allow them, or set process.noNewPrivileges: the filter is then loaded after start"))
        .phase("start"),
    }
}

fn attempt(plan: &Plan, entries: &mut Vec<JoinedNamespace>, tell: &mut dyn FnMut(Error)) -> Result<()> {
    let (sync, child_sync) = SyncSocket::pair()?;
    let outside = fork::joins(entries, ns::Flags::PID);
    let namespaces = &plan.namespaces;
    let offsets = namespaces.offsets().filter(|_| namespaces.joins_user());
    let slate = finish::slate(plan.seccomp.as_ref(), &child_sync)?;
    let side = fork::fork(namespaces.clone_flags(), entries, offsets, plan.process.ids(), None);
    let (pid, pidfd) = match side.phase("namespaces")? {
        Side::Host(pid, pidfd) => (pid, pidfd),
        Side::Container => {
            drop(sync);
            container(plan, std::mem::take(entries), slate.as_ref(), &child_sync)
        }
    };
    drop(child_sync);
    let outcome = from_outside(plan, outside, pid, &sync, tell).and_then(|()| listen(plan, pid, &sync, tell));
    if outcome.is_err() || !matches!(outcome, Ok(DryRunEnd::Told)) {
        // It may have ended by itself.
        let _ = sys::pid::signal(pidfd.as_fd(), libc::SIGKILL);
    }
    let fate = fork::exit_of(pidfd.as_fd());
    if let Some(error) = slate.as_ref().and_then(Slate::read) {
        return Err(Error::decode(&error));
    }
    match outcome? {
        DryRunEnd::Told => Ok(()),
        DryRunEnd::Silent => {
            let error = Error::new(format!("the container process {fate} during its setup"));
            Err(match plan.seccomp.as_ref().and_then(fatal_calls) {
                Some(names) => {
                    error.hint(format!("the filter kills it for {names}: allow them, or set noNewPrivileges"))
                }
                None => error,
            })
        }
    }
}

/// The names of calls that `create` makes after the filter is loaded, and that the filter kills.
fn fatal_calls(filter: &Program) -> Option<String> {
    let fatal = finish::CALLS.iter().filter(|(_, call)| filter.kills(*call, [0; 6]));
    let names: Vec<&str> = fatal.map(|(name, _)| *name).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// How the process ended.
enum DryRunEnd {
    /// After its last message.
    Told,
    /// Before its last message.
    Silent,
}

fn from_outside(plan: &Plan, outside: bool, pid: Pid, sync: &SyncSocket, tell: &mut dyn FnMut(Error)) -> Result<()> {
    if outside {
        match sync.receive()? {
            Some(Message::Entered) => {}
            Some(Message::Failed(error)) => return Err(Error::decode(&error)),
            // The next receive reports its death.
            _ => return Ok(()),
        }
    }
    plan.process.apply_from_parent(pid).phase("process").unwrap_or_else(&mut *tell);
    if let Some(maps) = plan.namespaces.maps() {
        maps.write(pid).phase("namespaces")?;
        sync.send_go()?;
    }
    plan.namespaces.ensure_joined_maps(pid).phase("namespaces").unwrap_or_else(&mut *tell);
    Ok(())
}

fn listen(plan: &Plan, pid: Pid, sync: &SyncSocket, tell: &mut dyn FnMut(Error)) -> Result<DryRunEnd> {
    let mut done = false;
    // After its last message its own filter may kill it.
    loop {
        match sync.receive()? {
            Some(Message::Warning(warning)) => log::warn(Error::decode(warning.as_bytes())),
            Some(Message::Failed(error)) => tell(Error::decode(&error)),
            Some(Message::Hooks) => done = true,
            Some(Message::Ready) => {
                plan.process.apply_rlimits_and_sched(pid).phase("process").unwrap_or_else(&mut *tell);
                sync.send_go()?;
            }
            Some(Message::Done) => return Ok(DryRunEnd::Told),
            Some(_) => {}
            None => return Ok(if done { DryRunEnd::Told } else { DryRunEnd::Silent }),
        }
    }
}

/// The child. After [`Message::Hooks`] its end is no failure any more; [`Message::Done`] is sent if the filter allows it.
fn container(plan: &Plan, entries: Vec<JoinedNamespace>, slate: Option<&Slate>, sync: &SyncSocket) -> ! {
    // Exit here: unwinding would run the caller's frames in a second process.
    let told = sync.panic_sender();
    std::panic::set_hook(Box::new(move |info| {
        told(&Error::new(format!("internal error: the check panicked: {info}")));
        sys::pid::exit_now(70)
    }));
    log::take_collected();
    if let Err(error) = run_steps(plan, entries, sync) {
        match slate {
            Some(slate) => slate.write(&error.encode()),
            None => send_error(sync, &error),
        }
    }
    pass_warnings(sync);
    sys::pid::exit_now(sync.send(&Message::Done).is_err().into())
}

fn send_error(sync: &SyncSocket, error: &Error) {
    let _ = sync.send(&Message::Failed(error.encode()));
}

fn pass_warnings(sync: &SyncSocket) {
    for warning in log::take_collected() {
        // With its field: who listens takes it as one.
        let encoded = String::from_utf8_lossy(&warning.encode()).into_owned();
        let _ = sync.send(&Message::Warning(encoded));
    }
}

fn run_steps(plan: &Plan, entries: Vec<JoinedNamespace>, sync: &SyncSocket) -> Result<()> {
    child::set_pdeathsig_of_runtime()?;
    let joins_nothing = entries.is_empty();
    // A procfs shows the pid namespace of its maker, who needs CAP_SYS_ADMIN in the user namespace that owns it.
    let outside = fork::joins(&entries, ns::Flags::PID);
    let wanted = !plan.sysctls.is_empty() || plan.process.needs_proc();
    let early = if wanted && outside { Procfs::open().ok() } else { None };
    enter(plan, entries, sync).phase("namespaces")?;
    let tell = |outcome: Result<()>| outcome.unwrap_or_else(|error| send_error(sync, &error));
    let procfs = match early {
        None if wanted => Some(Procfs::open().context("mount a private procfs").phase("namespaces")?),
        early => early,
    };
    let proc = procfs.as_ref().map(Procfs::dir);
    plan.process.start_session(proc).phase("process")?;
    // What is joined must not be changed.
    let own = |flag| plan.namespaces.origin(flag) == Origin::New;
    if let Some(procfs) = procfs.as_ref().filter(|_| joins_nothing) {
        // Interfaces that are moved here, or that hooks make, are missing.
        let hooks = &plan.hooks;
        let alone_in_pid_namespace =
            [&hooks.prestart, &hooks.create_runtime, &hooks.create_container].iter().all(|list| list.is_empty());
        let written = match alone_in_pid_namespace && plan.namespaces.devices().is_empty() {
            true => plan.sysctls.write(procfs),
            false => plan.sysctls.without_interfaces().write(procfs),
        };
        tell(written.phase("sysctl"));
    }
    if own(ns::Flags::UTS) {
        tell(uts::set_host_name(&plan.host_name));
        tell(uts::set_domain_name(&plan.domain_name));
    }
    tell(plan.process.apply_attributes(proc).phase("process"));
    pass_warnings(sync);
    sync.send(&Message::Ready)?;
    sync.wait_for_go()?;
    let filter = plan.seccomp.as_ref().filter(|filter| !filter.notifies());
    let load = || {
        let Some(filter) = filter else { return Ok(()) };
        finish::choose_send_call(filter, sync);
        filter.load().phase("seccomp")
    };
    if plan.process.no_new_privs() {
        tell(plan.process.try_credentials().phase("process"));
        pass_warnings(sync);
        // `create` would be finished by now: what the filter does to this process does not matter.
        sync.send(&Message::Hooks)?;
        return load();
    }
    load()?;
    match filter {
        Some(filter) => {
            plan.process.try_credentials_filtered().phase("process")?;
            finish::try_last_steps(filter, sync)
        }
        None => plan.process.try_credentials().phase("process"),
    }
}

/// Enters namespaces as the container's half does, except for what only mounts need. Nothing is cloned into a pid namespace
/// that is joined: that setns(2) succeeds is enough.
fn enter(plan: &Plan, entries: Vec<JoinedNamespace>, sync: &SyncSocket) -> Result<()> {
    let planned = &plan.namespaces;
    let (new, instead) = (planned.clone_flags(), plan.process.ids());
    let entering = PendingNamespaces { entries, new, joins_user: planned.joins_user(), instead };
    entering.enter(planned.offsets())?;
    if entering.is_outside() {
        sync.send(&Message::Entered)?;
    }
    if entering.has_new_user() {
        sync.wait_for_go()?;
        return child::become_root(instead, planned.late_flags());
    }
    if build::joins_pid_first(&entering.entries, entering.new)? {
        Ok(())
    } else {
        entering.set_pid_namespace_of_children()
    }
}
