//! Native histograms: a real Prometheus takes them from the protobuf page and has the same quantiles as from classic ones.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::{Agent, Launch};
use seismo_tests::nginx::Nginx;
use seismo_tests::prometheus::Prometheus;
use seismo_tests::rig::Rig;
use seismo_tests::wait;
use seismo_tests::wrk::{Load, Wrk};

const REQUESTS: &str = "http_server_request_duration_seconds";
const CALLS: &str = "seismo_syscall_duration_seconds";
const WAITS: &str = "seismo_scheduler_runqueue_duration_seconds";

/// Bounds between which a classic histogram with these bounds cannot tell values apart.
fn bucket(bounds: &[f64], value: f64) -> (f64, f64) {
    let above = bounds.partition_point(|bound| *bound < value);
    let at = |index: usize| bounds.get(index).copied();
    (above.checked_sub(1).and_then(at).unwrap_or(0.0), at(above).unwrap_or(f64::INFINITY))
}

/// The finite bounds of a family on the text page.
fn bounds(agent: &Agent<'_>, family: &str) -> Result<Vec<f64>> {
    let page = agent.page()?;
    let name = format!("{family}_bucket");
    let mut bounds: Vec<f64> =
        page.select(&name, &[]).filter_map(|sample| sample.labels.get("le")?.parse().ok()).collect();
    bounds.retain(|bound: &f64| bound.is_finite());
    bounds.sort_by(f64::total_cmp);
    bounds.dedup();
    ensure!(!bounds.is_empty(), "{family} has no buckets");
    Ok(bounds)
}

#[test]
fn quantiles_of_native_and_classic_histograms_agree_within_a_bucket() -> Result<()> {
    Rig::run(|rig| {
        let nginx = Nginx::start(rig, None)?;
        // Classic buckets an octave wide, so that agreement says something.
        let config = Some("metrics:\n  octaves_per_bucket: 1\n".to_owned());
        let agent = Agent::launch(rig, &Launch { config, ..Launch::default() })?;
        let native = Prometheus::with_native_histograms(rig, agent.port)?;
        let classic = Prometheus::start(rig, agent.port)?;
        let load = Load { requests: 2000, connections: 4, depth: 1, paths: vec!["/".to_owned()] };
        let wrk = Wrk::start(rig, nginx.port, &load)?;
        let logged = nginx.logged(load.requests, Duration::from_secs(30))?.len() as f64;
        wrk.interrupt()?;
        agent.settled(&logged, |page| page.sum(&format!("{REQUESTS}_count"), &[]))?;

        let counted = format!("sum(histogram_count({REQUESTS}))");
        wait::until("Prometheus to have the native histogram", Duration::from_secs(20), || {
            Ok((native.value(&counted)? == Some(logged)).then_some(()))
        })?;
        wait::until("Prometheus to have the classic histogram", Duration::from_secs(20), || {
            Ok((classic.value(&format!("sum({REQUESTS}_count)"))? == Some(logged)).then_some(()))
        })?;
        // Where it has native ones it takes no classic ones beside them.
        let beside = native.value(&format!("sum({REQUESTS}_bucket)"))?;
        ensure!(beside.is_none(), "classic buckets beside native ones: {beside:?}");

        let timed = agent.page()?.by(&format!("{CALLS}_count"), "syscall", &[]);
        let (call, _) = timed.iter().max_by_key(|(_, count)| **count).context("no system call was timed")?;
        let most = format!("{{syscall=\"{call}\"}}");
        for (family, choice) in [(REQUESTS, ""), (CALLS, most.as_str()), (WAITS, "")] {
            let bounds = bounds(&agent, family)?;
            for quantile in ["0.5", "0.9", "0.99"] {
                let of_native = format!("histogram_quantile({quantile}, sum({family}{choice}))");
                let of_classic = format!("histogram_quantile({quantile}, sum by (le) ({family}_bucket{choice}))");
                let value = |prometheus: &Prometheus, query: &str| {
                    wait::until(query, Duration::from_secs(10), || prometheus.value(query))
                };
                let (fine, coarse) = (value(&native, &of_native)?, value(&classic, &of_classic)?);
                let (from, to) = bucket(&bounds, coarse);
                println!("{family} {quantile}: native {fine:.3e}, classic {coarse:.3e} in ({from:.3e}, {to:.3e}]");
                // The two were scraped at different moments: a call or a wait may lie between.
                let slack = 1.2;
                ensure!(fine > from / slack && fine <= to * slack, "{family}: {fine} is not in ({from}, {to}]");
            }
        }
        agent.stop()
    })
}
