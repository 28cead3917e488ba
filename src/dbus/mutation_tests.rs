//! That no bytes make the readers of the room panic, loop, or take memory without bound: what is well-formed is changed at
//! random, from a fixed seed.

use super::byte_order::ByteOrder;
use super::gvariant;
use super::message::{self, Message, Object};
use super::reader::{MOST_VALUES, Reader};
use super::signature;
use super::value::Value;
use super::writer::Writer;

const ROUNDS: u32 = 60_000;

/// xorshift64*, of which the same seed gives the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn one_of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    /// One to eight changes.
    fn change(&mut self, bytes: &mut Vec<u8>, likely: &[u8]) {
        for _ in 0..=self.below(8) {
            let at = self.below(bytes.len() + 1);
            match self.below(7) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, *self.one_of(likely)),
                2 if at < bytes.len() => drop(bytes.remove(at)),
                3 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                4 => {
                    let piece = bytes[at..].iter().take(self.below(40)).copied().collect::<Vec<_>>();
                    let to = self.below(bytes.len() + 1);
                    bytes.splice(to..to, piece);
                }
                5 => bytes.iter_mut().skip(at).take(4).for_each(|byte| *byte = *self.one_of(likely)),
                _ if at < bytes.len() => bytes[at] = *self.one_of(likely),
                _ => {}
            }
        }
    }
}

/// Messages in both byte orders, with arguments of every type.
fn messages() -> Vec<Vec<u8>> {
    let entry = Value::Entry(Box::new((Value::text("k"), Value::Variant(Box::new(Value::Int16(-1))))));
    let row = Value::Struct(vec![Value::text("/dev/x"), Value::Uint64(7), Value::Byte(1)]);
    let arguments = [
        Value::Uint32(7),
        Value::Path("/a/b".into()),
        Value::text("text"),
        Value::Signature("a{sv}".into()),
        Value::Array("(sty)".into(), vec![row.clone(), row]),
        Value::Array("{sv}".into(), vec![entry]),
        Value::Array("aay".into(), vec![Value::Array("ay".into(), vec![])]),
        Value::Variant(Box::new(Value::Variant(Box::new(Value::Double(0.5))))),
        Value::Bool(true),
        Value::UnixFd(0),
    ];
    let types: String = arguments.iter().map(Value::signature).collect();
    let object = Object { destination: "d.e", path: "/p", interface: "i.f" };
    let call = message::call(&object, "M", 7, true, &types, |out| arguments.iter().for_each(|value| out.value(value)));
    let of_another = |order: ByteOrder, letter: u8| {
        let mut body = Writer::after(Vec::new(), order);
        arguments.iter().for_each(|value| body.value(value));
        let body = body.into_bytes();
        let mut out = Writer::after(vec![letter, 4, 0, 1], order);
        out.word(body.len() as u32);
        out.word(1);
        out.array(b'(', |out| {
            for (code, value) in [(3, Value::text("S")), (5, Value::Uint32(2)), (8, Value::Signature(types.clone()))] {
                out.align(8);
                out.byte(code);
                out.variant(&value);
            }
        });
        out.align(8);
        out.raw(&body);
        out.into_bytes()
    };
    vec![call, of_another(ByteOrder::Little, b'l'), of_another(ByteOrder::Big, b'B')]
}

/// How many values there are in one.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(_, list) | Value::Struct(list) => list.iter().map(count).sum(),
        Value::Entry(pair) => count(&pair.0) + count(&pair.1),
        Value::Variant(inner) => count(inner),
        _ => 0,
    }
}

/// Writes values and reads what was written, in both orders; compared by the bytes, since a NaN equals nothing.
fn survives(values: &[Value]) {
    let types: String = values.iter().map(Value::signature).collect();
    for order in [ByteOrder::Little, ByteOrder::Big] {
        let written = |values: &[Value]| {
            let mut out = Writer::after(Vec::new(), order);
            values.iter().for_each(|value| out.value(value));
            out.into_bytes()
        };
        let bytes = written(values);
        let read = Reader::new(&bytes, order).values(&types).unwrap_or_else(|| panic!("{types}: {values:?}"));
        assert_eq!(written(&read), bytes);
    }
}

