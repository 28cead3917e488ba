//! The option words of `mounts[].options` (runtime-spec, config.md, "Linux mount options"), in order: the last wins.
//!
//! A word that is not in the table is a parameter of the file system.

use std::ffi::CString;

use super::propagation::SetPropagation;
use crate::error::{Context, Error, Result};
use crate::sys::mount::{Attr, Propagation};

/// What one word does.
#[derive(Debug, Clone, Copy)]
enum Effect {
    /// Sets or clears an attribute of this mount alone.
    Set(Attr),
    Clear(Attr),
    /// The same for all mounts of the tree.
    SetAll(Attr),
    ClearAll(Attr),
    /// Chooses, or drops, an access time mode of this mount, or of all of the tree.
    Atime(Attr),
    AtimeAll(Attr),
    NotAtime(Attr),
    NotAtimeAll(Attr),
    /// Sets the propagation.
    Propagate(SetPropagation),
    /// A bind mount, of all mounts of the source or of the one.
    Bind(bool),
    /// A flag of the superblock, which the new mount interface takes as a parameter of that name.
    Superblock,
    /// Changes what is mounted at the destination.
    Remount,
    /// A new tmpfs starts with what it covers.
    CopyUp,
    /// Owners are mapped; in all mounts of the tree, or in the one.
    IdMap(bool),
    /// What is done with a link at the source or the destination of a bind.
    Link(fn(&mut Links)),
    /// Nothing to do: the default, or without meaning on the kernels that corten runs on.
    Nothing,
}

use Effect::*;

const WORDS: &[(&str, Effect)] = &[
    ("defaults", Nothing),
    ("ro", Set(Attr::RDONLY)),
    ("rw", Clear(Attr::RDONLY)),
    ("nosuid", Set(Attr::NOSUID)),
    ("suid", Clear(Attr::NOSUID)),
    ("nodev", Set(Attr::NODEV)),
    ("dev", Clear(Attr::NODEV)),
    ("noexec", Set(Attr::NOEXEC)),
    ("exec", Clear(Attr::NOEXEC)),
    ("nodiratime", Set(Attr::NODIRATIME)),
    ("diratime", Clear(Attr::NODIRATIME)),
    ("nosymfollow", Set(Attr::NOSYMFOLLOW)),
    ("symfollow", Clear(Attr::NOSYMFOLLOW)),
    ("noatime", Atime(Attr::NOATIME)),
    ("atime", NotAtime(Attr::NOATIME)),
    ("relatime", Atime(Attr::RELATIME)),
    ("norelatime", NotAtime(Attr::RELATIME)),
    ("strictatime", Atime(Attr::STRICTATIME)),
    ("nostrictatime", NotAtime(Attr::STRICTATIME)),
    ("rro", SetAll(Attr::RDONLY)),
    ("rrw", ClearAll(Attr::RDONLY)),
    ("rnosuid", SetAll(Attr::NOSUID)),
    ("rsuid", ClearAll(Attr::NOSUID)),
    ("rnodev", SetAll(Attr::NODEV)),
    ("rdev", ClearAll(Attr::NODEV)),
    ("rnoexec", SetAll(Attr::NOEXEC)),
    ("rexec", ClearAll(Attr::NOEXEC)),
    ("rnodiratime", SetAll(Attr::NODIRATIME)),
    ("rdiratime", ClearAll(Attr::NODIRATIME)),
    ("rnosymfollow", SetAll(Attr::NOSYMFOLLOW)),
    ("rsymfollow", ClearAll(Attr::NOSYMFOLLOW)),
    ("rnoatime", AtimeAll(Attr::NOATIME)),
    ("ratime", NotAtimeAll(Attr::NOATIME)),
    ("rrelatime", AtimeAll(Attr::RELATIME)),
    ("rnorelatime", NotAtimeAll(Attr::RELATIME)),
    ("rstrictatime", AtimeAll(Attr::STRICTATIME)),
    ("rnostrictatime", NotAtimeAll(Attr::STRICTATIME)),
    ("shared", Propagate(SetPropagation::of_mount(Propagation::Shared))),
    ("rshared", Propagate(SetPropagation::of_tree(Propagation::Shared))),
    ("slave", Propagate(SetPropagation::of_mount(Propagation::Slave))),
    ("rslave", Propagate(SetPropagation::of_tree(Propagation::Slave))),
    ("private", Propagate(SetPropagation::of_mount(Propagation::Private))),
    ("rprivate", Propagate(SetPropagation::of_tree(Propagation::Private))),
    ("unbindable", Propagate(SetPropagation::of_mount(Propagation::Unbindable))),
    ("runbindable", Propagate(SetPropagation::of_tree(Propagation::Unbindable))),
    ("bind", Bind(false)),
    ("rbind", Bind(true)),
    ("remount", Remount),
    ("tmpcopyup", CopyUp),
    ("sync", Superblock),
    ("async", Superblock),
    ("dirsync", Superblock),
    ("lazytime", Superblock),
    ("nolazytime", Superblock),
    // Mandatory locks went with Linux 5.15; file systems decide on i_version themselves; `silent` only ever hid
    // messages in the kernel's log.
    ("mand", Nothing),
    ("nomand", Nothing),
    ("iversion", Nothing),
    ("noiversion", Nothing),
    ("silent", Nothing),
    ("loud", Nothing),
    ("idmap", IdMap(false)),
    ("ridmap", IdMap(true)),
    // crun(1).
    ("copy-symlink", Link(|links| links.copy = true)),
    ("src-nofollow", Link(|links| links.mount_source = true)),
    ("dest-nofollow", Link(|links| links.cover_destination = true)),
];

