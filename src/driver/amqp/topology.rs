//! Every exchange, queue, binding and argument, as data; and the two ways to bring the broker in line with it.
//!
//! Order matters: what others dead-letter to stands first. Arguments are structural here (a delay queue without its time to live would
//! be a black hole), so they are arguments and not policies. No queue that a delay queue leads to has a length limit: a full target
//! stops the whole delay queue for minutes (RabbitMQ's at-least-once dead lettering).

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};

use super::campaign;
use super::connection::{self, Purpose};
use super::delay::Rung;
use super::error::{BrokerError, bounded};
use super::outgoing::short;
use super::settings::{AmqpSettings, TopologyMode};

/// Bound of one declaration.
const DECLARE_TIMEOUT: Duration = Duration::from_secs(20);
/// Deliveries of one message before it is dead-lettered. Explicit, as the broker's default is none up to 3.13 and 20 from 4.0.
const DELIVERY_LIMIT: i64 = 20;
/// A stream is trimmed by whole segments; the broker's 500 MB would keep a small stream for ever.
const EVENTS_SEGMENT_BYTES: i64 = 50_000_000;
/// As above; commands are few and small.
const CONTROL_SEGMENT_BYTES: i64 = 5_000_000;

/// The value of a queue's argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// A string.
    Text(String),
    /// A signed 64-bit integer.
    Number(i64),
    /// Yes or no.
    Flag(bool),
}

/// How an exchange routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routing {
    /// By routing key and patterns.
    Topic,
    /// To all.
    Fanout,
}

/// One thing on the broker. All are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// An exchange.
    Exchange {
        /// Its name.
        name: String,
        /// How it routes.
        routing: Routing,
    },
    /// A queue or stream.
    Queue {
        /// Its name.
        name: String,
        /// Its arguments.
        arguments: Vec<(&'static str, Argument)>,
    },
    /// A queue bound to an exchange.
    Binding {
        /// The queue.
        queue: String,
        /// The exchange.
        exchange: String,
        /// The pattern.
        key: String,
    },
}

/// Everything that must stand, in the order in which it is declared.
#[must_use]
pub fn objects(settings: &AmqpSettings) -> Vec<Object> {
    let name = |last: &str| format!("{}.{last}", settings.prefix);
    let exchange = |last: &str, routing| Object::Exchange {
        name: name(last),
        routing,
    };
    let binding = |queue: &str, exchange: &str, key: &str| Object::Binding {
        queue: name(queue),
        exchange: name(exchange),
        key: key.to_owned(),
    };
    let mut all = vec![
        exchange("dead", Routing::Fanout),
        Object::Queue {
            name: name("dead"),
            arguments: vec![
                ("x-queue-type", text("quorum")),
                (
                    "x-delivery-limit",
                    Argument::Number(campaign::NEVER_DROPPED),
                ),
            ],
        },
        binding("dead", "dead", ""),
        Object::Queue {
            name: name("steps"),
            arguments: work_arguments(&name("dead")),
        },
        exchange("requests", Routing::Topic),
        Object::Queue {
            name: name("requests"),
            arguments: work_arguments(&name("dead")),
        },
        binding("requests", "requests", "#"),
        Object::Queue {
            name: campaign::leads(&settings.prefix),
            arguments: campaign::held_arguments(),
        },
        Object::Queue {
            name: campaign::requests(&settings.prefix),
            arguments: work_arguments(&name("dead")),
        },
        exchange("results", Routing::Topic),
        stream(
            name("events"),
            &settings.events_max_age,
            settings.events_max_length_bytes,
            EVENTS_SEGMENT_BYTES,
        ),
        binding("events", "results", "#"),
        exchange("control", Routing::Fanout),
        stream(
            name("control"),
            &settings.control_max_age,
            settings.control_max_length_bytes,
            CONTROL_SEGMENT_BYTES,
        ),
        binding("control", "control", ""),
        Object::Queue {
            name: name("commands"),
            arguments: work_arguments(&name("dead")),
        },
        binding("commands", "control", ""),
    ];
    all.extend(Rung::ALL.map(|rung| delay_queue(rung, &settings.prefix)));
    all
}

