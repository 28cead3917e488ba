//! The command line as tables: what a command takes is declared once, with [`arguments!`] and [`commands!`].
//!
//! Two parsers work by the tables. [`quick`] reads what callers usually write, for a fifth of the instructions that clap
//! needs; it says nothing of what it does not understand. That goes to clap, which [`full`] describes the tables to, and
//! which has the words for errors and help. What both understand they understand alike, which a test holds.

pub mod full;
pub mod quick;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::ValueParser;

/// An option, an operand (an argument by its place), or several.
#[derive(Clone, Copy)]
pub struct Arg {
    /// The field that it is read into.
    name: &'static str,
    help: &'static str,
    kind: Kind,
    short: Option<char>,
    short_alias: Option<char>,
    /// The long form, where that is not the name.
    long: Option<&'static str>,
    is_operand: bool,
    /// What stands for its value.
    value: Option<&'static str>,
    default: Option<&'static str>,
    required: bool,
    hidden: bool,
    hyphens: Hyphens,
    trailing: bool,
    ignore_case: bool,
    exclusive: bool,
    single_dash: bool,
    like_kill: bool,
    conflicts: &'static [&'static str],
    parser: fn() -> ValueParser,
    accepts: fn(&OsStr) -> bool,
}

/// What there is to read.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Given or not.
    Flag,
    /// A value; of options the last counts.
    One,
    /// As many values as are given.
    Many,
    /// Others that belong together.
    Group(&'static [Arg]),
    /// One of several commands.
    Commands(&'static [Entry]),
}

/// A command.
#[derive(Clone, Copy)]
pub struct Entry {
    /// The word for it.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// What it takes.
    pub args: &'static [Arg],
}

/// Which values may begin with a hyphen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hyphens {
    None,
    Numbers,
    All,
}

/// An option. Its long form is the name of the field.
pub const fn option() -> Arg {
    Arg {
        name: "",
        help: "",
        kind: Kind::Flag,
        short: None,
        short_alias: None,
        long: None,
        is_operand: false,
        value: None,
        default: None,
        required: false,
        hidden: false,
        hyphens: Hyphens::None,
        trailing: false,
        ignore_case: false,
        exclusive: false,
        single_dash: false,
        like_kill: false,
        conflicts: &[],
        parser: ValueParser::os_string,
        accepts: |_| true,
    }
}

/// An argument that is known by its place.
pub const fn operand() -> Arg {
    Arg { is_operand: true, ..option() }
}

/// All that another struct takes.
pub const fn group() -> Arg {
    option()
}

/// One of several commands, each of which takes arguments of its own.
pub const fn command() -> Arg {
    option()
}

#[rustfmt::skip]
impl Arg {
    /// The option is also a hyphen and this letter.
    pub const fn short(self, letter: char) -> Arg { Arg { short: Some(letter), ..self } }
    /// It is also this letter, of which the help says nothing.
    pub const fn short_alias(self, letter: char) -> Arg { Arg { short_alias: Some(letter), ..self } }
    /// The long form is not the name of the field.
    pub const fn long(self, word: &'static str) -> Arg { Arg { long: Some(word), ..self } }
    /// What stands for the value in the help; otherwise the name of the field does.
    pub const fn value(self, word: &'static str) -> Arg { Arg { value: Some(word), ..self } }
    /// The value where none is given.
    pub const fn default(self, word: &'static str) -> Arg { Arg { default: Some(word), ..self } }
    /// One has to be given.
    pub const fn required(self) -> Arg { Arg { required: true, ..self } }
    /// The help has nothing of it.
    pub const fn hidden(self) -> Arg { Arg { hidden: true, ..self } }
    /// The value may be a negative number.
    pub const fn negative_numbers(self) -> Arg { Arg { hyphens: Hyphens::Numbers, ..self } }
    /// The value may begin with a hyphen.
    pub const fn hyphens(self) -> Arg { Arg { hyphens: Hyphens::All, ..self } }
    /// From its first value on all that follows belongs to it.
    pub const fn trailing(self) -> Arg { Arg { trailing: true, ..self } }
    /// Nothing else is looked at where it is given.
    pub const fn exclusive(self) -> Arg { Arg { exclusive: true, ..self } }
    /// It may be written with one hyphen, as Go's flag parser allows for all.
    pub const fn single_dash(self) -> Arg { Arg { single_dash: true, ..self } }
    /// The value may be written as the option, as kill(1) has `-9` and `-KILL`.
    pub const fn like_kill(self) -> Arg { Arg { like_kill: true, ..self } }
    /// None of these may be given beside it.
    pub const fn conflicts(self, names: &'static [&'static str]) -> Arg { Arg { conflicts: names, ..self } }

    /// It is read into the field of this name and type.
    pub const fn of<T: Field>(self, name: &'static str, help: &'static str) -> Arg {
        let required = self.required || T::REQUIRED && self.default.is_none();
        Arg { name, help, required, kind: T::KIND, ignore_case: T::IGNORE_CASE, parser: T::parser, accepts: T::accepts, ..self }
    }

    /// The long form, or the name that stands for an operand in messages; with `_` for `-`.
    fn word(&self) -> &'static str {
        self.long.unwrap_or(self.name)
    }
}

/// Calls `visit` with each argument that is no group, in order, until it gives something.
fn find<T>(args: &'static [Arg], visit: &mut impl FnMut(&'static Arg) -> Option<T>) -> Option<T> {
    args.iter().find_map(|arg| match arg.kind {
        Kind::Group(inner) => find(inner, visit),
        _ => visit(arg),
    })
}

