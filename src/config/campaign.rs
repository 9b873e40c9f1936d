//! `[campaign]`: one request, many devices.

use jiff::SignedDuration;

use super::reader::Reader;

/// One request, many devices.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// So many configuration faults pause a campaign; 0: never.
    pub configuration_faults: u32,
    /// How often a campaign's counts are published.
    pub progress_interval: SignedDuration,
}

impl Campaign {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            configuration_faults: reader.number("campaign.configuration_faults", 0..=1_000_000),
            progress_interval: reader.duration(
                "campaign.progress_interval",
                SignedDuration::from_secs(1)..=SignedDuration::from_hours(24),
            ),
        }
    }
}
