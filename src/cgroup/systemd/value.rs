//! Values of D-Bus and how they look on the wire (D-Bus specification, "Type System" and "Marshaling"), little-endian.
//!
//! Of all types only those are here that properties of units have; dictionaries and nested variants are not among them.

use std::borrow::Cow;

/// A value with its type.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Byte(u8),
    Bool(bool),
    Int16(i16),
    Uint16(u16),
    Int32(i32),
    Uint32(u32),
    Int64(i64),
    Uint64(u64),
    Double(f64),
    Text(Cow<'static, str>),
    Path(String),
    Signature(String),
    /// The elements' type, which an empty array has, too.
    Array(Cow<'static, str>, Vec<Value>),
    Struct(Vec<Value>),
}

impl Value {
    pub(super) fn text(text: impl Into<Cow<'static, str>>) -> Value {
        Value::Text(text.into())
    }

    /// Appends the value's signature.
    pub(super) fn sign(&self, out: &mut String) {
        let letter = match self {
            Value::Byte(_) => 'y',
            Value::Bool(_) => 'b',
            Value::Int16(_) => 'n',
            Value::Uint16(_) => 'q',
            Value::Int32(_) => 'i',
            Value::Uint32(_) => 'u',
            Value::Int64(_) => 'x',
            Value::Uint64(_) => 't',
            Value::Double(_) => 'd',
            Value::Text(_) => 's',
            Value::Path(_) => 'o',
            Value::Signature(_) => 'g',
            Value::Array(element, _) => {
                out.push('a');
                return out.push_str(element);
            }
            Value::Struct(fields) => {
                out.push('(');
                fields.iter().for_each(|field| field.sign(out));
                ')'
            }
        };
        out.push(letter);
    }

    pub(super) fn signature(&self) -> String {
        let mut signature = String::new();
        self.sign(&mut signature);
        signature
    }
}

/// On what the first byte of a type is aligned.
fn alignment(letter: u8) -> usize {
    match letter {
        b'n' | b'q' => 2,
        b'b' | b'i' | b'u' | b's' | b'o' | b'a' => 4,
        b'x' | b't' | b'd' | b'(' => 8,
        _ => 1,
    }
}

/// A message, or a part of one, being written.
#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    pub(super) fn put<const SIZE: usize>(&mut self, bytes: [u8; SIZE]) {
        self.align(SIZE);
        self.0.extend_from_slice(&bytes);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.put((text.len() as u32).to_le_bytes());
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    pub(super) fn signature(&mut self, signature: &str) {
        self.0.push(signature.len() as u8);
        self.0.extend_from_slice(signature.as_bytes());
        self.0.push(0);
    }

    /// An array, whose length is known when its elements are written; the padding before the first doesn't count.
    pub(super) fn array(&mut self, element: u8, fill: impl FnOnce(&mut Writer)) {
        self.put([0; 4]);
        let length = self.0.len() - 4;
        self.align(alignment(element));
        let start = self.0.len();
        fill(self);
        let bytes = (self.0.len() - start) as u32;
        self.0[length..length + 4].copy_from_slice(&bytes.to_le_bytes());
    }

    pub(super) fn value(&mut self, value: &Value) {
        match value {
            Value::Byte(number) => self.0.push(*number),
            Value::Bool(truth) => self.put(u32::from(*truth).to_le_bytes()),
            Value::Int16(number) => self.put(number.to_le_bytes()),
            Value::Uint16(number) => self.put(number.to_le_bytes()),
            Value::Int32(number) => self.put(number.to_le_bytes()),
            Value::Uint32(number) => self.put(number.to_le_bytes()),
            Value::Int64(number) => self.put(number.to_le_bytes()),
            Value::Uint64(number) => self.put(number.to_le_bytes()),
            Value::Double(number) => self.put(number.to_le_bytes()),
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
        }
    }

    pub(super) fn variant(&mut self, value: &Value) {
        self.signature(&value.signature());
        self.value(value);
    }
}

/// A received message, or a part of one. `None` from any of its methods: it is not what it should be.
pub(super) struct Reader<'bytes> {
    bytes: &'bytes [u8],
    at: usize,
}

impl<'bytes> Reader<'bytes> {
    /// `bytes` starts where alignment is counted from.
    pub(super) fn new(bytes: &'bytes [u8]) -> Reader<'bytes> {
        Reader { bytes, at: 0 }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub(super) fn skip(&mut self, count: usize) -> Option<&'bytes [u8]> {
        let end = self.at.checked_add(count)?;
        let skipped = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(skipped)
    }

    pub(super) fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.skip(1).map(|one| one[0])
    }

    pub(super) fn word(&mut self) -> Option<u32> {
        self.align(4);
        self.skip(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    pub(super) fn text(&mut self) -> Option<&'bytes str> {
        let length = self.word()?;
        self.text_of(length as usize)
    }

    pub(super) fn signature(&mut self) -> Option<&'bytes str> {
        let length = self.byte()?;
        self.text_of(length.into())
    }

    fn text_of(&mut self, length: usize) -> Option<&'bytes str> {
        let text = std::str::from_utf8(self.skip(length)?).ok()?;
        (self.byte()? == 0).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: Value) -> Vec<u8> {
        let mut out = Writer::default();
        out.value(&value);
        out.0
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
        let mut out = Writer(vec![9]);
        out.variant(&Value::Uint64(1));
        assert_eq!(out.0, *b"\x09\x01t\0\0\0\0\0\x01\0\0\0\0\0\0\0");
    }

    #[test]
    fn signatures_are_those_of_the_types() {
        let rate = Value::Struct(vec![Value::text("/dev/x"), Value::Uint64(1)]);
        assert_eq!(Value::Array("(st)".into(), vec![rate]).signature(), "a(st)");
        assert_eq!(Value::Struct(vec![Value::Double(1.0), Value::Path("/".into())]).signature(), "(do)");
    }

    #[test]
    fn what_is_cut_off_is_noticed() {
        let text = b"\x03\0\0\0foo\0";
        assert_eq!(Reader::new(text).text(), Some("foo"));
        for length in 0..text.len() {
            assert_eq!(Reader::new(&text[..length]).text(), None);
        }
        assert_eq!(Reader::new(b"\xff\xff\xff\xfffoo\0").text(), None);
        assert_eq!(Reader::new(b"\x03\0\0\0foox").text(), None, "no end");
        assert_eq!(Reader::new(b"\x01\0\0\0\xff\0").text(), None, "not UTF-8");
    }
}
