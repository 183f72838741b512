//! Pages about the agent itself: readiness, probes, the pipeline's account, flows, workloads.

use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value, json};

use super::{Api, Pages, answer};
use crate::health::{Health, Stage};

/// 200 or 503; the reason as text, or as JSON when asked for.
pub(super) async fn readyz(State(api): State<Api>, headers: HeaderMap) -> Response {
    let (status, reason) = match api.health.ready() {
        Ok(()) => (StatusCode::OK, "ready".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
    };
    let wants_json = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accept| accept.contains("application/json"));
    if wants_json {
        (status, Json(json!({ "ready": status == StatusCode::OK, "reason": reason }))).into_response()
    } else {
        (status, format!("{reason}\n")).into_response()
    }
}

pub(super) async fn probes(State(api): State<Api>) -> Response {
    Json(api.health.probes()).into_response()
}

pub(super) async fn flows(State(api): State<Api>) -> Response {
    plain(api.ask(Pages::flows).await)
}

pub(super) async fn workloads(State(api): State<Api>) -> Response {
    plain(api.ask(Pages::workloads).await)
}

pub(super) async fn pipeline(State(api): State<Api>) -> Response {
    let spans = json!({
        "kept": api.spans.len(),
        "stored": api.spans.stored(),
        "evicted": api.spans.evicted(),
        "lost_by_followers": api.spans.lost_by_followers(),
    });
    let stages = stages(&api.health);
    plain(api.ask(move |pages| json!({ "stages": stages, "spans": spans, "kernel": pages.kernel() })).await)
}

/// Each stage in order: what entered, what passed, what was lost and why, and so what is under way.
fn stages(health: &Health) -> Value {
    let drops = health.drops();
    let stage = |stage: Stage| {
        let counts = health.stage(stage);
        // Passed and dropped are read before entered, so that a busy moment never shows less than nothing pending.
        let passed = counts.passed.load(Ordering::Relaxed);
        let dropped: Map<String, Value> = drops
            .iter()
            .filter(|((of, _), _)| *of == stage)
            .map(|((_, reason), count)| ((*reason).to_owned(), json!(count)))
            .collect();
        let lost: u64 = dropped.values().filter_map(Value::as_u64).sum();
        let entered = counts.entered.load(Ordering::Relaxed);
        let pending = entered.saturating_sub(passed).saturating_sub(lost);
        json!({
            "stage": stage.name(), "entered": entered, "passed": passed, "dropped": dropped, "pending": pending,
        })
    };
    Stage::ALL.map(stage).into_iter().collect()
}

pub(super) fn plain(found: Result<Value, String>) -> Response {
    match found {
        Ok(found) => Json(found).into_response(),
        Err(message) => answer::internal(&message),
    }
}