/// The flags of a bind that take the place of its source's.
const FLAGS: Attr = Attr::RDONLY.union(Attr::NOSUID).union(Attr::NODEV).union(Attr::NOEXEC).union(Attr::NOSYMFOLLOW);

/// Those that mount_setattr(2) does not lock for a user namespace.
const UNLOCKED: Attr = Attr::NOSYMFOLLOW;

/// The options in one string, as mount(2) parts them: at each comma but one that is escaped (overlayfs), between quotes
/// (SELinux), or in a list of numbers (`mpol` of a tmpfs). Layers of an overlay that are given one by one come by
/// fsconfig(2) alone, where a comma is a comma.
pub(super) fn parts(word: &str) -> impl Iterator<Item = &str> {
    let whole = ["lowerdir+=", "datadir+="].iter().any(|key| word.starts_with(key));
    let mut rest = Some(word);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = if whole { None } else { comma(text.as_bytes()) };
        rest = end.map(|end| &text[end + 1..]);
        Some(end.map_or(text, |end| &text[..end]))
    })
}

/// Where the first option of a list ends, unless it is the only one.
fn comma(text: &[u8]) -> Option<usize> {
    let (mut escaped, mut quoted) = (false, false);
    text.iter().enumerate().position(|(index, &byte)| {
        let literal = escaped;
        escaped = byte == b'\\' && !literal;
        quoted ^= byte == b'"' && !literal;
        byte == b',' && !literal && !quoted && !text.get(index + 1).is_some_and(u8::is_ascii_digit)
    })
}

/// The words that are understood, for `corten features`.
pub fn words() -> impl Iterator<Item = &'static str> {
    WORDS.iter().map(|&(word, _)| word)
}

/// Attributes to set and to clear.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) set: Attr,
    pub(super) clear: Attr,
}

impl Attributes {
    fn set(&mut self, flag: Attr) {
        self.set |= flag;
        self.clear &= !flag;
    }

    fn clear(&mut self, flag: Attr) {
        self.clear |= flag;
        self.set &= !flag;
    }

    fn forget(&mut self, flag: Attr) {
        self.set &= !flag;
        self.clear &= !flag;
    }

    /// A mode is a number in the bits of [`Attr::ATIME`]: the kernel wants all of them cleared to set it.
    fn atime(&mut self, mode: Attr) {
        self.clear |= Attr::ATIME;
        self.set = self.set & !Attr::ATIME | mode;
    }

    fn chosen_atime(&self) -> Option<Attr> {
        self.clear.intersects(Attr::ATIME).then_some(self.set & Attr::ATIME)
    }

    /// Drops a mode that was chosen, so that the source's or the default holds.
    fn not_atime(&mut self, mode: Attr) {
        if self.chosen_atime() == Some(mode) {
            self.forget(Attr::ATIME);
        }
    }

    /// Drops a mode, of the sources as well: it becomes the default unless another one was chosen.
    fn not_atime_of_sources(&mut self, mode: Attr) {
        match self.chosen_atime() {
            Some(other) if other != mode => {}
            None if mode == Attr::RELATIME => {}
            _ => self.atime(Attr::RELATIME),
        }
    }

    /// These attributes, and then `later` ones on the same mount.
    pub(super) fn then(self, later: Attributes) -> Attributes {
        let keep = !(later.set | later.clear);
        Attributes { set: self.set & keep | later.set, clear: self.clear & keep | later.clear }
    }
}

/// A parameter of a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parameter {
    pub(super) key: CString,
    pub(super) value: Option<CString>,
}

impl Parameter {
    pub(super) fn new(text: &str) -> Result<Parameter> {
        let string = |text: &str| CString::new(text).map_err(|_| Error::new("an option must not contain a NUL byte"));
        Ok(match text.split_once('=') {
            Some((key, value)) => Parameter { key: string(key)?, value: Some(string(value)?) },
            None => Parameter { key: string(text)?, value: None },
        })
    }
}

