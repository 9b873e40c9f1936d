//! What leader and coordinators publish, each confirmed before they go on.

use std::sync::Arc;

use jiff::Timestamp;
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;

use super::super::connection::CALL_TIMEOUT;
use super::super::error::{BrokerError, bounded};
use super::super::handover::{self, event_messages};
use super::super::outgoing::{Outgoing, Target};
use super::super::properties;
use super::super::shared::{Link, Shared};
use crate::job::CampaignId;
use crate::message::campaign::DeviceRequest;
use crate::message::{Carried, Command, DeadLetter, EventMessage, Scope, Verb};

/// Publishes for one generation.
#[derive(Clone)]
pub(super) struct Outlet {
    pub(super) shared: Arc<Shared>,
    pub(super) link: Arc<Link>,
}

impl Outlet {
    /// Now.
    pub(super) fn now(&self) -> Timestamp {
        self.shared.now()
    }

    /// Publishes all, waiting refusals out; an error only when the generation is over.
    pub(super) async fn publish(&self, messages: Vec<Outgoing>) -> Result<(), BrokerError> {
        if handover::publish_on(&self.link, messages, &self.shared.telemetry).await {
            return Ok(());
        }
        Err(BrokerError::new(
            "publish for a campaign",
            self.link.ending.reason(),
        ))
    }

    /// A message to a queue of campaigns, past all exchanges.
    pub(super) fn to_queue(&self, queue: String, kind: &str, id: &str, body: Vec<u8>) -> Outgoing {
        Outgoing {
            target: Target::Queue(queue),
            properties: properties::of_campaign(kind, id, self.now()),
            body,
        }
    }

    /// The request of a device. `is_again`: nobody knows whether it was published before, so its job looks first, and says nothing that
    /// the first one contradicts.
    pub(super) fn request(
        &self,
        request: DeviceRequest,
        carried: &Carried,
        is_again: bool,
    ) -> Outgoing {
        let properties = properties::of_device_request(&request, carried);
        Outgoing {
            target: Target::Requests,
            properties: if is_again {
                properties::marked_redelivered(properties)
            } else {
                properties
            },
            body: request.body,
        }
    }

    /// An order to every worker, which no operator gave and nobody answers.
    pub(super) fn order(
        &self,
        verb: Verb,
        campaign_id: &CampaignId,
        why: Option<&str>,
    ) -> Outgoing {
        let command = Command {
            verb,
            scope: Scope::Campaign(campaign_id.clone()),
            arm_again: None,
        };
        let id = uuid::Uuid::new_v4().to_string();
        Outgoing {
            target: Target::ControlStream,
            properties: properties::of_own_order(&id, why, self.now()),
            body: command.encode(),
        }
    }

    /// An event, for all and for the requester.
    pub(super) fn event(&self, event: EventMessage) -> Vec<Outgoing> {
        event_messages(event, &self.shared.settings, &self.shared.telemetry)
    }

    /// Puts a message to the dead letters, and acknowledges it.
    pub(super) async fn bury(
        &self,
        delivery: &Delivery,
        letter: &DeadLetter,
        queue: &str,
    ) -> Result<(), BrokerError> {
        self.publish(vec![self.dead(delivery, letter, queue)])
            .await?;
        acknowledge(delivery).await
    }

    /// A message of this queue on its way to the dead letters.
    pub(super) fn dead(&self, delivery: &Delivery, letter: &DeadLetter, queue: &str) -> Outgoing {
        let instance = &self.shared.settings.instance_name;
        Outgoing {
            target: Target::Dead,
            properties: properties::of_dead_letter(
                &delivery.properties,
                letter,
                queue,
                instance,
                self.now(),
            ),
            body: delivery.data.clone(),
        }
    }
}

/// Acknowledges a delivery.
pub(super) async fn acknowledge(delivery: &Delivery) -> Result<(), BrokerError> {
    let what = || "acknowledge a message of a campaign".to_owned();
    let acknowledged = delivery.acker.ack(BasicAckOptions::default());
    if bounded(what, CALL_TIMEOUT, acknowledged).await? {
        return Ok(());
    }
    Err(BrokerError::new(
        what(),
        "the channel it came through is gone",
    ))
}

/// What a consumer brought, or why it brings nothing any more.
pub(super) fn taken(
    next: Option<lapin::Result<Delivery>>,
    what: &str,
) -> Result<Delivery, BrokerError> {
    let action = || format!("consume {what}");
    match next {
        Some(Ok(delivery)) => Ok(delivery),
        Some(Err(error)) => Err(BrokerError::of(action(), &error)),
        None => Err(BrokerError::new(
            action(),
            "the broker cancelled the consumer (was the queue deleted?)",
        )),
    }
}
