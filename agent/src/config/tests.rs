//! Files and variables against the configuration or the one line that says what is wrong.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::environment::unknown_variables;
use super::print::print;
use super::size::ByteSize;
use super::{Config, LogLevel};
use crate::section::{Documented as _, Interval};

fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn read(text: &str) -> Result<Config, String> {
    Config::from_text("f.yaml", text, &[]).map_err(|error| error.to_string())
}

#[test]
fn an_empty_file_and_empty_sections_mean_the_defaults() {
    for text in ["", "# nothing\n", "---\n", "capture:\nscope:\n  include:\n", "{}", "services: []\n"] {
        assert_eq!(read(text), Ok(Config::default()), "{text:?}");
    }
    assert!(Config::default().scope.include.is_empty(), "no payload is read unless asked");
}

#[test]
fn values_are_read_into_their_keys() {
    let text = "listen: '[::1]:9000'\nscope: {include: [pid=7, 'exe=*/nginx'], exclude: [port=22]}\n\
        capture: {bytes: 1KiB, ring_bytes: 65536, drain_interval: 10ms}\nprobes: {scheduler: false}\n\
        services:\n- {match: port=80, name: edge}\nlog: {level: debug}\n";
    let config = read(text).unwrap();
    assert_eq!(config.listen.to_string(), "[::1]:9000");
    assert_eq!((config.scope.include.len(), config.scope.exclude.len()), (2, 1));
    assert_eq!((config.capture.bytes, config.capture.ring_bytes), (ByteSize::kib(1), ByteSize::kib(64)));
    assert_eq!(config.capture.drain_interval, Interval::millis(10));
    assert!(!config.probes.scheduler && config.probes.payload);
    assert_eq!(config.services.len(), 1);
    assert_eq!(config.log.level, LogLevel::Debug);
}