#[test]
fn no_bytes_make_the_reader_of_messages_panic_or_take_more_than_it_may() {
    const LIKELY: &[u8] = b"\0\x01\x02\x03\x04\x08\x10\x7f\x80\xff\xfelBvasuxg(){}yt";
    let (mut random, messages) = (Random(0x636f_7274_656e_0001), messages());
    let (mut whole, mut read) = (0, 0);
    for _ in 0..ROUNDS {
        let mut bytes = random.one_of(&messages).clone();
        random.change(&mut bytes, LIKELY);
        let mut rest = &bytes[..];
        while let Ok(Some((message, length))) = Message::parse(rest) {
            whole += 1;
            assert!(length >= 16 && length <= rest.len());
            let text = message.first_text().map(str::len).unwrap_or_default();
            assert!(text + message.member.len() <= length);
            if let Some(values) = message.arguments() {
                read += 1;
                assert!(values.iter().map(count).sum::<usize>() <= (MOST_VALUES as usize).min(length * 32));
                survives(&values);
            }
            rest = &rest[length..];
        }
    }
    // Or the changes are so wild that nothing is looked into.
    assert!(whole > ROUNDS / 20 && read > ROUNDS / 100, "{whole} {read}");
}

#[test]
fn no_bytes_make_the_reader_of_values_panic_or_take_more_than_it_may() {
    const TYPES: &[&str] = &[
        "y",
        "s",
        "as",
        "a(st)",
        "a{sv}",
        "v",
        "av",
        "aav",
        "a{s(iav)}",
        "(ybnqiuxtdsogh)",
        "aaaaaaaay",
        "a(a(a(v)))",
    ];
    let mut random = Random(0x636f_7274_656e_0002);
    let mut read = 0;
    for _ in 0..ROUNDS {
        let length = random.below(96);
        let small = random.below(2) == 0;
        let byte = |random: &mut Random| if small { random.next() as u8 & 7 } else { random.next() as u8 };
        let bytes: Vec<u8> = (0..length).map(|_| byte(&mut random)).collect();
        let order = *random.one_of(&[ByteOrder::Little, ByteOrder::Big]);
        if let Some(values) = Reader::new(&bytes, order).values(random.one_of::<&str>(TYPES)) {
            read += 1;
            assert!(values.iter().map(count).sum::<usize>() <= bytes.len() * 32);
            survives(&values);
        }
    }
    assert!(read > ROUNDS / 50, "{read}");
}

#[test]
fn no_text_makes_the_reader_of_gvariant_panic_and_what_it_takes_can_be_sent() {
    const TEXTS: &[&str] = &[
        "uint64 30000000",
        "['crio.service', 'a.service']",
        "@a(st) [('/dev/sda', 5), ('/dev/sdb', 0x10)]",
        "('a', uint32 7, true, -1.5e3)",
        r#""it's \u00e4 \U0001F600 \n""#,
        "[[byte 1], [2, 3]]",
        "objectpath '/a/b_1'",
        "signature 'a(st)'",
        "@as []",
    ];
    const LIKELY: &[u8] = b"[]()'\"\\@, -+.0x19eEuUasty{}v<>\xc3\xa4\0";
    let mut random = Random(0x636f_7274_656e_0003);
    let mut taken = 0;
    for _ in 0..ROUNDS {
        let mut bytes = random.one_of::<&str>(TEXTS).as_bytes().to_vec();
        random.change(&mut bytes, LIKELY);
        let text = String::from_utf8_lossy(&bytes);
        if let Ok(value) = gvariant::parse(&text) {
            taken += 1;
            assert!(signature::is_type(&value.signature()), "{text:?}");
            assert!(count(&value) <= text.len());
            survives(&[Value::Variant(Box::new(value))]);
        }
    }
    assert!(taken > ROUNDS / 50, "{taken}");
}
