//! `run`.

use clap::Args;

use crate::cli::Global;
use crate::container;
use crate::error::{Context, Result};
use crate::selfexe::Protected;

use super::create::Options;

/// Create and start a container
#[derive(Args, Debug)]
pub struct Run {
    #[command(flatten)]
    options: Options,
    /// Return once the program runs
    #[arg(short, long)]
    detach: bool,
    /// Do not delete the container after its end
    #[arg(long)]
    keep: bool,
}

impl Run {
    pub(super) fn run(self, global: &Global, protected: Protected) -> Result<u8> {
        let Run { options, detach, keep } = self;
        let id = options.id.clone();
        let run = || -> Result<u8> {
            let request = options.request(global, detach)?;
            let store = super::store(global)?;
            if detach {
                return container::create::run_detached(request, &store, protected).map(|()| 0);
            }
            container::foreground::run(request, &store, keep, protected)
        };
        run().with_context(|| format!("run {id}"))
    }
}
