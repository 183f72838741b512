//! Notifications out of a bounded queue to a webhook: one HTTP/1.1 POST each, in order, encrypted where its URL says https.
//!
//! A receiver that cannot be reached, answers 5xx or 429 is tried again, five times in all, with a pause
//! that doubles from one second; any other answer but 2xx is final, and so is a certificate that proves nothing. While one notification is retried the
//! others wait, so that no alert is resolved before it fires. Every notification ends in exactly one
//! count: sent, failed or dropped, with the reason. A receiver whose answer got lost sees it twice, with
//! the same fingerprint and times. No redirects, no proxies, no HTTP/2.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::model::metric::{Kind, Metric, Sample, Source, Value};
use crate::tls::{Files, TlsError, Trust};

const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// For connecting, sending and the answer's head together.
const TIMEOUT: Duration = Duration::from_secs(10);

pub static NOTIFICATIONS: Metric = Metric {
    name: "seismo.notifications",
    unit: "{notification}",
    kind: Kind::Counter,
    description: "Notifications to the webhook by what became of them",
    labels: &["outcome", "reason"],
};

/// What becomes of a notification, and why. The order is that of the counters.
const OUTCOMES: [(&str, &str); 8] = [
    ("sent", ""),
    ("failed", "unreachable"),
    ("failed", "timeout"),
    ("failed", "status"),
    ("dropped", "queue_full"),
    ("dropped", "stopped"),
    ("failed", "certificate"),
    ("failed", "tls"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Sent,
    Unreachable,
    Timeout,
    Status,
    QueueFull,
    Stopped,
    Certificate,
    Tls,
}

/// Counts per outcome, as a source of metrics.
#[derive(Debug, Default)]
pub struct Account([AtomicU64; OUTCOMES.len()]);

impl Account {
    fn count(&self, outcome: Outcome) {
        self.0[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl Source for Account {
    fn collect(&self, out: &mut Vec<Sample>) {
        out.extend(OUTCOMES.iter().zip(&self.0).map(|((outcome, reason), count)| Sample {
            metric: &NOTIFICATIONS,
            labels: vec![(*outcome).into(), (*reason).into()],
            value: Value::Count(count.load(Ordering::Relaxed)),
        }));
    }
}

/// Puts notifications into the queue; never waits.
#[derive(Clone, Debug)]
pub struct Sender {
    queue: mpsc::Sender<String>,
    account: Arc<Account>,
}

impl Sender {
    /// Queues a JSON body. When the queue is full or the webhook has stopped it is dropped and counted.
    pub fn send(&self, body: String) {
        if let Err(error) = self.queue.try_send(body) {
            let outcome = match error {
                mpsc::error::TrySendError::Full(_) => Outcome::QueueFull,
                mpsc::error::TrySendError::Closed(_) => Outcome::Stopped,
            };
            log::warn!("a notification was dropped: {}", OUTCOMES[outcome as usize].1);
            self.account.count(outcome);
        }
    }
}

/// The receiving end of the queue and the address to post to.
#[derive(Debug)]
pub struct Webhook {
    host: String,
    port: u16,
    authority: String,
    path: String,
    /// Of an https URL.
    trust: Option<Trust>,
    queue: mpsc::Receiver<String>,
    account: Arc<Account>,
    first_pause: Duration,
}

impl Webhook {
    /// Checks the address, and for https reads who may vouch: `certificate`, a PEM file, else the system's. Nothing is sent
    /// before [`Webhook::run`] runs.
    pub fn new(url: &str, certificate: Option<&Path>, queue_limit: usize) -> Result<(Sender, Self), String> {
        let uri: Uri = url.parse().map_err(|error| format!("{url:?} is not a URL: {error}"))?;
        let (port, is_encrypted) = match uri.scheme_str() {
            Some("http") => (80, false),
            Some("https") => (443, true),
            _ => return Err(format!("{url:?} does not begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| format!("{url:?} names no host"))?;
        if authority.as_str().contains('@') {
            return Err("a user name in a webhook's URL is not supported".to_owned());
        }
        let trust = is_encrypted.then(|| Trust::new(&Files::authority(certificate), &["http/1.1"])).transpose()?;
        let (sender, queue) = mpsc::channel(queue_limit.max(1));
        let account = Arc::new(Account::default());
        let webhook = Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(port),
            authority: authority.to_string(),
            path: uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
            trust,
            queue,
            account: Arc::clone(&account),
            first_pause: FIRST_PAUSE,
        };
        Ok((Sender { queue: sender, account }, webhook))
    }

    /// Counts of what became of notifications, as a source of metrics.
    pub fn account(&self) -> Arc<Account> {
        Arc::clone(&self.account)
    }

    /// Sends until every [`Sender`] is gone and the queue is empty.
    pub async fn run(mut self) {
        while let Some(body) = self.queue.recv().await {
            let body = Bytes::from(body);
            let mut pause = self.first_pause;
            let mut attempt = 1;
            let outcome = loop {
                let failure = match self.post(body.clone()).await {
                    Ok(()) => break Outcome::Sent,
                    Err(failure) => failure,
                };
                log::warn!("webhook {}: {failure} (attempt {attempt} of {ATTEMPTS})", self.authority);
                if attempt == ATTEMPTS || !failure.is_passing() {
                    break failure.outcome();
                }
                tokio::time::sleep(pause).await;
                pause *= 2;
                attempt += 1;
            };
            self.account.count(outcome);
        }
    }

    async fn post(&self, body: Bytes) -> Result<(), Failure> {
        let answer = tokio::time::timeout(TIMEOUT, self.exchange(body)).await;
        let status = answer.map_err(|_| Failure::Timeout)??;
        if status.is_success() { Ok(()) } else { Err(Failure::Status(status)) }
    }

    /// One connection per notification: they are rare, and a kept one would be stale when it is needed.
    async fn exchange(&self, body: Bytes) -> Result<StatusCode, Failure> {
        let connected = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = connected.map_err(|error| Failure::Unreachable(error.to_string()))?;
        let asked = match &self.trust {
            Some(trust) => {
                let stream = trust.connect(stream, &self.host).await.map_err(|error| match error {
                    TlsError::Certificate(_) => Failure::Certificate(error.to_string()),
                    TlsError::Handshake(_) => Failure::Tls(error.to_string()),
                })?;
                self.ask(stream, body).await
            }
            None => self.ask(stream, body).await,
        };
        asked.map_err(Failure::Unreachable)
    }

    async fn ask(&self, stream: impl AsyncRead + AsyncWrite + Unpin, body: Bytes) -> Result<StatusCode, String> {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let request = Request::post(self.path.as_str())
            .header(HOST, self.authority.as_str())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("seismo/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        let answer = sender.send_request(request);
        tokio::pin!(answer, connection);
        // The connection does the work; it is dropped once the answer's head is there.
        tokio::select! {
            biased;
            answer = &mut answer => answer.map(|answer| answer.status()).map_err(|error| error.to_string()),
            ended = &mut connection => match ended {
                // It may end in the same moment in which the answer is complete.
                Ok(()) => answer.await.map(|answer| answer.status()).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            },
        }
    }
}

enum Failure {
    Unreachable(String),
    Certificate(String),
    /// No TLS for another reason.
    Tls(String),
    Timeout,
    Status(StatusCode),
}

impl Failure {
    /// Whether it may be over when tried again.
    fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Timeout | Self::Tls(_) => true,
            Self::Certificate(_) => false,
            Self::Status(status) => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
        }
    }

    const fn outcome(&self) -> Outcome {
        match self {
            Self::Unreachable(_) => Outcome::Unreachable,
            Self::Certificate(_) => Outcome::Certificate,
            Self::Tls(_) => Outcome::Tls,
            Self::Timeout => Outcome::Timeout,
            Self::Status(_) => Outcome::Status,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) | Self::Certificate(error) | Self::Tls(error) => write!(out, "{error}"),
            Self::Timeout => write!(out, "no answer within {} s", TIMEOUT.as_secs()),
            Self::Status(status) => write!(out, "answered {status}"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A receiver on loopback that gives one answer per connection, then stops listening.
    async fn receiver(answers: Vec<&'static str>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?a=b", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            let mut requests = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"}") {
                    let mut part = [0; 1024];
                    let read = stream.read(&mut part).await.unwrap();
                    request.extend_from_slice(&part[..read]);
                }
                if !answer.is_empty() {
                    let head = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                    stream.write_all(head.as_bytes()).await.unwrap();
                }
                requests.push(String::from_utf8(request).unwrap());
            }
            requests
        });
        (url, task)
    }

    async fn deliver(answers: Vec<&'static str>, bodies: &[&str]) -> (Vec<String>, Vec<u64>) {
        let (url, task) = receiver(answers).await;
        let (sender, mut webhook) = Webhook::new(&url, None, 10).unwrap();
        webhook.first_pause = Duration::from_millis(1);
        let account = webhook.account();
        bodies.iter().for_each(|body| sender.send((*body).to_owned()));
        drop(sender);
        webhook.run().await;
        (task.await.unwrap(), counts(&account))
    }

    fn counts(account: &Account) -> Vec<u64> {
        account.0.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    #[tokio::test]
    async fn notifications_are_posted_once_and_in_order() {
        let (requests, counts) = deliver(vec!["200 OK", "204 No Content"], &["{\"n\":1}", "{\"n\":2}"]).await;
        assert!(requests[0].starts_with("POST /hook?a=b HTTP/1.1\r\n"), "{}", requests[0]);
        assert!(requests[0].contains("content-type: application/json\r\n"), "{}", requests[0]);
        assert!(requests[0].ends_with("\r\n\r\n{\"n\":1}") && requests[1].ends_with("{\"n\":2}"));
        assert_eq!(counts, [2, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[tokio::test]
    async fn a_passing_failure_is_tried_again_and_another_is_final() {
        let (requests, counts) = deliver(vec!["503 No", "429 Slow", "", "200 OK", "404 No"], &["{}", "{}"]).await;
        assert_eq!(requests.len(), 5);
        assert_eq!(counts, [1, 0, 0, 1, 0, 0, 0, 0]);
    }

    #[tokio::test]
    async fn after_the_last_attempt_a_notification_has_failed_and_the_next_has_its_turn() {
        let answers = vec!["500 No", "500 No", "500 No", "500 No", "500 No", "200 OK"];
        let (requests, counts) = deliver(answers, &["{\"n\":1}", "{\"n\":2}"]).await;
        assert!(requests[5].ends_with("{\"n\":2}"));
        assert_eq!(counts, [1, 0, 0, 1, 0, 0, 0, 0]);
    }

    #[tokio::test]
    async fn nobody_there_is_counted_as_unreachable() {
        // Bound and closed at once: nothing listens on this port.
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let (sender, mut webhook) = Webhook::new(&format!("http://127.0.0.1:{port}"), None, 10).unwrap();
        webhook.first_pause = Duration::from_millis(1);
        let account = webhook.account();
        sender.send("{}".to_owned());
        drop(sender);
        webhook.run().await;
        assert_eq!(counts(&account), [0, 1, 0, 0, 0, 0, 0, 0]);
    }

    #[tokio::test]
    async fn a_receiver_that_does_not_speak_tls_is_tried_again_and_counted_as_such() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (sender, mut webhook) =
            Webhook::new(&format!("http://{}", listener.local_addr().unwrap()), None, 10).unwrap();
        (webhook.first_pause, webhook.trust) = (Duration::from_millis(1), Some(Trust::in_nobody()));
        let account = webhook.account();
        let plain = tokio::spawn(async move {
            for _ in 0..ATTEMPTS {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            }
        });
        sender.send("{}".to_owned());
        drop(sender);
        webhook.run().await;
        plain.await.unwrap();
        assert_eq!(counts(&account), [0, 0, 0, 0, 0, 0, 0, 1]);
    }

    #[tokio::test]
    async fn a_full_queue_and_a_stopped_webhook_drop_and_count() {
        let (sender, webhook) = Webhook::new("http://localhost:1/", None, 2).unwrap();
        let account = webhook.account();
        (0..5).for_each(|_| sender.send("{}".to_owned()));
        drop(webhook);
        sender.send("{}".to_owned());
        assert_eq!(counts(&account), [0, 0, 0, 0, 3, 1, 0, 0]);
    }

    #[test]
    fn a_file_that_vouches_for_nobody_is_refused_at_once_and_only_where_it_is_needed() {
        let file = Some(Path::new("/nonexistent/ca.pem"));
        let error = Webhook::new("https://example.org/", file, 1).map(|_| ()).unwrap_err();
        assert!(error.starts_with("/nonexistent/ca.pem: "), "{error}");
        assert!(Webhook::new("http://example.org/", file, 1).is_ok());
    }

    #[test]
    fn addresses_that_cannot_work_are_refused_at_once() {
        for (url, expected) in [
            ("ftp://example.org/", "does not begin with http:// or https://"),
            ("example.org", "does not begin with http:// or https://"),
            ("http://u:p@example.org/", "a user name"),
            ("http://", "is not a URL"),
        ] {
            let error = Webhook::new(url, None, 1).map(|_| ()).unwrap_err();
            assert!(error.contains(expected), "{url}: {error}");
        }
        let (_, webhook) = Webhook::new("http://[::1]:9/x", None, 1).unwrap();
        assert_eq!((webhook.host.as_str(), webhook.port, webhook.path.as_str()), ("::1", 9, "/x"));
    }
}
