//! The state root: one directory per container. mkdir(2) reserves the id.
//!
//! The directory of a container is private, whatever the mode of the root: some files below are open to every user of the
//! container, who reaches them by a mount.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, open, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::error::{Context, Error, Result, bail, ensure};
use crate::host;
use crate::sys::Errno;

use super::id::Id;
use super::record::{Record, VERSION};
use super::{Container, roots};

const RECORD: &str = "record.json";
const SECCOMP: &str = "seccomp.bpf";

/// The mode of the root and of the directories in it: for the owner alone.
const PRIVATE: u32 = 0o700;

/// The state root.
pub struct Store {
    root: PathBuf,
    /// Whether `--root` named it. A default root that does not exist counts as empty.
    named: bool,
}

/// How long others may hold a directory that was just made.
const PATIENCE: Duration = Duration::from_secs(5);

/// A state directory by device and inode.
pub type Home = (u64, u64);

/// A container's state directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
}

/// A directory that `create` has just made and locked. Drop removes it.
pub struct Reserved {
    directory: Option<Directory>,
    /// The lock while the container is being created. Without it, a directory is what a killed `create` left.
    _lock: File,
}

impl Store {
    /// The root given, or the default: `/run/corten`, and for those who cannot write there
    /// `$XDG_RUNTIME_DIR/corten` (contract: an empty variable is an unset one).
    pub fn new(root: Option<&Path>) -> Result<Store> {
        if let Some(root) = root {
            let root = std::path::absolute(root).with_context(|| format!("make {} absolute", root.display()))?;
            ensure!(root != Path::new("/"), "the state root must not be /");
            return Ok(Store { root, named: true });
        }
        let root = match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
            Some(dir) if host::is_rootless() => Path::new(&dir).join("corten"),
            _ => PathBuf::from("/run/corten"),
        };
        Ok(Store { root, named: false })
    }

    /// Makes the directory of a new container with its intent, which depends on the identity of the directory.
    pub fn reserve(&self, id: &Id, intent: impl FnOnce(Home) -> Record) -> Result<(Reserved, Record)> {
        let directory = self.directory(id);
        self.make_directory(id)?;
        let (lock, home) = self.lock_made(&directory, id)?;
        let reserved = Reserved { directory: Some(directory), _lock: lock };
        let record = intent(home);
        reserved.write(&record)?;
        Ok((reserved, record))
    }

    /// Locks a directory that was just made. Until then a `delete` may take it for what a killed `create` left.
    fn lock_made(&self, directory: &Directory, id: &Id) -> Result<(File, Home)> {
        let begin = Instant::now();
        // Only an empty one: it may be that of another `create` by now.
        let give_up = |_: &Error| drop(fs::remove_dir(directory.path()));
        let locked = loop {
            match directory.lock().inspect_err(give_up)? {
                Some(locked) => break locked,
                None if !directory.exists() => self.make_directory(id)?,
                // Others hold it for a moment, to see whether it is locked.
                None if begin.elapsed() < PATIENCE => sleep(Duration::from_millis(1)),
                None => {
                    let place = directory.path.display();
                    return Err(Error::new(format!("lock the state directory {place}: another process holds it")))
                        .inspect_err(give_up);
                }
            }
        };
        // Before it was locked, another `create` may have made it anew, and have come to its end.
        ensure_vacant(directory, id).inspect_err(give_up)?;
        Ok(locked)
    }

    fn make_directory(&self, id: &Id) -> Result<()> {
        let path = self.root.join(id.as_str());
        let made = match make_dir(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.make_root()?;
                make_dir(&path)
            }
            done => done,
        };
        made.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => is_taken(id),
            _ => Error::from(error).context(format!("make the state directory {}", path.display())),
        })
    }

    /// Refuses an id that is in use, as an early check. [`Store::reserve`] decides.
    pub fn ensure_free(&self, id: &Id) -> Result<()> {
        if self.directory(id).exists() { Err(is_taken(id)) } else { Ok(()) }
    }

    /// Whether a directory can be made here, without making it: the root, or the part of its path that exists, is writable.
    pub fn preflight(&self, id: &Id) -> Result<()> {
        let writable = |path: &Path| nix::unistd::access(path, nix::unistd::AccessFlags::W_OK);
        let there = self.root.ancestors().find(|path| path.exists()).unwrap_or(&self.root);
        match there == self.root {
            true => writable(there)
                .with_context(|| format!("make the state directory {}", self.root.join(id.as_str()).display())),
            false => writable(there).with_context(|| format!("make the state root {}", self.root.display())),
        }
    }

    /// Opens a container by its id.
    pub fn open(&self, id: &str) -> Result<Container> {
        let directory = self.directory(&Id::new(id)?);
        let record = directory.read()?.ok_or_else(|| self.does_not_exist(id))?;
        Ok(Container { directory, record })
    }

    /// Opens a container that [`Store::ids`] lists. `None`: it was deleted meanwhile, or has no record yet.
    pub fn look_up(&self, id: &Id) -> Result<Option<Container>> {
        let directory = self.directory(id);
        match directory.read()? {
            Some(record) => Ok(Some(Container { directory, record })),
            None if !directory.exists() || directory.is_locked()? => Ok(None),
            // Again: its `create` may have ended between the two checks.
            None => match directory.read()? {
                Some(record) => Ok(Some(Container { directory, record })),
                None if !directory.exists() => Ok(None),
                None => Err(self.does_not_exist(id.as_str())),
            },
        }
    }

    /// The directory of a container, which need not exist.
    pub fn directory(&self, id: &Id) -> Directory {
        Directory { path: self.root.join(id.as_str()) }
    }

    /// The ids of all directories, sorted, with the owner of each.
    pub fn ids(&self) -> Result<Vec<(Id, u32)>> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == ErrorKind::NotFound && !self.named => return Ok(Vec::new()),
            entries => entries.with_context(|| format!("read the state root {}", self.root.display()))?,
        };
        let mut ids: Vec<(Id, u32)> = entries
            .flatten()
            .filter_map(|entry| {
                let id = Id::new(entry.file_name().to_str()?).ok()?;
                let meta = entry.metadata().ok().filter(fs::Metadata::is_dir)?;
                Some((id, meta.uid()))
            })
            .collect();
        ids.sort();
        Ok(ids)
    }

    /// The error for an unknown id, in the words that engines search for, with a hint where it may be.
    pub fn does_not_exist(&self, id: &str) -> Error {
        Error::new(format!("container does not exist: {id}")).hint(roots::advice(id, &self.root))
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn make_root(&self) -> Result<()> {
        let what = || format!("make the state root {}", self.root.display());
        DirBuilder::new().recursive(true).mode(PRIVATE).create(&self.root).with_context(what)?;
        if !self.named && host::is_rootless() {
            // The sticky bit keeps cleaners of the runtime directory away (XDG base directory specification).
            fs::set_permissions(&self.root, fs::Permissions::from_mode(0o1700)).with_context(what)?;
        }
        Ok(())
    }
}

