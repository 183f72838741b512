//! The part of Go's templates that alert rules live on: `{{ $labels.x }}`, `{{ $value }}` and the
//! `humanize` filters. Anything else is refused when the file is read.

use std::collections::BTreeMap;

/// A checked template of a label or an annotation.
#[derive(Clone, Debug)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Label(String),
    Value(Option<Filter>),
}

type Filter = fn(f64) -> String;

const FILTERS: [(&str, Filter); 4] = [
    ("humanize", humanize),
    ("humanize1024", humanize_1024),
    ("humanizeDuration", humanize_duration),
    ("humanizePercentage", humanize_percentage),
];

impl Template {
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (action, after) = after.split_once("}}").ok_or("a {{ without its }}")?;
            parts.push(Part::Text(before.to_owned()));
            parts.push(action_part(action)?);
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        Ok(Self(parts))
    }

    /// An absent label is an empty text, as in Prometheus.
    pub fn expand(&self, labels: &BTreeMap<String, String>, value: f64) -> String {
        let expand = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Label(name) => labels.get(name).cloned().unwrap_or_default(),
            Part::Value(None) => go_float(value, None),
            Part::Value(Some(filter)) => filter(value),
        };
        self.0.iter().map(expand).collect()
    }
}

fn action_part(action: &str) -> Result<Part, String> {
    let refuse = || {
        let filters = FILTERS.map(|(name, _)| name).join(", ");
        format!("{{{{{action}}}}} is not supported (have: $labels.NAME, $value, $value | one of {filters})")
    };
    let word = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|first: char| first.is_ascii_digit())
            && name.chars().all(|each| each.is_ascii_alphanumeric() || each == '_')
    };
    let filter = |name: &str| FILTERS.iter().find(|(known, _)| *known == name).map(|(_, filter)| *filter);
    let mut stages = action.split('|').map(str::trim);
    let first: Vec<&str> = stages.next().unwrap_or_default().split_whitespace().collect();
    let mut part = match first.as_slice() {
        ["$value"] => Part::Value(None),
        [name, "$value"] => Part::Value(Some(filter(name).ok_or_else(refuse)?)),
        [label] => match label.strip_prefix("$labels.") {
            Some(name) if word(name) => Part::Label(name.to_owned()),
            _ => return Err(refuse()),
        },
        _ => return Err(refuse()),
    };
    for stage in stages {
        match part {
            Part::Value(None) => part = Part::Value(Some(filter(stage).ok_or_else(refuse)?)),
            _ => return Err(refuse()),
        }
    }
    Ok(part)
}

/// A float as Go's `%v` (shortest) or `%.Ng` writes it.
fn go_float(value: f64, digits: Option<usize>) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    } else if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = match digits {
        Some(digits) => format!("{value:.*e}", digits.saturating_sub(1)),
        None => format!("{value:e}"),
    };
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    // Where `%g` changes to an exponent: at the precision, or at 21 digits for `%v`.
    let limit = digits.map_or(21, |digits| i32::try_from(digits).unwrap_or(i32::MAX));
    if exponent < -4 || exponent >= limit {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trim_zeros(mantissa), exponent.abs());
    }
    match digits {
        Some(digits) => {
            let places = usize::try_from(i32::try_from(digits).unwrap_or(i32::MAX) - 1 - exponent).unwrap_or(0);
            trim_zeros(&format!("{value:.places$}")).to_owned()
        }
        None => format!("{value}"),
    }
}

fn trim_zeros(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

fn scaled(value: f64, step: f64, above: &[&str], below: &[&str], separator: &str) -> String {
    let (mut scaled, mut prefix) = (value, "");
    if value == 0.0 || !value.is_finite() {
        return format!("{}{separator}", go_float(value, Some(4)));
    }
    if value.abs() >= 1.0 {
        for next in above {
            if scaled.abs() < step {
                break;
            }
            (scaled, prefix) = (scaled / step, next);
        }
    } else {
        for next in below {
            if scaled.abs() >= 1.0 {
                break;
            }
            (scaled, prefix) = (scaled * step, next);
        }
    }
    format!("{}{separator}{prefix}", go_float(scaled, Some(4)))
}

fn humanize(value: f64) -> String {
    let above = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
    scaled(value, 1000.0, &above, &["m", "u", "n", "p", "f", "a", "z", "y"], "")
}

fn humanize_1024(value: f64) -> String {
    if value.abs() <= 1.0 {
        return go_float(value, Some(4));
    }
    scaled(value, 1024.0, &["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"], &[], "")
}

fn humanize_percentage(value: f64) -> String {
    format!("{}%", go_float(value * 100.0, Some(4)))
}

fn humanize_duration(value: f64) -> String {
    if !value.is_finite() {
        return go_float(value, Some(4));
    }
    if value.abs() < 1.0 {
        return format!("{}s", scaled(value, 1000.0, &[], &["m", "u", "n", "p", "f", "a", "z", "y"], ""));
    }
    let sign = if value < 0.0 { "-" } else { "" };
    let whole = value.abs() as u64;
    let (days, hours, minutes, seconds) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60);
    if days > 0 {
        format!("{sign}{days}d {hours}h {minutes}m {seconds}s")
    } else if hours > 0 {
        format!("{sign}{hours}h {minutes}m {seconds}s")
    } else if minutes > 0 {
        format!("{sign}{minutes}m {seconds}s")
    } else {
        format!("{sign}{}s", go_float(value.abs(), Some(4)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn expand(text: &str, value: f64) -> String {
        let labels = BTreeMap::from([("instance".to_owned(), "a:1".to_owned())]);
        Template::parse(text).unwrap().expand(&labels, value)
    }

    #[test]
    fn labels_and_values_are_put_in() {
        assert_eq!(expand("{{ $labels.instance }} is at {{$value}}{{ $labels.absent }}!", 0.25), "a:1 is at 0.25!");
        assert_eq!(expand("no template", 1.0), "no template");
    }

    #[test]
    fn values_are_written_as_go_writes_them() {
        let cases = [
            ("{{ $value }}", 1e21, "1e+21"),
            ("{{ $value }}", 1e20, "100000000000000000000"),
            ("{{ $value }}", 0.00001, "1e-05"),
            ("{{ $value }}", f64::INFINITY, "+Inf"),
            ("{{ $value | humanize }}", 1_234_567.0, "1.235M"),
            ("{{ humanize $value }}", 0.0123, "12.3m"),
            ("{{ $value | humanize }}", 0.0, "0"),
            ("{{ $value | humanize1024 }}", 1_048_576.0, "1Mi"),
            ("{{ $value | humanize1024 }}", 1000.0, "1000"),
            ("{{ $value | humanizePercentage }}", 0.012_345, "1.234%"),
            ("{{ $value | humanizeDuration }}", 93_784.0, "1d 2h 3m 4s"),
            ("{{ $value | humanizeDuration }}", 0.25, "250ms"),
            ("{{ $value | humanizeDuration }}", 4.5, "4.5s"),
            ("{{ $value | humanizeDuration }}", -65.0, "-1m 5s"),
        ];
        for (text, value, expected) in cases {
            assert_eq!(expand(text, value), expected, "{text} of {value}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "{{ printf \"%.2f\" $value }}",
            "{{ query \"up\" }}",
            "{{ $labels.a | toUpper }}",
            "{{ $labels }}",
            "{{ $value | humanize | humanize }}",
            "{{ range . }}",
            "{{ $value",
            "{{}}",
            "{{- $value -}}",
        ] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
