//! Connections by cookie, at most so many; when full, one that was not used lately makes room.
//!
//! Slots in a vector and an index by cookie. Eviction is second chance: a hand passes over the slots, takes the
//! first that was not used since its last pass. Constant time on average, no lists. Knows nothing of flows.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::model::connection::Cookie;

/// Cookies are counters of the kernel: nobody chooses them, and one multiplication spreads them.
#[derive(Debug, Default)]
struct CookieHasher(u64);

impl Hasher for CookieHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, cookie: u64) {
        self.0 = (self.0 ^ cookie).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[derive(Debug)]
struct Slot<T> {
    cookie: Cookie,
    used: bool,
    value: T,
}

#[derive(Debug)]
pub struct Table<T> {
    slots: Vec<Option<Slot<T>>>,
    free: Vec<usize>,
    index: HashMap<Cookie, usize, BuildHasherDefault<CookieHasher>>,
    capacity: usize,
    hand: usize,
}

impl<T> Table<T> {
    /// At least one slot.
    pub fn new(capacity: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), index: HashMap::default(), capacity: capacity.max(1), hand: 0 }
    }

    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// How many places [`Table::at`] has.
    pub fn places(&self) -> usize {
        self.slots.len()
    }

    pub fn get(&mut self, cookie: Cookie) -> Option<&mut T> {
        let slot = self.slots.get_mut(*self.index.get(&cookie)?)?.as_mut()?;
        slot.used = true;
        Some(&mut slot.value)
    }

    /// The value at a place, without counting as use.
    pub fn at(&mut self, place: usize) -> Option<&mut T> {
        self.slots.get_mut(place)?.as_mut().map(|slot| &mut slot.value)
    }

    pub fn remove(&mut self, cookie: Cookie) -> Option<T> {
        let place = self.index.remove(&cookie)?;
        let slot = self.slots.get_mut(place)?.take()?;
        self.free.push(place);
        Some(slot.value)
    }

    /// Puts in a value whose cookie is not there yet; returns what had to go.
    pub fn insert(&mut self, cookie: Cookie, value: T) -> Option<T> {
        let evicted = if self.index.len() >= self.capacity { self.evict() } else { None };
        let slot = Some(Slot { cookie, used: false, value });
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                self.slots.push(None);
                self.slots.len() - 1
            }
        };
        if let Some(empty) = self.slots.get_mut(place) {
            *empty = slot;
            self.index.insert(cookie, place);
        }
        evicted
    }

    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten().map(|slot| &slot.value)
    }

    fn evict(&mut self) -> Option<T> {
        // Two rounds at most: the first takes every slot's second chance away.
        for _ in 0..2 * self.slots.len() {
            self.hand = if self.hand + 1 < self.slots.len() { self.hand + 1 } else { 0 };
            match self.slots.get_mut(self.hand) {
                Some(Some(slot)) if slot.used => slot.used = false,
                Some(Some(slot)) => {
                    let cookie = slot.cookie;
                    return self.remove(cookie);
                }
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Cookie, Table};

    #[test]
    fn a_full_table_gives_up_one_that_was_not_used() {
        let mut table = Table::new(3);
        for number in 1..=3 {
            assert_eq!(table.insert(Cookie(number), number), None);
        }
        table.get(Cookie(1));
        table.get(Cookie(3));
        assert_eq!(table.insert(Cookie(4), 4), Some(2));
        assert_eq!(table.len(), 3);
        assert!(table.get(Cookie(1)).is_some());
        assert!(table.get(Cookie(2)).is_none());
    }

    #[test]
    fn places_are_used_again() {
        let mut table = Table::new(2);
        for number in 0..100 {
            table.insert(Cookie(number), number);
            assert_eq!(table.remove(Cookie(number)), Some(number));
        }
        assert_eq!((table.len(), table.places()), (0, 1));
    }

    #[test]
    fn when_all_were_used_one_goes_all_the_same() {
        let mut table = Table::new(2);
        for number in 0..50 {
            table.insert(Cookie(number), number);
            table.get(Cookie(number));
            assert!(table.len() <= 2);
        }
        assert!(table.get(Cookie(49)).is_some());
    }
}
