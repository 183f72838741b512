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
        // Looking at the answer is not part of the time that it took.
        let time = loop {
            let read = stream.read(buffer.get_mut(filled..).context("the response is too long")?)?;
            let time = start.elapsed();
            ensure!(read > 0, "the server closed");
            filled += read;
            if whole(buffer.get(..filled).unwrap_or_default())? {
                break time;
            }
        };
        times_ns.push(time.as_nanos());
    }
    times_ns.iter().for_each(|time| println!("{time}"));
    Ok(())
}

/// Is this a whole response with a Content-Length?
fn whole(bytes: &[u8]) -> Result<bool> {
    let Some(head) = bytes.windows(4).position(|end| end == b"\r\n\r\n") else { return Ok(false) };
    let text = String::from_utf8_lossy(bytes.get(..head).unwrap_or_default());
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length")).context("no Content-Length")?;
    Ok(bytes.len() >= head + 4 + length.1.trim().parse::<usize>()?)
}
