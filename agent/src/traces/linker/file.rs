//! The span file: one JSON object a line, and the links of the spans in it.
//!
//! In: text as in `docs/span-file.md`; out: an answer for each span, in the file's order. Processes are linked as the agent
//! does it, in windows of [`WINDOW_NS`] or [`WINDOW_SPANS`]; server spans to the client spans on the same connection by its
//! addresses and the place of the request. Missing fields mean that nothing is known; unknown ones are handed back. A
//! line that is no span is an error with its number.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use crate::model::context::Form;
use crate::model::handover::How;
use crate::traces::handovers::Step;

use super::allowance::Allowance;
use super::facts::{self, Facts, InBandId, OPEN, Origin, Strength};
use super::window::Process;
use super::{CONNECTION, Limits};
use crate::traces::tasks::Ancestor;

/// A window of the file.
const WINDOW_NS: u64 = 10_000_000_000;
const WINDOW_SPANS: usize = 8_192;
/// Texts of a span in which tokens are looked for.
const TEXTS: [&str; 5] = ["path", "target", "url", "query", "body"];

#[derive(Clone, Debug)]
pub struct Span {
    pub id: String,
    pub is_server: bool,
    pub host: String,
    pub tgid: u32,
    pub facts: Facts,
    /// This end's address and the other's.
    pub connection: Option<(String, String)>,
    pub request_position: Option<u64>,
    pub response_position: Option<u64>,
    /// What the line had beside.
    pub extra: Map<String, Value>,
}

/// What is said of a span.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub id: String,
    pub parent: Option<String>,
    pub method: Option<&'static str>,
    pub confidence: f64,
    /// Why there is no parent.
    pub reason: Option<&'static str>,
    pub extra: Map<String, Value>,
}

impl Answer {
    /// As a line.
    pub fn json(&self) -> String {
        let mut line = json!({
            "id": self.id, "parent": self.parent, "method": self.method,
            "confidence": (self.confidence * 1e4).round() / 1e4,
        });
        if let Some(object) = line.as_object_mut() {
            if let Some(reason) = self.reason {
                object.insert("reason".to_owned(), json!(reason));
            }
            for (key, value) in &self.extra {
                if !object.contains_key(key) {
                    object.insert(key.clone(), value.clone());
                }
            }
        }
        line.to_string()
    }
}

/// Every span of a text; the error names the line.
pub fn parse(text: &str) -> Result<Vec<Span>, (usize, String)> {
    let mut spans = Vec::new();
    let mut lines: HashMap<String, usize> = HashMap::new();
    for (number, line) in text.lines().enumerate().map(|(number, line)| (number + 1, line.trim())) {
        if line.is_empty() {
            continue;
        }
        let span = span(line).map_err(|message| (number, message))?;
        if let Some(first) = lines.insert(span.id.clone(), number) {
            return Err((number, format!("id: '{}' is the id of line {first} too", span.id)));
        }
        spans.push(span);
    }
    Ok(spans)
}

