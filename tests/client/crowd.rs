//! Threads that move bytes at the same time, each pair of them its own byte.
//!
//! `crowd PAIRS COUNT`: each pair has a TCP connection, over which one thread sends COUNT messages and another receives them.
//! A mark follows. All connections are open from the first message to the last: a tier that knows sockets by their
//! place in memory gives a new one the name of one that is gone.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::{io, thread};

use anyhow::{Result, anyhow, ensure};
use seismo_tests::pattern::CROWD_BYTES;

use crate::cover::Marks;
use crate::pairs::pair;

pub fn run(pairs: u8, count: usize) -> Result<()> {
    let marks = Marks::new()?;
    let sockets = (1..=pairs).map(|byte| Ok((byte, pair("tcp4")?))).collect::<Result<Vec<_>>>()?;
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (byte, (one, two)) in &sockets {
            threads.push(scope.spawn(move || send(one, *byte, count)));
            threads.push(scope.spawn(move || receive(two, *byte, count)));
        }
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
    })?;
    marks.end(1)
}

fn send(socket: &OwnedFd, byte: u8, count: usize) -> Result<()> {
    let bytes = [byte; CROWD_BYTES];
    for _ in 0..count {
        // SAFETY: pointer and length are those of a live array.
        let sent = unsafe { libc::write(socket.as_raw_fd(), bytes.as_ptr().cast(), CROWD_BYTES) };
        ensure!(sent == CROWD_BYTES as isize, "{}", io::Error::last_os_error());
    }
    Ok(())
}

fn receive(socket: &OwnedFd, byte: u8, count: usize) -> Result<()> {
    let mut bytes = [0; CROWD_BYTES];
    for _ in 0..count {
        // SAFETY: pointer and length are those of a live mutable array.
        let came = unsafe { libc::recv(socket.as_raw_fd(), bytes.as_mut_ptr().cast(), CROWD_BYTES, libc::MSG_WAITALL) };
        ensure!(came == CROWD_BYTES as isize && bytes == [byte; CROWD_BYTES], "other bytes came");
    }
    Ok(())
}
