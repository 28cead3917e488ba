//! `list`.

use clap::{Args, ValueEnum};

use crate::cli::Global;
use crate::container::Container;
use crate::container::id::Id;
use crate::container::state::Shown;
use crate::container::store::Store;
use crate::error::{Context, Error, Result};
use crate::log;

/// List containers
#[derive(Args, Debug)]
pub struct List {
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
}

/// `--format` of `list` and `ps`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Format {
    /// Columns
    Table,
    /// JSON on one line
    Json,
}

impl List {
    pub(super) fn run(self, global: &Global) -> Result<u8> {
        let store = super::store(global)?;
        let ids = store.ids().context("list")?;
        let found: Vec<(Container, String)> = ids.iter().filter_map(|(id, owner)| open(&store, id, *owner)).collect();
        if self.quiet {
            let lines: String = found.iter().map(|(container, _)| format!("{}\n", container.record.id)).collect();
            return super::print(&lines).map(|()| 0);
        }
        // A container that ends while it is looked at is left out, as if it had been gone before.
        let shown: Vec<Shown<'_>> =
            found.iter().filter_map(|(container, owner)| Shown::of(container, owner.clone()).ok()).collect();
        super::print(&match self.format {
            Format::Table => table(&shown),
            Format::Json => json(&shown)?,
        })?;
        Ok(0)
    }
}

/// A container that cannot be read is named on stderr, in the words of runc, and keeps no other from being listed.
fn open(store: &Store, id: &Id, owner: u32) -> Option<(Container, String)> {
    match store.look_up(id) {
        Ok(found) => found.map(|container| (container, user_name(owner))),
        Err(error) => {
            log::say(&format!("load container {id}: {error}"));
            None
        }
    }
}

fn table(shown: &[Shown<'_>]) -> String {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(shown.iter().map(Shown::row)).collect();
    super::table::lay_out(&rows)
}

/// An empty list is `null`, as Go encodes an absent one.
fn json(shown: &[Shown<'_>]) -> Result<String> {
    let list = if shown.is_empty() { Ok("null".to_owned()) } else { serde_json::to_string(shown) };
    list.map(|list| list + "\n").map_err(|error| Error::new(error.to_string()))
}

/// The name of a user of the host, or `#id`. Read from the file: a static binary has no other name services.
fn user_name(id: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(id)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("#{id}"))
}