/// That owners are to be mapped.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct IdMapOption {
    /// In the mounts below, too.
    pub(super) recursive: bool,
    /// The maps, when they stand in the option itself.
    pub(super) maps: Option<String>,
}

/// What is done with a symbolic link, instead of following it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Links {
    /// A link at the source is made anew at the destination.
    pub(super) copy: bool,
    /// A link at the source is mounted itself.
    pub(super) mount_source: bool,
    /// A link at the destination is covered itself.
    pub(super) cover_destination: bool,
}

/// The words of one mount, in effect.
#[derive(Debug, Default)]
pub(super) struct Options {
    /// For this mount alone; applied after `all`.
    pub(super) own: Attributes,
    /// For all mounts of the tree.
    pub(super) all: Attributes,
    /// A word says something of this mount alone, other than to drop an access time mode.
    own_said: bool,
    /// In order.
    pub(super) propagation: Vec<SetPropagation>,
    /// A bind mount; true takes the mounts below the source along.
    pub(super) bind: Option<bool>,
    pub(super) remount: bool,
    pub(super) copy_up: bool,
    pub(super) idmap: Option<IdMapOption>,
    pub(super) links: Links,
    pub(super) parameters: Vec<Parameter>,
}

impl Options {
    /// Reads the words; `field` is the JSON pointer of the list.
    pub(super) fn parse(words: &[String], field: &str) -> Result<Options> {
        let mut options = Options::default();
        for (index, word) in words.iter().enumerate() {
            parts(word).try_for_each(|part| options.add(part)).field(|| format!("{field}/{index}"))?;
        }
        Ok(options)
    }

    fn add(&mut self, word: &str) -> Result<()> {
        let Some(&(_, effect)) = WORDS.iter().find(|(known, _)| *known == word) else {
            if word.is_empty() {
                // Podman has one in the mounts that it adds for systemd; runc and crun give it to the kernel, which skips it.
                return Ok(());
            }
            if let Some((name @ ("idmap" | "ridmap"), maps)) = word.split_once('=') {
                self.idmap = Some(IdMapOption { recursive: name == "ridmap", maps: Some(maps.to_owned()) });
                return Ok(());
            }
            self.parameters.push(Parameter::new(word)?);
            return Ok(());
        };
        self.own_said |= matches!(effect, Set(_) | Clear(_) | Atime(_));
        match effect {
            Set(flag) => self.own.set(flag),
            Clear(flag) => self.own.clear(flag),
            Atime(mode) => self.own.atime(mode),
            NotAtime(mode) => self.own.not_atime(mode),
            // A word for all mounts goes for this one as well, so it takes back what was said of this one before.
            SetAll(flag) => {
                self.all.set(flag);
                self.own.forget(flag);
            }
            ClearAll(flag) => {
                self.all.clear(flag);
                self.own.forget(flag);
            }
            AtimeAll(mode) => {
                self.all.atime(mode);
                self.own.forget(Attr::ATIME);
            }
            NotAtimeAll(mode) => {
                self.all.not_atime_of_sources(mode);
                self.own.forget(Attr::ATIME);
            }
            Propagate(propagation) => self.propagation.push(propagation),
            Bind(all) => self.bind = Some(all || self.bind == Some(true)),
            Superblock => self.parameters.push(Parameter::new(word)?),
            Remount => self.remount = true,
            CopyUp => self.copy_up = true,
            IdMap(recursive) => self.idmap = Some(IdMapOption { recursive, maps: None }),
            Link(choose) => choose(&mut self.links),
            Nothing => {}
        }
        Ok(())
    }

    /// What a bind does not take over from its source: as soon as a word names a flag, the words are all the flags, for
    /// runc and crun. No word for an access time mode does that to the mode of the source. Where the source's are `locked`,
    /// in a user namespace, most of them stay.
    pub(super) fn replaced(&self, locked: bool) -> Attr {
        let said = self.own.set | self.own.clear | self.all.set | self.all.clear;
        let flags = if locked { UNLOCKED } else { FLAGS };
        if self.own_said { flags & !said } else { Attr::empty() }
    }

    /// A word for access times replaces all that the source says of them, as with mount(2): `nodiratime` alone brings the
    /// default mode with it, and a mode alone takes `nodiratime` away.
    pub(super) fn complete_atime(&mut self) {
        let said = self.own.set | self.own.clear | self.all.set | self.all.clear;
        if self.own.set.contains(Attr::NODIRATIME) && !said.intersects(Attr::ATIME) {
            self.own.atime(Attr::RELATIME);
        } else if self.own.chosen_atime().is_some() && !said.contains(Attr::NODIRATIME) {
            self.own.clear(Attr::NODIRATIME);
        }
    }

