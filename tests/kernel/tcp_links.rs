//! TCP over links that delay and drop, against the counters of the networks at both ends and the client's own clock.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::{Agent, Launch};
use seismo_tests::exposition::Page;
use seismo_tests::link::{Link, Weather};
use seismo_tests::netns::{self, Netns};
use seismo_tests::process::Process;
use seismo_tests::rig::Rig;
use seismo_tests::wait;

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");
const LIMIT: Duration = Duration::from_secs(120);
const ADDRESS: &str = "10.77.0.1:18181";
/// Lets what was under way, such as the end of the last connection, come to rest.
const STILL: Duration = Duration::from_secs(2);

/// A server's network and a client's, with a link between them.
struct Ends {
    server: Netns,
    client: Netns,
    link: Link,
}

impl Ends {
    fn join(weather: Weather) -> Result<Self> {
        let (server, client) = (Netns::new()?, Netns::new()?);
        let link = Link::join("seismo0", [(&server, "10.77.0.1/24"), (&client, "10.77.0.2/24")], weather)?;
        Ok(Self { server, client, link })
    }

    /// Starts the test client in one of the networks.
    fn start(rig: &Rig, network: &Netns, arguments: &[&str]) -> Result<Process> {
        let mut command = Command::new(CLIENT);
        command.args(arguments).stdin(Stdio::null());
        network.enter(&mut command)?;
        rig.inside(arguments[0], command)
    }

    /// A server that listens.
    fn serve(&self, rig: &Rig, arguments: &[&str]) -> Result<Process> {
        let mut server = Self::start(rig, &self.server, arguments)?;
        wait::until("the server", LIMIT, || match server.ended()? {
            Some(status) => anyhow::bail!("the server ended with {status}: {}", server.err()),
            None => Ok(server.out().contains("listens").then_some(())),
        })?;
        Ok(server)
    }

    /// A counter of both networks.
    fn both(&self, name: &str) -> Result<f64> {
        Ok((self.server.counter("snmp", "Tcp", name)? + self.client.counter("snmp", "Tcp", name)?) as f64)
    }
}

fn launch(rig: &Rig) -> Result<Agent<'_>> {
    let config = "metrics:\n  workload_labels: [cgroup]\ntcp_sockets:\n  interval: 1ms\n".to_owned();
    Agent::launch(rig, &Launch { config: Some(config), ..Launch::default() })
}

/// Sum over the series of the test's group.
fn own(page: &Page, rig: &Rig, metric: &str, with: &[(&str, &str)]) -> f64 {
    let group = rig.cgroup().path().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let of_group =
        page.select(metric, with).filter(|sample| sample.labels.get("cgroup").is_some_and(|own| own.ends_with(&group)));
    of_group.map(|sample| sample.value).sum()
}

/// Number of observations and their sum, seconds.
fn histogram(page: &Page, rig: &Rig, metric: &str) -> [f64; 2] {
    ["count", "sum"].map(|part| own(page, rig, &format!("{metric}_{part}"), &[]))
}

#[test]
fn segments_sent_again_are_as_many_as_the_networks_count_and_bytes_as_many_as_were_sent() -> Result<()> {
    // Where other work wants the CPUs, the kernel tells nobody of about one in 150; the next one brings it back, but for
    // the first of a connection.
    const ATTEMPTS: usize = 3;
    Rig::run(|rig| {
        for attempt in 1..=ATTEMPTS {
            let [kernel, counted] = sent_again(rig)?;
            if counted == kernel {
                return Ok(());
            }
            ensure!(counted < kernel && counted >= 0.98 * kernel, "attempt {attempt}: the counts differ");
        }
        anyhow::bail!("the counts differ")
    })
}

