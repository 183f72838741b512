//! Block I/O of a loop device against the kernel's own account of it, against `fio`'s, and by workload against what was
//! written.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::{Agent, Launch};
use seismo_tests::blockdevice::{Account, Loop};
use seismo_tests::controller::Controller;
use seismo_tests::exposition::Page;
use seismo_tests::programs;
use seismo_tests::rig::Rig;

const LIMIT: Duration = Duration::from_secs(60);
const DEVICE_BYTES: u64 = 64 << 20;
const IO: &str = "system_disk_io_bytes_total";
const OPERATIONS: &str = "system_disk_operations_total";
const DURATION: &str = "seismo_block_request_duration_seconds";
const BY_CGROUP: &str = "metrics:\n  workload_labels: [cgroup]\n";

fn launch(rig: &Rig) -> Result<Agent<'_>> {
    Agent::launch(rig, &Launch { config: Some(BY_CGROUP.to_owned()), ..Launch::default() })
}

/// Runs a program inside the control group.
fn inside(rig: &Rig, program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(programs::find(program)?);
    command.args(arguments);
    rig.inside(program, command)?.finish(LIMIT)
}

/// What the agent says of a device, in the form of the kernel's account.
fn seen(page: &Page, device: &str) -> Account {
    let sum = |metric: &str, direction: &str| {
        page.sum(metric, &[("system_device", device), ("disk_io_direction", direction)]) as u64
    };
    Account {
        reads: sum(OPERATIONS, "read"),
        read_bytes: sum(IO, "read"),
        writes: sum(OPERATIONS, "write"),
        written_bytes: sum(IO, "write"),
        read_ms: 0,
        active: page.sum("seismo_block_requests_active", &[("system_device", device)]) as u64,
    }
}

/// What was counted between two accounts.
fn less(after: Account, before: Account) -> Account {
    Account {
        reads: after.reads - before.reads,
        read_bytes: after.read_bytes - before.read_bytes,
        writes: after.writes - before.writes,
        written_bytes: after.written_bytes - before.written_bytes,
        read_ms: after.read_ms - before.read_ms,
        active: after.active,
    }
}

#[test]
fn bytes_and_operations_of_a_device_are_those_of_the_kernel_s_own_account() -> Result<()> {
    Rig::run(|rig| {
        let agent = launch(rig)?;
        let device = Loop::new(rig, DEVICE_BYTES)?;
        let (name, path) = (device.name()?, device.path().display().to_string());
        let kernel_before = device.account()?;
        let sizes = "seismo_block_request_size_bytes_count";
        let sized_before = agent.page()?.sum(sizes, &[("system_device", name)]);
        inside(rig, "dd", &["if=/dev/zero", &format!("of={path}"), "bs=64k", "count=512", "oflag=direct"])?;
        inside(rig, "dd", &[&format!("if={path}"), "of=/dev/null", "bs=4k", "count=4096", "iflag=direct"])?;
        let account = device.account()?;
        let kernel = Account { read_ms: 0, ..account };
        let shown = agent.settled(&kernel, |page| seen(page, name))?;
        println!("the kernel: {kernel:?}\nthe agent:  {shown:?}");
        ensure!(shown == kernel, "the accounts differ");
        let moved = less(account, kernel_before);
        println!("meanwhile:  {moved:?}");
        ensure!(moved.written_bytes == 512 << 16 && moved.read_bytes == 4096 << 12, "dd moved something else");
        // What the programs saw themselves.
        let requests = (moved.reads + moved.writes) as f64;
        let sized = agent.still(|page| page.sum(sizes, &[("system_device", name)]))? - sized_before;
        println!("{requests} requests, {sized} with their size");
        ensure!(sized <= requests && sized >= requests * 0.99, "more than one in a hundred was not seen");
        Ok(())
    })
}

