//! The queries of the Prometheus HTTP API over samples made up in `tests`: answers, and errors as Prometheus gives them.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::server::Limits;
use super::tests::Agent;

async fn ask(agent: &Agent, path: &str) -> (u16, Value) {
    let encoded = path.replace('"', "%22").replace('{', "%7B").replace('}', "%7D");
    let (status, body) = agent.get(&format!("/api/v1/{encoded}")).await;
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}")))
}

#[tokio::test]
async fn an_instant_query_has_prometheus_result_types() {
    let agent = Agent::start(Limits::default()).await;
    let metric = |code: &str| json!({ "__name__": "calls_total", "code": code, "route": "/" });
    for (query, kind, result) in [
        (
            "calls_total&time=160",
            "vector",
            json!([{ "metric": metric("200"), "value": [160, "320"] }, { "metric": metric("500"), "value": [160, "160"] }]),
        ),
        ("sum(irate(calls_total[30s]))&time=160.5", "vector", json!([{ "metric": {}, "value": [160.5, "3"] }])),
        ("1%2B1&time=5", "scalar", json!([5, "2"])),
        (
            "calls_total{code=\"500\"}[2s]&time=103",
            "matrix",
            json!([{ "metric": metric("500"), "values": [[102, "102"], [103, "103"]] }]),
        ),
        // Nothing within five minutes of now.
        ("calls_total", "vector", json!([])),
        ("calls_total&time=1970-01-01T00:02:40Z&limit=9&timeout=1m&dedup=x", "vector", json!(null)),
    ] {
        let (status, answer) = ask(&agent, &format!("query?query={query}")).await;
        assert_eq!((status, &answer["status"]), (200, &json!("success")), "{query}: {answer}");
        assert_eq!(answer["data"]["resultType"], kind, "{query}");
        if !result.is_null() {
            assert_eq!(answer["data"]["result"], result, "{query}");
        }
        assert_eq!(answer.get("warnings"), None, "{query}");
    }
}

