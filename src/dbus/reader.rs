//! How values look on the wire (D-Bus specification, "Marshaling"): reading.
//!
//! Whoever sent the bytes is not trusted. A value takes at least one byte, what is claimed to follow is looked for before
//! it is copied, and depth and number of values have their bounds.

use super::byte_order::ByteOrder;
use super::signature::{alignment, first_type, is_type};
use super::value::Value;

/// How deep containers may lie in each other, variants included ("Message Protocol", "Valid Signatures").
const DEEPEST: u8 = 64;

/// How many values one reader makes. A byte on the wire may become a [`Value`] of some fifty.
pub(super) const MOST_VALUES: u32 = 1 << 16;

/// A received message, or a part of one. `None` from any of its methods: it is not what it should be.
pub(super) struct Reader<'bytes> {
    bytes: &'bytes [u8],
    at: usize,
    order: ByteOrder,
    depth: u8,
    left: u32,
}

impl<'bytes> Reader<'bytes> {
    /// `bytes` starts where alignment is counted from.
    pub(super) fn new(bytes: &'bytes [u8], order: ByteOrder) -> Reader<'bytes> {
        Reader { bytes, at: 0, order, depth: 0, left: MOST_VALUES }
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

    /// A number's bytes, as they are in little-endian order.
    fn number<const SIZE: usize>(&mut self) -> Option<[u8; SIZE]> {
        self.align(SIZE);
        let bytes = self.skip(SIZE)?.try_into().ok()?;
        Some(self.order.arrange(bytes))
    }

    pub(super) fn word(&mut self) -> Option<u32> {
        self.number().map(u32::from_le_bytes)
    }

    pub(super) fn text(&mut self) -> Option<&'bytes str> {
        let length = self.word()?;
        self.text_of(length as usize)
    }

    fn signature(&mut self) -> Option<&'bytes str> {
        let length = self.byte()?;
        self.text_of(length.into())
    }

    fn text_of(&mut self, length: usize) -> Option<&'bytes str> {
        let text = std::str::from_utf8(self.skip(length)?).ok()?;
        (self.byte()? == 0).then_some(text)
    }

    /// Values of these types, one after the other.
    pub(super) fn values(&mut self, mut types: &str) -> Option<Vec<Value>> {
        let mut values = Vec::new();
        while !types.is_empty() {
            let (first, rest) = types.split_at(first_type(types)?);
            values.push(self.value(first)?);
            types = rest;
        }
        Some(values)
    }

    /// A value with its signature before it.
    pub(super) fn variant(&mut self) -> Option<Value> {
        let of = self.signature().filter(|of| is_type(of))?;
        self.nested(|reader| reader.value(of))
    }

    /// A value of one type.
    fn value(&mut self, of: &str) -> Option<Value> {
        self.left = self.left.checked_sub(1)?;
        Some(match of.as_bytes() {
            b"y" => Value::Byte(self.byte()?),
            b"b" => Value::Bool(match self.word()? {
                0 => false,
                1 => true,
                _ => return None,
            }),
            b"n" => Value::Int16(i16::from_le_bytes(self.number()?)),
            b"q" => Value::Uint16(u16::from_le_bytes(self.number()?)),
            b"i" => Value::Int32(i32::from_le_bytes(self.number()?)),
            b"u" => Value::Uint32(self.word()?),
            b"x" => Value::Int64(i64::from_le_bytes(self.number()?)),
            b"t" => Value::Uint64(u64::from_le_bytes(self.number()?)),
            b"d" => Value::Double(f64::from_le_bytes(self.number()?)),
            b"s" => Value::text(self.text()?.to_owned()),
            b"o" => Value::Path(self.text()?.to_owned()),
            b"g" => Value::Signature(self.signature()?.to_owned()),
            b"h" => Value::UnixFd(self.word()?),
            b"v" => Value::Variant(Box::new(self.variant()?)),
            [b'a', ..] => {
                let element = &of[1..];
                let list = self.nested(|reader| reader.array(element))?;
                Value::Array(element.to_owned().into(), list)
            }
            [b'(', .., b')'] => {
                self.align(8);
                Value::Struct(self.nested(|reader| reader.values(&of[1..of.len() - 1]))?)
            }
            [b'{', .., b'}'] => {
                self.align(8);
                let pair = self.nested(|reader| reader.values(&of[1..of.len() - 1]))?;
                let [key, value] = pair.try_into().ok()?;
                Value::Entry(Box::new((key, value)))
            }
            _ => return None,
        })
    }

    fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.depth = self.depth.checked_add(1).filter(|depth| *depth <= DEEPEST)?;
        let outcome = inner(self)?;
        self.depth -= 1;
        Some(outcome)
    }

    /// The elements of an array, which end where its length says.
    fn array(&mut self, element: &str) -> Option<Vec<Value>> {
        let length = self.word()? as usize;
        self.align(alignment(*element.as_bytes().first()?));
        let (whole, end) = (self.bytes, self.at.checked_add(length)?);
        self.bytes = whole.get(..end)?;
        let mut list = Vec::new();
        while !self.is_at_end() {
            list.push(self.value(element)?);
        }
        self.bytes = whole;
        Some(list)
    }
}

#[cfg(test)]
mod tests {
    use super::super::writer::Writer;
    use super::*;

    const ORDERS: [ByteOrder; 2] = [ByteOrder::Little, ByteOrder::Big];

