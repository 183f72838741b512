//! One reason for every early return of a kernel program that loses something a user would miss.

/// The ring was full (`bpf_ringbuf_output` failed).
pub const RING_FULL: usize = 0;
/// A test asked for this loss (`Settings::drop_every`).
pub const INJECTED: usize = 1;
/// The socket was not a full TCP socket (`bpf_skc_to_tcp_sock` said no).
pub const NOT_TCP_SOCK: usize = 2;
/// The per-CPU scratch buffer could not be had.
pub const NO_SCRATCH: usize = 3;

/// Number of reasons.
pub const DROP_REASONS: usize = 4;

/// Label values, in order.
pub const DROP_NAMES: [&str; DROP_REASONS] = ["ring_full", "injected", "not_tcp_sock", "no_scratch"];
