//! Reads a stream: the history of events, or the commands.
//!
//! A stream keeps what was read. A reader begins where it likes, takes nothing away and needs read permission only. Acknowledging means
//! asking for more; a stream answers `basic.get`, nack and reject by ending the whole connection, so none of them is used here.
//! There is no mark at the end: who may publish reads up to a message of its own; others ask [`StreamReader::end`].

use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Acker, Channel, Connection, Consumer};
use tokio::time::Instant;

use super::connection::{self, CALL_TIMEOUT, Purpose};
use super::error::{BrokerError, bounded};
use super::outgoing::short;
use super::record::OFFSET;
pub use super::record::{Record, Start, Stream};
use super::settings::AmqpSettings;

/// Messages that the broker sends ahead.
const AHEAD: u16 = 256;
/// So many are acknowledged at once: fewer than [`AHEAD`], so that the broker never waits for us.
const ACKNOWLEDGED_AT_ONCE: u16 = 64;
/// The broker sends what it has without a pause: silence for so long behind a message means that there is nothing more.
const SILENT_BEHIND: Duration = Duration::from_millis(500);
/// The same where nothing came yet, as a stream's reader must be started first.
const SILENT_AT_FIRST: Duration = Duration::from_secs(3);
/// So long after the first of the last messages, all that were there at the beginning have come.
const CATCHES_UP_WITHIN: Duration = Duration::from_secs(2);
/// Reads one stream.
#[derive(Debug)]
pub struct StreamReader {
    settings: AmqpSettings,
    stream: Stream,
    start: Start,
    /// Where it is its own.
    connection: Option<Connection>,
    session: Session,
    /// The offset behind what was read.
    position: Option<u64>,
}

/// One consumer, which its channel outlives.
#[derive(Debug)]
struct Session {
    channel: Channel,
    consumer: Consumer,
    /// The newest message that is not acknowledged, and how many there are.
    unacknowledged: Option<(Acker, u16)>,
}

impl StreamReader {
    /// Connects to the first broker that lets us in, and begins. The stream must stand.
    ///
    /// # Errors
    ///
    /// [`BrokerError`] of the last broker tried, or why the stream cannot be read.
    pub async fn connect(
        settings: AmqpSettings,
        stream: Stream,
        start: Start,
    ) -> Result<Self, BrokerError> {
        let connection = connection::connect_any(&settings, Purpose::Reading).await?;
        let mut reader = Self::on(&connection, settings, stream, start).await?;
        reader.connection = Some(connection);
        Ok(reader)
    }

    /// Begins on a connection that somebody else keeps.
    pub(super) async fn on(
        connection: &Connection,
        settings: AmqpSettings,
        stream: Stream,
        start: Start,
    ) -> Result<Self, BrokerError> {
        let session = Session::begin(connection, &settings, &stream, start).await?;
        Ok(Self {
            settings,
            stream,
            start,
            connection: None,
            session,
            position: None,
        })
    }

    /// The next message, however long that takes.
    ///
    /// # Errors
    ///
    /// [`BrokerError`]: the connection or the stream is gone; see [`StreamReader::resume`].
    ///
    /// # Cancel safety
    ///
    /// Safe: a message is returned, or comes at the next call.
    pub async fn next(&mut self) -> Result<Record, BrokerError> {
        loop {
            let record = self.session.next(&self.stream, &self.settings).await?;
            self.position = Some(record.offset + 1);
            if self.is_wanted(&record) {
                return Ok(record);
            }
        }
    }

