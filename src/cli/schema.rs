//! `schema`: what travels through the broker, as JSON Schemas and as an AsyncAPI document.

use super::output::{self, Status};
use crate::app;
use crate::config::Config;
use crate::driver::amqp::asyncapi;
use crate::message::schema;

/// Prints a schema as JSON.
#[derive(Debug, Clone, Copy, clap::Subcommand)]
pub(super) enum Schema {
    /// A request for one device: JSON Schema, draft 7.
    Request,
    /// A request for many devices: JSON Schema, draft 7.
    Campaign,
    /// An order to cancel, pause or resume: JSON Schema, draft 7.
    Control,
    /// The events, one definition for each type: JSON Schema, draft 7.
    Event,
    /// Exchanges, queues and all messages: AsyncAPI 3 with AMQP bindings. Names follow `amqp.prefix`.
    Asyncapi,
}

impl Schema {
    pub(super) fn run(self, config: &Config) -> Status {
        let document = match self {
            Self::Request => schema::request(),
            Self::Campaign => schema::campaign(),
            Self::Control => schema::control(),
            Self::Event => schema::event(),
            Self::Asyncapi => asyncapi::document(&app::amqp_settings(config)),
        };
        output::line(&format!("{document:#}"));
        Status::Done
    }
}
