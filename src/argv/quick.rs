//! The parser for command lines that are right.
//!
//! It knows flags, values behind a space or an equals sign, letters that stand together, operands, `--` and commands. Of
//! anything beyond that it makes nothing, and clap has the word.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::{Arg, Entry, Hyphens, Kind, Words, commands_of, find};

/// An option that was read.
struct Step {
    /// How many words it has.
    words: usize,
    /// Whether it is known, and is as it should be.
    sound: bool,
}

/// Reads the words behind the name of the program, or of a command; `None` where that is for clap.
pub fn read<'a>(args: &'static [Arg], words: &'a [OsString]) -> Option<Words<'a>> {
    let mut found = Words::default();
    let commands = commands_of(args);
    let (mut at, mut operands, mut only_operands) = (0, 0, false);
    while let Some(word) = words.get(at) {
        if !only_operands && is_option(word) {
            if word == "--" && commands.is_none() {
                (only_operands, at) = (true, at + 1);
                continue;
            }
            let step = option(args, word, words.get(at + 1), &mut found);
            if !step.sound {
                return None;
            }
            at += step.words;
            continue;
        }
        at += 1;
        if let Some(entries) = commands {
            let entry = entry(entries, word)?;
            found.command = Some((entry.name, Box::new(read(entry.args, &words[at..])?)));
            break;
        }
        let arg = operand(args, operands)?;
        found.given.push((arg.name, word));
        if arg.trailing {
            found.given.extend(words[at..].iter().map(|word| (arg.name, word.as_os_str())));
            break;
        }
        if !matches!(arg.kind, Kind::Many) {
            operands += 1;
        }
    }
    is_complete(args, &found).then_some(found)
}

/// Reads the options before the command as far as they are understood; and how many words there are before it.
pub fn leading<'a>(args: &'static [Arg], words: &'a [OsString]) -> (Words<'a>, usize) {
    let (mut found, mut at) = (Words::default(), 0);
    while let Some(word) = words.get(at).filter(|word| word.as_bytes().first() == Some(&b'-')) {
        at += option(args, word, words.get(at + 1), &mut found).words;
    }
    let is_one = |(name, word): &(&'static str, &OsStr)| {
        let arg = find(args, &mut |arg| (arg.name == *name).then_some(arg));
        arg.is_some_and(|arg| matches!(arg.kind, Kind::Flag) || (arg.accepts)(word))
    };
    found.given.retain(is_one);
    (found, at.min(words.len()))
}

/// The words with options spelled out of which clap knows only the long form.
pub fn spell_out(args: &'static [Arg], words: &[OsString]) -> Vec<OsString> {
    let (_, at) = leading(args, words);
    let mut words = words.to_vec();
    let entry = commands_of(args).zip(words.get(at)).and_then(|(entries, word)| entry(entries, word));
    if let Some(Entry { args, .. }) = entry {
        for word in words[at + 1..].iter_mut().take_while(|word| *word != "--") {
            if let Some(arg) = single_dash(args, word) {
                *word = format!("--{}", arg.word().replace('_', "-")).into();
            } else if let Some((arg, value)) = like_kill(args, word) {
                *word = format!("--{}={value}", arg.word().replace('_', "-")).into();
            }
        }
    }
    words
}

