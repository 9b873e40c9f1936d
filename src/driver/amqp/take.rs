//! One delivery: to the worker, or settled here.
//!
//! What comes early is parked again, what a newer release wrote waits for a newer worker, what nobody can read goes to the dead letters, an
//! invalid request is answered. Each of these runs in a task of its own and acknowledges only what was replaced and confirmed; nothing
//! here touches `seq`, so a parked job is the same continuation as before.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use lapin::message::Delivery as Original;

use super::consume::{Intaker, Source};
use super::delay::{self, Rung};
use super::handover::{self, event_messages};
use super::inbox::Item;
use super::ledger::{Admission, Claim};
use super::outgoing::{Outgoing, Target};
use super::properties;
use super::shared::{Settler, Shared, Token};
use crate::driver::Delivery;
use crate::message::control::Command;
use crate::message::{DeadLetter, FieldFault, Named, Rejection, StepError, Work};

/// What a publish that is under way may take when the worker stops.
const STOPPING_WITHIN: Duration = Duration::from_secs(3);

impl Intaker {
    pub(super) fn settler(&self, original: &Original) -> Settler {
        Settler {
            acker: original.acker.clone(),
            link: Arc::clone(&self.link),
        }
    }

    /// One delivery. What was prefetched when the connection ended cannot be settled any more, and comes again.
    pub(super) fn take(self: &Arc<Self>, original: Original) {
        if !original.acker.usable() {
            return;
        }
        self.shared
            .telemetry
            .received(self.source.label(), original.redelivered);
        match self.source {
            Source::Steps => self.take_step(original),
            Source::Requests => self.take_request(original),
        }
    }

    fn take_step(self: &Arc<Self>, original: Original) {
        let Shared {
            codec, telemetry, ..
        } = &*self.shared;
        let decoded = caught(|| codec.decode_step(&properties::incoming(&original)))
            .unwrap_or_else(|| Err(StepError::Malformed("decoding it panicked".to_owned())));
        match decoded {
            Ok(work) => {
                if let Some(due) = work.not_due_before {
                    let now = self.shared.now();
                    if let Some(rung) = delay::rung(due, now) {
                        return self.replace_with(original, Target::Delay(rung));
                    }
                    telemetry.lateness(
                        Duration::try_from(now.duration_since(due)).unwrap_or(Duration::ZERO),
                    );
                }
                self.admit(work, original);
            }
            Err(error) if error.is_of_newer_release() => {
                telemetry.step_parked(&error.to_string());
                self.replace_with(original, Target::Delay(Rung::NEWER_VERSION));
            }
            Err(error) => {
                telemetry.step_dead_lettered(&Named::in_body(&original.data), &error.to_string());
                let letter =
                    self.dead_letter(&original, &DeadLetter::malformed_step(&error.to_string()));
                self.replace(original, vec![letter]);
            }
        }
    }

    fn take_request(self: &Arc<Self>, original: Original) {
        let Shared { codec, .. } = &*self.shared;
        let now = self.shared.now();
        let incoming = properties::incoming(&original);
        let campaign = caught(|| codec.decode_campaign(&incoming, now))
            .unwrap_or_else(|| Some(Err(undecodable())));
        match campaign {
            Some(Ok(_)) => return self.to_leader(original),
            Some(Err(rejection)) => return self.reject_request(original, &rejection),
            None => {}
        }
        let decoded = caught(|| codec.decode_request(&properties::incoming(&original), now))
            .unwrap_or_else(|| Err(undecodable()));
        match decoded {
            Ok(work) => self.admit(work, original),
            Err(rejection) => self.reject_request(original, &rejection),
        }
    }

    /// A campaign's request: one worker leads all campaigns.
    fn to_leader(self: &Arc<Self>, mut original: Original) {
        let properties = properties::of_campaign_request(&original, self.shared.now());
        let body = std::mem::take(&mut original.data);
        let message = Outgoing {
            target: Target::CampaignRequests,
            properties,
            body,
        };
        self.replace(original, vec![message]);
    }

    fn reject_request(self: &Arc<Self>, original: Original, rejection: &Rejection) {
        let Shared {
            codec,
            telemetry,
            settings,
            ..
        } = &*self.shared;
        let incoming = properties::incoming(&original);
        telemetry.request_rejected(rejection, incoming.traceparent);
        let event = codec.rejected_event(&incoming, rejection, self.shared.now());
        let mut messages = event_messages(event, settings, telemetry);
        messages.push(self.dead_letter(&original, &DeadLetter::invalid_request(rejection)));
        self.replace(original, messages);
    }

    fn dead_letter(&self, original: &Original, letter: &DeadLetter) -> Outgoing {
        let settings = &self.shared.settings;
        let queue = format!("{}.{}", settings.prefix, self.source.label());
        let now = self.shared.now();
        let properties = properties::of_dead_letter(
            &original.properties,
            letter,
            &queue,
            &settings.instance_name,
            now,
        );
        Outgoing {
            target: Target::Dead,
            properties,
            body: original.data.clone(),
        }
    }

