//! Asks a running agent over HTTP. Only `http://`: the agent listens on loopback, there is no TLS in it.

use std::future::Future;
use std::io::{self, BufRead, BufReader, Read};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::{Buf as _, Bytes};
use clap::Args;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::AGENT_VARIABLE;

/// For a connection, for an answer to begin, and for its next bytes unless it is one that waits for events.
const PATIENCE: Duration = Duration::from_secs(15);
/// Longest error message that is read.
const MAX_ERROR_BYTES: u64 = 64 << 10;

#[derive(Debug, Args)]
pub struct AgentArguments {
    /// The agent's address.
    #[arg(long, value_name = "URL", env = AGENT_VARIABLE, default_value = "http://127.0.0.1:9464", value_parser = base)]
    pub agent: String,
}

fn base(text: &str) -> Result<String, String> {
    match text.strip_prefix("http://") {
        Some(rest) if !rest.trim_matches('/').is_empty() => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err("not an address such as http://127.0.0.1:9464 (only http:// is spoken)".to_owned()),
    }
}

impl AgentArguments {
    /// One JSON answer.
    pub fn json<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let answer = self.ask(path, &[], Some(PATIENCE), None)?;
        serde_json::from_reader(answer).with_context(|| format!("{}{path}: not what an agent answers", self.agent))
    }

    /// Sends a JSON value in place of what is there; the JSON answer.
    pub fn put<T: DeserializeOwned>(&self, path: &str, value: &serde_json::Value) -> anyhow::Result<T> {
        let answer = self.ask(path, &[], Some(PATIENCE), Some(value.to_string()))?;
        serde_json::from_reader(answer).with_context(|| format!("{}{path}: not what an agent answers", self.agent))
    }

    /// The lines of an answer as they come; with `endless`, however long the next one takes.
    pub fn lines(
        &self,
        path: &str,
        parameters: &[(&str, String)],
        endless: bool,
    ) -> anyhow::Result<impl BufRead + use<>> {
        self.ask(path, parameters, (!endless).then_some(PATIENCE), None)
    }

    fn ask(
        &self,
        path: &str,
        parameters: &[(&str, String)],
        patience: Option<Duration>,
        replacement: Option<String>,
    ) -> anyhow::Result<BufReader<Answer>> {
        let pairs: Vec<_> = parameters.iter().map(|(key, value)| format!("{key}={}", encode(value))).collect();
        let joint = if pairs.is_empty() { "" } else { "?" };
        let url = format!("{}{path}{joint}{}", self.agent, pairs.join("&"));
        let uri: Uri = url.parse().with_context(|| url.clone())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answer = runtime.block_on(async { within(Some(PATIENCE), send(&uri, replacement)).await });
        let (status, body) = match answer.map_err(anyhow::Error::from).and_then(|answer| answer) {
            Ok(answer) => answer,
            Err(error) if refused(&error) => {
                bail!("no agent listens at {} (start one with: seismo run)", self.agent)
            }
            Err(error) => return Err(error.context(url)),
        };
        let mut answer = BufReader::new(Answer { runtime, body, patience, block: Bytes::new() });
        if status == StatusCode::OK {
            return Ok(answer);
        }
        let told: Option<serde_json::Value> = serde_json::from_reader(answer.by_ref().take(MAX_ERROR_BYTES)).ok();
        match told.as_ref().and_then(|body| body["error"].as_str()) {
            Some(message) => Err(Refused { status, message: format!("{url}: {message}") }.into()),
            None => bail!("{url}: answered {status}"),
        }
    }
}

/// What the agent answered to a request that it did not serve.
#[derive(Debug)]
pub struct Refused {
    status: StatusCode,
    message: String,
}

impl Refused {
    /// What was asked for is wrong, as the command line may be.
    pub fn is_wrong_usage(&self) -> bool {
        matches!(self.status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND)
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.message)
    }
}

impl std::error::Error for Refused {}

fn refused(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

async fn within<T>(patience: Option<Duration>, work: impl Future<Output = T>) -> io::Result<T> {
    match patience {
        Some(patience) => {
            tokio::time::timeout(patience, work).await.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer"))
        }
        None => Ok(work.await),
    }
}

/// Sends the request, which replaces something or else gets it, and reads the head of the answer.
async fn send(uri: &Uri, replacement: Option<String>) -> anyhow::Result<(StatusCode, Incoming)> {
    let authority = uri.authority().ok_or_else(|| anyhow!("no host"))?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Its failure shows in the answer too.
    tokio::spawn(connection);
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let request = match &replacement {
        Some(_) => Request::put(target).header(header::CONTENT_TYPE, "application/json"),
        None => Request::get(target),
    };
    let body = Full::new(Bytes::from(replacement.unwrap_or_default()));
    let request = request.header(header::HOST, authority.as_str()).body(body)?;
    let answer = sender.send_request(request).await?;
    Ok((answer.status(), answer.into_body()))
}

/// The body of an answer, read as it comes; the connection lives in its own small runtime.
struct Answer {
    runtime: Runtime,
    body: Incoming,
    patience: Option<Duration>,
    /// Received and not read yet.
    block: Bytes,
}

impl Read for Answer {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.block.is_empty() {
            let next = self.runtime.block_on(within(self.patience, self.body.frame()))?;
            match next {
                Some(frame) => self.block = frame.map_err(io::Error::other)?.into_data().unwrap_or_default(),
                None => return Ok(0),
            }
        }
        let count = into.len().min(self.block.len());
        self.block.split_to(count).copy_to_slice(&mut into[..count]);
        Ok(count)
    }
}

/// Percent-encodes a query value.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{base, encode};

    #[test]
    fn only_plain_http_addresses_are_accepted() {
        assert_eq!(base("http://[::1]:9464/"), Ok("http://[::1]:9464".to_owned()));
        for wrong in ["https://x", "127.0.0.1:9464", "http://", "http:///", ""] {
            assert!(base(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn query_values_keep_their_meaning() {
        assert_eq!(encode("GET /ü?a=b&c"), "GET%20%2F%C3%BC%3Fa%3Db%26c");
    }
}
