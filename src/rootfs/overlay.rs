//! Overlays (overlayfs): a mount of type overlay.
//!
//! Layers are paths of the host. Each is opened on the host and handed to the kernel as a descriptor, so there is no
//! limit on the length of options, and no character of a path means anything. The overlay is made there, too, before
//! the fork: only there its layers can all be reached, and only there it may keep what it needs in `trusted.*`
//! attributes when the container has a user namespace. As a detached mount nobody on the host sees it.

use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, stat};

use super::options::{Parameter, parts};
use super::stack::{Stack, remedy};
use crate::error::{Context, Error, Result, bail, ensure};
use crate::sys::Errno;
use crate::sys::mount::Attr;

/// Layers below the upper one that the kernel takes in one overlay (`OVL_MAX_STACK`).
const MOST: usize = 500;

/// With one overlay as the lowest layer of another. A third one above them is more than the kernel's depth of two.
const MOST_NESTED: usize = 2 * MOST - 1;

/// Options that name layers.
const LAYERS: &[&CStr] = &[c"lowerdir", c"lowerdir+", c"datadir+", c"upperdir", c"workdir"];

/// A directory of the host, and which option named it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Layer {
    option: &'static str,
    /// From 1 on, where the option names many.
    number: Option<usize>,
    path: PathBuf,
}

impl fmt::Display for Layer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            Some(number) => write!(out, "layer {number} of {}, {}", self.option, self.path.display()),
            None => write!(out, "{}, {}", self.option, self.path.display()),
        }
    }
}

impl Layer {
    fn open(&self) -> Result<OwnedFd> {
        open(&self.path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .with_context(|| format!("open {self}"))
    }
}

/// A mount of type overlay, compiled.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    name: Option<CString>,
    /// The topmost first.
    lower: Vec<Layer>,
    /// Layers below those whose files are only reached by redirects.
    data: Vec<Layer>,
    upper: Option<Layer>,
    work: Option<Layer>,
}

impl Overlay {
    /// Takes the layers out of `parameters`; `words` are all options, `field` is the JSON pointer of their list.
    pub(super) fn plan(
        name: Option<CString>,
        words: &[String],
        parameters: &mut Vec<Parameter>,
        bundle: &Path,
        field: &str,
    ) -> Result<Overlay> {
        let mut overlay = Overlay { name, ..Overlay::default() };
        for (index, word) in words.iter().enumerate() {
            for (key, value) in parts(word).filter_map(|part| part.split_once('=')) {
                overlay.add(key, value, bundle).field(|| format!("{field}/{index}"))?;
            }
        }
        parameters.retain(|parameter| parameter.value.is_none() || !LAYERS.contains(&parameter.key.as_c_str()));
        let missing = |what| Err(Error::new(format!("an overlay needs {what}")).field(field.to_owned()));
        if overlay.lower.is_empty() {
            return missing("lowerdir");
        }
        if overlay.upper.is_some() && overlay.work.is_none() {
            return missing("workdir beside upperdir");
        }
        if overlay.upper.is_none()
            && let Some(work) = overlay.work.take()
        {
            crate::log::warn(Error::new(format!("{work} has no effect without upperdir")).field(field.to_owned()));
        }
        overlay.check_number().field(|| field.to_owned())?;
        Ok(overlay)
    }

    /// One option; an upper or work directory and a list of layers replace an earlier one.
    fn add(&mut self, key: &str, value: &str, bundle: &Path) -> Result<()> {
        let single = |option, text: &str| {
            ensure!(!text.is_empty(), "{option} must not be empty");
            Ok(Layer { option, number: None, path: bundle.join(text) })
        };
        match key {
            "lowerdir" => {
                (self.lower, self.data) = (Vec::new(), Vec::new());
                for (index, (text, data)) in split(value)?.into_iter().enumerate() {
                    let layer = Layer { option: "lowerdir", number: Some(index + 1), path: bundle.join(text) };
                    if data { &mut self.data } else { &mut self.lower }.push(layer);
                }
            }
            "lowerdir+" => {
                ensure!(self.data.is_empty(), "an ordinary layer cannot lie below a data-only one");
                let number = Some(self.lower.len() + 1);
                self.lower.push(Layer { number, ..single("lowerdir+", value)? });
            }
            "datadir+" => {
                let number = Some(self.data.len() + 1);
                self.data.push(Layer { number, ..single("datadir+", value)? });
            }
            "upperdir" => self.upper = Some(single("upperdir", &unescape(value))?),
            "workdir" => self.work = Some(single("workdir", &unescape(value))?),
            _ => {}
        }
        Ok(())
    }

    fn check_number(&self) -> Result<()> {
        let (all, data) = (self.lower.len() + self.data.len(), !self.data.is_empty());
        let most = if data { MOST } else { MOST_NESTED };
        let which = if data { " where some are data-only" } else { "" };
        ensure!(all <= most, "{all} layers are more than the {most} that the kernel can stack{which}");
        Ok(())
    }

