//! The only place of the command line that prints. Results go to standard output, everything for people to standard error.

use super::USAGE;
use crate::rewrite::Refusal;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::OnceLock;

/// The bar on the terminal, while there is one.
static BAR: OnceLock<ProgressBar> = OnceLock::new();

/// Work of fewer bytes than this is done before a bar is read.
const BAR_BYTES_MIN: u64 = 8 * 1024 * 1024;

/// A line for people.
pub fn complain(line: fmt::Arguments<'_>) {
    // A closed standard error is no reason to fail: the exit code says the same.
    let write = || drop(writeln!(std::io::stderr().lock(), "{line}"));
    match BAR.get() {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// A line of result.
pub fn tell(line: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// A line of result as JSON.
pub fn json(value: &impl Serialize) {
    tell(format_args!("{}", to_json(value)));
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("members with text names, of text and numbers, can be written")
}

/// Every mistake on a line of its own, and the exit code.
pub fn mistakes(mistakes: &[String], code: u8) -> ExitCode {
    for mistake in mistakes {
        complain(format_args!("{mistake}"));
    }
    ExitCode::from(code)
}

/// A command line that cannot be meant.
pub fn usage(what: &str) -> ExitCode {
    complain(format_args!("cryptonym: {what}"));
    ExitCode::from(USAGE)
}

/// How refusals and the last line are said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, with the same fields.
    Json,
}

#[derive(Serialize)]
struct Refused<'a> {
    file: &'a str,
    line: Option<u64>,
    code: &'a str,
    path: &'a str,
    byte: u64,
    what: &'a str,
    help: &'a str,
}

#[derive(Serialize)]
struct Problem<'a> {
    file: &'a str,
    error: &'a str,
}

#[derive(Serialize)]
struct Ended {
    done: u64,
    refused: u64,
    tokens_stayed: u64,
    resources_unsealed: u64,
}

impl LogFormat {
    /// One refusal. `line` is 0 for a document.
    pub fn refusal(self, file: &str, line: u64, refusal: &Refusal) {
        match self {
            LogFormat::Text if line == 0 => complain(format_args!("{file}: {refusal}")),
            LogFormat::Text => complain(format_args!("{file}:{line}: {refusal}")),
            LogFormat::Json => {
                let Refusal { code, path, byte } = refusal;
                let path = if path.is_empty() { "?" } else { path };
                let line = (line > 0).then_some(line);
                let (byte, what, help) = (*byte, code.what(), code.advice());
                let refused = Refused { file, line, code: code.as_str(), path, byte, what, help };
                complain(format_args!("{}", to_json(&refused)));
            }
        }
    }

    /// Anything else that went wrong with a file.
    pub fn problem(self, file: &str, error: &str) {
        match self {
            LogFormat::Text => complain(format_args!("{file}: {error}")),
            LogFormat::Json => complain(format_args!("{}", to_json(&Problem { file, error }))),
        }
    }

    /// The last line.
    pub fn ended(self, done: u64, refused: u64, tokens_stayed: u64, resources_unsealed: u64) {
        match self {
            LogFormat::Text => complain(format_args!("{done} done, {refused} refused")),
            LogFormat::Json => {
                complain(format_args!("{}", to_json(&Ended { done, refused, tokens_stayed, resources_unsealed })))
            }
        }
    }
}

/// Progress over the bytes of all inputs. Shown on a terminal only, and only where there is something to wait for.
#[derive(Debug, Clone)]
pub struct Progress(Option<ProgressBar>);

impl Progress {
    /// Begins.
    pub fn start(bytes: u64) -> Self {
        if bytes < BAR_BYTES_MIN || !std::io::stderr().is_terminal() {
            return Progress(None);
        }
        let style = "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
        Progress(Some(BAR.get_or_init(|| ProgressBar::new(bytes).with_style(style)).clone()))
    }

    /// Counts what is read.
    pub fn read(&self, input: std::fs::File) -> Box<dyn std::io::Read + Send> {
        match &self.0 {
            Some(bar) => Box::new(bar.wrap_read(input)),
            None => Box::new(input),
        }
    }

    /// Ends: the bar goes, what was said stays.
    pub fn end(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
