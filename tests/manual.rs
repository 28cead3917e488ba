//! What the runtime says of itself: `--help`, the man pages and completions of a package, `--version`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::harness::{Bundle, Cmd, Sandbox, Terminal, known_difference, peers_lack_it, runtime, skip};

/// The help of a command, on so many columns.
fn help(sandbox: &Arc<Sandbox>, command: &[&str], columns: &str) -> String {
    Cmd::bare(sandbox, [command, &["--help"]].concat()).env("COLUMNS", columns).run().ok().stdout()
}

/// The names that a help has under "Commands:".
fn names(help: &str) -> Vec<String> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let entries = list.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = entries.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// All commands as words, corten itself first.
fn commands(sandbox: &Arc<Sandbox>) -> Vec<Vec<String>> {
    let mut all: Vec<Vec<String>> = vec![Vec::new()];
    let mut next = 0;
    while let Some(command) = all.get(next).cloned() {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let below = names(&help(sandbox, &words, "80"));
        all.extend(below.into_iter().map(|name| [command.clone(), vec![name]].concat()));
        next += 1;
    }
    all
}

/// What a package has, written by the binary under test; `None`, said, where it is one that cannot.
fn pages(sandbox: &Arc<Sandbox>) -> Option<PathBuf> {
    let place = sandbox.dir().join("pages");
    let done = Cmd::bare(sandbox, ["pages", place.to_str().expect("a plain path")]).run();
    if done.stderr().contains("unrecognized subcommand") {
        skip("a release binary writes no pages");
        return None;
    }
    done.prints("");
    assert_eq!(done.stderr(), "");
    Some(place)
}

/// Whether a program is there; says where it is not.
fn has(program: &str) -> bool {
    let found = ["/usr/local/bin", "/usr/bin", "/bin"].iter().any(|dir| Path::new(dir).join(program).exists());
    if !found {
        skip(&format!("{program} is missing"));
    }
    found
}

/// What bash prints, which has nothing to complain of.
fn bash(sandbox: &Arc<Sandbox>, args: &[&str], cwd: &Path) -> String {
    let options = ["--norc", "-ec"];
    let done = Cmd::bare(sandbox, [&options, args].concat()).program("bash").cwd(cwd).run();
    assert_eq!(done.ok().stderr(), "", "{args:?}");
    done.stdout()
}

#[test]
fn help_fits_the_columns_and_has_all_sections() {
    if peers_lack_it() {
        return;
    }
    let sandbox = Sandbox::of_this_test();
    let all = commands(&sandbox);
    assert!(all.len() >= 23, "{all:?}");
    for command in &all {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        for columns in [80, 60, 100] {
            let text = help(&sandbox, &words, &columns.to_string());
            // Examples are to be copied and stay as they are.
            let wide = text.lines().filter(|line| line.chars().count() > columns);
            let wide: Vec<&str> = wide.filter(|line| columns >= 80 || !line.starts_with("    ")).collect();
            assert_eq!(wide, Vec::<&str>::new(), "{words:?} on {columns} columns");
        }
        let text = help(&sandbox, &words, "80");
        let titles: Vec<&str> = text.lines().filter(|line| line.ends_with(':') && !line.starts_with(' ')).collect();
        let expected = ["Options:", "Exit status:", "Environment:", "Files:", "Examples:", "See also:"];
        assert!(titles.ends_with(&expected), "{words:?}: {titles:?}");
        assert!(text.lines().nth(2).is_some_and(|line| line.starts_with("Usage: corten ")), "{words:?}");
        assert!(!text.contains('`') && !text.contains("  \n"), "marks or blanks are left: {text}");
        let rest = text.replace("/run/containerd/runc/", "");
        assert!(!rest.contains("runc"), "{words:?} speaks of another runtime: {text}");
    }
}

#[test]
fn help_is_as_wide_as_the_terminal() {
    if peers_lack_it() {
        return;
    }
    let sandbox = Sandbox::of_this_test();
    let mut terminal = Terminal::new();
    let args = ["exec", "--help"];
    Cmd::bare(&sandbox, args).env("COLUMNS", "40").on_terminal(terminal.replica()).spawn().wait().ok();
    terminal.until("See also:");
    let widest = terminal.seen().lines().map(|line| line.trim_end().chars().count()).max();
    assert!(widest.is_some_and(|columns| (90..=100).contains(&columns)), "{widest:?}: {}", terminal.seen());
}

