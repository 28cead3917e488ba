//! Container ids: names of directories, nothing else.

use crate::error::{Result, ensure};

/// The longest name of a file, and so of an id.
const LONGEST: usize = 255;

/// A checked container id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(String);

impl Id {
    /// Checks an id: letters, digits and `_ + - .`, not starting with a dot.
    pub fn new(text: &str) -> Result<Id> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
        let sound = !text.is_empty() && !text.starts_with('.') && text.bytes().all(allowed);
        ensure!(
            sound,
            "invalid container ID format: {text:?} must be letters, digits, _, +, - and . without a leading dot"
        );
        ensure!(text.len() <= LONGEST, "invalid container ID format: longer than {LONGEST} characters");
        Ok(Id(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runc_s_set_is_accepted() {
        for id in ["a", "a.b_c-1+d", &"f".repeat(64), "+x", "-x", "_"] {
            assert!(Id::new(id).is_ok(), "{id}");
        }
    }

    #[test]
    fn what_is_no_plain_name_is_refused_with_the_rule() {
        for id in ["", ".", "..", ".x", "a/b", "a b", "ä", "a\n", "a\0", &"x".repeat(1024)] {
            let error = Id::new(id).unwrap_err().to_string();
            assert!(error.starts_with("invalid container ID format"), "{error}");
        }
    }
}
