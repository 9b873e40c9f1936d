//! `topology`: the broker's objects, declared or checked.

use anyhow::Context as _;
use serde_json::json;

use super::output::{self, Format, Status};
use crate::app;
use crate::config::Config;
use crate::driver::amqp::{AmqpSettings, topology};

/// Declares or checks the broker's objects.
#[derive(Debug, Clone, Copy, clap::Subcommand)]
pub(super) enum Topology {
    /// Creates what is missing; what stands must be equal.
    Declare,
    /// Looks whether everything stands; changes nothing.
    Check,
}

impl Topology {
    pub(super) async fn run(self, config: Config, format: Format) -> anyhow::Result<Status> {
        let urls = config.require_amqp()?;
        let settings = AmqpSettings {
            urls,
            ..app::amqp_settings(&config)
        };
        let (did, verb) = match self {
            Self::Declare => (topology::declare_once(&settings).await, "declared"),
            Self::Check => (topology::check_once(&settings).await, "checked"),
        };
        did.context("the topology does not stand")?;
        let count = topology::objects(&settings).len();
        match format {
            Format::Text => output::line(&format!(
                "{verb} {count} objects under {:?}",
                settings.prefix
            )),
            Format::Json => {
                output::line(
                    &json!({"result": verb, "objects": count, "prefix": settings.prefix})
                        .to_string(),
                );
            }
        }
        Ok(Status::Done)
    }
}
