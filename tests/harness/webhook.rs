//! A receiver of alert notifications: answers 200 and keeps every body with the time it came.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

/// Longest wait for the rest of a request.
const LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Webhook {
    pub port: u16,
    bodies: Arc<Mutex<Vec<(Instant, Value)>>>,
}

impl Webhook {
    /// Listens until the test's process ends; the thread only ever waits for connections.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&bodies);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                match receive(stream) {
                    Ok(body) => kept.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), body)),
                    Err(error) => eprintln!("webhook: {error:#}"),
                }
            }
        });
        Ok(Self { port, bodies })
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/alerts", self.port)
    }

    /// Bodies so far, in order.
    pub fn bodies(&self) -> Vec<(Instant, Value)> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Statuses of all alerts called `name`, in the order of their notifications.
    pub fn statuses(&self, name: &str) -> Vec<String> {
        let bodies = self.bodies();
        let alerts = bodies.iter().flat_map(|(_, body)| match body.get("alerts") {
            Some(Value::Array(alerts)) => alerts.clone(),
            _ => Vec::new(),
        });
        alerts
            .filter(|alert| alert.pointer("/labels/alertname").and_then(Value::as_str) == Some(name))
            .map(|alert| alert.get("status").and_then(Value::as_str).unwrap_or("(none)").to_owned())
            .collect()
    }
}

fn receive(stream: TcpStream) -> Result<Value> {
    stream.set_read_timeout(Some(LIMIT))?;
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        anyhow::ensure!(reader.read_line(&mut line)? > 0, "ended in the head");
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().context("content-length")?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    reader.into_inner().write_all(answer)?;
    serde_json::from_slice(&body).context("not JSON")
}
