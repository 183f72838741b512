//! `cargo xtask vm`: the kernel matrix. Boots each kernel in QEMU, loads every program there, runs the kernel tests.
//!
//! Needs no root, no KVM and nothing of this machine's kernel. Kernels are Debian's, fetched once; programs and tests
//! are this machine's build. Prints what each kernel said and holds it against `docs/kernels.json`; `--save` writes
//! that, `docs/kernels.md` and docs/coverage. Loading takes about 10 s a kernel on a quiet machine.

mod document;
pub mod init;
mod initramfs;
mod kernels;
mod qemu;
mod report;
mod suite;
mod verdicts;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::build;
use crate::setup::{self, Purpose};
use crate::workspace::{self, Profile};
use initramfs::Initramfs;
use kernels::Kernel;
use report::{Event, Status, Step};
pub use suite::Outcome;
use suite::Suite;
use verdicts::{Column, Matrix, Verdict};
use watch::Walked;

/// Boot other kernels in QEMU: load every program, run the kernel tests
#[derive(clap::Args)]
pub struct Arguments {
    /// 5.10, 6.1, 6.12, 7, all, or the path of a kernel (bzImage)
    #[arg(long, value_delimiter = ',', default_value = "all", value_name = "KERNEL")]
    kernel: Vec<String>,
    /// What to do there; both by default
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["verify", "tests"])]
    what: Vec<What>,
    /// Write what was measured to docs/kernels.json, docs/kernels.md and docs/coverage
    #[arg(long)]
    save: bool,
    /// Only tests whose name contains one of these
    #[arg(last = true)]
    filters: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Load each program; show verdict and instruction count
    Verify,
    /// Run the tests of the target `kernel`
    Tests,
}

/// Where the agent is in a machine.
const AGENT: &str = "/usr/bin/seismo";
const SAVED: &str = "docs/kernels.json";
const PAGE: &str = "docs/kernels.md";
/// A file for each kernel, from which `cargo xtask gen` makes docs/coverage.md.
const COVERAGE: &str = "docs/coverage";
/// The kernel on which tests run that this machine's kernel cannot: that of Debian's stable release.
const STAND_IN: &str = "6.12";
const VERIFY: &str = "verify";
/// For booting.
const BOOT_S: u64 = 120;
/// For loading every program: the verifier walks some 10 000 instructions in a second here, less on a busy machine.
const VERIFY_S: u64 = 600;
/// First release that keeps the number of instructions with the program.
const KEEPS_COUNT: [u32; 2] = [5, 16];

pub fn command(arguments: &Arguments) -> Result<()> {
    setup::setup(Purpose::Test)?;
    let kernels = kernels::find(&arguments.kernel)?;
    let suite = arguments.what.contains(&What::Tests).then(|| Suite::build(&arguments.filters)).transpose()?;
    if suite.as_ref().is_some_and(Suite::is_empty) {
        bail!("no kernel test's name contains {}", arguments.filters.join(" or "));
    }
    let mut machines = Machines::build(suite)?;
    let verify = arguments.what.contains(&What::Verify);

    let file = workspace::root().join(SAVED);
    let mut saved = verdicts::read(&file)?;
    let mut measured = Matrix::new();
    let mut problems = Vec::new();
    for kernel in &kernels {
        let mut column = Column { release: kernel.release.clone(), ..Column::default() };
        if let Err(error) = machines.run(kernel, verify, &mut column) {
            problems.push(format!("{}: {error:#}", kernel.name));
        }
        problems.extend(failures(&kernel.name, &column));
        if verify && !arguments.save {
            problems.extend(verdicts::problems(&kernel.name, &column.programs, saved.get(&kernel.name)));
        }
        if let Some(coverage) = column.coverage.take().filter(|_| arguments.save) {
            let file = format!("{COVERAGE}/{}.json", kernel.name);
            let text = serde_json::to_string_pretty(&coverage)? + "\n";
            std::fs::write(workspace::root().join(&file), text).with_context(|| format!("cannot write {file}"))?;
            println!("{file}: written; `cargo xtask gen` makes the table");
        }
        measured.insert(kernel.name.clone(), column);
    }
    if verify {
        print!("{}", document::table(&measured));
    }
    if arguments.save {
        for (name, column) in measured {
            problems.extend(verdicts::problems(&name, &column.programs, Some(&column)));
            merge(&mut saved, name, column);
        }
        verdicts::write(&file, &saved)?;
        let page = workspace::root().join(PAGE);
        std::fs::write(&page, document::page(&saved)).with_context(|| format!("cannot write {PAGE}"))?;
        println!("{SAVED} and {PAGE}: written");
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n       "));
    }
    Ok(())
}

