//! The scope over HTTP: shown to everybody who reaches the API, replaced as a whole by who may.
//!
//! `PUT` with a JSON body (at most 64 KiB) of the same form as the configuration's `scope`. 400: something in it is wrong;
//! 403: the caller may not; either way nothing changed. What was running keeps running.

use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::{Api, Ends, Pages, Refused, agent, answer};

/// Longest body that is read.
const MAX_BODY: usize = 64 << 10;

pub(super) async fn show(State(api): State<Api>) -> Response {
    agent::plain(api.ask(Pages::scope).await)
}

pub(super) async fn replace(State(api): State<Api>, request: Request) -> Response {
    let Some(ends) = request.extensions().get::<Ends>().copied() else {
        return forbidden("it is not known who asks");
    };
    let body: Bytes = match to_bytes(request.into_body(), MAX_BODY).await {
        Ok(body) => body,
        Err(error) => return answer::bad_request(&format!("the body cannot be read (at most 64 KiB): {error}")),
    };
    let wanted = match serde_json::from_slice(&body) {
        Ok(wanted) => wanted,
        Err(error) => return answer::bad_request(&format!("the body is not JSON: {error}")),
    };
    match api.ask(move |pages| pages.set_scope(ends, wanted)).await {
        Ok(Err(Refused::Wrong(message))) => answer::bad_request(&message),
        Ok(Err(Refused::Forbidden(message))) => forbidden(&message),
        Ok(Err(Refused::Failed(message))) => answer::failure(StatusCode::SERVICE_UNAVAILABLE, "unavailable", &message),
        Ok(Ok(changed)) => agent::plain(Ok(changed)),
        Err(message) => answer::internal(&message),
    }
}

fn forbidden(message: &str) -> Response {
    answer::failure(StatusCode::FORBIDDEN, "forbidden", message)
}
