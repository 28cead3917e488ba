//! Names and numbers: every system call of every architecture, and what an architecture is.
//!
//! `calls.tsv` is the table, `generate.py` says how it was made. It is read by the compiler, not at run time: what
//! the binary carries is the names once, and two bytes per call and architecture.

use oci_spec::runtime::Arch as Listed;

/// The table as text: a head line, then one call per line, sorted by name; `-` where an architecture lacks it.
const TEXT: &[u8] = include_bytes!("calls.tsv");

/// How many calls there are.
pub(super) const CALLS: usize = {
    let (mut lines, mut at) = (0, 0);
    while at < TEXT.len() {
        lines += (TEXT[at] == b'\n') as usize;
        at += 1;
    }
    lines - 1
};

/// How many columns of numbers there are.
const COLUMNS: usize = 14;

/// A hole in a column.
const NONE: u16 = u16::MAX;

/// Private calls of 32-bit arm lie at 0xf0000 and are kept at 0xf000, which no other number reaches.
const PRIVATE: u32 = 0xf0000;
const PRIVATE_KEPT: u16 = 0xf000;

struct Columns {
    /// Where each name lies in [`TEXT`]: start and length.
    names: [(u16, u8); CALLS],
    numbers: [[u16; CALLS]; COLUMNS],
}

#[allow(long_running_const_eval, reason = "30 kB of text, once per build")]
const PARSED: Columns = {
    let mut parsed = Columns { names: [(0, 0); CALLS], numbers: [[NONE; CALLS]; COLUMNS] };
    let mut at = 0;
    while TEXT[at] != b'\n' {
        at += 1;
    }
    at += 1;
    let mut call = 0;
    while call < CALLS {
        let start = at;
        while TEXT[at] != b'\t' {
            at += 1;
        }
        parsed.names[call] = (start as u16, (at - start) as u8);
        let mut column = 0;
        while column < COLUMNS {
            at += 1;
            let mut number = 0;
            let dash = TEXT[at] == b'-';
            while TEXT[at] != b'\t' && TEXT[at] != b'\n' {
                number = number * 10 + (TEXT[at].wrapping_sub(b'0')) as u32;
                at += 1;
            }
            if !dash {
                parsed.numbers[column][call] =
                    if number >= PRIVATE { (number - PRIVATE) as u16 + PRIVATE_KEPT } else { number as u16 };
            }
            column += 1;
        }
        assert!(TEXT[at] == b'\n');
        at += 1;
        call += 1;
    }
    assert!(at == TEXT.len());
    parsed
};

const LETTERS: usize = {
    let (mut sum, mut call) = (0, 0);
    while call < CALLS {
        sum += PARSED.names[call].1 as usize;
        call += 1;
    }
    sum
};

/// All names behind one another, and where each begins.
static NAMES: [u8; LETTERS] = {
    let mut names = [0; LETTERS];
    let (mut call, mut to) = (0, 0);
    while call < CALLS {
        let (start, length) = PARSED.names[call];
        let mut letter = 0;
        while letter < length {
            names[to] = TEXT[start as usize + letter as usize];
            to += 1;
            letter += 1;
        }
        call += 1;
    }
    names
};
static STARTS: [u16; CALLS + 1] = {
    let mut starts = [0; CALLS + 1];
    let mut call = 0;
    while call < CALLS {
        starts[call + 1] = starts[call] + PARSED.names[call].1 as u16;
        call += 1;
    }
    starts
};
static NUMBERS: [[u16; CALLS]; COLUMNS] = PARSED.numbers;

/// Half of the slots stay empty.
const SLOTS: usize = (2 * CALLS).next_power_of_two();

/// Calls by the hash of their name, each in the first free slot from there on. A profile names hundreds of calls, and
/// to find them by halves compared letters for longer than the rest of the compiler took.
static BY_NAME: [u16; SLOTS] = {
    let mut slots = [NONE; SLOTS];
    let mut call = 0;
    while call < CALLS {
        let (start, length) = PARSED.names[call];
        let (_, rest) = TEXT.split_at(start as usize);
        let (name, _) = rest.split_at(length as usize);
        let mut slot = hash(name) % SLOTS;
        while slots[slot] != NONE {
            slot = (slot + 1) % SLOTS;
        }
        slots[slot] = call as u16;
        call += 1;
    }
    slots
};

