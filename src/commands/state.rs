//! `state`.

use crate::argv::{arguments, operand};
use crate::cli::Global;
use crate::container::state::Shown;
use crate::error::{Context, Error, Result};

arguments! {
    /// Print the state of a container
    pub struct State {
        /// ID of the container
        id: String = operand(),
    }
}

impl State {
    pub(super) fn run(self, global: &Global) -> Result<u8> {
        let text = || -> Result<String> {
            let container = super::store(global)?.open(&self.id)?;
            let shown = Shown::of(&container, String::new())?;
            let text = serde_json::to_string_pretty(&shown).map_err(|error| Error::new(error.to_string()))?;
            Ok(text + "\n")
        };
        super::print(&text().with_context(|| format!("state {}", self.id))?)?;
        Ok(0)
    }
}
