//! The real servers and clients that the tests run: programs by name, and the Debian package that has each.
//!
//! A program that is already there is used, wherever it came from. Missing ones are installed in one go;
//! no service is started or enabled by that (see `install-packages.sh`).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{shell, workspace};

/// How to see that a package's purpose is served.
pub(super) enum Evidence {
    Program(&'static str),
    /// A module of the distribution's own Python, the one the tests run.
    PythonModule(&'static str),
    /// libpython of the distribution's own Python.
    PythonLibrary,
    /// `postgres` of any version: it is in no `PATH`.
    PostgresqlServer,
}

use Evidence::{PostgresqlServer, Program, PythonLibrary, PythonModule};

/// A Debian package, and how to see that it is there.
pub(super) type Package = (&'static str, Evidence);

/// The one list of what tests need from Debian.
pub(super) const FOR_TESTS: &[Package] = &[
    ("crun", Program("crun")),
    ("curl", Program("curl")),
    ("default-jdk-headless", Program("javac")),
    ("dnsmasq-base", Program("dnsmasq")),
    ("fio", Program("fio")),
    ("golang-go", Program("go")),
    ("haproxy", Program("haproxy")),
    ("iproute2", Program("ip")),
    ("libpython3-dev", PythonLibrary),
    ("nftables", Program("nft")),
    ("nginx", Program("nginx")),
    ("nodejs", Program("node")),
    ("openssl", Program("openssl")),
    ("podman", Program("podman")),
    ("postgresql", PostgresqlServer),
    ("postgresql-client", Program("psql")),
    ("prometheus", Program("prometheus")),
    ("prometheus", Program("promtool")),
    ("python3-pip", PythonModule("pip")),
    ("python3-psycopg", PythonModule("psycopg")),
    ("python3-redis", PythonModule("redis")),
    ("python3-requests", PythonModule("requests")),
    // Other kernels than this machine's, for `cargo xtask vm`.
    ("qemu-system-x86", Program("qemu-system-x86_64")),
    ("redis-server", Program("redis-server")),
    ("redis-tools", Program("redis-cli")),
    // Where control groups of both versions are mounted, crun cannot work.
    ("runc", Program("runc")),
    ("socat", Program("socat")),
    ("strace", Program("strace")),
    ("systemd", Program("systemd-analyze")),
    ("wrk", Program("wrk")),
    ("xz-utils", Program("xz")),
];

/// What the accuracy lab runs beyond [`FOR_TESTS`]: runtimes that plain tests can do without.
pub(super) const FOR_ACCURACY: &[Package] = &[
    ("gunicorn", PythonModule("gunicorn")),
    ("python3-aiohttp", PythonModule("aiohttp")),
    ("python3-fastapi", PythonModule("fastapi")),
    ("python3-flask", PythonModule("flask")),
    ("python3-uvicorn", PythonModule("uvicorn")),
];

/// What `cargo xtask bench` runs, and the tools that it measures beside the agent.
pub(super) const FOR_MEASURING: &[Package] = &[
    ("bpftrace", Program("bpftrace")),
    ("libbpf-tools", Program("syscount")),
    ("nginx", Program("nginx")),
    ("wrk", Program("wrk")),
];

pub(super) const PYTHON: &str = "/usr/bin/python3";
/// Where Debian keeps a folder for each version.
const POSTGRESQL: &str = "/usr/lib/postgresql";
const SCRIPT: &str = include_str!("install-packages.sh");

impl Evidence {
    fn holds(&self) -> bool {
        match self {
            Program(name) => workspace::program(name).is_some(),
            PostgresqlServer => std::fs::read_dir(POSTGRESQL)
                .into_iter()
                .flatten()
                .flatten()
                .any(|version| version.path().join("bin/postgres").is_file()),
            PythonModule(name) => {
                python(&format!("import importlib.util as u, sys; sys.exit(u.find_spec('{name}') is None)"))
            }
            PythonLibrary => python(
                "import ctypes, sysconfig; ctypes.CDLL('libpython' + sysconfig.get_python_version() + '.so.1.0')",
            ),
        }
    }
}

/// Whether the distribution's Python gets through it.
fn python(program: &str) -> bool {
    shell::output(Command::new(PYTHON).args(["-c", program])).is_ok()
}

fn missing(packages: &[Package]) -> Vec<&'static str> {
    let mut packages: Vec<_> =
        packages.iter().filter(|(_, evidence)| !evidence.holds()).map(|(package, _)| *package).collect();
    packages.dedup();
    packages
}

pub(super) fn find(packages: &[Package]) -> Result<Option<String>> {
    let mut names: Vec<_> = packages.iter().map(|(package, _)| *package).collect();
    names.dedup();
    Ok(missing(packages).is_empty().then(|| names.join(", ")))
}

pub(super) fn install(packages: &[Package]) -> Result<String> {
    let wanted = missing(packages);
    let list = wanted.join(" ");
    if workspace::program("apt-get").is_none() {
        bail!("no apt-get here; install with your package manager what Debian calls: {list}");
    }
    let mut script = workspace::as_root(Path::new("sh"), &[])?;
    script.args(["-c", SCRIPT, "install-packages"]).args(&wanted);
    shell::watched(&format!("installing {list}"), &mut script, Duration::from_secs(900))
        .with_context(|| format!("cannot install {list}; `apt-get install {list}` may tell more"))?;
    let still = missing(packages);
    if !still.is_empty() {
        bail!("installed {list}, but cannot find what these should bring: {}", still.join(" "));
    }
    Ok(list)
}
