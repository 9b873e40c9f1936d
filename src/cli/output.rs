//! What commands print and how they end. Results go to standard output, everything else to standard error.

use std::fmt;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::{Value, json};

/// The form of what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people.
    Text,
    /// For programs: one JSON document a line.
    Json,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// Done.
    Done,
    /// The work failed.
    Failed,
    /// Wrong usage or configuration.
    Usage,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        match status {
            Status::Done => Self::SUCCESS,
            Status::Failed => Self::from(1),
            Status::Usage => Self::from(2),
        }
    }
}

/// Wrong usage found after the command line was parsed: exit status 2.
#[derive(Debug)]
pub(super) struct Usage(pub(super) String);

impl fmt::Display for Usage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// The runtime of a command. One thread is the cheapest for a worker that waits for others nearly all the time.
pub(super) fn runtime(threads: usize) -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = if threads <= 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(threads);
        builder
    };
    builder
        .enable_all()
        .build()
        .context("failed to start the runtime")
}

/// Prints one line of results. A reader that has gone away is no reason to fail.
pub(super) fn line(text: &str) {
    drop(writeln!(std::io::stdout().lock(), "{text}"));
}

/// Prints one line about what goes on.
pub(super) fn note(text: &str) {
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}

/// Prints an error with its sources.
pub(super) fn error(error: &anyhow::Error, format: Format) {
    match format {
        Format::Text => note(&format!("error: {error:#}")),
        Format::Json => {
            let causes: Vec<Value> = error
                .chain()
                .skip(1)
                .map(|cause| json!(cause.to_string()))
                .collect();
            line(&json!({"error": error.to_string(), "causes": causes}).to_string());
        }
    }
}
