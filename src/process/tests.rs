//! The whole way of a process, from its description to what the program sees, in forked children.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::pty::{OpenptyResult, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::sys::wait::waitpid;
use nix::unistd::{Uid, dup2_stderr, dup2_stdin, dup2_stdout, pipe, pipe2};
use oci_spec::runtime::{Capability as Cap, PosixRlimitBuilder, PosixRlimitType};

use super::foreground::{Ended, Foreground, Terminal};
use super::*;
use crate::sys::tty;

fn described(args: &[&str]) -> spec::Process {
    let mut process = spec::Process::default();
    process.set_args(Some(args.iter().map(|&arg| arg.to_owned()).collect()));
    process.set_rlimits(None);
    process.set_capabilities(None);
    process.set_no_new_privileges(None);
    process
}

fn shell(script: &str) -> spec::Process {
    described(&["sh", "-c", script])
}

/// Runs a process as a container's child would and gives back all that it wrote, or the error.
fn run(process: &spec::Process, facts: &ProcessFacts<'_>) -> String {
    run_plan(Process::plan(process, facts).unwrap())
}

fn run_plan(mut plan: Process) -> String {
    let host = plan.clone();
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let (until_ready, ready) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let (until_go, go) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let child = kernel::in_child(|| {
        dup2_stdin(File::open("/dev/null").unwrap()).unwrap();
        dup2_stdout(&writer).unwrap();
        dup2_stderr(&writer).unwrap();
        let mut steps = || {
            plan.start_session(None)?;
            plan.prepare(None)?;
            nix::unistd::write(&ready, b"!")?;
            nix::unistd::read(&until_go, &mut [0])?;
            plan.drop_privileges()?;
            plan.close_descriptors(&[writer.as_fd()])?;
            Err::<(), _>(plan.execute(true))
        };
        let error = steps().unwrap_err();
        nix::unistd::write(&writer, error.to_string().as_bytes()).unwrap();
        1
    });
    host.apply_from_parent(child).unwrap();
    nix::unistd::read(&until_ready, &mut [0]).unwrap();
    host.apply_rlimits_and_sched(child).unwrap();
    nix::unistd::write(&go, b"!").unwrap();
    drop(writer);
    let mut seen = String::new();
    File::from(reader).read_to_string(&mut seen).unwrap();
    waitpid(child, None).unwrap();
    seen
}

fn root() -> bool {
    Uid::effective().is_root()
}

#[test]
fn the_program_has_exactly_the_identity_that_was_asked_for() {
    if !root() {
        return;
    }
    let mut process =
        shell("id -u; id -g; id -G; umask; pwd; ulimit -c; echo $HOME; grep -E 'Cap|NoNew' /proc/self/status");
    process.user_mut().set_uid(4242).set_gid(4343).set_additional_gids(Some(vec![20, 10, 20])).set_umask(Some(0o027));
    process.set_no_new_privileges(Some(true)).set_cwd("/usr".into());
    process.set_rlimits(Some(vec![
        PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitCore).soft(0u64).hard(0u64).build().unwrap(),
    ]));
    let mut caps = spec::LinuxCapabilities::default();
    caps.set_bounding(Some([Cap::Chown, Cap::Kill].into()));
    caps.set_permitted(Some([Cap::Chown, Cap::Kill].into()));
    caps.set_effective(Some([Cap::Chown].into()));
    caps.set_inheritable(Some([Cap::Kill].into()));
    caps.set_ambient(Some([Cap::Kill].into()));
    process.set_capabilities(Some(caps));
    let seen = run(&process, &ProcessFacts::default());
    let expected = "4242\n4343\n4343 10 20\n0027\n/usr\n0\n/\nCapInh:\t0000000000000020\nCapPrm:\t0000000000000020\n\
        CapEff:\t0000000000000020\nCapBnd:\t0000000000000021\nCapAmb:\t0000000000000020\nNoNewPrivs:\t1\n";
    assert_eq!(seen, expected);
}

