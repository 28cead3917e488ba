//! `--version`.

use crate::error::Result;

/// The newest version of the runtime spec that is honoured.
pub const SPEC: &str = "1.3.0";

/// The commit of the sources. Only `hack/build` says it: cargo would have to build anew for each.
const COMMIT: Option<&str> = option_env!("CORTEN_COMMIT");

/// The C library that is part of the binary.
const LIBRARY: &str = if cfg!(target_env = "musl") { "musl" } else { "gnu" };

/// What a runtime may be built without; `corten features` tells more.
const FEATURES: &str = "+SYSTEMD +SELINUX +APPARMOR +SECCOMP +EBPF +LANDLOCK +RDT +IDMAP +CRIU";

/// Prints it; the exit code.
pub fn print() -> Result<u8> {
    super::print(&text()).map(|()| 0)
}

/// The text of `--version`. `docker info` and `docker version` take what follows the word "version" of the line that has
/// it, so no other line may, and what follows "commit:".
fn text() -> String {
    let commit = COMMIT.filter(|commit| !commit.is_empty()).unwrap_or("unknown");
    format!(
        "corten version {}\ncommit: {commit}\nspec: {SPEC}\ntarget: {}-linux-{LIBRARY}\nfeatures: {FEATURES}\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
    )
}
