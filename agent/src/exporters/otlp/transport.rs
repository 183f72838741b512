//! One request after the other over a connection that is kept: HTTP/1.1 with a protobuf body, or a gRPC call over HTTP/2.
//!
//! A connection that fails is given up; the next request makes a new one. At most [`MOST_ANSWER`] bytes of an answer are
//! read. The caller bounds the time. TLS where the endpoint is https. No proxy, addresses in the order in which the resolver gives them.

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, TE, USER_AGENT};
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::answer::{self, Answer};
use super::settings::Settings;
use super::target::{self, Target};
use super::{Compression, Protocol};
use crate::clock;
use crate::tls::Trust;

const MOST_ANSWER: usize = 64 << 10;
const AGENT: &str = concat!("seismo/", env!("CARGO_PKG_VERSION"));

pub(super) struct Transport {
    target: Target,
    protocol: Protocol,
    compression: Compression,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Where the endpoint is https.
    trust: Option<Trust>,
    connection: Option<Connection>,
}

enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// An answer, read.
struct Read {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    trailers: Option<HeaderMap>,
}

impl Transport {
    pub(super) fn new(settings: Settings) -> Result<Self, String> {
        let headers = target::headers(&settings.headers)?;
        let Settings { target, protocol, compression, tls, .. } = settings;
        let spoken = match protocol {
            Protocol::HttpProtobuf => "http/1.1",
            Protocol::Grpc => "h2",
        };
        let trust = target.tls.then(|| Trust::new(&tls, &[spoken])).transpose()?;
        Ok(Self { target, protocol, compression, headers, trust, connection: None })
    }

    /// The next request makes a new connection.
    pub(super) fn disconnect(&mut self) {
        self.connection = None;
    }

    pub(super) async fn send(&mut self, body: Bytes) -> Answer {
        let read = match self.exchange(body).await {
            Ok(read) => read,
            Err(error) => {
                self.disconnect();
                return Answer::unreachable(format!("{}: {error}", self.target.authority));
            }
        };
        match self.protocol {
            Protocol::HttpProtobuf => {
                let now_s = i64::try_from(clock::wall_ns() / 1_000_000_000).unwrap_or(0);
                answer::of_http(read.status, &read.headers, &read.body, now_s)
            }
            Protocol::Grpc if read.status != StatusCode::OK => answer::of_grpc_status(read.status),
            Protocol::Grpc => answer::of_grpc(read.trailers.as_ref().unwrap_or(&read.headers), &read.body),
        }
    }

    async fn exchange(&mut self, body: Bytes) -> Result<Read, String> {
        let request = self.request(body).map_err(|error| error.to_string())?;
        let usable = match &mut self.connection {
            Some(Connection::Http1(sender)) => sender.ready().await.is_ok(),
            Some(Connection::Http2(sender)) => sender.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            self.connection = Some(self.connect().await?);
        }
        let response = match &mut self.connection {
            Some(Connection::Http1(sender)) => sender.send_request(request).await,
            Some(Connection::Http2(sender)) => sender.send_request(request).await,
            None => return Err("no connection".to_owned()),
        };
        read(response.map_err(|error| told(&error))?).await
    }

    async fn connect(&self) -> Result<Connection, String> {
        let target = (self.target.host.as_str(), self.target.port);
        let stream = TcpStream::connect(target).await.map_err(|error| error.to_string())?;
        // Without it the end of a large request waits for an acknowledgement; a failure costs time alone.
        if let Err(error) = stream.set_nodelay(true) {
            log::debug!("OTLP: no TCP_NODELAY: {error}");
        }
        match &self.trust {
            Some(trust) => {
                let stream = trust.connect(stream, &self.target.host).await.map_err(|error| error.to_string())?;
                self.shake_hands(stream).await
            }
            None => self.shake_hands(stream).await,
        }
    }

    async fn shake_hands(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Connection, String> {
        let stream = TokioIo::new(stream);
        match self.protocol {
            Protocol::HttpProtobuf => {
                let (sender, connection) = http1::handshake(stream).await.map_err(|error| told(&error))?;
                // Its failure shows in the answer too.
                tokio::spawn(connection);
                Ok(Connection::Http1(sender))
            }
            Protocol::Grpc => {
                let (sender, connection) =
                    http2::handshake(TokioExecutor::new(), stream).await.map_err(|error| told(&error))?;
                tokio::spawn(connection);
                Ok(Connection::Http2(sender))
            }
        }
    }

    fn request(&self, body: Bytes) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let gzip = self.compression == Compression::Gzip;
        let mut request = match self.protocol {
            Protocol::HttpProtobuf => {
                let request = Request::post(self.target.path.as_str()).header(HOST, self.target.authority.as_str());
                let request = request.header(CONTENT_TYPE, "application/x-protobuf");
                if gzip { request.header(CONTENT_ENCODING, "gzip") } else { request }
            }
            Protocol::Grpc => {
                let request = Request::post(self.target.to_string()).version(Version::HTTP_2);
                let request = request.header(CONTENT_TYPE, "application/grpc").header(TE, "trailers");
                if gzip { request.header("grpc-encoding", "gzip") } else { request }
            }
        };
        request = request.header(USER_AGENT, AGENT);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.body(Full::new(match self.protocol {
            Protocol::HttpProtobuf => body,
            Protocol::Grpc => framed(&body, gzip),
        }))
    }
}

/// A gRPC message: whether it is compressed, its length, itself.
fn framed(body: &Bytes, compressed: bool) -> Bytes {
    let mut frame = BytesMut::with_capacity(body.len() + 5);
    frame.put_u8(compressed.into());
    frame.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
    frame.put_slice(body);
    frame.freeze()
}

async fn read(response: Response<Incoming>) -> Result<Read, String> {
    let (head, body) = response.into_parts();
    let collected = Limited::new(body, MOST_ANSWER).collect().await.map_err(|error| error.to_string())?;
    let trailers = collected.trailers().cloned();
    Ok(Read { status: head.status, headers: head.headers, body: collected.to_bytes(), trailers })
}

/// An error with its cause: hyper's own words say little.
fn told(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
