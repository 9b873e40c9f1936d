//! [`JsonLine`]: a log line as one JSON object: `timestamp`, `level`, the fields in their order, `target`.
//!
//! The library's own form of this, byte for byte but for numbers from 1e16 (`a_line_is_what_the_library_would_write`), at a fraction of its
//! price: a worker at full speed writes two lines a job. Spans are not shown; there are none.

use std::fmt::{self, Write};

use jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use crate::message::time::Text;

/// Digits of a line's time behind the second.
const DIGITS: usize = 6;

/// What most lines fit in, in bytes.
const SIZE: usize = 512;

/// Writes events as JSON.
#[derive(Debug, Clone, Copy)]
pub(super) struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let about = event.metadata();
        let mut line = Object(String::with_capacity(SIZE));
        line.text(
            "timestamp",
            Text::of(Timestamp::now(), Some(DIGITS))
                .as_ref()
                .map_or("", Text::as_str),
        );
        line.text("level", about.level().as_str());
        event.record(&mut line);
        line.text("target", about.target());
        line.0.push_str("}\n");
        writer.write_str(&line.0)
    }
}

/// A JSON object that is being written, one member after the other.
struct Object(String);

impl Object {
    /// Names the next member. Names are written in the source, and need no escapes.
    fn name(&mut self, name: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0.push('"');
        self.0.push_str(name);
        self.0.push_str("\":");
    }

    fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        self.0.push('"');
        escape(&mut self.0, text);
        self.0.push('"');
    }

    /// A number or a word of JSON's.
    fn plain(&mut self, name: &str, value: impl fmt::Display) {
        self.name(name);
        // A string takes everything.
        write!(self.0, "{value}").ok();
    }
}

impl Visit for Object {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            // Never without a fraction or an exponent.
            self.plain(field.name(), format_args!("{value:?}"));
        } else {
            self.plain(field.name(), "null");
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.name(field.name());
        self.0.push('"');
        write!(Escaped(&mut self.0), "{value:?}").ok();
        self.0.push('"');
    }
}

/// Escapes what is written to it.
struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(self.0, text);
        Ok(())
    }
}

/// Appends a text as it stands between quotes (RFC 8259, section 7).
fn escape(line: &mut String, text: &str) {
    let mut rest = text;
    let needs_escape = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    while let Some(at) = rest.bytes().position(needs_escape) {
        line.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'\n' => line.push_str("\\n"),
            b'\r' => line.push_str("\\r"),
            b'\t' => line.push_str("\\t"),
            0x08 => line.push_str("\\b"),
            0x0c => line.push_str("\\f"),
            control @ 0..b' ' => write!(line, "\\u{control:04x}").unwrap_or_default(),
            sign => line.extend(['\\', char::from(sign)]),
        }
        rest = &rest[at + 1..];
    }
    line.push_str(rest);
}
