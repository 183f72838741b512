//! Work whose account the scheduler keeps: one kind of wait at a time, a processor shared by two, and time spent in the
//! program and in the kernel. Prints what this process's own clocks and the kernel's files say of it.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Length of one wait.
const STEP: Duration = Duration::from_millis(10);
const BLOCK: usize = 4096;

/// Waits for `kind` again and again for so long; prints the time that it was not on a CPU meanwhile, ns.
pub fn rest(kind: &str, millis: u64) -> Result<()> {
    let end = Duration::from_millis(millis);
    let (kind, argument) = kind.split_once('=').unwrap_or((kind, ""));
    let mut wait: Box<dyn FnMut() -> Result<()>> = match kind {
        "sleep" => Box::new(|| {
            std::thread::sleep(STEP);
            Ok(())
        }),
        "futex" => {
            let (mutex, never) = (Mutex::new(()), Condvar::new());
            Box::new(move || {
                let held = mutex.lock().unwrap_or_else(PoisonError::into_inner);
                drop(never.wait_timeout(held, STEP).unwrap_or_else(PoisonError::into_inner));
                Ok(())
            })
        }
        "network" => {
            let listener = TcpListener::bind(("127.0.0.1", 0))?;
            let silent = TcpStream::connect(listener.local_addr()?)?;
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(STEP))?;
            Box::new(move || {
                let _still_open = &silent;
                ensure!(stream.read(&mut [0]).is_err(), "somebody sent a byte");
                Ok(())
            })
        }
        "disk" => {
            let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(argument)?;
            let mut place = 0;
            Box::new(move || {
                place = (place + 97 * BLOCK as i64) % (32 << 20);
                read_direct(&file, place)
            })
        }
        _ => bail!("unknown kind of wait: {kind}"),
    };
    let (began, on_cpu) = (Instant::now(), cpu_ns()?);
    while began.elapsed() < end {
        wait()?;
    }
    let away = began.elapsed().as_nanos() as u64 - (cpu_ns()? - on_cpu);
    println!("{away}");
    Ok(())
}

/// One block past the page cache.
fn read_direct(file: &File, place: i64) -> Result<()> {
    #[repr(align(4096))]
    struct Buffer([u8; BLOCK]);
    let mut buffer = Buffer([0; BLOCK]);
    // SAFETY: the buffer has room for a block and is aligned as direct I/O wants it.
    let read = unsafe { libc::pread(file.as_raw_fd(), buffer.0.as_mut_ptr().cast(), BLOCK, place) };
    ensure!(read == BLOCK as isize, "read {read}: {}", std::io::Error::last_os_error());
    Ok(())
}

/// CPU time of this thread.
fn cpu_ns() -> Result<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is valid for the call.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    ensure!(failed == 0, "no clock of the thread");
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// Stays on one processor and is busy there; prints time on CPU and in the run queue, ns, by the kernel's account.
pub fn share(processor: usize, millis: u64) -> Result<()> {
    // SAFETY: all zero is an empty set; the set is valid for the calls.
    let failed = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(processor, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set)
    };
    ensure!(failed == 0, "processor {processor}: {}", std::io::Error::last_os_error());
    spin(Duration::from_millis(millis));
    let text = fs::read_to_string("/proc/self/schedstat")?;
    let mut words = text.split_whitespace();
    println!("{} {}", words.next().context("no schedstat")?, words.next().context("no run delay")?);
    Ok(())
}

fn spin(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        // Without a system call: the clock is read in the program itself.
        (0..1000).for_each(|_| std::hint::spin_loop());
    }
}

/// So much CPU time, half in the program and half in the kernel, in turns.
pub fn mix(millis: u64) -> Result<()> {
    const TURN_NS: u64 = 25_000_000;
    let mut zeros = File::open("/dev/zero")?;
    let mut buffer = vec![0; 1 << 20];
    let mut used = cpu_ns()?;
    let end = used + millis * 1_000_000;
    while used < end {
        while cpu_ns()? < used + TURN_NS {
            // Asking for the time is a system call: hardly ever.
            (0..20_000).for_each(|_| std::hint::spin_loop());
        }
        while cpu_ns()? < used + 2 * TURN_NS {
            zeros.read_exact(&mut buffer)?;
        }
        used = cpu_ns()?;
    }
    Ok(())
}

/// Calls that programs hardly ever make, each `count` times its place; prints name, calls and error of each.
pub fn calls(count: u64) -> Result<()> {
    const CALLS: [(&str, libc::c_long, libc::c_long, Option<&str>); 6] = [
        ("sched_get_priority_min", libc::SYS_sched_get_priority_min, 1, None),
        ("sched_get_priority_max", libc::SYS_sched_get_priority_max, 99, Some("EINVAL")),
        ("inotify_rm_watch", libc::SYS_inotify_rm_watch, -1, Some("EBADF")),
        ("getsid", libc::SYS_getsid, 0x7fff_fff0, Some("ESRCH")),
        ("lookup_dcookie", libc::SYS_lookup_dcookie, 0, Some("ENOSYS")),
        ("fchdir", libc::SYS_fchdir, -1, Some("EBADF")),
    ];
    for (place, (name, number, argument, error)) in CALLS.into_iter().enumerate() {
        let times = count * (place as u64 + 1);
        for _ in 0..times {
            // SAFETY: none of these calls takes a pointer in its first argument, and the others are 0.
            let result = unsafe { libc::syscall(number, argument, 0, 0, 0, 0, 0) };
            ensure!((result < 0) == error.is_some(), "{name}: {result}");
        }
        println!("{name} {times} {}", error.unwrap_or("-"));
    }
    Ok(())
}
