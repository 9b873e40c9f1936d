//! Memory alarms: the broker takes no more publishes, and says so.

use std::sync::Arc;
use std::time::Duration;

use nbi_upgrade::driver::amqp::AmqpSettings;
use nbi_upgrade::driver::{Destination, Driver, DriverError};

use super::bench::{Bench, PATIENCE, aside, next, settings, to, until};
use crate::support::proxy::Proxy;
use crate::support::rabbit::Node;

/// Longer than two heartbeats and than the patience with a missing confirm: neither may end the connections.
const ALARM: Duration = Duration::from_secs(8);

#[tokio::test]
async fn a_memory_alarm_pauses_the_intake_and_costs_only_time() {
    let node = Arc::new(aside(Node::start).await);
    let vhost = node.vhost();
    // Aside, as the connections' heartbeats live in this runtime.
    let watermark = async |arguments: &'static [&'static str]| {
        let node = Arc::clone(&node);
        let all = [&["set_vm_memory_high_watermark"], arguments].concat();
        aside(move || node.control(&all)).await;
    };
    let bench = Bench::with(
        &vhost,
        AmqpSettings {
            heartbeat: Duration::from_secs(3),
            publish_timeout: Duration::from_secs(2),
            prefetch_requests: 2,
            ..settings(&vhost.url())
        },
    )
    .await;
    for job in ["a", "b", "c"] {
        bench.submit(job).await;
    }
    let first = bench.receive().await;
    let second = bench.receive().await;
    watermark(&["0.00001"]).await;

    // The broker says it to whoever publishes.
    let driver = Arc::clone(&bench.driver);
    let carried = tokio::spawn(async move {
        driver
            .carry_out(first.token, to(next(first.work), Destination::Now))
            .await
    });
    bench.metric_becomes("broker_blocked", 1.0).await;
    // Acknowledgements take another connection; there is room for a third request now, and nobody takes it.
    bench.driver.reject(second.token).await;
    bench.settles_at("upgrade.requests", 2).await;
    assert!(bench.receives_nothing(ALARM).await);
    bench.settles_at("upgrade.requests", 2).await;
    assert!(!carried.is_finished());
    assert_eq!(bench.metric("broker_connected"), 1.0);

    // An operator is told what his order waits for, and that nobody knows whether it was given.
    let mut order = tokio::process::Command::new(env!("CARGO_BIN_EXE_nbi-upgrade"));
    order
        .args(["pause", "--campaign", "nowhere", "--timeout", "3s"])
        .env_clear()
        .env("NBI_UPGRADE_AMQP__URL", vhost.url());
    let ended = tokio::time::timeout(PATIENCE, order.kill_on_drop(true).output()).await;
    let output = ended.expect("it ends").expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in [
        "the broker takes no messages: ",
        "it is not known whether the order was given",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }

    watermark(&["absolute", "4GB"]).await;
    carried.await.unwrap().unwrap();
    bench.metric_becomes("broker_blocked", 0.0).await;
    for _ in 0..3 {
        let delivery = bench.receive().await;
        bench.finish(delivery).await;
    }
    assert_eq!(bench.metric("broker_reconnects_total"), 0.0);
    assert_eq!(bench.metric("duplicates_dropped_total"), 0.0);
    for queue in ["upgrade.requests", "upgrade.steps", "upgrade.dead"] {
        bench.settles_at(queue, 0).await;
    }

    // A worker that stops during an alarm does not wait for its end.
    bench.submit("d").await;
    let delivery = bench.receive().await;
    watermark(&["0.00001"]).await;
    let driver = Arc::clone(&bench.driver);
    let carried = tokio::spawn(async move {
        driver
            .carry_out(delivery.token, to(next(delivery.work), Destination::Now))
            .await
    });
    bench.metric_becomes("broker_blocked", 1.0).await;
    let took = bench.end().await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    let outcome = carried.await.unwrap();
    assert!(
        matches!(outcome, Err(DriverError::NotPublished { .. })),
        "{outcome:?}"
    );
    let client = vhost.client().await;
    super::bench::settles_at(&client, "upgrade.requests", 1).await;

    // One that starts during an alarm says what it waits for. Its connections end, and the alarm ends before it is back: of what the lost
    // connection was told, nothing stays.
    let mut proxy = Proxy::closed(&vhost.address());
    proxy.open().await;
    let detour = format!("amqp://guest:guest@{}/{}", proxy.address(), vhost.name());
    let bench = Bench::with(&vhost, settings(&detour)).await;
    let waits = |bench: &Bench| {
        let readiness = bench.telemetry.readiness().to_string();
        readiness.starts_with("not ready; broker: it blocks publishers: ")
    };
    until("told of the alarm", PATIENCE, async || waits(&bench)).await;
    proxy.close().await;
    watermark(&["absolute", "4GB"]).await;
    bench.metric_becomes("broker_blocked", 0.0).await;
    proxy.open().await;
    let delivery = bench.receive().await;
    bench.finish(delivery).await;
    assert_eq!(bench.metric("broker_blocked"), 0.0);
    assert!(bench.telemetry.readiness().is_ready());
    bench.end().await;
    aside(move || drop(node)).await;
}
