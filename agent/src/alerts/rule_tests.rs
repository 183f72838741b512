//! Tests of reading rule files.

use super::*;

fn read_text(text: &str) -> Result<Vec<Group>, Vec<String>> {
    super::read_text("f.yml", text, Interval::secs(900)).map_err(|error| error.0)
}

const GOOD: &str = r#"
# a comment
groups:
  - name: web
    interval: 10s
    limit: 5
    labels: {team: shop, severity: info}
    rules:
      - alert: Errors
        expr: |
          rate(http_server_request_duration_seconds_count{http_response_status_code=~"5.."}[30s])
            > 0
        for: 5s
        keep_firing_for: 1m
        labels:
          severity: page
          priority: 1
        annotations:
          summary: '{{ $labels.service_name }} fails {{ $value | humanize }} times a second'
"#;

#[test]
fn a_rule_file_is_read_with_its_groups_labels() {
    let groups = read_text(GOOD).unwrap_or_else(|problems| panic!("{problems:?}"));
    let group = &groups[0];
    assert_eq!((group.name.as_str(), group.interval_ms, group.limit), ("web", Some(10_000), 5));
    let rule = &group.rules[0];
    assert_eq!((rule.name.as_str(), rule.hold_ms, rule.keep_firing_ms), ("Errors", 5_000, 60_000));
    let labels: Vec<(&str, &str)> = rule.labels.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    assert_eq!(labels, [("priority", "1"), ("severity", "page"), ("team", "shop")]);
    assert!(rule.expr.text().starts_with("rate(http_server"), "{}", rule.expr.text());
    assert_eq!(selectors(&groups)[0][0].value, "http_server_request_duration_seconds_count");
}

#[test]
fn an_empty_file_has_no_rules() {
    assert!(read_text("").is_ok_and(|groups| groups.is_empty()));
    assert!(read_text("# nothing\n").is_ok_and(|groups| groups.is_empty()));
    assert!(read_text("groups: []\n").is_ok_and(|groups| groups.is_empty()));
}

/// The text of one rule inside a sound file; its first line is line 4.
fn rule(lines: &str) -> String {
    let indented: Vec<String> = lines.lines().map(|line| format!("        {line}")).collect();
    format!("groups:\n  - name: g\n    rules:\n{}", indented.join("\n").replacen("        ", "      - ", 1))
}

#[test]
fn what_is_wrong_is_said_in_one_line_with_file_line_and_key() {
    let cases = [
        (rule("alert: A\nexpr: up\nfro: 5s"), "f.yml:6: fro: unknown field"),
        (rule("alert: A\nexpr: absent(up)"), "f.yml:5: expr: 1:1: the function absent() is not supported yet"),
        (rule("alert: A\nexpr: rate(up[1h])"), "f.yml:5: expr: looks 1h back, but the store's history is 15m"),
        (rule("alert: A\nexpr: up[5m]"), "f.yml:5: expr: a rule's expression is"),
        (rule("alert: A\nexpr: up\nfor: soon"), "f.yml:6: for: \"soon\" is not a duration"),
        (rule("alert: A\nexpr: up\nlabels:\n  a-b: x"), "f.yml:7: labels.a-b: not a name"),
        (rule("alert: A\nexpr: up\nlabels:\n  alertname: x"), "f.yml:7: labels.alertname: is set by"),
        (rule("alert: A\nexpr: up\nannotations:\n  s: '{{ $x }}'"), "f.yml:7: annotations.s: {{ $x }} is not"),
        (rule("record: a:b\nexpr: up"), "f.yml:4: record: recording rules are not supported"),
        (rule("alert: A\nrecord: b\nexpr: up"), "f.yml:5: record: a rule has either alert or record"),
        (rule("expr: up"), "f.yml:4: alert: a rule needs a name"),
        (rule("alert: A"), "f.yml:4: alert: missing field `expr`"),
        (rule("alert: A\nexpr: up\nlabels: [1]"), "f.yml:6: labels: "),
        ("groups: 5\n".to_owned(), "f.yml:1: groups: "),
        ("groups:\n  - name: g\n    limit: -1\n".to_owned(), "f.yml:3: limit: "),
        ("groups:\n  - name: g\n  - name: g\n".to_owned(), "f.yml:3: name: the group name \"g\" is there twice"),
        ("group: []\n".to_owned(), "f.yml:1: group: unknown field `group`"),
        ("groups: [\n".to_owned(), "f.yml:"),
    ];
    for (text, expected) in cases {
        let problems = read_text(&text).expect_err(&text);
        println!("{problems:?}");
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(expected) && !problems[0].contains('\n'), "{text}\n{problems:?}\n{expected}");
    }
}

#[test]
fn all_problems_of_a_file_are_told_at_once() {
    let text = rule("alert: A\nexpr: nope(\nfor: soon\nannotations:\n  s: '{{ $x }}'");
    assert_eq!(read_text(&text).map(|groups| groups.len()).unwrap_err().len(), 3);
}

#[test]
fn files_are_found_by_pattern_and_checked_like_promtool() {
    let folder = std::env::temp_dir().join(format!("seismo-rules-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder for the test");
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    fs::write(path("b.yml"), GOOD).expect("written");
    fs::write(path("a.yml"), "groups: []\n").expect("written");
    fs::write(path("c.txt"), "not a rule file").expect("written");

    let report = check(&[path("*.yml")]).map(|report| report.to_string());
    let expected = format!(
        "Checking {}\n  SUCCESS: 0 rules found\nChecking {}\n  SUCCESS: 1 rules found\n",
        path("a.yml"),
        path("b.yml")
    );
    assert_eq!(report, Ok(expected));
    assert!(load(&[path("?.yml")], Interval::secs(900)).is_ok_and(|groups| groups.len() == 1));
    assert!(load(&[path("none*.yml")], Interval::secs(900)).is_ok_and(|groups| groups.is_empty()));
    let missing = check(&[path("d.yml"), path("a.yml")]).expect_err("it is not there").to_string();
    assert!(missing.starts_with(&path("d.yml")) && missing.contains("No such file"), "{missing}");
    fs::remove_dir_all(&folder).expect("removed");
}
