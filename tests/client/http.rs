//! One connection, one request at a time; prints its own clock for each, in nanoseconds.
//!
//! The clock runs from before the write of the request to after the read of the response's last byte.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

pub fn run(port: u16, path: &str, count: usize) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    let mut times_ns = Vec::with_capacity(count);
    let mut buffer = vec![0; 1 << 20];
    for _ in 0..count {
        let start = Instant::now();
        stream.write_all(request.as_bytes())?;
        let mut filled = 0;
        loop {
            let read = stream.read(buffer.get_mut(filled..).context("the response is too long")?)?;
            ensure!(read > 0, "the server closed");
            filled += read;
            if whole(buffer.get(..filled).unwrap_or_default())? {
                break;
            }
        }
        times_ns.push(start.elapsed().as_nanos());
    }
    times_ns.iter().for_each(|time| println!("{time}"));
    Ok(())
}

/// Is this a whole response with a Content-Length?
fn whole(bytes: &[u8]) -> Result<bool> {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, _)) = text.split_once("\r\n\r\n") else { return Ok(false) };
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(name, value)| name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>()));
    let length = length.context("no Content-Length")??;
    Ok(bytes.len() >= head.len() + 4 + length)
}
