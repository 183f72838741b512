//! What the kernel's own files say, on the page: the same numbers, under the workload's own labels.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::{Agent, Launch};
use seismo_tests::process::Process;
use seismo_tests::rig::Rig;
use seismo_tests::wait;

const CONFIG: &str = "metrics:\n  workload_labels: [service_name, cgroup]\nkernel_files:\n  interval: 50ms\n";
const PATIENCE: Duration = Duration::from_secs(20);
/// CPUs that the workload may use.
const LIMIT: f64 = 0.1;

/// Groups of their own right below the roots of the hierarchies, so that no unit around the tests owns them: one of version 2,
/// and one of version 1 where that has the CPU controller. Gone when dropped.
struct Limited {
    name: String,
    two: PathBuf,
    one: Option<PathBuf>,
}

impl Limited {
    fn new(rig: &Rig) -> Result<Self> {
        let own = rig.cgroup().path().file_name().context("a control group has a name")?.to_string_lossy().into_owned();
        let name = format!("{own}-limited");
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let mount = |kind: &str, controller: &str| {
            mounts.lines().find_map(|line| {
                let (mount, filesystem) = line.split_once(" - ")?;
                let rest = filesystem.strip_prefix(kind)?.strip_prefix(' ')?;
                let holds = rest.split(' ').nth(1)?.split(',').any(|word| controller.is_empty() || word == controller);
                holds.then(|| mount.split(' ').nth(4)).flatten().map(PathBuf::from)
            })
        };
        let root = mount("cgroup2", "").context("no version 2 hierarchy is mounted")?;
        let group = Self { two: root.join(&name), one: mount("cgroup", "cpu").map(|root| root.join(&name)), name };
        fs::create_dir(&group.two)?;
        match &group.one {
            Some(one) => {
                fs::create_dir(one)?;
                fs::write(one.join("cpu.cfs_period_us"), "20000")?;
                fs::write(one.join("cpu.cfs_quota_us"), "2000")?;
            }
            None => {
                fs::write(root.join("cgroup.subtree_control"), "+cpu")
                    .context("the cpu controller is not to be had")?;
                fs::write(group.two.join("cpu.max"), "2000 20000")?;
            }
        }
        Ok(group)
    }

    fn take(&self, process: &Process) -> Result<()> {
        for group in [Some(&self.two), self.one.as_ref()].into_iter().flatten() {
            fs::write(group.join("cgroup.procs"), process.pid().to_string())?;
        }
        Ok(())
    }

    /// A value of the limited group's `cpu.stat`.
    fn stat(&self, key: &str) -> Result<u64> {
        let text = fs::read_to_string(self.one.as_ref().unwrap_or(&self.two).join("cpu.stat"))?;
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        value.with_context(|| format!("no {key} in {text}"))?.parse().context("a number")
    }

    fn throttled_seconds(&self) -> Result<f64> {
        self.stat("throttled_usec").map(|us| us as f64 / 1e6).or_else(|_| Ok(self.stat("throttled_time")? as f64 / 1e9))
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        for group in [Some(&self.two), self.one.as_ref()].into_iter().flatten() {
            if let Err(error) = fs::remove_dir(group) {
                eprintln!("{}: {error}", group.display());
            }
        }
    }
}

fn total(file: &Path, kind: &str) -> Result<f64> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let line = text.lines().find(|line| line.starts_with(kind)).context("no such line")?;
    let us: u64 = line.rsplit_once("total=").context("no total")?.1.parse()?;
    Ok(us as f64 / 1e6)
}

