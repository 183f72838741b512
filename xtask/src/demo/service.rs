//! The demo's workload, one process each: `visitor` → `shop` → `stock`, HTTP/1.1 over kept-alive connections.
//!
//! Thread per connection; the shop asks the stock once for every request it gets. What happens depends on the
//! item: most are there, 404 is not, 13 breaks the stock, 7 takes it 50 ms. Ends when standard input closes.

use std::fs;
use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::http::Connection;

#[derive(clap::Args)]
pub struct Arguments {
    service: Service,
    /// Control group to enter before anything else
    #[arg(long)]
    cgroup: Option<PathBuf>,
    /// HOST:PORT of the service to ask
    #[arg(long)]
    upstream: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Service {
    Visitor,
    Shop,
    Stock,
}

/// Items asked for, in turn; about one request in ten fails or is slow.
const ITEMS: [u32; 20] = [1, 2, 3, 4, 5, 404, 6, 8, 9, 10, 11, 7, 12, 14, 15, 16, 13, 17, 18, 19];
const PAUSE: Duration = Duration::from_millis(10);
const SLOW: Duration = Duration::from_millis(50);

pub fn command(arguments: &Arguments) -> Result<()> {
    if let Some(cgroup) = &arguments.cgroup {
        let members = cgroup.join("cgroup.procs");
        fs::write(&members, "0").with_context(|| format!("cannot enter {}", cgroup.display()))?;
    }
    let upstream = || arguments.upstream.clone().context("needs --upstream");
    match arguments.service {
        Service::Stock => serve(|connection| answer(connection, stock))?,
        Service::Shop => {
            let stock = upstream()?;
            serve(move |connection| {
                let mut stock = Connection::open(&stock)?;
                answer(connection, |path| shop(path, &mut stock))
            })?;
        }
        Service::Visitor => {
            let shop = upstream()?;
            println!("{shop}");
            start(move || visit(&shop));
        }
    }
    // The demo closes our standard input, or has been killed.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Listens, says where, and gives each connection a thread.
fn serve(connection: impl Fn(Connection) -> Result<()> + Clone + Send + 'static) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on 127.0.0.1")?;
    println!("{}", listener.local_addr()?);
    start(move || {
        loop {
            let (stream, _): (TcpStream, _) = listener.accept()?;
            let connection = connection.clone();
            start(move || connection(Connection::over(stream)?));
        }
    });
    Ok(())
}

fn start(work: impl FnOnce() -> Result<()> + Send + 'static) {
    thread::spawn(move || {
        if let Err(error) = work() {
            eprintln!("{error:#}");
        }
    });
}

/// Answers one request after another until the client is done.
fn answer(mut connection: Connection, mut respond: impl FnMut(&str) -> Result<(u16, String)>) -> Result<()> {
    while let Some(path) = connection.request()? {
        let (status, text) = respond(&path)?;
        connection.respond(status, &text)?;
    }
    Ok(())
}

fn stock(path: &str) -> Result<(u16, String)> {
    Ok(match path.rsplit('/').next() {
        Some("404") => (404, "no such item\n".to_owned()),
        Some("13") => (500, "the shelf broke\n".to_owned()),
        Some("7") => {
            thread::sleep(SLOW);
            (200, "the last one, behind the others\n".to_owned())
        }
        _ => (200, "plenty\n".to_owned()),
    })
}

fn shop(path: &str, stock: &mut Connection) -> Result<(u16, String)> {
    let item = path.rsplit('/').next().unwrap_or_default();
    let answer = stock.get(&format!("/stock/{item}"))?;
    Ok((answer.status, format!("item {item}: {}", answer.text)))
}

fn visit(shop: &str) -> Result<()> {
    let mut connection = Connection::open(shop)?;
    for item in ITEMS.iter().cycle() {
        connection.get(&format!("/items/{item}"))?;
        thread::sleep(PAUSE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shop_passes_on_what_the_stock_says() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || answer(Connection::over(listener.accept().unwrap().0).unwrap(), stock));
        let mut connection = Connection::open(&address).unwrap();
        for (item, status) in [("1", 200), ("404", 404), ("13", 500), ("7", 200)] {
            let (answered, text) = shop(&format!("/items/{item}"), &mut connection).unwrap();
            assert_eq!(answered, status, "{item}");
            assert!(text.starts_with(&format!("item {item}: ")), "{text}");
        }
        drop(connection);
        server.join().unwrap().unwrap();
    }

    #[test]
    fn the_visitor_meets_success_failure_and_slowness() {
        for item in [1, 7, 13, 404] {
            assert!(ITEMS.contains(&item));
        }
    }
}
