//! Where the time of an exchange went: the accounts of the threads that served it, at its first and its last byte.
//!
//! One thread from the first byte to the last: the difference of its accounts is the answer, whatever else it did in
//! between (a loop that serves many waits for each of them). Another thread at the end than at the beginning: the time
//! since the second one's first operation in between is known; before that, only as much of its time as was no waiting
//! for work can have been this exchange's, and the rest is unknown. The parts add up to the duration, exactly: on CPU is
//! what no wait accounts for. Pure; bounded by the threads remembered and [`SAMPLES`] of each.

use std::collections::VecDeque;

use crate::model::exchange::{Exchange, MessageFacts};
use crate::model::hashing::Map;
use crate::model::payload::Moment;
use crate::model::thread::{Breakdown, FUTEX, NETWORK, ON_CPU, STATES, ThreadAccount, UNKNOWN};
use crate::section::Interval;

crate::section! {
    /// Where the time of requests went.
    pub struct Config {
        /// Threads whose last operations are remembered, for requests that go from one thread to another.
        pub threads: usize = 4096,
        /// A thread without an operation for so long is forgotten.
        pub remember: Interval = Interval::secs(60),
    }
}

/// Operations remembered of a thread.
const SAMPLES: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Sample {
    ktime_ns: u64,
    account: ThreadAccount,
}

/// Remembers what threads did last.
#[derive(Debug)]
pub struct Explain {
    config: Config,
    threads: Map<u32, VecDeque<Sample>>,
    refused: u64,
}

impl Explain {
    pub fn new(config: Config) -> Self {
        Self { config, threads: Map::default(), refused: 0 }
    }

    /// Takes an operation of a thread. Those of one thread come in order.
    pub fn operation(&mut self, moment: &Moment) {
        let Some(account) = moment.account else { return };
        let full = self.threads.len() >= self.config.threads;
        let samples = match self.threads.get_mut(&moment.tid) {
            Some(samples) => samples,
            None if full => {
                self.refused += 1;
                return;
            }
            None => self.threads.entry(moment.tid).or_insert_with(|| VecDeque::with_capacity(SAMPLES)),
        };
        if samples.len() == SAMPLES {
            samples.pop_front();
        }
        samples.push_back(Sample { ktime_ns: moment.ktime_ns, account });
    }

    /// Forgets threads that have done nothing for long.
    pub fn tick(&mut self, now_ns: u64) {
        let since_ns = now_ns.saturating_sub(self.config.remember.as_ns());
        self.threads.retain(|_, samples| samples.back().is_some_and(|sample| sample.ktime_ns >= since_ns));
    }

    /// Operations of threads that there was no room for.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    pub fn len(&self) -> usize {
        self.threads.len()
    }

    pub fn is_empty(&self) -> bool {
        self.threads.is_empty()
    }

    pub fn capacity(&self) -> usize {
        self.config.threads
    }

    /// Where the time from the request's first byte to the exchange's end went; `None` where no thread's account tells
    /// anything.
    pub fn breakdown(&self, exchange: &Exchange) -> Option<Breakdown> {
        let (start_ns, end_ns) = (exchange.request.first_ns, exchange.end_ns.max(exchange.request.first_ns));
        let response = exchange.response.as_ref()?;
        let parts = if response.last_tid == exchange.request.tid {
            one_thread(&exchange.request, response, start_ns, end_ns)?
        } else {
            self.handed_over(response, start_ns, end_ns)?
        };
        Some(whole(parts, end_ns - start_ns))
    }

    /// Of an exchange that ends on another thread than the one that it began on.
    fn handed_over(&self, response: &MessageFacts, start_ns: u64, end_ns: u64) -> Option<[u64; STATES.len()]> {
        let last = Sample { ktime_ns: response.last_ns, account: response.accounts[1]? };
        let samples = self.threads.get(&response.last_tid)?;
        let comparable = |sample: &&Sample| sample.account.epoch == last.account.epoch && sample.ktime_ns <= end_ns;
        let before = samples.iter().filter(comparable).rfind(|sample| sample.ktime_ns < start_ns);
        let first = samples.iter().filter(comparable).find(|sample| sample.ktime_ns >= start_ns).unwrap_or(&last);
        let mut parts = between(first, &last);
        if let Some(before) = before {
            let mut earlier = between(before, first);
            // Waits for work, and for nobody knows what.
            for state in [FUTEX, NETWORK, UNKNOWN] {
                earlier[state] = 0;
            }
            let room = first.ktime_ns - start_ns;
            for (part, ns) in parts.iter_mut().zip(clipped(earlier, room)) {
                *part += ns;
            }
        }
        Some(parts)
    }
}

