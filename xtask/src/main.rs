//! `cargo xtask`: Seismo's build, test and measurement commands. This file only dispatches; one file per command.
//!
//! Results go to standard output, progress to standard error. Exit codes: 0 done, 1 failed, 2 wrong usage.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod accuracy;
mod bench;
mod build;
mod check;
mod demo;
mod generate;
mod run;
mod setup;
mod shell;
mod test;
mod tidy;
mod verify;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Seismo's build, test and measurement commands")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(setup::Arguments),
    Build(build::Arguments),
    Run(run::Arguments),
    Test(test::Arguments),
    Check(check::Arguments),
    Tidy(tidy::Arguments),
    Verify(verify::Arguments),
    Vm(vm::Arguments),
    Gen(generate::Arguments),
    Bench(bench::Arguments),
    Accuracy(accuracy::Arguments),
    Demo(demo::Arguments),
    /// A service of the demo's workload; the demo starts these itself.
    #[command(hide = true)]
    DemoService(demo::service::Arguments),
    /// The load generator of the accuracy lab, which starts it itself.
    #[command(hide = true)]
    AccuracyLoad(accuracy::load::Arguments),
    /// The first process of a virtual machine.
    #[command(hide = true)]
    VmInit(vm::init::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Setup(arguments) => setup::command(&arguments),
        Command::Build(arguments) => build::command(&arguments),
        Command::Run(arguments) => run::command(&arguments),
        Command::Test(arguments) => test::command(&arguments),
        Command::Check(arguments) => check::command(&arguments),
        Command::Tidy(arguments) => tidy::command(&arguments),
        Command::Verify(arguments) => verify::command(&arguments),
        Command::Vm(arguments) => vm::command(&arguments),
        Command::Gen(arguments) => generate::command(&arguments),
        Command::Bench(arguments) => bench::command(&arguments),
        Command::Accuracy(arguments) => accuracy::command(&arguments),
        Command::AccuracyLoad(arguments) => accuracy::load::command(&arguments),
        Command::Demo(arguments) => demo::command(&arguments),
        Command::DemoService(arguments) => demo::service::command(&arguments),
        Command::VmInit(arguments) => vm::init::command(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
