//! `[log]`: log lines.

use tracing_subscriber::filter::Targets;

use super::reader::Reader;

/// Log lines.
#[derive(Debug, Clone)]
pub struct Log {
    /// Their form.
    pub format: Format,
    /// Which are written: a level, or directives as [`Targets`] reads them.
    pub level: String,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl Log {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            format: reader.one_of(
                "log.format",
                &[("json", Format::Json), ("text", Format::Text)],
            ),
            level: reader.required("log.level", level).unwrap_or_default(),
        }
    }
}

fn level(text: &str) -> Result<String, (String, String)> {
    let remedy = || {
        format!(
            "give one of {}, or e.g. \"info,nbi_upgrade=debug\"",
            LEVELS.join(", ")
        )
    };
    // A word alone that is no level would name a target and silence everything else.
    let stray = text.split(',').map(str::trim).find(|part| {
        !part.contains('=') && !LEVELS.iter().any(|level| level.eq_ignore_ascii_case(part))
    });
    if let Some(stray) = stray {
        return Err((format!("has {stray:?}, which is not a level"), remedy()));
    }
    match text.parse::<Targets>() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err((format!("cannot be understood: {error}"), remedy())),
    }
}
