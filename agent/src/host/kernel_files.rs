//! The kernel's own accounts as metrics: pressure (PSI) of the host and of each workload, CPU throttling and time, limits.
//!
//! `/proc/pressure/*`; in cgroup v2 `*.pressure`, `cpu.stat`, `cpu.max`, `memory.current`, `memory.max`; in v1 `cpu.stat`,
//! `cpu.cfs_*`, `cpuacct.usage_*`, `memory.usage_in_bytes`, `memory.limit_in_bytes`. Where both versions are mounted, each
//! controller is read where it is. A file that is not there gives no value, never a zero, and what cannot be had at all is told
//! as unsupported. Cost: one walk of each hierarchy and about seven small files a workload, at most `limit` workloads.

use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cgroup::Hierarchy;
use super::kernel_text::{self, Pressure};
use super::tree::Tree;
use crate::health::{ProbeState, ProbeStatus};
use crate::model::metric::{Kind, Metric, Sample, Value};
use crate::model::workload::{Workload, WorkloadSample};
use crate::section::Interval;
use crate::workload_labels;

/// Longest part of a file that is read.
const MAX_BYTES: usize = 4096;
const RESOURCES: [&str; 3] = ["cpu", "memory", "io"];
/// `EOPNOTSUPP`: the kernel has PSI, and it is off.
const NOT_SUPPORTED: i32 = 95;

crate::section! {
    /// Pressure, throttling and limits, out of the kernel's files.
    pub struct Config {
        /// How often the files are read at most; in between, the metrics page shows what was read last.
        pub interval: Interval = Interval::secs(10),
    }
}

pub static PRESSURE: Metric = Metric {
    name: "seismo.pressure.waiting",
    unit: "s",
    kind: Kind::Counter,
    description: "Time in which some or all (full) tasks of this host waited for a resource",
    labels: &["resource", "kind"],
};
pub static CGROUP_PRESSURE: Metric = Metric {
    name: "seismo.cgroup.pressure.waiting",
    unit: "s",
    kind: Kind::Counter,
    description: "Time in which some or all (full) tasks of a workload waited for a resource",
    labels: workload_labels!["resource", "kind"],
};
pub static PERIODS: Metric = workload(
    "seismo.cgroup.cpu.periods",
    "{period}",
    Kind::Counter,
    "Enforcement periods of the workload's CPU limit that have elapsed",
);
pub static THROTTLED_PERIODS: Metric = workload(
    "seismo.cgroup.cpu.throttled_periods",
    "{period}",
    Kind::Counter,
    "Periods in which the workload had used up its CPU limit",
);
pub static THROTTLED: Metric = workload(
    "seismo.cgroup.cpu.throttled",
    "s",
    Kind::Counter,
    "Time in which the workload was held back by its CPU limit, added up over CPUs",
);
pub static CPU_LIMIT: Metric = workload(
    "seismo.cgroup.cpu.limit",
    "{cpu}",
    Kind::Gauge,
    "CPUs that the workload may use, by its own limit and not those above it; absent without one",
);
pub static MEMORY_USAGE: Metric =
    workload("seismo.cgroup.memory.usage", "By", Kind::Gauge, "Memory charged to the workload, page cache included");
pub static MEMORY_LIMIT: Metric = workload(
    "seismo.cgroup.memory.limit",
    "By",
    Kind::Gauge,
    "Memory that the workload may use, by its own limit and not those above it; absent without one",
);
pub static CONTAINER_CPU: Metric = Metric {
    name: "container.cpu.time",
    unit: "s",
    kind: Kind::Counter,
    description: "CPU time of a container",
    labels: workload_labels![crate::semconv::CPU_MODE],
};
pub static CONTAINER_MEMORY: Metric =
    workload("container.memory.usage", "By", Kind::Gauge, "Memory charged to a container, page cache included");
pub static UNREAD: Metric = Metric {
    name: "seismo.cgroup.unread",
    unit: "{file}",
    kind: Kind::Counter,
    description: "Accounts of workloads that were not read: workloads above the bound, files that are refused or not as expected",
    labels: &["reason"],
};

/// Every metric of this unit.
pub const METRICS: &[&Metric] = &[
    &PRESSURE,
    &CGROUP_PRESSURE,
    &PERIODS,
    &THROTTLED_PERIODS,
    &THROTTLED,
    &CPU_LIMIT,
    &MEMORY_USAGE,
    &MEMORY_LIMIT,
    &CONTAINER_CPU,
    &CONTAINER_MEMORY,
    &UNREAD,
];

