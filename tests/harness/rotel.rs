//! rotel, a real collector: takes OTLP over HTTP and gRPC and prints what it decoded, which is read back here.
//!
//! It listens on loopback and runs outside of the test's control group: what the agent sends it is not looked at.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::Process;
use crate::rig::{Rig, free_port};
use crate::{http, programs};

/// Ports that it listens on; kept over a restart.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub http: u16,
    pub grpc: u16,
}

#[derive(Debug)]
pub struct Rotel {
    process: Process,
}

/// A span as the collector understood it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    pub trace_id: String,
    pub span_id: String,
    pub parent_id: String,
    pub name: String,
    /// As OTLP calls it (`SPAN_KIND_SERVER`).
    pub kind: String,
    pub status: String,
    pub start_ns: u64,
    pub end_ns: u64,
    /// Type and value (`Int(7)`).
    pub attributes: BTreeMap<String, String>,
    pub resource: BTreeMap<String, String>,
}

/// A point of an exponential histogram as the collector understood it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Point {
    pub metric: String,
    /// Texts only.
    pub attributes: BTreeMap<String, String>,
    pub count: u64,
    pub sum: f64,
    /// Lower bound, upper bound and count.
    pub buckets: Vec<(f64, f64, u64)>,
    /// Trace and value of each exemplar.
    pub traces: Vec<(String, f64)>,
}

impl Ports {
    pub fn free() -> Result<Self> {
        Ok(Self { http: free_port()?, grpc: free_port()? })
    }
}

impl Rotel {
    /// `name` tells the outputs of two in one test apart.
    pub fn start(rig: &Rig, name: &str, ports: Ports) -> Result<Self> {
        Self::printing(rig, name, ports, "traces")
    }

    /// One that prints metrics.
    pub fn of_metrics(rig: &Rig, ports: Ports) -> Result<Self> {
        Self::printing(rig, "rotel", ports, "metrics")
    }

    fn printing(rig: &Rig, name: &str, ports: Ports, signal: &str) -> Result<Self> {
        let mut command = Command::new(programs::rotel()?);
        command.arg("start").stdin(Stdio::null());
        command.args(["--otlp-http-endpoint", &format!("127.0.0.1:{}", ports.http)]);
        command.args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{}", ports.grpc)]);
        command.args(["--debug-log", signal, "--debug-log-verbosity", "detailed", "--exporter", "blackhole"]);
        command.arg("--pid-file").arg(rig.dir().join(format!("{name}.pid")));
        let mut process = rig.outside(name, command)?;
        let listening = || http::listens(ports.http) && http::listens(ports.grpc);
        process.await_ready(Duration::from_secs(20), listening)?;
        Ok(Self { process })
    }

    /// Ends it and waits for the end; what it had taken it has printed.
    pub fn stop(mut self) -> Result<Vec<Received>> {
        self.process.signal(libc::SIGTERM);
        self.process.wait(Duration::from_secs(20))?;
        self.received()
    }

    /// Ends it and waits for the end; the points of exponential histograms, in the order in which they came.
    pub fn histograms(mut self) -> Result<Vec<Point>> {
        self.process.signal(libc::SIGTERM);
        self.process.wait(Duration::from_secs(20))?;
        points(&self.process.out())
    }

    /// The spans so far, in the order in which they came.
    pub fn received(&self) -> Result<Vec<Received>> {
        let text = self.process.out();
        // A span is whole when its last line is.
        let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
        parse(whole)
    }

    /// How many spans came so far.
    pub fn count(&self) -> usize {
        self.process.out().lines().filter(|line| line.starts_with("Span #")).count()
    }
}

fn points(text: &str) -> Result<Vec<Point>> {
    let (mut points, mut metric, mut open): (Vec<Point>, _, _) = (Vec::new(), String::new(), false);
    for line in text.lines() {
        let said = line.trim_start().trim_start_matches("-> ");
        let wrong = || format!("not understood: {line}");
        if let Some(name) = said.strip_prefix("Name: ") {
            (metric, open) = (name.to_owned(), false);
        } else if said.contains("DataPoints #") {
            open = said.starts_with("Exponential");
            if open {
                points.push(Point { metric: metric.clone(), ..Point::default() });
            }
        } else if let Some(point) = points.last_mut().filter(|_| open) {
            if let Some(bucket) = said.strip_prefix("Bucket (") {
                let (bounds, count) = bucket.split_once("], Count: ").with_context(wrong)?;
                let (from, to) = bounds.split_once(", ").with_context(wrong)?;
                point.buckets.push((from.parse()?, to.parse()?, count.parse()?));
            } else if let Some((key, value)) = said.split_once(": ") {
                match key {
                    "Count" => point.count = value.parse().with_context(wrong)?,
                    "Sum" => point.sum = value.parse().with_context(wrong)?,
                    "Trace ID" => point.traces.push((value.to_owned(), 0.0)),
                    "Value" => point.traces.last_mut().with_context(wrong)?.1 = value.parse().with_context(wrong)?,
                    _ => {
                        if let Some(text) = value.strip_prefix("Str(").and_then(|text| text.strip_suffix(')')) {
                            point.attributes.insert(key.to_owned(), text.to_owned());
                        }
                    }
                }
            }
        }
    }
    Ok(points)
}

fn parse(text: &str) -> Result<Vec<Received>> {
    let mut spans: Vec<Received> = Vec::new();
    let mut resource = BTreeMap::new();
    let mut of_resource = true;
    for line in text.lines() {
        if line.starts_with("ResourceSpans #") {
            (resource, of_resource) = (BTreeMap::new(), true);
        } else if line.starts_with("Span #") {
            of_resource = false;
            spans.push(Received { resource: resource.clone(), ..Received::default() });
        } else if let Some(pair) = line.trim_start().strip_prefix("-> ") {
            let (key, value) = pair.split_once(": ").with_context(|| format!("no attribute: {line}"))?;
            let attributes = match spans.last_mut() {
                Some(span) if !of_resource => &mut span.attributes,
                _ => &mut resource,
            };
            attributes.insert(key.to_owned(), value.to_owned());
        } else if let (Some(span), Some((key, value))) =
            (spans.last_mut(), line.split_once(": ").or(line.split_once(':')))
        {
            let value = value.trim().to_owned();
            let time = || value.parse::<u64>().with_context(|| format!("no time: {line}"));
            match key.trim() {
                "Trace ID" => span.trace_id = value,
                "ID" => span.span_id = value,
                "Parent ID" => span.parent_id = value,
                "Name" => span.name = value,
                "Kind" => span.kind = value,
                "Status code" => span.status = value,
                "Start time" => span.start_ns = time()?,
                "End time" => span.end_ns = time()?,
                _ => {}
            }
        }
    }
    match spans.iter().find(|span| span.span_id.len() != 16) {
        Some(span) => bail!("rotel printed what is not understood here: {span:?}"),
        None => Ok(spans),
    }
}
