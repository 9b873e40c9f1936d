//! Log lines on standard error: one JSON object a line, or text for people.
//!
//! What is written is said in `observe.rs`; here is only how. Fields stand at the top level of the JSON object beside
//! `timestamp`, `level`, `message` and `target`, so that a log store finds `job_id` without knowing this program.

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Why log lines could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `log.level` cannot be understood. The operator's fault.
    #[error("failed to read the log level")]
    Level(#[from] ParseError),
    /// They were set up before. A fault of this program.
    #[error("failed to set up log lines")]
    Init(#[from] TryInitError),
}

/// From now on, one JSON object a line. `level` is a level or directives as `EnvFilter` reads them.
///
/// # Errors
///
/// [`LogError`].
pub fn init_json(level: &str) -> Result<(), LogError> {
    Ok(json(level, std::io::stderr)?.try_init()?)
}

/// From now on, lines for people; coloured only on a terminal, and not where `NO_COLOR` asks for none (no-color.org).
///
/// # Errors
///
/// [`LogError`].
pub fn init_text(level: &str) -> Result<(), LogError> {
    let wants_no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_coloured = std::io::stderr().is_terminal() && !wants_no_color;
    Ok(text(level, std::io::stderr, is_coloured)?.try_init()?)
}

pub(super) fn json<W>(
    level: &str,
    writer: W,
) -> Result<impl Subscriber + Send + Sync + use<W>, ParseError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder().parse(level)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(false);
    Ok(lines
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .finish())
}

pub(super) fn text<W>(
    level: &str,
    writer: W,
    is_coloured: bool,
) -> Result<impl Subscriber + Send + Sync + use<W>, ParseError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder().parse(level)?;
    Ok(tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(is_coloured)
        .finish())
}
