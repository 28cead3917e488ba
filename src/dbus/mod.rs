//! A client of D-Bus (D-Bus specification): values, messages, and the line to whoever answers.
//!
//! What goes out is little-endian. What comes in may have either byte order: whoever sends a message chooses, and sd-bus
//! takes that of its machine.
//!
//! Which file may use which others stands in `tests/architecture.rs`.

mod bus;
mod byte_order;
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
