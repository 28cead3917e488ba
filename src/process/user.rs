//! The user of the process: ids, groups, umask, and the home directory from the container's `/etc/passwd`.
//!
//! Users and groups are numbers; a name is never looked up (CVE-2016-3697). A number is the whole string or it is
//! refused (CVE-2026-30892).

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::prctl::set_keepcaps;
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{Gid, Uid, fchown, getgroups, isatty, setgroups, setresgid, setresuid};
use oci_spec::runtime as spec;

use crate::error::{Context, Error, Result, ensure};
use crate::passwd;
use crate::sys::{Errno, process};

/// The id that the kernel takes for "leave unchanged", so no user can have it.
const NOBODY: u32 = u32::MAX;

/// The standard streams in words.
const STREAMS: [&str; 3] = ["input", "output", "error"];

/// `process.user`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    umask: u32,
    groups: Groups,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Groups {
    /// Exactly these, also when there are none (CVE-2022-36109).
    Exactly(Vec<Gid>),
    /// The caller's (annotation `run.oci.keep_original_groups`).
    Keep,
}

impl User {
    pub(super) fn plan(wanted: &spec::User, keep_groups: bool) -> Result<User> {
        let (uid, gid) = (wanted.uid(), wanted.gid());
        valid(uid).field(|| "/process/user/uid")?;
        valid(gid).field(|| "/process/user/gid")?;
        // As umask(2) does it.
        let umask = wanted.umask().unwrap_or(0o022) & 0o777;
        let mut groups: Vec<Gid> = Vec::new();
        // Duplicates stay: the kernel keeps them, and programs count them.
        for (index, &group) in wanted.additional_gids().iter().flatten().enumerate() {
            valid(group).field(|| format!("/process/user/additionalGids/{index}"))?;
            groups.push(Gid::from_raw(group));
        }
        let groups = if keep_groups { Groups::Keep } else { Groups::Exactly(groups) };
        Ok(User { uid, gid, umask, groups })
    }

    /// The user, and the groups; `None` for those of the caller.
    pub(super) fn as_numbers(&self) -> (u32, Option<Vec<u32>>) {
        let groups = match &self.groups {
            Groups::Exactly(groups) => Some(groups.iter().map(|group| group.as_raw()).chain([self.gid]).collect()),
            Groups::Keep => None,
        };
        (self.uid, groups)
    }

    pub(super) fn set_umask(&self) {
        nix::sys::stat::umask(Mode::from_bits_truncate(self.umask));
    }

    /// Sets groups, gid and uid for good. With `keep_capabilities` the permitted set survives the change from root.
    pub(super) fn set_credentials(&self, keep_capabilities: bool, user_namespace: bool) -> Result<()> {
        self.set_groups(user_namespace)?;
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        setresgid(gid, gid, gid).map_err(|errno| unmapped(errno, "group", self.gid)).field(|| "/process/user/gid")?;
        if keep_capabilities && self.uid != 0 {
            // execve clears it again (capabilities(7), SECBIT_KEEP_CAPS).
            set_keepcaps(true).context("keep capabilities across the change of user (PR_SET_KEEPCAPS)")?;
        }
        setresuid(uid, uid, uid).map_err(|errno| unmapped(errno, "user", self.uid)).field(|| "/process/user/uid")
    }

    fn set_groups(&self, user_namespace: bool) -> Result<()> {
        let Groups::Exactly(groups) = &self.groups else { return Ok(()) };
        match setgroups(groups) {
            Ok(()) => Ok(()),
            // `setgroups` is `deny` in this user namespace: the caller had no right to give up groups in the first place.
            Err(Errno::EPERM) if groups.is_empty() && (user_namespace || self.holds_no_other_group()) => Ok(()),
            Err(errno @ Errno::EINVAL) => Err(errno)
                .context("set the additional groups")
                .hint("one of them has no mapping in the container's user namespace: take others, or map it")
                .field(|| "/process/user/additionalGids"),
            Err(errno @ Errno::EPERM) if user_namespace => Err(errno)
                .context("set the additional groups")
                .hint("in a user namespace with a single group they cannot be changed: leave them out, or map more groups")
                .field(|| "/process/user/additionalGids"),
            Err(errno) => Err(errno).context("set the additional groups").field(|| "/process/user/additionalGids"),
        }
    }

    /// Whether none of the supplementary groups of the process is mapped in its user namespace, which may be the runtime's
    /// own.
    fn holds_no_other_group(&self) -> bool {
        let unknown = Gid::from_raw(65534);
        getgroups().is_ok_and(|held| held.iter().all(|&group| group == unknown || group.as_raw() == self.gid))
    }

    /// Changes the owner of the standard streams to the user, so that `/dev/stderr` can be opened again. The group stays.
    ///
    /// Only pipes, sockets and terminals: a file of the host may be meant to be read only (`run ID </etc/some.conf`).
    /// `/dev/null` is never changed (CVE-2026-88265).
    pub(super) fn chown_stdio(&self) -> Result<()> {
        for (name, fd) in STREAMS.into_iter().zip(process::stdio()) {
            // A closed stream has no owner.
            let Ok(stat) = fstat(fd) else { continue };
            if stat.st_uid == self.uid || !is_stream(fd, &stat) {
                continue;
            }
            chown_stream(name, fd, self.uid)?;
        }
        Ok(())
    }

