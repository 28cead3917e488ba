//! Landlock by annotation (`run.corten.landlock`): restricts access to files, TCP ports and processes, also for root.
//!
//! The annotation holds a small JSON document after the open proposal for the runtime-spec (pull request 1241), with the
//! names of the kernel. It only takes rights away. Rights that the ABI version of this kernel lacks are left out with a
//! warning, or refused if the document asks for that.

use std::fmt::Display;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};
use serde_json::{Map, Value};

use crate::error::{Context, Error, Result};
use crate::sys::Errno;
use crate::sys::landlock::{self as sys, Handled};

/// The annotation.
pub const ANNOTATION: &str = "run.corten.landlock";
/// The same as a pointer into the configuration.
const FIELD: &str = "/annotations/run.corten.landlock";
/// The only version of the document.
pub const VERSION: u64 = 1;

/// A right: its name in the document, its bit, and the first ABI version that has it.
type Right = (&'static str, u64, u32);

/// `LANDLOCK_ACCESS_FS_*`.
const FS: [Right; 16] = [
    ("execute", 1 << 0, 1),
    ("write_file", 1 << 1, 1),
    ("read_file", 1 << 2, 1),
    ("read_dir", 1 << 3, 1),
    ("remove_dir", 1 << 4, 1),
    ("remove_file", 1 << 5, 1),
    ("make_char", 1 << 6, 1),
    ("make_dir", 1 << 7, 1),
    ("make_reg", 1 << 8, 1),
    ("make_sock", 1 << 9, 1),
    ("make_fifo", 1 << 10, 1),
    ("make_block", 1 << 11, 1),
    ("make_sym", 1 << 12, 1),
    ("refer", 1 << 13, 2),
    ("truncate", 1 << 14, 3),
    ("ioctl_dev", 1 << 15, 5),
];

/// Those that apply to files other than directories: execute, write_file, read_file, truncate, ioctl_dev.
const OF_FILES: u64 = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15;

/// `LANDLOCK_ACCESS_NET_*`.
const NET: [Right; 2] = [("bind_tcp", 1 << 0, 4), ("connect_tcp", 1 << 1, 4)];

/// `LANDLOCK_SCOPE_*`.
const SCOPES: [Right; 2] = [("abstract_unix_socket", 1 << 0, 6), ("signal", 1 << 1, 6)];

/// The rules, as far as this kernel knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Landlock {
    strict: bool,
    handled: Handled,
    /// Rights beneath a path of the container, and the JSON pointer of the rule.
    beneath: Vec<(u64, PathBuf, String)>,
    ports: Vec<(u64, u16)>,
}

impl Landlock {
    /// Reads the document for a kernel with this ABI version. `None` if no right is left. Each right that is left out is one
    /// of the warnings. An error names the place in the document.
    pub(super) fn plan(text: &str, abi_version: u32) -> Result<(Option<Landlock>, Vec<Error>)> {
        read(text, abi_version).context("read the Landlock rules").field(|| FIELD)
    }

    /// Restricts this process and its descendants for good. Needs no_new_privs or CAP_SYS_ADMIN. From here on no mount can be
    /// made or changed (landlock(7)).
    pub(super) fn apply(&self) -> Result<()> {
        self.restrict().field(|| FIELD)
    }

    fn restrict(&self) -> Result<()> {
        let ruleset = sys::create_ruleset(&self.handled).context("create a Landlock ruleset")?;
        for (allowed, path, place) in &self.beneath {
            self.allow_beneath(ruleset.as_fd(), *allowed, path).with_context(|| format!("at {place}"))?;
        }
        for &(allowed, port) in &self.ports {
            sys::allow_port(ruleset.as_fd(), allowed, port).with_context(|| format!("allow port {port}"))?;
        }
        sys::restrict_self(ruleset.as_fd()).map_err(|errno| {
            let error = Error::from(errno).context("apply the Landlock ruleset");
            match errno {
                Errno::EPERM => error.hint("set process.noNewPrivileges to true, or give the runtime CAP_SYS_ADMIN"),
                Errno::E2BIG => error
                    .hint("the runtime itself is restricted by Landlock, and the kernel stacks 16 rulesets at most"),
                _ => error,
            }
        })
    }

