//! Parameters of the Prometheus HTTP API: a query string and a form body → named values, times, steps.
//!
//! Both are read, as Prometheus does; a body is at most 64 KiB. Times are Unix seconds or RFC 3339, lengths of time are
//! seconds or Prometheus durations. Messages are worded as Prometheus words them: clients show them. Unknown parameters
//! are passed over, since clients send those of newer versions.

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{Method, header};

use crate::promql::parse_duration;

/// Longest form that is read; an expression is at most 16 KiB.
const MAX_FORM: usize = 64 << 10;
/// Unix ms that a timestamp can say (years up to 9999): far enough from the ends that nothing overflows.
const TIMES_MS: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

/// What a request says, in order.
#[derive(Debug)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads both the query string and, of a POST, the form.
    pub async fn read(request: Request) -> Result<Self, String> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let is_form = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
        let mut parameters = Self(Vec::new());
        if request.method() == Method::POST && is_form {
            let body = to_bytes(request.into_body(), MAX_FORM).await;
            let body = body.map_err(|error| format!("the form cannot be read (at most 64 KiB): {error}"))?;
            parameters.add(&body);
        }
        parameters.add(query.as_bytes());
        Ok(parameters)
    }

    fn add(&mut self, encoded: &[u8]) {
        let pairs = form_urlencoded::parse(encoded);
        self.0.extend(pairs.map(|(key, value)| (key.into_owned(), value.into_owned())));
    }

    /// The first value; an empty one is none.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next().filter(|value| !value.is_empty())
    }

    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A time, Unix ms.
    pub fn time(&self, name: &str) -> Result<Option<i64>, String> {
        let wrong = |text: &str| format!("invalid parameter {name:?}: cannot parse {text:?} to a valid timestamp");
        self.get(name).map(|text| timestamp_ms(text).ok_or_else(|| wrong(text))).transpose()
    }

    /// A length of time, ms.
    pub fn length(&self, name: &str) -> Result<Option<i64>, String> {
        let wrong = |text: &str| format!("invalid parameter {name:?}: cannot parse {text:?} to a valid duration");
        self.get(name).map(|text| length_ms(text).ok_or_else(|| wrong(text))).transpose()
    }

    /// How many; 0 and none are no limit.
    pub fn limit(&self, name: &str) -> Result<usize, String> {
        let wrong = |text: &str| format!("invalid parameter {name:?}: {text:?} is not a whole number");
        let limit: Option<usize> = self.get(name).map(|text| text.parse().map_err(|_| wrong(text))).transpose()?;
        Ok(limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX))
    }
}

/// `1435781430.781` or `2015-07-01T20:10:30.781Z`.
fn timestamp_ms(text: &str) -> Option<i64> {
    let millis = match text.parse::<f64>() {
        Ok(seconds) => seconds_ms(seconds)?,
        Err(_) => text.parse::<jiff::Timestamp>().ok()?.as_millisecond(),
    };
    TIMES_MS.contains(&millis).then_some(millis)
}

/// `15`, `0.5`, `1m30s`.
fn length_ms(text: &str) -> Option<i64> {
    match text.parse::<f64>() {
        Ok(seconds) => seconds_ms(seconds),
        Err(_) => i64::try_from(parse_duration(text).ok()?.as_millis()).ok(),
    }
}

fn seconds_ms(seconds: f64) -> Option<i64> {
    let millis = (seconds * 1000.0).round();
    (millis.abs() <= *TIMES_MS.end() as f64).then_some(millis as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_or_dates_and_lengths_seconds_or_durations() {
        for (text, expected) in [
            ("1435781430.781", Some(1_435_781_430_781)),
            ("1435781430", Some(1_435_781_430_000)),
            ("2015-07-01T20:10:30.781Z", Some(1_435_781_430_781)),
            ("2015-07-01T22:10:30+02:00", Some(1_435_781_430_000)),
            ("-1", Some(-1000)),
            ("1e300", None),
            ("NaN", None),
            ("inf", None),
            ("yesterday", None),
            ("2015-07-01", None),
        ] {
            assert_eq!(timestamp_ms(text), expected, "{text}");
        }
        for (text, expected) in
            [("15", Some(15_000)), ("0.5", Some(500)), ("1m30s", Some(90_000)), ("1x", None), ("-3", Some(-3000))]
        {
            assert_eq!(length_ms(text), expected, "{text}");
        }
    }

    #[test]
    fn names_may_come_several_times_and_are_decoded() {
        let mut parameters = Parameters(Vec::new());
        parameters.add(b"match[]=up&match%5B%5D=a%7Bb%3D%22c+d%22%7D&time=&limit=0");
        assert_eq!(parameters.all("match[]").collect::<Vec<_>>(), ["up", "a{b=\"c d\"}"]);
        assert_eq!(parameters.time("time"), Ok(None));
        assert_eq!(parameters.limit("limit"), Ok(usize::MAX));
        parameters.add(b"start=x&step=y");
        let wrong = "invalid parameter \"start\": cannot parse \"x\" to a valid timestamp";
        assert_eq!(parameters.time("start"), Err(wrong.to_owned()));
        let wrong = "invalid parameter \"step\": cannot parse \"y\" to a valid duration";
        assert_eq!(parameters.length("step"), Err(wrong.to_owned()));
    }
}
