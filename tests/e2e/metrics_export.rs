//! Metrics exported over OTLP to a real store are those of the agent's page: names, labels and values of counters, gauges and
//! histograms, and quantiles; a real collector decodes what is sent over gRPC.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::{Agent, Launch};
use seismo_tests::exposition::{Labels, Page, Sample};
use seismo_tests::nginx::Nginx;
use seismo_tests::rig::Rig;
use seismo_tests::rotel::{Point, Ports, Rotel};
use seismo_tests::spans::Span;
use seismo_tests::victoria_metrics::VictoriaMetrics;
use seismo_tests::wait;
use seismo_tests::wrk::{Load, Wrk};

const REQUESTS: usize = 1000;
const TIME: &str = "http_server_request_duration_seconds";
const LIMIT: Duration = Duration::from_secs(30);

/// An agent with this export, and requests that are all counted.
fn agent<'a>(rig: &'a Rig, export: &str) -> Result<Agent<'a>> {
    let nginx = Nginx::start(rig, None)?;
    let config = format!("export:\n  otlp:\n{export}");
    let agent = Agent::launch(rig, &Launch { config: Some(config), ..Launch::default() })?;
    let paths = ["/", "/missing", "/static/file"].map(str::to_owned).to_vec();
    let wrk = Wrk::start(rig, nginx.port, &Load { requests: REQUESTS, connections: 4, depth: 1, paths })?;
    let logged = nginx.logged(REQUESTS, LIMIT)?.len() as f64;
    wrk.interrupt()?;
    agent.settled(&logged, |page| page.sum(&format!("{TIME}_count"), &[]))?;
    Ok(agent)
}

/// Series of a name with their values; labels that a store adds are taken off.
fn series(all: impl IntoIterator<Item = (Labels, f64)>) -> BTreeMap<Labels, f64> {
    let own = |(mut labels, value): (Labels, f64)| {
        ["__name__", "host.name", "host_name"].iter().for_each(|added| _ = labels.remove(*added));
        (labels, value)
    };
    all.into_iter().map(own).collect()
}

/// The store keeps some twelve digits.
fn same(found: &BTreeMap<Labels, f64>, wanted: &BTreeMap<Labels, f64>) -> bool {
    let close = |(one, other): (&f64, &f64)| (one - other).abs() <= other.abs() * 1e-11;
    found.keys().eq(wanted.keys()) && found.values().zip(wanted.values()).all(close)
}

fn on_page(page: &Page, name: &str) -> BTreeMap<Labels, f64> {
    series(page.select(name, &[]).map(|sample| (sample.labels.clone(), sample.value)))
}

/// Bounds of the classic bucket that a quantile lies in.
fn bucket(page: &Page, quantile: f64) -> Result<(f64, f64)> {
    let mut below: BTreeMap<u64, f64> = BTreeMap::new();
    for sample in page.select(&format!("{TIME}_bucket"), &[]) {
        let bound = sample.labels.get("le").context("no bound")?;
        let bound: f64 = if bound == "+Inf" { f64::INFINITY } else { bound.parse()? };
        // Bits of positive numbers are in their order.
        *below.entry(bound.to_bits()).or_default() += sample.value;
    }
    let all = below.values().fold(0.0, |most: f64, count| most.max(*count));
    let above = below.iter().position(|(_, count)| *count >= quantile * all).context("no bucket")?;
    let bounds: Vec<f64> = below.keys().map(|bits| f64::from_bits(*bits)).collect();
    Ok((above.checked_sub(1).map_or(0.0, |before| bounds[before]), bounds[above]))
}

fn store(histograms: &str) -> Result<()> {
    Rig::run(|rig| {
        let store = VictoriaMetrics::start(rig)?;
        let export = format!(
            "    metrics:\n      endpoint: {}\n      interval: 500ms\n      batch_points: 300\n      histograms: {histograms}\n",
            store.endpoint()
        );
        let agent = agent(rig, &export)?;
        let page = agent.page()?;
        // Counters, a gauge, and of the histogram what both ways of sending it have.
        let counts = [format!("{TIME}_count"), format!("{TIME}_sum"), "seismo_workload_bytes_total".to_owned()];
        let names = counts.into_iter().chain(["seismo_build_info", "seismo_probe_state"].map(str::to_owned));
        for name in names {
            let wanted = on_page(&page, &name);
            ensure!(!wanted.is_empty(), "the page has no {name}");
            let found = wait::until(&format!("the store to have {name} as the page does"), LIMIT, || {
                let found = series(store.query(&name)?);
                Ok(same(&found, &wanted).then_some(found))
            })
            .with_context(|| format!("page: {wanted:?}\nstore: {:?}", store.query(&name)))?;
            println!("{name}: {} series are the same, one of them: {:?}", found.len(), found.first_key_value());
        }
        for quantile in [0.5, 0.9, 0.99] {
            let (from, to) = bucket(&page, quantile)?;
            let expression = match histograms {
                "explicit_bucket_histogram" => format!("histogram_quantile({quantile}, sum by (le) ({TIME}_bucket))"),
                _ => format!("histogram_quantile({quantile}, sum by (vmrange) ({TIME}_bucket))"),
            };
            let found = store.value(&expression)?.with_context(|| expression.clone())?;
            println!("{quantile}: {found:.3e} s in the store; between {from:.1e} and {to:.1e} s on the page");
            // Bounds of exponential buckets lie up to a quarter octave beside those of classic ones.
            ensure!(found > from / 1.19 && found <= to * 1.19, "{found} is not in ({from}, {to}]");
        }
        let account = agent.page_where("points to be sent and none to wait", |page| {
            page.sum("seismo_export_points_total", &[("outcome", "sent")]) > 0.0
                && page.sum("seismo_export_queued", &[("signal", "metrics")]) == 0.0
        })?;
        println!("points: {:?}", account.by("seismo_export_points_total", "outcome", &[]));
        ensure!(account.sum("seismo_export_points_total", &[("outcome", "lost")]) == 0.0, "points were lost");
        agent.stop()
    })
}

