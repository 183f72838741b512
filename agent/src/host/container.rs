//! What a container is called, and in which Kubernetes pod it runs, as its engine recorded it.
//!
//! Container id → name, pod name and namespace, out of the engine's own files on the host: docker, containerd (CRI, nerdctl),
//! CRI-O, podman. At most 1 MiB of each file, about 100 µs when there is none; no engine is asked, so one that keeps its
//! files elsewhere is not known.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

const MAX_BYTES: u64 = 1 << 20;
/// Longest id that can be a file's name.
const MAX_ID: usize = 128;

/// What an engine says of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    pub name: Option<String>,
    pub pod_name: Option<String>,
    pub pod_namespace: Option<String>,
}

/// Asks the files below the host's root; nothing known is nothing said.
pub fn describe(host_root: &Path, id: &str) -> Description {
    // The id becomes part of paths.
    let safe = !id.starts_with('.') && id.len() <= MAX_ID && !id.contains(['/', '\0']);
    if !safe {
        return Description::default();
    }
    let docker = || {
        let config = json(&host_root.join(format!("var/lib/docker/containers/{id}/config.v2.json")))?;
        let labels = &config["Config"]["Labels"];
        let name = first(labels, &["io.kubernetes.container.name"])
            .or_else(|| Some(config["Name"].as_str()?.trim_start_matches('/').to_owned()));
        Some(Description { name, ..pod(labels, "io.kubernetes.pod.name", "io.kubernetes.pod.namespace") })
    };
    let containerd = || {
        ["k8s.io", "default", "moby"].iter().find_map(|space| {
            let file = format!("run/containerd/io.containerd.runtime.v2.task/{space}/{id}/config.json");
            let notes = json(&host_root.join(file))?["annotations"].take();
            let name = first(&notes, &["io.kubernetes.cri.container-name", "nerdctl/name"]);
            let pod = pod(&notes, "io.kubernetes.cri.sandbox-name", "io.kubernetes.cri.sandbox-namespace");
            Some(Description { name, ..pod })
        })
    };
    let crio = || {
        let file = format!("run/containers/storage/overlay-containers/{id}/userdata/config.json");
        let notes = json(&host_root.join(file))?["annotations"].take();
        let name = first(&notes, &["io.kubernetes.container.name"]);
        Some(Description { name, ..pod(&notes, "io.kubernetes.pod.name", "io.kubernetes.pod.namespace") })
    };
    let podman = || {
        let list = json(&host_root.join("var/lib/containers/storage/overlay-containers/containers.json"))?;
        let container = list.as_array()?.iter().find(|container| container["id"] == id)?;
        Some(Description { name: Some(container["names"][0].as_str()?.to_owned()), ..Description::default() })
    };
    let known = |found: &Description| *found != Description::default();
    let sources: [&dyn Fn() -> Option<Description>; 4] = [&docker, &containerd, &crio, &podman];
    sources.iter().find_map(|source| source().filter(known)).unwrap_or_default()
}

fn pod(labels: &Value, name: &str, namespace: &str) -> Description {
    Description { name: None, pod_name: first(labels, &[name]), pod_namespace: first(labels, &[namespace]) }
}

fn first(labels: &Value, keys: &[&str]) -> Option<String> {
    keys.iter().find_map(|key| Some(labels[*key].as_str().filter(|text| !text.is_empty())?.to_owned()))
}

fn json(path: &Path) -> Option<Value> {
    serde_json::from_reader(File::open(path).ok()?.take(MAX_BYTES)).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::{Description, describe};

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn each_engine_s_own_file_names_the_container_and_its_pod() {
        let cases = [
            ("var/lib/docker/containers/ID/config.v2.json", r#"{"Name":"/checkout","State":{}}"#, ["checkout", "", ""]),
            (
                "var/lib/docker/containers/ID/config.v2.json",
                r#"{"Name":"/k8s_api_web-1_shop","Config":{"Labels":{"io.kubernetes.container.name":"api",
                   "io.kubernetes.pod.name":"web-1","io.kubernetes.pod.namespace":"shop"}}}"#,
                ["api", "web-1", "shop"],
            ),
            (
                "run/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json",
                r#"{"annotations":{"io.kubernetes.cri.container-name":"api","io.kubernetes.cri.sandbox-name":"web-1",
                   "io.kubernetes.cri.sandbox-namespace":"shop"}}"#,
                ["api", "web-1", "shop"],
            ),
            (
                "run/containerd/io.containerd.runtime.v2.task/default/ID/config.json",
                r#"{"annotations":{"nerdctl/name":"cache"}}"#,
                ["cache", "", ""],
            ),
            (
                "run/containers/storage/overlay-containers/ID/userdata/config.json",
                r#"{"annotations":{"io.kubernetes.container.name":"api","io.kubernetes.pod.name":"web-1",
                   "io.kubernetes.pod.namespace":"shop"}}"#,
                ["api", "web-1", "shop"],
            ),
            (
                "var/lib/containers/storage/overlay-containers/containers.json",
                r#"[{"id":"x","names":["no"]},{"id":"ID","names":["shop-db"]}]"#,
                ["shop-db", "", ""],
            ),
            ("run/containers/storage/overlay-containers/ID/userdata/config.json", "{\"annotations\": 7", ["", "", ""]),
            ("elsewhere", "{}", ["", "", ""]),
        ];
        for (number, (file, text, expected)) in cases.into_iter().enumerate() {
            let root = std::env::temp_dir().join(format!("seismo-container-{number}-{}", std::process::id()));
            let file = root.join(file.replace("ID", ID));
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, text.replace("ID", ID)).unwrap();
            let Description { name, pod_name, pod_namespace } = describe(&root, ID);
            fs::remove_dir_all(&root).unwrap();
            let said = [name, pod_name, pod_namespace].map(Option::unwrap_or_default);
            assert_eq!(said, expected, "{}", file.display());
        }
    }

    #[test]
    fn an_id_that_leads_elsewhere_is_not_followed() {
        for id in ["../../etc", "..", "a/b", "", "a\0b"] {
            assert_eq!(describe(std::path::Path::new("/nonexistent"), id), Description::default());
        }
    }
}
