//! Traces: exchanges to spans, and spans to their parents.
//!
//! `assemble` names a span and gives it ids that the other end of the connection computes too; `linker` finds the request
//! that a process serves behind one that it sends; `link` sets a parent between the ends of a connection where that
//! parent is known to be exported; `remote` does so between hosts; `live` does all of it as spans come; `sample` chooses
//! the traces that leave the node; `graph` tells who asks whom; `tasks` knows which goroutine, coroutine or task of tokio came from
//! which. Pure: time is a parameter.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod assemble;
pub mod explain;
pub mod graph;
pub mod handovers;
pub mod link;
pub mod linker;
pub mod live;
pub mod remote;
pub mod sample;
pub mod tasks;