#[test]
fn what_is_wrong_is_said_in_one_line_with_file_line_and_key() {
    let cases = [
        ("lisen: x\n", "f.yaml:1: lisen: unknown key (known here: listen, services, "),
        (
            "capture:\n  bytes: 64\n  byte: 1\n",
            "f.yaml:3: capture.byte: unknown key (known here: bytes, bytes_per_second, ",
        ),
        ("\n\ncapture: 5\n", "f.yaml:3: capture: expected a section of keys, found the number 5"),
        ("probes:\n  tcp: 1\n", "f.yaml:2: probes.tcp: expected true or false, found the number 1"),
        ("probes: {tcp: 'true'}\n", "f.yaml:1: probes.tcp: expected true or false, found text 'true'"),
        ("spans: {capacity: many}\n", "f.yaml:1: spans.capacity: expected a whole number, found text 'many'"),
        ("spans: {capacity: -1}\n", "f.yaml:1: spans.capacity: -1 is not between 0 and 18446744073709551615"),
        ("spans: {capacity: 0}\n", "f.yaml:1: spans.capacity: 0 is not between 1 and 1048576"),
        ("spans: {capacity: 1.5}\n", "f.yaml:1: spans.capacity: expected a whole number, found the number 1.5"),
        ("spans:\n  capacity:\n", "f.yaml:2: spans.capacity: expected a whole number, found nothing"),
        ("listen: 9464\n", "f.yaml:1: listen: expected text, found the number 9464"),
        ("listen: host\n", "f.yaml:1: listen: 'host' is not IP:PORT, such as 127.0.0.1:9464 or [::1]:9464"),
        ("capture:\n  bytes: 63\n", "f.yaml:2: capture.bytes: 63 is not between 64 and 8KiB"),
        ("capture:\n  bytes: 8MiB\n", "f.yaml:2: capture.bytes: 8MiB is not between 64 and 8KiB"),
        ("capture:\n  bytes: 8MB\n", "f.yaml:2: capture.bytes: '8MB' is not a size such as 4096, 64KiB or 8MiB"),
        (
            "capture:\n  bytes: [1]\n",
            "f.yaml:2: capture.bytes: expected a size such as 4096, 64KiB or 8MiB, found sequence",
        ),
        ("capture: {ring_bytes: 3MiB}\n", "f.yaml:1: capture.ring_bytes: 3MiB is not a power of two from 4KiB to 1GiB"),
        ("capture: {drain_interval: 5}\n", "f.yaml:1: capture.drain_interval: expected text, found the number 5"),
        ("capture: {drain_interval: 5 parsecs}\n", "f.yaml:1: capture.drain_interval: '5 parsecs' is not a duration"),
        ("capture: {drain_interval: 2s}\n", "f.yaml:1: capture.drain_interval: 2s is not between 1ms and 1s"),
        (
            "syscalls: {sample_one_in: 17}\n",
            "f.yaml:1: syscalls.sample_one_in: 17 is not a power of two from 1 to 65536",
        ),
        ("scope:\n  include:\n  - pid=1\n  - pid=abc\n", "f.yaml:4: scope.include[1]: pid=abc: not a process id"),
        ("scope:\n  include: all\n", "f.yaml:2: scope.include: expected a list, found text 'all'"),
        ("services:\n- match: port=80\n", "f.yaml:2: services[0]: 'name' is missing"),
        ("services:\n- match: port=80\n  name: ''\n", "f.yaml:3: services[0].name: the name is empty"),
        (
            "services:\n- match: user=x\n  name: a\n",
            "f.yaml:2: services[0].match: 'user=x' is neither exe=GLOB nor port=N",
        ),
        ("log: {level: loud}\n", "f.yaml:1: log.level: 'loud' is none of error, warn, info, debug, trace"),
        ("log: {format: 3}\n", "f.yaml:1: log.format: expected one of text, json, found the number 3"),
        ("- a\n- b\n", "f.yaml:1: expected a section of keys, found a list"),
        ("just text\n", "f.yaml:1: expected a section of keys, found text 'just text'"),
        ("log:\n  level: info\n  level: warn\n", "f.yaml:3: duplicate mapping key: level"),
        ("log: {level: info\nspans: [\n", "f.yaml:"),
        ("log:\n\tlevel: info\n", "f.yaml:2: tabs disallowed"),
        ("a: *nowhere\n", "f.yaml:1: "),
        ("log:\n  level: \"a\\nb\"\n", "f.yaml:2: log.level: 'a b' is none of error,"),
        ("listen: 127.0.0.1:1\n---\nlisten: 127.0.0.1:2\n", "f.yaml:"),
    ];
    for (text, expected) in cases {
        let said = read(text).unwrap_err();
        assert!(said.starts_with(expected), "{text:?}\n  said     {said}\n  expected {expected}");
        assert!(!said.contains('\n'), "{text:?} said more than one line: {said}");
        assert!(!said.contains("DuplicateKeyPolicy") && !said.contains("from_str"), "{said}");
        assert!(said.len() < 400, "{text:?} said {said}");
        assert!(!said.starts_with("f.yaml: "), "{text:?} has no line: {said}");
    }
}

#[test]
fn on_and_off_are_what_yaml_makes_of_them() {
    use super::Wakeups::{Auto, Off, On};
    for (text, expected) in [("on", On), ("'on'", On), ("true", On), ("off", Off), ("false", Off), ("auto", Auto)] {
        let config = read(&format!("probes:\n  wakeup: {text}\n")).unwrap();
        assert_eq!(config.probes.wakeup, expected, "{text}");
    }
    let said = read("probes:\n  wakeup: yess\n").unwrap_err();
    assert_eq!(said, "f.yaml:2: probes.wakeup: 'yess' is none of auto, on, off");
    let said = read("probes: {wakeup: 1}\n").unwrap_err();
    assert_eq!(said, "f.yaml:1: probes.wakeup: expected one of auto, on, off, found 1");
}

#[test]
fn every_value_out_of_range_is_reported() {
    let said = read("capture: {bytes: 1}\nspans:\n  capacity: 0\n").unwrap_err();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines.iter().any(|line| line.starts_with("f.yaml:3: spans.capacity")), "{said}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let missing = Config::load(Some(Path::new("/nonexistent/seismo.yaml")), &[]).unwrap_err().to_string();
    assert!(missing.starts_with("/nonexistent/seismo.yaml: No such file"), "{missing}");
    let directory = Config::load(Some(Path::new("/proc")), &[]).unwrap_err().to_string();
    assert!(directory.starts_with("/proc: Is a directory"), "{directory}");
}

