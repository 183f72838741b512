//! `seismo run`: starts everything in an order in which each refusal leaves nothing behind, and stops it in the order in
//! which nothing on its way is lost.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use seismo_common::config::{BUDGET_WINDOW_SHIFT, Settings};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::adoption::Adoption;
use super::alerting::Alerting;
use super::exemplars::Choice;
use super::exporting::Exporting;
use super::families::Families;
use super::kernel::KernelSource;
use super::kernel_files::{self, FileSource};
use super::metric_export::{Looked, MetricExport};
use super::pages::RunningAgent;
use super::pipeline::{Parts, Pipeline, View};
use super::probe_control::{self, ProbeControl};
use super::sampling;
use super::scope::{self, ScopeKeeper};
use super::scope_control::ScopeControl;
use super::screen::Picture;
use super::tasks::{self, Finder, TaskSwitch};
use super::wakers::Wakers;
use super::workloads::WorkloadSource;
use super::{RunOptions, doctor, reload};
use crate::api::{Api, server};
use crate::bpf::counts::Counts;
use crate::bpf::decode::Batch;
use crate::bpf::drain::{self, Progress};
use crate::bpf::flow_control::FlowControlMap;
use crate::bpf::loader::{self, Attach, Programs};
use crate::bpf::memory;
use crate::bpf::plan;
use crate::bpf::records::Records;
use crate::bpf::support::Facts;
use crate::bpf::workloads::WorkloadCounts;
use crate::bpf::{capabilities, drain::QUEUE_BATCHES};
use crate::checks::Checks;
use crate::cli::{WrongFile, logger};
use crate::clock::{self, Clock};
use crate::config::{Config, Wakeups};
use crate::exporters::hops::Hops;
use crate::flows::Flows;
use crate::health::{Health, ProbeState};
use crate::host::names::Names;
use crate::host::procfs::Procfs;
use crate::host::workloads::Workloads;
use crate::metrics::{BuildInfo, CpuSource, Finer, HealthSource, ProcessSource, Table};
use crate::model::metric::Source;
use crate::model::probe::FamilySpec;
use crate::probes::{FAMILIES, syscall, wakeup};
use crate::store::spans::Spans;
use crate::traces::explain::Explain;
use crate::traces::graph::Graph;
use crate::traces::live::Live;
use crate::traces::remote::Remote;
use crate::traces::tasks::Tasks;
use crate::tui::Screen;

/// How long the pipeline may work on what is queued once the agent stops.
const STOP_GRACE: Duration = Duration::from_millis(1000);
/// Ring where nothing is in scope: only process records come, and its pages count as the agent's memory. Too small for lanes.
const RING_WITHOUT_SCOPE: u32 = 256 * 1024;
/// Userspace is woken when this share of the ring is full.
const WAKE_SHARE: u32 = 8;
const PROC: &str = "/proc";
/// Longest that the start waits for the processes whose connections are taken up to be looked at.
const RUNTIMES_WAIT: Duration = Duration::from_secs(2);
/// Octaves of a classic bucket at most.
const WIDEST_BUCKET: usize = 8;
/// Time after the start at which memory that only that needed is given back.
const SETTLED: Duration = Duration::from_secs(3);
/// How often programs are asked for their runs, and the screen is drawn.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How often idle series are looked after; all that there is to do otherwise.
const SLOW_HOUSEKEEPING: Duration = Duration::from_secs(5);

/// Programs in the kernel with the thread that drains their records.
pub struct RunningKernel {
    programs: Programs,
    drain: JoinHandle<()>,
    stop: Arc<AtomicBool>,
    pub batches: Receiver<Batch>,
    pub progress: Arc<Progress>,
    pub counts: Counts,
    pub scope: ScopeKeeper,
    pub adoption: Adoption,
    pub finder: Finder,
    tasks: TaskSwitch,
    /// The drain thread's end of the queue, while it runs.
    sender: Weak<SyncSender<Batch>>,
    ring_is_small: bool,
    pub control: FlowControlMap,
    pub workloads: WorkloadCounts,
    pub health: Arc<Health>,
    pub families: Arc<Families>,
    /// Keeps run statistics on.
    _stats: Option<std::os::fd::OwnedFd>,
}

