//! Every metric that the agent can show, by what gives it: for `seismo metrics` and for docs/metrics.md.
//!
//! The definitions are those of the code itself; a test holds the list against the source, so that a new metric cannot be
//! left out. Nothing of the host is read.

use std::fmt::Write as _;

use serde::Serialize;

use super::{exporting, pipeline};
use crate::exporters::{account, hops, webhook};
use crate::host::kernel_files;
use crate::model::metric::{Kind, Metric};
use crate::model::probe::FamilySpec;
use crate::model::spelling::{label_name, prometheus_name};
use crate::probes::FAMILIES;
use crate::traces::{graph, sample};
use crate::{alerts, checks, metrics, protocols, store};

/// Metrics that come from one place.
#[derive(Debug, Serialize)]
pub struct Group {
    pub name: &'static str,
    pub gives: &'static str,
    /// Kernel programs behind it; none for what is counted in the agent.
    pub programs: Vec<Program>,
    pub tiers: Vec<Tier>,
    pub metrics: Vec<Row>,
}

#[derive(Debug, Serialize)]
pub struct Program {
    pub name: &'static str,
    pub hook: String,
    /// Empty: whichever tier is used.
    pub tiers: &'static [&'static str],
}

#[derive(Debug, Serialize)]
pub struct Tier {
    pub name: &'static str,
    pub gives: &'static str,
}

#[derive(Debug, Serialize)]
pub struct Row {
    /// As on the metrics page and in queries.
    pub name: String,
    /// OpenTelemetry's spelling.
    pub otel_name: &'static str,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub unit: &'static str,
    pub labels: Vec<String>,
    pub description: &'static str,
}

/// Everything, kernel families first.
pub fn groups() -> Vec<Group> {
    let mut groups: Vec<Group> =
        FAMILIES.iter().map(|family| of_family(family)).filter(|group| !group.metrics.is_empty()).collect();
    groups.push(counted(
        "kernel files",
        "pressure (PSI), CPU throttling, memory and limits, read from the kernel's files",
        kernel_files::METRICS,
    ));
    groups.push(counted("checks", "active checks of configured targets, HTTP, TCP and DNS", checks::METRICS));
    let requests = protocols::METRICS.iter().chain(graph::METRICS).copied();
    let requests: Vec<_> = requests.chain([&metrics::INCOMPLETE_EXCHANGES]).collect();
    groups.push(counted("requests", "requests and responses of connections in scope", &requests));
    groups.push(counted("pipeline", "what became of bytes and connections in the agent", pipeline::METRICS));
    let export: Vec<_> = sample::METRICS.iter().chain(account::METRICS).copied().chain([&exporting::OVERRUN]).collect();
    groups.push(counted(
        "export",
        "spans and metrics on their way to backends and files, where one is configured",
        &export,
    ));
    groups.push(counted(
        "hops",
        "traces that agents on several hosts agree about, where an engine is named",
        hops::METRICS,
    ));
    groups.push(counted("host", "the kernel's own account of the host", &[&metrics::CPU_TIME]));
    let own = metrics::OWN.iter().chain(alerts::METRICS).chain(store::METRICS).copied();
    let own: Vec<_> =
        own.filter(|metric| **metric != metrics::INCOMPLETE_EXCHANGES).chain([&webhook::NOTIFICATIONS]).collect();
    groups.push(counted("agent", "the agent's account of itself", &own));
    groups
}

fn of_family(family: &'static FamilySpec) -> Group {
    let program = |program: &'static crate::model::probe::ProgramSpec| Program {
        name: program.name,
        hook: program.hook.label(),
        tiers: program.tiers,
    };
    Group {
        programs: family.programs.iter().map(program).collect(),
        tiers: family.tiers.iter().map(|tier| Tier { name: tier.name, gives: tier.gives }).collect(),
        ..counted(family.name, family.gives, family.metrics)
    }
}

fn counted(name: &'static str, gives: &'static str, metrics: &[&'static Metric]) -> Group {
    let mut metrics: Vec<Row> = metrics.iter().map(|metric| row(metric)).collect();
    metrics.sort_by(|one, other| one.name.cmp(&other.name));
    Group { name, gives, programs: Vec::new(), tiers: Vec::new(), metrics }
}

fn row(metric: &'static Metric) -> Row {
    Row {
        name: prometheus_name(metric),
        otel_name: metric.name,
        kind: match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        },
        unit: metric.unit,
        labels: metric.labels.iter().map(|label| label_name(label).into_owned()).collect(),
        description: metric.description,
    }
}

/// The list for people.
pub fn text(groups: &[Group]) -> String {
    let mut out = String::new();
    for group in groups {
        let _infallible = writeln!(out, "{}: {}", group.name, group.gives);
        for metric in &group.metrics {
            let labels = metric.labels.join(",");
            let _infallible = writeln!(
                out,
                "  {}{{{labels}}} {} {}\n      {}",
                metric.name, metric.kind, metric.unit, metric.description
            );
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::{groups, metrics};

    fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                sources(&entry.path(), out);
            } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
                out.push(entry.path());
            }
        }
    }

    /// Names of the metrics that a file defines outside of its tests: the first literal after each definition.
    fn defined(text: &str) -> Vec<String> {
        let shipped = text.split("#[cfg(test)]").next().unwrap();
        let definitions = shipped.split(": Metric =").skip(1);
        definitions.map(|rest| rest.split('"').nth(1).unwrap().to_owned()).collect()
    }

    #[test]
    fn every_metric_of_the_source_is_in_the_catalogue() {
        let mut files = Vec::new();
        sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut files);
        files.retain(|file| !file.to_string_lossy().ends_with("tests.rs"));
        let written: BTreeSet<String> =
            files.iter().flat_map(|file| defined(&fs::read_to_string(file).unwrap())).collect();
        let groups = groups();
        let listed: Vec<&str> = groups.iter().flat_map(|group| &group.metrics).map(|metric| metric.otel_name).collect();
        let listed_once: BTreeSet<String> = listed.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(written, listed_once);
        assert_eq!(listed.len(), listed_once.len(), "a metric is in two groups");
    }

    #[test]
    fn all_definitions_are_sound_together() {
        let families = super::FAMILIES.iter().flat_map(|family| family.metrics);
        let others = [metrics::OWN, super::protocols::METRICS, super::pipeline::METRICS];
        let others = others.into_iter().chain([super::kernel_files::METRICS, super::checks::METRICS]);
        let all = families.chain(others.into_iter().flatten()).copied();
        let all = all.chain(super::alerts::METRICS.iter().copied()).chain(super::store::METRICS.iter().copied());
        let all = all.chain(super::sample::METRICS.iter().chain(super::account::METRICS).copied());
        let all = all.chain(super::graph::METRICS.iter().copied()).chain([&super::exporting::OVERRUN]);
        let all = all.chain(super::hops::METRICS.iter().copied());
        assert_eq!(
            metrics::check_definitions(all.chain([&super::webhook::NOTIFICATIONS, &metrics::CPU_TIME])),
            Vec::<String>::new()
        );
    }
}