#[test]
fn a_root_process_has_no_capability_that_was_not_asked_for() {
    if !root() {
        return;
    }
    let seen = run(&shell("grep -E 'Cap|NoNew|SigBlk' /proc/self/status; echo $HOME"), &ProcessFacts::default());
    let none = "0000000000000000";
    let expected = format!(
        "SigBlk:\t{none}\nCapInh:\t{none}\nCapPrm:\t{none}\nCapEff:\t{none}\nCapBnd:\t{none}\nCapAmb:\t{none}\n\
         NoNewPrivs:\t0\n/root\n"
    );
    assert_eq!(seen, expected);
}

#[test]
fn a_capability_that_the_runtime_lacks_does_not_stop_the_container() {
    if !root() {
        return;
    }
    let mut process = shell("grep CapPrm /proc/self/status");
    let every: spec::Capabilities = capabilities::NAMES.iter().map(|&(cap, _)| cap).collect();
    let mut caps = spec::LinuxCapabilities::default();
    caps.set_bounding(Some(every.clone())).set_permitted(Some(every.clone())).set_effective(Some(every));
    caps.set_inheritable(None).set_ambient(None);
    process.set_capabilities(Some(caps));
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find(|line| line.starts_with("CapPrm")).unwrap();
    assert_eq!(run(&process, &ProcessFacts::default()), format!("{own}\n"));
}

#[test]
fn scheduler_personality_and_keyring_are_those_of_the_description() {
    let mut process = shell("nice; uname -m; ionice; grep -o '3f1b0000.*_ses.corten-test' /proc/keys | head -1");
    let mut scheduler = spec::Scheduler::default();
    scheduler.set_policy(spec::LinuxSchedulerPolicy::SchedBatch).set_nice(Some(7));
    process.set_scheduler(Some(scheduler));
    let io = spec::LinuxIOPriorityBuilder::default().class(spec::IOPriorityClass::IoprioClassIdle).build().unwrap();
    process.set_io_priority(Some(io));
    let mut personality = spec::LinuxPersonality::default();
    personality.set_domain(spec::LinuxPersonalityDomain::PerLinux32);
    let id = format!("corten-test-{}", std::process::id());
    let facts = ProcessFacts { personality: Some(&personality), keyring: Some(&id), ..ProcessFacts::default() };
    let seen = run(&process, &facts);
    assert!(seen.starts_with("7\ni686\nidle\n") || !cfg!(target_arch = "x86_64"), "{seen}");
    let keyrings = std::fs::read_to_string("/proc/keys").is_ok();
    assert!(!keyrings || seen.contains("_ses.corten-test"), "{seen}");
}

#[test]
fn standard_streams_become_the_users_but_never_the_null_device() {
    if !root() {
        return;
    }
    let mut process = shell("stat -L -c %u /proc/self/fd/0 /proc/self/fd/1");
    process.user_mut().set_uid(4242);
    assert_eq!(run(&process, &ProcessFacts::default()), "0\n4242\n");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/dev/null").unwrap()), 0);
}

#[test]
fn a_directory_that_only_root_or_only_the_user_may_enter_is_entered() {
    if !root() {
        return;
    }
    let place = std::env::temp_dir().join(format!("corten-cwd-{}", std::process::id()));
    std::fs::create_dir_all(&place).unwrap();
    std::fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let mut process = shell("pwd; ls");
    process.user_mut().set_uid(4242);
    process.set_cwd(place.clone());
    let seen = run(&process, &ProcessFacts::default());
    assert!(seen.contains(place.to_str().unwrap()), "{seen}");
    assert!(seen.to_lowercase().contains("permission denied"), "ls has not the rights of root: {seen}");
    std::fs::remove_dir_all(place).unwrap();
}

#[test]
fn a_user_without_a_mapping_is_named() {
    if !root() {
        return;
    }
    let mut process = described(&["true"]);
    process.user_mut().set_uid(4242);
    let facts = ProcessFacts { user_namespace: true, ..ProcessFacts::default() };
    let mut plan = Process::plan(&process, &facts).unwrap();
    let (until_mapped, mapped) = pipe().unwrap();
    let (reader, writer) = pipe().unwrap();
    let child = kernel::in_child(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER).unwrap();
        nix::unistd::write(&writer, b"!").unwrap();
        nix::unistd::read(&until_mapped, &mut [0]).unwrap();
        nix::unistd::write(&writer, plan.drop_privileges().unwrap_err().to_string().as_bytes()).unwrap();
        0
    });
    drop(writer);
    let mut reader = File::from(reader);
    reader.read_exact(&mut [0]).unwrap();
    std::fs::write(format!("/proc/{child}/uid_map"), "0 100000 10").unwrap();
    std::fs::write(format!("/proc/{child}/gid_map"), "0 100000 10").unwrap();
    nix::unistd::write(&mapped, b"!").unwrap();
    let mut seen = String::new();
    reader.read_to_string(&mut seen).unwrap();
    waitpid(child, None).unwrap();
    let text = "/process/user/uid: become user 4242: invalid argument (user 4242 has no mapping in the container's user \
        namespace: take another, or map it)";
    assert_eq!(seen, text);
}

