//! The state of a container as others read it: `state`, `list`, hooks.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::error::Result;

use super::record::Record;
use super::{Container, Status};

/// The spec's "State".
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State<'a> {
    oci_version: &'a str,
    id: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    bundle: &'a Path,
    annotations: &'a BTreeMap<String, String>,
}

impl<'a> State<'a> {
    /// What is on record, with what is not.
    pub fn of(record: &'a Record, status: &'a str, pid: Option<i32>) -> State<'a> {
        State {
            oci_version: &record.oci_version,
            id: &record.id,
            status,
            pid,
            bundle: &record.bundle,
            annotations: &record.annotations,
        }
    }
}

/// The [`State`] for hooks: one line of JSON.
pub fn for_hooks(record: &Record, status: &str, pid: Option<i32>) -> Vec<u8> {
    serde_json::to_vec(&State::of(record, status, pid)).expect("strings and numbers always serialize")
}

/// What `state` and `list` print, with the keys and their order as runc has them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown<'a> {
    oci_version: &'a str,
    id: &'a str,
    pid: i32,
    status: &'static str,
    bundle: &'a Path,
    rootfs: &'a Path,
    created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    owner: String,
}

impl<'a> Shown<'a> {
    /// Looks at a container now. A stopped one has the pid 0.
    pub fn of(container: &'a Container, owner: String) -> Result<Shown<'a>> {
        let status = container.status()?;
        let record = &container.record;
        Ok(Shown {
            oci_version: &record.oci_version,
            id: &record.id,
            pid: if status == Status::Stopped { 0 } else { record.pid },
            status: status.word(),
            bundle: &record.bundle,
            rootfs: &record.rootfs,
            created: &record.created,
            annotations: &record.annotations,
            owner,
        })
    }

    /// The columns of `list`.
    pub fn row(&self) -> [String; 6] {
        [
            self.id.to_owned(),
            self.pid.to_string(),
            self.status.to_owned(),
            self.bundle.display().to_string(),
            self.created.to_owned(),
            self.owner.clone(),
        ]
    }
}
