//! Pace of the linker by how many requests one loop has open at once, and what its bound does: spans per second of CPU time.
//!
//! `cargo test --release -p seismo-tests --test linking pace -- --nocapture` prints numbers that mean something. What is
//! checked is not the time: below the bound every span is weighed; beyond, spans say that they were not, none is wrong for
//! it, and what a thread tells is told as ever.

use seismo::traces::linker::file::{self, Answer};
use seismo::traces::linker::{Limits, Missed};

use super::random::Random;
use super::score::Score;
use super::service::{Simulation, Style};

const REQUESTS: usize = 3000;

/// CPU time of this thread, ns: other tests run beside this one.
fn on_cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

fn unweighed(answers: &[Answer]) -> usize {
    answers.iter().filter(|answer| answer.reason == Some(Missed::Unweighed.name())).count()
}

#[test]
fn pace_of_a_crowded_loop_and_what_is_not_weighed_there() {
    let seed = Random::fresh_seed();
    println!("seed {seed}");
    println!(
        "{:>8} {:>7} {:>13} {:>9} {:>9} {:>7} {:>9} {:>7}",
        "at once", "spans", "spans/s begun", "spans/s", "unweighed", "recall", "precision", "whole"
    );
    for clients in [1, 4, 16, 64, 256] {
        let world = Simulation::run(Style::Loop, clients, REQUESTS, seed ^ clients as u64);
        let times = || world.spans.iter().map(|span| span.facts.start_ns);
        let lasted_ns = times().max().unwrap() - times().min().unwrap();
        let begun_ns = on_cpu_ns();
        let answers = file::link(&world.spans, Limits::default());
        let took_ns = on_cpu_ns() - begun_ns;
        let rate = |ns: u64| world.spans.len() as f64 * 1e9 / ns as f64;
        let (score, unweighed) = (Score::of(&world, &answers), unweighed(&answers));
        println!(
            "{clients:>8} {:>7} {:>13.0} {:>9.0} {unweighed:>9} {:>7.4} {:>9.4} {:>7.4}",
            world.spans.len(),
            rate(lasted_ns),
            rate(took_ns),
            score.recall(),
            score.precision(),
            score.whole_share(),
        );
        assert_eq!(unweighed > 0, clients >= 64, "{clients}: {unweighed} unweighed");
        assert!(score.wrong_share() <= 0.015, "{clients}: {score:?}");
    }
}

#[test]
fn what_threads_tell_is_told_however_little_may_be_weighed() {
    let seed = Random::fresh_seed();
    println!("seed {seed}");
    let world = Simulation::run(Style::Pool(8), 64, REQUESTS / 3, seed);
    let of = |pairs| file::link(&world.spans, Limits { pairs, ..Limits::default() });
    let (all, none) = (of(u64::MAX), of(0));
    assert!(all.iter().filter(|answer| answer.method == Some("thread")).count() > 1000);
    for (with, without) in all.iter().zip(&none) {
        match with.method {
            Some("statistics" | "wakeup") => assert_eq!(without.parent, None, "{without:?}"),
            _ => assert_eq!(with.parent, without.parent),
        }
    }
}
