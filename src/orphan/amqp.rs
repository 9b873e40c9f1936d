//! The history as RabbitMQ keeps it: the stream `<p>.events`, and the logs of campaigns.

use std::collections::{BTreeSet, HashSet};

use super::{Past, Reach};
use crate::campaign::Record;
use crate::driver::amqp::stream::{Start, Stream, StreamReader};
use crate::driver::amqp::{AmqpSettings, BrokerError};
use crate::job::CampaignId;
use crate::message::campaign::{Entry, Log};
use crate::message::past::{self, Told};

/// The history of one prefix.
#[derive(Debug)]
pub struct EventHistory {
    settings: AmqpSettings,
    reader: StreamReader,
    reach: Reach,
}

impl EventHistory {
    /// Connects, and stands at the oldest event.
    ///
    /// # Errors
    ///
    /// [`BrokerError`]: no broker lets us in, or the stream cannot be read.
    pub async fn connect(settings: AmqpSettings) -> Result<Self, BrokerError> {
        let reader = StreamReader::connect(settings.clone(), Stream::Events, Start::First).await?;
        Ok(Self {
            settings,
            reader,
            reach: Reach::default(),
        })
    }
}

impl Past for EventHistory {
    async fn read_on(&mut self, mut take: impl FnMut(Told) + Send) -> Result<Reach, String> {
        let failed = |error: BrokerError| format!("failed to read the history: {error}");
        let end = self.reader.end().await.map_err(failed)?;
        while let Some(record) = self.reader.next_before(end).await.map_err(failed)? {
            if self.reach.from.is_none() {
                self.reach = Reach {
                    from: record.published_at,
                    is_trimmed: record.offset > 0,
                };
            }
            if let Some(told) = past::read(&record.body) {
                take(told);
            }
        }
        Ok(self.reach)
    }

    async fn under_way(&mut self, campaign_id: &str) -> Result<Vec<String>, String> {
        let Ok(campaign_id) = CampaignId::parse(campaign_id) else {
            return Ok(Vec::new());
        };
        let failed = |error: BrokerError| {
            format!("failed to read the log of campaign {campaign_id}: {error}")
        };
        let stream = Stream::CampaignLog(campaign_id.clone());
        let settings = self.settings.clone();
        let mut reader = match StreamReader::connect(settings, stream, Start::First).await {
            Ok(reader) => reader,
            // It is over, or it is no campaign but a name that jobs share.
            Err(error) if error.is_missing() => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let end = reader.end().await.map_err(failed)?;
        let mut devices: HashSet<String> = HashSet::new();
        let mut log = Log::of_any(campaign_id.clone());
        while let Some(record) = reader.next_before(end).await.map_err(failed)? {
            match log.read(&record.body, &BTreeSet::new()) {
                Entry::Record(Record::Released {
                    devices: started, ..
                }) => devices.extend(started.iter().map(|device| device.cpe_id.to_string())),
                Entry::Record(Record::Finished { cpe_id, .. }) => {
                    devices.remove(cpe_id.as_str());
                }
                Entry::Record(Record::Concluded { .. }) => devices.clear(),
                Entry::Record(_)
                | Entry::AskedSince { .. }
                | Entry::Marker { .. }
                | Entry::Other => {}
            }
        }
        reader.close().await;
        Ok(devices.into_iter().collect())
    }
}
