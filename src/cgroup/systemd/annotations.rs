//! Properties of the unit that annotations ask for, `org.systemd.property.*`.

use std::collections::HashMap;

use super::properties::Properties;
use crate::dbus::{Value, gvariant};
use crate::error::{Context, Result, bail, ensure};

/// What an annotation that is a property of the unit starts with.
pub(crate) const ANNOTATION: &str = "org.systemd.property.";

/// Properties that an annotation may not set: they are what the runtime itself says of a container.
const OURS: &[&str] = &["Delegate", "PIDFDs", "PIDs", "Slice"];

/// Properties with which systemd does nothing but to the container itself: what engines set (KillSignal and TimeoutStopUSec
/// Podman; After, CollectMode and DefaultDependencies CRI-O), and one that only ends it early. Of the others some start
/// and stop units of the host or the host itself, and some lift a limit or open a device.
const HARMLESS: &[&str] =
    &["After", "CollectMode", "DefaultDependencies", "KillSignal", "RuntimeMaxUSec", "TimeoutStopUSec"];

/// Reads the annotations that are properties.
pub(super) fn wishes(annotations: Option<&HashMap<String, String>>) -> Result<Properties> {
    let mut wishes = Properties::default();
    let mut list: Vec<_> = annotations.into_iter().flatten().collect();
    list.sort_unstable();
    for (key, text) in list {
        let Some(name) = key.strip_prefix(ANNOTATION) else { continue };
        let pointer = || format!("/annotations/{}", crate::error::escape(key));
        let (name, value) = wish(name, text).field(pointer)?;
        wishes.set(&name, value);
    }
    Ok(wishes)
}

/// The property that an annotation names, where systemd may go beyond the container with it. Not one that is an error
/// whoever says it.
pub(crate) fn reaching(name: &str, text: &str) -> Option<String> {
    let (property, value) = wish(name, text).ok()?;
    // systemd looks up each of the units that a list names.
    let long = matches!(&value, Value::Array(_, list) if list.len() > 1);
    (long || !HARMLESS.contains(&property.as_str())).then_some(property)
}

fn wish(name: &str, text: &str) -> Result<(String, Value)> {
    let letters = name.bytes().all(|byte| byte.is_ascii_alphabetic());
    ensure!(letters && name.len() >= 3, "{name:?} is not the name of a property");
    ensure!(!OURS.contains(&name), "{name} is for the runtime to set");
    let value = gvariant::parse(text).with_context(|| format!("read {text:?}"))?;
    // What a unit file has in seconds is a property in microseconds.
    match name.strip_suffix("Sec").filter(|stem| stem.ends_with(|letter: char| letter.is_ascii_lowercase())) {
        Some(stem) => Ok((format!("{stem}USec"), microseconds(&value)?)),
        None => Ok((name.to_owned(), value)),
    }
}

fn microseconds(value: &Value) -> Result<Value> {
    let whole = |seconds: i128| u64::try_from(seconds).ok().and_then(|seconds| seconds.checked_mul(1_000_000));
    let number = match *value {
        Value::Byte(seconds) => whole(seconds.into()),
        Value::Int16(seconds) => whole(seconds.into()),
        Value::Uint16(seconds) => whole(seconds.into()),
        Value::Int32(seconds) => whole(seconds.into()),
        Value::Uint32(seconds) => whole(seconds.into()),
        Value::Int64(seconds) => whole(seconds.into()),
        Value::Uint64(seconds) => whole(seconds.into()),
        Value::Double(seconds) if (0.0..1e12).contains(&seconds) => Some((seconds * 1e6) as u64),
        _ => None,
    };
    let Some(number) = number else { bail!("it is not a number of seconds") };
    Ok(Value::Uint64(number))
}
