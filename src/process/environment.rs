//! The environment of the program: entries checked, each name once, the last value winning.
//!
//! Messages name the variable, never its value: values are passwords.

use std::collections::BTreeMap;
use std::ffi::CString;

use crate::error::{Context, Result, bail, ensure};

/// The entries, NUL-terminated and ready for execve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Environment(Vec<CString>);

impl Environment {
    /// `list` is `process.env`; `extra` is what the runtime adds and wins over it.
    pub(super) fn plan(list: &[String], extra: &[String]) -> Result<Environment> {
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        let mut entries: Vec<CString> = Vec::with_capacity(list.len() + extra.len() + 1);
        for (index, entry) in list.iter().chain(extra).enumerate() {
            let (name, value) = check(entry).field(|| format!("/process/env/{index}"))?;
            match places.insert(name, entries.len()) {
                None => entries.push(value),
                Some(place) => {
                    places.insert(name, place);
                    entries[place] = value;
                }
            }
        }
        Ok(Environment(entries))
    }

    pub(super) fn value(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find_map(|entry| entry.to_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    }

    /// Sets a variable; a value with a NUL in it, which no caller has, is dropped.
    pub(super) fn set(&mut self, name: &str, value: &[u8]) {
        let Ok(entry) = CString::new([name.as_bytes(), b"=", value].concat()) else { return };
        let named =
            |entry: &CString| entry.to_bytes().strip_prefix(name.as_bytes()).is_some_and(|v| v.starts_with(b"="));
        match self.0.iter_mut().find(|entry| named(entry)) {
            Some(place) => *place = entry,
            None => self.0.push(entry),
        }
    }

    /// Is there no home directory, or an empty one, which counts as none?
    pub(super) fn lacks_home(&self) -> bool {
        self.value("HOME").is_none_or(<[u8]>::is_empty)
    }

    pub(super) fn entries(&self) -> &[CString] {
        &self.0
    }
}

fn check(entry: &str) -> Result<(&str, CString)> {
    let Some((name, _)) = entry.split_once('=') else {
        let name = entry.split('\0').next().unwrap_or("");
        bail!("the environment variable {name:?} has no \"=\"");
    };
    ensure!(!name.is_empty(), "an environment variable has no name before its \"=\"");
    match CString::new(entry) {
        Ok(value) => Ok((name, value)),
        Err(_) => bail!("the environment variable {:?} contains a NUL", name.split('\0').next().unwrap_or("")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(list: &[&str], extra: &[&str]) -> Result<Vec<String>> {
        let own = |list: &[&str]| list.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>();
        let environment = Environment::plan(&own(list), &own(extra))?;
        Ok(environment.0.into_iter().map(|entry| entry.into_string().unwrap()).collect())
    }

    #[test]
    fn the_last_value_wins_and_appears_once() {
        assert_eq!(plan(&["D=1", "N=l1\nl2", "D=2"], &[]).unwrap(), ["D=2", "N=l1\nl2"]);
        assert_eq!(plan(&["A=1", "E="], &["A=9"]).unwrap(), ["A=9", "E="]);
        assert_eq!(plan(&["A=1", "AB=2", "A=3", "A=4"], &[]).unwrap(), ["A=4", "AB=2"]);
    }

    #[test]
    fn a_malformed_entry_is_refused_by_place_and_name_without_its_value() {
        let words = |entry: &str| plan(&["A=1", entry], &[]).unwrap_err().to_string();
        assert_eq!(words("NOEQ"), r#"/process/env/1: the environment variable "NOEQ" has no "=""#);
        assert_eq!(words("=v"), r#"/process/env/1: an environment variable has no name before its "=""#);
        assert_eq!(words("K=secret\0b"), r#"/process/env/1: the environment variable "K" contains a NUL"#);
    }

    #[test]
    fn an_empty_home_counts_as_none() {
        let mut environment = Environment::plan(&["HOME=/o".to_owned(), "HOME=".to_owned()], &[]).unwrap();
        assert!(environment.lacks_home());
        environment.set("HOME", b"/h");
        assert_eq!(environment.value("HOME"), Some(b"/h" as &[u8]));
        assert_eq!(environment.entries().len(), 1);
    }
}
