//! Hops to and from agents on other hosts, over a stream on a Redis server: each message is one field with up to
//! [`MESSAGE_HOPS`] hops of 24 bytes, the client span's id and its trace, and one with the clients' services. Hops whose
//! services are not told, or cannot be read, have none.
//!
//! Two threads with a connection each, one that adds and one that reads what was added since it began; neither the
//! pipeline nor the other waits for them. Where the server cannot be reached, hops are lost and counted, and it is tried
//! again after [`RETRY`]. What this agent told it hears as well. Told = sent + lost + pending.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use indexmap::IndexSet;
use redis::streams::{StreamMaxlen, StreamReadOptions, StreamReadReply};
use redis::{Client, Commands as _, Connection, RedisResult, Value};

use crate::model::display::MAX_NAME;
use crate::model::hop::Hop;
use crate::model::metric::{Kind, Metric, Sample, Source, Value as Number};
use crate::model::span::{SpanId, TraceId};

/// Hops of one message.
pub const MESSAGE_HOPS: usize = 1000;
const HOP_BYTES: usize = 24;
const FIELD: &str = "hops";
/// Services of the hops: how many names (u16), each as its length (u8) and its bytes, then for each hop the place of its name
/// (u16); all little-endian.
const CLIENTS: &str = "clients";
/// Lists of hops between the pipeline and a thread.
const QUEUE: usize = 64;
/// Messages read at a time.
const MESSAGES: usize = 64;
/// How long the server may hold the answer back while there is nothing to read.
const BLOCK_MILLIS: usize = 1000;
const TIMEOUT: Duration = Duration::from_secs(3);
/// From one attempt to connect to the next.
const RETRY: Duration = Duration::from_secs(1);

static TOLD: Metric = Metric {
    name: "seismo.hops.told",
    unit: "{hop}",
    kind: Kind::Counter,
    description: "Requests to other hosts of which agents there were to be told; sent, lost and pending ones add up to them",
    labels: &[],
};
static SENT: Metric = Metric {
    name: "seismo.hops.sent",
    unit: "{hop}",
    kind: Kind::Counter,
    description: "Hops that the server took",
    labels: &[],
};
static LOST: Metric = Metric {
    name: "seismo.hops.lost",
    unit: "{hop}",
    kind: Kind::Counter,
    description: "Hops that nobody was told of, by reason",
    labels: &["reason"],
};
static HEARD: Metric = Metric {
    name: "seismo.hops.heard",
    unit: "{hop}",
    kind: Kind::Counter,
    description: "Hops that the server told, this agent's own among them",
    labels: &[],
};
static MALFORMED: Metric = Metric {
    name: "seismo.hops.malformed",
    unit: "{message}",
    kind: Kind::Counter,
    description: "Messages of the stream that hold no hops, or services that cannot be read",
    labels: &[],
};

/// Every metric of the exchange.
pub const METRICS: &[&Metric] = &[&TOLD, &SENT, &LOST, &HEARD, &MALFORMED];

/// Why nobody is told.
#[derive(Clone, Copy)]
enum Loss {
    /// The thread is behind.
    QueueFull,
    /// The server cannot be reached or does not take them.
    Unreachable,
}

const LOSSES: [&str; 2] = ["queue_full", "unreachable"];

#[derive(Debug, Default)]
struct Account {
    told: AtomicU64,
    sent: AtomicU64,
    lost: [AtomicU64; LOSSES.len()],
    heard: AtomicU64,
    malformed: AtomicU64,
}

impl Account {
    fn lose(&self, why: Loss, hops: usize) {
        self.lost[why as usize].fetch_add(hops as u64, Ordering::Relaxed);
    }
}

impl Source for Account {
    fn collect(&self, out: &mut Vec<Sample>) {
        let mut push = |metric, labels, count: &AtomicU64| {
            out.push(Sample { metric, labels, value: Number::Count(count.load(Ordering::Relaxed)) });
        };
        push(&TOLD, vec![], &self.told);
        push(&SENT, vec![], &self.sent);
        push(&HEARD, vec![], &self.heard);
        push(&MALFORMED, vec![], &self.malformed);
        for (reason, count) in LOSSES.iter().zip(&self.lost) {
            push(&LOST, vec![(*reason).into()], count);
        }
    }
}

