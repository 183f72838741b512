//! What is asked of machine code (x86-64): where a probe is cheap, where it goes on, and where in the storage of its thread it
//! writes.
//!
//! Follows every way through a function with what is known of its registers, as far as [`MAX_STEPS`] lead: what is found is
//! there, what is not found may be. Functions of strangers: nothing here trusts them.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

/// Instructions that are followed, each as often as it is come to in another way.
const MAX_STEPS: usize = 100_000;
/// Ways in which one is come to.
const MAX_WAYS: usize = 8;

/// Instructions of a function's beginning among which a cheap one is looked for.
const BEGINNING: usize = 8;

/// Offset of the first instruction of a function that the kernel emulates (`arch/x86/kernel/uprobes.c`: a push, a jump, a
/// call), while this register still holds what it was called with: to step over another one costs several times as much.
/// 0 where there is none near its beginning.
pub(super) fn emulated(code: &[u8], argument: Register) -> u64 {
    for instruction in Decoder::with_ip(64, code, 0, DecoderOptions::NONE).into_iter().take(BEGINNING) {
        let is_direct = matches!(instruction.op0_kind(), OpKind::NearBranch64);
        let is_push = instruction.mnemonic() == Mnemonic::Push && instruction.op0_kind() == OpKind::Register;
        if is_direct || is_push {
            return instruction.ip();
        }
        let is_written = instruction.op0_kind() == OpKind::Register
            && instruction.op0_register().full_register() == argument
            && !reads_only(&instruction);
        if is_written || instruction.is_invalid() || instruction.flow_control() != FlowControl::Next {
            break;
        }
    }
    0
}

fn reads_only(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Push)
}

/// It calls, or goes on in, what lies at an offset from a register.
pub(super) fn leads_on(code: &[u8], offset: u64) -> bool {
    let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
    decoder.iter().any(|instruction| {
        matches!(instruction.code(), Code::Jmp_rm64 | Code::Call_rm64)
            && instruction.op0_kind() == OpKind::Memory
            && !instruction.is_ip_rel_memory_operand()
            && instruction.memory_displacement64() == offset
    })
}

/// Places in the thread's storage into which a function writes a whole register, from the thread pointer.
pub(super) fn thread_stores(code: &[u8]) -> BTreeSet<i64> {
    let mut found = BTreeSet::new();
    let mut seen: BTreeMap<usize, Vec<Registers>> = BTreeMap::new();
    let mut ways = vec![(0, Registers([Held::Unknown; 16]))];
    let mut steps = 0;
    while let Some((at, mut registers)) = ways.pop() {
        let Some(rest) = code.get(at..) else { continue };
        for instruction in Decoder::with_ip(64, rest, at as u64, DecoderOptions::NONE) {
            let known = seen.entry(instruction.ip() as usize).or_default();
            steps += 1;
            if instruction.is_invalid() || known.contains(&registers) || known.len() >= MAX_WAYS || steps > MAX_STEPS {
                break;
            }
            known.push(registers);
            if stores_register(&instruction) {
                found.extend(registers.thread_place(&instruction));
            }
            let branch = usize::try_from(instruction.near_branch_target()).ok().filter(|at| *at < code.len());
            match instruction.flow_control() {
                FlowControl::ConditionalBranch => ways.extend(branch.map(|at| (at, registers))),
                FlowControl::UnconditionalBranch => {
                    ways.extend(branch.map(|at| (at, registers)));
                    break;
                }
                FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall => registers.step(&instruction),
                _ => break,
            }
        }
    }
    found
}

fn stores_register(instruction: &Instruction) -> bool {
    instruction.mnemonic() == Mnemonic::Mov
        && instruction.op0_kind() == OpKind::Memory
        && instruction.op1_kind() == OpKind::Register
        && instruction.op1_register().is_gpr64()
}

/// What a register holds, as far as it matters.
#[derive(Clone, Copy, PartialEq)]
enum Held {
    Unknown,
    Number(i64),
    /// So far from the thread pointer.
    Thread(i64),
}

#[derive(Clone, Copy, PartialEq)]
struct Registers([Held; 16]);

impl Registers {
    fn place(register: Register) -> Option<usize> {
        register.is_gpr().then(|| register.full_register().number())
    }

    fn get(&self, register: Register) -> Held {
        Self::place(register).and_then(|place| self.0.get(place)).copied().unwrap_or(Held::Unknown)
    }

