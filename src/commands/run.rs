//! `run`.

use crate::argv::{arguments, group, option};
use crate::cli::Global;
use crate::container;
use crate::error::{Context, Result};
use crate::selfexe::Protected;

use super::create::Options;

arguments! {
    /// Create and start a container
    pub struct Run {
        /// What it shares.
        options: Options = group(),
        /// Return once the program runs
        detach: bool = option().short('d'),
        /// Do not delete the container after its end
        keep: bool = option(),
    }
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
