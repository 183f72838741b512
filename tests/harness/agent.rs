//! A handle on a running agent: started scoped to the test's control group, asked over HTTP and by its own
//! command line, stopped in order and never left behind.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::exposition::Page;
use crate::process::{self, Process};
use crate::rig::{Rig, free_port};
use crate::spans::Span;
use crate::{http, programs, wait};

/// Loading and verifying all programs on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);
/// The promise: SIGTERM drains and exits within two seconds.
pub const STOP_LIMIT: Duration = Duration::from_secs(2);
/// A value that has not moved for this long has arrived: several drain and scrape periods.
const STILL: Duration = Duration::from_secs(1);
const ARRIVAL_LIMIT: Duration = Duration::from_secs(20);

/// How an agent is to be started.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// What runs the agent (`setpriv …`).
    pub through: Vec<OsString>,
    /// Another executable than the one under test, such as a copy that another user can run.
    pub program: Option<PathBuf>,
    /// `--scope` values; the test's control group when empty.
    pub scopes: Vec<String>,
    pub config: Option<String>,
    pub rules: Option<String>,
}

impl Launch {
    /// The command, with its configuration written to files of the test.
    pub fn command(&self, rig: &Rig, port: u16) -> Result<Command> {
        let program = self.program.clone().map_or_else(programs::seismo, Ok)?;
        let words: Vec<OsString> = self.through.iter().cloned().chain([program.into_os_string()]).collect();
        let (first, rest) = words.split_first().context("no program")?;
        let mut command = Command::new(first);
        command.args(rest).args(["run", "--listen", &format!("127.0.0.1:{port}")]);
        let own = vec![format!("cgroup={}", rig.cgroup().path().display())];
        for scope in if self.scopes.is_empty() { &own } else { &self.scopes } {
            command.args(["--scope", scope]);
        }
        if let Some(text) = &self.config {
            command.arg("--config").arg(rig.file("seismo.yaml", text)?);
        }
        if let Some(text) = &self.rules {
            command.arg("--rules").arg(rig.file("rules.yaml", text)?);
        }
        Ok(command)
    }
}

#[derive(Debug)]
pub struct Agent<'a> {
    rig: &'a Rig,
    pub process: Process,
    pub port: u16,
}

impl<'a> Agent<'a> {
    /// Starts with defaults, scoped to the test's control group, and waits until it is ready.
    pub fn start(rig: &'a Rig) -> Result<Self> {
        Self::launch(rig, &Launch::default())
    }

    pub fn launch(rig: &'a Rig, launch: &Launch) -> Result<Self> {
        let port = free_port()?;
        let mut process = rig.outside(&format!("seismo-{port}"), launch.command(rig, port)?)?;
        process.await_ready(START_LIMIT, || http::get(port, "/readyz").is_ok_and(|answer| answer.status == 200))?;
        Ok(Self { rig, process, port })
    }

    pub fn page(&self) -> Result<Page> {
        Page::parse(&http::get(self.port, "/metrics")?.ok()?)
    }

    pub fn json(&self, path: &str) -> Result<Value> {
        http::get(self.port, path)?.json()
    }

