//! How values look on the wire (D-Bus specification, "Marshaling"): writing.

use super::byte_order::ByteOrder;
use super::signature::alignment;
use super::value::Value;

/// A message, or a part of one, being written.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    order: ByteOrder,
}

impl Writer {
    /// Goes on after `bytes`, from whose beginning alignment is counted.
    pub(super) fn after(bytes: Vec<u8>, order: ByteOrder) -> Writer {
        Writer { bytes, order }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Pads to a multiple of a size; before the fields of a struct it is 8.
    pub fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    pub(super) fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn number<const SIZE: usize>(&mut self, little: [u8; SIZE]) {
        self.align(SIZE);
        self.raw(&self.order.arrange(little));
    }

    pub(super) fn word(&mut self, number: u32) {
        self.number(number.to_le_bytes());
    }

    /// A string, or an object path.
    pub fn text(&mut self, text: &str) {
        self.word(text.len() as u32);
        self.raw(text.as_bytes());
        self.byte(0);
    }

    fn signature(&mut self, signature: &str) {
        self.byte(signature.len() as u8);
        self.raw(signature.as_bytes());
        self.byte(0);
    }

    /// An array, whose length is known when its elements are written; the padding before the first doesn't count.
    /// `element` is the first letter of their type.
    pub fn array(&mut self, element: u8, fill: impl FnOnce(&mut Writer)) {
        self.word(0);
        let length = self.bytes.len() - 4;
        self.align(alignment(element));
        let start = self.bytes.len();
        fill(self);
        let size = (self.bytes.len() - start) as u32;
        self.bytes[length..length + 4].copy_from_slice(&self.order.arrange(size.to_le_bytes()));
    }

    /// A value of any type, without the text of it.
    pub fn value(&mut self, value: &Value) {
        match value {
            Value::Byte(number) => self.byte(*number),
            Value::Bool(truth) => self.word((*truth).into()),
            Value::Int16(number) => self.number(number.to_le_bytes()),
            Value::Uint16(number) => self.number(number.to_le_bytes()),
            Value::Int32(number) => self.number(number.to_le_bytes()),
            Value::Uint32(number) | Value::UnixFd(number) => self.word(*number),
            Value::Int64(number) => self.number(number.to_le_bytes()),
            Value::Uint64(number) => self.number(number.to_le_bytes()),
            Value::Double(number) => self.number(number.to_le_bytes()),
            Value::Text(text) => self.text(text),
            Value::Path(path) => self.text(path),
            Value::Signature(signature) => self.signature(signature),
            Value::Array(element, list) => {
                let first = element.bytes().next().unwrap_or(b'y');
                self.array(first, |out| list.iter().for_each(|value| out.value(value)));
            }
            Value::Struct(fields) => {
                self.align(8);
                fields.iter().for_each(|field| self.value(field));
            }
            Value::Entry(pair) => {
                self.align(8);
                self.value(&pair.0);
                self.value(&pair.1);
            }
            Value::Variant(value) => self.variant(value),
        }
    }

    /// A value with its signature before it.
    pub fn variant(&mut self, value: &Value) {
        self.signature(&value.signature());
        self.value(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: Value) -> Vec<u8> {
        let mut out = Writer::default();
        out.value(&value);
        out.into_bytes()
    }

    #[test]
    fn values_are_written_as_the_specification_shows_them() {
        assert_eq!(written(Value::Byte(5)), [5]);
        assert_eq!(written(Value::Bool(true)), [1, 0, 0, 0]);
        assert_eq!(written(Value::Int16(-2)), [0xfe, 0xff]);
        assert_eq!(written(Value::text("foo")), *b"\x03\0\0\0foo\0");
        assert_eq!(written(Value::Signature("a(ss)".into())), *b"\x05a(ss)\0");
        // The example of the specification: an array of one 64-bit number has padding that its length doesn't count.
        let array = Value::Array("x".into(), vec![Value::Int64(5)]);
        assert_eq!(written(array), [8, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(written(Value::Array("t".into(), vec![])), [0; 8]);
        assert_eq!(written(Value::Array("s".into(), vec![])), [0; 4]);
        let pairs = Value::Array("(ss)".into(), vec![Value::Struct(vec![Value::text("a"), Value::text("rw")])]);
        assert_eq!(written(pairs), *b"\x0f\0\0\0\0\0\0\0\x01\0\0\0a\0\0\0\x02\0\0\0rw\0");
    }

    #[test]
    fn a_variant_carries_its_signature_before_it() {
        let mut out = Writer::after(vec![9], ByteOrder::Little);
        out.variant(&Value::Uint64(1));
        assert_eq!(out.into_bytes(), *b"\x09\x01t\0\0\0\0\0\x01\0\0\0\0\0\0\0");
    }
}
