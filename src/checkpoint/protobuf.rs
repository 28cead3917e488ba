//! The wire format of protocol buffers, as far as CRIU's messages need it: varints and length-delimited fields.
//!
//! By hand: the five messages of criu's rpc.proto have no other kind of field, and every number of a field is seen in
//! `rpc.rs` beside the name that it has there.

use std::ops::Range;

use crate::error::{Error, Result, ensure};

/// Wire types ("Message Structure" in the encoding's description).
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH_DELIMITED: u64 = 2;
const FIXED32: u64 = 5;

/// A message in the making.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Encoder(Vec<u8>);

impl Encoder {
    /// A number that cannot be negative: `uint32`, an enumeration.
    pub(super) fn number(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field) << 3 | VARINT);
        self.varint(value);
    }

    /// An `int32`: a negative one takes ten bytes, as a number of 64 bits.
    pub(super) fn signed(&mut self, field: u32, value: i32) {
        self.number(field, i64::from(value) as u64);
    }

    /// A `bool`, written where it is true.
    pub(super) fn flag(&mut self, field: u32, value: bool) {
        if value {
            self.number(field, 1);
        }
    }

    /// A `string`, `bytes`, or a message.
    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) {
        self.varint(u64::from(field) << 3 | LENGTH_DELIMITED);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    /// A message within this one.
    pub(super) fn message(&mut self, field: u32, fill: impl FnOnce(&mut Encoder)) {
        let mut inner = Encoder::default();
        fill(&mut inner);
        self.bytes(field, &inner.0);
    }

    /// What is sent.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// A varint.
    Number(u64),
    /// A string, bytes or a message.
    Bytes(&'a [u8]),
}

impl Value<'_> {
    /// As `int32`.
    pub(super) fn signed(self) -> Option<i32> {
        match self {
            Value::Number(number) => Some(number as i32),
            Value::Bytes(_) => None,
        }
    }

    /// As `bool`.
    pub(super) fn flag(self) -> Option<bool> {
        match self {
            Value::Number(number) => Some(number != 0),
            Value::Bytes(_) => None,
        }
    }

    /// As `string`; what is no UTF-8 is replaced.
    pub(super) fn text(self) -> Option<String> {
        match self {
            Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Value::Number(_) => None,
        }
    }
}

/// The fields of a message with their numbers, in their order. Those of fixed length are left out: rpc.proto has none.
pub(super) fn fields(message: &[u8]) -> Result<Vec<(u32, Value<'_>)>> {
    let mut reader = Reader { message, at: 0 };
    let mut fields = Vec::new();
    while reader.at < message.len() {
        let key = reader.varint()?;
        let field = u32::try_from(key >> 3).map_err(|_| malformed())?;
        match key & 7 {
            VARINT => fields.push((field, Value::Number(reader.varint()?))),
            LENGTH_DELIMITED => {
                let length = reader.varint()?;
                let range = reader.skip(length)?;
                fields.push((field, Value::Bytes(&message[range])));
            }
            FIXED64 => _ = reader.skip(8)?,
            FIXED32 => _ = reader.skip(4)?,
            _ => return Err(malformed()),
        }
    }
    Ok(fields)
}

fn malformed() -> Error {
    Error::new("a message of criu is malformed")
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.message.get(self.at).ok_or_else(malformed)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(malformed())
    }

    fn skip(&mut self, length: u64) -> Result<Range<usize>> {
        ensure!(length <= (self.message.len() - self.at) as u64, "a message of criu is cut short");
        let start = self.at;
        self.at += length as usize;
        Ok(start..self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_text_and_messages_are_written_as_the_encoding_is_described() {
        let mut message = Encoder::default();
        // The two examples of the encoding's description: field 1 is 150, field 2 is "testing".
        message.number(1, 150);
        message.bytes(2, b"testing");
        message.message(3, |inner| inner.number(1, 150));
        message.flag(4, false);
        message.flag(5, true);
        let expected = b"\x08\x96\x01\x12\x07testing\x1a\x03\x08\x96\x01\x28\x01";
        assert_eq!(message.into_bytes(), expected);
    }

    #[test]
    fn a_negative_number_takes_ten_bytes_and_comes_back() {
        let mut message = Encoder::default();
        message.signed(1, -1);
        let bytes = message.into_bytes();
        assert_eq!(bytes, b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
        assert_eq!(fields(&bytes).unwrap()[0].1.signed(), Some(-1));
    }

    #[test]
    fn fields_are_read_in_their_order_and_unknown_types_of_fixed_length_are_skipped() {
        let message = b"\x08\x01\x11\0\0\0\0\0\0\0\0\x1d\0\0\0\0\x22\x02hi";
        assert_eq!(fields(message).unwrap(), [(1, Value::Number(1)), (4, Value::Bytes(b"hi"))]);
    }

    #[test]
    fn what_is_cut_short_or_malformed_is_refused() {
        for message in
            [&b"\x08"[..], b"\x12\x05ab", b"\x0b", b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", &[0xff; 11]]
        {
            assert!(fields(message).is_err(), "{message:?}");
        }
    }
}
