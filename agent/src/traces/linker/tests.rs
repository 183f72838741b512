//! Tiers and rules on span files of a few lines: what is linked, how, and what is not.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, prop_assert, prop_assert_eq, proptest};

use super::Limits;
use super::facts::{Facts, OPEN};
use super::file::{self, Span};
use super::window::Process;
use crate::traces::tasks::Ancestor;

/// `ID=PARENT/METHOD` of each span that has a parent.
fn linked(lines: &str) -> String {
    let spans = file::parse(lines).unwrap();
    let answers = file::link(&spans, Limits::default());
    let told = answers
        .iter()
        .filter_map(|answer| Some(format!("{}={}/{}", answer.id, answer.parent.as_deref()?, answer.method?)));
    told.collect::<Vec<_>>().join(" ")
}

fn line(kind: &str, id: &str, times: (u64, u64), tid: u32, more: &str) -> String {
    let (start, end) = times;
    format!(
        "{{\"id\":\"{id}\",\"kind\":\"{kind}\",\"tgid\":7,\"tid\":{tid},\"start_ns\":{start},\"end_ns\":{end}{more}}}\n"
    )
}

fn server(id: &str, times: (u64, u64), tid: u32, more: &str) -> String {
    line("server", id, times, tid, more)
}

fn client(id: &str, times: (u64, u64), tid: u32, more: &str) -> String {
    line("client", id, times, tid, more)
}

/// Two requests of one thread that are open at once: no thread tells them apart.
fn two(more: [&str; 2]) -> String {
    server("a", (100, 900), 1, more[0]) + &server("b", (200, 800), 1, more[1])
}

/// Of a task that came from others at these times, the nearest first.
fn came_from(steps: &[(u64, u64)]) -> String {
    let steps: Vec<_> = steps.iter().map(|(task, ns)| format!("{{\"task\":{task},\"born_ns\":{ns}}}")).collect();
    format!(",\"task\":99,\"ancestors\":[{}]", steps.join(","))
}

/// The same, and woken.
fn woken_by(wakers: &[(u64, u64)], ancestors: &[(u64, u64)]) -> String {
    let wakers = came_from(wakers).replace(",\"task\":99,\"ancestors\"", ",\"task_wakers\"");
    came_from(ancestors) + &wakers
}

/// One that woke tasks with what it read.
fn answered_to(woken: &[(u64, u64)], more: &str) -> String {
    came_from(woken).replace("\"ancestors\"", "\"task_woken\"") + ",\"task_wakers\":[]" + more
}

/// Two requests of two tasks, and one that a third one sent.
fn asked_for_one_of_two(more: &str) -> String {
    two([",\"task\":3", ",\"task\":4"]) + &client("c", (300, 400), 1, more)
}

#[test]
fn whom_a_task_wakes_with_an_answer_tells_whom_it_sent_for() {
    let driving = ",\"drives\":true";
    let begun = |task: u64| format!(",\"ancestors\":[{{\"task\":{task},\"born_ns\":280}}]");
    let woken = |task: u64| format!(",\"task_wakers\":[{{\"task\":{task},\"born_ns\":290}}]");
    let by_answer = |steps: &[(u64, u64)], more: &str| asked_for_one_of_two(&answered_to(steps, more));
    let woken_too = |task: u64, more: &str| by_answer(&[(3, 410)], more).replace(",\"task_wakers\":[]", &woken(task));
    for (lines, expected) in [
        (by_answer(&[(3, 410)], driving), "c=a/task"),
        (by_answer(&[(8, 410), (4, 280)], driving), "c=b/task"),
        // One that is not known to send for others may wake another one for what that one waited for.
        (by_answer(&[(3, 410)], ""), ""),
        (by_answer(&[(3, 410)], &begun(3)), "c=a/task"),
        (by_answer(&[(3, 410)], &begun(4)), ""),
        // Another request on the same connection by then.
        (by_answer(&[(3, 910)], driving), ""),
        // Who opened a connection began its task.
        (by_answer(&[(3, 410)], &(begun(4) + driving)), "c=a/task"),
        (woken_too(3, ""), "c=a/task"),
        (woken_too(4, ""), ""),
        (woken_too(3, &(begun(4) + driving)), "c=a/task"),
        // It may have been woken by one that let it go on.
        (woken_too(4, driving), ""),
        (woken_too(4, &(begun(4) + driving)), ""),
        (woken_too(4, &begun(4)), ""),
        (woken_too(3, &begun(3)), "c=a/task"),
    ] {
        assert_eq!(linked(&lines), expected, "{lines}");
    }
}