/// The commands among what can be given.
fn commands_of(args: &'static [Arg]) -> Option<&'static [Entry]> {
    find(args, &mut |arg| if let Kind::Commands(entries) = arg.kind { Some(entries) } else { None })
}

/// What was given.
#[derive(Debug, Default, Clone)]
pub struct Words<'a> {
    given: Vec<(&'static str, &'a OsStr)>,
    command: Option<(&'static str, Box<Words<'a>>)>,
}

impl<'a> Words<'a> {
    /// Whether this was given.
    pub fn has(&self, name: &str) -> bool {
        self.given.iter().any(|(given, _)| *given == name)
    }

    fn last(&self, name: &str) -> Option<&'a OsStr> {
        self.given.iter().rev().find(|(given, _)| *given == name).map(|(_, word)| *word)
    }

    /// The command and what was given to it.
    pub fn command(&mut self) -> Option<(&'static str, Box<Words<'a>>)> {
        self.command.take()
    }
}

/// A struct of arguments; see [`arguments!`].
pub trait Arguments: Sized {
    /// What can be given.
    const ARGS: &'static [Arg];
    /// What was given; `None` where a word is not what its field takes.
    fn take(words: &mut Words<'_>) -> Option<Self>;
}

/// A field of such a struct.
pub trait Field: Sized {
    /// How much of it there is to read.
    const KIND: Kind;
    /// Whether there is no value to take where none is given.
    const REQUIRED: bool = false;
    /// Whether clap is to ignore the case of the value.
    const IGNORE_CASE: bool = false;
    /// How clap reads the value.
    fn parser() -> ValueParser {
        ValueParser::os_string()
    }
    /// Whether it is one.
    fn accepts(_word: &OsStr) -> bool {
        true
    }
    /// What was given.
    fn take(words: &mut Words<'_>, arg: &Arg) -> Option<Self>;
}

/// A single word as a value.
pub trait Word: Sized {
    /// Whether its case does not matter.
    const IGNORE_CASE: bool = false;
    /// How clap reads it.
    fn parser() -> ValueParser;
    /// The value, if it is one.
    fn read(word: &OsStr) -> Option<Self>;
}

impl Field for bool {
    const KIND: Kind = Kind::Flag;
    fn take(words: &mut Words<'_>, arg: &Arg) -> Option<bool> {
        Some(words.has(arg.name))
    }
}

impl<T: Word> Field for T {
    const KIND: Kind = Kind::One;
    const REQUIRED: bool = true;
    const IGNORE_CASE: bool = T::IGNORE_CASE;
    fn parser() -> ValueParser {
        T::parser()
    }
    fn accepts(word: &OsStr) -> bool {
        T::read(word).is_some()
    }
    fn take(words: &mut Words<'_>, arg: &Arg) -> Option<T> {
        T::read(words.last(arg.name).or(arg.default.map(OsStr::new))?)
    }
}

impl<T: Word> Field for Option<T> {
    const KIND: Kind = Kind::One;
    const IGNORE_CASE: bool = T::IGNORE_CASE;
    fn parser() -> ValueParser {
        T::parser()
    }
    fn accepts(word: &OsStr) -> bool {
        T::read(word).is_some()
    }
    fn take(words: &mut Words<'_>, arg: &Arg) -> Option<Option<T>> {
        match words.last(arg.name) {
            Some(word) => T::read(word).map(Some),
            None => Some(None),
        }
    }
}

impl<T: Word> Field for Vec<T> {
    const KIND: Kind = Kind::Many;
    const IGNORE_CASE: bool = T::IGNORE_CASE;
    fn parser() -> ValueParser {
        T::parser()
    }
    fn accepts(word: &OsStr) -> bool {
        T::read(word).is_some()
    }
    fn take(words: &mut Words<'_>, arg: &Arg) -> Option<Vec<T>> {
        words.given.iter().filter(|(given, _)| *given == arg.name).map(|(_, word)| T::read(word)).collect()
    }
}

impl Word for String {
    fn parser() -> ValueParser {
        ValueParser::string()
    }
    fn read(word: &OsStr) -> Option<String> {
        word.to_str().map(str::to_owned)
    }
}

impl Word for PathBuf {
    fn parser() -> ValueParser {
        ValueParser::path_buf()
    }
    fn read(word: &OsStr) -> Option<PathBuf> {
        if word.is_empty() { None } else { Some(OsString::from(word).into()) }
    }
}

impl Word for u32 {
    fn parser() -> ValueParser {
        clap::value_parser!(u32).into()
    }
    fn read(word: &OsStr) -> Option<u32> {
        word.to_str()?.parse().ok()
    }
}

impl Word for i32 {
    fn parser() -> ValueParser {
        clap::value_parser!(i32).into()
    }
    fn read(word: &OsStr) -> Option<i32> {
        word.to_str()?.parse().ok()
    }
}

/// Declares a struct of arguments: each field with its help as its doc comment, and behind `=` what kind of argument it is.
macro_rules! arguments {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[doc = $help:literal])+ $field_vis:vis $field:ident: $type:ty = $arg:expr,)*
    }) => {
        $(#[$meta])*
        #[derive(Debug)]
        #[allow(dead_code, reason = "what is accepted for callers alone is read by nobody")]
        $vis struct $name { $($(#[doc = $help])+ $field_vis $field: $type,)* }

        impl $crate::argv::Arguments for $name {
            const ARGS: &'static [$crate::argv::Arg] =
                &[$($arg.of::<$type>(stringify!($field), concat!($($help),+)),)*];

            fn take(_words: &mut $crate::argv::Words<'_>) -> Option<Self> {
                Some($name {
                    $($field: {
                        const ARG: $crate::argv::Arg = $arg.of::<$type>(stringify!($field), "");
                        <$type as $crate::argv::Field>::take(_words, &ARG)?
                    },)*
                })
            }
        }

        impl $crate::argv::Field for $name {
            const KIND: $crate::argv::Kind = $crate::argv::Kind::Group(<$name as $crate::argv::Arguments>::ARGS);

            fn take(words: &mut $crate::argv::Words<'_>, _: &$crate::argv::Arg) -> Option<Self> {
                <$name as $crate::argv::Arguments>::take(words)
            }
        }
    };
}

/// Declares an enum of commands: before each variant the word for it.
macro_rules! commands {
    ($(#[$meta:meta])* $vis:vis enum $name:ident {
        $($(#[doc = $about:literal])+ $word:literal $variant:ident($args:ty),)+
    }) => {
        $(#[$meta])*
        #[derive(Debug)]
        $vis enum $name { $($(#[doc = $about])+ $variant($args),)+ }

        impl $crate::argv::Field for $name {
            const KIND: $crate::argv::Kind = $crate::argv::Kind::Commands(&[$($crate::argv::Entry {
                name: $word,
                about: concat!($($about),+),
                args: <$args as $crate::argv::Arguments>::ARGS,
            },)+]);

            fn take(words: &mut $crate::argv::Words<'_>, _: &$crate::argv::Arg) -> Option<Self> {
                let (name, mut words) = words.command()?;
                match name {
                    $($word => <$args as $crate::argv::Arguments>::take(&mut words).map($name::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

/// Lets enums with few values be those of an argument.
macro_rules! choice {
    ($name:ty $(, ignore_case = $ignore:literal)?) => {
        impl $crate::argv::Word for $name {
            $(const IGNORE_CASE: bool = $ignore;)?

            fn parser() -> clap::builder::ValueParser {
                clap::value_parser!($name).into()
            }

            fn read(word: &std::ffi::OsStr) -> Option<$name> {
                clap::ValueEnum::from_str(word.to_str()?, Self::IGNORE_CASE).ok()
            }
        }
    };
}

pub(crate) use {arguments, choice, commands};
