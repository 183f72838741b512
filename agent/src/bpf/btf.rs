//! A reader for the kernel's BTF that answers four questions: at which byte of a struct is a field, is a type there, what does a
//! function or a tracepoint take, and which numbers does an enumeration have.
//!
//! Input: `/sys/kernel/btf/vmlinux` (format: `Documentation/bpf/btf.rst`). One pass, about 10 ms and one copy of the
//! file (6 MB) until dropped. Bit fields are refused; members of anonymous structs and unions are found; typedefs and
//! qualifiers are followed. Bounded by the file: every access is checked.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};

const MAGIC: u16 = 0xeb9f;
const KIND_INT: u32 = 1;
const KIND_POINTER: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;
/// Deepest nesting of anonymous members that is searched.
const MAX_DEPTH: u32 = 8;

pub(super) struct Btf {
    bytes: Vec<u8>,
    strings: usize,
    /// Where each type's header is; type ids start at 1.
    types: Vec<u32>,
    structs: HashMap<String, u32>,
    typedefs: HashMap<String, u32>,
    functions: HashMap<String, u32>,
    enums: HashMap<String, u32>,
}

impl Btf {
    /// Parses a BTF blob in native byte order.
    pub(super) fn parse(bytes: Vec<u8>) -> Result<Self> {
        let mut btf = Self {
            bytes,
            strings: 0,
            types: vec![0],
            structs: HashMap::new(),
            typedefs: HashMap::new(),
            functions: HashMap::new(),
            enums: HashMap::new(),
        };
        ensure!(btf.u32(0)? as u16 == MAGIC, "not BTF (or of the other byte order)");
        let header = btf.u32(4)? as usize;
        let (type_at, type_len) = (header + btf.u32(8)? as usize, btf.u32(12)? as usize);
        btf.strings = header + btf.u32(16)? as usize;
        let mut at = type_at;
        while at < type_at + type_len {
            let id = btf.types.len() as u32;
            btf.types.push(at as u32);
            let info = btf.u32(at + 4)?;
            let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
            if matches!(kind, KIND_STRUCT | KIND_UNION | KIND_TYPEDEF | KIND_FUNC | KIND_ENUM) {
                let name = btf.string(btf.u32(at)?)?;
                if !name.is_empty() {
                    let name = name.to_owned();
                    match kind {
                        KIND_TYPEDEF => btf.typedefs.insert(name, id),
                        KIND_FUNC => btf.functions.insert(name, id),
                        KIND_ENUM => btf.enums.insert(name, id),
                        _ => Some(*btf.structs.entry(name).or_insert(id)),
                    };
                }
            }
            at += 12
                + match kind {
                    KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
                    KIND_ARRAY => 12,
                    KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * count,
                    KIND_ENUM | KIND_FUNC_PROTO => 8 * count,
                    _ => 0,
                };
        }
        Ok(btf)
    }

    /// Arguments that a tracepoint gives; `None` if there is no such tracepoint. It shows as a typedef of a function that
    /// takes one more.
    pub(super) fn arguments(&self, tracepoint: &str) -> Result<Option<usize>> {
        let Some(id) = self.typedefs.get(&format!("btf_trace_{tracepoint}")) else { return Ok(None) };
        let pointer = self.resolve(*id)?;
        ensure!(self.u32(pointer + 4)? >> 24 & 0x1f == KIND_POINTER, "{tracepoint} is no pointer");
        let info = self.u32(self.resolve(self.u32(pointer + 8)?)? + 4)?;
        ensure!(info >> 24 & 0x1f == KIND_FUNC_PROTO, "{tracepoint} is no pointer to a function");
        Ok(Some((info & 0xffff).saturating_sub(1) as usize))
    }

    /// Names and numbers of an enumeration; none if it is not there.
    pub(super) fn enumerators(&self, name: &str) -> Result<Vec<(String, u32)>> {
        let Some(id) = self.enums.get(name) else { return Ok(Vec::new()) };
        let at = *self.types.get(*id as usize).context("type id out of range")? as usize;
        let member = |index: usize| {
            let member = at + 12 + 8 * index;
            Ok((self.string(self.u32(member)?)?.to_owned(), self.u32(member + 4)?))
        };
        (0..(self.u32(at + 4)? & 0xffff) as usize).map(member).collect()
    }

