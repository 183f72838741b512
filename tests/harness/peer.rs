//! The other end of a test client's connection, in the test's own process and so outside the scope.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::pattern;

const LIMIT: Duration = Duration::from_secs(30);

/// Accepts one connection, sends bytes of the pattern, then reads to the end.
#[derive(Debug)]
pub struct Peer {
    pub port: u16,
    thread: JoinHandle<Result<Vec<u8>>>,
}

impl Peer {
    /// Sends `length` bytes at once.
    pub fn sending(length: usize) -> Result<Self> {
        Self::start(length, 0)
    }

    /// Sends `length` bytes when the client has sent two.
    pub fn sending_when_asked(length: usize) -> Result<Self> {
        Self::start(length, 2)
    }

    fn start(length: usize, question: usize) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(LIMIT))?;
            stream.set_write_timeout(Some(LIMIT))?;
            stream.read_exact(&mut vec![0; question])?;
            stream.write_all(&pattern::bytes(0, length))?;
            let mut received = Vec::new();
            stream.read_to_end(&mut received)?;
            Ok(received)
        });
        Ok(Self { port, thread })
    }

    /// What the client sent until it closed.
    pub fn received(self) -> Result<Vec<u8>> {
        self.thread.join().map_err(|_| anyhow!("the peer panicked"))?
    }
}
