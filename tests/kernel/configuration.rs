//! A mistake in a file: one line with file, line and key, exit status 2, nothing started.

use std::time::Duration;

use anyhow::{Result, ensure};
use seismo_tests::agent::Launch;
use seismo_tests::process::output;
use seismo_tests::rig::{Rig, free_port};

const LIMIT: Duration = Duration::from_secs(20);

struct Case {
    name: &'static str,
    config: Option<&'static str>,
    rules: Option<&'static str>,
    /// How the line must begin to name the place.
    place: &'static str,
    /// What else it must say.
    word: &'static str,
}

const CASES: [Case; 5] = [
    Case {
        name: "unknown key",
        config: Some("scope:\n  inclde: []\n"),
        rules: None,
        place: "seismo.yaml:2:",
        word: "inclde",
    },
    Case {
        name: "wrong type",
        config: Some("scope:\n  include: 7\n"),
        rules: None,
        place: "seismo.yaml:2:",
        word: "include",
    },
    Case { name: "no YAML", config: Some("scope: [\n"), rules: None, place: "seismo.yaml:", word: "" },
    Case {
        name: "unparsable expression",
        config: None,
        rules: Some("groups:\n- name: g\n  rules:\n  - alert: A\n    expr: 'rate(x[5m]'\n"),
        place: "rules.yaml:5:",
        word: "",
    },
    Case {
        name: "unknown function",
        config: None,
        rules: Some("groups:\n- name: g\n  rules:\n  - alert: A\n    expr: 'sorcery(x[5m]) > 1'\n"),
        place: "rules.yaml:5:",
        word: "sorcery",
    },
];

#[test]
fn a_mistake_in_a_file_is_one_line_with_its_place_and_status_2() -> Result<()> {
    Rig::run(|rig| {
        let mut wrong = Vec::new();
        for Case { name, config, rules, place, word } in CASES {
            let port = free_port()?;
            let own = |text: &str| text.to_owned();
            let launch = Launch { config: config.map(own), rules: rules.map(own), ..Launch::default() };
            let (status, out, err) = output(launch.command(rig, port)?, rig.dir(), "run", LIMIT)?;
            println!("{name}: {:?}: {}", status.code(), err.trim_end());
            let one_line = err.trim_end().lines().count() == 1;
            if status.code() != Some(2) || !one_line || !err.contains(place) || !err.contains(word) || !out.is_empty() {
                wrong.push(name);
            }
        }
        ensure!(wrong.is_empty(), "wrong answers to: {wrong:?}");
        Ok(())
    })
}
