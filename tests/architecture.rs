//! The direction between rooms: `main → commands → container → launch → plan → rooms → sys`. A room never imports
//! another room; `unsafe` is in `sys` alone; no file grows into two rooms. And the guards and tests that `docs/security.md`
//! names are there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Who may use whom. What stands in no list may be used by nobody but `main`.
const ALLOWED: &[(&str, &[&str])] = &[
    ("sys", &[]),
    ("error", &[]),
    ("time", &[]),
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
            "time",
            "namespaces",
            "rootfs",
            "process",
            "cgroup",
            "resctrl",
            "seccomp",
            "hooks",
            "checkpoint",
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
    ("cli", &["commands", "error", "log", "manual", "sys"]),
    ("pages", &["cli", "error", "manual", "process"]),
];

/// What every room may use.
const LEAVES: &[&str] = &["sys", "error", "log", "host", "input", "dbus"];

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
        .filter(|(path, _)| !of_tests(path) && !path.ends_with("cgroup/native.rs"))
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
