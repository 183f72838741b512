//! Tells the kernel programs what to capture of single connections, while they run.
//!
//! One system call per change (about 1 µs); each connection has one place where it can be told, and one that finds it
//! taken by another is captured as any other, counted.

use anyhow::{Context, Result};
use aya::maps::{Array, MapData};
use aya::{Ebpf, Pod};
use seismo_common::config::FLOW_CONTROLS;
use seismo_common::payload::FlowControl;

use crate::model::connection::Cookie;
use crate::model::hashing::Map;
use crate::model::payload::CaptureDemand;

const _: () = assert!(crate::model::payload::MAX_CAPTURE as usize == seismo_common::config::MAX_CAPTURE);

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Value(FlowControl);

// SAFETY: `FlowControl` is a wire struct: integers, no padding.
unsafe impl Pod for Value {}

/// The map of what is wanted of connections.
pub struct FlowControlMap {
    map: Array<MapData, Value>,
    /// Who is told in which place: nobody else writes.
    told: Map<u32, u64>,
    refused: u64,
}

impl FlowControlMap {
    /// Connections that the map can hold.
    pub const CAPACITY: usize = FLOW_CONTROLS;

    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self> {
        let map = ebpf.take_map("FLOW_CONTROL").context("the object has no map FLOW_CONTROL")?;
        Ok(Self { map: Array::try_from(map)?, told: Map::default(), refused: 0 })
    }

    /// Asks for something, or for nothing special any more.
    pub fn set(&mut self, cookie: Cookie, demand: Option<CaptureDemand>) {
        let place = cookie.0 as u32 & (FLOW_CONTROLS as u32 - 1);
        let holder = self.told.get(&place).copied();
        let value = match demand {
            Some(_) if holder.is_some_and(|holder| holder != cookie.0) => {
                self.refused += 1;
                return;
            }
            Some(demand) => value(cookie.0, &demand),
            None if holder == Some(cookie.0) => Value(NOBODY),
            // One that found no room is not there to be removed.
            None => return,
        };
        if self.map.set(place, value, 0).is_err() {
            self.refused += 1;
        } else if demand.is_some() {
            self.told.insert(place, cookie.0);
        } else {
            self.told.remove(&place);
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

const NOBODY: FlowControl =
    FlowControl { identity: 0, capture_bytes: [0; 2], skip_until: [0; 2], skips: 0, reserved: 0 };

fn value(identity: u64, demand: &CaptureDemand) -> Value {
    let [send, receive] = demand.from;
    Value(FlowControl {
        identity,
        capture_bytes: demand.bytes.map(|bytes| bytes.unwrap_or(u32::MAX)),
        skip_until: [send.unwrap_or(0), receive.unwrap_or(0)],
        skips: u32::from(send.is_some()) | u32::from(receive.is_some()) << 1,
        reserved: 0,
    })
}
