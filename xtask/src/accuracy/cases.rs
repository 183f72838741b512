//! The matrix: which applications, in what order they call, with what in between, under which conditions.
//!
//! A row is a case; each is run at every concurrency. Extra conditions (lost records, connections older than the agent)
//! are run for a few of them, at the highest concurrency.

use super::programs::Program;
use super::servers::Proxy;

pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) program: Program,
    pub(super) proxy: Option<Proxy>,
    /// Whether S1 calls the two others at the same time.
    pub(super) parallel: bool,
    /// One thread has a request from its first byte to its last, calls included.
    pub(super) thread_per_request: bool,
    /// What it is, in a few words.
    pub(super) what: &'static str,
    /// Whether a run of everything has it under the extra conditions too.
    pub(super) extra: bool,
}

pub(super) const CASES: &[Case] = &[
    Case {
        name: "python-threads",
        program: Program::PythonThreads,
        proxy: None,
        parallel: false,
        thread_per_request: true,
        what: "Flask, gunicorn's threads, requests, redis-py, psycopg",
        extra: true,
    },
    Case {
        name: "python-asyncio",
        program: Program::PythonAsyncio,
        proxy: None,
        parallel: true,
        thread_per_request: false,
        what: "aiohttp on both sides, redis.asyncio, psycopg's async connections; calls at the same time",
        extra: false,
    },
    Case {
        name: "python-fastapi",
        program: Program::PythonFastapi,
        proxy: None,
        parallel: false,
        thread_per_request: false,
        what: "FastAPI under uvicorn, aiohttp's client, redis.asyncio, psycopg's async connections",
        extra: false,
    },
    Case {
        name: "node",
        program: Program::Node,
        proxy: None,
        parallel: true,
        thread_per_request: false,
        what: "plain http on both sides, one pipelined Redis connection; calls at the same time",
        extra: false,
    },
    Case {
        name: "java",
        program: Program::Java,
        proxy: None,
        parallel: false,
        thread_per_request: false,
        what: "HttpServer with a fixed thread pool, HttpClient with its own threads",
        extra: false,
    },
    Case {
        name: "go",
        program: Program::Go,
        proxy: None,
        parallel: true,
        thread_per_request: false,
        what: "net/http on both sides, a goroutine for each call; calls at the same time",
        extra: true,
    },
    Case {
        name: "rust-tokio",
        program: Program::RustTokio,
        proxy: None,
        parallel: true,
        thread_per_request: false,
        what: "hyper on two tokio threads; calls at the same time",
        extra: false,
    },
    Case {
        name: "rust-queue",
        program: Program::RustQueue,
        proxy: None,
        parallel: false,
        thread_per_request: false,
        what: "threads that read, a queue, threads that work with blocking clients and write",
        extra: false,
    },
    Case {
        name: "nginx",
        program: Program::PythonThreads,
        proxy: Some(Proxy::Nginx),
        parallel: false,
        thread_per_request: false,
        what: "python-threads with nginx between S1 and S2",
        extra: false,
    },
    Case {
        name: "haproxy",
        program: Program::PythonThreads,
        proxy: Some(Proxy::Haproxy),
        parallel: false,
        thread_per_request: false,
        what: "python-threads with HAProxy between S1 and S2",
        extra: false,
    },
];

/// What is made difficult.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// The agent is there first, nothing is lost on purpose.
    Plain,
    /// All connections are older than the agent.
    Existing,
    /// One payload record in so many is lost on purpose.
    Loss(u32),
}

impl Condition {
    pub(super) fn name(self) -> String {
        match self {
            Self::Plain => "-".to_owned(),
            Self::Existing => "older connections".to_owned(),
            Self::Loss(one_in) => format!("1 in {one_in} lost"),
        }
    }
}

pub(super) fn find(name: &str) -> Result<&'static Case, String> {
    CASES.iter().find(|case| case.name == name).ok_or_else(|| {
        let names: Vec<_> = CASES.iter().map(|case| case.name).collect();
        format!("known are {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_a_name_of_its_own() {
        for (index, case) in CASES.iter().enumerate() {
            assert!(CASES.iter().skip(index + 1).all(|other| other.name != case.name), "{}", case.name);
            assert!(find(case.name).is_ok());
        }
        assert!(find("pythn").is_err());
    }
}
