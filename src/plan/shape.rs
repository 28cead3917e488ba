//! Refuses arrays in place of objects in a configuration.
//!
//! The types of oci-spec accept an array for any object and read its elements as the fields in their order of declaration:
//! `"user": [7, 8]` would be user 7. They also accept `{"SCHED_IDLE": null}` for `"SCHED_IDLE"`. A check of the parsed document
//! costs a second parse, so the text is scanned first ([`is_plain`]): without an array in an unusual place there is none in
//! place of an object.

use memchr::{memchr_iter, memmem};
use serde_json::Value;

use crate::error::{Error, Result, escape};

/// Pointers of objects, with `[]` for the elements of a list and `{}` for the values of a map.
const OBJECTS: &[&str] = &[
    "",
    "/annotations",
    "/hooks",
    "/hooks/createContainer/[]",
    "/hooks/createRuntime/[]",
    "/hooks/poststart/[]",
    "/hooks/poststop/[]",
    "/hooks/prestart/[]",
    "/hooks/startContainer/[]",
    "/linux",
    "/linux/devices/[]",
    "/linux/gidMappings/[]",
    "/linux/intelRdt",
    "/linux/memoryPolicy",
    "/linux/namespaces/[]",
    "/linux/netDevices",
    "/linux/netDevices/{}",
    "/linux/personality",
    "/linux/resources",
    "/linux/resources/blockIO",
    "/linux/resources/blockIO/throttleReadBpsDevice/[]",
    "/linux/resources/blockIO/throttleReadIOPSDevice/[]",
    "/linux/resources/blockIO/throttleWriteBpsDevice/[]",
    "/linux/resources/blockIO/throttleWriteIOPSDevice/[]",
    "/linux/resources/blockIO/weightDevice/[]",
    "/linux/resources/cpu",
    "/linux/resources/devices/[]",
    "/linux/resources/hugepageLimits/[]",
    "/linux/resources/memory",
    "/linux/resources/network",
    "/linux/resources/network/priorities/[]",
    "/linux/resources/pids",
    "/linux/resources/rdma",
    "/linux/resources/rdma/{}",
    "/linux/resources/unified",
    "/linux/seccomp",
    "/linux/seccomp/syscalls/[]",
    "/linux/seccomp/syscalls/[]/args/[]",
    "/linux/sysctl",
    "/linux/timeOffsets",
    "/linux/timeOffsets/{}",
    "/linux/uidMappings/[]",
    "/mounts/[]",
    "/mounts/[]/gidMappings/[]",
    "/mounts/[]/uidMappings/[]",
    "/process",
    "/process/capabilities",
    "/process/consoleSize",
    "/process/execCPUAffinity",
    "/process/ioPriority",
    "/process/rlimits/[]",
    "/process/scheduler",
    "/process/user",
    "/root",
    "/solaris",
    "/vm",
    "/windows",
    "/zos",
];

/// Pointers of enumerations, which serde also accepts as objects.
const WORDS: &[&str] = &[
    "/linux/devices/[]/type",
    "/linux/memoryPolicy/flags/[]",
    "/linux/memoryPolicy/mode",
    "/linux/namespaces/[]/type",
    "/linux/personality/domain",
    "/linux/resources/devices/[]/type",
    "/linux/seccomp/architectures/[]",
    "/linux/seccomp/defaultAction",
    "/linux/seccomp/flags/[]",
    "/linux/seccomp/syscalls/[]/action",
    "/linux/seccomp/syscalls/[]/args/[]/op",
    "/process/capabilities/{}/[]",
    "/process/ioPriority/class",
    "/process/rlimits/[]/type",
    "/process/scheduler/flags/[]",
    "/process/scheduler/policy",
];

/// Fields that are lists, wherever they stand; none of these names is also that of an object.
const LISTS: &[&str] = &[
    "additionalGids",
    "ambient",
    "architectures",
    "args",
    "bounding",
    "createContainer",
    "createRuntime",
    "devices",
    "effective",
    "env",
    "flags",
    "gidMappings",
    "hugepageLimits",
    "inheritable",
    "maskedPaths",
    "mounts",
    "names",
    "namespaces",
    "options",
    "permitted",
    "poststart",
    "poststop",
    "prestart",
    "priorities",
    "readonlyPaths",
    "rlimits",
    "schemata",
    "startContainer",
    "syscalls",
    "throttleReadBpsDevice",
    "throttleReadIOPSDevice",
    "throttleWriteBpsDevice",
    "throttleWriteIOPSDevice",
    "uidMappings",
    "weightDevice",
];

/// Rare fields of which the text alone says too little: maps of objects under any names, and an object with a required
/// field that the types let be missing.
const RARE: [&str; 4] = ["\"ioPriority\"", "\"netDevices\"", "\"rdma\"", "\"timeOffsets\""];

const NULL: &[u8] = b"null";

/// Whether all arrays of a text are in place of lists, so that its values need no check. May be false for a valid text: with
/// unknown fields, or with a bracket in a string.
pub fn is_plain(text: &[u8], part: &str) -> bool {
    let list_at = |at: usize| match text[..at].trim_ascii_end() {
        // What is a list is at least not an object.
        [] => part == "/mounts",
        [before @ .., b':'] => is_list(before.trim_ascii_end()),
        // An array in an array, or a comma in a string.
        [.., b'[' | b','] => false,
        // In a string.
        _ => true,
    };
    // As an object a word ends like this.
    let ends_object = |null: usize| text[null + NULL.len()..].trim_ascii_start().first() == Some(&b'}');
    memchr_iter(b'[', text).all(list_at)
        && !memmem::find_iter(text, NULL).any(ends_object)
        && has_plain_pids(text)
        && has_plain_capabilities(text)
        && !RARE.iter().any(|key| memmem::find(text, key.as_bytes()).is_some())
}

