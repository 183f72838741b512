//! Answers in the form of the Prometheus HTTP API: `{"status": "success", "data": …}` or
//! `{"status": "error", "errorType": …, "error": …}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

pub(super) fn success(content: Value) -> Response {
    Json(json!({ "status": "success", "data": content })).into_response()
}

pub(super) fn failure(status: StatusCode, kind: &str, message: &str) -> Response {
    (status, Json(json!({ "status": "error", "errorType": kind, "error": message }))).into_response()
}

/// A parameter is wrong.
pub(super) fn bad_request(message: &str) -> Response {
    failure(StatusCode::BAD_REQUEST, "bad_data", message)
}

/// The agent could not make the page.
pub(super) fn internal(message: &str) -> Response {
    log::error!("a page could not be made: {message}");
    failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
}
