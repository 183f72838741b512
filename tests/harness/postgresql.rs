//! A real PostgreSQL in the test's folder and control group, not as root, with psql and psycopg as its clients.
//!
//! TCP on a loopback port of its own, no encryption, nothing flushed to disk. Its tables `t0` to `t9` have as many rows as their
//! name says, so an answer that belongs to another statement shows.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::agent::nobody;
use crate::process::Process;
use crate::rig::{Rig, free_port};
use crate::{http, programs, wait};

const LIMIT: Duration = Duration::from_secs(60);
/// Debian keeps a folder for each version here; the programs are in no `PATH`.
const VERSIONS: &str = "/usr/lib/postgresql";
const NOBODY: u32 = 65534;
const SETTINGS: &str = "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\nssl = off\n";

#[derive(Debug)]
pub struct Postgresql {
    pub process: Process,
    pub port: u16,
}

impl Postgresql {
    /// Makes a cluster and starts its server in the test's control group.
    pub fn start(rig: &Rig) -> Result<Self> {
        let port = free_port()?;
        let cluster = rig.dir().join("postgresql");
        fs::create_dir(&cluster)?;
        fs::set_permissions(rig.dir(), fs::Permissions::from_mode(0o755))?;
        chown(&cluster, Some(NOBODY), Some(NOBODY))?;
        let mut make = unprivileged(&server_program("initdb")?)?;
        make.arg("-D").arg(&cluster).args(["-U", "shop", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]);
        rig.outside("initdb", make)?.finish(LIMIT)?;
        let mut settings = fs::OpenOptions::new().append(true).open(cluster.join("postgresql.conf"))?;
        settings.write_all(SETTINGS.as_bytes())?;
        let mut command = unprivileged(&server_program("postgres")?)?;
        command.arg("-D").arg(&cluster).args(["-p", &port.to_string()]).stdin(Stdio::null());
        let mut process = rig.inside("postgres", command)?;
        process.await_ready(LIMIT, || http::listens(port))?;
        let server = Self { process, port };
        let tables: String = (0..10)
            .map(|table| format!("CREATE TABLE t{table} AS SELECT a FROM generate_series(1, {table}) a;\n"))
            .collect();
        server.psql(rig, "tables", &tables)?;
        Ok(server)
    }

    /// Runs psql over one connection inside the control group: each statement a simple query of its own.
    pub fn psql(&self, rig: &Rig, name: &str, statements: &str) -> Result<String> {
        let mut command = Command::new(programs::find("psql")?);
        let place = format!("host=127.0.0.1 port={} user=shop dbname=postgres sslmode=disable", self.port);
        command.args(["-X", "-q", "-A", "-t", &place]).arg("-f").arg(rig.file(&format!("{name}.sql"), statements)?);
        rig.inside(&format!("psql-{name}"), command)?.finish(LIMIT)
    }

    /// Starts psycopg inside the control group: what it does and how often. It goes on when its input says so.
    pub fn client(&self, rig: &Rig, what: &str, rounds: usize) -> Result<Client> {
        let mut command = Command::new(programs::PYTHON);
        command.arg(rig.file("postgresql_client.py", include_str!("scripts/postgresql_client.py"))?);
        command.args([&self.port.to_string(), what, &rounds.to_string()]).stdin(Stdio::piped());
        Ok(Client { process: rig.inside(&format!("psycopg-{what}"), command)? })
    }
}

/// psycopg on its way.
#[derive(Debug)]
pub struct Client {
    pub process: Process,
}

impl Client {
    /// Waits until it says that it is ready.
    pub fn ready(&self) -> Result<()> {
        wait::until("a client that is ready", LIMIT, || Ok(self.process.out().contains("ready\n").then_some(())))
    }

    /// Lets it go on, and waits for its end.
    pub fn finish(&mut self) -> Result<()> {
        writeln!(self.process.input()?)?;
        self.process.finish(LIMIT).map(drop)
    }
}

fn server_program(name: &str) -> Result<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(VERSIONS)
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin").join(name))
        .filter(|file| file.is_file())
        .collect();
    found.sort();
    found.pop().with_context(|| format!("the test needs PostgreSQL's '{name}': run `cargo xtask setup --test`"))
}

/// The server refuses to run as root.
fn unprivileged(program: &Path) -> Result<Command> {
    let words: Vec<OsString> = nobody()?;
    let (first, rest) = words.split_first().context("no program")?;
    let mut command = Command::new(first);
    command.args(rest).arg(program).env("HOME", "/");
    Ok(command)
}
