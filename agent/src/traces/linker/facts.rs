//! What the tiers know of a span: times, threads and hashes; no names, no bytes.
//!
//! Texts become 64-bit hashes that are the same on every machine and in every version. Everything that not every kernel
//! or input can tell is optional: 0 or `None`, and tiers that need it then say nothing.

use crate::model::context::{Context, Form};
use crate::traces::handovers::Step;
use crate::traces::tasks::Ancestor;

/// End of a span that is not over.
pub const OPEN: u64 = u64::MAX;
/// Tokens kept of one span.
pub const MAX_TOKENS: usize = 8;
/// Least digits and least hex digits of a token.
const DIGITS: usize = 6;
const HEX: usize = 12;

/// How much an id tells when it is the same on both sides; the most telling first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strength {
    /// Passed on unchanged: the same trace and the same span.
    Span,
    Trace,
    /// One that the application passes on, and that may be given twice.
    Request,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InBandId {
    pub strength: Strength,
    pub hash: u64,
}

/// Other threads that a request that was sent may belong to. Empty: not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Who woke or made the sending thread last before it sent, who that one, and so on.
    pub before: Vec<Step>,
    /// The thread that opened the connection for this request, then those before it.
    pub connected: Vec<Step>,
    /// Whom the thread that read the answer woke or made then, whom those, and so on; the nearest first.
    pub after: Vec<Step>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Thread that moved the request's first byte.
    pub tid: u32,
    /// Thread that moved the response's; 0: not known.
    pub end_tid: u32,
    /// Runtime task that moved the request's first byte: a goroutine, a coroutine, a task of tokio.
    pub task: Option<u64>,
    /// The one that moved the response's.
    pub end_task: Option<u64>,
    /// Tasks that `task` came from, the nearest first.
    pub ancestors: Vec<Ancestor>,
    /// Those that woke it for this, and that those came from, the nearest first; `None` where it is not told which task
    /// wakes which.
    pub wakers: Option<Vec<Ancestor>>,
    /// The task that `end_task` woke first once it had read the response, and those that began that one, the nearest
    /// first; empty where that tells nothing.
    pub asker: Vec<Ancestor>,
    /// `task` has a connection to itself, and sends over it for whoever wakes it, not for who began it.
    pub drives: bool,
    pub start_ns: u64,
    /// [`OPEN`] while it is not over.
    pub end_ns: u64,
    pub operation: u64,
    /// Names the connection's socket; 0: not known.
    pub socket: u64,
    pub ids: Vec<InBandId>,
    pub tokens: Vec<u64>,
    pub origin: Origin,
}

impl Facts {
    pub fn is_over(&self) -> bool {
        self.end_ns != OPEN
    }

    /// Thread that moved the last message, as far as it is known.
    pub fn last_tid(&self) -> u32 {
        if self.end_tid == 0 { self.tid } else { self.end_tid }
    }

    /// Both lie in time as a child in its parent.
    pub fn contains(&self, child: &Self) -> bool {
        self.start_ns <= child.start_ns && child.end_ns <= self.end_ns
    }

    /// One of the two tasks is this one.
    pub fn is_of(&self, task: u64) -> bool {
        self.task == Some(task) || self.end_task == Some(task)
    }

    pub fn has_id(&self, id: InBandId) -> bool {
        self.ids.contains(&id)
    }
}

/// FNV-1a with SplitMix64's finaliser: fixed for all versions.
pub fn hash(bytes: &[u8]) -> u64 {
    let sum = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let mixed = (sum ^ (sum >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The ids of a context.
pub fn ids(context: &Context) -> Vec<InBandId> {
    let mut ids = Vec::new();
    if let Some(trace) = context.trace_id {
        if let Some(span) = context.span_id {
            let both = [&trace.0[..], &span.0[..]].concat();
            ids.push(InBandId { strength: Strength::Span, hash: hash(&both) });
        }
        ids.push(InBandId { strength: Strength::Trace, hash: hash(&trace.0) });
    }
    if let Some(request) = &context.request_id {
        let hash = hash(request.as_bytes()) ^ Form::RequestId as u64;
        ids.push(InBandId { strength: Strength::Request, hash });
    }
    ids
}

/// Adds the rare tokens of a text: words of letters and digits that nobody would choose twice. UUIDs and ULIDs, long
/// hex, long digits.
pub fn tokens(text: &str, out: &mut Vec<u64>) {
    for word in text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-') {
        if out.len() >= MAX_TOKENS {
            return;
        }
        if is_token(word) {
            let hash = hash(word.to_ascii_lowercase().as_bytes());
            if !out.contains(&hash) {
                out.push(hash);
            }
        }
    }
}

fn is_token(word: &str) -> bool {
    let bytes = || word.bytes().filter(|byte| *byte != b'-');
    let (all, digits) = (bytes().count(), bytes().filter(u8::is_ascii_digit).count());
    let hex = bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts = word.split('-').count();
    if digits == 0 {
        return false;
    }
    match parts {
        1 if digits == all => all >= DIGITS,
        1 if hex => all >= HEX,
        // ULIDs and the like: a letter for about every five bits.
        1 => all >= 20 && digits >= 3,
        5 => hex && all == 32,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::tokens;

    #[test]
    fn tokens_are_what_nobody_would_choose_twice() {
        for (text, count) in [
            ("GET /users/123456/cart", 1),
            ("GET /users/12345/cart", 0),
            ("GET /v1/f81d4fae-7dec-11d0-a765-00a0c91e6bf6?x", 1),
            ("/01ARZ3NDEKTSV4RRFFQ69G5FAV", 1),
            ("key:5f2b8c9a1d3e", 1),
            ("facade decade", 0),
            ("2026-01-17", 0),
            ("a-long-slug-of-many-words-4", 0),
            ("1234567 7654321 1234567", 2),
        ] {
            let mut found = Vec::new();
            tokens(text, &mut found);
            assert_eq!(found.len(), count, "{text}");
        }
        let mut found = Vec::new();
        tokens(&(0..100).map(|number| format!("{}/", 1_000_000 + number)).collect::<String>(), &mut found);
        assert_eq!(found.len(), super::MAX_TOKENS);
    }
}
