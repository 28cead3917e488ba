//! The parser for all command lines: clap, with the tables as its description.

use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Command};

use super::{Arg, Hyphens, Kind, Words, quick};

/// The description of a command.
pub fn describe(command: Command, args: &'static [Arg]) -> Command {
    args.iter().fold(command, |command, arg| match arg.kind {
        Kind::Group(inner) => describe(command, inner),
        Kind::Commands(entries) => {
            let below =
                entries.iter().map(|entry| describe(Command::new(entry.name).about(entry.about.trim()), entry.args));
            command.subcommand_required(true).arg_required_else_help(true).subcommands(below)
        }
        Kind::Flag | Kind::One | Kind::Many => command.arg(describe_one(arg)),
    })
}

fn describe_one(arg: &Arg) -> clap::Arg {
    let mut described = clap::Arg::new(arg.name)
        .help(arg.help.trim())
        .required(arg.required)
        .hide(arg.hidden)
        .exclusive(arg.exclusive)
        .conflicts_with_all(arg.conflicts);
    if !arg.is_operand {
        described = described.short(arg.short).long(&*arg.word().replace('_', "-").leak());
    }
    if let Some(letter) = arg.short_alias {
        described = described.short_alias(letter);
    }
    if matches!(arg.kind, Kind::Flag) {
        return described.action(ArgAction::SetTrue);
    }
    let many = matches!(arg.kind, Kind::Many);
    described = described
        .action(if many { ArgAction::Append } else { ArgAction::Set })
        .value_name(arg.value.unwrap_or_else(|| arg.name.to_uppercase().leak()))
        .value_parser((arg.parser)())
        .ignore_case(arg.ignore_case)
        .allow_hyphen_values(arg.hyphens == Hyphens::All)
        .allow_negative_numbers(arg.hyphens == Hyphens::Numbers)
        .trailing_var_arg(arg.trailing);
    if many && arg.is_operand {
        described = described.num_args(1..);
    }
    match arg.default {
        Some(default) => described.default_value(default),
        None => described,
    }
}

/// Reads words, the first of which is the name of the program.
///
/// # Errors
/// Help that was asked for, and all that is wrong.
pub fn read(command: &mut Command, args: &'static [Arg], words: &[OsString]) -> Result<ArgMatches, clap::Error> {
    let (program, words) = words.split_at(1.min(words.len()));
    command.try_get_matches_from_mut(program.iter().cloned().chain(quick::spell_out(args, words)))
}

/// What clap has found, as [`quick`] gives it.
pub fn words<'a>(args: &'static [Arg], matches: &'a ArgMatches) -> Words<'a> {
    let mut words = Words::default();
    collect(args, matches, &mut words);
    words
}

fn collect<'a>(args: &'static [Arg], matches: &'a ArgMatches, words: &mut Words<'a>) {
    for arg in args {
        match arg.kind {
            Kind::Group(inner) => collect(inner, matches, words),
            Kind::Commands(entries) => {
                words.command = matches.subcommand().and_then(|(name, below)| {
                    let entry = entries.iter().find(|entry| entry.name == name)?;
                    Some((entry.name, Box::new(self::words(entry.args, below))))
                });
            }
            _ if matches.value_source(arg.name) != Some(ValueSource::CommandLine) => {}
            Kind::Flag => words.given.push((arg.name, "".as_ref())),
            Kind::One | Kind::Many => {
                let given = matches.get_raw(arg.name).into_iter().flatten();
                words.given.extend(given.map(|word| (arg.name, word)));
            }
        }
    }
}
