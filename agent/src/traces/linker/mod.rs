//! Requests that a process sends to the requests that it serves: ordered evidence, the first decisive tier wins.
//!
//! In: one process's spans of a window ([`Scene`]) and what is known of the process ([`Model`]); out: a [`Link`] or a
//! reason why there is none, for each span that it sent. A tier is one file and one row of [`TIERS`]; none knows a
//! protocol, a clock or another process. A child starts while its parent is open, or it has none. A wrong parent is
//! worse than none: where evidence names two, nothing is said. Deterministic, and the order of the input is of no
//! account. Work is linear in spans × open requests, of those at most [`Limits::open`] each; statistics, which takes far
//! longer for a pair than any other tier, weighs at most [`Limits::pairs`].

pub mod allowance;
mod alone;
pub mod facts;
pub mod file;
mod in_band;
mod lineage;
mod origin;
mod scene;
pub mod statistics;
mod task;
mod thread;
mod token;
mod wakeup;
pub mod window;

pub use facts::{Facts, InBandId, Origin, Strength};
pub use scene::{Child, Scene};
pub use statistics::Model;

/// Why a span has no parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Missed {
    /// No request was open when it was sent.
    NoneOpen,
    /// The evidence names several, or none well enough.
    Ambiguous,
    /// More requests were open than are told apart.
    Crowded,
    /// What would be its parent has too many children already.
    FanOut,
    /// Nothing but statistics could tell, and there was more to weigh than it may.
    Unweighed,
}

impl Missed {
    pub const ALL: [Self; 5] = [Self::NoneOpen, Self::Ambiguous, Self::Crowded, Self::FanOut, Self::Unweighed];

    pub const fn name(self) -> &'static str {
        match self {
            Self::NoneOpen => "none_open",
            Self::Ambiguous => "ambiguous",
            Self::Crowded => "crowded",
            Self::FanOut => "fan_out",
            Self::Unweighed => "unweighed",
        }
    }
}

/// A parent, how it was found and how sure that is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// Place among [`Scene::parents`].
    pub parent: usize,
    pub method: &'static str,
    /// 0 to 1.
    pub confidence: f64,
}

/// Bounds of what is linked, and how sure it must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// A request that is open for longer gets no further children, ns.
    pub age_ns: u64,
    /// Children of one request.
    pub fan_out: usize,
    /// Open requests that are looked at for one span.
    pub open: usize,
    /// Least posterior probability of a parent found by statistics.
    pub margin: f64,
    /// Pairs of a span and an open request that statistics may weigh; of a window that has more it says nothing.
    pub pairs: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { age_ns: 300_000_000_000, fan_out: 1_000, open: 1_024, margin: 0.9, pairs: allowance::MOST }
    }
}

/// One kind of evidence.
pub struct Tier {
    /// `seismo.link.method`.
    pub method: &'static str,
    /// Under which its links are counted.
    pub event: &'static str,
    /// `seismo.link.confidence`; 0: the tier says for each link.
    pub confidence: f64,
    /// Decides spans that no tier before it has.
    decide: fn(&Self, &mut Scene<'_>),
}

/// Every tier, the most telling first.
pub const TIERS: &[Tier] = &[
    Tier { method: "in_band", event: "linked_in_band", confidence: 1.0, decide: in_band::decide },
    Tier { method: "task", event: "linked_task", confidence: 0.98, decide: task::decide },
    Tier { method: "thread", event: "linked_thread", confidence: 0.97, decide: thread::decide },
    Tier { method: "lineage", event: "linked_lineage", confidence: 0.9, decide: lineage::decide },
    Tier { method: "wakeup", event: "linked_wakeup", confidence: 0.95, decide: wakeup::decide },
    Tier { method: "token", event: "linked_token", confidence: 0.9, decide: token::decide },
    Tier { method: "alone", event: "linked_alone", confidence: 0.95, decide: alone::decide },
    Tier { method: "statistics", event: "linked_statistics", confidence: 0.0, decide: statistics::decide },
    Tier { method: "wakeup", event: "linked_wakeup", confidence: 0.6, decide: wakeup::lean },
];

/// Method of a link between the two spans of one request, which are both ends of one connection.
pub const CONNECTION: &str = "connection";

/// Links what can be linked.
pub fn link(scene: &mut Scene<'_>) {
    scene.observe();
    for tier in TIERS {
        (tier.decide)(tier, scene);
    }
}

#[cfg(test)]
mod tests;
