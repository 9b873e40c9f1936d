//! The composition root: configuration in, parts out, and the running worker. The one place that chooses implementations.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::SignedDuration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::config::nbi::Share;
use crate::config::{Config, NbiAccess, amqp, log};
use crate::driver::amqp::{AmqpDriver, AmqpSettings, TlsSettings, TopologyMode};
use crate::driver::{Driver, Intake};
use crate::message::Codec;
use crate::nbi::budget::{Budget, Budgets};
use crate::nbi::circuit::{CircuitSettings, CircuitState};
use crate::nbi::http::{ClientCertificate, HttpSettings};
use crate::nbi::{HttpTransport, NbiClient, NbiSettings, probe_when_idle};
use crate::orphan::{self, EventHistory, Naming, Periodic};
use crate::telemetry::trace::SpanSettings;
use crate::telemetry::{self, REVISION, Telemetry, VERSION};
use crate::worker::{Grace, Worker};

/// What giving jobs back to the broker may take at the end of the time of grace.
const GIVE_BACK: Duration = Duration::from_secs(5);

/// What closing the connections may take after that.
const CLOSE: Duration = Duration::from_secs(5);

/// Runs the service until a signal ends it.
///
/// # Errors
///
/// What is missing in the configuration, or could not be opened. A broker that is away is no error: the worker waits for it.
pub async fn run_worker(config: Config) -> anyhow::Result<()> {
    let (urls, access) = config.require_both()?;
    init_log(&config)?;
    let telemetry = Arc::new(start_telemetry(&config, &access)?);
    telemetry.worker_named(&config.amqp.prefix, &config.instance.name);
    let listener = TcpListener::bind(config.http.listen)
        .await
        .with_context(|| {
            format!(
                "failed to listen on {} (`http.listen`); is another worker running here?",
                config.http.listen
            )
        })?;
    let nbi = Arc::new(nbi_client(&config, &access, Arc::clone(&telemetry))?);
    let codec = codec(&config);
    let settings = AmqpSettings {
        urls,
        ..amqp_settings(&config)
    };
    let driver = Arc::new(AmqpDriver::start(
        settings.clone(),
        codec.clone(),
        Arc::clone(&telemetry),
        clock::system(),
    ));

    let stop = CancellationToken::new();
    let end = CancellationToken::new();
    let mut beside = JoinSet::new();
    beside.spawn(follow_circuit(nbi.circuit(), Arc::clone(&driver)));
    beside.spawn(probe_when_idle(Arc::clone(&nbi)));
    if !config.sweep.interval.is_zero() {
        let (nbi, driver) = (Arc::clone(&nbi), Arc::clone(&driver));
        beside.spawn(sweep_now_and_then(
            config.clone(),
            settings.clone(),
            nbi,
            driver,
            Arc::clone(&telemetry),
        ));
    }
    beside.spawn(until_signalled(stop.clone())?);
    let (served, ended) = (Arc::clone(&telemetry), end.clone());
    beside.spawn(async move {
        let served_by = Arc::clone(&served);
        if let Err(error) = telemetry::http::serve(listener, served, ended).await {
            served_by.endpoint_failed(&error);
        }
    });
    telemetry.started(&config.instance.name, config.http.listen);
    let worker = Worker::new(
        nbi,
        driver,
        codec,
        config.policy(),
        Arc::clone(&telemetry),
        clock::system(),
    );
    worker.run(stop, grace(&config)).await;
    telemetry.stopped();
    // Bounded by itself.
    let last = Arc::clone(&telemetry);
    drop(tokio::task::spawn_blocking(move || last.send_last_spans()).await);
    end.cancel();
    beside.shutdown().await;
    Ok(())
}

/// Looks for rules that no job owns, while this worker is the one that leads.
async fn sweep_now_and_then(
    config: Config,
    broker: AmqpSettings,
    nbi: Arc<NbiClient<HttpTransport>>,
    driver: Arc<AmqpDriver>,
    telemetry: Arc<Telemetry>,
) {
    let periodic = Periodic {
        interval: duration(config.sweep.interval).max(Duration::from_secs(1)),
        disarm: config.sweep.disarm,
        settings: sweep_settings(&config),
    };
    let connect = || {
        let broker = broker.clone();
        async {
            let history = EventHistory::connect(broker).await;
            history.map_err(|error| error.to_string())
        }
    };
    let leads = || driver.leads();
    orphan::watch(
        &periodic,
        &*nbi,
        connect,
        leads,
        &telemetry,
        clock::system(),
    )
    .await;
}

/// How rules that no job owns are looked for, as configured.
#[must_use]
pub fn sweep_settings(config: &Config) -> orphan::Settings {
    orphan::Settings {
        naming: Naming::new(&config.nbi.rule_id),
        job_timeout: config.job.timeout,
        older_than: config.sweep.older_than,
        is_one_by_one: false,
    }
}

