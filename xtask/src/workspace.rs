//! Where things are: the source tree, its build products, cargo and its folder of installed programs.
//!
//! Everything is found from the environment cargo gives us; nothing is created here.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// How the agent is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    Dev,
    Release,
}

impl Profile {
    /// Name of the profile's folder among the build products.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

/// The root of the source tree: cargo says which, also where two trees share a folder of build products.
pub fn root() -> PathBuf {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    manifest.parent().unwrap_or(&manifest).to_path_buf()
}

/// The folder of build products.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |folder| root().join(folder))
}

/// The agent's executable, which may not be built yet.
pub fn agent(profile: Profile) -> PathBuf {
    target().join(profile.folder()).join("seismo")
}

/// The cargo that started us, in the source tree, able to find the programs cargo installed.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()).env("PATH", search_path());
    cargo
}

/// `PATH`, then the folder of `cargo install`, which a distribution's cargo does not add.
fn search_path() -> std::ffi::OsString {
    let mut folders: Vec<PathBuf> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    folders.extend(cargo_home().map(|home| home.join("bin")));
    env::join_paths(folders).unwrap_or_default()
}

/// Cargo's own folder.
pub fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")))
}

/// A program by name, as the shell (or root's shell) would find it.
pub fn program(name: &str) -> Option<PathBuf> {
    let paths = search_path();
    env::split_paths(&paths)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Whether this process may do what root may.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// A command that runs `program` as root: itself, or through sudo, which keeps the variables in `keep`.
pub fn as_root(program: &Path, keep: &[&str]) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    let mut sudo = Command::new(self::program("sudo").context("this needs root: run it as root or install sudo")?);
    if !keep.is_empty() {
        sudo.arg(format!("--preserve-env={}", keep.join(",")));
    }
    sudo.arg(program);
    Ok(sudo)
}
