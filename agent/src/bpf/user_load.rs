//! Loads the programs of probes in processes once more, as programs that are attached to many places by one link (6.6+).
//!
//! Such a link takes no capability, whereas each other way to probe a process takes CAP_PERFMON, and CAP_SYS_ADMIN since a
//! repair of July 2025 (CVE-2025-38466). The loader library cannot load programs of this kind: what it read of the object is
//! read again and its maps are named to it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::maps::Map;
use aya_obj::Object;

use super::raw;

/// The programs by name. `object`: what `ebpf` was loaded from.
pub(super) fn load(ebpf: &Ebpf, object: &[u8], names: &[&str]) -> Result<HashMap<String, OwnedFd>> {
    let mut object = Object::parse(object).context("reading the object")?;
    let wanted: HashSet<_> = object
        .programs
        .iter()
        .filter(|(name, _)| names.contains(&name.as_str()))
        .map(|(_, p)| p.function_key())
        .collect();
    let others: HashSet<_> = object.programs.values().map(|program| program.function_key()).collect();
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object.functions.retain(|key, _| wanted.contains(key) || !others.contains(key));
    object.programs.retain(|name, _| names.contains(&name.as_str()));
    let maps = std::mem::take(&mut object.maps);
    let known: Vec<(&str, RawFd, &aya_obj::Map)> =
        maps.iter().filter_map(|(name, map)| Some((name.as_str(), descriptor(ebpf.map(name)?)?, map))).collect();
    object.relocate_maps(known.into_iter(), &text).context("naming the maps")?;
    object.relocate_calls(&text).context("joining functions")?;
    let mut loaded = HashMap::new();
    for (name, program) in &object.programs {
        let function = object.functions.get(&program.function_key()).context("a program without code")?;
        let program = raw::load_user_probe(&function.instructions, &program.license);
        loaded.insert(name.clone(), program.map_err(|error: io::Error| anyhow::anyhow!("{name}: {error}"))?);
    }
    Ok(loaded)
}

/// Of the kinds of maps that the object has.
fn descriptor(map: &Map) -> Option<RawFd> {
    match map {
        Map::Array(data) | Map::PerCpuArray(data) | Map::HashMap(data) | Map::LruHashMap(data) | Map::RingBuf(data) => {
            Some(data.fd().as_fd().as_raw_fd())
        }
        _ => None,
    }
}