/// Metrics and lines, and spans if a collector is configured.
fn start_telemetry(config: &Config, access: &NbiAccess) -> anyhow::Result<Telemetry> {
    let telemetry = Telemetry::new(VERSION, REVISION);
    let Some(endpoint) = &config.otel.endpoint else {
        return Ok(telemetry);
    };
    let host = access.url.host_str().unwrap_or_default().to_owned();
    let port = access.url.port_or_known_default().unwrap_or_default();
    Ok(telemetry.with_spans(SpanSettings {
        endpoint: endpoint.to_string(),
        sample_ratio: config.otel.sample_ratio,
        instance: config.instance.name.clone(),
        prefix: config.amqp.prefix.clone(),
        nbi: (host, port),
    })?)
}

/// Starts the log as configured.
///
/// # Errors
///
/// When a log was started before.
pub fn init_log(config: &Config) -> anyhow::Result<()> {
    match config.log.format {
        log::Format::Json => telemetry::log::init_json(&config.log.level)?,
        log::Format::Text => telemetry::log::init_text(&config.log.level)?,
    }
    Ok(())
}

/// The wire formats as configured.
#[must_use]
pub fn codec(config: &Config) -> Codec {
    Codec {
        requests: config.requests(),
        events: config.events(),
    }
}

/// The NBI over HTTP as configured.
///
/// # Errors
///
/// A certificate file that cannot be read, or an address that cannot be spoken to.
pub fn nbi_client(
    config: &Config,
    access: &NbiAccess,
    telemetry: Arc<Telemetry>,
) -> anyhow::Result<NbiClient<HttpTransport>> {
    let transport = nbi_transport(config, access, config.nbi.max_response_bytes)?
        .telling(Arc::clone(&telemetry));
    Ok(NbiClient::new(transport, nbi_settings(config), telemetry))
}

/// The way to the NBI as configured, without limits and retries; answers may have so many bytes.
///
/// # Errors
///
/// As [`nbi_client`].
pub fn nbi_transport(
    config: &Config,
    access: &NbiAccess,
    max_response_bytes: usize,
) -> anyhow::Result<HttpTransport> {
    let nbi = &config.nbi;
    Ok(HttpTransport::new(&HttpSettings {
        url: access.url.to_string(),
        username: access.username.clone(),
        password: access.password.clone(),
        password_file: nbi.password_file.clone(),
        timeout: duration(nbi.timeout),
        connect_timeout: duration(nbi.connect_timeout),
        ca_file: nbi.tls.ca_file.clone(),
        client_certificate: nbi.tls.client.as_ref().map(|client| ClientCertificate {
            cert_file: client.cert_file.clone(),
            key_file: client.key_file.clone(),
        }),
        // The configuration has refused plain http already unless `nbi.allow_http` is on.
        allow_http: true,
        max_response_bytes,
        max_concurrency: nbi.max_concurrency,
    })?)
}

/// How the NBI is asked, as configured.
#[must_use]
pub fn nbi_settings(config: &Config) -> NbiSettings {
    let nbi = &config.nbi;
    NbiSettings {
        result_query: nbi.result_query.clone(),
        rule_query: nbi.rule_query.clone(),
        version_method: config.verify.method.clone(),
        version_parameters: config.verify.parameters.clone(),
        max_concurrency: nbi.max_concurrency,
        requests_per_second: (nbi.requests_per_second > 0.0).then_some(nbi.requests_per_second),
        budgets: Budgets {
            writes: budget(&nbi.writes),
            connection_requests: budget(&nbi.connection_requests),
            reads: budget(&nbi.reads),
        },
        is_adaptive: nbi.adaptive,
        quick_retries: nbi.quick_retries,
        quick_retry_initial: duration(nbi.quick_retry_initial),
        quick_retry_max_elapsed: duration(nbi.quick_retry_max_elapsed),
        circuit: CircuitSettings {
            failures_to_open: nbi.circuit_failures,
            open_initial: duration(nbi.circuit_open_initial),
            open_max: duration(nbi.circuit_open_max),
        },
    }
}

/// What one class of calls may take; zero leaves it to the overall bound.
fn budget(share: &Share) -> Budget {
    Budget {
        max_concurrency: (share.max_concurrency > 0).then_some(share.max_concurrency),
        per_second: (share.per_second > 0.0).then_some(share.per_second),
        timeout: Some(duration(share.timeout)).filter(|timeout| !timeout.is_zero()),
    }
}

