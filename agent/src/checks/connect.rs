//! A target's name to an address, a TCP connection to it, and TLS over that; with how long each took.
//!
//! A name is looked up by the system's resolver in a thread of its own, since that cannot be cancelled: a check that gives up
//! leaves it behind, and the next one waits for the same answer instead of asking again.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::time::Instant;

use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::Endpoint;
use super::run::{Failure, Findings, Tls};
use crate::tls::{TlsError, TlsStream, Trust, earliest_expiry};

const STACK_BYTES: usize = 256 * 1024;

/// Looks up one target's name.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    pending: Option<oneshot::Receiver<Result<Vec<SocketAddr>, String>>>,
}

impl Resolver {
    /// The first address of a target; the system's order of addresses counts.
    pub async fn resolve(&mut self, at: &Endpoint, findings: &mut Findings) -> Result<SocketAddr, Failure> {
        let began = Instant::now();
        let found = match at.host.parse::<IpAddr>() {
            Ok(address) => Some(SocketAddr::new(address, at.port)),
            Err(_) => self.look_up(at).await?.first().copied(),
        };
        findings.lookup_seconds = Some(began.elapsed().as_secs_f64());
        let address = found.ok_or_else(|| Failure::Resolve("the name has no address".to_owned()))?;
        findings.ip_protocol = Some(if address.is_ipv4() { 4 } else { 6 });
        Ok(address)
    }

    async fn look_up(&mut self, at: &Endpoint) -> Result<Vec<SocketAddr>, Failure> {
        if self.pending.is_none() {
            let (sender, receiver) = oneshot::channel();
            let (host, port) = (at.host.clone(), at.port);
            let ask = move || {
                let found = (host.as_str(), port).to_socket_addrs();
                // Nobody waits any more when the agent stops.
                let _unheard = sender.send(found.map(Iterator::collect).map_err(|error| error.to_string()));
            };
            std::thread::Builder::new()
                .name("seismo-lookup".to_owned())
                .stack_size(STACK_BYTES)
                .spawn(ask)
                .map_err(|error| Failure::Resolve(error.to_string()))?;
            self.pending = Some(receiver);
        }
        let Some(pending) = &mut self.pending else { return Err(Failure::Resolve("not asked".to_owned())) };
        let answer = pending.await;
        self.pending = None;
        answer.map_err(|_| Failure::Resolve("the lookup ended without an answer".to_owned()))?.map_err(Failure::Resolve)
    }
}

/// Connects; the time goes into the findings.
pub(super) async fn connect(address: SocketAddr, findings: &mut Findings) -> Result<TcpStream, Failure> {
    let began = Instant::now();
    let stream = TcpStream::connect(address).await.map_err(|error| Failure::of_io(&error))?;
    findings.connect_seconds = Some(began.elapsed().as_secs_f64());
    Ok(stream)
}

/// Encrypts; the time and what the certificates say go into the findings.
pub(super) async fn encrypt(
    trust: &Trust,
    stream: TcpStream,
    host: &str,
    findings: &mut Findings,
) -> Result<TlsStream<TcpStream>, Failure> {
    let began = Instant::now();
    let stream = trust.connect(stream, host).await.map_err(|error| match error {
        TlsError::Certificate(_) => Failure::Certificate(error.to_string()),
        TlsError::Handshake(_) => Failure::Tls(error.to_string()),
    })?;
    let handshake_seconds = began.elapsed().as_secs_f64();
    findings.tls = Some(Tls { handshake_seconds, expires_s: earliest_expiry(&stream) });
    Ok(stream)
}
