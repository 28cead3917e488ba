//! Reading `config.json`: strictly first, and only if that fails tolerantly.
//!
//! Facts about oci-spec 0.10 behind the second pass: an unknown capability name, `SCHED_FLAG_RESET_ON_FORK`, an empty
//! `execCPUAffinity.final` and numbers written as `1024.0` are parse errors, and errors give line and column but no
//! field. What is not refused but read as something else ([`shape`]) needs the second pass, too: arrays for objects, and
//! `"pids": {}` as a limit of zero.

use std::path::Path;

use oci_spec::runtime::{LinuxResources, LinuxSeccomp, Mount, Process, Spec, User};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::{Context, Error, Result, escape};
use crate::input;

use super::shape;

/// A configuration, or a part of one that is also read alone.
pub trait Part: DeserializeOwned {
    /// Its JSON pointer in a configuration.
    const POINTER: &'static str;
}

impl Part for Spec {
    const POINTER: &'static str = "";
}

impl Part for Process {
    const POINTER: &'static str = "/process";
}

impl Part for Vec<Mount> {
    const POINTER: &'static str = "/mounts";
}

impl Part for LinuxResources {
    const POINTER: &'static str = "/linux/resources";
}

impl Part for LinuxSeccomp {
    const POINTER: &'static str = "/linux/seccomp";
}

/// The origin of a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// The bundle, which is not trusted.
    Bundle,
    /// A file that the command line names.
    CommandLine,
}

/// Reads a configuration.
pub fn read(path: &Path, source: ConfigSource) -> Result<Spec> {
    interpret(&load(path, source)?, path)
}

/// Reads the text of a configuration.
pub fn load(path: &Path, source: ConfigSource) -> Result<Vec<u8>> {
    let read = match source {
        ConfigSource::Bundle => input::read_regular,
        ConfigSource::CommandLine => input::read_named,
    };
    read(path)
        .with_context(|| format!("read the configuration {}", path.display()))
        .hint("a bundle has a config.json and a root filesystem in it; `corten spec` writes a config.json")
}

/// Parses the text of a configuration, which is that of a file.
pub fn interpret(text: &[u8], path: &Path) -> Result<Spec> {
    parse(text).with_context(|| format!("read the configuration {}", path.display()))
}

/// Parses a document of the runtime-spec; tolerates what that tolerates.
pub fn parse<T: Part>(text: &[u8]) -> Result<T> {
    parse_with(text, || json!({}))
}

/// Parses the process of an exec, which is the container's user if it names none.
pub fn parse_exec(text: &[u8], user: Option<&User>) -> Result<Process> {
    parse_with(text, || {
        let text = serde_json::to_vec(&user).unwrap_or_default();
        serde_json::from_slice(&text).ok().filter(Value::is_object).unwrap_or_else(|| json!({}))
    })
}

/// The value of a JSON document.
pub fn value(text: &[u8]) -> Result<Value> {
    first(text).map_err(|error| Error::new(format!("not JSON: {error}")))
}

fn parse_with<T: Part>(text: &[u8], user: impl FnOnce() -> Value) -> Result<T> {
    if shape::is_plain(text, T::POINTER)
        && let Ok(document) = first(text)
    {
        return Ok(document);
    }
    parse_patiently(text, user)
}

/// The first value of a text. Wrappers of runtimes rewrite a configuration in place and leave the end of the longer one
/// behind it; the peers do not even look there.
fn first<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter();
    let Some(value) = values.next() else { return serde_json::from_slice(text) };
    let value = value?;
    let end = values.byte_offset();
    if !text[end..].trim_ascii().is_empty() {
        log::warn!("trailing data after the JSON value is ignored, from byte {end} on");
    }
    Ok(value)
}

fn parse_patiently<T: Part>(text: &[u8], user: impl FnOnce() -> Value) -> Result<T> {
    let mut value = value(text)?;
    shape::check(&value, T::POINTER)?;
    whole_numbers(&mut value);
    if let Some(process) = part_of::<T>(&mut value, "/process") {
        tolerate_process(process, user);
    }
    check_io_priority::<T>(&mut value)?;
    tolerate_pids::<T>(&mut value)?;
    let text = value.to_string();
    serde_json::from_slice(text.as_bytes()).map_err(|error| {
        // The position is in a rewritten copy of the text, so the error names the field instead.
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        let missing = message.strip_prefix("missing field `").and_then(|name| name.strip_suffix('`'));
        let error_of = || missing.map(Error::missing).unwrap_or_else(|| Error::new(message.clone()));
        let pointer = pointer_at(text.as_bytes(), error.column());
        named_as_runc(shape::at(error_of(), &pointer), &format!("{}{pointer}", T::POINTER))
    })
}