/// The broker as configured, without its URLs.
#[must_use]
pub fn amqp_settings(config: &Config) -> AmqpSettings {
    let amqp = &config.amqp;
    let client = amqp.tls.client.as_ref();
    AmqpSettings {
        urls: amqp.urls.clone(),
        url_file: amqp.url_file.clone(),
        prefix: amqp.prefix.clone(),
        prefetch: amqp.prefetch,
        prefetch_requests: amqp.prefetch_requests,
        topology: match amqp.topology {
            amqp::Topology::Declare => TopologyMode::Declare,
            amqp::Topology::Check => TopologyMode::Check,
        },
        instance_name: config.instance.name.clone(),
        heartbeat: duration(amqp.heartbeat),
        connect_timeout: duration(amqp.connect_timeout),
        publish_timeout: duration(amqp.publish_timeout),
        events_max_age: max_age(config.events.retention),
        events_max_length_bytes: config.events.retention_bytes,
        control_max_age: max_age(amqp.control_retention),
        control_kept_for: amqp.control_retention,
        reply_to_allowed: amqp.reply_to_allowed.clone(),
        campaign_progress_interval: duration(config.campaign.progress_interval),
        campaign_arm_again_after: config.job.flash_time_max,
        tls: TlsSettings {
            ca_file: amqp.tls.ca_file.clone(),
            client_cert_file: client.map(|client| client.cert_file.clone()),
            client_key_file: client.map(|client| client.key_file.clone()),
        },
        ..AmqpSettings::default()
    }
}

/// `shutdown.grace`, split: most of it for finishing, the last seconds for giving back and for closing.
#[must_use]
pub fn grace(config: &Config) -> Grace {
    let all = duration(config.shutdown.grace);
    let give_back = GIVE_BACK.min(all / 3);
    Grace {
        finish: all.saturating_sub(give_back + CLOSE.min(all / 3)),
        give_back,
    }
}

/// An age in RabbitMQ's notation, in the largest unit that fits evenly: another spelling would be another argument.
fn max_age(age: SignedDuration) -> String {
    let seconds = age.as_secs().max(1);
    [("D", 86_400), ("h", 3_600), ("m", 60)]
        .into_iter()
        .find(|(_, unit)| seconds % unit == 0)
        .map_or_else(
            || format!("{seconds}s"),
            |(name, unit)| format!("{}{name}", seconds / unit),
        )
}

fn duration(duration: SignedDuration) -> Duration {
    Duration::try_from(duration).unwrap_or_default()
}

/// Takes in nothing while the NBI is away, one delivery at a time when it may be back, everything once it is. Ends with the NBI's client.
pub async fn follow_circuit<D: Driver>(mut circuit: watch::Receiver<CircuitState>, driver: Arc<D>) {
    loop {
        let state = *circuit.borrow_and_update();
        let wakes_at = match state {
            CircuitState::Closed => {
                driver.set_intake(Intake::Open);
                None
            }
            CircuitState::Probing => {
                driver.set_intake(Intake::Probe);
                None
            }
            CircuitState::Open { until } => {
                driver.set_intake(Intake::Closed);
                Some(until)
            }
        };
        let changed = match wakes_at {
            None => circuit.changed().await,
            Some(until) => tokio::select! {
                changed = circuit.changed() => changed,
                () = tokio::time::sleep_until(until) => {
                    // The circuit lets one call through now. A delivery may bring it; where none comes, `probe_when_idle` does.
                    driver.set_intake(Intake::Probe);
                    circuit.changed().await
                }
            },
        };
        if changed.is_err() {
            return;
        }
    }
}

/// The first SIGTERM or SIGINT cancels `stop`; the second ends the process at once, and the broker takes everything back.
///
/// # Errors
///
/// When the process may not listen to signals.
pub fn until_signalled(
    stop: CancellationToken,
) -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen to SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen to SIGINT")?;
    Ok(async move {
        for is_first in [true, false] {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if is_first {
                Telemetry::signalled(name);
                stop.cancel();
            } else {
                telemetry::log::flush();
                std::process::exit(130);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_zero_is_no_bound_of_its_own() {
        let share = Share {
            max_concurrency: 0,
            per_second: 0.0,
            timeout: SignedDuration::ZERO,
        };
        assert_eq!(budget(&share), Budget::default());
        let share = Share {
            max_concurrency: 3,
            per_second: 0.5,
            timeout: SignedDuration::from_secs(7),
        };
        assert_eq!(
            budget(&share),
            Budget {
                max_concurrency: Some(3),
                per_second: Some(0.5),
                timeout: Some(Duration::from_secs(7)),
            }
        );
    }

    #[test]
    fn ages_have_one_spelling() {
        for (seconds, text) in [
            (604_800, "7D"),
            (86_400, "1D"),
            (90_000, "25h"),
            (3_660, "61m"),
            (61, "61s"),
            (0, "1s"),
        ] {
            assert_eq!(max_age(SignedDuration::from_secs(seconds)), text);
        }
    }
}
