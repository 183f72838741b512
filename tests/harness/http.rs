//! The harness's own HTTP client: one request a connection, HTTP/1.0, so that bodies end where the connection does.
//!
//! It runs in the test's process, which is outside every scope: the agent must not see what it sends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Response {
    /// The body of a successful answer.
    pub fn ok(self) -> Result<String> {
        if self.status != 200 {
            bail!("status {}: {}", self.status, self.body);
        }
        Ok(self.body)
    }

    pub fn json(self) -> Result<Value> {
        let body = self.ok()?;
        serde_json::from_str(&body).with_context(|| format!("not JSON: {body}"))
    }
}

pub fn get(port: u16, path: &str) -> Result<Response> {
    get_as(port, path, "*/*")
}

/// Gets `path` and asks for a content type.
pub fn get_as(port: u16, path: &str, accept: &str) -> Result<Response> {
    send(port, path, &format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nAccept: {accept}\r\n\r\n"))
}

fn send(port: u16, path: &str, request: &str) -> Result<Response> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).with_context(|| path.to_owned())?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("{path}: no end of head"))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status")?;
    Ok(Response { status, head: head.to_owned(), body: body.to_owned() })
}

/// Replaces what is at `path` by `body`.
pub fn put(port: u16, path: &str, body: &str) -> Result<Response> {
    send(port, path, &format!("PUT {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

/// Does anything listen at this port? Asks no question: a request would be one more for both sides to count.
pub fn listens(port: u16) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), LIMIT).is_ok()
}

/// Percent-encodes a query parameter.
pub fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
