//! Running other programs: with their own output, for their output, or behind one progress line.
//!
//! None of them gets a standard input that could block an unattended run, except where the user is meant to type.
//! A hidden program's last lines are kept (at most 40) and shown when it fails.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// Lines of a hidden program that are shown when it fails.
const KEPT_LINES: usize = 40;

/// Runs a program with our output; fails unless it succeeds.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot start {}", line(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", line(command));
    }
    Ok(())
}

/// Runs a program for its standard output; fails unless it succeeds.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", line(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed: {}: {}", line(command), output.status, said.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} did not print text", line(command)))
}

/// Runs a long program behind one line that shows `label`, the time so far and what it said last.
pub fn watched(label: &str, command: &mut Command, limit: Duration) -> Result<()> {
    let shown = line(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {shown}"))?;

    let progress = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("  {spinner} {prefix} ({elapsed}) {wide_msg:.dim}")?;
    progress.set_style(style);
    progress.set_prefix(label.to_owned());
    if progress.is_hidden() {
        eprintln!("  {label} …");
    }

    let kept = Arc::new(Mutex::new(VecDeque::new()));
    let streams: [Option<Box<dyn Read + Send>>; 2] =
        [child.stdout.take().map(|pipe| Box::new(pipe) as _), child.stderr.take().map(|pipe| Box::new(pipe) as _)];
    let readers: Vec<_> = streams
        .into_iter()
        .flatten()
        .map(|pipe| {
            let (kept, progress) = (Arc::clone(&kept), progress.clone());
            thread::spawn(move || keep_last_lines(pipe, &kept, &progress))
        })
        .collect();

    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if started.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            break None;
        }
        progress.tick();
        thread::sleep(Duration::from_millis(80));
    };
    // After a kill, grandchildren may hold the pipes open for as long as they like.
    if status.is_some() {
        for reader in readers {
            // The only thing to fail in there is a panic, which has been printed.
            drop(reader.join());
        }
    }
    progress.finish_and_clear();

    let said = kept.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect::<Vec<_>>().join("\n");
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => bail!("{shown} failed: {status}\n{said}"),
        None => bail!("{shown} did not end within {} s\n{said}", limit.as_secs()),
    }
}

fn keep_last_lines(pipe: impl Read, kept: &Mutex<VecDeque<String>>, progress: &ProgressBar) {
    for line in BufReader::new(pipe).split(b'\n').map_while(|line| line.ok()) {
        let line = String::from_utf8_lossy(&line).trim().to_owned();
        progress.set_message(line.clone());
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT_LINES {
            kept.pop_front();
        }
        kept.push_back(line);
    }
}

/// The command as one would type it.
pub fn line(command: &Command) -> String {
    let name = std::path::Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    std::iter::once(name)
        .chain(command.get_args())
        .map(|part| part.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failing_hidden_program_is_reported_with_its_last_lines() {
        let error = watched("test", &mut sh("echo first; echo why >&2; exit 3"), Duration::from_secs(10)).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("exit status: 3") && text.contains("why"), "{text}");
    }

    #[test]
    fn a_hidden_program_that_hangs_is_ended_at_its_limit() {
        let started = Instant::now();
        let error = watched("test", &mut sh("exec sleep 60"), Duration::from_millis(100)).unwrap_err();
        assert!(format!("{error:#}").contains("did not end"), "{error:#}");
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let error = watched("test", &mut sh("seq 1 100; exit 1"), Duration::from_secs(10)).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("\n61\n") && !text.contains("\n60\n"), "{text}");
    }

    #[test]
    fn output_of_a_failing_program_is_an_error_that_says_why() {
        let error = output(&mut sh("echo why >&2; exit 1")).unwrap_err();
        assert!(format!("{error:#}").contains("why"));
    }
}
