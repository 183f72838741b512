//! Checks at work: a task for each target, at its interval; what the last check found is what the page shows.
//!
//! The checks of one target never overlap: a check ends by its timeout, which is not longer than the interval. A target that
//! becomes well or unwell is told in the log once.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::connect::{Resolver, connect, encrypt};
use super::metrics::{RUNS, samples};
use super::{Check, Config, Vouched, What, dns, http};
use crate::model::metric::{Sample, Source, Value};
use crate::tls::Trusts;

/// First checks are this far apart, so that a thousand targets are not contacted in one moment.
const STAGGER: Duration = Duration::from_millis(20);

/// What a check came to before it ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Findings {
    pub lookup_seconds: Option<f64>,
    pub connect_seconds: Option<f64>,
    pub ip_protocol: Option<u8>,
    pub tls: Option<Tls>,
    pub http: Option<http::Answer>,
    pub dns: Option<dns::Answer>,
}

/// What an encrypted connection was like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tls {
    pub handshake_seconds: f64,
    /// Unix time at which the first certificate of the chain expires, s; none if it cannot be read.
    pub expires_s: Option<i64>,
}

/// Why a check did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Timeout,
    Resolve(String),
    Refused,
    Unreachable(String),
    /// The target's certificate is not accepted.
    Certificate(String),
    /// No encrypted connection for another reason.
    Tls(String),
    Protocol(String),
    /// The status code, or DNS' response code, is none of the expected.
    Status(u16),
    Match,
}

impl Failure {
    pub fn of_io(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::ConnectionRefused => Self::Refused,
            _ => Self::Unreachable(error.to_string()),
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Resolve(_) => "resolve",
            Self::Refused => "refused",
            Self::Unreachable(_) => "unreachable",
            Self::Certificate(_) => "certificate",
            Self::Tls(_) => "tls",
            Self::Protocol(_) => "protocol",
            Self::Status(_) => "status",
            Self::Match => "match",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => out.write_str("no answer in time"),
            Self::Resolve(error) => write!(out, "the name was not found: {error}"),
            Self::Refused => out.write_str("connection refused"),
            Self::Unreachable(error) => write!(out, "not reached: {error}"),
            Self::Certificate(error) | Self::Tls(error) => out.write_str(error),
            Self::Protocol(error) => write!(out, "the answer is not understood: {error}"),
            Self::Status(code) => write!(out, "answered {code}"),
            Self::Match => out.write_str("the body does not match"),
        }
    }
}

/// What was found last, and how often what; a source of metrics.
#[derive(Debug, Default)]
pub struct Results {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By target, in the order of the configuration.
    last: BTreeMap<usize, Vec<Sample>>,
    runs: BTreeMap<(String, &'static str), u64>,
}

impl Source for Results {
    fn collect(&self, out: &mut Vec<Sample>) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        out.extend(inner.last.values().flatten().cloned());
        out.extend(inner.runs.iter().map(|((check, outcome), count)| Sample {
            metric: &RUNS,
            labels: vec![check.clone().into(), (*outcome).into()],
            value: Value::Count(*count),
        }));
    }
}

/// The configured checks.
#[derive(Debug)]
pub struct Checks {
    checks: Vec<Check>,
    results: Arc<Results>,
}

impl Checks {
    /// Nothing is contacted before [`Checks::run`].
    pub fn new(config: &Config) -> Self {
        Self { checks: config.checks(), results: Arc::default() }
    }

    pub fn results(&self) -> Arc<Results> {
        Arc::clone(&self.results)
    }

    /// Checks until the agent stops; a check under way is given up then.
    pub async fn run(self, mut stopped: watch::Receiver<bool>) {
        let mut tasks = JoinSet::new();
        let trusts = Arc::new(Trusts::default());
        for (index, check) in self.checks.into_iter().enumerate() {
            tasks.spawn(repeat(index, check, Arc::clone(&trusts), Arc::clone(&self.results)));
        }
        // Whoever could tell us to stop is gone: the same.
        let _stopped = stopped.wait_for(|stopped| *stopped).await;
        tasks.abort_all();
    }
}

async fn repeat(index: usize, check: Check, trusts: Arc<Trusts>, results: Arc<Results>) {
    let start =
        tokio::time::Instant::now() + (STAGGER * u32::try_from(index).unwrap_or(u32::MAX)).min(check.interval.0);
    let mut every = tokio::time::interval_at(start, check.interval.0);
    every.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut resolver = Resolver::default();
    let mut was_well = None;
    loop {
        every.tick().await;
        let began = Instant::now();
        let mut findings = Findings::default();
        let done = tokio::time::timeout(check.timeout.0, once(&check, &mut resolver, &trusts, &mut findings)).await;
        let done = done.unwrap_or(Err(Failure::Timeout));
        let seconds = began.elapsed().as_secs_f64();
        let well = done.is_ok();
        match &done {
            Ok(()) if was_well == Some(false) => log::info!("check {}: well again", check.name),
            Err(failure) if was_well != Some(false) => log::warn!("check {}: {failure}", check.name),
            _ => {}
        }
        was_well = Some(well);
        let outcome = done.as_ref().err().map_or("success", Failure::name);
        let mut inner = results.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.last.insert(index, samples(&check, well, seconds, &findings));
        *inner.runs.entry((check.name.clone(), outcome)).or_default() += 1;
    }
}

/// One check of a target.
async fn once(check: &Check, resolver: &mut Resolver, trusts: &Trusts, findings: &mut Findings) -> Result<(), Failure> {
    match &check.what {
        What::Http { at, tls, authority, path, status, body } => {
            let address = resolver.resolve(at, findings).await?;
            let stream = connect(address, findings).await?;
            let (request, wanted) = ((authority.as_str(), path.as_str()), (status.as_slice(), body.as_ref()));
            match tls {
                Some(Vouched(certificate)) => {
                    let trust = trusts.of(certificate.as_deref()).map_err(Failure::Tls)?;
                    let stream = encrypt(&trust, stream, &at.host, findings).await?;
                    http::ask(stream, request, wanted, findings).await
                }
                None => http::ask(stream, request, wanted, findings).await,
            }
        }
        What::Tcp { at } => {
            let address = resolver.resolve(at, findings).await?;
            connect(address, findings).await.map(drop)
        }
        What::Dns { at, question, rcodes } => {
            let address = resolver.resolve(at, findings).await?;
            // Not to be guessed by who is not asked.
            let id = RandomState::new().hash_one(findings.lookup_seconds.map(f64::to_bits)) as u16;
            dns::ask(address, question, rcodes, id, findings).await
        }
    }
}

#[cfg(test)]
mod tests;