/// Facts → plan → act, then capabilities are dropped and the drain thread starts.
pub fn start_kernel(config: &Config) -> Result<RunningKernel> {
    let proc = Procfs::new(PROC);
    let resolved = scope::resolve(&config.scope, &proc)?;
    if resolved.is_empty() {
        log::info!("no scope: requests are not looked at; --scope says whose payload may be read");
    }
    let facts = Facts::read(FAMILIES);
    let obstacles = doctor::obstacles(&facts);
    if !obstacles.is_empty() {
        bail!("{} (seismo doctor tells more)", obstacles.join("; "));
    }
    let configured = u32::try_from(config.capture.ring_bytes.0).context("capture.ring_bytes")?;
    let ring_bytes = if resolved.is_empty() { configured.min(RING_WITHOUT_SCOPE) } else { configured };
    let settings = Settings {
        capture_bytes: u32::try_from(config.capture.bytes.0).unwrap_or(u32::MAX),
        drop_every: config.capture.drop_one_in,
        budget_bytes: budget_bytes(config.capture.bytes_per_second.0),
        wake_bytes: ring_bytes / WAKE_SHARE,
        tick_ns: clock::tick_ns(),
        began_s: u32::try_from(clock::monotonic_ns() / 1_000_000_000).unwrap_or(u32::MAX),
        ..Settings::DEFAULT
    };
    let stats = config.probes.stats.then(loader::enable_run_stats).transpose()?;
    let mut wanted = super::wanted(config);
    let (plan, mut loaded) = loader::load_best(&facts, FAMILIES, &mut wanted, settings, ring_bytes, Attach::Yes)?;
    for (family, tier) in &plan.tiers {
        log::info!("{family}: tier {}: {}", tier.name, tier.gives);
    }
    let scope = ScopeKeeper::apply(resolved, loaded.scope, proc.clone())?;

    if config.probes.wakeup == Wakeups::Auto && loaded.programs.is_active(&wakeup::FAMILY) {
        loaded.programs.detach(&wakeup::FAMILY, probe_control::NOBODY_WAKES);
    }
    let health = Arc::new(Health::new());
    let attached = report(&health, &loaded.programs);
    if attached.is_empty() {
        bail!("no probe family could be attached (seismo doctor tells why)");
    }
    let kept = capabilities::kept(&facts.kernel_release);
    let attaching = capabilities::kept_to_probe(&facts.kernel_release);
    let wakers = Wakers::new(loaded.waking, config.probes.wakeup == Wakeups::On);
    let (finder, tasks) = tasks::start(&loaded.programs, loaded.runtimes, wakers, config.probes.task, proc, attaching)?;
    capabilities::drop_all_but(&kept).context("dropping capabilities")?;

    let families = Arc::new(Families::new(attached));
    let (sender, batches) = sync_channel(QUEUE_BATCHES);
    let sender = Arc::new(sender);
    let weak = Arc::downgrade(&sender);
    let stop = Arc::new(AtomicBool::new(false));
    let progress = Arc::new(Progress::default());
    let wake = drain::WakeUp::new(&loaded.ring).context("waiting for the ring")?;
    let records = Records::of(loaded.ring, loaded.lanes);
    let drain = {
        let (health, stop, progress) = (Arc::clone(&health), Arc::clone(&stop), Arc::clone(&progress));
        let interval = config.capture.drain_interval.0;
        std::thread::Builder::new()
            .name("seismo-drain".to_owned())
            .spawn(move || drain::run(records, &wake, interval, &health, &sender, (&progress, &stop)))?
    };
    let programs = loaded.programs;
    let mut counts = loaded.counts;
    counts.pause = config.tcp_sockets.interval.0;
    Ok(RunningKernel {
        programs,
        drain,
        stop,
        batches,
        progress,
        counts,
        scope,
        control: loaded.control,
        workloads: loaded.workloads,
        adoption: Adoption { sockets: loaded.sockets, families: Arc::clone(&families) },
        finder,
        tasks,
        sender: weak,
        ring_is_small: ring_bytes < configured,
        health,
        families,
        _stats: stats,
    })
}

