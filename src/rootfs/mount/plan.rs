//! What each entry of `mounts[]` is, from the configuration alone.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount as Entry;

use crate::error::{Context, Error, Result, ensure};
use crate::rootfs::idmap::{IdMap, Maps};
use crate::rootfs::options::{Attributes, Links, Options, Parameter};
use crate::rootfs::overlay::Overlay;
use crate::rootfs::path::RootRelPath;
use crate::rootfs::propagation::{self, SetPropagation};
use crate::rootfs::request::{Isolation, Namespaces, OpenIn};
use crate::sys::mount::{Attr, Propagation};

/// Below `/proc`, only these may be covered: files without power over the host, as lxcfs does it.
const PROC_FILES: &[&str] = &[
    "proc/cpuinfo",
    "proc/diskstats",
    "proc/meminfo",
    "proc/stat",
    "proc/swaps",
    "proc/uptime",
    "proc/loadavg",
    "proc/slabinfo",
    "proc/sys/kernel/ns_last_pid",
    "proc/sys/crypto/fips_enabled",
];

/// Types without a device behind them: there, `ro` is said of the mount and never of the file system, which sysfs,
/// cgroup2 and mqueue share with others.
const KERNEL_TYPES: &[&str] = &["tmpfs", "ramfs", "proc", "sysfs", "devpts", "mqueue", "cgroup2", "overlay", "debugfs"];

/// Words for a file system that runc takes in the options of a bind.
const SUPERBLOCK: &[&str] = &["sync", "async", "dirsync", "lazytime", "nolazytime"];

/// What an entry is compiled for.
pub struct PlanContext<'a> {
    /// Where relative paths of the host start.
    pub bundle: &'a Path,
    pub namespaces: Namespaces,
    /// The maps that the configuration has for the container's user namespace.
    pub container_maps: &'a Maps,
    /// The propagation that `/` of the new mount namespace gets.
    pub root_propagation: Propagation,
    /// `linux.mountLabel`.
    pub label: Option<&'a str>,
}

/// Where a mount comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// A file system of its own.
    New { fstype: CString, name: Option<CString>, copy_up: bool, read_only_last: bool },
    /// A tree of the host. On the host it is cloned if afterwards its peers are cut off (a shared mount), or it cannot be
    /// reached (a user namespace, another mount namespace).
    Bind { path: PathBuf, recursive: bool, opened: OpenIn },
    /// Layers of the host, made into an overlay there.
    Overlay(Box<Overlay>),
    /// cgroup2; `private` when the container has a cgroup namespace of its own.
    Cgroup { private: bool },
    /// Changes what is already there.
    Remount,
}

/// One entry of `mounts[]`, compiled.
#[derive(Debug)]
pub struct Mount {
    index: usize,
    pub(super) target: RootRelPath,
    pub(super) source: Source,
    pub(super) parameters: Vec<Parameter>,
    pub(super) own: Attributes,
    pub(super) all: Attributes,
    /// Flags that the source of a bind may have, and that are taken away unless they are locked.
    pub(super) replaced: Attr,
    /// To set before and, where a shared mount may have been covered, after attaching.
    pub(super) propagation: Vec<SetPropagation>,
    /// Some of that is what the entry says.
    has_propagation: bool,
    /// No link may stand at the destination: `/proc` and `/sys` (CVE-2019-19921, CVE-2023-28642, CVE-2025-54867).
    pub(super) no_symlinks: bool,
    /// The container is in a user namespace, where what the source forbids stays forbidden.
    pub(super) locked: bool,
    pub(super) idmap: Option<IdMap>,
    pub(super) links: Links,
}

