//! How a field of a kernel structure is read: by a direct load, or by a helper that accepts any address.
//!
//! [`Typed`]: the verifier knows what the pointer points to and checks offset and size against it; 1–2 ns.
//! [`Probed`]: the pointer is a number to the verifier, so nothing is checked but the access itself, and an address that is
//! not mapped reads as zero. A load as well from 6.2, where any address can be taken for that of a struct
//! (`bpf_rdonly_cast`, which the verifier replaces by a move); before, a helper of 14–20 ns. Chosen at compile time: a
//! program pays only for what it uses.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use core::ffi::c_void;
use core::mem::{MaybeUninit, transmute};

use seismo_common::marks::CAST;

use crate::kernel::setting;

pub trait Access: Copy {
    /// Reads a `T` at `base + offset`.
    ///
    /// # Safety
    /// `T` is an integer or a pointer. For [`Typed`], `base` is a pointer that the verifier knows as a kernel type and
    /// `T` lies within it at `offset`; the verifier refuses the program otherwise.
    unsafe fn load<T: Copy>(base: *const c_void, offset: u32) -> T;

    /// A pointer as a number to calculate with, which the verifier does not allow with a pointer that it knows.
    fn number(pointer: *const c_void) -> u64;
}

#[derive(Clone, Copy)]
pub struct Typed;

#[derive(Clone, Copy)]
pub struct Probed;

impl Access for Typed {
    #[inline(always)]
    unsafe fn load<T: Copy>(base: *const c_void, offset: u32) -> T {
        // SAFETY: by contract; alignment is that of the kernel's own field.
        unsafe { *base.wrapping_byte_add(offset as usize).cast::<T>() }
    }

    #[inline(always)]
    fn number(pointer: *const c_void) -> u64 {
        let on_stack = pointer;
        // SAFETY: reads the pointer's own eight bytes.
        unsafe { Probed::load((&raw const on_stack).cast(), 0) }
    }
}

impl Access for Probed {
    #[inline(always)]
    unsafe fn load<T: Copy>(base: *const c_void, offset: u32) -> T {
        if setting!(words_type) != 0 && size_of::<T>() <= size_of::<u64>() {
            let words = cast(base.wrapping_byte_add(offset as usize), setting!(words_type));
            // SAFETY: to the verifier a struct that begins with a word; a bad address reads as zero.
            return unsafe { *words.cast::<T>() };
        }
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: writes the value's size to the value; a bad address is an error that leaves zeroes. Zeroes are a valid
        // integer or pointer.
        unsafe {
            bpf_probe_read_kernel(
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                base.wrapping_byte_add(offset as usize).cast(),
            );
            value.assume_init()
        }
    }

    #[inline(always)]
    fn number(pointer: *const c_void) -> u64 {
        pointer as u64
    }
}

/// An address as that of a struct by its type id, on kernels that have the function.
#[inline(always)]
pub fn cast(address: *const c_void, of: u32) -> *const c_void {
    // SAFETY: not a function but the number of one, which the loader replaces before a kernel sees it; where it cannot, the
    // setting is 0 and the verifier does not come here. It changes nothing but the type.
    let cast: unsafe extern "C" fn(*const c_void, u32) -> *const c_void = unsafe { transmute(CAST as usize) };
    // SAFETY: as above.
    unsafe { cast(address, of) }
}