/// Why the configured server's address cannot work.
pub fn problem(url: Option<&str>) -> Option<String> {
    let error = Client::open(url?).err()?;
    Some(format!("not the address of a Redis server, redis://HOST:PORT: {error}"))
}

/// The pipeline's end of the exchange.
#[derive(Debug)]
pub struct Hops {
    to_tell: SyncSender<Vec<Hop>>,
    heard: Receiver<Vec<Hop>>,
    account: Arc<Account>,
}

impl Hops {
    /// Begins to tell and to hear over the stream of that name, which keeps about so many messages. An address that makes
    /// no sense is an error; a server that is not there is tried again for ever.
    pub fn start(url: &str, stream: &str, messages: usize) -> Result<(Self, Arc<dyn Source>)> {
        let client = Client::open(url).context("remote.redis")?;
        let account = Arc::new(Account::default());
        let (to_tell, telling) = sync_channel(QUEUE);
        let (hearing, heard) = sync_channel(QUEUE);
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name(name.to_owned()).stack_size(256 << 10).spawn(run).map(drop)
        };
        let stream = stream.to_owned();
        spawn("seismo-tell", {
            let (account, client, stream) = (Arc::clone(&account), client.clone(), stream.clone());
            Box::new(move || tell(&client, &stream, messages, &telling, &account))
        })?;
        spawn("seismo-hear", {
            let account = Arc::clone(&account);
            Box::new(move || hear(&client, &stream, &hearing, &account))
        })?;
        let source = Arc::clone(&account) as Arc<dyn Source>;
        Ok((Self { to_tell, heard, account }, source))
    }

    /// Hands over what others are to be told; waits for nobody.
    pub fn tell(&self, hops: Vec<Hop>) {
        if hops.is_empty() {
            return;
        }
        self.account.told.fetch_add(hops.len() as u64, Ordering::Relaxed);
        if let Err(TrySendError::Full(hops) | TrySendError::Disconnected(hops)) = self.to_tell.try_send(hops) {
            self.account.lose(Loss::QueueFull, hops.len());
        }
    }

    /// What others told since this was asked last.
    pub fn heard(&self) -> impl Iterator<Item = Hop> + '_ {
        self.heard.try_iter().flatten()
    }
}

/// A connection that is made when it is needed, at most once in [`RETRY`].
struct Line<'a> {
    client: &'a Client,
    connection: Option<Connection>,
    tried: Option<Instant>,
    /// Whether the log knows that there is none.
    said: bool,
}

impl<'a> Line<'a> {
    const fn new(client: &'a Client) -> Self {
        Self { client, connection: None, tried: None, said: false }
    }

    fn connect(&self) -> RedisResult<Connection> {
        let connection = self.client.get_connection_with_timeout(TIMEOUT)?;
        connection.set_read_timeout(Some(TIMEOUT))?;
        connection.set_write_timeout(Some(TIMEOUT))?;
        Ok(connection)
    }

    /// Does something over the connection; `None` where that cannot be.
    fn through<T>(&mut self, act: impl FnOnce(&mut Connection) -> RedisResult<T>) -> Option<T> {
        if self.connection.is_none() {
            if self.tried.is_some_and(|tried| tried.elapsed() < RETRY) {
                return None;
            }
            self.tried = Some(Instant::now());
        }
        let made = match self.connection.take() {
            Some(connection) => Ok(connection),
            None => self.connect(),
        };
        let done = made.and_then(|mut connection| act(&mut connection).map(|done| (connection, done)));
        match done {
            Ok((connection, done)) => {
                if std::mem::take(&mut self.said) {
                    log::info!("the exchange of traces with other hosts is there again");
                }
                self.connection = Some(connection);
                Some(done)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.said, true) {
                    // Says nothing of the address, in which there may be a password.
                    log::warn!("traces are not exchanged with other hosts: {:?}: {error}", error.kind());
                }
                None
            }
        }
    }
}

