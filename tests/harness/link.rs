//! A bad link between two network namespaces: packets are delayed, dropped and overtaken, as many as the test says.
//!
//! A TUN device in each namespace and a thread that moves packets between them: a seeded generator decides about each
//! packet, a queue ordered by time holds what is under way. IPv4, packets of at most 1500 bytes. The devices go when the
//! link is dropped. For kernels without a queueing discipline that does the same.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::netns::Netns;

/// `linux/if_tun.h`.
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
/// Largest packet of the devices as they come.
const PACKET_BYTES: usize = 1500;
/// How long the thread sleeps at most before it looks whether it is to end.
const LOOK_MILLIS: u128 = 50;

/// What a link does to packets, each way.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub delay: Duration,
    /// Packets in a thousand that are dropped.
    pub lost_per_mille: u64,
    /// Packets in a thousand that take `detour` longer, so that those behind overtake them.
    pub late_per_mille: u64,
    pub detour: Duration,
    pub seed: u64,
}

impl Weather {
    /// Nothing is lost or late.
    pub const FAIR: Self =
        Self { delay: Duration::ZERO, lost_per_mille: 0, late_per_mille: 0, detour: Duration::ZERO, seed: 1 };
}

/// Packets so far.
#[derive(Debug, Default)]
struct Counts {
    passed: AtomicU64,
    lost: AtomicU64,
    overtaken: AtomicU64,
}

#[derive(Debug)]
pub struct Link {
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Link {
    /// Joins two namespaces by a device `name` in each, with an address and its prefix length (`10.0.0.1/24`).
    pub fn join(name: &str, ends: [(&Netns, &str); 2], weather: Weather) -> Result<Self> {
        let mut devices = Vec::new();
        for (namespace, address) in ends {
            let device = namespace.within(|| tun(name)).with_context(|| format!("a TUN device {name}"))?;
            namespace.ip(&format!("address add {address} dev {name}"))?;
            namespace.ip(&format!("link set {name} up"))?;
            devices.push(device);
        }
        let devices: [File; 2] = devices.try_into().ok().context("two devices")?;
        let (counts, stop) = (Arc::new(Counts::default()), Arc::new(AtomicBool::new(false)));
        let mut mover = Mover {
            devices,
            weather,
            random: weather.seed.max(1),
            under_way: BinaryHeap::new(),
            number: 0,
            last: [0; 2],
            counts: Arc::clone(&counts),
        };
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                mover.turn();
            }
        })?;
        Ok(Self { counts, stop, thread: Some(thread) })
    }

    /// Packets that were passed on, those that were dropped, and those that a later one overtook.
    pub fn counts(&self) -> [u64; 3] {
        let Counts { passed, lost, overtaken } = &*self.counts;
        [passed, lost, overtaken].map(|count| count.load(Ordering::Relaxed))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the thread of a link panicked");
        }
    }
}

/// A packet on its way: due at, which in the order of coming, to which device.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct UnderWay(Instant, u64, usize, Vec<u8>);

struct Mover {
    devices: [File; 2],
    weather: Weather,
    random: u64,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    number: u64,
    /// Number of the latest packet that each device was given.
    last: [u64; 2],
    counts: Arc<Counts>,
}

impl Mover {
    /// Waits for packets, takes them in, and hands out those whose time has come.
    fn turn(&mut self) {
        let left = self.under_way.peek().map(|Reverse(next)| next.0.saturating_duration_since(Instant::now()));
        let millis = left.map_or(LOOK_MILLIS, |left| left.as_millis().min(LOOK_MILLIS)) as libc::c_int;
        let mut polled = [0, 1].map(|device: usize| libc::pollfd {
            fd: self.devices[device].as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        });
        // SAFETY: the array is valid for the call and its length is right.
        unsafe { libc::poll(polled.as_mut_ptr(), 2, millis) };
        for device in 0..2 {
            let mut packet = [0; PACKET_BYTES];
            // Non-blocking: an error is that there is no more.
            while let Ok(bytes) = self.devices[device].read(&mut packet) {
                self.take(1 - device, packet.get(..bytes).unwrap_or_default().to_vec());
            }
        }
        while self.under_way.peek().is_some_and(|Reverse(next)| next.0 <= Instant::now())
            && let Some(Reverse(UnderWay(_, number, to, packet))) = self.under_way.pop()
        {
            // A device that is gone or full loses what it is given, as a network would.
            let given = self.devices[to].write(&packet).is_ok();
            let overtaken = number < self.last[to];
            self.last[to] = self.last[to].max(number);
            let Counts { passed, lost, overtaken: late } = &*self.counts;
            (if given { passed } else { lost }).fetch_add(1, Ordering::Relaxed);
            late.fetch_add(u64::from(given && overtaken), Ordering::Relaxed);
        }
    }

    fn take(&mut self, to: usize, packet: Vec<u8>) {
        if self.one_in_thousand(self.weather.lost_per_mille) {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let detour =
            if self.one_in_thousand(self.weather.late_per_mille) { self.weather.detour } else { Duration::ZERO };
        self.number += 1;
        self.under_way.push(Reverse(UnderWay(Instant::now() + self.weather.delay + detour, self.number, to, packet)));
    }

    /// xorshift64: true `share` times in a thousand.
    fn one_in_thousand(&mut self, share: u64) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % 1000 < share
    }
}

/// A TUN device in the namespace of this thread, without a header before the packets.
fn tun(name: &str) -> Result<File> {
    let open = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
    let file = open.context("/dev/net/tun")?;
    // SAFETY: all zeros is a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()).take(libc::IFNAMSIZ - 1) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the request is valid for the call, which fills in at most its name.
    match unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) } {
        0 => Ok(file),
        _ => Err(io::Error::last_os_error().into()),
    }
}