/// FNV-1a.
const fn hash(name: &[u8]) -> usize {
    let (mut hash, mut at) = (0x811c_9dc5_u32, 0);
    while at < name.len() {
        hash = (hash ^ name[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    (hash ^ hash >> 15) as usize
}

/// A system call by its place in the table, the same for all architectures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Call(u16);

impl Call {
    /// The call of this name on whichever architecture has it.
    pub(super) fn named(name: &str) -> Option<Call> {
        let mut slot = hash(name.as_bytes()) % SLOTS;
        while BY_NAME[slot] != NONE {
            let call = Call(BY_NAME[slot]);
            if call.letters() == name.as_bytes() {
                return Some(call);
            }
            slot = (slot + 1) % SLOTS;
        }
        None
    }

    fn letters(self) -> &'static [u8] {
        let place = self.0 as usize;
        &NAMES[STARTS[place] as usize..STARTS[place + 1] as usize]
    }

    /// Its number on an architecture that has it.
    pub(super) fn number(self, arch: &Arch) -> Option<u32> {
        let kept = NUMBERS[arch.column as usize][self.0 as usize];
        match kept {
            NONE => None,
            PRIVATE_KEPT.. => Some(u32::from(kept - PRIVATE_KEPT) + PRIVATE),
            _ => Some(u32::from(kept) | arch.bit),
        }
    }

    /// The call that carries this one and its first argument there, where an architecture puts several calls
    /// behind one number (`socketcall(2)`, `ipc(2)`).
    pub(super) fn carried(self, arch: &Arch) -> Option<(u32, u32)> {
        let (carrier, first) = match CARRIED[self.0 as usize] {
            0 => return None,
            ipc @ IPC.. => (IPC_CALL, ipc - IPC),
            socket => (SOCKET_CALL, socket),
        };
        Some((Call(carrier).number(arch)?, u32::from(first)))
    }

    /// The call of this number, x32's bit included.
    pub(super) fn numbered(number: u32, arch: &Arch) -> Option<Call> {
        Call::all().find(|call| call.number(arch) == Some(number))
    }

    pub(super) fn all() -> impl Iterator<Item = Call> {
        (0..CALLS as u16).map(Call)
    }

    pub(super) fn name(self) -> &'static str {
        std::str::from_utf8(self.letters()).expect("names are ASCII")
    }
}

/// First arguments of `socketcall(2)` (linux/net.h), and of `ipc(2)` (linux/ipc.h) from [`IPC`] on.
const CARRIED_NAMES: [(&[u8], u8); 32] = [
    (b"socket", 1),
    (b"bind", 2),
    (b"connect", 3),
    (b"listen", 4),
    (b"accept", 5),
    (b"getsockname", 6),
    (b"getpeername", 7),
    (b"socketpair", 8),
    (b"send", 9),
    (b"recv", 10),
    (b"sendto", 11),
    (b"recvfrom", 12),
    (b"shutdown", 13),
    (b"setsockopt", 14),
    (b"getsockopt", 15),
    (b"sendmsg", 16),
    (b"recvmsg", 17),
    (b"accept4", 18),
    (b"recvmmsg", 19),
    (b"sendmmsg", 20),
    (b"semop", IPC + 1),
    (b"semget", IPC + 2),
    (b"semctl", IPC + 3),
    (b"semtimedop", IPC + 4),
    (b"msgsnd", IPC + 11),
    (b"msgrcv", IPC + 12),
    (b"msgget", IPC + 13),
    (b"msgctl", IPC + 14),
    (b"shmat", IPC + 21),
    (b"shmdt", IPC + 22),
    (b"shmget", IPC + 23),
    (b"shmctl", IPC + 24),
];
const IPC: u8 = 100;
const SOCKET_CALL: u16 = place(b"socketcall");
const IPC_CALL: u16 = place(b"ipc");

static CARRIED: [u8; CALLS] = {
    let mut carried = [0; CALLS];
    let mut entry = 0;
    while entry < CARRIED_NAMES.len() {
        let (name, first) = CARRIED_NAMES[entry];
        carried[place(name) as usize] = first;
        entry += 1;
    }
    carried
};

/// [`Call::named`] for the compiler.
const fn place(name: &[u8]) -> u16 {
    let mut call = 0;
    while call < CALLS {
        let (start, length) = PARSED.names[call];
        let mut same = length as usize == name.len();
        let mut letter = 0;
        while same && letter < name.len() {
            same = TEXT[start as usize + letter] == name[letter];
            letter += 1;
        }
        if same {
            return call as u16;
        }
        call += 1;
    }
    panic!("no such call in the table")
}

/// An architecture as a filter sees it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arch {
    pub(super) listed: Listed,
    /// `AUDIT_ARCH_*` (linux/audit.h), which `seccomp_data.arch` holds.
    pub(super) audit: u32,
    /// Which column of the table.
    column: u8,
    /// Registers of 64 bits; otherwise only the lower half of an argument is looked at, as libseccomp does.
    pub(super) wide: bool,
    pub(super) big_endian: bool,
    /// Set in every number (`__X32_SYSCALL_BIT`).
    pub(super) bit: u32,
}

