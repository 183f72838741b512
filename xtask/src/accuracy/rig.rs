//! What all cases share and one case's run: a cgroup, a folder, Redis and PostgreSQL; services, load and agent.
//!
//! Everything that is started is in the lab's own cgroup (the agent alone is outside and reads only that), listens on
//! loopback and ends with the value that holds it. Programs' products are kept between runs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::cases::{Case, Condition};
use super::judge::Sent;
use super::load::{self, Run};
use super::programs::{Order, Program, Role};
use super::servers;
use super::truth::Ports;
use crate::bench::agent::{Agent, free_port};
use crate::bench::cgroup::Cgroup;
use crate::workspace;

const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(3);
/// Between two looks at whether somebody is ready or gone.
const PATIENCE: Duration = Duration::from_millis(10);
/// What an agent must have for spans.
const FAMILIES: &[&str] = &["process", "tcp", "payload"];
/// All spans of a case are kept until it is over.
const SPANS_KEPT: u32 = 500_000;

/// A program in the lab's cgroup; ended when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let deadline = Instant::now() + STOP_LIMIT;
        if let Ok(pid) = libc::pid_t::try_from(self.0.id()) {
            // SAFETY: takes no pointer; the child is ours, and as long as nobody waited for it the pid is its own.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(PATIENCE);
        }
        // Both fail only when it has ended already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The run's folder; removed with what is in it.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Fields are dropped in this order: the servers, then the cgroup with whatever they left in it, then the files.
pub(super) struct Rig {
    _servers: Vec<Process>,
    cgroup: Cgroup,
    folder: Folder,
    kept: PathBuf,
    agent: PathBuf,
    redis: u16,
    postgresql: u16,
    products: BTreeMap<String, PathBuf>,
}

impl Rig {
    pub(super) fn new(agent: &Path) -> Result<Self> {
        let agent = agent.canonicalize().with_context(|| format!("no agent at {}", agent.display()))?;
        // Not below the source tree: PostgreSQL's user may not be allowed to look there.
        let folder = Folder(std::env::temp_dir().join(format!("seismo-accuracy-{}", std::process::id())));
        fs::create_dir(&folder.0)?;
        fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o755))?;
        let kept = workspace::target().join("accuracy");
        fs::create_dir_all(&kept)?;
        let cgroup = Cgroup::create("accuracy")?;
        let (redis, postgresql) = (free_port()?, free_port()?);
        let mut started = Vec::new();
        for (name, port, command) in [
            ("redis", redis, servers::redis(&folder.0, redis)?),
            ("postgresql", postgresql, servers::postgresql(&folder.0, postgresql)?),
        ] {
            started.push(start(&cgroup, &folder.0, name, command, port)?);
        }
        let products = BTreeMap::new();
        Ok(Self { _servers: started, cgroup, folder, kept, agent, redis, postgresql, products })
    }

    /// Compiles the program unless that is done.
    pub(super) fn prepare(&mut self, program: Program) -> Result<PathBuf> {
        let name = format!("{program:?}");
        if let Some(product) = self.products.get(&name) {
            return Ok(product.clone());
        }
        let product = program.prepare(&self.kept, &self.folder.0)?;
        self.products.insert(name, product.clone());
        Ok(product)
    }

    fn ports(&self, case: &Case) -> Result<Ports> {
        Ok(Ports {
            front: free_port()?,
            cache: free_port()?,
            store: free_port()?,
            redis: self.redis,
            postgresql: self.postgresql,
            proxy: case.proxy.map(|_| free_port()).transpose()?,
        })
    }

    fn start_agent(&self, condition: Condition) -> Result<Agent> {
        let mut configuration = json!({
            "scope": { "include": [format!("cgroup={}", self.cgroup.path().display())] },
            "spans": { "capacity": SPANS_KEPT },
        });
        if let Condition::Loss(one_in) = condition {
            configuration["capture"] = json!({ "drop_one_in": one_in });
        }
        Agent::start(&self.agent, &self.folder.0, &configuration.to_string(), FAMILIES)
    }

    /// Starts everything of a case in the order that its condition asks for, and sends `warm_up` before the rest.
    pub(super) fn start(&mut self, case: &Case, condition: Condition, pace: &Pace, warm_up: Run) -> Result<Stage> {
        let product = self.prepare(case.program)?;
        let ports = self.ports(case)?;
        let early = (condition != Condition::Existing).then(|| self.start_agent(condition)).transpose()?;
        let order = Order { ports, seed: pace.seed, think_us: pace.think_us, parallel: case.parallel };
        let mut services = Vec::new();
        for role in Role::ALL {
            let command = case.program.command(&product, &self.folder.0, role, &order)?;
            services.push(start(&self.cgroup, &self.folder.0, role.name(), command, role.port(&ports))?);
        }
        if let (Some(kind), Some(port)) = (case.proxy, ports.proxy) {
            let command = servers::proxy(kind, &self.folder.0, port, ports.cache)?;
            services.push(start(&self.cgroup, &self.folder.0, "proxy", command, port)?);
        }
        let mut load = Load::start(&self.cgroup, &self.folder.0, ports.front, pace)?;
        let warm = load.run(warm_up)?;
        if let Some(failed) = warm.iter().find(|sent| sent.status != 200) {
            bail!("the services do not work, status {}:{}", failed.status, last_words(&self.folder.0));
        }
        let agent = match early {
            Some(agent) => agent,
            None => self.start_agent(condition)?,
        };
        Ok(Stage { load, agent, _services: services, ports })
    }
}

