//! The running task and its saved registers, the numbers that the loader writes, and what hides a value from the compiler.
//!
//! Kernels before 5.11 give the running task only as an address: its fields are then read by probe. Which of the two is
//! a setting and a constant by then, so that the verifier removes the other. Nothing here writes.

use aya_ebpf::helpers::generated::{
    bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_current_task_btf, bpf_task_pt_regs,
};
use core::ffi::c_void;

use seismo_common::offsets::ABSENT;

use crate::access::{self, Access, Probed, Typed};

/// Kernel thread, or an io worker acting for a process (`PF_KTHREAD`, `PF_IO_WORKER` in `sched.h`).
const PF_KTHREAD: u32 = 0x0020_0000;
const PF_IO_WORKER: u32 = 0x0000_0010;
/// Is ending (`PF_EXITING`).
const PF_EXITING: u32 = 0x0000_0004;
/// 32-bit system call under way (`TS_COMPAT` in `asm/thread_info.h`, x86).
const TS_COMPAT: u32 = 2;

/// A number that the loader writes in place of a mark ([`seismo_common::marks`]): one instruction with a constant.
#[inline(always)]
pub fn written<const MARK: u32>() -> u32 {
    let number: u64;
    // SAFETY: gives a register a value; what the loader writes there has 32 bits.
    unsafe {
        core::arch::asm!("{0} = {1}", out(reg) number, const MARK, options(nomem, nostack, preserves_flags));
        core::hint::assert_unchecked(number <= u32::MAX as u64);
    }
    number as u32
}

/// The word of a table that begins `bytes` behind its beginning.
pub const fn mark(table: u32, bytes: usize) -> u32 {
    table + (bytes / size_of::<u32>()) as u32
}

/// Offset of a kernel field ([`seismo_common::offsets`]).
macro_rules! offset {
    ($field:ident) => {
        $crate::kernel::written::<
            {
                $crate::kernel::mark(
                    seismo_common::marks::OFFSETS,
                    core::mem::offset_of!(seismo_common::offsets::Offsets, $field),
                )
            },
        >()
    };
}
pub(crate) use offset;

/// One of the agent's settings ([`seismo_common::config::Settings`]), or a word of one.
macro_rules! setting {
    ($field:ident) => {
        $crate::kernel::setting!($field, 0)
    };
    ($field:ident, $index:literal) => {
        $crate::kernel::written::<
            {
                $crate::kernel::mark(
                    seismo_common::marks::SETTINGS,
                    core::mem::offset_of!(seismo_common::config::Settings, $field) + $index * size_of::<u32>(),
                )
            },
        >()
    };
}
pub(crate) use setting;

/// A task: the running one, or one that a tracepoint gave.
#[derive(Clone, Copy)]
pub struct Task(pub *const c_void);

impl Task {
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: no arguments; the first gives a pointer that the verifier knows, the second an address.
        unsafe {
            if setting!(task_btf) != 0 {
                Self(bpf_get_current_task_btf().cast())
            } else {
                Self(bpf_get_current_task() as *const c_void)
            }
        }
    }

    /// Reads a field of the task, or of something that [`Task::load`] led to.
    ///
    /// # Safety
    /// As for [`Access::load`], of a task where the verifier knows it.
    #[inline(always)]
    pub unsafe fn load<T: Copy>(base: *const c_void, offset: u32) -> T {
        // SAFETY: by contract.
        unsafe { if setting!(task_btf) != 0 { Typed::load(base, offset) } else { Probed::load(base, offset) } }
    }

    #[inline(always)]
    pub fn tid(self) -> u32 {
        // SAFETY: a task_struct, `pid`.
        unsafe { Self::load(self.0, offset!(task_pid)) }
    }

    #[inline(always)]
    pub fn tgid(self) -> u32 {
        // SAFETY: a task_struct, `tgid`.
        unsafe { Self::load(self.0, offset!(task_tgid)) }
    }

    #[inline(always)]
    fn flags(self) -> u32 {
        // SAFETY: a task_struct, `flags`.
        unsafe { Self::load(self.0, offset!(task_flags)) }
    }

    #[inline(always)]
    pub fn is_kernel_thread(self) -> bool {
        self.flags() & PF_KTHREAD != 0
    }

    #[inline(always)]
    pub fn is_io_worker(self) -> bool {
        self.flags() & PF_IO_WORKER != 0
    }

    #[inline(always)]
    pub fn is_exiting(self) -> bool {
        self.flags() & PF_EXITING != 0
    }

    /// In a 32-bit system call. False where the kernel has no such field.
    #[inline(always)]
    pub fn is_compat(self) -> bool {
        if offset!(task_thread_status) == ABSENT {
            return false;
        }
        // SAFETY: a task_struct, `thread_info.status`.
        let status: u32 = unsafe { Self::load(self.0, offset!(task_thread_status)) };
        status & TS_COMPAT != 0
    }

    /// `comm` as two words (its 16 bytes).
    #[inline(always)]
    pub fn comm(self) -> [u64; 2] {
        let at = offset!(task_comm);
        // SAFETY: a task_struct; `comm` is 16 bytes.
        unsafe { [Self::load(self.0, at), Self::load(self.0, at + 8)] }
    }

    /// The registers saved when the thread entered the kernel. 5.15+.
    #[inline(always)]
    pub fn registers(self) -> Registers {
        // SAFETY: `stack` of task_struct; the helper takes a trusted task pointer, which `current` gives on these kernels.
        Registers(unsafe {
            if setting!(registers_type) != 0 {
                let stack: *const c_void = Typed::load(self.0, offset!(task_stack));
                access::cast(stack.wrapping_byte_add(setting!(registers_place) as usize), setting!(registers_type))
            } else {
                bpf_task_pt_regs(self.0.cast_mut().cast()) as *const c_void
            }
        })
    }
}