fn span(line: &str) -> Result<Span, String> {
    let value: Value = serde_json::from_str(line).map_err(|error| {
        let text = error.to_string();
        format!("not JSON: {}", text.split(" at line").next().unwrap_or(&text))
    })?;
    let Value::Object(mut fields) = value else { return Err("not a JSON object".to_owned()) };
    let id = match fields.remove("id") {
        Some(Value::String(id)) => id,
        Some(Value::Number(id)) => id.to_string(),
        Some(_) => return Err("id: not text".to_owned()),
        None => return Err("id: missing".to_owned()),
    };
    let is_server = match text(&mut fields, "kind")?.as_deref() {
        Some("server") => true,
        Some("client") => false,
        Some(other) => return Err(format!("kind: '{other}' is neither server nor client")),
        None => return Err("kind: missing".to_owned()),
    };
    let start_ns = number(&mut fields, "start_ns")?.ok_or("start_ns: missing")?;
    let end_ns = number(&mut fields, "end_ns")?;
    if end_ns.is_some_and(|end_ns| end_ns < start_ns) {
        return Err("end_ns: before start_ns".to_owned());
    }
    let (task_began, task_ended) = (task(&mut fields, "task")?, task(&mut fields, "end_task")?);
    let asker = ancestors(&mut fields, "task_woken")?.unwrap_or_default();
    let (ancestors, wakers) =
        (ancestors(&mut fields, "ancestors")?.unwrap_or_default(), ancestors(&mut fields, "task_wakers")?);
    let operation = text(&mut fields, "operation")?.unwrap_or_default();
    let mut tokens = Vec::new();
    facts::tokens(&operation, &mut tokens);
    for key in TEXTS {
        if let Some(Value::String(text)) = fields.get(key) {
            facts::tokens(text, &mut tokens);
        }
    }
    if let Some(Value::Object(attributes)) = fields.get("attributes") {
        attributes.values().filter_map(Value::as_str).for_each(|text| facts::tokens(text, &mut tokens));
    }
    let (connection, socket) = connection(&mut fields)?;
    let mut ids = Vec::new();
    context(fields.remove("context").unwrap_or_default(), &mut ids)?;
    let origin = origin(&mut fields, start_ns)?;
    let facts = Facts {
        tid: small(&mut fields, "tid")?,
        end_tid: small(&mut fields, "end_tid")?,
        task: task_began,
        end_task: task_ended,
        ancestors,
        wakers,
        asker,
        drives: fields.remove("drives").as_ref().and_then(Value::as_bool).unwrap_or_default(),
        start_ns,
        end_ns: end_ns.unwrap_or(OPEN),
        operation: facts::hash(operation.as_bytes()),
        socket,
        ids,
        tokens,
        origin,
    };
    Ok(Span {
        id,
        is_server,
        host: text(&mut fields, "host")?.unwrap_or_default(),
        tgid: small(&mut fields, "tgid")?,
        facts,
        connection,
        request_position: number(&mut fields, "request_position")?,
        response_position: number(&mut fields, "response_position")?,
        extra: fields,
    })
}

fn small(fields: &mut Map<String, Value>, key: &str) -> Result<u32, String> {
    let found = number(fields, key)?.unwrap_or_default();
    u32::try_from(found).map_err(|_| format!("{key}: {found} is not a thread or process id"))
}

/// Other threads; one whose time is not said did it when the span began.
fn origin(fields: &mut Map<String, Value>, start_ns: u64) -> Result<Origin, String> {
    let mut one = |tid: &str, ns: &str, how: How| -> Result<Option<Step>, String> {
        let (tid, at_ns) = (small(fields, tid)?, number(fields, ns)?.unwrap_or(start_ns));
        Ok((tid != 0).then_some(Step { tid, at_ns, how, distance: 1 }))
    };
    let made = one("parent_tid", "born_ns", How::Made)?;
    let connected = one("connect_tid", "connect_ns", How::Made)?;
    let woken = one("waker_tid", "woken_ns", How::Woke)?;
    let mut before: Vec<Step> = woken.or(made).into_iter().collect();
    before.extend(steps(fields.remove("wakers").unwrap_or_default(), "wakers", before.len())?);
    let after = steps(fields.remove("woken").unwrap_or_default(), "woken", 0)?;
    Ok(Origin { before, connected: connected.into_iter().collect(), after })
}

/// A list of threads, each a hand-over further away than the one before unless it says how far.
fn steps(value: Value, key: &str, known: usize) -> Result<Vec<Step>, String> {
    let steps = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(steps) => steps,
        _ => return Err(format!("{key}: not a list")),
    };
    let step = |(place, step): (usize, Value)| {
        let Value::Object(mut fields) = step else { return Err(format!("{key}: not a list of objects")) };
        let within = |message: String| format!("{key}: {message}");
        let tid = small(&mut fields, "tid").map_err(within)?;
        let at_ns = number(&mut fields, "at_ns").map_err(within)?.ok_or_else(|| format!("{key}: at_ns: missing"))?;
        let distance = number(&mut fields, "distance").map_err(within)?.unwrap_or((known + place + 1) as u64);
        let how = if fields.get("made").and_then(Value::as_bool).unwrap_or_default() { How::Made } else { How::Woke };
        Ok(Step { tid, at_ns, how, distance: u8::try_from(distance).unwrap_or(u8::MAX) })
    };
    steps.into_iter().enumerate().map(step).collect()
}

