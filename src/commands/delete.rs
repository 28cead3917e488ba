//! `delete`.

use crate::argv::{arguments, operand, option};
use crate::cli::Global;
use crate::container;
use crate::container::store::Store;
use crate::error::{Context, Error, Result};

arguments! {
    /// Delete containers
    pub struct Delete {
        /// Kill containers that run; ignore those that do not exist
        force: bool = option().short('f'),
        /// Treat each ID as a regular expression
        regex: bool = option().short('r'),
        /// IDs of the containers
        ids: Vec<String> = operand().value("ID").required(),
    }
}

impl Delete {
    /// Deletes all that are named; one that cannot be deleted keeps no other.
    pub(super) fn run(self, global: &Global) -> Result<u8> {
        let store = super::store(global)?;
        let mut ids = self.ids;
        if self.regex {
            let lists = ids.iter().map(|pattern| matching(&store, pattern)).collect::<Result<Vec<_>>>()?;
            ids = lists.concat();
        }
        let mut first: Option<Error> = None;
        for id in ids {
            let deleted = container::delete::delete(&store, &id, self.force).with_context(|| format!("delete {id}"));
            first = first.or(deleted.err());
        }
        first.map_or(Ok(0), Err)
    }
}

/// The ids that a pattern names, matched anywhere in the id as crun does.
pub(super) fn matching(store: &Store, pattern: &str) -> Result<Vec<String>> {
    let pattern = crate::sys::clib::regex::Pattern::new(pattern)
        .map_err(|message| Error::new(format!("{pattern:?} is no regular expression: {message}")))?;
    let ids = store.ids()?.into_iter().map(|(id, _)| id.as_str().to_owned());
    Ok(ids.filter(|id| pattern.matches(id)).collect())
}
