//! What a test is made of: a [`Bundle`] in the test's own [`Sandbox`], [`Cmd`]s on it, and their [`Outcome`]s.

mod agent;
mod bundle;
mod command;
pub mod config;
mod machine;
mod outcome;
pub mod reaper;
mod sandbox;
mod terminal;

pub use agent::{Agent, Answer};
pub use bundle::{Bundle, HOST_ID, chown_all, fill};
pub use command::{Cmd, Running, host_command};
pub use machine::{
    Kind, by_systemd, gives_away, kind, known_difference, peers_lack_it, probe, runtime, skip, systemd_makes_them,
    tracer,
};
pub use outcome::Outcome;
pub use reaper::End;
pub use sandbox::Sandbox;
pub use terminal::{Console, ConsoleSocket, Terminal};

use std::time::{Duration, Instant};

/// How many times slower than elsewhere the machine may be: the lab is emulated.
pub fn slowness() -> u32 {
    if std::env::var_os("CORTEN_LAB").is_some() { 6 } else { 1 }
}

/// Asks again and again until the answer is yes; the test fails after ten seconds.
#[track_caller]
pub fn eventually(what: &str, mut yes: impl FnMut() -> bool) {
    let begin = Instant::now();
    let mut pause = Duration::from_millis(1);
    while !yes() {
        assert!(begin.elapsed() < slowness() * Duration::from_secs(10), "still not so after ten seconds: {what}");
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
