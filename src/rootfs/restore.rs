//! A root whose mounts somebody else makes: for a restore by CRIU, which has the mounts of a checkpoint made again.
//!
//! What is to be there comes from the configuration, before; and is compared with it, after. Images are not trusted: one
//! may have put a source at another mount point, or have left a flag or a mask out.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat, stat};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::unistd::Pid;

use super::image_overlay;
use super::masks::Masks;
use super::mount::Mount;
use super::path::{Kind, Root, RootRelPath};
use super::plan::{RootSource, Rootfs};
use crate::error::{Context, Error, Result, bail, ensure};
use crate::sys::Errno;
use crate::sys::mount::{Attr, where_mounted};

/// What the mounts of a restored container have to be.
pub struct Restored {
    /// The device and inode of the root.
    identity: (u64, u64),
    read_only: bool,
    mounts: Vec<Expected>,
    masks: Masks,
    /// The container may make mounts of its own.
    own_mounts: bool,
}

/// A mount of the configuration.
struct Expected {
    target: RootRelPath,
    pointer: String,
    flags: FsFlags,
    source: Option<PathBuf>,
}

impl Rootfs {
    /// Makes the mount points that are not there, and says what stands for each mount from outside: its names, and its
    /// source. `own_mounts`: the container may make mounts by itself (CAP_SYS_ADMIN).
    pub fn prepare_restore(&self, own_mounts: bool) -> Result<(Restored, Vec<(String, PathBuf)>)> {
        if !matches!(self.source, RootSource::Directory) {
            let field =
                if matches!(self.source, RootSource::ImageOverlay(_)) { image_overlay::FIELD } else { "/mounts/0" };
            return Err(Error::new("a root that is an overlay of the runtime's cannot be restored").field(field));
        }
        if let Some(mount) = self.mounts.iter().find(|mount| mount.is_mapped()) {
            return Err(Error::new("a mount with mapped owners cannot be restored").field(mount.pointer()));
        }
        let root = Root::new(self.open_root()?);
        let identity = fstat(root.fd()).map(|stat| (stat.st_dev, stat.st_ino)).context("look at the root")?;
        let mut names = Vec::new();
        let mut covered: Vec<&RootRelPath> = Vec::new();
        for mount in &self.mounts {
            let target = mount.target();
            let below = covered.iter().any(|above| target.beyond(above).is_some());
            let point = if below { None } else { Some(mount.describe(mount_point(&root, mount))?) };
            if let Some(source) = mount.source_path() {
                name(&mut names, target.to_string(), source).field(|| mount.pointer())?;
                if let Some(point) = point {
                    name(&mut names, point, source).field(|| mount.pointer())?;
                }
            }
            covered.push(target);
        }
        let mounts = self.mounts.iter().filter(|mount| !mount.is_remount()).map(Expected::of).collect();
        let masks = self.masks.clone();
        Ok((Restored { identity, read_only: self.read_only, mounts, masks, own_mounts }, names))
    }

    /// The paths that are masked.
    pub fn masked(&self) -> impl Iterator<Item = String> {
        self.masks.masked().map(RootRelPath::to_string)
    }
}

/// Two sources under one name would be a choice of the image's.
fn name(names: &mut Vec<(String, PathBuf)>, name: String, source: &Path) -> Result<()> {
    if let Some((_, other)) = names.iter().find(|(known, _)| *known == name) {
        ensure!(other == source, "two mounts would be at {name}");
        return Ok(());
    }
    names.push((name, source.to_owned()));
    Ok(())
}

/// Where a mount really is, below the root; made if nothing is there.
fn mount_point(root: &Root, mount: &Mount) -> Result<String> {
    let kind = || match mount.source_path().map(fs::metadata).transpose() {
        Ok(Some(meta)) if !meta.is_dir() => Ok(Kind::File),
        Ok(_) => Ok(Kind::Directory),
        Err(error) => Err(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))),
    };
    if let Some(source) = mount.source_path() {
        fs::metadata(source).with_context(|| format!("open the source {}", source.display()))?;
    }
    let place = root.find_or_make(mount.target(), kind)?;
    let path = |fd: &dyn AsFd| {
        let number = std::os::fd::AsRawFd::as_raw_fd(&fd.as_fd());
        fs::read_link(format!("/proc/self/fd/{number}")).context("look a mount point up")
    };
    let (top, path) = (path(&root.fd())?, path(&place.fd)?);
    match path.strip_prefix(&top) {
        Ok(below) => Ok(format!("/{}", below.display())),
        Err(_) => bail!("the mount point {} is not below the root", path.display()),
    }
}