/// A budget per second as one of the kernel's windows; what cannot be told in 32 bits is no limit.
fn budget_bytes(per_second: u64) -> u32 {
    let window = u128::from(per_second) * (1 << BUDGET_WINDOW_SHIFT) / 1_000_000_000;
    match u32::try_from(window) {
        Ok(0) if per_second > 0 => 1,
        Ok(bytes) => bytes,
        Err(_) => 0,
    }
}

/// One start-up line per family that is not whole; the families that are attached.
fn report(health: &Health, programs: &Programs) -> Vec<&'static FamilySpec> {
    let statuses = programs.statuses();
    let mut attached = Vec::new();
    let mut active = Vec::new();
    for family in FAMILIES {
        let (state, reasons) = plan::family_state(family, &statuses);
        match state {
            ProbeState::Active | ProbeState::Degraded => attached.push(*family),
            ProbeState::Disabled | ProbeState::Unsupported | ProbeState::Failed => {}
        }
        match state {
            ProbeState::Active => active.push(family.name),
            ProbeState::Disabled => {}
            _ => log::warn!("probe family {} is {}: {}", family.name, state.name(), reasons.join("; ")),
        }
    }
    log::info!("probe families active: {}", active.join(", "));
    health.set_probes(statuses);
    attached
}

impl RunningKernel {
    /// Detaches everything, lets the drain thread empty the ring and waits for it.
    pub fn stop(self) {
        let Self { programs, drain, stop, tasks, .. } = self;
        tasks.end();
        detach_and_drain(programs, drain, &stop);
    }
}

/// Nothing new is written once the programs are gone, so the ring's end is reached.
fn detach_and_drain(programs: Programs, drain: JoinHandle<()>, stop: &AtomicBool) {
    drop(programs);
    stop.store(true, Ordering::Release);
    if drain.join().is_err() {
        log::error!("the drain thread panicked");
    }
}