/// `__X32_SYSCALL_BIT`: x32 shares its audit number with x86_64 and differs by this bit of the call's number.
pub(super) const X32_BIT: u32 = 0x4000_0000;
pub(super) const AUDIT_X86_64: u32 = 0xc000_003e;

const fn arch(listed: Listed, column: u8, audit: u32) -> Arch {
    // __AUDIT_ARCH_64BIT and __AUDIT_ARCH_LE; n32 and x32 have registers of 64 bits and pointers of 32.
    let wide = audit & 0x8000_0000 != 0 && !matches!(column, 2 | 13);
    let bit = if column == 2 { X32_BIT } else { 0 };
    Arch { listed, audit, column, wide, big_endian: audit & 0x4000_0000 == 0, bit }
}

/// All that are known, in the order of their names (`SCMP_ARCH_*`).
pub(super) static ARCHS: [Arch; 18] = [
    arch(Listed::ScmpArchAarch64, 3, 0xc000_00b7),
    arch(Listed::ScmpArchArm, 4, 0x4000_0028),
    arch(Listed::ScmpArchLoongarch64, 6, 0xc000_0102),
    arch(Listed::ScmpArchMips, 11, 0x0000_0008),
    arch(Listed::ScmpArchMips64, 12, 0x8000_0008),
    arch(Listed::ScmpArchMips64n32, 13, 0xa000_0008),
    arch(Listed::ScmpArchMipsel, 11, 0x4000_0008),
    arch(Listed::ScmpArchMipsel64, 12, 0xc000_0008),
    arch(Listed::ScmpArchMipsel64n32, 13, 0xe000_0008),
    arch(Listed::ScmpArchPpc, 10, 0x0000_0014),
    arch(Listed::ScmpArchPpc64, 9, 0x8000_0015),
    arch(Listed::ScmpArchPpc64le, 9, 0xc000_0015),
    arch(Listed::ScmpArchRiscv64, 5, 0xc000_00f3),
    arch(Listed::ScmpArchS390, 8, 0x0000_0016),
    arch(Listed::ScmpArchS390x, 7, 0x8000_0016),
    arch(Listed::ScmpArchX32, 2, AUDIT_X86_64),
    arch(Listed::ScmpArchX86, 1, 0x4000_0003),
    arch(Listed::ScmpArchX86_64, 0, AUDIT_X86_64),
];

/// The architecture that corten runs on.
const NATIVE: Listed = {
    if cfg!(target_arch = "x86_64") {
        if cfg!(target_pointer_width = "32") { Listed::ScmpArchX32 } else { Listed::ScmpArchX86_64 }
    } else if cfg!(target_arch = "x86") {
        Listed::ScmpArchX86
    } else if cfg!(target_arch = "aarch64") {
        Listed::ScmpArchAarch64
    } else if cfg!(target_arch = "arm") {
        Listed::ScmpArchArm
    } else if cfg!(target_arch = "riscv64") {
        Listed::ScmpArchRiscv64
    } else if cfg!(target_arch = "loongarch64") {
        Listed::ScmpArchLoongarch64
    } else if cfg!(target_arch = "s390x") {
        Listed::ScmpArchS390x
    } else if cfg!(all(target_arch = "powerpc64", target_endian = "little")) {
        Listed::ScmpArchPpc64le
    } else {
        panic!("this architecture has no system call table yet")
    }
};

