//! Traces: exchanges to spans, and spans to their parents.
//!
//! `assemble` names a span and gives it ids that the other end of the connection computes too; `link` sets a parent
//! where that parent is known to be exported; `sample` chooses the traces that leave the node. Pure: time is a parameter.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod assemble;
pub mod explain;
pub mod link;
pub mod sample;
