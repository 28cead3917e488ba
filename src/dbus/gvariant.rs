//! The text form of GVariant (GLib, "GVariant Text Format Strings"), in which annotations have properties of units.
//!
//! Only what a property of a unit can be: numbers, booleans, strings, and arrays and tuples of them. Whatever is not
//! fully understood is an error.

use std::iter::Peekable;
use std::str::Chars;

use super::signature;
use super::value::Value;
use crate::error::{Result, bail, ensure};
use crate::sys::clib::number::integer;

/// Reads a whole text.
pub fn parse(text: &str) -> Result<Value> {
    let mut parser = Parser { left: text.chars().peekable(), depth: 0 };
    let value = parser.value(None)?;
    parser.blanks();
    ensure!(parser.left.peek().is_none(), "there is something after the value");
    // A byte has the length of a signature in a message.
    ensure!(value.signature().len() <= 255, "its type has more than 255 letters");
    Ok(value)
}

/// Words before a value that tell its type, and what they are as a type.
#[rustfmt::skip]
const WORDS: &[(&str, &str)] = &[
    ("boolean", "b"), ("byte",   "y"), ("double", "d"), ("string", "s"), ("objectpath", "o"), ("signature", "g"),
    ("int16",   "n"), ("uint16", "q"), ("int32",  "i"), ("uint32", "u"), ("int64",      "x"), ("uint64",    "t"),
];

/// Letters after a backslash.
#[rustfmt::skip]
const ESCAPES: &[(char, char)] = &[
    ('\\', '\\'), ('\'', '\''), ('"', '"'), ('a', '\x07'), ('b', '\x08'),
    ('f', '\x0c'), ('n', '\n'), ('r', '\r'), ('t', '\t'), ('v', '\x0b'),
];

/// How deep arrays and tuples may lie in each other.
const DEEPEST: u8 = 8;

struct Parser<'text> {
    left: Peekable<Chars<'text>>,
    depth: u8,
}

