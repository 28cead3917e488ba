//! `list`.

use std::collections::BTreeSet;
use std::path::Path;

use clap::ValueEnum;
use serde::Serialize;

use crate::argv::{arguments, choice, option};
use crate::cli::Global;
use crate::container::id::Id;
use crate::container::state::Shown;
use crate::container::store::Store;
use crate::container::{Container, roots};
use crate::error::{Context, Error, Result};
use crate::log;

arguments! {
    /// List containers
    pub struct List {
        /// Output format
        format: Format = option().short('f').default("table"),
        /// Print only IDs
        quiet: bool = option().short('q'),
        /// Also list the containers of engines; show the state root of each
        all_roots: bool = option(),
    }
}

/// `--format` of `list` and `ps`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Format {
    /// A table
    Table,
    /// JSON, on one line
    Json,
}

choice!(Format);

impl List {
    pub(super) fn run(self, global: &Global) -> Result<u8> {
        let store = super::store(global)?;
        if self.all_roots {
            return self.all(store);
        }
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

    /// What is in the root that was asked for, and in those that engines are known to use.
    fn all(&self, store: Store) -> Result<u8> {
        let elsewhere = roots::known().into_iter().filter_map(|known| Store::new(Some(&known.path)).ok());
        let mut stores: Vec<Store> = std::iter::once(store).chain(elsewhere).collect();
        let mut seen = BTreeSet::new();
        stores.retain(|store| seen.insert(store.root().canonicalize().unwrap_or_else(|_| store.root().to_owned())));
        // One that cannot be read, or is gone by now, has nothing that could be told.
        let ids = stores.iter().flat_map(|store| store.ids().into_iter().flatten().map(move |id| (store, id)));
        let found = ids.filter_map(|(store, (id, owner))| Some((store.root(), open(store, &id, owner)?)));
        let found: Vec<(&Path, (Container, String))> = found.collect();
        let shown = found.iter().filter_map(|(root, (container, owner))| {
            Some(Placed { shown: Shown::of(container, owner.clone()).ok()?, root })
        });
        let shown: Vec<Placed<'_>> = shown.collect();
        let text = match self.format {
            _ if self.quiet => found.iter().map(|(_, (container, _))| format!("{}\n", container.record.id)).collect(),
            Format::Table => {
                let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER", "ROOT"].map(str::to_owned);
                let rows: Vec<[String; 7]> = std::iter::once(head).chain(shown.iter().map(Placed::row)).collect();
                super::table::lay_out(&rows)
            }
            Format::Json => json(&shown)?,
        };
        super::print(&text).map(|()| 0)
    }
}

/// A container and the state root that it is in.
#[derive(Serialize)]
struct Placed<'a> {
    #[serde(flatten)]
    shown: Shown<'a>,
    root: &'a Path,
}

impl Placed<'_> {
    fn row(&self) -> [String; 7] {
        let [id, pid, status, bundle, created, owner] = self.shown.row();
        [id, pid, status, bundle, created, owner, self.root.display().to_string()]
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
fn json<T: Serialize>(shown: &[T]) -> Result<String> {
    let list = if shown.is_empty() { Ok("null".to_owned()) } else { serde_json::to_string(shown) };
    list.map(|list| list + "\n").map_err(|error| Error::new(error.to_string()))
}

/// The name of a user of the host, or `#id`.
fn user_name(id: u32) -> String {
    crate::passwd::Users::of_host().name(id).unwrap_or_else(|| format!("#{id}"))
}