    /// The errors and warnings of [`Landlock::apply`] about paths.
    pub(super) fn preflight(&self, is_there: &dyn Fn(&Path) -> bool) -> Result<()> {
        for (_, path, place) in self.beneath.iter().filter(|(_, path, _)| !is_there(path)) {
            let absent = self.absent(path, Err::<(), _>(Errno::ENOENT));
            absent.with_context(|| format!("at {place}")).field(|| FIELD)?;
        }
        Ok(())
    }

    /// A missing path is a warning, or an error with `disableBestEffort`.
    fn absent<T>(&self, path: &Path, outcome: std::result::Result<T, Errno>) -> Result<Option<T>> {
        if matches!(outcome, Err(Errno::ENOENT)) && !self.strict {
            log::warn!("Landlock: {} does not exist: access to it stays denied if it is created later", path.display());
            return Ok(None);
        }
        outcome.map(Some).with_context(|| format!("open {}", path.display()))
    }

    fn allow_beneath(&self, ruleset: std::os::fd::BorrowedFd<'_>, allowed: u64, path: &Path) -> Result<()> {
        // Links are followed, also /dev/stdout: a rule gives no access to a file that the container cannot name.
        let file = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
        let Some(file) = self.absent(path, file)? else { return Ok(()) };
        let kind = fstat(&file).with_context(|| format!("stat {}", path.display()))?.st_mode & SFlag::S_IFMT.bits();
        let allowed = if kind == SFlag::S_IFDIR.bits() { allowed } else { allowed & OF_FILES };
        if allowed == 0 {
            return Ok(());
        }
        match sys::allow_beneath(ruleset, allowed, file.as_fd()) {
            // A pipe or a socket, which Landlock does not restrict.
            Err(Errno::EBADFD) => Ok(()),
            done => done,
        }
        .with_context(|| format!("allow access to {}", path.display()))
    }
}

fn read(text: &str, abi_version: u32) -> Result<(Option<Landlock>, Vec<Error>)> {
    let value: Value = serde_json::from_str(text).map_err(|error| Error::new(format!("not JSON: {error}")))?;
    let document = DocumentNode { value: &value, place: String::new() };
    document.only(&["version", "disableBestEffort", "ruleset", "rules"])?;
    let version = document.require("version")?;
    if version.value.as_u64() != Some(VERSION) {
        return version.wrong(format_args!("unknown version {}, only {VERSION} is known", version.value));
    }
    let strict = document.get("disableBestEffort")?.map_or(Ok(false), |node| node.truth())?;
    let mut abi_version = BestEffort { abi_version, strict, warnings: Vec::new() };

    let ruleset = document.require("ruleset")?;
    ruleset.only(&["handledAccessFS", "handledAccessNet", "scoped"])?;
    let asked = Handled {
        fs: ruleset.rights("handledAccessFS", &FS)?,
        net: ruleset.rights("handledAccessNet", &NET)?,
        scoped: ruleset.rights("scoped", &SCOPES)?,
    };
    if asked == Handled::default() {
        return ruleset.wrong("restricts nothing");
    }
    let handled = Handled {
        fs: abi_version.keep(&ruleset, "handledAccessFS", asked.fs, &FS)?,
        net: abi_version.keep(&ruleset, "handledAccessNet", asked.net, &NET)?,
        scoped: abi_version.keep(&ruleset, "scoped", asked.scoped, &SCOPES)?,
    };

    let (mut beneath, mut ports) = (Vec::new(), Vec::new());
    if let Some(rules) = document.get("rules")? {
        rules.only(&["pathBeneath", "netPort"])?;
        for rule in rules.list("pathBeneath")? {
            rule.only(&["allowedAccess", "paths"])?;
            let allowed = rule.allowed(asked.fs, &FS)? & handled.fs;
            for path in rule.list("paths")? {
                let text = path.text()?;
                if !text.starts_with('/') || text.contains('\0') {
                    return path.wrong(format_args!("{text:?} is not an absolute path"));
                }
                if allowed != 0 {
                    beneath.push((allowed, text.into(), path.place));
                }
            }
        }
        for rule in rules.list("netPort")? {
            rule.only(&["allowedAccess", "ports"])?;
            let allowed = rule.allowed(asked.net, &NET)? & handled.net;
            for port in rule.list("ports")? {
                match port.value.as_u64().and_then(|number| u16::try_from(number).ok()) {
                    Some(number) if allowed != 0 => ports.push((allowed, number)),
                    Some(_) => {}
                    None => return port.wrong(format_args!("{} is not a port number (0 to 65535)", port.value)),
                }
            }
        }
    }
    let landlock = Landlock { strict, handled, beneath, ports };
    Ok(((handled != Handled::default()).then_some(landlock), abi_version.warnings))
}