    /// Type ids of a function and of two structs; `None` where one is not there.
    pub(super) fn ids(&self, function: &str, structs: [&str; 2]) -> Option<[u32; 3]> {
        let [first, second] = structs.map(|name| self.structs.get(name).copied());
        Some([*self.functions.get(function)?, first?, second?])
    }

    pub(super) fn has_struct(&self, name: &str) -> bool {
        self.structs.contains_key(name)
    }

    /// Names of a function's parameters, in order; `None` if there is no such function.
    pub(super) fn parameters(&self, function: &str) -> Result<Option<Vec<String>>> {
        let Some(id) = self.functions.get(function) else { return Ok(None) };
        let at = *self.types.get(*id as usize).context("type id out of range")? as usize;
        let prototype = self.resolve(self.u32(at + 8)?)?;
        let info = self.u32(prototype + 4)?;
        ensure!(info >> 24 & 0x1f == KIND_FUNC_PROTO, "{function} has no prototype");
        let name = |index: usize| Ok(self.string(self.u32(prototype + 12 + 8 * index)?)?.to_owned());
        (0..(info & 0xffff) as usize).map(name).collect::<Result<_>>().map(Some)
    }

    /// Byte offset of `a.b.c` inside the struct, bit offset of the bit field `a.b#`; `None` if there is no such member.
    pub(super) fn offset(&self, of: &str, path: &str) -> Result<Option<u32>> {
        let (path, one_bit) = path.strip_suffix('#').map_or((path, false), |path| (path, true));
        let Some(mut id) = self.structs.get(of).copied() else { return Ok(None) };
        let mut bits = 0;
        for name in path.split('.') {
            match self.member(id, name, one_bit, 0).with_context(|| format!("{of}.{path}"))? {
                Some((member_bits, member)) => {
                    bits += member_bits;
                    id = member;
                }
                None => return Ok(None),
            }
        }
        ensure!(one_bit || bits % 8 == 0, "{of}.{path} is a bit field");
        Ok(Some(if one_bit { bits } else { bits / 8 }))
    }

    /// Bit offset and type of a member, also inside anonymous members.
    fn member(&self, id: u32, wanted: &str, one_bit: bool, depth: u32) -> Result<Option<(u32, u32)>> {
        if depth > MAX_DEPTH {
            bail!("anonymous members nest deeper than {MAX_DEPTH}");
        }
        let at = self.resolve(id)?;
        let info = self.u32(at + 4)?;
        if !matches!(info >> 24 & 0x1f, KIND_STRUCT | KIND_UNION) {
            return Ok(None);
        }
        let has_bitfields = info >> 31 == 1;
        for index in 0..(info & 0xffff) as usize {
            let member = at + 12 + 12 * index;
            let (name, ty, raw) = (self.u32(member)?, self.u32(member + 4)?, self.u32(member + 8)?);
            let bits = if has_bitfields { raw & 0x00ff_ffff } else { raw };
            let name = self.string(name)?;
            if name == wanted {
                let size = if has_bitfields { raw >> 24 } else { 0 };
                ensure!(size == 0 || (one_bit && size == 1), "{wanted} is a bit field");
                return Ok(Some((bits, ty)));
            }
            if name.is_empty()
                && let Some((inner, ty)) = self.member(ty, wanted, one_bit, depth + 1)?
            {
                return Ok(Some((bits + inner, ty)));
            }
        }
        Ok(None)
    }

