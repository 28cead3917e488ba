//! Little-endian and big-endian.

/// The order of the bytes in a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ByteOrder {
    #[default]
    Little,
    Big,
}

impl ByteOrder {
    /// Of the letter with which a message begins.
    pub(super) fn of(letter: u8) -> Option<ByteOrder> {
        match letter {
            b'l' => Some(ByteOrder::Little),
            b'B' => Some(ByteOrder::Big),
            _ => None,
        }
    }

    /// From little-endian to this order, and back.
    pub(super) fn arrange<const SIZE: usize>(self, mut bytes: [u8; SIZE]) -> [u8; SIZE] {
        if self == ByteOrder::Big {
            bytes.reverse();
        }
        bytes
    }
}
