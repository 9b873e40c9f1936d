//! Answers commands: each one by an event, also when it changes nothing.
//!
//! Every worker reads every command, but one answers: commands also go to the queue `<p>.commands`, which all workers consume, and a
//! command is acknowledged there when its answer is confirmed. Whether a job is known, or over, the history of events tells; what comes
//! together is looked up together, as a look reads the whole of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery as Original;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use uuid::Uuid;

use super::connection::CALL_TIMEOUT;
use super::error::{BrokerError, bounded};
use super::handover::{self, event_messages};
use super::outgoing::short;
use super::properties;
use super::settings::AmqpSettings;
use super::shared::{Link, Settler, Shared};
use super::stream::{Start, Stream, StreamReader};
use super::take;
use crate::message::control::{Answer, AnswerReason, Command, Scope, Verb};
use crate::message::{EventKind, FieldFault, job_id_of_event};

/// Commands answered together.
const BATCH: u16 = 256;
/// What comes within this is answered together.
const TOGETHER: Duration = Duration::from_millis(200);
/// What a look at the history may take; far below the broker's limit for an unanswered delivery.
const LOOK_WITHIN: Duration = Duration::from_secs(600);

/// What the history tells of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Accepted,
    Over(EventKind),
}

/// Answers until the generation ends or the worker stops.
pub(super) async fn run(shared: Arc<Shared>, link: Arc<Link>, channel: Channel) {
    let mut consumer = match consume(&shared.settings, &channel).await {
        Ok(consumer) => consumer,
        Err(error) => return link.ending.end(error.to_string()),
    };
    loop {
        let batch = tokio::select! {
            biased;
            () = link.ending.ended() => return,
            () = shared.stopping() => return,
            batch = batch(&mut consumer) => batch,
        };
        let Some(batch) = batch else {
            return link.ending.end("the consumer of commands ended");
        };
        answer(&shared, &link, batch).await;
    }
}

async fn consume(settings: &AmqpSettings, channel: &Channel) -> Result<Consumer, BrokerError> {
    let queue = format!("{}.commands", settings.prefix);
    let what = || format!("consume queue \"{queue}\"");
    let qos = channel.basic_qos(BATCH, BasicQosOptions { global: false });
    bounded(what, CALL_TIMEOUT, qos).await?;
    let options = BasicConsumeOptions::default();
    let consume = channel.basic_consume(short(&queue)?, "".into(), options, FieldTable::default());
    bounded(what, CALL_TIMEOUT, consume).await
}

/// What comes together; `None` when nothing will come any more. Dropped half full, the rest comes again.
async fn batch(consumer: &mut Consumer) -> Option<Vec<Original>> {
    let mut batch = vec![consumer.next().await?.ok()?];
    while batch.len() < usize::from(BATCH) {
        match tokio::time::timeout(TOGETHER, consumer.next()).await {
            Ok(next) => batch.push(next?.ok()?),
            Err(_) => break,
        }
    }
    Some(batch)
}

async fn answer(shared: &Shared, link: &Arc<Link>, batch: Vec<Original>) {
    let commands: Vec<_> = batch
        .iter()
        .map(|original| take::command(&original.data))
        .collect();
    let jobs: Vec<String> = commands
        .iter()
        .filter_map(|command| command.as_ref().ok())
        .filter_map(|command| command.job_id().map(str::to_owned))
        .collect();
    let known = match look_up(&shared.settings, jobs).await {
        Ok(known) => Some(known),
        Err(error) => {
            shared.telemetry.history_unreadable(&error.to_string());
            None
        }
    };
    for (original, command) in batch.into_iter().zip(commands) {
        let incoming = properties::incoming(&original);
        let key = key(&original);
        let answer = answer_to(&key, incoming, &command, known.as_ref());
        let event = shared.codec.answer_event(&answer, shared.now());
        let (is_accepted, message) = (answer.reason.is_accepted(), answer.message.clone());
        let messages = event_messages(event, &shared.settings, &shared.telemetry);
        let settler = Settler {
            acker: original.acker.clone(),
            link: Arc::clone(link),
        };
        if !handover::publish_on(link, messages, &shared.telemetry).await {
            // The generation ended: the command comes again, and its answer has the same id.
            return;
        }
        let text = String::from_utf8_lossy(&original.data);
        shared
            .telemetry
            .command_answered(is_accepted, &text, &message);
        drop(settler.ack().await);
    }
}

