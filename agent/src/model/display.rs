//! How values look to a person on a terminal: durations, rates, and text that came from outside.
//!
//! Captured text may hold escape sequences; nothing of it reaches a terminal without [`printable`].

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
    use super::{clip, duration, printable};

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
    fn long_text_is_cut_with_a_mark() {
        assert_eq!([clip("abc", 3), clip("abcd", 3), clip("héé", 2), clip("abc", 0)], ["abc", "ab…", "h…", ""]);
    }
}
