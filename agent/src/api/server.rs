//! Serves the API on one socket: bounded connections, request heads and waiting times; stops within a second.
//!
//! At most 256 connections at once (more wait in the listen queue); a request head must come within 10 s
//! and fit 16 KiB; a reader that takes nothing for 30 s is cut off. No TLS and no access control here.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use axum::Extension;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::stall::StallGuard;
use super::{Api, Ends, stopped};

/// Limits of the server; tests make them small.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections: usize,
    /// Also how long an idle connection is kept.
    pub head_timeout: Duration,
    pub head_bytes: usize,
    pub stall_timeout: Duration,
    /// How long responses under way may take once the agent stops.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            head_timeout: Duration::from_secs(10),
            head_bytes: 16 << 10,
            stall_timeout: Duration::from_secs(30),
            grace: Duration::from_millis(800),
        }
    }
}

/// Takes the address, or says in one line why not.
pub async fn bind(listen: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(listen).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow!("listen {listen}: address in use (another agent?)"),
        _ => anyhow!("listen {listen}: {error}"),
    })
}

/// Serves until `stopping` becomes true (the same channel that the [`Api`] has) or its sender is gone.
pub async fn serve(listener: TcpListener, api: Api, limits: Limits) {
    let mut stopping = api.stopping.clone();
    let also_stopping = api.stopping.clone();
    let router = api.router();
    let permits = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    let accept = async {
        loop {
            // Never closed: the error cannot come.
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            while connections.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((stream, peer)) => {
                    // A connection that is gone already has no local end, and nobody to answer.
                    let Ok(local) = stream.local_addr() else { continue };
                    let service = TowerToHyperService::new(router.clone().layer(Extension(Ends { peer, local })));
                    let connection = converse(stream, service, limits, also_stopping.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                }
                // Out of descriptors or a connection that was reset early: others may still be served.
                Err(error) => {
                    log::warn!("accept: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    };
    tokio::select! {
        () = accept => {}
        () = stopped(&mut stopping) => {}
    }
    drop(listener);
    let finish = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.grace, finish).await.is_err() {
        connections.abort_all();
    }
}

/// One connection, request after request.
async fn converse(
    stream: TcpStream,
    service: TowerToHyperService<axum::Router>,
    limits: Limits,
    mut stopping: watch::Receiver<bool>,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(limits.head_bytes)
        .serve_connection(TokioIo::new(StallGuard::new(stream, limits.stall_timeout)), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        log::debug!("connection: {error}");
    }
}
