//! Commands of one client: arrays of strings, or words on a line, to requests.
//!
//! Walks arguments of at most [`WALKED_BYTES`]; longer ones are announced to be skipped, and from the first of them on
//! everything of the command is masked, so that its request is known before its values have come. Keeps one argument
//! that means something to us. Commands whose answer the client has declined (`CLIENT REPLY`) are no requests: nothing
//! will ever answer them.

use crate::model::exchange::Incomplete;

use super::super::{Body, Broken, Event, Step};
use super::command::{Command, Keeping, Role, Say};
use super::line::{Line, number};

/// Longest argument that is walked over rather than announced.
const WALKED_BYTES: u64 = 64;
/// Longest line that says how much follows.
const HEADER_BYTES: usize = 24;
/// Words of an inline command that are looked at.
const INLINE_BYTES: usize = 1024;
/// Beyond what any server takes.
const MAX_ARGUMENTS: u64 = 1 << 31;
const MAX_ARGUMENT_BYTES: u64 = 1 << 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The line that begins a command.
    Start,
    /// The line that says how long the next argument is.
    Header,
    Argument {
        role: Role,
        kept: bool,
        left: u64,
    },
    /// The last byte of a header was left, so that what it announces can be said with it.
    Announce(u64),
    ArgumentEnd,
}

/// Whether answers come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    On,
    Off,
    /// Not to the next command.
    SkipNext,
}

pub(super) struct Commands {
    keeping: Keeping,
    line_bytes: usize,
    state: State,
    line: Line,
    argument: Vec<u8>,
    command: Command,
    /// The request was told; its end was not.
    told: bool,
    answers: Answers,
}

