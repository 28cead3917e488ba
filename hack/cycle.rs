//! One container's life as an engine drives it: `cycle RUNTIME ROOT BUNDLE ID`.
//!
//! create, start, kill, then wait for init as its subreaper (as a containerd shim does), delete. Polling for the end,
//! or leaving the wait to `delete --force`, would measure the poller's pauses.

use std::process::{Command, ExitCode, Stdio};

unsafe extern "C" {
    fn prctl(option: i32, ...) -> i32;
    fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
}
const PR_SET_CHILD_SUBREAPER: i32 = 36;

fn main() -> ExitCode {
    let [runtime, root, bundle, id] = std::env::args().skip(1).collect::<Vec<_>>().try_into().expect("four words");
    let pid_file = format!("{root}.pid");
    // SAFETY: integers only.
    unsafe { prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    let call = |words: &[&str]| {
        let status = Command::new(&runtime).arg("--root").arg(&root).args(words).stdin(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let up = call(&["create", "--bundle", &bundle, "--pid-file", &pid_file, &id]) && call(&["start", &id]);
    if !up || !call(&["kill", &id, "KILL"]) {
        call(&["delete", "--force", &id]);
        return ExitCode::FAILURE;
    }
    let pid = std::fs::read_to_string(&pid_file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(-1);
    // SAFETY: a null status is allowed.
    unsafe { waitpid(pid, std::ptr::null_mut(), 0) };
    if call(&["delete", &id]) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
