//! Rights that are taken away while work is in hand, and given back.

use std::sync::Arc;
use std::time::Duration;

use nbi_upgrade::driver::{Driver, DriverError};

use super::bench::{Bench, PATIENCE, aside, ended, settings, shared_vhost, until};
use crate::support::rabbit::{Node, Vhost};

const ALL: &str = r#"{"configure":".*","write":".*","read":".*"}"#;
/// Everything still stands, is declared and bound; only no event goes out.
const NO_EVENTS: &str =
    r#"{"configure":".*","write":"^(upgrade\\.(?!results$).*|amq\\.default)$","read":".*"}"#;
/// Several times what the driver waits at first between two connections.
const AWHILE: Duration = Duration::from_secs(15);

/// Gives a user these rights; the URL to come in by.
async fn grant(vhost: &Vhost, permissions: &'static str) -> String {
    let vhost = vhost.clone();
    aside(move || Node::shared().user(&vhost, "muted", permissions)).await
}

#[tokio::test]
async fn a_right_to_publish_that_is_taken_away_for_a_while_brings_no_job_closer_to_its_delivery_limit()
 {
    let vhost = shared_vhost().await;
    let url = grant(&vhost, ALL).await;
    let bench = Bench::with(&vhost, settings(&url)).await;
    bench.submit("job").await;
    let delivery = bench.receive().await;
    grant(&vhost, NO_EVENTS).await;
    let driver = Arc::clone(&bench.driver);
    let carried =
        tokio::spawn(async move { driver.carry_out(delivery.token, ended(delivery.work)).await });
    tokio::time::sleep(AWHILE).await;
    let redelivered = "messages_redelivered_total{queue=\"requests\"}";
    let times = bench.metric(redelivered);
    assert!(times <= 1.0, "delivered again {times} times");
    let said = "not ready; broker: the connection is lost: failed to write to upgrade.results: ";
    until("what is missing", PATIENCE, async || {
        bench.telemetry.readiness().to_string().starts_with(said)
    })
    .await;
    assert!(!carried.is_finished());
    grant(&vhost, ALL).await;
    let outcome = tokio::time::timeout(PATIENCE, carried).await;
    let outcome = outcome.expect("it goes on").unwrap();
    assert!(
        matches!(outcome, Err(DriverError::NotAcknowledged { .. })),
        "{outcome:?}"
    );
    bench.metric_reaches("duplicates_dropped_total", 1.0).await;
    let times = bench.metric(redelivered);
    assert!(times <= 2.0, "delivered again {times} times");
    bench.settles_at("upgrade.events", 1).await;
    for queue in ["upgrade.requests", "upgrade.steps", "upgrade.dead"] {
        bench.settles_at(queue, 0).await;
    }
    bench.end().await;
}
