//! Builds the kernel programs (`agent-ebpf`) into `OUT_DIR/seismo-ebpf`, which the loader embeds.
//!
//! A second cargo runs on the bpf target with its own target directory and a cleaned environment, so neither
//! clippy's wrapper nor the user's `RUSTFLAGS` reach kernel code. DWARF is dropped, BTF stays.
//! Costs about 20 s cold and nothing while sources are unchanged. It installs nothing: `cargo xtask setup` does.

use std::env;
use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use object::build::elf::{Builder, SectionData};
use object::elf::SHT_STRTAB;

/// The linker's only version whose LLVM is the one of our compiler; `cargo xtask setup` installs it.
const LINKER: &str = "bpf-linker";
const TARGET: &str = "bpfel-unknown-none";
const PACKAGE: &str = "seismo-ebpf";
/// What the object is made of, from the workspace's root.
const INPUTS: [&str; 7] = [
    "agent/build.rs",
    "agent-common/Cargo.toml",
    "agent-common/src",
    "agent-ebpf/Cargo.toml",
    "agent-ebpf/src",
    "Cargo.lock",
    "Cargo.toml",
];

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    if let Err(error) = require_tools() {
        // Alone, this line fails the build without the noise of a failed script.
        println!("cargo::error={error}");
        return ExitCode::SUCCESS;
    }
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<()> {
    let manifest = path("CARGO_MANIFEST_DIR")?;
    let root = manifest.parent().ok_or("the agent's folder has no parent")?;
    for input in INPUTS {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }

    let out = path("OUT_DIR")?;
    let target_dir = out.join("ebpf");
    let mut cargo = Command::new(env::var_os("CARGO").ok_or("CARGO is not set")?);
    cargo
        .current_dir(root)
        .args(["build", "--release", "--package", PACKAGE, "--target", TARGET, "-Z", "build-std=core", "--target-dir"])
        .arg(&target_dir)
        .stdin(Stdio::null());
    if env::var_os("CARGO_FEATURE_KERNEL_LOG").is_some() {
        cargo.args(["--features", "kernel-log"]);
    }
    clean(&mut cargo);
    if !cargo.status()?.success() {
        return Err("the kernel programs did not compile; the compiler says why above".into());
    }
    let object = fs::read(target_dir.join(TARGET).join("release").join(PACKAGE))?;
    fs::write(out.join(PACKAGE), strip(&object)?)?;
    Ok(())
}

/// What cannot be built without, told in one line before cargo tells it in twenty.
fn require_tools() -> Result<()> {
    let paths = env::var_os("PATH").unwrap_or_default();
    if !env::split_paths(&paths).any(|folder| folder.join(LINKER).is_file()) {
        return Err(format!("{LINKER} is not installed: run `cargo xtask setup`").into());
    }
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let printed = Command::new(rustc).args(["--print", "sysroot"]).output()?;
    let sysroot = PathBuf::from(String::from_utf8(printed.stdout)?.trim());
    let core = sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml");
    if !core.is_file() {
        return Err("the source of Rust's `core` library is not installed: run `cargo xtask setup`".into());
    }
    Ok(())
}

/// The kernel crate's own compiler settings and none of those meant for the agent.
fn clean(cargo: &mut Command) {
    for (name, _) in env::vars_os() {
        if !reaches_kernel_build(&name) {
            cargo.env_remove(name);
        }
    }
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let arch = format!("--cfg=bpf_target_arch=\"{arch}\"");
    // Of the second instruction set, which has comparisons for less-than (4.14), programs have fewer branches and instructions;
    // with the third's numbers of 32 bits (5.1) they were not faster.
    let flags = [&arch, "-Cdebuginfo=2", "-Clink-arg=--btf", "-Ctarget-cpu=v2"].join("\x1f");
    cargo
        // `-Z build-std` on a stable compiler: the target has no prebuilt `core`.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        // bpf-linker does the whole-program step itself, on bitcode.
        .env("CARGO_PROFILE_RELEASE_LTO", "off");
}

/// Of cargo's variables only those that say where things are and how many jobs may run.
fn reaches_kernel_build(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return true };
    match name {
        "RUSTC" | "RUSTFLAGS" | "RUSTC_WRAPPER" | "RUSTC_WORKSPACE_WRAPPER" | "RUSTC_LINKER" | "RUSTDOC" => false,
        "CARGO_HOME" | "CARGO_MAKEFLAGS" => true,
        _ => !name.starts_with("CARGO_") || name.starts_with("CARGO_NET_") || name.starts_with("CARGO_HTTP_"),
    }
}

/// The object without DWARF: it is twenty times the size of the programs and nobody reads it at run time.
fn strip(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object)?;
    for section in &mut builder.sections {
        let name = section.name.as_slice();
        section.delete = name.starts_with(b".debug_") || name.starts_with(b".rel.debug_");
    }
    builder.delete_orphans();
    // LLVM keeps section names and symbol names in one table; the writer wants one of each.
    let names = builder.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(stripped)
}

fn path(variable: &str) -> Result<PathBuf> {
    let value = env::var_os(variable).ok_or_else(|| format!("{variable} is not set: this runs under cargo"))?;
    Ok(Path::new(&value).to_path_buf())
}
