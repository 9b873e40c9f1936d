//! Publishes what replaces a delivery, across generations if need be.
//!
//! Stage done, then publish, confirm, acknowledge: in this order, so that a crash between any two of them loses nothing. A generation that
//! ends in between is waited out: what the NBI answered is in hand here, and repeating the publish is cheaper than repeating the stage.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use jiff::Timestamp;
use tokio::time::Instant;

use super::delay;
use super::ledger::Key;
use super::outgoing::{Outgoing, Target};
use super::properties;
use super::publish::PublishError;
use super::settings::AmqpSettings;
use super::shared::{Link, Shared, Token};
use crate::clock;
use crate::driver::{Destination, DriverError, HandOver};
use crate::job::state::Order;
use crate::message::EventMessage;
use crate::telemetry::Telemetry;

/// How long a hand-over is tried before the delivery goes back: long, as going back counts towards the delivery limit, but less than the
/// half hour after which the broker takes it away.
pub const PUBLISH_WITHIN: Duration = Duration::from_secs(1_500);
/// Pauses after a refusal grow from this…
const REFUSED_PAUSE_MIN: Duration = Duration::from_millis(500);
/// …to this.
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(8);

/// Publishes, awaits every confirm, acknowledges. What panics on the way is rejected, as it would hold its place until the channel ends.
///
/// # Errors
///
/// As [`crate::driver::Driver::carry_out`].
pub(super) async fn carry_out(
    shared: &Shared,
    token: Token,
    hand_over: HandOver,
) -> Result<(), DriverError> {
    let settler = token.settler.clone();
    let settled = AssertUnwindSafe(settle(shared, token, hand_over)).catch_unwind();
    match settled.await {
        Ok(outcome) => outcome,
        Err(_) => {
            settler.reject().await;
            Err(DriverError::NotPublished {
                target: "the broker".to_owned(),
                message: "handing over panicked, which is a fault of this worker".to_owned(),
            })
        }
    }
}

async fn settle(shared: &Shared, token: Token, hand_over: HandOver) -> Result<(), DriverError> {
    let replacement = (hand_over.to != Destination::Nowhere).then(|| hand_over.work.key());
    let messages = messages(shared, hand_over);
    if let Err(error) = publish(shared, messages, replacement.as_ref()).await {
        token.settler.nack().await;
        return Err(error);
    }
    token
        .acknowledge(&shared.ledger, replacement.as_ref())
        .await
        .map_err(|message| DriverError::NotAcknowledged { message })
}

/// Everything that a hand-over publishes: the events, so that they precede those of the next worker, then the continuation.
fn messages(shared: &Shared, hand_over: HandOver) -> Vec<Outgoing> {
    let HandOver {
        mut work,
        to,
        events,
    } = hand_over;
    let mut messages = Vec::with_capacity(events.len() + 1);
    for event in events {
        messages.extend(event_messages(event, &shared.settings, &shared.telemetry));
    }
    let now = shared.now();
    if let Some((target, due)) = continuation(rounded(to, &work.job.order, now), now) {
        work.not_due_before = due;
        let properties = properties::of_step(&work, now);
        messages.push(Outgoing {
            target,
            properties,
            body: shared.codec.encode_step(&work),
        });
    }
    messages
}

/// Times that are ours to choose are rounded to at most two hops; a requester's `not_before` and deadline are kept to the second.
fn rounded(to: Destination, order: &Order, now: Timestamp) -> Destination {
    match to {
        Destination::At(due) if Some(due) != order.not_before && due != order.deadline => {
            let delay = delay::round_delay(clock::until(now, due));
            Destination::At(now.checked_add(delay).unwrap_or(due).min(due))
        }
        Destination::At(_) | Destination::Now | Destination::Nowhere => to,
    }
}

/// Where the continuation goes and when it is due; `None`: there is none.
fn continuation(to: Destination, now: Timestamp) -> Option<(Target, Option<Timestamp>)> {
    match to {
        Destination::Nowhere => None,
        Destination::Now => Some((Target::Steps, None)),
        Destination::At(due) => Some((
            delay::rung(due, now).map_or(Target::Steps, Target::Delay),
            Some(due),
        )),
    }
}

