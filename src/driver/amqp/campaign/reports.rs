//! What a coordinator tells: events, each written into the log by being published, and the answers to orders.

use std::sync::Arc;

use jiff::SignedDuration;
use tokio::time::Instant;

use super::coordinator::{Coordinator, Desk, Ended, FORECAST, READ_BACK, Stop};
use super::objects;
use super::order::{self, Order};
use crate::campaign::{Conclusion, Counts, PauseReason, forecast};
use crate::clock;
use crate::job::ArmAgain;
use crate::message::campaign::{CampaignEvent, Happened, Summary, encode_everything_resumed};
use crate::message::control::Verb;

/// The first request of a campaign is accepted within this, unless something goes wrong.
const ACCEPTED_WITHIN: SignedDuration = SignedDuration::from_mins(1);

impl Coordinator {
    /// Publishes an event, which the log gets too, and waits until it has come back.
    pub(super) async fn announce(
        &mut self,
        desk: &mut Desk,
        happened: &Happened,
        order: Option<&Order>,
    ) -> Result<(), Stop> {
        let offset = order.map(|order| order.offset.to_string());
        let shared = Arc::clone(&self.outlet.shared);
        let event = CampaignEvent {
            definition: &self.definition,
            state: &self.state,
            waiting: desk.ready + desk.at_hand.len() as u64,
            happened,
            order: offset.as_deref().map(|offset| {
                (
                    offset,
                    order.and_then(|order| order.correlation_id.as_deref()),
                )
            }),
            now: self.outlet.now(),
        };
        let event = event.message(&shared.codec.events);
        let id = event.id.clone();
        self.outlet.publish(self.outlet.event(event)).await?;
        self.read_back(desk, &id).await?;
        let summary = Summary::of(&self.state, desk.waiting(), self.gate);
        shared.telemetry.campaign_happened(
            self.definition.campaign_id.as_str(),
            happened,
            &summary,
        );
        Ok(())
    }

    /// Writes an entry of our own into the log, and waits until it has come back.
    pub(super) async fn write_down(
        &mut self,
        desk: &mut Desk,
        kind: &str,
        entry: Vec<u8>,
    ) -> Result<(), Stop> {
        let log = objects::log(self.prefix(), &self.definition.campaign_id);
        let id = uuid::Uuid::new_v4().to_string();
        let message = self.outlet.to_queue(log, kind, &id, entry);
        self.outlet.publish(vec![message]).await?;
        self.read_back(desk, &id).await
    }

    /// Carries out what operators have ordered since the last order that was carried out.
    pub(super) async fn obey(&mut self, desk: &mut Desk) -> Result<(), Stop> {
        while let Some(order) = self.orders.pop_front() {
            if self.order_done().is_some_and(|done| order.offset <= done) {
                continue;
            }
            // Two coordinators may both have wanted it.
            let is_again = order.by_itself.is_some() && self.state.paused.is_some();
            if order.by_itself.is_some() {
                self.pause_ordered = None;
            }
            // What was ordered before the campaign ends a pause, and does nothing else.
            let ends_nothing = order.verb == Verb::Resume
                && self.state.paused.is_none()
                && order.is_before(self.definition.began_at);
            if is_again || ends_nothing {
                continue;
            }
            let by_default = self.outlet.shared.settings.campaign_arm_again_after;
            let by_default = Some(by_default).filter(SignedDuration::is_positive);
            let arm_again = order.arm_again.or_else(|| {
                let over = SignedDuration::ZERO;
                by_default.map(|after| ArmAgain { after, over })
            });
            if order.campaign_id.is_none() {
                let entry = encode_everything_resumed(
                    self.outlet.now(),
                    order.ends_stop,
                    arm_again,
                    &order.offset.to_string(),
                );
                self.write_down(desk, "upgrade.campaign.everything_resumed", entry)
                    .await?;
                continue;
            }
            let happened = match order.verb {
                Verb::Pause => {
                    self.pause_ordered = None;
                    let (reason, message) = order.by_itself.clone().unwrap_or_else(|| {
                        let message = "an operator paused the campaign".to_owned();
                        (PauseReason::Operator, message)
                    });
                    Happened::Paused { reason, message }
                }
                Verb::Resume => Happened::Resumed { arm_again },
                Verb::Cancel => Happened::Cancelling,
            };
            self.announce(desk, &happened, Some(&order)).await?;
        }
        Ok(())
    }

