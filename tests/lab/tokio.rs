//! The lab's service on tokio with two worker threads: hyper serves and asks, Redis and PostgreSQL by hand, all over
//! pooled connections. A task moves between threads as the runtime likes.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use seismo_lab::{Order, Role, column, command, head, key, query, startup};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::{TcpListener, TcpStream};

type Connection = BufStream<TcpStream>;

struct Service {
    order: Order,
    /// Free connections of each upstream.
    upstreams: Vec<Mutex<Vec<SendRequest<Empty<Bytes>>>>>,
    redis: Mutex<Vec<Connection>>,
    postgresql: Mutex<Vec<Connection>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn main() -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(serve())
}

async fn serve() -> Result<()> {
    let order = Order::read()?;
    let service = Arc::new(Service {
        upstreams: order.upstreams.iter().map(|_| Mutex::default()).collect(),
        redis: Mutex::default(),
        postgresql: Mutex::default(),
        order,
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, service.order.port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = Arc::clone(&service);
        tokio::spawn(async move {
            let answers = service_fn(|request| answer(Arc::clone(&service), request));
            if let Err(error) =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answers).await
            {
                eprintln!("{error}");
            }
        });
    }
}

async fn answer(service: Arc<Service>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let place = request.uri().path().trim_start_matches("/task/").to_owned();
    let done = work(&service, &place).await;
    tokio::time::sleep(service.order.think(&place, 9)).await;
    let mut response = Response::new(Full::new(Bytes::from_static(b"ok")));
    if let Err(error) = done {
        eprintln!("{place}: {error:#}");
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    Ok(response)
}

async fn work(service: &Service, place: &str) -> Result<()> {
    let think = |step| tokio::time::sleep(service.order.think(place, step));
    match service.order.role {
        Role::Front if service.order.parallel => {
            let call = async |index| {
                think(index).await;
                get(service, place, index).await
            };
            let (first, second) = tokio::join!(call(0), call(1));
            first.and(second)
        }
        Role::Front => {
            for index in 0..service.upstreams.len() {
                think(index).await;
                get(service, place, index).await?;
            }
            Ok(())
        }
        Role::Cache => {
            think(0).await;
            redis(service, &["GET", &key(place, 0)]).await?;
            think(1).await;
            redis(service, &["INCR", &key(place, 1)]).await
        }
        Role::Store => {
            think(0).await;
            ask(service, &format!("SELECT 1 AS {}", column(place, 0))).await?;
            think(1).await;
            redis(service, &["GET", &key(place, 1)]).await
        }
    }
}

async fn open(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn get(service: &Service, place: &str, index: usize) -> Result<()> {
    let (Some(pool), Some(port)) = (service.upstreams.get(index), service.order.upstreams.get(index)) else {
        bail!("no upstream {index}");
    };
    let kept = locked(pool).pop();
    let mut connection = match kept {
        Some(connection) => connection,
        None => {
            let (sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(open(*port).await?)).await?;
            tokio::spawn(driver);
            sender
        }
    };
    let request = Request::get(format!("/task/{place}/{index}")).header("host", format!("127.0.0.1:{port}"));
    let response = connection.send_request(request.body(Empty::new())?).await?;
    let status = response.status();
    response.into_body().collect().await?;
    connection.ready().await?;
    locked(pool).push(connection);
    if status != StatusCode::OK {
        bail!("{place}/{index}: {status}");
    }
    Ok(())
}

async fn redis(service: &Service, words: &[&str]) -> Result<()> {
    let kept = locked(&service.redis).pop();
    let mut connection = match kept {
        Some(connection) => connection,
        None => BufStream::new(open(service.order.redis).await?),
    };
    connection.write_all(&command(words)).await?;
    connection.flush().await?;
    let mut line = String::new();
    connection.read_line(&mut line).await?;
    if line.is_empty() || line.starts_with('-') {
        bail!("redis: {line}");
    }
    locked(&service.redis).push(connection);
    Ok(())
}

async fn ask(service: &Service, statement: &str) -> Result<()> {
    let kept = locked(&service.postgresql).pop();
    let mut connection = match kept {
        Some(connection) => connection,
        None => {
            let mut opened = BufStream::new(open(service.order.postgresql).await?);
            opened.write_all(&startup()).await?;
            opened.flush().await?;
            ready(&mut opened).await?;
            opened
        }
    };
    connection.write_all(&query(statement)).await?;
    connection.flush().await?;
    let row = ready(&mut connection).await?;
    locked(&service.postgresql).push(connection);
    if !row {
        bail!("no row");
    }
    Ok(())
}

/// Reads until ReadyForQuery; whether a row came before it.
async fn ready(connection: &mut Connection) -> Result<bool> {
    let mut row = false;
    loop {
        let mut first = [0; 5];
        connection.read_exact(&mut first).await?;
        let (kind, length) = head(first);
        let mut body = vec![0; length];
        connection.read_exact(&mut body).await?;
        match kind {
            b'D' => row = true,
            b'Z' => return Ok(row),
            _ => {}
        }
    }
}
