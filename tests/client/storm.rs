//! Many connections at full speed, both ends in this process: more records than a small ring can take.
//!
//! Prints for each connection its client's port, the bytes that the client sent and received; once a line comes in,
//! makes a few slow requests on each, and keeps them open until its input ends.

use std::io::{BufRead as _, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};

const REQUEST: &[u8] = b"GET /storm HTTP/1.1\r\nHost: x\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// Time between the requests after the storm: each is over before the next.
const PAUSE: Duration = Duration::from_millis(20);

pub fn run(connections: usize, requests: usize, after: usize) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let mut threads = Vec::new();
    for _ in 0..connections {
        let client = TcpStream::connect(address)?;
        let (server, _) = listener.accept()?;
        thread::spawn(move || answer(server));
        threads.push(thread::spawn(move || ask(client, REQUEST, requests)));
    }
    let join =
        |thread: thread::JoinHandle<Result<TcpStream>>| thread.join().map_err(|_| anyhow!("a thread panicked"))?;
    let mut streams = threads.into_iter().map(join).collect::<Result<Vec<_>>>()?;
    for stream in &streams {
        let (sent, received) = (requests * REQUEST.len(), requests * ANSWER.len());
        println!("{} {sent} {received}", stream.local_addr()?.port());
    }
    let mut lines = std::io::stdin().lock().lines();
    lines.next().transpose()?;
    for number in 0..after {
        for stream in &mut streams {
            ask_once(stream, format!("GET /after/{number} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())?;
        }
        thread::sleep(PAUSE);
    }
    println!("done");
    lines.next().transpose()?;
    Ok(())
}

fn ask(mut stream: TcpStream, request: &[u8], count: usize) -> Result<TcpStream> {
    for _ in 0..count {
        ask_once(&mut stream, request)?;
    }
    Ok(stream)
}

fn ask_once(stream: &mut TcpStream, request: &[u8]) -> Result<()> {
    stream.write_all(request)?;
    stream.read_exact(&mut [0; ANSWER.len()])?;
    Ok(())
}

/// Answers every request, which comes in one piece.
fn answer(mut stream: TcpStream) -> Result<()> {
    let mut buffer = [0; 256];
    while stream.read(&mut buffer)? > 0 {
        stream.write_all(ANSWER)?;
    }
    Ok(())
}
