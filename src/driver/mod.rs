//! How deliveries come in and verdicts go out: the seam to the broker.
//!
//! Two implementations: [`local`] keeps everything in one process, [`amqp`] is RabbitMQ. Both speak the wire format of `message/`, and
//! one contract suite runs against both.

use std::future::Future;

use jiff::Timestamp;

use crate::job::Standing;
use crate::job::state::Order;
use crate::message::Work;

pub mod amqp;
mod delayed;
pub mod journal;
pub mod local;

/// A job whose turn it is.
#[derive(Debug)]
pub struct Delivery<T> {
    /// The job and what travels with it.
    pub work: Work,
    /// Whether it may have been worked on before.
    pub redelivered: bool,
    /// What the driver needs to settle it.
    pub token: T,
}

/// What shall become of a delivery.
#[derive(Debug)]
pub struct HandOver {
    /// The job as it is now; what travels with it is unchanged.
    pub work: Work,
    /// Where it goes.
    pub to: Destination,
    /// Events for others, in order; published before the delivery is settled.
    pub events: Vec<crate::message::EventMessage>,
}

/// Where a job goes from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// To the next free worker.
    Now,
    /// To the next free worker at that time.
    At(Timestamp),
    /// Nowhere: the job is over.
    Nowhere,
}

impl Destination {
    /// What traces call it: where the last message of the hand-over goes, behind the prefix.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Now => "steps",
            Self::At(_) => "delay",
            Self::Nowhere => "results",
        }
    }
}

/// How much the worker takes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intake {
    /// All it can.
    Open,
    /// One delivery at a time, to see whether the NBI is back.
    Probe,
    /// Nothing.
    Closed,
}

/// Why a delivery could not be settled.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// What replaces the delivery is not confirmed: the broker will deliver it again. Nothing is lost.
    #[error("failed to publish to {target}: {message}")]
    NotPublished {
        /// The exchange or queue.
        target: String,
        /// What happened.
        message: String,
    },
    /// Everything is published, but the acknowledgement was lost: a copy may come back, and the driver knows it.
    #[error("failed to acknowledge a delivery whose replacement is confirmed: {message}")]
    NotAcknowledged {
        /// What happened.
        message: String,
    },
}

/// A source of deliveries.
pub trait Driver: Send + Sync + 'static {
    /// What the driver needs to settle a delivery.
    type Token: Send + 'static;

    /// The next delivery; `None` after [`Driver::stop`] once nothing more will come.
    ///
    /// Undecodable and invalid messages are settled by the driver and never come out here. A job that comes early is parked
    /// again by the driver.
    ///
    /// # Cancel safety
    ///
    /// Safe: a delivery is either returned or stays with the driver.
    fn receive(&self) -> impl Future<Output = Option<Delivery<Self::Token>>> + Send;

    /// Publishes what replaces the delivery, waits until the broker has confirmed all of it, and only then acknowledges.
    ///
    /// # Errors
    ///
    /// [`DriverError`]; in either case the broker keeps or returns the message and nothing is lost.
    fn carry_out(
        &self,
        token: Self::Token,
        hand_over: HandOver,
    ) -> impl Future<Output = Result<(), DriverError>> + Send;

    /// Settles a delivery that made the worker panic: counted by the broker, dead-lettered when it happens again and again.
    fn reject(&self, token: Self::Token) -> impl Future<Output = ()> + Send;

    /// What operators have ordered about a job, as far as is known here. Everything ordered before the first delivery is.
    fn standing(&self, order: &Order) -> Standing;

    /// Changes how much is taken in.
    fn set_intake(&self, intake: Intake);

    /// Takes in nothing more; deliveries not yet received go back to the broker.
    fn stop(&self) -> impl Future<Output = ()> + Send;

    /// Closes what is open after the last delivery is settled; bounded in time.
    fn close(&self) -> impl Future<Output = ()> + Send;
}
