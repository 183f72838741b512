//! As much HTTP/1.1 as the demo's services and their caller need: heads, and bodies with a Content-Length.
//!
//! Small on purpose and only ever talks to the demo's own peers on loopback; a message above 16 MiB is refused.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

const LONGEST_BODY: u64 = 16 << 20;
const PATIENCE: Duration = Duration::from_secs(5);

/// A response as its caller sees it.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) text: String,
}

/// A kept-alive connection, either side of it.
pub(super) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub(super) fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        Self::over(stream)
    }

    pub(super) fn over(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a request and reads its response.
    pub(super) fn get(&mut self, path: &str) -> Result<Answer> {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain\r\n\r\n"))?;
        let head = self.head()?.context("the server closed the connection")?;
        let status = head.first.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.with_context(|| format!("no HTTP response: '{}'", head.first))?;
        let mut body = Vec::new();
        match head.content_length {
            Some(length) if length > LONGEST_BODY => bail!("a response of {length} bytes"),
            Some(length) => (&mut self.stream).take(length).read_to_end(&mut body)?,
            None => (&mut self.stream).take(LONGEST_BODY).read_to_end(&mut body)?,
        };
        Ok(Answer { status, text: String::from_utf8_lossy(&body).into_owned() })
    }

    /// The path of the next request (which has no body), or nothing when the client is done.
    pub(super) fn request(&mut self) -> Result<Option<String>> {
        let Some(head) = self.head()? else { return Ok(None) };
        let path = head.first.split(' ').nth(1).with_context(|| format!("no HTTP request: '{}'", head.first))?;
        Ok(Some(path.to_owned()))
    }

    pub(super) fn respond(&mut self, status: u16, text: &str) -> Result<()> {
        let reason = match status {
            200 => "OK",
            404 => "Not Found",
            _ => "Internal Server Error",
        };
        let length = text.len();
        self.send(&format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{text}"
        ))
    }

    fn send(&mut self, message: &str) -> Result<()> {
        self.stream.get_mut().write_all(message.as_bytes()).context("cannot send")
    }

    fn head(&mut self) -> Result<Option<Head>> {
        let mut head = Head { first: String::new(), content_length: None };
        if self.stream.read_line(&mut head.first)? == 0 {
            return Ok(None);
        }
        head.first.truncate(head.first.trim_end().len());
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                bail!("the connection ended within a head");
            }
            let Some((name, value)) = line.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                head.content_length = Some(value.trim().parse().context("a Content-Length that is no number")?);
            }
        }
        Ok(Some(head))
    }
}

struct Head {
    first: String,
    content_length: Option<u64>,
}

/// One request on a connection of its own; `url` is `http://HOST:PORT`.
pub(super) fn get(url: &str, path: &str) -> Result<Answer> {
    Connection::open(url.trim_start_matches("http://"))?.get(path)
}

/// A port of loopback that is free now.
pub(super) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").context("cannot listen on 127.0.0.1")?.local_addr()?.port())
}