fn ensure_vacant(directory: &Directory, id: &Id) -> Result<()> {
    match fs::exists(directory.file(RECORD)).with_context(|| format!("look for the record of {id}"))? {
        true => Err(is_taken(id)),
        false => Ok(()),
    }
}

fn is_taken(id: &Id) -> Error {
    Error::new(format!("container with given ID already exists: {id}")).hint("delete it, or take another id")
}

fn make_dir(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().mode(PRIVATE).create(path)
}

impl Directory {
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether it exists.
    pub fn exists(&self) -> bool {
        self.path.is_dir()
    }

    /// Reads the record; `None` when there is none.
    pub fn read(&self) -> Result<Option<Record>> {
        let what = || format!("read the record {}", self.file(RECORD).display());
        let read = || match self.read_bytes() {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            bytes => self.understand(&bytes?).map(Some),
        };
        let remedy = "use `delete --force`: it kills the container and removes what is left of it";
        read().with_context(what).hint(remedy)
    }

    fn understand(&self, bytes: &[u8]) -> Result<Record> {
        let record: Record = serde_json::from_slice(bytes).map_err(|error| Error::new(error.to_string()))?;
        if record.version > VERSION {
            return Err(Error::new(format!(
                "version {} is newer than this binary supports ({VERSION})",
                record.version
            ))
            .hint("use the newer corten that made the container"));
        }
        ensure!(self.path.file_name() == Some(record.id.as_ref()), "is that of container {:?}", record.id);
        Ok(record)
    }

