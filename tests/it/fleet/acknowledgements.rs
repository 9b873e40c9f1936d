//! Acknowledgements that are given in the last moment before a driver closes.

use std::sync::Arc;

use futures_util::future::join_all;
use jiff::Timestamp;
use lapin::BasicProperties;
use nbi_upgrade::clock;
use nbi_upgrade::driver::amqp::{AmqpDriver, AmqpSettings, topology};
use nbi_upgrade::driver::{Destination, Driver, HandOver};
use nbi_upgrade::message::{Codec, EventSettings, RequestSettings};
use nbi_upgrade::telemetry::Telemetry;
use secrecy::SecretString;

use crate::support::rabbit::Node;

/// Far more than the 32 acknowledgements that RabbitMQ passes on at once.
const COUNT: usize = 200;

#[tokio::test]
async fn what_is_acknowledged_right_before_the_end_does_not_come_again() {
    let node = tokio::task::spawn_blocking(Node::shared).await.unwrap();
    let vhost = node.vhost();
    let settings = AmqpSettings {
        urls: vec![SecretString::from(vhost.url())],
        prefetch_requests: 300,
        ..AmqpSettings::default()
    };
    topology::declare_once(&settings).await.unwrap();
    let client = vhost.client().await;
    for number in 0..COUNT {
        let body = format!(
            r#"{{"job_id":"job-{number}","cpe_id":"CPE{number}","firmware_url":"http://files.example/fw.bin","requested_at":"{}"}}"#,
            Timestamp::now()
        );
        let properties = BasicProperties::default();
        client
            .publish("upgrade.requests", "request", body.as_bytes(), properties)
            .await;
    }
    let codec = Codec {
        requests: RequestSettings::default(),
        events: EventSettings {
            source: "/nbi-upgrade/test".to_owned(),
            progress: false,
        },
    };
    let telemetry = Arc::new(Telemetry::default());
    let driver = AmqpDriver::start(settings, codec, telemetry, clock::system());
    let mut in_hand = Vec::new();
    while in_hand.len() < COUNT {
        in_hand.push(driver.receive().await.unwrap());
    }
    driver.stop().await;
    let ended = in_hand.into_iter().map(|delivery| {
        let hand_over = HandOver {
            work: delivery.work,
            to: Destination::Nowhere,
            events: Vec::new(),
        };
        driver.carry_out(delivery.token, hand_over)
    });
    for outcome in join_all(ended).await {
        outcome.unwrap();
    }
    driver.close().await;
    assert_eq!(client.depth("upgrade.requests").await, 0);
}
