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
    #[command(after_help = "\
Examples:
  nbi-upgrade topology declare
  nbi-upgrade topology declare --set amqp.prefix=lab --set amqp.url=amqp://admin:secret@rabbitmq.example.com/%2f

Declaring again does nothing. A worker declares by itself unless amqp.topology
is \"check\".")]
    Declare,
    /// Looks whether everything stands; changes nothing.
    #[command(after_help = "\
Examples:
  nbi-upgrade topology check

`nbi-upgrade check` says more: every fault instead of the first, permissions,
and the NBI.")]
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
        did.with_context(|| format!("the topology could not be {verb}"))?;
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
