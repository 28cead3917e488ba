//! `checkpoint`: CRIU writes the container's processes to images; then they are killed or run on.

use std::fs::{self, DirBuilder, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use nix::unistd::Pid;

use crate::checkpoint::{self, Criu, CriuContext, Features, Notification, dump, mounts};
use crate::error::{Context, Error, Result, bail};
use crate::plan::annotations::CRIU_OPTIONS;
use crate::process::LANDLOCK;
use crate::rootfs::OVERLAY;
use crate::sys;

use super::store::replace;
use super::{Container, Status, delete};

/// The input of `checkpoint`.
pub struct CheckpointRequest {
    /// Where images go; absolute.
    pub image_path: PathBuf,
    /// Where the log goes; absolute. `None`: below the container's state directory.
    pub work_path: Option<PathBuf>,
    /// A descriptor of the caller, to which CRIU writes when its page server is ready.
    pub status_fd: Option<u32>,
    /// The options for CRIU.
    pub flags: dump::Flags,
}

/// The mode of the directories: memory may hold secrets.
const PRIVATE: u32 = 0o700;

/// The targets of the standard streams, for `restore`: the only thing that CRIU's images lack.
pub(super) const DESCRIPTORS: &str = "descriptors.json";

/// The file with options for CRIU if no annotation names one; the path is runc's.
const CONFIG_FILE: &str = "/etc/criu/runc.conf";

/// Checkpoints a running container. A failure leaves it running. After success it is removed, unless it was to run on.
pub fn checkpoint(container: Container, request: &CheckpointRequest) -> Result<()> {
    match container.status()? {
        Status::Running | Status::Paused => {}
        other => bail!("Container cannot be checkpointed in {} state", other.word()),
    }
    sys::fd::close_on_exec_from(3).context("mark inherited descriptors close-on-exec")?;
    let program = checkpoint::find()?;
    refuse(&container)?;
    let (pid, _init) = container.init()?;
    let facts = facts(&container, pid)?;
    let images = Images::make(request, &container)?;
    if !request.flags.pre_dump {
        write_descriptors(pid, &request.image_path)?;
    }
    let mut criu = Criu::start(&program, CriuContext::default()).phase("criu")?;
    let outcome = dump(&mut criu, request, facts, &images);
    criu.finish();
    outcome?;
    log::trace!("images written");
    if request.flags.leave_running || request.flags.pre_dump { Ok(()) } else { delete::destroy(container) }
}

/// Refuses what CRIU does not save: a restore would lose it silently.
fn refuse(container: &Container) -> Result<()> {
    let record = &container.record;
    if record.annotations.get(LANDLOCK).is_some_and(|value| !value.is_empty()) {
        let error =
            Error::new("a process that Landlock confines cannot be checkpointed: a restore would lose its ruleset");
        return Err(error.field(format!("/annotations/{LANDLOCK}")));
    }
    if record.annotations.contains_key(OVERLAY) {
        return Err(Error::new("a container whose root is an overlay of the runtime's cannot be checkpointed yet")
            .field(format!("/annotations/{OVERLAY}")));
    }
    // Its processes may not read the images when they are restored, and its devices are bound.
    if record.namespaces.iter().any(|file| file == "user") {
        return Err(
            Error::new("a container with a user namespace cannot be checkpointed yet").field("/linux/namespaces")
        );
    }
    if record.seccomp_agent.is_some() {
        return Err(Error::new(
            "a container with a seccomp agent cannot be checkpointed: CRIU does not restore the notify descriptor",
        )
        .field("/linux/seccomp/listenerPath"));
    }
    Ok(())
}

fn dump(criu: &mut Criu, request: &CheckpointRequest, facts: dump::DumpFacts, images: &Images) -> Result<()> {
    ensure_features(criu, &request.flags)?;
    let (kind, options) = dump::request(&request.flags, facts, images.images.as_raw_fd(), images.work.as_raw_fd());
    let mut notified = |notification: Notification<'_>| match notification.step {
        "status-ready" => request.status_fd.map_or(Ok(()), |number| {
            sys::criu::tell(number).with_context(|| format!("write to the descriptor {number}")).field(|| "--status-fd")
        }),
        _ => Ok(()),
    };
    let log = images.work_path.join(dump::LOG);
    criu.ask(kind, &options, &mut notified).map(drop).map_err(|failure| checkpoint::explain(kind, failure, &log))
}

/// Refuses what this kernel cannot do, before a process is stopped.
fn ensure_features(criu: &mut Criu, flags: &dump::Flags) -> Result<()> {
    let wanted = Features { mem_track: flags.pre_dump || flags.parent_path.is_some(), lazy_pages: flags.lazy_pages };
    if wanted == Features::default() {
        return Ok(());
    }
    let there = criu.features(wanted)?;
    if wanted.mem_track && !there.mem_track {
        let field = if flags.pre_dump { "--pre-dump" } else { "--parent-path" };
        return Err(Error::new("the kernel cannot track changes of memory (soft-dirty pages, CONFIG_MEM_SOFT_DIRTY)")
            .field(field)
            .hint("checkpoint without a pre-dump"));
    }
    if wanted.lazy_pages && !there.lazy_pages {
        return Err(Error::new("the kernel, or criu, cannot bring memory later (userfaultfd)").field("--lazy-pages"));
    }
    Ok(())
}

