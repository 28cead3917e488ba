//! Annotations that corten obeys, and who may set them.
//!
//! Engines copy the annotations of an image into `config.json` (Podman does), where they look like those of the caller. So
//! one that affects the host beyond the container and its bundle is refused unless the caller has allowed it where no image
//! can: on the command line, or in a file of the host.

use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::{FAIL_UNKNOWN, INNER_CGROUP, KEEP_GROUPS};
use crate::cgroup::{self, systemd};
use crate::error::{Context, Error, Result, escape};
use crate::process::LANDLOCK;
use crate::{host, rootfs};

/// An annotation that corten obeys.
pub(crate) struct Obeyed {
    /// Its name, or with a final dot the prefix of its names.
    pub(crate) name: &'static str,
    /// What it would do beyond the container and its bundle: by the rest of the name, the value, and the cgroup driver.
    reach: fn(&str, &str, cgroup::Manager) -> Option<String>,
}

/// All of them.
pub(crate) const OBEYED: [Obeyed; 7] = [
    // It takes rights away from the container.
    Obeyed { name: LANDLOCK, reach: nothing },
    // An overlay in memory, or one that is kept in the bundle, where the image's files are as well. But a file with a
    // set-user-id bit in another directory is one of the host's.
    Obeyed { name: rootfs::OVERLAY, reach: directory },
    // Some properties are for the manager of the whole host.
    Obeyed { name: systemd::ANNOTATION, reach: property },
    // The container goes to a cgroup below its own, and the limits of that hold.
    Obeyed { name: INNER_CGROUP, reach: nothing },
    // Podman's `--group-add keep-groups` is this annotation and nothing else, so that an image's cannot be told from the
    // caller's. The groups are the caller's, and what they open is what the caller mounts.
    Obeyed { name: KEEP_GROUPS, reach: nothing },
    // A name of an unknown system call is an error.
    Obeyed { name: FAIL_UNKNOWN, reach: nothing },
    // CRIU runs as root, and its options name programs that it runs.
    Obeyed { name: CRIU_OPTIONS, reach: criu_options },
];

/// Names a file of options for CRIU, runc's annotation; an empty name is none.
pub(crate) const CRIU_OPTIONS: &str = "org.criu.config";

/// The annotations that the host allows: a name or `PREFIX*` per line, `#` begins a comment.
const FILE: &str = "/etc/corten/allowed-annotations";

/// The same below the directory of a user's configuration, for containers of that user.
const OF_USER: &str = "corten/allowed-annotations";

/// Who owns the host's files as seen from a user namespace without a map of that owner (`overflowuid`, user_namespaces(7)).
const UNMAPPED: u32 = 65534;

fn nothing(_: &str, _: &str, _: cgroup::Manager) -> Option<String> {
    None
}

fn criu_options(_: &str, value: &str, _: cgroup::Manager) -> Option<String> {
    (!value.is_empty()).then(|| format!("names {value} as configuration of criu, which can run any program as root"))
}

fn directory(_: &str, value: &str, _: cgroup::Manager) -> Option<String> {
    let path = rootfs::overlay_outside(value)?;
    Some(format!("keeps what the container writes in {}, outside of the bundle", path.display()))
}

fn property(name: &str, value: &str, manager: cgroup::Manager) -> Option<String> {
    let property = systemd::reaching(name, value).filter(|_| matches!(manager, cgroup::Manager::Systemd))?;
    Some(format!("sets {property} of the container's systemd unit, which can reach the host or lift limits"))
}

/// Refuses annotations that affect the host, unless they are in `allowed` or in a file of the host.
pub(super) fn check(
    annotations: Option<&HashMap<String, String>>,
    manager: cgroup::Manager,
    allowed: &[String],
) -> Result<()> {
    let mut list: Vec<_> = annotations.into_iter().flatten().collect();
    list.sort_unstable();
    for (name, value) in list {
        let Some(what) = reach(name, value, manager) else { continue };
        let pointer = || format!("/annotations/{}", escape(name));
        if !is_among(name, allowed.iter().map(String::as_str)) && !is_in_files(name).field(pointer)? {
            let file = files().pop().map(|(file, _)| file).unwrap_or_default();
            let remedy = format!(
                "`--allow-annotation {name}` before the command allows it, or a line with that name in {}",
                file.display()
            );
            let error = Error::new(format!("{what}: an image may have asked for it, so the caller has to allow it"));
            return Err(error.field(pointer()).hint(remedy));
        }
    }
    Ok(())
}

