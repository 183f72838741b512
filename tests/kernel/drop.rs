//! Dropped datagrams, by reason and by workload, against the counters of the network that they were sent in.

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::{Agent, Launch};
use seismo_tests::exposition::Page;
use seismo_tests::rig::Rig;

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");
const DROPPED: &str = "seismo_network_packet_dropped_total";
const SENT: u64 = 1000;
/// Drops of the rest of the machine meanwhile.
const NOISE: f64 = 20.0;

#[test]
fn datagrams_that_nobody_takes_are_counted_by_reason_as_their_network_counts_them() -> Result<()> {
    Rig::run(|rig| {
        let config = "metrics:\n  workload_labels: [cgroup]\n".to_owned();
        let agent = Agent::launch(rig, &Launch { config: Some(config), ..Launch::default() })?;
        let before = agent.page()?;
        let told = rig.client(CLIENT, "flood", &["flood", &SENT.to_string()])?;
        let (full, nobody) = told.trim().split_once(' ').context("the client said nothing")?;
        let (full, nobody) = (full.parse::<f64>()?, nobody.parse::<f64>()?);
        ensure!(full > 100.0 && nobody == SENT as f64, "the client was not refused: {told}");
        for (reason, expected) in [("socket_rcvbuff", full), ("no_socket", nobody)] {
            let with = [("reason", reason)];
            let start = before.sum(DROPPED, &with);
            let counted = agent.reaches(reason, start + expected, |page| page.sum(DROPPED, &with))? - start;
            println!("{reason}: the network counted {expected}, the host {counted}");
            ensure!(counted < expected + NOISE, "{counted} are too many");
        }
        let group = rig.cgroup().path().file_name().context("a name")?.to_string_lossy().into_owned();
        let own = |page: &Page| -> f64 {
            let of_group = page
                .select("seismo_udp_dropped_total", &[("reason", "receive_buffer")])
                .filter(|sample| sample.labels.get("cgroup").is_some_and(|own| own.ends_with(&group)));
            of_group.map(|sample| sample.value).sum()
        };
        let counted = agent.settled(&full, own)?;
        println!("full buffers: the network counted {full}, the group's sockets {counted}");
        ensure!(counted == full, "the counts differ");
        Ok(())
    })
}
