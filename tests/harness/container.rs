//! Containers of podman: the host's own programs in a root folder of their own, in a network namespace of the test's, in
//! control groups below the test's.
//!
//! No image and no network: the root folder is empty and the host's folders are mounted into it, read only. podman keeps
//! its state in the test's folder. A container ends with its handle, or by itself after [`LIFETIME_SECONDS`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::netns::Netns;
use crate::process::{self, Process};
use crate::programs;
use crate::rig::Rig;
use crate::wait;

/// Of the host, for its programs and their libraries; links like `/lib` are copied as links.
const MOUNTED: [&str; 2] = ["/usr", "/etc"];
const LINKED: [&str; 5] = ["bin", "sbin", "lib", "lib32", "lib64"];
const EMPTY: [&str; 8] = ["dev", "proc", "sys", "tmp", "run", "var/tmp", "var/lib", "var/log/nginx"];
const LIFETIME_SECONDS: &str = "300";
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Container<'a> {
    pub process: Process,
    engine: Engine<'a>,
    /// 64 hexadecimal digits.
    pub id: String,
}

/// podman with everything that it keeps in the test's folder.
#[derive(Clone, Debug)]
struct Engine<'a> {
    rig: &'a Rig,
}

impl<'a> Container<'a> {
    /// Runs a program of the host in a container; the test's folder is where it is outside.
    pub fn run(rig: &'a Rig, name: &str, namespace: &Netns, program: &str, arguments: &[&str]) -> Result<Self> {
        let engine = Engine { rig };
        let root = root_folder(rig, name)?;
        let id_file = rig.dir().join(format!("{name}.id"));
        let mut command = engine.command()?;
        command.args(["run", "--rm", "--name", name, "--timeout", LIFETIME_SECONDS, "--log-driver", "none"]);
        command.arg("--cidfile").arg(&id_file);
        command.arg("--cgroup-parent").arg(Path::new("/").join(rig.cgroup().below_root()?));
        command.arg("--network").arg(format!("ns:{}", namespace.path().display()));
        // What a container may have by default can be more than we may give.
        command.args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]);
        for folder in MOUNTED {
            command.arg("--volume").arg(format!("{folder}:{folder}:ro"));
        }
        command.arg("--volume").arg(format!("{0}:{0}", rig.dir().display()));
        command.arg("--rootfs").arg(&root).arg(programs::find(program)?).args(arguments);
        let mut process = rig.outside(name, command)?;
        process.await_ready(LIMIT, || fs::read_to_string(&id_file).is_ok_and(|id| id.trim().len() == 64))?;
        Ok(Self { process, engine, id: fs::read_to_string(&id_file)?.trim().to_owned() })
    }

    /// Its control group, as a scope names it.
    pub fn cgroup(&self) -> Result<PathBuf> {
        let parent = self.engine.rig.cgroup().path();
        wait::until("the control group of a container", LIMIT, || {
            let entries = fs::read_dir(parent)?.flatten().map(|entry| entry.path());
            Ok(entries.into_iter().find(|path| path.to_string_lossy().contains(&self.id)))
        })
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let removed = self.engine.command().and_then(|mut command| {
            command.args(["rm", "--force", "--ignore", "--time", "0", &self.id]);
            process::output(command, self.engine.rig.dir(), "podman-rm", LIMIT)
        });
        if !removed.as_ref().is_ok_and(|(status, ..)| status.success()) {
            eprintln!("removing a container: {removed:?}");
        }
        let below = fs::read_dir(self.engine.rig.cgroup().path()).into_iter().flatten().flatten();
        if !below.into_iter().any(|entry| entry.path().is_dir()) {
            // This was the last one.
            remove_other_groups(self.engine.rig);
        }
    }
}

impl Engine<'_> {
    fn command(&self) -> Result<Command> {
        let mut command = Command::new(programs::find("podman")?);
        let kept = self.rig.dir().join("podman");
        for (option, folder) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.arg(option).arg(kept.join(folder));
        }
        command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]);
        if mixed_hierarchies()? {
            // crun refuses control groups of both versions at once where version 2 has controllers.
            command.args(["--runtime", "runc"]);
        }
        Ok(command)
    }
}

fn mixed_hierarchies() -> Result<bool> {
    Ok(fs::read_to_string("/proc/self/cgroup")?.lines().any(|line| !line.starts_with("0::")))
}

/// What the engine leaves of the test's group in hierarchies of version 1. A monitor takes a moment to end.
fn remove_other_groups(rig: &Rig) {
    let Some(name) = rig.cgroup().path().file_name() else { return };
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    for group in hierarchies.map(|hierarchy| hierarchy.path().join(name)).filter(|group| group != rig.cgroup().path()) {
        let gone = wait::until("control groups without processes", Duration::from_secs(5), || {
            for below in fs::read_dir(&group).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
                // Fails as long as the monitor is in it.
                drop(fs::remove_dir(below.path()));
            }
            Ok((fs::remove_dir(&group).is_ok() || !group.exists()).then_some(()))
        });
        if gone.is_err() {
            eprintln!("{} could not be removed", group.display());
        }
    }
}

fn root_folder(rig: &Rig, name: &str) -> Result<PathBuf> {
    let root = rig.dir().join(format!("{name}-root"));
    for folder in EMPTY.iter().copied().chain(MOUNTED.map(|folder| folder.trim_start_matches('/'))) {
        fs::create_dir_all(root.join(folder))?;
    }
    for link in LINKED {
        if let Ok(target) = fs::read_link(Path::new("/").join(link)) {
            std::os::unix::fs::symlink(target, root.join(link))?;
        }
    }
    Ok(root)
}
