//! `--version`.

use crate::error::Result;

/// The newest version of the runtime spec that is honoured.
pub const SPEC: &str = "1.3.0";

/// Prints it; the exit code.
pub fn print() -> Result<u8> {
    super::print(&text()).map(|()| 0)
}

/// The text of `--version`. Docker takes what follows the word "version" of the line that has it, so no other line may.
fn text() -> String {
    format!("corten version {}\nspec: {SPEC}\n", env!("CARGO_PKG_VERSION"))
}
