//! `events`.

use std::time::Duration;

use crate::argv::{arguments, operand, option};
use crate::cli::Global;
use crate::container::events;
use crate::error::{Context, Error, Result, ensure};

arguments! {
    /// Print events and statistics of a container
    pub struct Events {
        /// Time between statistics, such as 500ms or 1m30s
        interval: String = option().value("TIME").default("5s"),
        /// Print the statistics once and exit
        stats: bool = option(),
        /// ID of the container
        id: String = operand(),
    }
}

impl Events {
    pub(super) fn run(self, global: &Global) -> Result<u8> {
        let events = || {
            let interval = interval(&self.interval)?;
            let container = super::store(global)?.open(&self.id)?;
            if self.stats {
                return show(&events::stats(&container)?);
            }
            events::follow(&container, interval, show)
        };
        events().with_context(|| format!("events {}", self.id))?;
        Ok(0)
    }
}

fn show(event: &events::Event) -> Result<()> {
    let line = serde_json::to_string(event).map_err(|error| Error::new(error.to_string()))?;
    super::print(&(line + "\n"))
}

fn interval(text: &str) -> Result<Duration> {
    let error = || Error::new(format!("--interval: {text:?} is not a time")).hint("give one such as 5s or 500ms");
    let interval = duration(text).ok_or_else(error)?;
    ensure!(!interval.is_zero(), "--interval: duration interval must be greater than 0");
    Ok(interval)
}

/// A duration as Go writes it, and whole seconds.
fn duration(text: &str) -> Option<Duration> {
    #[rustfmt::skip]
    const UNITS: &[(&str, f64)] =
        &[("h", 3600.0), ("m", 60.0), ("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("µs", 1e-6), ("ns", 1e-9)];
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let mut rest = text;
    let mut sum = 0.0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (count, behind) = rest.split_at(number);
        let end = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, more) = behind.split_at(end);
        let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
        sum += count.parse::<f64>().ok()? * seconds;
        rest = more;
    }
    Duration::try_from_secs_f64(sum).ok().filter(|_| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_durations_of_go_or_seconds() {
        for (text, millis) in [("5s", 5000), ("500ms", 500), ("1m30s", 90_000), ("1.5h", 5_400_000), ("7", 7000)] {
            assert_eq!(interval(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for text in ["", "0", "0s", "s", "5x", "-1s", "5s3", "1..2s", "99999999999999999999h"] {
            assert!(interval(text).is_err(), "{text}");
        }
    }
}
