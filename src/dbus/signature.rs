//! Signatures: the types of values as text (D-Bus specification, "Type System").

/// How deep arrays, and how deep structs, may lie in each other, "Valid Signatures".
const DEEPEST: u8 = 32;

/// The letters of types that have no others in them, but for the variant.
const BASIC: &[u8] = b"ybnqiuxtdsogh";

/// How long the first type of a signature is; `None` where it begins with none that is whole.
pub(super) fn first_type(signature: &str) -> Option<usize> {
    measure(signature.as_bytes(), 0, 0)
}

/// Whether a text is one type.
pub(super) fn is_type(text: &str) -> bool {
    first_type(text) == Some(text.len())
}

fn measure(types: &[u8], arrays: u8, structs: u8) -> Option<usize> {
    if arrays > DEEPEST || structs > DEEPEST {
        return None;
    }
    match types.first()? {
        b'a' if types.get(1) == Some(&b'{') => Some(1 + entry(&types[1..], arrays + 1, structs)?),
        b'a' => Some(1 + measure(&types[1..], arrays + 1, structs)?),
        b'(' => {
            let mut length = 1;
            while *types.get(length)? != b')' {
                length += measure(&types[length..], arrays, structs + 1)?;
            }
            (length > 1).then_some(length + 1)
        }
        b'v' => Some(1),
        letter => BASIC.contains(letter).then_some(1),
    }
}

/// An entry of a dictionary, which is in an array only: its key is of a basic type.
fn entry(types: &[u8], arrays: u8, structs: u8) -> Option<usize> {
    BASIC.contains(types.get(1)?).then_some(())?;
    let length = 2 + measure(types.get(2..)?, arrays, structs + 1)?;
    (types.get(length) == Some(&b'}')).then_some(length + 1)
}

/// On what the first byte of a type is aligned.
pub(super) fn alignment(letter: u8) -> usize {
    match letter {
        b'n' | b'q' => 2,
        b'b' | b'i' | b'u' | b's' | b'o' | b'a' | b'h' => 4,
        b'x' | b't' | b'd' | b'(' | b'{' => 8,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_type_is_measured_and_what_is_none_refused() {
        for (signature, length) in
            [("s", 1), ("us", 1), ("aas", 3), ("(st)u", 4), ("a{sv}", 5), ("a{s(iav)}x", 9), ("v", 1), ("a(sa(sv))", 9)]
        {
            assert_eq!(first_type(signature), Some(length), "{signature}");
        }
        for wrong in ["", "a", "(", "()", "(s", "z", "{sv}", "a{vs}", "a{s}", "a{sss}", "a{sv", "a{}", "a{", ")", "ä"]
        {
            assert_eq!(first_type(wrong), None, "{wrong}");
        }
        assert!(is_type("a(st)") && !is_type("ss"));
    }

    #[test]
    fn types_are_nested_thirty_two_deep_at_most() {
        let arrays = |depth: usize| "a".repeat(depth) + "y";
        let structs = |depth: usize| "(".repeat(depth) + "y" + &")".repeat(depth);
        assert!(is_type(&arrays(32)) && is_type(&structs(32)));
        assert!(!is_type(&arrays(33)) && !is_type(&structs(33)));
        assert!(!is_type(&arrays(100_000)) && !is_type(&structs(100_000)));
    }
}