/// The ABI version of the kernel, and whether missing rights are an error.
struct BestEffort {
    abi_version: u32,
    strict: bool,
    warnings: Vec<Error>,
}

impl BestEffort {
    /// The rights that the kernel has.
    fn keep(&mut self, ruleset: &DocumentNode<'_>, name: &'static str, asked: u64, table: &[Right]) -> Result<u64> {
        let mut kept = asked;
        for &(word, bit, since) in table.iter().filter(|&&(_, bit, since)| asked & bit != 0 && since > self.abi_version)
        {
            let place = format!("{}/{name}", ruleset.place);
            let lack = match self.abi_version {
                0 => format!("{word} needs Landlock, which this kernel does not have"),
                abi_version => format!("{word} needs ABI version {since} of Landlock, this kernel has {abi_version}"),
            };
            if self.strict {
                return Err(Error::new(format!("at {place}: {lack}"))
                    .hint("use a newer kernel with landlock in its list of security modules (lsm=), or leave out disableBestEffort"));
            }
            self.warnings.push(Error::new(format!("at {place}: {lack}; it is left out")).field(FIELD));
            kept &= !bit;
        }
        Ok(kept)
    }
}

/// A part of the document, with its pointer.
struct DocumentNode<'a> {
    value: &'a Value,
    place: String,
}

impl<'a> DocumentNode<'a> {
    fn wrong<T>(&self, what: impl Display) -> Result<T> {
        let place = if self.place.is_empty() { "/" } else { &self.place };
        Err(Error::new(format!("at {place}: {what}")))
    }

