//! Every option word of a mount, by a table: one container in which each word has a mount, seen from inside.

use std::collections::BTreeMap;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use serde_json::json;

use crate::harness::{Bundle, Kind, kind, known_difference};

/// What a word is tried on; the mount is at `/m/WORD`.
#[derive(Clone, Copy)]
enum On {
    /// A new tmpfs, where the image has a directory with a file.
    Tmpfs,
    /// All of a tree of the host: two mounts, `.` and `sub`, both with these flags, in peer groups of their own.
    Tree(MsFlags),
    /// The directory with the tree; nothing else but the word says that it is a bind.
    Unsaid,
    /// A link on the host to `target`.
    Link,
    /// A file of the host, on a link in the image to `/there`.
    Covered,
}

/// What is to be seen.
#[derive(Clone, Copy)]
enum Seen {
    /// This flag of the mount, or not.
    Flag(&'static str),
    NoFlag(&'static str),
    /// This flag of both mounts of the tree, or of neither.
    Flags(&'static str),
    NoFlags(&'static str),
    /// This flag of the upper mount alone.
    Upper(&'static str),
    /// How the two mounts are tied to others.
    Tied(&'static str, &'static str),
    /// This flag of the file system, or not.
    Super(&'static str),
    NoSuper(&'static str),
    /// What a script prints in `/m`.
    Says(&'static str, &'static str),
}

use On::*;
use Seen::*;

const NONE: MsFlags = MsFlags::empty();

/// Word, what stands before it, what it is tried on, what is seen.
const WORDS: &[(&str, &[&str], On, Seen)] = &[
    ("defaults", &[], Tmpfs, Flag("rw")),
    ("ro", &["rw"], Tmpfs, Flag("ro")),
    ("rw", &["ro"], Tmpfs, Flag("rw")),
    ("nosuid", &["suid"], Tmpfs, Flag("nosuid")),
    ("suid", &["nosuid"], Tmpfs, NoFlag("nosuid")),
    ("nodev", &["dev"], Tmpfs, Flag("nodev")),
    ("dev", &["nodev"], Tmpfs, NoFlag("nodev")),
    ("noexec", &["exec"], Tmpfs, Flag("noexec")),
    ("exec", &["noexec"], Tmpfs, NoFlag("noexec")),
    ("nodiratime", &["diratime"], Tmpfs, Flag("nodiratime")),
    ("diratime", &["nodiratime"], Tmpfs, NoFlag("nodiratime")),
    ("nosymfollow", &["symfollow"], Tmpfs, Flag("nosymfollow")),
    ("symfollow", &["nosymfollow"], Tmpfs, NoFlag("nosymfollow")),
    ("noatime", &["strictatime"], Tmpfs, Flag("noatime")),
    ("atime", &["noatime"], Tmpfs, Flag("relatime")),
    ("relatime", &["noatime"], Tmpfs, Flag("relatime")),
    // What it turns off is what the kernel does without a word.
    ("norelatime", &["relatime"], Tmpfs, Flag("relatime")),
    ("strictatime", &["noatime"], Tmpfs, NoFlag("relatime")),
    ("nostrictatime", &["strictatime"], Tmpfs, Flag("relatime")),
    ("rro", &[], Tree(NONE), Flags("ro")),
    ("rrw", &[], Tree(MsFlags::MS_RDONLY), Flags("rw")),
    ("rnosuid", &[], Tree(NONE), Flags("nosuid")),
    ("rsuid", &[], Tree(MsFlags::MS_NOSUID), NoFlags("nosuid")),
    ("rnodev", &[], Tree(NONE), Flags("nodev")),
    ("rdev", &[], Tree(MsFlags::MS_NODEV), NoFlags("nodev")),
    ("rnoexec", &[], Tree(NONE), Flags("noexec")),
    ("rexec", &[], Tree(MsFlags::MS_NOEXEC), NoFlags("noexec")),
    ("rnodiratime", &[], Tree(NONE), Flags("nodiratime")),
    ("rdiratime", &[], Tree(MsFlags::MS_NODIRATIME), NoFlags("nodiratime")),
    ("rnosymfollow", &[], Tree(NONE), Flags("nosymfollow")),
    ("rsymfollow", &["rnosymfollow"], Tree(NONE), NoFlags("nosymfollow")),
    ("rnoatime", &[], Tree(NONE), Flags("noatime")),
    ("ratime", &[], Tree(MsFlags::MS_NOATIME), Flags("relatime")),
    ("rrelatime", &[], Tree(MsFlags::MS_NOATIME), Flags("relatime")),
    ("rnorelatime", &[], Tree(NONE), Flags("relatime")),
    ("rstrictatime", &[], Tree(NONE), NoFlags("relatime")),
    ("rnostrictatime", &["rstrictatime"], Tree(NONE), Flags("relatime")),
    ("shared", &[], Tree(NONE), Tied("shared", "shared")),
    ("rshared", &[], Tree(NONE), Tied("shared", "shared")),
    ("slave", &["rprivate"], Tree(NONE), Tied("", "")),
    ("rslave", &[], Tree(NONE), Tied("master", "master")),
    ("private", &[], Tree(NONE), Tied("", "master")),
    ("rprivate", &[], Tree(NONE), Tied("", "")),
    ("unbindable", &[], Tree(NONE), Tied("unbindable", "master")),
    ("runbindable", &[], Tree(NONE), Tied("unbindable", "unbindable")),
    ("bind", &[], Unsaid, Says("ls bind; ls bind/sub", "0\nsub")),
    ("rbind", &[], Unsaid, Says("ls rbind; ls rbind/sub", "0\nsub\n0")),
    ("sync", &["async"], Tmpfs, Super("sync")),
    ("async", &["sync"], Tmpfs, NoSuper("sync")),
    ("dirsync", &[], Tmpfs, Super("dirsync")),
    ("lazytime", &["nolazytime"], Tmpfs, Super("lazytime")),
    ("nolazytime", &["lazytime"], Tmpfs, NoSuper("lazytime")),
    // Words without an effect on any kernel of today: they are taken, and change nothing.
    ("mand", &[], Tmpfs, NoSuper("mand")),
    ("nomand", &["mand"], Tmpfs, NoSuper("mand")),
    ("iversion", &[], Tmpfs, NoSuper("iversion")),
    ("noiversion", &["iversion"], Tmpfs, NoSuper("iversion")),
    ("silent", &[], Tmpfs, Flag("rw")),
    ("loud", &["silent"], Tmpfs, Flag("rw")),
    ("tmpcopyup", &[], Tmpfs, Says("cat tmpcopyup/file", "image")),
    // A second entry remounts what the first one has mounted.
    ("remount", &["noexec"], Tmpfs, Flag("noexec")),
    ("idmap", &[], Tree(NONE), Upper("idmapped")),
    ("ridmap", &[], Tree(NONE), Flags("idmapped")),
    (
        "copy-symlink",
        &[],
        Link,
        Says("readlink copy-symlink; grep -c ' /m/copy-symlink ' /proc/self/mountinfo", "target\n0"),
    ),
    (
        "src-nofollow",
        &[],
        Link,
        Says("readlink src-nofollow; grep -c ' /m/src-nofollow ' /proc/self/mountinfo", "target\n1"),
    ),
    ("dest-nofollow", &[], Covered, Says("stat -c %F dest-nofollow; cat /there", "regular file\nimage")),
];

/// runtime-spec 1.3, config.md, "Linux mount options".
const STANDARD: &str = "async atime bind defaults dev diratime dirsync exec idmap iversion lazytime loud mand noatime nodev \
    nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev \
    rdiratime relatime remount rexec ridmap rnoatime rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow \
    ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave \
    strictatime suid symfollow sync tmpcopyup unbindable";

#[test]
fn the_table_has_every_word_of_the_standard_and_of_features() {
    let known = |word: &str| WORDS.iter().filter(|(known, ..)| *known == word).count();
    for word in STANDARD.split_whitespace() {
        assert_eq!(known(word), 1, "{word} of the standard");
    }
    if kind() != Kind::Corten {
        return;
    }
    let bundle = Bundle::new();
    let features = bundle.cmd(["features"]).run().json();
    let words = features["mountOptions"].as_array().expect("mountOptions");
    for word in words {
        assert_eq!(known(word.as_str().expect("a word")), 1, "{word} of features");
    }
    assert_eq!(words.len(), WORDS.len(), "features lacks a word");
}

/// Words that runc has not, or that are not what they should be: a mode of access times is not taken back by another,
/// and a root without a word cuts shared binds off from the host.
const RUNC: [&str; 9] =
    ["copy-symlink", "src-nofollow", "dest-nofollow", "defaults", "noatime", "relatime", "shared", "rshared", "mand"];

/// The tree of the host that a word is tried on.
fn tree(bundle: &Bundle, word: &str, flags: MsFlags) -> PathBuf {
    let dir = bundle.host_dir(&format!("tree-{word}"));
    let none = None::<&str>;
    mount(Some("tmpfs"), &dir, Some("tmpfs"), NONE, none).expect("mount a tmpfs");
    let sub = bundle.host_dir(&format!("tree-{word}/sub"));
    mount(Some("tmpfs"), &sub, Some("tmpfs"), NONE, none).expect("mount a tmpfs");
    for place in [&dir, &sub] {
        let file = place.join("0");
        std::fs::write(&file, "").and_then(|()| chown(&file, Some(0), Some(0))).expect("make a file");
        mount(none, place, none, MsFlags::MS_SHARED, none).expect("share it");
    }
    for place in [&sub, &dir] {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags;
        mount(none, place, none, flags, none).expect("set its flags");
    }
    dir
}

/// One more mount for this word.
fn with_word(bundle: Bundle, word: &str, before: &[&str], on: On) -> Bundle {
    let place = format!("/m/{word}");
    let mut options: Vec<&str> = before.to_vec();
    match on {
        Tmpfs if word == "remount" => {
            let bundle = bundle.mount(&place, "tmpfs", "tmpfs", &[]);
            bundle.mount(&place, "", "", &[before, &["remount"]].concat())
        }
        Tmpfs => {
            options.push(word);
            bundle.file(&format!("{place}/file"), "image", 0o644).mount(&place, "tmpfs", "tmpfs", &options)
        }
        Tree(flags) => {
            let source = tree(&bundle, word, flags);
            options.extend(["rbind", word]);
            if !word.contains("idmap") {
                return bundle.bind(source, &place, &options);
            }
            let maps = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
            let entry = json!({"destination": place, "source": source, "options": options, "uidMappings": maps, "gidMappings": maps});
            bundle.push("/mounts", entry)
        }
        Unsaid => {
            let source = tree(&bundle, word, NONE);
            bundle.mount(&place, "none", source, &[word])
        }
        Link => {
            let link = bundle.host(&format!("link-{word}"));
            bundle.host_file("target", "host");
            symlink("target", &link).expect("make a link on the host");
            bundle.bind(link, &place, &["bind", word])
        }
        Covered => {
            let source = bundle.host_file("covering", "host");
            bundle.link(&place, "/there").file("/there", "image", 0o644).bind(source, &place, &["bind", word])
        }
    }
}

/// A line of mountinfo.
struct Line {
    flags: Vec<String>,
    tied: String,
    superblock: Vec<String>,
}

fn lines(text: &str) -> BTreeMap<String, Line> {
    let words = |text: &str| text.split(',').map(str::to_owned).collect();
    let line = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let dash = fields.iter().position(|field| *field == "-")?;
        let tied = fields[6..dash].iter().filter_map(|tie| tie.split(':').next()).collect();
        let superblock = words(fields.last()?);
        Some((fields[4].to_owned(), Line { flags: words(fields[5]), tied, superblock }))
    };
    text.lines().filter_map(line).collect()
}

/// Whether it is seen; what was found otherwise.
fn check(word: &str, seen: Seen, lines: &BTreeMap<String, Line>, said: &BTreeMap<&str, String>) -> Result<(), String> {
    let line = |path: &str| lines.get(path).ok_or_else(|| format!("{path} is no mount"));
    let (top, below) = (format!("/m/{word}"), format!("/m/{word}/sub"));
    let has = |path: &str, flag: &str| line(path).map(|line| line.flags.iter().any(|other| other == flag));
    let superblock = |flag: &str| line(&top).map(|line| line.superblock.iter().any(|other| other == flag));
    let found = match seen {
        Flag(flag) => has(&top, flag)?,
        NoFlag(flag) => !has(&top, flag)?,
        Flags(flag) => has(&top, flag)? && has(&below, flag)?,
        NoFlags(flag) => !has(&top, flag)? && !has(&below, flag)?,
        Upper(flag) => has(&top, flag)? && !has(&below, flag)?,
        Tied(upper, lower) => line(&top)?.tied == upper && line(&below)?.tied == lower,
        Super(flag) => superblock(flag)?,
        NoSuper(flag) => !superblock(flag)?,
        Says(_, text) => return if said[word] == text { Ok(()) } else { Err(format!("{:?} is said", said[word])) },
    };
    if found {
        return Ok(());
    }
    let tell =
        |path: &str| lines.get(path).map(|line| format!("{:?} {:?} {:?}", line.flags, line.tied, line.superblock));
    Err(format!("{:?}, below {:?}", tell(&top), tell(&below)))
}

#[test]
fn every_word_has_its_effect() {
    if known_difference("crun", "a later word does not undo a flag, binds are cut off from the host, and more") {
        return;
    }
    let unlike: &[&str] = match kind() {
        Kind::Runc if known_difference("runc", "some words") => &RUNC,
        _ => &[],
    };
    let words = || WORDS.iter().filter(|(word, ..)| !unlike.contains(word));
    let mut bundle = Bundle::new().dir("/m", 0o755);
    let mut script = "cat /proc/self/mountinfo; cd /m".to_owned();
    for &(word, before, on, seen) in words() {
        bundle = with_word(bundle, word, before, on);
        if let Says(line, _) = seen {
            script += &format!("\necho ' == {word}'; {line}");
        }
    }
    let outcome = bundle.sh(&script).run();
    let text = outcome.ok().stdout();
    let mut parts = text.split(" == ");
    let lines = lines(parts.next().expect("mountinfo"));
    let said: BTreeMap<&str, String> =
        parts.filter_map(|part| part.split_once('\n')).map(|(word, text)| (word, text.trim().to_owned())).collect();
    let wrong: Vec<String> = words()
        .filter_map(|&(word, _, _, seen)| check(word, seen, &lines, &said).err().map(|why| format!("{word}: {why}")))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!Path::new("/m").exists(), "made on the host");
}

#[test]
fn the_word_of_a_mount_holds_whatever_the_propagation_of_the_root() {
    if known_difference("crun", "cuts every bind off from the host") || known_difference("runc", "lets the host decide")
    {
        return;
    }
    for root in ["rshared", "runbindable", "rslave", "rprivate"] {
        let mut bundle = Bundle::new().dir("/m", 0o755).set("/linux/rootfsPropagation", root);
        let (words, ties) = (["rshared", "rslave", "rprivate", "runbindable"], ["shared", "master", "", "unbindable"]);
        for word in words {
            bundle = with_word(bundle, word, &[], Tree(NONE));
        }
        let text = bundle.sh("cat /proc/self/mountinfo").run().ok().stdout();
        let lines = lines(&text);
        for (word, tie) in words.iter().zip(ties) {
            for place in [format!("/m/{word}"), format!("/m/{word}/sub")] {
                assert_eq!(lines[&place].tied, tie, "{place} in a root that is {root}");
            }
        }
    }
}

#[test]
fn a_mount_that_a_later_one_hides_does_not_stop_the_propagation_of_the_rest() {
    let bundle = Bundle::new().dir("/m", 0o755).set("/linux/rootfsPropagation", "rshared");
    let bundle = bundle.mount("/m/deep", "tmpfs", "tmpfs", &[]).mount("/m", "tmpfs", "tmpfs", &["private"]);
    bundle.args(["true"]).run().ok();
}

#[test]
fn an_empty_word_says_nothing() {
    let container = Bundle::new().mount("/t", "tmpfs", "tmpfs", &["", "nosuid", "size=64k", ""]).mount(
        "/b",
        "bind",
        "/tmp",
        &["rbind", "", "ro"],
    );
    let lines = container.sh("grep -E ' /[tb] ' /proc/mounts").run().ok().lines();
    assert!(lines.len() == 2 && lines[0].contains("nosuid") && lines[0].contains("size=64k"), "{lines:?}");
    assert!(lines[1].contains(" ro,"), "{lines:?}");
}
