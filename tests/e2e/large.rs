//! A download of a gigabyte through sendfile: its size and duration are exact, and its bytes are not carried through the
//! agent.

use std::fs::File;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::Agent;
use seismo_tests::nginx::Nginx;
use seismo_tests::programs;
use seismo_tests::rig::Rig;

const BYTES: u64 = 1 << 30;
/// Of a payload record without captured bytes.
const RECORD_BYTES: f64 = 120.0;

#[test]
fn a_gigabyte_costs_less_than_a_hundredth_of_it_in_records_and_is_told_exactly() -> Result<()> {
    Rig::run(|rig| {
        let nginx = Nginx::start(rig, None)?;
        File::create(nginx.static_file("large"))?.set_len(BYTES)?;
        let agent = Agent::start(rig)?;
        let url = format!("http://127.0.0.1:{}/static/large", nginx.port);
        let mut curl = Command::new(programs::find("curl")?);
        curl.args([
            "--silent",
            "--fail",
            "--output",
            "/dev/null",
            "--write-out",
            "%{size_download} %{time_total}",
            &url,
        ]);
        let out = rig.inside("curl", curl)?.finish(Duration::from_secs(120))?;
        let (size, seconds) = out.trim().split_once(' ').context("curl said nothing")?;
        let seconds: f64 = seconds.parse()?;
        ensure!(size.parse::<u64>()? == BYTES, "curl got {size} bytes");
        let spans = agent.awaited_spans(2, |span| span.path() == "/static/large")?;
        for span in &spans {
            let (service, length) = (span.service(), (span.end_ns - span.start_ns) as f64 / 1e9);
            println!(
                "{service}: {} bytes in {length:.4} s, curl says {seconds:.4} s",
                span.attribute("http.response.body.size")
            );
            ensure!(span.attribute("http.response.body.size") == BYTES.to_string(), "{service}: another size");
            // curl's time begins before it connects.
            ensure!(length <= seconds && length > 0.9 * seconds, "{service}: {length} s, curl says {seconds} s");
        }
        let page = agent.page()?;
        let records = page.sum("seismo_pipeline_records_total", &[("stage", "observed"), ("outcome", "entered")]);
        let captured = page.sum("seismo_payload_capture_bytes_total", &[("outcome", "captured")]);
        let cost = records * RECORD_BYTES + captured;
        println!(
            "{records} records and {captured} captured bytes: {:.3} % of both ends' bytes",
            cost / (2 * BYTES) as f64 * 100.0
        );
        ensure!(cost < 0.01 * (2 * BYTES) as f64, "{cost} bytes for {BYTES} at each end");
        agent.nothing_lost()
    })
}
