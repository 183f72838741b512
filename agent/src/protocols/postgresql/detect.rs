//! Is this PostgreSQL? The strict start predicate, and where a message of either side can begin again.
//!
//! Looks at the first message only, and at the type byte behind it. A client's message must be right in all that can be seen of it, down
//! to a word of SQL where it has a statement, since a place found again stands or falls with it. A server's message
//! is due where `resume` asks for one, so type, length and what the type fixes are enough there. Reads, keeps nothing.

use super::super::db::sql;
use super::super::{Detect, Resume, Side};
use super::wire::{MAX_STARTUP_LENGTH, Size, UNTYPED_HEADER, be16, be32, text, typed, untyped};

/// Columns of a table, and parameters of a statement, that a server allows.
const MAX_COLUMNS: u16 = 1664;
/// Longest command tag.
const MAX_TAG_BYTES: usize = 64;
/// Longest name of a statement or portal that is looked for the end of.
const MAX_NAME_BYTES: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Yes,
    No,
    More,
}

use Verdict::{More, No, Yes};

pub(super) fn detect(bytes: &[u8]) -> Detect {
    match (frontend(bytes), backend(bytes, true)) {
        // `C` and `SELECT 1` are a server's tag, and could be the name of a statement to close.
        (_, Yes) => Detect::Response,
        (Yes, _) => Detect::Request,
        (More, _) | (_, More) => Detect::More,
        (No, No) => Detect::No,
    }
}

pub(super) fn resume(side: Side, bytes: &[u8]) -> Resume {
    let verdict = match side {
        Side::Request => frontend(bytes),
        Side::Response => backend(bytes, false),
    };
    match verdict {
        Yes => Resume::Yes,
        No => Resume::No,
        More => Resume::More,
    }
}

fn when(truth: bool) -> Verdict {
    if truth { Yes } else { No }
}

/// What can be seen of a message's contents.
struct Seen<'a> {
    contents: &'a [u8],
    /// Length of all of them.
    length: usize,
    /// The type byte behind them.
    next: Option<u8>,
}

impl Seen<'_> {
    fn is_whole(&self) -> bool {
        self.contents.len() == self.length
    }
}

/// `Err`: the verdict is clear already.
fn look(bytes: &[u8]) -> Result<Seen<'_>, Verdict> {
    match typed(bytes) {
        Err(_) => Err(No),
        Ok(Size::Needs(_)) => Err(More),
        Ok(Size::Is { header, total }) => {
            let total = usize::try_from(total).map_err(|_| No)?;
            let contents = bytes.get(header..total).or_else(|| bytes.get(header..)).unwrap_or_default();
            Ok(Seen { contents, length: total - header, next: bytes.get(total).copied() })
        }
    }
}

fn is_name(name: &[u8]) -> bool {
    name.len() <= MAX_NAME_BYTES && !name.iter().any(u8::is_ascii_control)
}

fn frontend(bytes: &[u8]) -> Verdict {
    let first = match bytes.first() {
        None => return More,
        Some(0) => return startup(bytes),
        Some(first) => *first,
    };
    if !b"QPBDCEHSF".contains(&first) {
        return No;
    }
    let seen = match look(bytes) {
        Ok(seen) => seen,
        Err(verdict) => return verdict,
    };
    let verdict = match first {
        b'Q' => statement(&seen, seen.contents, seen.length),
        b'P' => parse(&seen),
        b'B' => bind(&seen),
        b'D' | b'C' => match seen.contents {
            [b'S' | b'P', name @ ..] => name_to_end(&seen, name),
            [] => {
                if seen.is_whole() {
                    No
                } else {
                    More
                }
            }
            _ => No,
        },
        b'E' => match text(seen.contents) {
            Some((name, rows)) => {
                let right = is_name(name) && seen.length == name.len() + 5;
                if right && !seen.is_whole() {
                    More
                } else {
                    when(right && be32(rows).is_some_and(|rows| rows <= i32::MAX as u32))
                }
            }
            None => more_of_name(&seen, seen.contents),
        },
        b'F' => match (be32(seen.contents), seen.contents.get(4..).and_then(be16)) {
            (Some(_), Some(formats)) => when(formats <= 100 && seen.length >= 10 + 2 * usize::from(formats)),
            _ => {
                if seen.is_whole() {
                    No
                } else {
                    More
                }
            }
        },
        _ => when(seen.length == 0),
    };
    match (verdict, seen.next) {
        (Yes, Some(next)) => when(b"QPBDCEHSXFdcf".contains(&next)),
        (verdict, _) => verdict,
    }
}