/// An event for all, and for the requester's own queue where that is wanted and allowed.
pub(super) fn event_messages(
    event: EventMessage,
    settings: &AmqpSettings,
    telemetry: &Telemetry,
) -> Vec<Outgoing> {
    let properties = properties::of_event(&event);
    let EventMessage {
        routing_key,
        reply_to,
        body,
        ..
    } = event;
    let mut messages = Vec::with_capacity(2);
    if let Some(queue) = reply_to {
        if settings.reply_is_allowed(&queue) {
            messages.push(Outgoing {
                target: Target::Reply(queue),
                properties: properties.clone(),
                body: body.clone(),
            });
        } else {
            telemetry.reply_failed(&queue, "amqp.reply_to_allowed does not allow this queue");
        }
    }
    messages.insert(
        0,
        Outgoing {
            target: Target::Results(routing_key),
            properties,
            body,
        },
    );
    messages
}

/// Publishes until all is confirmed, on whichever generation stands.
///
/// After silence or a lost connection the first try may have arrived all the same: the next one is marked as a possible copy, and the ledger
/// knows it.
async fn publish(
    shared: &Shared,
    mut messages: Vec<Outgoing>,
    continuation: Option<&Key>,
) -> Result<(), DriverError> {
    let deadline = Instant::now() + PUBLISH_WITHIN;
    let mut pause = REFUSED_PAUSE_MIN;
    let mut alone = false;
    let mut last = DriverError::NotPublished {
        target: "the broker".to_owned(),
        message: "not connected".to_owned(),
    };
    while !messages.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let Some(link) = shared.link_within(left).await else {
            return Err(last);
        };
        let failed = publish_once(&link, messages, alone, &shared.telemetry).await;
        alone = any_in_doubt(&failed);
        if let Some(key) = continuation
            && failed
                .iter()
                .any(|(message, error)| may_be_there(message, error))
        {
            shared.ledger.doubt(key.clone());
        }
        if let Some((message, error)) = failed.first() {
            last = DriverError::NotPublished {
                target: message.target.name(&shared.settings.prefix),
                message: error.to_string(),
            };
            if Instant::now() + pause >= deadline || matches!(error, PublishError::BadName(_)) {
                return Err(last);
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(REFUSED_PAUSE_MAX),
                () = link.ending.ended() => {}
                () = shared.closing.cancelled() => return Err(last),
            }
        }
        messages = failed
            .into_iter()
            .map(|(message, error)| again(message, &error))
            .collect();
    }
    Ok(())
}

/// Publishes until all is confirmed or this generation ends; whether all is.
pub(super) async fn publish_on(
    link: &Arc<Link>,
    messages: Vec<Outgoing>,
    telemetry: &Telemetry,
) -> bool {
    publish_until(link, messages, telemetry, std::future::pending()).await
}

/// As [`publish_on`], but begins no further try once `gives_up` is done: between two tries nothing is on the wire.
pub(super) async fn publish_until(
    link: &Arc<Link>,
    mut messages: Vec<Outgoing>,
    telemetry: &Telemetry,
    gives_up: impl Future<Output = ()>,
) -> bool {
    tokio::pin!(gives_up);
    let mut pause = REFUSED_PAUSE_MIN;
    let mut alone = false;
    loop {
        let failed = publish_once(link, messages, alone, telemetry).await;
        alone = any_in_doubt(&failed);
        if failed.is_empty() {
            return true;
        }
        tokio::select! {
            biased;
            () = link.ending.ended() => return false,
            () = &mut gives_up => return false,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(REFUSED_PAUSE_MAX),
        }
        messages = failed
            .into_iter()
            .map(|(message, error)| again(message, &error))
            .collect();
    }
}