#[test]
fn variables_win_over_the_file() {
    let set = environment(&[
        ("SEISMO_LISTEN", "127.0.0.1:1"),
        ("SEISMO_CAPTURE_BYTES", "1KiB"),
        ("SEISMO_SPANS_CAPACITY", "7"),
        ("SEISMO_PROBES_TCP", "false"),
        ("SEISMO_SCOPE_INCLUDE", "pid=1, port=80"),
        ("SEISMO_SCOPE_EXCLUDE", "['exe=a,b']"),
        ("SEISMO_SERVICES", "[{match: port=1, name: a}]"),
        ("SEISMO_LOG_LEVEL", ""),
        ("SEISMO_AGENT", "http://127.0.0.1:1"),
        ("PATH", "/bin"),
    ]);
    let config = Config::from_text("f.yaml", "spans: {capacity: 9}\nlog: {level: warn}\n", &set).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:1");
    assert_eq!((config.capture.bytes, config.spans.capacity), (ByteSize::kib(1), 7));
    assert!(!config.probes.tcp);
    assert_eq!((config.scope.include.len(), config.scope.exclude.len(), config.services.len()), (2, 1, 1));
    assert_eq!(config.log.level, LogLevel::Warn, "an empty variable counts as not set");
    assert!(unknown_variables(&set).is_empty());
}

#[test]
fn an_error_in_a_variable_names_the_variable() {
    let cases = [
        ("SEISMO_CAPTURE_BYTES", "1", "SEISMO_CAPTURE_BYTES: capture.bytes: 1 is not between 64 and 8KiB"),
        (
            "SEISMO_SPANS_CAPACITY",
            "x",
            "SEISMO_SPANS_CAPACITY: spans.capacity: expected a whole number, found text 'x'",
        ),
        ("SEISMO_SCOPE_INCLUDE", "pid=1,pid=x", "SEISMO_SCOPE_INCLUDE: scope.include[1]: pid=x: not a process id"),
        ("SEISMO_SERVICES", "[{match", "SEISMO_SERVICES: services: "),
        ("SEISMO_LOG_FORMAT", "xml", "SEISMO_LOG_FORMAT: log.format: 'xml' is none of text, json"),
    ];
    for (name, text, expected) in cases {
        let said = Config::load(None, &environment(&[(name, text)])).unwrap_err().to_string();
        assert!(said.starts_with(expected) && !said.contains('\n'), "{said}");
    }
}

#[test]
fn a_variable_that_names_no_key_is_reported_but_not_an_error() {
    let set = environment(&[("SEISMO_LISTNE", "x"), ("SEISMO_SERVICE_HOST", "10.0.0.1")]);
    assert_eq!(Config::load(None, &set), Ok(Config::default()));
    assert_eq!(unknown_variables(&set), ["SEISMO_LISTNE", "SEISMO_SERVICE_HOST"]);
}

#[test]
fn what_is_printed_is_accepted_and_means_the_same() {
    let changed = read(
        "listen: '[::1]:1'\nscope: {include: ['exe=a #b: c', cgroup=/x, all]}\ncapture: {bytes: 100}\n\
         services: [{match: exe=*, name: 'yes'}]\n",
    );
    for config in [Config::default(), changed.unwrap()] {
        let printed = print(&config);
        assert_eq!(read(&printed), Ok(config), "{printed}");
    }
}

#[test]
fn secrets_are_not_printed_and_what_is_printed_is_still_accepted() {
    let text = "remote: {redis: 'redis://agent:s3cret@10.0.0.5:6379/1'}\n\
        alerts: {webhook: 'http://hooks.example/services/s3cret/x?key=s3cret'}\n\
        export:\n  otlp:\n    endpoint: 'http://collector:4318/x?token=s3cret&s3cret'\n    headers: ['api-key=s3cret', 'b=s3cret=']\n\
        \x20   metrics: {headers: [authorization=s3cret]}\n    traces: {headers: [authorization=s3cret]}\n\
        checks: {targets: [{name: shop, http: 'http://shop/health?key=s3cret'}]}\n";
    let config = read(text).unwrap();
    let printed = print(&config);
    assert!(!printed.contains("s3cret"), "{printed}");
    for shown in [
        "redis: redis://agent:***@10.0.0.5:6379/1\n",
        "webhook: http://hooks.example/***?key=***\n",
        "endpoint: http://collector:4318/x?token=***&***\n",
        "headers: [\"api-key=***\",\"b=***\"]\n",
        "headers: [\"authorization=***\"]\n",
        "http://shop/health?key=***",
    ] {
        assert!(printed.contains(shown), "{shown} is not in {printed}");
    }
    assert!(read(&printed).is_ok(), "{:?}", read(&printed));
    let bare = print(&read("remote: {redis: 'redis://:s3cret@10.0.0.5'}").unwrap());
    assert!(bare.contains("redis: redis://:***@10.0.0.5\n"), "{bare}");
}

