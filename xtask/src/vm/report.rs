//! What is to be done in a virtual machine, and what comes back: steps as JSON in, one line an event out.
//!
//! Both sides are in this file, since the same executable is the command outside and the first process inside. The
//! report has a serial line of its own, so no kernel message can get into it. A report without its last line is a crash.

use serde::{Deserialize, Serialize};

/// Where the steps are in the machine's root file system.
pub const PLAN: &str = "/plan.json";

/// A program to run in the machine.
#[derive(Debug, Deserialize, Serialize)]
pub struct Step {
    pub name: String,
    pub program: String,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// It is ended after so many seconds.
    pub limit_s: u64,
    /// A file that it may leave behind, whose text comes back.
    pub result: Option<String>,
    /// Read what the verifier says about each program that is loaded (kernels before 5.16 tell it nowhere else).
    pub watch_verifier: bool,
}

/// A line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A step begins.
    Begin(String),
    /// A line of its standard output.
    Out(String),
    /// A line of its standard error.
    Err(String),
    /// Instructions that the verifier walked for a program that it accepted; of the name, the first 15 bytes.
    Walked { program: String, instructions: u64 },
    /// What the step left in its file, lines joined by spaces.
    Result(String),
    /// The step ended.
    End(Status),
    /// The first process itself could not do something.
    Trouble(String),
    /// All is done; the machine is about to be switched off.
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Exit(i32),
    Signal(i32),
    /// Did not end in its time.
    Late,
}

impl Status {
    pub fn ok(self) -> bool {
        self == Self::Exit(0)
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exit(status) => write!(out, "exit {status}"),
            Self::Signal(signal) => write!(out, "signal {signal}"),
            Self::Late => write!(out, "late"),
        }
    }
}

impl Event {
    /// The line, without its end. Texts are single lines: whoever makes them has split them.
    pub fn line(&self) -> String {
        match self {
            Self::Begin(name) => format!("B {name}"),
            Self::Out(text) => format!("O {text}"),
            Self::Err(text) => format!("E {text}"),
            Self::Walked { program, instructions } => format!("V {instructions} {program}"),
            Self::Result(text) => format!("R {}", text.replace('\n', " ")),
            Self::End(outcome) => format!("X {outcome}"),
            Self::Trouble(text) => format!("T {}", text.replace('\n', " | ")),
            Self::Done => "Z ".to_owned(),
        }
    }

    /// Reads a line; nothing for a line of another form.
    pub fn parse(line: &str) -> Option<Self> {
        let (kind, rest) = line.split_once(' ')?;
        Some(match kind {
            "B" => Self::Begin(rest.to_owned()),
            "O" => Self::Out(rest.to_owned()),
            "E" => Self::Err(rest.to_owned()),
            "V" => {
                let (instructions, program) = rest.split_once(' ')?;
                Self::Walked { program: program.to_owned(), instructions: instructions.parse().ok()? }
            }
            "R" => Self::Result(rest.to_owned()),
            "X" => Self::End(match rest.split_once(' ') {
                Some(("exit", status)) => Status::Exit(status.parse().ok()?),
                Some(("signal", signal)) => Status::Signal(signal.parse().ok()?),
                None if rest == "late" => Status::Late,
                _ => return None,
            }),
            "T" => Self::Trouble(rest.to_owned()),
            "Z" => Self::Done,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_read_back_as_it_was_written() {
        let text = || "two words ".to_owned();
        for event in [
            Event::Begin(text()),
            Event::Out(text()),
            Event::Out(String::new()),
            Event::Err(text()),
            Event::Walked { program: text(), instructions: 7 },
            Event::Result(text()),
            Event::End(Status::Exit(-3)),
            Event::End(Status::Signal(9)),
            Event::End(Status::Late),
            Event::Trouble(text()),
            Event::Done,
        ] {
            assert_eq!(Event::parse(&event.line()), Some(event));
        }
        for line in ["", "O", "X exit", "X exit x", "V x x", "Q x", "[    0.1] printk"] {
            assert_eq!(Event::parse(line), None, "{line}");
        }
    }
}
