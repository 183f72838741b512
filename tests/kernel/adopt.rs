//! Connections older than the agent, or than their place in its scope, are taken up with the right role.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};

use anyhow::{Result, ensure};
use seismo_tests::agent::Agent;
use seismo_tests::player::Player;
use seismo_tests::rig::Rig;

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");

fn adopted(agent: &Agent<'_>) -> Result<BTreeMap<String, u64>> {
    Ok(agent.page()?.by("seismo_adopted_total", "role", &[]))
}

#[test]
fn what_is_open_at_the_start_and_in_scope_is_taken_up_at_both_ends_and_nothing_else() -> Result<()> {
    Rig::run(|rig| {
        // Out of scope: in the test's own process, and beside the control group.
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let own = TcpStream::connect(listener.local_addr()?)?;
        let mut stranger =
            Player::start(rig, CLIENT, "stranger", &["play"], |command| rig.outside("stranger", command))?;
        stranger.request("/stranger")?;
        let mut players = Vec::new();
        for name in ["one", "two", "three"] {
            let mut player = Player::start(rig, CLIENT, name, &["play"], |command| rig.inside(name, command))?;
            player.request("/before")?;
            players.push(player);
        }
        let agent = Agent::start(rig)?;
        let counts = adopted(&agent)?;
        println!("{counts:?}, pass: {:.2} ms", agent.page()?.sum("seismo_adopt_duration_seconds", &[]) * 1e3);
        ensure!(counts.get("client") == Some(&3) && counts.get("server") == Some(&3), "{counts:?}");
        ensure!(counts.get("unknown") == Some(&0), "{counts:?}");
        ensure!(agent.page()?.sum("seismo_adopt_failed_total", &[]) == 0.0, "some could not be taken up");
        // Later state changes are told: the connections leave the table when they close.
        for player in &mut players {
            player.request("/after")?;
        }
        agent.awaited_spans(6, |span| span.path() == "/after")?;
        for player in players {
            player.finish()?;
        }
        let left = agent.settled(&0.0, |page| page.sum("seismo_table_entries", &[("table", "flows")]))?;
        ensure!(left == 0.0, "{left} connections are still tracked");
        drop((own, stranger));
        agent.stop()
    })
}
