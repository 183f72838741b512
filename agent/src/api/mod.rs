//! The HTTP API: state of the agent → Prometheus pages, Prometheus-like JSON, spans as NDJSON and as Jaeger has them.
//!
//! Reads, but for what who may can change ([`change`]); one clear error for a wrong parameter. Nothing here knows how a
//! metric or a rule is made: pages come through [`Pages`]. Bounds on connections, heads and time are in [`server`].

mod agent;
mod answer;
mod change;
mod jaeger;
mod parameters;
mod query;
mod query_json;
pub mod server;
mod spans;
mod stall;

#[cfg(test)]
mod query_tests;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

use crate::health::Health;
use crate::store::Query;
use crate::store::spans::Spans;

/// A page with its content type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub content_type: String,
    pub body: Vec<u8>,
}

/// Both ends of the connection that a request came on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub peer: SocketAddr,
    pub local: SocketAddr,
}

/// What a metric is, as a query spells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    pub help: &'static str,
}

/// Takes the samples, and the Unix ms of the oldest.
pub type Read<'a> = dyn FnMut(&dyn Query, Option<i64>) + 'a;

/// Why something was not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// What was asked for is wrong.
    Wrong(String),
    /// It names what is not there.
    Unknown(String),
    /// The caller may not.
    Forbidden(String),
    /// The agent could not.
    Failed(String),
}

impl Refused {
    /// In words, for a log.
    pub fn reason(&self) -> &str {
        match self {
            Self::Wrong(reason) | Self::Unknown(reason) | Self::Forbidden(reason) | Self::Failed(reason) => reason,
        }
    }
}

/// What other units show. Called on a blocking thread, so it may read kernel maps; it should take
/// milliseconds, not seconds.
pub trait Pages: Send + Sync + 'static {
    /// The metrics page in the format that the `Accept` header asks for.
    fn metrics(&self, accept: Option<&str>) -> Result<Page, String>;
    /// Lends the recent samples, once. The first call may make the agent begin to keep them.
    fn samples(&self, read: &mut Read<'_>);
    /// Every metric that the agent can show.
    fn definitions(&self) -> Vec<Definition>;
    /// `data` of Prometheus' `/api/v1/rules`.
    fn rules(&self) -> Value;
    /// `data` of Prometheus' `/api/v1/alerts`.
    fn alerts(&self) -> Value;
    /// Tracked connections and how full the table is.
    fn flows(&self) -> Value;
    /// Services and processes that the agent has seen, and how much of their traffic it could read.
    fn workloads(&self) -> Value;
    /// Whose payload may be read, as it was written.
    fn scope(&self) -> Value;
    /// Replaces the scope for `caller`, and shows it with what that did.
    fn set_scope(&self, caller: Ends, wanted: Value) -> Result<Value, Refused>;
    /// Switches a probe family for `caller`, and shows what became of it.
    fn switch_probes(&self, caller: Ends, wanted: Value) -> Result<Value, Refused>;
    /// The kernel side of the pipeline: ring and drop counts; shown under `kernel`.
    fn kernel(&self) -> Value;
}

/// What the API shows.
#[derive(Clone)]
pub struct Api {
    pages: Arc<dyn Pages>,
    health: Arc<Health>,
    spans: Arc<Spans>,
    /// True once the agent stops: followers end then.
    stopping: watch::Receiver<bool>,
    /// Places for queries.
    evaluations: Arc<Semaphore>,
}

/// Path and one line about it, for the index page.
const ENDPOINTS: [(&str, &str); 17] = [
    ("/metrics", "metrics for Prometheus; OpenMetrics when asked for"),
    ("/healthz", "200 while the agent lives"),
    ("/readyz", "200 while probes are attached and the pipeline runs, else 503 with the reason"),
    (
        "/api/v1/query?query=seismo_build_info",
        "PromQL over the samples of the last minutes, as Prometheus answers it; also query_range, series, label/NAME/values",
    ),
    ("/api/v1/labels", "names of labels"),
    ("/api/v1/metadata", "type and description of every metric"),
    ("/api/v1/rules", "alerting rules and their state, as Prometheus has them"),
    ("/api/v1/alerts", "pending and firing alerts, as Prometheus has them"),
    ("/api/v1/status/buildinfo", "version of the agent"),
    (
        "/api/seismo/probes",
        "each kernel program: hook, state, runs, time; PUT {\"family\": …, \"enabled\": …} switches one (root, from this host)",
    ),
    ("/api/seismo/pipeline", "records in, out and lost, stage by stage"),
    ("/api/seismo/flows", "tracked connections"),
    ("/api/seismo/workloads", "services that were seen, and how much of their traffic could be read"),
    (
        "/api/seismo/scope",
        "whose payload may be read; PUT {\"include\": […], \"exclude\": […]} replaces it (root, from this host)",
    ),
    (
        "/api/seismo/spans",
        "recent spans, one JSON object a line (service, status, min_duration, name, trace, limit, follow)",
    ),
    (
        "/api/services",
        "Jaeger's query API, for its page and Grafana's: also /api/traces, /api/traces/{id}, /api/operations",
    ),
    ("/api/dependencies", "which service called which, and how often, as Jaeger has it"),
];

