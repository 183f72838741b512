//! How values look to a person on a terminal: durations, rates, and text that came from outside.
//!
//! Captured text may hold escape sequences; nothing of it reaches a terminal without [`printable`]. Names that become labels
//! go through [`escaped`], which keeps different names different.

use std::fmt::Write as _;
use std::net::IpAddr;

use compact_str::{CompactString, ToCompactString as _};

/// Longest name of a process, a service or a cgroup on a metric or a span, bytes.
pub const MAX_NAME: usize = 255;

/// Bytes that somebody else chose as a name: control characters and what is no UTF-8 as `\xNN`, a backslash as two, at most
/// `limit` bytes long (what is cut ends in `…`).
pub fn escaped(bytes: &[u8], limit: usize) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\\' => out.push_str("\\\\"),
                control if control.is_control() => {
                    control.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| push_byte(&mut out, byte));
                }
                plain => out.push(plain),
            }
        }
        chunk.invalid().iter().for_each(|byte| push_byte(&mut out, *byte));
        if out.len() > limit {
            let end = (0..=limit.saturating_sub('…'.len_utf8())).rev().find(|at| out.is_char_boundary(*at));
            out.truncate(end.unwrap_or(0));
            out.push('…');
            break;
        }
    }
    out
}

fn push_byte(out: &mut String, byte: u8) {
    let _infallible = write!(out, "\\x{byte:02x}");
}

/// An address as its `Display` writes it; an IPv4 one, of which each span has some, without the formatter's detour.
pub fn address(address: IpAddr) -> CompactString {
    let IpAddr::V4(address) = address else { return address.to_compact_string() };
    let mut out = [0; "255.255.255.255".len()];
    let mut written = 0;
    let mut put = |letter| {
        if let Some(place) = out.get_mut(written) {
            *place = letter;
            written += 1;
        }
    };
    for (place, octet) in address.octets().into_iter().enumerate() {
        if place > 0 {
            put(b'.');
        }
        for (unit, above) in [(100, octet >= 100), (10, octet >= 10), (1, true)] {
            if above {
                put(b'0' + octet / unit % 10);
            }
        }
    }
    std::str::from_utf8(out.get(..written).unwrap_or_default()).unwrap_or_default().into()
}

/// Text without control characters (also of the C1 range), each shown as `·`.
pub fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '·' } else { letter }).collect()
}

/// At most `width` characters; what is cut off is shown as `…`.
pub fn clip(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    if width == 0 { kept } else { kept + "…" }
}

/// Three significant digits: `850ns`, `12.3µs`, `1.50ms`, `2.00s`, `125s`.
pub fn duration(ns: u64) -> String {
    match ns {
        0..1000 => format!("{ns}ns"),
        1000..999_500 => format!("{}µs", three_digits(ns as f64 / 1e3)),
        999_500..999_500_000 => format!("{}ms", three_digits(ns as f64 / 1e6)),
        _ => format!("{}s", three_digits(ns as f64 / 1e9)),
    }
}

/// Three significant digits of a number that is not small: `0.25`, `1.50`, `12.3`, `4567`.
pub fn three_digits(number: f64) -> String {
    match number.abs() {
        size if size < 9.995 => format!("{number:.2}"),
        size if size < 99.95 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::{address, clip, duration, escaped, printable};

    #[test]
    fn an_address_reads_as_the_standard_library_writes_it() {
        for octet in 0..=255u8 {
            let v4 = IpAddr::V4(Ipv4Addr::new(octet, 0, octet.wrapping_mul(7), 255));
            assert_eq!(address(v4), v4.to_string());
        }
        assert_eq!(address(Ipv6Addr::LOCALHOST.into()), "::1");
    }

    #[test]
    fn durations_have_three_digits_in_the_unit_that_fits() {
        let cases = [
            (0, "0ns"),
            (999, "999ns"),
            (1000, "1.00µs"),
            (12_345, "12.3µs"),
            (999_499, "999µs"),
            (999_500, "1.00ms"),
            (1_500_000, "1.50ms"),
            (999_499_999, "999ms"),
            (2_000_000_000, "2.00s"),
            (125_400_000_000, "125s"),
        ];
        for (ns, expected) in cases {
            assert_eq!(duration(ns), expected);
        }
    }

    #[test]
    fn captured_text_cannot_steer_the_terminal() {
        assert_eq!(printable("GET /\x1b[2J\r\n\u{9b}31mé"), "GET /·[2J···31mé");
    }

    #[test]
    fn a_name_of_any_bytes_stays_one_short_line_and_different_from_others() {
        let cases: [(&[u8], &str); 8] = [
            (b"nginx", "nginx"),
            ("naïve é".as_bytes(), "naïve é"),
            (b"a\nb\x1b[0m\x7f", "a\\x0ab\\x1b[0m\\x7f"),
            ("a\u{9b}".as_bytes(), "a\\xc2\\x9b"),
            (b"\xff\xfe", "\\xff\\xfe"),
            (b"\\xff", "\\\\xff"),
            (b"cut\xc3", "cut\\xc3"),
            (b"", ""),
        ];
        for (bytes, expected) in cases {
            assert_eq!(escaped(bytes, 64), expected);
        }
        assert_eq!(escaped(b"abcdefgh", 8), "abcdefgh");
        assert_eq!(escaped(b"abcdefghi", 8), "abcde…");
        assert_eq!(escaped("ééééé".as_bytes(), 8), "éé…");
        assert_eq!(escaped(&[0xff; 1 << 20], 255).len(), 255);
    }

    #[test]
    fn long_text_is_cut_with_a_mark() {
        assert_eq!([clip("abc", 3), clip("abcd", 3), clip("héé", 2), clip("abc", 0)], ["abc", "ab…", "h…", ""]);
    }
}