impl Parser<'_> {
    fn blanks(&mut self) {
        while self.left.next_if(|letter| letter.is_ascii_whitespace()).is_some() {}
    }

    fn take(&mut self, letter: char) -> bool {
        self.blanks();
        self.left.next_if_eq(&letter).is_some()
    }

    /// Letters, digits and what numbers and types are made of.
    fn word(&mut self, fits: fn(char) -> bool) -> String {
        std::iter::from_fn(|| self.left.next_if(|&letter| fits(letter))).collect()
    }

    /// A value of a type that is known, or of the one that it shows.
    fn value(&mut self, wanted: Option<&str>) -> Result<Value> {
        self.blanks();
        match self.left.peek() {
            Some('@') => {
                self.left.next();
                let of = self.word(|letter| letter.is_ascii_alphabetic() || matches!(letter, '(' | ')'));
                ensure!(is_type(&of), "{of:?} is no type of a property");
                self.typed(&of, wanted)
            }
            Some('\'' | '"') => self.string(wanted),
            Some('[') => {
                self.left.next();
                self.nested(|parser| parser.array(wanted))
            }
            Some('(') => {
                self.left.next();
                self.nested(|parser| parser.tuple(wanted))
            }
            Some(letter) if letter.is_ascii_alphanumeric() || matches!(letter, '-' | '+' | '.') => {
                let word = self.word(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '+' | '.'));
                if let Some((_, of)) = WORDS.iter().find(|(name, _)| *name == word) {
                    return self.typed(of, wanted);
                }
                plain(&word, wanted)
            }
            Some(letter) => bail!("{letter:?} starts no value that a property can have"),
            None => bail!("a value is missing"),
        }
    }

    /// A value whose type is written before it.
    fn typed(&mut self, of: &str, wanted: Option<&str>) -> Result<Value> {
        ensure!(wanted.is_none_or(|wanted| wanted == of), "a value of type {of} is among others");
        self.nested(|parser| parser.value(Some(of)))
    }

    fn nested(&mut self, inner: impl FnOnce(&mut Self) -> Result<Value>) -> Result<Value> {
        ensure!(self.depth < DEEPEST, "it is nested too deeply");
        self.depth += 1;
        let value = inner(self);
        self.depth -= 1;
        value
    }

    fn string(&mut self, wanted: Option<&str>) -> Result<Value> {
        let quote = self.left.next();
        let mut text = String::new();
        loop {
            match self.left.next() {
                None => bail!("a string has no end"),
                end if end == quote => break,
                Some('\\') => text.push(self.escaped()?),
                Some(letter) => text.push(letter),
            }
        }
        ensure!(!text.contains('\0'), "a string has a zero in it");
        match wanted {
            None | Some("s") => Ok(Value::text(text)),
            Some("o") => {
                ensure!(is_path(&text), "{text:?} is no object path");
                Ok(Value::Path(text))
            }
            Some("g") => {
                ensure!(text.is_empty() || is_type(&text), "{text:?} is no signature");
                Ok(Value::Signature(text))
            }
            Some(other) => bail!("{text:?} is not of type {other}"),
        }
    }

    fn escaped(&mut self) -> Result<char> {
        let Some(letter) = self.left.next() else { bail!("a string has no end") };
        let digits = match letter {
            'u' => 4,
            'U' => 8,
            letter => {
                let Some((_, meant)) = ESCAPES.iter().find(|(escape, _)| *escape == letter) else {
                    bail!("\\{letter} is no escape")
                };
                return Ok(*meant);
            }
        };
        let hex: String = self.left.by_ref().take(digits).collect();
        let whole = hex.len() == digits && hex.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number = u32::from_str_radix(&hex, 16).ok().filter(|_| whole);
        let Some(meant) = number.and_then(char::from_u32) else { bail!("\\{letter}{hex} is no character") };
        Ok(meant)
    }

    fn array(&mut self, wanted: Option<&str>) -> Result<Value> {
        let mut element = match wanted.map(|wanted| wanted.split_at(1)) {
            None => None,
            Some(("a", element)) => Some(element.to_owned()),
            Some(_) => bail!("an array is not of type {}", wanted.unwrap_or_default()),
        };
        let mut list = Vec::new();
        while !self.take(']') {
            ensure!(list.is_empty() || self.take(','), "a comma is missing in an array");
            let value = self.value(element.as_deref())?;
            element.get_or_insert_with(|| value.signature());
            list.push(value);
        }
        let Some(element) = element else { bail!("an empty array needs its type before it, as in \"@as []\"") };
        Ok(Value::Array(element.into(), list))
    }

    fn tuple(&mut self, wanted: Option<&str>) -> Result<Value> {
        let mut types = match wanted {
            None => None,
            Some(wanted) => {
                let inner = wanted.strip_prefix('(').and_then(|inner| inner.strip_suffix(')'));
                let Some(inner) = inner else { bail!("a tuple is not of type {wanted}") };
                Some(inner)
            }
        };
        let mut fields = Vec::new();
        while !self.take(')') {
            ensure!(fields.is_empty() || self.take(','), "a comma is missing in a tuple");
            // The comma of a tuple with one field.
            if fields.len() == 1 && self.take(')') {
                break;
            }
            let of = match &mut types {
                None => None,
                Some(left) => {
                    let Some(length) = signature::first_type(left) else { bail!("a tuple has too many fields") };
                    let (first, rest) = left.split_at(length);
                    *left = rest;
                    Some(first)
                }
            };
            fields.push(self.value(of)?);
        }
        ensure!(types.is_none_or(str::is_empty) && !fields.is_empty(), "a tuple has too few fields");
        Ok(Value::Struct(fields))
    }
}

/// A boolean or a number.
fn plain(word: &str, wanted: Option<&str>) -> Result<Value> {
    if let "true" | "false" = word {
        ensure!(matches!(wanted, None | Some("b")), "{word} is not of type {}", wanted.unwrap_or_default());
        return Ok(Value::Bool(word == "true"));
    }
    let is_float = !word.contains(['x', 'X']) && word.contains(['.', 'e', 'E']);
    let of = wanted.unwrap_or(if is_float { "d" } else { "i" });
    let number = if of == "d" {
        let sound = word.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
        word.parse().ok().filter(|number: &f64| sound && number.is_finite()).map(Value::Double)
    } else {
        integer(word).and_then(|number| sized(number, of))
    };
    let Some(number) = number else { bail!("{word:?} is no value of type {of}") };
    Ok(number)
}

fn sized(number: i128, of: &str) -> Option<Value> {
    Some(match of {
        "y" => Value::Byte(number.try_into().ok()?),
        "n" => Value::Int16(number.try_into().ok()?),
        "q" => Value::Uint16(number.try_into().ok()?),
        "i" => Value::Int32(number.try_into().ok()?),
        "u" => Value::Uint32(number.try_into().ok()?),
        "x" => Value::Int64(number.try_into().ok()?),
        "t" => Value::Uint64(number.try_into().ok()?),
        _ => return None,
    })
}

