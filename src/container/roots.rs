//! The state roots of engines, where a container may be that is not in the given one.

use std::fs;
use std::path::{Path, PathBuf};

/// The state roots that engines pass, and the name of the engine. `*` is any name.
const KNOWN: [(&str, &str); 7] = [
    ("/run/corten", "the default, and Podman's"),
    ("/run/user/*/corten", "a user's default, and Podman's"),
    ("/run/docker/runtime-runc/*", "Docker's"),
    ("/run/user/*/docker/runtime-runc/*", "Docker's for a user"),
    ("/run/containerd/runc/*", "containerd's"),
    ("/run/runc", "runc's, and CRI-O's"),
    ("/run/crun", "crun's, and CRI-O's"),
];

/// A state root and whose it is.
pub struct KnownRoot {
    /// The directory, which is there.
    pub path: PathBuf,
    /// Whose it is.
    pub whose: &'static str,
}

/// All that are there and may be looked into.
pub fn known() -> Vec<KnownRoot> {
    let there = |&(pattern, whose): &(&str, &'static str)| {
        expand(Path::new(pattern)).into_iter().map(move |path| KnownRoot { path, whose })
    };
    KNOWN.iter().flat_map(there).collect()
}

/// The directories that a pattern means, in order.
fn expand(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/")];
    for name in pattern.iter().skip(1) {
        let below = |directory: &PathBuf| match name == "*" {
            true => fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect(),
            false => vec![directory.join(name)],
        };
        found = found.iter().flat_map(below).filter(|path| path.is_dir()).collect();
    }
    found.sort();
    found
}

/// A hint for an id that is not in `root`: the state roots that have it, or an id that begins with it.
pub fn advice(id: &str, root: &Path) -> String {
    /// As few letters of an id as people give.
    const SHORT: usize = 4;
    let real = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let elsewhere = known().into_iter().filter(|known| known.path.canonicalize().is_ok_and(|path| path != real));
    let has = |known: &KnownRoot| {
        let entries = fs::read_dir(&known.path).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| name == id || (id.len() >= SHORT && name.starts_with(id)));
        names.sort_by_key(|name| name != id);
        names.into_iter().next()
    };
    let found = elsewhere.filter_map(|known| has(&known).map(|name| (known, name)));
    let found: Vec<String> = found
        .map(|(known, name)| {
            let whole = if name == id { String::new() } else { format!("{name} ") };
            format!("{whole}in {}, which is {}", known.path.display(), known.whose)
        })
        .collect();
    let here = format!("not in the state root {}", root.display());
    match found.is_empty() {
        true => format!("{here}, nor in that of an engine; give another with --root"),
        false => format!("{here}, but {}: give that as --root", found.join(", and ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_every_directory_and_a_name_is_one_that_is_there() {
        let scratch = std::env::temp_dir().join(format!("corten-roots-{}", std::process::id()));
        for path in ["a/x/runc", "b/x/runc", "c/y"] {
            fs::create_dir_all(scratch.join(path)).unwrap();
        }
        fs::write(scratch.join("file"), "").unwrap();
        let found = expand(&scratch.join("*/x/*"));
        assert_eq!(found, ["a/x/runc", "b/x/runc"].map(|path| scratch.join(path)));
        assert_eq!(expand(&scratch.join("c/y")), [scratch.join("c/y")]);
        assert_eq!(expand(&scratch.join("file/*")), [""; 0].map(PathBuf::from));
        fs::remove_dir_all(&scratch).unwrap();
    }
}
