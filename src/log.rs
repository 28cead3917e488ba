//! Where messages go: `--log`, `--log-format`, `--log-level`, `--debug`.
//!
//! Engines read the log of a failed command: containerd's shim uses the last record of level `error`, Podman decodes the
//! whole file as one object. So a failing command writes exactly one record, and warnings are held back until success.
//! Without a log, messages go to stderr, which the container may share: nothing is written there once its program may run.
//! A terminal gets sentences, everything else records.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::error::{Context, Error, Result, printable, printable_lines};
use crate::trace;

/// The format of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordFormat {
    /// `time="…" level=error msg="…"`, as logfmt has it.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is written, and how.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// The format of a record, if `--log-format` is given.
    pub format: Option<RecordFormat>,
    /// The least important messages that are written.
    pub level: LevelFilter,
    /// Whether warnings were asked for explicitly.
    pub warnings: bool,
}

/// The one logger of the process.
struct Logger {
    file: Option<File>,
    log_options: LogOptions,
    held: Mutex<Vec<LogMessage>>,
}

/// A message on its way.
struct LogMessage {
    level: Level,
    text: String,
    time: String,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Warnings of a command that returns them as part of its result.
static COLLECTED: Mutex<Option<Vec<Error>>> = Mutex::new(None);

/// Who uses stderr: one of the numbers below.
static STATE: AtomicU8 = AtomicU8::new(OURS);
/// Nothing but the runtime writes to its stderr.
const OURS: u8 = 0;
/// The container's program may write to it, so that messages for it are held back.
const LENT: u8 = 1;
/// This is the container's half before the program: it writes to stderr itself.
const DIRECT: u8 = 2;
/// This is the container's half, and messages are sent to the host.
const APART: u8 = 3;

/// Opens the log (created 0644, appended to) and makes it the backend of the `log` macros. Called once, before any
/// fork and before the working directory can change. If it cannot be opened, messages go to stderr.
pub fn init(path: Option<&Path>, log_options: LogOptions) -> Result<()> {
    let open = |path: &Path| {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.with_context(|| format!("open the log {}", path.display()))
    };
    let (file, outcome) = match path.map(open).transpose() {
        Ok(file) => (file, Ok(())),
        Err(error) => (None, Err(error)),
    };
    let logger = LOGGER.get_or_init(|| Logger { file, log_options, held: Mutex::default() });
    // Debug lines for steps are trace marks.
    log::set_max_level(if logger.tells_steps() { LevelFilter::Trace } else { log_options.level });
    log::set_logger(logger).map_err(|_| Error::new("the logger is set twice"))?;
    outcome
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
        metadata.level() <= self.log_options.level
    }

    fn log(&self, record: &Record<'_>) {
        let mut level = record.level();
        if level == Level::Trace {
            trace::mark(record.args());
            level = Level::Debug;
        }
        let is_kept = || collects(Error::new(record.args().to_string())).is_none();
        if (level == Level::Warn && is_kept()) || level > self.log_options.level {
            return;
        }
        let side = if level == Level::Debug && is_containers() { "container: " } else { "" };
        let message = LogMessage::new(level, &format!("{side}{}", record.args()));
        match (self.is_held(level), self.held.lock()) {
            (true, Ok(mut held)) => held.push(message),
            _ => self.put(&message, None),
        }
    }

    fn flush(&self) {}
}

impl LogMessage {
    fn new(level: Level, text: &str) -> LogMessage {
        LogMessage { level, text: printable(text).into_owned(), time: crate::time::now_seconds() }
    }
}

impl Logger {
    fn tells_steps(&self) -> bool {
        self.log_options.level >= LevelFilter::Debug
    }

    fn is_held(&self, level: Level) -> bool {
        match STATE.load(Ordering::Relaxed) {
            DIRECT => false,
            APART => true,
            LENT if self.file.is_none() => true,
            _ => level == Level::Warn && !self.tells_steps(),
        }
    }

    /// Writes a message, and what else an error knows.
    fn put(&self, message: &LogMessage, error: Option<&Error>) {
        let format = self.log_options.format;
        // A log that cannot be written must not fail the command.
        let _ = match &self.file {
            Some(file) => (&*file).write_all(record(format.unwrap_or(RecordFormat::Text), message, error).as_bytes()),
            None => match format.or_else(|| (!is_terminal()).then_some(RecordFormat::Text)) {
                Some(format) => std::io::stderr().write_all(record(format, message, error).as_bytes()),
                None => std::io::stderr().write_all(sentence(message, error).as_bytes()),
            },
        };
    }

    fn put_held(&self) {
        let held = self.held.lock().map(|mut held| std::mem::take(&mut *held));
        held.unwrap_or_default().iter().for_each(|message| self.put(message, None));
    }
}

