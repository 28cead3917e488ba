//! `linux.maskedPaths` and `linux.readonlyPaths`, after the pivot and through descriptors.
//!
//! A path that is not there needs no mask. Whatever else goes wrong is an error: a mask that is missing is a hole.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sys::stat::{FileStat, fstat};

use super::devices;
use super::filesystem::empty_directory;
use super::path::{Root, RootRelPath, is_directory};
use crate::error::{Context, Error, Result, ensure};
use crate::sys::Errno;
use crate::sys::mount::{Attr, Change, attach, change, clone_fd};

/// The two lists, compiled.
#[derive(Clone, Debug)]
pub(super) struct Masks {
    masked: Vec<RootRelPath>,
    read_only: Vec<RootRelPath>,
}

impl Masks {
    pub(super) fn plan(masked: &[String], read_only: &[String]) -> Result<Masks> {
        let masked = paths(masked, "/linux/maskedPaths", |path| {
            ensure!(!path.is_root(), "the container's root cannot be masked");
            Ok(())
        })?;
        Ok(Masks { masked, read_only: paths(read_only, "/linux/readonlyPaths", |_| Ok(()))? })
    }

    pub(super) fn masks_something(&self) -> bool {
        !self.masked.is_empty()
    }

    pub(super) fn makes_something_read_only(&self) -> bool {
        !self.read_only.is_empty()
    }

    /// What is masked.
    pub(super) fn masked(&self) -> impl Iterator<Item = &RootRelPath> {
        self.masked.iter()
    }

    /// What is made read-only.
    pub(super) fn read_only(&self) -> impl Iterator<Item = &RootRelPath> {
        self.read_only.iter()
    }

    /// Applies both. Read-only paths first, since a mask may lie below one of them.
    ///
    /// What lies below one of the `anchors`, mounts at known paths, is looked up from there: whoever shares the root
    /// could exchange `/proc` for a link after the mount, have another place masked, and exchange it back.
    pub(super) fn apply(&self, root: &Root, anchors: &[(RootRelPath, Root)]) -> Result<()> {
        let anchors: Vec<Anchor> = anchors.iter().map(|(place, mount)| Anchor::new(root, place, mount)).collect();
        for path in &self.read_only {
            for at in starts(root, &anchors, path).into_iter().flatten() {
                make_read_only(at).with_context(|| format!("make {path} read-only"))?;
            }
        }
        let mut sources = MaskSources { null: None, empty: None };
        for path in &self.masked {
            for at in starts(root, &anchors, path).into_iter().flatten() {
                sources.mask(root, at).with_context(|| format!("mask {path}"))?;
            }
        }
        Ok(())
    }
}

/// A mount of ours, and whether its path leads to something else by now: it was moved, or a hook has covered it. Then
/// both are masked.
struct Anchor<'a> {
    place: &'a RootRelPath,
    mount: &'a Root,
    elsewhere: bool,
}

impl Anchor<'_> {
    fn new<'a>(root: &Root, place: &'a RootRelPath, mount: &'a Root) -> Anchor<'a> {
        let identity = |stat: FileStat| (stat.st_dev, stat.st_ino);
        let there = root.find(place).and_then(|there| fstat(there.fd)).map(identity);
        let here = fstat(mount.fd()).map(identity);
        Anchor { place, mount, elsewhere: there.is_err() || there != here }
    }
}

fn paths(list: &[String], field: &str, check: impl Fn(&RootRelPath) -> Result<()>) -> Result<Vec<RootRelPath>> {
    let one = |(index, text): (usize, &String)| {
        let compile = || {
            let path = Path::new(text);
            ensure!(path.is_absolute(), "the path {text} must be absolute");
            let path = RootRelPath::new(path)?;
            check(&path)?;
            Ok(path)
        };
        compile().field(|| format!("{field}/{index}"))
    };
    let mut paths = list.iter().enumerate().map(one).collect::<Result<Vec<_>>>()?;
    // Once is enough.
    let mut seen = HashSet::with_capacity(paths.len());
    paths.retain(|path| seen.insert(path.bytes().to_owned()));
    Ok(paths)
}

/// Where a path begins, and what is left of it from there.
fn starts<'a>(root: &'a Root, anchors: &[Anchor<'a>], path: &RootRelPath) -> [Option<(&'a Root, RootRelPath)>; 2] {
    let below = |anchor: &Anchor<'a>| Some((anchor.mount, path.beyond(anchor.place)?, anchor.elsewhere));
    match anchors.iter().rev().find_map(below) {
        Some((mount, rest, false)) => [Some((mount, rest)), None],
        Some((mount, rest, true)) => [Some((mount, rest)), Some((root, path.clone()))],
        None => [Some((root, path.clone())), None],
    }
}

/// Opens a path, or says that it is not there.
fn find((root, path): &(&Root, RootRelPath)) -> Result<Option<OwnedFd>> {
    match root.find(path) {
        Ok(place) => Ok(Some(place.fd)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn make_read_only(at: (&Root, RootRelPath)) -> Result<()> {
    // A mount of our own, which a second one must not cover: masks are still to come below it.
    if at.1.is_root() {
        return change(at.0.fd(), true, Change::set(Attr::RDONLY)).map_err(Error::from);
    }
    let Some(place) = find(&at)? else { return Ok(()) };
    let tree = clone_fd(&place, true)?;
    change(&tree, true, Change::set(Attr::RDONLY))?;
    Ok(attach(tree, place)?)
}

/// What masks are made of: one file and one directory, cloned for each mask. However many directories are masked,
/// there is one superblock.
struct MaskSources {
    null: Option<OwnedFd>,
    empty: Option<OwnedFd>,
}

impl MaskSources {
    fn mask(&mut self, root: &Root, at: (&Root, RootRelPath)) -> Result<()> {
        let Some(place) = find(&at)? else { return Ok(()) };
        if !is_directory(&place)? {
            let null = match &self.null {
                Some(null) => null,
                None => self.null.insert(devices::null(root)?),
            };
            return Ok(attach(clone_fd(null, false)?, place)?);
        }
        if let Some(empty) = &self.empty {
            return Ok(attach(clone_fd(empty, false)?, place)?);
        }
        // Until Linux 6.15 only what is attached can be cloned: the first one is the model for the others.
        let empty = empty_directory()?;
        attach(&empty, place)?;
        self.empty = Some(empty);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_path_and_the_root_are_refused_with_their_field() {
        let plan = |masked: &str| Masks::plan(&["/ok".into(), masked.into()], &[]).unwrap_err();
        assert_eq!(plan("proc/kcore").field_name(), Some("/linux/maskedPaths/1"));
        assert_eq!(plan("/x/..").field_name(), Some("/linux/maskedPaths/1"));
        assert!(Masks::plan(&[], &["/".into()]).is_ok());
    }

    #[test]
    fn a_path_that_is_listed_twice_counts_once() {
        let list = ["/a", "/b", "//a/", "/a/b", "/a"].map(str::to_owned);
        let masks = Masks::plan(&list, &list).unwrap();
        for paths in [masks.masked, masks.read_only] {
            assert_eq!(paths.iter().map(RootRelPath::to_string).collect::<Vec<_>>(), ["/a", "/b", "/a/b"]);
        }
    }
}
