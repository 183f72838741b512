//! The applications of the lab, one row each: how it is prepared, and the command that runs it as S1, S2 or S3.
//!
//! What each does is told in the environment (`LAB_…`), the same for all; see `Role::environment`. Every process has
//! its own name: a copy of the script or of the executable, or a class. Compilers' products are kept in the target folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::truth::Ports;
use crate::{shell, workspace};

/// The distribution's own, for which its packages are.
const PYTHON: &str = "/usr/bin/python3";
/// Threads of those that have a pool; more than the highest concurrency of a run's default.
const WORKERS: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Program {
    PythonThreads,
    PythonAsyncio,
    PythonFastapi,
    Node,
    Java,
    Go,
    RustTokio,
    RustQueue,
}

/// Which of the three services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Calls the two others.
    Front,
    /// Gives Redis two commands.
    Cache,
    /// Asks PostgreSQL once and Redis once.
    Store,
}

/// What all services of a case are told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub(super) ports: Ports,
    pub(super) seed: u32,
    pub(super) think_us: u32,
    /// Whether S1 calls S2 and S3 at the same time.
    pub(super) parallel: bool,
}

impl Role {
    pub(super) const ALL: [Self; 3] = [Self::Store, Self::Cache, Self::Front];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Front => "s1",
            Self::Cache => "s2",
            Self::Store => "s3",
        }
    }

    pub(super) fn port(self, ports: &Ports) -> u16 {
        match self {
            Self::Front => ports.front,
            Self::Cache => ports.cache,
            Self::Store => ports.store,
        }
    }

    fn environment(self, order: &Order) -> Vec<(&'static str, String)> {
        let Order { ports, seed, think_us, parallel } = order;
        let upstreams = format!("{},{}", ports.proxy.unwrap_or(ports.cache), ports.store);
        vec![
            ("LAB_ROLE", self.name().to_owned()),
            ("LAB_PORT", self.port(ports).to_string()),
            ("LAB_UPSTREAMS", upstreams),
            ("LAB_REDIS", ports.redis.to_string()),
            ("LAB_POSTGRESQL", ports.postgresql.to_string()),
            ("LAB_SEED", seed.to_string()),
            ("LAB_THINK_US", think_us.to_string()),
            ("LAB_PARALLEL", u8::from(*parallel).to_string()),
            ("LAB_WORKERS", WORKERS.to_string()),
        ]
    }
}

impl Program {
    /// Compiles what has to be; gives where the product is. `kept` outlives the run.
    pub(super) fn prepare(self, kept: &Path, folder: &Path) -> Result<PathBuf> {
        let write = |name: &str, text: &str| -> Result<PathBuf> {
            let file = folder.join(name);
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
            Ok(file)
        };
        match self {
            Self::PythonThreads => write("threads.py", include_str!("apps/threads.py")),
            Self::PythonAsyncio | Self::PythonFastapi => write("coroutines.py", include_str!("apps/coroutines.py")),
            Self::Node => write("events.js", include_str!("apps/events.js")),
            Self::Java => java(kept, folder),
            Self::Go => {
                let (source, product) = (write("lab.go", include_str!("apps/lab.go"))?, folder.join("lab-go"));
                let mut go = Command::new(tool("go")?);
                go.args(["build", "-o"]).arg(&product).arg(source);
                go.current_dir(folder)
                    .env("GO111MODULE", "off")
                    .env("GOCACHE", kept.join("go"))
                    .env("GOPATH", kept.join("gopath"));
                shell::output(&mut go)?;
                Ok(product)
            }
            Self::RustTokio => rust("seismo-lab-tokio"),
            Self::RustQueue => rust("seismo-lab-queue"),
        }
    }

    /// The command of one service; its process has the service's name as far as the language lets it.
    pub(super) fn command(self, product: &Path, folder: &Path, role: Role, order: &Order) -> Result<Command> {
        let own = |suffix: &str| -> Result<PathBuf> {
            let file = folder.join(format!("{}{suffix}", role.name()));
            // A program that still runs under this name cannot be written over.
            let _ = fs::remove_file(&file);
            fs::copy(product, &file).with_context(|| format!("cannot write {}", file.display()))?;
            Ok(file)
        };
        let mut command = match self {
            Self::PythonThreads | Self::PythonAsyncio | Self::PythonFastapi => {
                let mut command = Command::new(PYTHON);
                command.arg(own(".py")?).env("PYTHONDONTWRITEBYTECODE", "1");
                command
            }
            Self::Node => {
                let mut command = Command::new(tool("node")?);
                command.arg(own(".js")?);
                command
            }
            Self::Java => {
                let mut command = Command::new(tool("java")?);
                command.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]).arg(product);
                command.args(["-Dsun.net.httpserver.maxIdleConnections=500", "-Dsun.net.httpserver.nodelay=true"]);
                command.arg("-Djava.net.preferIPv4Stack=true");
                command.arg(role.name().to_uppercase());
                command
            }
            Self::Go | Self::RustTokio | Self::RustQueue => Command::new(own("")?),
        };
        command.envs(role.environment(order)).current_dir(folder);
        if self == Self::PythonFastapi {
            command.env("LAB_SERVER", "uvicorn");
        }
        Ok(command)
    }
}

fn tool(name: &str) -> Result<PathBuf> {
    workspace::program(name).with_context(|| format!("no {name} here: run `cargo xtask setup --accuracy`"))
}

/// The folder of the classes.
fn java(kept: &Path, folder: &Path) -> Result<PathBuf> {
    let classes = kept.join("java");
    let sources = folder.join("java");
    fs::create_dir_all(&sources)?;
    let mut files = vec![sources.join("Lab.java")];
    fs::write(sources.join("Lab.java"), include_str!("apps/Lab.java"))?;
    for role in Role::ALL {
        let name = role.name().to_uppercase();
        let file = sources.join(format!("{name}.java"));
        let body = "public static void main(String[] arguments) throws Exception { Lab.main(arguments); }";
        fs::write(&file, format!("public class {name} {{ {body} }}\n"))?;
        files.push(file);
    }
    shell::output(Command::new(tool("javac")?).arg("-d").arg(&classes).args(files))?;
    Ok(classes)
}

/// One of the test applications of this workspace, which [`build`] has made.
fn rust(name: &str) -> Result<PathBuf> {
    let product = workspace::target().join("debug").join(name);
    if !product.is_file() {
        bail!("no {}: `cargo build --package seismo-lab`", product.display());
    }
    Ok(product)
}

/// Compiles those applications that are Rust, as the user who works on them.
pub(super) fn build() -> Result<()> {
    shell::run(workspace::cargo().args(["build", "--quiet", "--package", "seismo-lab"]))
}
