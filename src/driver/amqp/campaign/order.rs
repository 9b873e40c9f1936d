//! What operators order about campaigns, and what a campaign orders itself, as it stands in the control stream.

use std::collections::VecDeque;

use jiff::Timestamp;

use super::super::error::BrokerError;
use super::super::orders;
use super::super::record::{Record, Start};
use super::super::stream::StreamReader;
use super::super::take;
use super::coordinator::{Coordinator, Input};
use super::leader::Leader;
use super::outlet::Outlet;
use crate::campaign::PauseReason;
use crate::job::{ArmAgain, CampaignId};
use crate::message::control::{Command, Scope, Verb};

/// An operator's order about a campaign, or about everything; or a campaign's own, to pause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    /// Its place in the control stream.
    pub(super) offset: u64,
    pub(super) published_at: Option<Timestamp>,
    pub(super) verb: Verb,
    /// `None`: everything.
    pub(super) campaign_id: Option<CampaignId>,
    pub(super) arm_again: Option<ArmAgain>,
    /// Whether it resumes everything, and everything was paused.
    pub(super) ends_stop: bool,
    pub(super) correlation_id: Option<String>,
    /// Why the campaign pauses itself; `None`: an operator's order.
    pub(super) by_itself: Option<(PauseReason, String)>,
}

/// Why a campaign pauses itself, as its order says it.
pub(super) fn why(reason: PauseReason, message: &str) -> String {
    format!("{} {message}", reason.name())
}

impl Order {
    /// The order in a message of the control stream; `None`: it is about a job, or no order.
    pub(super) fn of(entry: &Record) -> Option<Self> {
        let Command {
            verb,
            scope,
            arm_again,
        } = take::command(&entry.body).ok()?;
        let campaign_id = match scope {
            Scope::Campaign(id) => Some(id),
            Scope::All => None,
            Scope::Job(_) => return None,
        };
        let by_itself = entry.why.as_deref().and_then(|why| {
            let (reason, message) = why.split_once(' ')?;
            Some((PauseReason::from_name(reason)?, message.to_owned()))
        });
        Some(Self {
            offset: entry.offset,
            published_at: entry.published_at,
            verb,
            campaign_id,
            arm_again,
            ends_stop: false,
            correlation_id: entry.correlation_id.clone(),
            by_itself,
        })
    }

    /// Whether it was given before this time, by the clock of who gave it, to the second.
    pub(super) fn is_before(&self, time: Timestamp) -> bool {
        self.published_at
            .is_some_and(|at| at.as_second() < time.as_second())
    }

    pub(super) fn is_pause(&self) -> bool {
        self.verb == Verb::Pause
    }
}

/// What a coordinator has to obey that begins, or goes on, with a campaign which began then: everything since, and what still stands of
/// before about this campaign, as it stands for the campaign's jobs as well. A pause that was ended does not. Its end is kept: by a slow clock both may look
/// older than the campaign that was paused. In the order of the stream, whatever the clocks say.
pub(super) fn standing<'a>(
    orders: impl IntoIterator<Item = &'a Order>,
    began_at: Timestamp,
) -> VecDeque<Order> {
    let (mut standing, mut since) = (None::<&Order>, VecDeque::new());
    for order in orders {
        if !order.is_before(began_at) {
            since.push_back(order.clone());
            continue;
        }
        if order.campaign_id.is_none() {
            continue;
        }
        match (order.verb, standing.map(|before| before.verb)) {
            (_, Some(Verb::Cancel)) => {}
            (Verb::Cancel | Verb::Pause | Verb::Resume, _) => standing = Some(order),
        }
    }
    if let Some(order) = standing {
        let at = since
            .iter()
            .position(|later: &Order| later.offset > order.offset)
            .unwrap_or(since.len());
        since.insert(at, order.clone());
    }
    since
}

