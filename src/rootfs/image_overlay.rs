//! An image directory that is never written to: an overlay above it is the container's root, by the annotation
//! [`ANNOTATION`], so that many containers share the directory without an engine.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, fchmod, fstat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, chroot, fchdir, fchown, unlinkat};

use super::filesystem::{finish, set, start};
use super::idmap::{IdMap, Origin, UserNamespaces};
use super::options::Parameter;
use super::overlay_dir::{self, DIRECTORY, DIRECTORY_PATH, OverlayDir, check_outside};
use super::stack::{Stack, remedy};
use crate::error::{Context, Error, Result, ensure};
use crate::host;
use crate::sys::Errno;
use crate::sys::clone::{setns, unshare};
use crate::sys::mount::{Attr, Change, Propagation, attach, change_all, clone_fd};
use crate::sys::ns::Flags;

/// The annotation's name.
pub const ANNOTATION: &str = "run.corten.rootfs.overlay";

/// The same as a JSON pointer.
pub(super) const FIELD: &str = "/annotations/run.corten.rootfs.overlay";

/// What it may say.
pub const FORMS: &str = "tmpfs, tmpfs,size=SIZE, dir=PATH or readonly, each with idmap, before it or not";

/// Before a form: the image's owners are mapped into the container's user namespace.
const MAPPED: &str = "idmap,";

/// Names in the directory of `dir=`: the upper layer, and the beginning of each container's own work directory.
const UPPER: &CStr = c"upper";
const WORK: &str = "work-";

/// What the kernel makes in a work directory.
const INSIDE_WORK: &[&CStr] = &[c"work", c"index"];

/// The overlay above an image directory, compiled.
#[derive(Debug)]
pub(super) struct ImageOverlay {
    upper: Upper,
    /// The root becomes read-only in the end: only mount points are made in the upper layer.
    pub(super) read_only: bool,
    map: Option<IdMap>,
    label: Option<Parameter>,
}

/// Where what the container writes goes.
#[derive(Debug, PartialEq, Eq)]
enum Upper {
    /// Into memory, and away with the container.
    Memory { size: Option<CString> },
    /// Into a directory, to be found there by the next container.
    Directory { place: OverlayDir, work: CString },
}

impl ImageOverlay {
    /// Compiles the annotation of a container, with or without a user namespace; `bundle` is where a relative path
    /// starts.
    pub(super) fn plan(
        value: &str,
        bundle: &Path,
        id: &str,
        label: Option<&str>,
        user_namespace: bool,
    ) -> Result<ImageOverlay> {
        let label = label.map(|label| Parameter::new(&format!("context={label}"))).transpose()?;
        let (form, mapped) = form(value);
        let upper = Upper::parse(value, bundle, id)?;
        ensure!(user_namespace || !mapped, "{value:?} asks for a map of owners, which belongs to a user namespace");
        Ok(ImageOverlay { upper, read_only: form == "readonly", map: mapped.then(IdMap::of_container), label })
    }

    /// Whether what is written can be kept where it is to be; nothing is made.
    pub(super) fn preflight(&self, image: BorrowedFd<'_>) -> Result<()> {
        let Upper::Directory { place, .. } = &self.upper else { return Ok(()) };
        let look = || match place.open() {
            Err(Errno::ENOENT) => place.open_parent(image).map(drop),
            opened => check_outside(overlay_dir::explain(opened, "open the directory")?.as_fd(), image),
        };
        let outcome = look().with_context(|| format!("keep what is written in {}", place.path().display()));
        outcome.context("make the overlay above the image").field(|| FIELD)
    }

    /// On the host: makes it as a detached mount. `image` is its lowest layer, the directory at `path`.
    pub(super) fn mount(
        &self,
        image: BorrowedFd<'_>,
        path: &Path,
        namespaces: &mut UserNamespaces<'_>,
    ) -> Result<OwnedFd> {
        let made = match &self.map {
            None => self.mount_above(image),
            Some(map) => (|| {
                let mapped = clone_fd(image, false).context("clone the image directory")?;
                map.apply(&mapped, namespaces, Origin::Path(path))?;
                self.mount_above(mapped.as_fd())
            })()
            .hint("owners of an image can be mapped from Linux 6.15 on"),
        };
        made.context("make the overlay above the image").field(|| FIELD)
    }

