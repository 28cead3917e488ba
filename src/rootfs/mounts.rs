//! `mounts[]`: what each entry is, decided on the host; made and attached in the container's process, fd to fd.

mod attributes;
mod look;
mod source;

use std::ffi::{CStr, CString};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use oci_spec::runtime::Mount as Entry;

use super::filesystem::{complain, finish, set, start};
use super::idmap::{self, IdMap, Namespaces};
use super::options::{Attributes, Links, Options, Parameter};
use super::overlay::{Overlay, check_root};
use super::path::{Inside, Kind, Place, Root, format, is_directory};
use super::procfs::{Shown, is_proc_root};
use super::spreading::spreading;
use super::{CgroupPaths, Isolation, Request, copyup};
use crate::error::{Context, Error, Result, bail, ensure};
use crate::sys::Errno;
use crate::sys::mount::{Change, Filesystem, Propagation, attach, attr, change, clone_path, clone_unfollowed, spread};
use crate::sys::path::read_link;

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

/// The type of a cgroup file system, and what the table of mounts has as its source.
const CGROUP: &CStr = c"cgroup2";
const CGROUP_NAME: &CStr = c"cgroup";

/// Where a mount comes from.
#[derive(Debug)]
enum Source {
    /// A file system of its own.
    New { fstype: CString, name: Option<CString>, copy_up: bool, read_only_last: bool },
    /// A tree of the host. `early`: cloned before the fork, in the host's mount namespace, since afterwards its peers
    /// are cut off (a shared mount), or it cannot be reached (a user namespace, another mount namespace).
    Bind { path: PathBuf, recursive: bool, early: bool },
    /// Layers of the host, made into an overlay there.
    Overlay(Box<Overlay>),
    /// cgroup2; `private` when the container has a cgroup namespace of its own.
    Cgroup { private: bool },
    /// Changes what is already there.
    Remount,
}

/// One entry of `mounts[]`, compiled.
#[derive(Debug)]
pub(super) struct Mount {
    index: usize,
    target: Inside,
    source: Source,
    parameters: Vec<Parameter>,
    own: Attributes,
    all: Attributes,
    /// Flags that the source of a bind may have, and that are taken away unless they are locked.
    replaced: attr,
    /// Propagation to set, before and, where a shared mount may have been covered, after attaching.
    spread: Vec<(Propagation, bool)>,
    /// Some of that is what the entry says.
    has_spread: bool,
    /// No link may stand at the destination: `/proc` and `/sys` (CVE-2019-19921, CVE-2023-28642, CVE-2025-54867).
    plain: bool,
    /// The container is in a user namespace, where what the source forbids stays forbidden.
    locked: bool,
    idmap: Option<IdMap>,
    links: Links,
}

