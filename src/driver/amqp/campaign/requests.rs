//! Requests with devices, as they come to the leader.

use std::time::Duration;

use lapin::message::Delivery;
use tokio::time::Instant;

use super::super::error::BrokerError;
use super::super::properties;
use super::coordinator::Input;
use super::leader::{DEFINITION, LEADS_MAX, Leader, PAUSE};
use super::objects;
use crate::job::CampaignId;
use crate::message::{CampaignRequest, DeadLetter, FieldFault, Rejection};

/// Active campaigns; fewer than a leader holds at a time, as what comes behind them would never be seen.
const ACTIVE_MAX: usize = 900;
/// A definition that was confirmed comes to whoever leads at once.
const BACK_WITHIN: Duration = Duration::from_secs(30);
const _: () = assert!(ACTIVE_MAX < LEADS_MAX as usize);

fn refusal(campaign_id: &CampaignId, faults: Vec<FieldFault>) -> Rejection {
    Rejection {
        campaign_id: Some(campaign_id.to_string()),
        faults,
        ..Rejection::default()
    }
}

/// What is wrong with one more campaign where so many are active, or over and not yet cleared away.
fn too_many(active: usize) -> Option<FieldFault> {
    (active >= ACTIVE_MAX).then(|| FieldFault {
        field: "campaign_id".to_owned(),
        message: format!(
            "would be one more than {ACTIVE_MAX} active campaigns, which is the most; wait until others are over, or put their devices together"
        ),
    })
}

impl Leader<'_> {
    /// A request with devices: to its campaign, which is begun if need be, or rejected.
    pub(super) async fn take_request(&mut self, delivery: Delivery) -> Result<(), BrokerError> {
        let shared = &self.outlet.shared;
        let now = shared.now();
        let decoded = shared
            .codec
            .decode_campaign(&properties::incoming(&delivery), now);
        let request = match decoded {
            Some(Ok(request)) => request,
            Some(Err(rejection)) => return self.reject(&delivery, &rejection).await,
            None => {
                let rejection = Rejection {
                    faults: vec![FieldFault {
                        field: "devices".to_owned(),
                        message: "is missing; only requests of campaigns belong here".to_owned(),
                    }],
                    ..Rejection::default()
                };
                return self.reject(&delivery, &rejection).await;
            }
        };
        let campaign_id = &request.definition.campaign_id;
        let Some(led) = self.led.get(campaign_id) else {
            return self.begin(request, delivery).await;
        };
        let faults = led.definition.objections(&request);
        if faults.is_empty() {
            self.accepting = Some(campaign_id.clone());
            let input = Input::Accept(Box::new((request, delivery)));
            drop(led.inputs.send(input));
            return Ok(());
        }
        let rejection = refusal(campaign_id, faults);
        self.reject(&delivery, &rejection).await
    }

    /// The first request of a campaign. What the broker refuses for good is found before anybody waits for it.
    async fn begin(
        &mut self,
        request: CampaignRequest,
        delivery: Delivery,
    ) -> Result<(), BrokerError> {
        // No coordinator has a request in its hands.
        self.accepting = None;
        let campaign_id = request.definition.campaign_id.clone();
        if let Some(fault) = too_many(self.led.len() + self.left.len()) {
            return self
                .reject(&delivery, &refusal(&campaign_id, vec![fault]))
                .await;
        }
        let mut is_needed = false;
        let stands = match self.clear_away(&campaign_id).await {
            Ok(is_gone) => {
                is_needed = !is_gone;
                objects::declare(self.connection, self.prefix(), &campaign_id).await
            }
            Err(error) if error.is_permanent() => Err(error),
            Err(error) => {
                // It may still be deleted, and devices with it that are put there meanwhile.
                let telemetry = &self.outlet.shared.telemetry;
                telemetry.campaign_trouble(campaign_id.as_str(), &error.to_string());
                self.give_back_requests(PAUSE).await;
                return Ok(());
            }
        };
        if let Err(error) = stands.as_ref()
            && error.is_permanent()
        {
            let error = error.to_string();
            let telemetry = &self.outlet.shared.telemetry;
            telemetry.campaign_trouble(campaign_id.as_str(), &error);
            let fault = FieldFault {
                field: "campaign_id".to_owned(),
                message: format!(
                    "cannot be begun as the broker refuses what it needs: {error}; then send the request again, or `nbi-upgrade dead requeue` does"
                ),
            };
            return self
                .reject(&delivery, &refusal(&campaign_id, vec![fault]))
                .await;
        }
        if is_needed {
            // Not before it is certain that this campaign has it.
            self.leave(&campaign_id).await?;
        }
        // What else goes wrong is tried again by its coordinator. The definition comes back, and then the request goes on.
        let queue = objects::leads(self.prefix());
        let body = request.definition.encode();
        let lead = self
            .outlet
            .to_queue(queue, DEFINITION, campaign_id.as_str(), body);
        self.publish(vec![lead]).await?;
        self.beginning = Some((request, delivery, Instant::now() + BACK_WITHIN));
        Ok(())
    }

    async fn reject(
        &mut self,
        delivery: &Delivery,
        rejection: &Rejection,
    ) -> Result<(), BrokerError> {
        let shared = &self.outlet.shared;
        let incoming = properties::incoming(delivery);
        shared
            .telemetry
            .request_rejected(rejection, incoming.traceparent);
        let event = shared
            .codec
            .rejected_event(&incoming, rejection, shared.now());
        let letter = DeadLetter::invalid_request(rejection);
        let queue = objects::requests(self.prefix());
        let along = self.outlet.event(event);
        self.bury(delivery, &letter, &queue, along).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_campaign_more_than_can_be_led_is_refused_and_says_why() {
        assert_eq!(too_many(0), None);
        assert_eq!(too_many(899), None);
        let fault = too_many(900).expect("it is one too many");
        assert!(fault.message.contains("900 active"), "{fault:?}");
    }
}