/// A name or a number; only whether two are the same matters.
fn task(fields: &mut Map<String, Value>, key: &str) -> Result<Option<u64>, String> {
    match fields.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(task)) => Ok(Some(facts::hash(task.as_bytes()))),
        Some(Value::Number(task)) => Ok(Some(facts::hash(task.to_string().as_bytes()))),
        Some(_) => Err(format!("{key}: neither text nor a number")),
    }
}

fn ancestors(fields: &mut Map<String, Value>, key: &str) -> Result<Option<Vec<Ancestor>>, String> {
    let steps = match fields.remove(key) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(steps)) => steps,
        Some(_) => return Err(format!("{key}: not a list")),
    };
    let step = |step: Value| {
        let Value::Object(mut fields) = step else { return Err(format!("{key}: not a list of objects")) };
        let within = |message: String| format!("{key}: {message}");
        let name = task(&mut fields, "task").map_err(within)?.ok_or_else(|| format!("{key}: task: missing"))?;
        let born_ns = number(&mut fields, "born_ns").map_err(within)?;
        Ok(Ancestor { task: name, born_ns: born_ns.ok_or_else(|| format!("{key}: born_ns: missing"))? })
    };
    steps.into_iter().map(step).collect::<Result<_, _>>().map(Some)
}

fn text(fields: &mut Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match fields.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{key}: not text")),
    }
}

/// A number, or text that is one: not every writer trusts JSON with 64 bits.
fn number(fields: &mut Map<String, Value>, key: &str) -> Result<Option<u64>, String> {
    match fields.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(format!("{key}: '{text}' is not a number")),
        },
        Some(value) => match value.as_u64() {
            Some(number) => Ok(Some(number)),
            None => Err(format!("{key}: {value} is not a whole number of 0 or more")),
        },
    }
}

type Ends = Option<(String, String)>;

fn connection(fields: &mut Map<String, Value>) -> Result<(Ends, u64), String> {
    let mut fields = match fields.remove("connection") {
        None | Some(Value::Null) => return Ok((None, 0)),
        Some(Value::Object(fields)) => fields,
        Some(_) => return Err("connection: not an object".to_owned()),
    };
    let within = |message: String| format!("connection.{message}");
    let (local, peer) = (text(&mut fields, "local").map_err(within)?, text(&mut fields, "peer").map_err(within)?);
    let socket = match fields.remove("cookie") {
        None | Some(Value::Null) => 0,
        Some(Value::String(cookie)) => facts::hash(cookie.as_bytes()),
        Some(cookie) => facts::hash(cookie.to_string().as_bytes()),
    };
    let ends = local.zip(peer);
    // One end is as good a name as any where there is no cookie.
    let named = ends.as_ref().map_or(0, |(local, peer)| facts::hash(format!("{local} {peer}").as_bytes()));
    Ok((ends, if socket == 0 { named } else { socket }))
}

/// Ids as they come: a header's text, several of them, or an object of names and ids.
fn context(value: Value, ids: &mut Vec<InBandId>) -> Result<(), String> {
    match value {
        Value::Null => {}
        Value::String(text) => named(&mut Map::new(), "", &text, ids),
        Value::Array(values) => values.into_iter().try_for_each(|value| context(value, ids))?,
        Value::Object(fields) => {
            for (key, value) in &fields {
                match value {
                    Value::Null | Value::Bool(_) => {}
                    Value::String(text) => named(&mut fields.clone(), key, text, ids),
                    Value::Number(number) => named(&mut fields.clone(), key, &number.to_string(), ids),
                    _ => return Err(format!("context.{key}: not an id")),
                }
            }
        }
        other => return Err(format!("context: {other} is not an id")),
    }
    ids.sort_unstable();
    ids.dedup();
    ids.truncate(MAX_IDS);
    Ok(())
}