    fn mount_above(&self, image: BorrowedFd<'_>) -> Result<OwnedFd> {
        match &self.upper {
            Upper::Memory { size } => match self.in_memory(image, size.as_deref(), |_| Ok(())) {
                // Before Linux 6.15 a layer has to be mounted somewhere.
                Err(error) if self.map.is_none() && matches!(error.errno(), Some(Errno::EINVAL | Errno::EBADF)) => {
                    self.in_memory_elsewhere(image, size.as_deref())
                }
                done => done,
            },
            Upper::Directory { place, work } => self
                .in_directory(image, place, work)
                .with_context(|| format!("keep what is written in {}", place.path().display())),
        }
    }

    fn in_memory_elsewhere(&self, image: BorrowedFd<'_>, size: Option<&CStr>) -> Result<OwnedFd> {
        elsewhere(image, |image, place| {
            self.in_memory(image, size, |tmpfs| attach(tmpfs, place).context("mount the tmpfs"))
        })
    }

    fn in_memory(
        &self,
        image: BorrowedFd<'_>,
        size: Option<&CStr>,
        place: impl FnOnce(&OwnedFd) -> Result<()>,
    ) -> Result<OwnedFd> {
        let filesystem = start(c"tmpfs")?;
        set(&filesystem, c"mode", Some(c"0700"))?;
        if let Some(size) = size {
            set(&filesystem, c"size", Some(size))?;
        }
        if let Some(label) = &self.label {
            set(&filesystem, &label.key, label.value.as_deref())?;
        }
        let tmpfs = finish(&filesystem, Attr::empty())?;
        place(&tmpfs)?;
        let (upper, work) = (make_upper(tmpfs.as_fd(), image)?, make_directory(tmpfs.as_fd(), c"work")?);
        self.stack(image, upper, work)
    }

    fn in_directory(&self, image: BorrowedFd<'_>, place: &OverlayDir, work: &CStr) -> Result<OwnedFd> {
        let directory = match place.open() {
            Err(Errno::ENOENT) => place.make(image)?,
            opened => overlay_dir::explain(opened, "open the directory")?,
        };
        check_outside(directory.as_fd(), image)?;
        // Until it is closed: by then the kernel knows that the upper layer is in use.
        let directory = File::from(directory);
        directory.lock().context("lock the directory")?;
        let upper = make_upper(directory.as_fd(), image)?;
        clear(directory.as_fd(), &upper, image)?;
        let work = make_directory(directory.as_fd(), work)?;
        self.stack(image, upper, work)
    }

    fn stack(&self, image: BorrowedFd<'_>, upper: OwnedFd, work: OwnedFd) -> Result<OwnedFd> {
        let mut stack = Stack::start(None)?;
        // An index outlives a container, in the work directory, and ties the upper layer to this image directory.
        stack.set(c"index", Some(c"off"))?;
        if host::in_user_namespace() {
            // The usual attributes, trusted.*, belong to the host's root.
            stack.set(c"userxattr", None)?;
        }
        if let Some(label) = &self.label {
            stack.set(&label.key, label.value.as_deref())?;
        }
        stack.add(c"lowerdir+", image.try_clone_to_owned()?, &"the image directory")?;
        stack.add(c"upperdir", upper, &"the upper layer")?;
        stack.add(c"workdir", work, &"the work directory")?;
        stack.mount(Attr::empty()).map_err(remedy)
    }
}

/// The directory of `dir=` as it is written, where that is no path below the bundle.
pub fn outside(value: &str) -> Option<&Path> {
    form(value).0.strip_prefix("dir=").map(Path::new).filter(|path| !overlay_dir::is_below(path))
}

/// The form that an annotation has, and whether owners are mapped.
fn form(value: &str) -> (&str, bool) {
    value.strip_prefix(MAPPED).map_or((value, false), |form| (form, true))
}

