//! tokio: a thread's storage holds the number of the task that it polls, which is never given again.
//!
//! Functions are found in the symbol table, by the parts of their mangled names: a stripped executable is not known to be
//! one of tokio's. Where the number lies in a thread's storage differs from build to build, and is read out of the code of
//! `TaskIdGuard::enter`, which writes it there before each poll (1.22+). Probes: `OwnedTasks::bind_inner`, by which a task
//! begins, where it was not inlined, and `wake_by_val` and `wake_by_ref`, to which every waker of a task leads. Sources:
//! tokio's `runtime/task/{core,raw,state,waker,list}.rs`.

use std::path::Path;

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

use super::Unsupported;
use super::elf::{Elf, code};
use crate::host::procfs::Procfs;
use crate::model::task::{TaskPlace, TaskPoint, TaskReads, TaskRuntime};

const WAKES: [&[&str]; 2] = [&["5tokio7runtime4task5waker11wake_by_val"], &["5tokio7runtime4task5waker11wake_by_ref"]];
const ENTERS: &[&str] = &["5tokio7runtime4task4core", "11TaskIdGuard", "5enter"];
const BINDS: &[&str] = &["5tokio7runtime4task4list", "10bind_inner"];
/// Where a table of tasks' functions has the one that schedules: a build that differs there has another table.
const SCHEDULES: u64 = 8;
/// Instructions that are followed.
const MAX_STEPS: usize = 512;
/// Places of `bind_inner`, which is compiled for each kind of scheduler.
const MAX_BINDS: usize = 16;

pub(super) fn find(proc: &Procfs, pid: u32) -> Result<Option<TaskRuntime>, Unsupported> {
    let path = proc.path(pid, "exe");
    Elf::with(&path, |elf| read(elf, &path)).unwrap_or(Ok(None))
}

fn read(elf: &Elf<'_>, path: &Path) -> Result<Option<TaskRuntime>, Unsupported> {
    let unsupported = |reason: &str| Unsupported(format!("tokio: {reason}"));
    if !elf.names_contain(WAKES[0][0]) {
        return Ok(None);
    }
    let [by_value, by_reference, enters, binds] = elf.functions([WAKES[0], WAKES[1], ENTERS, BINDS]);
    let code_of = |(address, size): (u64, u64)| code(path, elf.offset(address)?, size);
    let ([by_value], [by_reference]) = (by_value.as_slice(), by_reference.as_slice()) else {
        return Err(unsupported("several versions in one executable"));
    };
    for function in [*by_value, *by_reference] {
        if !code_of(function).is_some_and(|code| leads_on(&code, SCHEDULES)) {
            return Err(unsupported("a version whose tasks have another form"));
        }
    }
    let mut places: Vec<Option<i64>> = enters.into_iter().map(|function| stored(&code_of(function)?)).collect();
    places.dedup();
    let [Some(thread_offset)] = places[..] else {
        return Err(unsupported("where threads keep the number of their task is not found"));
    };
    let reads = TaskReads { is_structure: true, thread_offset, task_offset: 0, kind: 0, connection_offset: 0 };
    let wakes = [*by_value, *by_reference].map(|(address, _)| (TaskPoint::Woken, address));
    let binds = binds.into_iter().take(MAX_BINDS).map(|(address, _)| (TaskPoint::Bound, address));
    let place = |(point, address)| Some(TaskPlace { point, offset: elf.offset(address)? });
    let places = wakes.into_iter().chain(binds).map(place).collect::<Option<Vec<_>>>();
    let places = places.ok_or_else(|| unsupported("a function outside the file"))?;
    Ok(Some(TaskRuntime { language: "tokio", reads, file: path.to_owned(), places }))
}

/// It calls, or goes on in, what lies at an offset from a register.
fn leads_on(code: &[u8], offset: u64) -> bool {
    let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
    decoder.iter().any(|instruction| {
        matches!(instruction.code(), Code::Jmp_rm64 | Code::Call_rm64)
            && instruction.op0_kind() == OpKind::Memory
            && !instruction.is_ip_rel_memory_operand()
            && instruction.memory_displacement64() == offset
    })
}

/// What a register holds, as far as it matters.
#[derive(Clone, Copy, PartialEq)]
enum Held {
    Unknown,
    Number(i64),
    /// So far from the thread pointer.
    Thread(i64),
    /// The function's first argument.
    Argument,
}

#[derive(Clone)]
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
        let from = match (instruction.memory_segment() == Register::FS, instruction.memory_base()) {
            (true, Register::None) => 0,
            (true, base) => match self.get(base) {
                Held::Number(number) => number,
                _ => return None,
            },
            (false, base) => match self.get(base) {
                Held::Thread(offset) => offset,
                _ => return None,
            },
        };
        Some(from.wrapping_add(displacement))
    }

    /// What an instruction leaves behind.
    fn step(&mut self, instruction: &Instruction) {
        const FIRST_SAVED: [Register; 9] = [
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
        if matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall) {
            // The callee may use them as it likes.
            FIRST_SAVED.into_iter().for_each(|register| self.set(register, Held::Unknown));
            return;
        }
        if matches!(instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Push)
            || instruction.op0_kind() != OpKind::Register
        {
            return;
        }
        let target = instruction.op0_register();
        let is_immediate = matches!(instruction.op1_kind(), OpKind::Immediate64 | OpKind::Immediate32to64);
        let held = match (instruction.mnemonic(), instruction.op1_kind()) {
            (Mnemonic::Mov, OpKind::Register) => self.get(instruction.op1_register()),
            (Mnemonic::Mov, _) if is_immediate => Held::Number(instruction.immediate(1).cast_signed()),
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
    }
}

