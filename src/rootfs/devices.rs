//! Device nodes, the links of `/dev`, and `/dev/console` (runtime-spec, config-linux.md, "Devices").
//!
//! All of it happens in a directory that is held open, whatever the image calls it. In a user namespace, where no
//! device can be made, one that was made on the host is bound ([`Nodes`]), or for who may make none, and for the default
//! devices, the host's own, after a look at what it is.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat, major, makedev, minor, mknodat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};

use super::idmap::Maps;
use super::nodes::{Node, Nodes};
use super::path::{Root, RootRelPath, format};
use crate::error::{Context, Error, Result, bail, ensure};
use crate::sys::Errno;
use crate::sys::mount::{Attr, Change, attach, change, clone_fd, clone_path};
use crate::sys::path::{Links, open_in};

/// The devices that every container has; all are character devices with mode 0666.
const DEFAULT: &[(&str, u64, u64)] =
    &[("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Links to what the process finds in its own procfs.
const LINKS: &[(&CStr, &CStr)] = &[
    (c"fd", c"/proc/self/fd"),
    (c"stdin", c"/proc/self/fd/0"),
    (c"stdout", c"/proc/self/fd/1"),
    (c"stderr", c"/proc/self/fd/2"),
];

/// The link to the kernel's memory, where the kernel shows that.
const CORE: (&CStr, &CStr) = (c"core", c"/proc/kcore");

/// One node to make.
#[derive(Debug)]
struct Device {
    parent: RootRelPath,
    name: CString,
    kind: SFlag,
    mode: Mode,
    number: u64,
    owner: (u32, u32),
    /// Where the host may have it, when it is to be bound.
    bind: Option<PathBuf>,
    /// Place in `linux.devices`; none for a default device.
    index: Option<usize>,
}

/// All that is made in `/dev`, compiled.
#[derive(Debug)]
pub(super) struct Devices {
    nodes: Vec<Device>,
    /// Whether something of the configuration is mounted on `/proc`.
    proc_mounted: bool,
    /// `linux.mountLabel`.
    label: Option<String>,
}

/// What was taken on the host for the nodes that are to be bound.
#[derive(Default)]
pub(super) struct Taken {
    /// The host's own nodes, in order; none for one that was made.
    bound: Vec<Option<OwnedFd>>,
    /// Those that were made.
    made: Option<Nodes>,
}

impl Taken {
    /// In the container process: all nodes that are to be bound, in order.
    fn into_bound(self, root: &Root, dev: &OwnedFd) -> Result<Vec<OwnedFd>> {
        let made = self.made.map_or_else(|| Ok(Vec::new()), |nodes| nodes.bind(root, dev))?;
        let mut made = made.into_iter();
        Ok(self.bound.into_iter().filter_map(|node| node.or_else(|| made.next())).collect())
    }
}

impl Devices {
    /// Compiles `linux.devices` and the default ones.
    pub(super) fn plan(list: &[LinuxDevice], bind: bool, proc_mounted: bool, label: Option<&str>) -> Result<Devices> {
        let mut nodes = Vec::with_capacity(list.len() + DEFAULT.len());
        for (index, device) in list.iter().enumerate() {
            let node = Device::plan(index, device, bind).field(|| format!("/linux/devices/{index}"))?;
            nodes.extend(node);
        }
        let dev = RootRelPath::new("dev".as_ref())?;
        for &(name, major, minor) in DEFAULT.iter().rev() {
            let name_c = CString::new(name).unwrap_or_default();
            // The configuration may say more of it than we know.
            if nodes.iter().any(|node: &Device| node.parent == dev && node.name == name_c) {
                continue;
            }
            let node = Device {
                parent: dev.clone(),
                name: name_c,
                kind: SFlag::S_IFCHR,
                mode: Mode::from_bits_truncate(0o666),
                number: makedev(major, minor),
                owner: (0, 0),
                bind: bind.then(|| PathBuf::from(format!("/dev/{name}"))),
                index: None,
            };
            nodes.insert(0, node);
        }
        Ok(Devices { nodes, proc_mounted, label: label.map(str::to_owned) })
    }

    /// Whether any node is to be bound.
    pub(super) fn binds(&self) -> bool {
        self.nodes.iter().any(|node| node.bind.is_some())
    }

    /// On the host: makes or opens the nodes that are to be bound. `maps` are those of the container's user namespace; none
    /// where all have to be the host's.
    pub(super) fn open(&self, maps: Option<impl FnOnce() -> Result<Maps>>) -> Result<Taken> {
        let maps = if self.makes_some() { maps.map(|maps| maps()).transpose()? } else { None };
        let mut taken = Taken::default();
        if maps.is_some() {
            taken.made = Nodes::new(self.label.as_deref()).field(|| "/linux/devices")?;
        }
        for node in &self.nodes {
            let Some(path) = &node.bind else { continue };
            let made = node.make_on_host(taken.made.as_mut(), maps.as_ref());
            let take = || if made? { Ok(None) } else { node.open(path).map(Some) };
            taken.bound.push(take().map_err(|error| node.describe(error))?);
        }
        Ok(taken)
    }

    /// Whether those that are to be bound can be made, or the host has them. `makes`: this process may make some.
    pub(super) fn preflight(&self, makes: bool) -> impl Iterator<Item = Result<()>> {
        let mut made = None;
        if makes && self.makes_some() {
            made = Nodes::new(self.label.as_deref()).ok().flatten();
        }
        self.nodes.iter().filter_map(move |node| {
            let path = node.bind.as_ref()?;
            let done = node.make_on_host(made.as_mut(), None);
            let look = || if done? { Ok(()) } else { node.preflight(path) };
            Some(look().map_err(|error| node.describe(error)))
        })
    }

    /// Whether some are to be bound that are not there on each host.
    fn makes_some(&self) -> bool {
        self.nodes.iter().any(|node| node.bind.is_some() && node.index.is_some())
    }

    /// In the container process, where the host's `/dev` is still in sight: nodes, links, `ptmx`. Gives back the directory
    /// `/dev`. Where `binds`, in a mount namespace of the container's own, a node that may not be made is the host's.
    pub(super) fn make(&self, root: &Root, taken: Taken, binds: bool) -> Result<OwnedFd> {
        let dev = root.directory(&RootRelPath::new("dev".as_ref())?).context("open /dev")?.fd;
        let mut bound = taken.into_bound(root, &dev).field(|| "/linux/devices")?.into_iter();
        for node in &self.nodes {
            let source = node.bind.as_ref().and_then(|_| bound.next());
            node.make(root, &dev, source, binds).map_err(|error| {
                node.describe(error.context(format!("make the device {}/{}", node.parent, node.name.to_string_lossy())))
            })?;
        }
        if self.proc_mounted || root.find(&RootRelPath::new("proc/self/fd".as_ref())?).is_ok() {
            let core = root.find(&RootRelPath::new("proc/kcore".as_ref())?).is_ok().then_some(&CORE);
            for (name, target) in LINKS.iter().chain(core) {
                match symlinkat(*target, &dev, *name) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(error) => return Err(error).with_context(|| format!("make the link /dev/{}", text(name))),
                }
            }
        }
        link_ptmx(&dev).context("make the link /dev/ptmx")?;
        Ok(dev)
    }
}

impl Device {
    fn plan(index: usize, device: &LinuxDevice, bind: bool) -> Result<Option<Device>> {
        let kind = match device.typ() {
            LinuxDeviceType::C | LinuxDeviceType::U => SFlag::S_IFCHR,
            LinuxDeviceType::B => SFlag::S_IFBLK,
            LinuxDeviceType::P => SFlag::S_IFIFO,
            LinuxDeviceType::A => bail!("the type a stands for no device"),
        };
        let path = RootRelPath::new(device.path())?;
        let Some((parent, name)) = path.split() else { bail!("{} is no path of a device", device.path().display()) };
        // It is always the link that the standard asks for.
        if path.bytes() == b"dev/ptmx" {
            return Ok(None);
        }
        let fifo = kind == SFlag::S_IFIFO;
        let number = |value: i64, most: i64, what: &str| -> Result<u64> {
            ensure!((0..=most).contains(&value), "the {what} number {value} is out of range");
            Ok(value as u64)
        };
        // The kernel has 12 bits for the major number and 20 for the minor.
        let (major, minor) = (number(device.major(), 0xfff, "major")?, number(device.minor(), 0xf_ffff, "minor")?);
        let owner = (device.uid().unwrap_or(0), device.gid().unwrap_or(0));
        let bind = bind && !fifo;
        Ok(Some(Device {
            parent,
            name,
            kind,
            mode: Mode::from_bits_truncate(device.file_mode().unwrap_or(0o666) & 0o7777),
            number: if fifo { 0 } else { makedev(major, minor) },
            owner,
            bind: bind.then(|| device.path().clone()),
            index: Some(index),
        }))
    }

    /// Names the entry of the configuration, if it is one.
    fn describe(&self, error: Error) -> Error {
        match self.index {
            Some(index) => error.field(format!("/linux/devices/{index}")),
            None => error,
        }
    }

    /// On the host: makes it among `nodes`. False where the host's is to be bound.
    fn make_on_host(&self, nodes: Option<&mut Nodes>, maps: Option<&Maps>) -> Result<bool> {
        let (Some(nodes), Some(index)) = (nodes, self.index) else { return Ok(false) };
        let (user, group) = maps.map_or((None, None), |maps| (maps.user(self.owner.0), maps.group(self.owner.1)));
        let node = Node { kind: self.kind, mode: self.mode, number: self.number, user, group };
        let made = nodes.add(node).context("make the device")?;
        if made && maps.is_some() && self.owner != (0, 0) {
            for (kind, id, outside) in [("uid", self.owner.0, user), ("gid", self.owner.1, group)] {
                if outside.is_none() {
                    log::warn!("/linux/devices/{index}/{kind}: the user namespace does not map {id}: nobody's instead");
                }
            }
        }
        Ok(made)
    }

    /// A detached mount of the host's node: it gives nobody rights, and holds no program.
    fn open(&self, path: &Path) -> Result<OwnedFd> {
        if let (Some(index), true) = (self.index, self.owner != (0, 0)) {
            log::warn!("/linux/devices/{index}: the host's {} is bound, and keeps its owner", path.display());
        }
        let node = self.checked(path, clone_path(path, false))?;
        change(&node, false, Change::set(Attr::NOSUID | Attr::NOEXEC))
            .with_context(|| format!("set the attributes of the device {}", path.display()))?;
        Ok(node)
    }

    fn preflight(&self, path: &Path) -> Result<()> {
        self.checked(path, open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())).map(drop)
    }

    fn checked(&self, path: &Path, node: Result<OwnedFd, Errno>) -> Result<OwnedFd> {
        let describe = || format!("open the device {}", path.display());
        let node = node.with_context(describe);
        let node = if self.index.is_some() {
            node.hint("who may make no devices can only have one that the host has at this path: make it there")?
        } else {
            node?
        };
        let stat = fstat(&node).with_context(describe)?;
        self.check(format(&stat), stat.st_rdev).with_context(describe)?;
        Ok(node)
    }

    fn check(&self, kind: SFlag, number: u64) -> Result<()> {
        ensure!(kind == self.kind, "what is there is another kind of file");
        ensure!(
            self.kind == SFlag::S_IFIFO || number == self.number,
            "what is there is the device {}, not {}",
            device_number(number),
            device_number(self.number)
        );
        Ok(())
    }

    fn make(&self, root: &Root, dev: &OwnedFd, source: Option<OwnedFd>, binds: bool) -> Result<()> {
        let held;
        let parent = if self.parent.bytes() == b"dev" {
            dev.as_fd()
        } else {
            held = root.directory(&self.parent).with_context(|| format!("open {}", self.parent))?.fd;
            held.as_fd()
        };
        match source {
            Some(source) => self.bind(parent, source),
            None => match self.make_node(parent) {
                // A runtime that is root of a user namespace, or has no CAP_MKNOD.
                Err(error) if binds && error.errno() == Some(Errno::EPERM) => {
                    let path = format!("{}/{}", self.parent, self.name.to_string_lossy());
                    self.bind(parent, self.open(Path::new(&path))?)
                }
                done => done,
            },
        }
    }

    /// The umask is 0 in the container process, so the mode needs no second call.
    fn make_node(&self, parent: BorrowedFd<'_>) -> Result<()> {
        match mknodat(parent, self.name.as_c_str(), self.kind, self.mode, self.number) {
            Ok(()) => {}
            Err(Errno::EEXIST) => {
                let stat = fstatat(parent, self.name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
                return self.check(format(&stat), stat.st_rdev);
            }
            Err(error) => return Err(error.into()),
        }
        if self.owner != (0, 0) {
            let (uid, gid) = (Uid::from_raw(self.owner.0), Gid::from_raw(self.owner.1));
            let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
            fchownat(parent, self.name.as_c_str(), Some(uid), Some(gid), flags).context("change its owner")?;
        }
        Ok(())
    }

    fn bind(&self, parent: BorrowedFd<'_>, source: OwnedFd) -> Result<()> {
        let place = plain_file(parent, &self.name)?;
        attach(source, place).map_err(Error::from)
    }
}

/// A file to mount on, made when it is missing. A link is refused.
fn plain_file(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    match mknodat(parent, name, SFlag::S_IFREG, Mode::from_bits_truncate(0o644), 0) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(open_in(parent, name, OFlag::O_PATH, Links::Refuse)?)
}

/// `/dev/ptmx` leads to the container's own devpts, never to the host's.
fn link_ptmx(dev: &OwnedFd) -> Result<()> {
    const TARGET: &CStr = c"pts/ptmx";
    match symlinkat(TARGET, dev, c"ptmx") {
        Err(Errno::EEXIST) => {}
        done => return Ok(done?),
    }
    if readlinkat(dev, c"ptmx").is_ok_and(|target| target.as_encoded_bytes() == TARGET.to_bytes()) {
        return Ok(());
    }
    unlinkat(dev, c"ptmx", UnlinkatFlags::NoRemoveDir)?;
    Ok(symlinkat(TARGET, dev, c"ptmx")?)
}

/// Puts a terminal on `/dev/console`. Links are refused (CVE-2025-52565, CVE-2026-88264). Where a directory of the host is
/// bound as `/dev`, it has an empty file for that afterwards (runtime-spec, config-linux.md, "Default Devices": a console
/// is supplied with a terminal).
pub(super) fn console(root: &Root, dev: Option<&OwnedFd>, terminal: BorrowedFd<'_>) -> Result<()> {
    let place = match dev {
        Some(dev) => plain_file(dev.as_fd(), c"console")?,
        None => {
            let directory = root.find(&RootRelPath::new("dev".as_ref())?).context("open /dev")?.fd;
            match openat(&directory, c"console", OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()) {
                Ok(place) => place,
                Err(Errno::ENOENT) => plain_file(directory.as_fd(), c"console").map_err(|error| {
                    error.hint(
                        "make an empty file console in the directory that is bound as /dev, or leave out the terminal",
                    )
                })?,
                Err(error) => return Err(error.into()),
            }
        }
    };
    ensure!(format(&fstat(&place)?) != SFlag::S_IFLNK, "it is a symbolic link");
    let terminal = clone_fd(terminal, false).context("clone the terminal")?;
    Ok(attach(terminal, place)?)
}

/// The container's `/dev/null` as a place, verified to be the device 1:3 (CVE-2025-31133).
pub(super) fn null(root: &Root) -> Result<OwnedFd> {
    let null = root.find(&RootRelPath::new("dev/null".as_ref())?).context("open /dev/null")?.fd;
    check_null(null)
}

/// The same, open for use (CVE-2026-88265). Should it be something else, opening it must not wait for anybody.
pub(super) fn open_null(root: &Root) -> Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    check_null(open_in(root.fd(), c"dev/null", flags, Links::Follow).context("open /dev/null")?)
}