const MAX_IDS: usize = 8;

/// One id by its name. A `traceparent` is two: its trace, and trace and span together.
fn named(all: &mut Map<String, Value>, key: &str, text: &str, ids: &mut Vec<InBandId>) {
    let plain = text.trim().to_ascii_lowercase();
    let digits = || plain.bytes().filter(u8::is_ascii_alphanumeric);
    if plain.is_empty() || digits().all(|digit| digit == b'0') {
        return;
    }
    let id = |strength, text: &str| InBandId { strength, hash: facts::hash(text.as_bytes()) };
    let parts: Vec<&str> = plain.split('-').collect();
    if let [version, trace, span, _flags] = parts.as_slice()
        && (version.len(), trace.len(), span.len()) == (2, 32, 16)
    {
        if trace.bytes().all(|digit| digit == b'0') {
            return;
        }
        ids.push(id(Strength::Trace, trace));
        ids.push(id(Strength::Span, &format!("{trace}{span}")));
        return;
    }
    let key: String = key.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    match key.as_str() {
        "sampled" | "flags" | "kind" | "form" | "traceflags" | "tracestate" => {}
        // Alone it names a span of any trace.
        "spanid" | "parentid" | "parentspanid" | "span" => {
            let trace =
                ["trace_id", "traceId", "trace"].into_iter().find_map(|key| all.get(key).and_then(Value::as_str));
            if let Some(trace) = trace {
                ids.push(id(Strength::Span, &format!("{}{plain}", trace.to_ascii_lowercase())));
            }
        }
        "traceid" | "trace" => ids.push(id(Strength::Trace, &plain)),
        _ => ids.push(InBandId {
            strength: Strength::Request,
            hash: facts::hash(plain.as_bytes()) ^ Form::RequestId as u64,
        }),
    }
}

/// An answer for each span.
pub fn link(spans: &[Span], limits: Limits) -> Vec<Answer> {
    let mut answers: Vec<Answer> = spans
        .iter()
        .map(|span| Answer {
            id: span.id.clone(),
            parent: None,
            method: None,
            confidence: 0.0,
            reason: Some(if span.is_server { "no_client" } else { "none_open" }),
            extra: span.extra.clone(),
        })
        .collect();
    let mut say = |place: usize, parent: usize, method: &'static str, confidence: f64| {
        if let (Some(answer), Some(parent)) = (answers.get_mut(place), spans.get(parent)) {
            answer.parent = Some(parent.id.clone());
            (answer.method, answer.confidence, answer.reason) = (Some(method), confidence, None);
        }
    };
    for (server, client) in connections(spans) {
        say(server, client, CONNECTION, 1.0);
    }
    let mut reasons = Vec::new();
    let mut processes: BTreeMap<(&str, u32), Vec<usize>> = BTreeMap::new();
    for (place, span) in spans.iter().enumerate() {
        processes.entry((&span.host, span.tgid)).or_default().push(place);
    }
    for places in processes.into_values() {
        for (place, parent) in process(spans, places, limits) {
            match parent {
                Ok((parent, method, confidence)) => say(place, parent, method, confidence),
                Err(missed) => reasons.push((place, missed.name())),
            }
        }
    }
    for (place, reason) in reasons {
        if let Some(answer) = answers.get_mut(place) {
            answer.reason = Some(reason);
        }
    }
    answers
}

