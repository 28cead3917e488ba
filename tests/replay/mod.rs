//! Captured calls of engines, done again: read from `tests/captures`, fitted to the test's place, made in their order.

mod adapt;
mod calls;
mod host;
mod leaks;
mod player;

pub use calls::{folders, steps};
pub use player::Player;

use std::collections::BTreeMap;

/// What happened, in numbers.
#[derive(Default)]
pub struct Report(BTreeMap<String, usize>);

impl Report {
    /// One more of these.
    pub fn count(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    /// Adds up.
    pub fn add(&mut self, other: Report) {
        for (what, number) in other.0 {
            *self.0.entry(what).or_default() += number;
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<_> = self.0.iter().map(|(what, number)| format!("{what}: {number}")).collect();
        write!(out, "{}", parts.join(", "))
    }
}