/// The plan.
impl Mount {
    /// Compiles an entry.
    pub fn plan(index: usize, entry: &Entry, context: &PlanContext) -> Result<Mount> {
        let field = |name: &str| format!("/mounts/{index}/{name}");
        let empty = Vec::new();
        let mut options = Options::parse(entry.options().as_ref().unwrap_or(&empty), &field("options"))?;
        let destination = entry.destination();
        let target = RootRelPath::new(destination).field(|| field("destination"))?;
        let fstype = entry.typ().as_deref().unwrap_or("");
        if target.is_root() {
            check_root(index, fstype, &options, destination).field(|| field("destination"))?;
        }
        if !destination.is_absolute() {
            let sentence = format!("{} is relative, taken as {target}", destination.display());
            crate::log::warn(Error::new(sentence).field(field("destination")));
        }

        if options.bind.is_none() && fstype == "bind" && !options.remount {
            log::debug!("{}: a bind by its type alone", field("options"));
            options.bind = Some(false);
        }
        let (namespaces, maps) = (&context.namespaces, context.container_maps);
        let idmap = IdMap::plan(entry, options.idmap.as_ref(), namespaces, maps, &field)?;
        let source = source(entry, &mut options, context, fstype, &field)?;
        check_words(&options, &source, idmap.is_some()).field(|| field("options"))?;
        check_proc(&target, &source).field(|| field("destination"))?;
        let parameters = parameters(&mut options, &source, context.label, &field)?;
        let no_symlinks = target.bytes() == b"proc" || target.bytes() == b"sys" || matches!(fstype, "proc" | "sysfs");
        let propagation = match source {
            Source::Bind { opened, recursive, .. } => {
                propagation::of_bind(&options.propagation, recursive, opened, context.root_propagation)
            }
            _ => options.propagation.clone(),
        };
        let (locked, bind) = (namespaces.has_user(), matches!(source, Source::Bind { .. }));
        if bind && !locked {
            options.complete_atime();
        }
        let replaced = if bind { options.replaced(locked) } else { Attr::empty() };
        Ok(Mount {
            index,
            target,
            source,
            parameters,
            own: options.own,
            all: options.all,
            replaced,
            propagation,
            has_propagation: !options.propagation.is_empty(),
            no_symlinks,
            locked,
            idmap,
            links: options.links,
        })
    }
}

/// The container's root is what `root.path` names, or an overlay that is the first mount.
fn check_root(index: usize, fstype: &str, options: &Options, destination: &Path) -> Result<()> {
    let overlay = index == 0 && fstype == "overlay" && options.bind.is_none() && !options.remount;
    if !overlay {
        let sentence = format!("the destination {} is the container's root", destination.display());
        return Err(Error::new(sentence).hint("only an overlay that is the first mount may take its place"));
    }
    ensure!(options.propagation.is_empty(), "the propagation of the root is that of /linux/rootfsPropagation");
    Ok(())
}

/// Reads the type, source and options of an entry.
fn source(
    entry: &Entry,
    options: &mut Options,
    context: &PlanContext,
    fstype: &str,
    field: &dyn Fn(&str) -> String,
) -> Result<Source> {
    if options.remount {
        return Ok(Source::Remount);
    }
    let text = |path: &Path| {
        let bytes = path.as_os_str().as_bytes();
        CString::new(bytes).map_err(|_| Error::new("a path must not contain a NUL byte").field(field("source")))
    };
    let path = entry.source().as_deref().filter(|path| !path.as_os_str().is_empty());
    if let Some(recursive) = options.bind {
        let path = path.ok_or_else(|| Error::new("a bind needs a source").field(field("source")))?;
        text(path)?;
        return Ok(Source::Bind { path: context.bundle.join(path), recursive, opened: opened_in(options, context) });
    }
    ensure_type(fstype).field(|| field("type"))?;
    let namespaces = &context.namespaces;
    if matches!(fstype, "cgroup" | "cgroup2") {
        return Ok(Source::Cgroup { private: namespaces.has_cgroup() });
    }
    if fstype == "sysfs" && namespaces.has_user() && !namespaces.owns_network {
        return host_sysfs(options).field(|| field("type"));
    }
    let name = path.map(text).transpose()?;
    if fstype == "overlay" {
        let words = entry.options().as_deref().unwrap_or(&[]);
        let overlay = Overlay::plan(name, words, &mut options.parameters, context.bundle, &field("options"))?;
        return Ok(Source::Overlay(Box::new(overlay)));
    }
    let fstype = CString::new(fstype).map_err(|_| Error::new("must not contain a NUL byte").field(field("type")))?;
    let tmpfs = fstype.as_bytes() == b"tmpfs";
    let read_only_last = tmpfs && options.merged().set.contains(Attr::RDONLY);
    Ok(Source::New { fstype, name, copy_up: options.copy_up && tmpfs, read_only_last })
}

