//! A client of D-Bus (D-Bus specification): values, messages, and the line to whoever answers.
//!
//! What goes out is little-endian. What comes in may have either byte order: whoever sends a message chooses, and sd-bus
//! takes that of its machine.
//!
//! Who may use whom, the lowest first: `signature`, `value` → `writer`, `reader` → `message`, `gvariant` → `bus`.

mod bus;
pub mod gvariant;
mod message;
#[cfg(test)]
mod mutation_tests;
mod reader;
mod signature;
mod value;
mod writer;

pub use bus::{Address, Connection, Refusal};
pub use message::{Kind, Message, Object};
pub use value::Value;
pub use writer::Writer;

/// The order of the bytes in a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ByteOrder {
    #[default]
    Little,
    Big,
}

impl ByteOrder {
    /// Of the letter with which a message begins.
    fn of(letter: u8) -> Option<ByteOrder> {
        match letter {
            b'l' => Some(ByteOrder::Little),
            b'B' => Some(ByteOrder::Big),
            _ => None,
        }
    }

    /// From little-endian to this order, and back.
    fn arrange<const SIZE: usize>(self, mut bytes: [u8; SIZE]) -> [u8; SIZE] {
        if self == ByteOrder::Big {
            bytes.reverse();
        }
        bytes
    }
}
