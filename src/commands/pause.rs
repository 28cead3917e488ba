//! `pause` and `resume`.

use clap::Args;

use crate::cli::Global;
use crate::container::freeze;
use crate::error::{Context, Result};

/// Suspend the processes of a container
#[derive(Args, Debug)]
pub struct Pause {
    /// ID of the container
    id: String,
}

/// Resume the processes of a paused container
#[derive(Args, Debug)]
pub struct Resume {
    /// ID of the container
    id: String,
}

impl Pause {
    pub(super) fn run(self, global: &Global) -> Result<u8> {
        let pause = || freeze::pause(&super::store(global)?.open(&self.id)?);
        pause().with_context(|| format!("pause {}", self.id))?;
        Ok(0)
    }
}

impl Resume {
    pub(super) fn run(self, global: &Global) -> Result<u8> {
        let resume = || freeze::resume(&super::store(global)?.open(&self.id)?);
        resume().with_context(|| format!("resume {}", self.id))?;
        Ok(0)
    }
}