impl Api {
    /// `stopping` becomes true when followers shall end.
    pub fn new(pages: Arc<dyn Pages>, health: Arc<Health>, spans: Arc<Spans>, stopping: watch::Receiver<bool>) -> Self {
        let evaluations = Arc::new(Semaphore::new(query::AT_ONCE));
        Self { pages, health, spans, stopping, evaluations }
    }

    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/", get(index))
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(agent::readyz))
            .route("/api/v1/query", get(query::instant).post(query::instant))
            .route("/api/v1/query_range", get(query::range).post(query::range))
            .route("/api/v1/series", get(query::series).post(query::series))
            .route("/api/v1/labels", get(query::labels).post(query::labels))
            .route("/api/v1/label/{name}/values", get(query::label_values))
            .route("/api/v1/metadata", get(query::metadata))
            .route("/api/v1/rules", get(|State(api): State<Self>| async move { api.json(Pages::rules).await }))
            .route("/api/v1/alerts", get(|State(api): State<Self>| async move { api.json(Pages::alerts).await }))
            .route("/api/v1/status/buildinfo", get(buildinfo))
            .route("/api/seismo/probes", get(agent::probes).put(change::switch_probes))
            .route("/api/seismo/pipeline", get(agent::pipeline))
            .route("/api/seismo/flows", get(agent::flows))
            .route("/api/seismo/workloads", get(agent::workloads))
            .route("/api/seismo/scope", get(change::show_scope).put(change::replace_scope))
            .route("/api/seismo/spans", get(spans::spans))
            .route("/api/services", get(jaeger::services))
            .route("/api/services/{service}/operations", get(jaeger::service_operations))
            .route("/api/operations", get(jaeger::operations))
            .route("/api/traces", get(jaeger::traces))
            .route("/api/traces/{id}", get(jaeger::trace))
            .route("/api/dependencies", get(jaeger::dependencies))
            .fallback(|request: Request| async move {
                let message = format!("there is nothing at {}", request.uri().path());
                answer::failure(StatusCode::NOT_FOUND, "not_found", &message)
            })
            .method_not_allowed_fallback(|request: Request| async move {
                let message = format!("{} is not allowed here", request.method());
                answer::failure(StatusCode::METHOD_NOT_ALLOWED, "bad_method", &message)
            })
            .with_state(self)
    }

    /// Asks for a page on a blocking thread.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Pages) -> T + Send + 'static,
    ) -> Result<T, String> {
        let pages = Arc::clone(&self.pages);
        tokio::task::spawn_blocking(move || question(&*pages)).await.map_err(|error| error.to_string())
    }

    /// Prometheus' envelope around what a page gives.
    async fn json(&self, question: fn(&dyn Pages) -> Value) -> Response {
        match self.ask(question).await {
            Ok(found) => answer::success(found),
            Err(message) => answer::internal(&message),
        }
    }
}

/// Waits until the agent stops.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // A sender that is gone means the same as `true`.
    let _gone = stopping.wait_for(|stopping| *stopping).await.is_err();
}

async fn metrics(State(api): State<Api>, request: Request) -> Response {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).map(str::to_owned);
    match api.ask(move |pages| pages.metrics(accept.as_deref())).await {
        Ok(Ok(page)) => ([(header::CONTENT_TYPE, page.content_type)], page.body).into_response(),
        Ok(Err(message)) | Err(message) => answer::internal(&message),
    }
}

async fn buildinfo() -> Response {
    answer::success(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "revision": "", "branch": "", "buildUser": "", "buildDate": "", "goVersion": "",
    }))
}

async fn index() -> Response {
    let rows: String = ENDPOINTS
        .iter()
        .map(|(path, about)| format!("<tr><td><a href=\"{path}\">{path}</a></td><td>{about}</td></tr>\n"))
        .collect();
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Seismo</title>\n\
         <h1>Seismo {}</h1>\n<table>\n{rows}</table>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    );
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response()
}
