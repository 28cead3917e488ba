//! Which unit a container becomes and where its cgroup is: `slice:prefix:name`.

use std::path::Path;

use crate::error::{Error, Result, bail, ensure};

/// A unit to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    /// With its suffix, `.scope` or `.slice`.
    pub(super) name: String,
    /// The slice it lies in; `None` for the manager's usual one.
    pub(super) slice: Option<String>,
}

/// The longest name of a unit (`UNIT_NAME_MAX`, less the end of a C string).
const LONGEST: usize = 255;

impl Unit {
    /// Reads `linux.cgroupsPath`; an empty one stands for a scope called after the container's id.
    pub(crate) fn plan(path: &Path, id: &str) -> Result<Unit> {
        let Some(path) = path.to_str() else { bail!("{} is not UTF-8", path.display()) };
        if path.is_empty() {
            return Unit { name: format!("corten-{id}.scope"), slice: None }.checked();
        }
        let parts: Vec<&str> = path.split(':').collect();
        let [slice, prefix, name] = parts[..] else {
            return Err(Error::new(format!(
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {path:?} instead"
            ))
            .hint("give such a path, or use --cgroup-manager=cgroupfs"));
        };
        ensure!(!name.is_empty(), "{path:?} has no name for the unit");
        let name = match prefix {
            _ if name.ends_with(".slice") => name.to_owned(),
            // Also where it is empty, as for runc and crun.
            prefix => format!("{prefix}-{name}.scope"),
        };
        Unit { name, slice: Some(slice).filter(|slice| !slice.is_empty()).map(str::to_owned) }.checked()
    }

    fn checked(self) -> Result<Unit> {
        // systemd.unit(5): "Valid unit names consist of …".
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        ensure!(self.name.bytes().all(fits), "{:?} has a character that no unit can have in its name", self.name);
        ensure!(self.name.len() <= LONGEST, "{:?} is too long for the name of a unit", self.name);
        if let Some(slice) = &self.slice {
            expand(slice)?;
        }
        if self.is_slice() {
            ensure!(self.name != "-.slice", "the root slice cannot be made");
            expand(&self.name)?;
        }
        Ok(self)
    }

    /// A slice has no processes of its own in the eyes of systemd; a scope is made around one.
    pub(super) fn is_slice(&self) -> bool {
        self.name.ends_with(".slice")
    }

    /// The slice that it lies in, by name. A slice's own name says it.
    pub(super) fn parent(&self, user: bool) -> String {
        if self.is_slice() {
            let stem = self.name.trim_end_matches(".slice");
            return stem.rsplit_once('-').map_or("-.slice".to_owned(), |(parent, _)| format!("{parent}.slice"));
        }
        self.slice.clone().unwrap_or_else(|| if user { "user.slice" } else { "system.slice" }.to_owned())
    }

    /// Its cgroup, below that of the manager.
    pub(super) fn cgroup(&self, user: bool) -> Result<String> {
        if self.is_slice() {
            return expand(&self.name);
        }
        let parent = expand(&self.parent(user))?;
        Ok(if parent.is_empty() { self.name.clone() } else { format!("{parent}/{}", self.name) })
    }
}

/// Where a slice lies: `a-b.slice` is at `a.slice/a-b.slice`, and `-.slice` is all of it (systemd.slice(5)).
fn expand(slice: &str) -> Result<String> {
    let stem = slice.strip_suffix(".slice").unwrap_or_default();
    if stem == "-" {
        return Ok(String::new());
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b":_.\\@".contains(&byte);
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(fits);
    ensure!(stem.split('-').all(is_part) && slice.len() <= LONGEST, "{slice:?} is not the name of a slice");
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    Ok(ends.map(|end| format!("{}.slice", &stem[..end])).collect::<Vec<_>>().join("/"))
}

/// The cgroup of the user's manager, of which there is no sign but our own cgroup until it is asked.
pub(super) fn of_user_manager(own: &str, uid: u32) -> String {
    let service = format!("user@{uid}.service");
    let parts: Vec<&str> = own.split('/').filter(|part| !part.is_empty()).collect();
    match parts.iter().position(|part| *part == service) {
        Some(place) => parts[..=place].join("/"),
        None => format!("user.slice/user-{uid}.slice/{service}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(path: &str) -> Unit {
        Unit::plan(Path::new(path), "web").unwrap()
    }

    fn cgroup(path: &str) -> String {
        unit(path).cgroup(false).unwrap()
    }

    #[test]
    fn a_path_of_three_parts_is_a_scope_in_a_slice() {
        assert_eq!(cgroup("system.slice:docker:c1"), "system.slice/docker-c1.scope");
        assert_eq!(cgroup("machine.slice:libpod:c1"), "machine.slice/libpod-c1.scope");
        assert_eq!(cgroup("a-b-c.slice:cri:x"), "a.slice/a-b.slice/a-b-c.slice/cri-x.scope");
        assert_eq!(cgroup("-.slice:p:n"), "p-n.scope");
        assert_eq!(cgroup("a.slice::n"), "a.slice/-n.scope");
    }

    #[test]
    fn the_usual_slice_is_that_of_the_manager() {
        assert_eq!(cgroup(""), "system.slice/corten-web.scope");
        assert_eq!(cgroup(":docker:c1"), "system.slice/docker-c1.scope");
        assert_eq!(unit("").cgroup(true).unwrap(), "user.slice/corten-web.scope");
        assert_eq!(unit("").parent(true), "user.slice");
    }

    #[test]
    fn a_name_that_ends_in_slice_is_a_slice_in_the_slice_that_it_names() {
        assert_eq!(cgroup("::a-b.slice"), "a.slice/a-b.slice");
        assert_eq!(cgroup("x.slice:p:pod.slice"), "pod.slice");
        assert_eq!(unit("::a-b.slice").parent(false), "a.slice");
        assert_eq!(unit("::a.slice").parent(false), "-.slice");
    }

    #[test]
    fn other_forms_are_refused() {
        for path in ["/a/b", "a/b", "a.slice:b", "a.slice:b:c:d", "a.slice:b:", "::-.slice"] {
            assert!(Unit::plan(Path::new(path), "web").is_err(), "{path}");
        }
        for slice in [
            "a",
            "a.scope",
            ".slice",
            "a--b.slice",
            "-a.slice",
            "a-.slice",
            "--.slice",
            "a/b.slice",
            "a,b.slice",
            "../a.slice",
        ] {
            assert!(Unit::plan(Path::new(&format!("{slice}:p:n")), "web").is_err(), "{slice}");
        }
        for name in ["a/b", "a b", "../x", "a\nb", "ä", "--.slice", "-a.slice"] {
            assert!(Unit::plan(Path::new(&format!("a.slice:p:{name}")), "web").is_err(), "{name}");
        }
        let long = format!("a.slice:p:{}", "x".repeat(250));
        assert!(Unit::plan(Path::new(&long), "web").is_err());
        let error = Unit::plan(Path::new("/a"), "web").unwrap_err().to_string();
        assert!(error.contains("slice:prefix:name"), "{error}");
    }

    #[test]
    fn the_users_manager_is_above_us_or_where_it_usually_is() {
        let below = "/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope";
        assert_eq!(of_user_manager(below, 1000), "user.slice/user-1000.slice/user@1000.service");
        let nested = "/machine.slice/c.scope/user@1000.service/x";
        assert_eq!(of_user_manager(nested, 1000), "machine.slice/c.scope/user@1000.service");
        assert_eq!(of_user_manager("/x", 5), "user.slice/user-5.slice/user@5.service");
    }
}
