//! A probe family as the rest of the agent sees it: what it attaches, what it counts, what it gives.
//!
//! `probes/` fills these in (one row per family), `bpf/` acts on them without knowing any family.

use super::metric::{Metric, Sample};

/// A place in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// BTF-typed raw tracepoint, by its kernel name.
    TpBtf(&'static str),
    /// Iterator over kernel objects, run by reading it; `helpers` are the kernel functions that its program calls and that
    /// older kernels do not offer to it.
    Iter { over: &'static str, helpers: &'static [&'static str] },
}

impl Hook {
    /// `kind/place`, as `seismo doctor` and the `hook` label show it.
    pub fn label(self) -> String {
        match self {
            Self::TpBtf(name) => format!("tp_btf/{name}"),
            Self::Iter { over, .. } => format!("iter/{over}"),
        }
    }
}

/// One kernel program of a family.
#[derive(Debug)]
pub struct ProgramSpec {
    /// Function name in the kernel object.
    pub name: &'static str,
    pub hook: Hook,
    /// Kernel structs whose required fields the program reads.
    pub structs: &'static [&'static str],
    /// Optional fields without which the program would have nothing to do (`struct.field`).
    pub fields: &'static [&'static str],
    /// What is lost without it; `None`: the family is nothing without it.
    pub without: Option<&'static str>,
}

/// Reads the counts that kernel programs keep. Absent maps and failed reads give `None`.
pub trait KernelCounts {
    /// The single value of a per-CPU map, added up over CPUs.
    fn lanes(&self, map: &str) -> Option<Vec<u64>>;
    /// One row of a shared array map.
    fn row(&self, map: &str, index: u32) -> Option<Vec<u64>>;
}

/// A probe family: one file in `probes/`, one row in its registry.
#[derive(Debug)]
pub struct FamilySpec {
    /// Stem of its files, key in the configuration, label value.
    pub name: &'static str,
    /// What it gives, one line.
    pub gives: &'static str,
    pub programs: &'static [ProgramSpec],
    /// Every metric that [`FamilySpec::samples`] can produce.
    pub metrics: &'static [&'static Metric],
    /// Kernel counts to samples; called at every scrape while the family is active.
    pub samples: fn(&dyn KernelCounts, &mut Vec<Sample>),
}
