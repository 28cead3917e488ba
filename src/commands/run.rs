//! `run`.

use clap::Args;

use crate::cli::Global;
use crate::container;
use crate::error::{Context, Result};

use super::create::Options;

/// Create and start a container, and wait for its end
#[derive(Args, Debug)]
pub struct Run {
    #[command(flatten)]
    options: Options,
    /// Do not wait for the end
    #[arg(short, long)]
    detach: bool,
    /// Keep the container's state and cgroup after its end, until `delete`
    #[arg(long)]
    keep: bool,
}

impl Run {
    pub(super) fn run(self, global: &Global) -> Result<u8> {
        let Run { options, detach, keep } = self;
        let id = options.id.clone();
        let run = || -> Result<u8> {
            let request = options.request(global, detach)?;
            let store = super::store(global)?;
            if detach {
                return container::create::run_detached(request, &store).map(|()| 0);
            }
            container::foreground::run(request, &store, keep)
        };
        run().with_context(|| format!("run {id}"))
    }
}