fn entry(entries: &'static [Entry], word: &OsStr) -> Option<&'static Entry> {
    entries.iter().find(|entry| word == entry.name)
}

/// A single hyphen is none: it stands for standard input.
fn is_option(word: &OsStr) -> bool {
    word.len() > 1 && word.as_bytes()[0] == b'-'
}

fn operand(args: &'static [Arg], mut number: usize) -> Option<&'static Arg> {
    find(args, &mut |arg| {
        if !arg.is_operand {
            return None;
        }
        let found = (number == 0).then_some(arg);
        number = number.wrapping_sub(1);
        found
    })
}

/// Nothing lacks, and nothing is beside what it excludes.
fn is_complete(args: &'static [Arg], found: &Words<'_>) -> bool {
    let fault = find(args, &mut |arg| {
        let at_fault = match (arg.kind, found.has(arg.name)) {
            (Kind::Commands(_), _) => found.command.is_none(),
            (_, true) => arg.exclusive || arg.conflicts.iter().any(|other| found.has(other)),
            (_, false) => arg.required,
        };
        at_fault.then_some(())
    });
    fault.is_none()
}

fn option<'a>(args: &'static [Arg], word: &'a OsStr, next: Option<&'a OsString>, found: &mut Words<'a>) -> Step {
    match word.as_bytes() {
        [b'-', b'-', long @ ..] => long_option(args, long, next, found),
        [_, letters @ ..] => {
            if let Some(arg) = single_dash(args, word) {
                found.given.push((arg.name, OsStr::new("")));
                return Step { words: 1, sound: true };
            }
            if let Some((arg, value)) = like_kill(args, word) {
                found.given.push((arg.name, OsStr::new(value)));
                return Step { words: 1, sound: true };
            }
            short_options(args, letters, next, found)
        }
        [] => Step { words: 1, sound: false },
    }
}

fn long_option<'a>(args: &'static [Arg], word: &'a [u8], next: Option<&'a OsString>, found: &mut Words<'a>) -> Step {
    let (name, value) = match word.iter().position(|&byte| byte == b'=') {
        Some(at) => (&word[..at], Some(OsStr::from_bytes(&word[at + 1..]))),
        None => (word, None),
    };
    let Some(arg) = find(args, &mut |arg| is_long(arg, name).then_some(arg)) else {
        return Step { words: 1, sound: false };
    };
    match (arg.kind, value) {
        (Kind::Flag, value) => {
            found.given.push((arg.name, OsStr::new("")));
            Step { words: 1, sound: value.is_none() }
        }
        (_, Some(value)) => {
            found.given.push((arg.name, value));
            Step { words: 1, sound: true }
        }
        (_, None) => value_behind(arg, next, found),
    }
}

fn short_options<'a>(
    args: &'static [Arg],
    letters: &'a [u8],
    next: Option<&'a OsString>,
    found: &mut Words<'a>,
) -> Step {
    for (at, letter) in letters.iter().enumerate() {
        let is_it = |arg: &Arg| [arg.short, arg.short_alias].contains(&Some(char::from(*letter)));
        let Some(arg) = find(args, &mut |arg| is_it(arg).then_some(arg)) else {
            return Step { words: 1, sound: false };
        };
        match (arg.kind, &letters[at + 1..]) {
            (Kind::Flag, _) => found.given.push((arg.name, OsStr::new(""))),
            (_, []) => return value_behind(arg, next, found),
            (_, [b'=', ..]) => return Step { words: 1, sound: false },
            (_, value) => {
                found.given.push((arg.name, OsStr::from_bytes(value)));
                break;
            }
        }
    }
    Step { words: 1, sound: true }
}

/// The value in the next word.
fn value_behind<'a>(arg: &'static Arg, next: Option<&'a OsString>, found: &mut Words<'a>) -> Step {
    let Some(value) = next else { return Step { words: 1, sound: false } };
    let number = |word: &OsStr| word.as_bytes()[1..].iter().all(u8::is_ascii_digit);
    let sound = !is_option(value) || (arg.hyphens != Hyphens::None && number(value));
    if sound {
        found.given.push((arg.name, value));
    }
    Step { words: 2, sound }
}

/// Whether this is its long form. Names of fields have `_` where options have `-`.
fn is_long(arg: &Arg, name: &[u8]) -> bool {
    let word = arg.word().as_bytes();
    let is_letter = |(&ours, &theirs): (&u8, &u8)| if ours == b'_' { theirs == b'-' } else { ours == theirs };
    !arg.is_operand && word.len() == name.len() && word.iter().zip(name).all(is_letter)
}

fn single_dash(args: &'static [Arg], word: &OsStr) -> Option<&'static Arg> {
    let name = word.as_bytes().strip_prefix(b"-")?;
    find(args, &mut |arg| (arg.single_dash && is_long(arg, name)).then_some(arg))
}

/// A number, or a name in capitals: letters in lower case are flags.
fn like_kill<'a>(args: &'static [Arg], word: &'a OsStr) -> Option<(&'static Arg, &'a str)> {
    let value = word.to_str()?.strip_prefix('-')?;
    let first = value.chars().next()?;
    let arg = find(args, &mut |arg| arg.like_kill.then_some(arg))?;
    (first.is_ascii_digit() || first.is_ascii_uppercase()).then_some((arg, value))
}
