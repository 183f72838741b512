//! Writes the scope, so that the kernel programs know whose payload may be read.

use anyhow::{Context, Result};
use aya::maps::{Array, MapData};
use aya::{Ebpf, Pod};
use seismo_common::config::{Scope, TGID_EXCLUDED, TGID_INCLUDED, tgid_place};

#[repr(transparent)]
#[derive(Clone, Copy)]
struct ScopeValue(Scope);

// SAFETY: `Scope` is a wire struct: integers, no padding.
unsafe impl Pod for ScopeValue {}

/// The two maps that hold the scope; may be changed while programs run.
pub struct ScopeMaps {
    rules: Array<MapData, ScopeValue>,
    tgids: Array<MapData, u64>,
}

impl ScopeMaps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self> {
        Ok(Self {
            rules: Array::try_from(ebpf.take_map("SCOPE").context("the object has no map SCOPE")?)?,
            tgids: Array::try_from(ebpf.take_map("SCOPE_TGIDS").context("the object has no map SCOPE_TGIDS")?)?,
        })
    }

    /// Replaces the rules as a whole.
    pub fn set(&mut self, scope: Scope) -> Result<()> {
        self.rules.set(0, ScopeValue(scope), 0).context("writing the scope")
    }

    /// Puts one process in or out by itself. Fails for an id that no kernel gives.
    pub fn set_process(&mut self, tgid: u32, included: bool) -> Result<()> {
        let value = if included { TGID_INCLUDED } else { TGID_EXCLUDED };
        self.write(tgid, value).with_context(|| format!("writing process {tgid} to the scope"))
    }

    /// Forgets a process. One that was not there is fine.
    pub fn forget_process(&mut self, tgid: u32) {
        // What cannot be written was never there.
        let _ = self.write(tgid, 0);
    }

    /// Nobody else writes the table: its other processes are as they were read.
    fn write(&mut self, tgid: u32, value: u8) -> Result<()> {
        let (place, shift) = tgid_place(tgid);
        let others = self.tgids.get(&place, 0)? & !(u64::from(TGID_INCLUDED | TGID_EXCLUDED) << shift);
        Ok(self.tgids.set(place, others | u64::from(value) << shift, 0)?)
    }
}
