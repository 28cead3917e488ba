//! `features`: what this binary can do on this kernel (runtime-spec, "Feature structure").

use serde_json::json;

use crate::argv::arguments;
use crate::commands::version::SPEC;
use crate::error::{Error, Result};
use crate::plan::annotations::OBEYED;
use crate::{checkpoint, namespaces, process, rootfs, seccomp, sys};

arguments! {
    /// Print the features of the runtime
    pub struct Features {}
}

impl Features {
    pub(super) fn run(self) -> Result<u8> {
        let text = serde_json::to_string_pretty(&document()).map_err(|error| Error::new(error.to_string()))?;
        super::print(&(text + "\n"))?;
        Ok(0)
    }
}

fn document() -> serde_json::Value {
    let mut kinds: Vec<&str> = namespaces::KINDS.iter().map(|kind| kind.spec_name).collect();
    kinds.sort_unstable();
    let mut mount_options: Vec<&str> = rootfs::mount_options().collect();
    mount_options.sort_unstable();
    let seccomp = seccomp::features();
    let (modes, flags) = process::memory_policy_names();
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": mount_options,
        "linux": {
            "namespaces": kinds,
            "capabilities": process::capability_names().collect::<Vec<_>>(),
            "cgroup": { "v1": false, "v2": true, "systemd": true, "systemdUser": true, "rdma": true },
            "seccomp": {
                "enabled": true,
                "actions": seccomp.actions,
                "operators": seccomp.operators,
                "archs": seccomp.archs,
                "knownFlags": seccomp.known_flags,
                "supportedFlags": seccomp.supported_flags,
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
            "mountExtensions": { "idmap": { "enabled": true } },
            "memoryPolicy": { "modes": modes, "flags": flags },
            "netDevices": { "enabled": true },
        },
        "annotations": {
            "org.opencontainers.runc.checkpoint.enabled": checkpoint::find().is_ok().to_string(),
            "run.corten.version": env!("CARGO_PKG_VERSION"),
            rootfs::OVERLAY: rootfs::OVERLAY_FORMS,
            // The version of the document, and what the kernel has of it (0 for nothing).
            process::LANDLOCK: process::LANDLOCK_VERSION.to_string(),
            "run.corten.landlock.level": sys::landlock::abi_version().to_string(),
        },
        // All that change what the runtime does (runtime-spec, "Unsafe annotations in config.json"), also those that are obeyed whoever
        // says them.
        "potentiallyUnsafeConfigAnnotations": OBEYED.map(|annotation| annotation.name),
    })
}