    fn set(&mut self, register: Register, held: Held) {
        if let Some(place) = Self::place(register).and_then(|place| self.0.get_mut(place)) {
            *place = if register.is_gpr64() { held } else { Held::Unknown };
        }
    }

    /// Where a memory operand lies, from the thread pointer.
    fn thread_place(&self, instruction: &Instruction) -> Option<i64> {
        if instruction.memory_index() != Register::None {
            return None;
        }
        let displacement = instruction.memory_displacement64().cast_signed();
        let (in_thread, base) = (instruction.memory_segment() == Register::FS, instruction.memory_base());
        let from = match (in_thread, self.get(base)) {
            (true, _) if base == Register::None => 0,
            (true, Held::Number(offset)) | (false, Held::Thread(offset)) => offset,
            _ => return None,
        };
        Some(from.wrapping_add(displacement))
    }

    /// What an instruction leaves behind.
    fn step(&mut self, instruction: &Instruction) {
        /// Those that a callee may use as it likes, by the convention of C.
        const LOST: [Register; 9] = [
            Register::RAX,
            Register::RCX,
            Register::RDX,
            Register::RSI,
            Register::RDI,
            Register::R8,
            Register::R9,
            Register::R10,
            Register::R11,
        ];
        if instruction.flow_control() != FlowControl::Next {
            return LOST.into_iter().for_each(|register| self.set(register, Held::Unknown));
        }
        if reads_only(instruction) || instruction.op0_kind() != OpKind::Register {
            return;
        }
        let (target, source) = (instruction.op0_register(), instruction.op1_kind());
        let held = match (instruction.mnemonic(), source) {
            (Mnemonic::Mov, OpKind::Register) => self.get(instruction.op1_register()),
            (Mnemonic::Mov, OpKind::Immediate64 | OpKind::Immediate32to64) => {
                Held::Number(instruction.immediate(1).cast_signed())
            }
            // The word at the thread pointer is the thread pointer.
            (Mnemonic::Mov, OpKind::Memory) if self.thread_place(instruction) == Some(0) => Held::Thread(0),
            (Mnemonic::Lea, OpKind::Memory) if instruction.memory_segment() != Register::FS => {
                self.thread_place(instruction).map_or(Held::Unknown, Held::Thread)
            }
            (Mnemonic::Add, OpKind::Register) => match (self.get(target), self.get(instruction.op1_register())) {
                (Held::Thread(offset), Held::Number(number)) | (Held::Number(number), Held::Thread(offset)) => {
                    Held::Thread(offset.wrapping_add(number))
                }
                _ => Held::Unknown,
            },
            _ => Held::Unknown,
        };
        self.set(target, held);
        if instruction.mnemonic() == Mnemonic::Xchg && source == OpKind::Register {
            self.set(instruction.op1_register(), Held::Unknown);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Register, emulated, leads_on, thread_stores};

    fn stores(code: &[u8]) -> Vec<i64> {
        thread_stores(code).into_iter().collect()
    }

    /// As an optimised build has it: the storage's place is a number behind `fs`.
    #[test]
    fn a_place_is_found_behind_a_number() {
        let code = [
            0x41, 0x56, 0x53, 0x50, // push r14; push rbx; push rax
            0x48, 0xc7, 0xc3, 0x38, 0xfd, 0xff, 0xff, // mov rbx, -0x2c8
            0x64, 0x0f, 0xb6, 0x43, 0x40, // movzx eax, byte fs:[rbx + 0x40]
            0x83, 0xf8, 0x01, // cmp eax, 1
            0x74, 0x07, // je over the next
            0x31, 0xc0, // xor eax, eax
            0x58, 0x5b, 0x41, 0x5e, 0xc3, // pop rax; pop rbx; pop r14; ret
            0x64, 0xc6, 0x43, 0x40, 0x01, // mov byte fs:[rbx + 0x40], 1
            0x64, 0x48, 0x8b, 0x43, 0x28, // mov rax, fs:[rbx + 0x28]
            0x64, 0x48, 0x89, 0x7b, 0x28, // mov fs:[rbx + 0x28], rdi
            0xc3,
        ];
        assert_eq!(stores(&code), [-0x2a0]);
        for end in 0..code.len() {
            let found = stores(code.get(..end).unwrap_or_default());
            assert!(found.is_empty() || found == [-0x2a0], "cut at {end}: {found:?}");
        }
    }

    /// As another one has it: by the thread pointer, where a way that has lost it comes together with one that has not.
    #[test]
    fn a_place_is_found_by_the_thread_pointer_on_one_of_several_ways() {
        let code = [
            0x48, 0x89, 0xfb, // mov rbx, rdi
            0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0, // mov rax, fs:0
            0x48, 0x8d, 0x80, 0xb8, 0xfe, 0xff, 0xff, // lea rax, [rax - 0x148]
            0x83, 0xf9, 0x01, // cmp ecx, 1
            0x74, 0x02, // je over the next
            0x31, 0xc0, // xor eax, eax
            0x48, 0x89, 0x58, 0x30, // mov [rax + 0x30], rbx
            0xc3,
        ];
        assert_eq!(stores(&code), [-0x118]);
    }

    #[test]
    fn what_is_not_of_the_thread_or_no_longer_known_is_not_found_and_a_circle_ends() {
        // mov [rsi], rdi; ret
        assert!(stores(&[0x48, 0x89, 0x3e, 0xc3]).is_empty());
        // mov fs:[0x10], rdi; ret
        assert_eq!(stores(&[0x64, 0x48, 0x89, 0x3c, 0x25, 0x10, 0, 0, 0, 0xc3]), [16]);
        // mov rax, fs:0; call; mov [rax], rdi
        let lost = [0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0, 0xe8, 0, 0, 0, 0, 0x48, 0x89, 0x38, 0xc3];
        assert!(stores(&lost).is_empty());
        // jmp to itself; not an instruction; nothing
        assert!([&[0xeb, 0xfe][..], &[0x06], &[]].into_iter().all(|code| stores(code).is_empty()));
    }

    #[test]
    fn every_place_is_found() {
        let code = [
            0x64, 0x48, 0x89, 0x3c, 0x25, 0x10, 0, 0, 0, // mov fs:[0x10], rdi
            0x64, 0x48, 0x89, 0x34, 0x25, 0x18, 0, 0, 0, // mov fs:[0x18], rsi
            0xc3,
        ];
        assert_eq!(thread_stores(&code), BTreeSet::from([16, 24]));
    }

    #[test]
    fn a_probe_is_put_where_it_is_emulated_and_the_argument_is_still_there() {
        // Of Go: cmp rsp, [r14 + 16]; jbe; push rbp
        assert_eq!(emulated(&[0x49, 0x3b, 0x66, 0x10, 0x76, 0x20, 0x55], Register::RAX), 4);
        // lea r12, [rsp - 0x30]; cmp r12, [r14 + 16]; jbe near
        let far = [0x4c, 0x8d, 0x64, 0x24, 0xd0, 0x4d, 0x3b, 0x66, 0x10, 0x0f, 0x86, 0, 1, 0, 0];
        assert_eq!(emulated(&far, Register::RAX), 9);
        // push rbx
        assert_eq!(emulated(&[0x53, 0xc3], Register::RDI), 0);
        // Of tokio: sub rsp, 0x18; mov rax, [rdi]; lea rcx, [rsp + 8]; test al, 2; jne
        let wakes = [0x48, 0x83, 0xec, 0x18, 0x48, 0x8b, 0x07, 0x48, 0x8d, 0x4c, 0x24, 0x08, 0xa8, 0x02, 0x75, 0x10];
        assert_eq!(emulated(&wakes, Register::RDI), 14);
        // sub rsp, 0x18; mov rdi, rax; push rbx: another argument by then. The same by a register that is not written.
        let lost = [0x48, 0x83, 0xec, 0x18, 0x48, 0x89, 0xc7, 0x53];
        assert_eq!([Register::RDI, Register::RSI].map(|argument| emulated(&lost, argument)), [0, 7]);
        // A jump to what a register says is not emulated; nothing is nothing.
        assert_eq!([&[0x90, 0xff, 0xe0][..], &[0x06], &[]].map(|code| emulated(code, Register::RDI)), [0; 3]);
    }

    #[test]
    fn a_function_leads_on_to_what_lies_at_an_offset() {
        // mov rax, [rdi + 16]; jmp [rax + 8]
        assert!(leads_on(&[0x48, 0x8b, 0x47, 0x10, 0xff, 0x60, 0x08], 8));
        assert!(leads_on(&[0xff, 0x50, 0x08], 8));
        assert!(!leads_on(&[0xff, 0x50, 0x10], 8));
        assert!(!leads_on(&[0xff, 0x15, 0x08, 0, 0, 0], 8));
        assert!(!leads_on(&[], 8));
    }
}
