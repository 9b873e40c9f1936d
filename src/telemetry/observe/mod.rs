//! One typed call per thing that happened: its log line and its metrics. The only place that logs or counts.
//!
//! Messages are constants; what varies stands in fields, cut where others wrote it. Levels: `error` for what somebody must look at,
//! `warn` for what did not go as ordered, `info` for beginnings and endings, `debug` for the way, `trace` for single messages.

mod broker;
mod campaign;
mod job;
mod nbi;
pub(super) mod orphans;
mod process;
mod spans;

/// The target of every line.
const TARGET: &str = "nbi_upgrade";

/// Longest text of others in a field, in characters.
const TEXT_MAX: usize = 1_000;

fn cut(text: &str) -> &str {
    text.char_indices()
        .nth(TEXT_MAX)
        .map_or(text, |(at, _)| &text[..at])
}
