//! Keeps one generation of connections alive, and builds the next when it ends.
//!
//! A generation is two connections (RabbitMQ blocks publishers per connection), the topology, publishing channels, what operators have
//! ordered, and the consumers. It
//! lives and ends as a whole: one path for every failure. Between generations the wait grows from half a second to ten seconds, with full
//! jitter, so that many workers do not come back in step; what no retry heals is tried at the longest wait, and said precisely.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;
use futures_util::{FutureExt, Stream, StreamExt};
use lapin::{Channel, Connection, ConnectionStatus, Event};
use secrecy::SecretString;
use tokio::task::JoinSet;

use super::campaign;
use super::connection::{self, Ending, Purpose, guarded};
use super::consume::{Intaker, Source};
use super::depths;
use super::error::{self, BrokerError, is_of_a_channel};
use super::probe;
use super::publish::Publisher;
use super::settings::AmqpSettings;
use super::shared::{Link, Shared};
use super::topology;
use super::{answers, orders};

/// A generation that lived this long was healthy: the waits start from the shortest again.
const HEALTHY_AFTER: Duration = Duration::from_secs(30);
/// Besides two heartbeats, how long before its end a connection may have been dead already.
const UNCERTAIN: Duration = Duration::from_secs(60);
/// Full jitter may draw zero; this keeps a broker that refuses at once from being hammered.
const WAIT_MIN: Duration = Duration::from_millis(100);
/// The same for what no retry heals.
const WAIT_PERMANENT_MIN: Duration = Duration::from_secs(5);

/// Runs until the driver closes.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut waits = waits();
    // Workers of a fleet begin at different brokers of the list; then each goes through it in a circle.
    let first = usize::from(fastrand::u16(..));
    let mut number = 0;
    let mut ending = Arc::new(Ending::default());
    while !shared.closing.is_cancelled() {
        let urls = connection::brokers(&shared.settings).await;
        let url = urls.map(|urls| urls.get((first + number) % urls.len().max(1)).cloned());
        number += 1;
        let begun = Instant::now();
        let (broker, outcome) = match url {
            Ok(Some(url)) => {
                let broker = connection::redacted(&url);
                ending = Arc::new(ending.next());
                (broker, generation(&shared, number, &url, &ending).await)
            }
            Ok(None) => {
                let reason = "no URL is configured";
                return shared.telemetry.broker_lost("", reason, Duration::MAX);
            }
            Err(error) => (String::new(), Err(error)),
        };
        if shared.closing.is_cancelled() {
            return;
        }
        if begun.elapsed() >= HEALTHY_AFTER {
            waits.reset();
        }
        let (reason, is_permanent) = match &outcome {
            Ok(reason) => (reason.clone(), false),
            Err(error) => (error.to_string(), error.is_permanent()),
        };
        let wait = next_wait(&mut waits, is_permanent);
        shared.telemetry.broker_lost(&broker, &reason, wait);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shared.closing.cancelled() => {}
        }
    }
}

/// Full jitter is a factor of 1 around the interval: from zero to twice of it.
fn waits() -> ExponentialBackoff {
    ExponentialBackoff {
        current_interval: Duration::from_millis(250),
        initial_interval: Duration::from_millis(250),
        randomization_factor: 1.0,
        multiplier: 2.0,
        // Jobs wait meanwhile: a broker that is back should not be waited for half a minute more.
        max_interval: Duration::from_secs(5),
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    }
}

fn next_wait(waits: &mut ExponentialBackoff, is_permanent: bool) -> Duration {
    let at_least = if is_permanent {
        WAIT_PERMANENT_MIN
    } else {
        WAIT_MIN
    };
    if is_permanent {
        waits.current_interval = waits.max_interval;
    }
    waits
        .next_backoff()
        .unwrap_or(waits.max_interval)
        .max(at_least)
}