/// A line for programs.
fn record(format: RecordFormat, message: &LogMessage, error: Option<&Error>) -> String {
    let LogMessage { level, text, time } = message;
    let level = word(*level);
    match format {
        RecordFormat::Text => format!("time={time:?} level={level} msg={text:?}\n"),
        RecordFormat::Json => {
            let mut object = serde_json::Map::new();
            let mut put = |key: &str, value: Option<&str>| {
                if let Some(value) = value {
                    object.insert(key.to_owned(), value.into());
                }
            };
            put("level", Some(level));
            put("msg", Some(text));
            put("time", Some(time));
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

/// Lines for people.
fn sentence(message: &LogMessage, error: Option<&Error>) -> String {
    let text = error.map_or_else(|| Cow::Borrowed(&*message.text), |error| error.without_hint().into());
    let hint = error.and_then(Error::remedy).map(|hint| format!("\n  {} {}", label("hint"), printable(hint)));
    format!("{} {text}{}\n", label(word(message.level)), hint.unwrap_or_default())
}

/// A word before a sentence, in its colour unless none is wanted (no-color.org).
fn label(word: &str) -> String {
    let colour = match word {
        "error" => "1;31",
        "warning" => "1;33",
        "hint" => "1;36",
        _ => "2",
    };
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|name| name == "dumb");
    if unwanted || dumb { format!("{word}:") } else { format!("\x1b[{colour}m{word}:\x1b[0m") }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug | Level::Trace => "debug",
    }
}

fn is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

fn is_containers() -> bool {
    STATE.load(Ordering::Relaxed) >= DIRECT
}

/// Reports the failure of a command: one record in the log and, if that is a file, the sentence on stderr.
pub fn failure(error: &Error) {
    let message = LogMessage::new(Level::Error, &error.to_string());
    trace::mark(&format_args!("failed: {}", message.text));
    let Some(logger) = LOGGER.get() else { return say_error(&message, error) };
    // A person may see the cause in earlier warnings; engines would find words of warnings in the error.
    if logger.file.is_none() && (logger.log_options.warnings || is_terminal()) {
        logger.put_held();
    }
    logger.put(&message, Some(error));
    if logger.file.is_some() {
        say_error(&message, error);
    }
}

/// Reports a wrong command line, as any failure. If stderr is no terminal and no format is set, it gets the whole `usage`.
pub fn misuse(error: &Error, usage: &str) {
    let message = LogMessage::new(Level::Error, &error.to_string());
    let Some(logger) = LOGGER.get() else { return say(usage) };
    let has_form = logger.file.is_some() || logger.log_options.format.is_some() || is_terminal();
    if has_form {
        logger.put(&message, Some(error));
    }
    match is_terminal() {
        true if logger.file.is_some() => say_error(&message, error),
        false if logger.file.is_some() || !has_form => say(usage),
        _ => {}
    }
}

fn say_error(message: &LogMessage, error: &Error) {
    if !is_terminal() {
        return say(&message.text);
    }
    let _ = std::io::stderr().write_all(sentence(message, Some(error)).as_bytes());
}

/// Writes a line to stderr. Errors (closed, full disk) are ignored; `eprintln!` would panic.
pub fn say(message: &str) {
    let _ = writeln!(std::io::stderr(), "{}", printable_lines(message));
}

/// Writes what was held back, after success or once the program runs.
pub fn success() {
    let Some(logger) = LOGGER.get() else { return };
    if logger.file.is_some() || STATE.load(Ordering::Relaxed) == OURS {
        logger.put_held();
    }
}

/// The container's program, which may share stderr, is about to run: without a log, writes what was held back, and then
/// nothing until [`regain_stderr`].
pub fn lend_stderr() {
    let Some(logger) = LOGGER.get() else { return };
    if logger.file.is_none() {
        logger.put_held();
    }
    STATE.store(LENT, Ordering::Relaxed);
}

/// The program has ended: stderr is the runtime's alone again.
pub fn regain_stderr() {
    STATE.store(OURS, Ordering::Relaxed);
    if let Some(logger) = LOGGER.get().filter(|logger| logger.tells_steps()) {
        logger.put_held();
    }
}

/// This is the container's half from here on; the host's half keeps the messages that were held back. With `has_stderr` and
/// no log it writes to stderr itself until [`leave_stderr`]: the host may receive its messages only when the program runs.
pub fn enter_container(has_stderr: bool) {
    let Some(logger) = LOGGER.get() else { return };
    if let Ok(mut held) = logger.held.lock() {
        held.clear();
    }
    STATE.store(if has_stderr && logger.file.is_none() { DIRECT } else { APART }, Ordering::Relaxed);
}

/// The container's half stops writing to stderr: from here on SIGPIPE or a filter could kill it.
pub fn leave_stderr() {
    STATE.store(APART, Ordering::Relaxed);
}

/// Takes the messages of the container's half, to be sent to the host.
pub fn take_held() -> Vec<(Level, String)> {
    let held = LOGGER.get().and_then(|logger| logger.held.lock().ok().map(|mut held| std::mem::take(&mut *held)));
    held.unwrap_or_default().into_iter().map(|message| (message.level, message.text)).collect()
}

/// Collects warnings from here on, for [`take_collected`].
pub fn collect_warnings() {
    log::set_max_level(log::max_level().max(LevelFilter::Warn));
    if let Ok(mut collected) = COLLECTED.lock() {
        collected.get_or_insert_default();
    }
}

/// Takes the collected warnings.
pub fn take_collected() -> Vec<Error> {
    COLLECTED.lock().ok().and_then(|mut collected| collected.as_mut().map(std::mem::take)).unwrap_or_default()
}

/// Warns. Of a field of the configuration the warning says which it is.
pub fn warn(warning: Error) {
    if log::log_enabled!(Level::Warn)
        && let Some(warning) = collects(warning)
    {
        log::warn!("{warning}");
    }
}

/// Keeps a warning, or gives it back.
fn collects(warning: Error) -> Option<Error> {
    let Ok(mut collected) = COLLECTED.lock() else { return Some(warning) };
    match collected.as_mut() {
        Some(list) => list.push(warning),
        None => return Some(warning),
    }
    None
}
