//! Workloads against directories that look like procfs and a cgroup v2 hierarchy.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use super::{Config, Counts, ServiceRule, Workloads};
use crate::model::workload::{Workload, WorkloadId};
use crate::section::Interval;

const SECOND: u64 = 1_000_000_000;
const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

struct Host(PathBuf);

impl Host {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("seismo-workloads-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("proc/self")).unwrap();
        fs::create_dir_all(path.join("v2")).unwrap();
        let mounts = format!("41 31 0:38 / {}/v2 rw shared:9 - cgroup2 cgroup2 rw\n", path.display());
        fs::write(path.join("proc/self/mountinfo"), mounts).unwrap();
        Self(path)
    }

    /// Makes a group and returns its id.
    fn group(&self, path: &str, pids: &[u32]) -> u64 {
        let directory = self.0.join("v2").join(path.trim_start_matches('/'));
        fs::create_dir_all(&directory).unwrap();
        let lines: String = pids.iter().map(|pid| format!("{pid}\n")).collect();
        fs::write(directory.join("cgroup.procs"), lines).unwrap();
        fs::metadata(directory).unwrap().ino()
    }

    fn remove(&self, path: &str) {
        fs::remove_dir_all(self.0.join("v2").join(path.trim_start_matches('/'))).unwrap();
    }

    fn process(&self, pid: u32, exe: &str, line: &str) {
        let directory = self.0.join("proc").join(pid.to_string());
        fs::create_dir_all(&directory).unwrap();
        symlink(exe, directory.join("exe")).unwrap();
        fs::write(directory.join("cmdline"), line.replace(' ', "\0") + "\0").unwrap();
    }

