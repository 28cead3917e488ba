//! The field names of the runtime-spec: an unknown one is usually misspelt.
//!
//! A runtime must not fail on them (runtime-spec, "Extensibility"), so `create` is silent; `check` reports them.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::annotations::OBEYED;
use crate::error::Error;
use crate::error::escape;

/// The fields of each object (runtime-spec 1.3); `[]` stands for the elements of a list, `{}` for the values of a map. What
/// is only for other platforms is not checked.
const FIELDS: &[(&str, &str)] = &[
    ("", "ociVersion process root hostname domainname mounts hooks annotations linux solaris windows vm zos freebsd"),
    ("/hooks", "prestart createRuntime createContainer startContainer poststart poststop"),
    ("/hooks/createContainer/[]", HOOK),
    ("/hooks/createRuntime/[]", HOOK),
    ("/hooks/poststart/[]", HOOK),
    ("/hooks/poststop/[]", HOOK),
    ("/hooks/prestart/[]", HOOK),
    ("/hooks/startContainer/[]", HOOK),
    (
        "/linux",
        "uidMappings gidMappings sysctl resources cgroupsPath namespaces devices netDevices seccomp rootfsPropagation \
         maskedPaths readonlyPaths mountLabel intelRdt memoryPolicy personality timeOffsets",
    ),
    ("/linux/devices/[]", "path type major minor fileMode uid gid"),
    ("/linux/gidMappings/[]", MAPPING),
    // runtime-spec 1.3 has dropped the last two.
    ("/linux/intelRdt", "closID l3CacheSchema memBwSchema schemata enableMonitoring enableCMT enableMBM"),
    ("/linux/memoryPolicy", "mode nodes flags"),
    ("/linux/namespaces/[]", "type path"),
    ("/linux/netDevices/{}", "name"),
    ("/linux/personality", "domain flags"),
    ("/linux/resources", "devices memory cpu pids blockIO hugepageLimits network rdma unified"),
    (
        "/linux/resources/blockIO",
        "weight leafWeight weightDevice throttleReadBpsDevice throttleWriteBpsDevice throttleReadIOPSDevice \
         throttleWriteIOPSDevice",
    ),
    ("/linux/resources/blockIO/throttleReadBpsDevice/[]", RATE),
    ("/linux/resources/blockIO/throttleReadIOPSDevice/[]", RATE),
    ("/linux/resources/blockIO/throttleWriteBpsDevice/[]", RATE),
    ("/linux/resources/blockIO/throttleWriteIOPSDevice/[]", RATE),
    ("/linux/resources/blockIO/weightDevice/[]", "major minor weight leafWeight"),
    ("/linux/resources/cpu", "shares quota burst period realtimeRuntime realtimePeriod cpus mems idle"),
    ("/linux/resources/devices/[]", "allow type major minor access"),
    ("/linux/resources/hugepageLimits/[]", "pageSize limit"),
    (
        "/linux/resources/memory",
        "limit reservation swap kernel kernelTCP swappiness disableOOMKiller useHierarchy checkBeforeUpdate",
    ),
    ("/linux/resources/network", "classID priorities"),
    ("/linux/resources/network/priorities/[]", "name priority"),
    ("/linux/resources/pids", "limit"),
    ("/linux/resources/rdma/{}", "hcaHandles hcaObjects"),
    ("/linux/seccomp", "defaultAction defaultErrnoRet architectures flags listenerPath listenerMetadata syscalls"),
    ("/linux/seccomp/syscalls/[]", "names action errnoRet args"),
    ("/linux/seccomp/syscalls/[]/args/[]", "index value valueTwo op"),
    ("/linux/timeOffsets/{}", "secs nanosecs"),
    ("/linux/uidMappings/[]", MAPPING),
    ("/mounts/[]", "destination type source options uidMappings gidMappings"),
    ("/mounts/[]/gidMappings/[]", MAPPING),
    ("/mounts/[]/uidMappings/[]", MAPPING),
    (
        "/process",
        "terminal consoleSize user args commandLine env cwd capabilities rlimits noNewPrivileges apparmorProfile \
         oomScoreAdj selinuxLabel ioPriority scheduler execCPUAffinity",
    ),
    ("/process/capabilities", "bounding effective inheritable permitted ambient"),
    ("/process/consoleSize", "height width"),
    ("/process/execCPUAffinity", "initial final"),
    ("/process/ioPriority", "class priority"),
    ("/process/rlimits/[]", "type soft hard"),
    ("/process/scheduler", "policy nice priority flags runtime deadline period"),
    ("/process/user", "uid gid umask additionalGids username"),
    ("/root", "path readonly"),
];

const HOOK: &str = "path args env timeout";
const MAPPING: &str = "containerID hostID size";
const RATE: &str = "major minor rate";

/// Objects with free names, whose values are objects.
const MAPS: [&str; 3] = ["/linux/netDevices", "/linux/resources/rdma", "/linux/timeOffsets"];

/// The prefix of corten's annotations.
const OURS: &str = "run.corten.";

/// One error for each unknown name.
pub fn unknown(config: &Value) -> Vec<Error> {
    let fields = FIELDS.iter().copied().collect();
    let mut found = Vec::new();
    visit(config, "", "", &fields, &mut found);
    if let Some(Value::Object(annotations)) = config.get("annotations") {
        found.extend(annotations.keys().filter_map(|name| unknown_annotation(name)));
    }
    found
}

type Fields = HashMap<&'static str, &'static str>;