/// One generation, from connect to end; the reason of its end, or why it never stood.
async fn generation(
    shared: &Arc<Shared>,
    number: usize,
    url: &SecretString,
    ending: &Arc<Ending>,
) -> Result<String, BrokerError> {
    let built = tokio::select! {
        built = unharmed(build(shared, number, url, ending)) => built,
        () = shared.closing.cancelled() => return Ok("closed".to_owned()),
    };
    let built = built.inspect_err(|_| unblocked(shared))?;
    for intaker in built.intakers {
        shared.consumers.spawn(intaker.run());
    }
    shared.consumers.spawn(guarded(
        Arc::clone(ending),
        "campaigns",
        campaign::run(
            Arc::clone(shared),
            Arc::clone(&built.link),
            Arc::clone(&built.consuming),
        ),
    ));
    shared.link.send_replace(Some(Arc::clone(&built.link)));
    shared
        .telemetry
        .broker_connected(&connection::redacted(url));
    tokio::select! {
        () = ending.ended() => {}
        () = shared.closing.cancelled() => ending.end("closed"),
    }
    shared.link.send_replace(None);
    unblocked(shared);
    if !shared.closing.is_cancelled() {
        // Closing may take some seconds.
        shared.telemetry.broker_gone(&ending.reason());
    }
    tokio::join!(
        connection::close(&built.consuming),
        connection::close(&built.publishing)
    );
    shared.inbox.purge(number);
    shared
        .ledger
        .generation_ended(number, 2 * shared.settings.heartbeat + UNCERTAIN);
    Ok(ending.reason())
}

/// A panic while a generation is built must not end the supervisor: nobody would connect any more.
async fn unharmed<T>(
    building: impl Future<Output = Result<T, BrokerError>>,
) -> Result<T, BrokerError> {
    let built = AssertUnwindSafe(building).catch_unwind().await;
    built.unwrap_or_else(|_| {
        let cause = "it panicked, which is a fault of this worker; please report it";
        Err(BrokerError::new("build a connection", cause))
    })
}

/// A block ends with its connection: the next one is told anew.
fn unblocked(shared: &Shared) {
    if shared.blocked.send_replace(None).is_some() {
        shared.telemetry.broker_blocked(None);
    }
}

/// What a generation consists of.
struct Built {
    link: Arc<Link>,
    intakers: Vec<Intaker>,
    publishing: Arc<Connection>,
    consuming: Arc<Connection>,
    /// Deliveries in hand are settled through these after their consumers have ended, and dropping a channel closes it.
    _channels: Vec<Channel>,
    /// Owned here: they end with the generation.
    _watchers: JoinSet<()>,
}

async fn build(
    shared: &Arc<Shared>,
    number: usize,
    url: &SecretString,
    ending: &Arc<Ending>,
) -> Result<Built, BrokerError> {
    let settings = &shared.settings;
    let (publishing, consuming) = tokio::try_join!(
        connection::connect(settings, url, Purpose::Publishing),
        connection::connect(settings, url, Purpose::Consuming),
    )?;
    let mut watchers = JoinSet::new();
    let (publishing, consuming) = (Arc::new(publishing), Arc::new(consuming));
    for connection in [&publishing, &consuming] {
        let events = connection.events_listener();
        let status = connection.status().clone();
        let watching = watch(events, status, Arc::clone(shared), Arc::clone(ending));
        watchers.spawn(guarded(
            Arc::clone(ending),
            "a connection's events",
            watching,
        ));
    }
    topology::apply(&consuming, settings, settings.topology).await?;
    if ending.may_not_publish.load(Ordering::Relaxed) {
        look_at_permission(settings, url, ending).await?;
    }
    let blocked = shared.blocked.subscribe();
    let publisher = Publisher::open(
        Arc::clone(&publishing),
        settings,
        Arc::clone(ending),
        blocked,
        Arc::clone(&shared.telemetry),
    )
    .await?;
    let link = Arc::new(Link {
        number,
        publisher,
        ending: Arc::clone(ending),
        acknowledged_at: Mutex::new(None),
    });
    let commands = orders::load(shared, &link.publisher, &consuming).await?;
    let following = orders::follow(Arc::clone(shared), Arc::clone(ending), commands);
    watchers.spawn(guarded(Arc::clone(ending), "orders", following));
    let channel = connection::channel(&consuming, "commands").await?;
    let answering = answers::run(Arc::clone(shared), Arc::clone(&link), channel);
    watchers.spawn(guarded(
        Arc::clone(ending),
        "answers to commands",
        answering,
    ));
    let (mut intakers, mut channels) = (Vec::new(), Vec::new());
    for source in Source::ALL {
        let channel = connection::channel(&consuming, source.label()).await?;
        channels.push(channel.clone());
        intakers.push(Intaker::new(
            Arc::clone(shared),
            Arc::clone(&link),
            channel,
            source,
        ));
    }
    let asking = depths::follow(
        Arc::clone(&consuming),
        Arc::clone(shared),
        Arc::clone(ending),
    );
    watchers.spawn(guarded(Arc::clone(ending), "depths", asking));
    Ok(Built {
        link,
        intakers,
        publishing,
        consuming,
        _channels: channels,
        _watchers: watchers,
    })
}

