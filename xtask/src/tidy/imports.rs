//! Rules about who may import whom in the agent: data flows one way and arrows follow it or point at `model`.
//!
//! One table, one row per unit of `agent/src`; a unit without a row is an error, so the table cannot rot. Test code is
//! free. Paths are read as text: `crate::`, and `super::` resolved from the file's place.

use std::path::Path;

use super::Finding;
use super::source::{Source, identifier, words};
use super::tree::Tree;

const AGENT: &str = "agent/src";

struct Unit {
    name: &'static str,
    /// Other units it may name. Everyone may name the [`NEUTRAL`] ones.
    imports: Imports,
}

enum Imports {
    Only(&'static [&'static str]),
    /// Wiring: everything but other wiring.
    Everything,
}

use Imports::{Everything, Only};

/// Values, names and declarations without behaviour; they may name only each other.
const NEUTRAL: &[&str] = &["clock", "health", "model", "section", "semconv"];
/// What nobody may import.
const WIRING: &[&str] = &["main", "run"];
/// Stages that compute and nothing else.
const PURE: &[&str] = &["alerts", "flows", "metrics", "model", "promql", "protocols", "traces"];

const UNITS: &[Unit] = &[
    Unit { name: "alerts", imports: Only(&["promql", "store"]) },
    Unit { name: "api", imports: Only(&["promql", "store"]) },
    Unit { name: "bpf", imports: Only(&["config"]) },
    Unit { name: "checks", imports: Only(&["tls"]) },
    Unit { name: "cli", imports: Everything },
    Unit { name: "clock", imports: Only(&[]) },
    // Composes every unit's own section.
    Unit { name: "config", imports: Everything },
    Unit { name: "exporters", imports: Only(&["config", "store", "tls"]) },
    Unit { name: "flows", imports: Only(&["protocols"]) },
    Unit { name: "health", imports: Only(&[]) },
    Unit { name: "host", imports: Only(&[]) },
    Unit { name: "main", imports: Everything },
    Unit { name: "metrics", imports: Only(&[]) },
    Unit { name: "model", imports: Only(&[]) },
    Unit { name: "probes", imports: Only(&[]) },
    Unit { name: "promql", imports: Only(&["store"]) },
    Unit { name: "protocols", imports: Only(&[]) },
    Unit { name: "run", imports: Everything },
    Unit { name: "section", imports: Only(&[]) },
    Unit { name: "semconv", imports: Only(&[]) },
    Unit { name: "store", imports: Only(&[]) },
    Unit { name: "tls", imports: Only(&[]) },
    Unit { name: "traces", imports: Only(&[]) },
    Unit { name: "tui", imports: Only(&["store"]) },
];

/// Each unit names only the units its row allows; protocols do not name each other.
pub(super) fn units(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        let Some(place) = place(&source.path) else { continue };
        let Some(own) = place.first().map_or(Some("lib"), |name| Some(name)) else { continue };
        if own == "lib" {
            continue;
        }
        let Some(unit) = UNITS.iter().find(|unit| unit.name == own) else {
            findings.push(Finding::new(&source.path, 1, format!("unit '{own}' has no row in tidy's import table")));
            continue;
        };
        for (line, path) in paths(source, &place) {
            let Some(named) = path.first() else { continue };
            if named == own {
                if let Some(message) = sibling_protocol(&place, &path) {
                    findings.push(Finding::new(&source.path, line, message));
                }
            } else if UNITS.iter().any(|unit| unit.name == named) && !unit.may_import(named) {
                findings.push(Finding::new(&source.path, line, format!("'{own}' may not import '{named}'")));
            }
        }
    }
    findings
}

impl Unit {
    fn may_import(&self, other: &str) -> bool {
        match self.imports {
            _ if NEUTRAL.contains(&other) => true,
            Everything => !WIRING.contains(&other) || self.name == "main",
            Only(units) => units.contains(&other),
        }
    }
}

/// In the folder of the protocols, and none.
const SHARED_BY_PROTOCOLS: &[&str] = &["context", "cursor", "db"];

/// A parser that needs another parser is not removable alone.
fn sibling_protocol(place: &[String], path: &[String]) -> Option<String> {
    let (own, named) = (place.get(1)?, path.get(1)?);
    let module = named.chars().next().is_some_and(char::is_lowercase) && path.len() > 2;
    let siblings =
        place.first()? == "protocols" && module && named != own && !SHARED_BY_PROTOCOLS.contains(&named.as_str());
    siblings.then(|| format!("protocol '{own}' may not import protocol '{named}'"))
}

