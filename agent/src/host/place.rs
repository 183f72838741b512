//! What a cgroup path says of who lives there: container, engine, pod, systemd unit and slice. No file is read for that.
//!
//! Knows docker, containerd (CRI, nerdctl), CRI-O, podman, LXC, systemd-nspawn, runc and crun by themselves, and ECS, each with
//! the cgroupfs and the systemd driver; cgroup v1, v2 and both at once (`/proc/PID/cgroup` has a line for each hierarchy).
//! The innermost container counts. An engine's monitor beside the container (conmon, lxc.monitor) is not in it.

use std::path::Path;

use super::container;

/// Longest container id of those that are names.
const MAX_NAME: usize = 128;

/// What a path says. What it does not say is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// 64 hexadecimal digits, or the name where the engine has nothing else (LXC, nspawn, runc).
    pub container_id: Option<String>,
    /// `container.runtime.name`, where the path tells.
    pub runtime: Option<&'static str>,
    /// UID of the Kubernetes pod, with dashes (a static pod has 32 digits and none).
    pub pod_uid: Option<String>,
    /// Innermost systemd unit that is no container, with its suffix.
    pub unit: Option<String>,
    /// Innermost slice.
    pub slice: Option<String>,
    /// Components of the path that make up its workload: to the container, to the unit, or all of them.
    depth: usize,
}

impl Place {
    /// Reads one path, as it stands in `/proc/PID/cgroup` or below the hierarchy's mount.
    pub fn of(path: &str) -> Self {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let mut place = Self { depth: parts.len(), ..Self::default() };
        let container = (0..parts.len()).rev().find_map(|at| Some((at, container_at(&parts, at)?)));
        let unit = innermost_unit(&parts);
        if let Some(at) = container.as_ref().map(|(at, _)| *at).or(unit) {
            place.depth = at + 1;
        }
        if let Some((_, (id, runtime))) = container {
            place.container_id = Some(id);
            place.runtime = runtime;
        }
        place.unit = unit.and_then(|at| parts.get(at)).map(|unit| unescaped(unit));
        place.pod_uid = parts.iter().rev().find_map(|part| pod_uid(part));
        let slice = parts.iter().rev().find_map(|part| part.split(':').find(|part| part.ends_with(".slice")));
        place.slice = slice.map(unescaped);
        place
    }

    /// Reads `/proc/PID/cgroup`. Version 2 and systemd's own hierarchy are asked first; the container may be in another.
    pub fn of_process(cgroups: &str) -> Self {
        let mut known = Self::default();
        for place in paths(cgroups).map(Self::of) {
            if known.container_id.is_none() && place.container_id.is_some() {
                known.container_id = place.container_id;
                known.runtime = place.runtime;
            }
            known.pod_uid = known.pod_uid.or(place.pod_uid);
            known.unit = known.unit.or(place.unit);
            known.slice = known.slice.or(place.slice);
        }
        known
    }

    /// Name of the systemd service, without its suffix. A user's service manager is no service, nor is a scope.
    pub fn service(&self) -> Option<&str> {
        self.unit.as_deref()?.strip_suffix(".service").filter(|name| is_service(name))
    }

    /// Name of the container: the engine's files know it, or it is the id itself where the engine uses names as ids.
    pub fn named_by_engine(&self, host_root: &Path) -> Option<String> {
        let id = self.container_id.as_deref()?;
        container::describe(host_root, id).name.or_else(|| self.own_name().map(str::to_owned))
    }

    /// The id, of engines that use names as ids.
    pub(super) fn own_name(&self) -> Option<&str> {
        let named = matches!(self.runtime, Some("lxc" | "systemd-nspawn" | "runc" | "crun"));
        self.container_id.as_deref().filter(|id| named && !is_digits(id, 64))
    }

    /// The part of `path`, from which this was read, that is the workload's: what is below it belongs to it.
    pub fn root<'path>(&self, path: &'path str) -> &'path str {
        let mut seen = 0;
        let mut inside = false;
        for (at, byte) in path.bytes().enumerate() {
            match (byte, inside) {
                (b'/', true) if seen == self.depth => return path.get(..at).unwrap_or(path),
                (b'/', _) => inside = false,
                (_, false) => {
                    inside = true;
                    seen += 1;
                }
                _ => {}
            }
        }
        path
    }
}

fn is_service(name: &str) -> bool {
    !name.is_empty() && !name.starts_with("user@")
}

