//! The session of the process: a session keyring, no controlling terminal, no blocked or ignored signal.

use std::ffi::CString;

use nix::unistd::setsid;

use crate::error::{Context, Error, Result};
use crate::sys::{Errno, key, process};

/// What a new session keyring has by itself (possessor: all; user: view, read, link) and search for the user, without
/// which a later exec could not find the keyring by its name (keyctl(2), `KEYCTL_SETPERM`).
const PERMISSIONS: u32 = 0x3f00_0000 | 0x0001_0000 | 0x0002_0000 | 0x0010_0000 | 0x0008_0000;

/// The name of the session keyring of a container, `_ses.ID`, which init and exec share.
pub(super) fn keyring_name(id: &str) -> Result<CString> {
    CString::new(format!("_ses.{id}")).map_err(|_| Error::new("a container id must not contain NUL"))
}

pub(super) fn join_keyring(name: &CString) -> Result<()> {
    let serial = match key::join_session(name) {
        Ok(serial) => serial,
        // Kernels without keyrings have nothing to isolate; outer sandboxes pretend to be such kernels.
        Err(Errno::ENOSYS) => return Ok(()),
        Err(errno @ Errno::EDQUOT) => {
            return Err(errno)
                .with_context(|| format!("join session keyring {}", name.to_string_lossy()))
                .hint("raise kernel.keys.maxkeys and maxbytes, or use --no-new-keyring");
        }
        Err(errno) => {
            return Err(errno)
                .with_context(|| format!("join session keyring {}", name.to_string_lossy()))
                .hint("use --no-new-keyring to run without one");
        }
    };
    match key::set_permissions(serial, PERMISSIONS) {
        // A keyring that another user of this container made is joined as it is.
        Ok(()) | Err(Errno::EACCES) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("open keyring {} for its user", name.to_string_lossy())),
    }
}

/// Starts a session, resets the signal dispositions, and unblocks all signals.
pub(super) fn start() -> Result<()> {
    process::reset_signal_dispositions().context("reset signal dispositions")?;
    process::unblock_signals().context("unblock signals")?;
    lead()
}

/// Starts a session.
pub(super) fn lead() -> Result<()> {
    match setsid() {
        // A process group leader is in a session of its own already.
        Ok(_) | Err(Errno::EPERM) => Ok(()),
        Err(errno) => Err(errno).context("start a session"),
    }
}
