//! DNS check: one question over UDP to one server; the answer's code and counts.
//!
//! RFC 1035 messages, made and read by hand as far as a check needs: the header, and that the question comes back. The records
//! themselves are not looked at. An answer with another id is ignored. No retry, no TCP.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use tokio::net::UdpSocket;

use super::run::{Failure, Findings};

pub(super) const PORT: u16 = 53;
pub(super) const NO_ERROR: u16 = 0;
const HEADER_BYTES: usize = 12;
const MAX_LABEL: usize = 63;
const MAX_NAME: usize = 255;
/// Longest answer that is taken; servers keep to 512 bytes where nothing else is agreed on.
const MAX_ANSWER: usize = 4096;
const CLASS_IN: u16 = 1;
/// Names of types that can be asked for.
const TYPES: [(&str, u16); 11] = [
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("PTR", 12),
    ("MX", 15),
    ("TXT", 16),
    ("AAAA", 28),
    ("SRV", 33),
    ("DS", 43),
    ("ANY", 255),
];

/// A question in wire form, without the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question(Vec<u8>);

/// What an answer said.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Answer {
    pub rcode: u16,
    pub answers: u16,
    pub authorities: u16,
    pub additional: u16,
    /// From the question to the answer.
    pub request_seconds: f64,
}

impl Question {
    pub fn new(name: &str, kind: &str) -> Result<Self, String> {
        let wrong = || format!("'{name}' is not a name");
        let number = TYPES.iter().find(|(known, _)| known.eq_ignore_ascii_case(kind)).map(|(_, number)| *number);
        let number = number.ok_or_else(|| format!("'{kind}' is no type of record that can be asked for"))?;
        let mut wire = Vec::new();
        let plain = name.strip_suffix('.').unwrap_or(name);
        for label in plain.split('.').filter(|_| !plain.is_empty()) {
            let length =
                u8::try_from(label.len()).ok().filter(|length| (1..=MAX_LABEL).contains(&usize::from(*length)));
            wire.push(length.ok_or_else(wrong)?);
            wire.extend_from_slice(label.as_bytes());
        }
        wire.push(0);
        if name.is_empty() || wire.len() > MAX_NAME || !name.is_ascii() {
            return Err(wrong());
        }
        wire.extend_from_slice(&number.to_be_bytes());
        wire.extend_from_slice(&CLASS_IN.to_be_bytes());
        Ok(Self(wire))
    }

    /// With a header that asks for recursion.
    fn message(&self, id: u16) -> Vec<u8> {
        let mut message = Vec::with_capacity(HEADER_BYTES + self.0.len());
        for word in [id, 0x0100, 1, 0, 0, 0] {
            message.extend_from_slice(&word.to_be_bytes());
        }
        message.extend_from_slice(&self.0);
        message
    }

    /// `None`: not an answer to this message, go on waiting.
    fn answer(&self, id: u16, message: &[u8]) -> Option<Result<Answer, &'static str>> {
        let word = |at: usize| Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?));
        if word(0)? != id {
            return None;
        }
        let (Some(flags), Some(questions)) = (word(2), word(4)) else { return Some(Err("the answer has no head")) };
        let (Some(answers), Some(authorities), Some(additional)) = (word(6), word(8), word(10)) else {
            return Some(Err("the answer has no head"));
        };
        if flags & 0x8000 == 0 {
            return Some(Err("a question came back"));
        }
        let asked = message.get(HEADER_BYTES..HEADER_BYTES + self.0.len());
        // A server that refuses may leave the question out.
        if questions == 1 && !asked.is_some_and(|asked| asked.eq_ignore_ascii_case(&self.0)) {
            return Some(Err("the answer is to another question"));
        }
        Some(Ok(Answer { rcode: flags & 0xf, answers, authorities, additional, request_seconds: 0.0 }))
    }
}

pub(super) async fn ask(
    server: SocketAddr,
    question: &Question,
    rcodes: &[u16],
    id: u16,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::of_io(&error);
    let began = Instant::now();
    let own: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(own).await.map_err(failed)?;
    socket.connect(server).await.map_err(failed)?;
    findings.connect_seconds = Some(began.elapsed().as_secs_f64());
    let asked = Instant::now();
    socket.send(&question.message(id)).await.map_err(failed)?;
    let mut message = [0; MAX_ANSWER];
    let answer = loop {
        let length = socket.recv(&mut message).await.map_err(failed)?;
        if let Some(answer) = question.answer(id, message.get(..length).unwrap_or_default()) {
            break answer;
        }
    };
    let answer = answer.map_err(|problem| Failure::Protocol(problem.to_owned()))?;
    findings.dns = Some(Answer { request_seconds: asked.elapsed().as_secs_f64(), ..answer });
    if rcodes.contains(&answer.rcode) { Ok(()) } else { Err(Failure::Status(answer.rcode)) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_spelled_as_the_standard_wants_it() {
        let question = Question::new("shop.example", "aaaa").unwrap();
        assert_eq!(question.0, b"\x04shop\x07example\x00\x00\x1c\x00\x01");
        assert_eq!(Question::new("shop.example.", "AAAA").unwrap(), question);
        assert_eq!(Question::new(".", "NS").unwrap().0, b"\x00\x00\x02\x00\x01");
        assert_eq!(question.message(0x1234)[..12], *b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00");
        for bad in ["", "a..b", ".a", &"x".repeat(64), &["x"; 200].join("."), "é"] {
            assert!(Question::new(bad, "A").is_err(), "{bad}");
        }
    }

    #[test]
    fn only_an_answer_to_the_question_counts() {
        let question = Question::new("a.b", "A").unwrap();
        let with = |head: &[u8]| [head, &question.0].concat();
        let good = with(b"\x00\x07\x81\x83\x00\x01\x00\x02\x00\x01\x00\x03");
        let expected = Answer { rcode: 3, answers: 2, authorities: 1, additional: 3, request_seconds: 0.0 };
        assert_eq!(question.answer(7, &good), Some(Ok(expected)));
        let shouted: Vec<u8> = good.iter().map(u8::to_ascii_uppercase).collect();
        assert_eq!(question.answer(7, &shouted), Some(Ok(expected)));
        assert_eq!(question.answer(8, &good), None);
        assert_eq!(question.answer(7, b"\x00"), None);
        let refused = b"\x00\x07\x81\x05\x00\x00\x00\x00\x00\x00\x00\x00";
        assert_eq!(question.answer(7, refused).unwrap().unwrap().rcode, 5);
        for bad in [&question.message(7)[..], &good[..11], &good[..20], b"\x00\x07"] {
            assert!(question.answer(7, bad).unwrap().is_err(), "{bad:?}");
        }
        let mut other = good.clone();
        other[13] = b'x';
        assert!(question.answer(7, &other).unwrap().is_err());
    }
}
