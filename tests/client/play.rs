//! Acts out a conversation: both ends of one connection in this process, one thread, one piece at a time.

use std::io::{Read, Write, stdin};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use seismo_tests::conversation::{Step, from_json};

/// Reads lists of steps from standard input, one a line, and prints the server's port after each.
pub fn run(port: u16) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    let port = listener.local_addr()?.port();
    let mut lines = stdin().lines();
    let Some(first) = lines.next() else { return Ok(()) };
    let steps = from_json(&first?)?;
    let client = TcpStream::connect(("127.0.0.1", port))?;
    let (server, _) = listener.accept()?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    }
    let (mut client, mut server) = (Some(client), Some(server));
    act(steps, &mut client, &mut server)?;
    println!("{port}");
    for line in lines {
        act(from_json(&line?)?, &mut client, &mut server)?;
        println!("{port}");
    }
    Ok(())
}

fn act(steps: Vec<Step>, client: &mut Option<TcpStream>, server: &mut Option<TcpStream>) -> Result<()> {
    for step in steps {
        match step {
            Step::Say { server: true, bytes, piece } => say(server, client, &bytes, piece)?,
            Step::Say { server: false, bytes, piece } => say(client, server, &bytes, piece)?,
            Step::Close { server: true } => close(server, client)?,
            Step::Wait { millis } => std::thread::sleep(Duration::from_millis(millis)),
            Step::Close { server: false } => close(client, server)?,
        }
    }
    Ok(())
}

fn say(from: &mut Option<TcpStream>, to: &mut Option<TcpStream>, bytes: &[u8], piece: usize) -> Result<()> {
    let from = from.as_mut().context("a closed end speaks")?;
    let mut to = to.as_mut();
    for part in bytes.chunks(piece) {
        from.write_all(part)?;
        if let Some(to) = to.as_mut() {
            to.read_exact(&mut vec![0; part.len()])?;
        }
    }
    Ok(())
}

/// Closes one end; the other reads the end of the stream, as an application would.
fn close(end: &mut Option<TcpStream>, other: &mut Option<TcpStream>) -> Result<()> {
    drop(end.take().context("already closed")?);
    if let Some(other) = other.as_mut() {
        other.read_to_end(&mut Vec::new())?;
    }
    Ok(())
}