/// Where in the thread's storage a function keeps its first argument, from the thread pointer; `None` where it does not,
/// does so in several places, or in a way that is not understood.
fn stored(code: &[u8]) -> Option<i64> {
    let mut registers = Registers([Held::Unknown; 16]);
    registers.set(Register::RDI, Held::Argument);
    let mut ways = vec![(0, registers)];
    let (mut found, mut steps) = (None, 0);
    while let Some((at, mut registers)) = ways.pop() {
        let mut decoder = Decoder::with_ip(64, code.get(at..)?, at as u64, DecoderOptions::NONE);
        let to = |address: u64| usize::try_from(address).ok().filter(|at| *at < code.len());
        for instruction in &mut decoder {
            steps += 1;
            if instruction.is_invalid() || steps > MAX_STEPS {
                return None;
            }
            let is_store = instruction.mnemonic() == Mnemonic::Mov
                && instruction.op0_kind() == OpKind::Memory
                && instruction.op1_kind() == OpKind::Register
                && registers.get(instruction.op1_register()) == Held::Argument;
            if is_store && let Some(place) = registers.thread_place(&instruction) {
                if found.is_some_and(|found| found != place) {
                    return None;
                }
                found = Some(place);
                // What follows only returns.
                break;
            }
            match instruction.flow_control() {
                FlowControl::ConditionalBranch => {
                    ways.extend(to(instruction.near_branch_target()).map(|at| (at, registers.clone())));
                }
                FlowControl::UnconditionalBranch => {
                    ways.extend(to(instruction.near_branch_target()).map(|at| (at, registers.clone())));
                    break;
                }
                FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall => registers.step(&instruction),
                _ => break,
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{SCHEDULES, leads_on, stored};

    /// As an optimised build has it: the storage's place is a number behind `fs`.
    #[test]
    fn the_place_is_found_behind_a_number() {
        let code = [
            0x41, 0x56, 0x53, 0x50, // push r14; push rbx; push rax
            0x48, 0xc7, 0xc3, 0x38, 0xfd, 0xff, 0xff, // mov rbx, -0x2c8
            0x64, 0x0f, 0xb6, 0x43, 0x40, // movzx eax, byte fs:[rbx + 0x40]
            0x83, 0xf8, 0x01, // cmp eax, 1
            0x74, 0x06, // je over the next
            0x31, 0xc0, // xor eax, eax
            0x58, 0x5b, 0x41, 0x5e, // pop rax; pop rbx; pop r14
            0x64, 0x48, 0x8b, 0x43, 0x28, // mov rax, fs:[rbx + 0x28]
            0x64, 0x48, 0x89, 0x7b, 0x28, // mov fs:[rbx + 0x28], rdi
            0xc3,
        ];
        assert_eq!(stored(&code), Some(-0x2a0));
        for end in 0..code.len() {
            let found = stored(code.get(..end).unwrap_or_default());
            assert!(found.is_none() || found == Some(-0x2a0), "cut at {end}: {found:?}");
        }
    }

    /// As another one has it: by the thread pointer, behind a jump from the way that has lost it.
    #[test]
    fn the_place_is_found_by_the_thread_pointer_on_one_of_several_ways() {
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
        assert_eq!(stored(&code), Some(-0x118));
    }

    #[test]
    fn what_is_not_stored_for_the_thread_is_not_found_and_a_circle_ends() {
        // mov [rsi], rdi; ret
        assert_eq!(stored(&[0x48, 0x89, 0x3e, 0xc3]), None);
        // mov fs:[0x10], rdi; behind a call, rdi is another one's
        assert_eq!(stored(&[0xe8, 0, 0, 0, 0, 0x64, 0x48, 0x89, 0x3c, 0x25, 0x10, 0, 0, 0, 0xc3]), None);
        assert_eq!(stored(&[0x64, 0x48, 0x89, 0x3c, 0x25, 0x10, 0, 0, 0, 0xc3]), Some(16));
        assert_eq!(stored(&[0xeb, 0xfe]), None);
        assert_eq!(stored(&[0x06]), None);
        assert_eq!(stored(&[]), None);
    }

    #[test]
    fn a_waker_leads_to_where_tasks_are_scheduled() {
        // mov rax, [rdi + 16]; jmp [rax + 8]
        assert!(leads_on(&[0x48, 0x8b, 0x47, 0x10, 0xff, 0x60, 0x08], SCHEDULES));
        assert!(leads_on(&[0xff, 0x50, 0x08], SCHEDULES));
        assert!(!leads_on(&[0xff, 0x50, 0x10], SCHEDULES));
        assert!(!leads_on(&[0xff, 0x15, 0x08, 0, 0, 0], SCHEDULES));
        assert!(!leads_on(&[], SCHEDULES));
    }
}
