//! `cargo xtask build`: the agent with its kernel programs, after finding or installing what that needs.

use anyhow::Result;

use crate::setup::{self, Purpose};
use crate::shell;
use crate::workspace::{self, Profile};

/// Build the agent and its kernel programs
#[derive(clap::Args)]
pub struct Arguments {
    /// Optimised, as it is shipped
    #[arg(long)]
    release: bool,
    /// Cargo features, comma-separated (kernel-log)
    #[arg(long, value_delimiter = ',')]
    features: Vec<String>,
}

pub fn command(arguments: &Arguments) -> Result<()> {
    setup::setup(Purpose::Build)?;
    let profile = if arguments.release { Profile::Release } else { Profile::Dev };
    agent(profile, &arguments.features)?;
    println!("{}", workspace::agent(profile).display());
    Ok(())
}

/// Compiles the agent; cargo shows its own progress.
pub fn agent(profile: Profile, features: &[String]) -> Result<()> {
    let mut cargo = workspace::cargo();
    // Not `--package`: with the same selection of crates as `cargo test`, nothing is compiled twice.
    cargo.args(["build", "--bin", "seismo"]);
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    for feature in features {
        cargo.arg("--features").arg(format!("seismo/{feature}"));
    }
    shell::run(&mut cargo)
}