    fn workloads(&self, config: Config) -> Workloads {
        Workloads::new(config, Vec::new(), self.0.join("proc"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _best_effort = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_group_is_found_by_its_id_and_described_by_its_path_and_its_engine() {
    let host = Host::new("describe");
    let task = Path::new("proc/1/root").join(format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}"));
    fs::create_dir_all(host.0.join(&task)).unwrap();
    let notes = r#"{"annotations":{"io.kubernetes.cri.container-name":"api\u001b","io.kubernetes.cri.sandbox-name":"web-1",
        "io.kubernetes.cri.sandbox-namespace":"shop"}}"#;
    fs::write(host.0.join(task).join("config.json"), notes).unwrap();
    let path =
        format!("/kubepods.slice/kubepods-pod2a8f1c9e_3b4d_4e5f_8a9b_0c1d2e3f4a5b.slice/cri-containerd-{ID}.scope");
    let container = host.group(&path, &[]);
    let mut workloads = host.workloads(Config::default());
    let id = workloads.resolve(container);
    let expected = Workload {
        service_name: "api\\x1b".to_owned(),
        container_id: Some(ID.to_owned()),
        runtime: Some("containerd"),
        pod_uid: Some("2a8f1c9e-3b4d-4e5f-8a9b-0c1d2e3f4a5b".to_owned()),
        pod_name: Some("web-1".to_owned()),
        pod_namespace: Some("shop".to_owned()),
        unit: None,
        slice: Some("kubepods-pod2a8f1c9e_3b4d_4e5f_8a9b_0c1d2e3f4a5b.slice".to_owned()),
        cgroup: path.clone(),
    };
    assert_eq!(*workloads.get(id), expected);
    // What the container makes inside of its own is the container.
    let inside = host.group(&format!("{path}/init"), &[]);
    workloads.advance(SECOND);
    assert_eq!(workloads.resolve(inside), id);
}

#[test]
fn a_group_that_nothing_else_names_is_called_after_what_runs_in_it() {
    let host = Host::new("names");
    for (pid, exe, line) in [
        (10, "/usr/sbin/nginx", "nginx: master"),
        (11, "/usr/sbin/nginx", "nginx: worker"),
        (12, "/usr/bin/python3.12", "python3 /srv/app.py"),
        (13, "/usr/bin/curl", "curl"),
    ] {
        host.process(pid, exe, line);
    }
    let cases = [
        ("/system.slice/cron.service", &[10][..], "cron"),
        ("/alike", &[10, 11], "nginx"),
        ("/mixed", &[10, 13], "mixed"),
        ("/script", &[12], "python3.12"),
        ("/gone", &[99], "gone"),
        ("/empty", &[], "empty"),
        ("/user.slice/session-2.scope", &[], "session-2"),
        ("/", &[10], "host"),
    ];
    let ids: Vec<u64> = cases.iter().map(|(path, pids, _)| host.group(path, pids)).collect();
    let mut workloads = host.workloads(Config::default());
    for ((path, _, expected), id) in cases.iter().zip(&ids) {
        let workload = workloads.resolve(*id);
        assert_eq!(workloads.get(workload).service_name, *expected, "{path}");
    }
    let mut curious = host.workloads(Config { command_lines: true, ..Config::default() });
    let script = curious.resolve(ids[3]);
    assert_eq!(curious.get(script).service_name, "app");

    let rules: Vec<ServiceRule> = serde_json::from_str(r#"[{"match":"exe=nginx","name":"front"}]"#).unwrap();
    let mut configured = Workloads::new(Config::default(), rules, host.0.join("proc"));
    let front = configured.resolve(ids[0]);
    assert_eq!(configured.get(front).service_name, "front");
}

#[test]
fn a_group_that_is_gone_keeps_its_name_for_a_while_and_then_leaves_nothing() {
    let host = Host::new("expire");
    let short = host.group("/short.service", &[]);
    let inner = host.group("/short.service/worker", &[]);
    let long = host.group("/long.service", &[]);
    let mut workloads = host.workloads(Config { expire_after: Interval::secs(60), ..Config::default() });
    let id = workloads.resolve(short);
    assert_eq!(workloads.resolve(inner), id);
    let other = workloads.resolve(long);
    host.remove("/short.service");
    workloads.advance(31 * SECOND);
    workloads.advance(90 * SECOND);
    assert_eq!(workloads.get(id).service_name, "short");
    assert_eq!(workloads.drain_expired(), Vec::<u64>::new());
    workloads.advance(91 * SECOND);
    assert_eq!(workloads.get(id).service_name, "unknown");
    let mut expired = workloads.drain_expired();
    expired.sort_unstable();
    let mut both = vec![short, inner];
    both.sort_unstable();
    assert_eq!(expired, both);
    assert_eq!((workloads.len(), workloads.counts().expired), (1, 2));
    assert_eq!(workloads.get(other).service_name, "long");
    assert_eq!((workloads.entries.len(), workloads.by_root.len()), (1, 1));
    assert_eq!((workloads.checks.len(), workloads.gone.len()), (1, 0));
}

#[test]
fn a_new_group_under_an_old_path_is_another_workload() {
    let host = Host::new("again");
    let mut ids = Vec::new();
    let mut workloads = host.workloads(Config::default());
    for round in 1..=2 {
        // Something else may take the inode number that has become free.
        let spare = host.0.join(format!("spare-{round}"));
        fs::create_dir(spare).unwrap();
        let group = host.group("/job.service", &[]);
        workloads.advance(round * 40 * SECOND);
        ids.push((group, workloads.resolve(group)));
        host.remove("/job.service");
    }
    let [(first, one), (second, other)] = ids[..] else { panic!() };
    assert_ne!(first, second);
    // Both are the same unit: its account goes on.
    assert_eq!(one, other);
    assert_eq!(workloads.get(one).service_name, "job");
}

#[test]
fn what_was_never_seen_is_unknown_and_looked_for_once() {
    let host = Host::new("unknown");
    let mut workloads = host.workloads(Config::default());
    for round in 0..5 {
        workloads.advance(round * SECOND);
        assert_eq!(workloads.resolve(u64::MAX), WorkloadId::UNKNOWN);
    }
    assert!(workloads.is_lost(u64::MAX) && !workloads.is_lost(1));
    assert_eq!(workloads.counts(), Counts { unknown: 1, ..Counts::default() });
    assert_eq!(workloads.get(WorkloadId::UNKNOWN).service_name, "unknown");
    // A program saw it being made.
    workloads.learn(u64::MAX, "/brief.service");
    let id = workloads.resolve(u64::MAX);
    assert_eq!(workloads.get(id).service_name, "brief");
}

#[test]
fn a_hundred_thousand_groups_stay_within_the_bound_and_are_counted() {
    let host = Host::new("many");
    let capacity = 64;
    let mut workloads = host.workloads(Config { capacity, ..Config::default() });
    let (mut overflowed, mut unknown, mut named) = (0, 0, 0);
    for id in 1_000_000..1_100_000_u64 {
        // The tree takes no more of them at some time: what it does not hold is unknown.
        workloads.learn(id, &format!("/job-{id}.service"));
        match workloads.resolve(id) {
            WorkloadId::OVERFLOW => overflowed += 1,
            WorkloadId::UNKNOWN => unknown += 1,
            workload => {
                assert_eq!(workloads.get(workload).service_name, format!("job-{id}"));
                named += 1;
            }
        }
        assert!(workloads.len() <= capacity && workloads.lost.len() <= capacity);
    }
    let counts = workloads.counts();
    println!("{named} named, {counts:?}");
    assert_eq!((workloads.len(), workloads.entries.len()), (capacity, capacity));
    assert_eq!((counts.overflowed, counts.unknown + counts.early), (overflowed, unknown));
    assert_eq!(named, capacity as u64 + counts.evicted);
    assert!(overflowed > 0 && unknown > 0);

    // A walk shows that all of them are gone: they make room.
    let before = counts.evicted;
    workloads.advance(SECOND);
    let real = host.group("/real.service", &[]);
    let id = workloads.resolve(real);
    assert_eq!(workloads.get(id).service_name, "real");
    assert_eq!((workloads.len(), workloads.counts().evicted), (capacity, before + 1));
}

#[test]
fn a_group_of_another_hierarchy_is_named_alike_and_not_remembered() {
    let host = Host::new("path");
    host.process(10, "/usr/sbin/nginx", "nginx");
    host.group("/shop", &[10]);
    let workloads = host.workloads(Config::default());
    let directory = host.0.join("v2/shop");
    assert_eq!(workloads.at_path("/shop", &directory).service_name, "nginx");
    assert_eq!(workloads.at_path("/a.service/inner", &directory).cgroup, "/a.service");
    assert!(workloads.is_empty());
}

#[test]
fn without_the_second_version_every_group_is_unknown() {
    let host = Host::new("v1");
    fs::write(host.0.join("proc/self/mountinfo"), "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n")
        .unwrap();
    let mut workloads = host.workloads(Config::default());
    workloads.advance(SECOND);
    assert!(!workloads.is_supported());
    assert_eq!(workloads.resolve(1), WorkloadId::UNKNOWN);
}
