//! A look at a broker that changes nothing: what answers, who is let in, what they may do, what stands.
//!
//! AMQP has no question for permissions, so each is asked by a call that the broker must refuse for another reason after it has looked at
//! the permission: a publish with an impossible expiration is never routed, a consumer with an impossible priority never begins, and
//! declaring what stands, as it stands, does nothing. Bindings, policies and feature flags cannot be seen this way.

use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection};
use secrecy::{ExposeSecret, SecretString};

use super::connection::{self, CALL_TIMEOUT, Purpose};
use super::error::{BrokerError, bounded};
use super::greeting::reach;
use super::outgoing::{Target, short};
use super::settings::{AmqpSettings, TopologyMode};
use super::topology::{self, Object};
use crate::message::EventKind;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// What: `broker reachable`.
    pub what: &'static str,
    /// What was found, or what is wrong and how to repair it.
    pub result: Result<String, BrokerError>,
    /// What works but should be otherwise.
    pub advice: Option<String>,
}

impl Probed {
    pub(super) fn new(what: &'static str, result: Result<String, BrokerError>) -> Self {
        Self {
            what,
            result,
            advice: None,
        }
    }
}

/// Looks at every broker of the list, and through the first that lets us in at everything else.
pub async fn probe(settings: &AmqpSettings) -> Vec<Probed> {
    let mut all = Vec::new();
    let mut inside = None;
    for url in &settings.urls {
        let reached = reach(settings, url).await;
        let is_reached = reached.result.is_ok();
        all.push(reached);
        if is_reached {
            let (found, connection) = enter(settings, url).await;
            all.extend(found);
            if inside.is_none() {
                inside = connection;
            } else if let Some(connection) = connection {
                connection::close(&connection).await;
            }
        }
    }
    if let Some(connection) = inside {
        look_around(settings, &connection, &mut all).await;
        connection::close(&connection).await;
    }
    all
}

/// Lets itself in: TLS, user and password, vhost.
async fn enter(settings: &AmqpSettings, url: &SecretString) -> (Vec<Probed>, Option<Connection>) {
    let (credentials, vhost) = ("broker credentials", "broker vhost");
    let parsed = url::Url::parse(url.expose_secret()).ok();
    let user = parsed.as_ref().map_or("", |url| url.username()).to_owned();
    let user = if user.is_empty() {
        "guest".to_owned()
    } else {
        user
    };
    let accepted = || Probed::new(credentials, Ok(format!("user {user:?} is let in")));
    match connection::connect(settings, url, Purpose::Topology).await {
        Ok(connection) => {
            let name = connection.status().vhost().to_string();
            let found = Probed::new(
                vhost,
                Ok(format!("{name:?} stands and is open to the user")),
            );
            (vec![accepted(), found], Some(connection))
        }
        Err(error) if error.code == Some(530) => {
            (vec![accepted(), Probed::new(vhost, Err(error))], None)
        }
        Err(error) if error.code == Some(403) => (vec![Probed::new(credentials, Err(error))], None),
        Err(error) => {
            let error = if error.remedy.is_some() {
                error
            } else {
                error.with_remedy(
                    "check amqp.ca_file and the client's certificate, and the broker's log",
                )
            };
            (vec![Probed::new("broker handshake", Err(error))], None)
        }
    }
}

