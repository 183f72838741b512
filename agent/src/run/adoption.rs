//! Takes up connections that are older than the agent or than their place in its scope: one pass over the open sockets,
//! counted and timed.
//!
//! The events are in the order of their times, so that the pipeline can put each before the first record that is
//! younger. Where the kernel has no such iterator there are none, and the family's state says so.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use seismo_common::tcp::LISTEN;

use super::families::Families;
use crate::bpf::iterate::SocketIterator;
use crate::metrics::Table;
use crate::model::connection::{ConnEvent, ConnEventKind, Cookie, Role};
use crate::probes::adopt::{ADOPT_FAILED, ADOPT_TIME, ADOPTED, FAMILY, events};

pub struct Adoption {
    /// Where the kernel has one.
    pub sockets: Option<SocketIterator>,
    pub families: Arc<Families>,
}

impl Adoption {
    /// What reads open sockets, while its family is on.
    fn wanted(&mut self) -> Option<&mut SocketIterator> {
        self.sockets.as_mut().filter(|_| self.families.is_on(FAMILY.name))
    }

    /// Every open connection in scope; `None` where they cannot be told.
    pub fn open(&mut self, members: &[(u32, bool)]) -> Option<HashSet<Cookie>> {
        let pass = self.wanted()?.read(members).ok()?;
        (pass.too_many == 0 && pass.untold == 0)
            .then(|| pass.records.iter().map(|record| Cookie(record.cookie)).collect())
    }

    /// One event per connection in scope, and the processes that have them; `members` are in or out of scope by their
    /// cgroup.
    pub fn pass(&mut self, members: &[(u32, bool)], table: &Table) -> (Vec<ConnEvent>, HashSet<u32>) {
        let Some(sockets) = self.wanted() else { return Default::default() };
        let began = Instant::now();
        let pass = match sockets.read(members) {
            Ok(pass) => pass,
            Err(error) => {
                log::warn!("connections that are open already are seen from their next request on: {error:#}");
                table.add(&ADOPT_FAILED, &["pass"], 1);
                return Default::default();
            }
        };
        let adopted = events(&pass.records);
        let took = began.elapsed();
        table.set(&ADOPT_TIME, &[], took.as_secs_f64());
        table.add(&ADOPT_FAILED, &["too_many_sockets"], pass.too_many);
        table.add(&ADOPT_FAILED, &["process_table_full"], pass.untold);
        for (role, name) in [(Some(Role::Client), "client"), (Some(Role::Server), "server"), (None, "unknown")] {
            let of_role =
                |event: &&ConnEvent| matches!(event.kind, ConnEventKind::Adopted { role: it, .. } if it == role);
            table.add(&ADOPTED, &[name], adopted.iter().filter(of_role).count() as u64);
        }
        log::info!("{} open connections taken up in {:.1} ms", adopted.len(), took.as_secs_f64() * 1e3);
        // Listeners are told of every process, in scope or not.
        let connections = pass.records.iter().filter(|record| record.state != LISTEN);
        (adopted, connections.map(|record| record.tgid).collect())
    }
}