/// A queue that workers consume.
fn work_arguments(dead: &str) -> Vec<(&'static str, Argument)> {
    vec![
        ("x-queue-type", text("quorum")),
        ("x-delivery-limit", Argument::Number(DELIVERY_LIMIT)),
        ("x-dead-letter-exchange", text(dead)),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
    ]
}

/// All six arguments are needed: without `reject-publish` the broker silently falls back to at-most-once, and without the fixed
/// routing key 32 undeliverable messages would stop the queue.
fn delay_queue(rung: Rung, prefix: &str) -> Object {
    let ttl = i64::try_from(rung.seconds() * 1_000).unwrap_or(i64::MAX);
    Object::Queue {
        name: rung.queue(prefix),
        arguments: vec![
            ("x-queue-type", text("quorum")),
            ("x-message-ttl", Argument::Number(ttl)),
            ("x-dead-letter-exchange", text("")),
            (
                "x-dead-letter-routing-key",
                text(&format!("{prefix}.steps")),
            ),
            ("x-dead-letter-strategy", text("at-least-once")),
            ("x-overflow", text("reject-publish")),
        ],
    }
}

fn stream(name: String, max_age: &str, max_length_bytes: u64, segment_bytes: i64) -> Object {
    Object::Queue {
        name,
        arguments: vec![
            ("x-queue-type", text("stream")),
            ("x-max-age", text(max_age)),
            (
                "x-max-length-bytes",
                Argument::Number(i64::try_from(max_length_bytes).unwrap_or(i64::MAX)),
            ),
            (
                "x-stream-max-segment-size-bytes",
                Argument::Number(segment_bytes),
            ),
        ],
    }
}

fn text(value: &str) -> Argument {
    Argument::Text(value.to_owned())
}

/// Connects, declares everything and closes again.
///
/// # Errors
///
/// [`BrokerError`] names the object, the argument and the remedy.
pub async fn declare_once(settings: &AmqpSettings) -> Result<(), BrokerError> {
    once(settings, TopologyMode::Declare).await
}

/// Connects, looks whether everything stands and closes again. Arguments cannot be seen this way, only existence.
///
/// # Errors
///
/// [`BrokerError`] names the first object that is missing, and the remedy.
pub async fn check_once(settings: &AmqpSettings) -> Result<(), BrokerError> {
    once(settings, TopologyMode::Check).await
}

async fn once(settings: &AmqpSettings, mode: TopologyMode) -> Result<(), BrokerError> {
    let connection = connection::connect_any(settings, Purpose::Topology).await?;
    let outcome = apply(&connection, settings, mode).await;
    connection::close(&connection).await;
    outcome
}

/// Declares or checks everything on a channel of its own, as a refusal closes the channel.
pub(super) async fn apply(
    connection: &lapin::Connection,
    settings: &AmqpSettings,
    mode: TopologyMode,
) -> Result<(), BrokerError> {
    apply_objects(connection, &objects(settings), mode, &settings.prefix).await
}

/// The same for these objects, on a channel of their own.
pub(super) async fn apply_objects(
    connection: &lapin::Connection,
    objects: &[Object],
    mode: TopologyMode,
    prefix: &str,
) -> Result<(), BrokerError> {
    let mut channel = connection::channel(connection, "topology").await?;
    for object in objects {
        let mut declared = declare(&channel, object, mode).await;
        if declared
            .as_ref()
            .is_err_and(|error| error.code == Some(406))
            && let Some(earlier) = as_declared_earlier(object, prefix)
        {
            channel = connection::channel(connection, "topology").await?;
            declared = declare(&channel, &earlier, mode).await;
        }
        declared.map_err(|error| with_remedy(error, object, mode, prefix))?;
    }
    connection::close_channel(&channel).await;
    Ok(())
}