/// Thread and process id of the running task, without reading it.
#[inline(always)]
pub fn current_ids() -> (u32, u32) {
    // SAFETY: no arguments.
    let ids = unsafe { bpf_get_current_pid_tgid() };
    (ids as u32, (ids >> 32) as u32)
}

/// Saved user registers (`struct pt_regs`, x86-64).
#[derive(Clone, Copy)]
pub struct Registers(pub *const c_void);

impl Registers {
    #[inline(always)]
    fn word(self, offset: u32) -> u64 {
        // SAFETY: a pt_regs to the verifier, and the offset of one of its words.
        unsafe { Typed::load(self.0, offset) }
    }

    /// System call number, or -1 outside one.
    #[inline(always)]
    pub fn syscall(self) -> i64 {
        self.word(offset!(regs_orig_ax)).cast_signed()
    }

    /// Is the system call still running? On the way out of one, work that others left for this thread (io_uring
    /// completions) runs with the registers of a call that it has nothing to do with.
    #[inline(always)]
    pub fn in_syscall(self) -> bool {
        const ENOSYS: i64 = 38;
        // The entry code stores -ENOSYS where the result will be.
        self.word(offset!(regs_ax)).cast_signed() == -ENOSYS
    }

    /// First argument.
    #[inline(always)]
    pub fn argument_0(self) -> u64 {
        self.word(offset!(regs_di))
    }

    /// Second argument.
    #[inline(always)]
    pub fn argument_1(self) -> u64 {
        self.word(offset!(regs_si))
    }

    /// Third argument.
    #[inline(always)]
    pub fn argument_2(self) -> u64 {
        self.word(offset!(regs_dx))
    }

    /// Fourth argument.
    #[inline(always)]
    pub fn argument_3(self) -> u64 {
        self.word(offset!(regs_r10))
    }

    /// First argument of a 32-bit system call.
    #[inline(always)]
    pub fn compat_argument_0(self) -> u64 {
        self.word(offset!(regs_bx)) & 0xffff_ffff
    }
}

/// Kinds of file (`stat.h`).
pub const S_IFSOCK: u16 = 0xc000;
const S_IFMT: u16 = 0xf000;

/// A `struct file`.
#[derive(Clone, Copy)]
pub struct File(*const c_void);

impl File {
    /// The file behind a descriptor of the running thread; the file itself is read by probe. A descriptor that another
    /// thread closed and opened again meanwhile gives that file.
    #[inline(always)]
    pub fn of(task: Task, descriptor: u64) -> Option<Self> {
        let descriptor = descriptor & 0xffff_ffff;
        // SAFETY: the table of the running thread.
        unsafe {
            let files: *const c_void = Task::load(task.0, offset!(task_files));
            let table: *const c_void = Task::load(files, offset!(files_table));
            if descriptor >= u64::from(Task::load::<u32>(table, offset!(table_size))) {
                return None;
            }
            let array: *const c_void = Task::load(table, offset!(table_files));
            let file: *const c_void = Probed::load(array.wrapping_byte_add(descriptor as usize * 8), 0);
            if file.is_null() { None } else { Some(Self(file)) }
        }
    }

    /// As in [`S_IFSOCK`].
    #[inline(always)]
    pub fn kind(self) -> u16 {
        // SAFETY: read by probe.
        unsafe {
            let inode: *const c_void = Probed::load(self.0, offset!(file_inode));
            Probed::load::<u16>(inode, offset!(inode_mode)) & S_IFMT
        }
    }

    /// What its kind keeps behind it.
    #[inline(always)]
    pub fn private(self) -> *const c_void {
        // SAFETY: read by probe.
        unsafe { Probed::load(self.0, offset!(file_private)) }
    }
}

/// Hides a value from the compiler, so that a bound written after it survives to the verifier. The instruction is a
/// real one (`rN = rN`): a comment-only `asm!` breaks the object's line information.
#[inline(always)]
pub fn opaque(value: u64) -> u64 {
    let mut hidden = value;
    // SAFETY: moves a register onto itself.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) hidden, options(pure, nomem, nostack, preserves_flags)) };
    hidden
}
