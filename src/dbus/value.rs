//! Values of D-Bus (D-Bus specification, "Type System").

use std::borrow::Cow;

/// A value with its type.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `y`.
    Byte(u8),
    /// `b`.
    Bool(bool),
    /// `n`.
    Int16(i16),
    /// `q`.
    Uint16(u16),
    /// `i`.
    Int32(i32),
    /// `u`.
    Uint32(u32),
    /// `x`.
    Int64(i64),
    /// `t`.
    Uint64(u64),
    /// `d`.
    Double(f64),
    /// `s`.
    Text(Cow<'static, str>),
    /// `o`.
    Path(String),
    /// `g`.
    Signature(String),
    /// `h`: the place in the list of descriptors that came with the message.
    UnixFd(u32),
    /// `a`: the elements' type, which an empty array has, too.
    Array(Cow<'static, str>, Vec<Value>),
    /// `(…)`.
    Struct(Vec<Value>),
    /// `{…}`: key and value; in arrays only.
    Entry(Box<(Value, Value)>),
    /// `v`.
    Variant(Box<Value>),
}

impl Value {
    /// A string.
    pub fn text(text: impl Into<Cow<'static, str>>) -> Value {
        Value::Text(text.into())
    }

    /// Appends the value's signature.
    fn sign(&self, out: &mut String) {
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
            Value::UnixFd(_) => 'h',
            Value::Variant(_) => 'v',
            Value::Array(element, _) => {
                out.push('a');
                return out.push_str(element);
            }
            Value::Struct(fields) => {
                out.push('(');
                fields.iter().for_each(|field| field.sign(out));
                ')'
            }
            Value::Entry(pair) => {
                out.push('{');
                pair.0.sign(out);
                pair.1.sign(out);
                '}'
            }
        };
        out.push(letter);
    }

    /// The text of its type.
    pub fn signature(&self) -> String {
        let mut signature = String::new();
        self.sign(&mut signature);
        signature
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_types() {
        let rate = Value::Struct(vec![Value::text("/dev/x"), Value::Uint64(1)]);
        assert_eq!(Value::Array("(st)".into(), vec![rate]).signature(), "a(st)");
        assert_eq!(Value::Struct(vec![Value::Double(1.0), Value::Path("/".into())]).signature(), "(do)");
        let entry = Value::Entry(Box::new((Value::text("a"), Value::Variant(Box::new(Value::UnixFd(0))))));
        assert_eq!(entry.signature(), "{sv}");
    }
}
