//! The agent's configuration: one YAML file, `SEISMO_…` variables over it, checked as a whole before anything starts.
//!
//! File and environment → [`Config`], or a [`ConfigError`] whose every line reads `FILE:LINE: KEY: message`.
//! Units declare their own sections; this file only composes them and checks ranges.

pub mod environment;
pub mod node;
pub mod print;
mod read;
pub mod scope;
pub mod size;

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::payload::MAX_CAPTURE;
use crate::section;
use crate::section::Interval;
use environment::Environment;
use node::{Node, Origin};
use scope::Scope;
use size::ByteSize;

/// Largest configuration file that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;
const PAGE_BYTES: u64 = 4096;
const MAX_RING_BYTES: u64 = 1 << 30;
const MAX_SPANS: usize = 1 << 20;
const MAX_GROUPS: usize = 1 << 16;

section! {
    /// The whole configuration.
    pub struct Config {
        /// Address of the HTTP API and the metrics page (IP:PORT). There is no access control: keep it on a
        /// loopback or otherwise protected address.
        pub listen: Listen = Listen(SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9464)),
        /// Service names that win over what is found out; the first match counts. Each entry is
        /// {match: exe=GLOB or port=N (a port that the process listens on), name: NAME}.
        pub services: Vec<crate::host::names::ServiceRule> = Vec::new(),
    }
    sections {
        /// Whose payloads may be read. Enforced in the kernel.
        pub scope: Scope,
        /// What is copied out of the kernel.
        pub capture: Capture,
        /// Probe families, each with what it needs. One that is off has no program attached. They can be switched while the
        /// agent runs: `seismo probes set`, or here and SIGHUP.
        pub probes: Probes,
        /// How the payload of sockets is seen.
        pub payload: Payload,
        /// System call metrics.
        pub syscalls: Syscalls,
        /// TCP sockets by state, and accept queues.
        pub tcp_sockets: TcpSockets,
        /// Recent spans, kept in memory.
        pub spans: Spans,
        /// What is remembered about processes.
        pub names: crate::host::names::Config,
        /// Workloads: containers, systemd units and other cgroups, as metrics tell them apart.
        pub workloads: crate::host::workloads::Config,
        /// Pressure, throttling and limits, out of the kernel's files.
        pub kernel_files: crate::host::kernel_files::Config,
        /// Connections and their reassembly.
        pub flows: crate::flows::Config,
        /// Linking of spans on one host.
        pub links: crate::traces::link::Config,
        /// Traces that go from host to host.
        pub remote: crate::traces::remote::Config,
        /// Which service asks which, as metrics.
        pub service_graph: crate::traces::graph::Config,
        /// Where the time of requests went.
        pub explain: crate::traces::explain::Config,
        /// The table of series that are observed in the agent.
        pub metrics: crate::metrics::Config,
        /// Samples kept in memory for alert rules and queries.
        pub samples: crate::store::MetricsConfig,
        /// Alert rules and where their alerts are sent.
        pub alerts: crate::alerts::Config,
        /// Which traces are exported.
        pub sampling: crate::traces::sample::Config,
        /// Where spans are sent.
        pub export: crate::exporters::Config,
        /// Active checks. Only these targets are contacted.
        pub checks: crate::checks::Config,
        /// The agent's own log, on standard error.
        pub log: Log,
    }
}

section! {
    /// What is copied out of the kernel.
    pub struct Capture {
        /// Bytes captured of one send or receive, 64 to 8KiB, until a connection has shown what its messages need. What is
        /// longer is known missing, never guessed.
        pub bytes: ByteSize = ByteSize::kib(4),
        /// Bytes captured in a second on each CPU; above, only the beginnings of long operations are, and above twice as much
        /// lengths alone are told. 0: no limit.
        pub bytes_per_second: ByteSize = ByteSize::mib(256),
        /// Ring buffer between kernel and agent, a power of two from 4KiB to 1GiB. Locked memory. On kernels from 6.3 each CPU has
        /// 545 KiB of its own before it, up to as many CPUs as this is large enough for; what finds it full goes to the ring.
        pub ring_bytes: ByteSize = ByteSize::mib(8),
        /// How often the ring is read, 1ms to 1s.
        pub drain_interval: Interval = Interval::millis(5),
        /// For tests: lose one payload record in this many on purpose (0: none). What is lost is counted.
        pub drop_one_in: u32 = 0,
    }
}