const fn workload(name: &'static str, unit: &'static str, kind: Kind, description: &'static str) -> Metric {
    Metric { name, unit, kind, description, labels: workload_labels![] }
}

/// Which accounts are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub pressure: bool,
    pub cgroup: bool,
}

/// What is read of the groups of one hierarchy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Accounts {
    pressure: bool,
    cpu: Option<Version>,
    /// CPU time of version 1.
    cpuacct: bool,
    memory: Option<Version>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Names a workload by its path and the directory of its processes.
pub type Describe<'a> = dyn FnMut(&str, &Path) -> Arc<Workload> + 'a;

/// What there is to read on this host. See the module's documentation.
#[derive(Debug)]
pub struct KernelFiles {
    proc: PathBuf,
    host_pressure: bool,
    trees: Vec<(Tree, Accounts)>,
    statuses: Vec<ProbeStatus>,
    /// Workloads by path, as long as they are there.
    described: HashMap<Box<str>, Arc<Workload>>,
    limit: usize,
    unread: Unread,
}

#[derive(Debug, Default)]
struct Unread {
    too_many: u64,
    refused: u64,
    malformed: u64,
}

/// What one pass read.
#[derive(Debug, Default)]
pub struct Readings {
    pub host: Vec<Sample>,
    pub workloads: Vec<WorkloadSample>,
}

impl KernelFiles {
    /// Looks what this host has. `limit` is how many workloads of a hierarchy are read.
    pub fn new(proc_root: impl Into<PathBuf>, wanted: Wanted, limit: usize) -> Self {
        let proc = proc_root.into();
        let pressure = psi(&proc);
        let two = Hierarchy::mounted(&proc).map(|hierarchy| hierarchy.mount().to_owned());
        let cpu = controller(&proc, two.as_deref().ok(), "cpu");
        let memory = controller(&proc, two.as_deref().ok(), "memory");
        let groups_pressure = match (&pressure, &two) {
            (Err(fact), _) => Err(fact.clone()),
            (Ok(()), Err(error)) => Err(error.clone()),
            (Ok(()), Ok(mount)) if !has_pressure(mount) => Err("no group has cpu.pressure".to_owned()),
            (Ok(()), Ok(mount)) => Ok(mount.clone()),
        };
        let file = |at: &Result<(PathBuf, Version), String>, two: &str, one: &str| match at {
            Ok((_, Version::One)) => format!("file/cgroup/{one}"),
            _ => format!("file/cgroup2/{two}"),
        };
        let told = |probe: &str, program: &str, hook: String, wanted: bool, fact: Option<&String>| {
            status(probe, program, hook, wanted, fact)
        };
        let statuses = vec![
            told("pressure", "pressure_host", "file/proc/pressure".into(), wanted.pressure, pressure.as_ref().err()),
            told(
                "pressure",
                "pressure_workloads",
                "file/cgroup2/*.pressure".into(),
                wanted.pressure,
                groups_pressure.as_ref().err(),
            ),
            told("cgroup", "cgroup_cpu", file(&cpu, "cpu.stat", "cpu.stat"), wanted.cgroup, cpu.as_ref().err()),
            told(
                "cgroup",
                "cgroup_memory",
                file(&memory, "memory.current", "memory.usage_in_bytes"),
                wanted.cgroup,
                memory.as_ref().err(),
            ),
        ];
        let mut trees: Vec<(PathBuf, Accounts)> = Vec::new();
        let mut at = |mount: PathBuf, set: &dyn Fn(&mut Accounts)| match trees.iter_mut().find(|(at, _)| *at == mount) {
            Some((_, accounts)) => set(accounts),
            None => {
                let mut accounts = Accounts::default();
                set(&mut accounts);
                trees.push((mount, accounts));
            }
        };
        if wanted.pressure
            && let Ok(mount) = groups_pressure
        {
            at(mount, &|accounts| accounts.pressure = true);
        }
        if wanted.cgroup {
            if let Ok((mount, version)) = cpu {
                at(mount, &|accounts| accounts.cpu = Some(version));
                if let (Version::One, Some(mount)) = (version, Hierarchy::version_one(&proc, "cpuacct")) {
                    at(mount, &|accounts| accounts.cpuacct = true);
                }
            }
            if let Ok((mount, version)) = memory {
                at(mount, &|accounts| accounts.memory = Some(version));
            }
        }
        Self {
            host_pressure: wanted.pressure && pressure.is_ok(),
            trees: trees.into_iter().map(|(mount, accounts)| (Tree::new(mount), accounts)).collect(),
            statuses,
            described: HashMap::new(),
            limit,
            unread: Unread::default(),
            proc,
        }
    }