    /// Whether its layers are there.
    pub(super) fn preflight(&self) -> Result<()> {
        let layers = self.lower.iter().chain(&self.data).chain(&self.upper).chain(&self.work);
        layers.map(Layer::open).try_for_each(|layer| layer.map(drop))
    }

    /// On the host: makes it, as a detached mount.
    ///
    /// # Errors
    /// Each names the option, and the layer where there are many.
    pub(super) fn mount(&self, parameters: &[Parameter], attributes: Attr) -> Result<OwnedFd> {
        let bare = Overlay { name: self.name.clone(), ..Overlay::default() };
        let base = match self.lower.get(MOST - 1..) {
            // The lowest layers become an overlay of their own, which is one layer of this one.
            Some(rest) if self.lower.len() > MOST => Some(bare.build(rest, None, parameters, Attr::empty())?),
            _ => None,
        };
        let lower = if base.is_some() { &self.lower[..MOST - 1] } else { &self.lower };
        self.build(lower, base, parameters, attributes)
    }

    fn build(
        &self,
        lower: &[Layer],
        base: Option<OwnedFd>,
        parameters: &[Parameter],
        attributes: Attr,
    ) -> Result<OwnedFd> {
        let mut stack = Stack::start(self.name.as_deref())?;
        for parameter in parameters {
            stack.set(&parameter.key, parameter.value.as_deref())?;
        }
        for layer in lower {
            stack.add(c"lowerdir+", layer.open()?, layer)?;
        }
        if let Some(base) = &base {
            ensure!(!stack.names_layers(), "more than {MOST} layers need Linux 6.15");
            // The original stays open: without one, a detached mount is gone.
            stack.add(c"lowerdir+", base.try_clone()?, &"the overlay of the lowest layers")?;
        }
        for layer in &self.data {
            stack.add(c"datadir+", layer.open()?, layer)?;
        }
        for (key, layer) in [(c"upperdir", &self.upper), (c"workdir", &self.work)] {
            if let Some(layer) = layer {
                stack.add(key, layer.open()?, layer)?;
            }
        }
        stack.mount(attributes).map_err(|error| remedy(self.explain(error)))
    }

    /// Says why, where that can be found out.
    fn explain(&self, error: Error) -> Error {
        if error.errno() != Some(Errno::EINVAL) {
            return error;
        }
        let device = |layer: &Layer| stat(&layer.path).ok().map(|stat| stat.st_dev);
        match (&self.upper, &self.work) {
            (Some(upper), Some(work)) if device(upper) != device(work) => {
                error.hint("upperdir and workdir must be on one file system")
            }
            (None, _) if self.lower.len() + self.data.len() == 1 => {
                error.hint("without upperdir, two layers are the least")
            }
            _ => error,
        }
    }
}

/// `/a:/b\:c::/data`: what each layer is called, and whether it is data-only.
fn split(list: &str) -> Result<Vec<(String, bool)>> {
    let mut layers = vec![(String::new(), false)];
    let mut rest = list.chars().peekable();
    while let Some(letter) = rest.next() {
        let (name, _) = layers.last_mut().expect("it is never empty");
        match letter {
            '\\' => name.extend(rest.next()),
            ':' => layers.push((String::new(), rest.next_if_eq(&':').is_some())),
            letter => name.push(letter),
        }
    }
    if let Some(empty) = layers.iter().position(|(name, _)| name.is_empty()) {
        bail!("layer {} of lowerdir is empty; a colon in a path is written as \\:", empty + 1);
    }
    let sorted = layers.is_sorted_by_key(|&(_, data)| data);
    ensure!(sorted, "an ordinary layer cannot lie below a data-only one, which is behind ::");
    Ok(layers)
}

/// A backslash takes its meaning from the character behind it.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(letter) = rest.next() {
        plain.extend(if letter == '\\' { rest.next() } else { Some(letter) });
    }
    plain
}

#[cfg(test)]
mod tests {
    use nix::sched::CloneFlags;

    use super::*;
    use crate::rootfs::native_tests::is_root;
    use crate::rootfs::stack::linux;
    use crate::sys::mount::attach;
    use crate::sys::test_support::apart;

    fn plan(words: &[&str]) -> Result<Overlay> {
        let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
        let mut parameters = words.iter().map(|word| Parameter::new(word)).collect::<Result<_>>()?;
        Overlay::plan(None, &words, &mut parameters, Path::new("/b"), "/mounts/0/options")
    }

    fn paths(layers: &[Layer]) -> Vec<&str> {
        layers.iter().filter_map(|layer| layer.path.to_str()).collect()
    }

