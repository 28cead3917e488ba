//! Where messages go: `--log`, `--log-format`, `--log-level`, `--debug`.
//!
//! Engines read the log of a failed command: the shim keeps the last record of level `error`, Podman decodes the whole
//! file as one object. So a failing command writes exactly one record, and warnings are held back until the command
//! has succeeded. Nothing but the error of a failed command goes to stderr, which may be the container's own.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, OnceLock};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::error::{Context, Error, Result, printable, printable_lines};
use crate::trace;

/// The form of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `time="…" level=error msg="…"`, as logfmt has it.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The one logger of the process.
struct Logger {
    file: Option<File>,
    format: Format,
    level: LevelFilter,
    held: Mutex<Vec<String>>,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Warnings as they were given, of a command whose result they are part of.
static GATHERED: Mutex<Option<Vec<String>>> = Mutex::new(None);

/// Opens the log (created 0644, appended to) and makes it the backend of the `log` macros. Called once, before any
/// fork and before the working directory can change.
pub fn init(path: Option<&Path>, format: Format, level: LevelFilter) -> Result<()> {
    let file = path
        .map(|path| {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .with_context(|| format!("open the log {}", path.display()))
        })
        .transpose()?;
    // Without a file, records would land on stderr: only a wish for more than the default puts them there.
    let level = if file.is_none() && level == LevelFilter::Warn { LevelFilter::Error } else { level };
    let logger = LOGGER.get_or_init(|| Logger { file, format, level, held: Mutex::default() });
    log::set_max_level(logger.level);
    log::set_logger(logger).map_err(|_| Error::new("the logger is set twice"))
}

/// Writes how long each step took to a file, beside what is logged.
pub fn trace_to(path: &Path) -> Result<()> {
    trace::open(path)?;
    log::set_max_level(LevelFilter::Trace);
    log::trace!("arguments read");
    Ok(())
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level
    }

    fn log(&self, record: &Record<'_>) {
        if record.level() == Level::Trace {
            return trace::mark(record.args());
        }
        if record.level() == Level::Warn && gathers(record) {
            return;
        }
        if !self.enabled(record.metadata()) {
            return;
        }
        let message = record.args().to_string();
        match (record.level(), self.held.lock()) {
            (Level::Warn, Ok(mut held)) => held.push(message),
            (level, _) => self.put(&self.line(level, &printable(&message), None)),
        }
    }

    fn flush(&self) {}
}

impl Logger {
    fn put(&self, line: &str) {
        // A log that cannot be written must not fail the command.
        let _ = match &self.file {
            Some(file) => (&*file).write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }

    fn line(&self, level: Level, message: &str, error: Option<&Error>) -> String {
        let level = match level {
            Level::Error => "error",
            Level::Warn => "warning",
            Level::Info => "info",
            Level::Debug | Level::Trace => "debug",
        };
        let time = crate::time::now_seconds();
        match self.format {
            Format::Text => format!("time={time:?} level={level} msg={message:?}\n"),
            Format::Json => {
                let mut object = serde_json::Map::new();
                let mut put = |key: &str, value: Option<&str>| {
                    if let Some(value) = value {
                        object.insert(key.to_owned(), value.into());
                    }
                };
                put("level", Some(level));
                put("msg", Some(message));
                put("time", Some(&time));
                if let Some(error) = error {
                    put("phase", error.phase_name());
                    put("field", error.field_name());
                    put("errno", error.errno().map(|errno| format!("{errno:?}")).as_deref());
                    put("hint", error.remedy().map(printable).as_deref());
                }
                printable_lines(&serde_json::Value::Object(object).to_string()).into_owned() + "\n"
            }
        }
    }
}

/// Tells of a command's failure: one record in the log and, when that is a file, the bare sentence on stderr.
pub fn failure(error: &Error) {
    let message = error.to_string();
    log::trace!("failed: {message}");
    let Some(logger) = LOGGER.get() else { return say(&message) };
    logger.put(&logger.line(Level::Error, &message, Some(error)));
    if logger.file.is_some() {
        say(&message);
    }
}

/// Writes a line to stderr. One that takes none (closed, on a full disk) changes nothing about how a command ends, where
/// `eprintln!` would panic.
pub fn say(message: &str) {
    let _ = writeln!(std::io::stderr(), "{}", printable_lines(message));
}

/// Writes the warnings held back; the command has succeeded.
pub fn success() {
    let Some(logger) = LOGGER.get() else { return };
    if let Ok(mut held) = logger.held.lock() {
        held.drain(..).for_each(|message| logger.put(&logger.line(Level::Warn, &printable(&message), None)));
    }
}

/// Takes the warnings held back by a forked copy of the process, to be told by the original.
pub fn take_held() -> Vec<String> {
    LOGGER.get().and_then(|logger| logger.held.lock().ok().map(|mut held| held.drain(..).collect())).unwrap_or_default()
}

/// From here on warnings are kept as they are, for [`take_gathered`].
pub fn gather() {
    log::set_max_level(log::max_level().max(LevelFilter::Warn));
    if let Ok(mut gathered) = GATHERED.lock() {
        gathered.get_or_insert_default();
    }
}

/// Takes what was kept since.
pub fn take_gathered() -> Vec<String> {
    GATHERED.lock().ok().and_then(|mut gathered| gathered.as_mut().map(std::mem::take)).unwrap_or_default()
}

fn gathers(record: &Record<'_>) -> bool {
    let Ok(mut gathered) = GATHERED.lock() else { return false };
    gathered.as_mut().map(|list| list.push(printable(&record.args().to_string()).into_owned())).is_some()
}

/// Holds back a warning that [`take_held`] took in the container's half. It becomes a record here: whoever may trace that
/// half may say anything in its place.
pub fn hold(message: String) {
    if let Some(mut held) = LOGGER.get().and_then(|logger| logger.held.lock().ok()) {
        held.push(message);
    }
}
