//! The queries of the agent's API beside a real Prometheus over the same samples: the same answers, the same errors.
//!
//! The agent's API runs in this process over a store filled here; Prometheus gets the same samples as a block that
//! promtool makes. No instant of a query lies on the edge of a window that a sample lies on too: there Prometheus before
//! version 3 counts otherwise.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seismo::api::server::{Limits, bind, serve};
use seismo::api::{Api, Definition, Ends, Page, Pages, Read, Refused};
use seismo::health::Health;
use seismo::model::metric::{Histogram, Kind, Metric, Sample, Value as Measured};
use seismo::store::spans::Spans;
use seismo::store::{MetricsConfig, Query, Recent};
use seismo_tests::prometheus::Prometheus;
use seismo_tests::rig::Rig;
use seismo_tests::{http, programs};
use serde_json::Value;

static CALLS: Metric =
    Metric { name: "calls", unit: "{call}", kind: Kind::Counter, description: "Calls", labels: &["code", "route"] };
static LEVEL: Metric =
    Metric { name: "level", unit: "{unit}", kind: Kind::Gauge, description: "Level", labels: &["tank"] };
static TIME: Metric =
    Metric { name: "request.duration", unit: "s", kind: Kind::Histogram, description: "Time", labels: &["route"] };
const BOUNDS: [f64; 4] = [0.001, 0.01, 0.25, 1.0];

/// Unix seconds of the first sample; there is one every five seconds.
const BEGIN: i64 = 1_700_000_000;
const COLUMNS: i64 = 100;

fn column(index: i64) -> Vec<Sample> {
    let number = u64::try_from(index).unwrap_or(0);
    let mut samples = Vec::new();
    for (code, route, step) in [("200", "/", 7), ("500", "/", 1), ("200", "/items", 3), ("404", "/\"ü\\", 2)] {
        // A restart in the middle.
        let count = if index >= 60 { (number - 60) * step } else { 1000 + number * step };
        samples.push(Sample { metric: &CALLS, labels: vec![code.into(), route.into()], value: Measured::Count(count) });
    }
    for (tank, level) in [("a", (index % 9) as f64 - 4.0), ("b", 1.0 / (index + 1) as f64), ("c", f64::INFINITY)] {
        samples.push(Sample { metric: &LEVEL, labels: vec![tank.into()], value: Measured::Float(level) });
    }
    let counts = vec![number, 5 * number, 3 * number, 0, number / 10];
    let histogram = Histogram { bounds: Cow::Borrowed(&BOUNDS), counts, sum: 0.1 * index as f64 };
    samples.push(Sample { metric: &TIME, labels: vec!["/".into()], value: Measured::Histogram(histogram) });
    samples
}

struct Filled(Recent);

impl Filled {
    fn new() -> Self {
        let config = MetricsConfig { keep_all: true, ..MetricsConfig::default() };
        let mut store = Recent::new(config, vec![]);
        (0..COLUMNS).for_each(|index| store.append((BEGIN + 5 * index) * 1000, &column(index)));
        Self(store)
    }

    /// All samples as OpenMetrics with times.
    fn open_metrics(&self) -> String {
        let mut text = String::new();
        self.0.select(&[], i64::MIN, i64::MAX, &mut |labels, samples| {
            let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"");
            let others = labels.iter().filter(|label| *label.name != *"__name__");
            let others: Vec<_> = others.map(|it| format!("{}=\"{}\"", it.name, escaped(&it.value))).collect();
            for (time, value) in samples {
                let value = if value.is_infinite() { "+Inf".to_owned() } else { value.to_string() };
                let _infallible =
                    writeln!(text, "{}{{{}}} {value} {}", labels.get("__name__"), others.join(","), time / 1000);
            }
        });
        text + "# EOF\n"
    }
}

impl Pages for Filled {
    fn metrics(&self, _accept: Option<&str>) -> Result<Page, String> {
        Err("none".to_owned())
    }

    fn samples(&self, read: &mut Read<'_>) {
        read(&self.0, Some(0));
    }

    fn definitions(&self) -> Vec<Definition> {
        Vec::new()
    }

    fn rules(&self) -> Value {
        Value::Null
    }

    fn alerts(&self) -> Value {
        Value::Null
    }

    fn flows(&self) -> Value {
        Value::Null
    }

    fn workloads(&self) -> Value {
        Value::Null
    }

    fn scope(&self) -> Value {
        Value::Null
    }

    fn set_scope(&self, _caller: Ends, _wanted: Value) -> Result<Value, Refused> {
        Err(Refused::Failed("none".to_owned()))
    }

    fn switch_probes(&self, _caller: Ends, _wanted: Value) -> Result<Value, Refused> {
        Err(Refused::Failed("none".to_owned()))
    }

    fn kernel(&self) -> Value {
        Value::Null
    }
}

/// Serves the API on a thread until the sender goes; its port.
fn serve_api(store: Filled) -> Result<(u16, tokio::sync::watch::Sender<bool>)> {
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let api = Api::new(Arc::new(store), Arc::new(Health::new()), Arc::new(Spans::new(1)), stopping);
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = bind("127.0.0.1:0".parse()?).await?;
            tell.send(listener.local_addr()?.port())?;
            serve(listener, api, Limits::default()).await;
            Ok(())
        })
    });
    Ok((told.recv_timeout(Duration::from_secs(10))?, stop))
}