    /// Pauses by an order to every worker, as an operator does, so that they disarm what has not begun. The campaign is paused when the
    /// order comes back; until then nothing is started, as what is to be paused is not released.
    pub(super) async fn order_pause(
        &mut self,
        reason: PauseReason,
        message: &str,
    ) -> Result<(), Stop> {
        if self
            .pause_ordered
            .is_some_and(|at| at.elapsed() < READ_BACK)
        {
            return Ok(());
        }
        self.pause_ordered = Some(Instant::now());
        let why = order::why(reason, message);
        let campaign_id = &self.definition.campaign_id;
        let order = self.outlet.order(Verb::Pause, campaign_id, Some(&why));
        Ok(self.outlet.publish(vec![order]).await?)
    }

    /// Ends the campaign; `None`: without a word, as nothing is known of it. Where it is paused, or has ordered to be, it is resumed, so
    /// that another one of its name does not begin paused.
    pub(super) async fn conclude(
        &mut self,
        desk: &mut Desk,
        conclusion: Option<Conclusion>,
    ) -> Stop {
        if self.state.paused.is_some() || self.pause_ordered.is_some() {
            let campaign_id = &self.definition.campaign_id;
            let order = self.outlet.order(Verb::Resume, campaign_id, None);
            if let Err(error) = self.outlet.publish(vec![order]).await {
                return error.into();
            }
        }
        let Some(conclusion) = conclusion else {
            let campaign_id = self.definition.campaign_id.as_str();
            let why =
                "it is given up: its log says nothing of an accepted request, and no device waits";
            self.outlet
                .shared
                .telemetry
                .campaign_trouble(campaign_id, why);
            return Stop::Ended(Ended::Concluded);
        };
        let happened = Happened::Concluded(conclusion);
        match self.announce(desk, &happened, None).await {
            Ok(()) => Stop::Ended(Ended::Concluded),
            Err(stop) => stop,
        }
    }

    /// What is wrong with the log that was just read, whose first entry has this offset.
    pub(super) fn what_is_lost(&self, first: u64) -> Option<String> {
        let queue = objects::log(self.prefix(), &self.definition.campaign_id);
        if first > 0 {
            return Some(format!(
                "stream \"{queue}\" was trimmed and begins with entry {first}: devices may be started again and counts are too low; take the \
                 policy away that limits it"
            ));
        }
        let age = self.outlet.now().duration_since(self.definition.began_at);
        let is_known = self.state.accepted_at.is_some() || self.state.is_concluded;
        (!is_known && age > ACCEPTED_WITHIN).then(|| {
            format!(
                "stream \"{queue}\" says nothing of an accepted request, so nothing is started; if it was deleted, send the request again, with \
                 its requested_at, or cancel the campaign"
            )
        })
    }

    /// Publishes counts and what the forecast says, from time to time.
    pub(super) async fn report(&mut self, desk: &mut Desk) -> Result<(), Stop> {
        let Some(accepted_at) = self.state.accepted_at else {
            return Ok(());
        };
        let now = self.outlet.now();
        let interval = self.outlet.shared.settings.campaign_progress_interval;
        let (since, counts) = self
            .state
            .progressed
            .unwrap_or_else(|| (accepted_at, Counts::default()));
        if clock::until(since, now) >= interval && counts != self.state.counts() {
            self.announce(desk, &Happened::Progress, None).await?;
        }
        let plan = &self.definition.plan;
        if plan.deadline.is_some() && desk.forecast_at.elapsed() >= FORECAST {
            desk.forecast_at = Instant::now();
            let waiting = desk.ready + desk.at_hand.len() as u64;
            if let Some(is_in_jeopardy) = forecast::is_in_jeopardy(plan, &self.state, waiting, now)
                && is_in_jeopardy != self.state.is_in_jeopardy
            {
                let happened = Happened::Jeopardy {
                    is_in_jeopardy,
                    done_at: forecast::done_at(plan, &self.state, waiting, now),
                };
                self.announce(desk, &happened, None).await?;
            }
        }
        Ok(())
    }
}
