//! The `seismo` binary: the command line to the library's entry points, and their outcome to an exit code.
//!
//! 0 done, 1 failed, 2 wrong usage or configuration. A reader that closes standard output early is no failure.

use std::process::ExitCode;

use clap::Parser as _;
use seismo::cli::{self, Cli, Command, RunArguments};
use seismo::config::Config;
use seismo::run::{self, Reload, RunOptions};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(&cli) {
        Ok(code) => code,
        Err(error) => cli::report(&error),
    }
}

fn dispatch(cli: &Cli) -> anyhow::Result<ExitCode> {
    let environment: Vec<_> = std::env::vars_os()
        .filter_map(|(name, text)| Some((name.into_string().ok()?, text.to_string_lossy().into_owned())))
        .collect();
    match &cli.command {
        Command::Run(arguments) => {
            let config = cli.start(arguments.config.as_deref(), &environment)?;
            let config = arguments.over(config);
            let options = RunOptions {
                duration: arguments.duration.map(|duration| duration.0),
                rules: arguments.rules.clone(),
                webhook: arguments.webhook.clone(),
                reload: Some(reload(arguments.clone(), environment)),
            };
            run::run(config, options)
        }
        Command::Doctor(arguments) => {
            let config = cli.start(arguments.config.as_deref(), &environment)?;
            run::doctor(&config, arguments.json)
        }
        Command::Verify { json } => {
            cli.start(None, &environment)?;
            run::verify(*json)
        }
        Command::Tap(arguments) => {
            let config = cli.start(arguments.config.as_deref(), &environment)?;
            run::tap(arguments.over(config), arguments.duration.0)
        }
        Command::Metrics { json } => run::metrics(*json),
        Command::Config(command) => cli::config::command(command, &environment),
        Command::Scope(arguments) => cli::scope::command(arguments),
        Command::Rules(command) => cli::rules::command(command, check_rules),
        Command::Link(arguments) => cli::link::command(arguments),
        Command::Probes(arguments) => cli::probes::command(arguments),
        Command::Query(arguments) => cli::query::command(arguments),
        Command::Spans(arguments) => cli::spans::command(arguments),
        Command::Trace(arguments) => cli::trace::command(arguments),
    }
}

/// For SIGHUP: the file may have changed, the command line and the environment cannot have.
fn reload(arguments: RunArguments, environment: Vec<(String, String)>) -> Reload {
    Box::new(move || Ok(arguments.over(Config::load(arguments.config.as_deref(), &environment)?)))
}

fn check_rules(files: &[String]) -> Result<String, String> {
    seismo::alerts::check(files).map(|report| report.to_string()).map_err(|error| error.to_string())
}