const QUERIES: &[&str] = &[
    "calls_total",
    "calls_total{code=~\"2..\",route!=\"/\"}",
    "{__name__=~\"level|calls_total\",tank=\"\"}",
    "rate(calls_total[62s])",
    "increase(calls_total[4m2s])",
    "irate(calls_total[1m])",
    "delta(level{tank!=\"c\"}[93s])",
    "sum by (route) (rate(calls_total[47s]))",
    "sum(calls_total) / count(calls_total)",
    "sum without (code, route) (calls_total)",
    "avg(level) + max(level) - min(level{tank=\"b\"})",
    "calls_total{code=\"500\"} / on (route) calls_total{code=\"200\"}",
    "level > 0",
    "level > bool 0",
    "level == Inf",
    "calls_total unless on (route) calls_total{code=\"500\"}",
    "level and on () calls_total{code=\"404\"}",
    "level or calls_total{code=\"500\"}",
    "histogram_quantile(0.9, sum by (le) (rate(request_duration_seconds_bucket[58s])))",
    "histogram_quantile(0.5, request_duration_seconds_bucket)",
    "-level ^ 2",
    "1 + 2 * 3 ^ 2 % 5",
    "level offset 33s",
    "nothing",
    "calls_total[23s]",
    // Refused by both.
    "",
    "sum(",
    "rate(level)",
    "calls_total + on (route) calls_total",
    "level{",
];

const PATHS: &[&str] = &[
    "series?match[]=calls_total",
    "series?match[]=level{tank=~\"a|b\"}&match[]=calls_total{code=\"500\"}",
    "series",
    "series?match[]=sum(up)",
    "labels",
    "labels?match[]=level",
    "label/code/values",
    "label/__name__/values",
    "label/route/values?match[]=calls_total{code=\"200\"}",
    "label/nothing/values",
    "label/0x/values",
    "query?query=up&time=noon",
    "query_range?query=level&start=1700000100&end=1700000000&step=5",
    "query_range?query=level&start=1700000000&end=1700000100&step=0",
    "query_range?query=level&start=1700000000&end=1700000100",
    "query_range?query=level&start=1700000000&end=1700100000&step=1",
    "query_range?query=level[1m]&start=1700000000&end=1700000100&step=5",
];

/// Answers without their order where the order means nothing, without their messages, and numbers to twelve digits.
fn comparable(status: u16, body: &str) -> Result<Value> {
    let mut answer: Value = serde_json::from_str(body).with_context(|| body.to_owned())?;
    let answer = answer.as_object_mut().context("not an object")?;
    answer.remove("error");
    answer.remove("warnings");
    let vector = answer.get("data").and_then(|it| it.get("resultType")).is_some_and(|kind| kind == "vector");
    if vector
        && let Some(result) = answer.get_mut("data").and_then(|it| it.get_mut("result")).and_then(Value::as_array_mut)
    {
        result.sort_by_key(|element| element["metric"].to_string());
    }
    answer.insert("http".to_owned(), status.into());
    let mut answer = Value::Object(answer.clone());
    rounded(&mut answer);
    Ok(answer)
}

fn rounded(value: &mut Value) {
    match value {
        Value::Array(items) => {
            let is_point = matches!(items.as_slice(), [Value::Number(_), Value::String(_)]);
            if is_point
                && let Some(number) = items.get(1).and_then(Value::as_str).and_then(|text| text.parse::<f64>().ok())
            {
                items[1] = format!("{number:.12e}").into();
            }
            items.iter_mut().for_each(rounded);
        }
        Value::Object(members) => members.values_mut().for_each(rounded),
        // Whole seconds are written with and without a fraction.
        Value::Number(number) => *value = number.as_f64().unwrap_or(f64::NAN).to_string().into(),
        _ => {}
    }
}

#[test]
fn the_api_answers_as_prometheus_does_over_the_same_samples() -> Result<()> {
    Rig::run(|rig| {
        let store = Filled::new();
        let blocks = rig.dir().join("blocks");
        let mut make = Command::new(programs::find("promtool")?);
        make.args(["tsdb", "create-blocks-from", "openmetrics"]);
        make.arg(rig.file("samples.txt", &store.open_metrics())?).arg(&blocks);
        rig.outside("promtool", make)?.finish(Duration::from_secs(60))?;
        let prometheus = Prometheus::over(rig, &blocks)?;
        let (port, _stop) = serve_api(store)?;

        let mut paths: Vec<String> = Vec::new();
        for query in QUERIES {
            let query = http::encode(query);
            for time in ["1700000222.3", "2023-11-14T22:20:03.7Z", "1700000496"] {
                paths.push(format!("query?query={query}&time={time}"));
            }
            if !query.ends_with("%5D") {
                paths.push(format!("query_range?query={query}&start=1700000151.3&end=1700000391.3&step=30"));
            }
        }
        for path in PATHS {
            paths.push(path.replace('"', "%22").replace('{', "%7B").replace('}', "%7D").replace('|', "%7C"));
        }
        let (mut differ, mut refused) = (Vec::new(), 0);
        for path in &paths {
            let path = format!("/api/v1/{path}");
            let (ours, theirs) = (http::get(port, &path)?, http::get(prometheus.port, &path)?);
            let same = comparable(ours.status, &ours.body)? == comparable(theirs.status, &theirs.body)?;
            refused += usize::from(theirs.status != 200);
            if !same {
                differ.push(format!("{path}\n  seismo:     {}\n  Prometheus: {}", ours.body, theirs.body));
            }
        }
        println!("{} questions, {refused} of them refused by Prometheus; {} differ", paths.len(), differ.len());
        ensure!(differ.is_empty(), "{}", differ.join("\n"));
        Ok(())
    })
}
