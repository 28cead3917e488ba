//! `pause` and `resume`.

use crate::argv::{arguments, operand};
use crate::cli::Global;
use crate::container::freeze;
use crate::error::{Context, Result};

arguments! {
    /// Suspend the processes of a container
    pub struct Pause {
        /// ID of the container
        id: String = operand(),
    }
}

arguments! {
    /// Resume the processes of a paused container
    pub struct Resume {
        /// ID of the container
        id: String = operand(),
    }
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