/// A request that may be the one whose task is woken later is awaited, though others are over.
#[test]
fn nothing_is_decided_by_who_began_a_task_before_an_answer_could_tell_otherwise() {
    let spans = file::parse(&asked_for_one_of_two(&came_from(&[(4, 280)]))).unwrap();
    let [(a, _), (b, _), (c, facts)] = [0, 1, 2].map(|place| (place, spans[place].facts.clone()));
    let mut process: Process<usize> = Process::default();
    process.serve(a, Facts { end_ns: OPEN, ..spans[a].facts.clone() });
    process.serve(b, spans[b].facts.clone());
    process.send(c, facts);
    assert_eq!(process.run(Limits::default(), 0, 0), []);
    let told = process.undecided_of(c).unwrap();
    (told.asker, told.drives) = (vec![Ancestor { task: spans[a].facts.task.unwrap(), born_ns: 850 }], true);
    process.serve(a, spans[a].facts.clone());
    let decided = process.run(Limits::default(), 0, 0);
    assert_eq!(decided.iter().map(|decision| decision.parent.map(|parent| parent.0)).collect::<Vec<_>>(), [Ok(a)]);
    assert!(process.undecided_of(c).is_none());
}

#[test]
fn each_tier_names_the_parent_that_its_evidence_names() {
    let trace = "4bf92f3577b34da6a3ce929d0e0e473";
    let carried = |last: &str, span: &str| format!(",\"context\":{{\"traceparent\":\"00-{trace}{last}-{span}-01\"}}");
    let (one, other) = (carried("1", "00f067aa0ba902b7"), carried("2", "00f067aa0ba902b7"));
    let onward = carried("2", "1111111111111111");
    let uuid = ",\"path\":\"/v/f81d4fae-7dec-11d0-a765-00a0c91e6bf6\"";
    let cases = [
        (two([&one, &other]) + &client("c", (300, 400), 1, &onward), "c=b/in_band"),
        (two([",\"task\":1", ",\"task\":2"]) + &client("c", (300, 400), 1, ",\"task\":1"), "c=a/task"),
        // Who answers it.
        (two([",\"end_task\":\"x\"", ""]) + &client("c", (300, 400), 1, ",\"task\":\"x\""), "c=a/task"),
        (
            two([",\"end_task\":3", ",\"task\":4"]) + &client("c", (300, 400), 1, &came_from(&[(8, 290), (3, 280)])),
            "c=a/task",
        ),
        // Begun for an earlier request on the same connection.
        (two([",\"end_task\":3", ""]) + &client("c", (300, 400), 1, &came_from(&[(3, 90)])), ""),
        // Woken by one of them for it; by another one than began it.
        (two([",\"task\":3", ""]) + &client("c", (300, 400), 1, &woken_by(&[(3, 290)], &[])), "c=a/task"),
        (two([",\"task\":3", ""]) + &client("c", (300, 400), 1, &woken_by(&[(8, 290), (3, 280)], &[])), "c=a/task"),
        (two([",\"task\":3", ""]) + &client("c", (300, 400), 1, &woken_by(&[(3, 90)], &[])), ""),
        (two([",\"task\":3", ",\"task\":4"]) + &client("c", (300, 400), 1, &woken_by(&[(3, 290)], &[(4, 280)])), ""),
        (
            two([",\"task\":3", ",\"task\":4"])
                + &client("c", (300, 400), 1, &(woken_by(&[(3, 290)], &[(4, 280)]) + ",\"drives\":true")),
            "c=a/task",
        ),
        (
            two([",\"task\":3", ",\"task\":4"]) + &client("c", (300, 400), 1, &woken_by(&[(8, 290)], &[(4, 280)])),
            "c=b/task",
        ),
        (
            server("a", (100, 900), 1, "") + &server("b", (100, 900), 2, "") + &client("c", (300, 400), 2, ""),
            "c=b/thread",
        ),
        (
            server("a", (100, 900), 1, "")
                + &server("b", (100, 900), 2, "")
                + &client("c", (300, 400), 5, ",\"parent_tid\":1"),
            "c=a/lineage",
        ),
        (
            server("a", (100, 900), 1, "")
                + &server("b", (100, 900), 2, "")
                + &client("c", (300, 400), 5, ",\"connect_tid\":2"),
            "c=b/lineage",
        ),
        (two([uuid, ""]) + &client("c", (300, 400), 5, uuid), "c=a/token"),
        (server("a", (100, 900), 1, "") + &client("c", (300, 400), 5, ""), "c=a/alone"),
        // Nobody waited for it.
        (server("a", (100, 900), 1, "") + &client("c", (300, 1000), 5, ""), ""),
    ];
    for (lines, expected) in cases {
        assert_eq!(linked(&lines), expected, "{lines}");
    }
}

