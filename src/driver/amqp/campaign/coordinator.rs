//! The coordinator of one campaign: asks the core what to do, writes it into the log, reads it back, and does it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use jiff::Timestamp;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::connection::{self, CALL_TIMEOUT};
use super::super::error::{BrokerError, bounded};
use super::super::outgoing::short;
use super::super::record::{Record as Entry, Start, Stream};
use super::super::stream::StreamReader;
use super::objects;
use super::order::{Order, Ordered};
use super::outlet::Outlet;
use crate::campaign::{Action, Gate, Held, Situation, State, decide};
use crate::clock;
use crate::driver::Intake;
use crate::job::CampaignId;
use crate::message::campaign::{self, Summary, Waiting};
use crate::message::{CampaignRequest, Definition};

/// Devices at hand: several batches at the highest pace that makes sense.
const AT_HAND: u16 = 256;
/// The same where devices of a busy key are passed over.
const AT_HAND_KEYED: u16 = 1_000;
/// Devices started with one entry of the log.
pub(super) const BATCH_MAX: u32 = 200;
/// Entries of the log between two looks at what is to be done.
const ENTRIES_AT_ONCE: u32 = 256;
/// How often the queue is asked for its length.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// How often the forecast is made.
pub(super) const FORECAST: Duration = Duration::from_secs(10);
/// What was written must come back within this.
pub(super) const READ_BACK: Duration = Duration::from_secs(30);

/// What a coordinator is told.
pub(super) enum Input {
    /// Devices to add; the delivery is acknowledged when they are in the queue.
    Accept(Box<(CampaignRequest, Delivery)>),
    /// An order about this campaign.
    Order(Order),
    /// Whether everything stands still.
    Hold(bool),
}

/// How a coordinator ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The campaign is over.
    Concluded,
    /// Another coordinator took over.
    Superseded,
}

/// Why a coordinator goes no further.
pub(super) enum Stop {
    Ended(Ended),
    Failed(BrokerError),
}

impl From<BrokerError> for Stop {
    fn from(error: BrokerError) -> Self {
        Self::Failed(error)
    }
}

/// Coordinates one campaign.
pub(super) struct Coordinator {
    pub(super) outlet: Outlet,
    pub(super) connection: Arc<Connection>,
    pub(super) definition: Arc<Definition>,
    pub(super) log: campaign::Log,
    pub(super) id: String,
    pub(super) inputs: mpsc::UnboundedReceiver<Input>,
    pub(super) summaries: mpsc::Sender<(CampaignId, Summary)>,
    pub(super) orders: VecDeque<Order>,
    pub(super) is_everything_paused: bool,
    /// The place in the control stream behind the last order that was known when it began.
    pub(super) orders_end: u64,
    pub(super) state: State,
    /// What kept devices from being started when that was decided last.
    pub(super) gate: Option<Gate>,
    /// When it ordered itself to pause; the order has not come back.
    pub(super) pause_ordered: Option<Instant>,
    /// Whether our own marker was read: from then on another one means that we were superseded.
    pub(super) is_marked: bool,
}

/// What a coordinator works with once it knows everything.
pub(super) struct Desk {
    pub(super) log: StreamReader,
    pub(super) channel: Channel,
    pub(super) devices: Consumer,
    pub(super) queue: String,
    pub(super) at_hand: Vec<(Waiting, Delivery)>,
    pub(super) prefetch: usize,
    /// Messages in the queue when it was looked at last, and how often in a row there was nothing.
    pub(super) ready: u64,
    pub(super) empty_looks: u32,
    pub(super) looked_at: Instant,
    pub(super) held_since: Instant,
    pub(super) rotated_at: Instant,
    pub(super) forecast_at: Instant,
}

impl Desk {
    /// Devices that wait; one more than is known as long as some may be on their way here.
    pub(super) fn waiting(&self) -> u64 {
        let known = self.ready + self.at_hand.len() as u64;
        if known == 0 && self.empty_looks < 2 {
            1
        } else {
            known
        }
    }
}

impl Coordinator {
    pub(super) fn begin(
        outlet: Outlet,
        connection: Arc<Connection>,
        definition: Arc<Definition>,
        inputs: mpsc::UnboundedReceiver<Input>,
        summaries: mpsc::Sender<(CampaignId, Summary)>,
        ordered: Ordered,
    ) -> Self {
        Self {
            outlet,
            connection,
            log: campaign::Log::of(&definition),
            definition,
            id: uuid::Uuid::new_v4().to_string(),
            inputs,
            summaries,
            orders: ordered.orders,
            is_everything_paused: ordered.is_everything_paused,
            orders_end: ordered.end,
            state: State::default(),
            gate: None,
            pause_ordered: None,
            is_marked: false,
        }
    }

