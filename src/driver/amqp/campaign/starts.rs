//! What becomes of devices at hand: they are started, dropped, sent back to wait, or told that they will not be started.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use jiff::Timestamp;
use lapin::message::Delivery;
use lapin::options::BasicNackOptions;
use tokio::time::Instant;

use super::super::connection::CALL_TIMEOUT;
use super::super::outgoing::Outgoing;
use super::coordinator::{BATCH_MAX, Coordinator, Desk, LOOK, Stop};
use super::objects;
use super::outlet::{acknowledge, taken};
use crate::campaign::{Admission, Conclusion, Device};
use crate::message::campaign::{Happened, Summary, Waiting};
use crate::message::{CampaignRequest, DeadLetter, campaign, headers, unix_seconds};

/// Between two rounds of devices whose keys are busy.
const ROTATE: Duration = Duration::from_secs(5);

impl Coordinator {
    /// Takes the message of a device to hand.
    pub(super) async fn hold(
        &self,
        desk: &mut Desk,
        next: Option<lapin::Result<Delivery>>,
    ) -> Result<(), Stop> {
        let delivery = taken(next, "devices of a campaign")?;
        desk.empty_looks = 0;
        let Some(waiting) = self.definition.decode_waiting(&delivery.data) else {
            let trouble = "a device in the queue cannot be read";
            let telemetry = &self.outlet.shared.telemetry;
            telemetry.campaign_trouble(self.definition.campaign_id.as_str(), trouble);
            let letter = DeadLetter::malformed_step(trouble);
            return Ok(self.outlet.bury(&delivery, &letter, &desk.queue).await?);
        };
        // It counts as one that is at hand from now on.
        desk.ready = desk.ready.saturating_sub(1);
        match put(&mut desk.at_hand, waiting, delivery) {
            Some(before) => Ok(acknowledge(&before).await?),
            None => Ok(()),
        }
    }

    /// Takes what else has come to hand, so that it is started together.
    pub(super) async fn hold_ready(&self, desk: &mut Desk) -> Result<(), Stop> {
        // Bounded also where messages are unreadable or take another's place: orders wait meanwhile.
        for _ in 0..desk.prefetch {
            if desk.at_hand.len() >= desk.prefetch {
                break;
            }
            let Some(next) = desk.devices.next().now_or_never() else {
                break;
            };
            self.hold(desk, next).await?;
        }
        Ok(())
    }

    /// Asks the queue for its length, and gives back what was held for long.
    pub(super) async fn look(&mut self, desk: &mut Desk) -> Result<(), Stop> {
        if desk.looked_at.elapsed() < LOOK {
            return Ok(());
        }
        desk.looked_at = Instant::now();
        let (ready, consumers) = objects::depth(&desk.channel, &desk.queue).await?;
        desk.ready = ready.into();
        // A coordinator before this one may still be there, and have the rest of the devices in its hands.
        if desk.ready == 0 && desk.at_hand.is_empty() && consumers <= 1 {
            desk.empty_looks += 1;
        } else {
            desk.empty_looks = 0;
        }
        // Also while nothing may start: copies would count as devices that wait, and stand in the way of those behind them.
        drop(self.admit(desk, 0, 0).await?);
        let waiting = desk.ready + desk.at_hand.len() as u64;
        let summary = Summary::of(&self.state, waiting, self.gate);
        drop(
            self.summaries
                .try_send((self.definition.campaign_id.clone(), summary)),
        );
        if desk.held_since.elapsed() >= self.outlet.shared.settings.campaign_held_max {
            desk.held_since = Instant::now();
            for (_, delivery) in desk.at_hand.drain(..) {
                let back = delivery.acker.nack(BasicNackOptions {
                    multiple: false,
                    requeue: true,
                });
                drop(tokio::time::timeout(CALL_TIMEOUT, back).await);
            }
        }
        Ok(())
    }