/// Which process clones the source of a bind.
fn opened_in(options: &Options, context: &PlanContext) -> OpenIn {
    let needs_host = |&word: &SetPropagation| propagation::needs_host(word, context.root_propagation);
    let namespaces = &context.namespaces;
    let host =
        namespaces.has_user() || namespaces.mount != Isolation::New || options.propagation.iter().any(needs_host);
    if host { OpenIn::Host } else { OpenIn::Child }
}

fn ensure_type(fstype: &str) -> Result<()> {
    match fstype {
        "" => Err(Error::new("must be set").hint("or add the option bind or rbind")),
        "none" => Err(Error::new("none is no file system").hint("add the option bind or rbind")),
        _ => Ok(()),
    }
}

/// Only the owner of a network namespace may mount its sysfs, so others get the host's, which nobody may write.
fn host_sysfs(options: &mut Options) -> Result<Source> {
    if !options.merged().set.contains(Attr::RDONLY) {
        let error = Error::new("a user namespace without its own network namespace may not have a writable sysfs");
        return Err(error.hint("add the option ro, or a network namespace"));
    }
    // With what is mounted below it.
    let all = Attr::RDONLY | Attr::NOSUID | Attr::NODEV | Attr::NOEXEC;
    options.all = options.all.then(Attributes { set: all, clear: Attr::empty() });
    Ok(Source::Bind { path: PathBuf::from("/sys"), recursive: true, opened: OpenIn::Host })
}

/// Words that need a mount of a certain kind.
fn check_words(options: &Options, source: &Source, mapped: bool) -> Result<()> {
    let bind = matches!(source, Source::Bind { .. });
    let mappable = bind || matches!(source, Source::New { .. });
    ensure!(!options.copy_up || matches!(source, Source::New { copy_up: true, .. }), "tmpcopyup needs a tmpfs");
    ensure!(!mapped || mappable, "id-mapped mounts are not supported for this type");
    ensure!(bind || options.links == Links::default(), "what to do with links can only be said of a bind");
    Ok(())
}

/// On `/proc` only a procfs, and below it only a few files: labels and sysctls are written there (CVE-2019-16884).
fn check_proc(target: &RootRelPath, source: &Source) -> Result<()> {
    if !target.is_below("proc") || matches!(source, Source::Remount) {
        return Ok(());
    }
    let allowed = match source {
        // A bind is looked at again when its source is open.
        _ if target.bytes() == b"proc" => match source {
            Source::New { fstype, .. } => fstype.as_bytes() == b"proc",
            Source::Bind { .. } => true,
            _ => false,
        },
        _ => PROC_FILES.iter().any(|file| file.as_bytes() == target.bytes()),
    };
    ensure!(allowed, "{target} cannot be covered because it is inside /proc");
    Ok(())
}

/// What the file system is told, with a read-only device and the label.
fn parameters(
    options: &mut Options,
    source: &Source,
    label: Option<&str>,
    field: &dyn Fn(&str) -> String,
) -> Result<Vec<Parameter>> {
    let mut parameters = std::mem::take(&mut options.parameters);
    let label = || label.map(|label| Parameter::new(&format!("context={label}"))).transpose();
    match source {
        Source::Bind { .. } => {
            check_bind_parameters(&parameters, || field("options")).field(|| field("options"))?;
            parameters.clear();
        }
        Source::New { fstype, .. } => {
            let device = !KERNEL_TYPES.iter().any(|known| known.as_bytes() == fstype.as_bytes());
            if device && options.merged().set.contains(Attr::RDONLY) {
                parameters.insert(0, Parameter::new("ro")?);
            }
            if !matches!(fstype.as_bytes(), b"proc" | b"sysfs" | b"mqueue") {
                parameters.extend(label()?);
            }
        }
        Source::Overlay(_) => parameters.extend(label()?),
        Source::Cgroup { .. } | Source::Remount => {}
    }
    Ok(parameters)
}

/// A bind makes no file system, so that a parameter is without effect, or a misspelt `ro`.
fn check_bind_parameters(parameters: &[Parameter], field: impl Fn() -> String) -> Result<()> {
    for Parameter { key, value } in parameters {
        let key = key.to_string_lossy();
        if value.is_some() || !SUPERBLOCK.contains(&&*key) {
            return Err(Error::new(format!("a bind has no option {key}"))
                .hint("a bind shows a file system that is there already: options for a new one go with its type"));
        }
        crate::log::warn(Error::new(format!("the option {key} has no effect on a bind")).field(field()));
    }
    Ok(())
}