    /// The bytes of the record, unchecked.
    fn read_bytes(&self) -> std::io::Result<Vec<u8>> {
        // O_NONBLOCK: there may be a FIFO in its place.
        let mut file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(self.file(RECORD))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// As much of the record as can be read.
    pub fn salvage(&self, id: &Id) -> Record {
        Record::salvage(&self.read_bytes().unwrap_or_default(), id.as_str())
    }

    /// The identity of the directory; `None` if it does not exist.
    pub fn home(&self) -> Option<Home> {
        fs::metadata(&self.path).ok().map(|meta| (meta.dev(), meta.ino()))
    }

    /// Writes the record in one step: a reader sees the old or the new one.
    pub fn write(&self, record: &Record) -> Result<()> {
        let bytes =
            serde_json::to_vec(record).map_err(|error| Error::new(error.to_string())).context("write the record")?;
        replace(&self.file(RECORD), &bytes, 0o600).context("write the record")
    }

    /// Stores the seccomp filter for execs.
    pub fn keep_seccomp(&self, filter: &[u8]) -> Result<()> {
        let path = self.file(SECCOMP);
        let write = || {
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?.write_all(filter)
        };
        write().with_context(|| format!("write {}", path.display()))
    }

    /// The stored seccomp filter.
    pub fn seccomp(&self) -> Result<Vec<u8>> {
        let path = self.file(SECCOMP);
        fs::read(&path).with_context(|| format!("read {}", path.display()))
    }

    /// Removes it with its content, or what lies in its place. A missing one is no error.
    pub fn remove(&self) -> Result<()> {
        let removed = fs::remove_dir_all(&self.path).or_else(|error| match error.kind() {
            ErrorKind::NotADirectory => fs::remove_file(&self.path),
            _ => Err(error),
        });
        match removed {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done.with_context(|| format!("remove the state directory {}", self.path.display())),
        }
    }

    /// Whether a `create` holds it.
    pub fn is_locked(&self) -> Result<bool> {
        let what = || format!("stat the lock of the state directory {}", self.path.display());
        let dir = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            dir => dir.with_context(what)?,
        };
        match dir.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error).with_context(what),
        }
    }

    /// flock(2), whose lock ends with the file, also in the hands of a killed process. `None`: another process holds it,
    /// or the directory is not at its place any more, which is asked last: one that is locked there is not removed.
    pub fn lock(&self) -> Result<Option<(File, Home)>> {
        let what = || format!("lock the state directory {}", self.path.display());
        let dir = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            dir => dir.with_context(what)?,
        };
        match dir.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error).with_context(what),
        }
        let meta = dir.metadata().with_context(what)?;
        let home = (meta.dev(), meta.ino());
        Ok((self.home() == Some(home)).then_some((dir, home)))
    }
}

impl Reserved {
    /// Keeps the directory: the container exists.
    pub fn keep(mut self) -> Directory {
        self.directory.take().expect("it is only taken here")
    }
}

impl std::ops::Deref for Reserved {
    type Target = Directory;

    fn deref(&self) -> &Directory {
        self.directory.as_ref().expect("it is only taken by keep")
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(error) = self.directory.as_ref().and_then(|directory| directory.remove().err()) {
            log::warn!("{error}");
        }
    }
}