fn startup(bytes: &[u8]) -> Verdict {
    // Enough of the length to refuse early.
    let length = bytes.iter().take(4).fold(0u32, |sum, byte| (sum << 8) | u32::from(*byte));
    if bytes.len() < 4 {
        return when_more(bytes.len() < 3 && length == 0 || length <= MAX_STARTUP_LENGTH >> 8);
    }
    match untyped(bytes) {
        Err(_) => No,
        Ok(Size::Needs(_)) => when_more(length <= MAX_STARTUP_LENGTH),
        Ok(Size::Is { total: 8, .. }) => Yes,
        Ok(Size::Is { total, .. }) => {
            if bytes.get(4..).and_then(be32) == Some(super::wire::CANCEL_REQUEST) {
                return Yes;
            }
            // Pairs of strings: the first name tells.
            let rest = bytes.get(UNTYPED_HEADER..).unwrap_or_default();
            match text(rest) {
                Some((b"", _)) => when(total == 9),
                Some((name, _)) => when(name.iter().all(|byte| byte.is_ascii_graphic())),
                None => when_more(rest.len() < 64 && rest.iter().all(u8::is_ascii_graphic)),
            }
        }
    }
}

fn when_more(possible: bool) -> Verdict {
    if possible { More } else { No }
}

fn more_of_name(seen: &Seen<'_>, name: &[u8]) -> Verdict {
    when_more(!seen.is_whole() && is_name(name))
}

/// A name that fills the contents.
fn name_to_end(seen: &Seen<'_>, name: &[u8]) -> Verdict {
    match text(name) {
        Some((name, rest)) => when(is_name(name) && rest.is_empty() && seen.is_whole()),
        None => more_of_name(seen, name),
    }
}

/// A statement that fills the contents, of which `length` bytes belong to it.
fn statement(seen: &Seen<'_>, bytes: &[u8], length: usize) -> Verdict {
    let (bytes, cut) = match text(bytes) {
        Some((bytes, _)) if bytes.len() + 1 == length => (bytes, false),
        Some(_) => return No,
        None if seen.is_whole() => return No,
        None => (bytes, true),
    };
    match sql::begins(bytes, cut, &sql::POSTGRESQL) {
        Some(begins) => when(begins),
        None => More,
    }
}

fn parse(seen: &Seen<'_>) -> Verdict {
    let Some((name, rest)) = text(seen.contents) else { return more_of_name(seen, seen.contents) };
    if !is_name(name) {
        return No;
    }
    match text(rest) {
        // Behind the statement: the number of types of parameters, and the types.
        Some((bytes, types)) => match be16(types) {
            Some(count) if seen.length != name.len() + bytes.len() + 4 + 4 * usize::from(count) => No,
            None if seen.is_whole() => No,
            _ => match sql::begins(bytes, false, &sql::POSTGRESQL) {
                Some(begins) => when(begins),
                None => No,
            },
        },
        None if seen.is_whole() => No,
        None => match sql::begins(rest, true, &sql::POSTGRESQL) {
            Some(begins) => when(begins),
            None => More,
        },
    }
}

