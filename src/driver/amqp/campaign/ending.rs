//! The end of a campaign, and of a coordinator.
//!
//! A definition is acknowledged before its queue and log are deleted: without them it would begin anew. That they are to be deleted stands
//! in a message of its own by then, among the definitions: behind the one that is over, and before that of a later campaign of the same
//! name. It is acknowledged when they are gone. So whichever leader dies, and wherever, the next one finds what is left to do.

use std::sync::Arc;
use std::time::Duration;

use lapin::message::Delivery;
use tokio::time::Instant;

use super::super::connection;
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
/// So often what is in use is looked at again soon.
const LOOKS_QUICK: u32 = 5;
/// By then a request that the broker refuses is among the dead letters.
const REFUSALS_QUICK: u32 = 25;

/// What a campaign has left on the broker.
pub(super) struct Left {
    /// The message that says so.
    pub(super) delivery: Delivery,
    /// When to delete it.
    due: Instant,
    /// How often it was looked at in vain.
    looks: u32,
}

impl Leader<'_> {
    /// What a campaign has left is to be deleted.
    pub(super) async fn take_end(&mut self, delivery: Delivery) -> Result<(), BrokerError> {
        let id = delivery.properties.message_id().as_ref();
        let Some(campaign_id) = id.and_then(|id| CampaignId::parse(id.as_str()).ok()) else {
            return acknowledge(&delivery).await;
        };
        let left = Left {
            delivery,
            due: Instant::now(),
            looks: 0,
        };
        match self.left.insert(campaign_id, left) {
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
            let trouble = match self.clear_away(&campaign_id).await {
                Ok(true) => continue,
                Ok(false) => None,
                Err(error) => Some(error.to_string()),
            };
            let Some(left) = self.left.get_mut(&campaign_id) else {
                continue;
            };
            left.looks += 1;
            // Its coordinator may still be about to go.
            let is_early = trouble.is_none() && left.looks < LOOKS_QUICK;
            left.due = Instant::now() + if is_early { PAUSE } else { PAUSE_LONG };
            if !is_early {
                let trouble = trouble.unwrap_or_else(|| {
                    "what it left is not deleted, as its queue holds devices or is consumed: another worker has begun it again?".to_owned()
                });
                let telemetry = &self.outlet.shared.telemetry;
                telemetry.campaign_trouble(campaign_id.as_str(), &trouble);
            }
        }
    }

    /// Deletes what a campaign of this name has left, if any; whether nothing is left. One that is led needs it: it was begun again since.
    /// Another leader may lead it, of which this one has not heard: what is in use is not touched.
    pub(super) async fn clear_away(
        &mut self,
        campaign_id: &CampaignId,
    ) -> Result<bool, BrokerError> {
        if !self.left.contains_key(campaign_id) {
            return Ok(true);
        }
        if !self.led.contains_key(campaign_id) {
            let devices = objects::devices(self.prefix(), campaign_id);
            if objects::is_in_use(self.connection, &devices).await? {
                return Ok(false);
            }
            objects::delete(self.connection, &devices).await?;
            let log = objects::log(self.prefix(), campaign_id);
            objects::delete(self.connection, &log).await?;
        }
        self.leave(campaign_id).await?;
        Ok(true)
    }

    /// What a campaign of this name has left is not to be deleted any more.
    pub(super) async fn leave(&mut self, campaign_id: &CampaignId) -> Result<(), BrokerError> {
        match self.left.remove(campaign_id) {
            Some(left) => acknowledge(&left.delivery).await,
            None => Ok(()),
        }
    }

    /// Has the request that is in our hands come again, after this time.
    pub(super) async fn give_back_requests(&mut self, after: Duration) {
        self.requests_due = Instant::now() + after;
        if let Some((channel, _)) = self.requests.take() {
            connection::close_channel(&channel).await;
        }
    }

    /// A campaign is over. As long as its definition is on its way back to us, it stays.
    pub(super) async fn campaign_over(
        &mut self,
        campaign_id: &CampaignId,
    ) -> Result<(), BrokerError> {
        let Some(led) = self.led.get_mut(campaign_id) else {
            return Ok(());
        };
        let Some(delivery) = led.delivery.take() else {
            led.is_over = true;
            return Ok(());
        };
        self.led.remove(campaign_id);
        let queue = objects::leads(self.prefix());
        let id = campaign_id.as_str();
        let end = self.outlet.to_queue(queue, END, id, b"{}".to_vec());
        self.publish(vec![end]).await?;
        acknowledge(&delivery).await
    }

    /// A coordinator is gone: its campaign is over, or another one goes on with it.
    pub(super) async fn coordinator_ended(
        &mut self,
        campaign_id: CampaignId,
        ended: Result<Ended, BrokerError>,
    ) -> Result<(), BrokerError> {
        // A request may have been in its hands: it comes again. One in the hands of another is left there.
        if self.accepting.as_ref() == Some(&campaign_id) {
            self.give_back_requests(Duration::ZERO).await;
        }
        match ended {
            Ok(Ended::Concluded) => self.campaign_over(&campaign_id).await,
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
