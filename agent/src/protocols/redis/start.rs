//! Where a stream of Redis begins: strict marks of a command or an answer in the first bytes.
//!
//! A command is an array of strings whose first is a command that we know. Answers are mostly too plain to prove
//! anything (`+OK` is also a mail server's): only what a server says to a subscriber, and the answer to `HELLO`, count.
//! Looks at the first two or three lines; keeps nothing.

use super::super::{Detect, Resume, Side};
use super::commands::{self, MAX_NAME_BYTES};
use super::hint;
use super::line::{Count, count, number};

/// Longest line that says how much follows, with its end.
const HEADER_BYTES: usize = 24;
/// More arguments than any client begins with.
const MAX_ARGUMENTS: u64 = 1 << 20;

/// Something that may not be whole.
enum Part<T> {
    Is(T),
    Not,
    More,
}

use Part::{Is, More, Not};

pub(super) fn detect(bytes: &[u8]) -> Detect {
    let verdict = match bytes.first() {
        Some(b'*') => array(bytes),
        Some(b'>') => push(bytes),
        Some(b'%') => greeting(bytes),
        _ => Not,
    };
    match verdict {
        Is(Side::Request) => Detect::Request,
        Is(Side::Response) => Detect::Response,
        Not => Detect::No,
        More => Detect::More,
    }
}

/// A command must be one for certain; an answer, where one is due, must only look like one.
pub(super) fn resume(side: Side, bytes: &[u8]) -> Resume {
    if side == Side::Request {
        return super::super::resume_as_detected(detect, side, bytes);
    }
    let Some((kind, rest)) = bytes.split_first() else { return Resume::More };
    let end = rest.iter().take(HEADER_BYTES).position(|byte| *byte == b'\n');
    let line = end.and_then(|end| rest.get(..end)).and_then(|line| line.strip_suffix(b"\r"));
    let plausible = match (kind, line) {
        (b'+' | b'-', None) => !rest.iter().take(HEADER_BYTES).any(|byte| matches!(byte, b'\n' | 0..=8)),
        (b'+' | b'-', Some(_)) => true,
        (b'(' | b',', None) => rest.iter().take(HEADER_BYTES).all(u8::is_ascii_graphic),
        (b':' | b',' | b'(' | b'#' | b'_', Some(text)) => super::reply::is_scalar(*kind, text, true),
        (b'$' | b'=' | b'!' | b'*' | b'~' | b'>' | b'%' | b'|', Some(text)) => match count(text) {
            Some(Count::Null) => matches!(kind, b'$' | b'*'),
            Some(_) => true,
            None => false,
        },
        (b'$' | b'=' | b'!' | b'*' | b'~' | b'>' | b'%' | b'|' | b':' | b'#' | b'_', None) if end.is_none() => {
            if rest.len() >= HEADER_BYTES {
                return Resume::No;
            }
            return Resume::More;
        }
        _ => false,
    };
    if plausible { Resume::Yes } else { Resume::No }
}

/// The first word of an array or a push, where it is all here.
pub(super) fn first_word(bytes: &[u8]) -> Option<&[u8]> {
    let (kind, _) = bytes.split_first()?;
    let Is((_, rest)) = header(bytes, *kind) else { return None };
    match string(rest) {
        Is((word, _)) => Some(word),
        _ => None,
    }
}

fn array(bytes: &[u8]) -> Part<Side> {
    let (elements, rest) = match header(bytes, b'*') {
        Is(found) => found,
        Not => return Not,
        More => return More,
    };
    if !(1..=MAX_ARGUMENTS).contains(&elements) {
        return Not;
    }
    let (word, rest) = match string(rest) {
        Is(found) => found,
        Not => return Not,
        More => return More,
    };
    match (word, elements) {
        (b"message" | b"smessage", 3) | (b"pmessage", 4) => return Is(Side::Response),
        _ => {}
    }
    if hint::confirms(word).is_some() && elements == 3 {
        // A confirmation ends with a number, a command with one more channel.
        return match channel(rest) {
            Is(rest) => match rest.first() {
                Some(b':') => Is(Side::Response),
                Some(b'$') => Is(Side::Request),
                Some(_) => Not,
                None => More,
            },
            Not => Not,
            More => More,
        };
    }
    if commands::known_bytes(word).is_some() { Is(Side::Request) } else { Not }
}

fn push(bytes: &[u8]) -> Part<Side> {
    let rest = match header(bytes, b'>') {
        Is((_, rest)) => rest,
        Not => return Not,
        More => return More,
    };
    match string(rest) {
        Is((b"message" | b"smessage" | b"pmessage" | b"invalidate", _)) => Is(Side::Response),
        Is((word, _)) if hint::confirms(word).is_some() => Is(Side::Response),
        More => More,
        _ => Not,
    }
}

/// The answer to `HELLO 3`.
fn greeting(bytes: &[u8]) -> Part<Side> {
    let rest = match header(bytes, b'%') {
        Is((_, rest)) => rest,
        Not => return Not,
        More => return More,
    };
    match string(rest) {
        Is((b"server", _)) => Is(Side::Response),
        More => More,
        _ => Not,
    }
}

