//! `start`: lets init continue, and waits until the program runs.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result, bail};
use crate::hooks::{HookContext, Stage};
use crate::launch::exec_fifo::ExecFifo;

use super::notify::{self, Relay};
use super::store::Store;
use super::{Container, Status, delete, state};

/// How long `start` waits for a `create` that is still at work.
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts a created container and runs its poststart hooks. A program that cannot be run is this call's error; a
/// failing poststart hook destroys the container (runtime-spec 1.3, "Lifecycle").
/// With the socket of a service manager it returns when the container is ready, or has ended.
pub fn start(store: &Store, id: &str, notify: Option<&OsStr>) -> Result<()> {
    let (container, status) = open_made(store, id)?;
    match status {
        Status::Created => {}
        // Its `create` has failed meanwhile.
        Status::Stopped if !container.directory.exists() => return Err(store.does_not_exist(id)),
        Status::Stopped => bail!("cannot start a container that has stopped"),
        Status::Running => bail!("cannot start an already running container"),
        Status::Creating => {
            return Err(Error::new("cannot start a container in the creating status")
                .hint("its create or a hook still runs: start it after that"));
        }
        Status::Paused => bail!("cannot start a container in the paused status"),
    }
    // If `create` had no manager, there is no directory for the socket.
    let notify = notify.filter(|_| notify::place(&container.directory).is_dir());
    let relay = notify.map(|outer| Relay::listen(&container.directory, outer)).transpose()?;
    // Before init may end: later its pid could be that of another process.
    let init = relay.is_some().then(|| container.init()).transpose()?;
    ExecFifo::open(container.directory.path()).phase("start")?;
    log::trace!("program runs");
    after_or_destroy(container)?;
    let (Some(relay), Some((pid, pidfd))) = (relay, init) else { return Ok(()) };
    relay.until_ready(pidfd.as_fd(), pid.as_raw())
}

/// Opens a container when its `create` has ended: a caller that has seen "created" in `state` need not know that it
/// still runs.
fn open_made(store: &Store, id: &str) -> Result<(Container, Status)> {
    let begin = Instant::now();
    loop {
        let container = store.open(id)?;
        match container.status()? {
            Status::Creating if begin.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(2)),
            status => return Ok((container, status)),
        }
    }
}

/// [`after`], and destroys the container if a poststart hook fails.
pub fn after_or_destroy(container: Container) -> Result<Container> {
    match after(&container) {
        Ok(()) => Ok(container),
        Err(error) => Err(delete::destroy_for(container, error)),
    }
}

/// Runs the poststart hooks. The caller decides what a failure does to the container.
pub fn after(container: &Container) -> Result<()> {
    let record = &container.record;
    if record.poststart.is_empty() {
        return Ok(());
    }
    let state = state::for_hooks(record, Status::Running.word(), Some(record.pid));
    let hook_context = HookContext { state: &state, directory: Some(&record.bundle), ..HookContext::default() };
    record.poststart.run(Stage::Poststart, &hook_context).phase("poststart")?;
    log::trace!("poststart hooks run");
    Ok(())
}