impl Mount {
    /// Compiles an entry. `propagation` is what `/` of the new mount namespace gets.
    pub(super) fn plan(
        index: usize,
        entry: &Entry,
        request: &Request,
        propagation: Propagation,
        label: Option<&str>,
    ) -> Result<Mount> {
        let field = |name: &str| format!("/mounts/{index}/{name}");
        let empty = Vec::new();
        let mut options = Options::parse(entry.options().as_ref().unwrap_or(&empty), &field("options"))?;
        let destination = entry.destination();
        let target = Inside::new(destination).field(|| field("destination"))?;
        let fstype = entry.typ().as_deref().unwrap_or("");
        if target.is_root() {
            check_root(index, fstype, &options, destination).field(|| field("destination"))?;
        }
        if !destination.is_absolute() {
            log::warn!("{}: {} is relative, taken as {target}", field("destination"), destination.display());
        }

        if options.bind.is_none() && fstype == "bind" && !options.remount {
            log::debug!("{}: a bind by its type alone", field("options"));
            options.bind = Some(false);
        }
        let idmap = IdMap::plan(entry, options.idmap.as_ref(), request, &field)?;
        let source = source::read(entry, &mut options, request, propagation, fstype, &field)?;
        check_words(&options, &source, idmap.is_some()).field(|| field("options"))?;
        check_proc(&target, &source).field(|| field("destination"))?;
        let mut parameters = std::mem::take(&mut options.parameters);
        match &source {
            Source::Bind { .. } => {
                check_bind_parameters(&parameters, || field("options")).field(|| field("options"))?;
                parameters.clear();
            }
            Source::New { fstype, .. } => {
                let device = !KERNEL_TYPES.iter().any(|known| known.as_bytes() == fstype.as_bytes());
                if device && options.merged().set.contains(attr::RDONLY) {
                    parameters.insert(0, Parameter::new("ro")?);
                }
                let labelled = !matches!(fstype.as_bytes(), b"proc" | b"sysfs" | b"mqueue");
                if let (Some(label), true) = (label, labelled) {
                    parameters.push(Parameter::new(&format!("context={label}"))?);
                }
            }
            Source::Overlay(_) => {
                parameters.extend(label.map(|label| Parameter::new(&format!("context={label}"))).transpose()?);
            }
            Source::Cgroup { .. } | Source::Remount => {}
        }
        let plain = target.bytes() == b"proc" || target.bytes() == b"sys" || matches!(fstype, "proc" | "sysfs");
        let spread = match source {
            Source::Bind { early, recursive, .. } => spreading(&options.spread, recursive, early, propagation),
            _ => options.spread.clone(),
        };
        let has_spread = !options.spread.is_empty();
        let (locked, bind) = (request.user_namespace, matches!(source, Source::Bind { .. }));
        if bind && !locked {
            options.complete_atime();
        }
        let replaced = if bind { options.replaced(locked) } else { attr::empty() };
        let (own, all, links) = (options.own, options.all, options.links);
        Ok(Mount {
            index,
            target,
            source,
            parameters,
            own,
            all,
            replaced,
            spread,
            has_spread,
            plain,
            locked,
            idmap,
            links,
        })
    }

    /// The destination.
    pub(super) fn target(&self) -> &Inside {
        &self.target
    }

    /// What of the host is bound, if it is a bind.
    pub(super) fn source_path(&self) -> Option<&std::path::Path> {
        match &self.source {
            Source::Bind { path, .. } => Some(path),
            _ => None,
        }
    }

    /// Whether it only changes what is there.
    pub(super) fn is_remount(&self) -> bool {
        matches!(self.source, Source::Remount)
    }

    /// The attributes that it is to have.
    pub(super) fn attributes(&self) -> attr {
        self.all.then(self.own).set
    }

    /// Whether it is a bind.
    pub(super) fn is_bind(&self) -> bool {
        matches!(self.source, Source::Bind { .. })
    }

    /// Whether it is to be read-only.
    pub(super) fn is_read_only(&self) -> bool {
        self.all.then(self.own).set.contains(attr::RDONLY)
    }

    /// Whether the tree to attach must be taken, or made, on the host before the fork.
    pub(super) fn is_early(&self) -> bool {
        // Owners are mapped by who has power over the file system.
        self.idmap.is_some() || matches!(self.source, Source::Bind { early: true, .. } | Source::Overlay(_))
    }

    /// On the host, before the fork: the tree to attach, for an early mount, and whether its owners are still to be
    /// mapped, by the container's user namespace.
    pub(super) fn open(&self, namespaces: &mut Namespaces) -> Result<(OwnedFd, bool)> {
        self.open_showing(namespaces, None)
    }

    /// The same for a procfs that is to show another pid namespace than our own.
    pub(super) fn open_showing(&self, namespaces: &mut Namespaces, shown: Option<&Shown>) -> Result<(OwnedFd, bool)> {
        let mut open = || {
            let tree = match &self.source {
                Source::Bind { path, recursive, .. } => self.clone_source(path, *recursive)?,
                Source::New { fstype, name, read_only_last, .. } => {
                    self.make(fstype, name.as_ref(), *read_only_last, None, shown)?
                }
                Source::Overlay(overlay) => self.make_overlay(overlay)?,
                Source::Cgroup { .. } | Source::Remount => bail!("its owners cannot be mapped"),
            };
            let mapped = match &self.idmap {
                Some(map) => map.apply(&tree, namespaces, self.origin())?,
                None => true,
            };
            Ok((tree, !mapped))
        };
        self.describe(open())
    }

