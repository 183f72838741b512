//! A scripted exchange of bytes over one loopback connection: who says what, in pieces of which size.
//!
//! The test describes it; the test client plays it, both ends in one process, each piece read by the other
//! end before the next is written. So the order and the cuts are exact, and nothing can dead-lock.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Say {
        /// Otherwise the client.
        server: bool,
        bytes: Vec<u8>,
        /// Bytes per write.
        piece: usize,
    },
    /// One end closes its socket.
    Close { server: bool },
}

/// Piece in which things are said unless told otherwise.
const PIECE: usize = 16 * 1024;

pub fn client(bytes: impl Into<Vec<u8>>) -> Step {
    Step::Say { server: false, bytes: bytes.into(), piece: PIECE }
}

pub fn server(bytes: impl Into<Vec<u8>>) -> Step {
    Step::Say { server: true, bytes: bytes.into(), piece: PIECE }
}

pub const fn client_closes() -> Step {
    Step::Close { server: false }
}

pub const fn server_closes() -> Step {
    Step::Close { server: true }
}

impl Step {
    /// In pieces of `piece` bytes.
    #[must_use]
    pub fn by(self, size: usize) -> Self {
        match self {
            Self::Say { server, bytes, .. } => Self::Say { server, bytes, piece: size.max(1) },
            close @ Self::Close { .. } => close,
        }
    }
}

/// For the test client's standard input.
pub fn to_json(steps: &[Step]) -> String {
    let steps = steps.iter().map(|step| match step {
        Step::Say { server, bytes, piece } => json!({ "server": server, "bytes": bytes, "piece": piece }),
        Step::Close { server } => json!({ "server": server }),
    });
    Value::Array(steps.collect()).to_string()
}

pub fn from_json(text: &str) -> Result<Vec<Step>> {
    let Value::Array(steps) = serde_json::from_str(text)? else { bail!("not a list") };
    steps.iter().map(step).collect()
}

fn step(value: &Value) -> Result<Step> {
    let server = value.get("server").and_then(Value::as_bool).context("server")?;
    let Some(bytes) = value.get("bytes") else { return Ok(Step::Close { server }) };
    let piece = value.get("piece").and_then(Value::as_u64).context("piece")?.try_into()?;
    Ok(Step::Say { server, bytes: serde_json::from_value(bytes.clone())?, piece })
}