/// Runs the agent until a signal or the duration ends it.
pub fn run(config: Config, options: RunOptions) -> Result<ExitCode> {
    loader::limit_arenas();
    let mut alerting = Alerting::new(&config, &options)?;
    let mut spans = Spans::new(config.spans.capacity);
    if let Some(problem) = config.export.otlp.impediment() {
        return Err(WrongFile(format!("export.otlp: {problem}")).into());
    }
    let mut exporting = Exporting::new(&config, &mut spans)?;
    let metric_export = MetricExport::new(&config, Procfs::new(PROC).host_name());
    let spans = Arc::new(spans);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = runtime.block_on(server::bind(config.listen.0))?;
    let RunningKernel {
        programs,
        drain,
        stop,
        batches,
        progress,
        counts,
        scope,
        control,
        workloads: rows,
        adoption,
        finder,
        tasks,
        sender,
        ring_is_small,
        health,
        families,
        _stats,
    } = start_kernel(&config)?;

    let clock = Arc::new(Clock::new());
    let table = Arc::new(Table::new(config.metrics.clone()));
    let view = Arc::new(View::default());
    let kernel = Arc::new(KernelSource { counts, families: Arc::clone(&families), health: Arc::clone(&health) });
    let workloads = Workloads::new(config.workloads.clone(), config.services.clone(), PROC);
    let workloads = Arc::new(Mutex::new(workloads));
    let (scope_control, changes) = ScopeControl::new(scope.scope().clone(), sender, Procfs::new(PROC), ring_is_small);
    let scope_control = Arc::new(scope_control);
    let remote = &config.remote;
    let hops = remote.redis.as_deref().map(|url| Hops::start(url, &remote.stream, remote.messages)).transpose()?;
    let (hops, hops_account) = hops.unzip();
    let mut pipeline = Pipeline::new(Parts {
        names: Names::new(config.names.clone(), config.services.clone(), PROC),
        scope,
        adoption,
        changes,
        control,
        flows: Flows::new(config.flows.clone()),
        links: Live::new(config.links.clone()).with_remote(hops.is_some().then(|| Remote::new(remote.clone()))),
        hops,
        tasks: Tasks::new(config.links.tasks),
        finder,
        explain: Explain::new(config.explain.clone()),
        graph: Graph::new(config.service_graph.clone()),
        exemplars: Choice::of(&config),
        table: Arc::clone(&table),
        spans: Arc::clone(&spans),
        clock: Arc::clone(&clock),
        health: Arc::clone(&health),
        view: Arc::clone(&view),
    });
    pipeline.adopt();
    let runtimes = pipeline.looked();
    let files = kernel_files::open(&config);
    for status in files.statuses().iter().filter(|status| status.state == ProbeState::Unsupported) {
        log::warn!("{} is not supported: {}", status.program, status.reason);
    }
    health.set_files(files.statuses().to_vec());
    let deadline_ns = Arc::new(AtomicU64::new(0));
    let analysis = std::thread::Builder::new()
        .name("seismo-pipeline".to_owned())
        .spawn({
            let deadline_ns = Arc::clone(&deadline_ns);
            move || pipeline.run(&batches, &progress, &deadline_ns)
        })
        .context("starting the pipeline")?;

    let files = Arc::new(FileSource::new(&config, files, Arc::clone(&workloads)));
    let probe_control = Arc::new(ProbeControl::new(
        (programs, tasks),
        Arc::clone(&families),
        Arc::clone(&files),
        Arc::clone(&scope_control),
        Arc::clone(&health),
        config.probes.wakeup,
    ));
    probe_control.rest();
    let calls = {
        let kernel = Arc::clone(&kernel);
        move || syscall::calls(&kernel.counts)
    };
    sampling::start(&probe_control, config.syscalls.sample_one_in, calls).context("starting to sample")?;
    let octaves = config.metrics.octaves_per_bucket.min(WIDEST_BUCKET);
    // The kernel's counts come first: they bring the health that is read after them up to date.
    let mut sources: Vec<Arc<dyn Source>> = vec![
        Finer::over(Arc::clone(&kernel) as Arc<dyn Source>, octaves),
        Arc::new(HealthSource(Arc::clone(&health))),
        Arc::new(ProcessSource::new()),
        Arc::new(CpuSource),
        Arc::new(BuildInfo(env!("CARGO_PKG_VERSION"))),
        Arc::clone(&table) as Arc<dyn Source>,
        Finer::over(Arc::new(WorkloadSource::new(&config, rows, families, &workloads)), octaves),
        files,
    ];
    sources.extend(hops_account);
    sources.extend(alerting.sources());
    sources.extend(exporting.iter_mut().flat_map(Exporting::sources));
    sources.extend(metric_export.iter().map(MetricExport::source));
    let checks = Checks::new(&config.checks);
    sources.push(checks.results());
    let sources: Arc<[Arc<dyn Source>]> = sources.into();
    let samples = alerting.samples();
    samples.set_sources(Arc::clone(&sources));

    let (stopping, stopped) = watch::channel(false);
    let engine = alerting.engine();
    let exporting = exporting.map(|exporting| exporting.start(engine, stopped.clone())).transpose()?;
    let pages = Arc::new(RunningAgent {
        sources: Arc::clone(&sources),
        engine: alerting.engine(),
        samples,
        kernel: Arc::clone(&kernel),
        view,
        table: Arc::clone(&table),
        spans: Arc::clone(&spans),
        control: Arc::clone(&scope_control),
        probes: Arc::clone(&probe_control),
    });
    let api = Api::new(pages, Arc::clone(&health), Arc::clone(&spans), stopped.clone());
    if runtimes.recv_timeout(RUNTIMES_WAIT).is_err() {
        log::warn!("not all processes that have connections are looked at yet: their first requests have no tasks");
    }
    let outcome = runtime.block_on(async {
        let serving = tokio::spawn(server::serve(listener, api, server::Limits::default()));
        let checking = tokio::spawn(checks.run(stopped.clone()));
        let evaluating = tokio::spawn(alerting.run(stopped.clone()));
        let looked = Looked { sources: Arc::clone(&sources), table: Arc::clone(&table), spans: Arc::clone(&spans) };
        let sending = metric_export.map(|export| tokio::spawn(export.run(looked, stopped.clone())));
        health.set_ready(Ok(()));
        log::info!("listening on http://{}", config.listen);
        let picture = Picture::new(&config, Arc::clone(&sources), Arc::clone(&health), Arc::clone(&spans));
        let housekeeping = async {
            let mut screen = Screen::open();
            if screen.is_some() {
                logger::hold();
            }
            let watched = screen.is_some() || config.probes.stats;
            let mut every = tokio::time::interval(if watched { HOUSEKEEPING } else { SLOW_HOUSEKEEPING });
            let mut picture = picture;
            let began = Instant::now();
            let mut settled = false;
            let mut heap = memory::Heap::default();
            loop {
                tokio::select! {
                    _ = every.tick() => {}
                    () = probe_control.wakeups_changed() => {
                        probe_control.tend_wakeups();
                        continue;
                    }
                }
                if !settled && began.elapsed() >= SETTLED {
                    settled = true;
                    memory::let_go();
                }
                if let Some(in_use) = heap.give_back() {
                    health.set_heap(in_use as u64);
                }
                probe_control.look_after(config.probes.stats);
                if analysis.is_finished() {
                    return;
                }
                table.expire(crate::clock::monotonic_ns());
                if let Some(shown) = &mut screen
                    && shown.draw(&picture.take()).is_err()
                {
                    screen = None;
                    logger::release();
                }
            }
        };
        let reason = tokio::select! {
            reason = asked_to_stop(options.duration) => reason,
            () = housekeeping => Ok("the pipeline ended"),
            reason = reload::on_hangup(&config, options.reload, Arc::clone(&probe_control)) => reason,
        };
        logger::release();
        let began = Instant::now();
        log::info!("stopping: {}", reason.as_deref().unwrap_or("no signals can be had"));
        health.set_ready(Err("stopping".to_owned()));
        let grace_ns = u64::try_from(STOP_GRACE.as_nanos()).unwrap_or(u64::MAX);
        deadline_ns.store(crate::clock::monotonic_ns() + grace_ns, Ordering::Relaxed);
        if let Some(programs) = probe_control.end() {
            detach_and_drain(programs, drain, &stop);
        }
        // The drain thread's end closes the queue: the pipeline finishes what is in it and ends.
        let panicked = analysis.join().is_err();
        kernel.account();
        let told = stopping.send(true);
        debug_assert!(told.is_ok(), "the API holds a receiver");
        checking.await.map_err(|error| anyhow!("checks: {error}"))?;
        evaluating.await.map_err(|error| anyhow!("alert rules: {error}"))?;
        serving.await.map_err(|error| anyhow!("API: {error}"))?;
        if let Some(sending) = sending {
            sending.await.map_err(|error| anyhow!("export of metrics: {error}"))?;
        }
        // It ends by itself, soon after it was told to.
        if exporting.is_some_and(|exporting| exporting.join().is_err()) {
            log::error!("the export panicked; what it had not sent is lost");
        }
        log::info!("stopped after {} ms", began.elapsed().as_millis());
        if panicked {
            bail!("the pipeline panicked; what it had not stored is lost");
        }
        reason.map(|_| ())
    });
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Waits for SIGTERM, SIGINT or the end of the duration; says which.
async fn asked_to_stop(duration: Option<Duration>) -> Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let timer = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        () = timer => "the duration is over",
    })
}
