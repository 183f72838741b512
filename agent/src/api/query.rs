//! The queries of the Prometheus HTTP API: `query`, `query_range`, `series`, `labels`, `label/NAME/values`, `metadata`.
//!
//! GET or POST, so that Grafana's Prometheus data source works against one agent. Errors have Prometheus' kinds: 400
//! `bad_data` for what was asked wrongly, 422 `execution` for what has no answer, 503 `timeout`. Bounds: four evaluations
//! at once (further ones wait), 10 s each, those of `promql` on samples and steps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::parameters::Parameters;
use super::{Api, answer, query_json};
use crate::clock;
use crate::promql::{self, Expr, MAX_STEPS, QueryError, Selected, Steps, ValueType};
use crate::store::{Labels, Matcher, Query};

/// Evaluations at once: the agent shall watch the machine, not load it.
pub(super) const AT_ONCE: usize = 4;
/// An evaluation is ended after this long, or after what `timeout` says if that is less.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
enum Refused {
    Wrong(String),
    Evaluation(QueryError),
    Internal(String),
}

impl From<String> for Refused {
    fn from(message: String) -> Self {
        Self::Wrong(message)
    }
}

impl From<QueryError> for Refused {
    fn from(error: QueryError) -> Self {
        Self::Evaluation(error)
    }
}

/// The JSON of an answer, and what is to be said beside it.
#[derive(Default)]
struct Found {
    content: String,
    warnings: Vec<String>,
}

impl Found {
    fn new(content: String) -> Self {
        Self { content, warnings: Vec::new() }
    }

    fn cut(mut self, cut: bool) -> Self {
        if cut {
            self.warnings.push("results truncated due to limit".to_owned());
        }
        self
    }
}

pub(super) async fn instant(State(api): State<Api>, request: Request) -> Response {
    respond(api, request, |parameters, api| {
        let expr = expression(parameters)?;
        let at_ms = parameters.time("time")?.unwrap_or_else(now_ms);
        let limit = parameters.limit("limit")?;
        // Asked for, though nothing can be ended within one instant.
        parameters.length("timeout")?;
        let mut result = Ok(());
        let mut value = None;
        let begun_ms = read(api, &mut |samples| match Selected::read(&expr, samples, at_ms, at_ms) {
            Ok(selected) => value = Some(selected),
            Err(error) => result = Err(error),
        });
        result?;
        let value = value.ok_or_else(|| Refused::Internal("no samples were read".to_owned()))?.at(at_ms)?;
        let (content, cut) = query_json::instant(&value, at_ms, limit);
        Ok(begins_later(Found::new(content).cut(cut), &expr, at_ms, begun_ms))
    })
    .await
}

pub(super) async fn range(State(api): State<Api>, request: Request) -> Response {
    respond(api, request, |parameters, api| {
        let required = |name: &str| {
            let missing = || format!("invalid parameter {name:?}: cannot parse \"\" to a valid timestamp");
            parameters.time(name)?.ok_or_else(missing)
        };
        let (start_ms, end_ms) = (required("start")?, required("end")?);
        if end_ms < start_ms {
            return Err("invalid parameter \"end\": end timestamp must not be before start time".to_owned().into());
        }
        let step_ms = parameters.length("step")?;
        let step_ms = step_ms.ok_or("invalid parameter \"step\": cannot parse \"\" to a valid duration".to_owned())?;
        if step_ms <= 0 {
            let message = "invalid parameter \"step\": zero or negative query resolution step widths are not \
                           accepted. Try a positive integer";
            return Err(message.to_owned().into());
        }
        if (end_ms - start_ms) / step_ms > MAX_STEPS {
            let message = "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query \
                           resolution (?step=XX)";
            return Err(message.to_owned().into());
        }
        let expr = expression(parameters)?;
        if expr.value_type() == ValueType::Matrix {
            let message = "invalid parameter \"query\": invalid expression type \"range vector\" for range query, \
                           must be Scalar or instant Vector";
            return Err(message.to_owned().into());
        }
        let limit = parameters.limit("limit")?;
        let patience = parameters.length("timeout")?.and_then(|millis| u64::try_from(millis).ok());
        let patience = patience.map_or(PATIENCE, |millis| Duration::from_millis(millis).min(PATIENCE));
        let mut selected = Err(Refused::Internal("no samples were read".to_owned()));
        let begun = Instant::now();
        let begun_ms = read(api, &mut |samples| {
            selected = Selected::read(&expr, samples, start_ms, end_ms).map_err(Refused::from);
        });
        let steps = Steps { start_ms, end_ms, step_ms };
        let series = selected?.over(steps, &|| begun.elapsed() >= patience)?;
        let (content, cut) = query_json::matrix(&series, limit);
        Ok(begins_later(Found::new(content).cut(cut), &expr, start_ms, begun_ms))
    })
    .await
}

