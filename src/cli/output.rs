//! What commands print and how they end. Results go to standard output, everything else to standard error.

use std::fmt;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use console::measure_text_width;
use jiff::Timestamp;
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

/// How wide standard output is, where it is a terminal.
pub(super) fn width() -> Option<usize> {
    super::columns::width_of(&console::Term::stdout())
}

/// Text for standard output, broken between words where a terminal ends; further lines begin this far in.
pub(super) fn wrapped(text: &str, indent: usize) -> String {
    let text = plain(text);
    match width() {
        Some(width) => wrapped_at(&text, indent, width),
        None => text,
    }
}

fn wrapped_at(text: &str, indent: usize, width: usize) -> String {
    let room = width.saturating_sub(indent).max(20);
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if measure_text_width(line) + 1 + measure_text_width(word) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join(&format!("\n{:indent$}", ""))
}

/// Text fit for a terminal: what others wrote must not move the cursor, reverse the writing or pretend to be another line.
pub(super) fn plain(text: &str) -> String {
    text.replace(steers, " ")
}

/// Whether a character changes what is shown elsewhere: control characters, separators of lines, marks of direction.
fn steers(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

/// A time for people, to the second, in UTC.
pub(super) fn to_the_second(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// How long ago that was, in the largest unit that fits: `45s`, `12m`, `3h`, `9d`.
pub(super) fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    [(86_400, "d"), (3_600, "h"), (60, "m")]
        .into_iter()
        .find(|(unit, _)| seconds >= *unit)
        .map_or_else(
            || format!("{seconds}s"),
            |(unit, name)| format!("{}{name}", seconds / unit),
        )
}

/// The word for a number of things: `1 letter`, `2 letters`.
pub(super) fn count(number: usize, thing: &str) -> String {
    let end = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{end}")
}

/// A duration as people write it: `90s`, `15m`, `2h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration = text
        .parse()
        .map_err(|_| "write it like 90s, 15m or 2h".to_owned())?;
    Duration::try_from(parsed).map_err(|_| "must not be negative".to_owned())
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
        Format::Text => {
            // A message may have lines of its own; nothing else may steer.
            let text = format!("error: {error:#}");
            let lines: Vec<_> = text.split('\n').map(plain).collect();
            note(&lines.join("\n"));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_cannot_steer() {
        assert_eq!(
            plain("a\u{1b}[2Jb\nc\u{202e}d\u{9b}e\r\u{2028}"),
            "a [2Jb c d e  "
        );
        assert_eq!(plain("Überprüfung 日本"), "Überprüfung 日本");
    }

    #[test]
    fn long_texts_break_between_words() {
        let text = wrapped_at("one two three four five six seven eight", 4, 24);
        assert_eq!(text, "one two three four\n    five six seven eight");
        assert_eq!(
            wrapped_at("unbreakable-and-long-as-it-is a", 0, 20),
            "unbreakable-and-long-as-it-is\na"
        );
    }

    #[test]
    fn ages_are_short() {
        let now: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (7_199, "1h"),
            (90_000, "1d"),
            (-5, "0s"),
        ] {
            let then = now - jiff::SignedDuration::from_secs(seconds);
            assert_eq!(age(then, now), text);
        }
    }
}
