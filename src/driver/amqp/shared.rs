//! What the tasks of the driver share, and the token that settles one delivery.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use lapin::Acker;
use lapin::options::{BasicAckOptions, BasicNackOptions, BasicRejectOptions};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{CALL_TIMEOUT, Ending};
use super::inbox::Inbox;
use super::ledger::{Claim, Key, Ledger};
use super::publish::Publisher;
use super::settings::AmqpSettings;
use crate::clock::Clock;
use crate::driver::Intake;
use crate::message::{Codec, Orders};
use crate::telemetry::Telemetry;

/// Some disk writes of a busy broker.
const SETTLES_WITHIN: Duration = Duration::from_millis(500);

/// The living half of a generation that others may use.
#[derive(Debug)]
pub(super) struct Link {
    /// Which generation.
    pub(super) number: usize,
    /// Its publishing channels.
    pub(super) publisher: Publisher,
    /// Its end.
    pub(super) ending: Arc<Ending>,
    /// When it last acknowledged something.
    pub(super) acknowledged_at: Mutex<Option<Instant>>,
}

impl Link {
    /// Waits until the broker has carried out what was acknowledged, before the connection may be closed.
    ///
    /// The channel of a quorum queue passes 32 acknowledgements on and keeps the others until those are on disk; what it keeps when the
    /// connection closes is forgotten, and the deliveries come again (seen on RabbitMQ 3.10). No answer tells when it has passed all on.
    pub(super) async fn settled(&self) {
        let last = *self
            .acknowledged_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = last {
            tokio::select! {
                () = tokio::time::sleep_until(last + SETTLES_WITHIN) => {}
                () = self.ending.ended() => {}
            }
        }
    }
}

/// What the worker wants taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) intake: Intake,
    pub(super) is_stopping: bool,
}

/// What all tasks of the driver share.
pub(super) struct Shared {
    pub(super) settings: AmqpSettings,
    pub(super) codec: Codec,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) clock: Clock,
    pub(super) ledger: Arc<Ledger>,
    pub(super) inbox: Inbox,
    /// The current generation, while it stands.
    pub(super) link: watch::Sender<Option<Arc<Link>>>,
    pub(super) wanted: watch::Sender<Wanted>,
    /// Why the broker blocks publishers, while it does.
    pub(super) blocked: watch::Sender<Option<String>>,
    /// What operators have ordered.
    pub(super) orders: Orders,
    /// The offset behind the last command read; `None`: none is known, and all are read.
    pub(super) commands_read: Mutex<Option<u64>>,
    /// Whether this worker leads all campaigns.
    pub(super) leads: AtomicBool,
    /// The driver closes.
    pub(super) closing: CancellationToken,
    /// Consumers of all generations.
    pub(super) consumers: TaskTracker,
    /// Settlements that the driver makes by itself.
    pub(super) settlements: TaskTracker,
    /// The supervisor.
    pub(super) tasks: TaskTracker,
}

impl Shared {
    /// Now.
    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Waits until the worker stops.
    pub(super) async fn stopping(&self) {
        drop(
            self.wanted
                .subscribe()
                .wait_for(|wanted| wanted.is_stopping)
                .await,
        );
    }

    /// The current generation, waited for at most this long.
    pub(super) async fn link_within(&self, limit: Duration) -> Option<Arc<Link>> {
        let usable =
            |link: &Option<Arc<Link>>| link.as_ref().is_some_and(|link| !link.ending.is_over());
        // Nearly always one stands, and there is nothing to wait for.
        let current = self.link.borrow().clone();
        if usable(&current) {
            return current;
        }
        let mut links = self.link.subscribe();
        tokio::select! {
            biased;
            found = tokio::time::timeout(limit, links.wait_for(usable)) => found.ok()?.ok()?.clone(),
            () = self.closing.cancelled() => None,
        }
    }
}

/// Settles one delivery; opaque outside the driver.
#[derive(Debug)]
pub struct Token {
    pub(super) settler: Settler,
    pub(super) claim: Claim,
}

impl Token {
    /// Acknowledges a delivery whose replacement is confirmed. When that fails, the redelivery is known.
    ///
    /// # Errors
    ///
    /// What happened to the acknowledgement.
    pub(super) async fn acknowledge(
        self,
        ledger: &Ledger,
        replacement: Option<&Key>,
    ) -> Result<(), String> {
        let outcome = self.settler.ack().await;
        // A replacement under the same key must never be taken for a redelivery.
        if replacement == Some(self.claim.key()) {
            return outcome;
        }
        let (key, link) = (self.claim.key().clone(), &self.settler.link);
        if outcome.is_err() || link.ending.is_over() {
            ledger.remember(key);
        } else {
            ledger.acknowledged(key, link.number);
        }
        self.claim.replaced();
        outcome
    }
}

/// Answers the broker about one delivery, within a bound; only the first answer of all clones is given.
#[derive(Debug, Clone)]
pub(super) struct Settler {
    pub(super) acker: Acker,
    pub(super) link: Arc<Link>,
}

impl Settler {
    /// Whether an answer can still reach the broker.
    pub(super) fn is_usable(&self) -> bool {
        self.acker.usable() && !self.link.ending.is_over()
    }

    /// Acknowledges. Only the library's `true` is a success: `false` means that the channel is gone or the delivery was answered before.
    pub(super) async fn ack(&self) -> Result<(), String> {
        let answer =
            tokio::time::timeout(CALL_TIMEOUT, self.acker.ack(BasicAckOptions::default())).await;
        match answer {
            Ok(Ok(true)) => {
                *self
                    .link
                    .acknowledged_at
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                Ok(())
            }
            Ok(Ok(false)) => Err("the channel it came through is gone".to_owned()),
            Ok(Err(error)) => Err(super::error::text(&error)),
            Err(_) => {
                self.link
                    .ending
                    .end("an acknowledgement could not be written");
                Err(format!("not written within {} s", CALL_TIMEOUT.as_secs()))
            }
        }
    }

    /// Gives the delivery back to its queue. Where that fails, the broker takes it back by itself.
    pub(super) async fn nack(&self) {
        let options = BasicNackOptions {
            multiple: false,
            requeue: true,
        };
        if self.is_usable()
            && tokio::time::timeout(CALL_TIMEOUT, self.acker.nack(options))
                .await
                .is_err()
        {
            self.link.ending.end("a delivery could not be given back");
        }
    }

    /// As [`Settler::nack`], but every RabbitMQ counts it towards the queue's delivery limit.
    pub(super) async fn reject(&self) {
        let options = BasicRejectOptions { requeue: true };
        if self.is_usable()
            && tokio::time::timeout(CALL_TIMEOUT, self.acker.reject(options))
                .await
                .is_err()
        {
            self.link.ending.end("a delivery could not be rejected");
        }
    }
}
