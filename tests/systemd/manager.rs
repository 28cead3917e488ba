//! A systemd that is none: it listens where systemd does, understands the D-Bus that it is sent, and makes cgroups for
//! units. What it was asked is kept, word by word, for the test.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use crate::harness::Sandbox;

/// How the manager answers.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Mood {
    /// As asked.
    Willing,
    /// As asked, in the byte order of a big-endian machine.
    BigEndian,
    /// There is a unit of that name until somebody has asked to reset it.
    Taken,
    /// There always is one.
    TakenForGood,
    /// It does not know OOMPolicy.
    Old,
    /// The jobs of new units fail.
    Failing,
    /// Units stay as they are.
    Stubborn,
    /// It hangs up on the question.
    Rude,
    /// It takes nobody in.
    Closed,
    /// It is asked and says nothing.
    Silent,
}

/// See the module's head.
pub struct Manager {
    calls: Arc<Mutex<Vec<Call>>>,
    mood: Arc<Mutex<Mood>>,
    units: PathBuf,
}

/// One method call.
#[derive(Clone, Debug)]
pub struct Call {
    pub member: String,
    pub signature: String,
    /// The arguments: arrays and structs as arrays, variants as `{"type": signature, "value": value}`.
    pub body: Value,
}

impl Call {
    /// A property of a new unit, with its type.
    pub fn property(&self, name: &str) -> Option<(String, Value)> {
        let list = self.body[2].as_array().expect("properties");
        let mut found = list.iter().filter(|property| property[0] == name);
        let one = found.next()?;
        assert!(found.next().is_none(), "{name} is there twice: {list:?}");
        Some((one[1]["type"].as_str().expect("a type").to_owned(), one[1]["value"].clone()))
    }
}

/// Where root finds systemd itself.
pub const PRIVATE: &str = "/run/systemd/private";
/// Where it finds the bus.
pub const BUS: &str = "/run/dbus/system_bus_socket";

impl Manager {
    /// Listens at a socket, with an empty `/run` for this sandbox.
    pub fn at(sandbox: &Sandbox, socket: &str) -> Manager {
        hide_run();
        Manager::beside(sandbox, socket)
    }

    /// Listens at a socket.
    pub fn beside(sandbox: &Sandbox, socket: &str) -> Manager {
        fs::create_dir_all(Path::new(socket).parent().expect("a directory")).expect("make the socket's directory");
        let listener = UnixListener::bind(socket).expect("listen");
        let manager = Manager {
            calls: Arc::default(),
            mood: Arc::new(Mutex::new(Mood::Willing)),
            units: sandbox.cgroup().join("units"),
        };
        fs::create_dir_all(&manager.units).expect("make a cgroup for the units");
        let (calls, mood, units) = (manager.calls.clone(), manager.mood.clone(), manager.units.clone());
        // It ends with the test's process; the socket is the sandbox's alone.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (calls, mood, units) = (calls.clone(), mood.clone(), units.clone());
                std::thread::spawn(move || Line { stream, calls, mood, units, serial: 0 }.serve());
            }
        });
        manager
    }

    pub fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// What it was asked since the last time.
    pub fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    /// The same, the names alone.
    pub fn members(&self) -> Vec<String> {
        self.calls().into_iter().map(|call| call.member).collect()
    }

    /// The cgroup of a unit.
    pub fn unit(&self, name: &str) -> PathBuf {
        self.units.join(name)
    }
}

/// Nothing of the machine's own `/run` is seen any more: not its systemd, for one.
pub fn hide_run() {
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=0755")).expect("mount a /run");
}

/// One caller.
struct Line {
    stream: UnixStream,
    calls: Arc<Mutex<Vec<Call>>>,
    mood: Arc<Mutex<Mood>>,
    units: PathBuf,
    serial: u32,
}

impl Line {
    fn serve(mut self) {
        // A caller that goes away is one that a test has killed.
        let _ = self.converse();
    }

    fn mood(&self) -> Mood {
        *self.mood.lock().unwrap()
    }

