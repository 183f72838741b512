//! A real 32-bit process: an executable of a few dozen instructions, made here and run from memory.
//!
//! It inherits a socket and moves [`BYTES`] bytes of the pattern through it by one system call, by `int 0x80`; needs a
//! kernel with `CONFIG_IA32_EMULATION`, and no 32-bit tool chain.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, RawFd};

use anyhow::{Result, ensure};

pub const BYTES: usize = 100;
/// Where the executable finds the socket.
const SOCKET: RawFd = 100;
/// Where a 32-bit executable usually is.
const BASE: u32 = 0x0804_8000;
const HEADERS: u32 = 52 + 32;

// The first letter of argument 0 says the system call: w(rite), r(ead), or s(end) and g(et) by `socketcall`. The buffer is
// on the stack and holds the pattern's first bytes. Status 0 if all bytes were moved.
core::arch::global_asm!(
    ".pushsection .rodata.seismo_compat, \"a\"",
    ".globl seismo_compat_begin",
    ".globl seismo_compat_end",
    ".code32",
    "seismo_compat_begin:",
    "mov eax, [esp + 4]",
    "movzx ebp, byte ptr [eax]",
    "sub esp, 128",
    "mov esi, esp",
    "xor ecx, ecx",
    "2:",
    "mov byte ptr [esi + ecx], cl",
    "inc ecx",
    "cmp ecx, 100",
    "jb 2b",
    "mov eax, 4",
    "cmp ebp, 'w'",
    "je 3f",
    "mov eax, 3",
    "cmp ebp, 'r'",
    "je 3f",
    // SYS_SEND and SYS_RECV of socketcall, whose arguments are in memory.
    "mov ebx, 9",
    "cmp ebp, 's'",
    "je 4f",
    "mov ebx, 10",
    "4:",
    "push 0",
    "push 100",
    "push esi",
    "push 100",
    "mov ecx, esp",
    "mov eax, 102",
    "int 0x80",
    "jmp 5f",
    "3:",
    "mov ebx, 100",
    "mov ecx, esi",
    "mov edx, 100",
    "int 0x80",
    "5:",
    "xor ebx, ebx",
    "cmp eax, 100",
    "setne bl",
    "mov eax, 1",
    "int 0x80",
    "seismo_compat_end:",
    ".code64",
    ".popsection",
);

unsafe extern "C" {
    static seismo_compat_begin: u8;
    static seismo_compat_end: u8;
}

/// Runs the executable with a socket: `operation` is write, read, send or get.
pub fn run(socket: RawFd, operation: &str) -> Result<()> {
    // SAFETY: no flags; the descriptor is new and nobody else's.
    let descriptor = unsafe { libc::memfd_create(c"32-bit".as_ptr(), 0) };
    ensure!(descriptor >= 0, "memfd_create: {}", io::Error::last_os_error());
    // SAFETY: as above.
    let mut file = unsafe { File::from_raw_fd(descriptor) };
    file.write_all(&executable())?;
    let program = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let name = CString::new(operation)?;
    let (arguments, environment) = ([name.as_ptr(), std::ptr::null()], [std::ptr::null()]);
    // SAFETY: the child only makes system calls; all strings and arrays were made before and end as they should.
    let status = unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::dup2(socket, SOCKET);
            libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr());
            libc::_exit(2);
        }
        let mut status = 0;
        ensure!(libc::waitpid(child, &raw mut status, 0) == child, "{}", io::Error::last_os_error());
        status
    };
    ensure!(libc::WIFEXITED(status), "the 32-bit process ended by signal {}", libc::WTERMSIG(status));
    ensure!(libc::WEXITSTATUS(status) == 0, "the 32-bit process ended with {}", libc::WEXITSTATUS(status));
    println!("{BYTES}");
    Ok(())
}

/// An ELF file of one segment.
fn executable() -> Vec<u8> {
    // SAFETY: both symbols are those of the assembler's text above, in this order.
    let code = unsafe {
        let (begin, end) = (&raw const seismo_compat_begin, &raw const seismo_compat_end);
        std::slice::from_raw_parts(begin, end.offset_from_unsigned(begin))
    };
    let size = HEADERS + code.len() as u32;
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // An executable for the i386, and where it begins.
    for half in [2u16, 3] {
        file.extend(half.to_le_bytes());
    }
    for word in [1, BASE + HEADERS, 52, 0, 0] {
        file.extend(word.to_le_bytes());
    }
    // Sizes and counts: one program header, no section.
    for half in [52u16, 32, 1, 40, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // The segment: loaded as a whole, readable and executable.
    for word in [1, 0, BASE, BASE, size, size, 5, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}
