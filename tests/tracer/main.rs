//! Runs a program under ptrace(2) and meddles with one system call of one of its two halves: kills the half there, or
//! lets the call fail.
//!
//! ```text
//! tracer REPORT SIDE NUMBER ACTION PROGRAM [ARGUMENT...]
//! ```
//!
//! SIDE is `host` (the program itself), `container` (what it makes with clone3 and new namespaces, up to its own program),
//! the pid of such a one that is there already, or `joiner` (what it makes to join namespaces: another process of a
//! container, or one on its way to make the container's half there); calls are counted from 1, for each side by itself.
//! ACTION:
//!
//! - `count`: nothing;
//! - `kill`: SIGKILL instead of the call; `kill-after`: the same, when all others have got as far as they can;
//!   `kill-before`: the same, with the other half held back for as long as this one goes on without it;
//! - `fail=ERRNO`: the call isn't made and returns that error; `fail-on=ERRNO`: this and all later ones;
//! - `hold=FILE`: makes the file before the call, and goes on when somebody has removed it.
//!
//! It ends with the program, as the program ended, leaves what the program has left running alone, and says in REPORT
//! what it saw.
#![allow(clippy::disallowed_methods, reason = "the lessons are about the runtime")]

#[cfg(target_arch = "x86_64")]
mod table;
#[cfg(target_arch = "x86_64")]
mod trace;

#[cfg(target_arch = "x86_64")]
fn main() -> std::process::ExitCode {
    trace::main()
}

#[cfg(not(target_arch = "x86_64"))]
fn main() -> std::process::ExitCode {
    // The registers of a call are known here for one architecture only.
    std::process::ExitCode::from(99)
}
