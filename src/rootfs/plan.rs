//! Everything about the container's file system, compiled.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use oci_spec::runtime::Spec;

use super::devices::Devices;
use super::guest::Guest;
use super::idmap::{self, Maps};
use super::image_overlay::{self, ImageOverlay};
use super::masks::Masks;
use super::mount::{Mount, PlanContext};
use super::propagation::{self, SetPropagation};
use super::request::{Isolation, Request};
use crate::error::{Context, Error, Result};
use crate::sys::mount::Propagation;

/// Everything about the file system, compiled.
#[derive(Debug)]
pub struct Rootfs {
    pub(super) path: PathBuf,
    pub(super) read_only: bool,
    /// What the container's root is made from.
    pub(super) source: RootSource,
    pub(super) isolation: Isolation,
    pub(super) no_pivot: bool,
    /// What `/` of the new namespace gets before the first mount: it receives from the host, or not, and never sends.
    pub(super) propagation_before: Propagation,
    /// What the container's root gets in the end, where that is more.
    pub(super) propagation_after: Option<SetPropagation>,
    pub(super) mounts: Vec<Mount>,
    /// The maps of a user namespace that is to be made.
    pub(super) container_maps: Maps,
    /// None when the host's `/dev` is bound: it is left as it is.
    pub(super) devices: Option<Devices>,
    pub(super) masks: Masks,
}

/// What the container's root is made from.
#[derive(Debug)]
pub(super) enum RootSource {
    /// The directory itself.
    Directory,
    /// The first mount, an overlay.
    OverlayMount(Box<Mount>),
    /// An overlay by annotation, with the directory as its lowest layer.
    ImageOverlay(ImageOverlay),
}

impl Rootfs {
    /// Compiles the configuration. Touches nothing.
    ///
    /// # Errors
    /// Each names the field that is at fault.
    pub fn plan(request: &Request) -> Result<Rootfs> {
        let spec = request.spec;
        let Some(root) = spec.root().as_ref().filter(|root| !root.path().as_os_str().is_empty()) else {
            return Err(Error::new("must be set").field("/root/path"));
        };
        let linux = spec.linux().as_ref();
        let word = linux.and_then(|linux| linux.rootfs_propagation().as_deref()).unwrap_or("");
        let (before, after) = propagation::of_root(word).field(|| "/linux/rootfsPropagation")?;
        let label = label(spec, request.selinux)?;
        let container_maps = idmap::container_maps(spec);
        let context = PlanContext {
            bundle: request.bundle,
            namespaces: request.namespaces,
            container_maps: &container_maps,
            root_propagation: before,
            label,
        };
        let entries = spec.mounts().iter().flatten().enumerate();
        let mut mounts: Vec<Mount> =
            entries.map(|(index, entry)| Mount::plan(index, entry, &context)).collect::<Result<_>>()?;
        let source = root_source(&mut mounts, request, label)?;
        let devices = devices(spec, &mounts, request.namespaces.has_user(), label)?;
        let list = |paths: Option<&Vec<String>>| paths.cloned().unwrap_or_default();
        let masks = Masks::plan(
            &list(linux.and_then(|linux| linux.masked_paths().as_ref())),
            &list(linux.and_then(|linux| linux.readonly_paths().as_ref())),
        )?;
        let plan = Rootfs {
            path: request.bundle.join(root.path()),
            read_only: root.readonly().unwrap_or(false) || source.is_read_only(),
            source,
            isolation: request.namespaces.mount,
            no_pivot: request.no_pivot,
            propagation_before: before,
            propagation_after: after,
            mounts,
            container_maps,
            devices,
            masks,
        };
        plan.check_isolation(word, request.namespaces.has_user())?;
        Ok(plan)
    }

    /// The rootfs as it was named, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is something to mount, and no mount namespace to do it in: what is known before that is done.
    pub fn guest(&self) -> Result<Option<Guest>> {
        let needed = self.isolation == Isolation::None && (self.read_only || !self.mounts.is_empty());
        if needed { Guest::plan(&self.path).map(Some) } else { Ok(None) }
    }