/// Adds runc's words, which callers search for.
fn named_as_runc(error: Error, pointer: &str) -> Error {
    match pointer.strip_prefix("/linux/memoryPolicy") {
        Some(rest) if rest.starts_with("/flags") => error.context("invalid memory policy flag"),
        Some("" | "/mode") => error.context("invalid memory policy mode"),
        _ => error,
    }
}

/// What a pointer into a configuration is called in a part of it.
fn pointer_in<T: Part>(pointer: &'static str) -> Option<&'static str> {
    pointer.strip_prefix(T::POINTER)
}

fn part_of<'a, T: Part>(value: &'a mut Value, pointer: &'static str) -> Option<&'a mut Value> {
    value.pointer_mut(pointer_in::<T>(pointer)?)
}

/// runtime-spec, "ioPriority": the class is required, and the types take one for it.
fn check_io_priority<T: Part>(value: &mut Value) -> Result<()> {
    const POINTER: &str = "/process/ioPriority";
    match part_of::<T>(value, POINTER) {
        Some(Value::Object(priority)) if priority.get("class").is_none_or(Value::is_null) => {
            let error =
                Error::missing("class").hint("the class is IOPRIO_CLASS_RT, IOPRIO_CLASS_BE or IOPRIO_CLASS_IDLE");
            Err(shape::at(error, pointer_in::<T>(POINTER).unwrap_or_default()))
        }
        _ => Ok(()),
    }
}

/// Drops an empty `pids`. One with other members than a limit is an error, not "no limit".
fn tolerate_pids<T: Part>(value: &mut Value) -> Result<()> {
    const POINTER: &str = "/linux/resources/pids";
    let Some(Value::Object(resources)) = part_of::<T>(value, "/linux/resources") else { return Ok(()) };
    let Some(Value::Object(pids)) = resources.get("pids") else { return Ok(()) };
    match pids.get("limit") {
        None if !pids.is_empty() => {
            let error = Error::missing("limit").hint("names of fields are told apart by case; -1 is no limit");
            return Err(shape::at(error, pointer_in::<T>(POINTER).unwrap_or_default()));
        }
        None | Some(Value::Null) => drop(resources.remove("pids")),
        Some(_) => {}
    }
    Ok(())
}

/// Writes numbers such as `1024.0` or `1e3` as the integers they are.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(float) = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0) {
                if float >= 0.0 && float < u64::MAX as f64 {
                    *number = (float as u64).into();
                } else if float < 0.0 && float >= i64::MIN as f64 {
                    *number = (float as i64).into();
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(whole_numbers),
        Value::Object(object) => object.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

/// Drops, renames or adds what the types refuse and the standard allows.
fn tolerate_process(process: &mut Value, user: impl FnOnce() -> Value) {
    if let Value::Object(process) = process
        && process.get("user").is_none_or(Value::is_null)
    {
        process.insert("user".to_owned(), user());
    }
    if let Some(Value::Object(sets)) = process.get_mut("capabilities") {
        for (set, names) in sets {
            let Value::Array(names) = names else { continue };
            names.retain(|name| {
                let known = name.as_str().is_none_or(|name| capability(name).is_some());
                if !known {
                    // runtime-spec, "process.capabilities": a runtime must warn and should not fail.
                    let warning = Error::new(format!("the capability {name} is unknown and ignored"));
                    crate::log::warn(warning.field(format!("/process/capabilities/{set}")));
                }
                known
            });
        }
    }
    if let Some(Value::Array(flags)) = process.pointer_mut("/scheduler/flags") {
        for flag in flags {
            if flag == "SCHED_FLAG_RESET_ON_FORK" {
                *flag = "SCHED_RESET_ON_FORK".into();
            }
        }
    }
    if let Some(Value::Object(affinity)) = process.get_mut("execCPUAffinity") {
        affinity.retain(|_, list| list != "");
    }
}

fn capability(name: &str) -> Option<oci_spec::runtime::Capability> {
    // The peers know no names without it, either.
    let named = shape::has_prefix(name.as_bytes()).then(|| Value::String(name.to_owned()));
    named.and_then(|name| serde_json::from_value(name).ok())
}

/// The JSON pointer (RFC 6901) of the value that ends at a column of a compact document on one line: what a parser had
/// just read when it complained. A type that tracks paths while it parses would be one more copy of the parser of every
/// type, a tenth of the whole binary.
fn pointer_at(text: &[u8], column: usize) -> String {
    /// Where we are in an object (behind a key) or a list.
    enum JsonPlace {
        Key(String),
        Item(usize),
    }
    let mut places: Vec<JsonPlace> = Vec::new();
    let mut at = 0;
    while at < text.len() && at + 1 < column {
        match text[at] {
            b'{' => places.push(JsonPlace::Key(String::new())),
            b'[' => places.push(JsonPlace::Item(0)),
            b'}' | b']' => drop(places.pop()),
            b',' => {
                if let Some(JsonPlace::Item(index)) = places.last_mut() {
                    *index += 1;
                }
            }
            b'"' => {
                let end = string_end(text, at);
                let is_key = text.get(end) == Some(&b':');
                if let (true, Some(JsonPlace::Key(key))) = (is_key, places.last_mut()) {
                    *key = serde_json::from_slice(&text[at..end]).unwrap_or_default();
                }
                at = end - 1;
            }
            _ => {}
        }
        at += 1;
    }
    match (text.get(column.saturating_sub(1)), places.last_mut()) {
        // The end of an object is where a missing field is missed: the object is at fault.
        (Some(b'}' | b']'), _) => drop(places.pop()),
        // An array or object is not read where a scalar belongs: the element that begins here is at fault.
        (Some(b'['), _) => places.push(JsonPlace::Item(0)),
        (Some(b','), Some(JsonPlace::Item(index))) => *index += 1,
        _ => {}
    }
    let word = |place: &JsonPlace| match place {
        JsonPlace::Key(key) => format!("/{}", escape(key)),
        JsonPlace::Item(index) => format!("/{index}"),
    };
    places.iter().map(word).collect()
}

/// The place behind the string that starts at `start`.
fn string_end(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < text.len() && text[at] != b'"' {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = r#"{"ociVersion":"1.2.0","root":{"path":"rootfs"},"process":{"user":{"uid":0,"gid":0},"cwd":"/","args":["sh"]PROCESS}REST}"#;

    fn spec(process: &str, rest: &str) -> Result<Spec> {
        parse(BASE.replace("PROCESS", process).replace("REST", rest).as_bytes())
    }

    #[test]
    fn unknown_fields_are_ignored() {
        spec("", r#","future":{"a":[1]}"#).unwrap();
    }

    #[test]
    fn unknown_capabilities_are_dropped_and_the_others_stay() {
        let spec = spec(r#","capabilities":{"bounding":["CAP_CHOWN","CAP_FUTURE_THING"]}"#, "").unwrap();
        let sets = spec.process().as_ref().unwrap().capabilities().clone().unwrap();
        assert_eq!(sets.bounding().as_ref().unwrap().len(), 1);
    }

    #[test]
    fn whole_numbers_may_be_written_as_floats() {
        let spec = spec("", r#","linux":{"resources":{"cpu":{"shares":1024.0}}}"#).unwrap();
        let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
        assert_eq!(resources.cpu().as_ref().unwrap().shares(), Some(1024));
    }

    #[test]
    fn a_limit_of_processes_that_is_not_given_is_none() {
        let limit = |pids: &str| {
            let spec = spec("", &format!(r#","linux":{{"resources":{{"pids":{pids}}}}}"#)).unwrap();
            let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
            resources.pids().as_ref().map(|pids| pids.limit())
        };
        assert_eq!((limit("{}"), limit(" { \n } "), limit(r#"{"limit":null}"#)), (None, None, None));
        assert_eq!((limit(r#"{"limit":0}"#), limit(r#"{"limit":7}"#)), (Some(0), Some(7)));
    }

    #[test]
    fn a_wrong_type_names_its_field() {
        for (process, field) in [
            (r#","rlimits":[{"type":"RLIMIT_CORE","soft":-1,"hard":1}]"#, "/process/rlimits/0/soft"),
            (r#","env":"A=b""#, "/process/env"),
        ] {
            let error = spec(process, "").unwrap_err();
            assert_eq!(error.field_name(), Some(field), "{error}");
        }
    }

    #[test]
    fn text_that_is_no_json_says_where() {
        assert!(parse::<Spec>(b"{\"a\": }").unwrap_err().to_string().contains("line 1 column 7"));
    }
}
