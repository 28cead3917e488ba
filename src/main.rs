//! corten: a low-level OCI container runtime for Linux.
//!
//! `main → commands → container → launch → plan → rooms → sys`; docs/architecture.md has the map.

#![cfg_attr(all(not(test), feature = "fast-start"), no_main)]
// These macros panic when a stream takes no more.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests have threads, and run programs"))]

#[forbid(unsafe_code)]
mod argv;
#[forbid(unsafe_code)]
mod cgroup;
#[forbid(unsafe_code)]
mod checkpoint;
#[forbid(unsafe_code)]
mod cli;
#[forbid(unsafe_code)]
mod commands;
#[forbid(unsafe_code)]
mod container;
#[forbid(unsafe_code)]
mod dbus;
#[forbid(unsafe_code)]
mod error;
#[forbid(unsafe_code)]
mod hooks;
#[forbid(unsafe_code)]
mod host;
#[forbid(unsafe_code)]
mod input;
#[forbid(unsafe_code)]
mod launch;
#[forbid(unsafe_code)]
mod log;
#[forbid(unsafe_code)]
mod manual;
#[forbid(unsafe_code)]
mod namespaces;
#[cfg(debug_assertions)]
#[forbid(unsafe_code)]
mod pages;
#[forbid(unsafe_code)]
mod passwd;
#[forbid(unsafe_code)]
mod plan;
#[forbid(unsafe_code)]
mod process;
#[forbid(unsafe_code)]
mod resctrl;
#[forbid(unsafe_code)]
mod rootfs;
#[forbid(unsafe_code)]
mod seccomp;
#[forbid(unsafe_code)]
mod selfexe;
mod sys;
#[forbid(unsafe_code)]
mod time;
#[forbid(unsafe_code)]
mod trace;

use std::ffi::OsString;

use cli::Answer;
use error::Result;
use selfexe::Protection;

start_with!(corten);

/// The program: its exit code.
fn corten() -> u8 {
    trace::start();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    #[cfg(debug_assertions)]
    if let [_, command, directory] = &arguments[..]
        && command == "pages"
    {
        return conclude(pages::write(directory.as_ref()), 1);
    }
    let cli = match cli::parse(&arguments) {
        Ok(cli) => cli,
        Err(Answer::Version) => return conclude(commands::version::print(), 1),
        Err(Answer::Clap(answer)) => return answer_instead(&arguments, &answer),
    };
    let (global, failure) = (&cli.global, cli.command.failure_code());
    let protection = Protection::begin(cli.command.enters_container());
    let done = log::init(global.log.as_deref(), global.log_options())
        .and_then(|()| global.trace.as_deref().map_or(Ok(()), log::trace_to))
        .and_then(|()| cli.command.run(global, protection));
    conclude(done, failure)
}

/// What a command line gets that is no order: help, or why it is none.
fn answer_instead(arguments: &[OsString], answer: &clap::Error) -> u8 {
    if !answer.use_stderr() {
        // A reader that went away is no reason to panic.
        let _ = answer.print();
        return 0;
    }
    let text = answer.to_string();
    match cli::misuse(&text) {
        None => log::say(text.trim_end()),
        Some(error) => {
            let (file, log_options) = cli::wish_of(arguments);
            // There is another error to tell.
            let _ = log::init(file.as_deref(), log_options);
            log::misuse(&error, text.trim_end());
        }
    }
    1
}

/// The error, once, and the exit code.
fn conclude(done: Result<u8>, failure: u8) -> u8 {
    match done {
        Ok(code) => {
            log::success();
            code
        }
        Err(error) => {
            let bare = !sys::procfs::is_mounted();
            let error =
                if bare { error.hint("no procfs is mounted on /proc: mount -t proc proc /proc") } else { error };
            log::failure(&error);
            failure
        }
    }
}