#[test]
fn no_descriptor_of_ours_reaches_the_program() {
    let leak = File::open("/").unwrap();
    nix::fcntl::fcntl(&leak, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    // The fourth is ls itself looking.
    assert_eq!(run(&described(&["ls", "-1", "/proc/self/fd"]), &ProcessFacts::default()), "0\n1\n2\n3\n");
}

#[test]
fn a_working_directory_or_program_behind_a_descriptor_of_ours_is_refused() {
    let leak = File::open("/").unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&leak);
    let mut program = described(&[&format!("/proc/self/fd/{number}/bin/true")]);
    let seen = run(&program, &ProcessFacts::default());
    let words = format!("exec /proc/self/fd/{number}/bin/true: no such file or directory (");
    assert!(seen.starts_with(&words), "{seen}");
    program.set_args(Some(vec!["true".into()]));
    program.set_cwd("/no/such".into());
    let seen = run(&program, &ProcessFacts::default());
    assert_eq!(seen, "/process/cwd: chdir to cwd /no/such: no such file or directory");
}

#[test]
fn a_working_directory_outside_of_the_root_is_refused() {
    if !root() {
        return;
    }
    let jail = std::env::temp_dir().join(format!("corten-jail-{}", std::process::id()));
    std::fs::create_dir_all(jail.join("proc")).unwrap();
    let outside = File::open("/usr").unwrap();
    let mut process = described(&["true"]);
    process.set_cwd("/proc/self/fd/9/../..".into());
    let plan = Process::plan(&process, &ProcessFacts::default()).unwrap();
    // chroot stands for pivot_root: to the kernel, both leave the directory unreachable.
    let child = kernel::in_child(|| {
        nix::unistd::chroot(&jail).unwrap();
        nix::unistd::fchdir(&outside).unwrap();
        let error = plan.ensure_inside().unwrap_err().to_string();
        i32::from(
            error != "/process/cwd: the working directory /proc/self/fd/9/../.. is outside of the container's root",
        )
    });
    let status = waitpid(child, None).unwrap();
    assert_eq!(status, nix::sys::wait::WaitStatus::Exited(child, 0));
    std::fs::remove_dir_all(jail).unwrap();
}

#[test]
fn a_missing_program_is_reported_before_the_program_runs() {
    let seen = run(&described(&["nosuch"]), &ProcessFacts::default());
    let hint = "(check that it is in the image, and its directory in PATH of process.env)";
    assert_eq!(seen, format!("exec: \"nosuch\": executable file not found in $PATH: no such file or directory {hint}"));
}

#[test]
fn the_last_path_is_the_one_that_is_searched() {
    let mut process = described(&["true"]);
    process.set_env(Some(vec!["PATH=/nope".into(), "PATH=/bin".into()]));
    assert_eq!(run(&process, &ProcessFacts::default()), "");
}

#[test]
fn an_activated_exec_learns_its_own_pid() {
    let process = shell("test $LISTEN_PID = $$ && echo $LISTEN_FDS");
    let facts = ProcessFacts { listen_fds: 0, env: vec!["LISTEN_FDS=2".into()], exec: true, ..ProcessFacts::default() };
    let mut plan = Process::plan(&process, &facts).unwrap();
    plan.listen_pid = true;
    assert_eq!(run_plan(plan), "2\n");
}

