//! How many messages are ready in the queues, asked now and then.
//!
//! Passive declarations need no permission and no plugin. Every worker asks: each must know it when the others are gone, and the
//! answers agree.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Channel, Connection};

use super::campaign;
use super::connection::{self, CALL_TIMEOUT, Ending};
use super::delay::Rung;
use super::error::{BrokerError, bounded};
use super::outgoing::short;
use super::shared::Shared;

/// Twenty small questions in this time are nothing to a broker, and a graph needs no more.
const ASKED_EVERY: Duration = Duration::from_secs(15);

/// Asks until the generation ends. An answer that does not come harms nothing but the graph; a queue that is not there ends the
/// generation, and the next one declares the queue again.
pub(super) async fn follow(connection: Arc<Connection>, shared: Arc<Shared>, ending: Arc<Ending>) {
    let asking = async {
        let mut channel = None;
        loop {
            if let Err(error) = look(&connection, &mut channel, &shared).await {
                shared.telemetry.queues_unknown(&error.to_string());
                if error.is_missing() {
                    return ending.end(error.to_string());
                }
            }
            tokio::time::sleep(ASKED_EVERY).await;
        }
    };
    tokio::select! {
        () = ending.ended() => {}
        () = asking => {}
    }
}

/// Asks once, through a new channel where a refusal has closed the last one.
async fn look(
    connection: &Connection,
    channel: &mut Option<Channel>,
    shared: &Shared,
) -> Result<(), BrokerError> {
    let open = match channel
        .take()
        .filter(|channel| channel.status().connected())
    {
        Some(open) => open,
        None => connection::channel(connection, "depths").await?,
    };
    ask(channel.insert(open), shared).await
}

async fn ask(channel: &Channel, shared: &Shared) -> Result<(), BrokerError> {
    let prefix = &shared.settings.prefix;
    let depth = async |queue: &str| {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let declared = channel.queue_declare(short(queue)?, options, FieldTable::default());
        let what = || format!("ask for the depth of queue \"{queue}\"");
        let queue = bounded(what, CALL_TIMEOUT, declared).await?;
        Ok::<u64, BrokerError>(queue.message_count().into())
    };
    for queue in ["requests", "steps", "dead"] {
        let messages = depth(&format!("{prefix}.{queue}")).await?;
        shared.telemetry.queue_messages(queue, messages);
    }
    // A leader takes both as they come.
    let mut waiting = depth(&campaign::leads(prefix)).await?;
    waiting += depth(&campaign::requests(prefix)).await?;
    shared.telemetry.queue_messages("campaigns", waiting);
    let mut waiting = 0;
    for rung in Rung::ALL {
        waiting += depth(&rung.queue(prefix)).await?;
    }
    shared.telemetry.queue_messages("delay", waiting);
    Ok(())
}
