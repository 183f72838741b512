//! The service graph of a chain of real services: its edges and their counts are the requests that were made.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use seismo_tests::agent::Agent;
use seismo_tests::exposition::Page;
use seismo_tests::http;
use seismo_tests::rig::Rig;
use seismo_tests::shop::Shop;

const REQUESTS: usize = 40;
/// Asked by a client that is out of scope.
const STRANGERS: usize = 3;
const FAMILY: &str = "seismo_service_graph_request_duration_seconds";
const FAILED: &str = "seismo_service_graph_request_failed_total";
const SPANS: &str = "seismo_service_graph_spans_total";

type Edges = BTreeMap<[String; 3], u64>;

/// Counts by client, server and protocol.
fn edges(page: &Page, name: &str) -> Edges {
    let mut edges = Edges::new();
    for sample in page.select(name, &[]) {
        let label = |name: &str| sample.labels.get(name).cloned().unwrap_or_default();
        *edges.entry(["client", "server", "protocol"].map(label)).or_default() += sample.value as u64;
    }
    edges
}

#[test]
fn edges_and_counts_are_the_requests_that_were_made() -> Result<()> {
    Rig::run(|rig| {
        let shop = Shop::open(rig)?;
        let agent = Agent::launch(rig, &shop.launch("")?)?;
        shop.visit(rig, REQUESTS)?;
        for _ in 0..STRANGERS {
            http::get(shop.front.port, "/")?.ok()?;
        }
        let all = [
            (["curl", "front", "http"], REQUESTS, REQUESTS / 5),
            (["front", "shop", "http"], REQUESTS, REQUESTS / 5),
            (["shop", "store", "redis"], REQUESTS, 0),
            (["shop", "stock.example", "http"], REQUESTS / 2, 0),
            (["user", "front", "http"], STRANGERS, 0),
        ];
        let expected = |count: fn(usize, usize) -> usize| -> Edges {
            all.iter().map(|(names, made, failed)| (names.map(str::to_owned), count(*made, *failed) as u64)).collect()
        };
        let (made, failed) = (expected(|made, _| made), expected(|_, failed| failed));
        let counted = format!("{FAMILY}_count");
        let page =
            agent.page_where("all edges", |page| edges(page, &counted).values().sum::<u64>() >= made.values().sum());
        let page = page.or_else(|_| agent.page())?;
        println!("edges: {:?}\nfailed: {:?}", edges(&page, &counted), edges(&page, FAILED));
        ensure!(edges(&page, &counted) == made, "expected {made:?}");
        ensure!(edges(&page, FAILED) == failed, "expected failed {failed:?}");

        let outcomes = page.by(SPANS, "outcome", &[]);
        println!("spans: {outcomes:?}");
        let (paired, alone) = (2 * 3 * REQUESTS as u64, (REQUESTS / 2 + STRANGERS) as u64);
        ensure!(outcomes == [("paired".to_owned(), paired), ("alone".to_owned(), alone)].into(), "{outcomes:?}");
        ensure!(page.sum("seismo_table_entries", &[("table", "service_graph")]) == 0.0, "something still waits");
        // Redis needs part of the shop's time, which is part of the front's, and that of the visitor's.
        let seconds = |client: &str| page.sum(&format!("{FAMILY}_sum"), &[("client", client)]);
        ensure!(
            seconds("curl") >= seconds("front") && seconds("front") >= seconds("shop"),
            "{:?}",
            edges(&page, FAMILY)
        );
        agent.nothing_lost()?;
        agent.stop()
    })
}
