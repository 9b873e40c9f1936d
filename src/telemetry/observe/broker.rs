//! What happens between the worker and the broker.

use std::time::{Duration, Instant};

use super::{TARGET, cut};
use crate::message::Named;
use crate::telemetry::Telemetry;
use crate::telemetry::labels::{BOUND, DEPTHS, EXCHANGES, QUEUES, closed};
use crate::telemetry::trouble::SoFar;

impl Telemetry {
    /// A delivery arrived on `requests` or `steps`.
    pub fn received(&self, queue: &'static str, redelivered: bool) {
        let queue = closed(queue, &QUEUES);
        self.metrics
            .broker
            .received
            .with_label_values(&[queue])
            .inc();
        if redelivered {
            self.metrics
                .broker
                .redelivered
                .with_label_values(&[queue])
                .inc();
        }
        tracing::trace!(target: TARGET, queue, redelivered, "message received");
    }

    /// A delayed continuation arrived this long after its time.
    pub fn lateness(&self, late: Duration) {
        self.metrics
            .broker
            .step_lateness
            .observe(late.as_secs_f64());
    }

    /// A publish was confirmed. `exchange` is one of `results`, `steps`, `delay`, `dead`, `reply`, `requests`.
    pub fn published(&self, exchange: &'static str, took: Duration) {
        let exchange = closed(exchange, &EXCHANGES);
        self.metrics
            .broker
            .published
            .with_label_values(&[exchange])
            .inc();
        self.metrics
            .broker
            .confirm
            .with_label_values(&[exchange])
            .observe(took.as_secs_f64());
        tracing::trace!(target: TARGET, exchange, duration_ms = took.as_secs_f64() * 1_000.0, "message published");
        if BOUND.contains(&exchange) && self.health.unrouted(exchange, None) {
            tracing::info!(target: TARGET, exchange, "messages reach a queue again");
        }
    }

    /// No queue takes what goes to an exchange, `results`, `requests` or `dead`: what is published stays in hand until one does.
    pub fn unrouted(&self, exchange: &'static str, reason: &str) {
        let exchange = closed(exchange, &EXCHANGES);
        if self.health.unrouted(exchange, Some(cut(reason))) {
            tracing::warn!(target: TARGET, exchange, reason = cut(reason), "messages reach no queue");
        }
    }

    /// So many messages are ready in a queue; `delay` stands for all delay queues together.
    pub fn queue_messages(&self, queue: &'static str, messages: u64) {
        // Exact below 2^53 messages.
        self.queue_is(queue, messages as f64);
    }

    fn queue_is(&self, queue: &'static str, messages: f64) {
        self.metrics
            .broker
            .queue_messages
            .with_label_values(&[closed(queue, &DEPTHS)])
            .set(messages);
    }

    /// How many messages are ready could not be learned.
    pub fn queues_unknown(&self, error: &str) {
        self.queues_are_unknown();
        tracing::debug!(target: TARGET, error = cut(error), "depths of queues unknown");
    }

    fn queues_are_unknown(&self) {
        for queue in DEPTHS {
            self.queue_is(queue, f64::NAN);
        }
    }

    /// What this worker serves, before it is connected.
    pub fn worker_named(&self, prefix: &str, name: &str) {
        self.metrics
            .instance_info
            .with_label_values(&[prefix, name])
            .set(1);
    }

    /// Deliveries in hand changed.
    pub fn in_hand(&self, change: i64) {
        self.metrics.broker.deliveries_in_hand.add(change);
    }

    /// A continuation that nobody can read went to the dead letters.
    pub fn step_dead_lettered(&self, named: &Named, error: &str) {
        self.metrics
            .broker
            .dead_lettered
            .with_label_values(&["malformed_step"])
            .inc();
        tracing::error!(
            target: TARGET,
            job_id = named.job_id.as_deref().map(cut),
            cpe_id = named.cpe_id.as_deref().map(cut),
            campaign_id = named.campaign_id.as_deref().map(cut),
            error = cut(error),
            "step dead-lettered"
        );
    }

