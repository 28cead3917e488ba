//! Propagation (mount_namespaces(7)): of the container's root, and of binds, which are copies of the host's mounts.

use super::request::OpenIn;
use crate::error::{Error, Result};
use crate::sys::mount::{Change, Propagation};

/// A propagation to give to one mount, or to every mount of its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SetPropagation {
    pub(super) kind: Propagation,
    pub(super) recursive: bool,
}

impl SetPropagation {
    /// For one mount.
    pub(super) const fn of_mount(kind: Propagation) -> SetPropagation {
        SetPropagation { kind, recursive: false }
    }

    /// For all mounts of a tree.
    pub(super) const fn of_tree(kind: Propagation) -> SetPropagation {
        SetPropagation { kind, recursive: true }
    }

    /// For mount_setattr(2).
    pub(super) const fn change(self) -> Change {
        Change::propagation(self.kind)
    }
}

/// Words of `linux.rootfsPropagation`.
const WORDS: &[(&str, SetPropagation)] = &[
    ("shared", SetPropagation::of_mount(Propagation::Shared)),
    ("rshared", SetPropagation::of_tree(Propagation::Shared)),
    ("slave", SetPropagation::of_mount(Propagation::Slave)),
    ("rslave", SetPropagation::of_tree(Propagation::Slave)),
    ("private", SetPropagation::of_mount(Propagation::Private)),
    ("rprivate", SetPropagation::of_tree(Propagation::Private)),
    ("unbindable", SetPropagation::of_mount(Propagation::Unbindable)),
    ("runbindable", SetPropagation::of_tree(Propagation::Unbindable)),
];

/// What `/` gets before the mounts, and what the container's root gets after the pivot. Shared and unbindable roots
/// cannot be pivoted to, so they come last; and `/` itself never sends to the host.
pub(super) fn of_root(word: &str) -> Result<(Propagation, Option<SetPropagation>)> {
    if word.is_empty() {
        return Ok((Propagation::Slave, None));
    }
    let Some(&(_, asked)) = WORDS.iter().find(|(known, ..)| *known == word) else {
        return Err(Error::new(format!("{word} is no propagation")));
    };
    Ok(match asked.kind {
        Propagation::Slave => (Propagation::Slave, None),
        Propagation::Private => (Propagation::Private, None),
        Propagation::Shared => (Propagation::Slave, Some(asked)),
        _ => (Propagation::Private, Some(asked)),
    })
}

/// The propagation to set on a bind with these words. One without a word follows `/`, whose propagation is `root`: it
/// receives from the host or not, and never sends. That needs no call when the source is cloned after `/` was changed,
/// which is in the container process.
pub(super) fn of_bind(
    words: &[SetPropagation],
    recursive: bool,
    opened: OpenIn,
    root: Propagation,
) -> Vec<SetPropagation> {
    // A word for the whole tree, or for the one mount that there is, replaces what the host had. Shared is special:
    // a tree that is to stay a peer of the host's must not be cut off first, and to cut off only what is mounted
    // below there is no call.
    let replaced = words.first().is_some_and(|word| word.recursive || !recursive || word.kind == Propagation::Shared);
    let follows = !replaced && opened == OpenIn::Host;
    let mut list = if follows { vec![SetPropagation::of_tree(root)] } else { Vec::new() };
    list.extend(words.iter().filter(|word| replaced || word.kind != root));
    list
}

/// Whether a bind can only get this propagation if its source is cloned before `/` is changed: what a private root has cut
/// off can neither be a peer nor a slave of the host's any more.
pub(super) fn needs_host(word: SetPropagation, root: Propagation) -> bool {
    word.kind == Propagation::Shared || (word.kind == Propagation::Slave && root == Propagation::Private)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With one word at most, and a root that is a slave of the host's.
    fn bind(word: Option<SetPropagation>, opened: OpenIn, recursive: bool) -> Vec<SetPropagation> {
        of_bind(word.as_slice(), recursive, opened, Propagation::Slave)
    }

    #[test]
    fn a_bind_without_a_word_receives_from_the_host_and_never_sends() {
        assert_eq!(bind(None, OpenIn::Host, true), [SetPropagation::of_tree(Propagation::Slave)]);
        assert_eq!(bind(None, OpenIn::Child, true), []);
    }

    #[test]
    fn a_shared_bind_stays_in_the_peer_group_of_its_source() {
        let (one, all) = (SetPropagation::of_mount(Propagation::Shared), SetPropagation::of_tree(Propagation::Shared));
        assert_eq!(bind(Some(all), OpenIn::Host, true), [all]);
        assert_eq!(bind(Some(one), OpenIn::Host, false), [one]);
        assert_eq!(bind(Some(one), OpenIn::Host, true), [one]);
    }

    #[test]
    fn a_word_for_one_mount_leaves_the_rest_of_the_tree_as_without_a_word() {
        let private = SetPropagation::of_mount(Propagation::Private);
        let slave = SetPropagation::of_tree(Propagation::Slave);
        assert_eq!(bind(Some(private), OpenIn::Host, true), [slave, private]);
        assert_eq!(bind(Some(SetPropagation::of_mount(Propagation::Slave)), OpenIn::Host, true), [slave]);
        assert_eq!(bind(Some(private), OpenIn::Child, true), [private]);
    }
}
