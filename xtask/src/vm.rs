//! `cargo xtask vm`: the kernel matrix. Boots each kernel in QEMU, loads every program there, runs the kernel tests.
//!
//! Needs no root, no KVM and nothing of the host's kernel. Kernels are Debian's, fetched once; programs and tests are
//! this machine's build. Prints what each kernel said; `--save` keeps it in `docs/`. About … s a kernel.

pub mod init;
mod initramfs;
mod kernels;
mod qemu;
mod report;

use std::time::Duration;

use anyhow::Result;

use crate::build;
use crate::setup::{self, Purpose};
use crate::workspace::{self, Profile};
use initramfs::Initramfs;
use report::Step;

/// Boot other kernels in QEMU: load every program, run the kernel tests
#[derive(clap::Args)]
pub struct Arguments {
    /// 5.10, 6.1, 6.12, 7, all, or the path of a kernel (bzImage)
    #[arg(long, value_delimiter = ',', default_value = "all")]
    kernel: Vec<String>,
}

pub fn command(arguments: &Arguments) -> Result<()> {
    setup::setup(Purpose::Build)?;
    let kernels = kernels::find(&arguments.kernel)?;
    build::agent(Profile::Dev, &[])?;
    let mut archive = Initramfs::new();
    archive.program(&std::env::current_exe()?, "/init".as_ref())?;
    archive.program(&workspace::agent(Profile::Dev), "/bin/seismo".as_ref())?;
    let steps = vec![Step {
        name: "verify".into(),
        program: "/bin/seismo".into(),
        arguments: vec!["verify".into()],
        environment: vec![],
        limit_s: 60,
        watch_verifier: false,
    }];
    archive.file(report::PLAN, serde_json::to_vec(&steps)?);
    let file = workspace::target().join("vm/initramfs");
    archive.write(&file)?;
    for kernel in &kernels {
        println!("{kernel:?}");
        let t = std::time::Instant::now();
        qemu::run(kernel, &file, Duration::from_secs(120), &mut |event| {
            println!("{:5.1} {event:?}", t.elapsed().as_secs_f64())
        })?;
        println!("{:.1}", t.elapsed().as_secs_f64());
    }
    Ok(())
}
