//! What may be changed over HTTP: the scope, and which probe families are attached. Shown to everybody who reaches the API,
//! changed by who may.
//!
//! `PUT` with a JSON body (at most 64 KiB). 400: something in it is wrong; 404: it names what is not there; 403: the caller
//! may not; 503: the agent could not. In each case nothing changed but what the message says, and what was running keeps
//! running.

use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;

use super::{Api, Ends, Pages, Refused, agent, answer};

/// Longest body that is read.
const MAX_BODY: usize = 64 << 10;

pub(super) async fn show_scope(State(api): State<Api>) -> Response {
    agent::plain(api.ask(Pages::scope).await)
}

/// The body has the form of the configuration's `scope`.
pub(super) async fn replace_scope(State(api): State<Api>, request: Request) -> Response {
    put(&api, request, |pages, ends, wanted| pages.set_scope(ends, wanted)).await
}

/// The body is `{"family": NAME, "enabled": true or false}`.
pub(super) async fn switch_probes(State(api): State<Api>, request: Request) -> Response {
    put(&api, request, |pages, ends, wanted| pages.switch_probes(ends, wanted)).await
}

async fn put(api: &Api, request: Request, change: fn(&dyn Pages, Ends, Value) -> Result<Value, Refused>) -> Response {
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
    match api.ask(move |pages| change(pages, ends, wanted)).await {
        Ok(Err(Refused::Wrong(message))) => answer::bad_request(&message),
        Ok(Err(Refused::Unknown(message))) => answer::failure(StatusCode::NOT_FOUND, "not_found", &message),
        Ok(Err(Refused::Forbidden(message))) => forbidden(&message),
        Ok(Err(Refused::Failed(message))) => answer::failure(StatusCode::SERVICE_UNAVAILABLE, "unavailable", &message),
        Ok(Ok(changed)) => agent::plain(Ok(changed)),
        Err(message) => answer::internal(&message),
    }
}

fn forbidden(message: &str) -> Response {
    answer::failure(StatusCode::FORBIDDEN, "forbidden", message)
}