/// The object in a form that may stand from before, and that does as well.
fn as_declared_earlier(object: &Object, prefix: &str) -> Option<Object> {
    let Object::Queue { name, arguments } = object else {
        return None;
    };
    let mut arguments = arguments.clone();
    if *name == format!("{prefix}.dead") {
        arguments.retain(|(argument, _)| *argument == "x-queue-type");
    } else if arguments == campaign::held_arguments() {
        arguments.retain(|(argument, _)| *argument != "x-overflow");
    } else {
        return None;
    }
    let name = name.clone();
    Some(Object::Queue { name, arguments })
}

async fn declare(
    channel: &Channel,
    object: &Object,
    mode: TopologyMode,
) -> Result<(), BrokerError> {
    let passive = mode == TopologyMode::Check;
    let action = || describe(object, mode);
    match object {
        Object::Exchange { name, routing } => {
            let kind = match routing {
                Routing::Topic => ExchangeKind::Topic,
                Routing::Fanout => ExchangeKind::Fanout,
            };
            let options = ExchangeDeclareOptions {
                passive,
                durable: true,
                ..ExchangeDeclareOptions::default()
            };
            bounded(
                action,
                DECLARE_TIMEOUT,
                channel.exchange_declare(short(name)?, kind, options, FieldTable::default()),
            )
            .await
        }
        Object::Queue { name, arguments } => {
            let options = QueueDeclareOptions {
                passive,
                durable: true,
                ..QueueDeclareOptions::default()
            };
            let declared = channel.queue_declare(short(name)?, options, table(arguments));
            bounded(action, DECLARE_TIMEOUT, declared).await.map(|_| ())
        }
        Object::Binding { .. } if passive => Ok(()),
        Object::Binding {
            queue,
            exchange,
            key,
        } => {
            let bound = channel.queue_bind(
                short(queue)?,
                short(exchange)?,
                short(key)?,
                QueueBindOptions::default(),
                FieldTable::default(),
            );
            bounded(action, DECLARE_TIMEOUT, bound).await
        }
    }
}

fn table(arguments: &[(&'static str, Argument)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        let value = match value {
            Argument::Text(text) => AMQPValue::LongString(text.as_str().into()),
            Argument::Number(number) => AMQPValue::LongLongInt(*number),
            Argument::Flag(flag) => AMQPValue::Boolean(*flag),
        };
        table.insert((*name).into(), value);
    }
    table
}

fn describe(object: &Object, mode: TopologyMode) -> String {
    let verb = match mode {
        TopologyMode::Declare => "declare",
        TopologyMode::Check => "find",
    };
    match object {
        Object::Exchange { name, .. } => format!("{verb} exchange \"{name}\""),
        Object::Queue { name, .. } => format!("{verb} queue \"{name}\""),
        Object::Binding {
            queue, exchange, ..
        } => format!("bind queue \"{queue}\" to exchange \"{exchange}\""),
    }
}

fn with_remedy(
    error: BrokerError,
    object: &Object,
    mode: TopologyMode,
    prefix: &str,
) -> BrokerError {
    let remedy = match (error.code, object) {
        (Some(406), Object::Queue { name, arguments }) => {
            let argument = quoted(&error.cause, "inequivalent arg '");
            let ours =
                argument.and_then(|wanted| arguments.iter().find(|(name, _)| *name == wanted));
            let which = match (argument, ours) {
                (Some(argument), Some((_, Argument::Text(value)))) => {
                    format!("with another {argument} than \"{value}\"")
                }
                (Some(argument), Some((_, Argument::Number(value)))) => {
                    format!("with another {argument} than {value}")
                }
                (Some(argument), Some((_, Argument::Flag(value)))) => {
                    format!("with another {argument} than {value}")
                }
                (Some(argument), None) => format!("with {argument}, which must not be set"),
                (None, _) => "in another form".to_owned(),
            };
            format!("queue \"{name}\" stands {which}: {}", equal_again(arguments, name, prefix))
        }
        (Some(406), Object::Exchange { name, .. }) => {
            format!(
                "exchange \"{name}\" stands with another type or durability: delete it and let it be declared again"
            )
        }
        (Some(403), object) => permission(object, mode, prefix),
        (Some(404), _) if error.cause.contains("down or inaccessible") => {
            "wait for the broker node that holds it; if it stays away for good, delete the object and let it be declared again (docs/reliability.md says how)".to_owned()
        }
        (Some(404), _) if mode == TopologyMode::Check => {
            "declare it with `nbi-upgrade topology declare`, or set amqp.topology = \"declare\""
                .to_owned()
        }
        (Some(540), Object::Queue { .. }) => {
            "RabbitMQ 3.10 or newer is needed, with all feature flags enabled".to_owned()
        }
        _ => return error,
    };
    error.with_remedy(remedy)
}

