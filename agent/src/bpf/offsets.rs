//! Fills the table of field offsets from the kernel's BTF and says which fields are missing.

use anyhow::Result;
use seismo_common::offsets::{ABSENT, FIELDS, Offsets};

use super::btf::Btf;

/// The table as the kernel programs want it, and what could not be found.
#[derive(Clone, Debug)]
pub struct Resolved {
    pub table: Offsets,
    /// `struct.field` of every field (by its first name) that this kernel does not have.
    pub missing: Vec<String>,
}

/// Looks every field up by its names in order.
pub(super) fn resolve(btf: &Btf) -> Result<Resolved> {
    let mut values = Vec::with_capacity(FIELDS.len());
    let mut missing = Vec::new();
    for field in FIELDS {
        let mut found = None;
        for name in field.names {
            found = btf.offset(field.of, name)?;
            if found.is_some() {
                break;
            }
        }
        if found.is_none() {
            missing.push(format!("{}.{}", field.of, field.names[0]));
        }
        values.push(found.unwrap_or(ABSENT));
    }
    let mut table = Offsets::ABSENT;
    // SAFETY: `Offsets` is repr(C), made of exactly FIELDS.len() u32 (asserted where it is declared), in FIELDS' order.
    let words = unsafe { std::slice::from_raw_parts_mut((&raw mut table).cast::<u32>(), FIELDS.len()) };
    words.copy_from_slice(&values);
    Ok(Resolved { table, missing })
}