    /// Coordinates until the campaign is over.
    ///
    /// # Errors
    ///
    /// [`BrokerError`]: somebody should begin again.
    pub(super) async fn run(mut self) -> Result<Ended, BrokerError> {
        match self.coordinate().await {
            Stop::Ended(ended) => Ok(ended),
            Stop::Failed(error) => Err(error),
        }
    }

    async fn coordinate(&mut self) -> Stop {
        let mut desk = match self.open().await {
            Ok(Some(desk)) => desk,
            Ok(None) => return Stop::Ended(Ended::Concluded),
            Err(stop) => return stop,
        };
        loop {
            if let Err(stop) = self.turn(&mut desk).await {
                return stop;
            }
        }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.outlet.shared.settings.prefix
    }

    /// Reads the log up to a marker of our own; `None`: the campaign is over, and only its end was not cleared away.
    async fn open(&mut self) -> Result<Option<Desk>, Stop> {
        let campaign_id = self.definition.campaign_id.clone();
        let begun = Instant::now();
        objects::declare(&self.connection, self.prefix(), &campaign_id).await?;
        let settings = self.outlet.shared.settings.clone();
        let stream = Stream::CampaignLog(campaign_id.clone());
        let mut log = StreamReader::on(&self.connection, settings, stream, Start::First).await?;
        let queue = objects::log(self.prefix(), &campaign_id);
        let marker = campaign::encode_marker(&self.id, self.outlet.now());
        let message = self
            .outlet
            .to_queue(queue, "upgrade.campaign.marker", &self.id, marker);
        self.outlet.publish(vec![message]).await?;
        let (mut entries, mut first) = (0_u64, 0);
        while !self.is_marked {
            let what = || format!("read the log of campaign \"{campaign_id}\"");
            let next = tokio::time::timeout(READ_BACK, log.next()).await;
            let entry = next.map_err(|_| BrokerError::timeout(what(), READ_BACK))??;
            self.take(&entry)?;
            if entries == 0 {
                first = entry.offset;
            }
            entries += 1;
        }
        let telemetry = &self.outlet.shared.telemetry;
        telemetry.campaign_coordinated(campaign_id.as_str(), entries, begun.elapsed());
        if let Some(lost) = self.what_is_lost(first) {
            telemetry.campaign_trouble(campaign_id.as_str(), &lost);
        }
        let queue = objects::devices(self.prefix(), &campaign_id);
        // A coordinator that was superseded may have said so late, and not have known of what was added since.
        if self.state.is_concluded
            && self.state.unfinished() == 0
            && !objects::is_in_use(&self.connection, &queue).await?
        {
            return Ok(None);
        }
        self.forget_orders_of_another_stream(self.orders_end)
            .await?;
        let channel = connection::channel(&self.connection, "devices").await?;
        let prefetch = if self.definition.plan.max_in_flight_per_key.is_some() {
            AT_HAND_KEYED
        } else {
            AT_HAND
        };
        let what = || format!("consume queue \"{queue}\"");
        let qos = channel.basic_qos(prefetch, BasicQosOptions { global: false });
        bounded(what, CALL_TIMEOUT, qos).await?;
        let options = BasicConsumeOptions::default();
        let consume =
            channel.basic_consume(short(&queue)?, "".into(), options, FieldTable::default());
        let devices = bounded(what, CALL_TIMEOUT, consume).await?;
        let now = Instant::now();
        Ok(Some(Desk {
            log,
            channel,
            devices,
            queue,
            at_hand: Vec::new(),
            prefetch: prefetch.into(),
            ready: 0,
            empty_looks: 0,
            looked_at: now - LOOK,
            held_since: now,
            rotated_at: now,
            forecast_at: now - FORECAST,
        }))
    }

    /// Does what is to be done, then waits for the next thing that happens.
    async fn turn(&mut self, desk: &mut Desk) -> Result<(), Stop> {
        self.look(desk).await?;
        let until = self.act(desk).await?;
        self.report(desk).await?;
        let now = self.outlet.now();
        let pause = clock::until(now, until)
            .min((desk.looked_at + LOOK).saturating_duration_since(Instant::now()));
        let room = desk.at_hand.len() < desk.prefetch;
        tokio::select! {
            entry = desk.log.next() => {
                self.take(&entry?)?;
                self.take_ready(desk)?;
            }
            next = desk.devices.next(), if room => {
                self.hold(desk, next).await?;
                self.hold_ready(desk).await?;
            }
            Some(input) = self.inputs.recv() => self.told(desk, input).await?,
            () = tokio::time::sleep(pause) => {}
        }
        Ok(())
    }

