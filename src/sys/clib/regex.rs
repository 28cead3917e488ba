//! POSIX extended regular expressions, regex(7), as the C library of this binary has them.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;

/// A compiled expression.
pub struct Pattern(libc::regex_t);

impl Pattern {
    /// Compiles an expression; the error is the C library's own sentence.
    pub fn new(text: &str) -> std::result::Result<Pattern, String> {
        let text = CString::new(text).map_err(|_| "it holds a NUL".to_owned())?;
        let mut compiled = MaybeUninit::<libc::regex_t>::uninit();
        // SAFETY: regcomp(3) initialises the structure when it returns 0, and only then is it taken as such; on failure
        // regerror(3) reads it as documented and writes at most the given length, NUL-terminated.
        unsafe {
            match libc::regcomp(compiled.as_mut_ptr(), text.as_ptr(), libc::REG_EXTENDED | libc::REG_NOSUB) {
                0 => Ok(Pattern(compiled.assume_init())),
                code => {
                    let mut words = [0u8; 128];
                    libc::regerror(code, compiled.as_ptr(), words.as_mut_ptr().cast(), words.len());
                    let words = CStr::from_bytes_until_nul(&words).unwrap_or_default();
                    Err(words.to_string_lossy().to_lowercase())
                }
            }
        }
    }

    /// Whether the expression matches somewhere in the text.
    pub fn matches(&self, text: &str) -> bool {
        let Ok(text) = CString::new(text) else { return false };
        // SAFETY: the structure was compiled by regcomp(3) and is not changed by regexec(3); no match array is asked for.
        unsafe { libc::regexec(&raw const self.0, text.as_ptr(), 0, std::ptr::null_mut(), 0) == 0 }
    }
}

impl Drop for Pattern {
    fn drop(&mut self) {
        // SAFETY: compiled by regcomp(3), freed once.
        unsafe { libc::regfree(&raw mut self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_match_as_in_grep_e() {
        let pattern = Pattern::new("^a[0-9]+$").unwrap();
        assert!(pattern.matches("a12") && !pattern.matches("ba12"));
        assert!(Pattern::new("(").is_err());
    }
}
