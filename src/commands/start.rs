//! `start`.

use clap::Args;

use crate::cli::Global;
use crate::container;
use crate::error::{Context, Result};

/// Start a created container
#[derive(Args, Debug)]
pub struct Start {
    /// ID of the container
    id: String,
}

impl Start {
    pub(super) fn run(self, global: &Global) -> Result<u8> {
        let start = || container::start::start(&super::store(global)?, &self.id, super::notify_socket().as_deref());
        start().with_context(|| format!("start {}", self.id))?;
        Ok(0)
    }
}
