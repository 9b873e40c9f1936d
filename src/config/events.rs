//! `[events]`: events for others.

use jiff::SignedDuration;

use super::reader::Reader;

/// Events for others.
#[derive(Debug, Clone)]
pub struct Events {
    /// Whether `upgrade.progress` is published.
    pub progress: Progress,
    /// How long the history keeps events.
    pub retention: SignedDuration,
    /// How large the history may grow.
    pub retention_bytes: u64,
}

/// Which progress is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Progress {
    /// None.
    #[default]
    None,
    /// Every stage that is done.
    Milestones,
}

impl Events {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            progress: reader.one_of(
                "events.progress",
                &[
                    ("none", Progress::None),
                    ("milestones", Progress::Milestones),
                ],
            ),
            retention: reader.duration(
                "events.retention",
                SignedDuration::from_hours(1)..=SignedDuration::from_hours(24 * 3_650),
            ),
            // A stream is cut segment by segment, and segments have 50 MB: below two of them the bound would mean nothing.
            retention_bytes: reader.number(
                "events.retention_bytes",
                100_000_000..=1_000_000_000_000_000,
            ),
        }
    }
}