/// Whether a text is one type, of those that there are here.
fn is_type(text: &str) -> bool {
    text.len() <= 64 && !text.contains(['v', 'h', '{']) && signature::is_type(text)
}

fn is_path(text: &str) -> bool {
    let is_part =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    text == "/" || text.strip_prefix('/').is_some_and(|parts| parts.split('/').all(is_part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(of: &'static str, list: Vec<Value>) -> Value {
        Value::Array(of.into(), list)
    }

    #[test]
    fn what_engines_write_is_understood() {
        assert_eq!(parse("uint64 30000000").unwrap(), Value::Uint64(30_000_000));
        assert_eq!(parse("true").unwrap(), Value::Bool(true));
        assert_eq!(parse(" 'inactive-or-failed' ").unwrap(), Value::text("inactive-or-failed"));
        assert_eq!(parse("['crio.service']").unwrap(), array("s", vec![Value::text("crio.service")]));
        assert_eq!(parse("15").unwrap(), Value::Int32(15), "podman's KillSignal");
    }

    #[test]
    fn every_type_of_number_has_its_word_and_its_range() {
        assert_eq!(parse("byte 0xff").unwrap(), Value::Byte(255));
        assert_eq!(parse("int16 -32768").unwrap(), Value::Int16(-32768));
        assert_eq!(parse("uint16 010").unwrap(), Value::Uint16(8));
        assert_eq!(parse("@t 18446744073709551615").unwrap(), Value::Uint64(u64::MAX));
        assert_eq!(parse("int64 -1").unwrap(), Value::Int64(-1));
        assert_eq!(parse("double 3").unwrap(), Value::Double(3.0));
        assert_eq!(parse("-1.5e3").unwrap(), Value::Double(-1500.0));
        for wrong in [
            "2147483648",
            "byte 256",
            "uint64 -1",
            "uint32 1.0",
            "0x",
            "08",
            "1_000",
            "--1",
            "int32",
            "inf",
            "double nan",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn strings_have_two_quotes_and_the_escapes_of_c() {
        assert_eq!(parse(r#""it's""#).unwrap(), Value::text("it's"));
        assert_eq!(parse(r"'\'\\\n\u00e4\U0001F600'").unwrap(), Value::text("'\\\nä😀"));
        assert_eq!(parse("objectpath '/a/b_1'").unwrap(), Value::Path("/a/b_1".into()));
        assert_eq!(parse("signature 'a(st)'").unwrap(), Value::Signature("a(st)".into()));
        for wrong in [
            "'a",
            "'a\"",
            r"'\q'",
            r"'\u12'",
            r"'\ud800'",
            r"'\u+123'",
            r"'\u0000'",
            "objectpath 'a'",
            "objectpath '/a/'",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn arrays_and_tuples_have_one_type() {
        assert_eq!(parse("[uint64 1, 2]").unwrap(), array("t", vec![Value::Uint64(1), Value::Uint64(2)]));
        assert_eq!(parse("@as []").unwrap(), array("s", vec![]));
        let rate = Value::Struct(vec![Value::text("/dev/sda"), Value::Uint64(5)]);
        assert_eq!(parse("@a(st) [('/dev/sda', 5)]").unwrap(), array("(st)", vec![rate.clone()]));
        assert_eq!(parse("('/dev/sda', uint64 5)").unwrap(), rate);
        assert_eq!(parse("(1,)").unwrap(), Value::Struct(vec![Value::Int32(1)]));
        assert_eq!(parse("[[1], [2]]").unwrap().signature(), "aai");
        for wrong in [
            "[]",
            "[1, 'a']",
            "[1 2]",
            "[1",
            "[1,",
            "()",
            "@(st) ('a')",
            "@(s) ('a', 1)",
            "@as 'a'",
            "@a{sv} {}",
            "<1>",
            "{'a': 1}",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nothing_may_follow_and_nothing_may_be_missing() {
        for wrong in ["", " ", "1 2", "true false", "'a' 'b'", "yes", "uint64", "@t", "@", "True", "b'bytes'", "%d"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let wide = |fields: usize| format!("({})", vec!["1"; fields].join(","));
        assert!(parse(&wide(253)).is_ok() && parse(&wide(254)).is_err());
        let deep = "[".repeat(100_000);
        assert!(parse(&deep).is_err());
        assert!(parse(&format!("@{} 1", "a".repeat(100_000))).is_err());
        assert!(parse(&format!("{}1", "uint64 ".repeat(100_000))).is_err());
    }
}