    /// Puts the devices of a request into the queue. Done again after a crash, it makes copies there, which are dropped when their turn comes.
    pub(super) async fn accept(
        &mut self,
        desk: &mut Desk,
        request: &CampaignRequest,
        delivery: &Delivery,
    ) -> Result<(), Stop> {
        let asked = request.definition.asked;
        if self.log.is_before(asked.at) {
            self.write_asked_since(desk, asked.at).await?;
        }
        for part in request.devices.chunks(BATCH_MAX as usize) {
            let messages = part.iter().map(|device| {
                let device = device.clone();
                self.waiting(&desk.queue, &Waiting { device, asked })
            });
            self.outlet.publish(messages.collect()).await?;
        }
        desk.empty_looks = 0;
        desk.ready += request.devices.len() as u64;
        let name = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, &delivery.data);
        let happened = Happened::Accepted {
            devices: request.devices.len(),
            request: name.to_string(),
        };
        self.announce(desk, &happened, None).await?;
        Ok(acknowledge(delivery).await?)
    }

    /// Writes into the log that outcomes of jobs count from now on that were asked for so early.
    async fn write_asked_since(&mut self, desk: &mut Desk, since: Timestamp) -> Result<(), Stop> {
        let entry = campaign::encode_asked_since(self.outlet.now(), since);
        self.write_down(desk, "upgrade.campaign.asked_since", entry)
            .await
    }

    /// A device on its way to the end of the queue.
    fn waiting(&self, queue: &str, waiting: &Waiting) -> Outgoing {
        let id = campaign::job_id(&self.definition.campaign_id, &waiting.device.cpe_id);
        let body = self.definition.encode_waiting(waiting);
        let kind = "upgrade.campaign.device";
        self.outlet
            .to_queue(queue.to_owned(), kind, id.as_str(), body)
    }

    /// Takes those that may be started from the devices at hand, and acknowledges copies; how many copies there were.
    async fn admit(
        &self,
        desk: &mut Desk,
        starts: usize,
        places: usize,
    ) -> Result<(Vec<(Waiting, Delivery)>, usize), Stop> {
        let devices = devices_of(&desk.at_hand);
        let plan = &self.definition.plan;
        let answers = self.state.admit(plan, &devices, starts, places);
        let (mut kept, mut starting, mut dropping) = (Vec::new(), Vec::new(), Vec::new());
        for (held, answer) in desk.at_hand.drain(..).zip(answers) {
            match answer {
                Admission::Start => starting.push(held),
                Admission::Drop => dropping.push(held.1),
                Admission::Wait => kept.push(held),
            }
        }
        desk.at_hand = kept;
        for copy in &dropping {
            acknowledge(copy).await?;
        }
        Ok((starting, dropping.len()))
    }

    /// Starts devices that are at hand, at most so many, and so many that take a place; whether anything was done.
    pub(super) async fn release(
        &mut self,
        desk: &mut Desk,
        at_most: u32,
        places: u32,
    ) -> Result<bool, Stop> {
        let at_most = at_most.min(BATCH_MAX) as usize;
        let (starting, copies) = self.admit(desk, at_most, places as usize).await?;
        if starting.is_empty() {
            if copies == 0 && places > 0 && desk.at_hand.len() >= desk.prefetch {
                return self.rotate(desk).await;
            }
            return Ok(copies > 0);
        }
        let devices = devices_of(&starting);
        let is_again = |device: &Device| self.state.is_released(&device.cpe_id);
        let again: Vec<bool> = devices.iter().map(is_again).collect();
        let at = self.outlet.now();
        let entry = campaign::encode_release(&self.id, at, &devices);
        self.write_down(desk, "upgrade.campaign.release", entry)
            .await?;
        self.publish_requests(&starting, &again, at).await?;
        for (_, delivery) in &starting {
            acknowledge(delivery).await?;
        }
        self.state.settle(&self.id);
        self.outlet
            .shared
            .telemetry
            .campaign_released(devices.len());
        Ok(true)
    }

    async fn publish_requests(
        &self,
        starting: &[(Waiting, Delivery)],
        again: &[bool],
        at: Timestamp,
    ) -> Result<(), Stop> {
        let timeout = self.outlet.shared.codec.requests.timeout;
        let requests = starting.iter().zip(again).map(|((waiting, _), is_again)| {
            let request = self.definition.request(waiting, at, timeout);
            self.outlet
                .request(request, &self.definition.carried, *is_again)
        });
        Ok(self.outlet.publish(requests.collect()).await?)
    }

    /// Sends everything at hand to the end of the queue: all of it waits for its key, and others may be behind.
    async fn rotate(&self, desk: &mut Desk) -> Result<bool, Stop> {
        if desk.rotated_at.elapsed() < ROTATE || desk.ready == 0 {
            return Ok(false);
        }
        desk.rotated_at = Instant::now();
        let held: Vec<_> = desk.at_hand.drain(..).collect();
        let again = held
            .iter()
            .map(|(waiting, _)| self.waiting(&desk.queue, waiting));
        self.outlet.publish(again.collect()).await?;
        for (_, delivery) in &held {
            acknowledge(delivery).await?;
        }
        Ok(false)
    }

    /// Tells devices at hand their outcome, which they get without having been started; whether anything was done.
    pub(super) async fn drain(
        &mut self,
        desk: &mut Desk,
        conclusion: Conclusion,
    ) -> Result<bool, Stop> {
        let count = desk.at_hand.len().min(BATCH_MAX as usize);
        if count == 0 {
            return Ok(false);
        }
        let held: Vec<_> = desk.at_hand.drain(..count).collect();
        let devices = devices_of(&held);
        let plan = &self.definition.plan;
        let answers = self.state.admit(plan, &devices, count, count);
        let now = self.outlet.now();
        let shared = Arc::clone(&self.outlet.shared);
        let mut messages = Vec::with_capacity(count);
        let mut last = None;
        for ((waiting, _), answer) in held.iter().zip(answers) {
            let cpe_id = &waiting.device.cpe_id;
            if answer == Admission::Drop || self.state.is_finished(cpe_id) {
                continue;
            }
            let timeout = shared.codec.requests.timeout;
            let request = self.definition.request(waiting, now, timeout);
            if self.state.is_released(cpe_id) {
                // Whether it was started is not known. Its job finds out, and ends at once if it was not.
                messages.push(self.outlet.request(request, &self.definition.carried, true));
                continue;
            }
            let incoming = headers::Incoming {
                body: &request.body,
                timestamp: Some(unix_seconds(request.timestamp)),
                ..headers::Incoming::default()
            };
            let events = match shared.codec.decode_request(&incoming, now) {
                Ok(work) => campaign::never_started(work, conclusion, &shared.codec, now),
                Err(rejection) => vec![shared.codec.rejected_event(&incoming, &rejection, now)],
            };
            for event in events {
                last = Some(event.id.clone());
                messages.extend(self.outlet.event(event));
            }
        }
        self.outlet.publish(messages).await?;
        if let Some(id) = last {
            self.read_back(desk, &id).await?;
        }
        for (_, delivery) in &held {
            acknowledge(delivery).await?;
        }
        Ok(true)
    }
}

