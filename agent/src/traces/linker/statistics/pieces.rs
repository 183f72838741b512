//! A piece of a chain, held against many requests: what does not depend on the request is reckoned once.
//!
//! In: spans in the order of time; out: how likely a request sends exactly these and is answered. Behind its first span a
//! chain stands where it stands whatever its request is; only the request's operation still counts. So a request costs two
//! steps and an addition for each span, an operation the steps of the whole piece.

use super::space::{Served, Space, State};

pub(super) struct Piece<'a> {
    spans: &'a [u32],
    /// By operation of the request: the steps behind the first, and where the chain stands then.
    behind: Vec<(u16, Vec<f64>, State)>,
}

impl<'a> Piece<'a> {
    pub fn new(spans: &'a [u32]) -> Self {
        Self { spans, behind: Vec::new() }
    }

    /// The same as [`Space::chain`], to the last bit; and the steps that it took.
    pub fn chain(&mut self, space: &Space, served: &Served) -> (f64, u64) {
        let beginning = Space::begin(served);
        let Some((first, rest)) = self.spans.split_first() else { return (space.answer(served, &beginning), 1) };
        let Some(sent) = space.sent.get(*first as usize) else { return (f64::NEG_INFINITY, 1) };
        let (mut score, state) = space.go_on(served, &beginning, sent);
        let mut work = 2;
        let known = self.behind.iter().position(|(operation, ..)| *operation == served.operation);
        let known = known.unwrap_or_else(|| {
            let mut state = state;
            let steps = rest.iter().filter_map(|place| space.sent.get(*place as usize)).map(|sent| {
                let (step, next) = space.go_on(served, &state, sent);
                state = next;
                step
            });
            let steps: Vec<f64> = steps.collect();
            work += steps.len() as u64;
            self.behind.push((served.operation, steps, state));
            self.behind.len() - 1
        });
        let Some((_, steps, end)) = self.behind.get(known) else { return (f64::NEG_INFINITY, work) };
        for step in steps {
            score += step;
        }
        (score + space.answer(served, end), work)
    }
}
