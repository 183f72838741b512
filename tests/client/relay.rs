//! A service on tokio: for each GET /both/N two GETs to another server at the same time, each handed on in the way that its
//! kind says, over connections that are kept.
//!
//! Two threads, each with a runtime: one serves, on the other one are those that are handed something by a queue. HTTP by
//! hand: what matters is which task moves which bytes.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Connections that may ask at the same time where they are limited.
const PERMITS: usize = 3;
/// Connections with queues, where there are some from the beginning on.
const LINES: usize = 5;
/// Workers that have no connection.
const STAFF: usize = 20;
/// Requests that wait for a connection's task, or for a worker.
const QUEUE: usize = 64;

/// A request's path, and where its answer is awaited.
type Job = (String, oneshot::Sender<Result<()>>);

/// How a request comes to the connection that it goes out on.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// The task that serves moves the bytes itself.
    Own,
    /// A connection has a task, as in hyper.
    Driven,
    /// So, and what asks is a task of its own, too.
    Begun,
    /// A worker that is free is handed it, and moves the bytes.
    Queued,
    /// As if driven, and only some connections may ask at the same time: another one's task lets it go on, before it hands on
    /// its answer,
    Limited,
    /// or after.
    Late,
    /// So, over a few connections, each with its own queue: what is in there when one is free wakes nobody.
    Lined,
    /// As if driven, and those that ask are workers, of whom only some may at the same time.
    Staffed,
    /// One connection with one task for all, which sends what has come together in one piece.
    Shared,
}

struct Relay {
    kind: Kind,
    upstream: u16,
    free: Mutex<Vec<BufReader<TcpStream>>>,
    /// Ways to tasks that are free.
    idle: Mutex<Vec<mpsc::Sender<Job>>>,
    permits: Semaphore,
    /// Ways to workers without a connection.
    staff: Mutex<Vec<mpsc::Sender<Job>>>,
    /// The second thread's.
    workers: Handle,
}

pub fn run(port: u16, upstream: u16, kind: &str) -> Result<()> {
    let kind = match kind {
        "own" => Kind::Own,
        "driven" => Kind::Driven,
        "begun" => Kind::Begun,
        "queued" => Kind::Queued,
        "limited" => Kind::Limited,
        "late" => Kind::Late,
        "lined" => Kind::Lined,
        "staffed" => Kind::Staffed,
        "shared" => Kind::Shared,
        other => bail!("unknown kind of relay: {other}"),
    };
    let workers = Builder::new_current_thread().enable_all().build()?;
    let handle = workers.handle().clone();
    thread::spawn(move || workers.block_on(std::future::pending::<()>()));
    let is_limited = matches!(kind, Kind::Limited | Kind::Late | Kind::Lined | Kind::Staffed);
    let permits = Semaphore::new(if is_limited { PERMITS } else { Semaphore::MAX_PERMITS });
    let relay = Relay {
        kind,
        upstream,
        free: Mutex::default(),
        idle: Mutex::default(),
        permits,
        staff: Mutex::default(),
        workers: handle,
    };
    Builder::new_current_thread().enable_all().build()?.block_on(serve(port, Arc::new(relay)))
}

async fn serve(port: u16, relay: Arc<Relay>) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let lines = match relay.kind {
        Kind::Shared => 1,
        Kind::Lined => LINES,
        _ => 0,
    };
    for _ in 0..lines {
        let (jobs, queue) = mpsc::channel(QUEUE);
        if relay.kind == Kind::Shared {
            relay.workers.spawn(share(relay.upstream, queue));
        } else {
            tokio::spawn(drive(open(relay.upstream).await?, queue, Arc::clone(&relay)));
        }
        relay.keep(jobs);
    }
    let staff = if relay.kind == Kind::Staffed { STAFF } else { 0 };
    for _ in 0..staff {
        let (jobs, queue) = mpsc::channel(QUEUE);
        tokio::spawn(hand_on(queue, Arc::clone(&relay)));
        relay.staff.lock().unwrap_or_else(PoisonError::into_inner).push(jobs);
    }
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(connection(Arc::clone(&relay), BufReader::new(stream)));
    }
}

/// One client's: ends with its connection.
async fn connection(relay: Arc<Relay>, mut stream: BufReader<TcpStream>) -> Result<()> {
    loop {
        let (line, _) = head(&mut stream).await?;
        let path = line.split(' ').nth(1).and_then(|path| path.rsplit('/').next()).context("no path")?;
        let number: u64 = path.parse()?;
        let (first, second) = tokio::join!(leaf(&relay, number, 0), leaf(&relay, number, 1));
        first.and(second)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n").await?;
    }
}

