//! Tells the kernel programs what to capture of single connections, while they run.
//!
//! One system call per change (about 1 µs); the map is bounded, and a connection that finds no room is captured as any
//! other, counted.

use std::collections::HashSet;

use anyhow::{Context, Result};
use aya::maps::{HashMap, MapData};
use aya::{Ebpf, Pod};
use seismo_common::config::FLOW_CONTROLS;
use seismo_common::payload::FlowControl;

use crate::model::connection::Cookie;
use crate::model::payload::CaptureDemand;

const _: () = assert!(crate::model::payload::MAX_CAPTURE as usize == seismo_common::config::MAX_CAPTURE);

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Value(FlowControl);

// SAFETY: `FlowControl` is a wire struct: integers, no padding.
unsafe impl Pod for Value {}

/// The map of what is wanted of connections.
pub struct FlowControlMap {
    map: HashMap<MapData, u64, Value>,
    /// What is in it: nobody else writes.
    told: HashSet<u64>,
    refused: u64,
}

impl FlowControlMap {
    /// Connections that the map can hold.
    pub const CAPACITY: usize = FLOW_CONTROLS;

    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self> {
        let map = ebpf.take_map("FLOW_CONTROL").context("the object has no map FLOW_CONTROL")?;
        Ok(Self { map: HashMap::try_from(map)?, told: HashSet::new(), refused: 0 })
    }

    /// Asks for something, or for nothing special any more.
    pub fn set(&mut self, cookie: Cookie, demand: Option<CaptureDemand>) {
        match demand {
            Some(demand) => match self.map.insert(cookie.0, value(&demand), 0) {
                Ok(()) => _ = self.told.insert(cookie.0),
                Err(_) => self.refused += 1,
            },
            None if self.told.remove(&cookie.0) => {
                let removed = self.map.remove(&cookie.0);
                debug_assert!(removed.is_ok(), "somebody else removed it");
            }
            // One that found no room is not there to be removed.
            None => {}
        }
    }

    /// Connections of which something is wanted.
    pub fn entries(&self) -> usize {
        self.told.len()
    }

    /// Demands that found no room.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

fn value(demand: &CaptureDemand) -> Value {
    let [send, receive] = demand.from;
    Value(FlowControl {
        capture_bytes: demand.bytes.map(|bytes| bytes.unwrap_or(u32::MAX)),
        skip_until: [send.unwrap_or(0), receive.unwrap_or(0)],
        skips: u32::from(send.is_some()) | u32::from(receive.is_some()) << 1,
        reserved: 0,
    })
}
