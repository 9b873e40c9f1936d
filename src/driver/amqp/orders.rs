//! The commands as a worker knows them: read up to a mark of its own before it takes a job, then followed.
//!
//! A worker that took a job before it knew of a cancellation would carry it out. The mark is a message of ours in the same stream: once it
//! comes back, everything confirmed before is known. The next generation goes on where the last one stood; should the mark not come there,
//! the stream may be another one, and the generation after that begins with its first message.

use std::sync::{Arc, PoisonError};

use jiff::Timestamp;
use lapin::Connection;
use uuid::Uuid;

use super::connection::{CALL_TIMEOUT, Ending};
use super::error::BrokerError;
use super::outgoing::{Outgoing, Target};
use super::properties;
use super::publish::Publisher;
use super::shared::Shared;
use super::stream::{Record, Start, Stream, StreamReader};
use super::take;
use crate::message::control::{MARK_TYPE, Orders};

/// Reads all commands that are there.
///
/// # Errors
///
/// [`BrokerError`] when the stream cannot be read, or the mark does not come back.
pub(super) async fn load(
    shared: &Shared,
    publisher: &Publisher,
    consuming: &Connection,
) -> Result<StreamReader, BrokerError> {
    let read = *position(shared);
    let loaded = load_from(shared, publisher, consuming, read).await;
    if loaded.is_err() {
        *position(shared) = None;
    }
    loaded
}

async fn load_from(
    shared: &Shared,
    publisher: &Publisher,
    consuming: &Connection,
    read: Option<u64>,
) -> Result<StreamReader, BrokerError> {
    let start = read.map_or(Start::First, Start::Offset);
    // From the first command on everything is folded anew, and takes the place of what stood when it is whole.
    let fresh = read
        .is_none()
        .then(|| Orders::new(shared.settings.control_kept_for));
    let orders = fresh.as_ref().unwrap_or(&shared.orders);
    let take = |record: &Record| apply(orders, record, shared.now());
    let reader = read_to_mark(shared, publisher, consuming, start, take).await?;
    if let Some(fresh) = fresh {
        shared.orders.replace(fresh);
    }
    note(shared, &reader);
    Ok(reader)
}

/// Reads the commands from there up to a mark of its own: every command that was confirmed before is among them. What comes next is
/// behind the mark.
///
/// # Errors
///
/// As [`load`].
pub(super) async fn read_to_mark(
    shared: &Shared,
    publisher: &Publisher,
    consuming: &Connection,
    start: Start,
    mut take: impl FnMut(&Record),
) -> Result<StreamReader, BrokerError> {
    let settings = &shared.settings;
    let mut reader = StreamReader::on(consuming, settings.clone(), Stream::Control, start).await?;
    let mark = Uuid::new_v4().to_string();
    let message = Outgoing {
        target: Target::ControlStream,
        properties: properties::of_mark(&mark, shared.now()),
        body: b"{}".to_vec(),
    };
    let target = message.target.name(&settings.prefix);
    publisher.publish(message).await.map_err(|error| {
        BrokerError::new(format!("publish a mark to {target}"), error.to_string())
    })?;
    loop {
        let record = tokio::time::timeout(CALL_TIMEOUT, reader.next())
            .await
            .map_err(|_| {
                BrokerError::timeout("find our mark among the commands", CALL_TIMEOUT)
            })??;
        if record.message_id.as_deref() == Some(mark.as_str()) {
            return Ok(reader);
        }
        take(&record);
    }
}

/// Follows the stream; should it end, so does the generation.
pub(super) async fn follow(shared: Arc<Shared>, ending: Arc<Ending>, mut reader: StreamReader) {
    loop {
        let next = tokio::select! {
            biased;
            () = ending.ended() => return,
            next = reader.next() => next,
        };
        match next {
            Ok(record) => {
                apply(&shared.orders, &record, shared.now());
                note(&shared, &reader);
            }
            Err(error) => return ending.end(error.to_string()),
        }
    }
}

/// A message that is no command changes nothing; who answers commands says so.
fn apply(orders: &Orders, record: &Record, now: Timestamp) {
    let at = record.published_at.unwrap_or(now);
    if record.kind.as_deref() == Some(MARK_TYPE) {
        return orders.seen(at, now);
    }
    if let Ok(command) = take::command(&record.body) {
        orders.apply(&command, at, now);
    }
}

fn note(shared: &Shared, reader: &StreamReader) {
    *position(shared) = reader.position();
    shared
        .telemetry
        .emergency_stop(shared.orders.is_all_paused());
}

fn position(shared: &Shared) -> std::sync::MutexGuard<'_, Option<u64>> {
    shared
        .commands_read
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}