#[test]
fn block_io_is_its_workload_s_to_the_byte() -> Result<()> {
    Rig::run(|rig| {
        let agent = launch(rig)?;
        let device = Loop::new(rig, DEVICE_BYTES)?;
        let path = device.path().display().to_string();
        let group = rig.cgroup().path().file_name().context("a name")?.to_string_lossy().into_owned();
        inside(rig, "dd", &["if=/dev/zero", &format!("of={path}"), "bs=64k", "count=300", "oflag=direct"])?;
        inside(rig, "dd", &[&format!("if={path}"), "of=/dev/null", "bs=4k", "count=700", "iflag=direct"])?;
        let own = |page: &Page, metric: &str, direction: &str| -> u64 {
            let of_group = page.select(metric, &[]).filter(|sample| {
                let label = |name: &str| sample.labels.get(name).map_or("", String::as_str);
                label("cgroup").ends_with(&group) && label("disk_io_direction") == direction
            });
            of_group.map(|sample| sample.value as u64).sum()
        };
        let both = |page: &Page| ["write", "read"].map(|direction| own(page, "seismo_block_io_bytes_total", direction));
        let expected = [300 << 16, 700 << 12];
        let counted = agent.settled(&expected, both)?;
        println!("written and read {expected:?}, counted {counted:?} bytes of {group}");
        // The program's own files are on a disk too.
        ensure!((expected[0]..expected[0] + (1 << 20)).contains(&counted[0]), "written bytes differ");
        ensure!((expected[1]..expected[1] + (8 << 20)).contains(&counted[1]), "read bytes differ");
        let requests = own(&agent.page()?, "seismo_block_operations_total", "write");
        println!("300 writes, {requests} requests");
        ensure!((300..350).contains(&requests), "written requests differ");
        Ok(())
    })
}

/// A request takes a quarter of a second at the device below, so that neither the time until fio's thread runs again nor
/// what else this machine does matters.
#[test]
fn latency_of_requests_is_that_which_fio_measures() -> Result<()> {
    const BLOCK: u64 = 64 << 10;
    Rig::run(|rig| {
        let agent = launch(rig)?;
        let below = Loop::new(rig, DEVICE_BYTES)?;
        let device = Loop::above(rig, &below)?;
        let (name, path) = (device.name()?, device.path().display().to_string());
        inside(rig, "dd", &["if=/dev/urandom", &format!("of={path}"), "bs=1M", "count=64", "oflag=direct"])?;
        let group = Controller::slow_reads(&below.number()?, 4 * BLOCK)?;
        let before = device.account()?;
        let (file, size) = (format!("--filename={path}"), format!("--bs={BLOCK}"));
        let job = ["--name=latency", "--direct=1", "--rw=randread", &size, "--ioengine=psync", "--time_based"];
        let job = [&job[..], &["--thread", "--startdelay=1", "--runtime=5", "--output-format=json", &file]].concat();
        let mut command = Command::new(programs::find("fio")?);
        command.args(job);
        let mut fio = rig.inside("fio", command)?;
        group.take(fio.pid())?;
        let report: serde_json::Value = serde_json::from_str(&fio.finish(LIMIT)?)?;
        let clat = &report["jobs"][0]["read"]["clat_ns"];
        let number = |value: &serde_json::Value| value.as_f64().context("fio says no number").map(|ns| ns * 1e-9);
        let (requests, mean) = (clat["N"].as_f64().context("no count")?, number(&clat["mean"])?);
        let median = number(&clat["percentile"]["50.000000"])?;
        // The kernel's own account of the same, in ms.
        let account = less(device.account()?, before);
        let kernel_mean = account.read_ms as f64 * 1e-3 / account.reads as f64;
        for phase in ["total", "device"] {
            let with = [("system_device", name), ("disk_io_direction", "read"), ("phase", phase)];
            let count =
                agent.reaches(DURATION, requests * 0.95, |page| page.sum(&format!("{DURATION}_count"), &with))?;
            let page = agent.page()?;
            let own_mean = page.sum(&format!("{DURATION}_sum"), &with) / count;
            // Bounds of the bucket that has the median.
            let name = format!("{DURATION}_bucket");
            let mut buckets: Vec<(f64, f64)> = page
                .select(&name, &with)
                .filter_map(|sample| Some((sample.labels.get("le")?.parse().ok()?, sample.value)))
                .collect();
            buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
            let at = buckets.iter().position(|(_, below)| *below >= count / 2.0).context("no median")?;
            let below = at.checked_sub(1).and_then(|at| buckets.get(at)).map_or(0.0, |(bound, _)| *bound);
            let above = buckets[at].0;
            println!(
                "{phase}: fio {requests} requests, mean {:.1} µs, median {:.1} µs; the kernel's mean {:.1} µs; the agent \
                 {count}, mean {:.1} µs, median between {:.1} and {:.1} µs",
                mean * 1e6,
                median * 1e6,
                kernel_mean * 1e6,
                own_mean * 1e6,
                below * 1e6,
                above * 1e6
            );
            // fio's mean has also the time until its thread runs again.
            ensure!(own_mean <= mean * 1.02, "requests took longer than fio waited for them");
            ensure!((own_mean / kernel_mean - 1.0).abs() < 0.1, "the mean is not the kernel's");
            ensure!((below * 0.9..above * 1.1).contains(&median), "the medians differ");
        }
        Ok(())
    })
}
