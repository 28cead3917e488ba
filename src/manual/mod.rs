//! What the commands say of themselves: `--help` on a terminal, and what the man pages are made of.
//!
//! Options come from the definitions of the command line, prose from `texts/`. Nothing of it is read unless somebody asks.

mod help;
pub mod text;

use clap::{Arg, ArgAction, Command};

use text::{Block, Section};

/// The prose of each page, by its name.
#[rustfmt::skip]
const TEXTS: &[(&str, &str)] = &[
    ("corten",                 include_str!("texts/corten.txt")),
    ("corten-check",           include_str!("texts/check.txt")),
    ("corten-checkpoint",      include_str!("texts/checkpoint.txt")),
    ("corten-create",          include_str!("texts/create.txt")),
    ("corten-delete",          include_str!("texts/delete.txt")),
    ("corten-events",          include_str!("texts/events.txt")),
    ("corten-exec",            include_str!("texts/exec.txt")),
    ("corten-features",        include_str!("texts/features.txt")),
    ("corten-kill",            include_str!("texts/kill.txt")),
    ("corten-list",            include_str!("texts/list.txt")),
    ("corten-mounts",          include_str!("texts/mounts.txt")),
    ("corten-mounts-add",      include_str!("texts/mounts-add.txt")),
    ("corten-mounts-remove",   include_str!("texts/mounts-remove.txt")),
    ("corten-pause",           include_str!("texts/pause.txt")),
    ("corten-ps",              include_str!("texts/ps.txt")),
    ("corten-restore",         include_str!("texts/restore.txt")),
    ("corten-resume",          include_str!("texts/resume.txt")),
    ("corten-run",             include_str!("texts/run.txt")),
    ("corten-seccomp",         include_str!("texts/seccomp.txt")),
    ("corten-seccomp-dump",    include_str!("texts/seccomp-dump.txt")),
    ("corten-seccomp-explain", include_str!("texts/seccomp-explain.txt")),
    ("corten-spec",            include_str!("texts/spec.txt")),
    ("corten-start",           include_str!("texts/start.txt")),
    ("corten-state",           include_str!("texts/state.txt")),
    ("corten-update",          include_str!("texts/update.txt")),
];

/// How much is told, and how wide.
#[derive(Clone, Copy)]
pub struct Form {
    /// Everything, not only the synopsis and a line for each option.
    pub whole: bool,
    /// Columns of a line.
    pub width: usize,
}

/// The page of one command.
pub struct Page<'a> {
    /// Its name: `corten-mounts-add`.
    pub name: String,
    /// What the command is for, in half a sentence.
    pub about: String,
    /// Command lines.
    pub synopsis: Vec<&'static str>,
    /// Its commands by name, and what each is for.
    pub commands: Vec<(&'a str, String)>,
    /// Arguments without a dash.
    pub arguments: Vec<Item>,
    /// Arguments with one.
    pub options: Vec<Item>,
    /// Prose, in the order of man-pages(7).
    pub sections: Vec<Section>,
}

/// An option or argument.
pub struct Item {
    /// The spellings: `-b`, `--bundle`.
    pub spellings: Vec<String>,
    /// What stands for its value: `DIR`.
    pub value: Option<String>,
    /// What it does.
    pub help: String,
    /// What is there to say beyond that.
    pub details: Vec<Block>,
    /// The values that it takes, if they are few.
    pub values: Vec<(String, String)>,
    /// The value that it has otherwise.
    pub default: Option<String>,
}

/// Gives a command and all below it help of ours.
pub fn teach(mut command: Command, form: Form) -> Command {
    command.build();
    teach_below(&mut command, "corten", form);
    command
}

fn teach_below(command: &mut Command, name: &str, form: Form) {
    let text = Page::of(command, name).map(|page| help::lay_out(&page, form));
    for below in command.get_subcommands_mut() {
        let name = format!("{name}-{}", below.get_name());
        teach_below(below, &name, form);
    }
    if let Some(text) = text {
        *command = std::mem::take(command).override_help(text);
    }
}