fn bind(seen: &Seen<'_>) -> Verdict {
    let Some((portal, rest)) = text(seen.contents) else { return more_of_name(seen, seen.contents) };
    let Some((name, rest)) = text(rest) else { return more_of_name(seen, rest) };
    if !is_name(portal) || !is_name(name) {
        return No;
    }
    let mut at = portal.len() + name.len() + 2;
    // Formats, values, formats of results: each a count and so many items.
    let short = if seen.is_whole() { No } else { More };
    let Some(formats) = be16(rest) else { return short };
    let (mut rest, first) = match formats_at(rest, formats) {
        Some(split) => split,
        None => return short,
    };
    at += 2 + 2 * usize::from(formats);
    if !first {
        return No;
    }
    let Some(values) = be16(rest) else { return short };
    if formats > 1 && formats != values {
        return No;
    }
    at += 2;
    rest = rest.get(2..).unwrap_or_default();
    for _ in 0..values {
        let Some(length) = be32(rest) else { return if seen.is_whole() { No } else { Yes } };
        let length = if length == u32::MAX { 0 } else { usize::try_from(length).unwrap_or(usize::MAX) };
        at = at.saturating_add(4).saturating_add(length);
        // The formats of the results come behind it.
        if at.saturating_add(2) > seen.length {
            return No;
        }
        rest = match rest.get(4..).and_then(|rest| rest.get(length..)) {
            Some(rest) => rest,
            // The lengths agree as far as they can be seen.
            None => return Yes,
        };
    }
    let Some(results) = be16(rest) else { return short };
    when(at + 2 + 2 * usize::from(results) == seen.length)
}

/// What is behind so many format codes, and whether they are all 0 or 1.
fn formats_at(bytes: &[u8], count: u16) -> Option<(&[u8], bool)> {
    let codes = bytes.get(2..2 + 2 * usize::from(count))?;
    let right = codes.chunks(2).all(|code| matches!(code, [0, 0 | 1]));
    Some((bytes.get(2 + codes.len()..)?, right))
}

/// `strict`: nothing is known of the connection.
fn backend(bytes: &[u8], strict: bool) -> Verdict {
    let Some(first) = bytes.first() else { return More };
    if !b"123ACDEGHIKNRSTVWZcdnstv".contains(first) {
        return No;
    }
    let seen = match look(bytes) {
        Ok(seen) => seen,
        Err(verdict) => return verdict,
    };
    let more = if seen.is_whole() { No } else { More };
    let verdict = match first {
        b'1' | b'2' | b'3' | b'I' | b'c' | b'n' | b's' => when(seen.length == 0),
        b'Z' => match seen.contents {
            _ if seen.length != 1 => No,
            [] => More,
            status => when(matches!(status, [b'I' | b'T' | b'E'])),
        },
        b'C' => match text(seen.contents) {
            Some((tag, _)) => when(tag.len() + 1 == seen.length && is_tag(tag)),
            None => when_more(more == More && seen.length <= MAX_TAG_BYTES),
        },
        b'E' | b'N' => fields(&seen),
        b'R' => match be32(seen.contents) {
            Some(code) => when((code == 0 && seen.length == 4) || (code > 0 && code <= 12 && seen.length <= 0xffff)),
            None => more,
        },
        b'K' => when((8..=260).contains(&seen.length)),
        b'S' => match text(seen.contents) {
            Some((name, value)) => when(
                !name.is_empty()
                    && name.iter().all(u8::is_ascii_graphic)
                    && seen.length > name.len() + 1
                    && !(seen.is_whole() && text(value).is_none()),
            ),
            None => when_more(more == More && seen.contents.iter().all(u8::is_ascii_graphic)),
        },
        b'T' => row_description(&seen),
        b'G' | b'H' | b'W' => match (seen.contents.first(), seen.contents.get(1..).and_then(be16)) {
            (Some(0 | 1), Some(columns)) => when(columns <= MAX_COLUMNS && seen.length == 3 + 2 * usize::from(columns)),
            (Some(0 | 1) | None, None) => more,
            _ => No,
        },
        b'D' if !strict => match be16(seen.contents) {
            Some(columns) => when(columns <= MAX_COLUMNS && seen.length >= 2 + 4 * usize::from(columns)),
            None => more,
        },
        b't' => match be16(seen.contents) {
            Some(parameters) => when(seen.length == 2 + 4 * usize::from(parameters)),
            None => more,
        },
        _ => when(!strict),
    };
    match (verdict, seen.next) {
        (Yes, Some(next)) => when(b"123ACDEGHIKNRSTVWZcdnstv".contains(&next)),
        (verdict, _) => verdict,
    }
}

