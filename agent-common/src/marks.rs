//! What stands in the kernel object for numbers that only the running kernel and its agent know: field offsets, settings, the
//! number of a kernel function. The loader writes those in their place, so a program is made for its kernel: to the verifier
//! they are constants like any other, and at run time too.

/// First word of [`crate::offsets::Offsets`]; a word's number is added.
pub const OFFSETS: u32 = 0x5e16_0000;
/// First word of [`crate::config::Settings`].
pub const SETTINGS: u32 = 0x5e17_0000;
/// Number of the function that `bpf_rdonly_cast` is in the running kernel.
pub const CAST: u32 = 0x5e15_3061;

const _: () = assert!(size_of::<crate::offsets::Offsets>() / size_of::<u32>() < 1 << 16);
const _: () = assert!(size_of::<crate::config::Settings>() / size_of::<u32>() < 1 << 16);
