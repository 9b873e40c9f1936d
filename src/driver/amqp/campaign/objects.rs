//! The names and arguments of what campaigns need on the broker.

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection};

use super::super::connection::{self, CALL_TIMEOUT};
use super::super::error::{BrokerError, bounded};
use super::super::outgoing::short;
use super::super::settings::TopologyMode;
use super::super::topology::{self, Argument, Object};
use crate::job::CampaignId;

/// Redeliveries of one message before the broker drops it, where messages are held and given back as a matter of course: the broker's
/// default (20 from 4.0) would lose them. No negative number, which means no limit from 4.0 on, and 0 before.
pub(in super::super) const NEVER_DROPPED: i64 = 1_000_000;
/// A log is read as a whole and trimmed never; smaller segments would only mean more files.
const LOG_SEGMENT_BYTES: i64 = 50_000_000;

/// The events that a campaign's log is bound to, before the campaign's id.
const LOGGED: [&str; 5] = [
    "upgrade.completed",
    "upgrade.failed",
    "upgrade.cancelled",
    "upgrade.rejected",
    "upgrade.campaign.*",
];

/// Where definitions stand.
pub(in super::super) fn leads(prefix: &str) -> String {
    format!("{prefix}.campaigns")
}

/// Where requests with devices wait for the leader.
pub(in super::super) fn requests(prefix: &str) -> String {
    format!("{prefix}.campaigns.requests")
}

/// Where the devices of a campaign wait for their turn.
pub(super) fn devices(prefix: &str, campaign_id: &CampaignId) -> String {
    format!("{prefix}.campaign.{campaign_id}")
}

/// The log of a campaign.
pub(in super::super) fn log(prefix: &str, campaign_id: &CampaignId) -> String {
    format!("{prefix}.campaign.{campaign_id}.log")
}

/// Arguments of a queue with one active consumer, whose messages may come again as often as it takes.
pub(in super::super) fn held_arguments() -> Vec<(&'static str, Argument)> {
    vec![
        ("x-queue-type", Argument::Text("quorum".to_owned())),
        ("x-single-active-consumer", Argument::Flag(true)),
        ("x-delivery-limit", Argument::Number(NEVER_DROPPED)),
        // Under a limit that a policy sets, the broker would drop the oldest without a word.
        ("x-overflow", Argument::Text("reject-publish".to_owned())),
    ]
}

/// Declares what a campaign needs; it stands already after a change of leaders.
///
/// Also where everything else is only checked: nobody could declare these beforehand.
pub(super) async fn declare(
    connection: &Connection,
    prefix: &str,
    campaign_id: &CampaignId,
) -> Result<(), BrokerError> {
    let log = log(prefix, campaign_id);
    let mut objects = vec![
        Object::Queue {
            name: devices(prefix, campaign_id),
            arguments: held_arguments(),
        },
        Object::Queue {
            name: log.clone(),
            arguments: vec![
                ("x-queue-type", Argument::Text("stream".to_owned())),
                (
                    "x-stream-max-segment-size-bytes",
                    Argument::Number(LOG_SEGMENT_BYTES),
                ),
            ],
        },
    ];
    objects.extend(LOGGED.map(|events| Object::Binding {
        queue: log.clone(),
        exchange: format!("{prefix}.results"),
        key: format!("{events}.{campaign_id}"),
    }));
    topology::apply_objects(connection, &objects, TopologyMode::Declare, prefix).await
}

/// Messages of a queue that wait to be delivered, and how many consume it: what others hold is not counted.
pub(super) async fn depth(channel: &Channel, queue: &str) -> Result<(u32, u32), BrokerError> {
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let asked = channel.queue_declare(short(queue)?, options, FieldTable::default());
    let found = bounded(|| format!("look at queue \"{queue}\""), CALL_TIMEOUT, asked).await?;
    Ok((found.message_count(), found.consumer_count()))
}

/// Whether a queue has messages or is consumed; one that is not there is not in use.
pub(super) async fn is_in_use(connection: &Connection, queue: &str) -> Result<bool, BrokerError> {
    let channel = connection::channel(connection, "looking").await?;
    let found = depth(&channel, queue).await;
    connection::close_channel(&channel).await;
    match found {
        Ok((ready, consumers)) => Ok(ready > 0 || consumers > 0),
        Err(error) if error.is_missing() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Deletes a queue or stream; one that is gone already is as good.
pub(super) async fn delete(connection: &Connection, queue: &str) -> Result<(), BrokerError> {
    let channel = connection::channel(connection, "deleting").await?;
    let deleted = channel.queue_delete(short(queue)?, QueueDeleteOptions::default());
    bounded(
        || format!("delete queue \"{queue}\""),
        CALL_TIMEOUT,
        deleted,
    )
    .await?;
    connection::close_channel(&channel).await;
    Ok(())
}