#[test]
fn what_two_requests_could_claim_is_claimed_by_none() {
    let id = ",\"context\":{\"x-request-id\":\"r-1\"}";
    let uuid = ",\"path\":\"/v/f81d4fae-7dec-11d0-a765-00a0c91e6bf6\"";
    for lines in [
        two(["", ""]) + &client("c", (300, 400), 1, ""),
        two([id, id]) + &client("c", (300, 400), 1, id),
        two([uuid, uuid]) + &client("c", (300, 400), 5, uuid),
        two(["", ""]) + &client("c", (300, 400), 5, ",\"parent_tid\":1"),
        two([",\"task\":1", ",\"end_task\":1"]) + &client("c", (300, 400), 5, ",\"task\":1"),
        server("a", (100, 900), 1, "")
            + &server("b", (100, 900), 2, "")
            + &client("c", (300, 400), 5, ",\"parent_tid\":1,\"connect_tid\":2"),
    ] {
        assert_eq!(linked(&lines), "", "{lines}");
    }
}

#[test]
fn a_child_starts_while_its_parent_is_open() {
    let parent = server("a", (100, 200), 1, "");
    for (times, expected) in [((99, 150), ""), ((100, 150), "c=a/thread"), ((199, 300), "c=a/thread"), ((200, 300), "")]
    {
        assert_eq!(linked(&(parent.clone() + &client("c", times, 1, ""))), expected, "{times:?}");
    }
    let id = ",\"context\":\"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\"";
    assert_eq!(linked(&(server("a", (100, 200), 1, id) + &client("c", (250, 300), 1, id))), "", "not by an id either");
}

#[test]
fn the_first_span_does_not_use_its_parent_up_and_the_answer_closes_it() {
    let lines = server("a", (100, 900), 1, "")
        + &client("c", (200, 300), 1, "")
        + &client("d", (400, 500), 1, "")
        + &client("e", (900, 950), 1, "");
    assert_eq!(linked(&lines), "c=a/thread d=a/thread");
}

#[test]
fn a_worker_sends_for_the_request_that_it_answers_next() {
    let mut lines = String::new();
    let mut expected = Vec::new();
    for turn in 0..20u64 {
        // Read by one thread, answered by two.
        for worker in 0..2u64 {
            let start = turn * 1000 + worker * 10;
            let more = format!(",\"end_tid\":{}", 50 + worker);
            lines += &server(&format!("s{turn}-{worker}"), (start, start + 900), 1, &more);
            lines += &client(&format!("c{turn}-{worker}"), (start + 200, start + 300), 50 + worker as u32, "");
            expected.push(format!("c{turn}-{worker}=s{turn}-{worker}/thread"));
        }
    }
    assert_eq!(linked(&lines), expected.join(" "));
}

#[test]
fn both_ends_of_a_connection_are_linked_by_their_addresses_and_position() {
    let ends = |local: &str, peer: &str, position: u64| {
        format!(",\"connection\":{{\"local\":\"{local}\",\"peer\":\"{peer}\"}},\"request_position\":{position}")
    };
    let (here, there) = ("10.0.0.1:4000", "10.0.0.2:80");
    let lines = client("c", (100, 500), 1, &ends(here, there, 0))
        + &client("d", (600, 900), 1, &ends(here, there, 80))
        + &server("s", (150, 450), 2, &ends(there, here, 0)).replace("\"tgid\":7", "\"tgid\":8")
        + &server("t", (650, 850), 2, &ends(there, here, 80)).replace("\"tgid\":7", "\"tgid\":8");
    assert_eq!(linked(&lines), "s=c/connection t=d/connection");
}