/// What to do about a queue that stands with other arguments. A stream is never empty, and what is in it is gone with it.
fn equal_again(arguments: &[(&str, Argument)], name: &str, prefix: &str) -> String {
    if !arguments.contains(&("x-queue-type", text("stream"))) {
        return "change the configuration to what stands, or delete the queue once it is empty and let it be declared again".to_owned();
    }
    let lost = if name == format!("{prefix}.control") {
        "all standing cancellations and pauses are lost: give them again before a worker starts"
    } else {
        "its history is lost"
    };
    format!(
        "put the old value back, or stop the workers, delete the stream ({lost}) and declare it again"
    )
}

fn permission(object: &Object, mode: TopologyMode, prefix: &str) -> String {
    let wanted = match (object, mode) {
        (_, TopologyMode::Check) => "any permission",
        (Object::Queue { arguments, .. }, _)
            if arguments
                .iter()
                .any(|(name, _)| *name == "x-dead-letter-exchange") =>
        {
            "configure and read on the queue, and write on the exchange it dead-letters to,"
        }
        (Object::Exchange { .. } | Object::Queue { .. }, _) => "configure",
        (Object::Binding { .. }, _) => "write on the queue and read on the exchange",
    };
    format!(
        "the user needs {wanted} here; all that is needed: configure ^{prefix}\\..*, write ^({prefix}\\..*|amq\\.default)$, \
         read ^{prefix}\\..*; or, with amqp.topology = \"check\", objects that somebody else declared, and configure ^{prefix}\\.campaign\\..*"
    )
}

/// What `rabbitmqctl set_permissions` must be told at the end for a worker: configure, write, read.
pub(super) fn permissions(prefix: &str, mode: TopologyMode) -> String {
    let configure = match mode {
        TopologyMode::Declare => format!("^{prefix}\\..*"),
        TopologyMode::Check => format!("^{prefix}\\.campaign\\..*"),
    };
    format!("'{configure}' '^({prefix}\\..*|amq\\.default)$' '^{prefix}\\..*'")
}

/// The text between `before` and the next quote.
fn quoted<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    text.split_once(before)
        .and_then(|(_, rest)| rest.split_once('\''))
        .map(|(quoted, _)| quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dead_lettered_to_stands_before_what_leads_there() {
        let all = objects(&AmqpSettings::default());
        let at = |wanted: &str| {
            all.iter()
                .position(|object| matches!(object, Object::Queue { name, .. } if name == wanted))
        };
        assert!(at("upgrade.dead") < at("upgrade.steps"));
        assert!(at("upgrade.steps") < at("upgrade.delay.1s"));
        assert_eq!(
            all.iter()
                .filter(|object| matches!(object, Object::Queue { .. }))
                .count(),
            23
        );
    }

    #[test]
    fn every_delay_queue_has_all_six_arguments() {
        for object in objects(&AmqpSettings::default()) {
            let Object::Queue { name, arguments } = object else {
                continue;
            };
            if name.contains(".delay.") {
                assert_eq!(arguments.len(), 6, "{name}");
                assert!(arguments.contains(&("x-overflow", text("reject-publish"))));
                assert!(arguments.contains(&("x-dead-letter-routing-key", text("upgrade.steps"))));
            }
        }
    }

    #[test]
    fn no_work_queue_has_a_length_limit() {
        for object in objects(&AmqpSettings::default()) {
            if let Object::Queue { name, arguments } = object
                && !matches!(name.as_str(), "upgrade.events" | "upgrade.control")
            {
                assert!(
                    arguments
                        .iter()
                        .all(|(argument, _)| !argument.starts_with("x-max")),
                    "{name}"
                );
            }
        }
    }
}