/// Publishes in order on one generation; what is not confirmed comes back. A reply that fails is only reported.
pub(super) async fn publish_once(
    link: &Arc<Link>,
    messages: Vec<Outgoing>,
    alone: bool,
    telemetry: &Telemetry,
) -> Vec<(Outgoing, PublishError)> {
    let messages = Arc::new(messages);
    let answers = link.publisher.publish_all(&messages, alone).await;
    let mut failed = Vec::new();
    for (message, answer) in messages.iter().zip(answers) {
        let Err(error) = answer else { continue };
        match (&message.target, &error) {
            (Target::Reply(queue), error) if concerns_the_reply_alone(error, link) => {
                telemetry.reply_failed(queue, &error.to_string());
                continue;
            }
            (target, PublishError::Returned(why)) => {
                let prefix = link.publisher.prefix();
                match unbound(target, prefix) {
                    // No generation sees a binding, and none would make it.
                    Some(reason) if !link.publisher.declares() => {
                        telemetry.unrouted(target.label(), &reason);
                    }
                    // The next generation binds the queue again.
                    Some(reason) => link.ending.end(reason),
                    // The next generation declares the queue again, or says so.
                    None => {
                        let name = target.name(prefix);
                        link.ending.end(format!("{name} is missing ({why})"));
                    }
                }
            }
            (_, PublishError::NotRequested) => {
                link.ending.end("the channel is not in confirm mode")
            }
            _ => {}
        }
        failed.push((message.clone(), error));
    }
    failed
}

/// What is wrong where an exchange leads nowhere, and the remedy; `None`: the message goes to a queue.
fn unbound(target: &Target, prefix: &str) -> Option<String> {
    let (queue, key) = match target {
        Target::Results(_) => ("events", "#"),
        Target::Requests => ("requests", "#"),
        Target::Dead => ("dead", ""),
        _ => return None,
    };
    let name = target.name(prefix);
    Some(format!(
        "nothing is bound to {name}: bind queue \"{prefix}.{queue}\" to it with key \"{key}\""
    ))
}

/// What a requester's own queue does is his matter; what ended the generation is not.
fn concerns_the_reply_alone(error: &PublishError, link: &Link) -> bool {
    match error {
        PublishError::Returned(_) | PublishError::Nacked | PublishError::BadName(_) => true,
        PublishError::TimedOut(_) => !link.ending.is_over(),
        PublishError::NotRequested | PublishError::Lost(_) => false,
    }
}

/// Whether something was not answered; perhaps it never is, and keeps from counting what is confirmed with it.
fn any_in_doubt(failed: &[(Outgoing, PublishError)]) -> bool {
    let is_in_doubt =
        |error: &PublishError| matches!(error, PublishError::Lost(_) | PublishError::TimedOut(_));
    failed.iter().any(|(_, error)| is_in_doubt(error))
}

/// Whether a continuation may have arrived although it failed.
fn may_be_there(message: &Outgoing, error: &PublishError) -> bool {
    matches!(message.target, Target::Steps | Target::Delay(_))
        && matches!(error, PublishError::Lost(_) | PublishError::TimedOut(_))
}

/// The message for its next try.
fn again(message: Outgoing, error: &PublishError) -> Outgoing {
    if may_be_there(&message, error) {
        let properties = properties::marked_redelivered(message.properties);
        Outgoing {
            properties,
            ..message
        }
    } else {
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::amqp::delay::Rung;
    use jiff::SignedDuration;

    #[test]
    fn a_continuation_goes_where_its_time_says() {
        let now = Timestamp::UNIX_EPOCH;
        let at = |millis| now + SignedDuration::from_millis(millis);
        assert_eq!(continuation(Destination::Nowhere, now), None);
        assert_eq!(
            continuation(Destination::Now, now),
            Some((Target::Steps, None))
        );
        assert_eq!(
            continuation(Destination::At(at(-10)), now),
            Some((Target::Steps, Some(at(-10))))
        );
        assert_eq!(
            continuation(Destination::At(at(300)), now),
            Some((Target::Steps, Some(at(300))))
        );
        assert_eq!(
            continuation(Destination::At(at(5_000)), now),
            Some((Target::Delay(Rung::ALL[2]), Some(at(5_000))))
        );
    }
}