/// The loader's library and unsafe code stay behind the kernel boundary, the wire contract beside it.
pub(super) fn boundaries(tree: &Tree) -> Vec<Finding> {
    const FENCES: &[(&str, &[&str])] = &[
        ("aya", &["bpf"]),
        ("aya_log", &["bpf"]),
        ("seismo_common", &["bpf", "probes", "run"]),
        ("unsafe", &["bpf", "clock"]),
    ];
    let mut findings = Vec::new();
    for source in &tree.sources {
        let Some(place) = place(&source.path) else { continue };
        let unit = place.first().map_or("lib", String::as_str);
        for (word, homes) in FENCES.iter().filter(|(_, homes)| !homes.contains(&unit)) {
            for line in source.shipped().filter(|line| words(&line.code, word).next().is_some()) {
                let message = format!("'{word}' belongs in {} alone", homes.join(" and "));
                findings.push(Finding::new(&source.path, line.number, message));
            }
        }
    }
    findings
}

/// A stage gets time and bytes as arguments: no clock, thread or socket of its own.
pub(super) fn pure_stages(tree: &Tree) -> Vec<Finding> {
    const WORLD: &[&str] = &[
        "clock::monotonic_ns",
        "clock::wall_ns",
        "Instant::now",
        "SystemTime::now",
        "Clock::new",
        "TcpListener",
        "TcpStream",
        "UdpSocket",
        "UnixStream",
        "std::thread",
        "thread::spawn",
        "tokio",
    ];
    let mut findings = Vec::new();
    for source in &tree.sources {
        let unit = place(&source.path).and_then(|place| place.into_iter().next());
        if !unit.is_some_and(|unit| PURE.contains(&unit.as_str())) {
            continue;
        }
        for line in source.shipped() {
            for word in WORLD.iter().filter(|word| words(&line.code, word).next().is_some()) {
                findings.push(Finding::new(&source.path, line.number, format!("a stage does not use '{word}'")));
            }
        }
    }
    findings
}

/// Module path of a file in the agent: `["flows", "table"]`, for `flows/mod.rs` `["flows"]`, for `lib.rs` `[]`.
fn place(path: &Path) -> Option<Vec<String>> {
    let inside = path.strip_prefix(AGENT).ok()?.with_extension("");
    let mut modules: Vec<_> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    modules.pop_if(|last| last == "mod" || last == "lib");
    Some(modules)
}

/// Absolute module paths that shipped code of a file names, with their lines: at most the first three segments.
fn paths(source: &Source, place: &[String]) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let shipped: Vec<_> = source.shipped().collect();
    // As one text, since a group of imports may span lines.
    let code: String = shipped.iter().flat_map(|line| [line.code.as_str(), "\n"]).collect();
    let line_of = |at: usize| {
        let index = code.get(..at).map_or(0, |before| before.matches('\n').count());
        shipped.get(index).map_or(1, |line| line.number)
    };
    for at in words(&code, "crate") {
        expand(&code, at + "crate".len(), &[], &mut |at, path| found.push((line_of(at), path)));
    }
    for at in words(&code, "super") {
        let chained = code.get(..at).is_some_and(|before| before.ends_with("super::"));
        if chained {
            continue;
        }
        let mut depth = 1;
        let mut end = at + "super".len();
        while code.get(end..).is_some_and(|rest| rest.starts_with("::super")) {
            depth += 1;
            end += "::super".len();
        }
        let base = place.get(..place.len().saturating_sub(depth)).unwrap_or_default();
        expand(&code, end, base, &mut |at, path| found.push((line_of(at), path)));
    }
    found
}

/// Reads `::a::b` or `::{a::b, c}` at `at` and reports each path it names, up to three segments deep.
fn expand(code: &str, at: usize, base: &[String], report: &mut impl FnMut(usize, Vec<String>)) {
    let Some(rest) = code.get(at..).and_then(|rest| rest.strip_prefix("::")) else { return };
    let start = at + "::".len();
    if !rest.starts_with('{') {
        let name = identifier(rest);
        if name.is_empty() {
            return;
        }
        let path = [base, &[name.to_owned()]].concat();
        let end = start + name.len();
        let deeper = code.get(end..).is_some_and(|rest| rest.starts_with("::"));
        if deeper && path.len() < 3 {
            expand(code, end, &path, report);
        } else {
            report(start, path);
        }
        return;
    }
    let mut depth = 0_usize;
    for (offset, letter) in rest.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if depth == 1 && (letter == '{' || letter == ',') {
            let item = start + offset + 1;
            let space = code.get(item..).map_or(0, |rest| rest.len() - rest.trim_start().len());
            member(code, item + space, base, report);
        }
    }
}

