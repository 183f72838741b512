//! Hash tables of what is looked up for every record and every span.
//!
//! The standard tables with a hash of a few multiplications instead of SipHash (about 4 ns instead of 15 for an id). Its seed is
//! drawn anew by each table of each run, so whoever chooses keys (ids and labels come from the network) cannot know which
//! collide; it never shows a hash to anybody.

pub use foldhash::fast::RandomState;

pub type Map<K, V> = std::collections::HashMap<K, V, RandomState>;
pub type Set<K> = std::collections::HashSet<K, RandomState>;
pub type OrderedMap<K, V> = indexmap::IndexMap<K, V, RandomState>;