/// Runs the kernel tests whose names contain one of `filters` on a kernel of Debian's, for a machine whose own kernel
/// cannot. Says what became of each.
pub fn kernel_tests(filters: &[String]) -> Result<BTreeMap<String, Outcome>> {
    let mut column = Column::default();
    let suite = Suite::build(filters)?;
    if !suite.is_empty() {
        let kernel = kernels::kernel(STAND_IN)?;
        Machines::build(Some(suite))?.run(&kernel, false, &mut column)?;
    }
    Ok(column.tests)
}

/// What was not asked for this time, or gave nothing, stays as it was saved.
fn merge(saved: &mut Matrix, name: String, column: Column) {
    if column.programs.is_empty() && column.tests.is_empty() {
        return;
    }
    let kept = saved.entry(name).or_default();
    kept.release = column.release;
    if !column.programs.is_empty() {
        kept.programs = column.programs;
    }
    kept.tests.extend(column.tests);
}

fn failures(kernel: &str, column: &Column) -> Vec<String> {
    let failed = column.tests.iter().filter(|(_, outcome)| **outcome == Outcome::Failed);
    failed.map(|(name, _)| format!("{kernel}: the test {name} failed")).collect()
}

/// What every machine is made of.
struct Machines {
    archive: Initramfs,
    suite: Option<Suite>,
    file: PathBuf,
}

impl Machines {
    /// Builds the agent and packs it with what starts it and tests it.
    fn build(suite: Option<Suite>) -> Result<Self> {
        build::agent(Profile::Dev, &[])?;
        let folder = workspace::target().join("vm");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot write {}", folder.display()))?;
        let mut archive = Initramfs::new();
        archive.program(&std::env::current_exe()?, "/init".as_ref())?;
        archive.program(&workspace::agent(Profile::Dev), AGENT.as_ref())?;
        if let Some(suite) = &suite {
            suite.pack(&mut archive)?;
        }
        Ok(Self { archive, suite, file: folder.join("initramfs") })
    }

    /// Boots a kernel and notes what it said. Fails when the machine does.
    fn run(&mut self, kernel: &Kernel, verify: bool, column: &mut Column) -> Result<()> {
        let started = Instant::now();
        let mut steps = Vec::new();
        if verify {
            steps.push(verify_step(kernel));
        }
        for (name, fact) in self.suite.iter().flat_map(|suite| suite.on(&kernel.release)) {
            match fact {
                Some(fact) => drop(column.tests.insert(name.to_owned(), Outcome::NotHere(fact.to_owned()))),
                None => steps.push(suite::step(name)),
            }
        }
        self.archive.clear(init::MODULES);
        for (number, module) in kernel.modules.iter().enumerate() {
            let bytes = std::fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
            self.archive.file(&format!("{}/{number}.ko", init::MODULES), bytes);
        }
        self.archive.file(report::PLAN, serde_json::to_vec(&steps)?);
        self.archive.write(&self.file)?;
        let silence = steps.iter().map(|step| step.limit_s).max().unwrap_or(0) + BOOT_S;
        println!("{} ({}), {} steps", kernel.name, kernel.release, steps.len());

        let mut reader = Reader { column, kernel, started, step: None, problems: Vec::new(), ended: 0 };
        let result = qemu::run(kernel, &self.file, Duration::from_secs(silence), &mut |event| reader.take(event));
        reader.problems.extend(result.err().map(|error| format!("{error:#}")));
        if reader.ended < steps.len() {
            reader.problems.push(format!("only {} of {} steps ended", reader.ended, steps.len()));
        }
        let problems = reader.problems;
        let loads = column.programs.iter().filter(|line| line.verdict == Verdict::Loads).count();
        let programs =
            if verify { format!(", {loads} of {} programs load", column.programs.len()) } else { String::new() };
        println!("{} done in {} s{programs}", kernel.name, started.elapsed().as_secs());
        if !problems.is_empty() {
            bail!("{}", problems.join("; "));
        }
        Ok(())
    }
}

