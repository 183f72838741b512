//! The first process of a virtual machine: mounts what is expected, runs the steps, reports, switches off.
//!
//! It is this same executable, started by the kernel as `/init vm-init`. It refuses to run anywhere else, because
//! after each step it ends every process of the machine. Bounds: a step's time; nothing else is waited for.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::report::{Event, PLAN, Status, Step};
use super::watch::{self, Walked, Watch};

/// The first process of a virtual machine that `cargo xtask vm` made
#[derive(clap::Args)]
pub struct Arguments {}

/// On the kernel's command line of our machines and of no other.
pub const MARK: &str = "seismo.vm=1";
/// Modules of the kernel, all of which are loaded.
pub const MODULES: &str = "/modules";
/// The serial line of the report; the first one is the kernel's console.
const LINE: &str = "/dev/ttyS1";

/// Kind and place, in the order in which they are mounted. Those that an old kernel lacks are reported, not fatal.
const MOUNTS: &[(&str, &str)] = &[
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("bpf", "/sys/fs/bpf"),
    ("securityfs", "/sys/kernel/security"),
    ("debugfs", "/sys/kernel/debug"),
    ("tracefs", "/sys/kernel/tracing"),
];

pub fn command(_: &Arguments) -> Result<()> {
    ensure!(std::process::id() == 1, "this is only for the first process of a virtual machine");
    mount("proc", "/proc")?;
    let line = fs::read_to_string("/proc/cmdline")?;
    ensure!(line.split_whitespace().any(|word| word == MARK), "this is only for a machine made by `cargo xtask vm`");
    // From here on the whole machine is ours.
    let result = prepare().and_then(|(report, trouble)| {
        for text in trouble {
            report.send(&Event::Trouble(text));
        }
        if let Err(error) = steps(&report) {
            report.send(&Event::Trouble(format!("{error:#}")));
        }
        report.send(&Event::Done);
        report.drain()
    });
    if let Err(error) = result {
        eprintln!("seismo vm: {error:#}");
    }
    // SAFETY: takes no pointers; there is no disk to lose anything on.
    unsafe { libc::reboot(libc::RB_POWER_OFF) };
    bail!("the machine could not be switched off: {}", io::Error::last_os_error())
}

/// The report and what could not be prepared.
fn prepare() -> Result<(Report, Vec<String>)> {
    // The root itself is in memory; nothing is mounted over `/tmp`, where a build may lie that the tests know by path.
    fs::create_dir_all("/tmp").and_then(|()| fs::set_permissions("/tmp", Permissions::from_mode(0o1777)))?;
    let mut trouble = Vec::new();
    for (kind, place) in MOUNTS {
        if let Err(error) = mount(kind, place) {
            trouble.push(format!("{error:#}"));
        }
    }
    if let Err(error) = loopback_up() {
        trouble.push(format!("loopback: {error}"));
    }
    for file in fs::read_dir(MODULES).into_iter().flatten().flatten() {
        if let Err(error) = load_module(&file.path()) {
            trouble.push(format!("{error:#}"));
        }
    }
    Ok((Report::open()?, trouble))
}

fn load_module(file: &Path) -> Result<()> {
    let name = || file.display().to_string();
    let module = File::open(file).with_context(name)?;
    // SAFETY: the descriptor is open, the parameters are an empty string; there are no flags.
    let failed = unsafe { libc::syscall(libc::SYS_finit_module, module.as_raw_fd(), c"".as_ptr(), 0) } != 0;
    if failed { Err(io::Error::last_os_error()).with_context(name) } else { Ok(()) }
}

fn mount(kind: &str, place: &str) -> Result<()> {
    // A place in a kernel's own file system is there or cannot be made.
    let _made = fs::create_dir_all(place);
    let [kind_text, place_text] = [kind, place].map(|text| std::ffi::CString::new(text).unwrap_or_default());
    // SAFETY: all strings end with a zero byte and live for the call; there are no options.
    let failed =
        unsafe { libc::mount(kind_text.as_ptr(), place_text.as_ptr(), kind_text.as_ptr(), 0, std::ptr::null()) } != 0;
    if failed {
        bail!("mounting {kind} at {place}: {}", io::Error::last_os_error());
    }
    Ok(())
}

/// Sets the interface up; the kernel then gives it its addresses of both versions.
fn loopback_up() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
    // SAFETY: the struct is made of integers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the descriptor is open and the request lives for the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The serial line, written by several threads, a whole line at a time.
#[derive(Clone)]
struct Report(Arc<Mutex<File>>);