#[test]
fn a_summary_and_the_help_of_a_command_are_asked_for_in_several_ways() {
    if peers_lack_it() {
        return;
    }
    let sandbox = Sandbox::of_this_test();
    let whole = help(&sandbox, &["create"], "80");
    let run = |args: &[&str]| Cmd::bare(&sandbox, args).env("COLUMNS", "80").run();
    assert_eq!(run(&["help", "create"]).ok().stdout(), whole);
    assert_eq!(run(&["--root", "/list", "create", "--help"]).ok().stdout(), whole);
    assert_eq!(run(&["create", "--help", "--bundle", "x"]).ok().stdout(), whole);
    let summary = run(&["create", "-h"]);
    summary
        .ok()
        .shows("--bundle DIR")
        .hides("Exit status")
        .hides("--detach")
        .shows("`create --help`".trim_matches('`'));
    assert_eq!(run(&["mounts", "add", "-h"]).ok().stdout().lines().next(), Some("Add mounts to a running container."));
    for args in [[].as_slice(), &["mounts"]] {
        let outcome = run(args);
        outcome.code(1);
        assert!(outcome.stdout().is_empty() && outcome.stderr().contains("Commands:"), "{}", outcome.stderr());
    }
    // What stands behind a program is the program's.
    assert!(!run(&["exec", "nosuch", "ls", "--help"]).fails().stderr().contains("Usage:"));
}

#[test]
fn each_command_has_a_man_page_with_the_usual_sections() {
    if peers_lack_it() {
        return;
    }
    let sandbox = Sandbox::of_this_test();
    let Some(place) = pages(&sandbox) else { return };
    let name = |words: &Vec<String>| [&["corten".to_owned()], &words[..]].concat().join("-") + ".8";
    let expected: BTreeSet<String> = commands(&sandbox).iter().map(name).collect();
    let found = fs::read_dir(place.join("man")).expect("man pages").flatten();
    let found: BTreeSet<String> = found.map(|entry| entry.file_name().into_string().expect("a plain name")).collect();
    assert_eq!(found, expected);
    for name in &found {
        let text = fs::read_to_string(place.join("man").join(name)).expect("a man page");
        let sections: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(".SH ")).collect();
        let middle = ["COMMANDS", "ARGUMENTS"];
        let common: Vec<&str> = sections.iter().copied().filter(|section| !middle.contains(section)).collect();
        let expected = [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "OPTIONS",
            "EXIT STATUS",
            "ENVIRONMENT",
            "FILES",
            "EXAMPLES",
            "SEE ALSO",
        ];
        assert_eq!(common, expected, "{name}");
        assert!(
            text.starts_with(&format!(".TH {} 8 ", name.trim_end_matches(".8").to_uppercase().replace('-', "\\-")))
        );
        // Each page that another one names is there.
        for rest in text.split("\\fBcorten").skip(1) {
            if let Some((page, _)) = rest.split_once("\\fR(8)").filter(|(page, _)| !page.contains(['\n', ' '])) {
                let page = format!("corten{}.8", page.replace("\\-", "-"));
                assert!(found.contains(&page), "{name} names {page}");
            }
        }
    }
    if has("groff") {
        let formatted =
            bash(&sandbox, &["for page in *.8; do groff -man -ww -z -Tutf8 $page 2>&1; done"], &place.join("man"));
        assert_eq!(formatted, "", "the formatter complains");
    }
}

