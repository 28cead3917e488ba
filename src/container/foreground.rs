//! `run` in the foreground: create, start, relay, wait, delete.

use std::os::fd::AsFd;

use crate::error::{Context, Result};
use crate::log::{regain_stderr, success};
use crate::process::foreground::{ExtraSource, Foreground};
use crate::selfexe::Protected;
use crate::sys;

use super::create::{CreateRequest, make};
use super::store::Store;
use super::{delete, start};

/// Runs a container to its end; its exit code.
pub fn run(request: CreateRequest, store: &Store, keep: bool, protected: Protected) -> Result<u8> {
    let foreground = Foreground::block_signals().context("block signals")?;
    let mut made = make(request, store, false, protected)?;
    success();
    let (terminal, relay) = (made.terminal.take(), made.relay.take());
    let pid = made.launched.pid;
    let (container, pidfd) = made.keep();
    let forward = |signal: i32| {
        // It may be dead already: the wait returns at once.
        let _ = sys::pid::signal(pidfd.as_fd(), signal);
    };
    // This process is then the main process of the service, and exits as the container does.
    let mut tell = relay.as_ref().map(|relay| || relay.turn(std::process::id() as i32));
    let aside = relay.as_ref().zip(tell.as_mut()).map(|(relay, act)| ExtraSource { fd: relay.fd(), act });
    let wait = || foreground.run(pid, pidfd.as_fd(), terminal, forward, aside).context("wait for the container");
    match start::after(&container).and_then(|()| wait()) {
        Ok(ended) => {
            regain_stderr();
            log::trace!("program ended");
            if !keep {
                delete::destroy(container)?;
            }
            Ok(ended.exit_code())
        }
        Err(error) => Err(delete::destroy_for(container, error)),
    }
}
