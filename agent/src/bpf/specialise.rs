//! Makes the object one for this kernel and these settings: writes field offsets, settings and the number of the kernel's
//! `bpf_rdonly_cast` where the programs have marks for them ([`seismo_common::marks`]).
//!
//! As read-only globals, which the verifier knows as constants too, they would still be loaded each time, address and all: the
//! programs would have a seventh more instructions. And a function of the kernel is called by its type id, which each build
//! of a kernel numbers anew; the loader library knows only helpers.

use seismo_common::Wire;
use seismo_common::config::Settings;
use seismo_common::marks;
use seismo_common::offsets::Offsets;

/// Codes of instructions (`linux/bpf.h`, `bpf_common.h`) whose number is in their upper half: a number of 64 bits from one of
/// 32 with its sign, one of 32 bits, a call of a helper.
const MOVE_64: u32 = 0xb7;
const MOVE_32: u32 = 0xb4;
const CALL: u32 = 0x85;
/// In the source register of a call: its number is a type id (`BPF_PSEUDO_KFUNC_CALL`).
const BY_TYPE: u32 = 2 << 12;
const CODE: u32 = 0xff;
const REGISTER: u32 = 0xf00;

/// An object in memory, aligned as instructions are.
pub(super) struct Object(Vec<u64>);

impl Object {
    /// A copy of `object` with all numbers in it. Without a `cast` the settings say so, and no call of it is left to be
    /// verified.
    pub(super) fn new(object: &[u8], offsets: &Offsets, settings: &Settings, cast: Option<u32>) -> Self {
        let (offsets, settings) = (words(offsets), words(settings));
        let number = |mark: u32| {
            let of = |table: &[u32], first: u32| table.get(mark.checked_sub(first)? as usize).copied();
            of(&offsets, marks::OFFSETS).or_else(|| of(&settings, marks::SETTINGS))
        };
        let special = |bytes: &[u8]| {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            let word = u64::from_le_bytes(word);
            let (operation, mark) = (word as u32, (word >> 32) as u32);
            let (operation, number) = if operation & !REGISTER == MOVE_64 {
                // Without a sign, as the programs take it.
                (operation & !CODE | MOVE_32, number(mark))
            } else if operation == CALL && mark == marks::CAST {
                (CALL | BY_TYPE, cast)
            } else {
                (operation, None)
            };
            number.map_or(word, |number| u64::from(operation) | u64::from(number) << 32)
        };
        Self(object.chunks(8).map(special).collect())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: words are bytes; the slice borrows them.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * size_of::<u64>()) }
    }
}

/// A wire struct that is made of words.
fn words<T: Wire>(table: &T) -> Vec<u32> {
    // SAFETY: `Wire` promises integers without padding, so every byte is initialised; the slice borrows the table.
    let bytes = unsafe { std::slice::from_raw_parts((&raw const *table).cast::<u8>(), size_of::<T>()) };
    bytes.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]])).collect()
}

#[cfg(test)]
mod tests {
    use seismo_common::config::Settings;
    use seismo_common::marks;
    use seismo_common::offsets::{ABSENT, Offsets};

    use super::Object;
    use crate::bpf::loader::OBJECT;

    fn instruction(code: u8, registers: u8, number: u32) -> Vec<u8> {
        [&[code, registers, 0, 0][..], &number.to_le_bytes()].concat()
    }

    #[test]
    fn numbers_stand_where_marks_stood_and_nothing_else_is_changed() {
        let offsets = Offsets { task_tgid: 77, ..Offsets::ABSENT };
        let settings = Settings { capture_bytes: 4096, ..Settings::DEFAULT };
        let others = [
            instruction(0x85, 0, 14),
            instruction(0x85, 0x10, marks::CAST),
            instruction(0xb7, 3, 5),
            instruction(0xbf, 3, marks::OFFSETS),
            instruction(0xb7, 3, marks::SETTINGS + 1000),
        ]
        .concat();
        let marked = [
            instruction(0xb7, 4, marks::OFFSETS),
            instruction(0xb7, 5, marks::OFFSETS + 1),
            instruction(0xb7, 6, marks::SETTINGS + 1),
            instruction(0x85, 0, marks::CAST),
        ];
        let object = [&others[..], &marked.concat(), &[1, 2, 3]].concat();
        let numbers = [
            instruction(0xb4, 4, ABSENT),
            instruction(0xb4, 5, 77),
            instruction(0xb4, 6, 4096),
            instruction(0x85, 0x20, 65486),
        ];
        let special = Object::new(&object, &offsets, &settings, Some(65486));
        assert_eq!(special.bytes(), [&others[..], &numbers.concat(), &[1, 2, 3, 0, 0, 0, 0, 0]].concat());
        let special = Object::new(&object, &offsets, &settings, None);
        assert_eq!(special.bytes()[others.len() + 24..][..8], marked[3]);
    }

    #[test]
    fn no_mark_is_left_in_the_object() {
        let special = Object::new(OBJECT, &Offsets::ABSENT, &Settings::DEFAULT, Some(7));
        let marked = |object: &[u8]| {
            object.chunks_exact(8).filter(|word| word[6..] == [0x16, 0x5e] || word[6..] == [0x17, 0x5e]).count()
        };
        let (before, after) = (marked(OBJECT), marked(special.bytes()));
        assert!(before > 1000 && after == 0, "{before} {after}");
    }
}
