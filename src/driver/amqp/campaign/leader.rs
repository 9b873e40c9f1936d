//! The leader: holds the definitions of all active campaigns, runs their coordinators, and takes new requests in.
//!
//! Whoever consumes `<p>.campaigns` stands by. It leads once a *seat* arrives: a message that every worker publishes when it begins and
//! that the active consumer acknowledges, but for the one it holds itself. The seat of a leader that died comes to its successor. Once a
//! seat of its own has come through the queue, the leader has seen every definition before it, and begins to take requests.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::connection::{self, CALL_TIMEOUT};
use super::super::error::{BrokerError, bounded};
use super::super::outgoing::short;
use super::super::shared::{Link, Shared};
use super::super::stream::StreamReader;
use super::coordinator::{Coordinator, Ended, Input};
use super::ending::{END, Left};
use super::meanwhile::next_order;
use super::objects;
use super::order::Order;
use super::outlet::{Outlet, acknowledge, taken};
use crate::job::CampaignId;
use crate::message::campaign::Summary;
use crate::message::{CampaignRequest, DeadLetter, Definition};

/// Definitions held at a time; more campaigns wait in the queue until others are over.
pub(super) const LEADS_MAX: u16 = 1_000;
/// After something went wrong.
pub(super) const PAUSE: Duration = Duration::from_secs(2);
/// How often gauges are set and what is held is looked at.
const TICK: Duration = Duration::from_secs(1);
/// Summaries waiting to be looked at.
const SUMMARIES: usize = 64;

const SEAT: &str = "upgrade.campaign.seat";
pub(super) const DEFINITION: &str = "upgrade.campaign.definition";

