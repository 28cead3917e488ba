//! Messages of D-Bus (D-Bus specification, "Message Protocol").

use super::byte_order::ByteOrder;
use super::reader::Reader;
use super::value::Value;
use super::writer::Writer;

/// The longest message that is taken; the specification allows 128 MiB, what systemd tells of units has a few KiB.
const LONGEST: usize = 1 << 20;
/// The fixed part of a header, up to the length of its fields.
const FIXED: usize = 16;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// The call of a method.
    Call = 1,
    /// What a method returns.
    Return = 2,
    /// Why there is nothing to return.
    Error = 3,
    /// What happened.
    Signal = 4,
}

const KINDS: [Kind; 4] = [Kind::Call, Kind::Return, Kind::Error, Kind::Signal];

// Fields of a header.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// `NO_REPLY_EXPECTED`.
const NO_REPLY: u8 = 1;

/// The object that a call is made to.
pub struct Object {
    /// Its owner's name on a bus.
    pub destination: &'static str,
    /// Where it is there.
    pub path: &'static str,
    /// Which of its interfaces has the method.
    pub interface: &'static str,
}

/// A method call; its serial number is not 0. `body` writes the arguments, of which `signature` tells.
pub(super) fn call(
    object: &Object,
    member: &str,
    serial: u32,
    answered: bool,
    signature: &str,
    body: impl FnOnce(&mut Writer),
) -> Vec<u8> {
    let mut arguments = Writer::default();
    body(&mut arguments);
    let arguments = arguments.into_bytes();
    let flags = if answered { 0 } else { NO_REPLY };
    let mut out = Writer::after(vec![b'l', Kind::Call as u8, flags, 1], ByteOrder::Little);
    out.word(arguments.len() as u32);
    out.word(serial);
    out.array(b'(', |out| {
        let mut field = |code: u8, value: Value| {
            out.align(8);
            out.byte(code);
            out.variant(&value);
        };
        field(PATH, Value::Path(object.path.to_owned()));
        field(DESTINATION, Value::text(object.destination));
        field(INTERFACE, Value::text(object.interface));
        field(MEMBER, Value::text(member.to_owned()));
        if !signature.is_empty() {
            field(SIGNATURE, Value::Signature(signature.to_owned()));
        }
    });
    out.align(8);
    out.raw(&arguments);
    out.into_bytes()
}

/// A received message.
#[derive(Debug)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// The call that it answers, or 0.
    pub(super) answers: u32,
    /// The name of a signal.
    pub member: String,
    /// The name of an error.
    pub(super) error: String,
    /// The types of the arguments.
    signature: String,
    body: Vec<u8>,
    order: ByteOrder,
}