    fn object(&self) -> Result<&'a Map<String, Value>> {
        self.value.as_object().map_or_else(|| self.wrong("is not an object"), Ok)
    }

    /// Refuses other members of an object than these: they would have no effect.
    fn only(&self, names: &[&str]) -> Result<()> {
        match self.object()?.keys().find(|key| !names.contains(&key.as_str())) {
            Some(key) => self.wrong(format_args!("unknown key {key:?}, known are {}", names.join(", "))),
            None => Ok(()),
        }
    }

    fn get(&self, name: &str) -> Result<Option<DocumentNode<'a>>> {
        let found = self.object()?.get(name);
        Ok(found.map(|value| DocumentNode { value, place: format!("{}/{name}", self.place) }))
    }

    fn require(&self, name: &str) -> Result<DocumentNode<'a>> {
        self.get(name)?.map_or_else(|| self.wrong(format_args!("{name:?} is missing")), Ok)
    }

    fn truth(&self) -> Result<bool> {
        self.value.as_bool().map_or_else(|| self.wrong("is neither true nor false"), Ok)
    }

    fn text(&self) -> Result<&'a str> {
        self.value.as_str().map_or_else(|| self.wrong("is not a string"), Ok)
    }

    /// The elements of a list; a missing one is empty.
    fn list(&self, name: &str) -> Result<Vec<DocumentNode<'a>>> {
        let Some(list) = self.get(name)? else { return Ok(Vec::new()) };
        let Some(values) = list.value.as_array() else { return list.wrong("is not a list") };
        let node = |(at, value)| DocumentNode { value, place: format!("{}/{at}", list.place) };
        Ok(values.iter().enumerate().map(node).collect())
    }

    /// The bits of a list of rights.
    fn rights(&self, name: &str, table: &[Right]) -> Result<u64> {
        let mut bits = 0;
        for right in self.list(name)? {
            let word = right.text()?;
            match table.iter().find(|&&(known, ..)| known == word) {
                Some((_, bit, _)) => bits |= bit,
                None => {
                    let words: Vec<&str> = table.iter().map(|right| right.0).collect();
                    return right.wrong(format_args!("unknown right {word:?}, known are {}", words.join(", ")));
                }
            }
        }
        Ok(bits)
    }

    /// The rights that a rule allows: some, and only such as are otherwise forbidden.
    fn allowed(&self, handled: u64, table: &[Right]) -> Result<u64> {
        let list = self.require("allowedAccess")?;
        let allowed = self.rights("allowedAccess", table)?;
        match table.iter().find(|&&(_, bit, _)| allowed & !handled & bit != 0) {
            Some((word, ..)) => list.wrong(format_args!("{word:?} is allowed, but the ruleset does not handle it")),
            None if allowed == 0 => list.wrong("allows nothing"),
            None => Ok(allowed),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan(document: &Value, abi_version: u32) -> Result<(Option<Landlock>, Vec<Error>)> {
        Landlock::plan(&document.to_string(), abi_version)
    }

    fn whole() -> Value {
        json!({
            "version": 1,
            "ruleset": {
                "handledAccessFS": ["execute", "read_file", "refer", "truncate", "ioctl_dev"],
                "handledAccessNet": ["bind_tcp", "connect_tcp"],
                "scoped": ["abstract_unix_socket", "signal"],
            },
            "rules": {
                "pathBeneath": [{"allowedAccess": ["execute", "refer"], "paths": ["/usr", "/bin"]}],
                "netPort": [{"allowedAccess": ["bind_tcp"], "ports": [0, 65535]}],
            },
        })
    }

    #[test]
    fn a_whole_document_becomes_what_the_kernel_is_told() {
        let (landlock, warnings) = plan(&whole(), 7).unwrap();
        let landlock = landlock.unwrap();
        assert_eq!(landlock.handled, Handled { fs: 0xe005, net: 3, scoped: 3 });
        let beneath = |path: &str, at: u32| (0x2001, path.into(), format!("/rules/pathBeneath/0/paths/{at}"));
        assert_eq!(landlock.beneath, [beneath("/usr", 0), beneath("/bin", 1)]);
        assert_eq!(landlock.ports, [(1, 0), (1, 65535)]);
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn an_older_kernel_gets_what_it_knows_and_each_loss_is_told() {
        let known = |abi_version| {
            let (landlock, warnings) = plan(&whole(), abi_version).unwrap();
            (landlock.map(|landlock| (landlock.handled, landlock.beneath[0].0, landlock.ports.len())), warnings.len())
        };
        let handled = |fs, net, scoped| Handled { fs, net, scoped };
        assert_eq!(known(6), (Some((handled(0xe005, 3, 3), 0x2001, 2)), 0));
        assert_eq!(known(5), (Some((handled(0xe005, 3, 0), 0x2001, 2)), 2));
        assert_eq!(known(4), (Some((handled(0x6005, 3, 0), 0x2001, 2)), 3));
        assert_eq!(known(3), (Some((handled(0x6005, 0, 0), 0x2001, 0)), 5));
        assert_eq!(known(2), (Some((handled(0x2005, 0, 0), 0x2001, 0)), 6));
        assert_eq!(known(1), (Some((handled(0x0005, 0, 0), 0x0001, 0)), 7));
        assert_eq!(known(0), (None, 9));
        let (_, warnings) = plan(&whole(), 5).unwrap();
        let what = "signal needs ABI version 6 of Landlock, this kernel has 5; it is left out";
        assert_eq!(warnings[1].to_string(), format!("/annotations/run.corten.landlock: at /ruleset/scoped: {what}"));
    }

    #[test]
    fn a_strict_document_is_refused_where_the_kernel_lacks_anything() {
        let mut document = whole();
        document["disableBestEffort"] = true.into();
        plan(&document, 6).unwrap();
        for abi_version in 0..6 {
            let error = plan(&document, abi_version).unwrap_err();
            assert_eq!(error.field_name(), Some(FIELD));
            assert!(error.to_string().contains("Landlock"), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_in_the_document() {
        let cases: [(&str, Value, &str); 16] = [
            ("", json!([]), "at /: is not an object"),
            ("/more", json!(1), "at /: unknown key \"more\""),
            ("/version", json!(2), "at /version: unknown version 2"),
            ("/version", json!("1"), "at /version: unknown version \"1\""),
            ("/disableBestEffort", json!("yes"), "at /disableBestEffort: is neither"),
            ("/ruleset", json!({}), "at /ruleset: restricts nothing"),
            (
                "/ruleset/handledAccessFS/1",
                json!("reed_file"),
                "at /ruleset/handledAccessFS/1: unknown right \"reed_file\"",
            ),
            ("/ruleset/scoped", json!("signal"), "at /ruleset/scoped: is not a list"),
            ("/ruleset/scoped/0", json!(7), "at /ruleset/scoped/0: is not a string"),
            (
                "/rules/pathBeneath/0/paths/1",
                json!("usr"),
                "at /rules/pathBeneath/0/paths/1: \"usr\" is not an absolute",
            ),
            ("/rules/pathBeneath/0/allowedAccess", json!([]), "at /rules/pathBeneath/0/allowedAccess: allows nothing"),
            (
                "/rules/pathBeneath/0/allowedAccess",
                json!(["make_reg"]),
                "at /rules/pathBeneath/0/allowedAccess: \"make_reg\" is allowed, but the ruleset does not handle it",
            ),
            ("/rules/pathBeneath/0", json!({"paths": []}), "at /rules/pathBeneath/0: \"allowedAccess\" is missing"),
            ("/rules/netPort/0/ports/0", json!(65536), "at /rules/netPort/0/ports/0: 65536 is not a port"),
            ("/rules/netPort/0/ports/0", json!("80"), "at /rules/netPort/0/ports/0: \"80\" is not a port"),
            ("/rules/netPort/0/port", json!(1), "at /rules/netPort/0: unknown key \"port\""),
        ];
        for (pointer, value, expected) in cases {
            let mut document = whole();
            match (document.pointer_mut(pointer), pointer.rsplit_once('/')) {
                (Some(place), _) => *place = value,
                (None, Some((parent, name))) => document.pointer_mut(parent).unwrap()[name] = value,
                (None, None) => unreachable!(),
            }
            let error = plan(&document, 7).unwrap_err();
            assert!(error.to_string().contains(expected), "{pointer}: {error}");
            assert_eq!(error.field_name(), Some(FIELD));
        }
        let error = Landlock::plan("{", 7).unwrap_err().to_string();
        assert!(error.contains("not JSON"), "{error}");
    }

    #[test]
    fn the_documented_examples_are_in_order() {
        let blocks: Vec<&str> = include_str!("../../docs/landlock.md").split("```json\n").skip(1).collect();
        assert_eq!(blocks.len(), 2);
        for block in blocks {
            let (landlock, warnings) = Landlock::plan(block.split("```").next().unwrap(), 7).unwrap();
            assert!(landlock.is_some() && warnings.is_empty());
        }
    }

    #[test]
    fn every_right_has_one_bit_and_one_name() {
        for (at, (name, bit, _)) in FS.iter().enumerate() {
            assert_eq!(*bit, 1 << at, "{name}");
        }
        assert!(FS.iter().enumerate().all(|(at, right)| FS[..at].iter().all(|other| other.0 != right.0)));
    }
}
