//! Takes deliveries in: decodes them, hands them to the inbox, or settles them here.
//!
//! Steps and requests have a channel each, with their own prefetch. What comes early is parked again, what a newer release wrote waits for a
//! newer worker, what nobody can read goes to the dead letters, an invalid request is answered. Each of these runs in a task of its own and
//! acknowledges only what was replaced and confirmed; nothing here touches `seq`, so a parked job is the same continuation as before.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery as Original;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};

use super::connection::CALL_TIMEOUT;
use super::delay::{self, Rung};
use super::error::{BrokerError, bounded};
use super::handover::{self, event_messages};
use super::inbox::Item;
use super::ledger::{Admission, Claim};
use super::properties;
use super::publish::{Outgoing, Target, short};
use super::shared::{Link, Settler, Shared, Token, Wanted};
use crate::driver::{Delivery, Intake};
use crate::message::{DeadLetter, Rejection, StepError, Work};

/// Bound of a consumer's cancel, and of taking what it had prefetched.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before a delivery that could not be replaced goes back to its queue: the reason is rarely gone at once.
const GIVE_BACK_AFTER: Duration = Duration::from_secs(5);

/// The two queues that workers consume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Steps,
    Requests,
}

impl Source {
    pub(super) const ALL: [Self; 2] = [Self::Steps, Self::Requests];

    /// The name in metrics and of the channel.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Steps => "steps",
            Self::Requests => "requests",
        }
    }

    /// Where a delivery of this queue is given back unchanged.
    fn target(self) -> Target {
        match self {
            Self::Steps => Target::Steps,
            Self::Requests => Target::RequestsQueue,
        }
    }
}

/// What becomes of deliveries that were prefetched when a consumer is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leftover {
    /// They are taken in all the same.
    Keep,
    /// They are published again: a requeue counts towards the delivery limit before RabbitMQ 4.3, and an NBI that comes and goes would
    /// use the limit up.
    Republish,
    /// They go back at once, as the worker stops.
    Requeue,
}

/// Consumes one queue in one generation.
pub(super) struct Intaker {
    shared: Arc<Shared>,
    link: Arc<Link>,
    channel: Channel,
    source: Source,
}

impl Intaker {
    pub(super) fn new(
        shared: Arc<Shared>,
        link: Arc<Link>,
        channel: Channel,
        source: Source,
    ) -> Self {
        Self {
            shared,
            link,
            channel,
            source,
        }
    }

    /// Runs until the generation ends or the worker stops. Should it end in any other way, so does the generation.
    pub(super) async fn run(self) {
        let intaker = Arc::new(self);
        let guard = EndsGeneration(Arc::clone(&intaker.link), intaker.source);
        let mut wanted = intaker.shared.wanted.subscribe();
        let mut blocked = intaker.shared.blocked.subscribe();
        loop {
            let now_wanted = *wanted.borrow_and_update();
            let is_blocked = blocked.borrow_and_update().is_some();
            intaker.return_waiting(now_wanted).await;
            if now_wanted.is_stopping {
                std::mem::forget(guard);
                return;
            }
            let prefetch = intaker.prefetch(now_wanted, is_blocked);
            if prefetch == 0 {
                tokio::select! {
                    biased;
                    () = intaker.link.ending.ended() => return,
                    _ = wanted.changed() => {}
                    _ = blocked.changed() => {}
                }
                continue;
            }
            if let Err(error) = intaker.session(prefetch).await {
                intaker.link.ending.end(error.to_string());
            }
            if intaker.link.ending.is_over() {
                return;
            }
        }
    }

    fn prefetch(&self, wanted: Wanted, is_blocked: bool) -> u16 {
        let settings = &self.shared.settings;
        let open = match self.source {
            Source::Steps => settings.prefetch,
            // New work waits while the broker is short of memory or disk; work in flight goes on.
            Source::Requests if is_blocked => 0,
            Source::Requests => settings.prefetch_requests,
        };
        match wanted.intake {
            _ if wanted.is_stopping => 0,
            Intake::Open => open,
            Intake::Probe => open.min(1),
            Intake::Closed => 0,
        }
    }

    fn leftover(wanted: Wanted) -> Leftover {
        match wanted.intake {
            _ if wanted.is_stopping => Leftover::Requeue,
            Intake::Closed => Leftover::Republish,
            Intake::Open | Intake::Probe => Leftover::Keep,
        }
    }