/// The innermost service; else the innermost scope; else a user's service manager. What holds a container is none.
fn innermost_unit(parts: &[&str]) -> Option<usize> {
    let wanted: [fn(&str) -> bool; 3] = [
        |part| part.strip_suffix(".service").is_some_and(is_service),
        |part| part.len() > ".scope".len() && part.ends_with(".scope"),
        |part| part.len() > ".service".len() && part.ends_with(".service"),
    ];
    let fits = |at: usize, is: fn(&str) -> bool| parts.get(at).is_some_and(|part| is(part));
    wanted
        .into_iter()
        .find_map(|is| (0..parts.len()).rev().find(|at| fits(*at, is) && container_at(parts, *at).is_none()))
}

type Container = (String, Option<&'static str>);

/// The container that the component at `at` stands for.
fn container_at(parts: &[&str], at: usize) -> Option<Container> {
    let part = *parts.get(at)?;
    let parent = at.checked_sub(1).and_then(|above| parts.get(above)).copied().unwrap_or_default();
    if part.contains("conmon") || part.starts_with("lxc.monitor") {
        return None;
    }
    if let Some(id) = part.split(['-', '.', ':']).find(|word| is_digits(word, 64)) {
        let before = part.split(id).next().unwrap_or_default();
        return Some((id.to_owned(), engine_by_prefix(before).or_else(|| engine_by_parent(parent))));
    }
    let named = |name: &str, engine| {
        let fits = !name.is_empty() && name.len() <= MAX_NAME;
        fits.then(|| (unescaped(name), Some(engine)))
    };
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return named(name, "lxc");
    }
    if matches!(parent, "lxc" | "lxc.payload") {
        return named(part, "lxc");
    }
    if let Some(name) = part.strip_prefix("systemd-nspawn@").and_then(|rest| rest.strip_suffix(".service")) {
        return named(name, "systemd-nspawn");
    }
    for (prefix, engine) in [("runc-", "runc"), ("crun-", "crun")] {
        if let Some(name) = part.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(".scope")) {
            return named(name, engine);
        }
    }
    // Fargate: the task's id and a number.
    let (task, number) = part.split_once('-')?;
    let fargate = parts.contains(&"ecs") && is_digits(task, 32) && number.bytes().all(|byte| byte.is_ascii_digit());
    fargate.then(|| (part.to_owned(), None))
}

/// Engine by what stands before the id: `cri-containerd-ID.scope`, `SLICE:cri-containerd:ID`.
fn engine_by_prefix(before: &str) -> Option<&'static str> {
    let word = before.trim_end_matches(['-', ':']).rsplit(':').next().unwrap_or_default();
    match word {
        "docker" => Some("docker"),
        "cri-containerd" | "containerd" | "nerdctl" => Some("containerd"),
        "crio" => Some("cri-o"),
        "libpod" | "libpod-payload" => Some("podman"),
        "runc" => Some("runc"),
        "crun" => Some("crun"),
        _ => None,
    }
}

/// Engine by the folder in which the cgroupfs driver puts its containers. In a pod's folder every engine does the same.
fn engine_by_parent(parent: &str) -> Option<&'static str> {
    match parent {
        "docker" => Some("docker"),
        "default" | "k8s.io" => Some("containerd"),
        "libpod_parent" => Some("podman"),
        _ => None,
    }
}

/// `podUID`, `kubepods-burstable-podUID.slice` (where dashes are underscores).
fn pod_uid(part: &str) -> Option<String> {
    let part = part.split(':').next()?;
    let uid = match part.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod")?.1,
        None => part.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    let groups: Vec<&str> = uid.split('-').collect();
    let uuid = matches!(groups[..], [a, b, c, d, e]
        if [(a, 8), (b, 4), (c, 4), (d, 4), (e, 12)].iter().all(|(group, length)| is_digits(group, *length)));
    (uuid || is_digits(&uid, 32)).then_some(uid)
}

fn is_digits(word: &str, length: usize) -> bool {
    word.len() == length && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// systemd writes what may not stand in a unit's name as `\xNN`.
fn unescaped(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once("\\x") {
        bytes.extend_from_slice(before.as_bytes());
        let code = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (code, after.get(2..)) {
            (Some(code), Some(tail)) => {
                bytes.push(code);
                rest = tail;
            }
            _ => {
                bytes.extend_from_slice(b"\\x");
                rest = after;
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Paths, version 2 and systemd's own hierarchy first.
fn paths(cgroups: &str) -> impl Iterator<Item = &str> {
    let of = move |first: bool| {
        cgroups.lines().filter_map(move |line| {
            let (hierarchy, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let preferred = hierarchy == "0" || controllers == "name=systemd";
            (preferred == first).then_some(path)
        })
    };
    of(true).chain(of(false))
}

#[cfg(test)]
mod tests;