/// The directories, open.
struct Images {
    images: File,
    work: File,
    work_path: PathBuf,
}

impl Images {
    fn make(request: &CheckpointRequest, container: &Container) -> Result<Images> {
        let (images, work_path) = (&request.image_path, &request.work_path);
        if let Some(parent) = &request.flags.parent_path {
            ensure_parent(images, parent)?;
        }
        let work_path = work_path.clone().unwrap_or_else(|| container.directory.file("criu.work"));
        Ok(Images { images: make(images)?, work: make(&work_path)?, work_path })
    }
}

/// Makes a directory with those above it, and opens it.
pub(super) fn make(path: &Path) -> Result<File> {
    let make = || {
        DirBuilder::new().recursive(true).mode(PRIVATE).create(path)?;
        File::open(path)
    };
    make().with_context(|| format!("make the directory {}", path.display()))
}

/// CRIU follows a relative link beside the images.
fn ensure_parent(images: &Path, parent: &Path) -> Result<()> {
    let wrong = |sentence: String| Err(Error::new(sentence).field("--parent-path"));
    if parent.is_absolute() {
        return wrong(format!("{} is absolute: it must be relative to --image-path", parent.display()));
    }
    // Before the images directory is there, what leads out of it is found by the text.
    let place = parent.components().fold(images.to_owned(), |place, part| match part {
        Component::ParentDir => place.parent().map(Path::to_owned).unwrap_or(place),
        part => place.join(part),
    });
    match fs::metadata(&place) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => wrong(format!("{} is no directory", place.display())),
        Err(error) => Err(Error::from(error).context(format!("open {}", place.display())).field("--parent-path")),
    }
}

fn facts(container: &Container, pid: Pid) -> Result<dump::DumpFacts> {
    let record = &container.record;
    let read = |file: String| fs::read_to_string(&file).with_context(|| format!("read {file}"));
    let table = mounts::parse(&read(format!("/proc/{pid}/mountinfo"))?);
    let host = mounts::parse(&read("/proc/self/mountinfo".to_owned())?);
    let inode = |file: &String| {
        let path = format!("/proc/{pid}/ns/{file}");
        let meta = fs::metadata(&path).with_context(|| format!("stat {path}"))?;
        Ok((file.clone(), meta.ino()))
    };
    Ok(dump::DumpFacts {
        pid: pid.as_raw(),
        rootfs: record.rootfs.clone(),
        cgroup: container.own_cgroup()?.map(|cgroup| cgroup.location().directory()),
        mounts: mounts::external(&table, &host, &record.namespaces).phase("mounts")?,
        joined: record.joined.iter().map(inode).collect::<Result<_>>()?,
        has_devices: has_devices(&read(format!("/proc/{pid}/net/dev"))?),
        config_file: config_file(record.annotations.get(CRIU_OPTIONS).map(String::as_str)),
    })
}

/// The file of options: an empty annotation is none.
pub(super) fn config_file(annotation: Option<&str>) -> Option<PathBuf> {
    Some(annotation.unwrap_or(CONFIG_FILE)).filter(|file| !file.is_empty()).map(PathBuf::from)
}

/// Whether a network has more than the loopback device, by its `/proc/net/dev`.
fn has_devices(table: &str) -> bool {
    table.lines().skip(2).filter_map(|line| line.split(':').next()).any(|name| name.trim() != "lo")
}

/// Records the targets of the standard streams; `/dev/null` for one that cannot be read.
fn write_descriptors(pid: Pid, images: &Path) -> Result<()> {
    let target = |number: u32| match fs::read_link(format!("/proc/{pid}/fd/{number}")) {
        Ok(target) => target.to_string_lossy().into_owned(),
        Err(_) => "/dev/null".to_owned(),
    };
    let list = serde_json::to_vec(&[0, 1, 2].map(target)).map_err(|error| Error::new(error.to_string()))?;
    replace(&images.join(DESCRIPTORS), &list, 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_alone_is_no_device() {
        let head = "Inter-|   Receive\n face |bytes\n";
        assert!(!has_devices(&format!("{head}    lo:       0       0\n")));
        assert!(has_devices(&format!("{head}    lo: 0\n  eth0: 0\n")));
    }

    #[test]
    fn the_file_of_options_is_runcs_or_the_annotations_or_none() {
        assert_eq!(config_file(None), Some("/etc/criu/runc.conf".into()));
        assert_eq!(config_file(Some("/x")), Some("/x".into()));
        assert_eq!(config_file(Some("")), None);
    }

    #[test]
    fn the_parent_is_a_directory_beside_the_images() {
        let images = std::env::temp_dir().join("corten-no-images");
        assert!(ensure_parent(&images, Path::new("..")).is_ok());
        for wrong in ["/tmp", "../corten-no-such-directory"] {
            assert_eq!(ensure_parent(&images, Path::new(wrong)).unwrap_err().field_name(), Some("--parent-path"));
        }
    }
}
