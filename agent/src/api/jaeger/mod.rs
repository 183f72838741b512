//! Jaeger's query API over the ring of recent spans, so that Jaeger's and Grafana's pages work against one agent.
//!
//! `/api/services`, `/api/services/{s}/operations`, `/api/operations`, `/api/traces`, `/api/traces/{id}`,
//! `/api/dependencies`: parameters and JSON as Jaeger's query service 1.x has them, errors too. There is no index: each
//! question walks the whole ring, once or twice, on a blocking thread ([`Spans::visit`]), and the answer is bounded by the
//! ring. Only what is still in the ring is found; nothing is asked of other agents. No archive, no metrics.

mod question;
mod shape;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use compact_str::CompactString;
use serde_json::{Value, json};

use super::Api;
use crate::clock;
use crate::model::span::{Span, SpanId, SpanKind, TraceId};
use crate::store::spans::Spans;
use question::{Period, Search};

type Parameters = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// Why there is no answer.
struct Refusal(StatusCode, String);

impl From<String> for Refusal {
    fn from(message: String) -> Self {
        Self(StatusCode::BAD_REQUEST, message)
    }
}

fn pairs(parameters: Parameters) -> Result<Vec<(String, String)>, Refusal> {
    let Query(pairs) = parameters.map_err(|rejection| Refusal::from(rejection.body_text()))?;
    Ok(pairs)
}

/// Answers on a blocking thread: a large ring takes a while.
async fn answer(api: Api, find: impl FnOnce(&Spans) -> Result<Vec<Value>, Refusal> + Send + 'static) -> Response {
    let spans = Arc::clone(&api.spans);
    let found = tokio::task::spawn_blocking(move || find(&spans)).await;
    envelope(found.unwrap_or_else(|error| Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))))
}

fn envelope(found: Result<Vec<Value>, Refusal>) -> Response {
    match found {
        Ok(found) => {
            let total = found.len();
            Json(json!({ "data": found, "total": total, "limit": 0, "offset": 0, "errors": null })).into_response()
        }
        Err(Refusal(status, message)) => {
            let errors = json!([{ "code": status.as_u16(), "msg": message }]);
            let body = json!({ "data": null, "total": 0, "limit": 0, "offset": 0, "errors": errors });
            (status, Json(body)).into_response()
        }
    }
}

pub(super) async fn services(State(api): State<Api>) -> Response {
    answer(api, |spans| {
        let mut names = BTreeSet::new();
        spans.visit(|span| {
            if !names.contains(&span.resource.service_name) {
                names.insert(span.resource.service_name.clone());
            }
            ControlFlow::Continue(())
        });
        Ok(names.into_iter().map(Value::from).collect())
    })
    .await
}

pub(super) async fn service_operations(State(api): State<Api>, Path(service): Path<String>) -> Response {
    answer(api, move |spans| {
        let names: BTreeSet<CompactString> =
            named_operations(spans, &service).into_iter().map(|(name, _)| name).collect();
        Ok(names.into_iter().map(|name| json!(name)).collect())
    })
    .await
}

pub(super) async fn operations(State(api): State<Api>, parameters: Parameters) -> Response {
    let asked = pairs(parameters).and_then(|pairs| Ok(question::operations(&pairs)?));
    let (service, kind) = match asked {
        Ok(asked) => asked,
        Err(refusal) => return envelope(Err(refusal)),
    };
    answer(api, move |spans| {
        let found = named_operations(spans, &service).into_iter();
        let found = found.filter(|(_, found)| kind.as_ref().is_none_or(|kind| kind == found));
        Ok(found.map(|(name, kind)| json!({ "name": name, "spanKind": kind })).collect())
    })
    .await
}

/// Span names of a service with their kind.
fn named_operations(spans: &Spans, service: &str) -> BTreeSet<(CompactString, &'static str)> {
    let mut names = BTreeSet::new();
    spans.visit(|span| {
        if span.resource.service_name == service {
            names.insert((span.name.clone(), span.kind.name()));
        }
        ControlFlow::Continue(())
    });
    names
}

