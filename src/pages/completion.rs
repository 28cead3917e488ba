//! Completions of the shells: options that are not hidden, their values, ids of the containers in the root in use,
//! signals. What a position takes is told by the definitions of the command line; ids are asked of `corten list`.

use clap::{Arg, ArgAction, Command};

use crate::manual::about;

const BASH: &str = include_str!("corten.bash");
const ZSH: &str = include_str!("corten.zsh");
const FISH: &str = include_str!("corten.fish");

/// A command with what may follow it.
pub(super) struct Spoken {
    /// Its words behind `corten`; of corten itself none.
    path: String,
    options: Vec<Option_>,
    /// Its own commands: name, and what each is for.
    commands: Vec<(String, String)>,
    arguments: Vec<Positional>,
}

struct Option_ {
    spellings: Vec<String>,
    /// `None` for a flag.
    value: Option<Kind>,
    help: String,
}

struct Positional {
    name: String,
    kind: Kind,
    /// Whether there may be several, and whether what follows is no longer ours.
    many: bool,
    foreign: bool,
}

/// What a value is.
#[derive(Clone, PartialEq)]
enum Kind {
    Id,
    Signal,
    Session,
    Capability,
    Directory,
    File,
    Words(Vec<String>),
    Free,
}

impl Kind {
    /// The word that the scripts have for it.
    fn word(&self) -> String {
        match self {
            Kind::Id => "id".into(),
            Kind::Signal => "signal".into(),
            Kind::Session => "session".into(),
            Kind::Capability => "capability".into(),
            Kind::Directory => "directory".into(),
            Kind::File => "file".into(),
            Kind::Words(words) => format!("words {}", words.join(" ")),
            Kind::Free => "free".into(),
        }
    }
}

/// All commands, corten itself first.
pub(super) fn commands(cli: &Command) -> Vec<Spoken> {
    let mut all = Vec::new();
    collect(cli, "", &mut all);
    all
}

fn collect(command: &Command, path: &str, all: &mut Vec<Spoken>) {
    let shown = |arg: &&Arg| !arg.is_hide_set();
    let below: Vec<&Command> = command.get_subcommands().filter(|below| !below.is_hide_set()).collect();
    all.push(Spoken {
        path: path.to_owned(),
        options: command.get_arguments().filter(shown).filter(|arg| !arg.is_positional()).map(option).collect(),
        commands: below.iter().map(|below| (below.get_name().to_owned(), about(below))).collect(),
        arguments: command.get_positionals().map(|arg| positional(path, arg)).collect(),
    });
    for command in below.into_iter().filter(|below| below.get_name() != "help") {
        collect(command, format!("{path} {}", command.get_name()).trim_start(), all);
    }
}

fn option(arg: &Arg) -> Option_ {
    let short = arg.get_short().map(|letter| format!("-{letter}"));
    let long = arg.get_long().map(|word| format!("--{word}"));
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    Option_ {
        spellings: short.into_iter().chain(long).collect(),
        value: matches!(arg.get_action(), ArgAction::Set | ArgAction::Append).then(|| kind("", arg)),
        help: help.split(" [default: ").next().unwrap_or_default().to_owned(),
    }
}

fn positional(path: &str, arg: &Arg) -> Positional {
    Positional {
        name: value_name(arg),
        kind: kind(path, arg),
        many: arg.get_num_args().is_some_and(|count| count.max_values() > 1),
        foreign: arg.is_trailing_var_arg_set(),
    }
}

fn value_name(arg: &Arg) -> String {
    arg.get_value_names().map_or_else(|| arg.get_id().as_str().to_uppercase(), |names| names.join(" "))
}

fn kind(path: &str, arg: &Arg) -> Kind {
    let possible = arg.get_possible_values();
    match (value_name(arg).as_str(), arg.get_id().as_str()) {
        _ if !possible.is_empty() => Kind::Words(possible.iter().map(|value| value.get_name().to_owned()).collect()),
        // A new one.
        ("ID", _) if ["create", "run", "check"].contains(&path) => Kind::Free,
        ("ID", _) => Kind::Id,
        ("SIGNAL", _) => Kind::Signal,
        ("SESSION", _) => Kind::Session,
        ("CAP", _) => Kind::Capability,
        ("DIR", "cwd") => Kind::Free,
        ("DIR", _) => Kind::Directory,
        ("FILE" | "SOCKET", _) | ("PROFILE", "profile") => Kind::File,
        _ => Kind::Free,
    }
}

