//! A program as text, for people.

use std::fmt::Write;

use nix::errno::Errno;

use super::chain::ARGS;
use super::tables::{Arch, Call, X32_BIT};
use super::{Instruction, Program};

/// The flags of seccomp(2) that a filter is loaded with.
const FLAGS: [(u32, &str); 3] = [
    (libc::SECCOMP_FILTER_FLAG_LOG as u32, "LOG"),
    (libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32, "SPEC_ALLOW"),
    (libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV as u32, "WAIT_KILLABLE_RECV"),
];

impl Program {
    /// One line for each instruction: place, what it does, where it goes on, which call or architecture is meant.
    ///
    /// Where several architectures share instructions, calls have the names of the first one.
    pub fn listing(&self) -> String {
        let flags: Vec<&str> = FLAGS.iter().filter(|(bit, _)| self.flags & bit != 0).map(|&(_, name)| name).collect();
        let mut text = String::new();
        for (at, part) in self.parts.iter().enumerate() {
            let which =
                if self.parts.len() > 1 { format!("part {} of {}: ", at + 1, self.parts.len()) } else { String::new() };
            let flags = if flags.is_empty() { "no flags".to_owned() } else { format!("flags {}", flags.join(" ")) };
            let _ = writeln!(text, "# {which}{} instructions, {flags}", part.len());
            list(part, &mut text);
        }
        text
    }

    /// The program as `struct sock_filter`s of this machine; `None` when it has several parts.
    pub fn raw(&self) -> Option<Vec<u8>> {
        let [part] = &self.parts[..] else { return None };
        let bytes = |instruction: &Instruction| {
            let [low, high] = instruction.code.to_ne_bytes();
            let [a, b, c, d] = instruction.k.to_ne_bytes();
            [low, high, instruction.jt, instruction.jf, a, b, c, d]
        };
        Some(part.iter().flat_map(bytes).collect())
    }
}

/// What is known where an instruction begins.
#[derive(Clone, Copy, Default)]
struct Known {
    arch: Option<&'static Arch>,
    /// The offset of the word that was loaded last.
    word: Option<u32>,
}

fn list(part: &[Instruction], text: &mut String) {
    let mut known: Vec<Option<Known>> = vec![None; part.len()];
    known[0] = Some(Known::default());
    for (at, &Instruction { code, jt, jf, k }) in part.iter().enumerate() {
        let here = known[at].unwrap_or_default();
        let mut reach = |to: usize, what: Known| {
            if let Some(slot) = known.get_mut(to) {
                slot.get_or_insert(what);
            }
        };
        let (yes, no) = (at + 1 + usize::from(jt), at + 1 + usize::from(jf));
        let (does, goes, means) = match code {
            0x20 => {
                reach(at + 1, Known { word: Some(k), ..here });
                (format!("load  {}", word(k)), String::new(), String::new())
            }
            0x54 => {
                let x32 = here.word == Some(0) && k == !X32_BIT;
                let arch = if x32 { Arch::of(oci_spec::runtime::Arch::ScmpArchX32) } else { here.arch };
                reach(at + 1, Known { arch, ..here });
                (format!("and   {k:#x}"), String::new(), if x32 { "x32".to_owned() } else { String::new() })
            }
            0x05 => {
                reach(at + 1 + k as usize, here);
                ("jump".to_owned(), format!("{}", at + 1 + k as usize), String::new())
            }
            0x06 => (format!("end   {}", says(k)), String::new(), String::new()),
            _ => {
                let named = if here.word == Some(4) { Arch::with_audit(k) } else { None };
                reach(yes, Known { arch: named.or(here.arch), ..here });
                reach(no, here);
                let operator = match code {
                    0x15 => "==",
                    0x25 => ">",
                    0x35 => ">=",
                    _ => "&",
                };
                let value = if here.word == Some(0) && k < X32_BIT { k.to_string() } else { format!("{k:#x}") };
                (format!("if    {operator} {value}"), ways(at, yes, no), meaning(here, k, named))
            }
        };
        let line = format!("{at:>5}  {does:<24}{goes:<22}{means}");
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

/// Where a comparison goes on.
fn ways(at: usize, yes: usize, no: usize) -> String {
    let place = |to: usize| if to == at + 1 { "next".to_owned() } else { to.to_string() };
    format!("{}, else {}", place(yes), place(no))
}

fn meaning(here: Known, value: u32, named: Option<&Arch>) -> String {
    match (here.word, here.arch) {
        (Some(4), _) => named.map(|arch| arch.word()).unwrap_or_default(),
        (Some(0), Some(arch)) => {
            Call::numbered(value | arch.bit, arch).map_or(String::new(), |call| call.name().to_owned())
        }
        _ => String::new(),
    }
}

/// A word of `struct seccomp_data`.
fn word(offset: u32) -> String {
    match offset {
        0 => "number".to_owned(),
        4 => "architecture".to_owned(),
        _ => {
            let upper = (offset % 8 == 4) != cfg!(target_endian = "big");
            format!("argument {}{}", (offset - ARGS) / 8, if upper { ", upper half" } else { "" })
        }
    }
}

/// A verdict in words: `allow`, `error EPERM`.
pub(super) fn says(verdict: u32) -> String {
    let data = verdict & libc::SECCOMP_RET_DATA;
    match verdict & libc::SECCOMP_RET_ACTION_FULL {
        libc::SECCOMP_RET_ALLOW => "allow".to_owned(),
        libc::SECCOMP_RET_LOG => "log".to_owned(),
        libc::SECCOMP_RET_ERRNO => match Errno::from_raw(data as i32) {
            Errno::UnknownErrno => format!("error {data}"),
            errno => format!("error {errno:?}"),
        },
        libc::SECCOMP_RET_TRACE => format!("trace {data}"),
        libc::SECCOMP_RET_TRAP => "trap".to_owned(),
        libc::SECCOMP_RET_KILL_PROCESS => "kill process".to_owned(),
        libc::SECCOMP_RET_USER_NOTIF => "notify".to_owned(),
        _ => "kill thread".to_owned(),
    }
}
