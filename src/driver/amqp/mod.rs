//! RabbitMQ: deliveries from two quorum queues, waiting jobs in delay queues, events to a topic exchange.
//!
//! Promises: nothing is acknowledged before what replaces it is confirmed; a publish counts only when the broker has taken *and* routed it;
//! a lost connection costs nothing but time. Does not promise that a continuation is delivered once: see `ledger.rs` for what is caught.
//! The client library is known in this folder alone.

pub mod asyncapi;
pub mod dead;
pub mod delay;
pub mod probe;
pub mod requester;
pub mod settings;
pub mod stream;
pub mod topology;

mod answers;
mod campaign;
mod confirms;
mod connection;
mod consume;
mod depths;
mod driver;
mod error;
mod greeting;
mod handover;
mod inbox;
mod lanes;
mod ledger;
mod line;
mod orders;
mod origin;
mod outgoing;
mod properties;
mod publish;
mod record;
mod shared;
mod supervisor;
mod take;
mod wire;

pub use dead::{DeadLetters, Letter};
pub use driver::AmqpDriver;
pub use error::BrokerError;
pub use handover::PUBLISH_WITHIN;
pub use origin::Origin;
pub use requester::Requester;
pub use settings::{AmqpSettings, TlsSettings, TopologyMode};
pub use shared::Token;
pub use stream::StreamReader;