/// Of an exchange that begins and ends on one thread.
fn one_thread(
    request: &MessageFacts,
    response: &MessageFacts,
    start_ns: u64,
    end_ns: u64,
) -> Option<[u64; STATES.len()]> {
    let first = Sample { ktime_ns: request.first_done_ns, account: request.accounts[0]? };
    let last = Sample { ktime_ns: response.last_ns, account: response.accounts[1]? };
    if first.account.epoch != last.account.epoch || last.ktime_ns > end_ns {
        return None;
    }
    let mut parts = between(&first, &last);
    // A send that began before it was told of: its own way into the network.
    parts[ON_CPU] += first.ktime_ns.saturating_sub(start_ns);
    Some(parts)
}

/// What a thread did between two of its operations.
fn between(first: &Sample, last: &Sample) -> [u64; STATES.len()] {
    let mut parts = [0; STATES.len()];
    for (part, (after, before)) in parts.iter_mut().zip(last.account.waits_ns.iter().zip(first.account.waits_ns)) {
        *part = after.saturating_sub(before);
    }
    let elapsed_ns = last.ktime_ns.saturating_sub(first.ktime_ns);
    let mut parts = clipped(parts, elapsed_ns);
    parts[ON_CPU] = elapsed_ns - parts.iter().sum::<u64>();
    parts
}

/// The same parts, the largest cut until they are not longer than `room_ns`: the scheduler's clock and the monotonic one
/// are not the same.
fn clipped(mut parts: [u64; STATES.len()], room_ns: u64) -> [u64; STATES.len()] {
    loop {
        let excess = parts.iter().sum::<u64>().saturating_sub(room_ns);
        match parts.iter_mut().max() {
            Some(largest) if excess > 0 => *largest -= excess.min(*largest),
            _ => return parts,
        }
    }
}