    /// To the worker, unless a copy is in hand or the replacement is known to be confirmed.
    fn admit(self: &Arc<Self>, work: Work, mut original: Original) {
        match self
            .shared
            .ledger
            .admit(&work.key(), properties::is_redelivered(&original))
        {
            Admission::Claimed(claim) => self.push(work, original, claim),
            Admission::Replaced => {
                let (intaker, settler) = (Arc::clone(self), self.settler(&original));
                self.settle(settler, async move {
                    intaker.drop_duplicate(&work, &original).await;
                });
            }
            Admission::InHand(twin) => {
                let (intaker, settler) = (Arc::clone(self), self.settler(&original));
                self.settle(settler, async move {
                    tokio::select! {
                        biased;
                        () = intaker.link.ending.ended() => {}
                        is_superfluous = twin.replaced_meanwhile() => {
                            if is_superfluous {
                                intaker.drop_duplicate(&work, &original).await;
                            } else {
                                original.redelivered = true;
                                intaker.admit(work, original);
                            }
                        }
                        () = intaker.shared.stopping() => intaker.settler(&original).nack().await,
                    }
                });
            }
        }
    }

    fn push(&self, work: Work, original: Original, claim: Claim) {
        let token = Token {
            settler: self.settler(&original),
            claim,
        };
        let delivery = Delivery {
            work,
            redelivered: properties::is_redelivered(&original),
            token,
        };
        self.shared
            .inbox
            .push(self.source, Item { delivery, original });
    }

    async fn drop_duplicate(&self, work: &Work, original: &Original) {
        let ledger = &self.shared.ledger;
        if self.settler(original).ack().await.is_ok() {
            ledger.acknowledged(work.key(), self.link.number);
            self.shared.telemetry.duplicate_dropped(&work.job);
        } else {
            ledger.remember(work.key());
        }
    }

    /// Publishes the same message elsewhere or once more, then acknowledges.
    pub(super) fn replace_with(self: &Arc<Self>, mut original: Original, target: Target) {
        let properties = if target == Target::RequestsQueue {
            properties::of_request_again(&original, self.shared.now())
        } else {
            properties::of_again(&original)
        };
        let body = std::mem::take(&mut original.data);
        let message = Outgoing {
            target,
            properties,
            body,
        };
        self.replace(original, vec![message]);
    }

    /// Publishes what takes a delivery's place, then acknowledges it; in a task of its own, at most as many as the prefetch.
    ///
    /// A lost acknowledgement is not remembered here: the replacement has the same key, and would be dropped in its place.
    fn replace(self: &Arc<Self>, original: Original, messages: Vec<Outgoing>) {
        let settler = self.settler(&original);
        let (shared, link) = (Arc::clone(&self.shared), Arc::clone(&self.link));
        self.settle(settler.clone(), async move {
            // Refusals are waited out with the delivery in hand: going back to the queue would count towards the delivery limit.
            let gives_up = async {
                tokio::select! {
                    // The broker takes away what is held for longer, and all that is in hand with it.
                    () = tokio::time::sleep(handover::PUBLISH_WITHIN) => {}
                    () = shared.stopping() => {}
                }
            };
            let published = handover::publish_until(&link, messages, &shared.telemetry, gives_up);
            let is_done = tokio::select! {
                biased;
                is_done = published => is_done,
                // What is on the wire already is given back only when it cannot be waited for: that may make two of it.
                () = async {
                    shared.stopping().await;
                    tokio::time::sleep(STOPPING_WITHIN).await;
                } => false,
            };
            if is_done {
                // Where it fails, the broker delivers it again, and it is replaced again.
                drop(settler.ack().await);
                return;
            }
            settler.nack().await;
        });
    }

    /// Settles a delivery in a task of its own.
    fn settle(&self, settler: Settler, settling: impl Future<Output = ()> + Send + 'static) {
        let settled = or_else(settling, async move { settler.reject().await });
        self.shared.settlements.spawn(settled);
    }
}

/// What panics is rejected, as it would hold its place until the channel ends.
async fn or_else(settling: impl Future<Output = ()>, reject: impl Future<Output = ()>) {
    if AssertUnwindSafe(settling).catch_unwind().await.is_err() {
        reject.await;
    }
}

/// What is said of a request whose decoding panicked.
fn undecodable() -> Rejection {
    Rejection {
        faults: vec![undecodable_body()],
        ..Rejection::default()
    }
}

fn undecodable_body() -> FieldFault {
    FieldFault {
        field: "body".to_owned(),
        message: "cannot be decoded, which is a fault of this worker; please report it".to_owned(),
    }
}

/// The command in a message. One whose decoding panics is not valid: it stands in the stream, and is read by every worker that connects.
pub(super) fn command(body: &[u8]) -> Result<Command, Vec<FieldFault>> {
    command_by(|| Command::decode(body))
}

fn command_by(
    decode: impl FnOnce() -> Result<Command, Vec<FieldFault>>,
) -> Result<Command, Vec<FieldFault>> {
    caught(decode).unwrap_or_else(|| Err(vec![undecodable_body()]))
}

/// A panic on a message must not end the consumer: the message would come again and again.
fn caught<T>(decode: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(AssertUnwindSafe(decode)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_while_decoding_is_caught() {
        assert_eq!(caught(|| 1), Some(1));
        assert_eq!(caught(|| -> u8 { panic!("poison") }), None);
    }

    #[tokio::test]
    async fn a_settlement_that_panics_is_rejected_and_one_that_ends_is_not() {
        for panics in [true, false] {
            let mut rejected = false;
            let settling = async { assert!(!panics, "poison") };
            or_else(settling, async { rejected = true }).await;
            assert_eq!(rejected, panics);
        }
    }

    #[test]
    fn a_command_whose_decoding_panics_is_not_valid() {
        assert!(command(br#"{"command":"cancel","job_id":"job"}"#).is_ok());
        let faults = command_by(|| panic!("poison")).unwrap_err();
        assert_eq!(faults, [undecodable_body()]);
    }
}
