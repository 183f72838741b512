//! Names against a directory that looks like procfs.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::{Config, Names, ServiceRule};
use crate::model::process::{ProcessEvent, ProcessEventKind, Resources as _};
use crate::section::Interval;

const SECOND: u64 = 1_000_000_000;
const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

struct FakeProc(PathBuf);

impl FakeProc {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("seismo-names-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("sys/kernel")).unwrap();
        fs::write(path.join("sys/kernel/hostname"), "box\n").unwrap();
        Self(path)
    }

    fn process(&self, pid: u32, exe: &str, line: &str, cgroup: &str, start: u64) {
        self.remove(pid);
        let directory = self.0.join(pid.to_string());
        fs::create_dir_all(&directory).unwrap();
        symlink(exe, directory.join("exe")).unwrap();
        fs::write(directory.join("cmdline"), line.replace(' ', "\0") + "\0").unwrap();
        fs::write(directory.join("cgroup"), cgroup).unwrap();
        self.command(pid, "a) b (c", start);
    }

    fn command(&self, pid: u32, command: &str, start: u64) {
        let directory = self.0.join(pid.to_string());
        let stat = format!("{pid} ({command}) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {start} 0 0\n");
        fs::write(directory.join("stat"), stat).unwrap();
    }

    fn remove(&self, pid: u32) {
        let _absent = fs::remove_dir_all(self.0.join(pid.to_string()));
    }

    fn names(&self, config: Config, services: &str) -> Names {
        let services: Vec<ServiceRule> = serde_json::from_str(services).unwrap();
        Names::new(config, services, &self.0)
    }
}

impl Drop for FakeProc {
    fn drop(&mut self) {
        let _best_effort = fs::remove_dir_all(&self.0);
    }
}

fn event(pid: u32, at_s: u64, kind: ProcessEventKind) -> ProcessEvent {
    ProcessEvent { pid, command: "short".to_owned(), ktime_ns: at_s * SECOND, kind, in_scope: true }
}