#[test]
fn a_throttled_workload_shows_what_the_kernel_accounts_for_it() -> Result<()> {
    Rig::run(|rig| {
        let limited = Limited::new(rig)?;
        let mut spin = Command::new("sh");
        spin.args(["-c", "while :; do :; done"]);
        let mut spin = rig.inside("spin", spin)?;
        limited.take(&spin)?;
        let agent = Agent::launch(rig, &Launch { config: Some(CONFIG.to_owned()), ..Launch::default() })?;
        wait::until("throttling", PATIENCE, || Ok((limited.stat("nr_throttled")? >= 5).then_some(())))?;
        spin.signal(libc::SIGKILL);
        spin.wait(PATIENCE)?;
        // Nobody is left: the accounts stand still.
        let group = format!("/{}", limited.name);
        let own = [("cgroup", group.as_str())];
        let number = |metric: &'static str| {
            let group = group.clone();
            move |page: &seismo_tests::exposition::Page| page.sum(metric, &[("cgroup", group.as_str())])
        };
        let throttled = limited.throttled_seconds()?;
        let shown = agent.settled(&throttled, number("seismo_cgroup_cpu_throttled_seconds_total"))?;
        println!("throttled: cpu.stat {throttled}, page {shown}");
        ensure!(shown == throttled, "throttled time differs");
        let page = agent.page()?;
        for (metric, key) in [
            ("seismo_cgroup_cpu_periods_total", "nr_periods"),
            ("seismo_cgroup_cpu_throttled_periods_total", "nr_throttled"),
        ] {
            let (shown, kernel) = (page.sum(metric, &own), limited.stat(key)? as f64);
            println!("{key}: cpu.stat {kernel}, page {shown}");
            ensure!(shown == kernel, "{key} differs");
        }
        ensure!(page.sum("seismo_cgroup_cpu_limit", &own) == LIMIT, "the limit differs");
        for kind in ["some", "full"] {
            let with = [own[0], ("resource", "cpu"), ("kind", kind)];
            let kernel = total(&limited.two.join("cpu.pressure"), kind)?;
            let shown = page.sum("seismo_cgroup_pressure_waiting_seconds_total", &with);
            println!("pressure {kind}: cpu.pressure {kernel}, page {shown}");
            ensure!(shown == kernel, "pressure differs");
        }
        ensure!(page.select("seismo_cgroup_cpu_periods_total", &own).count() == 1, "not one series");
        drop(limited);
        let metrics = ["seismo_cgroup_cpu_periods_total", "seismo_cgroup_pressure_waiting_seconds_total"];
        agent.page_where("the workload gone from the page", |page| {
            metrics.iter().all(|metric| page.select(metric, &own).count() == 0)
        })?;
        agent.stop()
    })
}

#[test]
fn the_host_s_pressure_is_between_what_its_file_said_before_and_after() -> Result<()> {
    Rig::run(|rig| {
        let file = Path::new("/proc/pressure/cpu");
        let agent = Agent::launch(rig, &Launch { config: Some(CONFIG.to_owned()), ..Launch::default() })?;
        let before = total(file, "some")?;
        let with = [("resource", "cpu"), ("kind", "some")];
        let shown = agent
            .reaches("a later reading", before, |page| page.sum("seismo_pressure_waiting_seconds_total", &with))?;
        let after = total(file, "some")?;
        println!("before {before}, page {shown}, after {after}");
        ensure!(before <= shown && shown <= after, "not between");
        agent.stop()
    })
}

#[test]
fn a_family_that_is_off_has_no_metrics_and_says_so() -> Result<()> {
    Rig::run(|rig| {
        let config = Some("probes:\n  pressure: false\n".to_owned());
        let agent = Agent::launch(rig, &Launch { config, ..Launch::default() })?;
        let page = agent.page()?;
        ensure!(!page.has("seismo_pressure_waiting_seconds_total"), "pressure is on the page");
        ensure!(!page.has("seismo_cgroup_pressure_waiting_seconds_total"), "workloads' pressure is on the page");
        for (probe, state) in [("pressure", "disabled"), ("cgroup", "active")] {
            ensure!(
                page.sum("seismo_probe_state", &[("probe", probe), ("state", state)]) >= 1.0,
                "{probe} is not {state}"
            );
        }
        agent.stop()
    })
}