impl Expected {
    fn of(mount: &Mount) -> Expected {
        let known = [
            (Attr::RDONLY, FsFlags::ST_RDONLY),
            (Attr::NOSUID, FsFlags::ST_NOSUID),
            (Attr::NODEV, FsFlags::ST_NODEV),
            (Attr::NOEXEC, FsFlags::ST_NOEXEC),
        ];
        let asked = mount.attributes();
        let flags = known.iter().filter(|(flag, _)| asked.contains(*flag)).map(|&(_, flag)| flag).collect();
        let source = mount.source_path().map(Path::to_owned);
        Expected { target: mount.target().clone(), pointer: mount.pointer(), flags, source }
    }
}

impl Restored {
    /// Compares what a process has as its root with what it is to be. `points` are its mount points.
    pub fn verify(&self, init: Pid, points: &[String]) -> Result<()> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let path = format!("/proc/{init}/root");
        let root = open(path.as_str(), flags, Mode::empty()).with_context(|| format!("open {path}"))?;
        let real = fstat(&root).context("look at the restored root")?;
        let is_root = (real.st_dev, real.st_ino) == self.identity;
        if !is_root {
            return Err(Error::new("the restored process has another root").field("/root/path"));
        }
        let root = Root::new(root);
        if self.read_only {
            has(root.fd(), FsFlags::ST_RDONLY).context("the restored root").field(|| "/root/readonly")?;
        }
        for mount in &self.mounts {
            self.verify_mount(&root, mount)
                .with_context(|| format!("the restored mount {}", mount.target))
                .field(|| mount.pointer.clone())?;
        }
        self.verify_masks(&root)?;
        if self.own_mounts { Ok(()) } else { self.verify_points(points) }
    }

    fn verify_mount(&self, root: &Root, mount: &Expected) -> Result<()> {
        // What lies on top of a later mount is not to be seen.
        let place = root.find(&mount.target)?.fd;
        ensure!(where_mounted(&place)?.is_some(), "is missing");
        has(&place, mount.flags)?;
        if let Some(source) = &mount.source {
            let (there, here) =
                (stat(source).with_context(|| format!("look at {}", source.display()))?, fstat(&place)?);
            ensure!((there.st_dev, there.st_ino) == (here.st_dev, here.st_ino), "is not {}", source.display());
        }
        Ok(())
    }

    fn verify_masks(&self, root: &Root) -> Result<()> {
        for path in self.masks.masked() {
            let Some(place) = find(root, path)? else { continue };
            let masked = where_mounted(&place)?.is_some();
            if !masked {
                return Err(Error::new(format!("{path} is not masked any more")).field("/linux/maskedPaths"));
            }
        }
        for path in self.masks.read_only() {
            let Some(place) = find(root, path)? else { continue };
            has(&place, FsFlags::ST_RDONLY)
                .with_context(|| format!("the restored {path}"))
                .field(|| "/linux/readonlyPaths")?;
        }
        Ok(())
    }

    /// A file system that nobody has asked for may be one of the host's.
    fn verify_points(&self, points: &[String]) -> Result<()> {
        let mounts = self.mounts.iter().map(|mount| &mount.target);
        let known: Vec<String> =
            mounts.chain(self.masks.masked()).chain(self.masks.read_only()).map(RootRelPath::to_string).collect();
        let below_bind = |point: &str| {
            let mut binds = self.mounts.iter().filter(|mount| mount.source.is_some());
            binds.any(|bind| point.starts_with(&format!("{}/", bind.target)))
        };
        // Devices that are bound, and the console.
        let of_devices = |point: &str| point.starts_with("/dev/");
        match points
            .iter()
            .find(|point| *point != "/" && !known.contains(point) && !below_bind(point) && !of_devices(point))
        {
            None => Ok(()),
            Some(point) => Err(Error::new(format!("the checkpoint has a mount at {point}, which config.json has not"))
                .field("/mounts")),
        }
    }
}

fn find(root: &Root, path: &RootRelPath) -> Result<Option<OwnedFd>> {
    match root.find(path) {
        Ok(place) => Ok(Some(place.fd)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("look at {path}")),
    }
}

/// Whether the mount has these flags.
fn has(place: impl AsFd, wanted: FsFlags) -> Result<()> {
    let flags = fstatvfs(&place)?.flags();
    let missing = wanted - flags;
    if missing.is_empty() {
        return Ok(());
    }
    let words = [
        (FsFlags::ST_RDONLY, "ro"),
        (FsFlags::ST_NOSUID, "nosuid"),
        (FsFlags::ST_NODEV, "nodev"),
        (FsFlags::ST_NOEXEC, "noexec"),
    ];
    let words: Vec<&str> = words.iter().filter(|(flag, _)| missing.contains(*flag)).map(|&(_, word)| word).collect();
    bail!("is not {}", words.join(", "))
}