#[test]
fn a_request_has_no_more_children_than_the_limit() {
    let lines = (0..30).map(|turn| client(&format!("c{turn}"), (200 + turn, 201 + turn), 1, "")).collect::<String>();
    let spans = file::parse(&(server("a", (100, 900), 1, "") + &lines)).unwrap();
    let answers = file::link(&spans, Limits { fan_out: 10, ..Limits::default() });
    assert_eq!(answers.iter().filter(|answer| answer.parent.is_some()).count(), 10);
    assert_eq!(answers.iter().filter(|answer| answer.reason == Some("fan_out")).count(), 20);
}

#[test]
fn a_window_with_more_to_weigh_than_may_be_says_so_and_keeps_what_other_evidence_tells() {
    let own = |id: &str| format!(",\"context\":{{\"x-request-id\":\"{id}\"}}");
    let lines = two([&own("one"), &own("two")])
        + &client("c", (300, 400), 1, "")
        + &client("d", (350, 450), 1, &own("two"))
        + &client("e", (950, 990), 1, "");
    let spans = file::parse(&lines).unwrap();
    // By statistics: the other one has sent what it has to send.
    for (pairs, found) in [(2, (Some("a"), None)), (1, (None, Some("unweighed")))] {
        let answers = file::link(&spans, Limits { pairs, ..Limits::default() });
        let told: Vec<_> = answers.iter().skip(2).map(|answer| (answer.parent.as_deref(), answer.reason)).collect();
        assert_eq!(told, [found, (Some("b"), None), (None, Some("none_open"))], "{pairs} pairs");
    }
}

/// What was handed on together with others is not guessed.
#[test]
fn where_it_is_told_which_task_wakes_which_times_name_no_parent() {
    let own = |id: &str| format!(",\"context\":{{\"x-request-id\":\"{id}\"}}");
    let asked = |told: &str| {
        two([&own("one"), &own("two")]) + &client("c", (300, 400), 1, told) + &client("d", (350, 450), 1, &own("two"))
    };
    assert_eq!(linked(&asked("")), "c=a/statistics d=b/in_band");
    assert_eq!(linked(&asked(",\"task\":1,\"task_wakers\":[]")), "d=b/in_band");
}

#[test]
fn a_wrong_line_is_named() {
    let good = server("a", (100, 900), 1, "");
    for (line, message) in [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ("{\"kind\":\"server\",\"start_ns\":1}", "id: missing"),
        ("{\"id\":\"b\",\"start_ns\":1}", "kind: missing"),
        ("{\"id\":\"b\",\"kind\":\"producer\",\"start_ns\":1}", "kind: 'producer' is neither server nor client"),
        ("{\"id\":\"b\",\"kind\":\"server\"}", "start_ns: missing"),
        ("{\"id\":\"b\",\"kind\":\"server\",\"start_ns\":-1}", "start_ns: -1 is not a whole number of 0 or more"),
        ("{\"id\":\"b\",\"kind\":\"server\",\"start_ns\":9,\"end_ns\":8}", "end_ns: before start_ns"),
        ("{\"id\":\"b\",\"kind\":\"server\",\"start_ns\":9,\"connection\":1}", "connection: not an object"),
        ("{\"id\":\"a\",\"kind\":\"server\",\"start_ns\":9}", "id: 'a' is the id of line 1 too"),
    ] {
        let (number, told) = file::parse(&format!("{good}\n{line}\n")).unwrap_err();
        assert_eq!(number, 3, "{line}");
        assert!(told.starts_with(message), "{line}: {told}");
    }
}

#[test]
fn unknown_fields_are_handed_back() {
    let spans = file::parse(&server("a", (1, 2), 1, ",\"mine\":{\"x\":[1]},\"parent\":\"z\"")).unwrap();
    let answer = file::link(&spans, Limits::default()).remove(0).json();
    let told: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(told["mine"]["x"][0], 1);
    assert!(told["parent"].is_null() && told["method"].is_null(), "{answer}");
}