    /// The same from outside of a user namespace, for pipes: inside, the owner of a pipe of the caller is not mapped, and no
    /// process may change an unmapped owner. Sockets and terminals may still be in use by the caller.
    pub(super) fn chown_pipes(&self, owner: impl FnOnce(u32) -> Option<u32>) -> Result<()> {
        let is_pipe = |fd: &BorrowedFd<'_>| fstat(fd).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFIFO);
        let streams = STREAMS.into_iter().zip(process::stdio());
        let pipes: Vec<_> = streams.filter(|(_, fd)| is_pipe(fd)).collect();
        let Some(owner) = (!pipes.is_empty()).then(|| owner(self.uid)).flatten() else { return Ok(()) };
        pipes.into_iter().try_for_each(|(name, fd)| chown_stream(name, fd, owner))
    }
}

/// Changes the owner of a stream.
fn chown_stream(name: &str, fd: BorrowedFd<'_>, owner: u32) -> Result<()> {
    match fchown(fd, Some(Uid::from_raw(owner)), None) {
        // An unmapped owner, a read-only file system, or one without owners.
        Ok(()) | Err(Errno::EPERM | Errno::EROFS | Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("chown standard {name} to the user")),
    }
}

/// Replaces standard streams that are the host's `/dev/null` by the container's. A container without one is no error;
/// `open` verifies what it opens (CVE-2026-88265).
pub fn reopen_dev_null(open: impl FnOnce() -> Result<OwnedFd>) {
    let null = |fd: &BorrowedFd<'_>| fstat(fd).is_ok_and(|stat| is_null(&stat));
    let ours: Vec<_> = process::stdio().into_iter().filter(null).collect();
    let Some(theirs) = (!ours.is_empty()).then(open).and_then(Result::ok) else { return };
    for stream in ours {
        process::replace(stream, theirs.as_fd());
    }
}

/// Was it made to be a stream: a pipe, a socket, a terminal? `/dev/tty` and `/dev/ptmx` (5:0 and 5:2, tty(4), pts(4)) are
/// terminals to isatty(3), and everybody's.
fn is_stream(fd: BorrowedFd<'_>, stat: &libc::stat) -> bool {
    match stat.st_mode & libc::S_IFMT {
        libc::S_IFIFO | libc::S_IFSOCK => true,
        libc::S_IFCHR => match (libc::major(stat.st_rdev), libc::minor(stat.st_rdev)) {
            // UNIX98_PTY_SLAVE_MAJOR, linux/major.h, without a further call: a seccomp filter may be loaded by now.
            (136..=143, _) => true,
            (5, 0 | 2) => false,
            _ => isatty(fd).unwrap_or(false),
        },
        _ => false,
    }
}

/// Is it the character device 1:3, `/dev/null`?
fn is_null(stat: &libc::stat) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == libc::makedev(1, 3)
}

fn valid(id: u32) -> Result<()> {
    ensure!(id != NOBODY, "{id} is not an id: the kernel takes it for \"leave unchanged\"");
    Ok(())
}

fn unmapped(errno: Errno, kind: &str, id: u32) -> Error {
    let error = Error::from(errno).context(format!("become {kind} {id}"));
    match errno {
        Errno::EINVAL => {
            error.hint(format!("{kind} {id} has no mapping in the container's user namespace: take another, or map it"))
        }
        _ => error,
    }
}

/// A user or group id as people type it: decimal digits, the whole string.
pub fn parse_id(text: &str) -> Result<u32> {
    let id = passwd::decimal(text)
        .ok_or_else(|| Error::new(format!("{text:?} is not a number between 0 and 4294967294")))?;
    valid(id)?;
    Ok(id)
}

/// How much of a container's passwd file is read.
const PASSWD_LIMIT: u64 = 8 << 20;

/// The home directory of a user in the container, to be asked after the change of root: `/` when nothing says more.
pub(super) fn home(uid: u32) -> Vec<u8> {
    // Links stay inside, since the root is the container's; a link into a process's descriptors would not.
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let Ok(fd) = openat2(AT_FDCWD, "/etc/passwd", how) else { return b"/".to_vec() };
    let regular = fstat(&fd).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFREG);
    let found = if regular { passwd::home(BufReader::new(File::from(fd).take(PASSWD_LIMIT)), uid) } else { None };
    found.unwrap_or_else(|| b"/".to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(edit: impl FnOnce(&mut spec::User)) -> Result<User> {
        let mut wanted = spec::User::default();
        edit(&mut wanted);
        User::plan(&wanted, false)
    }

    #[test]
    fn an_id_is_the_whole_string_or_nothing() {
        assert_eq!(parse_id("1000").unwrap(), 1000);
        assert_eq!(parse_id("0").unwrap(), 0);
        for wrong in ["", "1x", "-1", "+1", " 1", "1 ", "0x10", "4294967295", "4294967296", "root", "１"] {
            assert!(parse_id(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn groups_are_those_of_the_list() {
        let user = user(|user| {
            user.set_additional_gids(Some(vec![20, 10, 20]));
        })
        .unwrap();
        assert_eq!(user.groups, Groups::Exactly([20, 10, 20].map(Gid::from_raw).to_vec()));
    }

    #[test]
    fn the_id_that_means_unchanged_is_refused() {
        let error = user(|user| {
            user.set_uid(u32::MAX);
        })
        .unwrap_err();
        assert_eq!(error.field_name(), Some("/process/user/uid"));
        let error = user(|user| {
            user.set_additional_gids(Some(vec![1, u32::MAX]));
        })
        .unwrap_err();
        assert_eq!(error.field_name(), Some("/process/user/additionalGids/1"));
    }

    #[test]
    fn the_umask_is_022_unless_given() {
        assert_eq!(user(|_| ()).unwrap().umask, 0o022);
        assert_eq!(
            user(|user| {
                user.set_umask(Some(0));
            })
            .unwrap()
            .umask,
            0
        );
        assert_eq!(
            user(|user| {
                user.set_umask(Some(0o1027));
            })
            .unwrap()
            .umask,
            0o027
        );
    }
}