    /// The attributes of a single mount: what goes for all, then what goes for this one.
    pub(super) fn merged(&self) -> Attributes {
        self.all.then(self.own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Options {
        Options::parse(&words.iter().map(|word| word.to_string()).collect::<Vec<_>>(), "/mounts/0/options").unwrap()
    }

    #[test]
    fn the_last_of_two_words_that_contradict_each_other_wins() {
        let merged = parse(&["ro", "nosuid", "rw", "suid", "nosuid"]).merged();
        assert_eq!(merged, Attributes { set: Attr::NOSUID, clear: Attr::RDONLY });
    }

    #[test]
    fn every_access_time_mode_clears_the_whole_mask() {
        for (word, mode) in
            [("noatime", Attr::NOATIME), ("strictatime", Attr::STRICTATIME), ("relatime", Attr::RELATIME)]
        {
            assert_eq!(parse(&[word]).own, Attributes { set: mode, clear: Attr::ATIME }, "{word}");
            let all = format!("r{word}");
            assert_eq!(parse(&[&all]).all, Attributes { set: mode, clear: Attr::ATIME }, "{all}");
        }
    }

    #[test]
    fn a_negated_access_time_word_only_takes_back_its_own_mode() {
        assert_eq!(parse(&["noatime", "nostrictatime"]).own.set, Attr::NOATIME);
        for words in [&["strictatime", "nostrictatime"][..], &["noatime", "atime"], &["atime"], &["norelatime"]] {
            assert_eq!(parse(words).own, Attributes::default(), "{words:?}");
        }
        assert_eq!(parse(&["ratime"]).all, Attributes { set: Attr::empty(), clear: Attr::ATIME });
        assert_eq!(parse(&["noatime", "norelatime"]).own.set, Attr::NOATIME);
    }

    #[test]
    fn a_word_for_all_mounts_and_one_for_this_mount_keep_their_order() {
        assert_eq!(parse(&["rro", "rw"]).merged(), Attributes { set: Attr::empty(), clear: Attr::RDONLY });
        assert_eq!(parse(&["rw", "rro"]).merged(), Attributes { set: Attr::RDONLY, clear: Attr::empty() });
        assert_eq!(parse(&["rro", "rw"]).all, Attributes { set: Attr::RDONLY, clear: Attr::empty() });
    }

    #[test]
    fn unknown_words_are_parameters_of_the_file_system() {
        let parameters = parse(&["mode=755", "newinstance", "size="]).parameters;
        let expected = ["mode=755", "newinstance", "size="].map(|text| Parameter::new(text).unwrap());
        assert_eq!(parameters, expected);
        assert_eq!(parameters[2].value.as_deref(), Some(c""));
    }

    #[test]
    fn options_in_one_string_are_parted_as_the_kernel_does() {
        for (word, expected) in [
            ("size=1m,nr_inodes=50", &["size=1m", "nr_inodes=50"][..]),
            ("mode=755,", &["mode=755", ""]),
            ("mpol=bind:0-1,3,size=1m", &["mpol=bind:0-1,3", "size=1m"]),
            (r#"context="u:r:t:s0:c1,c2",size=1m"#, &[r#"context="u:r:t:s0:c1,c2""#, "size=1m"]),
            (r"lowerdir=/a\,b:/c\\,index=on", &[r"lowerdir=/a\,b:/c\\", "index=on"]),
            ("lowerdir+=/a,b", &["lowerdir+=/a,b"]),
            ("", &[""]),
        ] {
            assert_eq!(parts(word).collect::<Vec<_>>(), expected, "{word}");
        }
        let options = parse(&["size=1m,ro,nr_inodes=50"]);
        assert_eq!((options.own.set, options.parameters.len()), (Attr::RDONLY, 2));
    }

    #[test]
    fn an_empty_word_says_nothing() {
        let options = parse(&["", "ro", "", "size=1m"]);
        assert_eq!((options.own.set, options.parameters.len()), (Attr::RDONLY, 1));
    }

    #[test]
    fn the_last_word_on_mapped_owners_wins() {
        let asked = |words: &[&str]| parse(words).idmap.unwrap();
        assert_eq!(asked(&["ridmap", "idmap"]), IdMapOption { recursive: false, maps: None });
        let inline = IdMapOption { recursive: true, maps: Some("uids=0-1-2;gids=0-1-2".into()) };
        assert_eq!(asked(&["idmap", "ridmap=uids=0-1-2;gids=0-1-2"]), inline);
    }

    #[test]
    fn the_table_has_every_word_of_the_standard_once() {
        let standard = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev \
            nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime \
            rbind rdev rdiratime relatime remount rexec rnoatime rnodiratime rnoexec rnorelatime rnostrictatime \
            rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow \
            runbindable rw shared silent slave strictatime suid symfollow sync tmpcopyup unbindable";
        for word in standard.split_whitespace() {
            assert_eq!(WORDS.iter().filter(|(known, _)| *known == word).count(), 1, "{word}");
        }
    }
}