fn verify_step(kernel: &Kernel) -> Step {
    Step {
        name: VERIFY.to_owned(),
        program: AGENT.to_owned(),
        arguments: ["verify", "--json"].map(str::to_owned).to_vec(),
        environment: Vec::new(),
        limit_s: VERIFY_S,
        result: None,
        watch_verifier: kernels::numbers(&kernel.release) < KEEPS_COUNT.to_vec(),
    }
}

/// From the events of a machine to what is known of its kernel.
struct Reader<'a> {
    column: &'a mut Column,
    kernel: &'a Kernel,
    started: Instant,
    step: Option<Running>,
    problems: Vec<String>,
    /// Steps that have ended.
    ended: usize,
}

/// The step that is running now.
struct Running {
    name: String,
    since: Instant,
    out: Vec<String>,
    err: Vec<String>,
    walked: Vec<Walked>,
}

impl Reader<'_> {
    fn take(&mut self, event: Event) {
        let step = self.step.as_mut();
        match (event, step) {
            (Event::Begin(name), _) => {
                if self.ended == 0 {
                    println!("{} booted in {} s", self.kernel.name, self.started.elapsed().as_secs());
                }
                let (out, err) = (Vec::new(), Vec::new());
                self.step = Some(Running { name, since: Instant::now(), out, err, walked: Vec::new() });
            }
            (Event::Out(line), Some(step)) => step.out.push(line),
            (Event::Err(line), Some(step)) => step.err.push(line),
            (Event::Walked { program, instructions }, Some(step)) => step.walked.push(Walked { program, instructions }),
            (Event::Result(text), Some(_)) => match serde_json::from_str(&text) {
                Ok(coverage) => self.column.coverage = Some(coverage),
                Err(error) => self.problems.push(format!("a result that is no JSON: {error}")),
            },
            (Event::End(status), Some(_)) => {
                if let Some(step) = self.step.take() {
                    self.ended += 1;
                    self.end(&step, status);
                }
            }
            (Event::Trouble(text), _) => self.problems.push(text),
            // Its lines outside of a step have no meaning, and its end is the caller's to see.
            (
                Event::Out(_) | Event::Err(_) | Event::Walked { .. } | Event::Result(_) | Event::End(_) | Event::Done,
                _,
            ) => {}
        }
    }

    fn end(&mut self, step: &Running, status: Status) {
        if step.name == VERIFY {
            match verdicts::lines(&step.out.join("\n"), &step.walked) {
                // It also fails for a program that did not load; what it could not even try, or a tier that was refused, it tells.
                Ok(lines) if !step.err.iter().any(|line| line.starts_with("! ")) => self.column.programs = lines,
                Ok(_) => self.problems.push(format!("loading: {status}: {}", step.err.join(" | "))),
                Err(error) => self.problems.push(format!("loading: {status}: {error:#}: {}", step.err.join(" | "))),
            }
            return;
        }
        let passed = status.ok() && step.out.iter().any(|line| line.starts_with("test result: ok. 1 passed"));
        let outcome = if passed { Outcome::Passed } else { Outcome::Failed };
        let (name, seconds) = (&step.name, step.since.elapsed().as_secs());
        println!("{}: test {name} ... {} ({seconds} s)", self.kernel.name, document::word(&outcome));
        if !passed {
            println!("{}\n{}\n--- {name} on {}: {status}", step.out.join("\n"), step.err.join("\n"), self.kernel.name);
        }
        self.column.tests.insert(name.clone(), outcome);
    }
}
