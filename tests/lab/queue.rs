//! The lab's service with a queue: a thread for each connection reads requests and puts them into a queue, worker
//! threads take them out, call what has to be called with blocking clients, and write the answers.
//!
//! HTTP/1.1 by hand, as much of it as the lab sends; connections to others are pooled over all workers.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, bail};
use seismo_lab::{Order, Role, column, command, head, key, query, startup};

type Connection = BufReader<TcpStream>;

/// Free connections to one port, the one used last first.
struct Pool {
    port: u16,
    free: Mutex<Vec<Connection>>,
    greet: fn(&mut Connection) -> Result<()>,
}

impl Pool {
    fn new(port: u16, greet: fn(&mut Connection) -> Result<()>) -> Self {
        Self { port, free: Mutex::default(), greet }
    }

    fn with<T>(&self, call: impl FnOnce(&mut Connection) -> Result<T>) -> Result<T> {
        let kept = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match kept {
            Some(connection) => connection,
            None => {
                let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
                stream.set_nodelay(true)?;
                let mut opened = BufReader::new(stream);
                (self.greet)(&mut opened)?;
                opened
            }
        };
        let answer = call(&mut connection)?;
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(answer)
    }
}

struct Service {
    order: Order,
    upstreams: Vec<Pool>,
    redis: Pool,
    postgresql: Pool,
}

/// A request on its way: its path, and where the answer goes.
struct Job {
    path: String,
    connection: TcpStream,
}

fn main() -> Result<()> {
    let order = Order::read()?;
    let service = Arc::new(Service {
        upstreams: order.upstreams.iter().map(|port| Pool::new(*port, |_| Ok(()))).collect(),
        redis: Pool::new(order.redis, |_| Ok(())),
        postgresql: Pool::new(order.postgresql, |connection| {
            connection.get_mut().write_all(&startup())?;
            ready(connection).map(drop)
        }),
        order,
    });
    let (jobs, queue) = channel::<Job>();
    let queue = Arc::new(Mutex::new(queue));
    for _ in 0..service.order.workers {
        let (service, queue) = (Arc::clone(&service), Arc::clone(&queue));
        thread::spawn(move || while serve(&service, &queue).is_some() {});
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, service.order.port))?;
    for connection in listener.incoming() {
        let (connection, jobs) = (connection?, jobs.clone());
        connection.set_nodelay(true)?;
        thread::spawn(move || say(read(connection, &jobs)));
    }
    Ok(())
}

fn say(result: Result<()>) {
    if let Err(error) = result {
        eprintln!("{error:#}");
    }
}

/// Puts the requests of a connection into the queue until it ends.
fn read(connection: TcpStream, jobs: &Sender<Job>) -> Result<()> {
    let mut stream = BufReader::new(connection);
    let mut path = None;
    let mut line = String::new();
    while stream.read_line(&mut line)? > 0 {
        if let Some(rest) = line.strip_prefix("GET ") {
            path = rest.split(' ').next().map(str::to_owned);
        } else if line == "\r\n" {
            let path = path.take().context("a head without a request")?;
            jobs.send(Job { path, connection: stream.get_ref().try_clone()? })?;
        }
        line.clear();
    }
    Ok(())
}

/// Takes a request out of the queue and answers it; nothing when there will be no more.
fn serve(service: &Service, queue: &Mutex<Receiver<Job>>) -> Option<()> {
    let Job { path, mut connection } = queue.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()?;
    let place = path.trim_start_matches("/task/");
    let done = work(service, place);
    thread::sleep(service.order.think(place, 9));
    let (status, text) = if done.is_ok() { ("200 OK", "ok") } else { ("500 Internal Server Error", "failed") };
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    say(done.and(connection.write_all(answer.as_bytes()).map_err(Into::into)));
    Some(())
}

fn work(service: &Service, place: &str) -> Result<()> {
    let think = |step| thread::sleep(service.order.think(place, step));
    match service.order.role {
        Role::Front if service.order.parallel => thread::scope(|scope| {
            let calls = service.upstreams.iter().enumerate();
            let calls: Vec<_> = calls
                .map(|(index, pool)| {
                    scope.spawn(move || {
                        think(index);
                        get(pool, place, index)
                    })
                })
                .collect();
            calls.into_iter().try_for_each(|call| call.join().unwrap_or_else(|_| bail!("a call panicked")))
        }),
        Role::Front => {
            for (index, pool) in service.upstreams.iter().enumerate() {
                think(index);
                get(pool, place, index)?;
            }
            Ok(())
        }
        Role::Cache => {
            think(0);
            redis(service, &["GET", &key(place, 0)])?;
            think(1);
            redis(service, &["INCR", &key(place, 1)])
        }
        Role::Store => {
            think(0);
            ask(service, &format!("SELECT 1 AS {}", column(place, 0)))?;
            think(1);
            redis(service, &["GET", &key(place, 1)])
        }
    }
}

fn get(pool: &Pool, place: &str, index: usize) -> Result<()> {
    pool.with(|connection| {
        let host = pool.port;
        let request = format!("GET /task/{place}/{index} HTTP/1.1\r\nHost: 127.0.0.1:{host}\r\n\r\n");
        connection.get_mut().write_all(request.as_bytes())?;
        let (mut first, mut length) = (String::new(), 0);
        connection.read_line(&mut first)?;
        loop {
            let mut line = String::new();
            if connection.read_line(&mut line)? == 0 {
                bail!("the connection ended");
            }
            let Some((name, value)) = line.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse()?;
            }
        }
        connection.take(length).read_to_end(&mut Vec::new())?;
        if !first.contains(" 200 ") {
            bail!("{place}/{index}: {}", first.trim_end());
        }
        Ok(())
    })
}

fn redis(service: &Service, words: &[&str]) -> Result<()> {
    service.redis.with(|connection| {
        connection.get_mut().write_all(&command(words))?;
        let mut line = String::new();
        connection.read_line(&mut line)?;
        if line.is_empty() || line.starts_with('-') {
            bail!("redis: {line}");
        }
        Ok(())
    })
}

fn ask(service: &Service, statement: &str) -> Result<()> {
    service.postgresql.with(|connection| {
        connection.get_mut().write_all(&query(statement))?;
        if !ready(connection)? {
            bail!("no row");
        }
        Ok(())
    })
}

/// Reads until ReadyForQuery; whether a row came before it.
fn ready(connection: &mut Connection) -> Result<bool> {
    let mut row = false;
    loop {
        let mut first = [0; 5];
        connection.read_exact(&mut first)?;
        let (kind, length) = head(first);
        let mut body = vec![0; length];
        connection.read_exact(&mut body)?;
        match kind {
            b'D' => row = true,
            b'Z' => return Ok(row),
            _ => {}
        }
    }
}
