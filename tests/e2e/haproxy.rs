//! HAProxy that splices, between curl and nginx: bodies of every size both ways, told exactly or said to be incomplete at
//! all four ends.

use std::fs::File;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::Agent;
use seismo_tests::haproxy::{Haproxy, Mode};
use seismo_tests::nginx::Nginx;
use seismo_tests::programs;
use seismo_tests::rig::Rig;
use seismo_tests::spans::{Kind, Span};

/// Around what a buffer of HAProxy's, a capture of ours and a pipe hold, and far more.
const SIZES: [u64; 9] = [0, 1, 1000, 4096, 16_384, 65_537, 100_000, 1 << 20, 10_000_000];
const LIMIT: Duration = Duration::from_secs(60);

/// One request: its path, and what is moved each way.
struct Asked {
    path: String,
    method: &'static str,
    sent: u64,
    received: u64,
}

fn curl(rig: &Rig, name: &str, arguments: &[String]) -> Result<()> {
    let mut curl = Command::new(programs::find("curl")?);
    curl.args(["--silent", "--show-error", "--fail", "--write-out", "%{num_connects}\\n"]).args(arguments);
    let out = rig.inside(name, curl)?.finish(LIMIT)?;
    let connects: usize = out.lines().filter_map(|line| line.parse::<usize>().ok()).sum();
    ensure!(connects == 1, "curl made {connects} connections");
    Ok(())
}

/// Downloads and uploads of all sizes, each kind over one connection.
fn ask(rig: &Rig, nginx: &Nginx, port: u16) -> Result<Vec<Asked>> {
    let (mut asked, mut downloads, mut uploads) = (Vec::new(), Vec::new(), Vec::new());
    for size in SIZES {
        let file = nginx.static_file(&size.to_string());
        File::create(&file)?.set_len(size)?;
        let (download, upload) = (format!("/static/{size}"), format!("/put/{size}"));
        downloads.extend(["--output".to_owned(), "/dev/null".to_owned(), format!("http://127.0.0.1:{port}{download}")]);
        uploads.extend(["--output".to_owned(), "/dev/null".to_owned(), "--upload-file".to_owned()]);
        uploads.extend([file.display().to_string(), format!("http://127.0.0.1:{port}{upload}")]);
        asked.push(Asked { path: download, method: "GET", sent: 0, received: size });
        asked.push(Asked { path: upload, method: "PUT", sent: size, received: 0 });
    }
    curl(rig, "downloads", &downloads)?;
    curl(rig, "uploads", &uploads)?;
    Ok(asked)
}

/// The span of one end of a request, if there is one; fails if there are two or if it tells something else.
///
/// What HAProxy splices out of a socket is only seen where functions can be traced. Elsewhere the stream's next operation
/// shows that bytes are missing: then the span says so, and no size.
fn end<'a>(spans: &'a [Span], asked: &Asked, (kind, service): (Kind, &str), mode: Mode) -> Result<Option<&'a Span>> {
    let is = |span: &&Span| span.kind == kind && span.service() == service && span.path() == asked.path;
    let mut of = spans.iter().filter(is);
    let Some(span) = of.next() else { return Ok(None) };
    ensure!(of.next().is_none(), "two {kind:?} spans of {service} for {}", asked.path);
    ensure!(span.attribute("http.request.method") == asked.method, "{}: {}", asked.path, span.json);
    let told = ["http.request.body.size", "http.response.body.size"].map(|key| span.attribute(key));
    let moved = [asked.sent.to_string(), asked.received.to_string()];
    let whole = span.attribute("seismo.incomplete").is_empty();
    let taken = if kind == Kind::Client { asked.received } else { asked.sent };
    let spliced = service == "haproxy" && (mode == Mode::Tcp || taken > 0);
    let said = !whole && spliced && told.iter().all(String::is_empty);
    ensure!(
        told == moved && whole || said,
        "{service} {kind:?} {}: {told:?}, moved {moved:?}: {}",
        asked.path,
        span.json
    );
    Ok(Some(span))
}

fn linked(asked: &Span, answered: &Span) -> bool {
    let id = |span: &Span, key: &str| span.json.get(key).and_then(|id| id.as_str()).unwrap_or("none").to_owned();
    id(asked, "traceId") == id(answered, "traceId") && id(answered, "parentSpanId") == id(asked, "spanId")
}

const ENDS: [(Kind, &str); 4] =
    [(Kind::Client, "curl"), (Kind::Server, "haproxy"), (Kind::Client, "haproxy"), (Kind::Server, "nginx")];

#[test]
fn a_proxy_of_http_that_splices_gives_four_linked_spans_of_each_request() -> Result<()> {
    Rig::run(|rig| {
        let nginx = Nginx::start(rig, None)?;
        let haproxy = Haproxy::start(rig, Mode::Http, nginx.port)?;
        let agent = Agent::start(rig)?;
        let asked = ask(rig, &nginx, haproxy.port)?;
        ensure!(haproxy.pipes()? > 0, "nothing was spliced");
        let spans = agent.awaited_spans(4 * asked.len(), |span| !span.path().is_empty())?;
        let mut whole = [0; 4];
        for one in &asked {
            let of = |place: usize| {
                let end_of = ENDS.get(place).context("an end")?;
                end(&spans, one, *end_of, Mode::Http)?
                    .with_context(|| format!("no span of {end_of:?} for {}", one.path))
            };
            ensure!(linked(of(0)?, of(1)?), "{}: curl and haproxy are not linked", one.path);
            ensure!(linked(of(2)?, of(3)?), "{}: haproxy and nginx are not linked", one.path);
            for (place, count) in whole.iter_mut().enumerate() {
                *count += usize::from(of(place)?.attribute("seismo.incomplete").is_empty());
            }
        }
        println!("{} requests, {} pipes; whole spans of {ENDS:?}: {whole:?}", asked.len(), haproxy.pipes()?);
        ensure!(whole[0] == asked.len() && whole[3] == asked.len(), "the ends that do not splice are not whole");
        agent.nothing_lost()?;
        agent.stop()
    })
}

#[test]
fn a_proxy_of_streams_that_splices_heads_too_is_wrong_about_nothing() -> Result<()> {
    Rig::run(|rig| {
        let nginx = Nginx::start(rig, None)?;
        let haproxy = Haproxy::start(rig, Mode::Tcp, nginx.port)?;
        let agent = Agent::start(rig)?;
        let asked = ask(rig, &nginx, haproxy.port)?;
        ensure!(haproxy.pipes()? > 0, "nothing was spliced");
        agent.awaited_spans(2 * asked.len(), |span| span.service() != "haproxy")?;
        agent.still(|page| page.sum("seismo_pipeline_events_total", &[]))?;
        let spans = agent.spans()?;
        let mut seen = [0; 4];
        for one in &asked {
            for (count, of) in seen.iter_mut().zip(ENDS) {
                *count += usize::from(end(&spans, one, of, Mode::Tcp)?.is_some());
            }
        }
        let page = agent.page()?;
        println!("{} requests; spans of {ENDS:?}: {seen:?}", asked.len());
        println!("bytes: {:?}", page.by("seismo_workload_bytes_total", "visibility", &[("service_name", "haproxy")]));
        println!("what happened: {:?}", page.by("seismo_pipeline_events_total", "reason", &[]));
        ensure!(seen[0] == asked.len() && seen[3] == asked.len(), "the ends that read and write are not whole");
        agent.nothing_lost()?;
        agent.stop()
    })
}
