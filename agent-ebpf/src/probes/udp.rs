//! UDP: datagrams that came and were dropped because their socket was full, by workload.
//!
//! Hook: `tp_btf/udp_fail_queue_rcv_skb` (4.x+), in soft interrupts: adds are atomic. A workload is the cgroup that the
//! socket was made in; before 5.16 nobody's. About 34 ns a dropped datagram over an empty program (320 000 datagrams, busy
//! machine), nothing for others. What is sent and received is counted by the programs of family payload, which are there
//! anyway; errors are read from the kernel's own account.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use core::ffi::c_void;

use seismo_common::workload::{UDP_FULL_BUFFERS, UDP_NO_MEMORY};

use crate::access::Typed;
use crate::sock::Sock;
use crate::workload::Workload;

/// What the socket's own queue being full gives; other errors are the protocol's lack of memory.
const ENOMEM: i32 = 12;

/// `udp_fail_queue_rcv_skb(error, sk, …)`.
#[btf_tracepoint(function = "udp_fail_queue_rcv_skb")]
pub fn udp_drop(ctx: BtfTracePointContext) -> i32 {
    let error = ctx.arg::<i32>(0);
    if let Some(workload) = Workload::of_sock(Sock::<Typed>::new(ctx.arg::<*const c_void>(1))) {
        workload.add_shared(if error == -ENOMEM { UDP_FULL_BUFFERS } else { UDP_NO_MEMORY }, 1);
    }
    0
}