#[test]
fn every_rule_of_the_description_names_its_field() {
    let field = |edit: &dyn Fn(&mut spec::Process)| {
        let mut process = described(&["true"]);
        edit(&mut process);
        Process::plan(&process, &ProcessFacts::default()).unwrap_err().field_name().unwrap().to_owned()
    };
    assert_eq!(
        field(&|p| {
            p.set_args(None);
        }),
        "/process/args"
    );
    assert_eq!(
        field(&|p| {
            p.set_args(Some(vec![]));
        }),
        "/process/args"
    );
    assert_eq!(
        field(&|p| {
            p.set_args(Some(vec!["a".into(), "b\0".into()]));
        }),
        "/process/args/1"
    );
    assert_eq!(
        field(&|p| {
            p.set_cwd("w".into());
        }),
        "/process/cwd"
    );
    assert_eq!(
        field(&|p| {
            p.set_cwd("".into());
        }),
        "/process/cwd"
    );
    assert_eq!(
        field(&|p| {
            p.set_env(Some(vec!["X".into()]));
        }),
        "/process/env/0"
    );
    assert_eq!(
        field(&|p| {
            p.set_oom_score_adj(Some(-1001));
        }),
        "/process/oomScoreAdj"
    );
    assert_eq!(
        field(&|p| {
            p.set_apparmor_profile(Some("x".into()));
        }),
        "/process/apparmorProfile"
    );
    let huge = spec::BoxBuilder::default().height(70_000u64).width(1u64).build().unwrap();
    assert_eq!(
        field(&|p| {
            p.set_terminal(Some(true)).set_console_size(Some(huge));
        }),
        "/process/consoleSize/height"
    );
}

#[test]
fn descriptors_of_socket_activation_have_to_be_there() {
    check_preserved(0).unwrap();
    let text = check_preserved(500).unwrap_err().to_string();
    assert!(text.starts_with("unable to stat preserved-fd "), "{text}");
}

#[test]
fn of_descriptors_to_pass_on_those_are_found_that_are_there_and_not_our_own() {
    let [own, passed] = [(); 2].map(|()| std::fs::File::open("/dev/null").unwrap());
    kernel::clear_close_on_exec(passed.as_raw_fd() as u32).unwrap();
    let found = preserved(0, u32::MAX).unwrap();
    assert!(found.contains(&(passed.as_raw_fd() as u32)) && !found.contains(&(own.as_raw_fd() as u32)), "{found:?}");
    assert!(!preserved(passed.as_raw_fd() as u32 - 2, 9).unwrap().contains(&(passed.as_raw_fd() as u32)));
    assert!(preserved(u32::MAX, 9).unwrap().is_empty());
}

/// A runtime in the foreground, in a child of the test: `script` runs on the container's terminal, or on none.
fn foreground(script: &'static str, stdio: [OwnedFd; 2], pair: Option<OpenptyResult>) -> nix::unistd::Pid {
    kernel::in_child(move || {
        dup2_stdin(&stdio[0]).unwrap();
        dup2_stdout(&stdio[1]).unwrap();
        drop(stdio);
        let foreground = Foreground::block_signals().unwrap();
        let plan = Process::plan(&shell(script), &ProcessFacts::default()).unwrap();
        let (controller, replica) = pair.map(|pair| (pair.master, pair.slave)).unzip();
        let terminal = controller.map(|controller| Terminal::attach(controller).unwrap());
        let child = kernel::in_child(|| {
            let mut plan = plan;
            plan.start_session(None).unwrap();
            if let Some(replica) = &replica {
                tty::set_controlling(replica.as_fd()).unwrap();
                dup2_stdin(replica).unwrap();
                dup2_stdout(replica).unwrap();
                dup2_stderr(replica).unwrap();
            }
            plan.drop_privileges().unwrap();
            plan.close_descriptors(&[]).unwrap();
            eprintln!("{}", plan.execute(true));
            99
        });
        drop(replica);
        let pidfd = pidfd(child);
        let ended = foreground.run(
            child,
            pidfd.as_fd(),
            terminal,
            |signal| {
                let _ = nix::sys::signal::kill(child, nix::sys::signal::Signal::try_from(signal).unwrap());
            },
            None,
        );
        i32::from(ended.unwrap().exit_code())
    })
}

fn pidfd(pid: Pid) -> OwnedFd {
    crate::sys::pid::open(pid).unwrap()
}