    fn converse(&mut self) -> std::io::Result<()> {
        let mut greeting = Vec::new();
        while !greeting.ends_with(b"BEGIN\r\n") {
            greeting.push(self.exactly(1)?[0]);
        }
        assert_eq!(greeting, b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n", "{}", String::from_utf8_lossy(&greeting));
        if self.mood() == Mood::Closed {
            return self.stream.write_all(b"DATA\r\nREJECTED EXTERNAL\r\n");
        }
        self.stream.write_all(b"DATA\r\nOK 00000000000000000000000000000000\r\n")?;
        loop {
            let start = self.exactly(16)?;
            let number = |at: usize| u32::from_le_bytes(start[at..at + 4].try_into().unwrap());
            let (body, serial, fields) = (number(4) as usize, number(8), number(12) as usize);
            let header = self.exactly((16 + fields).next_multiple_of(8) - 16)?;
            let whole = [&start[..], &header[..fields]].concat();
            let mut reader = Decoder { bytes: &whole, at: 12 };
            let fields = reader.value("a(yv)");
            let field = |code: u8| -> String {
                let mut all = fields.as_array().unwrap().iter();
                all.find(|field| field[0] == code).map_or("", |field| field[1]["value"].as_str().unwrap()).to_owned()
            };
            let bytes = self.exactly(body)?;
            let (member, signature) = (field(3), field(8));
            let mut reader = Decoder { bytes: &bytes, at: 0 };
            let mut arguments = Vec::new();
            let mut left = signature.as_str();
            while !left.is_empty() {
                let (first, rest) = left.split_at(type_length(left));
                arguments.push(reader.value(first));
                left = rest;
            }
            assert_eq!(reader.at, bytes.len(), "{member} has bytes that its signature doesn't tell of");
            let call = Call { member, signature, body: Value::Array(arguments) };
            self.calls.lock().unwrap().push(call.clone());
            if start[2] & 1 == 0 {
                self.answer(serial, &call)?;
            } else if call.member == "ResetFailedUnit" && self.mood() == Mood::Taken {
                *self.mood.lock().unwrap() = Mood::Willing;
            }
        }
    }

    fn answer(&mut self, call: u32, asked: &Call) -> std::io::Result<()> {
        self.noise()?;
        let name = asked.body[0].as_str().unwrap_or_default().to_owned();
        match (asked.member.as_str(), self.mood()) {
            (_, Mood::Silent) => Ok(()),
            (_, Mood::Rude) => self.stream.shutdown(std::net::Shutdown::Both),
            ("StartTransientUnit", Mood::Taken | Mood::TakenForGood) => {
                self.refuse(call, "org.freedesktop.systemd1.UnitExists", &format!("Unit {name} already exists."))
            }
            ("StartTransientUnit", Mood::Old) if asked.property("OOMPolicy").is_some() => {
                let text = "Cannot set property OOMPolicy, or unknown property.";
                self.refuse(call, "org.freedesktop.DBus.Error.PropertyReadOnly", text)
            }
            ("StartTransientUnit", mood) => {
                let unit = self.units.join(&name);
                fs::create_dir(&unit)?;
                for pid in asked.property("PIDs").expect("PIDs").1.as_array().unwrap() {
                    fs::write(unit.join("cgroup.procs"), pid.to_string())?;
                }
                self.job(call, &name, if mood == Mood::Failing { "failed" } else { "done" })
            }
            ("StopUnit", _) if !self.units.join(&name).exists() => {
                self.refuse(call, "org.freedesktop.systemd1.NoSuchUnit", &format!("Unit {name} not loaded."))
            }
            ("StopUnit", _) => {
                fs::remove_dir(self.units.join(&name)).expect("a unit that is to stop is empty");
                self.job(call, &name, "done")
            }
            ("SetUnitProperties", Mood::Stubborn) => {
                self.refuse(call, "org.freedesktop.DBus.Error.Failed", "Not in the mood.")
            }
            ("SetUnitProperties", _) => self.send(2, &[(5, "u", json!(call))], "", &[]),
            (other, _) => panic!("{other} is called"),
        }
    }

    /// A job: its number as the answer, then, a moment later, its end.
    fn job(&mut self, call: u32, unit: &str, result: &str) -> std::io::Result<()> {
        let job = format!("/org/freedesktop/systemd1/job/{call}7");
        self.send(2, &[(5, "u", json!(call))], "o", &[json!(job)])?;
        self.noise()?;
        std::thread::sleep(Duration::from_millis(20));
        let end = [json!(1), json!(job), json!(unit), json!(result)];
        self.send(4, &[(3, "s", json!("JobRemoved"))], "uoss", &end)
    }

    fn refuse(&mut self, call: u32, name: &str, text: &str) -> std::io::Result<()> {
        self.send(3, &[(4, "s", json!(name)), (5, "u", json!(call))], "s", &[json!(text)])
    }

    /// What others do is told to everybody.
    fn noise(&mut self) -> std::io::Result<()> {
        let other = [json!(9), json!("/org/freedesktop/systemd1/job/999"), json!("x.service"), json!("failed")];
        self.send(4, &[(3, "s", json!("JobRemoved"))], "uoss", &other)?;
        self.send(4, &[(3, "s", json!("UnitNew"))], "so", &[json!("x.service"), json!("/x")])?;
        self.send(4, &[(3, "s", json!("Reloading"))], "", &[])
    }

    fn send(&mut self, kind: u8, fields: &[(u8, &str, Value)], signature: &str, body: &[Value]) -> std::io::Result<()> {
        let big = self.mood() == Mood::BigEndian;
        let new = |bytes: Vec<u8>| Encoder { bytes, big };
        let mut arguments = new(Vec::new());
        let letters: Vec<String> = signature.chars().map(String::from).collect();
        letters.iter().zip(body).for_each(|(letter, value)| arguments.value(letter, value));
        self.serial += 1;
        let mut out = new(vec![if big { b'B' } else { b'l' }, kind, 1, 1]);
        out.word(arguments.bytes.len() as u32);
        out.word(self.serial);
        let mut inner = new(Vec::new());
        let path = (1, "o", json!("/org/freedesktop/systemd1"));
        for (code, of, value) in fields.iter().chain([&path]).chain([&(8, "g", json!(signature))]) {
            inner.align(8);
            inner.bytes.push(*code);
            inner.value("g", &json!(of));
            inner.value(of, value);
        }
        out.word(inner.bytes.len() as u32);
        out.bytes.extend(inner.bytes);
        out.align(8);
        out.bytes.extend(arguments.bytes);
        self.stream.write_all(&out.bytes)
    }

    fn exactly(&mut self, count: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).map(|()| bytes)
    }
}

