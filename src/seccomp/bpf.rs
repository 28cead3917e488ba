//! An assembler of classic BPF that writes programs from their end to their start.
//!
//! BPF only jumps forwards. Written backwards, every target exists before the jump to it, and the distance is known.

use crate::sys::seccomp::Instruction;

/// Where an instruction lies: how many come after it.
pub(super) type Label = usize;

/// Where a jump may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JumpTarget {
    /// The end of the program with this verdict (`SECCOMP_RET_*`).
    Return(u32),
    At(Label),
}

/// Comparisons of the accumulator with a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    Equal = libc::BPF_JEQ as isize,
    Greater = libc::BPF_JGT as isize,
    AtLeast = libc::BPF_JGE as isize,
    AnyBit = libc::BPF_JSET as isize,
}

/// The farthest that a conditional jump reaches.
const REACH: usize = u8::MAX as usize;

/// The program so far, the last instruction first.
#[derive(Default)]
pub(super) struct Assembler {
    reversed: Vec<Instruction>,
    /// The nearest return of each verdict. The verdicts are few, so a list is looked through.
    returns: Vec<(u32, Label)>,
}

impl Assembler {
    /// Loads the word of `seccomp_data` at this offset and goes on at `then`.
    pub(super) fn load(&mut self, offset: u32, then: Label) -> Label {
        self.follow(then);
        self.push(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
    }

    /// Keeps only these bits of the accumulator and goes on at `then`.
    pub(super) fn and(&mut self, mask: u32, then: Label) -> Label {
        self.follow(then);
        self.push(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, mask)
    }

    /// Compares the accumulator and goes one of two ways.
    pub(super) fn branch(&mut self, compare: Compare, value: u32, yes: JumpTarget, no: JumpTarget) -> Label {
        // The bridge for `no` may still come between the branch and the target of `yes`.
        let yes = self.within_reach(yes, 1);
        let no = self.within_reach(no, 0);
        let (yes, no) = (self.distance(yes), self.distance(no));
        self.push(libc::BPF_JMP | libc::BPF_K | compare as u32, yes as u8, no as u8, value)
    }

    /// A label for a target.
    pub(super) fn label(&mut self, target: JumpTarget) -> Label {
        match target {
            JumpTarget::At(label) => label,
            JumpTarget::Return(_) => self.within_reach(target, 0),
        }
    }

    /// The program, first instruction first.
    pub(super) fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }

    /// How many instructions lie between the next one and `label`.
    fn distance(&self, label: Label) -> usize {
        self.reversed.len() - label - 1
    }

    /// A place from which `target` goes on, near enough for a branch after `spare` more instructions. A far return
    /// is repeated, which is as long as a jump to it and faster.
    fn within_reach(&mut self, target: JumpTarget, spare: usize) -> Label {
        match target {
            JumpTarget::At(label) if self.distance(label) + spare <= REACH => label,
            JumpTarget::At(label) => self.push(libc::BPF_JMP | libc::BPF_JA, 0, 0, self.distance(label) as u32),
            JumpTarget::Return(verdict) => {
                let known = self.returns.iter().position(|&(of, _)| of == verdict);
                if let Some(known) = known
                    && self.distance(self.returns[known].1) + spare <= REACH
                {
                    return self.returns[known].1;
                }
                let label = self.push(libc::BPF_RET | libc::BPF_K, 0, 0, verdict);
                match known {
                    Some(known) => self.returns[known].1 = label,
                    None => self.returns.push((verdict, label)),
                }
                label
            }
        }
    }

    /// Makes sure that what is written next is followed by `then`.
    fn follow(&mut self, then: Label) {
        if self.distance(then) > 0 {
            self.push(libc::BPF_JMP | libc::BPF_JA, 0, 0, self.distance(then) as u32);
        }
    }

    fn push(&mut self, code: u32, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(Instruction { code: code as u16, jt, jf, k });
        self.reversed.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::super::interpreter::{Data, run};
    use super::*;

    #[test]
    fn a_branch_reaches_targets_beyond_the_255_instructions_of_a_jump() {
        for gap in [0, 1, 252, 253, 254, 255, 256, 600] {
            let mut out = Assembler::default();
            let far = out.label(JumpTarget::Return(1));
            let far = out.branch(Compare::Equal, 7, JumpTarget::Return(7), JumpTarget::At(far));
            let far = out.load(0, far);
            for _ in 0..gap {
                out.push(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0);
            }
            let start = out.branch(Compare::Greater, 5, JumpTarget::At(far), JumpTarget::Return(2));
            out.load(0, start);
            let program = out.finish();
            let verdict = |nr| run(&program, &Data::new(0, nr, [0; 6], false)).verdict;
            assert_eq!([verdict(5), verdict(6), verdict(7)], [2, 1, 7], "a gap of {gap}");
        }
    }
}
