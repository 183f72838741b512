//! What the API shows of the running agent: the sources' samples, the rules, the flow table, the kernel's counts.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::catalogue;
use super::kernel::KernelSource;
use super::pipeline::{View, WORKLOAD_BYTES};
use super::probe_control::ProbeControl;
use super::samples::Samples;
use super::scope_control::{Refusal, ScopeControl};
use crate::alerts::Engine;
use crate::api::{Definition, Ends, Page, Pages, Read, Refused};
use crate::clock;
use crate::config::scope::Scope;
use crate::exporters::prometheus::{self, Format};
use crate::host::callers;
use crate::metrics::{Table, gather};
use crate::model::exemplar::Exemplars;
use crate::model::metric::{Source, Value as Measured};
use crate::store::spans::Spans;

/// Handles to everything that a page reads.
pub struct RunningAgent {
    pub sources: Arc<[Arc<dyn Source>]>,
    pub engine: Arc<Mutex<Engine>>,
    pub samples: Arc<Samples>,
    pub kernel: Arc<KernelSource>,
    pub view: Arc<View>,
    pub table: Arc<Table>,
    pub spans: Arc<Spans>,
    pub control: Arc<ScopeControl>,
    pub probes: Arc<ProbeControl>,
}

impl Pages for RunningAgent {
    fn metrics(&self, accept: Option<&str>) -> Result<Page, String> {
        let format = prometheus::negotiate(accept);
        // Before the counts, so that each stands behind a bucket that has its value.
        let exemplars = match format {
            Format::OpenMetrics | Format::Protobuf => self.table.exemplars(&self.spans.held()),
            Format::Text => Exemplars::default(),
        };
        let samples = gather(&self.sources);
        let body = prometheus::render(&samples, &exemplars, format).map_err(|error| error.to_string())?;
        Ok(Page { content_type: format.content_type().to_owned(), body })
    }

    fn samples(&self, read: &mut Read<'_>) {
        self.samples.query(i64::try_from(clock::wall_ns() / 1_000_000).unwrap_or(i64::MAX), read);
    }

    fn definitions(&self) -> Vec<Definition> {
        let metrics = catalogue::groups().into_iter().flat_map(|group| group.metrics);
        metrics.map(|row| Definition { name: row.name, kind: row.kind, help: row.description }).collect()
    }

    fn rules(&self) -> Value {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner).rules_json()
    }

    fn alerts(&self) -> Value {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner).alerts_json()
    }

    fn flows(&self) -> Value {
        let shown = self.view.flows.lock().unwrap_or_else(PoisonError::into_inner);
        json!({ "tracked": self.view.tracked.load(Ordering::Relaxed), "connections": *shown })
    }

    fn workloads(&self) -> Value {
        let mut samples = Vec::new();
        self.table.collect(&mut samples);
        let mut services: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
        for sample in samples.iter().filter(|sample| sample.metric == &WORKLOAD_BYTES) {
            if let ([service, visibility], Measured::Count(bytes)) = (&sample.labels[..], &sample.value) {
                services.entry(service.to_string()).or_default().insert(visibility.to_string(), (*bytes).into());
            }
        }
        services.into_iter().map(|(service, bytes)| json!({ "service.name": service, "bytes": bytes })).collect()
    }

    fn scope(&self) -> Value {
        json!(self.control.current())
    }

    fn set_scope(&self, caller: Ends, wanted: Value) -> Result<Value, Refused> {
        permitted(caller, "change the scope")?;
        let scope: Scope = serde_json::from_value(wanted).map_err(|error| Refused::Wrong(error.to_string()))?;
        match self.probes.change_scope(scope) {
            Ok(adopted) => Ok(json!({ "scope": self.control.current(), "adopted": adopted })),
            Err(Refusal::Wrong(message)) => Err(Refused::Wrong(message)),
            Err(Refusal::Failed(message)) => Err(Refused::Failed(message)),
        }
    }

    fn switch_probes(&self, caller: Ends, wanted: Value) -> Result<Value, Refused> {
        permitted(caller, "switch probe families")?;
        let Switch { family, enabled } =
            serde_json::from_value(wanted).map_err(|error| Refused::Wrong(error.to_string()))?;
        self.probes.set(&family, enabled, "switched off while the agent runs")
    }

    fn kernel(&self) -> Value {
        self.kernel.account();
        let lanes: Map<String, Value> =
            self.kernel.lanes().into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
        Value::Object(lanes)
    }
}

/// What is asked for when a probe family is switched.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Switch {
    family: String,
    enabled: bool,
}

/// Reading more of this host than before, or less, is root's to decide, and that of whoever runs the agent.
fn permitted(caller: Ends, to: &str) -> Result<(), Refused> {
    match callers::user(Path::new("/proc/self/net"), caller.peer, caller.local) {
        Some(user) if user == 0 || Some(user) == callers::own_user(Path::new("/proc/self")) => Ok(()),
        _ => Err(Refused::Forbidden(format!("only root on this host, and the user that runs the agent, may {to}"))),
    }
}
