//! The load generator, a process of its own: numbered requests over kept-alive HTTP/1.1 connections, each one timed.
//!
//! Reads `run FIRST COUNT CONCURRENCY` lines from standard input, and answers each with a line a request (id, status,
//! start as Unix ns, duration in ns) and `done`. One thread for each connection; connections outlive a run. A request
//! that cannot be sent or is not answered within ten seconds has status 0. Ends with its standard input.

use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};

use super::judge::Sent;
use super::think;

const PATIENCE: Duration = Duration::from_secs(10);
const LONGEST_BODY: u64 = 1 << 20;

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long)]
    port: u16,
    /// Of the pauses
    #[arg(long)]
    seed: u32,
    /// Longest pause of a connection before its next request
    #[arg(long)]
    pause_us: u32,
}

/// One run of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u32,
    pub(super) count: u32,
    pub(super) concurrency: usize,
}

pub fn command(arguments: &Arguments) -> Result<()> {
    let mut connections = Vec::new();
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let run = parse(&line?)?;
        if connections.len() < run.concurrency {
            connections.resize_with(run.concurrency, || None);
        }
        for Sent { id, status, start_ns, duration_ns } in send(arguments, run, &mut connections) {
            writeln!(out, "{id} {status} {start_ns} {duration_ns}")?;
        }
        writeln!(out, "done")?;
        out.flush()?;
    }
    Ok(())
}

pub(super) fn line(run: Run) -> String {
    format!("run {} {} {}", run.first, run.count, run.concurrency)
}

fn parse(line: &str) -> Result<Run> {
    let words: Vec<&str> = line.split(' ').collect();
    let ["run", first, count, concurrency] = words.as_slice() else { bail!("'{line}' is no run") };
    Ok(Run { first: first.parse()?, count: count.parse()?, concurrency: concurrency.parse()? })
}

/// What one line of the answer says.
pub(super) fn sent(line: &str) -> Result<Sent> {
    let words: Vec<&str> = line.split(' ').collect();
    let [id, status, start, duration] = words.as_slice() else { bail!("the load generator says '{line}'") };
    Ok(Sent { id: id.parse()?, status: status.parse()?, start_ns: start.parse()?, duration_ns: duration.parse()? })
}

type Connection = Option<BufReader<TcpStream>>;

fn send(arguments: &Arguments, run: Run, connections: &mut [Connection]) -> Vec<Sent> {
    let next = AtomicU32::new(run.first);
    let work = |connection: &mut Connection| {
        let mut all = Vec::new();
        loop {
            let id = next.fetch_add(1, Ordering::Relaxed);
            if id >= run.first + run.count {
                return all;
            }
            thread::sleep(think(arguments.seed, &format!("{id}/pause"), 0, arguments.pause_us));
            all.push(exchange(connection, arguments.port, id));
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = connections
            .iter_mut()
            .take(run.concurrency)
            .map(|connection| scope.spawn(move || work(connection)))
            .collect();
        // A thread can only fail by panicking, which it has said then; its requests are missing in the answer.
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    })
}

fn exchange(connection: &mut Connection, port: u16, id: u32) -> Sent {
    let mut opened = match connection.take() {
        Some(kept) => Ok(kept),
        None => connect(port),
    };
    let start_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let started = Instant::now();
    let status = match &mut opened {
        Ok(stream) => ask(stream, port, id),
        Err(error) => Err(anyhow!("cannot connect: {error:#}")),
    };
    let duration_ns = started.elapsed().as_nanos() as u64;
    let status = match status {
        Ok(status) => {
            *connection = opened.ok();
            status
        }
        Err(error) => {
            eprintln!("request {id}: {error:#}");
            0
        }
    };
    Sent { id, status, start_ns, duration_ns }
}

fn connect(port: u16) -> Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(BufReader::new(stream))
}

/// The status of the answer.
fn ask(stream: &mut BufReader<TcpStream>, port: u16, id: u32) -> Result<u16> {
    let request = format!("GET /task/{id} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/plain\r\n\r\n");
    stream.get_mut().write_all(request.as_bytes())?;
    let (mut status, mut length) = (None, None);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            bail!("the server closed the connection");
        }
        let line = line.trim_end();
        if status.is_none() {
            status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
            continue;
        }
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse::<u64>().ok();
        }
    }
    let length = length.filter(|length| *length <= LONGEST_BODY).context("no Content-Length that can be believed")?;
    let mut body = Vec::new();
    stream.take(length).read_to_end(&mut body)?;
    if body.len() as u64 != length {
        bail!("the body ended early");
    }
    status.context("no status")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_run_and_its_answer_survive_being_written() {
        let run = Run { first: 5, count: 7, concurrency: 2 };
        assert_eq!(parse(&line(run)).unwrap(), run);
        assert_eq!(sent("5 200 12 13").unwrap(), Sent { id: 5, status: 200, start_ns: 12, duration_ns: 13 });
        assert!(parse("run 1 2").is_err() && sent("5 200").is_err());
    }

    #[test]
    fn every_request_of_a_run_is_sent_once_and_told_with_its_status() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let mut paths = Vec::new();
            let mut line = String::new();
            while stream.read_line(&mut line).unwrap() > 0 {
                if let Some(path) = line.strip_prefix("GET ") {
                    paths.push(path.split(' ').next().unwrap().to_owned());
                } else if line == "\r\n" {
                    let status = if paths.len() == 2 { "500 No" } else { "200 OK" };
                    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok");
                    stream.get_mut().write_all(answer.as_bytes()).unwrap();
                }
                line.clear();
            }
            paths
        });
        let arguments = Arguments { port, seed: 1, pause_us: 10 };
        let mut connections = vec![None];
        let sent = send(&arguments, Run { first: 3, count: 3, concurrency: 1 }, &mut connections);
        drop(connections);
        assert_eq!(sent.iter().map(|sent| (sent.id, sent.status)).collect::<Vec<_>>(), [(3, 200), (4, 500), (5, 200)]);
        assert_eq!(server.join().unwrap(), ["/task/3", "/task/4", "/task/5"]);
    }
}