/// Pours bytes over a link that drops 5 %: segments sent again as the networks and as the agent count them.
fn sent_again(rig: &Rig) -> Result<[f64; 2]> {
    const CONNECTIONS: f64 = 8.0;
    const BYTES: f64 = 400_000.0;
    let weather = Weather { delay: Duration::from_millis(5), lost_per_mille: 50, seed: 20_260_119, ..Weather::FAIR };
    let ends = Ends::join(weather)?;
    let agent = launch(rig)?;
    let (connections, bytes) = (CONNECTIONS.to_string(), BYTES.to_string());
    let mut server = ends.serve(rig, &["sink", ADDRESS, &connections])?;
    Ends::start(rig, &ends.client, &["pour", ADDRESS, &connections, &bytes])?.finish(LIMIT)?;
    server.finish(LIMIT)?;
    let kernel = ends.both("RetransSegs")?;
    // Ends of connections may still be sent again.
    let kernel = wait::settled(&kernel, LIMIT, STILL, || ends.both("RetransSegs"))?;
    let counted = agent.settled(&kernel, |page| own(page, rig, "seismo_tcp_retransmits_total", &[]))?;
    let syns = ends.client.counter("netstat", "TcpExt", "TCPSynRetrans")?;
    let probes = ends.client.counter("netstat", "TcpExt", "TCPLossProbes")?;
    println!(
        "the link {:?}; sent again: the networks {kernel}, the agent {counted} ({syns} SYNs, {probes} probes)",
        ends.link.counts()
    );
    ensure!(kernel > 20.0, "the link was not bad");
    let page = agent.page()?;
    let moved = CONNECTIONS * (BYTES + 8.0);
    for direction in ["transmit", "receive"] {
        let with = [("network_transport", "tcp"), ("network_io_direction", direction)];
        let counted = own(&page, rig, "seismo_socket_io_bytes_total", &with);
        println!("{direction}: moved {moved} bytes, counted {counted}");
        ensure!(counted == moved, "the counts differ");
    }
    for role in ["client", "server"] {
        let counted = own(&page, rig, "seismo_tcp_opened_connections_total", &[("role", role)]);
        println!("{role}: opened {CONNECTIONS} connections, counted {counted}");
        ensure!(counted == CONNECTIONS, "the counts differ");
    }
    Ok([kernel, counted])
}

#[test]
fn round_trips_are_those_of_the_link() -> Result<()> {
    const DELAY: Duration = Duration::from_millis(50);
    Rig::run(|rig| {
        let ends = Ends::join(Weather { delay: DELAY, ..Weather::FAIR })?;
        let agent = launch(rig)?;
        let mut server = ends.serve(rig, &["echo", ADDRESS, "8"])?;
        Ends::start(rig, &ends.client, &["ask", ADDRESS, "8", "40"])?.finish(LIMIT)?;
        server.finish(LIMIT)?;
        let metric = "seismo_tcp_rtt_seconds";
        let [count, sum] = agent.still(|page| histogram(page, rig, metric))?;
        let link = 2.0 * DELAY.as_secs_f64();
        println!("the link {:.1} ms there and back, {count} samples of {:.2} ms", link * 1e3, sum / count * 1e3);
        ensure!(count >= 8.0, "too few samples");
        ensure!((sum / count - link).abs() <= 0.1 * link, "not the link's");
        let page = agent.page()?;
        let buckets = page.select("seismo_tcp_rtt_seconds_bucket", &[("le", "0.125")]);
        ensure!(buckets.map(|bucket| bucket.value).sum::<f64>() >= count * 0.9, "not in their bucket");
        Ok(())
    })
}