impl Upper {
    fn parse(value: &str, bundle: &Path, id: &str) -> Result<Upper> {
        let text = |text: &str| CString::new(text).map_err(|_| Error::new("a NUL byte stands in it"));
        let (form, _) = form(value);
        match form.split_once('=') {
            None if matches!(form, "tmpfs" | "readonly") => Ok(Upper::Memory { size: None }),
            Some(("tmpfs,size", size)) => {
                let digits = size.trim_end_matches(|letter: char| letter.is_ascii_alphabetic() || letter == '%');
                let number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
                let unit = matches!(&size[digits.len()..], "" | "k" | "K" | "m" | "M" | "g" | "G" | "%");
                ensure!(number && unit, "{size:?} is no size: write for instance tmpfs,size=64m");
                Ok(Upper::Memory { size: Some(text(size)?) })
            }
            Some(("dir", path)) if !path.is_empty() => {
                text(path)?;
                Ok(Upper::Directory {
                    place: OverlayDir::new(bundle, path.as_ref()),
                    work: text(&format!("{WORK}{id}"))?,
                })
            }
            _ => Err(Error::new(format!("{value:?} is not understood")).hint(format!("write {FORMS}"))),
        }
    }
}

/// On the host, when a container is deleted, or could not be made: removes what the annotation's `dir=` needs only
/// while it is mounted. The upper layer stays.
pub fn remove_overlay_workdir(value: &str, bundle: &Path, id: &str) {
    let Ok(Upper::Directory { place, work }) = Upper::parse(value, bundle, id) else { return };
    let swept = place.open().and_then(|directory| remove_work(directory.as_fd(), &work));
    match swept {
        // A place outside of the bundle was never written to.
        Ok(()) | Err(Errno::ENOENT | Errno::EXDEV) => {}
        Err(errno) => log::warn!("the work directory in {} stays: {}", place.path().display(), Error::from(errno)),
    }
}

/// Removes a work directory.
fn remove_work(directory: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let work = openat(directory, name, DIRECTORY | OFlag::O_PATH, Mode::empty())?;
    for inside in INSIDE_WORK {
        match unlinkat(&work, *inside, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(Errno::ENOTEMPTY) => empty(&work, inside)?,
            Err(error) => return Err(error),
        }
    }
    unlinkat(directory, name, UnlinkatFlags::RemoveDir)
}

/// Removes what the kernel made in its part of a work directory: one whiteout that all share, which it leaves there.
fn empty(work: &OwnedFd, name: &CStr) -> Result<(), Errno> {
    let mut entries = Dir::openat(work, name, DIRECTORY, Mode::empty())?;
    for name in names(&mut entries, b"#")? {
        unlinkat(&entries, name.as_c_str(), UnlinkatFlags::NoRemoveDir)?;
    }
    unlinkat(work, name, UnlinkatFlags::RemoveDir)
}

/// The names in a directory that begin with `prefix`.
fn names(directory: &mut Dir, prefix: &[u8]) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in directory.iter() {
        let entry = entry?;
        names.extend(Some(entry.file_name()).filter(|name| name.to_bytes().starts_with(prefix)).map(CStr::to_owned));
    }
    Ok(names)
}

/// Removes the work directories of containers that ended without being deleted; refuses where one is still in use.
fn clear(directory: BorrowedFd<'_>, upper: &OwnedFd, image: BorrowedFd<'_>) -> Result<()> {
    let mut entries = Dir::openat(directory, c".", OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let others = names(&mut entries, WORK.as_bytes()).context("read the directory")?;
    if others.is_empty() {
        return Ok(());
    }
    if is_in_use(upper, image)? {
        return Err(Errno::EBUSY)
            .context("another container has its upper layer there")
            .hint("give each container a directory of its own");
    }
    for other in others {
        // What has something in it is no harm.
        let _ = remove_work(directory, &other);
    }
    Ok(())
}

/// Whether an overlay has this upper layer. The kernel tells with index=on, and before it looks at the work directory,
/// which it then refuses for being the upper layer: nothing is ever made.
fn is_in_use(upper: &OwnedFd, image: BorrowedFd<'_>) -> Result<bool> {
    let mut stack = Stack::start(None)?;
    stack.set(c"index", Some(c"on"))?;
    stack.add(c"lowerdir+", image.try_clone_to_owned()?, &"the image directory")?;
    stack.add(c"upperdir", upper.try_clone()?, &"the upper layer")?;
    stack.add(c"workdir", upper.try_clone()?, &"the work directory")?;
    Ok(stack.mount(Attr::empty()).is_err_and(|error| error.errno() == Some(Errno::EBUSY)))
}

/// The upper layer, whose root is the container's: a new one looks like the image's.
fn make_upper(parent: BorrowedFd<'_>, image: BorrowedFd<'_>) -> Result<OwnedFd> {
    let made = match mkdirat(parent, UPPER, Mode::S_IRWXU) {
        Ok(()) => true,
        Err(Errno::EEXIST) => false,
        Err(error) => return Err(error).context("make the upper layer"),
    };
    let upper = openat(parent, UPPER, DIRECTORY, Mode::empty()).context("open the upper layer")?;
    if made {
        let stat = fstat(image)?;
        let owner = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
        // First the owner, whose change may drop bits of the mode.
        fchown(&upper, owner.0, owner.1).context("give the upper layer to the owner of the image")?;
        fchmod(&upper, Mode::from_bits_truncate(stat.st_mode & 0o7777)).context("set the mode of the upper layer")?;
    }
    Ok(upper)
}

fn make_directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    match mkdirat(parent, name, Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(error) => return Err(error).context("make the work directory"),
    }
    openat(parent, name, DIRECTORY, Mode::empty()).context("open the work directory")
}