    /// Where the header of a type is, behind typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Result<usize> {
        for _ in 0..16 {
            let at = *self.types.get(id as usize).context("type id out of range")? as usize;
            ensure!(at != 0, "void has no members");
            match self.u32(at + 4)? >> 24 & 0x1f {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => id = self.u32(at + 8)?,
                _ => return Ok(at),
            }
        }
        bail!("a chain of more than 16 typedefs")
    }

    fn u32(&self, at: usize) -> Result<u32> {
        let bytes = self.bytes.get(at..at + 4).context("BTF ends early")?;
        Ok(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn string(&self, offset: u32) -> Result<&str> {
        let from = self.bytes.get(self.strings + offset as usize..).context("string outside BTF")?;
        let end = from.iter().position(|byte| *byte == 0).context("string without an end")?;
        Ok(std::str::from_utf8(&from[..end])?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Btf;

    /// struct outer { int a; union { int x; struct { short p; short q; }; }; const inner_t in; } with typedef inner_t.
    fn blob() -> Vec<u8> {
        let strings = b"\0int\0outer\0a\0x\0p\0q\0in\0inner\0y\0inner_t\0short\0go\0btf_trace_gone\0";
        let name = |text: &str| {
            let needle: Vec<u8> = [b"\0", text.as_bytes(), b"\0"].concat();
            strings.windows(needle.len()).position(|window| window == needle).unwrap() as u32 + 1
        };
        let mut types: Vec<u32> = Vec::new();
        types.extend([name("int"), 1 << 24, 4, 32]); // 1 int
        types.extend([name("short"), 1 << 24, 2, 16]); // 2 short
        types.extend([0, 4 << 24 | 2, 4, name("p"), 2, 0, name("q"), 2, 16]); // 3 struct {p, q}
        types.extend([0, 5 << 24 | 2, 4, name("x"), 1, 0, 0, 3, 0]); // 4 union {x, 3}
        types.extend([name("inner"), 4 << 24 | 1, 8, name("y"), 1, 32]); // 5 struct inner {.., y}
        types.extend([name("inner_t"), 8 << 24, 5]); // 6 typedef
        types.extend([0, 10 << 24, 6]); // 7 const
        types.extend([name("outer"), 4 << 24 | 3, 16, name("a"), 1, 0, 0, 4, 32, name("in"), 7, 64]); // 8 outer
        types.extend([0, 13 << 24 | 2, 1, name("x"), 1, name("y"), 2]); // 9 fn(int x, short y) -> int
        types.extend([name("go"), 12 << 24, 9]); // 10 go
        types.extend([0, 2 << 24, 9]); // 11 pointer to 9
        types.extend([name("btf_trace_gone"), 8 << 24, 11]); // 12 typedef
        types.extend([name("inner"), 6 << 24 | 2, 4, name("x"), 3, name("y"), 7]); // 13 enum
        let mut blob = Vec::new();
        for word in [0x0001_eb9f, 24, 0, 4 * types.len() as u32, 4 * types.len() as u32, strings.len() as u32] {
            blob.extend(u32::to_ne_bytes(word));
        }
        for word in types {
            blob.extend(word.to_ne_bytes());
        }
        blob.extend(strings);
        blob
    }

    #[test]
    fn members_are_found_through_anonymous_members_typedefs_and_qualifiers() {
        let btf = Btf::parse(blob()).unwrap();
        assert_eq!(btf.offset("outer", "a").unwrap(), Some(0));
        assert_eq!(btf.offset("outer", "x").unwrap(), Some(4));
        assert_eq!(btf.offset("outer", "q").unwrap(), Some(6));
        assert_eq!(btf.offset("outer", "in.y").unwrap(), Some(12));
        assert_eq!(btf.offset("outer", "none").unwrap(), None);
        assert_eq!(btf.offset("nothing", "a").unwrap(), None);
        assert_eq!(btf.arguments("gone").unwrap(), Some(1));
        assert_eq!(btf.arguments("inner_t").unwrap(), None);
        assert_eq!(btf.enumerators("inner").unwrap(), [("x".to_owned(), 3), ("y".to_owned(), 7)]);
        assert_eq!(btf.enumerators("outer").unwrap(), []);
        assert_eq!(btf.parameters("go").unwrap(), Some(vec!["x".to_owned(), "y".to_owned()]));
        assert_eq!(btf.parameters("outer").unwrap(), None);
    }

    #[test]
    fn a_cut_blob_is_an_error_or_finds_less_and_never_a_panic() {
        let whole = blob();
        for end in 0..whole.len() {
            if let Ok(btf) = Btf::parse(whole[..end].to_vec()) {
                let _ = btf.offset("outer", "in.y");
                let _ = btf.parameters("go");
                let _ = btf.arguments("gone");
                let _ = btf.enumerators("inner");
            }
        }
    }
}