/// What the plan says.
impl Mount {
    /// The destination.
    pub fn target(&self) -> &RootRelPath {
        &self.target
    }

    /// What of the host is bound, if it is a bind.
    pub fn source_path(&self) -> Option<&Path> {
        match &self.source {
            Source::Bind { path, .. } => Some(path),
            _ => None,
        }
    }

    /// Whether it only changes what is there.
    pub fn is_remount(&self) -> bool {
        matches!(self.source, Source::Remount)
    }

    /// The attributes that it is to have.
    pub fn attributes(&self) -> Attr {
        self.all.then(self.own).set
    }

    /// Whether it is a bind.
    pub fn is_bind(&self) -> bool {
        matches!(self.source, Source::Bind { .. })
    }

    /// Whether it is to be read-only.
    pub fn is_read_only(&self) -> bool {
        self.attributes().contains(Attr::RDONLY)
    }

    /// Which process makes the tree to attach.
    pub fn opened_in(&self) -> OpenIn {
        match self.source {
            // Owners are mapped by who has power over the file system.
            _ if self.idmap.is_some() => OpenIn::Host,
            Source::Bind { opened, .. } => opened,
            Source::Overlay(_) => OpenIn::Host,
            Source::New { .. } | Source::Cgroup { .. } | Source::Remount => OpenIn::Child,
        }
    }

    /// Whether its owners are to be mapped.
    pub fn is_mapped(&self) -> bool {
        self.idmap.is_some()
    }

    /// Whether it shows the cgroup that the container is in.
    pub fn is_cgroup(&self) -> bool {
        matches!(self.source, Source::Cgroup { .. })
    }

    /// Whether it is to become read-only last.
    pub fn is_read_only_last(&self) -> bool {
        matches!(self.source, Source::New { read_only_last: true, .. })
    }

    /// Whether what it shows is the processes of the pid namespace of its maker.
    pub fn shows_processes(&self) -> bool {
        matches!(&self.source, Source::New { fstype, .. } if fstype.as_bytes() == b"proc") && self.idmap.is_none()
    }

    /// What cannot be done to a container that runs: the member of the entry that asks for it, and why.
    pub fn what_only_a_new_container_has(&self, cgroup_namespace: bool) -> Option<(&'static str, &'static str)> {
        match self.source {
            Source::Remount => Some(("options", "a remount has no undo: remove the mount and add another")),
            Source::Bind { .. } if self.links.copy => Some(("options", "a copy of a link is no mount")),
            // A fresh one would change the host's own options (nsdelegate).
            Source::Cgroup { .. } if !cgroup_namespace => {
                Some(("type", "the container has no cgroup namespace of its own to show: bind the host's cgroup"))
            }
            _ => None,
        }
    }

    /// `/proc` and `/sys`: what is below them is masked wherever their directories are moved meanwhile.
    pub fn is_anchor(&self) -> bool {
        matches!(self.target.bytes(), b"proc" | b"sys")
    }

    /// Whether mounts below it may propagate to peers.
    pub fn is_shared(&self) -> bool {
        self.propagation.iter().any(|propagation| propagation.kind == Propagation::Shared)
    }

    /// Whether the entry has a word on its propagation.
    pub fn has_propagation(&self) -> bool {
        self.has_propagation
    }

    /// Adds to an error what was to be mounted where.
    pub fn describe<T>(&self, result: Result<T>) -> Result<T> {
        let Err(error) = result else { return result };
        let what = match &self.source {
            Source::New { fstype, .. } => fstype.to_string_lossy().into_owned(),
            Source::Bind { path, .. } => path.display().to_string(),
            Source::Overlay(_) => "overlay".to_owned(),
            Source::Cgroup { .. } => "cgroup2".to_owned(),
            Source::Remount => return Err(error.context(format!("remount {}", self.target)).field(self.pointer())),
        };
        Err(error.context(format!("mount {what} on {}", self.target)).field(self.pointer()))
    }

    /// Its field of `config.json`.
    pub fn pointer(&self) -> String {
        format!("/mounts/{}", self.index)
    }
}