pub(super) async fn series(State(api): State<Api>, request: Request) -> Response {
    respond(api, request, |parameters, api| {
        let selectors = selectors(parameters)?;
        if selectors.is_empty() {
            return Err("no match[] parameter provided".to_owned().into());
        }
        let limit = parameters.limit("limit")?;
        let found = label_sets(api, &selectors, parameters)?;
        let content = query_json::label_sets(found.iter().take(limit));
        Ok(Found::new(content).cut(found.len() > limit))
    })
    .await
}

pub(super) async fn labels(State(api): State<Api>, request: Request) -> Response {
    respond(api, request, |parameters, api| {
        let selectors = selectors(parameters)?;
        let sets = label_sets(api, &selectors, parameters)?;
        let names: BTreeSet<&str> = sets.iter().flat_map(Labels::iter).map(|label| &*label.name).collect();
        some(&names, parameters)
    })
    .await
}

pub(super) async fn label_values(State(api): State<Api>, Path(name): Path<String>, request: Request) -> Response {
    respond(api, request, move |parameters, api| {
        let first = name.chars().next();
        let word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        if first.is_none_or(|first| first.is_ascii_digit()) || !name.chars().all(word) {
            return Err(format!("invalid label name: {name:?}").into());
        }
        let selectors = selectors(parameters)?;
        let sets = label_sets(api, &selectors, parameters)?;
        let mut values: BTreeSet<&str> = sets.iter().map(|labels| labels.get(&name)).collect();
        values.remove("");
        some(&values, parameters)
    })
    .await
}

/// What each metric that the agent can show is; whether it has series at present does not matter.
pub(super) async fn metadata(State(api): State<Api>, request: Request) -> Response {
    respond(api, request, |parameters, api| {
        let limit = parameters.limit("limit")?;
        let wanted = parameters.get("metric");
        let all: BTreeMap<String, Value> = api
            .pages
            .definitions()
            .into_iter()
            .filter(|definition| wanted.is_none_or(|wanted| definition.name == wanted))
            .map(|it| (it.name, json!([{ "type": it.kind, "help": it.help, "unit": "" }])))
            .collect();
        let kept: BTreeMap<_, _> = all.into_iter().take(limit).collect();
        Ok(Found::new(json!(kept).to_string()))
    })
    .await
}

