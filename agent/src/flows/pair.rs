//! Requests in flight on one connection and the answers to them.
//!
//! Answers come in order (k-th response to k-th request) or name their request by a correlation id; nothing is
//! ever paired by time. Holds requests until both they and their answers are over; its owner bounds how many.

use std::collections::VecDeque;

use crate::model::exchange::{Incomplete, MessageFacts};
use crate::protocols::{Request, Response};

/// A request whose exchange is not over.
#[derive(Debug)]
pub struct Pending {
    pub request: Request,
    pub facts: MessageFacts,
    pub pid: u32,
    /// Which of the connection's requests it is.
    pub number: u64,
    /// Its last byte was seen, or is known never to be.
    pub ended: bool,
    pub incomplete: Option<Incomplete>,
    /// Position in the response stream behind what had been moved when the request's first byte was: its answer begins
    /// there or later.
    pub floor: u64,
    /// Its answer begins right at `floor`: nothing else was in flight.
    pub exact: bool,
    pub answer: Option<Answer>,
}

#[derive(Debug)]
pub struct Answer {
    pub response: Response,
    pub facts: MessageFacts,
    pub ended: bool,
}

impl Pending {
    fn is_over(&self) -> bool {
        self.ended && self.answer.as_ref().is_some_and(|answer| answer.ended)
    }

    /// Position behind what is known of its answer.
    pub fn answer_end(&self) -> u64 {
        self.answer.as_ref().map_or(0, |answer| answer.facts.position.saturating_add(answer.facts.size_bytes))
    }

    /// Time of the last byte of either message.
    pub fn last_ns(&self) -> u64 {
        self.answer.as_ref().map_or(self.facts.last_ns, |answer| answer.facts.last_ns.max(self.facts.last_ns))
    }
}

#[derive(Debug, Default)]
pub struct Pairing {
    queue: VecDeque<Pending>,
}

impl Pairing {
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn push(&mut self, pending: Pending) {
        self.queue.push_back(pending);
    }

    pub fn oldest(&self) -> Option<&Pending> {
        self.queue.front()
    }

    /// The request that the next answer in order is for.
    pub fn asked(&self) -> Option<&Pending> {
        self.queue.iter().find(|pending| pending.answer.is_none())
    }

    /// The latest request whose answer is over.
    pub fn last_answered(&self) -> Option<&Pending> {
        self.queue.iter().rev().find(|pending| pending.answer.as_ref().is_some_and(|answer| answer.ended))
    }

    /// The first request whose answer has a place of its own.
    pub fn barrier(&self) -> Option<&Pending> {
        self.queue.iter().find(|pending| pending.exact && pending.answer.is_none())
    }

    /// The next answer begins where it should: from here on answers follow each other.
    pub fn aligned(&mut self) {
        if let Some(pending) = self.queue.iter_mut().find(|pending| pending.answer.is_none()) {
            pending.exact = false;
        }
    }

    /// Takes out the first request for which `lost` says so, of those whose answer is not over.
    pub fn remove_unanswered(&mut self, lost: impl Fn(&Pending) -> bool) -> Option<Pending> {
        let is_due = |pending: &Pending| !pending.answer.as_ref().is_some_and(|answer| answer.ended);
        let place = self.queue.iter().position(|pending| is_due(pending) && lost(pending))?;
        self.queue.remove(place)
    }

    /// The request that is being read.
    pub fn asking(&mut self) -> Option<&mut Pending> {
        self.queue.back_mut().filter(|pending| !pending.ended)
    }

    /// The request whose answer is being read.
    pub fn answering(&mut self) -> Option<&mut Pending> {
        self.queue.iter_mut().find(|pending| pending.answer.as_ref().is_some_and(|answer| !answer.ended))
    }

    /// An answer begins. `false`: nobody asked for it.
    pub fn answer(&mut self, response: Response, facts: MessageFacts) -> bool {
        let asked = self.queue.iter_mut().find(|pending| {
            pending.answer.is_none() && (response.key.is_none() || response.key == pending.request.key)
        });
        match asked {
            Some(pending) => {
                pending.answer = Some(Answer { response, facts, ended: false });
                true
            }
            None => false,
        }
    }

    /// The next exchange that is over.
    pub fn pop_over(&mut self) -> Option<Pending> {
        match self.queue.front() {
            Some(front) if front.is_over() => self.queue.pop_front(),
            // Only answers with an id overtake each other.
            Some(front) if front.request.key.is_some() => {
                let place = self.queue.iter().position(Pending::is_over)?;
                self.queue.remove(place)
            }
            _ => None,
        }
    }

    /// The oldest request, over or not.
    pub fn pop(&mut self) -> Option<Pending> {
        self.queue.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::{MessageFacts, Pairing, Pending};
    use crate::model::attributes::Attributes;
    use crate::protocols::{Body, Request, Response};

    fn ask(pairing: &mut Pairing, position: u64, key: Option<u64>) {
        let attributes = Attributes::default();
        let request = Request {
            key,
            attributes,
            hint: 0,
            body: Body::None,
            silent: false,
            certain: true,
            truncated_values: 0,
            in_band: Default::default(),
        };
        let facts = MessageFacts { position, ..MessageFacts::default() };
        let (pid, ended, incomplete, answer) = (1, true, None, None);
        pairing.push(Pending { request, facts, pid, number: 1, ended, incomplete, floor: 0, exact: false, answer });
    }

    fn answer(pairing: &mut Pairing, key: Option<u64>) -> Option<u64> {
        let attributes = Attributes::default();
        let response = Response { key, status: "".into(), attributes, body: Body::None, opaque_after: false };
        assert!(pairing.answer(response, MessageFacts::default()));
        pairing.answering()?.answer.as_mut()?.ended = true;
        pairing.pop_over().map(|pending| pending.facts.position)
    }

    #[test]
    fn without_ids_the_kth_answer_is_for_the_kth_request() {
        let mut pairing = Pairing::default();
        for position in [10, 20, 30] {
            ask(&mut pairing, position, None);
        }
        assert_eq!([answer(&mut pairing, None), answer(&mut pairing, None)], [Some(10), Some(20)]);
        assert_eq!(pairing.len(), 1);
    }

    #[test]
    fn with_ids_answers_may_overtake() {
        let mut pairing = Pairing::default();
        for position in [10, 20, 30] {
            ask(&mut pairing, position, Some(position));
        }
        let order = [30, 10, 20].map(|key| answer(&mut pairing, Some(key)));
        assert_eq!(order, [Some(30), Some(10), Some(20)]);
        assert_eq!(pairing.len(), 0);
    }
}