#[test]
fn the_first_source_that_knows_names_the_service() {
    let proc = FakeProc::new("sources");
    let in_container = format!("0::/system.slice/docker-{ID}.scope");
    let unnamed = format!("0::/docker/{}", ID.replace('0', "f"));
    proc.process(10, "/usr/sbin/nginx", "nginx -g x", "0::/system.slice/web.service", 1);
    proc.process(11, "/usr/bin/node", "node server.js", &in_container, 1);
    proc.process(12, "/usr/bin/node", "node server.js", &unnamed, 1);
    proc.process(13, "/usr/bin/python3.12", "python3 -m http.server", "0::/user.slice/session-1.scope", 1);
    proc.process(14, "/opt/shop/api (deleted)", "api", "0::/system.slice/shop.service", 1);
    let containers = proc.0.join("1").join(format!("root/var/lib/docker/containers/{ID}"));
    fs::create_dir_all(&containers).unwrap();
    fs::write(containers.join("config.v2.json"), r#"{"Name":"/checkout","State":{}}"#).unwrap();

    let mut names = proc.names(Config::default(), r#"[{"match":"exe=/opt/shop/*","name":"storefront"}]"#);
    let mut service = |pid| names.resource(pid).service_name.clone();
    assert_eq!(service(10), "web");
    assert_eq!(service(11), "checkout");
    assert_eq!(service(12), "server");
    assert_eq!(service(13), "http.server");
    assert_eq!(service(14), "storefront");

    let resource = names.resource(11);
    assert_eq!(resource.container_id.as_deref(), Some(ID));
    assert_eq!((resource.executable_name.as_str(), resource.pid, &*resource.host_name), ("node", 11, "box"));
}

#[test]
fn a_service_is_called_by_the_link_that_it_was_started_by() {
    let proc = FakeProc::new("links");
    let mut names = proc.names(Config::default(), "[]");
    let bin = proc.0.join("bin");
    fs::create_dir_all(&bin).unwrap();
    fs::write(bin.join("redis-check-rdb"), "").unwrap();
    symlink("redis-check-rdb", bin.join("redis-server")).unwrap();
    fs::write(bin.join("redis-other"), "").unwrap();
    let exe = bin.join("redis-check-rdb").display().to_string();
    let cases = [
        (30, "redis-server", "redis-server"),
        // Another file, none at all, and what a thread may be called.
        (31, "redis-other", "redis-check-rdb"),
        (32, "jemalloc_bg_thd", "redis-check-rdb"),
        (33, "../bin/redis-server", "redis-check-rdb"),
        (34, "redis-check-rdb", "redis-check-rdb"),
    ];
    for (pid, command, expected) in cases {
        proc.process(pid, &exe, "redis-server 127.0.0.1:6379", "0::/", 1);
        symlink("/", proc.0.join(format!("{pid}/root"))).unwrap();
        proc.command(pid, command, 1);
        let resource = names.resource(pid);
        assert_eq!(resource.service_name, expected, "{command}");
        assert_eq!(resource.executable_name, "redis-check-rdb", "{command}");
    }
}

#[test]
fn a_service_can_be_named_by_a_port_that_it_listens_on() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let rules = format!(r#"[{{"match":"port={port}","name":"mine"}}]"#);
    let mut names = Names::new(Config::default(), serde_json::from_str(&rules).unwrap(), "/proc");
    assert_eq!(names.resource(std::process::id()).service_name, "mine");
}

#[test]
fn an_exec_changes_the_name_and_an_exit_keeps_it_for_late_spans() {
    let proc = FakeProc::new("life");
    let mut names = proc.names(Config::default(), "[]");
    proc.process(20, "/bin/bash", "bash", "0::/", 5);
    assert_eq!(names.resource(20).service_name, "bash");
    proc.process(20, "/usr/bin/curl", "curl http://x", "0::/", 5);
    names.process_event(&event(20, 1, ProcessEventKind::Exec));
    proc.remove(20);
    assert_eq!(names.resource(20).service_name, "curl");
    names.process_event(&event(20, 2, ProcessEventKind::Exit { status: 0 }));
    names.advance(11 * SECOND);
    assert_eq!(names.resource(20).service_name, "curl");
    names.advance(12 * SECOND);
    assert!(names.is_empty());
    assert_eq!(names.resource(20).service_name, "pid:20");
}

#[test]
fn a_process_that_is_gone_before_it_is_looked_at_keeps_the_name_that_the_kernel_had() {
    let proc = FakeProc::new("gone");
    let mut names = proc.names(Config::default(), "[]");
    names.process_event(&event(24, 1, ProcessEventKind::Exec));
    names.process_event(&event(24, 1, ProcessEventKind::Exit { status: 0 }));
    assert_eq!(names.resource(24).service_name, "short");
    assert_eq!(names.resource(24).executable_name, "short");
}

#[test]
fn of_a_process_out_of_scope_nothing_is_read_before_it_has_a_span() {
    let proc = FakeProc::new("scope");
    let mut names = proc.names(Config::default(), "[]");
    proc.process(25, "/usr/bin/curl", "curl", "0::/", 5);
    names.process_event(&ProcessEvent { in_scope: false, ..event(25, 1, ProcessEventKind::Exec) });
    assert!(names.is_empty());
    assert_eq!(names.resource(25).service_name, "curl");
}

#[test]
fn a_child_is_called_like_its_parent_until_it_executes_something() {
    let proc = FakeProc::new("fork");
    let mut names = proc.names(Config::default(), "[]");
    proc.process(30, "/usr/sbin/nginx", "nginx", "0::/", 5);
    names.resource(30);
    names.process_event(&event(31, 1, ProcessEventKind::Fork { parent_pid: 30 }));
    let child = names.resource(31);
    assert_eq!((child.service_name.as_str(), child.pid), ("nginx", 31));
}

#[test]
fn a_reused_pid_gets_its_own_name_even_when_events_were_lost() {
    let proc = FakeProc::new("reuse");
    let mut names = proc.names(Config::default(), "[]");
    proc.process(40, "/usr/bin/old", "old", "0::/", 5);
    assert_eq!(names.resource(40).service_name, "old");
    proc.process(40, "/usr/bin/new", "new", "0::/", 9);
    names.advance(2 * SECOND);
    assert_eq!(names.resource(40).service_name, "new");

    proc.process(41, "/usr/bin/old", "old", "0::/", 5);
    names.resource(41);
    proc.process(41, "/usr/bin/new", "new", "0::/", 9);
    names.process_event(&event(41, 2, ProcessEventKind::Fork { parent_pid: 1 }));
    assert_eq!(names.resource(41).service_name, "new");
}

#[test]
fn the_cache_stays_bounded_and_gives_up_the_least_recently_used() {
    let proc = FakeProc::new("bound");
    let mut names = proc.names(Config { capacity: 4, linger: Interval::secs(10) }, "[]");
    for pid in 100..104 {
        proc.process(pid, "/usr/bin/app", "app", "0::/", 1);
        names.resource(pid);
    }
    names.advance(2 * SECOND);
    names.resource(100);
    for pid in 200..202 {
        proc.process(pid, "/usr/bin/app", "app", "0::/", 1);
        names.resource(pid);
    }
    assert_eq!((names.len(), names.evicted()), (4, 2));
    // Still the name that was read before: the file has changed, the entry has not been given up.
    proc.process(100, "/usr/bin/other", "other", "0::/", 1);
    assert_eq!(names.resource(100).service_name, "app");

    for pid in 1000..1200 {
        names.process_event(&event(pid, 3, ProcessEventKind::Fork { parent_pid: 100 }));
        names.process_event(&event(pid, 3, ProcessEventKind::Exit { status: 0 }));
    }
    assert_eq!(names.len(), 4);
    assert_eq!(names.ages.len(), 4);
    assert!(names.exited.len() <= 4);
}