    /// What is read and what is not, with the fact that stands against it; as kernel programs are told.
    pub fn statuses(&self) -> &[ProbeStatus] {
        &self.statuses
    }

    /// Reads everything there is now. A group that goes meanwhile is left out.
    pub fn read(&mut self, describe: &mut Describe<'_>) -> Readings {
        let mut readings = Readings::default();
        if self.host_pressure {
            for resource in RESOURCES {
                let file = self.proc.join("pressure").join(resource);
                let value = self.unread.parsed(&file, kernel_text::pressure);
                for (kind, seconds) in value.iter().flat_map(waited) {
                    let labels = vec![resource.into(), kind.into()];
                    readings.host.push(Sample { metric: &PRESSURE, labels, value: Value::Float(seconds) });
                }
            }
        }
        let mut described = std::mem::take(&mut self.described);
        for (tree, accounts) in &mut self.trees {
            tree.walk();
            let mut roots = tree.workload_roots();
            self.unread.too_many += roots.len().saturating_sub(self.limit) as u64;
            roots.truncate(self.limit);
            for path in roots {
                let directory = tree.directory(path);
                let workload = match self.described.get(path).or_else(|| described.get(path)) {
                    Some(workload) => Arc::clone(workload),
                    None => describe(path, &directory),
                };
                // What is not seen in this pass is forgotten.
                described.remove(path);
                self.described.insert(path.into(), Arc::clone(&workload));
                let mut group =
                    Group { directory: &directory, workload, unread: &mut self.unread, out: &mut readings.workloads };
                group.read(*accounts);
            }
        }
        let Unread { too_many, refused, malformed } = self.unread;
        if !self.trees.is_empty() {
            let counts = [("too_many", too_many), ("refused", refused), ("malformed", malformed)];
            readings.host.extend(counts.map(|(reason, count)| Sample {
                metric: &UNREAD,
                labels: vec![reason.into()],
                value: Value::Count(count),
            }));
        }
        readings
    }
}

/// One group while it is read.
struct Group<'a> {
    directory: &'a Path,
    workload: Arc<Workload>,
    unread: &'a mut Unread,
    out: &'a mut Vec<WorkloadSample>,
}

impl Group<'_> {
    fn read(&mut self, accounts: Accounts) {
        if accounts.pressure {
            for resource in RESOURCES {
                let value = self.parsed(&format!("{resource}.pressure"), kernel_text::pressure);
                for (kind, seconds) in value.iter().flat_map(waited) {
                    self.push(&CGROUP_PRESSURE, &[resource, kind], Value::Float(seconds));
                }
            }
        }
        let container = self.workload.container_id.is_some();
        if let Some(version) = accounts.cpu {
            let stat = self.parsed("cpu.stat", |text| Some(kernel_text::cpu_stat(text))).unwrap_or_default();
            self.count(&PERIODS, stat.periods);
            self.count(&THROTTLED_PERIODS, stat.throttled_periods);
            self.time(&THROTTLED, &[], stat.throttled_ns);
            if container {
                self.time(&CONTAINER_CPU, &["user"], stat.user_ns);
                self.time(&CONTAINER_CPU, &["system"], stat.system_ns);
            }
            let limit = match version {
                Version::Two => self.text("cpu.max").and_then(|text| kernel_text::cpu_max(&text)),
                Version::One => {
                    let quota = self.text("cpu.cfs_quota_us");
                    let period = self.text("cpu.cfs_period_us");
                    quota.zip(period).and_then(|(quota, period)| kernel_text::cpus(&quota, &period))
                }
            };
            if let Some(cpus) = limit {
                self.push(&CPU_LIMIT, &[], Value::Float(cpus));
            }
        }
        if accounts.cpuacct && container {
            for (file, mode) in [("cpuacct.usage_user", "user"), ("cpuacct.usage_sys", "system")] {
                let ns = self.parsed(file, |text| text.trim().parse().ok());
                self.time(&CONTAINER_CPU, &[mode], ns);
            }
        }
        if let Some(version) = accounts.memory {
            let (usage, limit) = match version {
                Version::Two => ("memory.current", "memory.max"),
                Version::One => ("memory.usage_in_bytes", "memory.limit_in_bytes"),
            };
            let usage = self.parsed(usage, |text| text.trim().parse().ok());
            self.count(&MEMORY_USAGE, usage);
            if container {
                self.count(&CONTAINER_MEMORY, usage);
            }
            let limit = self.text(limit).and_then(|text| kernel_text::limit(&text));
            self.count(&MEMORY_LIMIT, limit);
        }
    }

    fn text(&mut self, file: &str) -> Option<String> {
        self.unread.text(&self.directory.join(file))
    }

    fn parsed<T>(&mut self, file: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        self.unread.parsed(&self.directory.join(file), parse)
    }

    fn count(&mut self, metric: &'static Metric, count: Option<u64>) {
        if let Some(count) = count {
            self.push(metric, &[], Value::Count(count));
        }
    }

    fn time(&mut self, metric: &'static Metric, labels: &[&'static str], ns: Option<u64>) {
        if let Some(ns) = ns {
            self.push(metric, labels, Value::Float(ns as f64 / 1e9));
        }
    }

    fn push(&mut self, metric: &'static Metric, labels: &[&'static str], value: Value) {
        let labels = labels.iter().map(|label| (*label).into()).collect();
        let workload = Some(Arc::clone(&self.workload));
        self.out.push(WorkloadSample { workload, sample: Sample { metric, labels, value } });
    }
}

