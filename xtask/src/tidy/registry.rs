//! Rules about registries: a file in a registry's folder is named in its `mod.rs`, and a probe family has the same
//! stem in kernel code and agent, where each of several kernel files begins with it.

use std::collections::BTreeSet;
use std::path::Path;

use super::Finding;
use super::source::words;
use super::tree::Tree;

const KERNEL_PROBES: &str = "agent-ebpf/src/probes";
const AGENT_PROBES: &str = "agent/src/probes";
/// Folders whose files are rows of the table in their `mod.rs`.
const REGISTRIES: &[&str] = &["agent/src/protocols", AGENT_PROBES, "agent/src/exporters", KERNEL_PROBES];

/// A file nobody lists is a file nobody runs.
pub(super) fn listed(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for folder in REGISTRIES {
        let registry = Path::new(folder).join("mod.rs");
        let Some(source) = tree.source(&registry) else { continue };
        for stem in stems(tree, folder) {
            let named = |line: &super::source::Line| words(&line.code, &stem).next().is_some();
            if !source.shipped().any(named) {
                findings.push(Finding::new(&registry, 1, format!("does not name '{stem}', which lies beside it")));
            }
        }
    }
    findings
}

/// Same stem across layers: the way to find the other half of a family.
pub(super) fn same_stems(tree: &Tree) -> Vec<Finding> {
    let agent = stems(tree, AGENT_PROBES);
    // A family of several files begins each with its name: `payload_locked` belongs to `payload`.
    let family = |stem: String| match stem.split_once('_') {
        Some((family, _)) if agent.contains(family) && !agent.contains(&stem) => family.to_owned(),
        _ => stem,
    };
    let kernel: BTreeSet<String> = stems(tree, KERNEL_PROBES).into_iter().map(family).collect();
    let lonely = |here: &'static str, missing: BTreeSet<String>, there: &'static str| {
        missing.into_iter().map(move |stem| {
            let path = Path::new(here).join(format!("{stem}.rs"));
            Finding::new(&path, 1, format!("has no counterpart {there}/{stem}.rs"))
        })
    };
    lonely(KERNEL_PROBES, &kernel - &agent, AGENT_PROBES)
        .chain(lonely(AGENT_PROBES, &agent - &kernel, KERNEL_PROBES))
        .collect()
}

/// Modules in a folder, whether a file or a folder of files, without tests.
fn stems(tree: &Tree, folder: &str) -> BTreeSet<String> {
    tree.files
        .iter()
        .filter_map(|path| path.strip_prefix(folder).ok())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|path| path.iter().next()?.to_str())
        .map(|name| name.trim_end_matches(".rs").to_owned())
        .filter(|stem| stem != "mod" && stem != "tests" && !stem.ends_with("_tests"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(findings: Vec<Finding>) -> Vec<String> {
        findings.into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn a_file_that_its_registry_does_not_name_is_found() {
        let tree = Tree::of(&[
            ("agent/src/protocols/mod.rs", "pub mod http;\n// redis is in a comment only\nmod tls;\n"),
            ("agent/src/protocols/http.rs", ""),
            ("agent/src/protocols/http/head.rs", ""),
            ("agent/src/protocols/redis.rs", ""),
            ("agent/src/protocols/tls.rs", ""),
            ("agent/src/protocols/tests.rs", ""),
        ]);
        assert_eq!(messages(listed(&tree)), ["does not name 'redis', which lies beside it"]);
    }

    #[test]
    fn a_probe_family_with_only_one_half_is_found() {
        let tree = Tree::of(&[
            ("agent/src/probes/mod.rs", ""),
            ("agent/src/probes/tcp.rs", ""),
            ("agent/src/probes/udp.rs", ""),
            ("agent-ebpf/src/probes/mod.rs", ""),
            ("agent-ebpf/src/probes/tcp.rs", ""),
            ("agent-ebpf/src/probes/tcp_late.rs", ""),
            ("agent-ebpf/src/probes/block.rs", ""),
        ]);
        assert_eq!(
            messages(same_stems(&tree)),
            ["has no counterpart agent/src/probes/block.rs", "has no counterpart agent-ebpf/src/probes/udp.rs"]
        );
    }
}