    #[test]
    fn a_list_of_layers_is_split_at_colons_that_are_not_escaped() {
        let overlay = plan(&[r"lowerdir=/a\:b:c\\d\,e:/f::data::/g\::/h"]);
        assert!(overlay.unwrap_err().to_string().contains("below a data-only one"));
        let overlay = plan(&[r"lowerdir=/a\:b:c\\d\,e:/f::data::/g\:h"]).unwrap();
        assert_eq!(paths(&overlay.lower), ["/a:b", r"/b/c\d,e", "/f"]);
        assert_eq!(paths(&overlay.data), ["/b/data", "/g:h"]);
        assert_eq!(overlay.lower[1].to_string(), r"layer 2 of lowerdir, /b/c\d,e");
        assert_eq!(overlay.data[1].to_string(), "layer 5 of lowerdir, /g:h");
    }

    #[test]
    fn layers_that_are_named_one_by_one_are_taken_as_they_are_written() {
        let words =
            [r"lowerdir=/x", "lowerdir=/y", r"lowerdir+=/a:b\c", r"datadir+=d:e", r"upperdir=u\:p", "workdir=w"];
        let overlay = plan(&words).unwrap();
        assert_eq!(paths(&overlay.lower), ["/y", r"/a:b\c"]);
        assert_eq!(paths(&overlay.data), ["/b/d:e"]);
        assert_eq!(overlay.upper.unwrap().path, Path::new("/b/u:p"));
        assert_eq!(overlay.work.unwrap().to_string(), "workdir, /b/w");
    }

    #[test]
    fn only_what_names_a_layer_is_taken_from_the_parameters() {
        let words: Vec<String> =
            ["lowerdir=/a", "metacopy=on", "userxattr", "upperdir=u", "workdir=w"].map(str::to_owned).into();
        let mut parameters = words.iter().map(|word| Parameter::new(word)).collect::<Result<_>>().unwrap();
        Overlay::plan(None, &words, &mut parameters, Path::new("/"), "").unwrap();
        assert_eq!(parameters, ["metacopy=on", "userxattr"].map(|word| Parameter::new(word).unwrap()));
    }

    /// Makes an overlay of so many layers as an older kernel would, and lists it.
    fn as_linux(major: u32, minor: u32, layers: usize, data: bool) -> Result<String, String> {
        let scratch =
            std::env::temp_dir().join(format!("corten-overlay-{}-{major}.{minor}-{layers}", std::process::id()));
        let names: Vec<_> = (0..layers).map(|number| scratch.join(format!("a:b,{number}"))).collect();
        for (number, name) in names.iter().enumerate() {
            std::fs::create_dir_all(name).unwrap();
            std::fs::write(name.join(number.to_string()), "").unwrap();
        }
        let mut words: Vec<String> = names.iter().map(|name| format!("lowerdir+={}", name.display())).collect();
        if data {
            let last = words.len() - 1;
            words[last] = words[last].replace("lowerdir+", "datadir+");
        }
        for name in ["upper", "work", "place"] {
            std::fs::create_dir_all(scratch.join(name)).unwrap();
        }
        words.extend(["upper", "work"].map(|name| format!("{name}dir={}", scratch.join(name).display())));
        let home = std::env::current_dir().unwrap();
        let listed = apart(
            CloneFlags::CLONE_NEWNS,
            None,
            || Ok(()),
            |()| {
                linux::play(major, minor);
                crate::sys::mount::change_all(crate::sys::mount::Change::propagation(
                    crate::sys::mount::Propagation::Private,
                ))
                .unwrap();
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let tree = plan(&words)
                    .and_then(|overlay| overlay.mount(&[], Attr::empty()))
                    .map_err(|error| error.to_string())?;
                assert_eq!(std::env::current_dir().unwrap(), home);
                let place = open(&scratch.join("place"), OFlag::O_PATH, Mode::empty()).unwrap();
                attach(&tree, &place).map_err(|errno| errno.to_string())?;
                std::fs::write(scratch.join("place/new"), "").map_err(|error| error.to_string())?;
                Ok(std::fs::read_dir(scratch.join("place")).unwrap().count().to_string())
            },
        );
        assert!(scratch.join("upper/new").exists() || listed.is_err());
        std::fs::remove_dir_all(&scratch).unwrap();
        listed
    }

    #[test]
    fn older_kernels_take_the_same_layers_by_their_names() {
        if !is_root() {
            return;
        }
        for (major, minor) in [(5, 14), (6, 8), (6, 18)] {
            assert_eq!(as_linux(major, minor, 3, false), Ok("4".to_owned()), "{major}.{minor}");
            assert_eq!(as_linux(major, minor, 3, true), Ok("3".to_owned()), "{major}.{minor}, data");
            assert_eq!(as_linux(major, minor, 60, false), Ok("61".to_owned()), "{major}.{minor}");
        }
        let error = as_linux(5, 14, 120, false).unwrap_err();
        assert!(
            error.contains("120 layers are too many: before Linux 6.8 the kernel takes a list of 255 bytes"),
            "{error}"
        );
        assert_eq!(as_linux(6, 8, 120, false), Ok("121".to_owned()));
        let error = as_linux(6, 8, 501, false).unwrap_err();
        assert!(error.contains("more than 500 layers need Linux 6.15"), "{error}");
    }
}
