//! Messages of D-Bus (D-Bus specification, "Message Protocol").

use super::value::{Reader, Value, Writer};

/// The longest message that is taken; the specification allows 128 MiB, what systemd tells of units has a few KiB.
const LONGEST: usize = 1 << 20;
/// The fixed part of a header, up to the length of its fields.
const FIXED: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Call = 1,
    Return = 2,
    Error = 3,
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
pub(super) struct Object {
    pub(super) destination: &'static str,
    pub(super) path: &'static str,
    pub(super) interface: &'static str,
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
    let mut out = Writer(vec![b'l', Kind::Call as u8, if answered { 0 } else { NO_REPLY }, 1]);
    out.put((arguments.0.len() as u32).to_le_bytes());
    out.put(serial.to_le_bytes());
    out.array(b'(', |out| {
        let mut field = |code: u8, value: Value| {
            out.align(8);
            out.0.push(code);
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
    out.0.extend_from_slice(&arguments.0);
    out.0
}

/// A received message.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) kind: Kind,
    /// The call that it answers, or 0.
    pub(super) answers: u32,
    /// The name of a signal.
    pub(super) member: String,
    /// The name of an error.
    pub(super) error: String,
    /// The types of the arguments.
    pub(super) signature: String,
    pub(super) body: Vec<u8>,
}

impl Message {
    /// The first message of what was received and its length there; `Ok(None)` when it is not there in full.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Message, usize)>, &'static str> {
        let Some(start) = bytes.get(..FIXED) else { return Ok(None) };
        if start[0] != b'l' {
            return Err("a message in another byte order");
        }
        let mut fixed = Reader::new(start);
        fixed.skip(4);
        let lengths = (fixed.word(), fixed.word().and_then(|_| fixed.word()));
        let (Some(body), Some(fields)) = lengths else { return Err("a message without lengths") };
        let (body, fields) = (body as usize, fields as usize);
        if body > LONGEST || fields > LONGEST {
            return Err("a message that is too long");
        }
        let header = (FIXED + fields).next_multiple_of(8);
        let Some(whole) = bytes.get(..header + body) else { return Ok(None) };
        let message = Message::read(&whole[..FIXED + fields], &whole[header..]).ok_or("a message that is malformed")?;
        Ok(Some((message, whole.len())))
    }

    fn read(header: &[u8], body: &[u8]) -> Option<Message> {
        let kind = *KINDS.get(usize::from(header[1]).checked_sub(1)?)?;
        let empty = String::new;
        let mut message =
            Message { kind, answers: 0, member: empty(), error: empty(), signature: empty(), body: body.to_owned() };
        let mut fields = Reader::new(header);
        fields.skip(FIXED);
        while !fields.is_at_end() {
            fields.align(8);
            match (fields.byte()?, fields.signature()?) {
                (REPLY_SERIAL, "u") => message.answers = fields.word()?,
                (MEMBER, "s") => message.member = fields.text()?.to_owned(),
                (ERROR_NAME, "s") => message.error = fields.text()?.to_owned(),
                (SIGNATURE, "g") => message.signature = fields.signature()?.to_owned(),
                (_, "s" | "o") => drop(fields.text()?),
                (_, "u") => drop(fields.word()?),
                (_, "g") => drop(fields.signature()?),
                _ => return None,
            }
        }
        Some(message)
    }

    /// The first argument when it is a text or a path.
    pub(super) fn first_text(&self) -> Option<&str> {
        let is_text = self.signature.starts_with(['s', 'o']);
        is_text.then(|| Reader::new(&self.body).text()).flatten()
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

    fn reply(kind: u8, fields: &[(u8, Value)], body: &[u8]) -> Vec<u8> {
        let mut out = Writer(vec![b'l', kind, 0, 1]);
        out.put((body.len() as u32).to_le_bytes());
        out.put(3u32.to_le_bytes());
        out.array(b'(', |out| {
            for (code, value) in fields {
                out.align(8);
                out.0.push(*code);
                out.variant(value);
            }
        });
        out.align(8);
        out.0.extend_from_slice(body);
        out.0
    }

    #[test]
    fn messages_are_read_one_by_one_and_only_when_they_are_whole() {
        let one =
            reply(2, &[(REPLY_SERIAL, Value::Uint32(9)), (SIGNATURE, Value::Signature("o".into()))], b"\x02\0\0\0/j\0");
        let two = reply(3, &[(ERROR_NAME, Value::text("a.B")), (REPLY_SERIAL, Value::Uint32(1))], b"");
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

    #[test]
    fn nonsense_is_refused() {
        let good = reply(4, &[(MEMBER, Value::text("S"))], b"");
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Message::parse(&bytes).map(|_| ())
        };
        assert!(with(0, b'l').is_ok());
        assert!(with(0, b'B').is_err());
        assert!(with(1, 0).is_err() && with(1, 5).is_err());
        assert!(with(7, 0x7f).is_err() && with(15, 0x7f).is_err(), "lengths");
        assert!(with(17, 200).is_err(), "the length of a signature");
        assert!(with(20, 100).is_err(), "the length of a text");
    }
}
