//! What a package has beside the binary, written from the definitions of the command line; in no release binary.

use std::fs::{self, File};
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::Cli;
use crate::error::{Context, Result};

/// Writes `DIR/man/corten*.8` and the completions `DIR/{corten.bash,_corten,corten.fish}`; exit code 0.
pub fn write(directory: &Path) -> Result<u8> {
    let what = || format!("write into {}", directory.display());
    let man = directory.join("man");
    fs::create_dir_all(&man).with_context(what)?;
    let mut cli = Cli::command();
    cli.build();
    for command in std::iter::once(&cli).chain(cli.get_subcommands().filter(|command| command.get_name() != "help")) {
        page(&man, command).with_context(what)?;
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut cli, "corten", directory).with_context(what)?;
    }
    Ok(0)
}

fn page(directory: &Path, command: &Command) -> std::io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let mut file = File::create(directory.join(format!("{name}.8")))?;
    Man::new(command.clone()).section("8").manual("corten").render(&mut file)
}
