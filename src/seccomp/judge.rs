//! A machine for classic BPF as seccomp(2) runs it: the judge of what the compiler writes.

use super::tables::Arch;
use crate::sys::seccomp::Instruction;

/// What a run ended in, and how many instructions it took.
pub(super) struct Run {
    pub(super) verdict: u32,
    pub(super) steps: usize,
}

/// Runs a program on one call, as a native kernel lays out `struct seccomp_data`.
pub(super) fn run(program: &[Instruction], number: u32, audit: u32, args: [u64; 6]) -> Run {
    let mut data = [0_u8; 64];
    data[0..4].copy_from_slice(&number.to_ne_bytes());
    data[4..8].copy_from_slice(&audit.to_ne_bytes());
    for (at, arg) in args.iter().enumerate() {
        data[16 + 8 * at..][..8].copy_from_slice(&arg.to_ne_bytes());
    }
    let (mut at, mut held, mut steps) = (0, 0_u32, 0);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        steps += 1;
        at += 1;
        let jump = |yes: bool| usize::from(if yes { jt } else { jf });
        match u32::from(code) {
            0x20 => {
                assert!(k % 4 == 0 && k < 64, "a load of {k}");
                held = u32::from_ne_bytes(data[k as usize..][..4].try_into().unwrap());
            }
            0x54 => held &= k,
            0x05 => at += k as usize,
            0x15 => at += jump(held == k),
            0x25 => at += jump(held > k),
            0x35 => at += jump(held >= k),
            0x45 => at += jump(held & k != 0),
            0x06 => return Run { verdict: k, steps },
            code => panic!("instruction {code:#x}"),
        }
    }
}

/// A run for an architecture's call.
pub(super) fn verdict(program: &[Instruction], arch: &Arch, number: u32, args: [u64; 6]) -> u32 {
    run(program, number, arch.audit, args).verdict
}
