//! Forms of contexts as data: what each says, and what is refused; then any text at all.

use proptest::prelude::{ProptestConfig, any, prop_assert, proptest};

use super::{Reader, comment};
use crate::model::context::{Context, InBand, MAX_REQUEST_ID_BYTES};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
const TRACE_ZEROS: &str = "0000000000000000a3ce929d0e0e4736";

fn read(headers: &[(&str, &str)]) -> InBand {
    let mut reader = Reader::default();
    headers.iter().for_each(|(name, value)| reader.header(name, value.as_bytes()));
    reader.finish()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `FORM TRACE SPAN SAMPLED REQUEST`.
fn told(context: &Context) -> String {
    let trace = context.trace_id.map_or("-".to_owned(), |id| hex(&id.0));
    let span = context.span_id.map_or("-".to_owned(), |id| hex(&id.0));
    let sampled = context.sampled.map_or("-", |sampled| if sampled { "yes" } else { "no" });
    format!("{} {trace} {span} {sampled} {}", context.form.name(), context.request_id.as_deref().unwrap_or("-"))
}

#[test]
fn each_form_says_what_its_specification_says() {
    let w3c = format!("00-{TRACE}-{SPAN}-01");
    for (headers, expected) in [
        (&[("traceparent", w3c.as_str())][..], format!("w3c {TRACE} {SPAN} yes -")),
        (&[("Traceparent", &format!(" 00-{TRACE}-{SPAN}-00 "))], format!("w3c {TRACE} {SPAN} no -")),
        (&[("traceparent", &format!("cc-{TRACE}-{SPAN}-01-more"))], format!("w3c {TRACE} {SPAN} yes -")),
        (&[("traceparent", &w3c), ("traceparent", &w3c)], format!("w3c {TRACE} {SPAN} yes -")),
        (&[("b3", &format!("{TRACE}-{SPAN}-1"))], format!("b3 {TRACE} {SPAN} yes -")),
        (&[("b3", &format!("{TRACE}-{SPAN}"))], format!("b3 {TRACE} {SPAN} - -")),
        (&[("b3", &format!("{TRACE}-{SPAN}-d-{SPAN}"))], format!("b3 {TRACE} {SPAN} yes -")),
        (&[("b3", &format!("a3ce929d0e0e4736-{SPAN}-0"))], format!("b3 {TRACE_ZEROS} {SPAN} no -")),
        (&[("X-B3-TraceId", TRACE), ("X-B3-SpanId", SPAN), ("X-B3-Sampled", "0")], format!("b3 {TRACE} {SPAN} no -")),
        (&[("X-B3-TraceId", TRACE), ("X-B3-Flags", "1")], format!("b3 {TRACE} - yes -")),
        (&[("uber-trace-id", &format!("{TRACE}:{SPAN}:0:1"))], format!("jaeger {TRACE} {SPAN} yes -")),
        (
            &[("uber-trace-id", "a3ce929d0e0e4736%3Af067aa0ba902b7%3A0%3A0")],
            format!("jaeger {TRACE_ZEROS} {SPAN} no -"),
        ),
        (
            &[(
                "X-Amzn-Trace-Id",
                "Self=1-x-y;Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=00f067aa0ba902b7;Sampled=1",
            )],
            format!("xray {TRACE} {SPAN} yes -"),
        ),
        (&[("X-Amzn-Trace-Id", "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736")], format!("xray {TRACE} - - -")),
        (
            &[
                ("x-datadog-trace-id", "11803532876627986230"),
                ("x-datadog-parent-id", "67667974448284343"),
                ("x-datadog-sampling-priority", "-1"),
                ("x-datadog-tags", "_dd.p.dm=-0,_dd.p.tid=4bf92f3577b34da6"),
            ],
            format!("datadog {TRACE} {SPAN} no -"),
        ),
        (
            &[("x-cloud-trace-context", &format!("{TRACE}/67667974448284343;o=1"))],
            format!("google {TRACE} {SPAN} yes -"),
        ),
        (&[("x-cloud-trace-context", TRACE)], format!("google {TRACE} - - -")),
        (&[("x-request-id", "abc-1")], "request_id - - - abc-1".to_owned()),
        (&[("X-Correlation-Id", "c"), ("X-Request-Id", "r")], "request_id - - - c".to_owned()),
        (&[("x-request-id", "r"), ("b3", "0"), ("traceparent", &w3c)], format!("w3c {TRACE} {SPAN} yes r")),
        // Another form stands in for one that is refused.
        (&[("traceparent", "no"), ("b3", &format!("{TRACE}-{SPAN}"))], format!("b3 {TRACE} {SPAN} - -")),
    ] {
        let read = read(headers);
        assert_eq!(read.context.as_deref().map(told).as_deref(), Some(expected.as_str()), "{headers:?}");
    }
}

#[test]
fn what_is_malformed_or_zero_is_refused_and_counted() {
    let zeros = "0".repeat(32);
    let long = "a".repeat(MAX_REQUEST_ID_BYTES + 1);
    for (name, value) in [
        ("traceparent", format!("00-{zeros}-{SPAN}-01")),
        ("traceparent", format!("00-{TRACE}-0000000000000000-01")),
        ("traceparent", format!("ff-{TRACE}-{SPAN}-01")),
        ("traceparent", format!("00-{TRACE}-{SPAN}-01-more")),
        ("traceparent", format!("00-{}-{SPAN}-01", TRACE.to_uppercase())),
        ("traceparent", format!("00-{TRACE}-{SPAN}")),
        ("traceparent", format!("00-{TRACE}-{SPAN}-1")),
        ("traceparent", format!("00-+{}-{SPAN}-01", &TRACE[1..])),
        ("traceparent", String::new()),
        ("traceparent", "x".repeat(10_000)),
        ("b3", format!("{zeros}-{SPAN}-1")),
        ("b3", format!("{TRACE}-{SPAN}-2")),
        ("b3", format!("{TRACE}-{SPAN}-1-{SPAN}-")),
        ("b3", format!("{}-{SPAN}", &TRACE[1..])),
        ("x-b3-traceid", zeros.clone()),
        ("uber-trace-id", format!("{TRACE}:{SPAN}:0")),
        ("uber-trace-id", "0:0:0:0".to_owned()),
        ("uber-trace-id", format!("{TRACE}0:{SPAN}:0:1")),
        ("x-amzn-trace-id", "Root=2-4bf92f35-77b34da6a3ce929d0e0e4736".to_owned()),
        ("x-amzn-trace-id", "Parent=00f067aa0ba902b7".to_owned()),
        ("x-datadog-trace-id", "0".to_owned()),
        ("x-datadog-trace-id", "18446744073709551616".to_owned()),
        ("x-cloud-trace-context", format!("{TRACE}/x")),
        ("x-request-id", long),
        ("x-request-id", "00000000-0000-0000-0000-000000000000".to_owned()),
        ("x-request-id", "a b".to_owned()),
        ("x-request-id", String::new()),
    ] {
        assert_eq!(read(&[(name, &value)]), InBand { context: None, refused: 1 }, "{name}: {value}");
    }
    let other = format!("00-{}-{SPAN}-01", TRACE.replace('4', "5"));
    let twice = read(&[("traceparent", &format!("00-{TRACE}-{SPAN}-01")), ("traceparent", &other)]);
    assert_eq!(twice, InBand { context: None, refused: 1 }, "two contexts are none");
    assert_eq!(read(&[("b3", "0"), ("tracestate", "a=b"), ("baggage", "x=y")]), InBand::default());
}

#[test]
fn the_comment_of_a_statement_is_read_as_its_writers_encode_it() {
    let traceparent = format!("traceparent='00-{TRACE}-{SPAN}-01'");
    for text in [
        traceparent.clone(),
        format!("action='%2Fa%27b',{traceparent},tracestate='x%3Dy'"),
        format!(" dddbs='db', {} ,dde='x' ", traceparent.replace('-', "%2D")),
    ] {
        let told = comment(text.as_bytes()).context.as_deref().map(told);
        assert_eq!(told.as_deref(), Some(format!("w3c {TRACE} {SPAN} yes -").as_str()), "{text}");
    }
    assert_eq!(comment(b"a hint, nothing else"), InBand::default());
    assert_eq!(comment(b"traceparent='00-1-2-3'").refused, 1);
    assert_eq!(comment(format!("traceparent=00-{TRACE}-{SPAN}-01").as_bytes()), InBand::default());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_value_is_a_sound_context_or_none(name in 0usize..14, value in "[0-9a-fA-F:;=%/ -]{0,80}|\\PC{0,40}", bytes in any::<Vec<u8>>()) {
        const NAMES: [&str; 14] = [
            "traceparent", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-b3-flags", "uber-trace-id",
            "x-amzn-trace-id", "x-datadog-trace-id", "x-datadog-parent-id", "x-datadog-tags",
            "x-datadog-sampling-priority", "x-cloud-trace-context", "x-request-id",
        ];
        let mut reader = Reader::default();
        reader.header(NAMES[name], value.as_bytes());
        reader.header(NAMES[name], &bytes);
        let told = reader.finish();
        if let Some(context) = told.context {
            prop_assert!(context.trace_id.is_none_or(|id| id.0 != [0; 16]));
            prop_assert!(context.span_id.is_none_or(|id| id.0 != [0; 8]));
            prop_assert!(context.trace_id.is_some() || context.request_id.is_some());
            prop_assert!(context.request_id.is_none_or(|id| id.len() <= MAX_REQUEST_ID_BYTES));
        }
        comment(value.as_bytes());
        comment(&bytes);
    }
}