const PREFIX: &str = "SCMP_ARCH_";

impl Arch {
    /// The architecture of this name in a profile; `SCMP_ARCH_NATIVE` is the one that corten runs on.
    pub(super) fn of(listed: Listed) -> Option<&'static Arch> {
        let wanted = if listed == Listed::ScmpArchNative { NATIVE } else { listed };
        ARCHS.iter().find(|arch| arch.listed == wanted)
    }

    /// The architecture of a name with or without `SCMP_ARCH_`, in any case.
    pub(super) fn of_word(word: &str) -> Option<&'static Arch> {
        let upper = word.to_uppercase();
        let name = upper.strip_prefix(PREFIX).unwrap_or(&upper);
        if name == "NATIVE" {
            Some(Arch::native())
        } else {
            ARCHS.iter().find(|arch| arch.word() == name.to_lowercase())
        }
    }

    /// The first architecture with this audit number.
    pub(super) fn with_audit(audit: u32) -> Option<&'static Arch> {
        ARCHS.iter().rev().find(|arch| arch.audit == audit)
    }

    /// Its name in small letters: `x86_64`.
    pub(super) fn word(&self) -> String {
        self.listed.to_string().trim_start_matches(PREFIX).to_lowercase()
    }

    /// The architecture that corten runs on.
    pub(super) fn native() -> &'static Arch {
        Arch::of(NATIVE).expect("the native architecture is in the table")
    }

    /// On s390 number 0 stands for every number that does not fit the instruction, so also for unknown ones.
    pub(super) fn zero_is_unknown(&self) -> bool {
        matches!(self.listed, Listed::ScmpArchS390 | Listed::ScmpArchS390x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_a_search_finds_every_name() {
        for call in Call::all() {
            assert_eq!(Call::named(call.name()), Some(call));
        }
        assert_eq!(Call::named("no_such_call"), None);
        assert_eq!(Call::named(""), None);
    }

    #[test]
    fn numbers_are_those_of_the_kernel_headers() {
        let number = |listed, name| Call::named(name).unwrap().number(Arch::of(listed).unwrap());
        assert_eq!(number(Listed::ScmpArchX86_64, "read"), Some(0));
        assert_eq!(number(Listed::ScmpArchX86_64, "clone3"), Some(libc::SYS_clone3 as u32));
        assert_eq!(number(Listed::ScmpArchX86, "clone3"), Some(435));
        assert_eq!(number(Listed::ScmpArchX86, "clock_gettime64"), Some(403));
        assert_eq!(number(Listed::ScmpArchX86_64, "clock_gettime64"), None);
        assert_eq!(number(Listed::ScmpArchX32, "ioctl"), Some(X32_BIT + 514));
        assert_eq!(number(Listed::ScmpArchAarch64, "openat"), Some(56));
        assert_eq!(number(Listed::ScmpArchArm, "set_tls"), Some(0xf0005));
        assert_eq!(number(Listed::ScmpArchMips64n32, "read"), Some(6000));
        assert_eq!(number(Listed::ScmpArchS390, "read"), Some(3));
    }

    #[test]
    fn audit_numbers_are_those_that_the_standard_library_of_c_knows() {
        // oci-spec numbers its architectures as libseccomp does: the audit number, but for x32.
        for arch in ARCHS.iter().filter(|arch| arch.listed != Listed::ScmpArchX32) {
            assert_eq!(arch.audit, arch.listed as u32, "{:?}", arch.listed);
        }
    }

    #[test]
    fn socket_calls_of_x86_are_carried_by_socketcall_and_those_of_x86_64_are_not() {
        let [x86, x86_64] = [Listed::ScmpArchX86, Listed::ScmpArchX86_64].map(|arch| Arch::of(arch).unwrap());
        assert_eq!(Call::named("socket").unwrap().carried(x86), Some((102, 1)));
        assert_eq!(Call::named("shmctl").unwrap().carried(x86), Some((117, 24)));
        assert_eq!(Call::named("socket").unwrap().carried(x86_64), None);
        assert_eq!(Call::named("read").unwrap().carried(x86), None);
    }
}