/// How long the first type in a signature is.
fn type_length(signature: &str) -> usize {
    match signature.as_bytes()[0] {
        b'a' => 1 + type_length(&signature[1..]),
        b'(' => {
            let mut at = 1;
            while !signature[at..].starts_with(')') {
                at += type_length(&signature[at..]);
            }
            at + 1
        }
        _ => 1,
    }
}

fn alignment(signature: &str) -> usize {
    match signature.as_bytes()[0] {
        b'n' | b'q' => 2,
        b'b' | b'i' | b'u' | b's' | b'o' | b'a' => 4,
        b'x' | b't' | b'd' | b'(' => 8,
        _ => 1,
    }
}

/// Bytes to values, by the specification.
struct Decoder<'bytes> {
    bytes: &'bytes [u8],
    at: usize,
}

impl Decoder<'_> {
    fn align(&mut self, to: usize) {
        let aligned = self.at.next_multiple_of(to);
        assert!(self.bytes[self.at..aligned.min(self.bytes.len())].iter().all(|byte| *byte == 0), "padding is zero");
        self.at = aligned;
    }

    fn take(&mut self, count: usize) -> &[u8] {
        self.at += count;
        &self.bytes[self.at - count..self.at]
    }

    fn word(&mut self) -> u32 {
        self.align(4);
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn text(&mut self, length: usize) -> String {
        let text = String::from_utf8(self.take(length).to_vec()).expect("UTF-8");
        assert_eq!(self.take(1), [0]);
        text
    }

    fn value(&mut self, signature: &str) -> Value {
        self.align(alignment(signature));
        match signature.as_bytes()[0] {
            b'y' => json!(self.take(1)[0]),
            b'b' => json!(self.word() == 1),
            b'u' => json!(self.word()),
            b'i' => json!(self.word() as i32),
            b't' => json!(u64::from_le_bytes(self.take(8).try_into().unwrap())),
            b's' | b'o' => {
                let length = self.word() as usize;
                json!(self.text(length))
            }
            b'g' => {
                let length = self.take(1)[0].into();
                json!(self.text(length))
            }
            b'v' => {
                let of = self.value("g");
                let of = of.as_str().unwrap();
                json!({"type": of, "value": self.value(of)})
            }
            b'a' => {
                let length = self.word() as usize;
                self.align(alignment(&signature[1..]));
                let end = self.at + length;
                let mut list = Vec::new();
                while self.at < end {
                    list.push(self.value(&signature[1..]));
                }
                assert_eq!(self.at, end, "the length of an array");
                Value::Array(list)
            }
            b'(' => {
                let mut left = &signature[1..signature.len() - 1];
                let mut fields = Vec::new();
                while !left.is_empty() {
                    let (first, rest) = left.split_at(type_length(left));
                    fields.push(self.value(first));
                    left = rest;
                }
                Value::Array(fields)
            }
            other => panic!("type {}", char::from(other)),
        }
    }
}

/// Values to bytes, as far as answers need it.
struct Encoder {
    bytes: Vec<u8>,
    big: bool,
}

impl Encoder {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn word(&mut self, number: u32) {
        self.align(4);
        self.bytes.extend(if self.big { number.to_be_bytes() } else { number.to_le_bytes() });
    }

    fn value(&mut self, letter: &str, value: &Value) {
        match letter {
            "u" => self.word(value.as_u64().unwrap() as u32),
            "g" => {
                let text = value.as_str().unwrap();
                self.bytes.push(text.len() as u8);
                self.bytes.extend(text.bytes().chain([0]));
            }
            _ => {
                let text = value.as_str().unwrap();
                self.word(text.len() as u32);
                self.bytes.extend(text.bytes().chain([0]));
            }
        }
    }
}