    /// Without a mount namespace every mount is the host's as well, so what cannot be kept to the root is refused and not
    /// left out. In a user namespace that is all: the host's mounts are beyond its power.
    fn check_isolation(&self, propagation: &str, user_namespace: bool) -> Result<()> {
        if self.isolation != Isolation::None {
            return Ok(());
        }
        let bound = self.devices.as_ref().is_some_and(Devices::binds);
        let needs = [
            (matches!(self.source, RootSource::ImageOverlay(_)), image_overlay::FIELD, "an overlay"),
            (matches!(self.source, RootSource::OverlayMount(_)), "/mounts", "an overlay"),
            (self.read_only && user_namespace, "/root/readonly", "a read-only root in a user namespace"),
            (!self.mounts.is_empty() && user_namespace, "/mounts", "a mount in a user namespace"),
            (self.masks.masks_something(), "/linux/maskedPaths", "a masked path"),
            (self.masks.makes_something_read_only(), "/linux/readonlyPaths", "a read-only path"),
            (!propagation.is_empty(), "/linux/rootfsPropagation", "propagation"),
            (bound, "/linux/devices", "a device in a user namespace"),
        ];
        match needs.iter().find(|(asked, ..)| *asked) {
            None => Ok(()),
            Some((_, field, what)) => Err(Error::new(format!("{what} needs a mount namespace of the container's own"))
                .field(*field)
                .hint("add {\"type\": \"mount\"} to /linux/namespaces")),
        }
    }

    /// The kernel wants power over the file system, and the ids of a map are those of the host, which mean others here.
    pub(super) fn refuse_mapped(&self) -> Result<()> {
        let overlay = if let RootSource::OverlayMount(mount) = &self.source { Some(&**mount) } else { None };
        let Some(mount) = overlay.into_iter().chain(&self.mounts).find(|mount| mount.is_mapped()) else {
            return Ok(());
        };
        Err(Error::new("owners can only be mapped with power over the file system").field(mount.pointer()).hint(
            "leave the mapping out, or run as root, or as root of a user and mount namespace that has the file \
               system mounted",
        ))
    }

    pub(super) fn opening(&self) -> String {
        format!("open the rootfs {}", self.path.display())
    }