async fn look_around(settings: &AmqpSettings, connection: &Connection, all: &mut Vec<Probed>) {
    let objects = topology::objects(settings);
    let mut missing = Vec::new();
    let mut unequal = Vec::new();
    let mut stand = 0;
    let mut configure: Option<BrokerError> = None;
    let apply = async |object: &Object, mode| {
        let one = std::slice::from_ref(object);
        topology::apply_objects(connection, one, mode, &settings.prefix).await
    };
    for object in objects.iter().filter(|object| name_of(object).is_some()) {
        match apply(object, TopologyMode::Check).await {
            Ok(()) => stand += 1,
            Err(error) if error.code == Some(404) => missing.push((object, error)),
            Err(error) => unequal.push(error),
        }
    }
    // What stands is declared again as it should be: equal means that nothing happens.
    if settings.topology == TopologyMode::Declare {
        for object in objects.iter().filter(|object| name_of(object).is_some()) {
            let is_missing = missing.iter().any(|(other, _)| *other == object);
            if is_missing || configure.is_some() {
                continue;
            }
            match apply(object, TopologyMode::Declare).await {
                Ok(()) => {}
                Err(error) if error.code == Some(403) => configure = Some(error),
                Err(error) => unequal.push(error),
            }
        }
    }
    let configured = match configure {
        Some(error) => Err(error),
        None => may_configure(settings, connection).await,
    };
    all.push(permission("configure", configured, settings));
    all.push(permission(
        "write",
        may_write(settings, connection).await,
        settings,
    ));
    all.push(permission(
        "read",
        may_read(settings, connection).await,
        settings,
    ));
    let found = !missing.is_empty() || !unequal.is_empty();
    if let Some((_, first)) = missing.first() {
        let names: Vec<_> = missing
            .iter()
            .filter_map(|(object, _)| name_of(object))
            .collect();
        let cause = format!(
            "{} of {} exchanges and queues are missing: {}",
            missing.len(),
            missing.len() + stand + unequal.len(),
            listed(&names)
        );
        let error = BrokerError {
            cause,
            action: "find everything".to_owned(),
            ..first.clone()
        };
        all.push(Probed::new("broker topology", Err(error)));
    }
    all.extend(
        unequal
            .into_iter()
            .map(|error| Probed::new("broker topology", Err(error))),
    );
    if !found {
        let how = if settings.topology == TopologyMode::Declare {
            "equal to what is configured; bindings cannot be seen"
        } else {
            "arguments and bindings cannot be seen with amqp.topology = \"check\""
        };
        all.push(Probed::new(
            "broker topology",
            Ok(format!(
                "{stand} exchanges and queues under {:?} stand, {how}",
                settings.prefix
            )),
        ));
        all.push(Probed::new(
            "broker feature flags",
            Ok(
                "quorum queues and streams work; the rest `rabbitmqctl list_feature_flags` shows"
                    .to_owned(),
            ),
        ));
    }
}

/// The first few names.
fn listed(names: &[&str]) -> String {
    let shown = 4;
    let more = names.len().saturating_sub(shown);
    let first = names[..names.len().min(shown)].join(", ");
    if more > 0 {
        format!("{first} and {more} more")
    } else {
        first
    }
}

/// Exchanges and queues have names; bindings have none of their own.
fn name_of(object: &Object) -> Option<&str> {
    match object {
        Object::Exchange { name, .. } | Object::Queue { name, .. } => Some(name),
        Object::Binding { .. } => None,
    }
}

fn permission(
    which: &'static str,
    result: Result<(), BrokerError>,
    settings: &AmqpSettings,
) -> Probed {
    let prefix = &settings.prefix;
    let what = match which {
        "configure" => "broker permission: configure",
        "write" => "broker permission: write",
        _ => "broker permission: read",
    };
    let found = match which {
        "configure" if settings.topology == TopologyMode::Check => {
            format!("on {prefix}.campaign.*; more is not needed with amqp.topology = \"check\"")
        }
        "write" => format!("on {prefix}.* and on the default exchange"),
        _ => format!("on {prefix}.*"),
    };
    // Who runs it as another user should not be led to grant that user a worker's rights.
    let result = result.map_err(|error| match error.remedy.clone() {
        Some(remedy) if error.code == Some(403) => {
            error.with_remedy(format!("a worker needs it: {remedy}"))
        }
        _ => error,
    });
    Probed::new(what, result.map(|()| found))
}

