//! `mounts`: more of them for a container that runs, or fewer, with the words of crun.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;

use crate::argv::{arguments, command, commands, operand};
use crate::cli::Global;
use crate::container::mounts;
use crate::error::{Context, Error, Result};
use crate::plan::config;
use crate::selfexe::Protected;

arguments! {
    /// Add mounts to a running container, or remove them
    pub struct Mounts {
        /// Which of them.
        what: What = command(),
    }
}

commands! {
    enum What {
        /// Add mounts to a running container
        "add" Add(List),
        /// Remove mounts from a running container
        "remove" Remove(List),
    }
}

arguments! {
    struct List {
        /// ID of the container
        id: String = operand(),
        /// JSON file with a list of mounts; - is standard input
        file: PathBuf = operand(),
    }
}

impl Mounts {
    pub(super) fn run(self, global: &Global, protected: Protected) -> Result<u8> {
        match self.what {
            What::Add(List { id, file }) => {
                let add = || mounts::add(&super::store(global)?.open(&id)?, &read(&file)?, protected);
                add().with_context(|| format!("add mounts to {id}"))?;
            }
            What::Remove(List { id, file }) => {
                let remove = || mounts::remove(&super::store(global)?.open(&id)?, &read(&file)?, protected);
                remove().with_context(|| format!("remove mounts of {id}"))?;
            }
        }
        Ok(0)
    }
}

/// Reads a list of mounts.
fn read(file: &Path) -> Result<Vec<Mount>> {
    let what = || format!("read the mounts from {}", file.display());
    let text = super::read(file).with_context(what)?;
    if text.trim_ascii_start().first() != Some(&b'[') {
        return Err(Error::new("not a list like mounts of config.json")).with_context(what);
    }
    config::parse(&text).with_context(what)
}