fn tell(client: &Client, stream: &str, messages: usize, telling: &Receiver<Vec<Hop>>, account: &Account) {
    let mut line = Line::new(client);
    while let Ok(mut hops) = telling.recv() {
        // What has gathered meanwhile goes with it.
        hops.extend(telling.try_iter().flatten());
        for part in hops.chunks(MESSAGE_HOPS) {
            let added = line.through(|connection| {
                let fields = [(FIELD, encode(part)), (CLIENTS, encode_clients(part))];
                connection.xadd_maxlen::<_, _, _, _, String>(stream, StreamMaxlen::Approx(messages), "*", &fields)
            });
            match added {
                Some(_) => _ = account.sent.fetch_add(part.len() as u64, Ordering::Relaxed),
                None => account.lose(Loss::Unreachable, part.len()),
            }
        }
    }
}

fn hear(client: &Client, stream: &str, hearing: &SyncSender<Vec<Hop>>, account: &Account) {
    let mut line = Line::new(client);
    let mut last = "$".to_owned();
    let options = StreamReadOptions::default().block(BLOCK_MILLIS).count(MESSAGES);
    loop {
        let read = line.through(|connection| {
            if last == "$" {
                last = newest(connection, stream)?;
            }
            connection.xread_options::<_, _, Option<StreamReadReply>>(&[stream], &[&last], &options)
        });
        let Some(reply) = read else {
            thread::sleep(RETRY);
            continue;
        };
        let mut hops = Vec::new();
        for message in reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids) {
            match message.map.get(FIELD).and_then(decode) {
                Some(mut told) => {
                    if let Some(clients) = message.map.get(CLIENTS) {
                        match decode_clients(clients, told.len()) {
                            Some(names) => told.iter_mut().zip(names).for_each(|(hop, name)| hop.client = name),
                            None => _ = account.malformed.fetch_add(1, Ordering::Relaxed),
                        }
                    }
                    hops.extend(told);
                }
                None => _ = account.malformed.fetch_add(1, Ordering::Relaxed),
            }
            last = message.id;
        }
        account.heard.fetch_add(hops.len() as u64, Ordering::Relaxed);
        // Waits while the pipeline is behind: what the stream keeps meanwhile is not lost.
        if !hops.is_empty() && hearing.send(hops).is_err() {
            return;
        }
    }
}

/// Where the stream ends now: what is added from here on is read, also while there is no connection.
fn newest(connection: &mut Connection, stream: &str) -> RedisResult<String> {
    let reply: redis::streams::StreamRangeReply = connection.xrevrange_count(stream, "+", "-", 1)?;
    Ok(reply.ids.first().map_or_else(|| "0-0".to_owned(), |message| message.id.clone()))
}

fn encode(hops: &[Hop]) -> Vec<u8> {
    hops.iter().flat_map(|hop| hop.span.0.into_iter().chain(hop.trace.0)).collect()
}

/// The hops of a message; `None` where it is none, or too long.
fn decode(value: &Value) -> Option<Vec<Hop>> {
    let Value::BulkString(bytes) = value else { return None };
    let (hops, rest) = bytes.as_chunks::<HOP_BYTES>();
    if !rest.is_empty() || hops.is_empty() || hops.len() > MESSAGE_HOPS {
        return None;
    }
    let hop = |bytes: &[u8; HOP_BYTES]| {
        let (span, trace) = bytes.split_first_chunk::<8>()?;
        Some(Hop { span: SpanId(*span), trace: TraceId(trace.try_into().ok()?), client: Arc::default() })
    };
    hops.iter().map(hop).collect()
}

/// `hops` are at most [`MESSAGE_HOPS`]: places fit two bytes. A name that is too long is told as none.
fn encode_clients(hops: &[Hop]) -> Vec<u8> {
    let mut names: IndexSet<&str> = IndexSet::new();
    let places: Vec<u8> = hops
        .iter()
        .map(|hop| if hop.client.len() > MAX_NAME { "" } else { &*hop.client })
        .flat_map(|name| (names.insert_full(name).0 as u16).to_le_bytes())
        .collect();
    let mut out = (names.len() as u16).to_le_bytes().to_vec();
    for name in names {
        out.push(name.len() as u8);
        out.extend_from_slice(name.as_bytes());
    }
    out.extend_from_slice(&places);
    out
}

