//! What operators order about campaigns, as it stands in the control stream.

use jiff::Timestamp;
use serde::Deserialize;

use super::super::error::BrokerError;
use super::super::record::{Record, Start, Stream};
use super::super::stream::StreamReader;
use super::coordinator::Input;
use super::leader::Leader;
use crate::job::CampaignId;

/// An operator's order about a campaign, or about everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    /// Its place in the control stream.
    pub(super) offset: u64,
    pub(super) published_at: Option<Timestamp>,
    pub(super) command: Command,
    /// `None`: everything.
    pub(super) campaign_id: Option<CampaignId>,
    pub(super) correlation_id: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Command {
    Pause,
    Resume,
    Cancel,
}

#[derive(Deserialize)]
struct OrderWire {
    command: Command,
    #[serde(default)]
    campaign_id: Option<String>,
    #[serde(default)]
    job_id: Option<String>,
    #[serde(default)]
    all: bool,
}

impl Order {
    /// The order in a message of the control stream; `None`: it is about a job, or about nothing that is known here.
    pub(super) fn of(entry: &Record) -> Option<Self> {
        let wire: OrderWire = serde_json::from_slice(&entry.body).ok()?;
        let campaign_id = match (wire.campaign_id, wire.job_id, wire.command) {
            (Some(id), None, _) => Some(CampaignId::parse(id).ok()?),
            (None, None, Command::Pause | Command::Resume) if wire.all => None,
            _ => return None,
        };
        Some(Self {
            offset: entry.offset,
            published_at: entry.published_at,
            command: wire.command,
            campaign_id,
            correlation_id: entry.correlation_id.clone(),
        })
    }

    pub(super) fn is_pause(&self) -> bool {
        self.command == Command::Pause
    }
}

impl Leader<'_> {
    /// Everything that operators have ordered so far, then what they order from now on.
    pub(super) async fn read_orders(&mut self) -> Result<StreamReader, BrokerError> {
        let settings = self.outlet.shared.settings.clone();
        let mut reader =
            StreamReader::on(self.connection, settings, Stream::Control, Start::First).await?;
        let end = reader.end().await?;
        while let Some(record) = reader.next_before(end).await? {
            if let Some(order) = Order::of(&record) {
                self.note_order(order);
            }
        }
        Ok(reader)
    }

    fn note_order(&mut self, order: Order) {
        match &order.campaign_id {
            None => self.is_everything_paused = order.is_pause(),
            Some(_) => self.orders.push(order),
        }
    }

    /// Passes an order on.
    pub(super) async fn take_order(&mut self, order: Order) {
        self.note_order(order.clone());
        match &order.campaign_id {
            Some(campaign_id) => {
                if let Some(led) = self.led.get(campaign_id) {
                    drop(led.inputs.send(Input::Order(order)).await);
                }
            }
            None => {
                for led in self.led.values() {
                    drop(
                        led.inputs
                            .send(Input::Hold(self.is_everything_paused))
                            .await,
                    );
                }
            }
        }
    }
}