#[test]
fn every_key_is_printed_with_documentation_and_default() {
    let printed = print(&read("spans: {capacity: 5}").unwrap());
    assert!(printed.contains("  # Default: 20000\n  capacity: 5\n"), "{printed}");
    assert!(printed.contains("\n  # Default: 8MiB\n  ring_bytes: 8MiB\n"), "{printed}");
    let mut keys = Vec::new();
    Config::document("", &mut keys);
    let lines: Vec<_> = printed.lines().collect();
    for (path, documentation) in keys {
        assert!(!documentation.trim().is_empty(), "{path}");
        let key = format!("{}:", path.rsplit('.').next().unwrap());
        let at = lines.iter().position(|line| line.trim_start().starts_with(&key)).unwrap();
        assert!(lines[at - 1].trim_start().starts_with('#'), "{path}");
    }
}

#[test]
fn opentelemetrys_variables_set_the_keys_of_the_exporter() {
    let set = environment(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b, x=y"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("SEISMO_EXPORT_OTLP_COMPRESSION", "none"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
        ("OTEL_SERVICE_NAME", "not-the-agents-to-give"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ""),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://store:8428/opentelemetry/v1/metrics"),
        ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "700"),
        ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "explicit_bucket_histogram"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "LowMemory"),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "agent.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "agent.key"),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "traces.key"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "15000"),
        ("OTEL_METRICS_EXPORTER", "prometheus, otlp"),
        ("OTEL_TRACES_EXPORTER", "none"),
    ]);
    let otlp = Config::from_text("f.yaml", "export: {otlp: {timeout: 1s}}\n", &set).unwrap().export.otlp;
    assert_eq!((otlp.endpoint.as_deref(), otlp.traces.endpoint), (Some("http://collector:4317"), None));
    let (grpc, http) = (crate::exporters::otlp::Protocol::Grpc, crate::exporters::otlp::Protocol::HttpProtobuf);
    assert_eq!((otlp.protocol, otlp.traces.protocol, otlp.metrics.protocol), (http, Some(grpc), None));
    assert_eq!(otlp.metrics.endpoint.as_deref(), Some("http://store:8428/opentelemetry/v1/metrics"));
    assert_eq!((otlp.metrics.timeout, otlp.metrics.interval), (Some(Interval::millis(700)), Interval::secs(15)));
    assert_eq!(otlp.metrics.histograms, crate::exporters::otlp::Histograms::Explicit);
    assert_eq!(otlp.metrics.temporality, crate::exporters::otlp::Temporality::LowMemory);
    let files = [&otlp.client_certificate, &otlp.client_key, &otlp.traces.client_key];
    assert_eq!(
        files.map(|file| file.as_deref().and_then(Path::to_str)),
        ["agent.pem", "agent.key", "traces.key"].map(Some)
    );
    assert_eq!((otlp.metrics.enabled, otlp.traces.enabled), (true, false));
    assert_eq!(otlp.compression, crate::exporters::otlp::Compression::None);
    assert_eq!((otlp.headers, otlp.timeout), (vec!["api-key=a%20b".into(), "x=y".into()], Interval::millis(2500)));
    assert_eq!(otlp.resource, ["deployment.environment.name=test"]);
    for (name, text, expected) in [
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "collector:4317",
            "export.otlp.endpoint: \"collector:4317\" does not begin with",
        ),
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "http/json",
            "export.otlp.protocol: 'http/json' is none of http/protobuf, grpc",
        ),
        (
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
            "Sometimes",
            "export.otlp.metrics.temporality: 'sometimes' is none of cumulative, delta, lowmemory",
        ),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "export.otlp.timeout: 'soonms' is not a duration"),
    ] {
        let said = Config::load(None, &environment(&[(name, text)])).unwrap_err().to_string();
        assert!(said.starts_with(&format!("{name}: {expected}")), "{said}");
    }
    let keyless = "export: {otlp: {endpoint: 'https://x', client_certificate: a.pem}}\n";
    let said = Config::from_text("f.yaml", keyless, &[]).unwrap_err().to_string();
    assert!(said.ends_with("export.otlp.client_key: is needed beside client_certificate"), "{said}");
}
