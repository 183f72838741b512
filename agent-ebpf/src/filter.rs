//! Whose payload may be read. Decided in the kernel, before a byte is copied: exclude wins, then any include.
//!
//! Cost out of scope: two array lookups and at most eight comparisons per kind that is configured.
//! With no include rule nothing is ever in scope.

use aya_ebpf::helpers::generated::bpf_get_current_ancestor_cgroup_id;
use core::ffi::c_void;

use seismo_common::config::{SCOPE_ENTRIES, ScopeRules, TGID_EXCLUDED, TGID_INCLUDED, tgid_place};
use seismo_common::offsets::ABSENT;

use crate::access::{Access, Probed, Typed};
use crate::kernel::{Task, offset, setting};
use crate::maps::{ADOPT_TGIDS, SCOPE, SCOPE_TGIDS};
use crate::sock::Sock;

/// May anything be in scope at all?
#[inline(always)]
pub fn is_set() -> bool {
    SCOPE.get(0).is_some_and(|scope| scope.anything != 0)
}

/// Is a socket operation of the running task in scope?
#[inline(always)]
pub fn in_scope<A: Access>(task: Task, sock: Sock<A>) -> bool {
    decide(task, Some(sock))
}

/// Is the running task in scope by itself, whatever its sockets are?
#[inline(always)]
pub fn process_in_scope(task: Task) -> bool {
    decide::<Typed>(task, None)
}

#[inline(always)]
fn decide<A: Access>(task: Task, sock: Option<Sock<A>>) -> bool {
    let Some(scope) = SCOPE.get(0) else { return false };
    let by_process = if scope.processes == 0 { 0 } else { by_process(task.tgid()) };
    if by_process == TGID_EXCLUDED || matches(&scope.exclude, sock) {
        return false;
    }
    by_process == TGID_INCLUDED || matches(&scope.include, sock)
}

/// What is said of a process by itself; 0: nothing.
#[inline(always)]
fn by_process(tgid: u32) -> u8 {
    let (word, shift) = tgid_place(tgid);
    SCOPE_TGIDS.get(word).map_or(0, |word| (*word >> shift) as u8 & (TGID_INCLUDED | TGID_EXCLUDED))
}

/// Does any rule of one side match? Rules about sockets match no process.
#[inline(always)]
fn matches<A: Access>(rules: &ScopeRules, sock: Option<Sock<A>>) -> bool {
    if rules.all != 0 {
        return true;
    }
    if rules.cgroups != 0 {
        for index in 0..SCOPE_ENTRIES {
            if index as u32 >= rules.cgroups {
                break;
            }
            // SAFETY: index < SCOPE_ENTRIES, the length of both arrays.
            let found = unsafe {
                let level = *rules.cgroup_levels.as_ptr().add(index);
                let id = *rules.cgroup_ids.as_ptr().add(index);
                id != 0 && ancestor(level) == id
            };
            if found {
                return true;
            }
        }
    }
    match sock {
        Some(sock) => matches_socket(rules, sock),
        None => false,
    }
}

/// Is a socket in scope that `tgid` has open, whoever runs now?
#[inline(always)]
pub fn open_socket_in_scope<A: Access>(tgid: u32, sock: Sock<A>) -> bool {
    let Some(scope) = SCOPE.get(0) else { return false };
    // SAFETY: the value is a byte that userspace replaces as a whole.
    let by_cgroup = unsafe { ADOPT_TGIDS.get(tgid) }.copied().unwrap_or(0);
    let by_process = by_process(tgid);
    if by_process == TGID_EXCLUDED || by_cgroup == TGID_EXCLUDED {
        return false;
    }
    if scope.exclude.all != 0 || matches_socket(&scope.exclude, sock) {
        return false;
    }
    by_process == TGID_INCLUDED
        || by_cgroup == TGID_INCLUDED
        || scope.include.all != 0
        || matches_socket(&scope.include, sock)
}

/// Does a rule about sockets match?
#[inline(always)]
fn matches_socket<A: Access>(rules: &ScopeRules, sock: Sock<A>) -> bool {
    if rules.ports != 0 {
        let (local, peer) = (u32::from(sock.local_port()), u32::from(sock.peer_port()));
        for index in 0..SCOPE_ENTRIES {
            // SAFETY: index < SCOPE_ENTRIES. Unused entries are 0, which no connected port is.
            let port = unsafe { *rules.port_values.as_ptr().add(index) };
            if port != 0 && (port == local || port == peer) {
                return true;
            }
        }
    }
    if rules.netns != 0 {
        let netns = sock.netns();
        for index in 0..SCOPE_ENTRIES {
            // SAFETY: index < SCOPE_ENTRIES. Unused entries are 0, which no namespace is.
            if unsafe { *rules.netns_inodes.as_ptr().add(index) } == netns {
                return true;
            }
        }
    }
    false
}

/// Id of the running task's cgroup at a level of the tree (0: the root), 0 if its own is above that.
#[inline(always)]
fn ancestor(level: u32) -> u64 {
    if setting!(cgroup_ancestor) != 0 {
        // SAFETY: the helper takes any level.
        return unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) };
    }
    if offset!(cgroup_ancestors) == ABSENT {
        return 0;
    }
    // SAFETY: the running task's own cgroup lives as long as it is in it; behind the task everything is read by probe.
    unsafe {
        let cgroups: *const c_void = Task::load(Task::current().0, offset!(task_cgroups));
        let cgroup: *const c_void = Probed::load(cgroups, offset!(cgroups_default));
        if level > Probed::load::<u32>(cgroup, offset!(cgroup_level)) {
            return 0;
        }
        Probed::load(cgroup.wrapping_byte_add(level as usize * 8), offset!(cgroup_ancestors))
    }
}