/// Completes the last of these words in bash.
fn complete(container: &Bundle, place: &Path, words: &[&str]) -> Vec<String> {
    let script = r#"
        . ./corten.bash
        [[ $(complete -p corten) == 'complete -F _corten corten' ]] || exit 3
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _corten || true
        [ ${#COMPREPLY[@]} = 0 ] || printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let program = runtime().to_str().expect("a plain path");
    let found = bash(container.sandbox(), &[&[script, "bash", program], words].concat(), place);
    found.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_ids_signals_and_options_that_are_not_hidden() {
    if peers_lack_it() {
        return;
    }
    let container = Bundle::new().args(["sleep", "60"]);
    let Some(place) = pages(container.sandbox()) else { return };
    container.create().ok();
    let root = container.sandbox().root();
    let root = root.to_str().expect("a plain path");
    let id = [container.name().to_owned()];
    for command in
        ["delete", "events", "exec", "kill", "pause", "ps", "resume", "start", "state", "update", "mounts add"]
    {
        let words = [&["--root", root], &command.split(' ').collect::<Vec<_>>()[..], &[""]].concat();
        assert_eq!(complete(&container, &place, &words), id, "{words:?}");
    }
    assert_eq!(complete(&container, &place, &["--root", "=", root, "kill", ""]), id);
    assert_eq!(complete(&container, &place, &["--root", root, "exec", "-e", "A", "=", "B", "--tty", ""]), id);
    assert_eq!(complete(&container, &place, &["--root", root, "delete", &id[0], ""]), id);
    // Another root has none, a new container no id that is there.
    let elsewhere = container.host_dir("elsewhere");
    assert_eq!(complete(&container, &place, &["--root", elsewhere.to_str().expect("plain"), "kill", ""]), [""; 0]);
    assert_eq!(complete(&container, &place, &["--root", root, "create", ""]), [""; 0]);
    assert_eq!(complete(&container, &place, &["kill", "x", "TE"]), ["TERM"]);
    assert_eq!(complete(&container, &place, &["kill", "--all", "x", "SIGK"]), ["SIGKILL"]);
    assert_eq!(
        complete(&container, &place, &["kill", "x", ""]).len(),
        33,
        "31 signals, and the ends of the real-time ones"
    );
    assert_eq!(complete(&container, &place, &["list", "--format", ""]), ["table", "json"]);
    assert_eq!(complete(&container, &place, &["list", "--format", "=", "j"]), ["json"]);
    assert_eq!(complete(&container, &place, &["mou"]), ["mounts"]);
    assert_eq!(complete(&container, &place, &["mounts", ""]), ["add", "remove", "help"]);
    assert_eq!(complete(&container, &place, &["exec", "--cap", "CAP_SYS_T"]), ["CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG"]);
    let bundle = container.path().to_str().expect("a plain path");
    assert_eq!(complete(&container, &place, &["create", "--bundle", &bundle[..bundle.len() - 1]]), [bundle]);
    // Options of the program are not ours.
    assert_eq!(complete(&container, &place, &["--root", root, "exec", &id[0], "ls", "--"]), [""; 0]);
    let create = complete(&container, &place, &["create", "--"]);
    assert!(create.contains(&"--bundle".to_owned()), "{create:?}");
    for hidden in ["--detach", "--no-subreaper"] {
        assert!(!create.contains(&hidden.to_owned()), "{create:?}");
    }
}

#[test]
fn the_reference_has_each_command_with_its_options_and_links_to_it() {
    if peers_lack_it() {
        return;
    }
    let sandbox = Sandbox::of_this_test();
    let Some(place) = pages(&sandbox) else { return };
    let text = fs::read_to_string(place.join("commands.md")).expect("the reference");
    let chapters: Vec<(&str, &str)> =
        text.split("\n## ").skip(1).map(|chapter| chapter.split_once('\n').expect("a title")).collect();
    let titles: Vec<String> = chapters.iter().map(|(title, _)| (*title).to_owned()).collect();
    let all = commands(&sandbox);
    let title = |words: &Vec<String>| [&["corten".to_owned()], &words[..]].concat().join(" ");
    assert_eq!(titles.iter().collect::<BTreeSet<_>>(), all.iter().map(title).collect::<BTreeSet<_>>().iter().collect());
    for words in &all {
        let wanted = title(words);
        let (_, chapter) = chapters.iter().find(|(title, _)| *title == wanted).expect("a chapter");
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let help = help(&sandbox, &words, "80");
        let options = help.lines().skip_while(|line| *line != "Options:").take_while(|line| !line.is_empty());
        let spelled = options.filter_map(|line| line.split_once("--").filter(|(before, _)| before.len() == 6));
        let options: Vec<&str> = spelled.filter_map(|(_, rest)| rest.split([' ', ',']).next()).collect();
        assert!(options.contains(&"help"), "{wanted}: {options:?}");
        for option in options {
            assert!(chapter.contains(&format!("--{option}")), "{wanted}: --{option}");
        }
        let fences = chapter.lines().filter(|line| line.starts_with("```")).count();
        assert!(fences >= 2 && fences % 2 == 0, "{wanted}: {fences} ends of blocks");
    }
    // A mark of the texts that is none of Markdown's would be left.
    assert!(!text.contains(" _"), "{:?}", text.lines().find(|line| line.contains(" _")));
    let links = text.split("](#").skip(1).map(|rest| rest.split(')').next().expect("an end"));
    let anchors: BTreeSet<String> = titles.iter().map(|title| title.replace(' ', "-")).collect();
    let lost: Vec<&str> = links.filter(|link| !anchors.contains(*link)).collect();
    assert_eq!(lost, [""; 0]);
}

#[test]
fn completions_and_pages_are_silent_about_hidden_options() {
    if peers_lack_it() {
        return;
    }
    let sandbox = Sandbox::of_this_test();
    let Some(place) = pages(&sandbox) else { return };
    let man = fs::read_dir(place.join("man")).expect("man pages").flatten().map(|entry| entry.path());
    let others = ["corten.bash", "_corten", "corten.fish", "commands.md"].map(|name| place.join(name));
    for file in man.chain(others) {
        let text = fs::read_to_string(&file).expect("a file").replace("\\-", "-");
        for hidden in ["rootless=", "no-subreaper", "kernel-memory", "cpu-rt-runtime"] {
            assert!(!text.contains(hidden), "{}: {hidden}", file.display());
        }
        assert!(!text.contains("\n    @") && !text.contains("@signals"), "{}", file.display());
    }
}

#[test]
fn the_version_has_lines_for_engines_and_people() {
    let sandbox = Sandbox::of_this_test();
    let outcome = Cmd::bare(&sandbox, ["--version"]).run();
    let lines = outcome.ok().lines();
    // moby: what follows "commit:" is what `docker info` shows.
    assert!(lines[1].strip_prefix("commit: ").is_some_and(|commit| !commit.is_empty()), "{}", outcome.stdout());
    if known_difference("runc", "its own lines") || known_difference("crun", "its own lines") {
        return;
    }
    let keys: Vec<&str> = lines.iter().filter_map(|line| line.split_once(": ")).map(|(key, _)| key).collect();
    assert_eq!(lines[0], format!("corten version {}", env!("CARGO_PKG_VERSION")));
    assert_eq!(keys, ["commit", "spec", "target", "features"]);
    let commit = lines[1].trim_start_matches("commit: ").trim_end_matches("-dirty");
    let hash = commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(commit == "unknown" || hash, "{commit}");
    assert_eq!(lines[2], "spec: 1.3.0");
    assert!(lines[3].starts_with(&format!("target: {}-linux-", std::env::consts::ARCH)), "{}", lines[3]);
    let features = "features: +SYSTEMD +SELINUX +APPARMOR +SECCOMP +EBPF +LANDLOCK +RDT +IDMAP +CRIU";
    assert_eq!(lines[4], features);
}

#[test]
fn a_build_knows_its_commit_in_a_clone_and_in_an_archive_only() {
    if peers_lack_it() {
        return;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !source.join("hack/commit").exists() {
        return skip("the sources are not here");
    }
    if !has("git") {
        return;
    }
    let sandbox = Sandbox::of_this_test();
    let dir = sandbox.dir().join("sources");
    for (file, text) in [("src/main.rs", "one"), ("README.md", "one")] {
        fs::create_dir_all(dir.join(file).parent().expect("a parent")).expect("make a directory");
        fs::write(dir.join(file), text).expect("write a file");
    }
    fs::create_dir_all(dir.join("hack")).expect("make a directory");
    fs::copy(source.join("hack/commit"), dir.join("hack/commit")).expect("copy hack/commit");
    fs::copy(source.join(".gitattributes"), dir.join(".gitattributes")).expect("copy .gitattributes");
    let alone = "export HOME=$PWD GIT_CONFIG_NOSYSTEM=1 GIT_CEILING_DIRECTORIES=${PWD%/*/*}; ";
    let run = |line: &str| bash(&sandbox, &[&(alone.to_owned() + line)], &dir);
    assert_eq!(run("hack/commit"), "", "no clone");
    run("git init -q; git add .; git -c user.name=x -c user.email=x@x commit -qm x");
    let head = run("git rev-parse HEAD");
    assert_eq!(run("hack/commit"), head);
    run("echo two >README.md");
    assert_eq!(run("hack/commit"), head, "what is not built from");
    run("echo two >src/main.rs");
    assert_eq!(run("hack/commit"), head.replace('\n', "-dirty\n"));
    run("mkdir ../archive; git archive HEAD | tar -C ../archive -x");
    assert_eq!(run("../archive/hack/commit"), head);
    run("git -C .. init -q; git -C .. -c user.name=x -c user.email=x@x commit -qm x --allow-empty; mv .git ../gone");
    assert_eq!(run("hack/commit"), "", "below another one's clone");
}
