//! What all measurements share: the agent's executable, a folder for files, the workload's cgroup, nginx.
//!
//! Everything is made at the start and gone at the end; a missing nginx takes only its own rows with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::agent::Agent;
use super::cgroup::Cgroup;
use super::condition::Condition;
use super::loops::Loop;
use super::nginx::Nginx;
use super::pairs::Cost;
use super::peers::{Peer, Running};
use super::statistics::Quartiles;
use super::targets::Workload;

/// One burst: long enough for stable CPU time, short enough that both halves of a pair see the same machine.
pub const BURST: Duration = Duration::from_millis(350);
/// The same for requests, which come in another rhythm each time.
const REQUESTS: Duration = Duration::from_secs(1);
const YARDSTICK_BURSTS: usize = 3;
/// After attaching and detaching, for what the kernel and the agent still do on other CPUs.
const SETTLE: Duration = Duration::from_millis(100);

pub struct Rig {
    program: PathBuf,
    cgroup: Cgroup,
    nginx: Result<Nginx>,
    folder: Folder,
}

impl Rig {
    /// `agent` is its executable; nginx is started only when wanted.
    pub fn new(agent: &Path, with_nginx: bool) -> Result<Self> {
        let program = agent.canonicalize().with_context(|| format!("no agent at {}", agent.display()))?;
        let folder = Folder::create()?;
        let cgroup = Cgroup::create("workload")?;
        let nginx = if with_nginx { Nginx::start(&folder.0) } else { Err(anyhow!("nginx was not asked for")) };
        Ok(Self { program, cgroup, nginx, folder })
    }

    pub fn nginx(&self) -> Result<&Nginx> {
        self.nginx.as_ref().map_err(|error| anyhow!("{error:#}"))
    }

    /// The agent in this condition, attached for a workload of this kind.
    pub fn attach(&self, condition: Condition, workload: Workload, run_statistics: bool) -> Result<Agent> {
        let scope = match workload {
            Workload::Loop(_) => self.cgroup.path(),
            Workload::Http => self.nginx()?.cgroup(),
        };
        let configuration = condition.configuration(scope, run_statistics);
        let agent = Agent::start(&self.program, &self.folder.0, &configuration, condition.families())?;
        thread::sleep(SETTLE);
        Ok(agent)
    }

    /// Stops the agent and waits until nothing of it is left.
    pub fn detach(&self, agent: Agent) -> Result<()> {
        agent.stop()?;
        thread::sleep(SETTLE);
        Ok(())
    }

    /// Another tool, attached.
    pub fn attach_peer(&self, peer: Peer) -> Result<Running> {
        let running = Running::start(peer, &self.folder.0)?;
        thread::sleep(SETTLE);
        Ok(running)
    }

    /// Stops it and waits until nothing of it is left.
    pub fn detach_peer(&self, running: Running, peer: Peer, workload: Workload) -> Result<()> {
        running.stop(peer, workload)?;
        thread::sleep(SETTLE);
        Ok(())
    }

    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// CPU time of a bare `getppid`, ns: the measure of this machine's speed.
    pub fn yardstick_ns(&self) -> Result<f64> {
        let bursts = (0..YARDSTICK_BURSTS).map(|_| Loop::Getppid.burst(&self.cgroup, BURST));
        let bursts = bursts.collect::<Result<Vec<f64>>>()?;
        Quartiles::of(&bursts).map(|ns| ns.median).context("getppid took no time")
    }

    /// CPU time per operation in one burst.
    pub fn burst(&self, workload: Workload) -> Result<Cost> {
        match workload {
            Workload::Loop(of) => Ok(Cost { workload_ns: of.burst(&self.cgroup, BURST)?, client_ns: None }),
            Workload::Http => {
                let burst = self.nginx()?.burst(REQUESTS)?;
                let per_request = |time: Duration| time.as_nanos() as f64 / burst.requests as f64;
                Ok(Cost { workload_ns: per_request(burst.server), client_ns: Some(per_request(burst.client)) })
            }
        }
    }
}

/// A new folder of our own, removed with what is in it.
struct Folder(PathBuf);

impl Folder {
    fn create() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("seismo-bench-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}