async fn leaf(relay: &Arc<Relay>, number: u64, index: u64) -> Result<()> {
    tokio::time::sleep(Duration::from_millis(number * 7 % 5)).await;
    let path = format!("/wait/{}/{}", 1 + number % 7, number * 10 + index);
    match relay.kind {
        Kind::Own => {
            let kept = relay.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut stream = match kept {
                Some(stream) => stream,
                None => open(relay.upstream).await?,
            };
            get(&mut stream, &[path]).await?;
            relay.free.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
            Ok(())
        }
        Kind::Driven | Kind::Queued | Kind::Limited | Kind::Late | Kind::Lined | Kind::Shared => {
            hand(relay, path).await
        }
        Kind::Staffed => {
            let jobs = turn(&mut relay.staff.lock().unwrap_or_else(PoisonError::into_inner));
            ask(&jobs.context("nobody is there")?, path).await
        }
        Kind::Begun => {
            let relay = Arc::clone(relay);
            tokio::spawn(async move { hand(&relay, path).await }).await?
        }
    }
}

/// Has a task that is free ask, or one whose turn it is, and waits for the answer.
async fn hand(relay: &Arc<Relay>, path: String) -> Result<()> {
    let jobs = match relay.next() {
        Some(jobs) => jobs,
        None => {
            let (jobs, queue) = mpsc::channel(QUEUE);
            let stream = open(relay.upstream).await?;
            if relay.kind == Kind::Queued {
                relay.workers.spawn(work(stream.into_inner().into_std()?, queue, Arc::clone(relay)));
            } else {
                tokio::spawn(drive(stream, queue, Arc::clone(relay)));
            }
            jobs
        }
    };
    ask(&jobs, path).await?;
    if !relay.kind.takes_turns() {
        relay.keep(jobs);
    }
    Ok(())
}

/// Has a task do it, and waits until it has.
async fn ask(jobs: &mpsc::Sender<Job>, path: String) -> Result<()> {
    let (answer, answered) = oneshot::channel();
    jobs.send((path, answer)).await.map_err(|_| anyhow!("a task is gone"))?;
    answered.await?
}

/// The next one, which is the last one from then on.
fn turn(ways: &mut [mpsc::Sender<Job>]) -> Option<mpsc::Sender<Job>> {
    if !ways.is_empty() {
        ways.rotate_left(1);
    }
    ways.last().cloned()
}

impl Kind {
    /// There is one task for all, or one after the other is handed a request whether it is free or not.
    fn takes_turns(self) -> bool {
        matches!(self, Self::Lined | Self::Shared)
    }
}

impl Relay {
    fn next(&self) -> Option<mpsc::Sender<Job>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if self.kind.takes_turns() {
            return turn(&mut idle);
        }
        idle.pop()
    }

    fn keep(&self, jobs: mpsc::Sender<Job>) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(jobs);
    }
}

/// A worker without a connection.
async fn hand_on(mut queue: mpsc::Receiver<Job>, relay: Arc<Relay>) {
    while let Some((path, answer)) = queue.recv().await {
        let Ok(permit) = relay.permits.acquire().await else { return };
        let asked = hand(&relay, path).await;
        drop(permit);
        _ = answer.send(asked);
    }
}

async fn drive(mut stream: BufReader<TcpStream>, mut queue: mpsc::Receiver<Job>, relay: Arc<Relay>) {
    while let Some((path, answer)) = queue.recv().await {
        // A worker that asks has one already.
        let needs = u32::from(relay.kind != Kind::Staffed);
        let Ok(permit) = relay.permits.acquire_many(needs).await else { return };
        let asked = get(&mut stream, &[path]).await;
        let late = (relay.kind == Kind::Late).then_some(permit);
        // Who asked may be gone.
        _ = answer.send(asked);
        drop(late);
    }
}

/// The same on the thread that it runs on.
async fn work(stream: std::net::TcpStream, queue: mpsc::Receiver<Job>, relay: Arc<Relay>) -> Result<()> {
    drive(BufReader::new(TcpStream::from_std(stream)?), queue, relay).await;
    Ok(())
}

async fn share(upstream: u16, mut queue: mpsc::Receiver<Job>) -> Result<()> {
    let mut stream = open(upstream).await?;
    let mut jobs = Vec::new();
    while queue.recv_many(&mut jobs, QUEUE).await > 0 {
        let (paths, answers): (Vec<_>, Vec<_>) = jobs.drain(..).unzip();
        get(&mut stream, &paths).await?;
        answers.into_iter().for_each(|answer| _ = answer.send(Ok(())));
    }
    Ok(())
}

async fn open(port: u16) -> Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

/// Sends requests in one piece and reads their answers.
async fn get(stream: &mut BufReader<TcpStream>, paths: &[String]) -> Result<()> {
    let requests: String = paths.iter().map(|path| format!("GET {path} HTTP/1.1\r\nHost: leaf\r\n\r\n")).collect();
    stream.write_all(requests.as_bytes()).await?;
    for _ in paths {
        let (_, length) = head(stream).await?;
        stream.read_exact(&mut vec![0; length]).await?;
    }
    Ok(())
}

/// First line of a message, and the length of its body.
async fn head(stream: &mut BufReader<TcpStream>) -> Result<(String, usize)> {
    let (mut first, mut length) = (String::new(), 0);
    if stream.read_line(&mut first).await? == 0 {
        bail!("closed");
    }
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        match line.to_ascii_lowercase().split_once(':') {
            Some(("content-length", value)) => length = value.trim().parse()?,
            Some(_) => {}
            None => return Ok((first, length)),
        }
    }
}
