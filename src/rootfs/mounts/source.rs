//! What an entry of `mounts` is made from.

use super::*;

/// Reads the type, source and options of an entry.
pub(super) fn read(
    entry: &Entry,
    options: &mut Options,
    request: &Request,
    propagation: Propagation,
    fstype: &str,
    field: &dyn Fn(&str) -> String,
) -> Result<Source> {
    if options.remount {
        return Ok(Source::Remount);
    }
    let text = |path: &Path| {
        let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
        CString::new(bytes).map_err(|_| Error::new("a path must not contain a NUL byte").field(field("source")))
    };
    // What a private root has cut off can neither be a peer nor a slave of the host's any more.
    let tied = |&(kind, _): &(Propagation, bool)| {
        kind == spread::SHARED || (kind == spread::SLAVE && propagation == spread::PRIVATE)
    };
    let early = request.user_namespace || request.mount_namespace != Isolation::New || options.spread.iter().any(tied);
    if let Some(recursive) = options.bind {
        let Some(path) = entry.source().as_deref().filter(|path| !path.as_os_str().is_empty()) else {
            return Err(Error::new("a bind needs a source").field(field("source")));
        };
        text(path)?;
        return Ok(Source::Bind { path: request.bundle.join(path), recursive, early });
    }
    ensure_type(fstype).field(|| field("type"))?;
    if matches!(fstype, "cgroup" | "cgroup2") {
        return Ok(Source::Cgroup { private: request.cgroup_namespace });
    }
    if fstype == "sysfs" && request.user_namespace && !request.network_namespace_owned {
        return host_sysfs(options).field(|| field("type"));
    }
    let name = match entry.source().as_deref().filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => Some(text(path)?),
        None => None,
    };
    if fstype == "overlay" {
        let words = entry.options().as_deref().unwrap_or(&[]);
        let overlay = Overlay::plan(name, words, &mut options.parameters, request.bundle, &field("options"))?;
        return Ok(Source::Overlay(Box::new(overlay)));
    }
    let fstype = CString::new(fstype).map_err(|_| Error::new("must not contain a NUL byte").field(field("type")))?;
    let tmpfs = fstype.as_bytes() == b"tmpfs";
    let read_only_last = tmpfs && options.merged().set.contains(attr::RDONLY);
    Ok(Source::New { fstype, name, copy_up: options.copy_up && tmpfs, read_only_last })
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
    if !options.merged().set.contains(attr::RDONLY) {
        let error = Error::new("a user namespace without its own network namespace may not have a writable sysfs");
        return Err(error.hint("add the option ro, or a network namespace"));
    }
    // With what is mounted below it.
    let all = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
    options.all = options.all.then(Attributes { set: all, clear: attr::empty() });
    Ok(Source::Bind { path: PathBuf::from("/sys"), recursive: true, early: true })
}