/// Whether a text ends with the key of a list.
fn is_list(before: &[u8]) -> bool {
    let Some(before) = before.strip_suffix(b"\"") else { return false };
    let start = memchr::memrchr(b'"', before).map_or(0, |quote| quote + 1);
    LISTS.iter().any(|name| name.as_bytes() == &before[start..])
}

/// Whether each `pids` begins with its limit. One without asks for nothing, and the types read it as a limit of zero.
fn has_plain_pids(text: &[u8]) -> bool {
    const KEY: &[u8] = b"\"pids\"";
    const LIMIT: &[u8] = b":{\"limit\"";
    let after = |at: usize| text[at + KEY.len()..].iter().filter(|byte| !byte.is_ascii_whitespace());
    memmem::find_iter(text, KEY).all(|at| after(at).take(LIMIT.len()).eq(LIMIT))
}

/// Whether all names of capabilities have their prefix, without which the types take them, too.
fn has_plain_capabilities(text: &[u8]) -> bool {
    const SETS: [&str; 5] = ["\"ambient\"", "\"bounding\"", "\"effective\"", "\"inheritable\"", "\"permitted\""];
    let is_plain_at = |after: usize| {
        let rest = text[after..].trim_ascii_start();
        let Some(list) = rest.strip_prefix(b":").and_then(|rest| rest.trim_ascii_start().strip_prefix(b"[")) else {
            return true;
        };
        let list = &list[..memchr::memchr(b']', list).unwrap_or(list.len())];
        // Every second piece is a name.
        list.split(|byte| *byte == b'"').skip(1).step_by(2).all(has_prefix)
    };
    SETS.iter().all(|key| memmem::find_iter(text, key.as_bytes()).all(|at| is_plain_at(at + key.len())))
}

/// Whether this is a name of a capability as capabilities(7) has it, in whatever case.
pub fn has_prefix(name: &[u8]) -> bool {
    name.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case(b"CAP_"))
}

/// Refuses a document in which something else stands for an object or a word. `part` is what the document is of a
/// configuration.
pub fn check(value: &Value, part: &str) -> Result<()> {
    let check_all = |patterns: &[&'static str], wanted: &Value| {
        let own =
            |pattern: &&'static str| pattern.strip_prefix(part).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        patterns.iter().filter_map(own).try_for_each(|pattern| check_below(value, pattern, "", wanted))
    };
    check_all(OBJECTS, &Value::Object(serde_json::Map::new()))?;
    check_all(WORDS, &Value::String(String::new()))
}

fn check_below(value: &Value, pattern: &str, pointer: &str, wanted: &Value) -> Result<()> {
    let Some(pattern) = pattern.strip_prefix('/') else { return check_kind(value, pointer, wanted) };
    let (step, rest) = pattern.split_at(pattern.find('/').unwrap_or(pattern.len()));
    let below = |name: &dyn std::fmt::Display, value| check_below(value, rest, &format!("{pointer}/{name}"), wanted);
    match (step, value) {
        ("[]", Value::Array(list)) => list.iter().enumerate().try_for_each(|(index, value)| below(&index, value)),
        ("{}", Value::Object(map)) => map.iter().try_for_each(|(name, value)| below(&escape(name), value)),
        (name, Value::Object(map)) => map.get(name).map_or(Ok(()), |value| below(&name, value)),
        _ => Ok(()),
    }
}

/// Null is as if it were not there, where that is possible.
fn check_kind(value: &Value, pointer: &str, wanted: &Value) -> Result<()> {
    if value.is_null() || std::mem::discriminant(value) == std::mem::discriminant(wanted) {
        return Ok(());
    }
    Err(at(Error::new(format!("must be {}, not {}", kind(wanted), kind(value))), pointer))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The error of a field; the document as a whole has no name.
pub fn at(error: Error, pointer: &str) -> Error {
    if pointer.is_empty() { error } else { error.field(pointer.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_list_has_the_name_of_an_object() {
        for pattern in OBJECTS {
            assert!(!LISTS.iter().any(|name| pattern.rsplit('/').next() == Some(name)), "{pattern}");
        }
    }

    #[test]
    fn arrays_in_the_place_of_lists_are_plain() {
        for text in [
            r#"{"process":{"args":["sh","-c","[ -e /x ]"],"env" : [ ]},"mounts":[{"options":["ro"]}]}"#,
            r#"{"linux":{"resources":{"pids" : { "limit" : 7 }}}}"#,
        ] {
            assert!(is_plain(text.as_bytes(), ""), "{text}");
        }
        assert!(is_plain(b" [{}]", "/mounts"));
    }

    #[test]
    fn what_would_be_read_as_something_else_is_never_plain() {
        for text in [
            "[]",
            r#"{"root":["rootfs"]}"#,
            r#"{"root" : ["rootfs"]}"#,
            "{\"hooks\"\n:\t[]}",
            r#"{"mounts":[["/x"]]}"#,
            r#"{"mounts":[{"destination":"/x"}, ["/x"]]}"#,
            r#"{"linux":{"netDevices":{"args":["x"]}}}"#,
            r#"{"process":{"ioPriority":{}}}"#,
            r#"{"pids":{"Limit":50}}"#,
            r#"{"linux":{"personality":{"domain":{"LINUX":null }}}}"#,
        ] {
            assert!(!is_plain(text.as_bytes(), ""), "{text}");
        }
    }
}
