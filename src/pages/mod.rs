//! What a package has beside the binary: man pages and completions, written from the definitions of the command line and
//! the texts of the manual; and docs/commands.md from the same. In binaries for development only.

mod completion;
mod markdown;
mod roff;

use std::fs;
use std::path::Path;

use crate::cli;
use crate::error::{Context, Result};
use crate::manual;

/// Writes `DIR/man/corten*.8`, the chapter `DIR/commands.md` and the completions `DIR/{corten.bash,_corten,corten.fish}`;
/// exit code 0.
pub fn write(directory: &Path) -> Result<u8> {
    let write = |name: &str, text: String| {
        let file = directory.join(name);
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))
    };
    let man = directory.join("man");
    fs::create_dir_all(&man).with_context(|| format!("make {}", man.display()))?;
    let mut cli = cli::description();
    cli.build();
    let mut pages = Vec::new();
    let mut chapter = markdown::head();
    manual::pages(&cli, "corten", &mut |page, _| {
        pages.push((format!("man/{}.8", page.name), roff::page(page)));
        chapter.push_str(&markdown::page(page));
    });
    pages.into_iter().try_for_each(|(name, text)| write(&name, text))?;
    write("commands.md", chapter)?;
    let commands = completion::commands(&cli);
    write("corten.bash", completion::bash(&commands))?;
    write("_corten", completion::zsh(&commands))?;
    write("corten.fish", completion::fish(&commands))?;
    Ok(0)
}