fn visit(value: &Value, pattern: &str, pointer: &str, fields: &Fields, found: &mut Vec<Error>) {
    match value {
        Value::Array(list) => list.iter().enumerate().for_each(|(index, value)| {
            visit(value, &format!("{pattern}/[]"), &format!("{pointer}/{index}"), fields, found);
        }),
        Value::Object(map) if MAPS.contains(&pattern) => map.iter().for_each(|(name, value)| {
            visit(value, &format!("{pattern}/{{}}"), &format!("{pointer}/{}", escape(name)), fields, found);
        }),
        Value::Object(map) => visit_object(map, pattern, pointer, fields, found),
        _ => {}
    }
}

fn visit_object(map: &Map<String, Value>, pattern: &str, pointer: &str, fields: &Fields, found: &mut Vec<Error>) {
    let Some(names) = fields.get(pattern) else { return };
    for (name, value) in map {
        let below = format!("{pointer}/{}", escape(name));
        if names.split(' ').any(|known| known == name) {
            visit(value, &format!("{pattern}/{name}"), &below, fields, found);
            continue;
        }
        let error = Error::new("the field is unknown and ignored").field(below);
        found.push(match nearest(name, names.split(' ')) {
            Some(known) => error.hint(format!("did you mean \"{known}\"?")),
            None => match elsewhere(name, pattern) {
                Some(place) => error.hint(format!("the runtime-spec has it at {place}")),
                None => error,
            },
        });
    }
}

/// Where the runtime-spec has a field of this name, if there is only one such place.
fn elsewhere(name: &str, pattern: &str) -> Option<String> {
    let mut places = FIELDS.iter().filter(|(place, names)| *place != pattern && names.split(' ').any(|n| n == name));
    let (place, _) = places.next()?;
    (places.next().is_none() && !place.contains(['[', '{'])).then(|| format!("{place}/{name}"))
}

fn unknown_annotation(name: &str) -> Option<Error> {
    let ours = || OBEYED.iter().map(|obeyed| obeyed.name).filter(|known| known.starts_with(OURS));
    if !name.starts_with(OURS) || ours().any(|known| known == name) {
        return None;
    }
    let error = Error::new("the annotation is unknown and ignored").field(format!("/annotations/{}", escape(name)));
    Some(match nearest(name, ours()) {
        Some(known) => error.hint(format!("did you mean \"{known}\"?")),
        None => error.hint(format!("corten knows {}", ours().collect::<Vec<_>>().join(" and "))),
    })
}

/// The known name that is nearest to a misspelt one: at most one letter in three differs, ignoring case.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.map(|known| (distance(&name.to_lowercase(), &known.to_lowercase()), known));
    near.filter(|(distance, known)| distance * 3 <= known.len()).min().map(|(_, known)| known)
}

/// The edit distance of two words: insertions, deletions, replacements and swaps of neighbours.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows = vec![(0..=to.len()).collect::<Vec<usize>>()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(config: &Value) -> Vec<(String, String)> {
        let text = |error: &Error| {
            (error.field_name().unwrap_or_default().to_owned(), error.remedy().unwrap_or_default().to_owned())
        };
        unknown(config).iter().map(text).collect()
    }

    #[test]
    fn a_misspelt_name_is_told_with_the_nearest_known_one() {
        for (config, pointer, hint) in [
            (json!({"proces": {}}), "/proces", "did you mean \"process\"?"),
            (
                json!({"linux": {"resources": {"cpu": {"Cpus": "0"}}}}),
                "/linux/resources/cpu/Cpus",
                "did you mean \"cpus\"?",
            ),
            (
                json!({"linux": {"resources": {"hugepageLimits": [{"pageSize": "2MB"}, {"pagesize": "2MB"}]}}}),
                "/linux/resources/hugepageLimits/1/pagesize",
                "did you mean \"pageSize\"?",
            ),
            (json!({"mounts": [{"destinatoin": "/x"}]}), "/mounts/0/destinatoin", "did you mean \"destination\"?"),
            (
                json!({"linux": {"timeOffsets": {"boottime": {"sec": 1}}}}),
                "/linux/timeOffsets/boottime/sec",
                "did you mean \"secs\"?",
            ),
            (json!({"cgroupsPath": "/x"}), "/cgroupsPath", "the runtime-spec has it at /linux/cgroupsPath"),
            (json!({"process": {"a/b~": 1}}), "/process/a~1b~0", ""),
            // The right one is there as well.
            (json!({"root": {"path": "x", "Path": "x"}}), "/root/Path", "did you mean \"path\"?"),
            (
                json!({"annotations": {"run.corten.landlok": "x", "run.corten.landlock": "x", "other": ""}}),
                "/annotations/run.corten.landlok",
                "did you mean \"run.corten.landlock\"?",
            ),
            (
                json!({"annotations": {"run.corten.x/y": "x"}}),
                "/annotations/run.corten.x~1y",
                "corten knows run.corten.landlock and run.corten.rootfs.overlay",
            ),
        ] {
            assert_eq!(said(&config), [(pointer.to_owned(), hint.to_owned())], "{config}");
        }
    }

    #[test]
    fn names_that_are_anybodys_are_not_looked_at() {
        let config = json!({"annotations": {"process": "x", "proces": "x"}, "windows": {"x": 1}, "linux": {
            "sysctl": {"x": "y"}, "netDevices": {"nam": {"name": "x"}}, "resources": {"unified": {"x": "y"}}}});
        assert_eq!(said(&config), []);
        for other in [json!(7), json!([{"proces": 1}]), json!({"process": ["x"], "linux": 7})] {
            assert_eq!(said(&other), []);
        }
    }

    #[test]
    fn what_engines_write_is_known() {
        let mut open = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures")];
        let mut count = 0;
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            } else if path.to_string_lossy().ends_with(".config.json") {
                let config = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                assert_eq!(said(&config), [], "{}", path.display());
                count += 1;
            }
        }
        assert!(count > 10, "{count}");
    }
}
