//! For `check`: finds further faults after the first. What is wrong is removed from the configuration, or replaced by a
//! harmless value, and the same code runs again.
//!
//! Removing an element of a list moves the later ones, so every pointer is translated back to the original document.

use std::path::Path;

use serde_json::{Value, json};

use crate::error::unescape;

/// A configuration whose faults are removed one by one.
pub struct Document {
    value: Value,
    /// The pointers that were at fault, in the original.
    mended: Vec<String>,
    /// Lists, by their pointer in the original, with the original indices of removed elements.
    removed: Vec<(String, usize)>,
    /// Destinations of removed mounts.
    uncovered: Vec<String>,
}

/// A pointer, and what makes a value for it.
type Harmless = (&'static str, fn() -> Value);

/// Required members, with values that do no harm.
const HARMLESS: [Harmless; 10] = [
    ("/ociVersion", || json!("1.0.0")),
    ("/process", || json!({"args": ["/"], "cwd": "/", "user": {"uid": 0, "gid": 0}})),
    ("/process/args", || json!(["/"])),
    ("/process/cwd", || json!("/")),
    ("/process/user", || json!({"uid": 0, "gid": 0})),
    ("/process/user/uid", || json!(0)),
    ("/process/user/gid", || json!(0)),
    ("/root", || json!({"path": "/"})),
    ("/root/path", || json!("/")),
    // Both members: the other one may be missing, too.
    ("/linux", || json!({"namespaces": [{"type": "mount"}, {"type": "uts"}]})),
];

/// Maps for which one mapping of one id is valid.
pub const MAPS: [&str; 2] = ["/linux/uidMappings", "/linux/gidMappings"];

/// Lists whose elements mean something only as a whole.
const WHOLES: [&str; 3] = ["/mounts/", "/linux/seccomp/syscalls/", "/linux/devices/"];

impl Document {
    /// The document as written.
    pub fn new(value: Value) -> Document {
        Document { value, mended: Vec::new(), removed: Vec::new(), uncovered: Vec::new() }
    }

    /// Destinations of removed mounts, below which nothing can be checked.
    pub fn uncovered(&self) -> impl Iterator<Item = &Path> {
        self.uncovered.iter().map(Path::new)
    }

    /// What is left of it, as text.
    pub fn text(&self) -> String {
        self.value.to_string()
    }

    /// Translates a pointer into the present document to the original.
    pub fn original(&self, pointer: &str) -> String {
        let mut original = String::new();
        for part in pointer.split('/').skip(1) {
            let place = part.parse().ok().map(|index| self.place_in(&original, index).to_string());
            original = format!("{original}/{}", place.as_deref().unwrap_or(part));
        }
        original
    }

    /// Where an element of a list was before others were taken out.
    fn place_in(&self, list: &str, index: usize) -> usize {
        let mut gone: Vec<usize> = self.removed.iter().filter(|(name, _)| name == list).map(|&(_, at)| at).collect();
        gone.sort_unstable();
        gone.iter().fold(index, |place, &at| if at <= place { place + 1 } else { place })
    }

    /// Whether a finding about this field (of the original) is a consequence of a removal.
    pub fn follows_from_mending(&self, original: &str) -> bool {
        self.mended.iter().any(|mended| is_at_or_below(original, mended))
    }

    /// Whether a part of this field was taken out, so that it may be missing now.
    pub fn lacks_a_part(&self, original: &str) -> bool {
        self.mended.iter().any(|mended| is_at_or_below(mended, original))
    }

    /// Removes or replaces what a pointer names. False if nothing is left to do there.
    pub fn mend(&mut self, pointer: &str) -> bool {
        let pointer = whole(pointer);
        let original = self.original(pointer);
        let again = self.mended.contains(&original);
        self.mended.push(original.clone());
        if !again && let Some((_, harmless)) = HARMLESS.iter().find(|(name, _)| *name == pointer) {
            return self.put(pointer, harmless());
        }
        if MAPS.contains(&pointer) {
            // One that must be there, or one that must not.
            let map = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
            return if again { self.take_out(pointer, &original) } else { self.put(pointer, map) };
        }
        if self.value.pointer(pointer).is_some() {
            return self.take_out(pointer, &original);
        }
        // A member is missing: the object without it is removed, but never the whole document.
        match pointer.rsplit_once('/') {
            Some((above, _)) if above.matches('/').count() > 1 => self.mend(above),
            _ => false,
        }
    }

    fn put(&mut self, pointer: &str, value: Value) -> bool {
        let Some((above, name)) = pointer.rsplit_once('/') else { return false };
        let Some(Value::Object(object)) = self.value.pointer_mut(above) else { return false };
        object.insert(name.to_owned(), value);
        true
    }

    fn take_out(&mut self, pointer: &str, original: &str) -> bool {
        if pointer.starts_with("/mounts") {
            let places = self.value.pointer(&format!("{pointer}/destination")).and_then(Value::as_str);
            self.uncovered.push(places.unwrap_or("/").to_owned());
        }
        let Some((above, name)) = pointer.rsplit_once('/') else { return false };
        match self.value.pointer_mut(above) {
            Some(Value::Object(object)) => object.remove(&unescape(name)).is_some(),
            Some(Value::Array(list)) => {
                let Some(index) = name.parse().ok().filter(|&index: &usize| index < list.len()) else { return false };
                list.remove(index);
                if let Some((list, place)) = original.rsplit_once('/') {
                    self.removed.push((list.to_owned(), place.parse().unwrap_or(index)));
                }
                true
            }
            _ => false,
        }
    }
}

fn is_at_or_below(pointer: &str, other: &str) -> bool {
    pointer.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The element that a pointer is about, of a list whose elements are wholes.
fn whole(pointer: &str) -> &str {
    if let Some(map) = MAPS.iter().find(|map| is_at_or_below(pointer, map)) {
        return map;
    }
    let Some(list) = WHOLES.iter().find(|list| pointer.starts_with(**list)) else { return pointer };
    let end = pointer[list.len()..].find('/').map_or(pointer.len(), |at| list.len() + at);
    &pointer[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_told_as_they_were_before_elements_went() {
        let mut document = Document::new(json!({"mounts": [0, 1, 2, 3, 4], "a": {"1": [0, 1]}}));
        assert!(document.mend("/mounts/1/options") && document.mend("/mounts/2"));
        assert_eq!(document.text(), r#"{"a":{"1":[0,1]},"mounts":[0,2,4]}"#);
        assert_eq!(document.original("/mounts/0/x"), "/mounts/0/x");
        assert_eq!(document.original("/mounts/1"), "/mounts/2");
        assert_eq!(document.original("/mounts/2/type"), "/mounts/4/type");
        assert_eq!(document.original("/a/1/1"), "/a/1/1");
        assert!(document.follows_from_mending("/mounts/1") && document.follows_from_mending("/mounts/3/type"));
        assert_eq!(document.uncovered().collect::<Vec<_>>(), [Path::new("/"), Path::new("/")]);
        assert!(!document.follows_from_mending("/mounts/2") && !document.follows_from_mending("/mounts/10"));
    }

    #[test]
    fn what_must_be_there_is_replaced_and_anything_else_goes() {
        let mut document =
            Document::new(json!({"process": {"cwd": "x", "env": ["A"]}, "linux": {"sysctl": {"a/b": "1"}}}));
        assert!(document.mend("/process/cwd") && document.mend("/process/args") && document.mend("/process/env/0"));
        assert!(document.mend("/linux/sysctl/a~1b") && document.mend("/linux/uidMappings"));
        let map = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
        let mended = json!({
            "process": {"cwd": "/", "args": ["/"], "env": []},
            "linux": {"sysctl": {}, "uidMappings": map},
        });
        assert_eq!(document.value, mended);
    }

    #[test]
    fn what_cannot_be_mended_comes_to_an_end() {
        let mut document = Document::new(json!({"process": 1}));
        assert!(!document.mend("/hostname"));
        for pointer in ["/process", "/process"] {
            assert!(document.mend(pointer));
        }
        assert!(!document.mend("/process"));
    }
}
