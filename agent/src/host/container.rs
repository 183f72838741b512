//! Containers and systemd units as cgroup paths name them, and a container's name as its engine recorded it.
//!
//! Ids: docker, containerd, cri-o and podman, cgroup v1 and v2, cgroupfs and systemd drivers: the innermost
//! path component with 64 hexadecimal digits. Names: the engine's own files on the host, at most 1 MiB each;
//! no engine is asked.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

const MAX_BYTES: u64 = 1 << 20;

/// Container id in `/proc/PID/cgroup`.
pub fn id(cgroups: &str) -> Option<String> {
    paths(cgroups).find_map(|path| path.rsplit('/').find_map(id_in)).map(str::to_owned)
}

fn id_in(component: &str) -> Option<&str> {
    // conmon is the engine's monitor beside the container, not in it.
    if component.contains("conmon") {
        return None;
    }
    component.split(['-', '.', ':']).find(|part| part.len() == 64 && part.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Innermost systemd service, without its suffix. A user's service manager is no service.
pub fn unit(cgroups: &str) -> Option<String> {
    paths(cgroups).find_map(|path| {
        path.rsplit('/')
            .filter_map(|component| component.strip_suffix(".service"))
            .find(|name| !name.is_empty() && !name.starts_with("user@"))
            .map(|name| name.replace("\\x2d", "-"))
    })
}

/// Paths, version 2 and systemd's own hierarchy first.
fn paths(cgroups: &str) -> impl Iterator<Item = &str> {
    let split = |line: &'_ str| -> Option<(bool, usize)> {
        let (hierarchy, rest) = line.split_once(':')?;
        let (controllers, _) = rest.split_once(':')?;
        Some((hierarchy == "0" || controllers == "name=systemd", hierarchy.len() + controllers.len() + 2))
    };
    let of = move |first: bool| {
        cgroups.lines().filter_map(move |line| {
            let (preferred, start) = split(line)?;
            (preferred == first).then(|| line.get(start..)).flatten()
        })
    };
    of(true).chain(of(false))
}

/// Name of a container, from the files that its engine keeps below the host's root.
pub fn name(host_root: &Path, id: &str) -> Option<String> {
    let docker = || {
        let config = json(&host_root.join(format!("var/lib/docker/containers/{id}/config.v2.json")))?;
        Some(config["Name"].as_str()?.trim_start_matches('/').to_owned())
    };
    let containerd = || {
        ["k8s.io", "default", "moby"].iter().find_map(|space| {
            let file = format!("run/containerd/io.containerd.runtime.v2.task/{space}/{id}/config.json");
            annotation(&json(&host_root.join(file))?, &["io.kubernetes.cri.container-name", "nerdctl/name"])
        })
    };
    let crio = || {
        let file = format!("run/containers/storage/overlay-containers/{id}/userdata/config.json");
        annotation(&json(&host_root.join(file))?, &["io.kubernetes.container.name"])
    };
    let podman = || {
        let list = json(&host_root.join("var/lib/containers/storage/overlay-containers/containers.json"))?;
        let container = list.as_array()?.iter().find(|container| container["id"] == id)?;
        Some(container["names"][0].as_str()?.to_owned())
    };
    docker().or_else(containerd).or_else(crio).or_else(podman).filter(|name| !name.is_empty())
}

fn annotation(config: &Value, keys: &[&str]) -> Option<String> {
    keys.iter().find_map(|key| Some(config["annotations"][*key].as_str()?.to_owned()))
}

fn json(path: &Path) -> Option<Value> {
    serde_json::from_reader(File::open(path).ok()?.take(MAX_BYTES)).ok()
}

#[cfg(test)]
mod tests {
    use super::{id, unit};

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn container_ids_are_found_in_the_paths_of_every_engine() {
        let forms = [
            "0::/docker/ID",
            "0::/system.slice/docker-ID.scope",
            "12:memory:/docker/ID\n1:name=systemd:/docker/ID\n0::/",
            "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1_2.slice/cri-containerd-ID.scope",
            "0::/kubepods/burstable/pod2a8f/ID",
            "0::/kubepods-pod1.slice:cri-containerd:ID",
            "0::/kubepods.slice/kubepods-pod3.slice/crio-ID.scope",
            "0::/machine.slice/libpod-ID.scope/container",
            "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope",
        ];
        for form in forms {
            assert_eq!(id(&form.replace("ID", ID)).as_deref(), Some(ID), "{form}");
        }
    }

    #[test]
    fn paths_without_a_container_have_no_id() {
        let forms = [
            "0::/",
            "",
            "0::/system.slice/nginx.service",
            "0::/machine.slice/libpod-conmon-ID.scope",
            "0::/x/IDab",
            "7",
        ];
        for form in forms {
            assert_eq!(id(&form.replace("ID", ID)), None, "{form}");
        }
    }

    #[test]
    fn the_innermost_service_names_the_unit() {
        let cases = [
            ("0::/system.slice/nginx.service", Some("nginx")),
            ("0::/system.slice/system-getty.slice/getty@tty1.service", Some("getty@tty1")),
            ("5:cpu:/\n1:name=systemd:/system.slice/cron.service", Some("cron")),
            ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/my\\x2dapp.service", Some("my-app")),
            ("0::/user.slice/user-1000.slice/user@1000.service/init.scope", None),
            ("0::/user.slice/user-0.slice/session-2.scope", None),
            ("0::/", None),
        ];
        for (cgroups, expected) in cases {
            assert_eq!(unit(cgroups).as_deref(), expected, "{cgroups}");
        }
    }
}
