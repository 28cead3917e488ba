//! `kill`.

use nix::sys::signal::Signal;

use crate::argv::{arguments, operand, option};
use crate::cli::Global;
use crate::container;
use crate::error::{Context, Error, Result};

arguments! {
    /// Send a signal to a container
    pub struct Kill {
        /// Send the signal to all processes of the container
        all: bool = option().short('a'),
        /// Treat ID as a regular expression
        regex: bool = option().short('r'),
        /// Send the signal to a program started by exec
        session: Option<String> = option().value("SESSION").conflicts(&["all", "regex"]),
        /// Signal, by name or number; also written -9 or -TERM
        signal_option: Option<String> = option().short('s').long("signal").value("SIGNAL").conflicts(&["signal"]).like_kill(),
        /// ID of the container
        id: String = operand(),
        /// Signal, by name or number
        signal: String = operand().default("SIGTERM").hyphens(),
    }
}

impl Kill {
    pub(super) fn run(self, global: &Global) -> Result<u8> {
        let number = signal(self.signal_option.as_ref().unwrap_or(&self.signal))?;
        let store = super::store(global)?;
        if self.regex {
            let mut first = None;
            for id in super::delete::matching(&store, &self.id)? {
                let killed = store.open(&id).and_then(|container| container::kill::kill(&container, number, self.all));
                first = first.or(killed.with_context(|| format!("kill {id}")).err());
            }
            return first.map_or(Ok(0), Err);
        }
        let kill = || {
            let container = store.open(&self.id)?;
            match &self.session {
                Some(session) => container::sessions::kill(&container, session, number),
                None => container::kill::kill(&container, number, self.all),
            }
        };
        kill().with_context(|| format!("kill {}", self.id))?;
        Ok(0)
    }
}

/// The number of a signal given by number (0 only asks), by name in any case with or without `SIG`, or as
/// `RTMIN+n`, `RTMAX-n`, signal(7).
fn signal(text: &str) -> Result<i32> {
    let (first, last) = (libc::SIGRTMIN(), libc::SIGRTMAX());
    let unknown =
        || Error::new(format!("unknown signal {text:?}")).hint("give a name such as TERM, or a number up to 64");
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=last).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str, sign: char| match rest.strip_prefix(sign) {
        Some(digits) => digits.parse::<u8>().ok().map(i32::from),
        None => rest.is_empty().then_some(0),
    };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        offset(rest, '+').map(|offset| first + offset)
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        offset(rest, '-').map(|offset| last - offset)
    } else {
        let alias = match name {
            "CLD" => "CHLD",
            "POLL" => "IO",
            "IOT" => "ABRT",
            other => other,
        };
        return format!("SIG{alias}").parse::<Signal>().map(|signal| signal as i32).map_err(|_| unknown());
    };
    number.filter(|number| (first..=last).contains(number)).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::signal;

    #[test]
    fn names_and_numbers_of_signals() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGKILL", 9),
            ("sighup", 1),
            ("kill", 9),
            ("0", 0),
            ("37", 37),
            ("64", 64),
            ("SIGRTMIN+3", 37),
            ("rtmin", 34),
            ("RTMAX-1", 63),
            ("SIGRTMAX", 64),
            ("CLD", 17),
            ("POLL", 29),
        ] {
            assert_eq!(signal(text).ok(), Some(number), "{text}");
        }
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for text in ["BOGUS", "65", "-1", "", "SIG", "RTMIN+31", "RTMIN-1", "RTMAX-31", "RTMINX", "1.5"] {
            assert!(signal(text).is_err(), "{text}");
        }
    }
}
