//! docs/metrics.md: every metric with its type, unit, labels and what gives it, as `seismo metrics --json` tells.
//!
//! What a kernel program costs comes from the last table of docs/cost.md; a program that was not measured has no cost.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{shell, workspace};

const COST: &str = "docs/cost.md";

#[derive(Debug, Deserialize)]
struct Group {
    name: String,
    gives: String,
    programs: Vec<Program>,
    tiers: Vec<Tier>,
    metrics: Vec<Metric>,
}

#[derive(Debug, Deserialize)]
struct Program {
    name: String,
    hook: String,
    tiers: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Tier {
    name: String,
    gives: String,
}

#[derive(Debug, Deserialize)]
struct Metric {
    name: String,
    otel_name: String,
    #[serde(rename = "type")]
    kind: String,
    unit: String,
    labels: Vec<String>,
    description: String,
}

pub fn render(agent: &Path) -> Result<String> {
    let groups = shell::output(Command::new(agent).args(["metrics", "--json"]).env_clear())?;
    let groups: Vec<Group> = serde_json::from_str(&groups).context("seismo metrics --json")?;
    let measured = fs::read_to_string(workspace::root().join(COST)).context(COST)?;
    Ok(page(&groups, &costs(&measured)))
}

/// Nanoseconds over an empty program, by program, out of the table whose head begins with `kernel program`.
fn costs(text: &str) -> BTreeMap<&str, &str> {
    let table = text.lines().skip_while(|line| !line.starts_with("kernel program")).skip(1);
    table
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            let mut columns = line.split("  ").map(str::trim).filter(|column| !column.is_empty());
            let (program, over_empty) = (columns.next()?, columns.nth(2)?);
            over_empty.contains(" ns").then_some((program, over_empty))
        })
        .collect()
}

fn page(groups: &[Group], costs: &BTreeMap<&str, &str>) -> String {
    let mut out = format!(
        "# Metrics\n\n\
         Every metric that the agent can show, under the name that queries use; `seismo metrics` prints the same list. A metric\n\
         whose source the host does not have is absent, never zero. Labels that tell workloads apart (`service_name`,\n\
         `container_id`, `k8s_namespace_name`, `k8s_pod_name`, `cgroup`) are there as far as `metrics.workload_labels` chooses\n\
         them ([configuration.md](configuration.md)). Costs are those of {}, ns a run over an empty program\n\
         with quartiles; programs without one were not measured there. Written by `cargo xtask gen`.\n",
        "[cost.md](cost.md)"
    );
    for Group { name, gives, programs, tiers, metrics } in groups {
        let _infallible = write!(out, "\n## {name}\n\n{}.\n\n", capitalised(gives));
        out.push_str("| metric | type | unit | labels | what |\n|---|---|---|---|---|\n");
        for metric in metrics {
            let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            let _infallible = writeln!(
                out,
                "| `{}` | {} | {} | {} | {} |",
                metric.name,
                metric.kind,
                metric.unit,
                labels.join(" "),
                metric.description.replace('|', "\\|")
            );
        }
        let named: Vec<String> = metrics.iter().map(|metric| format!("`{}`", metric.otel_name)).collect();
        let _infallible = write!(out, "\nIn OpenTelemetry's spelling: {}.\n", named.join(", "));
        if programs.is_empty() {
            continue;
        }
        out.push_str("\n| program | hook | tier | cost |\n|---|---|---|---|\n");
        for Program { name, hook, tiers } in programs {
            let tiers = if tiers.is_empty() { "every".to_owned() } else { tiers.join(", ") };
            let cost = costs.get(name.as_str()).copied().unwrap_or("");
            let _infallible = writeln!(out, "| `{name}` | `{hook}` | {tiers} | {cost} |");
        }
        if !tiers.is_empty() {
            out.push('\n');
        }
        for tier in tiers {
            let _infallible = writeln!(out, "- {}: {}", tier.name, tier.gives);
        }
    }
    out
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSTS: &str = "# What it costs\n```\nwhat  measured\n\nkernel program          hook               ns a run   over empty     instructions\n\
                         syscall_enter           tp_btf/sys_enter   106.5 ns [1–2]   38.3 ns [35.6–41.2]   107\n\
                         syscall_enter, every call  tp_btf/sys_enter   151.7 ns   82.8 ns   106\n\nmedian\n```\n";

    #[test]
    fn a_family_shows_its_metrics_its_hooks_and_what_they_cost() -> Result<()> {
        let groups: Vec<Group> = serde_json::from_str(
            r#"[{"name": "syscall", "gives": "calls counted", "tiers": [{"name": "l0", "gives": "all"}],
                "programs": [{"name": "syscall_enter", "hook": "tp_btf/sys_enter", "tiers": []},
                             {"name": "syscall_exit", "hook": "tp_btf/sys_exit", "tiers": ["l0", "l1"]}],
                "metrics": [{"name": "seismo_syscalls_total", "otel_name": "seismo.syscalls", "type": "counter",
                             "unit": "{call}", "labels": ["syscall", "cgroup"], "description": "Calls|all"}]}]"#,
        )?;
        let page = page(&groups, &costs(COSTS));
        for line in [
            "## syscall",
            "Calls counted.",
            "| `seismo_syscalls_total` | counter | {call} | `syscall` `cgroup` | Calls\\|all |",
            "| `syscall_enter` | `tp_btf/sys_enter` | every | 38.3 ns [35.6–41.2] |",
            "| `syscall_exit` | `tp_btf/sys_exit` | l0, l1 |  |",
            "- l0: all",
        ] {
            assert!(page.lines().any(|each| each == line), "{line} in:\n{page}");
        }
        Ok(())
    }
}