section! {
    /// Probe families.
    pub struct Probes {
        /// Process life: starts, exits, names.
        pub process: bool = true,
        /// TCP: connections opened, closed and failed, round trips, retransmits, resets, accept queues.
        pub tcp: bool = true,
        /// UDP: datagrams that found their socket full; errors.
        pub udp: bool = true,
        /// Payload of sockets in scope: requests and spans.
        pub payload: bool = true,
        /// Connections that are older than the agent: one pass over all open sockets at start and when the scope changes.
        pub adopt: bool = true,
        /// Goroutines, Python contexts and tasks of tokio in processes in scope: which request a task sends for. Probes in each
        /// process, 1 to 5 µs for each task that begins or, of tokio, wakes another one (docs/cost.md).
        pub task: bool = true,
        /// Threads of a process that wake each other: which request a thread sends for that another one serves. auto: of Java
        /// processes, while one is in scope; on: of every process in scope; off. About 0.6 µs for each that is woken. Linux 5.15.
        pub wakeup: Wakeups = Wakeups::Auto,
        /// Time of threads on CPU, waiting for one, and off it by reason.
        pub scheduler: bool = true,
        /// System calls: counts, errors, durations.
        pub syscall: bool = true,
        /// Block I/O: bytes, requests, errors and latency by device; what each workload asked for.
        pub block: bool = true,
        /// Memory: page faults, reclaim, kills for lack of memory.
        pub memory: bool = true,
        /// Packets that the kernel dropped, by reason.
        pub drop: bool = true,
        /// Time in interrupts, by kind: two clocks for each. The kernel's own account (`system_cpu_time_seconds_total`) is
        /// always there.
        pub interrupt: bool = false,
        /// Kernel counters by cgroup.
        pub workload: bool = true,
        /// Pressure (PSI) of the host and of each workload, from the kernel's files.
        pub pressure: bool = true,
        /// CPU throttling, memory and limits of each workload, from the kernel's files.
        pub cgroup: bool = true,
        /// Empty programs on the busiest hooks, to measure what a hook costs by itself.
        pub floor: bool = false,
        /// Records that mean nothing, as many as a process asks for, to measure how many can be taken.
        pub records: bool = false,
        /// Keep the kernel's run statistics on (runs and ns per program): about 30 ns a run, needs CAP_SYS_ADMIN.
        pub stats: bool = false,
    }
}

section! {
    /// How the payload of sockets is seen.
    pub struct Payload {
        /// auto: the best that this kernel offers. Else this one or none: l0a (6.16), l0 (6.3), l1 (5.15, where functions
        /// may be traced), l2 (5.10). `seismo doctor` says which is used; docs/coverage.md what each sees.
        pub tier: Tier = Tier::Auto,
    }
}

section! {
    /// System call metrics.
    pub struct Syscalls {
        /// Every call is counted; those that begin in one part in this many of the time are timed. A power of two, 1 to 65536;
        /// 1 times every call, which costs a call about as much again.
        pub sample_one_in: u32 = 16,
    }
}

section! {
    /// TCP sockets by state, and accept queues.
    pub struct TcpSockets {
        /// How often the kernel's table of TCP sockets is gone through at most, which takes about 2 ms for 262144 places
        /// and 0.1 µs a socket; in between, the metrics page shows what was there last.
        pub interval: Interval = Interval::secs(10),
    }
}

section! {
    /// Recent spans.
    pub struct Spans {
        /// Spans kept, 1 to 1048576; the oldest goes first. About 1 KiB each.
        pub capacity: usize = 20_000,
    }
}

section! {
    /// The agent's own log.
    pub struct Log {
        /// Least important level shown: error, warn, info, debug, trace.
        pub level: LogLevel = LogLevel::Info,
        /// text, or json (one object a line).
        pub format: LogFormat = LogFormat::Text,
    }
}

/// Whose threads are watched as they wake each other. To YAML `on` and `off` are the same as `true` and `false`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Wakeups {
    Auto,
    On,
    Off,
}

impl<'de> Deserialize<'de> for Wakeups {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct WakeupsVisitor;

        impl Visitor<'_> for WakeupsVisitor {
            type Value = Wakeups;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("one of auto, on, off")
            }

            fn visit_bool<E: de::Error>(self, on: bool) -> Result<Wakeups, E> {
                Ok(if on { Wakeups::On } else { Wakeups::Off })
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Wakeups, E> {
                match text {
                    "auto" => Ok(Wakeups::Auto),
                    "on" => Ok(Wakeups::On),
                    "off" => Ok(Wakeups::Off),
                    _ => Err(E::custom(format!("'{text}' is none of auto, on, off"))),
                }
            }
        }

        from.deserialize_any(WakeupsVisitor)
    }
}

/// A way to see the payload of sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    Auto,
    L0a,
    L0,
    L1,
    L2,
}

impl Tier {
    /// Name of the tier that must be used; `None`: whichever is best.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::Auto => None,
            Self::L0a => Some("l0a"),
            Self::L0 => Some("l0"),
            Self::L1 => Some("l1"),
            Self::L2 => Some("l2"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(pub SocketAddr);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("'{text}' is not IP:PORT, such as 127.0.0.1:9464 or [::1]:9464"))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One thing wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub origin: Option<Origin>,
    /// Dotted path of the key; empty when the text could not be read as keys at all.
    pub path: String,
    pub message: String,
}

/// Everything wrong with a configuration, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    file: String,
    problems: Vec<Problem>,
}

