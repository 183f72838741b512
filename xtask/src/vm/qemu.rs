//! Starts a kernel with a root file system in QEMU and reads its report.
//!
//! Always emulated, never KVM: the same everywhere, and no second guest's hardware is needed. No disk, no network, no
//! modules; its times mean nothing. The console goes to a file whose end is shown when the machine dies.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::init::MARK;
use super::kernels::{Kernel, numbers};
use super::report::Event;
use crate::{shell, workspace};

/// Lines of the console that are shown of a machine that died.
const CONSOLE_LINES: usize = 30;
const MEMORY: &str = "3G";

/// Boots `kernel`, gives each event of the report to `each`, and waits until the machine is off.
/// Fails when the report has no end: the machine crashed, or said nothing for `silence`.
pub fn run(kernel: &Kernel, initramfs: &Path, silence: Duration, each: &mut dyn FnMut(Event)) -> Result<()> {
    let console = initramfs.with_extension("console");
    let mut command = command(kernel, initramfs, &console)?;
    let shown = shell::line(&command);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut machine = Machine { child: child.with_context(|| format!("cannot start {shown}"))?, console };
    let (sender, lines) = mpsc::channel();
    let report = machine.child.stdout.take().context("no report to read")?;
    thread::spawn(move || {
        for line in BufReader::new(report).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            if sender.send(line).is_err() {
                break;
            }
        }
    });

    loop {
        match lines.recv_timeout(silence) {
            Ok(line) => match Event::parse(&line) {
                Some(Event::Done) => break,
                Some(event) => each(event),
                None => each(Event::Trouble(format!("not a line of a report: {line}"))),
            },
            Err(RecvTimeoutError::Timeout) => {
                bail!("the machine said nothing for {} s; {}", silence.as_secs(), machine.console())
            }
            Err(RecvTimeoutError::Disconnected) => {
                bail!("the machine ended without a status; {}", machine.console())
            }
        }
    }
    machine.off()
}

/// A machine that is running; ended when dropped.
struct Machine {
    child: Child,
    console: PathBuf,
}

impl Machine {
    /// The last lines of the kernel's console, and what QEMU said itself.
    fn console(&mut self) -> String {
        // After this its standard error has an end.
        drop(self.child.kill());
        let mut said = String::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            drop(std::io::Read::read_to_string(&mut pipe, &mut said));
        }
        let text = fs::read(&self.console).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("\n");
        format!("the end of its console:\n{tail}\n{said}")
    }

    /// After its report a machine has nothing left to do but to switch itself off.
    fn off(mut self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(20);
        while self.child.try_wait()?.is_none() {
            if Instant::now() > end {
                bail!("the machine did not switch itself off; {}", self.console());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself, which is all that is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn command(kernel: &Kernel, initramfs: &Path, console: &Path) -> Result<Command> {
    let qemu = workspace::program("qemu-system-x86_64")
        .context("QEMU is not installed: run `cargo xtask setup --test` (Debian's package qemu-system-x86)")?;
    let mut command = Command::new(qemu);
    command
        // One thread for both processors: with one each, an instruction that the kernel patches while the other processor runs
        // it (a tracepoint switched on) was seen half patched, and the machine panicked.
        .args(["-accel", "tcg,thread=single", "-cpu", cpu(kernel), "-smp", "2", "-m", MEMORY])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        // A panic reboots at once, and `-no-reboot` makes that the end.
        .args(["-append", &format!("console=ttyS0 panic=-1 rdinit=/init {MARK} -- vm-init")])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .args(["-serial", "stdio"]);
    Ok(command)
}

/// Kernels up to 6.12 without `cmpxchg16b`: their allocator uses it all the time, and an emulator that cannot use the
/// host's stops all processors for each. To boot and load took 6.12 10.0 s with it and 8.9 s without, 7.3 9.9 s with it
/// and 13.5 s without (one run each).
fn cpu(kernel: &Kernel) -> &'static str {
    if numbers(&kernel.release) < vec![6, 13] { "max,cx16=off" } else { "max" }
}