    fn reader(bytes: &[u8]) -> Reader<'_> {
        Reader::new(bytes, ByteOrder::Little)
    }

    fn written(value: &Value, order: ByteOrder) -> Vec<u8> {
        let mut out = Writer::after(Vec::new(), order);
        out.value(value);
        out.into_bytes()
    }

    /// One of every type, and of the containers more than one.
    fn every_type() -> Vec<Value> {
        let text = |text: &'static str| Value::text(text);
        let variant = |value: Value| Value::Variant(Box::new(value));
        let entry = |key: &'static str, value: Value| Value::Entry(Box::new((text(key), variant(value))));
        let pair = Value::Struct(vec![text("/dev/x"), Value::Uint64(7)]);
        vec![
            Value::Byte(0x81),
            Value::Bool(true),
            Value::Bool(false),
            Value::Int16(-2),
            Value::Uint16(0x1234),
            Value::Int32(i32::MIN + 1),
            Value::Uint32(0x1234_5678),
            Value::Int64(i64::MIN + 1),
            Value::Uint64(0x0123_4567_89ab_cdef),
            Value::Double(-1.5e300),
            text(""),
            text("größer"),
            Value::Path("/a/b_1".into()),
            Value::Signature("a{sv}".into()),
            Value::UnixFd(3),
            Value::Array("s".into(), vec![]),
            Value::Array("t".into(), vec![]),
            Value::Array("y".into(), vec![Value::Byte(1), Value::Byte(2)]),
            Value::Array("(st)".into(), vec![pair.clone(), pair.clone()]),
            Value::Array(
                "as".into(),
                vec![Value::Array("s".into(), vec![text("a")]), Value::Array("s".into(), vec![])],
            ),
            Value::Array("{sv}".into(), vec![entry("a", Value::Bool(true)), entry("b", pair.clone())]),
            pair.clone(),
            Value::Struct(vec![Value::Byte(1), pair, Value::Int16(5)]),
            variant(variant(Value::Uint64(1))),
        ]
    }

    #[test]
    fn every_type_is_read_as_it_was_written_in_either_order() {
        for order in ORDERS {
            for value in every_type() {
                let bytes = written(&value, order);
                let mut reader = Reader::new(&bytes, order);
                assert_eq!(reader.values(&value.signature()).as_deref(), Some(&[value][..]), "{order:?} {bytes:?}");
                assert!(reader.is_at_end());
            }
            let types: String = every_type().iter().map(Value::signature).collect();
            let mut out = Writer::after(Vec::new(), order);
            every_type().iter().for_each(|value| out.value(value));
            let bytes = out.into_bytes();
            assert_eq!(Reader::new(&bytes, order).values(&types), Some(every_type()), "{order:?}");
        }
        let letters: String = every_type().iter().map(Value::signature).collect();
        assert!("ybnqiuxtdsogha({v".chars().all(|letter| letters.contains(letter)), "a type is missing: {letters}");
    }

    #[test]
    fn the_orders_are_those_of_the_specification() {
        assert_eq!(written(&Value::Uint32(0x0102_0304), ByteOrder::Little), [4, 3, 2, 1]);
        assert_eq!(written(&Value::Uint32(0x0102_0304), ByteOrder::Big), [1, 2, 3, 4]);
        assert_eq!(Reader::new(&[0, 2], ByteOrder::Big).values("q"), Some(vec![Value::Uint16(2)]));
        assert_eq!(Reader::new(b"\0\0\0\x03foo\0", ByteOrder::Big).text(), Some("foo"));
        assert_eq!(Reader::new(b"\0\0\0\x03foo\0", ByteOrder::Little).text(), None);
    }

    #[test]
    fn what_is_cut_off_is_noticed() {
        let text = b"\x03\0\0\0foo\0";
        assert_eq!(reader(text).text(), Some("foo"));
        for length in 0..text.len() {
            assert_eq!(reader(&text[..length]).text(), None);
        }
        assert_eq!(reader(b"\xff\xff\xff\xfffoo\0").text(), None);
        assert_eq!(reader(b"\x03\0\0\0foox").text(), None, "no end");
        assert_eq!(reader(b"\x01\0\0\0\xff\0").text(), None, "not UTF-8");
        for order in ORDERS {
            for value in every_type() {
                let bytes = written(&value, order);
                for length in 0..bytes.len() {
                    assert_eq!(Reader::new(&bytes[..length], order).values(&value.signature()), None, "{value:?}");
                }
            }
        }
    }

    #[test]
    fn an_array_ends_where_its_length_says() {
        assert_eq!(reader(b"\x01\0\0\0\x01\0\0\0").values("au"), None, "an element goes beyond it");
        assert_eq!(reader(b"\xff\xff\xff\xff").values("ay"), None, "the bytes do");
        assert_eq!(reader(b"\x02\0\0\0\x01\0\0\0").values("ab"), None);
        assert_eq!(reader(b"\x02\0\0\0").values("b"), None, "neither true nor false");
    }

    #[test]
    fn depth_and_number_of_values_have_their_bounds() {
        let variants = |depth: usize| [b"\x01v\0".repeat(depth), b"\x01y\0\x07".to_vec()].concat();
        assert!(reader(&variants(DEEPEST.into()).split_off(3)).variant().is_some());
        assert_eq!(reader(&variants(DEEPEST.into())).variant(), None);
        assert_eq!(reader(&variants(1 << 20)).variant(), None);
        let bytes = |count: u32| [&count.to_le_bytes()[..], &vec![0; count as usize]].concat();
        assert!(reader(&bytes(MOST_VALUES - 1)).values("ay").is_some());
        assert_eq!(reader(&bytes(MOST_VALUES)).values("ay"), None);
    }
}
