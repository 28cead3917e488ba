//! What the C library does and no system call: regular expressions, numbers, and the time zone of the host.

pub mod clock;
pub mod number;
pub mod regex;