/// Calls `visit` with the page of a command and those of all below it.
#[cfg(any(test, debug_assertions))]
pub fn pages(command: &Command, name: &str, visit: &mut impl FnMut(&Page<'_>, &Command)) {
    if let Some(page) = Page::of(command, name) {
        visit(&page, command);
    }
    for below in command.get_subcommands() {
        pages(below, &format!("{name}-{}", below.get_name()), visit);
    }
}

impl<'a> Page<'a> {
    /// The page of that name; clap's own command `help` has none.
    fn of(command: &'a Command, name: &str) -> Option<Page<'a>> {
        let (_, text) = TEXTS.iter().find(|(page, _)| *page == name)?;
        let mut sections = text::sections(text);
        let mut take = |heading: &str| {
            let place = sections.iter().position(|section| section.heading == heading);
            place.map(|place| sections.remove(place).blocks).unwrap_or_default()
        };
        let details = take("OPTIONS");
        let synopsis = take("SYNOPSIS").into_iter().flat_map(Block::into_lines).collect();
        let shown = |arg: &&Arg| !arg.is_hide_set();
        let items =
            |positional| command.get_arguments().filter(shown).filter(move |arg| arg.is_positional() == positional);
        Some(Page {
            name: name.to_owned(),
            about: about(command),
            synopsis,
            commands: command.get_subcommands().map(|below| (below.get_name(), about(below))).collect(),
            arguments: items(true).map(|arg| Item::of(arg, &details)).collect(),
            options: items(false).map(|arg| Item::of(arg, &details)).collect(),
            sections,
        })
    }
}

impl Item {
    fn of(arg: &Arg, details: &[Block]) -> Item {
        let short = arg.get_short().map(|letter| format!("-{letter}"));
        let long = arg.get_long().map(|word| format!("--{word}"));
        let mut spellings: Vec<String> = short.into_iter().chain(long).collect();
        let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
        let mut value = takes_value.then(|| match arg.get_value_names() {
            Some(names) => names.join(" "),
            None => arg.get_id().as_str().to_uppercase(),
        });
        if spellings.is_empty() {
            spellings.extend(value.take());
        }
        let name = spellings.last().cloned().unwrap_or_default();
        let help = help_of(arg);
        // One that only we work out is in the words of the help.
        let (help, told) = match help.split_once(" [default: ") {
            Some((help, default)) => (help.to_owned(), Some(default.trim_end_matches(']').to_owned())),
            None => (help, None),
        };
        let default = arg.get_default_values().first().filter(|_| takes_value);
        let possible = if takes_value { arg.get_possible_values() } else { Vec::new() };
        Item {
            help,
            details: text::entry(details, &name).map(<[Block]>::to_vec).unwrap_or_default(),
            values: possible.iter().map(|value| (value.get_name().to_owned(), plain(value.get_help()))).collect(),
            default: default.map(|value| value.to_string_lossy().into_owned()).or(told),
            spellings,
            value,
        }
    }
}

impl Item {
    /// What it does, and which values it takes.
    pub fn sentence(&self) -> String {
        let names: Vec<&str> = self.values.iter().map(|(name, _)| name.as_str()).collect();
        let values = if names.is_empty() { String::new() } else { format!(": {}", list(&names)) };
        format!("{}{values}", self.help)
    }
}

/// `a`, `a or b`, `a, b or c`.
fn list(words: &[&str]) -> String {
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.join(""),
    }
}

/// What clap has as the help of an option; of its own, our words.
fn help_of(arg: &Arg) -> String {
    match arg.get_id().as_str() {
        "help" => "Print help; -h prints a summary".to_owned(),
        _ => plain(arg.get_help()),
    }
}

/// What a command is for; clap's own, in our words.
pub fn about(command: &Command) -> String {
    match command.get_name() {
        "help" => "Print the help of a command".to_owned(),
        _ => plain(command.get_about()),
    }
}

fn plain(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}