impl Commands {
    pub(super) fn new(keeping: Keeping, head_bytes: usize) -> Self {
        Self {
            keeping,
            line_bytes: head_bytes,
            state: State::Start,
            line: Line::default(),
            argument: Vec::new(),
            command: Command::default(),
            told: false,
            answers: Answers::On,
        }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) -> Step {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            if rest.is_empty() {
                return Step { taken: at, event: Event::NeedMore };
            }
            let (taken, event) = match self.state {
                State::Start => self.start(rest),
                State::Header => self.header(rest),
                State::Argument { role, kept, left } => (self.argument(role, kept, left, rest), None),
                State::Announce(length) => {
                    self.state = State::Header;
                    (1, Some(Event::SkipBody(length + 2)))
                }
                State::ArgumentEnd => self.argument_end(rest),
            };
            at += taken;
            if let Some(event) = event {
                return Step { taken: at, event };
            }
        }
    }

    fn start(&mut self, bytes: &[u8]) -> (usize, Option<Event>) {
        let (taken, ended) = self.line.feed(bytes, INLINE_BYTES.min(self.line_bytes / 2));
        if self.line.length() > self.line_bytes {
            return (taken, Some(broken("command_line_too_long")));
        }
        if !ended {
            return (taken, None);
        }
        let event = match self.line.split() {
            // The server passes over an empty line, and over an array of nothing.
            None => Some(Event::Aside),
            Some((b'*', b"0" | b"-1")) => Some(Event::Aside),
            Some((b'*', text)) => match number(text) {
                Some(arguments) if self.line.is_proper() && arguments <= MAX_ARGUMENTS => {
                    self.command = Command::new(arguments, false);
                    self.state = State::Header;
                    None
                }
                _ => Some(broken("command_array")),
            },
            Some(_) => Some(self.inline()),
        };
        self.line.clear();
        (taken, event)
    }

    /// A command typed by hand.
    fn inline(&mut self) -> Event {
        let text = self.line.text().to_vec();
        let quoted = text.iter().any(|byte| matches!(byte, b'"' | b'\''));
        let mut words: Vec<&[u8]> = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
        let mut arguments = words.len() as u64;
        if quoted {
            // Where words end is not certain.
            words.truncate(1);
        } else if !self.line.is_whole() {
            words.pop();
            arguments += 1;
        }
        if words.is_empty() {
            return if text.iter().all(u8::is_ascii_whitespace) { Event::Aside } else { broken("command_unknown") };
        }
        self.command = Command::new(arguments, true);
        for word in words {
            let (role, most) = self.command.role(&self.keeping);
            if role == Role::Masked || word.len() > most {
                self.command.mask(role);
            } else {
                self.command.take(role, word, &self.keeping);
            }
            if !self.command.is_known() {
                return broken("command_unknown");
            }
        }
        self.finish()
    }

    fn header(&mut self, bytes: &[u8]) -> (usize, Option<Event>) {
        let (taken, ended) = self.line.feed(bytes, HEADER_BYTES);
        if self.line.length() > HEADER_BYTES {
            return (taken, Some(broken("argument_header")));
        }
        if !ended {
            return (taken, None);
        }
        let length = match self.line.split() {
            Some((b'$', text)) if self.line.is_proper() => number(text),
            _ => None,
        };
        self.line.clear();
        let Some(length) = length.filter(|length| *length <= MAX_ARGUMENT_BYTES) else {
            return (taken, Some(broken("argument_header")));
        };
        let (role, most) = if self.told { (Role::Masked, 0) } else { self.command.role(&self.keeping) };
        let kept = role != Role::Masked && length <= most as u64;
        if kept || length <= WALKED_BYTES {
            self.state = State::Argument { role, kept, left: length };
            return (taken, None);
        }
        let unanswered = self.is_unanswered();
        self.command.mask(role);
        // With the end of its line: like the argument itself it may never be seen.
        let skipped = length + 2;
        let event = match (self.told || unanswered, self.command.is_whole()) {
            (true, false) => Event::SkipBody(skipped),
            (true, true) => Event::SkipToEnd(skipped),
            (false, true) => Event::Request(self.command.request(Body::Length(skipped))),
            (false, false) => {
                // What follows may never be seen: the request is told before it is passed over.
                self.told = true;
                self.answers = self.answers_after();
                self.state = State::Announce(length);
                return (taken.saturating_sub(1), Some(Event::Request(self.command.request(Body::Framed))));
            }
        };
        if self.command.is_whole() {
            if !self.told {
                self.answers = self.answers_after();
            }
            self.clear();
        }
        (taken, Some(event))
    }

    fn argument(&mut self, role: Role, kept: bool, left: u64, bytes: &[u8]) -> usize {
        let here = bytes.get(..usize::try_from(left).unwrap_or(usize::MAX)).unwrap_or(bytes);
        if kept {
            self.argument.extend_from_slice(here);
        }
        let left = left - here.len() as u64;
        if left > 0 {
            self.state = State::Argument { role, kept, left };
            return here.len();
        }
        if kept {
            self.command.take(role, &self.argument, &self.keeping);
        } else {
            self.command.mask(role);
        }
        self.argument.clear();
        self.state = State::ArgumentEnd;
        here.len()
    }

    fn argument_end(&mut self, bytes: &[u8]) -> (usize, Option<Event>) {
        let (taken, ended) = self.line.feed(bytes, 1);
        if self.line.length() != 1 || !self.line.is_proper() {
            return (taken, Some(broken("argument_end")));
        }
        if !ended {
            return (taken, None);
        }
        self.line.clear();
        if !self.command.is_whole() {
            self.state = State::Header;
            return (taken, None);
        }
        (taken, Some(self.finish()))
    }

    /// The command is over.
    fn finish(&mut self) -> Event {
        let event = if self.told {
            Event::End
        } else {
            let unanswered = self.is_unanswered();
            self.answers = self.answers_after();
            if unanswered { Event::Aside } else { Event::Request(self.command.request(Body::None)) }
        };
        self.clear();
        event
    }

    /// The client has declined the answer to this command.
    fn is_unanswered(&self) -> bool {
        match (self.command.says(), self.answers) {
            (Some(Say::On), _) => false,
            (Some(Say::Off | Say::Skip), _) => true,
            (None, answers) => answers != Answers::On,
        }
    }

    fn answers_after(&self) -> Answers {
        match (self.command.says(), self.answers) {
            (Some(Say::On), _) => Answers::On,
            (Some(Say::Off), _) | (Some(Say::Skip) | None, Answers::Off) => Answers::Off,
            (Some(Say::Skip), _) => Answers::SkipNext,
            (None, _) => Answers::On,
        }
    }

    /// What is certain of a command whose rest will never come.
    pub(super) fn cut(&mut self) -> Option<Event> {
        let in_command = self.state != State::Start && !self.told;
        if !in_command || !self.command.is_named() || self.is_unanswered() {
            return None;
        }
        Some(Event::Request(self.command.request(Body::None)))
    }

    /// Forgets the command. What the client said about answers holds until it says something else.
    pub(super) fn reset(&mut self) {
        if self.answers == Answers::SkipNext {
            self.answers = Answers::On;
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.state = State::Start;
        self.line.clear();
        self.argument.clear();
        self.command = Command::default();
        self.told = false;
    }

    pub(super) fn kept_bytes(&self) -> usize {
        self.line.kept_bytes() + self.argument.len() + self.command.kept_bytes()
    }
}

fn broken(reason: &'static str) -> Event {
    Event::Broken(Broken { reason, incomplete: Incomplete::Malformed })
}
