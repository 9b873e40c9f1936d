//! [`AmqpDriver`]: the seam in terms of the other files.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::inbox::{Gate, Inbox};
use super::ledger::Ledger;
use super::shared::{Shared, Token, Wanted};
use super::{AmqpSettings, handover, supervisor};
use crate::clock::Clock;
use crate::driver::{Delivery, Driver, DriverError, HandOver, Intake};
use crate::job::Standing;
use crate::job::state::Order;
use crate::message::{Codec, Orders};
use crate::telemetry::Telemetry;

/// Bound of the consumers' end in [`Driver::stop`]: a cancel and its leftovers take at most five seconds each.
const STOP_TIMEOUT: Duration = Duration::from_secs(11);
/// Bound of the rest of [`Driver::stop`]: what the driver settles by itself gives up after three seconds, and then gives back.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(4);
/// Bound of what the broker is to carry out before the driver closes.
const CARRIED_OUT_TIMEOUT: Duration = Duration::from_secs(1);
/// Bound of the rest of [`Driver::close`]: a channel and a connection take at most two seconds each.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(4);

/// The driver for RabbitMQ.
pub struct AmqpDriver {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for AmqpDriver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("AmqpDriver")
            .field("prefix", &self.shared.settings.prefix)
            .finish_non_exhaustive()
    }
}

impl AmqpDriver {
    /// Starts to connect, in a task that [`Driver::close`] awaits. Needs a Tokio runtime.
    #[must_use]
    pub fn start(
        settings: AmqpSettings,
        codec: Codec,
        telemetry: Arc<Telemetry>,
        clock: Clock,
    ) -> Self {
        let orders = Orders::new(settings.control_kept_for);
        let unacknowledged =
            usize::from(settings.prefetch) + usize::from(settings.prefetch_requests);
        let shared = Arc::new(Shared {
            settings,
            codec,
            telemetry,
            clock,
            ledger: Ledger::of(unacknowledged),
            inbox: Inbox::new(),
            link: watch::Sender::new(None),
            wanted: watch::Sender::new(Wanted {
                intake: Intake::Open,
                is_stopping: false,
            }),
            blocked: watch::Sender::new(None),
            orders,
            commands_read: Mutex::new(None),
            leads: AtomicBool::new(false),
            closing: CancellationToken::new(),
            consumers: TaskTracker::new(),
            settlements: TaskTracker::new(),
            tasks: TaskTracker::new(),
        });
        shared.tasks.spawn(supervisor::run(Arc::clone(&shared)));
        Self { shared }
    }
}

impl AmqpDriver {
    /// Whether this worker is the one of all that leads the campaigns: what only one should do is done by it. Two may believe it for a
    /// moment, when the broker passes the lead on.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.shared.leads.load(Ordering::Relaxed)
    }
}

impl Drop for AmqpDriver {
    fn drop(&mut self) {
        self.shared.closing.cancel();
    }
}

impl Driver for AmqpDriver {
    type Token = Token;

    async fn receive(&self) -> Option<Delivery<Token>> {
        self.shared.inbox.next().await
    }

    async fn carry_out(&self, token: Token, hand_over: HandOver) -> Result<(), DriverError> {
        handover::carry_out(&self.shared, token, hand_over).await
    }

    async fn reject(&self, token: Token) {
        token.settler.reject().await;
    }

    fn standing(&self, order: &Order) -> Standing {
        self.shared.orders.standing(order)
    }

    fn set_intake(&self, intake: Intake) {
        self.shared.inbox.set_gate(if intake == Intake::Closed {
            Gate::Shut
        } else {
            Gate::Open
        });
        self.shared
            .wanted
            .send_if_modified(|wanted| std::mem::replace(&mut wanted.intake, intake) != intake);
    }

    async fn stop(&self) {
        self.shared
            .wanted
            .send_modify(|wanted| wanted.is_stopping = true);
        self.shared.inbox.set_gate(Gate::Finished);
        self.shared.consumers.close();
        if tokio::time::timeout(STOP_TIMEOUT, self.shared.consumers.wait())
            .await
            .is_err()
            && let Some(link) = self.shared.link.borrow().as_ref()
        {
            // The broker takes back what was not settled.
            link.ending.end("the consumers did not stop");
        }
        // Of a delivery whose replacement is published and that is not acknowledged there would be two.
        let settlements = &self.shared.settlements;
        settlements.close();
        drop(tokio::time::timeout(SETTLE_TIMEOUT, settlements.wait()).await);
    }

    async fn close(&self) {
        let link = self.shared.link.borrow().clone();
        if let Some(link) = link {
            drop(tokio::time::timeout(CARRIED_OUT_TIMEOUT, link.settled()).await);
        }
        self.shared.closing.cancel();
        self.shared.tasks.close();
        drop(tokio::time::timeout(CLOSE_TIMEOUT, self.shared.tasks.wait()).await);
    }
}
