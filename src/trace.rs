//! `--trace FILE`: how long each step took, on both sides of the fork.
//!
//! A step is marked at its end by `log::trace!`, wherever it is. Each mark is written at once, so that what was reached is
//! there after a crash, too; both sides append to one file, which keeps them in order. Without the option a mark costs
//! one comparison.

use std::ffi::OsString;
use std::fmt::Arguments;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crate::error::{Context, Result};

static START: OnceLock<Instant> = OnceLock::new();
static FILE: OnceLock<File> = OnceLock::new();
/// Microseconds at the last mark of this side.
static LAST: AtomicU64 = AtomicU64::new(0);
static IN_CONTAINER: AtomicBool = AtomicBool::new(false);

/// Starts the clock, if the words ask for a trace. Before anything else is done.
pub fn start(words: &[OsString]) {
    let asks = |word: &OsString| word.to_str().is_some_and(|word| word == "--trace" || word.starts_with("--trace="));
    if words.iter().any(asks) {
        START.get_or_init(Instant::now);
    }
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
    let _ = file.write_all(format!("{now:7}  {took:7}  {side:9}  {step}\n").as_bytes());
}

/// This is the container's half from here on.
pub fn enter_container() {
    IN_CONTAINER.store(true, Ordering::Relaxed);
}

/// The file, which must stay open until the program runs.
pub fn file() -> Option<BorrowedFd<'static>> {
    FILE.get().map(AsFd::as_fd)
}