    /// On the host: maps the owners of a tree that waited for the container's user namespace.
    pub(super) fn map_ids(&self, tree: &OwnedFd, namespace: BorrowedFd<'_>) -> Result<()> {
        match &self.idmap {
            Some(map) => self.describe(map.map(tree, namespace, self.origin())),
            None => Ok(()),
        }
    }

    /// Whether its owners are to be mapped.
    pub(super) fn is_mapped(&self) -> bool {
        self.idmap.is_some()
    }

    fn origin(&self) -> idmap::Source<'_> {
        match &self.source {
            Source::Bind { path, .. } => idmap::Source::Path(path),
            Source::New { fstype, .. } => idmap::Source::Type(fstype.to_str().unwrap_or_default()),
            Source::Overlay(_) => idmap::Source::Type("overlay"),
            Source::Cgroup { .. } | Source::Remount => idmap::Source::Type("cgroup2"),
        }
    }

    /// In the container's process: makes it, puts it in place. Gives back the mount, if it is a new one.
    pub(super) fn attach(&self, root: &Root, early: Option<OwnedFd>, world: &World) -> Result<Option<OwnedFd>> {
        self.describe(self.attach_inner(root, early, world))
    }

    fn attach_inner(&self, root: &Root, early: Option<OwnedFd>, world: &World) -> Result<Option<OwnedFd>> {
        let (place, tree) = match &self.source {
            Source::Bind { path, recursive, .. } => {
                let tree = match early {
                    Some(tree) => tree,
                    None => self.clone_source(path, *recursive)?,
                };
                if self.links.copy && is_link(&tree)? {
                    root.link(&self.target, &read_link(&tree)?).context("copy the link")?;
                    return Ok(None);
                }
                let kind = || Ok(if is_directory(&tree)? { Kind::Directory } else { Kind::File });
                let place = self.place(root, kind)?;
                (place, tree)
            }
            Source::New { fstype, name, copy_up, read_only_last } => {
                let place = self.place(root, || Ok(Kind::Directory))?;
                let tree = match early {
                    Some(tree) => tree,
                    None => self.make(fstype, name.as_ref(), *read_only_last, Some(&place), world.shown.as_ref())?,
                };
                if *copy_up && !place.made {
                    let said = |key: &str| self.has_parameter(key);
                    let said = copyup::Said { mode: said("mode"), user: said("uid"), group: said("gid") };
                    copyup::copy(&place.fd, &tree, said)?;
                }
                (place, tree)
            }
            Source::Overlay(overlay) => {
                let place = self.place(root, || Ok(Kind::Directory))?;
                (place, early.map_or_else(|| self.make_overlay(overlay), Ok)?)
            }
            Source::Cgroup { private } => {
                let place = self.place(root, || Ok(Kind::Directory))?;
                (place, self.make_cgroup(*private, world.cgroup.as_ref())?)
            }
            Source::Remount => {
                self.remount(root)?;
                return Ok(None);
            }
        };
        attach(&tree, &place.fd).map_err(|errno| match (errno, is_directory(&tree), is_directory(&place.fd)) {
            // The kernel has one word for many reasons; this is the one people meet.
            (Errno::EINVAL, Ok(source), Ok(place)) if source != place => misfit(source),
            _ => errno.into(),
        })?;
        Ok(Some(tree))
    }

    /// Gives a mount that is in place its propagation: on a shared one it has become shared by being attached there.
    pub(super) fn spread_again(&self, tree: &OwnedFd, world: &World) -> Result<()> {
        let spread = || self.spread.iter().try_for_each(|&(kind, all)| change(tree, all, Change::spread(kind)));
        let done = if world.shared { spread() } else { Ok(()) };
        self.describe(done.context("set its propagation"))
    }

    /// Whether it is to become read-only last.
    pub(super) fn is_read_only_last(&self) -> bool {
        matches!(self.source, Source::New { read_only_last: true, .. })
    }

    /// Whether what it shows is the processes of the pid namespace of its maker.
    pub(super) fn shows_processes(&self) -> bool {
        matches!(&self.source, Source::New { fstype, .. } if fstype.as_bytes() == b"proc") && self.idmap.is_none()
    }

    /// What cannot be done to a container that runs: the member of the entry that asks for it, and why.
    pub(super) fn what_only_a_new_container_has(&self, cgroup_namespace: bool) -> Option<(&'static str, &'static str)> {
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
    pub(super) fn is_anchor(&self) -> bool {
        matches!(self.target.bytes(), b"proc" | b"sys")
    }

    /// Whether mounts below it may spread to peers.
    pub(super) fn shares(&self) -> bool {
        self.spread.iter().any(|&(kind, _)| kind == spread::SHARED)
    }

    /// Whether it has a word of its own on how it spreads.
    pub(super) fn has_spread(&self) -> bool {
        self.has_spread
    }

    /// Gives it the propagation of the root, once all are in place.
    pub(super) fn spread_as(&self, root: &Root, kind: Propagation, recursive: bool) -> Result<()> {
        let spread = || {
            let place = self.place(root, || Err(Errno::ENOENT))?;
            change(&place.fd, recursive, Change::spread(kind)).context("set its propagation")
        };
        match self.describe(spread()) {
            // A later mount hides it from everybody, or a link was copied and there is no mount.
            Err(error) if matches!(error.errno(), Some(Errno::ENOENT | Errno::ENOTDIR | Errno::EINVAL)) => Ok(()),
            done => done,
        }
    }

    pub(super) fn describe<T>(&self, result: Result<T>) -> Result<T> {
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
    pub(super) fn pointer(&self) -> String {
        format!("/mounts/{}", self.index)
    }

    /// Finds the destination or makes it, and checks that it may be covered.
    fn place(&self, root: &Root, kind: impl FnOnce() -> crate::sys::Result<Kind>) -> Result<Place> {
        let place = if self.plain {
            match root.find_plain(&self.target) {
                Ok(fd) => return Ok(Place { fd, linked: false, made: false }),
                Err(Errno::ENOENT) => root.make(&self.target, Kind::Directory).context("make the destination")?,
                Err(Errno::ELOOP) => return Err(self.is_link()),
                Err(error) => return Err(error).context("open the destination"),
            }
        } else if self.links.cover_destination {
            root.find_or_make_unfollowed(&self.target, kind).context("open the destination")?
        } else {
            root.find_or_make(&self.target, kind).context("open the destination")?
        };
        if place.linked && self.plain {
            return Err(self.is_link());
        }
        if place.linked {
            self.check_linked(root, &place)?;
        }
        Ok(place)
    }

    fn is_link(&self) -> Error {
        Error::new(format!(
            "{} must be mounted on ordinary directory, and is or lies behind a symbolic link",
            self.target
        ))
    }

    /// Behind a link the text of the destination says nothing, so the rules are asked of the object.
    fn check_linked(&self, root: &Root, place: &Place) -> Result<()> {
        let (here, top) = (fstat(&place.fd)?, fstat(root.fd())?);
        ensure!(
            (here.st_dev, here.st_ino) != (top.st_dev, top.st_ino),
            "the destination is a symbolic link to the container's root"
        );
        if fstatfs(&place.fd)?.filesystem_type() != PROC_SUPER_MAGIC {
            return Ok(());
        }
        let proc = Inside::new(Path::new("proc"))?;
        let inside = root.find_plain(&proc).and_then(fstat).is_ok_and(|proc| proc.st_dev == here.st_dev);
        ensure!(!inside, "the destination is a symbolic link, and its target is inside /proc");
        Ok(())
    }

    /// A detached copy of the source, with its attributes.
    fn clone_source(&self, path: &Path, recursive: bool) -> Result<OwnedFd> {
        let tree = if self.follows() { clone_path(path, recursive) } else { clone_unfollowed(path, recursive) };
        let tree = found(tree, path)?;
        self.check_source(&tree, path)?;
        self.check_read_only(&tree)?;
        self.dress(&tree, recursive)?;
        Ok(tree)
    }

    /// Whether a source that is a link is what that leads to.
    fn follows(&self) -> bool {
        !self.links.copy && !self.links.mount_source
    }

    fn check_source(&self, tree: &OwnedFd, path: &Path) -> Result<()> {
        if self.target.bytes() == b"proc" {
            ensure!(is_proc_root(tree)?, "{} is not a procfs, and nothing else may cover /proc", path.display());
        }
        self.check_locked(tree)
    }

    /// A detached mount of a new file system; `place` is what it covers, once that is known.
    fn make(
        &self,
        fstype: &CString,
        name: Option<&CString>,
        read_only_last: bool,
        place: Option<&Place>,
        shown: Option<&Shown>,
    ) -> Result<OwnedFd> {
        let filesystem = start(fstype)?;
        if let Some(shown) = shown.filter(|_| fstype.as_bytes() == b"proc")
            && !shown.tell(&filesystem).map_err(|errno| complain(&filesystem, errno, "choose the pid namespace"))?
        {
            return self.clone_procfs(shown);
        }
        self.parametrize(&filesystem, name.map(CString::as_c_str))?;
        let tmpfs = fstype.as_bytes() == b"tmpfs";
        if let Some(place) = place.filter(|place| tmpfs && !place.made && !self.has_parameter("mode")) {
            // As the directory that it covers, the sticky bit included.
            let mode = format!("{:o}", fstat(&place.fd)?.st_mode & 0o7777);
            set(&filesystem, c"mode", Some(&CString::new(mode).unwrap_or_default()))?;
        }
        let mut attributes = self.all.then(self.own).set;
        if read_only_last {
            attributes &= !attr::RDONLY;
        }
        let tree = finish(&filesystem, attributes)?;
        self.spread_new(&tree)?;
        Ok(tree)
    }

    /// Where the kernel makes none for another pid namespace.
    fn clone_procfs(&self, shown: &Shown) -> Result<OwnedFd> {
        if let Some(parameter) = self.parameters.first() {
            let key = parameter.key.to_string_lossy();
            return Err(Error::new(format!("the option {key} cannot be given to a procfs of another pid namespace"))
                .hint("it needs Linux 6.18 (mount option pidns): leave it out"));
        }
        let tree = shown.clone_existing(self.all.then(self.own).set)?;
        self.spread_new(&tree)?;
        Ok(tree)
    }

    /// Gives a file system that is started its name and what the entry says of it.
    fn parametrize(&self, filesystem: &Filesystem, name: Option<&CStr>) -> Result<()> {
        if let Some(name) = name {
            set(filesystem, c"source", Some(name))?;
        }
        self.parameters.iter().try_for_each(|parameter| set(filesystem, &parameter.key, parameter.value.as_deref()))
    }

    fn make_overlay(&self, overlay: &Overlay) -> Result<OwnedFd> {
        let mut attributes = self.all.then(self.own).set;
        if self.target.is_root() {
            // Mount points may still have to be made.
            attributes &= !attr::RDONLY;
        }
        if self.locked {
            // As the kernel has it for one that is made in the user namespace.
            attributes |= attr::NODEV;
        }
        let tree = overlay.mount(&self.parameters, attributes)?;
        self.spread_new(&tree)?;
        Ok(tree)
    }

    /// The propagation of a mount that has no peers.
    fn spread_new(&self, tree: &OwnedFd) -> Result<()> {
        for &(kind, all) in &self.spread {
            if !matches!(kind, spread::PRIVATE | spread::SLAVE) {
                change(tree, all, Change::spread(kind)).context("set its propagation")?;
            }
        }
        Ok(())
    }

    /// Whether it shows the cgroup that the container is in.
    pub(super) fn is_cgroup(&self) -> bool {
        matches!(self.source, Source::Cgroup { .. })
    }

    fn has_parameter(&self, key: &str) -> bool {
        self.parameters.iter().any(|parameter| parameter.key.as_bytes() == key.as_bytes())
    }

    /// With a cgroup namespace, a mount of cgroup2 shows the container's own part. Without one, the host's mount is
    /// bound: a fresh one would also reset the host's own options (nsdelegate).
    fn make_cgroup(&self, private: bool, paths: Option<&CgroupPaths>) -> Result<OwnedFd> {
        let fresh = private || paths.is_none();
        if fresh {
            match self.make_fresh_cgroup() {
                // Not ours to mount: the cgroup namespace belongs to another user namespace, or a sandbox forbids it.
                Err(error) if matches!(error.errno(), Some(Errno::EPERM | Errno::EBUSY)) && paths.is_some() => {}
                done => return done,
            }
        }
        let Some(paths) = paths else { bail!("the host has no cgroup v2") };
        let path = if private { &paths.cgroup } else { &paths.mount };
        let tree = match clone_path(path, true) {
            Ok(tree) => tree,
            // What is not visible must not let through what is (CVE-2023-25809): an empty read-only directory.
            Err(Errno::ENOENT) => return super::filesystem::empty_directory(),
            Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
        };
        // All of it, or `ro` would not reach what is mounted below.
        let Attributes { set, clear } = self.all.then(self.own);
        let propagation = Some(self.spread.first().map_or(spread::SLAVE, |&(kind, _)| kind));
        change(&tree, true, Change { set, clear, propagation }).context("set its attributes")?;
        Ok(tree)
    }

    fn make_fresh_cgroup(&self) -> Result<OwnedFd> {
        let filesystem = start(CGROUP)?;
        self.parametrize(&filesystem, Some(CGROUP_NAME))?;
        finish(&filesystem, self.all.then(self.own).set)
    }

    fn remount(&self, root: &Root) -> Result<()> {
        let place = root.find(&self.target).context("open the destination")?;
        if place.linked {
            self.check_linked(root, &place)?;
        }
        if !self.parameters.is_empty() {
            let filesystem = Filesystem::pick(&place.fd).context("it is not a mount")?;
            self.parametrize(&filesystem, None)?;
            filesystem.reconfigure().map_err(|errno| complain(&filesystem, errno, "change the file system"))?;
        }
        self.dress(&place.fd, true)
    }
}

/// The source of a bind, which may not be there.
fn found(tree: crate::sys::Result<OwnedFd>, path: &Path) -> Result<OwnedFd> {
    let tree = tree.map_err(|errno| match errno {
        Errno::ENOENT => Error::from(errno).hint("a bind shows what is on the host already: make it first"),
        _ => errno.into(),
    });
    tree.with_context(|| format!("open {}", path.display()))
}

/// That of source and destination one alone is a directory. dockerd takes that last phrase for a program that cannot be
/// executed, so no text of ours has it.
fn misfit(source: bool) -> Error {
    Error::from(Errno::ENOTDIR).hint(match source {
        true => "a directory cannot cover a file: the destination must be a directory, too, or not be there yet",
        false => "a file cannot cover a directory: the destination must be a file, too, or not be there yet",
    })
}

/// What attaching needs to know of the rest.
pub(super) struct World {
    pub(super) cgroup: Option<CgroupPaths>,
    /// A shared mount has been attached before.
    pub(super) shared: bool,
    /// The pid namespace that a procfs shows, if its maker is outside of that.
    pub(super) shown: Option<Shown>,
}

/// Words that need a mount of a certain kind.
fn check_words(options: &Options, source: &Source, mapped: bool) -> Result<()> {
    let bind = matches!(source, Source::Bind { .. });
    let mappable = bind || matches!(source, Source::New { .. });
    ensure!(!options.copy_up || matches!(source, Source::New { copy_up: true, .. }), "tmpcopyup needs a tmpfs");
    ensure!(!mapped || mappable, "the owners of this mount cannot be mapped");
    ensure!(bind || options.links == Links::default(), "what to do with links can only be said of a bind");
    Ok(())
}

/// On `/proc` only a procfs, and below it only a few files: labels and sysctls are written there (CVE-2019-16884).
fn check_proc(target: &Inside, source: &Source) -> Result<()> {
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

fn is_link(tree: &OwnedFd) -> Result<bool> {
    Ok(format(&fstat(tree)?) == SFlag::S_IFLNK)
}

/// A bind makes no file system, so that a parameter is without effect, or a misspelt `ro`.
fn check_bind_parameters(parameters: &[Parameter], field: impl Fn() -> String) -> Result<()> {
    for Parameter { key, value } in parameters {
        let key = key.to_string_lossy();
        if value.is_some() || !SUPERBLOCK.contains(&&*key) {
            return Err(Error::new(format!("a bind has no option {key}"))
                .hint("a bind shows a file system that is there already: options for a new one go with its type"));
        }
        log::warn!("{}: the option {key} has no effect on a bind", field());
    }
    Ok(())
}