/// `SELECT 5`, `INSERT 0 1`, `CREATE TABLE`.
pub(super) fn is_tag(tag: &[u8]) -> bool {
    let word = tag.split(|byte| *byte == b' ').next().unwrap_or_default();
    let letters =
        tag.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || matches!(byte, b' ' | b'_'));
    tag.len() < MAX_TAG_BYTES && letters && word.len() >= 2 && word.iter().all(|byte| !byte.is_ascii_digit())
}

/// The fields of an error or a notice: a letter and a string each.
fn fields(seen: &Seen<'_>) -> Verdict {
    let mut rest = seen.contents;
    let more = if seen.is_whole() { No } else { More };
    while let Some((kind, value)) = rest.split_first() {
        if !kind.is_ascii_alphabetic() {
            return No;
        }
        let Some((value, behind)) = text(value) else { return more };
        if *kind == b'C' {
            return when(is_state(value));
        }
        rest = behind;
    }
    more
}

/// An `SQLSTATE`: five letters and digits.
pub(super) fn is_state(code: &[u8]) -> bool {
    code.len() == 5 && code.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
}

fn row_description(seen: &Seen<'_>) -> Verdict {
    let more = if seen.is_whole() { No } else { More };
    let Some(columns) = be16(seen.contents) else { return more };
    if columns > MAX_COLUMNS || seen.length < 2 + 19 * usize::from(columns) {
        return No;
    }
    if columns == 0 {
        return when(seen.length == 2);
    }
    match seen.contents.get(2..).and_then(text) {
        Some((name, rest)) => {
            // Table, column, type, size, modifier, format.
            match rest.get(16..).and_then(be16) {
                Some(format) => when(is_name(name) && format <= 1),
                None => more,
            }
        }
        None => more,
    }
}

#[cfg(test)]
mod tests {
    use super::{Detect, Resume, Side, detect, resume};

    const STARTUP: &[u8] = b"\0\0\0\x25\0\x03\0\0user\0postgres\0database\0shop\0\0";