/// What a coordinator is told of the orders when it begins.
pub(super) struct Ordered {
    /// What it has to obey.
    pub(super) orders: VecDeque<Order>,
    /// Whether everything is paused.
    pub(super) is_everything_paused: bool,
    /// The place behind the last order that was read.
    pub(super) end: u64,
}

impl Coordinator {
    /// The place of an order is its name in the log. Where the stream was deleted and declared anew, places begin at 0 again: then nothing
    /// that stands in it was carried out, whatever the log says.
    pub(super) async fn forget_orders_of_another_stream(
        &mut self,
        read_to: u64,
    ) -> Result<(), BrokerError> {
        let Some(done) = self.order_done().filter(|done| *done >= read_to) else {
            return Ok(());
        };
        // Or whoever coordinated before had read further.
        let Outlet { shared, link } = &self.outlet;
        let reader = orders::read_to_mark(
            shared,
            &link.publisher,
            &self.connection,
            Start::Last,
            |_| {},
        );
        let reader = reader.await?;
        if reader.position().is_some_and(|end| done >= end) {
            self.state.order = None;
        }
        reader.close().await;
        Ok(())
    }

    /// The place of the last order that was carried out.
    pub(super) fn order_done(&self) -> Option<u64> {
        self.state.order.as_ref()?.parse().ok()
    }
}