    pub(super) fn open_root(&self) -> Result<OwnedFd> {
        // A link is followed here, once. From now on the rootfs is this directory, whatever its name leads to.
        open(&self.path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .with_context(|| self.opening())
            .field(|| "/root/path")
    }
}

impl RootSource {
    fn is_read_only(&self) -> bool {
        match self {
            RootSource::Directory => false,
            RootSource::OverlayMount(mount) => mount.is_read_only(),
            RootSource::ImageOverlay(overlay) => overlay.read_only,
        }
    }
}

/// `linux.mountLabel`.
fn label(spec: &Spec, selinux: bool) -> Result<Option<&str>> {
    let label = spec.linux().as_ref().and_then(|linux| linux.mount_label().as_deref());
    let label = label.filter(|label| !label.is_empty());
    if label.is_some() && !selinux {
        return Err(Error::new("a label needs SELinux, which this kernel does not have on").field("/linux/mountLabel"));
    }
    Ok(label)
}

/// The devices; none where the host's `/dev` is bound.
fn devices(spec: &Spec, mounts: &[Mount], bind: bool, label: Option<&str>) -> Result<Option<Devices>> {
    let covers = |path: &[u8]| mounts.iter().rfind(|mount| mount.target().bytes() == path);
    match covers(b"dev") {
        Some(mount) if mount.is_bind() => Ok(None),
        _ => {
            let list = spec.linux().as_ref().and_then(|linux| linux.devices().as_deref()).unwrap_or(&[]);
            Devices::plan(list, bind, covers(b"proc").is_some(), label).map(Some)
        }
    }
}

/// Finds out what the root is made from; a mount for it is taken from the list.
fn root_source(mounts: &mut Vec<Mount>, request: &Request, label: Option<&str>) -> Result<RootSource> {
    let annotation = request.spec.annotations().as_ref().and_then(|list| list.get(image_overlay::ANNOTATION));
    let first = mounts.first().is_some_and(|mount| mount.target().is_root());
    match annotation {
        Some(_) if first => {
            Err(Error::new("the first mount is the container's root already").field(image_overlay::FIELD))
        }
        Some(value) => ImageOverlay::plan(value, request.bundle, request.id, label, request.namespaces.has_user())
            .field(|| image_overlay::FIELD)
            .map(RootSource::ImageOverlay),
        None if first => Ok(RootSource::OverlayMount(Box::new(mounts.remove(0)))),
        None => Ok(RootSource::Directory),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::request::Namespaces;

    fn plan(json: &str, isolation: Isolation) -> Result<Rootfs> {
        let spec: Spec = serde_json::from_str(json).unwrap();
        Rootfs::plan(&Request {
            spec: &spec,
            bundle: Path::new("/b"),
            id: "c",
            namespaces: Namespaces {
                mount: isolation,
                user: Isolation::None,
                cgroup: Isolation::New,
                owns_network: true,
            },
            no_pivot: false,
            selinux: false,
        })
    }

    fn fault(rest: &str, isolation: Isolation) -> (String, String) {
        let json = format!(r#"{{"ociVersion":"1.0.2","root":{{"path":"r"}},{rest}}}"#);
        let error = plan(&json, isolation).unwrap_err();
        (error.field_name().unwrap_or("").to_owned(), error.to_string())
    }

    #[test]
    fn b31_the_rootfs_may_be_spelled_in_every_way() {
        for (path, right) in [("r/", "/b/r"), (".", "/b/."), ("/abs", "/abs")] {
            let json = format!(r#"{{"ociVersion":"1.0.2","root":{{"path":"{path}"}}}}"#);
            assert_eq!(plan(&json, Isolation::New).unwrap().path, Path::new(right), "{path}");
        }
        assert_eq!(plan(r#"{"ociVersion":"1.0.2"}"#, Isolation::New).unwrap_err().field_name(), Some("/root/path"));
    }

    #[test]
    fn b16_read_only_promises_need_a_mount_namespace() {
        for (json, field) in [
            (r#""linux":{"maskedPaths":["/x"]}"#, "/linux/maskedPaths"),
            (r#""linux":{"readonlyPaths":["/x"]}"#, "/linux/readonlyPaths"),
            (r#""linux":{"rootfsPropagation":"private"}"#, "/linux/rootfsPropagation"),
            (r#""mounts":[{"destination":"/","type":"overlay","options":["lowerdir=/l:/m"]}]"#, "/mounts"),
        ] {
            assert_eq!(fault(json, Isolation::None).0, field, "{json}");
        }
        assert!(plan(r#"{"ociVersion":"1.0.2","root":{"path":"r"},"mounts":[],"linux":{"maskedPaths":[],"readonlyPaths":[]}}"#, Isolation::None).is_ok());
    }

    #[test]
    fn b23_only_a_procfs_may_cover_proc_and_only_some_files_below_it() {
        let mount =
            |target: &str, rest: &str| format!(r#""mounts":[{{"destination":"{target}","source":"/s",{rest}}}]"#);
        for target in ["/proc/net/dev", "/proc/sys/kernel/core_pattern", "//proc/../proc/self"] {
            let (field, error) = fault(&mount(target, r#""type":"bind""#), Isolation::New);
            assert_eq!(field, "/mounts/0/destination");
            assert!(error.contains("inside /proc"), "{error}");
        }
        assert!(fault(&mount("/proc", r#""type":"tmpfs""#), Isolation::New).1.contains("inside /proc"));
        for (target, rest) in
            [("/proc/uptime", r#""type":"bind""#), ("/host/proc", r#""type":"proc""#), ("/proc", r#""type":"proc""#)]
        {
            let json = format!(r#"{{"ociVersion":"1.0.2","root":{{"path":"r"}},{}}}"#, mount(target, rest));
            assert!(plan(&json, Isolation::New).is_ok(), "{target}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_mount_is_told_with_its_field() {
        for (entry, field) in [
            (r#"{"destination":"/","type":"tmpfs"}"#, "/mounts/0/destination"),
            (r#"{"destination":"/x/..","type":"tmpfs"}"#, "/mounts/0/destination"),
            (r#"{"destination":"/x"}"#, "/mounts/0/type"),
            (r#"{"destination":"/x","type":"none"}"#, "/mounts/0/type"),
            (r#"{"destination":"/x","type":"bind"}"#, "/mounts/0/source"),
            (r#"{"destination":"/x","type":"bind","source":"/s","options":["readonly"]}"#, "/mounts/0/options"),
            (r#"{"destination":"/x","type":"tmpfs","options":["ro","idmap"]}"#, "/mounts/0/options"),
            (r#"{"destination":"/x","type":"proc","options":["tmpcopyup"]}"#, "/mounts/0/options"),
            (
                r#"{"destination":"/x","source":"/s","options":["bind"],"uidMappings":[{"containerID":0,"hostID":1,"size":1}]}"#,
                "/mounts/0/gidMappings",
            ),
        ] {
            assert_eq!(fault(&format!(r#""mounts":[{entry}]"#), Isolation::New).0, field, "{entry}");
        }
        assert_eq!(fault(r#""linux":{"rootfsPropagation":"wide"}"#, Isolation::New).0, "/linux/rootfsPropagation");
        assert_eq!(fault(r#""linux":{"mountLabel":"a:b:c"}"#, Isolation::New).0, "/linux/mountLabel");
    }

    #[test]
    fn devices_are_left_alone_where_the_host_s_dev_is_bound() {
        let json = r#"{"ociVersion":"1.0.2","root":{"path":"r"},"mounts":[{"destination":"/dev","source":"/dev","options":["rbind"]}]}"#;
        assert!(plan(json, Isolation::New).unwrap().devices.is_none());
    }
}
