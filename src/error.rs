//! The one error of corten: what was being done, to what, and the cause.
//!
//! An [`Error`] is a chain of sentences from the outermost step to the cause. Beside the sentence it carries, where
//! known, the errno, the field of `config.json` (RFC 6901 pointer) and a remedy, which the JSON log prints as keys.
//! Engines search the sentence for the words of the errno in lower case ("no such file or directory"), so those
//! words end the sentence.

use std::borrow::Cow;
use std::fmt;

use nix::errno::Errno;

/// The result of everything in corten that can fail for a reason worth telling.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A name as a reference token of a JSON pointer (RFC 6901).
pub fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The name that a reference token stands for.
pub fn unescape(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

/// A failure with its context; see the module's head.
pub struct Error(Box<Detail>);

#[derive(Default, Clone)]
struct Detail {
    /// Sentences, innermost first.
    layers: Vec<Cow<'static, str>>,
    errno: Option<Errno>,
    field: Option<Cow<'static, str>>,
    hint: Option<Cow<'static, str>>,
    phase: Option<Cow<'static, str>>,
    /// That a part is missing which has to be there.
    lacks_a_part: bool,
}

impl Error {
    /// An error that is its own cause.
    pub fn new(sentence: impl Into<Cow<'static, str>>) -> Error {
        Error(Box::new(Detail { layers: vec![sentence.into()], ..Detail::default() }))
    }

    /// That an object lacks a field, in the words of the parser.
    pub fn missing(name: &str) -> Error {
        let layers = vec![format!("missing field `{name}`").into()];
        Error(Box::new(Detail { layers, lacks_a_part: true, ..Detail::default() }))
    }

    /// Adds what was being done, to what, around this error.
    #[must_use]
    pub fn context(mut self, sentence: impl Into<Cow<'static, str>>) -> Error {
        self.0.layers.push(sentence.into());
        self
    }

    /// Names the field of `config.json` (a JSON pointer). The innermost name stays.
    #[must_use]
    pub fn field(mut self, pointer: impl Into<Cow<'static, str>>) -> Error {
        self.0.field.get_or_insert(pointer.into());
        self
    }

    /// Says what to do about it. The innermost remedy stays.
    #[must_use]
    pub fn hint(mut self, remedy: impl Into<Cow<'static, str>>) -> Error {
        self.0.hint.get_or_insert(remedy.into());
        self
    }

    /// A remedy in place of the innermost, for who knows more of the cause.
    #[must_use]
    pub fn hint_instead(mut self, remedy: impl Into<Cow<'static, str>>) -> Error {
        self.0.hint = Some(remedy.into());
        self
    }

    /// Names the step of the life cycle in which it happened. The innermost name stays.
    #[must_use]
    pub fn phase(mut self, step: impl Into<Cow<'static, str>>) -> Error {
        self.0.phase.get_or_insert(step.into());
        self
    }

    /// The errno at the bottom of the chain.
    pub fn errno(&self) -> Option<Errno> {
        self.0.errno
    }

    /// Whether it says that something is missing; not known of what came over a wire.
    pub fn is_missing(&self) -> bool {
        self.0.lacks_a_part
    }

    /// The JSON pointer of the field that is at fault.
    pub fn field_name(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    /// The remedy, when one is known.
    pub fn remedy(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The step of the life cycle in which it happened.
    pub fn phase_name(&self) -> Option<&str> {
        self.0.phase.as_deref()
    }

    /// The field under another name, for who knows it by an older one; none is put where there was none.
    #[must_use]
    pub fn field_renamed(mut self, pointer: impl FnOnce(&str) -> String) -> Error {
        self.0.field = self.0.field.map(|old| pointer(&old).into());
        self
    }

    /// The sentence alone, without field and remedy.
    pub fn sentence(&self) -> String {
        let bare = Detail { field: None, hint: None, ..(*self.0).clone() };
        Error(Box::new(bare)).to_string()
    }

    /// The sentence with the field, without the remedy.
    pub fn without_hint(&self) -> String {
        let bare = Detail { hint: None, ..(*self.0).clone() };
        Error(Box::new(bare)).to_string()
    }

    /// The error as bytes, for the way from the container's side to the host's.
    pub fn encode(&self) -> Vec<u8> {
        let detail = &self.0;
        let text = |part: &Option<Cow<'static, str>>| part.as_deref().unwrap_or("").to_owned();
        let mut parts = vec![
            detail.errno.map_or(0, |errno| errno as i32).to_string(),
            text(&detail.field),
            text(&detail.hint),
            text(&detail.phase),
        ];
        parts.extend(detail.layers.iter().map(|layer| layer.to_string()));
        // NUL separates: it can stand in no path, no name and no sentence of ours.
        parts.join("\0").into_bytes()
    }

    /// Reads what [`Error::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Error {
        let text = String::from_utf8_lossy(bytes);
        let mut parts = text.split('\0').map(str::to_owned);
        let errno = parts.next().and_then(|number| number.parse().ok()).filter(|&number| number != 0);
        let mut optional = || parts.next().filter(|part| !part.is_empty()).map(Cow::Owned);
        let (field, hint, phase) = (optional(), optional(), optional());
        let layers = parts.map(Cow::Owned).collect();
        Error(Box::new(Detail { layers, errno: errno.map(Errno::from_raw), field, hint, phase, lacks_a_part: false }))
    }
}

/// The words of an errno as engines search for them: lower case, no number.
pub fn words(errno: Errno) -> String {
    let text = errno.desc();
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().collect::<String>() + &text[first.len_utf8()..]
        }
        _ => text.to_owned(),
    }
}