    /// The next message before this offset; `None` once there is none.
    ///
    /// With [`StreamReader::end`] this reads what is there, and comes to an end.
    ///
    /// # Errors
    ///
    /// As [`StreamReader::next`], or when the broker keeps a message back for more than ten seconds.
    pub async fn next_before(&mut self, end: u64) -> Result<Option<Record>, BrokerError> {
        // What begins by the clock may begin behind the end, and nobody says so.
        let (patience, is_silence_the_end) = match (self.position, self.start) {
            (Some(position), _) if position >= end => return Ok(None),
            (None, Start::Next) => return Ok(None),
            (None, Start::Offset(offset)) if offset >= end => return Ok(None),
            (None, _) if end == 0 => return Ok(None),
            (None, Start::Time(_)) => (SILENT_AT_FIRST, true),
            _ => (CALL_TIMEOUT, false),
        };
        loop {
            let next = self.session.next(&self.stream, &self.settings);
            let record = match tokio::time::timeout(patience, next).await {
                Ok(record) => record?,
                Err(_) if is_silence_the_end && self.position.is_none() => return Ok(None),
                Err(_) => {
                    let action = format!(
                        "read stream \"{}\"",
                        self.stream.queue(&self.settings.prefix)
                    );
                    return Err(BrokerError::timeout(action, patience));
                }
            };
            let offset = record.offset;
            self.position = Some(offset + 1);
            if offset >= end {
                // It was written after the end was asked for, where retention took everything before it away.
                return Ok(None);
            }
            if self.is_wanted(&record) {
                return Ok(Some(record));
            }
            if offset + 1 >= end {
                return Ok(None);
            }
        }
    }

    /// The offset behind the last message that is there now.
    ///
    /// The broker does not tell; a second reader looks at the last messages until none follows for half a second, or for two seconds where
    /// others go on writing. A message written meanwhile may be missed or not, as always; one that was confirmed before is missed only by a
    /// broker that pauses for so long in the middle of what it has.
    ///
    /// # Errors
    ///
    /// As [`StreamReader::next`]; or when the broker sends nothing of what it has, which is not to be taken for nothing.
    pub async fn end(&mut self) -> Result<u64, BrokerError> {
        let (stream, settings, read) = (&self.stream, &self.settings, self.position.unwrap_or(0));
        let own;
        let connection = match &self.connection {
            Some(connection) => connection,
            None => {
                own = connection::connect_any(settings, Purpose::Reading).await?;
                &own
            }
        };
        let mut session = Session::begin(connection, settings, stream, Start::Last).await?;
        let (mut end, mut patience, mut until) = (0, SILENT_AT_FIRST, None);
        while let Ok(record) = tokio::time::timeout(patience, session.next(stream, settings)).await
        {
            end = record?.offset + 1;
            patience = SILENT_BEHIND;
            let until = *until.get_or_insert_with(|| Instant::now() + CATCHES_UP_WITHIN);
            if Instant::now() >= until && end >= read {
                break;
            }
        }
        let held = if end == 0 {
            session.held(&stream.queue(&settings.prefix)).await?
        } else {
            0
        };
        connection::close_channel(&session.channel).await;
        not_silent(end, read, held).map_err(|cause| {
            let queue = stream.queue(&settings.prefix);
            BrokerError::new(format!("find the end of stream \"{queue}\""), cause)
        })
    }

    /// Connects again, behind what was read.
    ///
    /// # Errors
    ///
    /// As [`StreamReader::connect`]; it may be tried again.
    pub async fn resume(&mut self) -> Result<(), BrokerError> {
        if let Some(connection) = self.connection.take() {
            connection::close(&connection).await;
        }
        let start = self.position.map_or(self.start, Start::Offset);
        let connection = connection::connect_any(&self.settings, Purpose::Reading).await?;
        self.session = Session::begin(&connection, &self.settings, &self.stream, start).await?;
        self.connection = Some(connection);
        Ok(())
    }

    /// The offset behind what was read; `None` before the first message.
    #[must_use]
    pub fn position(&self) -> Option<u64> {
        self.position
    }

    /// Closes what is its own; bounded in time.
    pub async fn close(self) {
        connection::close_channel(&self.session.channel).await;
        if let Some(connection) = &self.connection {
            connection::close(connection).await;
        }
    }