impl std::error::Error for ConfigError {}

impl std::error::Error for Problem {}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(out, "{}: ", self.path)?;
        }
        // Messages quote what was written; a line break in it must not make two lines of one error.
        out.write_str(&self.message.replace(['\n', '\r'], " "))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let line_break = if index == 0 { "" } else { "\n" };
            match &problem.origin {
                Some(Origin::Line(line)) => write!(out, "{line_break}{}:{line}: {problem}", self.file)?,
                Some(Origin::Variable(name)) => write!(out, "{line_break}{name}: {problem}")?,
                None => write!(out, "{line_break}{}: {problem}", self.file)?,
            }
        }
        Ok(())
    }
}

impl Config {
    /// Reads the file, if there is one, and the environment.
    pub fn load(path: Option<&Path>, environment: &Environment) -> Result<Self, ConfigError> {
        let Some(path) = path else { return Self::from_text("configuration", "", environment) };
        let name = path.display().to_string();
        match read_file(path) {
            Ok(text) => Self::from_text(&name, &text, environment),
            Err(message) => {
                Err(ConfigError { file: name, problems: vec![Problem { origin: None, path: String::new(), message }] })
            }
        }
    }

    /// Reads a text; `file` is what errors call it.
    pub fn from_text(file: &str, text: &str, environment: &Environment) -> Result<Self, ConfigError> {
        let failed = |problems| ConfigError { file: file.to_owned(), problems };
        let mut root = Node::parse(text).map_err(|problem| failed(vec![problem]))?;
        environment::overlay(&mut root, environment).map_err(|problem| failed(vec![problem]))?;
        let config = Self::deserialize(&root).map_err(|mut problem| {
            problem.origin.get_or_insert_with(|| root.origin.clone());
            failed(vec![problem])
        })?;
        let mut problems = config.out_of_range();
        if problems.is_empty() {
            return Ok(config);
        }
        for problem in &mut problems {
            problem.origin = root.origin_of(&problem.path).cloned();
        }
        Err(failed(problems))
    }

    /// Values of the right type that make no sense, with the path of each.
    fn out_of_range(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut check = |path: &str, holds: bool, message: String| {
            if !holds {
                problems.push(Problem { origin: None, path: path.to_owned(), message });
            }
        };
        let Capture { bytes, ring_bytes, drain_interval, .. } = &self.capture;
        check(
            "capture.bytes",
            (64..=u64::from(MAX_CAPTURE)).contains(&bytes.0),
            format!("{bytes} is not between 64 and 8KiB"),
        );
        let ring_fits = ring_bytes.0.is_power_of_two() && (PAGE_BYTES..=MAX_RING_BYTES).contains(&ring_bytes.0);
        check("capture.ring_bytes", ring_fits, format!("{ring_bytes} is not a power of two from 4KiB to 1GiB"));
        let drain_fits = (Interval::millis(1)..=Interval::secs(1)).contains(drain_interval);
        check("capture.drain_interval", drain_fits, format!("{drain_interval} is not between 1ms and 1s"));
        let sample = self.syscalls.sample_one_in;
        let sample_fits = sample.is_power_of_two() && sample <= 65_536;
        check("syscalls.sample_one_in", sample_fits, format!("{sample} is not a power of two from 1 to 65536"));
        let spans = self.spans.capacity;
        check("spans.capacity", (1..=MAX_SPANS).contains(&spans), format!("{spans} is not between 1 and {MAX_SPANS}"));
        let names = self.names.capacity;
        check("names.capacity", (1..=MAX_SPANS).contains(&names), format!("{names} is not between 1 and {MAX_SPANS}"));
        let groups = self.workloads.capacity;
        check(
            "workloads.capacity",
            (1..=MAX_GROUPS).contains(&groups),
            format!("{groups} is not between 1 and {MAX_GROUPS}"),
        );
        let margin = self.links.margin;
        check("links.margin", (0.0..=1.0).contains(&margin), format!("{margin} is not between 0 and 1"));
        let idle = self.flows.idle_check;
        check("flows.idle_check", idle >= Interval::secs(1), format!("{idle} is less than 1s"));
        for (index, key, problem) in self.checks.problems() {
            check(&format!("checks.targets[{index}].{key}"), false, problem);
        }
        for (key, problem) in self.sampling.problems() {
            check(&format!("sampling.{key}"), false, problem);
        }
        for (key, problem) in self.export.problems() {
            check(&format!("export.{key}"), false, problem);
        }
        if let Some(problem) = crate::exporters::hops::problem(self.remote.redis.as_deref()) {
            check("remote.redis", false, problem);
        }
        for (index, rule) in self.services.iter().enumerate() {
            check(&format!("services[{index}].name"), !rule.name.trim().is_empty(), "the name is empty".to_owned());
        }
        problems
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("longer than {}", ByteSize(MAX_FILE_BYTES)));
    }
    Ok(text)
}