fn code(pid: Pid) -> i32 {
    match waitpid(pid, None).unwrap() {
        nix::sys::wait::WaitStatus::Exited(_, code) => code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_foreground_carries_plain_lines_and_the_exit_code() {
    let (reader, writer) = pipe().unwrap();
    let pair = openpty(None, None).unwrap();
    let null: OwnedFd = File::open("/dev/null").unwrap().into();
    let runtime = foreground("cat; tty >/dev/null && seq 20000; exit 7", [null, writer], Some(pair));
    let mut seen = String::new();
    File::from(reader).read_to_string(&mut seen).unwrap();
    let expected: String = (1..=20000).map(|number| format!("{number}\n")).collect();
    assert!(seen == expected || seen == format!("^D\u{8}\u{8}{expected}"), "{} bytes: {:.60}", seen.len(), seen);
    assert_eq!(code(runtime), 7);
}

#[test]
fn a_terminal_that_nobody_holds_for_a_while_is_carried_on_with() {
    let (reader, writer) = pipe().unwrap();
    let pair = openpty(None, None).unwrap();
    let null: OwnedFd = File::open("/dev/null").unwrap().into();
    let script = "T=$(tty); exec 0<&- 1>&- 2>&-; sleep 0.3; exec 1>$T; echo back; exit 5";
    let runtime = foreground(script, [null, writer], Some(pair));
    let mut seen = String::new();
    File::from(reader).read_to_string(&mut seen).unwrap();
    assert!(seen.ends_with("back\n"), "{seen:?}");
    assert_eq!(code(runtime), 5);
}

#[test]
fn without_a_terminal_the_foreground_waits_and_forwards() {
    let (reader, writer) = pipe().unwrap();
    let null: OwnedFd = File::open("/dev/null").unwrap().into();
    let script = "trap 'echo one' USR1; echo ready; while :; do sleep 0.05; done";
    let runtime = foreground(script, [null, writer], None);
    let mut reader = File::from(reader);
    let mut line = [0; 6];
    reader.read_exact(&mut line).unwrap();
    for signal in [libc::SIGWINCH, libc::SIGURG, libc::SIGUSR1] {
        nix::sys::signal::kill(runtime, nix::sys::signal::Signal::try_from(signal).unwrap()).unwrap();
    }
    let mut line = [0; 4];
    reader.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"one\n");
    nix::sys::signal::kill(runtime, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(code(runtime), 143);
}

#[test]
fn our_own_terminal_is_raw_while_the_container_runs_and_itself_again_afterwards() {
    let ours = openpty(None, None).unwrap();
    tty::set_size(ours.slave.as_fd(), 33, 99).unwrap();
    let before = tcgetattr(&ours.slave).unwrap();
    let pair = openpty(None, None).unwrap();
    let stdio = [ours.slave.try_clone().unwrap(), ours.slave.try_clone().unwrap()];
    let script = "stty size; read line; stty size; echo got $line; exit 3";
    let runtime = foreground(script, stdio, Some(pair));
    let mut screen = File::from(ours.master.try_clone().unwrap());
    let mut seen = String::new();
    let mut until = |end: &str| {
        let mut bytes = [0; 256];
        while !seen.contains(end) {
            let length = screen.read(&mut bytes).unwrap();
            seen.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
        }
        std::mem::take(&mut seen)
    };
    assert_eq!(until("\n"), "33 99\r\n");
    let raw = tcgetattr(&ours.slave).unwrap();
    assert!(!raw.local_flags.intersects(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG));
    tty::set_size(ours.slave.as_fd(), 40, 100).unwrap();
    nix::sys::signal::kill(runtime, nix::sys::signal::Signal::SIGWINCH).unwrap();
    // Long enough for the signal to come before the line.
    std::thread::sleep(std::time::Duration::from_millis(200));
    File::from(ours.master.try_clone().unwrap()).write_all(b"hello\r").unwrap();
    let text = until("got hello\r\n");
    assert!(text.contains("40 100"), "{text:?}");
    assert_eq!(code(runtime), 3);
    let after = tcgetattr(&ours.slave).unwrap();
    assert_eq!(after.local_flags, before.local_flags);
    assert_eq!(after.output_flags, before.output_flags);
}

#[test]
fn an_end_is_a_code_as_shells_have_it() {
    assert_eq!((Ended::Exited(7).exit_code(), Ended::Killed(15).exit_code()), (7, 143));
}
