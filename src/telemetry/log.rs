//! Log lines on standard error: one JSON object a line, or text for people.
//!
//! What is written is said in `observe.rs`; here is only how. Fields stand at the top level of the JSON object beside
//! `timestamp`, `level`, `message` and `target`, so that a log store finds `job_id` without knowing this program.

use std::io::{self, IsTerminal};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterFn, ParseError, Targets, filter_fn};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use super::json_line::JsonLine;
use super::lines::Lines;

/// Why log lines could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `log.level` cannot be understood. The operator's fault.
    #[error("failed to read the log level")]
    Level(#[from] ParseError),
    /// They were set up before. A fault of this program.
    #[error("failed to set up log lines")]
    Init(#[from] TryInitError),
    /// The thread that writes them could not be started.
    #[error("failed to start the thread that writes log lines")]
    Thread(#[source] io::Error),
}

/// The lines of the process, where they are gathered.
static LINES: OnceLock<Lines> = OnceLock::new();

/// From now on, one JSON object a line, gathered as `lines.rs` says; [`flush`] must stand before the end of the process. `level` is a level or directives as [`Targets`] reads them.
///
/// # Errors
///
/// [`LogError`].
pub fn init_json(level: &str) -> Result<(), LogError> {
    let lines = Lines::to(io::stderr()).map_err(LogError::Thread)?;
    json(level, lines.clone())?.try_init()?;
    if LINES.set(lines).is_ok() {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            flush();
            report(panic);
        }));
    }
    Ok(())
}

/// Who reads the log may have stopped to; the end of the process does not wait longer for it.
const FLUSHED_WITHIN: Duration = Duration::from_millis(500);

/// Writes the lines that are gathered: before the process ends, and before anything else is written to standard error. Bounded by half a
/// second.
pub fn flush() {
    let Some(lines) = LINES.get() else { return };
    let (done, written) = mpsc::channel::<()>();
    let flushing = std::thread::Builder::new().spawn(move || {
        lines.flush();
        drop(done);
    });
    if flushing.is_ok() {
        // It ends when the other side is dropped.
        written.recv_timeout(FLUSHED_WITHIN).ok();
    }
}

/// From now on, lines for people; coloured only on a terminal, and not where `NO_COLOR` asks for none (no-color.org).
///
/// # Errors
///
/// [`LogError`].
pub fn init_text(level: &str) -> Result<(), LogError> {
    let wants_no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_coloured = io::stderr().is_terminal() && !wants_no_color;
    Ok(text(level, io::stderr, is_coloured)?.try_init()?)
}

pub(super) fn json<W>(
    level: &str,
    writer: W,
) -> Result<impl Subscriber + Send + Sync + use<W>, ParseError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter: Targets = level.parse()?;
    let lines = fmt::layer().with_writer(writer).with_ansi(false);
    let lines = lines.event_format(JsonLine);
    let lines = tracing_subscriber::registry().with(lines);
    Ok(lines.with(filter).with(of_libraries(level)))
}

pub(super) fn text<W>(
    level: &str,
    writer: W,
    is_coloured: bool,
) -> Result<impl Subscriber + Send + Sync + use<W>, ParseError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter: Targets = level.parse()?;
    let lines = fmt::layer().with_writer(writer).with_ansi(is_coloured);
    let lines = tracing_subscriber::registry().with(lines);
    Ok(lines.with(filter).with(of_libraries(level)))
}

/// Which lines of the AMQP library are written at all.
///
/// Only where the level names it (`lapin=debug`): what it says at a failed connect, `driver/amqp/` says better and once. Never single
/// frames: they show the password at login, and the bodies of messages.
fn of_libraries(level: &str) -> FilterFn<impl Fn(&Metadata<'_>) -> bool + use<>> {
    const LIBRARY: &str = "lapin";
    let is_named = level.contains(LIBRARY);
    filter_fn(move |line| {
        let Some(module) = line.target().strip_prefix(LIBRARY) else {
            return true;
        };
        let shows_frames =
            *line.level() == Level::TRACE || module.starts_with("::returned_messages");
        is_named && !shows_frames
    })
}