impl Unread {
    /// A file's text; `None` when it is not there, or is refused, which is counted.
    fn text(&mut self, file: &Path) -> Option<String> {
        match read(file) {
            Ok(text) => Some(text),
            // ENODEV: the group went between opening and reading.
            Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(19) => None,
            Err(_) => {
                self.refused += 1;
                None
            }
        }
    }

    fn parsed<T>(&mut self, file: &Path, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let text = self.text(file)?;
        let value = parse(&text);
        self.malformed += u64::from(value.is_none());
        value
    }
}

fn waited(pressure: &Pressure) -> impl Iterator<Item = (&'static str, f64)> + use<> {
    let full = pressure.full_us.map(|us| ("full", us as f64 / 1e6));
    [("some", pressure.some_us as f64 / 1e6)].into_iter().chain(full)
}

/// The kernel gives such a file in one read: three system calls.
fn read(file: &Path) -> std::io::Result<String> {
    let mut bytes = [0; MAX_BYTES];
    let length = File::open(file)?.read(&mut bytes)?;
    Ok(String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into_owned())
}

/// Whether the kernel accounts pressure; else the fact that stands against it.
fn psi(proc: &Path) -> Result<(), String> {
    match read(&proc.join("pressure/cpu")) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err("no /proc/pressure: the kernel was built without CONFIG_PSI".to_owned())
        }
        Err(error) if error.raw_os_error() == Some(NOT_SUPPORTED) => {
            Err("pressure is not accounted: boot with psi=1".to_owned())
        }
        Err(error) => Err(format!("/proc/pressure/cpu: {error}")),
    }
}

/// The root of version 2 has no pressure files on older kernels: any of its groups will do.
fn has_pressure(mount: &Path) -> bool {
    let groups = std::fs::read_dir(mount).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut any = std::iter::once(mount.to_owned()).chain(groups);
    any.any(|group| group.join("cpu.pressure").exists())
}

/// Where a controller's accounts are.
fn controller(proc: &Path, two: Option<&Path>, name: &str) -> Result<(PathBuf, Version), String> {
    if let Some(mount) = two {
        let controllers = read(&mount.join("cgroup.controllers")).unwrap_or_default();
        if controllers.split_whitespace().any(|word| word == name) {
            return Ok((mount.to_owned(), Version::Two));
        }
    }
    let one = Hierarchy::version_one(proc, name).map(|mount| (mount, Version::One));
    one.ok_or_else(|| format!("the {name} controller is in no cgroup hierarchy that is mounted"))
}

fn status(probe: &str, program: &str, hook: String, wanted: bool, fact: Option<&String>) -> ProbeStatus {
    let (state, reason) = match (wanted, fact) {
        (false, _) => (ProbeState::Disabled, String::new()),
        (true, None) => (ProbeState::Active, String::new()),
        (true, Some(fact)) => (ProbeState::Unsupported, fact.clone()),
    };
    ProbeStatus {
        probe: probe.to_owned(),
        program: program.to_owned(),
        hook,
        state,
        tier: String::new(),
        reason,
        verified_instructions: 0,
        runs: None,
        run_ns: None,
    }
}

#[cfg(test)]
mod tests;
