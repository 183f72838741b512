//! The files of `deploy/`, as far as a machine without cluster or init system can check them: they parse, hold what
//! their schema demands, agree with the agent's defaults and with each other, and ask for no capability too many.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use seismo::bpf::capabilities;
use seismo::config::Config;
use serde_json::Value;

const UNIT: &str = "systemd/seismo.service";
const MANIFEST: &str = "kubernetes/daemonset.yaml";
const EXECUTABLE: &str = "/usr/local/bin/seismo";
const CONFIGURATION: &str = "/etc/seismo/seismo.yaml";

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file)
}

fn text(file: &str) -> String {
    fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("deploy/{file}: {error}"))
}

fn objects() -> Vec<Value> {
    serde_saphyr::from_multiple(&text(MANIFEST)).expect("the manifest is YAML")
}

fn object(kind: &str) -> Value {
    objects().into_iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind} in the manifest"))
}

fn container() -> Value {
    let containers = &object("DaemonSet")["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers.as_array().map(Vec::len), Some(1), "one container");
    containers[0].clone()
}

/// Values of a key of the unit, over all its lines.
fn unit_values(key: &str) -> BTreeSet<String> {
    text(UNIT)
        .lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .flat_map(|value| value.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

fn needed_capabilities() -> BTreeSet<String> {
    capabilities::NEEDED.iter().map(|capability| capability.name().to_owned()).collect()
}

#[test]
fn the_unit_has_exactly_the_capabilities_that_the_agent_needs() {
    assert_eq!(unit_values("CapabilityBoundingSet"), needed_capabilities());
    assert_eq!(unit_values("AmbientCapabilities"), needed_capabilities());
    assert_eq!(unit_values("NoNewPrivileges"), BTreeSet::from(["yes".to_owned()]));
}

#[test]
fn the_container_has_exactly_the_capabilities_that_the_agent_needs() {
    let context = &container()["securityContext"];
    let added = context["capabilities"]["add"].as_array().expect("a list of capabilities");
    let added: BTreeSet<_> = added.iter().map(|name| format!("CAP_{}", name.as_str().unwrap())).collect();
    assert_eq!(added, needed_capabilities());
    assert_eq!(context["capabilities"]["drop"], serde_json::json!(["ALL"]));
    assert_eq!(context["privileged"], false);
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["readOnlyRootFilesystem"], true);
}

#[test]
fn the_manifests_objects_have_what_their_schema_demands() {
    for (kind, version) in
        [("Namespace", "v1"), ("ServiceAccount", "v1"), ("ConfigMap", "v1"), ("DaemonSet", "apps/v1")]
    {
        let object = object(kind);
        assert_eq!(object["apiVersion"], version, "{kind}");
        assert_eq!(object["metadata"]["name"], "seismo", "{kind}");
        if kind != "Namespace" {
            assert_eq!(object["metadata"]["namespace"], "seismo", "{kind}");
        }
    }
    assert_eq!(objects().len(), 4);

    let spec = &object("DaemonSet")["spec"];
    let template = &spec["template"];
    assert!(spec["selector"]["matchLabels"].as_object().is_some_and(|labels| !labels.is_empty()));
    assert_eq!(spec["selector"]["matchLabels"], template["metadata"]["labels"], "the selector finds the pods");
    assert_eq!(template["spec"]["hostPID"], true, "records carry the node's process ids");
    assert_eq!(template["spec"]["serviceAccountName"], "seismo");

    let container = container();
    assert!(container["name"].is_string() && container["image"].is_string());
    for amount in ["requests", "limits"] {
        for resource in ["cpu", "memory"] {
            assert!(container["resources"][amount][resource].is_string(), "{amount} of {resource}");
        }
    }
    let volumes: BTreeSet<_> =
        template["spec"]["volumes"].as_array().unwrap().iter().map(|v| v["name"].as_str()).collect();
    let mounts = container["volumeMounts"].as_array().unwrap();
    let mounted: BTreeSet<_> = mounts.iter().map(|mount| mount["name"].as_str()).collect();
    assert_eq!(mounted, volumes, "every volume is mounted, every mount has its volume");
    assert!(mounts.iter().all(|mount| mount["readOnly"] == true), "the agent writes nothing");
}

#[test]
fn probes_and_scrape_annotations_meet_the_agents_own_port_and_paths() {
    let port = Config::default().listen.0.port();
    let container = container();
    assert_eq!(container["ports"][0]["containerPort"], port);
    for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
        assert_eq!(container[probe]["httpGet"]["path"], path);
        assert_eq!(container[probe]["httpGet"]["port"], port);
    }
    let annotations = &object("DaemonSet")["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(annotations["prometheus.io/scrape"], "true");
    assert_eq!(annotations["prometheus.io/port"], port.to_string());
    assert_eq!(annotations["prometheus.io/path"], "/metrics");
}

#[test]
fn the_config_maps_file_is_a_configuration_that_the_kubelet_can_reach() {
    let file = object("ConfigMap")["data"]["seismo.yaml"].as_str().expect("seismo.yaml").to_owned();
    let config = Config::from_text("seismo.yaml", &file, &[]).expect("the agent accepts it");
    assert!(config.listen.0.ip().is_unspecified(), "probes and scrapers come from outside of the pod");
    assert_eq!(config.listen.0.port(), Config::default().listen.0.port());
    assert!(!config.scope.include.is_empty(), "it observes something");
    let arguments = ["run", "--config", CONFIGURATION];
    assert_eq!(container()["args"], serde_json::json!(arguments));
    let folder = container()["volumeMounts"][0]["mountPath"].as_str().map(PathBuf::from);
    assert_eq!(folder.as_deref(), Path::new(CONFIGURATION).parent());
}

#[test]
fn unit_image_and_manifest_start_the_same_command() {
    let start = format!("{EXECUTABLE} run --config {CONFIGURATION}");
    assert!(text(UNIT).contains(&format!("\nExecStart={start}\n")));
    let image = text("Dockerfile");
    assert!(image.contains(&format!("ENTRYPOINT [\"{EXECUTABLE}\"]")));
    assert!(image.contains(&format!("CMD [\"run\", \"--config\", \"{CONFIGURATION}\"]")));
    assert!(image.contains(&format!("/target/release/seismo {EXECUTABLE}\n")));
}

#[test]
fn the_image_is_built_in_stages_from_files_that_exist() {
    let image = text("Dockerfile");
    let stages: Vec<_> = image.lines().filter_map(|line| line.strip_prefix("FROM ")).collect();
    assert_eq!(stages.len(), 2, "the compiler stays out of the image");
    let root = path("..");
    let copied = image.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.starts_with("--from"));
    for line in copied {
        let (sources, _) = line.rsplit_once(' ').expect("COPY takes a source and a destination");
        for source in sources.split(' ') {
            assert!(root.join(source).exists(), "COPY of {source}, which does not exist");
        }
    }
}

#[test]
fn systemd_accepts_the_unit_and_finds_it_hardly_exposed() {
    let folder = std::env::temp_dir().join(format!("seismo-unit-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    // systemd wants the executable to exist; everything else is checked as it is shipped.
    let unit = folder.join("seismo.service");
    fs::write(&unit, text(UNIT).replace(EXECUTABLE, "/bin/true")).unwrap();

    let verify = analyze(&["verify", "--man=no"], &unit);
    let security = analyze(&["security", "--offline=yes", "--no-pager", "--threshold=25"], &unit);
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(verify, (true, String::new()), "unknown keys are only warned about");
    assert!(security.0, "exposed more than 2.5 of 10:\n{}", security.1);
}

/// Whether it succeeded, and all it said.
fn analyze(arguments: &[&str], unit: &Path) -> (bool, String) {
    let output = Command::new("systemd-analyze")
        .args(arguments)
        .arg(unit)
        .output()
        .expect("systemd-analyze is not installed: run `cargo xtask setup --test`");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}