/// A kind, a number and the end of the line; what follows.
fn header(bytes: &[u8], kind: u8) -> Part<(u64, &[u8])> {
    let Some((first, rest)) = bytes.split_first() else { return More };
    if *first != kind {
        return Not;
    }
    match rest.iter().take(HEADER_BYTES).position(|byte| *byte == b'\n') {
        Some(end) => {
            let line = rest.get(..end).and_then(|line| line.strip_suffix(b"\r"));
            match line.and_then(number) {
                Some(number) => Is((number, rest.get(end + 1..).unwrap_or_default())),
                None => Not,
            }
        }
        None if rest.len() >= HEADER_BYTES => Not,
        None => {
            let digits = rest.strip_suffix(b"\r").unwrap_or(rest);
            if digits.iter().all(u8::is_ascii_digit) { More } else { Not }
        }
    }
}

/// A short word as a string; what follows.
fn string(bytes: &[u8]) -> Part<(&[u8], &[u8])> {
    let (length, rest) = match header(bytes, b'$') {
        Is((length, rest)) if (1..=MAX_NAME_BYTES as u64).contains(&length) => (length as usize, rest),
        More => return More,
        _ => return Not,
    };
    let word = rest.get(..length).unwrap_or(rest);
    if !commands::is_word(word) && !word.is_empty() {
        return Not;
    }
    match rest.get(length..length + 2) {
        Some(b"\r\n") => Is((word, rest.get(length + 2..).unwrap_or_default())),
        Some(_) => Not,
        None => More,
    }
}

/// Whatever follows a channel, or the lack of one.
fn channel(bytes: &[u8]) -> Part<&[u8]> {
    if let Some(rest) = bytes.strip_prefix(b"$-1\r\n") {
        return Is(rest);
    }
    if b"$-1\r\n".starts_with(bytes) {
        return More;
    }
    match header(bytes, b'$') {
        Is((length, rest)) => {
            let end = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(2);
            rest.get(end..).map_or(More, Is)
        }
        Not => Not,
        More => More,
    }
}

#[cfg(test)]
mod tests {
    use super::{detect, first_word, resume};
    use crate::protocols::{Detect, Resume, Side};

    #[test]
    fn commands_are_told_from_answers_that_look_like_them() {
        for (bytes, expected) in [
            (&b"*1\r\n$4\r\nPING\r\n"[..], Detect::Request),
            (b"*3\r\n$3\r\nset\r\n$1\r\nk\r\n$1\r\nv\r\n", Detect::Request),
            (b"*2\r\n$6\r\nCONFIG\r\n$3\r\nGET\r\n", Detect::Request),
            (b"*2\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n", Detect::Request),
            (b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n$1\r\nd\r\n", Detect::Request),
            (b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n", Detect::Response),
            (b"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n", Detect::Response),
            (b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n", Detect::Response),
            (b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n", Detect::Response),
            (b"%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n", Detect::Response),
            (b"+OK\r\n", Detect::No),
            (b"-ERR no\r\n", Detect::No),
            (b"$3\r\nGET\r\n", Detect::No),
            (b"*2\r\n$5\r\nhello world\r\n", Detect::No),
            (b"*2\r\n$5\r\nword1\r\n$1\r\na\r\n", Detect::No),
            (b"*0\r\n", Detect::No),
            (b"*99999999\r\n$3\r\nGET\r\n", Detect::No),
            (b"*-1\r\n", Detect::No),
            (b"PING\r\n", Detect::No),
            (b"* comment", Detect::No),
            (b"GET / HTTP/1.1\r\n", Detect::No),
        ] {
            assert_eq!(detect(bytes), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn every_prefix_of_a_beginning_needs_more_or_is_told() {
        for (bytes, expected) in [
            (&b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"[..], Detect::Response),
            (b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", Detect::Request),
            (b">3\r\n$7\r\nmessage\r\n", Detect::Response),
        ] {
            let told = (0..=bytes.len()).find(|cut| detect(&bytes[..*cut]) == expected).unwrap();
            // Nothing at all tells nothing.
            assert!((1..told).all(|cut| detect(&bytes[..cut]) == Detect::More), "{}", bytes.escape_ascii());
            assert!((told..=bytes.len()).all(|cut| detect(&bytes[..cut]) == expected));
        }
    }

    #[test]
    fn an_answer_that_is_due_need_only_look_like_one() {
        for (bytes, expected) in [
            (&b"+OK\r\n"[..], Resume::Yes),
            (b"-ERR something that takes more than one look\r\n", Resume::Yes),
            (b":12\r\n", Resume::Yes),
            (b"$5\r\nhello\r\n", Resume::Yes),
            (b"*-1\r\n", Resume::Yes),
            (b"_\r\n", Resume::Yes),
            (b",1.5e3\r\n", Resume::Yes),
            (b"$5", Resume::More),
            (b"", Resume::More),
            (b"$five\r\n", Resume::No),
            (b":x\r\n", Resume::No),
            (b"hello\r\n", Resume::No),
            (b"\r\n+OK\r\n", Resume::No),
        ] {
            assert_eq!(resume(Side::Response, bytes), expected, "{}", bytes.escape_ascii());
        }
        assert_eq!(resume(Side::Request, b"+OK\r\n"), Resume::No);
        assert_eq!(resume(Side::Request, b"*1\r\n$4\r\nPING\r\n"), Resume::Yes);
        assert_eq!(resume(Side::Request, b"*1\r\n$4\r\nPI"), Resume::More);
    }

    #[test]
    fn the_first_word_is_given_when_it_is_whole() {
        assert_eq!(first_word(b">3\r\n$7\r\nmessage\r\n"), Some(&b"message"[..]));
        assert_eq!(first_word(b">3\r\n$7\r\nmessa"), None);
        assert_eq!(first_word(b""), None);
    }
}