fn check_null(null: OwnedFd) -> Result<OwnedFd> {
    let stat = fstat(&null)?;
    let right = format(&stat) == SFlag::S_IFCHR && stat.st_rdev == makedev(1, 3);
    ensure!(right, "/dev/null of the container is not the null device");
    Ok(null)
}

/// A device number as people write it.
fn device_number(number: u64) -> String {
    format!("{}:{}", major(number), minor(number))
}

fn text(name: &CStr) -> String {
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(path: &str, kind: LinuxDeviceType, major: i64, minor: i64) -> LinuxDevice {
        let mut device = LinuxDevice::default();
        device.set_path(path.into()).set_typ(kind).set_major(major).set_minor(minor);
        device
    }

    #[test]
    fn a_configured_device_replaces_the_default_one_of_its_name() {
        let devices = Devices::plan(&[device("/dev/null", LinuxDeviceType::C, 1, 3)], false, true, None).unwrap();
        let nulls: Vec<_> = devices.nodes.iter().filter(|node| node.name.as_c_str() == c"null").collect();
        assert_eq!(nulls.len(), 1);
        assert_eq!(nulls[0].index, Some(0));
        assert_eq!(devices.nodes.len(), DEFAULT.len());
    }

    #[test]
    fn numbers_and_types_that_no_device_can_have_are_refused_with_their_field() {
        for bad in [
            device("/dev/x", LinuxDeviceType::A, 1, 3),
            device("/dev/x", LinuxDeviceType::C, -1, 3),
            device("/dev/x", LinuxDeviceType::B, 1, 1 << 20),
            device("/", LinuxDeviceType::C, 1, 3),
        ] {
            let error = Devices::plan(&[bad], false, true, None).unwrap_err();
            assert_eq!(error.field_name(), Some("/linux/devices/0"));
        }
    }

    #[test]
    fn a_fifo_is_made_even_where_devices_are_bound() {
        let devices = Devices::plan(&[device("/dev/f", LinuxDeviceType::P, 0, 0)], true, true, None).unwrap();
        let bound = devices.nodes.iter().filter(|node| node.bind.is_some()).count();
        assert_eq!(bound, DEFAULT.len());
    }
}
