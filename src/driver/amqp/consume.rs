//! Consumes the two queues, with as much at a time as is wanted now.
//!
//! Steps and requests have a channel each, with their own prefetch. Another prefetch needs another consumer: the old one is cancelled, and
//! what it had prefetched is kept, published again or requeued, as the reason demands. `take.rs` sees to the single delivery.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};

use super::connection::CALL_TIMEOUT;
use super::error::{BrokerError, bounded};
use super::inbox::Item;
use super::outgoing::{Target, short};
use super::properties;
use super::shared::{Link, Shared, Wanted};
use crate::driver::Intake;

/// Bound of a consumer's cancel, and of taking what it had prefetched.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

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
    pub(super) shared: Arc<Shared>,
    pub(super) link: Arc<Link>,
    channel: Channel,
    pub(super) source: Source,
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
        let mut guard = EndsGeneration(Some(Arc::clone(&intaker.link)), intaker.source);
        let mut wanted = intaker.shared.wanted.subscribe();
        let mut blocked = intaker.shared.blocked.subscribe();
        loop {
            let now_wanted = *wanted.borrow_and_update();
            let is_blocked = blocked.borrow_and_update().is_some();
            intaker.return_waiting(now_wanted).await;
            if now_wanted.is_stopping {
                guard.0 = None;
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
        // A name of its own each time: the broker counts what a cancelled consumer still holds against the next one of its name.
        let tag = properties::cut(&format!("{}.{}", self.source.label(), uuid::Uuid::new_v4()));
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
}

/// A consumer that is gone unnoticed would leave its queue unattended.
struct EndsGeneration(Option<Arc<Link>>, Source);

impl Drop for EndsGeneration {
    fn drop(&mut self) {
        if let Some(link) = &self.0 {
            link.ending
                .end(format!("the consumer of {} ended", self.1.label()));
        }
    }
}
