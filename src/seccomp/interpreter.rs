//! An interpreter of classic BPF as seccomp(2) runs it, for the programs that the compiler writes.

use crate::sys::seccomp::Instruction;

/// The verdict of a run, and the number of instructions that it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) verdict: u32,
    pub(super) steps: usize,
}

/// One call, as the words of `struct seccomp_data`.
pub(super) struct Data([u32; 16]);

impl Data {
    pub(super) fn new(audit: u32, number: u32, args: [u64; 6], big_endian: bool) -> Data {
        let mut words = [0; 16];
        words[..2].copy_from_slice(&[number, audit]);
        for (at, arg) in args.into_iter().enumerate() {
            let (low, high) = (arg as u32, (arg >> 32) as u32);
            words[4 + 2 * at..][..2].copy_from_slice(&if big_endian { [high, low] } else { [low, high] });
        }
        Data(words)
    }
}

/// Runs a program of the compiler. Instructions that it never writes count as "kill"; the kernel would not load them.
pub(super) fn run(program: &[Instruction], data: &Data) -> Run {
    let (mut at, mut held, mut steps) = (0, 0_u32, 0);
    loop {
        let Some(&Instruction { code, jt, jf, k }) = program.get(at) else {
            return Run { verdict: libc::SECCOMP_RET_KILL_PROCESS, steps };
        };
        steps += 1;
        at += 1;
        let jump = |yes: bool| usize::from(if yes { jt } else { jf });
        match code {
            0x20 if k < 64 => held = data.0[k as usize / 4],
            0x54 => held &= k,
            0x05 => at += k as usize,
            0x15 => at += jump(held == k),
            0x25 => at += jump(held > k),
            0x35 => at += jump(held >= k),
            0x45 => at += jump(held & k != 0),
            0x06 => return Run { verdict: k, steps },
            _ => return Run { verdict: libc::SECCOMP_RET_KILL_PROCESS, steps },
        }
    }
}

/// Runs the parts of a program as the kernel does: the strictest verdict counts.
pub(super) fn run_all(parts: &[Vec<Instruction>], data: &Data) -> Run {
    let runs = parts.iter().map(|part| run(part, data));
    // The kernel orders actions as signed numbers (`ACTION_ONLY`).
    let strictest = |one: Run, other: Run| {
        let action = |run: &Run| (run.verdict & libc::SECCOMP_RET_ACTION_FULL) as i32;
        let verdict = if action(&other) < action(&one) { other.verdict } else { one.verdict };
        Run { verdict, steps: one.steps + other.steps }
    };
    runs.reduce(strictest).unwrap_or(Run { verdict: libc::SECCOMP_RET_ALLOW, steps: 0 })
}

/// Runs it for a call of an architecture.
#[cfg(test)]
pub(super) fn verdict(program: &[Instruction], arch: &super::tables::Arch, number: u32, args: [u64; 6]) -> u32 {
    run(program, &Data::new(arch.audit, number, args, arch.big_endian)).verdict
}