#[test]
fn a_store_has_the_series_of_the_page_with_exponential_histograms() -> Result<()> {
    store("base2_exponential_bucket_histogram")
}

#[test]
fn a_store_has_the_series_of_the_page_with_explicit_histograms() -> Result<()> {
    store("explicit_bucket_histogram")
}

#[test]
fn a_collector_decodes_exponential_histograms_sent_over_grpc() -> Result<()> {
    Rig::run(|rig| {
        let ports = Ports::free()?;
        let rotel = Rotel::of_metrics(rig, ports)?;
        let grpc = ports.grpc;
        let agent = agent(
            rig,
            &format!("    endpoint: http://127.0.0.1:{grpc}\n    protocol: grpc\n    metrics: {{interval: 500ms}}\n"),
        )?;
        let page = agent.page()?;
        let stored: Vec<String> = agent.spans()?.iter().map(id).collect();
        agent.stop()?;
        // The last export was at the end of the agent.
        let received = rotel.histograms()?;
        for sample in page.select(&format!("{TIME}_count"), &[]) {
            let sum = page.sum(&format!("{TIME}_sum"), &labels(sample));
            let point = received.iter().rfind(|point| {
                point.metric == "http.server.request.duration"
                    && point.attributes.get("http.route") == sample.labels.get("http_route")
            });
            let point = point.with_context(|| format!("nothing of {sample:?}"))?;
            println!("{point:?}");
            let spelled = point.attributes.iter().map(|(key, value)| (key.replace('.', "_"), value.clone()));
            ensure!(spelled.collect::<Labels>() == sample.labels, "other labels than {sample:?}");
            let buckets: u64 = point.buckets.iter().map(|(_, _, count)| count).sum();
            ensure!(point.count as f64 == sample.value && buckets == point.count, "other counts than {sample:?}");
            ensure!(point.sum == sum, "sum {} where the page has {sum}", point.sum);
            ensure!(point.buckets.iter().all(|(from, to, _)| (to / from - 2f64.powf(0.25)).abs() < 1e-9), "bounds");
            ensure!(!point.traces.is_empty(), "no exemplar");
            for (trace, value) in &point.traces {
                ensure!(stored.contains(trace), "{trace} is not stored");
                let holds = |(from, to, count): &(f64, f64, u64)| from < value && value <= to && *count > 0;
                ensure!(point.buckets.iter().any(holds), "{value} is in no bucket");
            }
        }
        Ok(())
    })
}

#[test]
fn deltas_that_a_collector_got_add_up_to_the_page() -> Result<()> {
    Rig::run(|rig| {
        let ports = Ports::free()?;
        let rotel = Rotel::of_metrics(rig, ports)?;
        let export = format!("http://127.0.0.1:{}", ports.http);
        let agent =
            agent(rig, &format!("    endpoint: {export}\n    metrics: {{interval: 500ms, temporality: delta}}\n"))?;
        let page = agent.page()?;
        // So that one export at least has nothing new.
        let before = page.sum("seismo_export_points_total", &[("outcome", "sent")]);
        agent.page_where("two more exports", |now| {
            now.sum("seismo_export_points_total", &[("outcome", "sent")]) > before * 2.0 + 1.0
        })?;
        agent.stop()?;
        let received = rotel.histograms()?;
        for sample in page.select(&format!("{TIME}_count"), &[]) {
            let of_sample = |point: &&Point| {
                point.metric == "http.server.request.duration"
                    && point.attributes.get("http.route") == sample.labels.get("http_route")
            };
            let points: Vec<&Point> = received.iter().filter(of_sample).collect();
            let counts: Vec<u64> = points.iter().map(|point| point.count).collect();
            println!("{}: {counts:?}, {} on the page", points.len(), sample.value);
            ensure!(counts.iter().sum::<u64>() as f64 == sample.value, "{counts:?} are not {sample:?}");
            ensure!(counts.contains(&0), "each export has something of {sample:?}: {counts:?}");
            let buckets: u64 = points.iter().flat_map(|point| &point.buckets).map(|(_, _, count)| count).sum();
            ensure!(buckets as f64 == sample.value, "{buckets} in buckets");
            let sum: f64 = points.iter().map(|point| point.sum).sum();
            let expected = page.sum(&format!("{TIME}_sum"), &labels(sample));
            ensure!((sum - expected).abs() <= expected * 1e-9, "sum {sum} where the page has {expected}");
        }
        Ok(())
    })
}

fn id(span: &Span) -> String {
    span.json.get("traceId").and_then(|id| id.as_str()).unwrap_or_default().to_owned()
}

/// The labels of a sample, to look for others with the same.
fn labels(sample: &Sample) -> Vec<(&str, &str)> {
    sample.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}
