//! What a loss ends, and where reading begins again: the other half of [`super::session`].
//!
//! A lost side drops bytes until a message of its own begins: a request at a turn (where the stream was when the last
//! bytes of an answer were moved), a response right at the floor of the request that is due. Nothing is guessed: bytes in between are counted as lost,
//! requests whose answer may have begun in them end as incomplete.

use crate::model::exchange::Incomplete;
use crate::protocols::{Event, Resume, Side};

use super::counts::Visibility;
use super::session::{Context, Session, SideState, Took};
use super::stream::{Content, Piece, Turn};

impl Session {
    /// Is this piece of the response stream, between answers, the beginning of the answer that is due? `None`: it is.
    pub(super) fn align(&mut self, piece: &Piece, turn: Turn, expired: bool, cx: &mut Context<'_>) -> Option<Took> {
        let nobodys = |bytes: u64| Some(Took::Bytes(bytes.min(piece.length), Visibility::Lost));
        if let Content::Bytes(bytes) = &piece.content
            && !self.response.lost
            && self.parser.is_unasked(bytes)
        {
            return None;
        }
        let Some(asked) = self.pairing.asked() else {
            // The record of its request may still come.
            if !expired && (turn.waits || !self.request.lost) {
                return Some(Took::Blocked);
            }
            self.lose_answers("response_without_request", cx);
            return nobodys(piece.length);
        };
        let (floor, exact, first_ns) = (asked.floor, asked.exact, asked.facts.first_ns);
        if self.pairing.barrier().is_some_and(|barrier| barrier.floor <= piece.position && barrier.floor != floor) {
            // Something known is still due where nothing should be in flight: the client does not wait for answers.
            cx.counts.add("order_uncertain", 1);
            self.window = true;
            self.lose(Incomplete::Gap, cx);
            return Some(Took::Nothing);
        }
        if !exact && !self.response.lost {
            let early =
                piece.position < floor && piece.moment.ktime_ns < first_ns && !matches!(piece.content, Content::Gap);
            if !early {
                return None;
            }
            self.lose_answers("response_without_request", cx);
        }
        if piece.position < floor {
            return nobodys(floor - piece.position);
        }
        let reason = match &piece.content {
            _ if piece.position > floor => "answer_start_lost",
            Content::Gap => "gap_in_message",
            Content::Missing => "missing_in_message",
            Content::Bytes(bytes) => match (self.protocol.resume)(Side::Response, bytes) {
                Resume::Yes | Resume::More => {
                    self.response.lost = false;
                    self.pairing.aligned();
                    return None;
                }
                Resume::No => {
                    self.failures = self.failures.saturating_add(1);
                    "response_not_found"
                }
            },
        };
        cx.counts.add(reason, 1);
        // At least the one that is due has lost its answer.
        let until = match &piece.content {
            Content::Gap | Content::Missing => piece.end(),
            Content::Bytes(_) => 0,
        };
        self.lose_responses(until.max(floor + 1), Incomplete::Gap, cx);
        Some(Took::Nothing)
    }

    /// Is this piece of the lost request stream the beginning of a request with nothing else in flight? `None`: it is.
    pub(super) fn find_request(&mut self, piece: &Piece, turn: Turn) -> Option<Took> {
        let found = match &piece.content {
            Content::Bytes(bytes) if turn.begins && !self.window && self.tried_request != Some(piece.position) => {
                (self.protocol.resume)(Side::Request, bytes) != Resume::No
            }
            _ => false,
        };
        if !found {
            return Some(Took::Bytes(piece.length, Visibility::Lost));
        }
        self.request.lost = false;
        self.unproven = true;
        self.resumed = true;
        None
    }

    /// The rest of the message that is being read will not be understood; `until`: position behind what is lost.
    pub(super) fn lose_side(&mut self, side: Side, until: u64, incomplete: Incomplete, cx: &mut Context<'_>) {
        match (self.parser.cut(side), self.state(side).opening) {
            (Some(Event::Request(request)), _) => {
                self.push_request(request, Some(incomplete), cx);
            }
            // Unasked it cannot be: without a request in flight no response is read.
            (Some(Event::Response(response)), Some(open)) => {
                self.pairing.answer(response, open.facts);
            }
            (None, Some(_)) => cx.counts.add("head_cut", 1),
            _ => {}
        }
        match side {
            Side::Request => self.lose_requests(incomplete),
            Side::Response => self.lose_responses(until, incomplete, cx),
        }
    }

    /// The request stream is lost; answers to what is in flight still come in order.
    pub(super) fn lose_requests(&mut self, incomplete: Incomplete) {
        if let Some(pending) = self.pairing.asking() {
            pending.ended = true;
            pending.incomplete.get_or_insert(incomplete);
        }
        self.request = SideState::new(true);
        self.parser.reset(Side::Request);
    }

    /// The response stream is lost up to a position: exchanges are over whose answer may have begun before it.
    pub(super) fn lose_responses(&mut self, until: u64, incomplete: Incomplete, cx: &mut Context<'_>) {
        let all = self.window;
        let is_lost = |pending: &super::pair::Pending| all || pending.answer.is_some() || pending.floor < until;
        while let Some(mut pending) = self.pairing.remove_unanswered(is_lost) {
            pending.incomplete.get_or_insert(incomplete);
            self.emit(pending, None, None, cx);
        }
        if all {
            self.lose_requests(incomplete);
        }
        self.response = SideState::new(true);
        self.parser.reset(Side::Response);
    }

    /// What comes on the response stream answers nothing that is known.
    fn lose_answers(&mut self, reason: &'static str, cx: &mut Context<'_>) {
        if !self.response.lost {
            cx.counts.add(reason, 1);
            self.response = SideState::new(true);
            self.parser.reset(Side::Response);
        }
    }

    /// Both streams are lost: exchanges in flight are over.
    pub fn lose(&mut self, incomplete: Incomplete, cx: &mut Context<'_>) {
        while let Some(mut pending) = self.pairing.pop() {
            // Only its request was still coming: the exchange itself is known.
            if !pending.answer.as_ref().is_some_and(|answer| answer.ended) {
                pending.incomplete.get_or_insert(incomplete);
            }
            let end_ns = (incomplete == Incomplete::Timeout).then_some(cx.now_ns);
            self.emit(pending, None, end_ns, cx);
        }
        self.request = SideState::new(true);
        self.response = SideState::new(true);
        self.parser.reset(Side::Request);
        self.parser.reset(Side::Response);
    }
}