pub(super) async fn traces(State(api): State<Api>, parameters: Parameters) -> Response {
    let search = pairs(parameters).and_then(|pairs| Ok(Search::parse(&pairs, clock::wall_ns())?));
    match search {
        Ok(search) => answer(api, move |spans| Ok(shape::traces(&found(spans, &search)))).await,
        Err(refusal) => envelope(Err(refusal)),
    }
}

pub(super) async fn trace(State(api): State<Api>, Path(id): Path<String>) -> Response {
    let id: TraceId = match id.parse() {
        Ok(id) => id,
        Err(error) => return envelope(Err(Refusal::from(error))),
    };
    answer(api, move |spans| {
        let found = collect(spans, vec![id]);
        if found.is_empty() {
            return Err(Refusal(StatusCode::NOT_FOUND, "trace not found".to_owned()));
        }
        Ok(shape::traces(&found))
    })
    .await
}

/// The traces that a search finds, newest first, each with all its spans.
fn found(spans: &Spans, search: &Search) -> Vec<Vec<Arc<Span>>> {
    if !search.traces.is_empty() {
        return collect(spans, search.traces.clone());
    }
    let (mut order, mut known) = (Vec::new(), HashSet::new());
    spans.visit(|span| {
        if order.len() >= search.limit {
            return ControlFlow::Break(());
        }
        if search.matches(&span) && known.insert(span.trace_id) {
            order.push(span.trace_id);
        }
        ControlFlow::Continue(())
    });
    collect(spans, order)
}

/// All spans of these traces, in the traces' order; traces without any are left out.
fn collect(spans: &Spans, order: Vec<TraceId>) -> Vec<Vec<Arc<Span>>> {
    let mut members: HashMap<TraceId, Vec<Arc<Span>>> = order.iter().map(|id| (*id, Vec::new())).collect();
    if !members.is_empty() {
        spans.visit(|span| {
            if let Some(of_trace) = members.get_mut(&span.trace_id) {
                of_trace.push(span);
            }
            ControlFlow::Continue(())
        });
    }
    let of_trace = order.into_iter().filter_map(|id| members.remove(&id)).filter(|spans| !spans.is_empty());
    of_trace
        .map(|mut spans| {
            spans.sort_by_key(|span| (span.start_ns, span.span_id.0));
            spans
        })
        .collect()
}

pub(super) async fn dependencies(State(api): State<Api>, parameters: Parameters) -> Response {
    match pairs(parameters).and_then(|pairs| Ok(Period::parse(&pairs, clock::wall_ns())?)) {
        Ok(period) => answer(api, move |spans| Ok(calls(spans, period))).await,
        Err(refusal) => envelope(Err(refusal)),
    }
}

/// How often one service called another: server spans whose parent is a span of another service.
fn calls(spans: &Spans, period: Period) -> Vec<Value> {
    let (mut services, mut called) = (HashMap::<(TraceId, SpanId), Arc<Span>>::new(), Vec::new());
    spans.visit(|span| {
        if period.contains(span.start_ns) {
            if span.kind == SpanKind::Server && span.parent_span_id.is_some() {
                called.push(Arc::clone(&span));
            }
            services.insert((span.trace_id, span.span_id), span);
        }
        ControlFlow::Continue(())
    });
    let mut counts = BTreeMap::<(&str, &str), u64>::new();
    for span in &called {
        if let Some(parent) = span.parent_span_id.and_then(|id| services.get(&(span.trace_id, id))) {
            let (parent, child) = (&parent.resource.service_name, &span.resource.service_name);
            if parent != child {
                *counts.entry((parent, child)).or_default() += 1;
            }
        }
    }
    let call = |((parent, child), count)| json!({ "parent": parent, "child": child, "callCount": count });
    counts.into_iter().map(call).collect()
}
