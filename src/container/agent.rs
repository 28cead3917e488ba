//! The seccomp agent: the process outside that answers the calls that a container's filter notifies, and how it gets the
//! notify descriptor.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::MsgFlags;
use nix::unistd::Pid;
use serde::Serialize;

use crate::error::{Context, Result, bail};
use crate::process::console;
use crate::sys::socket;

use super::record::Record;
use super::state::StateDocument;

/// The context of its errors; callers search for runc's words.
pub const CALLING: &str = "failed to connect with seccomp agent at";

/// The name of the only descriptor that is sent (runtime-spec, "The Container Process State").
const LISTENER: &str = "seccompFd";

/// Sends one "container process state" with the listener of the process `pid` (runtime-spec, config-linux.md, "The
/// Container Process State"): one connection, closed after it. `status` and `init` are the container's.
pub fn tell(record: &Record, (status, init): (&str, i32), pid: Pid, listener: BorrowedFd<'_>) -> Result<()> {
    let Some(agent) = &record.seccomp_agent else {
        bail!("the seccomp filter has a notify descriptor, but the container names no seccomp agent")
    };
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct ProcessState<'a> {
        oci_version: &'a str,
        fds: [&'static str; 1],
        pid: i32,
        #[serde(skip_serializing_if = "Option::is_none")]
        metadata: &'a Option<String>,
        state: StateDocument<'a>,
    }
    let document = ProcessState {
        oci_version: &record.oci_version,
        fds: [LISTENER],
        pid: pid.as_raw(),
        metadata: &agent.metadata,
        state: StateDocument::of(record, status, Some(init)),
    };
    let document = serde_json::to_vec(&document).expect("strings and numbers always serialize");
    let tell = || {
        let connected = console::connect(&agent.path, CALLING)?;
        let sent = socket::send(connected.as_fd(), &document, &[listener], MsgFlags::empty(), None);
        let sent = sent.context("send the notify descriptor to the seccomp agent")?;
        // The document is longer than the socket's buffer; the descriptor went with its first part.
        UnixStream::from(connected)
            .write_all(&document[sent..])
            .context("send the notify descriptor to the seccomp agent")
    };
    tell().field(|| "/linux/seccomp/listenerPath")
}