/// Reads the parameters, waits for a place, and asks on a blocking thread.
async fn respond(
    api: Api,
    request: Request,
    question: impl FnOnce(&Parameters, &Api) -> Result<Found, Refused> + Send + 'static,
) -> Response {
    let parameters = match Parameters::read(request).await {
        Ok(parameters) => parameters,
        Err(message) => return answer::bad_request(&message),
    };
    // The semaphore is never closed.
    let _place = api.evaluations.acquire().await.ok();
    let asked = api.clone();
    let found = tokio::task::spawn_blocking(move || question(&parameters, &asked)).await;
    match found.unwrap_or_else(|error| Err(Refused::Internal(error.to_string()))) {
        Ok(Found { content, warnings }) => {
            let warnings = match warnings.as_slice() {
                [] => String::new(),
                some => format!(",\"warnings\":{}", query_json::texts(some.iter().map(String::as_str))),
            };
            let body = format!("{{\"status\":\"success\",\"data\":{content}{warnings}}}");
            ([(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        Err(Refused::Wrong(message)) => answer::bad_request(&message),
        Err(Refused::Evaluation(error)) => {
            let (status, kind) = match error {
                QueryError::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "timeout"),
                QueryError::Evaluation(_) | QueryError::TooMany => (StatusCode::UNPROCESSABLE_ENTITY, "execution"),
            };
            answer::failure(status, kind, &error.to_string())
        }
        Err(Refused::Internal(message)) => answer::internal(&message),
    }
}

fn now_ms() -> i64 {
    i64::try_from(clock::wall_ns() / 1_000_000).unwrap_or(i64::MAX)
}

/// Lends the store; the time of its oldest sample.
fn read(api: &Api, with: &mut dyn FnMut(&dyn Query)) -> Option<i64> {
    let mut oldest_ms = None;
    api.pages.samples(&mut |samples, since_ms| {
        oldest_ms = since_ms;
        with(samples);
    });
    oldest_ms
}

/// Says so when the expression looks back beyond the oldest sample: a rate over less than was asked for is no failure.
fn begins_later(mut found: Found, expr: &Expr, from_ms: i64, oldest_ms: Option<i64>) -> Found {
    let from_ms = from_ms.saturating_sub(expr.reach_ms());
    if let Some(oldest_ms) = oldest_ms.filter(|oldest_ms| from_ms < *oldest_ms && !expr.selectors().is_empty()) {
        let since = jiff::Timestamp::from_millisecond(oldest_ms)
            .map_or_else(|_| oldest_ms.to_string(), |time| time.to_string());
        found.warnings.push(format!("samples are kept in memory; the oldest is of {since}"));
    }
    found
}

fn expression(parameters: &Parameters) -> Result<Expr, Refused> {
    parse("query", parameters.get("query").unwrap_or_default())
}

fn parse(parameter: &str, text: &str) -> Result<Expr, Refused> {
    promql::parse(text).map_err(|error| {
        let (line, column, message) = (error.line, error.column, error.message);
        Refused::Wrong(format!("invalid parameter {parameter:?}: {line}:{column}: parse error: {message}"))
    })
}

/// `match[]`, each a selector.
fn selectors(parameters: &Parameters) -> Result<Vec<Expr>, Refused> {
    let parsed = parameters.all("match[]").map(|text| {
        let expr = parse("match[]", text)?;
        if expr.as_selector().is_none() {
            return Err(format!("invalid parameter \"match[]\": {text:?} is not a selector of series").into());
        }
        Ok(expr)
    });
    parsed.collect()
}

/// Label sets of the series that one of the selectors chooses, of all when there is none, with a sample in the time asked for.
fn label_sets(api: &Api, selectors: &[Expr], parameters: &Parameters) -> Result<BTreeSet<Labels>, Refused> {
    let after_ms = parameters.time("start")?.map_or(i64::MIN, |start| start.saturating_sub(1));
    let until_ms = parameters.time("end")?.unwrap_or(i64::MAX);
    let mut sets = BTreeSet::new();
    let chosen: Vec<&[Matcher]> = match selectors {
        [] => vec![&[]],
        some => some.iter().filter_map(Expr::as_selector).collect(),
    };
    read(api, &mut |samples| {
        for matchers in &chosen {
            samples.select(matchers, after_ms, until_ms, &mut |labels, _| _ = sets.insert(labels.clone()));
        }
    });
    Ok(sets)
}

fn some(texts: &BTreeSet<&str>, parameters: &Parameters) -> Result<Found, Refused> {
    let limit = parameters.limit("limit")?;
    Ok(Found::new(query_json::texts(texts.iter().copied().take(limit))).cut(texts.len() > limit))
}