/// How fast the lab goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) seed: u32,
    /// Longest time that a service thinks before, between and after its calls.
    pub(super) think_us: u32,
    /// Longest pause of a connection of the load generator.
    pub(super) pause_us: u32,
}

/// A case that runs. Load ends before the services, and the agent sees both end.
pub(super) struct Stage {
    pub(super) load: Load,
    _services: Vec<Process>,
    pub(super) agent: Agent,
    pub(super) ports: Ports,
}

/// The load generator's process.
pub(super) struct Load {
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    _process: Process,
}

impl Load {
    fn start(cgroup: &Cgroup, folder: &Path, port: u16, pace: &Pace) -> Result<Self> {
        let executable = folder.join("load");
        if !executable.exists() {
            fs::copy(std::env::current_exe()?, &executable)?;
        }
        let mut command = Command::new(executable);
        command.args(["accuracy-load", "--port", &port.to_string(), "--seed", &pace.seed.to_string()]);
        command.args(["--pause-us", &pace.pause_us.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(folder.join("load.log"))?);
        cgroup.adopt(&mut command)?;
        let mut child = command.spawn().context("cannot start the load generator")?;
        let pipes = (child.stdin.take(), child.stdout.take());
        let process = Process(child);
        let (Some(orders), Some(answers)) = pipes else { bail!("the load generator has no pipes") };
        Ok(Self { orders, answers: BufReader::new(answers), _process: process })
    }

    /// Sends the requests of a run and waits for their answers.
    pub(super) fn run(&mut self, run: Run) -> Result<Vec<Sent>> {
        writeln!(self.orders, "{}", load::line(run))?;
        let mut all = Vec::new();
        loop {
            let mut line = String::new();
            if self.answers.read_line(&mut line)? == 0 {
                bail!("the load generator ended");
            }
            match line.trim_end() {
                "done" if all.len() == run.count as usize => return Ok(all),
                "done" => bail!("the load generator sent {} of {} requests", all.len(), run.count),
                line => all.push(load::sent(line)?),
            }
        }
    }
}

/// Starts a program in the cgroup and waits until it listens.
fn start(cgroup: &Cgroup, folder: &Path, name: &str, mut command: Command, port: u16) -> Result<Process> {
    let log = File::create(folder.join(format!("{name}.log")))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    cgroup.adopt(&mut command)?;
    let mut process = Process(command.spawn().with_context(|| format!("cannot start {name}"))?);
    let started = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        if let Some(status) = process.0.try_wait()? {
            bail!("{name} ended before it listened: {status}{}", last_words(folder));
        }
        if started.elapsed() > START_LIMIT {
            bail!("{name} did not listen within {} s{}", START_LIMIT.as_secs(), last_words(folder));
        }
        thread::sleep(PATIENCE);
    }
    Ok(process)
}

/// The last lines of every log, each after a line break.
fn last_words(folder: &Path) -> String {
    let mut words = String::new();
    for name in ["redis", "postgresql", "s1", "s2", "s3", "proxy", "load"] {
        let log = fs::read_to_string(folder.join(format!("{name}.log"))).unwrap_or_default();
        let skipped = log.lines().count().saturating_sub(5);
        words.extend(log.lines().skip(skipped).map(|line| format!("\n  {name}: {line}")));
    }
    words
}