/// After a refusal nothing is consumed before the broker would take what we publish: what is in hand comes again with every generation, and
/// each time counts towards its delivery limit.
///
/// On a connection of its own, as an alarm blocks the one that publishes. What the broker does not answer then is not refused.
async fn look_at_permission(
    settings: &AmqpSettings,
    url: &SecretString,
    ending: &Ending,
) -> Result<(), BrokerError> {
    let Ok(connection) = connection::connect(settings, url, Purpose::Topology).await else {
        return Ok(());
    };
    let answer = probe::may_write(settings, &connection).await;
    connection::close(&connection).await;
    match answer {
        Ok(()) => ending.may_not_publish.store(false, Ordering::Relaxed),
        Err(error) if error.code == Some(403) => return Err(error),
        Err(_) => {}
    }
    Ok(())
}

/// Follows a connection's events until the generation ends. A blocked connection is waited out, and what ends one channel alone is for
/// whoever uses that to notice.
async fn watch(
    events: impl Stream<Item = Event> + Send,
    status: ConnectionStatus,
    shared: Arc<Shared>,
    ending: Arc<Ending>,
) {
    tokio::pin!(events);
    loop {
        let event = tokio::select! {
            biased;
            // What is told after the end would outlive the connection.
            () = ending.ended() => return,
            event = events.next() => event,
        };
        match event {
            Some(Event::ConnectionBlocked(reason)) => {
                shared.telemetry.broker_blocked(Some(&reason));
                shared.blocked.send_replace(Some(reason));
            }
            Some(Event::ConnectionUnblocked) => {
                shared.telemetry.broker_blocked(None);
                shared.blocked.send_replace(None);
            }
            Some(Event::Error(error)) if is_of_a_channel(&error, &status) => {}
            Some(Event::Error(error)) => ending.end(error::text(&error)),
            Some(_) => {}
            None => ending.end("the connection's events ended"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_ten_seconds_and_never_end() {
        let mut waits = waits();
        let drawn: Vec<_> = (0..200).map(|_| next_wait(&mut waits, false)).collect();
        assert!(drawn[0] <= Duration::from_millis(501), "{:?}", drawn[0]);
        assert!(
            drawn
                .iter()
                .all(|wait| (WAIT_MIN..=Duration::from_millis(10_001)).contains(wait))
        );
        assert!(
            drawn[100..]
                .iter()
                .any(|wait| *wait > Duration::from_secs(5))
        );
    }

    #[tokio::test]
    async fn a_panic_while_a_generation_is_built_is_an_error_and_not_the_end() {
        assert_eq!(unharmed(async { Ok(1) }).await, Ok(1));
        let poison = async { panic!("poison") };
        let error = unharmed::<u8>(poison).await.unwrap_err();
        assert!(!error.is_permanent(), "{error}");
        assert!(error.to_string().contains("it panicked"), "{error}");
    }

    #[test]
    fn what_no_retry_heals_waits_long_at_once() {
        assert!(next_wait(&mut waits(), true) >= WAIT_PERMANENT_MIN);
    }
}
