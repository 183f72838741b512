//! Datagrams and their bytes against what was sent; errors against the network's own account.

use anyhow::{Result, ensure};
use seismo_tests::agent::{Agent, Launch};
use seismo_tests::exposition::Page;
use seismo_tests::netns;
use seismo_tests::rig::Rig;

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");
const SENT: f64 = 3000.0;
const BYTES: f64 = 700.0;

#[test]
fn datagrams_and_their_bytes_are_those_of_the_sender() -> Result<()> {
    Rig::run(|rig| {
        let config = "metrics:\n  workload_labels: [cgroup]\n".to_owned();
        let agent = Agent::launch(rig, &Launch { config: Some(config), ..Launch::default() })?;
        rig.client(CLIENT, "datagrams", &["datagrams", &SENT.to_string(), &BYTES.to_string()])?;
        let group = rig.cgroup().path().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let own = |page: &Page, metric: &str, with: &[(&str, &str)]| -> f64 {
            let of_group = page
                .select(metric, with)
                .filter(|sample| sample.labels.get("cgroup").is_some_and(|own| own.ends_with(&group)));
            of_group.map(|sample| sample.value).sum()
        };
        for direction in ["transmit", "receive"] {
            let with = [("network_io_direction", direction)];
            let datagrams = agent.settled(&SENT, |page| own(page, "seismo_udp_datagrams_total", &with))?;
            let with = [("network_io_direction", direction), ("network_transport", "udp")];
            let bytes = own(&agent.page()?, "seismo_socket_io_bytes_total", &with);
            println!(
                "{direction}: {SENT} datagrams of {BYTES} bytes, counted {datagrams} with {} each",
                bytes / datagrams
            );
            ensure!(datagrams == SENT && bytes == SENT * BYTES, "the counts differ");
        }
        // The page has what the file had, before or after.
        let kernel = || netns::counter("snmp", "Udp", "NoPorts");
        let (before, page, after) = (kernel()?, agent.page()?, kernel()?);
        let counted = page.sum("seismo_udp_errors_total", &[("reason", "no_port")]) as u64;
        println!("no port: the network {before} to {after}, the agent {counted}");
        ensure!(page.has("seismo_udp_errors_total") && counted >= before, "less than the network's");
        Ok(())
    })
}