/// The names of signals without `SIG`, in their order; real-time ones by their first and last.
fn signals() -> Vec<String> {
    use nix::sys::signal::Signal;
    let names = Signal::iterator().map(|signal| signal.as_str().trim_start_matches("SIG").to_owned());
    names.chain(["RTMIN".to_owned(), "RTMAX".to_owned()]).collect()
}

fn capabilities() -> Vec<&'static str> {
    crate::process::capability_names().collect()
}

/// For bash: a function that walks the words, and tables for it.
pub(super) fn bash(commands: &[Spoken]) -> String {
    let (mut descents, mut values, mut options, mut positions) =
        (String::new(), String::new(), String::new(), String::new());
    for Spoken { path, options: own, commands, arguments } in commands {
        let spellings: Vec<&str> = own.iter().flat_map(|option| option.spellings.iter().map(String::as_str)).collect();
        options.push_str(&format!("    '{path}') words='{}' ;;\n", spellings.join(" ")));
        for option in own {
            let Some(kind) = &option.value else { continue };
            let patterns: Vec<String> =
                option.spellings.iter().map(|spelling| format!("'{path} {spelling}'")).collect();
            values.push_str(&format!("    {}) kind='{}' ;;\n", patterns.join(" | "), kind.word()));
        }
        for (name, _) in commands.iter().filter(|(name, _)| name != "help") {
            let below = format!("{path} {name}");
            descents.push_str(&format!("    '{path} {name}') path='{}' ;;\n", below.trim_start()));
        }
        if !commands.is_empty() {
            let names: Vec<&str> = commands.iter().map(|(name, _)| name.as_str()).collect();
            positions.push_str(&format!("    '{path} '[0-9]*) kind='words {}' ;;\n", names.join(" ")));
        }
        for (index, argument) in arguments.iter().enumerate() {
            let place = if argument.many { "[0-9]*".to_owned() } else { format!("'{index}'") };
            let kind = if argument.foreign { "foreign".to_owned() } else { argument.kind.word() };
            positions.push_str(&format!("    '{path} '{place}) kind='{kind}' ;;\n"));
        }
    }
    BASH.replace("    @descents\n", &descents)
        .replace("    @values\n", &values)
        .replace("    @options\n", &options)
        .replace("    @positions\n", &positions)
        .replace("@signals", &signals().join(" "))
        .replace("@capabilities", &capabilities().join(" "))
}

/// For zsh: `_arguments` for each command.
pub(super) fn zsh(commands: &[Spoken]) -> String {
    let mut cases = String::new();
    for command in commands.iter().filter(|command| !command.path.is_empty()) {
        cases.push_str(&format!("    '{}')\n        _arguments -s -S", command.path));
        zsh_arguments(&mut cases, command);
        cases.push_str(" && ret=0\n        ;;\n");
    }
    let mut globals = String::new();
    zsh_arguments(&mut globals, &commands[0]);
    let list = |path: &str| {
        let found = commands.iter().find(|command| command.path == path).expect("a command of that name");
        let entry = |(name, about): &(String, String)| format!("        {}\n", quoted(&format!("{name}:{about}")));
        found.commands.iter().map(entry).collect::<String>()
    };
    let nested = commands.iter().filter(|command| !command.path.is_empty() && !command.commands.is_empty());
    let nested: String = nested
        .map(|command| {
            format!("    {0})\n        below=(\n{1}        )\n        ;;\n", command.path, list(&command.path))
        })
        .collect();
    ZSH.replace(" @globals", &globals)
        .replace("        @commands\n", &list(""))
        .replace("    @nested\n", &nested)
        .replace("    @cases\n", &cases)
        .replace("@signals", &signals().join(" "))
        .replace("@capabilities", &capabilities().join(" "))
}