/// One member of a group: a path that begins without `::`.
fn member(code: &str, at: usize, base: &[String], report: &mut impl FnMut(usize, Vec<String>)) {
    let name = code.get(at..).map_or("", identifier);
    if name.is_empty() || name == "self" {
        return;
    }
    let path = [base, &[name.to_owned()]].concat();
    let end = at + name.len();
    if path.len() < 3 && code.get(end..).is_some_and(|rest| rest.starts_with("::")) {
        expand(code, end, &path, report);
    } else {
        report(at, path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(rule: fn(&Tree) -> Vec<Finding>, path: &str, text: &str) -> Vec<String> {
        rule(&Tree::of(&[(path, text)])).into_iter().map(|found| format!("{}: {}", found.line, found.message)).collect()
    }

    #[test]
    fn an_import_against_the_flow_is_found_however_it_is_written() {
        for (path, text) in [
            ("agent/src/flows/table.rs", "use crate::exporters::prometheus;\n"),
            ("agent/src/flows/table.rs", "use crate::{model::span::Span, exporters};\n"),
            ("agent/src/flows/table.rs", "use super::super::exporters::prometheus;\n"),
            ("agent/src/flows/mod.rs", "use super::exporters;\n"),
            ("agent/src/flows/mod.rs", "fn f() { crate::exporters::send() }\n"),
            ("agent/src/flows.rs", "use super::{model, exporters::x};\n"),
        ] {
            assert_eq!(messages(units, path, text), ["1: 'flows' may not import 'exporters'"], "{path} {text}");
        }
        let spread = "use crate::{\n    model::span::Span,\n    run,\n};\n";
        assert_eq!(messages(units, "agent/src/flows/pair.rs", spread), ["3: 'flows' may not import 'run'"]);
    }

    #[test]
    fn imports_along_the_flow_are_left_alone() {
        let text = "use crate::{model::{span::Span, exchange}, semconv};\nuse crate::protocols::Registry;\nuse super::table;\n\
                    crate::section! {}\n// crate::exporters\n#[cfg(test)]\nmod tests {\n    use crate::exporters::prometheus;\n}\n";
        assert_eq!(messages(units, "agent/src/flows/stream.rs", text), Vec::<String>::new());
        assert_eq!(messages(units, "agent/src/run.rs", "use crate::{bpf, flows, api};\n"), Vec::<String>::new());
        assert_eq!(messages(units, "xtask/src/main.rs", "use crate::exporters;\n"), Vec::<String>::new());
    }

    #[test]
    fn wiring_is_imported_by_nobody() {
        assert_eq!(messages(units, "agent/src/config.rs", "use crate::run;\n"), ["1: 'config' may not import 'run'"]);
        assert_eq!(messages(units, "agent/src/main.rs", "use crate::run;\n"), Vec::<String>::new());
    }

    #[test]
    fn a_unit_without_a_row_is_found() {
        let found = messages(units, "agent/src/magic/mod.rs", "");
        assert_eq!(found, ["1: unit 'magic' has no row in tidy's import table"]);
    }

    #[test]
    fn protocols_do_not_know_each_other() {
        let found = messages(units, "agent/src/protocols/http/head.rs", "use super::super::redis::parse;\n");
        assert_eq!(found, ["1: protocol 'http' may not import protocol 'redis'"]);
        let text = "use crate::protocols::http::Http;\nuse super::super::{Body, Config as Protocols};\nuse super::route::Routes;\n\
                    use super::super::db::conclude;\n";
        assert_eq!(messages(units, "agent/src/protocols/http/head.rs", text), Vec::<String>::new());
    }

    #[test]
    fn the_kernel_boundary_is_fenced() {
        let text = "use aya::Ebpf;\nuse seismo_common::record;\nunsafe { f() }\n// aya\nlet aya_like = 1;\n";
        assert_eq!(messages(boundaries, "agent/src/bpf/loader.rs", text), Vec::<String>::new());
        assert_eq!(messages(boundaries, "agent/src/host/procfs.rs", text).len(), 3);
        assert_eq!(messages(boundaries, "agent/src/clock.rs", "unsafe { f() }\n"), Vec::<String>::new());
        assert_eq!(messages(boundaries, "tests/kernel/main.rs", text), Vec::<String>::new());
    }

    #[test]
    fn a_stage_reaches_for_no_clock_thread_or_socket() {
        let text =
            "let now = Instant::now();\nuse std::net::TcpStream;\nstd::thread::sleep(t);\nuse std::net::IpAddr;\n";
        assert_eq!(
            messages(pure_stages, "agent/src/traces/link.rs", text),
            [
                "1: a stage does not use 'Instant::now'",
                "2: a stage does not use 'TcpStream'",
                "3: a stage does not use 'std::thread'"
            ]
        );
        assert_eq!(messages(pure_stages, "agent/src/api/server.rs", text), Vec::<String>::new());
    }
}