    #[test]
    fn either_side_is_told_from_its_first_message() {
        for (bytes, verdict) in [
            (&b""[..], Detect::More),
            (STARTUP, Detect::Request),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", Detect::Request),
            (b"\0\0\0\x08\x04\xd2\x16\x30", Detect::Request),
            (b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02", Detect::Request),
            (b"Q\0\0\0\x0dSELECT 1\0", Detect::Request),
            (b"Q\0\0\0\x0dHELLO 1.\0", Detect::No),
            (b"Q\0\0\0\x0dSELECT\0 \0", Detect::No),
            (b"Q\0\0\0\x05\0", Detect::Request),
            (b"Q\0\0\x10\x00SELECT lots", Detect::Request),
            (b"QUIT\r\n", Detect::No),
            (b"P\0\0\0\x10\0SELECT 1\0\0\0", Detect::Request),
            (b"P\0\0\0\x10\0SELECT 1\0\0\0B\0\0\0", Detect::Request),
            (b"P\0\0\0\x10\0SELECT 1\0\0\0?", Detect::No),
            (b"P\0\0\0\x10\0SELECT 1\0\0\x01", Detect::No),
            (b"POST / HTTP/1.1\r\n", Detect::No),
            (b"B\0\0\0\x0c\0\0\0\0\0\0\0\0", Detect::Request),
            (b"B\0\0\0\x15\0a\0\0\x01\0\x01\0\x01\0\0\0\x02hi\0\0", Detect::Request),
            (b"B\0\0\0\x15\0a\0\0\x01\0\x01\0\x01\0\0\0\x03hi\0\0", Detect::No),
            (b"B\0\0\0\x17\0a\0\0\x01\0\x01\0\x01\0\0\0\x02hi\0\x01\0\x01", Detect::Request),
            (b"B\0\0\0\x16\0a\0\0\x01\0\x01\0\x01\0\0\0\x03hi!\0\0", Detect::Request),
            (b"E\0\0\0\x09\0\0\0\0\0", Detect::Request),
            (b"D\0\0\0\x06S\0", Detect::Request),
            (b"S\0\0\0\x04", Detect::Request),
            (b"S\0\0\0\x04S", Detect::Request),
            (b"SSH-2.0-OpenSSH\r\n", Detect::No),
            (b"Z\0\0\0\x05I", Detect::Response),
            (b"Z\0\0\0\x05X", Detect::No),
            (b"C\0\0\0\x0dSELECT 1\0", Detect::Response),
            (b"1\0\0\0\x042\0\0\0\x04", Detect::Response),
            (b"R\0\0\0\x08\0\0\0\0", Detect::Response),
            (b"S\0\0\0\x16client_encoding\0a\0", Detect::Response),
            (b"E\0\0\0\x13SERROR\0C42P01\0\0", Detect::Response),
            (b"E\0\0\0\x0eSERROR\0C42\0\0\0\0", Detect::No),
            (b"T\0\0\0\x1b\0\x01a\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0\0", Detect::Response),
            (b"D\0\0\0\x0a\0\x01\0\0\0\0", Detect::No),
            (b"HTTP/1.1 200 OK\r\n", Detect::No),
            (b"*1\r\n$4\r\nPING\r\n", Detect::No),
            (b"+OK\r\n", Detect::No),
            (b"\x16\x03\x01\x02\0\x01", Detect::No),
            (b"EHLO example.com\r\n", Detect::No),
            (b"220 mail\r\n", Detect::No),
        ] {
            assert_eq!(detect(bytes), verdict, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_beginning_is_never_taken_for_something_else() {
        for whole in [
            STARTUP,
            b"Q\0\0\0\x0dSELECT 1\0",
            b"P\0\0\0\x10\0SELECT 1\0\0\0",
            b"B\0\0\0\x16\0a\0\0\x01\0\x01\0\x01\0\0\0\x03hi!\0\0",
            b"E\0\0\0\x09\0\0\0\0\0",
            b"D\0\0\0\x06S\0",
        ] {
            for end in 0..whole.len() {
                let verdict = detect(&whole[..end]);
                assert!(matches!(verdict, Detect::More | Detect::Request), "{end} of {whole:?}: {verdict:?}");
            }
        }
    }

    #[test]
    fn where_an_answer_is_due_any_message_of_a_server_is_one() {
        for (bytes, expected) in [
            (&b"D\0\0\0\x0a\0\x01\0\0\0\0"[..], Resume::Yes),
            (b"d\0\0\0\x0aabcdef", Resume::Yes),
            (b"Z\0\0\0\x05I", Resume::Yes),
            (b"Z\0\0\0", Resume::More),
            (b"Z\0\0\0\x06I", Resume::No),
            (b"x\0\0\0\x06I", Resume::No),
        ] {
            assert_eq!(resume(Side::Response, bytes), expected, "{bytes:?}");
        }
        assert_eq!(resume(Side::Request, b"Z\0\0\0\x05I"), Resume::No);
        assert_eq!(resume(Side::Request, b"S\0\0\0\x04"), Resume::Yes);
    }
}