    /// The broker begins with whole groups of messages, so that some may be older than asked for.
    fn is_wanted(&self, record: &Record) -> bool {
        match (self.start, record.published_at) {
            (Start::Time(from), Some(at)) => at.as_second() >= from.as_second(),
            _ => true,
        }
    }
}

/// The end that was found, unless it cannot be the end: behind what was read before, or of a stream that holds messages, there is more.
fn not_silent(end: u64, read: u64, held: u64) -> Result<u64, String> {
    if end < read {
        return Err(format!(
            "{read} messages were read, and the broker shows {end} (is it too slow, or was the stream deleted and declared again?)"
        ));
    }
    if end == 0 && held > 0 {
        return Err(format!("the broker has {held} messages and sends none"));
    }
    Ok(end)
}

impl Session {
    /// Messages in the stream, as the broker says.
    async fn held(&self, queue: &str) -> Result<u64, BrokerError> {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let asked = self
            .channel
            .queue_declare(short(queue)?, options, FieldTable::default());
        let what = || format!("look at stream \"{queue}\"");
        let found = bounded(what, CALL_TIMEOUT, asked).await?;
        Ok(found.message_count().into())
    }

    async fn begin(
        connection: &Connection,
        settings: &AmqpSettings,
        stream: &Stream,
        start: Start,
    ) -> Result<Self, BrokerError> {
        let queue = stream.queue(&settings.prefix);
        let what = || format!("read stream \"{queue}\"");
        let channel = connection::channel(connection, "stream").await?;
        let qos = channel.basic_qos(AHEAD, BasicQosOptions { global: false });
        bounded(what, CALL_TIMEOUT, qos).await?;
        let mut arguments = FieldTable::default();
        arguments.insert(OFFSET.into(), start.argument());
        let options = BasicConsumeOptions::default();
        let consume = channel.basic_consume(short(&queue)?, "".into(), options, arguments);
        let consumer = bounded(what, CALL_TIMEOUT, consume)
            .await
            .map_err(|error| match error.code {
                Some(403) => {
                    error.with_remedy(format!("the user needs read permission on {queue}"))
                }
                Some(404) => error.with_remedy(
                    "check amqp.prefix; `nbi-upgrade topology declare` creates what is missing",
                ),
                _ => error,
            })?;
        Ok(Self {
            channel,
            consumer,
            unacknowledged: None,
        })
    }

    async fn next(
        &mut self,
        stream: &Stream,
        settings: &AmqpSettings,
    ) -> Result<Record, BrokerError> {
        let what = || format!("read stream \"{}\"", stream.queue(&settings.prefix));
        if let Some((acker, ACKNOWLEDGED_AT_ONCE..)) = &self.unacknowledged {
            let acknowledged = acker.ack(BasicAckOptions { multiple: true });
            bounded(what, CALL_TIMEOUT, acknowledged).await?;
            self.unacknowledged = None;
        }
        match self.consumer.next().await {
            Some(Ok(delivery)) => {
                let held = self.unacknowledged.take().map_or(0, |(_, held)| held);
                self.unacknowledged = Some((delivery.acker.clone(), held + 1));
                Record::of(delivery)
                    .ok_or_else(|| BrokerError::new(what(), "a message came without its offset"))
            }
            Some(Err(error)) => Err(BrokerError::of(what(), &error)),
            None => Err(BrokerError::new(
                what(),
                "the broker ended the reading (was the stream deleted, or the connection lost?)",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_not_taken_for_the_end() {
        for (end, read, held, is_end) in [
            (0, 0, 0, true),
            (7, 0, 7, true),
            (7, 7, 0, true),
            (9, 7, 0, true),
            // It was read up to there, and nothing came.
            (0, 7, 0, false),
            (6, 7, 0, false),
            // Nothing was read yet, and nothing came of what is there.
            (0, 0, 3, false),
        ] {
            let found = not_silent(end, read, held);
            assert_eq!(found.is_ok(), is_end, "{end} {read} {held}: {found:?}");
        }
    }
}