    /// Consumes with one prefetch until another one is wanted.
    async fn session(self: &Arc<Self>, prefetch: u16) -> Result<(), BrokerError> {
        let settings = &self.shared.settings;
        let queue = format!("{}.{}", settings.prefix, self.source.label());
        let what = || format!("consume queue \"{queue}\"");
        let qos = self
            .channel
            .basic_qos(prefetch, BasicQosOptions { global: false });
        bounded(what, CALL_TIMEOUT, qos).await?;
        let tag = properties::cut(&format!(
            "{}.{}.{}",
            settings.instance_name,
            self.source.label(),
            self.link.number
        ));
        let options = BasicConsumeOptions::default();
        let consume =
            self.channel
                .basic_consume(short(&queue)?, tag.clone(), options, FieldTable::default());
        let mut consumer =
            bounded(what, CALL_TIMEOUT, consume)
                .await
                .map_err(|error| match error.code {
                    Some(403) => error
                        .with_remedy(format!("the user needs read on ^{}\\..*", settings.prefix)),
                    _ => error,
                })?;
        let mut wanted = self.shared.wanted.subscribe();
        let mut blocked = self.shared.blocked.subscribe();
        loop {
            let current = self.prefetch(
                *wanted.borrow_and_update(),
                blocked.borrow_and_update().is_some(),
            );
            if current != prefetch {
                break;
            }
            tokio::select! {
                biased;
                () = self.link.ending.ended() => return Ok(()),
                _ = wanted.changed() => {}
                _ = blocked.changed() => {}
                next = consumer.next() => match next {
                    Some(Ok(original)) => self.take(original),
                    Some(Err(error)) => return Err(BrokerError::of(what(), &error)),
                    None => return Err(BrokerError::new(what(), "the broker cancelled the consumer (was the queue deleted?)")),
                },
            }
        }
        let cancel = self
            .channel
            .basic_cancel(tag, BasicCancelOptions::default());
        bounded(
            || format!("cancel the consumer of queue \"{queue}\""),
            CANCEL_TIMEOUT,
            cancel,
        )
        .await?;
        self.take_leftovers(consumer).await;
        Ok(())
    }

    /// Takes what had been prefetched when the consumer was cancelled; the stream ends behind it.
    async fn take_leftovers(self: &Arc<Self>, mut consumer: Consumer) {
        let all = async {
            while let Some(Ok(original)) = consumer.next().await {
                let wanted = *self.shared.wanted.borrow();
                match Self::leftover(wanted) {
                    Leftover::Keep => self.take(original),
                    Leftover::Republish => self.replace_with(original, self.source.target()),
                    Leftover::Requeue => self.settler(&original).nack().await,
                }
            }
        };
        if tokio::time::timeout(CANCEL_TIMEOUT, all).await.is_err() {
            self.link.ending.end("a cancelled consumer did not end");
        }
    }

    /// Gives back what waits in the inbox, where that is wanted.
    async fn return_waiting(self: &Arc<Self>, wanted: Wanted) {
        let leftover = Self::leftover(wanted);
        if leftover == Leftover::Keep {
            return;
        }
        for Item { delivery, original } in self.shared.inbox.drain(self.source) {
            match leftover {
                Leftover::Requeue => delivery.token.settler.nack().await,
                Leftover::Republish | Leftover::Keep => {
                    self.replace_with(original, self.source.target())
                }
            }
        }
    }

    fn settler(&self, original: &Original) -> Settler {
        Settler {
            acker: original.acker.clone(),
            link: Arc::clone(&self.link),
        }
    }

    /// One delivery. What was prefetched when the connection ended cannot be settled any more, and comes again.
    fn take(self: &Arc<Self>, original: Original) {
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
            Err(error @ StepError::NewerVersion { .. }) => {
                telemetry.step_parked(&error.to_string());
                self.replace_with(original, Target::Delay(Rung::NEWER_VERSION));
            }
            Err(error @ StepError::Malformed(_)) => {
                telemetry.step_dead_lettered(&error.to_string());
                let letter =
                    self.dead_letter(&original, &DeadLetter::malformed_step(&error.to_string()));
                self.replace(original, vec![letter]);
            }
        }
    }

    fn take_request(self: &Arc<Self>, original: Original) {
        let Shared {
            codec,
            telemetry,
            settings,
            ..
        } = &*self.shared;
        let now = self.shared.now();
        let decoded = caught(|| codec.decode_request(&properties::incoming(&original), now))
            .unwrap_or_else(|| Err(Rejection::default()));
        match decoded {
            Ok(work) => self.admit(work, original),
            Err(rejection) => {
                telemetry.request_rejected(&rejection);
                let event = codec.rejected_event(&properties::incoming(&original), &rejection, now);
                let mut messages = event_messages(event, settings, telemetry);
                messages
                    .push(self.dead_letter(&original, &DeadLetter::invalid_request(&rejection)));
                self.replace(original, messages);
            }
        }
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
                let intaker = Arc::clone(self);
                self.shared
                    .tasks
                    .spawn(async move { intaker.drop_duplicate(&work, &original).await });
            }
            Admission::InHand(twin) => {
                let intaker = Arc::clone(self);
                self.shared.tasks.spawn(async move {
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
        if self.settler(original).ack().await.is_ok() {
            self.shared.ledger.forget(&work.key());
            self.shared.telemetry.duplicate_dropped(&work.job);
        }
    }

    /// Publishes the same message elsewhere, then acknowledges.
    fn replace_with(self: &Arc<Self>, mut original: Original, target: Target) {
        let properties = properties::of_again(&original);
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
        self.shared.tasks.spawn(async move {
            let failed = handover::publish_once(&link, messages, &shared.telemetry).await;
            if failed.is_empty() {
                // Where it fails, the broker delivers it again, and it is replaced again.
                drop(settler.ack().await);
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(GIVE_BACK_AFTER) => {}
                () = link.ending.ended() => {}
                () = shared.stopping() => {}
            }
            settler.nack().await;
        });
    }
}

/// A consumer that is gone unnoticed would leave its queue unattended.
struct EndsGeneration(Arc<Link>, Source);

impl Drop for EndsGeneration {
    fn drop(&mut self) {
        self.0
            .ending
            .end(format!("the consumer of {} ended", self.1.label()));
    }
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
}
