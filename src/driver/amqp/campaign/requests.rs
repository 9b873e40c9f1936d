//! Requests with devices, as they come to the leader.

use lapin::message::Delivery;

use super::super::error::BrokerError;
use super::super::properties;
use super::coordinator::Input;
use super::leader::{DEFINITION, Leader};
use super::objects;
use crate::message::{DeadLetter, FieldFault, Rejection};

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
            let queue = objects::leads(self.prefix());
            let body = request.definition.encode();
            let lead = self
                .outlet
                .to_queue(queue, DEFINITION, campaign_id.as_str(), body);
            self.beginning = Some((request, delivery));
            // It comes back as a definition, and then the request goes on.
            return self.outlet.publish(vec![lead]).await;
        };
        let faults = led.definition.objections(&request);
        if faults.is_empty() {
            self.accepting = Some(campaign_id.clone());
            let input = Input::Accept(Box::new((request, delivery)));
            drop(led.inputs.send(input).await);
            return Ok(());
        }
        let rejection = Rejection {
            campaign_id: Some(campaign_id.to_string()),
            faults,
            ..Rejection::default()
        };
        self.reject(&delivery, &rejection).await
    }

    async fn reject(&self, delivery: &Delivery, rejection: &Rejection) -> Result<(), BrokerError> {
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
        self.outlet
            .bury(delivery, &letter, queue, self.outlet.event(event))
            .await
    }
}
