//! `seismo scope`: whose payload a running agent may read, shown or replaced.
//!
//! A change lasts until the next one, or until SIGHUP or a restart brings back what the configuration says.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::json;

use super::client::AgentArguments;
use crate::config::scope::{Scope, ScopeItem};

const PATH: &str = "/api/seismo/scope";

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    agent: AgentArguments,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show it: one include or exclude a line.
    Show,
    /// Replace it as a whole, at once, until SIGHUP or a restart. For root, and for the user that runs the agent.
    Set {
        /// pid=N, cgroup=PATH, exe=GLOB, port=N, netns=PATH or all; none: no payload is read any more.
        include: Vec<ScopeItem>,
        /// Left out even when included; the same forms.
        #[arg(long, value_name = "ITEM")]
        exclude: Vec<ScopeItem>,
    },
}

/// What the agent answers to a change.
#[derive(Debug, Deserialize)]
struct Changed {
    scope: Scope,
    adopted: usize,
}

pub fn command(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    match &arguments.command {
        None | Some(Command::Show) => write(&mut out, &arguments.agent.json(PATH)?)?,
        Some(Command::Set { include, exclude }) => {
            let wanted = json!({ "include": include, "exclude": exclude });
            let changed: Changed = arguments.agent.put(PATH, &wanted)?;
            write(&mut out, &changed.scope)?;
            writeln!(out, "{} open connections taken up", changed.adopted)?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn write(out: &mut dyn io::Write, scope: &Scope) -> io::Result<()> {
    if scope.include.is_empty() {
        writeln!(out, "nothing is in scope: no payload is read")?;
    }
    for (word, items) in [("include", &scope.include), ("exclude", &scope.exclude)] {
        for item in items {
            writeln!(out, "{word} {item}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Scope, write};

    #[test]
    fn a_scope_is_shown_item_by_item_and_an_empty_one_says_what_that_means() {
        let shown = |scope: &Scope| {
            let mut out = Vec::new();
            write(&mut out, scope).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(shown(&Scope::default()), "nothing is in scope: no payload is read\n");
        let include = ["port=80", "exe=nginx"].map(|item| item.parse().unwrap()).to_vec();
        let scope = Scope { include, exclude: vec!["pid=7".parse().unwrap()] };
        assert_eq!(shown(&scope), "include port=80\ninclude exe=nginx\nexclude pid=7\n");
    }
}