/// Does something in a mount namespace that ends with it, and comes back. It is given the image, and a place to mount
/// on, both as they are there.
fn elsewhere<T>(image: BorrowedFd<'_>, work: impl FnOnce(BorrowedFd<'_>, BorrowedFd<'_>) -> Result<T>) -> Result<T> {
    let here = |path: &str| open(path, DIRECTORY_PATH, Mode::empty());
    let (root, home) = (here("/")?, here(".")?);
    let namespace = open("/proc/self/ns/mnt", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .context("open our own mount namespace")?;
    // The working directory goes along, to its copy in the new namespace.
    fchdir(image).context("enter the image directory")?;
    let done = unshare(Flags::MOUNT).context("make a mount namespace").and_then(|()| {
        let work = || {
            change_all(Change::propagation(Propagation::Private)).context("set mount propagation of /")?;
            let image = here(".")?;
            work(image.as_fd(), image.as_fd())
        };
        let done = work();
        setns(namespace.as_fd(), Flags::MOUNT).context("go back to our own mount namespace")?;
        // Which began at the namespace's root.
        fchdir(&root).and_then(|()| chroot(".")).context("go back to our own root directory")?;
        done
    });
    fchdir(&home).context("go back to the working directory")?;
    done
}

#[cfg(test)]
mod tests {
    use nix::sched::CloneFlags;

    use super::*;
    use crate::rootfs::Isolation;
    use crate::rootfs::native_tests::{Trial, is_root};
    use crate::sys::test_support::apart;

    fn parse(value: &str) -> Result<Upper> {
        Upper::parse(value, Path::new("/b"), "web")
    }

    #[test]
    fn the_forms_of_the_annotation_are_understood() {
        let memory = |size: Option<&CStr>| Upper::Memory { size: size.map(CStr::to_owned) };
        let directory = |place: OverlayDir| Upper::Directory { place, work: c"work-web".to_owned() };
        let below = |path: &str| directory(OverlayDir::Bundle { bundle: "/b".into(), path: path.into() });
        let anywhere = |path: &str| directory(OverlayDir::Host(path.into()));
        for (value, upper) in [
            ("tmpfs", memory(None)),
            ("readonly", memory(None)),
            ("tmpfs,size=64m", memory(Some(c"64m"))),
            ("tmpfs,size=10%", memory(Some(c"10%"))),
            ("dir=state", below("state")),
            ("dir=.", below(".")),
            ("dir=../state", anywhere("/b/../state")),
            ("dir=a/../state", anywhere("/b/a/../state")),
            ("dir=/var/a,b=c", anywhere("/var/a,b=c")),
            ("idmap,readonly", memory(None)),
            ("idmap,dir=idmap,x", below("idmap,x")),
        ] {
            assert_eq!(parse(value).unwrap(), upper, "{value}");
        }
        assert!(ImageOverlay::plan("readonly", Path::new("/b"), "web", None, false).unwrap().read_only);
        assert!(!ImageOverlay::plan("tmpfs", Path::new("/b"), "web", None, false).unwrap().read_only);
    }

    #[test]
    fn the_cover_is_the_root_however_the_container_leaves_the_host() {
        if !is_root() {
            return;
        }
        for (isolation, no_pivot) in [(Isolation::New, false), (Isolation::New, true), (Isolation::Joined, false)] {
            let mut trial = Trial::new();
            (trial.isolation, trial.elsewhere, trial.no_pivot) = (isolation, isolation == Isolation::Joined, no_pivot);
            trial.config["annotations"][ANNOTATION] = "tmpfs".into();
            let seen = trial.sees("touch /written; ls /written /dev/null; stat -f -c %t /");
            assert_eq!(seen, ["/dev/null", "/written", "794c7630"], "{isolation:?}, no_pivot: {no_pivot}");
            let names: Vec<_> =
                std::fs::read_dir(trial.root()).unwrap().flatten().map(|entry| entry.file_name()).collect();
            assert_eq!(names, ["bin"], "{isolation:?}, no_pivot: {no_pivot}");
        }
    }

    /// Makes a cover as Linux 5.14 would, and gives back what is seen through it, and in the host's mounts.
    fn seen_by_linux_5_14(value: &str, base: &Path) -> Result<String, String> {
        let scratch = base.join("image");
        std::fs::create_dir_all(scratch.join("sub")).unwrap();
        let image: OwnedFd = open(&scratch, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let before = (mounts(), std::env::current_dir().unwrap());
        let host = || {
            crate::rootfs::stack::linux::play(5, 14);
            let overlay = ImageOverlay::plan(value, base, "web", None, false).unwrap();
            let made = match &overlay.upper {
                Upper::Memory { size } => overlay.in_memory_elsewhere(image.as_fd(), size.as_deref()),
                Upper::Directory { .. } => overlay.mount_above(image.as_fd()),
            };
            let tree = made.map_err(|error| error.to_string())?;
            assert_eq!((mounts(), std::env::current_dir().unwrap()), before);
            Ok(tree)
        };
        apart(CloneFlags::CLONE_NEWNS, None, host, |tree| {
            change_all(Change::propagation(Propagation::Private)).unwrap();
            attach(&tree, open(&scratch, OFlag::O_PATH, Mode::empty()).unwrap()).unwrap();
            std::fs::write(scratch.join("new"), "").map_err(|error| error.to_string())?;
            std::fs::remove_dir(scratch.join("sub")).map_err(|error| error.to_string())?;
            let names = std::fs::read_dir(&scratch).unwrap().flatten();
            Ok(names.filter_map(|name| name.file_name().into_string().ok()).collect())
        })
    }

    #[test]
    fn older_kernels_cover_an_image_as_well() {
        if !is_root() {
            return;
        }
        let base = std::env::temp_dir().join(format!("corten-image-{}", std::process::id()));
        for value in ["tmpfs,size=1m", "readonly", "dir=state"] {
            assert_eq!(seen_by_linux_5_14(value, &base), Ok("new".to_owned()), "{value}");
            assert!(base.join("image/sub").exists() && !base.join("image/new").exists(), "{value}");
        }
        assert!(base.join("state/upper/new").exists());
        remove_overlay_workdir("dir=state", &base, "web");
        assert_eq!(std::fs::read_dir(base.join("state")).unwrap().count(), 1);
        std::fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn what_an_image_may_not_name_is_known_by_its_words() {
        for value in ["dir=/tmp", "idmap,dir=/tmp", "dir=/", "dir=..", "dir=../b", "dir=a/../b", "dir=./../b"] {
            assert_eq!(outside(value).and_then(Path::to_str), value.split_once('=').map(|(_, path)| path), "{value}");
        }
        for value in ["dir=a", "dir=a/b", "dir=.", "dir=..a", "idmap,dir=a", "tmpfs", "readonly", "dir=", "/tmp"] {
            assert_eq!(outside(value), None, "{value}");
        }
    }

    #[test]
    fn a_malformed_annotation_is_told_what_it_may_say() {
        for value in [
            "",
            "idmap",
            "idmap,",
            "idmap,idmap,tmpfs",
            "tmpfs,idmap",
            "tmpfs,",
            "tmpfs,mode=1",
            "dir",
            "dir=",
            "ro",
            "readonly=yes",
            "TMPFS",
            " tmpfs",
        ] {
            assert!(parse(value).unwrap_err().to_string().contains(FORMS), "{value}");
        }
        for value in ["tmpfs,size=", "tmpfs,size=m", "tmpfs,size=6x", "tmpfs,size=64m,size=1", "tmpfs,size=-1"] {
            assert!(parse(value).unwrap_err().to_string().contains("tmpfs,size=64m"), "{value}");
        }
    }
}