    /// A continuation of a newer release was parked.
    pub fn step_parked(&self, error: &str) {
        self.metrics.broker.steps_parked.inc();
        tracing::warn!(target: TARGET, error = cut(error), "step of a newer release parked");
    }

    /// The final event could not be sent to the requester's `reply_to` queue.
    pub fn reply_failed(&self, queue: &str, reason: &str) {
        self.metrics.broker.replies_failed.inc();
        tracing::warn!(target: TARGET, queue = cut(queue), reason = cut(reason), "reply failed");
    }

    /// The broker is connected, the topology stands, consumers run.
    pub fn broker_connected(&self, broker: &str) {
        self.metrics.broker.connected.set(1);
        self.metrics.broker.blocked.set(0);
        let is_reconnect = self.health.broker_connected();
        if is_reconnect {
            self.metrics.broker.reconnects.inc();
        }
        let so_far = self.troubles.broker.is_over(Instant::now());
        let (times, lasted_s) = (
            so_far.map(|so_far| so_far.times),
            so_far.map(SoFar::seconds),
        );
        tracing::info!(target: TARGET, broker = without_credentials(broker), is_reconnect, times, lasted_s, "broker connected");
    }

    /// The connection has ended. What follows is told by [`Telemetry::broker_lost`].
    pub fn broker_gone(&self, reason: &str) {
        self.metrics.broker.connected.set(0);
        self.queues_are_unknown();
        self.health.broker_lost(cut(reason));
    }

    /// The connection ended, or could not be made; the supervisor comes back in `retry_in`. Said once for each reason, then as a reminder.
    pub fn broker_lost(&self, broker: &str, reason: &str, retry_in: Duration) {
        let reason = cut(reason);
        self.broker_gone(reason);
        if let Some(so_far) = self.troubles.broker.shows(reason, Instant::now()) {
            let retry_in_ms = u64::try_from(retry_in.as_millis()).unwrap_or(u64::MAX);
            let (times, lasts_s) = (so_far.times, so_far.seconds());
            tracing::warn!(target: TARGET, broker = without_credentials(broker), reason, retry_in_ms, times, lasts_s, "broker lost");
        }
    }

    /// The broker blocks publishers (memory or disk alarm), or no longer does.
    pub fn broker_blocked(&self, reason: Option<&str>) {
        self.metrics.broker.blocked.set(i64::from(reason.is_some()));
        self.health.broker_blocked(reason.map(cut));
        match reason {
            Some(reason) => {
                tracing::warn!(target: TARGET, reason = cut(reason), "broker blocks publishers")
            }
            None => tracing::info!(target: TARGET, "broker accepts publishers again"),
        }
    }

    /// Everything is paused by an operator, or no longer.
    pub fn emergency_stop(&self, is_on: bool) {
        let was_on = self.health.emergency_stop(is_on);
        self.metrics.broker.emergency_stop.set(i64::from(is_on));
        match (was_on, is_on) {
            (false, true) => tracing::warn!(target: TARGET, "emergency stop: everything is paused"),
            (true, false) => tracing::warn!(target: TARGET, "emergency stop ended"),
            (true, true) | (false, false) => {}
        }
    }

    /// A command of an operator was answered.
    pub fn command_answered(&self, is_accepted: bool, command: &str, message: &str) {
        let answer = if is_accepted { "accepted" } else { "refused" };
        self.metrics
            .broker
            .commands_answered
            .with_label_values(&[answer])
            .inc();
        let (command, message) = (cut(command), cut(message));
        tracing::info!(target: TARGET, answer, command, explanation = message, "command answered");
    }

    /// Of which jobs the answers to commands speak cannot be looked up.
    pub fn history_unreadable(&self, error: &str) {
        tracing::warn!(target: TARGET, error = cut(error), "event history unreadable");
    }
}

/// A broker is named by host and port; should a whole URL be handed in, its password stays out of the log.
fn without_credentials(broker: &str) -> &str {
    broker.rsplit('@').next().unwrap_or(broker)
}