    /// What a command of the agent's own prints about this agent (`spans --json`).
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(programs::seismo()?);
        command.args(arguments).env("SEISMO_AGENT", format!("http://127.0.0.1:{}", self.port));
        let (status, out, err) = process::output(command, self.rig.dir(), "ask", Duration::from_secs(20))?;
        ensure!(status.success(), "seismo {arguments:?}: {}: {err}", process::describe(status));
        Ok(out)
    }

    /// All spans that it holds.
    pub fn spans(&self) -> Result<Vec<Span>> {
        let text = self.ask(&["spans", "--json", "--limit", "1000000"])?;
        text.lines().map(Span::parse).collect()
    }

    /// Reads a number of the page until it is what the other side says, or stands still at something else.
    pub fn settled<T: PartialEq>(&self, expected: &T, read: impl Fn(&Page) -> T) -> Result<T> {
        wait::settled(expected, ARRIVAL_LIMIT, STILL, || Ok(read(&self.page()?)))
    }

    /// Reads a number of the page until it stands still.
    pub fn still<T: PartialEq>(&self, read: impl Fn(&Page) -> T) -> Result<T> {
        let now = read(&self.page()?);
        wait::stood_still(now, ARRIVAL_LIMIT, STILL, || Ok(read(&self.page()?)))
    }

    /// All spans, once no more come.
    pub fn still_spans(&self) -> Result<Vec<Span>> {
        let count = || Ok(self.spans()?.len());
        wait::stood_still(count()?, ARRIVAL_LIMIT, STILL, count)?;
        self.spans()
    }

    /// The first page that is as wanted: what is under way between two stages is under way for a while only.
    pub fn page_where(&self, what: &str, wanted: impl Fn(&Page) -> bool) -> Result<Page> {
        wait::until(what, ARRIVAL_LIMIT, || Ok(Some(self.page()?).filter(|page| wanted(page))))
    }

    /// Waits until a number of the page reaches `least`, and returns it.
    pub fn reaches(&self, what: &str, least: f64, read: impl Fn(&Page) -> f64) -> Result<f64> {
        let mut last = f64::NAN;
        let arrived = wait::until(what, ARRIVAL_LIMIT, || {
            last = read(&self.page()?);
            Ok((last >= least).then_some(last))
        });
        arrived.with_context(|| format!("{what}: {last} where at least {least} was expected"))
    }

    /// Waits until `count` spans satisfy `wanted`.
    pub fn awaited_spans(&self, count: usize, wanted: impl Fn(&Span) -> bool) -> Result<Vec<Span>> {
        let mut found = Vec::new();
        let arrived = wait::until("spans", ARRIVAL_LIMIT, || {
            found = self.spans()?.into_iter().filter(&wanted).collect::<Vec<_>>();
            Ok((found.len() >= count).then_some(()))
        });
        arrived.with_context(|| format!("{} spans where {count} were expected", found.len()))?;
        Ok(found)
    }

    /// Fails if any record was lost anywhere.
    pub fn nothing_lost(&self) -> Result<()> {
        let page = self.page()?;
        ensure!(page.has("seismo_records_dropped_total"), "losses are not counted");
        let lost: Vec<_> = page.select("seismo_records_dropped_total", &[]).filter(|each| each.value != 0.0).collect();
        println!("records dropped: {lost:?}");
        ensure!(lost.is_empty(), "records were lost");
        Ok(())
    }

    /// SIGTERM; the agent must exit with 0 within [`STOP_LIMIT`].
    pub fn stop(mut self) -> Result<()> {
        self.process.signal(libc::SIGTERM);
        let (status, time) = self.process.wait(STOP_LIMIT * 5)?;
        println!("SIGTERM to exit: {:.0} ms", time.as_secs_f64() * 1e3);
        clean(status)?;
        ensure!(time <= wait::patient(STOP_LIMIT), "the agent took {time:?} to stop");
        Ok(())
    }
}

fn clean(status: ExitStatus) -> Result<()> {
    ensure!(status.success(), "the agent ended with {}", process::describe(status));
    Ok(())
}

/// Words before a command that run it as a user without any right.
pub fn nobody() -> Result<Vec<OsString>> {
    let program = programs::find("setpriv")?.into_os_string();
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups"].map(OsString::from);
    Ok([program].into_iter().chain(user).collect())
}

/// A copy of the agent that everybody may run, wherever the build lies.
pub fn program_for_all(rig: &Rig) -> Result<PathBuf> {
    let copy = rig.dir().join("seismo");
    if !copy.exists() {
        fs::copy(programs::seismo()?, &copy)?;
        fs::set_permissions(rig.dir(), fs::Permissions::from_mode(0o755))?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    }
    Ok(copy)
}