    /// Takes in what else of the log has come, and no more than that: what is to be done must not wait for a log that goes on and on.
    fn take_ready(&mut self, desk: &mut Desk) -> Result<(), Stop> {
        for _ in 0..ENTRIES_AT_ONCE {
            let Some(entry) = desk.log.next().now_or_never() else {
                break;
            };
            self.take(&entry?)?;
        }
        Ok(())
    }

    /// Takes an entry of the log in.
    fn take(&mut self, entry: &Entry) -> Result<(), Stop> {
        let codes = &self.outlet.shared.codec.requests.configuration_codes;
        match self.log.read(&entry.body, codes) {
            campaign::Entry::Record(record) => {
                self.state
                    .apply(&record, &self.definition.plan, self.definition.began_at);
            }
            campaign::Entry::Marker { coordinator } if coordinator == self.id => {
                self.is_marked = true;
            }
            campaign::Entry::Marker { .. } if self.is_marked => {
                return Err(Stop::Ended(Ended::Superseded));
            }
            campaign::Entry::Marker { .. }
            | campaign::Entry::AskedSince { .. }
            | campaign::Entry::Other => {}
        }
        Ok(())
    }

    /// Reads the log until what was written comes back.
    pub(super) async fn read_back(&mut self, desk: &mut Desk, id: &str) -> Result<(), Stop> {
        let campaign_id = self.definition.campaign_id.clone();
        let what =
            || format!("read back what was written into the log of campaign \"{campaign_id}\"");
        let deadline = Instant::now() + READ_BACK;
        loop {
            let next = tokio::time::timeout_at(deadline, desk.log.next()).await;
            let entry = next.map_err(|_| BrokerError::timeout(what(), READ_BACK))??;
            self.take(&entry)?;
            if entry.message_id.as_deref() == Some(id) {
                return Ok(());
            }
        }
    }

    async fn told(&mut self, desk: &mut Desk, input: Input) -> Result<(), Stop> {
        match input {
            Input::Hold(is_held) => self.is_everything_paused = is_held,
            Input::Order(order) => self.orders.push_back(order),
            Input::Accept(accepted) => {
                let (request, delivery) = *accepted;
                self.accept(desk, &request, &delivery).await?;
            }
        }
        Ok(())
    }

    /// Does everything that is to be done now; when to ask again.
    async fn act(&mut self, desk: &mut Desk) -> Result<Timestamp, Stop> {
        self.obey(desk).await?;
        loop {
            let now = self.outlet.now();
            let plan = &self.definition.plan;
            self.state.expire(plan, now);
            if self.state.is_concluded && desk.waiting() == 0 && self.state.unfinished() == 0 {
                return Err(Stop::Ended(Ended::Concluded));
            }
            let situation = Situation {
                now,
                waiting: desk.waiting(),
                held: self.held(),
                began_at: self.definition.began_at,
            };
            let soon = now
                .checked_add(jiff::SignedDuration::from_secs(1))
                .unwrap_or(now);
            self.gate = None;
            match decide(plan, &self.state, situation) {
                Action::Wait { gate, until } => {
                    self.gate = Some(gate);
                    return Ok(if gate == Gate::NothingWaits {
                        until.min(soon)
                    } else {
                        until
                    });
                }
                Action::Release { at_most, places } => {
                    if !self.release(desk, at_most, places).await? {
                        self.gate = (places == 0).then_some(Gate::Places);
                        return Ok(soon);
                    }
                }
                Action::Pause { reason, message } => {
                    self.order_pause(reason, &message).await?;
                    return Ok(soon);
                }
                Action::Drain(conclusion) => {
                    if !self.drain(desk, conclusion).await? {
                        return Ok(soon);
                    }
                }
                Action::Conclude(conclusion) => {
                    return Err(self.conclude(desk, Some(conclusion)).await);
                }
                Action::Abandon => return Err(self.conclude(desk, None).await),
            }
        }
    }

    /// Why everything stands still: by an operator's order, or as this worker may not ask the NBI, whose jobs would pile up.
    fn held(&self) -> Option<Held> {
        if self.is_everything_paused {
            return Some(Held::Operator);
        }
        let is_open = self.outlet.shared.wanted.borrow().intake == Intake::Open;
        (!is_open).then_some(Held::Nbi)
    }
}