/// Names a command: as its sender does, else by what it is and when it was sent.
fn key(original: &Original) -> String {
    let properties = &original.properties;
    let given = properties
        .message_id()
        .as_ref()
        .or_else(|| properties.correlation_id().as_ref());
    match given {
        Some(id) => id.as_str().to_owned(),
        None => {
            let mut name = original.data.clone();
            name.extend_from_slice(&properties.timestamp().unwrap_or(0).to_be_bytes());
            Uuid::new_v5(&Uuid::NAMESPACE_OID, &name).to_string()
        }
    }
}

fn answer_to<'a>(
    key: &'a str,
    incoming: crate::message::Incoming<'a>,
    command: &'a Result<Command, Vec<FieldFault>>,
    known: Option<&HashMap<String, Known>>,
) -> Answer<'a> {
    let stands = |message: &str| (AnswerReason::Stands, message.to_owned());
    let (reason, message) = match command {
        Err(_) => (
            AnswerReason::InvalidCommand,
            "the command is not valid and changes nothing".to_owned(),
        ),
        Ok(Command {
            verb: Verb::Cancel,
            scope: Scope::Job(id),
            ..
        }) => match known.map(|known| known.get(id.as_str())) {
            None => stands(
                "the job is cancelled unless it is over; the event history could not be read, so that nobody can tell",
            ),
            Some(Some(Known::Accepted)) => stands("the job ends at its next look"),
            Some(Some(Known::Over(EventKind::Cancelled))) => (
                AnswerReason::AlreadyCancelled,
                "the job is cancelled".to_owned(),
            ),
            Some(Some(Known::Over(kind))) => (
                AnswerReason::AlreadyFinished,
                format!("the job is over: {}", kind.event_type()),
            ),
            Some(None) => (
                AnswerReason::UnknownJob,
                "the event history knows no such job; should it come, it is cancelled".to_owned(),
            ),
        },
        Ok(Command { verb, scope, .. }) => match (verb, scope) {
            (Verb::Cancel, _) => {
                stands("its jobs end at their next look, and those to come at once")
            }
            (Verb::Pause, Scope::All) => {
                stands("everything is paused: no rule is armed, and what is armed is disarmed")
            }
            (Verb::Pause, _) => {
                stands("the campaign is paused: no rule is armed, and what is armed is disarmed")
            }
            (Verb::Resume, Scope::All) => {
                stands("everything goes on, but campaigns that are paused by themselves")
            }
            (Verb::Resume, _) => stands("the campaign goes on, unless everything is paused"),
        },
    };
    Answer {
        key,
        incoming,
        command: command.as_ref().ok(),
        reason,
        message,
        faults: command.as_ref().err().cloned().unwrap_or_default(),
    }
}

/// What the history of events tells of these jobs.
async fn look_up(
    settings: &AmqpSettings,
    jobs: Vec<String>,
) -> Result<HashMap<String, Known>, BrokerError> {
    let mut known: HashMap<String, Option<Known>> =
        jobs.into_iter().map(|job| (job, None)).collect();
    if !known.is_empty() {
        let mut reader =
            StreamReader::connect(settings.clone(), Stream::Events, Start::First).await?;
        let looked = tokio::time::timeout(LOOK_WITHIN, read(&mut reader, &mut known)).await;
        reader.close().await;
        looked.map_err(|_| BrokerError::timeout("read the event history", LOOK_WITHIN))??;
    }
    Ok(known
        .into_iter()
        .filter_map(|(job, known)| Some((job, known?)))
        .collect())
}

async fn read(
    reader: &mut StreamReader,
    known: &mut HashMap<String, Option<Known>>,
) -> Result<(), BrokerError> {
    let end = reader.end().await?;
    while let Some(record) = reader.next_before(end).await? {
        let kind = EventKind::ALL
            .into_iter()
            .find(|kind| Some(kind.event_type()) == record.kind.as_deref());
        // What was rejected never was a job; what was corrected is over already.
        let news = match kind {
            Some(EventKind::Accepted) => Known::Accepted,
            Some(kind @ (EventKind::Completed | EventKind::Failed | EventKind::Cancelled)) => {
                Known::Over(kind)
            }
            Some(_) | None => continue,
        };
        let job = job_id_of_event(&record.body);
        if let Some(slot) = job.and_then(|job| known.get_mut(&job))
            && !matches!(slot, Some(Known::Over(_)))
        {
            *slot = Some(news);
        }
    }
    Ok(())
}
