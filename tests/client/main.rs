//! What the tests run inside their control group: small programs that do one thing an exact number of times
//! and print what they did, so that a test can hold it against what the agent saw.
//!
//! `transfer PATH PORT` moves bytes by one system call · `cover KIND/PATH…` does so between two sockets of its own,
//! `crowd PAIRS COUNT` does so in many threads · `hostile NAME…` makes calls whose buffers or vectors are wrong · `mark` tells that programs are attached ·
//! `http PORT PATH COUNT` asks over one connection ·
//! `play [PORT]` acts out a conversation from its input, `apart` in a network namespace of its own · `churn N` ·
//! `storm CONNECTIONS REQUESTS AFTER` · `relay PORT UPSTREAM KIND` serves on tokio ·
//! `leaves N` · `getppid N` · `spawn N` · `refused PORT N` · `spin THREADS MS` ·
//! `calls N` · `rest KIND MS` · `share CPU MS` · `mix MS` ·
//! `touch PAGES FILE` · `flood N` · `hog` ·
//! `sink`, `pour`, `echo`, `ask`, `connect`, `abandon` with an ADDRESS:PORT and counts · `overflow BACKLOG N` · `datagrams N BYTES`.

mod compat;
mod cover;
mod crowd;
mod host;
mod hostile;
mod http;
mod net;
mod pairs;
mod play;
mod region;
mod relay;
mod storm;
mod transfer;
mod uring;
mod waits;
mod work;

use std::process::ExitCode;

use anyhow::{Result, bail};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<()> {
    match words {
        ["transfer", path, port] => transfer::run(path, port.parse()?),
        ["cover", paths @ ..] => cover::run(paths),
        ["crowd", pairs, count] => crowd::run(pairs.parse()?, count.parse()?),
        ["hostile", names @ ..] => hostile::run(names),
        ["mark"] => cover::Marks::new()?.end(0),
        ["http", port, path, count] => http::run(port.parse()?, path, count.parse()?),
        ["play"] => play::run(0),
        ["play", port] => play::run(port.parse()?),
        ["apart"] => {
            work::leave_network()?;
            play::run(0)
        }
        ["storm", connections, requests, after] => storm::run(connections.parse()?, requests.parse()?, after.parse()?),
        ["relay", port, upstream, kind] => relay::run(port.parse()?, upstream.parse()?, kind),
        ["churn", count] => work::churn(count.parse()?),
        ["leaves", count] => work::leaves(count.parse()?),
        ["getppid", count] => work::getppid(count.parse()?),
        ["getppid-for", millis] => work::getppid_for(millis.parse()?),
        ["spawn", count] => work::spawn(count.parse()?),
        ["refused", port, count] => work::refused(port.parse()?, count.parse()?),
        ["spin", threads, millis] => work::spin(threads.parse()?, millis.parse()?),
        ["calls", count] => waits::calls(count.parse()?),
        ["rest", kind, millis] => waits::rest(kind, millis.parse()?),
        ["share", processor, millis] => waits::share(processor.parse()?, millis.parse()?),
        ["mix", millis] => waits::mix(millis.parse()?),
        ["touch", pages, file] => host::touch(pages.parse()?, file),
        ["flood", count] => host::flood(count.parse()?),
        ["hog"] => host::hog(),
        ["sink", address, connections] => net::sink(address, connections.parse()?),
        ["pour", address, connections, bytes] => net::pour(address, connections.parse()?, bytes.parse()?),
        ["echo", address, connections] => net::echo(address, connections.parse()?),
        ["ask", address, connections, count] => net::ask(address, connections.parse()?, count.parse()?),
        ["connect", address, count] => net::connect(address, count.parse()?),
        ["abandon", address, count] => net::abandon(address, count.parse()?),
        ["overflow", backlog, count] => net::overflow(backlog.parse()?, count.parse()?),
        ["datagrams", count, bytes] => net::datagrams(count.parse()?, bytes.parse()?),
        _ => bail!("unknown arguments: {words:?}"),
    }
}