/// Puts a device to hand; the delivery that this one replaces, if its message was at hand already.
///
/// When the node that leads the queue was away for a moment, the broker takes everything back and delivers it again, and says nothing of
/// that: of two deliveries of one message only the newer one is alive. Messages of a device that differ are left to [`Admission`].
fn put<D>(at_hand: &mut Vec<(Waiting, D)>, waiting: Waiting, delivery: D) -> Option<D> {
    let before = at_hand.iter_mut().find(|(held, _)| *held == waiting);
    if let Some((_, held)) = before {
        return Some(std::mem::replace(held, delivery));
    }
    at_hand.push((waiting, delivery));
    None
}

fn devices_of<D>(held: &[(Waiting, D)]) -> Vec<Device> {
    held.iter()
        .map(|(waiting, _)| waiting.device.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::{Plan, State};
    use crate::job::CpeId;
    use crate::message::campaign::Asked;

    fn waiting(cpe_id: &str, asked_at: i64) -> Waiting {
        Waiting {
            device: Device {
                cpe_id: CpeId::parse(cpe_id).unwrap(),
                concurrency_key: None,
            },
            asked: Asked {
                at: Timestamp::from_second(asked_at).unwrap(),
                is_said: true,
            },
        }
    }

    /// All that is dropped is `Admission`'s to say: of two deliveries of one message it would drop the one that is alive.
    #[test]
    fn of_two_deliveries_of_one_message_the_newer_is_kept_and_the_older_acknowledged() {
        let mut at_hand = Vec::new();
        let all = [
            ("A", 1, 11, None),
            ("B", 1, 12, None),
            ("A", 1, 13, Some(11)),
            // Of another request: the first one of these two counts.
            ("A", 2, 14, None),
            ("B", 1, 15, Some(12)),
            ("A", 2, 16, Some(14)),
        ];
        for (cpe_id, asked_at, tag, replaced) in all {
            let before = put(&mut at_hand, waiting(cpe_id, asked_at), tag);
            assert_eq!(before, replaced, "{tag}");
        }
        let devices = devices_of(&at_hand);
        let answers = State::default().admit(&Plan::default(), &devices, 0, 0);
        let kept: Vec<_> = at_hand.iter().map(|(_, tag)| *tag).zip(answers).collect();
        assert_eq!(
            kept,
            [
                (13, Admission::Wait),
                (15, Admission::Wait),
                (16, Admission::Drop)
            ]
        );
    }
}