/// Parts that add up to the duration: what is missing is unknown.
fn whole(parts: [u64; STATES.len()], duration_ns: u64) -> Breakdown {
    let mut parts = clipped(parts, duration_ns);
    parts[UNKNOWN] += duration_ns - parts.iter().sum::<u64>();
    Breakdown(parts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;
    use crate::model::attributes::Attributes;
    use crate::model::connection::{Connection, Cookie, Role, Transport};
    use crate::model::exchange::Measure;
    use crate::model::metric::{Kind, Metric};
    use crate::model::thread::{DISK, RUNQUEUE};

    static DURATION: Metric =
        Metric { name: "test.duration", unit: "s", kind: Kind::Histogram, description: "Duration", labels: &[] };

    fn moment(tid: u32, ktime_ns: u64, waits: &[(usize, u64)]) -> Moment {
        let mut waits_ns = [0; STATES.len()];
        for (state, ns) in waits {
            waits_ns[*state] = *ns;
        }
        Moment {
            ktime_ns,
            began_ns: ktime_ns,
            tgid: 1,
            tid,
            task: None,
            wake: None,
            account: Some(ThreadAccount { epoch: 1, waits_ns }),
            queued_ns: None,
        }
    }

    fn exchange(request: &Moment, response: Option<&Moment>) -> Exchange {
        Exchange {
            connection: Connection {
                cookie: Cookie(1),
                transport: Transport::Tcp,
                local: ([127, 0, 0, 1], 80).into(),
                peer: ([127, 0, 0, 1], 9).into(),
                peer_cookie: None,
            },
            number: 0,
            wire: None,
            role: Role::Server,
            pid: 1,
            protocol: "test",
            operation: "".into(),
            resource: "".into(),
            status: None,
            error: None,
            request: MessageFacts::begun(0, request, 0),
            response: response.map(|moment| MessageFacts::begun(0, moment, 0)),
            end_ns: response.map_or(request.ktime_ns, |moment| moment.ktime_ns),
            attributes: Attributes::default(),
            measure: Measure { metric: &DURATION, labels: Vec::new() },
            incomplete: None,
            context: None,
        }
    }

    fn parts(explain: &Explain, request: &Moment, response: &Moment) -> Vec<(&'static str, u64)> {
        let breakdown = explain.breakdown(&exchange(request, Some(response))).unwrap();
        assert_eq!(breakdown.total_ns(), response.ktime_ns - request.began_ns);
        breakdown.parts().collect()
    }

    #[test]
    fn one_thread_was_on_cpu_when_it_waited_for_nothing() {
        let explain = Explain::new(Config::default());
        let request = moment(7, 1000, &[(RUNQUEUE, 50), (DISK, 10)]);
        let response = moment(7, 2000, &[(RUNQUEUE, 150), (DISK, 310), (NETWORK, 100)]);
        assert_eq!(
            parts(&explain, &request, &response),
            [("on_cpu", 500), ("runqueue", 100), ("disk", 300), ("network", 100)]
        );
    }

    #[test]
    fn without_an_answer_or_an_account_nothing_is_told() {
        let explain = Explain::new(Config::default());
        let request = moment(7, 1000, &[]);
        assert_eq!(explain.breakdown(&exchange(&request, None)), None);
        let blind = Moment { account: None, ..moment(7, 2000, &[]) };
        assert_eq!(explain.breakdown(&exchange(&request, Some(&blind))), None);
        let mut anew = moment(7, 2000, &[]);
        anew.account = anew.account.map(|account| ThreadAccount { epoch: 2, ..account });
        assert_eq!(explain.breakdown(&exchange(&request, Some(&anew))), None);
    }

    #[test]
    fn another_thread_accounts_for_its_share_and_the_rest_is_unknown() {
        let mut explain = Explain::new(Config::default());
        let request = moment(7, 1000, &[]);
        // The worker idled until 1300, ran for 100 and asked a database at 1400.
        explain.operation(&moment(8, 500, &[(FUTEX, 100)]));
        explain.operation(&moment(8, 1400, &[(FUTEX, 900)]));
        let response = moment(8, 2000, &[(FUTEX, 900), (NETWORK, 400)]);
        explain.operation(&response);
        assert_eq!(parts(&explain, &request, &response), [("on_cpu", 300), ("network", 400), ("unknown", 300)]);
    }

    #[test]
    fn of_a_thread_with_one_operation_only_what_was_no_waiting_counts() {
        let mut explain = Explain::new(Config::default());
        let request = moment(7, 1000, &[]);
        explain.operation(&moment(8, 900, &[]));
        let response = moment(8, 2000, &[(FUTEX, 700), (RUNQUEUE, 100)]);
        explain.operation(&response);
        assert_eq!(parts(&explain, &request, &response), [("on_cpu", 300), ("runqueue", 100), ("unknown", 600)]);
    }

    #[test]
    fn threads_are_bounded_and_forgotten() {
        let mut explain = Explain::new(Config { threads: 10, ..Config::default() });
        (0..30).for_each(|tid| explain.operation(&moment(tid, 1, &[])));
        assert_eq!((explain.len(), explain.refused()), (10, 20));
        explain.tick(60_000_000_002);
        assert!(explain.is_empty());
    }

    proptest! {
        #[test]
        fn whatever_the_accounts_say_the_parts_add_up(
            samples in proptest::collection::vec((0u32..3, 0u64..5000, proptest::array::uniform8(0u64..4000)), 2..12),
        ) {
            let mut explain = Explain::new(Config::default());
            let mut moments: Vec<_> = samples.iter().map(|(tid, ktime_ns, waits)| {
                let waits: Vec<_> = waits.iter().copied().enumerate().collect();
                moment(*tid, *ktime_ns, &waits)
            }).collect();
            moments.sort_by_key(|moment| moment.ktime_ns);
            moments.iter().for_each(|moment| explain.operation(moment));
            let (first, last) = (moments[0], moments[moments.len() - 1]);
            if let Some(breakdown) = explain.breakdown(&exchange(&first, Some(&last))) {
                prop_assert_eq!(breakdown.total_ns(), last.ktime_ns - first.ktime_ns);
            }
        }
    }
}
