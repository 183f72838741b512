//! Kernel files in directories that look like procfs and cgroup hierarchies of either version.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use super::{KernelFiles, Wanted};
use crate::model::workload::Workload;

const ALL: Wanted = Wanted { pressure: true, cgroup: true };
const PSI: &str =
    "some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=500000\n";

struct Host(PathBuf);

impl Host {
    /// `mounts` are lines of mountinfo after the mount point: `DIR TYPE OPTIONS`.
    fn new(name: &str, mounts: &[(&str, &str, &str)]) -> Self {
        let host = Self(std::env::temp_dir().join(format!("seismo-files-{name}-{}", std::process::id())));
        let lines = mounts.iter().map(|(directory, kind, options)| {
            fs::create_dir_all(host.0.join(directory)).unwrap();
            format!("41 31 0:38 / {}/{directory} rw,relatime - {kind} {kind} rw,{options}\n", host.0.display())
        });
        host.file("proc/self/mountinfo", &lines.collect::<String>());
        host
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn files(&self, wanted: Wanted) -> KernelFiles {
        KernelFiles::new(self.0.join("proc"), wanted, 100)
    }

    /// What a pass reads, one line a value; a workload is its path, `+` when it is a container.
    fn read(files: &mut KernelFiles) -> Vec<String> {
        let readings = files.read(&mut |path, _| {
            let container_id = path.contains("docker").then(|| "x".to_owned());
            Arc::new(Workload { cgroup: path.to_owned(), container_id, ..Workload::default() })
        });
        let host = readings.host.into_iter().map(|sample| ("host".to_owned(), sample));
        let workloads = readings.workloads.into_iter().map(|each| (each.workload.unwrap().cgroup.clone(), each.sample));
        let mut lines: Vec<String> = host
            .chain(workloads)
            .map(|(whose, sample)| {
                format!("{whose} {} {} {:?}", sample.metric.name, sample.labels.join(","), sample.value)
            })
            .collect();
        lines.sort_unstable();
        lines
    }

    fn states(files: &KernelFiles) -> Vec<String> {
        let text = |status: &crate::health::ProbeStatus| {
            format!("{} {} {} {}", status.program, status.hook, status.state.name(), status.reason)
                .trim_end()
                .to_owned()
        };
        files.statuses().iter().map(text).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _best_effort = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn version_two_gives_pressure_throttling_and_limits_of_host_and_workloads() {
    let host = Host::new("two", &[("v2", "cgroup2", "nsdelegate")]);
    for resource in ["cpu", "memory", "io"] {
        host.file(&format!("proc/pressure/{resource}"), PSI);
    }
    host.file("v2/cgroup.controllers", "cpuset cpu io memory pids\n");
    host.file("v2/docker/0123/cpu.pressure", PSI);
    host.file(
        "v2/docker/0123/cpu.stat",
        "user_usec 3000000\nsystem_usec 1000000\nnr_periods 8\nnr_throttled 2\nthrottled_usec 1500000\n",
    );
    host.file("v2/docker/0123/cpu.max", "150000 100000\n");
    host.file("v2/docker/0123/memory.current", "4096\n");
    host.file("v2/docker/0123/memory.max", "max\n");
    // Without the controllers there are times alone, which are a container's to have.
    host.file("v2/a.service/cpu.stat", "user_usec 3000000\nsystem_usec 1000000\n");
    let mut files = host.files(ALL);
    assert_eq!(
        Host::states(&files),
        [
            "pressure_host file/proc/pressure active",
            "pressure_workloads file/cgroup2/*.pressure unsupported no group has cpu.pressure",
            "cgroup_cpu file/cgroup2/cpu.stat active",
            "cgroup_memory file/cgroup2/memory.current active",
        ]
    );
    host.file("v2/cpu.pressure", PSI);
    files = host.files(ALL);
    assert_eq!(
        Host::read(&mut files),
        [
            "/docker/0123 container.cpu.time system Float(1.0)",
            "/docker/0123 container.cpu.time user Float(3.0)",
            "/docker/0123 container.memory.usage  Count(4096)",
            "/docker/0123 seismo.cgroup.cpu.limit  Float(1.5)",
            "/docker/0123 seismo.cgroup.cpu.periods  Count(8)",
            "/docker/0123 seismo.cgroup.cpu.throttled  Float(1.5)",
            "/docker/0123 seismo.cgroup.cpu.throttled_periods  Count(2)",
            "/docker/0123 seismo.cgroup.memory.usage  Count(4096)",
            "/docker/0123 seismo.cgroup.pressure.waiting cpu,full Float(0.5)",
            "/docker/0123 seismo.cgroup.pressure.waiting cpu,some Float(2.5)",
            "host seismo.cgroup.unread malformed Count(0)",
            "host seismo.cgroup.unread refused Count(0)",
            "host seismo.cgroup.unread too_many Count(0)",
            "host seismo.pressure.waiting cpu,full Float(0.5)",
            "host seismo.pressure.waiting cpu,some Float(2.5)",
            "host seismo.pressure.waiting io,full Float(0.5)",
            "host seismo.pressure.waiting io,some Float(2.5)",
            "host seismo.pressure.waiting memory,full Float(0.5)",
            "host seismo.pressure.waiting memory,some Float(2.5)",
        ]
    );
    fs::remove_dir_all(host.0.join("v2/docker")).unwrap();
    assert!(!Host::read(&mut files).iter().any(|line| line.contains("docker")));
    assert_eq!(files.described.len(), 1);
}

#[test]
fn where_both_versions_are_mounted_each_controller_is_read_where_it_is() {
    let host = Host::new(
        "hybrid",
        &[("cpu", "cgroup", "cpu"), ("acct", "cgroup", "cpuacct"), ("mem", "cgroup", "memory"), ("v2", "cgroup2", "x")],
    );
    host.file("proc/pressure/cpu", PSI);
    host.file("v2/cgroup.controllers", "\n");
    host.file("v2/a.service/cpu.pressure", PSI);
    host.file("cpu/docker/9/cpu.stat", "nr_periods 8\nnr_throttled 2\nthrottled_time 1500000000\n");
    host.file("cpu/docker/9/cpu.cfs_quota_us", "-1\n");
    host.file("cpu/docker/9/cpu.cfs_period_us", "100000\n");
    host.file("acct/docker/9/cpuacct.usage_user", "2000000000\n");
    host.file("mem/docker/9/memory.usage_in_bytes", "what\n");
    host.file("mem/docker/9/memory.limit_in_bytes", "1048576\n");
    let mut files = host.files(ALL);
    assert_eq!(
        Host::states(&files)[2..],
        ["cgroup_cpu file/cgroup/cpu.stat active", "cgroup_memory file/cgroup/memory.usage_in_bytes active"]
    );
    let lines = Host::read(&mut files);
    assert_eq!(
        lines[..lines.len() - 2],
        [
            "/a.service seismo.cgroup.pressure.waiting cpu,full Float(0.5)",
            "/a.service seismo.cgroup.pressure.waiting cpu,some Float(2.5)",
            "/docker/9 container.cpu.time user Float(2.0)",
            "/docker/9 seismo.cgroup.cpu.periods  Count(8)",
            "/docker/9 seismo.cgroup.cpu.throttled  Float(1.5)",
            "/docker/9 seismo.cgroup.cpu.throttled_periods  Count(2)",
            "/docker/9 seismo.cgroup.memory.limit  Count(1048576)",
            "host seismo.cgroup.unread malformed Count(1)",
            "host seismo.cgroup.unread refused Count(0)",
            "host seismo.cgroup.unread too_many Count(0)",
        ]
    );
}

#[test]
fn what_the_host_does_not_have_is_unsupported_and_absent() {
    let host = Host::new("none", &[]);
    let mut files = host.files(ALL);
    assert_eq!(
        Host::states(&files),
        [
            "pressure_host file/proc/pressure unsupported no /proc/pressure: the kernel was built without CONFIG_PSI",
            "pressure_workloads file/cgroup2/*.pressure unsupported no /proc/pressure: the kernel was built without CONFIG_PSI",
            "cgroup_cpu file/cgroup2/cpu.stat unsupported the cpu controller is in no cgroup hierarchy that is mounted",
            "cgroup_memory file/cgroup2/memory.current unsupported the memory controller is in no cgroup hierarchy that is mounted",
        ]
    );
    assert_eq!(Host::read(&mut files), Vec::<String>::new());
}

#[test]
fn what_is_not_wanted_is_disabled_and_not_read() {
    let host = Host::new("off", &[("v2", "cgroup2", "x")]);
    host.file("proc/pressure/cpu", PSI);
    host.file("v2/cgroup.controllers", "cpu memory\n");
    host.file("v2/a.service/cpu.pressure", PSI);
    host.file("v2/a.service/memory.current", "1\n");
    let mut files = host.files(Wanted { pressure: false, cgroup: false });
    assert!(Host::states(&files).iter().all(|state| state.ends_with("disabled")));
    assert_eq!(Host::read(&mut files), Vec::<String>::new());
}

#[test]
fn workloads_above_the_bound_are_counted_and_the_same_ones_are_read_each_time() {
    let host = Host::new("bound", &[("v2", "cgroup2", "x")]);
    host.file("v2/cgroup.controllers", "memory\n");
    for number in 0..5 {
        host.file(&format!("v2/job-{number}.service/memory.current"), "1\n");
    }
    let mut files = KernelFiles::new(host.0.join("proc"), ALL, 2);
    for pass in 1..=2 {
        let lines = Host::read(&mut files);
        let read: Vec<&String> = lines.iter().filter(|line| line.contains("memory.usage")).collect();
        assert_eq!(
            read,
            [
                "/job-0.service seismo.cgroup.memory.usage  Count(1)",
                "/job-1.service seismo.cgroup.memory.usage  Count(1)"
            ]
        );
        assert!(lines.contains(&format!("host seismo.cgroup.unread too_many Count({})", 3 * pass)));
    }
}