/// Declares what the broker must refuse, where campaigns have queues of their own, which nobody could declare beforehand.
async fn may_configure(
    settings: &AmqpSettings,
    connection: &Connection,
) -> Result<(), BrokerError> {
    let name = format!("{}.campaign.nbi-upgrade-check", settings.prefix);
    let channel = connection::channel(connection, "permissions").await?;
    let mut impossible = FieldTable::default();
    impossible.insert("x-message-ttl".into(), AMQPValue::LongString("none".into()));
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare(short(&name)?, options, impossible);
    let action = || format!("declare queues of campaigns, such as {name}");
    refusal(
        bounded(action, CALL_TIMEOUT, declared).await.map(|_| ()),
        settings,
        connection,
    )
}

/// Publishes what the broker must refuse, wherever a worker publishes.
pub(super) async fn may_write(
    settings: &AmqpSettings,
    connection: &Connection,
) -> Result<(), BrokerError> {
    // With keys as they are used, as a topic permission looks at them.
    let event = format!("{}.-", EventKind::Completed.event_type());
    for target in [
        Target::Results(event),
        Target::Dead,
        Target::Requests,
        Target::Steps,
    ] {
        let (exchange, key) = target.address(&settings.prefix);
        let shown = if exchange.is_empty() {
            "the default exchange"
        } else {
            &exchange
        };
        let action = || format!("write to {shown}");
        let channel = connection::channel(connection, "permissions").await?;
        bounded(
            action,
            CALL_TIMEOUT,
            channel.confirm_select(ConfirmSelectOptions::default()),
        )
        .await?;
        // Both are refused after the permission was looked at and before anything is routed.
        let impossible = BasicProperties::default()
            .with_expiration("never".into())
            .with_user_id("nbi-upgrade-check-is-nobody".into());
        let published = async {
            let (exchange, key) = (short(&exchange)?, short(&key)?);
            let options = BasicPublishOptions::default();
            let confirm = channel.basic_publish(exchange, key, options, b"", impossible);
            let confirm = bounded(action, CALL_TIMEOUT, confirm).await?;
            bounded(action, CALL_TIMEOUT, confirm).await.map(|_| ())
        };
        refusal(published.await, settings, connection)?;
    }
    Ok(())
}

/// Begins to consume what the broker must refuse, wherever a worker consumes.
async fn may_read(settings: &AmqpSettings, connection: &Connection) -> Result<(), BrokerError> {
    for queue in ["requests", "steps", "control"] {
        let name = format!("{}.{queue}", settings.prefix);
        let action = || format!("read from {name}");
        let channel = connection::channel(connection, "permissions").await?;
        bounded(
            action,
            CALL_TIMEOUT,
            channel.basic_qos(1, BasicQosOptions::default()),
        )
        .await?;
        let mut impossible = FieldTable::default();
        impossible.insert("x-priority".into(), AMQPValue::LongString("none".into()));
        let consume = channel.basic_consume(
            short(&name)?,
            "".into(),
            BasicConsumeOptions::default(),
            impossible,
        );
        let consumed = bounded(action, CALL_TIMEOUT, consume).await.map(|_| ());
        refusal(consumed, settings, connection)?;
        connection::close_channel(&channel).await;
    }
    Ok(())
}

/// Only "not permitted" is news: a missing object is told elsewhere, and any other refusal is what was asked for.
fn refusal(
    answer: Result<(), BrokerError>,
    settings: &AmqpSettings,
    connection: &Connection,
) -> Result<(), BrokerError> {
    match answer {
        Err(error) if error.code == Some(403) => {
            let status = connection.status();
            let vhost = shell_word(&status.vhost().to_string());
            let user = shell_word(&status.username());
            let remedy = if error.cause.contains("access to topic") {
                format!("rabbitmqctl clear_topic_permissions -p {vhost} {user}")
            } else {
                let all = topology::permissions(&settings.prefix, settings.topology);
                format!("rabbitmqctl set_permissions -p {vhost} {user} {all}")
            };
            Err(error.with_remedy(remedy))
        }
        Err(error) if error.code.is_none() => Err(error),
        Err(_) | Ok(()) => Ok(()),
    }
}

/// A name as one word for a shell.
fn shell_word(name: &str) -> String {
    format!("'{}'", name.replace('\'', r"'\''"))
}