/// The service of each of so many hops; `None` where that is not what the message has.
fn decode_clients(value: &Value, hops: usize) -> Option<Vec<Arc<str>>> {
    let Value::BulkString(bytes) = value else { return None };
    let (count, mut rest) = bytes.split_first_chunk::<2>()?;
    let count = usize::from(u16::from_le_bytes(*count));
    if count > hops {
        return None;
    }
    let mut names: Vec<Arc<str>> = Vec::with_capacity(count);
    for _ in 0..count {
        let (length, behind) = rest.split_first()?;
        let (name, behind) = behind.split_at_checked(usize::from(*length))?;
        let name = std::str::from_utf8(name).ok().filter(|name| !name.chars().any(char::is_control))?;
        names.push(name.into());
        rest = behind;
    }
    let (places, none) = rest.as_chunks::<2>();
    if places.len() != hops || !none.is_empty() {
        return None;
    }
    places.iter().map(|place| names.get(usize::from(u16::from_le_bytes(*place))).cloned()).collect()
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::{MESSAGE_HOPS, decode, decode_clients, encode, encode_clients, problem};
    use crate::model::hop::Hop;
    use crate::model::span::{SpanId, TraceId};

    fn hop(id: u8, client: &str) -> Hop {
        Hop { span: SpanId([id; 8]), trace: TraceId([id + 9; 16]), client: client.into() }
    }

    #[test]
    fn services_are_told_once_a_message_and_read_for_each_hop() {
        let long = "x".repeat(256);
        let names = ["shop", "", "cart", "shop", "ü", long.as_str()];
        let hops: Vec<Hop> = names.iter().zip(0..).map(|(name, id)| hop(id, name)).collect();
        let bytes = encode_clients(&hops);
        // Four names of 0, 4, 4 and 2 bytes, and a place for each hop.
        assert_eq!(bytes.len(), 2 + 4 + 10 + 12);
        let read = |bytes: &[u8], hops| decode_clients(&Value::BulkString(bytes.to_vec()), hops);
        let found = read(&bytes, 6).unwrap_or_default();
        assert_eq!(found.iter().map(|name| &**name).collect::<Vec<_>>(), ["shop", "", "cart", "shop", "ü", ""]);
        for cut in 0..bytes.len() {
            assert_eq!(read(&bytes[..cut], 6), None, "{cut}");
        }
        assert_eq!(read(&[&bytes[..], b"x"].concat(), 6), None);
        assert_eq!(read(&bytes, 5), None);
        assert_eq!(read(b"\x01\x00\x01\n\x00\x00", 1), None, "a control character");
        assert_eq!(read(b"\x01\x00\x01\xff\x00\x00", 1), None, "no UTF-8");
        assert_eq!(read(b"\x01\x00\x01a\x01\x00", 1), None, "no such name");
        assert_eq!(read(b"\x01\x00\x01a\x00\x00", 1).map(|names| names.len()), Some(1));
        assert_eq!(decode_clients(&Value::Nil, 1), None);
    }

    #[test]
    fn a_message_is_read_as_it_was_written_and_nothing_else_is() {
        let hops: Vec<Hop> = (0..3).map(|id| hop(id, "")).collect();
        let bytes = encode(&hops);
        assert_eq!(decode(&Value::BulkString(bytes.clone())), Some(hops));
        for wrong in [bytes[1..].to_vec(), Vec::new(), vec![0; 24 * (MESSAGE_HOPS + 1)]] {
            assert_eq!(decode(&Value::BulkString(wrong)), None);
        }
        assert_eq!(decode(&Value::Nil), None);
    }

    #[test]
    fn an_address_that_makes_no_sense_is_a_problem_and_none_is_not() {
        assert_eq!(problem(None), None);
        assert_eq!(problem(Some("redis://10.0.0.5:6379")), None);
        let said = problem(Some("http://example.com")).unwrap_or_default();
        assert!(said.starts_with("not the address of a Redis server"), "{said}");
    }
}
