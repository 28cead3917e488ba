//! `start`.

use crate::argv::{arguments, operand};
use crate::cli::Global;
use crate::container;
use crate::error::{Context, Result};

arguments! {
    /// Start a created container
    pub struct Start {
        /// ID of the container
        id: String = operand(),
    }
}

impl Start {
    pub(super) fn run(self, global: &Global) -> Result<u8> {
        let start = || container::start::start(&super::store(global)?, &self.id, super::notify_socket().as_deref());
        start().with_context(|| format!("start {}", self.id))?;
        Ok(0)
    }
}