/// Spans of one process, any of them, as lines would have them.
fn any_spans(raw: &[(bool, u8, u16, u16, u8)]) -> Vec<Span> {
    let lines = raw.iter().enumerate().map(|(number, (serves, tid, start, length, operation))| {
        let kind = if *serves { "server" } else { "client" };
        let times = (u64::from(*start) * 1000, (u64::from(*start) + u64::from(*length)) * 1000);
        let more = format!(",\"operation\":\"o{}\",\"end_tid\":{}", operation % 4, tid % 3);
        line(kind, &format!("s{number}"), times, u32::from(tid % 3) + 1, &more)
    });
    file::parse(&lines.collect::<String>()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parents_contain_their_children_and_the_order_of_lines_is_of_no_account(
        raw in vec((proptest::bool::ANY, 0u8..6, 0u16..300, 1u16..80, 0u8..8), 1..120),
        turn in 0usize..120,
    ) {
        let spans = any_spans(&raw);
        let answers = file::link(&spans, Limits::default());
        let by_id: BTreeMap<&str, &Span> = spans.iter().map(|span| (span.id.as_str(), span)).collect();
        for (span, answer) in spans.iter().zip(&answers) {
            let Some(parent) = answer.parent.as_deref().map(|parent| by_id[parent]) else { continue };
            prop_assert!(parent.is_server && !span.is_server);
            prop_assert!(parent.facts.start_ns <= span.facts.start_ns && span.facts.start_ns < parent.facts.end_ns);
            prop_assert!(answer.confidence > 0.0 && answer.confidence <= 1.0);
        }
        let mut turned = spans.clone();
        turned.rotate_left(turn % spans.len());
        let mut again = file::link(&turned, Limits::default());
        again.rotate_right(turn % spans.len());
        prop_assert_eq!(again, answers);
    }

    #[test]
    fn a_process_keeps_nothing_of_what_is_over_and_decided(
        raw in vec((proptest::bool::ANY, 0u8..6, 0u16..300, 1u16..80, 0u8..8), 1..120),
    ) {
        let mut process: Process<usize> = Process::default();
        let spans = any_spans(&raw);
        for (number, span) in spans.iter().enumerate() {
            if span.is_server {
                process.serve(number, Facts { end_ns: OPEN, ..span.facts.clone() });
                process.serve(number, span.facts.clone());
            } else {
                process.send(number, span.facts.clone());
            }
        }
        let decided = process.run(Limits::default(), u64::MAX - 1, u64::MAX);
        prop_assert_eq!(decided.len(), spans.iter().filter(|span| !span.is_server).count());
        prop_assert!(process.is_empty(), "{:?}", process.len());
    }
}

/// Requests of two threads at once, again and again; for each a thread of a pool asks once for something, and another one
/// reads the answer. `wakes`: by turn and place what the kernel told, `(waker, woken)`.
fn handed_over(turns: u64, wakes: impl Fn(u64, u32) -> (u32, u32), ends: impl Fn(u64, u32) -> u64) -> String {
    let mut lines = String::new();
    for turn in 0..turns {
        for place in [1u32, 2] {
            let start = 1000 * turn + 10 * u64::from(place);
            let (waker, woken) = wakes(turn, place);
            let end = ends(start, place);
            let mut more = ",\"end_tid\":70".to_owned();
            if waker != 0 {
                more += &format!(",\"waker_tid\":{waker},\"woken_ns\":{}", start + 99);
            }
            if woken != 0 {
                let on = format!("{{\"tid\":60,\"at_ns\":{},\"distance\":1}}", end + 2);
                more += &format!(",\"woken\":[{on},{{\"tid\":{woken},\"at_ns\":{},\"distance\":2}}]", end + 5);
            }
            lines += &server(&format!("s{turn}-{place}"), (start, start + 900), place, "");
            lines += &client(&format!("c{turn}-{place}"), (start + 100, end), 50 + place, &more);
        }
    }
    lines
}

/// Links by their method, and how many of them are wrong.
fn judged(lines: &str) -> (BTreeMap<&'static str, usize>, usize) {
    let answers = file::link(&file::parse(lines).unwrap(), Limits::default());
    let linked = || answers.iter().filter_map(|answer| Some((answer, answer.parent.as_deref()?, answer.method?)));
    let mut methods = BTreeMap::new();
    linked().for_each(|(_, _, method)| *methods.entry(method).or_default() += 1);
    (methods, linked().filter(|(answer, parent, _)| answer.id.strip_prefix('c') != parent.strip_prefix('s')).count())
}

#[test]
fn wake_ups_that_agree_both_ways_name_the_parent() {
    let ends = |start: u64, _: u32| start + 500;
    let both = handed_over(100, |_, place| (place, place), ends);
    assert_eq!(judged(&both), (BTreeMap::from([("wakeup", 200)]), 0));
    // One way is enough once both were seen to agree.
    let one = handed_over(200, |turn, place| if turn < 100 { (place, place) } else { (0, place) }, ends);
    assert_eq!(judged(&one), (BTreeMap::from([("wakeup", 400)]), 0));
    let other = handed_over(200, |turn, place| if turn < 100 { (place, place) } else { (place, 0) }, ends);
    assert_eq!(judged(&other), (BTreeMap::from([("wakeup", 400)]), 0));
}

#[test]
fn wake_ups_that_nothing_bears_out_name_nobody() {
    let by_wakeup = |lines: &str| judged(lines).0.get("wakeup").copied();
    let ends = |start: u64, _: u32| start + 500;
    assert_eq!(by_wakeup(&handed_over(20, |_, place| (place, place), ends)), None, "too few");
    assert_eq!(by_wakeup(&handed_over(200, |_, place| (0, place), ends)), None, "one way");
    assert_eq!(by_wakeup(&handed_over(200, |_, place| (3 - place, place), ends)), None, "they differ");
    // Both agree where they say something, and a tenth differs.
    let differ = |turn: u64, place: u32| if turn.is_multiple_of(10) { (3 - place, place) } else { (place, place) };
    assert_eq!(by_wakeup(&handed_over(200, differ, ends)), None);
    // Too often for one to be believed, too seldom to be sure: as long as it is not known, it waits, and in the end nobody.
    let grey = |turn: u64, place: u32| if turn.is_multiple_of(7) && place == 1 { (2, 1) } else { (place, place) };
    assert_eq!(by_wakeup(&handed_over(100, grey, ends)), None);
    // Nobody waits for the answer.
    assert_eq!(by_wakeup(&handed_over(200, |_, place| (place, place), |start, _| start + 950)), None);
}

#[test]
fn where_both_ways_differ_now_and_then_one_alone_must_fit_in_time() {
    // In one turn of 25 the way back names the other one; in another the way on is all there is.
    let wakes = |turn: u64, place: u32| match turn % 25 {
        0 if place == 1 => (2, 1),
        1 => (0, place),
        _ => (place, place),
    };
    let (methods, wrong) = judged(&handed_over(500, wakes, |start, _| start + 500));
    assert_eq!((methods.get("wakeup").copied(), wrong), (Some(1000 - 20), 0));
    // A second answer for the same request beside the first: whoever waits for them, it is not one thread.
    let lines = handed_over(500, wakes, |start, _| start + 500);
    let twice: String = lines
        .lines()
        .filter(|line| line.contains("\"c"))
        .map(|line| line.replace("\"id\":\"c", "\"id\":\"d") + "\n")
        .collect();
    let answers = file::link(&file::parse(&(lines + &twice)).unwrap(), Limits::default());
    let alone = |answer: &&file::Answer| {
        let turn: u64 = answer.id.trim_start_matches(['c', 'd', 's']).split('-').next().unwrap().parse().unwrap();
        // Where statistics leans the same way, it is said with less confidence.
        turn % 25 == 1 && answer.method == Some("wakeup") && answer.confidence > 0.9
    };
    assert_eq!(answers.iter().filter(alone).count(), 0);
}

#[test]
fn a_thread_made_for_a_request_is_not_its_for_ever() {
    let (one, other) = (server("a", (100, 900), 1, ""), server("b", (100, 900), 2, ""));
    let from = |born: u64| format!(",\"parent_tid\":1,\"born_ns\":{born}");
    assert_eq!(linked(&(one.clone() + &other + &client("c", (300, 400), 5, &from(200)))), "c=a/lineage");
    assert_eq!(linked(&(one.clone() + &other + &client("c", (300, 400), 5, &from(90)))), "", "by an earlier request");
    let woken = from(200) + ",\"waker_tid\":2,\"woken_ns\":250";
    assert_eq!(linked(&(one + &other + &client("c", (300, 400), 5, &woken))), "", "woken by another one since");
}

#[test]
fn a_thread_that_runs_tasks_of_many_requests_opens_connections_for_any() {
    // Answered by other threads than those that read, and what is sent is read by others, too.
    let moving = |tid: u32| format!(",\"end_tid\":{}", 3 - tid);
    let lines = server("a", (100, 900), 1, &moving(1))
        + &server("b", (1100, 1900), 2, &moving(2))
        + &client("c", (1300, 1400), 5, ",\"end_tid\":6,\"connect_tid\":2")
        + &server("d", (1100, 1900), 7, "");
    assert_eq!(linked(&lines), "");
}