type Found = (usize, Result<(usize, &'static str, f64), super::Missed>);

/// The links inside one process.
fn process(spans: &[Span], mut places: Vec<usize>, limits: Limits) -> Vec<Found> {
    let of = |place: &usize| spans.get(*place);
    places.sort_unstable_by(|one, other| {
        let key = |place| of(place).map(|span| (span.facts.start_ns, span.facts.end_ns, &span.id));
        key(one).cmp(&key(other))
    });
    // In the order of time, so that what is equal in time keeps the order of ids.
    let in_order: Vec<&Span> = places.iter().filter_map(of).collect();
    let mut process: Process<usize> = Process::default();
    let mut allowance = Allowance::default();
    let mut found = Vec::new();
    let mut still_open: Vec<usize> = Vec::new();
    let mut first = 0;
    while first < in_order.len() {
        let from_ns = in_order.get(first).map_or(0, |span| span.facts.start_ns);
        let until_ns = from_ns.saturating_add(WINDOW_NS);
        let rest = in_order.get(first..).unwrap_or_default();
        let count = rest.iter().take(WINDOW_SPANS).take_while(|span| span.facts.start_ns < until_ns).count().max(1);
        let last = first + count;
        let until_ns = in_order.get(last).map_or(u64::MAX, |span| span.facts.start_ns);
        let now =
            in_order.get(first..last).unwrap_or_default().iter().enumerate().map(|(at, span)| (first + at, *span));
        let old: Vec<usize> = std::mem::take(&mut still_open);
        let again = old.into_iter().filter_map(|place| Some((place, *in_order.get(place)?)));
        for (place, span) in again.chain(now) {
            let mut facts = span.facts.clone();
            if !span.is_server {
                process.send(place, facts);
                continue;
            }
            if facts.end_ns >= until_ns && until_ns != u64::MAX {
                facts.end_ns = OPEN;
                still_open.push(place);
            }
            process.serve(place, facts);
        }
        let patience_ns = if until_ns == u64::MAX { u64::MAX } else { 0 };
        let newest_ns = in_order.get(last - 1).map_or(0, |span| span.facts.start_ns);
        let limits = Limits { pairs: allowance.at(newest_ns).min(limits.pairs), ..limits };
        let before = process.model().weighed;
        found.extend(process.run(limits, until_ns, patience_ns));
        allowance.spend(process.model().weighed - before);
        first = last;
    }
    let name = |place: usize| places.get(place).copied().unwrap_or_default();
    found
        .into_iter()
        .map(|decision| {
            let parent = decision.parent.map(|(parent, method, confidence)| (name(parent), method, confidence));
            (name(decision.span), parent)
        })
        .collect()
}

/// Server spans with the client spans at the other ends of their connections.
fn connections(spans: &[Span]) -> Vec<(usize, usize)> {
    let mut clients: HashMap<(&str, &str, Option<u64>), Vec<usize>> = HashMap::new();
    for (place, span) in spans.iter().enumerate().filter(|(_, span)| !span.is_server) {
        if let Some((local, peer)) = &span.connection {
            clients.entry((local, peer, span.request_position)).or_default().push(place);
        }
    }
    let mut found: HashMap<usize, Vec<usize>> = HashMap::new();
    for (place, span) in spans.iter().enumerate().filter(|(_, span)| span.is_server) {
        let Some((local, peer)) = &span.connection else { continue };
        let Some(others) = clients.get(&(peer.as_str(), local.as_str(), span.request_position)) else { continue };
        let mut fitting =
            others.iter().copied().filter(|other| spans.get(*other).is_some_and(|other| fits(other, span)));
        if let (Some(client), None) = (fitting.next(), fitting.next()) {
            found.entry(client).or_default().push(place);
        }
    }
    // One request is served once.
    let mut pairs: Vec<(usize, usize)> = found
        .into_iter()
        .filter_map(|(client, servers)| Some((servers.first().copied().filter(|_| servers.len() == 1)?, client)))
        .collect();
    pairs.sort_unstable();
    pairs
}

/// Whether two spans can be both ends of one exchange.
fn fits(client: &Span, server: &Span) -> bool {
    let answers = match (client.response_position, server.response_position) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    };
    // Clocks of two hosts say nothing about each other.
    let times = client.host != server.host
        || (client.facts.start_ns <= server.facts.end_ns && server.facts.start_ns <= client.facts.end_ns);
    answers && times
}
