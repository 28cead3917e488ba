//! The direction between rooms: `main → commands → container → launch → plan → rooms → sys`. A room never imports
//! another room, and its files do not use each other in circles; `unsafe` is in `sys` alone; no file grows into two rooms.
//! And the guards and tests that `docs/security.md` names are there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Who may use whom. What stands in no list may be used by nobody but `main`.
const ALLOWED: &[(&str, &[&str])] = &[
    ("sys", &[]),
    ("error", &[]),
    ("passwd", &[]),
    ("time", &[]),
    ("argv", &[]),
    ("host", &["sys", "error"]),
    ("input", &["error"]),
    ("dbus", &["sys", "error"]),
    ("log", &["sys", "error", "time", "trace"]),
    ("trace", &["error"]),
    ("selfexe", &["sys", "error"]),
    ("namespaces", LEAVES),
    ("rootfs", LEAVES),
    ("process", LEAVES),
    ("cgroup", LEAVES),
    ("resctrl", LEAVES),
    ("seccomp", LEAVES),
    ("hooks", LEAVES),
    ("checkpoint", LEAVES),
    (
        "plan",
        &[
            "sys",
            "error",
            "log",
            "host",
            "input",
            "namespaces",
            "rootfs",
            "process",
            "cgroup",
            "resctrl",
            "seccomp",
            "hooks",
        ],
    ),
    (
        "launch",
        &[
            "sys",
            "error",
            "log",
            "trace",
            "host",
            "namespaces",
            "rootfs",
            "process",
            "cgroup",
            "seccomp",
            "hooks",
            "plan",
        ],
    ),
    (
        "container",
        &[
            "sys",
            "error",
            "log",
            "host",
            "input",
            "passwd",
            "time",
            "namespaces",
            "rootfs",
            "process",
            "cgroup",
            "resctrl",
            "seccomp",
            "hooks",
            "checkpoint",
            "selfexe",
            "plan",
            "launch",
        ],
    ),
    (
        "commands",
        &[
            "sys",
            "error",
            "log",
            "host",
            "input",
            "passwd",
            "argv",
            "cli",
            "selfexe",
            "namespaces",
            "rootfs",
            "process",
            "cgroup",
            "resctrl",
            "seccomp",
            "checkpoint",
            "plan",
            "container",
            "commands",
        ],
    ),
    ("manual", &[]),
    ("cli", &["argv", "commands", "error", "log", "manual", "sys"]),
    ("pages", &["cli", "error", "manual", "process"]),
];

/// What every room may use.
const LEAVES: &[&str] = &["sys", "error", "log", "host", "input", "dbus", "passwd"];

/// Generated tables may be long; nothing else may.
const LONGEST: usize = 700;

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            match entry.path() {
                path if path.is_dir() => walk(&path, found),
                path if path.extension().is_some_and(|end| end == "rs") => found.push(path),
                _ => {}
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    let relative = |path: &PathBuf| path.strip_prefix(&root).unwrap().to_owned();
    found.iter().map(|path| (relative(path), fs::read_to_string(path).unwrap())).collect()
}

/// The room that a file belongs to.
fn room(path: &Path) -> String {
    let first = path.iter().next().unwrap().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Rooms named after `crate::` in code (not in comments).
fn named(text: &str) -> BTreeSet<String> {
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| line.to_owned() + "\n").collect();
    let mut rooms = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let list = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap().split(',').map(str::trim).collect(),
            None => vec![rest],
        };
        let word = |text: &str| {
            text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect::<String>()
        };
        rooms.extend(list.into_iter().map(word).filter(|word| !word.is_empty()));
    }
    rooms
}

#[test]
fn rooms_are_used_in_one_direction_only() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let own = room(&path);
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == own) else {
            assert_eq!(own, "main", "{} belongs to no room in the table", path.display());
            continue;
        };
        let others = named(&text).into_iter().filter(|name| *name != own && !allowed.contains(&name.as_str()));
        wrong.extend(others.map(|name| format!("{} uses {name}", path.display())));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The compiler holds it, for each room that says so.
