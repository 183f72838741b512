//! Headers and comments that carry trace ids, to a [`Context`].
//!
//! In: names and values as they come ([`Reader::header`]), or a statement's comment ([`comment`]). Out: one context and
//! how many were refused. Where several forms are there, the first of [`ORDER`] names the trace; a request id is kept
//! beside it. Linear in the value, values above [`MAX_VALUE_BYTES`] are refused unread, nothing is allocated but a
//! request id. `tracestate` and baggage hold no id that others know, and are not read.

mod forms;

use crate::model::context::{Context, Form, InBand};
use crate::model::span::{SpanId, TraceId};

/// Longest value that is looked at.
pub const MAX_VALUE_BYTES: usize = 512;

/// Which form counts where there are several, first first.
const ORDER: [Form; 6] = [Form::W3c, Form::B3, Form::Jaeger, Form::Datadog, Form::XRay, Form::Google];

/// Ids as one form gives them; a form may come in several headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ids {
    trace: Option<TraceId>,
    span: Option<SpanId>,
    sampled: Option<bool>,
}

/// Why a value gives nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    Malformed,
    /// Zeros, by which some say that there is none.
    Zero,
}

type Read = Result<Ids, Refused>;

/// What a header means.
#[derive(Clone, Copy, Debug)]
enum Field {
    Whole(Form, fn(&str) -> Read),
    /// Adds to what other headers of the form gave.
    Part(Form, fn(&str) -> Read),
    /// Upper half of a Datadog trace id.
    Upper,
    RequestId,
}

/// By length first, which tells most other headers apart without a look at their bytes.
fn field(name: &str) -> Option<Field> {
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    let field = match name.len() {
        2 if is("b3") => Field::Whole(Form::B3, forms::b3),
        10 if is("x-b3-flags") => Field::Part(Form::B3, forms::b3_flags),
        11 if is("traceparent") => Field::Whole(Form::W3c, forms::traceparent),
        11 if is("x-b3-spanid") => Field::Part(Form::B3, forms::span_hex),
        12 if is("x-request-id") => Field::RequestId,
        12 if is("x-b3-traceid") => Field::Part(Form::B3, forms::trace_hex),
        12 if is("x-b3-sampled") => Field::Part(Form::B3, forms::b3_sampled),
        13 if is("uber-trace-id") => Field::Whole(Form::Jaeger, forms::jaeger),
        14 if is("x-datadog-tags") => Field::Upper,
        15 if is("x-amzn-trace-id") => Field::Whole(Form::XRay, forms::xray),
        16 if is("x-correlation-id") => Field::RequestId,
        18 if is("x-datadog-trace-id") => Field::Part(Form::Datadog, forms::trace_decimal),
        19 if is("x-datadog-parent-id") => Field::Part(Form::Datadog, forms::span_decimal),
        21 if is("x-cloud-trace-context") => Field::Whole(Form::Google, forms::google),
        27 if is("x-datadog-sampling-priority") => Field::Part(Form::Datadog, forms::priority),
        _ => return None,
    };
    Some(field)
}

/// Whether [`Reader::header`] looks at a header of this name.
pub fn is_wanted(name: &str) -> bool {
    field(name).is_some()
}

/// Gathers the context of one request.
#[derive(Debug, Default)]
pub struct Reader {
    /// By [`ORDER`]; `Err`: refused, whatever else comes.
    found: [Option<Result<Ids, ()>>; ORDER.len()],
    upper: Option<u64>,
    request_id: Option<Box<str>>,
    refused: u32,
}

impl Reader {
    /// Takes a header, if it is one that carries ids.
    pub fn header(&mut self, name: &str, value: &[u8]) {
        let Some(field) = field(name) else { return };
        let text = match std::str::from_utf8(value) {
            Ok(text) if value.len() <= MAX_VALUE_BYTES => text.trim_matches([' ', '\t']),
            _ => return self.refused += 1,
        };
        match field {
            Field::Whole(form, read) => self.whole(form, read(text)),
            Field::Part(form, read) => self.part(form, read(text)),
            Field::Upper => self.upper = forms::datadog_upper(text),
            Field::RequestId => match forms::request_id(text) {
                // The first one counts: `x-request-id` and `x-correlation-id` may both be there.
                Some(id) => _ = self.request_id.get_or_insert_with(|| id.into()),
                None => self.refused += 1,
            },
        }
    }

    fn place(&mut self, form: Form) -> Option<&mut Option<Result<Ids, ()>>> {
        ORDER.iter().zip(&mut self.found).find(|(known, _)| **known == form).map(|(_, place)| place)
    }

    fn refuse(&mut self, form: Form) {
        self.refused += 1;
        if let Some(place) = self.place(form) {
            *place = Some(Err(()));
        }
    }

    fn whole(&mut self, form: Form, read: Read) {
        let Some(place) = self.place(form) else { return };
        match (read, &place) {
            // Two of them, and nobody can say which one counts.
            (Ok(ids), Some(Ok(before))) if *before != ids => self.refuse(form),
            (Ok(_), Some(Err(()))) => {}
            (Ok(ids), _) => *place = Some(Ok(ids)),
            (Err(_), _) => self.refuse(form),
        }
    }

    fn part(&mut self, form: Form, read: Read) {
        let Some(place) = self.place(form) else { return };
        match (read, place) {
            (Ok(ids), place @ None) => *place = Some(Ok(ids)),
            (Ok(ids), Some(Ok(before))) => {
                before.trace = before.trace.or(ids.trace);
                before.span = before.span.or(ids.span);
                before.sampled = before.sampled.or(ids.sampled);
            }
            (Ok(_), Some(Err(()))) => {}
            (Err(_), _) => self.refuse(form),
        }
    }

    /// What all headers together say.
    pub fn finish(self) -> InBand {
        let Self { found, upper, request_id, refused } = self;
        let ids = ORDER.into_iter().zip(found).find_map(|(form, found)| {
            let ids = found?.ok()?;
            ids.trace.map(|trace| (form, trace, ids))
        });
        let context = match (ids, request_id) {
            (Some((form, trace, ids)), request_id) => {
                let trace_id = match upper.filter(|_| form == Form::Datadog) {
                    Some(upper) => forms::with_upper(trace, upper),
                    None => trace,
                };
                Context { form, trace_id: Some(trace_id), span_id: ids.span, sampled: ids.sampled, request_id }
            }
            (None, Some(id)) => {
                Context { form: Form::RequestId, trace_id: None, span_id: None, sampled: None, request_id: Some(id) }
            }
            (None, None) => return InBand { context: None, refused },
        };
        InBand { context: Some(Box::new(context)), refused }
    }
}

/// The context in the comment of a statement: `key='value'` pairs, values percent-encoded.
pub fn comment(bytes: &[u8]) -> InBand {
    let mut reader = Reader::default();
    let Ok(text) = std::str::from_utf8(bytes) else { return InBand { context: None, refused: 1 } };
    for pair in text.split(',').take(forms::MAX_PAIRS) {
        let Some((key, value)) = pair.split_once('=') else { continue };
        let Some(value) = value.trim().strip_prefix('\'').and_then(|value| value.strip_suffix('\'')) else { continue };
        if is_wanted(key.trim()) {
            reader.header(key.trim(), forms::percent_decoded(value).as_bytes());
        }
    }
    reader.finish()
}

#[cfg(test)]
mod tests;
