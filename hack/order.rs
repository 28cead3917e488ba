//! In which order a program's functions are first called: `order SYMBOLS PROGRAM ARGUMENT...`.
//!
//! Steps through the program and all its descendants, instruction by instruction (ptrace(2)), until they end or become
//! another program. `SYMBOLS` is what `nm --defined-only --print-size` says of the program; the names of the functions
//! come out in the order in which they were first entered.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_long, c_void};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::ptr::null_mut;

unsafe extern "C" {
    fn ptrace(request: c_long, ...) -> c_long;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn fork() -> c_int;
    fn execv(path: *const c_char, argv: *const *const c_char) -> c_int;
    fn raise(signal: c_int) -> c_int;
    fn _exit(status: c_int) -> !;
}

const TRACEME: c_long = 0;
const CONT: c_long = 7;
const SINGLESTEP: c_long = 9;
const DETACH: c_long = 17;
const SETOPTIONS: c_long = 0x4200;
const GETREGSET: c_long = 0x4204;
const NT_PRSTATUS: usize = 1;
/// Fork, vfork, clone and exec are told; the traced die with the tracer.
const OPTIONS: usize = 2 | 4 | 8 | 16 | 0x10_0000;
const EVENT_EXEC: c_int = 4;
const ALL: c_int = 0x4000_0000;
const SIGTRAP: c_int = 5;
const SIGSTOP: c_int = 19;
/// Where the program counter stands in `user_regs_struct`, in words.
const COUNTER: usize = if cfg!(target_arch = "x86_64") { 16 } else { 32 };

#[repr(C)]
struct Vector {
    base: *mut c_void,
    length: usize,
}

fn counter(pid: c_int) -> Option<u64> {
    let mut registers = [0u64; 64];
    let mut vector = Vector { base: registers.as_mut_ptr().cast(), length: size_of_val(&registers) };
    // SAFETY: the kernel writes at most `length` bytes to a live local.
    let done = unsafe { ptrace(GETREGSET, pid, NT_PRSTATUS, &raw mut vector) };
    (done == 0).then_some(registers[COUNTER])
}

fn go(request: c_long, pid: c_int, signal: c_int) {
    // SAFETY: numbers only. A process that died meanwhile is told by waitpid.
    unsafe { ptrace(request, pid, null_mut::<c_void>(), signal as usize) };
}

/// The functions by address: their end, their name, whether they were seen.
fn functions(symbols: &str) -> BTreeMap<u64, (u64, &str, bool)> {
    let number = |text| u64::from_str_radix(text, 16).ok();
    symbols
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (start, size, kind, name) = (words.next()?, words.next()?, words.next()?, words.next()?);
            if !matches!(kind, "t" | "T" | "w" | "W") {
                return None;
            }
            let start = number(start)?;
            Some((start, (start + number(size)?, name, false)))
        })
        .collect()
}

fn begin(words: &[CString]) -> c_int {
    // SAFETY: this process has one thread.
    let pid = unsafe { fork() };
    if pid == 0 {
        let mut argv: Vec<*const c_char> = words.iter().map(|word| word.as_ptr()).collect();
        argv.push(null_mut());
        // SAFETY: the array ends in null and outlives the call; the child does nothing else.
        unsafe {
            ptrace(TRACEME);
            raise(SIGSTOP);
            execv(argv[0], argv.as_ptr());
            _exit(127)
        }
    }
    pid
}

fn main() {
    let mut words: Vec<CString> =
        std::env::args_os().skip(1).map(|word| CString::new(word.into_vec()).expect("no NUL")).collect();
    assert!(words.len() > 1, "usage: order SYMBOLS PROGRAM ARGUMENT...");
    let text = |word: &CStr| word.to_str().expect("UTF-8").to_owned();
    let symbols = std::fs::read_to_string(text(&words.remove(0))).expect("the symbols");
    let program = std::fs::metadata(text(&words[0])).expect("the program");
    let mut functions = functions(&symbols);

    let first = begin(&words);
    let (mut code, mut known) = (127, false);
    loop {
        let mut status = 0;
        // SAFETY: the kernel writes one integer to a live local.
        let pid = unsafe { waitpid(-1, &mut status, ALL) };
        if pid < 0 {
            break;
        }
        if status & 0xff != 0x7f {
            if pid == first {
                code = if status & 0x7f == 0 { status >> 8 & 0xff } else { 128 + (status & 0x7f) };
            }
            continue;
        }
        let (signal, event) = (status >> 8 & 0xff, status >> 16);
        if !known {
            known = true;
            // SAFETY: numbers only.
            unsafe { ptrace(SETOPTIONS, pid, null_mut::<c_void>(), OPTIONS) };
            go(CONT, pid, 0);
            continue;
        }
        if event == EVENT_EXEC {
            let now = std::fs::metadata(format!("/proc/{pid}/exe")).ok();
            if now.is_none_or(|now| now.ino() != program.ino()) {
                go(DETACH, pid, 0);
                continue;
            }
        }
        if let Some(at) = counter(pid)
            && let Some((_, (end, name, seen))) = functions.range_mut(..=at).next_back()
            && at < *end
            && !*seen
        {
            *seen = true;
            println!("{name}");
        }
        let pass = if matches!(signal, SIGTRAP | SIGSTOP) { 0 } else { signal };
        go(SINGLESTEP, pid, pass);
    }
    std::process::exit(code);
}
