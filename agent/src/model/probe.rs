//! A probe family as the rest of the agent sees it: what it attaches, what it counts, what it gives.
//!
//! `probes/` fills these in (one row per family), `bpf/` acts on them without knowing any family.

use std::collections::BTreeMap;

use super::metric::{Metric, Sample};

/// A place in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// BTF-typed raw tracepoint, by its kernel name.
    TpBtf(&'static str),
    /// The same, where older kernels give fewer arguments than the program reads.
    TpBtfOf { name: &'static str, arguments: usize },
    /// Iterator over kernel objects, run by reading it; `helpers` are the kernel functions that its program calls and that
    /// older kernels do not offer to it.
    Iter { over: &'static str, helpers: &'static [&'static str] },
    /// The end of a kernel function.
    FExit(&'static str),
    /// A function in the executables and libraries of processes; attached where one is found that has it.
    User { function: &'static str, end: bool },
}

impl Hook {
    /// Name of the tracepoint, of the function, or of what is iterated over.
    pub const fn place(self) -> &'static str {
        match self {
            Self::TpBtf(name) | Self::TpBtfOf { name, .. } | Self::FExit(name) => name,
            Self::Iter { over, .. } => over,
            Self::User { function, .. } => function,
        }
    }

    /// Kernel functions that its program calls and that not every kernel offers.
    pub const fn helpers(self) -> &'static [&'static str] {
        match self {
            Self::TpBtf(_) | Self::TpBtfOf { .. } | Self::FExit(_) | Self::User { .. } => &[],
            Self::Iter { helpers, .. } => helpers,
        }
    }

    /// `kind/place`, as `seismo doctor` and the `hook` label show it.
    pub fn label(self) -> String {
        match self {
            Self::TpBtf(name) | Self::TpBtfOf { name, .. } => format!("tp_btf/{name}"),
            Self::Iter { over, .. } => format!("iter/{over}"),
            Self::FExit(name) => format!("fexit/{name}"),
            Self::User { function, end: false } => format!("uprobe/{function}"),
            Self::User { function, end: true } => format!("uretprobe/{function}"),
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
    /// Optional fields without which the program would have nothing to do (`struct.field`), and the release (`Linux 5.12`)
    /// that brought what no field shows.
    pub fields: &'static [&'static str],
    /// What is lost without it; `None`: the family, or the tier, is nothing without it.
    pub without: Option<&'static str>,
    /// Names of the family's tiers that it belongs to; empty: it is always wanted.
    pub tiers: &'static [&'static str],
}

/// One of several ways in which a family can see the same thing. One is used at a time.
#[derive(Debug)]
pub struct TierSpec {
    /// As in the configuration and on the metrics page.
    pub name: &'static str,
    /// What is seen this way and what is not, one line.
    pub gives: &'static str,
    /// Kernel functions behind helpers that its programs cannot do without.
    pub helpers: &'static [&'static str],
    /// What the programs of every family must know about it.
    pub traits: TierTraits,
}

/// How a tier's programs are to be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierTraits {
    /// Sockets are named by cookie; else by address.
    pub cookies: bool,
    /// Iterators and requests are noted.
    pub iterators: bool,
    /// Programs that may interrupt each other, each with a scratch of its own.
    pub scratches: u32,
    /// Its programs write to lanes.
    pub lanes: bool,
}

/// Reads the counts that kernel programs keep. Absent maps and failed reads give `None`.
pub trait KernelCounts {
    /// The single value of a per-CPU map, added up over CPUs.
    fn lanes(&self, map: &str) -> Option<Vec<u64>>;
    /// One row of an array map, added up over CPUs where each has its own.
    fn row(&self, map: &str, index: u32) -> Option<Vec<u64>>;
    /// Counts of a per-CPU map whose places hold a key and its count, added up over CPUs.
    fn keyed(&self, map: &str) -> BTreeMap<u64, u64>;
    /// Names and numbers of one of the kernel's enumerations; none where it does not have it.
    fn constants(&self, enumeration: &str) -> &[(String, u32)];
    /// Text of a file in which the kernel itself keeps counts.
    fn file(&self, path: &str) -> Option<String>;
    /// Runs an iterator program once over everything that it iterates over; nothing where it was not loaded.
    fn iterate(&self, program: &str);
    /// The same for a program that counts anew in each pass: what it counted in this one, or in one a moment ago.
    fn pass(&self, _program: &str) -> Option<Vec<u64>> {
        None
    }
}

/// What a family's programs must not find as it was when they last ran: they are attached again after a time in which they
/// saw nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// A map of what was under way, by name: emptied.
    Clear(&'static str),
    /// A map of one word: the time of now, ns of the monotonic clock.
    Now(&'static str),
}

impl Restart {
    /// Name of the map.
    pub const fn map(&self) -> &'static str {
        let (Self::Clear(name) | Self::Now(name)) = *self;
        name
    }
}

/// A probe family: one file in `probes/`, one row in its registry.
#[derive(Debug)]
pub struct FamilySpec {
    /// Stem of its files, key in the configuration, label value.
    pub name: &'static str,
    /// What it gives, one line.
    pub gives: &'static str,
    pub programs: &'static [ProgramSpec],
    /// From the best to the worst; empty: there is only one way.
    pub tiers: &'static [TierSpec],
    /// Done before the programs are attached again while the agent runs.
    pub restart: &'static [Restart],
    /// Metrics that stand still, and so are absent, while another family, by name, is not attached.
    pub beside: &'static [(&'static Metric, &'static str)],
    /// Every metric that [`FamilySpec::samples`] and [`FamilySpec::workload_samples`] can produce.
    pub metrics: &'static [&'static Metric],
    /// Kernel counts to samples; called at every scrape while the family is active.
    pub samples: fn(&dyn KernelCounts, &mut Vec<Sample>),
    /// The lanes of one workload to samples, which have the metrics' own labels only: those of the workload are put in
    /// front. Called for every workload at every scrape.
    pub workload_samples: fn(&[u64], &mut Vec<Sample>),
}