fn reach(name: &str, value: &str, manager: cgroup::Manager) -> Option<String> {
    OBEYED.iter().find_map(|obeyed| match name.strip_prefix(obeyed.name)? {
        rest if rest.is_empty() || obeyed.name.ends_with('.') => (obeyed.reach)(rest, value, manager),
        _ => None,
    })
}

fn is_among<'a>(name: &str, mut list: impl Iterator<Item = &'a str>) -> bool {
    list.any(|entry| match entry.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == entry,
    })
}

/// The files that may allow annotations, and whether they belong to the caller.
fn files() -> Vec<(PathBuf, bool)> {
    let mut files = vec![(FILE.into(), false)];
    if host::is_unprivileged() {
        let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let directory = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")));
        files.extend(directory.map(|directory| (directory.join(OF_USER), true)));
    }
    files
}

fn is_in_files(name: &str) -> Result<bool> {
    for (file, own) in files() {
        let text = read(&file, own).with_context(|| format!("read {}", file.display()))?;
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        if is_among(name, lines.filter(|line| !line.is_empty())) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The content of a file; empty if there is none that the caller may read.
fn read(path: &Path, own: bool) -> Result<String> {
    let mut file = match File::open(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
            return Ok(String::new());
        }
        opened => opened?,
    };
    let meta = file.metadata()?;
    let user = geteuid().as_raw();
    let owner = if own { user } else { 0 };
    let unmapped = host::in_user_namespace() && meta.uid() == UNMAPPED;
    let refuse = |why: String| Err(Error::new(why).hint(format!("chown {owner} and chmod go-w the file")));
    if ![0, owner].contains(&meta.uid()) && !unmapped {
        return refuse(format!("it belongs to user {}, not to {owner}", meta.uid()));
    }
    if meta.mode() & 0o022 != 0 {
        return refuse("others than its owner may write to it".into());
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cgroup::Manager::{Cgroupfs, Systemd};

    #[test]
    fn what_reaches_beyond_the_container_is_known_by_name_and_value() {
        for (name, value, manager) in [
            ("run.corten.rootfs.overlay", "dir=/tmp", Cgroupfs),
            ("org.systemd.property.SuccessAction", "'poweroff-force'", Systemd),
            ("org.systemd.property.MemoryMax", "uint64 1", Systemd),
            ("org.systemd.property.After", "['a.service', 'b.service']", Systemd),
            ("org.systemd.property.killsignal", "9", Systemd),
        ] {
            assert!(reach(name, value, manager).is_some(), "{name} {value}");
        }
        for (name, value, manager) in [
            ("run.corten.rootfs.overlay", "dir=tmp", Cgroupfs),
            ("run.corten.rootfs.overlay.x", "dir=/tmp", Cgroupfs),
            ("run.corten.landlock", "dir=/tmp", Cgroupfs),
            ("org.systemd.property.SuccessAction", "'poweroff-force'", Cgroupfs),
            ("org.systemd.property.After", "['crio.service']", Systemd),
            ("org.systemd.property.RuntimeMaxSec", "90", Systemd),
            ("org.systemd.propertyX", "90", Systemd),
            ("run.oci.keep_original_groups", "1", Systemd),
        ] {
            assert_eq!(reach(name, value, manager), None, "{name} {value}");
        }
    }

    #[test]
    fn a_name_is_allowed_by_itself_or_by_what_it_begins_with() {
        let among = |name, list: &[&str]| is_among(name, list.iter().copied());
        assert!(among("a.b", &["x", "a.b"]) && among("a.b", &["a.*"]) && among("a.b", &["*"]));
        assert!(!among("a.b", &["a.", "a.b.c", "b", "a.b.*", "", "a*b"]));
    }
}