#[test]
fn unsafe_is_in_sys_alone() {
    let main = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/main.rs")).unwrap();
    let lines: Vec<_> = main.lines().collect();
    let rooms = |guarded: bool| {
        let pairs = lines.windows(2).filter(move |pair| (pair[0] == "#[forbid(unsafe_code)]") == guarded);
        pairs.filter_map(|pair| pair[1].strip_prefix("mod ")).collect::<Vec<_>>()
    };
    assert_eq!(rooms(false), ["sys;"]);
    assert_eq!(rooms(true).len() + 1, ALLOWED.iter().map(|(room, _)| *room).collect::<BTreeSet<_>>().len());
}

/// A fork copies one thread only, and the allocator has no lock.
#[test]
fn nothing_starts_a_thread() {
    let of_tests = |path: &Path| path.file_stem().is_some_and(|name| name.to_str().unwrap().contains("test"));
    let wrong: Vec<_> = sources()
        .into_iter()
        .filter(|(path, _)| !of_tests(path))
        .filter(|(_, text)| {
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            ["thread::spawn", "thread::scope", "thread::Builder"].iter().any(|start| code.contains(start))
        })
        .map(|(path, _)| path)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// dockerd looks for these words in what a runtime says, and takes them for a program that cannot be executed; so they are
/// an error's number alone.
#[test]
fn no_text_has_the_words_by_which_an_engine_knows_another_error() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        if path.file_stem().is_some_and(|name| name.to_str().unwrap().contains("test")) {
            continue;
        }
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let found = lines.filter(|line| ["is a directory", "permission denied"].iter().any(|word| line.contains(word)));
        wrong.extend(found.map(|line| format!("{}: {}", path.display(), line.trim())));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Words of the glossary's last column that mean other things as well, so that they are no fault by themselves.
const AMBIGUOUS: [&str; 8] = ["cover", "handle", "level", "look", "own", "reach", "share", "wire"];

/// Texts that have such a word for a reason: the word, and what the text begins with.
const EXCEPTIONS: &[(&str, &str)] = &[];

/// The words of older code that the glossary replaces.
fn replaced_words() -> Vec<String> {
    let glossary = read("docs/glossary.md");
    let rows = glossary.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| term"));
    let last = rows.filter_map(|row| row.trim_matches('|').split('|').nth(3));
    last.flat_map(|words| words.split(", ")).map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// The string literals of a source text that hold more than one word.
fn texts(source: &str) -> Vec<String> {
    let (mut found, mut rest) = (Vec::new(), source);
    while let Some(at) = rest.find(['"', '/', '\'']) {
        let here = &rest[at..];
        if here.starts_with("//") {
            rest = &here[here.find('\n').unwrap_or(here.len())..];
        } else if here.starts_with("'\"'") || here.starts_with("'\\") {
            rest = &here[3..];
        } else if let Some(literal) = here.strip_prefix('"') {
            let mut escaped = false;
            let end = literal.find(|letter| {
                let ends = letter == '"' && !escaped;
                escaped = letter == '\\' && !escaped;
                ends
            });
            let end = end.expect("every literal has an end");
            found.push(literal[..end].replace("\\\n", " "));
            rest = &literal[end + 1..];
        } else {
            rest = &here[1..];
        }
    }
    found.retain(|text| text.trim().contains(' '));
    found
}

#[test]
fn messages_and_help_have_the_words_of_the_glossary() {
    let replaced = replaced_words();
    let missing: Vec<_> = AMBIGUOUS.iter().filter(|word| !replaced.iter().any(|old| old == *word)).collect();
    assert!(missing.is_empty() && replaced.len() > 12, "the glossary has changed: {missing:?} {replaced:?}");
    let is_test = |path: &Path| path.to_str().unwrap().contains("test");
    let code = sources().into_iter().filter(|(path, _)| !is_test(path)).flat_map(|(path, text)| {
        let code = text.split("#[cfg(test)]").next().unwrap().to_owned();
        // Of commands, comments of options are their help.
        let help = path.starts_with("commands") || path.ends_with("cli.rs");
        let lines = code.lines().filter(|line| help && line.trim_start().starts_with("///"));
        let all: Vec<_> = texts(&code).into_iter().chain(lines.map(str::to_owned)).collect();
        all.into_iter().map(move |text| (path.clone(), text))
    });
    let manual = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/manual/texts")).unwrap().flatten();
    let manual = manual.flat_map(|entry| {
        let text = fs::read_to_string(entry.path()).unwrap();
        text.split("\n\n").map(|part| (entry.path(), part.to_owned())).collect::<Vec<_>>()
    });
    let mut wrong = Vec::new();
    for (path, text) in code.chain(manual) {
        let letters = |letter: char| if letter.is_alphanumeric() { letter.to_ascii_lowercase() } else { ' ' };
        let plain: String = text.chars().map(letters).collect();
        let plain = format!(" {} ", plain.split_whitespace().collect::<Vec<_>>().join(" "));
        let has = |word: &&String| plain.contains(&format!(" {word} ")) || plain.contains(&format!(" {word}s "));
        let clear = replaced.iter().filter(|word| !AMBIGUOUS.contains(&word.as_str()));
        let excepted = |word: &str| EXCEPTIONS.iter().any(|(known, begin)| *known == word && text.starts_with(begin));
        let found = clear.filter(has).filter(|word| !excepted(word));
        wrong.extend(found.map(|word| format!("{}: {word:?} in {text:?}", path.display())));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_file_has_grown_into_two_rooms() {
    let wrong: Vec<_> = sources()
        .into_iter()
        .filter(|(path, _)| !path.iter().any(|part| part == "tables"))
        .map(|(path, text)| (path, text.split("#[cfg(test)]").next().unwrap().lines().count()))
        .filter(|(_, lines)| *lines > LONGEST)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Rooms in which files still use each other in a circle. Whoever untangles one takes it off.
const CIRCULAR: &[&str] = &["commands", "container", "launch", "manual", "namespaces", "seccomp"];

/// Rooms with files of more than 500 lines, tests included. Whoever cuts them takes the room off.
const LONG: &[&str] = &[];

/// The files of a room, each with those before it that it may use, none of those behind.
const ORDER: &[(&str, &str)] = &[
    (
        "cgroup",
        "files mount location own controllers limits range devices::rules devices::emitter devices systemd::unit \
      systemd::properties systemd::annotations systemd::manager systemd handle handle::freeze handle::members \
      handle::memory handle::stats handle::remove owner apply request cgroupfs create delegation update check probe",
    ),
    (
        "rootfs",
        "request propagation options path filesystem copyup procfs guest idmap::maps idmap::userns idmap stack \
      overlay overlay_dir image_overlay nodes devices masks pivot preview mount::plan mount::open mount::attach \
      mount::look mount mount_fds plan opened look restore live_mounts",
    ),
    ("dbus", "byte_order signature value writer reader message gvariant bus"),
];

/// The modules of the crate, by the names that lead to them, and their code without comments and tests.
struct Modules(BTreeMap<Vec<String>, String>);

/// A path of names, as in `use`; the last may be `*`.
type Names = Vec<String>;

impl Modules {
    fn read(sources: impl IntoIterator<Item = (PathBuf, String)>) -> Modules {
        let of_tests = |path: &Path| path.file_stem().is_some_and(|name| name.to_str().unwrap().contains("test"));
        let module = |(path, text): (PathBuf, String)| {
            let mut names: Names =
                path.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            names.pop_if(|last| last == "mod" || last == "main");
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
            (names, lines.map(|line| without_scope(line) + "\n").collect())
        };
        Modules(sources.into_iter().filter(|(path, _)| !of_tests(path)).map(module).collect())
    }

    /// The file that a path leads to from a module; of a name that is handed on by `pub use`, the one that it is from.
    fn home(&self, from: &[String], path: &[String], patience: u8) -> Option<Names> {
        let (mut here, mut rest) = (from.to_vec(), path);
        match path.first()?.as_str() {
            "crate" => {
                here.clear();
                rest = &path[1..];
            }
            "self" => rest = &path[1..],
            _ => {}
        }
        while let Some((name, behind)) = rest.split_first() {
            if name == "super" {
                here.pop();
            } else {
                here.push(name.clone());
                if !self.0.contains_key(&here) {
                    here.pop();
                    break;
                }
            }
            rest = behind;
        }
        // What begins with no module is of another crate, or of this file.
        if here == from {
            return None;
        }
        let handed_on = rest.first().and_then(|name| {
            let (others, _) = statements(self.0.get(&here)?);
            others.into_iter().find(|path| path.last() == Some(name))
        });
        match handed_on {
            Some(path) if patience > 0 => self.home(&here, &path, patience - 1).or(Some(here)),
            _ => Some(here),
        }
    }

    /// Which files of a room use which others of it.
    fn uses(&self, room: &str) -> BTreeMap<Names, BTreeSet<Names>> {
        let inside = |names: &Names| names.first().is_some_and(|first| first == room);
        let mut uses = BTreeMap::new();
        for (from, code) in self.0.iter().filter(|(names, _)| inside(names)) {
            let (handed_on, own) = statements(code);
            let words: BTreeSet<&str> = own.split(|letter: char| !letter.is_alphanumeric() && letter != '_').collect();
            let used = handed_on.into_iter().filter(|path| words.contains(path.last().unwrap().as_str()));
            let paths = paths(&own).into_iter().chain(used);
            let homes = paths.filter_map(|path| self.home(from, &path, 4));
            uses.insert(from.clone(), homes.filter(|home| home != from && inside(home)).collect());
        }
        uses
    }

    /// Files of a room that use each other in a circle.
    fn circle(&self, room: &str) -> Option<String> {
        let uses = self.uses(room);
        let reaches = |from: &Names, to: &Names| {
            let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
            while let Some(file) = next.pop() {
                next.extend(uses[file].iter().filter(|used| seen.insert(*used)));
            }
            seen.contains(to)
        };
        let arrows = uses.iter().flat_map(|(from, used)| used.iter().map(move |to| (from, to)));
        let of_circle: Vec<String> = arrows
            .filter(|(from, to)| reaches(to, from))
            .map(|(from, to)| format!("{} → {}", from.join("::"), to.join("::")))
            .collect();
        (!of_circle.is_empty()).then(|| of_circle.join(", "))
    }
}

/// A line in which `pub(in …)`, which uses nothing, is `pub`.
fn without_scope(line: &str) -> String {
    match line.split_once("pub(in ") {
        Some((before, rest)) => format!("{before}pub{}", rest.split_once(')').unwrap().1),
        None => line.to_owned(),
    }
}

/// The paths that a file hands on by `pub use`, and the rest of its code.
fn statements(code: &str) -> (Vec<Names>, String) {
    let (mut handed_on, mut rest, mut statement) = (Vec::new(), String::new(), String::new());
    for line in code.split_inclusive('\n') {
        let begins = line.starts_with("pub use ") || line.starts_with("pub(") && line.contains(") use ");
        if !begins && statement.is_empty() {
            rest += line;
            continue;
        }
        statement += line;
        if line.trim_end().ends_with(';') {
            handed_on.extend(paths(&std::mem::take(&mut statement)));
        }
    }
    (handed_on, rest)
}

/// Every path of at least two names in some code, groups in braces written out.
fn paths(code: &str) -> Vec<Names> {
    let code = code.replace("::", ARROW);
    let mut words = Vec::new();
    let mut word = String::new();
    for letter in code.chars().chain([' ']) {
        if letter.is_alphanumeric() || letter == '_' {
            word.push(letter);
            continue;
        }
        words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
        words.extend((!letter.is_whitespace()).then(|| letter.to_string()));
    }
    let mut found = Vec::new();
    let mut left = &words[..];
    while !left.is_empty() {
        left = path(left, &[], &mut found);
    }
    found.retain(|path| path.len() > 1);
    found
}

/// Stands for `::`, to be told from the colon before a type.
const ARROW: &str = "→";

/// Reads one path, or one other word; what is behind it.
fn path<'a>(words: &'a [String], before: &[String], found: &mut Vec<Names>) -> &'a [String] {
    let is_name = |word: &String| word.starts_with(|letter: char| letter.is_alphabetic() || letter == '_');
    let (mut names, mut left) = (before.to_vec(), words);
    loop {
        match left {
            [star, rest @ ..] if star == "*" && !names.is_empty() => {
                names.push("*".to_owned());
                left = rest;
                break;
            }
            [brace, rest @ ..] if brace == "{" && !names.is_empty() => {
                left = rest;
                while left.first().is_some_and(|word| word != "}") {
                    left = path(left, &names, found);
                }
                return left.get(1..).unwrap_or_default();
            }
            [name, colon, rest @ ..] if is_name(name) && colon == ARROW => {
                names.push(name.clone());
                left = rest;
            }
            [name, rest @ ..] if is_name(name) => {
                // `{self, …}` is the module before it.
                names.extend((name != "self" || before.is_empty()).then(|| name.clone()));
                left = rest;
                break;
            }
            _ => {
                found.push(names);
                return left.get(1..).unwrap_or_default();
            }
        }
    }
    found.push(names);
    left
}

/// Rooms that are directories.
fn directories() -> BTreeSet<String> {
    let inside = |path: &PathBuf| path.iter().count() > 1;
    sources().iter().filter(|(path, _)| inside(path)).map(|(path, _)| room(path)).collect()
}

#[test]
fn no_files_of_a_room_use_each_other_in_a_circle() {
    let modules = Modules::read(sources());
    let circles: BTreeMap<String, String> =
        directories().into_iter().filter_map(|room| modules.circle(&room).map(|circle| (room, circle))).collect();
    let new: Vec<_> = circles.iter().filter(|(room, _)| !CIRCULAR.contains(&room.as_str())).collect();
    assert!(new.is_empty(), "{new:#?}");
    let gone: Vec<_> = CIRCULAR.iter().filter(|room| !circles.contains_key(**room)).collect();
    assert!(gone.is_empty(), "these have no circle any more, and come off the list: {gone:?}");
}

#[test]
fn the_files_of_a_room_with_an_order_use_those_before_them_only() {
    let modules = Modules::read(sources());
    for (room, order) in ORDER {
        let order: Vec<&str> = order.split_whitespace().collect();
        let place = |file: &Names| {
            // The room itself hands names on and uses all.
            let name = file[1..].join("::");
            let place = order.iter().position(|known| *known == name);
            place.or(name.is_empty().then_some(order.len())).unwrap_or_else(|| panic!("{room}: {name} has no place"))
        };
        for (from, used) in modules.uses(room) {
            for to in used {
                assert!(place(&to) < place(&from), "{} uses {}", from.join("::"), to.join("::"));
            }
        }
    }
}

#[test]
fn circles_are_found_however_they_are_written() {
    let circle = |files: &[(&str, &str)]| {
        let sources = files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned()));
        Modules::read(sources).circle("r")
    };
    let with = |a: &str, b: &str| {
        circle(&[("r/mod.rs", "mod a;\nmod b;\npub use a::{A, Other};\n"), ("r/a.rs", a), ("r/b.rs", b)])
    };
    let both = Some("r::a → r::b, r::b → r::a".to_owned());
    assert_eq!(with("use super::b;\n", "use crate::r::{x::Y, a::A};\n"), both);
    assert_eq!(with("fn f() { super::b::g() }\n", "use super::{\n    A,\n    c,\n};\n"), both);
    assert_eq!(with("use super::b::{self, B};\n", "fn f() -> crate::r::A { }\n"), both);
    assert_eq!(with("use super::b::*;\n", "use super::a;\n"), both);
    assert_eq!(with("use super::b;\n", "#[cfg(test)]\nmod tests {\n    use super::super::a::A;\n}\n"), None);
    assert_eq!(with("use super::b;\n", "// use super::a;\nuse std::a::A;\nuse crate::q::a;\n"), None);
    let within = [("r/mod.rs", "mod a;\nuse a::f;\nstruct S;\n"), ("r/a.rs", "use super::S;\n")];
    assert_eq!(circle(&within).as_deref(), Some("r → r::a, r::a → r"));
    let handed_on = [("r/mod.rs", "mod a;\npub use a::f;\nstruct S;\n"), ("r/a.rs", "use super::S;\n")];
    assert_eq!(circle(&handed_on), None);
    let used = [("r/mod.rs", "mod a;\npub use a::f;\nstruct S(f);\n"), ("r/a.rs", "use super::S;\n")];
    assert!(circle(&used).is_some());
}

#[test]
fn no_file_is_longer_than_500_lines() {
    let long = sources()
        .into_iter()
        .filter(|(path, text)| !path.iter().any(|part| part == "tables") && text.lines().count() > 500);
    let long: BTreeMap<String, PathBuf> = long.map(|(path, _)| (room(&path), path)).collect();
    let known: BTreeSet<&str> = LONG.iter().copied().collect();
    assert_eq!(long.keys().map(String::as_str).collect::<BTreeSet<_>>(), known, "{long:?}");
}

fn read(path: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands between backticks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Why this word, if it names a file of the tree or a test, is wrong: files by their path, tests by `FILE::BEGINNING`, or
/// `MODULE::BEGINNING` for those of `tests/security`.
fn fault(word: &str) -> Option<String> {
    const PLACES: [&str; 6] = ["src/", "tests/", "hack/", "integration/", "docs/", ".cargo/"];
    let (file, test) = match word.split_once("::") {
        Some((module, test)) if !module.contains('/') => (format!("tests/security/{module}.rs"), Some(test)),
        Some((file, test)) => (file.to_owned(), Some(test)),
        None => (word.to_owned(), None),
    };
    if !PLACES.iter().any(|place| file.starts_with(place)) {
        return None;
    }
    if !Path::new(env!("CARGO_MANIFEST_DIR")).join(&file).exists() {
        return Some(format!("{word}: there is no {file}"));
    }
    let begins = |test| format!("#[test]\nfn {test}");
    let found = test.is_none_or(|test| read(&file).replace("\n    ", "\n").contains(&begins(test)));
    (!found).then(|| format!("{word}: no test of {file} begins so"))
}

#[test]
fn files_and_tests_that_are_named_in_the_documents_of_security_exist() {
    let text = read("SECURITY.md") + &read("docs/security.md");
    let wrong: Vec<String> = code(&text).filter_map(fault).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(code(&text).filter(|word| word.contains("::")).count() > 50, "the table is gone");
}

#[test]
fn every_advisory_has_a_guard_and_a_test_or_the_reason_why_not() {
    let text = read("docs/security.md");
    let table = text.split_once("\n## Advisories\n").expect("a table of advisories").1;
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    let mut ids = BTreeSet::new();
    for row in &rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [reports, what, guard, test] = cells[..] else { panic!("not four cells: {row}") };
        assert!(!reports.is_empty() && !what.is_empty(), "an empty cell: {row}");
        let named = code(guard).any(|word| word.contains('/'));
        assert!(named || guard.starts_with("none: ") || guard.starts_with("does not apply: "), "no guard: {row}");
        assert!(code(test).any(|word| word.contains("::")) || test.starts_with("not to be tested: "), "no test: {row}");
        for id in reports.split([' ', ',', ';']).filter(|word| word.starts_with("CVE-") || word.starts_with("GHSA-")) {
            assert!(ids.insert(id.to_owned()), "{id} is in two rows");
        }
    }
    // And what a test is named after is told of.
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/security")).unwrap().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap();
        for name in text.split("\nfn ").skip(1) {
            let name = name.split('(').next().unwrap();
            for rest in format!("_{name}").split("_cve_").skip(1) {
                let mut numbers = rest.split('_');
                let id = format!("CVE-{}-{}", numbers.next().unwrap(), numbers.next().unwrap());
                assert!(ids.contains(&id), "{name}: {id} is not in docs/security.md");
            }
        }
    }
}