/// Text for people, on one line and without power over their terminal: names of files, programs and hosts can hold escape
/// sequences, new lines, and characters that hide text or turn its direction. Those are written as Rust writes them.
/// What has been through this stays as it is.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(has_power) {
        return Cow::Borrowed(text);
    }
    let tame = |c: char| if has_power(c) { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(tame).collect())
}

/// Lines for people, or JSON, without power over a terminal: what has it but ends of lines and tabs is written as JSON
/// escapes it, which in JSON means the same.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    let has_power = |c: char| has_power(c) && c != '\n' && c != '\t';
    if !text.contains(has_power) {
        return Cow::Borrowed(text);
    }
    let tame = |c: char| if has_power(c) { format!("\\u{:04x}", c as u32) } else { c.to_string() };
    Cow::Owned(text.chars().map(tame).collect())
}

/// Whether a terminal would do something with it, or not show it: control characters (C0, DEL, C1), separators of lines,
/// and the formatting of text in both directions (Unicode Standard Annex 9).
fn has_power(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// The sentence as people may see it, wherever its parts came from.
impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detail = &self.0;
        let mut rest = detail.layers.len();
        for layer in detail.layers.iter().rev() {
            rest -= 1;
            if rest == 0
                && let Some(field) = &detail.field
            {
                write!(out, "{}: ", printable(field))?;
            }
            out.write_str(&printable(layer))?;
            if rest > 0 {
                out.write_str(": ")?;
            }
        }
        if let Some(errno) = detail.errno {
            let colon = if detail.layers.is_empty() { "" } else { ": " };
            write!(out, "{colon}{}", words(errno))?;
        }
        match &detail.hint {
            Some(hint) => write!(out, " ({})", printable(hint)),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl std::error::Error for Error {}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Error {
        Error(Box::new(Detail { errno: Some(errno), ..Detail::default() }))
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Error {
        match error.raw_os_error() {
            Some(number) => Errno::from_raw(number).into(),
            None => Error::new(error.to_string()),
        }
    }
}

/// Adds to the error of a result what the caller knows.
pub trait Context<T> {
    /// What was being done, as a fixed sentence.
    fn context(self, sentence: impl Into<Cow<'static, str>>) -> Result<T>;
    /// What was being done, to what; the sentence is only built on failure.
    fn with_context<S: Into<Cow<'static, str>>>(self, sentence: impl FnOnce() -> S) -> Result<T>;
    /// The field of `config.json` that asked for it.
    fn field<S: Into<Cow<'static, str>>>(self, pointer: impl FnOnce() -> S) -> Result<T>;
    /// What to do about it.
    fn hint(self, remedy: impl Into<Cow<'static, str>>) -> Result<T>;
    /// The step of the life cycle.
    fn phase(self, step: &'static str) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, sentence: impl Into<Cow<'static, str>>) -> Result<T> {
        self.map_err(|error| error.into().context(sentence))
    }

    fn with_context<S: Into<Cow<'static, str>>>(self, sentence: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| error.into().context(sentence()))
    }

    fn field<S: Into<Cow<'static, str>>>(self, pointer: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| error.into().field(pointer()))
    }

    fn hint(self, remedy: impl Into<Cow<'static, str>>) -> Result<T> {
        self.map_err(|error| error.into().hint(remedy))
    }

    fn phase(self, step: &'static str) -> Result<T> {
        self.map_err(|error| error.into().phase(step))
    }
}

/// Leaves the function with an error made from a format string.
macro_rules! bail {
    ($($text:tt)+) => { return Err($crate::error::Error::new(format!($($text)+))) };
}

/// Leaves the function with an error unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => { if !$condition { $crate::error::bail!($($text)+) } };
}

pub(crate) use {bail, ensure};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_a_pointer_is_escaped_and_comes_back() {
        for (name, token) in [("a/b", "a~1b"), ("~1", "~01"), ("~/~", "~0~1~0"), ("plain", "plain")] {
            assert_eq!((escape(name).as_str(), unescape(token).as_str()), (token, name));
        }
    }

    #[test]
    fn a_chain_reads_from_the_outside_in_and_ends_with_the_words_of_the_errno() {
        let error = Error::from(Errno::ENOENT).context("open /x").context("create web");
        assert_eq!(error.to_string(), "create web: open /x: no such file or directory");
    }

    #[test]
    fn the_field_stands_before_the_innermost_sentence_and_the_remedy_last() {
        let error = Error::new("must not be empty").field("/process/args").hint("give a command").context("create web");
        assert_eq!(error.to_string(), "create web: /process/args: must not be empty (give a command)");
    }

    #[test]
    fn an_error_survives_the_way_over_the_wire() {
        let error = Error::from(Errno::EPERM).context("mount proc").field("/mounts/0").phase("mounts");
        let copy = Error::decode(&error.encode());
        assert_eq!(copy.to_string(), error.to_string());
        assert_eq!(copy.errno(), Some(Errno::EPERM));
        assert_eq!(copy.phase_name(), Some("mounts"));
    }

    #[test]
    fn a_sentence_has_no_power_over_a_terminal_and_crosses_the_wire_as_it_is() {
        let error = Error::new("a\u{1b}[2J\n").context("b\u{202e}\u{9b}\u{7f}").field("/c\r").hint("d\t");
        let sentence = r"b\u{202e}\u{9b}\u{7f}: /c\r: a\u{1b}[2J\n (d\t)";
        assert_eq!(error.to_string(), sentence);
        assert_eq!(Error::decode(&error.encode()).to_string(), sentence);
        assert_eq!(printable(sentence), sentence);
        assert_eq!(printable("größer → 1 \\ 2"), "größer → 1 \\ 2");
    }

    #[test]
    fn an_errno_with_a_capital_word_keeps_it() {
        assert_eq!(words(Errno::EIO), "I/O error");
        assert_eq!(words(Errno::EACCES), "permission denied");
    }
}
