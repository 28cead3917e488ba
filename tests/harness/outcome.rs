//! What a command did, and what a test expects of it. An expectation that does not hold prints everything.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::Sandbox;

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Code(i32),
    Signal(i32),
    Hung,
}

/// A command that has ended.
pub struct Outcome {
    pub(super) line: String,
    pub(super) end: End,
    pub(super) took: Duration,
    pub(super) stdout: PathBuf,
    pub(super) stderr: PathBuf,
    pub(super) log: Option<PathBuf>,
    pub(super) config: Option<PathBuf>,
    /// In which the files are.
    pub(super) sandbox: Arc<Sandbox>,
}

impl Outcome {
    /// Stdout as it is now: a container that lives on may still write to it.
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    pub fn log(&self) -> String {
        self.log.as_deref().map(read).unwrap_or_default()
    }

    pub fn took(&self) -> Duration {
        self.took
    }

    pub fn succeeded(&self) -> bool {
        self.end == End::Code(0)
    }

    pub(super) fn stdout_file(&self) -> &Path {
        &self.stdout
    }

    /// It succeeded.
    #[track_caller]
    pub fn ok(&self) -> &Outcome {
        if !self.succeeded() {
            self.fail("it should have succeeded");
        }
        self
    }

    /// It ended with this code.
    #[track_caller]
    pub fn code(&self, code: i32) -> &Outcome {
        if self.end != End::Code(code) {
            self.fail(&format!("it should have ended with code {code}"));
        }
        self
    }

    /// It succeeded and wrote this to stdout, but for space at the ends.
    #[track_caller]
    pub fn prints(&self, text: &str) -> &Outcome {
        self.ok();
        if self.stdout().trim() != text.trim() {
            self.fail(&format!("it should have printed {text:?}"));
        }
        self
    }

    /// Whatever its status, this is somewhere in stdout.
    #[track_caller]
    pub fn shows(&self, text: &str) -> &Outcome {
        if !self.stdout().contains(text) {
            self.fail(&format!("its stdout should contain {text:?}"));
        }
        self
    }

    /// Whatever its status, this is nowhere in stdout.
    #[track_caller]
    pub fn hides(&self, text: &str) -> &Outcome {
        if self.stdout().contains(text) {
            self.fail(&format!("its stdout should not contain {text:?}"));
        }
        self
    }

    /// It failed and said this (in any case), on stderr or in the log.
    #[track_caller]
    pub fn fails_with(&self, text: &str) -> &Outcome {
        self.fails_with_one_of(&[text])
    }

    /// It failed and said one of these.
    #[track_caller]
    pub fn fails_with_one_of(&self, texts: &[&str]) -> &Outcome {
        self.fails();
        if !self.says_one_of(texts) {
            self.fail(&format!("its error should contain one of {texts:?}"));
        }
        self
    }

    /// It failed, as itself: not by a signal, not by hanging.
    #[track_caller]
    pub fn fails(&self) -> &Outcome {
        if !matches!(self.end, End::Code(code) if code != 0) {
            self.fail("it should have failed");
        }
        self
    }

    /// Its stderr or log contains one of these, in any case.
    pub fn says_one_of(&self, texts: &[&str]) -> bool {
        let said = (self.stderr() + &self.log()).to_lowercase();
        texts.iter().any(|text| said.contains(&text.to_lowercase()))
    }

    /// Nowhere in stderr and log.
    #[track_caller]
    pub fn never_says(&self, text: &str) -> &Outcome {
        if self.says_one_of(&[text]) {
            self.fail(&format!("it should not say {text:?}"));
        }
        self
    }

    /// It succeeded with JSON on stdout.
    #[track_caller]
    pub fn json(&self) -> Value {
        self.ok();
        serde_json::from_str(&self.stdout()).unwrap_or_else(|e| self.fail(&format!("its stdout is not JSON: {e}")))
    }

    /// The lines of stdout.
    pub fn lines(&self) -> Vec<String> {
        self.stdout().lines().map(str::to_owned).collect()
    }

    /// Fails the test with everything that is known.
    #[track_caller]
    pub fn fail(&self, why: &str) -> ! {
        let mut text = format!("{why}\n");
        let status = match self.end {
            End::Code(code) => format!("code {code}"),
            End::Signal(signal) => format!("ended by signal {signal}"),
            End::Hung => "did not end".into(),
        };
        let _ = writeln!(text, "command: {}\nstatus:  {status} after {:?}", self.line, self.took);
        let config = self.config.as_deref().map(read).unwrap_or_default();
        for (name, content) in
            [("stdout", self.stdout()), ("stderr", self.stderr()), ("log", self.log()), ("config", config)]
        {
            let _ = writeln!(text, "--- {name}{}", if content.is_empty() { ": empty" } else { "" });
            if !content.is_empty() {
                let _ = writeln!(text, "{}", content.trim_end());
            }
        }
        panic!("{text}");
    }
}

fn read(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
}
