//! Names that a bundle, an image or a container chooses, and what of them reaches a terminal.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::harness::{Bundle, Cmd, peers_lack_it};

/// What would write on a terminal as it likes: a colour, a title, a new line, and what hides or turns text.
const NASTY: &str = "a\u{1b}[31mb\u{1b}]0;t\u{7}c\r\nd\u{7f}e\u{9b}2Jf\u{202e}g\u{2066}h\u{2028}i";
/// The same as people may see it.
const TAME: &str = r"a\u{1b}[31mb\u{1b}]0;t\u{7}c\r\nd\u{7f}e\u{9b}2Jf\u{202e}g\u{2066}h\u{2028}i";

/// Nothing but text and line ends.
#[track_caller]
fn is_plain(text: &str) {
    let odd = |c: &char| c.is_control() && *c != '\n' || "\u{202e}\u{2066}\u{2028}".contains(*c);
    let found: Vec<char> = text.chars().filter(odd).collect();
    assert!(found.is_empty(), "{found:?} in {text:?}");
}

#[test]
fn names_write_no_control_characters_on_a_terminal() {
    if peers_lack_it() {
        return;
    }
    let bundle = Bundle::new().args([&format!("/{NASTY}")]);
    let failed = bundle.run();
    failed.fails();
    is_plain(&failed.stderr());
    assert_eq!(failed.stderr().lines().count(), 1, "{}", failed.stderr());
    is_plain(&failed.log());
    let log: Value = serde_json::from_str(&failed.log()).expect("one record");
    for text in [failed.stderr(), log["msg"].as_str().expect("a message").to_owned()] {
        assert!(text.contains(TAME), "{text}");
        is_plain(&text);
    }
    // Text in the log, and nothing but stderr.
    let path = bundle.path().to_str().expect("a plain path").to_owned();
    for format in [&["--log-format", "text"][..], &[]] {
        let words = ["--root", "/nonexistent/root"].iter().chain(format).copied();
        let bare = Cmd::bare(bundle.sandbox(), words.chain(["run", "--bundle", &path, "x"])).run();
        is_plain(&bare.fails().stderr());
        assert_eq!(bare.stderr().lines().count(), 1);
    }
    let checked = bundle.cmd(["check", "--bundle", &path]).run();
    is_plain(&checked.code(1).stdout());
    assert!(checked.stdout().contains(&format!("\"/{TAME}\": ")), "{}", checked.stdout());
    let checked = bundle.cmd(["check", "--format", "json", "--bundle", &path]).run();
    is_plain(&checked.code(1).stdout());
}

#[test]
fn warnings_and_tables_write_no_control_characters_on_a_terminal() {
    if peers_lack_it() {
        return;
    }
    let bundle = Bundle::new().args(["sleep", "60"]);
    let mut bundle = bundle.set("/annotations", json!({"x": NASTY}));
    bundle = bundle.push("/process/capabilities/bounding", format!("CAP_{NASTY}"));
    let odd = bundle.host_dir(NASTY.trim_end_matches('i'));
    bundle.write();
    fs::copy(bundle.path().join("config.json"), odd.join("config.json")).expect("copy the configuration");
    symlink(bundle.rootfs(), odd.join("rootfs")).expect("link the root");
    let odd = odd.to_str().expect("a path in UTF-8");
    let made = bundle.cmd(["run", "--detach", "--bundle", odd, bundle.name()]).run();
    is_plain(&made.ok().log());
    let warning: Value = serde_json::from_str(made.log().lines().next().expect("a warning")).expect("a record");
    // The name is JSON in this one, which has escapes of its own for what it does not let through.
    let (_, rest) = TAME.split_once(r"\n").expect("its end");
    assert!(warning["msg"].as_str().expect("a message").contains(rest), "{warning}");
    is_plain(warning["msg"].as_str().expect("a message"));
    let listed = bundle.cmd(["list"]).run();
    is_plain(&listed.ok().stdout());
    assert_eq!(listed.lines().len(), 2, "{}", listed.stdout());
    for words in [&["list", "--format", "json"][..], &["state", bundle.name()]] {
        let told = bundle.cmd(words).run();
        is_plain(&told.ok().stdout());
        let value = told.json();
        let state = value.get(0).unwrap_or(&value);
        // What a program reads is exactly what is there.
        assert_eq!(state["bundle"], odd);
        assert_eq!(state["annotations"]["x"], NASTY);
    }
    bundle.exec(&["--detach", "sh", "-c", "sleep 60", NASTY]);
    is_plain(&bundle.cmd(["ps", "--sessions", bundle.name()]).run().ok().stdout());
    is_plain(&bundle.cmd(["ps", bundle.name()]).run().ok().stdout());
    bundle.delete_force().ok();
    let usage = bundle.cmd(["run", &format!("--{}", NASTY.replace('\n', ""))]).run();
    is_plain(&usage.fails().stderr());
}
