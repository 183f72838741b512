//! Answers of one server, RESP2 and RESP3, with whatever they are nested in, to responses.
//!
//! An answer's first line is its head: an error's first word is the status, and values are never kept. Attributes belong
//! to the answer behind them. What the server says by itself (pushes, messages of a subscription, the second and further
//! confirmations of one command) is no answer. At most [`MAX_DEPTH`] levels; strings of more than [`WALKED_BYTES`] are
//! announced to be skipped. Follows the database that the connection works in.

use crate::model::attributes::{Attributes, Value};
use crate::model::exchange::Incomplete;
use crate::semconv;

use super::super::{Body, Broken, Event, Request, Response, Step};
use super::hint::{self, Hint, MANY};
use super::line::{Count, Line, count, number};

const MAX_DEPTH: usize = 32;
/// Longest string inside an answer that is walked over rather than announced.
const WALKED_BYTES: u64 = 64;
/// What is kept of a line: the first word of an error, or a number.
const LINE_BYTES: usize = 64;
/// Longest first word of what may be a message of a subscription.
const WORD_BYTES: u64 = 16;
const MAX_COUNT: u64 = 1 << 40;

/// An aggregate that is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frame {
    Elements(u64),
    /// Until a line with a dot.
    Streamed,
    /// Of a streamed string, until one of no bytes.
    Chunks,
    /// Elements that are no part of the answer.
    Attribute(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The line that begins a value.
    Header,
    /// Bytes of a string; `kept`: they say what the message is.
    Text {
        kept: bool,
        left: u64,
    },
    TextEnd {
        kept: bool,
    },
}

/// What the message that is being read turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    /// Nothing but attributes so far.
    Unread,
    /// An array or a push whose first word tells.
    Undecided {
        push: bool,
    },
    /// An error whose text is a string.
    Error,
    Answer,
    Aside,
}

pub(super) struct Replies {
    line_bytes: usize,
    state: State,
    line: Line,
    word: Vec<u8>,
    stack: Vec<Frame>,
    message: Message,
    /// The message confirms that a channel was subscribed or given up; the last number says how many are left.
    confirms: bool,
    last_number: u64,
    /// RESP2: the server may send messages, and answers little else.
    subscribed: bool,
    /// Kind of the confirmations that follow an answered command, and how many.
    further: Option<(u8, u8)>,
    /// The database that commands work in; `None`: not known.
    database: Option<String>,
    /// A transaction will change the database, or not.
    select_queued: bool,
}

impl Replies {
    /// `fresh`: the connection begins here, in database 0.
    pub(super) fn new(head_bytes: usize, fresh: bool) -> Self {
        Self {
            line_bytes: head_bytes,
            state: State::Header,
            line: Line::default(),
            word: Vec::new(),
            stack: Vec::new(),
            message: Message::Unread,
            confirms: false,
            last_number: 0,
            subscribed: false,
            further: None,
            database: fresh.then(|| "0".to_owned()),
            select_queued: false,
        }
    }

    /// Whether a message that begins with these bytes may come without a request.
    pub(super) fn is_unasked(&self, bytes: &[u8]) -> bool {
        if !self.is_between() || !self.line.is_empty() {
            // The rest of one.
            return self.message != Message::Answer;
        }
        let may_be = match bytes.first() {
            Some(b'>') => true,
            Some(b'*') => self.subscribed || self.further.is_some(),
            _ => false,
        };
        // A first confirmation answers a command that has not shown yet.
        let kind = super::start::first_word(bytes).and_then(hint::confirms);
        may_be && kind.is_none_or(|kind| self.is_further(kind, Hint::None))
    }