impl Message {
    /// The first message of what was received and its length there; `Ok(None)` when it is not there in full.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Message, usize)>, &'static str> {
        let Some(start) = bytes.get(..FIXED) else { return Ok(None) };
        let Some(order) = ByteOrder::of(start[0]) else { return Err("a message of no byte order") };
        let mut fixed = Reader::new(start, order);
        fixed.skip(4);
        let lengths = (fixed.word(), fixed.word().and_then(|_| fixed.word()));
        let (Some(body), Some(fields)) = lengths else { return Err("a message without lengths") };
        let (body, fields) = (body as usize, fields as usize);
        if body > LONGEST || fields > LONGEST {
            return Err("a message that is too long");
        }
        let header = (FIXED + fields).next_multiple_of(8);
        let Some(whole) = bytes.get(..header + body) else { return Ok(None) };
        let message = Message::read(order, &whole[..FIXED + fields], &whole[header..]);
        Ok(Some((message.ok_or("a message that is malformed")?, whole.len())))
    }

    fn read(order: ByteOrder, header: &[u8], body: &[u8]) -> Option<Message> {
        let kind = *KINDS.get(usize::from(header[1]).checked_sub(1)?)?;
        let empty = String::new;
        let (answers, body) = (0, body.to_owned());
        let mut message = Message { kind, answers, member: empty(), error: empty(), signature: empty(), body, order };
        let mut fields = Reader::new(header, order);
        fields.skip(FIXED);
        while !fields.is_at_end() {
            fields.align(8);
            match (fields.byte()?, fields.variant()?) {
                (REPLY_SERIAL, Value::Uint32(serial)) => message.answers = serial,
                (MEMBER, Value::Text(name)) => message.member = name.into_owned(),
                (ERROR_NAME, Value::Text(name)) => message.error = name.into_owned(),
                (SIGNATURE, Value::Signature(types)) => message.signature = types,
                // The rest, also what later versions of the protocol may have.
                _ => {}
            }
        }
        Some(message)
    }

    /// The arguments; `None` where they are not of the types that it tells.
    pub fn arguments(&self) -> Option<Vec<Value>> {
        Reader::new(&self.body, self.order).values(&self.signature)
    }

    /// The first argument when it is a text or a path.
    pub fn first_text(&self) -> Option<&str> {
        let is_text = self.signature.starts_with(['s', 'o']);
        is_text.then(|| Reader::new(&self.body, self.order).text()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: Object = Object { destination: "d.e", path: "/p", interface: "i.f" };

    /// Written by hand after the specification, a line for each field.
    #[rustfmt::skip]
    const PING: &[u8] = b"l\x01\0\x01\x06\0\0\0\x07\0\0\0\x47\0\0\0\
        \x01\x01o\0\x02\0\0\0/p\0\0\0\0\0\0\
        \x06\x01s\0\x03\0\0\0d.e\0\0\0\0\0\
        \x02\x01s\0\x03\0\0\0i.f\0\0\0\0\0\
        \x03\x01s\0\x01\0\0\0M\0\0\0\0\0\0\0\
        \x08\x01g\0\x01s\0\0\
        \x01\0\0\0x\0";

    #[test]
    fn a_call_is_written_byte_by_byte() {
        let bytes = call(&OBJECT, "M", 7, true, "s", |out| out.text("x"));
        assert_eq!(bytes, PING);
        assert_eq!(call(&OBJECT, "M", 7, false, "s", |out| out.text("x"))[2], NO_REPLY);
    }

    const ORDERS: [(u8, ByteOrder); 2] = [(b'l', ByteOrder::Little), (b'B', ByteOrder::Big)];

    /// A message of somebody else's, in his byte order.
    fn foreign(order: (u8, ByteOrder), kind: u8, fields: &[(u8, Value)], arguments: &[Value]) -> Vec<u8> {
        let mut body = Writer::after(Vec::new(), order.1);
        arguments.iter().for_each(|value| body.value(value));
        let body = body.into_bytes();
        let mut out = Writer::after(vec![order.0, kind, 0, 1], order.1);
        out.word(body.len() as u32);
        out.word(3);
        out.array(b'(', |out| {
            for (code, value) in fields {
                out.align(8);
                out.byte(*code);
                out.variant(value);
            }
        });
        out.align(8);
        out.raw(&body);
        out.into_bytes()
    }

    #[test]
    fn messages_are_read_one_by_one_and_only_when_they_are_whole() {
        for order in ORDERS {
            let fields = [(REPLY_SERIAL, Value::Uint32(9)), (SIGNATURE, Value::Signature("o".into()))];
            let one = foreign(order, 2, &fields, &[Value::Path("/j".into())]);
            let fields = [(ERROR_NAME, Value::text("a.B")), (REPLY_SERIAL, Value::Uint32(1))];
            let two = foreign(order, 3, &fields, &[]);
            let both = [one.clone(), two.clone()].concat();
            for length in 0..one.len() {
                assert!(matches!(Message::parse(&both[..length]), Ok(None)), "{length}");
            }
            let (message, length) = Message::parse(&both).unwrap().unwrap();
            assert_eq!((message.kind, message.answers, message.first_text()), (Kind::Return, 9, Some("/j")));
            assert_eq!(length, one.len());
            let (message, length) = Message::parse(&both[length..]).unwrap().unwrap();
            assert_eq!((message.kind, message.answers, message.error.as_str()), (Kind::Error, 1, "a.B"));
            assert_eq!((length, message.first_text()), (two.len(), None));
        }
    }

    /// Written by hand after the specification, as systemd sends it on a big-endian machine.
    #[rustfmt::skip]
    const REMOVED: &[u8] = b"B\x04\x01\x01\0\0\0\x1d\0\0\0\x05\0\0\0\x42\
        \x01\x01o\0\0\0\0\x02/o\0\0\0\0\0\0\
        \x02\x01s\0\0\0\0\x03i.f\0\0\0\0\0\
        \x03\x01s\0\0\0\0\x0aJobRemoved\0\0\0\0\0\0\
        \x08\x01g\0\x04uoss\0\0\0\0\0\0\0\
        \0\0\x01\x02\0\0\0\x02/j\0\0\0\0\0\x03u.s\0\0\0\0\x04done\0";

    #[test]
    fn a_signal_of_a_big_endian_machine_is_read() {
        let (message, length) = Message::parse(REMOVED).unwrap().unwrap();
        assert_eq!(length, REMOVED.len());
        assert_eq!((message.kind, message.member.as_str()), (Kind::Signal, "JobRemoved"));
        let expected = [Value::Uint32(0x102), Value::Path("/j".into()), Value::text("u.s"), Value::text("done")];
        assert_eq!(message.arguments().as_deref(), Some(&expected[..]));
    }

    #[test]
    fn fields_of_a_header_that_nobody_knows_are_passed_over() {
        for order in ORDERS {
            let entry = Value::Entry(Box::new((Value::text("a"), Value::Variant(Box::new(Value::Double(1.0))))));
            let unknown = Value::Array("{sv}".into(), vec![entry]);
            let bytes = foreign(order, 4, &[(77, unknown), (MEMBER, Value::text("S")), (78, Value::Byte(1))], &[]);
            assert_eq!(Message::parse(&bytes).unwrap().unwrap().0.member, "S");
        }
    }

    #[test]
    fn arguments_of_other_types_than_those_that_are_told_are_none() {
        for order in ORDERS {
            let arguments = |types: &str, arguments: &[Value]| {
                let bytes = foreign(order, 4, &[(SIGNATURE, Value::Signature(types.into()))], arguments);
                Message::parse(&bytes).unwrap().unwrap().0.arguments()
            };
            assert_eq!(arguments("", &[]), Some(vec![]));
            assert_eq!(arguments("u", &[Value::Uint32(1)]), Some(vec![Value::Uint32(1)]));
            for types in ["uu", "s", "t", "a", "()", "z"] {
                assert_eq!(arguments(types, &[Value::Uint32(1)]), None, "{types}");
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let good = foreign(ORDERS[0], 4, &[(MEMBER, Value::text("S"))], &[]);
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Message::parse(&bytes).map(|_| ())
        };
        assert!(with(0, b'l').is_ok());
        assert!(with(0, b'B').is_err(), "the lengths are in the other order");
        assert!(with(0, b'b').is_err() && with(0, 0).is_err());
        assert!(with(1, 0).is_err() && with(1, 5).is_err());
        assert!(with(7, 0x7f).is_err() && with(15, 0x7f).is_err(), "lengths");
        assert!(with(17, 200).is_err(), "the length of a signature");
        assert!(with(20, 100).is_err(), "the length of a text");
    }
}
