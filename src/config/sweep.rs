//! `[sweep]`: looking for rules that are armed and that no job owns.

use jiff::SignedDuration;

use super::reader::Reader;

/// Looking for rules that no job owns.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// How often the worker that leads looks; zero: never.
    pub interval: SignedDuration,
    /// Whether it disarms what certainly nobody owns.
    pub disarm: bool,
    /// The last word about a rule's device must be at least this old.
    pub older_than: SignedDuration,
}

impl Sweep {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let day = SignedDuration::from_hours(24);
        Self {
            interval: reader.duration("sweep.interval", SignedDuration::ZERO..=day * 30),
            disarm: reader.boolean("sweep.disarm"),
            older_than: reader.duration("sweep.older_than", SignedDuration::ZERO..=day * 365),
        }
    }
}