impl Report {
    fn open() -> Result<Self> {
        let line = OpenOptions::new().read(true).write(true).open(LINE).context(LINE)?;
        // SAFETY: the struct is made of integers, for which zero is a value.
        let mut mode: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open and the struct lives for the calls. Raw: bytes arrive as they were written.
        let failed = unsafe {
            let asked = libc::tcgetattr(line.as_raw_fd(), &raw mut mode);
            libc::cfmakeraw(&raw mut mode);
            libc::cfsetspeed(&raw mut mode, libc::B115200);
            asked != 0 || libc::tcsetattr(line.as_raw_fd(), libc::TCSANOW, &raw const mode) != 0
        };
        if failed {
            bail!("{LINE}: {}", io::Error::last_os_error());
        }
        Ok(Self(Arc::new(Mutex::new(line))))
    }

    fn send(&self, event: &Event) {
        let mut line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = line.write_all(format!("{}\n", event.line()).as_bytes()) {
            eprintln!("seismo vm: {LINE}: {error}");
        }
    }

    /// Waits until everything is on the line.
    fn drain(&self) -> Result<()> {
        let line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: takes an open descriptor.
        if unsafe { libc::tcdrain(line.as_raw_fd()) } != 0 {
            bail!("{LINE}: {}", io::Error::last_os_error());
        }
        Ok(())
    }
}

fn steps(report: &Report) -> Result<()> {
    let steps: Vec<Step> = serde_json::from_slice(&fs::read(PLAN).context(PLAN)?).context(PLAN)?;
    for step in steps {
        report.send(&Event::Begin(step.name.clone()));
        let status = run(&step, report).with_context(|| step.name.clone())?;
        report.send(&Event::End(status));
    }
    Ok(())
}

fn run(step: &Step, report: &Report) -> Result<Status> {
    let mut command = Command::new(&step.program);
    command.args(&step.arguments).env_clear().envs(step.environment.iter().map(|(name, text)| (name, text)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).current_dir("/tmp");
    if step.watch_verifier {
        watch::traced(&mut command);
    }
    let mut child = command.spawn().with_context(|| format!("cannot start {}", step.program))?;
    let out = child.stdout.take().map(|pipe| forward(pipe, report.clone(), Event::Out));
    let err = child.stderr.take().map(|pipe| forward(pipe, report.clone(), Event::Err));
    let status = wait(libc::pid_t::try_from(child.id())?, Duration::from_secs(step.limit_s), report)?;
    end_everything();
    if let Some(text) = step.result.as_ref().and_then(|file| fs::read_to_string(file).ok()) {
        report.send(&Event::Result(text));
    }
    for reader in [out, err].into_iter().flatten() {
        // The only thing to fail in there is a panic, which is on the console.
        drop(reader.join());
    }
    Ok(status)
}

/// Sends each line of a pipe on.
fn forward(
    pipe: impl Read + Send + 'static,
    report: Report,
    event: impl Fn(String) -> Event + Send + 'static,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            report.send(&event(String::from_utf8_lossy(&line).replace('\r', "")));
        }
    })
}

/// Waits for one process while reaping all others, as the first process must; traced ones go on after each stop.
fn wait(pid: libc::pid_t, limit: Duration, report: &Report) -> Result<Status> {
    let start = Instant::now();
    let mut watch = Watch::default();
    loop {
        let mut status = 0;
        // SAFETY: the status lives for the call.
        let ended = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) };
        if ended > 0 && libc::WIFSTOPPED(status) {
            match watch.stopped(ended, libc::WSTOPSIG(status)) {
                Ok(walked) => walked.into_iter().for_each(|Walked { program, instructions }| {
                    report.send(&Event::Walked { program, instructions });
                }),
                Err(error) => report.send(&Event::Trouble(format!("{error:#}"))),
            }
            continue;
        }
        if ended == pid {
            let status = ExitStatus::from_raw(status);
            return Ok(match (status.code(), status.signal()) {
                (Some(code), _) => Status::Exit(code),
                (None, signal) => Status::Signal(signal.unwrap_or(0)),
            });
        }
        if ended < 0 {
            bail!("waiting: {}", io::Error::last_os_error());
        }
        if ended == 0 {
            if start.elapsed() > limit {
                return Ok(Status::Late);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Ends every other process and reaps it, so that the next step finds the machine as the first one did.
fn end_everything() {
    // SAFETY: takes no pointers. We are the first process of a machine of our own (see `command`): there is no
    // process in it that we did not start.
    unsafe { libc::kill(-1, libc::SIGKILL) };
    let mut status = 0;
    // SAFETY: the status lives for the call; it ends when no child is left.
    while unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) } > 0 {}
}
