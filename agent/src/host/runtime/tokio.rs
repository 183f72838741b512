//! tokio: a thread's storage holds the number of the task that it polls, which is never given again.
//!
//! Functions are found in the symbol table, by the parts of their mangled names: a stripped executable is not known to be
//! one of tokio's. Where the number lies in a thread's storage differs from build to build, and is read out of the code:
//! whatever polls a task or drops its future writes it there, and is all that does in `runtime::task::core`. Tasks have this
//! form since 1.23. Probes: `OwnedTasks::bind_inner`, by which a task begins, where it was not inlined, and `wake_by_val`
//! and `wake_by_ref`, to which every waker of a task leads. Sources: tokio's `runtime/task/{core,raw,state,waker,list}.rs`.

use std::path::Path;

use iced_x86::Register;

use super::Unsupported;
use super::code::{emulated, leads_on, thread_stores};
use super::elf::{Elf, code};
use crate::model::task::{TaskPlace, TaskPoint, TaskReads, TaskRuntime};

/// What all names have in them.
const RUNTIME: &str = "5tokio7runtime";
const BY_VALUE: &[&str] = &["4task5waker11wake_by_val"];
const BY_REFERENCE: &[&str] = &["4task5waker11wake_by_ref"];
const BINDS: &[&str] = &["4task4list", "10bind_inner"];
/// What writes the number: the function itself, and those that it may be inlined into.
const SETS: &[&str] = &["7context19set_current_task_id"];
const ENTERS: &[&str] = &["4task4core", "11TaskIdGuard", "5enter"];
const POLLS: &[&str] = &["4task4core", "Core", "4poll"];
const DROPS: &[&str] = &["4task4core", "Core", "9set_stage"];
/// What the wakers may leave it to that a task is scheduled.
const SCHEDULES: &[&str] = &["4task7harness", "RawTask", "11wake_by_"];
/// The storage that has it, among others.
const CONTEXT: &[&str] = &["7context7CONTEXT"];
/// Where a table of tasks' functions has the one that schedules: a build that differs there has another table.
const SCHEDULE: u64 = 8;
/// Functions of a kind that are looked through, or probed.
const MAX_FUNCTIONS: usize = 32;

pub(super) fn find(elf: &Elf<'_>, path: &Path) -> Result<Option<TaskRuntime>, Unsupported> {
    let unsupported = |reason: &str| Unsupported(format!("tokio: {reason}"));
    let functions =
        elf.symbols(RUNTIME, [BY_VALUE, BY_REFERENCE, SCHEDULES, BINDS, SETS, ENTERS, POLLS, DROPS, CONTEXT]);
    let Some([by_value, by_reference, schedules, binds, sets, enters, polls, drops, contexts]) = functions else {
        return Ok(None);
    };
    if by_value.is_empty() && by_reference.is_empty() {
        return Ok(None);
    }
    let code_of = |(address, size): (u64, u64)| code(path, elf.offset(address)?, size);
    let ([by_value], [by_reference]) = (by_value.as_slice(), by_reference.as_slice()) else {
        return Err(unsupported("a version whose tasks have another form, or several of them"));
    };
    let mut leading = [*by_value, *by_reference].into_iter().chain(schedules).filter_map(code_of);
    if !leading.any(|code| leads_on(&code, SCHEDULE)) {
        return Err(unsupported("a version whose tasks have another form"));
    }
    let context = match contexts[..] {
        [variable] => elf.thread_storage(variable),
        _ => None,
    };
    let inlined = polls.into_iter().chain(drops).take(MAX_FUNCTIONS);
    let writers = sets.into_iter().chain(enters).chain(inlined);
    let stores = writers.filter_map(|function| {
        let mut stores = thread_stores(&code_of(function)?);
        stores.retain(|place| context.as_ref().is_none_or(|context| context.contains(place)));
        // Where it calls another one that does, it tells nothing.
        (!stores.is_empty()).then_some(stores)
    });
    let common = stores.reduce(|one, other| &one & &other).unwrap_or_default();
    let mut places = common.into_iter();
    let (Some(thread_offset), None) = (places.next(), places.next()) else {
        return Err(unsupported("where threads keep the number of their task is not found"));
    };
    let reads = TaskReads { is_structure: true, thread_offset, task_offset: 0, kind: 0, connection_offset: 0 };
    let wakes = [*by_value, *by_reference].map(|function| (TaskPoint::Woken, function, Register::RDI));
    let binds = binds.into_iter().take(MAX_FUNCTIONS).map(|function| (TaskPoint::Bound, function, Register::RSI));
    let place = |(point, (address, size), argument)| {
        let offset = elf.offset(address)?;
        Some(TaskPlace { point, offset: offset + emulated(&code(path, offset, size)?, argument) })
    };
    let places = wakes.into_iter().chain(binds).map(place).collect::<Option<Vec<_>>>();
    let places = places.ok_or_else(|| unsupported("a function outside the file"))?;
    Ok(Some(TaskRuntime { language: "tokio", reads, file: path.to_owned(), places }))
}
