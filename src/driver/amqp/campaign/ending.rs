//! The end of a campaign, and of a coordinator.
//!
//! A definition is acknowledged before its queue and log are deleted: without them it would begin anew. That they are to be deleted stands
//! in a message of its own by then, among the definitions: behind the one that is over, and before that of a later campaign of the same
//! name. It is acknowledged when they are gone. So whichever leader dies, and wherever, the next one finds what is left to do.

use std::sync::Arc;
use std::time::Duration;

use lapin::message::Delivery;
use tokio::time::Instant;

use super::super::error::BrokerError;
use super::coordinator::Ended;
use super::leader::{Leader, PAUSE};
use super::objects;
use super::outlet::acknowledge;
use crate::job::CampaignId;

/// The message that says it.
pub(super) const END: &str = "upgrade.campaign.end";
/// After what the broker has refused often, or refuses to delete.
const PAUSE_LONG: Duration = Duration::from_secs(60);
/// By then a request that the broker refuses is among the dead letters.
const REFUSALS_QUICK: u32 = 25;

/// What a campaign has left on the broker.
pub(super) struct Left {
    /// The message that says so.
    pub(super) delivery: Delivery,
    /// When to delete it.
    due: Instant,
}

impl Leader<'_> {
    /// What a campaign has left is to be deleted.
    pub(super) async fn take_end(&mut self, delivery: Delivery) -> Result<(), BrokerError> {
        let id = delivery.properties.message_id().as_ref();
        let Some(campaign_id) = id.and_then(|id| CampaignId::parse(id.as_str()).ok()) else {
            return acknowledge(&delivery).await;
        };
        let due = Instant::now();
        match self.left.insert(campaign_id, Left { delivery, due }) {
            Some(before) => acknowledge(&before.delivery).await,
            None => Ok(()),
        }
    }

    /// Deletes what campaigns have left, once every definition is known. What cannot be deleted holds nobody up.
    pub(super) async fn clear_away_all(&mut self) {
        if !self.has_all {
            return;
        }
        let now = Instant::now();
        let due = self.left.iter().filter(|(_, left)| left.due <= now);
        let due: Vec<_> = due.map(|(id, _)| id.clone()).collect();
        for campaign_id in due {
            let Err(error) = self.clear_away(&campaign_id).await else {
                continue;
            };
            let telemetry = &self.outlet.shared.telemetry;
            telemetry.campaign_trouble(campaign_id.as_str(), &error.to_string());
            if let Some(left) = self.left.get_mut(&campaign_id) {
                left.due = Instant::now() + PAUSE_LONG;
            }
        }
    }

    /// Deletes what a campaign of this name has left, if any. One that is led needs it: it was begun again since.
    pub(super) async fn clear_away(&mut self, campaign_id: &CampaignId) -> Result<(), BrokerError> {
        if !self.left.contains_key(campaign_id) {
            return Ok(());
        }
        if !self.led.contains_key(campaign_id) {
            let prefix = self.prefix();
            objects::delete(self.connection, &objects::devices(prefix, campaign_id)).await?;
            objects::delete(self.connection, &objects::log(prefix, campaign_id)).await?;
        }
        match self.left.remove(campaign_id) {
            Some(left) => acknowledge(&left.delivery).await,
            None => Ok(()),
        }
    }

    /// A coordinator is gone: its campaign is over, or another one goes on with it.
    pub(super) async fn coordinator_ended(
        &mut self,
        campaign_id: CampaignId,
        ended: Result<Ended, BrokerError>,
    ) -> Result<(), BrokerError> {
        match ended {
            Ok(Ended::Concluded) => {
                let Some(led) = self.led.remove(&campaign_id) else {
                    return Ok(());
                };
                let queue = objects::leads(self.prefix());
                let id = campaign_id.as_str();
                let end = self.outlet.to_queue(queue, END, id, b"{}".to_vec());
                self.outlet.publish(vec![end]).await?;
                acknowledge(&led.delivery).await
            }
            Ok(Ended::Superseded) => Err(BrokerError::new(
                format!("coordinate campaign \"{campaign_id}\""),
                "another worker has taken over",
            )),
            Err(error) => {
                let telemetry = &self.outlet.shared.telemetry;
                telemetry.campaign_trouble(campaign_id.as_str(), &error.to_string());
                let failing = self.led.get_mut(&campaign_id).map(|led| {
                    led.refusals = if error.is_permanent() {
                        led.refusals + 1
                    } else {
                        0
                    };
                    (Arc::clone(&led.definition), led.refusals)
                });
                if let Some((definition, refusals)) = failing {
                    // The others are led on meanwhile.
                    let after = if refusals < REFUSALS_QUICK {
                        PAUSE
                    } else {
                        PAUSE_LONG
                    };
                    let inputs = self.coordinate(definition, after);
                    if let Some(led) = self.led.get_mut(&campaign_id) {
                        led.inputs = inputs;
                    }
                }
                Ok(())
            }
        }
    }
}
