//! A certificate (X.509, DER) → when it expires. Reads the one field and walks over those before it; bounded by the input.
//!
//! RFC 5280, section 4.1: SEQUENCE { SEQUENCE { [0] version, serial, algorithm, issuer, SEQUENCE { from, until } … } … }.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Unix time, s; `None` where the certificate cannot be read.
pub(super) fn not_after(certificate: &[u8]) -> Option<i64> {
    let (body, _) = element(certificate, Some(SEQUENCE))?;
    let (mut rest, _) = element(body, Some(SEQUENCE))?;
    if rest.first() == Some(&VERSION) {
        (_, rest) = element(rest, None)?;
    }
    for _ in ["serial", "algorithm", "issuer"] {
        (_, rest) = element(rest, None)?;
    }
    let (validity, _) = element(rest, Some(SEQUENCE))?;
    let (_, until) = element(validity, None)?;
    let tag = *until.first()?;
    let (digits, _) = element(until, Some(tag))?;
    time(tag, digits)
}

/// The content of the first element, of this tag, and what is behind it.
fn element(bytes: &[u8], tag: Option<u8>) -> Option<(&[u8], &[u8])> {
    let (first, rest) = bytes.split_first()?;
    if tag.is_some_and(|tag| tag != *first) {
        return None;
    }
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match usize::from(*length) {
        short if short < 0x80 => (short, rest),
        long => {
            // 0x80 alone has no length in DER.
            let (digits, rest) =
                rest.split_at_checked(long & 0x7f).filter(|(digits, _)| (1..=4).contains(&digits.len()))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
    };
    rest.split_at_checked(length)
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`; two digits of a year are of 1950 to 2049.
fn time(tag: u8, text: &[u8]) -> Option<i64> {
    let digits = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let (year, rest) = digits.split_at(2);
            let year: i16 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        (GENERALIZED_TIME, 14) => {
            let (year, rest) = digits.split_at(4);
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let part = |at: usize| rest.get(at..at + 2)?.parse::<i8>().ok();
    let moment = DateTime::new(year, part(0)?, part(2)?, part(4)?, part(6)?, part(8)?, 0).ok()?;
    Some(moment.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![tag];
        if content.len() < 0x80 {
            out.push(content.len() as u8);
        } else {
            out.extend([0x82, (content.len() >> 8) as u8, content.len() as u8]);
        }
        out.extend_from_slice(content);
        out
    }

    /// A certificate as far as it is read, with an issuer of 200 bytes.
    fn certificate(version: bool, (tag, until): (u8, &str)) -> Vec<u8> {
        let validity = [of(UTC_TIME, b"200101000000Z"), of(tag, until.as_bytes())].concat();
        let version = if version { of(VERSION, b"\x02\x01\x02") } else { Vec::new() };
        let parts = [version, of(2, b"\x01"), of(SEQUENCE, b""), of(SEQUENCE, &[0; 200]), of(SEQUENCE, &validity)];
        of(SEQUENCE, &of(SEQUENCE, &parts.concat()))
    }

    #[test]
    fn the_end_of_a_certificate_is_read_in_both_spellings() {
        let cases = [
            ((UTC_TIME, "301231235959Z"), Some(1_924_991_999)),
            ((UTC_TIME, "500101000000Z"), Some(-631_152_000)),
            ((GENERALIZED_TIME, "20500101000000Z"), Some(2_524_608_000)),
            ((GENERALIZED_TIME, "301231235959Z"), None),
            ((UTC_TIME, "301331235959Z"), None),
            ((UTC_TIME, "3012312359+1Z"), None),
            ((UTC_TIME, "301231235959"), None),
            ((0x04, "301231235959Z"), None),
        ];
        for (until, expected) in cases {
            assert_eq!(not_after(&certificate(true, until)), expected, "{until:?}");
            assert_eq!(not_after(&certificate(false, until)), expected, "{until:?}");
        }
    }

    #[test]
    fn what_is_cut_or_lies_about_its_length_is_none_and_never_a_panic() {
        let whole = certificate(true, (UTC_TIME, "301231235959Z"));
        assert!(not_after(&whole).is_some());
        assert!((0..whole.len()).all(|end| not_after(&whole[..end]).is_none()));
        for at in 0..whole.len() {
            for value in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut wrong = whole.clone();
                wrong[at] = value;
                let _any = not_after(&wrong);
            }
        }
    }
}