/// How many names are tried for a draft. A user who may write to its directory can occupy the first, and would have to
/// guess the others.
const DRAFTS: usize = 16;

/// Replaces a file by rename(2): a reader sees the old or the new one. As the directory may be writable for others, the
/// draft is a new file (O_EXCL, which follows no link), and a link with the name of the file is replaced. All names are
/// relative to one open directory.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let (Some(name), parent) = (path.file_name(), path.parent()) else {
        bail!("{} is not the name of a file", path.display())
    };
    let what = || format!("write {}", path.display());
    let parent = parent.filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = open(parent, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let directory = directory.with_context(what)?;
    let (draft, file) = make_draft(&directory, name, Mode::from_bits_truncate(mode)).with_context(what)?;
    File::from(file)
        .write_all(bytes)
        .and_then(|()| renameat(&directory, draft.as_os_str(), &directory, name).map_err(std::io::Error::from))
        .inspect_err(|_| unlinkat(&directory, draft.as_os_str(), UnlinkatFlags::NoRemoveDir).unwrap_or_default())
        .with_context(what)
}

/// Makes a new file with a name like the one given, but hidden.
fn make_draft(directory: &OwnedFd, name: &OsStr, mode: Mode) -> Result<(OsString, OwnedFd), Errno> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let mut end = format!(".{}", std::process::id());
    for _ in 0..DRAFTS {
        let draft: OsString = [OsStr::new("."), name, OsStr::new(&end)].into_iter().collect();
        match openat(directory, draft.as_os_str(), flags, mode) {
            // Left by a killed process, or put there by another user.
            Err(Errno::EEXIST) => end = format!(".{:016x}", RandomState::new().build_hasher().finish()),
            made => return made.map(|file| (draft, file)),
        }
    }
    Err(Errno::EEXIST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacing_a_file_leaves_nothing_of_the_old_one_and_no_draft() {
        let dir = std::env::temp_dir().join(format!("corten-store-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("pid");
        fs::write(&file, "999999999").unwrap();
        replace(&file, b"7", 0o644).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "7");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_draft_is_new_whatever_has_its_name() {
        let dir = std::env::temp_dir().join(format!("corten-draft-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (file, other) = (dir.join("pid"), dir.join("other"));
        fs::write(&other, "of somebody else").unwrap();
        let first = dir.join(format!(".pid.{}", std::process::id()));
        for take in [std::os::unix::fs::symlink, fs::hard_link::<PathBuf, PathBuf>] as [fn(_, _) -> _; 2] {
            take(other.clone(), first.clone()).unwrap();
            replace(&file, b"7", 0o644).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), "7");
            assert_eq!(fs::read_to_string(&other).unwrap(), "of somebody else");
            fs::remove_file(&first).unwrap();
            assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
        }
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_deletion_does_not_disturb_who_has_just_made_the_directory() {
        let root = std::env::temp_dir().join(format!("corten-reserve-{}", std::process::id()));
        let id = Id::new("x").unwrap();
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let deleting = scope.spawn(|| {
                let directory = Store::new(Some(&root)).unwrap().directory(&id);
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    // As `delete` does with one that has no record.
                    if let Some(_locked) = directory.lock().unwrap()
                        && directory.read().unwrap().is_none()
                    {
                        let _ = fs::remove_dir(directory.path());
                    }
                }
            });
            let store = Store::new(Some(&root)).unwrap();
            let reserve = || store.reserve(&id, |_| Record::salvage(b"", "x")).map(drop);
            let faults: Vec<String> =
                (0..2000).filter_map(|_| reserve().err()).map(|error| error.to_string()).collect();
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            deleting.join().unwrap();
            assert_eq!(faults, [""; 0]);
        });
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn the_root_of_the_file_system_is_refused() {
        assert!(Store::new(Some(Path::new("/"))).is_err());
    }
}