/// Connects over a link, and holds what the client's clock says against the histogram.
fn connects(rig: &Rig, weather: Weather, count: f64) -> Result<f64> {
    let ends = Ends::join(weather)?;
    let agent = launch(rig)?;
    // The listener takes connections in without anybody accepting them.
    let _server = ends.serve(rig, &["sink", ADDRESS, "1000"])?;
    let told = Ends::start(rig, &ends.client, &["connect", ADDRESS, &count.to_string()])?.finish(LIMIT)?;
    let words: Vec<f64> = told.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let (opened, seconds) = (words[0], words[4] / 1e6);
    ensure!(opened == count, "the client opened {opened} connections");
    let metric = "seismo_tcp_connect_duration_seconds";
    let counted = agent.settled(&count, |page| histogram(page, rig, metric)[0])?;
    let [_, sum] = histogram(&agent.page()?, rig, metric);
    println!("{opened} connections in {seconds:.4} s by the client's clock, {counted} in {sum:.4} s by the kernel's");
    ensure!(counted == opened, "the counts differ");
    // The client's clock also sees it run; the kernel keeps the time of a SYN that is sent again to a millisecond.
    ensure!(sum < seconds + 0.001 * count && seconds - sum < 0.05 * seconds + 0.002 * count, "the times differ");
    Ok(ends.client.counter("netstat", "TcpExt", "TCPSynRetrans")? as f64)
}

#[test]
fn connections_take_as_long_to_open_as_the_client_waits() -> Result<()> {
    Rig::run(|rig| {
        let again = connects(rig, Weather { delay: Duration::from_millis(20), ..Weather::FAIR }, 30.0)?;
        ensure!(again == 0.0, "{again} SYNs were sent again");
        Ok(())
    })
}

#[test]
fn connections_whose_syn_is_lost_take_as_long_to_open_as_the_client_waits() -> Result<()> {
    Rig::run(|rig| {
        let weather =
            Weather { delay: Duration::from_millis(5), lost_per_mille: 250, seed: 20_260_120, ..Weather::FAIR };
        let again = connects(rig, weather, 10.0)?;
        println!("{again} SYNs were sent again");
        ensure!(again > 0.0, "no SYN was lost");
        Ok(())
    })
}

#[test]
fn connections_that_fail_are_counted_by_why() -> Result<()> {
    Rig::run(|rig| {
        let ends = Ends::join(Weather::FAIR)?;
        ends.server.forward()?;
        ends.server.ip("route add unreachable 10.99.0.0/24")?;
        ends.server.ip("route add blackhole 10.98.0.0/24")?;
        ends.client.ip("route add default via 10.77.0.1")?;
        ends.client.within(|| Ok(fs::write("/proc/sys/net/ipv4/tcp_syn_retries", "1")?))?;
        let agent = launch(rig)?;
        let mut expected = [("refused", 0.0), ("timeout", 0.0), ("unreachable", 0.0), ("aborted", 5.0)];
        // A router that has to say much says nothing for a while: what the client was told is what counts.
        for (target, count) in [("10.77.0.1:9", "20"), ("10.98.0.1:9", "2"), ("10.99.0.1:9", "3")] {
            let told = Ends::start(rig, &ends.client, &["connect", target, count])?.finish(LIMIT)?;
            let told: Vec<f64> = told.split_whitespace().skip(1).map(str::parse).collect::<Result<_, _>>()?;
            expected.iter_mut().zip(told).take(3).for_each(|((_, sum), count)| *sum += count);
        }
        Ends::start(rig, &ends.client, &["abandon", "10.98.0.1:9", "5"])?.finish(LIMIT)?;
        let metric = "seismo_tcp_failed_connections_total";
        for (reason, count) in &expected {
            let counted = agent.settled(count, |page| own(page, rig, metric, &[("reason", reason)]))?;
            println!("{reason}: the client {count}, the agent {counted}");
            ensure!(*count > 0.0 && counted == *count, "the counts differ");
        }
        let all = own(&agent.page()?, rig, metric, &[]);
        ensure!(all == expected.iter().map(|(_, count)| count).sum::<f64>(), "{all} in all");
        Ok(())
    })
}

#[test]
fn resets_are_counted_as_their_network_counts_them() -> Result<()> {
    Rig::run(|rig| {
        let network = Netns::new()?;
        let agent = launch(rig)?;
        Ends::start(rig, &network, &["churn", "40"])?.finish(LIMIT)?;
        let kernel = network.counter("snmp", "Tcp", "OutRsts")? as f64;
        let resets =
            |page: &Page, direction| own(page, rig, "seismo_tcp_resets_total", &[("network_io_direction", direction)]);
        for direction in ["transmit", "receive"] {
            let counted = agent.settled(&kernel, |page| resets(page, direction))?;
            println!("{direction}: the network {kernel}, the agent {counted}");
            ensure!(kernel == 30.0 && counted == kernel, "the counts differ");
        }
        Ok(())
    })
}

