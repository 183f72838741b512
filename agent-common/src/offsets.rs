//! Offsets of the kernel fields that the programs read, resolved by the loader from the kernel's BTF.
//!
//! Rust has no CO-RE relocations. The loader writes them into the programs ([`crate::marks`]), so the verifier sees constants
//! and checks `pointer + offset` against the type of the pointer: a wrong offset is mostly refused at load.
//! Fields are listed once, in [`FIELDS`], in the order of the struct.

use crate::wire;

/// One kernel field: the struct, and its names in the order they are tried (`a.b` for a member of a member; `a#` for a
/// bit field of one bit, whose offset is counted in bits).
pub struct Field {
    pub of: &'static str,
    pub names: &'static [&'static str],
    /// 0: the programs that read it cannot be loaded without it. Else the value that means "absent".
    pub required: bool,
}

/// Value of an optional field that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

macro_rules! offsets {
    ($($(#[$meta:meta])* $field:ident = $required:literal $of:literal: $($name:literal)|+),+ $(,)?) => {
        wire! {
            /// Byte offsets inside the structs named in [`FIELDS`].
            pub struct Offsets { $($(#[$meta])* pub $field: u32),+ }
        }
        impl Offsets {
            /// No field resolved.
            pub const ABSENT: Self = Self { $($field: ABSENT),+ };
        }
        /// Where each field of [`Offsets`] is found, in the struct's order.
        pub const FIELDS: &[Field] = &[$(Field { of: $of, names: &[$($name),+], required: $required }),+];
    };
}

offsets! {
    task_pid = true "task_struct": "pid",
    task_tgid = true "task_struct": "tgid",
    task_flags = true "task_struct": "flags",
    task_comm = true "task_struct": "comm",
    task_exit_code = true "task_struct": "exit_code",
    task_signal = true "task_struct": "signal",
    /// x86-64: `TS_COMPAT` is bit 1.
    task_thread_status = false "task_struct": "thread_info.status",
    /// x86-64: the thread pointer.
    task_thread_pointer = false "task_struct": "thread.fsbase",
    task_run_delay = false "task_struct": "sched_info.run_delay",
    task_run_count = false "task_struct": "sched_info.pcount",
    task_minor_faults = false "task_struct": "min_flt",
    task_major_faults = false "task_struct": "maj_flt",
    /// ns of the monotonic clock.
    task_start_time = false "task_struct": "start_time",
    task_arrived = false "task_struct": "sched_info.last_arrival",
    task_run_ns = false "task_struct": "se.sum_exec_runtime",
    /// `task_run_ns` when the thread was last given a CPU; only the fair class keeps it.
    task_run_before = false "task_struct": "se.prev_sum_exec_runtime",
    task_migrations = false "task_struct": "se.nr_migrations",
    /// ns, most often in steps of a tick.
    task_user_time = false "task_struct": "utime",
    task_system_time = false "task_struct": "stime",
    /// Held back by the CPU limit of its cgroup: of the thread itself (6.18+), or of its run queue.
    task_throttled = false "task_struct": "throttled",
    task_queue = false "task_struct": "se.cfs_rq",
    queue_throttled = false "cfs_rq": "throttle_count",
    task_state = false "task_struct": "__state"|"state",
    /// In bits.
    task_iowait = false "task_struct": "in_iowait#",
    signal_live = true "signal_struct": "live.counter",
    /// x86-64: `-ENOSYS` from the entry of a system call until its result is stored.
    regs_ax = true "pt_regs": "ax",
    regs_orig_ax = true "pt_regs": "orig_ax",
    regs_si = true "pt_regs": "si",
    regs_dx = true "pt_regs": "dx",
    regs_di = true "pt_regs": "di",
    regs_r10 = true "pt_regs": "r10",
    regs_bx = true "pt_regs": "bx",
    /// Ids of a cgroup and of those above it (up to 5.19, where a helper tells).
    task_cgroups = false "task_struct": "cgroups",
    cgroups_default = false "css_set": "dfl_cgrp",
    cgroup_level = false "cgroup": "level",
    cgroup_node = false "cgroup": "kn",
    cgroup_root = false "cgroup": "root",
    /// 0 for the version 2 hierarchy.
    root_hierarchy = false "cgroup_root": "hierarchy_id",
    /// The cgroup's id.
    node_id = false "kernfs_node": "id",
    /// The cgroup that a socket was made in (5.16+).
    sock_cgroup = false "sock": "sk_cgrp_data.cgroup",
    cgroup_ancestors = false "cgroup": "ancestor_ids",
    task_stack = false "task_struct": "stack",
    task_files = true "task_struct": "files",
    files_table = true "files_struct": "fdt",
    table_size = true "fdtable": "max_fds",
    table_files = true "fdtable": "fd",
    file_private = true "file": "private_data",
    file_inode = true "file": "f_inode",
    inode_mode = true "inode": "i_mode",
    socket_sock = true "socket": "sk",
    sock_family = true "sock": "__sk_common.skc_family",
    sock_protocol = true "sock": "sk_protocol",
    sock_type = true "sock": "sk_type",
    unix_peer = false "unix_sock": "peer",
    sock_local_port = true "sock": "__sk_common.skc_num",
    sock_peer_port = true "sock": "__sk_common.skc_dport",
    sock_local_v4 = true "sock": "__sk_common.skc_rcv_saddr",
    sock_peer_v4 = true "sock": "__sk_common.skc_daddr",
    sock_local_v6 = false "sock": "__sk_common.skc_v6_rcv_saddr",
    sock_peer_v6 = false "sock": "__sk_common.skc_v6_daddr",
    sock_cookie = true "sock": "__sk_common.skc_cookie",
    sock_net = true "sock": "__sk_common.skc_net.net",
    sock_error = true "sock": "sk_err",
    /// `SOCK_DEAD` (its owner closed it) is bit 0 (`enum sock_flags`).
    sock_flags = true "sock": "__sk_common.skc_flags",
    net_inode = true "net": "ns.inum",
    tcp_write_seq = true "tcp_sock": "write_seq",
    tcp_copied_seq = true "tcp_sock": "copied_seq",
    tcp_snd_nxt = false "tcp_sock": "snd_nxt",
    /// Transmission time of the flight's start, and of the last segment acknowledged, µs (`net/ipv4/tcp_rate.c`).
    tcp_first_tx = false "tcp_sock": "first_tx_mstamp",
    /// When data came last, in ticks (lower half).
    socket_arrival = false "inet_connection_sock": "icsk_ack.lrcvtime",
    tcp_total_retrans = true "tcp_sock": "total_retrans",
    tcp_snd_una = true "tcp_sock": "snd_una",
    tcp_rcv_nxt = true "tcp_sock": "rcv_nxt",
    tcp_bytes_acked = true "tcp_sock": "bytes_acked",
    tcp_bytes_received = true "tcp_sock": "bytes_received",
    sock_state = true "sock": "__sk_common.skc_state",
    /// Both directions are shut down where it is 3.
    sock_shutdown = false "sock": "sk_shutdown",
    /// Of a listener: connections that wait to be accepted, how many may, attempts that it dropped.
    sock_waiting = false "sock": "sk_ack_backlog",
    sock_waiting_limit = false "sock": "sk_max_ack_backlog",
    sock_dropped = false "sock": "sk_drops.counter",
    /// Smoothed round trip time in eighths of a µs.
    tcp_srtt = false "tcp_sock": "srtt_us",
    /// When the last segment came or went, µs.
    tcp_now = false "tcp_sock": "tcp_mstamp",
    /// When the first SYN went, until it is answered: the lower half of that clock's ms, or of its µs where the bit is set.
    tcp_first_syn = false "tcp_sock": "retrans_stamp",
    tcp_in_us = false "tcp_sock": "tcp_usec_ts#",
    packet_control = false "sk_buff": "cb",
    control_segments = false "tcp_skb_cb": "tcp_gso_segs",
    message_iterator = true "msghdr": "msg_iter",
    iterator_kind = true "iov_iter": "iter_type",
    iterator_offset = true "iov_iter": "iov_offset",
    iterator_base = true "iov_iter": "ubuf",
    iterator_count = true "iov_iter": "count",
    iterator_segments = true "iov_iter": "nr_segs",
    request_file = true "io_kiocb": "file",
    request_code = true "io_kiocb": "opcode",
    request_state = true "io_kiocb": "async_data",
    /// State of a request that sends or receives, and of one that reads or writes (`io_uring/net.h`, `rw.h`).
    network_iterator = true "io_async_msghdr": "msg.msg_iter",
    network_vectors = true "io_async_msghdr": "vec.iovec",
    /// A request's own structure begins where the `io_kiocb` begins.
    request_done = true "io_sr_msg": "done_io",
    rw_iterator = true "io_async_rw": "iter",
    block_queue = false "request": "q",
    block_operation = false "request": "cmd_flags",
    block_flags = false "request": "rq_flags",
    /// Bytes that are not done yet.
    block_left = false "request": "__data_len",
    /// When it was made, and when the driver got it (0 where nobody wants to know: neither write-back throttling nor
    /// another user of the queue's statistics), ns of the monotonic clock.
    block_start_time = false "request": "start_time_ns",
    block_issue_time = false "request": "io_start_time_ns",
    /// 5.15+.
    queue_disk = false "request_queue": "disk",
    disk_major = false "gendisk": "major",
    disk_minor = false "gendisk": "first_minor",
    /// 5.12+, from when on the tracepoints of a bio have no other parameter.
    bio_device = false "bio": "bi_bdev",
    bio_operation = false "bio": "bi_opf",
    bio_bytes = false "bio": "bi_iter.bi_size",
    /// Whose I/O it is, in the hierarchy that has the `io` controller.
    bio_group = false "bio": "bi_blkg",
    group_account = false "blkcg_gq": "blkcg",
    account_cgroup = false "blkcg": "css.cgroup",
}

const _: () = assert!(core::mem::size_of::<Offsets>() == FIELDS.len() * 4);
