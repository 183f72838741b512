//! What both Rust applications of the accuracy lab share: what the environment tells them, how long to think, and the
//! bytes of their requests to Redis and PostgreSQL.

use std::env;
use std::time::Duration;

use anyhow::{Context, Result};

/// Which service a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// S1: calls the others.
    Front,
    /// S2: gives Redis two commands.
    Cache,
    /// S3: asks PostgreSQL once and Redis once.
    Store,
}

#[derive(Clone, Debug)]
pub struct Order {
    pub role: Role,
    pub port: u16,
    pub upstreams: Vec<u16>,
    pub redis: u16,
    pub postgresql: u16,
    pub seed: u32,
    pub think_us: u32,
    pub parallel: bool,
    pub workers: usize,
}

impl Order {
    /// As the lab puts it into the environment, `LAB_…`.
    pub fn read() -> Result<Self> {
        let said = |name: &str| env::var(name).with_context(|| format!("{name} is not set"));
        let upstreams = said("LAB_UPSTREAMS")?;
        Ok(Self {
            role: match said("LAB_ROLE")?.as_str() {
                "s1" => Role::Front,
                "s2" => Role::Cache,
                _ => Role::Store,
            },
            port: said("LAB_PORT")?.parse()?,
            upstreams: upstreams.split(',').map(str::parse).collect::<Result<_, _>>()?,
            redis: said("LAB_REDIS")?.parse()?,
            postgresql: said("LAB_POSTGRESQL")?.parse()?,
            seed: said("LAB_SEED")?.parse()?,
            think_us: said("LAB_THINK_US")?.parse()?,
            parallel: said("LAB_PARALLEL")? == "1",
            workers: said("LAB_WORKERS")?.parse()?,
        })
    }

    /// How long to think: FNV-1a of seed, place and step, so that all languages think alike.
    pub fn think(&self, place: &str, step: usize) -> Duration {
        let text = format!("{}/{place}/{step}", self.seed);
        let number =
            text.bytes().fold(2_166_136_261_u32, |number, byte| (number ^ u32::from(byte)).wrapping_mul(16_777_619));
        Duration::from_micros((number % (self.think_us + 1)).into())
    }
}

/// A place as a Redis key.
pub fn key(place: &str, call: usize) -> String {
    format!("lab:{}:{call}", place.replace('/', ":"))
}

/// A place as the name of a column.
pub fn column(place: &str, call: usize) -> String {
    format!("lab_{}_{call}", place.replace('/', "_"))
}

/// A command of Redis.
pub fn command(words: &[&str]) -> Vec<u8> {
    let parts: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    format!("*{}\r\n{parts}", words.len()).into_bytes()
}

/// The first message to PostgreSQL.
pub fn startup() -> Vec<u8> {
    message(None, b"\0\x03\0\0user\0lab\0database\0postgres\0\0")
}

/// An extended query without parameters: Parse, Bind, Describe, Execute, Sync.
pub fn query(statement: &str) -> Vec<u8> {
    let parse = [b"\0", statement.as_bytes(), b"\0\0\0"].concat();
    [
        message(Some(b'P'), &parse),
        message(Some(b'B'), b"\0\0\0\0\0\0\0\0"),
        message(Some(b'D'), b"P\0"),
        message(Some(b'E'), b"\0\0\0\0\0"),
        message(Some(b'S'), b""),
    ]
    .concat()
}

fn message(kind: Option<u8>, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32 + 4).to_be_bytes();
    kind.into_iter().chain(length).chain(body.iter().copied()).collect()
}

/// Kind and length of the body of a message of PostgreSQL.
pub fn head(head: [u8; 5]) -> (u8, usize) {
    let [kind, length @ ..] = head;
    (kind, (u32::from_be_bytes(length) as usize).saturating_sub(4))
}