#[test]
fn a_full_accept_queue_shows_its_length_its_limit_and_what_it_dropped() -> Result<()> {
    const OVERFLOWS: &str = "seismo_tcp_accept_queue_overflows_total";
    Rig::run(|rig| {
        let agent = launch(rig)?;
        let kernel = || -> Result<f64> { Ok(netns::counter("netstat", "TcpExt", "ListenOverflows")? as f64) };
        let before = kernel()?;
        let mut client = rig.start_client(CLIENT, "overflow", &["overflow", "4", "20"])?;
        let port = wait::until("the port", LIMIT, || Ok(Some(client.out()).filter(|out| out.ends_with('\n'))))?;
        let port = port.trim().to_owned();
        let of_port = |page: &Page, what: &str| {
            page.sum(&format!("seismo_tcp_accept_queue_{what}"), &[("server_port", port.as_str())])
        };
        // SYNs that were dropped come again, and are dropped again: both counts are taken until nothing came in between.
        let [dropped, by_kernel, overflows] = wait::until("the same counts", LIMIT, || {
            let first = kernel()?;
            let page = agent.page()?;
            let counts = [of_port(&page, "dropped"), kernel()? - before, page.sum(OVERFLOWS, &[]) - before];
            Ok((first - before == counts[1] && counts[0] > 0.0).then_some(counts))
        })?;
        let page = agent.page()?;
        let [length, limit] = ["length", "limit"].map(|what| of_port(&page, what));
        println!("overflows: the kernel {by_kernel}, the agent {overflows}, of which at the port {dropped}");
        println!("{length} wait, {limit} may");
        ensure!(dropped == by_kernel && overflows == by_kernel, "the counts differ");
        // One more than the limit fits.
        ensure!(length == 5.0 && limit == 4.0, "not the queue that was made");
        drop(client.input()?);
        client.finish(LIMIT)?;
        ensure!(agent.settled(&0.0, |page| of_port(page, "limit"))? == 0.0, "the port still has a queue");
        Ok(())
    })
}

#[test]
fn sockets_are_counted_by_state_as_the_kernel_lists_them() -> Result<()> {
    Rig::run(|rig| {
        let agent = launch(rig)?;
        let mut client = rig.start_client(CLIENT, "overflow", &["overflow", "4", "5"])?;
        wait::until("the port", LIMIT, || Ok(Some(client.out()).filter(|out| out.ends_with('\n'))))?;
        // Others open and close connections meanwhile: both are read until they agree.
        let same = wait::until("the same counts", LIMIT, || {
            // The connection that asks for the page is there with both its ends then, and only then.
            let listed = [listed("0A"), listed("01") + 2.0];
            let page = agent.page()?;
            let counted =
                ["listen", "established"].map(|state| page.sum("seismo_tcp_connections", &[("state", state)]));
            Ok((listed == counted).then_some(counted))
        });
        let page = agent.page()?;
        println!("counted {:?}", page.by("seismo_tcp_connections", "state", &[]));
        // Five connections with both ends, and the listener; the agent listens too.
        let [listening, open] = same.context("never the same")?;
        ensure!(listening >= 2.0 && open >= 10.0, "{listening} listen, {open} are open");
        drop(client.input()?);
        client.finish(LIMIT)?;
        Ok(())
    })
}

/// Sockets of this network in a state, by the kernel's own list.
fn listed(state: &str) -> f64 {
    let of = |file| fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
    let lines = |text: String| text.lines().filter(|line| line.split_whitespace().nth(3) == Some(state)).count();
    ["tcp", "tcp6"].map(of).map(lines).iter().sum::<usize>() as f64
}