impl Leader<'_> {
    /// Everything that operators have ordered so far, then what they order from now on.
    pub(super) async fn read_orders(&mut self) -> Result<StreamReader, BrokerError> {
        let Outlet { shared, link } = self.outlet;
        let connection = self.connection;
        let publisher = &link.publisher;
        let take = |record: &Record| {
            if let Some(order) = self.read(record) {
                drop(self.note_order(order));
            }
        };
        orders::read_to_mark(shared, publisher, connection, Start::First, take).await
    }

    fn read(&mut self, record: &Record) -> Option<Order> {
        self.orders_read = record.offset + 1;
        Order::of(record)
    }

    /// What a coordinator has to know that begins with a campaign which began then.
    pub(super) fn ordered(&self, campaign_id: &CampaignId, began_at: Timestamp) -> Ordered {
        let orders = self.orders.iter().filter(|order| {
            let of = order.campaign_id.as_ref();
            of.is_none_or(|of| of == campaign_id)
        });
        Ordered {
            orders: standing(orders, began_at),
            is_everything_paused: self.is_everything_paused,
            end: self.orders_read,
        }
    }

    /// Keeps what coordinators that begin later have to know; what one that is there has to be told.
    fn note_order(&mut self, mut order: Order) -> Option<Order> {
        if order.campaign_id.is_none() {
            order.ends_stop = self.is_everything_paused && !order.is_pause();
            self.is_everything_paused = order.is_pause();
            let says_something = order.ends_stop || order.arm_again.is_some();
            if !says_something {
                return None;
            }
        }
        self.orders.push(order.clone());
        Some(order)
    }

    /// Passes an order on. A coordinator that is busy holds nobody up, and finds it when it looks.
    pub(super) fn take_order(&mut self, record: &Record) {
        let Some(order) = self.read(record) else {
            return;
        };
        let campaign_id = order.campaign_id.clone();
        let noted = self.note_order(order);
        let of = |id: &CampaignId| campaign_id.as_ref().is_none_or(|of| of == id);
        for (_, led) in self.led.iter().filter(|(id, _)| of(id)) {
            // First what the end of a stop acknowledges: until then nothing may be concluded from it.
            if let Some(order) = noted.clone() {
                drop(led.inputs.send(Input::Order(order)));
            }
            if campaign_id.is_none() {
                drop(led.inputs.send(Input::Hold(self.is_everything_paused)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: &str) -> Option<(Verb, Option<String>)> {
        let record = Record {
            offset: 0,
            published_at: None,
            routing_key: String::new(),
            message_id: None,
            kind: None,
            app_id: None,
            content_type: None,
            correlation_id: None,
            why: None,
            traceparent: None,
            tracestate: None,
            body: body.as_bytes().to_vec(),
        };
        let order = Order::of(&record)?;
        Some((order.verb, order.campaign_id.map(|id| id.to_string())))
    }

    #[test]
    fn what_is_refused_as_an_order_is_none_for_a_campaign_either() {
        let spring = Some("spring".to_owned());
        for (body, expected) in [
            (
                r#"{"command":"cancel","campaign_id":"spring"}"#,
                Some((Verb::Cancel, spring.clone())),
            ),
            (
                r#"{"command":"pause","campaign_id":"spring","job_id":null,"all":null}"#,
                Some((Verb::Pause, spring)),
            ),
            (
                r#"{"command":"resume","all":true}"#,
                Some((Verb::Resume, None)),
            ),
            (r#"{"command":"cancel","job_id":"spring:1"}"#, None),
            (
                r#"{"command":"cancel","campaign_id":"spring","jobid":"1"}"#,
                None,
            ),
            (r#"{"command":"cancel","all":true}"#, None),
        ] {
            assert_eq!(of(body), expected, "{body}");
        }
    }

    fn order(offset: u64, second: i64, verb: Verb) -> Order {
        Order {
            offset,
            published_at: Some(Timestamp::from_second(second).unwrap()),
            verb,
            campaign_id: Some(CampaignId::parse("spring").unwrap()),
            arm_again: None,
            ends_stop: false,
            correlation_id: None,
            by_itself: None,
        }
    }

    #[test]
    fn of_the_orders_before_a_campaign_only_what_stands_counts() {
        use Verb::{Cancel, Pause, Resume};
        let began_at = Timestamp::from_second(100).unwrap();
        for (before, since, expected) in [
            (&[][..], &[][..], &[][..]),
            (&[Pause], &[], &[0]),
            (&[Pause, Resume], &[], &[1]),
            (&[Pause, Resume, Pause], &[], &[2]),
            (&[Resume], &[Pause, Resume], &[0, 1, 2]),
            (&[Pause], &[Resume], &[0, 1]),
            (&[Cancel, Pause, Resume], &[], &[0]),
            (&[Pause, Cancel], &[Resume], &[1, 2]),
            (&[], &[Cancel], &[0]),
        ] {
            let before = before.iter().map(|verb| (10, *verb));
            let since = since.iter().map(|verb| (100, *verb));
            let orders: Vec<_> = (0..)
                .zip(before.chain(since))
                .map(|(offset, (second, verb))| order(offset, second, verb))
                .collect();
            let offsets: Vec<_> = standing(&orders, began_at)
                .iter()
                .map(|order| order.offset)
                .collect();
            assert_eq!(offsets, expected, "{orders:?}");
        }
    }

    #[test]
    fn the_end_of_a_stop_counts_for_campaigns_that_began_before_it() {
        let began_at = Timestamp::from_second(100).unwrap();
        let of_all = |offset, second| Order {
            campaign_id: None,
            ends_stop: true,
            ..order(offset, second, Verb::Resume)
        };
        let orders = [
            order(1, 50, Verb::Pause),
            of_all(2, 60),
            order(3, 120, Verb::Resume),
            of_all(4, 130),
        ];
        let offsets: Vec<_> = standing(&orders, began_at)
            .iter()
            .map(|order| order.offset)
            .collect();
        assert_eq!(
            offsets,
            [1, 3, 4],
            "the pause of before stands until its own end"
        );
    }

    #[test]
    fn orders_by_a_slow_clock_keep_their_place() {
        let began_at = Timestamp::from_second(100).unwrap();
        let orders = [order(5, 110, Verb::Cancel), order(10, 20, Verb::Pause)];
        let offsets: Vec<_> = standing(&orders, began_at)
            .iter()
            .map(|order| order.offset)
            .collect();
        assert_eq!(offsets, [5, 10]);
    }
}
