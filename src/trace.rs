//! `--trace FILE`: how long each step took, on both sides of the fork.
//!
//! `log::trace!` marks the end of a step. A mark is written at once, so that it survives a crash; both sides append to one
//! file, which keeps the order. Without the option a mark costs one comparison.

use std::fmt::Arguments;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

use crate::error::{Context, Result};

static START: OnceLock<Instant> = OnceLock::new();
static FILE: OnceLock<File> = OnceLock::new();
/// Microseconds at the last mark of this side.
static LAST: AtomicU64 = AtomicU64::new(0);
/// Marks that this process holds instead of writing them.
static KEPT_BACK: Mutex<Option<Vec<String>>> = Mutex::new(None);
static IN_CONTAINER: AtomicBool = AtomicBool::new(false);

/// Starts the clock. Before anything else is done, and before it is known whether a trace is asked for: to look at the
/// clock is no system call.
pub fn start() {
    START.get_or_init(Instant::now);
}

/// Opens the file (created 0644, appended to) and writes the heading. From here on marks are written.
pub fn open(path: &Path) -> Result<()> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    let file = file.with_context(|| format!("open the trace {}", path.display()))?;
    // A file that cannot be written must not fail the command, here and at each mark.
    let _ = (&file).write_all(b"  at us     took  side       step\n");
    FILE.get_or_init(|| file);
    Ok(())
}

/// A step has ended.
pub fn mark(step: &Arguments<'_>) {
    let Some(mut file) = FILE.get() else { return };
    let now = START.get_or_init(Instant::now).elapsed().as_micros() as u64;
    let took = now - LAST.swap(now, Ordering::Relaxed);
    let side = if IN_CONTAINER.load(Ordering::Relaxed) { "container" } else { "host" };
    let line = format!("{now:7}  {took:7}  {side:9}  {step}\n");
    if let Ok(mut kept) = KEPT_BACK.lock()
        && let Some(kept) = kept.as_mut()
    {
        return kept.push(line);
    }
    let _ = file.write_all(line.as_bytes());
}

/// Holds marks for [`take_back`] from here on, because this process closes its file.
pub fn keep_back() {
    if let (Some(_), Ok(mut kept)) = (FILE.get(), KEPT_BACK.lock()) {
        kept.get_or_insert_default();
    }
}

/// Takes the held marks, which the runtime writes ([`write`]).
pub fn take_back() -> Vec<String> {
    KEPT_BACK.lock().ok().and_then(|mut kept| kept.as_mut().map(std::mem::take)).unwrap_or_default()
}

/// Writes a mark that another process kept.
pub fn write(line: &str) {
    // It comes from an untrusted process: one line, without control characters.
    let line: String = line.chars().filter(|letter| !letter.is_control()).collect();
    if let Some(mut file) = FILE.get() {
        let _ = file.write_all((line + "\n").as_bytes());
    }
}

/// This is the container's half from here on.
pub fn enter_container() {
    IN_CONTAINER.store(true, Ordering::Relaxed);
}

/// The file, for a process that keeps it open until its program runs.
pub fn file() -> Option<BorrowedFd<'static>> {
    FILE.get().map(AsFd::as_fd)
}