#[tokio::test]
async fn a_form_says_the_same_as_a_query_string() {
    let agent = Agent::start(Limits::default()).await;
    let form = "query=sum%28calls_total%29&time=160";
    let headers = format!(
        "Content-Type: application/x-www-form-urlencoded; charset=UTF-8\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    );
    let (status, _, posted) = agent.ask("POST /api/v1/query", &headers).await;
    let (_, got) = agent.get(&format!("/api/v1/query?{form}")).await;
    assert_eq!((status, posted.trim_end()), (200, got.as_str()));
    assert!(got.contains("\"480\""), "{got}");
}

#[tokio::test]
async fn a_range_query_has_a_value_at_each_step_and_says_when_samples_begin_later() {
    let agent = Agent::start(Limits::default()).await;
    let range = "query_range?query=sum(calls_total)by(route)";
    let (_, answer) = ask(&agent, &format!("{range}&start=110&end=130&step=10")).await;
    let values = json!([[110, "330"], [120, "360"], [130, "390"]]);
    let series = json!([{ "metric": { "route": "/" }, "values": values }]);
    assert_eq!(answer, json!({ "status": "success", "data": { "resultType": "matrix", "result": series } }));
    let (_, answer) = ask(&agent, &format!("{range}&start=60&end=130&step=1m")).await;
    assert_eq!(answer["data"]["result"][0]["values"], json!([[120, "360"]]));
    let said = "samples are kept in memory; the oldest is of 1970-01-01T00:01:40Z";
    assert_eq!(answer["warnings"], json!([said]));
    let (_, answer) = ask(&agent, "query_range?query=calls_total&start=110&end=110&step=1&limit=1").await;
    assert_eq!(answer["data"]["result"].as_array().unwrap().len(), 1);
    assert_eq!(answer["warnings"], json!(["results truncated due to limit"]));
}

#[tokio::test]
async fn series_labels_and_values_are_those_of_the_samples_in_the_time_asked_for() {
    let agent = Agent::start(Limits::default()).await;
    let metric = |code: &str| json!({ "__name__": "calls_total", "code": code, "route": "/" });
    for (path, expected) in [
        ("series?match[]=calls_total", json!([metric("200"), metric("500")])),
        ("series?match[]={code=\"500\"}&match[]={code=~\"5..\"}", json!([metric("500")])),
        ("series?match[]=calls_total&start=161", json!([])),
        ("series?match[]=calls_total&start=160&end=999&limit=1", json!([metric("200")])),
        ("labels", json!(["__name__", "code", "route"])),
        ("labels?match[]=nothing", json!([])),
        ("label/code/values", json!(["200", "500"])),
        ("label/code/values?match[]=calls_total{code!=\"200\"}", json!(["500"])),
        ("label/__name__/values?end=99", json!([])),
        ("label/nothing/values", json!([])),
        ("metadata?metric=level", json!({ "level": [{ "type": "gauge", "help": "Level", "unit": "" }] })),
        ("metadata?limit=1", json!({ "calls_total": [{ "type": "counter", "help": "Calls", "unit": "" }] })),
    ] {
        let (status, answer) = ask(&agent, path).await;
        assert_eq!((status, &answer["data"]), (200, &expected), "{path}: {answer}");
    }
}

#[tokio::test]
async fn what_is_asked_wrongly_gets_prometheus_errors() {
    let agent = Agent::start(Limits::default()).await;
    let range = "query_range?query=calls_total";
    let cases = [
        ("query".to_owned(), 400, "bad_data", "invalid parameter \"query\": 1:1: parse error: "),
        ("query?query=sum(".to_owned(), 400, "bad_data", "invalid parameter \"query\": 1:1: parse error: "),
        (
            "query?query=absent(up)".to_owned(),
            400,
            "bad_data",
            "invalid parameter \"query\": 1:1: parse error: the function",
        ),
        (
            "query?query=up&time=noon".to_owned(),
            400,
            "bad_data",
            "invalid parameter \"time\": cannot parse \"noon\" to a valid timestamp",
        ),
        ("query?query=up&limit=-1".to_owned(), 400, "bad_data", "invalid parameter \"limit\": "),
        (
            "query?query=calls_total%20%2B%20on(route)%20calls_total&time=160".to_owned(),
            422,
            "execution",
            "found duplicate series",
        ),
        (range.to_owned(), 400, "bad_data", "invalid parameter \"start\": cannot parse \"\" to a valid timestamp"),
        (format!("{range}&start=1&end=2"), 400, "bad_data", "invalid parameter \"step\": cannot parse \"\""),
        (
            format!("{range}&start=2&end=1&step=1"),
            400,
            "bad_data",
            "invalid parameter \"end\": end timestamp must not be",
        ),
        (format!("{range}&start=1&end=2&step=0"), 400, "bad_data", "invalid parameter \"step\": zero or negative"),
        (format!("{range}&start=1&end=20000&step=1"), 400, "bad_data", "exceeded maximum resolution of 11,000 points"),
        (
            format!("{range}[1m]&start=1&end=2&step=1"),
            400,
            "bad_data",
            "invalid parameter \"query\": invalid expression type \"range vector\"",
        ),
        (format!("{range}&start=100&end=160&step=1&timeout=0"), 503, "timeout", "query timed out"),
        ("series".to_owned(), 400, "bad_data", "no match[] parameter provided"),
        (
            "series?match[]=sum(up)".to_owned(),
            400,
            "bad_data",
            "invalid parameter \"match[]\": \"sum(up)\" is not a selector",
        ),
        ("label/9x/values".to_owned(), 400, "bad_data", "invalid label name: \"9x\""),
    ];
    for (path, status, kind, message) in cases {
        let (answered, answer) = ask(&agent, &path).await;
        assert_eq!(
            (answered, &answer["status"], &answer["errorType"]),
            (status, &json!("error"), &json!(kind)),
            "{path}: {answer}"
        );
        assert!(answer["error"].as_str().unwrap().starts_with(message), "{path}: {answer}");
    }
}
