//! The wire contract between the kernel programs and the agent: records, settings, counters, buckets.
//!
//! Rules: `repr(C)`, fixed-width integers only (no bool, enum, Option or usize), padding written out, size
//! asserted at compile time, no behaviour beyond pure arithmetic. Both sides are built from the same
//! source, and [`record::ABI_VERSION`] guards against mixing objects of two builds.
#![no_std]

pub mod adopt;
pub mod block;
pub mod config;
pub mod counter;
pub mod drops;
pub mod handover;
pub mod histogram;
pub mod interrupt;
pub mod lane;
pub mod marks;
pub mod offsets;
pub mod payload;
pub mod process;
pub mod record;
pub mod syscall;
pub mod task;
pub mod tcp;
pub mod workload;

/// Marks a wire struct: every byte pattern is a valid value and the struct has no padding.
///
/// # Safety
/// Implementors are `repr(C)`, made of fixed-width integers and arrays of them, and have no padding.
/// [`wire!`] checks the size against the sum of the fields.
pub unsafe trait Wire: Copy + 'static {}

/// Declares a wire struct, asserts that it has no padding, and implements [`Wire`].
#[macro_export]
macro_rules! wire {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident : $ty:ty),+ $(,)? }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name { $($(#[$field_meta])* pub $field: $ty),+ }

        const _: () = assert!(
            core::mem::size_of::<$name>() == 0 $(+ core::mem::size_of::<$ty>())+,
            concat!(stringify!($name), " has padding: write it out"),
        );

        // SAFETY: repr(C), and the assertion above shows that there is no padding; the fields are integers
        // or arrays of integers, for which every byte pattern is valid.
        unsafe impl $crate::Wire for $name {}
    };
}