/// Stands by and leads until the generation ends or the worker stops.
pub(in super::super) async fn run(
    shared: Arc<Shared>,
    link: Arc<Link>,
    connection: Arc<Connection>,
) {
    let outlet = Outlet { shared, link };
    loop {
        let led = tokio::select! {
            biased;
            () = outlet.link.ending.ended() => None,
            () = outlet.shared.stopping() => None,
            led = Leader::new(&outlet, &connection).lead() => Some(led),
        };
        outlet.shared.leads.store(false, Ordering::Relaxed);
        outlet.shared.telemetry.campaigns_led(&[], false);
        let Some(led) = led else { return };
        if let Err(error) = led {
            outlet
                .shared
                .telemetry
                .campaign_trouble("-", &error.to_string());
        }
        tokio::select! {
            () = outlet.link.ending.ended() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// What a coordinator tells of its campaign.
pub(super) type Told = (CampaignId, Summary);

/// A campaign that is led.
pub(super) struct Led {
    pub(super) definition: Arc<Definition>,
    /// Its message, held until it is over; `None`: it was given back, and comes again.
    pub(super) delivery: Option<Delivery>,
    /// Whether it is over, and only its message is missing.
    pub(super) is_over: bool,
    /// Without a bound, as a coordinator that is busy must not hold the others up: what was ordered is kept anyway, and requests come one by one.
    pub(super) inputs: mpsc::UnboundedSender<Input>,
    pub(super) summary: Option<Summary>,
    /// How often in a row the broker has refused its coordinator something for good.
    pub(super) refusals: u32,
}

/// Leads all campaigns.
pub(super) struct Leader<'a> {
    pub(super) outlet: &'a Outlet,
    pub(super) connection: &'a Arc<Connection>,
    /// This leadership, among all that ever were.
    pub(super) id: String,
    pub(super) led: HashMap<CampaignId, Led>,
    /// What campaigns that are over have left on the broker.
    pub(super) left: HashMap<CampaignId, Left>,
    /// The seat that is held, and since when.
    pub(super) seat: Option<Delivery>,
    pub(super) has_all: bool,
    /// Orders since the beginning of the control stream, for campaigns that begin to be coordinated later.
    pub(super) orders: Vec<Order>,
    /// The place in the control stream behind what was read.
    pub(super) orders_read: u64,
    pub(super) is_everything_paused: bool,
    pub(super) control: Option<StreamReader>,
    pub(super) requests: Option<(Channel, Consumer)>,
    /// Nothing is taken from the requests before then.
    pub(super) requests_due: Instant,
    /// A request whose campaign is being made, and until when its definition must have come.
    pub(super) beginning: Option<(CampaignRequest, Delivery, Instant)>,
    /// The campaign whose coordinator was given the last request.
    pub(super) accepting: Option<CampaignId>,
    pub(super) coordinators: JoinSet<(CampaignId, Result<Ended, BrokerError>)>,
    pub(super) summaries: (mpsc::Sender<Told>, mpsc::Receiver<Told>),
    pub(super) held_since: Instant,
}

impl<'a> Leader<'a> {
    fn new(outlet: &'a Outlet, connection: &'a Arc<Connection>) -> Self {
        Self {
            outlet,
            connection,
            id: uuid::Uuid::new_v4().to_string(),
            led: HashMap::new(),
            left: HashMap::new(),
            seat: None,
            has_all: false,
            orders: Vec::new(),
            orders_read: 0,
            is_everything_paused: false,
            control: None,
            requests: None,
            requests_due: Instant::now(),
            beginning: None,
            accepting: None,
            coordinators: JoinSet::new(),
            summaries: mpsc::channel(SUMMARIES),
            held_since: Instant::now(),
        }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.outlet.shared.settings.prefix
    }

    async fn lead(mut self) -> Result<(), BrokerError> {
        self.control = Some(self.read_orders().await?);
        let (_channel, mut leads) = self
            .consume(&objects::leads(self.prefix()), LEADS_MAX)
            .await?;
        self.publish_seat().await?;
        let mut tick = tokio::time::interval(TICK);
        loop {
            if self.has_all && self.requests.is_none() && self.requests_due <= Instant::now() {
                self.beginning = None;
                let queue = objects::requests(self.prefix());
                self.requests = Some(self.consume(&queue, 1).await?);
            }
            // In this order: what has come is read before the tick says that it did not come in time.
            tokio::select! {
                biased;
                next = leads.next() => {
                    let delivery = taken(next, "campaigns")?;
                    self.take_lead(delivery).await?;
                }
                next = next_of(&mut self.requests) => {
                    let delivery = taken(next, "requests of campaigns")?;
                    self.take_request(delivery).await?;
                }
                Some(ended) = self.coordinators.join_next(), if !self.coordinators.is_empty() => {
                    let Ok((campaign_id, ended)) = ended else {
                        return Err(BrokerError::new("coordinate a campaign", "its coordinator panicked"));
                    };
                    self.coordinator_ended(campaign_id, ended).await?;
                }
                order = next_order(&mut self.control) => {
                    self.take_order(&order?);
                }
                Some((campaign_id, summary)) = self.summaries.1.recv() => {
                    if let Some(led) = self.led.get_mut(&campaign_id) {
                        led.summary = Some(summary);
                    }
                }
                _ = tick.tick() => {
                    self.tick().await?;
                    self.clear_away_all().await;
                }
            }
        }
    }

    async fn consume(
        &self,
        queue: &str,
        prefetch: u16,
    ) -> Result<(Channel, Consumer), BrokerError> {
        let channel = connection::channel(self.connection, "campaigns").await?;
        let what = || format!("consume queue \"{queue}\"");
        let qos = channel.basic_qos(prefetch, BasicQosOptions { global: false });
        bounded(what, CALL_TIMEOUT, qos).await?;
        let consume = channel.basic_consume(
            short(queue)?,
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let consumer = bounded(what, CALL_TIMEOUT, consume).await?;
        Ok((channel, consumer))
    }

    async fn publish_seat(&mut self) -> Result<(), BrokerError> {
        let queue = objects::leads(self.prefix());
        let seat = self.outlet.to_queue(queue, SEAT, &self.id, Vec::new());
        self.publish(vec![seat]).await
    }

    async fn take_lead(&mut self, delivery: Delivery) -> Result<(), BrokerError> {
        let kind = delivery
            .properties
            .kind()
            .as_ref()
            .map(|kind| kind.as_str().to_owned());
        match kind.as_deref() {
            Some(SEAT) => {
                let id = delivery.properties.message_id();
                let is_own = id.as_ref().is_some_and(|id| id.as_str() == self.id);
                if is_own {
                    self.has_all = true;
                } else if self.seat.is_none() && !self.has_all {
                    // Its holder is gone, and we are next: what it held has come or comes before a seat of our own.
                    self.publish_seat().await?;
                } else {
                    return acknowledge(&delivery).await;
                }
                if let Some(before) = self.seat.replace(delivery) {
                    acknowledge(&before).await?;
                }
                Ok(())
            }
            Some(END) => self.take_end(delivery).await,
            _ => match Definition::decode(&delivery.data) {
                Ok(definition) => self.take_definition(definition, delivery).await,
                Err(error) => {
                    let telemetry = &self.outlet.shared.telemetry;
                    telemetry.campaign_trouble("-", &error.to_string());
                    let letter = DeadLetter::malformed_step(&error.to_string());
                    let queue = objects::leads(self.prefix());
                    self.bury(&delivery, &letter, &queue, Vec::new()).await
                }
            },
        }
    }

    async fn take_definition(
        &mut self,
        definition: Definition,
        delivery: Delivery,
    ) -> Result<(), BrokerError> {
        let campaign_id = definition.campaign_id.clone();
        if let Some(led) = self.led.get_mut(&campaign_id) {
            if led.definition.began_at != definition.began_at {
                return acknowledge(&delivery).await;
            }
            // It was given back, and came again; or a node was away for a moment, and the broker delivers again what was held.
            if let Some(before) = led.delivery.replace(delivery) {
                acknowledge(&before).await?;
            }
            if led.is_over {
                return self
                    .coordinator_ended(campaign_id, Ok(Ended::Concluded))
                    .await;
            }
            return Ok(());
        }
        let inputs = self.coordinate(Arc::new(definition.clone()), Duration::ZERO);
        if let Some((request, request_delivery, _)) = self
            .beginning
            .take_if(|(request, ..)| request.definition.campaign_id == campaign_id)
        {
            let input = Input::Accept(Box::new((request, request_delivery)));
            self.accepting = Some(campaign_id.clone());
            drop(inputs.send(input));
        }
        let led = Led {
            definition: Arc::new(definition),
            delivery: Some(delivery),
            is_over: false,
            inputs,
            summary: None,
            refusals: 0,
        };
        self.led.insert(campaign_id, led);
        Ok(())
    }

    /// Begins to coordinate after this time; the way to tell the coordinator something.
    pub(super) fn coordinate(
        &mut self,
        definition: Arc<Definition>,
        after: Duration,
    ) -> mpsc::UnboundedSender<Input> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let campaign_id = definition.campaign_id.clone();
        let ordered = self.ordered(&campaign_id, definition.began_at);
        let coordinator = Coordinator::begin(
            self.outlet.clone(),
            Arc::clone(self.connection),
            definition,
            receiver,
            self.summaries.0.clone(),
            ordered,
        );
        self.coordinators.spawn(async move {
            tokio::time::sleep(after).await;
            (campaign_id, coordinator.run().await)
        });
        sender
    }

    async fn tick(&mut self) -> Result<(), BrokerError> {
        if let Some((request, _, until)) = &self.beginning
            && *until <= Instant::now()
        {
            let campaign_id = &request.definition.campaign_id;
            return Err(BrokerError::new(
                format!("begin campaign \"{campaign_id}\""),
                "its definition did not come back: another worker leads",
            ));
        }
        let mut summaries: Vec<(&str, Summary)> = self
            .led
            .iter()
            .filter_map(|(id, led)| Some((id.as_str(), led.summary?)))
            .collect();
        summaries.sort_by_key(|(id, _)| *id);
        let telemetry = &self.outlet.shared.telemetry;
        telemetry.campaigns_led(&summaries, self.has_all);
        let leads = &self.outlet.shared.leads;
        leads.store(self.has_all, Ordering::Relaxed);
        if self.held_since.elapsed() >= self.outlet.shared.settings.campaign_held_max {
            self.held_since = Instant::now();
            self.give_back().await;
        }
        Ok(())
    }

    /// Gives back what is held, as a broker takes it ill when that lasts for long. It comes again, and is not to be settled a second time then.
    async fn give_back(&mut self) {
        let definitions = self.led.values_mut().filter_map(|led| led.delivery.take());
        let mut held: Vec<Delivery> = definitions.collect();
        held.extend(self.left.drain().map(|(_, left)| left.delivery));
        held.extend(self.seat.take());
        for delivery in held {
            let back = delivery.acker.nack(BasicNackOptions {
                multiple: false,
                requeue: true,
            });
            drop(tokio::time::timeout(CALL_TIMEOUT, back).await);
        }
    }
}

async fn next_of(consumer: &mut Option<(Channel, Consumer)>) -> Option<lapin::Result<Delivery>> {
    match consumer {
        Some((_, consumer)) => consumer.next().await,
        None => std::future::pending().await,
    }
}