    pub(super) fn feed(&mut self, bytes: &[u8], asked: Option<&Request>) -> Step {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            if rest.is_empty() {
                return Step { taken: at, event: Event::NeedMore };
            }
            let (taken, event) = match self.state {
                State::Header => self.header(rest, asked),
                State::Text { kept, left } => (self.text(kept, left, rest), None),
                State::TextEnd { kept } => self.text_end(kept, rest, asked),
            };
            at += taken;
            if let Some(event) = event {
                return Step { taken: at, event };
            }
        }
    }

    fn header(&mut self, bytes: &[u8], asked: Option<&Request>) -> (usize, Option<Event>) {
        let (taken, ended) = self.line.feed(bytes, LINE_BYTES);
        if self.line.length() > self.line_bytes {
            return (taken, Some(broken("reply_line_too_long")));
        }
        if !ended {
            return (taken, None);
        }
        let line = std::mem::take(&mut self.line);
        let event = match line.split() {
            Some((kind, text)) if line.is_proper() => self.value(kind, text, line.is_whole(), asked),
            // A master that is busy says so while its replica waits.
            None if self.is_between() && asked.is_some_and(|asked| hint::read(asked.hint) == Hint::Opaque) => {
                Some(Event::Aside)
            }
            _ => Some(broken("reply_line")),
        };
        self.line = line;
        self.line.clear();
        (taken, event)
    }

    fn is_between(&self) -> bool {
        self.stack.is_empty() && self.message == Message::Unread
    }

    /// A value begins with a line of this kind.
    fn value(&mut self, kind: u8, text: &[u8], whole: bool, asked: Option<&Request>) -> Option<Event> {
        if self.stack.last() == Some(&Frame::Chunks) {
            return match (kind, count(text)) {
                (b';', Some(Count::Of(0))) => {
                    self.stack.pop();
                    self.complete()
                }
                (b';', Some(Count::Of(bytes))) => self.string(bytes),
                _ => Some(broken("reply_chunk")),
            };
        }
        if kind == b'.' && text.is_empty() && self.stack.last() == Some(&Frame::Streamed) {
            self.stack.pop();
            return self.complete();
        }
        // Only attributes may stand before the answer's own first line.
        let is_head = self.message == Message::Unread
            && kind != b'|'
            && !self.stack.iter().any(|frame| matches!(frame, Frame::Attribute(_)));
        match kind {
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => {
                if !is_scalar(kind, text, whole) {
                    return Some(broken("reply_value"));
                }
                if kind == b':' {
                    self.last_number = number(text).unwrap_or(0);
                }
                if is_head {
                    self.message = Message::Answer;
                    let response = self.response(kind, text, None, Body::None, asked);
                    self.clear();
                    return Some(Event::Response(response));
                }
                self.decide_late().or_else(|| self.complete())
            }
            b'$' | b'=' | b'!' => match count(text) {
                Some(Count::Of(bytes)) if bytes <= MAX_COUNT => {
                    if is_head && kind == b'!' {
                        self.message = Message::Error;
                        self.state = State::Text { kept: true, left: bytes };
                        return None;
                    }
                    if is_head {
                        let response = self.response(kind, text, None, Body::Length(bytes + 2), asked);
                        self.clear();
                        return Some(Event::Response(response));
                    }
                    if matches!(self.message, Message::Undecided { .. }) && bytes <= WORD_BYTES {
                        self.state = State::Text { kept: true, left: bytes };
                        return None;
                    }
                    self.decide_late().or_else(|| self.string(bytes))
                }
                Some(Count::Null) if kind == b'$' => self.empty(is_head, asked),
                Some(Count::Streamed) if kind == b'$' => self.open(Frame::Chunks, kind, None, is_head, asked),
                _ => Some(broken("reply_length")),
            },
            b'*' | b'~' | b'>' | b'%' | b'|' => {
                let pairs = matches!(kind, b'%' | b'|');
                match count(text) {
                    Some(Count::Of(0)) if kind == b'|' => None,
                    Some(Count::Of(0)) => self.empty(is_head, asked),
                    Some(Count::Null) if kind == b'*' => self.empty(is_head, asked),
                    Some(Count::Of(of)) if of <= MAX_COUNT => {
                        let elements = if pairs { of * 2 } else { of };
                        let frame = if kind == b'|' { Frame::Attribute(elements) } else { Frame::Elements(elements) };
                        self.open(frame, kind, Some(of), is_head, asked)
                    }
                    Some(Count::Streamed) if kind != b'|' => self.open(Frame::Streamed, kind, None, is_head, asked),
                    _ => Some(broken("reply_length")),
                }
            }
            _ => Some(broken("reply_kind")),
        }
    }

    /// Something without elements or bytes.
    fn empty(&mut self, is_head: bool, asked: Option<&Request>) -> Option<Event> {
        if !is_head {
            return self.decide_late().or_else(|| self.complete());
        }
        let response = self.response(b'_', b"", None, Body::None, asked);
        self.clear();
        Some(Event::Response(response))
    }

    fn open(
        &mut self,
        frame: Frame,
        kind: u8,
        elements: Option<u64>,
        is_head: bool,
        asked: Option<&Request>,
    ) -> Option<Event> {
        if self.stack.len() >= MAX_DEPTH {
            return Some(broken("reply_nesting"));
        }
        let late = if is_head { None } else { self.decide_late() };
        self.stack.push(frame);
        if !is_head {
            return late;
        }
        let push = kind == b'>';
        if push || (kind == b'*' && self.may_be_message(elements, asked)) {
            self.message = Message::Undecided { push };
            return None;
        }
        self.message = Message::Answer;
        Some(Event::Response(self.response(kind, b"", elements, Body::Framed, asked)))
    }

    /// Whether an array can be a message or a confirmation of a subscription.
    fn may_be_message(&self, elements: Option<u64>, asked: Option<&Request>) -> bool {
        let hint = asked.map(|asked| hint::read(asked.hint));
        let asked = matches!(hint, None | Some(Hint::Subscribe { .. } | Hint::Ping));
        matches!(elements, Some(2..=4)) && (asked || self.subscribed || self.further.is_some())
    }

    /// What begins with no word is none of what the server says by itself, and a push is nothing else.
    fn decide_late(&mut self) -> Option<Event> {
        match self.message {
            Message::Undecided { push: true } => {
                self.message = Message::Aside;
                None
            }
            // An array that begins with something else than a short word.
            Message::Undecided { push: false } => Some(broken("reply_of_subscription")),
            _ => None,
        }
    }

    fn string(&mut self, bytes: u64) -> Option<Event> {
        if bytes > WALKED_BYTES {
            // The end of its line too: like the string itself it may never be seen.
            let skipped = bytes + 2;
            return Some(match self.after_string() {
                Some(_) => Event::SkipToEnd(skipped),
                None => Event::SkipBody(skipped),
            });
        }
        self.state = State::Text { kept: false, left: bytes };
        None
    }

    fn text(&mut self, kept: bool, left: u64, bytes: &[u8]) -> usize {
        let here = bytes.get(..usize::try_from(left).unwrap_or(usize::MAX)).unwrap_or(bytes);
        if kept {
            let room = LINE_BYTES.saturating_sub(self.word.len());
            self.word.extend_from_slice(here.get(..room).unwrap_or(here));
        }
        let left = left - here.len() as u64;
        self.state = if left > 0 { State::Text { kept, left } } else { State::TextEnd { kept } };
        here.len()
    }

    fn text_end(&mut self, kept: bool, bytes: &[u8], asked: Option<&Request>) -> (usize, Option<Event>) {
        let (taken, ended) = self.line.feed(bytes, 1);
        if self.line.length() != 1 || !self.line.is_proper() {
            return (taken, Some(broken("reply_text_end")));
        }
        if !ended {
            return (taken, None);
        }
        self.line.clear();
        self.state = State::Header;
        if !kept {
            return (taken, self.after_string());
        }
        let word = std::mem::take(&mut self.word);
        if self.message == Message::Error {
            let response = self.response(b'-', &word, None, Body::None, asked);
            self.clear();
            return (taken, Some(Event::Response(response)));
        }
        let event = self.decide(&word, asked).map(Event::Response);
        match (event, self.complete()) {
            // A push of one word.
            (None, over) => (taken, over),
            (Some(_), Some(_)) => (taken, Some(broken("reply_of_subscription"))),
            (event, None) => (taken, event),
        }
    }

    fn after_string(&mut self) -> Option<Event> {
        // The next chunk, if there is one, has a line of its own.
        if self.stack.last() == Some(&Frame::Chunks) { None } else { self.complete() }
    }

    /// A whole value was read. The event, if it was the message's last.
    fn complete(&mut self) -> Option<Event> {
        while let Some(frame) = self.stack.last_mut() {
            match frame {
                Frame::Streamed | Frame::Chunks => return None,
                Frame::Elements(left) | Frame::Attribute(left) if *left > 1 => {
                    *left -= 1;
                    return None;
                }
                Frame::Attribute(_) => {
                    self.stack.pop();
                    return None;
                }
                Frame::Elements(_) => _ = self.stack.pop(),
            }
        }
        if self.confirms {
            self.subscribed = self.last_number > 0;
        }
        let event = if self.message == Message::Answer { Event::End } else { Event::Aside };
        self.clear();
        Some(event)
    }

    /// By its first word: what the server says by itself, or an answer.
    fn decide(&mut self, word: &[u8], asked: Option<&Request>) -> Option<Response> {
        let push = self.message == Message::Undecided { push: true };
        let hint = asked.map_or(Hint::None, |asked| hint::read(asked.hint));
        self.message = Message::Aside;
        match hint::confirms(word) {
            Some(kind) => {
                self.confirms = !push;
                if self.is_further(kind, hint) {
                    if let Some((_, left)) = self.further.as_mut().filter(|(_, left)| *left < MANY) {
                        *left -= 1;
                    }
                    self.further = self.further.filter(|(_, left)| *left > 0);
                    return None;
                }
                let Hint::Subscribe { kind: wanted, further } = hint else { return None };
                if wanted != kind {
                    return None;
                }
                self.message = Message::Answer;
                let response = self.response(b'*', b"", None, Body::Framed, asked);
                self.further = (further > 0).then_some((kind, further));
                Some(response)
            }
            None if push || matches!(word, b"message" | b"pmessage" | b"smessage") => None,
            None => {
                self.message = Message::Answer;
                Some(self.response(b'*', b"", None, Body::Framed, asked))
            }
        }
    }

    /// Whether a confirmation belongs to a command that was answered before, although `hint` may be what comes next.
    fn is_further(&self, kind: u8, hint: Hint) -> bool {
        match self.further {
            Some((of, left)) if of == kind && left < MANY => true,
            Some((of, _)) => of == kind && !matches!(hint, Hint::Subscribe { kind: next, .. } if next == kind),
            None => false,
        }
    }

    /// The head of an answer, and what it means for the connection.
    fn response(
        &mut self,
        kind: u8,
        text: &[u8],
        elements: Option<u64>,
        body: Body,
        asked: Option<&Request>,
    ) -> Response {
        self.further = None;
        let mut attributes = Attributes::default();
        if let Some(database) = &self.database {
            attributes.set(semconv::DB_NAMESPACE, database.clone());
        }
        let failed = kind == b'-';
        let queued = kind == b'+' && text == b"QUEUED";
        let status = if failed {
            let code = error_code(text);
            attributes.set(semconv::DB_RESPONSE_STATUS_CODE, code.clone());
            code
        } else {
            if queued { "QUEUED" } else { "OK" }.to_owned()
        };
        let hint = asked.map_or(Hint::None, |asked| hint::read(asked.hint));
        match hint {
            Hint::Select if queued => self.select_queued = true,
            Hint::Select if !failed => {
                self.database = asked.and_then(|asked| asked.attributes.text(semconv::DB_NAMESPACE)).map(str::to_owned);
            }
            Hint::Exec => {
                if let Some(batch) = elements.filter(|elements| *elements > 1).and_then(|of| i64::try_from(of).ok()) {
                    attributes.set(semconv::DB_OPERATION_BATCH_SIZE, Value::Int(batch));
                }
                if std::mem::take(&mut self.select_queued) {
                    self.database = None;
                }
            }
            Hint::Reset if !failed => {
                self.database = Some("0".to_owned());
                self.subscribed = false;
            }
            _ => {}
        }
        let opaque_after = hint == Hint::Opaque && !failed;
        Response { key: None, status: status.into(), attributes, body, opaque_after }
    }

    /// What is certain of an answer whose rest will never come.
    pub(super) fn cut(&mut self) -> Option<Event> {
        let is_error = self.is_between() && self.line.text().first() == Some(&b'-') && self.line.text().contains(&b' ');
        let text = self.line.text().get(1..).unwrap_or_default().to_vec();
        is_error.then(|| Event::Response(self.response(b'-', &text, None, Body::None, None)))
    }

    /// Forgets the message, and whatever a lost one may have changed.
    pub(super) fn reset(&mut self) {
        self.clear();
        self.further = None;
        self.lose_database();
    }

    /// A command that was lost may have changed it.
    pub(super) fn lose_database(&mut self) {
        self.database = None;
        self.select_queued = false;
    }

    fn clear(&mut self) {
        self.state = State::Header;
        self.line.clear();
        self.word.clear();
        self.stack.clear();
        self.message = Message::Unread;
        self.confirms = false;
        self.last_number = 0;
    }

    pub(super) fn kept_bytes(&self) -> usize {
        self.line.kept_bytes() + self.word.len() + self.stack.len() * size_of::<Frame>()
    }
}

/// Whether a line of this kind can be this text.
pub(super) fn is_scalar(kind: u8, text: &[u8], whole: bool) -> bool {
    match kind {
        b':' => {
            let digits = text.strip_prefix(b"-").or(text.strip_prefix(b"+")).unwrap_or(text);
            (1..=19).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit)
        }
        b'(' => text.strip_prefix(b"-").unwrap_or(text).iter().all(u8::is_ascii_digit) && !text.is_empty(),
        b',' => {
            let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
            whole && !text.is_empty() && text.iter().all(is_part)
        }
        b'#' => matches!(text, b"t" | b"f"),
        b'_' => text.is_empty(),
        _ => true,
    }
}

/// The first word of an error, if it is one that names a kind.
fn error_code(text: &[u8]) -> String {
    let word = text.split(|byte| *byte == b' ').next().unwrap_or_default();
    let plain = word.first().is_some_and(u8::is_ascii_uppercase)
        && word.len() <= 32
        && word.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_');
    if plain { String::from_utf8_lossy(word).into_owned() } else { super::command::OTHER.to_owned() }
}

fn broken(reason: &'static str) -> Event {
    Event::Broken(Broken { reason, incomplete: Incomplete::Malformed })
}