fn zsh_arguments(out: &mut String, command: &Spoken) {
    let action = |kind: &Kind| match kind {
        Kind::Directory => "_files -/".to_owned(),
        Kind::File => "_files".to_owned(),
        Kind::Words(words) => format!("({})", words.join(" ")),
        Kind::Free => " ".to_owned(),
        kind => format!("_corten_{}", kind.word()),
    };
    for option in &command.options {
        let help = option.help.replace('[', "\\[").replace(']', "\\]").replace(':', "\\:");
        let value = option.value.as_ref().map(|kind| format!(":value:{}", action(kind))).unwrap_or_default();
        for spelling in &option.spellings {
            let equals = if value.is_empty() || !spelling.starts_with("--") { "" } else { "=" };
            out.push_str(&format!(" \\\n            {}", quoted(&format!("*{spelling}{equals}[{help}]{value}"))));
        }
    }
    for argument in &command.arguments {
        let many = if argument.many { "*" } else { "" };
        let action = if argument.foreign { "_normal".to_owned() } else { action(&argument.kind) };
        let many = if argument.foreign { "*:" } else { many };
        out.push_str(&format!(" \\\n            {}", quoted(&format!("{many}:{}:{action}", argument.name))));
    }
}

/// For fish: a line for each option and argument.
pub(super) fn fish(commands: &[Spoken]) -> String {
    let (mut valued, mut lines) = (String::new(), String::new());
    for command in commands {
        let path = &command.path;
        for option in &command.options {
            let here = quoted(&format!("__corten_in {}", quoted_inside(path)));
            lines.push_str(&format!("complete -c corten -n {here}"));
            for spelling in &option.spellings {
                let (flag, word) = match spelling.strip_prefix("--") {
                    Some(word) => ("-l", word),
                    None => ("-s", &spelling[1..]),
                };
                lines.push_str(&format!(" {flag} {word}"));
            }
            if let Some(kind) = &option.value {
                lines.push_str(&format!(" -x -a {}", quoted(&fish_values(kind))));
                let spellings = option.spellings.iter().map(|spelling| quoted(&format!("{path} {spelling}")));
                valued.push_str(&format!(
                    "        case {}\n            set wants yes\n",
                    spellings.collect::<Vec<_>>().join(" ")
                ));
            }
            lines.push_str(&format!(" -d {}\n", quoted(&option.help)));
        }
        for (name, about) in &command.commands {
            let here = quoted(&format!("__corten_at {} 0", quoted_inside(path)));
            lines.push_str(&format!("complete -c corten -n {here} -a {name} -d {}\n", quoted(about)));
        }
        for (index, argument) in command.arguments.iter().enumerate().filter(|(_, argument)| !argument.foreign) {
            let place = if argument.many { String::new() } else { format!(" {index}") };
            let here = quoted(&format!("__corten_at {}{place}", quoted_inside(path)));
            let values = fish_values(&argument.kind);
            if !values.is_empty() {
                lines.push_str(&format!("complete -c corten -n {here} -a {}\n", quoted(&values)));
            }
        }
    }
    let paths = |nested: bool| {
        let paths =
            commands.iter().filter(move |command| command.path.contains(' ') == nested && !command.path.is_empty());
        paths
            .map(|command| quoted(&format!("{}{}", if nested { "" } else { " " }, command.path)))
            .collect::<Vec<_>>()
            .join(" ")
    };
    FISH.replace("        @valued\n", &valued)
        .replace("@commands", &paths(false))
        .replace("@nested", &paths(true))
        .replace("@lines\n", &lines)
        .replace("@signals", &signals().join(" "))
        .replace("@capabilities", &capabilities().join(" "))
}

fn fish_values(kind: &Kind) -> String {
    match kind {
        Kind::Directory => "(__fish_complete_directories (commandline -ct))".to_owned(),
        Kind::File => "(__fish_complete_path (commandline -ct))".to_owned(),
        Kind::Words(words) => words.join(" "),
        Kind::Free => String::new(),
        kind => format!("(__corten_{})", kind.word()),
    }
}

/// In single quotes, for any of the shells.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// In double quotes, within single ones.
fn quoted_inside(text: &str) -> String {
    format!("\"{text}\"")
}
