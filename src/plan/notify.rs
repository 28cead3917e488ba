//! The notify socket of a container, sd_notify(3): its mount, and the variable with its path.

use std::path::Path;

use oci_spec::runtime::{Mount, Spec};

/// Where the directory with the socket is mounted; runc has it there.
const DIRECTORY: &str = "/run/notify";

/// The name of the socket in that directory.
pub const SOCKET: &str = "notify.sock";

/// Adds the mount of a directory of the host, after those of the config, one of which may cover `/run`.
pub(super) fn add_mount(spec: &mut Spec, directory: &Path) {
    let options = ["bind", "ro", "nosuid", "nodev", "noexec"].map(str::to_owned);
    let mut mount = Mount::default();
    mount
        .set_destination(DIRECTORY.into())
        .set_typ(Some("bind".to_owned()))
        .set_source(Some(directory.to_owned()))
        .set_options(Some(options.into()));
    spec.mounts_mut().get_or_insert_default().push(mount);
}

/// The variable for its program.
pub(super) fn variable() -> String {
    format!("NOTIFY_SOCKET={DIRECTORY}/{SOCKET}")
}
