//! How a bind is tied to the mounts that it is a copy of.

use crate::sys::mount::{Propagation, spread};

/// The propagation to set on a bind with these words. One without a word follows `/`: it receives from the host or not,
/// and never sends. That needs no call when the source is cloned after `/` was changed, which is when it is not `early`.
pub(super) fn spreading(
    words: &[(Propagation, bool)],
    recursive: bool,
    early: bool,
    propagation: Propagation,
) -> Vec<(Propagation, bool)> {
    // A word for the whole tree, or for the one mount that there is, replaces what the host had. Shared is special:
    // a tree that is to stay a peer of the host's must not be cut off first, and to cut off only what is mounted
    // below there is no call.
    let replaced = words.first().is_some_and(|&(kind, all)| all || !recursive || kind == spread::SHARED);
    let mut list = if replaced || !early { Vec::new() } else { vec![(propagation, true)] };
    list.extend(words.iter().filter(|&&(kind, _)| replaced || kind != propagation));
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With one word at most, and a root that is a slave of the host's.
    fn bind(word: Option<(Propagation, bool)>, early: bool, recursive: bool) -> Vec<(Propagation, bool)> {
        spreading(word.as_slice(), recursive, early, spread::SLAVE)
    }

    #[test]
    fn a_bind_without_a_word_receives_from_the_host_and_never_sends() {
        assert_eq!(bind(None, true, true), [(spread::SLAVE, true)]);
        assert_eq!(bind(None, false, true), []);
    }

    #[test]
    fn a_shared_bind_stays_in_the_peer_group_of_its_source() {
        assert_eq!(bind(Some((spread::SHARED, true)), true, true), [(spread::SHARED, true)]);
        assert_eq!(bind(Some((spread::SHARED, false)), true, false), [(spread::SHARED, false)]);
        assert_eq!(bind(Some((spread::SHARED, false)), true, true), [(spread::SHARED, false)]);
    }

    #[test]
    fn a_word_for_one_mount_leaves_the_rest_of_the_tree_as_without_a_word() {
        let private = (spread::PRIVATE, false);
        assert_eq!(bind(Some(private), true, true), [(spread::SLAVE, true), private]);
        assert_eq!(bind(Some((spread::SLAVE, false)), true, true), [(spread::SLAVE, true)]);
        assert_eq!(bind(Some(private), false, true), [private]);
    }
}
